"""Learning rates against closed forms and PyTorch's, and bad input."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from cases import each
from tiny_run import digest, fit, make_network

import cyconv
from cyconv import (
    ConstantSchedule,
    CosineSchedule,
    CyclicSchedule,
    OneCycleSchedule,
    Schedule,
    WarmupSchedule,
)
from cyconv.schedules import describe_schedule, recorded_schedule


def test_assignment_schedule():
    """Exercise 3's: 1e-5 to 1e-1, n_s = 800, three doubling cycles."""
    schedule = CyclicSchedule(eta_min=1e-5, eta_max=1e-1, step_size=800, n_cycles=3)
    assert schedule.total_steps == 2 * 800 * (1 + 2 + 4)
    assert schedule.boundaries.tolist() == [1600, 4800, 11200]
    assert schedule.boundaries.dtype == np.int64
    lows, highs = [0, 1600, 4800, 11200], [800, 3200, 8000]
    assert schedule(lows).tolist() == [1e-5] * 4
    assert schedule(highs).tolist() == [1e-1] * 3


@pytest.mark.parametrize("growth", [1.0, 2.0, 1.5, 0.5, 3])
@pytest.mark.parametrize("decay", [1.0, 0.9])
@pytest.mark.parametrize("eta_min, eta_max", [(1e-5, 1e-1), (0, 1), (0.01, 0.02)])
def test_formula_in_exact_arithmetic(growth, decay, eta_min, eta_max):
    schedule = CyclicSchedule(eta_min, eta_max, 7, 4, growth, decay)
    start, expected = 0, []
    for cycle in range(4):
        half = max(1, round(7 * growth**cycle))
        low, top = Fraction(eta_min), Fraction(eta_max) * Fraction(decay) ** cycle
        expected += [low + (top - low) * min(u, 2 * half - u) / half for u in range(2 * half)]
        start += 2 * half
    expected.append(Fraction(eta_min))
    assert schedule.total_steps == start == len(expected) - 1
    rates = schedule(np.arange(start + 1))
    np.testing.assert_allclose(rates, np.array(expected, dtype=np.float64), rtol=1e-14, atol=1e-17)
    assert rates.min() >= eta_min and rates.max() <= eta_max
    assert [schedule(step) for step in range(start + 1)] == rates.tolist()


def test_kinds_of_steps():
    schedule = CyclicSchedule(0, 1, 4, 1)
    assert schedule(2) == 0.5 and type(schedule(2)) is float
    assert type(schedule(np.int32(2))) is float
    assert type(schedule(np.array(2))) is float
    for steps in ([[0, 4], [8, 2]], np.array([[0, 4], [8, 2]], dtype=np.uint8)):
        rates = schedule(steps)
        assert rates.dtype == np.float64 and rates.tolist() == [[0, 1], [0, 0.5]]
    assert schedule(np.zeros((0, 3), dtype=int)).shape == (0, 3)


def test_half_lengths_are_whole_and_at_least_one():
    assert CyclicSchedule(0, 1, 1, 5, growth=0.1).boundaries.tolist() == [2, 4, 6, 8, 10]
    assert CyclicSchedule(0, 1, 3, 3, growth=1.5).boundaries.tolist() == [6, 14, 28]  # 3, 4.5, 6.75


def test_constant_rate_stays_constant():
    rate = 0.1 + 1e-17
    assert set(CyclicSchedule(rate, rate, 1000, 2)(np.arange(6001))) == {rate}


def test_long_schedules_are_exact():
    schedule = CyclicSchedule(0, 1, 2**51, 1)
    assert schedule.total_steps == 2**52
    assert schedule(2**51) == 1.0 and schedule(1) == 2.0**-51 and schedule(2**52) == 0.0


def test_settings_equality_and_repr():
    schedule = CyclicSchedule(1e-5, 1e-1, np.int64(800), 3, growth=2, eta_max_decay=np.float32(0.5))
    assert eval(repr(schedule)) == schedule
    assert CyclicSchedule(**schedule.settings) == schedule
    assert hash(CyclicSchedule(**schedule.settings)) == hash(schedule)
    assert {type(value) for value in schedule.settings.values()} == {int, float, str}
    assert schedule != CyclicSchedule(1e-5, 1e-1, 801, 3, eta_max_decay=0.5)
    assert schedule != "schedule"


