"""A training run described as data, and what comes of it.

A `Run` holds every setting that decides a run's numbers, as values that JSON
can hold; `run_experiment` carries it out and gives a `Result`; `run_all` does
so for many, one after another or several at a time in other processes. Both
are picklable and small, so that they travel to other processes and machines;
the data stay behind, described by a `DataSource`.
"""

import contextlib
import dataclasses
import hashlib
import multiprocessing
import re
import warnings
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ._checks import check_choice, check_flag, check_integer, describe
from ._files import check_path, load_arrays, save_arrays
from ._progress import is_watched
from ._signals import Interrupted
from ._typing import FloatArray, JsonDict, Sizes, StrPath
from .augmentation import NO_AUGMENTATION, Augmentation
from .datasets import Dataset, load_cifar10, make_shapes
from .ensemble import Ensemble
from .executors import Opener, executor_opener, spread
from .history import CURVES, History
from .network import Network
from .schedule import CyclicSchedule
from .threads import set_num_threads
from .trainer import CyclicTrainer, DivergenceError

_KIND, _VERSION = "run", 1
_STATES = ("complete", "interrupted", "diverged")


@dataclass(frozen=True)
class Run:
    """Every setting of one training run.

    Parameters
    ----------
    name : str
        What the run is called in file names: letters, digits, ``. _ -``. Runs
        that differ in the seed alone share it.
    label : str
        What it is called in tables and pictures; the name unless given.
    filter_size, n_filters, n_hidden, dtype
        Of the `Network`; a tuple of filter sizes puts branches side by side,
        a tuple of hidden widths layers on top of each other.
    eta_min, eta_max, step_size, n_cycles, growth, eta_max_decay
        Of the `CyclicSchedule`; ``step_size`` is half the first cycle, in update steps.
    batch_size, l2, label_smoothing, momentum, dropout, snapshots
        Of the `CyclicTrainer`.
    flip, shift, cutout
        Of the `Augmentation`; left as they are, there is none.
    seed : int
        For the initialisation, the shuffles, the augmentation and dropout.
    log_every : int
        Update steps from one point of the history to the next.
    n_train_evaluated : int or None
        On how many training images, the first ones, the history's training
        curves are measured; None for all.

    Raises
    ------
    TypeError, ValueError
        If the name could not be part of a file name, or the label is no text. Everything else is
        checked where it is used; `check` does so at once.

    Examples
    --------
    >>> run = Run("narrow", n_filters=3)
    >>> run.schedule().total_steps, run.stem
    (4800, 'narrow-seed0')
    >>> Run.from_dict(run.to_dict()) == run
    True
    """

    name: str
    label: str = ""
    filter_size: int | Sizes = 4
    n_filters: int | Sizes = 10
    n_hidden: int | Sizes = 50
    dtype: str = "float32"
    eta_min: float = 1e-5
    eta_max: float = 1e-1
    step_size: int = 800
    n_cycles: int = 3
    growth: float = 1.0
    eta_max_decay: float = 1.0
    batch_size: int = 100
    l2: float = 0.003
    label_smoothing: float = 0.0
    momentum: float = 0.0
    dropout: float = 0.0
    flip: bool = False
    shift: int = 0
    cutout: int = 0
    snapshots: bool = False
    seed: int = 0
    log_every: int = 100
    n_train_evaluated: int | None = 5000

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            raise ValueError(f"name must be 1 to 100 letters, digits or ._-, but got {describe(self.name)}")
        if not isinstance(self.label, str):
            raise TypeError(f"label must be a text, but got {describe(self.label)}")
        object.__setattr__(self, "label", self.label or self.name)

    @property
    def stem(self) -> str:
        """str: what the names of the run's files hold."""
        return f"{self.name}-seed{self.seed}"

    @property
    def augmentation(self) -> Augmentation | None:
        """Augmentation or None."""
        augmentation = Augmentation(flip=self.flip, shift=self.shift, cutout=self.cutout)
        return None if augmentation == NO_AUGMENTATION else augmentation

    def schedule(self) -> CyclicSchedule:
        """The run's `CyclicSchedule`."""
        return CyclicSchedule(eta_min=self.eta_min, eta_max=self.eta_max, step_size=self.step_size,
                              n_cycles=self.n_cycles, growth=self.growth, eta_max_decay=self.eta_max_decay)

    def network(self, image_shape: Sequence[int] = (3, 32, 32), n_classes: int = 10) -> Network:
        """The run's `Network`, not trained yet."""
        return Network(filter_size=self.filter_size, n_filters=self.n_filters, n_hidden=self.n_hidden,
                       seed=self.seed, dtype=self.dtype, image_shape=image_shape, n_classes=n_classes)

    def trainer(self, image_shape: Sequence[int] = (3, 32, 32), n_classes: int = 10) -> CyclicTrainer:
        """A `CyclicTrainer` with the run's network, before its first step."""
        return CyclicTrainer(
            self.network(image_shape, n_classes), self.schedule(), batch_size=self.batch_size, l2=self.l2,
            label_smoothing=self.label_smoothing, seed=self.seed, momentum=self.momentum,
            dropout=self.dropout, augmentation=self.augmentation, snapshots=self.snapshots,
        )

    def check(self, image_shape: Sequence[int] = (3, 32, 32), n_classes: int = 10) -> Self:
        """Raise TypeError or ValueError now if any setting would be refused later; return the run."""
        self.trainer(image_shape, n_classes)
        check_integer("log_every", self.log_every, 1)
        if self.n_train_evaluated is not None:
            check_integer("n_train_evaluated", self.n_train_evaluated, 1)
        return self

    def to_dict(self) -> JsonDict:
        """dict: the settings as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value
                for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: JsonDict) -> Self:
        """The run that `to_dict` described.

        Raises
        ------
        TypeError, ValueError
            If it is not a mapping of a run's settings.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(settings, dict) or not {"name"} <= set(settings) <= known:
            raise ValueError(f"settings must hold a run's settings, but got {describe(settings)}")
        lists = {key: tuple(value) for key, value in settings.items() if isinstance(value, list)}
        return cls(**{**settings, **lists})


