"""Test-time augmentation: a model's probabilities averaged over mirrored and shifted views of each image."""

from collections.abc import Iterator

import numpy as np

from ._checks import check_flag, check_integer, describe
from ._typing import FloatArray
from .ensemble import AveragedModel, Ensemble
from .network import Network
from .prepared import PreparedData

_BLOCK = 500  # images whose views are made at a time


def count_views(flip: bool, shift: int) -> int:
    """Number of views that mirroring and shifts by up to ``shift`` pixels along each axis make of an image.

    Examples
    --------
    >>> count_views(flip=True, shift=2)
    50
    """
    return (1 + flip) * (2 * shift + 1) ** 2


class ViewAverage(AveragedModel):
    """A network or ensemble that predicts the mean of its probabilities over several views of each image.

    The views are the image, its mirror image, and both of them shifted by up
    to ``shift`` pixels along each axis. As in training with `Augmentation`, pixels moved in from outside the
    image are 0 after normalisation, the mean. A dense layer answers a little
    differently to each view, so that their mean is better than any of them, as
    it is with the crops of Krizhevsky et al. (2012, Section 4.1).

    Parameters
    ----------
    model : Network or Ensemble
        Not copied.
    flip : bool, default True
        Whether the mirror images take part.
    shift : int, default 0
        Largest shift in pixels along each axis, less than the image's sides.

    Attributes
    ----------
    model : Network or Ensemble
    flip : bool
    shift : int
    n_views : int
        All attributes are read-only.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from cyconv import Network
    >>> views = ViewAverage(Network(8, 4, 10, seed=0), shift=1)
    >>> views.n_views
    18
    >>> X = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    >>> mirrored = np.ascontiguousarray(X[..., ::-1])
    >>> np.allclose(views.predict_proba(X), views.predict_proba(mirrored))
    True
    """

    __slots__ = ("_model", "_flip", "_shift")

    def __init__(self, model: Network | Ensemble, flip: bool = True, shift: int = 0) -> None:
        if not isinstance(model, Network | Ensemble):
            raise TypeError(f"model must be a Network or an Ensemble, but got {describe(model)}")
        self._model = model
        self._networks = (model,) if isinstance(model, Network) else model.networks
        self._flip = check_flag("flip", flip)
        self._shift = check_integer("shift", shift, 0, min(self._networks[0].image_shape[1:]) - 1)

    @property
    def model(self) -> Network | Ensemble:
        """Network or Ensemble: whose probabilities are averaged."""
        return self._model

    @property
    def flip(self) -> bool:
        """bool: whether the mirror images take part."""
        return self._flip

    @property
    def shift(self) -> int:
        """int: the largest shift, in pixels."""
        return self._shift

    @property
    def n_views(self) -> int:
        """int: number of views of each image."""
        return count_views(self._flip, self._shift)

    def __repr__(self) -> str:
        return f"ViewAverage of {self.n_views} views: {self._model!r}"

    def _mean(self, prepared: list[PreparedData]) -> FloatArray:
        total = np.zeros((len(prepared[0]), self._networks[0].n_classes))
        for network, data in zip(self._networks, prepared):
            for start in range(0, len(data), _BLOCK):
                for view in self._views(data.normalised(slice(start, start + _BLOCK))):
                    total[start : start + _BLOCK] += network.predict_proba(data.view(view))
        mean: FloatArray = (total / (len(prepared) * self.n_views)).astype(self._networks[0].dtype)
        return mean

    def _views(self, images: FloatArray) -> Iterator[FloatArray]:
        """The views of normalised images, one after another."""
        s, (height, width) = self._shift, images.shape[2:]
        padded = np.pad(images, ((0, 0), (0, 0), (s, s), (s, s)))
        for each in (padded, padded[..., ::-1]) if self._flip else (padded,):
            for y in range(2 * s + 1):
                for x in range(2 * s + 1):
                    yield np.ascontiguousarray(each[:, :, y : y + height, x : x + width])
