"""The scripts' output folders: a finished result is replaced only on request, and only by a complete one."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest
from strict import strict_json

import cyconv
from cyconv.experiments import Run, RunFiles
from cyconv.experiments.output_folder import OutputFolder
from cyconv.experiments.usage import UsageError

FOREIGN = ("notes.txt", "network-mine.npz", "run-of-somebody.npz", "sub/file")
UNFINISHED = "cyconv-unfinished"


class Killed(BaseException):
    """Not caught by any handler."""


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


def configuration(*runs, script="fake", data="data", **others):
    return {"script": script, "data": data, "runs": [run.to_dict() for run in runs], **others}


def study(output, *runs, resume=False, overwrite=False, stop_after=None, **others):
    """A script in miniature: a run is one file that holds its λ; ``stop_after`` runs it is interrupted."""
    about = configuration(*runs, **others)
    folder = OutputFolder(output, about, resume, overwrite)
    if folder.results:
        return folder.report()
    done = 0
    for run in runs:
        file = RunFiles(folder.path, run).result
        if not (resume and file.exists()):
            if done == stop_after:
                break
            file.write_text(f"{run.l2}")
            done += 1
    complete = all(RunFiles(folder.path, run).result.exists() for run in runs)
    (folder / "picture.png").write_text(f"{[run.name for run in runs]}")
    document = {"complete": complete, "configuration": about, "data_set": "some data", "ran": done}
    folder.finish(document, f"{[run.name for run in runs]}, complete: {complete}")
    return 0 if complete else 130


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and UNFINISHED not in path.parts
    }


def add_foreign_files(output):
    for name in FOREIGN:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("mine")


OLD, NEW = [Run("a", l2=0.1), Run("b", l2=0.1)], [Run("b", l2=0.2), Run("c", l2=0.2)]


def assert_holds(output, runs):
    """The folder holds the complete results of these runs, and otherwise only unrelated files."""
    assert strict_json(output / "results.json")["complete"]
    assert strict_json(output / "results.json")["configuration"] == configuration(*runs)
    assert strict_json(output / "configuration.json") == configuration(*runs)
    assert (output / "summary.md").read_text() == f"{[run.name for run in runs]}, complete: True"
    assert (output / "picture.png").read_text() == f"{[run.name for run in runs]}"
    files = {path.name for path in output.glob("run-*.npz")} - set(FOREIGN)
    assert files == {f"run-{run.stem}.npz" for run in runs}
    assert all(RunFiles(output, run).result.read_text() == f"{run.l2}" for run in runs)
    assert not (output / UNFINISHED).exists() and not list(output.rglob(".*"))


@pytest.mark.parametrize("again", [{}, {"resume": True}])
def test_a_finished_result_is_reported_and_left_alone(output, capsys, again):
    assert study(output, *OLD) == 0
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    capsys.readouterr()
    assert study(output, *OLD, **again) == 0
    said = capsys.readouterr().out
    assert "nothing was run" in said and str(output) in said and "some data" in said and said.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before


def test_an_unfinished_result_needs_resume_or_overwrite(output):
    assert study(output, *OLD, stop_after=1) == 130
    before = contents(output)
    with pytest.raises(UsageError, match="without unfinished results, but .*give --resume .* or --overwrite"):
        study(output, *OLD)
    with pytest.raises(UsageError, match="give --overwrite"):
        OutputFolder(output, configuration(*OLD))  # of a script that cannot resume
    assert contents(output) == before
    assert study(output, *OLD, resume=True) == 0
    assert strict_json(output / "results.json")["ran"] == 1
    assert_holds(output, OLD)


def test_a_folder_without_results_needs_no_option(output):
    OutputFolder(output, configuration(*OLD))
    assert os.listdir(output) == ["configuration.json"]
    assert study(output, *NEW) == 0
    assert_holds(output, NEW)


@pytest.mark.parametrize("new", [OLD, NEW], ids=["of the same", "of others"])
def test_an_interrupted_replacement_keeps_the_finished_result(output, new, capsys):
    study(output, *OLD)
    add_foreign_files(output)
    before = contents(output)
    assert study(output, *new, overwrite=True, stop_after=0) == study(output, *new, overwrite=True, stop_after=1) == 130
    assert contents(output) == before
    assert study(output, *OLD) == 0 and "nothing was run" in capsys.readouterr().out
    if new is NEW:
        with pytest.raises(UsageError, match="without unfinished results"):
            study(output, *new)
    assert contents(output) == before
    assert study(output, *new, resume=True) == 0
    assert strict_json(output / "results.json")["ran"] == 1  # the other run was there already
    assert_holds(output, new)
    assert all((output / name).read_text() == "mine" for name in FOREIGN)


def test_a_replacement_can_be_started_again_for_the_same_or_other_runs(output):
    study(output, *OLD)
    study(output, *NEW, overwrite=True, stop_after=1)
    others = [Run("d", l2=0.3)]
    with pytest.raises(UsageError, match="another configuration"):
        study(output, *others)
    assert study(output, *others, overwrite=True) == 0
    assert_holds(output, others)


def test_a_finished_result_stays_until_added_runs_are_done(output):
    study(output, *OLD)
    before, more = contents(output), [*OLD, Run("c", l2=0.1), Run("d", l2=0.1)]
    assert study(output, *more, resume=True, stop_after=1) == 130
    assert contents(output) == before and study(output, *OLD) == 0
    assert study(output, *more, resume=True) == 0
    assert strict_json(output / "results.json")["ran"] == 1
    assert_holds(output, more)


def every_step(monkeypatch, at):
    """Raise Killed at one of the steps that change files and at all later ones."""
    left = [at]

    def counted(function):
        def call(*args, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*args, **options)

        return call

    monkeypatch.setattr(os, "replace", counted(os.replace))
    monkeypatch.setattr(shutil, "rmtree", counted(shutil.rmtree))
    for name in ("unlink", "mkdir", "rmdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))


def complete_results(output):
    """The configurations of all complete results, by folder."""
    found = {}
    for folder in (output, output / UNFINISHED):
        document = strict_json(folder / "results.json") if (folder / "results.json").exists() else {}
        if document.get("complete"):
            found[folder] = document["configuration"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("again", [None, 0, 3])
@pytest.mark.parametrize("how", ["overwrite", "resume"])
def test_killed_at_any_step(tmp_path, monkeypatch, how, again):
    """The old results stay until the new ones are complete; the same command then finishes the work."""
    new = NEW if how == "overwrite" else [*OLD, Run("c", l2=0.1)]
    for at in range(100):
        output = tmp_path / str(at)
        study(output, *OLD)
        add_foreign_files(output)
        for step in [at] if again is None else [at, again]:
            with monkeypatch.context() as patch:
                every_step(patch, step)
                try:
                    study(output, *new, **{how: True})
                    if step == at:
                        break
                except Killed:
                    pass
            whole = complete_results(output)
            assert whole, f"killed at step {at}, no complete results are left"
            if whole == {output: configuration(*OLD)}:
                assert_unharmed(output)
        else:
            if configuration(*new) in whole.values():
                assert study(output, *new) == 0  # it only has to be moved
            else:
                assert study(output, *new, **{how: True}) == 0
            assert_holds(output, new)
            assert all((output / name).read_text() == "mine" for name in FOREIGN)
            continue
        break
    assert 15 < at < 99


def assert_unharmed(output):
    assert all(RunFiles(output, run).result.read_text() == f"{run.l2}" for run in OLD)
    assert (output / "summary.md").read_text() == "['a', 'b'], complete: True"
    assert strict_json(output / "configuration.json") == configuration(*OLD)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "left, words",
    [
        (None, "missing"),
        ("{", "not a cyconv file"),
        ("[]", "not a cyconv file"),
        ('{"script": "s", "runs": [{}]}', "not a cyconv file"),
    ],
)
def test_results_without_their_configuration_are_described_correctly(output, resume, left, words):
    study(output, *OLD)
    (output / "configuration.json").unlink()
    if left is not None:
        (output / "configuration.json").write_text(left)
    (output / "results.json").write_text("precious")
    before = contents(output)
    start = "--resume needs results with" if resume else "--output must be a folder without results, or with"
    with pytest.raises(UsageError, match=f"^{start} the configuration.json .* in .*out it is {words}: "):
        study(output, *OLD, resume=resume)
    assert contents(output) == before
    assert study(output, *NEW, overwrite=True, stop_after=1) == 130 and contents(output) == before
    assert study(output, *NEW, overwrite=True) == 0
    assert strict_json(output / "results.json")["configuration"] == configuration(*NEW)


def test_links_and_modes_stay_when_results_are_replaced(output, tmp_path):
    study(output, *OLD)
    (output / "results.json").rename(tmp_path / "elsewhere")
    (output / "results.json").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o600)
    assert study(output, *NEW, overwrite=True) == 0
    assert (output / "results.json").is_symlink() and (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "elsewhere").read_text())["configuration"] == configuration(*NEW)


@pytest.mark.parametrize(
    "arguments, variable, start",
    [
        (["--threads", "1000"], None, "--threads must be an integer in [1, 256], but got 1000"),
        (["--debug-file", "none.npz"], None, "--debug-file must be one of the course's .npz files"),
        (["--data", "nowhere"], None, "--data must be a folder of CIFAR-10's batch files"),
        (["--data", "broken"], None, "--data must hold CIFAR-10's batch files, but data_batch_1.bin in bro"),
        (["--data", "~nobody-of-this-name"], None, "--data must be a path whose home folder is known"),
        (["--output", "~nobody-of-this-name"], None, "--output must be a path whose home folder is known"),
        ([], "broken", "CYCONV_DATA must hold CIFAR-10's batch files"),
        ([], "nowhere", "CYCONV_DATA must be a folder of CIFAR-10's batch files"),
        ([], "data", "CYCONV_DATA must hold CIFAR-10's batch files"),
        ([], None, "data must hold CIFAR-10's batch files, but data_batch_1.bin in data"),
    ],
)
def test_errors_name_options_as_typed(
    load_script, run_script, tmp_path, monkeypatch, capsys, arguments, variable, start
):
    """Or the environment variable, or the folder ``data`` where the script looks last."""
    script = load_script("verify_gradients")
    for folder in ("broken",) if arguments else ("broken", "data"):
        (tmp_path / folder).mkdir()
        for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
            (tmp_path / folder / name).write_bytes(b"x")
    if variable is not None:
        monkeypatch.setenv("CYCONV_DATA", variable)
    assert run_script(script, "--quick", *arguments) == 2
    assert capsys.readouterr().err.rpartition("error: ")[2].strip().startswith(start)


# The scripts ----------------------------------------------------------------------------

FAST = {"filter_size": 8, "n_filters": 2, "n_hidden": 4, "step_size": 5, "n_cycles": 1}
SCRIPTS = {
    "exercise3": ({"QUICK": {"step_size": 2, "log_every": 10}}, ["--part", "2"]),
    "exercise4": ({"QUICK": FAST}, []),
    "course_tables": ({"QUICK": {"n_filters": 2, "n_hidden": 4, "step_size": 2}}, []),
    "push_accuracy": ({"QUICK": FAST}, []),
    "train": ({"QUICK": FAST}, []),
    "search_l2": ({"QUICK_RUN": FAST}, ["--executor", "serial", "--rounds", "1"]),
    "lr_range": ({}, ["--architectures", "4", "--steps", "20"]),
    "verify_gradients": (
        {
            "QUICK": {"N_IMAGES": 2, "N_ROUNDS": 1, "N_COORDINATES": 1},
            "NETWORKS": {"one": {"filter_size": 16, "n_filters": 2, "n_hidden": 4}},
        },
        [],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_running_a_command_twice(load_script, run_script, tmp_path, monkeypatch, capsys, name):
    """In a folder whose name has ~ and an environment variable."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    constants, arguments = SCRIPTS[name]
    script = load_script(name, **constants)
    arguments = ["--quick", *arguments, "--output=~/$PLACE"]
    monkeypatch.setenv("PLACE", "out")
    assert run_script(script, *arguments) == 0
    output = tmp_path / "home" / "out"
    before = contents(output)
    assert "results.json" in before and not (tmp_path / "~").exists()
    capsys.readouterr()
    assert run_script(script, *arguments) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert "nothing was run" in lines[-1] and str(output) in lines[-1] and len(lines) == 2
    assert contents(output) == before

    def stop(*args, **options):
        error = cyconv.Interrupted("interrupted")
        error.signum = 2
        raise error

    stopped = {"lr_range": "lr_range_test", "verify_gradients": "compare_gradients"}.get(name)
    with monkeypatch.context() as patch:
        patch.setattr(*(script, stopped) if stopped else (cyconv.CyclicTrainer, "fit"), stop)
        with contextlib.suppress(KeyboardInterrupt):
            assert run_script(script, *arguments, "--overwrite") == 128 + 2
    assert contents(output) == before
    said = capsys.readouterr().out
    assert stopped or f"{UNFINISHED}; the earlier results remain in {output}" in said.strip().splitlines()[-1]
    assert run_script(script, *arguments, *(["--overwrite"] if stopped else ["--resume"])) == 0
    assert strict_json(output / "results.json")["complete"] and not (output / UNFINISHED).exists()
    assert set(contents(output)) == set(before)
