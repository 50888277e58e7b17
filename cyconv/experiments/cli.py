"""What the scripts share: options, the data set's first line, the output folder, exit codes."""

import argparse
import codecs
import contextlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from .._signals import SignalHandler, terminate_at_exit
from .._typing import JsonDict
from ..backend.threads import default_threads, set_num_threads
from ..datasets import Dataset, find_cifar10
from . import report
from .data_source import DataSource, describe_data
from .executors import ExecutorFactory, executor_factory
from .output_folder import OutputFolder
from .results import Result, RunInterrupted
from .runner import run_all
from .runs import Run, longest_first
from .usage import UsageError, explain, usage

_SPELT = {
    "λ": "lambda",
    "η": "eta",
    "ε": "epsilon",
    "µ": "u",
    "±": "+-",
    "×": "x",
    "÷": "/",
    "−": "-",
    "–": "-",
    "→": "->",
    "√": "sqrt",
    "·": "*",
    "₀": "0",
    "₁": "1",
    "²": "^2",
}


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


def study_parser(description: str, output: str, resumable: bool = False) -> argparse.ArgumentParser:
    """An argument parser with the options of every script that computes something on a data set.

    Parameters
    ----------
    description : str
    output : str
        Default of ``--output``.
    resumable : bool, default False
        Whether there is a ``--resume`` beside ``--overwrite``.

    Returns
    -------
    argparse.ArgumentParser
    """
    layout = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(description=description, formatter_class=layout)
    made.add_argument(
        "--data",
        metavar="PATH",
        help="CIFAR-10's folder, its parent, or an original .tar.gz; without it: $CYCONV_DATA, "
        "./data, the user's cache folder, Keras' folder, else the drawn shapes",
    )
    made.add_argument(
        "--protocol",
        choices=("full", "batch1"),
        default="full",
        help="full: 49,000 images train and 1,000 validate; batch1: batch 1 trains and batch 2 "
        "validates (default: full)",
    )
    made.add_argument("--output", metavar="FOLDER", default=output, help="where results go (default: %(default)s)")
    made.add_argument(
        "--threads",
        metavar="N",
        type=positive_integer,
        help="threads to compute with (default: the CPUs this process may use)",
    )
    made.add_argument("--quick", action="store_true", help="a few seconds that show that everything works")
    earlier = made.add_mutually_exclusive_group()
    if resumable:
        earlier.add_argument("--resume", action="store_true", help="go on with what the output folder holds")
    earlier.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what the output folder holds, once the new results are complete",
    )
    return made


