"""Reading of the CIFAR data sets (Krizhevsky 2009) from their original files, Python or binary version.

File formats: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._files import check_path
from .._typing import StrPath
from .archive import first_member, read_members
from .unpickler import read_pickle

_IMAGE_SHAPE = (3, 32, 32)
_N_PIXELS = 3072
_FORMATS = (".bin", "")  # of binary and of Python files, in the order of preference
_ANY_BATCH = {  # of CIFAR-10 or CIFAR-100: the first one in an archive tells which
    f"{batch}{suffix}"
    for batch in ("train", "test", "test_batch", *(f"data_batch_{k}" for k in range(1, 6)))
    for suffix in _FORMATS
}
_READS_PER_IMAGE = 100  # more than any pickle protocol needs


@dataclass(frozen=True)
class CifarFiles:
    """The original files of a data set and their usual locations.

    Parameters
    ----------
    name : str
        Name of the data set.
    batches : tuple of str
        Names of the files, without the ``.bin`` of the binary version.
    digests : dict of str to str
        Checksums by file name: MD5 or SHA-1, which differ in length.
    folders : tuple of str
        Subfolders that may hold the files, in order of preference.
    archives : tuple of str
        Possible names of their ``.tar.gz`` archives.
    labels : dict of str to int
        The labels of an image, in the order of the label bytes of the binary
        files: the key in the Python files, and the number of classes.
    max_images : int
        Largest number of images in one file.
    """

    name: str
    batches: tuple[str, ...]
    digests: dict[str, str]
    folders: tuple[str, ...]
    archives: tuple[str, ...]
    labels: dict[str, int]
    max_images: int

    @property
    def wanted(self) -> str:
        """Description of a valid path, for error messages."""
        return f"a folder of {self.name}'s batch files, its parent, or one of the original .tar.gz archives"

    @property
    def max_bytes(self) -> int:
        """Largest size of one file; some pickles have two bytes per pixel."""
        return 7000 * self.max_images


def given_path(data: StrPath | None) -> tuple[str, Path] | None:
    """``data`` or else ``CYCONV_DATA``: which of them it is, and its path; None if neither is given."""
    for name, value in (("data", data), ("CYCONV_DATA", os.environ.get("CYCONV_DATA") or None)):
        if value is not None:
            return name, check_path(name, value)
    return None


def find_files(files: CifarFiles, data: StrPath | None) -> Path | None:
    """Look for a data set in its usual locations; see :func:`cyconv.datasets.find_cifar10`."""
    given = given_path(data)
    if given is not None:
        name, path = given
        if _find(files, path, files.batches, some=True) is None:
            raise FileNotFoundError(f"{name} must be {files.wanted}, but there is none at {path}")
        return path
    keras = _user_folder("KERAS_HOME", "~/.keras")
    for folder in (Path("data"), cache_folder(), keras and keras / "datasets"):
        if folder is not None and _find(files, folder, files.batches) is not None:
            return folder
    return None


def cache_folder() -> Path | None:
    """The folder ``cyconv`` in the user's cache folder, which need not exist; None if there is no home folder."""
    base = _user_folder("XDG_CACHE_HOME", "~/.cache")
    return base and base / "cyconv"


def _user_folder(variable: str, default: str) -> Path | None:
    """The folder named by an environment variable, or a default in the home folder; None if there is neither."""
    for base in (os.environ.get(variable, ""), default):
        with contextlib.suppress(ValueError):  # the home folder is unknown
            path = check_path(variable, base)
            if path.is_absolute():
                return path
    return None


def is_there(files: CifarFiles, path: Path) -> bool:
    """Whether a folder holds some batches of a data set, or a file is an archive of them."""
    if not os.path.isfile(path):
        return _find(files, path, files.batches, some=True) is not None
    try:
        first = first_member(path, _ANY_BATCH)
    except (OSError, ValueError):
        return False
    return first is not None and first.removesuffix(".bin") in files.batches


