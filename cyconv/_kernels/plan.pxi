# Plan: where everything lies that a call works on, and what it works on.
#
# What is computed
#   read_plan   the plan that layout.py drew up, as a struct; the rest are addresses
#
# Layout
#   Parameters lie in one array (see layout.py), as does the optimiser's state, or the gradient, where there is one. The
#   workspace is one array too: tables and transposed weights; a ring of activation buffers, each of which holds for a
#   whole batch the activations `act`, their gradients `grad` (0: the convolution's output; l: hidden layer l; last: the
#   logits) and the blocks' partial filter gradients; then each thread's scratch.
#
# Order
#   No sums.
#
# Ownership
#   All memory belongs to NumPy arrays that the caller keeps alive during the call. Nothing is allocated in the kernels.

cdef enum:
    MAX_DENSE = MAX_HIDDEN + 1

cdef struct Branch:
    idx filter_size, n_patches, n_values, n_filters
    bint patch_inner
    idx ld_x            # patch-innermost: padded patches; patch-major: padded values
    idx x_size          # elements of one image's patches
    idx column          # its first column in the convolution's output
    idx weight, bias    # offsets in the parameters
    idx x               # in the scratch: the patches of a block
    idx batch_x         # in the buffer: the patches of the batch, patch-major only
    idx partials        # patch-innermost: in the buffer, n_filters*(n_values + 1) a block
    idx tables          # in the workspace: what gather_pixels needs

cdef struct Dense:
    idx n_units, n_inputs, ld_w, weight, bias
    idx transposed, ld_transposed       # in the workspace, for evaluation: the transposed weights; negative: not used

cdef struct Task:       # a row of the task table
    long long kind, layer, begin, width

cdef struct Plan:
    # offsets count elements from the start of the workspace, of a buffer in it, or of a thread's scratch
    idx n_branches, n_dense, n_classes, n_tasks
    idx block                           # images of a block, at most
    idx n_blocks                        # of a batch, in training
    Branch[MAX_BRANCHES] branch
    Dense[MAX_DENSE] dense
    idx[MAX_DENSE + 1] ld               # row length of each layer's output
    idx[MAX_DENSE + 1] act              # in the buffer: activations of each layer
    idx[MAX_DENSE + 1] grad             # their gradients; the convolution's only where
    bint keep_grad                      # phase two needs it, for a patch-major branch
    bint thread_local                   # the convolution's output and its patches are in the scratch
    idx buffers, n_buffers, buffer_size  # in the workspace: the ring
    idx h, d_h                          # in the scratch: the convolution's output, and its gradient
    idx scratch, scratch_size           # thread 0's scratch, and the size of each
    idx rows, z                         # in the scratch

cdef struct Batch:
    # what one call works on
    Images images
    Augment augment
    Targets targets
    idx size
    const double* weights               # of the images of this batch, or NULL: all alike
    int n_threads
    double dropout
    uint64 dropout_bits                 # address of (seed, purpose, step)
    double* losses
    int* correct
    double* squares                     # a slot for each task
    void* workspace                     # where the branches' tables are
    const void* data                    # the images, whichever they are, for the prefetch queue
    idx image_bytes, bytes_per_step


cdef inline idx block_start(const Plan* plan, const Batch* batch, idx block) noexcept nogil:
    """the first image of a block of the training step: blocks have as many images as each other, or one more"""
    return block*batch.size//plan.n_blocks


cdef inline real* layer_rows(const Plan* plan, const idx* offsets, real* base, idx i, idx row) noexcept nogil:
    """row `row` of layer i"""
    return base + offsets[i] + row*plan.ld[i]


cdef inline real* conv_output(const Plan* plan, real* base, idx row, real* scratch) noexcept nogil:
    """where a block's output of the convolution is made"""
    return scratch + plan.h if plan.thread_local else layer_rows(plan, plan.act, base, 0, row)


cdef inline real* patches_of(const Plan* plan, const Branch* branch, real* base, idx row, real* scratch) noexcept nogil:
    """where a block's patches are made"""
    if plan.thread_local or branch.patch_inner:
        return scratch + branch.x
    return base + branch.batch_x + row*branch.x_size


cdef DenseShape layer_shape(const Plan* plan, idx l, idx n) noexcept nogil:
    """dense layer l, for n images"""
    cdef const Dense* dense = &plan.dense[l]
    cdef DenseShape shape
    shape.n_images, shape.n_groups, shape.n_units, shape.n_inputs = n, 1, dense.n_units, dense.n_inputs
    shape.ld_a, shape.group_a, shape.ld_c, shape.group_c = plan.ld[l], 0, plan.ld[l + 1], 0
    shape.ld_w = dense.ld_w
    return shape


cdef DenseShape patch_shape(const Plan* plan, const Branch* branch, idx n) noexcept nogil:
    """a patch-major convolution as a dense layer whose groups are patches, for n images"""
    cdef DenseShape shape
    shape.n_images, shape.n_groups, shape.n_units, shape.n_inputs = n, branch.n_patches, branch.n_filters, branch.ld_x
    shape.ld_a, shape.group_a, shape.ld_c, shape.group_c = branch.x_size, branch.ld_x, plan.ld[0], branch.n_filters
    shape.ld_w = branch.ld_x
    return shape


cdef ConvShape conv_shape(const Plan* plan, const Branch* branch, idx n) noexcept nogil:
    """a patch-innermost convolution, for n images"""
    cdef ConvShape shape
    shape.n_images, shape.n_filters = n, branch.n_filters
    shape.n_values, shape.n_patches = branch.n_values, branch.n_patches
    shape.ld_x, shape.x_size, shape.ld_h = branch.ld_x, branch.x_size, plan.ld[0]
    return shape


cdef Plan read_plan(dict description) except *:
    """The plan that layout.py drew up, as a struct."""
    cdef Plan plan
    cdef Branch branch
    cdef Dense dense
    cdef idx i
    if len(description["branches"]) > MAX_BRANCHES or len(description["dense"]) > MAX_DENSE:
        raise ValueError(f"a network has at most {MAX_BRANCHES} filter sizes and {MAX_HIDDEN} hidden layers")
    if not 0 < description["block"] <= MAX_BLOCK:
        raise ValueError(f"a block has at most {MAX_BLOCK} images")
    plan.n_branches = len(description["branches"])
    plan.n_dense = len(description["dense"])
    plan.n_classes = description["n_classes"]
    plan.n_tasks = description["n_tasks"]
    plan.block = description["block"]
    plan.n_blocks = description["n_blocks"]
    for i, values in enumerate(description["branches"]):
        branch = values
        plan.branch[i] = branch
    for i, values in enumerate(description["dense"]):
        dense = values
        plan.dense[i] = dense
    for i in range(plan.n_dense + 1):
        plan.ld[i] = description["ld"][i]
        plan.act[i] = description["act"][i]
        plan.grad[i] = description["grad"][i]
    plan.keep_grad = description["keep_grad"]
    plan.buffers = description["buffers"]
    plan.n_buffers = description["n_buffers"]
    plan.buffer_size = description["buffer_size"]
    plan.h = description["h"]
    plan.d_h = description["d_h"]
    plan.scratch = description["scratch"]
    plan.scratch_size = description["scratch_size"]
    plan.rows = description["rows"]
    plan.z = description["z"]
    return plan
