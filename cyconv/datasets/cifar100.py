"""CIFAR-100 (Krizhevsky 2009): its original files, and how they become a data set."""

from pathlib import Path

from .._checks import check_choice, check_integer
from .._files import check_path
from .._typing import StrPath
from .cifar import CifarFiles, check_validation_size, find_files, read_batches
from .split import Dataset, cut

_COARSE = """
aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
vehicles_1 vehicles_2
"""
_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CLASS_NAMES = {"coarse": tuple(_COARSE.split()), "fine": tuple(_FINE.split())}
FILES = CifarFiles(
    name="CIFAR-100",
    batches=("train", "test"),
    digests={
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "train.bin": "6172c7755cfe09b2fe270c85cebc1b15",
        "test.bin": "4499cfba6c016c1be1438163640a0898",
    },
    # As in the archives and by torchvision, Keras 2, and Keras 3.
    folders=(
        "",
        "cifar-100-binary",
        "cifar-100-python",
        "cifar-100-python/cifar-100-python",
        "cifar-100-python-target/cifar-100-python",
    ),
    archives=(
        "cifar-100-binary.tar.gz",
        "cifar-100-python.tar.gz",
        "cifar-100-python-target_archive",
        "cifar-100-python_archive",
        "cifar-100-python",
    ),
    labels={f"{which}_labels": len(names) for which, names in CLASS_NAMES.items()},
    max_images=50_000,
)


def load_cifar100(folder: StrPath, labels: str = "fine", validation_size: int = 1000) -> Dataset:
    """Read CIFAR-100 from its original files.

    They are read like those of CIFAR-10 (see :func:`cyconv.load_cifar10`): no
    pickle is executed, and checksums show whether they are the original files.

    Parameters
    ----------
    folder : path-like
        The folder with the files ``train`` and ``test`` of the Python or
        binary version, a folder in which torchvision or Keras keep them (see
        :func:`find_cifar100`), or one of the original archives.
    labels : {"fine", "coarse"}
        100 classes, or 20 superclasses of five classes each.
    validation_size : int, default 1000
        Number of images at the end of the 50,000 training images that become
        the validation split.

    Returns
    -------
    Dataset
        Its name is "CIFAR-100" or "CIFAR-100, coarse labels". Images are uint8
        of shape (n, 3, 32, 32): views of one array. Images and labels are
        read-only.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged or has another format, or an argument is out of range.
    TypeError
        If an argument has the wrong type.

    Examples
    --------
    >>> data = load_cifar100("data", labels="coarse")  # doctest: +SKIP
    >>> len(data.train), len(data.class_names)  # doctest: +SKIP
    (49000, 20)
    """
    folder = check_path("folder", folder)
    labels = check_choice("labels", labels, ("fine", "coarse"))
    validation_size = check_integer("validation_size", validation_size, 1, FILES.max_images - 1)
    images, indices, (n_fit, _), name = read_batches(FILES, folder, FILES.batches, f"{labels}_labels")
    n_train = n_fit - check_validation_size(validation_size, n_fit, "the training file")
    if labels == "coarse":
        name = name.replace(FILES.name, f"{FILES.name}, coarse labels")
    return cut(images, indices, n_train, n_fit, CLASS_NAMES[labels], name)


def find_cifar100(data: StrPath | None = None) -> Path | None:
    """Look for CIFAR-100 in the places where :func:`find_cifar10` looks for CIFAR-10.

    Parameters
    ----------
    data : path-like, optional
        Where it is; no other place is searched.

    Returns
    -------
    Path or None
        For :func:`load_cifar100`; None if it is not found.

    Raises
    ------
    FileNotFoundError
        If ``data`` or ``CYCONV_DATA`` is given and holds no CIFAR-100.
    """
    return find_files(FILES, data)
