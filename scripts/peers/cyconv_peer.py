"""cyconv itself, through its public API: uint8 images are gathered and normalised during the update."""

import os

import cyconv

from .case import L2


class CyconvPeer:
    """``Network.prepare``, ``Network.train_steps`` and ``Network.evaluate``."""

    VARIANTS = ({},)

    def __init__(self, case, data):
        cyconv.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        n_hidden = case.n_hidden[0] if len(case.n_hidden) == 1 else case.n_hidden
        self.network = cyconv.Network(
            filter_size=case.filter_size, n_filters=case.n_filters, n_hidden=n_hidden, dtype=case.dtype
        )
        self.source = self.network.prepare(data.images, data.labels, normalizer=data.normalizer)
        self.batch_size = case.batch_size

    def set_parameters(self, mapping):
        self.network.set_parameters(mapping)

    def parameters(self):
        return self.network.parameters

    def train(self, order, learning_rates, **extras):
        self.network.train_steps(self.source, order, learning_rates, batch_size=self.batch_size, l2=L2, **extras)

    def evaluate(self):
        loss, _, accuracy = self.network.evaluate(self.source)
        return loss, accuracy
