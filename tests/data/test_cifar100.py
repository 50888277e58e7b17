"""CIFAR-100's readers on files made here: both versions, both kinds of labels, containers, refusals."""

import hashlib
import io
import pickle
import tarfile
import warnings

import numpy as np
import pytest

import cyconv
from cyconv.datasets import cifar, cifar100, find_cifar100, load_cifar100, unpickler

pytestmark = pytest.mark.filterwarnings("ignore:.*original files:UserWarning")

SIZES = {"train": 30, "test": 7}


def contents(name):
    """Pixels (n, 3072), fine and coarse labels (n,) of one file."""
    n = SIZES[name]
    rng = np.random.default_rng(n)
    pixels, fine = rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, 100, n)
    fine[0] = 99
    return pixels, fine.tolist(), [19 - label // 5 for label in fine]


def binary(pixels, fine, coarse):
    """A coarse label, a fine one, and 3,072 pixels for each image."""
    return np.concatenate([np.stack([coarse, fine], axis=1).astype(np.uint8), pixels], axis=1).tobytes()


def python(protocol):
    def write(pixels, fine, coarse):
        n = len(pixels)
        return pickle.dumps(
            {
                b"filenames": [b"image_s_%06d.png" % i for i in range(n)],
                b"batch_label": b"training batch 1 of 1",
                b"fine_labels": fine,
                b"coarse_labels": coarse,
                b"data": pixels,
            },
            protocol,
        )

    return write


FORMS = {"binary": (binary, ".bin"), **{f"protocol {k}": (python(k), "") for k in range(6)}}


def write_files(folder, form="binary"):
    write, suffix = FORMS[form]
    folder.mkdir(parents=True, exist_ok=True)
    for name in SIZES:
        (folder / f"{name}{suffix}").write_bytes(write(*contents(name)))
    return folder


def write_archive(path, form, folder):
    write, suffix = FORMS[form]
    with tarfile.open(path, "w:gz") as tar:
        for name in SIZES:
            raw = write(*contents(name))
            member = tarfile.TarInfo(f"{folder}/{name}{suffix}")
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["fine", "coarse"])
def test_both_kinds_of_labels_in_every_version(tmp_path, form, kind):
    data = load_cifar100(write_files(tmp_path, form), labels=kind, validation_size=4)
    assert [len(data.train), len(data.validation), len(data.test)] == [26, 4, 7]
    for split, name, part in (
        (data.train, "train", slice(0, 26)),
        (data.validation, "train", slice(26, 30)),
        (data.test, "test", slice(None)),
    ):
        pixels, fine, coarse = contents(name)
        assert np.array_equal(split.images.reshape(len(split), -1), pixels[part])
        assert split.labels.tolist() == {"fine": fine, "coarse": coarse}[kind][part]
    assert data.n_classes == {"fine": 100, "coarse": 20}[kind]
    with pytest.raises(ValueError, match="read-only"):
        data.test.images[0] = 0


def test_class_names_are_those_of_the_original_files(tmp_path):
    write_files(tmp_path)
    names = load_cifar100(tmp_path, validation_size=4).class_names
    assert (names[0], names[42], names[99]) == ("apple", "leopard", "worm") and list(names) == sorted(names)
    names = load_cifar100(tmp_path, "coarse", validation_size=4).class_names
    assert (names[0], names[8], names[19]) == ("aquatic_mammals", "large_carnivores", "vehicles_2")


@pytest.mark.parametrize(
    "place",
    [
        "cifar-100-binary",
        "cifar-100-python",
        "cifar-100-python-target/cifar-100-python",
        "cifar-100-binary.tar.gz",
        "cifar-100-python.tar.gz",
        "other-name.tar.gz",
    ],
)
def test_every_container_holds_the_same_images(tmp_path, place):
    expected = load_cifar100(write_files(tmp_path / "a"), validation_size=4)
    form = "protocol 2" if "python" in place else "binary"
    root = tmp_path / "b"
    root.mkdir()
    if place.endswith(".gz"):
        archive = write_archive(root / place, form, place.removesuffix(".tar.gz"))
        root = archive if place.startswith("other") else root
    else:
        write_files(root / place, form)
    found = load_cifar100(find_cifar100(root), validation_size=4)
    assert [split.fingerprint() for split in (found.train, found.validation, found.test)] == [
        split.fingerprint() for split in (expected.train, expected.validation, expected.test)
    ]


