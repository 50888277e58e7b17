"""A whole training run with any peer."""

import time

import numpy as np

from .case import Data


def train(peer_class, case, variant, data, rates, seed):
    """Prepare the training images, train, and measure the test accuracy.

    All peers start from the same parameters and use the same batches in the
    same order, without logging. The time to prepare the images is reported
    separately, since it includes the first access to memory.

    Parameters
    ----------
    peer_class : type
        See the package's docstring.
    case : Case
    variant : dict
        One of the class's ``VARIANTS``.
    data : Dataset
    rates : sequence of float
        The learning rate of each update.
    seed : int
        Seed of the initial parameters and the shuffles.

    Returns
    -------
    dict
        ``layout`` and ``updates`` (seconds), ``accuracy`` (0..1).
    """
    training, rates = Data.from_split(data.train), np.asarray(rates, np.float64)
    start, generator = case.starting_parameters(seed), np.random.default_rng(seed)
    per_epoch = len(training.labels) // case.batch_size

    started = time.perf_counter()
    peer = peer_class(case, training, **variant)
    peer.set_parameters(start)
    prepared = time.perf_counter()
    for step in range(0, len(rates), per_epoch):
        epoch_rates = rates[step : step + per_epoch]
        peer.train(generator.permutation(len(training.labels))[: len(epoch_rates) * case.batch_size], epoch_rates)
    ended = time.perf_counter()

    test = Data(data.test.images, data.test.labels.astype(np.int64), training.normalizer)
    test_peer = peer_class(case, test, **variant)
    test_peer.set_parameters({name: np.array(array) for name, array in peer.parameters().items()})
    return {"layout": prepared - started, "updates": ended - prepared, "accuracy": test_peer.evaluate()[1]}
