"""Data augmentation: random changes of the training images."""

import dataclasses

from ._checks import check_flag, check_integer
from ._typing import JsonDict


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, different for every epoch and image.

    They are applied to the normalised image while a batch is gathered, so the
    data are never copied as a whole. The random numbers are a function of
    (seed, epoch, image) alone.

    Parameters
    ----------
    flip : bool, default False
        Flip horizontally with probability 1/2.
    shift : int, default 0
        Largest translation in pixels along each axis, drawn uniformly; pixels
        moved in from outside the image are 0, the mean.
    cutout : int, default 0
        Side in pixels of a square set to 0. Its centre is uniform over the
        image, and it is clipped at the border (DeVries & Taylor 2017).

    Raises
    ------
    TypeError, ValueError
        If ``flip`` is not a bool, or ``shift`` or ``cutout`` is not in 0..1024.

    Examples
    --------
    >>> Augmentation(flip=True, shift=2)
    Augmentation(flip=True, shift=2, cutout=0)
    """

    flip: bool = False
    shift: int = 0
    cutout: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "flip", check_flag("flip", self.flip))
        object.__setattr__(self, "shift", check_integer("shift", self.shift, 0, 1024))
        object.__setattr__(self, "cutout", check_integer("cutout", self.cutout, 0, 1024))

    @property
    def settings(self) -> JsonDict:
        """dict: the constructor's arguments as JSON values; what the kernels are told."""
        return dataclasses.asdict(self)


NO_AUGMENTATION = Augmentation()
