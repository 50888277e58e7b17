"""A source tree whose kernels are not built can be imported only to say so in one sentence."""

import shutil
import subprocess
import sys
from pathlib import Path

import cyconv


def import_in(folder):
    return subprocess.run(
        [sys.executable, "-c", "import cyconv"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        timeout=60,
    )


def test_an_unbuilt_source_tree_explains_how_to_build(tmp_path):
    built = shutil.ignore_patterns("*.so", "*.pyd", "*.c", "__pycache__")
    shutil.copytree(Path(cyconv.__file__).parent, tmp_path / "cyconv", ignore=built)
    done = import_in(tmp_path)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("ImportError: cyconv must be built before it can be imported") and str(tmp_path) in last
    assert "pip install . " in last and "pip install -e ." in last and "partially initialized" not in last


def test_a_build_that_fails_to_load_is_not_reported_as_missing(tmp_path):
    shutil.copytree(Path(cyconv.__file__).parent, tmp_path / "cyconv", ignore=shutil.ignore_patterns("__pycache__"))
    for library in (tmp_path / "cyconv" / "_kernels").glob("processor.*.so"):
        library.write_bytes(b"no library")
    done = import_in(tmp_path)
    assert done.returncode == 1 and "must be built" not in done.stderr and "processor" in done.stderr.splitlines()[-1]
