#!/usr/bin/env python3
"""DD2424, Assignment 3, Exercise 5.1: the best accuracy of this family for a given time.

Trains the recipe for 1, 5, 15 or 60 minutes on two cores (the number of
updates is fixed; the time depends on the machine) and reads the test split
once, at the end: for the network, for the mean of an image's and its mirror
image's probabilities, and for the ensemble of the networks at the cycle ends.

With --road, what each ingredient of the recipe gives: the recipe, the recipe
without each of its ingredients, and the assignment's plain network, all with
the same number of updates. A fifth of the training images is held out to
judge by, and the test split is not read.
"""

import dataclasses

import numpy as np

from cyconv import Dataset, Network, Split
from cyconv.experiments import Run, RunFiles, cli, over_seeds, plots, report
from cyconv.experiments.output_folder import OutputFolder
from cyconv.experiments.usage import usage

OUTPUT = "results/push_accuracy"
SEEDS = 3


def recipe_for(minutes, **settings):
    """A long cycle, then ever shorter and lower ones: each ends a little better than the one before and somewhere
    else, which is what an ensemble of their ends needs."""
    return Run(
        f"minutes{minutes}",
        f"{minutes}-minute recipe",
        filter_size=(4, 8),
        n_cycles=4,
        growth=0.5,
        eta_max=0.05,
        eta_max_decay=0.7,
        momentum=0.9,
        l2=5e-4,
        label_smoothing=0.1,
        flip=True,
        snapshots=True,
        log_every=1000,
        **settings,
    )


RECIPES = {
    1: recipe_for(1, n_filters=(24, 32), n_hidden=300, step_size=4250, dropout=0.1, shift=1),
    5: recipe_for(5, n_filters=(40, 64), n_hidden=500, step_size=8500, dropout=0.1, shift=3),
    15: recipe_for(15, n_filters=(48, 80), n_hidden=600, step_size=15000, dropout=0.2, shift=3),
    60: recipe_for(60, n_filters=(64, 128), n_hidden=1000, step_size=34000, dropout=0.3, shift=4),
}
#: What a recipe is without each of its ingredients.
WITHOUT = {
    "mirroring": {"flip": False},
    "shifts": {"shift": 0},
    "dropout": {"dropout": 0.0},
    "label smoothing": {"label_smoothing": 0.0},
    "momentum, η up to 0.3": {"momentum": 0.0, "eta_max": 0.3},
    "falling peaks of η": {"eta_max_decay": 1.0},
    "8 × 8 filters, 40 of 4 × 4": {"filter_size": 4, "n_filters": 40},
}
PLAIN = {
    "filter_size": 4,
    "n_filters": 40,
    "n_hidden": 300,
    "eta_max": 0.1,
    "eta_max_decay": 1.0,
    "momentum": 0.0,
    "l2": 0.003,
    "label_smoothing": 0.0,
    "dropout": 0.0,
    "flip": False,
    "shift": 0,
}
QUICK = {"filter_size": 8, "n_filters": 4, "n_hidden": 20, "step_size": 20, "n_cycles": 2, "log_every": 20}
ROAD_REMARK = "The test images were not looked at: a fifth of the training images stands in for them."


def parse(argv):
    parser = cli.parser(__doc__, OUTPUT, SEEDS)
    cli.add_workers(parser)
    parser.add_argument(
        "--minutes",
        type=int,
        choices=RECIPES,
        default=15,
        help="which recipe: about how long one run takes on two cores (default: 15)",
    )
    parser.add_argument(
        "--road",
        action="store_true",
        help="measure on held-out training images what each ingredient of the recipe gives",
    )
    return parser.parse_args(argv)


