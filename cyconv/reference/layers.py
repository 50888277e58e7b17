"""The layers and their gradients."""

import numpy as np
from numpy.typing import NDArray

from cyconv._typing import FloatArray, IntArray


def patch_matmul_forward(patches: FloatArray, weight: FloatArray, bias: FloatArray) -> FloatArray:
    """Convolution of patches with bias and ReLU: H = max(0, F M_X + b).

    Parameters
    ----------
    patches : ndarray (N, D, P)
    weight : ndarray (F, D)
    bias : ndarray (F,)

    Returns
    -------
    ndarray (N, F, P)

    Examples
    --------
    >>> patch_matmul_forward(np.ones((1, 2, 3)), np.array([[1.0, 1.0], [-1.0, 0.0]]), np.array([0.5, 0.5]))
    array([[[2.5, 2.5, 2.5],
            [0. , 0. , 0. ]]])
    """
    return np.maximum(weight @ patches + bias[:, None], 0)


def patch_matmul_backward(
    d_activations: FloatArray, patches: FloatArray, activations: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Gradients of :func:`patch_matmul_forward`: dF = Σ dA M_Xᵀ and db = Σ dA 1 with dA = dH ⊙ [H > 0].

    Parameters
    ----------
    d_activations : ndarray (N, F, P)
        Gradient with respect to the activations.
    patches : ndarray (N, D, P)
    activations : ndarray (N, F, P)
        Output of the forward pass.

    Returns
    -------
    d_weight : ndarray (F, D)
    d_bias : ndarray (F,)

    Examples
    --------
    >>> activations = np.array([[[0.0, 2.0]]])
    >>> patch_matmul_backward(np.ones((1, 1, 2)), np.ones((1, 3, 2)), activations)
    (array([[1., 1., 1.]]), array([1.]))
    """
    d_sums = d_activations * (activations > 0)
    return np.tensordot(d_sums, patches, axes=([0, 2], [0, 2])), d_sums.sum(axis=(0, 2))


def dense_forward(inputs: FloatArray, weight: FloatArray, bias: FloatArray, relu: bool = True) -> FloatArray:
    """A dense layer, z = W x + b, followed by a ReLU if ``relu`` is True.

    Parameters
    ----------
    inputs : ndarray (N, I)
    weight : ndarray (O, I)
    bias : ndarray (O,)
    relu : bool

    Returns
    -------
    ndarray (N, O)

    Examples
    --------
    >>> dense_forward(np.array([[1.0, 2.0]]), np.array([[1.0, -1.0]]), np.array([0.5]), relu=False)
    array([[-0.5]])
    """
    outputs = inputs @ weight.T + bias
    return np.maximum(outputs, 0) if relu else outputs


def dense_backward(
    d_outputs: FloatArray, inputs: FloatArray, weight: FloatArray, outputs: FloatArray | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gradients of :func:`dense_forward`: dW = Σ dz xᵀ, db = Σ dz, dx = Wᵀ dz.

    Parameters
    ----------
    d_outputs : ndarray (N, O)
        Gradient with respect to the output of the layer.
    inputs : ndarray (N, I)
    weight : ndarray (O, I)
    outputs : ndarray (N, O), optional
        Output of the layer if it ends in a ReLU; then dz = d_outputs ⊙ [outputs > 0].

    Returns
    -------
    d_inputs : ndarray (N, I)
    d_weight : ndarray (O, I)
    d_bias : ndarray (O,)

    Examples
    --------
    >>> dense_backward(np.array([[2.0]]), np.array([[1.0, 3.0]]), np.array([[1.0, -1.0]]))
    (array([[ 2., -2.]]), array([[2., 6.]]), array([2.]))
    """
    d_sums = d_outputs if outputs is None else d_outputs * (outputs > 0)
    return d_sums @ weight, d_sums.T @ inputs, d_sums.sum(axis=0)


def softmax_cross_entropy_forward(
    logits: FloatArray,
    targets: IntArray | FloatArray,
    label_smoothing: float = 0.0,
) -> tuple[FloatArray, NDArray[np.float64]]:
    """Softmax probabilities, and the cross-entropy −Σ_k t_k log p_k of each image.

    Parameters
    ----------
    logits : ndarray (N, K)
    targets : ndarray (N,) of int, or (N, K)
        Class indices, or probabilities.
    label_smoothing : float
        ε: the target is 1 − ε for the true class and ε/(K − 1) for each other class. (PyTorch and Keras
        distribute ε over all classes, so the equivalent value there is ε·K/(K − 1).)

    Returns
    -------
    probabilities : ndarray (N, K)
    losses : ndarray (N,) of float64

    Examples
    --------
    >>> softmax_cross_entropy_forward(np.zeros((1, 4)), np.array([2]))
    (array([[0.25, 0.25, 0.25, 0.25]]), array([1.38629436]))
    """
    # Subtracting the largest logit does not change the probabilities and prevents overflow.
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    losses = -(_smooth(targets, logits.shape[1], label_smoothing) * log_probabilities).sum(axis=1)
    return np.exp(log_probabilities).astype(logits.dtype), losses


def softmax_cross_entropy_backward(
    probabilities: FloatArray,
    targets: IntArray | FloatArray,
    label_smoothing: float = 0.0,
    weights: NDArray[np.float64] | None = None,
) -> FloatArray:
    """Gradient of the mean loss with respect to the logits, (p − t)/N, or of the sum of the weighted losses.

    Parameters
    ----------
    probabilities : ndarray (N, K)
        From :func:`softmax_cross_entropy_forward`.
    targets : ndarray (N,) of int, or (N, K)
    label_smoothing : float
    weights : ndarray (N,), optional
        Of the images' losses, in place of 1/N.

    Returns
    -------
    ndarray (N, K)

    Examples
    --------
    >>> softmax_cross_entropy_backward(np.array([[0.25, 0.75]]), np.array([0]))
    array([[-0.75,  0.75]])
    """
    n, n_classes = probabilities.shape
    d_logits: FloatArray = probabilities - _smooth(targets, n_classes, label_smoothing)
    d_logits = d_logits / n if weights is None else d_logits * weights[:, None]
    return d_logits.astype(probabilities.dtype)


def _smooth(targets: IntArray | FloatArray, n_classes: int, label_smoothing: float) -> NDArray[np.float64]:
    """Target probabilities: (1 − ε) t + ε (1 − t)/(K − 1), float64 (N, K)."""
    if targets.ndim == 1:
        t = np.eye(n_classes)[targets]
    else:  # the gradient relies on sums of 1, which is only approximate in single precision
        t = targets.astype(np.float64)
        t /= t.sum(axis=1, keepdims=True)
    return (1 - label_smoothing) * t + label_smoothing / (n_classes - 1) * (1 - t)


def sum_of_squares(weight: FloatArray) -> float:
    """Sum of squares ‖W‖², accumulated in float64.

    Examples
    --------
    >>> sum_of_squares(np.array([[3.0, 4.0]]))
    25.0
    """
    return float(np.square(weight, dtype=np.float64).sum())
