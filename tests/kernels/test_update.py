"""Gradients and updates of small batches, against the reference, on every build."""

import json

import numpy as np
import pytest
from builds import INSTRUCTION_SETS, run_program

import cyconv
from cyconv import reference
from cyconv.backend import ops

GRADIENT = {"float32": 5e-6, "float64": 1e-14}
UPDATES = {"float32": 2e-5, "float64": 1e-13}
BATCH_SIZES = (1, 2, 3, 5, 8, 15)
NETWORKS = [
    {"filter_size": 4, "n_filters": 10, "n_hidden": 50},
    {"filter_size": 2, "n_filters": 3, "n_hidden": (33, 20)},
    {"filter_size": 16, "n_filters": 21, "n_hidden": 9},  # four patches of an image
    {"filter_size": 16, "n_filters": 5, "image_shape": (3, 48, 32), "n_hidden": 70},  # six
    {"filter_size": 32, "n_filters": 7, "n_hidden": 130},
    {"filter_size": (16, 8), "n_filters": (17, 2), "n_hidden": 177},
]
SETTINGS = [{"l2": 0.0}, {"l2": 0.02}, {"l2": 0.02, "momentum": 0.9, "label_smoothing": 0.1}]


def error_of(actual, expected):
    return float(np.abs(actual - expected).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-30))


def wrong_gradients(rng):
    """Numbers of images and inputs whose gradients are not the twin's: every way to cut a panel into vectors."""
    wrong = []
    for dtype, tolerance in GRADIENT.items():
        for n in BATCH_SIZES:
            for inputs in (*range(7, 170, 16), 16, 321):
                arguments = [rng.standard_normal(shape).astype(dtype) for shape in ((n, 11), (n, inputs), (11, inputs))]
                arguments[0][rng.random((n, 11)) < 0.4] = 0
                errors = [error_of(*pair) for pair in zip(*(m.dense_backward(*arguments) for m in (ops, reference)))]
                if not max(errors) <= tolerance:
                    wrong.append([dtype, n, inputs, max(errors)])
    return wrong


def wrong_updates(rng):
    """Networks whose parameters or costs after three updates are not the reference's."""
    wrong = []
    for dtype, tolerance in UPDATES.items():
        for network in NETWORKS:
            for n in BATCH_SIZES:
                for settings in SETTINGS:
                    error = error_of_updates(cyconv.Network(**network, dtype=dtype), n, settings, rng)
                    if not error <= tolerance:
                        wrong.append([dtype, network, n, settings, error])
    return wrong


def error_of_updates(network, batch_size, settings, rng):
    images = rng.integers(0, 256, (20, *network.image_shape), dtype=np.uint8)
    labels, order, rates = rng.integers(0, 10, 20), rng.integers(0, 20, 3 * batch_size), [0.01, 0.02, 0.03]
    normalizer = cyconv.Normalizer.fit(images)
    expected = {name: values.astype(float) for name, values in network.parameters.items()}
    expected_costs = reference.train_steps(
        expected, images, labels, order, rates, batch_size, **settings, scale=normalizer.scale, offset=normalizer.offset
    )
    source = network.prepare(images, labels, normalizer)
    costs = network.train_steps(source, order, rates, batch_size=batch_size, **settings)
    actual = network.parameters
    return max(error_of(costs, expected_costs), *(error_of(actual[name], expected[name]) for name in expected))


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_updates_by_small_batches_are_the_references(instruction_set):
    assert run_program(__file__, CYCONV_ISA=instruction_set) == []


if __name__ == "__main__":
    print(json.dumps(wrong_gradients(np.random.default_rng(0)) + wrong_updates(np.random.default_rng(1))))