def parser(description: str, output: str, seeds: int = 3, resumable: bool = True) -> argparse.ArgumentParser:
    """An argument parser with the options that all experiments have.

    Parameters
    ----------
    description : str
    output : str
        Default of ``--output``.
    seeds : int
        Default of ``--seeds``; one with ``--quick``.
    resumable : bool, default True
        Whether there is a ``--resume``.

    Returns
    -------
    argparse.ArgumentParser
    """
    made = study_parser(description, output, resumable)
    made.add_argument(
        "--seeds",
        metavar="N",
        type=positive_integer,
        help=f"runs of each configuration, seeds 0 to N-1 (default: {seeds}; 1 with --quick)",
    )
    made.set_defaults(default_seeds=seeds)
    return made


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Give a parser ``--workers``, which `train_all` follows."""
    parser.add_argument(
        "--workers",
        metavar="N",
        type=positive_integer,
        default=1,
        help="runs at a time, each in a process of its own with --threads threads, or its share of "
        "the CPUs: the same bits, all of them sooner, each later (default: 1)",
    )


def concurrency_note(arguments: argparse.Namespace) -> list[str]:
    """list of str: for titles, how many runs there were at a time, if it was more than one."""
    if arguments.workers == 1:
        return []
    threads = _threads_each(arguments)
    return [f"{arguments.workers} runs at a time, each on {threads} thread{'s' * (threads > 1)}"]


def time_remarks(arguments: argparse.Namespace) -> list[str]:
    """list of str: what a reader of the times must know."""
    return [
        f"{text}: seconds and updates per second are those of a run beside others."
        for text in concurrency_note(arguments)
    ]


def plan_workers(
    runs: Sequence[Run], arguments: argparse.Namespace
) -> tuple[Sequence[Run], ExecutorFactory, int | None]:
    """How to carry out runs with as many workers as the arguments ask for.

    Returns
    -------
    runs : sequence of Run
        In the order in which to begin them.
    make_executor : callable
        See `executor_factory`.
    threads : int or None
        For each run; None leaves them as they are.

    Raises
    ------
    UsageError
        If there cannot be so many workers.
    """
    if arguments.workers == 1:
        return runs, executor_factory("serial"), arguments.threads
    with usage(n_workers="--workers"):
        make_executor = executor_factory("process", arguments.workers)
    return longest_first(runs), make_executor, _threads_each(arguments)


def _threads_each(arguments: argparse.Namespace) -> int:
    chosen: int | None = arguments.threads
    return chosen or max(1, default_threads() // arguments.workers)


def n_seeds(arguments: argparse.Namespace) -> int:
    """How many seeds the parsed arguments ask for."""
    seeds: int = arguments.seeds or (1 if arguments.quick else arguments.default_seeds)
    return seeds


def open_data(arguments: argparse.Namespace) -> tuple[DataSource, Dataset]:
    """Find and load the data that the arguments ask for, and print the line that says which.

    Returns
    -------
    DataSource, Dataset

    Raises
    ------
    UsageError
        If data were named that are not there or not whole.
    """
    if arguments.threads is not None:
        with usage(n="--threads"):
            set_num_threads(arguments.threads)
    with usage(data="--data"):
        folder = find_cifar10(arguments.data)
    named = "--data" if arguments.data is not None else "CYCONV_DATA" if os.environ.get("CYCONV_DATA") else str(folder)
    with usage(folder=named), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source = DataSource(folder=folder, protocol=arguments.protocol, small=arguments.quick)
        data = source.load()
    train, validation, test = (f"{len(split):,}" for split in (data.train, data.validation, data.test))
    sizes = f"{train} training, {validation} validation and {test} test images"
    print(
        f"Data set: {data.name}, {sizes}."
        if folder
        else f"Data set: {data.name}, {sizes}. CIFAR-10 was not found in ./data, the user's cache folder or Keras' "
        f"folder; --data PATH or CYCONV_DATA can say where it is.",
        flush=True,
    )
    for warning in caught:
        print(f"note: {warning.message}", file=sys.stderr)
    return source, data


def last_line(
    data: Dataset, source: DataSource, folder: OutputFolder, complete: bool = True, resumable: bool = True
) -> str:
    """The script's last line: which data the results are of, and where they are."""
    other = ", since CIFAR-10 was not found," if source.folder is None else ""
    what = "Results" if complete else "Incomplete results" + " (--resume goes on)" * resumable
    earlier = "" if folder.path == folder.output else f"; the results of before stay in {folder.output}"
    return f"{what} on {data.name}{other} are in {folder}{earlier}"


