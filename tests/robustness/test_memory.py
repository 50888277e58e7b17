"""Memory does not grow and holds the data once: measured in separate processes, by what Linux reports."""

import sys

import pytest
from builds import run_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")


def test_memory_does_not_grow_over_update_steps():
    before, after = run_program("memory_use.py", "steps", OMP_NUM_THREADS="2")
    assert after - before < 2


def test_training_on_cifar10s_size_holds_the_images_and_little_else():
    assert run_program("memory_use.py", "fit", OMP_NUM_THREADS="2") < 250
