"""CyclicTrainer: the loop over updates, with logging, interruption and resumption."""

import contextlib
import json
import signal
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._checks import check_class_weight, check_flag, check_integer, check_memory, check_real, describe
from ._files import check_writable
from ._progress import ProgressBar, is_interactive
from ._signals import Interrupted, SignalRecorder, StopRequested
from ._typing import IntArray, JsonDict, Parameters, StrPath
from .augmentation import Augmentation
from .backend import ops
from .callbacks import Callback, KeepBest, TrainingEvent, check_callbacks
from .checkpoint import Checkpoint, read_checkpoint, running_versions, translate_errors, write_checkpoint
from .datasets import Normalizer, Split
from .datasets.normalizer import check_whitening
from .datasets.split import summarise
from .datasets.whitening import EPSILON_RANGE
from .history import History
from .network import Network
from .optimizers import Optimizer, check_optimizer, optimizer_from
from .prepared import PreparedData
from .schedules import Schedule, check_schedule, describe_schedule, learning_rates, recorded_schedule

_CALL_SECONDS = 0.05  # target duration of one call of train_steps; signals are handled between calls
_MAY_CHANGE = (
    "batch_size",
    "l2",
    "label_smoothing",
    "seed",
    "momentum",
    "dropout",
    "augmentation",
    "optimizer",
    "class_weight",
)
_OPTIONAL = ("optimizer", "class_weight")  # in the settings only if given: files of 0.1.0 do not have them
_PENDING = -np.inf  # placeholder for the cost of an update that has not been made yet


class DivergenceError(FloatingPointError):
    """Raised when training produces a cost or a parameter that is NaN or infinite.

    Attributes
    ----------
    step : int
        Update step at which the first such value was found.
    learning_rate : float
        Learning rate at that step.
    """

    step: int | None = None
    learning_rate: float | None = None


class _Options(TypedDict):
    batch_size: int
    l2: float
    label_smoothing: float
    momentum: float
    dropout: float
    seed: int
    augmentation: Augmentation | None
    optimizer: Optimizer | None
    class_weight: tuple[float, ...] | None


