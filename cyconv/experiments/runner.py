"""Train one run, or many of them, possibly several at a time."""

import contextlib
import dataclasses
from collections.abc import Generator, Iterable
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._checks import check_flag, check_integer, check_seed, describe
from .._files import check_path
from .._progress import ProgressBar, is_interactive
from .._signals import Interrupted
from .._typing import FloatArray, JsonDict, StrPath
from ..backend.threads import MAX_THREADS, default_threads, set_num_threads
from ..datasets import Dataset
from ..ensemble import Ensemble
from ..network import Network
from ..trainer import CyclicTrainer, DivergenceError
from ..view_average import ViewAverage
from .data_source import DataSource, describe_data, load
from .executors import ExecutorFactory, as_factory, map_unordered
from .results import Result, RunFiles, RunInterrupted
from .runs import Run
from .workers import Origin


def describe_run(run: Run) -> str:
    """A run in words: its name, which is also that of its files, its label and its seed.

    Examples
    --------
    >>> describe_run(Run("part1-f4-nf10", "2: f=4, nf=10")), describe_run(Run("narrow", seed=1))
    ('part1-f4-nf10 (2: f=4, nf=10), seed 0', 'narrow, seed 1')
    """
    label = "" if run.label == run.name else f" ({run.label})"
    return f"{run.name}{label}, seed {run.seed}"


