"""The folder of a script's results: whose they are, what is finished, and what may be replaced."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from .._files import check_path, copy_file, write_json, write_text
from .._typing import JsonDict, StrPath
from .results import RunFiles
from .usage import usage

CONFIGURATION = "configuration.json"
RESULTS = "results.json"
SUMMARY = "summary.md"
JOURNAL = "search.json"
BENCHMARK = "benchmark.json"
UNFINISHED = "cyconv-unfinished"


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

    def __init__(
        self,
        path: StrPath,
        configuration: JsonDict,
        resume: bool | None = None,
        overwrite: bool = False,
        names: tuple[str, str] = (RESULTS, SUMMARY),
        check: Callable[[Path], object] | None = None,
    ) -> None:
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
        self.write(CONFIGURATION, configuration)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def write(self, name: str, content: str | JsonDict) -> None:
        """Write a text, or a dict as JSON, to the file of this name in the folder, atomically."""
        if isinstance(content, str):
            write_text(self / name, content)
        else:
            write_json(self / name, content)

    def finish(self, document: JsonDict, summary: str) -> None:
        """Write the results file and the summary; what is complete takes the place of earlier results.

        Parameters
        ----------
        document : dict
            With the keys ``complete`` and ``configuration``.
        summary : str
        """
        self.write(self._names[1], summary)
        self.write(self._names[0], document)  # last: it says whether everything is there
        self._take_place()

    def report(self) -> int:
        """Say that the results are here already and nothing was run; give back the exit code, 0."""
        results = self.results or {}
        on = f" on {results['data_set']}" if "data_set" in results else ""
        print(
            f"Complete results of this configuration{on} are in {self} already: nothing was run "
            "(--overwrite runs it again)"
        )
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
            raise ValueError(
                "--output must be a folder without unfinished results, but "
                f"{self.output} holds some of this configuration: give {go_on}--overwrite to replace them"
            )
        if held == {}:
            what = "not one of ours" if (self.output / CONFIGURATION).exists() else "missing"
            wanted = "--resume needs results" if resume else "--output must be a folder without results, or"
            raise ValueError(
                f"{wanted} with the {CONFIGURATION} that tells what they are of, but in {self.output} "
                f"it is {what}: choose another folder or give --overwrite"
            )
        if not resume:
            raise ValueError(
                "--output must be a folder without results of another configuration, but "
                f"{self.output} holds some: choose another folder or give --overwrite"
                + " or --resume"
                * (resume is not None)
            )

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
                raise ValueError(f"--resume needs results of the same {key}, but {self.output} holds those of another")
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
