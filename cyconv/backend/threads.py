"""How many threads to use: what this process may really use, unless told otherwise."""

import math
import os
import re
import sys
import time
from pathlib import Path

from .. import _cgroups
from .._checks import check_integer
from .._kernels import processor

MAX_THREADS = 256

QUOTA_HOLDS = 1.0  # seconds: reading it takes longer than a small network's update
SPINS = 5000  # pauses before a waiting thread sleeps, on processors of its own: some 100 microseconds
WINDOW = 0.03  # seconds of work over which a way to share it is tried: ten of a system's time slices or so
REVIEW_AFTER = 1.0  # seconds of work for which the faster way is kept
CROWDED = 0.1  # share of their time that threads sleep for each other once others use their processors

_chosen: int | None = None
_openmp_at_import = processor.openmp_max_threads()
_last_quota: tuple[float, float] = -math.inf, math.inf  # when it was read, and what it was
_used_openmp = False
_after_fork = False


def set_num_threads(n: int) -> None:
    """Set how many threads the kernels use. Results do not depend on it.

    Parameters
    ----------
    n : int
        1 to 256. More than there are processors is allowed and slow.

    Raises
    ------
    TypeError, ValueError
        If ``n`` is no integer in that range.

    Notes
    -----
    In a child that was forked after the parent had run on several threads,
    OpenMP's threads are gone and cannot be started again; the kernels then
    run on one thread whatever is set.

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
    """How many threads the next call of a kernel will use.

    Unless :func:`set_num_threads` was called: what a program has told the
    OpenMP runtime since (threadpoolctl does), else ``OMP_NUM_THREADS``, else one
    in a worker of a process pool, else the processors that OpenMP binds its
    threads to or the affinity mask leaves to this process, within the control
    group's quota. Never more than OpenMP's own limit (``OMP_THREAD_LIMIT``).
    Training uses fewer of them while other processes keep them busy and fewer
    are faster.

    Returns
    -------
    int
    """
    if _after_fork:
        return 1
    return min(_chosen if _chosen is not None else default_threads(), _limit())


def threads_for_call() -> int:
    """As :func:`get_num_threads`, or 1 without OpenMP; notes that OpenMP is about to start its threads."""
    global _used_openmp
    if not processor.openmp_version():
        return 1
    n = get_num_threads()
    _used_openmp = _used_openmp or n > 1
    return n


def default_threads() -> int:
    """The number of threads where none was chosen."""
    told = processor.openmp_max_threads()
    asked = _positive(os.environ.get("OMP_NUM_THREADS", "").split(",")[0])
    if told != _openmp_at_import or asked:
        return min(told if told != _openmp_at_import else asked, _limit())
    if _in_worker():
        return 1
    return max(1, int(min(processors(), quota(), _limit())))


def _limit() -> int:
    return min(MAX_THREADS, max(1, processor.openmp_thread_limit()))


def _positive(text: str) -> int:
    """The number that a text of the system's holds; 0 if it holds none."""
    return int(text) if re.fullmatch(r"\s*[0-9]{1,18}\s*", text) else 0


def _in_worker() -> bool:
    """Whether multiprocessing started this process: its siblings share the processors."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def processors() -> int:
    """How many this process may run on."""
    bound = processor.openmp_bound_processors()  # the affinity mask then shows but the calling thread's
    if bound:
        return bound
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    quota, per = _positive(limit), _positive(period)
    return math.ceil(quota / per) if quota and per else math.inf


def _forked() -> None:
    global _after_fork
    _after_fork = _after_fork or _used_openmp


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Team:
    """How threads share a kind of work: how many of them, and how they wait for each other.

    Threads that wait for each other many thousand times a second are slower
    than one of them as soon as another process wants one of their processors.
    Then they sleep for each other. If they do, all ways to share the work are
    tried: without spinning before they sleep, by half as many, and so on; the
    fastest is kept, and now and then one of the others tried again. On
    processors of its own a team keeps its size and nothing is tried. Results do
    not depend on it.

    Parameters
    ----------
    n_threads : int
        How many there are.
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._ways = [(n_threads, SPINS)]
        while n_threads > 1:
            self._ways.append((n_threads, 0))
            n_threads //= 2
        if self.n_threads > 1:
            self._ways.append((1, 0))
        # What each got done in a second, when it was last used.
        self._paces: list[float | None] = [None] * len(self._ways)
        self._way = self._turn = 0
        self._begin(WINDOW)

    def _begin(self, seconds: float) -> None:
        self._seconds_wanted = seconds
        self._work = self._seconds = self._asleep = 0.0

    @property
    def size(self) -> int:
        """int: how many threads to use for the next call."""
        return self._ways[self._way][0]

    @property
    def spins(self) -> int:
        """int: for how many pauses each should wait before it sleeps."""
        return self._ways[self._way][1]

    def note(self, work: float, seconds: float, asleep: float) -> None:
        """Take in a call's work, in a unit that stays the same, its time, and how long threads slept for each other."""
        self._work += work
        self._seconds += seconds
        self._asleep += asleep
        if self._seconds < self._seconds_wanted:
            return
        self._paces[self._way] = self._work / self._seconds
        if self._way == 0 and self._asleep <= CROWDED * self.size * self._seconds:
            self._paces = [None] * len(self._ways)
            self._begin(WINDOW)
        elif None in self._paces:
            self._way = self._paces.index(None)
            self._begin(WINDOW)
        elif self._way != (best := self._paces.index(max(filter(None, self._paces)))):
            self._way = best
            self._begin(REVIEW_AFTER)
        else:
            self._turn = (self._turn + 1) % (len(self._ways) - 1)
            self._way = (best + 1 + self._turn) % len(self._ways)
            self._begin(WINDOW)
