"""The data sets that the scripts recognise by their files: to add one, add it to `FORMATS`."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .._files import check_path
from .._typing import StrPath
from . import cifar10, cifar100
from .cifar import given_path, is_there
from .own import holds_npy, load_npy, load_npz
from .split import Dataset


@dataclass(frozen=True)
class FileFormat:
    """How to recognise a data set by its files, and how to load it.

    Parameters
    ----------
    name : str
    wanted : str
        What a path must lead to, in words.
    is_at : callable
        Whether a Path, which need not exist, leads to the data set; quick, as it looks at file names and at most at
        the beginning of a file.
    load : callable
        Returns the `Dataset` at a Path; takes the options below as keyword arguments.
    options : dict of str to tuple of str
        The options of `OPTIONS` that the data set has, and their possible values.
    """

    name: str
    wanted: str
    is_at: Callable[[Path], bool]
    load: Callable[..., Dataset]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


#: Every option and its possible values, the default first, which is the only one for data sets without this option.
OPTIONS = {"protocol": ("full", "batch1"), "labels": ("fine", "coarse")}


def _load_cifar10(path: Path, protocol: str = "full") -> Dataset:
    if protocol == "batch1":
        return cifar10.load_cifar10(path, train_batches=(1,), validation_batches=(2,))
    return cifar10.load_cifar10(path)


def _is_npz(path: Path) -> bool:
    return path.suffix.lower() == ".npz" and os.path.isfile(path)


#: In the order in which they are tried.
FORMATS = (
    FileFormat(
        "CIFAR-10",
        cifar10.FILES.wanted,
        partial(is_there, cifar10.FILES),
        _load_cifar10,
        {"protocol": OPTIONS["protocol"]},
    ),
    FileFormat(
        "CIFAR-100",
        "the same of CIFAR-100",
        partial(is_there, cifar100.FILES),
        cifar100.load_cifar100,
        {"labels": OPTIONS["labels"]},
    ),
    FileFormat("data from an .npz", "an .npz with images and labels", _is_npz, load_npz),
    FileFormat("data from .npy files", "a folder with the same as .npy files", holds_npy, load_npy),
)


def find_data(data: StrPath | None = None) -> Path | None:
    """Where the data are: ``data``, or ``CYCONV_DATA``, or CIFAR-10 in one of its usual places.

    Returns
    -------
    Path or None
        For `load_data`; None if neither is given and CIFAR-10 is not found.

    Raises
    ------
    FileNotFoundError
        If ``data`` or ``CYCONV_DATA`` is given and there is no known data set.
    """
    given = given_path(data)
    if given is None:
        return cifar10.find_cifar10()
    name, path = given
    _recognise(name, path)
    return path


def load_data(folder: StrPath, **options: str) -> Dataset:
    """Load the data set at a path, whichever it is.

    Parameters
    ----------
    folder : path-like
    **options : str
        Values of `OPTIONS`.

    Raises
    ------
    FileNotFoundError
        If there is no known data set.
    TypeError, ValueError
        If the data set does not have an option, or its files are damaged.
    """
    path = check_path("folder", folder)
    found = _recognise("folder", path)
    check_options(found.name, options, found.options)
    return found.load(path, **{option: options[option] for option in found.options if option in options})


def check_options(name: str, options: Mapping[str, str], taken: Mapping[str, tuple[str, ...]]) -> None:
    """Raise ValueError for an option that the data set of this name does not have."""
    for option, value in options.items():
        if option not in taken and value != OPTIONS[option][0]:
            raise ValueError(f"{option} must be {OPTIONS[option][0]!r} for {name}, but got {value!r}")


def _recognise(name: str, path: Path) -> FileFormat:
    for each in FORMATS:
        if each.is_at(path):
            return each
    wanted = ", or ".join(each.wanted for each in FORMATS)
    raise FileNotFoundError(f"{name} must be {wanted}, but there is none at {path}")
