"""Pictures of what was trained: one function each, all in one style.

Every function returns a `matplotlib.figure.Figure` that belongs to nobody
else: no window system, no global state. A notebook shows it as a picture;
`save_figure` writes it as PNG. The data set's name stands in every title. Colours are Okabe and Ito's, which
remain apart for colour-blind readers; lines differ in their dashes as well.
"""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._checks import as_array, check_array, check_integer, check_real, describe
from .._files import atomic_write, check_path
from .._typing import AnyArray, IntArray, StrPath
from ..history import History
from ..lr_range import LrRangeResult, geometric_mean_range
from ..schedules import CyclicSchedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Parameters = ParamSpec("_Parameters")
_T = TypeVar("_T")
_MappingT = TypeVar("_MappingT", bound=Mapping[Any, Any])
Steps: TypeAlias = Sequence[int] | IntArray
LrRangeResults: TypeAlias = (
    LrRangeResult | Sequence[LrRangeResult] | Mapping[str, LrRangeResult | Sequence[LrRangeResult]]
)
Histories: TypeAlias = History | Sequence[History] | Mapping[str, History | Sequence[History]]

DPI = 150
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)), "-", (0, (5, 1.5)), (0, (1.5, 1)))
_MARKS = "osD^vPX"
_GREY = "#6b6b6b"

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "normal",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
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


def _styled(draw: Callable[_Parameters, _T]) -> Callable[_Parameters, _T]:
    """Run a function that draws in this module's style, whatever matplotlib's settings are."""

    @functools.wraps(draw)
    def styled(*arguments: _Parameters.args, **options: _Parameters.kwargs) -> _T:
        from matplotlib import style

        with style.context(["default", _STYLE]):
            return draw(*arguments, **options)

    return styled


@_styled
def write_png(figure: Figure, file: IO[bytes], dpi: float = DPI) -> None:
    """Write ``figure`` to an open file as PNG, in this module's style."""
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})


def save_figure(figure: Figure, path: StrPath) -> None:
    """Write ``figure`` to ``path`` as PNG with 150 dots per inch, atomically.

    Raises
    ------
    OSError
        If it cannot be written; what stood at ``path`` stays.
    """
    with atomic_write(path) as file:
        write_png(figure, file)


def save_figures(figures: Mapping[str, Figure], folder: StrPath) -> list[str]:
    """Write figures to a folder, under names to which ``.png`` is added.

    Parameters
    ----------
    figures : mapping of str to matplotlib.figure.Figure
    folder : path-like or OutputFolder

    Returns
    -------
    list of str
        The files' names.

    Raises
    ------
    OSError
        If one cannot be written.
    """
    folder = check_path("folder", folder)
    names = {f"{name}.png": figure for name, figure in _check_mapping("figures", figures).items()}
    for name, figure in names.items():
        save_figure(figure, folder / name)
    return list(names)


