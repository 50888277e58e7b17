"""Data sets of one's own from an .npz: how they are split, and what is wrong with a file in one sentence."""

import warnings

import numpy as np
import pytest

from cyconv import _checks, _files
from cyconv.datasets import Dataset, load_npz

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
LABELS = np.arange(40) % 7
ARRAYS = {
    "train_images": IMAGES[:30],
    "train_labels": LABELS[:30],
    "test_images": IMAGES[30:],
    "test_labels": LABELS[30:],
}


@pytest.fixture
def write(tmp_path):
    """write(arrays, **changes) -> path; None leaves an array out."""

    def save(arrays, saver=np.savez, **changes):
        path = tmp_path / "mine.npz"
        saver(path, **{name: array for name, array in {**arrays, **changes}.items() if array is not None})
        return path

    return save


def sizes(data):
    return [len(data.train), len(data.validation), len(data.test)]


@pytest.mark.parametrize("saver", [np.savez, np.savez_compressed])
def test_the_last_tenth_of_the_training_images_validates(write, saver):
    data = load_npz(write(ARRAYS, saver))
    assert isinstance(data, Dataset) and data.name == "mine.npz" and sizes(data) == [27, 3, 10]
    assert np.array_equal(data.train.images, IMAGES[:27]) and data.validation.labels.tolist() == [6, 0, 1]
    assert np.array_equal(data.test.images, IMAGES[30:])
    assert data.class_names == tuple("0123456") and data.image_shape == (3, 8, 8)
    with pytest.raises(ValueError, match="read-only"):
        data.train.images[0] = 0


