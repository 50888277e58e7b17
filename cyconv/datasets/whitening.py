"""Whitening: filters after which neighbouring pixels, and channels, hardly correlate any more."""

from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._checks import as_pixels, check_array, check_finite, check_memory, check_real, describe
from .._typing import AnyArray, FloatArray
from ..backend import ops

EPSILON_RANGE = 1e-6, 1e6
SIDE = 5  # width of the filters
_WINDOWS = 50_000  # of which the covariance is taken, at most
_BLOCK = 5_000  # windows at a time
_STD = 36.0  # of a whitened pixel: 0 and 255 are 3.5 standard deviations from 128
_EXACT = 2**24  # float32 holds all integers up to this one


class Whitening:
    """Filter images so that neighbouring pixels, and channels, hardly correlate any more.

    This is ZCA whitening of windows (Bell & Sejnowski 1997; Krizhevsky 2009), of
    which the row of the window's central pixel is taken as a filter for the
    whole image: with the windows' covariance ``U diag(e) Uᵀ``, the filters are
    rows of ``U diag(1/√(e + ε·mean(e))) Uᵀ``. At the border, an image is
    continued by its outermost pixels. Whitened images are uint8 pixels again,
    with a mean of 128 and a standard deviation of 36 or so.

    Parameters
    ----------
    filters : array_like of float, (channels, channels, k, k)
        One filter for each pair of an output and an input channel; k is odd.
    bias : array_like of float, (channels,)
        Added to each output channel.

    Attributes
    ----------
    filters, bias : ndarray of float32
        Read-only. Multiples of a power of two such that all sums of a filter
        times pixels are exact in float32: the same filters give the same bytes
        on every machine.

    Raises
    ------
    TypeError, ValueError
        If a shape is wrong, a value is not finite, or sums would not be exact.

    Examples
    --------
    >>> import cyconv
    >>> images = cyconv.make_shapes(n_train=200, n_validation=1, n_test=1, seed=0).train.images
    >>> whitening = Whitening.fit(images)
    >>> whitened = whitening(images)
    >>> whitened.shape, whitened.dtype
    ((200, 3, 32, 32), dtype('uint8'))
    """

    filters: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __init__(self, filters: ArrayLike, bias: ArrayLike) -> None:
        weights = check_array("filters", filters, ("channels", "channels", "k", "k"))
        n_out, n_in, height, width = weights.shape
        if n_out != n_in or n_out == 0 or height != width or width % 2 == 0:
            raise ValueError(
                "filters must have shape (channels, channels, k, k) with at least one channel and an odd k, "
                f"but got {describe(weights)}"
            )
        added = check_array("bias", bias, weights.shape[:1])
        for name, array in (("filters", weights), ("bias", added)):
            if array.dtype.kind != "f":
                raise TypeError(f"{name} must be floats, but got {describe(array)}")
            with np.errstate(over="ignore"):  # check_finite reports what overflows float32
                value = check_finite(name, np.array(array, dtype=np.float32, order="C"))
            value.flags.writeable = False
            object.__setattr__(self, name, value)
        unit = 2.0 ** np.floor(np.log2(_EXACT / _largest_sum(self.filters, self.bias)))
        if not all((array.astype(np.float64) * unit % 1 == 0).all() for array in (self.filters, self.bias)):
            raise ValueError(
                f"filters and bias must be multiples of {1 / unit:g}, so that sums are exact in float32, "
                "but got others: round them"
            )

    def __reduce__(self) -> tuple[type[Self], tuple[AnyArray, AnyArray]]:
        return type(self), (self.filters, self.bias)

    if not TYPE_CHECKING:  # hidden from type checkers, which would then allow any attribute to be set

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"{name} of a whitening cannot be changed, but got {describe(value)}")

    @classmethod
    def fit(cls, images: ArrayLike, epsilon: float = 0.3) -> Self:
        """Derive the filters from the covariance of windows of 5 × 5 pixels.

        Up to 50,000 windows are taken, evenly spread over all images and all
        places in them. Their covariance is exact; its eigenvectors come from
        LAPACK, whose last bits differ between machines, and hardly survive the
        rounding of the filters. Another order of the images gives slightly
        different filters.

        Parameters
        ----------
        images : array_like of int, shape (n, channels, height, width)
            The training images, with pixels 0 to 255.
        epsilon : float, default 0.3
            ε, in units of the mean variance: how much of the correlations is
            left. With less, noise is amplified; with much more, images stay as
            they are.

        Returns
        -------
        Whitening

        Raises
        ------
        TypeError, ValueError
            If the images are not such an array or if it is empty, or if epsilon
            is not positive.
        """
        images = as_pixels("images", images)
        epsilon = check_real("epsilon", epsilon, *EPSILON_RANGE)
        if images.size == 0:
            raise ValueError(f"images must hold at least one image, but got {describe(images)}")
        channels = images.shape[1]
        mean, covariance = _moments(images)
        variances, directions = np.linalg.eigh(covariance)
        floor = epsilon * variances.mean() or 1.0
        whole = (directions / np.sqrt(np.maximum(variances, 0) + floor)) @ directions.T
        rows = whole.reshape(channels, SIDE, SIDE, -1)[:, SIDE // 2, SIDE // 2]
        variance = np.einsum("oi,ij,oj->o", rows, covariance, rows).mean()
        if variance < 1e-6 / (1 + epsilon):  # no pixel in the middle of a window varied
            variance = 1 / epsilon  # that of one that varies as much as others
        rows *= _STD / np.sqrt(variance)
        # Rounded to a unit that keeps sums exact, with room for the rounding itself.
        largest = _largest_sum(rows, 128 + np.abs(rows) @ mean)
        unit = 2.0 ** np.floor(np.log2((_EXACT - 256 * rows.shape[1]) / largest))
        rows = np.rint(rows * unit) / unit
        bias = np.rint((128 - rows @ mean) * unit) / unit
        return cls(rows.reshape(channels, channels, SIDE, SIDE), bias)

    def __call__(self, images: ArrayLike) -> NDArray[np.uint8]:
        """Whiten images.

        Parameters
        ----------
        images : array_like of int, shape (n, channels, height, width)
            Pixels 0 to 255.

        Returns
        -------
        ndarray of uint8, same shape

        Raises
        ------
        TypeError, ValueError
            If the images are not such an array or have another number of channels.
        """
        images = as_pixels("images", images)
        if images.shape[1] != len(self.filters):
            raise ValueError(
                f"images must have {len(self.filters)} channels, as the whitening has, but got {describe(images)}"
            )
        return ops.whiten(images, self.filters, self.bias)

    def __repr__(self) -> str:
        return f"Whitening({self.filters.shape[0]} channels, filters {self.filters.shape[2]} pixels wide)"


def _moments(images: AnyArray) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of windows around pixels all over the images, as the filters see them."""
    n_images, channels, height, width = images.shape
    size = channels * SIDE**2
    check_memory("the covariance of the images' windows", 24 * size * size)
    count = min(_WINDOWS, n_images * height * width)
    # Multiples of the golden ratio, modulo 1, fill the places in the images evenly.
    k = np.arange(count, dtype=np.int64)  # whose products NumPy 1 would not hold on Windows by default
    which, places = k * n_images // count, (k * 2654435769 % 2**32) * (height * width) >> 32
    around = np.arange(SIDE) - SIDE // 2
    ys = (places // width)[:, None] + around
    xs = (places % width)[:, None] + around
    total, products = np.zeros(size), np.zeros((size, size))
    for start in range(0, count, _BLOCK):
        part = slice(start, start + _BLOCK)
        y, x = ys[part].clip(0, height - 1), xs[part].clip(0, width - 1)
        pixels = images[which[part, None, None], :, y[:, :, None], x[:, None, :]]
        windows = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), size).astype(np.float64)
        # Sums of integers below 2**53, which are exact in any order.
        total += windows.sum(axis=0)
        products += windows.T @ windows
    return total / count, (products - np.outer(total, total) / count) / count


def _largest_sum(filters: FloatArray, bias: FloatArray) -> float:
    """The most that a sum of filters times pixels can come to, signs apart."""
    rows = np.abs(filters.astype(np.float64)).reshape(len(filters), -1)
    return max(1.0, float((255 * rows.sum(axis=1) + np.abs(bias)).max()))
