"""What the scripts share: options, the data set's first line, the output folder, exit codes."""

import argparse
import codecs
import contextlib
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from . import report
from ._files import check_path, copy_file, write_json, write_text
from ._signals import Handled, die_at_exit_by
from ._typing import JsonDict, StrPath
from .datasets import Dataset, find_cifar10
from .executors import Opener, executor_opener
from .experiment import DataSource, Result, Run, RunFiles, RunInterrupted, describe_data, longest_first, run_all
from .threads import default_threads, set_num_threads

_SPELT = {"λ": "lambda", "η": "eta", "ε": "epsilon", "µ": "u", "±": "+-", "×": "x", "÷": "/", "−": "-", "–": "-",
          "→": "->", "√": "sqrt", "·": "*", "₀": "0", "₁": "1", "²": "^2"}
CONFIGURATION = "configuration.json"
RESULTS = "results.json"
SUMMARY = "summary.md"
JOURNAL = "search.json"
BENCHMARK = "benchmark.json"
UNFINISHED = "cyconv-unfinished"


class UsageError(Exception):
    """A mistake on the command line; its text is the sentence for the user."""


@contextlib.contextmanager
def usage(**options: str) -> Iterator[None]:
    """Turn what a check of the user's input raises into a `UsageError`.

    Parameters
    ----------
    **options : str
        By an argument's name, what the person typed for it, such as ``n="--threads"``.
    """
    try:
        yield
    except (TypeError, ValueError, OSError, ModuleNotFoundError) as error:
        raise UsageError(explain(error, **options)) from error


def explain(error: BaseException, **options: str) -> str:
    """One sentence from an exception, without error numbers, about the options that were typed (see `usage`).

    Examples
    --------
    >>> explain(FileNotFoundError(2, "No such file or directory", "data"))
    'No such file or directory: data'
    >>> explain(ValueError("n must be an integer in [1, 256], but got 0"), n="--threads")
    '--threads must be an integer in [1, 256], but got 0'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    sentence = " ".join(str(error).split()) or type(error).__name__
    subject, must, rest = sentence.partition(" must ")
    for name, option in options.items() if must else ():
        subject = re.sub(rf"\b{name}\b", option.replace("\\", r"\\"), subject)
    return subject + must + rest


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
    made.add_argument("--data", metavar="PATH",
                      help="CIFAR-10's folder, its parent, or a published .tar.gz; without it: $CYCONV_DATA, "
                      "./data, the user's cache folder, Keras' folder, else the drawn shapes")
    made.add_argument("--protocol", choices=("full", "batch1"), default="full",
                      help="full: 49,000 images train and 1,000 validate; batch1: batch 1 trains and batch 2 "
                      "validates (default: full)")
    made.add_argument("--output", metavar="FOLDER", default=output,
                      help="where results go (default: %(default)s)")
    made.add_argument("--threads", metavar="N", type=positive_integer,
                      help="threads to compute with (default: the CPUs this process may use)")
    made.add_argument("--quick", action="store_true", help="a few seconds that show that everything works")
    earlier = made.add_mutually_exclusive_group()
    if resumable:
        earlier.add_argument("--resume", action="store_true", help="go on with what the output folder holds")
    earlier.add_argument("--overwrite", action="store_true",
                         help="replace what the output folder holds, once the new results are complete")
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
    made.add_argument("--seeds", metavar="N", type=positive_integer,
                      help=f"runs of each configuration, seeds 0 to N-1 (default: {seeds}; 1 with --quick)")
    made.set_defaults(default_seeds=seeds)
    return made


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Give a parser ``--workers``, which `carry_out` follows."""
    parser.add_argument("--workers", metavar="N", type=positive_integer, default=1,
                        help="runs at a time, each in a process of its own with --threads threads, or its share of "
                        "the CPUs: the same bits, all of them sooner, each later (default: 1)")


