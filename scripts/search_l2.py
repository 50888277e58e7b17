#!/usr/bin/env python3
"""Coarse-to-fine search of the weight decay λ on validation data.

The first round draws λ log-uniformly from --low to --high; each later one
looks around the best values in a range a third as wide (in log λ). Every λ
is trained with every seed, and the mean validation accuracy decides; no
accuracy is measured on the test images. Runs go to local processes, to a
Dask cluster or to MPI ranks (mpiexec -n N python -m mpi4py.futures
scripts/search_l2.py --executor mpi). Every finished run is in search.json at
once: --resume goes on where a search stopped, with more --rounds if wanted.
"""

import csv
import dataclasses
import io

from cyconv.backend.threads import default_threads
from cyconv.experiments import Run, cli, plots, report, statistics
from cyconv.experiments.executors import KINDS, executor_factory
from cyconv.experiments.output_folder import JOURNAL, OutputFolder
from cyconv.experiments.search import Journal, Search, describe_splits, rank, ranking_table, run_search, within_noise
from cyconv.experiments.usage import UsageError, explain, usage
from cyconv.trainer import Interrupted

OUTPUT = "results/search_l2"
SEEDS = 3
NETWORKS = {
    "wide": Run("f4-nf40-nh50", "f=4, nf=40, nh=50", filter_size=4, n_filters=40, n_hidden=50, growth=2.0),
    "exercise4": Run(
        "f4-nf40-nh300", "f=4, nf=40, nh=300", filter_size=4, n_filters=40, n_hidden=300, n_cycles=4, growth=2.0
    ),
}
LOG_EVERY = 10**6  # the first and the last update are logged in any case
FULL = {"rounds": 3, "samples": 8}
QUICK = {"rounds": 2, "samples": 3}
QUICK_RUN = {"step_size": 20, "n_cycles": 1}
NO_TEST = "The test images took no part: λ is judged on validation data alone."


def parse(argv):
    parser = cli.parser(__doc__, OUTPUT, SEEDS)
    parser.add_argument(
        "--network",
        choices=tuple(NETWORKS),
        default="wide",
        help="what to train: Exercise 3's wide network over three doubling cycles, or "
        "Exercise 4's over four (default: %(default)s)",
    )
    parser.add_argument(
        "--low", metavar="L", type=cli.positive_number, default=1e-5, help="smallest λ (default: %(default)s)"
    )
    parser.add_argument(
        "--high", metavar="L", type=cli.positive_number, default=1e-1, help="largest λ (default: %(default)s)"
    )
    for name, what in (("rounds", "ranges, each narrower"), ("samples", "values of λ per round")):
        parser.add_argument(
            f"--{name}",
            metavar="N",
            type=cli.positive_integer,
            help=f"{what} (default: {FULL[name]}; {QUICK[name]} with --quick)",
        )
    parser.add_argument(
        "--executor",
        choices=KINDS,
        default="process",
        help="where runs go: local processes, Dask, MPI, or one after another here (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=cli.positive_integer,
        help="processes to start (default: the CPUs this process may use, by --threads)",
    )
    parser.add_argument(
        "--dask-address",
        metavar="ADDRESS",
        help="a running Dask scheduler's, such as tcp://127.0.0.1:8786; without it "
        "--executor dask starts a cluster of local processes",
    )
    arguments = parser.parse_args(argv)
    defaults = QUICK if arguments.quick else FULL
    arguments.rounds = arguments.rounds or defaults["rounds"]
    arguments.samples = arguments.samples or defaults["samples"]
    if arguments.dask_address and arguments.executor != "dask":
        parser.error(f"--dask-address goes with --executor dask, but got --executor {arguments.executor}")
    if arguments.workers and (arguments.executor == "serial" or arguments.dask_address):
        parser.error(
            "--workers goes with processes that are started here, but got "
            + ("--dask-address" if arguments.dask_address else "--executor serial")
        )
    if not arguments.low < arguments.high:
        parser.error(f"--low must be below --high, but got {arguments.low:g} and {arguments.high:g}")
    return arguments


