"""scripts/compare_pytorch.py in miniature: its measurements, files, conclusions and refusals."""

import csv
import os
import signal

import numpy as np
import pytest
from strict import strict_json

import cyconv

MINIATURE = {"filter_sizes": [8], "filters": [2, 3], "rounds": 2, "seconds": 0.001, "n_images": 200, "step_size": 2}


@pytest.fixture
def script(load_script, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(os.path.dirname(cyconv.__file__)))
    return load_script("compare_pytorch", QUICK=MINIATURE)


def fake_step(filter_size=8, n_filters=3, ours=(10.0, 11.0), autograd=(30.0, 33.0), manual=(20.0, 22.0)):
    return {
        "filter_size": filter_size,
        "n_filters": n_filters,
        "n_hidden": 50,
        "n_parameters": 9,
        "checked": {},
        "microseconds": {"cyconv": list(ours), "torch": list(autograd), "torch-manual": list(manual)},
    }


def fake_run(accuracies=((0.5, 0.6), (0.5, 0.6), (0.5, 0.6))):
    names = ("cyconv", "torch", "torch-manual")
    return {
        "label": "3: f=8, nf=40",
        "filter_size": 8,
        "n_filters": 40,
        "n_updates": 12,
        "variants": {},
        "seconds": {name: [1.0 + i, 2.0] for i, name in enumerate(names)},
        "layout_seconds": {name: [0.1, 0.2] for name in names},
        "test_accuracy": dict(zip(names, map(list, accuracies))),
    }


