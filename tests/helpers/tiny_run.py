"""A training run small enough to repeat many times; also a program that tests start and kill."""

import hashlib
import os
import signal
import sys

import numpy as np

import cyconv

PLAIN = {}
EVERYTHING = {
    "momentum": 0.9,
    "dropout": 0.3,
    "label_smoothing": 0.1,
    "augmentation": cyconv.Augmentation(flip=True, shift=1, cutout=3),
    "snapshots": True,
}
ADAMW = {**EVERYTHING, "momentum": 0.0, "optimizer": cyconv.AdamW(weight_decay=0.1)}
CURVES = ("cost_train", "cost_val", "loss_train", "loss_val", "acc_train", "acc_val", "update_steps", "learning_rates")


def make_data(seed=0):
    """Two splits of 8 x 8 images: 107 to train on, five batches of 20 and a remainder, and 31 to validate."""
    rng = np.random.default_rng(seed)
    return [cyconv.Split(rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8), rng.integers(0, 10, n)) for n in (107, 31)]


def make_network(seed=0, **changes):
    return cyconv.Network(
        **{"filter_size": 4, "n_filters": 3, "n_hidden": 6, "image_shape": (3, 8, 8), "seed": seed, **changes}
    )


def make_trainer(step_size=6, n_cycles=2, eta_max=0.05, **changes):
    """Two cycles of 12 and 24 update steps unless changed; an epoch has five."""
    schedule = cyconv.CyclicSchedule(1e-4, eta_max, step_size, n_cycles)
    settings = {"batch_size": 20, "l2": 0.01, "seed": 1, **changes}
    return cyconv.CyclicTrainer(make_network(), schedule, **settings)


def set_call_seconds(monkeypatch, seconds):
    """Let fit aim at so many seconds for each call of train_steps: 0 is one update a call, 1e9 as many as can be."""
    monkeypatch.setattr("cyconv.trainer._CALL_SECONDS", seconds)


def fit(trainer, data=None, **options):
    return trainer.fit(*(data or make_data()), **{"log_every": 7, "progress": False, **options})


def digest(trainer):
    """The digest of all results of a run except times."""
    network = trainer.network
    bits = hashlib.sha256(repr((trainer.step, trainer.history.complete)).encode())
    state = dict(network.optimizer_state or {})
    bits.update(repr((state.pop("optimizer", None), state.pop("n_updates", 0))).encode())
    for mapping in (network.parameters, *state.values(), *trainer.snapshots):
        for name, values in mapping.items():
            bits.update(name.encode() + values.tobytes())
    for key in CURVES:
        bits.update(trainer.history[key].tobytes())
    return bits.hexdigest()


def main():
    """tiny_run.py CHECKPOINT STEP_SIZE CHECKPOINT_EVERY: start or resume a run; the last line is the digest."""
    path, step_size, every = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    cyconv.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # even if the parent ignores it
    if os.path.exists(path):
        trainer = cyconv.CyclicTrainer.resume(path)
    else:
        trainer = make_trainer(step_size=step_size, **EVERYTHING)
    print("ready", flush=True)
    try:
        fit(trainer, log_every=50, checkpoint=path, checkpoint_every=every)
    except cyconv.Interrupted as stop:
        print(stop)
        main.file = open(  # noqa: SIM115 (closed as the process ends)
            os.path.join(os.path.dirname(path), "unflushed.txt"), "w"
        )
        main.file.write("kept")
        raise
    print(digest(trainer))


if __name__ == "__main__":
    main()
