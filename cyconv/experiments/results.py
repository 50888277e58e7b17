"""The result of a run, and the files in which it is kept."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .._checks import check_choice, check_integer
from .._files import check_path, load_arrays, save_arrays
from .._signals import Interrupted
from .._typing import FloatArray, JsonDict, StrPath
from ..checkpoint import running_versions
from ..history import CURVES, History
from .runs import Run

_KIND, _VERSION = "run", 1
_STATES = ("complete", "interrupted", "diverged")


@dataclass(eq=False, repr=False)
class Result:
    """The result of a `Run`.

    Attributes
    ----------
    run : Run
    data : dict
        The data it was trained on, as described by `describe_data`.
    history : History
    n_parameters : int
    filters : list of ndarray, each (n_filters, channels, f, f)
        The trained filters of the first layer, one array per branch.
    state : {"complete", "interrupted", "diverged"}
    message : str
        Why the run is not complete; empty if it is.
    test : dict or None
        ``loss``, ``accuracy``, for a run with views ``view_accuracy`` and, for one with snapshots,
        ``ensemble_accuracy``. The test split is read only once, at the end of
        a complete run.
    confusion : ndarray of int64, shape (n_classes, n_classes), or None
        Number of test images of the row's class that were predicted as the
        column's.
    versions : dict of str to str
        Versions of cyconv and NumPy and the instruction set that the run ended
        with; empty if an earlier version of cyconv saved it.
    """

    run: Run
    data: JsonDict
    history: History
    n_parameters: int
    filters: list[FloatArray]
    state: str = "complete"
    message: str = ""
    test: dict[str, float] | None = None
    confusion: NDArray[np.int64] | None = None
    versions: dict[str, str] = field(default_factory=running_versions)

    def __repr__(self) -> str:
        accuracy = f", test accuracy {100 * self.test['accuracy']:.2f} %" if self.test else ""
        time = f"{self.history.training_time:.1f} s"
        return f"<Result: {self.run.label!r}, seed {self.run.seed}, {self.state}{accuracy}, {time}>"

    @property
    def complete(self) -> bool:
        """bool: whether the run has finished."""
        return self.state == "complete"

    @property
    def updates_per_second(self) -> float:
        """float: update steps per second, excluding the time spent on evaluation."""
        steps = self.history.last_step or 0
        return steps / self.history.update_time if self.history.update_time > 0 else 0.0

    def document(self) -> JsonDict:
        """dict: everything except the filters, as JSON values."""
        return {
            **self._header(),
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "updates_per_second": self.updates_per_second,
            "history": self.history.to_dict(),
        }

    def _header(self) -> JsonDict:
        return {
            "run": self.run.to_dict(),
            "data": self.data,
            "n_parameters": self.n_parameters,
            "state": self.state,
            "message": self.message,
            "test": self.test,
            "versions": self.versions,
        }

    def save(self, path: StrPath) -> None:
        """Write the result as one ``.npz``, atomically and without pickle.

        Raises
        ------
        OSError
            If the file cannot be written; an existing file is then left as it was.
        """
        arrays = {f"history.{key}": self.history[key] for key in CURVES}
        arrays |= {f"filters.{i}": array for i, array in enumerate(self.filters)}
        if self.confusion is not None:
            arrays["confusion"] = self.confusion
        save_arrays(path, _KIND, _VERSION, {**self._header(), "history": self.history.header()}, arrays)

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Load a result that `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a result, is damaged, or was written by a newer
            version.
        """
        header, arrays = load_arrays(path, _KIND, _VERSION)
        try:
            curves = {key: arrays[f"history.{key}"] for key in CURVES}
            n_branches = sum(name.startswith("filters.") for name in arrays)
            result = cls(
                run=Run.from_dict(header["run"]),
                data=dict(header["data"]),
                history=History.from_arrays(header["history"], curves),
                n_parameters=check_integer("n_parameters", header["n_parameters"], 1),
                filters=[arrays[f"filters.{i}"] for i in range(n_branches)],
                state=check_choice("state", header["state"], _STATES),
                message=str(header["message"]),
                test=header["test"],
                confusion=arrays.get("confusion"),
                versions=dict(header.get("versions", {})),
            )
            if result.complete and not {"loss", "accuracy"} <= set(result.test or ()):
                raise ValueError("it is complete, but has no test accuracy")
            return result
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"path must be a cyconv run file, but {path} is damaged: {error}") from None


class RunInterrupted(Interrupted):
    """A signal interrupted an experiment.

    Attributes
    ----------
    signum : int
        The signal's number.
    result : Result or None
        The partial result of the run that was interrupted, if there was one.
    """

    def __init__(self, message: str, signum: int | None = None, result: Result | None = None) -> None:
        super().__init__(message)
        self.signum = signum
        self.result = result


@dataclass(frozen=True)
class RunFiles:
    """The files of a run in an output folder.

    Examples
    --------
    >>> RunFiles("results", Run("narrow")).history.name
    'history-narrow-seed0.csv'
    """

    folder: Path
    run: Run

    #: Patterns of all the names below.
    PATTERNS = ("run-*.npz", "checkpoint-*.npz", "network-*.npz", "history-*.csv")

    def __init__(self, folder: StrPath, run: Run) -> None:
        object.__setattr__(self, "folder", check_path("folder", folder))
        object.__setattr__(self, "run", run)

    @property
    def result(self) -> Path:
        """Path: the `Result`; it exists once the run has finished."""
        return self.folder / f"run-{self.run.stem}.npz"

    @property
    def checkpoint(self) -> Path:
        """Path: the trainer's checkpoint; it exists until the run has finished."""
        return self.folder / f"checkpoint-{self.run.stem}.npz"

    @property
    def network(self) -> Path:
        """Path: the trained `Network`."""
        return self.folder / f"network-{self.run.stem}.npz"

    @property
    def history(self) -> Path:
        """Path: the `History` as CSV."""
        return self.folder / f"history-{self.run.stem}.csv"
