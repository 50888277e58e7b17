"""Whitening: the kernel against its reference, the filters, and what a network makes of them."""

import copy
import importlib
import itertools
import json
import pickle
import zipfile

import numpy as np
import pytest

import cyconv
from cyconv import CyclicSchedule, CyclicTrainer, Network, Normalizer, Split, ops, reference
from cyconv.datasets import Whitening
from cyconv.datasets.whitening import _moments

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


def windows_of(images):
    """The 5 × 5 pixels around each pixel, beyond the border the outermost ones."""
    padded = np.pad(images.astype(float), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(2, 3))
    return around.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 25 * images.shape[1])


@pytest.mark.parametrize("shape", [(400, 2, 6, 7), (3, 1, 40, 30), (60_000, 1, 1, 1)])
def test_the_covariance_is_that_of_the_windows(rng, shape):
    images = (rng.integers(0, 256, shape) * np.linspace(0.2, 1, shape[0])[:, None, None, None]).astype(np.uint8)
    windows = windows_of(images)
    mean, covariance = _moments(images)
    scale = covariance.diagonal().mean()
    np.testing.assert_allclose(mean, windows.mean(axis=0), atol=0.1 * np.sqrt(scale))
    np.testing.assert_allclose(covariance, np.cov(windows.T, ddof=0), atol=0.1 * scale)


def test_windows_come_from_all_images_and_all_places():
    """Each pixel is of about as many windows as any other: nothing depends on how images are sorted."""
    images = np.zeros((20_000, 1, 5, 5), np.uint8)
    for part in (slice(0, 5_000), slice(15_000, 20_000)):
        images[:] = 0
        images[part] = 1
        np.testing.assert_allclose(_moments(images)[0], 0.25, rtol=0.01)
    for y, x in itertools.product(range(5), range(5)):
        images[:] = 0
        images[:, 0, y, x] = 1
        np.testing.assert_allclose(_moments(images)[0], windows_of(images[:1]).mean(axis=0), atol=0.002)


