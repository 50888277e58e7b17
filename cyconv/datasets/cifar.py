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

import numpy as np
from numpy.typing import NDArray

from .._files import check_path
from .._typing import StrPath
from .archive import read_members
from .unpickler import read_pickle

_IMAGE_SHAPE = (3, 32, 32)
_N_PIXELS = 3072
_FORMATS = (".bin", "")  # of binary and of Python files, in the order of preference


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
        Checksums by file name: MD5 of the Python files, SHA-1 of the binary
        files.
    folders : tuple of str
        Subfolders that may hold the files, in order of preference.
    archives : tuple of str
        Possible names of their ``.tar.gz`` archives.
    n_classes : int
    max_images : int
        Largest number of images in one file.
    """

    name: str
    batches: tuple[str, ...]
    digests: dict[str, str]
    folders: tuple[str, ...]
    archives: tuple[str, ...]
    n_classes: int
    max_images: int

    @property
    def wanted(self) -> str:
        """Description of a valid path, for error messages."""
        return f"a folder of {self.name}'s batch files, its parent, or one of the original .tar.gz archives"

    @property
    def max_bytes(self) -> int:
        """Largest size of one file; some pickles have two bytes per pixel."""
        return 7000 * self.max_images


def find_files(files: CifarFiles, data: StrPath | None) -> Path | None:
    """Look for a data set in its usual locations; see :func:`cyconv.datasets.find_cifar10`."""
    named: dict[str, StrPath | None] = {"data": data, "CYCONV_DATA": os.environ.get("CYCONV_DATA") or None}
    for name, value in named.items():
        if value is not None:
            path = check_path(name, value)
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


def read_batches(
    files: CifarFiles, folder: Path, batches: Sequence[str]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[int], str]:
    """Read some batches of a data set.

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
    in_order = np.concatenate([labels[batch] for batch in batches])
    images.flags.writeable = in_order.flags.writeable = False
    if foreign:
        warnings.warn(
            f"{place} does not hold the original files of {files.name} ({', '.join(foreign)}): "
            f"results on it are not results on {files.name}",
            UserWarning,
            stacklevel=3,
        )
    return images[:end], in_order, counts, f"{files.name} (not the original files)" if foreign else files.name


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
    if name.endswith(".bin"):
        return hashlib.sha1(raw, usedforsecurity=False).hexdigest() == files.digests[name]
    if hashlib.md5(raw, usedforsecurity=False).hexdigest() == files.digests[name]:
        return True
    records = np.ascontiguousarray(np.concatenate([labels.astype(np.uint8)[:, None], pixels], axis=1))
    return hashlib.sha1(records.data, usedforsecurity=False).hexdigest() == files.digests[f"{name}.bin"]


def _parse_binary(files: CifarFiles, raw: memoryview) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (n, 3072) and labels (n,) of a ``.bin`` file, which has a label byte and 3,072 pixel bytes per image."""
    n_images, rest = divmod(len(raw), 1 + _N_PIXELS)
    if rest or not 1 <= n_images <= files.max_images:
        raise ValueError(f"it has {len(raw)} bytes, not 3073 for each of 1 to {files.max_images} images")
    records = np.frombuffer(raw, np.uint8).reshape(n_images, 1 + _N_PIXELS)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= files.n_classes:
        raise ValueError(f"it holds the label {labels.max()}, but labels lie in 0..{files.n_classes - 1}")
    return records[:, 1:], labels


def _parse_python(files: CifarFiles, raw: bytes | memoryview) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (n, 3072) and labels (n,) of a pickled batch."""
    batch = read_pickle(raw)
    pixels, labels = batch.get("data"), batch.get("labels")
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, (list, np.ndarray)):
        raise ValueError("it holds no array 'data' and list or array 'labels'")
    if pixels.dtype != np.uint8:
        raise ValueError(f"its 'data' have dtype {pixels.dtype.str[1:]!r}, not uint8")
    if pixels.shape[1:] not in ((_N_PIXELS,), _IMAGE_SHAPE) or not 1 <= len(pixels) <= files.max_images:
        raise ValueError(f"its 'data' have shape {pixels.shape}, not (1 to {files.max_images}, {_N_PIXELS})")
    n_labels = labels.size if isinstance(labels, np.ndarray) else len(labels)
    if n_labels != len(pixels):
        raise ValueError(f"it holds {n_labels} labels for {len(pixels)} images")
    if isinstance(labels, np.ndarray):
        labels = labels.ravel().tolist()
    if not all(type(label) is int and 0 <= label < files.n_classes for label in labels):
        raise ValueError(f"its labels are not integers in 0..{files.n_classes - 1}")
    return pixels.reshape(-1, _N_PIXELS), np.array(labels, np.int64)
