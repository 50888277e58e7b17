# The patchify convolution, patch-innermost: its filters are few, its patches many.
#
# What is computed, for one block of images (H: activations, g: gradient with respect to H)
#   conv_forward    H[i, f, p] = max(0, bias[f] + sum_d weight[f, d] * X[i, d, p])
#   conv_backward   d_weight[f, d] = sum_{i, p} g[i, f, p] * X[i, d, p];   d_bias[f] = sum_{i, p} g[i, f, p]
#
# Layout
#   X  (images, D, P), images `x_size` and rows `ld_x` apart;   H, g  (images, F, P), filters `ld_x` apart
#   P runs along the vector lanes, so that an odd number of filters wastes none; it is padded to PAD.
#
# Order
#   Forward: tiles of ROWS filters times a few vectors; where one vector holds all patches, a tile spans
#   several images. Backward: tiles of ROWS filters times a few patch values, summed over as many images of the block
#   as the first-level cache holds, in their order, then over these parts; the caller adds the blocks in theirs.


cdef struct ConvShape:          # of a block
    idx n_images, n_filters, n_values, n_patches
    idx ld_x, x_size            # from row to row, and from image to image, in X
    idx ld_h                    # from image to image in H, and in its gradient


cdef inline void conv_tile(int rows, int vectors, const ConvShape* shape, const real* weight, const real* bias,
                           const real* x, idx x_v, real* out, idx out_v, PrefetchQueue* queue) noexcept nogil:
    """vectors are x_v apart in x, out_v apart in the output"""
    cdef real acc[MAX_ROWS*MAX_VECTORS*MAX_LANES]
    cdef real line[MAX_LANES]
    cdef int i, v, lane, lanes = lanes_of(weight)
    cdef idx n_d = shape.n_values, ld_x = shape.ld_x, bytes_per_step
    cdef const char* lines = next_lines(queue, n_d, &bytes_per_step)
    outer_accumulate(rows, vectors, n_d, weight, n_d, x, x_v, ld_x, lines, bytes_per_step, acc)
    for i in range(rows):
        for v in range(vectors):
            for lane in range(lanes):
                line[lane] = relu_forward(acc[(i*vectors + v)*lanes + lane] + bias[i])
            for lane in range(lanes):
                out[v*out_v + i*ld_x + lane] = line[lane]


cdef inline void conv_few(int vectors, const ConvShape* shape, idx n, const real* weight, const real* bias,
                          const real* x, idx x_v, real* out, idx out_v, PrefetchQueue* queue) noexcept nogil:
    """n filters, three at most, against the same vectors of patches"""
    if n == 3:
        conv_tile(3, vectors, shape, weight, bias, x, x_v, out, out_v, queue)
    elif n == 2:
        conv_tile(2, vectors, shape, weight, bias, x, x_v, out, out_v, queue)
    elif n == 1:
        conv_tile(1, vectors, shape, weight, bias, x, x_v, out, out_v, queue)


cdef inline void conv_column(bint few, int vectors, const ConvShape* shape, const real* weight, const real* bias,
                             const real* x, idx x_v, real* out, idx out_v, PrefetchQueue* queue) noexcept nogil:
    """all filters against the same vectors of patches; `few`: there are three at most"""
    cdef idx f = 0, n_d = shape.n_values, ld_x = shape.ld_x
    if not few:
        while f + ROWS <= shape.n_filters:
            conv_tile(ROWS, vectors, shape, weight + f*n_d, bias + f, x, x_v, out + f*ld_x, out_v, queue)
            f += ROWS
        if shape.n_filters - f == 4:
            conv_tile(4, vectors, shape, weight + f*n_d, bias + f, x, x_v, out + f*ld_x, out_v, queue)
            return
    conv_few(vectors, shape, shape.n_filters - f, weight + f*n_d, bias + f, x, x_v, out + f*ld_x, out_v, queue)


cdef inline void conv_images(bint few, int vectors, const ConvShape* shape, const real* weight, const real* bias,
                             const real* x, real* h, PrefetchQueue* queue) noexcept nogil:
    cdef int lanes = lanes_of(weight)
    cdef idx image = 0, p, x_size = shape.x_size, ld_x = shape.ld_x, ld_h = shape.ld_h
    if lanes == PAD and ld_x == lanes:      # a tile spans several images; rows of fewer lanes are never so short
        while image + vectors <= shape.n_images:
            conv_column(few, vectors, shape, weight, bias, x + image*x_size, x_size, h + image*ld_h, ld_h, queue)
            image += vectors
    while image < shape.n_images:
        p = 0
        while p + vectors*lanes <= ld_x:
            conv_column(few, vectors, shape, weight, bias, x + image*x_size + p, lanes, h + image*ld_h + p, lanes,
                        queue)
            p += vectors*lanes
        while p < ld_x:
            conv_column(few, 1, shape, weight, bias, x + image*x_size + p, lanes, h + image*ld_h + p, lanes, queue)
            p += lanes
        image += 1


