# Update: what becomes of a gradient. Every update rule stands here once, for weights, filters and biases.
#
# What is computed, per element w with the gradient g of the loss and the rate eta; l2 and decay are left out for biases
#   gradient     state <- 2*l2*w + g, the gradient of the cost; w stays
#   descent      w <- (1 - 2*eta*l2)*w - eta*g
#   momentum     v <- momentum*v + 2*l2*w + g;  w <- w - eta*v
#   Nesterov     d = 2*l2*w + g;  v <- momentum*v + d;  w <- w - eta*(d + momentum*v)
#   AdamW        d = 2*l2*w + g;  m <- beta1*m + (1 - beta1)*d;  v <- beta2*v + (1 - beta2)*d*d;
#                w <- (1 - eta*decay)*w - eta/(1 - beta1**t) * m/(sqrt(v/(1 - beta2**t)) + eps);  t = 1 at the first
#   apply_row    a row of a panel of weights; returns the sum of w*w before the update, for the penalty
#   apply_bias   the biases of a layer
#   What is the same for all elements is made once per update, in double (update_rule).
#
# Layout
#   Parameters, gradients and states lie side by side, element k of each belonging together; an element's second state
#   lies `second_state` behind its first.
#
# Order
#   Elements are independent. Squares: a chain for each lane, over the vectors of a row, folded pairwise.
#
# Ownership
#   All memory is the callers'. Weights that other threads read next may be streamed (tiles.pxi).

from libc.math cimport pow, sqrt, sqrtf

cdef enum UpdateKind:
    UPDATE_GRADIENT = 0
    UPDATE_DESCENT
    UPDATE_MOMENTUM
    UPDATE_NESTEROV
    UPDATE_ADAMW

cdef struct Optimizer:      # the same for all updates of a call
    UpdateKind kind
    double momentum         # also beta1
    double beta2, eps, weight_decay
    double l2
    idx second_state

cdef struct UpdateRule:     # of one update
    UpdateKind kind
    bint streams            # non-temporal stores of the new weights: other threads read them
    bint squares            # also sum up w*w
    double rate             # of what is subtracted from a weight
    double decay            # what the weight is multiplied by
    double penalty          # times a weight: added to the gradient of the loss
    double momentum, beta2, eps
    double root_scale       # of sqrt(v)
    idx second_state


cdef Optimizer read_optimizer(dict settings, double l2, idx second_state) except *:
    """``settings`` of a class in optimizers.py; None: the gradient alone"""
    cdef Optimizer optimizer
    memset(&optimizer, 0, sizeof(Optimizer))
    optimizer.l2 = l2
    optimizer.second_state = second_state
    if settings is None:
        optimizer.kind = UPDATE_GRADIENT
    elif settings["class"] == "SGD":
        optimizer.momentum = settings["momentum"]
        optimizer.kind = (UPDATE_NESTEROV if settings["nesterov"] else
                          UPDATE_MOMENTUM if optimizer.momentum > 0 else UPDATE_DESCENT)
    elif settings["class"] == "AdamW":
        optimizer.kind = UPDATE_ADAMW
        optimizer.momentum, optimizer.beta2 = settings["betas"]
        optimizer.eps = settings["eps"]
        optimizer.weight_decay = settings["weight_decay"]
    else:
        raise ValueError(f"the kernels have no optimiser {settings['class']}")
    return optimizer


cdef UpdateRule update_rule(const Optimizer* optimizer, double rate, long long n_updates, bint streams) noexcept nogil:
    """``n_updates``: how many there were before"""
    cdef UpdateRule rule
    cdef double t = <double>(n_updates + 1)
    rule.kind = optimizer.kind
    rule.streams = streams and optimizer.kind != UPDATE_GRADIENT
    rule.squares = optimizer.l2 > 0
    rule.rate = rate
    rule.decay = 1
    rule.penalty = 2*optimizer.l2
    rule.momentum = optimizer.momentum
    rule.beta2 = optimizer.beta2
    rule.eps = optimizer.eps
    rule.root_scale = 1
    rule.second_state = optimizer.second_state
    if optimizer.kind == UPDATE_DESCENT:
        rule.decay = 1 - 2*rate*optimizer.l2
    elif optimizer.kind == UPDATE_ADAMW:
        rule.decay = 1 - rate*optimizer.weight_decay
        rule.rate = rate/(1 - pow(optimizer.momentum, t))
        rule.root_scale = 1/sqrt(1 - pow(optimizer.beta2, t))
    return rule


cdef inline real descend(real w, real decay, real rate, real g) noexcept nogil:
    return decay*w - rate*g


cdef inline real accumulate(real state, real momentum, real penalty, real w, real g) noexcept nogil:
    return momentum*state + penalty*w + g


cdef inline real square_root(real x) noexcept nogil:
    if real is float:
        return sqrtf(x)
    else:
        return sqrt(x)


cdef inline void nesterov(const UpdateRule* rule, bint is_bias, idx n, const real* g, real* w, real* v,
                          real* out) noexcept nogil:
    cdef real rate = <real>rule.rate, momentum = <real>rule.momentum, penalty = <real>rule.penalty, d
    cdef idx k
    for k in range(n):
        d = g[k] if is_bias else penalty*w[k] + g[k]
        v[k] = momentum*v[k] + d
        out[k] = w[k] - rate*(d + momentum*v[k])


cdef inline void adamw(const UpdateRule* rule, bint is_bias, idx n, const real* g, real* w, real* m, real* v,
                       real* out) noexcept nogil:
    cdef real rate = <real>rule.rate, decay = 1 if is_bias else <real>rule.decay, penalty = <real>rule.penalty, d
    cdef real beta1 = <real>rule.momentum, beta2 = <real>rule.beta2, eps = <real>rule.eps
    cdef real gain1 = <real>(1 - rule.momentum), gain2 = <real>(1 - rule.beta2), root_scale = <real>rule.root_scale
    cdef idx k
    for k in range(n):
        d = g[k] if is_bias else penalty*w[k] + g[k]
        m[k] = beta1*m[k] + gain1*d
        v[k] = beta2*v[k] + gain2*d*d
        out[k] = decay*w[k] - rate*m[k]/(root_scale*square_root(v[k]) + eps)


cdef inline void apply_rule(const UpdateRule* rule, bint is_bias, idx n, const real* g, real* w, real* state,
                            real* out) noexcept nogil:
    """`out` takes the new weights: w itself, or a buffer"""
    cdef real decay = 1 if is_bias else <real>rule.decay, rate = <real>rule.rate
    cdef real momentum = <real>rule.momentum, penalty = 0 if is_bias else <real>rule.penalty
    cdef idx k
    if rule.kind == UPDATE_DESCENT:
        for k in range(n):
            out[k] = descend(w[k], decay, rate, g[k])
    elif rule.kind == UPDATE_NESTEROV:
        nesterov(rule, is_bias, n, g, w, state, out)
    elif rule.kind == UPDATE_ADAMW:
        adamw(rule, is_bias, n, g, w, state, state + rule.second_state, out)
    else:
        for k in range(n):
            state[k] = accumulate(state[k], momentum, penalty, 0 if is_bias else w[k], g[k])
        if rule.kind == UPDATE_MOMENTUM:
            for k in range(n):
                out[k] = descend(w[k], <real>1, rate, state[k])


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
