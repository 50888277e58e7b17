"""CIFAR-10 from its published files (Krizhevsky 2009), Python or binary version.

File formats: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._checks import check_integer, describe
from .._files import check_path
from .._typing import IntArray, StrPath
from .archive import read_members
from .split import Dataset, Split
from .unpickler import read_pickle

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_IMAGE_SHAPE = (3, 32, 32)
_N_PIXELS = 3072
_MAX_IMAGES = 10_000  # per file, as published
_MAX_FILE_BYTES = 2**26  # the published files have 31 million bytes
_TEST = 0  # the number by which the test batch goes, beside 1 to 5

# MD5 of the published Python files and SHA-1 of the published binary ones.
_PUBLISHED = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
}
_FORMATS = (".bin", "")  # in the order of preference
# Where a folder may hold the files, and the archives: as published and by torchvision, Keras 2, and Keras 3.
_PLACES = ("", "cifar-10-batches-bin", "cifar-10-batches-py", "cifar-10-batches-py-target/cifar-10-batches-py")
_ARCHIVES = (
    "cifar-10-binary.tar.gz",
    "cifar-10-python.tar.gz",
    "cifar-10-batches-py.tar.gz",
    "cifar-10-batches-py-target_archive",
    "cifar-10-batches-py_archive",
    "cifar-10-batches-py",
)


def load_cifar10(
    folder: StrPath,
    train_batches: Sequence[int] | IntArray = (1, 2, 3, 4, 5),
    validation_size: int | None = None,
    validation_batches: Sequence[int] | IntArray | None = None,
) -> Dataset:
    """Read CIFAR-10 from its published files.

    Binary files are preferred to Python ones. No pickle is executed (see
    :mod:`cyconv.datasets.unpickler`), archives are read in memory, and sizes
    are checked before anything is read. The files' checksums tell whether
    they are the published bytes; where they are not, a UserWarning says so
    once and the result's name is "CIFAR-10 (not the published bytes)". Python
    files that were written anew count as published if their pixels and labels
    are those of the published binary files.

    Parameters
    ----------
    folder : path-like
        The folder of the batch files, one in which torchvision or Keras put
        them (see :func:`find_cifar10`), or one of the published archives.
    train_batches : sequence of int
        Which of the batches 1 to 5 train, in this order.
    validation_size : int, optional
        How many of the training images, the last ones, validate instead of
        training: 1,000 unless said otherwise. Not together with
        ``validation_batches``.
    validation_batches : sequence of int, optional
        Batches that validate, none of which trains.

    Returns
    -------
    Dataset
        Images uint8 of shape (n, 3, 32, 32): views of one array, so that no
        image is held twice. Images and labels are read-only.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged or foreign, or an argument is out of range.
    TypeError
        If an argument is of the wrong kind.

    Examples
    --------
    >>> data = load_cifar10("data", train_batches=(1,), validation_batches=(2,))  # doctest: +SKIP
    >>> len(data.train), len(data.validation), len(data.test)  # doctest: +SKIP
    (10000, 10000, 10000)
    """
    folder = check_path("folder", folder)
    train_batches = _check_batches("train_batches", train_batches)
    if validation_batches is None:
        validation_size = 1000 if validation_size is None else validation_size
        validation_size = check_integer("validation_size", validation_size, 1, len(train_batches) * _MAX_IMAGES - 1)
        batches = train_batches
    else:
        if validation_size is not None:
            raise ValueError(
                "validation_size must not be given together with validation_batches, "
                f"but got {describe(validation_size)} and {describe(validation_batches)}"
            )
        validation_batches = _check_batches("validation_batches", validation_batches)
        if set(train_batches) & set(validation_batches):
            raise ValueError(
                f"validation_batches must share no batch with train_batches, "
                f"but got {validation_batches} and {train_batches}"
            )
        batches = train_batches + validation_batches

    place, suffix = _locate(folder, (*batches, _TEST))
    contents = _Contents((*batches, _TEST))
    for name, raw in _read_files(place, suffix, contents.slots):
        contents.add(name, raw, place)
    images, labels, counts = contents.joined(place)

    n_test = counts.pop()
    n_fit = len(images) - n_test  # images that train or validate
    if validation_size is not None:
        if validation_size >= n_fit:
            raise ValueError(
                f"validation_size must be less than the {n_fit} images of train_batches, but got {validation_size}"
            )
        n_train = n_fit - validation_size
    else:
        n_train = sum(counts[: len(train_batches)])
    if contents.foreign:
        warnings.warn(
            f"{place} does not hold the published bytes of CIFAR-10 ({', '.join(contents.foreign)}): "
            "results on it are not results on CIFAR-10",
            UserWarning,
            stacklevel=2,
        )
    return Dataset(
        train=Split(images[:n_train], labels[:n_train]),
        validation=Split(images[n_train:n_fit], labels[n_train:n_fit]),
        test=Split(images[n_fit:], labels[n_fit:]),
        class_names=CLASS_NAMES,
        name="CIFAR-10 (not the published bytes)" if contents.foreign else "CIFAR-10",
    )


def find_cifar10(data: StrPath | None = None) -> Path | None:
    """Look for CIFAR-10 where people keep it.

    In each place the batch files may lie at the top, in the published
    ``cifar-10-batches-bin`` or ``cifar-10-batches-py`` (as in torchvision's
    root, and where Keras 2 puts them), in Keras 3's
    ``cifar-10-batches-py-target/cifar-10-batches-py``, or in an archive:
    ``cifar-10-binary.tar.gz``, ``cifar-10-python.tar.gz``, or the latter under
    the names that Keras gives it.

    Parameters
    ----------
    data : path-like, optional
        Where the caller says it is; then nowhere else is looked. Without it:
        the environment variable ``CYCONV_DATA`` (then nowhere else either),
        ``./data``, ``cyconv`` in the user's cache folder (``$XDG_CACHE_HOME``,
        else ``~/.cache``), and ``datasets`` in Keras' folder (``$KERAS_HOME``,
        else ``~/.keras``).

    Returns
    -------
    Path or None
        For :func:`load_cifar10`; None when it is in none of the last three.

    Raises
    ------
    FileNotFoundError
        If ``data`` or ``CYCONV_DATA`` is given and holds no CIFAR-10.
    """
    named: dict[str, StrPath | None] = {"data": data, "CYCONV_DATA": os.environ.get("CYCONV_DATA") or None}
    for name, value in named.items():
        if value is not None:
            path = check_path(name, value)
            if _find(path, (*range(1, 6), _TEST), some=True) is None:
                raise FileNotFoundError(f"{name} must be {_WANTED}, but there is none at {path}")
            return path
    keras = _user_folder("KERAS_HOME", "~/.keras")
    for place in (Path("data"), cache_folder(), keras and keras / "datasets"):
        if place is not None and _find(place, (*range(1, 6), _TEST)) is not None:
            return place
    return None


def cache_folder() -> Path | None:
    """The folder ``cyconv`` in the user's cache folder, whether it exists or not; None if there is no home folder."""
    base = _user_folder("XDG_CACHE_HOME", "~/.cache")
    return base and base / "cyconv"


