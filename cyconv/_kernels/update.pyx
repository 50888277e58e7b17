# Update: what becomes of a gradient. Every update rule stands here once, for weights, filters and biases.
#
# What is computed, per element w with the gradient g of the loss
#   descend      w <- decay*w - rate*g;  decay = 1 - 2*rate*l2, for biases 1
#   accumulate   state <- momentum*state + weight_decay*w + g;  weight_decay = 2*l2, for biases 0: the velocity, or
#                without momentum the gradient of the cost
#   apply_rule   n elements by one of the two; with momentum, w <- w - rate*state afterwards, which is descend again
#   apply_row    a row of a panel of weights; returns the sum of w*w before the update, for the penalty
#   apply_bias   the biases of a layer
#
# Layout
#   Parameters, gradients and states lie side by side, element k of each belonging together.
#
# Order
#   Elements are independent. Squares: a chain for each lane, over the vectors of a row, folded pairwise.
#
# Ownership
#   All memory is the callers'. Weights that other threads read next may be streamed (tiles.pxi).

cdef struct UpdateRule:
    bint to_weight          # descend; else accumulate into the optimiser's state
    bint streams            # non-temporal stores of the new weights: other threads read them
    bint squares            # also sum up w*w
    double decay, rate
    double momentum, weight_decay
    double velocity_rate    # > 0: then descend along the state, by this rate


cdef inline real descend(real w, real decay, real rate, real g) noexcept nogil:
    return decay*w - rate*g


cdef inline real accumulate(real state, real momentum, real weight_decay, real w, real g) noexcept nogil:
    return momentum*state + weight_decay*w + g


cdef inline void apply_rule(const UpdateRule* rule, bint is_bias, idx n, const real* g, real* w, real* state,
                            real* out) noexcept nogil:
    """`out` takes the new weights: w itself, or a buffer"""
    cdef real decay = 1 if is_bias else <real>rule.decay, rate = <real>rule.rate
    cdef real momentum = <real>rule.momentum, weight_decay = 0 if is_bias else <real>rule.weight_decay
    cdef real velocity_rate = <real>rule.velocity_rate
    cdef idx k
    if rule.to_weight:
        for k in range(n):
            out[k] = descend(w[k], decay, rate, g[k])
        return
    for k in range(n):
        state[k] = accumulate(state[k], momentum, weight_decay, 0 if is_bias else w[k], g[k])
    if rule.velocity_rate > 0:
        for k in range(n):
            out[k] = descend(w[k], <real>1, velocity_rate, state[k])


cdef inline void add_squares(idx n, const real* w, real* squares) noexcept nogil:
    """at most a vector"""
    cdef idx lane
    for lane in range(n):
        squares[lane] += w[lane]*w[lane]


cdef double apply_row(const UpdateRule* rule, idx n, const real* g, real* w, real* state) noexcept nogil:
    """n: whole vectors, at most PANEL; returns the sum of squares if asked for"""
    cdef real squares[MAX_LANES]
    cdef real line[PANEL]
    cdef idx v
    cdef int lane, lanes = lanes_of(w)
    for lane in range(lanes):
        squares[lane] = 0
    if rule.squares:
        for v in range(n//lanes):
            add_squares(lanes, w + v*lanes, squares)
    if rule.streams:
        apply_rule(rule, False, n, g, w, state, line)
        stream(n, line, w)
    else:
        apply_rule(rule, False, n, g, w, state, w)
    return sum_lanes(squares) if rule.squares else 0


cdef void apply_bias(const UpdateRule* rule, idx n, const real* g, real* b, real* state) noexcept nogil:
    apply_rule(rule, True, n, g, b, state, b)


def sgd_update(real[::1] weight, const real[::1] gradient, double learning_rate, double l2):
    """w <- (1 - 2*learning_rate*l2)*w - learning_rate*gradient, in place."""
    cdef real decay = <real>(1 - 2*learning_rate*l2), rate = <real>learning_rate
    cdef idx i
    with nogil:
        for i in range(weight.shape[0]):
            weight[i] = descend(weight[i], decay, rate, gradient[i])
