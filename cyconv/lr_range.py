"""The learning-rate range test: which learning rates a cyclical schedule should move between."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._checks import check_integer, check_real, check_seed, describe
from .augmentation import Augmentation
from .backend import ops
from .datasets import Normalizer, Split
from .network import Network
from .prepared import PreparedData

FALL_AT_ETA_MIN, FALL_AT_ETA_MAX = 0.1, 0.95
DIVERGED = 4.0
# Standard errors that the lowest of all windows must lie below the first one: costs that only scatter get
# there in one test of about seventy.
NOISE = 5.0


@dataclass(frozen=True, eq=False)
class LrRangeResult:
    """What `lr_range_test` measured.

    Attributes
    ----------
    learning_rates : ndarray of float64, shape (n,)
        Rising geometrically; n is less than the steps asked for where the cost diverged.
    costs : ndarray of float64, shape (n,)
        Of each step's batch before its update, penalty included.
    smoothed : ndarray of float64, shape (n,)
        Mean of ``costs`` over a window around each step.
    eta_min, eta_max : float or None
        The suggestion; None where the cost never fell by more than its scatter from batch to batch explains.
    diverged : bool
        Whether the test ended early.
    """

    learning_rates: NDArray[np.float64]
    costs: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    eta_min: float | None
    eta_max: float | None
    diverged: bool


def lr_range_test(
    network: Network,
    source: Split | PreparedData,
    eta_low: float = 1e-5,
    eta_high: float = 1.0,
    n_steps: int = 500,
    batch_size: int = 100,
    l2: float = 0.0,
    seed: int = 0,
    label_smoothing: float = 0.0,
    momentum: float = 0.0,
    dropout: float = 0.0,
    augmentation: Augmentation | None = None,
) -> LrRangeResult:
    r"""Train a copy of a network while the learning rate rises, and watch the cost.

    The learning rate rises geometrically from ``eta_low`` to ``eta_high``.
    With the smoothed cost :math:`C(\eta)`, its start :math:`C_0` and its
    lowest value :math:`C^*`, the suggestion is

    - ``eta_min``: where the cost starts to fall: the rate from which on, up
      to the lowest cost, :math:`C(\eta) \le C_0 - 0.1\,(C_0 - C^*)`;
    - ``eta_max``: where it stops falling: the first rate with
      :math:`C(\eta) \le C_0 - 0.95\,(C_0 - C^*)`.

    These are the two ends that Smith reads off his curve by eye (2015,
    Section 3.3; his curve is of the accuracy, over a linear rise). The smoothed
    cost is the mean over n_steps/20 steps around each one, fewer at the ends.
    The test stops where the cost is not finite, or where its mean over the
    last n_steps/20 steps is more than four times the lowest such mean or the
    first cost.

    Parameters
    ----------
    network : Network
        Not changed: a copy of it is trained.
    source : Split or PreparedData
        A split's images are normalised as the network does, or else with
        their own mean and deviation. A source is what `Network.prepare` returns.
    eta_low, eta_high : float
        ``0 < eta_low < eta_high``.
    n_steps : int
        At least 20.
    batch_size : int
    l2 : float
        λ.
    seed : int
        Of the order of the images, dropout and augmentation.
    label_smoothing, momentum, dropout, augmentation
        As for `Network.train_steps`: test with what training will use.

    Returns
    -------
    LrRangeResult

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range, or the cost
        diverges before n_steps/10 steps are done.

    References
    ----------
    Leslie N. Smith, "Cyclical Learning Rates for Training Neural Networks",
    arXiv:1506.01186 (2015); IEEE WACV 2017.

    Examples
    --------
    >>> import cyconv
    >>> data = cyconv.make_shapes(n_train=1000, n_validation=10, n_test=10, seed=0)
    >>> network = cyconv.Network(filter_size=4, n_filters=10, n_hidden=50, seed=0)
    >>> found = lr_range_test(network, data.train, n_steps=200)
    >>> bool(1e-5 < found.eta_min < found.eta_max <= 1.0)
    True
    """
    if not isinstance(network, Network):
        raise TypeError(f"network must be a Network, but got {describe(network)}")
    eta_low = check_real("eta_low", eta_low, 0, interval="()")
    eta_high = check_real("eta_high", eta_high, eta_low, interval="()")
    n_steps = check_integer("n_steps", n_steps, 20, 10**7)
    network = network.copy()
    source = _as_source(network, source)
    rates = np.geomspace(eta_low, eta_high, n_steps)
    window = max(1, n_steps // 20)
    options = {
        "batch_size": check_integer("batch_size", batch_size, 1, len(source)),
        "l2": l2,
        "seed": check_seed(seed),
        "label_smoothing": label_smoothing,
        "momentum": momentum,
        "dropout": dropout,
        "augmentation": augmentation,
    }
    network.set_velocity(None)
    costs = _train(network, source, rates, window, options)
    if len(costs) < 2 * window:
        raise ValueError(
            f"eta_low must be a rate at which training goes on, but got {eta_low}: the cost diverged "
            f"after {len(costs)} steps"
        )
    rates = rates[: len(costs)]
    smoothed = _smooth(costs, window)
    eta_min, eta_max = _suggest(rates, costs, smoothed, window)
    return LrRangeResult(rates, costs, smoothed, eta_min, eta_max, diverged=len(costs) < n_steps)


def geometric_mean_range(results: Sequence[LrRangeResult]) -> tuple[float, float] | None:
    """The range that several range tests of one architecture suggest together.

    Parameters
    ----------
    results : sequence of LrRangeResult

    Returns
    -------
    (float, float) or None
        Geometric means of ``eta_min`` and ``eta_max`` over the tests that
        suggest any; None where none does.
    """
    ends = np.array([(found.eta_min, found.eta_max) for found in results if found.eta_min is not None])
    if not len(ends):
        return None
    low, high = np.exp(np.log(ends).mean(axis=0)).tolist()
    return low, high


def _as_source(network: Network, source: Split | PreparedData) -> PreparedData:
    if isinstance(source, PreparedData):
        return source
    if not isinstance(source, Split):
        raise TypeError(f"source must be a Split or come from Network.prepare, but got {describe(source)}")
    normalizer = network.normalizer or Normalizer.fit(source.images)
    return network.prepare(source.images, source.labels, normalizer=normalizer)


def _train(
    network: Network, source: PreparedData, rates: NDArray[np.float64], window: int, options: dict[str, Any]
) -> NDArray[np.float64]:
    """Costs up to the end or to divergence."""
    batch_size, seed = options["batch_size"], options["seed"]
    per_epoch = len(source) // batch_size
    costs, step = np.empty(0), 0
    while step < len(rates):
        if step % per_epoch == 0:
            order = ops.shuffled_order(len(source), seed, step // per_epoch)
        first = step % per_epoch
        count = min(window, per_epoch - first, len(rates) - step)
        batches = order[first * batch_size : (first + count) * batch_size]
        found = network.train_steps(source, batches, rates[step : step + count], first_step=step, **options)
        costs = np.append(costs, found)
        step += count
        end = _divergence(costs, window)
        if end is not None:
            return costs[:end]
    return costs


def _divergence(costs: NDArray[np.float64], window: int) -> int | None:
    """The first step that counts as diverged, or None."""
    finite = np.isfinite(costs)
    end = len(costs) if finite.all() else int(np.argmin(finite))
    if end >= window:
        means = np.convolve(costs[:end], np.ones(window) / window, mode="valid")
        beyond = means > DIVERGED * np.minimum(np.minimum.accumulate(means), costs[0])
        if beyond.any():
            return int(np.argmax(beyond)) + window - 1
    return None if end == len(costs) else end


def _smooth(costs: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean over ``window`` steps around each; towards the ends over fewer, still in the middle of them."""
    sums = np.concatenate([[0.0], np.cumsum(costs)])
    places = np.arange(len(costs))
    half = np.minimum(window // 2, np.minimum(places, len(costs) - 1 - places))
    means: NDArray[np.float64] = (sums[places + half + 1] - sums[places - half]) / (2 * half + 1)
    return means


def _suggest(
    rates: NDArray[np.float64], costs: NDArray[np.float64], smoothed: NDArray[np.float64], window: int
) -> tuple[float, float] | tuple[None, None]:
    """eta_min and eta_max as `lr_range_test` defines them."""
    start = costs[:window].mean()
    inside = slice(window // 2, len(smoothed) - window // 2)  # where the mean is over a whole window
    best = inside.start + int(np.argmin(smoothed[inside]))
    fall = start - smoothed[best]
    # From neighbouring steps, between which little but the batch changes, by the median: no jump counts.
    deviation = np.median(np.abs(np.diff(costs))) / (0.6745 * np.sqrt(2))
    if fall <= NOISE * deviation / np.sqrt(window):
        return None, None
    above = np.flatnonzero(smoothed[:best] > start - FALL_AT_ETA_MIN * fall)
    first = above[-1] + 1 if above.size else 0
    last = first + int(np.argmax(smoothed[first:] <= start - FALL_AT_ETA_MAX * fall))
    return float(rates[first]), float(rates[last])
