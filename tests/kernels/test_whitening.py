"""Whitening: the kernel against its reference, the filters, and what a network makes of them."""

import importlib
import itertools
import json
import zipfile

import numpy as np
import pytest

import cyconv
from cyconv import CyclicSchedule, CyclicTrainer, Network, Normalizer, Split, ops, reference
from cyconv.datasets import Whitening

SCHEDULE = CyclicSchedule(1e-4, 0.05, step_size=6, n_cycles=1)


@pytest.fixture(scope="module")
def data():
    return cyconv.make_shapes(n_train=300, n_validation=60, n_test=60, seed=0)


@pytest.fixture(scope="module")
def whitening(data):
    return Whitening.fit(data.train.images)


def filters_of(rng, channels, side):
    """Filters and a bias that are multiples of 1/64."""
    filters = rng.integers(-90, 90, (channels, channels, side, side)) / 64
    return filters.astype(np.float32), (rng.integers(-9000, 9000, channels) / 64).astype(np.float32)


def network(**settings):
    return Network(**{"filter_size": 8, "n_filters": 4, "n_hidden": 12, "seed": 0} | settings)


def trained(data, whitening=None, normalizer=None, train=None):
    net = network()
    net.normalizer = normalizer
    trainer = CyclicTrainer(net, SCHEDULE, batch_size=20, momentum=0.9, whitening=whitening)
    trainer.fit(train or data.train, log_every=6, progress=False)
    return net


def assert_same_parameters(a, b):
    for name, values in a.parameters.items():
        np.testing.assert_array_equal(values, b.parameters[name])


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("shape", "side"),
    [
        ((5, 3, 32, 32), 9),
        ((4, 1, 28, 28), 5),
        ((3, 2, 5, 7), 3),
        ((2, 3, 4, 35), 1),
        ((2, 1, 1, 1), 1),
        ((7, 4, 3, 16), 7),
    ],
)
def test_the_kernel_equals_its_reference_bit_for_bit(rng, shape, side, n_threads):
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    images[0] = 255
    filters, bias = filters_of(rng, shape[1], side)
    before = cyconv.get_num_threads()
    cyconv.set_num_threads(n_threads)
    try:
        whitened = ops.whiten(images, filters, bias)
    finally:
        cyconv.set_num_threads(before)
    np.testing.assert_array_equal(whitened, reference.whiten(images, filters, bias))
    assert len(np.unique(whitened)) > 2 or images[0].size < 3


def test_the_reference_is_a_filter_whose_borders_are_the_outermost_pixels(rng):
    images = rng.integers(0, 256, (2, 2, 4, 5), dtype=np.uint8)
    filters, bias = filters_of(rng, 2, 3)
    whitened = reference.whiten(images, filters, bias)
    for n, o, y, x in itertools.product(*map(range, images.shape)):
        total = float(bias[o])
        for c, dy, dx in itertools.product(range(2), range(3), range(3)):
            row, column = min(max(y + dy - 1, 0), 3), min(max(x + dx - 1, 0), 4)
            total += float(filters[o, c, dy, dx]) * int(images[n, c, row, column])
        assert whitened[n, o, y, x] == min(max(round(total), 0), 255)  # round, too, takes the even of two


def test_filters_that_change_nothing(rng):
    images = rng.integers(0, 256, (2, 3, 6, 6), dtype=np.uint8)
    identity = np.eye(3, dtype=np.float32)[:, :, None, None]
    np.testing.assert_array_equal(ops.whiten(images, identity, np.zeros(3, np.float32)), images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((2, 3, 8, 8), np.float32)}, "images must"),
        ({"images": np.zeros((0, 3, 8, 8), np.uint8)}, "images must hold at least one image"),
        ({"filters": np.zeros((3, 3, 3, 3))}, "filters must"),
        ({"filters": np.zeros((3, 2, 3, 3), np.float32)}, "filters must"),
        ({"filters": np.zeros((3, 3, 2, 2), np.float32)}, "filters must have the same odd height and width"),
        ({"filters": np.zeros((3, 3, 3, 5), np.float32)}, "filters must have the same odd height and width"),
        ({"filters": np.full((3, 3, 3, 3), np.nan, np.float32)}, "filters must"),
        ({"bias": np.zeros(2, np.float32)}, "bias must"),
        ({"bias": np.full(3, np.inf, np.float32)}, "bias must"),
    ],
)
def test_wrong_arguments_of_the_kernel(change, message):
    arguments = {
        "images": np.zeros((2, 3, 8, 8), np.uint8),
        "filters": np.zeros((3, 3, 3, 3), np.float32),
        "bias": np.zeros(3, np.float32),
    }
    with pytest.raises((TypeError, ValueError), match=message):
        ops.whiten(**(arguments | change))


