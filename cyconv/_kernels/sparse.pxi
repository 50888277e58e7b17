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
# tile of the others, and takes only the steps that matter.

cdef extern from *:
    """
    #if defined(__GNUC__)
    static inline int cy_lowest(unsigned long long bits) { return __builtin_ctzll(bits); }
    #else
    static inline int cy_lowest(unsigned long long bits)
    {
      int q = 0;
      while (!(bits >> q & 1)) q++;
      return q;
    }
    #endif
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
    int lowest "cy_lowest"(uint64) noexcept nogil                       # the number of the lowest bit that is set
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


cdef struct Products:           # what add_rows adds up
    idx n                       # rows, at most WORD
    const uint64* words         # a bit for each factor of a row that counts
    idx a_row, a_q              # from row to row, and from bit to bit, in a
    idx ld_b, ld_start, ld_c, ld_ahead


cdef inline void add_vectors(int groups, int each, const Products* of, const real* a, const real* b, const real* start,
                             real* c, const real* ahead) noexcept nogil:
    """add_rows for groups*each vectors; the compiler unrolls no loop of more than seven"""
    cdef real t[3][7][MAX_LANES]
    cdef int u, v, lane, lanes = lanes_of(a)
    cdef idx r, a_row = of.a_row, a_q = of.a_q, ld_b = of.ld_b, ld_c = of.ld_c, ld_start = of.ld_start
    cdef uint64 bits
    cdef const real* factor
    cdef const real* row
    for r in range(of.n):
        if ahead != NULL:
            for v in range(groups*each):
                PREFETCH(ahead + r*of.ld_ahead + v*lanes)
        for u in range(groups):
            for v in range(each):
                for lane in range(lanes):
                    t[u][v][lane] = start[r*ld_start + (u*each + v)*lanes + lane]
        bits = of.words[r]
        while bits:
            factor = a + r*a_row + lowest(bits)*a_q
            row = b + lowest(bits)*ld_b
            bits &= bits - 1
            for u in range(groups):
                for v in range(each):
                    for lane in range(lanes):
                        t[u][v][lane] += factor[0]*row[(u*each + v)*lanes + lane]
        for u in range(groups):
            for v in range(each):
                for lane in range(lanes):
                    c[r*ld_c + (u*each + v)*lanes + lane] = t[u][v][lane]


cdef void add_rows(idx vectors, const Products* of, const real* a, const real* b, const real* start, real* c,
                   const real* ahead) noexcept nogil:
    """rows of at most sparse_of vectors"""
    cdef int limit = sparse_of(a)
    if limit >= 10 and vectors == 10:
        add_vectors(2, 5, of, a, b, start, c, ahead)
    elif limit >= 10 and vectors == 9:
        add_vectors(3, 3, of, a, b, start, c, ahead)
    elif limit >= 10 and vectors == 8:
        add_vectors(2, 4, of, a, b, start, c, ahead)
    elif limit >= 10 and vectors == 7:
        add_vectors(1, 7, of, a, b, start, c, ahead)
    elif limit >= 10 and vectors == 6:
        add_vectors(1, 6, of, a, b, start, c, ahead)
    elif limit >= 5 and vectors == 5:
        add_vectors(1, 5, of, a, b, start, c, ahead)
    elif limit >= 5 and vectors == 4:
        add_vectors(1, 4, of, a, b, start, c, ahead)
    elif limit >= 5 and vectors == 3:
        add_vectors(1, 3, of, a, b, start, c, ahead)
    elif vectors == 2:
        add_vectors(1, 2, of, a, b, start, c, ahead)
    else:
        add_vectors(1, 1, of, a, b, start, c, ahead)
