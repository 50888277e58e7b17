"""The README is short, and its Python code runs unchanged."""

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


def test_it_is_short():
    assert len(README.splitlines()) <= 150
