"""A program: print the resident memory, in MiB, of the case that the argument names."""

import contextlib
import json
import re
import sys

import numpy as np


def resident(which="VmRSS"):
    """MiB now (VmRSS) or the maximum so far (VmHWM), as Linux reports them."""
    with open("/proc/self/status") as file:
        return int(re.search(rf"{which}:\s+(\d+) kB", file.read())[1]) / 1024


def steps():
    """After a warm-up and after many more update steps, each a call of its own, with other calls in between."""
    import cyconv

    rng = np.random.default_rng(0)
    network = cyconv.Network(filter_size=4, n_filters=2, n_hidden=4, image_shape=(1, 8, 8))
    images, labels = rng.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8), rng.integers(0, 10, 20)
    normalizer = cyconv.Normalizer.fit(images)
    X = normalizer(images)
    source = network.prepare(images, labels, normalizer)
    augmentation = cyconv.Augmentation(flip=True, shift=1, cutout=2)
    found = []
    for step in range(11_000):
        network.train_steps(
            source,
            np.arange(10),
            [0.01],
            batch_size=10,
            l2=0.001,
            momentum=0.9,
            dropout=0.2,
            augmentation=augmentation,
            first_step=step,
        )
        if step % 10 == 0:
            network.evaluate(source)
            network.loss_and_gradients(X, labels)
            network.set_parameters(network.parameters)
            network.forward(X)
            with contextlib.suppress(ValueError):
                network.train_steps(source, [20], [0.01], batch_size=1)
        if step in (999, 10_999):
            found.append(resident())
    return found


def fit():
    """The most that training on 49,000 images adds to interpreter and NumPy, the images included."""
    before = resident()
    import cyconv

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (49_000, 3, 32, 32), dtype=np.uint8)
    train = cyconv.Split(images, rng.integers(0, 10, 49_000))
    validation = cyconv.Split(images[:1000], train.labels[:1000])
    network = cyconv.Network(filter_size=4, n_filters=10, n_hidden=50)
    schedule = cyconv.CyclicSchedule(eta_min=1e-5, eta_max=1e-1, step_size=5, n_cycles=1)
    trainer = cyconv.CyclicTrainer(network, schedule, l2=0.003, momentum=0.9)
    trainer.fit(train, validation, log_every=10, progress=False)
    return resident("VmHWM") - before


if __name__ == "__main__":
    print(json.dumps({"steps": steps, "fit": fit}[sys.argv[1]]()))
