"""Splits (images with labels), and data sets of three splits."""

import hashlib
import itertools
import mmap
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._checks import (
    FLOATS,
    are_probabilities,
    as_images,
    as_labels,
    as_numbers,
    check_array,
    check_finite,
    check_probabilities,
    describe,
)
from .._files import file_version
from .._typing import AnyArray, ImageShape
from .normalizer import Normalizer, PixelSums, blocks


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Parameters
    ----------
    images : array_like, shape (n, channels, height, width)
        Pixels 0 to 255, in the layout of CIFAR-10, or float32 or float64 images
        that are already normalised; lists and tensors are accepted. A
        C-contiguous uint8, float32 or float64 array is not copied; anything else
        is converted to one. An array that is mapped from a file
        (``np.load(path, mmap_mode="r")``) may therefore be larger than memory.
    labels : array_like of int, shape (n,), or of float, shape (n, n_classes)
        Class indices from 0, stored as int64; shapes (n, 1) and (1, n) and
        one-hot rows are accepted. Or probabilities whose rows sum to 1.

    Raises
    ------
    TypeError
        If the images or the labels have another dtype.
    ValueError
        If a shape is wrong (for example, if the channels come last), if a pixel
        or a label is out of range, if a float is not finite, or if there are no
        images.

    Examples
    --------
    >>> import numpy as np
    >>> split = Split(np.zeros((2, 3, 32, 32), np.uint8), [0, 9])
    >>> len(split), split.images.shape
    (2, (2, 3, 32, 32))
    """

    images: AnyArray
    labels: AnyArray

    def __init__(self, images: ArrayLike, labels: ArrayLike) -> None:
        images = as_images("images", images)
        if images.dtype != np.uint8:
            images = check_finite("images", check_array("images", images, images.shape, FLOATS))
        if images.size == 0:
            raise ValueError(f"images must hold at least one image, but got {describe(images)}")
        object.__setattr__(self, "images", np.ascontiguousarray(images))
        labels = as_numbers("labels", labels)
        if are_probabilities(labels):
            dtype = np.float32 if labels.dtype.itemsize <= 4 else np.float64
            labels = check_probabilities("labels", labels, len(images), labels.shape[1], dtype)
            object.__setattr__(self, "labels", labels)
            return
        labels = as_labels("labels", labels, len(images))
        if labels.min() < 0 or labels.max() >= 2**31:
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise ValueError(f"labels must be class indices in [0, 2**31), but got {wrong}")
        object.__setattr__(self, "labels", np.ascontiguousarray(labels, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Split({len(self)} images of shape {self.images.shape[1:]})"

    @property
    def holds_pixels(self) -> bool:
        """bool: whether the images are uint8 pixels, which training normalises, and not floats."""
        return self.images.dtype == np.uint8

    @property
    def has_probabilities(self) -> bool:
        """bool: whether the labels are probabilities of the classes, and not classes."""
        return self.labels.ndim == 2

    def check_classes(self, name: str, n_classes: int) -> None:
        """Raise ValueError unless the labels are those of so many classes; ``name`` is the split's in the sentence."""
        if self.has_probabilities:
            if self.labels.shape[1] != n_classes:
                raise ValueError(
                    f"{name} must hold probabilities of {n_classes} classes, but got those of {self.labels.shape[1]}"
                )
        elif self.labels.max() >= n_classes:
            raise ValueError(f"{name} must hold labels in 0..{n_classes - 1}, but got {self.labels.max()}")

    def fingerprint(self) -> str:
        """SHA-256 of shape, images and labels, as 64 hexadecimal digits.

        Two splits have the same fingerprint, on any machine, if they hold the
        same images and labels in the same order. For read-only arrays, such as
        those of a loaded data set, it is computed only once.
        """
        return summarise(self).fingerprint


_Versions: TypeAlias = tuple[tuple[int, ...] | None, tuple[int, ...] | None]  # of images and labels


class Summary(NamedTuple):
    """What is computed from all images of a split.

    Attributes
    ----------
    fingerprint : str
    normalizer : Normalizer or None
    """

    fingerprint: str
    normalizer: Normalizer | None


_summaries: weakref.WeakKeyDictionary[Split, tuple[_Versions, Summary]] = weakref.WeakKeyDictionary()


def summarise(
    split: Split, fits_normalizer: bool = False, advance: Callable[[int], object] = lambda n_bytes: None
) -> Summary:
    """Fingerprint of a split, and a normaliser fitted to its images, in one pass over them.

    Of a split that cannot change, what was computed once is remembered.

    Parameters
    ----------
    split : Split
    fits_normalizer : bool, default False
        Whether the normaliser is needed; only for pixels.
    advance : callable, optional
        Called with the number of bytes each time that some images have been read.

    Returns
    -------
    Summary
    """
    versions = _version(split.images), _version(split.labels)
    if split in _summaries:
        known, summary = _summaries[split]
        if known == versions and (summary.normalizer is not None or not fits_normalizer):
            return summary
    digest = hashlib.sha256(repr(split.images.shape).encode())
    sums = PixelSums(split.images.shape[1:]) if fits_normalizer else None
    for array, usual in ((split.images, np.uint8), (split.labels, np.int64)):
        if array.dtype != usual:
            digest.update(f"{array.dtype.name} {array.shape}".encode())
        for block in blocks(array):
            digest.update(block.astype(block.dtype.newbyteorder("<"), copy=False).data)
            if sums is not None and array is split.images:
                sums.add(block)
            advance(block.nbytes)
    summary = Summary(digest.hexdigest(), None if sums is None else Normalizer(*sums.mean_and_std()))
    if None not in versions:
        _summaries[split] = versions, summary
    return summary


def _version(array: object) -> tuple[int, ...] | None:
    """What changes when the elements of a read-only array do: the version of the file that it is mapped from.

    () if they are in memory that nothing writes to; None if they may change unnoticed.
    """
    version: tuple[int, ...] | None = ()
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return None
        if isinstance(array, np.memmap):
            version = None if array.filename is None else file_version(array.filename)
        array = array.base
    return version if array is None or isinstance(array, mmap.mmap) else None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of one data set.

    Parameters
    ----------
    train, validation, test : Split
        Images to train on, to validate on during training, and to test on at
        the end; all of the same shape.
    class_names : sequence of str
        One name per class; labels are indices into it.
    name : str
        Name of the data set in titles, tables and files.

    Raises
    ------
    TypeError, ValueError
        If a split is not a `Split`, if image shapes differ, or if a label has
        no class name.
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
            split.check_classes(which, len(names))
            object.__setattr__(self, which, split)
        object.__setattr__(self, "class_names", tuple(names))
        object.__setattr__(self, "name", name)

    @property
    def image_shape(self) -> ImageShape:
        """tuple of int: channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def n_classes(self) -> int:
        """int: the number of class names."""
        return len(self.class_names)

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}: {len(self.train)} training, {len(self.validation)} validation "
            f"and {len(self.test)} test images of {len(self.class_names)} classes)"
        )


def cut(
    images: NDArray[Any],
    labels: NDArray[Any],
    n_train: int,
    n_fit: int,
    class_names: Sequence[str],
    name: str,
) -> Dataset:
    """A data set of views: training images up to ``n_train``, validation images up to ``n_fit``, then test images."""
    ends = (0, n_train, n_fit, len(images))
    train, validation, test = (Split(images[start:end], labels[start:end]) for start, end in itertools.pairwise(ends))
    return Dataset(train, validation, test, class_names, name)
