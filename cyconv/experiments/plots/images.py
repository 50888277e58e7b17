"""Matrices as images: learned filters, and the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ..._checks import check_array, check_integer, describe
from ..._typing import AnyArray
from .style import new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def plot_filters(filters: ArrayLike | Mapping[str, ArrayLike], title: str, columns: int = 2) -> Figure:
    """Learned filters as small colour images, the largest first.

    Each filter is scaled by its own largest weight: grey is zero, and a
    colour channel is brighter where its weight is positive.

    Parameters
    ----------
    filters : array_like of float, shape (n_filters, 3, f, f), or mapping of str to such arrays
        One panel each. Filters of one channel, (n_filters, 1, f, f), are drawn in grey.
    title : str
    columns : int, default 2
        Number of panels per row.

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
    figure, axes = new_figure(*size, len(heights), columns, gridspec_kw={"height_ratios": heights})
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.06)
    for panel, (label, mosaic) in zip(axes, mosaics.items()):
        panel.imshow(mosaic, interpolation="nearest")
        panel.set_title(label)
        panel.set_anchor("N")
    for panel in axes:
        panel.set_axis_off()
    figure.suptitle(title)
    return figure


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
def plot_confusion(confusion: ArrayLike, class_names: Sequence[str], title: str) -> Figure:
    """A confusion matrix: each row shows how the images of one class were classified.

    With more than 25 classes there is no space for numbers, and cells are smaller.

    Parameters
    ----------
    confusion : array_like of int, shape (n_classes, n_classes)
        Number of images of the row's class that were predicted as the column's.
    class_names : sequence of str
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = [str(name) for name in class_names]
    counts = check_array("confusion", confusion, (len(names), len(names)))
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    many = len(names) > 25
    width, height = (0.12, 0.12) if many else (0.46, 0.42)
    figure, (axes,) = new_figure(1.9 + width * len(names), 1.5 + height * len(names))
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for (row, column), percent in () if many else np.ndenumerate(share):
        colour = "white" if percent > 55 else "#222222"
        axes.text(column, row, f"{percent:.0f}", color=colour, ha="center", va="center", fontsize=7.5)
    axes.set_xticks(range(len(names)), names, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    for text in axes.get_xticklabels():
        text.set(rotation=90 if many else 40, ha="right", va="center" if many else "top", rotation_mode="anchor")
    if many:
        axes.tick_params(labelsize=5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    bar = figure.colorbar(image, ax=axes, shrink=0.75, pad=0.02)
    bar.set_label("% of the true class")
    bar.outline.set_visible(False)
    figure.suptitle(title)
    return figure
