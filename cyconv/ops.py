"""The checked entry points of the kernels.

Every function here checks its arguments, allocates what it returns, and calls
the build of the kernels that suits the processor. Each has a twin of the same
name and signature in :mod:`cyconv.reference`, in plain NumPy.

The build is chosen at import: the widest instruction set that the processor
has, or the one that the environment variable ``CYCONV_ISA`` names
(``baseline``, ``avx2``, ``avx512``).
"""

import importlib
import json
import math
import os
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import threads
from ._checks import (
    as_array,
    check_array,
    check_finite,
    check_flag,
    check_integer,
    check_labels,
    check_memory,
    check_real,
    describe,
)
from ._kernels import processor
from ._kernels.processor import ENTRY_BLOCK, LINE_FLOATS, PAD, UNITS_PAD
from ._typing import AnyArray, FloatArray, ImageShape, IntArray, JsonDict
from .augmentation import NO_AUGMENTATION, Augmentation
from .layout import is_patch_inner, padded

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
PROBE_LINES = 512
FAR = 10e-9             # seconds for a cache line to be written by one thread and read by another

# Number of threads: when they were last looked at, and whether they are far apart.
_distances: dict[int, tuple[float, bool]] = {}


def _choose_build() -> tuple[str, ModuleType]:
    available = [name for name in processor.instruction_sets() if _is_built(name)]
    wanted = os.environ.get("CYCONV_ISA", "")
    if wanted and wanted not in available:
        raise ImportError(
            f"CYCONV_ISA must be one of {', '.join(available)} on this machine, but got {wanted!r}")
    name = wanted or available[0]
    return name, importlib.import_module(f"._kernels.{name}", __package__)


def _is_built(name: str) -> bool:
    return name in json.loads(processor.build_flags() or "{}")


instruction_set: str
kernels: ModuleType
instruction_set, kernels = _choose_build()


def show_config() -> JsonDict:
    """Print how the kernels were built and how they run; return the same as a dict.

    Returns
    -------
    dict
        Keys ``version``, ``instruction_set``, ``instruction_sets`` (those that
        this machine can run), ``openmp`` (the ``_OPENMP`` date, 0 without),
        ``threads``, ``compiler`` and ``flags``.

    Examples
    --------
    >>> import cyconv
    >>> config = cyconv.show_config()           # doctest: +ELLIPSIS
    cyconv ...
    >>> config["threads"] >= 1
    True
    """
    from . import __version__

    flags = json.loads(processor.build_flags())
    config = {
        "version": __version__,
        "instruction_set": instruction_set,
        "instruction_sets": [name for name in processor.instruction_sets() if name in flags],
        "openmp": processor.openmp_version(),
        "threads": threads.get_num_threads(),
        "compiler": processor.compiler(),
        "flags": flags[instruction_set],
    }
    print(f"cyconv {config['version']}")
    print(f"  instruction set  {instruction_set} (this machine runs {', '.join(config['instruction_sets'])})")
    print(f"  OpenMP           {config['openmp'] or 'none: kernels run on one thread'}")
    print(f"  threads          {config['threads']}")
    print(f"  compiler         {config['compiler']}")
    print(f"  flags            {config['flags']}")
    return config


def threads_for_call() -> int:
    """Threads for the next kernel: one where the build has no OpenMP."""
    return threads.threads_for_call() if processor.openmp_version() else 1


def aligned_zeros(n: int, dtype: DTypeLike, what: str) -> AnyArray:
    """A zeroed vector that begins on a cache line."""
    dtype = np.dtype(dtype)
    check_memory(what, n * dtype.itemsize + 64)
    raw = np.zeros(n * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start:start + n * dtype.itemsize].view(dtype)


def new_array(what: str, shape: tuple[int, ...], dtype: DTypeLike) -> AnyArray:
    """An array of any contents, if this process can hold it."""
    check_memory(what, math.prod(shape) * np.dtype(dtype).itemsize)
    return np.empty(shape, dtype)


