#!/usr/bin/env python3
"""The learning-rate range test: between which rates should the cycles of a network move?

Trains a copy of each of Exercise 3's networks for some hundred updates while
the learning rate rises geometrically from --low to --high, and watches the
cost of the batches (Smith, "Cyclical Learning Rates for Training Neural
Networks", arXiv:1506.01186, 2015). Suggests as η_min the rate at which the
cost starts to fall, and as η_max the rate at which it stops falling; over
several seeds, their geometric means.
"""

import csv
import io

import numpy as np

from cyconv import Normalizer, lr_range_test
from cyconv.experiments import ARCHITECTURES, cli, describe_data, over_seeds, plots, report, statistics
from cyconv.experiments.output_folder import OutputFolder
from cyconv.experiments.usage import usage
from cyconv.lr_range import geometric_mean_range

OUTPUT = "results/lr_range"
SEEDS = 3
N_STEPS = 500
QUICK_STEPS = 100
NETWORKS = {str(number): run for number, run in enumerate(ARCHITECTURES, 1)}
CURVES, PICTURE = "curves.csv", "lr-range.png"
ENDS = {"η_min": "eta_min", "η_max": "eta_max"}


def parse(argv):
    parser = cli.parser(__doc__, OUTPUT, SEEDS, resumable=False)
    parser.add_argument(
        "--architectures",
        nargs="+",
        choices=tuple(NETWORKS),
        default=list(NETWORKS),
        metavar="N",
        help=f"which of {', '.join(NETWORKS)} (default: all)",
    )
    parser.add_argument(
        "--low",
        metavar="ETA",
        type=cli.positive_number,
        default=1e-5,
        help="learning rate to begin with (default: %(default)s)",
    )
    parser.add_argument(
        "--high",
        metavar="ETA",
        type=cli.positive_number,
        default=1.0,
        help="learning rate to end with (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        metavar="N",
        type=cli.positive_integer,
        help=f"updates of a test (default: {N_STEPS}; {QUICK_STEPS} with --quick)",
    )
    arguments = parser.parse_args(argv)
    arguments.steps = arguments.steps or (QUICK_STEPS if arguments.quick else N_STEPS)
    if not arguments.low < arguments.high:
        parser.error(f"--low must be below --high, but got {arguments.low:g} and {arguments.high:g}")
    if arguments.steps < 20:
        parser.error(f"--steps must be at least 20, but got {arguments.steps}")
    return arguments


def main(argv=None):
    arguments = parse(argv)
    source, data = cli.open_data(arguments)
    networks = [NETWORKS[name] for name in sorted(set(arguments.architectures))]
    with usage(n_seeds="--seeds"):
        runs = over_seeds(networks, cli.n_seeds(arguments))
    settings = {
        "eta_low": arguments.low,
        "eta_high": arguments.high,
        "n_steps": arguments.steps,
        "batch_size": runs[0].batch_size,
        "l2": runs[0].l2,
    }
    configuration = {
        "script": "lr_range",
        "quick": arguments.quick,
        "protocol": arguments.protocol,
        "data": describe_data(data),
        "runs": [],
        "range_test": settings,
        "networks": [run.to_dict() for run in runs],
    }
    folder = OutputFolder(arguments.output, configuration, overwrite=arguments.overwrite)
    if folder.results:
        return folder.report()

    found = {}
    for run, result in suggestions(runs, data, settings):
        found.setdefault(run.label, {})[run.seed] = result
        print(f"{run.label}, seed {run.seed}: {in_words(result)}", flush=True)

    write_results(found, settings, configuration, data, folder)
    print("\n" + cli.last_line(data, source, folder))
    return 0


def suggestions(runs, data, settings):
    """Yield every run with the `LrRangeResult` of its network, not trained before."""
    normalizer = Normalizer.fit(data.train.images)
    sources = {}
    for run in runs:
        network = run.network(data.train.images.shape[1:], len(data.class_names))
        if run.name not in sources:
            sources[run.name] = network.prepare(data.train.images, data.train.labels, normalizer)
        with usage(eta_low="--low", eta_high="--high", n_steps="--steps"):
            yield run, lr_range_test(network, sources[run.name], seed=run.seed, **settings)


def in_words(result):
    """What one test suggests."""
    ended = f"; the cost diverged after {len(result.costs)} updates" if result.diverged else ""
    if result.eta_min is None:
        return f"the cost did not fall{ended}"
    return f"{result.eta_min:.1e} to {result.eta_max:.1e}{ended}"


