# What the processor can do and how this package was compiled. Built for the baseline, so that it always loads.

include "constants.pxi"

cdef extern from *:
    """
    #ifdef _OPENMP
      #include <omp.h>
      #define CY_OPENMP _OPENMP
    #else
      #define CY_OPENMP 0
    #endif
    #if CY_OPENMP >= 200805
      #define CY_MAX_THREADS() omp_get_max_threads()
      #define CY_THREAD_LIMIT() omp_get_thread_limit()
    #else
      #define CY_MAX_THREADS() 1
      #define CY_THREAD_LIMIT() 0x7fffffff
    #endif
    #if CY_OPENMP >= 201511
      static int cy_bound_processors(void)
      {
        int n = 0;
        if (omp_get_proc_bind() == omp_proc_bind_false) return 0;   /* LLVM's runtime has places all the same */
        for (int i = 0; i < omp_get_num_places(); i++) n += omp_get_place_num_procs(i);
        return n;
      }
    #else
      static int cy_bound_processors(void) { return 0; }
    #endif
    #if defined(__x86_64__)
      /* In Intel's and AMD's own terms, since clang-cl has no __builtin_cpu_supports. */
      #include <cpuid.h>
      static int cy_has(unsigned registers, unsigned leaf7)     /* that the system saves; features, with AVX and FMA */
      {
        unsigned a, b, c, d, saved;
        const unsigned needed = 1u << 12 | 1u << 27 | 1u << 28;             /* FMA, OSXSAVE, AVX */
        if (!__get_cpuid(1, &a, &b, &c, &d) || (c & needed) != needed) return 0;
        __asm__ volatile("xgetbv" : "=a"(saved), "=d"(d) : "c"(0));
        if ((saved & registers) != registers || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
        return (b & leaf7) == leaf7;
      }
      static int cy_has_avx2(void) { return cy_has(0x06, 1u << 5); }        /* xmm, ymm */
      static int cy_has_avx512(void)                                        /* and zmm; F, DQ, CD, BW, VL */
      { return cy_has(0xE6, 1u << 5 | 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31); }
    #else
      static int cy_has_avx2(void) { return 0; }
      static int cy_has_avx512(void) { return 0; }
    #endif
    #if defined(__VERSION__)
      #define CY_COMPILER __VERSION__
    #else
      #define CY_COMPILER "unknown"
    #endif
    #ifndef CYCONV_BUILD
      #define CYCONV_BUILD "{}"
    #endif
    """
    int OPENMP "CY_OPENMP"
    int CY_MAX_THREADS() noexcept
    int CY_THREAD_LIMIT() noexcept
    int cy_bound_processors() noexcept
    bint cy_has_avx2() noexcept
    bint cy_has_avx512() noexcept
    const char* COMPILER "CY_COMPILER"
    const char* BUILD "CYCONV_BUILD"


def instruction_sets():
    """Names of the instruction sets that this processor has, the widest first."""
    names = ["baseline"]
    if cy_has_avx2():
        names.insert(0, "avx2")
    if cy_has_avx512():
        names.insert(0, "avx512")
    return names


def openmp_version():
    """The ``_OPENMP`` date that the build was compiled with; 0 without OpenMP."""
    return OPENMP


def openmp_max_threads():
    """How many threads OpenMP would use now, as its environment or a program has told it; 1 without OpenMP."""
    return CY_MAX_THREADS()


def openmp_thread_limit():
    """How many threads OpenMP may have at most."""
    return CY_THREAD_LIMIT()


def openmp_bound_processors():
    """How many processors OpenMP binds its threads to (``OMP_PROC_BIND``, ``OMP_PLACES``); 0 where it binds none."""
    return cy_bound_processors()


def compiler():
    """The C compiler's own version text."""
    return COMPILER.decode()


def build_flags():
    """JSON text: the compiler flags of each instruction set."""
    return BUILD.decode()
