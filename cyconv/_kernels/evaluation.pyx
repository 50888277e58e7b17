# Evaluation: phase one's forward half, on blocks of its own.
#
# What is computed
#   evaluate   loss and hit of every image, and its probabilities where asked
#
# Layout
#   See plan.pxi: every layer's output of a block is in its thread's scratch.
#
# Order of sums
#   An image's numbers depend on no other image, so that blocks may be of any size and go to any thread.
#
# Ownership
#   As in training.

cdef void evaluate_block(const Plan* plan, const Batch* batch, const real* params, idx n, idx block, real* scratch,
                         real* probabilities) noexcept nogil:
    cdef idx first = block*plan.block, m = min(plan.block, n - block*plan.block), i, k
    cdef real* out = scratch + plan.act[plan.n_dense]
    cdef PrefetchQueue queue
    cdef idx next_n = min(plan.block, n - first - m)        # images that lie one behind the other, as if they were one
    begin_prefetch(&queue, <const char*>batch.data + (first + m)*batch.image_bytes, next_n*batch.image_bytes,
                   batch.bytes_per_step, NULL, 0, 1 if next_n > 0 else 0)
    forward_block(plan, batch, params, NULL, first, m, 0, scratch, scratch, &queue)
    softmax_rows(m, plan.n_classes, plan.ld[plan.n_dense], out, &batch.targets, NULL, first,
                 batch.losses + first, batch.correct + first)
    if probabilities != NULL:
        for i in range(m):
            for k in range(plan.n_classes):
                probabilities[(first + i)*plan.n_classes + k] = out[i*plan.ld[plan.n_dense] + k]


def evaluate(dict plan, const real[::1] params, real[::1] workspace, const unsigned char[:, :, :, ::1] pixels,
             const real[:, :, :, ::1] values, const real[:, :, ::1] scale, const real[:, :, ::1] offset,
             const real[:, :, ::1] centre, const int[::1] labels, const real[:, ::1] soft, double[::1] losses,
             int[::1] correct, real[:, ::1] probabilities, int n_threads):
    """Loss and hit of every image, and its probabilities where there is an array for them."""
    cdef Plan own = read_plan(plan)
    cdef Batch batch
    cdef idx n = losses.shape[0], n_blocks = (n + own.block - 1)//own.block, b
    cdef real* base = &workspace[0]
    cdef real* out = NULL if probabilities is None else &probabilities[0, 0]
    batch.images = images_of[real](pixels, values, scale, offset, centre)
    own.thread_local = True
    batch.augment = augment_of(None)
    batch.targets = targets_of[real](labels, soft, 1, 0)
    batch.size = n
    batch.n_threads = n_threads
    batch.dropout = 0
    batch.losses = &losses[0]
    batch.correct = &correct[0]
    batch.workspace = base
    with nogil:
        fill_branch_tables(&own, &batch, base)
        fill_transposed(&own, &params[0], base, n_threads)
        plan_prefetch(&batch, &own, <const real*>base)
        if n_threads == 1:
            for b in range(n_blocks):
                evaluate_block(&own, &batch, &params[0], n, b, base + own.scratch, out)
        else:
            for b in prange(n_blocks, schedule="dynamic", num_threads=n_threads):
                evaluate_block(&own, &batch, &params[0], n, b, base + own.scratch + threadid()*own.scratch_size, out)
