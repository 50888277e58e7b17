"""The time that augmentation, dropout and momentum add to an update."""

from functools import partial

import numpy as np

import cyconv

from .case import Data
from .cyconv_peer import CyconvPeer
from .timing import LEARNING_RATE, microseconds

N_UPDATES = 50
EXTRAS = {
    "plain": {},
    "mirroring": {"augmentation": cyconv.Augmentation(flip=True)},
    "shifts up to 2": {"augmentation": cyconv.Augmentation(shift=2)},
    "cutout 8": {"augmentation": cyconv.Augmentation(cutout=8)},
    "all three": {"augmentation": cyconv.Augmentation(flip=True, shift=2, cutout=8)},
    "dropout 0.3": {"dropout": 0.3},
    "momentum 0.9": {"momentum": 0.9},
}


def time_extras(case, n_images, rounds, seconds):
    """Measure the microseconds of an update with each extra, in turns: a list over the rounds for each.

    Parameters
    ----------
    case : Case
    n_images : int
        Number of images in memory, at least one batch.
    rounds : int
    seconds : float
        Duration of a turn.
    """
    peer = CyconvPeer(case, Data.random(n_images))
    start = case.starting_parameters()
    n_updates = min(N_UPDATES, n_images // case.batch_size)
    rates = np.full(n_updates, LEARNING_RATE)
    order = np.random.default_rng(1).permutation(n_images)[: n_updates * case.batch_size]
    found = {name: [] for name in EXTRAS}
    for _ in range(rounds):
        for name, extras in EXTRAS.items():
            peer.set_parameters(start)
            found[name].append(microseconds(partial(peer.train, order, rates, **extras), seconds) / n_updates)
    return found
