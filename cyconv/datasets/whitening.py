"""Whitening: filters after which neighbouring pixels, and channels, hardly correlate any more."""

from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._checks import as_pixels, check_array, check_finite, check_memory, check_real, describe
from .._typing import AnyArray, FloatArray
from ..backend import ops

EPSILON_RANGE = 1e-6, 1e6
SIDE = 5  # width of the filters, at most
_IMAGES = 5_000  # of which the covariance is taken, at most
_BLOCK = 1000  # images at a time
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
        if weights.shape[0] != weights.shape[1] or weights.shape[2] != weights.shape[3] or weights.shape[2] % 2 == 0:
            raise ValueError(
                f"filters must have shape (channels, channels, k, k) with an odd k, but got {describe(weights)}"
            )
        added = check_array("bias", bias, weights.shape[:1])
        for name, array in (("filters", weights), ("bias", added)):
            if array.dtype.kind != "f":
                raise TypeError(f"{name} must be floats, but got {describe(array)}")
            value = check_finite(name, np.array(array, dtype=np.float32, order="C"))
            value.flags.writeable = False
            object.__setattr__(self, name, value)
        unit = 2.0 ** np.floor(np.log2(_EXACT / _largest_sum(self.filters, self.bias)))
        if not all((array.astype(np.float64) * unit % 1 == 0).all() for array in (self.filters, self.bias)):
            raise ValueError("filters and bias must be multiples of a power of two for which sums are exact in float32")

    if not TYPE_CHECKING:  # hidden from type checkers, which would then allow any attribute to be set

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"{name} of a whitening cannot be changed, but got {describe(value)}")

    @classmethod
    def fit(cls, images: ArrayLike, epsilon: float = 0.3) -> Self:
        """Derive the filters from the covariance of windows of 5 × 5 pixels, or less in small images.

        Nine windows are taken from each of up to 5,000 images that are evenly
        spaced. Their covariance is exact; its eigenvectors come from LAPACK, whose
        last bits differ between machines, and hardly survive the rounding of the
        filters.

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
        channels, side = images.shape[1], _side(images)
        mean, covariance = _moments(images[:: max(1, len(images) // _IMAGES)][:_IMAGES], side)
        variances, directions = np.linalg.eigh(covariance)
        floor = epsilon * variances.mean() or 1.0
        whole = (directions / np.sqrt(np.maximum(variances, 0) + floor)) @ directions.T
        centre = side // 2
        rows = whole.reshape(channels, side, side, -1)[:, centre, centre]
        rows *= _STD / (np.sqrt(np.einsum("oi,ij,oj->o", rows, covariance, rows).mean()) or _STD)
        bias = 128 - rows @ mean
        # Rounded to a unit that keeps sums exact, with room for the rounding itself.
        unit = 2.0 ** np.floor(np.log2((_EXACT - 256 * rows.shape[1]) / _largest_sum(rows, bias)))
        filters = np.rint(rows * unit) / unit
        return cls(filters.reshape(channels, channels, side, side), np.rint(bias * unit) / unit)

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
        return ops.whiten(as_pixels("images", images), self.filters, self.bias)

    def __repr__(self) -> str:
        return f"Whitening({self.filters.shape[0]} channels, filters {self.filters.shape[2]} pixels wide)"


def _side(images: AnyArray) -> int:
    """The width of the windows: odd, and at most that of the images."""
    side: int = min(SIDE, *images.shape[2:])
    return side - 1 + side % 2


def _moments(images: AnyArray, side: int) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of windows at the corners, the middles of the sides and the centre of the images."""
    ys, xs = (np.unique([0, (length - side) // 2, length - side]) for length in images.shape[2:])
    size = images.shape[1] * side * side
    check_memory("the covariance of the images' windows", 24 * size * size)
    total, products, n = np.zeros(size), np.zeros((size, size)), 0
    for start in range(0, len(images), _BLOCK):
        for y in ys:
            for x in xs:
                part = images[start : start + _BLOCK, :, y : y + side, x : x + side]
                windows = part.reshape(len(part), size).astype(np.float64)
                # Sums of integers below 2**53, which are exact in any order.
                total += windows.sum(axis=0)
                products += windows.T @ windows
                n += len(windows)
    return total / n, (products - np.outer(total, total) / n) / n


def _largest_sum(filters: FloatArray, bias: FloatArray) -> float:
    """The most that a sum of filters times pixels can come to, signs apart."""
    rows = np.abs(filters.astype(np.float64)).reshape(len(filters), -1)
    return max(1.0, float((255 * rows.sum(axis=1) + np.abs(bias)).max()))
