#!/usr/bin/env python3
"""DD2424, Assignment 3, Exercise 5.2: training time of cyconv and of PyTorch on the CPU.

PyTorch is used in two ways: with conv2d, autograd and torch.optim.SGD, and with
gradients written by hand, the fastest implementation that we found. Every
implementation runs in a process of its own, and is checked against the
reference in float64 before it is timed.

- A single update, for each filter width and several numbers of filters. The
  implementations take turns, a chunk of updates at a time; reported are medians
  over the rounds, with the lowest and highest.
- Whole runs of Exercise 3's networks for three equal cycles, with every seed:
  the time from the first to the last update, and the test accuracy.
"""

import dataclasses
import os
import sys
from contextlib import ExitStack

sys.path.insert(0, os.path.dirname(__file__))  # which python -P leaves out

import numpy as np
import peers
from peers import comparison
from peers.case import Case
from peers.comparison import LABELS, conclude, conclude_accuracies, medians
from peers.worker import Worker

from cyconv import get_num_threads
from cyconv.experiments import ARCHITECTURES, RunInterrupted, cli, plots, report, statistics
from cyconv.experiments.output_folder import OutputFolder
from cyconv.experiments.runs import under_one_name
from cyconv.experiments.usage import UsageError

OUTPUT = "results/compare_pytorch"
SEEDS = 3
#: What a worker measures in a whole run, by its name in the results.
MEASURED = {"seconds": "updates", "layout_seconds": "layout", "test_accuracy": "accuracy"}
FILTER_SIZES = (2, 4, 8, 16)
N_HIDDEN = 50
FULL = {
    "filter_sizes": list(FILTER_SIZES),
    "filters": [3, 10, 40, 160],
    "rounds": 5,
    "seconds": 0.1,
    "n_images": 5000,
    "step_size": 800,
}
QUICK = {"filter_sizes": [4, 16], "filters": [3, 10], "rounds": 2, "seconds": 0.01, "n_images": 500, "step_size": 20}
STEPS_CSV, RUNS_CSV, STEPS_FIGURE, RUNS_FIGURE = "steps.csv", "runs.csv", "steps", "runs"


def parse(argv):
    parser = cli.experiment_parser(__doc__, OUTPUT, SEEDS, resumable=False)
    parser.add_argument(
        "--filter-sizes",
        nargs="+",
        type=int,
        choices=FILTER_SIZES,
        metavar="F",
        help="filter widths, from 2, 4, 8, 16 (default: all)",
    )
    parser.add_argument(
        "--filters",
        nargs="+",
        type=cli.positive_integer,
        metavar="N",
        help=f"numbers of filters (default: {' '.join(map(str, FULL['filters']))})",
    )
    parser.add_argument(
        "--rounds",
        type=cli.positive_integer,
        metavar="N",
        help=f"number of rounds of the single updates (default: {FULL['rounds']})",
    )
    arguments = parser.parse_args(argv)
    defaults = QUICK if arguments.quick else FULL
    arguments.filter_sizes = sorted(set(arguments.filter_sizes or defaults["filter_sizes"]))
    arguments.filters = sorted(set(arguments.filters or defaults["filters"]))
    arguments.rounds = arguments.rounds or defaults["rounds"]
    return arguments


def main(argv=None):
    arguments = parse(argv)
    if "torch" not in peers.installed():
        raise UsageError("PyTorch must be installed for this comparison, but it is not: pip install torch")
    source, data = cli.load_data(arguments)
    cli.check_like_cifar10(data, arguments)
    defaults = QUICK if arguments.quick else FULL
    runs = [
        under_one_name(run, step_size=defaults["step_size"])
        for run in ARCHITECTURES
        if run.filter_size in arguments.filter_sizes
    ]
    configuration = {
        **cli.configuration("compare_pytorch", arguments, [], data),
        "filter_sizes": arguments.filter_sizes,
        "filters": arguments.filters,
        "rounds": arguments.rounds,
        "seconds": defaults["seconds"],
        "n_images": min(defaults["n_images"], len(data.train)),
        "threads": get_num_threads(),
        "seeds": cli.n_seeds(arguments),
        "networks": [run.to_dict() for run in runs],
    }
    folder = OutputFolder(arguments.output, configuration, overwrite=arguments.overwrite)
    if folder.results:
        return folder.report()

    peers.warn_if_busy()
    found, code = {"steps": [], "runs": []}, 0
    try:
        with ExitStack() as stack:
            workers = {name: stack.enter_context(Worker(name, get_num_threads())) for name in LABELS}
            measure_steps(workers, source, configuration, found["steps"])
            measure_runs(workers, source, runs, configuration["seeds"], found["runs"])
    except RunInterrupted as stop:
        code = 128 + stop.signum
        print(stop, file=sys.stderr)
    if found["steps"]:
        write_results(found, configuration, data, folder, complete=code == 0)
    cli.print_paragraphs(cli.closing_line(data, source, folder, code == 0, resumable=False))
    return code


def measure_steps(workers, source, configuration, found):
    """Measure the microseconds of an update of every network, in turns; append a dict per network to ``found``."""
    seconds, n_images = configuration["seconds"], configuration["n_images"]
    for filter_size in configuration["filter_sizes"]:
        for n_filters in configuration["filters"]:
            case = Case(filter_size, n_filters, (N_HIDDEN,))
            checked = {name: prepare(worker, case, source, n_images, seconds / 3) for name, worker in workers.items()}
            times = {name: [] for name in workers}
            for _ in range(configuration["rounds"]):
                for name, worker in workers.items():
                    times[name].append(worker.ask("step", key="case", seconds=seconds))
            for worker in workers.values():
                worker.ask("drop", key="case")
            found.append(
                {
                    "filter_size": filter_size,
                    "n_filters": n_filters,
                    "n_hidden": N_HIDDEN,
                    "n_parameters": case.n_parameters,
                    "checked": checked,
                    "microseconds": times,
                }
            )
            print(f"f={filter_size}, nf={n_filters}, one update: {medians(times, 0)} µs", flush=True)


