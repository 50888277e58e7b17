"""The scripts, in this process and in others, in an empty folder where no CIFAR-10 is found."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from cyconv.experiments import cli

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def load_script(monkeypatch, tmp_path):
    """load_script(name, **constants): the module of a command of that name, or else of a script."""
    monkeypatch.delenv("CYCONV_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def load(name, **constants):
        if importlib.util.find_spec(f"cyconv.experiments.commands.{name}"):
            module = importlib.import_module(f"cyconv.experiments.commands.{name}")
        else:
            spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        for constant, value in constants.items():
            monkeypatch.setattr(module, constant, value)
        return module

    return load


@pytest.fixture
def run_script(on_one_thread):
    """run_script(module, *arguments) -> exit code: a script in this process, on one thread."""

    def run(module, *arguments):
        try:
            return cli.run_script(module.main, ["--threads", "1", *arguments])
        except SystemExit as stop:  # argparse
            return stop.code

    return run


@pytest.fixture
def start_script(environment, tmp_path):
    """start_script(name, *arguments) -> Popen: a script in a process of its own."""

    def start(name, *arguments):
        return subprocess.Popen(
            [sys.executable, SCRIPTS / f"{name}.py", *arguments],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


@pytest.fixture
def call_script(environment, tmp_path):
    """call_script(name, *arguments, **options) -> CompletedProcess: a script in a process of its own, to its end."""

    def call(name, *arguments, **options):
        return subprocess.run(
            [sys.executable, SCRIPTS / f"{name}.py", *arguments],
            **{"cwd": tmp_path, "env": environment, "text": True, "capture_output": True, "timeout": 120, **options},
        )

    return call


@pytest.fixture
def call_cyconv(environment, tmp_path):
    """call_cyconv(*arguments, **options) -> CompletedProcess: ``python -m cyconv`` in a process of its own."""

    def call(*arguments, **options):
        return subprocess.run(
            [sys.executable, "-P", "-m", "cyconv", *arguments],
            **{"cwd": tmp_path, "env": environment, "text": True, "capture_output": True, "timeout": 120, **options},
        )

    return call


@pytest.fixture
def assert_mistake(tmp_path, capsys):
    """assert_mistake(run, *arguments, sentence=...): exit code 2, one sentence, and the folder is as it was."""

    def check(run, *arguments, sentence):
        (tmp_path / "file").write_text("kept")
        assert run(*arguments) == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert sentence in last and "error: " in last
        assert (tmp_path / "file").read_text() == "kept" and list(tmp_path.iterdir()) == [tmp_path / "file"]

    return check