def test_boundaries_are_a_copy():
    schedule = CyclicSchedule(0, 1, 4, 1)
    schedule.boundaries[0] = 99
    assert schedule.total_steps == 8


GOOD = {"eta_min": 1e-5, "eta_max": 0.1, "step_size": 800, "n_cycles": 3}


@pytest.mark.parametrize(
    "name, value",
    each(
        eta_min=[-1e-5, np.nan, "low", True],
        eta_max=[1e-6, np.inf, None],
        step_size=[0, 800.0, 2**53, 2**60, 10**400],
        n_cycles=[0, 60, 10**9, 2.5],
        growth=[0, -2, 1e300, 10**400, np.nan],
        eta_max_decay=[0, 1.1, 1e-300],
    ),
)
def test_bad_settings_get_one_sentence(name, value):
    with pytest.raises((TypeError, ValueError)) as caught:
        CyclicSchedule(**{**GOOD, name: value})
    message = str(caught.value)
    assert name in message and "\n" not in message and len(message) < 250


@pytest.mark.parametrize(
    "step, error",
    [
        (-1, ValueError),
        (11201, ValueError),
        (10**30, ValueError),
        ([0, 11201], ValueError),
        (np.array([-1, 5]), ValueError),
        (np.array([2**64 - 1], dtype=np.uint64), ValueError),
        (1.0, TypeError),
        (True, TypeError),
        (None, TypeError),
        ("1", TypeError),
        ([0.5], TypeError),
        ([True], TypeError),
        ([[1], [2, 3]], TypeError),
        ([10**30], TypeError),
        (np.array(1.0), TypeError),
    ],
)
def test_bad_steps_get_one_sentence(step, error):
    schedule = CyclicSchedule(**GOOD)
    with pytest.raises(error, match=r"^step must [^\n]*$"):
        schedule(step)


# The other schedules ----------------------------------------------------------------


