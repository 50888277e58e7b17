"""Files that are either whole or not there, and readers that trust nothing."""

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

from ._checks import describe, in_short
from ._typing import AnyArray, JsonDict, StrPath

try:
    import fcntl
except ImportError:  # Windows, which keeps open files from being removed
    fcntl = None  # type: ignore[assignment]

_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def check_path(name: str, value: StrPath) -> Path:
    """Return ``value`` as a Path, or say what came instead.

    ``~`` and ``~user`` at the beginning become the home folder; in a str, as
    people type it, environment variables that are set are replaced as well
    (``$NAME``, ``${NAME}``), others stay as they are. A name that begins with
    ``~`` is reached by ``"./~name"``, one that holds such a variable by a Path.
    """
    try:
        text = os.fspath(value)
        text = os.path.expandvars(text) if isinstance(value, str) else text
        path = Path(os.path.expanduser(text))
        os.fsencode(path)
    except Exception:  # whatever a stranger's __fspath__ raises
        raise TypeError(f"{name} must be a path, but got {describe(value)}") from None
    if "\0" in str(path):
        raise ValueError(f"{name} must be a path, which holds no null character, but got {describe(value)}")
    if str(path).startswith("~"):
        if text.startswith("~"):
            raise ValueError(f"{name} must be a path whose home folder is known, but got {describe(value)}")
        path = path.absolute()  # so that it means the same when it is passed on
    return path


def regular_file(name: str, path: Path) -> tuple[Path, os.stat_result | None]:
    """The file that ``path`` leads to, or would create: links are followed, a dangling one as well.

    Returns
    -------
    target : Path
    status : os.stat_result or None
        None where there is no file yet.

    Raises
    ------
    OSError
        If something else stands there (a folder, a pipe, a device, a socket, a loop of links), the file is
        write-protected, or its folder is missing.
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
    """Find out before hours of work whether `atomic_write` can put a file there; return ``path`` as a Path."""
    path = check_path(name, path)
    target, _ = regular_file(name, path)
    with _temporary(name, target) as (handle, _):
        os.close(handle)
    return path


@contextlib.contextmanager
def atomic_write(path: StrPath, mode: str = "wb", **open_options: Any) -> Iterator[IO[Any]]:
    """Open a file that takes the place of ``path`` only once it is whole.

    The bytes go to a temporary file in the same folder, which is flushed,
    synced to the disk and renamed; then the folder is synced. On any error
    the temporary file is removed and what stood at ``path`` stays; what a
    killed process left, the next writer of the same file removes.

    Links are followed: the file that they lead to is replaced. The new file
    has the mode of the old one, and its owner and group where this process
    may give it away. Only a regular file is replaced (see `regular_file`).
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
                _keep_owner(temporary, status)
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

    A hash of the target's name is in its own, by which the next writer finds
    what a killed one left; the lock on it tells which writers live.
    """
    prefix = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}."
    for left in target.parent.glob(f"{prefix}*.part"):
        _remove_if_abandoned(left)
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
            os.close(handle)  # another writer took it for abandoned, before it was locked
        yield handle, temporary


def _remove(path: StrPath) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _remove_if_abandoned(path: Path) -> None:
    if fcntl is None:
        _remove(path)
        return
    with contextlib.suppress(OSError):  # it may be another user's, or renamed by now
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(handle: int) -> Iterator[None]:
    """Hold the lock of an open file until the block ends, even if ``handle`` is closed before.

    Where files cannot be locked (Windows, some network file systems) there is nothing to hold.

    Raises
    ------
    BlockingIOError
        If another process or thread holds it.
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


def _keep_owner(path: StrPath, status: os.stat_result) -> None:
    """Give a file the group and the owner of another, as far as this process may."""
    own = os.stat(path)
    if hasattr(os, "chown") and (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        for owner, group in ((-1, status.st_gid), (status.st_uid, -1)):
            with contextlib.suppress(OSError):
                os.chown(path, owner, group)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the file system can do that; a rename stands in any case."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def copy_file(source: StrPath, path: StrPath) -> None:
    """Write what the file ``source`` holds to ``path``, atomically."""
    with open(source, "rb") as file, atomic_write(path) as copy:
        shutil.copyfileobj(file, copy)


def write_text(path: StrPath, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_write(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def write_json(path: StrPath, value: Any) -> None:
    """Write ``value`` as readable JSON, atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def save_arrays(path: StrPath, kind: str, version: int, header: JsonDict, arrays: Mapping[str, AnyArray]) -> None:
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
    members: dict[str, Any] = {"__header__": np.frombuffer(text.encode("utf-8"), dtype=np.uint8), **arrays}
    with atomic_write(path) as file:
        np.savez(file, **members)


def load_arrays(path: StrPath, kind: str, version: int) -> tuple[JsonDict, dict[str, AnyArray]]:
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
    except (
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
    ) as error:
        raise ValueError(
            f"path must be a cyconv {kind} file, but {path} is not one or is damaged: {in_short(error)}"
        ) from None
    if header.get("kind") != kind:
        raise ValueError(f"path must be a cyconv {kind} file, but {path} holds {describe(header.get('kind'))}")
    found = header.get("version")
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= version:
        raise ValueError(
            f"path must be a cyconv {kind} file of version 1..{version}, but {path} is of version {found!r}"
        )
    return header, arrays


def _read_members(archive: zipfile.ZipFile, max_bytes: int) -> dict[str, AnyArray]:
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


def _read_array(member: IO[bytes], size: int) -> AnyArray:
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"unknown array format {version}")
    try:
        shape, fortran, dtype = readers[version](member, max_header_size=10_000)
    except Exception as error:  # NumPy's parser lets through whatever Python's raises
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
