#!/usr/bin/env python3
"""The command ``cyconv course-tables`` as a script: see cyconv/experiments/commands/course_tables.py."""

from cyconv.experiments import cli
from cyconv.experiments.commands.course_tables import main

if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
