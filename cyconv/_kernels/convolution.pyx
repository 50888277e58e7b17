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


cdef inline void conv_tile(int rows, int vectors, idx n_d, idx ld_x, const real* weight, const real* bias,
                           const real* x, idx x_v, real* out, idx out_v, Ahead* ahead) noexcept nogil:
    """vectors are x_v apart in x, out_v apart in the output"""
    cdef real acc[MAX_ROWS][MAX_VECTORS][MAX_LANES]
    cdef real line[MAX_LANES]
    cdef int i, v, lane, lanes = lanes_of(weight)
    cdef idx pace
    cdef const char* lines = take_lines(ahead, n_d, &pace)
    outer_accumulate(rows, vectors, n_d, weight, n_d, x, x_v, ld_x, lines, pace, &acc[0][0][0])
    for i in range(rows):
        for v in range(vectors):
            for lane in range(lanes):
                line[lane] = relu_forward(acc[i][v][lane] + bias[i])
            for lane in range(lanes):
                out[v*out_v + i*ld_x + lane] = line[lane]


cdef inline void conv_column(int vectors, idx n_filters, idx n_d, idx ld_x, const real* weight, const real* bias,
                             const real* x, idx x_v, real* out, idx out_v, Ahead* ahead) noexcept nogil:
    """all filters against the same vectors of patches"""
    cdef idx f = 0
    while f + ROWS <= n_filters:
        conv_tile(ROWS, vectors, n_d, ld_x, weight + f*n_d, bias + f, x, x_v, out + f*ld_x, out_v, ahead)
        f += ROWS
    if n_filters - f == 4:
        conv_tile(4, vectors, n_d, ld_x, weight + f*n_d, bias + f, x, x_v, out + f*ld_x, out_v, ahead)
    elif n_filters - f == 3:
        conv_tile(3, vectors, n_d, ld_x, weight + f*n_d, bias + f, x, x_v, out + f*ld_x, out_v, ahead)
    elif n_filters - f == 2:
        conv_tile(2, vectors, n_d, ld_x, weight + f*n_d, bias + f, x, x_v, out + f*ld_x, out_v, ahead)
    elif n_filters - f == 1:
        conv_tile(1, vectors, n_d, ld_x, weight + f*n_d, bias + f, x, x_v, out + f*ld_x, out_v, ahead)


cdef void conv_forward(idx n_images, idx n_filters, idx n_d, idx n_p, idx ld_x, const real* weight,
                       const real* bias, const real* x, idx x_size, real* h, idx ld_h, Ahead* ahead) noexcept nogil:
    """n_p patches of each image, of which the padding to ld_x comes out as zero"""
    cdef int lanes = lanes_of(weight)
    cdef int vectors = vectors_of(weight) if real is float else min(2, vectors_of(weight))  # wider ones leave the registers
    cdef idx image = 0, p, f
    if ld_x == lanes:       # a tile spans several images
        while image + vectors <= n_images:
            conv_column(vectors, n_filters, n_d, ld_x, weight, bias, x + image*x_size, x_size, h + image*ld_h, ld_h,
                        ahead)
            image += vectors
        while vectors > 2 and image + 2 <= n_images:
            conv_column(2, n_filters, n_d, ld_x, weight, bias, x + image*x_size, x_size, h + image*ld_h, ld_h,
                        ahead)
            image += 2
    while image < n_images:
        p = 0
        while p + vectors*lanes <= ld_x:
            conv_column(vectors, n_filters, n_d, ld_x, weight, bias, x + image*x_size + p, lanes,
                        h + image*ld_h + p, lanes, ahead)
            p += vectors*lanes
        while vectors > 2 and p + 2*lanes <= ld_x:
            conv_column(2, n_filters, n_d, ld_x, weight, bias, x + image*x_size + p, lanes, h + image*ld_h + p, lanes,
                        ahead)
            p += 2*lanes
        while p < ld_x:
            conv_column(1, n_filters, n_d, ld_x, weight, bias, x + image*x_size + p, lanes, h + image*ld_h + p, lanes,
                        ahead)
            p += lanes
        image += 1
    if n_p < ld_x:
        for image in range(n_images):
            for f in range(n_filters):
                for p in range(n_p, ld_x):
                    h[image*ld_h + f*ld_x + p] = 0


cdef enum:
    L1_BYTES = 28672    # what a pass of the filters' gradient keeps in the first-level cache

cdef struct Part:       # images of a block whose share of the filters' gradient is summed at a time
    idx n_images, n_d, ld_x, ld_g, x_size
    bint first          # it writes, the others add


