# Update: what becomes of the gradients of a dense layer's weights, and of patch-major filters.
#
# What is computed, for a row of a panel of the weights W, with its gradient G
#   apply_row      W[k] <- decay*W[k] - rate*G[k], or a gradient array, or the momentum's velocity: see Update
#   It returns the sum of W*W before the update.
#
# Layout
#   As in dense.pyx.
#
# Order
#   Squares: a chain for each lane, over the vectors of a row.

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
