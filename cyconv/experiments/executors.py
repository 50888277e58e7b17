"""Many independent calls on any `concurrent.futures.Executor`, each with exactly one result.

There is no scheduler here: processes come from the standard library, a
cluster from ``dask.distributed``, ranks from ``mpi4py.futures``. This module
creates these executors, resubmits calls when workers die, and tells a call on
a cluster how many threads it should use.
"""

import asyncio
import contextlib
import importlib.util
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing.context import SpawnContext, SpawnProcess
from types import FrameType
from typing import Any, NoReturn, TypeAlias, TypeVar

from .._checks import check_choice, check_integer, describe
from .._signals import Interrupted, SignalHandler
from .._version import __version__
from ..backend.threads import default_threads

KINDS = ("process", "dask", "mpi", "serial")
MAX_BREAKS = 3
SHUTDOWN_TIMEOUT = 10.0  # seconds that terminated processes have to write their checkpoints
NO_WORKERS_TIMEOUT = 60.0  # seconds that calls wait for a Dask scheduler to have any worker
NO_MAIN_GUARD = 113  # exit status of a process that gets here again while importing the script

_Call = TypeVar("_Call", bound=tuple[Any, ...])
_Result = TypeVar("_Result")
ExecutorFactory: TypeAlias = Callable[[], contextlib.AbstractContextManager[Executor | None]]

_PACKAGE = __name__.partition(".")[0]
_PACKAGES = {"dask": "distributed", "mpi": "mpi4py"}
_LOCAL_RANKS = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")  # set by the launchers of Open MPI and of MPICH


def executor_factory(kind: str, n_workers: int = 1, address: str | None = None) -> ExecutorFactory:
    """Return a function that creates a new executor of the given kind each time it is called.

    Parameters
    ----------
    kind : {"process", "dask", "mpi", "serial"}
        ``"process"``: a pool of local processes, spawned rather than forked;
        when terminated, runs write their checkpoints. ``"dask"``: the cluster
        at ``address``, or else a local one of ``n_workers`` processes with one
        thread each, on the loopback interface. ``"mpi"``: the ranks of
        ``mpiexec -n N python -m mpi4py.futures SCRIPT``, or as many as the MPI
        library can start. ``"serial"``: no executor; calls run in the calling
        thread.
    n_workers : int, default 1
        Number of processes to start; ignored by ``"serial"`` and with an
        ``address``.
    address : str, optional
        Address of a running Dask scheduler, such as ``"tcp://127.0.0.1:8786"``.
        Its workers need this package, and one thread each (``--nthreads 1``).

    Returns
    -------
    callable
        Takes no arguments and returns a context manager whose value is an
        executor or None. If it is left by an exception, running calls are
        terminated.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.
    ModuleNotFoundError
        If the kind needs a package that is not installed.

    Notes
    -----
    Each local process imports the script that starts it, so the script must
    be a file, and must use ``"process"`` and ``"dask"`` only under
    ``if __name__ == "__main__":``; otherwise RuntimeError is raised.
    Notebooks, interactive sessions and ``python -c`` need no such guard.

    Examples
    --------
    >>> make_executor = executor_factory("serial")
    >>> [result for _, result in map_unordered(abs, [(-1,), (2,)], make_executor)]
    [1, 2]
    """
    check_choice("kind", kind, KINDS)
    check_integer("n_workers", n_workers, 1, 10_000)
    if address is not None and kind != "dask":
        raise ValueError(f"address must be None unless kind is 'dask', but got {describe(address)}")
    package = _PACKAGES.get(kind)
    if package and importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(
            f"kind {kind!r} must have {package} installed, but it is not: pip install 'cyconv[{kind}]'"
        )
    if kind == "dask":
        return partial(_dask, n_workers, address)
    return partial({"process": _processes, "mpi": _mpi, "serial": _serial}[kind], n_workers)


def as_factory(executor: Executor | ExecutorFactory | str | None, n_workers: int | None = None) -> ExecutorFactory:
    """The factory that an argument ``executor`` stands for.

    Parameters
    ----------
    executor : Executor, callable, str or None
        An executor, which is used as it is and not shut down; a function or
        class that returns a new one when called without arguments; or a kind
        of `executor_factory`. None is ``"process"`` with several workers, and
        else ``"serial"``.
    n_workers : int, optional
        For a kind; 1 by default.

    Returns
    -------
    callable

    Raises
    ------
    TypeError, ValueError, ModuleNotFoundError
        If the argument is none of these, or as `executor_factory` does.
    """
    if executor is None:
        executor = "serial" if n_workers in (None, 1) else "process"
    if isinstance(executor, str):
        check_choice("executor", executor, KINDS)
        return executor_factory(executor, 1 if n_workers is None else n_workers)
    if n_workers is not None:
        raise ValueError(f"n_workers must be None with an executor that is not created here, but got {n_workers}")
    if isinstance(executor, Executor):
        return partial(contextlib.nullcontext, executor)
    if not callable(executor):
        raise TypeError(
            "executor must be a concurrent.futures.Executor, a function that returns one, or one of "
            f"{', '.join(KINDS)}, but got {describe(executor)}"
        )
    return executor