def read_batches(
    files: CifarFiles, folder: Path, batches: Sequence[str], column: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[int], str]:
    """Read some batches of a data set, with the labels in one of its columns.

    Space is reserved for as many images per batch as in the original files;
    the system provides memory only for what is written. Files that differ from
    the original ones are listed in a warning at the caller of the caller.

    Returns
    -------
    images, labels : ndarray
        Read-only, in the order of the batches.
    counts : list of int
        Number of images in each batch.
    name : str
        Name of the data set, which says so if files are not the original ones.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged or has another format.
    """
    place, suffix = _locate(files, folder, batches)
    which = list(files.labels).index(column)
    images = np.empty((len(batches) * files.max_images, *_IMAGE_SHAPE), np.uint8)
    labels: dict[str, NDArray[np.int64]] = {}
    foreign = []
    for name, raw in _read_files(files, place, suffix, batches):
        batch = name.removesuffix(".bin")
        if batch in labels:
            continue  # an archive may hold both versions, or a file twice: use the first
        try:
            pixels, labels[batch] = (_parse_binary if name.endswith(".bin") else _parse_python)(files, raw)
        except ValueError as error:
            raise ValueError(
                f"folder must hold {files.name}'s batch files, but {name} in {place} is not one: {error}"
            ) from None
        start = batches.index(batch) * files.max_images
        images[start : start + len(pixels)] = pixels.reshape(-1, *_IMAGE_SHAPE)
        if not _is_original(files, name, raw, pixels, labels[batch]):
            foreign.append(name)
    missing = ", ".join(batch for batch in batches if batch not in labels)
    if missing:
        raise FileNotFoundError(f"folder must hold {', '.join(batches)}, but {place} has no {missing}")
    counts = [len(labels[batch]) for batch in batches]
    end = 0
    for start, count in zip(range(0, len(images), files.max_images), counts):
        if start != end:
            images[end : end + count] = images[start : start + count]
        end += count
    in_order = np.concatenate([labels[batch][:, which] for batch in batches])
    images.flags.writeable = in_order.flags.writeable = False
    if foreign:
        warnings.warn(
            f"{place} does not hold the original files of {files.name} ({', '.join(foreign)}): "
            f"results on it are not results on {files.name}",
            UserWarning,
            stacklevel=3,
        )
    return images[:end], in_order, counts, f"{files.name} (not the original files)" if foreign else files.name


def check_validation_size(validation_size: int, n_fit: int, where: str) -> int:
    """Return ``validation_size`` if it is less than the ``n_fit`` images of ``where``."""
    if validation_size >= n_fit:
        raise ValueError(f"validation_size must be less than the {n_fit} images of {where}, but got {validation_size}")
    return validation_size


def _find(files: CifarFiles, path: Path, batches: Sequence[str], some: bool = False) -> tuple[Path, str | None] | None:
    """The first ``(place, suffix)`` at ``path`` that has all of the batches (or some of them), or None."""
    if os.path.isfile(path):
        return path, None
    enough = any if some else all
    for suffix in _FORMATS:
        for place in files.folders:
            if enough(os.path.isfile(path / place / f"{batch}{suffix}") for batch in batches):
                return path / place, suffix
    for name in files.archives:
        if os.path.isfile(path / name):
            return path / name, None
    return None


def _locate(files: CifarFiles, path: Path, batches: Sequence[str]) -> tuple[Path, str | None]:
    """The place to read from: an archive (suffix None), or a folder and the suffix of its files."""
    found = _find(files, path, batches)
    if found is not None:
        return found
    partial = _find(files, path, batches, some=True)
    if partial is None:
        raise FileNotFoundError(f"folder must be {files.wanted}, but there is none at {path}")
    place, suffix = partial
    names = [f"{batch}{suffix}" for batch in batches]
    missing = ", ".join(name for name in names if not os.path.isfile(place / name))
    raise FileNotFoundError(f"folder must hold {', '.join(names)}, but {place} has no {missing}")


