# Barrier: where the threads of one parallel region wait for each other, many thousand times a second.
#
# What is done
#   The last thread to arrive begins the next generation; the others spin for `spins` pauses, then sleep in the kernel
#   until it begins. On processors of their own, threads should spin for longer than those of balanced phases usually
#   wait; beside other busy processes not at all: a thread that spins keeps the processor from the one that it waits
#   for, and one that sleeps is scheduled before those that do not. OpenMP runtimes spin for milliseconds unless their
#   environment says otherwise before they are loaded.
#
# Ownership
#   A Barrier lies on the stack of the thread that opens the region, and outlives it.

cdef extern from *:
    """
    #include <time.h>
    #if defined(_MSC_VER) && !defined(__clang__)
      #include <intrin.h>
      static inline int cy_increment(volatile int *x) { return _InterlockedIncrement((volatile long *)x); }
      static inline int cy_load(volatile int *x) { return _InterlockedOr((volatile long *)x, 0); }
      static inline void cy_store(volatile int *x, int value) { _InterlockedExchange((volatile long *)x, value); }
      static inline void cy_add(volatile long long *x, long long more) { _InterlockedExchangeAdd64(x, more); }
    #else
      static inline int cy_increment(volatile int *x) { return __atomic_add_fetch(x, 1, __ATOMIC_ACQ_REL); }
      static inline int cy_load(volatile int *x) { return __atomic_load_n(x, __ATOMIC_SEQ_CST); }
      static inline void cy_store(volatile int *x, int value) { __atomic_store_n(x, value, __ATOMIC_SEQ_CST); }
      static inline void cy_add(volatile long long *x, long long more)
      { __atomic_fetch_add(x, more, __ATOMIC_RELAXED); }
    #endif
    #if defined(__linux__)
      #include <linux/futex.h>
      #include <sys/syscall.h>
      #include <unistd.h>
      static void cy_sleep(volatile int *x, int value)
      { syscall(SYS_futex, x, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0); }
      static void cy_wake(volatile int *x) { syscall(SYS_futex, x, FUTEX_WAKE_PRIVATE, 0x7fffffff, NULL, NULL, 0); }
    #elif defined(_WIN32)
      #define WIN32_LEAN_AND_MEAN
      #include <windows.h>
      static void cy_sleep(volatile int *x, int value) { (void)x; (void)value; SwitchToThread(); }
      static void cy_wake(volatile int *x) { (void)x; }
    #else
      #include <sched.h>
      static void cy_sleep(volatile int *x, int value) { (void)x; (void)value; sched_yield(); }
      static void cy_wake(volatile int *x) { (void)x; }
    #endif
    #if defined(__x86_64__) || defined(__i386__) || defined(_M_X64)
      #define CY_PAUSE() _mm_pause()
    #elif defined(__aarch64__) && defined(__GNUC__)
      #define CY_PAUSE() __asm__ volatile("isb")
    #else
      #define CY_PAUSE() ((void)0)
    #endif
    #ifdef _OPENMP
      #include <omp.h>
      #define CY_TEAM_SIZE() omp_get_num_threads()
    #else
      #define CY_TEAM_SIZE() 1
    #endif
    static long long cy_nanoseconds(void)
    {
      struct timespec now;
      timespec_get(&now, TIME_UTC);
      return (long long)now.tv_sec*1000000000 + now.tv_nsec;
    }
    typedef struct {
      volatile int arrived, sleeping;
      int spins;
      volatile long long asleep;        /* nanoseconds, of all threads together */
      char apart[44];                   /* what is spun on has a cache line of its own */
      volatile int generation;
      char end[60];
    } cy_barrier;
    static void cy_wait(cy_barrier *b, int n_threads)
    {
      int generation = cy_load(&b->generation);
      if (cy_increment(&b->arrived) == n_threads) {
        cy_store(&b->arrived, 0);
        cy_store(&b->generation, generation + 1);
        if (cy_load(&b->sleeping)) {
          cy_store(&b->sleeping, 0);
          cy_wake(&b->generation);
        }
        return;
      }
      for (int i = 0; i < b->spins; i++) {
        if (cy_load(&b->generation) != generation) return;
        CY_PAUSE();
      }
      long long start = cy_nanoseconds();
      while (cy_load(&b->generation) == generation) {
        cy_store(&b->sleeping, 1);
        cy_sleep(&b->generation, generation);
      }
      cy_add(&b->asleep, cy_nanoseconds() - start);
    }
    """
    ctypedef struct Barrier "cy_barrier":
        int spins
        long long asleep
    int team_size "CY_TEAM_SIZE"() noexcept nogil       # threads of the region, which may be fewer than were asked for
    void wait "cy_wait"(Barrier* barrier, int n_threads) noexcept nogil
