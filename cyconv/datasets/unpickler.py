"""Read CIFAR-10's pickled batches without unpickling.

The published Python files are pickles: programs that may call anything. This
reader interprets the few instructions that those files consist of, and what
Python 3 makes of them when it writes them anew under any of its protocols, 0
to 5. It never looks up a name and never calls what a file names: of the names
that such files hold (NumPy's ``_reconstruct``, ``_frombuffer``, ``scalar``,
``ndarray`` and ``dtype``, and ``_codecs.encode``, by which Python 3 writes
bytes for Python 2) only their meaning here is known, and any other name is
refused. What it allocates is bounded by the size of the file.

The standard library's ``Unpickler``, which looks names up by a method that can
be overridden, is no shorter way to the same: it allocates as much as a file
claims to hold (a memo of four billion entries, a bytearray of any size) before
it finds that the file ends.

Instructions: https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

import math
import re
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .._typing import AnyArray

_MAX_INSTRUCTIONS = 1_000_000  # the published files take about 50,000

_RECONSTRUCT, _FROMBUFFER, _SCALAR, _NDARRAY, _DTYPE, _ENCODE = (object() for _ in range(6))
_NAMES = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DTYPE,
    ("_codecs", "encode"): _ENCODE,
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _RECONSTRUCT
    _NAMES[f"{_core}.multiarray", "scalar"] = _SCALAR
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _FROMBUFFER


class _Array:
    """An array whose contents may still be to come."""

    def __init__(self, value: AnyArray | None = None) -> None:
        self.value = value


class _Dtype:
    """A dtype of integers; its byte order comes later, and may say nothing."""

    def __init__(self, kind: str) -> None:
        self.value: np.dtype[Any] = np.dtype(kind)


def read_pickle(raw: bytes | memoryview) -> dict[str, Any]:
    """The dictionary that a pickled CIFAR-10 batch holds.

    Parameters
    ----------
    raw : bytes-like
        The whole file.

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
        value = _Reader(raw).read()
    except (IndexError, KeyError, TypeError, UnicodeError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, no dictionary")
    return {_text(key): entry.value if isinstance(entry, _Array) else entry for key, entry in value.items()}


def _text(string: str | bytes | memoryview) -> str:
    return string if isinstance(string, str) else str(bytes(string), "latin1")


class _Reader:
    """A stack machine for the instructions in ``_INSTRUCTIONS``."""

    def __init__(self, raw: bytes | memoryview) -> None:
        self.raw = memoryview(raw)
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0

    def read(self) -> Any:
        for _ in range(_MAX_INSTRUCTIONS):
            code = self.raw[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.stack.pop()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise ValueError(f"it holds the pickle instruction 0x{code:02x}, which no CIFAR-10 batch needs")
            instruction(self)
        raise ValueError(f"it holds more than {_MAX_INSTRUCTIONS} pickle instructions")

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes, not copied."""
        if size < 0 or size > len(self.raw) - self.at:
            raise ValueError("it is cut short")
        piece = self.raw[self.at : self.at + size]
        self.at += size
        return piece

    def number(self, layout: str) -> int:
        number: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return number

    def line(self, longest: int = 100) -> bytes:
        """The text up to the end of the line, as bytes."""
        size = 128
        while True:
            piece = bytes(self.raw[self.at : self.at + min(size, longest + 1)])
            end = piece.find(b"\n")
            if end >= 0:
                self.at += end + 1
                return piece[:end]
            if len(piece) < size:
                raise ValueError(f"it is cut short, or has a line longer than {longest} letters")
            size *= 2

    def number_line(self) -> int:
        line = self.line()
        if not re.fullmatch(rb"-?[0-9]+L?", line):
            raise ValueError("it is damaged (a number that is none)")
        return {b"00": False, b"01": True}.get(line, int(line.removesuffix(b"L")))

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def protocol(self) -> None:
        version = self.number("<B")
        if version > 5:
            raise ValueError(f"it is a pickle of protocol {version}")

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def put(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, number: int) -> None:
        self.stack.append(self.memo[number])

    def string(self, layout: str) -> None:
        piece = self.take(self.number(layout))
        self.stack.append(bytes(piece) if len(piece) < 256 else piece)

    def text(self, layout: str) -> None:
        self.stack.append(str(self.take(self.number(layout)), "utf-8", "surrogatepass"))

    def text_line(self) -> None:
        self.stack.append(str(self.line(len(self.raw)), "raw-unicode-escape"))

    def long(self) -> None:
        self.stack.append(int.from_bytes(self.take(self.number("<B")), "little", signed=True))

    def tuple(self, size: int) -> None:
        items = tuple(self.stack[-size:])
        if len(items) != size:
            raise ValueError("it is damaged (a tuple without its items)")
        self.stack[-size:] = [items]

    def tuple_since_mark(self) -> None:
        self.stack.append(tuple(self.since_mark()))

    def list_since_mark(self) -> None:
        self.stack.append(self.since_mark())

    def dict_since_mark(self) -> None:
        items = self.since_mark()
        self.stack.append({})
        self.set_pairs(items)

    def append(self) -> None:
        item = self.stack.pop()
        _expect(self.stack[-1], list).append(item)

    def appends(self) -> None:
        items = self.since_mark()
        _expect(self.stack[-1], list).extend(items)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_pairs([key, value])

    def set_items(self) -> None:
        self.set_pairs(self.since_mark())

    def set_pairs(self, items: list[Any]) -> None:
        into = _expect(self.stack[-1], dict)
        if len(items) % 2:
            raise ValueError("it is damaged (a key without its value)")
        for key, value in zip(items[::2], items[1::2]):
            into[_expect(key, (str, bytes))] = value

    def name_in_text(self) -> None:
        self.push_name(str(self.line(), "ascii"), str(self.line(), "ascii"))

    def name_on_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push_name(_expect(module, str), _expect(name, str))

    def push_name(self, module: str, name: str) -> None:
        if (module, name) not in _NAMES:
            full_name = f"{module}.{name}"[:80]
            raise ValueError(f"it names {full_name!a}, which no CIFAR-10 batch needs, and was not run")
        self.stack.append(_NAMES[module, name])

    def reduce(self) -> None:
        arguments, function = _expect(self.stack.pop(), tuple), self.stack.pop()
        if function is _RECONSTRUCT and arguments[0] is _NDARRAY:
            made: Any = _Array()
        elif function is _FROMBUFFER:
            made = _Array(_array(*arguments))
        elif function is _SCALAR:
            made = int(_array(arguments[1], arguments[0], (1,))[0])
        elif function is _DTYPE:
            kind = _text(_expect(arguments[0], (str, bytes)))
            if not re.fullmatch("[|<>=]?[iu][1248]", kind):
                raise ValueError(f"it holds an array of dtype {kind[:20]!a}, no integers")
            made = _Dtype(kind)
        elif function is _ENCODE:
            text, encoding = _expect(arguments[0], str), _expect(arguments[1], str)
            if encoding != "latin1":
                raise ValueError("it holds text in an encoding that no CIFAR-10 batch needs")
            self.encoded += len(text)
            if self.encoded > len(self.raw):
                raise ValueError("it expands to more than its own size")
            made = text.encode("latin1")
        else:
            raise ValueError("it calls something that no CIFAR-10 batch needs, which was not run")
        self.stack.append(made)

    def build(self) -> None:
        state, target = _expect(self.stack.pop(), tuple), self.stack[-1]
        if isinstance(target, _Dtype):
            order: Any = _text(_expect(state[1], (str, bytes)))
            if order not in ("<", ">", "|", "="):
                raise ValueError("it holds an array in a byte order that is none")
            target.value = target.value.newbyteorder(order)
            return
        if len(state) != 5:
            raise ValueError("it holds an array in a form that no CIFAR-10 batch has")
        _, shape, dtype, fortran, content = state
        _expect(target, _Array).value = _array(content, dtype, shape, "F" if fortran is True else "C")


def _array(content: Any, dtype: Any, shape: Any, order: str = "C", axes: Any = None) -> AnyArray:
    """The array that the arguments of NumPy's own functions describe; nothing is copied."""
    content, dtype = _expect(content, (bytes, memoryview)), _expect(dtype, _Dtype).value
    lengths = tuple(_expect(length, int) for length in _expect(shape, tuple))
    if not 1 <= len(lengths) <= 4 or min(lengths) < 1 or math.prod(lengths) * dtype.itemsize != len(content):
        raise ValueError(f"it holds an array of shape {shape} in {len(content)} bytes"[:100])
    array = np.frombuffer(content, dtype)
    if order == "K":  # the axes in an order of their own, as of images whose channels were last
        array = array.reshape(lengths)
        if sorted(_expect(axes, tuple)) != list(range(array.ndim)):
            raise ValueError("it holds an array whose axes are none")
        return array.transpose(axes)
    return array.reshape(lengths, order="F" if order == "F" else "C")


_Instruction: TypeAlias = Callable[[_Reader], object]


def _expect(value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _push(value: Any) -> _Instruction:
    return lambda reader: reader.stack.append(value)


_INSTRUCTIONS: dict[int, _Instruction] = {
    0x80: _Reader.protocol,
    0x95: lambda reader: reader.take(8),  # FRAME
    ord("("): _Reader.mark,
    ord("}"): lambda reader: reader.stack.append({}),
    ord("]"): lambda reader: reader.stack.append([]),
    ord(")"): _push(()),
    ord("N"): _push(None),
    0x88: _push(True),
    0x89: _push(False),
    ord("K"): lambda reader: reader.stack.append(reader.take(1)[0]),
    ord("M"): lambda reader: reader.stack.append(reader.number("<H")),
    ord("J"): lambda reader: reader.stack.append(reader.number("<i")),
    0x8A: _Reader.long,
    ord("I"): lambda reader: reader.stack.append(reader.number_line()),
    ord("L"): lambda reader: reader.stack.append(reader.number_line()),
    ord("U"): lambda reader: reader.string("<B"),  # byte strings of Python 2
    ord("T"): lambda reader: reader.string("<i"),
    ord("C"): lambda reader: reader.string("<B"),  # bytes of Python 3
    ord("B"): lambda reader: reader.string("<I"),
    0x8E: lambda reader: reader.string("<Q"),
    0x96: lambda reader: reader.string("<Q"),  # a bytearray
    0x8C: lambda reader: reader.text("<B"),
    ord("X"): lambda reader: reader.text("<I"),
    ord("V"): _Reader.text_line,
    0x85: lambda reader: reader.tuple(1),
    0x86: lambda reader: reader.tuple(2),
    0x87: lambda reader: reader.tuple(3),
    ord("t"): _Reader.tuple_since_mark,
    ord("l"): _Reader.list_since_mark,
    ord("d"): _Reader.dict_since_mark,
    ord("a"): _Reader.append,
    ord("e"): _Reader.appends,
    ord("s"): _Reader.set_item,
    ord("u"): _Reader.set_items,
    ord("p"): lambda reader: reader.put(reader.number_line()),
    ord("q"): lambda reader: reader.put(reader.number("<B")),
    ord("r"): lambda reader: reader.put(reader.number("<I")),
    0x94: _Reader.memoize,
    ord("g"): lambda reader: reader.get(reader.number_line()),
    ord("h"): lambda reader: reader.get(reader.number("<B")),
    ord("j"): lambda reader: reader.get(reader.number("<I")),
    ord("c"): _Reader.name_in_text,
    0x93: _Reader.name_on_stack,
    ord("R"): _Reader.reduce,
    ord("b"): _Reader.build,
}
