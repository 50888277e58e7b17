"""CIFAR-10's readers on files made here: both versions, all containers, broken and hostile ones."""

import functools
import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import tracemalloc
import warnings

import numpy as np
import pytest

from cyconv.datasets import Split, archive as archive_module, cifar, cifar10, find_cifar10, load_cifar10
from cyconv.datasets.unpickler import read_pickle

pytestmark = pytest.mark.filterwarnings("ignore:.*original files:UserWarning")

NAMES = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
N = 6  # images per file


def batch(number, n=N):
    """Pixels (n, 3072) and labels (n,) of the test's own batch; image i of batch b starts with b, i."""
    pixels = np.random.default_rng(number).integers(0, 256, (n, 3072), dtype=np.uint8)
    pixels[:, 0], pixels[:, 1] = number, np.arange(n)
    return pixels, [(number + i) % 10 for i in range(n)]


def binary(pixels, labels):
    return np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1).tobytes()


def short(text):
    return b"U" + bytes([len(text)]) + text


def python2(pixels, labels):
    """A batch as Python 2's cPickle wrote it, memo and all."""
    memo = iter(range(1000))

    def put():
        return b"q" + bytes([next(memo)])

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n"
        + put()
        + b"cnumpy\nndarray\n"
        + put()
        + b"K\x00\x85"
        + put()
        + b"U\x01b"
        + put()
        + b"\x87"
        + put()
        + b"R"
        + put()
        + b"(K\x01\x8a\x02"
        + struct.pack("<h", len(pixels))
        + b"M\x00\x0c\x86"
        + b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T"
        + struct.pack("<i", pixels.size)
        + pixels.tobytes()
        + b"tb"
    )
    return (
        b"\x80\x02}"
        + put()
        + b"("
        + short(b"batch_label")
        + put()
        + short(b"testing batch 1 of 1")
        + short(b"labels")
        + b"]"
        + put()
        + b"("
        + b"".join(b"K" + bytes([y]) for y in labels)
        + b"e"
        + short(b"data")
        + array
        + short(b"filenames")
        + b"]("
        + short(b"a.png") * len(labels)
        + b"eu."
    )


def python3(pixels, labels, protocol=4):
    return pickle.dumps({b"data": pixels, b"labels": labels}, protocol=protocol)


def write_folder(folder, form=binary, suffix=".bin", names=NAMES, n=N):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}{suffix}").write_bytes(form(*batch(NAMES.index(name), n)))
    return folder


def write_archive(path, form=binary, suffix=".bin", folder="cifar-10-batches-bin", names=NAMES):
    members = {f"{folder}/{name}{suffix}": form(*batch(NAMES.index(name))) for name in names}
    return write_tar(path, {f"{folder}/readme.html": b"hello", **members})


