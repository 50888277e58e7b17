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
