"""Compiled kernels: one source, one module per instruction set.

The subject files are included by ``kernels.pyx``, which lists them in the order in which they build on each other; the
modules ``baseline``, ``avx2`` and ``avx512`` consist of it. Each opens with what it computes, its layout, the order of
its sums and who owns what.
Only checked arguments reach them: :mod:`cyconv.backend.ops` checks those of single kernels, `Network` those of training
and evaluation.

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


def _is_built() -> bool:
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    return any(name.startswith("processor.") and name.endswith(suffixes) for name in os.listdir(_FOLDER))


def _load_openmp() -> None:
    """Load OpenMP's runtime with a short spin.

    Its threads spin for some 20 microseconds once a parallel loop is done, and not for milliseconds: beside other busy
    processes they would take the processor from the very thread they wait for. GNU's runtime reads this when it is
    loaded, LLVM's when it is first asked anything; what the user set stands. In training, threads wait at a barrier of
    ours (barrier.pxi), whoever loaded the runtime.
    """
    wanted = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
    ours = [] if "OMP_WAIT_POLICY" in os.environ else [name for name in wanted if name not in os.environ]
    os.environ.update((name, wanted[name]) for name in ours)
    try:
        from . import processor

        processor.openmp_max_threads()
    except ImportError as error:
        if _is_built():
            raise
        raise ImportError(
            f"cyconv must be built before it can be imported, but its kernels are missing in {_FOLDER}: "
            "run pip install . and start Python outside the source tree or with -P, or pip install -e . to work in it"
        ) from error
    finally:
        for name in ours:
            del os.environ[name]


_load_openmp()
