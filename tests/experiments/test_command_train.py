"""``cyconv train`` in miniature: every setting of a run is an option; files, refusals, own data."""

import dataclasses
import functools

import numpy as np
import pytest
from strict import strict_json

import cyconv
from cyconv.experiments import Run

# Every setting with another value than its default, as typed and as it is in Python; they need not go together.
OTHERS = {
    "filter_size": (["4", "8"], (4, 8)),
    "n_filters": (["3", "2"], (3, 2)),
    "n_hidden": (["9"], 9),
    "dtype": (["float64"], "float64"),
    "eta_min": (["1e-4"], 1e-4),
    "eta_max": (["0.02"], 0.02),
    "step_size": (["3"], 3),
    "n_cycles": (["2"], 2),
    "growth": (["1.5"], 1.5),
    "eta_max_decay": (["0.9"], 0.9),
    "batch_size": (["50"], 50),
    "l2": (["0.01"], 0.01),
    "label_smoothing": (["0.1"], 0.1),
    "momentum": (["0.9"], 0.9),
    "dropout": (["0.2"], 0.2),
    "flip": ([], True),
    "shift": (["2"], 2),
    "cutout": (["5"], 5),
    "snapshots": ([], True),
    "views": ([], True),
    "whitening": (["0.3"], 0.3),
    "anneal": (["linear"], "linear"),
    "seed": (["7"], 7),
    "log_every": (["4"], 4),
    "n_train_evaluated": (["all"], None),
    "mode": (["exp_range"], "exp_range"),
    "gamma": (["0.99"], 0.99),
    "warmup": (["6"], 6),
    "optimizer": (["adamw"], "adamw"),
    "weight_decay": (["0.1"], 0.1),
}
TINY = ["--filter-size", "8", "--n-filters", "2", "--n-hidden", "4", "--step-size", "4", "--growth", "1"]


@pytest.fixture
def train(load_script):
    """The command as a module."""
    return load_script("train")


@pytest.fixture
def main(train, run_script):
    """main(*arguments) -> exit code: the command in this process, on little data."""
    return functools.partial(run_script, train, "--quick")


def test_every_setting_of_a_run_is_an_option(train):
    assert {field.name for field in dataclasses.fields(Run)} == {"name", "label", *OTHERS}
    options = [word for name, (words, _) in OTHERS.items() for word in (f"--{name.replace('_', '-')}", *words)]
    run = train.chosen_run(train.parse(options))
    assert {name: getattr(run, name) for name in OTHERS} == {name: value for name, (_, value) in OTHERS.items()}


def test_defaults_are_those_of_a_run(train):
    run, default = train.chosen_run(train.parse([])), Run("default")
    assert dataclasses.replace(run, name="default", label="default") == default


def test_help_tells_the_defaults(train, capsys):
    with pytest.raises(SystemExit):
        train.parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in OTHERS:
        assert f"--{name.replace('_', '-')}" in text
    assert f"half of the first cycle, in update steps (default: {Run('a').step_size}; 100 with --quick)" in text


def test_branches_layers_and_seeds_write_all_documented_files(main, tmp_path, capsys):
    arguments = "--filter-size 4 8 --n-filters 2 3 --n-hidden 6 5 --step-size 4 --snapshots --seed 3 --seeds 2"
    assert main(*arguments.split(), "--output", "out") == 0
    document = strict_json(tmp_path / "out" / "results.json")
    assert document["complete"] and document["seeds"] == [3, 4]
    for result in document["runs"]:
        run = result["run"]
        assert (run["filter_size"], run["n_filters"], run["n_hidden"]) == ([4, 8], [2, 3], [6, 5])
        assert {"accuracy", "ensemble_accuracy"} <= set(result["test"])
        stem = f"{run['name']}-seed{run['seed']}"
        assert cyconv.Network.load(tmp_path / "out" / f"network-{stem}.npz").n_parameters == result["n_parameters"]
        assert (tmp_path / "out" / f"history-{stem}.csv").is_file()
    summary = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    for name in ("curves", "train-validation", "learning-rate", "filters", "confusion"):
        assert f"({name}.png)" in summary and (tmp_path / "out" / f"{name}.png").stat().st_size > 5_000
    labels = [row["label"] for row in document["summary"][0]["rows"]]
    assert len(labels) == 2 and labels[1].endswith("ensemble of 3")
    assert "significant at 5 %" in capsys.readouterr().out  # between the network and its ensemble


