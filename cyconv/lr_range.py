"""The learning-rate range test, which suggests the bounds of a cyclical schedule."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._checks import check_integer, check_real, check_seed, describe
from ._typing import IntArray
from .augmentation import Augmentation
from .backend import ops
from .datasets import Normalizer, Split
from .datasets.normalizer import check_whitening
from .network import Network
from .optimizers import Optimizer
from .prepared import PreparedData

FALL_AT_ETA_MIN, FALL_AT_ETA_MAX = 0.1, 0.98
DIVERGED = 4.0
# A fall or a rise counts only if it exceeds this many standard errors of the difference of two windows' means.
NOISE = 4.0
# The network has learned something if the labels of held-out images fit better than random ones by this many standard
# deviations, at one of the 20 checks of a test. By the normal distribution, random labels pass in fewer than one test
# out of a thousand; of 260 tests with random labels on 100 to 4,000 drawn images none passed, the highest being 3.0.
LEARNED = 4.0
MAX_HELD_OUT = 2000

_Suggestion: TypeAlias = tuple[float | None, float | None, bool, bool]
NOTHING: _Suggestion = (None, None, False, False)


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
        Mean of the losses, that is, of ``costs - penalties``, over a window
        around each step.
    eta_min, eta_max : float or None
        Suggested bounds; both are None if the network learned nothing that
        holds for other images, or if the range was too short.
    diverged : bool
        Whether the test stopped early because the cost diverged.
    falling_at_eta_low : bool
        Whether the range was too short, because the loss was already falling at
        ``eta_low``: try a lower one.
    falling_at_eta_high : bool
        Whether the range was too short, because the loss had not risen again at
        ``eta_high``: try a higher one.
    penalties : ndarray of float64, shape (n,), or 0
        The penalty in each of the ``costs``.
    """

    learning_rates: NDArray[np.float64]
    costs: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    eta_min: float | None
    eta_max: float | None
    diverged: bool
    falling_at_eta_low: bool = False
    falling_at_eta_high: bool = False
    penalties: NDArray[np.float64] | float = 0.0

    def __repr__(self) -> str:
        if self.eta_min is None or self.eta_max is None:
            found = f"no bounds suggested, since {self.explanation}"
        else:
            found = f"eta_min {self.eta_min:.3g}, eta_max {self.eta_max:.3g}"
        return f"<LrRangeResult: {len(self.costs)} steps, {found}{', diverged' if self.diverged else ''}>"

    @property
    def explanation(self) -> str:
        """str: why no bounds are suggested; empty if they are."""
        reasons = [
            *["the loss was already falling at eta_low"] * self.falling_at_eta_low,
            *["the loss had not risen again at eta_high"] * self.falling_at_eta_high,
        ]
        if self.eta_min is None and not reasons:
            reasons = ["nothing was learned at these rates"]
        return " and ".join(reasons)


