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
from collections.abc import Sequence

import numpy as np

from ..._checks import check_integer
from ...datasets import Dataset
from .. import cli, plots, report
from ..output_folder import OutputFolder
from ..results import Result
from ..run_options import OPTIONS, add_run_options, given_settings
from ..runs import Run, over_seeds
from ..usage import usage

OUTPUT = "results/train"
SEEDS = 1
QUICK = {"step_size": 100, "log_every": 50}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.experiment_parser(__doc__, OUTPUT, SEEDS)
    cli.add_workers_option(parser)
    group = parser.add_argument_group("settings of the run")
    defaults = {field.name: f"{field.default}" for field in dataclasses.fields(Run)}
    for name, value in QUICK.items():
        defaults[name] += f"; {value} with --quick"
    add_run_options(group, OPTIONS, defaults)
    return parser.parse_args(argv)


def chosen_run(arguments: argparse.Namespace) -> Run:
    """The run that the arguments ask for, unchecked."""
    return Run(**{**(QUICK if arguments.quick else {}), **given_settings(arguments, OPTIONS)})


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
        if not self.summaries[0].seeds:
            return "No run has finished."
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
