"""Where numbers come from: the command, the date, the machine, and the versions of the packages."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING

from ..._kernels import processor
from ..._tables import Table
from ..._typing import JsonDict
from ..._version import __version__
from ...backend import dispatch
from ...backend.threads import get_num_threads
from ..usage import program
from .tables import count

if TYPE_CHECKING:
    from ..results import Result

_VERSION_NAMES = {"instruction_set": "instruction set", "cyconv": "cyconv", "numpy": "NumPy"}


def provenance() -> JsonDict:
    """Where a results file comes from.

    Returns
    -------
    dict
        ``command`` (the program and its arguments), ``date`` (UTC, ISO 8601),
        ``versions``, ``machine`` and ``build`` (compiler and flags of the
        kernels in use).
    """
    words = program()
    return {
        "command": words + sys.argv[len(words) :],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": describe_versions(),
        "machine": describe_machine(),
        "build": describe_build(),
    }


def describe_machine() -> JsonDict:
    """The processor, and how this process uses it.

    Returns
    -------
    dict
        ``processor`` (model name), ``architecture``, ``instruction_set`` (of
        the kernels in use), ``threads`` (number in use), ``system``.
    """
    return {
        "processor": _processor_model(),
        "architecture": platform.machine(),
        "instruction_set": dispatch.instruction_set,
        "threads": get_num_threads(),
        "system": platform.system(),
    }


def describe_build() -> JsonDict:
    """dict: ``compiler``, ``flags`` and ``openmp`` (the date in ``_OPENMP``, or 0 without) of the kernels in use."""
    return {
        "compiler": dispatch.compiler(),
        "flags": json.loads(processor.build_flags())[dispatch.instruction_set],
        "openmp": processor.openmp_version(),
    }


def describe_versions() -> dict[str, str]:
    """dict: versions of Python and of the packages that determine the numbers and figures."""
    packages = {package: metadata.version(package) for package in ("numpy", "matplotlib")}
    return {"cyconv": __version__, "python": platform.python_version(), **packages}


def differing_versions(results: Iterable[Result]) -> list[str]:
    """list of str: a sentence about each version, or the instruction set, that is not the same for all runs."""
    results = list(results)
    sentences = []
    for name, what in _VERSION_NAMES.items():
        values = sorted({result.versions[name] for result in results if name in result.versions})
        if len(values) > 1:
            sentences.append(
                f"The runs were computed with {what} {' and '.join(values)}: "
                "between these, results may differ in their last bits."
            )
    return sentences


def machine_sentence(origin: JsonDict | None = None) -> str:
    """str: processor, threads, kernels and versions in one sentence, of a results file or of this process."""
    origin = provenance() if origin is None else origin
    machine, versions = (
        origin["machine"],
        ", ".join(f"{name} {version}" for name, version in origin["versions"].items()),
    )
    threads = count(machine["threads"], "thread")
    return f"{machine['processor']}, {threads}, {machine['instruction_set']} kernels; {versions}."


def provenance_table(origin: JsonDict) -> Table:
    """Where numbers come from, as a table.

    Parameters
    ----------
    origin : dict
        A results file, or what it starts with.
    """
    data, machine, build = origin["configuration"]["data"], origin["machine"], origin["build"]
    sizes = f"{data['n_train']:,} training, {data['n_validation']:,} validation and {data['n_test']:,} test images"
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    threads = count(machine["threads"], "thread")
    rows = [
        ["command", shlex.join(origin["command"])],
        ["date", origin["date"]],
        ["data", f"{data['name']}: {sizes}"],
        ["fingerprint of the data", data["fingerprint"]],
        ["machine", f"{machine['processor']} ({machine['architecture']}, {machine['system']}), {threads}"],
        ["kernels", f"{machine['instruction_set']}, compiled by {build['compiler']}"],
        ["compiler's flags", build["flags"]],
        ["versions", versions],
    ]
    return Table(["", ""], rows, numbers=False)


def _processor_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
