"""The folder of a script's results: which configuration they belong to, and when they may be replaced."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from .._files import check_path, copy_file, write_json, write_text
from .._typing import JsonDict, StrPath
from .report import Document
from .results import RunFiles
from .usage import UsageError, usage

CONFIGURATION = "configuration.json"
RESULTS = "results.json"
SUMMARY = "summary.md"
REPORT = "report.html"
JOURNAL = "search.json"
BENCHMARK = "benchmark.json"
UNFINISHED = "cyconv-unfinished"


class OutputFolder:
    """A folder for the results of one configuration.

    Existing results are never replaced by unfinished ones: a script that is to
    replace them (``overwrite``), or to add to complete ones (``resume``),
    writes to the subfolder ``cyconv-unfinished`` until it has finished; only
    then are its files moved to where the old ones were. Other files in the
    folder are left alone.

    Parameters
    ----------
    path : path-like
        Created if it is missing.
    configuration : dict
        What decides the results (see `cyconv.experiments.cli.configuration`).
        It is saved in the folder, and a folder with other or unfinished
        results is rejected.
    resume : bool, optional
        Whether to continue from the results in the folder, provided that no
        run of the same name and seed differs; None if the script has no
        ``--resume``.
    overwrite : bool
        Whether to replace the results in the folder.
    names : tuple of str
        Names of the files with the results and with their summary.
    check : callable, optional
        Called with the folder that is to be resumed; raises ValueError if
        this configuration cannot be resumed from there.
    shared : bool
        Whether other processes use the folder for the same configuration at
        the same time. It is then never replaced, and complete results of
        fewer runs are refused.

    Attributes
    ----------
    path : Path
        Where to write.
    output : Path
        The folder that was asked for. It differs from ``path`` while results
        are unfinished that are to replace others.
    results : dict or None
        The contents of the results file if the folder already contains
        complete results of this configuration. Then there is nothing to run,
        and nothing was written.

    Raises
    ------
    UsageError
        If the folder cannot be created or written, or contains other results.
    """

    def __init__(
        self,
        path: StrPath,
        configuration: JsonDict,
        resume: bool | None = None,
        overwrite: bool = False,
        names: tuple[str, str] = (RESULTS, SUMMARY),
        check: Callable[[Path], object] | None = None,
        shared: bool = False,
    ) -> None:
        with usage():
            self.output: Path = check_path("--output", path)
            self.path: Path = self.output
            self._check_writable()
        self._names = names
        self._unfinished = self.output / UNFINISHED
        if shared:
            self._check_shareable(configuration)
        self._move_into_place()  # complete results of a process that was killed while moving them
        configuration = json.loads(json.dumps(configuration))
        document, replacement = _read(self / names[0]), _read(self._unfinished / CONFIGURATION)
        self.results: JsonDict | None = None
        if self._unfinished.exists() and (overwrite or not replacement):
            shutil.rmtree(self._unfinished)
        if overwrite:
            if self._existing_configuration() is not None:
                self._start_replacement()
        else:
            complete = document.get("complete") is True
            same = document.get("configuration") == configuration
            if complete and same and not (resume and replacement == configuration):
                self.results = document
                return
            existing = replacement or self._existing_configuration()
            if existing is not None:
                with usage(path="--output"):
                    self._check_resumable(existing, configuration, resume)
                    if check is not None:
                        check(self._unfinished if replacement else self.output)
                    configuration = self._merge_runs(existing, configuration)
                if replacement:
                    self.path = self._unfinished
                elif complete:
                    self._start_replacement(self._run_files(existing))
        if not shared or _read(self / CONFIGURATION) != configuration:
            self.write(CONFIGURATION, configuration)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def write(self, name: str, content: str | JsonDict) -> None:
        """Write a string, or a dict as JSON, to the file of this name in the folder, atomically."""
        if isinstance(content, str):
            write_text(self / name, content)
        else:
            write_json(self / name, content)

    def finish(self, document: JsonDict, summary: Document | str) -> None:
        """Write the results file and the summary; complete results then replace earlier ones.

        Parameters
        ----------
        document : dict
            With the keys ``complete`` and ``configuration``.
        summary : Document or str
            A `Document` is also written as a web page, ``report.html``.
        """
        if isinstance(summary, Document):
            self.write(REPORT, summary.html())
            summary = summary.markdown()
        self.write(self._names[1], summary)
        self.write(self._names[0], document)  # last, since it says whether the results are complete
        self._move_into_place()

    def report(self) -> int:
        """Print that the results already exist and nothing was run; return the exit code, 0."""
        results = self.results or {}
        on = f" on {results['data_set']}" if "data_set" in results else ""
        print(
            f"Complete results of this configuration{on} are already in {self}: nothing was run "
            "(use --overwrite to run it again)"
        )
        return 0

    def _check_writable(self) -> None:
        """Fail now rather than after an hour of training."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ValueError(
                f"--output must be a folder that can be written, but {self.path} cannot: {error.strerror}"
            ) from None

    def _check_shareable(self, configuration: JsonDict) -> None:
        """Raise UsageError if results would be replaced, which only one process at a time can do."""
        document = _read(self.output / self._names[0])
        other = document.get("complete") is True and document["configuration"] != json.loads(json.dumps(configuration))
        if other or self._unfinished.exists():
            raise UsageError(
                "--task needs an output folder without complete results of other runs, but "
                f"{self.output} contains some: choose another folder, or use --resume without --task"
            )

    def _start_replacement(self, files: Iterable[Path] = ()) -> None:
        """Write to the subfolder for unfinished results from now on, starting with copies of these files."""
        self._unfinished.mkdir()
        for file in files:
            copy_file(file, self._unfinished / file.name)
        self.path = self._unfinished

    def _move_into_place(self) -> None:
        """Move complete results from the subfolder to the output folder, or what a killed process left of them."""
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
        """The existing files of a configuration's runs and search."""
        stems = [f"{run['name']}-seed{run['seed']}" for run in configuration.get("runs", [])]
        names = [pattern.replace("*", stem) for stem in stems for pattern in RunFiles.PATTERNS]
        names += [JOURNAL] * ("search" in configuration)
        return [self.output / name for name in names if (self.output / name).is_file()]

    def _check_resumable(self, existing: JsonDict, configuration: JsonDict, resume: bool | None) -> None:
        """Raise ValueError unless the script was asked to resume, and the existing results say what they are."""
        if existing == configuration and not resume:
            choice = "" if resume is None else "--resume to continue them or "
            raise ValueError(
                "--output must be a folder without unfinished results, but "
                f"{self.output} contains some of this configuration: give {choice}--overwrite to replace them"
            )
        if existing == {}:
            state = "not a cyconv file" if (self.output / CONFIGURATION).exists() else "missing"
            expected = "--resume needs results" if resume else "--output must be a folder without results, or"
            raise ValueError(
                f"{expected} with the {CONFIGURATION} that describes them, but in {self.output} "
                f"it is {state}: choose another folder or give --overwrite"
            )
        if not resume:
            choice = "" if resume is None else " or --resume"
            raise ValueError(
                "--output must be a folder without results of another configuration, but "
                f"{self.output} contains some: choose another folder or give --overwrite{choice}"
            )

    def _merge_runs(self, existing: JsonDict, configuration: JsonDict) -> JsonDict:
        """The configuration with the other existing runs added; ValueError if the results cannot be resumed."""
        runs = {(run["name"], run["seed"]): run for run in configuration["runs"]}
        others = []
        for run in existing["runs"]:
            if (run["name"], run["seed"]) not in runs:
                others.append(run)
            elif run != runs[run["name"], run["seed"]]:
                raise ValueError(
                    f"--resume needs runs of the same settings, but {self.output} contains {run['name']} with others"
                )
        for key in ("script", "data"):
            if existing.get(key) != configuration[key]:
                raise ValueError(
                    f"--resume needs results of the same {key}, but {self.output} contains those of another"
                )
        return {**configuration, "runs": others + configuration["runs"]}

    def _existing_configuration(self) -> JsonDict | None:
        """The configuration of the existing results; None if there are none, {} if it is unknown."""
        names = (*self._names, RESULTS, SUMMARY, JOURNAL, BENCHMARK, *RunFiles.PATTERNS)
        found = any(next(self.output.glob(name), None) for name in names)
        existing = _read(self.output / CONFIGURATION)
        return existing if found or (not existing and (self.output / CONFIGURATION).exists()) else None


def _read(path: Path) -> JsonDict:
    """The contents of one of the folder's JSON files; {} if it is missing or not a cyconv file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        configuration = document.get("configuration", document)
        known = "script" in configuration and all({"name", "seed"} <= set(run) for run in configuration["runs"])
        return document if known else {}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return {}


def _move(file: Path, folder: Path) -> None:
    """Move by copying, since the target may be a link; drop temporary files that a killed writer left."""
    if file.suffix != ".part":
        copy_file(file, folder / file.name)
    file.unlink()
