"""What the commands and scripts share: command-line options, loading the data, training runs, writing reports."""

import argparse
import contextlib
import dataclasses
import difflib
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._typing import JsonDict
from ..backend.threads import default_threads, set_num_threads
from ..datasets import Dataset
from ..datasets.files import OPTIONS, find_data
from . import plots, report
from .data_source import DataSource, describe_data
from .entry_point import exit_with as exit_with, run_script as run_script
from .executors import KINDS, ExecutorFactory, executor_factory
from .output_folder import OutputFolder
from .results import Result, RunFiles, RunInterrupted
from .runner import describe_run, train_runs
from .runs import Run, longest_first, n_multiplications
from .usage import UsageError, explain, program, usage


def positive_integer(text: str) -> int:
    """For argparse: an integer of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, but got {text!r}")
    return number


def positive_number(text: str) -> float:
    """For argparse: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a finite number above 0, but got {text!r}")
    return number


def part_of_runs(text: str) -> tuple[int, int]:
    """For argparse: ``"3/40"`` as the numbers 3 and 40."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, such as 3/40, but got {text!r}")
    return int(match[1]), int(match[2])


class OptionParser(argparse.ArgumentParser):
    """A parser that says which option was probably meant by an unknown one."""

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """The parsed options; an unknown one ends the program with a sentence that names the closest."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            names = [option.removeprefix("--") for option in self._option_string_actions]
            close = difflib.get_close_matches(unknown[0].partition("=")[0].lstrip("-"), names, 1)
            hint = f"did you mean --{close[0]}?" if close else f"'{self.prog} --help' lists the options"
            self.error(f"unrecognized arguments: {' '.join(unknown)}: {hint}")
        return parsed


def data_parser(description: str, output: str, resumable: bool = False) -> argparse.ArgumentParser:
    """An argument parser with the options of every script that computes something on a data set.

    Parameters
    ----------
    description : str
    output : str
        Default of ``--output``.
    resumable : bool, default False
        Whether to offer ``--resume`` as an alternative to ``--overwrite``.

    Returns
    -------
    argparse.ArgumentParser
    """
    parser = OptionParser(
        " ".join(program()),
        usage="%(prog)s [OPTION ...]",  # without the list of all, beneath which an error is hard to find
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="the folder of CIFAR-10 or CIFAR-100, its parent, the original .tar.gz, or an .npz or a folder of .npy "
        "files with your own images (see cyconv.load_npz and load_npy); the default is $CYCONV_DATA, or else CIFAR-10 "
        "in ./data, the user's cache folder or Keras' folder, or else a synthetic data set of shapes",
    )
    parser.add_argument(
        "--labels",
        choices=OPTIONS["labels"],
        default="fine",
        help="labels of CIFAR-100: fine for 100 classes, coarse for 20 (default: fine)",
    )
    parser.add_argument(
        "--protocol",
        choices=OPTIONS["protocol"],
        default="full",
        help="full: train on 49,000 images and validate on 1,000; batch1: train on batch 1 of CIFAR-10 and validate on "
        "batch 2 (default: full)",
    )
    parser.add_argument(
        "--output", metavar="FOLDER", default=output, help="where to write results (default: %(default)s)"
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=positive_integer,
        help="number of threads (default: the CPUs available to this process)",
    )
    parser.add_argument("--quick", action="store_true", help="run for less than a minute, to see that everything works")
    existing = parser.add_mutually_exclusive_group()
    if resumable:
        existing.add_argument("--resume", action="store_true", help="continue from what the output folder contains")
    existing.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what the output folder contains, once the new results are complete",
    )
    return parser


def experiment_parser(description: str, output: str, seeds: int = 3, resumable: bool = True) -> argparse.ArgumentParser:
    """An argument parser with the options that all experiments have.

    Parameters
    ----------
    description : str
    output : str
        Default of ``--output``.
    seeds : int
        Default of ``--seeds``; with ``--quick`` it is 1.
    resumable : bool, default True
        Whether to offer ``--resume``.

    Returns
    -------
    argparse.ArgumentParser
    """
    parser = data_parser(description, output, resumable)
    parser.add_argument(
        "--seeds",
        metavar="N",
        type=positive_integer,
        help=f"number of runs of each configuration, with seeds 0 to N-1 (default: {seeds}; 1 with --quick)",
    )
    parser.add_argument(
        "--format",
        choices=plots.FORMATS,
        default="png",
        help="format of the pictures; pdf and svg stay sharp at any size (default: %(default)s)",
    )
    parser.set_defaults(default_seeds=seeds)
    return parser


