"""Compile the kernels for platforms that are not at hand, and count the vector instructions of their inner loops.

    python scripts/cross_compile.py                 every target, in about two minutes
    python scripts/cross_compile.py aarch64-macos

The compiler is the Clang in the PyPI package ziglang, which brings the C libraries of its targets; Cython and
setuptools are needed as well, and omp.h from a gcc at hand. Python's headers are those of the running one: the limited
API that the kernels keep to is the same everywhere. Nothing is linked or run. The exit code is 0 if every source
compiles and multiplies and adds in vectors.
"""

import argparse
import contextlib
import functools
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
COMPILER = [sys.executable, "-m", "ziglang", "cc"]
TARGETS = {  # Zig's name: instruction sets, and the instructions that multiply or add vectors
    "aarch64-linux-gnu": (("baseline",), r"\bfml[as]\s+v\d+\.(4s|2d)|\bfml[as]\.(4s|2d)"),
    "aarch64-macos": (("baseline",), r"\bfml[as]\s+v\d+\.(4s|2d)|\bfml[as]\.(4s|2d)"),
    "x86_64-macos": (("baseline", "avx2", "avx512"), r"\bv?(mul|add|fn?m\w*)p[sd]\b"),
    "x86_64-linux-musl": (("baseline",), r"\bv?(mul|add|fn?m\w*)p[sd]\b"),
    "x86_64-windows-gnu": (("baseline", "avx2", "avx512"), r"\bv?(mul|add|fn?m\w*)p[sd]\b"),
}
FEWEST = 1000  # vector instructions; a build whose tiles stay scalar has some dozens

# What Python's headers must know of 64-bit Windows, where they are those of another system.
WINDOWS_CONFIG = """\
#define MS_WINDOWS
#define MS_WIN64
#define SIZEOF_VOID_P 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_WCHAR_T 2
#define SIZEOF_TIME_T 8
#define SIZEOF_PID_T 4
#define ALIGNOF_MAX_ALIGN_T 8
#define HAVE_DECLSPEC_DLL 1
typedef long long Py_ssize_t;
#define HAVE_PY_SSIZE_T 1
#define PY_SSIZE_T_MAX 0x7fffffffffffffffLL
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)} (default: all)")
    targets = parser.parse_args().targets or list(TARGETS)
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"target must be one of {', '.join(TARGETS)}, but got {', '.join(sorted(unknown))}")
    with contextlib.chdir(ROOT), mock.patch("setuptools.setup"):
        build = runpy.run_path("setup.py")
        kernels, processor = (build["translate"](name).resolve() for name in ("kernels", "processor"))
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        headers = Path(folder)
        shutil.copy(header_of_gcc("omp.h"), headers)
        for target in targets:
            sets, vectors = TARGETS[target]
            for name, source in (dict.fromkeys(sets, kernels) | {"processor": processor}).items():
                count = compile_source(target, name, source, headers, build, vectors)
                found = "does not compile" if count is None else f"{count} vector instructions"
                print(f"{target:20} {name:10} {found}", flush=True)
                if count is None or (name != "processor" and count < FEWEST):
                    failed.append(f"{target} {name}")
    print("failed: " + ", ".join(failed) if failed else "every source compiles, and its inner loops are vectors")
    return 1 if failed else 0


def header_of_gcc(name):
    command = ["gcc", f"-print-file-name=include/{name}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@functools.cache
def accepts(flags, folder):
    """Whether the compiler takes these flags; Zig refuses the ones of gcc."""
    empty = folder / "empty.c"
    empty.touch()
    command = [*COMPILER, *flags, "-c", str(empty), "-o", str(folder / "empty.o")]
    return subprocess.run(command, capture_output=True).returncode == 0


def compile_source(target, name, source, headers, build, vectors):
    """Compile to assembly; return how many instructions are vectors, or None if the compiler refuses."""
    include = [headers, ROOT / "cyconv" / "_kernels", sysconfig.get_path("include")]
    if "windows" in target:
        include.insert(0, headers / "windows")
        (headers / "windows" / "sys").mkdir(parents=True, exist_ok=True)
        (headers / "windows" / "pyconfig.h").write_text(WINDOWS_CONFIG)
        (headers / "windows" / "sys" / "select.h").touch()
    assembly = headers / f"{name}.s"
    flags = [flag for flags in build["FAST"] if accepts(tuple(flags), headers) for flag in flags]
    march = [re.sub(r"(?<=\w)-(?=64|v\d|server)", "_", flag) for flag in build["MARCH"].get(name, [])]  # Zig's spelling
    macros = [f"-D{key}={value}" for key, value in build["MACROS"]]
    command = [*COMPILER, "-target", target, *flags, *march, *macros, "-fopenmp", "-w", "-S"]
    command += [f"-I{folder}" for folder in include] + [str(source), "-o", str(assembly)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:])
        return None
    return len(re.findall(vectors, assembly.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(main())