cdef inline void filter_gradient_tile(int rows, int columns, const Part* part, idx ld_x, const real* g, const real* x,
                                      real* out) noexcept nogil:
    cdef real t[MAX_ROWS][MAX_VECTORS][MAX_LANES]
    cdef real z[MAX_ROWS*MAX_VECTORS*MAX_LANES]
    cdef real folded[MAX_FOLDED]
    cdef int i, j, lane, lanes = lanes_of(g)
    cdef idx image, q, n_q = ld_x//lanes, n_images = part.n_images, ld_g = part.ld_g, x_size = part.x_size
    for i in range(rows):
        for j in range(columns):
            for lane in range(lanes):
                t[i][j][lane] = 0
    ASSUME(n_images > 0)
    ASSUME(n_q > 0)
    for image in range(n_images):
        for q in range(n_q):
            for i in range(rows):
                for j in range(columns):
                    for lane in range(lanes):
                        t[i][j][lane] += (g[image*ld_g + i*ld_x + q*lanes + lane]
                                          * x[image*x_size + j*ld_x + q*lanes + lane])
    for i in range(rows):
        for j in range(columns):
            for lane in range(lanes):
                z[(i*columns + j)*lanes + lane] = t[i][j][lane]
    fold_lanes(rows*columns, z, folded)
    if not part.first:
        for i in range(rows):
            for j in range(columns):
                folded[i*columns + j] += out[i*part.n_d + j]
    for i in range(rows):
        for j in range(columns):
            out[i*part.n_d + j] = folded[i*columns + j]


