# Probes of the machine: the rate of fused multiply-adds that stay in registers, the roof of every kernel; and how
# long a cache line takes from thread to thread.

cdef double run_probe(idx n, const real* seed) noexcept nogil:
    if real is float:
        return probe_float(n, seed)
    else:
        return probe_double(n, seed)


def probe(const real[::1] seed, idx n, double[::1] totals, int n_threads):
    """``n`` rounds of CHAINS registers on every thread; returns the floating-point operations of all of them."""
    cdef int i
    with nogil:
        if n_threads == 1:
            totals[0] = run_probe(n, &seed[0])
        else:
            for i in prange(n_threads, schedule="static", chunksize=1, num_threads=n_threads):
                totals[i] = run_probe(n, &seed[0])
    return 2.0*CHAINS*(REGISTER_BYTES//<int>sizeof(real))*n*n_threads


cdef void pass_lines(idx n_lines, int thread, bint writing, float* lines) noexcept nogil:
    """The first thread writes a number into every line, or each of the others adds them up in a line of its own."""
    cdef idx q
    cdef float total = 0
    if writing and thread == 0:
        for q in range(n_lines):
            lines[LINE_FLOATS*q] += 1
    elif not writing and thread > 0:
        for q in range(n_lines):
            total += lines[LINE_FLOATS*q]
        lines[LINE_FLOATS*(n_lines + thread)] = total


cdef void pass_rounds(idx n_lines, idx n_rounds, int thread, int n_threads, float* lines,
                      Barrier* barrier) noexcept nogil:
    cdef idx _
    for _ in range(n_rounds):
        pass_lines(n_lines, thread, True, lines)
        wait(barrier, n_threads)
        pass_lines(n_lines, thread, False, lines)
        wait(barrier, n_threads)


def exchange(float[::1] lines, idx n_lines, idx n_rounds, int n_threads):
    """``n_rounds`` times ``n_lines`` of LINE_FLOATS numbers are written by one thread and read by all others. ``lines``
    holds ``n_threads`` more."""
    cdef Barrier barrier
    memset(&barrier, 0, sizeof(Barrier))
    barrier.spins = 2000
    with nogil, parallel(num_threads=n_threads):
        pass_rounds(n_lines, n_rounds, threadid(), team_size(), &lines[0], &barrier)
