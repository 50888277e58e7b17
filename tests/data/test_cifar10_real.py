"""On the real CIFAR-10, where it is available: architecture 2 learns."""

import numpy as np
import pytest

import cyconv


@pytest.mark.filterwarnings("ignore:.*original files")
def test_architecture_2_learns_in_one_short_cycle(cifar10_folder):
    data = cyconv.load_cifar10(cifar10_folder, train_batches=(1,), validation_batches=(2,))
    assert data.train.images.shape == data.validation.images.shape == (10000, 3, 32, 32)
    assert np.array_equal(np.unique(data.train.labels), np.arange(10))
    network = cyconv.Network(filter_size=4, n_filters=10, n_hidden=50, seed=0)
    schedule = cyconv.CyclicSchedule(eta_min=1e-5, eta_max=1e-1, step_size=400, n_cycles=1)
    trainer = cyconv.CyclicTrainer(network, schedule, batch_size=100, l2=0.003, seed=0)
    history = trainer.fit(data.train, data.validation, log_every=400, progress=False)
    assert history["loss_val"][-1] < 2.0
    assert history["acc_val"][-1] > 0.35
    test = network.evaluate(network.prepare(data.test.images, data.test.labels, network.normalizer))
    assert test.accuracy > 0.35
