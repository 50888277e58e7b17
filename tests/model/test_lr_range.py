"""The learning-rate range test: its costs, what it suggests, and where it stops."""

import numpy as np
import pytest

import cyconv
from cyconv.lr_range import DIVERGED, LrRangeResult, _divergence, _smooth, _suggest, geometric_mean_range, lr_range_test


@pytest.fixture(scope="module")
def data():
    return cyconv.make_shapes(n_train=600, n_validation=10, n_test=10, seed=0)


def make(**settings):
    return cyconv.Network(**{"filter_size": 8, "n_filters": 6, "n_hidden": 12, **settings})


def test_the_network_is_not_changed(data):
    network = make(seed=3)
    before = {name: array.tobytes() for name, array in network.parameters.items()}
    lr_range_test(network, data.train, n_steps=40, batch_size=20)
    assert {name: array.tobytes() for name, array in network.parameters.items()} == before
    assert network.normalizer is None and network.velocity is None


def test_costs_are_those_of_training_at_these_rates(data):
    network = make()
    found = lr_range_test(network, data.train, 1e-4, 1e-2, n_steps=70, batch_size=20, l2=0.01, seed=5)
    np.testing.assert_allclose(found.learning_rates, np.geomspace(1e-4, 1e-2, 70))
    twin = make()
    source = twin.prepare(data.train.images, data.train.labels, normalizer=cyconv.Normalizer.fit(data.train.images))
    order = np.concatenate([cyconv.backend.ops.shuffled_order(600, 5, epoch) for epoch in range(3)])
    costs = twin.train_steps(source, order, found.learning_rates, batch_size=20, l2=0.01)
    np.testing.assert_array_equal(found.costs, costs)
    assert not found.diverged

    again = lr_range_test(network, source, 1e-4, 1e-2, n_steps=70, batch_size=20, l2=0.01, seed=5)
    np.testing.assert_array_equal(again.costs, costs)


def test_a_networks_own_normaliser_is_used(data):
    network = make()
    network.normalizer = cyconv.Normalizer(np.full((3, 32, 32), 100.0), np.full((3, 32, 32), 50.0))
    found = lr_range_test(network, data.train, n_steps=20, batch_size=20)
    plain = lr_range_test(make(), data.train, n_steps=20, batch_size=20)
    assert (found.costs != plain.costs).all()


def test_it_stops_where_the_cost_diverges(data):
    found = lr_range_test(make(), data.train, 1e-3, 1e3, n_steps=300, batch_size=20)
    assert found.diverged and 30 <= len(found.costs) < 300
    assert len(found.costs) == len(found.smoothed) == len(found.learning_rates)
    assert np.isfinite(found.costs).all()
    assert 1e-3 <= found.eta_min < found.eta_max < found.learning_rates[-1]
    with pytest.raises(ValueError, match="eta_low must be a rate at which training goes on"):
        lr_range_test(make(), data.train, 1e4, 1e5, n_steps=100, batch_size=20)


def test_the_suggestion_for_a_known_curve():
    rates = np.geomspace(1e-5, 1.0, 500)
    # Flat at 3 to the rate 1e-3, then down a straight line to 1 at 1e-1, then up.
    costs = np.interp(np.log10(rates), [-5, -3, -1, 0], [3, 3, 1, 5])
    eta_min, eta_max = _suggest(rates, costs, costs, window=25)
    assert np.log10(eta_min) == pytest.approx(-3 + 0.1 * 2, abs=0.02)
    assert np.log10(eta_max) == pytest.approx(-3 + 0.95 * 2, abs=0.02)


def test_nothing_is_suggested_where_the_cost_does_not_fall(rng):
    rates = np.geomspace(1e-5, 1.0, 500)
    rising = 3 + rates + 0.1 * rng.standard_normal(500)
    assert _suggest(rates, rising, _smooth(rising, 25), window=25) == (None, None)
    for n_steps in (60, 500):
        window, n_found = n_steps // 20, 0
        for _ in range(400):
            costs = 3 + 0.1 * rng.standard_normal(n_steps)
            n_found += _suggest(rates[:n_steps], costs, _smooth(costs, window), window) != (None, None)
        assert n_found <= 16  # 6 are to be expected