cdef inline void filter_gradient_columns(int rows, int columns, const Part* part, idx ld_x, const real* g,
                                         const real* x, idx width, real* out) noexcept nogil:
    """`rows` filters against `width` patch values, `columns` at a time"""
    cdef idx c
    for c in range(width//columns):
        filter_gradient_tile(rows, columns, part, ld_x, g, x + c*columns*ld_x, out + c*columns)


cdef void gradient_tiles(const Part* part, const real* g, const real* x, idx width, real* out) noexcept nogil:
    # a function of its own, as the next: the compiler allocates registers for a function as a whole
    filter_gradient_columns(ROWS, vectors_of(g), part, part.ld_x, g, x, width, out)


cdef void gradient_tiles_pad(const Part* part, const real* g, const real* x, idx width, real* out) noexcept nogil:
    """for so few patches that the inner loop is best unrolled away"""
    filter_gradient_columns(ROWS, vectors_of(g), part, PAD, g, x, width, out)


cdef inline void filter_gradient_panel(int columns, const Part* part, idx n_filters, const real* g, const real* x,
                                       idx width, real* out) noexcept nogil:
    """every filter against `width` patch values, a multiple of `columns`"""
    cdef idx f = 0, ld_x = part.ld_x
    while f + ROWS <= n_filters:
        if columns == 1:
            filter_gradient_columns(ROWS, 1, part, ld_x, g + f*ld_x, x, width, out + f*part.n_d)
        elif ld_x == PAD:
            gradient_tiles_pad(part, g + f*ld_x, x, width, out + f*part.n_d)
        else:
            gradient_tiles(part, g + f*ld_x, x, width, out + f*part.n_d)
        f += ROWS
    if n_filters - f == 4:
        filter_gradient_columns(4, columns, part, ld_x, g + f*ld_x, x, width, out + f*part.n_d)
    elif n_filters - f == 3:
        filter_gradient_columns(3, columns, part, ld_x, g + f*ld_x, x, width, out + f*part.n_d)
    elif n_filters - f == 2:
        filter_gradient_columns(2, columns, part, ld_x, g + f*ld_x, x, width, out + f*part.n_d)
    elif n_filters - f == 1:
        filter_gradient_columns(1, columns, part, ld_x, g + f*ld_x, x, width, out + f*part.n_d)


cdef void filter_gradient(const Part* part, idx n_filters, const real* g, const real* x, real* d_weight) noexcept nogil:
    """panels of X that stay in the first-level cache, while the filters' gradients stream past them"""
    cdef int columns = vectors_of(g)
    cdef idx row_bytes = <idx>sizeof(real)*part.n_images*part.ld_x
    cdef idx d = 0, whole = part.n_d//columns*columns, panel, width
    panel = max(1, (L1_BYTES - row_bytes*ROWS)//(row_bytes*columns))*columns
    while d < whole:
        width = min(panel, whole - d)
        filter_gradient_panel(columns, part, n_filters, g, x + d*part.ld_x, width, d_weight + d)
        d += width
    filter_gradient_panel(1, part, n_filters, g, x + whole*part.ld_x, part.n_d - whole, d_weight + whole)


cdef void conv_backward(idx n_images, idx n_filters, idx n_d, idx ld_x, const real* g, idx ld_g, const real* x,
                        idx x_size, real* d_weight, real* d_bias) noexcept nogil:
    cdef idx f, image = 0, p, i
    cdef idx most = max(1, L1_BYTES//(<idx>sizeof(real)*ld_x*(ROWS + 2*vectors_of(g))))
    cdef idx n_parts = (n_images + most - 1)//most
    cdef Part part
    cdef real lane_sums[MAX_LANES]
    cdef int lane, lanes = lanes_of(g)
    part.n_d = n_d
    part.ld_x = ld_x
    part.ld_g = ld_g
    part.x_size = x_size
    for i in range(n_parts):
        part.first = i == 0
        part.n_images = (n_images - image)//(n_parts - i)
        filter_gradient(&part, n_filters, g + image*ld_g, x + image*x_size, d_weight)
        image += part.n_images
    for f in range(n_filters):
        for lane in range(lanes):
            lane_sums[lane] = 0
        for image in range(n_images):
            for p in range(ld_x//lanes):
                for lane in range(lanes):
                    lane_sums[lane] += g[image*ld_g + f*ld_x + p*lanes + lane]
        d_bias[f] = sum_lanes(lane_sums)


cdef void forward_images(idx first, idx n, const real[:, :, ::1] patches, idx n_patches, const real[:, ::1] weight,
                         const real[::1] bias, real[:, :, ::1] activations) noexcept nogil:
    cdef idx ld_x = patches.shape[2], n_filters = weight.shape[0], n_values = weight.shape[1]
    cdef Ahead ahead
    expect_nothing(&ahead)
    conv_forward(n, n_filters, n_values, n_patches, ld_x, &weight[0, 0], &bias[0], &patches[first, 0, 0],
                 n_values*ld_x, &activations[first, 0, 0], n_filters*ld_x, &ahead)


def patch_matmul_forward(const real[:, :, ::1] patches, idx n_patches, const real[:, ::1] weight,
                         const real[::1] bias, real[:, :, ::1] activations, int n_threads):
    """max(0, weight @ patches + bias); ``patches`` (N, D, padded P) and ``activations`` (N, F, padded P)."""
    cdef idx n = patches.shape[0], n_blocks = (n + ENTRY_BLOCK - 1)//ENTRY_BLOCK, b
    with nogil:
        if n_threads == 1:
            for b in range(n_blocks):
                forward_images(b*ENTRY_BLOCK, min(ENTRY_BLOCK, n - b*ENTRY_BLOCK), patches, n_patches, weight, bias,
                               activations)
        else:
            for b in prange(n_blocks, schedule="static", num_threads=n_threads):
                forward_images(b*ENTRY_BLOCK, min(ENTRY_BLOCK, n - b*ENTRY_BLOCK), patches, n_patches, weight, bias,
                               activations)


cdef void backward_images(idx block, idx n, const real[:, :, ::1] d_activations, const real[:, :, ::1] patches,
                          const real[:, :, ::1] activations, real[:, :, ::1] masked, real[:, ::1] shares) noexcept nogil:
    """one block's share of the gradient: D values a filter, then a bias a filter"""
    cdef idx q, ld_x = patches.shape[2], n_filters = activations.shape[1], n_values = patches.shape[1]
    cdef idx first = block*ENTRY_BLOCK
    cdef const real* h = &activations[first, 0, 0]
    cdef const real* dh = &d_activations[first, 0, 0]
    cdef real* g = &masked[first, 0, 0]
    for q in range(n*n_filters*ld_x):
        g[q] = relu_backward(h[q], dh[q])
    conv_backward(n, n_filters, n_values, ld_x, <const real*>g, n_filters*ld_x, &patches[first, 0, 0], n_values*ld_x,
                  &shares[block, 0], &shares[block, n_filters*n_values])


def patch_matmul_backward(const real[:, :, ::1] d_activations, const real[:, :, ::1] patches,
                          const real[:, :, ::1] activations, real[:, :, ::1] masked, real[:, ::1] shares,
                          int n_threads):
    """Each block's share of d_weight and d_bias, into the rows of ``shares``; the caller adds them in order."""
    cdef idx n = patches.shape[0], n_blocks = shares.shape[0], b
    with nogil:
        if n_threads == 1:
            for b in range(n_blocks):
                backward_images(b, min(ENTRY_BLOCK, n - b*ENTRY_BLOCK), d_activations, patches, activations, masked,
                                shares)
        else:
            for b in prange(n_blocks, schedule="static", num_threads=n_threads):
                backward_images(b, min(ENTRY_BLOCK, n - b*ENTRY_BLOCK), d_activations, patches, activations, masked,
                                shares)