def main(argv=None):
    arguments = parse(argv)
    threads = arguments.threads or (None if arguments.executor == "serial" else 1)
    n_workers = arguments.workers or max(1, default_threads() // (threads or 1))
    with usage(kind="--executor", n_workers="--workers", address="--dask-address"):
        make_executor = executor_factory(arguments.executor, n_workers, arguments.dask_address)
    source, data = cli.open_data(arguments)
    changes = QUICK_RUN if arguments.quick else {}
    run = dataclasses.replace(NETWORKS[arguments.network], log_every=LOG_EVERY, **changes)
    with usage(low="--low", high="--high", n_rounds="--rounds", n_samples="--samples", n_seeds="--seeds"):
        search = Search(
            run, arguments.low, arguments.high, arguments.rounds, arguments.samples, cli.n_seeds(arguments)
        ).check()
    about = describe_splits(source)
    configuration = {**cli.configuration("search_l2", arguments, [run], data), "search": search.to_dict()}
    folder = OutputFolder(
        arguments.output,
        configuration,
        arguments.resume,
        arguments.overwrite,
        check=lambda held: Journal(held / JOURNAL, search, about, resume=True),
    )
    if folder.results:
        return folder.report()
    journal = Journal(folder / JOURNAL, search, about, arguments.resume, arguments.overwrite)

    code = 0
    try:
        for measurement in run_search(search, source, journal, make_executor, threads):
            print(line(measurement, journal, search), flush=True)
    except Interrupted as stop:
        code = 128 + stop.signum
    except ValueError as error:
        raise UsageError(explain(error)) from error
    finally:
        if len(journal):
            write_results(configuration, search, journal, data, folder)
    complete = len(journal) == search.n_runs
    print("\n" + cli.last_line(data, source, folder, complete))
    return code


def line(measurement, journal, search):
    """What is printed when a run is finished."""
    figure = f"validation accuracy {100 * measurement.validation_accuracy:.2f} %"
    if measurement.state == "diverged":
        figure = "diverged"
    return (
        f"[{len(journal)}/{search.n_runs}] round {measurement.round + 1}, λ = {measurement.l2:.3g}, "
        f"seed {measurement.seed}: {figure}, {measurement.training_time:.1f} s"
    )


def write_results(configuration, search, journal, data, folder):
    """Write results.json, summary.md, ranking.csv and the picture; print table and conclusion."""
    ranking = rank(journal.measurements)
    complete = len(journal) == search.n_runs
    quick = configuration["quick"]
    remarks = report.remarks(quick, complete)
    sentence = conclusion(ranking, search)
    heading = (
        f"{search.run.label}, {report.describe_cycles(search.run.schedule())}; {data.name}, "
        f"{len(data.train):,} training and {len(data.validation):,} validation images"
    )
    picture = "validation-accuracy.png"
    title = f"Search of λ, {search.run.label}\n{report.describe_origin(data, quick, complete)}"
    figure = plots.plot_search(accuracies_by_round(ranking), title, ranking[0].l2)
    plots.save_figure(figure, folder / picture)
    folder.write("ranking.csv", ranking_csv(ranking, search.n_seeds, data))
    folder.finish(
        {
            "complete": complete,
            "data_set": data.name,
            "configuration": configuration,
            "versions": report.describe_versions(),
            "machine": report.describe_machine(),
            "best": {"l2": ranking[0].l2, "mean_validation_accuracy": ranking[0].mean_accuracy},
            "conclusion": sentence,
            "ranges": ranges(search, journal),
            "measurements": [dataclasses.asdict(measurement) for measurement in journal.measurements],
        },
        "\n\n".join(
            [
                f"# Search of λ: {data.name}",
                *(f"**{remark}**" for remark in remarks),
                (
                    f"{heading}. Numbers are mean ± standard deviation over runs that differ in their seed. "
                    f"{NO_TEST} {report.NOISE_RULE}"
                ),
                ranking_table(ranking, search.n_seeds, markdown=True),
                sentence,
                f"![validation accuracy against λ]({picture})",
            ]
        )
        + "\n",
    )
    for text in (heading, ranking_table(ranking, search.n_seeds), sentence, NO_TEST, *remarks):
        print("\n" + text)


def conclusion(ranking, search):
    """Which λ is best, what cannot be told from it, and whether the range was wide enough."""
    best = ranking[0]
    if best.n_diverged == len(best.measurements):
        return "No λ can be recommended: every run diverged."
    said = f"Best mean validation accuracy: {report.format_mean(best.accuracies, scale=100)} % at λ = {best.l2:.3g}."
    close = within_noise(ranking)
    if close is None:
        said += " With one run each, it cannot be told which differences are noise."
    elif len(close) == 1:
        said += " Every other λ is worse by more than noise."
    else:
        values = [candidate.l2 for candidate in close]
        said += (
            f" {len(close)} of {len(ranking)} values are within noise of it, "
            f"from {min(values):.3g} to {max(values):.3g}."
        )
    tried = sorted(candidate.l2 for candidate in ranking)
    if best.l2 in (tried[0], tried[-1]):
        which = "smallest" if best.l2 == tried[0] else "largest"
        said += f" It is the {which} that was tried: the best may lie outside {search.low:g} to {search.high:g}."
    return said


def ranges(search, journal):
    """Where each round looked, as far as rounds were begun."""
    begun = 1 + max(measurement.round for measurement in journal.measurements)
    return [search.range(round_, journal.measurements) for round_ in range(begun)]


def accuracies_by_round(ranking):
    """For the picture; runs that diverged have no accuracy to show."""
    rounds = {}
    for candidate in sorted(ranking, key=lambda candidate: candidate.round):
        if not candidate.n_diverged:
            rounds.setdefault(f"round {candidate.round + 1}", {})[candidate.l2] = candidate.accuracies
    return rounds


def ranking_csv(ranking, n_seeds, data):
    """The ranking for other programs: accuracies in 0..1, one column per seed."""
    close = within_noise(ranking) or []
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            "data_set",
            "rank",
            "l2",
            "round",
            "diverged",
            "mean",
            "standard_deviation",
            "within_noise",
            *(f"seed{seed}" for seed in range(n_seeds)),
        ]
    )
    for place, candidate in enumerate(ranking, 1):
        mean, deviation = statistics.mean_and_deviation(candidate.accuracies)
        by_seed = {m.seed: m.validation_accuracy for m in candidate.measurements}
        writer.writerow(
            [
                data.name,
                place,
                candidate.l2,
                candidate.round + 1,
                candidate.n_diverged,
                mean,
                deviation,
                candidate in close,
                *(by_seed.get(seed) for seed in range(n_seeds)),
            ]
        )
    return file.getvalue()


if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
