"""An exception raised at any bytecode of fit: the next fit gives the bits of an uninterrupted run, or says why not."""

import contextlib
import os
import signal
import sys
from functools import partial

import pytest
from tiny_run import EVERYTHING, PLAIN, digest, fit, make_network, make_trainer

import cyconv

#: Every so many of the bytecodes; a longer campaign sets fewer.
STRIDE = int(os.environ.get("CYCONV_STRIDE", "400"))
#: Of files that are given up half written.
pytestmark = [
    pytest.mark.usefixtures("on_one_thread"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
OPTIONS = pytest.mark.parametrize("options", [PLAIN, EVERYTHING], ids=["plain", "everything"])


class TimeLimit(Exception):
    """An exception of a user's signal handler, another thread or a callback."""


def raise_at(number, function):
    """Call the function, raising TimeLimit before the bytecode of this number; return how many were executed."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event == "opcode":
            count += 1
            if count == number:
                raise TimeLimit
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except Exception:  # TimeLimit, or what a check makes of it
        pass
    finally:
        sys.settrace(previous)
    return count


def tiny(**options):
    return make_trainer(step_size=3, **options)  # cycles of 6 and 12 update steps, epochs of 5


def bytecodes(function, stride):
    """Numbers of bytecodes to raise at, evenly distributed."""
    function()  # import now what is imported on first use
    total = raise_at(0, function)
    return range(1 + total % stride, total + 1, stride)


def handlers():
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    return [signal.getsignal(getattr(signal, name)) for name in names if hasattr(signal, name)]


@pytest.mark.slow
@OPTIONS
@pytest.mark.parametrize("progress", [False, True])
def test_the_same_trainer_continues_with_the_same_bits(options, progress, monkeypatch):
    monkeypatch.setattr("cyconv.network.OPERATIONS_PER_CALL", 1)  # each update is a kernel call of its own
    uninterrupted, before = tiny(**options), handlers()
    fit(uninterrupted)
    tried = 0
    for number in bytecodes(lambda: fit(tiny(**options), progress=progress), STRIDE):
        trainer = tiny(**options)
        raise_at(number, partial(fit, trainer, progress=progress))
        assert handlers() == before
        try:
            fit(trainer)
        except RuntimeError as error:
            assert "has done its 18 steps" in str(error)
        assert digest(trainer) == digest(uninterrupted), f"raised at bytecode {number}"
        tried += 1
    assert tried > 20


@pytest.mark.slow
@OPTIONS
def test_the_checkpoint_resumes_with_the_same_bits(options, tmp_path):
    uninterrupted = tiny(**options)
    fit(uninterrupted)
    path, first = tmp_path / "c.npz", tmp_path / "first.npz"
    for number in bytecodes(lambda: fit(tiny(**options), checkpoint=first, checkpoint_every=4), 20 * STRIDE):
        path.unlink(missing_ok=True)
        trainer = tiny(**options)
        raise_at(number, partial(fit, trainer, checkpoint=path, checkpoint_every=4))
        resumed = [cyconv.CyclicTrainer.resume(path)] if path.exists() else []
        for each in (trainer, *resumed):
            try:
                fit(each, checkpoint=path, checkpoint_every=4)
            except RuntimeError as error:
                assert "has done its 18 steps" in str(error)
            assert digest(each) == digest(uninterrupted), f"raised at bytecode {number}"
            assert digest(cyconv.CyclicTrainer.resume(path)) == digest(uninterrupted)


def test_a_diverging_run_diverges_at_the_same_step():
    def attempt(trainer):
        with contextlib.suppress(cyconv.DivergenceError):
            fit(trainer, log_every=1000)

    with pytest.raises(cyconv.DivergenceError) as uninterrupted:
        fit(tiny(eta_max=1e20), log_every=1000)
    expected, found = (uninterrupted.value.step, uninterrupted.value.learning_rate), set()
    for number in bytecodes(lambda: attempt(tiny(eta_max=1e20)), STRIDE // 4):
        trainer = tiny(eta_max=1e20)
        raise_at(number, partial(attempt, trainer))
        with pytest.raises((cyconv.DivergenceError, RuntimeError)) as caught:
            fit(trainer, log_every=1000)
        if isinstance(caught.value, cyconv.DivergenceError):
            found.add("diverges")
            assert (caught.value.step, caught.value.learning_rate) == expected, f"raised at bytecode {number}"
        else:
            found.add("has diverged")
            assert "training diverged" in str(caught.value)
    assert found == {"diverges", "has diverged"}


@pytest.mark.parametrize("name", ["set_parameters", "set_velocity"])
def test_parameters_are_replaced_all_or_none_at_all(name):
    old, new = make_network(seed=1).parameters, make_network(seed=2).parameters
    network = make_network()
    replace = getattr(network, name)
    read = {"set_parameters": lambda: network.parameters, "set_velocity": lambda: network.velocity}[name]
    outcomes = set()
    for number in bytecodes(lambda: replace(new), STRIDE // 20):
        replace(old)
        raise_at(number, lambda: replace(new))
        found = {key: values.tobytes() for key, values in read().items()}
        outcomes.add([{key: values.tobytes() for key, values in each.items()} for each in (old, new)].index(found))
    assert 0 in outcomes
