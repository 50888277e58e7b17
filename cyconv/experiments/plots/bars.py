"""Bars that compare groups of runs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..._checks import as_array, describe
from ..statistics import margin_of_error, scipy_stats
from .arguments import as_finite_values, check_mapping
from .style import COLOURS, TEXT_WIDTH, Canvas, ink, lighten, places, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_UPRIGHT = 4  # bars that fit beside each other on a page, with their labels below them


@styled
def plot_bars(
    groups: Mapping[str, float | Sequence[float]],
    title: str = "",
    ylabel: str = "",
    percent: bool = False,
    *,
    order: Sequence[str] | None = None,
    published: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    axes: Any = None,
) -> Figure:
    """Compare groups of runs: one bar per group at its mean, with each run as a dot.

    More than four bars lie on their side.

    Parameters
    ----------
    groups : mapping of str to float or sequence of float
        One value per run. The error bar is the 95 % interval of the mean, or
        one standard deviation where SciPy is not installed; a single run has
        none. The number is the mean ± standard deviation.
    title, ylabel : str, optional
        ``ylabel`` is the label of the axis of the values.
    percent : bool, default False
        Whether values are fractions in 0..1 to be shown in percent.
    order : sequence of str, optional
        Labels in the order of their colours, as for `plot_comparison`.
    published : mapping of str to sequence of (float, float), optional
        What others have published for the groups of these labels, as the
        lowest and the highest value, which are equal for a single one; drawn
        as diamonds.
    axes : matplotlib.axes.Axes, optional
        Where to draw, as for `plot_comparison`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there are no groups, or a group is empty or holds a value that is
        not finite, or something is published for a group that there is not.
    """
    scale = 100 if percent else 1
    groups = check_mapping("groups", groups)
    bars = {str(label): scale * as_finite_values(f"groups[{label!r}]", values) for label, values in groups.items()}
    if not bars:
        raise ValueError("groups must hold at least one group, but got none")
    ranges = _as_ranges(check_mapping("published", {} if published is None else published), bars, scale)
    upright = len(bars) <= _MOST_UPRIGHT
    width = max(3.6, 1.7 + 1.15 * len(bars)) if upright else TEXT_WIDTH
    canvas = Canvas(axes, width, 3.6 if upright else 1.3 + 0.42 * len(bars))
    (panel,) = canvas.axes
    numbers, colours, top = {}, places(bars, order), 0.0
    limits = (0.0, 100.0) if percent else (-math.inf, math.inf)
    for place, (label, values) in enumerate(bars.items()):
        colour = COLOURS[colours[label] % len(COLOURS)]
        numbers[label], end = _draw_bar(panel, place, values, ranges[label], colour, upright, limits)
        top = max(top, end)
    labels = [_wrap_label(label, 17 if upright else 32) for label in bars]
    if upright:
        panel.set_xticks(range(len(bars)), labels)
        panel.set_xlim(-0.6, len(bars) - 0.4)
        panel.set_ylim(0, 1.14 * top if top > 0 else 1)
        panel.set_ylabel(ylabel)
        panel.tick_params(axis="x", length=0)
    else:
        panel.set_yticks(range(len(bars)), labels)
        panel.set_ylim(len(bars) - 0.4, -0.6)
        panel.set_xlim(0, 1.38 * top if top > 0 else 1)
        panel.set_xlabel(ylabel)
        panel.tick_params(axis="y", length=0)
    panel.grid(False)  # the numbers stand on the bars
    canvas.add_note(_describe_bars(bars) + "; diamonds: published" * any(map(len, ranges.values())))
    each = "; ".join(f"{label} {number}{_describe_ranges(ranges[label])}" for label, number in numbers.items())
    return canvas.finish(title, f"{ylabel}: {each}." if ylabel else f"{each}.")


def _as_ranges(
    published: Mapping[str, Sequence[tuple[float, float]]], bars: Mapping[str, Any], scale: float
) -> dict[str, NDArray[np.float64]]:
    """What is published for each bar, one row for each range."""
    if not set(published) <= set(bars):
        raise ValueError(f"published must hold labels of groups only, but got {describe(published)}")
    ranges = {}
    for label in bars:
        name = f"published[{label!r}]"
        pairs = as_array(name, published.get(label, ()))
        if pairs.size and (pairs.ndim != 2 or pairs.shape[1] != 2):
            raise ValueError(f"{name} must hold pairs of numbers, but got {describe(pairs)}")
        values = as_finite_values(name, pairs.ravel()) if pairs.size else pairs
        ranges[label] = scale * values.reshape(-1, 2)
    return ranges


def _draw_bar(
    panel: Axes,
    place: int,
    values: NDArray[np.float64],
    ranges: NDArray[np.float64],
    colour: str,
    upright: bool,
    limits: tuple[float, float],
) -> tuple[str, float]:
    """Draw one bar with its interval, its runs, what is published and its number; return the number and its place."""
    dots: dict[str, Any] = {"markeredgecolor": ink(), "markersize": 4, "markeredgewidth": 0.9, "linestyle": "none"}
    error: dict[str, Any] = {"ecolor": ink(), "capsize": 4, "elinewidth": 1.1, "capthick": 1.1}
    look: dict[str, Any] = {"color": lighten(colour), "edgecolor": colour, "linewidth": 1.0, "error_kw": error}
    mean, error_bar = values.mean(), None
    offsets, text, end = np.zeros(1), _format_number(mean), values.max()
    if len(values) > 1:
        deviation, margin = values.std(ddof=1), margin_of_error(values)
        half = deviation if margin is None else margin
        low, high = np.clip([mean - half, mean + half], min(limits[0], mean), max(limits[1], mean))
        error_bar, end = [[mean - low], [high - mean]], max(end, high)
        offsets = np.linspace(0.1, 0.24, len(values))
        text += f" ± {_format_number(deviation, like=mean)}"
    end = max(end, *ranges.ravel()) if ranges.size else end
    for low, high in ranges:
        ends, beside = (low, high), (place - 0.17, place - 0.17)
        panel.plot(*((beside, ends) if upright else (ends, beside)), "D-", color=ink(), markersize=3.5, linewidth=1.0)
    if upright:
        panel.bar(place, mean, 0.6, yerr=error_bar, **look)
        panel.plot(place + offsets, values, "o", color="white", **dots)
        panel.annotate(text, (place, end), (0, 5), textcoords="offset points", fontsize=8.5, ha="center", va="bottom")
    else:
        panel.barh(place, mean, 0.6, xerr=error_bar, **look)
        panel.plot(values, place + offsets, "o", color="white", **dots)
        panel.annotate(text, (end, place), (5, 0), textcoords="offset points", fontsize=8.5, ha="left", va="center")
    return text, float(end)


def _wrap_label(label: str, width: int) -> str:
    """A label broken into lines that fit under or beside its bar."""
    return "\n".join(line for part in label.split(": ", 1) for line in textwrap.wrap(part, width))


def _format_number(number: float, like: float | None = None) -> str:
    """About three significant digits, with as many decimals as ``like`` would have."""
    size = abs(number if like is None else like)
    decimals = 0 if size >= 1000 else 1 if size >= 10 else 2
    return f"{number:,.{decimals}f}"


def _describe_ranges(ranges: NDArray[np.float64]) -> str:
    """What is published, for the caption."""
    texts = [" to ".join(dict.fromkeys(map(_format_number, pair))) for pair in ranges]
    return f" (published: {', '.join(texts)})" if texts else ""


def _describe_bars(groups: Mapping[str, NDArray[np.float64]]) -> str:
    """What bars, lines and dots stand for."""
    sizes = {len(values) for values in groups.values()}
    if sizes == {1}:
        return "one run each"
    runs = f"{sizes.pop()} runs" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)} runs"
    line = "95 % interval of the mean" if scipy_stats() else "± one standard deviation"
    return f"bar: mean of {runs}; line: {line}; number: mean ± standard deviation; dots: individual runs"
