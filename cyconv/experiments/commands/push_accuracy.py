"""DD2424, Assignment 3, Exercise 5.1: the best accuracy within a given time.

Trains a recipe that takes about 1, 5 or 15 minutes on two cores; the number of
updates is fixed, the time depends on the machine. Evaluates on the test images
once, at the end: the network, the mean of its probabilities over all the
mirrored and shifted views of an image that training draws from, and the
ensemble of the networks of all seeds.

With --ablation, measures what each ingredient of the recipe contributes, by
training the recipe, the recipe without each of its ingredients, and the plain
network of the assignment, all for the same number of updates, and by averaging
the recipe's probabilities over views. Accuracies are then measured on a fifth
of the training images, which is held out, and the test images are not used.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...datasets import Dataset, Split
from ...ensemble import Ensemble
from ...network import Network
from ...view_average import ViewAverage
from .. import cli, plots, report, statistics
from ..output_folder import OutputFolder
from ..results import Result, RunFiles
from ..runs import Run, over_seeds
from ..usage import usage

OUTPUT = "results/push_accuracy"
SEEDS = 3


def recipe_for(minutes: int, **settings: Any) -> Run:
    """One cycle: a linear rise of the learning rate, and a longer, linear fall to almost nothing."""
    return Run(
        f"minutes{minutes}",
        f"{minutes}-minute recipe",
        filter_size=(4, 8, 16),
        mode="one_cycle",
        anneal="linear",
        n_cycles=1,
        eta_max=0.05,
        momentum=0.9,
        label_smoothing=0.1,
        flip=True,
        whitening=0.3,
        views=True,
        log_every=1000,
        **settings,
    )


RECIPES = {
    1: recipe_for(1, n_filters=(24, 32, 100), n_hidden=300, step_size=8000, l2=5e-4, dropout=0.1, shift=2),
    5: recipe_for(5, n_filters=(48, 80, 200), n_hidden=600, step_size=15000, l2=2e-4, dropout=0.2, shift=3),
    15: recipe_for(15, n_filters=(48, 80, 200), n_hidden=600, step_size=36000, l2=2e-4, dropout=0.3, shift=3),
}
#: The settings that remove each ingredient from a recipe.
WITHOUT: dict[str, dict[str, Any]] = {
    "mirroring": {"flip": False},
    "shifts": {"shift": 0},
    "dropout": {"dropout": 0.0},
    "label smoothing": {"label_smoothing": 0.0},
    "momentum, η up to 0.3": {"momentum": 0.0, "eta_max": 0.3},
    "a fall of η that is longer than its rise": {"mode": "triangular", "anneal": "cos"},
    "whitening": {"whitening": None},
    "8 × 8 and 16 × 16 filters, 40 of 4 × 4": {"filter_size": 4, "n_filters": 40},
}
#: The settings of the assignment's plain network.
PLAIN: dict[str, Any] = {
    "filter_size": 4,
    "n_filters": 40,
    "n_hidden": 300,
    "eta_max": 0.1,
    "mode": "triangular",
    "anneal": "cos",
    "momentum": 0.0,
    "l2": 0.003,
    "label_smoothing": 0.0,
    "dropout": 0.0,
    "flip": False,
    "shift": 0,
    "whitening": None,
}
QUICK: dict[str, Any] = {
    "filter_size": 8,
    "n_filters": 4,
    "n_hidden": 20,
    "step_size": 40,
    "log_every": 20,
}
HELD_OUT_REMARK = "The test images were not used: accuracies are those on a held-out fifth of the training images."


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.experiment_parser(__doc__, OUTPUT, SEEDS)
    cli.add_workers_option(parser)
    parser.add_argument(
        "--minutes",
        type=int,
        choices=RECIPES,
        default=15,
        help="the recipe to train, by the approximate duration of a run on two cores (default: 15)",
    )
    parser.add_argument(
        "--ablation",
        "--road",  # its earlier name
        action="store_true",
        help="measure on held-out training images what each ingredient of the recipe contributes",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = parse(argv)
    source, data = cli.load_data(arguments)
    recipe = RECIPES[arguments.minutes]
    if arguments.quick:
        recipe = dataclasses.replace(recipe, label=f"miniature of the {recipe.label}", **QUICK)
    if arguments.ablation:
        source = source.hold_out()
        data = source.load()
        print(f"Ablation: {len(data.train):,} training images and {len(data.validation):,} held-out ones.")
        script, templates = "push_accuracy --road", ablation_runs(recipe)  # so named in existing results
        describe, write, remarks = format_validation_result, write_ablation, [HELD_OUT_REMARK]
    else:
        script, templates = "push_accuracy", [recipe]
        describe, write, remarks = cli.format_test_result, write_recipe, []
    with usage(n_seeds="--seeds"):
        runs = over_seeds(templates, cli.n_seeds(arguments))
    cli.check_runs(runs, data, arguments)
    return cli.run_experiment(
        script,
        "Exercise 5.1",
        runs,
        source,
        data,
        arguments,
        write,
        describe,
        remarks,
        keep_test=not arguments.ablation,
    )


def write_recipe(
    results: Sequence[Result], data: Dataset, folder: OutputFolder, arguments: argparse.Namespace
) -> list[report.Section]:
    """Draw the figures of a recipe; return the section of the report, alone."""
    run = results[0].run
    cycles, boundaries = report.describe_cycles(run.schedule()), run.schedule().boundaries
    finished = [result for result in results if result.complete]
    origin = "\n" + report.describe_origin(data, arguments.quick, len(finished) == len(results))
    rows = table_rows(results, data, folder)
    histories = {run.label: [result.history for result in finished or results]}
    filters = {f"{array.shape[-1]} × {array.shape[-1]}": array for array in results[0].filters}
    figures = {
        "curves": plots.plot_comparison(histories, f"Learning curves, {cycles}{origin}", boundaries),
        "learning-rate": plots.plot_learning_rate(run.schedule(), f"Learning rate, {cycles}{origin}"),
        "filters": plots.plot_filters(filters, f"Learned filters, seed {run.seed}{origin}"),
    }
    if finished:
        accuracy = {row.label: row.test_accuracy for row in rows}
        confusion = np.sum([result.confusion for result in finished if result.confusion is not None], axis=0)
        figures["accuracy"] = plots.plot_bars(accuracy, f"Test accuracy, {cycles}{origin}", "test accuracy (%)", True)
        title = f"Confusion matrix on the test images: {run.label}, {report.count(len(finished), 'run')}{origin}"
        figures["confusion"] = plots.plot_confusion(confusion, data.class_names, title)
    pictures = report.save_pictures(figures, folder, arguments.format)
    return [report.Section(f"The {run.label}: {describe_recipe(run)}", rows, pictures, first="predictions of")]


def table_rows(results: Sequence[Result], data: Dataset, folder: OutputFolder) -> list[report.Summary]:
    """The rows of the table: the network, the mean over views, and the ensemble of the networks of all seeds."""
    (summary,) = report.summarise(results)
    run, n_networks = results[0].run, len(results)
    network = dataclasses.replace(summary, label="single network", view_accuracy=[])
    if not summary.seeds:
        return [network]
    views = dataclasses.replace(report.view_row(summary, run.n_views), label=f"mean of {run.n_views} views")
    rows = [network, views]
    if not summary.unfinished and n_networks > 1:
        joint = dataclasses.replace(
            views,
            name=f"{network.name}-seeds",
            label=f"ensemble of {n_networks} networks, mean of {run.n_views} views each",
            n_parameters=n_networks * network.n_parameters,
            seeds=[run.seed],
            test_accuracy=[ensemble_accuracy(results, data.test, folder)],
        )
        rows.append(joint)
    return rows


def ensemble_accuracy(results: Sequence[Result], split: Split, folder: OutputFolder) -> float:
    """Accuracy of the ensemble of the networks of all runs, each averaged over the views."""
    run = results[0].run
    ensemble = Ensemble(Network.load(RunFiles(folder.path, result.run).network) for result in results)
    return ViewAverage(ensemble, run.flip, run.shift).evaluate(split).accuracy


def describe_recipe(run: Run) -> str:
    """The recipe in words."""
    augmentation = [
        *(["mirroring"] if run.flip else []),
        *([f"shifts up to {run.shift}"] if run.shift else []),
        *([f"cutout {run.cutout}"] if run.cutout else []),
    ]
    return (
        f"{run.architecture}, one cycle of {run.schedule().total_steps:,} updates, η up to {run.eta_max:g}, "
        f"momentum {run.momentum:g}, λ={run.l2:g}, dropout {run.dropout:g}, smoothing {run.label_smoothing:g}, "
        f"{f'whitening {run.whitening:g}, ' if run.whitening else ''}"
        f"{', '.join(augmentation) or 'no augmentation'}"
    )


def ablation_runs(recipe: Run) -> list[Run]:
    """The recipe, the recipe without each ingredient, and the plain network of the assignment."""
    runs = [dataclasses.replace(recipe, label="the recipe" if recipe in RECIPES.values() else "the miniature")]
    recipe = dataclasses.replace(recipe, views=False)
    for ingredient, changes in WITHOUT.items():
        run = dataclasses.replace(
            recipe, name=f"{recipe.name}-without-{'-'.join(changes)}", label=f"without {ingredient}", **changes
        )
        if run != dataclasses.replace(recipe, name=run.name, label=run.label):
            runs.append(run)
    return [*runs, dataclasses.replace(recipe, name=f"{recipe.name}-plain", label="plain network", **PLAIN)]


def format_validation_result(result: Result) -> str:
    """What is printed about a finished run of the ablation."""
    return f"validation accuracy {100 * result.history['acc_val'][-1]:.2f} %, {result.history.training_time:.1f} s"


class AblationSection(report.Section):
    """A section with accuracies on held-out images, and their differences from the first row's."""

    measure = "validation_accuracy"

    def body(self) -> list[str | report.Table]:
        """list: the table, and the sentences that interpret it."""
        changes = {pair.first: pair for pair in self.differences}
        timed = any(row.training_time for row in self.summaries)
        rows = [
            [
                row.label,
                f"{row.n_parameters:,}",
                row.n_runs,
                report.format_mean(row.validation_accuracy, scale=100),
                *changed(changes.get(row.label)),
                *([report.format_mean(row.training_time, decimals=0)] if timed else []),
            ]
            for row in self.summaries
        ]
        header = [
            "",
            "parameters",
            "runs",
            "validation accuracy (%)",
            "change in points",
            "95 % interval",
            "p, corrected",
        ]
        if timed:
            header.append("training time (s)")
        return [report.Table(header, rows), self.sentence]