def test_at_most_one_thousand_validate_by_default(write):
    images, labels = np.zeros((11_000, 1, 1, 1), np.uint8), np.arange(11_000) % 2
    path = write({"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels})
    assert sizes(load_npz(path)) == [10_000, 1000, 11_000]
    assert sizes(load_npz(path, validation_size=5000)) == [6000, 5000, 11_000]


def test_validation_images_of_the_file_validate(write):
    path = write(ARRAYS, validation_images=IMAGES[5:9], validation_labels=LABELS[5:9])
    data = load_npz(path)
    assert sizes(data) == [30, 4, 10] and np.array_equal(data.validation.images, IMAGES[5:9])
    with pytest.raises(ValueError, match="validation_size must be None if the file holds validation images"):
        load_npz(path, validation_size=3)


def test_images_and_labels_are_split_in_order(write):
    data = load_npz(write({"images": IMAGES, "labels": LABELS}))
    assert sizes(data) == [33, 3, 4]
    assert np.array_equal(np.concatenate([s.images for s in (data.train, data.validation, data.test)]), IMAGES)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i8"])
def test_grey_images_get_their_channel_and_labels_are_any_integers(write, dtype):
    data = load_npz(write({"images": IMAGES[:, 0], "labels": LABELS.astype(dtype)}))
    assert data.image_shape == (1, 8, 8) and data.train.labels.tolist() == LABELS[:33].tolist()


@pytest.mark.parametrize(
    "names", [["a", "b", "c", "d", "e", "f", "ö"], [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"]]
)
def test_class_names(write, names):
    data = load_npz(write(ARRAYS, class_names=np.array(names)))
    assert data.class_names == tuple(name if isinstance(name, str) else name.decode() for name in names)


def test_what_is_sorted_by_class_is_told(write):
    with pytest.warns(UserWarning, match="mine.npz is sorted by class") as caught:
        load_npz(write({"images": IMAGES, "labels": np.sort(LABELS)}))
    assert len(caught) == 1 and caught[0].filename == __file__
    with pytest.warns(UserWarning, match="sorted by class"):
        load_npz(write(ARRAYS, train_labels=np.sort(LABELS[:30])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_npz(write(ARRAYS, test_labels=np.sort(LABELS[30:])))  # which nobody splits
        load_npz(write({"images": IMAGES, "labels": 0 * LABELS}))


def test_the_fingerprint_of_a_loaded_split_is_taken_once(write, monkeypatch):
    data = load_npz(write(ARRAYS))
    first = data.train.fingerprint()
    monkeypatch.setattr("hashlib.sha256", None)
    assert data.train.fingerprint() == first


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"test_labels": None}, ValueError, "path must hold .* but .*mine.npz lacks test_labels"),
        ({"test_images": None, "test_labels": None}, ValueError, "lacks test_images, test_labels"),
        ({"validation_images": IMAGES[:3]}, ValueError, "lacks validation_labels"),
        ({"valid_images": IMAGES}, ValueError, "holds valid_images"),
        ({"images": IMAGES}, ValueError, "lacks labels and holds test_images, test_labels, train_images, train_labels"),
        (
            {"train_images": IMAGES.astype(str)},
            TypeError,
            "path must hold .* but in .*mine.npz train_images must have dtype uint8",
        ),
        ({"train_images": IMAGES.astype(int) - 1}, ValueError, r"train_images must hold pixels in 0\.\.255"),
        ({"test_images": IMAGES[30:, 0, 0]}, ValueError, "test_images must have shape"),
        (
            {"train_images": np.zeros((30, 8, 8, 3), np.uint8)},
            ValueError,
            r"channels come last: train_images.transpose\(0, 3, 1, 2\) has them first",
        ),
        ({"train_labels": LABELS[:29]}, ValueError, r"train_labels must have shape \(30,\)"),
        ({"train_labels": LABELS[:30] / 2}, TypeError, "train_labels must be integers"),
        ({"train_images": IMAGES[:30] / 255}, TypeError, "train_images must have dtype uint8"),
        ({"train_labels": np.full((30, 7), 1 / 7)}, TypeError, "train_labels must be class indices"),
        ({"test_labels": LABELS[30:] - 1}, ValueError, "test_labels must be class indices"),
        (
            {"validation_images": IMAGES[:0], "validation_labels": []},
            ValueError,
            "validation_images must hold at least",
        ),
        ({"test_images": IMAGES[30:, :, :4]}, ValueError, "test must hold images of shape .* as train does"),
        (
            {"class_names": np.array(["a", "b"])},
            ValueError,
            "class_names must name every class, .* 2 names and a label 6",
        ),
        ({"class_names": np.arange(7)}, TypeError, "class_names must be a one-dimensional array of text"),
        ({"class_names": np.array("abcdefg")}, TypeError, "class_names must be a one-dimensional array of text"),
        ({"train_labels": LABELS[:30] + 2**30}, ValueError, "labels must be class indices in"),
        ({"train_images": IMAGES[:1], "train_labels": [0]}, ValueError, "more images than the 1 for validation"),
        ({"class_names": np.array(list("abcdefg"), object)}, ValueError, "is not one or is damaged: .*object"),
    ],
)
def test_mistakes_in_a_file_are_told_in_a_sentence(write, changes, error, words):
    with pytest.raises(error, match=words):
        load_npz(write(ARRAYS, **changes))


def test_what_is_no_npz_is_told_in_a_sentence(tmp_path, write):
    with pytest.raises(FileNotFoundError, match="path must be an .npz file, but there is no file"):
        load_npz(tmp_path)
    whole = write(ARRAYS).read_bytes()
    for raw in (b"", whole[:5000], whole[:200] + bytes(50) + whole[250:]):
        (tmp_path / "broken.npz").write_bytes(raw)
        with pytest.raises(ValueError, match=r"path must be an .npz file, but .*broken.npz is not one or is damaged"):
            load_npz(tmp_path / "broken.npz")
    for size in (0, 30, 2.5):
        with pytest.raises(
            (TypeError, ValueError), match=r"validation_size must be an integer|more images than the 30"
        ):
            load_npz(write(ARRAYS), validation_size=size)


def test_what_a_file_declares_is_compared_with_the_memory_before_it_is_read(write, monkeypatch):
    images = np.zeros((100, 64, 64), np.uint8)
    path = write({"images": images, "labels": np.arange(100) % 2}, np.savez_compressed)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(_checks, "available_memory", lambda: 100_000)
    monkeypatch.setattr(_files, "_read_members", None)
    with pytest.raises(MemoryError, match=r"reading .*mine.npz needs 41\d,\d{3} bytes"):
        load_npz(path)
