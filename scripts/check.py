"""Check the sources as CI does: linting of Python and Cython, formatting, spelling, import layers, types.

    python scripts/check.py

The tools and their settings are listed in pyproject.toml; install them with pip install --group checks (pip 25.1 or
newer). The exit code is 0 if no tool finds a problem.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPELLED = ["cyconv", "scripts", "tests", "setup.py", "pyproject.toml", *sorted(path.name for path in ROOT.glob("*.md"))]
CHECKS = [
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["cython-lint", "cyconv/_kernels"],
    ["codespell", *SPELLED],
    ["lint-imports", "--no-cache", "--no-logo"],
    ["mypy"],
]


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    # Prefer the tools of this environment, even if it is not activated, also for tools that start others.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    failed = []
    for command in CHECKS:
        print("==", *command[:2], flush=True)
        tool = shutil.which(command[0], path=path)
        if tool is None:
            return f"{command[0]} is not installed: run pip install --group checks"
        if subprocess.run([tool, *command[1:]], cwd=ROOT, env={**os.environ, "PATH": path}).returncode:
            failed.append(command[0])
    print("failed: " + ", ".join(failed) if failed else "all clean")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