def cluster_threads() -> int | None:
    """Number of threads for the current call if it is on a worker of a Dask cluster or on an MPI rank, else None.

    Calls that run on one machine at the same time share its CPUs equally.
    """
    n_calls = _n_dask_threads_here() or _n_ranks_here()
    return max(1, default_threads() // n_calls) if n_calls else None


def _n_dask_threads_here() -> int:
    """Number of threads of all Dask workers on this machine; 0 if this is not one of them."""
    if "distributed.worker" not in sys.modules:
        return 0
    from distributed import get_client, get_worker
    from distributed.comm import get_address_host

    try:
        host = get_address_host(get_worker().address)
    except ValueError:
        return 0
    by_address: dict[str, int] = get_client().nthreads()
    return sum(n for address, n in by_address.items() if get_address_host(address) == host)


def _n_ranks_here() -> int:
    if "mpi4py.MPI" not in sys.modules:
        return 0
    return next((int(os.environ[name]) for name in _LOCAL_RANKS if os.environ.get(name, "").isdecimal()), 0)


def map_unordered(
    function: Callable[..., _Result],
    calls: Iterable[_Call],
    executor: Executor | ExecutorFactory | str | None = None,
    max_breaks: int = MAX_BREAKS,
) -> Generator[tuple[_Call, _Result], None, None]:
    """Call ``function`` with every tuple of arguments; yield each result as it becomes available.

    Calls that are lost with their worker (its process was killed, its node
    went down) are submitted again to a new executor.

    Parameters
    ----------
    function : callable
        For other processes, it must be importable there by its name.
    calls : iterable of tuple
        Arguments; for other processes, they must be picklable.
    executor : Executor, callable or str, optional
        A `concurrent.futures.Executor`; a class or function that returns one
        when called without arguments, such as what `executor_factory` returns;
        or a kind of `executor_factory`. By default, calls run one after
        another in this thread.
    max_breaks : int
        Number of executors in a row that may break without a single result.

    Yields
    ------
    call : tuple
        One of ``calls``, each once.
    result : object
        What ``function`` returned. Results come in the order of ``calls``
        without an executor, and as they finish with one.

    Raises
    ------
    ChildProcessError
        If workers died ``max_breaks`` times in a row without a result in
        between, lack this package, or are missing from a Dask cluster.
    ConnectionError
        If a Dask scheduler does not answer.
    Exception
        The first exception that ``function`` raises; it ends the work.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> sorted(result for _, result in map_unordered(pow, [(2, 3), (3, 2)], ThreadPoolExecutor))
    [8, 9]
    """
    make_executor = as_factory(executor)
    pending = dict(enumerate(calls))
    breaks = 0
    while pending:
        if breaks == max_breaks:
            raise ChildProcessError(
                f"workers died {breaks} times in a row before any of their {len(pending)} calls finished"
            )
        breaks += 1
        with make_executor() as opened:
            for key, result in _submit_pending(function, pending, opened):
                breaks = 0
                yield pending.pop(key), result


def _submit_pending(
    function: Callable[..., _Result], pending: dict[int, _Call], executor: Executor | None
) -> Iterator[tuple[int, _Result]]:
    """Submit all pending calls to one executor; yield ``(key, result)`` of each that was not lost."""
    if executor is None:
        for key in list(pending):
            yield key, function(*pending[key])
        return
    keys: dict[Future[_Result], int] = {}
    with contextlib.suppress(BrokenExecutor):  # calls that could not be submitted stay pending
        for key, call in pending.items():
            keys[executor.submit(function, *call)] = key
    try:
        for future in as_completed(list(keys)):
            error = _exception_of(future)
            if error is None:
                yield keys.pop(future), future.result()
            elif isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == _PACKAGE:
                raise ChildProcessError(
                    f"every worker must have {_PACKAGE} {__version__}, but one of them has another version or none"
                ) from error
            elif not isinstance(error, _lost_worker_errors()):
                raise error
    finally:
        if not isinstance(executor, _Pool):  # it cancels waiting calls itself, once its processes have ended
            for future in keys:
                future.cancel()


def _exception_of(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error


def _lost_worker_errors() -> tuple[type[BaseException], ...]:
    """The exceptions by which executors report that a worker is gone, through no fault of the call."""
    scheduler = sys.modules.get("distributed.scheduler")
    killed = (scheduler.KilledWorker,) if scheduler else ()
    return BrokenExecutor, CancelledError, Interrupted, *killed  # Interrupted: the worker received SIGTERM


def _serial(n_workers: int) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


@contextlib.contextmanager
def _processes(n_workers: int) -> Iterator[Executor]:
    _check_main_module()
    context = _SpawnContext()
    pool = _Pool(n_workers, context, initializer=_initialize_worker)
    broken = None
    try:
        yield pool
    except BrokenExecutor as error:
        broken = error
    finally:
        # The results are complete or no longer wanted: wait only until running calls have written checkpoints.
        children = [child for child in context.processes if child.pid is not None]
        for child in children:
            child.terminate()
        deadline = time.monotonic() + SHUTDOWN_TIMEOUT
        for child in children:
            child.join(max(0.0, deadline - time.monotonic()))
            child.kill()
        pool.shutdown(cancel_futures=True)
    if any(child.exitcode == NO_MAIN_GUARD for child in children):
        script = getattr(sys.modules["__main__"], "__file__", "this script")
        raise RuntimeError(
            'processes must be started under if __name__ == "__main__":, because each of them imports the script '
            f"first, but {script} starts them without it"
        ) from None
    if broken is not None:
        raise broken


class _SpawnContext(SpawnContext):
    """A context that keeps a list of the processes it created."""

    def __init__(self) -> None:
        self.processes: list[SpawnProcess] = []

    def Process(self, *arguments: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]
        self.processes.append(super().Process(*arguments, **options))
        return self.processes[-1]


def _check_main_module() -> None:
    """Exit if this child would start processes while importing the script; check that the script can be imported."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(NO_MAIN_GUARD)
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None:
        return  # a notebook, python -c or python -m
    original_folder = multiprocessing.process.ORIGINAL_DIR  # type: ignore[attr-defined]
    if not os.path.exists(os.path.join(original_folder, path)):
        raise RuntimeError(
            f"processes must be started by a script that each of them can import, but there is no file {path}"
        )


class _Pool(ProcessPoolExecutor):
    """Processes that end on SIGTERM and similar signals, but not while writing a file.

    Calls must not be cancelled before the processes have ended: in Python
    3.11.2 the pool's management thread fails on them.
    """

    def submit(self, function: Callable[..., _Result], /, *arguments: Any) -> Future[_Result]:  # type: ignore[override]
        return super().submit(_call, function, *arguments)


def _call(function: Callable[..., _Result], *arguments: Any) -> _Result:
    try:
        with SignalHandler(_interrupt):
            return function(*arguments)
    except Interrupted as stop:
        os._exit(128 + (stop.signum or signal.SIGTERM))


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signum, signal.SIG_IGN)  # handle only the first signal
    error = Interrupted("the work was interrupted")
    error.signum = signum
    raise error


def _initialize_worker() -> None:
    """Leave Ctrl-C to the parent process, and exit when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _dask(n_workers: int, address: str | None) -> Iterator[Executor]:
    from distributed import Client, LocalCluster
    from distributed.utils import silence_logging_cmgr

    with contextlib.ExitStack() as stack:
        stack.enter_context(silence_logging_cmgr(logging.CRITICAL))  # what matters is raised
        if address is None:
            _check_main_module()
            try:
                cluster = LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address=None,
                    silence_logs=logging.ERROR,
                )
            except RuntimeError:
                with contextlib.suppress(BrokenExecutor), _processes(1) as pool:
                    pool.submit(int).result()  # raises a clear error if the script cannot be imported
                raise
            address = stack.enter_context(cluster)
        try:
            client = stack.enter_context(Client(address))
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"address must be that of a running Dask scheduler, but {address} is none: {error}"
            ) from error
        yield _DaskExecutor(client)


