"""The network: a patchify convolution, dense layers, softmax."""

import math
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypedDict

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._checks import (
    FLOATS,
    as_array,
    check_array,
    check_class_weight,
    check_filter_size,
    check_finite,
    check_float_dtype,
    check_image_shape,
    check_integer,
    check_memory,
    check_real,
    check_seed,
    check_targets,
    describe,
)
from ._files import load_arrays, save_arrays
from ._kernels.processor import MAX_BRANCHES, MAX_HIDDEN
from ._tables import Table
from ._typing import AnyArray, FloatArray, ImageShape, IntArray, JsonDict, Parameters, Sizes, SizesLike, StrPath
from .augmentation import NO_AUGMENTATION, Augmentation
from .backend import dispatch, ops
from .backend.layout import Layout, as_sizes
from .backend.memory import aligned_zeros, new_array
from .backend.threads import Team, threads_for_call
from .datasets import Normalizer, Split
from .datasets.normalizer import check_normalizer
from .optimizers import SGD, Optimizer, check_optimizer, optimizer_class
from .prepared import PreparedData
from .randomness import INITIALISATION, standard_normal

FORMAT_VERSION = 2  # of files that hold networks
_FIXED = ("filter_size", "n_filters", "n_hidden", "seed", "dtype", "image_shape", "n_classes")
OPERATIONS_PER_CALL = 4e9  # limit of one kernel call, about 50 ms; Ctrl-C is handled between calls


def format_version(arrays: Iterable[str]) -> int:
    """The oldest version of a file's format that has all of these arrays: 1 has no whitening."""
    return FORMAT_VERSION if any(re.fullmatch(r".*normalizer\Wfilters", name) for name in arrays) else 1


class Evaluation(NamedTuple):
    """Loss, cost and accuracy on a set of images.

    Attributes
    ----------
    loss : float
        Mean cross-entropy in nats.
    cost : float
        ``loss`` plus ``l2`` times the sum of all squared weights.
    accuracy : float
        Fraction of images whose most probable class is the label, 0 to 1.
    """

    loss: float
    cost: float
    accuracy: float

    def _repr_html_(self) -> str:
        cells = [f"{self.loss:.4f}", f"{self.cost:.4f}", f"{100 * self.accuracy:.2f} %"]
        return Table(["loss", "cost", "accuracy"], [cells])._repr_html_()


class _Settings(TypedDict, total=False):
    """What the kernel is told of all updates of a call."""

    l2: float
    optimizer: Optimizer | None  # None: the gradient alone
    dropout: float
    augmentation: Augmentation
    seed: int
    first_step: int


class _OptimizerState(NamedTuple):
    """What an optimiser keeps between updates."""

    kind: type[Optimizer]
    stores: FloatArray  # one after the other, each as the parameters'
    n_updates: NDArray[np.int64]  # of which it was made, one number, which the kernel advances

    def copy(self) -> "_OptimizerState":
        return self._replace(stores=self.stores.copy(), n_updates=self.n_updates.copy())


def _make_layout(
    filter_size: SizesLike, n_filters: SizesLike, n_hidden: SizesLike, image_shape: Sequence[int], n_classes: int
) -> Layout:
    """Check an architecture and compute its layout, without allocating the parameters."""
    image_shape = check_image_shape(image_shape)
    sizes, filters, hidden = (
        as_sizes(name, _size_or_sizes(name, value))
        for name, value in (("filter_size", filter_size), ("n_filters", n_filters), ("n_hidden", n_hidden))
    )
    if len(sizes) != len(filters):
        raise ValueError(f"n_filters must have as many entries as filter_size, {len(sizes)}, but got {len(filters)}")
    if len(sizes) > MAX_BRANCHES:
        raise ValueError(f"filter_size must have at most {MAX_BRANCHES} entries, but got {len(sizes)}")
    if len(hidden) > MAX_HIDDEN:
        raise ValueError(f"n_hidden must have at most {MAX_HIDDEN} entries, but got {len(hidden)}")
    for f in sizes:
        check_filter_size(f, *image_shape[1:])
    n_classes = check_integer("n_classes", n_classes, 2, 2**20)
    return Layout(image_shape, sizes, filters, hidden, n_classes, np.ndim(filter_size) == 0, np.ndim(n_hidden) == 0)


def _size_or_sizes(name: str, value: Any) -> Any:
    """``value`` if it is an integer or a sequence."""
    try:
        scalar = as_array(name, value).ndim == 0
    except TypeError:
        raise TypeError(f"{name} must be an integer or a sequence of integers, but got {describe(value)}") from None
    return check_integer(name, value, 1, 2**31 - 1) if scalar else value


def _as_json(sizes: int | Sizes) -> int | list[int]:
    return list(sizes) if isinstance(sizes, tuple) else sizes


def _image_weights(
    class_weight: NDArray[np.float64] | None, targets: tuple[Any, ...], order: IntArray
) -> NDArray[np.float64] | None:
    """The weight of each image of each batch, a row of ``order``: they sum to 1. None if all are the same."""
    if class_weight is None:
        return None
    labels, probabilities = targets[:2]
    class_weight = class_weight / class_weight.max()  # whose sums are finite
    if probabilities is None:
        weights = class_weight[labels[order]]
    else:
        weights = np.einsum("ik,k->i", probabilities, class_weight)[order]
    sums = weights.sum(axis=1, keepdims=True)
    if not sums.all():
        raise ValueError(
            "class_weight must not be 0 for all classes of a batch, but it is for those of update "
            f"{int(np.argmin(sums))}"
        )
    weighted: NDArray[np.float64] = weights / sums
    return weighted


