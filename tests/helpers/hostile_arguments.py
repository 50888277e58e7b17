"""What a caller may pass: valid values in unusual forms, and invalid ones."""

import fractions

import numpy as np
from hypothesis import strategies as st

import cyconv


class Subclass(np.ndarray):
    """An array of another class."""


class ArrayLike:
    """Not an array, but it converts to one."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def negative_strides(array):
    return np.flip(np.flip(array).copy())


def with_gaps(array):
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def misaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    copy = raw[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def on_one_element(array):
    """Writable, and every element is the same."""
    return np.lib.stride_tricks.as_strided(array.copy(), array.shape, (0,) * array.ndim)


def windows(array):
    """Writable, and neighbours share their elements."""
    copy = array.copy()
    fits = array.ndim > 1 and array.size > sum(array.shape)
    return np.lib.stride_tricks.as_strided(copy, array.shape, (copy.itemsize,) * array.ndim) if fits else copy


def first_repeated(array):
    return np.broadcast_to(array[:1], array.shape)


#: The same values, or at least the same shape and kind, in another form.
FORMS = [
    *(np.asarray, np.asfortranarray, negative_strides, with_gaps, misaligned, read_only, first_repeated),
    *(on_one_element, windows, ArrayLike, memoryview, np.ma.masked_array),
    lambda array: array.view(Subclass),
    lambda array: array.tolist(),
    lambda array: array.astype(array.dtype.newbyteorder()),
    lambda array: array.transpose().copy().transpose(),
]


def raising(*names):
    """An object whose methods of these names raise an error of two lines."""

    def fail(self, *args, **options):
        raise RuntimeError("first line\nsecond line")

    return type("Raising", (), dict.fromkeys(names, fail))()


HUGE = np.broadcast_to(np.float32(1), (2**20, 3, 2**10, 2**10))
#: Values of every kind that few arguments may have.
ODD = [
    *(None, True, False, 0, 1, 2, 3, -1, 255, 2**31 - 1, 2**31, 2**63, 2**64, 10**9, 10**30, 10**5000),
    *(0.0, 0.5, 1.5, -0.5, 1e-320, 1e39, 1e308, float("nan"), float("inf"), -float("inf")),
    *(1j, fractions.Fraction(1, 3)),
    *(np.float32(0.25), np.int8(-3), np.uint64(2**64 - 1), np.float16(0.5), np.longdouble("1e4000"), np.bool_(True)),
    *(np.timedelta64(3), np.datetime64("2020"), np.ma.masked),
    *("", "x", "float64", "\0", "x" * 5000, b"x", b"\xff"),
    *((), [], {}, set(), [1], [[1], [1, 2]], [None], [[]] * 3, (3, 32, 32), (-1, 0, 3), [10**30]),
    *({"conv.weight": 1}, {1: 2}, range(3), range(10**12), range(10**30), iter([1, 2]), slice(3), Ellipsis),
    *(object(), print, int, NotImplemented, np.float32, lambda: None, cyconv.Augmentation(shift=3)),
    *(raising(name) for name in ("__array__", "__index__", "__float__", "__iter__", "__repr__", "__bool__")),
    *(raising("__len__", "__getitem__"), raising("__fspath__"), raising("keys")),
    *(HUGE, np.broadcast_to(np.uint8(1), HUGE.shape), np.array(3), np.array(0.5), np.array(None)),
    *(np.zeros(0), np.zeros((0, 3, 8, 8), np.float32), np.zeros((2, 0, 8, 8), np.uint8), np.zeros((3, 0), int)),
    *(np.zeros((1,) * 32), np.ones((2, 3), complex), np.ones(5, bool), np.ones(4, "M8[s]"), np.ones(4, "S3")),
    *(np.array(["a", "b"]), np.array([1, None]), np.zeros(3, [("a", int)]), np.array([2**64 - 1], np.uint64)),
    *(np.ma.masked_array([1.0, 2.0], [True, False]), np.array([-1, 2**40])),
]


def other_dtypes(array):
    for dtype in ("f2", "f4", "f8", "g", "i1", "i8", "u1", "u8", "c8", "?", "O", "U8", "m8[s]"):
        yield array.astype(dtype)


def other_shapes(array):
    for axis in range(array.ndim):
        if array.shape[axis]:
            yield np.delete(array, 0, axis)
            yield np.take(array, 0, axis)
        yield np.concatenate([array, array], axis)
    yield from (array[None], array.T, array[:0], array.reshape(-1), array.reshape(*array.shape, 1))


def other_numbers(array):
    """With one element that is, or may be, out of range."""
    if not array.size or array.dtype.kind not in "fiu":
        return
    if array.dtype.kind == "f":
        limits = np.finfo(array.dtype)
        bad = [np.nan, np.inf, -np.inf, limits.max, limits.tiny, -1]
    else:
        limits = np.iinfo(array.dtype)
        largest = int(array.max())
        bad = [limits.min, limits.max, limits.max // 2, int(array.min()) - 1, *(largest + i for i in (1, 3, 10, 1000))]
        bad = [number for number in bad if limits.min <= number <= limits.max]
    for number in bad:
        copy = array.copy()
        copy.flat[copy.size // 2] = number
        yield copy


def masked(array):
    """With one element masked."""
    mask = np.zeros(array.shape, bool)
    mask.flat[:1] = True
    yield np.ma.masked_array(array, mask)


def nearby(value):
    """Every value that differs a little from a valid one."""
    if isinstance(value, dict):
        for name, each in value.items():
            others = {key: other for key, other in value.items() if key != name}
            yield others
            yield from ({**others, name: spoilt} for spoilt in nearby(each))
    elif isinstance(value, np.ndarray) and value.ndim:
        with np.errstate(all="ignore"):
            for spoilt in (other_dtypes, other_shapes, other_numbers, masked):
                yield from spoilt(value)


def spoil(value, rng):
    """Another value instead of this one: similar to it, or of any kind."""
    choices = list(nearby(value)) if rng.random() < 0.7 else ODD
    choices = choices or ODD
    return choices[int(rng.integers(len(choices)))]


def in_other_form(value, rng):
    """The same value in a random one of the FORMS."""
    if isinstance(value, dict):
        return {name: in_other_form(each, rng) for name, each in value.items()}
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        return value
    return FORMS[int(rng.integers(len(FORMS)))](value)


@st.composite
def hostile(draw, valid):
    """Arguments by name: some in another form, some in each other's place, up to two of them invalid.

    ``valid(rng)`` gives valid ones.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    arguments = valid(rng)
    names = list(arguments)
    for name in names:
        if draw(st.booleans()):
            arguments[name] = in_other_form(arguments[name], rng)
    for name in draw(st.lists(st.sampled_from(names), max_size=2, unique=True)):
        arguments[name] = spoil(arguments[name], rng)
    if draw(st.integers(0, 7)) == 7:
        arguments[draw(st.sampled_from(names))] = arguments[draw(st.sampled_from(names))]
    return arguments


def plain(value):
    """A plain copy of an accepted value: a native array in C order for whatever stands for an array."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    if isinstance(value, fractions.Fraction):
        return float(value)
    if isinstance(value, (np.ndarray, ArrayLike, memoryview, list, tuple, range)):
        array = np.array(np.asarray(value))
        return array.astype(array.dtype.newbyteorder("="))
    return value


def bits(value):
    """The bytes of an argument, which a call must not change."""
    if isinstance(value, dict):
        return {name: bits(each) for name, each in value.items()}
    if isinstance(value, ArrayLike):
        value = value.array
    if not isinstance(value, np.ndarray) or value.nbytes > 10**7 or value.dtype.hasobject or value is np.ma.masked:
        return None
    return value.tobytes()
