"""The same bits for any number of threads: every build, architecture, dtype and batch size, in fresh processes."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from builds import INSTRUCTION_SETS, run_program
from digests import ARCHITECTURES, BATCH_SIZES, of_network

import cyconv
from cyconv.backend import dispatch
from cyconv.backend.memory import aligned_zeros


@pytest.fixture(scope="module", params=INSTRUCTION_SETS)
def one_thread(request):
    return run_program("digests.py", 1, "near", CYCONV_ISA=request.param)


@pytest.mark.parametrize(
    "n_threads, distance",
    [
        (1, "far"),
        (2, "near"),
        (2, "far"),
        (3, "far"),
        (5, "near"),
        (8, "far"),
        pytest.param(64, "near", marks=pytest.mark.slow),
    ],
)
def test_same_bits_for_any_number_of_threads(one_thread, n_threads, distance):
    many = run_program("digests.py", n_threads, distance, CYCONV_ISA=one_thread["build"])
    assert len(many) > 2 * len(ARCHITECTURES) * 4 * len(BATCH_SIZES)
    assert [what for what in many if many[what] != one_thread[what]] == []


def test_same_bits_in_every_process(one_thread):
    assert run_program("digests.py", 1, "near", CYCONV_ISA=one_thread["build"]) == one_thread


def test_threads_may_change_within_a_process(monkeypatch):
    monkeypatch.setattr("cyconv.backend.threads._chosen", None)  # and put back afterwards
    found = set()
    for n_threads in (1, 3, 2, 1):
        cyconv.set_num_threads(n_threads)
        found.add(tuple(of_network(ARCHITECTURES["A2"], "float32").values()))
    assert len(found) == 1


def test_distance_of_threads_is_looked_at_now_and_then(monkeypatch):
    looks = []
    kernels = SimpleNamespace(exchange=lambda lines, n_lines, n_rounds, n_threads: looks.append(n_threads))
    monkeypatch.setattr(dispatch, "kernels", kernels)
    monkeypatch.setattr(dispatch, "_distances", {})
    monkeypatch.setattr("cyconv.backend.threads.processors", lambda: 2)
    assert (
        dispatch.threads_are_far(2) is False
        and dispatch.threads_are_far(1) is False
        and dispatch.threads_are_far(3) is False
    )
    assert set(looks) == {2} and len(looks) == 3
    assert dispatch.threads_are_far(2) is False and len(looks) == 3
    kernels.exchange = lambda lines, n_lines, n_rounds, n_threads: time.sleep(1e-3)
    monkeypatch.setattr(dispatch, "_distances", {2: (time.monotonic() - 0.3, False)})
    assert dispatch.threads_are_far(2) is True


@pytest.mark.parametrize("far", [False, True])
def test_training_is_told_whether_its_threads_are_far(monkeypatch, far):
    asked = []
    monkeypatch.setattr("cyconv.backend.threads._chosen", 2)
    monkeypatch.setattr(dispatch, "threads_are_far", lambda n_threads: far and n_threads > 1)
    monkeypatch.setattr(
        dispatch, "specialised", lambda function, dtype: lambda *arguments: asked.append(arguments[-3:-1]) or 0.0
    )
    net = cyconv.Network(filter_size=8, n_filters=3, n_hidden=20)
    images = np.zeros((20, 3, 32, 32), np.uint8)
    source = net.prepare(images, np.zeros(20, np.int64), normalizer=cyconv.Normalizer.fit(images))
    net.train_steps(source, np.arange(20), [0.1], batch_size=20)
    assert asked == [(far, 2)]


def test_lines_pass_between_threads():
    lines = aligned_zeros(16 * (5 + 3), np.float32, "lines")
    dispatch.kernels.exchange(lines, 5, 4, 3)
    expected = np.zeros((8, 16))
    expected[:5, 0] = 4  # written by the first thread, four times
    expected[6:, 0] = 20  # added up by the others
    np.testing.assert_array_equal(lines.reshape(8, 16), expected)
