"""Counter-based random numbers.

Every number is a pure function of ``(seed, purpose, address)``. There is no
generator with a state, so a resumed run draws the same numbers as an
uninterrupted one, and logging more often changes nothing.

The function is a chain of SplitMix64 finalisers (Steele, Lea & Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014): starting from the
seed, each part of the address is combined by an exclusive or, the golden gamma
is added and the finaliser is applied. The compiled kernels implement the same
chain (``_kernels/randomness.pxi``).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._kernels import processor
from ._typing import IntArray

INITIALISATION = processor.PURPOSE_INITIALISATION
SHUFFLE = processor.PURPOSE_SHUFFLE
AUGMENTATION = processor.PURPOSE_AUGMENTATION
DROPOUT = processor.PURPOSE_DROPOUT
SHAPES = processor.PURPOSE_SHAPES
SEARCH = processor.PURPOSE_SEARCH

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


def random_bits(seed: int, purpose: int, *address: int | IntArray) -> NDArray[np.uint64]:
    """64 random bits for every address.

    Parameters
    ----------
    seed : int
        Taken modulo 2**64.
    purpose : int
        One of this module's constants; makes different uses independent.
    *address : int or array of int
        Broadcast against each other.

    Returns
    -------
    ndarray of uint64
        Has the broadcast shape of ``address``.

    Examples
    --------
    >>> bits = random_bits(0, SHUFFLE, 3, np.arange(5))
    >>> bits.shape, bits.dtype
    ((5,), dtype('uint64'))
    """
    with np.errstate(over="ignore"):
        bits = _mix(np.uint64(seed % 2**64) + _GOLDEN)
        for part in (purpose, *address):
            part = np.asarray(part)
            bits = _mix((bits ^ part.astype(np.uint64)) + _GOLDEN)
    return np.asarray(bits)


def _mix(z: Any) -> Any:
    z = (z ^ (z >> np.uint64(30))) * _MULTIPLIER_1
    z = (z ^ (z >> np.uint64(27))) * _MULTIPLIER_2
    return z ^ (z >> np.uint64(31))


def uniform(seed: int, purpose: int, *address: int | IntArray) -> NDArray[np.float64]:
    """Uniform float64 numbers in [0, 1), multiples of 2**-53, one for every address."""
    return (random_bits(seed, purpose, *address) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def standard_normal(seed: int, purpose: int, *address: int | IntArray) -> NDArray[np.float64]:
    """Standard normal float64 numbers, one for every address (Box & Muller 1958, the cosine half)."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform(seed, purpose, *address, 0)))
    return radius * np.cos(2.0 * np.pi * uniform(seed, purpose, *address, 1))
