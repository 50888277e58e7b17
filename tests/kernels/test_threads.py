"""How many threads run, and how they work together with processes and Python threads."""

import multiprocessing.process
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builds import HAS_OPENMP, run_program, subprocess_environment
from concurrency import in_threads
from tiny_run import EVERYTHING, digest, fit, make_trainer

import cyconv
from cyconv.backend import threads

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")


pytestmark = pytest.mark.usefixtures("restored_num_threads")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# The default -------------------------------------------------------------------


@pytest.fixture
def four_processors(monkeypatch):
    """A process that may use four processors, without a quota or an environment variable that limits it."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "processors", lambda: 4)
    monkeypatch.setattr(threads, "performance_processors", lambda: 4)
    monkeypatch.setattr(threads, "quota", lambda: float("inf"))


@pytest.mark.parametrize(
    "processors, quota, expected", [(4, float("inf"), 4), (4, 2, 2), (1, 2, 1), (1, float("inf"), 1)]
)
def test_default_follows_processors_and_quota(four_processors, monkeypatch, processors, quota, expected):
    monkeypatch.setattr(threads, "performance_processors", lambda: processors)
    monkeypatch.setattr(threads, "quota", lambda: quota)
    assert threads.default_threads() == expected


@pytest.mark.skipif(not HAS_OPENMP, reason="built without OpenMP")
def test_what_decides_the_number_is_told(four_processors, monkeypatch):
    monkeypatch.setattr(threads, "_chosen", None)
    told = [threads.explain_num_threads()]
    monkeypatch.setattr(threads, "performance_processors", lambda: 3)
    told.append(threads.explain_num_threads())
    monkeypatch.setattr(threads, "quota", lambda: 2)
    told.append(threads.explain_num_threads())
    monkeypatch.setattr(multiprocessing.process, "parent_process", lambda: "a process")
    told.append(threads.explain_num_threads())
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    told.append(threads.explain_num_threads())
    cyconv.set_num_threads(5)
    told.append(threads.explain_num_threads())
    monkeypatch.setattr(threads, "_limit", lambda: 4)
    told.append(threads.explain_num_threads())
    assert told == [
        "processors that this process may use",
        "performance cores that this process may use",
        "quota of the control group",
        "one of several worker processes",
        "OMP_NUM_THREADS",
        "set_num_threads",
        "OpenMP's limit of threads; 5 by set_num_threads",
    ]


def test_quota_is_read_again_after_a_while():
    assert run_program("processes.py", "quota_read_again") == [3, 3, 5, 5]


def test_workers_of_a_pool_default_to_one_thread(four_processors, monkeypatch):
    monkeypatch.setattr(multiprocessing.process, "parent_process", lambda: "a process")
    assert threads.default_threads() == 1
    cyconv.set_num_threads(3)
    assert cyconv.get_num_threads() == 3


@pytest.mark.parametrize(
    "text, expected",
    [
        *(("3", 3), ("3,2", 3), (" 5 ", 5), ("99999", 256)),
        *((text, 4) for text in ("0", "-1", "", "many", "1.5", "9" * 5000, "\u00b2")),
    ],
)
def test_environment_variable(four_processors, monkeypatch, text, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert threads.default_threads() == expected


@linux
def test_affinity_mask():
    found = run_program("processes.py", "affinity", OMP_NUM_THREADS=None)
    assert found["1"] == 1
    assert all(1 <= n <= int(allowed) for allowed, n in found.items())


@linux
@pytest.mark.skipif(not HAS_OPENMP, reason="built without OpenMP")
@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, "all"),
        ({"OMP_NUM_THREADS": "2"}, 2),
        ({"OMP_THREAD_LIMIT": "1"}, 1),
        ({"OMP_NUM_THREADS": "3", "OMP_THREAD_LIMIT": "2"}, 2),
        ({"OMP_PROC_BIND": "true"}, "all"),  # although the first thread may then run on one processor alone
        ({"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}, "all"),
        ({"OMP_PLACES": "{%d}"}, 1),
        ({"OMP_PROC_BIND": "true", "OMP_NUM_THREADS": "2"}, 2),
    ],
)
def test_default_follows_the_openmp_runtime(environment, expected):
    pytest.importorskip("threadpoolctl")
    allowed = sorted(os.sched_getaffinity(0))
    expected = min(len(allowed), threads.read_quota()) if expected == "all" else expected
    names = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_PROC_BIND", "OMP_PLACES")
    given = {name: value.replace("%d", str(allowed[0])) for name, value in environment.items()}
    environment = {**dict.fromkeys(names), **given}
    limit = int(environment["OMP_THREAD_LIMIT"] or 256)
    assert run_program("processes.py", "default_threads", **environment) == [expected, 1, expected, min(3, limit)]


# How threads wait ---------------------------------------------------------------


@linux
@pytest.mark.skipif(not HAS_OPENMP, reason="built without OpenMP")
@pytest.mark.parametrize(
    "library, variable, given, told",
    [
        ("libgomp", "GOMP_SPINCOUNT", None, "GOMP_SPINCOUNT = '1000'"),
        ("libgomp", "GOMP_SPINCOUNT", "7", "GOMP_SPINCOUNT = '7'"),
        ("libomp", "KMP_BLOCKTIME", None, "KMP_BLOCKTIME='0"),
        ("libomp", "KMP_BLOCKTIME", "7", "KMP_BLOCKTIME='7"),
    ],
)
def test_openmp_spins_for_a_short_time_unless_told_otherwise(library, variable, given, told):
    """By what the runtime itself prints: GNU's, or LLVM's if the kernels were built by clang."""
    if library not in Path("/proc/self/maps").read_text():
        pytest.skip(f"the kernels use another runtime than {library}")
    command = [sys.executable, "-P", "-c", f"import os, cyconv; print(os.environ.get('{variable}'))"]
    environment = subprocess_environment(OMP_WAIT_POLICY=None, OMP_DISPLAY_ENV="verbose", **{variable: given})
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert told in done.stderr + done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == str(given)  # no child inherits ours


@linux
@pytest.mark.skipif(not HAS_OPENMP, reason="built without OpenMP")
@pytest.mark.parametrize("environment", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "infinite"}])
def test_threads_that_share_a_processor_sleep_for_each_other(environment):
    """Whatever the runtime's settings, which another package may have loaded first."""
    found = run_program("processes.py", "shared_processor", **environment)
    assert found["asleep"] > 0 and found["found"][0] == found["found"][1]


