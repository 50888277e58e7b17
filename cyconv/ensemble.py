"""Several networks as one: the mean of their probabilities."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._checks import describe
from ._files import load_arrays, save_arrays
from ._typing import AnyArray, FloatArray, StrPath
from .datasets import Split
from .network import Evaluation, Network
from .prepared import PreparedData

_KIND, _VERSION = "ensemble", 1


class Ensemble:
    """Networks that vote with their probabilities.

    The networks at the ends of the learning rate's cycles are each at a
    minimum of its own, so that their mean is better than any one of them, and
    costs no training (Huang et al. 2017, "Snapshot Ensembles: Train 1, get M
    for free").

    Parameters
    ----------
    networks : sequence of Network
        At least one; of one image shape, number of classes and dtype. They are
        referred to, not copied.

    Attributes
    ----------
    networks : tuple of Network
        Cannot be assigned.

    Raises
    ------
    TypeError, ValueError
        If an entry is no network, or they do not fit each other.

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

    __slots__ = ("_networks", "__weakref__")

    def __init__(self, networks: Iterable[Network]) -> None:
        try:
            entries = iter(networks) if isinstance(networks, Iterable) else None
        except Exception:  # whatever a stranger's __iter__ raises
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
        kinds = {(network.image_shape, network.n_classes, str(network.dtype)) for network in self.networks}
        if len(kinds) > 1:
            listed = " and ".join(f"{shape}, {n} classes, {dtype}" for shape, n, dtype in sorted(kinds))
            raise ValueError(f"networks must have one image shape, number of classes and dtype, but got {listed}")

    @property
    def networks(self) -> tuple[Network, ...]:
        """tuple of Network: the members, referred to."""
        return self._networks

    @classmethod
    def from_snapshots(cls, network: Network, snapshots: Sequence[Mapping[str, ArrayLike]]) -> Self:
        """One network for each set of parameters.

        Parameters
        ----------
        network : Network
            Gives architecture and normaliser; is itself left as it is.
        snapshots : sequence of dict of str to array
            As `CyclicTrainer.snapshots` holds them.

        Returns
        -------
        Ensemble

        Raises
        ------
        TypeError, ValueError
            If there are no snapshots, or one does not fit the network.
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
            member.set_velocity(None)
            member.set_parameters(snapshot)
            networks.append(member)
        return cls(networks)

    def __len__(self) -> int:
        return len(self.networks)

    def __repr__(self) -> str:
        return f"Ensemble of {len(self)}: {self.networks[0]!r}" + (len(self) > 1) * ", ..."

    def predict_proba(self, X: ArrayLike | Split | PreparedData) -> FloatArray:
        """The mean of the networks' probabilities.

        Parameters
        ----------
        X : array_like, (n, C, H, W), or Split or PreparedData
            As for `Network.predict_proba`. Each network takes pixels
            through its own normaliser, and a source through the source's.

        Returns
        -------
        ndarray of the networks' dtype, (n, n_classes)

        Raises
        ------
        TypeError, ValueError
            If ``X`` has the wrong dtype or shape or is not finite.
        """
        return self._mean(self._sources(X))

    def _sources(
        self, X: ArrayLike | Split | PreparedData, labels: ArrayLike | None = None, needs_labels: bool = False
    ) -> list[PreparedData]:
        """What each network takes of the images, which are converted and checked once."""
        first, *others = self.networks
        source = first._source(X, labels, needs_labels)
        if source is X or source.pixels is None:
            return [source] * len(self)
        return [source, *(network._source(source.pixels) for network in others)]

    def _mean(self, sources: list[PreparedData]) -> FloatArray:
        total: NDArray[np.float64] = np.zeros(())
        for network, source in zip(self.networks, sources):
            total = total + network.predict_proba(source).astype(np.float64)
        mean: FloatArray = (total / len(self)).astype(self.networks[0].dtype)
        return mean

    def predict(self, X: ArrayLike | Split | PreparedData) -> NDArray[np.int64]:
        """The class that is most probable in the mean.

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
            As :meth:`predict_proba`.
        """
        classes: NDArray[np.int64] = self.predict_proba(X).argmax(axis=1)
        return classes

    def evaluate(self, X: ArrayLike | Split | PreparedData, labels: ArrayLike | None = None) -> Evaluation:
        """Loss and accuracy of the mean.

        Parameters
        ----------
        X : array_like, Split or PreparedData
            As for :meth:`predict_proba`.
        labels : array_like of int, (n,)
            As for `Network.prepare`; left out where ``X`` is a split or a
            source, which have their own.

        Returns
        -------
        Evaluation
            The loss is the cross-entropy of the mean probabilities; one that
            is 0 in the dtype counts as its smallest normal number. The cost is
            the loss: an ensemble is not trained, so nothing is penalised.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype, shape or range.
        """
        sources = self._sources(X, labels, needs_labels=True)
        labels, probabilities = sources[0].labels, self._mean(sources)
        assert labels is not None
        true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
        loss = float(-np.log(np.maximum(true, np.finfo(probabilities.dtype).tiny)).mean())
        return Evaluation(loss, loss, float(np.mean(probabilities.argmax(axis=1) == labels)))

    def save(self, path: StrPath) -> None:
        """Write all networks to one ``.npz`` file, atomically and without pickle.

        Parameters
        ----------
        path : path-like
            Taken as it stands; an older file is replaced once the new one is whole.

        Raises
        ------
        OSError
            If the file cannot be written; what stood there stays.
        """
        architectures = [network.architecture for network in self.networks]
        arrays = {
            f"{i}/{name}": array for i, network in enumerate(self.networks) for name, array in network.arrays().items()
        }
        save_arrays(path, _KIND, _VERSION, {"architectures": architectures}, arrays)

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        Ensemble
            Each network with its normaliser, if it had one.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no ensemble file, is damaged, or of a newer format.

        Examples
        --------
        >>> ensemble.save("ensemble.npz")  # doctest: +SKIP
        >>> Ensemble.load("ensemble.npz").evaluate(data.test)  # doctest: +SKIP
        """
        header, arrays = load_arrays(path, _KIND, _VERSION)
        members: dict[str, dict[str, AnyArray]] = {}
        for name, array in arrays.items():
            number, _, rest = name.partition("/")
            members.setdefault(number, {})[rest] = array
        try:
            architectures = header["architectures"]
            if not isinstance(architectures, list) or set(members) != {str(i) for i in range(len(architectures))}:
                raise ValueError("its networks are not all there")
            return cls([Network.from_arrays(each, members[str(i)]) for i, each in enumerate(architectures)])
        except (KeyError, TypeError, ValueError, MemoryError) as error:
            raise ValueError(f"path must be a cyconv {_KIND} file, but {path} is damaged: {error}") from None
