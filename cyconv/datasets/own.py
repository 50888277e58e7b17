"""Your own images and labels, from an ``.npz`` or from ``.npy`` files."""

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .._checks import as_pixels, check_integer, describe
from .._files import check_path, load_foreign_arrays, map_array
from .._typing import AnyArray, StrPath
from .split import Dataset, Split

_SPLITS = ("train", "validation", "test")
_REQUIRED = ("train_images", "train_labels", "test_images", "test_labels")
_MAX_CLASSES = 2**20  # of a network


def load_npz(path: StrPath, validation_size: int | None = None) -> Dataset:
    """Read your own data set from an ``.npz``, as ``numpy.savez`` and ``numpy.savez_compressed`` write it.

    The file holds ``train_images``, ``train_labels``, ``test_images`` and
    ``test_labels``, and optionally ``validation_images`` and
    ``validation_labels``; or it holds ``images`` and ``labels``, the last
    tenth of which is the test split. Without validation images, the last of
    the training images become the validation split. Nothing is shuffled: data
    that are sorted by class must be shuffled before they are saved, and a
    UserWarning says so.

    Images are pixels and labels class indices, as for `Split`; grey images may
    have the shape (n, height, width). ``class_names``, an array of text, is optional; the
    default names are the numbers of the classes. No pickle is executed.

    Parameters
    ----------
    path : path-like
    validation_size : int, optional
        Number of images at the end of the training images that become the
        validation split; by default a tenth of them, but at most 1,000. Not
        allowed if the file holds validation images.

    Returns
    -------
    Dataset
        Its name is that of the file. Images and labels are read-only.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError, ValueError
        If the file is not an ``.npz``, an array is missing, unknown or invalid, or the validation size does not fit.
    MemoryError
        If the arrays need more memory than this process may use.

    Examples
    --------
    >>> import tempfile
    >>> images, labels = np.zeros((20, 32, 32), np.uint8), np.arange(20) % 7
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/grey.npz", images=images, labels=labels)
    ...     load_npz(f"{folder}/grey.npz")
    Dataset('grey.npz': 17 training, 1 validation and 2 test images of 7 classes)
    """
    path = check_path("path", path)
    return _make_dataset(path, load_foreign_arrays, validation_size)


def load_npy(path: StrPath, validation_size: int | None = None) -> Dataset:
    """Map your own data set from a folder of ``.npy`` files; the images may be larger than memory.

    The folder holds the arrays of `load_npz`, each in a file of its name as
    ``numpy.save`` writes it: ``train_images.npy``, ``train_labels.npy`` and so
    on, or ``images.npy`` and ``labels.npy``. What is said there about them holds
    here. Pages of the files are read when they are used, and the system may
    drop them again: uint8 images of shape (n, channels, height, width) or
    (n, height, width) take no memory of their own. (Training reads them in
    random order, which takes long on a disk that must seek. Other integers,
    and arrays in Fortran order, are copied into memory.) The files must not
    be changed while they are in use.

    Parameters
    ----------
    path : path-like
        The folder.
    validation_size : int, optional
        As for `load_npz`.

    Returns
    -------
    Dataset
        Its name is that of the folder. Images and labels are read-only.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    TypeError, ValueError
        If a file is not a ``.npy``, an array is missing, unknown or invalid, or the validation size does not fit.
    MemoryError
        If an array must be copied and does not fit in memory.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> np.save(f"{folder.name}/images.npy", np.zeros((20, 32, 32), np.uint8))
    >>> np.save(f"{folder.name}/labels.npy", np.arange(20) % 7)
    >>> data = load_npy(folder.name)
    >>> len(data.train), data.image_shape
    (17, (1, 32, 32))
    """
    path = check_path("path", path)
    return _make_dataset(path, _map_arrays, validation_size)


def holds_npy(path: Path) -> bool:
    """Whether a folder is one for `load_npy`."""
    return any(os.path.isfile(path / f"{name}.npy") for name in ("train_images", "images"))


def _map_arrays(path: Path) -> dict[str, AnyArray]:
    if not path.is_dir():
        raise FileNotFoundError(f"path must be a folder of .npy files, but there is no folder {path}")
    return {file.stem: map_array(file) for file in sorted(path.glob("*.npy"))}


