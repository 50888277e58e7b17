"""What all figures share: colours, type, whose axes are drawn on, and writing files."""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import numpy as np

from ..._checks import check_choice
from ..._files import atomic_write, check_path
from ..._typing import StrPath
from .arguments import as_axes, check_mapping, check_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Parameters = ParamSpec("_Parameters")
_T = TypeVar("_T")

DPI = 150
FORMATS = ("png", "pdf", "svg")
TEXT_WIDTH = 6.3  # inches: figures of this width need not be scaled down on a page, and their type stays readable
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
GREY = "#6b6b6b"
NOTE_SIZE = 8

_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.titlesize": 10.5,
}
#: Whatever the user's settings are: labels are no TeX, files are reproducible, and PDFs have type that printers accept.
_FIXED: dict[str, Any] = {"text.usetex": False, "svg.hashsalt": "cyconv", "pdf.fonttype": 42}
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}


def styled(draw: Callable[_Parameters, _T]) -> Callable[_Parameters, _T]:
    """Decorate a function so that it draws in this package's style, except on ``axes`` that the caller gives.

    Settings of matplotlib that the user has changed, by a style sheet for
    example, are left as they are.
    """

    @functools.wraps(draw)
    def draw_styled(*arguments: _Parameters.args, **options: _Parameters.kwargs) -> _T:
        import matplotlib

        settings: dict[Any, Any] = {}
        if options.get("axes") is None:
            current: Any = matplotlib.rcParams
            default: Any = matplotlib.rcParamsDefault
            settings = {name: value for name, value in _STYLE.items() if current[name] == default[name]} | _FIXED
        with matplotlib.rc_context(settings):
            return draw(*arguments, **options)

    return draw_styled


class Canvas:
    """The axes of a picture: those of a new figure, or those that the caller gave.

    Parameters
    ----------
    axes : Axes, array_like of Axes, or None
        What the caller gave; None for a new figure.
    width, height : float
        Size of the new figure in inches.
    rows, columns : int
        Of panels in the new figure.
    count : int, optional
        Number of panels that are needed; by default ``rows`` times ``columns``.
    **options
        Arguments of matplotlib's ``subplots``.
    """

    def __init__(
        self,
        axes: Any,
        width: float,
        height: float,
        rows: int = 1,
        columns: int = 1,
        count: int | None = None,
        **options: Any,
    ) -> None:
        self.is_new = axes is None
        self.figure: Figure
        self.axes: list[Axes]
        if axes is None:
            from .figure import Figure as OwnFigure

            self.figure = OwnFigure(figsize=(width, height))
            self.figure.set_layout_engine("constrained", w_pad=0.07, h_pad=0.05)
            self.axes = list(np.atleast_1d(self.figure.subplots(rows, columns, **options)).ravel())
        else:
            self.axes = as_axes("axes", axes, rows * columns if count is None else count)
            self.figure = cast("Figure", self.axes[0].figure)

    def add_legend(self, axes: Axes, note: str = "", more: str = "") -> None:
        """Explain the entries of ``axes``: below the new figure, or in the axes that the caller gave.

        ``note`` stands above the entries, followed by ``more`` where there is space, below a new figure.
        """
        handles, labels = axes.get_legend_handles_labels()
        if not handles:
            self.add_note("; ".join(filter(None, (note, more))))
            return
        if not self.is_new:
            axes.legend(handles, labels, title=textwrap.fill(note, 30) or None, title_fontsize=NOTE_SIZE)
            return
        width = self.figure.get_figwidth()
        columns = int(width / (0.6 + 0.068 * max(len(label) for label in labels)))
        legend = self.figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=max(1, min(columns, len(labels))),
            title=self._wrap("; ".join(filter(None, (note, more))), 16) or None,
            title_fontsize=NOTE_SIZE,
        )
        legend.get_title().set(color=GREY, ha="center")

    def add_grid(self, axes: Axes) -> None:
        """Draw horizontal lines in a panel of a new figure; given axes have those of the user's style."""
        if self.is_new:
            axes.grid(axis="y")

    def add_note(self, text: str) -> None:
        """Write a sentence below a new figure."""
        if self.is_new and text:
            self.figure.supxlabel(self._wrap(text, 16), fontsize=NOTE_SIZE, color=GREY)

    def finish(self, title: str, caption: str) -> Figure:
        """Add the title, and to a new figure its caption; return the figure."""
        if self.is_new:
            self.figure.suptitle(self._wrap(title, 12))
            heading = ", ".join(title.split("\n")).replace(r"\$", "$")
            self.figure.caption = ". ".join(filter(None, (heading, caption)))  # type: ignore[attr-defined]
        elif title and len(self.axes) == 1:
            self.axes[0].set_title(title)
        return self.figure

    def _wrap(self, text: str, characters: float) -> str:
        """The text in lines of similar length that fit into the figure, with this number of characters per inch."""
        widest = int(characters * self.figure.get_figwidth())
        return "\n".join(line for part in text.split("\n") for line in _even_lines(part, widest))


