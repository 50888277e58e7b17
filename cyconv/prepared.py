"""Images and labels prepared for a network: checked once, and copied only if necessary."""

import copy
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._checks import (
    are_probabilities,
    as_images,
    as_numbers,
    check_finite,
    check_labels,
    check_memory,
    check_probabilities,
    check_unsmoothed,
    describe,
    smoothed,
)
from ._typing import AnyArray, FloatArray, ImageShape, IntArray
from .datasets import Normalizer
from .datasets.normalizer import check_normalizer

if TYPE_CHECKING:
    from .network import Network


class PreparedData:
    """Images, labels and normalisation, as returned by :meth:`Network.prepare`.

    Contiguous images are not copied, and uint8 pixels are not converted: each
    batch is normalised and cut into patches while it is gathered. If the normaliser
    whitens, the whitened pixels are kept. Prepared data are
    immutable and can be used with every network of the same image shape and
    dtype.

    Attributes
    ----------
    n_images : int
    labels : ndarray of int32, (n,), or of the network's dtype, (n, n_classes), or None
        Classes, or probabilities of them. Read-only.
    """

    n_images: int
    labels: NDArray[np.int32] | FloatArray | None
    pixels: NDArray[np.uint8] | None
    values: FloatArray | None
    scale: FloatArray | None
    offset: FloatArray | None
    centre: FloatArray | None
    dtype: np.dtype[np.floating]
    image_shape: ImageShape
    n_classes: int

    def __init__(
        self,
        network: "Network",
        images: ArrayLike,
        labels: ArrayLike | None,
        normalizer: Normalizer | None = None,
        name: str = "images",
    ) -> None:
        array = as_images(name, images, network.image_shape)
        if array.shape[0] == 0:
            raise ValueError(f"{name} must hold at least one image, but got {describe(array)}")
        self.n_images = array.shape[0]
        self.dtype = network.dtype
        self.image_shape = network.image_shape
        self.n_classes = network.n_classes
        self.labels = None if labels is None else self._checked_labels(labels)
        self.pixels = self.values = self.scale = self.offset = self.centre = None
        if array.dtype == np.uint8:
            self._set_pixels(name, array, network.normalizer if normalizer is None else normalizer)
        elif array.dtype.kind == "f":
            if normalizer is not None:
                raise ValueError("normalizer must be None for images that are already floats, but got one")
            if array.dtype != self.dtype:
                check_memory(name, array.size * self.dtype.itemsize)
            with np.errstate(over="ignore"):  # check_finite reports what overflows the narrower dtype
                self.values = np.ascontiguousarray(array, dtype=self.dtype)
            check_finite(name, self.values)
            if _look_like_pixels(self.values, network.normalizer):
                _warn(
                    f"{name} must be normalised if they are floats, but got values from {self.values.min():g} "
                    f"to {self.values.max():g}, which look like pixels: pass uint8 pixels, or the output of a "
                    "Normalizer"
                )
        else:
            raise TypeError(f"{name} must have dtype uint8, float32 or float64, but got {describe(array)}")
        if self.labels is not None:
            self.labels.flags.writeable = False
        self._sealed = True

    if not TYPE_CHECKING:  # hidden from type checkers, which would then allow any attribute to be set

        def __setattr__(self, name: str, value: object) -> None:
            """Reject changes: the kernels rely on what the constructor checked."""
            if getattr(self, "_sealed", False):
                raise AttributeError(f"{name} of prepared data cannot be changed, but got {describe(value)}")
            object.__setattr__(self, name, value)

    def _checked_labels(self, labels: ArrayLike) -> NDArray[np.int32] | FloatArray:
        labels = as_numbers("labels", labels)
        if are_probabilities(labels):
            return check_probabilities("labels", labels, self.n_images, self.n_classes, self.dtype)
        return check_labels("labels", labels, self.n_images, self.n_classes)

    def _set_pixels(self, name: str, array: AnyArray, normalizer: Normalizer | None) -> None:
        if normalizer is None:
            raise ValueError(f"normalizer must be given if {name} are uint8 pixels, but the network has none")
        check_normalizer(normalizer, self.image_shape)
        self.scale, self.offset, centre = (self._statistic(normalizer, part) for part in ("scale", "offset", "centre"))
        self.centre = centre if centre.any() else None  # the kernels have faster code for no centre
        self.pixels = np.ascontiguousarray(array if normalizer.whitening is None else normalizer.whitening(array))

    def _statistic(self, normalizer: Normalizer, part: str) -> FloatArray:
        return check_finite(f"normalizer.{part}", np.ascontiguousarray(getattr(normalizer, part), dtype=self.dtype))

    def __len__(self) -> int:
        return self.n_images

    def take(self, indices: IntArray | slice) -> "PreparedData":
        """The images with these numbers, and their labels, copied unless they are a slice."""
        taken = copy.copy(self)
        for name in ("pixels", "values", "labels"):
            array = getattr(self, name)
            object.__setattr__(taken, name, None if array is None else array[indices])
        images = taken.values if taken.pixels is None else taken.pixels
        assert images is not None
        object.__setattr__(taken, "n_images", len(images))
        if taken.labels is not None:
            taken.labels.flags.writeable = False
        return taken

    def view(self, values: FloatArray) -> "PreparedData":
        """Normalised images that were made from these, without labels; they are not checked again."""
        view = copy.copy(self)
        for name in ("labels", "pixels", "scale", "offset", "centre"):
            object.__setattr__(view, name, None)
        object.__setattr__(view, "values", values)
        object.__setattr__(view, "n_images", len(values))
        return view

    def kernel_arguments(self) -> tuple[Any, ...]:
        """The kernels' arguments: pixels, values, scale, offset and centre."""
        return self.pixels, self.values, self.scale, self.offset, self.centre

    def normalised(self, images: slice) -> FloatArray:
        """Some of the images, normalised."""
        if self.pixels is None:
            assert self.values is not None
            return self.values[images]
        pixels = self.pixels[images].astype(self.dtype)
        if self.centre is not None:
            pixels -= self.centre
        pixels *= self.scale
        pixels += self.offset
        return pixels

    def targets(self, label_smoothing: float = 0.0) -> tuple[Any, ...]:
        """The kernels' arguments: classes, probabilities, and the smoothed probabilities of the class and others."""
        if self.labels is None or self.labels.ndim == 1:
            return self.labels, None, *smoothed(label_smoothing, self.n_classes)
        check_unsmoothed(label_smoothing)
        return None, self.labels, 1.0, 0.0


def _look_like_pixels(values: FloatArray, normalizer: Normalizer | None) -> bool:
    """Whether floats look like pixels, from 0 to 255 or from 0 to 1, that were not normalised.

    Normalised images contain negative values, usually in the first image already. Normalised bright images may have
    none; undoing the normalisation then gives integers up to 255.
    """
    if values[0].min() < 0:
        return False
    lowest, highest = values.min(), values.max()
    if lowest < 0 or lowest == highest or highest > 255:
        return False
    if normalizer is None:
        return bool(highest > 32)
    pixels = values[:16] * normalizer.std + normalizer.mean
    return bool(pixels.max() > 256 or (highest <= 1 and np.abs(pixels - np.rint(pixels)).max() > 0.05))


def _warn(message: str) -> None:
    """Issue a UserWarning that points to the line that called into this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
