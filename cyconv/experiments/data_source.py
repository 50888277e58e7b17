"""Descriptions of data sets, which are sent to other processes and machines in place of the data."""

import glob
import hashlib
import multiprocessing
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._checks import check_choice, check_flag, describe
from .._files import check_path, file_version
from .._typing import JsonDict, StrPath
from ..datasets import Dataset, Split, make_shapes
from ..datasets.files import OPTIONS, check_options, load_data


@dataclass(frozen=True)
class DataSource:
    """A description of where data come from: small, picklable, and loaded once in each process that uses it.

    Parameters
    ----------
    folder : str or None
        Where the data are: a folder or an archive of CIFAR-10 or CIFAR-100,
        an ``.npz`` for `load_npz`, or a folder for `load_npy`; None for
        `make_shapes`. It becomes an absolute path when it is sent to another
        process.
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
    held_out : bool, default False
        Whether to keep the test images out of it: the last fifth of the
        training images is then held out, as validation and as test split.

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
    held_out: bool = False

    def __init__(
        self,
        folder: StrPath | None = None,
        protocol: str = "full",
        small: bool = False,
        labels: str = "fine",
        held_out: bool = False,
    ) -> None:
        check_choice("protocol", protocol, OPTIONS["protocol"])
        check_flag("small", small)
        check_choice("labels", labels, OPTIONS["labels"])
        check_flag("held_out", held_out)
        object.__setattr__(self, "folder", None if folder is None else str(check_path("folder", folder)))
        object.__setattr__(self, "protocol", protocol)
        object.__setattr__(self, "small", small)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "held_out", held_out)

    def __getstate__(self) -> JsonDict:
        return {**self.__dict__, "folder": None if self.folder is None else os.path.abspath(self.folder)}

    def hold_out(self, held_out: bool = True) -> "DataSource":
        """The same source, but with this ``held_out``."""
        folder = None if self.folder is None else Path(self.folder)  # in which nothing is expanded again
        return DataSource(folder, self.protocol, self.small, self.labels, held_out)

    def load(self) -> Dataset:
        """Load the `Dataset`; equal sources share one object, unless a file has changed in the meantime."""
        key = (*self.__getstate__().values(), _versions(self.folder))
        data = _loaded.get(key)
        if data is None:
            data = _hold_out(self.hold_out(False).load()) if self.held_out else _load(self)
            _loaded.clear()
            _loaded[key] = data
        return data


_loaded: dict[tuple[Any, ...], Dataset] = {}  # the last one, by its source with an absolute path


def _versions(folder: str | None) -> tuple[tuple[int, ...] | None, ...]:
    """What changes when a file is written again: the archive, the ``.npz``, or a ``.npy`` in the folder."""
    if folder is None:
        return ()
    return tuple(map(file_version, [folder, *sorted(glob.glob(f"{glob.escape(folder)}/*.npy"))]))


def _load(source: DataSource) -> Dataset:
    options = {option: getattr(source, option) for option in OPTIONS}
    if source.folder is None:
        check_options("the synthetic shapes", options, {"protocol": OPTIONS["protocol"]})
        n_train = 4000 if source.small else 10000
        return make_shapes(n_train, n_train // 10 if source.protocol == "full" else n_train, n_train // 5)
    with warnings.catch_warnings():
        if multiprocessing.parent_process() is not None:
            warnings.simplefilter("ignore")  # the main process shows warnings about the files
        return load_data(Path(source.folder), **options)


def _hold_out(data: Dataset) -> Dataset:
    cut = len(data.train) - len(data.train) // 5
    train, held_out = (
        Split(data.train.images[part], data.train.labels[part]) for part in (slice(cut), slice(cut, None))
    )
    return Dataset(train, held_out, held_out, data.class_names, data.name)


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