def write_tar(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def origins(split):
    """(batch, index) of every image, as batch() marked them."""
    return [tuple(int(v) for v in image[0, 0, :2]) for image in split.images]


def everything(data):
    return [split.fingerprint() for split in (data.train, data.validation, data.test)]


def parse_python(raw):
    pixels, labels = cifar._parse_python(cifar10.FILES, raw)
    return pixels, labels[:, 0]


# Protocols and contents


def test_what_was_loaded_is_read_only(tmp_path):
    write_folder(tmp_path)
    data = load_cifar10(tmp_path, validation_size=3)
    for array in (data.train.images, data.validation.labels, data.test.images):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert data.train.fingerprint() == Split(data.train.images.copy(), data.train.labels.copy()).fingerprint()


def test_last_training_images_validate(tmp_path):
    data = load_cifar10(write_folder(tmp_path), validation_size=8)
    expected = [(b, i) for b in range(5) for i in range(N)]
    assert origins(data.train) == expected[:-8] and origins(data.validation) == expected[-8:]
    assert origins(data.test) == [(5, i) for i in range(N)]
    assert data.train.labels.tolist() == [(b + i) % 10 for b, i in expected[:-8]]


def test_batches_train_in_the_order_asked(tmp_path):
    data = load_cifar10(write_folder(tmp_path), train_batches=[3, 1], validation_batches=(2,))
    assert origins(data.train) == [(2, i) for i in range(N)] + [(0, i) for i in range(N)]
    assert origins(data.validation) == [(1, i) for i in range(N)]


def test_one_thousand_images_validate_by_default(tmp_path):
    data = load_cifar10(write_folder(tmp_path, n=250))
    assert [len(data.train), len(data.validation), len(data.test)] == [250, 1000, 250]


def test_only_the_files_asked_for_are_needed(tmp_path):
    write_folder(tmp_path, names=["data_batch_1", "data_batch_2", "test_batch"])
    assert len(load_cifar10(tmp_path, train_batches=(1,), validation_batches=(2,)).train) == N


def test_pixels_are_rows_of_colour_planes(tmp_path):
    data = load_cifar10(write_folder(tmp_path), validation_size=1)
    assert np.array_equal(data.train.images[2], batch(0)[0][2].reshape(3, 32, 32))
    assert data.train.images.dtype == np.uint8 and data.train.images.flags.c_contiguous
    assert data.class_names[6] == "frog"


def test_training_and_validation_images_are_held_once(tmp_path):
    data = load_cifar10(write_folder(tmp_path), validation_size=4)
    assert data.train.images.base is not None and data.train.images.base is data.validation.images.base


def test_batches_of_original_size_keep_their_place(tmp_path):
    write_folder(tmp_path, names=["data_batch_1"], n=10_000)
    write_folder(tmp_path, names=["data_batch_2", "test_batch"])
    data = load_cifar10(tmp_path, train_batches=(1, 2), validation_size=N)
    assert len(data.train) == 10_000 and origins(data.validation) == [(1, i) for i in range(N)]


# Containers and versions


@pytest.mark.parametrize(
    "form, suffix",
    [
        (binary, ".bin"),
        (python2, ""),
        (python3, ""),
        (lambda *contents: python3(*contents, protocol=2), ""),
        (lambda *contents: python3(*contents, protocol=3).replace(b"numpy._core", b"numpy.core"), ""),
        (lambda *contents: python3(*contents, protocol=3).replace(b"numpy.core", b"numpy._core"), ""),
        (lambda pixels, labels: python3(np.asfortranarray(pixels), labels), ""),
    ],
    ids=["binary", "python2", "python3", "python3-protocol2", "numpy1", "numpy2", "fortran"],
)
def test_every_version_holds_the_same_images(tmp_path, form, suffix):
    reference = everything(load_cifar10(write_folder(tmp_path / "a"), validation_size=5))
    other = write_folder(tmp_path / "b", form, suffix)
    assert everything(load_cifar10(other, validation_size=5)) == reference


SPELLINGS = {1: (b"numpy._core", b"numpy.core"), 2: (b"numpy.core", b"numpy._core")}


def written_anew(numpy, protocol, contents):
    """A batch as people write it, with the names that NumPy 1 or 2 gives its parts."""
    raw = pickle.dumps(contents, protocol)
    old, new = SPELLINGS[numpy]
    if protocol < 4:
        return raw.replace(old, new)
    for module in (b".multiarray", b".numeric"):  # texts that tell their length, in a frame that does
        before, after = old + module, new + module
        raw = raw.replace(b"\x8c" + bytes([len(before)]) + before, b"\x8c" + bytes([len(after)]) + after)
    raw = b"\x80" + bytes([protocol]) + raw[11:] if raw[2:3] == b"\x95" else raw
    assert old not in raw and new in raw
    return raw


LABELS_AS = {
    "a list": list,
    "int64": lambda labels: np.array(labels, "<i8"),
    "int32, big-endian": lambda labels: np.array(labels, ">i4"),
    "uint8": lambda labels: np.array(labels, np.uint8),
    "uint16, a column": lambda labels: np.array(labels, np.uint16)[:, None],
    "every other of twice as many": lambda labels: np.repeat(np.array(labels), 2)[::2],
    "NumPy's integers": lambda labels: list(np.array(labels)),
    "NumPy's bytes": lambda labels: list(np.array(labels, np.uint8)),
    "NumPy's big-endian integers": lambda labels: list(np.array(labels, ">i8")),
}
PIXELS_AS = {
    "rows": lambda pixels: pixels,
    "read-only": lambda pixels: np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape),
    "Fortran order": np.asfortranarray,
    "images": lambda pixels: pixels.reshape(-1, 3, 32, 32),
    "images, once channels last": lambda pixels: np.ascontiguousarray(
        pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    ).transpose(0, 3, 1, 2),
    "every other of twice as many": lambda pixels: np.repeat(pixels, 2, axis=0)[::2],
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("numpy", SPELLINGS)
def test_batches_written_anew_hold_the_same(numpy, protocol):
    pixels, labels = batch(2)
    for pixels_as in PIXELS_AS.values():
        for labels_as in LABELS_AS.values():
            for key in (str, str.encode):
                contents = {
                    key("data"): pixels_as(pixels),
                    key("labels"): labels_as(labels),
                    key("batch_label"): key("testing batch 1 of 1"),
                    key("filenames"): [key("ä.png")] * N,
                }
                found = parse_python(written_anew(numpy, protocol, contents))
                assert np.array_equal(found[0], pixels)
                assert found[1].tolist() == labels and found[1].dtype == np.int64


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("encoding", ["bytes", "latin1"])
def test_original_files_loaded_and_written_anew(protocol, encoding):
    """What `pickle.load(file, encoding=...)` makes of a file of Python 2, dumped again."""
    pixels, labels = batch(1)
    again = pickle.loads(python2(pixels, labels), encoding=encoding)
    raw = pickle.dumps(again, protocol)
    found = parse_python(raw)
    assert np.array_equal(found[0], pixels) and found[1].tolist() == labels
    assert set(read_pickle(raw)) == {"batch_label", "labels", "data", "filenames"}


@pytest.mark.slow
def test_a_batch_of_original_size_is_not_too_long_in_any_protocol():
    """Files of 10,000 images, whose names and labels take most instructions as NumPy's integers and as bytes."""
    pixels, labels = np.zeros((10_000, 3072), np.uint8), [3] * 10_000
    names = [b"name_s_%06d.png" % i for i in range(10_000)]
    for protocol in range(6):
        raw = pickle.dumps({b"data": pixels, b"labels": list(np.array(labels)), b"filenames": names}, protocol)
        assert parse_python(raw)[1].tolist() == labels


@pytest.mark.parametrize("form, suffix, kind", [(binary, ".bin", "bin"), (python2, "", "py")])
@pytest.mark.parametrize("container", ["parent", "archive", "folder of archive", "relative"])
def test_every_container_holds_the_same_images(tmp_path, monkeypatch, form, suffix, kind, container):
    reference = everything(load_cifar10(write_folder(tmp_path / "a"), validation_size=5))
    place = tmp_path / "b"
    folder = f"cifar-10-batches-{kind}"
    if container in ("parent", "relative"):
        write_folder(place / folder, form, suffix)
    else:
        place.mkdir()
        name = "cifar-10-binary.tar.gz" if kind == "bin" else "cifar-10-python.tar.gz"
        archive = write_archive(place / name, form, suffix, folder)
        place = archive if container == "archive" else place
    if container == "relative":
        monkeypatch.chdir(tmp_path)
        place = "b"
    assert everything(load_cifar10(place, validation_size=5)) == reference


def test_binary_files_are_preferred(tmp_path):
    write_folder(tmp_path / "cifar-10-batches-bin")
    write_folder(tmp_path / "cifar-10-batches-py", lambda *contents: b"never read", "")
    assert len(load_cifar10(tmp_path, validation_size=5).test) == N


def test_complete_files_are_preferred_to_incomplete_ones(tmp_path):
    write_folder(tmp_path / "cifar-10-batches-bin", names=["data_batch_1"])
    write_folder(tmp_path / "cifar-10-batches-py", python2, "")
    assert len(load_cifar10(tmp_path, validation_size=5).test) == N


# Original files


def test_other_bytes_are_told_once_and_in_the_name(tmp_path):
    write_folder(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load_cifar10(tmp_path, validation_size=5)
    assert [w.category for w in caught] == [UserWarning]
    assert "original files" in str(caught[0].message) and "data_batch_3.bin" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert data.name == "CIFAR-10 (not the original files)"


@pytest.mark.parametrize("form, suffix, algorithm", [(binary, ".bin", "sha1"), (python2, "", "md5")])
def test_original_files_are_known_by_their_checksums(tmp_path, monkeypatch, form, suffix, algorithm):
    write_folder(tmp_path, form, suffix)
    for path in tmp_path.iterdir():
        monkeypatch.setitem(cifar10.FILES.digests, path.name, hashlib.new(algorithm, path.read_bytes()).hexdigest())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_cifar10(tmp_path, validation_size=5).name == "CIFAR-10"


def test_original_pixels_are_known_in_files_written_anew(tmp_path, monkeypatch):
    """By the checksums of the binary version, which holds the same images in the same order."""
    for path in write_folder(tmp_path / "binary").iterdir():
        monkeypatch.setitem(cifar10.FILES.digests, path.name, hashlib.sha1(path.read_bytes()).hexdigest())
    write_folder(tmp_path / "anew", python3, "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_cifar10(tmp_path / "anew", validation_size=5).name == "CIFAR-10"
    pixels, labels = batch(1)
    for changed in ((pixels ^ 1, labels), (pixels, labels[::-1])):
        (tmp_path / "anew" / "data_batch_2").write_bytes(python3(*changed))
        with pytest.warns(UserWarning, match=r"original files of CIFAR-10 \(data_batch_2\)"):
            load_cifar10(tmp_path / "anew", validation_size=5)


# Arguments


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"train_batches": ()}, ValueError, "train_batches must name one or more"),
        ({"train_batches": (1, 1)}, ValueError, "train_batches must name one or more .* each once"),
        ({"train_batches": (0,)}, ValueError, r"train_batches\[0\] must be an integer in \[1, 5\]"),
        ({"train_batches": (1, 2.0)}, TypeError, r"train_batches\[1\] must be an integer"),
        ({"train_batches": 1}, TypeError, "train_batches must be a sequence"),
        ({"train_batches": "12"}, TypeError, "train_batches must be a sequence"),
        ({"validation_size": 0}, ValueError, "validation_size must be an integer in"),
        ({"validation_size": 50_000}, ValueError, "validation_size must be an integer in"),
        ({"validation_size": 30}, ValueError, "validation_size must be less than the 30 images"),
        ({"validation_size": 5.0}, TypeError, "validation_size must be an integer"),
        ({"validation_batches": (2,)}, ValueError, "validation_batches must share no batch"),
        (
            {"train_batches": (1,), "validation_batches": (2,), "validation_size": 5},
            ValueError,
            "validation_size must not be given together",
        ),
    ],
)
def test_refuses_arguments(tmp_path, arguments, error, words):
    write_folder(tmp_path)
    with pytest.raises(error, match=words):
        load_cifar10(tmp_path, **arguments)


