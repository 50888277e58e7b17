"""The normaliser against NumPy's own mean and standard deviation."""

import warnings

import numpy as np
import pytest

from cyconv.datasets import Normalizer


@pytest.mark.parametrize("n", [1, 2, 127, 128, 129, 300])
def test_fit_matches_numpy(rng, n):
    images = rng.integers(0, 256, (n, 3, 5, 4), dtype=np.uint8)
    norm = Normalizer.fit(images)
    assert norm.mean.dtype == norm.std.dtype == np.float64
    np.testing.assert_allclose(norm.mean, images.mean(axis=0), rtol=1e-14)
    std = images.astype(np.float64).std(axis=0)
    np.testing.assert_allclose(norm.std, np.where(std > 0, std, 1.0), rtol=1e-12)


def test_fit_is_exact_where_rounding_would_show():
    """More than a block of the brightest pixels: 16-bit sums must not overflow."""
    images = np.full((1000, 1, 1, 2), 255, np.uint8)
    images[0, 0, 0, 1] = 254
    norm = Normalizer.fit(images)
    assert norm.mean[0, 0, 0] == 255.0 and norm.std[0, 0, 0] == 1.0
    assert norm.std[0, 0, 1] == pytest.approx(np.sqrt(999.0) / 1000.0, rel=1e-15)


def test_fit_accepts_strided_read_only_images(rng):
    images = rng.integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
    images.flags.writeable = False
    assert np.array_equal(Normalizer.fit(images[::-3]).mean, Normalizer.fit(images[::-3].copy()).mean)


def test_call_gives_zero_mean_and_unit_deviation(rng):
    images = rng.integers(0, 256, (400, 3, 4, 4), dtype=np.uint8)
    values = Normalizer.fit(images)(images)
    assert values.dtype == np.float32 and values.shape == images.shape
    np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(values.std(axis=0), 1.0, atol=1e-5)


def test_scale_and_offset_are_the_same_map_and_read_only():
    norm = Normalizer(np.full((1, 1, 1), 10.0), np.full((1, 1, 1), 4.0))
    assert norm.scale == 0.25 and norm.offset == -2.5
    assert norm(np.full((1, 1, 1, 1), 14, np.uint8)) == 1.0
    for array in (norm.mean, norm.std, norm.scale, norm.offset):
        with pytest.raises(ValueError):
            array[...] = 0


def test_statistics_are_copied():
    mean = np.zeros((1, 1, 1))
    norm = Normalizer(mean, mean + 1)
    mean[...] = 9
    assert norm.mean == 0


ONE = np.ones((3, 2, 2))


@pytest.mark.parametrize(
    "mean, std, error, words",
    [
        (ONE, ONE[:2], ValueError, "std must have shape"),
        (ONE[0], ONE, ValueError, "mean must have shape"),
        (ONE * np.nan, ONE, ValueError, "mean must hold finite"),
        (ONE, ONE * np.inf, ValueError, "std must hold finite"),
        (ONE, ONE * 0, ValueError, "std must hold positive"),
        (ONE, ONE * 1e-320, ValueError, "std must be so large"),
        (ONE, ONE * 1e-38, ValueError, "std must be so large"),  # finite in float64 alone
        (ONE * 1e38, ONE * 0.1, ValueError, "std must be so large"),
        (ONE * 1j, ONE, TypeError, "mean must be real"),
    ],
)
def test_refuses_statistics(mean, std, error, words):
    with warnings.catch_warnings(), pytest.raises(error, match=words):
        warnings.simplefilter("error")
        Normalizer(mean, std)


@pytest.mark.parametrize(
    "images, error, words",
    [
        (np.zeros((2, 3, 2, 2)), TypeError, "images must have dtype uint8"),
        (np.zeros((0, 3, 2, 2), np.uint8), ValueError, "images must hold at least one image"),
    ],
)
def test_fit_refuses_images(images, error, words):
    with pytest.raises(error, match=words):
        Normalizer.fit(images)


@pytest.mark.parametrize(
    "images, error, words",
    [
        (np.zeros((2, 3, 2, 2), np.float32), TypeError, "images must have dtype uint8"),
        (np.zeros((2, 3, 2, 3), np.uint8), ValueError, "images must have shape"),
    ],
)
def test_call_refuses_images(images, error, words):
    with pytest.raises(error, match=words):
        Normalizer(ONE, ONE)(images)
