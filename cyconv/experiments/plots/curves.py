"""Curves over the update steps: loss and accuracy of histories, and the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..._typing import IntArray
from ...history import History
from ...schedules import Schedule, learning_rates
from .arguments import as_groups
from .style import COLOURS, GREY, add_legend, colour_and_dashes, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Steps: TypeAlias = Sequence[int] | IntArray
Histories: TypeAlias = History | Sequence[History] | Mapping[str, History | Sequence[History]]
_Curve: TypeAlias = Callable[[History], NDArray[np.float64]]


@styled
def plot_comparison(histories: Histories, title: str, boundaries: Steps = ()) -> Figure:
    """Compare the loss and accuracy of runs on training and validation data.

    Four panels: loss at the top, accuracy at the bottom; training on the left,
    validation on the right. The two panels of a row share their scale.

    Parameters
    ----------
    histories : History, sequence of History, or mapping of str to either
        One line for each label: the mean over its runs, in a band from the
        lowest to the highest.
    title : str
    boundaries : sequence of int, optional
        Update steps at which cycles end, marked by thin vertical lines.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If ``histories`` is none of these, or a label has no history.
    """
    histories = as_groups("histories", histories, History)
    figure, axes = new_figure(8.4, 6.0, 2, 2, sharex=True, sharey="row")
    panels = {
        "loss_train": "Training loss",
        "loss_val": "Validation loss",
        "acc_train": "Training accuracy",
        "acc_val": "Validation accuracy",
    }
    for panel, (key, name) in zip(axes, panels.items()):
        for place, (label, runs) in enumerate(histories.items()):
            _draw_curve(panel, runs, key, place, label)
        _mark_cycles(panel, boundaries)
        panel.set_title(name)
        panel.grid(axis="y")
    axes[0].set_ylabel("mean cross-entropy")
    axes[2].set_ylabel("accuracy (%)")
    for panel in axes[2:]:
        panel.set_xlabel("update step")
    _limit_loss(axes[0], histories)
    add_legend(figure, axes[0], columns=5)
    figure.suptitle(title)
    return figure


@styled
def plot_train_validation(
    histories: Histories, title: str, boundaries: Steps | Mapping[str, Steps] | None = None
) -> Figure:
    """Show how far training and validation diverge: one column per group of runs.

    Parameters
    ----------
    histories : History, sequence of History, or mapping of str to either
        One column for each label: loss at the top, accuracy at the bottom,
        with training and validation in the same panel. Lines are means over
        the runs, bands their range.
    title : str
    boundaries : sequence of int, or mapping of str to sequence of int, optional
        Update steps at which cycles end, for all columns or for each label.

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
    figure, axes = new_figure(max(4.2, 1.2 + 2.2 * count), 5.2, 2, count, sharex="col", sharey="row")
    for column, (label, runs) in enumerate(histories.items()):
        loss, accuracy = axes[column], axes[count + column]
        for place, (suffix, name) in enumerate((("train", "training"), ("val", "validation"))):
            _draw_curve(loss, runs, f"loss_{suffix}", place, name)
            _draw_curve(accuracy, runs, f"acc_{suffix}", place, name)
        for panel in (loss, accuracy):
            _mark_cycles(panel, ends.get(label))
            panel.grid(axis="y")
        loss.set_title(label)
        accuracy.set_xlabel("update step")
    axes[0].set_ylabel("mean cross-entropy")
    axes[count].set_ylabel("accuracy (%)")
    _limit_loss(axes[0], histories)
    add_legend(figure, axes[0], columns=3)
    figure.suptitle(title)
    return figure


@styled
def plot_gap(histories: Histories, title: str, boundaries: Steps = ()) -> Figure:
    """Show how much larger the validation loss is than the training loss.

    Parameters
    ----------
    histories, title, boundaries
        As for `plot_comparison`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If ``histories`` is none of these, or a label has no history.
    """
    histories = as_groups("histories", histories, History)
    figure, (axes,) = new_figure(6.4, 3.4)
    for place, (label, runs) in enumerate(histories.items()):
        _draw_curve(axes, runs, lambda history: history["loss_val"] - history["loss_train"], place, label)
    _mark_cycles(axes, boundaries)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel("update step")
    axes.set_ylabel("validation − training loss")
    axes.grid(axis="y")
    add_legend(figure, axes, columns=3)
    figure.suptitle(title)
    return figure