def _even_lines(text: str, widest: int) -> list[str]:
    text = text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    fewest = len(textwrap.wrap(text, widest))
    widths = range(max(1, len(text) // max(1, fewest)), widest)
    return textwrap.wrap(text, next((w for w in widths if len(textwrap.wrap(text, w)) == fewest), widest))


def colour_and_dashes(index: int) -> dict[str, Any]:
    """Keyword arguments that give the line with this index its colour and dashes."""
    colour, repetition = index % len(COLOURS), index // len(COLOURS)
    return {"color": COLOURS[colour], "linestyle": DASHES[(colour + repetition) % len(DASHES)]}


def places(labels: Iterable[str], order: Sequence[str] | None) -> dict[str, int]:
    """The index of the colour and the dashes of each label: its place in ``order``, or in ``labels``."""
    known = [] if order is None else check_order("order", order)
    return {label: place for place, label in enumerate(dict.fromkeys([*known, *labels]))}


def ink() -> Any:
    """The colour of text, which is that of thin lines as well."""
    import matplotlib

    return matplotlib.rcParams["text.color"]


def lighten(colour: str) -> tuple[float, float, float]:
    """The colour mixed half and half with white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (0.5 + 0.5 * part for part in to_rgb(colour))
    return red, green, blue


@styled
def write_figure(figure: Figure, file: IO[bytes], file_format: str = "png", dpi: float = DPI) -> None:
    """Write ``figure`` to an open file, in this package's style."""
    figure.savefig(file, format=file_format, dpi=dpi, metadata=_METADATA[file_format])


def figure_bytes(figure: Figure, file_format: str = "png") -> bytes:
    """The contents of the file that `save_figure` would write."""
    file = io.BytesIO()
    write_figure(figure, file, file_format)
    return file.getvalue()


def save_figure(figure: Figure, path: StrPath) -> None:
    """Write ``figure`` to ``path``, atomically.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path-like
        A name that ends in ``.pdf`` or ``.svg`` gives a file of this format;
        any other gives PNG at 150 dots per inch.

    Raises
    ------
    OSError
        If the file cannot be written; an existing file is then left as it was.
    """
    suffix = PurePath(check_path("path", path)).suffix[1:].lower()
    with atomic_write(path) as file:
        write_figure(figure, file, suffix if suffix in FORMATS else "png")


def save_figures(figures: Mapping[str, Figure], folder: StrPath, file_format: str = "png") -> list[str]:
    """Write several figures to a folder, each to a file named after its key with the format appended.

    Parameters
    ----------
    figures : mapping of str to matplotlib.figure.Figure
    folder : path-like or OutputFolder
    file_format : {"png", "pdf", "svg"}

    Returns
    -------
    list of str
        The file names.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    folder = check_path("folder", folder)
    check_choice("file_format", file_format, FORMATS)
    names = {f"{name}.{file_format}": figure for name, figure in check_mapping("figures", figures).items()}
    for name, figure in names.items():
        save_figure(figure, folder / name)
    return list(names)
