"""Compiled kernels: one source, one module per instruction set.

The subject files (``patches.pyx``, ``convolution.pyx``, ``dense.pyx``, ``softmax.pyx``, ``training.pyx``) are
included by ``kernels.pxi``, which the modules ``baseline``, ``avx2`` and ``avx512`` consist of. Only
:mod:`cyconv.ops` calls them, with arguments that it has checked.

Legend, the same in every kernel file
    N   images                      P   patches per image
    C   channels                    D   values per patch, C*f*f
    F   filters                     H   hidden units
    K   classes                     f   filter width, which is the stride
    x   patches                     h   activations of the convolution
    a   input of a dense layer      c   its output, before or after ReLU
    w   weights                     z   scratch of a tile
    dX  gradient of the cost with respect to X;  ld_X  distance of X's rows, in elements
    i, n images;  j units;  k inputs;  p patches;  d patch values;  v vectors;  lane lanes
"""

import importlib.machinery
import os


def _is_built():
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    names = os.listdir(os.path.dirname(__file__))
    return any(name.startswith("processor.") and name.endswith(suffixes) for name in names)


def _load_openmp():
    """Load OpenMP's runtime with a bounded spin: idle threads that spin for milliseconds take the processor from
    whatever else runs, and from the thread they wait for. libgomp reads this once; what the user set stands."""
    name = "GOMP_SPINCOUNT"
    ours = name not in os.environ and "OMP_WAIT_POLICY" not in os.environ
    if ours:
        os.environ[name] = "20000"
    try:
        from . import processor  # noqa: F401
    except ImportError as error:
        if _is_built():
            raise
        raise ImportError(
            "cyconv must be built before it can be imported, but its kernels are missing in "
            f"{os.path.dirname(__file__)}: run pip install . and start Python outside the source tree, or pip install -e . to work in it"
        ) from error
    finally:
        if ours:
            del os.environ[name]


_load_openmp()