@pytest.mark.parametrize("growth", [1.0, 2.0, 1.5])
def test_smiths_modes_scale_the_height_of_the_triangles(growth):
    low, high = 1e-3, 0.5
    plain = CyclicSchedule(low, high, 7, 4, growth)
    halved = CyclicSchedule(low, high, 7, 4, growth, mode="triangular2")
    decaying = CyclicSchedule(low, high, 7, 4, growth, mode="exp_range", gamma=0.99)
    steps = np.arange(plain.total_steps + 1)
    cycles = np.minimum(np.searchsorted(plain.boundaries, steps, side="right"), 3)
    np.testing.assert_allclose(halved(steps) - low, (plain(steps) - low) / 2.0**cycles, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(decaying(steps) - low, (plain(steps) - low) * 0.99**steps, rtol=1e-12, atol=1e-15)


def test_cosine_schedule_is_as_long_as_the_triangles():
    cyclic = CyclicSchedule(1e-5, 0.1, 400, 3, growth=2.0, eta_max_decay=0.5)
    cosine = CosineSchedule(1e-5, 0.1, 400, 3, growth=2.0, eta_max_decay=0.5)
    assert cosine.boundaries.tolist() == cyclic.boundaries.tolist() == [800, 2400, 5600]
    assert cosine([0, 800, 2400]).tolist() == [0.1, 0.05, 0.025] and cosine(5600) == 1e-5
    assert cosine(400) == pytest.approx((1e-5 + 0.1) / 2, rel=1e-14)


@pytest.mark.parametrize("anneal", ["cos", "linear"])
def test_one_cycle_rises_once_and_ends_far_below_its_start(anneal):
    schedule = OneCycleSchedule(eta_max=0.5, total_steps=100, anneal=anneal)
    rates = schedule(np.arange(101))
    assert rates[0] == 0.5 / 25 and rates.max() == rates[29] == 0.5
    assert rates[99] == rates[100] == pytest.approx(0.5 / 25 / 1e4)
    assert (np.diff(rates[:30]) > 0).all() and (np.diff(rates[29:100]) < 0).all()


def test_warm_up_ends_at_the_schedules_first_rate():
    schedule = CosineSchedule(0.0, 1.0, 5, 2)
    warm = WarmupSchedule(schedule, n_steps=4, eta_start=0.2)
    assert warm([0, 1, 2, 3, 4]) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert warm(np.arange(4, warm.total_steps + 1)).tolist() == schedule(np.arange(schedule.total_steps + 1)).tolist()
    assert warm.boundaries.tolist() == [14, 34]


ALL = [
    CyclicSchedule(1e-5, 0.1, 4, 2, mode="exp_range", gamma=0.9),
    CosineSchedule(1e-5, 0.1, 4, 2),
    OneCycleSchedule(0.1, 30),
    ConstantSchedule(0.1, 30),
    WarmupSchedule(CosineSchedule(0.0, 0.1, 4), 3),
]


@pytest.mark.parametrize("schedule", ALL, ids=lambda schedule: type(schedule).__name__)
def test_schedules_are_recreated_from_repr_and_settings(schedule):
    assert isinstance(schedule, Schedule)
    assert eval(repr(schedule)) == schedule and hash(eval(repr(schedule))) == hash(schedule)
    described = json.loads(json.dumps(describe_schedule(schedule)))
    assert recorded_schedule(described) == schedule
    assert schedule(schedule.total_steps) >= 0 and schedule(np.zeros((0, 2), int)).shape == (0, 2)
    with pytest.raises(ValueError, match=r"^step must lie in|^step must be an integer"):
        schedule(schedule.total_steps + 1)
    with pytest.raises(AttributeError):
        schedule.eta_max = 1.0


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: CyclicSchedule(**GOOD, mode="square"), "mode"),
        (lambda: CyclicSchedule(**GOOD, gamma=0.5), "gamma"),
        (lambda: CyclicSchedule(**GOOD, mode="exp_range", gamma=0), "gamma"),
        (lambda: CyclicSchedule(**GOOD, mode="triangular2", eta_max_decay=0.5), "eta_max_decay"),
        (lambda: CosineSchedule(0.2, 0.1, 3), "eta_max"),
        (lambda: OneCycleSchedule(0.1, 1), "total_steps"),
        (lambda: OneCycleSchedule(0.1, 30, eta_min=0.2), "eta_min"),
        (lambda: OneCycleSchedule(0.1, 30, eta_final=0.2), "eta_final"),
        (lambda: OneCycleSchedule(0.1, 30, pct_start=1), "pct_start"),
        (lambda: OneCycleSchedule(0.1, 30, anneal="cubic"), "anneal"),
        (lambda: OneCycleSchedule("high", 30), "eta_max"),
        (lambda: ConstantSchedule(-0.1, 30), "eta"),
        (lambda: ConstantSchedule(0.1, 0), "total_steps"),
        (lambda: WarmupSchedule(lambda step: 0.1, 3), "schedule"),
        (lambda: WarmupSchedule(ConstantSchedule(0.1, 30), 0), "n_steps"),
        (lambda: WarmupSchedule(ConstantSchedule(0.1, 30), 3, np.nan), "eta_start"),
    ],
)
def test_bad_settings_of_other_schedules_get_one_sentence(make, name):
    with pytest.raises((TypeError, ValueError), match=rf"^{name} must [^\n]*$"):
        make()


