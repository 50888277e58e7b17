"""Batches: the order of the images, normalisation, augmentation and patches."""

import numpy as np
from numpy.typing import NDArray

from cyconv._typing import AnyArray, FloatArray, IntArray
from cyconv.augmentation import Augmentation
from cyconv.randomness import AUGMENTATION, SHUFFLE, random_bits
from cyconv.reference.convolution import im2col


def shuffled_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Order in which an epoch visits n images: a Fisher-Yates shuffle with counter-based random numbers.

    Parameters
    ----------
    n : int
    seed, epoch : int

    Returns
    -------
    ndarray (n,) of int64
        A permutation of 0 … n − 1 that depends only on the arguments.

    Examples
    --------
    >>> sorted(shuffled_order(5, seed=0, epoch=0).tolist())
    [0, 1, 2, 3, 4]
    """
    order = np.arange(n, dtype=np.int64)
    high = (random_bits(seed, SHUFFLE, epoch, np.arange(n)) >> np.uint64(32)).tolist()
    for i in range(n - 1, 0, -1):
        j = (high[i] * (i + 1)) >> 32
        order[i], order[j] = order[j], order[i]
    return order


def whiten(images: NDArray[np.uint8], filters: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Filter images with one filter for each pair of channels; the result are pixels again.

    Parameters
    ----------
    images : ndarray (N, C, H, W) of uint8
        Continued by their outermost pixels at the border.
    filters : ndarray (C, C, k, k)
        From each input channel (second axis) to each output channel; k is odd.
    bias : ndarray (C,)

    Returns
    -------
    ndarray (N, C, H, W) of uint8
        The sums, rounded to the nearest integer and cut to 0 … 255.

    Examples
    --------
    >>> images = np.array([[[[10, 20, 50]]]], dtype=np.uint8)
    >>> difference = np.zeros((1, 1, 3, 3), np.float32)
    >>> difference[0, 0, 1] = [-1, 1, 0]
    >>> whiten(images, difference, np.full(1, 128, np.float32))[0, 0, 0].tolist()
    [128, 138, 158]
    """
    side = filters.shape[2]
    r = side // 2
    padded = np.pad(images.astype(np.float32), ((0, 0), (0, 0), (r, r), (r, r)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(2, 3))
    sums = np.einsum("ncyxij,ocij->noyx", windows, filters) + bias[:, None, None]
    whitened: NDArray[np.uint8] = np.clip(np.rint(sums), 0, 255).astype(np.uint8)
    return whitened


def gather_batch(
    images: NDArray[np.uint8],
    order: IntArray,
    filter_size: int,
    scale: FloatArray,
    offset: FloatArray,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    epoch: int = 0,
    centre: FloatArray | None = None,
) -> FloatArray:
    """Normalise, augment and patchify the images of a batch.

    Parameters
    ----------
    images : ndarray (n, C, H, W) of uint8
    order : ndarray of int
        Indices of the images in the batch.
    filter_size : int
    scale, offset : ndarray (C, H, W)
        A pixel is normalised to pixel·scale + offset; their dtype is that of the result.
    augmentation : Augmentation, optional
    seed, epoch : int
        Together with the index of an image, they determine its augmentation.
    centre : ndarray (C, H, W), optional
        Integers that are subtracted from the pixels first.

    Returns
    -------
    ndarray (len(order), D, P)

    Examples
    --------
    >>> images = np.full((3, 1, 2, 2), 10, dtype=np.uint8)
    >>> scale, offset = np.full((1, 2, 2), 0.5), np.ones((1, 2, 2))
    >>> gather_batch(images, np.array([2, 0]), 2, scale, offset).shape
    (2, 4, 1)
    >>> gather_batch(images, np.array([2]), 2, scale, offset).ravel()
    array([6., 6., 6., 6.])
    """
    return im2col(gather_images(images, order, scale, offset, augmentation, seed, epoch, centre), filter_size)


def gather_images(
    images: AnyArray,
    order: IntArray,
    scale: FloatArray | None,
    offset: FloatArray | None,
    augmentation: Augmentation | None,
    seed: int,
    epoch: int,
    centre: FloatArray | None = None,
) -> FloatArray:
    """Normalised and augmented images (len(order), C, H, W); without a scale, they are not normalised."""
    batch: AnyArray = images[order]
    if scale is not None and offset is not None:
        batch = (batch if centre is None else batch - centre) * scale + offset
    if augmentation is not None:
        bits = random_bits(seed, AUGMENTATION, epoch, order).tolist()
        batch = np.stack([_augment(image, augmentation, b) for image, b in zip(batch, bits)])
    return batch


def _augment(image: FloatArray, augmentation: Augmentation, bits: int) -> FloatArray:
    """Shift, flip and cut out one normalised image (C, H, W) as given by 64 random bits; gaps are set to zero."""
    _, height, width = image.shape
    shift, cutout = augmentation.shift, augmentation.cutout
    top = (bits >> 1 & 0xFFFF) * (2 * shift + 1) >> 16
    left = (bits >> 17 & 0xFFFF) * (2 * shift + 1) >> 16
    padded = np.pad(image, ((0, 0), (shift, shift), (shift, shift)))
    result = padded[:, top : top + height, left : left + width]
    if augmentation.flip and bits & 1:
        result = result[:, :, ::-1]
    if cutout:
        result = result.copy()
        y = ((bits >> 33 & 0x7FFF) * height >> 15) - cutout // 2
        x = ((bits >> 48 & 0x7FFF) * width >> 15) - cutout // 2
        result[:, max(y, 0) : y + cutout, max(x, 0) : x + cutout] = 0
    return result
