"""Search for the weight decay λ or another setting, from coarse to fine.

The first round draws values log-uniformly from --low to --high; each later
round searches around the best ones in a range a third as wide (in the
logarithm). Every value is trained with every seed and ranked by the mean
validation accuracy; the test images are not used. Runs are distributed to
local processes, to a Dask cluster or to MPI ranks (mpiexec -n N python
-m mpi4py.futures -m cyconv search-l2 --executor mpi). Each finished run is
written to search.json at once; --resume continues a search that was
interrupted, or adds rounds with a larger --rounds.
"""

import argparse
import contextlib
import dataclasses
import signal
from collections.abc import Sequence
from typing import Any

from ..._signals import Interrupted
from ..._typing import JsonDict
from ...datasets import Dataset
from .. import cli, plots, report, statistics
from ..output_folder import JOURNAL, OutputFolder
from ..runs import ABBREVIATIONS, Run, symbol
from ..search import (
    FIELDS,
    SCALES,
    Candidate,
    Journal,
    Measurement,
    Search,
    Value,
    describe_splits,
    differences_from_best,
    format_value,
    rank,
    ranking_table,
    run_search,
)
from ..usage import UsageError, explain, usage

OUTPUT = "results/search_l2"
SEEDS = 5  # with 3, tests of all pairs find hardly any difference
NETWORKS = {
    "wide": Run("f4-nf40-nh50", "f=4, nf=40, nh=50", filter_size=4, n_filters=40, n_hidden=50, l2=0.003),
    "exercise4": Run(
        "f4-nf40-nh300", "f=4, nf=40, nh=300", filter_size=4, n_filters=40, n_hidden=300, n_cycles=4, l2=0.003
    ),
}
LOG_EVERY = 10**6  # only the first and the last update, which are always logged
FULL = {"rounds": 3, "samples": 8}
QUICK = {"rounds": 2, "samples": 3}
FIGURE = "validation-accuracy"
QUICK_RUN: dict[str, Any] = {"step_size": 150, "n_cycles": 1}
VALIDATION_REMARK = "The test images were not used: the value is chosen on validation data alone."


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.experiment_parser(__doc__, OUTPUT, SEEDS)
    parser.add_argument(
        "--network",
        choices=tuple(NETWORKS),
        default="wide",
        help="what to train: the wide network of Exercise 3 for three doubling cycles, or "
        "that of Exercise 4 for four (default: %(default)s)",
    )
    parser.add_argument(
        "--field",
        choices=FIELDS,
        metavar="FIELD",
        default="l2",
        help="the setting to search, a field of cyconv.experiments.Run; give --low and --high with it (default: l2); "
        f"one of {', '.join(FIELDS)}",
    )
    for name, default, what in (("--low", 1e-5, "smallest"), ("--high", 1e-1, "largest")):
        text = f"{what} value (default: {default})"
        parser.add_argument(name, metavar="L", type=cli.positive_number, default=default, help=text)
    for name, what in (("rounds", "rounds, each in a narrower range"), ("samples", "values per round")):
        text = f"number of {what} (default: {FULL[name]}; {QUICK[name]} with --quick)"
        parser.add_argument(f"--{name}", metavar="N", type=cli.positive_integer, help=text)
    parser.add_argument(
        "--scale",
        choices=SCALES,
        default="log",
        help="whether to draw values evenly in their logarithm or as they are (default: %(default)s)",
    )
    parser.add_argument(
        "--choices",
        metavar="VALUE",
        nargs="+",
        type=setting,
        help="values to try in place of a range, such as sgd nesterov adamw, or 50 100,50",
    )
    cli.add_workers_option(parser, executor="process", tasks=False)
    arguments = parser.parse_args(argv)
    defaults = QUICK if arguments.quick else FULL
    arguments.rounds = arguments.rounds or defaults["rounds"]
    arguments.samples = arguments.samples or defaults["samples"]
    if arguments.choices is None and not arguments.low < arguments.high:
        parser.error(f"--low must be below --high, but got {arguments.low:g} and {arguments.high:g}")
    return arguments


