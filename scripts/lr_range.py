#!/usr/bin/env python3
"""The command ``cyconv lr-range`` as a script: see cyconv/experiments/commands/lr_range.py."""

from cyconv.experiments import cli
from cyconv.experiments.commands.lr_range import main

if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
