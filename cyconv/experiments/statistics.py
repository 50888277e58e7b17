"""Means over runs, their 95 % intervals, and which differences between means are significant.

Intervals and tests are those of `scipy.stats`. Without SciPy there are none,
and everything else works.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import ModuleType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._checks import as_array, describe
from .._memory import free_address_space
from .._typing import JsonDict

Numbers: TypeAlias = Sequence[float] | NDArray[np.floating]
Interval: TypeAlias = tuple[float, float]

CONFIDENCE = 0.95
LEVEL = 0.05  # of significance
ROUNDING = 1e-9  # relative; what varies less does not vary
_SCIPY_SIZE = 256 << 20  # bytes of address space for its libraries


def scipy_stats() -> ModuleType | None:
    """`scipy.stats`, imported when it is first needed; None where it is not installed, or has no memory."""
    if "scipy.stats" not in sys.modules and free_address_space() < _SCIPY_SIZE:
        return None  # its BLAS would wait for memory, or end the process
    try:
        from scipy import stats
    except ImportError:
        return None
    module: ModuleType = stats
    return module


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


def _is_constant(values: Numbers) -> bool:
    """Whether numbers do not vary, but for rounding."""
    return not len(values) or bool(np.ptp(values) <= ROUNDING * np.abs(values).max())


def margin_of_error(values: Numbers) -> NDArray[np.float64] | None:
    """Half the width of the 95 % interval of the mean over the first axis, by Student's t distribution.

    Parameters
    ----------
    values : array_like of float
        One entry per run.

    Returns
    -------
    ndarray of float64 or None
        None with fewer than two runs, and without SciPy.
    """
    array = np.asarray(values, dtype=np.float64)
    stats = scipy_stats() if len(array) > 1 else None
    if stats is None:
        return None
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(array) - 1)
    with np.errstate(invalid="ignore"):  # infinite losses have no interval
        return np.asarray(quantile * array.std(axis=0, ddof=1) / math.sqrt(len(array)))


def confidence_interval(values: Numbers) -> Interval | None:
    """The 95 % interval of the mean.

    None with fewer than two values, if one is not finite or none varies, and
    without SciPy.

    Examples
    --------
    >>> [round(end, 3) for end in confidence_interval([1.0, 2.0, 3.0])]
    [-0.484, 4.484]
    """
    margin = margin_of_error(values) if np.isfinite(values).all() and not _is_constant(values) else None
    if margin is None:
        return None
    mean = float(np.mean(values))
    return mean - float(margin), mean + float(margin)


def prediction_interval(values: Numbers) -> Interval | None:
    """The interval in which one more value lies with a probability of 95 %, if all are normally distributed.

    None where `confidence_interval` is.

    Examples
    --------
    >>> [round(end, 3) for end in prediction_interval([1.0, 2.0, 3.0])]
    [-2.968, 6.968]
    """
    interval = confidence_interval(values)
    if interval is None:
        return None
    mean, margin = sum(interval) / 2, (interval[1] - interval[0]) / 2
    return mean - margin * math.sqrt(len(values) + 1), mean + margin * math.sqrt(len(values) + 1)


def describe_values(values: Numbers) -> JsonDict:
    """dict: ``mean``, ``standard_deviation``, ``interval`` and ``each`` of at least one number, as JSON values.

    ``interval`` is that of the mean, at 95 %. What is not finite is None.
    """
    each = [float(value) if math.isfinite(value) else None for value in values]
    mean, deviation = mean_and_deviation(values) if None not in each else (None, None)
    interval = confidence_interval(values)
    return {
        "mean": mean,
        "standard_deviation": deviation,
        "interval": list(interval) if interval else None,
        "each": each,
    }


def binomial_error(accuracy: float, n_images: int) -> float:
    """Standard error of an accuracy, in 0..1, that was measured on this number of images.

    Examples
    --------
    >>> binomial_error(0.5, 10_000)
    0.005
    """
    return math.sqrt(accuracy * (1 - accuracy) / n_images)


@dataclass(frozen=True)
class Sample:
    """What was measured in the runs of one row of a table.

    Attributes
    ----------
    by_seed : mapping of int to float
        One value per run.
    start : str, optional
        What the initial weights depend on beside the seed, that is, the
        architecture. Runs with the same start and seed began as the same
        network; so did an ensemble and the networks it is made of.
    """

    by_seed: Mapping[int, float]
    start: str | None = None

    @property
    def is_finite(self) -> bool:
        """bool: whether every value is a number."""
        return all(map(math.isfinite, self.by_seed.values()))


@dataclass(frozen=True)
class Difference:
    """The mean of one row minus that of another.

    Attributes
    ----------
    first, second : str
    value : float
        Of paired runs, the mean of their differences.
    n_runs : int
        Runs of each row, the fewer if they differ.
    paired : bool
        Whether runs were compared by a paired t test, rather than by Welch's.
    interval : (float, float) or None
        The 95 % interval of the difference, regarded alone.
    p_value : float or None
        Corrected for all comparisons. Like the interval, it is None with fewer
        than two runs, if runs (or paired differences) do not vary, and without
        SciPy.
    """

    first: str
    second: str
    value: float
    n_runs: int
    paired: bool
    interval: Interval | None = None
    p_value: float | None = None

    @property
    def is_significant(self) -> bool | None:
        """bool or None: whether the difference is significant at 5 %; None if that cannot be told."""
        return None if self.p_value is None else self.p_value < LEVEL

    @property
    def is_worse(self) -> bool:
        """bool: whether the second is significantly below the first."""
        return bool(self.is_significant) and self.value > 0

    def document(self) -> JsonDict:
        """dict: everything, as JSON values."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.value,
            "interval": list(self.interval) if self.interval else None,
            "test": "paired" if self.paired else "Welch",
            "n_runs": self.n_runs,
            "p_value": self.p_value,
        }


