"""The learning-rate range test: between which rates cycles should move.

Trains each network of Exercise 3 for some updates (--steps) while the learning
rate rises geometrically from --low to --high, and records the cost of each
batch (Smith, "Cyclical Learning Rates for Training Neural Networks",
arXiv:1506.01186, 2015). Suggests the rate at which the loss starts to fall as
η_min, and the rate at which it starts to rise again as η_max; for several
seeds, the geometric means of these. Says so if the range does not show both,
or if nothing was learned.

The settings of a run are options, as of 'cyconv train', and --minutes chooses a
recipe of push-accuracy: use the settings of the training that follows.

    cyconv lr-range --minutes 1
    cyconv lr-range --architectures 2 --momentum 0.9 --flip
    cyconv lr-range --filter-size 4 8 --n-filters 24 32 --n-hidden 300

With --compare, trains each network for one cycle up to multiples of the
suggested η_max, and up to the rates that the rules of fastai and of
pytorch-lr-finder suggest, and measures the accuracies on a fifth of the
training images, which is held out. The test images are not used.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..._typing import JsonDict
from ...datasets import Dataset, Normalizer
from ...lr_range import LrRangeResult, geometric_mean_range, lr_range_test
from ...prepared import PreparedData
from .. import cli, lr_comparison, plots, report, statistics
from ..output_folder import OutputFolder
from ..run_options import OPTIONS, add_run_options, given_settings
from ..runs import ARCHITECTURES, Run, over_seeds
from ..usage import usage
from .push_accuracy import RECIPES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTPUT = "results/lr_range"
SEEDS = 5  # with 3, t tests find only large differences
N_STEPS = 1000
QUICK_STEP_SIZE = 100
NETWORKS = {str(number): run for number, run in enumerate(ARCHITECTURES, 1)}
#: The settings that are options: those of the network, and those of the training that follows.
ARCHITECTURE = ("filter_size", "n_filters", "n_hidden", "dtype")
TRAINING = (
    "batch_size",
    "l2",
    "label_smoothing",
    "optimizer",
    "momentum",
    "weight_decay",
    "dropout",
    "flip",
    "shift",
    "cutout",
    "whitening",
)
CURVES, FIGURE = "curves.csv", "lr-range"
COMPARISON_REMARK = (
    "Every network was trained for one triangular cycle, from its initialisation up to the rate and back. The test "
    "images were not used. A network that diverged counts with the accuracy of chance. In this table, each rule's rate "
    "and how far the accuracy is from the best of all rates that were tried, in points."
)
#: The ends of the suggested range.
ENDS = {"η_min": "eta_min", "η_max": "eta_max"}

Tests: TypeAlias = Mapping[int, LrRangeResult]  # by seed


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.experiment_parser(__doc__, OUTPUT, SEEDS, resumable=False)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--architectures",
        nargs="+",
        choices=tuple(NETWORKS),
        metavar="N",
        help=f"numbers of the architectures, from {', '.join(NETWORKS)} (default: all)",
    )
    chosen.add_argument(
        "--minutes",
        type=int,
        choices=RECIPES,
        help="a recipe of push-accuracy, by the approximate duration of a run, instead of the architectures",
    )
    for name, default, what in (("--low", 1e-6, "initial"), ("--high", 10.0, "final")):
        text = f"{what} learning rate (default: {default:g})"
        parser.add_argument(name, metavar="ETA", type=cli.positive_number, default=default, help=text)
    parser.add_argument(
        "--steps",
        metavar="N",
        type=cli.positive_integer,
        default=N_STEPS,
        help="number of updates of each test (default: %(default)s)",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="train one cycle up to multiples of the suggested η_max, and up to what other libraries suggest",
    )
    add_run_options(parser, ["step_size"], {"step_size": f"{Run().step_size}; {QUICK_STEP_SIZE} with --quick"})
    group = parser.add_argument_group(
        "settings of the run", "sizes without --architectures describe a network of your own"
    )
    add_run_options(group, (*ARCHITECTURE, *TRAINING))
    arguments = parser.parse_args(argv)
    if not arguments.low < arguments.high:
        parser.error(f"--low must be below --high, but got {arguments.low:g} and {arguments.high:g}")
    if arguments.steps < 20:
        parser.error(f"--steps must be at least 20, but got {arguments.steps}")
    if arguments.step_size is not None and not arguments.compare:
        parser.error("--step-size goes with --compare, but got it alone")
    return arguments


def chosen_networks(arguments: argparse.Namespace) -> list[Run]:
    """The networks that the arguments ask for, unchecked."""
    sizes = given_settings(arguments, ARCHITECTURE)
    changes = {**sizes, **given_settings(arguments, TRAINING)}
    if arguments.minutes:
        templates = [RECIPES[arguments.minutes]]
    elif arguments.architectures or not sizes:
        templates = [NETWORKS[name] for name in sorted(set(arguments.architectures or NETWORKS))]
    else:
        templates = [Run()]
    return [dataclasses.replace(run, **changes) for run in templates]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = parse(argv)
    source, data = cli.load_data(arguments)
    if arguments.compare:
        source = source.hold_out()
        data = source.load()
        print(f"Comparison: {len(data.train):,} training images and {len(data.validation):,} held-out ones.")
    networks = chosen_networks(arguments)
    step_size = arguments.step_size or (QUICK_STEP_SIZE if arguments.quick else Run().step_size)
    with usage(n_seeds="--seeds"):
        runs = over_seeds(networks, cli.n_seeds(arguments))
    cycles = [lr_comparison.one_cycle(run, run.eta_max, step_size) for run in runs] if arguments.compare else []
    cli.check_runs([*runs, *cycles], data, arguments, **OPTIONS)
    settings = {"eta_low": arguments.low, "eta_high": arguments.high, "n_steps": arguments.steps}
    configuration = {
        **cli.configuration("lr_range", arguments, [], data),
        "range_test": settings,
        "networks": [run.to_dict() for run in runs],
        **({"comparison": {"step_size": step_size}} if arguments.compare else {}),
    }
    folder = OutputFolder(arguments.output, configuration, overwrite=arguments.overwrite)
    if folder.results:
        return folder.report()

    results: dict[str, dict[int, LrRangeResult]] = {}
    for run, result in range_tests(runs, data, settings):
        results.setdefault(run.label, {})[run.seed] = result
        done = sum(map(len, results.values()))
        print(f"[{done}/{len(runs)}] {run.label}, seed {run.seed}: {describe_result(result)}", flush=True)
    trials = compare(runs, results, step_size, data) if arguments.compare else None

    changes = given_settings(arguments, (*ARCHITECTURE, *TRAINING) if arguments.minutes else TRAINING)
    write_results(results, trials, runs, changes, configuration, data, folder)
    cli.print_paragraphs(cli.closing_line(data, source, folder))
    return 0


def range_tests(runs: Sequence[Run], data: Dataset, settings: Mapping[str, Any]) -> Iterator[tuple[Run, LrRangeResult]]:
    """Yield each run with the `LrRangeResult` of its untrained network."""
    for run, source in prepared(runs, data):
        network = run.network(data.image_shape, data.n_classes)
        with usage(eta_low="--low", eta_high="--high", n_steps="--steps", **OPTIONS):
            yield run, lr_range_test(network, source, **settings, **run.update_options())


def prepared(runs: Sequence[Run], data: Dataset) -> Iterator[tuple[Run, PreparedData]]:
    """Yield each run with the training images, which are prepared once for all of its seeds."""
    sources: dict[str, PreparedData] = {}
    for run in runs:
        if run.name not in sources:
            network = run.network(data.image_shape, data.n_classes)
            normalizer = Normalizer.fit(data.train.images, run.whitening)
            sources[run.name] = network.prepare(data.train.images, data.train.labels, normalizer)
        yield run, sources[run.name]


def compare(
    runs: Sequence[Run], results: Mapping[str, Tests], step_size: int, data: Dataset
) -> dict[str, list[lr_comparison.Trial]]:
    """Train one cycle up to multiples of each suggested rate and up to what other rules suggest, by label."""
    found = {}
    sources = {run.label: source for run, source in prepared(runs, data)}
    for label, tests in results.items():
        ends = geometric_mean_range(list(tests.values()))
        if ends is None:
            continue
        of_label = [run for run in runs if run.label == label]
        others = lr_comparison.other_suggestions(of_label, sources[label], data)
        found[label] = lr_comparison.trials(ends[1], others)
        for trial, run in lr_comparison.train(of_label, found[label], step_size, data):
            outcome = f"{100 * trial.accuracies[-1]:.2f} % of the held-out images"
            print(f"{label}, seed {run.seed}, one cycle up to {trial.eta_max:.2g}: {outcome}", flush=True)
    return found


def describe_result(result: LrRangeResult) -> str:
    """The range that one test suggests, in words."""
    ended = f"; the cost diverged after {len(result.costs)} updates" if result.diverged else ""
    if result.eta_min is None:
        return f"none, {in_options(result.explanation)}{ended}"
    return f"{result.eta_min:.1e} to {result.eta_max:.1e}{ended}"


def in_options(explanation: str) -> str:
    """Why a test suggests nothing, in terms of the options."""
    return explanation.replace("eta_low", "--low").replace("eta_high", "--high")


def write_results(
    results: Mapping[str, Tests],
    trials: Mapping[str, Sequence[lr_comparison.Trial]] | None,
    runs: Sequence[Run],
    changes: Mapping[str, Any],
    configuration: JsonDict,
    data: Dataset,
    folder: OutputFolder,
) -> None:
    """Write results.json, summary.md, the curves and their figure; print table and conclusion."""
    quick, settings = configuration["quick"], configuration["range_test"]
    description = (
        f"batch {runs[0].batch_size}, λ = {runs[0].l2:g}, {settings['n_steps']:,} updates from "
        f"η = {settings['eta_low']:g} to {settings['eta_high']:g}"
        + "".join(f", {name}={value}" for name, value in changes.items() if name not in ("batch_size", "l2"))
    )
    title = f"Learning-rate range test: {description}\n{report.describe_origin(data, quick)}"
    by_label = {label: list(tests.values()) for label, tests in results.items()}
    figures = {FIGURE: plots.plot_lr_range(by_label, title)}
    for label, found in (trials or {}).items():
        figures[f"comparison-{len(figures)}"] = comparison_figure(label, found, configuration, data)
    pictures = report.save_pictures(figures, folder, configuration.get("format", "png"))
    folder.write(CURVES, curves_csv(results, data))
    heading = f"Suggested learning rates, {data.name}: {description}"
    sentences = [conclude(results, data)]
    if len(results) > 1:
        sentences += dict.fromkeys(compare_ends(samples(results, end), end) for end in ENDS)
    if trials is not None and len(trials) < len(results):
        without = [label for label in results if label not in trials]
        sentences.append(f"Without a suggested rate, no cycles were trained for comparison: {'; '.join(without)}.")
    remarks = report.remarks(quick, complete=True)
    introduction = (
        "Each network was trained from its initialisation while the learning rate rose geometrically. η_min is "
        "where the loss of the batches starts to fall, η_max where it starts to rise again; ×/÷ is the standard "
        f"deviation over seeds as a factor. {report.comparison_rule()}"
    )
    document = {
        **report.results_header(configuration, complete=True),
        "conclusion": sentences[0],
        "differences": {
            key: [pair.document() for pair in statistics.differences(samples(results, end))]
            for end, key in ENDS.items()
        },
        "networks": [describe_tests(label, tests) for label, tests in results.items()],
    }
    blocks: list[report.Block] = [table(results), *sentences, *pictures[:1]]
    parts: list[tuple[str, Sequence[report.Block]]] = [(heading, blocks)]
    if trials:
        document["one_cycle"] = {label: [trial.document() for trial in found] for label, found in trials.items()}
        about = f"One cycle up to other rates: {describe_comparison(configuration, data)}"
        parts.append((about, [*comparison(trials), *pictures[1:]]))
    folder.finish(document, report.report_document("Learning-rate range test", document, remarks, introduction, *parts))
    texts = [block for part in parts for block in (part[0], *part[1]) if not isinstance(block, report.Picture)]
    cli.print_paragraphs(*texts, *remarks)


def describe_comparison(configuration: JsonDict, data: Dataset) -> str:
    """How the networks of the comparison were trained and measured."""
    updates = 2 * configuration["comparison"]["step_size"]
    return f"{updates:,} updates, accuracy on {len(data.validation):,} held-out training images of {data.name}"


def comparison(trials: Mapping[str, Sequence[lr_comparison.Trial]]) -> list[report.Block]:
    """What the report says about the comparison."""
    blocks: list[report.Block] = [COMPARISON_REMARK, lr_comparison.overview(trials)]
    for label, found in trials.items():
        blocks += [lr_comparison.conclusion(label, found), lr_comparison.table(found)]
    return blocks


def comparison_figure(
    label: str, found: Sequence[lr_comparison.Trial], configuration: JsonDict, data: Dataset
) -> "Figure":
    """Accuracy after one cycle against the highest rate of the cycle."""
    multiples = "multiples of the suggested"
    groups: dict[str, dict[float, list[float]]] = {multiples: {}}
    for trial in sorted(found, key=lambda trial: trial.origin):  # so that each rule always has the same colour
        group = multiples if trial.origin.endswith("× suggested") else trial.origin
        groups.setdefault(group, {})[trial.eta_max] = trial.accuracies
    title = f"{label}: one cycle up to η_max, {describe_comparison(configuration, data)}"
    return plots.plot_search(groups, title, name="η_max")


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
        "explanation": [test.explanation for test in tests.values()],
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
    header = ["architecture", "seed", *ENDS, "lowest smoothed loss", "updates"]
    return report.Table(header, rows, n_keys=2)


def mean_and_factor(logs: Sequence[float]) -> str:
    """Geometric mean, and the standard deviation as a factor, of numbers whose log₁₀ is given."""
    if not logs:
        return "–"
    mean, deviation = statistics.mean_and_deviation(logs)
    return f"{10**mean:.1e}" + (f" ×/÷ {10**deviation:.2f}" if deviation is not None else "")


def conclude(results: Mapping[str, Tests], data: Dataset) -> str:
    """One sentence with the suggestion for each network."""
    suggested = []
    for label, tests in results.items():
        ends = geometric_mean_range(list(tests.values()))
        failed = [f"seed {seed}: {in_options(test.explanation)}" for seed, test in tests.items() if test.explanation]
        text = f"{label} from {ends[0]:.1e} to {ends[1]:.1e}" if ends else f"{label} none"
        suggested.append(text + (f" ({', '.join(failed)})" if failed else ""))
    return f"Suggested ranges on {data.name}: {'; '.join(suggested)}."


def samples(results: Mapping[str, Tests], end: str) -> dict[str, list[float]]:
    """log₁₀ of one end of the range, for every network."""
    return {label: logarithms(tests, end) for label, tests in results.items()}


def compare_ends(logs: Mapping[str, Sequence[float]], end: str) -> str:
    """Which networks differ in this end of the range, whose log₁₀ is given for every test."""
    return report.describe_differences(logs, f"log₁₀ {end}", scale=1, unit=" decades")


def curves_csv(results: Mapping[str, Tests], data: Dataset) -> str:
    """The curves as CSV, with one line per update."""
    header = ["data_set", "architecture", "seed", "update_step", "learning_rate", "cost", "penalty", "smoothed_loss"]
    rows = (
        [data.name, label, seed, step, *values]
        for label, tests in results.items()
        for seed, test in tests.items()
        for step, values in enumerate(
            zip(
                test.learning_rates.tolist(),
                test.costs.tolist(),
                np.broadcast_to(test.penalties, test.costs.shape).tolist(),
                test.smoothed.tolist(),
            )
        )
    )
    return report.format_csv(header, rows)
