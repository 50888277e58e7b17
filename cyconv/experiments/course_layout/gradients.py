"""Comparison of a student's gradients with the right ones.

Where they differ, the likely reason is found by trial: the network's pass is
computed once more with each of the usual mistakes, and a mistake is named if
it gives exactly the student's numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._checks import (
    as_array,
    check_array,
    check_finite,
    check_image_shape,
    check_labels,
    check_probabilities,
    check_real,
    check_unsmoothed,
    describe,
    is_one_hot,
    smoothed,
)
from ..._tables import Table
from ..._typing import ImageShape
from ...network import Network
from .layouts import (
    FLOATS,
    RESULTS,
    gradients_to_course,
    images_from_columns,
    parameters_from_course,
    parameters_to_course,
)

_Array: TypeAlias = NDArray[np.float64]
_Axes: TypeAlias = tuple[int, ...]

_LAYERS = {"output": ("W2", "b2"), "hidden": ("W1", "b1"), "convolution": ("Fs_flat", "Fs_b")}
_ORDER = tuple(name for names in _LAYERS.values() for name in names)
_FORWARD = ("smoothing", "flatten", "patch", "exchanged", "without")  # fields of _Pass that change the gradient of W2
_FEW = 4  # numbers, of which any are a multiple of others by chance
_OPERATIONS = 5e7  # of one pass, above which pairs of mistakes are not tried


@dataclass(frozen=True, repr=False)
class GradientComparison:
    """What `compare_gradients` found: true if all gradients are right; prints as a table.

    Attributes
    ----------
    errors : dict of str to float
        Relative error of each gradient, by its name in the course, from the
        output down: the 2-norm of the difference over that of the right one.
        Infinite where the shape differs or the gradient is missing.
    wrong : tuple of str
        The names of the wrong ones, in the same order.
    wrong_layer : {"output", "hidden", "convolution"} or None
        The first wrong layer from the output down. The gradients of the
        layers below are computed from it, and may be wrong for this alone.
    reason : str
        The likely reason, one sentence or several; empty if all are right.
    """

    errors: dict[str, float]
    wrong: tuple[str, ...]
    wrong_layer: str | None
    reason: str

    def __bool__(self) -> bool:
        return not self.wrong

    def summary(self) -> str:
        """str: what is wrong and the likely reason, on one line."""
        if self:
            return "All gradients are right."
        layer = "convolution" if self.wrong_layer == "convolution" else f"{self.wrong_layer} layer"
        return (
            f"Wrong: {', '.join(self.wrong)}. From the output down, the first mistake is in the {layer}. {self.reason}"
        )

    def _table(self) -> Table:
        rows = [
            [name, "–" if math.isinf(error) else f"{error:.1e}", "wrong" if name in self.wrong else "right"]
            for name, error in self.errors.items()
        ]
        return Table(["gradient", "relative error", ""], rows, remark=self.summary())

    def __repr__(self) -> str:
        return repr(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()


def compare_gradients(
    student: Mapping[str, ArrayLike],
    X: ArrayLike,
    Y: ArrayLike,
    parameters: Mapping[str, ArrayLike],
    l2: float = 0.0,
    label_smoothing: float = 0.0,
    image_shape: Sequence[int] = (3, 32, 32),
    tolerance: float | None = None,
) -> GradientComparison:
    """Compare the gradients of a student's own code with the right ones, all in the course's layouts.

    Parameters
    ----------
    student : mapping of str to array_like
        The student's gradients, named ``grad_W1`` or just ``W1``: ``Fs_flat``
        (f²·C, nf) or ``Fs`` (f, f, C, nf), ``W1``, ``b1``, ``W2``, ``b2``, and
        ``Fs_b`` if ``parameters`` has it.
    X : array_like of float, shape (C·H·W, n)
        Normalised images, one per column; a few dozen are enough.
    Y : array_like, shape (K, n) or (n,)
        One-hot columns or probabilities, or class indices.
    parameters : mapping of str to array_like
        The parameters at which the gradients were computed, as for
        `parameters_from_course`.
    l2 : float, default 0.0
        λ: the cost has λ times the sum of the squares of all weights, without biases.
    label_smoothing : float, default 0.0
        ε: the true class gets 1−ε, each other class ε/(K−1).
    image_shape : tuple of int, default (3, 32, 32)
    tolerance : float, optional
        Largest relative error that counts as right; by default 1e-6, and 1e-3
        for gradients in single precision.

    Returns
    -------
    GradientComparison

    Raises
    ------
    KeyError, TypeError, ValueError
        If an argument has unknown names or the wrong shape, or holds a number
        that is not finite. Gradients of the wrong shape are not an error, but
        a result.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> parameters = {"Fs": rng.normal(size=(8, 8, 3, 2)), "W1": rng.normal(size=(6, 32)), "b1": np.zeros(6),
    ...               "W2": rng.normal(size=(10, 6)), "b2": np.zeros(10)}
    >>> X, y = rng.normal(size=(3072, 5)), np.arange(5)
    >>> network = Network(filter_size=8, n_filters=2, n_hidden=6, dtype="float64")
    >>> network.set_parameters(parameters_from_course(parameters))
    >>> _, gradients = network.loss_and_gradients(images_from_columns(X), y)
    >>> gradients = gradients_to_course(gradients)
    >>> bool(compare_gradients(gradients, X, y, parameters))
    True
    >>> gradients["grad_W1"] *= 5
    >>> print(compare_gradients(gradients, X, y, parameters).reason)
    Likely reason: not divided by n = 5, the number of images (grad_W1).
    """
    problem = _check_problem(X, Y, parameters, l2, label_smoothing, check_image_shape(image_shape))
    if tolerance is not None:
        tolerance = check_real("tolerance", tolerance, 0)
    right = problem.right_gradients()
    for name, array in right.items():
        if not np.isfinite(array).all():
            raise ValueError(f"parameters must have finite gradients at X, but that of {name} is not finite")
    names = [name for name in _ORDER if name != "Fs_b" or "Fs_b" in parameters]
    given = _gradients_of_student(student)
    tolerances = {name: _tolerance(given.get(name), tolerance) for name in names}
    errors = {name: _relative_error(given.get(name), right[name]) for name in names}
    wrong = [name for name in names if not errors[name] <= tolerances[name]]
    layer = next((layer for layer, those in _LAYERS.items() if set(wrong) & set(those)), None)
    reason = _reason({name: given.get(name) for name in names}, right, problem, tolerances) if wrong else ""
    return GradientComparison(
        {f"grad_{name}": errors[name] for name in names}, tuple(f"grad_{name}" for name in wrong), layer, reason
    )


def _gradients_of_student(student: Mapping[str, ArrayLike]) -> dict[str, Any]:
    """The student's gradients by the course's names without ``grad_``, of any shape; None where one is None."""
    if not isinstance(student, Mapping):
        raise TypeError(f"student must be a mapping of gradients, but got {describe(student)}")
    known = (*_ORDER, "Fs")
    prefix = "grad_" if any(str(name).startswith("grad_") for name in student) else ""
    given: dict[str, Any] = {}
    for key, value in student.items():
        name = str(key).removeprefix(prefix)
        if name not in known or not str(key).startswith(prefix):
            if key in RESULTS or key in known:  # of a whole debug file
                continue
            raise ValueError(
                f"student must hold the gradients {', '.join(prefix + name for name in known)}, but got {describe(key)}"
            )
        if value is not None:
            array = as_array(f"student[{key!r}]", value)
            if array.dtype.kind not in "fiu":
                raise TypeError(f"student[{key!r}] must be an array of numbers, but got {describe(array)}")
            given[name] = array
    if not given:
        raise ValueError(f"student must hold the gradients {', '.join(known)}, but it holds none of them")
    filters = given.pop("Fs", None)
    if filters is not None and "Fs_flat" not in given:
        given["Fs_flat"] = filters.reshape(-1, filters.shape[-1]) if filters.ndim == 4 else filters
    return given


def _tolerance(array: NDArray[Any] | None, tolerance: float | None) -> float:
    if tolerance is not None:
        return tolerance
    return 1e-3 if array is not None and array.dtype.kind == "f" and array.dtype.itemsize < 8 else 1e-6


def _relative_error(theirs: NDArray[Any] | None, right: _Array) -> float:
    """2-norm of the difference over that of the right one; axes of length one do not count."""
    if theirs is None or np.squeeze(theirs).shape != np.squeeze(right).shape or not np.isfinite(theirs).all():
        return math.inf
    difference = np.linalg.norm(theirs.astype(np.float64).ravel() - right.ravel())
    return float(difference / (np.linalg.norm(right) or 1.0))


def _check_problem(
    X: ArrayLike,
    Y: ArrayLike,
    parameters: Mapping[str, ArrayLike],
    l2: float,
    label_smoothing: float,
    image_shape: ImageShape,
) -> _Problem:
    X = check_finite("X", check_array("X", X, (math.prod(image_shape), "n"), FLOATS))
    n = X.shape[1]
    if not n:
        raise ValueError("X must hold at least one image, but got none")
    theirs = parameters_from_course(parameters, channels=image_shape[0])
    n_filters, _, f, _ = theirs["conv.weight"].shape
    n_hidden, n_classes = len(theirs["hidden.bias"]), len(theirs["output.bias"])
    network = Network(f, n_filters, n_hidden, dtype="float64", image_shape=image_shape, n_classes=n_classes)
    check_array("W1", parameters["W1"], network.parameters["hidden.weight"].shape)
    network.set_parameters(theirs)
    l2 = check_real("l2", l2, 0)
    on, off = smoothed(label_smoothing, n_classes)
    array = as_array("Y", Y)
    if array.ndim == 2:
        array = check_array("Y", array, (n_classes, n)).T
    if array.ndim == 2 and not is_one_hot(array):
        check_unsmoothed(label_smoothing, "Y")
        classes: _Array = check_probabilities("Y", array, n, n_classes, np.float64).astype(np.float64)
    else:
        classes = np.eye(n_classes)[check_labels("Y", array, n, n_classes)]
    course = {name: array.astype(np.float64) for name, array in parameters_to_course(theirs).items()}
    return _Problem(
        network=network,
        images=images_from_columns(X, image_shape).astype(np.float64),
        classes=classes,
        targets=classes * on + (1 - classes) * off,
        parameters={"Fs_flat": course["Fs"].reshape(-1, n_filters), **course},
        l2=l2,
        label_smoothing=label_smoothing,
    )


@dataclass(frozen=True)
class _Problem:
    """The checked arguments in double precision: images (n, C, H, W), classes and smoothed targets (n, K)."""

    network: Network
    images: _Array
    classes: _Array
    targets: _Array
    parameters: dict[str, _Array]
    l2: float
    label_smoothing: float

    @property
    def sizes(self) -> _Sizes:
        network = self.network
        n, channels, height, width = self.images.shape
        f, n_filters = int(np.max(network.filter_size)), int(np.max(network.n_filters))
        return _Sizes(n, height // f, width // f, f, channels, n_filters)

    @property
    def operations(self) -> int:
        """Approximate number of multiplications of a pass."""
        n, rows, columns, f, channels, n_filters = self.sizes
        filters = rows * columns * f * f * channels * n_filters
        return 3 * n * (filters + self.parameters["W1"].size + self.parameters["W2"].size)

    def right_gradients(self) -> dict[str, _Array]:
        _, gradients = self.network.loss_and_gradients(self.images, self.targets, self.l2)
        course = gradients_to_course(gradients)
        return {name.removeprefix("grad_"): array.astype(np.float64) for name, array in course.items()}


class _Sizes(NamedTuple):
    n: int
    rows: int
    columns: int
    f: int
    channels: int
    n_filters: int

    @property
    def maps(self) -> tuple[int, int, int]:
        """The axes along which the course flattens the output of the convolution."""
        return self.rows, self.columns, self.n_filters

    @property
    def patch(self) -> tuple[int, int, int]:
        """The axes along which the course flattens a patch."""
        return self.f, self.f, self.channels


@dataclass(frozen=True)
class _Pass:
    """How the gradients of the loss are computed: right, or with mistakes."""

    hidden_mask: bool = True
    conv_mask: bool = True
    smoothing: str = "right"
    transposes: bool = True
    flatten: _Axes = (0, 1, 2)
    unflatten: _Axes | None = None
    patch: _Axes = (0, 1, 2)
    exchanged: bool = False
    without: str = ""

    def gradients(self, problem: _Problem) -> dict[str, _Array]:
        """Gradients of the mean loss alone, in the course's layouts."""
        n, rows, columns, f, channels, n_filters = problem.sizes
        W1, W2 = problem.parameters["W1"], problem.parameters["W2"]
        b = {name: array * (name != self.without) for name, array in problem.parameters.items()}
        images = problem.images.swapaxes(2, 3) if self.exchanged else problem.images
        blocks = images.reshape(n, channels, rows, f, columns, f).transpose(0, 2, 4, 3, 5, 1)
        patches = _flattened(blocks.reshape(n, rows * columns, f, f, channels), self.patch)
        maps = np.maximum(patches @ problem.parameters["Fs_flat"] + b["Fs_b"].ravel(), 0)
        h = _flattened(maps.reshape(n, rows, columns, n_filters), self.flatten)
        x1 = np.maximum(h @ W1.T + b["b1"].ravel(), 0)
        scores = x1 @ W2.T + b["b2"].ravel()
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        G = (exponentials / exponentials.sum(axis=1, keepdims=True) - self._targets(problem)) / n
        G1 = G @ (W2 if self.transposes else W2.T)
        G1 = G1 * (x1 > 0) if self.hidden_mask else G1
        Gh = G1 @ W1 * (h > 0) if self.conv_mask else G1 @ W1
        Gh = _unflattened(Gh, problem.sizes.maps, self.unflatten or self.flatten).reshape(maps.shape)
        return {
            "W2": G.T @ x1,
            "b2": G.sum(axis=0)[:, None],
            "W1": G1.T @ h,
            "b1": G1.sum(axis=0)[:, None],
            "Fs_flat": np.tensordot(patches, Gh, axes=([0, 1], [0, 1])),
            "Fs_b": Gh.sum(axis=(0, 1))[:, None],
        }

    def _targets(self, problem: _Problem) -> _Array:
        eps, classes = problem.label_smoothing, problem.classes
        n_classes: int = classes.shape[1]
        if self.smoothing == "none":
            return classes
        if self.smoothing == "over K":
            return (1 - eps) * classes + eps / n_classes
        if self.smoothing == "added to all":
            return (1 - eps) * classes + eps / (n_classes - 1)
        return problem.targets


