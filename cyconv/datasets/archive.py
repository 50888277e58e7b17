"""Read files out of a ``.tar.gz`` into memory; nothing is ever extracted to the disk.

The standard library's ``tarfile``, even where it reads a stream, would be half
as long and not as safe: it keeps every header and the whole of every long name
and extended header, so that a hostile archive of 250 kB takes it 750 MB of
memory, or more than two minutes. This reader takes a member's size from its
header and passes over everything else.
"""

import gzip
import zlib
from collections.abc import Container, Iterator
from pathlib import Path, PurePosixPath

_BLOCK = 512
_MAX_BYTES = 2**28  # CIFAR-10's archives expand to about 186 million bytes
_CHUNK = 2**20


def read_members(path: Path, names: Container[str], buffer: memoryview | None) -> Iterator[tuple[str, memoryview]]:
    """Yield ``(name, contents)`` of the wanted files in a ``.tar.gz``, in the archive's order.

    The archive is read once, from its beginning to its end, so that gzip's
    checksum has been compared when the last file has been yielded. Members
    are told by their last name, at the top or in one folder; links, devices
    and all other members are passed over.

    Parameters
    ----------
    path : Path
    names : container of str
        The wanted files.
    buffer : memoryview of bytes or None
        Where each file is read to, and so the most bytes that one may have:
        the contents are a part of it, until the next file is asked for. With
        None no file is read, and there are no contents.

    Raises
    ------
    ValueError
        If the file is no such archive, is damaged or cut short, or expands
        to more than 256 MiB.
    """
    try:
        with gzip.open(path, "rb") as stream:
            yield from _members(stream, names, buffer)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"it is no gzip archive, or a damaged one: {error}") from None


def first_member(path: Path, names: Container[str]) -> str | None:
    """The first of the wanted files in a ``.tar.gz``, by its last name; nothing beyond its header is read.

    Raises
    ------
    ValueError
        As `read_members`, where it is damaged before that file.
    """
    return next((name for name, _ in read_members(path, names, None)), None)


def _members(
    stream: gzip.GzipFile, names: Container[str], buffer: memoryview | None
) -> Iterator[tuple[str, memoryview]]:
    position = 0
    while True:
        header = stream.read(_BLOCK)
        if len(header) < _BLOCK or not any(header):
            break
        name, size, kind = _read_header(header)
        padding = -size % _BLOCK
        position += _BLOCK + size + padding
        if position > _MAX_BYTES:
            raise ValueError(f"it expands to more than {_MAX_BYTES} bytes")
        if kind in b"0\0" and name is not None and name in names:
            if buffer is None:
                yield name, memoryview(b"")
            elif size > len(buffer):
                raise ValueError(f"its member {name} has {size} bytes, more than {len(buffer)}")
            else:
                _read(stream, name, buffer[:size])
                yield name, buffer[:size]
                size = 0
        _skip(stream, size + padding)
    while stream.read(_CHUNK):  # to the end, where gzip keeps its checksum
        position += _CHUNK
        if position > _MAX_BYTES:
            raise ValueError(f"it expands to more than {_MAX_BYTES} bytes")


def _read_header(header: bytes) -> tuple[str | None, int, bytes]:
    """Name (None where no plain file of ours can be), size and type of a member."""
    try:
        stored = int(header[148:156].strip(b" \0"), 8)
        size = int(header[124:136].strip(b" \0") or b"0", 8)
    except ValueError:
        raise ValueError("it is no tar archive, or a damaged one") from None
    if stored != sum(header[:148]) + 8 * 0x20 + sum(header[156:]) or size < 0:
        raise ValueError("it is no tar archive, or a damaged one")
    parts = PurePosixPath(header[:100].partition(b"\0")[0].decode("latin1")).parts
    ours = 1 <= len(parts) <= 2 and parts[0] not in ("/", "..")
    return parts[-1] if ours else None, size, header[156:157]


def _read(stream: gzip.GzipFile, name: str, view: memoryview) -> None:
    """Fill ``view`` from the stream, piece by piece: one large read would make a copy."""
    for start in range(0, len(view), _CHUNK):
        piece = view[start : start + _CHUNK]
        if stream.readinto(piece) != len(piece):
            raise ValueError(f"its member {name} is cut short")


def _skip(stream: gzip.GzipFile, size: int) -> None:
    while size > 0:
        piece = stream.read(min(size, _CHUNK))
        if not piece:
            raise ValueError("it is cut short")
        size -= len(piece)
