"""The update in JAX: one compiled scan over many updates."""

import jax
import jax.numpy as jnp
import numpy as np

from .case import L2

SCAN = 50


class JaxPeer:
    """Patches in memory, ``jax.grad``, ``lax.scan`` over 50 updates, donated weights (outputs, inputs).

    ``lax.conv`` is slow on CPUs with stride = filter size. The convolution is
    therefore one product with the rows of all patches (``rows``), or one
    product per image with (D, P) matrices.
    """

    VARIANTS = ({"rows": True}, {"rows": False})

    def __init__(self, case, data, rows):
        jax.config.update("jax_enable_x64", case.dtype == "float64")
        self.case, self.rows = case, rows
        self.images = jnp.asarray(data.patches(case, rows))
        self.labels = jnp.asarray(data.labels.astype(np.int32))
        self.set_parameters(case.starting_parameters())
        self._train = jax.jit(self._scan, donate_argnums=0)
        self._evaluate = jax.jit(self._losses)

    def set_parameters(self, mapping):
        c = self.case
        arrays = {name: np.array(array) for name, array in mapping.items()}
        hidden = arrays["hidden.weight"]
        if self.rows:
            hidden = hidden.reshape(-1, c.n_filters, c.n_patches).swapaxes(1, 2).reshape(hidden.shape)
        arrays["hidden.weight"] = hidden
        arrays["conv.weight"] = arrays["conv.weight"].reshape(c.n_filters, -1)
        self.arrays = {name: jnp.array(array) for name, array in arrays.items()}

    def parameters(self):
        c = self.case
        arrays = {name: np.array(array) for name, array in self.arrays.items()}
        hidden = arrays["hidden.weight"]
        if self.rows:
            arrays["hidden.weight"] = hidden.reshape(-1, c.n_patches, c.n_filters).swapaxes(1, 2).reshape(hidden.shape)
        arrays["conv.weight"] = arrays["conv.weight"].reshape(c.n_filters, 3, c.filter_size, c.filter_size)
        return arrays

    def _forward(self, p, x):
        c = self.case
        if self.rows:
            h = x.reshape(-1, c.patch_size) @ p["conv.weight"].T + p["conv.bias"]
        else:
            h = jnp.matmul(p["conv.weight"], x) + p["conv.bias"][:, None]
        h = jax.nn.relu(h).reshape(len(x), -1)
        h = jax.nn.relu(h @ p["hidden.weight"].T + p["hidden.bias"])
        return jax.nn.log_softmax(h @ p["output.weight"].T + p["output.bias"])

    def _scan(self, p, images, labels, order, rates):
        def loss(p, x, target):
            return -jnp.take_along_axis(self._forward(p, x), target[:, None], 1).mean()

        def update(p, batch):
            indices, rate = batch
            x = images.at[indices].get(mode="promise_in_bounds")
            gradients = jax.grad(loss)(p, x, labels[indices])
            return {
                name: (1 - 2 * rate * L2 if name.endswith("weight") else 1) * w - rate * gradients[name]
                for name, w in p.items()
            }, None

        return jax.lax.scan(update, p, (order, rates))[0]

    def train(self, order, learning_rates):
        order = order.reshape(len(learning_rates), self.case.batch_size).astype(np.int32)
        rates = learning_rates.astype(self.case.dtype)
        for start in range(0, len(rates), SCAN):
            part = slice(start, start + SCAN)
            self.arrays = self._train(self.arrays, self.images, self.labels, order[part], rates[part])
        jax.block_until_ready(self.arrays)

    def _losses(self, p, images, labels, block=1000):
        def one(batch):
            x, target = batch
            scores = self._forward(p, x)
            chosen = jnp.take_along_axis(scores, target[:, None], 1)
            return -chosen.sum(), (scores.argmax(1) == target).sum()

        block = min(block, len(labels))
        n = len(labels) // block * block
        parts = images[:n].reshape(-1, block, *images.shape[1:]), labels[:n].reshape(-1, block)
        loss, correct = (values.sum() for values in jax.lax.map(one, parts))
        if n < len(labels):
            rest = one((images[n:], labels[n:]))
            loss, correct = loss + rest[0], correct + rest[1]
        return loss / len(labels), correct / len(labels)

    def evaluate(self):
        loss, accuracy = self._evaluate(self.arrays, self.images, self.labels)
        return float(loss), float(accuracy)