def test_line(result: Result) -> str:
    """What `train_all` prints of a run unless told otherwise."""
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
    line: Callable[[Result], str] = test_line,
) -> tuple[list[Result], int]:
    """Carry out the runs, and print a line as each is finished.

    Parameters
    ----------
    runs : sequence of Run
    source : DataSource or Dataset
    folder : OutputFolder
    arguments : argparse.Namespace
        With ``resume``: go on with what the folder holds; ``workers``: how
        many runs at a time; ``threads``: for each.
    line : callable
        From a complete `Result`: what the line says.

    Returns
    -------
    results : list of Result
        In the order of ``runs``; one that was interrupted in this process is
        among them. What other processes had not finished is in their
        checkpoints.
    code : int
        The script's exit code: 0; 1 if a run diverged; 128 + the signal's
        number if one ended the work.

    Raises
    ------
    UsageError
        If there cannot be so many workers, or the folder holds what cannot be
        gone on with.
    ChildProcessError
        If workers died again and again.
    """
    begun, make_executor, threads = plan_workers(runs, arguments)
    if threads is not None:
        set_num_threads(threads)  # here too: tables and result files say so
    progress = None if arguments.workers == 1 else False
    results, code = [], 0
    try:
        with contextlib.closing(
            run_all(
                begun,
                source,
                make_executor,
                folder=folder.path,
                resume=arguments.resume,
                progress=progress,
                threads=threads,
            )
        ) as done:
            for result in done:
                results.append(result)
                print(_line(result, line), flush=True)
                code = code if result.complete else 1
    except RunInterrupted as stop:
        code = 128 + (stop.signum or signal.SIGINT)
        if stop.result is not None:
            results.append(stop.result)
            with contextlib.suppress(OSError):  # SIGHUP: the terminal is gone, and files are still to be written
                print(_line(stop.result, line), flush=True)
    except ValueError as error:
        if not arguments.resume:
            raise
        raise UsageError(explain(error, folder="--output", path="a file of --output")) from error
    order = {run.stem: place for place, run in enumerate(runs)}
    return sorted(results, key=lambda result: order[result.run.stem]), code


def _line(result: Result, line: Callable[[Result], str]) -> str:
    return f"{result.run.label}, seed {result.run.seed}: {line(result) if result.complete else result.message}"


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
    """Write results.json and summary.md; print the sections and the last line.

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
        The script's exit code so far; not 0 means that results are missing.
    remarks : sequence of str
        What a reader must know besides.

    Returns
    -------
    int
        ``code``
    """
    complete = code == 0
    remarks = [*remarks, *report.remarks(configuration["quick"], complete)]
    folder.finish(
        report.results_document(configuration, sections, results, complete, remarks),
        report.summary_document(title, data, sections, remarks),
    )
    for text in [*(section.text() for section in sections), *remarks]:
        print("\n" + text)
    print("\n" + last_line(data, source, folder, complete))
    return code


def configuration(script: str, arguments: argparse.Namespace, runs: Iterable[Run], data: Dataset) -> JsonDict:
    """What an `OutputFolder` is told: script, data and runs."""
    return {
        "script": script,
        "quick": arguments.quick,
        "protocol": arguments.protocol,
        "data": describe_data(data),
        "runs": [run.to_dict() for run in runs],
    }


def run_script(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)`` and give back the exit code that convention asks for.

    0: done; 1: it failed, such as on a full disk; 2: a mistake on the command
    line; 128 + the signal's number: interrupted (see `exit_with`). Whatever a
    user can cause is told in one sentence on the standard error output.
    """
    name = Path(sys.argv[0]).name
    write_any_text()

    def stop(number: int, frame: FrameType | None) -> None:
        raise RunInterrupted("interrupted", number)

    try:
        with contextlib.ExitStack() as stack:
            with usage():
                stack.enter_context(SignalHandler(stop))
            return main(argv)
    except UsageError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except RunInterrupted as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 128 + (error.signum or signal.SIGINT)
    except BrokenPipeError:
        # Nobody reads on: what is still in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, MemoryError) as error:
        print(f"{name}: error: {explain(error)}", file=sys.stderr)
        return 1


def exit_with(code: int) -> NoReturn:
    """End the program with an exit code; where that is 128 + a signal's number, by the signal, as shells expect.

    A shell's loop stops at Ctrl-C only if the program that it ran died by SIGINT; ``$?`` is 128 + its number then.
    """
    if code > 128:
        terminate_at_exit(code - 128)
    sys.exit(code)


def write_any_text() -> None:
    """Let the standard output take every text: what its encoding lacks (λ, where it is no UTF-8) is spelt out."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="cyconv.spelt")


def _spell(error: UnicodeError) -> tuple[str, int]:
    """For `codecs.register_error`: ASCII for the characters that tables and sentences hold."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_SPELT.get(character, "?") for character in error.object[error.start : error.end]), error.end


codecs.register_error("cyconv.spelt", _spell)