def specialised(function: Any, dtype: np.dtype[Any]) -> Any:
    """The float or double version of a kernel's entry."""
    return function["float" if dtype == np.float32 else "double"]


def _same_dtype(**arrays: FloatArray) -> np.dtype[np.floating]:
    """The dtype that all the named float arrays share."""
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


def check_filter_size(filter_size: int, height: int, width: int, name: str = "filter_size") -> int:
    """Return a filter width that divides the image."""
    f = check_integer(name, filter_size, 1, 2**31 - 1)
    if height % f or width % f:
        raise ValueError(f"{name} must divide the image's height {height} and width {width}, but got {f}")
    return f


def _pad_last(what: str, array: FloatArray, width: int) -> FloatArray:
    """A contiguous copy whose last axis is filled up with zeros to ``width``."""
    if array.shape[-1] == width:
        return np.ascontiguousarray(array)
    out = new_array(what, (*array.shape[:-1], width), array.dtype)
    out[..., :array.shape[-1]] = array
    out[..., array.shape[-1]:] = 0
    return out


def _pad_rows(what: str, array: FloatArray) -> FloatArray:
    """A copy with zero rows up to a multiple of UNITS_PAD."""
    rows = padded(array.shape[0], UNITS_PAD)
    if array.shape[0] == rows:
        return array
    out = new_array(what, (rows, *array.shape[1:]), array.dtype)
    out[:array.shape[0]] = array
    out[array.shape[0]:] = 0
    return out


def im2col(images: FloatArray, filter_size: int) -> FloatArray:
    """Cut images into non-overlapping patches, one column each.

    Parameters
    ----------
    images : array of float32 or float64, (N, C, H, W)
    filter_size : int
        Width f of a patch; divides H and W.

    Returns
    -------
    ndarray, (N, C*f*f, H*W/(f*f))
        Values of a patch in the order (channel, row, column), patches row by row.

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
    """Put patches back into images: the inverse of :func:`im2col`.

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


def check_image_shape(image_shape: Sequence[int]) -> ImageShape:
    """Return (C, H, W) as positive integers."""
    shape = image_shape if isinstance(image_shape, (tuple, list, np.ndarray)) else ()
    if (isinstance(shape, np.ndarray) and shape.ndim != 1) or len(shape) != 3:
        raise ValueError(f"image_shape must be (channels, height, width), but got {describe(image_shape)}")
    channels, height, width = (check_integer(f"image_shape[{i}]", size, 1, 2**20) for i, size in enumerate(shape))
    return channels, height, width


