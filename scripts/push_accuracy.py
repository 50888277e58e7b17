#!/usr/bin/env python3
"""The command ``cyconv push-accuracy`` as a script: see cyconv/experiments/commands/push_accuracy.py."""

from cyconv.experiments import cli
from cyconv.experiments.commands.push_accuracy import main

if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
