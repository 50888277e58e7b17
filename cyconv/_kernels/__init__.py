"""Compiled kernels: one source, one module per instruction set.

The subject files (``patches.pyx``, ``convolution.pyx``, ``digits.pyx``, ``update.pyx``, ``dense.pyx``, ``softmax.pyx``,
``training.pyx``) are included by ``kernels.pxi``, which the modules ``baseline``, ``avx2`` and ``avx512`` consist of.
The instruction sets ``avx2vnni`` and ``avx512vnni`` are the latter two and one instruction more. Only :mod:`cyconv.ops`
calls them, with arguments that it has checked.

Legend, the same in every kernel file
    N   images                      P   patches per image
    C   channels                    D   values per patch, C*f*f
    F   filters                     H   hidden units
    K   classes                     f   filter width, which is the stride
    x   patches                     h   activations of the convolution
    a   input of a dense layer      c   its output, before or after ReLU
    w   weights                     z   scratch of a tile
    dX  gradient of the cost with respect to X;  ld_X  distance of X's rows, in elements
    i, n images;  j units;  k inputs;  p patches;  d patch values;  v vectors;  lane lanes;  o outputs of a column;
    r rows and q factors of a sparse product
"""

import importlib.machinery
import os


_FOLDER = os.path.dirname(__file__)


def _is_built():
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    return any(name.startswith("processor.") and name.endswith(suffixes) for name in os.listdir(_FOLDER))


def _load_openmp():
    """Load OpenMP's runtime with a spin of some 20 microseconds, as long as a phase's threads usually wait for each
    other. Longer spins gain nothing where the processors are free, and make training ten times slower where they
    are not: they take the processor from the very thread they wait for. libgomp reads this once; what the user set
    stands."""
    name = "GOMP_SPINCOUNT"
    ours = name not in os.environ and "OMP_WAIT_POLICY" not in os.environ
    if ours:
        os.environ[name] = "1000"
    try:
        from . import processor  # noqa: F401
    except ImportError as error:
        if _is_built():
            raise
        raise ImportError(
            f"cyconv must be built before it can be imported, but its kernels are missing in {_FOLDER}: "
            "run pip install . and start Python outside the source tree or with -P, or pip install -e . to work in it"
        ) from error
    finally:
        if ours:
            del os.environ[name]


_load_openmp()
