"""scripts/lr_range.py in miniature: its tests, files, messages and refusals."""

import csv
import dataclasses
import math
import sys

import numpy as np
import pytest
from strict import strict_json

import cyconv
from cyconv.experiments import ARCHITECTURES, Run
from cyconv.experiments.commands.push_accuracy import RECIPES

TINY = {
    "1": Run("one", "1: one", filter_size=4, n_filters=6, n_hidden=20, l2=0.003),
    "2": Run("two", "2: two", filter_size=16, n_filters=40, n_hidden=50, l2=0.003),
}


@pytest.fixture
def script(load_script):
    return load_script("lr_range", NETWORKS=TINY)


def test_the_four_architectures_are_tested_by_default(load_script):
    script = load_script("lr_range")
    assert list(script.NETWORKS.values()) == list(ARCHITECTURES)
    arguments = script.parse([])
    assert script.chosen_networks(arguments) == list(ARCHITECTURES) and arguments.steps == 1000
    assert (arguments.low, arguments.high) == (1e-6, 10.0)


def test_all_documented_files_are_written(script, run_script, tmp_path, capsys):
    assert run_script(script, "--quick", "--seeds", "2") == 0
    output = capsys.readouterr().out
    lines = output.strip().splitlines()
    assert "shapes (synthetic)" in lines[0] and "shapes (synthetic)" in lines[-1]
    folder = tmp_path / "results" / "lr_range"
    assert {path.name for path in folder.iterdir()} == {
        "configuration.json",
        "curves.csv",
        "lr-range.png",
        "report.html",
        "results.json",
        "summary.md",
    }

    document = strict_json(folder / "results.json")
    assert document["data_set"] == "shapes (synthetic)"
    assert [network["label"] for network in document["networks"]] == ["1: one", "2: two"]
    data = cyconv.make_shapes(4000, 400, 800)  # the data of a quick run without CIFAR-10
    with open(folder / "curves.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["data_set"] for row in rows} == {"shapes (synthetic)"}
    for network, run in zip(document["networks"], TINY.values()):
        ends = []
        for seed in range(2):
            fresh = cyconv.Network(run.filter_size, run.n_filters, run.n_hidden, seed=seed)
            found = cyconv.lr_range_test(fresh, data.train, l2=0.003, seed=seed)
            ends.append((found.eta_min, found.eta_max))
            curve = [row for row in rows if row["architecture"] == run.label and row["seed"] == str(seed)]
            assert [float(row["cost"]) for row in curve] == found.costs.tolist()
            assert [float(row["penalty"]) for row in curve] == found.penalties.tolist()
            assert [float(row["smoothed_loss"]) for row in curve] == found.smoothed.tolist()
            assert [float(row["learning_rate"]) for row in curve] == found.learning_rates.tolist()
            assert f"{run.label}, seed {seed}: {found.eta_min:.1e} to {found.eta_max:.1e}" in output
        for key, values in zip(("eta_min", "eta_max"), zip(*ends)):
            assert network[key]["each"] == list(values)
            assert network[key]["geometric_mean"] == pytest.approx(math.sqrt(math.prod(values)))
            logs = np.log10(values)
            assert network[key]["log10"]["standard_deviation"] == pytest.approx(logs.std(ddof=1))
            assert f"{network[key]['geometric_mean']:.1e} ×/÷ {10 ** logs.std(ddof=1):.2f}" in output

    summary = (folder / "summary.md").read_text()
    assert summary.startswith("# Learning-rate range test: shapes (synthetic)\n")
    assert "(lr-range.png)" in summary
    assert document["conclusion"] in summary and document["conclusion"] in output
    for name, key in (("η_min", "eta_min"), ("η_max", "eta_max")):
        (pair,) = document["differences"][key]
        assert (pair["first"], pair["second"], pair["test"]) == ("2: two", "1: one", "Welch")
        sentence = f"The difference in log₁₀ {name}, {pair['difference']:.2f} decades for 2: two minus 1: one, is"
        assert sentence in summary and sentence in output
    assert (folder / "lr-range.png").read_bytes().startswith(b"\x89PNG")


def test_a_cost_that_does_not_fall_gives_no_suggestion(script, run_script, tmp_path, capsys):
    assert run_script(script, "--quick", "--architectures", "2", "--low", "1e-12", "--high", "1e-11") == 0
    (network,) = strict_json(tmp_path / "results" / "lr_range" / "results.json")["networks"]
    assert network["eta_min"] == {"geometric_mean": None, "log10": None, "each": [None]}
    output = capsys.readouterr().out
    assert "2: two, seed 0: none, nothing was learned at these rates" in output
    assert "2: two none (seed 0: nothing was learned at these rates)" in output
    assert "compared" not in output  # there is one network


def test_a_comparison_without_a_suggestion_says_why_there_is_none(script, run_script, tmp_path, capsys):
    arguments = ["--architectures", "1", "2", "--compare", "--low", "1e-12", "--high", "1e-11", "--steps", "40"]
    assert run_script(script, "--quick", *arguments) == 0
    sentence = "Without a suggested rate, no cycles were trained for comparison: 1: one; 2: two."
    assert sentence in capsys.readouterr().out
    assert sentence in (tmp_path / "results" / "lr_range" / "summary.md").read_text()


def test_without_scipy_what_is_missing_is_said_once(script, run_script, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert run_script(script, "--quick", "--seeds", "2") == 0
    assert capsys.readouterr().out.count("pip install scipy") == 1


def test_divergence_is_reported(script, run_script, tmp_path, capsys):
    assert run_script(script, "--quick", "--architectures", "1", "--high", "1e4") == 0
    (network,) = strict_json(tmp_path / "results" / "lr_range" / "results.json")["networks"]
    assert network["diverged"] == [True] and network["updates"][0] < 1000
    assert f"the cost diverged after {network['updates'][0]} updates" in capsys.readouterr().out


def test_results_of_other_settings_are_replaced_only_on_request(script, run_script, tmp_path, capsys):
    arguments = ["--quick", "--architectures", "1", "--output", "out"]
    assert run_script(script, *arguments) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for change in (["--steps", "80"], ["--seeds", "2"], ["--low", "1e-4"], ["--protocol", "batch1"]):
        assert run_script(script, *arguments, *change) == 2
        assert "another configuration" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert run_script(script, *arguments, "--steps", "80", "--high", "1", "--overwrite") == 0
    assert strict_json(tmp_path / "out" / "results.json")["networks"][0]["updates"] == [80]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--architectures", "5"], "invalid choice"),
        (["--low", "0"], "expected a finite number above 0"),
        (["--low", "0.1", "--high", "0.1"], "--low must be below --high"),
        (["--steps", "19"], "--steps must be at least 20"),
        (["--seeds", "none"], "expected an integer of at least 1"),
        (["--data", "nowhere"], "nowhere"),
        (["--resume"], "unrecognized arguments"),
        (["--output", "file"], "--output must be a folder that can be written"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(script, run_script, assert_mistake, arguments, sentence):
    assert_mistake(run_script, script, "--quick", *arguments, sentence=sentence)


def test_a_changed_recipe_is_not_passed_off_as_the_recipe(script, run_script, tmp_path, capsys):
    sizes = ["--filter-size", "8", "--n-filters", "4", "--n-hidden", "6"]
    assert run_script(script, "--quick", "--minutes", "1", *sizes, "--steps", "20") == 0
    summary = (tmp_path / "results" / "lr_range" / "summary.md").read_text()
    for text in (summary, capsys.readouterr().out):
        assert ", filter_size=8, n_filters=4, n_hidden=6" in text


def test_divergence_from_the_start_is_a_mistake(script, run_script, tmp_path, capsys):
    assert run_script(script, "--quick", "--low", "1e8", "--high", "1e9") == 2
    assert "the cost diverged" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "results" / "lr_range" / "results.json").exists()


def test_a_recipe_or_a_network_of_ones_own_is_tested(load_script):
    script = load_script("lr_range")

    def chosen(*arguments):
        return script.chosen_networks(script.parse(arguments))

    assert chosen("--minutes", "5") == [RECIPES[5]]
    assert chosen("--minutes", "5", "--whitening", "none") == [dataclasses.replace(RECIPES[5], whitening=None)]
    assert chosen("--minutes", "5", "--cutout", "8") == [dataclasses.replace(RECIPES[5], cutout=8)]
    assert chosen("--n-filters", "24", "32", "--filter-size", "4", "8") == [Run(filter_size=(4, 8), n_filters=(24, 32))]
    settings = {"optimizer": "adamw", "weight_decay": 0.01, "l2": 0.0, "dropout": 0.2, "label_smoothing": 0.1}
    options = ["--optimizer", "adamw", "--weight-decay", "0.01", "--l2", "0", "--dropout", "0.2"]
    changed = [dataclasses.replace(run, **settings, shift=2, batch_size=50) for run in ARCHITECTURES[:2]]
    rest = ["--label-smoothing", "0.1", "--shift", "2", "--batch-size", "50"]
    assert chosen("--architectures", "1", "2", *options, *rest) == changed
    assert [run.label for run in chosen("--architectures", "2", "--momentum", "0.9")] == ["2: f=4, nf=10, μ=0.9"]


def test_a_range_that_is_too_short_is_reported(script, run_script, tmp_path, capsys):
    assert run_script(script, "--quick", "--architectures", "2", "--high", "0.01") == 0
    (network,) = strict_json(tmp_path / "results" / "lr_range" / "results.json")["networks"]
    assert network["explanation"] == ["the loss had not risen again at eta_high"]
    assert network["eta_max"]["geometric_mean"] is None
    output = capsys.readouterr().out
    assert "2: two, seed 0: none, the loss had not risen again at --high" in output
    assert "2: two none (seed 0: the loss had not risen again at --high)" in output


def test_one_cycle_is_compared_at_the_rates_of_other_rules(script, run_script, tmp_path, capsys):
    arguments = ["--quick", "--architectures", "1", "--seeds", "2", "--compare", "--step-size", "20"]
    assert run_script(script, *arguments) == 0
    output = capsys.readouterr().out
    document = strict_json(tmp_path / "results" / "lr_range" / "results.json")
    assert "test images were not used" in output
    (trials,) = document["one_cycle"].values()
    (network,) = document["networks"]
    suggested = network["eta_max"]["geometric_mean"]
    rates = {trial["origin"]: trial["eta_max"] for trial in trials}
    assert rates["suggested"] == pytest.approx(suggested) and rates["10 × suggested"] == pytest.approx(10 * suggested)
    assert len(rates) == 8 + 5 and "fastai, valley" in rates and "pytorch-lr-finder" in rates
    data = cyconv.make_shapes(4000, 400, 800)
    train, held_out = (
        cyconv.Split(data.train.images[part], data.train.labels[part]) for part in (slice(3200), slice(3200, None))
    )
    (half,) = (trial for trial in trials if trial["origin"] == "0.5 × suggested")
    for seed, accuracy in enumerate(half["accuracy"]["each"]):
        schedule = cyconv.CyclicSchedule(1e-5, half["eta_max"], step_size=20, n_cycles=1)
        trainer = cyconv.CyclicTrainer(cyconv.Network(4, 6, 20, seed=seed), schedule, l2=0.003, seed=seed)
        assert trainer.fit(train, held_out, progress=False)["acc_val"][-1] == accuracy
    summary = (tmp_path / "results" / "lr_range" / "summary.md").read_text()
    assert "comparison-1.png" in summary and "fastai, slide" in summary
    assert run_script(script, "--quick", "--step-size", "20") == 2
    assert "--step-size goes with --compare" in capsys.readouterr().err


def test_the_test_is_made_with_the_settings_of_the_training(script, run_script, tmp_path, capsys):
    arguments = ["--quick", "--architectures", "2", "--seeds", "1"]
    assert run_script(script, *arguments, "--output", "plain") == 0
    assert run_script(script, *arguments, "--output", "other", "--momentum", "0.9", "--flip") == 0
    assert "momentum=0.9, flip=True" in capsys.readouterr().out
    curves = [(tmp_path / name / "curves.csv").read_text() for name in ("plain", "other")]
    assert curves[0] != curves[1]
    assert run_script(script, *arguments, "--momentum", "2") == 2
    assert "--momentum must" in capsys.readouterr().err
