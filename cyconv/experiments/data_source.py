"""Descriptions of data sets, which are sent to other processes and machines in place of the data."""

import hashlib
import multiprocessing
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .._checks import check_choice, check_flag
from .._files import check_path
from .._typing import JsonDict, StrPath
from ..datasets import Dataset, load_cifar10, make_shapes


@dataclass(frozen=True)
class DataSource:
    """A description of where data come from: small, picklable, and loaded once in each process that uses it.

    Parameters
    ----------
    folder : str or None
        Where CIFAR-10 is, for `load_cifar10`; None for `make_shapes`.
    protocol : {"full", "batch1"}
        Which images to train and validate on. For CIFAR-10, ``"full"``: 49,000
        and the last 1,000, as in the assignment; ``"batch1"``: batch 1 and
        batch 2. For the shapes, 10,000 training and 2,000 test images with
        both, and 1,000 or 10,000 validation images.
    small : bool, default False
        Whether to use a tenth of these numbers of shapes.

    Examples
    --------
    >>> data = DataSource(small=True).load()
    >>> data.name, len(data.train), data is DataSource(small=True).load()
    ('shapes (synthetic)', 1000, True)
    """

    folder: str | None = None
    protocol: str = "full"
    small: bool = False

    def __init__(self, folder: StrPath | None = None, protocol: str = "full", small: bool = False) -> None:
        check_choice("protocol", protocol, ("full", "batch1"))
        check_flag("small", small)
        object.__setattr__(self, "folder", None if folder is None else str(check_path("folder", folder)))
        object.__setattr__(self, "protocol", protocol)
        object.__setattr__(self, "small", small)

    def load(self) -> Dataset:
        """Load the `Dataset`; equal sources share one object."""
        return _load(self)


@lru_cache(maxsize=1)
def _load(source: DataSource) -> Dataset:
    if source.folder is None:
        sizes = (10000, 1000 if source.protocol == "full" else 10000, 2000)
        return make_shapes(*(size // 10 if source.small else size for size in sizes))
    train, validation = ((1, 2, 3, 4, 5), None) if source.protocol == "full" else ((1,), (2,))
    with warnings.catch_warnings():
        if multiprocessing.parent_process() is not None:
            warnings.simplefilter("ignore")  # the main process shows warnings about the files
        return load_cifar10(Path(source.folder), train_batches=train, validation_batches=validation)


def describe_data(data: Dataset) -> JsonDict:
    """What a results file says about a `Dataset`.

    Returns
    -------
    dict
        ``name``, ``n_train``, ``n_validation``, ``n_test``, ``class_names``,
        and ``fingerprint``, a SHA-256 over those of the three splits.
    """
    splits = (data.train, data.validation, data.test)
    fingerprints = "".join(split.fingerprint() for split in splits)
    return {
        "name": data.name,
        "n_train": len(data.train),
        "n_validation": len(data.validation),
        "n_test": len(data.test),
        "class_names": list(data.class_names),
        "fingerprint": hashlib.sha256(fingerprints.encode()).hexdigest(),
    }
