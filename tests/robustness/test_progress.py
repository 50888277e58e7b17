"""Progress bars: training continues without one that cannot be drawn; other errors are not swallowed."""

import io
import signal
import subprocess
import sys
import time
import warnings

import pytest
import tqdm
from builds import subprocess_environment
from tiny_run import digest, fit, make_data, make_trainer

import cyconv
from cyconv.datasets import normalizer, split


class Stream(io.StringIO):
    """A stderr that fails after ``good`` writes."""

    def __init__(self, good, error):
        super().__init__()
        self.good, self.error = good, error

    def write(self, text):
        self.good -= 1
        if self.good < 0:
            raise self.error
        return super().write(text)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("progress", [True, "a title"])
@pytest.mark.parametrize(
    "stream",
    [
        lambda: None,
        closed,
        lambda: Stream(0, OSError(28, "No space left on device")),
        lambda: object(),
        lambda: Stream(2, BrokenPipeError(32, "Broken pipe")),
        lambda: Stream(3, RuntimeError("lost")),
    ],
)
def test_training_survives_an_unusable_stderr(monkeypatch, stream, progress):
    uninterrupted, trainer = make_trainer(), make_trainer()
    fit(uninterrupted)
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(sys, "stderr", stream())
        fit(make_trainer(), progress=None)
        fit(trainer, progress=progress)
    assert digest(trainer) == digest(uninterrupted)


@pytest.mark.parametrize("method", ["__init__", "update", "close", "set_postfix_str"])
def test_training_survives_a_failing_progress_bar(monkeypatch, capsys, method):
    def fail(self, *arguments, **options):
        raise RuntimeError("no bar today")

    monkeypatch.setattr(tqdm.tqdm, method, fail)
    assert fit(make_trainer(), progress=True).complete


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs POSIX's alarm")
def test_an_exception_of_a_signal_handler_while_drawing_is_not_swallowed(monkeypatch, capsys):
    def limit(signum, frame):
        raise TimeoutError("enough")

    def update(self, n):
        signal.raise_signal(signal.SIGALRM)

    monkeypatch.setattr(tqdm.tqdm, "update", update)
    previous = signal.signal(signal.SIGALRM, limit)
    try:
        with pytest.raises(TimeoutError, match="enough"):
            fit(make_trainer(), progress=True)
    finally:
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("seconds, title", [(0, True), (0.25, True), (0.25, "a title")])
def test_reading_the_images_has_a_bar_if_it_takes_longer_than_a_second(monkeypatch, capsys, seconds, title):
    add = split.PixelSums.add
    monkeypatch.setattr(split.PixelSums, "add", lambda self, block: time.sleep(seconds) or add(self, block))
    monkeypatch.setattr(normalizer, "_BLOCK_BYTES", 1)
    trainer = make_trainer(step_size=1)
    fit(trainer, [cyconv.Split(part.images[:20], part.labels[:20]) for part in make_data()], progress=title)
    shown = capsys.readouterr().err
    assert trainer.network.normalizer is not None and "6/6" in shown
    assert ("reading the images" in shown) == (seconds > 0)
    assert title is True or (f"{title}, reading the images" in shown and f"{title}: 100%" in shown)


NOTEBOOK = """
import sys, types
shell = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell)
sys.modules["ipywidgets"] = None
from builds import subprocess_environment
from tiny_run import fit, make_trainer
fit(make_trainer(), progress=None)
"""


def test_a_notebook_shows_a_bar_by_default():
    """As text and without a warning where the notebook's widgets are not installed."""
    command = [sys.executable, "-P", "-c", NOTEBOOK]
    done = subprocess.run(command, capture_output=True, text=True, env=subprocess_environment())
    assert done.returncode == 0 and "36/36" in done.stderr and "Warning" not in done.stderr
