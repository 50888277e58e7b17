"""Coarse-to-fine search for the best value of one setting, by accuracy on validation data.

A `Search` describes which values to try, a `Measurement` is the result of one
run, a `Journal` keeps the measurements on disk, `run_search` runs the search
and `rank` orders the values. The test split is not used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeAlias, get_type_hints

import numpy as np

from .._checks import check_choice, check_integer, check_real, describe
from .._files import check_path, write_json
from .._typing import JsonDict, StrPath
from ..backend.threads import set_num_threads
from ..datasets import Dataset
from ..randomness import SEARCH, uniform
from ..trainer import DivergenceError
from .data_source import DataSource, load
from .executors import ExecutorFactory, map_unordered
from .report import ACCURACIES, Table, format_interval, format_mean, format_p
from .runs import ABBREVIATIONS, Run, plain, symbol
from .statistics import Difference, Sample, differences
from .workers import Origin

Value: TypeAlias = float | int | str | bool | tuple[int, ...] | None

_KIND, _VERSION = "search", 1
#: The settings that can be searched.
FIELDS = tuple(field.name for field in dataclasses.fields(Run) if field.name not in ("name", "label", "seed"))
_REAL = tuple(name for name, kind in get_type_hints(Run).items() if kind in (float, float | None))
_INTEGER = tuple(field.name for field in dataclasses.fields(Run) if type(field.default) is int and field.name in FIELDS)
SCALES = ("log", "linear")
_OPTIONAL = {"field": "l2", "scale": "log", "choices": None}  # which earlier versions did not have
_LEADERS = 3
_NARROWING = 3.0


@dataclass(frozen=True)
class Search:
    """A search in rounds, each of which tries values of one setting from a narrower range.

    The first round draws from ``low`` to ``high``. Each later range is a
    third as wide, in the logarithm, as the one before. It is centred on the geometric
    mean of the three best values so far, but shifted to stay within ``low``
    and ``high``. A range is divided into ``n_samples`` parts of equal
    ratio, and one value is drawn log-uniformly from each: a stratified random search
    (Bergstra & Bengio, "Random search for hyper-parameter optimization", JMLR
    2012). On a linear scale, widths, means and draws are those of the values
    themselves. Integers are rounded, and none is tried twice.

    With ``choices`` there is one round, which tries each of them.

    Parameters
    ----------
    run : Run
        What to train; its ``seed`` and the field that is searched are replaced
        by those of the search.
    low, high : float
        Range of the setting, 0 < low < high; on a linear scale, 0 <= low.
    n_rounds : int, default 3
    n_samples : int, default 8
        Number of values per round; of an integer, at most.
    n_seeds : int, default 3
        Number of runs with each value. All values use the seeds 0, 1, …, so
        that they start from the same networks and see the same batches.
    seed : int, default 0
        Seed of the random values.
    field : str, default "l2"
        The setting: any field of `Run` except name, label and seed, such as
        ``"eta_max"`` or ``"n_filters"``. One that is not a number needs ``choices``.
    scale : {"log", "linear"}, default "log"
    choices : sequence, optional
        At least two values to try, such as ``("sgd", "nesterov")`` or
        ``(50, (100, 50))``, in place of the range.

    Raises
    ------
    TypeError, ValueError
        If a setting is invalid.

    Examples
    --------
    >>> search = Search(Run("narrow"), low=1e-5, high=1e-1, n_samples=4)
    >>> low, high = search.range(0, [])
    >>> values = search.values(0, [])
    >>> len(values), all(low <= value <= high for value in values)
    (4, True)
    >>> Search(Run(), 5, 80, n_samples=4, field="n_filters").values(0, [])
    [6, 17, 39, 60]
    >>> Search.from_dict(search.to_dict()) == search
    True
    """

    run: Run
    low: float = 1e-5
    high: float = 1e-1
    n_rounds: int = 3
    n_samples: int = 8
    n_seeds: int = 3
    seed: int = 0
    field: str = "l2"
    scale: str = "log"
    choices: Sequence[Value] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.run, Run):
            raise TypeError(f"run must be a Run, but got {describe(self.run)}")
        check_choice("scale", self.scale, SCALES)
        object.__setattr__(self, "low", check_real("low", self.low, 0, None, "(]" if self.scale == "log" else "[]"))
        object.__setattr__(self, "high", check_real("high", self.high, self.low, None, "(]"))
        for name in ("n_rounds", "n_samples", "n_seeds"):
            check_integer(name, getattr(self, name), 1, 10**6)
        object.__setattr__(self, "seed", check_integer("seed", self.seed, 0))
        check_choice("field", self.field, FIELDS)
        if self.choices is not None:
            self._set_choices()
        elif self.field not in _REAL + _INTEGER:
            raise ValueError(f"choices must be given for the field {self.field!r}, which is not a number")

    def _set_choices(self) -> None:
        if not isinstance(self.choices, list | tuple):
            raise TypeError(f"choices must be a sequence of values, but got {describe(self.choices)}")
        choices = tuple(plain(value) for value in self.choices)
        if len(choices) < 2 or any(value in choices[:place] for place, value in enumerate(choices)):
            raise ValueError(f"choices must be at least two different values, but got {describe(self.choices)}")
        for name, value in (("choices", choices), ("n_rounds", 1), ("n_samples", len(choices))):
            object.__setattr__(self, name, value)

    @property
    def n_runs(self) -> int:
        """int: number of runs of the whole search; of an integer, at most."""
        return self.n_rounds * self.n_samples * self.n_seeds

    def range(self, round_: int, measurements: Iterable[Measurement]) -> tuple[float, float]:
        """The range ``(low, high)`` of round ``round_`` (from 0), given the ``measurements`` of earlier rounds."""
        if round_ == 0:
            return self.low, self.high
        leaders = rank(m for m in measurements if m.round < round_)[:_LEADERS]
        if not leaders:
            raise ValueError(f"measurements must include some from before round {round_}, but got none")
        scaled, original = (math.log, math.exp) if self.scale == "log" else (float, float)
        low, high = scaled(self.low), scaled(self.high)
        middle = sum(scaled(candidate.value) for candidate in leaders) / len(leaders)
        half = (high - low) / 2 / _NARROWING**round_
        middle = min(max(middle, low + half), high - half)
        return original(middle - half), original(middle + half)

    def values(self, round_: int, measurements: Iterable[Measurement]) -> list[Any]:
        """The values that round ``round_`` tries, in ascending order, or the choices."""
        if self.choices is not None:
            return list(self.choices)
        measurements = list(measurements)
        log = self.scale == "log"
        low, high = np.log(self.range(round_, measurements)) if log else self.range(round_, measurements)
        index = np.arange(self.n_samples)
        fractions = (index + uniform(self.seed, SEARCH, round_, index)) / self.n_samples
        drawn = low + fractions * (high - low)
        values: list[float] = (np.exp(drawn) if log else drawn).tolist()
        if self.field not in _INTEGER:
            return values
        tried = {m.value for m in measurements if m.round < round_}
        return sorted({round(value) for value in values} - tried)

    def runs(self, round_: int, measurements: Iterable[Measurement]) -> list[Run]:
        """list of Run: every value of the round with every seed, starting with all values for seed 0."""
        values = self.values(round_, measurements)
        seeds = range(self.n_seeds)
        return [self._run(value, seed=seed) for seed in seeds for value in values]

    def missing(self, round_: int, measurements: Iterable[Measurement]) -> list[Run]:
        """list of Run: those of `runs` that are not among the measurements."""
        measurements = list(measurements)
        done = {measurement.key for measurement in measurements}
        runs = self.runs(round_, measurements)
        return [run for run in runs if (round_, getattr(run, self.field), run.seed) not in done]

    def is_complete(self, measurements: Iterable[Measurement]) -> bool:
        """bool: whether every run of every round is among the measurements."""
        measurements = list(measurements)
        return bool(measurements) and not any(self.missing(round_, measurements) for round_ in range(self.n_rounds))

    def check(self, image_shape: Sequence[int] = (3, 32, 32), n_classes: int = 10) -> Self:
        """Raise TypeError or ValueError if a run would have invalid settings; return the search."""
        ends = (self.low, self.high) if self.field in _REAL else (round(self.low), round(self.high))
        for value in ends if self.choices is None else self.choices:
            self._run(value).check(image_shape, n_classes)
        return self

    def _run(self, value: Value, **changes: Any) -> Run:
        changes[self.field] = value
        return dataclasses.replace(self.run, **changes)

    def to_dict(self) -> JsonDict:
        """dict: the settings as JSON values."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        settings = {
            name: value for name, value in settings.items() if name == "field" or value != _OPTIONAL.get(name, ())
        }
        return {**settings, "run": self.run.to_dict()}

    @classmethod
    def from_dict(cls, settings: JsonDict) -> Self:
        """The search with the settings that `to_dict` returned.

        Raises
        ------
        TypeError, ValueError
            If ``settings`` is not a mapping of a search's settings.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(settings, dict) or {*_OPTIONAL, *settings} != known:
            raise ValueError(f"settings must hold a search's settings, but got {describe(settings)}")
        return cls(**{**settings, "run": Run.from_dict(settings["run"])})


@dataclass(frozen=True)
class Measurement:
    """The result of one run of a search, after its last update.

    Attributes
    ----------
    round, value, seed : int, number or other value, int
        The run's round, counted from 0, its value of the setting and its seed.
    state : {"complete", "diverged"}
    validation_accuracy : float
        In 0..1; 0 if the run diverged.
    validation_loss, training_accuracy : float or None
        Mean cross-entropy on the validation data, and accuracy on the
        training images that the run evaluates; None if the run diverged.
    training_time : float
        Seconds.
    """

    round: int
    value: Any
    seed: int
    state: str
    validation_accuracy: float
    validation_loss: float | None
    training_accuracy: float | None
    training_time: float

    def __post_init__(self) -> None:
        check_integer("round", self.round, 0)
        object.__setattr__(self, "value", plain(self.value))
        if isinstance(self.value, int | float):
            check_real("value", float(self.value), 0)
        check_integer("seed", self.seed, 0)
        check_choice("state", self.state, ("complete", "diverged"))
        check_real("validation_accuracy", self.validation_accuracy, 0, 1)
        check_real("training_time", self.training_time, 0)
        if self.state == "complete":
            check_real("validation_loss", self.validation_loss, 0)
            check_real("training_accuracy", self.training_accuracy, 0, 1)

    @property
    def key(self) -> tuple[int, Value, int]:
        """tuple: round, value and seed, which identify a run of a search."""
        return self.round, self.value, self.seed

    def to_dict(self, field: str) -> JsonDict:
        """dict: all attributes as JSON values, with the value under the name of the setting."""
        return {field if name == "value" else name: value for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: JsonDict, field: str) -> Self:
        """The measurement that `to_dict` returned.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is not such a dict.
        """
        others = {name: value for name, value in fields.items() if name != field}
        return cls(value=fields[field], **others)


def format_value(value: Value) -> str:
    """A value of a setting in tables and sentences.

    Examples
    --------
    >>> format_value(0.00312), format_value(1000), format_value((100, 50)), format_value("adamw")
    ('0.00312', '1000', '(100, 50)', 'adamw')
    """
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _order(value: Value) -> tuple[float, str]:
    """A key that sorts numbers by size, and other values by name behind them."""
    return (value, "") if isinstance(value, int | float) else (math.inf, str(value))


def describe_splits(source: Dataset | DataSource) -> dict[str, str]:
    """Describe the data that a search uses: the training and validation splits, but not the test split.

    Returns
    -------
    dict
        ``name``, and the SHA-256 of the splits as ``train`` and ``validation``.
    """
    data = load(source, "source")
    return {"name": data.name, "train": data.train.fingerprint(), "validation": data.validation.fingerprint()}


def measure(run: Run, source: Dataset | DataSource, splits: Mapping[str, str], threads: int | None = None) -> JsonDict:
    """Train one run of a search and evaluate it on the validation split.

    Parameters
    ----------
    run : Run
    source : Dataset or DataSource
        A `DataSource` is loaded once in each process.
    splits : dict
        The data of the search, as described by `describe_splits`; a worker on
        another machine might find different ones.
    threads : int, optional
        Number of threads, for `set_num_threads` in the current process.

    Returns
    -------
    dict
        The fields of a `Measurement` from ``state`` on.

    Raises
    ------
    ValueError, TypeError
        If a setting is invalid, or the data are not those of the search.
    """
    if threads is not None:
        set_num_threads(threads)
    data = load(source, "source")
    if describe_splits(source) != splits:
        raise ValueError(f"source must be the search's data, {splits['name']}, but a worker found different data")
    trainer = run.trainer(data.image_shape, data.n_classes)
    values: dict[str, float | None] = {"validation_accuracy": 0.0, "validation_loss": None, "training_accuracy": None}
    state = "complete"
    try:
        history = trainer.fit(
            data.train,
            data.validation,
            log_every=run.log_every,
            n_train_evaluated=run.n_train_evaluated,
            progress=False,
        )
    except DivergenceError:
        state = "diverged"
    else:
        for name, key in zip(values, ("acc_val", "loss_val", "acc_train")):
            values[name] = float(history[key][-1])
    return {"state": state, **values, "training_time": float(trainer.history.training_time)}


class Journal:
    """The measurements of a search, in memory and in a file that is rewritten after each of them.

    Parameters
    ----------
    path : path-like
        A JSON file, written with the first measurement.
    search : Search
    splits : dict
        The data, as described by `describe_splits`.
    resume : bool, default False
        Whether to load the measurements in the file. They must be on the same
        data and from the same search, which may now have more rounds.
    overwrite : bool, default False
        Whether to start again; the first measurement replaces the file.

    Raises
    ------
    ValueError
        If the file exists and is not to be resumed, belongs to another search
        or other data, or is damaged.
    """

    def __init__(
        self, path: StrPath, search: Search, splits: Mapping[str, str], resume: bool = False, overwrite: bool = False
    ) -> None:
        self.path: Path = check_path("path", path)
        self.search = search
        self.splits = splits
        self._by_key: dict[tuple[int, Value, int], Measurement] = {}
        if overwrite or not self.path.exists():
            return
        if not resume:
            raise ValueError(f"path must be a new file unless resume or overwrite is given, but {self.path} exists")
        for measurement in self._read():
            self._by_key[measurement.key] = measurement

    @property
    def measurements(self) -> list[Measurement]:
        """list of Measurement: in order of rounds, seeds and values, whatever order they were added in."""
        return sorted(self._by_key.values(), key=lambda m: (m.round, m.seed, _order(m.value)))

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def add(self, measurement: Measurement) -> None:
        """Add a measurement and write the file, atomically.

        Raises
        ------
        ValueError
            If there already is a measurement of the same run.
        OSError
            If the file cannot be written; the existing file is then left as it was.
        """
        if measurement.key in self._by_key:
            raise ValueError(f"measurement must be a new one, but got {measurement.key} again")
        by_key = {**self._by_key, measurement.key: measurement}
        write_json(
            self.path,
            {
                "kind": _KIND,
                "version": _VERSION,
                "search": self.search.to_dict(),
                "data": self.splits,
                "measurements": [m.to_dict(self.search.field) for m in by_key.values()],
            },
        )
        self._by_key = by_key

    def _read(self) -> list[Measurement]:
        try:
            text = self.path.read_text(encoding="utf-8")
            document = json.loads(text)
            if document["kind"] != _KIND or document["version"] != _VERSION:
                raise ValueError(f"it is of kind {document['kind']!r}, version {document['version']!r}")
            search = Search.from_dict(document["search"])
            # Data are compared by their fingerprints, since earlier versions gave them other names.
            splits = {**document["data"], "name": self.splits["name"]}
            measurements = [Measurement.from_dict(fields, search.field) for fields in document["measurements"]]
            if len({m.key for m in measurements}) < len(measurements):
                raise ValueError("it contains a measurement twice")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"path must be a search's journal, but {self.path} is damaged: {error}") from None
        n_rounds = self.search.n_rounds
        if dataclasses.replace(search, n_rounds=n_rounds) != self.search or search.n_rounds > n_rounds:
            raise ValueError(f"path must belong to the same search, but {self.path} is of other settings")
        if splits != self.splits:
            raise ValueError(f"path must belong to a search on the same data, but {self.path} is of other data")
        return measurements


def run_search(
    search: Search,
    source: Dataset | DataSource,
    journal: Journal,
    executor: Executor | ExecutorFactory | str | None = None,
    threads: int | None = None,
) -> Iterator[Measurement]:
    """Run the part of a search that is not in the journal yet.

    Parameters
    ----------
    search : Search
    source : Dataset or DataSource
        For other processes a `DataSource`: so the images do not travel.
    journal : Journal
        Every measurement is written to its file before it is yielded.
    executor : Executor, callable or str, optional
        Where to train (see `run_all`). By default, runs are trained one after
        another in this thread.
    threads : int, optional
        Number of threads of each run; by default it is left as it is, but on a
        cluster it is the worker's share of its machine.

    Yields
    ------
    Measurement
        The new measurements, as the runs finish.

    Raises
    ------
    ChildProcessError
        If workers died repeatedly (see `cyconv.experiments.executors.map_unordered`),
        or one has another version of this package or not the data.
    ValueError
        If a worker finds data other than those of the journal.
    OSError
        If the journal cannot be written.
    """
    measure_there = partial(_measure_on_worker, Origin(), threads)
    for round_ in range(search.n_rounds):
        calls = [(run, source, journal.splits) for run in search.missing(round_, journal.measurements)]
        with contextlib.closing(map_unordered(measure_there, calls, executor)) as results:
            for (run, *_), values in results:
                measurement = Measurement(round_, getattr(run, search.field), run.seed, **values)
                journal.add(measurement)
                yield measurement


def _measure_on_worker(
    origin: Origin, threads: int | None, run: Run, source: Dataset | DataSource, splits: Mapping[str, str]
) -> JsonDict:
    return measure(run, origin.check_worker(source, threads=threads), splits)


@dataclass(frozen=True, repr=False)
class Candidate:
    """A value of the setting and its runs, in order of their seeds."""

    value: Any
    round: int
    measurements: tuple[Measurement, ...]

    def __repr__(self) -> str:
        accuracies = format_mean(self.accuracies, scale=100)
        return f"<Candidate: {format_value(self.value)}, round {self.round + 1}, validation accuracy {accuracies} %>"

    @property
    def accuracies(self) -> list[float]:
        """list of float: on the validation split; 0 for a run that diverged."""
        return [m.validation_accuracy for m in self.measurements]

    @property
    def mean_accuracy(self) -> float:
        """float: mean validation accuracy over the seeds."""
        return sum(self.accuracies) / len(self.measurements)

    @property
    def mean_loss(self) -> float:
        """float: mean validation loss over the seeds; infinity if a run diverged."""
        if self.n_diverged:
            return math.inf
        losses = [m.validation_loss for m in self.measurements if m.validation_loss is not None]
        return sum(losses) / len(losses)

    @property
    def n_diverged(self) -> int:
        """int: number of runs that diverged."""
        return sum(m.state == "diverged" for m in self.measurements)


def rank(measurements: Iterable[Measurement]) -> list[Candidate]:
    """Rank the values by mean validation accuracy, then by validation loss; the best comes first.

    Parameters
    ----------
    measurements : iterable of Measurement

    Returns
    -------
    list of Candidate
    """
    groups: dict[tuple[Value, int], list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault((measurement.value, measurement.round), []).append(measurement)
    candidates = [
        Candidate(value, round_, tuple(sorted(group, key=lambda m: m.seed)))
        for (value, round_), group in groups.items()
    ]
    return sorted(candidates, key=lambda c: (-c.mean_accuracy, c.mean_loss, _order(c.value)))


def differences_from_best(ranking: Sequence[Candidate], field: str = "l2") -> list[Difference | None]:
    """How much worse the other candidates are than the best, and how significantly.

    Since the best of many is partly the best by chance, p values are corrected
    for all pairs of candidates: those that are not significantly worse cannot
    be told from the best, which with few seeds says little about them.
    Candidates with a diverged run are left out.

    Parameters
    ----------
    ranking : list of Candidate
        From `rank`.
    field : str, default "l2"
        The setting that was searched. Runs that differ only in a setting that
        is not of the architecture began from the same weights, and are paired.

    Returns
    -------
    list of Difference or None
        The best minus each candidate; None for the best itself, and for those
        that are left out.
    """
    architecture = field in ABBREVIATIONS
    samples = {
        f"{place}": Sample(
            {m.seed: m.validation_accuracy for m in candidate.measurements},
            f"{candidate.value}" if architecture else "",
        )
        for place, candidate in enumerate(ranking)
        if not candidate.n_diverged
    }
    pairs = [("0", place) for place in samples if place != "0"]
    found = {pair.second: pair for pair in differences(samples, pairs, n_comparisons=math.comb(len(samples), 2))}
    return [found.get(f"{place}") for place in range(len(ranking))]


def ranking_table(ranking: Sequence[Candidate], n_seeds: int, field: str = "l2") -> Table:
    """The ranking as a table: mean ± standard deviation over seeds and the 95 % interval of the mean, the best first.

    Parameters
    ----------
    ranking : list of Candidate
    n_seeds : int
        Number of runs that each value should have.
    field : str, default "l2"
        The setting that was searched.

    Returns
    -------
    Table
    """
    from_best = differences_from_best(ranking, field)
    header = [
        symbol(field),
        "round",
        "runs",
        "validation accuracy (%)",
        "95 % interval (%)",
        "training accuracy (%)",
        "validation loss",
        "p against the best",
    ]
    rows = []
    for candidate, difference in zip(ranking, from_best):
        done = [m for m in candidate.measurements if m.state == "complete"]
        count = f"{len(candidate.measurements)}"
        if len(candidate.measurements) < n_seeds:
            count += f" of {n_seeds}"
        if candidate.n_diverged:
            count += f", {candidate.n_diverged} diverged"
        rows.append(
            [
                format_value(candidate.value),
                f"{candidate.round + 1}",
                count,
                format_mean(candidate.accuracies, scale=100),
                "–" if candidate.n_diverged else format_interval(candidate.accuracies, scale=100, limits=ACCURACIES),
                format_mean([m.training_accuracy for m in done if m.training_accuracy is not None], scale=100),
                format_mean([m.validation_loss for m in done if m.validation_loss is not None], decimals=3),
                "best" if candidate is ranking[0] else format_p(difference.p_value) if difference else "–",
            ]
        )
    return Table(header, rows)