def _flattened(array: _Array, axes: _Axes) -> _Array:
    """The last three axes as one, in another order."""
    leading = tuple(range(array.ndim - 3))
    array = array.transpose(*leading, *(len(leading) + axis for axis in axes))
    flat: _Array = array.reshape(*array.shape[:-3], math.prod(array.shape[-3:]))
    return flat


def _unflattened(array: _Array, shape: tuple[int, int, int], axes: _Axes) -> _Array:
    """The inverse of `_flattened`; ``shape`` is that of the three axes."""
    leading = array.shape[:-1]
    array = array.reshape(*leading, *(shape[axis] for axis in axes))
    ordered: _Array = array.transpose(*range(len(leading)), *(len(leading) + axes.index(axis) for axis in range(3)))
    return ordered


_IDENTITY, *_PERMUTATIONS = itertools.permutations(range(3))
_MAPS, _PATCH = ("row", "column", "filter"), ("row", "column", "channel")


def _listed(names: Sequence[str], axes: _Axes) -> str:
    return f"({', '.join(names[axis] for axis in axes)})"


def _mistakes(problem: _Problem) -> Iterator[tuple[dict[str, Any], str]]:
    """The usual mistakes that affect more than one gradient: fields of `_Pass`, and how to say it."""
    yield {"hidden_mask": False}, "going back through the hidden layer, the ReLU's mask X1 > 0 is not applied"
    yield {"conv_mask": False}, "going back through the convolution, the ReLU's mask h > 0 is not applied"
    if problem.label_smoothing:
        yield {"smoothing": "over K"}, "label smoothing gives the other classes ε/K instead of ε/(K−1)"
        yield {"smoothing": "none"}, "the labels are not smoothed"
        yield {"smoothing": "added to all"}, "label smoothing adds ε/(K−1) to the true class as well"
    if problem.parameters["W2"].shape[0] == problem.parameters["W2"].shape[1]:
        yield {"transposes": False}, "going back through the output layer, W2 is used instead of its transpose"
    for axes in _PERMUTATIONS:
        order = f"{_listed(_MAPS, axes)} instead of {_listed(_MAPS, _IDENTITY)}"
        yield {"flatten": axes}, f"the convolution's output is flattened in the order {order}, slowest first"
        yield {"unflatten": axes}, f"W1ᵀ G1 is reshaped in the order {order}, slowest first"
        order = f"{_listed(_PATCH, axes)} instead of {_listed(_PATCH, _IDENTITY)}"
        yield {"patch": axes}, f"patches are flattened in the order {order}, slowest first"
    if problem.images.shape[2] == problem.images.shape[3]:
        yield {"exchanged": True}, "rows and columns of the images are exchanged"
    for name in ("b2", "b1", "Fs_b"):
        if problem.parameters[name].any():
            yield {"without": name}, f"the forward pass leaves out {name}"


