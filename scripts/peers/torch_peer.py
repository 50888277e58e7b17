"""The update in PyTorch: as it is usually written, and optimised by hand."""

import numpy as np
import torch
import torch.nn.functional as F

from .case import L2


def _split(case, mapping):
    return {name: torch.from_numpy(np.array(array, case.dtype)) for name, array in mapping.items()}


class AutogradPeer:
    """``conv2d`` with stride = filter size, autograd and ``torch.optim.SGD``.

    With the precision ``medium``, oneDNN computes the matrix products rather
    than MKL; the check before the timing ensures that the error is still that
    of float32. ``channels_last`` selects PyTorch's other memory layout for
    images.
    """

    device = "cpu"
    sgd = {"foreach": True}
    block = 1000  # number of images evaluated at a time
    VARIANTS = tuple(
        {"channels_last": last, "precision": precision} for last in (False, True) for precision in ("highest", "medium")
    )

    def __init__(self, case, data, channels_last, precision):
        self.case, self.precision = case, precision
        layout = torch.channels_last if channels_last else torch.contiguous_format
        images = torch.from_numpy(data.normalized(case.dtype)).contiguous(memory_format=layout)
        self.images, self.labels = images.to(self.device), torch.from_numpy(data.labels).to(self.device)
        self.layout = layout
        self.set_parameters(case.starting_parameters())

    def set_parameters(self, mapping):
        self.tensors = {name: tensor.to(self.device) for name, tensor in _split(self.case, mapping).items()}
        self.tensors["conv.weight"] = self.tensors["conv.weight"].contiguous(memory_format=self.layout)
        for tensor in self.tensors.values():
            tensor.requires_grad_()
        weights = [t for name, t in self.tensors.items() if name.endswith("weight")]
        biases = [t for name, t in self.tensors.items() if name.endswith("bias")]
        self.optimizer = torch.optim.SGD(
            [{"params": weights, "weight_decay": 2 * L2}, {"params": biases}], lr=0.0, **self.sgd
        )

    def parameters(self):
        return {name: t.detach().cpu().contiguous().numpy().copy() for name, t in self.tensors.items()}

    def forward(self, images):
        t = self.tensors
        h = F.conv2d(images, t["conv.weight"], t["conv.bias"], stride=self.case.filter_size)
        h = F.relu_(h).flatten(1)
        h = F.relu_(F.linear(h, t["hidden.weight"], t["hidden.bias"]))
        return F.linear(h, t["output.weight"], t["output.bias"])

    def train(self, order, learning_rates):
        torch.set_float32_matmul_precision(self.precision)
        order = torch.from_numpy(order).to(self.device)
        size = self.case.batch_size
        for i, rate in enumerate(learning_rates.tolist()):
            indices = order[i * size : (i + 1) * size]
            images = self.images.index_select(0, indices)
            loss = F.cross_entropy(self.forward(images), self.labels.index_select(0, indices))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()

    def evaluate(self):
        torch.set_float32_matmul_precision(self.precision)
        return evaluate(self.forward, self.images, self.labels, self.block)


class ManualPeer:
    """Patches in memory, gradients by hand, and ``addmm_`` for gradient and update in one call."""

    VARIANTS = tuple(
        {"rows": rows, "precision": precision} for rows in (True, False) for precision in ("highest", "medium")
    )

    def __init__(self, case, data, rows, precision):
        self.case, self.rows, self.precision = case, rows, precision
        self.images = torch.from_numpy(data.patches(case, rows))
        self.labels = torch.from_numpy(data.labels)
        self.set_parameters(case.starting_parameters())
        self.x = self.images.new_empty(case.batch_size, *self.images.shape[1:])
        self.ones = self.images.new_ones(case.batch_size)

    def set_parameters(self, mapping):
        c, t = self.case, _split(self.case, mapping)
        hidden = t["hidden.weight"]
        if self.rows:
            hidden = hidden.view(-1, c.n_filters, c.n_patches).transpose(1, 2).reshape(hidden.shape)
        self.filters = t["conv.weight"].view(c.n_filters, -1)
        self.w1, self.w2 = hidden.contiguous(), t["output.weight"]
        self.b0, self.b1, self.b2 = t["conv.bias"], t["hidden.bias"], t["output.bias"]

    def parameters(self):
        c, hidden = self.case, self.w1
        if self.rows:
            hidden = hidden.view(-1, c.n_patches, c.n_filters).transpose(1, 2).reshape(hidden.shape)
        named = {
            "conv.weight": self.filters.view(c.n_filters, 3, c.filter_size, c.filter_size),
            "conv.bias": self.b0,
            "hidden.weight": hidden,
            "hidden.bias": self.b1,
            "output.weight": self.w2,
            "output.bias": self.b2,
        }
        return {name: tensor.numpy().copy() for name, tensor in named.items()}

    def _convolve(self, x):
        c = self.case
        if self.rows:
            h = F.linear(x.view(-1, c.patch_size), self.filters, self.b0)
        else:
            h = torch.matmul(self.filters, x).add_(self.b0[:, None])
        return h.relu_().view(len(x), -1)

    def forward(self, x):
        return F.linear(F.linear(self._convolve(x), self.w1, self.b1).relu_(), self.w2, self.b2)

    @torch.inference_mode()
    def train(self, order, learning_rates):
        torch.set_float32_matmul_precision(self.precision)
        c, order = self.case, torch.from_numpy(order)
        size, x = c.batch_size, self.x
        for i, rate in enumerate(learning_rates.tolist()):
            indices = order[i * size : (i + 1) * size]
            torch.index_select(self.images, 0, indices, out=x)
            labels = self.labels.index_select(0, indices)
            h = self._convolve(x)
            z = F.linear(h, self.w1, self.b1).relu_()
            s = F.linear(z, self.w2, self.b2)

            ds = torch.softmax(s, 1)
            ds.scatter_add_(1, labels[:, None], ds.new_full((size, 1), -1.0))
            dz = torch.mm(ds, self.w2)
            dz = torch.ops.aten.threshold_backward(dz, z, 0)
            dh = torch.mm(dz, self.w1)
            dh = torch.ops.aten.threshold_backward(dh, h, 0)

            decay, step = 1 - 2 * rate * L2, -rate / size
            self.w2.addmm_(ds.T, z, beta=decay, alpha=step)
            self.b2.addmv_(ds.T, self.ones, alpha=step)
            self.w1.addmm_(dz.T, h, beta=decay, alpha=step)
            self.b1.addmv_(dz.T, self.ones, alpha=step)
            if self.rows:
                dh = dh.view(-1, c.n_filters)
                self.filters.addmm_(dh.T, x.view(-1, c.patch_size), beta=decay, alpha=step)
                self.b0.add_(dh.sum(0), alpha=step)
            else:
                dh = dh.view(size, c.n_filters, c.n_patches)
                self.filters.mul_(decay).add_(torch.matmul(dh, x.transpose(1, 2)).sum(0), alpha=step)
                self.b0.add_(dh.sum(0).sum(1), alpha=step)

    def evaluate(self):
        torch.set_float32_matmul_precision(self.precision)
        return evaluate(self.forward, self.images, self.labels)


@torch.inference_mode()
def evaluate(forward, images, labels, block=1000):
    """Mean cross-entropy and accuracy over all images, a block at a time."""
    loss = correct = 0
    for x, target in zip(images.split(block), labels.split(block)):
        scores = forward(x)
        loss += F.cross_entropy(scores, target, reduction="sum").item()
        correct += (scores.argmax(1) == target).sum().item()
    return loss / len(labels), correct / len(labels)
