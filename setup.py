"""Build the kernels: one Cython source, translated once, compiled into one extension module per instruction set.

Everything about compilers stands here. Environment variables:

CYCONV_DEBUG=1        bounds-checked Cython, assertions, no optimisation
CYCONV_SANITIZE=LIST  compile with -fsanitize=LIST (for example address,undefined)
CYCONV_NO_OPENMP=1    build without OpenMP
"""

import json
import os
import shutil
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("CYCONV_DEBUG", "") not in ("", "0")
SANITIZE = os.environ.get("CYCONV_SANITIZE", "")
NO_OPENMP = os.environ.get("CYCONV_NO_OPENMP", "") not in ("", "0")

# Of the target, not of this machine: macOS is compiled for across processors.
X86_64 = sysconfig.get_platform().endswith(("x86_64", "amd64"))
MARCH = {
    "baseline": [],
    "avx2": ["-march=x86-64-v3"],
    # Tuned for a processor that gcc 12 knows to have 512-bit units: without it the tiles spill registers.
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512", "-mtune=icelake-server"],
}
INSTRUCTION_SETS = ("baseline", "avx2", "avx512") if X86_64 else ("baseline",)

# No flag here lets the compiler assume that NaN and infinity do not occur, or reorder sums.
FAST = [
    ["-O3"],
    ["-g0"],
    ["-DNDEBUG"],
    ["-fno-math-errno"],
    ["-fno-trapping-math"],
    ["-fno-signed-zeros"],
    # Loops over the lanes of a vector are left to the vectoriser: they are neither unrolled before it nor taken apart.
    ["--param=max-completely-peel-times=7"],
    ["-fno-loop-interchange"],
    ["-fno-tree-loop-distribute-patterns"],
    ["-fno-inline-functions-called-once"],
    ["-fno-ipa-cp-clone"],
    # Allocate registers for a function as a whole: by loops, the update's tile keeps its inputs on the stack.
    ["-fira-region=one"],
    # On arm64, gcc would move a tile's loads far ahead of their use, and run out of registers.
    ["-fno-schedule-insns"],
    ["-DCYTHON_INLINE=inline __attribute__((always_inline))"],
]
SLOW = [["-O1"], ["-g"], ["-UNDEBUG"], ["-fno-omit-frame-pointer"]]
OPENMP = [  # for the compiler, for the linker: gcc and clang, Apple's clang with libomp
    (["-fopenmp"], ["-fopenmp"]),
    (["-Xpreprocessor", "-fopenmp"], ["-lomp"]),
    (["/openmp"], []),  # clang-cl
]
EMPTY_PROGRAM = "int main(void) { return 0; }\n"
OPENMP_PROGRAM = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": True,
    "embedsignature": True,
}


KERNELS = Path("cyconv/_kernels")
SOURCES = sorted(str(path) for path in KERNELS.iterdir() if path.suffix in (".h", ".pxi", ".pyx"))

# The stable ABI: one module for Python 3.11 and newer, unless it is a build of Python that does not have it.
STABLE_ABI = not (sysconfig.get_config_var("Py_GIL_DISABLED") or sysconfig.get_config_var("Py_DEBUG"))
MACROS = [("Py_LIMITED_API", "0x030B0000")] if STABLE_ABI else []


def extension(name):
    return Extension(
        f"cyconv._kernels.{name}",
        [],
        depends=SOURCES,
        define_macros=MACROS,
        py_limited_api=STABLE_ABI,
        include_dirs=[str(KERNELS)],
    )


def translate(name):
    """The C source of a Cython file, beside it."""
    from Cython.Build import cythonize

    modules = [Extension(f"cyconv._kernels.{name}", [str(KERNELS / f"{name}.pyx")], depends=SOURCES)]
    return Path(cythonize(modules, compiler_directives=DIRECTIVES, nthreads=0)[0].sources[0])


def remove_earlier_builds(folder):
    """Remove modules of this Python's own ABI, which it would prefer to those of the stable one."""
    if STABLE_ABI:
        for path in folder.glob("*" + sysconfig.get_config_var("EXT_SUFFIX")):
            path.unlink()


