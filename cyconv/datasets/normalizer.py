"""Normalisation with the training split's per-pixel mean and standard deviation, after whitening or without."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._checks import as_pixels, check_array, check_finite, check_memory, check_real, describe
from .._typing import AnyArray, ImageShape
from .whitening import EPSILON_RANGE, Whitening

_BLOCK = 128  # images per block; the sum of up to 257 bytes fits in 16 bits
_BLOCK_BYTES = 2**22


class Normalizer:
    """Subtract the mean and divide by the standard deviation, per pixel.

    Parameters
    ----------
    mean, std : array_like of float, shape (channels, height, width)
        In units of pixel values (0 to 255); ``std`` must be positive.
    whitening : Whitening, optional
        Applied to the images first; ``mean`` and ``std`` are those of whitened
        pixels then.

    Attributes
    ----------
    mean, std : ndarray of float64, shape (channels, height, width)
        Read-only.
    scale, offset, centre : ndarray of float64, shape (channels, height, width)
        The normalised value is ``(pixel - centre) * scale + offset`` with
        ``scale = 1 / std`` and ``offset = (centre - mean) / std``. ``centre``
        is 0, except where the standard deviation is less than 1/64 of the mean:
        there it is the rounded mean, because the two terms would otherwise
        cancel in float32. Read-only.
    whitening : Whitening or None
        Read-only.

    Raises
    ------
    TypeError, ValueError
        If the shapes differ, a value is not finite, or a standard deviation is
        not positive or so small that normalised pixels would overflow float32.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((2, 1, 1, 2), np.uint8)
    >>> images[1] = 10
    >>> norm = Normalizer.fit(images)
    >>> norm.mean
    array([[[5., 5.]]])
    >>> norm(images)[1]
    array([[[1., 1.]]], dtype=float32)
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    centre: NDArray[np.float64]
    whitening: Whitening | None = None  # what was pickled before there was whitening has none

    def __init__(self, mean: ArrayLike, std: ArrayLike, whitening: Whitening | None = None) -> None:
        mean = _check_statistic("mean", mean)
        std = check_array("std", _check_statistic("std", std), mean.shape)
        if not (std > 0).all():
            raise ValueError(f"std must hold positive numbers, but got {std.min()}")
        with np.errstate(over="ignore"):
            scale = 1.0 / std
            centre = np.where(np.abs(mean) > 64 * std, np.rint(mean), 0.0)
            offset = (centre - mean) / std
            largest = (255.0 + np.abs(centre)) * scale + np.abs(offset)
        if not (largest < np.finfo(np.float32).max).all():
            raise ValueError(
                f"std must be so large that normalised pixels are finite in float32, but got {std.min()} "
                f"with a mean of up to {np.abs(mean).max()}"
            )
        for name, value in (("mean", mean), ("std", std), ("scale", scale), ("offset", offset), ("centre", centre)):
            value.flags.writeable = False
            object.__setattr__(self, name, value)
        if not isinstance(whitening, Whitening | None):
            raise TypeError(f"whitening must be a Whitening or None, but got {describe(whitening)}")
        if whitening is not None and len(whitening.filters) != len(mean):
            raise ValueError(
                f"whitening must be one of {len(mean)} channels as mean is, but got {len(whitening.filters)} channels"
            )
        object.__setattr__(self, "whitening", whitening)

    if not TYPE_CHECKING:  # hidden from type checkers, which would then allow any attribute to be set

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"{name} of a normalizer cannot be changed, but got {describe(value)}")

    def __reduce__(self) -> tuple[type[Self], tuple[AnyArray, AnyArray, Whitening | None]]:
        return type(self), (self.mean, self.std, self.whitening)

    @classmethod
    def fit(cls, images: ArrayLike, whitening: float | None = None) -> Self:
        """Create a normaliser from the mean and standard deviation of each pixel over the images.

        The sums are exact, so mean and standard deviation depend neither on the
        order of the images nor on the machine, given the `Whitening`. The standard
        deviation is that of the population (divided by n); for constant pixels,
        it is set to 1.

        Parameters
        ----------
        images : array_like of int, shape (n, channels, height, width)
            The training images, with pixels 0 to 255.
        whitening : float, optional
            Whiten the images first: the ε of `Whitening.fit`, such as 0.3. By
            default they are not whitened.

        Returns
        -------
        Normalizer

        Raises
        ------
        TypeError, ValueError
            If the images are not such an array, if it is empty, or if whitening
            is not positive.
        """
        images = as_pixels("images", images)
        if images.size == 0:
            raise ValueError(f"images must hold at least one image, but got {describe(images)}")
        fitted = (
            None if whitening is None else Whitening.fit(images, check_real("whitening", whitening, *EPSILON_RANGE))
        )
        sums = PixelSums(images.shape[1:])
        for block in blocks(images):
            sums.add(block if fitted is None else fitted(block))
        return cls(*sums.mean_and_std(), fitted)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        """Create a normaliser from its `arrays`.

        Raises
        ------
        KeyError, TypeError, ValueError
            If they do not describe a normaliser.
        """
        whitening = Whitening(arrays["filters"], arrays["bias"]) if {"filters", "bias"} & set(arrays) else None
        return cls(arrays["mean"], arrays["std"], whitening)

    def equals(self, other: "Normalizer | None") -> bool:
        """Whether another normaliser does the same to images.

        Parameters
        ----------
        other : Normalizer or None

        Returns
        -------
        bool
        """
        if other is None or self.arrays.keys() != other.arrays.keys():
            return False
        return all(np.array_equal(values, other.arrays[name]) for name, values in self.arrays.items())

    @property
    def arrays(self) -> dict[str, AnyArray]:
        """dict of str to ndarray: what files hold of it."""
        arrays: dict[str, AnyArray] = {"mean": self.mean, "std": self.std}
        if self.whitening is not None:
            arrays |= {"filters": self.whitening.filters, "bias": self.whitening.bias}
        return arrays

    def __call__(self, images: ArrayLike) -> NDArray[np.float32]:
        """Normalise images.

        Parameters
        ----------
        images : array_like of int, shape (n, channels, height, width)
            Pixels 0 to 255.

        Returns
        -------
        ndarray of float32, same shape

        Raises
        ------
        TypeError, ValueError
            If the images are not such an array or have another image shape.
        """
        images = as_pixels("images", images, self.mean.shape)
        check_memory("the normalised images", 4 * images.size)
        if self.whitening is not None:
            images = self.whitening(images)
        values = np.subtract(images, self.centre.astype(np.float32), dtype=np.float32)
        values *= self.scale.astype(np.float32)
        values += self.offset.astype(np.float32)
        return values

    def __repr__(self) -> str:
        return (
            f"Normalizer(mean {self.mean.mean():.1f}, standard deviation {self.std.mean():.1f} "
            f"on average over {self.mean.shape}{'' if self.whitening is None else f', {self.whitening!r}'})"
        )


