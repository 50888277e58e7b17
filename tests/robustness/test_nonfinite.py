"""NaN and infinity are never hidden: they reach the cost through every layer, on every build; and leave no trace."""

import json

import numpy as np
import pytest
from builds import INSTRUCTION_SETS, run_program
from unchecked import put_last_number

import cyconv

ARCHITECTURES = {
    "many patches": {"filter_size": 4, "n_filters": 3, "n_hidden": 6},
    "few patches, many filters": {"filter_size": 16, "n_filters": 17, "n_hidden": 6},
    "few patches": {"filter_size": 16, "n_filters": 3, "n_hidden": 6},
    "branches": {"filter_size": (8, 32), "n_filters": (2, 3), "n_hidden": (5, 4)},
}

NORMALIZER = cyconv.Normalizer(np.zeros((3, 32, 32)), np.full((3, 32, 32), 255.0))


def make(settings, dtype, rng):
    """A network whose units are all active, and images for it."""
    network = cyconv.Network(**settings, dtype=dtype)
    network.set_parameters({name: np.abs(values) + 0.01 for name, values in network.parameters.items()})
    return network, rng.random((23, 3, 32, 32)).astype(dtype), rng.integers(0, 10, 23)


def costs_of(network, X, labels):
    """The cost by evaluation, loss_and_gradients and training."""
    source = network.prepare(X, labels)
    pixels = network.prepare(np.round(255 * X).astype(np.uint8), labels, NORMALIZER)
    return {
        "evaluate": network.evaluate(source).cost,
        "evaluate of bytes": network.evaluate(pixels).cost,
        "loss_and_gradients": network.loss_and_gradients(X, labels)[0],
        "train_steps": network.train_steps(source, np.arange(23), [0.0], batch_size=23)[0],
    }


def unnoticed():
    """The calls whose cost stays finite although one number of one parameter is not."""
    rng, missed = np.random.default_rng(0), []
    for dtype in ("float32", "float64"):
        for title, settings in ARCHITECTURES.items():
            network, X, labels = make(settings, dtype, rng)
            for name in network.parameters:
                for bad in (np.nan, np.inf):
                    twin = network.copy()
                    put_last_number(twin, name, bad)
                    missed += [
                        f"{bad} in {name} of {title}, {dtype}: {call}"
                        for call, cost in costs_of(twin, X, labels).items()
                        if np.isfinite(cost)
                    ]
    return missed


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_every_nonfinite_parameter_reaches_the_cost(instruction_set):
    assert run_program(__file__, CYCONV_ISA=instruction_set) == []


@pytest.mark.parametrize("rate", [1e20, 1e38, 1e300])
@pytest.mark.parametrize("settings", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_divergence_shows_in_the_cost_and_stays(rng, dtype, settings, rate):
    network, X, labels = make(settings, dtype, rng)
    source = network.prepare(X, labels)
    rates = [0.01, *[rate] * 20, 0.01, 0.01]
    costs = network.train_steps(source, np.tile(np.arange(20), len(rates)), rates, batch_size=20, momentum=0.9)
    # If every unit has become inactive, the biases may stay finite: as large as the rate made them.
    assert np.isfinite(costs[0]) and not (costs[-2:] < 1e15).any()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("settings", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_a_network_that_diverged_can_start_again(rng, dtype, settings, momentum):
    """With new parameters, nothing in padding or workspaces is left that is not finite."""
    network, X, labels = make(settings, dtype, rng)
    source, good = network.prepare(X, labels), network.parameters
    steps = {"order": np.tile(np.arange(20), 6), "learning_rates": [0.01] * 6, "batch_size": 20, "momentum": momentum}
    expected = network.copy().train_steps(source, **steps)
    costs = network.train_steps(source, **{**steps, "learning_rates": [1e300] * 6})
    assert not np.isfinite(costs[-1])
    network.evaluate(source)
    network.set_parameters(good)
    network.set_velocity(None)
    assert network.evaluate(source) == make_twin(network, good).evaluate(source)
    assert np.array_equal(network.train_steps(source, **steps), expected)


def make_twin(network, parameters):
    twin = cyconv.Network(**network.architecture)
    twin.set_parameters(parameters)
    return twin


if __name__ == "__main__":
    print(json.dumps(unnoticed()))
