"""Learning rates that the finders of fastai and of pytorch-lr-finder suggest, to compare `lr_range_test` with.

Both train with a learning rate that rises geometrically from 1e-7 to 10 in 100 updates, smooth the loss of the batches
by an exponential moving average, stop when that exceeds its lowest value several times, and leave out the first ten and
the last five updates. These are the rules of fastai 2.8 (``fastai.callback.schedule``) and torch-lr-finder 0.2
(``LRFinder.plot``).
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

ETA_LOW, ETA_HIGH, N_STEPS = 1e-7, 10.0, 100
N_AT_START, N_AT_END = 10, 5

Values: TypeAlias = NDArray[np.float64]


def suggestions(rates: Values, losses: Values) -> dict[str, float]:
    """What each rule suggests, by its name.

    Parameters
    ----------
    rates, losses : ndarray of float, (n,)
        Of a test with `ETA_LOW`, `ETA_HIGH` and `N_STEPS`; fewer if the loss
        diverged.

    Returns
    -------
    dict of str to float
        Empty if the loss diverged before there is anything to see.
    """
    fastai = smoothed(losses, 0.98, corrected=True, factor=4)
    lr_finder = smoothed(losses, 0.95, corrected=False, factor=5)
    if min(len(fastai), len(lr_finder)) < N_AT_START + N_AT_END + 2:
        return {}
    shown, found = (slice(N_AT_START, len(averages) - N_AT_END) for averages in (fastai, lr_finder))
    rules = {"valley": valley, "slide": slide, "minimum / 10": tenth_of_minimum, "steepest": steepest}
    return {
        **{f"fastai, {name}": rule(rates[shown], fastai[shown]) for name, rule in rules.items()},
        "pytorch-lr-finder": float(rates[found][np.gradient(lr_finder[found]).argmin()]),
    }


def smoothed(losses: Values, weight: float, corrected: bool, factor: float) -> Values:
    """Exponential moving average, up to where it exceeds its lowest value by a factor or is not finite.

    Parameters
    ----------
    losses : ndarray of float
    weight : float
        Of the past.
    corrected : bool
        Whether the average starts at 0 and is divided by the sum of the
        weights; otherwise it starts at the first loss.
    factor : float
    """
    averages: list[float] = []
    average, lowest = 0.0 if corrected else float(losses[0]), np.inf
    for step, loss in enumerate(losses, 1):
        average = weight * average + (1 - weight) * float(loss)
        value = average / (1 - weight**step) if corrected else average
        if not np.isfinite(value):
            break
        averages.append(value)
        lowest = min(lowest, value)
        if value > factor * lowest:
            break
    return np.array(averages)


def valley(rates: Values, losses: Values) -> float:
    """fastai's default: half-way through the longest sequence of steps, not always neighbours, with falling losses."""
    lengths = np.ones(len(losses), int)
    for place, loss in enumerate(losses):
        lengths[place] += max(lengths[:place][losses[:place] > loss], default=0)
    end, length = int(lengths.argmax()), int(lengths.max())
    return float(rates[end - length + length // 3 + length // 6])


def slide(rates: Values, losses: Values) -> float:
    """From the right, where the slope is for the first time about that of 15 steps further on."""
    slopes = np.gradient(losses)
    left = len(losses) - 1 - 15
    rate = rates[max(left, 0)]
    while left >= 0 and abs(slopes[left + 15] - slopes[left]) > 0.005:
        rate = rates[left]
        left -= 1
    return float(rate)


def tenth_of_minimum(rates: Values, losses: Values) -> float:
    """A tenth of the rate with the lowest loss."""
    return float(rates[losses.argmin()]) / 10


def steepest(rates: Values, losses: Values) -> float:
    """Where the loss falls fastest over the logarithm of the rate."""
    return float(rates[(np.diff(losses) / np.diff(np.log(rates))).argmin()])
