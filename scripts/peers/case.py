"""What a benchmark trains: a network, a data set and initial parameters; and the check of a peer."""

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
        """int: number of patches of a 32 x 32 image."""
        return (32 // self.filter_size) ** 2

    @property
    def patch_size(self):
        """int: number of values of a patch, 3 * filter_size**2."""
        return 3 * self.filter_size**2

    @property
    def n_parameters(self):
        """int: number of weights and biases."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def step_flops(self):
        """int: number of floating-point operations of the matrix products of an update.

        Each multiply-add counts as two. The products are the forward pass, the
        gradients of the weights and, except for the convolution, the gradients
        of the inputs.
        """
        widths = [self.n_filters * self.n_patches, *self.n_hidden, N_CLASSES]
        dense = sum(a * b for a, b in pairwise(widths))
        convolution = self.n_patches * self.patch_size * self.n_filters
        return self.batch_size * (4 * convolution + 6 * dense)

    @property
    def image_flops(self):
        """int: number of floating-point operations of the forward pass of one image."""
        widths = [self.n_filters * self.n_patches, *self.n_hidden, N_CLASSES]
        return 2 * (self.n_patches * self.patch_size * self.n_filters + sum(a * b for a, b in pairwise(widths)))

    def shapes(self):
        """Shapes of the parameters by their names in ``cyconv.Network``."""
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
        generator, parameters = np.random.default_rng(seed), {}
        for name, shape in self.shapes().items():
            array = np.zeros(shape)
            if len(shape) > 1:
                array = generator.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
            parameters[name] = array.astype(self.dtype)
        return parameters


@dataclass(frozen=True)
class Data:
    """uint8 images (n, 3, 32, 32), labels (n,), and the normaliser of the images."""

    images: np.ndarray
    labels: np.ndarray
    normalizer: object

    @classmethod
    def random(cls, n_images, seed=0):
        """Images of independent random pixels; the time of an update does not depend on the images."""
        import cyconv

        generator = np.random.default_rng(seed)
        images = generator.integers(0, 256, (n_images, 3, 32, 32), dtype=np.uint8)
        labels = generator.integers(0, N_CLASSES, n_images)
        return cls(images, labels, cyconv.Normalizer.fit(images))

    @classmethod
    def from_split(cls, split, n_images=None):
        """The first images of a split, by default all of them, with their own normaliser."""
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
        """Normalised images cut into patches: (n, P, D) with ``rows``, which makes each patch a row, else (n, D, P)."""
        f, across = case.filter_size, 32 // case.filter_size
        cut = self.normalized(case.dtype).reshape(-1, 3, across, f, across, f)
        order = (0, 2, 4, 1, 3, 5) if rows else (0, 1, 3, 5, 2, 4)
        shape = (case.n_patches, case.patch_size)
        return np.ascontiguousarray(cut.transpose(order)).reshape(-1, *(shape if rows else shape[::-1]))


def check_peer(peer_class, case, variant):
    """Train a peer for a few updates and compare it with ``cyconv.reference`` in float64.

    Returns
    -------
    float
        The largest relative error (2-norm) of the change of a parameter array
        or of the loss.
    """
    data, order, rates, start, expected, expected_loss = _reference_updates(case)
    peer = peer_class(case, data, **variant)
    peer.set_parameters(start)
    peer.train(order, rates)
    loss, _ = peer.evaluate()
    found = peer.parameters()
    errors = [abs(loss - expected_loss) / expected_loss]
    for name, array in expected.items():
        change = np.linalg.norm(array - start[name])
        errors.append(np.linalg.norm(found[name] - array) / change)
    return float(max(errors))


@functools.lru_cache(maxsize=1)
def _reference_updates(case, n_updates=4):
    """The inputs of a check, and the parameters and loss that the reference computes from them."""
    from cyconv import reference

    data = Data.random(max(500, n_updates * case.batch_size), seed=7)
    order = np.random.default_rng(8).permutation(len(data.labels))[: n_updates * case.batch_size]
    rates = np.linspace(0.02, 0.05, n_updates)
    start = case.starting_parameters(seed=9)
    expected = {name: array.astype(np.float64) for name, array in start.items()}
    X = data.normalized(np.float64)
    for i, rate in enumerate(rates):
        batch = order[i * case.batch_size : (i + 1) * case.batch_size]
        _, gradients = reference.loss_and_gradients(expected, X[batch], data.labels[batch], L2)
        for name, gradient in gradients.items():
            expected[name] = expected[name] - rate * gradient
    expected_loss, _ = reference.loss_and_gradients(expected, X, data.labels, 0.0)
    return data, order, rates, start, expected, expected_loss