@pytest.mark.slow
@pytest.mark.optional
def test_all_documented_files_are_written(script, run_script, tmp_path, capsys):
    pytest.importorskip("torch")
    assert run_script(script, "--quick", "--seeds", "2") == 0
    output = capsys.readouterr().out
    lines = output.strip().splitlines()
    assert "shapes (synthetic)" in lines[0] and "shapes (synthetic)" in lines[-1]
    folder = tmp_path / "results" / "compare_pytorch"
    assert {path.name for path in folder.iterdir()} == {
        "configuration.json",
        "results.json",
        "summary.md",
        "report.html",
        "steps.csv",
        "steps.png",
        "runs.csv",
        "runs.png",
    }

    document = strict_json(folder / "results.json")
    assert document["complete"] and document["versions"]["torch"]
    assert document["data_set"] == "shapes (synthetic)"
    assert [(step["filter_size"], step["n_filters"]) for step in document["steps"]] == [(8, 2), (8, 3)]
    for step in document["steps"]:
        assert list(step["microseconds"]) == ["cyconv", "torch", "torch-manual"]
        for name, values in step["microseconds"].items():
            assert len(values) == 2 and min(values) > 0
            assert 0 < step["checked"][name]["error"] < 5e-4
    assert [run["label"] for run in document["runs"]] == ["3: f=8, nf=40"]
    for run in document["runs"]:
        assert run["n_updates"] == 12
        accuracies = [accuracy["each"] for accuracy in run["test_accuracy"].values()]
        # Of 200 images, after the same batches.
        np.testing.assert_allclose(accuracies[1:], 2 * [accuracies[0]], atol=0.011)

    with open(folder / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 2 and {row["data_set"] for row in rows} == {"shapes (synthetic)"}
    assert [float(row["microseconds"]) for row in rows[:2]] == document["steps"][0]["microseconds"]["cyconv"]
    with open(folder / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 and [row["seed"] for row in rows[:2]] == ["0", "1"]
    accuracies = document["runs"][0]["test_accuracy"]["cyconv"]["each"]
    assert [float(row["test_accuracy"]) for row in rows[:2]] == accuracies

    summary = (folder / "summary.md").read_text()
    assert summary.startswith("# cyconv and PyTorch, training time: shapes (synthetic)\n")
    assert len(document["conclusions"]) == 3
    assert all(sentence in summary and sentence in output for sentence in document["conclusions"])
    for name in ("steps.png", "runs.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG") and f"({name})" in summary


def test_the_conclusion_agrees_with_the_numbers(script):
    steps = [fake_step(), fake_step(16, ours=(20.0, 20.0), autograd=(10.0, 10.0), manual=(30.0, 30.0))]
    said = script.conclude("An update", [step["microseconds"] for step in steps])
    assert said == (
        "An update takes 0.50 to 3.00 times as long with PyTorch conv2d + autograd as with cyconv, "
        "and 0.50 to 2.00 times as long with the faster of the two PyTorch implementations. Which is "
        "faster is the same in every round."
    )
    close = fake_step(manual=(9.0, 12.0))["microseconds"]
    assert script.conclude("An update", [close]).endswith(
        "Which is faster differs from round to round for 1 of 1 networks with the faster of the two PyTorch "
        "implementations."
    )
    alone = {name: values[:1] for name, values in close.items()}
    assert "With one measurement each" in script.conclude("An update", [alone])


def test_differing_accuracies_are_reported(script):
    said = script.conclude_accuracies([fake_run()])
    assert said == "No difference in test accuracy is significant at 5 % (paired t test, corrected for 3 comparisons)."
    apart = fake_run(((0.50, 0.51, 0.53), (0.50, 0.52, 0.52), (0.900, 0.910, 0.931))) | {"label": "4"}
    said = script.conclude_accuracies([fake_run(), apart])
    assert "corrected for 6 comparisons" in said and "4, PyTorch, manual backward and 4, cyconv (40.03 points)" in said
    assert "conv2d + autograd and 4, cyconv" not in said
    assert "Where a row has one run" in script.conclude_accuracies([fake_run(((0.5,), (0.6,), (0.7,)))])


@pytest.mark.optional
@pytest.mark.parametrize("name", ["cyconv", "torch", "torch-manual"])
def test_a_whole_run_trains_with_the_given_rates(load_script, name, monkeypatch):
    """Compared with the reference in float64, step by step, beyond the end of an epoch."""
    load_script("compare_pytorch")
    import peers
    from peers.case import Case
    from peers.whole_run import train

    pytest.importorskip(peers.PEERS[name].requires)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = cyconv.make_shapes(n_train=70, n_validation=10, n_test=300, seed=0)
    case = Case(8, 3, (7,), batch_size=20, dtype="float64")
    rates = np.linspace(0.01, 0.2, 20)
    peer_class = peers.load(name)
    found = train(peer_class, case, peer_class.VARIANTS[0], data, rates, seed=5)

    normalizer = cyconv.Normalizer.fit(data.train.images)
    X, generator = normalizer(data.train.images).astype(np.float64), np.random.default_rng(5)
    parameters = {key: array.astype(np.float64) for key, array in case.starting_parameters(5).items()}
    for step, rate in enumerate(rates):
        if step % 3 == 0:
            order = generator.permutation(70)
        batch = order[step % 3 * 20 :][:20]
        labels = data.train.labels[batch]
        gradients = cyconv.reference.loss_and_gradients(parameters, X[batch], labels, 0.003)[1]
        parameters = {key: array - rate * gradients[key] for key, array in parameters.items()}
    expected = cyconv.reference.forward(parameters, normalizer(data.test.images).astype(np.float64))
    accuracy = np.mean(expected["probabilities"].argmax(axis=1) == data.test.labels)
    assert found["accuracy"] == pytest.approx(accuracy, abs=1e-9)
    other = train(peer_class, case, peer_class.VARIANTS[0], data, rates, seed=6)
    assert found["accuracy"] != other["accuracy"]
    assert found["layout"] > 0 and found["updates"] > 0


def test_an_interrupted_comparison_writes_what_was_measured(script, run_script, tmp_path, monkeypatch, capsys):
    def measured(workers, source, configuration, found):
        found.append(fake_step())
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(script, "Worker", lambda name, threads: script.ExitStack())
    monkeypatch.setattr(script.peers, "installed", lambda: ["torch"])
    monkeypatch.setattr(script.peers, "versions", lambda names: {"torch": "2"})
    monkeypatch.setattr(script, "measure_steps", measured)
    assert run_script(script, "--quick", "--output", "out") == 128 + signal.SIGINT
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("Incomplete results on shapes (synthetic)")
    document = strict_json(tmp_path / "out" / "results.json")
    assert not document["complete"] and len(document["steps"]) == 1 and document["runs"] == []
    assert "Incomplete" in (tmp_path / "out" / "summary.md").read_text()
    assert run_script(script, "--quick", "--output", "out") == 2
    assert "configuration: give --overwrite to replace them" in capsys.readouterr().err


def test_a_peer_that_fails_is_one_sentence_and_exit_code_1(script, run_script, monkeypatch, capsys):
    monkeypatch.setattr(script, "LABELS", {"cyconv": "cyconv"})
    monkeypatch.setattr(script.peers, "installed", lambda: ["torch"])
    monkeypatch.setitem(MINIATURE, "n_images", 50)  # less than a batch
    assert run_script(script, "--quick") == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert "error: cyconv on 1 thread(s), " in errors[-1] and "Traceback" not in "\n".join(errors)


def test_without_pytorch_it_exits_with_2_and_a_sentence(script, run_script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script.peers.importlib.util, "find_spec", lambda name: None)
    assert run_script(script, "--quick") == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and "PyTorch must be installed" in errors[0] and "pip install torch" in errors[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--filter-sizes", "3"], "invalid choice"),
        (["--filters", "0"], "expected an integer of at least 1"),
        (["--rounds", "-1"], "expected an integer of at least 1"),
        (["--seeds", "0"], "expected an integer of at least 1"),
        (["--data", "nowhere"], "nowhere"),
        (["--resume"], "unrecognized arguments"),
        (["--output", "file"], "--output must be a folder that can be written"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    script, run_script, assert_mistake, monkeypatch, arguments, sentence
):
    monkeypatch.setattr(script.peers, "installed", lambda: ["torch"])
    assert_mistake(run_script, script, "--quick", *arguments, sentence=sentence)