def correlations(images):
    """Of right-hand neighbours and of the first two channels."""
    values = images.astype(float) - images.mean(axis=(0, 2, 3), keepdims=True)
    neighbours = np.corrcoef(values[..., 1:].ravel(), values[..., :-1].ravel())[0, 1]
    return abs(neighbours), abs(np.corrcoef(values[:, 0].ravel(), values[:, 1].ravel())[0, 1])


def test_whitened_images_hardly_correlate(data):
    before = correlations(data.test.images)
    after = correlations(Whitening.fit(data.train.images, epsilon=0.01)(data.test.images))
    assert before[0] > 0.8 and max(after) < 0.15


def test_more_epsilon_whitens_less(data):
    left = [
        correlations(Whitening.fit(data.train.images, epsilon)(data.train.images))[0]
        for epsilon in (0.01, 0.3, 10, 1e4)
    ]
    assert left == sorted(left)
    assert left[-1] == pytest.approx(correlations(data.train.images)[0], abs=0.02)


def test_whitened_images_have_the_promised_mean_and_deviation(data, whitening):
    whitened = whitening(data.train.images)
    assert whitened.dtype == np.uint8 and whitened.shape == data.train.images.shape
    assert whitened.mean() == pytest.approx(128, abs=4)
    assert whitened.std() == pytest.approx(36, abs=6)


def test_sums_are_exact(whitening):
    """In units of the smallest coefficient, no partial sum can leave the integers that float32 holds."""
    filters, bias = whitening.filters.astype(np.float64), whitening.bias.astype(np.float64)
    unit = 2.0**24 / 2 ** np.ceil(np.log2(255 * np.abs(filters).reshape(3, -1).sum(axis=1) + np.abs(bias)).max())
    for array in (filters, bias):
        assert (array * unit == np.rint(array * unit)).all()


@pytest.mark.parametrize("build", cyconv.show_config()["instruction_sets"])
def test_every_build_gives_the_same_bytes(data, whitening, build, monkeypatch):
    expected = reference.whiten(data.test.images, whitening.filters, whitening.bias)
    monkeypatch.setattr(ops, "kernels", importlib.import_module(f"cyconv._kernels.{build}"))
    np.testing.assert_array_equal(whitening(data.test.images), expected)


def test_many_images_are_whitened_in_several_calls(data, whitening, monkeypatch):
    expected = whitening(data.test.images)
    monkeypatch.setattr(ops, "_WHITENED_VALUES", 7 * 3 * 32 * 32 + 5)
    np.testing.assert_array_equal(whitening(data.test.images), expected)


