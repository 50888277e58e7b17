"""The README's Python is run as it stands."""

import re
from pathlib import Path

import cyconv

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language, text=TEXT):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_python_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["history"].complete and names["history"]["update_steps"][-1] == names["schedule"].total_steps
    assert names["net"].normalizer is not None
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert isinstance(cyconv.CyclicTrainer.resume(tmp_path / "run.npz"), cyconv.CyclicTrainer)
