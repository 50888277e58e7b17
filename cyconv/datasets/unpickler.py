"""Read CIFAR's pickled batches without executing a pickle.

The original Python files are pickles: programs that may call anything. They are
read by ``pickle._Unpickler``, the standard library's unpickler in plain Python,
cut down to the instructions and names that such files need, also when Python 3
wrote them anew under any of its protocols, 0 to 5. No name is ever looked up:
the six that are admitted stand for what is below. Memory is bounded by the
file's size.

The public ``pickle.Unpickler``, which is written in C, would not do: it
allocates what a file claims to hold (a memo of four billion entries) before it
reads on, it crashes on a key of deeply nested tuples, and a scan of the
instructions beforehand, by ``pickletools``, sees no keys.
"""

import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .._typing import AnyArray

_LONG = 256  # bytes
_INSTRUCTIONS = b"(}])NKMJILUTCBXVtldaesupqrghjc.\x80\x85\x86\x87\x88\x89\x8a\x8c\x8e\x93\x94"


class _Refused(ValueError):
    """A sentence of this module's own."""


def read_pickle(raw: bytes | memoryview, max_reads: int = 1_000_000) -> dict[str, Any]:
    """The dictionary that a pickled CIFAR batch holds.

    Parameters
    ----------
    raw : bytes-like
        The whole file.
    max_reads : int
        Of instructions and their parts; an original file of 10,000 images of
        CIFAR-10 takes less than 100,000.

    Returns
    -------
    dict of str to object
        Keys as text; arrays as views of ``raw`` or of what was decoded from
        it; NumPy's integers as int; long byte strings as memoryview.

    Raises
    ------
    ValueError
        If the file is damaged, or holds anything that such a batch does not.

    Examples
    --------
    >>> import pickle
    >>> read_pickle(pickle.dumps({b"labels": [3, 5]}, protocol=2))
    {'labels': [3, 5]}
    """
    try:
        value = _Unpickler(raw, max_reads).load()
    except _Refused:
        raise
    except (pickle.UnpicklingError, AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__})") from None
    if not isinstance(value, _Entries):
        raise ValueError(f"it holds a {type(value).__name__}, no dictionary")
    return {key: entry.value if isinstance(entry, _Array) else entry for key, entry in value.items()}


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _text(string: Any) -> str:
    """A short string as text: to handle a long one many times would take forever."""
    text: str = str(string, "latin1") if isinstance(string, bytes) else _expect(string, str)
    if len(text) >= _LONG:
        raise TypeError
    return text


class _File:
    """Bytes in memory as a file; what is long is not copied."""

    def __init__(self, raw: bytes | memoryview, max_reads: int) -> None:
        self.raw = memoryview(raw).toreadonly()
        self.max_reads = max_reads
        self.position = self.n_reads = 0

    def read(self, size: int) -> Any:
        self.n_reads += 1
        if self.n_reads > self.max_reads:
            raise _Refused("it holds more pickle instructions than a CIFAR batch needs")
        piece = self.raw[self.position : self.position + size]
        if len(piece) < size:
            raise _Refused("it is damaged or cut short")
        self.position += size
        return piece if size >= _LONG else bytes(piece)

    def readline(self) -> Any:
        newline = re.compile(b"\n").search(self.raw, self.position)
        return self.read((newline.end() if newline else len(self.raw) + 1) - self.position)


class _Entries(dict[str, Any]):
    """A dictionary whose keys are text: to hash deeply nested tuples would crash."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_text(key), value)


class _Array:
    """An array whose contents may still be to come."""

    def __init__(self, value: AnyArray | None = None) -> None:
        self.value = value

    def build(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran is True else "C")


class _Dtype:
    """A dtype of integers; its byte order comes later, and may say nothing."""

    value: np.dtype[Any]

    def __init__(self, kind: Any, align: Any, copy: Any) -> None:
        self.set(_text(kind))

    def build(self, state: tuple[Any, ...]) -> None:
        self.set(_text(state[1]) + self.value.str[1:])

    def set(self, kind: str) -> None:
        if not re.fullmatch("[|<>=]?[iu][1248]", kind):
            raise _Refused(f"it holds an array of dtype {kind[:20]!a}, no integers")
        self.value = np.dtype(kind)


def _array(content: Any, dtype: Any, shape: Any, order: Any = "C", axes: Any = None) -> AnyArray:
    """The array that the arguments of NumPy's own functions describe; nothing is copied."""
    array = np.frombuffer(content, _expect(dtype, _Dtype).value)
    array = array.reshape(_expect(shape, tuple), order="F" if order == "F" else "C")
    if array.shape != shape or not 1 <= array.ndim <= 4:
        raise TypeError
    if order == "K":  # the axes in an order of their own, as of images whose channels were last
        array = array.transpose(_expect(axes, tuple))
    return array


_NDARRAY = object()
_NAMES: dict[str, Any] = {  # as NumPy 1 writes them; NumPy 2 writes numpy._core
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": lambda kind, shape, dtype: _Array() if kind is _NDARRAY else None,
    "numpy.core.multiarray.scalar": lambda dtype, content: int(_array(content, dtype, (1,))[0]),
    "numpy.core.numeric._frombuffer": lambda *arguments: _Array(_array(*arguments)),
}


class _Dispatch(dict[int, Callable[[Any], None]]):
    def __missing__(self, code: int) -> Callable[[Any], None]:
        raise _Refused(f"it holds the pickle instruction 0x{code:02x}, which no CIFAR batch needs")


class _Unpickler(pickle._Unpickler):
    def __init__(self, raw: bytes | memoryview, max_reads: int) -> None:
        super().__init__(_File(raw, max_reads), encoding="bytes")
        self.room = len(raw)

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        found = {**_NAMES, "_codecs.encode": self.encode}.get(full_name.replace("numpy._core.", "numpy.core."))
        if found is None:
            raise _Refused(f"it names {full_name[:80]!a}, which no CIFAR batch needs, and was not run")
        return found

    def encode(self, text: str, encoding: str) -> bytes:
        """As Python 3 writes bytes for Python 2."""
        if encoding != "latin1":
            raise _Refused("it holds text in an encoding that no CIFAR batch needs")
        self.room -= len(text)
        if self.room < 0:
            raise _Refused("it expands to more than its own size")
        return text.encode("latin1")

    def load_dict(self: Any) -> None:
        self.metastack[-1].append(_Entries())  # below the mark
        self.load_setitems()

    def load_reduce(self: Any) -> None:
        arguments = _expect(self.stack.pop(), tuple)  # a text would become as many arguments as letters
        self.append(self.stack.pop()(*arguments))

    def load_build(self: Any) -> None:
        state = _expect(self.stack.pop(), tuple)
        self.stack[-1].build(state)

    dispatch = _Dispatch({code: pickle._Unpickler.dispatch[code] for code in _INSTRUCTIONS})
    dispatch |= {
        pickle.DICT[0]: load_dict,
        pickle.EMPTY_DICT[0]: lambda self: self.append(_Entries()),
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.FRAME[0]: lambda self: self.read(8),  # its length, which nothing depends on
        pickle.BYTEARRAY8[0]: dispatch[pickle.BINBYTES8[0]],  # its own would allocate before it reads
    }