def beside(arguments: argparse.Namespace) -> list[str]:
    """list of str: for titles, how many runs there were at a time, if it was more than one."""
    if arguments.workers == 1:
        return []
    threads = _threads_each(arguments)
    return [f"{arguments.workers} runs at a time, each on {threads} thread{'s' * (threads > 1)}"]


def time_remarks(arguments: argparse.Namespace) -> list[str]:
    """list of str: what a reader of the times must know."""
    return [f"{text}: seconds and updates per second are those of a run beside others." for text in beside(arguments)]


def arrange(runs: Sequence[Run], arguments: argparse.Namespace) -> tuple[Sequence[Run], Opener, int | None]:
    """How to carry out runs with as many workers as the arguments ask for.

    Returns
    -------
    runs : sequence of Run
        In the order in which to begin them.
    opened : callable
        See `executor_opener`.
    threads : int or None
        For each run; None leaves them as they are.

    Raises
    ------
    UsageError
        If there cannot be so many workers.
    """
    if arguments.workers == 1:
        return runs, executor_opener("serial"), arguments.threads
    with usage(n_workers="--workers"):
        opened = executor_opener("process", arguments.workers)
    return longest_first(runs), opened, _threads_each(arguments)


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
    print(f"Data set: {data.name}, {sizes}." if folder else
          f"Data set: {data.name}, {sizes}. CIFAR-10 was not found in ./data, the user's cache folder or Keras' "
          f"folder; --data PATH or CYCONV_DATA can say where it is.", flush=True)
    for warning in caught:
        print(f"note: {warning.message}", file=sys.stderr)
    return source, data


def last_line(data: Dataset, source: DataSource, folder: "OutputFolder", complete: bool = True,
              resumable: bool = True) -> str:
    """The script's last line: which data the results are of, and where they are."""
    other = ", since CIFAR-10 was not found," if source.folder is None else ""
    what = "Results" if complete else "Incomplete results" + " (--resume goes on)" * resumable
    earlier = "" if folder.path == folder.output else f"; the results of before stay in {folder.output}"
    return f"{what} on {data.name}{other} are in {folder}{earlier}"


