"""Signals that stop training: recorded when they arrive, acted on between two updates."""

import atexit
import contextlib
import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

VARIABLE = "CYCONV_STOP_SIGNALS"
_ALWAYS = ("SIGINT", "SIGTERM", "SIGHUP")
_exit_signal: int | None = None  # the signal that terminates this process when it exits


class Interrupted(KeyboardInterrupt):
    """Raised when a signal stops training between two updates.

    A program that does not catch it is terminated by that signal, as it would
    be by default.

    Attributes
    ----------
    signum : int
        Number of the signal.
    """

    signum: int | None = None

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class StopRequested(BaseException):
    """Raised by a signal inside `SignalRecorder.interruptible`."""


def stop_signals() -> list[signal.Signals]:
    """SIGINT, SIGTERM, SIGHUP (where it exists) and the signals listed in ``CYCONV_STOP_SIGNALS``.

    Raises
    ------
    ValueError
        If the variable lists a name that is not a signal's, or a signal that cannot be handled.
    """
    named = []
    for name in os.environ.get(VARIABLE, "").replace(",", " ").split():
        signum = getattr(signal.Signals, "SIG" + name.upper().removeprefix("SIG"), None)
        if signum is None or signum.name in ("SIGKILL", "SIGSTOP"):
            raise ValueError(
                f"{VARIABLE} must name signals that a program can act on, such as SIGUSR1,SIGXCPU, but got {name!r}"
            )
        named.append(signum)
    return [*(getattr(signal, name) for name in _ALWAYS if hasattr(signal, name)), *named]


class SignalHandler:
    """Context manager that makes the stop signals call ``handler``, in the main thread; ignored ones stay ignored."""

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._handler = handler
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in stop_signals():
                previous = signal.getsignal(signum)
                if previous not in (None, signal.SIG_IGN, self._handler):  # nohup ignores SIGHUP
                    self._previous[signum] = previous
                    signal.signal(signum, self._handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Restore the previous handlers; calling it again does nothing."""
        for signum, previous in self._previous.items():
            signal.signal(signum, previous)
        self._previous = {}


class SignalRecorder(SignalHandler):
    """Context manager that records the first stop signal, in `received`.

    The training loop looks at `received` between two updates. Inside
    `interruptible`, a signal also raises `StopRequested` at once.
    """

    def __init__(self) -> None:
        super().__init__(self._receive)
        self.received: int | None = None
        self._raises = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()
        if self.received is not None and error is not None and not isinstance(error, Interrupted):
            signal.raise_signal(self.received)  # another error ended training; the signal must not be lost

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let signals raise `StopRequested` inside the block, which must not change any state."""
        self._raises = True
        try:
            if self.received is not None:
                raise StopRequested
            yield
        finally:
            self._raises = False

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signum
        if self._raises:
            self._raises = False
            raise StopRequested


def terminate_at_exit(signum: int) -> None:
    """Let this process be terminated by a signal when it exits, so that its parent, such as a shell, sees it."""
    global _exit_signal
    _exit_signal = signum


@atexit.register
def _at_exit() -> None:
    uncaught = getattr(sys, "last_value", None)
    if _exit_signal is not None:
        _terminate(_exit_signal)
    elif not isinstance(uncaught, Interrupted) or hasattr(sys, "ps1"):  # an interactive session continues after it
        return
    elif uncaught.signum == signal.SIGINT:
        # Python terminates itself by SIGINT after finalisation if a KeyboardInterrupt, not one of a subclass, left
        # code that was run as a whole, as exec does.
        with contextlib.suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")
    elif uncaught.signum is not None:
        _terminate(uncaught.signum)


def _terminate(signum: int) -> None:
    for file in gc.get_objects():
        if isinstance(file, io.IOBase):
            with contextlib.suppress(Exception):
                file.flush()
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