def _make_dataset(path: Path, load: Callable[[Path], dict[str, AnyArray]], validation_size: int | None) -> Dataset:
    if validation_size is not None:
        validation_size = check_integer("validation_size", validation_size, 1)
    arrays = load(path)
    _check_names(path, set(arrays))
    if "images" in arrays:
        splits = {"train": _make_split(path, arrays, "")}
        _warn_if_sorted(path, splits["train"])
        splits["train"], splits["test"] = _cut_off(path, splits["train"], max(1, len(splits["train"]) // 10), "testing")
    else:
        splits = {which: _make_split(path, arrays, f"{which}_") for which in _SPLITS if f"{which}_images" in arrays}
        if "validation" not in splits:
            _warn_if_sorted(path, splits["train"])
    if "validation" not in splits:
        size = validation_size or min(1000, max(1, len(splits["train"]) // 10))
        splits["train"], splits["validation"] = _cut_off(path, splits["train"], size, "validation")
    elif validation_size is not None:
        kind = "folder" if path.is_dir() else "file"
        raise ValueError(
            f"validation_size must be None if the {kind} holds validation images, but got {validation_size}, and "
            f"{path} holds {len(splits['validation'])}"
        )
    name = os.path.basename(os.path.abspath(path))
    try:
        return Dataset(**splits, class_names=_class_names(arrays.get("class_names"), splits), name=name)
    except (TypeError, ValueError) as error:
        raise type(error)(f"path must hold a valid data set, but in {path} {error}") from None


def _check_names(path: Path, names: set[str]) -> None:
    """Raise ValueError if an array is missing, or if there is one that would be ignored."""
    whole = not names.isdisjoint(("images", "labels"))
    required = {"images", "labels"} if whole else {*_REQUIRED}
    known = required | {"class_names"}
    if not whole and not names.isdisjoint(("validation_images", "validation_labels")):
        required |= {"validation_images", "validation_labels"}
        known |= required
    wrong = []
    if required - names:
        wrong.append(f"lacks {', '.join(sorted(required - names))}")
    if names - known:
        wrong.append(f"holds {', '.join(sorted(names - known))[:200]}")
    if wrong:
        raise ValueError(
            f"path must hold {', '.join(_REQUIRED)} and optionally validation_images and validation_labels, or else "
            f"images and labels, in both cases optionally class_names, but {path} {' and '.join(wrong)}"
        )


def _make_split(path: Path, arrays: dict[str, AnyArray], prefix: str) -> Split:
    images = arrays[f"{prefix}images"]
    if images.ndim == 3:
        images = images[:, None]
    try:
        split = Split(as_pixels("images", images), arrays[f"{prefix}labels"])
        if split.has_probabilities:
            raise TypeError(f"labels must be class indices, but got {describe(split.labels)}")
    except (TypeError, ValueError) as error:
        sentence = re.sub(r"^images|^labels|\bimages(?=\.)", lambda name: prefix + name[0], str(error))
        raise type(error)(f"path must hold valid images and labels, but in {path} {sentence}") from None
    _make_read_only(split)
    return split


def _make_read_only(split: Split) -> None:
    """Make both arrays read-only, so that the fingerprint is computed only once."""
    for array in (split.images, split.labels):
        part: AnyArray | None = array
        while isinstance(part, np.ndarray):
            part.flags.writeable = False
            part = part.base


def _warn_if_sorted(path: Path, split: Split) -> None:
    labels = split.labels
    if len(labels) > 2 and labels[0] < labels[-1] and (np.diff(labels) >= 0).all():
        warnings.warn(
            f"{path} is sorted by class, so that its last images, which are held out, have other classes than the "
            "training images: shuffle images and labels before saving them",
            UserWarning,
            stacklevel=4,
        )


def _cut_off(path: Path, split: Split, size: int, what: str) -> tuple[Split, Split]:
    """Split off the last ``size`` images: the images before them, and these."""
    n_first = len(split) - size
    if n_first < 1:
        raise ValueError(f"path must hold more images than the {size} for {what}, but {path} has {len(split)} left")
    return Split(split.images[:n_first], split.labels[:n_first]), Split(split.images[n_first:], split.labels[n_first:])


def _class_names(names: AnyArray | None, splits: dict[str, Split]) -> list[str]:
    """The names in the file, or else the numbers of the classes."""
    largest = max(int(split.labels.max()) for split in splits.values())
    if names is None:
        if largest >= _MAX_CLASSES:
            raise ValueError(f"labels must be class indices in [0, {_MAX_CLASSES}), but got {largest}")
        return [str(number) for number in range(largest + 1)]
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise TypeError(f"class_names must be a one-dimensional array of text, but got {describe(names)}")
    if largest >= len(names):
        raise ValueError(f"class_names must name every class, but there are {len(names)} names and a label {largest}")
    return [name.decode(errors="replace") if isinstance(name, bytes) else name for name in names.tolist()]