def _reason(
    student: Mapping[str, NDArray[Any] | None],
    right: Mapping[str, _Array],
    problem: _Problem,
    tolerances: Mapping[str, float],
) -> str:
    """The fewest mistakes that give exactly the student's gradients, in sentences."""
    mistakes = list(_mistakes(problem))
    fewest, shared, own = len(student) + 1, [], {}
    for count in range(3 if problem.operations <= _OPERATIONS else 2):
        for combination in itertools.combinations(mistakes, count):
            changes = {key: value for change, _ in combination for key, value in change.items()}
            if len(changes) < count:  # two values of one field
                continue
            gradients = replace(_Pass(), **changes).gradients(problem)
            found = {
                name: _explain(name, student[name], gradients[name], problem, tolerances[name]) for name in student
            }
            unexplained = list(found.values()).count(None)
            if unexplained < fewest:
                fewest, shared, own = unexplained, [text for _, text in combination], found
        if not fewest:
            break
        if count == 0 and student["W2"] is not None and own["W2"] is not None:  # the forward pass is right
            mistakes = [each for each in mistakes if not set(each[0]) & set(_FORWARD)]
    by_text: dict[str, list[str]] = {}
    for name, texts in own.items():
        for text in texts or ():
            by_text.setdefault(text, []).append(f"grad_{name}")
    reasons = [
        *shared,
        *(text if len(names) == len(own) else f"{text} ({', '.join(names)})" for text, names in by_text.items()),
    ]
    sentences = [f"Likely reason: {'; '.join(reasons)}."] if reasons else []
    for name in (name for name, texts in own.items() if texts is None):
        sentences.append(f"No usual mistake gives grad_{name}: {_largest_difference(student[name], right[name])}.")
    return " ".join(sentences)


