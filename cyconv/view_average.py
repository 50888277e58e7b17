"""Test-time augmentation: a model's probabilities averaged over mirrored and shifted views of each image."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._checks import check_flag, check_integer, describe
from ._typing import FloatArray
from .datasets import Split
from .ensemble import Ensemble, evaluate_probabilities
from .network import Evaluation, Network
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


class ViewAverage:
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
        self._flip = check_flag("flip", flip)
        self._shift = check_integer("shift", shift, 0, min(self._network.image_shape[1:]) - 1)

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

    @property
    def _networks(self) -> tuple[Network, ...]:
        return (self._model,) if isinstance(self._model, Network) else self._model.networks

    @property
    def _network(self) -> Network:
        """The network that says what images and classes the model has."""
        return self._networks[0]

    def __repr__(self) -> str:
        return f"ViewAverage of {self.n_views} views: {self._model!r}"

    def predict_proba(self, X: ArrayLike | Split | PreparedData) -> FloatArray:
        """Mean of the class probabilities over all views.

        Parameters
        ----------
        X : array_like, (n, C, H, W), or Split or PreparedData
            As for `Network.predict_proba`.

        Returns
        -------
        ndarray of the network's dtype, (n, n_classes)

        Raises
        ------
        TypeError, ValueError
            If ``X`` has the wrong dtype or shape or is not finite.
        """
        return self._mean(self._prepared(X))

    def predict(self, X: ArrayLike | Split | PreparedData) -> NDArray[np.int64]:
        """Class with the highest mean probability for each image.

        Parameters
        ----------
        X : array_like, Split or PreparedData
            As for :meth:`predict_proba`.

        Returns
        -------
        ndarray of int64, (n,)

        Raises
        ------
        TypeError, ValueError
            As for :meth:`predict_proba`.
        """
        classes: NDArray[np.int64] = self.predict_proba(X).argmax(axis=1)
        return classes

    def evaluate(self, X: ArrayLike | Split | PreparedData, labels: ArrayLike | None = None) -> Evaluation:
        """Loss and accuracy of the mean probabilities.

        Parameters
        ----------
        X : array_like, Split or PreparedData
            As for :meth:`predict_proba`.
        labels : array_like of int, (n,), or of float, (n, n_classes)
            As for `Network.prepare`; left out if ``X`` is a split or prepared
            data, which have their own.

        Returns
        -------
        Evaluation
            As for `Ensemble.evaluate`.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype, shape or range.
        """
        prepared = self._prepared(X, labels, needs_labels=True)
        known = prepared[0].labels
        assert known is not None
        return evaluate_probabilities(self._mean(prepared), known)

    def _prepared(
        self, X: ArrayLike | Split | PreparedData, labels: ArrayLike | None = None, needs_labels: bool = False
    ) -> list[PreparedData]:
        """Prepared data for each network of the model."""
        return Ensemble(self._networks)._prepared(X, labels, needs_labels)

    def _mean(self, prepared: list[PreparedData]) -> FloatArray:
        total = np.zeros((len(prepared[0]), self._network.n_classes))
        for network, data in zip(self._networks, prepared):
            for start in range(0, len(data), _BLOCK):
                for view in self._views(data.normalised(slice(start, start + _BLOCK))):
                    total[start : start + _BLOCK] += network.predict_proba(data.view(view))
        mean: FloatArray = (total / (len(prepared) * self.n_views)).astype(self._network.dtype)
        return mean

    def _views(self, images: FloatArray) -> Iterator[FloatArray]:
        """The views of normalised images, one after another."""
        s, (height, width) = self._shift, images.shape[2:]
        padded = np.pad(images, ((0, 0), (0, 0), (s, s), (s, s)))
        for each in (padded, padded[..., ::-1]) if self._flip else (padded,):
            for y in range(2 * s + 1):
                for x in range(2 * s + 1):
                    yield np.ascontiguousarray(each[:, :, y : y + height, x : x + width])