class PixelSums:
    """Exact sums over images, of which a `Normalizer` is made.

    Parameters
    ----------
    image_shape : tuple of int
    """

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        self._n_images = 0
        self._total = np.zeros(image_shape, np.int64)
        self._total_of_squares = np.zeros(image_shape, np.int64)

    def add(self, block: NDArray[np.uint8]) -> None:
        """Add the images of one of the `blocks`."""
        wide = block.astype(np.uint16)
        self._n_images += len(block)
        self._total += np.add.reduce(wide, axis=0, dtype=np.uint16)
        np.multiply(wide, wide, out=wide)
        self._total_of_squares += np.add.reduce(wide, axis=0, dtype=np.uint32)

    def mean_and_std(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each pixel; a deviation of 0 becomes 1."""
        n = self._n_images
        # Python integers: n * total_of_squares may exceed 2**64, and the difference must be exact.
        exact = self._total.astype(object)
        variance = (n * self._total_of_squares.astype(object) - exact * exact).astype(np.float64) / float(n) ** 2
        return self._total / n, np.where(variance > 0, np.sqrt(variance), 1.0)


def blocks(images: AnyArray) -> Iterator[AnyArray]:
    """Consecutive images, so few that a copy of them is small beside the whole."""
    step = max(1, min(_BLOCK, _BLOCK_BYTES // images[0].nbytes))
    for start in range(0, len(images), step):
        yield images[start : start + step]


def check_normalizer(value: object, image_shape: ImageShape) -> Normalizer:
    """Return a normaliser, or raise if it is none for images of this shape."""
    if not isinstance(value, Normalizer):
        raise TypeError(f"normalizer must be a Normalizer or None, but got {describe(value)}")
    if value.mean.shape != image_shape:
        raise ValueError(f"normalizer must be for images of shape {image_shape}, but got one for {value.mean.shape}")
    return value


def check_whitening(epsilon: float | None, normalizer: Normalizer | None, holds_pixels: bool) -> float | None:
    """Return the ε with which a network's normaliser is to be fitted, or raise if none will be."""
    if epsilon is None:
        return None
    epsilon = check_real("whitening", epsilon, *EPSILON_RANGE)
    if not holds_pixels:
        raise ValueError(f"whitening must be None for images that are already floats, but got {epsilon}")
    if normalizer is not None:
        raise ValueError(
            f"whitening must be None for a network that has a normaliser already, which it keeps, but got {epsilon}"
        )
    return epsilon


def _check_statistic(name: str, value: ArrayLike) -> NDArray[np.float64]:
    array = check_array(name, value, ("channels", "height", "width"))
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, but got {describe(array)}")
    return check_finite(name, np.array(array, dtype=np.float64, order="C"))