@pytest.mark.parametrize("n_images", [7, 9_999, 14_999])
def test_sorted_images_are_whitened_as_shuffled_ones(rng, n_images):
    """With windows of the first 5,000 images alone, 80 % of the last ones' pixels would be cut off."""
    images = rng.integers(0, 60, (n_images, 1, 6, 6))
    images[n_images // 2 :] += 190
    images = images.astype(np.uint8)
    whitened = Whitening.fit(images)(images)
    assert ((whitened > 0) & (whitened < 255)).mean() > 0.98
    assert whitened.std() == pytest.approx(36, abs=4) and whitened.mean() == pytest.approx(128, abs=3)


def test_pixels_that_never_vary_do_no_harm(rng):
    """Windows around such pixels alone would make everything else black or white."""
    images = rng.integers(100, 150, (800, 1, 16, 16)).astype(np.uint8)
    for y, x in itertools.product((2, 7, 13), (2, 7, 13)):
        images[:, :, y, x] = 0
    whitening = Whitening.fit(images)
    assert ((whitening(images) > 0) & (whitening(images) < 255)).mean() > 0.9
    assert np.abs(whitening.filters).max() < 10


@pytest.mark.parametrize("epsilon", [0.01, 0.3])
@pytest.mark.parametrize("share", [0.01, 1e-3, 1e-4, 1e-6])
def test_images_with_hardly_any_contrast_keep_the_promised_mean(rng, share, epsilon):
    images = (200 + (rng.random((500, 3, 32, 32)) < share)).astype(np.uint8)
    whitened = Whitening.fit(images, epsilon)(images)
    np.testing.assert_allclose(whitened.mean(axis=(0, 2, 3)), 128, atol=3)


def test_a_centre_that_did_not_vary_is_scaled_as_others_are(monkeypatch, rng):
    images = rng.integers(0, 256, (300, 1, 5, 5)).astype(np.uint8)
    mean, covariance = _moments(images)
    covariance[12] = covariance[:, 12] = 0
    monkeypatch.setattr("cyconv.datasets.whitening._moments", lambda _: (mean, covariance))
    assert Whitening.fit(images)(images).std() == pytest.approx(36, abs=6)


@pytest.mark.parametrize("shape", [(30, 1, 1, 1), (30, 3, 2, 2), (30, 2, 4, 12), (1, 3, 8, 8)])
def test_images_may_be_smaller_than_the_filters(rng, shape):
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    whitened = Whitening.fit(images)(images)
    assert whitened.shape == shape and whitened.mean() == pytest.approx(128, abs=6)


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
        (np.zeros((3, 3, 4, 4)), np.zeros(3), "an odd k"),
        (np.zeros((0, 0, 3, 3)), np.zeros(0), "at least one channel"),
        (np.full((3, 3, 3, 3), 1e300), np.zeros(3), "filters must"),
        (np.zeros((3, 3, 3, 3)), np.zeros(2), "bias must"),
        (np.full((3, 3, 3, 3), np.nan), np.zeros(3), "filters must"),
        (np.full((3, 3, 3, 3), 0.1), np.zeros(3), "filters and bias must be multiples of"),
        (np.full((3, 3, 3, 3), 1e30), np.zeros(3), "filters and bias must be multiples of"),
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


def test_a_checkpoint_that_has_lost_its_whitening_is_refused(data, tmp_path):
    trainer = CyclicTrainer(network(), SCHEDULE, batch_size=20, whitening=0.3)
    trainer.fit(data.train, log_every=6, progress=False, checkpoint=tmp_path / "run.npz")
    with zipfile.ZipFile(tmp_path / "run.npz") as whole, zipfile.ZipFile(tmp_path / "part.npz", "w") as part:
        for name in set(whole.namelist()) - {"normalizer.filters.npy", "normalizer.bias.npy"}:
            part.writestr(name, whole.read(name))
    with pytest.raises(
        ValueError, match="part.npz is damaged: its settings whiten the images, but its normaliser does not"
    ):
        CyclicTrainer.resume(tmp_path / "part.npz")


def test_settings_name_the_whitening_only_if_there_is_one():
    assert "whitening" not in CyclicTrainer(network(), SCHEDULE).settings
    assert CyclicTrainer(network(), SCHEDULE, whitening=0.3).settings["whitening"] == 0.3


def test_images_of_other_channels_are_refused(whitening):
    with pytest.raises(
        ValueError, match="images must have 3 channels, as the whitening has, but got an array of shape"
    ):
        whitening(np.zeros((2, 1, 8, 8), np.uint8))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_are_read_only_as_well(data, copied):
    normalizer = Normalizer.fit(data.train.images, 0.3)
    again = copied(normalizer)
    assert again.equals(normalizer) and not again.equals(None) and not again.equals(Normalizer(again.mean, again.std))
    for array in (again.mean, again.scale, again.whitening.filters, again.whitening.bias):
        assert not array.flags.writeable


def test_a_normaliser_that_was_pickled_before_there_was_whitening(data):
    normalizer = Normalizer.fit(data.train.images)
    state = {name: value for name, value in vars(normalizer).items() if name != "whitening"}
    earlier = Normalizer.__new__(Normalizer)
    earlier.__dict__.update(state)
    assert earlier.whitening is None and earlier.equals(normalizer)
    np.testing.assert_array_equal(earlier(data.test.images), normalizer(data.test.images))


@pytest.mark.parametrize("own", [None, 0.3])
def test_whitening_needs_pixels_and_a_network_without_a_normaliser(data, own):
    floats = Split(Normalizer.fit(data.train.images)(data.train.images), data.train.labels)
    with pytest.raises(ValueError, match="whitening must be None for images that are already floats, but got 0.3"):
        trained(data, whitening=0.3, train=floats)
    normalizer = Normalizer.fit(data.train.images, own)
    with pytest.raises(ValueError, match="whitening must be None for a network that has a normaliser already, .* 0.1"):
        trained(data, whitening=0.1, normalizer=normalizer)
    net = network()
    net.normalizer = normalizer
    with pytest.raises(ValueError, match="whitening must be None for a network that has a normaliser already, .* 0.1"):
        cyconv.lr_range_test(net, data.train, n_steps=20, batch_size=20, whitening=0.1)
    with pytest.raises(ValueError, match="whitening must be None for prepared data, but got 0.1"):
        cyconv.lr_range_test(
            net, net.prepare(data.train.images, data.train.labels), n_steps=20, batch_size=20, whitening=0.1
        )


def test_the_range_test_whitens_as_training_does(data):
    settings = {"n_steps": 40, "batch_size": 20}
    found = cyconv.lr_range_test(network(), data.train, whitening=0.3, **settings)
    net = network()
    net.normalizer = Normalizer.fit(data.train.images, 0.3)
    np.testing.assert_array_equal(found.costs, cyconv.lr_range_test(net, data.train, **settings).costs)
    assert found.costs[0] != cyconv.lr_range_test(network(), data.train, **settings).costs[0]


def count_calls(monkeypatch):
    """The numbers of images of each call of `ops.whiten`."""
    counts, whiten = [], ops.whiten
    monkeypatch.setattr(ops, "whiten", lambda images, *filters: counts.append(len(images)) or whiten(images, *filters))
    return counts


def test_networks_with_the_same_normaliser_share_the_whitened_images(data, monkeypatch, tmp_path):
    net = trained(data, whitening=0.3)
    ensemble = cyconv.Ensemble.from_snapshots(net, [net.parameters] * 3)
    ensemble.save(tmp_path / "ensemble.npz")
    expected = net.predict_proba(data.test.images)
    counts = count_calls(monkeypatch)
    for each in (ensemble, cyconv.Ensemble.load(tmp_path / "ensemble.npz")):
        np.testing.assert_allclose(each.predict_proba(data.test.images), expected, rtol=1e-6)
    assert counts == [60, 60]


def test_the_images_that_are_evaluated_are_not_whitened_again(data, monkeypatch):
    counts = count_calls(monkeypatch)
    trainer = CyclicTrainer(network(), SCHEDULE, batch_size=20, whitening=0.3)
    trainer.fit(data.train, data.validation, log_every=6, progress=False, n_train_evaluated=50)
    assert sum(counts) == 300 + 300 + 60  # for the mean and the deviation, to train on, to validate on


def test_memory_that_whitening_lacks_is_missed_before_anything_is_read(data, monkeypatch):
    monkeypatch.setattr("cyconv._checks.available_memory", lambda: 100_000)
    counts = count_calls(monkeypatch)
    with pytest.raises(MemoryError, match="the copy of the images that whitening makes needs 1,105,920 bytes"):
        CyclicTrainer(network(), SCHEDULE, batch_size=20, whitening=0.3).fit(
            data.train, data.validation, progress=False
        )
    assert counts == []
