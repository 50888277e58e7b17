"""Numbers hard to get right in single precision: pixels that hardly vary, probabilities near one, many classes."""

import json

import numpy as np
import pytest
from builds import INSTRUCTION_SETS, run_program

import cyconv
from cyconv.backend import ops

WIDTHS = (1, 2, 4, 8, 16, 32)


def images_of(case):
    """1,000 images of random pixels, some of which hardly vary, and their normaliser."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1000, 3, 32, 32), dtype=np.uint8)
    if case == "white border":  # one pixel value off in one image of many
        images[:, :, :2], images[0, :, :2] = 254, 255
    elif case == "dead pixels":
        images[:, :, ::4, ::4], images[0, :, ::4, ::4] = 0, 1
    elif case == "bright pixels":
        images[:, :, 1::4, 1::4] = 250 + (rng.random((1000, 3, 8, 8)) < 0.01)
    fit = cyconv.Normalizer.fit(images)
    if case.startswith("constant"):
        mean, std = fit.mean.copy(), fit.std.copy()
        images[:, :, ::4, ::4], mean[:, ::4, ::4], std[:, ::4, ::4] = 7, 7, float(case.partition(" ")[2])
        fit = cyconv.Normalizer(mean, std)
    return images, fit


CASES = ["white border", "dead pixels", "bright pixels", "constant 1e-2", "constant 1e-6"]


def errors():
    """The largest error of a log-probability in each case, for each filter size, of pixels and normalised images."""
    found = {}
    for case in CASES:
        images, normalizer = images_of(case)
        normalized = (images - normalizer.mean) / normalizer.std
        for f in WIDTHS:
            network = cyconv.Network(filter_size=f, n_filters=7, n_hidden=20, seed=0)
            network.normalizer = normalizer
            twin = cyconv.Network(**{**network.architecture, "dtype": "float64"})
            twin.set_parameters(network.parameters)
            expected = np.log(twin.predict_proba(normalized[:100]))
            for what, X in (("pixels", images), ("floats", normalizer(images))):
                actual = np.log(np.maximum(network.predict_proba(X[:100]).astype(float), 1e-30))
                close = expected > -60  # smaller ones underflow and do not depend on the inputs
                found[f"{case}, f={f}, {what}"] = float(np.abs(actual - expected)[close].max())
    return found


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_pixels_that_hardly_vary(instruction_set):
    found = run_program(__file__, CYCONV_ISA=instruction_set)
    assert len(found) == 2 * len(CASES) * len(WIDTHS)
    assert {case: error for case, error in found.items() if not error < 1e-4} == {}


def test_training_on_pixels_that_hardly_vary():
    """A step on pixels agrees with one on images normalised in double precision."""
    images, normalizer = images_of("bright pixels")
    labels = np.arange(1000) % 10
    found = []
    normalised = (images - normalizer.mean) / normalizer.std
    for dtype, X, given in (("float32", images, normalizer), ("float64", normalised, None)):
        network = cyconv.Network(filter_size=4, n_filters=7, n_hidden=20, seed=0, dtype=dtype)
        found.append(network.train_steps(network.prepare(X, labels, given), np.arange(200), [1e-3, 1e-3]))
    np.testing.assert_allclose(found[0], found[1], rtol=2e-6)


@pytest.mark.parametrize("dtype, gap", [("float32", 17.0), ("float32", 40.0), ("float64", 17.0), ("float64", 50.0)])
@pytest.mark.parametrize("best", [0, 4, 9])
def test_loss_of_a_probability_near_one(dtype, gap, best):
    logits = np.zeros((1, 10), dtype)
    logits[0, best] = gap
    _, losses = ops.softmax_cross_entropy_forward(logits, [best])
    np.testing.assert_allclose(losses, np.log1p(9 * np.exp(-gap)), rtol=1e-5)


def test_probabilities_of_many_classes_sum_to_one():
    n = 2**20
    logits = np.full((1, n), -17.0, np.float32)
    logits[0, 0] = 0
    probabilities, losses = ops.softmax_cross_entropy_forward(logits, [0])
    np.testing.assert_allclose(losses, np.log1p((n - 1) * np.exp(-17)), rtol=1e-5)
    np.testing.assert_allclose(probabilities.sum(dtype=float), 1, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 5])
def test_nonfinite_logits_give_nan_losses(value, place, dtype):
    logits = np.zeros((1, 10), dtype)
    logits[0, place] = value
    _, losses = ops.softmax_cross_entropy_forward(logits, [3])
    assert np.isnan(losses[0])


if __name__ == "__main__":
    print(json.dumps(errors()))
