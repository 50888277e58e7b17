# Forward: a block of images through the network, for training and for evaluation.
#
# What is computed
#   forward_block   gather, convolution, hidden layers with dropout, logits
#   fill_...        before a call: what the gather and evaluation's layers want laid out otherwise
#
# Layout
#   See plan.pxi. Where a block's results are its thread's alone, they are made in the thread's scratch.
#
# Order of sums
#   That of the layers: convolution.pyx and dense.pyx. It does not depend on the block.
#
# Ownership
#   A block writes its own rows, and its thread's scratch.

cdef void fill_branch_tables(const Plan* plan, const Batch* batch, real* workspace) noexcept nogil:
    cdef const Branch* branch
    cdef idx b
    for b in range(plan.n_branches):
        branch = &plan.branch[b]
        if has_fast_path(&batch.images, &batch.augment, branch.filter_size, branch.patch_inner):
            fill_tables(&batch.images, branch.filter_size, branch.patch_inner, workspace + branch.tables)


cdef void transpose_inputs(const Dense* dense, idx begin, const real* params, real* workspace) noexcept nogil:
    """PAD inputs of a layer from `begin` on"""
    transpose_weights(dense.n_units, PAD, params + dense.weight + begin, dense.ld_w,
                      workspace + dense.transposed + begin*dense.ld_transposed, dense.ld_transposed)


cdef void fill_transposed(const Plan* plan, const real* params, real* workspace, int n_threads) noexcept nogil:
    cdef const Dense* dense
    cdef idx l, p
    for l in range(plan.n_dense):
        dense = &plan.dense[l]
        if dense.transposed >= 0 and n_threads == 1:
            for p in range(dense.n_inputs//PAD):
                transpose_inputs(dense, p*PAD, params, workspace)
        elif dense.transposed >= 0:
            for p in prange(dense.n_inputs//PAD, schedule="static", num_threads=n_threads):
                transpose_inputs(dense, p*PAD, params, workspace)


cdef inline bint can_prefetch(const Branch* branch) noexcept nogil:
    """whether a convolution's tiles can request lines: short ones take their own as fast as the second-level cache
    gives, and requests are lost"""
    return not branch.patch_inner or branch.n_values >= 32


cdef void plan_prefetch(Batch* batch, const Plan* plan, const real* tag) noexcept nogil:
    """an image's lines spread over the steps of all tiles that it goes through; a quarter faster, since a tile's last
    steps may request in vain"""
    cdef const Images* images = &batch.images
    cdef idx b, l
    cdef double n_steps = 0
    batch.data = images.pixels if images.pixels != NULL else images.values
    batch.image_bytes = images.channels*images.height*images.width*(1 if images.pixels != NULL else <idx>sizeof(real))
    for b in range(plan.n_branches):
        if can_prefetch(&plan.branch[b]):
            n_steps += plan.branch[b].n_filters*plan.branch[b].n_values*plan.branch[b].n_patches
    for l in range(plan.n_dense):
        if plan.dense[l].transposed < 0:
            n_steps += plan.dense[l].n_units*plan.dense[l].n_inputs
    n_steps /= ROWS*dot_rows_of(tag)*lanes_of(tag)
    batch.bytes_per_step = min(64, 1 + <idx>(1.25*batch.image_bytes/n_steps)) if n_steps > 0 else 0


cdef void forward_block(const Plan* plan, const Batch* batch, const real* params, const long long* order, idx first,
                        idx n, idx row, real* base, real* scratch, PrefetchQueue* queue) noexcept nogil:
    """Images order[0..n), or first..first+n where there is no order, through the network, into conv_output and rows
    row..row+n of every other layer at `base`."""
    cdef const Branch* branch
    cdef const Dense* dense
    cdef real* own
    cdef real* c
    cdef real* h = conv_output(plan, base, row, scratch)
    cdef idx b, i, l, image
    cdef bint last
    cdef ConvShape convolution
    cdef DenseShape shape
    cdef PrefetchQueue nothing
    prefetch_nothing(&nothing)
    for b in range(plan.n_branches):
        branch = &plan.branch[b]
        own = patches_of(plan, branch, base, row, scratch)
        if has_fast_path(&batch.images, &batch.augment, branch.filter_size, branch.patch_inner):
            gather_pixels(&batch.images, order, first, n, branch.filter_size, branch.patch_inner,
                          <const real*>batch.workspace + branch.tables, branch.x_size, own)
        else:
            for i in range(n):
                image = order[i] if order != NULL else first + i
                gather_image(&batch.images, image, &batch.augment, branch.filter_size, branch.patch_inner, branch.ld_x,
                             scratch + plan.rows, own + i*branch.x_size)
        if branch.patch_inner:
            convolution = conv_shape(plan, branch, n)
            conv_forward(&convolution, params + branch.weight, params + branch.bias, own, h + branch.column,
                         queue if can_prefetch(branch) else &nothing)
        else:
            shape = patch_shape(plan, branch, n)
            dense_forward(&shape, own, params + branch.weight, params + branch.bias, True, h + branch.column,
                          scratch + plan.z, queue)
    for l in range(plan.n_dense):
        dense = &plan.dense[l]
        last = l == plan.n_dense - 1
        c = layer_rows(plan, plan.act, base, l + 1, row)
        shape = layer_shape(plan, l, n)
        if dense.transposed >= 0:
            transposed_forward(&shape, h, <const real*>batch.workspace + dense.transposed, dense.ld_transposed,
                               params + dense.bias, not last, c)
        else:
            dense_forward(&shape, h, params + dense.weight, params + dense.bias, not last, c, scratch + plan.z, queue)
        if batch.dropout > 0 and not last:
            drop_units(n, dense.n_units, plan.ld[l + 1], c, batch.dropout, batch.dropout_bits, row, l)
        h = c
