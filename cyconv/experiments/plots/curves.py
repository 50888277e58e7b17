"""Curves over the update steps: loss and accuracy of histories, and the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..._typing import FloatArray, IntArray
from ...history import History
from ...schedules import Schedule, learning_rates
from ..statistics import margin_of_error, scipy_stats
from .arguments import as_groups
from .style import COLOURS, GREY, TEXT_WIDTH, Canvas, colour_and_dashes, places, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Steps: TypeAlias = Sequence[int] | IntArray
Histories: TypeAlias = History | Sequence[History] | Mapping[str, History | Sequence[History]]
_Curve: TypeAlias = Callable[[History], NDArray[np.float64]]


@styled
def plot_comparison(
    histories: Histories,
    title: str = "",
    boundaries: Steps = (),
    *,
    order: Sequence[str] | None = None,
    axes: Any = None,
) -> Figure:
    """Compare the loss and accuracy of runs on training and validation data.

    Four panels: loss at the top, accuracy at the bottom; training on the left,
    validation on the right. The two panels of a row share their scale. The
    loss of the first steps, which would flatten the rest of the curves, is off
    the scale.

    Parameters
    ----------
    histories : History, sequence of History, or mapping of str to either
        One line for each label: the mean over its runs, in a band that is its
        95 % interval at each step, or that reaches from the lowest to the
        highest run where SciPy is not installed.
    title : str, optional
        Of the figure; several ``axes`` that are given have only their own.
    boundaries : sequence of int, optional
        Update steps at which cycles end, marked by thin vertical lines and by
        the ticks of the axis.
    order : sequence of str, optional
        Labels in the order of their colours and dashes, so that a label looks
        the same in all figures of a report; by default those of ``histories``.
    axes : array_like of matplotlib.axes.Axes, optional
        Where to draw, in the style that the user has chosen: four Axes, in the
        order of the panels. By default, a new figure is created.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If ``histories`` is none of these, or a label has no history.
    """
    histories = as_groups("histories", histories, History)
    canvas = Canvas(axes, TEXT_WIDTH, 5.6, 2, 2, sharex=True, sharey="row")
    panels = {
        "loss_train": "Training loss",
        "loss_val": "Validation loss",
        "acc_train": "Training accuracy",
        "acc_val": "Validation accuracy",
    }
    for panel, (key, name) in zip(canvas.axes, panels.items()):
        for label, place in places(histories, order).items():
            _draw_curve(panel, histories.get(label, ()), key, place, label)
        _mark_cycles(panel, boundaries)
        panel.set_title(name)
        canvas.add_grid(panel)
    canvas.axes[0].set_ylabel("mean cross-entropy")
    canvas.axes[2].set_ylabel("accuracy (%)")
    for panel in canvas.axes[2:]:
        panel.set_xlabel("update step")
    off_scale = _limit_loss(canvas.axes[:2], histories)
    canvas.add_legend(canvas.axes[0], _describe_lines(histories), off_scale)
    return canvas.finish(title, _caption("Loss and accuracy on training and validation data", histories))


@styled
def plot_train_validation(
    histories: Histories,
    title: str = "",
    boundaries: Steps | Mapping[str, Steps] | None = None,
    *,
    axes: Any = None,
) -> Figure:
    """Show how far training and validation diverge: one column per group of runs.

    Parameters
    ----------
    histories : History, sequence of History, or mapping of str to either
        One column for each label: loss at the top, accuracy at the bottom,
        with training and validation in the same panel. Lines are means over
        the runs, bands as for `plot_comparison`.
    title : str, optional
        As for `plot_comparison`.
    boundaries : sequence of int, or mapping of str to sequence of int, optional
        Update steps at which cycles end, for all columns or for each label.
    axes : array_like of matplotlib.axes.Axes, optional
        Where to draw, as for `plot_comparison`: the panels of the losses, then
        those of the accuracies.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If ``histories`` is none of these, or a label has no history.
    """
    histories = as_groups("histories", histories, History)
    ends = boundaries if isinstance(boundaries, Mapping) else dict.fromkeys(histories, boundaries)
    count = len(histories)
    width = max(TEXT_WIDTH if count > 1 else 4.2, 0.7 + 1.4 * count)
    canvas = Canvas(axes, width, 5.0, 2, count, sharex="col", sharey="row")
    for column, (label, runs) in enumerate(histories.items()):
        loss, accuracy = canvas.axes[column], canvas.axes[count + column]
        for place, (suffix, name) in enumerate((("train", "training"), ("val", "validation"))):
            _draw_curve(loss, runs, f"loss_{suffix}", place, name)
            _draw_curve(accuracy, runs, f"acc_{suffix}", place, name)
        for panel in (loss, accuracy):
            _mark_cycles(panel, ends.get(label))
            canvas.add_grid(panel)
        loss.set_title(label)
        accuracy.set_xlabel("update step")
    canvas.axes[0].set_ylabel("mean cross-entropy")
    canvas.axes[count].set_ylabel("accuracy (%)")
    off_scale = _limit_loss(canvas.axes[:count], histories)
    canvas.add_legend(canvas.axes[0], _describe_lines(histories), off_scale)
    return canvas.finish(title, _caption("Loss and accuracy, training beside validation data", histories))


@styled
def plot_gap(
    histories: Histories,
    title: str = "",
    boundaries: Steps = (),
    *,
    order: Sequence[str] | None = None,
    axes: Any = None,
) -> Figure:
    """Show how much larger the validation loss is than the training loss.

    Parameters
    ----------
    histories, title, boundaries, order
        As for `plot_comparison`.
    axes : matplotlib.axes.Axes, optional
        Where to draw, as for `plot_comparison`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If ``histories`` is none of these, or a label has no history.
    """
    histories = as_groups("histories", histories, History)
    canvas = Canvas(axes, TEXT_WIDTH, 3.4)
    (panel,) = canvas.axes
    for label, place in places(histories, order).items():
        _draw_curve(panel, histories.get(label, ()), _gap, place, label)
    _mark_cycles(panel, boundaries)
    panel.axhline(0, color=GREY, linewidth=0.8)
    panel.set_xlabel("update step")
    panel.set_ylabel("validation − training loss")
    canvas.add_grid(panel)
    canvas.add_legend(panel, _describe_lines(histories))
    last = _at_the_end(histories, _gap, "{:.3f}")
    return canvas.finish(title, f"Validation loss minus training loss against the update step; at the end, {last}.")


@styled
def plot_cycles(
    histories: Histories,
    title: str = "",
    boundaries: Steps = (),
    *,
    order: Sequence[str] | None = None,
    axes: Any = None,
) -> Figure:
    """Show the learning rate above the validation accuracy.

    Parameters
    ----------
    histories, title, boundaries, order
        As for `plot_comparison`; all runs have the same learning rates.
    axes : array_like of matplotlib.axes.Axes, optional
        Where to draw, as for `plot_comparison`: two Axes.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If ``histories`` is none of these, or a label has no history.
    """
    histories = as_groups("histories", histories, History)
    canvas = Canvas(axes, TEXT_WIDTH, 4.4, 2, 1, sharex=True, height_ratios=(1, 2))
    above, below = canvas.axes
    first = next(iter(histories.values()))[0]
    above.plot(first["update_steps"], first["learning_rates"], color=GREY)
    for label, place in places(histories, order).items():
        _draw_curve(below, histories.get(label, ()), "acc_val", place, label)
    for panel in (above, below):
        _mark_cycles(panel, boundaries)
        canvas.add_grid(panel)
    _mark_rates(above, first["learning_rates"])
    above.set_ylabel("learning\nrate η")
    below.set_ylabel("validation accuracy (%)")
    below.set_xlabel("update step")
    canvas.add_legend(below, _describe_lines(histories))
    return canvas.finish(title, _caption("The learning rate above the validation accuracy", histories))


@styled
def plot_learning_rate(schedule: Schedule, title: str = "", *, axes: Any = None) -> Figure:
    """The learning rate over all update steps of a schedule.

    Parameters
    ----------
    schedule : Schedule
    title : str, optional
    axes : matplotlib.axes.Axes, optional
        Where to draw, as for `plot_comparison`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    total = schedule.total_steps
    # Enough points to look smooth, and every corner of the curve among them.
    ends = np.concatenate([[0], schedule.boundaries])
    corners = np.concatenate([ends, (ends[1:] + ends[:-1]) // 2])
    steps = np.union1d(np.linspace(0, total, 2000).astype(np.int64), corners)
    rates = learning_rates(schedule, steps)
    canvas = Canvas(axes, TEXT_WIDTH, 2.8)
    (panel,) = canvas.axes
    panel.plot(steps, rates, color=COLOURS[0])
    _mark_cycles(panel, schedule.boundaries)
    _mark_rates(panel, rates)
    panel.set_xlabel("update step")
    panel.set_ylabel("learning rate η")
    canvas.add_grid(panel)
    low, high = (_format_rate(end(rates)) for end in (np.min, np.max))
    return canvas.finish(title, f"The learning rate, between {low} and {high}, over {total:,} update steps.")


def _gap(history: History) -> NDArray[np.float64]:
    return history["loss_val"] - history["loss_train"]


def _draw_curve(axes: Axes, runs: Iterable[History], key: str | _Curve, place: int, label: str) -> None:
    """Draw the mean over the runs at the steps they have in common, in a band that is its 95 % interval.

    ``key`` names a curve of the histories, or is a function that computes one from a history.
    """
    runs = [history for history in runs if history.n_points]
    if not runs:
        return
    steps = runs[0]["update_steps"]
    for history in runs[1:]:
        steps = np.intersect1d(steps, history["update_steps"])
    curve = key if callable(key) else lambda history: history[key]
    curves = np.stack([curve(h)[np.isin(h["update_steps"], steps)] for h in runs])
    lowest, highest = -math.inf, math.inf
    if not callable(key) and key.startswith("acc"):
        curves, lowest, highest = 100 * curves, 0, 100
    style, mean = colour_and_dashes(place), curves.mean(axis=0)
    if len(runs) > 1:
        margin = margin_of_error(curves)
        low, high = (curves.min(axis=0), curves.max(axis=0)) if margin is None else (mean - margin, mean + margin)
        ends = np.clip([low, high], lowest, highest)
        axes.fill_between(steps, *ends, color=style["color"], alpha=0.18, linewidth=0)
    axes.plot(steps, mean, label=label, **style)


def _mark_cycles(axes: Axes, boundaries: Steps | None) -> None:
    """Mark the ends of cycles, and let the axis have its ticks there."""
    ends = [] if boundaries is None else [int(step) for step in boundaries]
    for i, step in enumerate(ends):
        axes.axvline(step, color="#b5b5b5", linewidth=0.8, zorder=0.5, label="_" * (i > 0) + "end of a cycle")
    if not ends:
        return
    last = max(ends[-1], float(axes.dataLim.x1))
    axes.set_xlim(-0.02 * last, 1.02 * last)  # a line at the end of the axis would be cut in half
    labels = {step: f"{step:,}" for step in [0, *ends]}
    shown = _fitting(axes, labels, 1.04 * last)
    axes.set_xticks(list(labels), [label if step in shown else "" for step, label in labels.items()])


def _fitting(axes: Axes, labels: Mapping[int, str], extent: float) -> set[int]:
    """The ticks whose labels have space beside each other: the last, the first, and those between from the right."""
    figure = axes.figure
    inches = axes.get_position().width * figure.bbox.width / figure.dpi
    size = 0.65 * float(axes.xaxis.label.get_fontsize()) / 72  # of a digit, in inches
    extents = {step: size * len(label) / inches * extent for step, label in labels.items()}
    first, *between, last = sorted(labels)
    shown = [last]

    def fits(step: int, other: int) -> bool:
        return abs(step - other) >= (extents[step] + extents[other]) / 2 + extents[first]

    for step in (first, *reversed(between)):
        if all(fits(step, other) for other in shown):
            shown.append(step)
    return set(shown)


def _mark_rates(axes: Axes, rates: FloatArray) -> None:
    """Let the axis of a learning rate have ticks at its lowest and highest value."""
    from matplotlib.ticker import MaxNLocator

    if not len(rates):
        return
    low, high = float(np.min(rates)), float(np.max(rates))
    apart, margin = 0.15 * (high - low), 0.05 * (high - low) or 0.1 * high or 0.1
    between = [tick for tick in MaxNLocator(4).tick_values(low, high) if low + apart < tick < high - apart]
    ticks = sorted({low, *map(float, between), high})
    axes.set_ylim(low - margin, high + margin)
    axes.set_yticks(ticks, [_format_rate(tick) for tick in ticks])


def _format_rate(rate: float) -> str:
    """About three significant digits, and ``1e-5`` rather than ``1e-05``."""
    digits, _, exponent = f"{rate:.3g}".partition("e")
    return f"{digits}e{int(exponent)}" if exponent else digits


def _limit_loss(panels: Sequence[Axes], histories: Mapping[str, Sequence[History]]) -> str:
    """Limit the loss axes to what follows the first steps; return what is off the scale.

    The loss of an untrained network would flatten the rest of the curves.
    """
    all_runs = [history for runs in histories.values() for history in runs if history.n_points > 1]
    parts = [
        np.split(history[key], [max(1, history.n_points // 20)])
        for history in all_runs
        for key in ("loss_train", "loss_val")
    ]
    first, values = (np.concatenate([*part, []]) for part in (zip(*parts) if parts else ((), ())))
    values = values[np.isfinite(values)]  # without validation data, the validation curves are NaN
    if not values.size:
        return ""
    low, high = values.min(), values.max()
    margin = 0.06 * max(high - low, 1e-3)
    for panel in panels:
        panel.set_ylim(max(0.0, low - margin), high + margin)
    largest = np.max(first[np.isfinite(first)], initial=0.0)
    return f"the first losses, up to {largest:.2f}, are off the scale" if largest > high + margin else ""


def _describe_lines(histories: Mapping[str, Sequence[History]]) -> str:
    """What lines and bands stand for."""
    counts = {len(runs) for runs in histories.values()}
    if counts == {1}:
        return ""
    runs = f"{max(counts)} runs" if len(counts) == 1 else f"{min(counts)} to {max(counts)} runs"
    bands = "their 95 % intervals" if scipy_stats() else "lowest to highest"
    return f"lines: means of {runs}; bands: {bands}"


def _at_the_end(histories: Mapping[str, Sequence[History]], curve: _Curve, form: str) -> str:
    """The last values, means over the runs, in words."""
    last = {label: [curve(h)[-1] for h in runs if h.n_points] for label, runs in histories.items()}
    values = (f"{label} {form.format(np.mean(each))}".strip() for label, each in last.items() if each)
    return "; ".join(values) or "nothing"


def _caption(what: str, histories: Mapping[str, Sequence[History]]) -> str:
    last = _at_the_end(histories, lambda history: 100 * history["acc_val"], "{:.1f} %")
    return f"{what} against the update step; the validation accuracy at the end is {last}."
