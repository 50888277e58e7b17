"""Architecture 2 under three schedules and two optimisers, equally long.

Trains f=4, nf=10, nh=50 for the 11,200 updates of three doubling cycles: under
triangular cycles, under cosine annealing with warm restarts at the same steps,
and under one cycle; by SGD and by AdamW. Rates and decays were chosen on the
validation data of other seeds, for the triangular cycles, and are the same for
all schedules of an optimiser.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ...datasets import Dataset
from .. import cli, plots, report
from ..output_folder import OutputFolder
from ..results import Result
from ..runs import Run, over_seeds
from ..usage import usage

OUTPUT = "results/compare_schedules"
SEEDS = 5  # with 3, t tests find only large differences
BASE = Run("base", filter_size=4, n_filters=10, n_hidden=50, growth=2.0, log_every=200)
SCHEDULES = {"triangular": "triangular cycles", "cosine": "cosine with restarts", "one_cycle": "one cycle"}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"eta_max": 0.1, "l2": 0.003},
    "AdamW": {"optimizer": "adamw", "eta_max": 3e-3, "l2": 0.0, "weight_decay": 0.3},
}
QUICK = {"step_size": 20, "log_every": 20}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.experiment_parser(__doc__, OUTPUT, SEEDS)
    cli.add_workers_option(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = parse(argv)
    source, data = cli.load_data(arguments)
    with usage(n_seeds="--seeds"):
        runs = over_seeds(templates(QUICK if arguments.quick else {}), cli.n_seeds(arguments))
    cli.check_runs(runs, data, arguments)
    return cli.run_experiment(
        "compare_schedules", "Schedules and optimisers", runs, source, data, arguments, write_sections
    )


def templates(changes: Mapping[str, Any]) -> list[Run]:
    """One run for each optimiser and schedule."""
    return [
        dataclasses.replace(
            BASE, name=f"{mode}-{optimizer}".lower(), label=f"{optimizer}, {what}", mode=mode, **settings, **changes
        )
        for optimizer, settings in OPTIMIZERS.items()
        for mode, what in SCHEDULES.items()
    ]


def write_sections(
    results: Sequence[Result], data: Dataset, folder: OutputFolder, arguments: argparse.Namespace
) -> list[report.Section]:
    """Draw the figures; return the section of the report, alone."""
    run, finished = results[0].run, [result for result in results if result.complete]
    origin = report.describe_origin(data, arguments.quick, len(finished) == len(results))
    groups = report.by_label(finished or results)
    rows = report.summarise(results)
    order = [row.label for row in rows]
    figures = {}
    for optimizer in OPTIMIZERS:
        histories = {
            label: [result.history for result in group]
            for label, group in groups.items()
            if label.startswith(f"{optimizer},")
        }
        title = f"Learning curves, {optimizer}\n{origin}"
        figures[f"curves-{optimizer.lower()}"] = plots.plot_comparison(histories, title, order=order)
    accuracy = {row.label: row.test_accuracy for row in rows if row.test_accuracy}
    if accuracy:
        figures["accuracy"] = plots.plot_bars(
            accuracy, f"Test accuracy\n{origin}", "test accuracy (%)", True, order=order
        )
    heading = f"{run.architecture}, {run.schedule().total_steps:,} updates"
    pictures = report.save_pictures(figures, folder, arguments.format)
    return [report.Section(heading, rows, pictures, first="optimiser, schedule")]
