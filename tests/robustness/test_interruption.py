"""Ctrl-C, termination and SIGKILL: nothing is lost, and the run resumes with the same bits."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
import tiny_run
from builds import subprocess_environment
from full_disk import disk_full
from tiny_run import EVERYTHING, PLAIN, digest, fit, make_data, make_trainer, set_call_seconds

import cyconv

KILLS = int(os.environ.get("CYCONV_KILLS", "25"))  # a longer campaign sets more
STOP = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
SIGNALS = pytest.mark.parametrize("signum", STOP)

pytestmark = [
    pytest.mark.usefixtures("on_one_thread"),
    pytest.mark.skipif(os.name != "posix", reason="signals need POSIX"),
]


def signal_in(monkeypatch, name, signum, count=1, when=lambda *args, **options: True):
    """Send this process a signal from inside the first call of a Network method that meets a condition."""
    original = getattr(cyconv.Network, name)
    sent = []

    def method(self, *args, **options):
        if not sent and when(*args, **options):
            sent.append(True)
            for _ in range(count):
                os.kill(os.getpid(), signum)
        return original(self, *args, **options)

    monkeypatch.setattr(cyconv.Network, name, method)
    set_call_seconds(monkeypatch, 0)


def at_step(step):
    return lambda *args, first_step, **options: first_step == step


@SIGNALS
@pytest.mark.parametrize("options", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_a_signal_stops_between_two_updates(signum, options, tmp_path, monkeypatch):
    uninterrupted = make_trainer(**options)
    fit(uninterrupted)
    handlers = [signal.getsignal(each) for each in STOP]
    for step in (0, 1, 4, 6, 11, 20, 35):
        path = tmp_path / f"{step}.npz"
        trainer = make_trainer(**options)
        with monkeypatch.context() as patch:
            signal_in(patch, "train_steps", signum, when=at_step(step))
            with pytest.raises(cyconv.Interrupted) as caught:
                fit(trainer, checkpoint=path)
        assert isinstance(caught.value, KeyboardInterrupt) and caught.value.signum == signum
        assert f"by {signal.Signals(signum).name} after {step + 1} of 36" in str(caught.value)
        assert trainer.step == step + 1 and not trainer.history.complete
        assert trainer.history["update_steps"].tolist() == list(range(0, step + 1, 7))
        assert trainer.history["training_time"] > 0

        resumed = cyconv.CyclicTrainer.resume(path)
        assert digest(resumed) == digest(trainer)
        for each in (trainer, resumed):
            fit(each)
            assert digest(each) == digest(uninterrupted)
    assert [signal.getsignal(each) for each in STOP] == handlers


def test_without_a_checkpoint_the_trainer_itself_can_continue(monkeypatch):
    uninterrupted, trainer = make_trainer(), make_trainer()
    fit(uninterrupted)
    with monkeypatch.context() as patch:
        signal_in(patch, "train_steps", signal.SIGINT, when=at_step(8))
        with pytest.raises(KeyboardInterrupt):
            fit(trainer)
    other, _ = make_data(seed=1)
    with pytest.raises(ValueError, match="^train must be the data that this run began with"):
        fit(trainer, data=(other, other))
    fit(trainer)
    assert digest(trainer) == digest(uninterrupted)


@SIGNALS
@pytest.mark.parametrize("name", ["evaluate", "prepare"])
def test_a_signal_interrupts_evaluation_and_preparation(signum, name, tmp_path, monkeypatch):
    uninterrupted, trainer = make_trainer(), make_trainer()
    fit(uninterrupted)
    path = tmp_path / "c.npz"
    with monkeypatch.context() as patch:
        signal_in(patch, name, signum, when=lambda *args, **options: trainer.step == 7 or name == "prepare")
        with pytest.raises(cyconv.Interrupted) as caught:
            fit(trainer, checkpoint=path)
    assert caught.value.signum == signum
    if name == "evaluate":
        assert trainer.step == 7 and trainer.history["update_steps"].tolist() == [0]
        trainer = cyconv.CyclicTrainer.resume(path)
    else:
        assert trainer.step == 0 and not path.exists()
    fit(trainer)
    assert digest(trainer) == digest(uninterrupted)


def test_more_signals_while_the_checkpoint_is_written(tmp_path, monkeypatch):
    import cyconv.trainer

    path, trainer, write = tmp_path / "c.npz", make_trainer(), cyconv.trainer.write_checkpoint

    def interrupted_write(*args):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        write(*args)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        signal_in(patch, "train_steps", signal.SIGTERM, count=3, when=at_step(8))
        patch.setattr("cyconv.trainer.write_checkpoint", interrupted_write)
        with pytest.raises(cyconv.Interrupted) as caught:
            fit(trainer, checkpoint=path)
    assert caught.value.signum == signal.SIGTERM
    assert cyconv.CyclicTrainer.resume(path).step == 9
    assert os.listdir(tmp_path) == ["c.npz"]


def test_a_signal_in_the_last_update_is_not_swallowed(tmp_path, monkeypatch):
    """A script that trains many networks must notice it."""
    path, trainer = tmp_path / "c.npz", make_trainer()
    with monkeypatch.context() as patch:
        signal_in(patch, "evaluate", signal.SIGINT, when=lambda *args, **options: trainer.step == 36)
        with pytest.raises(KeyboardInterrupt):
            fit(trainer, checkpoint=path)
    assert trainer.step == 36
    assert fit(cyconv.CyclicTrainer.resume(path)).complete


def test_a_checkpoint_that_fails_on_interruption_is_reported(tmp_path, monkeypatch):
    trainer = make_trainer()
    signal_in(monkeypatch, "train_steps", signal.SIGTERM, when=at_step(3))
    monkeypatch.setattr(os, "fsync", disk_full)
    sentence = "after 4 of 36 .*the checkpoint is missing: .*No space"
    with pytest.raises(cyconv.Interrupted, match=sentence) as caught:
        fit(trainer, checkpoint=tmp_path / "c.npz")
    assert caught.value.signum == signal.SIGTERM and trainer.step == 4 and os.listdir(tmp_path) == []


@SIGNALS
def test_ignored_signals_stay_ignored(monkeypatch, signum):
    """As nohup and shells that start a program in the background request."""
    previous = signal.signal(signum, signal.SIG_IGN)
    try:
        trainer = make_trainer()
        signal_in(monkeypatch, "train_steps", signum, when=at_step(8))
        assert fit(trainer).complete
        assert signal.getsignal(signum) is signal.SIG_IGN
    finally:
        signal.signal(signum, previous)


def test_more_signals_can_be_named(tmp_path, monkeypatch):
    path, trainer = tmp_path / "c.npz", make_trainer()
    monkeypatch.setenv("CYCONV_STOP_SIGNALS", "SIGXCPU, usr1")
    with monkeypatch.context() as patch:
        signal_in(patch, "train_steps", signal.SIGUSR1, when=at_step(8))
        with pytest.raises(cyconv.Interrupted, match="by SIGUSR1 after 9 of 36") as caught:
            fit(trainer, checkpoint=path)
    assert caught.value.signum == signal.SIGUSR1 and cyconv.CyclicTrainer.resume(path).step == 9
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.parametrize("name", ["SIGNIFICANT", "KILL", "9", "SIGSTOP"])
def test_unknown_signals_and_those_that_cannot_be_handled_are_refused(monkeypatch, name):
    monkeypatch.setenv("CYCONV_STOP_SIGNALS", f"SIGUSR1,{name}")
    before, trainer = signal.getsignal(signal.SIGINT), make_trainer()
    with pytest.raises(ValueError, match=f"^CYCONV_STOP_SIGNALS must name signals .*, but got '{name}'$"):
        fit(trainer)
    assert trainer.step == 0 and signal.getsignal(signal.SIGINT) is before


def test_a_signal_is_not_lost_with_another_error(monkeypatch):
    """Ctrl-C in the update that diverges: a script must not start its next run."""
    trainer = make_trainer(eta_max=1e20)
    signal_in(monkeypatch, "train_steps", signal.SIGINT, when=at_step(2))
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(trainer, log_every=1000)
    assert isinstance(caught.value.__context__, cyconv.DivergenceError) and caught.value.__context__.step == 2


def test_fit_in_another_thread_leaves_signals_alone(monkeypatch):
    handlers = []
    original = cyconv.Network.train_steps

    def train_steps(self, *args, **options):
        handlers.append(signal.getsignal(signal.SIGINT))
        return original(self, *args, **options)

    monkeypatch.setattr(cyconv.Network, "train_steps", train_steps)
    trainer = make_trainer()
    thread = threading.Thread(target=fit, args=(trainer,))
    thread.start()
    thread.join()
    assert trainer.history.complete and set(handlers) == {signal.getsignal(signal.SIGINT)}


# Other processes -----------------------------------------------------------------------


def start(path, step_size, every):
    """Start tiny_run.py as a process and wait until it is about to train."""
    process = subprocess.Popen(
        [sys.executable, tiny_run.__file__, str(path), str(step_size), str(every)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=subprocess_environment(),
    )
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


@SIGNALS
def test_a_process_dies_by_the_signal_it_received(signum, tmp_path):
    path = tmp_path / "c.npz"
    process = start(path, step_size=10**7, every=100)
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == -signum, err
    assert out.startswith(f"training was interrupted by {signal.Signals(signum).name}")
    assert "Interrupted: training was interrupted by" in err.splitlines()[-1]
    assert (tmp_path / "unflushed.txt").read_text() == "kept"
    os.unlink(tmp_path / "unflushed.txt")
    trainer = cyconv.CyclicTrainer.resume(path)
    assert f"after {trainer.step} of" in out and trainer.step >= 100
    assert os.listdir(tmp_path) == ["c.npz"]


@pytest.mark.parametrize("script", [False, True], ids=["program", "script"])
def test_ctrl_c_also_ends_a_shell_loop(script, tmp_path):
    """All processes of the terminal get the signal; the shell continues unless the program dies by it."""
    call = "cli.exit_with(cli.run_script(main))" if script else "main()"
    (tmp_path / "job.py").write_text(f"""
