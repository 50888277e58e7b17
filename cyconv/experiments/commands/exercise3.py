"""DD2424, Assignment 3, Exercise 3: four architectures, then longer training.

Part 1 trains networks with four patch sizes for three equal cycles of the
learning rate; part 2 trains architectures 2, 3 and a wider version of 2 for
three doubling cycles. Prints the tables, and writes them to the output folder
with the histories, the trained networks and figures. Without CIFAR-10 it uses
a synthetic data set of shapes, and says so.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...datasets import Dataset
from .. import cli, plots, report
from ..output_folder import OutputFolder
from ..results import Result
from ..runs import ARCHITECTURES, LONGER_TRAINING, Run, over_seeds, under_one_name
from ..usage import usage

OUTPUT = "results/exercise3"
SEEDS = 5  # with 3, t tests find only large differences
PARTS: Mapping[str, Sequence[Run]] = {"1": ARCHITECTURES, "2": LONGER_TRAINING}
QUICK = {"step_size": 100, "log_every": 50}


def parse(argv: Sequence[str] | None, resumable: bool = True) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.experiment_parser(__doc__, OUTPUT, SEEDS, resumable)
    cli.add_workers_option(parser, tasks=resumable)
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all", help="which part to run (default: all)")
    parser.add_argument(
        "--growth",
        metavar="G",
        type=cli.positive_number,
        help="ratio of the lengths of successive cycles, in both parts (default: 1 in part 1, 2 in part 2)",
    )
    parser.add_argument(
        "--log-every",
        metavar="N",
        type=cli.positive_integer,
        help=f"number of update steps between points of the curves (default: 100; {QUICK['log_every']} with --quick)",
    )
    return parser.parse_args(argv)


def chosen_parts(arguments: argparse.Namespace) -> dict[str, list[Run]]:
    """The runs of each part that the arguments ask for, with a single seed."""
    changes: dict[str, Any] = dict(QUICK) if arguments.quick else {}
    given = {name: getattr(arguments, name) for name in ("growth", "log_every")}
    changes |= {name: value for name, value in given.items() if value is not None}
    return {
        part: [under_one_name(run, **changes) for run in runs]
        for part, runs in PARTS.items()
        if arguments.part in (part, "all")
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = parse(argv)
    source, data = cli.load_data(arguments)
    parts = chosen_parts(arguments)
    with usage(n_seeds="--seeds"):
        runs = [run for part in parts.values() for run in over_seeds(part, cli.n_seeds(arguments))]
    cli.check_runs(runs, data, arguments, growth="--growth", log_every="--log-every")
    return cli.run_experiment("exercise3", "Exercise 3", runs, source, data, arguments, partial(write_parts, parts))


def write_parts(
    parts: Mapping[str, Sequence[Run]],
    results: Sequence[Result],
    data: Dataset,
    folder: OutputFolder,
    arguments: argparse.Namespace,
) -> list[report.Section]:
    """Draw the figures of all parts that have results; return their sections of the summary."""
    sections = []
    for part, templates in parts.items():
        names = {run.name for run in templates}
        chosen = [result for result in results if result.run.name in names]
        if chosen:
            sections.append(write_part(part, chosen, data, folder, arguments))
    return sections


def write_part(
    part: str, results: Sequence[Result], data: Dataset, folder: OutputFolder, arguments: argparse.Namespace
) -> report.Section:
    """Draw the figures of one part; return its section of the summary."""
    schedule = results[0].run.schedule()
    origin = "\n" + report.describe_origin(data, arguments.quick, all(result.complete for result in results))
    cycles, boundaries = report.describe_cycles(schedule), schedule.boundaries
    finished = [result for result in results if result.complete]
    by_label = report.by_label(finished or results)
    histories = {label: [result.history for result in group] for label, group in by_label.items()}

    order = [run.label for runs in PARTS.values() for run in runs]
    figures = {
        "curves": plots.plot_comparison(histories, f"Learning curves, {cycles}{origin}", boundaries, order=order),
        "train-validation": plots.plot_train_validation(
            histories, f"Training and validation, {cycles}{origin}", boundaries
        ),
        "learning-rate": plots.plot_learning_rate(schedule, f"Learning rate, {cycles}{origin}"),
        "cycles": plots.plot_cycles(
            histories, f"Learning rate and validation accuracy, {cycles}{origin}", boundaries, order=order
        ),
        "filters": plots.plot_filters(
            {label: group[0].filters[0] for label, group in by_label.items()},
            f"Learned filters, seed {results[0].run.seed}{origin}",
            columns=3 if len(by_label) == 3 else 2,
        ),
    }
    if finished:
        accuracy = {label: [r.test["accuracy"] for r in group if r.test] for label, group in by_label.items()}
        times = {label: [r.history.training_time for r in group] for label, group in by_label.items()}
        best = max(by_label, key=lambda label: statistics.mean(r.history["acc_val"][-1] for r in by_label[label]))
        confusion = np.sum([r.confusion for r in by_label[best] if r.confusion is not None], axis=0)
        title = ", ".join(["Training time", *cli.concurrency_note(arguments), cycles])
        n_runs = report.count(len(by_label[best]), "run")
        best_title = f"Confusion matrix on the test images: {best}, best on validation data, {n_runs}{origin}"
        figures = {
            "accuracy": plots.plot_bars(
                accuracy, f"Test accuracy, {cycles}{origin}", "test accuracy (%)", True, order=order
            ),
            "time": plots.plot_bars(times, f"{title}{origin}", "training time (s)", order=order),
            **figures,
            "confusion": plots.plot_confusion(confusion, data.class_names, best_title),
        }
    named = {f"part{part}-{name}": figure for name, figure in figures.items()}
    pictures = report.save_pictures(named, folder, arguments.format)
    return report.Section(f"Part {part}: {cycles}, {data.name}", report.summarise(results), pictures)