def setting(text: str) -> Value:
    """For argparse: a value of any field: a number, true, false or none, integers with commas between, or a string."""
    for convert in (int, float, lambda text: tuple(int(number) for number in text.split(","))):
        with contextlib.suppress(ValueError):
            return convert(text)
    return {"true": True, "false": False, "none": None}.get(text, text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = parse(argv)
    _, make_executor, threads = cli.plan_workers([], arguments)
    source, data = cli.load_data(arguments)
    changes = QUICK_RUN if arguments.quick else {}
    run = dataclasses.replace(NETWORKS[arguments.network], log_every=LOG_EVERY, **changes)
    n_seeds = cli.n_seeds(arguments)
    names = ("low", "high", "field", "scale", "choices")
    options = {"n_rounds": "--rounds", "n_samples": "--samples", "n_seeds": "--seeds"}
    with usage(**options, **{name: f"--{name}" for name in names}):
        search = Search(
            run,
            n_rounds=arguments.rounds,
            n_samples=arguments.samples,
            n_seeds=n_seeds,
            **{name: getattr(arguments, name) for name in names},
        ).check()
    cli.check_runs([run], data, arguments)
    splits = describe_splits(source)
    configuration = {**cli.configuration("search_l2", arguments, [run], data), "search": search.to_dict()}
    folder = OutputFolder(
        arguments.output,
        configuration,
        arguments.resume,
        arguments.overwrite,
        check=lambda existing: Journal(existing / JOURNAL, search, splits, resume=True),
    )
    if folder.results:
        return folder.report()
    journal = Journal(folder / JOURNAL, search, splits, arguments.resume, arguments.overwrite)

    code = 0
    try:
        for measurement in run_search(search, source, journal, make_executor, threads):
            print(progress_line(measurement, journal, search), flush=True)
    except Interrupted as stop:
        code = 128 + (stop.signum or signal.SIGINT)
    except ValueError as error:
        raise UsageError(explain(error)) from error
    finally:
        if len(journal):
            write_results(configuration, search, journal, data, folder)
    complete = search.is_complete(journal.measurements)
    cli.print_paragraphs(cli.closing_line(data, source, folder, complete))
    return code


def progress_line(measurement: Measurement, journal: Journal, search: Search) -> str:
    """What is printed when a run has finished."""
    outcome = f"validation accuracy {100 * measurement.validation_accuracy:.2f} %"
    if measurement.state == "diverged":
        outcome = "diverged"
    return (
        f"[{len(journal)}/{search.n_runs}] round {measurement.round + 1}, {symbol(search.field)} = "
        f"{format_value(measurement.value)}, "
        f"seed {measurement.seed}: {outcome}, {measurement.training_time:.1f} s"
    )


def write_results(
    configuration: JsonDict, search: Search, journal: Journal, data: Dataset, folder: OutputFolder
) -> None:
    """Write results.json, summary.md, ranking.csv and the figure; print table and conclusion."""
    ranking = rank(journal.measurements)
    complete = search.is_complete(journal.measurements)
    quick = configuration["quick"]
    remarks = report.remarks(quick, complete)
    sentence = conclusion(ranking, search)
    heading = (
        f"{describe_network(search)}, {report.describe_cycles(search.run.schedule())}; {data.name}, "
        f"{len(data.train):,} training and {len(data.validation):,} validation images"
    )
    name = symbol(search.field)
    title = f"Search for {name}, {describe_network(search)}\n{report.describe_origin(data, quick, complete)}"
    if search.choices is None:
        figure = plots.plot_search(accuracies_by_round(ranking), title, ranking[0].value, name, scale=search.scale)
    else:
        accuracies = {format_value(candidate.value): candidate.accuracies for candidate in ranking}
        figure = plots.plot_bars(accuracies, title, "validation accuracy (%)", percent=True)
    pictures = report.save_pictures({FIGURE: figure}, folder, configuration.get("format", "png"))
    folder.write("ranking.csv", ranking_csv(ranking, search, data))
    introduction = (
        "Numbers are mean ± standard deviation over runs that differ only in their seed. "
        f"{VALIDATION_REMARK} {report.comparison_rule()} "
        + report.sampling_remark([ranking[0].mean_accuracy], len(data.validation), "validation")
    )
    document = {
        **report.results_header(configuration, complete),
        "best": {search.field: ranking[0].value, "mean_validation_accuracy": ranking[0].mean_accuracy},
        "conclusion": sentence,
        "ranges": ranges(search, journal),
        "measurements": [measurement.to_dict(search.field) for measurement in journal.measurements],
    }
    table = ranking_table(ranking, search.n_seeds, search.field)
    blocks: list[report.Block] = [table, sentence, *pictures]
    part = (heading, blocks)
    folder.finish(document, report.report_document(f"Search for {name}", document, remarks, introduction, part))
    cli.print_paragraphs(heading, table, sentence, VALIDATION_REMARK, *remarks)


def conclusion(ranking: Sequence[Candidate], search: Search) -> str:
    """Which value is best, which others cannot be told from it, and whether the range was wide enough."""
    best = ranking[0]
    if best.n_diverged == len(best.measurements):
        return f"No {symbol(search.field)} can be recommended: every run diverged."
    accuracy = report.format_mean(best.accuracies, scale=100)
    text = f"Best mean validation accuracy: {accuracy} % at {symbol(search.field)} = {format_value(best.value)}."
    from_best = differences_from_best(ranking, search.field)
    compared = [(candidate.value, pair) for candidate, pair in zip(ranking, from_best) if pair is not None]
    tested = [(value, pair) for value, pair in compared if pair.p_value is not None]
    if not tested:
        text += " " + report.untested([pair for _, pair in compared], "validation accuracy")
    else:
        alike = [value for value, pair in tested if not pair.is_worse]
        n_worse = len(tested) - len(alike)
        others = report.count(len(ranking) - 1, "other value")
        are = "are" if n_worse > 1 else "is"
        text += f" Of {others}, {n_worse or 'none'} {are} significantly worse at 5 %, corrected for all pairs"
        if alike:
            ends = dict.fromkeys((min(alike), max(alike))) if search.choices is None else alike
            listed = (" to " if search.choices is None else ", ").join(map(format_value, ends))
            text += f"; with {report.count(search.n_seeds, 'run')} each, {len(alike)} cannot be told from it: {listed}"
        text += "."
        left = len(compared) - len(tested)
        text += f" {left} could not be tested." * bool(left)
    n_diverged = sum(candidate.n_diverged > 0 for candidate in ranking)
    if n_diverged:
        text += f" Not compared, since a run diverged: {report.count(n_diverged, 'value')}."
    if search.choices is not None:
        return text
    tried = sorted(candidate.value for candidate in ranking)
    if best.value in (tried[0], tried[-1]):
        which = "smallest" if best.value == tried[0] else "largest"
        text += f" It is the {which} value that was tried: the best may lie outside {search.low:g} to {search.high:g}."
    return text


def describe_network(search: Search) -> str:
    """The label of the search's run without the setting that is searched."""
    start = f"{ABBREVIATIONS.get(search.field)}="
    return ", ".join(part for part in search.run.label.split(", ") if not part.startswith(start))


def ranges(search: Search, journal: Journal) -> list[tuple[float, float]]:
    """The range of each round that was started; none with choices."""
    if search.choices is not None:
        return []
    n_started = 1 + max(measurement.round for measurement in journal.measurements)
    return [search.range(round_, journal.measurements) for round_ in range(n_started)]


def accuracies_by_round(ranking: Sequence[Candidate]) -> dict[str, dict[float, list[float]]]:
    """For the figure; values with a diverged run are left out."""
    rounds: dict[str, dict[float, list[float]]] = {}
    for candidate in sorted(ranking, key=lambda candidate: candidate.round):
        if not candidate.n_diverged:
            rounds.setdefault(f"round {candidate.round + 1}", {})[candidate.value] = candidate.accuracies
    return rounds


def ranking_csv(ranking: Sequence[Candidate], search: Search, data: Dataset) -> str:
    """The ranking as CSV: accuracies in 0..1, with one column per seed."""
    header = ["data_set", "rank", search.field, "round", "diverged", "mean", "standard_deviation", "p_against_best"]
    rows = []
    for place, (candidate, pair) in enumerate(zip(ranking, differences_from_best(ranking, search.field)), 1):
        by_seed = {m.seed: m.validation_accuracy for m in candidate.measurements}
        row = [data.name, place, candidate.value, candidate.round + 1, candidate.n_diverged]
        row += [*statistics.mean_and_deviation(candidate.accuracies), pair and pair.p_value]
        rows.append([*row, *(by_seed.get(seed) for seed in range(search.n_seeds))])
    return report.format_csv([*header, *(f"seed{seed}" for seed in range(search.n_seeds))], rows)
