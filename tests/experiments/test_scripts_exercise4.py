"""scripts/exercise4.py in miniature: rows, conclusion, pictures, resuming, refusals."""

import csv
import os
import signal
import sys

import pytest
from strict import strict_json

import cyconv
from cyconv.experiments import report

PICTURES = ("accuracy", "curves", "train-validation", "gap", "learning-rate")
FAST = {"filter_size": 8, "n_filters": 4, "n_hidden": 10, "step_size": 5, "log_every": 10}


@pytest.fixture
def script(load_script):
    return load_script("exercise4", QUICK=FAST)


def without_times(document):
    histories = [
        {key: run["history"][key] for key in ("update_steps", "loss_train", "acc_val")} for run in document["runs"]
    ]
    return [(run["run"], run["test"], history) for run, history in zip(document["runs"], histories)]


def test_the_settings_are_those_of_the_assignment(load_script):
    run = load_script("exercise4").PLAIN
    assert (run.filter_size, run.n_filters, run.n_hidden) == (4, 40, 300)
    assert (run.step_size, run.n_cycles, run.growth, run.schedule().total_steps) == (800, 4, 2.0, 24000)
    assert (run.eta_min, run.eta_max, run.l2, run.batch_size) == (1e-5, 1e-1, 0.0025, 100)
    assert (run.label_smoothing, run.momentum, run.dropout, run.augmentation) == (0.0, 0.0, 0.0, None)


def test_all_documented_files_are_written(script, run_script, tmp_path, capsys):
    assert run_script(script, "--quick", "--seeds", "2") == 0
    output = capsys.readouterr().out
    lines = output.strip().splitlines()
    assert "shapes (synthetic)" in lines[0] and "shapes (synthetic)" in lines[-1] and "exercise4" in lines[-1]

    folder = tmp_path / "results" / "exercise4"
    document = strict_json(folder / "results.json")
    assert document["complete"] and document["seeds"] == [0, 1]
    assert document["data_set"] == "shapes (synthetic)"
    assert [run["run"]["label_smoothing"] for run in document["runs"]] == [0.0, 0.1, 0.0, 0.1]
    (section,) = document["summary"]
    rows = {row["name"]: row for row in section["rows"]}
    assert list(rows) == ["plain", "smoothed", "plain-ensemble", "smoothed-ensemble"]
    data = cyconv.make_shapes(4000, 400, 800)  # the data of a quick run without CIFAR-10
    for name, epsilon in (("plain", 0.0), ("smoothed", 0.1)):
        runs = [run for run in document["runs"] if run["run"]["label_smoothing"] == epsilon]
        gaps = [run["history"]["loss_val"][-1] - run["history"]["loss_train"][-1] for run in runs]
        assert rows[name]["loss_gap"]["each"] == pytest.approx(gaps)
        assert rows[name]["test_accuracy"]["standard_deviation"] is not None
        ensembles = rows[f"{name}-ensemble"]["test_accuracy"]["each"]
        assert ensembles == [run["test"]["ensemble_accuracy"] for run in runs]
        for seed in range(2):
            network = cyconv.Network.load(folder / f"network-{name}-seed{seed}.npz")
            found = network.evaluate(data.test.images, data.test.labels).accuracy
            assert rows[name]["test_accuracy"]["each"][seed] == found
            with open(folder / f"history-{name}-seed{seed}.csv", newline="") as file:
                assert len(list(csv.DictReader(file))) == len(runs[seed]["history"]["update_steps"])

    summary = (folder / "summary.md").read_text()
    assert summary.splitlines()[0] == "# Exercise 4: shapes (synthetic)"
    for name in PICTURES:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG") and f"({name}.png)" in summary
    each = report.format_each(rows["plain"]["test_accuracy"]["each"], scale=100)
    assert section["conclusion"] and "95 % interval" in section["conclusion"]
    assert all(text in summary and text in output for text in (section["conclusion"], each))
    assert [(pair["first"], pair["second"]) for pair in section["differences"]] == [
        ("smoothing ε = 0.1", "without smoothing"),
        ("without smoothing: ensemble of 4", "without smoothing"),
        ("smoothing ε = 0.1: ensemble of 4", "smoothing ε = 0.1"),
    ]
    assert all(pair["test"] == "paired" and pair["n_runs"] == 2 for pair in section["differences"])
    assert not list(folder.glob("checkpoint-*"))