def _read_files(
    files: CifarFiles, place: Path, suffix: str | None, batches: Sequence[str]
) -> Iterator[tuple[str, memoryview]]:
    """Yield ``(file name, contents)`` of the batches, one at a time, all in one buffer."""
    buffer = np.empty(files.max_bytes, np.uint8).data
    try:
        if suffix is None:
            names = {f"{batch}{suffix}" for batch in batches for suffix in _FORMATS}
            yield from read_members(place, names, buffer)
            return
        for batch in batches:
            path = place / f"{batch}{suffix}"
            size = path.stat().st_size
            if size > files.max_bytes:
                raise ValueError(f"{path.name} has {size} bytes, more than {files.max_bytes}")
            with open(path, "rb") as file:
                yield path.name, buffer[: file.readinto(buffer)]
    except OSError as error:
        raise type(error)(error.errno, f"cannot read {error.filename or place}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"folder must be {files.wanted}, but {place} is not: {error}") from None


def _is_original(
    files: CifarFiles, name: str, raw: memoryview, pixels: NDArray[np.uint8], labels: NDArray[np.int64]
) -> bool:
    """Whether a file is an original one, or a Python file with the contents of the original binary one."""
    if _has_digest(raw, files.digests[name]):
        return True
    if name.endswith(".bin"):
        return False
    records = np.ascontiguousarray(np.concatenate([labels.astype(np.uint8), pixels], axis=1))
    return _has_digest(records.data, files.digests[f"{name}.bin"])


def _has_digest(raw: memoryview, digest: str) -> bool:
    algorithm = hashlib.md5 if len(digest) == 32 else hashlib.sha1
    return algorithm(raw, usedforsecurity=False).hexdigest() == digest


def _parse_binary(files: CifarFiles, raw: memoryview) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (n, 3072) and labels (n, columns) of a ``.bin`` file: label bytes and 3,072 pixel bytes per image."""
    n_labels = len(files.labels)
    n_bytes = n_labels + _N_PIXELS
    n_images, rest = divmod(len(raw), n_bytes)
    if rest or not 1 <= n_images <= files.max_images:
        raise ValueError(f"it has {len(raw)} bytes, not {n_bytes} for each of 1 to {files.max_images} images")
    records = np.frombuffer(raw, np.uint8).reshape(n_images, n_bytes)
    labels = records[:, :n_labels].astype(np.int64)
    for largest, n_classes in zip(labels.max(axis=0), files.labels.values()):
        if largest >= n_classes:
            raise ValueError(f"it holds the label {largest}, but labels lie in 0..{n_classes - 1}")
    return records[:, n_labels:], labels


def _parse_python(files: CifarFiles, raw: bytes | memoryview) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (n, 3072) and labels (n, columns) of a pickled batch."""
    batch = read_pickle(raw, max_reads=_READS_PER_IMAGE * files.max_images)
    pixels = batch.get("data")
    columns = {name: batch.get(name) for name in files.labels}
    for name, labels in columns.items():
        if not isinstance(pixels, np.ndarray) or not isinstance(labels, (list, np.ndarray)):
            raise ValueError(f"it holds no array 'data' and list or array {name!r}")
    assert isinstance(pixels, np.ndarray)
    if pixels.dtype != np.uint8:
        raise ValueError(f"its 'data' have dtype {pixels.dtype.str[1:]!r}, not uint8")
    if pixels.shape[1:] not in ((_N_PIXELS,), _IMAGE_SHAPE) or not 1 <= len(pixels) <= files.max_images:
        raise ValueError(f"its 'data' have shape {pixels.shape}, not (1 to {files.max_images}, {_N_PIXELS})")
    checked = [_check_labels(columns[name], len(pixels), n_classes) for name, n_classes in files.labels.items()]
    return pixels.reshape(-1, _N_PIXELS), np.stack(checked, axis=1)


def _check_labels(labels: Any, n_images: int, n_classes: int) -> NDArray[np.int64]:
    n_labels = labels.size if isinstance(labels, np.ndarray) else len(labels)
    if n_labels != n_images:
        raise ValueError(f"it holds {n_labels} labels for {n_images} images")
    if isinstance(labels, np.ndarray):
        labels = labels.ravel().tolist()
    if not all(type(label) is int and 0 <= label < n_classes for label in labels):
        raise ValueError(f"its labels are not integers in 0..{n_classes - 1}")
    return np.array(labels, np.int64)
