"""Print what a bug report needs: the build, threads and why so many, versions, and where data are found."""

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from ...backend.dispatch import show_config
from ...backend.threads import explain_num_threads, performance_processors, processors, quota
from ...datasets.files import find_data
from ..report import describe_machine, describe_versions
from ..usage import explain, program

OPTIONAL = ("tqdm", "distributed", "mpi4py", "torch", "jax", "scikit-learn", "pandas", "ipykernel")
VARIABLES = ("CYCONV_", "OMP_", "GOMP_", "KMP_", "SLURM_CPUS_")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    argparse.ArgumentParser(" ".join(program()), description=__doc__).parse_args(argv)
    show_config()
    for name, value in rows():
        print(f"  {name:<15}  {value}")
    return 0


def rows() -> Iterator[tuple[str, str]]:
    """What `show_config` does not tell, each with its name."""
    limit, n, n_performance = quota(), processors(), performance_processors()
    yield "chosen by", explain_num_threads()
    yield (
        "processors",
        f"{os.cpu_count()} in this machine, {n} for this process"
        + (f", {n_performance} of them performance cores" if n_performance < n else "")
        + (f", quota {limit:g}" if limit < float("inf") else ""),
    )
    yield "processor", str(describe_machine()["processor"])
    yield "system", platform.platform()
    yield "Python", f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    yield "package", str(Path(__file__).parents[2])
    versions = {name: version for name, version in describe_versions().items() if name not in ("cyconv", "python")}
    yield (
        "packages",
        ", ".join(f"{name} {version}" for name, version in {**versions, **dict(_optional_versions())}.items()),
    )
    yield "data", _data()
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)]
    yield "environment", ", ".join(settings) or "nothing that concerns cyconv"


def _optional_versions() -> Iterator[tuple[str, str]]:
    for name in OPTIONAL:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _data() -> str:
    """Where commands without --data find their data."""
    try:
        path = find_data()
    except (OSError, ValueError) as error:
        return explain(error)
    return str(path) if path else "CIFAR-10 is in none of its places: commands use drawn shapes"
