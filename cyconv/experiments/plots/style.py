"""What all figures share: colours, fonts, creating figures and writing them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from ..._files import atomic_write, check_path
from ..._typing import StrPath
from .arguments import check_mapping

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Parameters = ParamSpec("_Parameters")
_T = TypeVar("_T")

DPI = 150
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)), "-", (0, (5, 1.5)), (0, (1.5, 1)))
GREY = "#6b6b6b"

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "normal",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "xtick.direction": "out",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
    "figure.facecolor": "white",
    "figure.titlesize": 11,
}


def styled(draw: Callable[_Parameters, _T]) -> Callable[_Parameters, _T]:
    """Decorate a function so that it draws in this package's style, whatever matplotlib's settings are."""

    @functools.wraps(draw)
    def draw_styled(*arguments: _Parameters.args, **options: _Parameters.kwargs) -> _T:
        from matplotlib import style

        with style.context(["default", _STYLE]):
            return draw(*arguments, **options)

    return draw_styled


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of this size in inches, and its axes as a flat list."""
    from .figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns, **options)).ravel())


def colour_and_dashes(index: int) -> dict[str, Any]:
    """Keyword arguments that give the line with this index its colour and dashes."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def lighten(colour: str) -> tuple[float, float, float]:
    """The colour mixed half and half with white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (0.5 + 0.5 * part for part in to_rgb(colour))
    return red, green, blue


def add_legend(figure: Figure, axes: Axes, columns: int) -> None:
    """Put one legend with the entries of ``axes`` below the whole figure."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(columns, len(labels))))


@styled
def write_png(figure: Figure, file: IO[bytes], dpi: float = DPI) -> None:
    """Write ``figure`` to an open file as PNG, in this package's style."""
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})


def save_figure(figure: Figure, path: StrPath) -> None:
    """Write ``figure`` to ``path`` as PNG at 150 dots per inch, atomically.

    Raises
    ------
    OSError
        If the file cannot be written; an existing file is then left as it was.
    """
    with atomic_write(path) as file:
        write_png(figure, file)


def save_figures(figures: Mapping[str, Figure], folder: StrPath) -> list[str]:
    """Write several figures to a folder, each to a file named after its key with ``.png`` appended.

    Parameters
    ----------
    figures : mapping of str to matplotlib.figure.Figure
    folder : path-like or OutputFolder

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
    names = {f"{name}.png": figure for name, figure in check_mapping("figures", figures).items()}
    for name, figure in names.items():
        save_figure(figure, folder / name)
    return list(names)
