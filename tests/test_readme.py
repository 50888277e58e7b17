"""The README's Python is run as it stands, and its Quick start names what there is."""

import re
from pathlib import Path

import cyconv

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_python_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["history"].complete and names["history"]["update_steps"][-1] == names["schedule"].total_steps
    assert names["net"].normalizer is not None
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert isinstance(cyconv.CyclicTrainer.resume(tmp_path / "run.npz"), cyconv.CyclicTrainer)


def test_commands_name_files_and_extras_that_exist():
    commands = "\n".join(blocks("sh"))
    for name in re.findall(r"\b(?:scripts|tests)/[\w./]+\.py\b", commands):
        assert (ROOT / name).is_file(), name
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r'"\.\[(\w+)\]"', commands):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
