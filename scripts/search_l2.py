#!/usr/bin/env python3
"""The command ``cyconv search-l2`` as a script: see cyconv/experiments/commands/search_l2.py."""

from cyconv.experiments import cli
from cyconv.experiments.commands.search_l2 import main

if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
