#!/usr/bin/env python3
"""The command ``cyconv verify-gradients`` as a script: see cyconv/experiments/commands/verify_gradients.py."""

from cyconv.experiments import cli
from cyconv.experiments.commands.verify_gradients import main

if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