def add_workers_option(parser: argparse.ArgumentParser, executor: str | None = None, tasks: bool = True) -> None:
    """Add ``--executor``, ``--workers``, ``--dask-address`` and ``--task`` to a parser; see `plan_workers`.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    executor : str, optional
        Default of ``--executor``; by default it follows from ``--workers``.
    tasks : bool
        Whether the runs are known in advance, so that an array job can share
        them out by ``--task``.
    """
    usual = executor or "process with several --workers, else serial"
    parser.add_argument(
        "--executor",
        choices=KINDS,
        default=executor,
        help="where to train: in local processes, on a Dask cluster, on MPI ranks, or one run after another in this "
        f"process; the results are the same (default: {usual})",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=positive_integer,
        help="number of processes to start, each of which trains one run at a time on --threads threads or an equal "
        "share of the CPUs (default: 1; with --executor process or dask, the number of CPUs)",
    )
    parser.add_argument(
        "--dask-address",
        metavar="ADDRESS",
        help="address of a running Dask scheduler, such as tcp://127.0.0.1:8786; without it, --executor dask starts a "
        "cluster of local processes",
    )
    if tasks:
        parser.add_argument(
            "--task",
            metavar="I/N",
            type=part_of_runs,
            help="train only the I-th of N parts of the runs, as one task of an array job; tasks may run at the same "
            "time, and --resume without --task then writes the results of all runs",
        )


def n_seeds(arguments: argparse.Namespace) -> int:
    """The number of seeds that the parsed arguments ask for."""
    seeds: int = arguments.seeds or (1 if arguments.quick else arguments.default_seeds)
    return seeds


def concurrency_note(arguments: argparse.Namespace) -> list[str]:
    """list of str: for titles, the number of concurrent runs if it is more than one."""
    executor, n_workers = _executor(arguments)
    if executor == "serial":
        return []
    if executor == "mpi" or arguments.dask_address:
        return [f"several runs at a time {'on MPI ranks' if executor == 'mpi' else 'on a Dask cluster'}"]
    threads = report.count(_threads_per_run(arguments, n_workers), "thread")
    return [f"{n_workers} runs at a time, each on {threads}"] if n_workers > 1 else []


def timing_remarks(arguments: argparse.Namespace) -> list[str]:
    """list of str: what a reader of the times must know."""
    return [
        f"{note[0].upper()}{note[1:]}: seconds and updates per second were measured while other runs were in progress."
        for note in concurrency_note(arguments)
    ]


def plan_workers(
    runs: Sequence[Run], arguments: argparse.Namespace
) -> tuple[Sequence[Run], ExecutorFactory, int | None]:
    """Plan how to train runs with the executor and as many workers as the arguments ask for.

    Returns
    -------
    runs : sequence of Run
        In the order in which to start them.
    make_executor : callable
        See `executor_factory`.
    threads : int or None
        Number of threads of each run; None keeps the current number, or on a
        cluster takes the worker's share of its machine.

    Raises
    ------
    UsageError
        If there are too many workers, or the options do not go together.
    """
    executor, n_workers = _executor(arguments)
    address = arguments.dask_address
    if address and executor != "dask":
        raise UsageError(f"--dask-address goes with --executor dask, but got --executor {executor}")
    if arguments.workers is not None and (address or (executor == "serial" and arguments.workers > 1)):
        other = "--dask-address" if address else "--executor serial"
        raise UsageError(f"--workers goes with processes that this script starts, but got {other}")
    with usage(kind="--executor", n_workers="--workers", address="--dask-address"):
        make_executor = executor_factory(executor, n_workers, address)
    if executor == "serial":
        return runs, make_executor, arguments.threads
    threads = _threads_per_run(arguments, n_workers) if executor == "process" else arguments.threads
    return longest_first(runs), make_executor, threads


