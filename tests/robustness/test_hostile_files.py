"""Files from strangers: every reader refuses them with one sentence, executes nothing and allocates little."""

import json
import os
import pickle
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from tiny_run import EVERYTHING, fit, make_trainer

import cyconv
from cyconv._files import load_arrays, save_arrays

READERS = {
    "network": cyconv.Network.load,
    "history": cyconv.History.load,
    "checkpoint": cyconv.CyclicTrainer.resume,
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """One sound file of each kind."""
    folder = tmp_path_factory.mktemp("originals")
    trainer = make_trainer(**EVERYTHING)
    history = fit(trainer, checkpoint=folder / "checkpoint")
    history.save(folder / "history")
    trainer.network.save(folder / "network")
    return folder


@pytest.fixture(params=READERS)
def kind(request):
    return request.param


@pytest.fixture
def parts(kind, originals):
    return load_arrays(originals / kind, kind, 1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "hostile.npz"


def write(path, kind, header, arrays):
    header = dict(header)
    save_arrays(path, header.pop("kind", kind), header.pop("version", 1), header, arrays)


def assert_refused(kind, path):
    with pytest.raises(ValueError) as caught:
        READERS[kind](path)
    message = str(caught.value)
    assert message.startswith(f"path must be a cyconv {kind} file"), message
    assert str(path) in message and "\n" not in message and len(message) < 600, message


def assert_refused_or_usable(kind, path):
    """Whether it was refused, without a warning about numbers; what is taken must work."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            warnings.simplefilter("ignore", UserWarning)  # of another instruction set
            taken = READERS[kind](path)
    except ValueError:
        assert_refused(kind, path)
        return True
    if kind == "history":
        assert all(np.isfinite(taken[key]).all() for key in taken)
    else:
        network = taken if kind == "network" else taken.network
        X = np.zeros((2, *network.image_shape), np.float32)
        assert np.isfinite(network.predict_proba(X)).all()
    return False


# The archive -------------------------------------------------------------------


def npy(header, data=b"", version=(1, 0)):
    """The bytes of a .npy file with any text as its header."""
    text = header.encode("latin1", "replace")
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + data


def archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)


def members_of(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_pickle_is_executed(kind, originals, path, tmp_path):
    trap = str(tmp_path / "trapped")
    sound = members_of(originals / kind)
    for name in sound:
        for data in (
            pickle.dumps(Trap(trap)),
            npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", pickle.dumps(np.array([Trap(trap)]))),
        ):
            archive(path, {**sound, name: data})
            assert_refused(kind, path)
    path.write_bytes(pickle.dumps(Trap(trap)))
    assert_refused(kind, path)
    assert not os.path.exists(trap)


def peak_of(call):
    """MiB that a call takes at most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_bombs_take_no_memory(kind, originals, path):
    sound = members_of(originals / kind)
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }\n"
    zeros = npy(header % 2**24) + bytes(2**26)
    deflated = {**sound, "parameters/conv.bias.npy": zeros, "parameters.conv.bias.npy": zeros, "cost_train.npy": zeros}
    archive(path, deflated, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    assert peak_of(lambda: assert_refused(kind, path)) < 20
    for name in sound:  # members that promise more than they hold
        archive(path, {**sound, name: npy(header % 2**40)})
        assert peak_of(lambda: assert_refused(kind, path)) < 20


def test_overlapping_members(kind, originals, path):
    """Many directory entries for the same bytes."""
    whole = (originals / kind).read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    size, start = struct.unpack("<II", whole[end + 12 : end + 20])
    directory = whole[start : start + size]
    count = struct.unpack("<H", whole[end + 10 : end + 12])[0]
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 50 * count, 50 * count, 50 * size, start, 0)
    path.write_bytes(whole[:start] + 50 * directory + tail)
    assert_refused(kind, path)


def test_very_many_members(kind, path):
    archive(path, {f"{i}.npy": b"" for i in range(10_001)})
    assert_refused(kind, path)


def test_false_sizes_in_the_directory(kind, originals, path):
    whole = (originals / kind).read_bytes()
    entry = whole.index(b"PK\x01\x02")
    for false in (0, 1, 2**20, 2**31, 2**32 - 1):
        for offset in (20, 24, 42):  # compressed size, size, place
            path.write_bytes(whole[: entry + offset] + struct.pack("<I", false) + whole[entry + offset + 4 :])
            assert_refused_or_usable(kind, path)


def test_a_name_as_long_as_a_file_is_told_in_short(kind, originals, path):
    """The two places where an archive keeps a member's name differ."""
    name = "n" * 20_000 + ".npy"
    archive(path, {**members_of(originals / kind), name: b"x"})
    data = path.read_bytes()
    path.write_bytes(data.replace(name.encode(), b"m" + name.encode()[1:], 1))
    assert_refused(kind, path)


def test_foreign_members(kind, originals, path):
    sound = members_of(originals / kind)
    for name in ("../../escaped.npy", "/etc/escaped.npy", "notes.txt", "x/", "__header__"):
        archive(path, {**sound, name: b"x"})
        assert_refused(kind, path)
    for missing in sound:
        archive(path, {name: data for name, data in sound.items() if name != missing})
        assert_refused(kind, path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "}",
        "(" * 3000,
        "{'descr': (",
        "[" * 9000,
        "-" * 9000 + "1",
        "{1: 2, 'a': 3}",
        "{[]}",
        "{'shape'}",
        "None",
        "__import__('os').mkdir('x')",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)",
        "\x00",
        "\xff" * 10,
        "{'descr': '<f4', 'fortran_order': 1, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 1, }",
        "{'descr': [], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': None, 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': ('1',), }",
        "x" * 9999,
        "x" * 10_001,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }",
    ]
    + [
        f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
        for descr in (
            "<f4",
            "|u1",
            "|O",
            "V8",
            "|S0",
            "<U1000000",
            "<c8",
            "<M8[s]",
            "(2,3)<f4",
            "f4,f4",
            "|b1",
            "nonsense",
        )
        for shape in (
            "(-1,)",
            "(-1, -1)",
            "(-2, -2)",
            f"({2**31}, {2**31}, {2**31})",
            f"(0, {10**30})",
            f"({2**62},)",
            "(True,)",
            "()",
            "(1,)",
            "(0,)",
        )
    ],
)
def test_headers_of_arrays(kind, originals, path, text):
    sound = members_of(originals / kind)
    for name in ("__header__.npy", sorted(sound)[-1]):
        for version in ((1, 0), (2, 0), (3, 0), (9, 9)):
            archive(path, {**sound, name: npy(text, b"\x00" * 8, version)})
            assert_refused(kind, path)


