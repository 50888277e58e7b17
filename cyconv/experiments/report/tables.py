"""Numbers and tables as text."""

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

from ..statistics import Numbers, mean_and_deviation


def count(number: int, noun: str) -> str:
    """The number with its noun in the singular or plural.

    Examples
    --------
    >>> count(1, "thread"), count(1200, "run")
    ('1 thread', '1,200 runs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_mean(values: Numbers, decimals: int = 2, scale: float = 1.0) -> str:
    """``"mean ± deviation"`` of the values times ``scale``; only the mean of a single value, a dash for none.

    Examples
    --------
    >>> format_mean([0.51, 0.52, 0.53], scale=100)
    '52.00 ± 1.00'
    >>> format_mean([])
    '–'
    """
    if not len(values):
        return "–"
    mean, deviation = mean_and_deviation(scale * np.asarray(values, dtype=np.float64))
    text = f"{mean:,.{decimals}f}"
    return text if deviation is None else f"{text} ± {deviation:,.{decimals}f}"


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