def test_refuses_what_is_no_path():
    with pytest.raises(TypeError, match="folder must be a path"):
        load_cifar10(5)


# Missing and broken files


def test_nothing_there(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="folder must be a folder of CIFAR-10's batch files"):
            load_cifar10(place)
    with pytest.raises(ValueError, match="folder must be a path, which holds no null character"):
        load_cifar10("a\0b")


def test_a_missing_file_is_named(tmp_path):
    write_folder(tmp_path, names=["data_batch_1", "test_batch"])
    with pytest.raises(FileNotFoundError, match="has no data_batch_4.bin"):
        load_cifar10(tmp_path, train_batches=(1, 4), validation_size=1)


def test_a_missing_member_is_named(tmp_path):
    path = write_archive(tmp_path / "x.tar.gz", names=["data_batch_1"])
    with pytest.raises(FileNotFoundError, match="has no test_batch"):
        load_cifar10(path, train_batches=(1,), validation_size=1)


def load_with(tmp_path, raw, name):
    """Load a folder in which one file holds ``raw``."""
    suffix = ".bin" if name.endswith(".bin") else ""
    write_folder(tmp_path, binary if suffix else python2, suffix)
    (tmp_path / name).write_bytes(raw)
    return load_cifar10(tmp_path, validation_size=5)


