"""Data sets of one's own from .npy files, which are mapped: what is read, copied and refused."""

import os

import numpy as np
import pytest
from builds import run_program

import cyconv
from cyconv import _checks
from cyconv.datasets import load_npy, load_npz
from cyconv.datasets.files import find_data, load_data
from cyconv.experiments import DataSource

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
LABELS = np.arange(40) % 7
ARRAYS = {
    "train_images": IMAGES[:30],
    "train_labels": LABELS[:30],
    "test_images": IMAGES[30:],
    "test_labels": LABELS[30:],
}
WHOLE = {"images": IMAGES, "labels": LABELS}


@pytest.fixture
def write(tmp_path):
    """write(arrays, **changes) -> folder; None leaves an array out."""

    def save(arrays, **changes):
        folder = tmp_path / "mine"
        folder.mkdir(exist_ok=True)
        for name, array in {**arrays, **changes}.items():
            if array is not None:
                np.save(folder / f"{name}.npy", array)
        return folder

    return save


def is_mapped(array):
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


@pytest.mark.parametrize(
    "arrays",
    [
        ARRAYS,
        WHOLE,
        {"images": IMAGES[:, 0], "labels": LABELS.astype(np.uint8), "class_names": np.array(list("abcdefg"))},
        {**ARRAYS, "validation_images": IMAGES[:4], "validation_labels": LABELS[:4]},
    ],
)
def test_a_folder_holds_what_an_npz_of_the_same_arrays_holds(write, tmp_path, arrays):
    np.savez(tmp_path / "mine.npz", **arrays)
    data, same = load_npy(write(arrays)), load_npz(tmp_path / "mine.npz")
    assert data.name == "mine" and data.class_names == same.class_names
    for which in ("train", "validation", "test"):
        split, other = getattr(data, which), getattr(same, which)
        assert split.fingerprint() == other.fingerprint()
        assert is_mapped(split.images) and not split.images.flags.writeable and not is_mapped(other.images)


def test_a_folder_is_recognised_among_the_formats(write, monkeypatch):
    folder = write(WHOLE)
    assert find_data(folder) == folder and load_data(folder).name == "mine"
    monkeypatch.chdir(folder)
    assert load_data(".").name == "mine"


def test_a_source_of_a_folder_is_loaded_again_when_a_file_was_written_anew(write):
    source = DataSource(write(WHOLE))
    first = source.load()
    assert source.load() is first
    write({"images": IMAGES[:20], "labels": LABELS[:20]})
    assert len(source.load().train) == 17


def test_the_fingerprint_is_taken_again_only_when_a_file_was_written_anew(write, monkeypatch):
    folder = write(ARRAYS)
    os.utime(folder / "train_images.npy", (0, 0))
    split = load_npy(folder).train
    first = split.fingerprint()
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.sha256", None)
        assert split.fingerprint() == first
    with open(folder / "train_images.npy", "r+b") as file:
        file.seek(1000)
        file.write(bytes(1000))
    assert split.fingerprint() == load_npy(folder).train.fingerprint() != first
    images = np.load(folder / "train_images.npy", mmap_mode="r+")
    writable = cyconv.Split(images, LABELS[:30])
    first = writable.fingerprint()
    images[0] ^= 1
    assert writable.fingerprint() != first


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"test_labels": None}, ValueError, "path must hold .* but .*mine lacks test_labels"),
        ({"ids": LABELS}, ValueError, "holds ids"),
        ({"train_images": IMAGES[:30] / 255}, TypeError, "train_images must have dtype uint8"),
        ({"test_labels": LABELS[30:] - 1}, ValueError, "test_labels must be class indices"),
        ({"train_images": IMAGES[:0], "train_labels": []}, ValueError, "train_images must hold at least one image"),
        (
            {"class_names": np.array(list("abcdefg"), object)},
            ValueError,
            "path must hold .npy files, but .*class_names",
        ),
        ({"train_images": np.zeros((30, 8, 8, 3), np.uint8)}, ValueError, "channels come last"),
    ],
)
def test_mistakes_in_a_folder_are_told_in_a_sentence(write, changes, error, words):
    with pytest.raises(error, match=words):
        load_npy(write(ARRAYS, **changes))


def test_damaged_files_and_missing_folders_are_told_in_a_sentence(write, tmp_path):
    folder = write(ARRAYS)
    path = folder / "train_images.npy"
    raw = path.read_bytes()
    for damaged in (b"", raw[:40], raw[:-1], b"hello", b"PK" + raw[2:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"path must hold .npy files, but .*train_images.npy is not one or is dam"):
            load_npy(folder)
    for place in (path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"path must be a folder of .npy files, but there is no folder"):
            load_npy(place)
    with pytest.raises(ValueError, match="validation_size must be None if the folder holds validation images"):
        load_npy(write(ARRAYS, validation_images=IMAGES[:4], validation_labels=LABELS[:4]), validation_size=3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    pipe = tmp_path / "images.npy"
    os.mkfifo(pipe)
    handle = os.open(pipe, os.O_RDWR)
    try:
        os.write(handle, bytes(1000))  # so that nothing waits if the pipe is read
        with pytest.raises(ValueError, match=f"^path must hold .npy files, but {pipe} is not a regular file$"):
            load_npy(tmp_path)
    finally:
        os.close(handle)


def test_mapped_images_may_be_larger_than_memory(write, monkeypatch):
    data = load_npy(write({"images": np.zeros((20_000, 3, 16, 16), np.uint8), "labels": np.arange(20_000) % 2}))
    monkeypatch.setattr(_checks, "available_memory", lambda: 5_000_000)
    assert data.train.images.nbytes > 13_000_000
    again = cyconv.Split(data.train.images, data.train.labels)
    network = cyconv.Network(8, 2, 4, n_classes=2, image_shape=(3, 16, 16))
    trainer = cyconv.CyclicTrainer(network, cyconv.CyclicSchedule(0.001, 0.1, 2, 1), batch_size=20)
    assert trainer.fit(again, data.validation, progress=False).complete
    for copied in (data.train.images[::2], data.train.images.transpose(0, 1, 3, 2), data.train.images.astype(">u2")):
        with pytest.raises(
            MemoryError, match=r"^images needs \d+,\d{3},\d{3} bytes, but this process may use at most 5,"
        ):
            cyconv.Split(copied, data.train.labels[: len(copied)])
    with pytest.raises(MemoryError, match=r"^the normalised images needs"):
        network.normalizer(data.train.images)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_training_on_mapped_images_takes_no_memory_for_them(dtype, tmp_path):
    """600 MB, read from a folder by DataSource, with less than a fifth of that to spend."""
    found = run_program("memory_use.py", "mapped", dtype, tmp_path, OMP_NUM_THREADS="2", timeout=300)
    assert found["images"] == 600 and found["peak"] < 60