def test_truncated_anywhere(kind, originals, path):
    whole = (originals / kind).read_bytes()
    for cut in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:cut])
        assert_refused(kind, path)


def test_random_bytes_anywhere(kind, originals, path):
    """Checksums notice damage to the contents; here they are made to fit again, as a stranger would."""
    rng = np.random.default_rng(4)
    sound = members_of(originals / kind)
    refused = 0
    for _ in range(150):
        name = str(rng.choice(sorted(sound)))
        data = bytearray(sound[name])
        position = int(rng.integers(len(data) if rng.random() < 0.3 else min(128, len(data))))
        data[position] = rng.integers(256)
        archive(path, {**sound, name: bytes(data)})
        refused += assert_refused_or_usable(kind, path)
    assert refused > 30
    for _ in range(100):
        data = bytearray((originals / kind).read_bytes())
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        assert_refused_or_usable(kind, path)


def test_each_kind_refuses_the_others(kind, originals):
    for other in READERS:
        if other != kind:
            assert_refused(kind, originals / other)


# The JSON header ---------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"3",
        b'"x"',
        b"\xff\xfe",
        b"{}",
        b"[" * 100_000,
        b'{"kind": ' * 3000,
        b"NaN",
        b"1" * 9000,
    ],
)
def test_headers_that_are_no_mapping(kind, parts, path, text):
    np.savez(path, __header__=np.frombuffer(text, np.uint8), **parts[1])
    assert_refused(kind, path)


BAD_VALUES = [
    None,
    True,
    -1,
    0,
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    2**31,
    10**9,
    10**30,
    10**400,
    "",
    "x",
    "3",
    [],
    {},
    [1, 1, 1],
    [10**9],
    [[4]],
    [4] * 100,
    {"a": 1},
]


