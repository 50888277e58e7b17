"""The update in plain NumPy, with every buffer allocated once."""

import numpy as np

from .case import L2, N_CLASSES


class NumpyPeer:
    """Patches in memory, products by OpenBLAS, and the learning rate folded into the output gradient.

    With ``rows``, the patches of a batch are the rows of one matrix and the
    convolution is one product. Otherwise it is one small product per image
    with (D, P) matrices, which is faster with few filters and many patches.
    Hidden weights have the layout (inputs, outputs), with the inputs in the
    order of the convolution's output.
    """

    VARIANTS = ({"rows": True}, {"rows": False})

    def __init__(self, case, data, rows):
        self.case, self.rows = case, rows
        self.images = data.patches(case, rows)
        self.labels = data.labels
        self.set_parameters(case.starting_parameters())
        self.buffers = {}

    def set_parameters(self, mapping):
        c = self.case
        hidden = mapping["hidden.weight"]
        if self.rows:
            hidden = hidden.reshape(-1, c.n_filters, c.n_patches).swapaxes(1, 2).reshape(hidden.shape)
        self.filters = mapping["conv.weight"].reshape(c.n_filters, -1).copy()
        self.w1 = np.ascontiguousarray(hidden.T)
        self.w2 = np.ascontiguousarray(mapping["output.weight"].T)
        self.b0, self.b1, self.b2 = (mapping[f"{name}.bias"].copy() for name in ("conv", "hidden", "output"))

    def parameters(self):
        c = self.case
        hidden = self.w1.T
        if self.rows:
            hidden = hidden.reshape(-1, c.n_patches, c.n_filters).swapaxes(1, 2).reshape(hidden.shape)
        return {
            "conv.weight": self.filters.reshape(c.n_filters, 3, c.filter_size, c.filter_size).copy(),
            "conv.bias": self.b0.copy(),
            "hidden.weight": hidden.copy(),
            "hidden.bias": self.b1.copy(),
            "output.weight": self.w2.T.copy(),
            "output.bias": self.b2.copy(),
        }

    def _buffers(self, n):
        if n not in self.buffers:
            c, (n_hidden,) = self.case, self.case.n_hidden
            width = c.n_filters * c.n_patches
            shapes = {
                "x": (n, *self.images.shape[1:]),
                "h": (n, width),
                "dh": (n, width),
                "bias": (width,),
                "z1": (n, n_hidden),
                "dz1": (n, n_hidden),
                "s": (n, N_CLASSES),
                "dw1": (width, n_hidden),
                "dw2": (n_hidden, N_CLASSES),
            }
            if self.rows:
                shapes["df"] = (c.n_filters, c.patch_size)
            else:
                shapes["df"] = (n, c.n_filters, c.patch_size)
            arrays = {name: np.empty(shape, c.dtype) for name, shape in shapes.items()}
            arrays["mask"] = np.empty((n, width), bool)
            arrays["mask1"] = np.empty((n, n_hidden), bool)
            arrays["ones"] = np.ones(n, c.dtype)
            arrays["index"] = np.arange(n)
            self.buffers[n] = arrays
        return self.buffers[n]

    def _forward(self, x, b):
        c, n = self.case, len(x)
        if self.rows:
            np.matmul(x.reshape(-1, c.patch_size), self.filters.T, out=b["h"].reshape(-1, c.n_filters))
            b["bias"].reshape(c.n_patches, c.n_filters)[:] = self.b0
        else:
            np.matmul(self.filters, x, out=b["h"].reshape(n, c.n_filters, c.n_patches))
            b["bias"].reshape(c.n_filters, c.n_patches)[:] = self.b0[:, None]
        b["h"] += b["bias"]
        np.maximum(b["h"], 0, out=b["h"])
        np.matmul(b["h"], self.w1, out=b["z1"])
        b["z1"] += self.b1
        np.maximum(b["z1"], 0, out=b["z1"])
        np.matmul(b["z1"], self.w2, out=b["s"])
        b["s"] += self.b2
        b["s"] -= b["s"].max(axis=1, keepdims=True)

    def _step(self, indices, rate):
        c, n = self.case, len(indices)
        b = self._buffers(n)
        x = b["x"]
        np.take(self.images, indices, axis=0, out=x, mode="clip")
        self._forward(x, b)

        ds = np.exp(b["s"], out=b["s"])
        ds *= (rate / n / ds.sum(axis=1))[:, None]
        ds[b["index"], self.labels[indices]] -= rate / n
        np.matmul(ds, self.w2.T, out=b["dz1"])
        b["dz1"] *= np.greater(b["z1"], 0, out=b["mask1"])
        np.matmul(b["dz1"], self.w1.T, out=b["dh"])
        b["dh"] *= np.greater(b["h"], 0, out=b["mask"])

        decay = 1 - 2 * rate * L2
        self._update(self.w2, np.matmul(b["z1"].T, ds, out=b["dw2"]), decay)
        self._update(self.w1, np.matmul(b["h"].T, b["dz1"], out=b["dw1"]), decay)
        self.b2 -= b["ones"] @ ds
        self.b1 -= b["ones"] @ b["dz1"]
        db0 = b["ones"] @ b["dh"]
        if self.rows:
            dh = b["dh"].reshape(-1, c.n_filters)
            gradient = np.matmul(dh.T, x.reshape(-1, c.patch_size), out=b["df"])
            self.b0 -= db0.reshape(c.n_patches, c.n_filters).sum(axis=0)
        else:
            dh = b["dh"].reshape(n, c.n_filters, c.n_patches)
            partial = np.matmul(dh, x.swapaxes(1, 2), out=b["df"])
            gradient = (b["ones"] @ partial.reshape(n, -1)).reshape(self.filters.shape)
            self.b0 -= db0.reshape(c.n_filters, c.n_patches).sum(axis=1)
        self._update(self.filters, gradient, decay)

    @staticmethod
    def _update(weight, step, decay):
        weight *= decay
        weight -= step

    def train(self, order, learning_rates):
        size = self.case.batch_size
        for i, rate in enumerate(learning_rates.tolist()):
            self._step(order[i * size : (i + 1) * size], rate)

    def evaluate(self, block=500):
        loss = correct = 0
        n_images = len(self.labels)
        for start in range(0, n_images, block):
            labels = self.labels[start : start + block]
            b = self._buffers(len(labels))
            self._forward(self.images[start : start + block], b)
            chosen = b["s"][b["index"], labels]
            correct += int(np.count_nonzero(chosen == 0))
            loss += float(np.sum(np.log(np.exp(b["s"], out=b["s"]).sum(axis=1)) - chosen))
        return loss / n_images, correct / n_images
