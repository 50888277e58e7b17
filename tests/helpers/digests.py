"""As a program: the digests of what every architecture computes, on as many threads as the first argument says, which
take each other for near or far as the second does."""

import hashlib
import json
import sys

import numpy as np

import cyconv
from cyconv.backend import dispatch, ops

ARCHITECTURES = {
    "A1": {"filter_size": 2, "n_filters": 3, "n_hidden": 50},
    "A2": {"filter_size": 4, "n_filters": 10, "n_hidden": 50},
    "A3": {"filter_size": 8, "n_filters": 40, "n_hidden": 50},
    "A4": {"filter_size": 16, "n_filters": 160, "n_hidden": 50},
    "A5": {"filter_size": 4, "n_filters": 40, "n_hidden": 300},
    "one patch": {"filter_size": 32, "n_filters": 7, "n_hidden": 11},
    "branches": {"filter_size": (16, 4, 2), "n_filters": (5, 3, 2), "n_hidden": (13, 9)},
    "odd images": {"filter_size": 3, "n_filters": 4, "n_hidden": 6, "image_shape": (2, 9, 21), "n_classes": 3},
}
BATCH_SIZES = (1, 7, 10, 33, 100, 101)
N_IMAGES = 128
EXTRAS = {
    "l2": 0.003,
    "label_smoothing": 0.1,
    "momentum": 0.9,
    "dropout": 0.25,
    "seed": 5,
    "augmentation": cyconv.Augmentation(flip=True, shift=2, cutout=5),
}


def digest(*values):
    """SHA-256 of arrays, numbers and dicts of arrays."""
    bits = hashlib.sha256()
    for value in values:
        for array in value.values() if isinstance(value, dict) else [value]:
            bits.update(np.ascontiguousarray(array).tobytes())
    return bits.hexdigest()


def of_network(settings, dtype):
    """Training in every batch size, plain and with everything on; then evaluation, predictions and gradients."""
    network = cyconv.Network(**settings, dtype=dtype)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (N_IMAGES, *network.image_shape), dtype=np.uint8)
    labels = rng.integers(0, network.n_classes, N_IMAGES)
    normalizer = cyconv.Normalizer.fit(images)
    source = network.prepare(images, labels, normalizer)
    X = normalizer(images)
    digests = {}
    for batch_size in BATCH_SIZES:
        order = rng.integers(0, N_IMAGES, 2 * batch_size)
        for name, extras in (("plain", {}), ("extras", EXTRAS)):
            costs = network.train_steps(source, order, [0.01, 0.02], batch_size=batch_size, **extras)
            digests[f"{name} batch of {batch_size}"] = digest(costs, network.parameters, network.velocity or {})
        cost, gradients = network.loss_and_gradients(X[:batch_size], labels[:batch_size], l2=0.01)
        digests[f"gradients of {batch_size}"] = digest(cost, gradients)
        part = network.prepare(images[:batch_size], labels[:batch_size], normalizer)
        digests[f"evaluation of {batch_size}"] = digest(network.predict_proba(part), network.evaluate(part, l2=0.01))
    return digests


def of_functions(dtype):
    """The functions of cyconv.backend.ops that run on several threads."""
    rng = np.random.default_rng(2)
    patches, weight = rng.standard_normal((101, 12, 64)).astype(dtype), rng.standard_normal((7, 12)).astype(dtype)
    bias, inputs = np.ones(7, dtype), rng.standard_normal((101, 33)).astype(dtype)
    activations = ops.patch_matmul_forward(patches, weight, bias)
    dense = rng.standard_normal((7, 33)).astype(dtype)
    outputs = ops.dense_forward(inputs, dense, bias)
    return {
        "col2im": digest(ops.col2im(patches, (3, 16, 16), 2)),
        "patch_matmul": digest(activations, *ops.patch_matmul_backward(activations, patches, activations)),
        "dense": digest(outputs, *ops.dense_backward(outputs, inputs, dense, outputs)),
    }


def main():
    cyconv.set_num_threads(int(sys.argv[1]))
    dispatch.threads_are_far = lambda n_threads: sys.argv[2] == "far"
    found = {"build": dispatch.instruction_set}
    for dtype in ("float32", "float64"):
        for name, settings in ARCHITECTURES.items():
            found |= {f"{name}, {dtype}, {what}": bits for what, bits in of_network(settings, dtype).items()}
        found |= {f"{what}, {dtype}": bits for what, bits in of_functions(dtype).items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