import os, signal, sys
import cyconv
from cyconv.experiments import cli
from tiny_run import fit, make_trainer
signal.signal(signal.SIGINT, signal.default_int_handler)
class Network(cyconv.Network):
    def train_steps(self, *arguments, **options):
        os.killpg(0, signal.SIGINT)
        return super().train_steps(*arguments, **options)
def main(argv=None):
    trainer = make_trainer()
    trainer.network.__class__ = Network
    fit(trainer)
{call}
""")
    loop = f"for i in 1 2; do '{sys.executable}' job.py; echo went on; done"
    done = subprocess.run(
        ["bash", "-c", loop],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        start_new_session=True,
        env=subprocess_environment(),
    )
    assert done.returncode == -signal.SIGINT and done.stdout == "", done.stderr
    assert "after 1 of 36 update steps" in done.stderr or script


@pytest.mark.slow
def test_killed_again_and_again(tmp_path):
    """By SIGKILL at random moments, often while a checkpoint is written: it is always readable, with the same bits."""
    step_size = 60
    uninterrupted = make_trainer(step_size=step_size, **EVERYTHING)
    fit(uninterrupted, log_every=50)
    path = tmp_path / "c.npz"
    moments = random.Random(0)
    kills, step, halves, lingering = 0, 0, 0, set()
    while kills < KILLS:
        before = stamp(path)
        process = start(path, step_size, every=1)
        while kills % 5 and stamp(path) == before and process.poll() is None:
            time.sleep(0.001)  # four times of five it has just written, and is about to again
        time.sleep(moments.uniform(0.0, 0.03))
        process.kill()
        out, err = process.communicate(timeout=60)
        assert err == ""
        if process.returncode == 0:  # it had finished; start again
            assert out.strip() == digest(uninterrupted)
            path.unlink()
            step = 0
            continue
        assert process.returncode == -signal.SIGKILL
        kills += 1
        left = set(os.listdir(tmp_path)) - {"c.npz"}
        assert len(left) <= 1, "a writer has not cleared away what the one before left"
        halves += len(left - lingering)
        lingering = left
        if stamp(path) != before:
            resumed = cyconv.CyclicTrainer.resume(path)
            assert resumed.step > step
            step = resumed.step
    process = start(path, step_size, every=100)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.strip() == digest(uninterrupted)
    assert os.listdir(tmp_path) == ["c.npz"]
    print(f"{kills} kills, {halves} of them while a checkpoint was written")
    assert halves > 0


def stamp(path):
    """What identifies the file that is at ``path`` now."""
    return (os.stat(path).st_ino, os.stat(path).st_mtime_ns) if path.exists() else None
