"""The learning-rate range test, which suggests the bounds of a cyclical schedule."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._checks import check_integer, check_real, check_seed, describe
from .augmentation import Augmentation
from .backend import ops
from .datasets import Normalizer, Split
from .network import Network
from .optimizers import Optimizer
from .prepared import PreparedData

FALL_AT_ETA_MIN, FALL_AT_ETA_MAX = 0.1, 0.95
DIVERGED = 4.0
# A fall counts only if it exceeds this many standard errors of a window's mean; costs that are pure noise pass in about
# one test out of seventy.
NOISE = 5.0


@dataclass(frozen=True, eq=False, repr=False)
class LrRangeResult:
    """Result of `lr_range_test`.

    Attributes
    ----------
    learning_rates : ndarray of float64, shape (n,)
        Learning rates, rising geometrically; n is less than ``n_steps`` if the
        cost diverged.
    costs : ndarray of float64, shape (n,)
        Cost of each step's batch before its update, including the penalty.
    smoothed : ndarray of float64, shape (n,)
        Mean of ``costs`` over a window around each step.
    eta_min, eta_max : float or None
        Suggested bounds; None if the cost never fell by more than its noise
        from batch to batch explains.
    diverged : bool
        Whether the test stopped early because the cost diverged.
    """

    learning_rates: NDArray[np.float64]
    costs: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    eta_min: float | None
    eta_max: float | None
    diverged: bool

    def __repr__(self) -> str:
        if self.eta_min is None or self.eta_max is None:
            found = "no bounds suggested"
        else:
            found = f"eta_min {self.eta_min:.3g}, eta_max {self.eta_max:.3g}"
        return f"<LrRangeResult: {len(self.costs)} steps, {found}{', diverged' if self.diverged else ''}>"


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
    optimizer: Optimizer | None = None,
    class_weight: ArrayLike | None = None,
) -> LrRangeResult:
    r"""Train a copy of a network with a rising learning rate and record the cost.

    The learning rate rises geometrically from ``eta_low`` to ``eta_high``.
    With the smoothed cost :math:`C(\eta)`, its initial value :math:`C_0` and
    its lowest value :math:`C^*`, the suggested bounds are

    - ``eta_min``, where the cost starts to fall: the lowest rate such that
      :math:`C(\eta) \le C_0 - 0.1\,(C_0 - C^*)` from there to the lowest cost;
    - ``eta_max``, where the cost stops falling: the first rate with
      :math:`C(\eta) \le C_0 - 0.95\,(C_0 - C^*)`.

    These are the two bounds that Smith (2015, Section 3.3) reads off a plot
    of the accuracy over a linearly rising rate. The cost is smoothed by a
    moving average over n_steps/20 steps, fewer at the ends. The test stops
    when the cost is not finite, or when its mean over the last n_steps/20
    steps exceeds four times the lowest such mean or four times the first cost.

    Parameters
    ----------
    network : Network
        Not changed: a copy of it is trained.
    source : Split or PreparedData
        Training images and labels. The images of a split are normalised with
        the network's normaliser or, if it has none, with one fitted to them.
    eta_low, eta_high : float
        First and last learning rate, ``0 < eta_low < eta_high``.
    n_steps : int
        Number of update steps, at least 20.
    batch_size : int
        Images per update.
    l2 : float
        λ: coefficient of the L2 penalty.
    seed : int
        Seed of the order of the images, dropout and augmentation.
    label_smoothing, momentum, dropout, augmentation, optimizer, class_weight
        As for `Network.train_steps`: use the values that training will use.

    Returns
    -------
    LrRangeResult

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range, or if the cost
        diverges within the first n_steps/10 steps.

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
    prepared = _prepare(network, source)
    batch_size = check_integer("batch_size", batch_size, 1, len(prepared))
    rates = np.geomspace(eta_low, eta_high, n_steps)
    window = max(1, n_steps // 20)
    options = {
        "batch_size": batch_size,
        "l2": l2,
        "seed": check_seed(seed),
        "label_smoothing": label_smoothing,
        "momentum": momentum,
        "dropout": dropout,
        "augmentation": augmentation,
        "optimizer": optimizer,
        "class_weight": class_weight,
    }
    network.set_optimizer_state(None)
    costs = _train(network, prepared, rates, window, options)
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
    """Geometric mean of the bounds that several range tests of one architecture suggest.

    Parameters
    ----------
    results : sequence of LrRangeResult

    Returns
    -------
    (float, float) or None
        Geometric means of ``eta_min`` and ``eta_max`` over the tests that
        suggest bounds; None if there are none.
    """
    bounds = np.array([(result.eta_min, result.eta_max) for result in results if result.eta_min is not None])
    if not len(bounds):
        return None
    low, high = np.exp(np.log(bounds).mean(axis=0)).tolist()
    return low, high


def _prepare(network: Network, source: Split | PreparedData) -> PreparedData:
    if isinstance(source, PreparedData):
        return source
    if not isinstance(source, Split):
        raise TypeError(f"source must be a Split or come from Network.prepare, but got {describe(source)}")
    normalizer = None
    if source.holds_pixels:
        normalizer = network.normalizer or Normalizer.fit(source.images)
    return network.prepare(source.images, source.labels, normalizer=normalizer)


def _train(
    network: Network, prepared: PreparedData, rates: NDArray[np.float64], window: int, options: dict[str, Any]
) -> NDArray[np.float64]:
    """Costs of all steps, or of those before divergence."""
    batch_size, seed = options["batch_size"], options["seed"]
    per_epoch = len(prepared) // batch_size
    costs, step = np.empty(0), 0
    while step < len(rates):
        if step % per_epoch == 0:
            order = ops.shuffled_order(len(prepared), seed, step // per_epoch)
        first = step % per_epoch
        count = min(window, per_epoch - first, len(rates) - step)
        batches = order[first * batch_size : (first + count) * batch_size]
        found = network.train_steps(prepared, batches, rates[step : step + count], first_step=step, **options)
        costs = np.append(costs, found)
        step += count
        end = _divergence(costs, window)
        if end is not None:
            return costs[:end]
    return costs


def _divergence(costs: NDArray[np.float64], window: int) -> int | None:
    """The step at which the cost diverged, or None."""
    finite = np.isfinite(costs)
    end = len(costs) if finite.all() else int(np.argmin(finite))
    if end >= window:
        means = np.convolve(costs[:end], np.ones(window) / window, mode="valid")
        diverged = means > DIVERGED * np.minimum(np.minimum.accumulate(means), costs[0])
        if diverged.any():
            return int(np.argmax(diverged)) + window - 1
    return None if end == len(costs) else end


def _smooth(costs: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Centred moving average over ``window`` steps, over fewer near the ends."""
    sums = np.concatenate([[0.0], np.cumsum(costs)])
    steps = np.arange(len(costs))
    half = np.minimum(window // 2, np.minimum(steps, len(costs) - 1 - steps))
    means: NDArray[np.float64] = (sums[steps + half + 1] - sums[steps - half]) / (2 * half + 1)
    return means


def _suggest(
    rates: NDArray[np.float64], costs: NDArray[np.float64], smoothed: NDArray[np.float64], window: int
) -> tuple[float, float] | tuple[None, None]:
    """eta_min and eta_max as `lr_range_test` defines them."""
    start = costs[:window].mean()
    interior = slice(window // 2, len(smoothed) - window // 2)  # where the mean is over a whole window
    best = interior.start + int(np.argmin(smoothed[interior]))
    fall = start - smoothed[best]
    # Between neighbouring steps, little but the batch changes; the median is robust to jumps.
    deviation = np.median(np.abs(np.diff(costs))) / (0.6745 * np.sqrt(2))
    if fall <= NOISE * deviation / np.sqrt(window):
        return None, None
    above = np.flatnonzero(smoothed[:best] > start - FALL_AT_ETA_MIN * fall)
    first = above[-1] + 1 if above.size else 0
    last = first + int(np.argmax(smoothed[first:] <= start - FALL_AT_ETA_MAX * fall))
    return float(rates[first]), float(rates[last])
