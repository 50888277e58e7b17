"""ViewAverage: the mean over mirrored and shifted views, compared with views made one pixel at a time."""

import warnings

import numpy as np
import pytest

import cyconv
from cyconv import Ensemble, Normalizer, ViewAverage


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)


def view(images, flip, dy, dx):
    """What Augmentation makes of normalised images for one draw."""
    found = np.zeros_like(images)
    height, width = images.shape[2:]
    for y in range(height):
        for x in range(width):
            source_y, source_x = y + dy, (width - 1 - x if flip else x) + dx
            if 0 <= source_y < height and 0 <= source_x < width:
                found[:, :, y, x] = images[:, :, source_y, source_x]
    return found


@pytest.mark.parametrize("flip, shift", [(False, 0), (True, 0), (False, 1), (True, 2)])
def test_probabilities_are_the_mean_over_the_views(make_network, pixels, flip, shift, dtype):
    network = make_network(dtype=dtype)
    network.normalizer = Normalizer.fit(pixels)
    images = network.normalizer(pixels).astype(dtype)
    shifts = range(-shift, shift + 1)
    views = [view(images, f, dy, dx) for f in {False, flip} for dy in shifts for dx in shifts]
    expected = np.mean([network.predict_proba(each) for each in views], axis=0, dtype=np.float64)
    average = ViewAverage(network, flip, shift)
    assert average.n_views == len(views)
    for source in (pixels, images):
        found = average.predict_proba(source)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)
    assert np.array_equal(average.predict(pixels), average.predict_proba(pixels).argmax(axis=1))


def test_blocks_of_images_change_nothing(make_network, rng, monkeypatch):
    network = make_network()
    images = rng.standard_normal((11, 3, 32, 32)).astype(np.float32)
    expected = ViewAverage(network, shift=1).predict_proba(images)
    monkeypatch.setattr("cyconv.view_average._BLOCK", 4)
    np.testing.assert_allclose(ViewAverage(network, shift=1).predict_proba(images), expected, rtol=1e-6)


def test_an_ensemble_is_averaged_over_its_networks_with_their_own_normalizers(make_network, pixels):
    networks = [make_network(seed=seed) for seed in range(2)]
    for network, part in zip(networks, (pixels[:3], pixels[3:])):
        network.normalizer = Normalizer.fit(part)
    expected = np.mean([ViewAverage(network, shift=1).predict_proba(pixels) for network in networks], axis=0)
    np.testing.assert_allclose(ViewAverage(Ensemble(networks), shift=1).predict_proba(pixels), expected, rtol=1e-5)


def test_evaluation_uses_the_mean_probabilities(make_network, pixels, rng):
    network = make_network()
    network.normalizer = Normalizer.fit(pixels)
    labels = rng.integers(0, 10, len(pixels))
    average = ViewAverage(network, shift=1)
    probabilities = average.predict_proba(pixels)
    found = average.evaluate(pixels, labels)
    assert found.loss == pytest.approx(-np.log(probabilities[np.arange(7), labels]).mean(), rel=1e-6)
    assert found.accuracy == np.mean(probabilities.argmax(axis=1) == labels)
    split = cyconv.Split(pixels, labels)
    assert average.evaluate(split) == found


def test_views_of_bright_images_are_not_taken_for_pixels(make_network, pixels):
    network = make_network()
    network.normalizer = Normalizer(np.full((3, 32, 32), 100.3), np.full((3, 32, 32), 70.0))
    bright = np.full_like(pixels, 150)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ViewAverage(network, shift=1).predict_proba(bright)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (dict(model="network"), "model must be a Network or an Ensemble"),
        (dict(flip=1), "flip must be"),
        (dict(shift=-1), "shift must be"),
        (dict(shift=32), "shift must be"),
    ],
)
def test_mistakes_are_named(make_network, arguments, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        ViewAverage(**{"model": make_network(), **arguments})


def test_labels_are_needed_for_an_evaluation(make_network, pixels):
    network = make_network()
    network.normalizer = Normalizer.fit(pixels)
    with pytest.raises(ValueError, match="labels must be given"):
        ViewAverage(network).evaluate(pixels)