PIXELS, LABELS = batch(0)


@pytest.mark.parametrize(
    "raw, words",
    [
        (b"", "0 bytes"),
        (binary(PIXELS, LABELS)[:-1], "bytes, not 3073 for each"),
        (binary(PIXELS, LABELS) + b"x", "bytes, not 3073 for each"),
        (binary(PIXELS, [0, 1, 2, 3, 10, 5]), "the label 10"),
        (bytes(3073 * 10_001), "bytes, not 3073 for each of 1 to 10000"),
    ],
    ids=["empty", "truncated", "longer", "label", "too many"],
)
def test_refuses_binary_files(tmp_path, raw, words):
    with pytest.raises(ValueError, match=f"data_batch_2.bin in .* is not one: .*{words}"):
        load_with(tmp_path, raw, "data_batch_2.bin")


def other(**entries):
    changed = {name.encode(): value for name, value in entries.items()}
    return pickle.dumps({b"data": PIXELS, b"labels": LABELS, **changed}, 4)


@pytest.mark.parametrize(
    "raw, words",
    [
        (b"", "damaged"),
        (b"PK\x03\x04 a zip file", "pickle instruction 0x50"),
        (python2(PIXELS, LABELS)[:-3000], "cut short"),
        (python2(PIXELS, LABELS)[:-1], "damaged"),
        (pickle.dumps([1, 2], 2), "a list, no dictionary"),
        (pickle.dumps({}, 2), "no array 'data'"),
        (other(data=[1]), "no array 'data'"),
        (other(labels="012345"), "no array 'data' and list or array 'labels'"),
        (other(labels=PIXELS), "18432 labels for 6 images"),
        (other(labels=np.eye(10)[LABELS]), "dtype 'f8', no integers"),
        (other(labels=np.array(LABELS) - 1), "labels are not integers in 0..9"),
        (other(labels=np.array(LABELS, bool)), "dtype 'b1', no integers"),
        (other(labels=[np.int8(-1)] * 6), "labels are not integers in 0..9"),
        (other(labels=[np.float64(1)] * 6), "dtype 'f8', no integers"),
        (other(labels=[LABELS] * 6), "labels are not integers in 0..9"),
        (other(data=PIXELS.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), "shape"),
        (other(data=PIXELS.astype(np.int16)), "dtype 'i2', not uint8"),
        (other(data=PIXELS[:, :-1]), "shape"),
        (other(data=PIXELS[0]), "shape"),
        (other(data=PIXELS[:0], labels=[]), "shape"),
        (other(labels=LABELS[:-1]), "5 labels for 6 images"),
        (other(labels=[0, 1, 2, 3, 4, 10]), "labels are not integers in 0..9"),
        (other(labels=[0, 1, 2, 3, 4, -1]), "labels are not integers in 0..9"),
        (other(labels=[0, 1, 2, 3, 4, True]), "labels are not integers in 0..9"),
        (other(labels=[0, 1, 2, 3, 4, "5"]), "labels are not integers in 0..9"),
    ],
)
def test_refuses_python_files(tmp_path, raw, words):
    with pytest.raises(ValueError, match=f"data_batch_2 in .* is not one: .*{words}"):
        load_with(tmp_path, raw, "data_batch_2")


