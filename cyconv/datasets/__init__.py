"""Data sets: CIFAR-10 and CIFAR-100, your own arrays, and a synthetic one that needs no files."""

from .cifar10 import find_cifar10, load_cifar10
from .cifar100 import find_cifar100, load_cifar100
from .download import download_cifar10
from .normalizer import Normalizer
from .own import load_npy, load_npz
from .shapes import make_shapes
from .split import Dataset, Split
from .whitening import Whitening

__all__ = [
    "Dataset",
    "Normalizer",
    "Split",
    "Whitening",
    "download_cifar10",
    "find_cifar10",
    "find_cifar100",
    "load_cifar10",
    "load_cifar100",
    "load_npy",
    "load_npz",
    "make_shapes",
]
