"""The cyclical learning rate: a pure function of the update step."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ._checks import as_array, check_integer, check_real, describe
from ._typing import IntArray, JsonDict

_MAX_STEPS = 2**53  # every step up to here is exact in float64
_MAX_CYCLES = 100_000


class CyclicSchedule:
    r"""Triangular cycles, each ``growth`` times as long as the one before.

    Cycle :math:`i = 0, 1, \ldots` starts at step :math:`t_i`, has the
    half-length :math:`h_i = \max(1, \mathrm{round}(n_s g^i))` and the peak
    :math:`\eta_i = d^i \eta_{max}`. With :math:`u = t - t_i`, the update at
    step :math:`t` uses

    .. math:: \eta(t) = \eta_{min} + (\eta_i - \eta_{min}) \min(u, 2 h_i - u) / h_i,
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
        :math:`d` in (0, 1]: peak of each cycle relative to the previous one;
        no peak may fall below ``eta_min``.

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

    __slots__ = (
        "_eta_min",
        "_eta_max",
        "_step_size",
        "_n_cycles",
        "_growth",
        "_eta_max_decay",
        "_half_lengths",
        "_ends",
        "_starts",
        "_peaks",
        "__weakref__",
    )

    def __init__(
        self,
        eta_min: float,
        eta_max: float,
        step_size: int,
        n_cycles: int,
        growth: float = 2.0,
        eta_max_decay: float = 1.0,
    ) -> None:
        self._eta_min = check_real("eta_min", eta_min, 0)
        self._eta_max = check_real("eta_max", eta_max, 0)
        if self._eta_max < self._eta_min:
            raise ValueError(f"eta_max must be at least eta_min ({self._eta_min}), but got {self._eta_max}")
        self._step_size = check_integer("step_size", step_size, 1, _MAX_STEPS)
        self._n_cycles = check_integer("n_cycles", n_cycles, 1, _MAX_CYCLES)
        self._growth = check_real("growth", growth, 0, interval="()")
        self._eta_max_decay = check_real("eta_max_decay", eta_max_decay, 0, 1, "(]")

        self._half_lengths = _half_lengths(self._step_size, self._n_cycles, self._growth)
        self._ends = np.cumsum(2 * self._half_lengths)
        self._starts = self._ends - 2 * self._half_lengths
        self._peaks = self._eta_max * self._eta_max_decay ** np.arange(self._n_cycles, dtype=np.float64)
        if self._peaks[-1] < self._eta_min:
            raise ValueError(
                f"eta_max_decay must keep the peak of the last cycle at or above eta_min ({self._eta_min}), "
                f"but {self._eta_max_decay} brings it down to {self._peaks[-1]:.6g} in {self._n_cycles} cycles"
            )

    @property
    def eta_min(self) -> float:
        """float: the lowest learning rate."""
        return self._eta_min

    @property
    def eta_max(self) -> float:
        """float: the highest learning rate of the first cycle."""
        return self._eta_max

    @property
    def step_size(self) -> int:
        """int: half the first cycle, in update steps."""
        return self._step_size

    @property
    def n_cycles(self) -> int:
        """int: number of cycles."""
        return self._n_cycles

    @property
    def growth(self) -> float:
        """float: length of each cycle relative to the previous one."""
        return self._growth

    @property
    def eta_max_decay(self) -> float:
        """float: peak of each cycle relative to the previous one."""
        return self._eta_max_decay

    @property
    def total_steps(self) -> int:
        """int: number of update steps in all cycles together; the largest valid ``step``."""
        return int(self._ends[-1])

    @property
    def cycle_boundaries(self) -> NDArray[np.int64]:
        """ndarray of int64, shape (n_cycles,): the steps at which the cycles end, `total_steps` being the last."""
        return self._ends.copy()

    @property
    def settings(self) -> JsonDict:
        """dict: the constructor's arguments, as JSON values."""
        return {
            "eta_min": self._eta_min,
            "eta_max": self._eta_max,
            "step_size": self._step_size,
            "n_cycles": self._n_cycles,
            "growth": self._growth,
            "eta_max_decay": self._eta_max_decay,
        }

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
            return float(self._rates(np.int64(check_integer("step", step, 0, self.total_steps))))
        if steps.dtype.kind not in "iu":
            raise TypeError(f"step must be an integer or an array of integers, but got {describe(steps)}")
        if steps.size and (steps.min() < 0 or steps.max() > self.total_steps):
            bad = steps.min() if steps.min() < 0 else steps.max()
            raise ValueError(f"step must lie in 0..{self.total_steps}, but got {bad}")
        return self._rates(steps.astype(np.int64))

    def _rates(self, steps: NDArray[np.int64] | np.int64) -> NDArray[np.float64]:
        cycle = np.minimum(np.searchsorted(self._ends, steps, side="right"), self._n_cycles - 1)
        half, peak = self._half_lengths[cycle], self._peaks[cycle]
        offset = steps - self._starts[cycle]
        fraction = np.minimum(offset, 2 * half - offset) / half
        # The weighted mean is exact at both ends; clipping undoes rounding errors in between.
        rates: NDArray[np.float64] = np.clip((1.0 - fraction) * self._eta_min + fraction * peak, self._eta_min, peak)
        return rates

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CyclicSchedule):
            return NotImplemented
        return self.settings == other.settings

    def __hash__(self) -> int:
        return hash(tuple(self.settings.values()))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"CyclicSchedule({arguments})"


def _half_lengths(step_size: int, n_cycles: int, growth: float) -> NDArray[np.int64]:
    """Half-length of every cycle in whole steps, int64."""
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