def main(argv=None):
    arguments = parse(argv)
    source, data = cli.open_data(arguments)
    recipe = dataclasses.replace(RECIPES[arguments.minutes], **(QUICK if arguments.quick else {}))
    script, templates, where, line, remarks, write = (
        "push_accuracy",
        [recipe],
        source,
        cli.test_line,
        [],
        write_recipe,
    )
    if arguments.road:
        data = hold_out(data)
        print(f"The road: {len(data.train):,} of the training images train, {len(data.validation):,} judge.")
        script, templates, where, line, remarks, write = (
            "push_accuracy --road",
            road(recipe),
            data,
            held_out_line,
            [ROAD_REMARK],
            write_road,
        )
    with usage(n_seeds="--seeds"):
        runs = over_seeds(templates, cli.n_seeds(arguments))
        for run in runs:
            run.check()
    configuration = cli.configuration(script, arguments, runs, data)
    folder = OutputFolder(arguments.output, configuration, arguments.resume, arguments.overwrite)
    if folder.results:
        return folder.report()

    results, code = cli.train_all(runs, where, folder, arguments, line=line)

    sections = [write(results, data, folder)] if results else []
    if arguments.road:
        results = [dataclasses.replace(result, test=None, confusion=None) for result in results]
    return cli.write_report(
        "Exercise 5.1",
        configuration,
        sections,
        results,
        data,
        source,
        folder,
        code,
        [*remarks, *cli.time_remarks(arguments)],
    )


def write_recipe(results, data, folder):
    """Draw the recipe's pictures; give back its section of the summary."""
    run = results[0].run
    cycles, boundaries = report.describe_cycles(run.schedule()), run.schedule().boundaries
    finished = [result for result in results if result.complete]
    where = "\n" + report.describe_origin(data, complete=len(finished) == len(results))
    rows = rows_of(results, data, folder)
    pictures = {
        "curves": plots.plot_comparison(
            {run.label: [r.history for r in finished or results]}, f"Learning curves, {cycles}{where}", boundaries
        ),
        "learning-rate": plots.plot_learning_rate(run.schedule(), f"Learning rate, {cycles}{where}"),
        "filters": plots.plot_filters(
            {f"{filters.shape[-1]} × {filters.shape[-1]}": filters for filters in results[0].filters},
            f"Learned filters, seed {run.seed}{where}",
        ),
    }
    if finished:
        accuracy = {row.label: row.test_accuracy for row in rows}
        title = f"Test accuracy, {cycles}{where}"
        pictures["accuracy"] = plots.plot_bars(accuracy, title, "test accuracy (%)", True)
        pictures["confusion"] = plots.plot_confusion(
            sum(result.confusion for result in finished),
            data.class_names,
            f"Confusion matrix of the {run.label}{where}",
        )
    names = plots.save_figures(pictures, folder)
    return report.Section(f"The {run.label}: {describe(run)}", rows, names, first="what is read")


def rows_of(results, data, folder):
    """The table's rows: the network, with mirror images, and the ensemble of its snapshots."""
    (network,) = report.summarise(results)
    network = dataclasses.replace(network, label="single network", ensemble_accuracy=[])
    finished = [result for result in results if result.complete]
    if not finished:
        return [network]
    ensembles = [result.test["ensemble_accuracy"] for result in finished]
    ensemble = report.ensemble_row(dataclasses.replace(network, ensemble_accuracy=ensembles), finished[0].run.n_cycles)
    mirrored = [mirrored_accuracy(result, data.test, folder) for result in finished]
    return [
        network,
        dataclasses.replace(
            ensemble,
            name=f"{network.name}-mirrored",
            label="mean of image and mirror image",
            n_parameters=network.n_parameters,
            test_accuracy=mirrored,
        ),
        dataclasses.replace(ensemble, label=f"ensemble of {finished[0].run.n_cycles} snapshots"),
    ]


def mirrored_accuracy(result, split, folder):
    """Accuracy when the probabilities of an image and of its mirror image are averaged."""
    network = Network.load(RunFiles(folder.path, result.run).network)
    mirrored = np.ascontiguousarray(split.images[..., ::-1])
    probabilities = network.predict_proba(split.images) + network.predict_proba(mirrored)
    return float(np.mean(probabilities.argmax(axis=1) == split.labels))


