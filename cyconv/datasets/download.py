"""Fetch CIFAR-10's binary archive, when asked to."""

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
from .._progress import ProgressBar, is_watched
from .._typing import StrPath

ARCHIVE_NAME = "cifar-10-binary.tar.gz"
PUBLISHED_URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE_NAME}"

_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_N_BYTES = 170_052_171
_CHUNK = 2**18
_TIMEOUT = 30.0  # seconds without a byte


def download_cifar10(folder: StrPath, url: str | None = None, progress: bool | None = None) -> Path:
    """Download CIFAR-10's binary archive (170 MB) and verify its checksum.

    What has arrived waits in ``cifar-10-binary.tar.gz.part``, so that a call
    after an interruption goes on where the last one stopped. The archive gets
    its own name only once it is whole and has the published MD5 sum. When it
    is there already, nothing is fetched.

    Parameters
    ----------
    folder : path-like
        Where to put the archive; made if it does not exist.
    url : str, optional
        A mirror's http or https address. Without it the environment variable
        ``CYCONV_CIFAR10_URL``, else the publisher's.
    progress : bool, optional
        Whether to show a progress bar; without it, only in a notebook or on a
        terminal. One that cannot be drawn is left out.

    Returns
    -------
    Path
        The archive, for :func:`load_cifar10`.

    Raises
    ------
    ValueError
        If the address is none, or what it sends is not the published archive.
    ConnectionError
        If the server cannot be reached, refuses, or stops sending.
    FileExistsError
        If another file, or something else than a file, stands where the archive or its part would go.
    OSError
        If the folder cannot be written to, another download writes there, or the disk is full.

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
                    "another MD5 sum: move it away first",
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
    """Fetch into a part beside ``target`` what it lacks, and rename it once it is whole and right."""
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
            # What is wrong cannot be completed: the next call starts afresh.
            part.unlink()
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
    """Append to ``file`` what it lacks of the archive."""
    start = file.tell()
    if start >= _N_BYTES:
        return  # whole, or wrong: the checksum tells
    request = urllib.request.Request(url, headers={"User-Agent": "cyconv"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            _empty(file)
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
        if start and not _continues(response, start):
            _empty(file)
            start = 0
        _receive(response, file, start, url, progress)


def _empty(file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()


def _continues(response: http.client.HTTPResponse, start: int) -> bool:
    """Whether the server sends the rest, and not everything from the beginning."""
    sent = response.headers.get("Content-Range", "")
    return response.status == http.HTTPStatus.PARTIAL_CONTENT and sent.startswith(f"bytes {start}-")


def _receive(
    response: http.client.HTTPResponse, file: IO[bytes], position: int, url: str, progress: bool | None
) -> None:
    shown = is_watched() if progress is None else progress
    with ProgressBar(shown, total=_N_BYTES, initial=position, unit="B", unit_scale=True, desc=ARCHIVE_NAME) as bar:
        while position < _N_BYTES:
            try:
                piece = response.read(min(_CHUNK, _N_BYTES - position))
            except (OSError, http.client.HTTPException) as error:
                raise _broken_off(url, position, _reason(error)) from None
            if not piece:
                raise _broken_off(url, position, "the server closed the connection")
            file.write(piece)
            position += len(piece)
            bar.update(len(piece))
        more = b""
        with contextlib.suppress(OSError, http.client.HTTPException):
            more = response.read(1)
        if more:
            _empty(file)
            raise ValueError(f"url must lead to the published archive of {_N_BYTES} bytes, but {url} sends more")


def _broken_off(url: str, position: int, reason: str) -> ConnectionError:
    return ConnectionError(
        f"{url} broke off after {position} of {_N_BYTES} bytes ({reason}); a second call goes on from there"
    )


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__
