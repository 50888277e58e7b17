# Sparse: the third inner loop, for factors of which many are zero. ReLU leaves half of a layer's units at zero, and
# what flows back through them.
#
# What is computed
#   nonzero     a word with a bit for each of up to 64 numbers, set where it is not 0 (NaN is not)
#   add_rows    c[r] = start[r] + sum over the bits q of words[r], in their order, of a[r, q] * b[q]; rows of vectors.
#               Each prefetches the lines of a row at `ahead`, if that is not NULL.
#   transpose_bits  64 words of 64 bits, rows to columns: halves of ever smaller blocks change places
# A factor of zero adds nothing, whatever it would be multiplied with. The vectors of a row c are kept in registers;
# those of b must come from the first-level cache, since every product reads one. Up to there this loop is as fast as a
# tile of the others, and takes only the steps that matter. It is in tiles_of.h, with a function for each width of c.

cdef extern from *:
    """
    static inline void cy_change_halves(unsigned long long *words, int half, unsigned long long low)
    {
      for (int block = 0; block < 64; block += 2*half)
        for (int i = block; i < block + half; i++) {
          unsigned long long change = (words[i] >> half ^ words[i + half]) & low;
          words[i] ^= change << half;
          words[i + half] ^= change;
        }
    }
    static void cy_transpose(unsigned long long *words)
    {
      cy_change_halves(words, 32, 0x00000000FFFFFFFFULL);
      cy_change_halves(words, 16, 0x0000FFFF0000FFFFULL);
      cy_change_halves(words, 8, 0x00FF00FF00FF00FFULL);
      cy_change_halves(words, 4, 0x0F0F0F0F0F0F0F0FULL);
      cy_change_halves(words, 2, 0x3333333333333333ULL);
      cy_change_halves(words, 1, 0x5555555555555555ULL);
    }
    """
    void transpose_bits "cy_transpose"(uint64*) noexcept nogil

cdef enum:
    WORD = 64
    MAX_SPARSE = 10         # vectors of a row, at most
    SPARSE_BYTES = 32768    # of rows that stay in the first-level cache


cdef inline int sparse_of(const real* tag) noexcept nogil:
    """vectors of a row, at most: as many as registers hold"""
    if real is float:
        return SPARSE_FLOAT
    else:
        return SPARSE_DOUBLE


cdef inline idx first_vectors(idx limit, idx n_vectors) noexcept nogil:
    """how many of n_vectors to take first, so that each chunk has as many, or one more, and none more than the limit"""
    return n_vectors//((n_vectors + limit - 1)//limit)


cdef inline idx sparse_rows(const real* tag) noexcept nogil:
    """how many rows of sparse_of vectors stay in the first-level cache"""
    return min(WORD, SPARSE_BYTES//(sparse_of(tag)*lanes_of(tag)*<idx>sizeof(real)))


cdef inline uint64 all_of(idx n) noexcept nogil:
    return ~<uint64>0 >> (WORD - n)


cdef inline uint64 nonzero(idx n, const real* values) noexcept nogil:
    """n is at most WORD; as many as PAD divides are read"""
    cdef uint64 bits = 0
    cdef unsigned int sixteen
    cdef idx q
    cdef int lane
    for q in range((n + PAD - 1)//PAD):
        sixteen = 0
        for lane in range(PAD):
            sixteen |= <unsigned int>(values[q*PAD + lane] != 0) << lane
        bits |= <uint64>sixteen << q*PAD
    return bits & all_of(n)


cdef inline void clear_row(real* row) noexcept nogil:
    cdef int q
    for q in range(MAX_SPARSE*MAX_LANES):
        row[q] = 0


cdef inline void add_rows(idx vectors, const Products* of, const real* a, const real* b, const real* start, real* c,
                          const real* ahead) noexcept nogil:
    """rows of at most sparse_of vectors"""
    if real is float:
        add_rows_float(vectors, of, a, b, start, c, ahead)
    else:
        add_rows_double(vectors, of, a, b, start, c, ahead)
