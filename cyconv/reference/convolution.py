"""Patches, and the three implementations of the convolution in the course."""

from collections.abc import Sequence

import numpy as np

from cyconv._typing import FloatArray


def im2col(images: FloatArray, filter_size: int) -> FloatArray:
    """Cut images into non-overlapping patches.

    Parameters
    ----------
    images : ndarray (N, C, H, W)
    filter_size : int
        Width f of the square patches; divides H and W.

    Returns
    -------
    ndarray (N, D, P)
        One patch per column, D = C·f² and P = (H/f)·(W/f).

    Examples
    --------
    >>> im2col(np.arange(16.0).reshape(1, 1, 4, 4), 2)[0, :, 0]
    array([0., 1., 4., 5.])
    """
    n, channels, height, width = images.shape
    f = filter_size
    tiles = images.reshape(n, channels, height // f, f, width // f, f)  # n c py dy px dx
    return tiles.transpose(0, 1, 3, 5, 2, 4).reshape(n, channels * f * f, -1)


def col2im(patches: FloatArray, image_shape: Sequence[int], filter_size: int) -> FloatArray:
    """Assemble patches into images: the inverse of :func:`im2col`.

    Parameters
    ----------
    patches : ndarray (N, D, P)
    image_shape : (C, H, W)
    filter_size : int

    Returns
    -------
    ndarray (N, C, H, W)

    Examples
    --------
    >>> images = np.arange(96.0).reshape(2, 3, 4, 4)
    >>> np.array_equal(col2im(im2col(images, 2), (3, 4, 4), 2), images)
    True
    """
    channels, height, width = image_shape
    f = filter_size
    tiles = patches.reshape(-1, channels, f, f, height // f, width // f)  # n c dy dx py px
    return tiles.transpose(0, 1, 4, 2, 5, 3).reshape(-1, channels, height, width)


def convolve_loops(images: FloatArray, weight: FloatArray, bias: FloatArray) -> FloatArray:
    """Convolve by definition, with loops over images, filters and patches.

    Parameters
    ----------
    images : ndarray (N, C, H, W)
    weight : ndarray (F, C, f, f)
    bias : ndarray (F,)

    Returns
    -------
    ndarray (N, F, H/f, W/f)
        The output before the ReLU.

    Examples
    --------
    >>> convolve_loops(np.ones((1, 3, 4, 4)), np.ones((1, 3, 2, 2)), np.array([0.5]))[0, 0]
    array([[12.5, 12.5],
           [12.5, 12.5]])
    """
    n, _, height, width = images.shape
    n_filters, _, f, _ = weight.shape
    output = np.empty((n, n_filters, height // f, width // f), dtype=images.dtype)
    for image in range(n):
        for k in range(n_filters):
            for y in range(height // f):
                for x in range(width // f):
                    patch = images[image, :, y * f : (y + 1) * f, x * f : (x + 1) * f]
                    output[image, k, y, x] = np.sum(patch * weight[k]) + bias[k]
    return output


def convolve_matmul(images: FloatArray, weight: FloatArray, bias: FloatArray) -> FloatArray:
    """Convolve with one matrix product per image, F M_X + b; same signature as :func:`convolve_loops`.

    Examples
    --------
    >>> convolve_matmul(np.ones((1, 3, 4, 4)), np.ones((1, 3, 4, 4)), np.array([0.5]))
    array([[[[48.5]]]])
    """
    n, _, height, width = images.shape
    n_filters, _, f, _ = weight.shape
    output = weight.reshape(n_filters, -1) @ im2col(images, f) + bias[:, None]
    return output.reshape(n, n_filters, height // f, width // f)


def convolve_einsum(images: FloatArray, weight: FloatArray, bias: FloatArray) -> FloatArray:
    """Convolve with one Einstein summation over all images; same signature as :func:`convolve_loops`.

    Examples
    --------
    >>> convolve_einsum(np.ones((1, 3, 4, 4)), np.ones((1, 3, 4, 4)), np.array([0.5]))
    array([[[[48.5]]]])
    """
    n, channels, height, width = images.shape
    f = weight.shape[-1]
    tiles = images.reshape(n, channels, height // f, f, width // f, f)
    output: FloatArray = np.einsum("ncyixj,kcij->nkyx", tiles, weight, optimize=True)
    return output + bias[:, None, None]
