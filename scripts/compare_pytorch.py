#!/usr/bin/env python3
"""DD2424, Assignment 3, Exercise 5.2: training time, cyconv against PyTorch on the CPU.

PyTorch trains twice: with conv2d, autograd and torch.optim.SGD, and in the
fastest way we found to write the same step, gradients by hand. Each way is
checked against the reference in float64 before it is timed, in a process of
its own.

- One update, for every filter width and several numbers of filters: all take
  turns, a chunk of updates at a time; medians over the rounds, with the lowest
  and highest.
- Whole runs of Exercise 3's networks, three equal cycles, with every seed: from
  the first to the last update, and what accuracy they end at.
"""

import csv
import dataclasses
import io
import sys
from contextlib import ExitStack
from statistics import median

import numpy as np
import peers
from peers.case import Case
from peers.tables import spread
from peers.worker import Worker

from cyconv import get_num_threads
from cyconv.experiments import ARCHITECTURES, RunInterrupted, cli, describe_data, plots, report, statistics
from cyconv.experiments.output_folder import OutputFolder
from cyconv.experiments.usage import UsageError

OUTPUT = "results/compare_pytorch"
SEEDS = 3
OURS, THEIRS = "cyconv", ("torch", "torch-manual")
WAYS = {name: peers.PEERS[name].label for name in (OURS, *THEIRS)}
#: What a whole run tells, and under which names in the results.
MEASURED = {"seconds": "updates", "layout_seconds": "layout", "test_accuracy": "accuracy"}
NOISE = " (two standard errors, the deviation pooled over the three ways)"
BEST = "the faster of PyTorch's two ways"
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
STEPS_CSV, RUNS_CSV, STEPS_PICTURE, RUNS_PICTURE = "steps.csv", "runs.csv", "steps.png", "runs.png"


def parse(argv):
    parser = cli.parser(__doc__, OUTPUT, SEEDS, resumable=False)
    parser.add_argument(
        "--filter-sizes",
        nargs="+",
        type=int,
        choices=FILTER_SIZES,
        metavar="F",
        help="filter widths, of 2, 4, 8, 16 (default: all)",
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
        help=f"turns that each takes with single updates (default: {FULL['rounds']})",
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
    source, data = cli.open_data(arguments)
    defaults = QUICK if arguments.quick else FULL
    runs = [
        dataclasses.replace(run, step_size=defaults["step_size"])
        for run in ARCHITECTURES
        if run.filter_size in arguments.filter_sizes
    ]
    configuration = {
        "script": "compare_pytorch",
        "quick": arguments.quick,
        "protocol": arguments.protocol,
        "data": describe_data(data),
        "runs": [],
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

    found, code = {"steps": [], "runs": []}, 0
    try:
        with ExitStack() as stack:
            workers = {name: stack.enter_context(Worker(name, get_num_threads())) for name in WAYS}
            measure_steps(workers, source, configuration, found["steps"])
            measure_runs(workers, source, runs, configuration["seeds"], found["runs"])
    except RunInterrupted as stop:
        code = 128 + stop.signum
        print(stop, file=sys.stderr)
    if found["steps"]:
        write_results(found, configuration, data, folder, complete=code == 0)
    print("\n" + cli.last_line(data, source, folder, code == 0, resumable=False))
    return code


def measure_steps(workers, source, configuration, found):
    """Microseconds of an update of every network, in turns; ``found`` grows by a dict for each network."""
    seconds, n_images = configuration["seconds"], configuration["n_images"]
    for filter_size in configuration["filter_sizes"]:
        for n_filters in configuration["filters"]:
            case = Case(filter_size, n_filters, (N_HIDDEN,))
            described = dataclasses.asdict(case)
            about = {
                name: worker.ask(
                    "prepare",
                    key="case",
                    case=described,
                    n_images=n_images,
                    seconds=seconds / 3,
                    source=dataclasses.asdict(source),
                    measures=["step"],
                )
                for name, worker in workers.items()
            }
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
                    "checked": about,
                    "microseconds": times,
                }
            )
            print(f"f={filter_size}, nf={n_filters}, an update: {medians(times, 0)} µs", flush=True)


