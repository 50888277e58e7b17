# Dense layers; also the convolution with so few patches that it is better seen as one.
#
# What is computed (rows: images, or images times groups; see below)
#   dense_forward          C[r, j] = bias[j] + sum_k A[r, k] * W[j, k], then ReLU where asked
#   dense_backward_input   dA[i, k] = sum_j dC[i, j] * W[j, k]; masked: times scale where A[i, k] > 0, else 0
#   dense_step             W[j, k] <- decay * W[j, k] - rate * sum_i dC[i, j] * A[i, k], or the gradient itself
#
# Layout
#   A, C row-major with strides; W (units, inputs) with the inputs innermost, its rows padded with zeros to
#   PAD elements and their number padded to ROWS, so that a dot tile never has fewer units.
#   A group is one patch of an image: row (i, g) of A begins at i*ld_a + g*group_a, and likewise for C.
#   A dense layer has one group; a convolution with P patches has P, and the input of group g is patch g.
#
# Order
#   Forward: every tile of ROWS units meets every tile of dot_rows rows, over one chunk of the inputs after the other.
#   The units' chunk stays in the first-level cache while the rows pass by; the lanes of a tile are kept in `z` between
#   chunks and folded after the last. Where a tile has as many rows as units (AVX-512), one chunk holds all inputs and
#   the second level all weights, it is the rows that stay. The sums are the same.
#   Backward and step: outer tiles along the inputs, over units and over images in their order.

cdef enum:
    L2_BYTES = 540672   # of weights that stay in the second-level cache

cdef struct Chunk:      # of the inputs, in a forward pass
    idx n_k             # vectors
    bint first, last
    Ahead* ahead


cdef inline void dense_tile(int rows, const Chunk* part, idx n_units, const real* a, idx ld_a, const real* w, idx ld_w,
                            real* c, idx ld_c, real* z) noexcept nogil:
    """a tile over one chunk; after the last, lanes are folded and stored"""
    cdef real folded[MAX_FOLDED]
    cdef int i
    cdef idx j, pace
    cdef const char* lines = take_lines(part.ahead, part.n_k, &pace)
    if part.first:
        dot_accumulate(rows, ROWS, True, part.n_k, a, ld_a, w, ld_w, lines, pace, z)
    else:
        dot_accumulate(rows, ROWS, False, part.n_k, a, ld_a, w, ld_w, lines, pace, z)
    if part.last:
        fold_lanes(rows*ROWS, z, folded)
        if n_units == ROWS:
            for i in range(rows):
                for j in range(ROWS):
                    c[i*ld_c + j] = folded[i*ROWS + j]
        else:
            for i in range(rows):
                for j in range(n_units):
                    c[i*ld_c + j] = folded[i*ROWS + j]


cdef inline void dense_column(const Chunk* part, idx n_images, idx n_units, const real* a, idx ld_a, const real* w,
                              idx ld_w, real* c, idx ld_c, real* z) noexcept nogil:
    """ROWS units against all images"""
    cdef int lanes = lanes_of(a), dot_rows = dot_rows_of(a)
    cdef idx i = 0
    while i + dot_rows <= n_images:
        dense_tile(dot_rows, part, n_units, a + i*ld_a, ld_a, w, ld_w, c + i*ld_c, ld_c, z + i*ROWS*lanes)
        i += dot_rows
    if dot_rows > 4 and n_images - i == 4:
        dense_tile(4, part, n_units, a + i*ld_a, ld_a, w, ld_w, c + i*ld_c, ld_c, z + i*ROWS*lanes)
    elif dot_rows > 3 and n_images - i == 3:
        dense_tile(3, part, n_units, a + i*ld_a, ld_a, w, ld_w, c + i*ld_c, ld_c, z + i*ROWS*lanes)
    elif dot_rows > 2 and n_images - i == 2:
        dense_tile(2, part, n_units, a + i*ld_a, ld_a, w, ld_w, c + i*ld_c, ld_c, z + i*ROWS*lanes)
    elif n_images - i == 1:
        dense_tile(1, part, n_units, a + i*ld_a, ld_a, w, ld_w, c + i*ld_c, ld_c, z + i*ROWS*lanes)


