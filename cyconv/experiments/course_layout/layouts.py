"""Conversion of arrays between the course's layouts and cyconv's."""

import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._checks import as_array, check_array, check_finite, check_image_shape, check_integer, describe
from ..._files import check_path
from ..._typing import AnyArray, FloatArray, Parameters, StrPath

#: The course's names of cyconv's parameters.
NAMES = {
    "conv.weight": "Fs",
    "conv.bias": "Fs_b",
    "hidden.weight": "W1",
    "hidden.bias": "b1",
    "output.weight": "W2",
    "output.bias": "b2",
}
#: What the debug files contain in addition to parameters and gradients, whose names start with ``grad_``.
RESULTS = ("X", "Y", "y", "MX", "Fs_flat", "conv_outputs", "conv_outputs_mat", "conv_flat", "X1", "P", "loss", "cost")

FLOATS = (np.float32, np.float64)
_SHAPES = {
    "conv.weight": ("nf", "C", "f", "f"),
    "conv.bias": ("nf",),
    "hidden.weight": ("nh", "nf·n_p"),
    "hidden.bias": ("nh",),
    "output.weight": ("K", "nh"),
    "output.bias": ("K",),
}


def images_from_columns(columns: ArrayLike, image_shape: Sequence[int] = (3, 32, 32)) -> AnyArray:
    """Convert a matrix with one image per column to images (n, C, H, W).

    Parameters
    ----------
    columns : array_like, shape (C·H·W, n)
        The course's ``X``. A column holds the colour planes one after the
        other, each row by row, as CIFAR-10 stores an image.
    image_shape : tuple of int, default (3, 32, 32)

    Returns
    -------
    ndarray, shape (n, C, H, W)
        C-contiguous, of the dtype of ``columns``.

    Raises
    ------
    TypeError, ValueError
        If the array does not have this shape.

    Examples
    --------
    >>> images_from_columns([[1], [2], [3], [4]], (1, 2, 2))
    array([[[[1, 2],
             [3, 4]]]])
    """
    image_shape = check_image_shape(image_shape)
    columns = check_array("columns", columns, (math.prod(image_shape), "n"))
    return np.ascontiguousarray(columns.T).reshape(-1, *image_shape)


def images_to_columns(images: ArrayLike) -> AnyArray:
    """The inverse of `images_from_columns`.

    Parameters
    ----------
    images : array_like, shape (n, C, H, W)

    Returns
    -------
    ndarray, shape (C·H·W, n)

    Examples
    --------
    >>> images_to_columns(np.arange(8).reshape(2, 1, 2, 2)).tolist()
    [[0, 4], [1, 5], [2, 6], [3, 7]]
    """
    images = check_array("images", images, ("n", "C", "H", "W"))
    return np.ascontiguousarray(images.reshape(len(images), math.prod(images.shape[1:])).T)


def filters_from_course(filters: ArrayLike) -> AnyArray:
    """Convert the course's ``Fs`` to filters (nf, C, f, f).

    Parameters
    ----------
    filters : array_like, shape (f, f, C, nf)

    Returns
    -------
    ndarray, shape (nf, C, f, f)

    Examples
    --------
    >>> filters_from_course(np.zeros((4, 4, 3, 10))).shape
    (10, 3, 4, 4)
    """
    filters = check_array("filters", filters, ("f", "f", "C", "nf"))
    return np.ascontiguousarray(filters.transpose(3, 2, 0, 1))


