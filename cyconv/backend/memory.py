"""Allocation of arrays, within the memory limit of this process."""

import math

import numpy as np
from numpy.typing import DTypeLike

from .._checks import check_memory
from .._typing import AnyArray


def new_array(what: str, shape: tuple[int, ...], dtype: DTypeLike) -> AnyArray:
    """An uninitialised array; MemoryError if it does not fit in memory."""
    check_memory(what, math.prod(shape) * np.dtype(dtype).itemsize)
    return np.empty(shape, dtype)


def aligned_zeros(n: int, dtype: DTypeLike, what: str) -> AnyArray:
    """A zero vector aligned to a cache line; MemoryError if it does not fit in memory."""
    dtype = np.dtype(dtype)
    check_memory(what, n * dtype.itemsize + 64)
    raw = np.zeros(n * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n * dtype.itemsize].view(dtype)