class CyclicTrainer:
    """Train a network by mini-batches with a cyclical learning rate.

    Batches, dropout and augmentation depend only on ``seed`` and the step, so
    a run gives the same results, bit for bit, however often it is logged or
    checkpointed and wherever it is interrupted and resumed.

    Parameters
    ----------
    network : Network
        Trained in place.
    schedule : Schedule
        Learning rate of each update; training ends after its ``total_steps``.
        `CyclicSchedule`, another one of `cyconv.schedules`, or an object with
        the members of `Schedule`, which must be passed to `resume` again.
    batch_size : int, default 100
        Images per update. An epoch has ``n // batch_size`` updates; images
        left over at its end are skipped.
    l2 : float, default 0.0
        λ: coefficient of the L2 penalty, the sum of all squared weights.
    label_smoothing : float, default 0.0
        ε in [0, 1): probability taken from the true class and shared equally
        among the others.
    seed : int, default 0
        Seed of shuffling, dropout and augmentation, in 0..2**64 - 1.
    momentum : float, default 0.0
        μ in [0, 1); the velocity starts at zero. Short for
        ``optimizer=SGD(momentum)``.
    dropout : float, default 0.0
        Probability, in [0, 1), that a hidden unit is dropped.
    augmentation : Augmentation, optional
        Random changes of the training images; none by default.
    snapshots : bool, default False
        Whether to keep the parameters at the end of every cycle, for an
        ensemble.
    optimizer : Optimizer, optional
        `SGD` or `AdamW`; by default gradient descent with ``momentum``.
    class_weight : array_like of float, (n_classes,), optional
        As for `Network.train_steps`: weights of the classes in the training
        loss, not in the evaluations.
    whitening : float, optional
        Whiten the images before they are normalised: the ε of
        `cyconv.datasets.Whitening`, such as 0.3. The network is given a
        normaliser that whitens, and must not have one already. A whitened copy
        of the images is kept in memory.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Attributes
    ----------
    network : Network
    schedule : Schedule
    batch_size, l2, label_smoothing, seed, momentum, dropout, augmentation, optimizer, class_weight, whitening
        As passed to the constructor. All attributes are read-only.
    history : History
        Everything logged so far.
    step : int
        Number of updates done so far.
    snapshots : list of dict of str to ndarray
        The parameters at the end of each cycle so far, if ``snapshots`` was
        True.

    Examples
    --------
    >>> import cyconv
    >>> data = cyconv.make_shapes(n_train=200, n_validation=50, n_test=10, seed=0)
    >>> network = cyconv.Network(filter_size=8, n_filters=4, n_hidden=10, seed=0)
    >>> schedule = cyconv.CyclicSchedule(eta_min=1e-5, eta_max=1e-1, step_size=5, n_cycles=1)
    >>> trainer = cyconv.CyclicTrainer(network, schedule, batch_size=20, l2=0.003)
    >>> history = trainer.fit(data.train, data.validation, log_every=5, progress=False)
    >>> history["update_steps"]
    array([ 0,  5, 10])
    """

    __slots__ = (
        "_network",
        "_schedule",
        "_described_schedule",
        "_options",
        "_keeps_snapshots",
        "_whitening",
        "_history",
        "_snapshots",
        "_updates",
        "_fingerprints",
        "_schedule_start",
        "_earlier",
        "_ended",
        "__weakref__",
    )

    def __init__(
        self,
        network: Network,
        schedule: Schedule,
        batch_size: int = 100,
        l2: float = 0.0,
        label_smoothing: float = 0.0,
        seed: int = 0,
        momentum: float = 0.0,
        dropout: float = 0.0,
        augmentation: Augmentation | None = None,
        snapshots: bool = False,
        optimizer: Optimizer | None = None,
        class_weight: ArrayLike | None = None,
        whitening: float | None = None,
    ) -> None:
        if not isinstance(network, Network):
            raise TypeError(f"network must be a Network, but got {describe(network)}")
        if not isinstance(augmentation, Augmentation | None):
            raise TypeError(f"augmentation must be an Augmentation or None, but got {describe(augmentation)}")
        check_optimizer(optimizer, momentum)
        weights = check_class_weight(class_weight, network.n_classes)
        self._network = network
        self._schedule = check_schedule("schedule", schedule)
        self._described_schedule = describe_schedule(schedule)
        self._options: _Options = {
            "batch_size": check_integer("batch_size", batch_size, 1),
            "l2": check_real("l2", l2, 0),
            "label_smoothing": check_real("label_smoothing", label_smoothing, 0, 1, "[)"),
            "momentum": check_real("momentum", momentum, 0, 1, "[)"),
            "dropout": check_real("dropout", dropout, 0, 1, "[)"),
            "seed": check_integer("seed", seed, 0, 2**64 - 1),
            "augmentation": augmentation,
            "optimizer": optimizer,
            "class_weight": None if weights is None else tuple(weights.tolist()),
        }
        self._keeps_snapshots = check_flag("snapshots", snapshots)
        self._whitening = None if whitening is None else check_real("whitening", whitening, *EPSILON_RANGE)
        self._history = History()
        self._snapshots: list[Parameters] = []
        # The latest call of train_steps: the step of its first update and the costs, which the kernel fills in.
        # `step` is derived from these alone, so no exception can leave it out of step with the parameters.
        self._updates: tuple[int, NDArray[np.float64]] = 0, np.empty(0)
        self._fingerprints: dict[str, str] | None = None
        self._schedule_start = 0  # step at which the schedule began
        self._earlier: list[JsonDict] = []  # settings before each `resume_with`, with the step until which they applied
        self._ended: str | None = None  # why fit cannot be called again

    if not TYPE_CHECKING:  # hidden from type checkers, which would then allow any attribute to be set

        def __setattr__(self, name: str, value: object) -> None:
            if not name.startswith("_") and hasattr(CyclicTrainer, name):
                raise AttributeError(f"{name} of a trainer cannot be changed, but got {describe(value)}")
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"<CyclicTrainer: {self.step} of {self._total_steps} update steps, {self.network!r}, {self.schedule!r}>"

    @property
    def network(self) -> Network:
        """Network: the network that is trained in place."""
        return self._network

    @property
    def schedule(self) -> Schedule:
        """Schedule: the learning-rate schedule."""
        return self._schedule

    @property
    def history(self) -> History:
        """History: everything logged so far."""
        return self._history

    @property
    def snapshots(self) -> list[Parameters]:
        """list of dict of str to ndarray: the parameters at the end of each cycle so far, if kept."""
        return self._snapshots

    @property
    def batch_size(self) -> int:
        """int: images per update."""
        return self._options["batch_size"]

    @property
    def l2(self) -> float:
        """float: λ, the coefficient of the L2 penalty."""
        return self._options["l2"]

    @property
    def label_smoothing(self) -> float:
        """float: ε, the label smoothing."""
        return self._options["label_smoothing"]

    @property
    def seed(self) -> int:
        """int: seed of shuffling, dropout and augmentation."""
        return self._options["seed"]

    @property
    def momentum(self) -> float:
        """float: μ, the momentum."""
        return self._options["momentum"]

    @property
    def dropout(self) -> float:
        """float: probability that a hidden unit is dropped."""
        return self._options["dropout"]

    @property
    def augmentation(self) -> Augmentation | None:
        """Augmentation or None: random changes of the training images."""
        return self._options["augmentation"]

    @property
    def optimizer(self) -> Optimizer | None:
        """Optimizer or None: as given."""
        return self._options["optimizer"]

    @property
    def class_weight(self) -> tuple[float, ...] | None:
        """tuple of float or None: weights of the classes."""
        return self._options["class_weight"]

    @property
    def whitening(self) -> float | None:
        """float or None: the ε of the whitening."""
        return self._whitening

    @property
    def step(self) -> int:
        """int: number of updates done so far."""
        first, costs = self._updates
        return first + int(np.count_nonzero(costs != _PENDING))

    @property
    def settings(self) -> JsonDict:
        """dict: the constructor's arguments as JSON values, with the settings of network and schedule.

        A user-defined schedule is described by its settings, its class name and some of its learning rates. After
        `resume_with`, ``earlier`` holds the previous settings and ``schedule_start`` the first step of the schedule.
        """
        options: JsonDict = dict(self._options)
        augmentation, optimizer, class_weight = (options.pop(name) for name in ("augmentation", *_OPTIONAL))
        if optimizer is not None:
            options["optimizer"] = optimizer.settings
        if class_weight is not None:
            options["class_weight"] = list(class_weight)
        return {
            "network": self.network.architecture,
            "schedule": self._described_schedule,
            **options,
            "augmentation": None if augmentation is None else augmentation.settings,
            "snapshots": self._keeps_snapshots,
            **({} if self._whitening is None else {"whitening": self._whitening}),
            **({"earlier": self._earlier, "schedule_start": self._schedule_start} if self._earlier else {}),
        }

    def fit(
        self,
        train: Split,
        validation: Split | None = None,
        log_every: int = 50,
        checkpoint: StrPath | None = None,
        checkpoint_every: int | None = None,
        progress: bool | str | None = None,
        n_train_evaluated: int | None = None,
        callbacks: Iterable[Callback] = (),
    ) -> History:
        """Train from the current step to the end of the schedule.

        If the network has no normaliser yet, one is fitted to the training
        images and assigned to it, unless they are normalised floats. After an interruption or any exception, and
        after `resume`, training continues as if it had never stopped, bit for
        bit; a trainer that has finished or diverged cannot be used again.

        Parameters
        ----------
        train, validation : Split
            The data to learn from and the data to validate on.
            Without ``validation``, the curves that end in ``_val`` are NaN.
        log_every : int, default 50
            Both splits are evaluated at step 0, at every multiple of
            ``log_every`` and at the last step. A resumed run logs the same
            points as an uninterrupted one if ``log_every`` and
            ``n_train_evaluated`` are the same.
        checkpoint : path-like, optional
            File to write checkpoints to. An existing one is replaced only once
            the new one is complete. A checkpoint is always written at the end
            and on interruption.
        checkpoint_every : int, optional
            Number of steps between checkpoints; by default, one is written at
            the end of each cycle.
        progress : bool or str, optional
            Whether to show a progress bar on stderr or in the notebook; a str
            is used as its title. By default, a bar is shown in a notebook and
            where stderr is a terminal. If it cannot be drawn, training
            continues without it. Before the first update, all images are read
            once, to fit the normaliser and to recognise the data when a run is
            resumed; that has a bar of its own where it takes more than a second.
            With ``whitening``, they are read twice more.
        n_train_evaluated : int, optional
            Evaluate only the first ``n_train_evaluated`` training images;
            by default, all of them.
        callbacks : sequence of callable, optional
            Called in order with a `TrainingEvent` at every logged point and at
            the end of every cycle. If one returns True, training stops: a
            checkpoint is written if ``checkpoint`` was given, the history is
            left incomplete, and another ``fit`` continues bit for bit.

        Returns
        -------
        History
            The trainer's ``history``. Its ``training_time`` is the wall time
            spent in `fit`, added up over interruptions.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type or is out of range, or if the data
            do not fit the network or differ from those that the run began with.
        FileNotFoundError, PermissionError, IsADirectoryError, FileExistsError
            If the checkpoint's folder is missing or not writable, or if its
            path is not that of a regular file.
        RuntimeError
            If this trainer has finished or diverged.
        DivergenceError
            If a cost becomes NaN or infinite. The history and the last
            checkpoint are kept.
        Interrupted
            On SIGINT (Ctrl-C), SIGTERM, SIGHUP or a signal listed in the
            environment variable ``CYCONV_STOP_SIGNALS`` (such as
            ``SIGUSR1,SIGXCPU``, which batch systems send before they kill a
            job), in the main thread and within a fraction of a second. Network
            and history are in the state after the last update, a checkpoint is
            written if a path was given, and calling ``fit`` again continues
            the run. A program that does not catch the exception is terminated
            by the signal. Ignored signals stay ignored; outside the main
            thread, no signal is handled.
        OSError
            If a checkpoint cannot be written; the previous one is kept.
        """
        log_every = check_integer("log_every", log_every, 1)
        if checkpoint is not None:
            checkpoint = check_writable("checkpoint", checkpoint)
        if checkpoint_every is not None:
            checkpoint_every = check_integer("checkpoint_every", checkpoint_every, 1)
        if not isinstance(progress, bool | str | None):
            raise TypeError(f"progress must be True, False, a str or None, but got {describe(progress)}")
        if n_train_evaluated is not None:
            n_train_evaluated = check_integer("n_train_evaluated", n_train_evaluated, 1)
        self._check_split("train", train)
        if validation is not None:
            self._check_split("validation", validation)
        callbacks = check_callbacks(callbacks)
        best = [each.path.resolve() for each in callbacks if isinstance(each, KeepBest) and each.path is not None]
        if checkpoint is not None and checkpoint.resolve() in best:
            raise ValueError(f"checkpoint must be another file than a callback writes, but got {checkpoint} for both")
        batch_size = self._options["batch_size"]
        if len(train) < batch_size:
            raise ValueError(f"train must hold at least batch_size = {batch_size} images, but got {len(train)}")
        if self._ended is not None:
            raise RuntimeError(f"fit must be called on a trainer with steps left, but {self._ended}")

        signals = SignalRecorder()
        try:
            with signals:
                run = _Run(self, signals, log_every, checkpoint, checkpoint_every, progress, callbacks)
                with contextlib.suppress(StopRequested):
                    with signals.interruptible():
                        run.prepare(train, validation, n_train_evaluated)
                    if not self.history.complete:
                        run.train()
                    elif checkpoint is not None:  # an exception may have prevented the last one
                        run.save(checkpoint, stop=False)
        finally:
            signals.restore()  # once more: an exception may have interrupted the first restoration
        if signals.received is not None:
            raise run.interruption()
        return self.history

    def _check_split(self, name: str, split: Split) -> None:
        if not isinstance(split, Split):
            raise TypeError(f"{name} must be a Split, but got {describe(split)}")
        if split.images.shape[1:] != tuple(self.network.image_shape):
            raise ValueError(
                f"{name} must hold images of the network's shape {tuple(self.network.image_shape)}, "
                f"but got {describe(split.images)}"
            )
        split.check_classes(name, self.network.n_classes)

    @classmethod
    def resume(cls, path: StrPath, schedule: Schedule | None = None) -> Self:
        """Restore a trainer from a checkpoint; its `fit` continues the run bit for bit.

        Parameters
        ----------
        path : path-like
            A file written by ``fit(checkpoint=path)``. It is only read: pass
            the path to `fit` again to keep the checkpoint up to date.
        schedule : Schedule, optional
            The schedule of the run. Required if it is user-defined, which a
            checkpoint cannot store; its learning rates must be those of the run.

        Returns
        -------
        CyclicTrainer
            With a network of its own. If the run had finished, `fit` returns
            the complete history at once.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        TypeError, ValueError
            If the file is not a checkpoint, is damaged or comes from a newer
            version, or if the schedule is missing or differs from that of the
            run.

        Warns
        -----
        UserWarning
            If the checkpoint was written with a different instruction set:
            results may then differ in their last bits.
        """
        if schedule is not None:
            check_schedule("schedule", schedule)
        state, options, recorded = _read(path)
        schedule = _schedule_of_the_run(recorded, schedule, path)
        with translate_errors(path):
            trainer = cls._restored(state, options, schedule)
            if {**trainer.settings, "schedule": recorded} != state.settings:
                raise ValueError("its settings are incomplete")
            begin = trainer._earlier[-1]["until"] if trainer._earlier else 0
            optimizer = check_optimizer(trainer.optimizer, trainer.momentum)
            if state.step > begin and optimizer.keeps_state and trainer.network.optimizer_state is None:
                raise ValueError("it has no state of its optimiser")
        _warn_of_another_instruction_set(path, state)
        return trainer

    @classmethod
    def resume_with(cls, path: StrPath, schedule: Schedule | None = None, **changes: Any) -> Self:
        """Restore a trainer from a checkpoint and change some of its settings.

        `resume` continues a run exactly; this method continues it differently,
        possibly beyond the end of its schedule. Parameters, optimiser state,
        history and snapshots are kept, the step counter and the epochs are
        continued, and `settings` records the previous settings.

        Parameters
        ----------
        path : path-like
            A file written by ``fit(checkpoint=path)``.
        schedule : Schedule, optional
            A new schedule, which begins with the next update. By default, the
            schedule of the run is continued; it must have steps left.
        **changes
            New values for other arguments of the constructor, such as
            ``batch_size=200`` or ``l2=0.001``; not for ``network``, ``snapshots`` or ``whitening``.

        Returns
        -------
        CyclicTrainer

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        TypeError, ValueError
            If it is not a checkpoint, is damaged or comes from a newer version, if
            an argument is invalid, nothing is changed or no steps are left.

        Examples
        --------
        >>> schedule = cyconv.CosineSchedule(1e-5, 0.01, step_size=400)  # doctest: +SKIP
        >>> trainer = cyconv.CyclicTrainer.resume_with("run.npz", schedule, l2=0.001)  # doctest: +SKIP
        >>> history = trainer.fit(data.train, data.validation)  # doctest: +SKIP
        """
        state, options, recorded = _read(path)
        for name in changes:
            if name not in _MAY_CHANGE:
                raise TypeError(f"changes must be among {', '.join(_MAY_CHANGE)}, but got {name!r}")
        if changes.get("optimizer") is not None:
            changes.setdefault("momentum", 0.0)  # an optimiser has its own
        if schedule is None and not changes:
            raise ValueError("schedule or a change must be given, but got none: resume continues a run unchanged")
        before = {name: value for name, value in state.settings.items() if name not in ("network", "earlier")}
        with translate_errors(path):
            earlier = _checked_earlier(options.get("earlier", []), state.step)
        n_snapshots = earlier[-1]["n_snapshots"] if earlier else 0
        if schedule is None:
            schedule = _schedule_of_the_run(recorded, None, path)
        else:
            options["schedule_start"], n_snapshots = state.step, len(state.snapshots)
            check_schedule("schedule", schedule)
        options["earlier"] = [*earlier, {**before, "until": state.step, "n_snapshots": n_snapshots}]
        state.history.complete = False
        with translate_errors(path):
            cls._restored(state, options, schedule)
        trainer = cls._restored(state, {**options, **changes}, schedule)
        _warn_of_another_instruction_set(path, state)
        if trainer.step == trainer._total_steps:
            raise ValueError(f"schedule must be given where that of the run has no steps left, but {path} ends there")
        return trainer

    @classmethod
    def _restored(cls, state: Checkpoint, options: JsonDict, schedule: Schedule) -> Self:
        """Create a trainer with these settings from the state in a checkpoint."""
        options = dict(options)
        earlier, start = options.pop("earlier", []), options.pop("schedule_start", 0)
        trainer = cls(state.network, schedule, **options)
        trainer._earlier = _checked_earlier(earlier, state.step)
        trainer._schedule_start = check_integer("schedule_start", start, 0, state.step)
        trainer._updates = state.step, np.empty(0)
        trainer._history, trainer._snapshots = state.history, state.snapshots
        trainer._fingerprints = state.fingerprints
        trainer._check_consistency()
        return trainer

    @property
    def _total_steps(self) -> int:
        return self._schedule_start + self.schedule.total_steps

    @property
    def _cycle_ends(self) -> IntArray:
        return self._schedule_start + self.schedule.boundaries

    def _check_consistency(self) -> None:
        if self.whitening is not None and getattr(self.network.normalizer, "whitening", None) is None:
            raise ValueError("its settings whiten the images, but its normaliser does not")
        last = self.history.last_step
        total = self._total_steps
        if self.step > total or (last is not None and last > self.step):
            raise ValueError(f"step {self.step} does not fit its schedule or its history")
        if self.history.complete and not last == self.step == total:
            raise ValueError("its history cannot be complete before the last step")
        if len(self.snapshots) != (self._n_snapshots(self.step) if self._keeps_snapshots else 0):
            raise ValueError(f"its {len(self.snapshots)} snapshots do not fit step {self.step}")

    def _n_snapshots(self, step: int) -> int:
        """Number of cycles that have ended by this step, including those of previous schedules."""
        earlier = self._earlier[-1]["n_snapshots"] if self._earlier else 0
        return int(earlier + np.count_nonzero(self._cycle_ends <= step))


