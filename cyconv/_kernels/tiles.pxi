# Tiles: the two inner loops of dense products; the third, for factors of which many are zero, is in sparse.pxi.
#
# What is computed
#   outer_accumulate   acc[i][v] = sum_k a[i, k] * b[k, v]      one scalar of a times vectors of b
#   dot_accumulate     acc[i][j] += sum_k a[i, k] * b[j, k]     vectors of both, lanes kept apart
# Both hold a small block of results in a local array whose bounds are
# compile-time constants: every loop over it is unrolled and the compiler keeps
# it in vector registers for the whole of the k loop. A bound that is not a
# constant turns the block into memory traffic, ten times slower.
#
# Order of sums
#   An element of an outer tile is one chain over k, in order. An element of a
#   dot tile is LANES chains over k, folded pairwise (0+1, 2+3, ...) at the end.
#   Neither depends on the number of threads.
#
# Between threads
#   What one thread writes and another reads, update after update, is written by non-temporal stores (`stream`): two
#   cores that do not share a cache would pass every line to and fro.
#
# Ownership
#   Tiles own nothing. Pointers that they take point to rows whose length in
#   lanes is padded with zeros to a multiple of PAD elements.

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    /* A "vector" is CY_LANES elements, at least 8 (one or more registers): shorter
       loops would be unrolled before they are vectorised. Tile sizes fill the
       registers that the instruction set has: 32 (AVX-512, arm64) or 16. */
    #if defined(__AVX512F__)
      #define CY_LANES_FLOAT 16
      #define CY_ROWS 5
      #define CY_VECTORS_FLOAT 4
      #define CY_VECTORS_DOUBLE 4
      #define CY_DOT_ROWS_FLOAT 5
      #define CY_DOT_ROWS_DOUBLE 5
      #define CY_SPARSE_FLOAT 10
      #define CY_SPARSE_DOUBLE 10
    #elif defined(__AVX2__) || defined(__aarch64__)
      #define CY_LANES_FLOAT 8
      #define CY_ROWS 5
      #define CY_VECTORS_FLOAT 2
      #define CY_VECTORS_DOUBLE 1
      #define CY_DOT_ROWS_FLOAT 2
      #define CY_DOT_ROWS_DOUBLE 1
      #define CY_SPARSE_FLOAT 10
      #define CY_SPARSE_DOUBLE 5
    #else
      #define CY_LANES_FLOAT 8
      #define CY_ROWS 2
      #define CY_VECTORS_FLOAT 2
      #define CY_VECTORS_DOUBLE 1
      #define CY_DOT_ROWS_FLOAT 2
      #define CY_DOT_ROWS_DOUBLE 1
      #define CY_SPARSE_FLOAT 5
      #define CY_SPARSE_DOUBLE 2
    #endif
    #include <string.h>
    #if defined(__SSE2__)
      #include <immintrin.h>
    #endif
    /* Non-temporal stores. n is a multiple of a vector's bytes (64 with AVX-512, else 32), and so is the address. */
    static inline void cy_stream(void *to, const void *from, ptrdiff_t n)
    {
    #if defined(__AVX512F__)
      for (ptrdiff_t i = 0; i < n; i += 64)
        _mm512_stream_si512((__m512i *)((char *)to + i), _mm512_loadu_si512((const char *)from + i));
    #elif defined(__AVX__)
      for (ptrdiff_t i = 0; i < n; i += 32)
        _mm256_stream_si256((__m256i *)((char *)to + i), _mm256_loadu_si256((const __m256i *)((const char *)from + i)));
    #elif defined(__SSE2__)
      for (ptrdiff_t i = 0; i < n; i += 16)
        _mm_stream_si128((__m128i *)((char *)to + i), _mm_loadu_si128((const __m128i *)((const char *)from + i)));
    #else
      memcpy(to, from, n);
    #endif
    }
    static inline void cy_stream_end(void)
    {
    #if defined(__SSE2__)
      _mm_sfence();
    #endif
    }
    /* fold_lanes in registers, for AVX-512: two vectors give one that holds the sums of their neighbours, until 16 (8)
       vectors have given one of 16 (8) sums. What is missing in the last group is filled up with what is there. */
    #if defined(__AVX512F__)
      #define CY_FOLDS 1
    static inline __m512 cy_near_float(__m512 a, __m512 b)
    { return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD)); }
    static inline __m512 cy_far_float(__m512 a, __m512 b)
    { return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD)); }
    static inline __m512d cy_near_double(__m512d a, __m512d b)
    { return _mm512_add_pd(_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b)); }
    static inline __m512d cy_far_double(__m512d a, __m512d b)
    { return _mm512_add_pd(_mm512_shuffle_f64x2(a, b, 0x88), _mm512_shuffle_f64x2(a, b, 0xDD)); }
    static inline __attribute__((always_inline)) void cy_fold_float(int n, const float *z, float *out)
    {
      __m512 quad[8];
      #pragma GCC unroll 16
      for (int q = 0; q < 8 && 4*q < n; q++) {
        __m512 v[4];
        #pragma GCC unroll 16
        for (int i = 0; i < 4; i++) v[i] = _mm512_loadu_ps(z + 16*(4*q + i < n ? 4*q + i : 4*q));
        quad[q] = cy_near_float(cy_near_float(v[0], v[1]), cy_near_float(v[2], v[3]));
      }
      #pragma GCC unroll 16
      for (int s = 0; s < 2 && 16*s < n; s++) {
        __m512 w[4];
        #pragma GCC unroll 16
        for (int i = 0; i < 4; i++) w[i] = quad[16*s + 4*i < n ? 4*s + i : 4*s];
        _mm512_storeu_ps(out + 16*s, cy_far_float(cy_far_float(w[0], w[1]), cy_far_float(w[2], w[3])));
      }
    }
    static inline __attribute__((always_inline)) void cy_fold_double(int n, const double *z, double *out)
    {
      __m512d pair[13];
      #pragma GCC unroll 16
      for (int q = 0; q < 13 && 2*q < n; q++)
        pair[q] = cy_near_double(_mm512_loadu_pd(z + 16*q), _mm512_loadu_pd(z + 8*(2*q + 1 < n ? 2*q + 1 : 2*q)));
      #pragma GCC unroll 16
      for (int s = 0; s < 4 && 8*s < n; s++) {
        __m512d w[4];
        #pragma GCC unroll 16
        for (int i = 0; i < 4; i++) w[i] = pair[8*s + 2*i < n ? 4*s + i : 4*s];
        _mm512_storeu_pd(out + 8*s, cy_far_double(cy_far_double(w[0], w[1]), cy_far_double(w[2], w[3])));
      }
    }
    #else
      #define CY_FOLDS 0
    static inline void cy_fold_float(int n, const float *z, float *out) { (void)n; (void)z; (void)out; }
    static inline void cy_fold_double(int n, const double *z, double *out) { (void)n; (void)z; (void)out; }
    #endif
    #if defined(__GNUC__)
      #define CY_ASSUME(condition) do { if (!(condition)) __builtin_unreachable(); } while (0)
      #define CY_PREFETCH(address) __builtin_prefetch((address), 0, 2)
    #else
      #define CY_ASSUME(condition) ((void)0)
      #define CY_PREFETCH(address) ((void)0)
    #endif
    """
    enum:
        LANES_FLOAT "CY_LANES_FLOAT"
        ROWS "CY_ROWS"                    # rows of an outer tile; units of a dot tile
        VECTORS_FLOAT "CY_VECTORS_FLOAT"  # vectors across an outer tile; columns of a filter-gradient tile
        VECTORS_DOUBLE "CY_VECTORS_DOUBLE"
        DOT_ROWS_FLOAT "CY_DOT_ROWS_FLOAT"      # rows of a in a dot tile
        DOT_ROWS_DOUBLE "CY_DOT_ROWS_DOUBLE"
        SPARSE_FLOAT "CY_SPARSE_FLOAT"          # vectors of a row that sparse products are added to
        SPARSE_DOUBLE "CY_SPARSE_DOUBLE"
        FOLDS "CY_FOLDS"                  # whether lanes are folded in registers
    void ASSUME "CY_ASSUME"(bint) noexcept nogil
    void PREFETCH "CY_PREFETCH"(const void*) noexcept nogil

    void fold_float "cy_fold_float"(int, const float*, float*) noexcept nogil
    void fold_double "cy_fold_double"(int, const double*, double*) noexcept nogil
    void stream_bytes "cy_stream"(void*, const void*, Py_ssize_t) noexcept nogil
    void end_stream "cy_stream_end"() noexcept nogil    # what was streamed is seen before what is stored next

ctypedef Py_ssize_t idx

ctypedef fused real:
    float
    double

cdef enum:
    LANES_DOUBLE = 8
    MAX_LANES = 16
    MAX_ROWS = TILE_ROWS
    MAX_VECTORS = 4
    MAX_FOLDED = 32     # MAX_ROWS*MAX_ROWS, padded to PAD
    CHUNK_BYTES = 3200  # of a row: what a dot tile takes at a time, at most


cdef inline int lanes_of(const real* tag) noexcept nogil:
    if real is float:
        return LANES_FLOAT
    else:
        return LANES_DOUBLE


cdef inline int vectors_of(const real* tag) noexcept nogil:
    if real is float:
        return VECTORS_FLOAT
    else:
        return VECTORS_DOUBLE


cdef inline int dot_rows_of(const real* tag) noexcept nogil:
    if real is float:
        return DOT_ROWS_FLOAT
    else:
        return DOT_ROWS_DOUBLE


cdef inline void outer_accumulate(int rows, int vectors, idx n_k, const real* a, idx a_row, const real* b, idx b_v,
                                  idx b_k, const char* ahead, idx ahead_step, real* acc) noexcept nogil:
    """acc[i][v][lane] = sum_k a[i*a_row + k] * b[v*b_v + k*b_k + lane]

    `ahead` requests one cache line a turn, of what is needed next: there the request costs nothing.
    """
    cdef real t[MAX_ROWS][MAX_VECTORS][MAX_LANES]
    cdef int i, v, lane, lanes = lanes_of(a)
    cdef idx k
    for i in range(rows):
        for v in range(vectors):
            for lane in range(lanes):
                t[i][v][lane] = 0
    ASSUME(n_k > 0)
    for k in range(n_k):
        PREFETCH(ahead + k*ahead_step)
        for i in range(rows):
            for v in range(vectors):
                for lane in range(lanes):
                    t[i][v][lane] += a[i*a_row + k] * b[v*b_v + k*b_k + lane]
    for i in range(rows):
        for v in range(vectors):
            for lane in range(lanes):
                acc[(i*MAX_VECTORS + v)*MAX_LANES + lane] = t[i][v][lane]


cdef inline void dot_accumulate(int rows, int columns, bint first, idx n_k, const real* a, idx a_row, const real* b,
                                idx b_row, const char* ahead, idx ahead_step, real* z) noexcept nogil:
    """z[i][j][lane] (+)= sum_k a[i*a_row + k*lanes + lane] * b[j*b_row + k*lanes + lane]; `ahead` as above"""
    cdef real t[MAX_ROWS][MAX_ROWS][MAX_LANES]
    cdef int i, j, lane, lanes = lanes_of(a)
    cdef idx k
    for i in range(rows):
        for j in range(columns):
            for lane in range(lanes):
                t[i][j][lane] = 0 if first else z[(i*columns + j)*lanes + lane]
    ASSUME(n_k > 0)
    for k in range(n_k):
        PREFETCH(ahead + k*ahead_step)
        for i in range(rows):
            for j in range(columns):
                for lane in range(lanes):
                    t[i][j][lane] += a[i*a_row + k*lanes + lane] * b[j*b_row + k*lanes + lane]
    for i in range(rows):
        for j in range(columns):
            for lane in range(lanes):
                z[(i*columns + j)*lanes + lane] = t[i][j][lane]


cdef inline void stream(idx n, const real* values, real* out) noexcept nogil:
    """out = values, a whole number of vectors, by non-temporal stores: a line that another thread has read need not be
    taken back from its cache, which costs ten times the store"""
    stream_bytes(out, values, n*<idx>sizeof(real))


cdef inline void fold_pairs(idx n, const real* z, real* out) noexcept nogil:
    cdef idx q
    for q in range(n):
        out[q] = z[2*q] + z[2*q + 1]


cdef inline void fold_lanes(int n, const real* z, real* out) noexcept nogil:
    """out[q] = sum over lanes of z[q][lane], pairwise; n at most MAX_ROWS*MAX_ROWS; out has room for MAX_FOLDED"""
    cdef real half[MAX_ROWS*MAX_ROWS*4]
    cdef real quarter[MAX_ROWS*MAX_ROWS*2]
    if FOLDS:
        if real is float:
            fold_float(n, z, out)
        else:
            fold_double(n, z, out)
    else:               # eight lanes
        fold_pairs(n*4, z, half)
        fold_pairs(n*2, half, quarter)
        fold_pairs(n, quarter, out)


cdef inline real sum_lanes(const real* z) noexcept nogil:
    """sum over the lanes of one vector, pairwise"""
    cdef real folded[MAX_FOLDED]
    fold_lanes(1, z, folded)
    return folded[0]
