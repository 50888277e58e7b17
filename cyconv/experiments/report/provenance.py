"""Where numbers come from: the command, the date, the machine, and the versions of the packages."""

import platform
import sys
from datetime import UTC, datetime
from importlib import metadata

from ..._typing import JsonDict
from ..._version import __version__
from ...backend import dispatch
from ...backend.threads import get_num_threads
from ..usage import program
from .tables import count


def provenance() -> JsonDict:
    """Where a results file comes from.

    Returns
    -------
    dict
        ``command`` (the program and its arguments), ``date`` (UTC, ISO 8601),
        ``versions`` and ``machine``.
    """
    words = program()
    return {
        "command": words + sys.argv[len(words) :],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": describe_versions(),
        "machine": describe_machine(),
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


def describe_versions() -> dict[str, str]:
    """dict: versions of Python and of the packages that determine the numbers and figures."""
    packages = {package: metadata.version(package) for package in ("numpy", "matplotlib")}
    return {"cyconv": __version__, "python": platform.python_version(), **packages}


def machine_sentence(origin: JsonDict | None = None) -> str:
    """str: processor, threads, kernels and versions in one sentence, of a results file or of this process."""
    origin = provenance() if origin is None else origin
    machine, versions = (
        origin["machine"],
        ", ".join(f"{name} {version}" for name, version in origin["versions"].items()),
    )
    threads = count(machine["threads"], "thread")
    return f"{machine['processor']}, {threads}, {machine['instruction_set']} kernels; {versions}."


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
