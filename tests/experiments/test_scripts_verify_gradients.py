"""scripts/verify_gradients.py in miniature, and against a debug file computed as the course does."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

import cyconv


@pytest.fixture
def script(load_script):
    """The script as a module, its quick run quicker still."""
    return load_script("verify_gradients", QUICK={"N_IMAGES": 6, "N_ROUNDS": 1, "N_COORDINATES": 2})


@pytest.fixture
def main(script, run_script):
    """main(*arguments) -> exit code: the script in this process."""
    return functools.partial(run_script, script, "--quick")


def course_numbers(n=5, f=4, nf=2, nh=10, seed=3, filter_bias=0.0):
    """The course's debug_info.npz, computed from the definitions in the course's layouts."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((3072, n))
    Fs = rng.standard_normal((f, f, 3, nf))
    across = 32 // f
    W1, b1 = rng.standard_normal((nh, across**2 * nf)) / 10, rng.standard_normal((nh, 1))
    W2, b2 = rng.standard_normal((10, nh)) / 3, rng.standard_normal((10, 1))
    Y = np.eye(10)[:, rng.integers(0, 10, n)]
    ims = np.transpose(X.reshape((32, 32, 3, n), order="F"), (1, 0, 2, 3))
    MX = np.zeros((across**2, f * f * 3, n))
    conv_outputs = np.zeros((across, across, nf, n))
    for i in range(n):
        for row in range(across):
            for column in range(across):
                patch = ims[row * f : (row + 1) * f, column * f : (column + 1) * f, :, i]
                MX[row * across + column, :, i] = patch.reshape(-1)
                for k in range(nf):
                    conv_outputs[row, column, k, i] = np.sum(patch * Fs[:, :, :, k])
    conv_outputs += np.reshape(filter_bias, (-1, 1))
    conv_flat = np.maximum(conv_outputs, 0).reshape(-1, n)
    X1 = np.maximum(W1 @ conv_flat + b1, 0)
    scores = np.exp(W2 @ X1 + b2)
    P = scores / scores.sum(axis=0)
    G = (P - Y) / n
    G1 = (W2.T @ G) * (X1 > 0)
    GG = ((W1.T @ G1) * (conv_flat > 0)).reshape(across**2, nf, n)
    grad_Fs_flat = sum(MX[:, :, i].T @ GG[:, :, i] for i in range(n))
    return {
        "X": X,
        "Fs": Fs,
        "W1": W1,
        "b1": b1,
        "W2": W2,
        "b2": b2,
        "Y": Y,
        "MX": MX,
        "conv_outputs": conv_outputs,
        "conv_flat": conv_flat,
        "X1": X1[None],
        "P": P,
        "grad_Fs_flat": grad_Fs_flat,
        "grad_W1": G1 @ conv_flat.T,
        "grad_b1": G1.sum(axis=1, keepdims=True),
        "grad_W2": G @ X1.T,
        "grad_b2": G.sum(axis=1, keepdims=True),
    }


@pytest.mark.slow
def test_all_comparisons_agree_and_are_written(script, main, tmp_path, capsys):
    assert main("--output", "out") == 0
    output = capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["data_set"] == "shapes (synthetic)" and document["all_agree"]
    compared = {c["what"] for c in document["comparisons"]}
    assert {"convolution: Cython", "gradients: finite differences", "gradients: NumPy reference"} < compared
    try:
        import torch  # noqa: F401

        assert "gradients: PyTorch" in compared
    except ImportError:
        assert "PyTorch is not installed" in output
    assert len(document["convolution_milliseconds"]) == 8
    assert all(row[name] > 0 for row in document["convolution_milliseconds"] for name in script.CONVOLUTIONS)
    assert f"All {len(document['comparisons'])} comparisons agree" in output
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "shapes (synthetic)" in summary and "WRONG" not in summary


@pytest.mark.parametrize(
    "name", ["MX", "conv_outputs", "conv_flat", "X1", "P", "grad_Fs_flat", "grad_W1", "grad_W2", "grad_b1", "grad_b2"]
)
def test_every_array_of_the_debug_file_is_compared(script, name):
    arrays = course_numbers()
    comparisons = script.compare_debug_file(arrays)
    assert len(comparisons) == 10 and all(c.agrees for c in comparisons)
    arrays[name] = arrays[name].copy()
    arrays[name].flat[np.abs(arrays[name]).argmax()] *= 1.001
    wrong = [c.what for c in script.compare_debug_file(arrays) if not c.agrees]
    assert wrong == [f"debug file: {name}"]


def test_a_debug_file_with_the_filters_bias(script):
    bias = np.array([[0.7], [-1.2]])
    arrays = {**course_numbers(filter_bias=bias), "Fs_b": bias, "of_my_own": np.zeros(3)}
    comparisons = script.compare_debug_file(arrays)
    assert len(comparisons) == 10 and all(c.agrees for c in comparisons)
    with pytest.raises(ValueError, match=r"^bias must have shape \(2,\)"):
        script.compare_debug_file({**arrays, "Fs_b": np.zeros(3)})


def test_a_debug_file_of_the_convolution_alone(script):
    arrays = course_numbers(f=8, nf=3)
    part = {name: arrays[name] for name in ("X", "Fs", "conv_outputs")}
    assert [c.what for c in script.compare_debug_file(part)] == ["debug file: conv_outputs"]
    part["conv_outputs"] = part["conv_outputs"][:, :, :, :3]
    assert script.compare_debug_file(part)[0].error == float("inf")


