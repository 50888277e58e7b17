"""Which processors are performance cores, on machines that also have efficiency cores."""

import ctypes
import functools
import re
import struct
import sys
from collections.abc import Callable, Set
from pathlib import Path

from . import _cgroups

ROOT = Path("/sys/devices")
SAME_KIND = 0.75  # of the greatest capacity: cores of one kind may differ in their clock rates
MAX_NUMBER = 2**16  # of a processor, above which a file holds nonsense


def performance_cores(allowed: Set[int], root: Path = ROOT) -> Set[int]:
    """The allowed processors without those that Linux knows as efficiency cores, unless all are."""
    return allowed - _efficiency_cores(root) or allowed


def count_performance_cores() -> int:
    """The number of processors that are performance cores; 0 if the system does not tell."""
    if sys.platform == "darwin":
        return count_on_macos(_sysctl)
    if sys.platform == "win32":
        return count_on_windows(_cpu_sets())
    return 0


@functools.cache
def _efficiency_cores(root: Path) -> Set[int]:
    """By the kinds of Intel's cores, otherwise by the capacities that Linux knows, as it does on arm64."""
    kinds = [_parse_list(_cgroups.read(root / kind / "cpus")) for kind in ("cpu_atom", "cpu_lowpower")]
    if any(kinds):
        return set().union(*kinds)
    capacities = {}
    for path in root.glob("system/cpu/cpu[0-9]*/cpu_capacity"):
        number, capacity = path.parent.name.removeprefix("cpu"), _cgroups.read(path).strip()
        if re.fullmatch("[0-9]{1,9}", number) and re.fullmatch("[0-9]{1,9}", capacity):
            capacities[int(number)] = int(capacity)
    return {number for number, capacity in capacities.items() if capacity < SAME_KIND * max(capacities.values())}


def _parse_list(text: str) -> Set[int]:
    """Linux's list of processors, such as ``0-3,8``; empty if it is not one."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch("([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        if not match or int(match[2] or 0) > MAX_NUMBER:
            return set()
        numbers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return numbers


def count_on_macos(sysctl: Callable[[str], int]) -> int:
    """By the processors of the first performance level, which is the fastest."""
    return max(0, sysctl("hw.perflevel0.logicalcpu"))


def _sysctl(name: str) -> int:
    """A number that the system knows by this name; 0 if it knows none."""
    value, size = ctypes.c_int64(), ctypes.c_size_t(8)
    try:
        failed = ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    except (AttributeError, OSError):
        return 0
    return 0 if failed else value.value  # also of 4 bytes: Apple's processors are little-endian


def count_on_windows(cpu_sets: bytes) -> int:
    """By the efficiency classes in an array of ``SYSTEM_CPU_SET_INFORMATION``: the highest is the fastest."""
    classes = []
    while len(cpu_sets) >= 19:
        size, kind = struct.unpack_from("<II", cpu_sets)
        if size < 19:
            break
        if kind == 0:  # CpuSetInformation
            classes.append(cpu_sets[18])
        cpu_sets = cpu_sets[size:]
    return classes.count(max(classes, default=0))


def _cpu_sets() -> bytes:
    """What ``GetSystemCpuSetInformation`` tells about all processors; empty if it fails."""
    if sys.platform != "win32":
        return b""
    kernel32 = ctypes.WinDLL("kernel32")
    function, size = kernel32.GetSystemCpuSetInformation, ctypes.c_ulong()
    function.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong]
    function(None, 0, ctypes.byref(size), None, 0)
    buffer = ctypes.create_string_buffer(size.value)
    return buffer.raw if function(buffer, size, ctypes.byref(size), None, 0) else b""
