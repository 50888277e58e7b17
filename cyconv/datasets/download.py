"""Download of CIFAR-10's binary archive."""

import contextlib
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

from .._checks import check_flag, describe
from .._files import check_path, locked, regular_file, sync_folder
from .._progress import ProgressBar, is_interactive
from .._typing import StrPath

ARCHIVE_NAME = "cifar-10-binary.tar.gz"
PUBLISHED_URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE_NAME}"

_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_N_BYTES = 170_052_171
_CHUNK = 2**18
_TIMEOUT = 30.0  # seconds without receiving a byte


def download_cifar10(folder: StrPath, url: str | None = None, progress: bool | None = None) -> Path:
    """Download CIFAR-10's binary archive (170 MB) and verify its checksum.

    The data are first written to ``cifar-10-binary.tar.gz.part``, from which an
    interrupted download is resumed. The file is renamed once it is complete and
    has the published MD5 checksum. If the archive exists already, nothing is
    downloaded.

    Parameters
    ----------
    folder : path-like
        Folder for the archive; created if it does not exist.
    url : str, optional
        http or https address of a mirror. By default, that of the environment
        variable ``CYCONV_CIFAR10_URL``, or else the original one.
    progress : bool, optional
        Whether to show a progress bar. By default, a bar is shown in a notebook
        and where stderr is a terminal. If it cannot be drawn, the download
        continues without it.

    Returns
    -------
    Path
        The archive, for :func:`load_cifar10`.

    Raises
    ------
    ValueError
        If the address is invalid, or does not lead to the original archive.
    ConnectionError
        If the server cannot be reached, returns an error or stops sending.
    FileExistsError
        If the path of the archive or of its ``.part`` file is taken by another file, or is not that of a file.
    OSError
        If the folder is not writable, another download is writing there, or the disk is full.

    Examples
    --------
    >>> path = cyconv.download_cifar10("data")  # doctest: +SKIP
    >>> data = cyconv.load_cifar10("data")  # doctest: +SKIP
    """
    folder = check_path("folder", folder)
    if progress is not None:
        progress = check_flag("progress", progress)
    url = _check_url(url)
    archive = folder / ARCHIVE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if archive.is_file():
            if _md5(archive) != _MD5:
                raise FileExistsError(
                    f"folder must hold no other {ARCHIVE_NAME} than the published one, but {archive} has "
                    "a different MD5 checksum: move it away first",
                )
            return archive
        _download(url, regular_file(ARCHIVE_NAME, archive)[0], progress)
    except (ConnectionError, FileExistsError) as error:
        if error.errno is None:
            raise
        sentence = f"folder must be a folder, but got {folder}: {error.strerror}"
        raise type(error)(error.errno, sentence) from None
    except OSError as error:
        if error.errno is None:
            raise
        sentence = f"cannot write {ARCHIVE_NAME} into {folder}: {error.strerror}"
        raise type(error)(error.errno, sentence) from None
    return archive


def _download(url: str, target: Path, progress: bool | None) -> None:
    """Download or complete the ``.part`` file of ``target``, and rename it once its checksum is right."""
    name = f"{ARCHIVE_NAME}.part"
    part, _ = regular_file(name, target.with_name(name))
    with contextlib.ExitStack() as stack:
        with open(part, "ab") as file:
            try:
                stack.enter_context(locked(file.fileno()))
            except BlockingIOError:
                raise BlockingIOError(
                    f"folder must be one that no other download fills, but {part} is being written"
                ) from None
            _fetch(url, file, progress)
            file.flush()
            os.fsync(file.fileno())
        found = _md5(part)
        if found != _MD5:
            part.unlink()  # a wrong file cannot be completed: the next call starts from scratch
            raise ValueError(f"url must lead to the published archive with MD5 {_MD5}, but {url} sent one with {found}")
        os.replace(part, target)
    sync_folder(target.parent)


def _check_url(url: str | None) -> str:
    name = "url"
    if url is None:
        name, url = "CYCONV_CIFAR10_URL", os.environ.get("CYCONV_CIFAR10_URL") or PUBLISHED_URL
    if not isinstance(url, str):
        raise TypeError(f"{name} must be an address, but got {describe(url)}")
    try:
        parts = urllib.parse.urlsplit(url)
        printable = not re.search(r"[\s\x00-\x1f\x7f]", url)
        valid = parts.scheme in ("http", "https") and parts.hostname and printable
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"{name} must be an http or https address, but got {describe(url)}")
    return url


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _fetch(url: str, file: IO[bytes], progress: bool | None) -> None:
    """Append the missing part of the archive to ``file``."""
    start = file.tell()
    if start >= _N_BYTES:
        return  # complete or wrong, which the checksum will show
    request = urllib.request.Request(url, headers={"User-Agent": "cyconv"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            _clear(file)
            _fetch(url, file, progress)
            return
        raise ConnectionError(
            f"url must lead to {ARCHIVE_NAME}, but {url} answered {error.code} {error.reason}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(
            f"url must lead to {ARCHIVE_NAME}, but {url} cannot be reached: {_reason(error)}"
        ) from None
    with response:
        if start and not _is_partial(response, start):
            _clear(file)
            start = 0
        _receive(response, file, start, url, progress)


def _clear(file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()


def _is_partial(response: http.client.HTTPResponse, start: int) -> bool:
    """Whether the server sends the bytes from ``start`` on, rather than the whole file."""
    content_range = response.headers.get("Content-Range", "")
    return response.status == http.HTTPStatus.PARTIAL_CONTENT and content_range.startswith(f"bytes {start}-")


def _receive(
    response: http.client.HTTPResponse, file: IO[bytes], position: int, url: str, progress: bool | None
) -> None:
    shown = is_interactive() if progress is None else progress
    with ProgressBar(shown, total=_N_BYTES, initial=position, unit="B", unit_scale=True, desc=ARCHIVE_NAME) as bar:
        while position < _N_BYTES:
            try:
                chunk = response.read(min(_CHUNK, _N_BYTES - position))
            except (OSError, http.client.HTTPException) as error:
                raise _interrupted(url, position, _reason(error)) from None
            if not chunk:
                raise _interrupted(url, position, "the server closed the connection")
            file.write(chunk)
            position += len(chunk)
            bar.update(len(chunk))
        more = b""
        with contextlib.suppress(OSError, http.client.HTTPException):
            more = response.read(1)
        if more:
            _clear(file)
            raise ValueError(f"url must lead to the published archive of {_N_BYTES} bytes, but {url} sends more")


def _interrupted(url: str, position: int, reason: str) -> ConnectionError:
    return ConnectionError(
        f"{url} broke off after {position} of {_N_BYTES} bytes ({reason}); call again to resume the download"
    )


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__
