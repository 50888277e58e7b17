"""Reports as web pages of a single file, with their pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from ..._tables import Table
from .pictures import Picture

_STYLE = """\
body { margin: 0; color: #222; background: #fff; font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
main { max-width: 80rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.7rem; line-height: 1.25; }
h2 { margin-top: 2.5rem; font-size: 1.3rem; line-height: 1.3; }
p { max-width: 46rem; }
.remark { padding: 0.5rem 0.75rem; border-left: 0.25rem solid #d55e00; background: #fdf1e8; font-weight: bold; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.75rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
.numbers :is(th, td):not(:first-child) { text-align: right; white-space: nowrap; }
.numbers thead th { vertical-align: bottom; white-space: normal; }
thead th { border-bottom: 2px solid #6b6b6b; }
tbody th { font-weight: normal; }
table:not(.numbers) td { overflow-wrap: anywhere; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.5rem 1rem; }
figure { margin: 0; break-inside: avoid; }
img { display: block; max-width: 100%; height: auto; }
@media print { main { max-width: none; padding: 0; } .table { overflow: visible; } table { font-size: 0.7rem; }
  .numbers :is(th, td):not(:first-child) { white-space: normal; } .pictures { display: block; }
  figure { margin-bottom: 1.5rem; } h2 { break-after: avoid; } }
"""


def web_page(title: str, remarks: Sequence[str], parts: Iterable[tuple[str, Sequence[str | Table | Picture]]]) -> str:
    """A page of HTML that needs no other file.

    Parameters
    ----------
    title : str
    remarks : sequence of str
        Sentences that the reader must know first.
    parts : iterable of (str, sequence of str, Table or Picture)
        Each with its heading, which is empty for an introduction.

    Returns
    -------
    str
    """
    body = [f"<h1>{escape(title)}</h1>", *(f'<p class="remark">{escape(remark)}</p>' for remark in remarks)]
    for heading, blocks in parts:
        if heading:
            body.append(f"<h2>{escape(heading)}</h2>")
        for are_pictures, same in groupby(blocks, lambda block: isinstance(block, Picture)):
            lines = [_element(block, heading) for block in same]
            body += ['<div class="pictures">', *lines, "</div>"] if are_pictures else lines
    content = "\n".join(body)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{content}\n</main>\n</body>\n</html>\n"
    )


def _element(block: str | Table | Picture, heading: str) -> str:
    if isinstance(block, Table):
        return _table(block, heading)
    return _figure(block) if isinstance(block, Picture) else f"<p>{escape(block)}</p>"


def _table(table: Table, heading: str) -> str:
    """The table in a box of its own, in which it can be scrolled where the page is narrow."""
    head = ""
    if any(table.header):
        cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
        head = f"<thead>\n<tr>{cells}</tr>\n</thead>\n"
    rows = "\n".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in others)}</tr>'
        for first, *others in table.rows
    )
    kind = ' class="numbers"' if table.numbers else ""
    label = escape(heading or "Table")
    return (
        f'<div class="table" role="region" tabindex="0" aria-label="{label}">\n'
        f"<table{kind}>\n{head}<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.image).decode("ascii")
    return (
        f'<figure><img src="data:{picture.media_type};base64,{data}" alt="{escape(picture.caption)}" '
        f'width="{picture.width}" height="{picture.height}"></figure>'
    )
