"""Progress bars that are dropped where they cannot be drawn: the work goes on without them."""

import contextlib
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Any, Self


def is_watched() -> bool:
    """Whether somebody may see a bar: this is a notebook, or stderr is a terminal."""
    try:
        return _in_notebook() or sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is no stderr, or it is closed
        return False


class ProgressBar:
    """A tqdm bar, in a notebook a notebook's.

    Parameters
    ----------
    shown : bool
        Whether there is to be one at all.
    **options
        tqdm's.
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
        """Go on by ``n``."""
        if self._bar is not None:
            with self._dropped_on_error():
                self._bar.update(n)

    def note(self, text: str) -> None:
        """Show a text behind the bar from its next drawing on."""
        if self._bar is not None:
            with self._dropped_on_error():
                self._bar.set_postfix_str(text, refresh=False)

    @contextlib.contextmanager
    def _dropped_on_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk, a broken pipe, whatever stands for stderr
            if _comes_from_a_signal(error):
                raise
            self._bar = None


def _bar_class() -> Any:
    if _in_notebook():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no ipywidgets, where it is a bar of text
            from tqdm.auto import tqdm
    else:
        from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no thread of its own

        def __del__(self) -> None:  # who drops it does not want to see it again
            pass

    return Bar


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel, as tqdm.auto sees it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def _comes_from_a_signal(error: BaseException) -> bool:
    """Whether the handler of a signal raised it, such as a time limit's, while the bar was drawn."""
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False
