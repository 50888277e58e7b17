"""scripts/exercise3.py in miniature: its files, refusals and interruptions."""

import csv
import functools
import re
import resource
import signal
from types import SimpleNamespace

import pytest
from strict import strict_json

import cyconv
from cyconv.experiments import ARCHITECTURES, cli, over_seeds
from cyconv.experiments.usage import UsageError

PICTURES = ("accuracy", "time", "curves", "train-validation", "learning-rate", "filters", "confusion")


@pytest.fixture
def call(call_script):
    """call(*arguments): the script in a process of its own."""
    return functools.partial(call_script, "exercise3")


@pytest.fixture
def main(load_script, run_script):
    """main(*arguments) -> exit code: the script in this process, with even shorter quick runs."""
    module = load_script("exercise3", QUICK={"step_size": 5, "log_every": 10})
    return lambda *arguments: run_script(module, *arguments)


def without_times(document):
    """The runs of a results file without their times."""
    times = {"training_time", "update_time", "evaluation_time"}
    runs = []
    for run in document["runs"]:
        history = {key: value for key, value in run["history"].items() if key not in times}
        runs.append({**run, "history": history, "updates_per_second": None})
    return runs


@pytest.mark.slow
def test_both_parts_write_all_documented_files(call, tmp_path):
    done = call("--quick", "--threads", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert "shapes (synthetic)" in lines[0] and "CIFAR-10 was not found" in lines[0]
    assert "shapes (synthetic)" in lines[-1] and "results/exercise3" in lines[-1]
    assert done.stderr == ""  # no progress bar where no terminal is

    folder = tmp_path / "results" / "exercise3"
    document = strict_json(folder / "results.json")
    assert document["complete"] and document["data_set"] == "shapes (synthetic)" and document["seeds"] == [0]
    assert document["machine"]["threads"] == 1
    assert document["command"] == ["exercise3.py", "--quick", "--threads", "1"]
    assert [run["run"]["name"] for run in document["runs"]] == [
        "part1-f2-nf3",
        "part1-f4-nf10",
        "part1-f8-nf40",
        "part1-f16-nf160",
        "part2-f4-nf10",
        "part2-f8-nf40",
        "part2-f4-nf40",
    ]
    assert [run["history"]["update_steps"][-1] for run in document["runs"]] == 4 * [600] + 3 * [1400]
    for run in document["runs"]:
        assert 0 < run["test"]["accuracy"] < 1 and sum(map(sum, run["confusion"])) == 800
        stem = f"{run['run']['name']}-seed0"
        with open(folder / f"history-{stem}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [float(row["acc_val"]) for row in rows] == run["history"]["acc_val"]
        assert {row["data_set"] for row in rows} == {document["data_set"]}
        assert cyconv.Network.load(folder / f"network-{stem}.npz").n_parameters == run["n_parameters"]

    summary = (folder / "summary.md").read_text()
    for part in "12":
        for name in PICTURES:
            assert (folder / f"part{part}-{name}.png").read_bytes().startswith(b"\x89PNG")
            assert f"(part{part}-{name}.png)" in summary
    assert summary.splitlines()[0] == "# Exercise 3: shapes (synthetic)"
    assert (folder / "report.html").read_text().count("<img ") == 16
    accuracy = 100 * document["runs"][0]["test"]["accuracy"]
    assert f"{accuracy:.2f}" in summary and f"{accuracy:.2f}" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    assert not list(folder.glob("checkpoint-*")) and not list(folder.glob(".*"))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that a command would have saved, by name."""
    found = {}

    def save_pictures(figures, folder, file_format):
        found.update(figures)
        return []

    monkeypatch.setattr("cyconv.experiments.report.save_pictures", save_pictures)
    return found


def test_progress_tells_the_part_of_a_run_and_pictures_keep_their_colours_in_all_parts(main, drawn, capsys):
    assert main("--quick", "--output", "out") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert [line.partition(": test accuracy")[0] for line in lines] == [
        "[1/7] part1-f2-nf3 (1: f=2, nf=3), seed 0",
        "[2/7] part1-f4-nf10 (2: f=4, nf=10), seed 0",
        "[3/7] part1-f8-nf40 (3: f=8, nf=40), seed 0",
        "[4/7] part1-f16-nf160 (4: f=16, nf=160), seed 0",
        "[5/7] part2-f4-nf10 (2: f=4, nf=10), seed 0",
        "[6/7] part2-f8-nf40 (3: f=8, nf=40), seed 0",
        "[7/7] part2-f4-nf40 (2 wide: f=4, nf=40), seed 0",
    ]
    looks = {}
    for name in ("part1-curves", "part2-curves", "part1-cycles", "part2-cycles"):
        for line in drawn[name].axes[-1].lines:
            if len(line.get_xdata()) > 2:
                looks.setdefault(line.get_label(), set()).add((line.get_color(), line.get_linestyle()))
    assert len(looks) == 5 and all(len(look) == 1 for look in looks.values())
    assert len(set.union(*looks.values())) == 5
    for part in "12":
        title = drawn[f"part{part}-confusion"].get_suptitle()
        assert "on the test images" in title and "1 run" in title and "best on validation data" in title


@pytest.mark.slow
def test_finished_results_are_drawn_again_in_another_format(main, tmp_path):
    arguments = ["--quick", "--part", "2", "--output", "out"]
    assert main(*arguments) == 0
    first = strict_json(tmp_path / "out" / "results.json")
    assert main(*arguments, "--resume", "--format", "svg") == 0
    second = strict_json(tmp_path / "out" / "results.json")
    assert second["runs"] == first["runs"] and second["complete"]
    pictures = {path.stem for path in (tmp_path / "out").glob("*.svg")}
    assert pictures == {path.stem for path in (tmp_path / "out").glob("*.png")} and len(pictures) == 8
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 8 and "data:image/png" not in page
    assert "(part2-curves.svg)" in (tmp_path / "out" / "summary.md").read_text()


@pytest.mark.slow
def test_options_reach_the_runs(main, tmp_path):
    arguments = "--part 2 --growth 1.5 --seeds 2 --protocol batch1 --log-every 7 --output out"
    assert main("--quick", *arguments.split()) == 0
    document = strict_json(tmp_path / "out" / "results.json")
    assert document["seeds"] == [0, 1] and len(document["runs"]) == 6
    assert {run["run"]["growth"] for run in document["runs"]} == {1.5}
    assert all(run["history"]["update_steps"][:3] == [0, 7, 14] for run in document["runs"])
    assert document["configuration"]["protocol"] == "batch1"
    deviation = document["summary"][0]["rows"][0]["test_accuracy"]["standard_deviation"]
    assert deviation is not None
    assert "± " in (tmp_path / "out" / "summary.md").read_text()


@pytest.mark.slow
def test_parallel_runs_give_the_same_results_and_a_note_on_their_times(call, tmp_path):
    arguments = ["--quick", "--part", "2", "--seeds", "2", "--output"]
    beside, alone = call(*arguments, "beside", "--workers", "2"), call(*arguments, "alone", "--threads", "1")
    assert beside.returncode == alone.returncode == 0 and beside.stderr == alone.stderr == ""
    first_line = beside.stdout.splitlines()[1]
    assert first_line.startswith("[1/6] part2-f4-nf40 (2 wide: f=4, nf=40), seed")  # the longest starts first
    remark = "2 runs at a time, each on 1 thread"
    summaries = [(tmp_path / name / "summary.md").read_text() for name in ("beside", "alone")]
    assert remark in beside.stdout and remark in summaries[0]
    assert remark not in alone.stdout and remark not in summaries[1]
    beside, alone = (strict_json(tmp_path / name / "results.json") for name in ("beside", "alone"))
    assert beside["complete"] and without_times(beside) == without_times(alone)
    assert beside["remarks"][0].startswith(remark) and beside["machine"]["threads"] == 1


def test_options_leave_the_names_of_files_and_rows(load_script):
    script = load_script("exercise3")
    plain, changed = (
        [
            (run.stem, run.label)
            for part in script.chosen_parts(script.parse(options)).values()
            for run in over_seeds(part, 2)
        ]
        for options in ([], ["--quick", "--growth", "1.5", "--log-every", "7"])
    )
    assert plain == changed and plain[1] == ("part1-f4-nf10-seed0", "2: f=4, nf=10")


def test_workers_share_the_processors(monkeypatch):
    monkeypatch.setattr(cli, "default_threads", lambda: 8)
    asking = functools.partial(SimpleNamespace, executor=None, dask_address=None)
    asked = [
        asking(workers=3, threads=None),
        asking(workers=9, threads=None),
        asking(workers=3, threads=4),
        asking(workers=1, threads=4),
    ]
    assert [cli.concurrency_note(arguments) for arguments in asked] == [
        ["3 runs at a time, each on 2 threads"],
        ["9 runs at a time, each on 1 thread"],
        ["3 runs at a time, each on 4 threads"],
        [],
    ]
    runs = list(ARCHITECTURES)
    with pytest.raises(UsageError, match="^--workers must be an integer in"):
        cli.plan_workers(runs, asking(workers=100_000, threads=None))
    assert [cli.plan_workers(runs, arguments)[2] for arguments in asked] == [2, 1, 4, 4]
    assert cli.plan_workers(runs, asked[-1])[0] == runs != cli.plan_workers(runs, asked[0])[0]


@pytest.mark.slow
def test_a_warning_about_the_data_appears_once(call, cifar10_folder):
    done = call("--quick", "--part", "2", "--workers", "2", "--data", str(cifar10_folder.resolve()))
    assert done.returncode == 0 and len(done.stderr.splitlines()) <= 1


@pytest.fixture(scope="module")
def uninterrupted():
    """For the results that all cases of a test compare with, computed by the first of them."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, workers", [(signal.SIGINT, "1"), (signal.SIGHUP, "1"), (signal.SIGTERM, "2"), (signal.SIGINT, "2")]
)
def test_results_so_far_are_written_on_a_signal_and_can_be_resumed(
    start_script, call, tmp_path, uninterrupted, number, workers
):
    arguments = ["--quick", "--part", "2", "--workers", workers, "--output", "out"]
    process = start_script("exercise3", *arguments)
    for line in process.stdout:
        if "seed 0: test accuracy" in line:
            process.send_signal(number)
            break
    output, errors = process.communicate(timeout=60)
    assert process.returncode == -number, errors
    assert "Traceback" not in errors
    assert output.strip().splitlines()[-1].startswith("Incomplete results")
    partial = strict_json(tmp_path / "out" / "results.json")
    assert partial["complete"] is False and 1 <= len(partial["runs"]) < 3
    assert "Incomplete" in (tmp_path / "out" / "summary.md").read_text()

    if (number, workers) == (signal.SIGINT, "1"):
        return  # resuming is the same
    resumed = call(*arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    resumed = strict_json(tmp_path / "out" / "results.json")
    if "whole" not in uninterrupted:
        assert call(*arguments[:-1], "whole").returncode == 0
        uninterrupted["whole"] = strict_json(tmp_path / "whole" / "results.json")
    assert resumed["complete"] and without_times(resumed) == without_times(uninterrupted["whole"])
    times = [
        {run["run"]["name"]: run["history"]["training_time"] for run in document["runs"] if run["state"] == "complete"}
        for document in (partial, resumed)
    ]
    assert times[0] and times[0].items() <= times[1].items()  # finished runs were not repeated


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--seeds", "0"], "expected an integer of at least 1"),
        (["--seeds", "two"], "expected an integer of at least 1"),
        (["--seeds", "10000000"], "error: --seeds must be an integer in [1, 1000000]"),
        (["--workers", "0"], "expected an integer of at least 1"),
        (["--threads", "-1"], "expected an integer of at least 1"),
        (["--threads", "100000"], "error: --threads must be an integer in"),
        (["--log-every", "0"], "expected an integer of at least 1"),
        (["--growth", "nan"], "expected a finite number above 0"),
        (["--growth", "1e300"], "2**53"),
        (["--part", "3"], "invalid choice"),
        (["--format", "bmp"], "invalid choice"),
        (["--protocol", "half"], "invalid choice"),
        (["--data", "nowhere"], "nowhere"),
        (["--output", "file/below"], "--output must be a folder that can be written"),
        (["--output", "file"], "--output must be a folder that can be written"),
        (["--resume", "--overwrite"], "not allowed with"),
        (["--unknown"], "unrecognized arguments"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(main, assert_mistake, arguments, sentence):
    assert_mistake(main, "--quick", *arguments, sentence=sentence)


@pytest.mark.slow
def test_results_of_another_configuration_are_replaced_only_on_request(main, tmp_path, capsys):
    arguments = ["--quick", "--part", "2", "--output", "out"]
    assert main(*arguments) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert main(*arguments, "--growth", "3") == 2
    assert "another configuration" in capsys.readouterr().err
    assert main(*arguments, "--growth", "3", "--resume") == 2
    assert "runs of the same settings" in capsys.readouterr().err
    assert main(*arguments, "--protocol", "batch1", "--resume") == 2
    assert "results of the same data" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert main(*arguments, "--growth", "3", "--overwrite") == 0
    growth = {run["run"]["growth"] for run in strict_json(tmp_path / "out" / "results.json")["runs"]}
    assert growth == {3.0}


def test_threads_are_set_before_any_work(main, monkeypatch):
    chosen = []
    monkeypatch.setattr(cli, "set_num_threads", chosen.append)
    assert main("--threads", "3", "--data", "nowhere") == 2 and chosen == [3]


@pytest.mark.slow
def test_resume_may_add_seeds(main, tmp_path):
    arguments = ["--quick", "--part", "2", "--output", "out"]
    assert main(*arguments) == 0
    first = strict_json(tmp_path / "out" / "results.json")
    assert main(*arguments, "--seeds", "2", "--resume") == 0
    second = strict_json(tmp_path / "out" / "results.json")
    assert len(second["runs"]) == 6 and second["runs"][:3] == first["runs"]


def test_a_folder_with_unknown_results_is_refused(main, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("precious")
    assert main("--quick", "--output", "out") == 2
    assert "--output must be a folder without results" in capsys.readouterr().err
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["precious"]


def test_a_full_disk_is_one_sentence_and_exit_code_1(call, tmp_path):
    def no_file_above_20_kilobytes():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = call("--quick", "--part", "2", preexec_fn=no_file_above_20_kilobytes)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1 and "cannot write" in done.stderr
    folder = tmp_path / "results" / "exercise3"
    assert not list(folder.glob(".*.part")) and all(path.stat().st_size < 20_000 for path in folder.iterdir())


def test_a_closed_output_pipe_gives_no_traceback(start_script):
    process = start_script("exercise3", "--quick", "--part", "2")
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=60) == -signal.SIGPIPE
    assert "Traceback" not in errors


def test_cifar10_is_named_and_unofficial_files_are_reported(main, tmp_path, cifar10_folder, capsys):
    code = main("--quick", "--part", "2", "--data", str(cifar10_folder.resolve()), "--output", "out")
    output = capsys.readouterr()
    assert code == 0
    assert re.match(r"Data set: CIFAR-10.* 49,000 training, 1,000 validation and 10,000 test", output.out)
    assert "shapes" not in output.out
    document = strict_json(tmp_path / "out" / "results.json")
    assert document["data_set"].startswith("CIFAR-10")
    if document["data_set"] != "CIFAR-10":
        assert "original files" in output.err