@linux
@pytest.mark.parametrize(
    "environment", [{"OMP_DYNAMIC": "true"}, {"OMP_MAX_ACTIVE_LEVELS": "0"}, {"OMP_THREAD_LIMIT": "2"}]
)
def test_teams_may_be_smaller_than_requested(environment):
    """No thread waits for one that the runtime did not start."""
    found = run_program("processes.py", "python_threads", OMP_NUM_THREADS="4", **environment)
    assert found["found"] == found["expected"]


def work(team, seconds, paces, crowded):
    """Simulate calls of 5 ms, with a speed for each (size, spins) of the team; return what it used in each call."""
    used, duration = [], 0.005
    for _ in range(round(seconds / duration)):
        way = team.size, team.spins > 0
        used.append(way)
        team.note(paces[way] * duration, duration, 0.5 * team.size * duration if crowded and team.size > 1 else 0.0)
    return used


ALL, ALL_ASLEEP, HALF, ONE = (2, True), (2, False), (4, False), (1, False)


def test_a_team_alone_keeps_its_size():
    assert set(work(threads.Team(2), 10, {ALL: 190}, crowded=False)) == {ALL}
    assert set(work(threads.Team(1), 10, {(1, True): 100}, crowded=True)) == {(1, True)}


@pytest.mark.parametrize("fastest", [ALL, ALL_ASLEEP, ONE])
def test_a_crowded_team_chooses_the_fastest_way(fastest):
    paces = {ALL: 50, ALL_ASLEEP: 60, ONE: 70} | {fastest: 100}
    used = work(threads.Team(2), 10, paces, crowded=True)
    assert used.count(fastest) > 0.9 * len(used)
    assert set(used[500:]) == set(paces)  # the others are tried now and then


def test_a_team_adapts_to_changing_speeds():
    team = threads.Team(2)
    work(team, 3, {ALL: 50, ALL_ASLEEP: 60, ONE: 100}, crowded=True)
    assert team.size == 1
    used = work(team, 10, {ALL: 50, ALL_ASLEEP: 130, ONE: 100}, crowded=True)
    assert used.count(ALL_ASLEEP) > 0.7 * len(used)
    used = work(team, 10, {ALL: 190, ALL_ASLEEP: 150, ONE: 100}, crowded=False)  # the others are gone
    assert used.count(ALL) > 0.7 * len(used) and set(used[-1000:]) == {ALL}


def test_a_large_team_finds_its_size():
    paces = {(8, True): 100, (8, False): 150, HALF: 300, (2, False): 200, ONE: 100}
    used = work(threads.Team(8), 10, paces, crowded=True)
    assert used.count(HALF) > 0.9 * len(used)


# The control group's quota -----------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1000 100000", 1),
        ("300000 50000\n", 6),
        ("max 100000\n", float("inf")),
        ("", float("inf")),
        ("nonsense", float("inf")),
        ("100000 0\n", float("inf")),
        ("-1 100000\n", float("inf")),
        ("1e5 100000\n", float("inf")),
    ],
)
def test_quota_of_version_2(tmp_path, text, expected):
    write(tmp_path / "fs/a/b/cpu.max", text)
    write(tmp_path / "membership", "0::/a/b\n")
    assert threads.read_quota(tmp_path / "fs", tmp_path / "membership") == expected


