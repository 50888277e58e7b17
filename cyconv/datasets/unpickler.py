"""Read CIFAR-10's pickled batches without unpickling.

The published Python files are pickles: programs that may call anything. This
reader interprets the few instructions those files consist of and no others.
It never looks up a name and never calls what a file names: of the names that
such files hold (NumPy's ``_reconstruct``, ``ndarray`` and ``dtype``, and
``_codecs.encode``, by which Python 3 writes bytes for Python 2) only their
meaning here is known, and any other name is refused. What it allocates is
bounded by the size of the file.

Instructions: https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

import struct

import numpy as np

_MAX_INSTRUCTIONS = 1_000_000  # the published files take about 50,000

_RECONSTRUCT, _NDARRAY, _DTYPE, _ENCODE = (object() for _ in range(4))
_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DTYPE,
    ("_codecs", "encode"): _ENCODE,
}
_UINT8 = object()


class _Array:
    """An array whose contents are still to come."""

    value = None


def read_pickle(raw):
    """The dictionary that a pickled CIFAR-10 batch holds.

    Parameters
    ----------
    raw : bytes-like
        The whole file.

    Returns
    -------
    dict of str to object
        Keys as text; arrays as uint8 views of ``raw``; long byte
        strings as memoryview.

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


def _text(string):
    return string if isinstance(string, str) else str(bytes(string), "latin1")


class _Reader:
    """A stack machine for the instructions in ``_INSTRUCTIONS``."""

    def __init__(self, raw):
        self.raw = memoryview(raw)
        self.at = 0
        self.stack = []
        self.marks = []
        self.memo = {}
        self.encoded = 0

    def read(self):
        for _ in range(_MAX_INSTRUCTIONS):
            code = self.raw[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.stack.pop()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise ValueError(
                    f"it holds the pickle instruction 0x{code:02x}, which no CIFAR-10 batch needs"
                )
            instruction(self)
        raise ValueError(f"it holds more than {_MAX_INSTRUCTIONS} pickle instructions")

    def take(self, size):
        """The next ``size`` bytes, not copied."""
        if size < 0 or size > len(self.raw) - self.at:
            raise ValueError("it is cut short")
        piece = self.raw[self.at:self.at + size]
        self.at += size
        return piece

    def number(self, layout):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self):
        for size in range(1, 101):
            if self.raw[self.at + size - 1] == 0x0A:
                return str(self.take(size)[:-1], "ascii")
        raise ValueError("it names something longer than 100 letters")

    def since_mark(self):
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def protocol(self):
        version = self.number("<B")
        if version > 5:
            raise ValueError(f"it is a pickle of protocol {version}")

    def mark(self):
        self.marks.append(len(self.stack))

    def put(self, layout):
        self.memo[self.number(layout)] = self.stack[-1]

    def memoize(self):
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, layout):
        self.stack.append(self.memo[self.number(layout)])

    def string(self, layout):
        piece = self.take(self.number(layout))
        self.stack.append(bytes(piece) if len(piece) < 256 else piece)

    def text(self, layout):
        self.stack.append(str(self.take(self.number(layout)), "utf-8", "surrogatepass"))

    def long(self):
        self.stack.append(int.from_bytes(self.take(self.number("<B")), "little", signed=True))

    def tuple(self, size):
        items = tuple(self.stack[-size:])
        if len(items) != size:
            raise ValueError("it is damaged (a tuple without its items)")
        self.stack[-size:] = [items]

    def tuple_since_mark(self):
        self.stack.append(tuple(self.since_mark()))

    def append(self):
        item = self.stack.pop()
        _expect(self.stack[-1], list).append(item)

    def appends(self):
        items = self.since_mark()
        _expect(self.stack[-1], list).extend(items)

    def set_item(self):
        value, key = self.stack.pop(), self.stack.pop()
        self.set_pairs([key, value])

    def set_items(self):
        self.set_pairs(self.since_mark())

    def set_pairs(self, items):
        into = _expect(self.stack[-1], dict)
        if len(items) % 2:
            raise ValueError("it is damaged (a key without its value)")
        for key, value in zip(items[::2], items[1::2]):
            into[_expect(key, (str, bytes))] = value

    def name_in_text(self):
        self.push_name(self.line(), self.line())

    def name_on_stack(self):
        name, module = self.stack.pop(), self.stack.pop()
        self.push_name(_expect(module, str), _expect(name, str))

    def push_name(self, module, name):
        if (module, name) not in _NAMES:
            full_name = f"{module}.{name}"[:80]
            raise ValueError(f"it names {full_name!a}, which no CIFAR-10 batch needs, and was not run")
        self.stack.append(_NAMES[module, name])

    def reduce(self):
        arguments, function = _expect(self.stack.pop(), tuple), self.stack.pop()
        if function is _RECONSTRUCT and arguments[0] is _NDARRAY:
            self.stack.append(_Array())
        elif function is _DTYPE:
            if _text(_expect(arguments[0], (str, bytes))) not in ("u1", "|u1"):
                raise ValueError(f"it holds an array of dtype {_text(arguments[0])[:20]!a}, not uint8")
            self.stack.append(_UINT8)
        elif function is _ENCODE:
            text, encoding = _expect(arguments[0], str), _expect(arguments[1], str)
            if encoding != "latin1":
                raise ValueError("it holds text in an encoding that no CIFAR-10 batch needs")
            self.encoded += len(text)
            if self.encoded > len(self.raw):
                raise ValueError("it expands to more than its own size")
            self.stack.append(text.encode("latin1"))
        else:
            raise ValueError("it calls something that no CIFAR-10 batch needs, which was not run")

    def build(self):
        state, target = _expect(self.stack.pop(), tuple), self.stack[-1]
        if target is _UINT8:
            return  # the rest of a dtype's state says nothing about single bytes
        if len(state) != 5:
            raise ValueError("it holds an array in a form that no CIFAR-10 batch has")
        _, shape, dtype, fortran, content = state
        if dtype is not _UINT8:
            raise ValueError("it holds an array that is not uint8")
        if len(_expect(shape, tuple)) != 2:
            raise ValueError(f"it holds an array of {len(shape)} dimensions, not 2")
        rows, columns = (_expect(length, int) for length in shape)
        content = np.frombuffer(_expect(content, (bytes, memoryview)), np.uint8)
        if rows < 0 or columns < 0 or rows * columns != content.size:
            raise ValueError(f"it holds an array of shape {rows, columns} in {content.size} bytes")
        order = "F" if fortran is True else "C"
        _expect(target, _Array).value = content.reshape((rows, columns), order=order)


