"""What may happen to a training image while its batch is gathered."""

import dataclasses

from ._checks import check_flag, check_integer


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, drawn anew for every epoch and image.

    They are applied to the normalised image inside the batch gather, so that no
    second copy of the data exists. What is drawn is a function of (seed, epoch,
    image) alone.

    Parameters
    ----------
    flip : bool, default False
        Mirror left and right with probability one half.
    shift : int, default 0
        Move by up to so many pixels in each direction, uniformly; what comes
        in from outside is 0, the mean.
    cutout : int, default 0
        Side in pixels of a square set to 0, its centre uniform over the image
        and its overhang cut off (DeVries & Taylor 2017).

    Raises
    ------
    TypeError, ValueError
        If ``flip`` is no bool, or a width is negative or above 1024.

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


NO_AUGMENTATION = Augmentation()
