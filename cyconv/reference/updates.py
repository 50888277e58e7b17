"""The updates of a weight: one function for each rule of :mod:`cyconv.optimizers`."""

from collections.abc import Sequence

import numpy as np

from cyconv._typing import FloatArray
from cyconv.optimizers import SGD, AdamW, Optimizer


def apply_update(
    optimizer: Optimizer,
    weight: FloatArray,
    gradient: FloatArray,
    states: Sequence[FloatArray],
    n_updates: int,
    learning_rate: float,
    decays: bool = True,
) -> None:
    """One step by the rule of an optimiser, in place.

    Parameters
    ----------
    optimizer : Optimizer
    weight : ndarray
        Changed in place.
    gradient : ndarray, of the same shape
        Of the cost: with 2λW where there is a penalty.
    states : sequence of ndarray, of the same shape
        What the optimiser keeps, in the order of its ``state_names``; changed in place.
    n_updates : int
        Steps before this one.
    learning_rate : float
    decays : bool
        Whether it is a weight, and no bias.

    Examples
    --------
    >>> weight, velocity = np.array([1.0]), np.zeros(1)
    >>> apply_update(SGD(momentum=0.9), weight, np.array([2.0]), [velocity], 0, learning_rate=0.1)
    >>> weight, velocity
    (array([0.8]), array([2.]))
    """
    match optimizer:
        case SGD(momentum, nesterov):
            momentum_update(weight, gradient, states[0], learning_rate, momentum, nesterov)
        case AdamW(betas, eps, weight_decay):
            m, v = states
            decay = weight_decay if decays else 0.0
            adamw_update(weight, gradient, m, v, n_updates, learning_rate, betas, eps, decay)


def sgd_update(weight: FloatArray, gradient: FloatArray, learning_rate: float, l2: float = 0.0) -> None:
    """One step of gradient descent on loss + λ‖W‖², in place: W ← (1 − 2ηλ) W − η·gradient.

    Parameters
    ----------
    weight : ndarray
        Changed in place.
    gradient : ndarray, of the same shape
        Of the loss alone.
    learning_rate, l2 : float
        η and λ.

    Examples
    --------
    >>> weight = np.array([1.0, 2.0])
    >>> sgd_update(weight, np.array([0.5, 0.5]), learning_rate=0.1)
    >>> weight
    array([0.95, 1.95])
    """
    weight *= 1 - 2 * learning_rate * l2
    weight -= learning_rate * gradient


def momentum_update(
    weight: FloatArray,
    gradient: FloatArray,
    velocity: FloatArray,
    learning_rate: float,
    momentum: float,
    nesterov: bool = False,
) -> None:
    """One step with momentum, in place: v ← μ v + g, then W ← W − η v, or W ← W − η (g + μ v) with Nesterov's.

    Parameters
    ----------
    weight : ndarray
        Changed in place.
    gradient : ndarray, of the same shape
        g, of the cost: with 2λW where there is a penalty.
    velocity : ndarray, of the same shape
        v, changed in place; zeros before the first step.
    learning_rate, momentum : float
        η and μ.
    nesterov : bool

    Examples
    --------
    >>> weight, velocity = np.array([1.0]), np.array([1.0])
    >>> momentum_update(weight, np.array([0.5]), velocity, learning_rate=0.1, momentum=0.5)
    >>> weight, velocity
    (array([0.9]), array([1.]))
    >>> momentum_update(weight, np.array([0.5]), velocity, learning_rate=0.1, momentum=0.5, nesterov=True)
    >>> weight
    array([0.8])
    """
    velocity *= momentum
    velocity += gradient
    weight -= learning_rate * (gradient + momentum * velocity if nesterov else velocity)


def adamw_update(
    weight: FloatArray,
    gradient: FloatArray,
    exp_avg: FloatArray,
    exp_avg_sq: FloatArray,
    n_updates: int,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> None:
    """One step of AdamW, in place; :class:`cyconv.AdamW` has the formula.

    Parameters
    ----------
    weight : ndarray
        Changed in place.
    gradient : ndarray, of the same shape
        Of the cost.
    exp_avg, exp_avg_sq : ndarray, of the same shape
        The averages m and v, changed in place; zeros before the first step.
    n_updates : int
        Steps before this one.
    learning_rate, eps, weight_decay : float
    betas : pair of float

    Examples
    --------
    >>> weight, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> adamw_update(weight, np.array([-20.0]), m, v, 0, learning_rate=0.1)
    >>> weight                       # a first step is as long as the learning rate
    array([1.1])
    """
    beta1, beta2 = betas
    t = n_updates + 1
    exp_avg *= beta1
    exp_avg += (1 - beta1) * gradient
    exp_avg_sq *= beta2
    exp_avg_sq += (1 - beta2) * gradient**2
    weight *= 1 - learning_rate * weight_decay
    weight -= learning_rate / (1 - beta1**t) * exp_avg / (np.sqrt(exp_avg_sq / (1 - beta2**t)) + eps)