def run_experiment(
    run: Run,
    data: Dataset | DataSource,
    folder: StrPath | None = None,
    resume: bool = False,
    progress: bool | None = None,
    threads: int | None = None,
) -> Result:
    """Train a run, then evaluate it on the test split once.

    Parameters
    ----------
    run : Run
    data : Dataset or DataSource
    folder : path-like, optional
        An existing folder for the run's files (see `RunFiles`): a checkpoint
        during training; history, network and result at the end.
    resume : bool, default False
        Whether to use what is in ``folder``: the result of a finished run is
        loaded, and an unfinished run is resumed from its checkpoint.
    progress : bool, optional
        Whether to show a progress bar with the run's name. By default it is
        shown in a notebook, and if stderr is a terminal.
    threads : int, optional
        Number of threads, for `set_num_threads` in the current process.

    Returns
    -------
    Result
        Also if training diverged, which its state records.

    Raises
    ------
    RunInterrupted
        On SIGINT (Ctrl-C), SIGTERM and the other signals that interrupt
        `CyclicTrainer.fit`, with the partial result.
    ValueError, TypeError
        If a setting is invalid, or the files in ``folder`` belong to another
        run or to other data.
    OSError
        If a file cannot be written.
    """
    if threads is not None:
        set_num_threads(check_integer("threads", threads, 1, MAX_THREADS))
    data = load(data)
    files = None if folder is None else RunFiles(check_path("folder", folder), run)
    description = describe_data(data)
    trainer = _resume(files, data) if resume and files else None
    if resume and files and files.result.is_file():
        return _load_finished(files, description)
    if trainer is None:
        trainer = run.trainer(data.image_shape, data.n_classes)
    result = Result(run, description, trainer.history, trainer.network.n_parameters, _filters(trainer.network))
    if progress is None:
        progress = is_interactive()
    try:
        trainer.fit(
            data.train,
            data.validation,
            log_every=run.log_every,
            n_train_evaluated=run.n_train_evaluated,
            progress=progress and describe_run(run),
            checkpoint=None if files is None else files.checkpoint,
            checkpoint_every=None if files is None else max(500, trainer.schedule.total_steps // 20),
        )
    except Interrupted as stop:
        _finish(result, trainer, files, "interrupted", str(stop))
        raise RunInterrupted(str(stop), stop.signum, result) from stop
    except DivergenceError as error:
        _finish(result, trainer, files, "diverged", str(error))
    else:
        result.test, result.confusion = _evaluate_test(trainer, data, run)
        _finish(result, trainer, files, "complete", "")
    if files:
        if result.complete:
            trainer.network.save(files.network)
        result.save(files.result)
        if result.complete:
            files.checkpoint.unlink(missing_ok=True)
    return result


def run_all(
    runs: Iterable[Run],
    data: Dataset | DataSource,
    executor: Executor | ExecutorFactory | str | None = None,
    *,
    n_workers: int | None = None,
    folder: StrPath | None = None,
    resume: bool = True,
    progress: bool | None = None,
    threads: int | None = None,
) -> Generator[Result, None, None]:
    """Train many runs; yield each `Result` as it becomes available.

    Called again with the same folder, it loads the results of finished runs
    and continues unfinished ones from their checkpoints.

    Parameters
    ----------
    runs : iterable of Run
        No two with the same name and seed.
    data : Dataset or DataSource
        With other processes, use a `DataSource`, so that the images need not
        be sent to them.
    executor : Executor, callable or str, optional
        Where to train: any `concurrent.futures.Executor`; a function or class
        that returns a new one when called without arguments; or ``"process"``,
        ``"dask"``, ``"mpi"`` or ``"serial"`` (see `executor_factory`). By
        default, runs are trained in ``n_workers`` local processes.
    n_workers : int, optional
        Number of processes to start, each with an equal share of the CPUs. By
        default, runs are trained one after another in this thread.
    folder : path-like, optional
        Folder for the files of the runs (see `RunFiles`), which is created if
        it is missing. Workers on other machines need it under the same path.
    resume : bool, default True
        Whether to use what is in ``folder``; otherwise all runs are trained
        anew, and replace it.
    progress : bool, optional
        Whether to show a progress bar of the runs. By default it is shown in a
        notebook, and if stderr is a terminal.
    threads : int, optional
        Number of threads of each run; by default the number in use, divided by
        ``n_workers``, or on a cluster the worker's share of its machine.

    Yields
    ------
    Result
        In the order of ``runs`` in this thread; with an executor, as the runs
        finish.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid, two runs would share their files, or the
        folder holds a run of the same name and seed with other settings or on
        other data.
    ChildProcessError
        If workers died repeatedly (see `cyconv.experiments.executors.map_unordered`),
        or one cannot take part: it has another version of this package, or not
        the data or the folder.
    OSError
        If the folder cannot be created or written.
    RuntimeError
        If a script starts processes without a main guard (see `executor_factory`).

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from cyconv.experiments import over_seeds
    >>> runs = over_seeds([Run("tiny", n_filters=2, n_hidden=4, step_size=2, n_cycles=1)], 2)
    >>> results = run_all(runs, DataSource(small=True), ThreadPoolExecutor, progress=False, threads=1)
    >>> sorted(result.run.seed for result in results)
    [0, 1]
    """
    if not isinstance(runs, Iterable):
        raise TypeError(f"runs must be an iterable of Run, but got {describe(runs)}")
    runs = list(runs)
    for run in runs:
        if not isinstance(run, Run):
            raise TypeError(f"runs must be Run objects, but got {describe(run)}")
    check_flag("resume", resume)
    if threads is not None:
        check_integer("threads", threads, 1, MAX_THREADS)
    _check_settings(runs, data)
    stems = [run.stem for run in runs]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise ValueError(f"runs must differ in name or seed, but got {twice!r} more than once")
    make_executor = as_factory(executor, n_workers)
    if folder is not None:
        folder = check_path("folder", folder).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            sentence = f"folder must be a folder that can be written, but {folder} cannot"
            raise type(error)(f"{sentence}: {error.strerror}") from None
    if threads is None and executor in (None, "process") and n_workers is not None:
        threads = max(1, default_threads() // n_workers)
    shown = is_interactive() if progress is None else progress
    in_turn = executor in (None, "serial") and n_workers in (None, 1)
    options = {"folder": folder, "resume": resume, "progress": shown and in_turn}
    return _with_bar(train_runs(runs, data, make_executor, threads, **options), len(runs), shown)


def _check_settings(runs: Iterable[Run], data: Dataset | DataSource) -> None:
    """Raise TypeError or ValueError before any training if a run has invalid settings, or not for these data."""
    try:
        here = load(data)
    except OSError:  # the workers may have the data that this process lacks
        return
    checked: set[Run] = set()
    for run in runs:
        check_seed(run.seed)
        with contextlib.suppress(TypeError):  # a setting without a hash is invalid, and check says so
            if (same := dataclasses.replace(run, name="run", label="run", seed=0)) in checked:
                continue
            checked.add(same)
        run.check(here.image_shape, here.n_classes)


def _with_bar(results: Generator[Result, None, None], n_runs: int, shown: bool) -> Generator[Result, None, None]:
    with contextlib.closing(results), ProgressBar(shown, total=n_runs, desc="runs", unit="run") as bar:
        for result in results:
            bar.update(1)
            yield result


def train_runs(
    runs: Iterable[Run],
    data: Dataset | DataSource,
    make_executor: ExecutorFactory,
    threads: int | None = None,
    **options: Any,
) -> Generator[Result, None, None]:
    """`run_all` without its checks and its progress bar; ``options`` are those of `run_experiment`."""
    calls = [(run, data) for run in runs]
    train = partial(_run_on_worker, Origin(), threads, options)
    fingerprint = None
    with contextlib.closing(map_unordered(train, calls, make_executor)) as results:
        for _, result in results:
            fingerprint = fingerprint or result.data["fingerprint"]
            if result.data["fingerprint"] != fingerprint:
                raise ChildProcessError(
                    f"every worker must have the same data, but {result.run.stem} was trained on others"
                )
            yield result


def _run_on_worker(
    origin: Origin, threads: int | None, options: dict[str, Any], run: Run, data: Dataset | DataSource
) -> Result:
    return run_experiment(run, origin.check_worker(data, options["folder"], threads), **options)


def _load_finished(files: RunFiles, data: JsonDict) -> Result:
    """The result in the folder; ValueError unless it is that of this run on these data."""
    result = Result.load(files.result)
    if result.run != files.run or result.data["fingerprint"] != data["fingerprint"]:
        what = "settings" if result.run != files.run else "data"
        raise ValueError(f"folder must hold runs with the same {what}, but {files.result} has other {what}")
    return result


def _resume(files: RunFiles, data: Dataset) -> CyclicTrainer | None:
    """The trainer of the checkpoint in the folder, if there is one; ValueError unless it is that of this run."""
    if files.result.is_file():
        return None
    try:
        trainer = CyclicTrainer.resume(files.checkpoint)
    except FileNotFoundError:  # or another process has just finished the run
        return None
    fresh = files.run.trainer(data.image_shape, data.n_classes)
    if trainer.settings != fresh.settings:
        raise ValueError(f"folder must hold runs with the same settings, but {files.checkpoint} has other settings")
    return trainer


def _filters(network: Network) -> list[FloatArray]:
    names = [name for name in network.parameters if name.startswith("conv.") and name.endswith("weight")]
    return [np.array(network.parameters[name]) for name in names]


def _finish(result: Result, trainer: CyclicTrainer, files: RunFiles | None, state: str, message: str) -> None:
    result.state, result.message = state, message
    result.filters = _filters(trainer.network)
    if files:
        result.history.to_csv(files.history, data_set=result.data["name"])


def _evaluate_test(trainer: CyclicTrainer, data: Dataset, run: Run) -> tuple[dict[str, float], NDArray[np.int64]]:
    """Loss and accuracy on the test split, and the confusion matrix."""
    network, test = trainer.network, data.test
    source = network.prepare(test.images, test.labels, normalizer=network.normalizer)
    loss, _, accuracy = network.evaluate(source)
    measured = {"loss": float(loss), "accuracy": float(accuracy)}
    n_classes = data.n_classes
    labels = test.labels.argmax(axis=1) if test.has_probabilities else test.labels
    confusion = np.bincount(labels * n_classes + network.predict(source), minlength=n_classes**2)
    if trainer.snapshots:
        ensemble = Ensemble.from_snapshots(network, trainer.snapshots)
        measured["ensemble_accuracy"] = ensemble.evaluate(source).accuracy
    if run.views:
        measured["view_accuracy"] = ViewAverage(network, run.flip, run.shift).evaluate(source).accuracy
    return measured, confusion.reshape(n_classes, n_classes).astype(np.int64)
