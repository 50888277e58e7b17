"""Means over seeds, their deviations, and which differences between means exceed noise."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._checks import as_array, describe
from .._typing import JsonDict

Numbers: TypeAlias = Sequence[float] | NDArray[np.floating]


def mean_and_deviation(values: Numbers) -> tuple[float, float | None]:
    """Mean and sample standard deviation; the deviation of a single value is None.

    Parameters
    ----------
    values : sequence of float
        At least one.

    Returns
    -------
    mean : float
    deviation : float or None
        With the divisor n - 1.

    Examples
    --------
    >>> mean_and_deviation([1.0, 2.0, 3.0])
    (2.0, 1.0)
    >>> mean_and_deviation([0.5])
    (0.5, None)
    """
    array = as_array("values", values)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "fiu":
        raise ValueError(f"values must be at least one number, but got {describe(array)}")
    array = array.astype(np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def describe_values(values: Numbers) -> JsonDict:
    """dict: ``mean``, ``standard_deviation`` and ``each`` of at least one number, as JSON values."""
    mean, deviation = mean_and_deviation(values)
    return {"mean": mean, "standard_deviation": deviation, "each": [float(value) for value in values]}


def pooled_deviation(groups: Iterable[Numbers]) -> float | None:
    r"""Standard deviation within groups, pooled over them.

    .. math:: s^2 = \sum_g (n_g - 1) s_g^2 / \sum_g (n_g - 1)

    Parameters
    ----------
    groups : sequence of sequence of float

    Returns
    -------
    float or None
        None if no group has two values.

    Examples
    --------
    >>> round(pooled_deviation([[1.0, 3.0], [5.0, 7.0], [9.0]]), 6)
    1.414214
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in groups if len(values) > 1]
    if not arrays:
        return None
    squares = sum(float(np.square(array - array.mean()).sum()) for array in arrays)
    return math.sqrt(squares / sum(len(array) - 1 for array in arrays))


@dataclass(frozen=True)
class Difference:
    """The mean of one group minus that of another.

    ``bound`` is two standard errors; None if no group has two values.
    """

    first: str
    second: str
    value: float
    bound: float | None

    @property
    def is_noise(self) -> bool | None:
        """bool or None: whether it is at most two standard errors; None if that cannot be told."""
        return None if self.bound is None else abs(self.value) <= self.bound

    def verdict(self, scale: float = 100, unit: str = " points", decimals: int = 2) -> str:
        """str: whether the difference is noise, as the last clause of a sentence.

        Examples
        --------
        >>> Difference("a", "b", 0.01, 0.02).verdict()
        'within noise (two standard errors: 2.00 points)'
        """
        if self.bound is None:
            return "which with one run each may be noise"
        which = "within" if self.is_noise else "beyond"
        return f"{which} noise (two standard errors: {scale * self.bound:.{decimals}f}{unit})"


def differences(groups: Mapping[str, Numbers]) -> list[Difference]:
    """Differences between the means of all pairs of groups, with the bounds that they must exceed.

    The standard error of a difference is s √(1/n_a + 1/n_b) with the
    deviation s of `pooled_deviation`: since single groups have few seeds, the
    deviation is assumed to be the same in all groups.

    Parameters
    ----------
    groups : mapping of str to sequence of float
        One value per run; empty groups are left out.

    Returns
    -------
    list of Difference
        Each group minus every later one.

    Examples
    --------
    >>> found = differences({"a": [0.50, 0.52], "b": [0.51, 0.53], "c": [0.70, 0.72]})
    >>> [(pair.first, pair.second) for pair in found if pair.is_noise]
    [('a', 'b')]
    """
    groups = {name: values for name, values in groups.items() if len(values)}
    deviation = pooled_deviation(groups.values())
    return [
        Difference(
            a,
            b,
            float(np.mean(first) - np.mean(second)),
            None if deviation is None else 2 * deviation * math.sqrt(1 / len(first) + 1 / len(second)),
        )
        for (a, first), (b, second) in combinations(groups.items(), 2)
    ]
