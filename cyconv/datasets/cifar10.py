"""CIFAR-10 (Krizhevsky 2009): its original files, and how they become a data set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .._checks import check_integer, describe
from .._files import check_path
from .._typing import IntArray, StrPath
from .cifar import CifarFiles, find_files, read_batches
from .split import Dataset, Split

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
    # As in the archives and by torchvision, Keras 2, and Keras 3.
    folders=("", "cifar-10-batches-bin", "cifar-10-batches-py", "cifar-10-batches-py-target/cifar-10-batches-py"),
    archives=(
        "cifar-10-binary.tar.gz",
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py.tar.gz",
        "cifar-10-batches-py-target_archive",
        "cifar-10-batches-py_archive",
        "cifar-10-batches-py",
    ),
    n_classes=len(CLASS_NAMES),
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
    are checked before anything is read. The files' checksums tell whether
    they are the original files; where they are not, a UserWarning says so
    once and the result's name is "CIFAR-10 (not the original files)". Python
    files that were written anew count as original if their pixels and labels
    are those of the original binary files.

    Parameters
    ----------
    folder : path-like
        The folder of the batch files, one in which torchvision or Keras put
        them (see :func:`find_cifar10`), or one of the original archives.
    train_batches : sequence of int
        Which of the batches 1 to 5 train, in this order.
    validation_size : int, optional
        How many of the training images, the last ones, validate instead of
        training: 1,000 unless said otherwise. Not together with
        ``validation_batches``.
    validation_batches : sequence of int, optional
        Batches that validate, none of which trains.

    Returns
    -------
    Dataset
        Images uint8 of shape (n, 3, 32, 32): views of one array, so that no
        image is held twice. Images and labels are read-only.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged or foreign, or an argument is out of range.
    TypeError
        If an argument is of the wrong kind.

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
    images, labels, counts, name = read_batches(FILES, folder, files)
    n_fit = len(images) - counts[-1]  # images that train or validate
    if validation_size is not None:
        if validation_size >= n_fit:
            raise ValueError(
                f"validation_size must be less than the {n_fit} images of train_batches, but got {validation_size}"
            )
        n_train = n_fit - validation_size
    else:
        n_train = sum(counts[: len(train_batches)])
    return Dataset(
        train=Split(images[:n_train], labels[:n_train]),
        validation=Split(images[n_train:n_fit], labels[n_train:n_fit]),
        test=Split(images[n_fit:], labels[n_fit:]),
        class_names=CLASS_NAMES,
        name=name,
    )


def find_cifar10(data: StrPath | None = None) -> Path | None:
    """Look for CIFAR-10 where people keep it.

    In each place the batch files may lie at the top, in the original
    ``cifar-10-batches-bin`` or ``cifar-10-batches-py`` (as in torchvision's
    root, and where Keras 2 puts them), in Keras 3's
    ``cifar-10-batches-py-target/cifar-10-batches-py``, or in an archive:
    ``cifar-10-binary.tar.gz``, ``cifar-10-python.tar.gz``, or the latter under
    the names that Keras gives it.

    Parameters
    ----------
    data : path-like, optional
        Where the caller says it is; then nowhere else is looked. Without it:
        the environment variable ``CYCONV_DATA`` (then nowhere else either),
        ``./data``, ``cyconv`` in the user's cache folder (``$XDG_CACHE_HOME``,
        else ``~/.cache``), and ``datasets`` in Keras' folder (``$KERAS_HOME``,
        else ``~/.keras``).

    Returns
    -------
    Path or None
        For :func:`load_cifar10`; None when it is in none of the last three.

    Raises
    ------
    FileNotFoundError
        If ``data`` or ``CYCONV_DATA`` is given and holds no CIFAR-10.
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
