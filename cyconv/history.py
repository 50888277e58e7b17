"""The history of a training run: curves, learning rates and times."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from csv import writer
from dataclasses import make_dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ._checks import as_array, check_array, check_integer, check_real, describe
from ._files import atomic_write, load_arrays, save_arrays
from ._tables import Table
from ._typing import AnyArray, JsonDict, StrPath

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = ("cost_train", "cost_val", "loss_train", "loss_val", "acc_train", "acc_val", "update_steps", "learning_rates")
TIMES = ("training_time", "update_time", "evaluation_time")

_KIND, _VERSION = "history", 1
_SHOWN = 5  # points in the table of a notebook
_Point = make_dataclass("_Point", CURVES)
_CurveOfFloats: TypeAlias = Literal[
    "cost_train", "cost_val", "loss_train", "loss_val", "acc_train", "acc_val", "learning_rates"
]
_Time: TypeAlias = Literal["training_time", "update_time", "evaluation_time"]


class History(Mapping[str, Any]):
    """Curves over the logged update steps, and the time the run took.

    A read-only mapping: ``history[key]`` is a curve, as an array with one
    element per logged point, or a time as a float. `to_dict` returns lists
    instead of arrays, for JSON; ``pandas.DataFrame(history)`` has a column for
    each curve.

    ============================  =====================================================
    key                           meaning
    ============================  =====================================================
    cost_train, cost_val          loss plus the L2 penalty
    loss_train, loss_val          mean cross-entropy, never smoothed; NaN without validation
    acc_train, acc_val            fraction of images classified correctly, 0..1
    update_steps                  updates done when the point was logged (int64)
    learning_rates                the learning rate at that step
    training_time                 wall time of the whole fit, in seconds
    update_time, evaluation_time  seconds of it spent in updates and in evaluation
    ============================  =====================================================

    Attributes
    ----------
    complete : bool
        Whether the run reached its last step.
    training_time, update_time, evaluation_time : float
        Seconds.

    Examples
    --------
    >>> history = History()
    >>> history.append(0, 1e-5, train=(2.4, 2.5, 0.1), validation=(2.4, 2.6, 0.09))
    >>> history.n_points, history["acc_val"]
    (1, array([0.09]))
    """

    __slots__ = ("_points", *TIMES, "complete", "__weakref__")

    def __init__(self) -> None:
        # One tuple per point, in the order of CURVES, so that an exception cannot leave half a point.
        self._points: list[tuple[Any, ...]] = []
        self.training_time: float = 0.0
        self.update_time: float = 0.0
        self.evaluation_time: float = 0.0
        self.complete: bool = False

    def append(
        self, step: int, learning_rate: float, train: Iterable[float], validation: Iterable[float] | None = None
    ) -> None:
        """Add one point.

        Parameters
        ----------
        step : int
            Number of updates done so far; larger than at the previous point.
        learning_rate : float
        train, validation : (loss, cost, accuracy)
            Three floats each, as returned by `Network.evaluate`. If ``validation``
            is None, its curves hold NaN.

        Raises
        ------
        TypeError, ValueError
            If a value is not a number, or if the steps do not increase.
        """
        last = self.last_step
        step = check_integer("step", step, 0 if last is None else last + 1)
        rate = check_real("learning_rate", learning_rate, 0)
        point: dict[str, float] = {"update_steps": step, "learning_rates": rate}
        for name, suffix, evaluation in (("train", "train", train), ("validation", "val", validation)):
            if suffix == "val" and evaluation is None:
                point |= dict.fromkeys(("loss_val", "cost_val", "acc_val"), math.nan)
                continue
            try:
                loss, cost, accuracy = evaluation  # type: ignore[misc]
            except Exception:  # a user's __iter__ may raise anything
                raise TypeError(f"{name} must be loss, cost and accuracy, but got {describe(evaluation)}") from None
            point[f"loss_{suffix}"] = check_real(f"loss_{suffix}", loss)
            point[f"cost_{suffix}"] = check_real(f"cost_{suffix}", cost)
            point[f"acc_{suffix}"] = check_real(f"acc_{suffix}", accuracy, 0, 1)
        self._points.append(tuple(point[key] for key in CURVES))

    @property
    def last_step(self) -> int | None:
        """int or None: step of the last point."""
        return self._points[-1][CURVES.index("update_steps")] if self._points else None

    @property
    def last_row(self) -> dict[str, float]:
        """dict of str to float: values of the last point by curve; empty if there is none."""
        return dict(zip(CURVES, self._points[-1])) if self._points else {}

    @property
    def n_points(self) -> int:
        """int: number of logged points."""
        return len(self._points)

    @overload
    def __getitem__(self, key: _CurveOfFloats) -> NDArray[np.float64]: ...

    @overload
    def __getitem__(self, key: Literal["update_steps"]) -> NDArray[np.int64]: ...

    @overload
    def __getitem__(self, key: _Time) -> float: ...

    @overload
    def __getitem__(self, key: str) -> Any: ...

    def __getitem__(self, key: str) -> Any:
        if isinstance(key, str) and key in TIMES:
            return getattr(self, key)
        if not isinstance(key, str) or key not in CURVES:
            raise KeyError(f"key must be one of {', '.join(self)}, but got {describe(key)}")
        column = CURVES.index(key)
        values = [point[column] for point in self._points]
        return np.array(values, dtype=np.int64 if key == "update_steps" else np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(CURVES + TIMES)

    def __len__(self) -> int:
        return len(CURVES + TIMES)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        same = (np.array_equal(value, other[key], equal_nan=True) for key, value in self.items())
        return self.keys() == other.keys() and all(same)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        """One dataclass per point, from which ``pandas.DataFrame(history)`` makes its rows."""
        points = np.empty(self.n_points, dtype=object)
        points[:] = [_Point(*values) for values in self._points]
        return points if dtype is None else points.astype(dtype)

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        state = {name: getattr(self, name) for name in ("_points", *TIMES, "complete")}
        return None, {**state, "_points": list(self._points)}

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        return f"<History: {self.n_points} points to step {self.last_step}, {self.training_time:.1f} s, {state}>"

    def _repr_html_(self) -> str:
        """The last points and the best one."""
        columns: dict[str, Callable[[dict[str, Any]], str]] = {
            "update step": lambda point: f"{point['update_steps']:,}",
            "learning rate": lambda point: f"{point['learning_rates']:.3g}",
            "training loss": lambda point: f"{point['loss_train']:.4f}",
            "training accuracy": lambda point: f"{100 * point['acc_train']:.2f} %",
            "validation loss": lambda point: f"{point['loss_val']:.4f}",
            "validation accuracy": lambda point: f"{100 * point['acc_val']:.2f} %",
        }
        points = [dict(zip(CURVES, values)) for values in self._points]
        if not any(math.isfinite(point["acc_val"]) for point in points):
            columns = dict(list(columns.items())[:4])
        rows = [[cell(point) for cell in columns.values()] for point in points[-_SHOWN:]]
        times = f"{self.update_time:.1f} s in updates and {self.evaluation_time:.1f} s in evaluation"
        remark = (
            f"{self.n_points} points, {'complete' if self.complete else 'incomplete'}. {self.training_time:.1f} s, "
        )
        remark += f"of which {times}."
        if len(columns) > 4:
            best = max(points, key=lambda point: (point["acc_val"], -point["update_steps"]))
            remark += (
                f" Best validation accuracy: {100 * best['acc_val']:.2f} %, after {best['update_steps']:,} updates."
            )
        return Table(list(columns), rows, remark=remark)._repr_html_()

    def plot(self, title: str = "", **options: Any) -> "Figure":
        """Draw loss and accuracy on training and validation data.

        Parameters
        ----------
        title : str, default ""
        **options
            For `cyconv.plots.plot_train_validation`, such as ``boundaries``.

        Returns
        -------
        matplotlib.figure.Figure
            Which a notebook shows as a cell's last line.
        """
        from .experiments.plots import plot_train_validation

        return plot_train_validation(self, title, **options)

    def header(self) -> JsonDict:
        """Everything but the curves, as JSON values."""
        return {"complete": self.complete, **{key: getattr(self, key) for key in TIMES}}

    def to_dict(self) -> JsonDict:
        """Every curve as a list, the times and ``complete``, as JSON values; None stands for NaN."""
        curves = {key: [None if math.isnan(value) else value for value in self[key].tolist()] for key in CURVES}
        return {**curves, **self.header()}

    @classmethod
    def from_arrays(cls, header: object, curves: Mapping[str, AnyArray]) -> Self:
        """Create a history from the result of `header` and its curves.

        Raises
        ------
        TypeError, ValueError
            If curves are missing, differ in length or hold invalid values.
        """
        history = cls()
        if not isinstance(header, dict) or set(header) != {"complete", *TIMES}:
            raise ValueError(f"header must hold complete and {', '.join(TIMES)}, but got {describe(header)}")
        if not isinstance(header["complete"], bool):
            raise TypeError(f"complete must be True or False, but got {describe(header['complete'])}")
        history.complete = header["complete"]
        for key in TIMES:
            setattr(history, key, check_real(key, header[key], 0))
        if not isinstance(curves, dict) or set(curves) != set(CURVES):
            raise ValueError(f"curves must be those of a history, {', '.join(CURVES)}, but got {describe(curves)}")
        n_points = as_array("update_steps", curves["update_steps"]).size
        curves = {
            key: check_array(key, curves[key], (n_points,), [np.int64 if key == "update_steps" else np.float64])
            for key in CURVES
        }
        for values in zip(*(curves[key].tolist() for key in CURVES)):
            point = dict(zip(CURVES, values))
            validation = (point["loss_val"], point["cost_val"], point["acc_val"])
            history.append(
                point["update_steps"],
                point["learning_rates"],
                (point["loss_train"], point["cost_train"], point["acc_train"]),
                None if all(map(math.isnan, validation)) else validation,
            )
        return history

    def save(self, path: StrPath) -> None:
        """Write the history as one ``.npz``, atomically and without pickle.

        Parameters
        ----------
        path : path-like
            Used as given, without adding an extension.

        Raises
        ------
        OSError
            If it cannot be written; an existing file is kept.
        """
        save_arrays(path, _KIND, _VERSION, {"history": self.header()}, {key: self[key] for key in CURVES})

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Load a history from a file written by `save`.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not a history file, is damaged or comes from a newer version.
        """
        header, arrays = load_arrays(path, _KIND, _VERSION)
        try:
            return cls.from_arrays(header.get("history"), arrays)
        except (TypeError, ValueError) as error:
            raise ValueError(f"path must be a cyconv history file, but {path} is damaged: {error}") from None

    def to_csv(self, path: StrPath, data_set: str | None = None) -> None:
        """Write a CSV file with a header row and one row per logged point, atomically.

        The columns are ``update_steps``, ``learning_rates`` and the six
        curves; reading a number back with `float` gives exactly the same value.

        Parameters
        ----------
        path : path-like
        data_set : str, optional
            Name of the data set, written to an additional first column.

        Raises
        ------
        OSError
            If it cannot be written; an existing file is kept.
        """
        columns = ("update_steps", "learning_rates", *CURVES[:6])
        with atomic_write(path, "w", encoding="utf-8", newline="") as file:
            rows = writer(file, lineterminator="\n")
            points = zip(*(self[key].tolist() for key in columns))
            if data_set is None:
                rows.writerow(columns)
                rows.writerows(points)
            else:
                rows.writerow(["data_set", *columns])
                rows.writerows([data_set, *point] for point in points)
