"""Learning rates as pure functions of the update step.

Every schedule is a dataclass: its fields are its settings, and its formula is
the method ``_rates``. A user-defined schedule needs the four members of
`Schedule`, but no base class.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ._checks import as_array, check_array, check_choice, check_finite, check_integer, check_real, describe
from ._typing import IntArray, JsonDict

_MAX_STEPS = 2**53  # every step up to here is exact in float64
_MAX_CYCLES = 100_000


@runtime_checkable
class Schedule(Protocol):
    """Interface of a learning-rate schedule.

    Examples
    --------
    >>> import numpy as np
    >>> class Staircase:
    ...     total_steps, boundaries = 300, np.array([100, 200, 300])
    ...     settings = {"rate": 0.1, "factor": 0.1}
    ...     def __call__(self, step):
    ...         return 0.1 * 0.1 ** (step // 100)
    >>> isinstance(Staircase(), Schedule)
    True
    """

    @property
    def total_steps(self) -> int:
        """int: number of update steps, at least one."""

    @property
    def boundaries(self) -> IntArray:
        """ndarray of int: the steps at which cycles end, in ascending order; `total_steps` is the last."""

    @property
    def settings(self) -> JsonDict:
        """dict: the parameters that distinguish it from others of its class, as JSON values."""

    def __call__(self, step: Any, /) -> Any:
        """Learning rate of the update at ``step``, an int in 0..total_steps; finite and not negative.

        The learning rate at ``total_steps`` is logged at the end of a run, but no update uses it.
        """


class BuiltinSchedule:
    """A schedule whose settings are the fields of a frozen dataclass and whose formula is `_rates`."""

    total_steps: int

    @property
    def boundaries(self) -> NDArray[np.int64]:
        """ndarray of int64, shape (n_cycles,): the steps at which the cycles end; one at `total_steps` by default."""
        return np.array([self.total_steps])

    @property
    def settings(self) -> JsonDict:
        """dict: the constructor's arguments, as JSON values."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    @overload
    def __call__(self, step: int | np.integer) -> float: ...

    @overload
    def __call__(self, step: Sequence[int] | IntArray) -> NDArray[np.float64]: ...

    def __call__(self, step: Any) -> float | NDArray[np.float64]:
        """Learning rate of the update at ``step``.

        Parameters
        ----------
        step : int or array_like of int
            ``0 <= step <= total_steps``.

        Returns
        -------
        float or ndarray of float64
            A float if ``step`` is an int, otherwise an array of the same shape.

        Raises
        ------
        TypeError
            If ``step`` is not an integer or an array of integers.
        ValueError
            If a step lies outside 0..total_steps.
        MemoryError
            If ``step`` has more elements than fit in memory.
        """
        steps = as_array("step", step)
        if steps.ndim == 0:
            return float(self._rates(np.array([check_integer("step", step, 0, self.total_steps)]))[0])
        if steps.dtype.kind not in "iu":
            raise TypeError(f"step must be an integer or an array of integers, but got {describe(steps)}")
        if steps.size and (steps.min() < 0 or steps.max() > self.total_steps):
            bad = steps.min() if steps.min() < 0 else steps.max()
            raise ValueError(f"step must lie in 0..{self.total_steps}, but got {bad}")
        return self._rates(steps.astype(np.int64))

    def _rates(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Learning rates at steps in 0..total_steps."""
        raise NotImplementedError

    def _set(self, **fields: Any) -> None:
        """Set fields of the frozen dataclass to validated values, in `__post_init__`."""
        for name, value in fields.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class _Cycles(BuiltinSchedule):
    """Base class of schedules with cycles."""

    eta_min: float
    eta_max: float
    step_size: int
    n_cycles: int
    growth: float = 2.0
    eta_max_decay: float = 1.0

    def __post_init__(self) -> None:
        self._set(
            eta_min=check_real("eta_min", self.eta_min, 0),
            eta_max=check_real("eta_max", self.eta_max, 0),
            step_size=check_integer("step_size", self.step_size, 1, _MAX_STEPS),
            n_cycles=check_integer("n_cycles", self.n_cycles, 1, _MAX_CYCLES),
            growth=check_real("growth", self.growth, 0, interval="()"),
            eta_max_decay=check_real("eta_max_decay", self.eta_max_decay, 0, 1, "(]"),
        )
        if self.eta_max < self.eta_min:
            raise ValueError(f"eta_max must be at least eta_min ({self.eta_min}), but got {self.eta_max}")
        self._half_lengths  # noqa: B018  # raises ValueError if there are too many steps
        if self._peaks[-1] < self.eta_min:
            raise ValueError(
                f"eta_max_decay must keep the peak of the last cycle at or above eta_min ({self.eta_min}), "
                f"but {self.eta_max_decay} brings it down to {self._peaks[-1]:.6g} in {self.n_cycles} cycles"
            )

    @property
    def boundaries(self) -> NDArray[np.int64]:
        """ndarray of int64, shape (n_cycles,): the steps at which the cycles end, `total_steps` being the last."""
        return self._ends.copy()

    @property
    def total_steps(self) -> int:  # type: ignore[override]
        """int: number of update steps in all cycles together; the largest valid ``step``."""
        return int(self._ends[-1])

    @cached_property
    def _half_lengths(self) -> NDArray[np.int64]:
        return _half_lengths(self.step_size, self.n_cycles, self.growth)

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum(2 * self._half_lengths)

    @cached_property
    def _peaks(self) -> NDArray[np.float64]:
        return self.eta_max * self.eta_max_decay ** np.arange(self.n_cycles, dtype=np.float64)

    def _locate(self, steps: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64]]:
        """The cycle of each step, the number of steps since its start, and half its length."""
        cycle = np.minimum(np.searchsorted(self._ends, steps, side="right"), self.n_cycles - 1)
        half = self._half_lengths[cycle]
        return cycle, steps - (self._ends[cycle] - 2 * half), half

    def _interpolate(self, fraction: NDArray[np.float64], peaks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Learning rates at a fraction of the way from `eta_min` to the peaks."""
        # The weighted mean is exact at both ends; clipping undoes rounding errors in between.
        rates: NDArray[np.float64] = np.clip((1.0 - fraction) * self.eta_min + fraction * peaks, self.eta_min, peaks)
        return rates


@dataclass(frozen=True)
class CyclicSchedule(_Cycles):
    r"""Triangular cycles, each ``growth`` times as long as the previous one.

    Cycle :math:`i = 0, 1, \ldots` starts at step :math:`t_i`, has the
    half-length :math:`h_i = \max(1, \mathrm{round}(n_s g^i))` and the peak
    :math:`\eta_i`. With :math:`u = t - t_i`, the update at step :math:`t` uses

    .. math:: \eta(t) = \eta_{min} + (\eta_i - \eta_{min}) \gamma^t \min(u, 2 h_i - u) / h_i,
              \qquad t_{i+1} = t_i + 2 h_i, \quad t_0 = 0:

    it rises linearly from :math:`\eta_{min}` over one half-cycle and falls
    back over the next, so every cycle begins and ends at :math:`\eta_{min}`.
    The schedule is Smith's (2015, Section 3), whose cycles all have the same
    length (``growth=1``); doubling them follows Exercise 3 of DD2424.

    Parameters
    ----------
    eta_min, eta_max : float
        :math:`\eta_{min}, \eta_{max}`: lowest and highest learning rate,
        ``0 <= eta_min <= eta_max``.
    step_size : int
        :math:`n_s`: half the length of the first cycle, in update steps.
    n_cycles : int
        Number of cycles, at most 100,000.
    growth : float, default 2.0
        :math:`g > 0`: length of each cycle relative to the previous one;
        half-lengths are rounded to whole steps (ties to even).
    eta_max_decay : float, default 1.0
        :math:`d` in (0, 1]: the peaks are :math:`\eta_i = d^i \eta_{max}`; none
        may fall below ``eta_min``.
    mode : {"triangular", "triangular2", "exp_range"}, default "triangular"
        The modes have Smith's names. ``"triangular2"`` halves the amplitude
        from cycle to cycle: :math:`\eta_i = \eta_{min} + (\eta_{max} - \eta_{min}) / 2^i`.
        ``"exp_range"`` multiplies it by ``gamma`` at every step.
    gamma : float, default 1.0
        :math:`\gamma` in (0, 1]; must be 1 unless mode is ``"exp_range"``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range, or if the cycles
        add up to more than 2**53 steps.

    References
    ----------
    Leslie N. Smith, "Cyclical Learning Rates for Training Neural Networks",
    arXiv:1506.01186 (2015); IEEE WACV 2017.

    Examples
    --------
    >>> schedule = CyclicSchedule(eta_min=0.0, eta_max=1.0, step_size=2, n_cycles=2)
    >>> schedule.total_steps
    12
    >>> schedule(2)
    1.0
    >>> schedule([0, 1, 2, 3, 4, 5, 8, 12])
    array([0.  , 0.5 , 1.  , 0.5 , 0.  , 0.25, 1.  , 0.  ])
    """

    mode: str = "triangular"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("triangular", "triangular2", "exp_range"))
        self._set(gamma=check_real("gamma", self.gamma, 0, 1, "(]"))
        if self.gamma != 1 and self.mode != "exp_range":
            raise ValueError(f"gamma must be 1 unless mode is 'exp_range', but got {self.gamma}")
        super().__post_init__()
        if self.eta_max_decay != 1 and self.mode == "triangular2":
            raise ValueError(f"eta_max_decay must be 1 where mode is 'triangular2', but got {self.eta_max_decay}")

    @cached_property
    def _peaks(self) -> NDArray[np.float64]:
        if self.mode != "triangular2":
            return super()._peaks
        return self.eta_min + (self.eta_max - self.eta_min) * 0.5 ** np.arange(self.n_cycles, dtype=np.float64)

    def _rates(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        cycle, offset, half = self._locate(steps)
        fraction = np.minimum(offset, 2 * half - offset) / half
        if self.gamma != 1:
            fraction = fraction * self.gamma ** steps.astype(np.float64)
        return self._interpolate(fraction, self._peaks[cycle])


@dataclass(frozen=True)
class CosineSchedule(_Cycles):
    r"""Cosine annealing with warm restarts, each cycle ``growth`` times as long as the previous one.

    Cycle :math:`i` starts at step :math:`t_i` and takes :math:`T_i = 2 h_i`
    steps, like that of a `CyclicSchedule` with the same settings, so that the
    two can be compared update by update:

    .. math:: \eta(t) = \eta_{min} + \tfrac12 (\eta_i - \eta_{min}) (1 + \cos(\pi (t - t_i) / T_i)),
              \qquad \eta_i = d^i \eta_{max}.

    Every cycle begins at its peak; the learning rate is exactly
    :math:`\eta_{min}` only at the last step, ``total_steps``.

    Parameters
    ----------
    eta_min, eta_max : float
        Lowest and highest learning rate, ``0 <= eta_min <= eta_max``.
    step_size : int
        Half the length of the first cycle, in update steps, as in `CyclicSchedule`;
        PyTorch's ``T_0`` is twice that.
    n_cycles : int, default 1
        Number of cycles, at most 100,000; 1 is plain cosine annealing.
    growth : float, default 2.0
        Length of each cycle relative to the previous one; PyTorch's ``T_mult``.
    eta_max_decay : float, default 1.0
        :math:`d` in (0, 1]: peak of each cycle relative to the previous one;
        no peak may fall below ``eta_min``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range, or if the cycles
        add up to more than 2**53 steps.

    References
    ----------
    Ilya Loshchilov and Frank Hutter, "SGDR: Stochastic Gradient Descent with
    Warm Restarts", arXiv:1608.03983; ICLR 2017.

    Examples
    --------
    >>> schedule = CosineSchedule(eta_min=0.0, eta_max=1.0, step_size=2, n_cycles=2)
    >>> schedule([0, 1, 2, 4, 8, 12]).round(3)
    array([1.   , 0.854, 0.5  , 1.   , 0.5  , 0.   ])
    """

    n_cycles: int = 1

    def _rates(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        cycle, offset, half = self._locate(steps)
        fraction = (1.0 + np.cos(np.pi * offset / (2 * half))) / 2
        return self._interpolate(fraction, self._peaks[cycle])


@dataclass(frozen=True)
class OneCycleSchedule(BuiltinSchedule):
    r"""One cycle: a rise to ``eta_max``, followed by a fall far below the initial rate.

    The learning rate rises from ``eta_min`` to ``eta_max`` over the fraction
    ``pct_start`` of the steps and then falls to ``eta_final``, along half a
    cosine or linearly. The values are those of PyTorch's ``OneCycleLR``, whose
    ``div_factor`` is ``eta_max/eta_min`` and whose ``final_div_factor`` is
    ``eta_min/eta_final``. Momentum is not changed.

    Parameters
    ----------
    eta_max : float
        The highest learning rate.
    total_steps : int
        Number of update steps, at least 2.
    eta_min : float, optional
        Initial learning rate, at most ``eta_max``; by default ``eta_max/25``.
    eta_final : float, optional
        Final learning rate, at most ``eta_max``; by default ``eta_min/10000``.
    pct_start : float, default 0.3
        Fraction of the steps spent rising, in (0, 1).
    anneal : {"cos", "linear"}, default "cos"
        Shape of the rise and of the fall.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    References
    ----------
    Leslie N. Smith, "A disciplined approach to neural network
    hyper-parameters: Part 1", arXiv:1803.09820 (2018).

    Examples
    --------
    >>> schedule = OneCycleSchedule(eta_max=1.0, total_steps=11, eta_min=0.0, eta_final=0.0, anneal="linear")
    >>> schedule([0, 1, 2, 6, 10]).round(3)
    array([0.   , 0.435, 0.87 , 0.519, 0.   ])
    """

    eta_max: float
    total_steps: int
    eta_min: float | None = None
    eta_final: float | None = None
    pct_start: float = 0.3
    anneal: str = "cos"

    def __post_init__(self) -> None:
        eta_max = check_real("eta_max", self.eta_max, 0)
        eta_min = eta_max / 25 if self.eta_min is None else check_real("eta_min", self.eta_min, 0)
        eta_final = eta_min / 1e4 if self.eta_final is None else check_real("eta_final", self.eta_final, 0)
        for name, value in (("eta_min", eta_min), ("eta_final", eta_final)):
            if value > eta_max:
                raise ValueError(f"{name} must be at most eta_max ({eta_max}), but got {value}")
        self._set(
            eta_max=eta_max,
            eta_min=eta_min,
            eta_final=eta_final,
            total_steps=check_integer("total_steps", self.total_steps, 2, _MAX_STEPS),
            pct_start=check_real("pct_start", self.pct_start, 0, 1, "()"),
            anneal=check_choice("anneal", self.anneal, ("cos", "linear")),
        )

    def _rates(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        peak, last = self.pct_start * self.total_steps - 1, self.total_steps - 1
        rising = steps <= peak
        with np.errstate(divide="ignore", invalid="ignore"):  # with few steps, there may be no rise at all
            fraction = np.where(rising, steps / peak, (np.minimum(steps, last) - peak) / (last - peak))
        if self.anneal == "cos":
            fraction = (1 - np.cos(np.pi * fraction)) / 2
        assert self.eta_min is not None and self.eta_final is not None
        start = np.where(rising, self.eta_min, self.eta_max)
        end = np.where(rising, self.eta_max, self.eta_final)
        rates: NDArray[np.float64] = np.clip((1 - fraction) * start + fraction * end, 0, self.eta_max)
        return rates


@dataclass(frozen=True)
class ConstantSchedule(BuiltinSchedule):
    """The same learning rate at every step.

    Parameters
    ----------
    eta : float
        The learning rate, not negative.
    total_steps : int
        Number of update steps, at least 1.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> ConstantSchedule(0.1, total_steps=3)([0, 1, 2])
    array([0.1, 0.1, 0.1])
    """

    eta: float
    total_steps: int

    def __post_init__(self) -> None:
        self._set(
            eta=check_real("eta", self.eta, 0),
            total_steps=check_integer("total_steps", self.total_steps, 1, _MAX_STEPS),
        )

    def _rates(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.full(steps.shape, self.eta)


@dataclass(frozen=True)
class WarmupSchedule(BuiltinSchedule):
    """Linear warm-up, followed by another schedule.

    Update ``step < n_steps`` uses ``eta_start + (schedule(0) - eta_start)*step/n_steps``
    and update ``n_steps + step`` uses ``schedule(step)``.

    Parameters
    ----------
    schedule : BuiltinSchedule
        The schedule that follows the warm-up.
    n_steps : int
        Number of update steps of the warm-up, at least 1, in addition to those
        of the schedule.
    eta_start : float, default 0.0
        Learning rate of the first update.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    References
    ----------
    Priya Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1
    Hour", arXiv:1706.02677 (2017), Section 2.2.

    Examples
    --------
    >>> schedule = WarmupSchedule(CosineSchedule(eta_min=0.0, eta_max=1.0, step_size=1), n_steps=4)
    >>> schedule([0, 1, 2, 3, 4, 5, 6])
    array([0.  , 0.25, 0.5 , 0.75, 1.  , 0.5 , 0.  ])
    """

    schedule: BuiltinSchedule
    n_steps: int
    eta_start: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, BuiltinSchedule):
            raise TypeError(f"schedule must be one of cyconv's schedules, but got {describe(self.schedule)}")
        if isinstance(self.schedule, WarmupSchedule):
            raise ValueError(
                f"schedule must not be a WarmupSchedule itself, but got one with n_steps={self.schedule.n_steps}"
            )
        self._set(
            n_steps=check_integer("n_steps", self.n_steps, 1, _MAX_STEPS),
            eta_start=check_real("eta_start", self.eta_start, 0),
        )

    @property
    def boundaries(self) -> NDArray[np.int64]:
        """ndarray of int64: those of the schedule, shifted by `n_steps`; the warm-up is part of the first cycle."""
        return self.n_steps + self.schedule.boundaries

    @property
    def total_steps(self) -> int:  # type: ignore[override]
        """int: number of update steps, including the warm-up; the largest valid ``step``."""
        return self.n_steps + self.schedule.total_steps

    @property
    def settings(self) -> JsonDict:
        """dict: the constructor's arguments, as JSON values."""
        return {**super().settings, "schedule": describe_schedule(self.schedule)}

    def _rates(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        fraction = np.minimum(steps / self.n_steps, 1)
        rise = (1 - fraction) * self.eta_start + fraction * self.schedule(0)
        rates: NDArray[np.float64] = np.where(
            steps < self.n_steps, rise, self.schedule(np.maximum(steps - self.n_steps, 0))
        )
        return rates


#: The classes that a checkpoint records by name.
SCHEDULES: Mapping[str, type[BuiltinSchedule]] = {
    each.__name__: each for each in (CyclicSchedule, CosineSchedule, OneCycleSchedule, ConstantSchedule, WarmupSchedule)
}


def check_schedule(name: str, schedule: Any) -> Schedule:
    """Return a schedule that has valid members of `Schedule`, or raise an error that says what is wrong.

    About two hundred of its learning rates are checked here; `learning_rates` checks those that are used.
    """
    if not isinstance(schedule, Schedule) or not callable(schedule):
        raise TypeError(
            f"{name} must be a CyclicSchedule or another object with __call__, total_steps, boundaries and settings, "
            f"but got {describe(schedule)}"
        )
    total = check_integer(f"{name}.total_steps", schedule.total_steps, 1, _MAX_STEPS)
    ends = check_array(f"{name}.boundaries", schedule.boundaries, ("n_cycles",))
    if ends.dtype.kind not in "iu" or not len(ends) or ends[0] < 1 or ends[-1] != total or (np.diff(ends) < 1).any():
        raise ValueError(f"{name}.boundaries must be ascending steps up to total_steps = {total}, but got {ends}")
    try:
        if not isinstance(schedule.settings, dict):
            raise TypeError("it is not a dict")
        json.dumps(schedule.settings, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}.settings must be a dict of JSON values, but {error}") from None
    learning_rates(schedule, np.append(_some_steps(total), total), name)
    return schedule


def learning_rates(schedule: Schedule, steps: NDArray[np.int64], name: str = "schedule") -> NDArray[np.float64]:
    """Learning rates of the given updates, checked to be finite and not negative.

    A user-defined schedule is called for one step at a time.
    """
    found = schedule(steps) if isinstance(schedule, BuiltinSchedule) else [schedule(step) for step in steps.tolist()]
    rates = check_array(f"the learning rates of {name}", found, steps.shape)
    if rates.dtype.kind not in "iuf":
        raise TypeError(f"the learning rates of {name} must be numbers, but got {describe(rates)}")
    rates = check_finite(f"the learning rates of {name}", rates.astype(np.float64))
    if rates.size and rates.min() < 0:
        step = int(steps[rates.argmin()])
        raise ValueError(f"the learning rates of {name} must not be negative, but got {rates.min()} at step {step}")
    return rates


def describe_schedule(schedule: Schedule) -> JsonDict:
    """The JSON record of a schedule: its settings, and the name of its class unless that is `CyclicSchedule`.

    For a user-defined schedule, the learning rates at some steps are included, by which it can be recognised.
    """
    if type(schedule) is CyclicSchedule:
        return schedule.settings
    described: JsonDict = {**json.loads(json.dumps(schedule.settings)), "class": type(schedule).__name__}
    if is_known(schedule):
        return described
    return {**described, "learning_rates": learning_rates(schedule, _some_steps(schedule.total_steps)).tolist()}


def is_known(schedule: Schedule) -> bool:
    """Whether a checkpoint can store the schedule: a user's subclass, also inside a `WarmupSchedule`, cannot be."""
    inner_known = not isinstance(schedule, WarmupSchedule) or is_known(schedule.schedule)
    return SCHEDULES.get(type(schedule).__name__) is type(schedule) and inner_known


def recorded_schedule(recorded: JsonDict) -> Schedule | None:
    """The schedule with a record from `describe_schedule`, or None if it was user-defined.

    Raises
    ------
    TypeError, ValueError, KeyError
        If the record is invalid.
    """
    settings = dict(recorded)
    kind = settings.pop("class", "CyclicSchedule")
    if "learning_rates" in settings:
        return None
    if kind not in SCHEDULES:
        raise ValueError(f"its schedule is a {kind!s:.60}, which this version of cyconv does not know")
    if "schedule" in settings:
        if "schedule" in dict(settings["schedule"]):  # however deep the file nests them
            raise ValueError("its schedule is a warm-up of a warm-up")
        settings["schedule"] = recorded_schedule(settings["schedule"])
    schedule = SCHEDULES[kind](**settings)
    newer = {"mode", "gamma"}  # missing in files of earlier versions
    if set(schedule.settings) - set(recorded) - newer:
        raise ValueError("its schedule's settings are incomplete")
    return schedule


def _some_steps(total: int) -> NDArray[np.int64]:
    """About two hundred steps, at multiples of the golden ratio: evenly distributed, but never in step with cycles."""
    fractions = np.arange(200) * ((math.sqrt(5) - 1) / 2) % 1
    return np.unique((fractions * (total + 1)).astype(np.int64))


def _half_lengths(step_size: int, n_cycles: int, growth: float) -> NDArray[np.int64]:
    """Half the length of each cycle, in whole steps."""
    half_lengths, total = [], 0
    for cycle in range(n_cycles):
        try:
            half = max(1, round(step_size * growth**cycle))
        except OverflowError:
            half = _MAX_STEPS
        half_lengths.append(half)
        total += 2 * half
        if total > _MAX_STEPS:
            raise ValueError(
                f"step_size, n_cycles and growth must give at most 2**53 update steps in all, but step_size="
                f"{step_size}, n_cycles={n_cycles} and growth={growth} exceed that in cycle {cycle + 1}"
            )
    return np.array(half_lengths, dtype=np.int64)
