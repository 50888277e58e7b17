"""Which data set a path leads to, as `--data` and `DataSource` decide."""

import io
import tarfile

import numpy as np
import pytest

from cyconv.datasets.files import find_data, load_data

pytestmark = pytest.mark.filterwarnings("ignore:.*original files:UserWarning")

CIFAR10 = {f"{name}.bin": bytes(3073 * 300) for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")}
CIFAR100 = {f"{name}.bin": bytes(3074 * 1100) for name in ("train", "test")}


def write_folder(path, files):
    path.mkdir(exist_ok=True)
    for name, raw in files.items():
        (path / name).write_bytes(raw)
    return path


def write_archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, raw in {"readme.html": b"hello", **files}.items():
            member = tarfile.TarInfo(f"cifar/{name}")
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


@pytest.mark.parametrize("files, name", [(CIFAR10, "CIFAR-10"), (CIFAR100, "CIFAR-100")])
def test_what_is_inside_tells_not_the_name(tmp_path, files, name):
    for path in (write_folder(tmp_path / "folder", files), write_archive(tmp_path / "download", files)):
        assert find_data(path) == path
        assert load_data(path).name == f"{name} (not the original files)"


def test_of_two_data_sets_in_one_folder_the_first_is_taken(tmp_path):
    write_folder(tmp_path, CIFAR10 | CIFAR100)
    assert load_data(tmp_path).name.startswith("CIFAR-10 ")


def test_protocol_and_labels_go_to_the_data_sets_that_have_them(tmp_path):
    ten, hundred = write_folder(tmp_path / "10", CIFAR10), write_folder(tmp_path / "100", CIFAR100)
    assert len(load_data(ten, protocol="batch1", labels="fine").validation) == 300
    assert load_data(hundred, protocol="full", labels="coarse").n_classes == 20
    with pytest.raises(ValueError, match="labels must be 'fine' for CIFAR-10, but got 'coarse'"):
        load_data(ten, labels="coarse")


@pytest.mark.parametrize("raw", [b"", b"hello", b"\x1f\x8b\x08 no archive"])
@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz", "images"])
def test_what_is_no_data_set_is_refused_in_a_sentence(tmp_path, monkeypatch, name, raw):
    path = tmp_path / name
    path.write_bytes(raw)
    np.savez(tmp_path / "folder.npz.bak", images=np.zeros((3, 4, 4), np.uint8))
    for place in (path, tmp_path / "folder.npz.bak", tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="data must be a folder of CIFAR-10's .*, or an .npz .* none at"):
            find_data(place)
        with pytest.raises(FileNotFoundError, match="folder must be a folder of CIFAR-10's .*, or an .npz .* none at"):
            load_data(place)
        monkeypatch.setenv("CYCONV_DATA", str(place))
        with pytest.raises(FileNotFoundError, match="CYCONV_DATA must be a folder of CIFAR-10's"):
            find_data()
