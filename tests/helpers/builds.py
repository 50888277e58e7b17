"""The builds of the kernels that this machine can run, and programs in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cyconv
from cyconv._kernels import processor

HERE = Path(__file__).parent
INSTRUCTION_SETS = [name for name in processor.instruction_sets() if name in json.loads(processor.build_flags())]
HAS_OPENMP = processor.openmp_version() > 0


def subprocess_environment(**variables):
    """The environment of a process that can import cyconv and these helpers; variables set to None are unset in it."""
    folders = [str(HERE), str(Path(cyconv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), **variables}
    return {name: value for name, value in variables.items() if value is not None}


def run_program(program, *arguments, timeout=120, **environment):
    """The JSON that a program, given by its path or its name in this folder, prints last."""
    command = [sys.executable, str(HERE / program), *map(str, arguments)]
    variables = subprocess_environment(**environment)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{program} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])
