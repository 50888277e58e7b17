#!/usr/bin/env python3
"""The command ``cyconv compare-schedules`` as a script: see cyconv/experiments/commands/compare_schedules.py."""

from cyconv.experiments import cli
from cyconv.experiments.commands.compare_schedules import main

if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