def test_a_file_too_large_is_not_read(tmp_path):
    write_folder(tmp_path)
    with open(tmp_path / "data_batch_2.bin", "wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(ValueError, match="data_batch_2.bin has 1099511627776 bytes"):
        load_cifar10(tmp_path, validation_size=5)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_block(tmp_path):
    write_folder(tmp_path, names=NAMES[:5])
    os.mkfifo(tmp_path / "test_batch.bin")
    with pytest.raises(FileNotFoundError, match="has no test_batch.bin"):
        load_cifar10(tmp_path, validation_size=5)


# Pickles from strangers


class Call:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def reconstruct(*arguments):
    return Call(np.zeros(1).__reduce__()[0], *arguments)


FROMBUFFER = np.zeros(1).__reduce_ex__(5)[0]

HOSTILE = {
    "os.system": lambda mark: Call(os.system, f"touch {mark}"),
    "eval": lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"),
    "open": lambda mark: Call(open, str(mark), "w"),
    "np.load": lambda mark: Call(np.load, str(mark)),
    "np.fromfile": lambda mark: Call(np.fromfile, str(mark)),
    "getattr": lambda mark: Call(getattr, dict, "clear"),
    "_reconstruct of another type": lambda mark: reconstruct(dict, (0,), b"b"),
    "ndarray itself": lambda mark: Call(np.ndarray, (2**40,)),
    "_frombuffer of another dtype": lambda mark: Call(FROMBUFFER, b"12345678", np.dtype(object), (1,), "C"),
    "_frombuffer of what is no buffer": lambda mark: Call(FROMBUFFER, str(mark), np.dtype("u1"), (1,), "C"),
    "a scalar of another dtype": lambda mark: Call(np.int64(0).__reduce__()[0], np.dtype("V8"), b"12345678"),
    "bytearray": lambda mark: Call(bytearray, 2**40),
    "another encoding": lambda mark: Call(__import__("_codecs").encode, "a", "rot13"),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", HOSTILE)
def test_no_pickle_is_executed(tmp_path, name, protocol):
    mark = tmp_path / "ran"
    raw = pickle.dumps({b"data": PIXELS, b"labels": LABELS, b"x": HOSTILE[name](mark)}, protocol)
    with pytest.raises(ValueError, match="data_batch_1 in .* is not one: it"):
        load_with(tmp_path / "files", raw, "data_batch_1")
    assert not mark.exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x80\x02B\xff\xff\xff\xff.",  # four gigabytes of bytes that are not there
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02T\xff\xff\xff\xff.",  # a negative length
        b"\x80\x02X\xff\xff\xff\xff.",
        b"\x80\x02}r\xff\xff\xff\xff.",  # a memo of four billion entries
        b"\x80\x02h\x05.",
        b"\x80\x02e.",
        b"\x80\x02]}]u.",
        b"\x80\x02}(]K\x01u.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02\x86.",
        b"\x80\x02Nb.",
        b"\x80\x09}.",
        b"\x80\x02c" + b"a" * 10_000 + b"\n.",
        b"\x80\x02" + b"(" * 50,
        b"\x80\x02" + b"}" * 3_000_000 + b".",  # an object per byte
        b"\x80\x02X\x02\x00\x00\x00\xff\xff.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02K\x01cos\nsystem\nR.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a bytearray that is not there
        b"\x80\x05\x97.",  # a buffer that lies in no file
        b"Vabc",  # a line without its end
        b"V" + bytes(300) + b"\\u12\n.",
        b"I1e5\n.",
        b"I" + b"9" * 5000 + b"\n.",
        b"L12",
        b"g7\n.",
        b"p7\n.",
        b"l.",
        b"d.",
        b"(I1\nd.",
        b"(]I1\nd.",
        b"(dI1\nI2\ns.",
        b"cposix\nsystem\n(Vtrue\ntR.",
        b"(S'a'\ni__builtin__\neval\n.",
        b"cnumpy\ndtype\n(Vi8\ntR(I3\nVx\ntb.",
        b"cnumpy\ndtype\n(Vi8\ntR(I3\ntb.",
        b"cnumpy.core.numeric\n_frombuffer\n(tR.",
        b"cnumpy.core.multiarray\nscalar\n(tR.",
        b"\x80\x02}N" + b"\x85" * 500_000 + b"Ns.",  # keys whose hash takes one call per level
        b"(N" + b"\x85" * 500_000 + b"K\x01d.",
        b"}B" + struct.pack("<I", 256) + bytes(256) + b"Ns.",  # a key that takes its time whenever it is used
        b"}X" + struct.pack("<I", 256) + bytes(256) + b"Ns.",
        b"cnumpy.core.numeric\n_frombuffer\n(C\x04abcdcnumpy\ndtype\n(U\x02u1I0\nI1\ntR(I2\nI2\ntVK\n("
        + 2 * (b"N" + b"\x85" * 100_000)  # axes that are compared level by level
        + b"ttR.",
    ],
)
def test_strange_pickles_are_refused_with_a_sentence(raw):
    if raw == b"\x80\x02}r\xff\xff\xff\xff.":
        assert read_pickle(raw) == {}  # harmless here: the memo grows by one
        return
    with pytest.raises(ValueError, match="^it "):
        read_pickle(raw)