def write_results(found, settings, configuration, data, folder):
    """Write results.json, summary.md, the curves and their picture; print table and conclusion."""
    quick = configuration["quick"]
    about = (
        f"batch {settings['batch_size']}, λ = {settings['l2']:g}, {settings['n_steps']:,} updates from "
        f"η = {settings['eta_low']:g} to {settings['eta_high']:g}"
    )
    title = f"Learning-rate range test: {about}\n{report.describe_origin(data, quick)}"
    results = {label: list(tests.values()) for label, tests in found.items()}
    plots.save_figure(plots.plot_lr_range(results, title), folder / PICTURE)
    folder.write(CURVES, curves_csv(found, data))
    heading = f"Suggested learning rates, {data.name}: {about}"
    sentences = [conclude(found, data), *(noise(found, end) for end in ENDS)]
    remarks = report.remarks(quick, complete=True)
    folder.finish(
        {
            "complete": True,
            "data_set": data.name,
            "configuration": configuration,
            "versions": report.describe_versions(),
            "machine": report.describe_machine(),
            "conclusion": sentences[0],
            "noise": sentences[1:],
            "networks": [describe_tests(label, tests) for label, tests in found.items()],
        },
        "\n\n".join(
            [
                f"# Learning-rate range test: {data.name}",
                *(f"**{remark}**" for remark in remarks),
                (
                    "Each network was trained from its start while the learning rate rose geometrically. η_min is "
                    "where the cost of the batches starts to fall, η_max where it stops falling; ×/÷ is the standard "
                    f"deviation over seeds as a factor. {report.NOISE_RULE}"
                ),
                report.machine_sentence(),
                f"## {heading}",
                table(found, markdown=True),
                *sentences,
                f"![cost against learning rate]({PICTURE})",
            ]
        )
        + "\n",
    )
    for text in (heading, table(found), *sentences, *remarks):
        print("\n" + text)


def logarithms(tests, end):
    """log₁₀ of one end of the range, of every test that suggests any."""
    return [float(np.log10(getattr(test, ENDS[end]))) for test in tests.values() if test.eta_min is not None]


def describe_tests(label, tests):
    """What results.json says about one network."""
    suggested = {}
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


def table(found, markdown=False):
    """Every seed's suggestion, and below them the geometric mean with its spread."""
    rows = []
    for label, tests in found.items():
        for seed, test in tests.items():
            ends = [f"{getattr(test, key):.1e}" if test.eta_min is not None else "–" for key in ENDS.values()]
            rows.append([label, f"{seed}", *ends, f"{test.smoothed.min():.3f}", f"{len(test.costs):,}"])
        rows.append(
            [
                label,
                "geometric mean",
                *(mean_and_factor(logarithms(tests, end)) for end in ENDS),
                report.format_mean([test.smoothed.min() for test in tests.values()], decimals=3),
                "",
            ]
        )
    header = ["architecture", "seed", *ENDS, "lowest smoothed cost", "updates"]
    return report.format_table(header, rows, markdown)


def mean_and_factor(logs):
    """Geometric mean, and the standard deviation as a factor, of numbers given by their log₁₀."""
    if not logs:
        return "–"
    mean, deviation = statistics.mean_and_deviation(logs)
    return f"{10**mean:.1e}" + (f" ×/÷ {10**deviation:.2f}" if deviation is not None else "")


def conclude(found, data):
    """The suggestion for each network in one sentence."""
    ranges = {label: geometric_mean_range(tests.values()) for label, tests in found.items()}
    suggested = "; ".join(
        f"{label} from {ends[0]:.1e} to {ends[1]:.1e}" if ends else f"{label} none, the cost did not fall"
        for label, ends in ranges.items()
    )
    return f"Suggested ranges on {data.name}: {suggested}."


def noise(found, end):
    """Which networks' ends are within noise of each other."""
    groups = {label: logarithms(tests, end) for label, tests in found.items()}
    return report.noise_sentence(groups, f"log₁₀ {end}", scale=1, unit=" decades")


def curves_csv(found, data):
    """The curves for other programs: a line for each update."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["data_set", "architecture", "seed", "update_step", "learning_rate", "cost", "smoothed_cost"])
    for label, tests in found.items():
        for seed, test in tests.items():
            rows = zip(test.learning_rates.tolist(), test.costs.tolist(), test.smoothed.tolist())
            writer.writerows([data.name, label, seed, step, *row] for step, row in enumerate(rows))
    return file.getvalue()


if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
