"""Experiments on a Dask cluster, on MPI ranks, and as the tasks of an array job."""

import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from pages import ROOT, blocks
from strict import strict_json

import cyconv

QUICK = ("--quick", "--part", "2")


@pytest.fixture
def start(start_script):
    """start(*arguments): Exercise 3 in a process of its own."""
    return lambda *arguments: start_script("exercise3", *arguments)


def finish(process):
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def until_finished(process, count):
    """Wait until this many runs are finished."""
    for line in process.stdout:
        if line.startswith(f"[{count}/"):
            return line
    raise AssertionError(process.stderr.read())


def assert_same_results(folder, other):
    documents = [strict_json(each / "results.json") for each in (folder, other)]
    assert all(document["complete"] for document in documents)
    tests = [[(run["run"], run["test"], run["confusion"]) for run in document["runs"]] for document in documents]
    assert tests[0] == tests[1]
    networks = sorted(path.name for path in folder.glob("network-*.npz"))
    assert networks and networks == sorted(path.name for path in other.glob("network-*.npz"))
    for name in networks:
        first, second = (cyconv.Network.load(each / name).parameters for each in (folder, other))
        assert all(np.array_equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The folder of the same experiment, one run after another."""
    from cyconv.experiments import cli
    from cyconv.experiments.commands import exercise3

    folder = tmp_path_factory.mktemp("serial")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "KERAS_HOME"):
            patch.setenv(name, str(folder / "nothing"))
        patch.delenv("CYCONV_DATA", raising=False)
        patch.chdir(folder)
        assert cli.run_script(exercise3.main, [*QUICK, "--seeds", "2", "--output", str(folder / "out")]) == 0
    return folder / "out"


@pytest.mark.slow
def test_exercise3_on_a_dask_cluster_survives_a_killed_worker(start, tmp_path, serial):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = client.run(os.getpid)
        address = cluster.scheduler_address
        process = start(*QUICK, "--seeds", "2", "--executor", "dask", "--dask-address", address, "--output", "out")
        until_finished(process, 1)
        busy = [worker for worker, keys in client.processing().items() if keys]
        killed = pids[busy[0]]
        os.kill(killed, signal.SIGKILL)
        code, output, errors = finish(process)
        assert code == 0 and errors == "", errors
        assert killed not in client.run(os.getpid).values()
    assert "[6/6]" in output and "everal runs at a time on a Dask cluster" in output
    assert_same_results(tmp_path / "out", serial)


@pytest.mark.optional
def test_exercise3_on_three_mpi_ranks(environment, tmp_path, serial):
    pytest.importorskip("mpi4py")
    if shutil.which("mpiexec") is None:
        pytest.skip("mpiexec is not here")
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    launcher = "mpiexec -n 3 --oversubscribe --bind-to none"
    arguments = ["-m", "mpi4py.futures", "-m", "cyconv", "exercise3", *QUICK, "--seeds", "2", "--executor", "mpi"]
    command = [*launcher.split(), sys.executable, *arguments, "--output", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0 and "[6/6]" in done.stdout, done.stderr
    assert_same_results(tmp_path / "out", serial)


@pytest.mark.slow
def test_tasks_of_an_array_job_share_a_folder(start, call_script, tmp_path, serial):
    arguments = [*QUICK, "--seeds", "2", "--output", "out"]
    tasks = [start(*arguments, "--task", f"{place}/4") for place in (1, 2, 3, 4)]
    n_finished = 0
    for place, process in enumerate(tasks, 1):
        code, output, errors = finish(process)
        assert code == 0 and errors == "", errors
        n_finished += sum(line.startswith("[") for line in output.splitlines())
        assert f"Task {place} of 4: " in output.splitlines()[-1]
    folder = tmp_path / "out"
    assert n_finished == 6 and not (folder / "results.json").exists()
    trained = {path: path.stat().st_mtime_ns for path in folder.glob("run-*.npz")}
    gathered = call_script("exercise3", *arguments, "--resume", timeout=300)
    assert gathered.returncode == 0 and "[6/6]" in gathered.stdout, gathered.stderr
    assert trained == {path: path.stat().st_mtime_ns for path in folder.glob("run-*.npz")}
    assert_same_results(folder, serial)
    assert "nothing was run" in call_script("exercise3", *arguments, "--task", "1/4").stdout


@pytest.mark.slow
def test_a_task_that_is_terminated_continues_when_it_is_requeued(start, tmp_path):
    arguments = [*QUICK, "--seeds", "2", "--output", "out", "--task", "1/2"]
    process = start(*arguments)
    until_finished(process, 1)
    process.send_signal(signal.SIGTERM)
    code, output, errors = finish(process)
    assert code == -signal.SIGTERM and "Traceback" not in errors
    code, output, errors = finish(start(*arguments))
    assert code == 0 and "[3/3]" in output and "3 runs finished" in output.splitlines()[-1], errors


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--task", "0/4"], "expected I/N with I from 1 to N"),
        (["--task", "5/4"], "expected I/N with I from 1 to N"),
        (["--task", "3"], "expected I/N with I from 1 to N"),
        (["--task", "1/4", "--overwrite"], "--task goes with --resume, which it implies, but got --overwrite"),
        (["--executor", "threads"], "invalid choice"),
        (["--executor", "serial", "--workers", "2"], "--workers goes with processes that this script starts"),
        (["--dask-address", "tcp://127.0.0.1:1"], "--dask-address goes with --executor dask"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(load_script, run_script, assert_mistake, arguments, sentence):
    script = load_script("exercise3")
    assert_mistake(lambda *options: run_script(script, "--quick", *options), *arguments, sentence=sentence)


def test_tasks_do_not_replace_complete_results(load_script, run_script, tmp_path, capsys):
    script = load_script("exercise3", QUICK={"step_size": 2, "n_cycles": 1, "log_every": 2})
    arguments = [*QUICK, "--output", "out"]
    assert run_script(script, *arguments) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert run_script(script, *arguments, "--seeds", "2", "--task", "1/2") == 2
    assert "--task needs an output folder without complete results of other runs" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}


@pytest.mark.slow
def test_the_page_s_batch_script(environment, tmp_path, serial):
    """With Slurm's commands replaced by what they do here; the first task ends at its time limit and is requeued."""
    page = (ROOT / "scripts" / "CLUSTERS.md").read_text(encoding="utf-8")
    (script,) = (block for block in blocks("sh", page) if "#SBATCH" in block)
    quick = script.replace("exercise3", "exercise3 --quick --part 2")
    quick = re.sub("--data [^ ]+ --seeds 40 --output [^ ]+", f"--seeds 2 --output {tmp_path}/out", quick)
    (tmp_path / "job.sh").write_text(quick)
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name, text in {
        "cyconv": f'exec {sys.executable} -m cyconv "$@"',
        "srun": 'if [ ! -e started ]; then touch started; "$@" & sleep 3; kill -TERM $!; wait $!; else exec "$@"; fi',
        "scontrol": 'echo "$@" >> requeued',
    }.items():
        (binaries / name).write_text(f"#!/bin/sh\n{text}\n")
        (binaries / name).chmod(0o755)
    environment |= {"PATH": f"{binaries}:{environment['PATH']}", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_JOB_ID": "77"}
    command = {"cwd": tmp_path, "timeout": 300}
    codes = [
        subprocess.run(["sh", "job.sh"], **command, env={**environment, "SLURM_ARRAY_TASK_ID": place}).returncode
        for place in ("1", "1", "2")
    ]
    assert codes == [143, 0, 0]
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"
    gather = [sys.executable, "-m", "cyconv", "exercise3", *QUICK, "--seeds", "2", "--output", "out", "--resume"]
    done = subprocess.run(gather, **command, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert_same_results(tmp_path / "out", serial)