def gather_batch(images: NDArray[np.uint8], order: IntArray, filter_size: int, scale: FloatArray, offset: FloatArray,
                 augmentation: Augmentation | None = None, seed: int = 0, epoch: int = 0,
                 centre: FloatArray | None = None) -> FloatArray:
    """Normalise, augment and patchify a batch of stored images in one pass.

    Parameters
    ----------
    images : array of uint8, (n, C, H, W)
    order : array of int, (m,)
        Which images, 0 to n-1.
    filter_size : int
    scale, offset : array of float32 or float64, (C, H, W)
        A pixel's value becomes ``pixel*scale + offset``.
    augmentation : Augmentation, optional
    seed, epoch : int, default 0
        Address of what the augmentation draws.
    centre : array of the same dtype, (C, H, W), optional
        Whole numbers that are subtracted from the pixels first; none unless given.

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
    order = check_array("order", order, ("m",)).copy()      # the kernel indexes with it: nobody may change it now
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
    return _gather(images, order, filter_size, scale, offset, centre, augmentation,
                   check_seed(seed), check_integer("epoch", epoch, 0, 2**62))


def check_seed(seed: int) -> int:
    """Return a seed: any integer of 64 bits."""
    return check_integer("seed", seed, 0, 2**64 - 1)


def _gather(images: AnyArray, order: IntArray, filter_size: int, scale: FloatArray | None, offset: FloatArray | None,
            centre: FloatArray | None, augmentation: Augmentation, seed: int, epoch: int) -> FloatArray:
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
        images if pixels else None, None if pixels else images, np.ascontiguousarray(order, np.int64), f,
        *(None if array is None else np.ascontiguousarray(array) for array in (scale, offset, centre)),
        augmentation.flip, augmentation.shift, augmentation.cutout, seed, epoch, patches, rows, tables, n_threads)
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
    if not is_patch_inner(n_patches):       # as training does: a dense layer whose rows are patches
        rows = new_array("patches", (n, n_patches, n_values), dtype)
        rows[...] = patches.transpose(0, 2, 1)
        outputs = dense_forward(rows.reshape(n * n_patches, n_values), weight, bias)
        activations = new_array("activations", (n, weight.shape[0], n_patches), dtype)
        activations[...] = outputs.reshape(n, n_patches, -1).transpose(0, 2, 1)
        return activations
    width = padded(n_patches)
    activations = new_array("activations", (n, weight.shape[0], width), dtype)
    specialised(kernels.patch_matmul_forward, dtype)(
        _pad_last("patches", patches, width), n_patches, np.ascontiguousarray(weight), np.ascontiguousarray(bias),
        activations, threads_for_call())
    return activations if width == n_patches else activations[:, :, :n_patches].copy()


def patch_matmul_backward(d_activations: FloatArray, patches: FloatArray,
                          activations: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gradients of the filters and their biases.

    Parameters
    ----------
    d_activations : array of float32 or float64, (N, F, P)
        Gradient with respect to the output of :func:`patch_matmul_forward`.
    patches : array, (N, D, P)
    activations : array, (N, F, P)
        That output: where it is not positive, ReLU lets no gradient through.

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
        _pad_last("d_activations", d_activations, width), _pad_last("patches", patches, width),
        _pad_last("activations", activations, width), masked, partials, threads_for_call())
    total = partials[0].copy()
    for partial in partials[1:]:
        total += partial
    return total[:n_filters * n_values].reshape(n_filters, n_values), total[n_filters * n_values:]


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
        ``inputs @ weight.T + bias``, then ReLU where asked; NaN stays NaN.

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
        _pad_last("inputs", inputs, width), _pad_rows("weight", _pad_last("weight", weight, width)),
        np.ascontiguousarray(bias), relu, outputs, scratch, n_threads)
    return outputs


def dense_backward(d_outputs: FloatArray, inputs: FloatArray, weight: FloatArray,
                   outputs: FloatArray | None = None) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gradients of a dense layer.

    Parameters
    ----------
    d_outputs : array of float32 or float64, (N, O)
        Gradient with respect to the layer's output.
    inputs : array, (N, I)
    weight : array, (O, I)
    outputs : array, (N, O), optional
        The layer's output, where it ended in ReLU.

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
    skips = bool(np.isfinite(inputs).all() and np.isfinite(weight).all())       # else zeros make NaN of what is not
    specialised(kernels.dense_backward_rows, dtype)(
        np.ascontiguousarray(d_outputs), _pad_last("inputs", inputs, width), _pad_last("weight", weight, width),
        None if outputs is None else np.ascontiguousarray(outputs), masked, d_inputs, d_weight, d_bias, scratch, skips,
        n_threads)
    if width != n_inputs:
        d_inputs, d_weight = d_inputs[:, :n_inputs].copy(), d_weight[:, :n_inputs].copy()
    return d_inputs, d_weight, d_bias


def check_targets(
    targets: ArrayLike, n: int, n_classes: int, dtype: np.dtype[Any], label_smoothing: float, name: str = "targets",
) -> tuple[NDArray[np.int32] | None, FloatArray | None, float, float]:
    """Return (labels, None, on, off) or (None, probabilities, 1, 0): on and off are smoothed labels."""
    array = as_array(name, targets)
    on, off = smoothed(label_smoothing, n_classes)
    if array.ndim != 2 or array.dtype.kind != "f":
        return check_labels(name, array, n, n_classes), None, on, off
    array = check_array(name, array, (n, n_classes))
    if label_smoothing:
        raise ValueError(
            f"label_smoothing must be 0 where {name} are probabilities, but got {describe(label_smoothing)}")
    with np.errstate(over="ignore"):        # what float64 cannot hold is refused below
        array = array.astype(np.float64)
    check_finite(name, array)
    sums = array.sum(axis=1, keepdims=True)
    if (array < 0).any() or (np.abs(sums - 1) > 1e-3).any():
        raise ValueError(f"{name} must be probabilities that sum to 1 in each row, but got {describe(array)}")
    # Exactly 1, for the gradient of the cost relies on it.
    return None, np.ascontiguousarray(array / sums, dtype), 1.0, 0.0


def smoothed(label_smoothing: float, n_classes: int) -> tuple[float, float]:
    """Target probability of the true class and of each other."""
    eps = check_real("label_smoothing", label_smoothing, 0, 1, "[)")
    return 1 - eps, eps / (n_classes - 1) if n_classes > 1 else 0.0


def softmax_cross_entropy_forward(
    logits: FloatArray, targets: IntArray | FloatArray, label_smoothing: float = 0.0,
) -> tuple[FloatArray, NDArray[np.float64]]:
    """Probabilities and cross-entropy losses.

    Parameters
    ----------
    logits : array of float32 or float64, (N, K)
    targets : array of int, (N,), or of float, (N, K)
        Classes, or probabilities that sum to 1.
    label_smoothing : float, default 0.0
        The true class gets ``1 - label_smoothing``, each other
        ``label_smoothing/(K - 1)``; with classes only.

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


