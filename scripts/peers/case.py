"""What is trained in a benchmark: a network, a data set, starting parameters, and the check of a peer."""

import functools
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

L2 = 0.003
N_CLASSES = 10
ARCHITECTURES = {
    "A1": (2, 3, (50,)),
    "A2": (4, 10, (50,)),
    "A3": (8, 40, (50,)),
    "A4": (16, 160, (50,)),
    "A2W": (4, 40, (50,)),
    "A5": (4, 40, (300,)),
}


@dataclass(frozen=True)
class Case:
    """One network at one batch size and one precision.

    Attributes
    ----------
    filter_size, n_filters : int
    n_hidden : tuple of int
        One entry for each hidden layer.
    batch_size : int
    dtype : {"float32", "float64"}
    """

    filter_size: int
    n_filters: int
    n_hidden: tuple
    batch_size: int = 100
    dtype: str = "float32"

    @property
    def n_patches(self):
        """Patches of one 32 x 32 image."""
        return (32 // self.filter_size) ** 2

    @property
    def patch_size(self):
        """Values of one patch: 3 * filter_size**2."""
        return 3 * self.filter_size**2

    @property
    def n_parameters(self):
        """Weights and biases together."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def step_flops(self):
        """Floating-point operations of the matrix products of one update.

        Two for each multiply-add: forward, gradient of the weights and, but
        for the convolution (whose input is the image), gradient of the input.
        """
        widths = [self.n_filters * self.n_patches, *self.n_hidden, N_CLASSES]
        dense = sum(a * b for a, b in pairwise(widths))
        convolution = self.n_patches * self.patch_size * self.n_filters
        return self.batch_size * (4 * convolution + 6 * dense)

    @property
    def image_flops(self):
        """Floating-point operations of one image's forward pass."""
        widths = [self.n_filters * self.n_patches, *self.n_hidden, N_CLASSES]
        return 2 * (self.n_patches * self.patch_size * self.n_filters + sum(a * b for a, b in pairwise(widths)))

    def shapes(self):
        """Parameter names and shapes, as ``cyconv.Network`` names them."""
        shapes = {
            "conv.weight": (self.n_filters, 3, self.filter_size, self.filter_size),
            "conv.bias": (self.n_filters,),
        }
        width = self.n_filters * self.n_patches
        for layer, n_hidden in enumerate(self.n_hidden):
            name = "hidden" if len(self.n_hidden) == 1 else f"hidden.{layer}"
            shapes |= {f"{name}.weight": (n_hidden, width), f"{name}.bias": (n_hidden,)}
            width = n_hidden
        return shapes | {"output.weight": (N_CLASSES, width), "output.bias": (N_CLASSES,)}

    def starting_parameters(self, seed=0):
        """Normal weights of variance 2 / fan_in and zero biases, in the case's dtype."""
        generator = np.random.default_rng(seed)
        return {
            name: (
                generator.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
                if len(shape) > 1
                else np.zeros(shape)
            ).astype(self.dtype)
            for name, shape in self.shapes().items()
        }


@dataclass(frozen=True)
class Data:
    """Random uint8 images (n, 3, 32, 32), labels (n,), and what normalises the images."""

    images: np.ndarray
    labels: np.ndarray
    normalizer: object

    @classmethod
    def random(cls, n_images, seed=0):
        """Images of independent random pixels: the time of a step does not depend on what they show."""
        import cyconv

        generator = np.random.default_rng(seed)
        images = generator.integers(0, 256, (n_images, 3, 32, 32), dtype=np.uint8)
        labels = generator.integers(0, N_CLASSES, n_images)
        return cls(images, labels, cyconv.Normalizer.fit(images))

    @classmethod
    def of(cls, split, n_images=None):
        """The first images of a split, all unless ``n_images`` is given, normalised by themselves."""
        import cyconv

        images = split.images[:n_images]
        return cls(images, split.labels[:n_images].astype(np.int64), cyconv.Normalizer.fit(images))

    def normalized(self, dtype):
        """The images with mean 0 and standard deviation 1 in every pixel, (n, 3, 32, 32)."""
        scale = np.asarray(self.normalizer.scale, dtype)
        offset = np.asarray(self.normalizer.offset, dtype)
        pixels = self.images * scale
        pixels += offset
        return pixels

    def patches(self, case, rows):
        """Normalised images cut into patches, resident in memory.

        (n, P, D) when ``rows`` (one patch after the other), else (n, D, P).
        """
        f, across = case.filter_size, 32 // case.filter_size
        cut = self.normalized(case.dtype).reshape(-1, 3, across, f, across, f)
        order = (0, 2, 4, 1, 3, 5) if rows else (0, 1, 3, 5, 2, 4)
        shape = (case.n_patches, case.patch_size)
        return np.ascontiguousarray(cut.transpose(order)).reshape(-1, *(shape if rows else shape[::-1]))


def check_peer(peer_class, case, variant):
    """Train a peer for some updates and compare it with ``cyconv.reference`` in float64.

    Returns
    -------
    float
        The largest relative error (2-norm) of any parameter array's change,
        or of the evaluated loss.
    """
    data, order, rates, start, truth, truth_loss = _checked_updates(case)
    peer = peer_class(case, data, **variant)
    peer.set_parameters(start)
    peer.train(order, rates)
    loss, _ = peer.evaluate()
    found = peer.parameters()
    errors = [abs(loss - truth_loss) / truth_loss]
    for name, array in truth.items():
        change = np.linalg.norm(array - start[name])
        errors.append(np.linalg.norm(found[name] - array) / change)
    return float(max(errors))


@functools.lru_cache(maxsize=1)
def _checked_updates(case, n_updates=4):
    """What a check starts from, and what the reference makes of it."""
    from cyconv import reference

    data = Data.random(max(500, n_updates * case.batch_size), seed=7)
    order = np.random.default_rng(8).permutation(len(data.labels))[: n_updates * case.batch_size]
    rates = np.linspace(0.02, 0.05, n_updates)
    start = case.starting_parameters(seed=9)
    truth = {name: array.astype(np.float64) for name, array in start.items()}
    X = data.normalized(np.float64)
    for i, rate in enumerate(rates):
        batch = order[i * case.batch_size : (i + 1) * case.batch_size]
        _, gradients = reference.loss_and_gradients(truth, X[batch], data.labels[batch], L2)
        for name, gradient in gradients.items():
            truth[name] = truth[name] - rate * gradient
    truth_loss, _ = reference.loss_and_gradients(truth, X, data.labels, 0.0)
    return data, order, rates, start, truth, truth_loss