def measure_runs(workers, source, runs, n_seeds, found):
    """Seconds and test accuracy of whole runs, in turns; ``found`` grows by a dict for each network."""
    for run in runs:
        described = dataclasses.asdict(Case(run.filter_size, run.n_filters, (run.n_hidden,), run.batch_size))
        schedule = run.schedule()
        rates = schedule(np.arange(schedule.total_steps)).tolist()
        variants = {
            name: worker.ask(
                "prepare",
                key="run",
                case=described,
                n_images=1000,
                seconds=0.03,
                source=dataclasses.asdict(source),
                measures=["step"],
            )["variants"]["step"]
            for name, worker in workers.items()
        }
        for worker in workers.values():
            worker.ask("drop", key="run")
        whole = {name: [] for name in workers}
        for seed in range(n_seeds):
            for name, worker in workers.items():
                whole[name].append(
                    worker.ask(
                        "whole_run",
                        case=described,
                        source=dataclasses.asdict(source),
                        rates=rates,
                        seed=seed,
                        variant=variants[name],
                    )
                )
        found.append(
            {
                "label": run.label,
                "filter_size": run.filter_size,
                "n_filters": run.n_filters,
                "n_updates": schedule.total_steps,
                "variants": variants,
                **{
                    key: {name: [one[what] for one in each] for name, each in whole.items()}
                    for key, what in MEASURED.items()
                },
            }
        )
        print(f"{run.label}, a whole run: {medians(found[-1]['seconds'], 2)} s", flush=True)


def medians(times, decimals):
    return ", ".join(f"{WAYS[name]} {median(values):,.{decimals}f}" for name, values in times.items())


def write_results(found, configuration, data, folder, complete):
    """Write results.json, summary.md, both CSV files and pictures; print tables and conclusions."""
    threads = f"{configuration['threads']} thread" + "s" * (configuration["threads"] > 1)
    about = f"batch 100, nh={N_HIDDEN}, float32, {threads}"
    quick = configuration["quick"]
    where = report.describe_origin(data, quick, complete)
    parts = [
        (
            f"One update, {data.name}: {about}; microseconds",
            steps_table(found["steps"]),
            STEPS_PICTURE,
            [conclude("An update", [step["microseconds"] for step in found["steps"]])],
        )
    ]
    panels = {}
    for step in found["steps"]:
        panel = panels.setdefault(f"f = {step['filter_size']}", {})
        for name, label in WAYS.items():
            panel.setdefault(label, {})[step["n_filters"]] = step["microseconds"][name]
    figure = plots.plot_panels(
        panels, f"Time of an update: {about}\n{where}", "number of filters nf", "microseconds per update"
    )
    plots.save_figure(figure, folder / STEPS_PICTURE)
    folder.write(STEPS_CSV, steps_csv(found["steps"], data))
    if found["runs"]:
        updates = f"{found['runs'][0]['n_updates']:,} updates"
        parts += [
            (
                f"Whole runs of Exercise 3's networks, {data.name}: {updates}, {about}; seconds",
                runs_table(found["runs"]),
                RUNS_PICTURE,
                [conclude("A whole run", [run["seconds"] for run in found["runs"]])],
            ),
            (
                f"What whole runs end at, {data.name}: test accuracy, and the time to lay out the images before",
                ends_table(found["runs"]),
                None,
                [conclude_accuracies(found["runs"])],
            ),
        ]
        lines = {
            label: {run["filter_size"]: run["seconds"][name] for run in found["runs"]} for name, label in WAYS.items()
        }
        counts = ", ".join(str(run["n_filters"]) for run in found["runs"])
        figure = plots.plot_panels(
            {"": lines},
            f"Whole runs: {updates}, {about}\n{where}",
            f"filter width f (with nf = {counts} filters)",
            "seconds per run",
        )
        plots.save_figure(figure, folder / RUNS_PICTURE)
        folder.write(RUNS_CSV, runs_csv(found["runs"], data))

    remarks = report.remarks(quick, complete)
    folder.finish(
        {
            "complete": complete,
            "data_set": data.name,
            "configuration": configuration,
            "versions": report.describe_versions() | peers.versions(WAYS),
            "machine": report.describe_machine(),
            "conclusions": [sentence for *_, sentences in parts for sentence in sentences],
            "steps": found["steps"],
            "runs": [
                run
                | {
                    key: {name: statistics.describe_values(values) for name, values in run[key].items()}
                    for key in MEASURED
                }
                for run in found["runs"]
            ],
        },
        "\n\n".join(
            [
                f"# cyconv and PyTorch, training time: {data.name}",
                *(f"**{remark}**" for remark in remarks),
                (
                    "Times are medians (lowest–highest) over rounds or seeds; ratios are medians of the ratios "
                    "within a round or seed. A whole run lasts from the first update to the last. A difference in "
                    "time counts as noise where the ratios lie on both sides of 1."
                ),
                f"{report.machine_sentence()[:-1]}, torch {peers.versions(WAYS)['torch']}.",
                *(
                    text
                    for heading, table, picture, sentences in parts
                    for text in (
                        f"## {heading}",
                        table(True),
                        *sentences,
                        *([f"![{picture}]({picture})"] if picture else []),
                    )
                ),
            ]
        )
        + "\n",
    )
    for heading, table, _, sentences in parts:
        print("\n" + "\n\n".join([heading, table(False), *sentences]))
    for remark in remarks:
        print("\n" + remark)


