"""Descriptions of data sets, which are sent to other processes and machines in place of the data."""

import glob
import hashlib
import multiprocessing
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .._checks import check_choice, check_flag, describe
from .._files import check_path, file_version
from .._typing import JsonDict, StrPath
from ..datasets import Dataset, make_shapes
from ..datasets.files import OPTIONS, check_options, load_data


@dataclass(frozen=True)
class DataSource:
    """A description of where data come from: small, picklable, and loaded once in each process that uses it.

    Parameters
    ----------
    folder : str or None
        Where the data are: a folder or an archive of CIFAR-10 or CIFAR-100,
        an ``.npz`` for `load_npz`, or a folder for `load_npy`; None for
        `make_shapes`.
    protocol : {"full", "batch1"}
        Which images to train and validate on. For CIFAR-10, ``"full"``: 49,000
        and the last 1,000, as in the assignment; ``"batch1"``: batch 1 and
        batch 2. For the shapes, 10,000 training and 2,000 test images with
        both, and 1,000 or 10,000 validation images. Other data sets have
        ``"full"`` only.
    small : bool, default False
        Whether to use a tenth of these numbers of shapes.
    labels : {"fine", "coarse"}
        Which labels of CIFAR-100.

    Examples
    --------
    >>> data = DataSource(small=True).load()
    >>> data.name, len(data.train), data is DataSource(small=True).load()
    ('shapes (synthetic)', 4000, True)
    """

    folder: str | None = None
    protocol: str = "full"
    small: bool = False
    labels: str = "fine"

    def __init__(
        self, folder: StrPath | None = None, protocol: str = "full", small: bool = False, labels: str = "fine"
    ) -> None:
        check_choice("protocol", protocol, OPTIONS["protocol"])
        check_flag("small", small)
        check_choice("labels", labels, OPTIONS["labels"])
        object.__setattr__(self, "folder", None if folder is None else str(check_path("folder", folder)))
        object.__setattr__(self, "protocol", protocol)
        object.__setattr__(self, "small", small)
        object.__setattr__(self, "labels", labels)

    def load(self) -> Dataset:
        """Load the `Dataset`; equal sources share one object, unless a file has changed in the meantime."""
        return _load(self, _versions(self.folder))


def _versions(folder: str | None) -> tuple[tuple[int, ...] | None, ...]:
    """What changes when a file is written again: the archive, the ``.npz``, or a ``.npy`` in the folder."""
    if folder is None:
        return ()
    return tuple(map(file_version, [folder, *sorted(glob.glob(f"{glob.escape(folder)}/*.npy"))]))


@lru_cache(maxsize=1)
def _load(source: DataSource, versions: tuple[tuple[int, ...] | None, ...]) -> Dataset:
    options = {option: getattr(source, option) for option in OPTIONS}
    if source.folder is None:
        check_options("the synthetic shapes", options, {"protocol": OPTIONS["protocol"]})
        n_train = 4000 if source.small else 10000
        return make_shapes(n_train, n_train // 10 if source.protocol == "full" else n_train, n_train // 5)
    with warnings.catch_warnings():
        if multiprocessing.parent_process() is not None:
            warnings.simplefilter("ignore")  # the main process shows warnings about the files
        return load_data(Path(source.folder), **options)


def load(data: Dataset | DataSource, name: str = "data") -> Dataset:
    """The data set, which is loaded if necessary."""
    if isinstance(data, DataSource):
        return data.load()
    if not isinstance(data, Dataset):
        raise TypeError(f"{name} must be a Dataset or a DataSource, but got {describe(data)}")
    return data


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
