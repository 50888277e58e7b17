# Dropout, inverted: what is kept is scaled up, so that evaluation needs nothing of it.
#
# What is computed, for unit j of image i of the batch, in one update and layer
#   a <- 0 where bits(seed, update, i, layer, j) < dropout*2**32, else a/(1 - dropout)
#
# Layout
#   Rows of units, `ld` apart. A word of 64 addressed bits serves two neighbours.
#
# Order
#   No sums: every unit's number is a function of its address, so that threads and resumed runs draw alike.
#
# Ownership
#   None.

cdef void drop_units(idx n, idx n_units, idx ld, real* a, double dropout, uint64 step_bits, idx first,
                     idx layer) noexcept nogil:
    """inverted dropout; 32 addressed bits a unit"""
    cdef idx i, j
    cdef uint64 bits, row_bits
    cdef uint64 threshold = <uint64>(dropout*4294967296.0)
    cdef real scale = <real>(1.0/(1.0 - dropout))
    for i in range(n):
        row_bits = address(address(step_bits, <uint64>(first + i)), <uint64>layer)
        for j in range((n_units + 1)//2):
            bits = address(row_bits, <uint64>j)
            a[i*ld + 2*j] = 0 if (bits & <uint64>0xffffffff) < threshold else a[i*ld + 2*j]*scale
            if 2*j + 1 < n_units:
                a[i*ld + 2*j + 1] = 0 if (bits >> 32) < threshold else a[i*ld + 2*j + 1]*scale