def _explain(
    name: str, theirs: NDArray[Any] | None, data: _Array, problem: _Problem, tolerance: float
) -> list[str] | None:
    """What was done to this gradient alone, given that of the loss; None if that cannot be told."""
    if theirs is None:
        return ["missing"]
    if not np.isfinite(theirs).all():
        return ["numbers that are not finite"]
    theirs = theirs.astype(np.float64)
    for text, array in _rearranged(name, theirs, data.shape, problem.sizes):
        factors = _factors(array, data, problem.parameters[name], name, problem, tolerance)
        if factors is not None:
            return [*([text] if text else []), *factors]
    return None


def _rearranged(name: str, theirs: _Array, shape: tuple[int, ...], sizes: _Sizes) -> Iterator[tuple[str, _Array]]:
    """The student's array in the right shape and order, in every way that is possible."""
    if theirs.shape == (*shape, sizes.n) or (shape[1] == 1 and theirs.shape == (shape[0], sizes.n) and sizes.n > 1):
        yield "not summed over the images", theirs.sum(axis=-1).reshape(shape)
    if np.squeeze(theirs).shape == tuple(length for length in shape if length > 1):
        yield "", theirs.reshape(shape)
    if shape[1] == 1 or theirs.ndim != 2:
        return
    if theirs.T.shape == shape:
        yield "transposed", theirs.T
    if theirs.shape != shape or name == "W2":
        return
    for axes in _PERMUTATIONS:
        if name == "W1":
            array = _unflattened(theirs, sizes.maps, axes).reshape(shape)
            yield f"columns in the order {_listed(_MAPS, axes)} instead of {_listed(_MAPS, _IDENTITY)}", array
        else:
            array = _unflattened(theirs.T, sizes.patch, axes).reshape(shape[::-1]).T
            yield f"rows in the order {_listed(_PATCH, axes)} instead of {_listed(_PATCH, _IDENTITY)}", array