def softmax_cross_entropy_backward(probabilities: FloatArray, targets: IntArray | FloatArray,
                                   label_smoothing: float = 0.0) -> FloatArray:
    """Gradient of the mean loss with respect to the logits.

    Parameters
    ----------
    probabilities : array of float32 or float64, (N, K)
        From :func:`softmax_cross_entropy_forward`.
    targets, label_smoothing
        As there.

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
    d_logits = new_array("d_logits", (n, padded(n_classes)), probabilities.dtype)
    specialised(kernels.softmax_cross_entropy_backward, probabilities.dtype)(
        _pad_last("probabilities", probabilities, padded(n_classes)), n_classes, labels, soft, on, off, d_logits)
    return d_logits[:, :n_classes].copy()


def sum_of_squares(weight: FloatArray) -> float:
    """The sum of the squares of all elements, in double precision.

    Parameters
    ----------
    weight : array of float32 or float64, any shape

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If the dtype is neither.
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
        Of the loss alone; may not share memory with ``weight``.
    learning_rate : float, not negative
    l2 : float, not negative, default 0.0

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range, or ``weight``
        cannot be written.
    """
    if not isinstance(weight, np.ndarray) or weight.dtype not in FLOATS or not weight.flags.writeable:
        raise TypeError(f"weight must be a writable array of float32 or float64, but got {describe(weight)}")
    check_array("weight", weight, weight.shape)
    gradient = check_array("gradient", gradient, weight.shape, (weight.dtype,))
    if _overlaps_itself(weight):
        raise ValueError(
            f"weight must not overlap itself in memory, but got strides {weight.strides} of {describe(weight)}")
    if _overlap(weight, gradient):
        raise ValueError("gradient must not share memory with weight, but it does")
    learning_rate = check_real("learning_rate", learning_rate, 0)
    l2 = check_real("l2", l2, 0)
    flat = np.require(weight, requirements=["C", "ALIGNED", "ENSUREARRAY"]).reshape(-1)
    specialised(kernels.sgd_update, weight.dtype)(
        flat, np.ascontiguousarray(gradient).reshape(-1), learning_rate, l2)
    if not np.may_share_memory(flat, weight):
        weight[...] = flat.reshape(weight.shape)


def _overlaps_itself(array: AnyArray) -> bool:
    """Whether two places of an array may be the same element: no cut or transposed one has such strides."""
    end = array.itemsize
    for stride, n in sorted((abs(stride), n) for stride, n in zip(array.strides, array.shape) if n > 1):
        if stride < end:
            return array.size > 0
        end += stride * (n - 1)
    return False


def _overlap(a: AnyArray, b: AnyArray) -> bool:
    """Whether two arrays share an element; where that is too hard to tell, they are taken to."""
    try:
        return np.shares_memory(a, b, max_work=100_000)     # type: ignore[arg-type]   # NumPy documents any number
    except np.exceptions.TooHardError:
        return True


def shuffled_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch visits its images: a pure function of its arguments.

    Parameters
    ----------
    n : int
    seed, epoch : int, not negative

    Returns
    -------
    ndarray of int64, (n,)
        A permutation (Fisher & Yates), each swap drawn at its own address.

    Raises
    ------
    TypeError, ValueError
        If an argument is no integer in its range.

    Examples
    --------
    >>> sorted(shuffled_order(5, seed=0, epoch=3).tolist())
    [0, 1, 2, 3, 4]
    """
    n = check_integer("n", n, 0, 2**32 - 1)
    order = new_array("an order of n images", (n,), np.int64)
    kernels.shuffled_order(order, check_seed(seed), check_integer("epoch", epoch, 0, 2**62))
    return order


