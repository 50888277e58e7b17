"""Progress bars; the work continues without one that cannot be drawn."""

import contextlib
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Any, Self


def is_interactive() -> bool:
    """Whether to show a bar by default: in a notebook, or if stderr is a terminal."""
    try:
        return _in_notebook() or sys.stderr.isatty()
    except (AttributeError, ValueError):  # stderr is missing or closed
        return False


class ProgressBar:
    """A tqdm bar, drawn as a widget in notebooks.

    Parameters
    ----------
    shown : bool
        Whether to show a bar at all.
    **options
        Arguments of tqdm.
    """

    def __init__(self, shown: bool, **options: Any) -> None:
        self._bar: Any = None
        if shown:
            with self._dropped_on_error():
                self._bar = _bar_class()(dynamic_ncols=True, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            with self._dropped_on_error():
                self._bar.close()

    def update(self, n: int) -> None:
        """Advance the bar by ``n``."""
        if self._bar is not None:
            with self._dropped_on_error():
                self._bar.update(n)

    def note(self, text: str) -> None:
        """Show a text after the bar the next time it is drawn."""
        if self._bar is not None:
            with self._dropped_on_error():
                self._bar.set_postfix_str(text, refresh=False)

    @contextlib.contextmanager
    def _dropped_on_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk, a broken pipe, an unusual replacement of stderr
            if _is_from_signal_handler(error):
                raise
            self._bar = None


def _bar_class() -> Any:
    if _in_notebook():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without ipywidgets, tqdm warns and draws a text bar
            from tqdm.auto import tqdm
    else:
        from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no monitor thread

        def __del__(self) -> None:  # do not draw a discarded bar once more
            pass

    return Bar


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel, by the criterion of tqdm.auto."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def _is_from_signal_handler(error: BaseException) -> bool:
    """Whether an error was raised by a signal handler, such as a timeout's, while the bar was drawn."""
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False
