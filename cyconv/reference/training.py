"""The network: forward pass, backward pass and training steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyconv._typing import AnyArray, FloatArray, IntArray, Parameters
from cyconv.augmentation import Augmentation
from cyconv.optimizers import Optimizer, check_optimizer
from cyconv.randomness import DROPOUT, random_bits
from cyconv.reference.batches import gather_images
from cyconv.reference.convolution import im2col
from cyconv.reference.layers import (
    dense_backward,
    dense_forward,
    patch_matmul_backward,
    patch_matmul_forward,
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
    sum_of_squares,
)
from cyconv.reference.updates import apply_update


def _layers(parameters: Mapping[str, FloatArray], kind: str) -> list[str]:
    """Names of the layers of one kind: ["conv"], or ["conv.0", "conv.1", …]."""
    if f"{kind}.weight" in parameters:
        return [kind]
    count = sum(name.startswith(f"{kind}.") and name.endswith(".weight") for name in parameters)
    return [f"{kind}.{i}" for i in range(count)]


def forward(
    parameters: Parameters, X: FloatArray, factors: dict[str, FloatArray] | None = None
) -> dict[str, FloatArray]:
    """Run images through the network.

    Parameters
    ----------
    parameters : dict of str to ndarray
        "conv.weight" (F, C, f, f), "conv.bias" (F,), "hidden.weight", "hidden.bias", "output.weight",
        "output.bias"; see :mod:`cyconv.reference` for several branches or hidden layers.
    X : ndarray (N, C, H, W)
        Normalised images.
    factors : dict of str to ndarray, optional
        Dropout factors of each hidden layer, from :func:`dropout_factors`.

    Returns
    -------
    dict of str to ndarray
        Output of each layer by name: "conv" (N, F, P) and "hidden" (N, O) after the ReLU (and dropout), the
        logits "output" (N, K), and "probabilities" (N, K).

    Examples
    --------
    >>> parameters = {
    ...     "conv.weight": np.ones((2, 1, 2, 2)), "conv.bias": np.zeros(2),
    ...     "hidden.weight": np.ones((3, 8)), "hidden.bias": np.zeros(3),
    ...     "output.weight": np.ones((5, 3)), "output.bias": np.zeros(5),
    ... }
    >>> forward(parameters, np.ones((1, 1, 4, 4)))["probabilities"]
    array([[0.2, 0.2, 0.2, 0.2, 0.2]])
    """
    activations: dict[str, FloatArray] = {}
    for name in _layers(parameters, "conv"):
        weight = parameters[f"{name}.weight"]
        patches = im2col(X, weight.shape[-1])
        rows = weight.reshape(len(weight), -1)
        activations[name] = patch_matmul_forward(patches, rows, parameters[f"{name}.bias"])
    x = _flatten(activations)
    for name in _layers(parameters, "hidden"):
        x = dense_forward(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"])
        if factors is not None:
            x = x * factors[name]
        activations[name] = x
    logits = dense_forward(x, parameters["output.weight"], parameters["output.bias"], relu=False)
    activations["output"] = logits
    activations["probabilities"], _ = softmax_cross_entropy_forward(logits, np.zeros(len(X), dtype=int))
    return activations


def _flatten(activations: dict[str, FloatArray]) -> FloatArray:
    """vec(H): the activations of all branches, each in the order (filter, patch)."""
    return np.concatenate([a.reshape(len(a), -1) for a in activations.values()], axis=1)


def loss_and_gradients(
    parameters: Parameters,
    X: FloatArray,
    labels: IntArray | FloatArray,
    l2: float = 0.0,
    label_smoothing: float = 0.0,
    factors: dict[str, FloatArray] | None = None,
    class_weight: NDArray[np.float64] | None = None,
) -> tuple[float, Parameters]:
    """Cost of a batch and its gradient with respect to every parameter.

    Parameters
    ----------
    parameters, X, factors
        As for :func:`forward`.
    labels : ndarray (N,) of int, or (N, K)
        Class indices, or probabilities.
    l2 : float
        λ; biases are not penalised.
    label_smoothing : float
        ε.
    class_weight : ndarray (K,), optional
        w: an image's loss counts w of its class, or Σ_k t_k w_k of its probabilities t.

    Returns
    -------
    cost : float
        Mean cross-entropy, Σ w_i loss_i / Σ w_i with class weights, + λ·(sum of the squares of all weights).
    gradients : dict of str to ndarray
        Same names and shapes as ``parameters``.

    Examples
    --------
    >>> parameters = {
    ...     "conv.weight": np.zeros((2, 1, 2, 2)), "conv.bias": np.zeros(2),
    ...     "hidden.weight": np.zeros((3, 8)), "hidden.bias": np.zeros(3),
    ...     "output.weight": np.zeros((2, 3)), "output.bias": np.zeros(2),
    ... }
    >>> cost, gradients = loss_and_gradients(parameters, np.ones((4, 1, 4, 4)), np.array([0, 0, 0, 1]))
    >>> round(cost, 6), gradients["output.bias"]
    (0.693147, array([-0.25,  0.25]))
    """
    conv, hidden = _layers(parameters, "conv"), _layers(parameters, "hidden")
    activations = forward(parameters, X, factors)
    _, losses = softmax_cross_entropy_forward(activations["output"], labels, label_smoothing)
    image_weights = None
    if class_weight is not None:
        image_weights = class_weight[labels] if labels.ndim == 1 else labels @ class_weight
        image_weights = image_weights / image_weights.sum()

    gradients: Parameters = {}
    h = _flatten({name: activations[name] for name in conv})
    inputs = [h, *(activations[name] for name in hidden)]
    d = softmax_cross_entropy_backward(activations["probabilities"], labels, label_smoothing, image_weights)
    d, gradients["output.weight"], gradients["output.bias"] = dense_backward(d, inputs[-1], parameters["output.weight"])
    for name, x in reversed(list(zip(hidden, inputs))):
        if factors is not None:
            d = d * factors[name]
        d, gradients[f"{name}.weight"], gradients[f"{name}.bias"] = dense_backward(
            d, x, parameters[f"{name}.weight"], activations[name]
        )
    ends = np.cumsum([activations[name][0].size for name in conv])
    for name, d_h in zip(conv, np.split(d, ends[:-1], axis=1)):
        weight, a = parameters[f"{name}.weight"], activations[name]
        d_weight, d_bias = patch_matmul_backward(d_h.reshape(a.shape), im2col(X, weight.shape[-1]), a)
        gradients[f"{name}.weight"], gradients[f"{name}.bias"] = d_weight.reshape(weight.shape), d_bias

    weights = [name for name in parameters if name.endswith(".weight")]
    for name in weights:
        gradients[name] += 2 * l2 * parameters[name]
    loss = float(losses.mean() if image_weights is None else image_weights @ losses)
    cost = loss + l2 * sum(sum_of_squares(parameters[name]) for name in weights)
    return cost, {name: gradients[name] for name in parameters}


def dropout_factors(parameters: Parameters, n: int, dropout: float, seed: int, step: int) -> dict[str, FloatArray]:
    """Factors by which dropout multiplies the hidden activations of n images at an update step.

    A unit is dropped with probability ``dropout``, and the others are scaled by 1/(1 − dropout), so that the
    expected activation does not change (inverted dropout; Srivastava et al., "Dropout", JMLR 2014).

    Parameters
    ----------
    parameters : dict of str to ndarray
        Parameters of the network, from which the names and widths of the hidden layers are taken.
    n : int
        Number of images in the batch.
    dropout : float
        In [0, 1).
    seed, step : int

    Returns
    -------
    dict of str to ndarray (n, O)
        For each hidden layer, an array of 0 and 1/(1 − dropout).

    Examples
    --------
    >>> factors = dropout_factors({"hidden.weight": np.ones((1000, 8))}, 10, 0.75, seed=0, step=0)
    >>> np.unique(factors["hidden"])
    array([0., 4.])
    """
    factors = {}
    for layer, name in enumerate(_layers(parameters, "hidden")):
        weight = parameters[f"{name}.weight"]
        image = np.arange(n, dtype=np.uint64)[:, None]
        unit = np.arange(len(weight), dtype=np.uint64)
        # Each 64-bit number is used for two neighbouring units.
        bits = random_bits(seed, DROPOUT, step, image, layer, unit // 2) >> (unit % 2 * 32) & 0xFFFFFFFF
        factors[name] = ((bits >= math.floor(dropout * 2**32)) / (1 - dropout)).astype(weight.dtype)
    return factors


def train_steps(
    parameters: Parameters,
    images: AnyArray,
    labels: IntArray | FloatArray,
    order: IntArray,
    learning_rates: Sequence[float] | NDArray[np.float64],
    batch_size: int = 100,
    l2: float = 0.0,
    label_smoothing: float = 0.0,
    momentum: float = 0.0,
    dropout: float = 0.0,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    first_step: int = 0,
    scale: FloatArray | None = None,
    offset: FloatArray | None = None,
    state: dict[str, Any] | None = None,
    centre: FloatArray | None = None,
    optimizer: Optimizer | None = None,
    class_weight: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Make one update of stochastic gradient descent for every learning rate.

    Parameters
    ----------
    parameters : dict of str to ndarray
        Changed in place.
    images : ndarray (n, C, H, W)
        uint8 pixels with ``scale`` and ``offset``, or normalised images without them.
    labels : ndarray (n,) of int, or (n, K)
    order : ndarray of int
        Update i uses the images order[i·batch_size : (i + 1)·batch_size].
    learning_rates : sequence of float
        η of each update.
    batch_size : int
    l2, label_smoothing, momentum, dropout : float
        λ, ε, μ and the probability that a hidden unit is dropped.
    augmentation : Augmentation, optional
    seed, first_step : int
        Update i is step s = first_step + i. Its dropout is a function of (seed, s), and its augmentation of
        (seed, epoch) with epoch = s // (n // batch_size).
    scale, offset, centre : ndarray (C, H, W), optional
        As for :func:`gather_batch`.
    state : dict, optional
        What the optimiser keeps between calls, like :attr:`cyconv.Network.optimizer_state` and changed in place;
        None or an empty one starts from zero.
    optimizer : Optimizer, optional
        :class:`cyconv.SGD` or :class:`cyconv.AdamW`; ``momentum`` is the short way to the first.
    class_weight : ndarray (K,), optional
        As for :func:`loss_and_gradients`.

    Returns
    -------
    ndarray of float64
        Cost of each batch just before its update, with dropout and augmentation.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> parameters = {
    ...     "conv.weight": rng.normal(size=(2, 1, 2, 2)), "conv.bias": np.zeros(2),
    ...     "hidden.weight": rng.normal(size=(3, 8)), "hidden.bias": np.zeros(3),
    ...     "output.weight": rng.normal(size=(2, 3)), "output.bias": np.zeros(2),
    ... }
    >>> images, labels = rng.normal(size=(4, 1, 4, 4)), np.array([0, 1, 0, 1])
    >>> costs = train_steps(parameters, images, labels, np.tile(np.arange(4), 50), [0.05] * 50, batch_size=4)
    >>> bool(costs[-1] < costs[0])
    True
    """
    optimizer = check_optimizer(optimizer, momentum)
    state = {} if state is None else state
    if not state:
        zeros = {key: {name: np.zeros_like(w) for name, w in parameters.items()} for key in optimizer.state_names}
        state.update(optimizer=type(optimizer).__name__, n_updates=0, **zeros)
    costs = np.empty(len(learning_rates))
    for i, learning_rate in enumerate(learning_rates):
        step = first_step + i
        batch = order[i * batch_size : (i + 1) * batch_size]
        epoch = step // (len(images) // batch_size)
        X = gather_images(images, batch, scale, offset, augmentation, seed, epoch, centre)
        factors = dropout_factors(parameters, batch_size, dropout, seed, step) if dropout else None
        costs[i], gradients = loss_and_gradients(
            parameters, X, labels[batch], l2, label_smoothing, factors, class_weight
        )
        for name, gradient in gradients.items():
            states = [state[key][name] for key in optimizer.state_names]
            decays = not name.endswith("bias")
            apply_update(
                optimizer, parameters[name], gradient, states, state["n_updates"], float(learning_rate), decays
            )
        state["n_updates"] += 1
    return costs