def measure_peak_flops(dtype: DTypeLike = "float32", seconds: float = 0.2) -> float:
    """Measure the rate of fused multiply-adds on the current number of threads.

    Parameters
    ----------
    dtype : {"float32", "float64"}
    seconds : float, default 0.2
        How long to measure, about.

    Returns
    -------
    float
        10**9 floating-point operations per second, the best of several runs.
    """
    dtype = check_float_dtype(dtype)
    seconds = check_real("seconds", seconds, 0.001, 60)
    n_threads = threads_for_call()
    seed = np.linspace(0.9, 0.99, PAD).astype(dtype)
    totals = np.empty(n_threads)
    probe = specialised(kernels.probe, dtype)
    best, end = 0.0, time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        operations: float = probe(seed, 100_000, totals, n_threads)
        now = time.perf_counter()
        best = max(best, operations / (now - start) / 1e9)
        if now >= end:
            return best


def threads_are_far(n_threads: int) -> bool:
    """Whether the threads' processors share no cache, so that every line which passes between them is expensive.

    A look takes some 50 microseconds and holds for a quarter of a second: a virtual machine's processors are moved
    about. More threads than processors have other worries. It decides how results travel, never what they are.
    """
    if n_threads == 1 or n_threads > threads.processors():
        return False
    seen, far = _distances.get(n_threads, (-math.inf, False))
    if time.monotonic() - seen > 0.25:
        lines = aligned_zeros(LINE_FLOATS * (PROBE_LINES + n_threads), np.float32, "the probe's lines")
        times = []
        for _ in range(3):
            start = time.perf_counter()
            kernels.exchange(lines, PROBE_LINES, 2, n_threads)
            times.append(time.perf_counter() - start)
        far = min(times) / (2 * PROBE_LINES) > FAR
        _distances[n_threads] = (time.monotonic(), far)
    return far


def check_float_dtype(dtype: DTypeLike | None) -> np.dtype[np.floating]:
    """Return float32 or float64 as a dtype."""
    try:
        found: np.dtype[Any] | None = None if dtype is None else np.dtype(dtype)
    except Exception:       # whatever a stranger's dtype raises
        found = None
    if found is None or found not in FLOATS:
        raise ValueError(f"dtype must be 'float32' or 'float64', but got {describe(dtype)}")
    return found