@pytest.mark.parametrize(
    "shape, order, axes",
    [
        ((0,), "C", None),
        ((2**63, 2**63), "C", None),
        ((-1, -8), "C", None),
        ((1,) * 7 + (8,), "C", None),
        ((), "C", None),
        ((7,), "C", None),
        ((2, 4), "K", None),
        ((2, 4), "K", (0, 0)),
        ((2, 4), "K", (1,)),
        ((2, 4), "K", ("a", "b")),
        (8, "C", None),
    ],
)
def test_strange_shapes_are_refused_with_a_sentence(shape, order, axes):
    raw = pickle.dumps({"data": Call(FROMBUFFER, b"12345678", np.dtype("u1"), shape, order, axes)}, 5)
    with pytest.raises(ValueError, match="^it (holds|is)"):
        read_pickle(raw)


def test_lines_that_grow_are_bounded_by_the_file():
    """What a line's escapes and a bytearray become takes a few times the file at most."""
    pixels = np.full((2000, 3072), 10, np.uint8)  # each an escape of six letters
    for protocol in (0, 5):
        raw = pickle.dumps({"data": pixels}, protocol)
        tracemalloc.start()
        try:
            assert np.array_equal(read_pickle(raw)["data"], pixels)
            assert tracemalloc.get_traced_memory()[1] < 4 * len(raw)
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("function", [b"numpy\ndtype", b"numpy.core.numeric\n_frombuffer", b"_codecs\nencode"])
def test_a_text_is_not_spread_into_arguments(function):
    raw = b"c" + function + b"\nX" + struct.pack("<I", 3_000_000) + "\u0101".encode() * 1_500_000 + b"R."
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="^it "):
            read_pickle(raw)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(raw)
    finally:
        tracemalloc.stop()