@pytest.mark.parametrize("place", ["fs/cpu.max", "fs/a/cpu.max", "fs/a/b/cpu.max"])
def test_smallest_quota_of_all_parent_groups_counts(tmp_path, place):
    for name in ("fs/cpu.max", "fs/a/cpu.max", "fs/a/b/cpu.max"):
        write(tmp_path / name, "800000 100000")
    write(tmp_path / place, "300000 100000")
    write(tmp_path / "cpu.max", "100000 100000")  # above the root: not ours
    write(tmp_path / "membership", "0::/a/b\n")
    assert threads.read_quota(tmp_path / "fs", tmp_path / "membership") == 3


def test_quota_of_version_1(tmp_path):
    write(tmp_path / "fs/cpu/a/cpu.cfs_quota_us", "250000\n")
    write(tmp_path / "fs/cpu/a/cpu.cfs_period_us", "100000\n")
    write(tmp_path / "membership", "5:memory:/a\n4:cpu,cpuacct:/a\n0::/\n")
    assert threads.read_quota(tmp_path / "fs", tmp_path / "membership") == 3
    write(tmp_path / "fs/cpu/a/cpu.cfs_quota_us", "-1\n")
    assert threads.read_quota(tmp_path / "fs", tmp_path / "membership") == float("inf")


@pytest.mark.parametrize("membership", [None, "", "0::\n", "::::", "0::/../../..\n", "nonsense\n\n"])
def test_without_a_quota_there_is_no_limit(tmp_path, membership):
    if membership is not None:
        write(tmp_path / "membership", membership)
    assert threads.read_quota(tmp_path / "fs", tmp_path / "membership") == float("inf")


def test_quota_of_this_machine():
    assert threads.read_quota() >= 1


# Processes and Python threads --------------------------------------------------


@pytest.fixture(params=["2", "5"])
def omp_num_threads(request):
    return request.param


@linux
def test_fork_after_threads_ran(omp_num_threads):
    found = run_program("processes.py", "fork", OMP_NUM_THREADS=omp_num_threads)
    assert found["child"] == found["grandchild"] == [found["expected"], 1]
    assert found["afterwards"] == [found["expected"], int(omp_num_threads)]


@linux
def test_fork_before_any_thread_ran():
    found = run_program("processes.py", "fork_untouched", OMP_NUM_THREADS="2")
    assert found["child"] == [found["expected"], 2]


@linux
@pytest.mark.parametrize("case", ["fork_pool", "spawn_pool", "executor"])
def test_workers_do_not_oversubscribe(case):
    found = run_program("processes.py", case, OMP_NUM_THREADS=None)
    assert found["found"] == [[bits, 1, 0] for bits in found["expected"]]


@linux
def test_forked_workers_use_one_thread_whatever_is_requested():
    found = run_program("processes.py", "fork_pool", OMP_NUM_THREADS="3")
    assert found["found"] == [[bits, 1, 0] for bits in found["expected"]]


def test_networks_in_python_threads(omp_num_threads):
    found = run_program("processes.py", "python_threads", OMP_NUM_THREADS=omp_num_threads)
    assert found["found"] == found["expected"]


@pytest.mark.parametrize("n_threads", [1, 3])
def test_two_trainers_in_two_python_threads(n_threads):
    cyconv.set_num_threads(n_threads)

    def digest_of_run(options):
        trainer = make_trainer(**options)
        fit(trainer)
        return digest(trainer)

    options = [EVERYTHING, {"momentum": 0.5}]
    expected = [digest_of_run(each) for each in options]
    assert in_threads(digest_of_run, options) == expected


def test_one_network_in_several_python_threads(make_network, rng):
    """Each call returns what it returns alone."""
    cyconv.set_num_threads(2)
    network = make_network(n_hidden=40)
    X = [rng.standard_normal((n, 3, 32, 32)).astype("float32") for n in (7, 30, 101)]
    labels = [rng.integers(0, 10, len(images)) for images in X]

    def results(i):
        return network.predict_proba(X[i]).tobytes(), network.loss_and_gradients(X[i], labels[i])[0]

    expected = [results(i) for i in range(3)]
    found = in_threads(lambda i: [results(i) for _ in range(20)], range(3))
    assert found == [20 * [each] for each in expected]


def test_threadpoolctl_sees_the_runtime():
    pytest.importorskip("threadpoolctl")
    if not HAS_OPENMP:
        pytest.skip("built without OpenMP")
    assert "openmp" in run_program("processes.py", "openmp")
