"""A training run from the first update to the last, by any peer."""

import time

import numpy as np

from .case import Data


def train(peer_class, case, variant, data, rates, seed):
    """Lay out the training images, train, and read the test accuracy.

    All peers start from the same parameters and see the same batches in the
    same order; nothing is logged on the way. The time to lay out the images is
    kept apart: the first to touch memory pays for it.

    Parameters
    ----------
    peer_class : type
        A class as the package describes it.
    case : Case
    variant : dict
        One of the class's ``VARIANTS``.
    data : Dataset
    rates : sequence of float
        The learning rate of each update.
    seed : int
        Of the starting parameters and the shuffles.

    Returns
    -------
    dict
        ``layout`` and ``updates`` (seconds), ``accuracy`` (0..1).
    """
    training, rates = Data.of(data.train), np.asarray(rates, np.float64)
    start, generator = case.starting_parameters(seed), np.random.default_rng(seed)
    per_epoch = len(training.labels) // case.batch_size

    began = time.perf_counter()
    peer = peer_class(case, training, **variant)
    peer.set_parameters(start)
    laid_out = time.perf_counter()
    for step in range(0, len(rates), per_epoch):
        of_epoch = rates[step : step + per_epoch]
        peer.train(generator.permutation(len(training.labels))[: len(of_epoch) * case.batch_size], of_epoch)
    ended = time.perf_counter()

    test = Data(data.test.images, data.test.labels.astype(np.int64), training.normalizer)
    judge = peer_class(case, test, **variant)
    judge.set_parameters({name: np.array(array) for name, array in peer.parameters().items()})
    return {"layout": laid_out - began, "updates": ended - laid_out, "accuracy": judge.evaluate()[1]}
