# Tiles: the inner loops of all products, for either type; the loops themselves are in tiles.h.
#
# What is computed
#   outer_accumulate     acc[i][v] = sum_k a[i, k] * b[k, v]        one scalar of a times vectors of b
#   dot_accumulate       z[i][j] (+)= sum_k a[i, k] * b[j, k]       vectors of both, lanes kept apart
#   filters_accumulate   z[i][j] = sum over images of sum_q g[i, q] * x[j, q]   likewise
#   fold_lanes           the lanes of each z[q] added up
# The sizes of a tile must be constants where these are called: every loop over it is unrolled, and the tile stays in
# registers. A size that is not a constant turns it into memory traffic, ten times slower.
#
# Order of sums
#   An element of an outer tile is one chain over k, in order. An element of a dot tile is a chain for each lane, folded
#   pairwise (0+1, 2+3, ...) at the end. Neither depends on the number of threads.
#
# Between threads
#   What one thread writes and another reads, update after update, is written by non-temporal stores (`stream`): two
#   cores that do not share a cache would pass every line to and fro.
#
# Ownership
#   Tiles own nothing. Pointers that they take point to rows whose length in lanes is padded with zeros to a multiple of
#   PAD elements.

ctypedef Py_ssize_t idx

ctypedef fused real:
    float
    double

cdef extern from "tiles.h":
    enum:
        REGISTER_BYTES "CY_BYTES"
        LANES_FLOAT "CY_LANES_FLOAT"
        ROWS "CY_ROWS"                    # rows of an outer tile; units of a dot tile
        VECTORS_FLOAT "CY_VECTORS_FLOAT"  # vectors across an outer tile; columns of a filter-gradient tile
        VECTORS_FEW "CY_VECTORS_FEW"      # the same for three filters or fewer
        VECTORS_DOUBLE "CY_VECTORS_DOUBLE"
        DOT_ROWS_FLOAT "CY_DOT_ROWS_FLOAT"      # rows of a in a dot tile
        DOT_ROWS_DOUBLE "CY_DOT_ROWS_DOUBLE"
        CHAINS "CY_CHAINS"
        SPARSE_FLOAT "CY_SPARSE_FLOAT"          # vectors of a row that sparse products are added to
        SPARSE_DOUBLE "CY_SPARSE_DOUBLE"
    void outer_float "cy_outer_float"(int, int, idx, const float*, idx, const float*, idx, idx, const char*, idx,
                                      float*) noexcept nogil
    void outer_double "cy_outer_double"(int, int, idx, const double*, idx, const double*, idx, idx, const char*, idx,
                                        double*) noexcept nogil
    void dot_float "cy_dot_float"(int, int, bint, idx, const float*, idx, const float*, idx, const char*, idx,
                                  float*) noexcept nogil
    void dot_double "cy_dot_double"(int, int, bint, idx, const double*, idx, const double*, idx, const char*, idx,
                                    double*) noexcept nogil
    void filters_float "cy_filters_float"(int, int, idx, idx, const float*, idx, const float*, idx, idx,
                                          float*) noexcept nogil
    void filters_double "cy_filters_double"(int, int, idx, idx, const double*, idx, const double*, idx, idx,
                                            double*) noexcept nogil
    ctypedef struct Products "struct cy_products":
        idx n
        const unsigned long long* words
        idx a_row, a_q, ld_b, ld_start, ld_c, ld_ahead
    void add_rows_float "cy_add_rows_float"(idx, const Products*, const float*, const float*, const float*, float*,
                                            const float*) noexcept nogil
    void add_rows_double "cy_add_rows_double"(idx, const Products*, const double*, const double*, const double*,
                                              double*, const double*) noexcept nogil
    void fold_float "cy_fold_float"(int, const float*, float*) noexcept nogil
    void fold_double "cy_fold_double"(int, const double*, double*) noexcept nogil
    float probe_float "cy_probe_float"(idx, const float*) noexcept nogil
    double probe_double "cy_probe_double"(idx, const double*) noexcept nogil
    void stream_bytes "cy_stream"(void*, const void*, idx) noexcept nogil
    void end_stream "cy_stream_end"() noexcept nogil    # what was streamed is seen before what is stored next

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
    if real is float:
        outer_float(rows, vectors, n_k, a, a_row, b, b_v, b_k, ahead, ahead_step, acc)
    else:
        outer_double(rows, vectors, n_k, a, a_row, b, b_v, b_k, ahead, ahead_step, acc)


cdef inline void dot_accumulate(int rows, int columns, bint first, idx n_k, const real* a, idx a_row, const real* b,
                                idx b_row, const char* ahead, idx ahead_step, real* z) noexcept nogil:
    """z[i][j][lane] (+)= sum_k a[i*a_row + k*lanes + lane] * b[j*b_row + k*lanes + lane]; `ahead` as above"""
    if real is float:
        dot_float(rows, columns, first, n_k, a, a_row, b, b_row, ahead, ahead_step, z)
    else:
        dot_double(rows, columns, first, n_k, a, a_row, b, b_row, ahead, ahead_step, z)


cdef inline void filters_accumulate(int rows, int columns, idx n_images, idx n_q, const real* g, idx g_size,
                                    const real* x, idx x_size, idx ld, real* z) noexcept nogil:
    """z[i][j][lane] = sum over images and q of g[image*g_size + i*ld + q*lanes + lane]
    * x[image*x_size + j*ld + q*lanes + lane]"""
    if real is float:
        filters_float(rows, columns, n_images, n_q, g, g_size, x, x_size, ld, z)
    else:
        filters_double(rows, columns, n_images, n_q, g, g_size, x, x_size, ld, z)


cdef inline void stream(idx n, const real* values, real* out) noexcept nogil:
    """out = values, a whole number of vectors, by non-temporal stores: a line that another thread has read need not be
    taken back from its cache, which costs ten times the store"""
    stream_bytes(out, values, n*<idx>sizeof(real))


cdef inline void fold_lanes(int n, const real* z, real* out) noexcept nogil:
    """out[q] = sum over lanes of z[q][lane], pairwise; n at most MAX_ROWS*MAX_ROWS; out has room for MAX_FOLDED"""
    if real is float:
        fold_float(n, z, out)
    else:
        fold_double(n, z, out)


cdef inline real sum_lanes(const real* z) noexcept nogil:
    """sum over the lanes of one vector, pairwise"""
    cdef real folded[MAX_FOLDED]
    fold_lanes(1, z, folded)
    return folded[0]
