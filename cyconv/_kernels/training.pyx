# Training: many updates in one call, in one parallel region.
#
# What is computed, per update
#   Phase one, over fixed blocks of images (backward.pyx); a barrier; phase two, over fixed tiles of the parameters
#   (step.pyx); a barrier. It is one of ours (barrier.pxi), not the end of OpenMP loops.
#
# Layout
#   See plan.pxi.
#
# Order of sums: the same bits for any number of threads
#   Blocks and tiles depend on the network and the batch size alone; every element is summed by one thread in
#   one order. Threads share nothing but what the barriers separate.
#
# Ownership
#   All memory belongs to NumPy arrays that the caller keeps alive during the call. Nothing is allocated here.

cdef struct Settings:               # of all updates of a call: a dict of the same keys
    double l2, dropout
    uint64 seed
    idx first_step, steps_per_epoch

cdef struct RunParameters:          # of one call
    Settings settings
    Optimizer optimizer
    long long n_updates             # that were made before
    idx n_steps
    const long long* order          # n_steps*size image numbers
    const double* learning_rates
    const double* weights           # of the images of each batch, as order has them, or NULL
    double* costs


cdef Batch batch_of(const Batch* batch, const RunParameters* run, idx step) noexcept nogil:
    """the batch with the addresses that belong to this update"""
    cdef Batch own = batch[0]
    cdef uint64 seed = run.settings.seed
    cdef idx now = run.settings.first_step + step, epoch = now//run.settings.steps_per_epoch
    if run.weights != NULL:
        own.weights = run.weights + step*batch.size
    own.augment.bits = address(seed_bits(seed, PURPOSE_AUGMENTATION), <uint64>epoch)
    own.dropout_bits = address(seed_bits(seed, PURPOSE_DROPOUT), <uint64>now)
    return own


cdef inline real* buffer_of(const Plan* plan, const RunParameters* run, idx step, real* workspace) noexcept nogil:
    return workspace + plan.buffers + (run.settings.first_step + step) % plan.n_buffers*plan.buffer_size


cdef void run_block(const Plan* plan, const Batch* batch, const RunParameters* run, const real* params, idx step,
                    idx block, idx per_thread, real* workspace, int thread) noexcept nogil:
    """an iteration of phase one; the one behind the blocks adds the penalty to the cost of the update before"""
    cdef const long long* order = run.order + step*batch.size
    cdef idx next_block = block + 1, next_first, n = 0, i
    cdef double squares = 0
    cdef Batch own
    cdef PrefetchQueue queue
    if block == plan.n_blocks:
        if step > 0 and run.settings.l2 > 0:
            for i in range(plan.n_tasks):
                squares += batch.squares[i]
            run.costs[step - 1] += run.settings.l2*squares
        return
    own = batch_of(batch, run, step)
    if next_block >= plan.n_blocks or next_block % per_thread == 0:      # this thread's first block of the next update
        next_block = block//per_thread*per_thread
    next_first = block_start(plan, batch, next_block)
    if next_block > block or step + 1 < run.n_steps:
        n = block_start(plan, batch, next_block + 1) - next_first
    begin_prefetch(&queue, batch.data, batch.image_bytes, batch.bytes_per_step,
                   order + next_first + (0 if next_block > block else batch.size), 0, n)
    phase_one(plan, &own, params, order, block, &queue, buffer_of(plan, run, step, workspace),
              workspace + plan.scratch + thread*plan.scratch_size)


cdef void run_task(const Plan* plan, const Batch* batch, const RunParameters* run, const UpdateRule* rule,
                   const Task* tasks, idx step, idx t, real* params, real* state, real* workspace,
                   int thread) noexcept nogil:
    """an iteration of phase two; the one behind the tasks takes the mean of the losses"""
    cdef double loss = 0
    cdef idx i
    if t == plan.n_tasks:
        if run.weights == NULL:
            for i in range(batch.size):
                loss += batch.losses[i]
            loss = loss/batch.size
        else:
            for i in range(batch.size):
                loss += run.weights[step*batch.size + i]*batch.losses[i]
        run.costs[step] = loss
        return
    phase_two(plan, batch, rule, tasks, t, params, state, buffer_of(plan, run, step, workspace),
              workspace + plan.scratch + thread*plan.scratch_size)
    if rule.streams:
        end_stream()


