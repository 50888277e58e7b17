"""SIGINT and SIGTERM, noted now and heard at the right moment."""

import contextlib
import signal
import threading


class Abort(BaseException):
    """Raised by a signal where nothing has changed yet."""


class SignalsNoted:
    """Takes SIGINT and SIGTERM over, in the main thread; `received` is the first that came.

    A signal is only noted, for the loop to see between two updates; inside
    `abortable`, where nothing is changed, it also raises at once.
    """

    def __enter__(self):
        self.received = None
        self._raises = False
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                previous = signal.getsignal(signum)
                if previous not in (None, signal.SIG_IGN):  # nohup's choice stands
                    self._previous[signum] = previous
                    signal.signal(signum, self._receive)
        return self

    def __exit__(self, *_):
        for signum, previous in self._previous.items():
            signal.signal(signum, previous)

    @contextlib.contextmanager
    def abortable(self):
        """Let a signal raise `Abort` inside the block."""
        self._raises = True
        try:
            if self.received is not None:
                raise Abort
            yield
        finally:
            self._raises = False

    def _receive(self, signum, frame):
        if self.received is None:
            self.received = signum
        if self._raises:
            self._raises = False
            raise Abort
