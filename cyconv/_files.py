"""Files that are either whole or not there, and readers that trust nothing."""

import contextlib
import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from ._checks import describe, in_short


def check_path(name, value):
    """Return ``value`` as a Path, or say what came instead."""
    try:
        path = Path(os.fspath(value))
    except Exception:       # whatever a stranger's __fspath__ raises
        raise TypeError(f"{name} must be a path, but got {describe(value)}") from None
    if "\0" in str(path):
        raise ValueError(f"{name} must be a path, which holds no null character, but got {describe(value)}")
    return path


@contextlib.contextmanager
def atomic_write(path, mode="wb", **open_options):
    """Open a file that takes the place of ``path`` only once it is whole.

    The bytes go to a unique temporary file in the same folder, which is
    flushed, synced to the disk and renamed; then the folder is synced. On
    any error the temporary file is removed and what stood at ``path`` stays.
    """
    path = check_path("path", path)
    folder = path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder of {path} must exist, but there is no folder {folder}")
    if path.is_dir():
        raise IsADirectoryError(f"path must be a file, but {path} is a folder")
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=folder)
    except OSError as error:
        raise type(error)(error.errno, f"cannot write into the folder of {path}: {error.strerror}") from None
    try:
        with open(handle, mode, **open_options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            raise type(error)(error.errno, f"cannot write {path}: {error.strerror}") from None
        raise
    _sync_folder(folder)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder):
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some file systems cannot sync a folder; the rename itself stands
    finally:
        os.close(handle)


def write_text(path, text):
    """Write ``text`` as UTF-8, atomically."""
    with atomic_write(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def write_json(path, value):
    """Write ``value`` as readable JSON, atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def save_arrays(path, kind, version, header, arrays):
    """Save named arrays and a JSON header as one ``.npz``, atomically, without pickle.

    Parameters
    ----------
    path : path-like
        Where to write. The name is taken as it stands.
    kind, version : str, int
        What the file is and which version of that format.
    header : dict
        JSON values.
    arrays : dict of str to ndarray
    """
    text = json.dumps({"kind": kind, "version": version, **header}, allow_nan=False)
    with atomic_write(path) as file:
        np.savez(file, __header__=np.frombuffer(text.encode("utf-8"), dtype=np.uint8), **arrays)


def load_arrays(path, kind, version):
    """Read what :func:`save_arrays` wrote: ``(header, arrays)``.

    The sizes that the archive and each array's own header declare are
    checked before anything is read: :func:`save_arrays` compresses nothing, so
    no file may hold more than its own length. No pickle is executed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a file, is damaged, of another kind or of a newer version.
    """
    path = check_path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"path must be a cyconv {kind} file, but there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _read_members(archive, path.stat().st_size)
        header = json.loads(arrays.pop("__header__").tobytes().decode("utf-8"))
        if not isinstance(header, dict):
            raise ValueError("its header is no mapping")
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError,
            RecursionError, SyntaxError, OverflowError, zipfile.zlib.error) as error:
        raise ValueError(f"path must be a cyconv {kind} file, but {path} is not one or is damaged: {in_short(error)}") from None
    if header.get("kind") != kind:
        raise ValueError(f"path must be a cyconv {kind} file, but {path} holds {describe(header.get('kind'))}")
    found = header.get("version")
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= version:
        raise ValueError(
            f"path must be a cyconv {kind} file of version 1..{version}, but {path} is of version {found!r}"
        )
    return header, arrays


def _read_members(archive, max_bytes):
    """All arrays of an ``.npz``, each no larger than its member says it is."""
    infos = archive.infolist()
    total = sum(info.file_size for info in infos)
    if total > max_bytes or len(infos) > 10_000:
        raise ValueError(f"it declares {total} bytes in {len(infos)} members, more than is taken")
    arrays = {}
    for info in infos:
        if not info.filename.endswith(".npy") or info.filename[:-4] in arrays:
            raise ValueError(f"unexpected member {info.filename!r}")
        with archive.open(info) as member:
            arrays[info.filename[:-4]] = _read_array(member, info.file_size)
    return arrays


def _read_array(member, size):
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"unknown array format {version}")
    try:
        shape, fortran, dtype = readers[version](member, max_header_size=10_000)
    except Exception as error:      # NumPy's parser lets through whatever Python's raises
        raise ValueError(f"an array's header cannot be read: {describe(error)}") from None
    if dtype.hasobject or dtype.kind not in "biufUS":
        raise ValueError(f"arrays of dtype {dtype} are not read")
    count = 1
    for length in shape:
        count *= length
    if count < 0 or count * dtype.itemsize > size:
        raise ValueError("an array is larger than its member")
    raw = member.read(count * dtype.itemsize)
    if len(raw) != count * dtype.itemsize:
        raise ValueError("an array is cut short")
    if member.read(1):
        raise ValueError("an array is followed by other bytes")
    array = np.frombuffer(bytearray(raw), dtype=dtype)
    return array.reshape(shape, order="F" if fortran else "C")
