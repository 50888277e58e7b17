"""Callbacks: functions that watch a training run and may stop it.

A callback is any callable that takes a `TrainingEvent`; it stops training by
returning True. The callbacks in this module derive their decisions from the
history, which checkpoints contain, so they also work in a resumed run.

>>> import cyconv
>>> data = cyconv.make_shapes(n_train=200, n_validation=50, n_test=10, seed=0)
>>> network = cyconv.Network(filter_size=8, n_filters=4, n_hidden=10, seed=0)
>>> schedule = cyconv.CyclicSchedule(eta_min=1e-5, eta_max=1e-1, step_size=5, n_cycles=3)
>>> trainer = cyconv.CyclicTrainer(network, schedule, batch_size=20)
>>> def print_cycle(event):
...     if event.kind == "cycle_end":
...         print("a cycle ended at step", event.step)
>>> history = trainer.fit(data.train, data.validation, log_every=5, progress=False,
...                       callbacks=[print_cycle, lambda event: event.step >= 30])
a cycle ended at step 10
a cycle ended at step 30
>>> trainer.step, history.complete
(30, False)
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ._checks import check_choice, check_integer, check_real, describe
from ._files import check_writable
from ._typing import Parameters, StrPath
from .history import CURVES, History
from .network import Network

if TYPE_CHECKING:
    from .trainer import CyclicTrainer

MONITORS = CURVES[:6]


@dataclass(frozen=True)
class TrainingEvent:
    """The argument of a callback.

    Attributes
    ----------
    kind : {"logged", "cycle_end"}
        A point was added to the history, or a cycle of the schedule has ended.
        If both happen at the same step, ``"logged"`` comes first.
    trainer : CyclicTrainer
        The trainer, between two updates.
    step : int
        Number of updates done so far.
    row : dict of str to float
        The latest point of the history, by the names of the curves; empty
        if nothing has been logged yet.
    """

    kind: str
    trainer: "CyclicTrainer"
    step: int
    row: dict[str, float]


Callback: TypeAlias = Callable[[TrainingEvent], Any]


class EarlyStopping:
    """Stop training when a curve has stopped improving.

    Parameters
    ----------
    monitor : {"loss_val", "cost_val", "acc_val", "loss_train", "cost_train", "acc_train"}, default "loss_val"
        The curve to watch: accuracies should rise, losses and costs fall.
    patience : int, default 10
        Number of logged points without improvement after which training stops.
    min_delta : float, default 0.0
        Smallest change that counts as an improvement.
    from_step : int, default 0
        Ignore points before this step. With a cyclical learning rate, curves
        also get worse while the rate rises.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> stopping = EarlyStopping(monitor="acc_val", patience=5)
    >>> history = trainer.fit(train, validation, callbacks=[stopping])  # doctest: +SKIP
    """

    def __init__(
        self, monitor: str = "loss_val", patience: int = 10, min_delta: float = 0.0, from_step: int = 0
    ) -> None:
        self.monitor = check_choice("monitor", monitor, MONITORS)
        self.patience = check_integer("patience", patience, 1)
        self.min_delta = check_real("min_delta", min_delta, 0)
        self.from_step = check_integer("from_step", from_step, 0)

    def __call__(self, event: TrainingEvent) -> bool:
        """Return whether training should stop."""
        if event.kind != "logged":
            return False
        history = event.trainer.history
        values = _scores(history, self.monitor)[history["update_steps"] >= self.from_step]
        best, since = -np.inf, 0
        for value in values:
            since = 0 if value > best + self.min_delta else since + 1
            best = max(best, value) if since == 0 else best
        return since >= self.patience


class KeepBest:
    """Keep the parameters of the logged point at which a curve was best.

    Parameters
    ----------
    path : path-like, optional
        File to which the network is saved, with `Network.save`, whenever it is
        the best so far; a resumed run continues with it. By default, the
        parameters are kept in memory only.
    monitor : {"acc_val", "loss_val", "cost_val", "acc_train", "loss_train", "cost_train"}, default "acc_val"
        The curve to watch: accuracies are best at their highest, losses and
        costs at their lowest value. Among equal points, the first is kept.

    Attributes
    ----------
    step : int or None
        The step of the best point so far.
    value : float or None
        The value of the curve at that step.
    parameters : dict of str to ndarray or None
        The network's parameters at that step.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> best = KeepBest("best.npz")  # doctest: +SKIP
    >>> history = trainer.fit(train, validation, callbacks=[best])  # doctest: +SKIP
    >>> network.set_parameters(best.parameters)  # doctest: +SKIP
    """

    def __init__(self, path: StrPath | None = None, monitor: str = "acc_val") -> None:
        self.path = None if path is None else check_writable("path", path)
        self.monitor = check_choice("monitor", monitor, MONITORS)
        self.step: int | None = None
        self.value: float | None = None
        self.parameters: Parameters | None = None

    def __call__(self, event: TrainingEvent) -> None:
        """Keep the parameters if the latest point is the best one."""
        if event.kind != "logged":
            return
        values = _scores(event.trainer.history, self.monitor)
        if np.isnan(values[-1]) or (values[:-1] >= values[-1]).any():
            return
        if self.path is not None:
            event.trainer.network.save(self.path)
        self.step, self.value = event.step, event.row[self.monitor]
        self.parameters = event.trainer.network.parameters

    def restore(self, network: Network) -> None:
        """Set a network's parameters to the best ones.

        Raises
        ------
        RuntimeError
            If no point has been logged yet.
        """
        if self.parameters is None:
            raise RuntimeError("restore must be called after a point was logged, but none was")
        network.set_parameters(self.parameters)


def check_callbacks(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    """Return the callbacks as a tuple, or raise if one is not callable."""
    if callable(callbacks) or isinstance(callbacks, str | bytes | dict):
        raise TypeError(f"callbacks must be a sequence of callables, but got {describe(callbacks)}")
    try:
        found = tuple(callbacks)
    except TypeError:
        raise TypeError(f"callbacks must be a sequence of callables, but got {describe(callbacks)}") from None
    for i, callback in enumerate(found):
        if not callable(callback):
            raise TypeError(f"callbacks[{i}] must be callable, but got {describe(callback)}")
    return found


def _scores(history: History, monitor: str) -> Any:
    """A curve for which higher is better: losses and costs are negated."""
    return history[monitor] if monitor.startswith("acc") else -history[monitor]
