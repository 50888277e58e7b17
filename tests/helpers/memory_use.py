"""A program: print the resident memory, in MiB, of the case that the argument names."""

import contextlib
import json
import re
import sys
import threading
from pathlib import Path

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


def mapped(dtype, folder):
    """MiB of images in a file, and the most that work on them adds outside the file's pages, with a limit of 150."""
    import resource

    import cyconv

    folder = Path(folder)
    n = 600 * 2**20 // (3072 * np.dtype(dtype).itemsize)
    rng = np.random.default_rng(0)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", dtype, (n, 3, 32, 32))
    for start in range(0, n, 10_000):
        part = images[start : start + 10_000]
        part[:] = rng.integers(0, 256, part.shape, np.uint8) if dtype == "uint8" else rng.standard_normal(part.shape)
    del images, part
    np.save(folder / "labels.npy", np.arange(n) % 10)

    network = cyconv.Network(filter_size=4, n_filters=10, n_hidden=50)
    schedule = cyconv.CyclicSchedule(eta_min=1e-5, eta_max=1e-1, step_size=20, n_cycles=1)
    augmentation = cyconv.Augmentation(flip=True, shift=2)
    trainer = cyconv.CyclicTrainer(network, schedule, momentum=0.9, augmentation=augmentation, snapshots=True)
    before = resident("VmData")
    resource.setrlimit(resource.RLIMIT_DATA, 2 * [int((before + 150) * 2**20)])  # a copy is a MemoryError
    peak = resident("RssAnon")
    with sampled("RssAnon") as samples:
        if dtype == "uint8":
            data = cyconv.load_npy(folder)
            train, validation = data.train, data.validation
        else:
            images, labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels"))
            train, validation = cyconv.Split(images, labels), cyconv.Split(images[:1000], labels[:1000])
        trainer.fit(train, validation, log_every=20, checkpoint=folder / "checkpoint.npz", progress=False)
        network.evaluate(train)
        cyconv.CyclicTrainer.resume(folder / "checkpoint.npz").fit(train, validation, progress=False)
        cyconv.lr_range_test(network, train, n_steps=20)
        cyconv.Ensemble.from_snapshots(network, trainer.snapshots).predict(train)
    return {"images": n * 3072 * np.dtype(dtype).itemsize // 2**20, "peak": max(samples) - peak}


@contextlib.contextmanager
def sampled(which):
    """The values of `resident` every few milliseconds."""
    samples, stop = [], threading.Event()

    def sample():
        while not stop.wait(0.003):
            samples.append(resident(which))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    cases = {"steps": steps, "fit": fit, "mapped": mapped}
    print(json.dumps(cases[sys.argv[1]](*sys.argv[2:])))