def lr_range_test(
    network: Network,
    source: Split | PreparedData,
    eta_low: float = 1e-6,
    eta_high: float = 10.0,
    n_steps: int = 1000,
    batch_size: int = 100,
    l2: float = 0.0,
    seed: int = 0,
    label_smoothing: float = 0.0,
    momentum: float = 0.0,
    dropout: float = 0.0,
    augmentation: Augmentation | None = None,
    optimizer: Optimizer | None = None,
    class_weight: ArrayLike | None = None,
    whitening: float | None = None,
) -> LrRangeResult:
    r"""Train a copy of a network with a rising learning rate and record the cost.

    The learning rate rises geometrically from ``eta_low`` to ``eta_high``.
    With the smoothed loss :math:`L(\eta)` of the batches (without the penalty,
    which falls at any high rate), the loss :math:`L_0` of the untrained network
    and the lowest value :math:`L^*`, the suggested bounds are

    - ``eta_min``, where the loss starts to fall: the lowest rate such that
      :math:`L(\eta) \le L_0 - 0.1\,(L_0 - L^*)` from there to the lowest loss;
    - ``eta_max``, where the loss starts to rise: the highest rate such that
      :math:`L(\eta) \le L_0 - 0.98\,(L_0 - L^*)` from the lowest loss to there.

    These are the two bounds that Smith (2015, Section 3.3) reads off a plot
    of the accuracy over a linearly rising rate: where it starts to increase,
    and where it becomes ragged or starts to fall. One cycle up to ``eta_max``
    came within two points of the best on every problem tried; scripts/README.md
    has these, beside the rules of other libraries. Single tests scatter by a
    factor of 1.1 to 1.5: take the geometric mean of several seeds. Fewer steps
    suggest higher rates, at which longer training may diverge.

    The loss is smoothed by a moving average over n_steps/20 steps, fewer at
    the ends. The test stops when the cost is not finite, or when its mean over
    the last n_steps/20 steps exceeds four times the lowest such mean or four
    times the first cost.

    Nothing is suggested if the range does not show both bounds: if the loss
    was falling already in the first n_steps/20 steps, or if it had not risen
    again by the last ones. Neither is anything suggested if the network
    learned nothing. A fall of the loss does not tell: at first a network is
    confident without reason, and later it may learn its images by heart. So a
    fifth of the images, at most 2,000, are held out, and the network must
    find their labels more probable than other labels.

    Parameters
    ----------
    network : Network
        Not changed: a copy of it is trained.
    source : Split or PreparedData
        Training images and labels, of at least 10 images. The images of a split
        are normalised with the network's normaliser or, if it has none, with
        one fitted to them.
    eta_low, eta_high : float
        First and last learning rate, ``0 < eta_low < eta_high``.
    n_steps : int
        Number of update steps, at least 20.
    batch_size : int
        Images per update, at most the number of images that are not held out.
    l2 : float
        λ: coefficient of the L2 penalty.
    seed : int
        Seed of the order of the images, dropout and augmentation.
    label_smoothing, momentum, dropout, augmentation, optimizer, class_weight
        As for `Network.train_steps`: use the values that training will use.
    whitening : float, optional
        As for `CyclicTrainer`: the ε of the whitening with which a normaliser
        is fitted to a split.

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
    >>> data = cyconv.make_shapes(n_train=4000, n_validation=10, n_test=10, seed=0)
    >>> network = cyconv.Network(filter_size=4, n_filters=10, n_hidden=50, seed=0)
    >>> found = lr_range_test(network, data.train)
    >>> bool(1e-6 < found.eta_min < found.eta_max < 10)
    True
    """
    if not isinstance(network, Network):
        raise TypeError(f"network must be a Network, but got {describe(network)}")
    eta_low = check_real("eta_low", eta_low, 0, interval="()")
    eta_high = check_real("eta_high", eta_high, eta_low, interval="()")
    n_steps = check_integer("n_steps", n_steps, 20, 10**7)
    l2 = check_real("l2", l2, 0)
    network = network.copy()
    prepared = _prepare(network, source, whitening)
    if len(prepared) < 10:
        raise ValueError(f"source must hold at least 10 images, but got {len(prepared)}")
    shuffled = ops.shuffled_order(len(prepared), check_seed(seed), 0)
    n_held_out = min(MAX_HELD_OUT, len(prepared) // 5)
    train, held_out = np.sort(shuffled[n_held_out:]), np.sort(shuffled[:n_held_out])
    batch_size = check_integer("batch_size", batch_size, 1, len(train))
    rates = np.geomspace(eta_low, eta_high, n_steps)
    window = max(1, n_steps // 20)
    options = {
        "batch_size": batch_size,
        "l2": l2,
        "seed": seed,
        "label_smoothing": label_smoothing,
        "momentum": momentum,
        "dropout": dropout,
        "augmentation": augmentation,
        "optimizer": optimizer,
        "class_weight": class_weight,
    }
    untrained = _train(network, prepared, (train, held_out), np.zeros(window), window, options)
    network.set_optimizer_state(None)
    costs, penalties, learned = _train(network, prepared, (train, held_out), rates, window, options)
    if len(costs) < 2 * window:
        raise ValueError(
            f"eta_low, eta_high and l2 must let training go on for {2 * window} steps, but got {eta_low}, {eta_high} "
            f"and {l2}: the cost diverged after {len(costs)}, at a learning rate of {rates[len(costs)]:.3g}"
        )
    rates = rates[: len(costs)]
    losses = costs - penalties
    smoothed = _smooth(losses, window)
    diverged = len(costs) < n_steps
    untrained_loss = float(np.mean(untrained[0] - untrained[1]))
    eta_min, eta_max, low, high = _suggest(rates, losses, smoothed, window, untrained_loss, diverged)
    if not learned:
        eta_min = eta_max = None
    return LrRangeResult(rates, costs, smoothed, eta_min, eta_max, diverged, low, high, penalties)


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


def _prepare(network: Network, source: Split | PreparedData, whitening: float | None) -> PreparedData:
    if isinstance(source, PreparedData):
        if whitening is not None:
            raise ValueError(f"whitening must be None for prepared data, but got {whitening}")
        return source
    if not isinstance(source, Split):
        raise TypeError(f"source must be a Split or come from Network.prepare, but got {describe(source)}")
    whitening = check_whitening(whitening, network.normalizer, source.holds_pixels)
    normalizer = None
    if source.holds_pixels:
        normalizer = network.normalizer or Normalizer.fit(source.images, whitening)
    return network.prepare(source.images, source.labels, normalizer=normalizer)


def _train(
    network: Network,
    prepared: PreparedData,
    parts: tuple[IntArray, IntArray],
    rates: NDArray[np.float64],
    window: int,
    options: dict[str, Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Costs and penalties of all steps, or of those before divergence, and whether anything was learned on the way."""
    train, held_out = parts[0], prepared.take(parts[1])
    l2, batch_size = options["l2"], options["batch_size"]
    costs, penalties, learned = np.zeros(len(rates)), np.zeros(len(rates)), False
    for start in range(0, len(rates), window):
        stop = min(start + window, len(rates))
        batches = _batches(train, start, stop - start, batch_size, options["seed"])
        count = 1 if l2 else stop - start  # the penalty is that of each step
        for first in range(start, stop, count):
            part = slice(first, first + count)
            penalties[part] = l2 * network.penalty()
            images = batches[(first - start) * batch_size :]
            network.train_steps(prepared, images, rates[part], first_step=first, out=costs[part], **options)
        end = _divergence(costs[:stop], window)
        if end is not None:
            return costs[:end], penalties[:end], learned
        learned = learned or _knows(network, held_out)
    return costs, penalties, learned


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


def _batches(images: IntArray, step: int, count: int, batch_size: int, seed: int) -> IntArray:
    """The images of ``count`` batches from a step on, where each epoch has its own order."""
    per_epoch = len(images) // batch_size
    epochs = range(step // per_epoch, (step + count - 1) // per_epoch + 1)
    orders = [ops.shuffled_order(len(images), seed, epoch)[: per_epoch * batch_size] for epoch in epochs]
    first = (step - epochs[0] * per_epoch) * batch_size
    return images[np.concatenate(orders)[first : first + count * batch_size]]


def _knows(network: Network, held_out: PreparedData) -> bool:
    """Whether the labels of held-out images are more probable to the network than those of other images.

    The sum of their logarithms is compared with its mean over all permutations
    of the labels, in units of its standard deviation over them (Hoeffding, "A
    Combinatorial Central Limit Theorem", 1951).
    """
    probabilities = network.predict_proba(held_out)
    logarithms = np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).tiny), dtype=np.float64)
    labels = held_out.labels
    assert labels is not None
    targets = np.eye(network.n_classes)[labels] if labels.ndim == 1 else labels.astype(np.float64)
    logarithms -= logarithms.mean(axis=0)
    targets -= targets.mean(axis=0)
    variance = np.sum((logarithms.T @ logarithms) * (targets.T @ targets)) / (len(targets) - 1)
    return bool(np.sum(logarithms * targets) > LEARNED * np.sqrt(variance))


def _suggest(
    rates: NDArray[np.float64],
    costs: NDArray[np.float64],
    smoothed: NDArray[np.float64],
    window: int,
    untrained: float,
    diverged: bool,
) -> _Suggestion:
    """What `LrRangeResult` has of these: eta_min, eta_max, falling_at_eta_low and falling_at_eta_high."""
    whole = slice(window // 2, len(smoothed) - window // 2)  # where the mean is over a whole window
    best = whole.start + int(np.argmin(smoothed[whole]))
    fall, rise = untrained - smoothed[best], smoothed[whole][-1] - smoothed[best]
    start, lowest, end = (
        _variance(costs[max(0, middle - 2 * window) : middle + 2 * window + 1])
        for middle in (2 * window, best, len(costs) - 2 * window)
    )
    if fall <= NOISE * np.sqrt((start + lowest) / window):
        return NOTHING
    falling_at_start = bool(untrained - costs[:window].mean() > FALL_AT_ETA_MIN * fall)
    slack = max((1 - FALL_AT_ETA_MAX) * fall, NOISE * np.sqrt((lowest + end) / window))
    falling_at_end = not diverged and bool(rise <= slack)
    if falling_at_start or falling_at_end:
        return None, None, falling_at_start, falling_at_end
    above = np.flatnonzero(smoothed[:best] > untrained - FALL_AT_ETA_MIN * fall)
    first = above[-1] + 1 if above.size else 0
    above = np.flatnonzero(smoothed[best:] > untrained - FALL_AT_ETA_MAX * fall)
    last = best + above[0] - 1 if above.size else len(rates) - 1
    return float(rates[first]), float(rates[last]), False, False


def _variance(costs: NDArray[np.float64]) -> float:
    """Variance of the costs of batches: between neighbouring steps, little but the batch changes.

    The median is robust to jumps.
    """
    deviation = np.median(np.abs(np.diff(costs))) / (0.6745 * np.sqrt(2))
    return float(deviation**2)
