"""setup.py: what it refuses, and what it leaves where modules are built."""

import os
import runpy
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

setuptools = pytest.importorskip("setuptools", minversion="77")  # as pyproject.toml asks for
pytest.importorskip("Cython")
ROOT = Path(__file__).parents[2]
if not (ROOT / "setup.py").exists():
    pytest.skip("needs the source tree", allow_module_level=True)


def test_without_a_compiler_an_install_says_so_in_one_sentence(tmp_path):
    folders = [f"--build-{kind}={tmp_path / kind}" for kind in ("lib", "temp")]
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", *folders],
        cwd=ROOT,
        env={**os.environ, "CC": "no-such-compiler"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "cyconv is built from source with a C compiler, but there is no 'no-such-compiler': install gcc"
    )
    assert not (tmp_path / "lib").exists()


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="has no stable ABI")
def test_modules_of_an_earlier_build_do_not_come_into_a_wheel(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **options: None)
    build_kernels = runpy.run_path("setup.py")["BuildKernels"]
    monkeypatch.setattr(build_kernels, "write_sources", lambda self: None)
    monkeypatch.setattr(build_kernels, "accepts", lambda self, *flags: True)
    command = build_kernels(setuptools.Distribution({"name": "cyconv"}))
    command.build_lib, command.extensions = str(tmp_path), []
    command.compiler = type("Compiler", (), {"compiler_type": "unix", "compiler_so": [sys.executable]})
    folder = tmp_path / "cyconv" / "_kernels"
    folder.mkdir(parents=True)
    for suffix in (sysconfig.get_config_var("EXT_SUFFIX"), ".abi3.so"):
        (folder / f"avx2{suffix}").touch()
    command.build_extensions()
    assert [path.name for path in folder.iterdir()] == ["avx2.abi3.so"]
