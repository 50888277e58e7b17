"""PyTorch on a GPU, with its whole host: the same network, launched kernel by kernel or replayed as one CUDA graph."""

import torch
import torch.nn.functional as F

from .torch_peer import AutogradPeer

LONGEST = 100  # updates that one order on the GPU holds

torch.backends.cudnn.allow_tf32 = False  # by default convolutions round their factors to ten bits


class EagerGpuPeer(AutogradPeer):
    """`AutogradPeer` with images, labels and parameters on the GPU, and the optimizer's fused update.

    float32 products stay float32: in the GPU's shorter formats the gradients fail the check.
    """

    device = "cuda"
    sgd = {"fused": True}
    block = 10_000
    VARIANTS = ({"channels_last": False, "precision": "highest"}, {"channels_last": True, "precision": "highest"})

    def train(self, order, learning_rates):
        super().train(order, learning_rates)
        torch.cuda.synchronize()


class GraphGpuPeer(EagerGpuPeer):
    """An update captured once and replayed: nothing but the launch of the graph is left to the host.

    The graph finds its images and its learning rate on the GPU, by a counter that it moves on itself.
    """

    graph = None

    def set_parameters(self, mapping):
        if self.graph is None:
            super().set_parameters(mapping)
            self._capture()
        with torch.no_grad():  # the graph knows these tensors by their place
            for name, tensor in self.tensors.items():
                tensor.copy_(torch.as_tensor(mapping[name]))

    def _capture(self):
        self.order = torch.zeros(LONGEST, self.case.batch_size, dtype=torch.int64, device=self.device)
        self.rates = torch.zeros(LONGEST, dtype=torch.float32, device=self.device)
        self.rate = torch.zeros((), dtype=torch.float32, device=self.device)
        self.place = torch.zeros(1, dtype=torch.int64, device=self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        torch.set_float32_matmul_precision(self.precision)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._update()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._update()

    def _update(self):
        indices = self.order.index_select(0, self.place).view(-1)
        self.rate.copy_(self.rates.index_select(0, self.place).view(()))
        loss = F.cross_entropy(self.forward(self.images.index_select(0, indices)), self.labels.index_select(0, indices))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.place.add_(1)

    def train(self, order, learning_rates):
        order = torch.from_numpy(order).view(len(learning_rates), -1)
        rates = torch.from_numpy(learning_rates).float()
        for indices, part in zip(order.split(LONGEST), rates.split(LONGEST)):
            self.order[: len(part)] = indices.to(self.device)
            self.rates[: len(part)] = part.to(self.device)
            self.place.zero_()
            for _ in range(len(part)):
                self.graph.replay()
        torch.cuda.synchronize()
