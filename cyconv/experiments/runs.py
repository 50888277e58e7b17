"""Descriptions of training runs: every setting that affects the results, as JSON values."""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from .._checks import check_choice, check_flag, check_integer, describe
from .._typing import JsonDict, Sizes
from ..augmentation import NO_AUGMENTATION, Augmentation
from ..network import Network
from ..optimizers import SGD, AdamW, Optimizer
from ..schedules import (
    BuiltinSchedule,
    ConstantSchedule,
    CosineSchedule,
    CyclicSchedule,
    OneCycleSchedule,
    Schedule,
    WarmupSchedule,
)
from ..trainer import CyclicTrainer
from ..view_average import ViewAverage, count_views

CYCLE_MODES = ("triangular", "triangular2", "exp_range")
MODES = (*CYCLE_MODES, "cosine", "one_cycle", "constant")
OPTIMIZER_NAMES = ("sgd", "nesterov", "adamw")
_NEW_FIELDS = (
    "mode",
    "gamma",
    "warmup",
    "optimizer",
    "weight_decay",
    "views",
    "whitening",
    "anneal",
)  # so that folders of 0.1.0 can be resumed
_IDENTITY = ("name", "label", "seed")
ABBREVIATIONS = {"filter_size": "f", "n_filters": "nf", "n_hidden": "nh"}
_SYMBOLS = {
    "l2": "λ",
    "eta_min": "η_min",
    "eta_max": "η_max",
    "label_smoothing": "ε",
    "momentum": "μ",
}
_MAX_NAME = 100


def symbol(field: str) -> str:
    """How tables and figures call a setting: λ for ``"l2"``."""
    return _SYMBOLS.get(field, field.replace("_", " "))


class _Derived(str):
    """A name or label that follows from a run's settings; `dataclasses.replace` derives it again.

    ``start`` comes first, and the settings in ``usual`` go without saying, as
    those at their defaults do.
    """

    start: str
    usual: Mapping[str, Any]

    def __new__(cls, text: str = "", start: str = "", usual: Mapping[str, Any] = MappingProxyType({})) -> Self:
        derived = super().__new__(cls, text)
        derived.start = start
        derived.usual = dict(usual)
        return derived

    def followed_by(self, settings: str) -> Self:
        """The same name or label with other settings."""
        return type(self)(self.start + settings, self.start, self.usual)


