"""The command line: ``cyconv COMMAND``, or ``python -m cyconv COMMAND``."""

import argparse
import difflib
import importlib
from collections.abc import Sequence
from typing import NoReturn

from ._version import __version__

COMMANDS = {
    "train": "train a network of your own choice",
    "exercise3": "Exercise 3: four patch sizes, then longer training",
    "exercise4": "Exercise 4: a larger network, and label smoothing",
    "push-accuracy": "Exercise 5.1: the best accuracy within a given time",
    "course-tables": "Exercises 3 and 4 beside published accuracies",
    "search-l2": "search for the weight decay or another setting",
    "lr-range": "the learning-rate range test",
    "compare-schedules": "three schedules and two optimisers",
    "verify-gradients": "Exercises 1 and 2: check the convolution and the gradients",
    "download": "download CIFAR-10 (170 MB)",
    "info": "what a bug report needs: build, threads, versions, data",
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command, and end the process with its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The command and its arguments; by default, those of this process.
    """
    parser = argparse.ArgumentParser(
        prog="cyconv",
        usage="%(prog)s COMMAND [OPTION ...]",
        description="Train small patchify ConvNets on the CPU with cyclical learning rates.",
        epilog="commands:\n"
        + "\n".join(f"  {name:18} {summary}" for name, summary in COMMANDS.items())
        + "\n\n'cyconv COMMAND --help' lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", metavar="COMMAND", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if chosen.command is None:
        parser.print_help()
        parser.exit()
    if chosen.command not in COMMANDS:
        close = [name for name in COMMANDS if name.startswith(chosen.command)]
        close = close or difflib.get_close_matches(chosen.command, COMMANDS, 1)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "'cyconv --help' lists the commands"
        parser.error(f"there is no command {chosen.command!r}: {hint}")
    from .experiments import cli

    module = importlib.import_module(f".experiments.commands.{chosen.command.replace('-', '_')}", __package__)
    cli.exit_with(cli.run_script(module.main, chosen.arguments))


if __name__ == "__main__":
    main()
