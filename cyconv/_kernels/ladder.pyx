# Ladder: the layers as anyone would write them first, and once more with their loops in the right order. LADDER.md
# tells what every step from here to the kernels of training gains; training itself uses nothing of this file.
#
# What is computed
#   plain_conv_..., plain_dense_...      every result by itself: a sum of products, each added to the one before
#   vector_conv_..., vector_dense_...    the same sums, the innermost loop along contiguous memory: the compiler makes
#                                        vector instructions of it
#   They repeat in loops what the reference says in NumPy (cyconv/reference/layers.py): for the reader's sake.
#   A layer's input came out of a ReLU; on the way back, d_inputs is 0 where that input is 0.
#
# Layout
#   Patches (N, D, P), activations (N, F, P); inputs (N, I), weights (O, I), outputs (N, O). P and I are multiples of
#   PAD, if need be by zeros; outputs may be wider than there are units.
#
# Order of sums
#   Plain: in order. Vector: likewise, but sums along the vector (`dot`) have a chain for each lane, folded pairwise.
#
# Ownership
#   All memory is the caller's.

cdef void plain_conv_forward(const real[:, :, ::1] patches, const real[:, ::1] weight, const real[::1] bias,
                             real[:, :, ::1] activations) noexcept nogil:
    cdef idx i, f, p, d
    cdef real total
    for i in range(patches.shape[0]):
        for f in range(weight.shape[0]):
            for p in range(patches.shape[2]):
                total = bias[f]
                for d in range(weight.shape[1]):
                    total += weight[f, d]*patches[i, d, p]
                activations[i, f, p] = relu_forward(total)


cdef void plain_conv_backward(const real[:, :, ::1] d_activations, const real[:, :, ::1] patches,
                              real[:, ::1] d_weight, real[::1] d_bias) noexcept nogil:
    cdef idx i, f, p, d
    cdef real total
    for f in range(d_weight.shape[0]):
        for d in range(d_weight.shape[1]):
            total = 0
            for i in range(patches.shape[0]):
                for p in range(patches.shape[2]):
                    total += d_activations[i, f, p]*patches[i, d, p]
            d_weight[f, d] = total
        total = 0
        for i in range(patches.shape[0]):
            for p in range(patches.shape[2]):
                total += d_activations[i, f, p]
        d_bias[f] = total


cdef void plain_dense_forward(const real[:, ::1] inputs, const real[:, ::1] weight, const real[::1] bias, bint relu,
                              real[:, ::1] outputs) noexcept nogil:
    cdef idx i, j, k
    cdef real total
    for i in range(inputs.shape[0]):
        for j in range(weight.shape[0]):
            total = bias[j]
            for k in range(weight.shape[1]):
                total += inputs[i, k]*weight[j, k]
            outputs[i, j] = relu_forward(total) if relu else total


cdef void plain_dense_backward(const real[:, ::1] d_outputs, const real[:, ::1] inputs, const real[:, ::1] weight,
                               real[:, ::1] d_inputs, real[:, ::1] d_weight, real[::1] d_bias) noexcept nogil:
    cdef idx i, j, k
    cdef real total
    for i in range(inputs.shape[0]):
        for k in range(weight.shape[1]):
            total = 0
            for j in range(weight.shape[0]):
                total += d_outputs[i, j]*weight[j, k]
            d_inputs[i, k] = relu_backward(inputs[i, k], total)
    for j in range(weight.shape[0]):
        for k in range(weight.shape[1]):
            total = 0
            for i in range(inputs.shape[0]):
                total += d_outputs[i, j]*inputs[i, k]
            d_weight[j, k] = total
        total = 0
        for i in range(inputs.shape[0]):
            total += d_outputs[i, j]
        d_bias[j] = total