@dataclass(frozen=True)
class Run:
    """Every setting of one training run.

    Defaults are those of `Network`, `CyclicSchedule`, `CyclicTrainer` and
    `CyclicTrainer.fit` where these have any, except ``n_train_evaluated``.

    Parameters
    ----------
    name : str, optional
        Name of the run in file names: letters, digits, ``. _ -``. Runs that
        differ only in their seed share a name. By default it is derived from
        the settings, also when `dataclasses.replace` has changed them.
    label : str, optional
        Name of the run in tables and figures; by default ``name``, or the
        settings if they give the name.
    filter_size, n_filters, n_hidden, dtype
        Settings of the `Network`. A tuple of filter sizes creates parallel
        branches, a tuple of hidden widths several hidden layers.
    eta_min, eta_max, step_size, n_cycles, growth, eta_max_decay
        Settings of the `CyclicSchedule`; ``step_size`` is half the first
        cycle, in update steps.
    mode : {"triangular", "triangular2", "exp_range", "cosine", "one_cycle", "constant"}
        The first three are modes of the `CyclicSchedule`; the others are a
        `CosineSchedule` with the same cycles, and a `OneCycleSchedule` and a
        `ConstantSchedule` (at ``eta_max``) with the same number of steps.
    anneal : {"cos", "linear"}
        Shape of the rise and the fall in the mode ``"one_cycle"``.
    gamma : float
        Decay of the ``"exp_range"`` mode.
    warmup : int
        Update steps of a `WarmupSchedule` in front; none by default.
    optimizer : {"sgd", "nesterov", "adamw"}
        `SGD` with ``momentum``, the same with Nesterov's, or `AdamW` with
        ``weight_decay``.
    batch_size, l2, label_smoothing, momentum, dropout, snapshots, whitening
        Settings of the `CyclicTrainer`.
    flip, shift, cutout
        Settings of the `Augmentation`; there is none by default.
    views : bool
        Whether the test accuracy is measured with a `ViewAverage` as well, over
        all the views that ``flip`` and ``shift`` allow.
    seed : int
        Seed of the initialisation, the shuffles, augmentation and dropout.
    log_every : int
        Number of update steps between points of the history.
    n_train_evaluated : int or None
        The training curves of the history are measured on this many training
        images, the first ones; None for all of them, which takes longer than
        to train on CIFAR-10.

    Raises
    ------
    TypeError, ValueError
        If the name cannot be part of a file name, or the label is not a
        string. All other settings are checked when they are used, or at once
        by `check`.

    Examples
    --------
    >>> run = Run("narrow", n_filters=3)
    >>> run.schedule().total_steps, run.stem
    (11200, 'narrow-seed0')
    >>> Run.from_dict(run.to_dict()) == run
    True
    >>> wide = Run(n_filters=40, l2=0.01)
    >>> wide.name, wide.label, dataclasses.replace(wide, flip=True).name
    ('f4-nf40-l2_0.01', 'f=4, nf=40, λ=0.01', 'f4-nf40-l2_0.01-flip')
    """

    name: str = _Derived()
    label: str = ""
    filter_size: int | Sizes = 4
    n_filters: int | Sizes = 10
    n_hidden: int | Sizes = 50
    dtype: str = "float32"
    eta_min: float = 1e-5
    eta_max: float = 1e-1
    step_size: int = 800
    n_cycles: int = 3
    growth: float = 2.0
    eta_max_decay: float = 1.0
    batch_size: int = 100
    l2: float = 0.0
    label_smoothing: float = 0.0
    momentum: float = 0.0
    dropout: float = 0.0
    flip: bool = False
    shift: int = 0
    cutout: int = 0
    snapshots: bool = False
    seed: int = 0
    log_every: int = 50
    n_train_evaluated: int | None = 5000
    mode: str = "triangular"
    gamma: float = 1.0
    warmup: int = 0
    optimizer: str = "sgd"
    weight_decay: float = 0.0
    views: bool = False
    whitening: float | None = None
    anneal: str = "cos"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) and field.name not in ("name", "label"):
                object.__setattr__(self, field.name, plain(value))
        name, label = self.name, self.label
        if not isinstance(label, str):
            raise TypeError(f"label must be a string, but got {describe(label)}")
        if isinstance(name, _Derived):
            if not label or isinstance(label, _Derived):
                start = label if isinstance(label, _Derived) else _Derived()
                label = start.followed_by(", ".join(_in_words(*item) for item in self._settings(start.usual)))
            name = name.followed_by(_shorten("-".join(_in_file_name(*item) for item in self._settings(name.usual))))
        if not isinstance(name, str) or not re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{_MAX_NAME - 1}}}", name):
            raise ValueError(f"name must be 1 to {_MAX_NAME} letters, digits or ._-, but got {describe(name)}")
        if not isinstance(name, _Derived) and (not label or isinstance(label, _Derived)):
            label = _Derived(name)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "label", label)

    def _settings(self, usual: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Filter size and number of filters, and what is neither at its default nor usual."""
        defaults = {field.name: usual.get(field.name, field.default) for field in dataclasses.fields(self)}
        return [
            (name, getattr(self, name))
            for name, default in defaults.items()
            if name not in _IDENTITY
            and (name in ("filter_size", "n_filters") or _differs(getattr(self, name), default))
        ]

    @property
    def stem(self) -> str:
        """str: the part that the names of the run's files have in common."""
        return f"{self.name}-seed{self.seed}"

    @property
    def architecture(self) -> str:
        """str: what the initial weights depend on beside the seed, such as ``"f=4, nf=10, nh=50"``."""
        return ", ".join(f"{short}={getattr(self, name)}" for name, short in ABBREVIATIONS.items())

    @property
    def augmentation(self) -> Augmentation | None:
        """Augmentation or None: None if no image would be changed."""
        augmentation = Augmentation(flip=self.flip, shift=self.shift, cutout=self.cutout)
        return None if augmentation == NO_AUGMENTATION else augmentation

    @property
    def n_views(self) -> int:
        """int: number of views of a test image if ``views`` is True."""
        return count_views(self.flip, self.shift)

    def schedule(self) -> Schedule:
        """The run's schedule."""
        check_choice("mode", self.mode, MODES)
        if self.mode not in CYCLE_MODES and self.gamma != 1:
            raise ValueError(f"gamma must be 1 unless mode is 'exp_range', but got {self.gamma}")
        if self.mode != "one_cycle" and self.anneal != "cos":
            raise ValueError(f"anneal must be 'cos' unless mode is 'one_cycle', but got {describe(self.anneal)}")
        cycles: dict[str, Any] = {
            "eta_min": self.eta_min,
            "eta_max": self.eta_max,
            "step_size": self.step_size,
            "n_cycles": self.n_cycles,
            "growth": self.growth,
            "eta_max_decay": self.eta_max_decay,
        }
        schedule: BuiltinSchedule
        if self.mode in CYCLE_MODES:
            schedule = CyclicSchedule(**cycles, mode=self.mode, gamma=self.gamma)
        else:
            schedule = CosineSchedule(**cycles)
            if self.mode != "cosine" and self.eta_max_decay != 1:
                raise ValueError(f"eta_max_decay must be 1 with the mode {self.mode!r}, but got {self.eta_max_decay}")
            if self.mode == "one_cycle":
                schedule = OneCycleSchedule(
                    self.eta_max, schedule.total_steps, eta_min=self.eta_min, anneal=self.anneal
                )
            elif self.mode == "constant":
                schedule = ConstantSchedule(self.eta_max, schedule.total_steps)
        return WarmupSchedule(schedule, self.warmup) if check_integer("warmup", self.warmup, 0) else schedule

    def _optimizer(self) -> Optimizer | None:
        """The run's optimiser, but None for SGD, of which the trainer is given the momentum."""
        check_choice("optimizer", self.optimizer, OPTIMIZER_NAMES)
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(f"weight_decay must be 0 unless the optimizer is 'adamw', but got {self.weight_decay}")
        if self.optimizer == "adamw":
            if self.momentum:
                raise ValueError(f"momentum must be 0 with the optimizer 'adamw', but got {self.momentum}")
            return AdamW(weight_decay=self.weight_decay)
        return SGD(self.momentum, nesterov=True) if self.optimizer == "nesterov" else None

    def network(self, image_shape: Sequence[int] = (3, 32, 32), n_classes: int = 10) -> Network:
        """The run's `Network` before training."""
        return Network(
            filter_size=self.filter_size,
            n_filters=self.n_filters,
            n_hidden=self.n_hidden,
            seed=self.seed,
            dtype=self.dtype,
            image_shape=image_shape,
            n_classes=n_classes,
        )

    def update_options(self) -> dict[str, Any]:
        """What decides the updates apart from the schedule and ``whitening``: arguments of `Network.train_steps`.

        `CyclicTrainer` and `lr_range_test` take them as well.
        """
        return {
            "batch_size": self.batch_size,
            "l2": self.l2,
            "label_smoothing": self.label_smoothing,
            "seed": self.seed,
            "momentum": self.momentum if self.optimizer == "sgd" else 0.0,
            "optimizer": self._optimizer(),
            "dropout": self.dropout,
            "augmentation": self.augmentation,
        }

    def trainer(self, image_shape: Sequence[int] = (3, 32, 32), n_classes: int = 10) -> CyclicTrainer:
        """A `CyclicTrainer` with the run's network, before its first step."""
        return CyclicTrainer(
            self.network(image_shape, n_classes),
            self.schedule(),
            snapshots=self.snapshots,
            whitening=self.whitening,
            **self.update_options(),
        )

    def check(self, image_shape: Sequence[int] = (3, 32, 32), n_classes: int = 10) -> Self:
        """Raise TypeError or ValueError if any setting is invalid; return the run."""
        network = self.trainer(image_shape, n_classes).network
        check_integer("log_every", self.log_every, 1)
        if self.n_train_evaluated is not None:
            check_integer("n_train_evaluated", self.n_train_evaluated, 1)
        if check_flag("views", self.views):
            if not (self.flip or self.shift):
                raise ValueError("views must be False without flip or shift, but got True")
            ViewAverage(network, self.flip, self.shift)  # which also needs shifts less than the sides
        return self

    def to_dict(self) -> JsonDict:
        """dict: the settings as JSON values; those that 0.1.0 did not have are left out at their defaults."""
        defaults = {field.name: field.default for field in dataclasses.fields(self) if field.name in _NEW_FIELDS}
        return {
            name: list(value) if isinstance(value, tuple) else str(value) if isinstance(value, str) else value
            for name, value in dataclasses.asdict(self).items()
            if name not in defaults or value != defaults[name]
        }

    @classmethod
    def from_dict(cls, settings: JsonDict) -> Self:
        """The run with the settings that `to_dict` returned.

        Raises
        ------
        TypeError, ValueError
            If ``settings`` is not a mapping of a run's settings.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(settings, dict) or not {"name"} <= set(settings) <= known:
            raise ValueError(f"settings must hold a run's settings, but got {describe(settings)}")
        lists = {key: tuple(value) for key, value in settings.items() if isinstance(value, list)}
        run = cls(**{**settings, **lists})
        derived = dataclasses.replace(run, name=_Derived(), label=_Derived())
        return derived if derived == run else run


def plain(value: Any) -> Any:
    """A setting as Python's own numbers and tuples, which JSON can hold and equal settings share.

    Examples
    --------
    >>> plain(np.int64(3)), plain([50, np.int64(30)]), plain(np.float64)
    (3, (50, 30), 'float64')
    """
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(plain(each) for each in value)
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    if isinstance(value, np.floating):  # also those that Python has no number for
        return float(value)
    return value.item() if isinstance(value, np.generic) else value


def _differs(value: Any, default: Any) -> bool:
    """Whether a setting is not at its default; one that cannot be compared is not, and is refused when it is used."""
    try:
        return bool(value != default)
    except Exception:
        return True


def _in_file_name(field: str, value: Any) -> str:
    """A setting in a derived name."""
    if value is True or isinstance(value, str):
        return field if value is True else value
    name = ABBREVIATIONS.get(field, f"{field}_")
    return name + "_".join(_as_text(each) for each in (value if isinstance(value, tuple) else (value,)))


def _in_words(field: str, value: Any) -> str:
    """A setting in a derived label."""
    if value is True or isinstance(value, str):
        return symbol(field) if value is True else value
    return f"{ABBREVIATIONS.get(field) or symbol(field)}={_as_text(value)}"


def _as_text(value: Any) -> str:
    known = value is None or isinstance(value, bool | int | float | tuple)
    try:
        return str(value).removesuffix(".0") if known else describe(value)
    except Exception:  # an integer of too many digits, or what a tuple holds
        return describe(value)


def _shorten(name: str) -> str:
    """A string that can be a name, and differs from that of another string."""
    short = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
    if short != name or len(name) > _MAX_NAME - 20:
        short = f"{short[: _MAX_NAME - 40]}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:12]}"
    return short


def _architecture(part: int, number: str, filter_size: int, n_filters: int, growth: float) -> Run:
    usual = {"growth": growth, "l2": 0.003, "log_every": 100}
    return Run(
        name=_Derived(start=f"part{part}-", usual=usual),
        label=_Derived(start=f"{number}: ", usual=usual),
        filter_size=filter_size,
        n_filters=n_filters,
        growth=growth,
        l2=0.003,
        log_every=100,
    )


#: The four architectures of Exercise 3, trained for three equal cycles.
ARCHITECTURES = (
    _architecture(1, "1", 2, 3, growth=1.0),
    _architecture(1, "2", 4, 10, growth=1.0),
    _architecture(1, "3", 8, 40, growth=1.0),
    _architecture(1, "4", 16, 160, growth=1.0),
)

#: The longer training of the same exercise: three doubling cycles.
LONGER_TRAINING = (
    _architecture(2, "2", 4, 10, growth=2.0),
    _architecture(2, "3", 8, 40, growth=2.0),
    _architecture(2, "2 wide", 4, 40, growth=2.0),
)


def under_one_name(run: Run, **changes: Any) -> Run:
    """The run with other settings, but with its present name and label.

    Examples
    --------
    >>> under_one_name(Run(), n_filters=3).name
    'f4-nf10'
    """
    return dataclasses.replace(run, name=str(run.name), label=str(run.label), **changes)


def over_seeds(runs: Sequence[Run], n_seeds: int, first: int = 0) -> list[Run]:
    """Every run with the seeds ``first``, ``first + 1``, …: all runs with one seed, then with the next.

    Examples
    --------
    >>> [run.stem for run in over_seeds([Run("a"), Run("b")], 2)]
    ['a-seed0', 'b-seed0', 'a-seed1', 'b-seed1']
    """
    n_seeds, first = check_integer("n_seeds", n_seeds, 1, 10**6), check_integer("first", first, 0)
    if not isinstance(runs, list | tuple) or not all(isinstance(run, Run) for run in runs):
        raise TypeError(f"runs must be a sequence of Run, but got {describe(runs)}")
    return [dataclasses.replace(run, seed=seed) for seed in range(first, first + n_seeds) for run in runs]


def longest_first(runs: Iterable[Run]) -> list[Run]:
    """The runs in order of decreasing estimated duration.

    Workers that share runs in this order finish at about the same time.

    Examples
    --------
    >>> [run.name for run in longest_first([Run("small", n_filters=3), Run("large", n_filters=30)])]
    ['large', 'small']
    """
    return sorted(runs, key=n_multiplications, reverse=True)


def n_multiplications(run: Run) -> float:
    """About the number of products of a weight and an input in all forward passes on images like CIFAR-10's."""
    channels, height, width = 3, 32, 32
    sizes, filters = np.broadcast_arrays(np.atleast_1d(run.filter_size), np.atleast_1d(run.n_filters))
    convolution = channels * height * width * filters.sum()
    widths = [(filters * height * width / sizes**2).sum(), *np.atleast_1d(run.n_hidden), 10]
    per_image = convolution + sum(n_in * n_out for n_in, n_out in pairwise(widths))
    return float(run.schedule().total_steps * run.batch_size * per_image)
