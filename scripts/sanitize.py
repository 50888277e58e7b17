"""Build the kernels with sanitizers, with bounds checks or without OpenMP, and run their tests.

    python scripts/sanitize.py address      AddressSanitizer and UndefinedBehaviorSanitizer
    python scripts/sanitize.py bounds       Cython with bounds checks, C without optimisation
    python scripts/sanitize.py serial       the usual build, but without OpenMP
    python scripts/sanitize.py thread       ThreadSanitizer (see below)

The sources are copied to a temporary folder and built there; nothing is written to the source tree. This needs gcc
with its sanitizer libraries, Cython, setuptools, pytest and hypothesis. The exit code is 0 if no problem was found.

Leak checking is off, since the interpreter keeps memory until it exits and the kernels do not allocate any.
ThreadSanitizer does not recognise the barriers of GNU OpenMP, which synchronise without calls that it could see,
and reports all accesses across them. Its reports on the kernels are therefore only meaningful with an OpenMP
runtime that was built for it, and this build is not among the default ones.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = [
    "kernels/test_kernels.py",
    "model/test_network.py",
    "kernels/test_training.py",
    "robustness/test_nonfinite.py",
    "robustness/test_bad_arguments.py",
]
BUILDS = {
    "address": {"CYCONV_SANITIZE": "address,undefined", "CYCONV_DEBUG": "1"},
    "bounds": {"CYCONV_DEBUG": "1"},
    "serial": {"CYCONV_NO_OPENMP": "1"},
    "thread": {"CYCONV_SANITIZE": "thread", "CYCONV_DEBUG": "1"},
}
LIBRARIES = {"address": ["libasan.so", "libubsan.so"], "thread": ["libtsan.so"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "kinds",
        nargs="*",
        choices=list(BUILDS),
        metavar="kind",
        help="address, bounds, serial or thread (default: the first three)",
    )
    parser.add_argument("--isa", nargs="+", help="instruction sets (default: all that this machine supports)")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="test files in tests/, or pytest ids relative to it")
    parser.add_argument("--keep", type=expand_folder, help="folder to build in, which is kept")
    args = parser.parse_args()
    failed = [kind for kind in args.kinds or ["address", "bounds", "serial"] if not check(kind, args)]
    print("failed: " + ", ".join(failed) if failed else "all clean")
    return 1 if failed else 0


def expand_folder(text):
    return Path(os.path.expandvars(text)).expanduser()


def check(kind, args):
    """Make one kind of build and run the tests on each instruction set; return whether all passed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "cyconv" if args.keep is None else args.keep / kind
        copy_tree(folder)
        print(f"== {kind}: building in {folder}", flush=True)
        built = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            cwd=folder,
            text=True,
            env={**os.environ, **BUILDS[kind]},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if built.returncode:
            print(built.stdout.encode("ascii", "backslashreplace").decode())
            return False
        environment = test_environment(kind, folder)
        code = "from cyconv._kernels import processor; print(processor.build_flags(), *processor.instruction_sets())"
        flags, _, sets = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=environment, check=True, capture_output=True, text=True
        ).stdout.rpartition("}")
        if BUILDS[kind].get("CYCONV_SANITIZE", "") not in flags:
            print("the build is not instrumented:", flags)
            return False
        sets = args.isa or sets.split()
        passed = [run_tests(kind, name, folder, environment, args.tests) for name in sets]
        return all(passed)


def copy_tree(folder):
    """Copy the sources and tests, without build products."""
    built = shutil.ignore_patterns("*.so", "*.c", "*.pyd", "__pycache__", "build")
    for name in ("cyconv", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=built, dirs_exist_ok=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)


def test_environment(kind, folder):
    libraries = [
        subprocess.run(
            [os.environ.get("CC", "gcc"), f"-print-file-name={name}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in LIBRARIES.get(kind, [])
    ]
    return dict(
        os.environ,
        PYTHONPATH=str(folder),
        LD_PRELOAD=" ".join(libraries),
        PYTHONMALLOC="malloc",  # so that the sanitizer can watch every array
        OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "3"),
        ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:halt_on_error=1",
        UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1",
    )


def run_tests(kind, instruction_set, folder, environment, tests):
    print(f"== {kind}: {instruction_set}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=short", *tests]
    done = subprocess.run(command, cwd=folder / "tests", env=dict(environment, CYCONV_ISA=instruction_set))
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