cdef void conv_forward(const ConvShape* shape, const real* weight, const real* bias, const real* x, real* h,
                       PrefetchQueue* queue) noexcept nogil:
    """the padding of the patches comes out as zero"""
    cdef int vectors = vectors_of(weight) if real is float else min(2, vectors_of(weight))  # more leave the registers
    cdef idx image, f, p, ld_x = shape.ld_x, ld_h = shape.ld_h
    cdef ConvShape own = shape[0]       # whose numbers the compiler may keep in registers
    if real is float and VECTORS_FEW > VECTORS_FLOAT and shape.n_filters <= 3:
        conv_images(True, VECTORS_FEW, &own, weight, bias, x, h, queue)
    else:
        conv_images(False, vectors, &own, weight, bias, x, h, queue)
    if shape.n_patches < ld_x:
        for image in range(shape.n_images):
            for f in range(shape.n_filters):
                for p in range(shape.n_patches, ld_x):
                    h[image*ld_h + f*ld_x + p] = 0


cdef enum:
    L1_BYTES = 28672    # what a pass of the filters' gradient keeps in the first-level cache

cdef struct Part:       # images of a block whose filter gradients are summed at a time
    ConvShape shape
    bint first          # it writes, the others add


cdef inline void filter_gradient_tile(int rows, int columns, const Part* part, idx ld_x, const real* g, const real* x,
                                      real* out) noexcept nogil:
    cdef real z[MAX_ROWS*MAX_VECTORS*MAX_LANES]
    cdef real folded[MAX_FOLDED]
    cdef int i, j
    filters_accumulate(rows, columns, part.shape.n_images, ld_x//lanes_of(g), g, part.shape.ld_h, x, part.shape.x_size,
                       ld_x, z)
    fold_lanes(rows*columns, z, folded)
    if not part.first:
        for i in range(rows):
            for j in range(columns):
                folded[i*columns + j] += out[i*part.shape.n_values + j]
    for i in range(rows):
        for j in range(columns):
            out[i*part.shape.n_values + j] = folded[i*columns + j]


