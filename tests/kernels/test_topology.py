"""The default number of threads on machines with performance and efficiency cores, which are made up here."""

import os
import struct

import pytest

import cyconv
from cyconv import _topology
from cyconv.backend import threads
from cyconv.experiments.commands import info

pytestmark = pytest.mark.usefixtures("restored_num_threads")

INTEL = {"cpu_core/cpus": "0-15\n", "cpu_atom/cpus": "16-23\n"}  # 12th generation: 8 cores of two threads each, and 8
ARM = {f"system/cpu/cpu{i}/cpu_capacity": f"{1024 if i > 3 else 406}\n" for i in range(8)}


@pytest.fixture
def make_machine(tmp_path, monkeypatch):
    """make_machine(files, allowed): a machine with these files under /sys/devices, and an affinity mask."""

    def make(files, allowed):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        function = _topology.performance_cores
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(threads, "_chosen", None)
        monkeypatch.setattr(threads, "quota", lambda: float("inf"))
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(allowed), raising=False)
        monkeypatch.setattr(_topology, "performance_cores", lambda allowed: function(allowed, tmp_path))

    return make


@pytest.mark.parametrize(
    "files, allowed, expected",
    {
        "Intel": (INTEL, range(24), 16),
        "Intel, some allowed": (INTEL, range(12, 24), 4),
        "Intel, efficiency cores only": (INTEL, range(16, 24), 8),
        "Intel, capacities as well": (INTEL | {"system/cpu/cpu16/cpu_capacity": "1024"}, range(24), 16),
        "Intel, cores of low power": (INTEL | {"cpu_lowpower/cpus": "14-15"}, range(24), 14),
        "Intel, list with gaps": (INTEL | {"cpu_atom/cpus": "0,2,4-6"}, range(24), 19),
        "Intel without performance cores": ({"cpu_atom/cpus": "0-3"}, range(4), 4),
        "big.LITTLE": (ARM, range(8), 4),
        "big.LITTLE, LITTLE only": (ARM, range(4), 4),
        "big.LITTLE, one of each": (ARM, [0, 7], 1),
        "three kinds": (ARM | {"system/cpu/cpu7/cpu_capacity": "700"}, range(8), 3),
        "one is clocked higher": (
            {f"system/cpu/cpu{i}/cpu_capacity": f"{1024 - 100 * (i > 0)}" for i in range(4)},
            range(4),
            4,
        ),
        "all alike": ({f"system/cpu/cpu{i}/cpu_capacity": "1024" for i in range(4)}, range(4), 4),
        "without capacities": ({"system/cpu/cpu0/online": "1"}, range(3), 3),
        "one of unknown capacity": (ARM, range(9), 5),
        "nothing": ({}, range(5), 5),
    }.values(),
)
def test_efficiency_cores_do_not_count(make_machine, files, allowed, expected):
    make_machine(files, allowed)
    assert threads.default_threads() == cyconv.get_num_threads() == expected


@pytest.mark.parametrize("names", [["cpu_atom/cpus", "cpu_core/cpus"], list(ARM)], ids=["Intel", "big.LITTLE"])
@pytest.mark.parametrize(
    "text", ["", "\n", "nonsense", "3-", "-1", "0-9999999999", "0-999999999", "0,,1", "\u00b2", b"\xff"]
)
def test_nonsense_is_no_topology(make_machine, names, text):
    make_machine(dict.fromkeys(names, text), range(4))
    assert threads.default_threads() == 4


def test_what_is_set_comes_first(make_machine, monkeypatch):
    make_machine(INTEL, range(24))
    monkeypatch.setattr(threads, "quota", lambda: 3)
    assert threads.default_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "24")
    assert threads.default_threads() == 24
    cyconv.set_num_threads(20)
    assert cyconv.get_num_threads() == 20


def test_info_tells_of_performance_cores(make_machine):
    make_machine(INTEL, range(24))
    told = dict(info.rows())
    assert told["chosen by"] == "performance cores that this process may use"
    assert told["processors"].endswith("24 for this process, 16 of them performance cores")


def cpu_set(index, efficiency_class, kind=0, size=32):
    return struct.pack("<IIIHBBBBB", size, kind, 256 + index, 0, index, index, 0, 0, efficiency_class).ljust(
        size, b"\0"
    )


@pytest.mark.parametrize(
    "names, expected",
    [
        ({"hw.perflevel0.logicalcpu": 4, "hw.perflevel1.logicalcpu": 6}, 4),
        ({}, 0),
        ({"hw.perflevel0.logicalcpu": -1}, 0),
    ],
)
def test_performance_levels_of_macos(names, expected):
    assert _topology.count_on_macos(lambda name: names.get(name, 0)) == expected


@pytest.mark.parametrize(
    "records, expected",
    [
        ([cpu_set(i, i < 6) for i in range(10)], 6),
        ([cpu_set(i, 0) for i in range(4)], 4),
        ([cpu_set(i, i > 1, size=40) for i in range(4)], 2),
        ([cpu_set(0, 9, kind=1), cpu_set(1, 0)], 1),
        ([], 0),
        ([b"\0" * 32], 0),
        ([cpu_set(0, 1)[:10]], 0),
    ],
)
def test_efficiency_classes_of_windows(records, expected):
    assert _topology.count_on_windows(b"".join(records)) == expected


@pytest.mark.parametrize("counted, expected", [(4, 4), (0, 10), (16, 10)])
def test_systems_without_affinity_masks(monkeypatch, counted, expected):
    monkeypatch.setattr(threads, "_chosen", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "quota", lambda: float("inf"))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    monkeypatch.setattr(_topology, "count_performance_cores", lambda: counted)
    assert threads.default_threads() == expected


def test_this_machine():
    n = threads.performance_processors()
    assert 1 <= n <= threads.processors() and _topology.count_performance_cores() >= 0