cdef void run_thread(const Plan* plan, const Batch* batch, const RunParameters* run, const Task* tasks, real* params,
                     real* state, real* workspace, int thread, int n_threads, Barrier* barrier) noexcept nogil:
    """all updates, as one of n_threads: its blocks and its tasks"""
    cdef idx per_thread = (plan.n_blocks + n_threads - 1)//n_threads
    cdef UpdateRule rule
    cdef idx s, b, t
    for s in range(run.n_steps):
        for b in range(thread*per_thread, min((thread + 1)*per_thread, plan.n_blocks)):
            run_block(plan, batch, run, params, s, b, per_thread, workspace, thread)
        if thread == n_threads - 1:
            run_block(plan, batch, run, params, s, plan.n_blocks, per_thread, workspace, thread)
        wait(barrier, n_threads)
        rule = update_rule(&run.optimizer, run.learning_rates[s], run.n_updates + s, plan.thread_local)
        t = thread
        while t <= plan.n_tasks:
            run_task(plan, batch, run, &rule, tasks, s, t, params, state, workspace, thread)
            t += n_threads
        wait(barrier, n_threads)


cdef double run_steps(const Plan* plan, const Batch* batch, const RunParameters* run, const Task* tasks, real* params,
                      real* state, real* workspace, int n_threads, int spins) noexcept nogil:
    """how long threads slept for each other, added up, in seconds"""
    cdef Barrier barrier
    memset(&barrier, 0, sizeof(Barrier))
    barrier.spins = spins
    if n_threads == 1:          # no OpenMP at all: also the way of a forked child
        run_thread(plan, batch, run, tasks, params, state, workspace, 0, 1, &barrier)
    else:
        with parallel(num_threads=n_threads):
            run_thread(plan, batch, run, tasks, params, state, workspace, threadid(), team_size(), &barrier)
    run_block(plan, batch, run, params, run.n_steps, plan.n_blocks, 1, workspace, 0)
    return 1e-9*barrier.asleep


def train(dict plan, const long long[:, ::1] tasks, real[::1] params, dict optimizer, real[::1] state,
          long long[::1] n_updates, real[::1] workspace, const unsigned char[:, :, :, ::1] pixels,
          const real[:, :, :, ::1] values, const real[:, :, ::1] scale, const real[:, :, ::1] offset,
          const real[:, :, ::1] centre, const int[::1] labels, const real[:, ::1] soft, double on, double off,
          const long long[:, ::1] order, const double[:, ::1] weights, const double[::1] learning_rates,
          double[::1] costs, double[::1] losses, int[::1] correct, double[::1] squares, dict settings,
          bint thread_local, int n_threads, int spins):
    """``len(learning_rates)`` updates of ``params``; ``order`` (steps, batch size) names the images of each.

    ``optimizer`` is what optimizers.py describes, ``state`` what it keeps between updates, ``n_updates`` how many went
    into that, one number, which grows; both are None where it keeps nothing. Without an ``optimizer``, ``state``
    receives the gradient and nothing else changes. ``labels`` and ``soft`` are indexed by image; ``weights`` (steps,
    batch size) are those of the images in ``order``, or None. ``costs`` are those before each update. ``settings`` has
    the keys of the struct Settings, and ``augmentation``, the fields of an Augmentation. ``thread_local``: for threads
    without a shared last-level cache, see backward.pyx; ``spins``: see barrier.pxi. Returns how many seconds threads
    slept while they waited for each other, added up over all of them.
    """
    cdef Plan own = read_plan(plan)
    cdef Batch batch
    cdef RunParameters run
    cdef double asleep
    own.thread_local = thread_local
    run.settings = settings
    run.optimizer = read_optimizer(optimizer, run.settings.l2, params.shape[0])
    run.n_updates = 0 if n_updates is None else n_updates[0]
    run.n_steps = learning_rates.shape[0]
    run.order = &order[0, 0]
    run.learning_rates = &learning_rates[0]
    run.costs = &costs[0]
    run.weights = NULL if weights is None else &weights[0, 0]
    batch.weights = NULL
    batch.images = images_of[real](pixels, values, scale, offset, centre)
    batch.augment = augment_of(settings["augmentation"])
    batch.targets = targets_of[real](labels, soft, on, off)
    batch.size = order.shape[1]
    batch.n_threads = n_threads
    batch.dropout = run.settings.dropout
    batch.losses = &losses[0]
    batch.correct = &correct[0]
    batch.squares = &squares[0]
    batch.workspace = &workspace[0]
    with nogil:
        fill_branch_tables(&own, &batch, &workspace[0])
        plan_prefetch(&batch, &own, <const real*>&params[0])
        asleep = run_steps(&own, &batch, &run, <const Task*>&tasks[0, 0], &params[0],
                           &params[0] if state is None else &state[0], &workspace[0], n_threads, spins)
        if n_updates is not None:
            n_updates[0] += run.n_steps
    return asleep