cdef inline void filter_gradient_columns(int rows, int columns, const Part* part, idx ld_x, const real* g,
                                         const real* x, idx width, real* out) noexcept nogil:
    """`rows` filters against `width` patch values, `columns` at a time"""
    cdef idx c
    for c in range(width//columns):
        filter_gradient_tile(rows, columns, part, ld_x, g, x + c*columns*ld_x, out + c*columns)


cdef void gradient_tiles(const Part* part, const real* g, const real* x, idx width, real* out) noexcept nogil:
    # a function of its own: the compiler allocates registers for a function as a whole
    filter_gradient_columns(ROWS, vectors_of(g), part, part.shape.ld_x, g, x, width, out)


cdef inline void filter_gradient_panel(int columns, const Part* part, const real* g, const real* x, idx width,
                                       real* out) noexcept nogil:
    """every filter against `width` patch values, a multiple of `columns`"""
    cdef idx f = 0, ld_x = part.shape.ld_x, n_d = part.shape.n_values, rest
    while f + ROWS <= part.shape.n_filters:
        if columns == 1:
            filter_gradient_columns(ROWS, 1, part, ld_x, g + f*ld_x, x, width, out + f*n_d)
        else:
            gradient_tiles(part, g + f*ld_x, x, width, out + f*n_d)
        f += ROWS
    rest = part.shape.n_filters - f
    if rest == 4:
        filter_gradient_columns(4, columns, part, ld_x, g + f*ld_x, x, width, out + f*n_d)
    elif rest == 3:
        filter_gradient_columns(3, columns, part, ld_x, g + f*ld_x, x, width, out + f*n_d)
    elif rest == 2:
        filter_gradient_columns(2, columns, part, ld_x, g + f*ld_x, x, width, out + f*n_d)
    elif rest == 1:
        filter_gradient_columns(1, columns, part, ld_x, g + f*ld_x, x, width, out + f*n_d)


cdef void filter_gradient(const Part* part, const real* g, const real* x, real* d_weight) noexcept nogil:
    """panels of X that stay in the first-level cache, while the filters' gradients stream past them"""
    cdef int columns = vectors_of(g)
    cdef idx ld_x = part.shape.ld_x, n_d = part.shape.n_values
    cdef idx row_bytes = <idx>sizeof(real)*part.shape.n_images*ld_x
    cdef idx d = 0, whole = n_d//columns*columns, panel, width
    panel = max(1, (L1_BYTES - row_bytes*ROWS)//(row_bytes*columns))*columns
    while d < whole:
        width = min(panel, whole - d)
        filter_gradient_panel(columns, part, g, x + d*ld_x, width, d_weight + d)
        d += width
    filter_gradient_panel(1, part, g, x + whole*ld_x, n_d - whole, d_weight + whole)


cdef void conv_backward(const ConvShape* shape, const real* g, const real* x, real* d_weight,
                        real* d_bias) noexcept nogil:
    cdef idx f, image = 0, p, i, ld_x = shape.ld_x, ld_g = shape.ld_h, n_images = shape.n_images
    cdef idx limit = max(1, L1_BYTES//(<idx>sizeof(real)*ld_x*(ROWS + 2*vectors_of(g))))
    cdef idx n_parts = (n_images + limit - 1)//limit
    cdef Part part
    cdef real lane_sums[MAX_LANES]
    cdef int lane, lanes = lanes_of(g)
    part.shape = shape[0]
    for i in range(n_parts):
        part.first = i == 0
        part.shape.n_images = (n_images - image)//(n_parts - i)
        filter_gradient(&part, g + image*ld_g, x + image*shape.x_size, d_weight)
        image += part.shape.n_images
    for f in range(shape.n_filters):
        for lane in range(lanes):
            lane_sums[lane] = 0
        for image in range(n_images):
            for p in range(ld_x//lanes):
                for lane in range(lanes):
                    lane_sums[lane] += g[image*ld_g + f*ld_x + p*lanes + lane]
        d_bias[f] = sum_lanes(lane_sums)


cdef ConvShape entry_shape(idx block, const real[:, :, ::1] patches, idx n_patches, idx n_filters) noexcept nogil:
    """of one iteration of an entry point's loop"""
    cdef ConvShape shape
    shape.n_images = min(ENTRY_BLOCK, patches.shape[0] - block*ENTRY_BLOCK)
    shape.n_filters = n_filters
    shape.n_values = patches.shape[1]
    shape.n_patches = n_patches
    shape.ld_x = patches.shape[2]
    shape.x_size = shape.n_values*shape.ld_x
    shape.ld_h = n_filters*shape.ld_x
    return shape


cdef void forward_images(idx block, const real[:, :, ::1] patches, idx n_patches, const real[:, ::1] weight,
                         const real[::1] bias, real[:, :, ::1] activations) noexcept nogil:
    cdef ConvShape shape = entry_shape(block, patches, n_patches, weight.shape[0])
    cdef idx first = block*ENTRY_BLOCK
    cdef PrefetchQueue queue
    prefetch_nothing(&queue)
    conv_forward(&shape, &weight[0, 0], &bias[0], &patches[first, 0, 0], &activations[first, 0, 0], &queue)


def patch_matmul_forward(const real[:, :, ::1] patches, idx n_patches, const real[:, ::1] weight,
                         const real[::1] bias, real[:, :, ::1] activations, int n_threads):
    """max(0, weight @ patches + bias); ``patches`` (N, D, padded P) and ``activations`` (N, F, padded P)."""
    cdef idx n_blocks = (patches.shape[0] + ENTRY_BLOCK - 1)//ENTRY_BLOCK, b
    with nogil:
        if n_threads == 1:
            for b in range(n_blocks):
                forward_images(b, patches, n_patches, weight, bias, activations)
        else:
            for b in prange(n_blocks, schedule="static", num_threads=n_threads):
                forward_images(b, patches, n_patches, weight, bias, activations)


cdef void backward_images(idx block, const real[:, :, ::1] d_activations, const real[:, :, ::1] patches,
                          const real[:, :, ::1] activations, real[:, :, ::1] masked,
                          real[:, ::1] partials) noexcept nogil:
    """one block's partial gradient: D values a filter, then a bias a filter"""
    cdef ConvShape shape = entry_shape(block, patches, patches.shape[2], activations.shape[1])
    cdef idx q, first = block*ENTRY_BLOCK
    cdef const real* h = &activations[first, 0, 0]
    cdef const real* dh = &d_activations[first, 0, 0]
    cdef real* g = &masked[first, 0, 0]
    for q in range(shape.n_images*shape.ld_h):
        g[q] = relu_backward(h[q], dh[q])
    conv_backward(&shape, <const real*>g, &patches[first, 0, 0], &partials[block, 0],
                  &partials[block, shape.n_filters*shape.n_values])


def patch_matmul_backward(const real[:, :, ::1] d_activations, const real[:, :, ::1] patches,
                          const real[:, :, ::1] activations, real[:, :, ::1] masked, real[:, ::1] partials,
                          int n_threads):
    """Each block's part of d_weight and d_bias, into the rows of ``partials``; the caller adds them in order."""
    cdef idx n_blocks = partials.shape[0], b
    with nogil:
        if n_threads == 1:
            for b in range(n_blocks):
                backward_images(b, d_activations, patches, activations, masked, partials)
        else:
            for b in prange(n_blocks, schedule="static", num_threads=n_threads):
                backward_images(b, d_activations, patches, activations, masked, partials)