def filters_from_flat(filters: ArrayLike, channels: int = 3) -> AnyArray:
    """Convert the course's ``Fs_flat`` to filters (nf, C, f, f).

    Parameters
    ----------
    filters : array_like of float, shape (f²·C, nf)
    channels : int, default 3

    Returns
    -------
    ndarray, shape (nf, C, f, f)

    Raises
    ------
    TypeError, ValueError
        If the number of rows is not f²·C for an integer f.

    Examples
    --------
    >>> filters_from_flat(np.zeros((48, 10))).shape
    (10, 3, 4, 4)
    """
    filters = check_array("Fs_flat", filters, ("f²·C", "nf"), FLOATS)
    channels = check_integer("channels", channels, 1)
    f = math.isqrt(len(filters) // channels)
    if not f or f * f * channels != len(filters):
        raise ValueError(f"Fs_flat must have f²·{channels} rows, where f is an integer, but got {describe(filters)}")
    return filters_from_course(filters.reshape(f, f, channels, filters.shape[1]))


def filters_to_course(weight: ArrayLike) -> AnyArray:
    """The inverse of `filters_from_course`; ``.reshape(-1, nf)`` of it is the course's ``Fs_flat``.

    Parameters
    ----------
    weight : array_like, shape (nf, C, f, f)

    Returns
    -------
    ndarray, shape (f, f, C, nf)

    Examples
    --------
    >>> filters_to_course(np.arange(12).reshape(1, 3, 2, 2)).reshape(-1).tolist()
    [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    """
    weight = check_array("weight", weight, ("nf", "C", "f", "f"))
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


def patches_to_course(patches: ArrayLike, channels: int = 3) -> AnyArray:
    """Convert the patches that `cyconv.backend.ops.im2col` returns to the course's ``MX``.

    Parameters
    ----------
    patches : array_like, shape (n, C·f², n_p)
    channels : int, default 3

    Returns
    -------
    ndarray, shape (n_p, f²·C, n)

    Examples
    --------
    >>> patches_to_course(np.arange(4).reshape(1, 4, 1), channels=2)[0, :, 0]
    array([0, 2, 1, 3])
    """
    patches = check_array("patches", patches, ("n", "D", "n_p"))
    n, size, n_patches = patches.shape
    channels = check_integer("channels", channels, 1)
    if size % channels:
        raise ValueError(f"patches must have a multiple of {channels} values each, but got {describe(patches)}")
    by_channel = patches.reshape(n, channels, size // channels, n_patches)
    return np.ascontiguousarray(by_channel.transpose(3, 2, 1, 0)).reshape(n_patches, size, n)


def maps_to_course(maps: ArrayLike) -> AnyArray:
    """Convert outputs of the convolution to the course's ``conv_outputs``.

    Parameters
    ----------
    maps : array_like, shape (n, nf, H/f, W/f)

    Returns
    -------
    ndarray, shape (H/f, W/f, nf, n)
        ``.reshape(-1, n)`` of its ReLU is the course's ``conv_flat``.

    Examples
    --------
    >>> maps_to_course(np.zeros((5, 2, 8, 8))).shape
    (8, 8, 2, 5)
    """
    maps = check_array("maps", maps, ("n", "nf", "rows", "columns"))
    return np.ascontiguousarray(maps.transpose(2, 3, 1, 0))


def hidden_from_course(weight: ArrayLike, n_filters: int) -> AnyArray:
    """Convert the course's ``W1`` to the hidden layer's weight, with columns in the order of ``torch.flatten``.

    Parameters
    ----------
    weight : array_like, shape (nh, n_p·nf)
        Column ``patch·nf + filter`` belongs to this filter at this patch.
    n_filters : int

    Returns
    -------
    ndarray, shape (nh, nf·n_p)
        Column ``filter·n_p + patch``.

    Raises
    ------
    TypeError, ValueError
        If the number of columns is not a multiple of the number of filters.

    Examples
    --------
    >>> hidden_from_course([[0, 1, 2, 3, 4, 5]], n_filters=2)
    array([[0, 2, 4, 1, 3, 5]])
    """
    weight, n_filters = _check_hidden(weight, n_filters)
    by_patch = weight.reshape(len(weight), weight.shape[1] // n_filters, n_filters)
    return np.ascontiguousarray(by_patch.transpose(0, 2, 1)).reshape(weight.shape)


def hidden_to_course(weight: ArrayLike, n_filters: int) -> AnyArray:
    """The inverse of `hidden_from_course`.

    Parameters
    ----------
    weight : array_like, shape (nh, nf·n_p)
    n_filters : int

    Returns
    -------
    ndarray, shape (nh, n_p·nf)

    Examples
    --------
    >>> hidden_to_course([[0, 2, 4, 1, 3, 5]], n_filters=2)
    array([[0, 1, 2, 3, 4, 5]])
    """
    weight, n_filters = _check_hidden(weight, n_filters)
    by_filter = weight.reshape(len(weight), n_filters, weight.shape[1] // n_filters)
    return np.ascontiguousarray(by_filter.transpose(0, 2, 1)).reshape(weight.shape)


def _check_hidden(weight: ArrayLike, n_filters: int) -> tuple[AnyArray, int]:
    n_filters = check_integer("n_filters", n_filters, 1)
    weight = check_array("weight", weight, ("nh", "nf·n_p"))
    if weight.shape[1] % n_filters:
        raise ValueError(f"weight must have a multiple of {n_filters} columns, but got {describe(weight)}")
    return weight, n_filters


def parameters_from_course(arrays: Mapping[str, ArrayLike], channels: int = 3) -> Parameters:
    """Convert the course's ``Fs``, ``W1``, ``b1``, ``W2``, ``b2`` to parameters for `Network.set_parameters`.

    Parameters
    ----------
    arrays : mapping of str to array_like of float
        ``Fs`` (f, f, C, nf) or ``Fs_flat`` (f²·C, nf), ``W1`` (nh, n_p·nf),
        ``W2`` (K, nh), and the biases as vectors or as columns. The
        convolution's bias ``Fs_b`` (nf,) is optional. ``Fs_flat`` beside ``Fs``
        and the other arrays of a debug file (`RESULTS` and gradients) are ignored.
    channels : int, default 3
        C, of ``Fs_flat``.

    Returns
    -------
    dict of str to ndarray
        ``"conv.bias"`` is zero without ``Fs_b``.

    Raises
    ------
    KeyError
        If one of them is missing.
    TypeError, ValueError
        If there is an unknown name, the shapes do not match, or a number is
        not finite.

    Examples
    --------
    >>> arrays = {"Fs": np.zeros((4, 4, 3, 2)), "W1": np.zeros((10, 128)), "b1": np.zeros((10, 1)),
    ...           "W2": np.zeros((10, 10)), "b2": np.zeros((10, 1))}
    >>> {name: array.shape for name, array in parameters_from_course(arrays).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'conv.weight': (2, 3, 4, 4), 'conv.bias': (2,), 'hidden.weight': (10, 128), 'hidden.bias': (10,),
     'output.weight': (10, 10), 'output.bias': (10,)}
    """
    names = tuple(NAMES.values())
    is_flat = isinstance(arrays, Mapping) and "Fs_flat" in arrays and "Fs" not in arrays
    _check_mapping("arrays", arrays, ["Fs_flat" if is_flat else "Fs", "W1", "b1", "W2", "b2"])
    for name in arrays:
        if name not in names + RESULTS and not str(name).startswith("grad_"):
            raise ValueError(
                f"arrays must hold only {', '.join(names)} and the other arrays of the course's debug files, "
                f"but got {describe(name)}"
            )
    if is_flat:
        filters = filters_from_flat(arrays["Fs_flat"], channels)
    else:
        filters = filters_from_course(check_array("Fs", arrays["Fs"], ("f", "f", "C", "nf"), FLOATS))
    n_filters = len(filters)
    hidden = check_array("W1", arrays["W1"], ("nh", "n_p·nf"), FLOATS)
    output = check_array("W2", arrays["W2"], ("K", len(hidden)), FLOATS)
    parameters = {
        "conv.weight": filters,
        "conv.bias": _bias(arrays, "Fs_b", n_filters) if "Fs_b" in arrays else np.zeros(n_filters, filters.dtype),
        "hidden.weight": hidden_from_course(hidden, n_filters),
        "hidden.bias": _bias(arrays, "b1", len(hidden)),
        "output.weight": output,
        "output.bias": _bias(arrays, "b2", len(output)),
    }
    for name, array in parameters.items():
        check_finite(NAMES[name], array)
    return parameters


def _bias(arrays: Mapping[str, ArrayLike], name: str, length: int) -> FloatArray:
    """A bias as a vector; the course keeps it as a column."""
    return check_array(name, as_array(name, arrays[name]).reshape(-1), (length,), FLOATS)


def parameters_to_course(parameters: Mapping[str, ArrayLike]) -> dict[str, FloatArray]:
    """The inverse of `parameters_from_course`.

    Parameters
    ----------
    parameters : mapping of str to ndarray
        Those of a network with one filter size and one hidden layer.

    Returns
    -------
    dict of str to ndarray
        ``Fs`` (f, f, C, nf), ``W1`` (nh, n_p·nf), ``W2`` (K, nh), and the biases
        ``Fs_b``, ``b1`` and ``b2`` as columns.

    Examples
    --------
    >>> from cyconv import Network
    >>> network = Network(filter_size=4, n_filters=2, n_hidden=10, dtype="float64")
    >>> {name: array.shape for name, array in parameters_to_course(network.parameters).items()}
    {'Fs': (4, 4, 3, 2), 'Fs_b': (2, 1), 'W1': (10, 128), 'b1': (10, 1), 'W2': (10, 10), 'b2': (10, 1)}
    """
    return _to_course("parameters", parameters)


def gradients_to_course(gradients: Mapping[str, ArrayLike]) -> dict[str, FloatArray]:
    """Convert the gradients of `Network.loss_and_gradients` to the course's ``grad_Fs_flat``, ``grad_W1`` and so on.

    Parameters
    ----------
    gradients : mapping of str to ndarray
        Gradients of a network with one filter size and one hidden layer.

    Returns
    -------
    dict of str to ndarray
        ``grad_Fs_flat`` (f²·C, nf), ``grad_W1`` (nh, n_p·nf), ``grad_W2`` (K, nh),
        and those of the biases as columns.

    Examples
    --------
    >>> from cyconv import Network
    >>> network = Network(filter_size=4, n_filters=2, n_hidden=10, dtype="float64")
    >>> _, gradients = network.loss_and_gradients(np.zeros((1, 3, 32, 32)), [0])
    >>> {name: array.shape for name, array in gradients_to_course(gradients).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'grad_Fs_flat': (48, 2), 'grad_Fs_b': (2, 1), 'grad_W1': (10, 128), 'grad_b1': (10, 1), 'grad_W2': (10, 10),
     'grad_b2': (10, 1)}
    """
    arrays = _to_course("gradients", gradients)
    filters = arrays.pop("Fs")
    arrays = {"Fs_flat": filters.reshape(math.prod(filters.shape[:3]), filters.shape[3]), **arrays}
    return {f"grad_{name}": array for name, array in arrays.items()}


def _to_course(name: str, mapping: Mapping[str, ArrayLike]) -> dict[str, FloatArray]:
    _check_mapping(name, mapping, _SHAPES)
    arrays = {key: check_array(key, mapping[key], shape, FLOATS) for key, shape in _SHAPES.items()}
    return {
        "Fs": filters_to_course(arrays["conv.weight"]),
        "Fs_b": arrays["conv.bias"][:, None],
        "W1": hidden_to_course(arrays["hidden.weight"], len(arrays["conv.weight"])),
        "b1": arrays["hidden.bias"][:, None],
        "W2": arrays["output.weight"],
        "b2": arrays["output.bias"][:, None],
    }


def _check_mapping(name: str, value: Any, keys: Iterable[str]) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of arrays, but got {describe(value)}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise KeyError(f"{name} must hold {', '.join(keys)}, but got no {missing[0]}")


def read_debug_file(path: StrPath) -> dict[str, NDArray[np.float64]]:
    """The numeric arrays of the course's ``debug_info.npz`` or ``debug_conv_info.npz``, as float64.

    Nothing is unpickled; members that are not arrays of numbers are skipped.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict of str to ndarray of float64

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not an ``.npz`` file, or is damaged.
    """
    path = check_path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"path must be one of the course's .npz files, but there is no file {path}")
    arrays = {}
    errors = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, RuntimeError, SyntaxError)
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            for name in file.files:
                try:
                    array = file[name]
                except ValueError as error:
                    if "allow_pickle" in str(error):
                        continue
                    raise
                if array.dtype.kind in "biuf":
                    arrays[name] = array.astype(np.float64)
    except errors as error:
        raise ValueError(
            f"path must be one of the course's .npz files, but {path} is not one or is damaged: {error}"
        ) from None
    return arrays