class _Run:
    """One call of `CyclicTrainer.fit`."""

    def __init__(
        self,
        trainer: CyclicTrainer,
        signals: SignalRecorder,
        log_every: int,
        checkpoint: Path | None,
        checkpoint_every: int | None,
        progress: bool | str | None,
        callbacks: tuple[Callback, ...],
    ) -> None:
        self.trainer = trainer
        self.signals = signals
        self.log_every = log_every
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.shows_bars = is_interactive() if progress is None else progress is not False
        self.title = progress if isinstance(progress, str) else None
        self.callbacks = callbacks
        self.total_steps = trainer._total_steps
        self.cycle_ends = trainer._cycle_ends
        self.started = time.perf_counter() - trainer.history.training_time
        self.n_steps = 1  # steps of the next call of train_steps, adapted to the time that the last one took
        self.epoch: int | None = None  # the epoch that self.order belongs to

    def record_time(self) -> None:
        self.trainer.history.training_time = time.perf_counter() - self.started

    def interruption(self, details: str = "") -> Interrupted:
        signum = self.signals.received
        assert signum is not None
        error = Interrupted(
            f"training was interrupted by {signal.Signals(signum).name} "
            f"after {self.trainer.step} of {self.total_steps} update steps{details}"
        )
        error.signum = int(signum)
        return error

    def prepare(self, train: Split, validation: Split | None, n_train_evaluated: int | None) -> None:
        """Check that the data are those of the run and prepare them, without changing the trainer."""
        trainer = self.trainer
        network = trainer.network
        self.normalizer = network.normalizer
        whitening = trainer.whitening
        if trainer._fingerprints is None:  # not begun
            check_whitening(whitening, self.normalizer, train.holds_pixels)
        if whitening is not None and train.holds_pixels:
            n_bytes = train.images.nbytes + (0 if validation is None else validation.images.nbytes)
            check_memory("the copy of the images that whitening makes", n_bytes)
        fits_normalizer = self.normalizer is None and train.holds_pixels and not trainer.history.complete
        fingerprints, fitted = self.read(train, validation, fits_normalizer and whitening is None)
        for name, fingerprint in fingerprints.items():
            if trainer._fingerprints is not None and trainer._fingerprints[name] != fingerprint:
                raise ValueError(f"{name} must be the data that this run began with, but its fingerprint differs")
        self.fingerprints = fingerprints
        if trainer.history.complete:
            return
        if fits_normalizer:
            self.normalizer = fitted if whitening is None else Normalizer.fit(train.images, whitening)
        self.train_data = self.prepared(train)
        self.evaluated_train_data = self.train_data
        if n_train_evaluated is not None and n_train_evaluated < len(train):
            self.evaluated_train_data = self.train_data.take(slice(n_train_evaluated))
        self.validation_data = None
        if validation is not None:
            self.validation_data = self.prepared(validation)
        self.steps_per_epoch = len(train) // trainer._options["batch_size"]
        self.first_step = self.first_epoch = 0  # where the current settings began to apply
        for settings in trainer._earlier:
            self.first_epoch += -(
                -(settings["until"] - self.first_step) // max(1, len(train) // settings["batch_size"])
            )
            self.first_step = settings["until"]

    def read(
        self, train: Split, validation: Split | None, fits_normalizer: bool
    ) -> tuple[dict[str, str], Normalizer | None]:
        """Read all images once: the fingerprints of the splits, and a normaliser for the training images if needed."""
        n_bytes = sum(
            0 if split is None else split.images.nbytes + split.labels.nbytes for split in (train, validation)
        )
        title = "reading the images" if self.title is None else f"{self.title}, reading the images"
        options = dict(total=n_bytes, desc=title, unit="B", unit_scale=True, delay=1.0, leave=False)
        with ProgressBar(self.shows_bars, **options) as bar:
            summary = summarise(train, fits_normalizer, bar.update)
            other = "" if validation is None else summarise(validation, advance=bar.update).fingerprint
        return {"train": summary.fingerprint, "validation": other}, summary.normalizer

    def prepared(self, split: Split) -> PreparedData:
        """A split, prepared for the network."""
        normalizer = self.normalizer if split.holds_pixels else None
        return self.trainer.network.prepare(split.images, split.labels, normalizer=normalizer)

    def train(self) -> None:
        """Update, log and save until the last step or a signal.

        An exception may end this loop at any point: each iteration does whatever is due and has not been done yet,
        so that the next call of `fit` can continue from there.
        """
        trainer, history, network = self.trainer, self.trainer.history, self.trainer.network
        first = trainer.step
        trainer._fingerprints = self.fingerprints
        network.normalizer = self.normalizer
        if first == 0:
            network.set_optimizer_state(None)
        try:
            with ProgressBar(
                self.shows_bars, total=self.total_steps, initial=first, desc=self.title, unit="step"
            ) as bar:
                while True:
                    self.check_costs()
                    self.take_snapshot()
                    logged = False
                    if self.signals.received is None:
                        with contextlib.suppress(StopRequested):
                            logged = self.log(bar)
                    if trainer.step == self.total_steps == history.last_step:
                        history.complete = True
                    cycle_ended = trainer.step > first and trainer.step in self.cycle_ends
                    stop, failure = self.run_callbacks(logged, cycle_ended)
                    stop = stop or self.signals.received is not None
                    if self.checkpoint and (stop or history.complete or self.is_due(first)):
                        self.save(self.checkpoint, stop)
                    if failure is not None:
                        raise failure
                    if history.complete:
                        trainer._ended = f"this one has done its {self.total_steps} steps"
                    if stop or history.complete:
                        return
                    self.update(bar)
        finally:
            self.record_time()

    def check_costs(self) -> None:
        """Raise if the cost of one of the latest updates is not finite."""
        first, costs = self.trainer._updates
        finite = np.isfinite(costs[: self.trainer.step - first])
        if not finite.all():
            self.diverge("the cost", first + int(np.argmin(finite)))

    def take_snapshot(self) -> None:
        """Keep the parameters if a cycle has just ended."""
        trainer = self.trainer
        if trainer._keeps_snapshots and len(trainer.snapshots) < trainer._n_snapshots(trainer.step):
            self.check_finite()
            trainer.snapshots.append(trainer.network.parameters)

    def run_callbacks(self, logged: bool, cycle_ended: bool) -> tuple[bool, Exception | None]:
        """Call the callbacks; return whether one of them asks to stop, and the first exception that one raised.

        The others are called nevertheless, because this point will not come again.
        """
        trainer = self.trainer
        answers: list[Any] = []
        failure: Exception | None = None
        for kind, happened in (("logged", logged), ("cycle_end", cycle_ended)):
            if happened and self.callbacks:
                event = TrainingEvent(kind, trainer, trainer.step, trainer.history.last_row)
                for callback in self.callbacks:
                    try:
                        answers.append(callback(event))
                    except Exception as error:
                        failure = failure or error
        return any(isinstance(answer, bool | np.bool_) and bool(answer) for answer in answers), failure

    def log(self, bar: ProgressBar) -> bool:
        """Evaluate both splits if this step is due to be logged; return whether it was."""
        trainer, history = self.trainer, self.trainer.history
        step = trainer.step
        if history.last_step == step or (step % self.log_every and step != self.total_steps):
            return False
        l2 = trainer._options["l2"]
        started = time.perf_counter()
        with self.signals.interruptible():
            train = trainer.network.evaluate(self.evaluated_train_data, l2=l2)
            validation = None if self.validation_data is None else trainer.network.evaluate(self.validation_data, l2=l2)
        history.evaluation_time += time.perf_counter() - started
        if not np.isfinite([*train, *(validation or ())]).all():
            self.diverge("the cost of an evaluation", step)
        rate = float(self.rates(step)[0])
        history.append(step, rate, train, validation)
        name, accuracy = ("acc", train.accuracy) if validation is None else ("val acc", validation.accuracy)
        bar.note(f"lr {rate:.2e}, loss {train.loss:.3f}, {name} {100 * accuracy:.1f} %")
        return True

    def is_due(self, first: int) -> bool:
        step = self.trainer.step
        if step == first:
            return False
        return step in self.cycle_ends if self.checkpoint_every is None else step % self.checkpoint_every == 0

    def save(self, path: Path, stop: bool) -> None:
        trainer = self.trainer
        self.check_finite()
        self.record_time()
        try:
            write_checkpoint(
                path,
                Checkpoint(
                    trainer.network,
                    trainer.settings,
                    trainer.step,
                    trainer.history,
                    trainer.snapshots,
                    self.fingerprints,
                ),
            )
        except OSError as error:
            if not stop:
                raise
            raise self.interruption(f", and the checkpoint is missing: {error}") from error

    def update(self, bar: ProgressBar) -> None:
        """Make the updates up to the next step that is due to be logged or saved, or fewer."""
        trainer, options = self.trainer, self.trainer._options
        step, batch_size = trainer.step, options["batch_size"]
        n = min(self.n_steps, self.next_stop() - step)
        epoch, done = divmod(step - self.first_step, self.steps_per_epoch)
        epoch += self.first_epoch
        if epoch != self.epoch:
            self.order = ops.shuffled_order(len(self.train_data), options["seed"], epoch)
            self.epoch = epoch
        order = self.order[done * batch_size : (done + n) * batch_size]
        rates = self.rates(step, n)
        costs = np.full(n, _PENDING)
        trainer._updates = step, costs
        started = time.perf_counter()
        trainer.network.train_steps(self.train_data, order, rates, first_step=step, out=costs, **options)
        seconds = time.perf_counter() - started
        trainer.history.update_time += seconds
        self.n_steps = max(1, min(4 * self.n_steps, int(n * _CALL_SECONDS / max(seconds, 1e-9))))
        bar.update(n)

    def rates(self, step: int, n: int = 1) -> NDArray[np.float64]:
        return learning_rates(self.trainer.schedule, np.arange(n) + (step - self.trainer._schedule_start))

    def next_stop(self) -> int:
        """The next step that ends a cycle or an epoch or is due to be logged or saved."""
        step = self.trainer.step
        stops = [self.cycle_ends[np.searchsorted(self.cycle_ends, step, side="right")]]
        for first, period in ((self.first_step, self.steps_per_epoch), (0, self.log_every), (0, self.checkpoint_every)):
            if period is not None:
                stops.append(first + ((step - first) // period + 1) * period)
        return int(min(stops))

    def check_finite(self) -> None:
        """Raise if the last update made a parameter infinite or NaN, which shows in no cost yet."""
        network = self.trainer.network
        state = network.optimizer_state or {}
        arrays = [network.parameters, *(values for values in state.values() if isinstance(values, dict))]
        if not all(np.isfinite(values).all() for mapping in arrays for values in mapping.values()):
            self.diverge("a parameter", self.trainer.step)

    def diverge(self, what: str, step: int) -> NoReturn:
        rate = float(self.rates(step)[0])
        error = DivergenceError(
            f"training diverged: {what} is not finite at update step {step} (learning rate {rate:.6g}); "
            "a smaller eta_max may help"
        )
        error.step, error.learning_rate = step, rate
        self.trainer._ended = "training diverged on this one"
        raise error


def _read(path: StrPath) -> tuple[Checkpoint, JsonDict, JsonDict]:
    """Read a checkpoint; return it with the trainer's options and the schedule's settings."""
    state = read_checkpoint(path)
    with translate_errors(path):
        options = dict(state.settings)
        del options["network"]
        recorded = dict(options.pop("schedule"))
        if options["augmentation"] is not None:
            options["augmentation"] = Augmentation(**options["augmentation"])
        options = {**dict.fromkeys(_OPTIONAL), **options}
        if options["optimizer"] is not None:
            options["optimizer"] = optimizer_from(options["optimizer"])
        missing = {"snapshots", *_MAY_CHANGE} - set(options)
        if missing:
            raise KeyError(sorted(missing)[0])
    return state, options, recorded


def _warn_of_another_instruction_set(path: StrPath, state: Checkpoint) -> None:
    written, running = state.versions["instruction_set"], running_versions()["instruction_set"]
    if written != running:
        warnings.warn(
            f"{path} was written with the instruction set {written}, but {running} is in use: "
            "results may differ in their last bits from those of an uninterrupted run",
            stacklevel=3,
        )


def _checked_earlier(earlier: Any, step: int) -> list[JsonDict]:
    """Check the records that `resume_with` keeps of the settings before ``step``."""
    begin = 0
    for settings in earlier:
        begin = check_integer("until", settings["until"], begin, step)
        check_integer("batch_size", settings["batch_size"], 1)
        check_integer("n_snapshots", settings["n_snapshots"], 0)
    json.dumps(earlier, allow_nan=False)
    return list(earlier)


def _schedule_of_the_run(recorded: JsonDict, given: Schedule | None, path: StrPath) -> Schedule:
    """The schedule that a checkpoint describes, or ``given`` if it is the same."""
    with translate_errors(path):
        own = recorded_schedule(recorded)
    if given is None and own is None:
        raise ValueError(
            f"schedule must be given where the run uses a user-defined schedule, but {path} was written with a "
            f"{recorded['class']!r:.60}"
        )
    if given is None:
        return own  # type: ignore[return-value]
    expected = recorded if own is None else describe_schedule(own)
    found = describe_schedule(given)
    rates = [np.array(each.get("learning_rates", []), np.float64) for each in (expected, found)]
    # A learning rate may differ in its last bit from one machine to another.
    same = rates[0].shape == rates[1].shape and np.allclose(rates[0], rates[1], 1e-9, 0)
    if not same or {**expected, "learning_rates": None} != {**found, "learning_rates": None}:
        raise ValueError(f"schedule must be that of the run, but {path} was written with a different one")
    return given
