"""How many threads to use: by default, as many as this process can really run."""

import math
import os
import re
import sys
import time
from pathlib import Path

from .. import _cgroups, _topology
from .._checks import check_integer
from .._kernels import processor

MAX_THREADS = 256

QUOTA_HOLDS = 1.0  # seconds for which the quota is cached: reading it takes longer than an update of a small network
SPINS = 5000  # pauses before a waiting thread sleeps if no other process competes: about 100 microseconds
WINDOW = 0.03  # seconds of work over which a configuration is measured: about ten time slices of the system
REVIEW_AFTER = 1.0  # seconds of work after which another configuration is measured again
CROWDED = 0.1  # fraction of time asleep at barriers above which other processes are taken to use the processors

_chosen: int | None = None
_openmp_at_import = processor.openmp_max_threads()
_last_quota: tuple[float, float] = -math.inf, math.inf  # time of reading, value
_used_openmp = False
_after_fork = False


def set_num_threads(n: int) -> None:
    """Set the number of threads of the kernels. Results do not depend on it.

    Parameters
    ----------
    n : int
        1 to 256. More threads than processors are allowed, but slow.

    Raises
    ------
    TypeError, ValueError
        If ``n`` is not an integer in that range.

    Notes
    -----
    OpenMP cannot start threads in a child process that was forked after its
    parent had used several threads; the kernels then use one thread, regardless
    of this setting.

    Examples
    --------
    >>> import cyconv
    >>> cyconv.set_num_threads(2)
    >>> cyconv.get_num_threads()
    2
    """
    global _chosen
    _chosen = check_integer("n", n, 1, MAX_THREADS)


def get_num_threads() -> int:
    """Return the number of threads that the next call of a kernel will use.

    If :func:`set_num_threads` was not called, it is the first of these that
    applies: the number set in the OpenMP runtime since the import (for example
    by threadpoolctl); ``OMP_NUM_THREADS``; 1 in a worker of a process pool; the
    number of processors that OpenMP binds its threads to, or that the affinity
    mask allows, up to the quota of the control group. Of the latter, efficiency
    cores do not count if there are performance cores: the threads share the work
    evenly, so that each waits for the slowest. The number never exceeds OpenMP's
    limit (``OMP_THREAD_LIMIT``). Training uses fewer threads while other
    processes compete for the processors and fewer threads are faster.

    Returns
    -------
    int
    """
    if _after_fork:
        return 1
    return min(_chosen if _chosen is not None else default_threads(), _limit())


def threads_for_call() -> int:
    """As :func:`get_num_threads`, or 1 without OpenMP; records that OpenMP is about to start threads."""
    global _used_openmp
    if not processor.openmp_version():
        return 1
    n = get_num_threads()
    _used_openmp = _used_openmp or n > 1
    return n


def default_threads() -> int:
    """The number of threads if `set_num_threads` was not called."""
    return min(_default()[0], _limit())


def explain_num_threads() -> str:
    """Which of the causes that `get_num_threads` lists decides the number of threads."""
    if not processor.openmp_version():
        return "built without OpenMP"
    if _after_fork:
        return "forked after its parent had used several threads"
    n, cause = (_chosen, "set_num_threads") if _chosen is not None else _default()
    return cause if n <= _limit() else f"OpenMP's limit of threads; {n} by {cause}"


def _default() -> tuple[int, str]:
    """The number of threads before OpenMP's limit, and what decides it."""
    in_runtime = processor.openmp_max_threads()
    in_environment = _parse_count(os.environ.get("OMP_NUM_THREADS", "").split(",")[0])
    if in_runtime != _openmp_at_import:
        return in_runtime, "set in the OpenMP runtime"
    if in_environment:
        return in_environment, "OMP_NUM_THREADS"
    if _in_worker():
        return 1, "one of several worker processes"
    n, most = performance_processors(), quota()
    if most < n:
        return max(1, int(most)), "quota of the control group"
    kind = "processors" if n == processors() else "performance cores"
    return max(1, n), f"{kind} that this process may use"


def _limit() -> int:
    return min(MAX_THREADS, max(1, processor.openmp_thread_limit()))


def _parse_count(text: str) -> int:
    """A non-negative integer given by the environment or the system; 0 if it is not one."""
    return int(text) if re.fullmatch(r"\s*[0-9]{1,18}\s*", text) else 0