def _user_folder(variable: str, default: str) -> Path | None:
    """The folder that an environment variable names, or else one in the home folder; None if there is neither."""
    for base in (os.environ.get(variable, ""), default):
        with contextlib.suppress(ValueError):  # a home folder that nobody knows
            path = check_path(variable, base)
            if path.is_absolute():
                return path
    return None


_WANTED = "a folder of CIFAR-10's batch files, its parent, or one of the published .tar.gz archives"


def _check_batches(name: str, value: Sequence[int] | IntArray) -> tuple[int, ...]:
    sequence = value.ndim == 1 if isinstance(value, np.ndarray) else isinstance(value, Sequence)
    if isinstance(value, (str, bytes)) or not sequence:
        raise TypeError(f"{name} must be a sequence of batch numbers, but got {describe(value)}")
    batches = tuple(check_integer(f"{name}[{i}]", batch, 1, 5) for i, batch in enumerate(value))
    if not batches or len(set(batches)) != len(batches):
        raise ValueError(f"{name} must name one or more of the batches 1 to 5, each once, but got {batches}")
    return batches


def _file_name(batch: int) -> str:
    return "test_batch" if batch == _TEST else f"data_batch_{batch}"


def _find(path: Path, batches: Iterable[int], some: bool = False) -> tuple[Path, str | None] | None:
    """The first ``(place, suffix)`` at ``path`` that has all of the batches (or some); else None."""
    if os.path.isfile(path):
        return path, None
    enough = any if some else all
    for suffix in _FORMATS:
        for place in _PLACES:
            if enough(os.path.isfile(path / place / f"{_file_name(batch)}{suffix}") for batch in batches):
                return path / place, suffix
    for name in _ARCHIVES:
        if os.path.isfile(path / name):
            return path / name, None
    return None


def _locate(path: Path, batches: Iterable[int]) -> tuple[Path, str | None]:
    """Where to read: an archive (suffix None), or a folder and its files' suffix."""
    found = _find(path, batches)
    if found is not None:
        return found
    partial = _find(path, batches, some=True)
    if partial is None:
        raise FileNotFoundError(f"folder must be {_WANTED}, but there is none at {path}")
    place, suffix = partial
    names = [f"{_file_name(batch)}{suffix}" for batch in batches]
    missing = ", ".join(name for name in names if not os.path.isfile(place / name))
    raise FileNotFoundError(f"folder must hold {', '.join(names)}, but {place} has no {missing}")