cdef inline void add_bias(idx n_units, const real* bias, bint relu, real* c) noexcept nogil:
    cdef idx j
    cdef real t
    if relu:
        for j in range(n_units):
            t = c[j] + bias[j]
            c[j] = 0 if t < 0 else t        # NaN stays NaN
    else:
        for j in range(n_units):
            c[j] += bias[j]


cdef inline void dense_chunks(idx n_images, idx n_groups, idx n_units, idx n_inputs, idx chunk, const real* a, idx ld_a,
                              idx group_a, const real* w, idx ld_w, real* c, idx ld_c, idx group_c, real* z,
                              Ahead* ahead) noexcept nogil:
    cdef idx j = 0, g, k
    cdef Chunk part
    part.ahead = ahead
    while j < n_units:
        for g in range(n_groups):
            k = 0
            while k < n_inputs:
                part.first = k == 0
                part.last = k + chunk >= n_inputs
                part.n_k = min(chunk, n_inputs - k)//lanes_of(a)
                dense_column(&part, n_images, min(ROWS, n_units - j), a + g*group_a + k, ld_a, w + j*ld_w + k, ld_w,
                             c + g*group_c + j, ld_c, z)
                k += chunk
        j += ROWS


cdef void dense_forward(idx n_images, idx n_groups, idx n_units, idx n_inputs, const real* a, idx ld_a, idx group_a,
                        const real* w, idx ld_w, const real* bias, bint relu, real* c, idx ld_c, idx group_c, real* z,
                        Ahead* ahead) noexcept nogil:
    cdef idx most = CHUNK_BYTES//<idx>sizeof(real), n_chunks = (n_inputs + most - 1)//most, i, g
    cdef idx chunk = ((n_inputs + n_chunks - 1)//n_chunks + PAD - 1)//PAD*PAD
    cdef idx rows = dot_rows_of(a)
    if rows == ROWS and n_chunks == 1 and n_units*ld_w*<idx>sizeof(real) <= L2_BYTES:
        for g in range(n_groups):
            i = 0
            while i < n_images:
                dense_chunks(min(rows, n_images - i), 1, n_units, n_inputs, n_inputs, a + i*ld_a + g*group_a, ld_a, 0, w,
                             ld_w, c + i*ld_c + g*group_c, ld_c, 0, z, ahead)
                i += rows
    else:
        dense_chunks(n_images, n_groups, n_units, n_inputs, chunk, a, ld_a, group_a, w, ld_w, c, ld_c, group_c, z, ahead)
    for i in range(n_images):
        for g in range(n_groups):
            add_bias(n_units, bias, relu, c + i*ld_c + g*group_c)


cdef inline void input_gradient_tile(int rows, int vectors, idx n_units, const real* dc, idx ld_dc, const real* w,
                                     idx ld_w, bint masked, const real* a, idx ld_a, real scale, real* da,
                                     Ahead* ahead) noexcept nogil:
    cdef real acc[MAX_ROWS][MAX_VECTORS][MAX_LANES]
    cdef real line[MAX_LANES]       # apart from da, which the compiler cannot tell from a
    cdef real t
    cdef idx pace
    cdef const char* lines = take_lines(ahead, n_units, &pace)
    cdef int i, v, lane, lanes = lanes_of(dc)
    outer_accumulate(rows, vectors, n_units, dc, ld_dc, 1, w, lanes, ld_w, lines, pace, &acc[0][0][0])
    for i in range(rows):
        for v in range(vectors):
            for lane in range(lanes):
                line[lane] = acc[i][v][lane]
            if masked:
                for lane in range(lanes):
                    t = scale*line[lane]
                    line[lane] = t if a[i*ld_a + v*lanes + lane] > 0 else 0
            for lane in range(lanes):
                da[i*ld_a + v*lanes + lane] = line[lane]


cdef inline void input_gradient_column(int vectors, idx n_images, idx n_units, const real* dc, idx ld_dc,
                                       const real* w, idx ld_w, bint masked, const real* a, idx ld_a,
                                       real scale, real* da, Ahead* ahead) noexcept nogil:
    cdef idx i = 0
    while i + ROWS <= n_images:
        input_gradient_tile(ROWS, vectors, n_units, dc + i*ld_dc, ld_dc, w, ld_w, masked, a + i*ld_a, ld_a,
                            scale, da + i*ld_a, ahead)
        i += ROWS
    if ROWS > 4 and n_images - i == 4:
        input_gradient_tile(4, vectors, n_units, dc + i*ld_dc, ld_dc, w, ld_w, masked, a + i*ld_a, ld_a, scale,
                            da + i*ld_a, ahead)
    elif ROWS > 3 and n_images - i == 3:
        input_gradient_tile(3, vectors, n_units, dc + i*ld_dc, ld_dc, w, ld_w, masked, a + i*ld_a, ld_a, scale,
                            da + i*ld_a, ahead)
    elif ROWS > 2 and n_images - i == 2:
        input_gradient_tile(2, vectors, n_units, dc + i*ld_dc, ld_dc, w, ld_w, masked, a + i*ld_a, ld_a, scale,
                            da + i*ld_a, ahead)
    elif n_images - i == 1:
        input_gradient_tile(1, vectors, n_units, dc + i*ld_dc, ld_dc, w, ld_w, masked, a + i*ld_a, ld_a, scale,
                            da + i*ld_a, ahead)


cdef void dense_backward_input(idx n_images, idx n_units, idx n_inputs, const real* dc, idx ld_dc, const real* w,
                               idx ld_w, bint masked, const real* a, idx ld_a, real scale, real* da,
                               Ahead* ahead) noexcept nogil:
    """da has the strides of a, the layer's input. Masked: a went through ReLU (and dropout, with `scale`)."""
    cdef idx k = 0
    cdef int lanes = lanes_of(dc), vectors = vectors_of(dc)
    while k + vectors*lanes <= n_inputs:
        input_gradient_column(vectors, n_images, n_units, dc, ld_dc, w + k, ld_w, masked, a + k, ld_a, scale, da + k,
                              ahead)
        k += vectors*lanes
    while k < n_inputs:
        input_gradient_column(1, n_images, n_units, dc, ld_dc, w + k, ld_w, masked, a + k, ld_a, scale, da + k,
                              ahead)
        k += lanes


cdef struct Update:
    # What becomes of a gradient G = sum over the batch, per weight:
    #   to_weight:  w <- decay*w - rate*G
    #   else:       sink <- keep*sink + pull*w + G     (a gradient array, or the momentum's velocity)
    bint to_weight
    bint streams        # the weights past the caches: other threads read them
    bint squares        # also sum up w*w, before the update
    double decay, rate, keep, pull


cdef inline double step_tile(int rows, int vectors, idx n_images, const real* dc, idx ld_dc, const real* a, idx ld_a,
                             const Update* update, real* w, real* sink, idx ld_w, const real* ahead) noexcept nogil:
    cdef real acc[MAX_ROWS][MAX_VECTORS][MAX_LANES]
    cdef real squares[MAX_VECTORS][MAX_LANES]       # a chain of additions a vector
    cdef real line[MAX_LANES]
    cdef int i, v, lane, lanes = lanes_of(dc)
    cdef real decay = <real>update.decay, rate = <real>update.rate
    cdef real keep = <real>update.keep, pull = <real>update.pull, total = 0
    outer_accumulate(rows, vectors, n_images, dc, 1, ld_dc, a, lanes, ld_a, <const char*>ahead, ld_a*<idx>sizeof(real),
                     &acc[0][0][0])
    if update.squares:
        for v in range(vectors):
            for lane in range(lanes):
                squares[v][lane] = 0
        for i in range(rows):
            for v in range(vectors):
                for lane in range(lanes):
                    squares[v][lane] += w[i*ld_w + v*lanes + lane]*w[i*ld_w + v*lanes + lane]
        for v in range(1, vectors):
            for lane in range(lanes):
                squares[0][lane] += squares[v][lane]
        total = sum_lanes(&squares[0][0])
    for i in range(rows):
        for v in range(vectors):
            if update.to_weight and update.streams:     # apart: a way through `line` would slow down the other case
                for lane in range(lanes):
                    line[lane] = decay*w[i*ld_w + v*lanes + lane] - rate*acc[i][v][lane]
                stream(lanes, line, w + i*ld_w + v*lanes)
            elif update.to_weight:
                for lane in range(lanes):
                    w[i*ld_w + v*lanes + lane] = decay*w[i*ld_w + v*lanes + lane] - rate*acc[i][v][lane]
            else:
                for lane in range(lanes):
                    sink[i*ld_w + v*lanes + lane] = (keep*sink[i*ld_w + v*lanes + lane]
                                                     + pull*w[i*ld_w + v*lanes + lane] + acc[i][v][lane])
    return total


cdef inline double step_rows(int vectors, idx n_images, idx n_units, const real* dc, idx ld_dc, const real* a,
                             idx ld_a, const Update* update, real* w, real* sink, idx ld_w,
                             const real* ahead) noexcept nogil:
    """each tile asks for one line of every image's columns at `ahead`"""
    cdef idx j = 0, line = 64//<idx>sizeof(real), q = 0
    cdef double squares = 0
    while j + ROWS <= n_units:
        squares += step_tile(ROWS, vectors, n_images, dc + j, ld_dc, a, ld_a, update, w + j*ld_w, sink + j*ld_w, ld_w,
                             ahead + q*line)
        q = q + 1 if (q + 1)*line < PANEL else 0
        j += ROWS
    while j < n_units:
        squares += step_tile(1, vectors, n_images, dc + j, ld_dc, a, ld_a, update, w + j*ld_w, sink + j*ld_w, ld_w,
                             ahead)
        j += 1
    return squares


cdef double dense_step(idx n_images, idx n_units, idx n_inputs, const real* dc, idx ld_dc, const real* a, idx ld_a,
                       const Update* update, real* w, real* sink, idx ld_w, const real* ahead) noexcept nogil:
    """a panel of n_inputs columns of the weights; returns the sum of their squares if asked for. `ahead` is where
    the columns of the input begin that come next."""
    cdef idx k = 0
    cdef double squares = 0
    cdef int lanes = lanes_of(dc), vectors = vectors_of(dc)
    while k + vectors*lanes <= n_inputs:
        squares += step_rows(vectors, n_images, n_units, dc, ld_dc, a + k, ld_a, update, w + k, sink + k, ld_w, ahead)
        k += vectors*lanes
    while k < n_inputs:
        squares += step_rows(1, n_images, n_units, dc, ld_dc, a + k, ld_a, update, w + k, sink + k, ld_w, ahead)
        k += lanes
    return squares


cdef enum:
    PANEL = 64          # columns of the weights in one task


def dense_scratch_size(idx n_images):
    """Elements of ``z`` that a forward pass over so many images needs."""
    return n_images*ROWS*MAX_LANES


cdef void forward_rows(idx block, const real[:, ::1] inputs, const real[:, ::1] weight, const real[::1] bias, bint relu,
                       real[:, ::1] outputs, real* z) noexcept nogil:
    cdef idx first = block*ENTRY_BLOCK, n = min(ENTRY_BLOCK, inputs.shape[0] - first)
    cdef idx n_units = outputs.shape[1], k = inputs.shape[1]
    cdef Ahead ahead
    expect_nothing(&ahead)
    dense_forward(n, 1, n_units, k, &inputs[first, 0], k, 0, &weight[0, 0], k, &bias[0], relu, &outputs[first, 0], n_units,
                  0, z, &ahead)


def dense_forward_rows(const real[:, ::1] inputs, const real[:, ::1] weight, const real[::1] bias, bint relu,
                       real[:, ::1] outputs, real[:, ::1] scratch, int n_threads):
    """inputs @ weight.T + bias; inputs and weight padded, ``outputs`` (N, O); scratch: a row a thread."""
    cdef idx n_blocks = (inputs.shape[0] + ENTRY_BLOCK - 1)//ENTRY_BLOCK, b
    with nogil:
        if n_threads == 1:
            for b in range(n_blocks):
                forward_rows(b, inputs, weight, bias, relu, outputs, &scratch[0, 0])
        else:
            for b in prange(n_blocks, schedule="static", num_threads=n_threads):
                forward_rows(b, inputs, weight, bias, relu, outputs, &scratch[threadid(), 0])


cdef void backward_rows(idx block, const real[:, ::1] masked, const real[:, ::1] inputs, const real[:, ::1] weight,
                        real[:, ::1] d_inputs) noexcept nogil:
    cdef idx first = block*ENTRY_BLOCK, n = min(ENTRY_BLOCK, inputs.shape[0] - first)
    cdef idx n_units = masked.shape[1], k = inputs.shape[1]
    cdef Ahead ahead
    expect_nothing(&ahead)
    dense_backward_input(n, n_units, k, &masked[first, 0], n_units, &weight[0, 0], k, False, &inputs[first, 0], k, <real>1,
                         &d_inputs[first, 0], &ahead)


def dense_backward_rows(const real[:, ::1] d_outputs, const real[:, ::1] inputs, const real[:, ::1] weight,
                        const real[:, ::1] outputs, real[:, ::1] masked, real[:, ::1] d_inputs,
                        real[:, ::1] d_weight, real[::1] d_bias, int n_threads):
    """Gradients of a dense layer; ``outputs`` None: no ReLU. ``masked`` (N, O) is scratch."""
    cdef idx n = inputs.shape[0], n_units = d_outputs.shape[1], k = inputs.shape[1], i, j, b
    cdef idx n_blocks = (n + ENTRY_BLOCK - 1)//ENTRY_BLOCK, n_panels = (k + PANEL - 1)//PANEL
    cdef Update update
    cdef const real* g = &masked[0, 0]
    update.to_weight = False
    update.streams = False
    update.squares = False
    update.decay = 1
    update.rate = 0
    update.keep = 0
    update.pull = 0
    with nogil:
        for i in range(n):
            for j in range(n_units):
                masked[i, j] = d_outputs[i, j] if outputs is None or outputs[i, j] > 0 else 0
        for j in range(n_units):
            d_bias[j] = 0
        for i in range(n):
            for j in range(n_units):
                d_bias[j] += masked[i, j]
        if n_threads == 1:
            for b in range(n_blocks):
                backward_rows(b, masked, inputs, weight, d_inputs)
            for b in range(n_panels):
                dense_step(n, n_units, min(PANEL, k - b*PANEL), g, n_units, &inputs[0, b*PANEL], k, &update,
                           &d_weight[0, b*PANEL], &d_weight[0, b*PANEL], k, &inputs[0, b*PANEL])
        else:
            for b in prange(n_blocks, schedule="static", num_threads=n_threads):
                backward_rows(b, masked, inputs, weight, d_inputs)
            for b in prange(n_panels, schedule="static", num_threads=n_threads):
                dense_step(n, n_units, min(PANEL, k - b*PANEL), g, n_units, &inputs[0, b*PANEL], k, &update,
                           &d_weight[0, b*PANEL], &d_weight[0, b*PANEL], k, &inputs[0, b*PANEL])


def sum_of_squares(const real[::1] weight):
    """In double: eight chains, each in order, folded pairwise; what is left over comes last."""
    cdef double chains[LANES_DOUBLE]
    cdef double total
    cdef idx i, n = weight.shape[0], n_whole = n//LANES_DOUBLE
    cdef int lane
    with nogil:
        for lane in range(LANES_DOUBLE):
            chains[lane] = 0
        for i in range(n_whole):
            for lane in range(LANES_DOUBLE):
                chains[lane] += <double>weight[i*LANES_DOUBLE + lane]*weight[i*LANES_DOUBLE + lane]
        total = sum_lanes(<const double*>chains)
        for i in range(n_whole*LANES_DOUBLE, n):
            total += <double>weight[i]*weight[i]
    return total


def sgd_update(real[::1] weight, const real[::1] gradient, double learning_rate, double l2):
    """w <- (1 - 2*learning_rate*l2)*w - learning_rate*gradient, in place."""
    cdef real decay = <real>(1 - 2*learning_rate*l2), rate = <real>learning_rate
    cdef idx i
    with nogil:
        for i in range(weight.shape[0]):
            weight[i] = decay*weight[i] - rate*gradient[i]