def test_a_small_fall_is_found_in_large_noise(rng):
    rates = np.geomspace(1e-5, 1.0, 500)
    costs = np.interp(np.log10(rates), [-5, -3, -1, 0], [3, 3, 2.7, 5]) + 0.1 * rng.standard_normal(500)
    eta_min, eta_max = _suggest(rates, costs, _smooth(costs, 25), window=25)
    assert 1e-4 < eta_min < 1e-2 < eta_max < 0.5


def test_several_tests_together_suggest_geometric_means():
    def suggesting(eta_min, eta_max):
        return LrRangeResult(*3 * [np.ones(1)], eta_min, eta_max, diverged=False)

    ends = geometric_mean_range([suggesting(1e-4, 1e-2), suggesting(None, None), suggesting(1e-2, 1.0)])
    assert ends == pytest.approx((1e-3, 1e-1))
    assert geometric_mean_range([suggesting(None, None)]) is None


def test_smoothing_is_a_mean_around_each_step(rng):
    costs = rng.random(60)
    smoothed = _smooth(costs, 6)
    assert smoothed[0] == pytest.approx(costs[0]) and smoothed[-1] == pytest.approx(costs[-1])
    assert smoothed[2] == pytest.approx(costs[:5].mean())
    assert smoothed[30] == pytest.approx(costs[27:34].mean())
    line = np.arange(50.0)
    np.testing.assert_allclose(_smooth(line, 8), line)  # no lag


def test_divergence_means_infinity_or_four_times_the_lowest_mean():
    flat = np.ones(40)
    assert _divergence(flat, 5) is None
    assert _divergence(np.append(flat, [np.inf, 1.0]), 5) == 40
    assert _divergence(np.append(np.nan, flat), 5) == 0
    risen = np.append(flat, np.full(10, DIVERGED + 0.1))
    assert _divergence(risen, 5) == 44  # the first whose last five are all above
    assert _divergence(np.append(flat, np.full(10, DIVERGED)), 5) is None


@pytest.mark.parametrize(
    "changes, error, sentence",
    [
        ({"network": None}, TypeError, "network must be a Network"),
        ({"source": np.zeros((3, 3, 32, 32))}, TypeError, "source must be a Split"),
        ({"eta_low": 0}, ValueError, "eta_low must be a number greater than 0"),
        ({"eta_high": 1e-6}, ValueError, "eta_high must be a number greater than 1e-05"),
        ({"n_steps": 19}, ValueError, r"n_steps must be an integer in \[20"),
        ({"batch_size": 601}, ValueError, r"batch_size must be an integer in \[1, 600\]"),
        ({"l2": -1}, ValueError, "l2 must be"),
        ({"seed": -1}, ValueError, "seed must be"),
    ],
)
def test_a_mistake_is_one_sentence(data, changes, error, sentence):
    arguments = {"network": make(), "source": data.train, **changes}
    with pytest.raises(error, match=sentence):
        lr_range_test(**arguments)


@pytest.mark.parametrize(
    "option",
    [
        {"momentum": 0.9},
        {"dropout": 0.3},
        {"label_smoothing": 0.1},
        {"augmentation": cyconv.Augmentation(flip=True, shift=2)},
    ],
)
def test_the_test_trains_with_what_training_will_use(option):
    data = cyconv.make_shapes(n_train=200, n_validation=10, n_test=10, seed=0)
    network = cyconv.Network(filter_size=8, n_filters=4, n_hidden=10, seed=0)
    plain, found = (lr_range_test(network, data.train, n_steps=40, batch_size=20, **each) for each in ({}, option))
    assert (plain.costs[1:20] != found.costs[1:20]).any()
    trained = network.copy()
    trained.normalizer = cyconv.Normalizer.fit(data.train.images)
    order = cyconv.ops.shuffled_order(200, 0, 0)
    prepared = trained.prepare(data.train.images, data.train.labels)
    assert (trained.train_steps(prepared, order, found.learning_rates[:10], 20, **option) == found.costs[:10]).all()
    with pytest.raises((TypeError, ValueError), match=rf"^{next(iter(option))} must "):
        lr_range_test(network, data.train, n_steps=40, batch_size=20, **dict.fromkeys(option, "much"))
