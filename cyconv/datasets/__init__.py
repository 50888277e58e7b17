"""Data sets: CIFAR-10 from its original files, and a synthetic one that needs no files."""

from .cifar10 import find_cifar10, load_cifar10
from .download import download_cifar10
from .normalizer import Normalizer
from .shapes import make_shapes
from .split import Dataset, Split

__all__ = [
    "Dataset",
    "Normalizer",
    "Split",
    "download_cifar10",
    "find_cifar10",
    "load_cifar10",
    "make_shapes",
]