def test_original_files_are_known_by_their_checksums(tmp_path, monkeypatch):
    """The checksums of the binary files also identify Python files with the same images and labels."""
    for path in write_files(tmp_path / "binary").iterdir():
        monkeypatch.setitem(cifar100.FILES.digests, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    write_files(tmp_path / "python", "protocol 4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_cifar100(tmp_path / "binary", validation_size=4).name == "CIFAR-100"
        assert load_cifar100(tmp_path / "python", "coarse", 4).name == "CIFAR-100, coarse labels"
    pixels, fine, coarse = contents("test")
    (tmp_path / "python" / "test").write_bytes(python(4)(pixels, fine, coarse[::-1]))
    with pytest.warns(UserWarning, match=r"original files of CIFAR-100 \(test\)"):
        data = load_cifar100(tmp_path / "python", "coarse", 4)
    assert data.name == "CIFAR-100, coarse labels (not the original files)"


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"labels": "medium"}, ValueError, "labels must be one of 'fine', 'coarse'"),
        ({"validation_size": 0}, ValueError, "validation_size must be an integer in"),
        ({"validation_size": 30}, ValueError, "validation_size must be less than the 30 images"),
        ({}, ValueError, "validation_size must be less than the 30 images .* but got 1000"),
        ({"folder": "nowhere"}, FileNotFoundError, "folder must be a folder of CIFAR-100's batch files"),
    ],
)
def test_refuses_arguments(tmp_path, arguments, error, words):
    with pytest.raises(error, match=words):
        load_cifar100(**{"folder": write_files(tmp_path / "files"), **arguments})


PIXELS, FINE, COARSE = contents("test")


@pytest.mark.parametrize(
    "name, raw, words",
    [
        ("test.bin", binary(PIXELS, FINE, COARSE)[:-1], "bytes, not 3074 for each of 1 to 50000"),
        ("test.bin", binary(PIXELS, FINE, [20] * 7), "the label 20, .* 0..19"),
        ("test.bin", binary(PIXELS, [100] * 7, COARSE), "the label 100, .* 0..99"),
        ("test", python(2)(PIXELS, [100] * 7, COARSE), "labels are not integers in 0..99"),
        ("test", python(2)(PIXELS, FINE, [20] * 7), "labels are not integers in 0..19"),
        ("test", python(2)(PIXELS, FINE[1:], COARSE), "6 labels for 7 images"),
        ("test", pickle.dumps({b"data": PIXELS, b"labels": FINE}), "no array 'data' and list or array 'coarse_labels'"),
    ],
)
def test_refuses_files(tmp_path, name, raw, words):
    write_files(tmp_path, "binary" if name.endswith(".bin") else "protocol 2")
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match=f"{name} in .* is not one: .*{words}"):
        load_cifar100(tmp_path, validation_size=4)


def test_cifar10_is_not_taken_for_it(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073))
    with pytest.raises(FileNotFoundError, match="there is none at"):
        find_cifar100(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_file_of_original_size_is_not_too_long(tmp_path, protocol):
    """50,000 images, whose names and labels take most of the instructions of a pickle."""
    n = 50_000
    labels = list(np.arange(n) % 20)
    names = [b"name_s_%06d.png" % i for i in range(n)]
    raw = pickle.dumps({b"filenames": names, b"fine_labels": labels, b"coarse_labels": labels}, protocol)
    batch = unpickler.read_pickle(raw, max_reads=cifar._READS_PER_IMAGE * n)
    assert batch["fine_labels"] == labels and len(batch["filenames"]) == n


def test_one_hundred_classes_are_too_many_for_a_network_of_ten(tmp_path):
    data = load_cifar100(write_files(tmp_path), validation_size=4)
    network = cyconv.Network(filter_size=16, n_filters=2, n_hidden=4)
    trainer = cyconv.CyclicTrainer(network, cyconv.CyclicSchedule(1e-5, 0.1, step_size=2, n_cycles=1), 10)
    with pytest.raises(ValueError, match=r"train must hold labels in 0\.\.9, but got 99"):
        trainer.fit(data.train, data.validation, progress=False)