def _read_files(place: Path, suffix: str | None, wanted: Iterable[str]) -> Iterator[tuple[str, memoryview]]:
    """Yield ``(file name, contents)`` of the wanted batches, one at a time, all in one buffer."""
    buffer = np.empty(_MAX_FILE_BYTES, np.uint8).data
    try:
        if suffix is None:
            names = {f"{name}{suffix}" for name in wanted for suffix in _FORMATS}
            yield from read_members(place, names, buffer)
            return
        for name in wanted:
            path = place / f"{name}{suffix}"
            if path.stat().st_size > _MAX_FILE_BYTES:
                raise ValueError(f"{path.name} has {path.stat().st_size} bytes, more than {_MAX_FILE_BYTES}")
            with open(path, "rb") as file:
                yield path.name, buffer[: file.readinto(buffer)]
    except OSError as error:
        raise type(error)(error.errno, f"cannot read {error.filename or place}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"folder must be {_WANTED}, but {place} is not: {error}") from None


class _Contents:
    """One array for all images, filled file by file.

    Every batch has room for the 10,000 images it has as published; memory
    that no image was written to is not taken from the machine. Files with
    fewer images are moved together at the end.
    """

    def __init__(self, batches: Sequence[int]) -> None:
        self.slots = {_file_name(batch): slot for slot, batch in enumerate(batches)}
        self.images = np.empty((len(batches) * _MAX_IMAGES, *_IMAGE_SHAPE), np.uint8)
        self.labels: dict[int, NDArray[np.int64]] = {}
        self.foreign: list[str] = []

    def add(self, name: str, raw: memoryview, place: Path) -> None:
        slot = self.slots[name.removesuffix(".bin")]
        if slot in self.labels:
            return  # an archive that holds both versions, or a file twice: the first counts
        try:
            pixels, labels = _parse_binary(raw) if name.endswith(".bin") else _parse_python(raw)
        except ValueError as error:
            raise ValueError(
                f"folder must hold CIFAR-10's batch files, but {name} in {place} is not one: {error}"
            ) from None
        start = slot * _MAX_IMAGES
        self.images[start : start + len(pixels)] = pixels.reshape(-1, *_IMAGE_SHAPE)
        self.labels[slot] = labels
        if not _is_published(name, raw, pixels, labels):
            self.foreign.append(name)

    def joined(self, place: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[int]]:
        """Images and labels of all batches in order, and how many each has."""
        missing = [name for name, slot in self.slots.items() if slot not in self.labels]
        if missing:
            raise FileNotFoundError(
                f"folder must hold {', '.join(self.slots)}, but {place} has no {', '.join(missing)}"
            )
        in_order = [self.labels[slot] for slot in self.slots.values()]
        counts = [len(labels) for labels in in_order]
        end = counts[0]
        for slot, count in enumerate(counts[1:], start=1):
            start = slot * _MAX_IMAGES
            if start != end:
                self.images[end : end + count] = self.images[start : start + count]
            end += count
        labels = np.concatenate(in_order)
        self.images.flags.writeable = labels.flags.writeable = False
        return self.images[:end], labels, counts


def _is_published(name: str, raw: memoryview, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> bool:
    """Whether a file is a published one, or a Python file that holds what the published binary one does."""
    if name.endswith(".bin"):
        return hashlib.sha1(raw, usedforsecurity=False).hexdigest() == _PUBLISHED[name]
    if hashlib.md5(raw, usedforsecurity=False).hexdigest() == _PUBLISHED[name]:
        return True
    records = np.ascontiguousarray(np.concatenate([labels.astype(np.uint8)[:, None], pixels], axis=1))
    return hashlib.sha1(records.data, usedforsecurity=False).hexdigest() == _PUBLISHED[f"{name}.bin"]


def _parse_binary(raw: memoryview) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (n, 3072) and labels (n,) of a ``.bin`` file: a label byte and 3,072 pixel bytes per image."""
    n_images, rest = divmod(len(raw), 1 + _N_PIXELS)
    if rest or not 1 <= n_images <= _MAX_IMAGES:
        raise ValueError(f"it has {len(raw)} bytes, not 3073 for each of 1 to {_MAX_IMAGES} images")
    records = np.frombuffer(raw, np.uint8).reshape(n_images, 1 + _N_PIXELS)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= len(CLASS_NAMES):
        raise ValueError(f"it holds the label {labels.max()}, and labels lie in 0..9")
    return records[:, 1:], labels


def _parse_python(raw: memoryview) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (n, 3072) and labels (n,) of a pickled batch."""
    batch = read_pickle(raw)
    pixels, labels = batch.get("data"), batch.get("labels")
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, (list, np.ndarray)):
        raise ValueError("it holds no array 'data' and list or array 'labels'")
    if pixels.dtype != np.uint8:
        raise ValueError(f"its 'data' have dtype {pixels.dtype.str[1:]!r}, not uint8")
    if pixels.shape[1:] not in ((_N_PIXELS,), _IMAGE_SHAPE) or not 1 <= len(pixels) <= _MAX_IMAGES:
        raise ValueError(f"its 'data' have shape {pixels.shape}, not (1 to {_MAX_IMAGES}, {_N_PIXELS})")
    n_labels = labels.size if isinstance(labels, np.ndarray) else len(labels)
    if n_labels != len(pixels):
        raise ValueError(f"it holds {n_labels} labels for {len(pixels)} images")
    if isinstance(labels, np.ndarray):
        labels = labels.ravel().tolist()
    if not all(type(label) is int and 0 <= label < len(CLASS_NAMES) for label in labels):
        raise ValueError("its labels are not integers in 0..9")
    return pixels.reshape(-1, _N_PIXELS), np.array(labels, np.int64)