cdef inline real dot(idx n, const real* a, const real* b) noexcept nogil:
    """sum_k a[k]*b[k], lanes kept apart until the end"""
    cdef real chains[MAX_LANES]
    cdef int lane, lanes = lanes_of(a)
    cdef idx k
    for lane in range(lanes):
        chains[lane] = 0
    for k in range(n//lanes):
        for lane in range(lanes):
            chains[lane] += a[k*lanes + lane]*b[k*lanes + lane]
    return sum_lanes(<const real*>chains)


cdef void vector_conv_forward(const real[:, :, ::1] patches, const real[:, ::1] weight, const real[::1] bias,
                              real[:, :, ::1] activations) noexcept nogil:
    cdef idx i, f, p, d
    cdef real w
    for i in range(patches.shape[0]):
        for f in range(weight.shape[0]):
            for p in range(patches.shape[2]):
                activations[i, f, p] = bias[f]
            for d in range(weight.shape[1]):
                w = weight[f, d]
                for p in range(patches.shape[2]):
                    activations[i, f, p] += w*patches[i, d, p]
            for p in range(patches.shape[2]):
                activations[i, f, p] = relu_forward(activations[i, f, p])


cdef void vector_conv_backward(const real[:, :, ::1] d_activations, const real[:, :, ::1] patches,
                               real[:, ::1] d_weight, real[::1] d_bias) noexcept nogil:
    cdef idx i, f, p, d
    d_weight[:, :] = 0
    d_bias[:] = 0
    for i in range(patches.shape[0]):
        for f in range(d_weight.shape[0]):
            for d in range(d_weight.shape[1]):
                d_weight[f, d] += dot(patches.shape[2], &d_activations[i, f, 0], &patches[i, d, 0])
            for p in range(patches.shape[2]):
                d_bias[f] += d_activations[i, f, p]


cdef void vector_dense_forward(const real[:, ::1] inputs, const real[:, ::1] weight, const real[::1] bias, bint relu,
                               real[:, ::1] outputs) noexcept nogil:
    cdef idx i, j
    cdef real total
    for i in range(inputs.shape[0]):
        for j in range(weight.shape[0]):
            total = bias[j] + dot(weight.shape[1], &inputs[i, 0], &weight[j, 0])
            outputs[i, j] = relu_forward(total) if relu else total


cdef void vector_dense_backward(const real[:, ::1] d_outputs, const real[:, ::1] inputs, const real[:, ::1] weight,
                                real[:, ::1] d_inputs, real[:, ::1] d_weight, real[::1] d_bias) noexcept nogil:
    cdef idx i, j, k
    cdef real g
    d_inputs[:, :] = 0
    d_weight[:, :] = 0
    d_bias[:] = 0
    for i in range(inputs.shape[0]):
        for j in range(weight.shape[0]):
            g = d_outputs[i, j]
            for k in range(weight.shape[1]):
                d_inputs[i, k] += g*weight[j, k]
            for k in range(weight.shape[1]):
                d_weight[j, k] += g*inputs[i, k]
            d_bias[j] += g
        for k in range(weight.shape[1]):
            d_inputs[i, k] = relu_backward(inputs[i, k], d_inputs[i, k])


def ladder_conv_forward(bint vector, const real[:, :, ::1] patches, const real[:, ::1] weight, const real[::1] bias,
                        real[:, :, ::1] activations):
    """max(0, weight @ patches + bias)"""
    with nogil:
        if vector:
            vector_conv_forward(patches, weight, bias, activations)
        else:
            plain_conv_forward(patches, weight, bias, activations)


def ladder_conv_backward(bint vector, const real[:, :, ::1] d_activations, const real[:, :, ::1] patches,
                         real[:, ::1] d_weight, real[::1] d_bias):
    """d_activations @ patches.T and the sums of d_activations, over all images"""
    with nogil:
        if vector:
            vector_conv_backward(d_activations, patches, d_weight, d_bias)
        else:
            plain_conv_backward(d_activations, patches, d_weight, d_bias)


def ladder_dense_forward(bint vector, const real[:, ::1] inputs, const real[:, ::1] weight, const real[::1] bias,
                         bint relu, real[:, ::1] outputs):
    """inputs @ weight.T + bias, then ReLU where asked"""
    with nogil:
        if vector:
            vector_dense_forward(inputs, weight, bias, relu, outputs)
        else:
            plain_dense_forward(inputs, weight, bias, relu, outputs)


def ladder_dense_backward(bint vector, const real[:, ::1] d_outputs, const real[:, ::1] inputs,
                          const real[:, ::1] weight, real[:, ::1] d_inputs, real[:, ::1] d_weight, real[::1] d_bias):
    """d_outputs @ weight, d_outputs.T @ inputs and the column sums of d_outputs"""
    with nogil:
        if vector:
            vector_dense_backward(d_outputs, inputs, weight, d_inputs, d_weight, d_bias)
        else:
            plain_dense_backward(d_outputs, inputs, weight, d_inputs, d_weight, d_bias)
