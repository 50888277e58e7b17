"""Random arguments for every function of cyconv.backend.ops."""

from types import SimpleNamespace

import numpy as np

from cyconv import Augmentation

NAMES = [
    "im2col",
    "col2im",
    "gather_batch",
    "patch_matmul_forward",
    "patch_matmul_backward",
    "dense_forward",
    "dense_backward",
    "softmax_cross_entropy_forward",
    "softmax_cross_entropy_backward",
    "sum_of_squares",
    "sgd_update",
    "shuffled_order",
    "whiten",
]
SIZES = [1, 2, 3, 4, 5, 7, 8, 10, 13, 15, 16, 17, 31, 32, 33, 50, 64, 100]


def draw_shapes(rng):
    """Sizes of one problem: mostly odd ones, sometimes those of the networks."""
    f = int(rng.choice([1, 2, 3, 4, 5, 8, 16]))
    height, width = f * int(rng.integers(1, 33 // f + 1)), f * int(rng.integers(1, 33 // f + 1))
    sizes = SimpleNamespace(f=f, image_shape=(int(rng.integers(1, 4)), height, width))
    sizes.N, sizes.F, sizes.O, sizes.I, sizes.K = (int(n) for n in rng.choice(SIZES, 5))
    sizes.N, sizes.K = min(sizes.N, 23), max(sizes.K, 2)
    sizes.D, sizes.P = sizes.image_shape[0] * f * f, (height // f) * (width // f)
    return sizes


def draw_arguments(name, rng, dtype):
    """Arguments for the function of that name, in the order of its signature."""
    s = draw_shapes(rng)

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    def targets():
        """Class labels and a label smoothing, or probabilities, which allow none."""
        if rng.random() < 0.5:
            return rng.integers(0, s.K, s.N), float(rng.choice([0.0, 0.1, 0.5]))
        return rng.dirichlet(np.ones(s.K), s.N).astype(dtype), 0.0

    match name:
        case "im2col":
            return normal(s.N, *s.image_shape), s.f
        case "col2im":
            return normal(s.N, s.D, s.P), s.image_shape, s.f
        case "gather_batch":
            images = rng.integers(0, 256, (s.N + 5, *s.image_shape), dtype=np.uint8)
            scale, offset = (0.02 * normal(*s.image_shape), normal(*s.image_shape))
            centre = rng.integers(0, 256, s.image_shape).astype(dtype) if rng.random() < 0.3 else None
            augmentation = Augmentation(bool(rng.integers(2)), *map(int, rng.integers(0, 6, 2)))
            augmentation = augmentation if rng.random() < 0.7 else None
            order = rng.integers(0, s.N + 5, s.N)
            seed, epoch = int(rng.integers(2**40)), int(rng.integers(100))
            return images, order, s.f, scale, offset, augmentation, seed, epoch, centre
        case "patch_matmul_forward":
            return normal(s.N, s.D, s.P), normal(s.F, s.D), normal(s.F)
        case "patch_matmul_backward":
            return normal(s.N, s.F, s.P), normal(s.N, s.D, s.P), np.maximum(normal(s.N, s.F, s.P), 0)
        case "dense_forward":
            return normal(s.N, s.I), normal(s.O, s.I), normal(s.O), bool(rng.integers(2))
        case "dense_backward":
            outputs = np.maximum(normal(s.N, s.O), 0) if rng.random() < 0.5 else None
            return normal(s.N, s.O), normal(s.N, s.I), normal(s.O, s.I), outputs
        case "softmax_cross_entropy_forward":
            return 3 * normal(s.N, s.K), *targets()
        case "softmax_cross_entropy_backward":
            weights = rng.dirichlet(np.ones(s.N)) if rng.random() < 0.3 else None
            return rng.dirichlet(np.ones(s.K), s.N).astype(dtype), *targets(), weights
        case "sum_of_squares":
            return (normal(s.O, s.I),)
        case "whiten":
            images = rng.integers(0, 256, (s.N, *s.image_shape), dtype=np.uint8)
            channels, side = s.image_shape[0], 2 * int(rng.integers(0, 4)) + 1
            # Multiples of 1/64, so that sums are exact.
            filters = rng.integers(-20, 20, (channels, channels, side, side)).astype(np.float32) / 64
            return images, filters, rng.integers(0, 256, channels).astype(np.float32)
        case "sgd_update":
            return normal(s.O, s.I), normal(s.O, s.I), 0.1, 0.01
        case "shuffled_order":
            return int(rng.integers(0, 500)), int(rng.integers(2**63)), int(rng.integers(1000))