@_styled
def plot_bars(groups: Mapping[str, float | Sequence[float]], title: str, ylabel: str, percent: bool = False) -> Figure:
    """Compare groups of runs: a bar at each mean, with every run as a dot.

    Parameters
    ----------
    groups : mapping of str to float or sequence of float
        One value per run. The error bar is one standard deviation over the
        runs; a single run has none.
    title, ylabel : str
    percent : bool, default False
        Whether values are shares in 0..1 to be shown in percent.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no group, or a group has no value or one that is not finite.
    """
    scale = 100 if percent else 1
    bars = {
        str(label): scale * _values(f"groups[{label!r}]", values)
        for label, values in _check_mapping("groups", groups).items()
    }
    if not bars:
        raise ValueError("groups must hold at least one group, but got none")
    figure, (axes,) = _figure(max(3.6, 1.7 + 1.15 * len(bars)), 3.6)
    top = max(values.max() for values in bars.values())
    for place, values in enumerate(bars.values()):
        colour = COLOURS[place % len(COLOURS)]
        mean = values.mean()
        deviation = values.std(ddof=1) if len(values) > 1 else 0.0
        axes.bar(place, mean, width=0.6, color=_pale(colour), edgecolor=colour, linewidth=1.0)
        if len(values) > 1:
            axes.errorbar(place, mean, deviation, color="#222222", capsize=4, elinewidth=1.1, capthick=1.1)
        spread = np.linspace(0.1, 0.24, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(
            place + spread,
            values,
            "o",
            color="white",
            markeredgecolor="#222222",
            markersize=4,
            markeredgewidth=0.9,
            linestyle="none",
        )
        text = _short(mean) if len(values) == 1 else f"{_short(mean)} ± {_short(deviation, like=mean)}"
        axes.annotate(
            text,
            (place, max(values.max(), mean + deviation)),
            xytext=(0, 5),
            fontsize=8.5,
            textcoords="offset points",
            ha="center",
            va="bottom",
        )
    axes.set_xticks(range(len(bars)), [_in_lines(label) for label in bars])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(bars) - 0.4)
    axes.set_ylim(0, 1.14 * top if top > 0 else 1)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y")
    _say_what_is_drawn(figure, bars)
    figure.suptitle(title)
    return figure


def _in_lines(label: str, width: int = 17) -> str:
    """A label as narrow as a bar's share of the axis."""
    return "\n".join(line for part in label.split(": ", 1) for line in textwrap.wrap(part, width))


@_styled
def plot_comparison(histories: Histories, title: str, boundaries: Steps = ()) -> Figure:
    """Loss and accuracy on training and validation data, runs against each other.

    Four panels: loss above, accuracy below; training left, validation right;
    the two panels of a row share their scale.

    Parameters
    ----------
    histories : History, sequence of History, or mapping of str to either
        What each line shows: the mean over these runs; the band around it
        reaches from the lowest to the highest.
    title : str
    boundaries : sequence of int, optional
        Update steps where cycles end, drawn as thin upright lines.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or a label has none.
    """
    histories = _in_groups("histories", histories, History)
    figure, axes = _figure(8.4, 6.0, 2, 2, sharex=True, sharey="row")
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
    _limit_loss(axes[:2], histories, ("loss_train", "loss_val"))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, max(1, len(labels))))
    figure.suptitle(title)
    return figure


@_styled
def plot_train_validation(
    histories: Histories, title: str, boundaries: Steps | Mapping[str, Steps] | None = None
) -> Figure:
    """How far training and validation part: one column per group of runs.

    Parameters
    ----------
    histories : History, sequence of History, or mapping of str to either
        One column for each label: loss above, accuracy below, training and validation
        in the same panel. Lines are means over the runs, bands their range.
    title : str
    boundaries : sequence of int, or mapping of str to sequence of int, optional
        Update steps where cycles end, of every column or for each label.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or a label has none.
    """
    histories = _in_groups("histories", histories, History)
    ends = boundaries if isinstance(boundaries, Mapping) else dict.fromkeys(histories, boundaries)
    count = len(histories)
    figure, axes = _figure(max(4.2, 1.2 + 2.2 * count), 5.2, 2, count, sharex="col", sharey="row")
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
    _limit_loss(axes[:count], histories, ("loss_train", "loss_val"))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle(title)
    return figure