def ratios(times):
    """How many times as long as cyconv each way of PyTorch takes, and the faster of them, in every round."""
    each = {name: [a / b for a, b in zip(times[name], times[OURS], strict=True)] for name in THEIRS}
    return each | {BEST: [min(pair) for pair in zip(*each.values())]}


def ratio_cells(times):
    every = ratios(times)
    return [f"{median(every[name]):.2f}×" for name in (THEIRS[0], BEST)]


RATIO_HEADER = ["conv2d + autograd / cyconv", "best PyTorch / cyconv"]


def steps_table(steps):
    rows = [
        [
            f"{step['filter_size']}",
            f"{step['n_filters']}",
            f"{step['n_parameters']:,}",
            *(spread(step["microseconds"][name]) for name in WAYS),
            *ratio_cells(step["microseconds"]),
        ]
        for step in steps
    ]
    header = ["f", "nf", "parameters", *WAYS.values(), *RATIO_HEADER]
    return lambda markdown: report.format_table(header, rows, markdown)


def runs_table(runs):
    rows = [
        [
            run["label"],
            f"{len(run['seconds'][OURS])}",
            *(spread(run["seconds"][name]) for name in WAYS),
            *ratio_cells(run["seconds"]),
        ]
        for run in runs
    ]
    header = ["architecture", "runs", *WAYS.values(), *RATIO_HEADER]
    return lambda markdown: report.format_table(header, rows, markdown)


def ends_table(runs):
    rows = [
        [
            run["label"],
            WAYS[name],
            report.format_mean(run["test_accuracy"][name], scale=100),
            report.format_each(run["test_accuracy"][name], scale=100),
            spread(run["layout_seconds"][name]),
        ]
        for run in runs
        for name in WAYS
    ]
    header = ["architecture", "trained by", "test accuracy (%)", "each run (%)", "layout (s)"]
    return lambda markdown: report.format_table(header, rows, markdown)


def conclude(what, measured):
    """How many times as long as cyconv PyTorch takes, from the least to the most, and where that is noise."""
    every = [ratios(times) for times in measured]
    clauses, noise = [], {}
    for name, label in ((THEIRS[0], f"with {WAYS[THEIRS[0]]}"), (BEST, f"with {BEST}")):
        middles = [median(each[name]) for each in every]
        low, high = f"{min(middles):.2f}", f"{max(middles):.2f}"
        clauses.append(f"{low if low == high else f'{low} to {high}'} times as long {label}")
        noise[label] = sum(min(each[name]) <= 1 <= max(each[name]) for each in every)
    sentence = f"{what} takes {clauses[0]} as with cyconv, and {clauses[1]}."
    if len(measured[0][OURS]) == 1:
        return sentence + " With one measurement each, it cannot be told which differences are noise."
    told = [f"for {count} of {len(every)} networks {label}" for label, count in noise.items() if count]
    return sentence + (
        f" The difference is within noise {' and '.join(told)}." if told else " No difference is within noise."
    )


def conclude_accuracies(runs):
    """Whether the three ways end at the same test accuracy, as they should."""
    pairs = {run["label"]: statistics.differences(run["test_accuracy"]) for run in runs}
    if any(pair.bound is None for of_run in pairs.values() for pair in of_run):
        return "With one run each, it cannot be told which differences in test accuracy are noise."
    beyond = [
        f"{label}, {WAYS[pair.first]} and {WAYS[pair.second]} ({100 * abs(pair.value):.2f} points apart)"
        for label, of_run in pairs.items()
        for pair in of_run
        if not pair.is_noise
    ]
    if not beyond:
        return f"All three ways end at the same test accuracy, within noise{NOISE}, for every network."
    return f"Beyond noise{NOISE}, test accuracies differ: {'; '.join(beyond)}; every other difference is within noise."


def steps_csv(steps, data):
    return as_csv(
        ["data_set", "f", "nf", "nh", "trained_by", "round", "microseconds"],
        (
            [data.name, step["filter_size"], step["n_filters"], step["n_hidden"], WAYS[name], round_, value]
            for step in steps
            for name, values in step["microseconds"].items()
            for round_, value in enumerate(values, 1)
        ),
    )


def runs_csv(runs, data):
    return as_csv(
        ["data_set", "architecture", "trained_by", "seed", "updates", "seconds", "layout_seconds", "test_accuracy"],
        (
            [data.name, run["label"], WAYS[name], seed, run["n_updates"], *values]
            for run in runs
            for name in WAYS
            for seed, values in enumerate(
                zip(run["seconds"][name], run["layout_seconds"][name], run["test_accuracy"][name])
            )
        ),
    )


def as_csv(header, rows):
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()


if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