class OutputFolder:
    """A folder for the results of one configuration.

    Results that are there are not replaced by unfinished ones: a run that is
    to replace them (``overwrite``), or adds to complete ones (``resume``),
    writes into the folder ``cyconv-unfinished`` inside until it is complete;
    then its files take their place. Files of others are left alone.

    Parameters
    ----------
    path : path-like
        Created if it is missing.
    configuration : dict
        What decides the numbers (see `configuration`). It is kept in the
        folder, and a folder that holds other or unfinished results is refused.
    resume : bool, optional
        Go on with what it holds, if no run of the same name and seed differs;
        None where a script has no ``--resume``.
    overwrite : bool
        Replace what it holds.
    names : tuple of str
        Of the files with the results and with their summary.
    check : callable, optional
        Called with the folder that is to be resumed; raises ValueError if
        this configuration cannot go on from there.

    Attributes
    ----------
    path : Path
        Where to write.
    output : Path
        What ``path`` was, and is again once the results are complete.
    results : dict or None
        If the folder holds this very configuration, complete: its results
        file. There is nothing to run, and nothing was written.

    Raises
    ------
    UsageError
        If the folder cannot be made or written, or holds other results.
    """

    def __init__(self, path: StrPath, configuration: JsonDict, resume: bool | None = None, overwrite: bool = False,
                 names: tuple[str, str] = (RESULTS, SUMMARY), check: Callable[[Path], object] | None = None) -> None:
        with usage():
            self.output: Path = check_path("--output", path)
            self.path: Path = self.output
            self._check_writable()
        self._names = names
        self._unfinished = self.output / UNFINISHED
        self._take_place()  # what a process that was killed then had completed
        configuration = json.loads(json.dumps(configuration))
        document, replacement = _read(self / names[0]), _read(self._unfinished / CONFIGURATION)
        self.results: JsonDict | None = None
        if self._unfinished.exists() and (overwrite or not replacement):
            shutil.rmtree(self._unfinished)
        if overwrite:
            if self._held() is not None:
                self._start_replacement()
        else:
            complete = document.get("complete") is True
            same = document.get("configuration") == configuration
            if complete and same and not (resume and replacement == configuration):
                self.results = document
                return
            held = replacement or self._held()
            if held is not None:
                with usage(path="--output"):
                    self._check_held(held, configuration, resume)
                    if check is not None:
                        check(self._unfinished if replacement else self.output)
                    configuration = self._joined(held, configuration)
                if replacement:
                    self.path = self._unfinished
                elif complete:
                    self._start_replacement(self._run_files(held))
        write_json(self / CONFIGURATION, configuration)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def finish(self, document: JsonDict, summary: str) -> None:
        """Write the results file and the summary; what is complete takes the place of earlier results.

        Parameters
        ----------
        document : dict
            With the keys ``complete`` and ``configuration``.
        summary : str
        """
        write_text(self / self._names[1], summary)
        write_json(self / self._names[0], document)  # last: it says whether everything is there
        self._take_place()

    def report(self) -> int:
        """Say that the results are here already and nothing was run; give back the exit code, 0."""
        results = self.results or {}
        on = f" on {results['data_set']}" if "data_set" in results else ""
        print(f"Complete results of this configuration{on} are in {self} already: nothing was run "
              "(--overwrite runs it again)")
        return 0

    def _check_writable(self) -> None:
        """Find out now, not after an hour of training."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ValueError(
                f"--output must be a folder that can be written, but {self.path} cannot: {error.strerror}"
            ) from None

    def _start_replacement(self, files: Iterable[Path] = ()) -> None:
        """Write into the folder of the unfinished from now on, starting from copies of these files."""
        self._unfinished.mkdir()
        for file in files:
            copy_file(file, self._unfinished / file.name)
        self.path = self._unfinished

    def _take_place(self) -> None:
        """Move complete results from the folder of the unfinished to where they belong, or the rest after a kill."""
        if _read(self._unfinished / self._names[0]).get("complete") is not True:
            return
        new, old = self._unfinished / CONFIGURATION, self.output / CONFIGURATION
        if new.exists():
            for file in self._run_files(_read(old)):
                file.unlink()
            old.unlink(missing_ok=True)
            results = self._unfinished / self._names[0]
            for file in self._unfinished.iterdir():
                if file not in (new, results):
                    _move(file, self.output)
            os.replace(new, old)
        _move(self._unfinished / self._names[0], self.output)
        self._unfinished.rmdir()
        self.path = self.output

    def _run_files(self, configuration: JsonDict) -> list[Path]:
        """The files here that a configuration's runs and its search keep."""
        stems = [f"{run['name']}-seed{run['seed']}" for run in configuration.get("runs", [])]
        names = [pattern.replace("*", stem) for stem in stems for pattern in RunFiles.PATTERNS]
        names += [JOURNAL] * ("search" in configuration)
        return [self.output / name for name in names if (self.output / name).is_file()]

    def _check_held(self, held: JsonDict, configuration: JsonDict, resume: bool | None) -> None:
        """Refuse to touch, or to go on with, what is held."""
        go_on = "" if resume is None else "--resume to go on with them or "
        if held == configuration and not resume:
            raise ValueError("--output must be a folder without unfinished results, but "
                             f"{self.output} holds some of this configuration: give {go_on}--overwrite to replace them")
        if held == {}:
            what = "not one of ours" if (self.output / CONFIGURATION).exists() else "missing"
            wanted = "--resume needs results" if resume else "--output must be a folder without results, or"
            raise ValueError(f"{wanted} with the {CONFIGURATION} that tells what they are of, but in {self.output} "
                             f"it is {what}: choose another folder or give --overwrite")
        if not resume:
            raise ValueError("--output must be a folder without results of another configuration, but "
                             f"{self.output} holds some: choose another folder or give --overwrite"
                             + " or --resume" * (resume is not None))

    def _joined(self, held: JsonDict, configuration: JsonDict) -> JsonDict:
        """The configuration with the other runs that are held, if what is held can be gone on with."""
        runs = {(run["name"], run["seed"]): run for run in configuration["runs"]}
        others = []
        for run in held["runs"]:
            if (run["name"], run["seed"]) not in runs:
                others.append(run)
            elif run != runs[run["name"], run["seed"]]:
                raise ValueError(
                    f"--resume needs runs of the same settings, but {self.output} holds {run['name']} of others"
                )
        for key in ("script", "data"):
            if held.get(key) != configuration[key]:
                raise ValueError(
                    f"--resume needs results of the same {key}, but {self.output} holds those of another"
                )
        return {**configuration, "runs": others + configuration["runs"]}

    def _held(self) -> JsonDict | None:
        """The configuration whose results are here; None if nothing is, {} if nobody can tell whose."""
        ours = (*self._names, RESULTS, SUMMARY, JOURNAL, BENCHMARK, *RunFiles.PATTERNS)
        found = any(next(self.output.glob(name), None) for name in ours)
        held = _read(self.output / CONFIGURATION)
        return held if found or (not held and (self.output / CONFIGURATION).exists()) else None