def prepare(worker, case, source, n_images, seconds):
    """Check a worker's implementation on a case and choose its fastest variant."""
    described = {"case": dataclasses.asdict(case), "source": dataclasses.asdict(source)}
    return worker.ask("prepare", key="case", n_images=n_images, seconds=seconds, measures=["step"], **described)


def measure_runs(workers, source, runs, n_seeds, found):
    """Measure seconds and test accuracy of whole runs, in turns; append a dict per network to ``found``."""
    for run in runs:
        case = Case(run.filter_size, run.n_filters, (run.n_hidden,), run.batch_size)
        schedule = run.schedule()
        variants = {}
        for name, worker in workers.items():
            variants[name] = prepare(worker, case, source, 1000, 0.03)["variants"]["step"]
        for worker in workers.values():
            worker.ask("drop", key="case")
        settings = {
            "case": dataclasses.asdict(case),
            "source": dataclasses.asdict(source),
            "rates": schedule(np.arange(schedule.total_steps)).tolist(),
        }
        results = {name: [] for name in workers}
        for seed in range(n_seeds):
            for name, worker in workers.items():
                results[name].append(worker.ask("whole_run", seed=seed, variant=variants[name], **settings))
        measured = {
            key: {name: [result[what] for result in each] for name, each in results.items()}
            for key, what in MEASURED.items()
        }
        found.append(
            {
                "label": run.label,
                "filter_size": run.filter_size,
                "n_filters": run.n_filters,
                "n_updates": schedule.total_steps,
                "variants": variants,
                **measured,
            }
        )
        print(f"{run.label}, a whole run: {medians(measured['seconds'], 2)} s", flush=True)


def write_results(found, configuration, data, folder, complete):
    """Write results.json, summary.md, both CSV files and figures; print tables and conclusions."""
    steps, runs = found["steps"], found["runs"]
    setting = f"batch 100, nh={N_HIDDEN}, float32, {report.count(configuration['threads'], 'thread')}"
    origin = "\n" + report.describe_origin(data, configuration["quick"], complete)
    figures = {STEPS_FIGURE: draw_steps(steps, f"Time of an update: {setting}{origin}")}
    sections = [
        (
            f"A single update, {data.name}: {setting}; microseconds",
            comparison.steps_table(steps),
            conclude("An update", [step["microseconds"] for step in steps]),
            STEPS_FIGURE,
        )
    ]
    folder.write(STEPS_CSV, comparison.steps_csv(steps, data))
    if runs:
        updates = f"{runs[0]['n_updates']:,} updates"
        sections += [
            (
                f"Whole runs of Exercise 3's networks, {data.name}: {updates}, {setting}; seconds",
                comparison.runs_table(runs),
                conclude("A whole run", [run["seconds"] for run in runs]),
                RUNS_FIGURE,
            ),
            (
                f"Test accuracy after whole runs, {data.name}, and the time to prepare the images for them",
                comparison.accuracies_table(runs),
                conclude_accuracies(runs),
                None,
            ),
        ]
        figures[RUNS_FIGURE] = draw_runs(runs, f"Whole runs: {updates}, {setting}{origin}")
        folder.write(RUNS_CSV, comparison.runs_csv(runs, data))

    remarks = report.remarks(configuration["quick"], complete)
    pictures = dict(zip(figures, report.save_pictures(figures, folder, configuration.get("format", "png"))))
    header, versions = report.results_header(configuration, complete), peers.versions(LABELS)
    introduction = (
        "Times are medians (lowest–highest) over rounds or seeds; ratios are medians of the ratios within a round or "
        "seed. The time of a whole run is that from the first update to the last. Accuracies are mean ± "
        f"standard deviation. {report.comparison_rule()}"
    )
    document = {
        **header,
        "versions": header["versions"] | versions,
        "conclusions": [conclusion for _, _, conclusion, _ in sections],
        "steps": steps,
        "runs": [run | {key: describe_each(run[key]) for key in MEASURED} for run in runs],
    }
    parts = [
        (heading, [table, conclusion, *([pictures[figure]] if figure else [])])
        for heading, table, conclusion, figure in sections
    ]
    title = "cyconv and PyTorch, training time"
    folder.finish(document, report.report_document(title, document, remarks, introduction, *parts))
    for heading, table, conclusion, _ in sections:
        cli.print_paragraphs(heading, table, conclusion)
    cli.print_paragraphs(*remarks)


def describe_each(values):
    return {name: statistics.describe_values(each) for name, each in values.items()}


def draw_steps(steps, title):
    panels = {}
    for step in steps:
        panel = panels.setdefault(f"f = {step['filter_size']}", {})
        for name, label in LABELS.items():
            panel.setdefault(label, {})[step["n_filters"]] = step["microseconds"][name]
    return plots.plot_panels(panels, title, "number of filters nf", "microseconds per update")


def draw_runs(runs, title):
    lines = {label: {run["filter_size"]: run["seconds"][name] for run in runs} for name, label in LABELS.items()}
    counts = ", ".join(str(run["n_filters"]) for run in runs)
    return plots.plot_panels({"": lines}, title, f"filter width f (with nf = {counts} filters)", "seconds per run")


if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
