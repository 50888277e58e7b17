"""How much memory this process may use."""

import functools
import os
from pathlib import Path

from . import _cgroups


@functools.lru_cache(maxsize=1)
def available_memory() -> int:
    """The machine's memory in bytes, or the limit of the control group if that is lower."""
    return min(physical_memory(), control_group_limit())


def physical_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**48


def control_group_limit(**places: Path) -> int:
    limits = [2**62]
    for folder in _cgroups.folders("memory", **places):
        text = (_cgroups.read(folder / "memory.max") or _cgroups.read(folder / "memory.limit_in_bytes")).strip()
        if text.isascii() and text.isdigit() and len(text) < 19:
            limits.append(int(text))
    return min(limits)


def free_address_space() -> int:
    """Bytes that this process may still map, where its address space is limited (``ulimit -v``), or a large number."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return 2**62
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, AttributeError, OSError):  # no such limits, or no such file
        return 2**62
    return limit - used
