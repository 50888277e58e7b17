"""Choice of the build of the kernels, and information about it.

The build is chosen at import: the one for the widest instruction set that the
processor supports, or the one named by the environment variable ``CYCONV_ISA``
(``baseline``, ``avx2`` or ``avx512``).
"""

import importlib
import json
import math
import os
import time
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import _kernels
from .._checks import check_float_dtype, check_real
from .._kernels import processor
from .._kernels.processor import LINE_FLOATS, PAD
from .._typing import JsonDict
from .._version import __version__
from . import threads
from .memory import aligned_zeros

PROBE_LINES = 512
FAR = 10e-9  # seconds per cache line passed from one thread to another, above which they share no cache

# For each number of threads: time of the last measurement, and whether the threads share no cache.
_distances: dict[int, tuple[float, bool]] = {}


def _choose_build() -> tuple[str, ModuleType]:
    available = [name for name in processor.instruction_sets() if _is_built(name)]
    wanted = os.environ.get("CYCONV_ISA", "")
    if wanted and wanted not in available:
        raise ImportError(f"CYCONV_ISA must be one of {', '.join(available)} on this machine, but got {wanted!r}")
    name = wanted or available[0]
    return name, importlib.import_module(f".{name}", _kernels.__name__)


def _is_built(name: str) -> bool:
    return name in json.loads(processor.build_flags() or "{}")


instruction_set: str
kernels: ModuleType
instruction_set, kernels = _choose_build()


class _Printed(dict[str, Any]):
    """A dict that a notebook does not show after it has been printed."""

    def _ipython_display_(self) -> None:
        pass


def show_config() -> JsonDict:
    """Print how the kernels were built and how they run.

    Returns
    -------
    dict
        The same information, which a notebook does not show once more, with keys ``version``, ``instruction_set``,
        ``instruction_sets`` (those that this machine can run), ``openmp`` (the
        date in ``_OPENMP``, or 0 without OpenMP), ``threads``, ``compiler`` and
        ``flags``.

    Examples
    --------
    >>> import cyconv
    >>> config = cyconv.show_config()           # doctest: +ELLIPSIS
    cyconv ...
    >>> config["threads"] >= 1
    True
    """
    flags = json.loads(processor.build_flags())
    config: JsonDict = _Printed(
        version=__version__,
        instruction_set=instruction_set,
        instruction_sets=[name for name in processor.instruction_sets() if name in flags],
        openmp=processor.openmp_version(),
        threads=threads.get_num_threads(),
        compiler=compiler(),
        flags=flags[instruction_set],
    )
    print(f"cyconv {config['version']}")
    print(f"  instruction set  {instruction_set} (this machine runs {', '.join(config['instruction_sets'])})")
    print(f"  OpenMP           {config['openmp'] or 'none: kernels run on one thread'}")
    print(f"  threads          {config['threads']}")
    print(f"  compiler         {config['compiler']}")
    print(f"  flags            {config['flags']}")
    return config


def compiler() -> str:
    """The compiler of the kernels with its version; gcc's own text is the version alone."""
    text = processor.compiler()
    return f"gcc {text}" if text[:1].isdigit() else text


def specialised(function: Any, dtype: np.dtype[Any]) -> Any:
    """The specialisation of a kernel for float or double."""
    return function["float" if dtype == np.float32 else "double"]


def measure_peak_flops(dtype: DTypeLike = "float32", seconds: float = 0.2) -> float:
    """Measure the peak rate of fused multiply-adds with the current number of threads.

    Parameters
    ----------
    dtype : {"float32", "float64"}
    seconds : float, default 0.2
        Approximate duration of the measurement.

    Returns
    -------
    float
        Best of several runs, in 10**9 floating-point operations per second.
    """
    dtype = check_float_dtype(dtype)
    seconds = check_real("seconds", seconds, 0.001, 60)
    n_threads = threads.threads_for_call()
    seed = np.linspace(0.9, 0.99, PAD).astype(dtype)
    totals = np.empty(n_threads)
    probe = specialised(kernels.probe, dtype)
    best, end = 0.0, time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        operations: float = probe(seed, 100_000, totals, n_threads)
        now = time.perf_counter()
        best = max(best, operations / (now - start) / 1e9)
        if now >= end:
            return best


def threads_are_far(n_threads: int) -> bool:
    """Whether the threads have no shared last-level cache, so that passing data between them is expensive.

    This is measured, in about 50 microseconds, and cached for a quarter of a second, because the virtual processors
    of a virtual machine may be moved. It is not measured for more threads than processors. The answer affects how
    data are passed between threads, but never the results.
    """
    if n_threads == 1 or n_threads > threads.processors():
        return False
    measured_at, far = _distances.get(n_threads, (-math.inf, False))
    if time.monotonic() - measured_at > 0.25:
        lines = aligned_zeros(LINE_FLOATS * (PROBE_LINES + n_threads), np.float32, "the probe's lines")
        times = []
        for _ in range(3):
            start = time.perf_counter()
            kernels.exchange(lines, PROBE_LINES, 2, n_threads)
            times.append(time.perf_counter() - start)
        far = min(times) / (2 * PROBE_LINES) > FAR
        _distances[n_threads] = (time.monotonic(), far)
    return far
