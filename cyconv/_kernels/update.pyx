# Update: what becomes of the gradients of a dense layer's weights, and of patch-major filters.
#
# What is computed, for a panel of columns k of the weights W (units j)
#   apply_row      W[j, k] <- decay*W[j, k] - rate*G[k], or a gradient array, or the momentum's velocity: see Update
#   step_few       likewise, with G[k] = sum_i dC[i, j]*A[i, k] over few rows i, a small batch: no sum waits, every weight is
#                  read once and written once, and zeros are multiplied like other numbers
#   Both return the sum of W*W before the update. Few rows are not streamed: where threads are far apart, one of them does
#   all of so small an update.
#
# Layout
#   As in dense.pyx. A row of few is (group, i): row i of dC begins at group*group_dc + i*ld_dc, and likewise for A.
#
# Order
#   G: one chain over the rows, group after group, from zero. Squares: a chain for each lane, over the vectors of a row;
#   of few, over all units for each vector, then over the vectors.

cdef struct Update:
    # What becomes of a gradient G = sum over the batch, per weight:
    #   to_weight:  w <- decay*w - rate*G
    #   else:       sink <- keep*sink + pull*w + G     (a gradient array, or the momentum's velocity)
    bint to_weight
    bint streams        # the weights past the caches: other threads read them
    bint squares        # also sum up w*w, before the update
    double decay, rate, keep, pull


