"""Images and labels of one's own, from an ``.npz``."""

import re
import warnings
from pathlib import Path

import numpy as np

from .._checks import check_integer, describe
from .._files import check_path, load_foreign_arrays
from .._typing import AnyArray, StrPath
from .split import Dataset, Split

_SPLITS = ("train", "validation", "test")
_REQUIRED = ("train_images", "train_labels", "test_images", "test_labels")
_MAX_CLASSES = 2**20  # of a network


def load_npz(path: StrPath, validation_size: int | None = None) -> Dataset:
    """Read a data set of one's own from an ``.npz``, as ``numpy.savez`` and ``numpy.savez_compressed`` write it.

    It holds ``train_images``, ``train_labels``, ``test_images`` and
    ``test_labels``, and may hold ``validation_images`` and
    ``validation_labels``; or it holds ``images`` and ``labels``, of which the
    last tenth tests. Where there are no validation images, the last of the
    training images validate. Nothing is shuffled: what is sorted by class
    must be shuffled before it is saved, and a UserWarning says so.

    Images and labels are what `Split` takes; grey images may have the shape
    (n, height, width). ``class_names``, an array of text, is optional:
    without it the classes are called by their numbers. No pickle is executed.

    Parameters
    ----------
    path : path-like
    validation_size : int, optional
        How many of the training images, the last ones, validate: a tenth of
        them, but 1,000 at most, unless said otherwise. Not where the file
        holds validation images.

    Returns
    -------
    Dataset
        Named like the file. Images and labels are read-only.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError, ValueError
        If it is no ``.npz``, lacks an array or has one too many, or an array is none of images or labels.
    MemoryError
        If it holds more than this process can.

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
    if validation_size is not None:
        validation_size = check_integer("validation_size", validation_size, 1)
    arrays = load_foreign_arrays(path)
    _check_names(path, set(arrays))
    if "images" in arrays:
        splits = {"train": _make_split(path, arrays, "")}
        _warn_if_sorted(path, splits["train"])
        splits["train"], splits["test"] = _cut_off(path, splits["train"], max(1, len(splits["train"]) // 10), "test")
    else:
        splits = {which: _make_split(path, arrays, f"{which}_") for which in _SPLITS if f"{which}_images" in arrays}
        if "validation" not in splits:
            _warn_if_sorted(path, splits["train"])
    if "validation" not in splits:
        size = validation_size or min(1000, max(1, len(splits["train"]) // 10))
        splits["train"], splits["validation"] = _cut_off(path, splits["train"], size, "validate")
    elif validation_size is not None:
        raise ValueError(
            f"validation_size must not be given where there are validation images, but {path} holds "
            f"{len(splits['validation'])}"
        )
    try:
        return Dataset(**splits, class_names=_class_names(arrays.get("class_names"), splits), name=path.name)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error}, in {path}") from None


def _check_names(path: Path, names: set[str]) -> None:
    """Refuse a file that lacks an array, or holds one that would be left aside."""
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
            f"path must hold {', '.join(_REQUIRED)} and, if there are any, validation_images and validation_labels, "
            f"or else images and labels, and beside them class_names at most, but {path} {' and '.join(wrong)}"
        )


def _make_split(path: Path, arrays: dict[str, AnyArray], prefix: str) -> Split:
    images = arrays[f"{prefix}images"]
    if images.ndim == 3:
        images = images[:, None]
    try:
        split = Split(images, arrays[f"{prefix}labels"])
    except (TypeError, ValueError) as error:
        sentence = re.sub(r"^images|^labels|\bimages(?=\.)", lambda name: prefix + name[0], str(error))
        raise type(error)(f"{sentence}, in {path}") from None
    _make_read_only(split)
    return split


def _make_read_only(split: Split) -> None:
    """So that the split's fingerprint is taken once."""
    for array in (split.images, split.labels):
        part: AnyArray | None = array
        while isinstance(part, np.ndarray):
            part.flags.writeable = False
            part = part.base


def _warn_if_sorted(path: Path, split: Split) -> None:
    labels = split.labels
    if len(labels) > 2 and labels[0] < labels[-1] and (np.diff(labels) >= 0).all():
        warnings.warn(
            f"{path} is sorted by class, and its last images, which are not trained on, are of other classes than "
            "the first: shuffle images and labels before saving them",
            UserWarning,
            stacklevel=3,
        )


def _cut_off(path: Path, split: Split, size: int, what: str) -> tuple[Split, Split]:
    """The first images, and the last ones, as many as ``size``."""
    n_first = len(split) - size
    if n_first < 1:
        raise ValueError(
            f"path must hold images to train on beside the {size} that {what}, but {path} has {len(split)}"
        )
    return Split(split.images[:n_first], split.labels[:n_first]), Split(split.images[n_first:], split.labels[n_first:])


def _class_names(names: AnyArray | None, splits: dict[str, Split]) -> list[str]:
    """What the file calls the classes, or their numbers."""
    if names is None:
        largest = max(int(split.labels.max()) for split in splits.values())
        if largest >= _MAX_CLASSES:
            raise ValueError(f"labels must be class indices in [0, {_MAX_CLASSES}), but got {largest}")
        return [str(number) for number in range(largest + 1)]
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise TypeError(f"class_names must be an array of text, of one dimension, but got {describe(names)}")
    return [name.decode() if isinstance(name, bytes) else name for name in names.tolist()]
