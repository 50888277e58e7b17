"""The cyclical learning rate against closed forms; and what it says to bad input."""

from fractions import Fraction

import numpy as np
import pytest

from cyconv import CyclicSchedule


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
    [
        ("eta_min", -1e-5),
        ("eta_min", np.nan),
        ("eta_min", "low"),
        ("eta_min", True),
        ("eta_max", 1e-6),
        ("eta_max", np.inf),
        ("eta_max", None),
        ("step_size", 0),
        ("step_size", 800.0),
        ("step_size", 2**53),
        ("step_size", 2**60),
        ("step_size", 10**400),
        ("n_cycles", 0),
        ("n_cycles", 60),
        ("n_cycles", 10**9),
        ("n_cycles", 2.5),
        ("growth", 0),
        ("growth", -2),
        ("growth", 1e300),
        ("growth", 10**400),
        ("growth", np.nan),
        ("eta_max_decay", 0),
        ("eta_max_decay", 1.1),
        ("eta_max_decay", 1e-300),
    ],
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
