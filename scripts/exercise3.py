#!/usr/bin/env python3
"""The command ``cyconv exercise3`` as a script: see cyconv/experiments/commands/exercise3.py."""

from cyconv.experiments import cli
from cyconv.experiments.commands.exercise3 import main

if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
