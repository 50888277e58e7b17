# Step: phase two of an update, over fixed tiles of the parameters.
#
# What is computed
#   phase_two   Each tile of a matrix of weights sums its gradient over the whole batch in registers and applies the
#               update rule at once (update.pyx), so that no gradient array is ever written. Partial filter gradients
#               are added over the blocks and applied.
#
# Layout
#   See plan.pxi; layout.py draws up the tasks.
#
# Order of sums
#   Over images in their order; over partial gradients in the order of the blocks.
#
# Ownership
#   A task writes its own parameters and their state; what it reads was written in phase one, before the barrier.

cdef void sum_rows(idx n, idx n_groups, idx group, idx width, const real* a, idx ld, real* out) noexcept nogil:
    cdef idx i, g, j
    for j in range(width):
        out[j] = 0
    for i in range(n):
        for g in range(n_groups):
            for j in range(width):
                out[j] += a[i*ld + g*group + j]


cdef inline void filter_vector(int n, const UpdateRule* rule, idx n_blocks, idx partial_size, const real* partials,
                               real* w, real* state, real* squares) noexcept nogil:
    """n values of a filter: their partial gradients added in block order, and applied"""
    cdef real total[MAX_LANES]
    cdef int lane
    cdef idx b
    for lane in range(n):
        total[lane] = partials[lane]
    for b in range(1, n_blocks):
        for lane in range(n):
            total[lane] += partials[b*partial_size + lane]
    add_squares(n, w, squares)
    apply_rule(rule, False, n, total, w, state, w)


cdef void step_filter(const UpdateRule* rule, idx n_blocks, idx partial_size, idx n_values, const real* partials,
                      real* w, real* state, double* squares) noexcept nogil:
    """one filter, a vector at a time"""
    cdef real chains[MAX_LANES]
    cdef int lane, lanes = lanes_of(w)
    cdef idx j = 0
    for lane in range(lanes):
        chains[lane] = 0
    while j + lanes <= n_values:
        filter_vector(lanes, rule, n_blocks, partial_size, partials + j, w + j, state + j, chains)
        j += lanes
    filter_vector(<int>(n_values - j), rule, n_blocks, partial_size, partials + j, w + j, state + j, chains)
    squares[0] = sum_lanes(chains)


cdef inline idx next_panel(const Plan* plan, const Task* tasks, idx t, int n_threads) noexcept nogil:
    """columns from this task's panel to the one that the same thread does next, if that is of the same matrix"""
    cdef idx u = t + n_threads
    if u < plan.n_tasks and tasks[u].kind == tasks[t].kind and tasks[u].layer == tasks[t].layer:
        return <idx>(tasks[u].begin - tasks[t].begin)
    return 0


cdef void phase_two(const Plan* plan, const Batch* batch, const UpdateRule* rule, const Task* tasks, idx t,
                    real* params, real* state, real* buffer, real* scratch) noexcept nogil:
    """one tile of the parameters, over the whole batch"""
    cdef const Task* task = &tasks[t]
    cdef idx l = task.layer, partial_size, weight, j, b
    cdef const Dense* dense
    cdef const Branch* branch
    cdef real* sums = scratch + plan.z
    cdef real* grad
    cdef const real* a
    cdef DenseShape shape
    batch.squares[t] = 0
    if task.kind == DENSE_PANEL or task.kind == DENSE_BIAS:
        dense = &plan.dense[l]
        grad = layer_rows(plan, plan.grad, buffer, l + 1, 0)
        if task.kind == DENSE_PANEL:
            weight = dense.weight + task.begin
            a = layer_rows(plan, plan.act, buffer, l, 0) + task.begin
            shape = layer_shape(plan, l, batch.size)
            batch.squares[t] = dense_step(
                &shape, task.width, grad, a, True, rule, params + weight, state + weight, sums,
                a + next_panel(plan, tasks, t, batch.n_threads) if rule.streams else NULL)
        else:
            sum_rows(batch.size, 1, 0, dense.n_units, grad, plan.ld[l + 1], sums)
            apply_bias(rule, dense.n_units, sums, params + dense.bias, state + dense.bias)
        return
    branch = &plan.branch[l]
    grad = layer_rows(plan, plan.grad, buffer, 0, 0) + branch.column
    partial_size = branch.n_filters*(branch.n_values + 1)
    if task.kind == PATCH_PANEL:
        weight = branch.weight + task.begin
        a = buffer + branch.batch_x + task.begin
        shape = patch_shape(plan, branch, batch.size)
        batch.squares[t] = dense_step(&shape, task.width, grad, a, True, rule, params + weight, state + weight, sums,
                                      a + next_panel(plan, tasks, t, batch.n_threads) if rule.streams else NULL)
    elif task.kind == PATCH_BIAS:
        sum_rows(batch.size, branch.n_patches, branch.n_filters, branch.n_filters, grad, plan.ld[0], sums)
        apply_bias(rule, branch.n_filters, sums, params + branch.bias, state + branch.bias)
    elif task.kind == FILTER_ROW:
        weight = branch.weight + task.begin*branch.n_values
        step_filter(rule, plan.n_blocks, partial_size, branch.n_values,
                    buffer + branch.partials + task.begin*branch.n_values, params + weight, state + weight,
                    batch.squares + t)
    else:
        for j in range(branch.n_filters):
            sums[j] = 0
        for b in range(plan.n_blocks):
            for j in range(branch.n_filters):
                sums[j] += buffer[branch.partials + b*partial_size + branch.n_filters*branch.n_values + j]
        apply_bias(rule, branch.n_filters, sums, params + branch.bias, state + branch.bias)
