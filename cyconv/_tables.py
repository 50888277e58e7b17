"""Tables as plain text, Markdown and HTML."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ._checks import describe


@dataclass(frozen=True, repr=False)
class Table:
    """A table of texts, which prints in plain columns and which a notebook shows as HTML.

    Attributes
    ----------
    header : sequence of str
        One for each column; all empty for a table without a heading.
    rows : sequence of sequence of str
    n_keys : int
        Number of columns at the left that say what a row is about. They are
        repeated where a table is too wide for a terminal.
    numbers : bool
        Whether the columns after the first hold numbers, which are aligned to
        the right.
    remark : str
        Sentences below the table where it is printed or shown.

    Examples
    --------
    >>> table = Table(["fruit", "number", "price"], [["apples", "3", "1.20"], ["pears", "12", "0.80"]])
    >>> print(table.text(width=16))
    fruit   number
    ------  ------
    apples       3
    pears       12
    <BLANKLINE>
    fruit   price
    ------  -----
    apples   1.20
    pears    0.80
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_keys: int = 1
    numbers: bool = True
    remark: str = ""

    def __repr__(self) -> str:
        return "\n".join([self.text(), *([self.remark] if self.remark else [])])

    def _repr_html_(self) -> str:
        align = "" if self.numbers else ' style="text-align: left"'

        def row(tag: str, cells: Sequence[str]) -> str:
            first, *others = map(escape, cells)
            others = [f"<{tag}{align}>{cell}</{tag}>" for cell in others]
            return f'<tr><{tag} style="text-align: left">{first}</{tag}>{"".join(others)}</tr>'

        head = f"<thead>{row('th', self.header)}</thead>" if any(self.header) else ""
        remark = f"<p>{escape(self.remark)}</p>" if self.remark else ""
        return f"<table>{head}<tbody>{''.join(row('td', cells) for cells in self.rows)}</tbody></table>{remark}"

    def text(self, width: int | None = None) -> str:
        """The table in plain columns, below each other in several tables if they are wider than ``width``.

        Parameters
        ----------
        width : int, optional
            By default that of the terminal, which is ``COLUMNS`` if that is
            set, and 80 if there is no terminal.
        """
        width = shutil.get_terminal_size().columns if width is None else width
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        keys = list(range(self.n_keys))
        parts: list[list[int]] = []
        for column in range(self.n_keys, len(widths)):
            if not parts or sum(widths[i] + 2 for i in [*parts[-1], column]) - 2 > width:
                parts.append(keys)
            parts[-1] = [*parts[-1], column]
        return "\n\n".join(self._part(columns) for columns in parts or [keys])

    def _part(self, columns: Sequence[int]) -> str:
        return format_table([self.header[i] for i in columns], [[row[i] for i in columns] for row in self.rows])

    def markdown(self) -> str:
        """The table in Markdown."""
        header, *rows = ([as_markdown(cell).replace("|", "\\|") for cell in row] for row in (self.header, *self.rows))
        return format_table(header, rows, markdown=True)


def as_markdown(text: str) -> str:
    r"""Text on one line of Markdown, in which nothing is a tag of HTML.

    Examples
    --------
    >>> print(as_markdown("<b>two\n# lines"))
    \<b>two # lines
    """
    return re.sub(r"<(?=[A-Za-z/!?])", r"\<", " ".join(text.splitlines()))


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
