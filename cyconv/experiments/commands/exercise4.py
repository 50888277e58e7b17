"""DD2424, Assignment 3, Exercise 4: a larger network, and label smoothing.

Trains a network with f=4, nf=40 and nh=300 for four doubling cycles of the
learning rate with λ = 0.0025, on the original labels and on smoothed ones,
which distribute a probability of ε equally over the wrong classes. Compares
the learning curves, the test accuracy, and the gap between validation and
training loss, where both losses are the cross-entropy of the true class. The
networks at the ends of the four cycles form an ensemble without further
training.

The command course-tables puts the accuracies beside published ones.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from ...datasets import Dataset
from .. import cli, plots, report, statistics
from ..output_folder import OutputFolder
from ..results import Result
from ..runs import Run, over_seeds
from ..usage import usage

OUTPUT = "results/exercise4"
SEEDS = 5  # with 3, t tests find only large differences
PLAIN = Run(
    "plain",
    "without smoothing",
    filter_size=4,
    n_filters=40,
    n_hidden=300,
    step_size=800,
    n_cycles=4,
    growth=2.0,
    l2=0.0025,
    snapshots=True,
    log_every=200,
)
#: The comparisons that were planned, each of a row with another, and the start of the conclusion's sentence about it.
PLANNED = {
    ("smoothed", "plain"): "Smoothing the labels",
    ("plain-ensemble", "plain"): "Without smoothing, the ensemble of the cycle ends",
    ("smoothed-ensemble", "smoothed"): "With smoothing, the ensemble of the cycle ends",
}
QUICK: dict[str, Any] = {"n_filters": 10, "n_hidden": 50, "step_size": 40, "log_every": 40}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.experiment_parser(__doc__, OUTPUT, SEEDS)
    cli.add_workers_option(parser)
    parser.add_argument(
        "--label-smoothing", metavar="E", type=cli.positive_number, default=0.1, help="ε (default: %(default)s)"
    )
    parser.add_argument(
        "--l2", metavar="L", type=cli.positive_number, default=PLAIN.l2, help="λ (default: %(default)s)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = parse(argv)
    source, data = cli.load_data(arguments)
    plain = dataclasses.replace(PLAIN, l2=arguments.l2, **(QUICK if arguments.quick else {}))
    epsilon = arguments.label_smoothing
    smoothed = dataclasses.replace(plain, name="smoothed", label=f"smoothing ε = {epsilon:g}", label_smoothing=epsilon)
    with usage(n_seeds="--seeds"):
        runs = over_seeds([plain, smoothed], cli.n_seeds(arguments))
    cli.check_runs(runs, data, arguments, l2="--l2", label_smoothing="--label-smoothing")
    return cli.run_experiment("exercise4", "Exercise 4", runs, source, data, arguments, write_sections)


def write_sections(
    results: Sequence[Result], data: Dataset, folder: OutputFolder, arguments: argparse.Namespace
) -> list[report.Section]:
    """Draw the figures; return the section of the report, alone."""
    run, finished = results[0].run, [result for result in results if result.complete]
    schedule = run.schedule()
    cycles, boundaries = report.describe_cycles(schedule), schedule.boundaries
    origin = f": {run.architecture}, {cycles}\n" + report.describe_origin(
        data, arguments.quick, len(finished) == len(results)
    )
    groups = report.by_label(finished or results)
    histories = {label: [result.history for result in group] for label, group in groups.items()}
    singles = report.summarise(results)
    ensembles = [report.ensemble_row(row, run.n_cycles) for row in singles if row.ensemble_accuracy]
    rows = [*(dataclasses.replace(row, ensemble_accuracy=[]) for row in singles), *ensembles]

    figures = {
        "curves": plots.plot_comparison(histories, f"Learning curves{origin}", boundaries),
        "train-validation": plots.plot_train_validation(histories, f"Training and validation{origin}", boundaries),
        "gap": plots.plot_gap(histories, f"Gap between validation and training loss{origin}", boundaries),
        "learning-rate": plots.plot_learning_rate(schedule, f"Learning rate{origin}"),
    }
    if finished:
        accuracy = {row.label: row.test_accuracy for row in rows if row.test_accuracy}
        bars = plots.plot_bars(accuracy, f"Test accuracy{origin}", "test accuracy (%)", percent=True)
        figures = {"accuracy": bars, **figures}
    heading = f"{run.architecture}, {cycles}, λ = {run.l2:g}, {data.name}"
    pictures = report.save_pictures(figures, folder, arguments.format)
    return [section(heading, rows, pictures)]


def section(heading: str, rows: Sequence[report.Summary], pictures: Sequence[report.Picture] = ()) -> report.Section:
    """The table, the planned comparisons of its rows, and what follows from them."""
    labels = {row.name: row.label for row in rows}
    pairs = [(labels[first], labels[second]) for first, second in PLANNED if {first, second} <= labels.keys()]
    conclusion = conclude(rows)
    return report.Section(heading, rows, pictures, first="labels", gap=True, conclusion=conclusion, pairs=pairs)


def conclude(rows: Sequence[report.Summary]) -> str:
    """The effect of smoothing on test accuracy and gap, and that of the ensembles."""
    sentences = []
    found = statistics.differences({row.name: row.sample() for row in rows}, PLANNED)
    n_tested = sum(pair.p_value is not None for pair in found)
    for pair in found:
        change = f"{report.format_change(pair.value, scale=100)} points, {report.verdict(pair, n_comparisons=n_tested)}"
        sentences.append(f"{PLANNED[pair.first, pair.second]} changes the test accuracy by {change}.")
    gaps = {row.name: row.sample("loss_gap") for row in rows}
    for pair in statistics.differences(gaps, [("smoothed", "plain")]):
        smoothed, without = (
            report.format_mean(list(gaps[name].by_seed.values()), 3) for name in (pair.first, pair.second)
        )
        change = f"{report.format_change(pair.value, 3)}, {report.verdict(pair, 1, 3)}"
        sentences.append(
            f"After the last update the validation loss exceeds the training loss by {without} without and "
            f"{smoothed} with smoothing, which changes this gap by {change}."
        )
    return " ".join(sentences) or "Since runs are missing, there is nothing to compare."
