"""Ensembles: several networks whose probabilities are averaged."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._checks import as_images, describe
from ._files import load_arrays, save_arrays
from ._typing import AnyArray, FloatArray, StrPath
from .datasets import Split
from .network import FORMAT_VERSION, Evaluation, Network, format_version
from .prepared import PreparedData

_KIND = "ensemble"


class AveragedModel:
    """What models have in common that predict the mean of several networks' probabilities."""

    __slots__ = ("_networks", "__weakref__")

    _networks: tuple[Network, ...]

    def _mean(self, prepared: list[PreparedData]) -> FloatArray:
        """Mean probabilities of prepared data, of which there are some for each network."""
        raise NotImplementedError

    def predict_proba(self, X: ArrayLike | Split | PreparedData) -> FloatArray:
        """Mean of the class probabilities over all networks, and over all views of a `ViewAverage`.

        Parameters
        ----------
        X : array_like, (n, C, H, W), or Split or PreparedData
            As for `Network.predict_proba`. Each network normalises pixels with
            its own normaliser; prepared data keep theirs.

        Returns
        -------
        ndarray of the networks' dtype, (n, n_classes)

        Raises
        ------
        TypeError, ValueError
            If ``X`` has the wrong dtype or shape or is not finite.
        """
        return self._mean(self._prepared(X))

    def _prepared(
        self, X: ArrayLike | Split | PreparedData, labels: ArrayLike | None = None, needs_labels: bool = False
    ) -> list[PreparedData]:
        """Prepared data for each network."""
        first, *others = self._networks
        prepared = [first._prepared(X, labels, needs_labels)]
        if isinstance(X, PreparedData) or prepared[0].pixels is None:
            return prepared * len(self._networks)
        # Not the prepared pixels, which the first network may have whitened.
        images = X.images if isinstance(X, Split) else as_images("images", X, first.image_shape)
        for network in others:
            normalizer = network.normalizer
            same = (
                data
                for earlier, data in zip(self._networks, prepared)
                if normalizer is not None and normalizer.equals(earlier.normalizer)
            )
            prepared.append(next(same, None) or network._prepared(images))
        return prepared

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
            The loss is the cross-entropy of the mean probabilities, which are
            clipped to the smallest normal number of the dtype. The cost equals
            the loss: an ensemble is not trained, so there is no penalty.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype, shape or range.
        """
        prepared = self._prepared(X, labels, needs_labels=True)
        labels, probabilities = prepared[0].labels, self._mean(prepared)
        assert labels is not None
        tiny = np.finfo(probabilities.dtype).tiny
        if labels.ndim == 1:
            true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
            loss, classes = float(-np.log(np.maximum(true, tiny)).mean()), labels
        else:
            logarithms = np.log(np.maximum(probabilities.astype(np.float64), tiny))
            loss, classes = float(-(labels * logarithms).sum(axis=1).mean()), labels.argmax(axis=1)
        return Evaluation(loss, loss, float(np.mean(probabilities.argmax(axis=1) == classes)))


class Ensemble(AveragedModel):
    """Ensemble of networks that predicts the mean of their probabilities.

    At the end of each cycle of the learning rate, the network is near a
    different minimum. The mean of these snapshots is better than any single
    one and needs no additional training (Huang et al. 2017, "Snapshot
    Ensembles: Train 1, get M for free").

    Parameters
    ----------
    networks : sequence of Network
        At least one; all with the same image shape, number of classes and
        dtype. They are not copied.

    Attributes
    ----------
    networks : tuple of Network
        Read-only.

    Raises
    ------
    TypeError, ValueError
        If an entry is not a network, or if the networks differ in image shape,
        number of classes or dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from cyconv.network import Network
    >>> ensemble = Ensemble([Network(8, 4, 10, seed=seed) for seed in range(3)])
    >>> X = np.zeros((2, 3, 32, 32), np.float32)
    >>> ensemble.predict_proba(X).shape
    (2, 10)
    >>> len(ensemble)
    3
    """

    __slots__ = ()

    def __init__(self, networks: Iterable[Network]) -> None:
        try:
            entries = iter(networks) if isinstance(networks, Iterable) else None
        except Exception:  # a user's __iter__ may raise anything
            entries = None
        if entries is None:
            raise TypeError(f"networks must be a sequence of Network, but got {describe(networks)}")
        members = []
        for network in entries:
            if not isinstance(network, Network):
                raise TypeError(f"networks must hold only Network, but one entry is {describe(network)}")
            members.append(network)
        if not members:
            raise ValueError("networks must hold at least one network, but got none")
        self._networks = tuple(members)
        kinds = {(network.image_shape, network.n_classes, str(network.dtype)) for network in members}
        if len(kinds) > 1:
            listed = " and ".join(f"{shape}, {n} classes, {dtype}" for shape, n, dtype in sorted(kinds))
            raise ValueError(f"networks must have the same image shape, classes and dtype, but got {listed}")

    @property
    def networks(self) -> tuple[Network, ...]:
        """tuple of Network: the members of the ensemble."""
        return self._networks

    @classmethod
    def from_snapshots(cls, network: Network, snapshots: Sequence[Mapping[str, ArrayLike]]) -> Self:
        """Create an ensemble with one network for each set of parameters.

        Parameters
        ----------
        network : Network
            Provides the architecture and the normaliser; not changed.
        snapshots : sequence of dict of str to array
            Sets of parameters, such as `CyclicTrainer.snapshots`.

        Returns
        -------
        Ensemble

        Raises
        ------
        TypeError, ValueError
            If there are no snapshots, or if one does not fit the network.
        """
        if not isinstance(network, Network):
            raise TypeError(f"network must be a Network, but got {describe(network)}")
        if not isinstance(snapshots, list | tuple):
            raise TypeError(f"snapshots must be a sequence of dicts of arrays, but got {describe(snapshots)}")
        if not snapshots:
            raise ValueError("snapshots must hold at least one set of parameters, but got none")
        networks = []
        for snapshot in snapshots:
            member = network.copy()
            member.set_optimizer_state(None)
            member.set_parameters(snapshot)
            networks.append(member)
        return cls(networks)

    def __len__(self) -> int:
        return len(self.networks)

    def __repr__(self) -> str:
        return f"Ensemble of {len(self)}: {self.networks[0]!r}" + (len(self) > 1) * ", ..."

    def _mean(self, prepared: list[PreparedData]) -> FloatArray:
        total: NDArray[np.float64] = np.zeros(())
        for network, data in zip(self.networks, prepared):
            total = total + network.predict_proba(data).astype(np.float64)
        mean: FloatArray = (total / len(self)).astype(self.networks[0].dtype)
        return mean

    def save(self, path: StrPath) -> None:
        """Write all networks to one ``.npz`` file, atomically and without pickle.

        Parameters
        ----------
        path : path-like
            Used as given, without adding an extension. An existing file is
            replaced only once the new one is complete.

        Raises
        ------
        OSError
            If the file cannot be written; an existing one is kept.
        """
        architectures = [network.architecture for network in self.networks]
        arrays = {
            f"{i}/{name}": array for i, network in enumerate(self.networks) for name, array in network.arrays().items()
        }
        save_arrays(path, _KIND, format_version(arrays), {"architectures": architectures}, arrays)

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Load an ensemble from a file written by :meth:`save`.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        Ensemble
            Each network has the normaliser it was saved with, if any.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not an ensemble file, is damaged or has a newer format.

        Examples
        --------
        >>> ensemble.save("ensemble.npz")  # doctest: +SKIP
        >>> Ensemble.load("ensemble.npz").evaluate(data.test)  # doctest: +SKIP
        """
        header, arrays = load_arrays(path, _KIND, FORMAT_VERSION)
        members: dict[str, dict[str, AnyArray]] = {}
        for name, array in arrays.items():
            number, _, rest = name.partition("/")
            members.setdefault(number, {})[rest] = array
        try:
            architectures = header["architectures"]
            if not isinstance(architectures, list) or set(members) != {str(i) for i in range(len(architectures))}:
                raise ValueError("its networks are incomplete")
            return cls([Network.from_arrays(each, members[str(i)]) for i, each in enumerate(architectures)])
        except (KeyError, TypeError, ValueError, MemoryError) as error:
            raise ValueError(f"path must be a cyconv {_KIND} file, but {path} is damaged: {error}") from None
