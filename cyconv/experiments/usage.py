"""The name of the program, and mistakes on its command line, each reported in one sentence."""

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path


def program() -> list[str]:
    """list of str: what the user typed before the options, a script's name or ``cyconv`` and its command."""
    path = Path(sys.argv[0])
    if path.stem == "cyconv" or path.parts[-2:] == ("cyconv", "__main__.py"):
        return ["cyconv", *sys.argv[1:2]]
    return [path.name]


class UsageError(Exception):
    """A mistake on the command line; its message is the sentence for the user."""


@contextlib.contextmanager
def usage(**options: str) -> Iterator[None]:
    """Convert exceptions from checks of the user's input to a `UsageError`.

    Parameters
    ----------
    **options : str
        The option that the user typed, by the name of the argument that it
        sets, such as ``n="--threads"``.
    """
    try:
        yield
    except (TypeError, ValueError, OSError, ModuleNotFoundError) as error:
        raise UsageError(explain(error, **options)) from error


def explain(error: BaseException, **options: str) -> str:
    """One sentence from an exception, without error numbers and in terms of the options of `usage`.

    Examples
    --------
    >>> explain(FileNotFoundError(2, "No such file or directory", "data"))
    'No such file or directory: data'
    >>> explain(ValueError("n must be an integer in [1, 256], but got 0"), n="--threads")
    '--threads must be an integer in [1, 256], but got 0'
    """
    sentence = str(error)
    if isinstance(error, OSError) and error.strerror:
        sentence = error.strerror + (f": {error.filename}" if error.filename else "")
    sentence = " ".join(sentence.split()) or type(error).__name__
    subject, must, rest = sentence.partition(" must ")
    for name, option in options.items() if must else ():
        subject = re.sub(rf"\b{name}\b", option.replace("\\", r"\\"), subject)
    return subject + must + rest