class _DaskExecutor(Executor):
    """A Dask client that returns futures of the standard library.

    With the client's own executor, a future never finishes if its result was
    lost with a worker and the repeated call failed or was cancelled.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._unfinished: set[Future[Any]] = set()
        client.loop.add_callback(self._watch)

    async def _watch(self) -> None:
        """Let the calls fail once the cluster has had no workers for a while."""
        alone = 0.0
        while self._client.status in ("running", "connecting"):
            with contextlib.suppress(OSError):  # the scheduler is gone, which the client notices itself
                alone = 0.0 if await self._client.nthreads() else alone + 1
            if alone > NO_WORKERS_TIMEOUT:
                sentence = (
                    f"the Dask scheduler at {self._client.scheduler.address} must have workers, "
                    f"but it has had none for {NO_WORKERS_TIMEOUT:.0f} s"
                )
                for future in list(self._unfinished):
                    _finish(future, error=ChildProcessError(sentence))
            await asyncio.sleep(1)

    def submit(self, function: Callable[..., _Result], /, *arguments: Any) -> Future[_Result]:  # type: ignore[override]
        remote = self._client.submit(function, *arguments, pure=False)
        future: Future[_Result] = Future()
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        future.add_done_callback(lambda future: future.cancelled() and remote.cancel())
        self._client.loop.add_callback(self._follow, remote, future)
        return future

    async def _follow(self, remote: Any, future: Future[Any]) -> None:
        result = error = None
        try:
            result = await self._client.gather(remote, asynchronous=True)
        except Exception as raised:
            error = raised
        _finish(future, result, error)


def _finish(future: Future[Any], result: Any = None, error: BaseException | None = None) -> None:
    """Give a future its result or error, unless it has one or was cancelled."""
    if (future.done() and not future.cancelled()) or not future.set_running_or_notify_cancel():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


@contextlib.contextmanager
def _mpi(n_workers: int) -> Iterator[Executor]:
    from mpi4py.futures import MPIPoolExecutor

    executor = MPIPoolExecutor(n_workers)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