def test_the_covariance_is_that_of_the_windows(rng):
    from cyconv.datasets.whitening import _moments

    images = rng.integers(0, 256, (40, 2, 6, 6), dtype=np.uint8)
    windows = [images[:, :, y : y + 3, x : x + 3].reshape(40, -1) for y in (0, 1, 3) for x in (0, 1, 3)]
    mean, covariance = _moments(images, 3)
    np.testing.assert_allclose(mean, np.concatenate(windows).mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(np.concatenate(windows).T, ddof=0), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("shape", [(30, 1, 1, 1), (30, 3, 2, 2), (30, 2, 4, 12), (1, 3, 8, 8)])
def test_small_images_have_smaller_filters(rng, shape):
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    whitening = Whitening.fit(images)
    side = min(5, *shape[2:])
    assert whitening.filters.shape[2] == side - (side % 2 == 0)
    assert whitening(images).shape == shape


def test_constant_images_stay_constant():
    images = np.full((4, 3, 8, 8), 77, np.uint8)
    assert np.unique(Whitening.fit(images)(images)).tolist() == [128]


@pytest.mark.parametrize("epsilon", [0, -1, np.nan, np.inf, "0.3", None, True])
def test_a_wrong_epsilon(data, epsilon):
    with pytest.raises((TypeError, ValueError), match="epsilon must"):
        Whitening.fit(data.train.images, epsilon)
    if epsilon is not None:
        for use in (lambda: Normalizer.fit(data.train.images, epsilon), lambda: trained(data, epsilon)):
            with pytest.raises((TypeError, ValueError), match="whitening must"):
                use()


@pytest.mark.parametrize(
    ("filters", "bias", "message"),
    [
        (np.zeros((3, 3, 3, 3), int), np.zeros(3), "filters must be floats"),
        (np.zeros((3, 2, 3, 3)), np.zeros(3), "filters must have shape"),
        (np.zeros((3, 3, 4, 4)), np.zeros(3), "with an odd k"),
        (np.zeros((3, 3, 3, 3)), np.zeros(2), "bias must"),
        (np.full((3, 3, 3, 3), np.nan), np.zeros(3), "filters must"),
        (np.full((3, 3, 3, 3), 0.1), np.zeros(3), "multiples of a power of two"),
        (np.full((3, 3, 3, 3), 1e30), np.zeros(3), "multiples of a power of two"),
    ],
)
def test_wrong_filters(filters, bias, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Whitening(filters, bias)


def test_a_whitening_cannot_be_changed(whitening):
    with pytest.raises(AttributeError, match="filters of a whitening cannot be changed"):
        whitening.filters = np.zeros(3)
    with pytest.raises(ValueError, match="read-only"):
        whitening.filters[0] = 0


def test_the_normaliser_is_that_of_the_whitened_pixels(data, whitening):
    normalizer = Normalizer.fit(data.train.images, whitening=0.3)
    np.testing.assert_array_equal(normalizer.whitening.filters, whitening.filters)
    plain = Normalizer.fit(whitening(data.train.images))
    np.testing.assert_array_equal(normalizer.mean, plain.mean)
    np.testing.assert_array_equal(normalizer.std, plain.std)
    np.testing.assert_array_equal(normalizer(data.test.images), plain(whitening(data.test.images)))
    assert "5 pixels wide" in repr(normalizer)


@pytest.mark.parametrize("whitening", [0.3, Whitening(np.zeros((1, 1, 1, 1)), np.zeros(1))])
def test_a_normaliser_takes_only_a_fitting_whitening(whitening):
    with pytest.raises((TypeError, ValueError), match="whitening must be"):
        Normalizer(np.zeros((3, 2, 2)), np.ones((3, 2, 2)), whitening)


def test_training_with_whitening_is_training_on_whitened_images(data, whitening):
    net = trained(data, whitening=0.3)
    apart = trained(data, train=Split(whitening(data.train.images), data.train.labels))
    assert_same_parameters(net, apart)
    np.testing.assert_array_equal(net.predict_proba(data.test.images), apart.predict_proba(whitening(data.test.images)))
    assert net.evaluate(data.test) == apart.evaluate(Split(whitening(data.test.images), data.test.labels))
    assert_same_parameters(net, trained(data, normalizer=Normalizer.fit(data.train.images, 0.3)))
    assert any((net.parameters[name] != values).any() for name, values in trained(data).parameters.items())


@pytest.mark.parametrize("form", ["array", "integers", "list", "split"])
def test_each_network_of_an_ensemble_whitens_the_images_as_they_are(data, form):
    networks = [trained(data, 0.3), trained(data), trained(data, 0.1), trained(data, 0.3)]
    X = {
        "array": data.test.images,
        "integers": data.test.images.astype(np.int64),
        "list": data.test.images.tolist(),
        "split": data.test,
    }[form]
    expected = np.mean([net.predict_proba(data.test.images) for net in networks], axis=0)
    np.testing.assert_allclose(cyconv.Ensemble(networks).predict_proba(X), expected, rtol=1e-5, atol=1e-7)
    views = cyconv.ViewAverage(cyconv.Ensemble(networks), shift=1)
    expected = np.mean([cyconv.ViewAverage(net, shift=1).predict_proba(data.test.images) for net in networks], axis=0)
    np.testing.assert_allclose(views.predict_proba(X), expected, rtol=1e-5, atol=1e-7)


def test_views_are_those_of_whitened_images(data):
    net = trained(data, whitening=0.3)
    views = cyconv.ViewAverage(net, shift=1)
    np.testing.assert_allclose(
        views.predict_proba(data.test.images), views.predict_proba(net.normalizer(data.test.images)), atol=1e-6
    )


def version_of(path):
    with zipfile.ZipFile(path) as archive, archive.open("__header__.npy") as file:
        return json.loads(np.load(file).tobytes())["version"]


def test_files_keep_the_whitening_and_earlier_versions_refuse_them(data, tmp_path):
    net = trained(data, whitening=0.3)
    net.save(tmp_path / "whitened.npz")
    trained(data).save(tmp_path / "plain.npz")
    again = Network.load(tmp_path / "whitened.npz")
    np.testing.assert_array_equal(again.predict_proba(data.test.images), net.predict_proba(data.test.images))
    assert version_of(tmp_path / "whitened.npz") == 2 and version_of(tmp_path / "plain.npz") == 1
    np.testing.assert_array_equal(net.copy().predict_proba(data.test.images), net.predict_proba(data.test.images))


def test_an_ensemble_keeps_the_whitening_of_each_network(data, tmp_path):
    whitened, plain = trained(data, whitening=0.3), trained(data)
    for networks, version in (([whitened, plain], 2), ([plain, plain], 1)):
        ensemble = cyconv.Ensemble(networks)
        ensemble.save(tmp_path / "ensemble.npz")
        assert version_of(tmp_path / "ensemble.npz") == version
        again = cyconv.Ensemble.load(tmp_path / "ensemble.npz")
        np.testing.assert_array_equal(again.predict_proba(data.test.images), ensemble.predict_proba(data.test.images))


def test_a_resumed_run_continues_with_its_whitening(data, tmp_path):
    class Stop:
        def __call__(self, event):
            return event.step == 6

    path = tmp_path / "run.npz"
    trainer = CyclicTrainer(network(), SCHEDULE, batch_size=20, momentum=0.9, whitening=0.3)
    trainer.fit(data.train, log_every=6, progress=False, checkpoint=path, callbacks=[Stop()])
    assert trainer.step == 6 and version_of(path) == 2
    resumed = CyclicTrainer.resume(path)
    assert resumed.whitening == 0.3 and resumed.settings == trainer.settings
    resumed.fit(data.train, log_every=6, progress=False)
    assert resumed.step == 12
    assert_same_parameters(resumed.network, trained(data, whitening=0.3))


def test_settings_name_the_whitening_only_if_there_is_one():
    assert "whitening" not in CyclicTrainer(network(), SCHEDULE).settings
    assert CyclicTrainer(network(), SCHEDULE, whitening=0.3).settings["whitening"] == 0.3


def test_whitening_needs_pixels_and_a_network_that_has_not_been_normalised(data):
    floats = Split(Normalizer.fit(data.train.images)(data.train.images), data.train.labels)
    with pytest.raises(ValueError, match="whitening must be None for images that are already floats, but got 0.3"):
        trained(data, whitening=0.3, train=floats)
    with pytest.raises(ValueError, match="whitening must be None for a network whose normaliser does not whiten"):
        trained(data, whitening=0.3, normalizer=Normalizer.fit(data.train.images))