@pytest.mark.optional
@pytest.mark.parametrize(
    "schedule, initial, theirs",
    [
        *(
            (
                CyclicSchedule(1e-3, 0.5, 7, 4, growth=1, mode=mode, gamma=gamma),
                0.5,
                lambda rates, optimizer, mode=mode, gamma=gamma: rates.CyclicLR(
                    optimizer, 1e-3, 0.5, step_size_up=7, mode=mode, gamma=gamma, cycle_momentum=False
                ),
            )
            for mode, gamma in (("triangular", 1.0), ("triangular2", 1.0), ("exp_range", 0.99))
        ),
        *(
            (
                CosineSchedule(1e-3, 0.5, 5, 3, growth=growth),
                0.5,
                lambda rates, optimizer, growth=growth: rates.CosineAnnealingWarmRestarts(optimizer, 10, growth, 1e-3),
            )
            for growth in (1, 2)
        ),
        *(
            (
                OneCycleSchedule(0.5, n, anneal=anneal),
                0.5,
                lambda rates, optimizer, n=n, anneal=anneal: rates.OneCycleLR(
                    optimizer, 0.5, total_steps=n, anneal_strategy=anneal
                ),
            )
            for n in (4, 101)
            for anneal in ("cos", "linear")
        ),
        (
            WarmupSchedule(CosineSchedule(0.0, 0.5, 5), 4, eta_start=0.1),
            0.5,
            lambda rates, optimizer: rates.SequentialLR(
                optimizer,
                [rates.LinearLR(optimizer, 0.2, 1.0, 4), rates.CosineAnnealingWarmRestarts(optimizer, 10)],
                [4],
            ),
        ),
        (ConstantSchedule(0.5, 20), 0.5, lambda rates, optimizer: rates.ConstantLR(optimizer, 1.0)),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_learning_rates_agree_with_pytorch(schedule, initial, theirs):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=initial, momentum=0.9)
    scheduler = theirs(torch.optim.lr_scheduler, optimizer)
    found = []
    for _ in range(schedule.total_steps - 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(schedule(np.arange(len(found))), found, rtol=0, atol=1e-12)


# Custom schedules --------------------------------------------------------------------


class Staircase:
    """A schedule that is no subclass and accepts one step at a time."""

    total_steps, boundaries = 20, np.array([8, 20])

    def __init__(self, factor=0.5):
        self.settings = {"factor": factor}

    def __call__(self, step):
        return 0.1 * self.settings["factor"] ** math.floor(step / 5)


def test_a_schedule_from_outside_the_package_trains_and_resumes(tmp_path):
    path = tmp_path / "run.npz"
    whole, cut = (cyconv.CyclicTrainer(make_network(), Staircase(), batch_size=20, snapshots=True) for _ in range(2))
    fit(whole)
    assert whole.history["learning_rates"].tolist() == [Staircase()(step) for step in (0, 7, 14, 20)]
    fit(cut, checkpoint=path, callbacks=[lambda event: event.step == 14])
    with pytest.raises(ValueError, match="^schedule must be given where .* 'Staircase'$"):
        cyconv.CyclicTrainer.resume(path)
    with pytest.raises(ValueError, match="^schedule must be that of the run"):
        cyconv.CyclicTrainer.resume(path, schedule=Staircase(0.4))
    resumed = cyconv.CyclicTrainer.resume(path, schedule=Staircase())
    fit(resumed)
    assert digest(resumed) == digest(whole) and len(whole.snapshots) == 2


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"total_steps": 0}, "^schedule.total_steps must "),
        ({"total_steps": 20.0}, "^schedule.total_steps must "),
        ({"boundaries": np.array([8, 19])}, "^schedule.boundaries must be ascending steps up to total_steps = 20"),
        ({"boundaries": np.array([8, 8, 20])}, "^schedule.boundaries must be ascending"),
        ({"boundaries": np.array([0, 20])}, "^schedule.boundaries must be ascending"),
        ({"boundaries": np.array([8.0, 20.0])}, "^schedule.boundaries must be ascending"),
        ({"settings": {"factor": np.nan}}, "^schedule.settings must be a dict of JSON values"),
        ({"settings": ["factor"]}, "^schedule.settings must be a dict of JSON values"),
        ({"__call__": lambda self, step: math.nan}, "^the learning rates of schedule must "),
        ({"__call__": lambda self, step: -0.1}, "^the learning rates of schedule must not be negative"),
        ({"__call__": lambda self, step: "high"}, "^the learning rates of schedule must "),
    ],
)
def test_schedules_with_bad_values_are_refused(changes, sentence):
    strange = type("Strange", (Staircase,), {"__init__": lambda self: None, "settings": {}, **changes})
    with pytest.raises((TypeError, ValueError), match=sentence):
        cyconv.CyclicTrainer(make_network(), strange())


def test_a_learning_rate_that_becomes_nan_is_refused_and_nothing_is_lost(tmp_path):
    class Late(Staircase):
        broken = False

        def __call__(self, step):
            return math.nan if self.broken and step == 13 else super().__call__(step)

    schedule = Late()
    trainer = cyconv.CyclicTrainer(make_network(), schedule, batch_size=20)
    schedule.broken = True
    with pytest.raises(ValueError, match="^the learning rates of schedule must"):
        fit(trainer)
    schedule.broken = False
    fit(trainer)
    whole = cyconv.CyclicTrainer(make_network(), Staircase(), batch_size=20)
    fit(whole)
    assert digest(trainer) == digest(whole)
