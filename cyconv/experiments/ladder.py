"""The ladder: the updates of one small network, from plain loops to the kernels that training uses.

Every rung trains the network `A2` from the same start on the same batches, so that after any number of updates all have
the same parameters but for rounding. Each differs from the one before by one idea, which its docstring tells. The page
``cyconv/_kernels/LADDER.md`` explains them, and ``scripts/ladder.py`` measures them.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import reference
from .._checks import check_integer, describe
from .._kernels.processor import ENTRY_BLOCK
from .._typing import FloatArray, Parameters
from ..backend.dispatch import kernels, specialised
from ..backend.layout import padded
from ..backend.memory import aligned_zeros
from ..datasets import Normalizer, Split
from ..network import Network

A2: dict[str, Any] = {"filter_size": 4, "n_filters": 10, "n_hidden": 50}
N, L2 = 100, 0.003
D, P, F, H, K = 48, 64, 10, 50, 10  # the letters of cyconv/_kernels
LEARNING_RATE = 1e-4  # so small that half of the units stay at zero, however often a rung is measured
FLOPS = N * (4 * F * D * P + 6 * (F * P * H + H * K))  # of the matrix products of an update


class Rung:
    """A way to train `A2`.

    Parameters
    ----------
    split : Split
        At least a batch of images, uint8 of 32 × 32 pixels, in ten classes.
    dtype : {"float32", "float64"}

    Raises
    ------
    ValueError
        If there are too few images.
    """

    parallel: bool = False  # whether it is meant for all threads, and not for one

    def __init__(self, split: Split, dtype: DTypeLike = "float32") -> None:
        self.network: Network = Network(**A2, seed=0, dtype=dtype)
        self.data = self.network.prepare(split.images, split.labels, Normalizer.fit(split.images))
        n_batches = len(self.data) // N
        if n_batches == 0:
            raise ValueError(f"split must hold at least {N} images, but got {describe(split.images)}")
        order = reference.shuffled_order(len(self.data), seed=0, epoch=0)
        self.batches: NDArray[np.int64] = order[: n_batches * N].reshape(n_batches, N)
        self.n_steps: int = 0
        self._start()

    @property
    def parameters(self) -> Parameters:
        """As `Network.parameters`."""
        return self._unpacked()

    def train(self, n: int) -> None:
        """Take ``n`` updates, each on the next batch."""
        n = check_integer("n", n, 0, 10**6)
        batches = self.batches[(self.n_steps + np.arange(n)) % len(self.batches)]
        self.n_steps += n
        self._update(batches)

    def _start(self) -> None:
        """Make what the updates need."""

    def _unpacked(self) -> Parameters:
        return self.network.parameters

    def _update(self, batches: NDArray[np.int64]) -> None:
        """Update the parameters once for each row of image numbers."""
        raise NotImplementedError


class NumPyReference(Rung):
    """The textbook: im2col, then matrix products by NumPy's BLAS library."""

    def _start(self) -> None:
        self._parameters = {name: array.copy() for name, array in self.network.parameters.items()}

    def _unpacked(self) -> Parameters:
        return self._parameters

    def _update(self, batches: NDArray[np.int64]) -> None:
        data, rates = self.data, np.full(len(batches), LEARNING_RATE)
        assert data.pixels is not None and data.labels is not None
        images, order = (data.pixels, data.labels), batches.ravel()
        scale, offset, centre = data.scale, data.offset, data.centre
        reference.train_steps(self._parameters, *images, order, rates, N, L2, scale=scale, offset=offset, centre=centre)