def _expect(value, kind):
    if not isinstance(value, kind):
        raise TypeError
    return value


def _push(value):
    return lambda reader: reader.stack.append(value)


_INSTRUCTIONS = {
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
    ord("U"): lambda reader: reader.string("<B"),  # byte strings of Python 2
    ord("T"): lambda reader: reader.string("<i"),
    ord("C"): lambda reader: reader.string("<B"),  # bytes of Python 3
    ord("B"): lambda reader: reader.string("<I"),
    0x8E: lambda reader: reader.string("<Q"),
    0x8C: lambda reader: reader.text("<B"),
    ord("X"): lambda reader: reader.text("<I"),
    0x85: lambda reader: reader.tuple(1),
    0x86: lambda reader: reader.tuple(2),
    0x87: lambda reader: reader.tuple(3),
    ord("t"): _Reader.tuple_since_mark,
    ord("a"): _Reader.append,
    ord("e"): _Reader.appends,
    ord("s"): _Reader.set_item,
    ord("u"): _Reader.set_items,
    ord("q"): lambda reader: reader.put("<B"),
    ord("r"): lambda reader: reader.put("<I"),
    0x94: _Reader.memoize,
    ord("h"): lambda reader: reader.get("<B"),
    ord("j"): lambda reader: reader.get("<I"),
    ord("c"): _Reader.name_in_text,
    0x93: _Reader.name_on_stack,
    ord("R"): _Reader.reduce,
    ord("b"): _Reader.build,
}
