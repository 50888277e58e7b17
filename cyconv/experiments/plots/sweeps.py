"""Measurements against one setting that was varied: a learning rate, a size, the weight decay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..._checks import check_choice, check_real
from ...lr_range import LrRangeResult, geometric_mean_range
from ..statistics import margin_of_error, scipy_stats
from .arguments import as_finite_values, as_groups, check_mapping
from .style import COLOURS, GREY, TEXT_WIDTH, Canvas, colour_and_dashes, lighten, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LrRangeResults: TypeAlias = (
    LrRangeResult | Sequence[LrRangeResult] | Mapping[str, LrRangeResult | Sequence[LrRangeResult]]
)
_MARKERS = "osD^vPX"


@styled
def plot_lr_range(results: LrRangeResults, title: str = "", *, axes: Any = None) -> Figure:
    """Learning-rate range tests: the loss as the learning rate rises, one panel for each network.

    Dots are the losses of single batches and lines their moving averages, one
    set of each per run. The suggested range, the geometric mean over the runs,
    is shaded and given in the panel's title.

    Parameters
    ----------
    results : LrRangeResult, sequence of LrRangeResult, or mapping of str to either
    title : str, optional
    axes : array_like of matplotlib.axes.Axes, optional
        Where to draw, as for `plot_comparison`: one for each network.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If ``results`` is none of these, or a label has no result.
    """
    results = as_groups("results", results, LrRangeResult)
    columns = min(2, len(results))
    rows = math.ceil(len(results) / columns)
    width = TEXT_WIDTH if columns == 2 else 4.0
    canvas = Canvas(axes, width, 1.0 + 2.4 * rows, rows, columns, count=len(results), sharex=True)
    ranges = {}
    for panel, (label, runs) in zip(canvas.axes, results.items()):
        ranges[label] = _draw_range_tests(panel, label, runs)
        canvas.add_grid(panel)
    for panel in canvas.axes[len(results) :]:
        panel.set_axis_off()
    for place, panel in enumerate(canvas.axes[: len(results)]):
        if place % columns == 0:
            panel.set_ylabel("loss of the batch")
        if place + columns >= len(results):
            panel.set_xlabel("learning rate η")
            panel.tick_params(axis="x", labelbottom=True)
    canvas.add_note("dots: losses of batches; lines: their moving averages, one per run")
    each = "; ".join(f"{label} {text}".strip() for label, text in ranges.items())
    return canvas.finish(title, f"The loss of the batches while the learning rate rises: {each}.")


def _draw_range_tests(panel: Axes, label: str, runs: Sequence[LrRangeResult]) -> str:
    """Draw the tests of one network; return the range that they suggest, in words."""
    for place, run in enumerate(runs):
        style = colour_and_dashes(place)
        dots: dict[str, Any] = {"color": style["color"], "markersize": 2, "alpha": 0.2, "markeredgewidth": 0}
        panel.plot(run.learning_rates, run.costs - run.penalties, ".", **dots)
        panel.plot(run.learning_rates, run.smoothed, **style)
    ends = geometric_mean_range(runs)
    text = "no range suggested"
    if ends:
        panel.axvspan(*ends, color=GREY, alpha=0.15, linewidth=0, zorder=0)
        for end in ends:
            panel.axvline(end, color=GREY, linewidth=0.9)
        text = f"suggested: {ends[0]:.1e} to {ends[1]:.1e}"
    panel.set_title(f"{label}\n{text}".lstrip("\n"))
    low = min(run.smoothed.min() for run in runs)
    start = max(run.smoothed[: max(1, len(run.smoothed) // 10)].max() for run in runs)
    panel.set_ylim(low - 0.15 * (start - low), start + 0.35 * (start - low))
    panel.set_xscale("log")
    return text


@styled
def plot_panels(
    panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]],
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    *,
    axes: Any = None,
) -> Figure:
    """Measured times against a size in one or more panels, both axes logarithmic.

    Parameters
    ----------
    panels : mapping of str to mapping of str to mapping of int to sequence of float
        Measurements by the heading of the panel, the label of the line and
        the position on the x axis. Lines connect medians; vertical bars extend
        from the lowest to the highest measurement.
    title, xlabel, ylabel : str, optional
    axes : array_like of matplotlib.axes.Axes, optional
        Where to draw, as for `plot_comparison`: one for each panel.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.ticker import FuncFormatter, LogLocator

    if not check_mapping("panels", panels):
        raise ValueError("panels must hold at least one panel, but got none")
    count = len(panels)
    canvas = Canvas(axes, max(TEXT_WIDTH if count > 1 else 5.6, 0.9 + 1.35 * count), 3.6, 1, count, sharey=True)
    ticks = sorted({x for lines in panels.values() for line in lines.values() for x in line})
    bars: dict[str, Any] = {"marker": "o", "markersize": 4, "capsize": 2.5, "elinewidth": 1}
    for panel, (heading, lines) in zip(canvas.axes, panels.items()):
        for place, (label, line) in enumerate(lines.items()):
            low, middle, high = (
                np.array([summary(values) for values in line.values()]) for summary in (np.min, np.median, np.max)
            )
            errors = [middle - low, high - middle]
            panel.errorbar(list(line), middle, errors, label=label, **colour_and_dashes(place), **bars)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.minorticks_off()
        panel.margins(x=0.12)
        panel.set_title(heading)
        panel.set_xlabel(xlabel)
        canvas.add_grid(panel)
    canvas.axes[0].set_ylabel(ylabel)
    canvas.add_legend(canvas.axes[0])
    headings = "; ".join(filter(None, (" ".join((heading, *lines)) for heading, lines in panels.items())))
    return canvas.finish(title, f"{ylabel} against {xlabel}: medians, from the lowest to the highest: {headings}.")


