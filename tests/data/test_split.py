"""Splits and data sets: what they accept, copy and refuse."""

import pickle

import numpy as np
import pytest

from cyconv.datasets import Dataset, Split, split as split_module


def images(n, shape=(3, 4, 4)):
    return np.arange(n * np.prod(shape), dtype=np.uint64).astype(np.uint8).reshape(n, *shape)


def test_contiguous_images_are_not_copied_and_others_become_contiguous():
    pixels = images(4)
    assert np.shares_memory(Split(pixels[1:], [0, 1, 2]).images, pixels)
    backwards = Split(pixels[::-1], [0, 1, 2, 3]).images
    assert backwards.flags.c_contiguous and np.array_equal(backwards, pixels[::-1])


def test_labels_become_int64():
    labels = Split(images(2), np.array([1, 2], ">u2")).labels
    assert labels.dtype == np.int64 and labels.tolist() == [1, 2]


def test_length_is_the_number_of_images():
    assert len(Split(images(3), [0, 0, 0])) == 3


def test_the_fingerprint_depends_on_pixels_labels_shape_and_order_only():
    split = Split(images(2), [0, 1])
    assert split.fingerprint() == Split(images(2).copy(order="F"), np.array([0, 1], np.int8)).fingerprint()
    others = [
        Split(images(2) ^ 1, [0, 1]),
        Split(images(2), [1, 1]),
        Split(images(2)[::-1], [1, 0]),
        Split(images(2).reshape(2, 3, 2, 8), [0, 1]),
    ]
    assert split.fingerprint() not in [other.fingerprint() for other in others]


def test_the_fingerprint_is_cached_only_for_immutable_data(monkeypatch):
    taken = []
    sha256 = split_module.hashlib.sha256
    monkeypatch.setattr(split_module.hashlib, "sha256", lambda data: taken.append(data) or sha256(data))

    pixels, labels = images(2).copy(), np.array([0, 1])
    split = Split(pixels, labels)
    first = split.fingerprint()
    pixels[0, 0, 0, 0] ^= 1
    second = split.fingerprint()
    labels.flags.writeable = False
    assert first != second == split.fingerprint() and len(taken) == 3  # the images can still be written to
    view = pixels[:]
    view.flags.writeable = False
    split = Split(view, labels)
    assert split.fingerprint() == second
    pixels[0, 0, 0, 0] ^= 1
    assert split.fingerprint() == first and len(taken) == 5  # through what the view is of
    pixels.flags.writeable = False
    assert split.fingerprint() == split.fingerprint() == first and len(taken) == 6
    pixels.flags.writeable = True
    pixels[0, 0, 0, 0] ^= 1
    assert split.fingerprint() == second
    pixels[0, 0, 0, 0] ^= 1
    again = pickle.loads(pickle.dumps(split))
    again.images[0, 0, 0, 0] ^= 1
    assert again.fingerprint() == second


@pytest.mark.parametrize(
    "pixels, labels, error, words",
    [
        (images(2).astype(np.float16), [0, 1], TypeError, "images must have dtype float32 or float64"),
        (images(2)[0], [0, 1], ValueError, "images must have shape"),
        (images(0), [], ValueError, "images must hold at least one image"),
        (images(2), [0], ValueError, r"labels must have shape \(2,\)"),
        (images(2), [0.0, 1.0], TypeError, "labels must be integers"),
        (images(2), [True, False], TypeError, "labels must be integers"),
        (images(2), [0, -1], ValueError, "labels must be class indices .* got -1"),
        (images(2), np.array([0, 2**63], np.uint64), ValueError, "labels must be class indices"),
    ],
)
def test_split_refuses(pixels, labels, error, words):
    with pytest.raises(error, match=words):
        Split(pixels, labels)


@pytest.mark.parametrize(
    "test, error, words",
    [
        ("no split", TypeError, "test must be a Split"),
        (Split(images(1, (3, 8, 8)), [0]), ValueError, "test must hold images of shape"),
        (Split(images(1), [2]), ValueError, "test must hold labels in 0..1"),
    ],
)
def test_dataset_refuses(test, error, words):
    good = Split(images(1), [1])
    with pytest.raises(error, match=words):
        Dataset(good, good, test, ["a", "b"], "tiny")
