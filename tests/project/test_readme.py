"""The README's Python is run as it stands."""

from pages import blocks

import cyconv


def test_python_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["history"].complete and names["history"]["update_steps"][-1] == names["schedule"].total_steps
    assert names["net"].normalizer is not None
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert isinstance(cyconv.CyclicTrainer.resume(tmp_path / "run.npz"), cyconv.CyclicTrainer)
