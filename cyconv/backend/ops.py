"""Validated wrappers of the kernels.

Every function checks its arguments, allocates its result, and calls the build
of the kernels for this processor. Each has a counterpart with the same name and
signature in :mod:`cyconv.reference`, in plain NumPy.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .._checks import (
    FLOATS,
    as_array,
    check_array,
    check_filter_size,
    check_finite,
    check_flag,
    check_image_shape,
    check_integer,
    check_real,
    check_seed,
    check_targets,
    describe,
)
from .._kernels.processor import ENTRY_BLOCK, PAD, UNITS_PAD
from .._typing import AnyArray, FloatArray, IntArray
from ..augmentation import NO_AUGMENTATION, Augmentation
from .dispatch import kernels, specialised
from .layout import is_patch_inner, padded
from .memory import new_array
from .threads import threads_for_call

_WHITENED_VALUES = 2**24  # pixels of all channels in one kernel call, some 0.1 s; Ctrl-C is handled between calls


def _same_dtype(**arrays: FloatArray) -> np.dtype[np.floating]:
    """The common dtype of the given arrays."""
    names = list(arrays)
    first = arrays[names[0]].dtype
    for name in names[1:]:
        if arrays[name].dtype != first:
            raise TypeError(f"{name} must have dtype {first} as {names[0]} has, but got {describe(arrays[name])}")
    return first


def _require_images(name: str, array: AnyArray) -> None:
    if array.shape[0] == 0 or 0 in array.shape:
        raise ValueError(f"{name} must hold at least one image with pixels, but got {describe(array)}")


def _require_filters(weight: AnyArray) -> None:
    if weight.shape[0] == 0:
        raise ValueError(f"weight must hold at least one filter, but got {describe(weight)}")


def _pad_last(what: str, array: FloatArray, width: int) -> FloatArray:
    """A contiguous array whose last axis is padded with zeros to ``width``."""
    if array.shape[-1] == width:
        return np.ascontiguousarray(array)
    out = new_array(what, (*array.shape[:-1], width), array.dtype)
    out[..., : array.shape[-1]] = array
    out[..., array.shape[-1] :] = 0
    return out


def _pad_rows(what: str, array: FloatArray) -> FloatArray:
    """An array padded with zero rows to a multiple of UNITS_PAD."""
    rows = padded(array.shape[0], UNITS_PAD)
    if array.shape[0] == rows:
        return array
    out = new_array(what, (rows, *array.shape[1:]), array.dtype)
    out[: array.shape[0]] = array
    out[array.shape[0] :] = 0
    return out


def im2col(images: FloatArray, filter_size: int) -> FloatArray:
    """Cut images into non-overlapping patches, one per column.

    Parameters
    ----------
    images : array of float32 or float64, (N, C, H, W)
    filter_size : int
        Width f of a patch; divides H and W.

    Returns
    -------
    ndarray, (N, C*f*f, H*W/(f*f))
        The values of a patch are in the order (channel, row, column), and the
        patches in the order (row, column).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.

    Examples
    --------
    >>> im2col(np.arange(16.0).reshape(1, 1, 4, 4), 2)[0]
    array([[ 0.,  2.,  8., 10.],
           [ 1.,  3.,  9., 11.],
           [ 4.,  6., 12., 14.],
           [ 5.,  7., 13., 15.]])
    """
    images = check_array("images", images, ("N", "C", "H", "W"), FLOATS)
    _require_images("images", images)
    order = np.arange(images.shape[0])
    return _gather(images, order, filter_size, None, None, None, NO_AUGMENTATION, 0, 0)


def col2im(patches: FloatArray, image_shape: Sequence[int], filter_size: int) -> FloatArray:
    """Assemble patches into images: the inverse of :func:`im2col`.

    Parameters
    ----------
    patches : array of float32 or float64, (N, C*f*f, P)
    image_shape : tuple of int
        (C, H, W).
    filter_size : int

    Returns
    -------
    ndarray, (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.
    """
    channels, height, width = check_image_shape(image_shape)
    f = check_filter_size(filter_size, height, width)
    n_values, n_patches = channels * f * f, (height // f) * (width // f)
    patches = check_array("patches", patches, ("N", n_values, n_patches), FLOATS)
    _require_images("patches", patches)
    images = new_array("images", (patches.shape[0], channels, height, width), patches.dtype)
    specialised(kernels.col2im, patches.dtype)(np.ascontiguousarray(patches), f, images, threads_for_call())
    return images


def whiten(images: NDArray[np.uint8], filters: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Filter images with one filter for each pair of channels; the result are pixels again.

    At the border, an image is continued by its outermost pixels. Sums are
    rounded to the nearest integer and cut to 0 … 255.

    Parameters
    ----------
    images : array of uint8, (N, C, H, W)
    filters : array of float32, (C, C, k, k)
        From each input channel (second axis) to each output channel; k is odd.
    bias : array of float32, (C,)

    Returns
    -------
    ndarray of uint8, (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype or shape.
    """
    images = check_array("images", images, ("N", "C", "H", "W"), (np.uint8,))
    _require_images("images", images)
    channels, height, width = images.shape[1:]
    filters = check_finite("filters", check_array("filters", filters, (channels, channels, "k", "k"), (np.float32,)))
    bias = check_finite("bias", check_array("bias", bias, (channels,), (np.float32,)))
    side = filters.shape[2]
    if side % 2 == 0 or filters.shape[3] != side:
        raise ValueError(f"filters must have the same odd height and width, but got {describe(filters)}")
    n_threads = threads_for_call()
    size = channels * (height + side - 1) * (width + side - 1) + PAD
    scratch = new_array("the images' borders", (n_threads, size), np.float32)
    scratch[:, -PAD:] = 0
    out: NDArray[np.uint8] = new_array("the whitened images", images.shape, np.uint8)
    filters, bias = np.ascontiguousarray(filters), np.ascontiguousarray(bias)
    step = max(1, _WHITENED_VALUES // images[0].size)
    for start in range(0, len(images), step):
        part = np.ascontiguousarray(images[start : start + step])
        kernels.whiten(part, filters, bias, scratch, out[start : start + step], n_threads)
    return out


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
    """Normalise, augment and patchify a batch of images in one pass.

    Parameters
    ----------
    images : array of uint8, (n, C, H, W)
    order : array of int, (m,)
        Indices of the images in the batch, 0 to n-1.
    filter_size : int
    scale, offset : array of float32 or float64, (C, H, W)
        Pixels are normalised to ``pixel*scale + offset``.
    augmentation : Augmentation, optional
    seed, epoch : int, default 0
        Seed and epoch of the augmentation.
    centre : array of the same dtype, (C, H, W), optional
        Integers that are subtracted from the pixels first.

    Returns
    -------
    ndarray of scale's dtype, (m, C*f*f, P)

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.
    """
    images = check_array("images", images, ("n", "C", "H", "W"), (np.uint8,))
    _require_images("images", images)
    order = check_array("order", order, ("m",)).copy()  # the kernel uses it as indices, so no one may change it
    if order.dtype.kind not in "iu":
        raise TypeError(f"order must be integers, but got {describe(order)}")
    if order.size and (order.min() < 0 or order.max() >= images.shape[0]):
        raise ValueError(f"order must lie in 0..{images.shape[0] - 1}, but got {order.min()}..{order.max()}")
    scale = check_finite("scale", check_array("scale", scale, images.shape[1:], FLOATS))
    offset = check_finite("offset", check_array("offset", offset, images.shape[1:], FLOATS))
    arrays = {"scale": scale, "offset": offset}
    if centre is not None:
        centre = arrays["centre"] = check_finite("centre", check_array("centre", centre, images.shape[1:], FLOATS))
    _same_dtype(**arrays)
    if augmentation is None:
        augmentation = NO_AUGMENTATION
    elif not isinstance(augmentation, Augmentation):
        raise TypeError(f"augmentation must be an Augmentation or None, but got {describe(augmentation)}")
    return _gather(
        images,
        order,
        filter_size,
        scale,
        offset,
        centre,
        augmentation,
        check_seed(seed),
        check_integer("epoch", epoch, 0, 2**62),
    )


def _gather(
    images: AnyArray,
    order: IntArray,
    filter_size: int,
    scale: FloatArray | None,
    offset: FloatArray | None,
    centre: FloatArray | None,
    augmentation: Augmentation,
    seed: int,
    epoch: int,
) -> FloatArray:
    _, channels, height, width = images.shape
    f = check_filter_size(filter_size, height, width)
    dtype = images.dtype if scale is None else scale.dtype
    pixels = images.dtype == np.uint8
    shape = (len(order), channels * f * f, (height // f) * (width // f))
    patches = new_array("patches", shape, dtype)
    if len(order) == 0:
        return patches
    n_threads = threads_for_call()
    rows = new_array("patches", (n_threads, (height // f + 3) * width), dtype)
    tables = new_array("patches", (2 * channels * height * width,), dtype)
    images = np.ascontiguousarray(images)
    specialised(kernels.gather_batch, dtype)(
        images if pixels else None,
        None if pixels else images,
        np.ascontiguousarray(order, np.int64),
        f,
        *(None if array is None else np.ascontiguousarray(array) for array in (scale, offset, centre)),
        augmentation.settings,
        seed,
        epoch,
        patches,
        rows,
        tables,
        n_threads,
    )
    return patches


def patch_matmul_forward(patches: FloatArray, weight: FloatArray, bias: FloatArray) -> FloatArray:
    """Multiply patches by the filters, add the bias, apply ReLU.

    Parameters
    ----------
    patches : array of float32 or float64, (N, D, P)
    weight : array, (F, D)
    bias : array, (F,)

    Returns
    -------
    ndarray, (N, F, P)
        ``max(0, weight @ patches + bias)``; NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype or shape.
    """
    patches = check_array("patches", patches, ("N", "D", "P"), FLOATS)
    _require_images("patches", patches)
    weight = check_array("weight", weight, ("F", patches.shape[1]), FLOATS)
    bias = check_array("bias", bias, (weight.shape[0],), FLOATS)
    dtype = _same_dtype(patches=patches, weight=weight, bias=bias)
    n, n_values, n_patches = patches.shape
    _require_filters(weight)
    if not is_patch_inner(n_patches):  # as in training, a dense layer applied to each patch
        rows = new_array("patches", (n, n_patches, n_values), dtype)
        rows[...] = patches.transpose(0, 2, 1)
        outputs = dense_forward(rows.reshape(n * n_patches, n_values), weight, bias)
        activations = new_array("activations", (n, weight.shape[0], n_patches), dtype)
        activations[...] = outputs.reshape(n, n_patches, -1).transpose(0, 2, 1)
        return activations
    width = padded(n_patches)
    activations = new_array("activations", (n, weight.shape[0], width), dtype)
    specialised(kernels.patch_matmul_forward, dtype)(
        _pad_last("patches", patches, width),
        n_patches,
        np.ascontiguousarray(weight),
        np.ascontiguousarray(bias),
        activations,
        threads_for_call(),
    )
    return activations if width == n_patches else activations[:, :, :n_patches].copy()


def patch_matmul_backward(
    d_activations: FloatArray, patches: FloatArray, activations: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Gradients of the filters and their biases.

    Parameters
    ----------
    d_activations : array of float32 or float64, (N, F, P)
        Gradient with respect to the output of :func:`patch_matmul_forward`.
    patches : array, (N, D, P)
    activations : array, (N, F, P)
        That output; where it is not positive, the gradient of ReLU is zero.

    Returns
    -------
    d_weight : ndarray, (F, D)
    d_bias : ndarray, (F,)

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype or shape.
    """
    patches = check_array("patches", patches, ("N", "D", "P"), FLOATS)
    _require_images("patches", patches)
    n, n_values, n_patches = patches.shape
    activations = check_array("activations", activations, (n, "F", n_patches), FLOATS)
    _require_images("activations", activations)
    d_activations = check_array("d_activations", d_activations, activations.shape, FLOATS)
    dtype = _same_dtype(d_activations=d_activations, patches=patches, activations=activations)
    n_filters, width, n_blocks = activations.shape[1], padded(n_patches), -(-n // ENTRY_BLOCK)
    partials = new_array("d_weight", (n_blocks, n_filters * (n_values + 1)), dtype)
    masked = new_array("activations", (n, n_filters, width), dtype)
    specialised(kernels.patch_matmul_backward, dtype)(
        _pad_last("d_activations", d_activations, width),
        _pad_last("patches", patches, width),
        _pad_last("activations", activations, width),
        masked,
        partials,
        threads_for_call(),
    )
    total = partials[0].copy()
    for partial in partials[1:]:
        total += partial
    return total[: n_filters * n_values].reshape(n_filters, n_values), total[n_filters * n_values :]


def dense_forward(inputs: FloatArray, weight: FloatArray, bias: FloatArray, relu: bool = True) -> FloatArray:
    """A dense layer.

    Parameters
    ----------
    inputs : array of float32 or float64, (N, I)
    weight : array, (O, I)
    bias : array, (O,)
    relu : bool, default True

    Returns
    -------
    ndarray, (N, O)
        ``inputs @ weight.T + bias``, followed by ReLU if ``relu``; NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype or shape.
    """
    inputs = check_array("inputs", inputs, ("N", "I"), FLOATS)
    _require_images("inputs", inputs)
    weight = check_array("weight", weight, ("O", inputs.shape[1]), FLOATS)
    bias = check_array("bias", bias, (weight.shape[0],), FLOATS)
    dtype = _same_dtype(inputs=inputs, weight=weight, bias=bias)
    relu = check_flag("relu", relu)
    n, n_units = inputs.shape[0], weight.shape[0]
    if n_units == 0:
        raise ValueError(f"weight must hold at least one unit, but got {describe(weight)}")
    width = padded(inputs.shape[1])
    outputs = new_array("outputs", (n, n_units), dtype)
    n_threads = threads_for_call()
    scratch = new_array("outputs", (n_threads, kernels.dense_scratch_size(ENTRY_BLOCK)), dtype)
    specialised(kernels.dense_forward_rows, dtype)(
        _pad_last("inputs", inputs, width),
        _pad_rows("weight", _pad_last("weight", weight, width)),
        np.ascontiguousarray(bias),
        relu,
        outputs,
        scratch,
        n_threads,
    )
    return outputs


def dense_backward(
    d_outputs: FloatArray, inputs: FloatArray, weight: FloatArray, outputs: FloatArray | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gradients of a dense layer.

    Parameters
    ----------
    d_outputs : array of float32 or float64, (N, O)
        Gradient with respect to the output of the layer.
    inputs : array, (N, I)
    weight : array, (O, I)
    outputs : array, (N, O), optional
        Output of the layer, if it ends in ReLU.

    Returns
    -------
    d_inputs : ndarray, (N, I)
    d_weight : ndarray, (O, I)
    d_bias : ndarray, (O,)

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype or shape.
    """
    inputs = check_array("inputs", inputs, ("N", "I"), FLOATS)
    _require_images("inputs", inputs)
    n, n_inputs = inputs.shape
    weight = check_array("weight", weight, ("O", n_inputs), FLOATS)
    _require_images("weight", weight)
    d_outputs = check_array("d_outputs", d_outputs, (n, weight.shape[0]), FLOATS)
    arrays = {"d_outputs": d_outputs, "inputs": inputs, "weight": weight}
    if outputs is not None:
        outputs = arrays["outputs"] = check_array("outputs", outputs, d_outputs.shape, FLOATS)
    dtype = _same_dtype(**arrays)
    width = padded(n_inputs)
    d_inputs = new_array("d_inputs", (n, width), dtype)
    d_weight = new_array("d_weight", (weight.shape[0], width), dtype)
    d_weight[:] = 0
    d_bias = np.empty(weight.shape[0], dtype)
    masked = new_array("d_outputs", (n, padded(weight.shape[0])), dtype)
    n_threads = threads_for_call()
    scratch = new_array("d_outputs", (n_threads, kernels.dense_scratch_size(ENTRY_BLOCK)), dtype)
    skips = bool(np.isfinite(inputs).all() and np.isfinite(weight).all())  # 0*NaN and 0*inf must give NaN
    specialised(kernels.dense_backward_rows, dtype)(
        np.ascontiguousarray(d_outputs),
        _pad_last("inputs", inputs, width),
        _pad_last("weight", weight, width),
        None if outputs is None else np.ascontiguousarray(outputs),
        masked,
        d_inputs,
        d_weight,
        d_bias,
        scratch,
        skips,
        n_threads,
    )
    if width != n_inputs:
        d_inputs, d_weight = d_inputs[:, :n_inputs].copy(), d_weight[:, :n_inputs].copy()
    return d_inputs, d_weight, d_bias


def softmax_cross_entropy_forward(
    logits: FloatArray,
    targets: IntArray | FloatArray,
    label_smoothing: float = 0.0,
) -> tuple[FloatArray, NDArray[np.float64]]:
    """Probabilities and cross-entropy losses.

    Parameters
    ----------
    logits : array of float32 or float64, (N, K)
    targets : array of int, (N,), or of float, (N, K)
        Classes, or probabilities that sum to 1.
    label_smoothing : float, default 0.0
        The target is ``1 - label_smoothing`` for the true class and
        ``label_smoothing/(K - 1)`` for each other class. Must be 0 if targets
        are probabilities.

    Returns
    -------
    probabilities : ndarray, (N, K)
    losses : ndarray of float64, (N,)

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.
    """
    logits = check_array("logits", logits, ("N", "K"), FLOATS)
    _require_images("logits", logits)
    n, n_classes = logits.shape
    labels, soft, on, off = check_targets(targets, n, n_classes, logits.dtype, label_smoothing)
    table = _pad_last("logits", logits, padded(n_classes))
    if table is logits or np.shares_memory(table, logits):
        table = table.copy()
    losses = np.empty(n)
    specialised(kernels.softmax_cross_entropy_forward, logits.dtype)(table, n_classes, labels, soft, on, off, losses)
    return table[:, :n_classes].copy(), losses


def softmax_cross_entropy_backward(
    probabilities: FloatArray,
    targets: IntArray | FloatArray,
    label_smoothing: float = 0.0,
    weights: NDArray[np.float64] | None = None,
) -> FloatArray:
    """Gradient with respect to the logits of the mean loss, or of the sum of the weighted losses.

    Parameters
    ----------
    probabilities : array of float32 or float64, (N, K)
        From :func:`softmax_cross_entropy_forward`.
    targets, label_smoothing
        As for that function.
    weights : array of float64, (N,), optional
        Of the images' losses, in place of 1/N.

    Returns
    -------
    ndarray, (N, K)

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.
    """
    probabilities = check_array("probabilities", probabilities, ("N", "K"), FLOATS)
    _require_images("probabilities", probabilities)
    n, n_classes = probabilities.shape
    labels, soft, on, off = check_targets(targets, n, n_classes, probabilities.dtype, label_smoothing)
    if weights is not None:
        weights = np.ascontiguousarray(check_finite("weights", check_array("weights", weights, (n,), (np.float64,))))
    d_logits = new_array("d_logits", (n, padded(n_classes)), probabilities.dtype)
    specialised(kernels.softmax_cross_entropy_backward, probabilities.dtype)(
        _pad_last("probabilities", probabilities, padded(n_classes)),
        n_classes,
        labels,
        soft,
        on,
        off,
        weights,
        d_logits,
    )
    return d_logits[:, :n_classes].copy()


def sum_of_squares(weight: FloatArray) -> float:
    """Sum of the squares of all elements, in double precision.

    Parameters
    ----------
    weight : array of float32 or float64, any shape

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If the array has another dtype.
    """
    weight = check_array("weight", weight, (None,) * as_array("weight", weight).ndim, FLOATS)
    return float(specialised(kernels.sum_of_squares, weight.dtype)(np.ascontiguousarray(weight).reshape(-1)))


def sgd_update(weight: FloatArray, gradient: FloatArray, learning_rate: float, l2: float = 0.0) -> None:
    """One step of gradient descent with an L2 penalty, in place.

    ``w <- (1 - 2*learning_rate*l2)*w - learning_rate*gradient``

    Parameters
    ----------
    weight : ndarray of float32 or float64, writable, any shape and strides
    gradient : array of the same dtype and shape
        Gradient of the loss, without the penalty; may not share memory with
        ``weight``.
    learning_rate : float, not negative
    l2 : float, not negative, default 0.0

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range, or if ``weight`` is
        not writable.
    """
    if not isinstance(weight, np.ndarray) or weight.dtype not in FLOATS or not weight.flags.writeable:
        raise TypeError(f"weight must be a writable array of float32 or float64, but got {describe(weight)}")
    check_array("weight", weight, weight.shape)
    gradient = check_array("gradient", gradient, weight.shape, (weight.dtype,))
    if _overlaps_itself(weight):
        raise ValueError(
            f"weight must not overlap itself in memory, but got strides {weight.strides} of {describe(weight)}"
        )
    if _overlap(weight, gradient):
        raise ValueError("gradient must not share memory with weight, but it does")
    learning_rate = check_real("learning_rate", learning_rate, 0)
    l2 = check_real("l2", l2, 0)
    flat = np.require(weight, requirements=["C", "ALIGNED", "ENSUREARRAY"]).reshape(-1)
    specialised(kernels.sgd_update, weight.dtype)(flat, np.ascontiguousarray(gradient).reshape(-1), learning_rate, l2)
    if not np.may_share_memory(flat, weight):
        weight[...] = flat.reshape(weight.shape)


def _overlaps_itself(array: AnyArray) -> bool:
    """Whether two elements of an array may share memory, as never happens for slices and transposes."""
    end = array.itemsize
    for stride, n in sorted((abs(stride), n) for stride, n in zip(array.strides, array.shape) if n > 1):
        if stride < end:
            return array.size > 0
        end += stride * (n - 1)
    return False


def _overlap(a: AnyArray, b: AnyArray) -> bool:
    """Whether two arrays share memory; True if NumPy cannot decide it in reasonable time."""
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]   # NumPy documents any number
    except np.exceptions.TooHardError:
        return True


def shuffled_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Order in which an epoch visits its images, a pure function of the arguments.

    Parameters
    ----------
    n : int
    seed, epoch : int, not negative

    Returns
    -------
    ndarray of int64, (n,)
        A permutation (Fisher-Yates shuffle), with a counter-based random number
        for each swap.

    Raises
    ------
    TypeError, ValueError
        If an argument is not an integer or is out of range.

    Examples
    --------
    >>> sorted(shuffled_order(5, seed=0, epoch=3).tolist())
    [0, 1, 2, 3, 4]
    """
    n = check_integer("n", n, 0, 2**32 - 1)
    order = new_array("an order of n images", (n,), np.int64)
    kernels.shuffled_order(order, check_seed(seed), check_integer("epoch", epoch, 0, 2**62))
    return order
