"""Validation of arguments.

Every error message is one sentence that names the argument, what was expected
and what was passed, in that order. Nothing here allocates more than a boolean
mask of the size of its input.
"""

import numbers
import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._memory import available_memory
from ._typing import AnyArray, FloatArray, ImageShape, IntArray

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

_T = TypeVar("_T")
_ArrayT = TypeVar("_ArrayT", bound=AnyArray)

_ARRAY_PROTOCOLS = ("__array__", "__array_interface__", "__array_struct__")  # understood by np.asarray


def describe(value: object) -> str:
    """A short description of ``value``, for the "but got" part of an error message."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    try:
        text = repr(value)
    except Exception:  # integers of thousands of digits; a user's __repr__ may raise anything
        text = "a value"
    text = " ".join(text.split())
    if len(text) > 60:
        text = text[:57] + "..."
    return f"{text} ({type(value).__name__})"


def shorten(error: BaseException) -> str:
    """The message of an error on one line of at most 200 characters, for use in another message."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."


def check_integer(name: str, value: Any, minimum: int | None = None, maximum: int | None = None) -> int:
    """Return ``value`` as an int in minimum..maximum, where either bound may be None."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, but got {describe(value)}")
    try:
        number = operator.index(value)
    except Exception:  # a user's __index__ may raise anything
        raise TypeError(f"{name} must be an integer, but got {describe(value)}") from None
    if maximum is None and abs(number) >= 2**64:
        raise ValueError(f"{name} must be an integer of at most 64 bits, but got {describe(number)}")
    _check_range(name, "an integer", number, minimum, maximum, "[]")
    return number


def check_real(
    name: str, value: Any, minimum: float | None = None, maximum: float | None = None, interval: str = "[]"
) -> float:
    """Return ``value`` as a finite float inside the interval.

    ``interval`` says which endpoints are included: ``"[]"``, ``"[)"``,
    ``"(]"`` or ``"()"``.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (numbers.Real, np.number)):
        raise TypeError(f"{name} must be a real number, but got {describe(value)}")
    if isinstance(value, (numbers.Complex, np.complexfloating)) and not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, but got {describe(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = np.inf
    if not np.isfinite(number):
        raise ValueError(f"{name} must be a finite number, but got {describe(value)}")
    _check_range(name, "a number", number, minimum, maximum, interval)
    return number


def _check_range(
    name: str, kind: str, number: float, minimum: float | None, maximum: float | None, interval: str
) -> None:
    low_ok = minimum is None or (number >= minimum if interval[0] == "[" else number > minimum)
    high_ok = maximum is None or (number <= maximum if interval[1] == "]" else number < maximum)
    if low_ok and high_ok:
        return
    if minimum is not None and maximum is not None:
        wanted = f"in {interval[0]}{minimum}, {maximum}{interval[1]}"
    elif minimum is not None:
        wanted = f"{'at least' if interval[0] == '[' else 'greater than'} {minimum}"
    else:
        wanted = f"{'at most' if interval[1] == ']' else 'less than'} {maximum}"
    raise ValueError(f"{name} must be {kind} {wanted}, but got {describe(number)}")


def check_choice(name: str, value: Any, choices: Sequence[_T]) -> _T:
    """Return ``value`` if it is one of ``choices``."""
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return value
    listed = ", ".join(repr(choice) for choice in choices)
    raise ValueError(f"{name} must be one of {listed}, but got {describe(value)}")


def check_flag(name: str, value: object) -> bool:
    """Return ``value`` as a bool; only True and False are accepted."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name} must be True or False, but got {describe(value)}")


def check_array(
    name: str, value: Any, shape: Sequence[int | str | None], dtypes: Sequence[DTypeLike] | None = None
) -> AnyArray:
    """Return ``value`` as an ndarray of the given shape and one of the given dtypes.

    Parameters
    ----------
    name : str
        Name of the argument, for error messages.
    value : array_like
        The argument. Subclasses (matrices, masked arrays without masked
        elements) become plain arrays; any strides are accepted, and unaligned
        arrays are copied.
    shape : tuple of (int or str or None)
        Expected shape; a str or None means any length, and a str is shown in
        error messages.
    dtypes : sequence of dtype, optional
        Accepted dtypes; arrays in the other byte order are converted. By
        default, every dtype is accepted.

    Raises
    ------
    TypeError
        If the dtype is not accepted, or if the value cannot be converted.
    ValueError
        If the shape does not match or an element is masked.
    MemoryError
        If the array is not contiguous (a broadcast one, for example) or must
        be converted, and a copy of it does not fit in memory. One that is used
        as it is may be mapped from a file and of any size.
    """
    array = as_array(name, value)
    if array.ndim != len(shape) or any(isinstance(n, int) and n != m for n, m in zip(shape, array.shape)):
        lengths = ", ".join("any" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{name} must have shape ({lengths}), but got {describe(array)}")
    if dtypes is not None:
        accepted = [np.dtype(dtype) for dtype in dtypes]
        native = array.dtype.newbyteorder("=")
        if native not in accepted:
            listed = " or ".join(str(dtype) for dtype in accepted)
            raise TypeError(f"{name} must have dtype {listed}, but got {describe(array)}")
    else:
        native = array.dtype
    if array.dtype != native or not (array.flags.aligned and array.flags.c_contiguous):
        check_memory(name, array.nbytes)
    array = array.astype(native, copy=False)
    return array if array.flags.aligned else array.copy()


def as_numbers(name: str, value: ArrayLike) -> AnyArray:
    array = as_array(name, value)
    if array.dtype == object:
        raise TypeError(f"{name} must be an array of numbers, but got {describe(value)}")
    return array


def as_images(name: str, value: ArrayLike, image_shape: ImageShape | None = None) -> AnyArray:
    """Return images as an array: from lists, tensors and objects with ``__array__`` or ``__dlpack__``.

    Parameters
    ----------
    name : str
        Name of the argument, for error messages.
    value : array_like, shape (n, channels, height, width)
    image_shape : tuple of int, optional
        Required shape of one image. Without it, channels-last arrays are recognised by their shape alone.

    Returns
    -------
    ndarray
        uint8 for integers, all of which must lie in 0..255; otherwise of the dtype of ``value``.

    Raises
    ------
    TypeError, ValueError
        If it is not such an array.
    """
    array = as_numbers(name, value)
    if _has_channels_last(array.shape, image_shape):
        wanted = "channels, height, width" if image_shape is None else ", ".join(map(str, image_shape))
        raise ValueError(
            f"{name} must have shape (n, {wanted}), but got {describe(array)}, whose channels come last: "
            f"{name}.transpose(0, 3, 1, 2) has them first"
        )
    array = check_array(name, array, ("n", *(image_shape or ("channels", "height", "width"))))
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        if array.size and (array.min() < 0 or array.max() > 255):
            wrong = array.min() if array.min() < 0 else array.max()
            raise ValueError(f"{name} must hold pixels in 0..255 if they are integers, but got {wrong}")
        check_memory(name, array.size)
        array = array.astype(np.uint8)
    return array


def as_pixels(name: str, value: ArrayLike, image_shape: ImageShape | None = None) -> NDArray[np.uint8]:
    """As `as_images`, but integers only."""
    array = as_images(name, value, image_shape)
    if array.dtype != np.uint8:
        raise TypeError(f"{name} must have dtype uint8, but got {describe(array)}")
    return array


def _has_channels_last(shape: tuple[int, ...], image_shape: ImageShape | None) -> bool:
    """Whether the shape is (n, height, width, channels) and cannot be (n, channels, height, width).

    If the shape of an image is not known: the last axis has length 1, 3 or 4, and the two before it are not
    those of a narrow strip (a time series with several channels may be passed as images one pixel wide).
    """
    if len(shape) != 4:
        return False
    _, height, width, channels = shape
    if image_shape is not None:
        return (channels, height, width) == image_shape != shape[1:]
    short, long = sorted((height, width))
    return short > 4 and ((channels in (3, 4) and long <= 2 * short) or (channels == 1 and long == short))


def as_array(name: str, value: Any) -> AnyArray:
    """Return ``value`` as an ndarray of any shape and dtype."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(f"{name} must have no masked elements, but got {int(np.sum(value.mask))} of them")
    try:
        if isinstance(value, range):  # NumPy turns it into a list, which may be huge
            check_memory(name, 48 * len(value))
        if hasattr(type(value), "__dlpack__") and not any(hasattr(type(value), name) for name in _ARRAY_PROTOCOLS):
            return np.from_dlpack(value)
        return np.asarray(value)
    except MemoryError:
        raise MemoryError(f"{name} needs more memory than this machine has, but got {describe(value)}") from None
    except Exception as error:  # a user's __array__ or __len__ may raise anything
        reason = f"{type(error).__name__}: {shorten(error)}"
        raise TypeError(f"{name} must be an array, but got {describe(value)}: {reason}") from None


def check_memory(what: str, n_bytes: int) -> None:
    """Raise MemoryError before an allocation that does not fit in memory."""
    limit = available_memory()
    if n_bytes > limit:
        raise MemoryError(f"{what} needs {n_bytes:,} bytes, but this process may use at most {limit:,} bytes of memory")


def check_finite(name: str, array: _ArrayT) -> _ArrayT:
    """Return ``array``, or raise ValueError naming the first NaN or infinity in it."""
    if array.size == 0 or array.dtype.kind != "f":
        return array
    # A cheap first test: if the sum is finite, so is every element.
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum(dtype=np.float64)):
            return array
    finite = np.isfinite(array)
    if finite.all():
        return array
    where = tuple(int(i) for i in np.unravel_index(np.argmin(finite), array.shape))
    count = array.size - int(np.count_nonzero(finite))
    raise ValueError(
        f"{name} must hold finite numbers, but got {array[where]} at index {where} ({count} such elements)"
    )


def as_labels(name: str, value: ArrayLike, n_images: int, n_classes: int | None = None) -> IntArray:
    """Return class indices as a vector of integers of any dtype.

    Shapes (n, 1) and (1, n) are accepted as well, and so are one-hot rows of
    integers, floats or bools. Without ``n_classes``, a single column holds
    indices.
    """
    array = as_numbers(name, value)
    if array.ndim == 2:
        if array.shape == (n_images, n_classes or max(array.shape[1], 2)) and is_one_hot(array):
            array = array.argmax(axis=1)
        elif array.shape in ((n_images, 1), (1, n_images)):
            array = array.reshape(-1)
    labels = check_array(name, array, (n_images,))
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, but got {describe(labels)}")
    return labels


def is_one_hot(array: AnyArray) -> bool:
    return (
        array.dtype.kind in "biuf"
        and bool(((array == 0) | (array == 1)).all())
        and bool((np.count_nonzero(array, axis=1) == 1).all())
    )


def check_labels(name: str, value: ArrayLike, n_images: int, n_classes: int) -> NDArray[np.int32]:
    """Return a copy of class indices as contiguous int32 of shape (n_images,).

    The kernels use them as indices, so later changes of the caller's array must not reach them.
    """
    labels = as_labels(name, value, n_images, n_classes).copy()
    if labels.size and (labels.min() < 0 or labels.max() >= n_classes):
        bad = int(labels.min()) if labels.min() < 0 else int(labels.max())
        raise ValueError(f"{name} must lie in 0..{n_classes - 1}, but got {bad}")
    return np.ascontiguousarray(labels, dtype=np.int32)


def check_seed(seed: int) -> int:
    """Return a seed, an integer in 0..2**64 - 1."""
    return check_integer("seed", seed, 0, 2**64 - 1)


def check_float_dtype(dtype: DTypeLike | None) -> np.dtype[np.floating]:
    """Return float32 or float64 as a dtype."""
    try:
        found: np.dtype[Any] | None = None if dtype is None else np.dtype(dtype)
    except Exception:  # a user's dtype may raise anything
        found = None
    if found is None or found not in FLOATS:
        raise ValueError(f"dtype must be 'float32' or 'float64', but got {describe(dtype)}")
    return found


def check_image_shape(image_shape: Sequence[int]) -> ImageShape:
    """Return (C, H, W) as positive integers."""
    shape = image_shape if isinstance(image_shape, (tuple, list, np.ndarray)) else ()
    if (isinstance(shape, np.ndarray) and shape.ndim != 1) or len(shape) != 3:
        raise ValueError(f"image_shape must be (channels, height, width), but got {describe(image_shape)}")
    channels, height, width = (check_integer(f"image_shape[{i}]", size, 1, 2**20) for i, size in enumerate(shape))
    return channels, height, width


def check_filter_size(filter_size: int, height: int, width: int, name: str = "filter_size") -> int:
    """Return a filter width that divides the image."""
    f = check_integer(name, filter_size, 1, 2**31 - 1)
    if height % f or width % f:
        raise ValueError(f"{name} must divide the image's height {height} and width {width}, but got {f}")
    return f


def check_targets(
    targets: ArrayLike,
    n: int,
    n_classes: int,
    dtype: np.dtype[Any],
    label_smoothing: float,
    name: str = "targets",
) -> tuple[NDArray[np.int32] | None, FloatArray | None, float, float]:
    """Return (labels, None, on, off) or (None, probabilities, 1, 0), where on and off are the smoothed targets."""
    array = as_array(name, targets)
    on, off = smoothed(label_smoothing, n_classes)
    if array.ndim != 2 or array.dtype.kind != "f":
        return check_labels(name, array, n, n_classes), None, on, off
    probabilities = check_probabilities(name, array, n, n_classes, dtype)
    check_unsmoothed(label_smoothing, name)
    return None, probabilities, 1.0, 0.0


def check_unsmoothed(label_smoothing: float, name: str = "labels") -> None:
    """Raise ValueError where labels that are probabilities would be smoothed as well."""
    if label_smoothing:
        raise ValueError(
            f"label_smoothing must be 0 where {name} are probabilities, but got {describe(label_smoothing)}"
        )


def are_probabilities(labels: AnyArray) -> bool:
    """Whether labels are rows of floats, and not one-hot rows, which are classes."""
    return labels.ndim == 2 and labels.dtype.kind == "f" and labels.shape[1] > 1 and not is_one_hot(labels)


def check_probabilities(name: str, value: ArrayLike, n: int, n_classes: int, dtype: DTypeLike) -> FloatArray:
    """Return rows of probabilities as a contiguous copy whose rows sum to 1."""
    array = check_array(name, value, (n, n_classes))
    with np.errstate(over="ignore"):  # check_finite reports what overflows float64
        array = array.astype(np.float64)
    check_finite(name, array)
    sums = array.sum(axis=1, keepdims=True)
    if (array < 0).any() or (np.abs(sums - 1) > 1e-3).any():
        raise ValueError(f"{name} must be probabilities that sum to 1 in each row, but got {describe(array)}")
    # The gradient relies on sums of exactly 1.
    return np.ascontiguousarray(array / sums, dtype)


def check_class_weight(class_weight: ArrayLike | None, n_classes: int) -> NDArray[np.float64] | None:
    """Return a weight for each class, not negative and not all 0, as a copy; None for none."""
    if class_weight is None:
        return None
    array = check_array("class_weight", class_weight, (n_classes,))
    if array.dtype.kind not in "iuf":
        raise TypeError(f"class_weight must be numbers, but got {describe(array)}")
    weights = check_finite("class_weight", np.array(array, np.float64))
    if weights.min() < 0 or weights.max() == 0:
        wrong = "only zeros" if weights.max() == 0 else f"{weights.min():g}"
        raise ValueError(f"class_weight must not be negative and not 0 for all classes, but got {wrong}")
    return weights


def smoothed(label_smoothing: float, n_classes: int) -> tuple[float, float]:
    """Target probability of the true class and of each other class."""
    eps = check_real("label_smoothing", label_smoothing, 0, 1, "[)")
    return 1 - eps, eps / (n_classes - 1) if n_classes > 1 else 0.0