def _in_worker() -> bool:
    """Whether multiprocessing started this process, whose siblings then share the processors."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def processors() -> int:
    """Number of processors that this process may run on."""
    bound = processor.openmp_bound_processors()  # if set, the affinity mask is that of the calling thread only
    if bound:
        return bound
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def performance_processors() -> int:
    """As :func:`processors`, without efficiency cores if there are others and OpenMP binds no threads."""
    if processor.openmp_bound_processors():
        return processors()
    if hasattr(os, "sched_getaffinity"):
        return len(_topology.performance_cores(os.sched_getaffinity(0)))
    n = processors()
    return min(_topology.count_performance_cores() or n, n)


def quota() -> float:
    """As :func:`read_quota`, read again once it is older than QUOTA_HOLDS."""
    global _last_quota
    now = time.monotonic()
    if now - _last_quota[0] > QUOTA_HOLDS:
        _last_quota = now, read_quota()
    return _last_quota[1]


def read_quota(root: Path = _cgroups.ROOT, membership: Path = _cgroups.MEMBERSHIP) -> float:
    """Processors that the control group's quota amounts to, rounded up; infinity where there is none."""
    return min(map(_group_quota, _cgroups.folders("cpu", root, membership)), default=math.inf)


def _group_quota(folder: Path) -> float:
    limit, _, period = _cgroups.read(folder / "cpu.max").strip().partition(" ")
    if not limit:
        limit, period = _cgroups.read(folder / "cpu.cfs_quota_us"), _cgroups.read(folder / "cpu.cfs_period_us")
    quota, per = _parse_count(limit), _parse_count(period)
    return math.ceil(quota / per) if quota and per else math.inf


def _note_fork() -> None:
    global _after_fork
    _after_fork = _after_fork or _used_openmp


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


class Team:
    """The number of threads for one kind of work, and how long they spin before they sleep.

    Threads that synchronise many thousand times a second are slower than a
    single thread as soon as another process competes for one of their
    processors, which shows in the time they sleep at barriers. In that case,
    the throughput of several configurations is measured: without spinning, with
    half as many threads, and so on. The fastest one is used, and from time to
    time another one is measured again. Without competing processes, the team
    keeps its size and nothing is measured. Results do not depend on the
    configuration.

    Parameters
    ----------
    n_threads : int
        Number of threads of the whole team.
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._configurations = [(n_threads, SPINS)]  # (number of threads, spins)
        while n_threads > 1:
            self._configurations.append((n_threads, 0))
            n_threads //= 2
        if self.n_threads > 1:
            self._configurations.append((1, 0))
        # Work per second with each configuration when it was last measured.
        self._throughputs: list[float | None] = [None] * len(self._configurations)
        self._current = self._n_reviews = 0
        self._start_window(WINDOW)

    def _start_window(self, seconds: float) -> None:
        self._window = seconds
        self._work = self._seconds = self._asleep = 0.0

    @property
    def size(self) -> int:
        """int: number of threads for the next call."""
        return self._configurations[self._current][0]

    @property
    def spins(self) -> int:
        """int: number of pauses before a waiting thread sleeps."""
        return self._configurations[self._current][1]

    def note(self, work: float, seconds: float, asleep: float) -> None:
        """Record a call: its work (in a fixed unit), its duration, and the time that threads slept at barriers."""
        self._work += work
        self._seconds += seconds
        self._asleep += asleep
        if self._seconds < self._window:
            return
        self._throughputs[self._current] = self._work / self._seconds
        if self._current == 0 and self._asleep <= CROWDED * self.size * self._seconds:
            self._throughputs = [None] * len(self._configurations)
            self._start_window(WINDOW)
        elif None in self._throughputs:
            self._current = self._throughputs.index(None)
            self._start_window(WINDOW)
        elif self._current != (best := self._throughputs.index(max(filter(None, self._throughputs)))):
            self._current = best
            self._start_window(REVIEW_AFTER)
        else:  # measure the others in turn
            self._n_reviews += 1
            n_others = len(self._configurations) - 1
            self._current = (best + 1 + self._n_reviews % n_others) % len(self._configurations)
            self._start_window(WINDOW)