def test_deeply_nested_pickles_are_refused():
    raw = b"\x80\x02}" + short(b"data") + b"N" + b"\x85" * 500_000 + b"s."
    assert isinstance(read_pickle(raw)["data"], tuple)
    raw = b"\x80\x02N" + b"\x85" * 500_000 + b"."
    with pytest.raises(ValueError, match="a tuple, no dictionary"):
        read_pickle(raw)


def test_encoding_the_same_text_again_and_again_is_bounded():
    text = b"X" + struct.pack("<I", 10_000) + b"a" * 10_000 + b"q\x000"
    again = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    raw = b"\x80\x02" + text.replace(b"q\x000", b"q\x00") + again * 200 + b"."
    with pytest.raises(ValueError, match="expands to more than its own size"):
        read_pickle(raw)


@pytest.mark.parametrize("form", [python2, *(functools.partial(python3, protocol=protocol) for protocol in range(6))])
@pytest.mark.parametrize("labels_as", ["a list", "int64", "NumPy's integers"])
def test_damaged_pickles_never_escape_as_anything_but_a_sentence(rng, form, labels_as):
    raw = form(PIXELS[:1], LABELS_AS[labels_as](LABELS[:1]) if form is not python2 else LABELS[:1])
    refused = 0
    for _ in range(700):
        broken = bytearray(raw)
        for at in rng.integers(0, len(raw), 3):
            ends = int(rng.integers(400)) - 100  # where the instructions are, before and after the pixels
            broken[at if rng.random() < 0.1 else ends] = rng.integers(256)
        try:
            parse_python(bytes(broken))
        except ValueError as error:
            assert str(error).startswith("it"), error
            refused += 1
    assert refused > 300


# Archives from strangers


def test_archives_are_never_extracted(tmp_path, monkeypatch):
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    members = {f"{name}.bin": binary(*batch(k)) for k, name in enumerate(NAMES)}
    evil = {"../evil": b"x", "/tmp/cyconv-evil": b"x", "../data_batch_1.bin": b"x", "/data_batch_1.bin": b"x"}
    path = write_tar(inside / "x.tar.gz", {**evil, **members})
    assert origins(load_cifar10(path, validation_size=5).test) == [(5, i) for i in range(N)]
    assert sorted(os.listdir(tmp_path)) == ["inside"] and os.listdir(inside) == ["x.tar.gz"]


def test_links_and_devices_in_archives_are_passed_over(tmp_path):
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("data_batch_1.bin")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    with pytest.raises(FileNotFoundError, match="has no data_batch_1"):
        load_cifar10(path, train_batches=(1,), validation_size=1)


