"""Train one network of your own choice, once or with several seeds.

Every setting is an option; without any, it is the network f=4, nf=10, nh=50,
trained as by default in Python. Prints a table, and writes it to the output
folder with the histories, the trained networks and figures. --help lists the
settings with their defaults; several --filter-size and --n-filters, or several
--n-hidden, make parallel branches or several hidden layers:

    cyconv train --filter-size 4 8 --n-filters 24 32 --n-hidden 300 --flip
    cyconv train --data my.npz --n-hidden 300 100 --eta-max 0.05 --seeds 3

Without CIFAR-10 or --data it uses a synthetic data set of shapes, and says so.
"""

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._checks import check_integer
from ..._typing import Sizes
from ...datasets import Dataset
from .. import cli, plots, report
from ..output_folder import OutputFolder
from ..results import Result
from ..runs import MODES, OPTIMIZER_NAMES, Run, over_seeds
from ..usage import usage

OUTPUT = "results/train"
SEEDS = 1
QUICK = {"step_size": 100, "log_every": 50}
#: What the settings are.
HELP = {
    "filter_size": "width of the filters and their stride, in pixels; several for parallel branches",
    "n_filters": "number of filters; several for parallel branches",
    "n_hidden": "number of hidden units; several for several layers",
    "dtype": "precision",
    "eta_min": "lowest learning rate, where each cycle starts and ends",
    "eta_max": "highest learning rate of the first cycle",
    "step_size": "half of the first cycle, in update steps",
    "n_cycles": "number of cycles",
    "growth": "ratio of the lengths of successive cycles",
    "eta_max_decay": "ratio of the highest learning rates of successive cycles",
    "mode": "shape of the schedule; one_cycle and constant have as many steps as the cycles",
    "gamma": "decay of the learning rate with each step in the mode exp_range",
    "warmup": "update steps before the schedule in which the learning rate rises",
    "batch_size": "images in a batch",
    "l2": "weight decay λ",
    "label_smoothing": "ε, the probability that is distributed over the wrong classes",
    "optimizer": "update rule",
    "momentum": "momentum of sgd and nesterov",
    "weight_decay": "decoupled weight decay of adamw",
    "dropout": "fraction of the hidden units that is dropped",
    "flip": "mirror images at random",
    "shift": "shift images at random by up to this many pixels",
    "cutout": "width of the square that is cut out of each image, in pixels",
    "snapshots": "evaluate the ensemble of the networks at the ends of the cycles, too",
    "views": "evaluate the mean over all views that flip and shift allow, too",
    "seed": "the first seed, from which --seeds counts",
    "log_every": "number of update steps between points of the curves",
    "n_train_evaluated": "number of training images on which the training curves are measured, or 'all'",
}
CHOICES = {"dtype": ("float32", "float64"), "mode": MODES, "optimizer": OPTIMIZER_NAMES}
FIELDS = [field for field in dataclasses.fields(Run) if field.name not in ("name", "label")]
OPTIONS = {field.name: f"--{field.name.replace('_', '-')}" for field in FIELDS}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.experiment_parser(__doc__, OUTPUT, SEEDS)
    cli.add_workers_option(parser)
    group = parser.add_argument_group("settings of the run")
    types = typing.get_type_hints(Run)
    for field in FIELDS:
        name, kind, text = field.name, types[field.name], HELP.get(field.name, "")
        described = f"{text} (default: {field.default}{f'; {QUICK[name]} with --quick' if name in QUICK else ''})"
        if kind is bool:
            group.add_argument(OPTIONS[name], action="store_true", default=None, help=text)
        elif kind is str:
            group.add_argument(OPTIONS[name], choices=CHOICES.get(name), help=described)
        elif kind == int | Sizes:
            group.add_argument(OPTIONS[name], metavar="N", nargs="+", type=int, help=described)
        elif kind is float:
            group.add_argument(OPTIONS[name], metavar="X", type=float, help=described)
        else:
            group.add_argument(OPTIONS[name], metavar="N", type=int if kind is int else count_or_all, help=described)
    return parser.parse_args(argv)


def count_or_all(text: str) -> int | str:
    """For argparse: an integer of at least 1, or ``"all"``."""
    return text if text == "all" else cli.positive_integer(text)


def chosen_run(arguments: argparse.Namespace) -> Run:
    """The run that the arguments ask for, unchecked."""
    settings: dict[str, Any] = dict(QUICK) if arguments.quick else {}
    for name in OPTIONS:
        value = getattr(arguments, name)
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else tuple(value)
        if value is not None:
            settings[name] = None if value == "all" else value
    return Run(**settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = parse(argv)
    source, data = cli.load_data(arguments)
    run = chosen_run(arguments)
    with usage(**OPTIONS, n_seeds="--seeds", first="--seed"):
        check_integer("batch_size", run.batch_size, 1, len(data.train))
        runs = over_seeds([run], cli.n_seeds(arguments), run.seed)
        for each in (runs[0], runs[-1]):
            each.check(data.image_shape, data.n_classes)
    return cli.run_experiment("train", "Training", runs, source, data, arguments, write_sections)


class TrainSection(report.Section):
    """A section that says what one run, or several that differ only in their seed, can tell."""

    @property
    def sentence(self) -> str:
        """str: how the numbers are to be read."""
        if len(self.summaries) > 1:
            return super().sentence
        if len(self.summaries[0].seeds) > 1:
            return "The runs differ only in their seed, which decides the initial weights and everything random."
        return "One run cannot tell how much results vary with the seed: --seeds N trains N of them."


def write_sections(
    results: Sequence[Result], data: Dataset, folder: OutputFolder, arguments: argparse.Namespace
) -> list[report.Section]:
    """Draw the figures; return the section of the report, alone."""
    run, finished = results[0].run, [result for result in results if result.complete]
    schedule = run.schedule()
    cycles, boundaries = report.describe_cycles(schedule), schedule.boundaries
    origin = f", {cycles}\n" + report.describe_origin(data, arguments.quick, len(finished) == len(results))
    histories = {run.label: [result.history for result in finished or results]}
    (row,) = report.summarise(results)
    rows = [dataclasses.replace(row, ensemble_accuracy=[], view_accuracy=[])]
    if row.view_accuracy:
        rows.append(report.view_row(row, run.n_views))
    if row.ensemble_accuracy:
        rows.append(report.ensemble_row(row, len(boundaries)))

    figures = {
        "curves": plots.plot_comparison(histories, f"Learning curves{origin}", boundaries),
        "train-validation": plots.plot_train_validation(histories, f"Training and validation{origin}", boundaries),
        "learning-rate": plots.plot_learning_rate(schedule, f"Learning rate{origin}"),
        "filters": plots.plot_filters(
            {f"{array.shape[-1]} × {array.shape[-1]}": array for array in results[0].filters},
            f"Learned filters, seed {run.seed}{origin}",
        ),
    }
    confusions = [result.confusion for result in finished if result.confusion is not None]
    if confusions:
        title = f"Confusion matrix on the test images, {report.count(len(confusions), 'run')}{origin}"
        figures["confusion"] = plots.plot_confusion(np.sum(confusions, axis=0), data.class_names, title)
    heading = f"{run.label}, {cycles}, {data.name}"
    pictures = report.save_pictures(figures, folder, arguments.format)
    return [TrainSection(heading, rows, pictures, first="network")]
