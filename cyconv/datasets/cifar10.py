"""CIFAR-10 (Krizhevsky 2009), loaded from its original files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .._checks import check_integer, describe
from .._files import check_path
from .._typing import IntArray, StrPath
from .cifar import CifarFiles, check_validation_size, find_files, read_batches
from .split import Dataset, cut

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = CifarFiles(
    name="CIFAR-10",
    batches=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"),
    digests={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
        "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
        "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
        "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
        "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
        "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
    },
    # The folders of the original archives, torchvision, Keras 2 and Keras 3.
    folders=("", "cifar-10-batches-bin", "cifar-10-batches-py", "cifar-10-batches-py-target/cifar-10-batches-py"),
    archives=(
        "cifar-10-binary.tar.gz",
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py.tar.gz",
        "cifar-10-batches-py-target_archive",
        "cifar-10-batches-py_archive",
        "cifar-10-batches-py",
    ),
    labels={"labels": len(CLASS_NAMES)},
    max_images=10_000,
)


def load_cifar10(
    folder: StrPath,
    train_batches: Sequence[int] | IntArray = (1, 2, 3, 4, 5),
    validation_size: int | None = None,
    validation_batches: Sequence[int] | IntArray | None = None,
) -> Dataset:
    """Read CIFAR-10 from its original files.

    Binary files are preferred to Python ones. No pickle is executed (see
    :mod:`cyconv.datasets.unpickler`), archives are read in memory, and sizes
    are checked before anything is read. The checksums of the files are compared
    with those of the original ones; if they differ, a single UserWarning is
    issued and the data set is named "CIFAR-10 (not the original files)". Python
    files that were pickled again count as original if their pixels and labels
    are those of the original binary files.

    Parameters
    ----------
    folder : path-like
        The folder with the batch files, a folder to which torchvision or Keras
        downloaded them (see :func:`find_cifar10`), or one of the original
        archives.
    train_batches : sequence of int
        Numbers of the batches, 1 to 5, to train on, in this order.
    validation_size : int, optional
        Number of images to take from the end of the training images for
        validation; 1,000 by default. Cannot be combined with
        ``validation_batches``.
    validation_batches : sequence of int, optional
        Numbers of the batches to validate on; none may be in ``train_batches``.

    Returns
    -------
    Dataset
        uint8 images of shape (n, 3, 32, 32), as views of a single array. Images
        and labels are read-only.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged or has another format, or if an argument is out of
        range.
    TypeError
        If an argument has the wrong type.

    Examples
    --------
    >>> data = load_cifar10("data", train_batches=(1,), validation_batches=(2,))  # doctest: +SKIP
    >>> len(data.train), len(data.validation), len(data.test)  # doctest: +SKIP
    (10000, 10000, 10000)
    """
    folder = check_path("folder", folder)
    train_batches = _check_batches("train_batches", train_batches)
    if validation_batches is None:
        validation_size = 1000 if validation_size is None else validation_size
        validation_size = check_integer(
            "validation_size", validation_size, 1, len(train_batches) * FILES.max_images - 1
        )
        batches = train_batches
    else:
        if validation_size is not None:
            raise ValueError(
                "validation_size must not be given together with validation_batches, "
                f"but got {describe(validation_size)} and {describe(validation_batches)}"
            )
        validation_batches = _check_batches("validation_batches", validation_batches)
        if set(train_batches) & set(validation_batches):
            raise ValueError(
                f"validation_batches must share no batch with train_batches, "
                f"but got {validation_batches} and {train_batches}"
            )
        batches = train_batches + validation_batches

    files = [*(f"data_batch_{batch}" for batch in batches), "test_batch"]
    images, labels, counts, name = read_batches(FILES, folder, files, "labels")
    n_fit = len(images) - counts[-1]  # training and validation images
    if validation_size is not None:
        n_train = n_fit - check_validation_size(validation_size, n_fit, "train_batches")
    else:
        n_train = sum(counts[: len(train_batches)])
    return cut(images, labels, n_train, n_fit, CLASS_NAMES, name)


def find_cifar10(data: StrPath | None = None) -> Path | None:
    """Look for CIFAR-10 in its usual locations.

    A location may hold the batch files themselves; the folder
    ``cifar-10-batches-bin`` or ``cifar-10-batches-py`` (as unpacked from the
    archives, and as created by torchvision and Keras 2); Keras 3's folder
    ``cifar-10-batches-py-target/cifar-10-batches-py``; or an archive,
    ``cifar-10-binary.tar.gz``, ``cifar-10-python.tar.gz`` or the latter under
    one of the names that Keras gives it.

    Parameters
    ----------
    data : path-like, optional
        The only location to look in. By default, it is the one given by the
        environment variable ``CYCONV_DATA``. If that is not set either, these
        are searched: ``./data``, ``cyconv`` in the user's cache folder
        (``$XDG_CACHE_HOME`` or ``~/.cache``), and ``datasets`` in Keras' folder
        (``$KERAS_HOME`` or ``~/.keras``).

    Returns
    -------
    Path or None
        An argument for :func:`load_cifar10`; None if no location holds the
        data.

    Raises
    ------
    FileNotFoundError
        If ``data`` or ``CYCONV_DATA`` is given but does not hold CIFAR-10.
    """
    return find_files(FILES, data)


def _check_batches(name: str, value: Sequence[int] | IntArray) -> tuple[int, ...]:
    sequence = value.ndim == 1 if isinstance(value, np.ndarray) else isinstance(value, Sequence)
    if isinstance(value, (str, bytes)) or not sequence:
        raise TypeError(f"{name} must be a sequence of batch numbers, but got {describe(value)}")
    batches = tuple(check_integer(f"{name}[{i}]", batch, 1, 5) for i, batch in enumerate(value))
    if not batches or len(set(batches)) != len(batches):
        raise ValueError(f"{name} must name one or more of the batches 1 to 5, each once, but got {batches}")
    return batches
