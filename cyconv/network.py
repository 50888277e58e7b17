"""The network: a patchify convolution, dense layers, softmax."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._checks import (
    FLOATS,
    as_array,
    check_array,
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
    smoothed,
)
from ._files import load_arrays, save_arrays
from ._kernels.processor import MAX_BRANCHES, MAX_HIDDEN
from ._typing import AnyArray, FloatArray, ImageShape, IntArray, JsonDict, Parameters, Sizes, SizesLike, StrPath
from .augmentation import NO_AUGMENTATION, Augmentation
from .backend import dispatch, ops
from .backend.layout import Layout, as_sizes
from .backend.memory import aligned_zeros, new_array
from .backend.threads import Team, threads_for_call
from .datasets import Normalizer, Split
from .prepared import PreparedData
from .randomness import INITIALISATION, standard_normal

FORMAT_VERSION = 1
_FIXED = ("filter_size", "n_filters", "n_hidden", "seed", "dtype", "image_shape", "n_classes")
OPERATIONS_PER_CALL = 4e9  # of one kernel call: about 50 ms, after which Ctrl-C is heard
# Of one update, together: with fewer, threads far apart take longer than one of them alone.
FAR_OPERATIONS = 2e6  # two barriers' worth
FAR_OPERATIONS_PER_PARAMETER = 300  # what its way from one to the other is worth


class Evaluation(NamedTuple):
    """What a network achieves on a set of images.

    Attributes
    ----------
    loss : float
        Mean cross-entropy in nats.
    cost : float
        ``loss`` plus ``l2`` times the sum of all squared weights.
    accuracy : float
        Share of images whose most probable class is the label, 0 to 1.
    """

    loss: float
    cost: float
    accuracy: float


def _lay_out(
    filter_size: SizesLike, n_filters: SizesLike, n_hidden: SizesLike, image_shape: Sequence[int], n_classes: int
) -> Layout:
    """Check an architecture and draw its plan, without taking any memory for it."""
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
    """``value``, if it can be an integer or a sequence of them at all."""
    try:
        scalar = as_array(name, value).ndim == 0
    except TypeError:
        raise TypeError(f"{name} must be an integer or a sequence of integers, but got {describe(value)}") from None
    return check_integer(name, value, 1, 2**31 - 1) if scalar else value


def _as_json(sizes: int | Sizes) -> int | list[int]:
    return list(sizes) if isinstance(sizes, tuple) else sizes


def _check_normalizer(value: object, image_shape: ImageShape) -> None:
    if value is None:
        return
    if not isinstance(value, Normalizer):
        raise TypeError(f"normalizer must be a Normalizer or None, but got {describe(value)}")
    if value.mean.shape != image_shape:
        raise ValueError(f"normalizer must be of images of shape {image_shape}, but got one of {value.mean.shape}")


class Network:
    """A patchify ConvNet: convolution with stride = filter width, dense layers, softmax.

    For an image X with patches M (n_p × 3f²): ``H = max(0, M F + b)``,
    ``x = max(0, W₁ vec(H) + b₁)`` for each hidden layer, ``p = softmax(W x + b)``.
    Weights start from He et al. (2015): normal with standard deviation
    √(2/fan_in), biases from zero; each number is a function of its seed and
    place alone.

    Parameters
    ----------
    filter_size : int or sequence of int
        Width f of the filters and their stride; divides the image's height
        and width. Several: branches side by side, their outputs concatenated.
    n_filters : int or sequence of int
        Filters of each branch; as many as there are filter sizes.
    n_hidden : int or sequence of int
        Units of each hidden layer.
    seed : int, default 0
        Of the initial weights.
    dtype : {"float32", "float64"}, default "float32"
    image_shape : tuple of int, default (3, 32, 32)
        (channels, height, width).
    n_classes : int, default 10

    Attributes
    ----------
    normalizer : Normalizer or None
        Set by training on uint8 images; then uint8 images are taken everywhere.
        The one attribute that may be assigned.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or range, or a filter width does not
        divide the image.
    MemoryError
        If this machine cannot hold such a network.

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
        self._layout = _lay_out(filter_size, n_filters, n_hidden, image_shape, n_classes)
        self.image_shape = self._layout.image_shape
        self.n_classes = self._layout.n_classes
        self.filter_size, self.n_filters, self.n_hidden = (
            as_sizes(name, value) if np.ndim(value) else as_sizes(name, value)[0]
            for name, value in (("filter_size", filter_size), ("n_filters", n_filters), ("n_hidden", n_hidden))
        )
        self.seed = check_seed(seed)
        self.dtype = check_float_dtype(dtype)
        self.normalizer = None
        # Twice: while they are drawn, the initial numbers lie in arrays of their own.
        check_memory("a network of these sizes", 2 * self._layout.size * self.dtype.itemsize)
        self._store = aligned_zeros(self._layout.size, self.dtype, "a network of these sizes")
        self._velocity: FloatArray | None = None
        self._lock = threading.RLock()
        self._workspaces: dict[bool, tuple[Any, ...]] = {}
        # Workspace and normalisation that evaluation has made ready, with these parameters.
        self._evaluates: tuple[Any, Any] | None = None
        # Whether evaluation with these parameters may skip zeros; None: not looked at.
        self._may_skip: bool | None = None
        self._initialise()

    if not TYPE_CHECKING:  # to a type checker, it would let every name be set

        def __setattr__(self, name: str, value: object) -> None:
            """What the kernels rely on stays as it was checked, and a misspelt name is not set in silence."""
            fixed = name in _FIXED and name in self.__dict__
            # Subclasses add their own.
            unknown = type(self) is Network and name not in _FIXED and not name.startswith("_")
            if name == "normalizer":
                _check_normalizer(value, self.image_shape)
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
            for begin in range(0, flat.size, 2**18):  # in pieces: the numbers are drawn in double precision
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
        state = dict(self.__dict__, _store=np.array(self._store), _workspaces={}, _evaluates=None, _may_skip=None)
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._store = aligned_zeros(self._layout.size, self.dtype, "this network")
        self._store[:] = state["_store"]
        self._lock = threading.RLock()

    @property
    def architecture(self) -> JsonDict:
        """The constructor's arguments as JSON values: ``Network(**net.architecture)`` is its untrained twin."""
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
        """How many numbers are trained."""
        return self._layout.n_parameters

    @property
    def parameters(self) -> Parameters:
        """All parameters, in PyTorch's names and layouts.

        Returns
        -------
        dict of str to ndarray
            ``"conv.weight"`` (n_filters, C, f, f), ``"conv.bias"``,
            ``"hidden.weight"`` (n_hidden, n_filters·n_p) with columns in the order of
            ``torch.flatten``, ``"hidden.bias"``, ``"output.weight"`` (n_classes, n_hidden),
            ``"output.bias"``. Several branches or hidden layers carry numbers:
            ``"conv.0.weight"``, ``"hidden.1.bias"``. The arrays are read-only copies;
            :meth:`set_parameters` changes the network.
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
            As :attr:`parameters`; float32 or float64, finite.

        Raises
        ------
        TypeError, ValueError
            If a name, shape or dtype does not fit, or a number is not finite.
            Nothing is changed then.
        """
        store = self._packed(self._checked("mapping", mapping), "the parameters")
        with self._lock:
            self._evaluates = self._may_skip = None
            self._store = store  # at once: no exception may leave half of them

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
        """A new store of these arrays; its padding is zero."""
        store = aligned_zeros(self._layout.size, self.dtype, what)
        self._layout.pack(arrays, store)
        return store

    @property
    def velocity(self) -> Parameters | None:
        """The momentum's velocity, named and laid out as :attr:`parameters`; None before any momentum."""
        with self._lock:
            return None if self._velocity is None else self._public(self._velocity)

    def set_velocity(self, mapping: Mapping[str, ArrayLike] | None) -> None:
        """Replace the momentum's velocity; None forgets it.

        Parameters
        ----------
        mapping : dict of str to array, or None
            As :attr:`velocity`.

        Raises
        ------
        TypeError, ValueError
            As :meth:`set_parameters`.
        """
        velocity = None if mapping is None else self._packed(self._checked("mapping", mapping), "the velocity")
        with self._lock:
            self._velocity = velocity

    def copy(self) -> Self:
        """An independent network with the same parameters, velocity and normaliser."""
        twin = type(self)(**self.architecture)
        with self._lock:
            twin._store[:] = self._store
            twin._velocity = None if self._velocity is None else self._velocity.copy()
            twin.normalizer = self.normalizer
        return twin

    def prepare(
        self, images: ArrayLike, labels: ArrayLike | None, normalizer: Normalizer | None = None
    ) -> PreparedData:
        """Check images and labels once, for many calls.

        Parameters
        ----------
        images : array_like, (n, C, H, W)
            Pixels 0 to 255 as integers, or floats already normalised; a list or a
            tensor is taken as well. uint8 stays uint8 and is referred to, not
            copied: each batch is normalised while it is gathered.
        labels : array_like of int, (n,), or None
            Classes 0 to n_classes-1; a column, a row, or one-hot rows are taken as well.
        normalizer : Normalizer, optional
            For uint8 images; the network's own where there is one.

        Returns
        -------
        PreparedData

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype, shape or range, a float is not
            finite, or uint8 images come without a normaliser.

        Warns
        -----
        UserWarning
            If floats are plainly pixels that were never normalised, as in every
            method that takes images.
        """
        return PreparedData(self, images, labels, normalizer)

    def _source(
        self, X: ArrayLike | Split | PreparedData, labels: ArrayLike | None = None, needs_labels: bool = False
    ) -> PreparedData:
        if isinstance(X, Split):
            if labels is not None:
                raise ValueError("labels must be left out with a Split, which has its own, but they were given")
            return self._source(X.images, X.labels)
        if not isinstance(X, PreparedData):
            source = PreparedData(self, X, labels, name="X")
        else:
            source = X
            if (source.image_shape, source.dtype) != (
                self.image_shape,
                self.dtype,
            ) or source.n_classes > self.n_classes:
                raise ValueError(
                    f"the source must be prepared for images of shape {self.image_shape}, {self.dtype} and "
                    f"{self.n_classes} classes, but it was for {source.image_shape}, {source.dtype} and "
                    f"{source.n_classes}"
                )
            if labels is not None:
                raise ValueError(
                    "labels must be left out with a prepared source, which has its own, but they were given"
                )
        if needs_labels and source.labels is None:
            raise ValueError("labels must be given, but got None")
        return source

    def _workspace(self, batch_size: int, evaluation: bool, transposes: bool = False) -> tuple[Any, ...]:
        """Plan, tasks, memory and team for a batch size; the last of each kind is kept."""
        n_threads = threads_for_call()
        key = (batch_size, n_threads, transposes)
        kept = self._workspaces.get(evaluation)
        if kept is None or kept[0] != key:
            self._workspaces.pop(evaluation, None)
            plan, tasks, size = self._layout.plan(
                dispatch.kernels, batch_size, n_threads, self.dtype.itemsize, evaluation, transposes
            )
            memory = aligned_zeros(size, self.dtype, f"a batch of {batch_size} images")
            kept = (key, plan, np.array(tasks, np.int64), memory, Team(n_threads))
            self._workspaces[evaluation] = kept
        return kept[1:]

    def _run_forward(
        self, source: PreparedData, labels: NDArray[np.int32] | None, probabilities: FloatArray | None
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        with self._lock:
            # Of float images nothing is kept from one call to the next.
            transposes = source.pixels is not None and self._transposes()
            plan, _, memory, team = self._workspace(2**30, evaluation=True, transposes=transposes)
            losses = np.empty(source.n_images)
            correct = np.zeros(source.n_images, np.int32)
            ready = self._is_ready(memory, source)
            self._evaluates = None
            dispatch.specialised(dispatch.kernels.evaluate, self.dtype)(
                plan,
                self._store,
                memory,
                *source.kernel_arguments(),
                labels,
                losses,
                correct,
                probabilities,
                ready,
                team.n_threads,
            )
            if source.pixels is not None:
                self._evaluates = memory, source.kernel_arguments()[2:]
        return losses, correct

    def _transposes(self) -> bool:
        """Whether evaluation may skip zeros: there is a layer for it, and no weight that is not finite."""
        if self._may_skip is None:
            self._may_skip = self._layout.transposes(dispatch.kernels, self.dtype.itemsize) and bool(
                np.isfinite(self._store).all()
            )
        return self._may_skip

    def _is_ready(self, memory: FloatArray, source: PreparedData) -> bool:
        """Whether the workspace holds what evaluation makes of the filters and the normaliser beforehand."""
        if source.pixels is None or self._evaluates is None:
            return False
        ready_memory, ready = self._evaluates
        return memory is ready_memory and all(map(np.array_equal, ready, source.kernel_arguments()[2:]))

    def predict_proba(self, X: ArrayLike | Split | PreparedData) -> FloatArray:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array_like, (n, C, H, W), or Split or PreparedData
            Normalised floats, pixels 0 to 255 as integers where the network has a
            normaliser, a split of such pixels, or what :meth:`prepare` returned.

        Returns
        -------
        ndarray of the network's dtype, (n, n_classes)

        Raises
        ------
        TypeError, ValueError
            If ``X`` has the wrong dtype or shape or is not finite.
        """
        source = self._source(X)
        probabilities = new_array("the probabilities", (source.n_images, self.n_classes), self.dtype)
        self._run_forward(source, None, probabilities)
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
            As :meth:`predict_proba`.
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
        labels : array_like of int, (n,)
            As for :meth:`prepare`; left out where ``X`` is a split or a source,
            which have their own.
        l2 : float, default 0.0
            λ of the penalty in the cost.

        Returns
        -------
        Evaluation

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype, shape or range.
        """
        l2 = check_real("l2", l2, 0)
        source = self._source(X, labels, needs_labels=True)
        losses, correct = self._run_forward(source, source.labels, None)
        loss = float(losses.mean())
        return Evaluation(loss, loss + l2 * self.penalty() if l2 else loss, float(correct.mean()))

    def penalty(self) -> float:
        """The sum of the squares of all weights, biases left out."""
        with self._lock:
            return sum(map(ops.sum_of_squares, self._layout.weights(self._store)))  # padding is zero

    def forward(self, X: ArrayLike | Split | PreparedData) -> dict[str, FloatArray]:
        """Every layer's output, for looking at.

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
        images = self._source(X).values
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
    ) -> tuple[float, Parameters]:
        """The cost of a batch and its gradient, without an update.

        Parameters
        ----------
        X : array_like, Split or PreparedData
            As for :meth:`predict_proba`.
        labels : array_like of int, (n,), or of float, (n, n_classes)
            Classes, as for :meth:`prepare`, or probabilities that sum to 1. None
            where ``X`` is a split or a source: its own.
        l2 : float, default 0.0
            λ: the cost is the mean cross-entropy plus λ times the sum of all
            squared weights; biases are not penalised.
        label_smoothing : float, default 0.0
            ε: the true class gets 1−ε, each other ε/(n_classes−1). (PyTorch's ε
            must be ε·K/(K−1) to mean the same.)

        Returns
        -------
        cost : float
        gradients : dict of str to ndarray
            As :attr:`parameters`.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype, shape or range.
        """
        l2 = check_real("l2", l2, 0)
        source = self._source(X)
        targets = source.labels if labels is None else labels
        if targets is None:
            raise ValueError("labels must be given, but got None")
        checked = check_targets(targets, source.n_images, self.n_classes, self.dtype, label_smoothing, "labels")
        gradient = aligned_zeros(self._layout.size, self.dtype, "the gradient")
        costs = self._train(
            source,
            checked,
            np.arange(source.n_images),
            np.ones(1),
            source.n_images,
            gradient,
            {"l2": l2, "gradients_only": True},
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
    ) -> NDArray[np.float64]:
        """Many updates in one call, with no Python between them.

        Update i uses the images ``order[i*batch_size:(i+1)*batch_size]``:
        ``W ← (1 − 2ηλ) W − η ∂loss/∂W``, biases without the λ. With momentum μ:
        ``v ← μ v + ∂cost/∂W``, ``W ← W − η v``, as PyTorch does.

        Parameters
        ----------
        source : PreparedData
            From :meth:`prepare`, with labels.
        order : array of int, (at least len(learning_rates)*batch_size,)
            Image numbers.
        learning_rates : array of float, (n_steps,)
            η of each update, not negative.
        batch_size : int, default 100
            At most as many as there are images.
        l2 : float, default 0.0
            λ.
        label_smoothing : float, default 0.0
            ε, as in :meth:`loss_and_gradients`.
        momentum : float, default 0.0
            μ, in [0, 1).
        dropout : float, default 0.0
            Share of each hidden layer's units that is dropped, in [0, 1); the others
            are scaled by 1/(1−dropout) (Srivastava et al. 2014, inverted).
        augmentation : Augmentation, optional
        seed : int, default 0
            Of dropout and augmentation.
        first_step : int, default 0
            The number of the first update: dropout is a function of (seed, step,
            position in the batch), augmentation of (seed, epoch, image) with
            epoch = step // (n_images // batch_size).
        out : ndarray of float64, (n_steps,), optional
            Takes the costs and is returned. A number is written with its update, so that after an exception the
            numbers that are still the caller's tell which updates were not made.

        Returns
        -------
        ndarray of float64, (n_steps,)
            The cost of each batch before its update, penalty included. NaN or
            infinity show a diverged run.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype, shape or range; nothing has
            been updated then.
        """
        if not isinstance(source, PreparedData):
            raise TypeError(f"source must come from Network.prepare, but got {describe(source)}")
        source = self._source(source, needs_labels=True)
        batch_size = check_integer("batch_size", batch_size, 1)
        if batch_size > source.n_images:
            raise ValueError(
                f"batch_size must be at most the number of images, {source.n_images}, but got {batch_size}"
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
        order = np.array(order[: rates.size * batch_size], np.int64)  # the kernel's own: nobody may change it now
        if order.size and (order.min() < 0 or order.max() >= source.n_images):
            raise ValueError(f"order must lie in 0..{source.n_images - 1}, but got {order.min()}..{order.max()}")
        if augmentation is None:
            augmentation = NO_AUGMENTATION
        elif not isinstance(augmentation, Augmentation):
            raise TypeError(f"augmentation must be an Augmentation or None, but got {describe(augmentation)}")
        settings: dict[str, Any] = {
            "l2": check_real("l2", l2, 0),
            "momentum": check_real("momentum", momentum, 0, 1, "[)"),
            "dropout": check_real("dropout", dropout, 0, 1, "[)"),
            "augmentation": augmentation,
            "seed": check_seed(seed),
            "first_step": check_integer("first_step", first_step, 0, 2**62),
        }
        targets = (source.labels, None, *smoothed(label_smoothing, self.n_classes))
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
        with self._lock:
            sink = None
            if settings["momentum"] > 0:
                if self._velocity is None:
                    self._velocity = aligned_zeros(self._layout.size, self.dtype, "the velocity")
                sink = self._velocity
            return self._train(source, targets, order, rates, batch_size, sink, settings, out)

    def _train(
        self,
        source: PreparedData,
        targets: tuple[Any, ...],
        order: IntArray,
        rates: NDArray[np.float64],
        batch_size: int,
        sink: FloatArray | None,
        settings: Mapping[str, Any],
        costs: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Checked arguments to the kernel, in calls short enough that Ctrl-C is heard between them."""
        augmentation = settings.get("augmentation", NO_AUGMENTATION)
        settings = {
            "l2": settings["l2"],
            "momentum": settings.get("momentum", 0.0),
            "dropout": settings.get("dropout", 0.0),
            "gradients_only": settings.get("gradients_only", False),
            "flip": augmentation.flip,
            "shift": augmentation.shift,
            "cutout": augmentation.cutout,
            "seed": settings.get("seed", 0),
            "first_step": settings.get("first_step", 0),
            "steps_per_epoch": max(1, source.n_images // batch_size),
        }
        per_call = max(1, int(OPERATIONS_PER_CALL / (self._operations() * batch_size)))
        train = dispatch.specialised(dispatch.kernels.train, self.dtype)
        with self._lock:
            self._evaluates = self._may_skip = None
            plan, tasks, memory, team = self._workspace(batch_size, evaluation=False)
            n_threads = team.n_threads
            if plan["block"] == batch_size:  # one block is one thread's; the others would cost more than they help
                n_threads = 1
            losses, correct = np.empty(batch_size), np.empty(batch_size, np.int32)
            squares = np.zeros(len(tasks))
            for begin in range(0, len(rates), per_call):
                end = min(begin + per_call, len(rates))
                size = min(team.size, n_threads)
                far = dispatch.threads_are_far(size)
                alone = far and self._has_few_operations(batch_size)
                start = time.perf_counter()
                asleep = train(
                    plan,
                    tasks,
                    self._store,
                    sink,
                    memory,
                    *source.kernel_arguments(),
                    *targets,
                    order[begin * batch_size : end * batch_size].reshape(end - begin, batch_size),
                    rates[begin:end],
                    costs[begin:end],
                    losses,
                    correct,
                    squares,
                    {**settings, "first_step": settings["first_step"] + begin},
                    far and not alone,
                    1 if alone else size,
                    team.spins,
                )
                team.note(end - begin, time.perf_counter() - start, asleep)
        return costs

    def _has_few_operations(self, batch_size: int) -> bool:
        """Whether threads far apart take longer over an update than one of them alone."""
        few = FAR_OPERATIONS + FAR_OPERATIONS_PER_PARAMETER * self.n_parameters
        return self._operations() * batch_size < few

    def _operations(self) -> int:
        """Floating-point operations of one image's forward and backward pass, about."""
        filters = sum(b["n_filters"] * b["n_values"] * b["n_patches"] for b in self._layout.branches)
        dense = sum(d["n_units"] * d["n_inputs"] for d in self._layout.dense)
        return 4 * filters + 6 * dense

    def save(self, path: StrPath) -> None:
        """Write the network to one ``.npz`` file, atomically and without pickle.

        Parameters
        ----------
        path : path-like
            Taken as it stands; an older file is replaced once the new one is whole.

        Raises
        ------
        OSError
            If the file cannot be written; what stood there stays.
        """
        save_arrays(path, "network", FORMAT_VERSION, {"architecture": self.architecture}, self.arrays())

    def arrays(self) -> dict[str, AnyArray]:
        """What a file holds of the network beside its architecture: parameters and normaliser, by their names there."""
        arrays: dict[str, AnyArray] = {f"parameters/{name}": array for name, array in self.parameters.items()}
        if self.normalizer is not None:
            arrays |= {"normalizer/mean": self.normalizer.mean, "normalizer/std": self.normalizer.std}
        return arrays

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        Network
            With its normaliser, if it was saved with one.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no network file, is damaged, or of a newer format.
        """
        header, arrays = load_arrays(path, "network", FORMAT_VERSION)
        try:
            return cls.from_arrays(header["architecture"], arrays)
        except (KeyError, TypeError, ValueError, MemoryError) as error:
            raise ValueError(f"path must be a cyconv network file, but {path} is damaged: {error}") from None

    @classmethod
    def from_arrays(cls, architecture: JsonDict, arrays: Mapping[str, AnyArray]) -> Self:
        """The network of this `architecture` and these `arrays`.

        Raises
        ------
        KeyError, TypeError, ValueError, MemoryError
            If they are not those of a network, or do not fit each other.
        """
        prefix = "parameters/"
        parameters = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        plan = {name: value for name, value in dict(architecture).items() if name not in ("seed", "dtype")}
        # The plan takes no memory: what a file claims is held against what it holds before a network is made.
        if _lay_out(**plan).shapes != {name: array.shape for name, array in parameters.items()}:
            raise ValueError("its parameters do not fit its architecture")
        network = cls(**architecture)
        network.set_parameters(parameters)
        if any(name.startswith("normalizer/") for name in arrays):
            network.normalizer = Normalizer(arrays["normalizer/mean"], arrays["normalizer/std"])
        return network
