"""Users' own schedules in checkpoints, and where they are refused."""

import time

import numpy as np
import pytest

import cyconv
from cyconv.schedules import recorded_schedule


class Own:
    total_steps = 10
    boundaries = np.array([5, 10])

    def __init__(self, settings):
        self.settings = settings

    def __call__(self, step):
        return 0.01


class Table:
    settings: dict = {}

    def __init__(self, rates):
        self.rates, self.total_steps, self.boundaries = rates, 1000, np.array([1000])

    def __call__(self, step):
        return self.rates[step]


class Halved(cyconv.CosineSchedule):
    def _rates(self, steps):
        return super()._rates(steps) / 2


def stop_and_resume(make_schedule, path):
    data = cyconv.make_shapes(n_train=60, n_validation=10, n_test=10, seed=0)
    network = cyconv.Network(filter_size=8, n_filters=2, n_hidden=4, seed=0)
    trainer = cyconv.CyclicTrainer(network, make_schedule(), batch_size=20)
    trainer.fit(data.train, log_every=5, progress=False, checkpoint=path, callbacks=[lambda event: event.step == 5])
    resumed = cyconv.CyclicTrainer.resume(path, schedule=make_schedule())
    assert resumed.step == 5
    return resumed.fit(data.train, log_every=5, progress=False)


@pytest.mark.parametrize("settings", [{"milestones": (3, 6)}, {"rates": {3: 0.1}}])
def test_settings_that_json_writes_differently_are_recognised(tmp_path, settings):
    assert stop_and_resume(lambda: Own(settings), tmp_path / "run.npz").complete


def test_a_subclass_inside_a_warm_up_resumes_with_the_schedule(tmp_path):
    def make():
        return cyconv.WarmupSchedule(Halved(eta_min=0.0, eta_max=0.1, step_size=5), n_steps=5)

    assert stop_and_resume(make, tmp_path / "run.npz").complete
    with pytest.raises(ValueError, match="schedule must be given where the run uses a user-defined schedule"):
        cyconv.CyclicTrainer.resume(tmp_path / "run.npz")


def test_the_learning_rate_at_the_last_step_is_checked_at_once():
    network = cyconv.Network(filter_size=8, n_filters=2, n_hidden=4, seed=0)
    with pytest.raises(ValueError, match="learning rates of schedule"):
        cyconv.CyclicTrainer(network, Table([0.1] * 1000 + [np.nan]))


def test_warm_ups_do_not_nest():
    inner = cyconv.WarmupSchedule(cyconv.ConstantSchedule(0.1, 10), n_steps=2)
    with pytest.raises(ValueError, match="schedule must not be a WarmupSchedule itself"):
        cyconv.WarmupSchedule(inner, n_steps=2)
    recorded = {"class": "ConstantSchedule", "eta": 0.1, "total_steps": 10}
    for _ in range(5000):
        recorded = {"class": "WarmupSchedule", "schedule": recorded, "n_steps": 1, "eta_start": 0.0}
    started = time.perf_counter()
    with pytest.raises(ValueError, match="a warm-up of a warm-up"):
        recorded_schedule(recorded)
    assert time.perf_counter() - started < 1