def _detached(value: Any) -> Any:
    """A floating-point tensor of PyTorch as an array of float64, which is exact; anything else as it is."""
    try:
        return value.detach().cpu().double().numpy() if value.is_floating_point() else value
    except Exception:  # no tensor, or one that cannot be an array, which `check_array` reports
        return value


class Network:
    """A patchify ConvNet: a convolution with stride = filter width, dense layers and a softmax.

    For an image X with patches M (n_p × 3f²): ``H = max(0, M F + b)``,
    ``x = max(0, W₁ vec(H) + b₁)`` for each hidden layer, ``p = softmax(W x + b)``.
    Weights are initialised as in He et al. (2015), from a normal distribution
    with standard deviation √(2/fan_in), and biases with zeros. Each initial
    value depends only on the seed and its position, so that networks of
    different architectures with one seed share the beginnings of their
    weights: as samples they are not quite independent.

    Parameters
    ----------
    filter_size : int or sequence of int
        Width f of the filters and their stride; must divide the height and
        the width of the image. A sequence gives parallel branches, whose
        outputs are concatenated.
    n_filters : int or sequence of int
        Number of filters in each branch; as many entries as filter sizes.
    n_hidden : int or sequence of int
        Number of units in each hidden layer.
    seed : int, default 0
        Seed of the initial weights.
    dtype : {"float32", "float64"}, default "float32"
    image_shape : tuple of int, default (3, 32, 32)
        (channels, height, width).
    n_classes : int, default 10

    Attributes
    ----------
    normalizer : Normalizer or None
        Set by training on uint8 images; after that, every method accepts
        uint8 images. The only attribute that can be assigned.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range, or if a filter
        width does not divide the image.
    MemoryError
        If the network does not fit in memory.

    Examples
    --------
    >>> import numpy as np
    >>> net = Network(filter_size=4, n_filters=10, n_hidden=50, seed=0)
    >>> net.n_parameters
    33050
    >>> X = np.zeros((2, 3, 32, 32), np.float32)
    >>> net.predict_proba(X).shape
    (2, 10)
    """

    filter_size: int | Sizes
    n_filters: int | Sizes
    n_hidden: int | Sizes
    seed: int
    dtype: np.dtype[np.floating]
    image_shape: ImageShape
    n_classes: int
    normalizer: Normalizer | None

    def __init__(
        self,
        filter_size: SizesLike,
        n_filters: SizesLike,
        n_hidden: SizesLike,
        seed: int = 0,
        dtype: DTypeLike = "float32",
        image_shape: Sequence[int] = (3, 32, 32),
        n_classes: int = 10,
    ) -> None:
        self._layout = _make_layout(filter_size, n_filters, n_hidden, image_shape, n_classes)
        self.image_shape = self._layout.image_shape
        self.n_classes = self._layout.n_classes
        self.filter_size, self.n_filters, self.n_hidden = (
            as_sizes(name, value) if np.ndim(value) else as_sizes(name, value)[0]
            for name, value in (("filter_size", filter_size), ("n_filters", n_filters), ("n_hidden", n_hidden))
        )
        self.seed = check_seed(seed)
        self.dtype = check_float_dtype(dtype)
        self.normalizer = None
        # Twice the size: the initial values are drawn into separate arrays.
        check_memory("a network of these sizes", 2 * self._layout.size * self.dtype.itemsize)
        self._store = aligned_zeros(self._layout.size, self.dtype, "a network of these sizes")
        self._state: _OptimizerState | None = None
        self._lock = threading.RLock()
        self._workspaces: dict[bool, tuple[Any, ...]] = {}
        self._initialise()

    if not TYPE_CHECKING:  # hidden from type checkers, which would then allow any attribute to be set

        def __setattr__(self, name: str, value: object) -> None:
            """Protect what the kernels rely on, and do not accept misspelt names silently."""
            fixed = name in _FIXED and name in self.__dict__
            # Subclasses may add attributes.
            unknown = type(self) is Network and name not in _FIXED and not name.startswith("_")
            if name == "normalizer":
                if value is not None:
                    check_normalizer(value, self.image_shape)
            elif fixed or unknown:
                raise AttributeError(f"{name} of a network cannot be changed, but got {describe(value)}")
            object.__setattr__(self, name, value)

    def _initialise(self) -> None:
        arrays = {}
        for i, (name, shape) in enumerate(self._layout.shapes.items()):
            arrays[name] = np.zeros(shape, self.dtype)
            if len(shape) == 1:
                continue
            flat = arrays[name].reshape(-1)
            for begin in range(0, flat.size, 2**18):  # in chunks, because the numbers are drawn in double precision
                end = min(begin + 2**18, flat.size)
                numbers = standard_normal(self.seed, INITIALISATION, i, np.arange(begin, end))
                flat[begin:end] = numbers * np.sqrt(2.0 * shape[0] / flat.size)
        self._layout.pack(arrays, self._store)

    def __repr__(self) -> str:
        return (
            f"Network(filter_size={self.filter_size}, n_filters={self.n_filters}, n_hidden={self.n_hidden}, "
            f"seed={self.seed}, dtype='{self.dtype}', image_shape={self.image_shape}, n_classes={self.n_classes})"
        )

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__, _store=np.array(self._store), _workspaces={})
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._store = aligned_zeros(self._layout.size, self.dtype, "this network")
        self._store[:] = state["_store"]
        self._lock = threading.RLock()

    @property
    def architecture(self) -> JsonDict:
        """dict: the constructor's arguments as JSON values; ``Network(**net.architecture)`` is an untrained copy."""
        return {
            "filter_size": _as_json(self.filter_size),
            "n_filters": _as_json(self.n_filters),
            "n_hidden": _as_json(self.n_hidden),
            "seed": self.seed,
            "dtype": str(self.dtype),
            "image_shape": list(self.image_shape),
            "n_classes": self.n_classes,
        }

    @property
    def n_parameters(self) -> int:
        """int: number of trainable parameters."""
        return self._layout.n_parameters

    def summary(self) -> Table:
        """The layers with their output shapes, parameters and multiplications.

        Returns
        -------
        Table
            Which prints as text, and which a notebook shows as a cell's last
            line. Multiplications are those of one image's forward pass.

        Examples
        --------
        >>> Network(filter_size=4, n_filters=10, n_hidden=50).summary()
        layer   output shape  parameters  multiplications
        ------  ------------  ----------  ---------------
        conv      (10, 8, 8)         490           30,720
        hidden         (50,)      32,050           32,000
        output         (10,)         510              500
        total                     33,050           63,220
        """
        shapes = self._layout.shapes
        rows, totals = [], np.zeros(2, np.int64)
        for name, shape in shapes.items():
            layer, _, kind = name.rpartition(".")
            if kind != "weight":
                continue
            output: tuple[int, ...] = shape[:1]
            if len(shape) == 4:
                _, height, width = self.image_shape
                output = (shape[0], height // shape[2], width // shape[3])
            numbers = np.array([math.prod(shape) + shape[0], math.prod(shape) * math.prod(output[1:])])
            totals += numbers
            rows.append([layer, str(output), *(f"{number:,}" for number in numbers)])
        rows.append(["total", "", *(f"{number:,}" for number in totals)])
        return Table(["layer", "output shape", "parameters", "multiplications"], rows)

    @property
    def parameters(self) -> Parameters:
        """All parameters, with PyTorch's names and layouts.

        Returns
        -------
        dict of str to ndarray
            ``"conv.weight"`` (n_filters, C, f, f), ``"conv.bias"``,
            ``"hidden.weight"`` (n_hidden, n_filters·n_p) with columns in the order of
            ``torch.flatten``, ``"hidden.bias"``, ``"output.weight"`` (n_classes, n_hidden),
            ``"output.bias"``. Several branches or hidden layers are numbered:
            ``"conv.0.weight"``, ``"hidden.1.bias"``. The arrays are read-only copies;
            use :meth:`set_parameters` to change the network.
        """
        with self._lock:
            return self._public(self._store)

    def _public(self, store: FloatArray) -> Parameters:
        arrays = self._layout.unpack(store)
        for array in arrays.values():
            array.flags.writeable = False
        return arrays

    def set_parameters(self, mapping: Mapping[str, ArrayLike]) -> None:
        """Replace all parameters.

        Parameters
        ----------
        mapping : dict of str to array
            Same names and shapes as :attr:`parameters`; float32 or float64, finite.

        Raises
        ------
        TypeError, ValueError
            If a name, shape or dtype does not match, or a value is not finite.
            The network is unchanged then.
        """
        self._replace_parameters("mapping", mapping)

    def _replace_parameters(self, name: str, mapping: Mapping[str, ArrayLike]) -> None:
        store = self._packed(self._checked(name, mapping), "the parameters")
        with self._lock:
            self._store = store  # a single assignment, so that an exception cannot leave half of them replaced

    def state_dict(self) -> dict[str, Any]:
        """All parameters as tensors of PyTorch, which must be installed.

        Returns
        -------
        dict of str to torch.Tensor
            New tensors with the names, shapes and values of :attr:`parameters`, for the
            ``load_state_dict`` of a module whose layers are ``conv`` (a ``Conv2d`` with
            ``stride=filter_size``), ``hidden`` and ``output`` (each a ``Linear``).
            :attr:`normalizer` is not among them.

        Raises
        ------
        ImportError
            If PyTorch is not installed.
        """
        try:
            import torch
        except ImportError as error:
            raise ImportError(f"state_dict needs PyTorch, but {error}; parameters holds the same as arrays") from None
        return {name: torch.from_numpy(array.copy()) for name, array in self.parameters.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Replace all parameters by those of a PyTorch module.

        Parameters
        ----------
        state_dict : dict of str to torch.Tensor or array
            As :meth:`state_dict`; tensors may be on any device, of any floating-point
            type and require gradients. Arrays are those of :meth:`set_parameters`.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`set_parameters`; the network is unchanged then.
        """
        if isinstance(state_dict, Mapping):
            state_dict = {name: _detached(value) for name, value in state_dict.items()}
        self._replace_parameters("state_dict", state_dict)

    def _checked(self, name: str, mapping: Mapping[str, ArrayLike]) -> Parameters:
        shapes = self._layout.shapes
        if not isinstance(mapping, Mapping):
            raise TypeError(f"{name} must be a dict of arrays, but got {describe(mapping)}")
        if set(mapping.keys()) != set(shapes):
            raise ValueError(
                f"{name} must have the names {', '.join(shapes)}, but got {', '.join(map(str, mapping.keys()))}"
            )
        arrays = {}
        for key, shape in shapes.items():
            array = check_array(f"{name}[{key!r}]", mapping[key], shape, FLOATS)
            with np.errstate(over="ignore"):
                array = np.ascontiguousarray(array, dtype=self.dtype)
            arrays[key] = check_finite(f"{name}[{key!r}]", array)
        return arrays

    def _packed(self, arrays: Parameters, what: str) -> FloatArray:
        """The arrays packed into a new, zero-padded store."""
        store = aligned_zeros(self._layout.size, self.dtype, what)
        self._layout.pack(arrays, store)
        return store

    @property
    def velocity(self) -> Parameters | None:
        """The velocity of :class:`SGD` with momentum, in the form of :attr:`parameters`; None if there is none."""
        with self._lock:
            return None if self._state is None or self._state.kind is not SGD else self._public(self._state.stores)

    def set_velocity(self, mapping: Mapping[str, ArrayLike] | None) -> None:
        """Replace the state of the optimiser by a velocity of :class:`SGD`; None resets it.

        Parameters
        ----------
        mapping : dict of str to array, or None
            As returned by :attr:`velocity`.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`set_parameters`.
        """
        state = None if mapping is None else self._new_state(SGD, 0, {"mapping": mapping})
        with self._lock:
            self._state = state

    @property
    def optimizer_state(self) -> dict[str, Any] | None:
        """What the optimiser keeps between updates.

        Returns
        -------
        dict or None
            ``"optimizer"``, the class's name; ``"n_updates"``, of how many updates it was made; and by its
            names, such as ``"velocity"`` of :class:`SGD` or ``"exp_avg"`` and ``"exp_avg_sq"`` of
            :class:`AdamW`, read-only copies named and laid out as :attr:`parameters`. None before any
            update of an optimiser that keeps something.
        """
        with self._lock:
            state = self._state
            if state is None:
                return None
            stores = state.stores.reshape(-1, self._layout.size)
            arrays = {name: self._public(store) for name, store in zip(state.kind.state_names, stores)}
            return {"optimizer": state.kind.__name__, "n_updates": int(state.n_updates[0]), **arrays}

    def set_optimizer_state(self, mapping: Mapping[str, Any] | None) -> None:
        """Replace what the optimiser keeps between updates; None forgets it.

        Parameters
        ----------
        mapping : dict or None
            As :attr:`optimizer_state`.

        Raises
        ------
        TypeError, ValueError
            If a name, shape or dtype does not fit, or a number is not finite or
            out of range. Nothing is changed then.
        """
        state = None if mapping is None else self._checked_state(mapping)
        with self._lock:
            self._state = state

    def _checked_state(self, mapping: Mapping[str, Any]) -> _OptimizerState:
        if not isinstance(mapping, Mapping):
            raise TypeError(f"mapping must be a dict as optimizer_state has it, or None, but got {describe(mapping)}")
        kind = optimizer_class(mapping.get("optimizer"))
        names = ("optimizer", "n_updates", *kind.state_names)
        if set(mapping.keys()) != set(names):
            raise ValueError(
                f"mapping must have the names {', '.join(names)}, but got {', '.join(map(str, mapping.keys()))}"
            )
        n_updates = check_integer("mapping['n_updates']", mapping["n_updates"], 0, 2**62)
        state = self._new_state(kind, n_updates, {f"mapping[{name!r}]": mapping[name] for name in kind.state_names})
        for name in kind.nonnegative_states:
            if any(np.min(values) < 0 for values in mapping[name].values()):
                raise ValueError(f"mapping[{name!r}] must not be negative, as averages of squares, but it is somewhere")
        return state

    def _new_state(
        self, kind: type[Optimizer], n_updates: int, mappings: Mapping[str, Mapping[str, ArrayLike]] | None = None
    ) -> _OptimizerState:
        """The state that consists of these arrays, or one before any update."""
        size = self._layout.size
        checked = [self._checked(name, mapping) for name, mapping in (mappings or {}).items()]
        stores = aligned_zeros(len(kind.state_names) * size, self.dtype, "the optimiser's state")
        for i, arrays in enumerate(checked):
            self._layout.pack(arrays, stores[i * size : (i + 1) * size])
        return _OptimizerState(kind, stores, np.array([n_updates], np.int64))

    def copy(self) -> Self:
        """Return an independent network with the same parameters, optimiser state and normaliser."""
        network = type(self)(**self.architecture)
        with self._lock:
            network._store[:] = self._store
            network._state = None if self._state is None else self._state.copy()
            network.normalizer = self.normalizer
        return network

    def prepare(
        self, images: ArrayLike, labels: ArrayLike | None, normalizer: Normalizer | None = None
    ) -> PreparedData:
        """Check images and labels once, for use in many calls.

        Parameters
        ----------
        images : array_like, (n, C, H, W)
            Pixels 0 to 255 as integers, or floats that are already normalised;
            lists and tensors are accepted. A uint8 array is not copied, unless
            it is to be whitened: each batch is normalised while it is gathered.
        labels : array_like of int, (n,), or of float, (n, n_classes), or None
            Classes 0 to n_classes-1; shapes (n, 1) and (1, n) and one-hot rows are
            accepted. Or probabilities, (n, n_classes) of float, whose rows sum to 1.
        normalizer : Normalizer, optional
            For uint8 images; by default, the network's.

        Returns
        -------
        PreparedData

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype or shape or is out of range, if a
            float is not finite, or if there is no normaliser for uint8 images.

        Warns
        -----
        UserWarning
            If float images look like pixels that were not normalised. Every
            method that takes images gives this warning.
        """
        return PreparedData(self, images, labels, normalizer)

    def _prepared(
        self, X: ArrayLike | Split | PreparedData, labels: ArrayLike | None = None, needs_labels: bool = False
    ) -> PreparedData:
        """``X`` as prepared data that fit this network."""
        if isinstance(X, Split):
            if labels is not None:
                raise ValueError("labels must be left out with a Split, which has its own, but they were given")
            return self._prepared(X.images, X.labels)
        if isinstance(X, PreparedData):
            prepared = X
            same_kind = (prepared.image_shape, prepared.dtype) == (self.image_shape, self.dtype)
            if not same_kind or prepared.n_classes > self.n_classes:
                raise ValueError(
                    f"the source must be prepared for images of shape {self.image_shape}, {self.dtype} and "
                    f"{self.n_classes} classes, but it was prepared for {prepared.image_shape}, {prepared.dtype} and "
                    f"{prepared.n_classes}"
                )
            if labels is not None:
                raise ValueError(
                    "labels must be left out with prepared data, which have their own, but they were given"
                )
        else:
            prepared = PreparedData(self, X, labels, name="X")
        if not needs_labels:
            return prepared
        if prepared.labels is None:
            raise ValueError("labels must be given, but got None")
        if prepared.labels.ndim == 2 and prepared.n_classes != self.n_classes:
            raise ValueError(
                f"labels must be probabilities of {self.n_classes} classes, but they are those of {prepared.n_classes}"
            )
        return prepared

    def _workspace(self, batch_size: int, evaluation: bool, transposes: bool = False) -> tuple[Any, ...]:
        """Plan, tasks, memory and team for a batch size; one for training and one for evaluation are cached."""
        n_threads = threads_for_call()
        key = (batch_size, n_threads, transposes)
        cached = self._workspaces.get(evaluation)
        if cached is None or cached[0] != key:
            self._workspaces.pop(evaluation, None)
            plan, tasks, size = self._layout.plan(
                dispatch.kernels, batch_size, n_threads, self.dtype.itemsize, evaluation, transposes
            )
            memory = aligned_zeros(size, self.dtype, f"a batch of {batch_size} images")
            cached = (key, plan, np.array(tasks, np.int64), memory, Team(n_threads))
            self._workspaces[evaluation] = cached
        return cached[1:]

    def _run_forward(
        self, prepared: PreparedData, probabilities: FloatArray | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Losses of all images, and whether each is classified correctly; or, if given, fills in the probabilities."""
        with self._lock:
            plan, _, memory, team = self._workspace(2**30, evaluation=True, transposes=self._transposes())
            losses = np.empty(prepared.n_images)
            correct = np.zeros(prepared.n_images, np.int32)
            dispatch.specialised(dispatch.kernels.evaluate, self.dtype)(
                plan,
                self._store,
                memory,
                *prepared.kernel_arguments(),
                *((None, None) if probabilities is not None else prepared.targets()[:2]),
                losses,
                correct,
                probabilities,
                team.n_threads,
            )
        return losses, correct

    def _transposes(self) -> bool:
        """Whether evaluation may skip zeros: a layer is large enough for it, and all weights are finite."""
        large = self._layout.transposes(dispatch.kernels, self.dtype.itemsize)
        return large and bool(np.isfinite(self._store).all())

    def predict_proba(self, X: ArrayLike | Split | PreparedData) -> FloatArray:
        """Class probabilities of each image.

        Parameters
        ----------
        X : array_like, (n, C, H, W), or Split or PreparedData
            Normalised floats; pixels 0 to 255 as integers, or a split of them, if
            the network has a normaliser; or the result of :meth:`prepare`.

        Returns
        -------
        ndarray of the network's dtype, (n, n_classes)

        Raises
        ------
        TypeError, ValueError
            If ``X`` has the wrong dtype or shape or is not finite.
        """
        prepared = self._prepared(X)
        probabilities = new_array("the probabilities", (prepared.n_images, self.n_classes), self.dtype)
        self._run_forward(prepared, probabilities)
        return probabilities

    def predict(self, X: ArrayLike | Split | PreparedData) -> NDArray[np.int64]:
        """The most probable class of each image.

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

    def evaluate(
        self, X: ArrayLike | Split | PreparedData, labels: ArrayLike | None = None, l2: float = 0.0
    ) -> Evaluation:
        """Loss, cost and accuracy.

        Parameters
        ----------
        X : array_like, Split or PreparedData
            As for :meth:`predict_proba`.
        labels : array_like of int, (n,), or of float, (n, n_classes)
            As for :meth:`prepare`; left out if ``X`` is a split or prepared data,
            which have their own. An image is counted as correct if its most probable
            class is the most probable one of its label.
        l2 : float, default 0.0
            λ: coefficient of the L2 penalty in the cost.

        Returns
        -------
        Evaluation

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype, shape or range.
        """
        l2 = check_real("l2", l2, 0)
        prepared = self._prepared(X, labels, needs_labels=True)
        losses, correct = self._run_forward(prepared)
        loss = float(losses.mean())
        return Evaluation(loss, loss + l2 * self.penalty() if l2 else loss, float(correct.mean()))

    def penalty(self) -> float:
        """Sum of all squared weights, excluding biases."""
        with self._lock:
            return sum(map(ops.sum_of_squares, self._layout.weights(self._store)))  # the padding is zero

    def forward(self, X: ArrayLike | Split | PreparedData) -> dict[str, FloatArray]:
        """Output of every layer, for inspection.

        Parameters
        ----------
        X : array_like of float, (n, C, H, W)
            Normalised images.

        Returns
        -------
        dict of str to ndarray
            ``"conv"`` (n, n_filters, H/f, W/f) (``"conv.0"`` … for several branches),
            ``"hidden"`` (n, n_hidden) (``"hidden.0"`` …), ``"logits"`` and
            ``"probabilities"`` (n, n_classes).

        Raises
        ------
        TypeError, ValueError
            If ``X`` has the wrong dtype or shape or is not finite.
        """
        images = self._prepared(X).values
        if images is None:
            raise TypeError("X must be normalised floats, but got uint8 pixels")
        parameters = self.parameters
        activations = {}
        for name, weight in parameters.items():
            layer = name.removesuffix(".weight")
            if layer == name:
                continue
            bias = parameters[f"{layer}.bias"]
            if layer.startswith("conv"):
                patches = ops.im2col(images, weight.shape[2])
                maps = ops.patch_matmul_forward(patches, weight.reshape(len(weight), -1), bias)
                grid = (self.image_shape[1] // weight.shape[2], self.image_shape[2] // weight.shape[2])
                activations[layer] = maps.reshape(*maps.shape[:2], *grid)
                x = np.concatenate([maps.reshape(len(maps), -1) for maps in activations.values()], axis=1)
            else:
                x = ops.dense_forward(x, weight, bias, relu=layer != "output")
                activations["logits" if layer == "output" else layer] = x
        activations["probabilities"], _ = ops.softmax_cross_entropy_forward(x, np.zeros(len(x), np.int32))
        return activations

    def loss_and_gradients(
        self,
        X: ArrayLike | Split | PreparedData,
        labels: ArrayLike | None,
        l2: float = 0.0,
        label_smoothing: float = 0.0,
        class_weight: ArrayLike | None = None,
    ) -> tuple[float, Parameters]:
        """Cost of a batch and its gradients, without an update.

        Parameters
        ----------
        X : array_like, Split or PreparedData
            As for :meth:`predict_proba`.
        labels : array_like of int, (n,), or of float, (n, n_classes)
            Classes, as for :meth:`prepare`, or probabilities that sum to 1. If ``X``
            is a split or prepared data, None stands for its own labels.
        l2 : float, default 0.0
            λ: the cost is the mean cross-entropy plus λ times the sum of all
            squared weights; biases are not penalised.
        label_smoothing : float, default 0.0
            ε: the target is 1−ε for the true class and ε/(n_classes−1) for each
            other class. (The equivalent value in PyTorch is ε·K/(K−1).)
        class_weight : array_like of float, (n_classes,), optional
            w, not negative: the loss is Σ wᵢ lossᵢ / Σ wᵢ, with the weight of image i's
            class, or Σₖ pₖ wₖ for probabilities. For classes without smoothing this is
            PyTorch's ``CrossEntropyLoss(weight=w)``; with smoothing, PyTorch weights
            each class's part of the loss instead. :meth:`evaluate` does not weight.

        Returns
        -------
        cost : float
        gradients : dict of str to ndarray
            Same names and shapes as :attr:`parameters`.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype, shape or range.
        """
        l2 = check_real("l2", l2, 0)
        prepared, targets = self._prepared(X, needs_labels=labels is None), None
        if labels is None:
            targets = prepared.targets(label_smoothing)
        else:
            targets = check_targets(labels, prepared.n_images, self.n_classes, self.dtype, label_smoothing, "labels")
        order = np.arange(prepared.n_images)
        weights = _image_weights(check_class_weight(class_weight, self.n_classes), targets, order[None])
        gradient = aligned_zeros(self._layout.size, self.dtype, "the gradient")
        costs = self._train(
            prepared,
            targets,
            order,
            weights,
            np.ones(1),
            prepared.n_images,
            {"l2": l2, "optimizer": None},
            gradient,
            None,
            np.empty(1),
        )
        return float(costs[0]), self._layout.unpack(gradient)

    def train_steps(
        self,
        source: PreparedData,
        order: ArrayLike,
        learning_rates: ArrayLike,
        batch_size: int = 100,
        l2: float = 0.0,
        label_smoothing: float = 0.0,
        momentum: float = 0.0,
        dropout: float = 0.0,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        first_step: int = 0,
        out: NDArray[np.float64] | None = None,
        optimizer: Optimizer | None = None,
        class_weight: ArrayLike | None = None,
    ) -> NDArray[np.float64]:
        """Make many SGD updates in one call, without returning to Python between them.

        Update i uses the images ``order[i*batch_size:(i+1)*batch_size]``:
        ``W ← (1 − 2ηλ) W − η ∂loss/∂W``; for biases, λ is 0. With momentum μ, as in
        PyTorch: ``v ← μ v + ∂cost/∂W``, ``W ← W − η v``. :class:`SGD` and
        :class:`AdamW` describe the other update rules.

        Parameters
        ----------
        source : PreparedData
            Images with labels, from :meth:`prepare`.
        order : array of int, (at least len(learning_rates)*batch_size,)
            Indices of the images.
        learning_rates : array of float, (n_steps,)
            η of each update, not negative.
        batch_size : int, default 100
            At most the number of images.
        l2 : float, default 0.0
            λ, as in :meth:`loss_and_gradients`.
        label_smoothing : float, default 0.0
            ε, as in :meth:`loss_and_gradients`.
        momentum : float, default 0.0
            μ, in [0, 1): the short way to ``optimizer=SGD(momentum)``.
        dropout : float, default 0.0
            Fraction of each hidden layer's units to drop, in [0, 1); the others
            are scaled by 1/(1−dropout) (inverted dropout, Srivastava et al. 2014).
        augmentation : Augmentation, optional
            Random changes of the images.
        seed : int, default 0
            Seed of dropout and augmentation.
        first_step : int, default 0
            Number of the first update. Dropout is a function of (seed, step,
            position in the batch), augmentation of (seed, epoch, image) with
            epoch = step // (n_images // batch_size).
        out : ndarray of float64, (n_steps,), optional
            Array for the costs, which is also returned. A cost is written together
            with its update, so that after an exception, elements that still have
            their old value belong to updates that were not made.
        optimizer : Optimizer, optional
            :class:`SGD` or :class:`AdamW`; by default gradient descent with ``momentum``.
            Its state (:attr:`optimizer_state`) belongs to the network, and the next
            call continues from it. The state of another class is discarded, and the
            new one starts at zero. Gradient descent without momentum leaves it unchanged.
        class_weight : array_like of float, (n_classes,), optional
            As in :meth:`loss_and_gradients`; not 0 for all classes of a batch.

        Returns
        -------
        ndarray of float64, (n_steps,)
            Cost of each batch before its update, including the penalty. NaN or
            infinity means that training diverged.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype or shape or is out of range; no
            update has been made then.
        """
        if not isinstance(source, PreparedData):
            raise TypeError(f"source must come from Network.prepare, but got {describe(source)}")
        prepared = self._prepared(source, needs_labels=True)
        batch_size = check_integer("batch_size", batch_size, 1)
        if batch_size > prepared.n_images:
            raise ValueError(
                f"batch_size must be at most the number of images, {prepared.n_images}, but got {batch_size}"
            )
        rates = check_array("learning_rates", learning_rates, ("n_steps",))
        if rates.dtype.kind not in "fiu":
            raise TypeError(f"learning_rates must be numbers, but got {describe(rates)}")
        rates = check_finite("learning_rates", np.array(rates, np.float64))
        if rates.size and rates.min() < 0:
            raise ValueError(f"learning_rates must not be negative, but got {rates.min()}")
        order = check_array("order", order, ("n",))
        if order.size and order.dtype.kind not in "iu":
            raise TypeError(f"order must be integers, but got {describe(order)}")
        if order.size < rates.size * batch_size:
            raise ValueError(
                f"order must hold at least n_steps*batch_size = {rates.size * batch_size} image numbers, "
                f"but got {order.size}"
            )
        order = np.array(order[: rates.size * batch_size], np.int64)  # a copy, which no other thread can change
        if order.size and (order.min() < 0 or order.max() >= prepared.n_images):
            raise ValueError(f"order must lie in 0..{prepared.n_images - 1}, but got {order.min()}..{order.max()}")
        if augmentation is None:
            augmentation = NO_AUGMENTATION
        elif not isinstance(augmentation, Augmentation):
            raise TypeError(f"augmentation must be an Augmentation or None, but got {describe(augmentation)}")
        optimizer = check_optimizer(optimizer, momentum)
        settings: _Settings = {
            "l2": check_real("l2", l2, 0),
            "optimizer": optimizer,
            "dropout": check_real("dropout", dropout, 0, 1, "[)"),
            "augmentation": augmentation,
            "seed": check_seed(seed),
            "first_step": check_integer("first_step", first_step, 0, 2**62),
        }
        targets = prepared.targets(label_smoothing)
        class_weight = check_class_weight(class_weight, self.n_classes)
        if out is None:
            out = np.empty(rates.size)
        elif not (
            isinstance(out, np.ndarray) and out.dtype == np.float64 and out.shape == rates.shape and out.flags.carray
        ):
            raise ValueError(
                f"out must be a contiguous array of float64 of shape {rates.shape} that can be written to, "
                f"but got {describe(out)}"
            )
        if rates.size == 0:
            return out
        weights = _image_weights(class_weight, targets, order.reshape(-1, batch_size))
        with self._lock:
            stores = n_updates = None
            if optimizer.keeps_state:
                if self._state is None or self._state.kind is not type(optimizer):
                    self._state = self._new_state(type(optimizer), 0)
                _, stores, n_updates = self._state
            return self._train(prepared, targets, order, weights, rates, batch_size, settings, stores, n_updates, out)

    def _train(
        self,
        prepared: PreparedData,
        targets: tuple[Any, ...],
        order: IntArray,
        weights: NDArray[np.float64] | None,
        rates: NDArray[np.float64],
        batch_size: int,
        settings: _Settings,
        state: FloatArray | None,
        n_updates: NDArray[np.int64] | None,
        costs: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Pass checked arguments to the kernel, in calls short enough for Ctrl-C to be handled between them.

        ``state`` is that of the optimiser, if any, or the array for the gradient if there is no optimiser.
        """
        augmentation = settings.get("augmentation", NO_AUGMENTATION)
        optimizer = settings["optimizer"]
        first_step = settings.get("first_step", 0)
        shared = {
            "l2": settings["l2"],
            "dropout": settings.get("dropout", 0.0),
            "augmentation": augmentation.settings,
            "seed": settings.get("seed", 0),
            "steps_per_epoch": max(1, prepared.n_images // batch_size),
        }
        per_call = max(1, int(OPERATIONS_PER_CALL / (self._operations() * batch_size)))
        train = dispatch.specialised(dispatch.kernels.train, self.dtype)
        with self._lock:
            plan, tasks, memory, team = self._workspace(batch_size, evaluation=False)
            losses, correct = np.empty(batch_size), np.empty(batch_size, np.int32)
            squares = np.zeros(len(tasks))
            for begin in range(0, len(rates), per_call):
                end = min(begin + per_call, len(rates))
                size = team.size
                unshared_cache = dispatch.threads_are_far(size)
                start = time.perf_counter()
                asleep = train(
                    plan,
                    tasks,
                    self._store,
                    None if optimizer is None else optimizer.settings,
                    state,
                    n_updates,
                    memory,
                    *prepared.kernel_arguments(),
                    *targets,
                    order[begin * batch_size : end * batch_size].reshape(end - begin, batch_size),
                    None if weights is None else weights[begin:end],
                    rates[begin:end],
                    costs[begin:end],
                    losses,
                    correct,
                    squares,
                    {**shared, "first_step": first_step + begin},
                    unshared_cache,
                    size,
                    team.spins,
                )
                team.note(end - begin, time.perf_counter() - start, asleep)
        return costs

    def _operations(self) -> int:
        """Approximate number of floating-point operations of the forward and backward pass of one image."""
        filters = sum(b["n_filters"] * b["n_values"] * b["n_patches"] for b in self._layout.branches)
        dense = sum(d["n_units"] * d["n_inputs"] for d in self._layout.dense)
        return 4 * filters + 6 * dense

    def save(self, path: StrPath) -> None:
        """Write the network to one ``.npz`` file, atomically and without pickle.

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
        arrays = self.arrays()
        save_arrays(path, "network", format_version(arrays), {"architecture": self.architecture}, arrays)

    def arrays(self) -> dict[str, AnyArray]:
        """Parameters and normaliser, by the names that files use for them; `from_arrays` is the inverse."""
        arrays: dict[str, AnyArray] = {f"parameters/{name}": array for name, array in self.parameters.items()}
        if self.normalizer is not None:
            arrays |= {f"normalizer/{name}": array for name, array in self.normalizer.arrays.items()}
        return arrays

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Load a network from a file written by :meth:`save`.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        Network
            With the normaliser it was saved with, if any.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not a network file, is damaged or has a newer format.
        """
        header, arrays = load_arrays(path, "network", FORMAT_VERSION)
        try:
            return cls.from_arrays(header["architecture"], arrays)
        except (KeyError, TypeError, ValueError, MemoryError) as error:
            raise ValueError(f"path must be a cyconv network file, but {path} is damaged: {error}") from None

    @classmethod
    def from_arrays(cls, architecture: JsonDict, arrays: Mapping[str, AnyArray]) -> Self:
        """Create a network from its `architecture` and `arrays`.

        Raises
        ------
        KeyError, TypeError, ValueError, MemoryError
            If these do not describe a network or do not fit each other.
        """
        prefix = "parameters/"
        parameters = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        sizes = {name: value for name, value in dict(architecture).items() if name not in ("seed", "dtype")}
        # Compare the architecture with the arrays in the file before memory is allocated for it.
        if _make_layout(**sizes).shapes != {name: array.shape for name, array in parameters.items()}:
            raise ValueError("its parameters do not fit its architecture")
        network = cls(**architecture)
        network.set_parameters(parameters)
        prefix = "normalizer/"
        statistics = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        if statistics:
            network.normalizer = Normalizer.from_arrays(statistics)
        return network
