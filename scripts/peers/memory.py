"""The memory that a training run uses, and the time that an import takes."""

import subprocess
import sys

import numpy as np

from . import load
from .case import ARCHITECTURES, Case, Data

MIB = 2**20
_IMPORT = "import time, numpy; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def resident_memory(name, n_images):
    """MiB used while training on ``n_images``, in addition to an interpreter with NumPy imported.

    For cyconv this is a whole ``CyclicTrainer.fit``, including the caller's
    uint8 images; for the others only the images and the updates. Call this in
    a new process.

    Returns
    -------
    dict
        "held" after the last update and "peak", including images and libraries.
    """
    before = _status("VmRSS")
    data = Data.random(n_images)
    case = Case(*ARCHITECTURES["A2"])
    if name == "cyconv":
        kept = _fit(case, data)
    else:
        peer_class = load(name)
        kept = peer_class(case, data, **peer_class.VARIANTS[0])
        del data
        order = np.random.default_rng(0).permutation(n_images)[: 100 * case.batch_size]
        kept.train(order, np.full(len(order) // case.batch_size, 1e-3))
    held, peak = _status("VmRSS") - before, _status("VmHWM") - before
    del kept
    return {"held": held / MIB, "peak": peak / MIB}


def _fit(case, data):
    import cyconv

    train = cyconv.Split(data.images, data.labels)
    validation = cyconv.Split(data.images[:1000], data.labels[:1000])
    network = cyconv.Network(case.filter_size, case.n_filters, case.n_hidden[0])
    schedule = cyconv.CyclicSchedule(eta_min=1e-5, eta_max=1e-1, step_size=50, n_cycles=1)
    trainer = cyconv.CyclicTrainer(network, schedule, batch_size=case.batch_size, l2=0.003)
    trainer.fit(train, validation, log_every=50, progress=False)
    return trainer


def _status(field):
    """The number of bytes in one line of /proc/self/status."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def import_seconds(module):
    """Seconds that ``import module`` takes in a new interpreter that has imported NumPy."""
    result = subprocess.run(
        [sys.executable, "-P", "-c", _IMPORT.format(module)], check=True, capture_output=True, text=True
    )
    return float(result.stdout)
