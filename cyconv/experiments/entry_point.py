"""How a script starts and ends: one-sentence errors, exit codes, and output that any terminal can show."""

import codecs
import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from .._signals import SignalHandler, terminate_at_exit
from .results import RunInterrupted
from .usage import UsageError, explain, program, usage

_ERROR_HANDLER = "cyconv.transliterate"
_TRANSLITERATIONS = {
    "λ": "lambda",
    "η": "eta",
    "ε": "epsilon",
    "µ": "u",
    "±": "+-",
    "×": "x",
    "÷": "/",
    "−": "-",
    "–": "-",
    "→": "->",
    "√": "sqrt",
    "·": "*",
    "₀": "0",
    "₁": "1",
    "²": "^2",
}


def run_script(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)`` and return the conventional exit code.

    0: success; 1: failure, such as a full disk; 2: a mistake on the command
    line; 128 + the signal's number: interrupted (see `exit_with`). Every error
    that a user can cause is reported in one sentence on standard error.
    """
    name = " ".join(program())
    transliterate_output()

    def stop(number: int, frame: FrameType | None) -> None:
        raise RunInterrupted("interrupted", number)

    try:
        with contextlib.ExitStack() as stack:
            with usage():
                stack.enter_context(SignalHandler(stop))
            return main(argv)
    except UsageError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except RunInterrupted as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 128 + (error.signum or signal.SIGINT)
    except BrokenPipeError:
        # The reader has closed the pipe: discard what is still in the buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 1  # Windows has no such signal
    except (OSError, MemoryError) as error:
        print(f"{name}: error: {explain(error)}", file=sys.stderr)
        return 1


def exit_with(code: int) -> NoReturn:
    """End the program with an exit code; if that is 128 + a signal's number, by the signal, as shells expect.

    A loop in a shell stops at Ctrl-C only if the program it ran was killed by SIGINT; ``$?`` is still 128 + its number.
    """
    if code > 128:
        terminate_at_exit(code - 128)
    sys.exit(code)


def transliterate_output() -> None:
    """Make standard output accept any text: characters missing from its encoding, such as λ, are spelled out."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_ERROR_HANDLER)


def _transliterate(error: UnicodeError) -> tuple[str, int]:
    """For `codecs.register_error`: ASCII for the characters that tables and sentences contain."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_TRANSLITERATIONS.get(character, "?") for character in text), error.end


codecs.register_error(_ERROR_HANDLER, _transliterate)
