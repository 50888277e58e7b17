"""Test accuracies that others have published for the networks of the course, which `cyconv course-tables` repeats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A published test accuracy in percent, or the lowest and the highest of several.

    Attributes
    ----------
    low, high : float
        Equal for a single one.
    source : str
        Who published it.

    Examples
    --------
    >>> Published(50.5, 51.5, "three students").text
    '50.50 to 51.50'
    """

    low: float
    high: float
    source: str

    @property
    def text(self) -> str:
        """str: the accuracy or the two, with two decimals."""
        return f"{self.low:.2f}" if self.low == self.high else f"{self.low:.2f} to {self.high:.2f}"

    def difference(self, accuracy: float) -> float:
        """By how many points an accuracy in percent is above (or below) what was published; 0 within a range.

        Examples
        --------
        >>> range_of_three = Published(50.5, 51.5, "three students")
        >>> [range_of_three.difference(accuracy) for accuracy in (50.0, 51.0, 52.0)]
        [-0.5, 0.0, 0.5]
        """
        return accuracy - min(max(accuracy, self.low), self.high)


def _one(accuracy: float, source: str) -> Published:
    return Published(accuracy, accuracy, source)


# As they were collected for this project, all for CIFAR-10; of how many runs a figure is the mean is not known. The
# lecturer's is in the text of the assignment, for equal cycles; the ranges of three students' reports fit equal cycles.
# The four of one publication for architectures 1 to 4 fit doubling cycles, not equal ones. For Exercise 4 two pairs are
# published, without and with smoothing: 66.0 and 66.3, 65.9 and 65.7. Of the 69.5 for mirroring it is assumed that its
# other settings are those of Exercise 4. None is known for the wider network of the longer training and for one batch.
_STUDENTS, _PUBLICATION = "three students", "a publication"

#: What is published for each run of the command, by the name of the run.
PUBLISHED: Mapping[str, Sequence[Published]] = {
    "equal-f2-nf3": (Published(50.5, 51.5, _STUDENTS),),
    "equal-f4-nf10": (_one(57.61, "the lecturer"), Published(55.9, 56.2, _STUDENTS)),
    "equal-f8-nf40": (Published(57.6, 58.7, _STUDENTS),),
    "equal-f16-nf160": (Published(56.6, 57.0, _STUDENTS),),
    "doubling-f2-nf3": (_one(51.8, _PUBLICATION),),
    "doubling-f4-nf10": (_one(58.6, _PUBLICATION),),
    "doubling-f8-nf40": (_one(62.0, _PUBLICATION),),
    "doubling-f16-nf160": (_one(59.5, _PUBLICATION),),
    "exercise4": (Published(65.9, 66.0, "two publications"),),
    "exercise4-smoothing": (Published(65.7, 66.3, "two publications"),),
    "exercise4-mirroring": (_one(69.5, _PUBLICATION),),
}