def _read(path: Path) -> JsonDict:
    """What one of a folder's JSON files says; {} if it is missing or not one of ours."""
    try:
        held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        about = held.get("configuration", held)
        known = "script" in about and all({"name", "seed"} <= set(run) for run in about["runs"])
        return held if known else {}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return {}


def _move(file: Path, folder: Path) -> None:
    """As a copy, for what stands there may be a link; what a killed writer left goes no further."""
    if file.suffix != ".part":
        copy_file(file, folder / file.name)
    file.unlink()


def test_line(result: Result) -> str:
    """What `carry_out` prints of a run unless told otherwise."""
    assert result.test is not None
    return (f"test accuracy {100 * result.test['accuracy']:.2f} %, {result.history.training_time:.1f} s, "
            f"{result.updates_per_second:,.0f} updates/s")


def carry_out(runs: Sequence[Run], source: DataSource | Dataset, folder: OutputFolder, arguments: argparse.Namespace,
              line: Callable[[Result], str] = test_line) -> tuple[list[Result], int]:
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
    begun, opened, threads = arrange(runs, arguments)
    if threads is not None:
        set_num_threads(threads)  # here too: tables and result files say so
    progress = None if arguments.workers == 1 else False
    results, code = [], 0
    try:
        with contextlib.closing(run_all(begun, source, opened, folder=folder.path, resume=arguments.resume,
                                        progress=progress, threads=threads)) as done:
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


def write_up(title: str, configuration: JsonDict, sections: Sequence[report.Section], results: Sequence[Result],
             data: Dataset, source: DataSource, folder: OutputFolder, code: int, remarks: Sequence[str] = ()) -> int:
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
    folder.finish(report.results_document(configuration, sections, results, complete, remarks),
                  report.summary_document(title, data, sections, remarks))
    for text in [*(section.text() for section in sections), *remarks]:
        print("\n" + text)
    print("\n" + last_line(data, source, folder, complete))
    return code


def configuration(script: str, arguments: argparse.Namespace, runs: Iterable[Run], data: Dataset) -> JsonDict:
    """What an `OutputFolder` is told: script, data and runs."""
    return {"script": script, "quick": arguments.quick, "protocol": arguments.protocol,
            "data": describe_data(data), "runs": [run.to_dict() for run in runs]}


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
                stack.enter_context(Handled(stop))
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
        die_at_exit_by(code - 128)
    sys.exit(code)


def write_any_text() -> None:
    """Let the standard output take every text: what its encoding lacks (λ, where it is no UTF-8) is spelt out."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="cyconv.spelt")


def _spell(error: UnicodeError) -> tuple[str, int]:
    """For `codecs.register_error`: ASCII for the characters that tables and sentences hold."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_SPELT.get(character, "?") for character in error.object[error.start:error.end]), error.end


codecs.register_error("cyconv.spelt", _spell)
