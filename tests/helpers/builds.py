"""Every build of the kernels that this machine can run, each tried in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from cyconv._kernels import processor

HERE = Path(__file__).parent
INSTRUCTION_SETS = [name for name in processor.instruction_sets() if name in json.loads(processor.build_flags())]
HAS_OPENMP = processor.openmp_version() > 0


def run_program(program, *arguments, timeout=120, **environment):
    """The JSON that a program, by its path or of this folder, prints last; variables set to None are unset for it."""
    folders = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    variables = {**os.environ, "PYTHONPATH": folders, **environment}
    variables = {name: value for name, value in variables.items() if value is not None}
    command = [sys.executable, str(HERE / program), *map(str, arguments)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{program} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])
