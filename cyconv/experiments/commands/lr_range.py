"""The learning-rate range test: between which rates cycles should move.

Trains each network of Exercise 3 for a few hundred updates while the learning
rate rises geometrically from --low to --high, and records the cost of each
batch (Smith, "Cyclical Learning Rates for Training Neural Networks",
arXiv:1506.01186, 2015). Suggests the rate at which the cost starts to fall as
η_min, and the rate at which it stops falling as η_max; for several seeds, the
geometric means of these.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..._typing import JsonDict
from ...datasets import Dataset, Normalizer
from ...lr_range import LrRangeResult, geometric_mean_range, lr_range_test
from ...prepared import PreparedData
from .. import cli, plots, report, statistics
from ..output_folder import OutputFolder
from ..runs import ARCHITECTURES, OPTIMIZER_NAMES, Run, over_seeds, under_one_name
from ..usage import usage

OUTPUT = "results/lr_range"
SEEDS = 5  # with 3, t tests find only large differences
N_STEPS = 500
QUICK_STEPS = 100
NETWORKS = {str(number): run for number, run in enumerate(ARCHITECTURES, 1)}
CURVES, FIGURE = "curves.csv", "lr-range"
#: Settings of the training that follows, with which the test should be made.
TRAINING = {"l2": "λ", "momentum": "momentum", "dropout": "dropout", "label_smoothing": "label smoothing ε"}
ENDS = {"η_min": "eta_min", "η_max": "eta_max"}

Tests: TypeAlias = Mapping[int, LrRangeResult]  # by seed


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.experiment_parser(__doc__, OUTPUT, SEEDS, resumable=False)
    parser.add_argument(
        "--architectures",
        nargs="+",
        choices=tuple(NETWORKS),
        default=list(NETWORKS),
        metavar="N",
        help=f"numbers of the architectures, from {', '.join(NETWORKS)} (default: all)",
    )
    for name, default, what in (("--low", 1e-5, "initial"), ("--high", 1.0, "final")):
        text = f"{what} learning rate (default: {default})"
        parser.add_argument(name, metavar="ETA", type=cli.positive_number, default=default, help=text)
    parser.add_argument(
        "--steps",
        metavar="N",
        type=cli.positive_integer,
        help=f"number of updates of each test (default: {N_STEPS}; {QUICK_STEPS} with --quick)",
    )
    for name, what in TRAINING.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, metavar="X", type=cli.positive_number, help=f"{what} of the training that follows")
    parser.add_argument("--optimizer", choices=OPTIMIZER_NAMES, help="optimiser of the training that follows")
    parser.add_argument("--flip", action="store_true", default=None, help="mirror images at random, as training will")
    parser.add_argument("--shift", metavar="N", type=cli.positive_integer, help="shift images by up to N pixels")
    arguments = parser.parse_args(argv)
    arguments.steps = arguments.steps or (QUICK_STEPS if arguments.quick else N_STEPS)
    if not arguments.low < arguments.high:
        parser.error(f"--low must be below --high, but got {arguments.low:g} and {arguments.high:g}")
    if arguments.steps < 20:
        parser.error(f"--steps must be at least 20, but got {arguments.steps}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = parse(argv)
    source, data = cli.load_data(arguments)
    given = {name: getattr(arguments, name) for name in (*TRAINING, "optimizer", "flip", "shift")}
    changes = {name: value for name, value in given.items() if value is not None}
    networks = [under_one_name(NETWORKS[name], **changes) for name in sorted(set(arguments.architectures))]
    with usage(n_seeds="--seeds"):
        runs = over_seeds(networks, cli.n_seeds(arguments))
    options = {name: f"--{name.replace('_', '-')}" for name in TRAINING}
    cli.check_runs(runs, data, arguments, **options)
    settings = {
        "eta_low": arguments.low,
        "eta_high": arguments.high,
        "n_steps": arguments.steps,
        "batch_size": runs[0].batch_size,
        "l2": runs[0].l2,
    }
    configuration = {
        **cli.configuration("lr_range", arguments, [], data),
        "range_test": settings,
        "networks": [run.to_dict() for run in runs],
    }
    folder = OutputFolder(arguments.output, configuration, overwrite=arguments.overwrite)
    if folder.results:
        return folder.report()

    results: dict[str, dict[int, LrRangeResult]] = {}
    for run, result in range_tests(runs, data, settings):
        results.setdefault(run.label, {})[run.seed] = result
        done = sum(map(len, results.values()))
        print(f"[{done}/{len(runs)}] {run.label}, seed {run.seed}: {describe_result(result)}", flush=True)

    write_results(results, settings, changes, configuration, data, folder)
    cli.print_paragraphs(cli.closing_line(data, source, folder))
    return 0


def range_tests(runs: Sequence[Run], data: Dataset, settings: Mapping[str, Any]) -> Iterator[tuple[Run, LrRangeResult]]:
    """Yield each run with the `LrRangeResult` of its untrained network."""
    normalizer = Normalizer.fit(data.train.images)
    sources: dict[str, PreparedData] = {}
    for run in runs:
        network = run.network(data.image_shape, data.n_classes)
        if run.name not in sources:
            sources[run.name] = network.prepare(data.train.images, data.train.labels, normalizer)
        with usage(eta_low="--low", eta_high="--high", n_steps="--steps"):
            training = run.trainer(data.image_shape, data.n_classes)
            options = {
                name: getattr(training, name)
                for name in ("label_smoothing", "momentum", "dropout", "augmentation", "optimizer")
            }
            yield run, lr_range_test(network, sources[run.name], seed=run.seed, **settings, **options)


def describe_result(result: LrRangeResult) -> str:
    """The range that one test suggests, in words."""
    ended = f"; the cost diverged after {len(result.costs)} updates" if result.diverged else ""
    if result.eta_min is None:
        return f"the cost did not fall{ended}"
    return f"{result.eta_min:.1e} to {result.eta_max:.1e}{ended}"


def write_results(
    results: Mapping[str, Tests],
    settings: Mapping[str, Any],
    changes: Mapping[str, Any],
    configuration: JsonDict,
    data: Dataset,
    folder: OutputFolder,
) -> None:
    """Write results.json, summary.md, the curves and their figure; print table and conclusion."""
    quick = configuration["quick"]
    description = (
        f"batch {settings['batch_size']}, λ = {settings['l2']:g}, {settings['n_steps']:,} updates from "
        f"η = {settings['eta_low']:g} to {settings['eta_high']:g}"
        + "".join(f", {name}={value}" for name, value in changes.items() if name != "l2")
    )
    title = f"Learning-rate range test: {description}\n{report.describe_origin(data, quick)}"
    by_label = {label: list(tests.values()) for label, tests in results.items()}
    figures = {FIGURE: plots.plot_lr_range(by_label, title)}
    pictures = report.save_pictures(figures, folder, configuration.get("format", "png"))
    folder.write(CURVES, curves_csv(results, data))
    heading = f"Suggested learning rates, {data.name}: {description}"
    sentences = [conclude(results, data), *(compare_ends(samples(results, end), end) for end in ENDS)]
    remarks = report.remarks(quick, complete=True)
    introduction = (
        "Each network was trained from its initialisation while the learning rate rose geometrically. η_min is "
        "where the cost of the batches starts to fall, η_max where it stops falling; ×/÷ is the standard "
        f"deviation over seeds as a factor. {report.comparison_rule()}"
    )
    document = {
        **report.results_header(configuration, complete=True),
        "conclusion": sentences[0],
        "comparisons": {
            key: [pair.document() for pair in statistics.differences(samples(results, end))]
            for end, key in ENDS.items()
        },
        "networks": [describe_tests(label, tests) for label, tests in results.items()],
    }
    blocks: list[report.Block] = [table(results), *sentences, *pictures]
    part = (heading, blocks)
    folder.finish(document, report.report_document("Learning-rate range test", document, remarks, introduction, part))
    cli.print_paragraphs(heading, table(results), *sentences, *remarks)


def logarithms(tests: Tests, end: str) -> list[float]:
    """log₁₀ of one end of the range, for every test that suggests a range."""
    return [float(np.log10(getattr(test, ENDS[end]))) for test in tests.values() if test.eta_min is not None]


def describe_tests(label: str, tests: Tests) -> JsonDict:
    """The entry of one network in results.json."""
    suggested: JsonDict = {}
    for end, key in ENDS.items():
        logs = logarithms(tests, end)
        suggested[key] = {
            "geometric_mean": 10 ** float(np.mean(logs)) if logs else None,
            "log10": statistics.describe_values(logs) if logs else None,
            "each": [getattr(test, key) for test in tests.values()],
        }
    return {
        "label": label,
        "seeds": list(tests),
        **suggested,
        "updates": [len(test.costs) for test in tests.values()],
        "diverged": [test.diverged for test in tests.values()],
    }


def table(results: Mapping[str, Tests]) -> report.Table:
    """The suggestion for every seed, and the geometric means with their deviations."""
    rows = []
    for label, tests in results.items():
        for seed, test in tests.items():
            ends = [f"{getattr(test, key):.1e}" if test.eta_min is not None else "–" for key in ENDS.values()]
            rows.append([label, f"{seed}", *ends, f"{test.smoothed.min():.3f}", f"{len(test.costs):,}"])
        means = [mean_and_factor(logarithms(tests, end)) for end in ENDS]
        lowest = report.format_mean([test.smoothed.min() for test in tests.values()], decimals=3)
        rows.append([label, "geometric mean", *means, lowest, ""])
    header = ["architecture", "seed", *ENDS, "lowest smoothed cost", "updates"]
    return report.Table(header, rows, n_keys=2)


def mean_and_factor(logs: Sequence[float]) -> str:
    """Geometric mean, and the standard deviation as a factor, of numbers whose log₁₀ is given."""
    if not logs:
        return "–"
    mean, deviation = statistics.mean_and_deviation(logs)
    return f"{10**mean:.1e}" + (f" ×/÷ {10**deviation:.2f}" if deviation is not None else "")


def conclude(results: Mapping[str, Tests], data: Dataset) -> str:
    """One sentence with the suggestion for each network."""
    ranges = {label: geometric_mean_range(list(tests.values())) for label, tests in results.items()}
    suggested = "; ".join(
        f"{label} from {ends[0]:.1e} to {ends[1]:.1e}" if ends else f"{label} none, the cost did not fall"
        for label, ends in ranges.items()
    )
    return f"Suggested ranges on {data.name}: {suggested}."


def samples(results: Mapping[str, Tests], end: str) -> dict[str, list[float]]:
    """log₁₀ of one end of the range, for every network."""
    return {label: logarithms(tests, end) for label, tests in results.items()}


def compare_ends(logs: Mapping[str, Sequence[float]], end: str) -> str:
    """Which networks differ in this end of the range, whose log₁₀ is given for every test."""
    return report.describe_differences(logs, f"log₁₀ {end}", scale=1, unit=" decades")


def curves_csv(results: Mapping[str, Tests], data: Dataset) -> str:
    """The curves as CSV, with one line per update."""
    header = ["data_set", "architecture", "seed", "update_step", "learning_rate", "cost", "smoothed_cost"]
    rows = (
        [data.name, label, seed, step, *values]
        for label, tests in results.items()
        for seed, test in tests.items()
        for step, values in enumerate(zip(test.learning_rates.tolist(), test.costs.tolist(), test.smoothed.tolist()))
    )
    return report.format_csv(header, rows)
