"""Matrices as images: learned filters, and the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..._checks import check_array, check_integer, describe
from ..._typing import AnyArray
from .style import TEXT_WIDTH, Canvas, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def plot_filters(
    filters: ArrayLike | Mapping[str, ArrayLike], title: str = "", columns: int = 2, *, axes: Any = None
) -> Figure:
    """Learned filters as small colour images, the largest first.

    Each filter is scaled by its own largest weight: grey is zero, and a
    colour channel is brighter where its weight is positive.

    Parameters
    ----------
    filters : array_like of float, shape (n_filters, 3, f, f), or mapping of str to such arrays
        One panel each. Filters of one channel, (n_filters, 1, f, f), are drawn in grey.
    title : str, optional
    columns : int, default 2
        Number of panels per row of a new figure.
    axes : array_like of matplotlib.axes.Axes, optional
        Where to draw, as for `plot_comparison`: one for each panel.

    Returns
    -------
    matplotlib.figure.Figure
    """
    arrays = filters if isinstance(filters, Mapping) else {"": filters}
    mosaics = {
        label: _mosaic(f"filters[{label!r}]" if isinstance(filters, Mapping) else "filters", weights)
        for label, weights in arrays.items()
    }
    if not mosaics:
        raise ValueError("filters must hold at least one array, but got none")
    columns = min(check_integer("columns", columns, 1), len(mosaics))
    shapes = [mosaic.shape[0] / mosaic.shape[1] for mosaic in mosaics.values()]
    heights = [max(shapes[i : i + columns]) for i in range(0, len(shapes), columns)]
    side = TEXT_WIDTH / max(columns, 2)
    size = side * columns, 0.6 + sum(0.94 * side * height + 0.35 for height in heights)
    ratios = {"height_ratios": heights}
    canvas = Canvas(axes, *size, len(heights), columns, count=len(mosaics), gridspec_kw=ratios)
    if canvas.is_new:
        canvas.figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.06)
    for panel, (label, mosaic) in zip(canvas.axes, mosaics.items()):
        panel.imshow(mosaic, interpolation="nearest")
        panel.set_title(label)
        panel.set_anchor("N")
    for panel in canvas.axes:
        panel.set_axis_off()
    canvas.add_note("each filter is scaled by its own largest weight; grey is zero")
    each = "; ".join(f"{label} {_describe_filters(array)}".strip() for label, array in arrays.items())
    return canvas.finish(title, f"Filters as small colour images, each scaled by its own largest weight: {each}.")


def _describe_filters(weights: ArrayLike) -> str:
    count, _, height, width = np.shape(weights)
    return f"({count} of {height} × {width} pixels)"


def _mosaic(name: str, weights: ArrayLike) -> AnyArray:
    """All filters, each scaled to 0..1, as one image on a white background: (height, width, 3)."""
    weights = check_array(name, weights, ("n_filters", "channels", "f", "f"), (np.float32, np.float64))
    if not weights.size or weights.shape[1] not in (1, 3):
        raise ValueError(f"{name} must hold filters of 1 or 3 channels, but got {describe(weights)}")
    weights = weights[np.argsort(-np.square(weights).sum(axis=(1, 2, 3)), kind="stable")]
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    tiles = 0.5 + weights / (2 * np.where(largest > 0, largest, 1))
    tiles = np.broadcast_to(tiles, (len(tiles), 3, *tiles.shape[2:])).transpose(0, 2, 3, 1)
    size = tiles.shape[1]
    zoom = max(1, math.ceil(24 / size))  # keeps the gaps thin between small filters
    tiles = tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)
    side, gap = size * zoom, max(1, size * zoom // 12)
    widths = range(math.ceil(math.sqrt(len(tiles))), math.floor(math.sqrt(3.2 * len(tiles))) + 1)
    across = min(widths, key=lambda width: -len(tiles) % width)  # leaves the fewest empty places in the last row
    down = math.ceil(len(tiles) / across)
    canvas = np.ones((down * (side + gap) - gap, across * (side + gap) - gap, 3))
    for i, tile in enumerate(tiles):
        y, x = i // across * (side + gap), i % across * (side + gap)
        canvas[y : y + side, x : x + side] = tile
    return canvas


@styled
def plot_confusion(confusion: ArrayLike, class_names: Sequence[str], title: str = "", *, axes: Any = None) -> Figure:
    """A confusion matrix: each row shows how the images of one class were classified.

    With more than 25 classes there is no space for numbers, and cells are smaller.

    Parameters
    ----------
    confusion : array_like of int, shape (n_classes, n_classes)
        Number of images of the row's class that were predicted as the column's.
    class_names : sequence of str
    title : str, optional
    axes : matplotlib.axes.Axes, optional
        Where to draw, as for `plot_comparison`; the scale of the colours takes
        some of its space.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = [str(name) for name in class_names]
    counts = check_array("confusion", confusion, (len(names), len(names)))
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    many, few = len(names) > 25, len(names) <= 10
    cell, type_size = (0.12, 5.0) if many else (0.42, 7.5) if few else (min(0.42, 4.6 / len(names)), 7.0)
    canvas = Canvas(axes, 1.9 + cell * len(names), 1.5 + cell * len(names))
    (panel,) = canvas.axes
    image = panel.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for (row, column), percent in () if many else np.ndenumerate(share):
        colour = "white" if percent > 55 else "#222222"
        panel.text(column, row, f"{percent:.0f}", color=colour, ha="center", va="center", fontsize=type_size)
    panel.set_xticks(range(len(names)), names, parse_math=False)
    panel.set_yticks(range(len(names)), names, parse_math=False)
    for text in panel.get_xticklabels():
        text.set(rotation=40 if few else 90, ha="right", va="top" if few else "center", rotation_mode="anchor")
    panel.tick_params(length=0)
    if not few:
        panel.tick_params(labelsize=type_size)
    panel.grid(False)
    panel.spines[:].set_visible(False)
    panel.set_xlabel("predicted class")
    panel.set_ylabel("true class")
    bar = canvas.figure.colorbar(image, ax=panel, shrink=0.75, pad=0.02)
    bar.set_label("% of the true class")
    bar.outline.set_visible(False)
    right = "; ".join(f"{name} {share[i, i]:.0f} %" for i, name in enumerate(names))
    return canvas.finish(title, f"Of the images of each class, this share was recognised: {right}.")