def _architecture(part: int, number: str, filter_size: int, n_filters: int, growth: float) -> Run:
    return Run(
        name=f"part{part}-f{filter_size}-nf{n_filters}",
        label=f"{number}: f={filter_size}, nf={n_filters}",
        filter_size=filter_size,
        n_filters=n_filters,
        growth=growth,
    )


#: DD2424, Assignment 3, Exercise 3: four architectures, three equal cycles.
ARCHITECTURES = (
    _architecture(1, "1", 2, 3, growth=1.0),
    _architecture(1, "2", 4, 10, growth=1.0),
    _architecture(1, "3", 8, 40, growth=1.0),
    _architecture(1, "4", 16, 160, growth=1.0),
)

#: The same exercise's longer training: three doubling cycles.
LONGER_TRAINING = (
    _architecture(2, "2", 4, 10, growth=2.0),
    _architecture(2, "3", 8, 40, growth=2.0),
    _architecture(2, "2 wide", 4, 40, growth=2.0),
)


def over_seeds(runs: Sequence[Run], n_seeds: int, first: int = 0) -> list[Run]:
    """Every run with every seed ``first``, ``first + 1``, …: all runs of one seed, then of the next.

    Examples
    --------
    >>> [run.stem for run in over_seeds([Run("a"), Run("b")], 2)]
    ['a-seed0', 'b-seed0', 'a-seed1', 'b-seed1']
    """
    n_seeds, first = check_integer("n_seeds", n_seeds, 1, 10**6), check_integer("first", first, 0)
    if not isinstance(runs, list | tuple) or not all(isinstance(run, Run) for run in runs):
        raise TypeError(f"runs must be a sequence of Run, but got {describe(runs)}")
    return [dataclasses.replace(run, seed=seed) for seed in range(first, first + n_seeds) for run in runs]


@dataclass(frozen=True)
class DataSource:
    """Where data come from: small, picklable, loaded once in each process that asks.

    Parameters
    ----------
    folder : str or None
        Where CIFAR-10 is, for `load_cifar10`; None draws `make_shapes`.
    protocol : {"full", "batch1"}
        Which images train and validate. Of CIFAR-10, ``"full"``: 49,000 and
        the last 1,000 (the assignment's); ``"batch1"``: batch 1 and batch 2.
        Of the shapes, 10,000 train and 2,000 test in both, and 1,000 or 10,000 validate.
    small : bool, default False
        Of the shapes a tenth of that.

    Examples
    --------
    >>> data = DataSource(small=True).load()
    >>> data.name, len(data.train), data is DataSource(small=True).load()
    ('shapes (synthetic)', 1000, True)
    """

    folder: str | None = None
    protocol: str = "full"
    small: bool = False

    def __init__(self, folder: StrPath | None = None, protocol: str = "full", small: bool = False) -> None:
        check_choice("protocol", protocol, ("full", "batch1"))
        check_flag("small", small)
        object.__setattr__(self, "folder", None if folder is None else str(check_path("folder", folder)))
        object.__setattr__(self, "protocol", protocol)
        object.__setattr__(self, "small", small)

    def load(self) -> Dataset:
        """The `Dataset`; the same object for the same source, not a copy."""
        return _load(self)


