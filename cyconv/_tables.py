"""Small tables that print as text and that notebooks show as HTML."""

from collections.abc import Sequence
from html import escape


class Table:
    """A table: text where it is printed, HTML where a notebook shows it.

    Parameters
    ----------
    header : sequence of str
    rows : sequence of sequence of str
        The first column is aligned to the left, the others to the right.
    remark : str, default ""
        Sentences below the table.

    Examples
    --------
    >>> Table(["layer", "parameters"], [["conv", "490"], ["hidden", "32,050"]], "Two layers.")
    layer   parameters
    ------  ----------
    conv           490
    hidden      32,050
    Two layers.
    """

    def __init__(self, header: Sequence[str], rows: Sequence[Sequence[str]], remark: str = "") -> None:
        self._header = header
        self._rows = rows
        self._remark = remark

    def __repr__(self) -> str:
        lines = [self._header, *self._rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self._header))]
        lines.insert(1, ["-" * width for width in widths])
        text = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(line, widths))
            )
            for line in lines
        ]
        return "\n".join([*(line.rstrip() for line in text), *([self._remark] if self._remark else [])])

    def _repr_html_(self) -> str:
        def row(tag: str, cells: Sequence[str]) -> str:
            left = f'<{tag} style="text-align: left">{escape(cells[0])}</{tag}>'
            return f"<tr>{left}{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells[1:])}</tr>"

        body = "".join(row("td", cells) for cells in self._rows)
        remark = f"<p>{escape(self._remark)}</p>" if self._remark else ""
        return f"<table><thead>{row('th', self._header)}</thead><tbody>{body}</tbody></table>{remark}"
