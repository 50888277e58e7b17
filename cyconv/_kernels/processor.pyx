# What the processor can do and how this package was compiled. Built for the baseline, so that it always loads.

cdef extern from *:
    """
    #ifdef _OPENMP
      #include <omp.h>
      #define CY_OPENMP _OPENMP
    #else
      #define CY_OPENMP 0
    #endif
    #if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
      #include <cpuid.h>
      static int cy_has_avx2(void)
      { __builtin_cpu_init(); return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
      static int cy_has_avx2vnni(void)
      {
        unsigned a, b, c, d;
        return cy_has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
      }
      static int cy_has_avx512(void)
      { return cy_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512vl"); }
      static int cy_has_avx512vnni(void) { return cy_has_avx512() && __builtin_cpu_supports("avx512vnni"); }
    #else
      static int cy_has_avx2(void) { return 0; }
      static int cy_has_avx2vnni(void) { return 0; }
      static int cy_has_avx512(void) { return 0; }
      static int cy_has_avx512vnni(void) { return 0; }
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
    bint cy_has_avx2() noexcept
    bint cy_has_avx2vnni() noexcept
    bint cy_has_avx512() noexcept
    bint cy_has_avx512vnni() noexcept
    const char* COMPILER "CY_COMPILER"
    const char* BUILD "CYCONV_BUILD"


def instruction_sets():
    """Names of the instruction sets that this processor has, the widest first."""
    names = ["baseline"]
    if cy_has_avx2():
        names.insert(0, "avx2")
    if cy_has_avx2vnni():
        names.insert(0, "avx2vnni")
    if cy_has_avx512():
        names.insert(0, "avx512")
    if cy_has_avx512vnni():
        names.insert(0, "avx512vnni")
    return names


def openmp_version():
    """The ``_OPENMP`` date that the build was compiled with; 0 without OpenMP."""
    return OPENMP


def compiler():
    """The C compiler's own version text."""
    return COMPILER.decode()


def build_flags():
    """JSON text: the compiler flags of each instruction set."""
    return BUILD.decode()
