"""The synthetic data set: deterministic, balanced, and not too easy."""

import numpy as np
import pytest

from cyconv.datasets import make_shapes


@pytest.fixture(scope="module")
def data():
    return make_shapes(n_train=300, n_validation=50, n_test=50, seed=3)


def test_drawn_images_are_read_only():
    split = make_shapes(20, 10, 10).train
    for array in (split.images, split.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_shapes_types_and_names(data):
    assert [len(data.train), len(data.validation), len(data.test)] == [300, 50, 50]
    for split in (data.train, data.validation, data.test):
        assert split.images.dtype == np.uint8 and split.images.shape[1:] == (3, 32, 32)
        assert split.images.flags.c_contiguous
    assert data.name == "shapes (synthetic)" and len(set(data.class_names)) == 10


def test_the_same_bytes_on_every_machine():
    """The first images of seed 0 have the fingerprint of the first release."""
    data = make_shapes(n_train=30, n_validation=1, n_test=1)
    assert data.train.fingerprint() == "91de8d1939737798ff7dc95d8d7d26646196d9584c2dc9c1e5e2d3a8684f7688"


def test_an_image_depends_on_seed_split_and_index_only(data):
    fewer = make_shapes(n_train=131, n_validation=1, n_test=7, seed=3)
    assert np.array_equal(fewer.train.images, data.train.images[:131])
    assert np.array_equal(fewer.train.labels, data.train.labels[:131])
    assert np.array_equal(fewer.test.images, data.test.images[:7])


def test_seeds_and_splits_differ(data):
    other = make_shapes(n_train=50, n_validation=1, n_test=1, seed=4)
    for first, second in [(data.train, other.train), (data.train, data.test), (data.validation, data.test)]:
        same = (first.images[:50] == second.images[:50]).mean() if len(second) >= 50 else 0
        assert same < 0.05


def test_every_ten_images_hold_each_class_once_in_random_order(data):
    tens = data.train.labels.reshape(-1, 10)
    assert np.array_equal(np.sort(tens, axis=1), np.tile(np.arange(10), (30, 1)))
    assert len({tuple(ten) for ten in tens}) > 25


def test_images_vary_and_use_the_whole_range(data):
    images = data.train.images
    assert len(np.unique(images.reshape(300, -1), axis=0)) == 300
    assert images.min() == 0 and images.max() == 255
    assert images.astype(float).std(axis=0).min() > 30


def test_a_nearest_mean_classifier_does_badly(data):
    """It predicts the class with the nearest mean image; networks do much better."""
    big = make_shapes(n_train=2000, n_validation=1, n_test=500)
    train, test = (split.images.reshape(len(split), -1).astype(np.float64) for split in (big.train, big.test))
    means = np.stack([train[big.train.labels == k].mean(axis=0) for k in range(10)])
    nearest = (means @ test.T - 0.5 * (means * means).sum(axis=1)[:, None]).argmax(axis=0)
    assert (nearest == big.test.labels).mean() < 0.4


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"n_train": 0}, ValueError, "n_train must be an integer in"),
        ({"n_test": 10**9}, ValueError, "n_test must be an integer in"),
        ({"n_validation": 2.5}, TypeError, "n_validation must be an integer"),
        ({"seed": "0"}, TypeError, "seed must be an integer"),
    ],
)
def test_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        make_shapes(**arguments)
