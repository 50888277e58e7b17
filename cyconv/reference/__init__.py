"""The whole network in plain NumPy, as a readable reference.

Every function of :mod:`cyconv.backend.ops` has a counterpart here with the
same name and signature, and :func:`forward`, :func:`loss_and_gradients` and
:func:`train_steps` define what :class:`cyconv.Network` computes; the tests
compare the two. These modules are written to be read: they do not check their
arguments, and they compute in the dtype they are given.

The mathematics (DD2424, assignment 3)
--------------------------------------
An image :math:`X` of C channels is cut into :math:`n_p = (H/f)(W/f)`
non-overlapping patches: the stride of the filters is their width f. With one
patch per column of :math:`M_X`  (D × n_p, D = C·f²)  and one filter per row of
:math:`F`  (n_f × D),

    convolution   A   = F M_X + b_c         H  = max(0, A)         h = vec(H)
    hidden layer  z₁  = W₁ h + b₁           x₁ = max(0, z₁)
    output        s   = W₂ x₁ + b₂          p  = softmax(s)

and for a batch of N images with target probabilities t, smoothed by ε,

    loss = mean over the batch of  −Σ_k t_k log p_k
    cost = loss + λ (‖F‖² + ‖W₁‖² + ‖W₂‖²)          biases are not penalised

Backpropagation takes the same lines in reverse order (⊙ is the elementwise
product, sums are over the batch, and dX stands for ∂cost/∂X):

    ds  = (p − t) / N
    dW₂ = Σ ds x₁ᵀ + 2λ W₂      db₂ = Σ ds      dz₁ = W₂ᵀ ds ⊙ [x₁ > 0]
    dW₁ = Σ dz₁ hᵀ + 2λ W₁      db₁ = Σ dz₁     dA  = vec⁻¹(W₁ᵀ dz₁) ⊙ [H > 0]
    dF  = Σ dA M_Xᵀ + 2λ F      db_c = Σ dA 1

Label smoothing sets the target of the true class to 1 − ε and that of each of
the K − 1 others to ε/(K − 1). One update of stochastic gradient descent is
W ← W − η dW, and with momentum v ← μ v + dW, W ← W − η v;
:mod:`cyconv.optimizers` documents the other update rules.

Shapes
------
N images, C channels, f filter size, D = C·f² values per patch in the order
(channel, row, column), P = n_p patches per image in the order (row, column),
F filters, I inputs and O outputs of a dense layer, K classes. The arrays have
PyTorch's layouts: activations of the convolution are (N, F, P), so flattening
them gives the order of ``torch.flatten``.

Larger networks have more parameters: parallel filters of several sizes are
named "conv.0.weight", "conv.1.weight", … (their flattened activations are
concatenated in this order), and successive hidden layers "hidden.0.weight",
"hidden.1.weight", …; a single one is "conv.weight" or "hidden.weight".
"""

from cyconv.reference.batches import gather_batch, shuffled_order, whiten
from cyconv.reference.convolution import (
    col2im,
    convolve_einsum,
    convolve_loops,
    convolve_matmul,
    im2col,
)
from cyconv.reference.layers import (
    dense_backward,
    dense_forward,
    patch_matmul_backward,
    patch_matmul_forward,
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
    sum_of_squares,
)
from cyconv.reference.training import dropout_factors, forward, loss_and_gradients, train_steps
from cyconv.reference.updates import adamw_update, apply_update, momentum_update, sgd_update

__all__ = [
    "adamw_update",
    "apply_update",
    "col2im",
    "convolve_einsum",
    "convolve_loops",
    "convolve_matmul",
    "dense_backward",
    "dense_forward",
    "dropout_factors",
    "forward",
    "gather_batch",
    "im2col",
    "loss_and_gradients",
    "momentum_update",
    "patch_matmul_backward",
    "patch_matmul_forward",
    "sgd_update",
    "shuffled_order",
    "softmax_cross_entropy_backward",
    "softmax_cross_entropy_forward",
    "sum_of_squares",
    "train_steps",
    "whiten",
]
