"""The memory limit of machine and control group; what exceeds it is refused before it is allocated."""

import numpy as np
import pytest

import cyconv
from cyconv import _checks, _memory
from cyconv.backend import ops


@pytest.fixture
def groups(tmp_path):
    """groups(membership, {file: text}): the folders that control_group_limit reads."""

    def make(membership, files):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "fs" / name).write_text(text)
        return {"root": tmp_path / "fs", "membership": tmp_path / "membership"}

    return make


@pytest.mark.parametrize(
    "membership, files, expected",
    [
        ("0::/a/b\n", {"a/b/memory.max": "1000\n", "a/memory.max": "max\n"}, 1000),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "5000\n"}, 5000),
        ("0::/a/b\n", {"c/memory.max": "10\n"}, 2**62),
        (
            "4:memory:/a\n2:cpu:/b\n",
            {"memory/a/memory.limit_in_bytes": "700\n", "cpu/b/memory.limit_in_bytes": "3"},
            700,
        ),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, 2**62),
        ("0::/\n", {"memory.max": "nonsense"}, 2**62),
        ("0::/\n", {"memory.max": "\u00b2"}, 2**62),
        ("", {}, 2**62),
    ],
)
def test_limit_of_the_control_group(groups, membership, files, expected):
    assert _memory.control_group_limit(**groups(membership, files)) == expected


@pytest.mark.parametrize("physical, group, expected", [(10_000, 7_000, 7_000), (10_000, 2**62, 10_000)])
def test_the_smaller_limit_counts(monkeypatch, physical, group, expected):
    monkeypatch.setattr(_memory, "physical_memory", lambda: physical)
    monkeypatch.setattr(_memory, "control_group_limit", lambda: group)
    assert _memory.available_memory.__wrapped__() == expected


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(_checks, "available_memory", lambda: 10**6)


ONES = np.broadcast_to(np.float32(1), (1, 1))


@pytest.mark.parametrize(
    "call, what",
    [
        (lambda: cyconv.Network(4, 1000, 50), "a network of these sizes"),
        (lambda: cyconv.Network(4, 10**5, 50), "a network of these sizes"),
        (lambda: cyconv.Network(4, 10**9, 50), "a network must have"),
        (lambda: ops.shuffled_order(10**6, 0, 0), "an order of n images"),
        (lambda: ops.im2col(np.broadcast_to(np.float64(1), (1000, 1, 32, 32)), 2), "images"),
        (
            lambda: ops.gather_batch(
                np.zeros((1, 1, 32, 32), np.uint8), np.zeros(1000, int), 4, *2 * [np.ones((1, 32, 32))]
            ),
            "patches",
        ),
        (
            lambda: ops.dense_forward(
                np.broadcast_to(ONES, (1000, 1)), np.broadcast_to(ONES, (1000, 1)), np.ones(1000, "f4")
            ),
            "outputs",
        ),
        (
            lambda: ops.dense_backward(*(np.broadcast_to(ONES, shape) for shape in ((1, 10**5), (1, 1), (10**5, 1)))),
            "d_weight",
        ),
        (
            lambda: ops.patch_matmul_forward(
                *(np.broadcast_to(ONES, shape) for shape in ((100, 1, 100), (100, 1))), np.ones(100, "f4")
            ),
            "activations",
        ),
        (lambda: cyconv.make_shapes(1000, 1, 1), r"n_train \+ n_validation"),
        (lambda: cyconv.CyclicSchedule(0, 1, 10, 1)(range(10**5)), "step"),
    ],
)
def test_too_large_requests_are_refused_before_allocation(little_memory, call, what):
    with pytest.raises(MemoryError, match=rf"^({what})") as caught:
        call()
    assert "\n" not in str(caught.value)
