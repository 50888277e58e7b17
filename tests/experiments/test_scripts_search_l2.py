"""scripts/search_l2.py in miniature: its files, refusals and interruptions."""

import csv
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from strict import strict_json

SCRIPT = Path(__file__).parents[2] / "scripts" / "search_l2.py"


@pytest.fixture
def start(start_script):
    """start(*arguments): the script in a process of its own."""
    return functools.partial(start_script, "search_l2")


@pytest.fixture
def main(load_script, run_script):
    """main(*arguments) -> exit code: the script in this process, with even shorter quick runs."""
    module = load_script("search_l2", QUICK_RUN={"n_filters": 2, "n_hidden": 4, "step_size": 5, "n_cycles": 1})
    return lambda *arguments: run_script(module, "--quick", "--executor", "serial", *arguments)


def measurements(folder):
    """The measurements of a results file without their times."""
    return [{**m, "training_time": None} for m in strict_json(folder / "results.json")["measurements"]]


def finish(process):
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def until_measured(process, count):
    """Wait until this many runs are finished."""
    for line in process.stdout:
        if line.startswith(f"[{count}/"):
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.slow
def test_a_quick_search_writes_all_documented_files_with_every_executor(start, main, tmp_path):
    code, output, errors = finish(start("--quick", "--seeds", "2", "--workers", "2"))
    assert code == 0 and errors == ""
    lines = output.strip().splitlines()
    assert "shapes (synthetic)" in lines[0] and "shapes (synthetic)" in lines[-1]
    assert sum(line.startswith("[") for line in lines) == 12
    folder = tmp_path / "results" / "search_l2"
    document = strict_json(folder / "results.json")
    assert document["complete"] and document["configuration"]["search"]["n_samples"] == 3
    assert len(document["ranges"]) == 2 and len(measurements(folder)) == 12
    assert {m["seed"] for m in document["measurements"]} == {0, 1}
    with open(folder / "ranking.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["data_set"] for row in rows} == {document["data_set"]}
    means = [float(row["mean"]) for row in rows]
    assert len(rows) == 6 and means == sorted(means, reverse=True)
    assert float(rows[0]["l2"]) == document["best"]["l2"] and rows[0]["p_against_best"] == ""
    assert all(0 <= float(row["p_against_best"] or 0) <= 1 for row in rows[1:])
    for row in rows:
        each = [m["validation_accuracy"] for m in document["measurements"] if m["l2"] == float(row["l2"])]
        assert [float(row["seed0"]), float(row["seed1"])] == each
    summary = (folder / "summary.md").read_text()
    assert summary.startswith("# Search for λ: shapes (synthetic)\n") and document["conclusion"] in summary
    assert document["conclusion"] in output and "(validation-accuracy.png)" in summary
    assert (folder / "validation-accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert "test accuracy" not in output + summary
    assert sorted(path.name for path in folder.iterdir()) == [
        "configuration.json",
        "ranking.csv",
        "report.html",
        "results.json",
        "search.json",
        "summary.md",
        "validation-accuracy.png",
    ]

    code, _, errors = finish(start("--quick", "--seeds", "2", "--executor", "serial", "--output", "serial"))
    assert code == 0 and measurements(tmp_path / "serial") == measurements(folder), errors


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_output_encodings_other_than_utf_8_work(environment, call_script, tmp_path, encoding):
    """Such as a log on Windows."""
    options = {"encoding": encoding, "env": {**environment, "PYTHONIOENCODING": encoding}}
    done = call_script("search_l2", "--quick", "--executor", "serial", **options)
    assert done.returncode == 0 and done.stderr == ""
    assert "round 1, lambda = " in done.stdout and "?" not in done.stdout
    assert "λ" in (tmp_path / "results" / "search_l2" / "summary.md").read_text(encoding="utf-8")


@pytest.mark.optional
@pytest.mark.parametrize("script", sorted(path.stem for path in SCRIPT.parent.glob("*.py")))
def test_help_needs_no_utf_8(environment, call_script, script):
    if script == "exercise3_pytorch":
        pytest.importorskip("torch")
    done = call_script(script, "--help", env={**environment, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stdout.startswith("usage: ") and done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("executor, number", [("process", signal.SIGINT), ("serial", signal.SIGTERM)])
def test_results_so_far_are_written_on_a_signal_and_can_be_resumed(start, tmp_path, executor, number):
    arguments = ["--quick", "--samples", "4", "--executor", executor, "--output", "out"]
    process = start(*arguments)
    until_measured(process, 2)
    process.send_signal(number)
    code, output, errors = finish(process)
    assert code == -number and "Traceback" not in errors
    assert output.strip().splitlines()[-1].startswith("Incomplete results")
    partial = measurements(tmp_path / "out")
    assert 2 <= len(partial) < 8 and "Incomplete" in (tmp_path / "out" / "summary.md").read_text()
    if executor == "serial":
        return  # resuming is the same

    code, output, errors = finish(start(*arguments, "--resume"))
    assert code == 0 and errors == ""
    assert sum(line.startswith("[") for line in output.splitlines()) == 8 - len(partial)
    code, _, _ = finish(start(*arguments[:-1], "whole"))
    assert code == 0 and measurements(tmp_path / "out") == measurements(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists(f"/proc/self/task/{os.getpid()}/children"), reason="needs Linux's /proc")
def test_workers_exit_with_a_killed_parent_and_the_search_resumes(start, tmp_path):
    arguments = ["--quick", "--samples", "4", "--workers", "2", "--output", "out"]
    process = start(*arguments)
    until_measured(process, 1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)
    held = len(strict_json(tmp_path / "out" / "search.json")["measurements"])
    code, output, errors = finish(start(*arguments, "--resume"))
    assert code == 0 and errors == "" and held >= 1
    assert sum(line.startswith("[") for line in output.splitlines()) == 8 - held
    assert strict_json(tmp_path / "out" / "results.json")["complete"]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--low", "0"], "expected a finite number above 0"),
        (["--high", "many"], "expected a finite number above 0"),
        (["--low", "0.1", "--high", "0.01"], "--low must be below --high"),
        (["--rounds", "0"], "expected an integer of at least 1"),
        (["--samples", "-1"], "expected an integer of at least 1"),
        (["--executor", "threads"], "invalid choice"),
        (["--dask-address", "tcp://127.0.0.1:1"], "--dask-address goes with --executor dask"),
        (["--workers", "2"], "--workers goes with processes that this script starts"),
        (["--executor", "process", "--workers", "100000"], "--workers must be"),
        (["--network", "narrow"], "invalid choice"),
        (["--data", "nowhere"], "nowhere"),
        (["--output", "file"], "--output must be a folder that can be written"),
        (["--resume", "--overwrite"], "not allowed with"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(main, assert_mistake, arguments, sentence):
    assert_mistake(main, *arguments, sentence=sentence)


def test_a_search_is_replaced_only_on_request(main, tmp_path, capsys):
    folder = tmp_path / "out"
    assert main("--output", "out") == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    assert main("--output", "out") == 0 and "nothing was run" in capsys.readouterr().out
    for arguments, sentence in (
        (["--resume", "--samples", "4"], "of other settings"),
        (["--resume", "--seeds", "2"], "of other settings"),
        (["--resume", "--rounds", "1"], "of other settings"),
        (["--resume", "--network", "exercise4"], "of other settings"),
        (["--resume", "--protocol", "batch1"], "of other data"),
    ):
        assert main("--output", "out", *arguments) == 2
        assert sentence in capsys.readouterr().err
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert main("--output", "out", "--samples", "4", "--overwrite") == 0
    assert len(measurements(folder)) == 8


def test_resume_may_add_rounds(main, tmp_path, capsys):
    assert main("--output", "out") == 0
    first = measurements(tmp_path / "out")
    capsys.readouterr()
    assert main("--output", "out", "--rounds", "3", "--resume") == 0
    assert sum(line.startswith("[") for line in capsys.readouterr().out.splitlines()) == 3
    assert measurements(tmp_path / "out")[:6] == first and len(measurements(tmp_path / "out")) == 9


def test_a_best_value_at_the_edge_of_the_range_is_reported(main, tmp_path, capsys):
    assert main("--samples", "1", "--rounds", "1") == 0
    assert "that was tried: the best may lie outside 1e-05 to 0.1" in capsys.readouterr().out


def test_diverged_values_are_reported_but_not_recommended(main, capsys):
    assert main("--low", "1e290", "--high", "1e300") == 0
    output = capsys.readouterr().out
    assert "seed 0: diverged" in output and "every run diverged" in output and "Best mean" not in output


@pytest.mark.slow
def test_a_local_dask_cluster_computes_a_search(start, tmp_path):
    pytest.importorskip("distributed")
    process = start("--quick", "--rounds", "1", "--executor", "dask", "--workers", "2", "--output", "out")
    code, _, errors = finish(process)
    assert code == 0 and len(measurements(tmp_path / "out")) == 3, errors


def test_an_unreachable_dask_scheduler_is_one_sentence(main, monkeypatch, capsys):
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        code = main("--executor", "dask", "--dask-address", "tcp://127.0.0.1:1")
    errors = capsys.readouterr().err.strip().splitlines()
    assert code == 1 and "127.0.0.1:1" in errors[-1] and "Traceback" not in "\n".join(errors)


@pytest.mark.optional
def test_mpi_ranks_compute_a_search(environment, tmp_path):
    pytest.importorskip("mpi4py")
    if shutil.which("mpiexec") is None:
        pytest.skip("mpiexec is not here")
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    launcher = "mpiexec -n 3 --oversubscribe --bind-to none"
    arguments = "--quick --rounds 1 --executor mpi --workers 2 --output out"
    command = [*launcher.split(), sys.executable, "-m", "mpi4py.futures", SCRIPT, *arguments.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0 and len(measurements(tmp_path / "out")) == 3, done.stderr


@pytest.mark.slow
def test_a_search_on_a_dask_cluster_survives_a_killed_worker_and_an_interruption(start, tmp_path):
    distributed = pytest.importorskip("distributed")
    arguments = ["--quick", "--samples", "4", "--seeds", "3"]
    with (
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        on_dask = [*arguments, "--executor", "dask", "--dask-address", cluster.scheduler_address, "--output", "out"]
        workers = client.run(os.getpid)
        assert len(workers) == 3
        process = start(*on_dask)
        until_measured(process, 2)
        busy = [address for address, keys in client.processing().items() if keys]
        killed = workers[busy[0] if busy else min(workers)]
        os.kill(killed, signal.SIGKILL)
        until_measured(process, 8)
        process.send_signal(signal.SIGINT)
        code, output, errors = finish(process)
        assert code == -signal.SIGINT and "Traceback" not in errors
        partial = measurements(tmp_path / "out")
        assert 8 <= len(partial) < 24
        code, output, errors = finish(start(*on_dask, "--resume"))
        assert code == 0 and sum(line.startswith("[") for line in output.splitlines()) == 24 - len(partial), errors
        assert killed not in client.run(os.getpid).values()
    code, _, errors = finish(start(*arguments, "--executor", "serial", "--output", "serial"))
    assert code == 0 and measurements(tmp_path / "out") == measurements(tmp_path / "serial"), errors
