"""scripts/push_accuracy.py in miniature: the table's rows, the ablation, resuming, refusals."""

import dataclasses
import functools
import json

import numpy as np
import pytest

import cyconv
from cyconv.experiments import Result, RunInterrupted, cli


@pytest.fixture
def script(load_script):
    return load_script("push_accuracy")


@pytest.fixture
def main(script, run_script):
    """main(*arguments) -> exit code: the script in this process."""
    return functools.partial(run_script, script)


def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_network_views_and_ensembles_have_a_row_each(main, tmp_path, capsys):
    assert main("--quick", "--seeds", "2", "--minutes", "1") == 0
    folder = tmp_path / "results" / "push_accuracy"
    (section,) = results(folder)["summary"]
    assert section["heading"].startswith("The miniature of the 1-minute recipe: f=8, nf=4")
    rows = {row["label"]: row["test_accuracy"]["each"] for row in section["rows"]}
    both = "ensemble of 2 networks, mean of 50 views each"
    assert list(rows) == ["single network", "mean of 50 views", both]

    data = cyconv.make_shapes(4000, 400, 800)  # the data of a quick run without CIFAR-10
    images, labels = data.test.images, data.test.labels
    networks = [cyconv.Network.load(folder / f"network-minutes1-seed{seed}.npz") for seed in range(2)]
    views = [cyconv.ViewAverage(network, flip=True, shift=2) for network in networks]
    for seed in range(2):
        assert rows["single network"][seed] == pytest.approx(networks[seed].evaluate(images, labels).accuracy)
        assert rows["mean of 50 views"][seed] == pytest.approx(views[seed].evaluate(images, labels).accuracy)
    mean = sum(view.predict_proba(images).astype(float) for view in views)
    assert rows[both] == [pytest.approx(np.mean(mean.argmax(axis=1) == labels), abs=2e-3)]
    for name in ("curves", "learning-rate", "filters", "accuracy", "confusion"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    output = capsys.readouterr().out.splitlines()
    assert "shapes (synthetic)" in output[0] and "shapes (synthetic)" in output[-1]
    assert not list(folder.glob("checkpoint-*"))


def test_the_ablation_drops_one_ingredient_at_a_time(script):
    recipe = script.RECIPES[15]
    first, *others, plain = script.ablation_runs(recipe)
    assert {**first.to_dict(), "label": ""} == {**recipe.to_dict(), "label": ""}
    assert len(others) >= 4 and len({run.name for run in [first, *others, plain]}) == len(others) + 2
    for run in [*others, plain]:
        settings, usual = dataclasses.asdict(run), dataclasses.asdict(first)
        changed = {key for key, value in settings.items() if value != usual[key]}
        assert changed > {"name", "label"}
        assert run.schedule().total_steps == recipe.schedule().total_steps
    assert (plain.augmentation, plain.dropout, plain.label_smoothing, plain.l2) == (None, 0.0, 0.0, 0.003)
    assert (plain.filter_size, plain.n_filters, plain.n_hidden) == (4, 40, 300)


def test_the_ablation_never_reads_the_test_split(script, main, monkeypatch):
    seen = []

    def look(runs, data, *rest, **options):
        seen.append(data.load())
        yield from ()

    monkeypatch.setattr(cli, "train_runs", look)
    assert main("--quick", "--ablation") == 0
    (held,) = seen
    data = cyconv.make_shapes(4000, 400, 800)
    assert held.test is held.validation and (len(held.train), len(held.validation)) == (3200, 800)
    assert np.array_equal(np.concatenate([held.train.images, held.validation.images]), data.train.images)


def test_the_ablation_reports_what_each_ingredient_gives(script, main, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "WITHOUT", {"mirroring": {"flip": False}, "dropout": {"dropout": 0.0}})
    monkeypatch.setattr(script, "PLAIN", {"flip": False, "shift": 0})
    assert main("--quick", "--ablation", "--seeds", "2", "--output", "ablation") == 0
    document = results(tmp_path / "ablation")
    rows = document["summary"][0]["rows"]
    assert [row["label"] for row in rows] == [
        "the miniature",
        "mean of 98 views",
        "without mirroring",
        "without dropout",
        "plain network",
    ]
    assert all("test_accuracy" not in row and len(row["validation_accuracy"]["each"]) == 2 for row in rows)
    assert all(run["test"] is None for run in document["runs"])
    summary = (tmp_path / "ablation" / "summary.md").read_text()
    held = Result.load(tmp_path / "ablation" / "run-minutes15-seed1.npz")
    assert rows[1]["validation_accuracy"]["each"][1] == held.test["view_accuracy"] != held.test["accuracy"]
    assert "training_time" not in rows[1]
    apart = 100 * (rows[1]["validation_accuracy"]["mean"] - rows[0]["validation_accuracy"]["mean"])
    assert f"{apart:+.2f}" in summary and "not used" in summary
    assert (tmp_path / "ablation" / "ablation.png").is_file()
    output = capsys.readouterr().out
    assert "test accuracy" not in output
    sentence = "to a miniature of the recipe, which tells nothing about the recipe, on 800 held-out training images"
    assert sentence in output and sentence in summary


@pytest.mark.parametrize("options", [(), ("--ablation",)])
def test_an_interrupted_run_is_reported_and_resumed(script, main, tmp_path, monkeypatch, options):
    monkeypatch.setattr(script, "WITHOUT", {})
    monkeypatch.setattr(script, "PLAIN", {"flip": False})
    monkeypatch.setattr(script.plots, "save_figures", lambda pictures, folder: [])
    arguments = ["--quick", "--seeds", "2", *options]
    train_runs = cli.train_runs

    def first_only(*positional, **named):
        yield next(iter(train_runs(*positional, **named)))
        raise RunInterrupted("training was interrupted", 15)

    monkeypatch.setattr(cli, "train_runs", first_only)
    assert main(*arguments, "--output", "out") == 128 + 15
    partial = results(tmp_path / "out")
    assert not partial["complete"] and len(partial["runs"]) == 1
    assert "Incomplete" in (tmp_path / "out" / "summary.md").read_text()
    monkeypatch.setattr(cli, "train_runs", train_runs)
    assert main(*arguments, "--output", "out", "--resume") == 0
    assert main(*arguments, "--output", "whole") == 0
    resumed, whole = (results(tmp_path / name)["runs"] for name in ("out", "whole"))
    assert [run["history"]["acc_val"] for run in resumed] == [run["history"]["acc_val"] for run in whole]


@pytest.mark.parametrize("minutes", [1, 5, 15])
def test_every_recipe_is_valid(script, minutes):
    recipe = script.RECIPES[minutes]
    assert recipe.name == f"minutes{minutes}" and recipe.flip
    recipe.check()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--minutes", "7"], "invalid choice"),
        (["--minutes", "soon"], "invalid"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(main, assert_mistake, arguments, sentence):
    assert_mistake(main, "--quick", *arguments, sentence=sentence)


def test_ablation_and_recipe_do_not_share_a_folder(script, main, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script.plots, "save_figures", lambda pictures, folder: [])
    assert main("--quick", "--output", "out") == 0
    before = (tmp_path / "out" / "results.json").read_bytes()
    assert main("--quick", "--ablation", "--output", "out") == 2
    assert "another configuration" in capsys.readouterr().err
    assert (tmp_path / "out" / "results.json").read_bytes() == before