def differences(
    groups: Mapping[str, Sample | Numbers],
    pairs: Iterable[tuple[str, str]] | None = None,
    n_comparisons: int | None = None,
) -> list[Difference]:
    """Differences between the means of rows, and how significant they are.

    Two rows are compared run by run, by a paired t test of the runs with the
    same seed, if these share their networks or began from the same weights
    (`Sample.start`). All others are compared as independent samples, by
    Welch's t test. Runs of different architectures with one seed share the
    beginnings of their weights and the order of the images: if that makes
    them alike, Welch's test is too cautious, but not wrong. Since the
    deviation of every row is its own, a row that varies much does not hide
    the differences between others. P values are corrected by the method of
    Holm, so that in about 5 % of tables where nothing differs, or fewer, any
    difference is called significant.

    Parameters
    ----------
    groups : mapping of str to Sample or sequence of float
        A sequence of values, one per run, is an independent sample. Rows that
        have no value, or one that is not finite, are left out.
    pairs : iterable of (str, str), optional
        The comparisons that were planned, each the first minus the second; by
        default every row is compared with all before it.
    n_comparisons : int, optional
        Number of comparisons to correct for, if it is not that of ``pairs``:
        one row that was chosen for its mean, and is compared with all others,
        stands for all pairs.

    Returns
    -------
    list of Difference

    Examples
    --------
    >>> found = differences({"a": [0.50, 0.52, 0.51], "b": [0.51, 0.53, 0.52], "c": [0.70, 0.72, 0.71]})
    >>> [(pair.first, pair.second) for pair in found if pair.is_significant]
    [('c', 'a'), ('c', 'b')]
    """
    samples = {
        name: group if isinstance(group, Sample) else Sample(dict(enumerate(map(float, group))))
        for name, group in groups.items()
    }
    samples = {name: sample for name, sample in samples.items() if sample.by_seed and sample.is_finite}
    if pairs is None:
        pairs = ((later, earlier) for earlier, later in combinations(samples, 2))
    found = [_compare(*pair, *map(samples.__getitem__, pair)) for pair in pairs if samples.keys() >= set(pair)]
    return _correct(found, n_comparisons)


def _compare(first: str, second: str, one: Sample, other: Sample) -> Difference:
    """The difference of two samples with its p value alone."""
    common = sorted(one.by_seed.keys() & other.by_seed.keys())
    paired = one.start is not None and one.start == other.start and len(common) > 1
    if paired:
        a, b = (np.array([sample.by_seed[seed] for seed in common]) for sample in (one, other))
        spread = np.ptp(a - b)
    else:
        a, b = (np.array(list(sample.by_seed.values())) for sample in (one, other))
        spread = max(np.ptp(a), np.ptp(b))
    n_runs = min(len(a), len(b))
    found = Difference(first, second, float(a.mean() - b.mean()), n_runs, paired)
    stats = scipy_stats() if n_runs > 1 else None
    if stats is None:
        return found
    largest = np.abs([*a, *b]).max()
    if spread <= ROUNDING * largest:
        same = abs(found.value) <= ROUNDING * largest
        return replace(found, value=0.0, interval=(0.0, 0.0), p_value=1.0) if same else found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one row alone may not vary
        test = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(CONFIDENCE)
    return replace(found, interval=(float(low), float(high)), p_value=float(test.pvalue))


def _correct(found: list[Difference], n_comparisons: int | None) -> list[Difference]:
    """The differences with p values corrected for several comparisons, by Holm's method."""
    p_values = sorted((pair.p_value, place) for place, pair in enumerate(found) if pair.p_value is not None)
    n_comparisons, largest = n_comparisons or len(p_values), 0.0
    for rank, (p_value, place) in enumerate(p_values):
        largest = min(1.0, max(largest, (n_comparisons - rank) * p_value))
        found[place] = replace(found[place], p_value=largest)
    return found
