"""The libraries that ``scripts/benchmark.py`` compares with cyconv, one module each.

Each module has one or two classes with the same five methods::

    Peer(case, data, **variant)         # lays out the images, holds the parameters
    .train(order, learning_rates)       # SGD updates; update i takes order[i*batch : (i+1)*batch]
    .evaluate()                         # (loss, accuracy) over all images of ``data``
    .parameters()                       # contract names -> NumPy arrays
    .set_parameters(mapping)

and a class attribute ``VARIANTS``: keyword arguments that select an
implementation of the step, of which `peers.timing.Timed` uses the fastest for
each network. All of them train the network of Exercise 3 (convolution with
stride = filter size, ReLU, hidden layer, ReLU, softmax) with l2 = 0.003 on the
weights.
"""

import importlib
import importlib.util
import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class Entry:
    """A peer: its name in tables and figures, the class that implements it, and the package it requires."""

    label: str
    module: str
    attribute: str
    requires: str
    gpu: bool = False  # uses a GPU and all its host's CPUs; timed only on request, never among the best on a CPU


PEERS = {
    "cyconv": Entry("cyconv", "cyconv_peer", "CyconvPeer", "cyconv"),
    "numpy": Entry("NumPy, preallocated", "numpy_peer", "NumpyPeer", "numpy"),
    "torch": Entry("PyTorch conv2d + autograd", "torch_peer", "AutogradPeer", "torch"),
    "torch-manual": Entry("PyTorch, manual backward", "torch_peer", "ManualPeer", "torch"),
    "jax": Entry("JAX jit + scan", "jax_peer", "JaxPeer", "jax"),
    "gpu": Entry("PyTorch, GPU", "gpu_peer", "EagerGpuPeer", "torch", gpu=True),
    "gpu-graph": Entry("PyTorch, GPU, CUDA graph", "gpu_peer", "GraphGpuPeer", "torch", gpu=True),
}


def installed():
    """Names of the peers on the CPU whose library is installed."""
    return [name for name, entry in PEERS.items() if not entry.gpu and importlib.util.find_spec(entry.requires)]


def finds_gpu():
    """Whether PyTorch is installed and sees a GPU."""
    if not importlib.util.find_spec("torch"):
        return False
    import torch

    return torch.cuda.is_available()


def warn_if_busy():
    """Say on stderr if other programs are running; return the load."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        print(f"Other programs are running (load {load:.1f}): times will vary.", file=sys.stderr, flush=True)
    return load


def load(name):
    """The class of the peer called ``name``."""
    entry = PEERS[name]
    return getattr(importlib.import_module(f"{__name__}.{entry.module}"), entry.attribute)


def versions(names):
    """Installed versions of Python, cyconv, NumPy and the libraries of these peers."""
    found = {"python": platform.python_version()}
    for package in sorted({PEERS[name].requires for name in names} | {"cyconv", "numpy"}):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found
