"""compare_gradients: a student's NumPy code, right and with each of the usual mistakes."""

import numpy as np
import pytest

import cyconv
from cyconv import course_layout

L2, EPS = 0.03, 0.1


def example(n=7, f=8, nf=3, nh=10, seed=0, filter_bias=True):
    """Images as columns, one-hot labels and parameters in the course's layouts; nh = K, so that W2 is square."""
    rng = np.random.default_rng(seed)
    parameters = {
        "Fs": rng.standard_normal((f, f, 3, nf)) / f,
        "W1": rng.standard_normal((nh, (32 // f) ** 2 * nf)) / 4,
        "b1": rng.standard_normal((nh, 1)) / 4,
        "W2": rng.standard_normal((10, nh)) / 2,
        "b2": rng.standard_normal((10, 1)),
    }
    if filter_bias:
        parameters["Fs_b"] = rng.standard_normal((nf, 1))
    return rng.standard_normal((3072, n)), np.eye(10)[:, rng.integers(0, 10, n)], parameters


def student(X, Y, parameters, l2=0.0, eps=0.0, mistake=""):
    """Gradients as a student might write them down from the assignment, with one mistake."""
    Fs, W1, b1, W2, b2 = (parameters[name] for name in ("Fs", "W1", "b1", "W2", "b2"))
    Fs_b = parameters.get("Fs_b", np.zeros((Fs.shape[-1], 1)))
    f, nf, n, K = Fs.shape[0], Fs.shape[-1], X.shape[1], len(Y)
    across = 32 // f
    images = X.reshape((32, 32, 3, n), order="F")
    if mistake != "images":
        images = images.transpose(1, 0, 2, 3)
    MX = np.zeros((across * across, f * f * 3, n))
    for i in range(n):
        for row in range(across):
            for column in range(across):
                patch = images[row * f : (row + 1) * f, column * f : (column + 1) * f, :, i]
                MX[row * across + column, :, i] = patch.flatten(order="F" if mistake == "patch order" else "C")
    outputs = np.einsum("ijn,jl->iln", MX, Fs.reshape(-1, nf))
    if mistake != "no Fs_b":
        outputs = outputs + Fs_b.reshape(1, -1, 1)
    order = "F" if mistake == "flattening" else "C"
    h = np.maximum(outputs.reshape((across * across * nf, n), order=order), 0)
    X1 = np.maximum(W1 @ h + (0 if mistake == "no b1" else b1), 0)
    P = np.exp(W2 @ X1 + b2)
    P /= P.sum(axis=0)
    targets = {
        "ε/K": (1 - eps) * Y + eps / K,
        "no smoothing": Y,
        "ε for all": (1 - eps) * Y + eps / (K - 1),
    }.get(mistake, (1 - eps) * Y + eps / (K - 1) * (1 - Y))
    G = (P - targets) / (1 if mistake == "no 1/n" else n)
    G = -G if mistake == "sign" else G
    penalty = {"no λ": 0, "λ": l2, "λ/n": 2 * l2 / n}.get(mistake, 2 * l2)
    gradients = {"W2": G @ X1.T + penalty * W2, "b2": G.sum(axis=1, keepdims=True)}
    G1 = (W2 if mistake == "W2 transposed" else W2.T) @ G
    if mistake != "no hidden mask":
        G1 = G1 * (X1 > 0)
    gradients |= {"W1": G1 @ h.T + penalty * W1, "b1": G1.sum(axis=1, keepdims=True)}
    Gh = W1.T @ G1
    if mistake != "no conv mask":
        Gh = Gh * (h > 0)
    Gh = Gh.reshape((across * across, nf, n), order="F" if mistake in ("flattening", "reshape of Gh") else "C")
    gradients["Fs_flat"] = np.einsum("jin,nil->jl", MX.transpose(1, 0, 2), Gh.transpose(2, 0, 1))
    gradients["Fs_flat"] += penalty * Fs.reshape(-1, nf)
    gradients["Fs_b"] = Gh.sum(axis=(0, 2))[:, None]
    if mistake == "bias not averaged":
        gradients["b2"] = n * gradients["b2"]
    if mistake == "zero bias":
        gradients["b1"] = 0 * gradients["b1"]
    if mistake == "bias per image":
        gradients["b2"] = G
    if mistake == "penalised bias":
        gradients["b1"] = gradients["b1"] + 2 * l2 * b1
    if mistake == "transpose":
        gradients["W1"] = gradients["W1"].T
    if mistake == "square transpose":
        gradients["W2"] = gradients["W2"].T
    if mistake == "columns":
        by_patch = gradients["W1"].reshape(len(W1), -1, nf)
        gradients["W1"] = by_patch.transpose(0, 2, 1).reshape(W1.shape)
    if mistake == "rows":
        gradients["Fs_flat"] = gradients["Fs_flat"].reshape(f, f, 3, nf).transpose(2, 0, 1, 3).reshape(-1, nf)
    if mistake == "over patches":
        gradients["Fs_flat"] = (gradients["Fs_flat"] - 2 * l2 * Fs.reshape(-1, nf)) / across**2
        gradients["Fs_flat"] += 2 * l2 * Fs.reshape(-1, nf)
    if mistake == "twice":
        gradients["W2"] = 2 * gradients["W2"] - 2 * l2 * W2
    if "Fs_b" not in parameters:
        del gradients["Fs_b"]
    return {f"grad_{name}": array for name, array in gradients.items()}


def compare(mistake, **options):
    X, Y, parameters = example(**options)
    gradients = student(X, Y, parameters, L2, EPS, mistake)
    return course_layout.compare_gradients(gradients, X, Y, parameters, l2=L2, label_smoothing=EPS)


@pytest.mark.parametrize("sizes", [{}, {"filter_bias": False}, {"n": 1}, {"f": 2, "nf": 2}, {"f": 32, "nh": 6}])
def test_right_gradients_are_right(sizes):
    check = compare("", **sizes)
    assert check and check.wrong_layer is None and check.reason == "" and check.wrong == ()
    assert all(error < 1e-12 for error in check.errors.values())
    assert ("grad_Fs_b" in check.errors) == sizes.get("filter_bias", True)
    assert str(check).endswith("\nAll gradients are right.")


@pytest.mark.parametrize(
    "mistake, layer, n_wrong, reason",
    [
        ("no 1/n", "output", 6, "reason: not divided by n = 7, the number of images."),
        ("bias not averaged", "output", 1, "not divided by n = 7, the number of images (grad_b2)."),
        ("sign", "output", 6, "reason: the wrong sign."),
        ("no λ", "output", 3, "no gradient of the penalty, 2λW (grad_W2, grad_W1, grad_Fs_flat)."),
        ("λ", "output", 3, "λW instead of 2λW as the gradient of the penalty (grad_W2, grad_W1, grad_Fs_flat)."),
        ("λ/n", "output", 3, "the gradient of the penalty, 2λW, is divided by n = 7 as well (grad_W2, grad_W1"),
        ("penalised bias", "hidden", 1, "a penalty, which biases do not have (grad_b1)."),
        ("zero bias", "hidden", 1, "zero everywhere (grad_b1)."),
        ("bias per image", "output", 1, "not summed over the images (grad_b2)."),
        ("transpose", "hidden", 1, "transposed (grad_W1)."),
        ("square transpose", "output", 1, "transposed (grad_W2)."),
        ("twice", "output", 1, "2 times the right gradient of the loss (grad_W2)."),
        (
            "columns",
            "hidden",
            1,
            "columns in the order (filter, row, column) instead of (row, column, filter) (grad_W1).",
        ),
        ("rows", "convolution", 1, "rows in the order (channel, row, column) instead of (row, column, channel)"),
        ("over patches", "convolution", 1, "averaged, not summed, over the 16 patches of an image (grad_Fs_flat)."),
        ("no hidden mask", "hidden", 4, "the ReLU's mask X1 > 0 is not applied."),
        ("no conv mask", "convolution", 2, "the ReLU's mask h > 0 is not applied."),
        ("W2 transposed", "hidden", 4, "W2 is used instead of its transpose."),
        ("reshape of Gh", "convolution", 2, "W1ᵀ G1 is reshaped in the order (filter, row, column) instead of"),
        ("flattening", "output", 6, "the convolution's output is flattened in the order (filter, row, column) instead"),
        ("patch order", "output", 6, "patches are flattened in the order (channel, column, row) instead of"),
        ("images", "output", 6, "rows and columns of the images are exchanged."),
        ("ε/K", "output", 6, "label smoothing gives the other classes ε/K instead of ε/(K−1)."),
        ("no smoothing", "output", 6, "the labels are not smoothed."),
        ("ε for all", "output", 6, "label smoothing adds ε/(K−1) to the true class as well."),
        ("no b1", "output", 6, "the forward pass leaves out b1."),
        ("no Fs_b", "output", 6, "the forward pass leaves out Fs_b."),
    ],
)
def test_a_usual_mistake_is_named(mistake, layer, n_wrong, reason):
    check = compare(mistake)
    assert not check
    assert check.wrong_layer == layer and len(check.wrong) == n_wrong, check
    assert reason in check.reason
    assert check.reason.startswith("Likely reason: ") and check.reason.count(";") == 0
    assert check.reason in str(check) and "wrong" in check._repr_html_()


@pytest.mark.parametrize("n, reason", [(7, "not divided by n = 7, the number of images"), (1, "")])
def test_a_mistake_is_named_without_a_penalty(n, reason):
    X, Y, parameters = example(n)
    check = course_layout.compare_gradients(student(X, Y, parameters, mistake="bias not averaged"), X, Y, parameters)
    assert check.reason == (f"Likely reason: {reason} (grad_b2)." if reason else "")


def test_two_mistakes_are_both_named():
    X, Y, parameters = example()
    gradients = student(X, Y, parameters, L2, EPS, "no hidden mask")
    gradients["grad_W2"] = 7 * (gradients["grad_W2"] - 2 * L2 * parameters["W2"])
    check = course_layout.compare_gradients(gradients, X, Y, parameters, l2=L2, label_smoothing=EPS)
    assert check.wrong_layer == "output" and "mask X1 > 0" in check.reason
    assert "not divided by n = 7, the number of images (grad_W2)" in check.reason
    assert "no gradient of the penalty, 2λW (grad_W2)" in check.reason


def test_two_shared_mistakes_are_both_named():
    X, Y, parameters = example()
    hard = student(X, Y, parameters, L2, 0.0, "no conv mask")
    check = course_layout.compare_gradients(hard, X, Y, parameters, l2=L2, label_smoothing=EPS)
    assert "h > 0 is not applied; the labels are not smoothed." in check.reason


def test_another_mistake_is_located():
    X, Y, parameters = example()
    gradients = student(X, Y, parameters)
    gradients["grad_W1"][3, 5] += 0.125
    check = course_layout.compare_gradients(gradients, X, Y, parameters)
    assert check.wrong == ("grad_W1",) and check.wrong_layer == "hidden"
    assert check.reason.startswith("No usual mistake gives grad_W1: it differs most at [3, 5], ")


def test_missing_and_misshapen_gradients_are_wrong():
    X, Y, parameters = example()
    gradients = student(X, Y, parameters)
    del gradients["grad_b2"]
    gradients["grad_b1"] = None
    gradients["grad_Fs_flat"] = gradients["grad_Fs_flat"][:-1]
    gradients["grad_W2"][0, 0] = np.nan
    check = course_layout.compare_gradients(gradients, X, Y, parameters)
    assert check.wrong == ("grad_W2", "grad_b2", "grad_b1", "grad_Fs_flat")
    assert "numbers that are not finite (grad_W2); missing (grad_b2, grad_b1)." in check.reason
    assert "grad_Fs_flat: it has shape (191, 3) instead of (192, 3)." in check.reason
    assert "inf" not in str(check)


def test_names_and_forms_are_the_students_choice():
    """With and without grad_, Fs or Fs_flat, biases as vectors, labels as classes, and in single precision."""
    X, Y, parameters = example()
    gradients = student(X, Y, parameters, L2)
    plain = {name.removeprefix("grad_"): array.astype(np.float32) for name, array in gradients.items()}
    plain["Fs"] = plain.pop("Fs_flat").reshape(8, 8, 3, 3)
    plain["b1"] = plain["b1"].ravel()
    given = {**parameters, "Fs_flat": parameters["Fs"].reshape(-1, 3), "b2": parameters["b2"].ravel()}
    del given["Fs"]
    assert course_layout.compare_gradients(plain, X, Y.argmax(axis=0), given, l2=L2)
    assert not course_layout.compare_gradients(plain, X, Y, given, l2=L2, tolerance=1e-12)


def test_probabilities_and_other_images_are_accepted(rng):
    parameters = course_layout.parameters_to_course(
        cyconv.Network(2, 3, 5, dtype="float64", image_shape=(1, 4, 6), n_classes=4).parameters
    )
    X, Y = rng.standard_normal((24, 3)), rng.dirichlet(np.ones(4), 3).T
    network = cyconv.Network(2, 3, 5, dtype="float64", image_shape=(1, 4, 6), n_classes=4)
    _, gradients = network.loss_and_gradients(course_layout.images_from_columns(X, (1, 4, 6)), Y.T)
    gradients = course_layout.gradients_to_course(gradients)
    assert course_layout.compare_gradients(gradients, X, Y, parameters, image_shape=(1, 4, 6))


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"student": [1]}, "student must be a mapping of gradients, but got"),
        ({"student": {}}, "student must hold the gradients W2, .*, but it holds none of them"),
        ({"student": {"grad_w1": np.zeros(1)}}, "student must hold the gradients grad_W2, .*, but got 'grad_w1'"),
        ({"student": {"W1": ["a"]}}, r"student\['W1'\] must be an array of numbers"),
        ({"X": np.zeros((3071, 7))}, r"X must have shape \(3072, n\)"),
        ({"X": np.zeros((3072, 0))}, "X must hold at least one image"),
        ({"X": np.full((3072, 7), np.nan)}, "X must hold finite numbers"),
        ({"Y": np.zeros((9, 7))}, r"Y must have shape \(10, 7\)"),
        ({"Y": np.zeros((10, 7))}, "Y must be probabilities that sum to 1"),
        ({"Y": [10] * 7}, r"Y must lie in 0\.\.9"),
        ({"l2": -1.0}, "l2 must be"),
        ({"label_smoothing": 1.0}, "label_smoothing must be"),
        ({"tolerance": -1.0}, "tolerance must be"),
        ({"parameters": {"Fs": np.zeros((8, 8, 3, 1))}}, "arrays must hold Fs, .* but got no W1"),
        ({"image_shape": (3, 32)}, "image_shape must be"),
    ],
)
def test_a_mistake_in_an_argument_is_one_sentence(changes, sentence):
    X, Y, parameters = example()
    arguments = {"student": student(X, Y, parameters), "X": X, "Y": Y, "parameters": parameters, **changes}
    with pytest.raises((KeyError, TypeError, ValueError), match=sentence):
        course_layout.compare_gradients(**arguments)


def test_gradients_that_overflow_are_one_sentence():
    X, Y, parameters = example()
    with pytest.raises(ValueError, match="^parameters must have finite gradients at X, but that of W2 is not finite"):
        course_layout.compare_gradients({"W1": 0.0}, X, Y, {**parameters, "W2": 1e300 * parameters["W2"]}, l2=1e10)


def test_w1_of_another_filter_size_is_one_sentence():
    X, Y, parameters = example()
    with pytest.raises(ValueError, match=r"^W1 must have shape \(10, 48\), but got"):
        course_layout.compare_gradients({"W1": 0.0}, X, Y, {**parameters, "W1": np.zeros((10, 51))})
