"""Measurements against one setting that was varied: a learning rate, a size, the weight decay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..._checks import check_real
from ...lr_range import LrRangeResult, geometric_mean_range
from .arguments import as_finite_values, as_groups, check_mapping
from .style import COLOURS, GREY, add_legend, colour_and_dashes, lighten, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LrRangeResults: TypeAlias = (
    LrRangeResult | Sequence[LrRangeResult] | Mapping[str, LrRangeResult | Sequence[LrRangeResult]]
)
_MARKERS = "osD^vPX"


@styled
def plot_lr_range(results: LrRangeResults, title: str) -> Figure:
    """Learning-rate range tests: the cost as the learning rate rises, one panel for each network.

    Dots are the costs of single batches and lines their moving averages, one
    set of each per run. The suggested range, the geometric mean over the runs,
    is shaded and given in the panel's title.

    Parameters
    ----------
    results : LrRangeResult, sequence of LrRangeResult, or mapping of str to either
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If ``results`` is none of these, or a label has no result.
    """
    results = as_groups("results", results, LrRangeResult)
    columns = 2 if len(results) == 4 else min(3, len(results))
    rows = math.ceil(len(results) / columns)
    figure, axes = new_figure(0.9 + 3.1 * columns, 0.8 + 2.6 * rows, rows, columns, sharex=True)
    for panel, (label, runs) in zip(axes, results.items()):
        _draw_range_tests(panel, label, runs)
    for panel in axes[len(results) :]:
        panel.set_axis_off()
    for place, panel in enumerate(axes[: len(results)]):
        if place % columns == 0:
            panel.set_ylabel("cost of the batch")
        if place + columns >= len(results):
            panel.set_xlabel("learning rate η")
            panel.tick_params(axis="x", labelbottom=True)
    figure.supxlabel("dots: costs of batches; lines: their moving averages, one per run", fontsize=8, color=GREY)
    figure.suptitle(title)
    return figure


def _draw_range_tests(panel: Axes, label: str, runs: Sequence[LrRangeResult]) -> None:
    for place, run in enumerate(runs):
        style = colour_and_dashes(place)
        dots: dict[str, Any] = {"color": style["color"], "markersize": 2, "alpha": 0.2, "markeredgewidth": 0}
        panel.plot(run.learning_rates, run.costs, ".", **dots)
        panel.plot(run.learning_rates, run.smoothed, **style)
    ends = geometric_mean_range(runs)
    text = "no range suggested"
    if ends:
        panel.axvspan(*ends, color="#e9e9e9", linewidth=0, zorder=0)
        for end in ends:
            panel.axvline(end, color=GREY, linewidth=0.9)
        text = f"suggested: {ends[0]:.1e} to {ends[1]:.1e}"
    panel.set_title(f"{label}\n{text}".lstrip("\n"))
    low = min(run.smoothed.min() for run in runs)
    start = max(run.smoothed[: max(1, len(run.smoothed) // 10)].max() for run in runs)
    panel.set_ylim(low - 0.15 * (start - low), start + 0.35 * (start - low))
    panel.set_xscale("log")
    panel.grid(axis="y")


@styled
def plot_panels(
    panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]], title: str, xlabel: str, ylabel: str
) -> Figure:
    """Measured times against a size in one or more panels, both axes logarithmic.

    Parameters
    ----------
    panels : mapping of str to mapping of str to mapping of int to sequence of float
        Measurements by the heading of the panel, the label of the line and
        the position on the x axis. Lines connect medians; vertical bars extend
        from the lowest to the highest measurement.
    title, xlabel, ylabel : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.ticker import FuncFormatter, LogLocator

    if not check_mapping("panels", panels):
        raise ValueError("panels must hold at least one panel, but got none")
    count = len(panels)
    figure, axes = new_figure(max(5.6, 1.0 + 2.3 * count), 3.6, 1, count, sharey=True)
    ticks = sorted({x for lines in panels.values() for line in lines.values() for x in line})
    bars: dict[str, Any] = {"marker": "o", "markersize": 4, "capsize": 2.5, "elinewidth": 1}
    for panel, (heading, lines) in zip(axes, panels.items()):
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
        panel.grid(axis="y")
    axes[0].set_ylabel(ylabel)
    add_legend(figure, axes[0], columns=10)
    figure.suptitle(title)
    return figure


@styled
def plot_search(
    rounds: Mapping[str, Mapping[float, Sequence[float]]], title: str, chosen: float | None = None, name: str = "λ"
) -> Figure:
    """Validation accuracy against the setting that was searched on a logarithmic axis, with one colour per round.

    Parameters
    ----------
    rounds : mapping of str to mapping of float to sequence of float
        The accuracies in 0..1 of the runs, by the label of their round and
        their value > 0. Each run is a small dot, and their mean a large marker.
    title : str
    chosen : float, optional
        A value to mark with a vertical line.
    name : str, default "λ"
        What the setting is called.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a value is not above 0, or has no accuracy or one that is not finite.
    """
    figure, (axes,) = new_figure(6.4, 4.0)
    dots: dict[str, Any] = {"markersize": 5, "zorder": 1.5}
    means: dict[str, Any] = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 2.5}
    for place, (label, groups) in enumerate(check_mapping("rounds", rounds).items()):
        colour = COLOURS[place % len(COLOURS)]
        mean_of = {}
        for value, accuracies in sorted(groups.items()):
            values = 100 * as_finite_values(f"rounds[{label!r}][{value!r}]", accuracies)
            check_real(name, value, 0, None, "()")
            mean_of[value] = values.mean()
            if len(values) > 1:
                axes.plot([value] * len(values), values, ".", color=lighten(colour), **dots)
        marker = _MARKERS[place % len(_MARKERS)]
        axes.plot(list(mean_of), list(mean_of.values()), marker, color=colour, label=label, **means)
    axes.set_xscale("log")
    axes.set_xlabel(name)
    axes.set_ylabel("validation accuracy (%)")
    axes.grid(axis="y")
    sizes = {len(values) for groups in rounds.values() for values in groups.values()}
    if max(sizes, default=1) > 1:
        axes.plot([], [], ".", color=lighten(GREY), label="individual runs", **dots)
    if chosen is not None:
        axes.axvline(chosen, color=GREY, linewidth=0.9, zorder=0.5, label=f"{name} = {chosen:.3g}, best mean")
    add_legend(figure, axes, columns=5)
    figure.suptitle(title)
    return figure