def changed(pair: statistics.Difference | None) -> list[str]:
    """The cells of a row's difference from the first: its value, its interval and its p value."""
    if pair is None:
        return ["–", "–", "–"]
    return [
        report.format_change(pair.value, scale=100),
        report.format_ends(pair.interval, scale=100),
        report.format_p(pair.p_value),
    ]


def ablation_section(
    heading: str, rows: Sequence[report.Summary], pictures: Sequence[report.Picture] = ()
) -> report.Section:
    """The table, in which each row is compared with the first."""
    first, *others = (row.label for row in rows)
    return AblationSection(heading, rows, pictures, pairs=[(label, first) for label in others])


def write_ablation(
    results: Sequence[Result], data: Dataset, folder: OutputFolder, arguments: argparse.Namespace
) -> list[report.Section]:
    """Draw the figure of an ablation; return the section of the report, alone."""
    rows = []
    for row in report.summarise(results):
        held_out = dataclasses.replace(row, test_accuracy=[], test_loss=[], view_accuracy=[])
        rows.append(held_out)
        if row.view_accuracy:
            views = report.view_row(row, results[0].run.n_views)
            label = f"mean of {results[0].run.n_views} views"
            rows.append(
                dataclasses.replace(views, label=label, test_accuracy=[], validation_accuracy=row.view_accuracy)
            )
    accuracy = {row.label: row.validation_accuracy for row in rows if row.validation_accuracy}
    title = "What each ingredient contributes"
    figures = {}
    if accuracy:
        origin = f"\n{report.describe_origin(data, arguments.quick)}, {len(data.validation):,} held out"
        figures["ablation"] = plots.plot_bars(accuracy, f"{title}{origin}", "validation accuracy (%)", True)
    to = " to a miniature of the recipe, which tells nothing about the recipe" if arguments.quick else ""
    heading = f"{title}{to}, on {len(data.validation):,} held-out training images: {describe_recipe(results[0].run)}"
    return [ablation_section(heading, rows, report.save_pictures(figures, folder, arguments.format))]
