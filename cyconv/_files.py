"""Atomic writing of files, and reading of untrusted ones."""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from ._checks import check_memory, describe, shorten
from ._typing import AnyArray, JsonDict, StrPath

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed
    fcntl = None  # type: ignore[assignment]

_CHUNK = 2**20
_UNREADABLE = (  # what reading a damaged .npz raises
    zipfile.BadZipFile,
    ValueError,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    RecursionError,
    SyntaxError,
    OverflowError,
    zlib.error,
)
_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def check_path(name: str, value: StrPath) -> Path:
    """Return ``value`` as a Path, or raise an error.

    A leading ``~`` or ``~user`` is expanded. In a str, environment variables
    that are set are expanded as well (``$NAME``, ``${NAME}``). For a name that
    begins with ``~``, pass ``"./~name"``; for one that contains a variable,
    pass a Path.
    """
    try:
        text = os.fspath(value)
        text = os.path.expandvars(text) if isinstance(value, str) else text
        path = Path(os.path.expanduser(text))
        os.fsencode(path)
    except Exception:  # a user's __fspath__ may raise anything
        raise TypeError(f"{name} must be a path, but got {describe(value)}") from None
    if "\0" in str(path):
        raise ValueError(f"{name} must be a path, which holds no null character, but got {describe(value)}")
    if str(path).startswith("~"):
        if text.startswith("~"):
            raise ValueError(f"{name} must be a path whose home folder is known, but got {describe(value)}")
        path = path.absolute()  # so that a second call does not expand it
    return path


def regular_file(name: str, path: Path) -> tuple[Path, os.stat_result | None]:
    """The regular file at ``path``, existing or new; symbolic links are followed, also dangling ones.

    Returns
    -------
    target : Path
    status : os.stat_result or None
        None if the file does not exist yet.

    Raises
    ------
    OSError
        If ``path`` is something else (a folder, a pipe, a device, a socket, a loop of links), if the file is
        write-protected, or if its folder is missing.
    """
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        if not target.parent.is_dir():
            raise FileNotFoundError(f"{name} must lie in an existing folder, but there is no folder {target.parent}")
        try:
            status = target.stat()
        except FileNotFoundError:
            return target, None
    except OSError as error:
        if error.errno is None:
            raise
        sentence = f"{name} must be a file that can be written, but {path} cannot: {error.strerror}"
        raise type(error)(sentence) from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{name} must be a file, but {path} is a folder")
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise FileExistsError(f"{name} must be a regular file or a new one, but {path} is {kind}")
    if not os.access(target, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(f"{name} must be a file that can be written, but {path} cannot")
    return target, status


def check_writable(name: str, path: StrPath) -> Path:
    """Check that `atomic_write` can write ``path``, before hours of work; return it as a Path."""
    path = check_path(name, path)
    target, _ = regular_file(name, path)
    with _temporary(name, target) as (handle, _):
        os.close(handle)
    return path


@contextlib.contextmanager
def atomic_write(path: StrPath, mode: str = "wb", **open_options: Any) -> Iterator[IO[Any]]:
    """Open a file that replaces ``path`` only once it is complete.

    The data are written to a temporary file in the same folder, which is
    flushed, synced to the disk and renamed; then the folder is synced. On any
    error, the temporary file is removed and an existing ``path`` is kept. A
    temporary file that a killed process left is removed by the next writer of
    the same file.

    Symbolic links are followed: the file they point to is replaced. The new
    file has the mode of the old one and, as far as permissions allow, its owner
    and group. Only a regular file is replaced (see `regular_file`).
    """
    path = check_path("path", path)
    target, status = regular_file("path", path)
    with _temporary("path", target) as (handle, temporary):
        try:
            with open(handle, mode, **open_options) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if status is not None:
                _copy_owner(temporary, status)
            os.chmod(temporary, 0o666 & ~_umask() if status is None else status.st_mode & 0o777)
            os.replace(temporary, target)
        except OSError as error:
            if error.errno is None:
                raise
            raise type(error)(error.errno, f"cannot write {path}: {error.strerror}") from None
    sync_folder(target.parent)


@contextlib.contextmanager
def _temporary(name: str, target: Path) -> Iterator[tuple[int, str]]:
    """A new file beside ``target``, as (handle, path); removed at the end unless it was renamed.

    Its name contains a hash of the target's name, by which the next writer
    finds files that a killed process left. A file that is still being written
    is locked.
    """
    prefix = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}."
    for leftover in target.parent.glob(f"{prefix}*.part"):
        _remove_if_abandoned(leftover)
    with contextlib.ExitStack() as stack:
        while True:
            try:
                handle, temporary = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=target.parent)
            except OSError as error:
                sentence = f"{name} must lie in a folder that can be written, but {target.parent} cannot"
                raise type(error)(f"{sentence}: {error.strerror}") from None
            stack.callback(_remove, temporary)
            with contextlib.suppress(BlockingIOError):
                stack.enter_context(locked(handle))
                if os.path.lexists(temporary):
                    break
            os.close(handle)  # another writer removed it as abandoned before it was locked
        yield handle, temporary


def _remove(path: StrPath) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _remove_if_abandoned(path: Path) -> None:
    if fcntl is None:
        _remove(path)
        return
    with contextlib.suppress(OSError):  # it may belong to another user, or have been renamed
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(handle: int) -> Iterator[None]:
    """Lock an open file until the end of the block, even if ``handle`` is closed before.

    Does nothing where files cannot be locked (on Windows and some network file systems).

    Raises
    ------
    BlockingIOError
        If another process or thread holds the lock.
    """
    if fcntl is None:
        yield
        return
    own = os.dup(handle)
    try:
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass
        yield
    finally:
        os.close(own)


