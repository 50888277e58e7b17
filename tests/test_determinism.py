"""The same bits for any number of threads: every build, architecture, dtype and batch size, in fresh processes."""

import pytest
from builds import INSTRUCTION_SETS, run_program
from digests import ARCHITECTURES, BATCH_SIZES, of_network

import cyconv


@pytest.fixture(scope="module", params=INSTRUCTION_SETS)
def one_thread(request):
    return run_program("digests.py", 1, CYCONV_ISA=request.param)


@pytest.mark.parametrize("n_threads", [2, 3, 5, 8, 64])
def test_same_bits_for_any_number_of_threads(one_thread, n_threads):
    many = run_program("digests.py", n_threads, CYCONV_ISA=one_thread["build"])
    assert len(many) > 2 * len(ARCHITECTURES) * 4 * len(BATCH_SIZES)
    assert [what for what in many if many[what] != one_thread[what]] == []


def test_same_bits_in_every_process(one_thread):
    assert run_program("digests.py", 1, CYCONV_ISA=one_thread["build"]) == one_thread


def test_threads_may_change_within_a_process(monkeypatch):
    monkeypatch.setattr("cyconv.threads._chosen", None)     # and put back afterwards
    found = set()
    for n_threads in (1, 3, 2, 1):
        cyconv.set_num_threads(n_threads)
        found.add(tuple(of_network(ARCHITECTURES["A2"], "float32").values()))
    assert len(found) == 1