def describe(run):
    """The recipe in words."""
    schedule = run.schedule()
    augmentation = [
        *(["mirroring"] if run.flip else []),
        *([f"shifts up to {run.shift}"] if run.shift else []),
        *([f"cutout {run.cutout}"] if run.cutout else []),
    ]
    return (
        f"f={run.filter_size}, nf={run.n_filters}, nh={run.n_hidden}, "
        f"{report.describe_cycles(schedule)}, {schedule.total_steps:,} updates, η up to {run.eta_max:g}, "
        f"momentum {run.momentum:g}, λ={run.l2:g}, dropout {run.dropout:g}, smoothing {run.label_smoothing:g}, "
        f"{', '.join(augmentation) or 'no augmentation'}"
    )


def hold_out(data):
    """The data to choose by: the last fifth of the training images judges, the test split is out of reach."""
    cut = len(data.train) - len(data.train) // 5
    train, held_out = (
        Split(data.train.images[part], data.train.labels[part]) for part in (slice(cut), slice(cut, None))
    )
    return Dataset(train, held_out, held_out, data.class_names, data.name)


def road(recipe):
    """The recipe, the recipe without each ingredient, and the assignment's plain network."""
    runs = [dataclasses.replace(recipe, label="the recipe")]
    for ingredient, changes in WITHOUT.items():
        run = dataclasses.replace(
            recipe, name=f"{recipe.name}-without-{'-'.join(changes)}", label=f"without {ingredient}", **changes
        )
        if run != dataclasses.replace(recipe, name=run.name, label=run.label):
            runs.append(run)
    return [*runs, dataclasses.replace(recipe, name=f"{recipe.name}-plain", label="plain network", **PLAIN)]


def held_out_line(result):
    """What is printed when a run of the road is finished."""
    return f"validation accuracy {100 * result.history['acc_val'][-1]:.2f} %, {result.history.training_time:.1f} s"


@dataclasses.dataclass(frozen=True)
class Road(report.Section):
    """A section that tells accuracies on held-out images, and what each row lost against the first."""

    def table(self, markdown=False):
        recipe = np.mean(self.summaries[0].validation_accuracy or [np.nan])
        rows = [
            [
                row.label,
                f"{row.n_parameters:,}",
                f"{len(row.seeds)}",
                report.format_mean(row.validation_accuracy, scale=100),
                f"{100 * (np.mean(row.validation_accuracy or [np.nan]) - recipe):+.2f}",
                report.format_mean(row.training_time, decimals=0),
            ]
            for row in self.summaries
        ]
        header = ["", "parameters", "runs", "validation accuracy (%)", "points against the recipe", "training time (s)"]
        return report.format_table(header, rows, markdown)

    @property
    def sentence(self):
        groups = {row.label: row.validation_accuracy for row in self.summaries}
        return report.noise_sentence(groups, "validation accuracy")

    def body(self, markdown):
        return [self.table(markdown), self.sentence]


def write_road(results, data, folder):
    """Draw the road; give back its section of the summary."""
    rows = [
        dataclasses.replace(row, test_accuracy=[], test_loss=[], ensemble_accuracy=[])
        for row in report.summarise(results)
    ]
    accuracy = {row.label: row.validation_accuracy for row in rows if row.validation_accuracy}
    where = f"\n{data.name}, {len(data.train):,} training images, {len(data.validation):,} held out"
    pictures = {}
    if accuracy:
        title = f"What each ingredient gives{where}"
        pictures["road"] = plots.plot_bars(accuracy, title, "validation accuracy (%)", True)
    heading = (
        f"What each ingredient gives, judged on {len(data.validation):,} held-out training images: "
        f"{describe(results[0].run)}"
    )
    return Road(heading, rows, plots.save_figures(pictures, folder))


if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
