"""PyTorch on a GPU: the same network, launched kernel by kernel or replayed as one CUDA graph."""

import torch
import torch.nn.functional as F

from .torch_peer import AutogradPeer

MAX_UPDATES = 100  # whose order and learning rates are on the GPU at a time

torch.backends.cudnn.allow_tf32 = False  # with it, convolutions round their inputs to ten bits


class EagerGpuPeer(AutogradPeer):
    """`AutogradPeer` with images, labels and parameters on the GPU, and the optimizer's fused update.

    Products are computed in float32: with the GPU's shorter formats, the gradients fail the check.
    """

    device = "cuda"
    sgd = {"fused": True}
    block = 10_000
    VARIANTS = ({"channels_last": False, "precision": "highest"}, {"channels_last": True, "precision": "highest"})

    def train(self, order, learning_rates):
        super().train(order, learning_rates)
        torch.cuda.synchronize()


class GraphGpuPeer(EagerGpuPeer):
    """An update captured once and replayed: the host does nothing but launch the graph.

    The graph reads its images and learning rate on the GPU, at a position that it increments itself.
    """

    graph = None

    def set_parameters(self, mapping):
        if self.graph is None:
            super().set_parameters(mapping)
            self._capture()
        with torch.no_grad():  # the graph refers to these tensors by their addresses
            for name, tensor in self.tensors.items():
                tensor.copy_(torch.as_tensor(mapping[name]))

    def _capture(self):
        self.order = torch.zeros(MAX_UPDATES, self.case.batch_size, dtype=torch.int64, device=self.device)
        self.rates = torch.zeros(MAX_UPDATES, dtype=torch.float32, device=self.device)
        self.rate = torch.zeros((), dtype=torch.float32, device=self.device)
        self.position = torch.zeros(1, dtype=torch.int64, device=self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        torch.set_float32_matmul_precision(self.precision)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._update()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._update()

    def _update(self):
        indices = self.order.index_select(0, self.position).view(-1)
        self.rate.copy_(self.rates.index_select(0, self.position).view(()))
        loss = F.cross_entropy(self.forward(self.images.index_select(0, indices)), self.labels.index_select(0, indices))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.position.add_(1)

    def train(self, order, learning_rates):
        order = torch.from_numpy(order).view(len(learning_rates), -1)
        rates = torch.from_numpy(learning_rates).float()
        for indices, part in zip(order.split(MAX_UPDATES), rates.split(MAX_UPDATES)):
            self.order[: len(part)] = indices.to(self.device)
            self.rates[: len(part)] = part.to(self.device)
            self.position.zero_()
            for _ in range(len(part)):
                self.graph.replay()
        torch.cuda.synchronize()
