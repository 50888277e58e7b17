"""``cyconv COMMAND``, as a module and as the console script: the list of commands, and what each of them writes."""

import importlib.metadata
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
from strict import strict_json

import cyconv
from cyconv.__main__ import COMMANDS, main


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_commands_are_listed_with_a_line_each(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    output = capsys.readouterr().out
    assert stop.value.code == 0
    for command, summary in COMMANDS.items():
        assert re.search(rf"^  {command} +{re.escape(summary)}$", output, re.MULTILINE)
    assert max(map(len, output.splitlines())) <= 80


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"cyconv {cyconv.__version__}\n"


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["exercice3"], "cyconv: error: there is no command 'exercice3': did you mean 'exercise3'?"),
        (
            ["verify_gradients"],
            "cyconv: error: there is no command 'verify_gradients': did you mean 'verify-gradients'?",
        ),
        (["exercise", "3"], "cyconv: error: there is no command 'exercise': did you mean 'exercise3' or 'exercise4'?"),
        (["dance"], "cyconv: error: there is no command 'dance': 'cyconv --help' lists the commands"),
        (["--quick", "exercise3"], "cyconv: error: unrecognized arguments: --quick"),
    ],
)
def test_a_mistyped_command_is_one_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and capsys.readouterr().err.splitlines()[-1] == sentence


def test_the_installed_distribution_has_the_console_script():
    try:
        files = importlib.metadata.distribution("cyconv")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("cyconv is not installed")
    (entry,) = files.entry_points.select(group="console_scripts", name="cyconv")
    assert entry.load() is main


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_errors_name_the_command(monkeypatch, capsys, command):
    for option, code in (("--help", 0), ("--nonsense", 2)):
        monkeypatch.setattr(sys, "argv", ["/usr/bin/cyconv", command, option])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == code
        output, errors = capsys.readouterr()
        assert (output or errors).startswith(f"usage: cyconv {command} ")
        assert not errors or errors.splitlines()[-1].startswith(f"cyconv {command}: error: unrecognized arguments")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal(monkeypatch, capsys, command):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize(
    "option, hint",
    [
        ("--filtersize", "did you mean --filter-size?"),
        ("--n_hidden=50", "did you mean --n-hidden?"),
        ("--sead", "did you mean --seed?"),
        ("--lr", "'cyconv train --help' lists the options"),
    ],
)
def test_an_unknown_option_is_a_short_error_that_names_the_closest(monkeypatch, capsys, option, hint):
    monkeypatch.setattr(sys, "argv", ["cyconv", "train", option])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "usage: cyconv train [OPTION ...]",
        f"cyconv train: error: unrecognized arguments: {option}: {hint}",
    ]


def test_a_closed_pipe_ends_a_command_where_there_is_no_sigpipe():
    program = (
        "import signal\n"
        "from cyconv.experiments import cli\n"
        "del signal.SIGPIPE\n"
        "def main(argv): raise BrokenPipeError\n"
        "cli.exit_with(cli.run_script(main, []))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr == ""


def test_the_list_of_commands_needs_no_experiments():
    program = (
        "import sys, cyconv.__main__\n"
        "try: cyconv.__main__.main(['--help'])\n"
        "finally: print([name for name in ('cyconv.experiments', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.slow
def test_module_console_script_and_wrapper_share_results_and_start_workers(
    call_cyconv, call_script, console_script, environment, tmp_path
):
    arguments = ["exercise3", "--quick", "--part", "2", "--workers", "2", "--output"]
    done = call_cyconv(*arguments, "module")
    assert done.returncode == 0 and done.stderr == ""
    done = subprocess.run(
        [sys.executable, "-P", console_script, *arguments, "console"],
        cwd=tmp_path,
        env=environment,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == ""
    for name in ("module", "console"):
        document = strict_json(tmp_path / name / "results.json")
        assert document["command"] == ["cyconv", *arguments, name] and document["complete"]
    done = call_script(*arguments, "module")
    assert done.returncode == 0 and "nothing was run" in done.stdout


QUICK = {
    "download": None,  # needs a network
    "info": [],
    "verify-gradients": ["--quick"],
    "search-l2": ["--quick", "--rounds", "1", "--samples", "2"],
    "lr-range": ["--quick", "--architectures", "2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if QUICK.get(command, []) is not None])
def test_every_command_runs_from_the_package_alone(environment, tmp_path, command):
    installed = shutil.which("cyconv", path=sysconfig.get_path("scripts"))
    start = [installed] if installed else [sys.executable, "-P", "-m", "cyconv"]
    arguments = [*start, command, *QUICK.get(command, ["--quick"])]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    if command == "info":
        return
    assert done.stdout.startswith("Data set: shapes (synthetic), ")
    (folder,) = (tmp_path / "results").iterdir()
    assert done.stdout.splitlines()[-1].endswith(f"are in results/{folder.name}")
    document = strict_json(folder / "results.json")
    assert document["complete"] and document["command"][:2] == ["cyconv", command]
    assert (folder / "summary.md").stat().st_size > 500


def test_an_interrupted_command_ends_by_the_signal(environment, tmp_path):
    command = [sys.executable, "-P", "-m", "cyconv", "push-accuracy", "--threads", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and "Traceback" not in errors


def test_info_tells_what_a_bug_report_needs(call_cyconv, environment, tmp_path):
    (tmp_path / "data").mkdir()
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (tmp_path / "data" / name).touch()
    done = call_cyconv("info", env={**environment, "OMP_NUM_THREADS": "3", "OMP_THREAD_LIMIT": "2"})
    assert done.returncode == 0 and done.stderr == ""
    told = dict(re.findall(r"^  (\S+(?: \S+)*) {2,}(.*)$", done.stdout, re.MULTILINE))
    assert done.stdout.startswith(f"cyconv {cyconv.__version__}\n")
    assert told["threads"] == "2" and told["chosen by"] == "OpenMP's limit of threads; 3 by OMP_NUM_THREADS"
    assert f"numpy {np.__version__}" in told["packages"] and platform.python_version() in told["Python"]
    assert told["data"] == "data" and "OMP_NUM_THREADS=3" in told["environment"]
    done = call_cyconv("info", env={**environment, "CYCONV_DATA": "nowhere"})
    assert done.returncode == 0 and "there is none at nowhere" in done.stdout