def _factors(
    theirs: _Array, data: _Array, weight: _Array, name: str, problem: _Problem, tolerance: float
) -> list[str] | None:
    """By what the gradient of the loss and that of the penalty were multiplied; empty if rightly, None if by nothing.

    The squared norm of ``theirs - a·data - b·weight`` is computed from the products of these three.
    """
    n, n_classes, n_patches = problem.sizes.n, len(problem.parameters["W2"]), math.prod(problem.sizes.maps[:2])
    is_bias = name.startswith("b") or name.endswith("b")
    l2 = problem.l2
    products = np.array([theirs.ravel(), data.ravel(), weight.ravel()])
    products = products @ products.T

    def gives(a: float, b: float) -> bool:
        error = np.array([1.0, -a, -b])
        return bool(error @ products @ error <= tolerance**2 * max(products[0, 0], np.finfo(np.float64).tiny))

    if gives(1, 0 if is_bias else 2 * l2):
        return []
    if not theirs.any():
        return ["zero everywhere"]
    of_loss = [  # the first that fits counts: n may be 1, λ 0
        (1, ""),
        (n, f"not divided by n = {n}, the number of images"),
        (1 / n, f"divided by n = {n}, the number of images, twice"),
        (-1, "the wrong sign"),
        (-n, f"the wrong sign, and not divided by n = {n}, the number of images"),
        (1 / n_classes, f"divided by K = {n_classes}, the number of classes, as well"),
    ]
    if name.startswith("Fs"):
        of_loss.append((1 / n_patches, f"averaged, not summed, over the {n_patches} patches of an image"))
    if is_bias:
        of_penalty = [(0, ""), (2 * l2, "a penalty, which biases do not have")]
    else:
        of_penalty = [
            (2 * l2, ""),
            (0, "no gradient of the penalty, 2λW"),
            (l2, "λW instead of 2λW as the gradient of the penalty"),
            (2 * l2 / n, f"the gradient of the penalty, 2λW, is divided by n = {n} as well"),
            (-2 * l2, "the gradient of the penalty, 2λW, is subtracted"),
        ]
    for b, second in of_penalty:
        for a, first in of_loss:
            if gives(a, b):
                return [text for text in (first, second) if text]
    if theirs.size < _FEW or not products[1, 1]:
        return None
    for b, second in of_penalty:
        a = (products[0, 1] - b * products[1, 2]) / products[1, 1]
        if gives(a, b):
            return [text for text in (f"{a:.4g} times the right gradient of the loss", second) if text]
    return None


def _largest_difference(theirs: NDArray[Any] | None, right: _Array) -> str:
    assert theirs is not None  # a missing one is explained
    if np.squeeze(theirs).shape != np.squeeze(right).shape:
        return f"it has shape {theirs.shape} instead of {right.shape}"
    theirs = theirs.reshape(right.shape)
    place = np.unravel_index(np.abs(theirs - right).argmax(), right.shape)
    where = ", ".join(str(int(i)) for i in place)
    return f"it differs most at [{where}], {theirs[place]:.6g} instead of {right[place]:.6g}"
