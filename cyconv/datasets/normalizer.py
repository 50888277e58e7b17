"""Normalisation with the training split's per-pixel mean and standard deviation."""

from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._checks import as_pixels, check_array, check_finite, describe

_BLOCK = 128  # images at once; 257 bytes still add up to less than 2**16


class Normalizer:
    """Subtract a mean and divide by a standard deviation, pixel by pixel.

    Parameters
    ----------
    mean, std : array_like of float, shape (channels, height, width)
        In grey levels; ``std`` must be positive.

    Attributes
    ----------
    mean, std : ndarray of float64, shape (channels, height, width)
        Read-only.
    scale, offset, centre : ndarray of float64, shape (channels, height, width)
        A pixel's normalised value is ``(pixel - centre) * scale + offset``,
        with ``scale = 1 / std`` and ``offset = (centre - mean) / std``.
        ``centre`` is 0 where that is accurate, and the rounded mean where a
        pixel varies by less than 1/64 of it: in float32 the two terms would
        cancel. Read-only.

    Raises
    ------
    TypeError, ValueError
        If shapes differ, a number is not finite, or a deviation is not positive
        or so small that normalised pixels would overflow float32.

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

    def __init__(self, mean: ArrayLike, std: ArrayLike) -> None:
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
                f"std must be so large that pixels divided by it are finite in float32, but got {std.min()} "
                f"with a mean of up to {np.abs(mean).max()}"
            )
        for name, value in (("mean", mean), ("std", std), ("scale", scale), ("offset", offset), ("centre", centre)):
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    if not TYPE_CHECKING:  # to a type checker, it would let every name be set

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"{name} of a normalizer cannot be changed, but got {describe(value)}")

    @classmethod
    def fit(cls, images: ArrayLike) -> Self:
        """The normaliser that gives these images mean 0 and standard deviation 1 at each pixel.

        The sums are exact, so the result depends neither on the images' order
        nor on the machine. The deviation is the population's (divided by n);
        a pixel that never changes counts as having deviation 1.

        Parameters
        ----------
        images : array_like of int, shape (n, channels, height, width)
            The training images: pixels 0 to 255.

        Returns
        -------
        Normalizer

        Raises
        ------
        TypeError, ValueError
            If the images are not such an array or there are none.
        """
        images = as_pixels("images", images)
        if images.size == 0:
            raise ValueError(f"images must hold at least one image, but got {describe(images)}")
        total = np.zeros(images.shape[1:], np.int64)
        total_of_squares = np.zeros(images.shape[1:], np.int64)
        for start in range(0, len(images), _BLOCK):
            block = images[start : start + _BLOCK].astype(np.uint16)
            total += np.add.reduce(block, axis=0, dtype=np.uint16)
            np.multiply(block, block, out=block)
            total_of_squares += np.add.reduce(block, axis=0, dtype=np.uint32)
        n = len(images)
        # Python's integers: n * sum of squares may pass 2**64, and nothing may cancel.
        exact = total.astype(object)
        variance = (n * total_of_squares.astype(object) - exact * exact).astype(np.float64) / float(n) ** 2
        return cls(total / n, np.where(variance > 0, np.sqrt(variance), 1.0))

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
            If the images are no such pixels or of another image shape.
        """
        images = as_pixels("images", images, self.mean.shape)
        values = np.subtract(images, self.centre.astype(np.float32), dtype=np.float32)
        values *= self.scale.astype(np.float32)
        values += self.offset.astype(np.float32)
        return values

    def __repr__(self) -> str:
        return (
            f"Normalizer(mean {self.mean.mean():.1f}, standard deviation {self.std.mean():.1f} "
            f"on average over {self.mean.shape})"
        )


def _check_statistic(name: str, value: ArrayLike) -> NDArray[np.float64]:
    array = check_array(name, value, ("channels", "height", "width"))
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, but got {describe(array)}")
    return check_finite(name, np.array(array, dtype=np.float64, order="C"))
