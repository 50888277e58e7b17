# The training step: many updates in one call, in one parallel region.
#
# What is computed, per update
#   Phase one, over fixed blocks of images: gather, convolution, hidden layers, output, softmax, loss; back to
#   the gradient with respect to every layer's output; and the block's share of the filters' gradient.
#   Phase two, over fixed tiles of the parameters: each tile of a dense weight matrix sums its gradient over the
#   whole batch in registers and applies the update at once, so that no gradient array is ever written; the
#   filters' shares are added over the blocks, in block order, and applied.
#   A barrier stands after each phase. Evaluation is phase one's forward half on blocks of its own.
#
# Between threads
#   They wait for each other at a barrier of ours (barrier.pxi), not at the end of OpenMP loops.
#   What phase one writes, other threads read in phase two, and a core that writes a line again must first take it
#   back from their caches. Cores that share a cache: updates take turns in several areas, so that the lines have
#   left the cores' own caches by then. Cores far apart: a block's patches and level 0 are made and used in its
#   thread's scratch, and what phase two needs of them is published, streamed past the caches, as are the updated
#   weights. The caller says which; it changes no bit.
#
# Same bits for any number of threads
#   Blocks and tiles depend on the network and the batch size alone; every element is summed by one thread in
#   one order. Threads share nothing but what the barriers separate.
#
# Layout
#   Parameters lie in one array (see layout.py), as do the velocity or the gradient where there is one. The
#   workspace is one array too: in an area for the whole batch the activations `act`, their gradients `grad` (level 0:
#   the convolution's output; level l: hidden layer l; last: the logits) and the shares; then each thread's scratch.
#
# Ownership
#   All memory belongs to NumPy arrays that the caller keeps alive during the call. Nothing is allocated here.

cdef enum:
    MAX_DENSE = MAX_HIDDEN + 1

cdef struct Branch:
    idx filter_size, n_patches, n_values, n_filters
    bint patch_inner
    idx ld_x            # patch-innermost: padded patches; patch-major: padded values
    idx x_size          # elements of one image's patches
    idx column          # first column in level 0
    idx weight, bias    # offsets in the parameters
    idx x               # in the scratch: the patches of a block
    idx batch_x         # in the area: the patches of the batch, patch-major only
    idx shares          # patch-innermost: in the area, n_filters*(n_values + 1) a block
    idx tables          # in the workspace: what gather_pixels needs

cdef struct Dense:
    idx n_units, n_inputs, ld_w, weight, bias
    idx turned, ld_turned       # in the workspace, for evaluation: the turned weights; negative where they are not used

cdef struct Task:       # a row of the task table
    long long kind, layer, begin, width

cdef struct Plan:
    # offsets count elements from the start of the workspace, of an area in it, or of a thread's scratch
    idx n_branches, n_dense, n_classes, n_tasks, block
    Branch[MAX_BRANCHES] branch
    Dense[MAX_DENSE] dense
    idx[MAX_DENSE + 1] ld               # row length of each level
    idx[MAX_DENSE + 1] act              # in the area: activations of each level
    idx[MAX_DENSE + 1] grad             # their gradients; level 0's only where
    bint keep_grad                      # phase two needs it, for a patch-major branch
    bint private                        # level 0 and the patches are made in the scratch
    idx areas, n_areas, area_size       # in the workspace
    idx h, d_h                          # in the scratch: level 0 of a block, and its gradient
    idx scratch, scratch_size           # thread 0's scratch, and the size of each
    idx rows, z                         # in the scratch

cdef struct Batch:
    # what one call works on
    Images images
    Augment augment
    Targets targets
    idx size
    int n_threads
    double dropout
    uint64 dropout_bits                 # address of (seed, purpose, step)
    double* losses
    int* correct
    double* squares                     # a slot for each task
    void* workspace                     # where the branches' tables are
    const void* data                    # the images, whichever they are, for requests ahead
    idx image_bytes, pace


cdef inline real* level(const Plan* plan, const idx* offsets, real* base, idx i, idx row) noexcept nogil:
    """row `row` of level i"""
    return base + offsets[i] + row*plan.ld[i]


