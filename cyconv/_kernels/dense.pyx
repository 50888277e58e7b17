# Dense layers; also the convolution with so few patches that it is better seen as one.
#
# What is computed (rows: images, or images times groups; see below)
#   dense_forward          C[r, j] = bias[j] + sum_k A[r, k] * W[j, k], then ReLU where asked
#   dense_backward_input   dA[i, k] = sum_j dC[i, j] * W[j, k]; masked: times scale where A[i, k] > 0, else 0
#   dense_step             W[j, k] <- decay * W[j, k] - rate * sum_i dC[i, j] * A[i, k], or the gradient itself
#   transposed_forward     as dense_forward, with transposed weights T[k, j] = W[j, k]
#
# Layout
#   A, C row-major with strides; W (units, inputs) with the inputs innermost, its rows padded with zeros to
#   PAD elements and their number padded to ROWS, so that a dot tile never has fewer units.
#   A group is one patch of an image: row (i, g) of A begins at i*ld_a + g*group_a, and likewise for C.
#   A dense layer has one group; a convolution with P patches has P, and the input of group g is patch g.
#   T (inputs, units), both padded with zeros to PAD.
#
# Zeros
#   Most of dC is zero behind a ReLU: half of it in a new network, two thirds in a trained one. The way back skips its
#   zeros (see sparse.pxi). Forward, W would have to be read across its rows for that; evaluation, whose weights stay,
#   transposes them beforehand and skips the zeros of A, but for layers of few units.
#   So a unit that is off passes nothing back, whatever stands in its weights. The cost and evaluation, which then skips
#   nothing, show what is not finite.
#
# Order
#   Forward: every tile of ROWS units meets every tile of dot_rows rows, over one chunk of the inputs after the other.
#   The units' chunk stays in the first-level cache while the rows pass by; the lanes of a tile are kept in `z` between
#   chunks and folded after the last.
#   Backward and step: a few vectors along the inputs, over WORD units or a chunk of images at a time, whose rows stay
#   in the first-level cache; sums wait in dA or in `z` meanwhile. Every sum is one chain, over units and over images in
#   their order. Transposed: likewise along the units, over WORD inputs at a time.

cdef struct DenseShape:
    idx n_images, n_groups
    idx n_units, n_inputs
    idx ld_a, group_a       # from image to image, and from group to group, in A and its gradient
    idx ld_c, group_c       # in C and its gradient
    idx ld_w

cdef struct Chunk:          # of the inputs of some rows, in a forward pass
    const DenseShape* shape
    idx n_k                 # vectors
    bint first, last
    PrefetchQueue* queue


cdef inline void dense_tile(int rows, const Chunk* part, idx n_units, const real* a, const real* w, real* c,
                            real* z) noexcept nogil:
    """a tile over one chunk; after the last, lanes are folded and stored"""
    cdef real folded[MAX_FOLDED]
    cdef int i
    cdef idx j, ld_a = part.shape.ld_a, ld_w = part.shape.ld_w, ld_c = part.shape.ld_c, bytes_per_step
    cdef const char* lines = next_lines(part.queue, part.n_k, &bytes_per_step)
    if part.first:
        dot_accumulate(rows, ROWS, True, part.n_k, a, ld_a, w, ld_w, lines, bytes_per_step, z)
    else:
        dot_accumulate(rows, ROWS, False, part.n_k, a, ld_a, w, ld_w, lines, bytes_per_step, z)
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


cdef inline void dense_column(const Chunk* part, idx n_units, const real* a, const real* w, real* c,
                              real* z) noexcept nogil:
    """ROWS units against all images"""
    cdef int lanes = lanes_of(a), dot_rows = dot_rows_of(a)
    cdef idx i = 0, ld_a = part.shape.ld_a, ld_c = part.shape.ld_c, rest
    while i + dot_rows <= part.shape.n_images:
        dense_tile(dot_rows, part, n_units, a + i*ld_a, w, c + i*ld_c, z + i*ROWS*lanes)
        i += dot_rows
    rest = part.shape.n_images - i
    if dot_rows > 4 and rest == 4:
        dense_tile(4, part, n_units, a + i*ld_a, w, c + i*ld_c, z + i*ROWS*lanes)
    elif dot_rows > 3 and rest == 3:
        dense_tile(3, part, n_units, a + i*ld_a, w, c + i*ld_c, z + i*ROWS*lanes)
    elif dot_rows > 2 and rest == 2:
        dense_tile(2, part, n_units, a + i*ld_a, w, c + i*ld_c, z + i*ROWS*lanes)
    elif dot_rows > 1 and rest == 1:
        dense_tile(1, part, n_units, a + i*ld_a, w, c + i*ld_c, z + i*ROWS*lanes)


