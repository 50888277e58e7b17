"""Products that skip zeros: the way back through dense layers, and evaluation of layers with many units."""

import json

import numpy as np
import pytest
from builds import INSTRUCTION_SETS, run_program

import cyconv
from cyconv import reference
from cyconv.backend import ops

TOLERANCE = {"float32": 5e-6, "float64": 1e-14}
UNITS = [1, 10, 15, 16, 17, 50, 63, 64, 65, 130, 200]
IMAGES = [1, 2, 9, 10, 11, 50, 51, 52, 64, 65, 103]
INPUTS = [1, 16, 79, 80, 81, 95, 112, 128, 144, 159, 160, 161, 320, 500]
WIDE = [
    {"filter_size": 8, "n_filters": 5, "n_hidden": 128},
    {"filter_size": 2, "n_filters": 2, "n_hidden": (33, 64, 70), "n_classes": 64},
    {"filter_size": 4, "n_filters": 3, "n_hidden": (150, 9)},
    {"filter_size": (16, 4), "n_filters": (17, 2), "n_hidden": (20, 177, 129)},
    {"filter_size": 16, "n_filters": 3, "n_hidden": 8, "n_classes": 140},
]


def sparse(rng, shape, density, dtype):
    """Normal numbers of which only some are left, and rows and columns of zeros."""
    array = rng.standard_normal(shape) * (rng.random(shape) < density)
    array[rng.integers(shape[0])] = 0
    array[:, rng.integers(shape[1])] = 0
    return array.astype(dtype)


def error_of(actual, expected):
    return float(np.abs(actual - expected).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-30))


def wrong_gradients(rng):
    """Sizes and densities whose gradients are not the twin's."""
    wrong = []
    for dtype, tolerance in TOLERANCE.items():
        for trial in range(60):
            n, units, inputs = (int(rng.choice(sizes)) for sizes in (IMAGES, UNITS, INPUTS))
            density = (0.0, 0.1, 0.5, 1.0)[trial % 4]
            arguments = (
                sparse(rng, (n, units), density, dtype),
                rng.standard_normal((n, inputs)).astype(dtype),
                rng.standard_normal((units, inputs)).astype(dtype),
            )
            errors = [error_of(*pair) for pair in zip(*(m.dense_backward(*arguments) for m in (ops, reference)))]
            if not max(errors) <= tolerance:
                wrong.append([dtype, n, units, inputs, density, max(errors)])
    return wrong


def wrong_evaluations(rng):
    """Networks with a wide layer whose predictions are not the twin's."""
    wrong = []
    pixels = rng.integers(0, 256, (97, 3, 32, 32), dtype=np.uint8)
    for dtype, tolerance in {"float32": 4e-6, "float64": 1e-13}.items():
        for settings in WIDE:
            network = make_network(settings, pixels, dtype)
            parameters = {name: values.astype(float) for name, values in network.parameters.items()}
            values = pixels * network.normalizer.scale + network.normalizer.offset
            expected = reference.forward(parameters, values)["probabilities"]
            errors = [error_of(network.predict_proba(pixels[:n]), expected[:n]) for n in (97, 1, 40)]
            if not max(errors) <= tolerance:
                wrong.append([dtype, settings, max(errors)])
    return wrong


def make_network(settings, pixels, dtype="float32"):
    network = cyconv.Network(**settings, dtype=dtype)
    network.normalizer = cyconv.Normalizer.fit(pixels)
    return network


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_gradients_and_evaluations_are_the_twins(instruction_set):
    assert run_program(__file__, CYCONV_ISA=instruction_set) == []


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (67, 3, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("settings", WIDE)
def test_an_images_bits_depend_on_no_other_image(settings, pixels, dtype):
    network = make_network(settings, pixels, dtype)
    expected = network.predict_proba(pixels)
    for n in (1, 5, 40, 41, 64):
        assert np.array_equal(network.predict_proba(pixels[:n]), expected[:n])
        assert np.array_equal(network.predict_proba(pixels[n : n + 1]), expected[n : n + 1])


def test_transposed_weights_are_made_anew_after_every_change(pixels):
    settings = WIDE[1]
    network, labels = make_network(settings, pixels), np.arange(67) % 10
    changes = [
        lambda: network.set_parameters(cyconv.Network(**settings, seed=1).parameters),
        lambda: network.train_steps(network.prepare(pixels, labels), np.arange(50), [0.1], batch_size=50),
    ]
    for change in changes:
        network.predict_proba(pixels)
        change()
        twin = make_network(settings, pixels)
        twin.set_parameters(network.parameters)
        assert np.array_equal(network.predict_proba(pixels), twin.predict_proba(pixels))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_shows_in_evaluation_even_behind_a_zero(pixels, bad):
    """As every other product, 0 * infinity is NaN; and what was skipped before is not skipped afterwards."""
    network = make_network(WIDE[0], pixels)
    parameters = {name: np.array(values) for name, values in network.parameters.items()}
    parameters["conv.bias"][:] = -1e9  # every input of the hidden layer is off
    network.set_parameters(parameters)
    assert np.isfinite(network.predict_proba(pixels)).all()
    parameters["hidden.weight"][3, 5] = bad
    network._layout.pack(parameters, network._store)
    assert np.isnan(network.predict_proba(pixels)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_readable_gradient_skips_nothing_that_is_not_finite(rng, dtype, bad):
    gradient, inputs, weight = sparse(rng, (9, 20), 0.5, dtype), np.ones((9, 33), dtype), np.ones((20, 33), dtype)
    inputs[4, 7] = weight[6, 8] = bad
    d_inputs, d_weight, _ = ops.dense_backward(gradient, inputs, weight)
    assert not np.isfinite(d_inputs[:, 8]).any() and not np.isfinite(d_weight[:, 7]).any()
    assert np.isfinite(np.delete(d_inputs, 8, 1)).all() and np.isfinite(np.delete(d_weight, 7, 1)).all()


def test_a_unit_that_is_off_keeps_its_weights(pixels):
    """No gradient reaches it, so that without a penalty its weights keep their bits."""
    network, labels = make_network({"filter_size": 8, "n_filters": 5, "n_hidden": 70}, pixels), np.arange(67) % 10
    parameters = {name: np.array(values) for name, values in network.parameters.items()}
    parameters["hidden.bias"][3:] = -1e9
    network.set_parameters(parameters)
    network.train_steps(network.prepare(pixels, labels), np.arange(60), [0.1], batch_size=60)
    before, after = parameters["hidden.weight"], network.parameters["hidden.weight"]
    assert np.array_equal(after[3:], before[3:].astype(np.float32)) and (after[:3] != before[:3]).any(axis=1).all()


if __name__ == "__main__":
    print(json.dumps(wrong_gradients(np.random.default_rng(0)) + wrong_evaluations(np.random.default_rng(1))))
