# Backward: phase one of an update, a block of images forward and back.
#
# What is computed
#   phase_one   forward, softmax and loss; back to the gradient with respect to every layer's output; and the block's
#               share of the filters' gradient
#
# Layout
#   See plan.pxi.
#
# Order of sums
#   That of the layers: a sum over units runs in their order, one over images in the order of the block.
#
# Between threads
#   What phase one writes, other threads read in phase two, and a core that writes a line again must first take it back
#   from their caches. Cores that share a cache: updates take turns in several areas, so that the lines have left the
#   cores' own caches by then. Cores that share none: a block's patches and level 0 are made and used in its thread's
#   scratch, and what phase two needs of them is published, streamed past the caches, as are the updated weights.
#   The caller says which; it changes no bit.

cdef void publish(const Plan* plan, idx n, idx first, const real* scratch, real* area) noexcept nogil:
    """what phase two needs of a block of n images"""
    cdef const Branch* branch
    cdef idx b
    stream(n*plan.ld[0], scratch + plan.h, level(plan, plan.act, area, 0, first))
    if plan.keep_grad:
        stream(n*plan.ld[0], scratch + plan.d_h, level(plan, plan.grad, area, 0, first))
    for b in range(plan.n_branches):
        branch = &plan.branch[b]
        if not branch.patch_inner:
            stream(n*branch.x_size, scratch + branch.x, area + branch.batch_x + first*branch.x_size)
    end_stream()


cdef void phase_one(const Plan* plan, const Batch* batch, const real* params, const long long* order, idx block,
                    Ahead* ahead, real* area, real* scratch) noexcept nogil:
    """one block of the batch, forward and back; on the way, ask for the images `ahead`"""
    cdef idx first = block*plan.block, n = min(plan.block, batch.size - block*plan.block), l, b
    cdef idx top = plan.n_dense
    cdef const Branch* branch
    cdef ConvShape convolution
    cdef DenseShape shape
    cdef real* logits = level(plan, plan.act, area, top, first)
    cdef real* a
    cdef real* d_h = scratch + plan.d_h
    cdef real* shares
    cdef real scale = <real>(1.0/(1.0 - batch.dropout))
    if plan.keep_grad and not plan.private:
        d_h = level(plan, plan.grad, area, 0, first)
    forward_block(plan, batch, params, order + first, first, n, first, area, scratch, ahead)
    softmax_rows(n, plan.n_classes, plan.ld[top], logits, &batch.targets, order + first, first, batch.losses + first,
                 batch.correct + first)
    softmax_gradient_rows(n, plan.n_classes, plan.ld[top], logits, &batch.targets, order + first, first,
                          1.0/batch.size, level(plan, plan.grad, area, top, first))
    for l in range(top - 1, -1, -1):
        a = level(plan, plan.act, area, l, first) if l > 0 else level_0(plan, area, first, scratch)
        shape = layer_shape(plan, l, n)
        dense_backward_input(&shape, level(plan, plan.grad, area, l + 1, first), params + plan.dense[l].weight, True, True,
                             a, scale if l > 0 else <real>1, level(plan, plan.grad, area, l, first) if l > 0 else d_h)
    for b in range(plan.n_branches):
        branch = &plan.branch[b]
        if branch.patch_inner:
            shares = area + branch.shares + block*branch.n_filters*(branch.n_values + 1)
            convolution = conv_shape(plan, branch, n)
            conv_backward(&convolution, d_h + branch.column, scratch + branch.x, shares,
                          shares + branch.n_filters*branch.n_values)
    if plan.private:
        publish(plan, n, first, scratch, area)
