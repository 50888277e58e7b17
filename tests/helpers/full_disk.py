"""Disks that fill up."""

import contextlib

import pytest


def disk_full(*arguments, **options):
    """A stand-in for a function that writes."""
    raise OSError(28, "No space left on device")


@contextlib.contextmanager
def file_size_limit(n_bytes):
    """Writing fails beyond this size of a file, as on a full disk; needs no privileges."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
