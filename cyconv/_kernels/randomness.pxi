# Addressed randomness: the same chain of SplitMix64 finalisers as cyconv/randomness.py.

ctypedef unsigned long long uint64


cdef inline uint64 mix(uint64 z) noexcept nogil:
    z = (z ^ (z >> 30))*<uint64>0xBF58476D1CE4E5B9ULL
    z = (z ^ (z >> 27))*<uint64>0x94D049BB133111EBULL
    return z ^ (z >> 31)


cdef inline uint64 address(uint64 bits, uint64 part) noexcept nogil:
    """bits at the address one part further"""
    return mix((bits ^ part) + <uint64>0x9E3779B97F4A7C15ULL)


cdef inline uint64 seed_bits(uint64 seed, uint64 purpose) noexcept nogil:
    return address(mix(seed + <uint64>0x9E3779B97F4A7C15ULL), purpose)


def shuffled_order(long long[::1] order, uint64 seed, uint64 epoch):
    """Fill ``order`` with a permutation of 0..n-1: Fisher & Yates, one addressed number a swap."""
    cdef idx n = order.shape[0], i, j
    cdef uint64 bits
    cdef long long t
    with nogil:
        bits = address(seed_bits(seed, PURPOSE_SHUFFLE), epoch)
        for i in range(n):
            order[i] = i
        for i in range(n - 1, 0, -1):
            j = <idx>(((address(bits, <uint64>i) >> 32)*<uint64>(i + 1)) >> 32)
            t = order[i]
            order[i] = order[j]
            order[j] = t
