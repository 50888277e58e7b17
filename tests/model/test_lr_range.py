"""The learning-rate range test: its costs, what it suggests, and where it stops."""

import numpy as np
import pytest

import cyconv
from cyconv.lr_range import DIVERGED, LrRangeResult, _divergence, _smooth, _suggest, geometric_mean_range, lr_range_test


@pytest.fixture(scope="module")
def data():
    return cyconv.make_shapes(n_train=600, n_validation=10, n_test=10, seed=0)


@pytest.fixture(scope="module")
def colours():
    """Ten classes that differ in their mean colour, which a network learns within a few updates."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 600)
    means = rng.integers(60, 196, (10, 3, 1, 1))[labels]
    return cyconv.Split((means + rng.integers(-60, 60, (600, 3, 32, 32))).astype(np.uint8), labels)


def shuffled(split, seed):
    """The same images with random labels."""
    return cyconv.Split(split.images, np.random.default_rng(seed).permutation(split.labels))


def training_order(n_images, seed, n_epochs):
    """The images that a test trains on, all but the fifth that it holds out, epoch by epoch."""
    rest = np.sort(cyconv.ops.shuffled_order(n_images, seed, 0)[n_images // 5 :])
    return np.concatenate([rest[cyconv.ops.shuffled_order(len(rest), seed, epoch)] for epoch in range(n_epochs)])


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
    order = training_order(600, 5, n_epochs=3)
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
    assert (found.costs[:10] != plain.costs[:10]).all()


def test_it_stops_where_the_cost_diverges(data, colours):
    found = lr_range_test(make(), colours, 1e-4, 1e3, n_steps=300, batch_size=20)
    assert found.diverged and 30 <= len(found.costs) < 300
    assert len(found.costs) == len(found.smoothed) == len(found.learning_rates)
    assert np.isfinite(found.costs).all()
    assert 1e-4 <= found.eta_min < found.eta_max < found.learning_rates[-1]


@pytest.mark.parametrize(("eta_low", "eta_high", "l2"), [(1e4, 1e5, 0.0), (1e-6, 1e300, 0.0), (1e-6, 1.0, 1e300)])
def test_where_training_never_goes_on_the_settings_and_the_rate_are_told(data, eta_low, eta_high, l2):
    with pytest.raises(ValueError, match="eta_low, eta_high and l2 must let training go on for 10 steps") as caught:
        lr_range_test(make(), data.train, eta_low, eta_high, n_steps=100, batch_size=20, l2=l2)
    sentence = str(caught.value)
    assert f"but got {eta_low}, {eta_high} and {l2}:" in sentence
    step = int(sentence.partition("diverged after ")[2].partition(",")[0])
    assert step < 10 and sentence.endswith(f"rate of {np.geomspace(eta_low, eta_high, 100)[step]:.3g}")


def suggestion(losses):
    """What `_suggest` makes of these losses at rates from 1e-5 to 1, at the first of which nothing is learned."""
    window = len(losses) // 20
    rates = np.geomspace(1e-5, 1.0, len(losses))
    return _suggest(rates, losses, _smooth(losses, window), window, losses[:window].mean(), diverged=False)


def curve(*points, n_steps=500):
    """Losses on straight lines between points (log10 of the rate, loss)."""
    return np.interp(np.linspace(-5, 0, n_steps), *zip(*points))


def test_the_suggestion_for_a_known_curve():
    # Flat at 3 to the rate 1e-3, then down a straight line to 1 at 1e-1, then up.
    eta_min, eta_max, *too_short = suggestion(curve((-5, 3), (-3, 3), (-1, 1), (0, 5)))
    assert np.log10(eta_min) == pytest.approx(-3 + 0.1 * 2, abs=0.02)
    assert np.log10(eta_max) == pytest.approx(-1, abs=0.05)
    assert too_short == [False, False]


def test_nothing_is_suggested_where_the_loss_does_not_fall(rng):
    assert suggestion(3 + np.geomspace(1e-5, 1.0, 500) + 0.1 * rng.standard_normal(500)) == (None, None, False, False)
    # The scatter may grow with the rate.
    for n_steps in (60, 500):
        for growth in (1.0, 10.0):
            scatter = np.geomspace(0.1, 0.1 * growth, n_steps)
            found = [suggestion(3 + scatter * rng.standard_normal(n_steps)) for _ in range(400)]
            assert sum(each[0] is not None for each in found) <= 8


def test_a_small_fall_is_found_in_large_noise(rng):
    losses = curve((-5, 3), (-3, 3), (-1, 2.7), (0, 5)) + 0.1 * rng.standard_normal(500)
    eta_min, eta_max, *_ = suggestion(losses)
    assert 1e-4 < eta_min < 1e-2 < eta_max < 0.5


def test_random_labels_get_no_suggestion():
    """The loss of a network that is confident at first falls also then, and it may learn its images by heart."""
    suggested = []
    for n_train in (300, 2000):
        split = cyconv.make_shapes(n_train=n_train, n_validation=10, n_test=10, seed=0).train
        for seed in range(3):
            for settings in ({}, {"l2": 0.003}, {"momentum": 0.9, "batch_size": 25}):
                for architecture in ((4, 10, 50), (16, 40, 30)):
                    network = cyconv.Network(*architecture, seed=seed)
                    found = lr_range_test(network, shuffled(split, seed), n_steps=200, seed=seed, **settings)
                    assert found.smoothed.min() < found.smoothed[0] - 0.2
                    suggested.append(found.eta_max is not None)
    assert sum(suggested) == 0 and len(suggested) == 36


def test_real_labels_get_one(colours):
    for seed in range(4):
        for settings in ({}, {"l2": 0.003}, {"momentum": 0.9, "dropout": 0.2, "label_smoothing": 0.1}):
            found = lr_range_test(make(seed=seed), colours, n_steps=200, batch_size=20, seed=seed, **settings)
            assert 1e-6 < found.eta_min < found.eta_max < 10 and found.explanation == ""


def test_a_range_that_is_too_short_is_called_so(colours):
    def tested(eta_low, eta_high):
        found = lr_range_test(make(), colours, eta_low, eta_high, n_steps=200, batch_size=20)
        assert found.eta_min is None and found.eta_max is None and found.explanation in repr(found)
        return found.falling_at_eta_low, found.falling_at_eta_high, found.explanation

    assert tested(1e-6, 1e-2) == (False, True, "the loss had not risen again at eta_high")
    assert tested(3e-2, 10.0) == (True, False, "the loss was already falling at eta_low")
    both = "the loss was already falling at eta_low and the loss had not risen again at eta_high"
    assert tested(1e-2, 2e-2) == (True, True, both)
    assert tested(1e-12, 1e-11) == (False, False, "nothing was learned at these rates")


def test_the_penalty_takes_no_part_in_the_suggestion(colours):
    network = make()
    found = lr_range_test(network, colours, n_steps=100, batch_size=20, l2=0.01, seed=2)
    network.normalizer = cyconv.Normalizer.fit(colours.images)
    source, order = network.prepare(colours.images, colours.labels), training_order(600, 2, n_epochs=5)
    for step in range(50):
        assert found.penalties[step] == 0.01 * network.penalty()
        batch, rate = order[20 * step : 20 * (step + 1)], found.learning_rates[step : step + 1]
        assert network.train_steps(source, batch, rate, 20, l2=0.01)[0] == found.costs[step]
    np.testing.assert_array_equal(found.smoothed, _smooth(found.costs - found.penalties, 5))


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
        ({"eta_high": 1e-6}, ValueError, "eta_high must be a number greater than 1e-06"),
        ({"n_steps": 19}, ValueError, r"n_steps must be an integer in \[20"),
        ({"batch_size": 481}, ValueError, r"batch_size must be an integer in \[1, 480\]"),
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
    order = training_order(200, 0, n_epochs=2)
    prepared = trained.prepare(data.train.images, data.train.labels)
    assert (trained.train_steps(prepared, order, found.learning_rates[:10], 20, **option) == found.costs[:10]).all()
    with pytest.raises((TypeError, ValueError), match=rf"^{next(iter(option))} must "):
        lr_range_test(network, data.train, n_steps=40, batch_size=20, **dict.fromkeys(option, "much"))
