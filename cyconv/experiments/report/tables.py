"""Numbers and tables as text."""

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

from ..._checks import describe
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


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """A table as text, with the first column aligned to the left and the others to the right.

    Parameters
    ----------
    header : sequence of str
    rows : sequence of sequence of str
    markdown : bool, default False
        Whether to write a Markdown table rather than plain columns.

    Returns
    -------
    str
        Lines joined by newlines, without one at the end.

    Examples
    --------
    >>> print(format_table(["fruit", "number"], [["apples", "3"], ["pears", "12"]]))
    fruit   number
    ------  ------
    apples       3
    pears       12
    """
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"rows must have {len(header)} cells each, as header has, but got {describe(rows)}")
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (str(cell) for cell in cells)
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        return "| " + " | ".join(cells) + " |" if markdown else "  ".join(cells).rstrip()

    if markdown:
        rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    else:
        rule = "  ".join("-" * w for w in widths)
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


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