@lru_cache(maxsize=1)
def _load(source: DataSource) -> Dataset:
    if source.folder is None:
        sizes = (10000, 1000 if source.protocol == "full" else 10000, 2000)
        return make_shapes(*(size // 10 if source.small else size for size in sizes))
    train, validation = ((1, 2, 3, 4, 5), None) if source.protocol == "full" else ((1,), (2,))
    with warnings.catch_warnings():
        if multiprocessing.parent_process() is not None:
            warnings.simplefilter("ignore")  # what there is to say of the files, one process says
        return load_cifar10(Path(source.folder), train_batches=train, validation_batches=validation)


def describe_data(data: Dataset) -> JsonDict:
    """What a results file says about a `Dataset`.

    Returns
    -------
    dict
        ``name``, ``n_train``, ``n_validation``, ``n_test``, ``class_names``,
        and ``fingerprint``: the SHA-256 over the three splits'.
    """
    splits = (data.train, data.validation, data.test)
    fingerprints = "".join(split.fingerprint() for split in splits)
    return {
        "name": data.name,
        "n_train": len(data.train),
        "n_validation": len(data.validation),
        "n_test": len(data.test),
        "class_names": list(data.class_names),
        "fingerprint": hashlib.sha256(fingerprints.encode()).hexdigest(),
    }


@dataclass(eq=False)
class Result:
    """What came of a `Run`.

    Attributes
    ----------
    run : Run
    data : dict
        What it ran on, as `describe_data` puts it.
    history : History
    n_parameters : int
    filters : list of ndarray, each (n_filters, channels, f, f)
        The first layer's, at the end: one array per branch.
    state : {"complete", "interrupted", "diverged"}
    message : str
        Why it did not complete; else empty.
    test : dict or None
        ``loss``, ``accuracy`` and, of a run with snapshots,
        ``ensemble_accuracy``; the test split is read once, at the end of a
        complete run, and not at all in another.
    confusion : ndarray of int64, shape (n_classes, n_classes), or None
        Test images of the row's class that were taken for the column's.
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

    @property
    def complete(self) -> bool:
        """bool: whether the run reached its end."""
        return self.state == "complete"

    @property
    def updates_per_second(self) -> float:
        """float: update steps per second of update time, evaluation not counted."""
        steps = self.history.last_step or 0
        return steps / self.history.update_time if self.history.update_time > 0 else 0.0

    def document(self) -> JsonDict:
        """dict: everything but the filters, as JSON values."""
        return {
            **self._header(),
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "updates_per_second": self.updates_per_second,
            "history": self.history.to_dict(),
        }

    def _header(self) -> JsonDict:
        return {"run": self.run.to_dict(), "data": self.data, "n_parameters": self.n_parameters,
                "state": self.state, "message": self.message, "test": self.test}

    def save(self, path: StrPath) -> None:
        """Write the result as one ``.npz``, atomically and without pickle.

        Raises
        ------
        OSError
            If it cannot be written; what stood at ``path`` stays.
        """
        arrays = {f"history.{key}": self.history[key] for key in CURVES}
        arrays |= {f"filters.{i}": array for i, array in enumerate(self.filters)}
        if self.confusion is not None:
            arrays["confusion"] = self.confusion
        save_arrays(path, _KIND, _VERSION, {**self._header(), "history": self.history.header()}, arrays)

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not such a file, is damaged or from a newer version.
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
            )
            if result.complete and not {"loss", "accuracy"} <= set(result.test or ()):
                raise ValueError("it is complete, but holds no test accuracy")
            return result
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"path must be a cyconv run file, but {path} is damaged: {error}") from None


class RunInterrupted(Interrupted):
    """A signal ended an experiment.

    Attributes
    ----------
    signum : int
        The signal's number.
    result : Result or None
        What there was by then of the run that it met, if it met one.
    """

    def __init__(self, message: str, signum: int | None = None, result: Result | None = None) -> None:
        super().__init__(message)
        self.signum = signum
        self.result = result


@dataclass(frozen=True)
class RunFiles:
    """The files that a run keeps in an output folder.

    Examples
    --------
    >>> RunFiles("results", Run("narrow")).history.name
    'history-narrow-seed0.csv'
    """

    folder: Path
    run: Run

    #: Patterns of all the names below, for whoever clears a folder.
    PATTERNS = ("run-*.npz", "checkpoint-*.npz", "network-*.npz", "history-*.csv")

    def __init__(self, folder: StrPath, run: Run) -> None:
        object.__setattr__(self, "folder", check_path("folder", folder))
        object.__setattr__(self, "run", run)

    @property
    def result(self) -> Path:
        """Path: the `Result`; once it is there, the run is finished."""
        return self.folder / f"run-{self.run.stem}.npz"

    @property
    def checkpoint(self) -> Path:
        """Path: the trainer's checkpoint, while the run is not finished."""
        return self.folder / f"checkpoint-{self.run.stem}.npz"

    @property
    def network(self) -> Path:
        """Path: the trained `Network`."""
        return self.folder / f"network-{self.run.stem}.npz"

    @property
    def history(self) -> Path:
        """Path: the `History` as CSV."""
        return self.folder / f"history-{self.run.stem}.csv"


def run_experiment(run: Run, data: Dataset | DataSource, folder: StrPath | None = None, resume: bool = False,
                   progress: bool | None = None, threads: int | None = None) -> Result:
    """Train as described, then read the test split once.

    Parameters
    ----------
    run : Run
    data : Dataset or DataSource
    folder : path-like, optional
        An existing folder for the run's files (see `RunFiles`): checkpoints
        while it runs; history, network and result at its end.
    resume : bool, default False
        Take what ``folder`` has: a finished run is not run again, an
        unfinished one goes on from its checkpoint.
    progress : bool, optional
        Whether to show a progress bar under the run's name; only in a notebook
        or when stderr is a terminal unless given.
    threads : int, optional
        For `set_num_threads`, in the process where this runs.

    Returns
    -------
    Result
        Also when training diverged; its state says so.

    Raises
    ------
    RunInterrupted
        On SIGINT (Ctrl-C), SIGTERM and the other signals that end `CyclicTrainer.fit`, with the partial result.
    ValueError, TypeError
        If a setting is refused, or the files in ``folder`` are of another
        run or of other data.
    OSError
        If a file cannot be written.
    """
    if threads is not None:
        set_num_threads(threads)
    data = data.load() if isinstance(data, DataSource) else data
    if not isinstance(data, Dataset):
        raise TypeError(f"data must be a Dataset or a DataSource, but got {describe(data)}")
    files = None if folder is None else RunFiles(check_path("folder", folder), run)
    about = describe_data(data)
    if resume and files and files.result.is_file():
        return _finished(files, about)
    if resume and files and files.checkpoint.is_file():
        trainer = _resumed(files, data)
    else:
        trainer = run.trainer(data.train.images.shape[1:], len(data.class_names))
    result = Result(run, about, trainer.history, trainer.network.n_parameters, _filters(trainer.network))
    if progress is None:
        progress = is_watched()
    try:
        trainer.fit(
            data.train, data.validation, log_every=run.log_every, n_train_evaluated=run.n_train_evaluated,
            progress=progress and f"{run.label}, seed {run.seed}",
            checkpoint=None if files is None else files.checkpoint,
            checkpoint_every=None if files is None else max(500, trainer.schedule.total_steps // 20),
        )
    except Interrupted as stop:
        _note_end(result, trainer, files, "interrupted", str(stop))
        raise RunInterrupted(str(stop), stop.signum, result) from stop
    except DivergenceError as error:
        _note_end(result, trainer, files, "diverged", str(error))
    else:
        result.test, result.confusion = _read_test(trainer, data)
        _note_end(result, trainer, files, "complete", "")
    if files:
        if result.complete:
            trainer.network.save(files.network)
        result.save(files.result)
        if result.complete:
            files.checkpoint.unlink(missing_ok=True)
    return result


def run_all(runs: Iterable[Run], data: Dataset | DataSource, opened: Opener = executor_opener("serial"),
            **options: Any) -> Generator[Result, None, None]:
    """Carry out many runs; yield each `Result` as it is there.

    Parameters
    ----------
    runs : iterable of Run
        No two of the same name and seed.
    data : Dataset or DataSource
        For other processes a `DataSource`: so the images do not travel.
    opened : callable, optional
        What opens an executor, see `executor_opener`; runs go one after
        another in this thread unless given.
    **options
        For `run_experiment`.

    Yields
    ------
    Result
        In the order of ``runs`` in this thread; as they are there from an executor.

    Raises
    ------
    ValueError
        If two runs would share their files.
    ChildProcessError
        If workers died again and again (see `cyconv.executors.spread`).
    RuntimeError
        If a script starts processes without a main guard (see `executor_opener`).

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> runs = over_seeds([Run("tiny", n_filters=2, n_hidden=4, step_size=2, n_cycles=1)], 2)
    >>> results = run_all(runs, DataSource(small=True), ThreadPoolExecutor, progress=False, threads=1)
    >>> sorted(result.run.seed for result in results)
    [0, 1]
    """
    runs = list(runs)
    stems = [run.stem for run in runs]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise ValueError(f"runs must differ in name or seed, but got {twice!r} more than once")
    return _results(runs, data, opened, options)


def _results(runs: list[Run], data: Dataset | DataSource, opened: Opener,
             options: dict[str, Any]) -> Generator[Result, None, None]:
    calls = [(run, data) for run in runs]
    with contextlib.closing(spread(partial(run_experiment, **options), calls, opened)) as results:
        for _, result in results:
            yield result


def longest_first(runs: Iterable[Run]) -> list[Run]:
    """The runs by what their updates take, by estimate: begun so, several at a time end at about the same time.

    Examples
    --------
    >>> [run.name for run in longest_first([Run("small", n_filters=3), Run("large", n_filters=30)])]
    ['large', 'small']
    """
    return sorted(runs, key=_length, reverse=True)


def _length(run: Run) -> int:
    """How often weights meet inputs."""
    network = run.network()
    _, height, width = network.image_shape
    per_image = sum(array.size * (height * width // array.shape[-1] ** 2 if array.ndim == 4 else 1)
                    for array in network.parameters.values())
    return run.schedule().total_steps * run.batch_size * per_image


def _finished(files: RunFiles, about: JsonDict) -> Result:
    """The result in the folder, if it is this run's on these data."""
    result = Result.load(files.result)
    if result.run != files.run or result.data["fingerprint"] != about["fingerprint"]:
        what = "settings" if result.run != files.run else "data"
        raise ValueError(f"folder must hold runs of the same {what}, but {files.result} is of other {what}")
    return result


def _resumed(files: RunFiles, data: Dataset) -> CyclicTrainer:
    """The trainer of the checkpoint in the folder, if it is this run's."""
    trainer = CyclicTrainer.resume(files.checkpoint)
    fresh = files.run.trainer(data.train.images.shape[1:], len(data.class_names))
    if trainer.settings != fresh.settings:
        raise ValueError(
            f"folder must hold runs of the same settings, but {files.checkpoint} is of other settings"
        )
    return trainer


def _filters(network: Network) -> list[FloatArray]:
    names = [name for name in network.parameters if name.startswith("conv.") and name.endswith("weight")]
    return [np.array(network.parameters[name]) for name in names]


def _note_end(result: Result, trainer: CyclicTrainer, files: RunFiles | None, state: str, message: str) -> None:
    result.state, result.message = state, message
    result.filters = _filters(trainer.network)
    if files:
        result.history.to_csv(files.history, data_set=result.data["name"])


def _read_test(trainer: CyclicTrainer, data: Dataset) -> tuple[dict[str, float], NDArray[np.int64]]:
    """Loss and accuracy on the test split, and the confusion matrix: its one reading."""
    network, test = trainer.network, data.test
    source = network.prepare(test.images, test.labels, normalizer=network.normalizer)
    loss, _, accuracy = network.evaluate(source)
    measured = {"loss": float(loss), "accuracy": float(accuracy)}
    n_classes = len(data.class_names)
    confusion = np.bincount(test.labels * n_classes + network.predict(source), minlength=n_classes**2)
    if trainer.snapshots:
        ensemble = Ensemble.from_snapshots(network, trainer.snapshots)
        measured["ensemble_accuracy"] = ensemble.evaluate(source).accuracy
    return measured, confusion.reshape(n_classes, n_classes).astype(np.int64)