@styled
def plot_cycles(histories: Histories, title: str, boundaries: Steps = ()) -> Figure:
    """Show the learning rate above the validation accuracy.

    Parameters
    ----------
    histories, title, boundaries
        As for `plot_comparison`; all runs have the same learning rates.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If ``histories`` is none of these, or a label has no history.
    """
    histories = as_groups("histories", histories, History)
    figure, (above, below) = new_figure(6.4, 4.2, 2, 1, sharex=True, height_ratios=(1, 2))
    first = next(iter(histories.values()))[0]
    above.plot(first["update_steps"], first["learning_rates"], color=GREY)
    for place, (label, runs) in enumerate(histories.items()):
        _draw_curve(below, runs, "acc_val", place, label)
    for panel in (above, below):
        _mark_cycles(panel, boundaries)
        panel.grid(axis="y")
    above.set_ylim(0, None)
    above.set_ylabel("learning rate η")
    below.set_ylabel("validation accuracy (%)")
    below.set_xlabel("update step")
    add_legend(figure, below, columns=4)
    figure.suptitle(title)
    return figure


@styled
def plot_learning_rate(schedule: Schedule, title: str) -> Figure:
    """The learning rate over all update steps of a schedule.

    Returns
    -------
    matplotlib.figure.Figure
    """
    total = schedule.total_steps
    # Enough points to look smooth, and every corner of the curve among them.
    ends = np.concatenate([[0], schedule.boundaries])
    corners = np.concatenate([ends, (ends[1:] + ends[:-1]) // 2])
    steps = np.union1d(np.linspace(0, total, 2000).astype(np.int64), corners)
    figure, (axes,) = new_figure(6.4, 2.8)
    axes.plot(steps, learning_rates(schedule, steps), color=COLOURS[0])
    _mark_cycles(axes, schedule.boundaries)
    axes.set_xlim(0, total)
    axes.set_ylim(0, None)
    axes.set_xlabel("update step")
    axes.set_ylabel("learning rate η")
    axes.grid(axis="y")
    figure.suptitle(title)
    return figure


def _draw_curve(axes: Axes, runs: Iterable[History], key: str | _Curve, place: int, label: str) -> None:
    """Draw the mean over the runs at the steps they have in common, in a band of their range.

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
    if not callable(key) and key.startswith("acc"):
        curves = 100 * curves
    style = colour_and_dashes(place)
    if len(runs) > 1:
        axes.fill_between(steps, curves.min(axis=0), curves.max(axis=0), color=style["color"], alpha=0.18, linewidth=0)
    axes.plot(steps, curves.mean(axis=0), label=label, **style)


def _mark_cycles(axes: Axes, boundaries: Steps | None) -> None:
    boundaries = () if boundaries is None else boundaries
    for i, step in enumerate(boundaries):
        axes.axvline(step, color="#b5b5b5", linewidth=0.8, zorder=0.5, label="_" * (i > 0) + "end of a cycle")
    if len(boundaries):
        axes.set_xlim(0, None)


def _limit_loss(axes: Axes, histories: Mapping[str, Sequence[History]]) -> None:
    """Limit the loss axis, which a row of panels shares, to what follows the first steps.

    The loss of an untrained network would flatten the rest of the curves.
    """
    all_runs = [history for runs in histories.values() for history in runs if history.n_points > 1]
    later = [
        history[key][max(1, history.n_points // 20) :] for history in all_runs for key in ("loss_train", "loss_val")
    ]
    values = np.concatenate([*later, []])
    values = values[np.isfinite(values)]  # without validation data, the validation curves are NaN
    if not values.size:
        return
    low, high = values.min(), values.max()
    margin = 0.06 * max(high - low, 1e-3)
    axes.set_ylim(max(0.0, low - margin), high + margin)
