"""What the commands and scripts share: command-line options, loading the data, training runs, writing reports."""

import argparse
import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence

from .._typing import JsonDict
from ..backend.threads import default_threads, set_num_threads
from ..datasets import Dataset
from ..datasets.files import OPTIONS, find_data
from . import plots, report
from .data_source import DataSource, describe_data
from .entry_point import exit_with as exit_with, run_script as run_script
from .executors import ExecutorFactory, executor_factory
from .output_folder import OutputFolder
from .results import Result, RunInterrupted
from .runner import describe_run, run_all
from .runs import Run, longest_first
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
    parser = argparse.ArgumentParser(
        " ".join(program()), description=description, formatter_class=argparse.RawDescriptionHelpFormatter
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


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``, which `train_all` follows, to a parser."""
    parser.add_argument(
        "--workers",
        metavar="N",
        type=positive_integer,
        default=1,
        help="number of runs to train at the same time, each in its own process on --threads threads or an equal "
        "share of the CPUs; the results are the same, and all of them are ready sooner (default: 1)",
    )


def n_seeds(arguments: argparse.Namespace) -> int:
    """The number of seeds that the parsed arguments ask for."""
    seeds: int = arguments.seeds or (1 if arguments.quick else arguments.default_seeds)
    return seeds


def concurrency_note(arguments: argparse.Namespace) -> list[str]:
    """list of str: for titles, the number of concurrent runs if it is more than one."""
    if arguments.workers == 1:
        return []
    return [f"{arguments.workers} runs at a time, each on {report.count(_threads_per_run(arguments), 'thread')}"]


def timing_remarks(arguments: argparse.Namespace) -> list[str]:
    """list of str: what a reader of the times must know."""
    return [
        f"{note}: seconds and updates per second were measured while other runs were in progress."
        for note in concurrency_note(arguments)
    ]


def plan_workers(
    runs: Sequence[Run], arguments: argparse.Namespace
) -> tuple[Sequence[Run], ExecutorFactory, int | None]:
    """Plan how to train runs with as many workers as the arguments ask for.

    Returns
    -------
    runs : sequence of Run
        In the order in which to start them.
    make_executor : callable
        See `executor_factory`.
    threads : int or None
        Number of threads of each run; None keeps the current number.

    Raises
    ------
    UsageError
        If there are too many workers.
    """
    if arguments.workers == 1:
        return runs, executor_factory("serial"), arguments.threads
    with usage(n_workers="--workers"):
        make_executor = executor_factory("process", arguments.workers)
    return longest_first(runs), make_executor, _threads_per_run(arguments)


def _threads_per_run(arguments: argparse.Namespace) -> int:
    chosen: int | None = arguments.threads
    return chosen or max(1, default_threads() // arguments.workers)


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
        ``resume``: whether to continue from what the folder contains;
        ``workers``: number of concurrent runs; ``threads``: of each run.
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
        If workers died repeatedly.
    """
    ordered, make_executor, threads = plan_workers(runs, arguments)
    if threads is not None:
        set_num_threads(threads)  # in this process as well: tables and results files report it
    options = {
        "folder": folder.path,
        "resume": arguments.resume,
        "progress": None if arguments.workers == 1 else False,
        "threads": threads,
    }
    results, code = [], 0
    try:
        with contextlib.closing(run_all(ordered, source, make_executor, **options)) as finished:
            for result in finished:
                results.append(result)
                print(_progress_line(result, describe, len(results), len(runs)), flush=True)
                code = code if result.complete else 1
    except RunInterrupted as stop:
        code = 128 + (stop.signum or signal.SIGINT)
        if stop.result is not None:
            results.append(stop.result)
            with contextlib.suppress(OSError):  # after SIGHUP the terminal is gone, but files remain to be written
                print(_progress_line(stop.result, describe, len(results), len(runs)), flush=True)
    except ValueError as error:
        if not arguments.resume:
            raise
        raise UsageError(explain(error, folder="--output", path="a file of --output")) from error
    order = {run.stem: place for place, run in enumerate(runs)}
    return sorted(results, key=lambda result: order[result.run.stem]), code


def _progress_line(result: Result, describe: Callable[[Result], str], number: int, n_runs: int) -> str:
    outcome = describe(result) if result.complete else result.message
    return f"[{number}/{n_runs}] {describe_run(result.run)}: {outcome}"


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
    remarks = [*remarks, *report.remarks(configuration["quick"], complete)]
    document = report.results_document(configuration, sections, results, complete, remarks)
    folder.finish(document, report.summary_document(title, document, data, sections, remarks))
    print_paragraphs(*(section.text() for section in sections), *remarks, closing_line(data, source, folder, complete))
    return code


def print_paragraphs(*paragraphs: str | report.Table) -> None:
    """Print texts and tables, each after an empty line."""
    for paragraph in paragraphs:
        print("\n" + (paragraph.text() if isinstance(paragraph, report.Table) else paragraph))
