"""Download CIFAR-10 (170 MB) to where every command finds it.

FOLDER is by default $CYCONV_DATA, or else cyconv's folder in the user's cache
folder, and nothing is downloaded if CIFAR-10 is already in one of the places
where it is looked for. An interrupted download is resumed, and the archive's
checksum is compared with the published one.
"""

import argparse
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from ...datasets import download_cifar10, find_cifar10
from ...datasets.cifar import cache_folder
from ..usage import UsageError, explain, program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        " ".join(program()), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="where to put the archive; created if missing")
    given = parser.parse_args(argv).folder
    if given is None:
        found = _find()
        if found is not None:
            print(f"CIFAR-10 is already in {found}: nothing was downloaded.")
            return 0
    folder = given or os.environ.get("CYCONV_DATA") or cache_folder()
    if folder is None:
        raise UsageError("FOLDER must be given, since this user has no cache folder")
    try:
        archive = download_cifar10(folder)
    except ConnectionError as error:  # exit code 1: no mistake on the command line
        raise ConnectionError(explain(error, url="CYCONV_CIFAR10_URL")) from error
    except (TypeError, ValueError, FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(explain(error, folder="FOLDER", url="CYCONV_CIFAR10_URL")) from error
    found = _find()
    if found is not None and found.samefile(archive.parent):
        print(f"CIFAR-10 is in {archive.parent}, where every command finds it.")
    else:
        print(f"CIFAR-10 is in {archive.parent}: tell commands with --data {archive.parent}, or set CYCONV_DATA to it.")
    return 0


def _find() -> Path | None:
    """Where CIFAR-10 is found without being told; None also if CYCONV_DATA leads to no CIFAR-10."""
    with contextlib.suppress(OSError, ValueError):
        return find_cifar10()
    return None
