"""The signals that end training: noted now, acted on at the right moment; and how they end the process."""

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
_ends_by: int | None = None  # the signal that this process is to end by


class Interrupted(KeyboardInterrupt):
    """A signal ended training between two updates.

    A program that does not catch it ends by that signal, as if nobody had
    caught the signal itself.

    Attributes
    ----------
    signum : int
        The signal's number.
    """

    signum: int | None = None


class Abort(BaseException):
    """Raised by a signal where nothing has changed yet."""


def stop_signals() -> list[signal.Signals]:
    """list of signal.Signals: SIGINT, SIGTERM, SIGHUP where there is one, and what ``CYCONV_STOP_SIGNALS`` names.

    Raises
    ------
    ValueError
        If it names what is no signal, or one that no program can act on.
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


class Handled:
    """Inside the block, in the main thread, the signals that end training call ``handler``; ignored ones stay so."""

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._handler = handler
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in stop_signals():
                previous = signal.getsignal(signum)
                if previous not in (None, signal.SIG_IGN, self._handler):  # nohup's choice stands
                    self._previous[signum] = previous
                    signal.signal(signum, self._handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Put the handlers back; a second time, nothing happens."""
        for signum, previous in self._previous.items():
            signal.signal(signum, previous)
        self._previous = {}


class SignalsNoted(Handled):
    """Notes the signals that end training; `received` is the first that came.

    A signal is only noted, for the loop to see between two updates; inside
    `abortable`, where nothing is changed, it also raises at once.
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
            signal.raise_signal(self.received)  # another error ended training: the signal is not lost with it

    @contextlib.contextmanager
    def abortable(self) -> Iterator[None]:
        """Let a signal raise `Abort` inside the block."""
        self._raises = True
        try:
            if self.received is not None:
                raise Abort
            yield
        finally:
            self._raises = False

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signum
        if self._raises:
            self._raises = False
            raise Abort


def die_at_exit_by(signum: int) -> None:
    """When this process exits, let it die by a signal: what started it, such as a shell's loop, learns of it so."""
    global _ends_by
    _ends_by = signum


@atexit.register
def _die() -> None:
    uncaught = getattr(sys, "last_value", None)
    if _ends_by is not None:
        _die_by(_ends_by)
    elif not isinstance(uncaught, Interrupted) or hasattr(sys, "ps1"):  # nothing, or an interactive session went on
        return
    elif uncaught.signum == signal.SIGINT:
        # Python dies by SIGINT, once it is finalised, if source that it ran as a whole, as exec does, was left by a
        # KeyboardInterrupt; a subclass does not count.
        with contextlib.suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")
    elif uncaught.signum is not None:
        _die_by(uncaught.signum)


def _die_by(signum: int) -> None:
    for file in gc.get_objects():
        if isinstance(file, io.IOBase):
            with contextlib.suppress(Exception):
                file.flush()
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
