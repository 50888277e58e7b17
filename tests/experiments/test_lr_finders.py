"""The rules of fastai and pytorch-lr-finder, beside values computed by these libraries' own code."""

import numpy as np
import pytest

from cyconv.experiments import lr_finders

RATES = np.geomspace(1e-7, 10.0, 100)


def falling_then_rising(noise=0.0):
    """Losses flat at 2.3, down to 1.3 at the rate 0.1, and up."""
    losses = np.interp(np.log10(RATES), [-7, -4, -1, 1], [2.3, 2.3, 1.3, 8.0])
    return losses + noise * np.random.default_rng(0).standard_normal(100)


def test_suggestions_are_those_of_the_libraries():
    found = lr_finders.suggestions(RATES, falling_then_rising(0.05))
    assert found == pytest.approx(
        {
            "fastai, valley": 0.0019179102616724887,
            "fastai, slide": 0.007054802310718645,
            "fastai, minimum / 10": 0.013848863713938744,
            "fastai, steepest": 0.03125715849688242,
            "pytorch-lr-finder": 0.037649358067924715,
        }
    )


def test_the_valley_need_not_be_without_gaps():
    rates = np.arange(1.0, 9.0)
    assert lr_finders.valley(rates, np.array([5.0, 9.0, 4.0, 8.0, 3.0, 2.0, 1.0, 7.0])) == 3.0


def test_averages_end_where_the_loss_diverges():
    losses = np.array([2.0, 1.0, 1.0, 50.0, 1.0])
    np.testing.assert_allclose(lr_finders.smoothed(losses, 0.5, corrected=False, factor=5), [2, 1.5, 1.25, 25.625])
    np.testing.assert_allclose(lr_finders.smoothed(losses[:2], 0.5, corrected=True, factor=5), [2, 4 / 3])
    assert len(lr_finders.smoothed(np.array([1.0, np.nan, 1.0]), 0.5, corrected=True, factor=4)) == 1
    assert lr_finders.suggestions(RATES[:20], np.append(np.ones(10), np.full(10, np.inf))) == {}
