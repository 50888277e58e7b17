"""How many threads to use: what this process may really use, unless told otherwise."""

import math
import os
import re
import sys
import time

from . import _cgroups
from ._checks import check_integer

MAX_THREADS = 256

QUOTA_HOLDS = 1.0       # seconds: reading it takes longer than a small network's update

_chosen = None
_last_quota = -math.inf, math.inf       # when it was read, and what it was
_used_openmp = False
_after_fork = False


def set_num_threads(n):
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


def get_num_threads():
    """How many threads the next call of a kernel will use.

    Unless :func:`set_num_threads` was called: ``OMP_NUM_THREADS`` where it is
    set, else one in a worker of a process pool, else the processors that the
    affinity mask and the control group's quota leave to this process.

    Returns
    -------
    int
    """
    if _after_fork:
        return 1
    return _chosen if _chosen is not None else default_threads()


def threads_for_call():
    """As :func:`get_num_threads`; notes that OpenMP is about to start its threads."""
    global _used_openmp
    n = get_num_threads()
    _used_openmp = _used_openmp or n > 1
    return n


def default_threads():
    """The number of threads where none was chosen."""
    asked = _positive(os.environ.get("OMP_NUM_THREADS", "").split(",")[0])
    if asked:
        return min(asked, MAX_THREADS)
    if _in_worker():
        return 1
    return max(1, min(processors(), _quota_lately(), MAX_THREADS))


def _positive(text):
    """The number that a text of the system's holds; 0 if it holds none."""
    return int(text) if re.fullmatch(r"\s*[0-9]{1,18}\s*", text) else 0


def _in_worker():
    """Whether multiprocessing started this process: its siblings share the processors."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def processors():
    """How many this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota_lately():
    """As :func:`_quota`, read again once it is older than QUOTA_HOLDS."""
    global _last_quota
    now = time.monotonic()
    if now - _last_quota[0] > QUOTA_HOLDS:
        _last_quota = now, _quota()
    return _last_quota[1]


def _quota(root=_cgroups.ROOT, membership=_cgroups.MEMBERSHIP):
    """Processors that the control group's quota amounts to, rounded up; infinity where there is none."""
    return min(map(_group_quota, _cgroups.folders("cpu", root, membership)), default=math.inf)


def _group_quota(folder):
    limit, _, period = _cgroups.read(folder / "cpu.max").strip().partition(" ")
    if not limit:
        limit, period = _cgroups.read(folder / "cpu.cfs_quota_us"), _cgroups.read(folder / "cpu.cfs_period_us")
    limit, period = _positive(limit), _positive(period)
    return math.ceil(limit / period) if limit and period else math.inf


def _forked():
    global _after_fork
    _after_fork = _after_fork or _used_openmp


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
