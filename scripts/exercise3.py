#!/usr/bin/env python3
"""DD2424, Assignment 3, Exercise 3: four architectures, then longer training.

Part 1 trains four patch sizes over three equal cycles of the learning rate;
part 2 trains architectures 2, 3 and a wider 2 over three doubling cycles.
Prints tables and writes them, the histories, the networks and pictures to
the output folder. Without CIFAR-10 it runs on drawn shapes and says so.
"""

import dataclasses

from cyconv.experiments import ARCHITECTURES, LONGER_TRAINING, cli, over_seeds, plots, report
from cyconv.experiments.output_folder import OutputFolder
from cyconv.experiments.usage import usage

OUTPUT = "results/exercise3"
SEEDS = 3
PARTS = {"1": ARCHITECTURES, "2": LONGER_TRAINING}
QUICK = {"step_size": 50, "log_every": 25}


def parse(argv, resumable=True):
    parser = cli.parser(__doc__, OUTPUT, SEEDS, resumable)
    cli.add_workers(parser)
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all", help="which to run (default: all)")
    parser.add_argument(
        "--growth",
        metavar="G",
        type=cli.positive_number,
        help="each cycle's length as a multiple of the one before, in both parts (default: 1 in part 1, 2 in part 2)",
    )
    parser.add_argument(
        "--log-every",
        metavar="N",
        type=cli.positive_integer,
        help="update steps from one point of the curves to the next (default: 100; 25 with --quick)",
    )
    return parser.parse_args(argv)


def chosen_parts(arguments):
    """The runs of each part that the arguments ask for, with one seed."""
    changes = dict(QUICK) if arguments.quick else {}
    given = {name: getattr(arguments, name) for name in ("growth", "log_every")}
    changes |= {name: value for name, value in given.items() if value is not None}
    return {
        part: [dataclasses.replace(run, **changes) for run in runs]
        for part, runs in PARTS.items()
        if arguments.part in (part, "all")
    }


def main(argv=None):
    arguments = parse(argv)
    source, data = cli.open_data(arguments)
    parts = chosen_parts(arguments)
    with usage(n_seeds="--seeds", growth="--growth", log_every="--log-every"):
        runs = [run for part in parts.values() for run in over_seeds(part, cli.n_seeds(arguments))]
        for run in runs:
            run.check()
    configuration = cli.configuration("exercise3", arguments, runs, data)
    folder = OutputFolder(arguments.output, configuration, arguments.resume, arguments.overwrite)
    if folder.results:
        return folder.report()

    results, code = cli.train_all(runs, source, folder, arguments)

    sections = write_parts(parts, results, data, folder, arguments)
    return cli.write_report(
        "Exercise 3", configuration, sections, results, data, source, folder, code, cli.time_remarks(arguments)
    )


def write_parts(parts, results, data, folder, arguments):
    """Draw the pictures of all parts that have results; give back their sections of the summary."""
    sections = []
    for part, templates in parts.items():
        names = {run.name for run in templates}
        chosen = [result for result in results if result.run.name in names]
        if chosen:
            sections.append(write_part(part, chosen, data, folder, arguments))
    return sections


def write_part(part, results, data, folder, arguments):
    """Draw one part's pictures; give back its section of the summary."""
    schedule = results[0].run.schedule()
    where = "\n" + report.describe_origin(data, arguments.quick, all(result.complete for result in results))
    cycles = report.describe_cycles(schedule)
    finished = [result for result in results if result.complete]
    by_label = report.by_label(finished or results)
    histories = {label: [result.history for result in group] for label, group in by_label.items()}
    boundaries = schedule.boundaries

    pictures = {
        "curves": plots.plot_comparison(histories, f"Learning curves, {cycles}{where}", boundaries),
        "train-validation": plots.plot_train_validation(
            histories, f"Training against validation, {cycles}{where}", dict.fromkeys(histories, boundaries)
        ),
        "learning-rate": plots.plot_learning_rate(schedule, f"Learning rate, {cycles}{where}"),
        "filters": plots.plot_filters(
            {label: group[0].filters[0] for label, group in by_label.items()},
            f"Learned filters, seed {results[0].run.seed}{where}",
            columns=3 if len(by_label) == 3 else 2,
        ),
    }
    if finished:
        accuracy = {label: [r.test["accuracy"] for r in group] for label, group in by_label.items()}
        times = {label: [r.history.training_time for r in group] for label, group in by_label.items()}
        best = max(by_label, key=lambda label: mean(r.history["acc_val"][-1] for r in by_label[label]))
        confusion = sum(result.confusion for result in by_label[best])
        title = ", ".join(["Training time", *cli.concurrency_note(arguments), cycles])
        judged = f"{best}, best on validation data, {runs_in_words(len(by_label[best]))}"
        pictures = {
            "accuracy": plots.plot_bars(accuracy, f"Test accuracy, {cycles}{where}", "test accuracy (%)", percent=True),
            "time": plots.plot_bars(times, f"{title}{where}", "training time (s)"),
            **pictures,
            "confusion": plots.plot_confusion(confusion, data.class_names, f"Confusion matrix of {judged}{where}"),
        }
    names = plots.save_figures({f"part{part}-{name}": figure for name, figure in pictures.items()}, folder)
    return report.Section(f"Part {part}: {cycles}, {data.name}", report.summarise(results), names)


def runs_in_words(n):
    return "1 run" if n == 1 else f"{n} runs"


def mean(values):
    values = list(values)
    return sum(values) / len(values)


if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