cdef inline real* level_0(const Plan* plan, real* base, idx row, real* scratch) noexcept nogil:
    """where a block's activations of level 0 are made"""
    return scratch + plan.h if plan.private else level(plan, plan.act, base, 0, row)


cdef void drop_units(idx n, idx n_units, idx ld, real* a, double dropout, uint64 step_bits, idx first,
                     idx layer) noexcept nogil:
    """inverted dropout; 32 addressed bits a unit"""
    cdef idx i, j
    cdef uint64 bits, row_bits
    cdef uint64 threshold = <uint64>(dropout*4294967296.0)
    cdef real scale = <real>(1.0/(1.0 - dropout))
    for i in range(n):
        row_bits = address(address(step_bits, <uint64>(first + i)), <uint64>layer)
        for j in range((n_units + 1)//2):
            bits = address(row_bits, <uint64>j)
            a[i*ld + 2*j] = 0 if (bits & <uint64>0xffffffff) < threshold else a[i*ld + 2*j]*scale
            if 2*j + 1 < n_units:
                a[i*ld + 2*j + 1] = 0 if (bits >> 32) < threshold else a[i*ld + 2*j + 1]*scale


cdef void fill_branch_tables(const Plan* plan, const Batch* batch, real* workspace) noexcept nogil:
    cdef const Branch* branch
    cdef idx b
    for b in range(plan.n_branches):
        branch = &plan.branch[b]
        if is_plain(&batch.images, &batch.augment, branch.filter_size, branch.patch_inner):
            fill_tables(&batch.images, branch.filter_size, branch.patch_inner, workspace + branch.tables)


cdef void turn_inputs(const Dense* dense, idx begin, const real* params, real* workspace) noexcept nogil:
    """PAD inputs of a layer from `begin` on"""
    turn_weights(dense.n_units, PAD, params + dense.weight + begin, dense.ld_w,
                 workspace + dense.turned + begin*dense.ld_turned, dense.ld_turned)


cdef void fill_turned(const Plan* plan, const real* params, real* workspace, int n_threads) noexcept nogil:
    cdef const Dense* dense
    cdef idx l, p
    for l in range(plan.n_dense):
        dense = &plan.dense[l]
        if dense.turned >= 0 and n_threads == 1:
            for p in range(dense.n_inputs//PAD):
                turn_inputs(dense, p*PAD, params, workspace)
        elif dense.turned >= 0:
            for p in prange(dense.n_inputs//PAD, schedule="static", num_threads=n_threads):
                turn_inputs(dense, p*PAD, params, workspace)


cdef inline real* patches_of(const Plan* plan, const Branch* branch, real* base, idx row, real* scratch) noexcept nogil:
    """where a block's patches are made"""
    if plan.private or branch.patch_inner:
        return scratch + branch.x
    return base + branch.batch_x + row*branch.x_size


cdef inline bint has_time(const Branch* branch) noexcept nogil:
    """whether a convolution's tiles can ask for lines: short ones take their own as fast as the second-level cache
    gives, and requests are lost"""
    return not branch.patch_inner or branch.n_values >= 32


cdef void pace_requests(Batch* batch, const Plan* plan, const real* tag) noexcept nogil:
    """an image's lines spread over the steps of all tiles that it goes through; a quarter faster, since a tile's last
    steps may ask in vain"""
    cdef const Images* images = &batch.images
    cdef idx b, l
    cdef double n_steps = 0
    batch.data = images.pixels if images.pixels != NULL else images.values
    batch.image_bytes = images.channels*images.height*images.width*(1 if images.pixels != NULL else <idx>sizeof(real))
    for b in range(plan.n_branches):
        if has_time(&plan.branch[b]):
            n_steps += plan.branch[b].n_filters*plan.branch[b].n_values*plan.branch[b].n_patches
    for l in range(plan.n_dense):
        if plan.dense[l].turned < 0:
            n_steps += plan.dense[l].n_units*plan.dense[l].n_inputs
    n_steps /= ROWS*dot_rows_of(tag)*lanes_of(tag)
    batch.pace = min(64, 1 + <idx>(1.25*batch.image_bytes/n_steps)) if n_steps > 0 else 0


cdef void forward_block(const Plan* plan, const Batch* batch, const real* params, const long long* order, idx first,
                        idx n, idx row, real* base, real* scratch, Ahead* ahead) noexcept nogil:
    """Images order[0..n), or first..first+n where there is no order, through the network, into level_0 and rows
    row..row+n of every other level at `base`."""
    cdef const Branch* branch
    cdef const Dense* dense
    cdef real* own
    cdef real* c
    cdef real* h = level_0(plan, base, row, scratch)
    cdef idx b, i, l, image
    cdef bint last
    cdef Ahead nothing
    expect_nothing(&nothing)
    for b in range(plan.n_branches):
        branch = &plan.branch[b]
        own = patches_of(plan, branch, base, row, scratch)
        if is_plain(&batch.images, &batch.augment, branch.filter_size, branch.patch_inner):
            gather_pixels(&batch.images, order, first, n, branch.filter_size, branch.patch_inner,
                          <const real*>batch.workspace + branch.tables, branch.x_size, own)
        else:
            for i in range(n):
                image = order[i] if order != NULL else first + i
                gather_image(&batch.images, image, &batch.augment, branch.filter_size, branch.patch_inner, branch.ld_x,
                             scratch + plan.rows, own + i*branch.x_size)
        if branch.patch_inner:
            conv_forward(n, branch.n_filters, branch.n_values, branch.n_patches, branch.ld_x, params + branch.weight,
                         params + branch.bias, own, branch.x_size, h + branch.column, plan.ld[0],
                         ahead if has_time(branch) else &nothing)
        else:
            dense_forward(n, branch.n_patches, branch.n_filters, branch.ld_x, own, branch.x_size, branch.ld_x,
                          params + branch.weight, branch.ld_x, params + branch.bias, True,
                          h + branch.column, plan.ld[0], branch.n_filters, scratch + plan.z, ahead)
    for l in range(plan.n_dense):
        dense = &plan.dense[l]
        last = l == plan.n_dense - 1
        c = level(plan, plan.act, base, l + 1, row)
        if dense.turned >= 0:
            turned_forward(n, plan.ld[l + 1], dense.n_inputs, h, plan.ld[l], <const real*>batch.workspace + dense.turned,
                           dense.ld_turned, params + dense.bias, not last, c, plan.ld[l + 1])
        else:
            dense_forward(n, 1, dense.n_units, dense.n_inputs, h, plan.ld[l], 0, params + dense.weight, dense.ld_w,
                          params + dense.bias, not last, c, plan.ld[l + 1], 0, scratch + plan.z, ahead)
        if batch.dropout > 0 and not last:
            drop_units(n, dense.n_units, plan.ld[l + 1], c, batch.dropout, batch.dropout_bits, row, l)
        h = c


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
    cdef const Dense* dense
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
        dense = &plan.dense[l]
        a = level(plan, plan.act, area, l, first) if l > 0 else level_0(plan, area, first, scratch)
        dense_backward_input(n, dense.n_units, dense.n_inputs, level(plan, plan.grad, area, l + 1, first),
                             plan.ld[l + 1], params + dense.weight, dense.ld_w, True, True,
                             a, plan.ld[l], scale if l > 0 else <real>1,
                             level(plan, plan.grad, area, l, first) if l > 0 else d_h)
    for b in range(plan.n_branches):
        branch = &plan.branch[b]
        if branch.patch_inner:
            shares = area + branch.shares + block*branch.n_filters*(branch.n_values + 1)
            conv_backward(n, branch.n_filters, branch.n_values, branch.ld_x,
                          d_h + branch.column, plan.ld[0], scratch + branch.x, branch.x_size, shares,
                          shares + branch.n_filters*branch.n_values)
    if plan.private:
        publish(plan, n, first, scratch, area)


cdef void sum_rows(idx n, idx n_groups, idx group, idx width, const real* a, idx ld, real* out) noexcept nogil:
    cdef idx i, g, j
    for j in range(width):
        out[j] = 0
    for i in range(n):
        for g in range(n_groups):
            for j in range(width):
                out[j] += a[i*ld + g*group + j]


cdef inline void filter_vector(int n, const UpdateRule* rule, idx n_blocks, idx share, const real* shares, real* w,
                               real* state, real* squares) noexcept nogil:
    """n values of a filter: their shares added in block order, and applied"""
    cdef real total[MAX_LANES]
    cdef int lane
    cdef idx b
    for lane in range(n):
        total[lane] = shares[lane]
    for b in range(1, n_blocks):
        for lane in range(n):
            total[lane] += shares[b*share + lane]
    add_squares(n, w, squares)
    apply_rule(rule, False, n, total, w, state, w)


cdef void step_filter(const UpdateRule* rule, idx n_blocks, idx share, idx n_values, const real* shares, real* w,
                      real* state, double* squares) noexcept nogil:
    """one filter, a vector at a time"""
    cdef real chains[MAX_LANES]
    cdef int lane, lanes = lanes_of(w)
    cdef idx j = 0
    for lane in range(lanes):
        chains[lane] = 0
    while j + lanes <= n_values:
        filter_vector(lanes, rule, n_blocks, share, shares + j, w + j, state + j, chains)
        j += lanes
    filter_vector(<int>(n_values - j), rule, n_blocks, share, shares + j, w + j, state + j, chains)
    squares[0] = sum_lanes(chains)


cdef inline idx next_panel(const Plan* plan, const Task* tasks, idx t, int n_threads) noexcept nogil:
    """columns from this task's panel to the one that the same thread does next, if that is of the same matrix"""
    cdef idx u = t + n_threads
    if u < plan.n_tasks and tasks[u].kind == tasks[t].kind and tasks[u].layer == tasks[t].layer:
        return <idx>(tasks[u].begin - tasks[t].begin)
    return 0


cdef void phase_two(const Plan* plan, const Batch* batch, const UpdateRule* rule, const Task* tasks, idx t, real* params,
                    real* state, real* area, real* scratch) noexcept nogil:
    """one tile of the parameters, over the whole batch"""
    cdef const Task* task = &tasks[t]
    cdef idx l = task.layer, n_blocks = (batch.size + plan.block - 1)//plan.block, share, weight, j, b
    cdef const Dense* dense
    cdef const Branch* branch
    cdef real* sums = scratch + plan.z
    cdef real* grad
    cdef const real* a
    batch.squares[t] = 0
    if task.kind == DENSE_PANEL or task.kind == DENSE_BIAS:
        dense = &plan.dense[l]
        grad = level(plan, plan.grad, area, l + 1, 0)
        if task.kind == DENSE_PANEL:
            weight = dense.weight + task.begin
            a = level(plan, plan.act, area, l, 0) + task.begin
            batch.squares[t] = dense_step(
                batch.size, 1, dense.n_units, task.width, grad, plan.ld[l + 1], 0, a, plan.ld[l], 0, True, rule,
                params + weight, state + weight, dense.ld_w, sums,
                a + next_panel(plan, tasks, t, batch.n_threads) if rule.streams else NULL)
        else:
            sum_rows(batch.size, 1, 0, dense.n_units, grad, plan.ld[l + 1], sums)
            apply_bias(rule, dense.n_units, sums, params + dense.bias, state + dense.bias)
        return
    branch = &plan.branch[l]
    grad = level(plan, plan.grad, area, 0, 0) + branch.column
    share = branch.n_filters*(branch.n_values + 1)
    if task.kind == PATCH_PANEL:
        weight = branch.weight + task.begin
        a = area + branch.batch_x + task.begin
        batch.squares[t] = dense_step(
            batch.size, branch.n_patches, branch.n_filters, task.width, grad, plan.ld[0], branch.n_filters, a,
            branch.x_size, branch.ld_x, True, rule, params + weight, state + weight, branch.ld_x, sums,
            a + next_panel(plan, tasks, t, batch.n_threads) if rule.streams else NULL)
    elif task.kind == PATCH_BIAS:
        sum_rows(batch.size, branch.n_patches, branch.n_filters, branch.n_filters, grad, plan.ld[0], sums)
        apply_bias(rule, branch.n_filters, sums, params + branch.bias, state + branch.bias)
    elif task.kind == FILTER_ROW:
        weight = branch.weight + task.begin*branch.n_values
        step_filter(rule, n_blocks, share, branch.n_values, area + branch.shares + task.begin*branch.n_values,
                    params + weight, state + weight, batch.squares + t)
    else:
        for j in range(branch.n_filters):
            sums[j] = 0
        for b in range(n_blocks):
            for j in range(branch.n_filters):
                sums[j] += area[branch.shares + b*share + branch.n_filters*branch.n_values + j]
        apply_bias(rule, branch.n_filters, sums, params + branch.bias, state + branch.bias)


cdef struct Course:
    # the updates of one call
    idx n_steps, steps_per_epoch, first_step
    const long long* order          # n_steps*size image numbers
    const double* learning_rates
    double* costs
    double l2, momentum
    bint gradients_only             # one step; state <- gradient of the cost, nothing is updated
    uint64 seed


cdef UpdateRule rule_of(const Course* course, idx step, bint streams) noexcept nogil:
    cdef UpdateRule rule
    cdef double rate = course.learning_rates[step]
    rule.to_weight = course.momentum == 0 and not course.gradients_only
    rule.squares = course.l2 > 0
    rule.decay = 1 - 2*rate*course.l2
    rule.rate = rate
    rule.momentum = 0 if course.gradients_only else course.momentum
    rule.weight_decay = 2*course.l2
    rule.velocity_rate = 0 if rule.to_weight or course.gradients_only else rate
    rule.streams = streams and (rule.to_weight or rule.velocity_rate > 0)
    return rule


cdef Batch batch_of(const Batch* batch, const Course* course, idx step) noexcept nogil:
    """the batch with the addresses that belong to this update"""
    cdef Batch own = batch[0]
    cdef idx now = course.first_step + step
    own.augment.bits = address(seed_bits(course.seed, PURPOSE_AUGMENTATION), <uint64>(now//course.steps_per_epoch))
    own.dropout_bits = address(seed_bits(course.seed, PURPOSE_DROPOUT), <uint64>now)
    return own


cdef inline real* area_of(const Plan* plan, const Course* course, idx step, real* workspace) noexcept nogil:
    return workspace + plan.areas + (course.first_step + step) % plan.n_areas*plan.area_size


cdef void run_block(const Plan* plan, const Batch* batch, const Course* course, const real* params, idx step,
                    idx block, idx n_blocks, idx per_thread, real* workspace, int thread) noexcept nogil:
    """an iteration of phase one; the one behind the blocks adds the penalty to the cost of the update before"""
    cdef const long long* order = course.order + step*batch.size
    cdef idx next_block = block + 1, n = 0, i
    cdef double squares = 0
    cdef Batch own
    cdef Ahead ahead
    if block == n_blocks:
        if step > 0 and course.l2 > 0:
            for i in range(plan.n_tasks):
                squares += batch.squares[i]
            course.costs[step - 1] += course.l2*squares
        return
    own = batch_of(batch, course, step)
    if next_block >= n_blocks or next_block % per_thread == 0:      # this thread's first block of the next update
        next_block = block//per_thread*per_thread
    if next_block > block or step + 1 < course.n_steps:
        n = min(plan.block, batch.size - next_block*plan.block)
    expect(&ahead, batch.data, batch.image_bytes, batch.pace,
           order + next_block*plan.block + (0 if next_block > block else batch.size), 0, n)
    phase_one(plan, &own, params, order, block, &ahead, area_of(plan, course, step, workspace),
              workspace + plan.scratch + thread*plan.scratch_size)


cdef void run_task(const Plan* plan, const Batch* batch, const Course* course, const Task* tasks, idx step, idx t,
                   real* params, real* state, real* workspace, int thread) noexcept nogil:
    """an iteration of phase two; the one behind the tasks takes the mean of the losses"""
    cdef UpdateRule rule
    cdef double loss = 0
    cdef idx i
    if t == plan.n_tasks:
        for i in range(batch.size):
            loss += batch.losses[i]
        course.costs[step] = loss/batch.size
        return
    rule = rule_of(course, step, plan.private)
    phase_two(plan, batch, &rule, tasks, t, params, state, area_of(plan, course, step, workspace),
              workspace + plan.scratch + thread*plan.scratch_size)
    if rule.streams:
        end_stream()


cdef void run_thread(const Plan* plan, const Batch* batch, const Course* course, const Task* tasks, real* params,
                     real* state, real* workspace, int thread, int n_threads, Barrier* barrier) noexcept nogil:
    """all updates, as one of n_threads: its blocks and its tasks"""
    cdef idx n_blocks = (batch.size + plan.block - 1)//plan.block, per_thread = (n_blocks + n_threads - 1)//n_threads
    cdef idx s, b, t
    for s in range(course.n_steps):
        for b in range(thread*per_thread, min((thread + 1)*per_thread, n_blocks)):
            run_block(plan, batch, course, params, s, b, n_blocks, per_thread, workspace, thread)
        if thread == n_threads - 1:
            run_block(plan, batch, course, params, s, n_blocks, n_blocks, per_thread, workspace, thread)
        wait(barrier, n_threads)
        t = thread
        while t <= plan.n_tasks:
            run_task(plan, batch, course, tasks, s, t, params, state, workspace, thread)
            t += n_threads
        wait(barrier, n_threads)


cdef double run_steps(const Plan* plan, const Batch* batch, const Course* course, const Task* tasks, real* params,
                      real* state, real* workspace, int n_threads, int spins) noexcept nogil:
    """how long threads slept for each other, added up, in seconds"""
    cdef idx n_blocks = (batch.size + plan.block - 1)//plan.block
    cdef Barrier barrier
    memset(&barrier, 0, sizeof(Barrier))
    barrier.spins = spins
    if n_threads == 1:          # no OpenMP at all: also the way of a forked child
        run_thread(plan, batch, course, tasks, params, state, workspace, 0, 1, &barrier)
    else:
        with parallel(num_threads=n_threads):
            run_thread(plan, batch, course, tasks, params, state, workspace, threadid(), team_size(), &barrier)
    run_block(plan, batch, course, params, course.n_steps, n_blocks, n_blocks, 1, workspace, 0)
    return 1e-9*barrier.asleep


cdef inline idx even_block(idx share, idx most) noexcept nogil:
    """a size of at most `most`, with which a thread's share is cut into blocks of one size"""
    cdef idx n_blocks = max(1, (share + most - 1)//most)
    return max(1, (share + n_blocks - 1)//n_blocks)


cdef void evaluate_block(const Plan* plan, const Batch* batch, const real* params, idx n, idx block, real* scratch,
                         real* probabilities) noexcept nogil:
    cdef idx first = block*plan.block, m = min(plan.block, n - block*plan.block), i, k
    cdef real* out = scratch + plan.act[plan.n_dense]
    cdef Ahead ahead
    cdef idx next_n = min(plan.block, n - first - m)        # images that lie one behind the other, as if they were one
    expect(&ahead, <const char*>batch.data + (first + m)*batch.image_bytes, next_n*batch.image_bytes, batch.pace, NULL,
           0, 1 if next_n > 0 else 0)
    forward_block(plan, batch, params, NULL, first, m, 0, scratch, scratch, &ahead)
    softmax_rows(m, plan.n_classes, plan.ld[plan.n_dense], out, &batch.targets, NULL, first,
                 batch.losses + first, batch.correct + first)
    if probabilities != NULL:
        for i in range(m):
            for k in range(plan.n_classes):
                probabilities[(first + i)*plan.n_classes + k] = out[i*plan.ld[plan.n_dense] + k]


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
    plan.areas = description["areas"]
    plan.n_areas = description["n_areas"]
    plan.area_size = description["area_size"]
    plan.h = description["h"]
    plan.d_h = description["d_h"]
    plan.scratch = description["scratch"]
    plan.scratch_size = description["scratch_size"]
    plan.rows = description["rows"]
    plan.z = description["z"]
    return plan


def train(dict plan, const long long[:, ::1] tasks, real[::1] params, real[::1] sink, real[::1] workspace,
          const unsigned char[:, :, :, ::1] pixels, const real[:, :, :, ::1] values, const real[:, :, ::1] scale,
          const real[:, :, ::1] offset, const real[:, :, ::1] centre, const int[::1] labels, const real[:, ::1] soft, double on, double off,
          const long long[:, ::1] order, const double[::1] learning_rates, double[::1] costs, double[::1] losses,
          int[::1] correct, double[::1] squares, double l2, double momentum, bint gradients_only, double dropout,
          bint flip, idx shift, idx cutout, uint64 seed, idx first_step, idx steps_per_epoch, bint far,
          int n_threads, int spins):
    """``len(learning_rates)`` updates of ``params``; ``order`` (steps, batch size) names the images of each.

    With momentum ``sink`` is the velocity; with ``gradients_only`` it receives the gradient and nothing else
    changes. ``labels`` are indexed by image, ``soft`` by position in the batch. ``costs`` are those before each
    update. ``far``: the threads' processors share no cache; ``spins``: see barrier.pxi. Returns how many seconds threads slept while they waited
    for each other, added up over all of them.
    """
    cdef Plan own = read_plan(plan)
    cdef Batch batch
    cdef Course course
    cdef double asleep
    own.private = far
    batch.images = images_of[real](pixels, values, scale, offset, centre)
    batch.augment.active = flip or shift > 0 or cutout > 0
    batch.augment.flip = flip
    batch.augment.shift = shift
    batch.augment.cutout = cutout
    batch.targets.labels = NULL if labels is None else &labels[0]
    batch.targets.probabilities = NULL if soft is None else &soft[0, 0]
    batch.targets.on = on
    batch.targets.off = off
    batch.size = order.shape[1]
    batch.n_threads = n_threads
    batch.dropout = dropout
    batch.losses = &losses[0]
    batch.correct = &correct[0]
    batch.squares = &squares[0]
    batch.workspace = &workspace[0]
    course.n_steps = learning_rates.shape[0]
    course.steps_per_epoch = steps_per_epoch
    course.first_step = first_step
    course.order = &order[0, 0]
    course.learning_rates = &learning_rates[0]
    course.costs = &costs[0]
    course.l2 = l2
    course.momentum = momentum
    course.gradients_only = gradients_only
    course.seed = seed
    with nogil:
        fill_branch_tables(&own, &batch, &workspace[0])
        pace_requests(&batch, &own, <const real*>&params[0])
        asleep = run_steps(&own, &batch, &course, <const Task*>&tasks[0, 0], &params[0],
                           &params[0] if sink is None else &sink[0], &workspace[0], n_threads, spins)
    return asleep


def evaluate(dict plan, const real[::1] params, real[::1] workspace, const unsigned char[:, :, :, ::1] pixels,
             const real[:, :, :, ::1] values, const real[:, :, ::1] scale, const real[:, :, ::1] offset,
             const real[:, :, ::1] centre, const int[::1] labels, double[::1] losses, int[::1] correct,
             real[:, ::1] probabilities, bint ready, int n_threads):
    """Loss and hit of every image, and its probabilities where there is an array for them. ``ready``: the workspace
    comes from a call with the same parameters, scale, offset and centre."""
    cdef Plan own = read_plan(plan)
    cdef Batch batch
    cdef idx n = losses.shape[0], share = (n + n_threads - 1)//n_threads, n_blocks, b
    cdef real* base = &workspace[0]
    cdef real* out = NULL if probabilities is None else &probabilities[0, 0]
    own.block = even_block(share, own.block)
    n_blocks = (n + own.block - 1)//own.block
    batch.images = images_of[real](pixels, values, scale, offset, centre)
    own.private = True
    batch.augment.active = False
    batch.targets.labels = NULL if labels is None else &labels[0]
    batch.targets.probabilities = NULL
    batch.targets.on = 1
    batch.targets.off = 0
    batch.size = n
    batch.n_threads = n_threads
    batch.dropout = 0
    batch.losses = &losses[0]
    batch.correct = &correct[0]
    batch.workspace = base
    with nogil:
        if not ready:
            fill_branch_tables(&own, &batch, base)
            fill_turned(&own, &params[0], base, n_threads)
        pace_requests(&batch, &own, <const real*>base)
        if n_threads == 1:
            for b in range(n_blocks):
                evaluate_block(&own, &batch, &params[0], n, b, base + own.scratch, out)
        else:
            for b in prange(n_blocks, schedule="dynamic", num_threads=n_threads):
                evaluate_block(&own, &batch, &params[0], n, b, base + own.scratch + threadid()*own.scratch_size, out)
