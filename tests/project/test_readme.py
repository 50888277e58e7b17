"""The README is short, and its Python code runs unchanged."""

import subprocess
import sys
import time

import pytest
from pages import README, blocks

import cyconv


def test_the_readmes_python_runs_unchanged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["history"].complete and names["history"]["update_steps"][-1] == names["schedule"].total_steps
    assert names["net"].evaluate(names["data"].test).accuracy > 0.5  # the example learns something
    assert names["net"].normalizer is not None
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert isinstance(cyconv.CyclicTrainer.resume(tmp_path / "run.npz"), cyconv.CyclicTrainer)


@pytest.mark.slow
def test_two_hundred_runs_survive_a_crash(environment, tmp_path):
    (block,) = (block for block in blocks("python") if "run_all" in block)
    for text, small in (("step_size=100", "step_size=1, n_cycles=1"), ("DataSource()", "DataSource(small=True)")):
        assert block.count(text) == 1
        block = block.replace(text, small)
    (tmp_path / "widths.py").write_text(block)
    folder = tmp_path / "results" / "widths"
    command = {"args": [sys.executable, "widths.py"], "cwd": tmp_path, "env": environment}
    process = subprocess.Popen(**command)
    deadline = time.monotonic() + 180
    while len(finished := list(folder.glob("run-*.npz"))) < 20:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    written = {path: path.stat().st_mtime_ns for path in finished}
    done = subprocess.run(**command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert written == {path: path.stat().st_mtime_ns for path in finished}
    assert len(list(folder.glob("run-*.npz"))) == 200 and not list(folder.glob("checkpoint-*"))
    rows = done.stdout.splitlines()[2:22]
    assert all(row.startswith("nf=") and len(row) <= 80 for row in rows) and rows[0].endswith("best")
    assert "Best on validation data: nf=" in done.stdout


def test_it_is_short():
    assert len(README.splitlines()) <= 150