def test_resume_may_add_seeds(main, tmp_path, capsys):
    assert main(*TINY, "--output", "out") == 0
    assert "--seeds N trains N of them" in capsys.readouterr().out
    first = strict_json(tmp_path / "out" / "results.json")["runs"]
    assert main(*TINY, "--output", "out", "--seeds", "2", "--resume") == 0
    assert strict_json(tmp_path / "out" / "results.json")["runs"][:1] == first
    assert "differ only in their seed" in capsys.readouterr().out


def test_diverged_runs_are_not_called_one_run(main, capsys):
    main("--seeds", "2", "--eta-min", "1e5", "--eta-max", "1e6", "--flip")
    output = capsys.readouterr().out
    assert "No run has finished." in output and "One run" not in output


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["cosine", "one_cycle", "constant"])
def test_other_schedules(main, tmp_path, mode):
    assert main(*TINY, "--mode", mode, "--warmup", "3", "--output", "out") == 0
    assert strict_json(tmp_path / "out" / "results.json")["runs"][0]["history"]["update_steps"][-1] == 27


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_own_images_of_another_size(main, tmp_path, rng, workers):
    images = rng.integers(0, 256, (100, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "my.npz", images=images, labels=np.arange(100) % 3)
    settings = ["--filter-size", "7", "--n-filters", "2", "--n-hidden", "4", "--step-size", "4", "--batch-size", "10"]
    assert main("--data", "my.npz", *settings, "--workers", workers) == 0
    document = strict_json(tmp_path / "results" / "train" / "results.json")
    assert document["data_set"] == "my.npz" and np.shape(document["runs"][0]["confusion"]) == (3, 3)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--filter-size", "5"], "error: --filter-size must divide the image's height 32 and width 32, but got 5"),
        (["--filter-size", "4", "8"], "error: --n-filters must have as many entries"),
        (["--n-filters", "0"], "error: --n-filters must be an integer in"),
        (["--n-hidden", "3.5"], "--n-hidden: invalid int value: '3.5'"),
        (["--step-size", "0"], "error: --step-size must be an integer in"),
        (["--growth", "1e300"], "error: --step-size, --n-cycles and --growth must give at most 2**53"),
        (["--eta-max", "nan"], "error: --eta-max must be a finite number"),
        (["--eta-min", "1"], "error: --eta-max must be at least"),
        (["--batch-size", "5000"], "error: --batch-size must be an integer in [1, 4000], but got 5000"),
        (["--whitening", "some"], "error: argument --whitening: expected a number or 'none', but got 'some'"),
        (["--whitening", "-1"], "error: --whitening must be a number in"),
        (["--momentum", "2"], "error: --momentum must be a number in [0, 1)"),
        (["--optimizer", "adamw", "--momentum", "0.9"], "error: --momentum must be 0 with the optimizer 'adamw'"),
        (["--weight-decay", "1"], "error: --weight-decay must be 0 unless the optimizer is 'adamw'"),
        (["--gamma", "0.5"], "error: --gamma must be 1 unless mode is 'exp_range'"),
        (["--n-train-evaluated", "many"], "--n-train-evaluated: expected an integer of at least 1, but got 'many'"),
        (["--log-every", "0"], "error: --log-every must be an integer at least 1"),
        (["--seed", "-1"], "error: --seed must be an integer at least 0"),
        (["--seed", "18446744073709551615", "--seeds", "2"], "error: --seed must be an integer in"),
        (["--seeds", "10000000"], "error: --seeds must be an integer in [1, 1000000]"),
        (["--views", "--shift", "32"], "error: --shift must be an integer in [0, 31], but got 32"),
        (["--output", "file/below"], "--output must be a folder that can be written"),
        (["--data", "nowhere.npz"], "there is none at nowhere.npz"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_option(main, assert_mistake, arguments, sentence):
    assert_mistake(main, *arguments, sentence=sentence)
