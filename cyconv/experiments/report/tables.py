"""Numbers and tables as text."""

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

from ..statistics import Interval, Numbers, confidence_interval, mean_and_deviation

ACCURACIES: Interval = (0.0, 1.0)  # limits


def count(number: int, noun: str) -> str:
    """The number with its noun in the singular or plural.

    Examples
    --------
    >>> count(1, "thread"), count(1200, "run")
    ('1 thread', '1,200 runs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_mean(values: Numbers, decimals: int = 2, scale: float = 1.0) -> str:
    """``"mean ± standard deviation"`` of the values times ``scale``; only the mean of a single value.

    A dash without values, or if one is not finite.

    Examples
    --------
    >>> format_mean([0.51, 0.52, 0.53], scale=100)
    '52.00 ± 1.00'
    >>> format_mean([])
    '–'
    """
    if not len(values) or not np.isfinite(values).all():
        return "–"
    mean, deviation = mean_and_deviation(scale * np.asarray(values, dtype=np.float64))
    text = f"{mean:,.{decimals}f}"
    return text if deviation is None else f"{text} ± {deviation:,.{decimals}f}"


def format_interval(
    values: Numbers, decimals: int = 2, scale: float = 1.0, limits: Interval = (-np.inf, np.inf)
) -> str:
    """The 95 % interval of the mean, within the limits, times ``scale``; a dash where there is none.

    Examples
    --------
    >>> format_interval([0.51, 0.52, 0.53], scale=100)
    '49.52 to 54.48'
    >>> format_interval([0.51], scale=100)
    '–'
    """
    return format_ends(confidence_interval(values), decimals, scale, limits)


def format_ends(
    interval: Interval | None, decimals: int = 2, scale: float = 1.0, limits: Interval = (-np.inf, np.inf)
) -> str:
    """The ends of an interval, within the limits, times ``scale``; a dash for None.

    Examples
    --------
    >>> format_ends((-0.001, 0.02), scale=100)
    '-0.10 to 2.00'
    >>> format_ends((0.97, 1.02), scale=100, limits=ACCURACIES)
    '97.00 to 100.00'
    """
    if not interval:
        return "–"
    low, high = limits
    return " to ".join(f"{scale * min(max(end, low), high):z,.{decimals}f}" for end in interval)


def format_change(value: float, decimals: int = 2, scale: float = 1.0) -> str:
    """A difference with its sign, times ``scale``.

    Examples
    --------
    >>> format_change(0.0123, scale=100), format_change(-1e-9)
    ('+1.23', '+0.00')
    """
    return f"{scale * value:+z,.{decimals}f}"


def format_p(p_value: float | None) -> str:
    """A p value with three digits; a dash for None.

    Examples
    --------
    >>> format_p(0.03514), format_p(1.0), format_p(1e-9), format_p(None)
    ('0.0351', '1', '< 0.001', '–')
    """
    if p_value is None:
        return "–"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3g}"


def format_each(values: Numbers, decimals: int = 2, scale: float = 1.0) -> str:
    """The values times ``scale``, separated by commas; a dash for none.

    Examples
    --------
    >>> format_each([0.51, 0.525], scale=100)
    '51.00, 52.50'
    """
    return ", ".join(f"{scale * value:,.{decimals}f}" for value in values) or "–"


def format_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""A table as CSV, for other programs.

    Examples
    --------
    >>> format_csv(["l2", "accuracy"], [[0.003, 0.61]])
    'l2,accuracy\n0.003,0.61\n'
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()