cdef double apply_row(const Update* update, idx n, const real* gradient, real* w, real* sink) noexcept nogil:
    """a row of a panel; returns the sum of its squares if asked for"""
    cdef real squares[MAX_LANES]
    cdef real line[MAX_LANES]
    cdef real decay = <real>update.decay, rate = <real>update.rate
    cdef real keep = <real>update.keep, pull = <real>update.pull
    cdef idx k, v
    cdef int lane, lanes = lanes_of(w)
    for lane in range(lanes):
        squares[lane] = 0
    if update.squares:
        for v in range(n//lanes):
            for lane in range(lanes):
                squares[lane] += w[v*lanes + lane]*w[v*lanes + lane]
    if update.to_weight and update.streams:
        for v in range(n//lanes):
            for lane in range(lanes):
                line[lane] = decay*w[v*lanes + lane] - rate*gradient[v*lanes + lane]
            stream(lanes, line, w + v*lanes)
    elif update.to_weight:
        for k in range(n):
            w[k] = decay*w[k] - rate*gradient[k]
    else:
        for k in range(n):
            sink[k] = keep*sink[k] + pull*w[k] + gradient[k]
    return sum_lanes(squares) if update.squares else 0


cdef enum:
    MAX_FEW = 5         # rows of a group, at most, that are multiplied in one go
    FEW_VECTORS = 5     # of columns, at most

cdef struct Few:
    idx n_rows, n_groups, n_units, ld_dc, group_dc, ld_a, group_a, ld_w


cdef inline bint are_few(const real* tag, idx n_rows, idx n_groups) noexcept nogil:
    """twice as many in a single group, where multiplying vectors is cheap against looking for zeros"""
    return n_rows <= (2*MAX_FEW if n_groups == 1 and sparse_of(tag) == MAX_SPARSE else MAX_FEW)


cdef Few few_of(idx n_rows, idx n_groups, idx n_units, idx ld_dc, idx group_dc, idx ld_a, idx group_a,
                idx ld_w) noexcept nogil:
    """a single group of more rows becomes several"""
    cdef Few few
    few.n_rows, few.n_groups, few.n_units, few.ld_w = n_rows, n_groups, n_units, ld_w
    few.ld_dc, few.group_dc, few.ld_a, few.group_a = ld_dc, group_dc, ld_a, group_a
    if n_groups == 1:
        few.n_rows = min(n_rows, MAX_FEW)
        while n_rows % few.n_rows != 0:
            few.n_rows -= 1
        few.n_groups = n_rows//few.n_rows
        few.group_dc, few.group_a = few.n_rows*ld_dc, few.n_rows*ld_a
    return few


cdef inline double few_tile(int rows, int vectors, bint to_weight, const Few* few, const real* dc, const real* a,
                            const Update* update, real* w, real* sink) noexcept nogil:
    """a few vectors of columns, unit after unit"""
    cdef real squares[FEW_VECTORS][MAX_LANES]
    cdef real g[FEW_VECTORS][MAX_LANES]
    cdef real old[FEW_VECTORS][MAX_LANES]
    cdef real decay = <real>update.decay, rate = <real>update.rate
    cdef real keep = <real>update.keep, pull = <real>update.pull
    cdef int i, v, lane, lanes = lanes_of(w)
    cdef idx j, group, to
    for v in range(vectors):
        for lane in range(lanes):
            squares[v][lane] = 0
    ASSUME(few.n_units > 0)
    ASSUME(few.n_groups > 0)
    for j in range(few.n_units):
        for v in range(vectors):
            for lane in range(lanes):
                g[v][lane] = 0
        for group in range(few.n_groups):
            for i in range(rows):
                for v in range(vectors):
                    for lane in range(lanes):
                        g[v][lane] += (dc[group*few.group_dc + i*few.ld_dc + j]
                                       * a[group*few.group_a + i*few.ld_a + v*lanes + lane])
        for v in range(vectors):
            to = j*few.ld_w + v*lanes
            for lane in range(lanes):
                old[v][lane] = w[to + lane]
            for lane in range(lanes):
                squares[v][lane] += old[v][lane]*old[v][lane]
            for lane in range(lanes):
                if to_weight:
                    w[to + lane] = decay*old[v][lane] - rate*g[v][lane]
                else:
                    sink[to + lane] = keep*sink[to + lane] + pull*old[v][lane] + g[v][lane]
    for v in range(1, vectors):
        for lane in range(lanes):
            squares[0][lane] += squares[v][lane]
    return sum_lanes(&squares[0][0])


cdef inline double few_columns(int rows, bint to_weight, const Few* few, idx width, const real* dc, const real* a,
                               const Update* update, real* w, real* sink) noexcept nogil:
    cdef int most = sparse_of(w)//2, lanes = lanes_of(w)     # a vector of sums has one of squares beside it
    cdef idx k = 0, vectors
    cdef double squares = 0
    while k < width:
        vectors = first_vectors(most, (width - k)//lanes)
        if most >= 5 and vectors == 5:
            squares += few_tile(rows, 5, to_weight, few, dc, a + k, update, w + k, sink + k)
        elif most >= 5 and vectors == 4:
            squares += few_tile(rows, 4, to_weight, few, dc, a + k, update, w + k, sink + k)
        elif most >= 5 and vectors == 3:
            squares += few_tile(rows, 3, to_weight, few, dc, a + k, update, w + k, sink + k)
        elif most >= 2 and vectors == 2:
            squares += few_tile(rows, 2, to_weight, few, dc, a + k, update, w + k, sink + k)
        else:
            squares += few_tile(rows, 1, to_weight, few, dc, a + k, update, w + k, sink + k)
        k += vectors*lanes
    return squares


cdef inline double few_rows(bint to_weight, const Few* few, idx width, const real* dc, const real* a,
                            const Update* update, real* w, real* sink) noexcept nogil:
    if few.n_rows == 1:
        return few_columns(1, to_weight, few, width, dc, a, update, w, sink)
    elif few.n_rows == 2:
        return few_columns(2, to_weight, few, width, dc, a, update, w, sink)
    elif few.n_rows == 3:
        return few_columns(3, to_weight, few, width, dc, a, update, w, sink)
    elif few.n_rows == 4:
        return few_columns(4, to_weight, few, width, dc, a, update, w, sink)
    return few_columns(5, to_weight, few, width, dc, a, update, w, sink)


cdef double weights_of_few(const Few* few, idx width, const real* dc, const real* a, const Update* update, real* w,
                           real* sink) noexcept nogil:
    # a function of its own, as the next: the compiler allocates registers for a function as a whole
    return few_rows(True, few, width, dc, a, update, w, sink)


cdef double sink_of_few(const Few* few, idx width, const real* dc, const real* a, const Update* update, real* w,
                        real* sink) noexcept nogil:
    return few_rows(False, few, width, dc, a, update, w, sink)


cdef inline double step_few(const Few* few, idx width, const real* dc, const real* a, const Update* update, real* w,
                            real* sink) noexcept nogil:
    """a panel of `width` columns"""
    if update.to_weight:
        return weights_of_few(few, width, dc, a, update, w, sink)
    return sink_of_few(few, width, dc, a, update, w, sink)