def test_without_scipy_a_report_has_means_and_says_what_is_missing(script, run_script, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert run_script(script, "--quick", "--seeds", "2") == 0
    folder = tmp_path / "results" / "exercise4"
    section = strict_json(folder / "results.json")["summary"][0]
    values = section["rows"][0]["test_accuracy"]
    assert values["interval"] is None and all(pair["p_value"] is None for pair in section["differences"])
    summary, output = (folder / "summary.md").read_text(), capsys.readouterr().out
    mean = report.format_mean(values["each"], scale=100)
    assert "±" in mean and all(mean in text and "pip install scipy" in text for text in (summary, output))
    assert "95 % interval (%)" not in summary and "significant" not in summary
    for name in PICTURES:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def row(name, accuracy, gap=()):
    return report.Summary.from_document(
        {
            "name": name,
            "label": f"label of {name}",
            "architecture": "f=4",
            "n_parameters": 10,
            "seeds": list(range(len(accuracy))),
            "unfinished": 0,
            "test_accuracy": {"each": list(accuracy)},
            "loss_gap": {"each": list(gap)},
        }
    )


def test_the_conclusion_agrees_with_the_numbers(script):
    rows = [
        row("plain", [0.60, 0.62, 0.61], [0.50, 0.52, 0.52]),
        row("smoothed", [0.61, 0.63, 0.65], [0.20, 0.22, 0.21]),
        row("plain-ensemble", [0.700, 0.721, 0.711]),
        row("smoothed-ensemble", [0.55, 0.57, 0.57]),
    ]
    said = script.conclude(rows)
    not_significant = (
        "not significant at 5 % (95 % interval -2.30 to 6.30, p = 0.184, paired t test, corrected for 3 comparisons)"
    )
    assert f"Smoothing the labels changes the test accuracy by +2.00 points, {not_significant}" in said
    gain = "the ensemble of the cycle ends changes the test accuracy by"
    assert (
        f"Without smoothing, {gain} +10.07 points, significant at 5 % (95 % interval 9.92 to 10.21, p < 0.001" in said
    )
    assert f"With smoothing, {gain} -6.67 points, significant at 5 % (95 % interval -9.54 to -3.80, p = 0.0197" in said
    assert (
        "by 0.513 ± 0.012 without and 0.210 ± 0.010 with smoothing, which changes this gap by -0.303, "
        "significant at 5 % (95 % interval -0.318 to -0.289, p < 0.001, paired t test)."
    ) in said
    section = script.section("heading", rows)
    labels = {each.name: each.label for each in rows}
    assert [(pair.first, pair.second) for pair in section.differences] == [
        (labels[first], labels[second]) for first, second in script.PLANNED
    ]
    alone = [row("plain", [0.6], [0.5]), row("smoothed", [0.7], [0.2])]
    assert script.conclude(alone).count("not tested (too few runs)") == 2
    assert "nothing to compare" in script.conclude([row("plain", []), row("smoothed", [0.7], [0.2])])


@pytest.mark.slow
def test_results_so_far_are_written_on_a_signal_and_can_be_resumed(script, run_script, tmp_path, monkeypatch, capsys):
    arguments = ["--quick", "--output"]
    append, points = cyconv.History.append, []

    def interrupted(self, *arguments, **options):
        append(self, *arguments, **options)
        points.append(None)
        if len(points) == 20:  # in the second run
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(cyconv.History, "append", interrupted)
        assert run_script(script, *arguments, "out") == 128 + signal.SIGTERM
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("Incomplete results")
    partial = strict_json(tmp_path / "out" / "results.json")
    assert not partial["complete"]
    assert [run["state"] for run in partial["runs"]] == ["complete", "interrupted"]
    assert "nothing to compare" not in partial["summary"][0]["conclusion"]  # the first run has its ensemble
    assert run_script(script, *arguments, "out", "--resume") == run_script(script, *arguments, "whole") == 0
    resumed, whole = (strict_json(tmp_path / name / "results.json") for name in ("out", "whole"))
    assert resumed["complete"] and without_times(resumed) == without_times(whole)
    assert resumed["runs"][0]["history"] == partial["runs"][0]["history"]  # it was not repeated


def test_a_run_that_diverges_leaves_a_report(script, run_script, tmp_path, capsys):
    assert run_script(script, "--quick", "--l2", "1e30", "--output", "out") == 1
    document = strict_json(tmp_path / "out" / "results.json")
    assert not document["complete"] and document["summary"][0]["conclusion"].startswith("Since runs are missing")
    assert "Incomplete" in capsys.readouterr().out


@pytest.mark.slow
def test_settings_reach_the_runs_and_are_not_mixed_with_others(script, run_script, tmp_path, capsys):
    arguments = ["--quick", "--output", "out", "--protocol", "batch1"]
    assert run_script(script, *arguments, "--label-smoothing", "0.2", "--l2", "0.01") == 0
    runs = strict_json(tmp_path / "out" / "results.json")["configuration"]["runs"]
    assert [(run["label_smoothing"], run["l2"]) for run in runs] == [(0, 0.01), (0.2, 0.01)]
    assert all(run["snapshots"] for run in runs)
    capsys.readouterr()
    assert run_script(script, *arguments) == 2
    assert "another configuration" in capsys.readouterr().err
    assert run_script(script, *arguments, "--resume") == 2
    assert "runs of the same settings" in capsys.readouterr().err
    assert run_script(script, *arguments, "--overwrite") == 0


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--label-smoothing", "2"], "error: --label-smoothing must be"),
        (["--label-smoothing", "-0.1"], "expected a finite number above 0"),
        (["--l2", "nan"], "expected a finite number above 0"),
        (["--seeds", "0"], "expected an integer of at least 1"),
        (["--data", "nowhere"], "nowhere"),
        (["--output", "file"], "--output must be a folder that can be written"),
        (["--resume", "--overwrite"], "not allowed with"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(script, run_script, assert_mistake, arguments, sentence):
    assert_mistake(run_script, script, "--quick", *arguments, sentence=sentence)