def test_files_are_checked_one_line_each(main, tmp_path, capsys):
    """Nothing else is done: no data are loaded, and nothing is written."""
    right = course_numbers()
    spoilt = {**right, "P": right["P"][:, :3], "grad_W1": 5 * right["grad_W1"]}
    flat = {**right, "Fs_flat": right["Fs"].reshape(-1, 2), "y": right["Y"].argmax(axis=0)}
    del flat["Fs"], flat["Y"], flat["grad_b1"]
    for name, arrays in {"right": right, "spoilt": spoilt, "flat": flat}.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    before = sorted(tmp_path.iterdir())
    assert main("--data", "nowhere", "--debug-file", "right.npz") == 0
    assert capsys.readouterr().out == (
        "right.npz: right: MX, conv_outputs, conv_flat, X1, P, grad_Fs_flat, grad_W1, grad_b1, grad_W2, grad_b2\n"
    )
    assert main("--debug-file", "spoilt.npz", "right.npz", "flat.npz") == 1
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == (
        "spoilt.npz: wrong: P, grad_W1. Likely reason: not divided by n = 5, the number of images (grad_W1). "
        "Right: MX, conv_outputs, conv_flat, X1, grad_Fs_flat, grad_b1, grad_W2, grad_b2."
    )
    assert second.startswith("right.npz: right: ")
    assert third.startswith("flat.npz: wrong: grad_b1. Likely reason: missing (grad_b1). Right: ")
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_cannot_be_read_does_not_stop_the_others(main, tmp_path, capsys):
    np.savez(tmp_path / "right.npz", **course_numbers())
    np.savez(tmp_path / "short.npz", X=np.zeros((3071, 1)), Fs=np.zeros((4, 4, 3, 1)))
    assert main("--debug-file", "missing.npz", "short.npz", "right.npz") == 2
    output = capsys.readouterr()
    assert output.out.startswith("right.npz: right: ")
    missing, short = output.err.splitlines()
    assert "there is no file missing.npz" in missing
    assert "columns must have shape (3072, n)" in short and short.endswith("(short.npz)")


def test_a_pattern_stands_for_the_files_that_it_matches(main, tmp_path, capsys):
    """As where the shell does not expand it."""
    (tmp_path / "students").mkdir()
    for name in ("b", "a", "[c]"):
        np.savez(tmp_path / "students" / f"{name}.npz", **course_numbers())
    assert main("--debug-file", "students/*.npz", "students/[c].npz") == 0
    names = [line.partition(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert [Path(name).stem for name in names] == ["[c]", "a", "b", "[c]"]
    assert main("--debug-file", "nobody/*.npz") == 2
    assert "there is no file nobody" in capsys.readouterr().err


def test_penalty_and_smoothing_are_those_of_the_file(main, tmp_path, capsys):
    arrays, l2, eps = course_numbers(), 0.01, 0.1
    network = cyconv.Network(4, 2, 10, dtype="float64")
    network.set_parameters(cyconv.course_layout.parameters_from_course(arrays))
    images, labels = cyconv.course_layout.images_from_columns(arrays["X"]), arrays["Y"].argmax(axis=0)
    cost, gradients = network.loss_and_gradients(images, labels, l2, eps)
    arrays |= {**cyconv.course_layout.gradients_to_course(gradients), "cost": cost}
    arrays["loss"] = network.loss_and_gradients(images, labels, label_smoothing=eps)[0]
    np.savez(tmp_path / "file.npz", **{name: np.float32(array) for name, array in arrays.items()})
    options = ("--debug-file", "file.npz", "--l2", "0.01", "--label-smoothing")
    assert main(*options, "0.1") == 0
    assert ", loss, cost, grad_Fs_flat, " in capsys.readouterr().out
    assert main(*options, "0") == 1
    assert "wrong: loss, cost, grad_Fs_flat" in capsys.readouterr().out
    assert main("--debug-file", "file.npz", "--label-smoothing", "0.1") == 1
    assert main(*options, "1.5") == 2
    assert "--label-smoothing must be a number in [0, 1), but got 1.5" in capsys.readouterr().err


def test_a_wrong_gradient_is_noticed(script, monkeypatch):
    right = cyconv.Network.loss_and_gradients

    def wrong(self, *arguments, **options):
        cost, gradients = right(self, *arguments, **options)
        gradients["conv.bias" if "conv.bias" in gradients else "conv.0.bias"] *= 1.01
        return cost, gradients

    monkeypatch.setattr(cyconv.Network, "loss_and_gradients", wrong)
    monkeypatch.setattr(script, "NETWORKS", {"one": script.NETWORKS["2: f=4, nf=10"]})
    rng = np.random.default_rng(0)
    comparisons = script.compare_gradients(rng.standard_normal((6, 3, 32, 32)), rng.integers(0, 10, 6), 10)
    assert not any(c.agrees for c in comparisons)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--debug-file", "missing.npz"], "there is no file missing.npz"),
        (["--debug-file", "text.npz"], "text.npz is not one or is damaged"),
        (["--debug-file", "empty.npz"], "must hold at least X and Fs, but it lacks X and Fs"),
        (["--debug-file", "inputs.npz"], "must hold results to compare with"),
        (["--debug-file", "short.npz"], "columns must have shape (3072, n)"),
        (["--output", "text.npz"], "--output must be a folder that can be written"),
        (["--data", "nowhere"], "nowhere"),
        (["--l2", "0.1"], "--l2 must be given with --debug-file"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(main, tmp_path, capsys, arguments, sentence):
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "empty.npz", nothing=np.zeros(1))
    np.savez(tmp_path / "inputs.npz", X=np.zeros((3072, 1)), Fs=np.zeros((4, 4, 3, 1)))
    np.savez(tmp_path / "short.npz", X=np.zeros((3071, 1)), Fs=np.zeros((4, 4, 3, 1)))
    before = sorted(tmp_path.iterdir())
    assert main(*arguments) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and sentence in errors[0]
    assert sorted(tmp_path.iterdir()) == before
