"""Check the sources, as CI does: lint of Python and Cython, spelling, the layers of imports, types.

    python scripts/check.py

The tools are those of pyproject.toml, which also holds their settings: pip install --group checks (pip 25.1 or newer).
The exit code is 0 when none finds anything.
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
    # This environment's tools come first, also those that a tool starts, whether or not the environment is activated.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    failed = []
    for command in CHECKS:
        print("==", *command[:2], flush=True)
        tool = shutil.which(command[0], path=path)
        if tool is None:
            return f"{command[0]} is missing: run pip install --group checks"
        if subprocess.run([tool, *command[1:]], cwd=ROOT, env={**os.environ, "PATH": path}).returncode:
            failed.append(command[0])
    print("failed: " + ", ".join(failed) if failed else "all clean")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
