"""Images with their labels: one split, and the three splits of a data set."""

import hashlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._checks import as_labels, as_pixels, describe


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Parameters
    ----------
    images : array_like of int, shape (n, channels, height, width)
        Pixels 0 to 255 as CIFAR-10 stores them; a list or a tensor is taken
        as well. A C-contiguous array of uint8 is kept as it is, not copied;
        anything else is copied into one.
    labels : array_like of int, shape (n,)
        Class indices, from 0; kept as int64. A column, a row, or one-hot rows
        are taken as well.

    Raises
    ------
    TypeError
        If the images or the labels are not integers.
    ValueError
        If a shape does not fit, as where channels come last, a pixel or a
        label is out of range or there is no image.

    Examples
    --------
    >>> import numpy as np
    >>> split = Split(np.zeros((2, 3, 32, 32), np.uint8), [0, 9])
    >>> len(split), split.images.shape
    (2, (2, 3, 32, 32))
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __init__(self, images: ArrayLike, labels: ArrayLike) -> None:
        images = as_pixels("images", images)
        if images.size == 0:
            raise ValueError(f"images must hold at least one image, but got {describe(images)}")
        labels = as_labels("labels", labels, len(images))
        if labels.min() < 0 or labels.max() >= 2**31:
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise ValueError(f"labels must be class indices in [0, 2**31), but got {wrong}")
        object.__setattr__(self, "images", np.ascontiguousarray(images))
        object.__setattr__(self, "labels", np.ascontiguousarray(labels, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Split({len(self)} images of shape {self.images.shape[1:]})"

    def fingerprint(self) -> str:
        """The SHA-256 of shape, pixels and labels as 64 hexadecimal digits.

        Two splits have the same fingerprint when they hold the same images
        and labels in the same order, on every machine. It is taken once of
        arrays that nobody can write to, such as those that were loaded, and
        each time of others.
        """
        constant = _is_constant(self.images) and _is_constant(self.labels)
        if constant and self in _fingerprints:
            return _fingerprints[self]
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(self.images.data)
        digest.update(self.labels.astype("<i8", copy=False).data)
        if constant:
            _fingerprints[self] = digest.hexdigest()
        return digest.hexdigest()


_fingerprints: weakref.WeakKeyDictionary[Split, str] = weakref.WeakKeyDictionary()  # of constant splits


def _is_constant(array: object) -> bool:
    """Whether neither the array nor one that it is a view of can be written to."""
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    return array is None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of one data set.

    Parameters
    ----------
    train, validation, test : Split
        Images of one shape; what is learned, what is watched meanwhile, and
        what is looked at once at the end.
    class_names : sequence of str
        One name per class; labels are indices into it.
    name : str
        The data set's name, as it stands in titles, tables and files.

    Raises
    ------
    TypeError, ValueError
        If a split is none, shapes differ, or a label has no class name.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    name: str

    def __init__(self, train: Split, validation: Split, test: Split, class_names: Sequence[str], name: str) -> None:
        names = class_names
        if (
            isinstance(names, str)
            or not isinstance(names, Sequence)
            or not all(isinstance(each, str) for each in names)
        ):
            raise TypeError(f"class_names must be a sequence of str, but got {describe(names)}")
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, but got {describe(name)}")
        for which, split in (("train", train), ("validation", validation), ("test", test)):
            if not isinstance(split, Split):
                raise TypeError(f"{which} must be a Split, but got {describe(split)}")
            if split.images.shape[1:] != train.images.shape[1:]:
                raise ValueError(
                    f"{which} must hold images of shape {train.images.shape[1:]} as train does, "
                    f"but got {describe(split.images)}"
                )
            if split.labels.max() >= len(names):
                raise ValueError(
                    f"{which} must hold labels in 0..{len(names) - 1}, one per class name, but got {split.labels.max()}"
                )
            object.__setattr__(self, which, split)
        object.__setattr__(self, "class_names", tuple(names))
        object.__setattr__(self, "name", name)

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}: {len(self.train)} training, {len(self.validation)} validation "
            f"and {len(self.test)} test images of {len(self.class_names)} classes)"
        )