def _executor(arguments: argparse.Namespace) -> tuple[str, int]:
    """The kind of executor and the number of processes to start."""
    n_workers: int | None = arguments.workers
    kind = arguments.executor or ("serial" if n_workers in (None, 1) else "process")
    if n_workers is None:
        n_workers = 1 if kind == "serial" else max(1, default_threads() // (arguments.threads or 1))
    return kind, n_workers


def _threads_per_run(arguments: argparse.Namespace, n_workers: int) -> int:
    chosen: int | None = arguments.threads
    return chosen or max(1, default_threads() // n_workers)


def load_data(arguments: argparse.Namespace) -> tuple[DataSource, Dataset]:
    """Find and load the data that the arguments ask for, and print a line that describes them.

    Returns
    -------
    DataSource, Dataset

    Raises
    ------
    UsageError
        If the data that were asked for are missing or incomplete.
    """
    if arguments.threads is not None:
        with usage(n="--threads"):
            set_num_threads(arguments.threads)
    if hasattr(arguments, "workers"):
        plan_workers([], arguments)  # a mistake is reported before there is an output folder
    with usage(data="--data"):
        folder = find_data(arguments.data)
    named = _data_option(arguments) or str(folder)
    options = {option: getattr(arguments, option) for option in OPTIONS}
    with (
        usage(folder=named, path=named, **{option: f"--{option}" for option in OPTIONS}),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        source = DataSource(folder=folder, small=arguments.quick, **options)
        data = source.load()
    train, validation, test = (f"{len(split):,}" for split in (data.train, data.validation, data.test))
    line = f"Data set: {data.name}, {train} training, {validation} validation and {test} test images."
    if not folder:
        line += (
            " CIFAR-10 was not found in ./data, the user's cache folder or Keras' folder; "
            "use --data PATH or CYCONV_DATA to say where it is."
        )
    print(line, flush=True)
    for warning in caught:
        print(f"note: {warning.message}", file=sys.stderr)
    return source, data


def _data_option(arguments: argparse.Namespace) -> str | None:
    """What says where the data are; None if nothing does."""
    return "--data" if arguments.data is not None else "CYCONV_DATA" if os.environ.get("CYCONV_DATA") else None


def check_runs(runs: Iterable[Run], data: Dataset, arguments: argparse.Namespace, **options: str) -> None:
    """Check before any training that every run is valid and can train on the data.

    Parameters
    ----------
    runs : iterable of Run
    data : Dataset
    arguments : argparse.Namespace
    **options : str
        See `usage`.

    Raises
    ------
    UsageError
        If a run is invalid or cannot train on the data, naming the run.
    """
    for run in runs:
        with usage(**options):
            run.check()
        try:
            run.check(data.image_shape, data.n_classes)
            if run.batch_size > len(data.train):
                raise ValueError(
                    f"its batches have {run.batch_size} images, but there are {len(data.train)} to train on"
                )
        except ValueError as error:
            raise UsageError(
                f"{_data_option(arguments) or 'the data'} must hold images that every run can train on, "
                f"but {run.label!r} cannot train on {data.name}: {explain(error)}"
            ) from error


def check_like_cifar10(data: Dataset, arguments: argparse.Namespace) -> None:
    """Raise UsageError unless images and classes are like those of CIFAR-10, for networks that are fixed."""
    if data.image_shape != (3, 32, 32) or data.n_classes != 10:
        raise UsageError(
            f"{_data_option(arguments) or 'the data'} must hold images of shape (3, 32, 32) in 10 classes for this "
            f"script, but {data.name} has {data.image_shape} in {data.n_classes}"
        )


def closing_line(
    data: Dataset, source: DataSource, folder: OutputFolder, complete: bool = True, resumable: bool = True
) -> str:
    """The last line that a script prints: which data the results are for, and where they are."""
    reason = ", since CIFAR-10 was not found," if source.folder is None else ""
    what = "Results" if complete else "Incomplete results" + " (use --resume to continue)" * resumable
    earlier = "" if folder.path == folder.output else f"; the earlier results remain in {folder.output}"
    return f"{what} on {data.name}{reason} are in {folder}{earlier}"


def open_folder(configuration: JsonDict, arguments: argparse.Namespace) -> OutputFolder:
    """The output folder of training runs; the tasks of an array job share it.

    Raises
    ------
    UsageError
        If the folder cannot be used (see `OutputFolder`).
    """
    if arguments.task and arguments.overwrite:
        raise UsageError("--task goes with --resume, which it implies, but got --overwrite")
    resume = arguments.resume or arguments.task is not None
    return OutputFolder(arguments.output, configuration, resume, arguments.overwrite, shared=arguments.task is not None)


def format_test_result(result: Result) -> str:
    """What `train_all` prints about a finished run by default."""
    assert result.test is not None
    return (
        f"test accuracy {100 * result.test['accuracy']:.2f} %, {result.history.training_time:.1f} s, "
        f"{result.updates_per_second:,.0f} updates/s"
    )


def train_all(
    runs: Sequence[Run],
    source: DataSource | Dataset,
    folder: OutputFolder,
    arguments: argparse.Namespace,
    describe: Callable[[Result], str] = format_test_result,
) -> tuple[list[Result], int]:
    """Train all runs, and print a line as each of them finishes.

    Parameters
    ----------
    runs : sequence of Run
    source : DataSource or Dataset
    folder : OutputFolder
    arguments : argparse.Namespace
        What `add_workers_option` added: where to train, and which part of the
        runs; and ``threads``.
    describe : callable
        Takes a complete `Result` and returns the text of its line.

    Returns
    -------
    results : list of Result
        In the order of ``runs``, including one that was interrupted in this
        process. What other processes had not finished is in their checkpoints.
    code : int
        The script's exit code: 0; 1 if a run diverged; 128 + the signal's
        number if one ended the work.

    Raises
    ------
    UsageError
        If there are too many workers, or the results in the folder cannot be
        resumed.
    ChildProcessError
        If workers died repeatedly, or cannot take part.
    """
    ordered, make_executor, threads = plan_workers(runs, arguments)
    if arguments.task:
        place, n_tasks = arguments.task
        ordered = longest_first(runs)[place - 1 :: n_tasks]
    if threads is not None:
        set_num_threads(threads)  # in this process as well: tables and results files report it
    options = {
        "folder": folder.path.absolute(),
        "resume": True,  # only what this configuration's earlier processes and lost workers left is in the folder
        "progress": None if _executor(arguments)[0] == "serial" else False,
    }
    forecast = _Forecast(ordered, folder)
    results, code = [], 0
    try:
        with contextlib.closing(train_runs(ordered, source, make_executor, threads, **options)) as finished:
            for result in finished:
                results.append(result)
                text = describe(result) if result.complete else result.message
                print(f"{forecast.place(result.run)}: {text}{forecast.remaining()}", flush=True)
                code = code if result.complete else 1
    except RunInterrupted as stop:
        code = 128 + (stop.signum or signal.SIGINT)
        if stop.result is not None:
            results.append(stop.result)
            with contextlib.suppress(OSError):  # after SIGHUP the terminal is gone, but files remain to be written
                print(f"{forecast.place(stop.result.run)}: {stop.result.message}", flush=True)
    except ValueError as error:
        if not (arguments.resume or arguments.task):
            raise
        raise UsageError(explain(error, folder="--output", path="a file of --output")) from error
    order = {run.stem: place for place, run in enumerate(runs)}
    return sorted(results, key=lambda result: order[result.run.stem]), code


class _Forecast:
    """How many runs are finished, and when the others will be, if time goes with the number of multiplications."""

    def __init__(self, runs: Sequence[Run], folder: OutputFolder) -> None:
        unfinished = [run for run in runs if not RunFiles(folder.path, run).result.is_file()]
        self._left = {run.stem: n_multiplications(run) for run in unfinished}
        self._work_done = 0.0
        self._n_runs, self._n_done = len(runs), 0
        self._started = time.monotonic()

    def place(self, run: Run) -> str:
        """Count a run as finished; which one and which of how many it is, as the start of a line."""
        self._n_done += 1
        self._work_done += self._left.pop(run.stem, 0)
        return f"[{self._n_done}/{self._n_runs}] {describe_run(run)}"

    def remaining(self) -> str:
        """The time that the other runs need, as the end of a line; empty as long as it is unknown."""
        if not (self._left and self._work_done):
            return ""
        elapsed = time.monotonic() - self._started
        return f", about {format_duration(elapsed * sum(self._left.values()) / self._work_done)} left"


def format_duration(seconds: float) -> str:
    """A time in a suitable unit.

    Examples
    --------
    >>> [format_duration(seconds) for seconds in (0.2, 45, 600, 30_000)]
    ['1 s', '45 s', '10 min', '8.3 h']
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def close_task(results: Sequence[Result], folder: OutputFolder, arguments: argparse.Namespace, code: int) -> int:
    """Print what a task of an array job has done, in place of the report; return the exit code."""
    place, n_tasks = arguments.task
    done = report.count(sum(result.complete for result in results), "run")
    print_paragraphs(
        f"Task {place} of {n_tasks}: {done} finished in {folder}; when all tasks have ended, --resume without --task "
        "writes the results"
    )
    return code


def configuration(script: str, arguments: argparse.Namespace, runs: Iterable[Run], data: Dataset) -> JsonDict:
    """What an `OutputFolder` compares to recognise results: script, data and runs."""
    picture_format = getattr(arguments, "format", "png")
    return {
        "script": script,
        "quick": arguments.quick,
        **({} if picture_format == "png" else {"format": picture_format}),  # so that folders of before are recognised
        "protocol": arguments.protocol,
        "data": describe_data(data),
        "runs": [run.to_dict() for run in runs],
    }


def run_experiment(
    script: str,
    title: str,
    runs: Sequence[Run],
    source: DataSource,
    data: Dataset,
    arguments: argparse.Namespace,
    write_sections: Callable[[list[Result], Dataset, OutputFolder, argparse.Namespace], list[report.Section]],
    describe: Callable[[Result], str] = format_test_result,
    remarks: Sequence[str] = (),
    keep_test: bool = True,
) -> int:
    """Train the runs of a command in its output folder and write the report, or repeat that of a complete folder.

    Parameters
    ----------
    script : str
        The command's name in configurations.
    title : str
        Of the report.
    runs : sequence of Run
        Checked runs.
    source : DataSource
    data : Dataset
        What ``source`` loads.
    arguments : argparse.Namespace
    write_sections : callable
        Draws the figures, and returns the sections of the report.
    describe : callable
        See `train_all`.
    remarks : sequence of str
        Sentences at the report's end.
    keep_test : bool
        Whether ``results.json`` tells the results on the test split.

    Returns
    -------
    int
        The exit code, see `train_all`.

    Raises
    ------
    UsageError
        If the folder or the options cannot be used.
    """
    settings = configuration(script, arguments, runs, data)
    folder = open_folder(settings, arguments)
    if folder.results:
        return folder.report()
    results, code = train_all(runs, source, folder, arguments, describe)
    if arguments.task:
        return close_task(results, folder, arguments, code)
    sections = write_sections(results, data, folder, arguments) if results else []
    if not keep_test:
        results = [dataclasses.replace(result, test=None, confusion=None) for result in results]
    remarks = [*remarks, *timing_remarks(arguments)]
    return write_report(title, settings, sections, results, data, source, folder, code, remarks)


def write_report(
    title: str,
    configuration: JsonDict,
    sections: Sequence[report.Section],
    results: Sequence[Result],
    data: Dataset,
    source: DataSource,
    folder: OutputFolder,
    code: int,
    remarks: Sequence[str] = (),
) -> int:
    """Write results.json, summary.md and report.html; print the sections and the closing line.

    Parameters
    ----------
    title : str
        Of the summary.
    configuration : dict
        See `configuration`.
    sections : sequence of Section
    results : sequence of Result
    data : Dataset
    source : DataSource
    folder : OutputFolder
    code : int
        The script's exit code so far; anything but 0 means that results are
        missing.
    remarks : sequence of str
        Further sentences that the reader must know.

    Returns
    -------
    int
        ``code``
    """
    complete = code == 0
    remarks = [*remarks, *report.differing_versions(results), *report.remarks(configuration["quick"], complete)]
    document = report.results_document(configuration, sections, results, complete, remarks)
    folder.finish(document, report.summary_document(title, document, data, sections, remarks))
    print_paragraphs(*(section.text() for section in sections), *remarks, closing_line(data, source, folder, complete))
    return code


def print_paragraphs(*paragraphs: str | report.Table) -> None:
    """Print texts and tables, each after an empty line."""
    for paragraph in paragraphs:
        print("\n" + (paragraph.text() if isinstance(paragraph, report.Table) else paragraph))