class BuildKernels(build_ext):
    """Translates the kernels, adds the flags that this compiler takes, and builds the modules side by side."""

    def build_extensions(self):
        spelled = "{}"
        if self.compiler.compiler_type == "msvc":
            self.use_clang_cl()
            spelled = "/clang:{}"
        elif shutil.which(self.compiler.compiler_so[0]) is None:
            raise SystemExit(
                f"cyconv is built from source with a C compiler, but there is no {self.compiler.compiler_so[0]!r}: "
                "install gcc or clang, name another compiler by CC, or install a wheel"
            )
        self.write_sources()
        if self.parallel is None:
            self.parallel = os.cpu_count()
        sanitize = ["-fsanitize=" + SANITIZE] if SANITIZE else []
        if sanitize and not self.accepts(sanitize, sanitize):
            raise SystemExit(f"CYCONV_SANITIZE must be what the compiler takes after -fsanitize=, but got {SANITIZE!r}")
        choices = [[spelled.format(flag) for flag in flags] for flags in (SLOW if DEBUG or SANITIZE else FAST)]
        common = [flag for flags in choices if self.accepts(flags) for flag in flags] + sanitize
        openmp, openmp_link = self.openmp()
        flags = {}
        for module in self.extensions:
            name = module.name.rpartition(".")[2]
            flags[name] = common + [spelled.format(flag) for flag in MARCH.get(name, [])]
            module.extra_compile_args = flags[name] + openmp
            module.extra_link_args = openmp_link + sanitize
        for module in self.extensions:
            if module.name.endswith(".processor"):
                built = {name: " ".join(flags[name]) for name in INSTRUCTION_SETS}
                text = json.dumps(built)
                module.define_macros = [*MACROS, ("CYCONV_BUILD", json.dumps(text))]
        super().build_extensions()
        remove_earlier_builds(Path(self.build_lib, KERNELS))

    def use_clang_cl(self):
        """Compile with LLVM, whose tools take the options of Microsoft's; that one lacks vector extensions."""
        clang = shutil.which("clang-cl")
        if clang is None:
            raise SystemExit("On Windows, cyconv is built by LLVM's clang-cl, but there is none on the PATH")
        self.compiler.initialize()
        self.compiler.cc = clang
        self.compiler.add_library_dir(str(Path(clang).parents[1] / "lib"))  # of OpenMP

    def write_sources(self):
        """Give each module its C source; what has not changed is not written again, and so not compiled again."""
        kernels = translate("kernels").name
        os.makedirs(self.build_temp, exist_ok=True)
        for module in self.extensions:
            name = module.name.rpartition(".")[2]
            if name == "processor":
                module.sources = [str(translate(name))]
                continue
            path = Path(self.build_temp, f"{name}.c")
            source = f'#define PyInit_kernels PyInit_{name}\n#include "{kernels}"\n'
            if not path.exists() or path.read_text(encoding="utf-8") != source:
                path.write_text(source, encoding="utf-8")
            module.sources = [str(path)]

    def copy_extensions_to_source(self):
        super().copy_extensions_to_source()
        remove_earlier_builds(KERNELS)

    def openmp(self):
        """What this compiler and its linker take for OpenMP; nothing where they know none or lack its header."""
        choices = [] if NO_OPENMP else OPENMP
        return next((pair for pair in choices if self.accepts(*pair, OPENMP_PROGRAM)), ([], []))

    def accepts(self, flags, link=(), program=EMPTY_PROGRAM):
        """Whether the compiler and its linker take these flags."""
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "probe.c")
            with open(source, "w") as file:
                file.write(program)
            try:
                objects = self.compiler.compile([source], output_dir=folder, extra_postargs=[*flags, "-Werror"])
                self.compiler.link_shared_object(objects, os.path.join(folder, "probe"), extra_postargs=list(link))
            except Exception:  # each compiler class raises its own kind
                return False
        return True


if __name__ == "__main__":
    setup(
        ext_modules=[extension(name) for name in ("processor", *INSTRUCTION_SETS)],
        cmdclass={"build_ext": BuildKernels},
        options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
    )