def nodes(value, place=()):
    """The places of all values in nested mappings and lists."""
    if place:
        yield place
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from nodes(value[key], (*place, key))


def replaced(value, place, new):
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = new
    return copy


@pytest.mark.slow
def test_every_value_of_the_header_replaced(kind, parts, path):
    header, arrays = parts
    refused = 0
    for place in nodes(header):
        for bad in BAD_VALUES:
            text = json.dumps(replaced(header, place, bad))
            np.savez(path, __header__=np.frombuffer(text.encode(), np.uint8), **arrays)
            refused += assert_refused_or_usable(kind, path)
    assert refused > 10 * len(header)


@pytest.mark.parametrize(
    "change",
    [
        {"filter_size": 10**9},
        {"n_filters": 10**9},
        {"n_hidden": 10**9},
        {"n_hidden": 10**30},
        {"n_classes": 2**20},
        {"image_shape": [2**20] * 3},
        {"image_shape": [3, 2**20, 2**20], "filter_size": 1},
        {"filter_size": [4] * 8, "n_filters": [10**6] * 8},
        {"n_hidden": [2**31 - 1] * 8},
        {"n_filters": 10**9, "n_hidden": 10**9},
    ],
)
def test_architectures_of_huge_sizes(kind, parts, path, change):
    header, arrays = json.loads(json.dumps(parts[0])), parts[1]
    if kind == "history":
        pytest.skip("a history has no architecture")
    (header["architecture"] if kind == "network" else header["settings"]["network"]).update(change)
    write(path, kind, header, arrays)
    assert peak_of(lambda: assert_refused(kind, path)) < 20


# The arrays --------------------------------------------------------------------


def spoilt_versions(array):
    """Arrays that could stand in for this one, and whether they must be refused."""
    yield array.astype("S8"), True
    yield array.astype(bool), True
    yield array.reshape(1, *array.shape), True
    yield array[:0] if array.ndim else array.reshape(0, 1)[:0], True
    yield np.zeros((1000, 1000), np.uint8), True
    if array.dtype.kind == "f":
        yield array.astype(np.int64), True
        yield array.astype(np.float16), True
        for bad in (np.nan, np.inf, -np.inf):
            spoilt = array.copy()
            spoilt.flat[-1] = bad
            yield spoilt, True
    yield np.asfortranarray(array), False
    yield array.astype(array.dtype.newbyteorder()), False


@pytest.mark.slow
def test_every_array_replaced(kind, parts, path):
    header, arrays = parts
    for name, array in arrays.items():
        if name.startswith("normalizer"):
            continue
        for spoilt, must in spoilt_versions(array):
            write(path, kind, header, {**arrays, name: spoilt})
            if must:
                assert_refused(kind, path)
            else:
                assert_refused_or_usable(kind, path)


@pytest.mark.parametrize("shape", [(3, 8, 9), (8, 8), (1, 1, 1), (3, 8, 8, 1), ()])
def test_normalizer_of_other_images(kind, parts, path, shape):
    header, arrays = parts
    if kind == "history":
        pytest.skip("a history has no normaliser")
    names = [name for name in arrays if name.startswith("normalizer")]
    write(path, kind, header, {**arrays, **{name: np.ones(shape) for name in names}})
    assert_refused(kind, path)


def test_normalizer_of_zero_or_missing_deviation(kind, parts, path):
    header, arrays = parts
    if kind == "history":
        pytest.skip("a history has no normaliser")
    std = next(name for name in arrays if name.startswith("normalizer") and name.endswith("std"))
    for bad in (0.0, -1.0, np.nan, np.inf, 5e-324):
        write(path, kind, header, {**arrays, std: np.full(arrays[std].shape, bad)})
        assert_refused(kind, path)
    write(path, kind, header, {name: array for name, array in arrays.items() if name != std})
    assert_refused(kind, path)


def test_paths_that_are_no_files(kind, tmp_path):
    for missing in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"^path must be a cyconv {kind} file"):
            READERS[kind](missing)
    for wrong in (None, 3, ["a"], b"\xff", "a\0b"):
        with pytest.raises((TypeError, ValueError, FileNotFoundError)):
            READERS[kind](wrong)