@_styled
def plot_gap(histories: Histories, title: str, boundaries: Steps = ()) -> Figure:
    """How much larger the validation loss is than the training loss, runs against each other.

    Parameters
    ----------
    histories : History, sequence of History, or mapping of str to either
        What each line shows: the mean over these runs; the band around it
        reaches from the lowest to the highest.
    title : str
    boundaries : sequence of int, optional
        Update steps where cycles end, drawn as thin upright lines.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or a label has none.
    """
    histories = _in_groups("histories", histories, History)
    figure, (axes,) = _figure(6.4, 3.4)
    for place, (label, runs) in enumerate(histories.items()):
        _draw_curve(axes, runs, lambda history: history["loss_val"] - history["loss_train"], place, label)
    _mark_cycles(axes, boundaries)
    axes.axhline(0, color=_GREY, linewidth=0.8)
    axes.set_xlabel("update step")
    axes.set_ylabel("validation − training loss")
    axes.grid(axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(title)
    return figure


@_styled
def plot_lr_range(results: LrRangeResults, title: str) -> Figure:
    """Learning-rate range tests: the cost while the learning rate rises, one panel for each network.

    Dots are the costs of single batches, lines their moving means, one of each
    for every run. The suggested range, the geometric mean over the runs, is
    shaded and written above.

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
        If it is none of these, or a label has none.
    """
    results = _in_groups("results", results, LrRangeResult)
    columns = 2 if len(results) == 4 else min(3, len(results))
    rows = math.ceil(len(results) / columns)
    figure, axes = _figure(0.9 + 3.1 * columns, 0.8 + 2.6 * rows, rows, columns, sharex=True)
    for panel, (label, runs) in zip(axes, results.items()):
        for place, run in enumerate(runs):
            colour = COLOURS[place % len(COLOURS)]
            panel.plot(run.learning_rates, run.costs, ".", color=colour, markersize=2, alpha=0.2, markeredgewidth=0)
            panel.plot(run.learning_rates, run.smoothed, color=colour, linestyle=DASHES[place % len(DASHES)])
        ends = geometric_mean_range(runs)
        text = "no range suggested"
        if ends:
            panel.axvspan(*ends, color="#e9e9e9", linewidth=0, zorder=0)
            for end in ends:
                panel.axvline(end, color=_GREY, linewidth=0.9)
            text = f"suggested: {ends[0]:.1e} to {ends[1]:.1e}"
        panel.set_title(f"{label}\n{text}".lstrip("\n"))
        low = min(run.smoothed.min() for run in runs)
        start = max(run.smoothed[: max(1, len(run.smoothed) // 10)].max() for run in runs)
        panel.set_ylim(low - 0.15 * (start - low), start + 0.35 * (start - low))
        panel.set_xscale("log")
        panel.grid(axis="y")
    for panel in axes[len(results) :]:
        panel.set_axis_off()
    for place, panel in enumerate(axes[: len(results)]):
        if place % columns == 0:
            panel.set_ylabel("cost of the batch")
        if place + columns >= len(results):
            panel.set_xlabel("learning rate η")
            panel.tick_params(axis="x", labelbottom=True)
    figure.supxlabel("dots: costs of batches; lines: their moving means, one for each run", fontsize=8, color=_GREY)
    figure.suptitle(title)
    return figure


@_styled
def plot_panels(
    panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]], title: str, xlabel: str, ylabel: str
) -> Figure:
    """Measured times against a size, one panel per kind, both axes logarithmic.

    Parameters
    ----------
    panels : mapping of str to mapping of str to mapping of int to sequence of float
        For each panel's heading, each line's label and each place on the
        x axis: the measurements. A line goes through the medians; a bar spans
        the lowest to the highest.
    title, xlabel, ylabel : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.ticker import FuncFormatter, LogLocator

    if not _check_mapping("panels", panels):
        raise ValueError("panels must hold at least one panel, but got none")
    count = len(panels)
    figure, axes = _figure(max(5.6, 1.0 + 2.3 * count), 3.6, 1, count, sharey=True)
    places = sorted({x for lines in panels.values() for line in lines.values() for x in line})
    for panel, (heading, lines) in zip(axes, panels.items()):
        for place, (label, line) in enumerate(lines.items()):
            middle = np.array([np.median(values) for values in line.values()])
            low, high = (np.array([end(values) for values in line.values()]) for end in (np.min, np.max))
            panel.errorbar(
                list(line),
                middle,
                [middle - low, high - middle],
                color=COLOURS[place % len(COLOURS)],
                linestyle=DASHES[place % len(DASHES)],
                marker="o",
                markersize=4,
                capsize=2.5,
                elinewidth=1,
                label=label,
            )
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        panel.set_xticks(places, [str(place) for place in places])
        panel.minorticks_off()
        panel.margins(x=0.12)
        panel.set_title(heading)
        panel.set_xlabel(xlabel)
        panel.grid(axis="y")
    axes[0].set_ylabel(ylabel)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(title)
    return figure


@_styled
def plot_learning_rate(schedule: CyclicSchedule, title: str) -> Figure:
    """The learning rate over all update steps of a `CyclicSchedule`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    total = schedule.total_steps
    # Enough points for the eye, and every corner of the curve among them.
    ends = np.concatenate([[0], schedule.boundaries])
    corners = np.concatenate([ends, (ends[1:] + ends[:-1]) // 2])
    steps = np.union1d(np.linspace(0, total, 2000).astype(np.int64), corners)
    figure, (axes,) = _figure(6.4, 2.8)
    axes.plot(steps, schedule(steps), color=COLOURS[0])
    _mark_cycles(axes, schedule.boundaries)
    axes.set_xlim(0, total)
    axes.set_ylim(0, None)
    axes.set_xlabel("update step")
    axes.set_ylabel("learning rate η")
    axes.grid(axis="y")
    figure.suptitle(title)
    return figure


@_styled
def plot_filters(filters: ArrayLike | Mapping[str, ArrayLike], title: str, columns: int = 2) -> Figure:
    """Learned filters as small colour images, the largest first.

    Each filter is scaled by its own largest weight: grey is zero, and a
    colour channel is brighter where its weight is positive.

    Parameters
    ----------
    filters : array_like of float, shape (n_filters, 3, f, f), or mapping of str to such arrays
        One panel each. One-channel filters, (n_filters, 1, f, f), are drawn in grey.
    title : str
    columns : int, default 2
        Panels side by side.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if isinstance(filters, Mapping):
        mosaics = {label: _mosaic(f"filters[{label!r}]", weights) for label, weights in filters.items()}
    else:
        mosaics = {"": _mosaic("filters", filters)}
    if not mosaics:
        raise ValueError("filters must hold at least one array, but got none")
    columns = min(check_integer("columns", columns, 1), len(mosaics))
    shapes = [mosaic.shape[0] / mosaic.shape[1] for mosaic in mosaics.values()]
    heights = [max(shapes[i : i + columns]) for i in range(0, len(shapes), columns)]
    size = 3.6 * columns, 0.4 + sum(3.4 * height + 0.35 for height in heights)
    figure, axes = _figure(*size, len(heights), columns, gridspec_kw={"height_ratios": heights})
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.06)
    for panel, (label, mosaic) in zip(axes, mosaics.items()):
        panel.imshow(mosaic, interpolation="nearest")
        panel.set_title(label)
        panel.set_anchor("N")
    for panel in axes:
        panel.set_axis_off()
    figure.suptitle(title)
    return figure


@_styled
def plot_confusion(confusion: ArrayLike, class_names: Sequence[str], title: str) -> Figure:
    """A confusion matrix: in each row, where the images of one class went.

    Parameters
    ----------
    confusion : array_like of int, shape (n_classes, n_classes)
        Number of images of the row's class that were taken for the column's.
    class_names : sequence of str
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = [str(name) for name in class_names]
    counts = check_array("confusion", confusion, (len(names), len(names)))
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, (axes,) = _figure(1.9 + 0.46 * len(names), 1.5 + 0.42 * len(names))
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for row in range(len(names)):
        for column in range(len(names)):
            colour = "white" if share[row, column] > 55 else "#222222"
            percent = f"{share[row, column]:.0f}"
            axes.text(column, row, percent, color=colour, ha="center", va="center", fontsize=7.5)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    bar = figure.colorbar(image, ax=axes, shrink=0.75, pad=0.02)
    bar.set_label("% of the true class")
    bar.outline.set_visible(False)
    figure.suptitle(title)
    return figure


@_styled
def plot_search(
    rounds: Mapping[str, Mapping[float, Sequence[float]]], title: str, chosen: float | None = None
) -> Figure:
    """Validation accuracy against the weight decay λ on a logarithmic axis, rounds told apart.

    Parameters
    ----------
    rounds : mapping of str to mapping of float to sequence of float
        For each round, under its label, the accuracies in 0..1 of the runs of
        every λ > 0: a small dot each, and a large mark at their mean.
    title : str
    chosen : float, optional
        A λ to mark with an upright line.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a λ is not above 0, or has no accuracy or one that is not finite.
    """
    figure, (axes,) = _figure(6.4, 4.0)
    for place, (label, groups) in enumerate(_check_mapping("rounds", rounds).items()):
        colour = COLOURS[place % len(COLOURS)]
        means = {}
        for l2, accuracies in sorted(groups.items()):
            values = 100 * _values(f"rounds[{label!r}][{l2!r}]", accuracies)
            check_real("λ", l2, 0, None, "()")
            means[l2] = values.mean()
            if len(values) > 1:
                axes.plot([l2] * len(values), values, ".", color=_pale(colour), markersize=5, zorder=1.5)
        axes.plot(
            list(means),
            list(means.values()),
            _MARKS[place % len(_MARKS)],
            color=colour,
            label=label,
            markersize=6.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=2.5,
        )
    axes.set_xscale("log")
    axes.set_xlabel("weight decay λ")
    axes.set_ylabel("validation accuracy (%)")
    axes.grid(axis="y")
    sizes = {len(values) for groups in rounds.values() for values in groups.values()}
    if max(sizes, default=1) > 1:
        axes.plot([], [], ".", color=_pale(_GREY), markersize=5, label="each run")
    if chosen is not None:
        axes.axvline(chosen, color=_GREY, linewidth=0.9, zorder=0.5, label=f"λ = {chosen:.3g}, best mean")
    figure.legend(loc="outside lower center", ncols=5)
    figure.suptitle(title)
    return figure


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of this size in inches, and its axes as a flat list."""
    from .figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns, **options)).ravel())


def _in_groups(name: str, value: Any, kind: type[_T]) -> dict[str, list[_T]]:
    """``value`` as a dict of label to list of ``kind``; what came without a label gets an empty one."""
    these = f"a {kind.__name__} or a sequence of them"
    if isinstance(value, kind) or not isinstance(value, Mapping):
        groups = {"": _as_list(name, value, kind, f"{these}, or a mapping of labels to these")}
    else:
        groups = {label: _as_list(f"{name}[{label!r}]", runs, kind, these) for label, runs in value.items()}
    if not groups or not all(groups.values()):
        raise ValueError(f"{name} must hold at least one {kind.__name__} for each label, but got {describe(value)}")
    return groups


def _as_list(name: str, value: Any, kind: type[_T], wanted: str) -> list[_T]:
    try:
        values = [value] if isinstance(value, kind) else list(value)
    except Exception:  # whatever a stranger's __iter__ raises
        values = [value]
    if not all(isinstance(item, kind) for item in values):
        raise TypeError(f"{name} must be {wanted}, but got {describe(value)}")
    return values


def _check_mapping(name: str, value: _MappingT) -> _MappingT:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping, but got {describe(value)}")
    return value


def _values(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.atleast_1d(as_array(name, values))
    if array.ndim != 1 or not array.size or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError(f"{name} must hold finite numbers, but got {describe(values)}")
    return array.astype(np.float64)


def _pale(colour: str) -> tuple[float, float, float]:
    """The colour, half of it white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (0.5 + 0.5 * part for part in to_rgb(colour))
    return red, green, blue


def _short(number: float, like: float | None = None) -> str:
    """Three significant digits or so, with the decimals that ``like`` would have."""
    size = abs(number if like is None else like)
    decimals = 0 if size >= 1000 else 1 if size >= 10 else 2
    return f"{number:,.{decimals}f}"


def _say_what_is_drawn(figure: Figure, groups: Mapping[str, NDArray[np.float64]]) -> None:
    sizes = {len(values) for values in groups.values()}
    if sizes == {1}:
        text = "one run each"
    else:
        runs = f"{sizes.pop()} runs" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)} runs"
        text = f"bar: mean of {runs}; line: ± one standard deviation; dots: the runs"
    figure.supxlabel(text, fontsize=8, color=_GREY)


def _draw_curve(
    axes: Axes, runs: Iterable[History], key: str | Callable[[History], NDArray[np.float64]], place: int, label: str
) -> None:
    """Mean over the runs at the steps they share, and the range as a band; a key may be a function of a history."""
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
    colour = COLOURS[place % len(COLOURS)]
    if len(runs) > 1:
        low, high = curves.min(axis=0), curves.max(axis=0)
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(steps, curves.mean(axis=0), color=colour, linestyle=DASHES[place % len(DASHES)], label=label)


def _mark_cycles(axes: Axes, boundaries: Steps | None) -> None:
    boundaries = () if boundaries is None else boundaries
    for i, step in enumerate(boundaries):
        axes.axvline(step, color="#b5b5b5", linewidth=0.8, zorder=0.5, label="_" * (i > 0) + "end of a cycle")
    if len(boundaries):
        axes.set_xlim(0, None)


def _limit_loss(panels: Sequence[Axes], histories: Mapping[str, Sequence[History]], keys: Sequence[str]) -> None:
    """Let a first, untrained loss not flatten all the rest of the curves."""
    all_runs = [history for runs in histories.values() for history in runs if history.n_points > 1]
    later = [history[key][max(1, history.n_points // 20) :] for history in all_runs for key in keys]
    values = np.concatenate([*later, []])
    values = values[np.isfinite(values)]  # without validation, its curves hold NaN
    if not values.size:
        return
    low, high = values.min(), values.max()
    margin = 0.06 * max(high - low, 1e-3)
    panels[0].set_ylim(max(0.0, low - margin), high + margin)  # the panels of a row share their scale


def _mosaic(name: str, weights: ArrayLike) -> AnyArray:
    """The filters, each scaled to 0..1, on a white ground: (height, width, 3)."""
    weights = check_array(name, weights, ("n_filters", "channels", "f", "f"), (np.float32, np.float64))
    if not weights.size or weights.shape[1] not in (1, 3):
        raise ValueError(f"{name} must hold filters of 1 or 3 channels, but got {describe(weights)}")
    weights = weights[np.argsort(-np.square(weights).sum(axis=(1, 2, 3)), kind="stable")]
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    tiles = 0.5 + weights / (2 * np.where(largest > 0, largest, 1))
    tiles = np.broadcast_to(tiles, (len(tiles), 3, *tiles.shape[2:])).transpose(0, 2, 3, 1)
    size = tiles.shape[1]
    zoom = max(1, math.ceil(24 / size))  # so that the gap stays thin beside small filters
    tiles = tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)
    side, gap = size * zoom, max(1, size * zoom // 12)
    widths = range(math.ceil(math.sqrt(len(tiles))), math.floor(math.sqrt(3.2 * len(tiles))) + 1)
    across = min(widths, key=lambda width: -len(tiles) % width)  # as few gaps in the last row as can be
    down = math.ceil(len(tiles) / across)
    canvas = np.ones((down * (side + gap) - gap, across * (side + gap) - gap, 3))
    for i, tile in enumerate(tiles):
        y, x = i // across * (side + gap), i % across * (side + gap)
        canvas[y : y + side, x : x + side] = tile
    return canvas