cdef inline void add_bias(idx n_units, const real* bias, bint relu, real* c) noexcept nogil:
    cdef idx j
    if relu:
        for j in range(n_units):
            c[j] = relu_forward(c[j] + bias[j])
    else:
        for j in range(n_units):
            c[j] += bias[j]


cdef inline void dense_chunks(const DenseShape* shape, idx chunk, const real* a, const real* w, real* c, real* z,
                              PrefetchQueue* queue) noexcept nogil:
    cdef idx j = 0, g, k
    cdef Chunk part
    part.shape = shape
    part.queue = queue
    while j < shape.n_units:
        for g in range(shape.n_groups):
            k = 0
            while k < shape.n_inputs:
                part.first = k == 0
                part.last = k + chunk >= shape.n_inputs
                part.n_k = min(chunk, shape.n_inputs - k)//lanes_of(a)
                dense_column(&part, min(ROWS, shape.n_units - j), a + g*shape.group_a + k, w + j*shape.ld_w + k,
                             c + g*shape.group_c + j, z)
                k += chunk
        j += ROWS


cdef void dense_forward(const DenseShape* shape, const real* a, const real* w, const real* bias, bint relu, real* c,
                        real* z, PrefetchQueue* queue) noexcept nogil:
    cdef idx limit = CHUNK_BYTES//<idx>sizeof(real), n_chunks = (shape.n_inputs + limit - 1)//limit, i, g
    cdef idx chunk = ((shape.n_inputs + n_chunks - 1)//n_chunks + PAD - 1)//PAD*PAD
    cdef DenseShape part = shape[0]     # whose numbers the compiler may keep in registers
    dense_chunks(&part, chunk, a, w, c, z, queue)
    for i in range(shape.n_images):
        for g in range(shape.n_groups):
            add_bias(shape.n_units, bias, relu, c + i*shape.ld_c + g*shape.group_c)


cdef void transpose_weights(idx n_units, idx n_inputs, const real* w, idx ld_w, real* transposed,
                            idx ld_transposed) noexcept nogil:
    cdef idx j, k
    for j in range(n_units):
        for k in range(n_inputs):
            transposed[k*ld_transposed + j] = w[j*ld_w + k]


cdef void transposed_forward(const DenseShape* shape, const real* a, const real* transposed, idx ld_transposed,
                             const real* bias, bint relu, real* c) noexcept nogil:
    """at most WORD images of one group; the padding of the units is computed as well"""
    cdef uint64 words[WORD]
    cdef idx k = 0, n, i, j, u, vectors, n_units = shape.ld_c
    cdef Products products
    products.n, products.words = shape.n_images, words
    products.a_row, products.a_q = shape.ld_a, 1
    products.ld_b, products.ld_c, products.ld_ahead = ld_transposed, shape.ld_c, 0
    while k < shape.n_inputs:
        n = min(WORD, shape.n_inputs - k)
        for i in range(shape.n_images):
            words[i] = nonzero(n, a + i*shape.ld_a + k)
        products.ld_start = shape.ld_c if k > 0 else 0
        u = 0
        while u < n_units:
            vectors = first_vectors(sparse_of(a), (n_units - u)//lanes_of(a))
            add_rows(vectors, &products, a + k, transposed + k*ld_transposed + u, c + u if k > 0 else bias + u, c + u,
                     NULL)
            u += vectors*lanes_of(a)
        k += n
    if relu:
        for i in range(shape.n_images):
            for j in range(n_units):
                c[i*shape.ld_c + j] = relu_forward(c[i*shape.ld_c + j])


cdef inline void mask_row(idx n, const real* a, real scale, real* da) noexcept nogil:
    """n is a whole number of vectors: so the compiler needs no loop for a rest, whose branches are unpredictable"""
    cdef real line[MAX_LANES]
    cdef int lane, lanes = lanes_of(a)
    cdef idx k = 0
    while k < n:
        for lane in range(lanes):
            line[lane] = relu_backward(a[k + lane], scale*da[k + lane])
        for lane in range(lanes):
            da[k + lane] = line[lane]
        k += lanes


cdef void dense_backward_input(const DenseShape* shape, const real* dc, const real* w, bint skips, bint masked,
                               const real* a, real scale, real* da) noexcept nogil:
    """At most WORD images of one group. Masked: a went through ReLU (and dropout, with `scale`)."""
    cdef real zeros[MAX_SPARSE*MAX_LANES]
    cdef uint64 words[WORD]
    cdef idx j = 0, n, i, v, vectors, width, ld_a = shape.ld_a
    cdef int lanes = lanes_of(a)
    cdef Products products
    products.n, products.words = shape.n_images, words
    products.a_row, products.a_q = shape.ld_c, 1
    products.ld_b, products.ld_c, products.ld_ahead = shape.ld_w, ld_a, 0
    clear_row(zeros)
    while j < shape.n_units:
        n = min(WORD, shape.n_units - j)
        for i in range(shape.n_images):
            words[i] = nonzero(n, dc + i*shape.ld_c + j) if skips else all_of(n)
        products.ld_start = ld_a if j > 0 else 0
        v = 0
        while v < shape.n_inputs:
            vectors = first_vectors(sparse_of(a), (shape.n_inputs - v)//lanes)
            width = vectors*lanes
            add_rows(vectors, &products, dc + j, w + j*shape.ld_w + v, da + v if j > 0 else &zeros[0], da + v, NULL)
            if masked and j + n == shape.n_units:
                for i in range(shape.n_images):
                    mask_row(width, a + i*ld_a + v, scale, da + i*ld_a + v)
            v += width
        j += n


cdef void add_images(const DenseShape* shape, idx n_images, idx n_units, idx width, const real* dc, const real* a,
                     bint skips, bint first, real* z, const real* ahead) noexcept nogil:
    """z[j, k] (+)= sum_i dC[i, j] * A[i, k] for at most WORD units and images; at `ahead`, if that is not NULL, each
    unit prefetches the columns of an image"""
    cdef real zeros[MAX_SPARSE*MAX_LANES]
    cdef uint64 words[WORD]
    cdef idx i, v = 0, vectors
    cdef Products products
    products.n, products.words = n_units, words
    products.a_row, products.a_q = 1, shape.ld_c
    products.ld_b, products.ld_c, products.ld_ahead = shape.ld_a, width, shape.ld_a
    products.ld_start = 0 if first else width
    clear_row(zeros)
    for i in range(WORD):
        words[i] = 0
    for i in range(n_images):
        words[i] = nonzero(n_units, dc + i*shape.ld_c) if skips else all_of(n_units)
    transpose_bits(words)
    while v < width:
        vectors = first_vectors(sparse_of(a), (width - v)//lanes_of(a))
        add_rows(vectors, &products, dc, a + v, &zeros[0] if first else z + v, z + v,
                 ahead + v if ahead != NULL else NULL)
        v += vectors*lanes_of(a)


cdef double dense_step(const DenseShape* shape, idx width, const real* dc, const real* a, bint skips,
                       const UpdateRule* rule, real* w, real* state, real* z, const real* ahead) noexcept nogil:
    """A panel of `width` columns of the weights; returns the sum of their squares if asked for. `ahead` is where the
    columns of the input begin that come next, or NULL: then none are prefetched."""
    cdef idx limit = sparse_rows(a), n_chunks = (shape.n_images + limit - 1)//limit, n, i, j = 0, m, g, chunk, row
    cdef idx ld_a = shape.ld_a, ld_w = shape.ld_w
    cdef double squares = 0
    cdef const real* rows
    cdef const real* next
    while j < shape.n_units:
        m = min(WORD, shape.n_units - j)
        for g in range(shape.n_groups):
            i = 0
            for chunk in range(n_chunks):
                n = (shape.n_images - i)//(n_chunks - chunk)
                rows = a + i*ld_a + g*shape.group_a
                next = NULL
                if ahead != NULL and j == 0:        # the units that follow find the columns in cache
                    next = (rows + n*ld_a if chunk < n_chunks - 1
                            else a + (g + 1)*shape.group_a if g < shape.n_groups - 1 else ahead)
                add_images(shape, n, m, width, dc + i*shape.ld_c + g*shape.group_c + j, rows, skips, g == 0 and i == 0,
                           z, next)
                i += n
        for row in range(m):
            squares += apply_row(rule, width, z + row*width, w + (j + row)*ld_w, state + (j + row)*ld_w)
        j += m
    return squares


def dense_scratch_size(idx n_images):
    """Elements of ``z`` that a forward pass over so many images, or a step, needs."""
    return max(n_images*ROWS*MAX_LANES, WORD*PANEL)


def fewest_transposed(idx itemsize):
    """Units of a dense layer from which on transposed weights are faster: so many vectors keep a processor busy."""
    return 4*(LANES_FLOAT if itemsize == <idx>sizeof(float) else LANES_DOUBLE)


cdef DenseShape rows_shape(idx n, idx n_units, idx n_inputs, idx ld_c) noexcept nogil:
    """of n rows in one group, of arrays of an entry point"""
    cdef DenseShape shape
    shape.n_images, shape.n_groups, shape.n_units, shape.n_inputs = n, 1, n_units, n_inputs
    shape.ld_a, shape.group_a, shape.ld_c, shape.group_c = n_inputs, 0, ld_c, 0
    shape.ld_w = n_inputs
    return shape


cdef void forward_rows(idx block, const real[:, ::1] inputs, const real[:, ::1] weight, const real[::1] bias, bint relu,
                       real[:, ::1] outputs, real* z) noexcept nogil:
    cdef idx first = block*ENTRY_BLOCK, n_units = outputs.shape[1]
    cdef DenseShape shape = rows_shape(min(ENTRY_BLOCK, inputs.shape[0] - first), n_units, inputs.shape[1], n_units)
    cdef PrefetchQueue queue
    prefetch_nothing(&queue)
    dense_forward(&shape, &inputs[first, 0], &weight[0, 0], &bias[0], relu, &outputs[first, 0], z, &queue)


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


cdef void backward_rows(idx block, const real[:, ::1] masked, idx n_units, const real[:, ::1] inputs,
                        const real[:, ::1] weight, bint skips, real[:, ::1] d_inputs) noexcept nogil:
    cdef idx first = block*ENTRY_BLOCK
    cdef idx n = min(ENTRY_BLOCK, inputs.shape[0] - first)
    cdef DenseShape shape = rows_shape(n, n_units, inputs.shape[1], masked.shape[1])
    dense_backward_input(&shape, &masked[first, 0], &weight[0, 0], skips, False, &inputs[first, 0], <real>1,
                         &d_inputs[first, 0])


cdef void weight_gradient(idx panel, const real[:, ::1] masked, idx n_units, const real[:, ::1] inputs, bint skips,
                          real[:, ::1] d_weight, real* z) noexcept nogil:
    cdef idx begin = panel*PANEL, width = min(PANEL, inputs.shape[1] - begin)
    cdef DenseShape shape = rows_shape(inputs.shape[0], n_units, inputs.shape[1], masked.shape[1])
    cdef UpdateRule rule
    memset(&rule, 0, sizeof(UpdateRule))        # UPDATE_GRADIENT
    dense_step(&shape, width, &masked[0, 0], &inputs[0, begin], skips, &rule, &d_weight[0, begin], &d_weight[0, begin],
               z, NULL)


def dense_backward_rows(const real[:, ::1] d_outputs, const real[:, ::1] inputs, const real[:, ::1] weight,
                        const real[:, ::1] outputs, real[:, ::1] masked, real[:, ::1] d_inputs,
                        real[:, ::1] d_weight, real[::1] d_bias, real[:, ::1] scratch, bint skips, int n_threads):
    """Gradients of a dense layer; ``outputs`` None: no ReLU. ``masked`` (N, padded O) is scratch; ``scratch``: a row a
    thread. ``skips``: zeros add nothing."""
    cdef idx n = inputs.shape[0], n_units = d_outputs.shape[1], i, j, b
    cdef idx n_blocks = (n + ENTRY_BLOCK - 1)//ENTRY_BLOCK, n_panels = (inputs.shape[1] + PANEL - 1)//PANEL
    with nogil:
        for i in range(n):
            for j in range(n_units):
                masked[i, j] = d_outputs[i, j] if outputs is None else relu_backward(outputs[i, j], d_outputs[i, j])
        for j in range(n_units):
            d_bias[j] = 0
        for i in range(n):
            for j in range(n_units):
                d_bias[j] += masked[i, j]
        if n_threads == 1:
            for b in range(n_blocks):
                backward_rows(b, masked, n_units, inputs, weight, skips, d_inputs)
            for b in range(n_panels):
                weight_gradient(b, masked, n_units, inputs, skips, d_weight, &scratch[0, 0])
        else:
            for b in prange(n_blocks, schedule="static", num_threads=n_threads):
                backward_rows(b, masked, n_units, inputs, weight, skips, d_inputs)
            for b in prange(n_panels, schedule="static", num_threads=n_threads):
                weight_gradient(b, masked, n_units, inputs, skips, d_weight, &scratch[threadid(), 0])


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