def _copy_owner(path: StrPath, status: os.stat_result) -> None:
    """Give a file the owner and group of another, as far as permissions allow."""
    current = os.stat(path)
    if hasattr(os, "chown") and (current.st_uid, current.st_gid) != (status.st_uid, status.st_gid):
        for owner, group in ((-1, status.st_gid), (status.st_uid, -1)):
            with contextlib.suppress(OSError):
                os.chown(path, owner, group)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to the disk, where the file system supports it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def copy_file(source: StrPath, path: StrPath) -> None:
    """Copy the contents of the file ``source`` to ``path``, atomically."""
    with open(source, "rb") as file, atomic_write(path) as copy:
        shutil.copyfileobj(file, copy)


def write_text(path: StrPath, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_write(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def write_json(path: StrPath, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def save_arrays(path: StrPath, kind: str, version: int, header: JsonDict, arrays: Mapping[str, AnyArray]) -> None:
    """Save named arrays and a JSON header as one ``.npz``, atomically and without pickle.

    Parameters
    ----------
    path : path-like
        Used as given, without adding an extension.
    kind, version : str, int
        Kind of file and version of its format.
    header : dict
        JSON values.
    arrays : dict of str to ndarray
    """
    text = json.dumps({"kind": kind, "version": version, **header}, allow_nan=False)
    members: dict[str, Any] = {"__header__": np.frombuffer(text.encode("utf-8"), dtype=np.uint8), **arrays}
    with atomic_write(path) as file:
        np.savez(file, **members)


def load_arrays(path: StrPath, kind: str, version: int) -> tuple[JsonDict, dict[str, AnyArray]]:
    """Read the header and the arrays of a file written by :func:`save_arrays`.

    The sizes declared by the archive and by the header of each array are
    checked before anything is read: :func:`save_arrays` does not compress, so
    the arrays cannot be larger than the file. No pickle is executed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of another kind, is damaged or comes from a newer version.
    """
    path = check_path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"path must be a cyconv {kind} file, but there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _read_members(archive, path.stat().st_size)
        header = json.loads(arrays.pop("__header__").tobytes().decode("utf-8"))
        if not isinstance(header, dict):
            raise ValueError("its header is not a mapping")
    except _UNREADABLE as error:
        raise ValueError(
            f"path must be a cyconv {kind} file, but {path} is not one or is damaged: {shorten(error)}"
        ) from None
    if header.get("kind") != kind:
        raise ValueError(f"path must be a cyconv {kind} file, but {path} holds {describe(header.get('kind'))}")
    found = header.get("version")
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= version:
        raise ValueError(
            f"path must be a cyconv {kind} file of version 1..{version}, but {path} is of version {found!r}"
        )
    return header, arrays


def file_version(path: StrPath) -> tuple[int, ...] | None:
    """What changes when a file is written again; None where there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def map_array(path: Path) -> AnyArray:
    """The array of a ``.npy``, mapped from the file: read-only, and read where it is used.

    No pickle is executed.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a ``.npy``, is damaged, or holds Python objects.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"path must hold .npy files, but {path} is not a regular file")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise type(error)(error.errno, f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # NumPy passes on whatever Python's parser raises
        raise ValueError(f"path must hold .npy files, but {path} is not one or is damaged: {shorten(error)}") from None


def load_foreign_arrays(path: Path) -> dict[str, AnyArray]:
    """Read any ``.npz``, compressed or not.

    The sizes that it declares are checked before anything is read. No pickle is executed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not an ``.npz``, is damaged, or holds Python objects.
    MemoryError
        If its arrays need more memory than this process may use.
    """
    if not path.is_file():
        raise FileNotFoundError(f"path must be an .npz file, but there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(info.file_size for info in archive.infolist())
            check_memory(f"reading {path}", declared)
            return _read_members(archive, declared)
    except _UNREADABLE as error:
        raise ValueError(f"path must be an .npz file, but {path} is not one or is damaged: {shorten(error)}") from None


def _read_members(archive: zipfile.ZipFile, max_bytes: int) -> dict[str, AnyArray]:
    """All arrays of an ``.npz``, none larger than its member declares."""
    infos = archive.infolist()
    total = sum(info.file_size for info in infos)
    if total > max_bytes or len(infos) > 10_000:
        raise ValueError(f"it declares {total} bytes in {len(infos)} members, which is too many")
    arrays = {}
    for info in infos:
        if not info.filename.endswith(".npy") or info.filename[:-4] in arrays:
            raise ValueError(f"unexpected member {info.filename!r}")
        with archive.open(info) as member:
            arrays[info.filename[:-4]] = _read_array(member, info.file_size)
    return arrays


def _read_array(member: IO[bytes], size: int) -> AnyArray:
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"unknown array format {version}")
    try:
        shape, fortran, dtype = readers[version](member, max_header_size=10_000)
    except Exception as error:  # NumPy passes on whatever Python's parser raises
        raise ValueError(f"an array's header cannot be read: {describe(error)}") from None
    if dtype.hasobject or dtype.kind not in "biufUS" or dtype.itemsize == 0:
        raise ValueError(f"arrays of dtype {dtype} are not supported")
    count = 1
    for length in shape:
        count *= length
    if count < 0 or count * dtype.itemsize > size:
        raise ValueError("an array is larger than its member")
    raw = np.empty(count * dtype.itemsize, np.uint8)
    for start in range(0, len(raw), _CHUNK):
        piece = member.read(min(_CHUNK, len(raw) - start))
        if len(piece) < min(_CHUNK, len(raw) - start):
            raise ValueError("an array is truncated")
        raw[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
    if member.read(1):
        raise ValueError("an array is followed by other bytes")
    return raw.view(dtype).reshape(shape, order="F" if fortran else "C")