class PlainLoops(Rung):
    """Layer after layer in loops, every result a sum of products in their order."""

    vector = False

    def _start(self) -> None:
        given = self.network.parameters
        layers = {"conv": (F, D), "hidden": (H, F * P), "output": (K, padded(H))}
        self.weights = {name: (self._zeros(*shape), self._zeros(shape[0])) for name, shape in layers.items()}
        self.gradients = {name: (self._zeros(*shape), self._zeros(shape[0])) for name, shape in layers.items()}
        for name, (weight, bias) in self.weights.items():
            rows = given[f"{name}.weight"].reshape(len(weight), -1)
            weight[:, : rows.shape[1]], bias[:] = rows, given[f"{name}.bias"]
        self.patches, self.maps, self.d_maps = self._zeros(N, D, P), self._zeros(N, F, P), self._zeros(N, F, P)
        self.flat, self.d_flat = self.maps.reshape(N, -1), self.d_maps.reshape(N, -1)
        self.hidden, self.d_hidden = self._zeros(N, padded(H)), self._zeros(N, padded(H))
        self.logits, self.d_logits = self._zeros(N, padded(K)), self._zeros(N, padded(K))
        self.losses = np.empty(N)
        self.rows, self.tables = self._zeros(1, (32 // 4 + 3) * 32), self._zeros(2 * 3 * 32 * 32)

    def _zeros(self, *shape: int) -> FloatArray:
        """A zeroed array that begins on a cache line."""
        return aligned_zeros(math.prod(shape), self.network.dtype, "the ladder").reshape(shape)

    def _kernel(self, name: str) -> Any:
        """A compiled function for this dtype."""
        return specialised(getattr(kernels, name), self.network.dtype)

    def _unpacked(self) -> Parameters:
        found = {}
        for name, array in self.network.parameters.items():
            layer, _, part = name.partition(".")
            weight, bias = self.weights[layer]
            found[name] = bias if part == "bias" else weight[:, : array[0].size].reshape(array.shape)
        return found

    def _update(self, batches: NDArray[np.int64]) -> None:
        assert self.data.labels is not None
        descend = self._kernel("sgd_update")
        for batch in batches:
            self._gather(batch)
            self._forward()
            self._softmax(self.data.labels[batch])
            self._backward()
            for name, (weight, bias) in self.weights.items():
                d_weight, d_bias = self.gradients[name]
                descend(weight.reshape(-1), d_weight.reshape(-1), LEARNING_RATE, L2)
                descend(bias, d_bias, LEARNING_RATE, 0.0)

    def _gather(self, batch: NDArray[np.int64]) -> None:
        """The batch's patches: normalised and cut up (im2col) in one pass, as in training."""
        pixels, values, *normalise = self.data.kernel_arguments()
        unaugmented = (None, 0, 0)
        self._kernel("gather_batch")(
            pixels, values, batch, A2["filter_size"], *normalise, *unaugmented, self.patches, self.rows, self.tables, 1
        )

    def _softmax(self, labels: NDArray[np.int32]) -> None:
        """Logits become probabilities; and the loss's gradient with respect to the logits."""
        targets = (labels, None, 1.0, 0.0)
        self._kernel("softmax_cross_entropy_forward")(self.logits, K, *targets, self.losses)
        self._kernel("softmax_cross_entropy_backward")(self.logits, K, *targets, None, self.d_logits)

    def _forward(self) -> None:
        """From patches to logits."""
        w, conv, dense = self.weights, self._kernel("ladder_conv_forward"), self._kernel("ladder_dense_forward")
        conv(self.vector, self.patches, *w["conv"], self.maps)
        dense(self.vector, self.flat, *w["hidden"], True, self.hidden)
        dense(self.vector, self.hidden, *w["output"], False, self.logits)

    def _backward(self) -> None:
        """From the logits' gradient to those of all parameters."""
        w, g = self.weights, self.gradients
        conv, dense = self._kernel("ladder_conv_backward"), self._kernel("ladder_dense_backward")
        dense(self.vector, self.d_logits, self.hidden, w["output"][0], self.d_hidden, *g["output"])
        dense(self.vector, self.d_hidden, self.flat, w["hidden"][0], self.d_flat, *g["hidden"])
        conv(self.vector, self.d_maps, self.patches, *g["conv"])


class LoopsAlongMemory(PlainLoops):
    """The innermost loop runs along contiguous memory: the compiler makes vectors of it."""

    vector = True


class RegisterTiles(PlainLoops):
    """A tile of results stays in registers: a number that was loaded serves several sums."""

    skips = False

    def _start(self) -> None:
        super()._start()
        self.units, self.d_units, self.classes = self._zeros(N, H), self._zeros(N, H), self._zeros(N, K)
        self.partials = self._zeros(N // ENTRY_BLOCK, F * (D + 1))
        self.scratch = self._zeros(1, kernels.dense_scratch_size(ENTRY_BLOCK))
        self.masked_classes, self.masked_units = self._zeros(N, padded(K)), self._zeros(N, padded(H))
        self.masked_maps = self._zeros(N, F, P)

    def _forward(self) -> None:
        w, conv, dense = self.weights, self._kernel("patch_matmul_forward"), self._kernel("dense_forward_rows")
        conv(self.patches, P, *w["conv"], self.maps, 1)
        dense(self.flat, *w["hidden"], True, self.units, self.scratch, 1)
        self.hidden[:, :H] = self.units
        dense(self.hidden, *w["output"], False, self.classes, self.scratch, 1)
        self.logits[:, :K] = self.classes

    def _backward(self) -> None:
        w, g, how = self.weights, self.gradients, (self.scratch, self.skips, 1)
        conv, dense = self._kernel("patch_matmul_backward"), self._kernel("dense_backward_rows")
        self.classes[:] = self.d_logits[:, :K]
        masked, d_inputs = self.masked_classes, self.d_hidden
        dense(self.classes, self.hidden, w["output"][0], None, masked, d_inputs, *g["output"], *how)
        self.d_units[:] = self.d_hidden[:, :H]
        masked, d_inputs = self.masked_units, self.d_flat
        dense(self.d_units, self.flat, w["hidden"][0], self.units, masked, d_inputs, *g["hidden"], *how)
        conv(self.d_maps, self.patches, self.maps, self.masked_maps, self.partials, 1)
        total = self.partials.sum(axis=0)
        g["conv"][0][:], g["conv"][1][:] = total[: F * D].reshape(F, D), total[F * D :]


class ZerosSkipped(RegisterTiles):
    """On the way back, products with what a ReLU made zero are left out."""

    skips = True


class BlocksInCache(Rung):
    """Ten images go through the whole network and back before the next ten begin."""

    def _start(self) -> None:
        self.gradient = aligned_zeros(self.network._store.size, self.network.dtype, "the gradient")

    def _update(self, batches: NDArray[np.int64]) -> None:
        descend = specialised(kernels.sgd_update, self.network.dtype)
        targets, rate, cost = (self.data.labels, None, 1.0, 0.0), np.ones(1), np.empty(1)
        for batch in batches:
            self.network._train(
                self.data, targets, batch, None, rate, N, {"l2": L2, "optimizer": None}, self.gradient, None, cost
            )
            descend(self.network._store, self.gradient, LEARNING_RATE, 0.0)


class FusedUpdate(Rung):
    """Weights are updated while their gradient is summed, and one call takes many updates."""

    def _update(self, batches: NDArray[np.int64]) -> None:
        self.network.train_steps(self.data, batches.ravel(), np.full(len(batches), LEARNING_RATE), N, L2)


class AllThreads(FusedUpdate):
    """The blocks are shared out among all threads, and then the weights."""

    parallel = True


RUNGS: dict[str, type[Rung]] = {
    "NumPy": NumPyReference,
    "plain loops": PlainLoops,
    "loops along memory": LoopsAlongMemory,
    "register tiles": RegisterTiles,
    "zeros skipped": ZerosSkipped,
    "blocks in cache": BlocksInCache,
    "fused update": FusedUpdate,
    "all threads": AllThreads,
}
