"""Bars that compare groups of runs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .arguments import as_finite_values, check_mapping
from .style import COLOURS, GREY, lighten, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#222222"


@styled
def plot_bars(groups: Mapping[str, float | Sequence[float]], title: str, ylabel: str, percent: bool = False) -> Figure:
    """Compare groups of runs: one bar per group at its mean, with each run as a dot.

    Parameters
    ----------
    groups : mapping of str to float or sequence of float
        One value per run. The error bar is one standard deviation over the
        runs; a single run has none.
    title, ylabel : str
    percent : bool, default False
        Whether values are fractions in 0..1 to be shown in percent.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there are no groups, or a group is empty or holds a value that is
        not finite.
    """
    scale = 100 if percent else 1
    groups = check_mapping("groups", groups)
    bars = {str(label): scale * as_finite_values(f"groups[{label!r}]", values) for label, values in groups.items()}
    if not bars:
        raise ValueError("groups must hold at least one group, but got none")
    figure, (axes,) = new_figure(max(3.6, 1.7 + 1.15 * len(bars)), 3.6)
    top = max(values.max() for values in bars.values())
    dots: dict[str, Any] = {"markeredgecolor": _INK, "markersize": 4, "markeredgewidth": 0.9, "linestyle": "none"}
    above: dict[str, Any] = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    for place, values in enumerate(bars.values()):
        colour = COLOURS[place % len(COLOURS)]
        mean, deviation = values.mean(), 0.0
        offsets, text = np.zeros(1), _format_number(mean)
        axes.bar(place, mean, width=0.6, color=lighten(colour), edgecolor=colour, linewidth=1.0)
        if len(values) > 1:
            deviation = values.std(ddof=1)
            axes.errorbar(place, mean, deviation, color=_INK, capsize=4, elinewidth=1.1, capthick=1.1)
            offsets = np.linspace(0.1, 0.24, len(values))
            text += f" ± {_format_number(deviation, like=mean)}"
        axes.plot(place + offsets, values, "o", color="white", **dots)
        axes.annotate(text, (place, max(values.max(), mean + deviation)), fontsize=8.5, **above)
    axes.set_xticks(range(len(bars)), [_wrap_label(label) for label in bars])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(bars) - 0.4)
    axes.set_ylim(0, 1.14 * top if top > 0 else 1)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y")
    figure.supxlabel(_caption(bars), fontsize=8, color=GREY)
    figure.suptitle(title)
    return figure


def _wrap_label(label: str, width: int = 17) -> str:
    """A label broken into lines that fit under its bar."""
    return "\n".join(line for part in label.split(": ", 1) for line in textwrap.wrap(part, width))


def _format_number(number: float, like: float | None = None) -> str:
    """About three significant digits, with as many decimals as ``like`` would have."""
    size = abs(number if like is None else like)
    decimals = 0 if size >= 1000 else 1 if size >= 10 else 2
    return f"{number:,.{decimals}f}"


def _caption(groups: Mapping[str, NDArray[np.float64]]) -> str:
    """What bars, lines and dots stand for."""
    sizes = {len(values) for values in groups.values()}
    if sizes == {1}:
        return "one run each"
    runs = f"{sizes.pop()} runs" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)} runs"
    return f"bar: mean of {runs}; line: ± one standard deviation; dots: individual runs"