@styled
def plot_search(
    rounds: Mapping[str, Mapping[float, Sequence[float]]],
    title: str = "",
    chosen: float | None = None,
    name: str = "λ",
    *,
    scale: str = "log",
    axes: Any = None,
) -> Figure:
    """Validation accuracy against the setting that was searched, with one colour per round.

    Parameters
    ----------
    rounds : mapping of str to mapping of float to sequence of float
        The accuracies in 0..1 of the runs, by the label of their round and
        their value, > 0 on a logarithmic axis. Each run is a small dot, and
        their mean a large marker with its 95 % interval, if SciPy is
        installed.
    title : str, optional
    chosen : float, optional
        A value to mark with a vertical line.
    name : str, default "λ"
        What the setting is called.
    scale : {"log", "linear"}, default "log"
        Of the axis of the setting.
    axes : matplotlib.axes.Axes, optional
        Where to draw, as for `plot_comparison`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a value cannot be drawn on the axis, or has no accuracy or one that is not finite.
    """
    check_choice("scale", scale, ("log", "linear"))
    canvas = Canvas(axes, TEXT_WIDTH, 4.0)
    (panel,) = canvas.axes
    dots: dict[str, Any] = {"markersize": 5, "zorder": 1.5}
    means: dict[str, Any] = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 2.5}
    for place, (label, groups) in enumerate(check_mapping("rounds", rounds).items()):
        colour = COLOURS[place % len(COLOURS)]
        mean_of = {}
        for value, accuracies in sorted(groups.items()):
            values = 100 * as_finite_values(f"rounds[{label!r}][{value!r}]", accuracies)
            check_real(name, value, 0 if scale == "log" else None, None, "()")
            mean_of[value] = values.mean()
            if len(values) > 1:
                panel.plot([value] * len(values), values, ".", color=lighten(colour), **dots)
                margin = margin_of_error(values)
                if margin is not None:
                    low, high = np.clip([mean_of[value] - margin, mean_of[value] + margin], 0, 100)
                    panel.vlines(value, low, high, colors=colour, linewidth=1, zorder=2)
        marker = _MARKERS[place % len(_MARKERS)]
        panel.plot(list(mean_of), list(mean_of.values()), marker, color=colour, label=label, **means)
    panel.set_xscale(scale)
    panel.set_xlabel(name)
    panel.set_ylabel("validation accuracy (%)")
    canvas.add_grid(panel)
    sizes = {len(values) for groups in rounds.values() for values in groups.values()}
    if max(sizes, default=1) > 1:
        panel.plot([], [], ".", color=lighten(GREY), label="individual runs", **dots)
        if scipy_stats():
            panel.plot([], [], color=GREY, linewidth=1, label="95 % interval of the mean")
    if chosen is not None:
        panel.axvline(chosen, color=GREY, linewidth=0.9, zorder=0.5, label=f"{name} = {chosen:.3g}, best mean")
    canvas.add_legend(panel)
    best = "" if chosen is None else f"; the best mean is at {chosen:.3g}"
    return canvas.finish(
        title, f"Validation accuracy against {name}{', on a logarithmic axis' * (scale == 'log')}{best}."
    )
