"""Coarse-to-fine search of the weight decay λ, judged on validation data.

A `Search` says what to try, a `Measurement` what one run gave, a `Journal`
keeps the measurements on disk, `run_search` carries the search out, `rank`
orders what was tried. The test split takes no part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from .._checks import check_choice, check_integer, check_real, describe
from .._files import check_path, write_json
from .._typing import JsonDict, StrPath
from ..backend.threads import set_num_threads
from ..randomness import SEARCH, uniform
from ..trainer import DivergenceError
from .data_source import DataSource
from .executors import ExecutorFactory, executor_factory, map_unordered
from .report import format_mean, format_table
from .runs import Run
from .statistics import pooled_deviation

_KIND, _VERSION = "search", 1
_LEADERS = 3
_NARROWING = 3.0


@dataclass(frozen=True)
class Search:
    """What to try: rounds of values of λ, each round from a narrower range.

    The first round draws from ``low`` to ``high``. Each later range is a
    third as wide in log λ as the one before; its middle is the geometric mean
    of the three values that have been best by then, as far as the range stays
    within ``low`` and ``high``. A range is cut into ``n_samples`` equal parts
    in log λ, and one value drawn log-uniformly from each (Bergstra & Bengio,
    "Random search for hyper-parameter optimization", JMLR 2012, stratified).

    Parameters
    ----------
    run : Run
        What to train; its ``l2`` and ``seed`` give way to those of the search.
    low, high : float
        Range of λ, 0 < low < high.
    n_rounds : int, default 3
    n_samples : int, default 8
        Values per round.
    n_seeds : int, default 3
        Runs of each value, with seeds 0, 1, …: the same for all values, so
        that they start from the same networks and see the same batches.
    seed : int, default 0
        Of the draws of λ.

    Raises
    ------
    TypeError, ValueError
        If a setting is refused.

    Examples
    --------
    >>> search = Search(Run("narrow"), low=1e-5, high=1e-1, n_samples=4)
    >>> low, high = search.range(0, [])
    >>> values = search.values(0, [])
    >>> len(values), all(low <= value <= high for value in values)
    (4, True)
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

    def __post_init__(self) -> None:
        if not isinstance(self.run, Run):
            raise TypeError(f"run must be a Run, but got {describe(self.run)}")
        object.__setattr__(self, "low", check_real("low", self.low, 0, None, "(]"))
        object.__setattr__(self, "high", check_real("high", self.high, self.low, None, "(]"))
        for name in ("n_rounds", "n_samples", "n_seeds"):
            check_integer(name, getattr(self, name), 1, 10**6)
        object.__setattr__(self, "seed", check_integer("seed", self.seed, 0))

    @property
    def n_runs(self) -> int:
        """int: of the whole search."""
        return self.n_rounds * self.n_samples * self.n_seeds

    def range(self, round_: int, measurements: Iterable[Measurement]) -> tuple[float, float]:
        """Where round ``round_`` (from 0) looks, given ``measurements`` of the earlier ones: ``(low, high)``."""
        if round_ == 0:
            return self.low, self.high
        low, high = math.log(self.low), math.log(self.high)
        leaders = rank(m for m in measurements if m.round < round_)[:_LEADERS]
        if not leaders:
            raise ValueError(f"measurements must hold those before round {round_}, but got none of them")
        middle = sum(math.log(candidate.l2) for candidate in leaders) / len(leaders)
        half = (high - low) / 2 / _NARROWING**round_
        middle = min(max(middle, low + half), high - half)
        return math.exp(middle - half), math.exp(middle + half)

    def values(self, round_: int, measurements: Iterable[Measurement]) -> list[float]:
        """The values of λ that round ``round_`` tries: a list of floats, ascending."""
        low, high = np.log(self.range(round_, measurements))
        index = np.arange(self.n_samples)
        share = (index + uniform(self.seed, SEARCH, round_, index)) / self.n_samples
        values: list[float] = np.exp(low + share * (high - low)).tolist()
        return values

    def runs(self, round_: int, measurements: Iterable[Measurement]) -> list[Run]:
        """list of Run: every value of the round with every seed, all values with seed 0 first."""
        values = self.values(round_, measurements)
        seeds = range(self.n_seeds)
        return [dataclasses.replace(self.run, l2=l2, seed=seed) for seed in seeds for l2 in values]

    def check(self, image_shape: Sequence[int] = (3, 32, 32), n_classes: int = 10) -> Self:
        """Raise TypeError or ValueError now if a run would be refused later; return the search."""
        for l2 in (self.low, self.high):
            dataclasses.replace(self.run, l2=l2).check(image_shape, n_classes)
        return self

    def to_dict(self) -> JsonDict:
        """dict: the settings as JSON values."""
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "run": self.run.to_dict(),
        }

    @classmethod
    def from_dict(cls, settings: JsonDict) -> Self:
        """The search that `to_dict` described.

        Raises
        ------
        TypeError, ValueError
            If it is not a mapping of a search's settings.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(settings, dict) or set(settings) != known:
            raise ValueError(f"settings must hold a search's settings, but got {describe(settings)}")
        return cls(**{**settings, "run": Run.from_dict(settings["run"])})


@dataclass(frozen=True)
class Measurement:
    """What one run of a search gave, after its last update.

    Attributes
    ----------
    round, l2, seed : int, float, int
        Which run it was; rounds count from 0.
    state : {"complete", "diverged"}
    validation_accuracy : float
        In 0..1; 0 of a run that diverged.
    validation_loss, training_accuracy : float or None
        Mean cross-entropy on the validation data, and accuracy on the
        training images that the run evaluates; None of a run that diverged.
    training_time : float
        Seconds.
    """

    round: int
    l2: float
    seed: int
    state: str
    validation_accuracy: float
    validation_loss: float | None
    training_accuracy: float | None
    training_time: float

    def __post_init__(self) -> None:
        check_integer("round", self.round, 0)
        check_real("l2", self.l2, 0)
        check_integer("seed", self.seed, 0)
        check_choice("state", self.state, ("complete", "diverged"))
        check_real("validation_accuracy", self.validation_accuracy, 0, 1)
        check_real("training_time", self.training_time, 0)
        if self.state == "complete":
            check_real("validation_loss", self.validation_loss, 0)
            check_real("training_accuracy", self.training_accuracy, 0, 1)

    @property
    def key(self) -> tuple[int, float, int]:
        """tuple: what tells the runs of a search apart."""
        return self.round, self.l2, self.seed


def describe_splits(source: DataSource) -> dict[str, str]:
    """What a search says about the data of a `DataSource`: the test split is not looked at.

    Returns
    -------
    dict
        ``name``, and of the training and validation split the SHA-256.
    """
    data = source.load()
    return {"name": data.name, "train": data.train.fingerprint(), "validation": data.validation.fingerprint()}


def measure(run: Run, source: DataSource, about: Mapping[str, str], threads: int | None = None) -> JsonDict:
    """Train as described and look at the validation split at the end: a search's unit of work.

    Parameters
    ----------
    run : Run
    source : DataSource
        Loaded once in each process.
    about : dict
        What `describe_splits` says of the data meant; here they may be others.
    threads : int, optional
        For `set_num_threads`, in the process where this runs.

    Returns
    -------
    dict
        The fields of a `Measurement` from ``state`` on.

    Raises
    ------
    ValueError, TypeError
        If a setting is refused, or the data here are not those meant.
    """
    if threads is not None:
        set_num_threads(threads)
    data, found = source.load(), describe_splits(source)
    if found != about:
        raise ValueError(f"source must be the search's data, {about['name']}, but a worker got others")
    trainer = run.trainer(data.train.images.shape[1:], len(data.class_names))
    figures: dict[str, float | None] = {"validation_accuracy": 0.0, "validation_loss": None, "training_accuracy": None}
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
        for name, key in zip(figures, ("acc_val", "loss_val", "acc_train")):
            figures[name] = float(history[key][-1])
    return {"state": state, **figures, "training_time": float(trainer.history.training_time)}


class Journal:
    """The measurements of a search, and the file that holds them: whole after each one.

    Parameters
    ----------
    path : path-like
        A JSON file; written at the first measurement.
    search : Search
    about : dict
        Of the data, from `describe_splits`.
    resume : bool, default False
        Take over what the file holds. It must be of the same search, rounds
        apart, of which there may now be more, and of the same data.
    overwrite : bool, default False
        Begin anew; the first measurement replaces what the file holds.

    Raises
    ------
    ValueError
        If there is a file already and it is not to be gone on with, is of
        another search or other data, or is damaged.
    """

    def __init__(
        self, path: StrPath, search: Search, about: Mapping[str, str], resume: bool = False, overwrite: bool = False
    ) -> None:
        self.path: Path = check_path("path", path)
        self.search = search
        self.about = about
        self._held: dict[tuple[int, float, int], Measurement] = {}
        if overwrite or not self.path.exists():
            return
        if not resume:
            raise ValueError(f"path must be a new file unless resume or overwrite is given, but {self.path} exists")
        for measurement in self._read():
            self._held[measurement.key] = measurement

    @property
    def measurements(self) -> list[Measurement]:
        """list of Measurement: in order of rounds, seeds and λ, whatever order they came in."""
        return sorted(self._held.values(), key=lambda m: (m.round, m.seed, m.l2))

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def add(self, measurement: Measurement) -> None:
        """Take a measurement in and write the file, atomically.

        Raises
        ------
        ValueError
            If it is held already: nothing counts twice.
        OSError
            If the file cannot be written; what stood there stays.
        """
        if measurement.key in self._held:
            raise ValueError(f"measurement must be a new one, but got {measurement.key} again")
        held = {**self._held, measurement.key: measurement}
        write_json(
            self.path,
            {
                "kind": _KIND,
                "version": _VERSION,
                "search": self.search.to_dict(),
                "data": self.about,
                "measurements": [dataclasses.asdict(m) for m in held.values()],
            },
        )
        self._held = held

    def _read(self) -> list[Measurement]:
        try:
            text = self.path.read_text(encoding="utf-8")
            document = json.loads(text)
            if document["kind"] != _KIND or document["version"] != _VERSION:
                raise ValueError(f"it is of kind {document['kind']!r}, version {document['version']!r}")
            search = Search.from_dict(document["search"])
            about = {**document["data"], "name": self.about["name"]}  # names change; fingerprints tell
            measurements = [Measurement(**fields) for fields in document["measurements"]]
            if len({m.key for m in measurements}) < len(measurements):
                raise ValueError("it holds a measurement twice")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"path must be a search's journal, but {self.path} is damaged: {error}") from None
        n_rounds = self.search.n_rounds
        if dataclasses.replace(search, n_rounds=n_rounds) != self.search or search.n_rounds > n_rounds:
            raise ValueError(f"path must be of the same search, but {self.path} is of other settings")
        if about != self.about:
            raise ValueError(f"path must be of a search on the same data, but {self.path} is of other data")
        return measurements


def run_search(
    search: Search,
    source: DataSource,
    journal: Journal,
    make_executor: ExecutorFactory = executor_factory("serial"),
    threads: int | None = None,
) -> Iterator[Measurement]:
    """Carry out what of a search the journal does not hold yet.

    Parameters
    ----------
    search : Search
    source : DataSource
    journal : Journal
        Every measurement is in its file before it is yielded.
    make_executor : callable, optional
        What opens an executor, see `executor_factory`; runs go one after
        another in this thread unless given.
    threads : int, optional
        For each run; as many as there are unless given.

    Yields
    ------
    Measurement
        The new ones, as they come.

    Raises
    ------
    ChildProcessError
        If workers died again and again (see `cyconv.experiments.executors.map_unordered`).
    ValueError
        If a worker finds other data than those of the journal.
    OSError
        If the journal cannot be written.
    """
    for round_ in range(search.n_rounds):
        runs = search.runs(round_, journal.measurements)
        missing = [run for run in runs if (round_, run.l2, run.seed) not in journal]
        calls = [(run, source, journal.about, threads) for run in missing]
        with contextlib.closing(map_unordered(measure, calls, make_executor)) as results:
            for (run, *_), figures in results:
                measurement = Measurement(round_, run.l2, run.seed, **figures)
                journal.add(measurement)
                yield measurement


@dataclass(frozen=True)
class Candidate:
    """A value of λ and its runs, in order of their seeds."""

    l2: float
    round: int
    measurements: tuple[Measurement, ...]

    @property
    def accuracies(self) -> list[float]:
        """list of float: on the validation split, 0 of a run that diverged."""
        return [m.validation_accuracy for m in self.measurements]

    @property
    def mean_accuracy(self) -> float:
        """float: mean validation accuracy over the seeds."""
        return sum(self.accuracies) / len(self.measurements)

    @property
    def mean_loss(self) -> float:
        """float: on the validation split; infinity where a run diverged."""
        if self.n_diverged:
            return math.inf
        losses = [m.validation_loss for m in self.measurements if m.validation_loss is not None]
        return sum(losses) / len(losses)

    @property
    def n_diverged(self) -> int:
        """int: runs that diverged."""
        return sum(m.state == "diverged" for m in self.measurements)


def rank(measurements: Iterable[Measurement]) -> list[Candidate]:
    """Values of λ, the best first: by mean validation accuracy, then by validation loss.

    Parameters
    ----------
    measurements : iterable of Measurement

    Returns
    -------
    list of Candidate
    """
    groups: dict[tuple[float, int], list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault((measurement.l2, measurement.round), []).append(measurement)
    candidates = [
        Candidate(l2, round_, tuple(sorted(group, key=lambda m: m.seed))) for (l2, round_), group in groups.items()
    ]
    return sorted(candidates, key=lambda c: (-c.mean_accuracy, c.mean_loss, c.l2))


def within_noise(ranking: Sequence[Candidate]) -> list[Candidate] | None:
    """Which candidates are no worse than the best by more than noise.

    Noise is two standard errors of a difference of means, 2 s √(1/n_a + 1/n_b),
    s being the standard deviation over seeds, pooled over all candidates none
    of whose runs diverged. The best of many is best by luck as well: read the
    answer as the least that cannot be told apart.

    Parameters
    ----------
    ranking : list of Candidate
        From `rank`.

    Returns
    -------
    list of Candidate or None
        The best among them; None where no candidate has two runs.
    """
    deviation = pooled_deviation([c.accuracies for c in ranking if not c.n_diverged])
    if deviation is None:
        return None
    best = ranking[0]
    return [
        c
        for c in ranking
        if best.mean_accuracy - c.mean_accuracy
        <= 2 * deviation * math.sqrt(1 / len(best.measurements) + 1 / len(c.measurements))
    ]


def ranking_table(ranking: Sequence[Candidate], n_seeds: int, markdown: bool = False) -> str:
    """The ranking as text: mean ± standard deviation over seeds, the best first.

    Parameters
    ----------
    ranking : list of Candidate
    n_seeds : int
        Runs that each value should have.
    markdown : bool, default False

    Returns
    -------
    str
    """
    close = within_noise(ranking)
    header = [
        "λ",
        "round",
        "runs",
        "validation accuracy (%)",
        "training accuracy (%)",
        "validation loss",
        "within noise of the best",
    ]
    rows = []
    for candidate in ranking:
        done = [m for m in candidate.measurements if m.state == "complete"]
        count = f"{len(candidate.measurements)}"
        if len(candidate.measurements) < n_seeds:
            count += f" of {n_seeds}"
        if candidate.n_diverged:
            count += f", {candidate.n_diverged} diverged"
        rows.append(
            [
                f"{candidate.l2:.3g}",
                f"{candidate.round + 1}",
                count,
                format_mean(candidate.accuracies, scale=100),
                format_mean([m.training_accuracy for m in done if m.training_accuracy is not None], scale=100),
                format_mean([m.validation_loss for m in done if m.validation_loss is not None], decimals=3),
                "–" if close is None else "yes" if candidate in close else "no",
            ]
        )
    return format_table(header, rows, markdown)
