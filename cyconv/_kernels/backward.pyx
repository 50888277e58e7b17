# Backward: phase one of an update, a block of images forward and back.
#
# What is computed
#   phase_one   forward, softmax and loss; back to the gradient with respect to every layer's output; and the block's
#               partial filter gradients
#
# Layout
#   See plan.pxi.
#
# Order of sums
#   That of the layers: a sum over units runs in their order, one over images in the order of the block.
#
# Between threads
#   What phase one writes, other threads read in phase two, and a core that writes a line again must first take it back
#   from their caches. Cores with a shared last-level cache: updates take turns in a ring of buffers, so that the lines
#   have left the cores' own caches by then. Cores with none: a block's patches and the convolution's output are
#   thread-local, made and used in the scratch, and what phase two needs of them is written back by non-temporal stores,
#   as are the updated weights. The caller says which; it changes no bit.

cdef void write_back(const Plan* plan, idx n, idx first, const real* scratch, real* buffer) noexcept nogil:
    """what phase two needs of a block of n images"""
    cdef const Branch* branch
    cdef idx b
    stream(n*plan.ld[0], scratch + plan.h, layer_rows(plan, plan.act, buffer, 0, first))
    if plan.keep_grad:
        stream(n*plan.ld[0], scratch + plan.d_h, layer_rows(plan, plan.grad, buffer, 0, first))
    for b in range(plan.n_branches):
        branch = &plan.branch[b]
        if not branch.patch_inner:
            stream(n*branch.x_size, scratch + branch.x, buffer + branch.batch_x + first*branch.x_size)
    end_stream()


cdef void phase_one(const Plan* plan, const Batch* batch, const real* params, const long long* order, idx block,
                    PrefetchQueue* queue, real* buffer, real* scratch) noexcept nogil:
    """one block of the batch, forward and back, while the images in the queue are prefetched"""
    cdef idx first = block_start(plan, batch, block), n = block_start(plan, batch, block + 1) - first, l, b
    cdef idx top = plan.n_dense
    cdef const Branch* branch
    cdef ConvShape convolution
    cdef DenseShape shape
    cdef real* logits = layer_rows(plan, plan.act, buffer, top, first)
    cdef real* a
    cdef real* d_h = scratch + plan.d_h
    cdef real* partials
    cdef real scale = <real>(1.0/(1.0 - batch.dropout))
    if plan.keep_grad and not plan.thread_local:
        d_h = layer_rows(plan, plan.grad, buffer, 0, first)
    forward_block(plan, batch, params, order + first, first, n, first, buffer, scratch, queue)
    softmax_rows(n, plan.n_classes, plan.ld[top], logits, &batch.targets, order + first, first, batch.losses + first,
                 batch.correct + first)
    softmax_gradient_rows(n, plan.n_classes, plan.ld[top], logits, &batch.targets, order + first, first,
                          1.0/batch.size, batch.weights, layer_rows(plan, plan.grad, buffer, top, first))
    for l in range(top - 1, -1, -1):
        a = layer_rows(plan, plan.act, buffer, l, first) if l > 0 else conv_output(plan, buffer, first, scratch)
        shape = layer_shape(plan, l, n)
        dense_backward_input(&shape, layer_rows(plan, plan.grad, buffer, l + 1, first), params + plan.dense[l].weight,
                             True, True, a, scale if l > 0 else <real>1,
                             layer_rows(plan, plan.grad, buffer, l, first) if l > 0 else d_h)
    for b in range(plan.n_branches):
        branch = &plan.branch[b]
        if branch.patch_inner:
            partials = buffer + branch.partials + block*branch.n_filters*(branch.n_values + 1)
            convolution = conv_shape(plan, branch, n)
            conv_backward(&convolution, d_h + branch.column, scratch + branch.x, partials,
                          partials + branch.n_filters*branch.n_values)
    if plan.thread_local:
        write_back(plan, n, first, scratch, buffer)
