"""The time that a chunk of work takes, and the choice of a peer's fastest variant."""

import itertools
import time

import numpy as np

from .case import check_peer

TOLERANCE = {"float32": 5e-4, "float64": 1e-10}
LEARNING_RATE = 1e-3
MAX_UPDATES, MAX_FLOPS = 100, 1e10  # upper limits of a call, which has at least five updates
MEASURES = ("step", "evaluation")


class Timed:
    """A peer that passed its check, ready to be timed on one case.

    The peer's variants whose error is within ``TOLERANCE`` are compared, and
    those with the fastest update and the fastest evaluation are used. The
    tolerance admits a naive float32 sum over 25,600 patches, but no product in
    bfloat16.

    Parameters
    ----------
    peer_class : type
        See the package's docstring.
    case : Case
    data : Data
        At least one batch.
    seconds : float
        Duration of a chunk while variants are compared.
    measures : sequence of {"step", "evaluation"}
        What is going to be timed.

    Raises
    ------
    ArithmeticError
        If no variant agrees with the reference.
    """

    def __init__(self, peer_class, case, data, seconds, measures=MEASURES):
        self.n_images = n_images = len(data.labels)
        self.start = case.starting_parameters()
        generator = np.random.default_rng(1)
        n_updates = min(MAX_UPDATES, n_images // case.batch_size, max(5, int(MAX_FLOPS / case.step_flops)))
        self.rates = np.full(n_updates, LEARNING_RATE)
        self.orders = itertools.cycle(
            [generator.permutation(n_images)[: n_updates * case.batch_size] for _ in range(8)]
        )

        errors = [check_peer(peer_class, case, variant) for variant in peer_class.VARIANTS]
        accurate = [i for i, error in enumerate(errors) if error <= TOLERANCE[case.dtype]]
        if not accurate:
            raise ArithmeticError(
                f"{peer_class.__name__} must agree with the reference within "
                f"{TOLERANCE[case.dtype]}, but its relative error is {min(errors):.1e}"
            )
        peers = {i: peer_class(case, data, **peer_class.VARIANTS[i]) for i in accurate}
        fastest = {what: self._fastest(peers, getattr(self, f"_{what}"), seconds) for what in measures}
        self.peers = {what: peers[i] for what, i in fastest.items()}
        self.description = {
            "error": max(errors[i] for i in fastest.values()),
            "variants": {what: peer_class.VARIANTS[i] for what, i in fastest.items()},
        }

    @staticmethod
    def _fastest(peers, measure, seconds):
        """The key of the peer with the shortest time in three turns."""
        if len(peers) == 1:
            return next(iter(peers))
        best = dict.fromkeys(peers, float("inf"))
        for _ in range(3):
            for i, peer in peers.items():
                best[i] = min(best[i], measure(peer, seconds))
        return min(best, key=best.get)

    def step(self, seconds):
        """Microseconds of an update, over a chunk of about ``seconds`` after a warm-up."""
        return self._step(self.peers["step"], seconds)

    def _step(self, peer, seconds):
        peer.set_parameters(self.start)  # so that all chunks compute with the same numbers
        return microseconds(lambda: peer.train(next(self.orders), self.rates), seconds) / len(self.rates)

    def evaluation(self, seconds):
        """Thousand images per second: forward pass, loss and accuracy of all images, repeatedly."""
        return 1e3 * self.n_images / self._evaluation(self.peers["evaluation"], seconds)

    def _evaluation(self, peer, seconds):
        peer.set_parameters(self.start)
        return microseconds(peer.evaluate, seconds)


def microseconds(call, seconds):
    """Mean time of a call over ``seconds``, after a warm-up of a quarter of that.

    After the warm-up, the threads of the previous peer have also stopped spinning.
    """
    _repeat(call, seconds / 4)
    elapsed, count = _repeat(call, seconds)
    return 1e6 * elapsed / count


def _repeat(call, seconds):
    start, count, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds or not count:
        call()
        count += 1
        elapsed = time.perf_counter() - start
    return elapsed, count