def header(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def test_a_member_larger_than_a_batch_is_not_read(tmp_path):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(header("data_batch_1.bin", 2**27)))
    with pytest.raises(ValueError, match="data_batch_1.bin has 134217728 bytes"):
        load_cifar10(path)


@pytest.mark.parametrize("sizes", [[2**33 - 512], [100_352] * 20])
def test_an_archive_that_expands_without_bound_is_refused(tmp_path, monkeypatch, sizes):
    monkeypatch.setattr(archive_module, "_MAX_BYTES", 10**6)
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(b"".join(header("padding", n) + bytes(min(n, 10**6)) for n in sizes)))
    with pytest.raises(ValueError, match="expands to more than 1000000 bytes"):
        load_cifar10(path)


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda raw: b"", "has no data_batch_1"),
        (lambda raw: b"hello", "no gzip archive"),
        (lambda raw: raw[: len(raw) // 2], "no gzip archive, or a damaged one|cut short"),
        (lambda raw: raw[:2000] + bytes(50) + raw[2050:], "no gzip archive, or a damaged one"),
        (lambda raw: gzip.compress(b"a" * 2000), "no tar archive"),
        (lambda raw: gzip.compress(header("data_batch_1.bin", 3073) + bytes(100)), "cut short"),
        (lambda raw: gzip.compress(header("other", 3073) + bytes(100)), "cut short"),
    ],
    ids=["empty", "text", "half", "zeros inside", "no tar", "short member", "short other"],
)
def test_refuses_archives(tmp_path, damage, words):
    path = write_archive(tmp_path / "x.tar.gz")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load_cifar10(path, validation_size=5)


# Where to look


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A working folder and a cache without CIFAR-10."""
    monkeypatch.delenv("CYCONV_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_search_order(nowhere, monkeypatch):
    assert find_cifar10() is None
    write_folder(nowhere / "cache" / "cyconv")
    assert find_cifar10() == nowhere / "cache" / "cyconv"
    write_folder(nowhere / "work" / "data" / "cifar-10-batches-bin")
    assert os.fspath(find_cifar10()) == "data"
    monkeypatch.setenv("CYCONV_DATA", str(write_folder(nowhere / "environment")))
    assert find_cifar10() == nowhere / "environment"
    assert find_cifar10(str(write_folder(nowhere / "given"))) == nowhere / "given"


def test_what_is_named_must_be_there(nowhere, monkeypatch):
    write_folder(nowhere / "cache" / "cyconv")
    with pytest.raises(FileNotFoundError, match="data must be a folder of CIFAR-10's"):
        find_cifar10(nowhere / "empty")
    monkeypatch.setenv("CYCONV_DATA", str(nowhere / "empty"))
    with pytest.raises(FileNotFoundError, match="CYCONV_DATA must be a folder of CIFAR-10's"):
        find_cifar10()


@pytest.mark.parametrize("folder", ["cifar-10-batches-py", "cifar-10-batches-py-target/cifar-10-batches-py"])
def test_where_keras_puts_it(nowhere, monkeypatch, folder):
    datasets = nowhere / "keras" / "datasets"
    write_folder(datasets / folder, python2, "")
    assert find_cifar10() == datasets
    assert len(load_cifar10(datasets, validation_size=5).test) == N
    monkeypatch.delenv("KERAS_HOME")
    assert find_cifar10(str(datasets)) == datasets
    monkeypatch.setenv("HOME", str(nowhere))
    monkeypatch.setenv("USERPROFILE", str(nowhere))
    assert find_cifar10() is None
    (nowhere / "keras").rename(nowhere / ".keras")
    assert find_cifar10() == nowhere / ".keras" / "datasets"
    write_folder(nowhere / "cache" / "cyconv")
    assert find_cifar10() == nowhere / "cache" / "cyconv"


@pytest.mark.parametrize(
    "archive", ["cifar-10-python.tar.gz", "cifar-10-batches-py.tar.gz", "cifar-10-batches-py-target_archive"]
)
def test_archives_as_torchvision_and_keras_keep_them(nowhere, archive):
    (nowhere / "root").mkdir()
    write_archive(nowhere / "root" / archive, python2, "", "cifar-10-batches-py")
    assert len(load_cifar10(find_cifar10(nowhere / "root"), validation_size=5).test) == N
