"""Calls on executors: those that a broken one loses are repeated; none is lost and none made twice."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor

import pytest

import cyconv
from cyconv._files import atomic_write
from cyconv.experiments import executors
from cyconv.experiments.executors import executor_factory, map_unordered


class Breaking(Executor):
    """Executes ``good`` calls and loses the rest with ``error``."""

    opened = 0

    def __init__(self, good, error):
        self.good, self.error = good, error
        Breaking.opened += 1

    def submit(self, function, *arguments):
        future = Future()
        self.good -= 1
        if self.good >= 0:
            future.set_result(function(*arguments))
        elif isinstance(self.error, CancelledError):
            future.cancel()
            future.set_running_or_notify_cancel()
        elif self.good < -1:
            raise BrokenExecutor("no more calls")
        else:
            future.set_exception(self.error)
        return future


@pytest.mark.parametrize("error", [BrokenExecutor("gone"), CancelledError(), cyconv.Interrupted("terminated")])
def test_only_the_calls_that_broken_executors_lose_are_repeated(monkeypatch, error):
    monkeypatch.setattr(Breaking, "opened", 0)
    called = []

    def function(number):
        called.append(number)
        return -number

    results = list(map_unordered(function, [(n,) for n in range(7)], lambda: Breaking(3, error)))
    assert sorted(results) == [((n,), -n) for n in range(7)]
    assert sorted(called) == list(range(7)) and Breaking.opened == 3


def test_executors_that_keep_breaking_are_given_up(monkeypatch):
    monkeypatch.setattr(Breaking, "opened", 0)
    with pytest.raises(ChildProcessError, match="3 times in a row .* 2 calls"):
        list(map_unordered(abs, [(1,), (2,)], lambda: Breaking(0, BrokenExecutor())))
    assert Breaking.opened == 3


def test_an_error_of_a_call_cancels_the_remaining_calls():
    gate, called = threading.Event(), []

    def function(number):
        if number == 0:
            raise ZeroDivisionError("mine")
        gate.wait(10)
        called.append(number)

    class Pool(ThreadPoolExecutor):
        def __exit__(self, *error):
            gate.set()
            return super().__exit__(*error)

    with pytest.raises(ZeroDivisionError, match="mine"):
        list(map_unordered(function, [(n,) for n in range(9)], lambda: Pool(1)))
    assert len(called) <= 1


def write_slowly(path):
    with atomic_write(path) as file:
        file.write(b"half")
        path.with_name("begun").touch()
        time.sleep(60)


def test_a_terminated_process_leaves_no_partial_file(tmp_path):
    with executor_factory("process")() as executor:
        executor.submit(write_slowly, tmp_path / "file")
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


SCRIPT = """
from cyconv.experiments import executors
from cyconv.experiments.executors import executor_factory, map_unordered
{guard}for _, result in map_unordered(abs, [(-1,), (2,)], executor_factory({kind!r}, 2)): print(result)
"""
GUARD = 'if __name__ == "__main__":\n  '


def run_python(*command, cwd, environment, **options):
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["process", "dask"])
@pytest.mark.parametrize("command", [["job.py"], ["-m", "job"]])
def test_a_script_without_a_main_guard_fails_with_one_sentence(tmp_path, environment, kind, command):
    if kind == "dask":
        pytest.importorskip("distributed")
    (tmp_path / "job.py").write_text(SCRIPT.format(guard="", kind=kind))
    done = run_python(*command, cwd=tmp_path, environment=environment)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("Traceback") == 1 and len(done.stderr.splitlines()) < 25
    last = done.stderr.splitlines()[-1]
    assert last.startswith('RuntimeError: processes must be started under if __name__ == "__main__":')
    assert last.endswith("job.py starts them without it")


@pytest.mark.parametrize("kind", ["process", "dask"])
def test_a_script_with_a_main_guard_works(tmp_path, environment, kind):
    if kind == "dask":
        pytest.importorskip("distributed")
    (tmp_path / "job.py").write_text(SCRIPT.format(guard=GUARD, kind=kind))
    done = run_python("job.py", cwd=tmp_path, environment=environment)
    assert done.returncode == 0 and sorted(done.stdout.split()) == ["1", "2"] and done.stderr == ""


def test_a_program_that_cannot_be_imported(tmp_path, environment):
    code = SCRIPT.format(guard="", kind="process")
    done = run_python("-", cwd=tmp_path, environment=environment, input=code)
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1
    assert done.stderr.splitlines()[-1].endswith("each of them can import, but there is no file <stdin>")
    done = run_python("-c", code, cwd=tmp_path, environment=environment)
    assert done.returncode == 0 and sorted(done.stdout.split()) == ["1", "2"] and done.stderr == ""


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (("thread",), "kind must be one of"),
        (("process", 0), "n_workers must be"),
        (("process", 1, "tcp://127.0.0.1:1"), "address must be None unless"),
    ],
)
def test_unknown_executors_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        executor_factory(*arguments)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"distributed installed.*cyconv\[dask\]"):
        executor_factory("dask")


def test_a_call_whose_dask_workers_kept_dying_is_repeated():
    scheduler = pytest.importorskip("distributed.scheduler")
    error = scheduler.KilledWorker("call", None, 3)
    assert len(list(map_unordered(abs, [(1,), (2,)], lambda: Breaking(1, error)))) == 2


def loses_its_result(marker, again):
    """A call whose result kills its Dask worker when it is fetched; the second time it returns ``again()``."""

    class Last:
        def __reduce__(self):
            marker.touch()
            os._exit(1)

    return again() if marker.exists() else Last()


@pytest.fixture
def by_value():
    """Workers cannot import this module."""
    cloudpickle = pytest.importorskip("cloudpickle")
    pytest.importorskip("distributed")
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.usefixtures("by_value")
def test_a_result_lost_with_its_dask_worker_is_computed_again(tmp_path):
    calls = [(tmp_path / "marker", lambda: "again")]
    assert [result for _, result in map_unordered(loses_its_result, calls, executor_factory("dask"))] == ["again"]


@pytest.mark.usefixtures("by_value")
def test_repeating_a_call_after_a_lost_dask_result_may_fail(tmp_path):
    calls = [(tmp_path / "marker", lambda: int("mine"))]
    with pytest.raises(ValueError, match="mine"):
        list(map_unordered(loses_its_result, calls, executor_factory("dask")))


@pytest.mark.slow
@pytest.mark.usefixtures("by_value")
def test_closing_while_a_lost_dask_result_is_recomputed_logs_nothing(tmp_path, caplog):
    marker, begun = tmp_path / "marker", tmp_path / "begun"

    def wait():
        begun.touch()
        time.sleep(60)

    marker_of_the_other = tmp_path / "other"
    marker_of_the_other.touch()
    calls = [(marker_of_the_other, lambda: "first"), (marker, wait)]
    results = map_unordered(loses_its_result, calls, executor_factory("dask", 2))
    assert next(results)[1] == "first"
    deadline = time.monotonic() + 60
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    results.close()
    assert not [record for record in caplog.records if record.name.startswith("tornado")]


def test_a_scheduler_that_does_not_answer_is_one_sentence():
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(
            ConnectionError, match="^address must be that of a running Dask scheduler, but tcp://127.0.0.1:1 is"
        ),
    ):
        list(map_unordered(abs, [(1,)], executor_factory("dask", address="tcp://127.0.0.1:1")))


def test_a_cluster_without_workers_is_given_up(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "NO_WORKERS_TIMEOUT", 2.0)
    with distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        with pytest.raises(
            ChildProcessError, match=f"^the Dask scheduler at {address} must have workers, but it has had none"
        ):
            list(map_unordered(abs, [(1,), (2,)], executor_factory("dask", address=address)))


def test_workers_without_the_package_are_one_sentence():
    error = ModuleNotFoundError("No module named 'cyconv'", name="cyconv")
    with pytest.raises(
        ChildProcessError, match="^every worker must have cyconv .*, but one of them has another version or none"
    ):
        list(map_unordered(abs, [(1,)], lambda: Breaking(0, error)))


@pytest.mark.usefixtures("by_value")
def test_calls_on_one_machine_share_its_processors(monkeypatch):
    def counted(n_calls):
        threads = executors.default_threads
        try:
            executors.default_threads = lambda: 7
            return executors.cluster_threads()
        finally:
            executors.default_threads = threads

    assert [threads for _, threads in map_unordered(counted, [(3,)], executor_factory("dask", 3))] == [2]
    assert executors.cluster_threads() is None
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "1000000")
    assert executors.cluster_threads() == 1
