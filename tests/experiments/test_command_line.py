"""``cyconv COMMAND``, as a module and as the console script: the list of commands, and what each of them writes."""

import importlib.metadata
import re
import subprocess
import sys

import pytest
from strict import strict_json

import cyconv
from cyconv.__main__ import COMMANDS, main

# What every file of this kind that pip writes into bin/ does.
CONSOLE_SCRIPT = """
import sys
from cyconv.__main__ import main
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.fixture
def console_script(tmp_path_factory):
    """The path of a file like the one that pip writes into bin/."""
    path = tmp_path_factory.mktemp("bin") / "cyconv"
    path.write_text(CONSOLE_SCRIPT)
    return path


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
def test_help_and_errors_name_the_command(call_cyconv, command):
    done = call_cyconv(command, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: cyconv {command} ") and done.stderr == ""
    done = call_cyconv(command, "--nonsense")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(f"cyconv {command}: error: ")


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
