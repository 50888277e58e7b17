"""Train what runs describe: one, or many, several at a time if asked."""

import contextlib
from collections.abc import Generator, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._checks import describe
from .._files import check_path
from .._progress import is_interactive
from .._signals import Interrupted
from .._typing import FloatArray, JsonDict, StrPath
from ..backend.threads import set_num_threads
from ..datasets import Dataset
from ..ensemble import Ensemble
from ..network import Network
from ..trainer import CyclicTrainer, DivergenceError
from .data_source import DataSource, describe_data
from .executors import ExecutorFactory, executor_factory, map_unordered
from .results import Result, RunFiles, RunInterrupted
from .runs import Run


def run_experiment(
    run: Run,
    data: Dataset | DataSource,
    folder: StrPath | None = None,
    resume: bool = False,
    progress: bool | None = None,
    threads: int | None = None,
) -> Result:
    """Train as described, then read the test split once.

    Parameters
    ----------
    run : Run
    data : Dataset or DataSource
    folder : path-like, optional
        An existing folder for the run's files (see `RunFiles`): checkpoints
        while it runs; history, network and result at its end.
    resume : bool, default False
        Take what ``folder`` has: a finished run is not run again, an
        unfinished one goes on from its checkpoint.
    progress : bool, optional
        Whether to show a progress bar under the run's name; only in a notebook
        or when stderr is a terminal unless given.
    threads : int, optional
        For `set_num_threads`, in the process where this runs.

    Returns
    -------
    Result
        Also when training diverged; its state says so.

    Raises
    ------
    RunInterrupted
        On SIGINT (Ctrl-C), SIGTERM and the other signals that end `CyclicTrainer.fit`, with the partial result.
    ValueError, TypeError
        If a setting is refused, or the files in ``folder`` are of another
        run or of other data.
    OSError
        If a file cannot be written.
    """
    if threads is not None:
        set_num_threads(threads)
    data = data.load() if isinstance(data, DataSource) else data
    if not isinstance(data, Dataset):
        raise TypeError(f"data must be a Dataset or a DataSource, but got {describe(data)}")
    files = None if folder is None else RunFiles(check_path("folder", folder), run)
    about = describe_data(data)
    if resume and files and files.result.is_file():
        return _finished(files, about)
    if resume and files and files.checkpoint.is_file():
        trainer = _resumed(files, data)
    else:
        trainer = run.trainer(data.train.images.shape[1:], len(data.class_names))
    result = Result(run, about, trainer.history, trainer.network.n_parameters, _filters(trainer.network))
    if progress is None:
        progress = is_interactive()
    try:
        trainer.fit(
            data.train,
            data.validation,
            log_every=run.log_every,
            n_train_evaluated=run.n_train_evaluated,
            progress=progress and f"{run.label}, seed {run.seed}",
            checkpoint=None if files is None else files.checkpoint,
            checkpoint_every=None if files is None else max(500, trainer.schedule.total_steps // 20),
        )
    except Interrupted as stop:
        _note_end(result, trainer, files, "interrupted", str(stop))
        raise RunInterrupted(str(stop), stop.signum, result) from stop
    except DivergenceError as error:
        _note_end(result, trainer, files, "diverged", str(error))
    else:
        result.test, result.confusion = _read_test(trainer, data)
        _note_end(result, trainer, files, "complete", "")
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
    make_executor: ExecutorFactory = executor_factory("serial"),
    **options: Any,
) -> Generator[Result, None, None]:
    """Carry out many runs; yield each `Result` as it is there.

    Parameters
    ----------
    runs : iterable of Run
        No two of the same name and seed.
    data : Dataset or DataSource
        For other processes a `DataSource`: so the images do not travel.
    make_executor : callable, optional
        What opens an executor, see `executor_factory`; runs go one after
        another in this thread unless given.
    **options
        For `run_experiment`.

    Yields
    ------
    Result
        In the order of ``runs`` in this thread; as they are there from an executor.

    Raises
    ------
    ValueError
        If two runs would share their files.
    ChildProcessError
        If workers died again and again (see `cyconv.experiments.executors.map_unordered`).
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
    runs = list(runs)
    stems = [run.stem for run in runs]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise ValueError(f"runs must differ in name or seed, but got {twice!r} more than once")
    return _results(runs, data, make_executor, options)


def _results(
    runs: list[Run], data: Dataset | DataSource, make_executor: ExecutorFactory, options: dict[str, Any]
) -> Generator[Result, None, None]:
    calls = [(run, data) for run in runs]
    with contextlib.closing(map_unordered(partial(run_experiment, **options), calls, make_executor)) as results:
        for _, result in results:
            yield result


def _finished(files: RunFiles, about: JsonDict) -> Result:
    """The result in the folder, if it is this run's on these data."""
    result = Result.load(files.result)
    if result.run != files.run or result.data["fingerprint"] != about["fingerprint"]:
        what = "settings" if result.run != files.run else "data"
        raise ValueError(f"folder must hold runs of the same {what}, but {files.result} is of other {what}")
    return result


def _resumed(files: RunFiles, data: Dataset) -> CyclicTrainer:
    """The trainer of the checkpoint in the folder, if it is this run's."""
    trainer = CyclicTrainer.resume(files.checkpoint)
    fresh = files.run.trainer(data.train.images.shape[1:], len(data.class_names))
    if trainer.settings != fresh.settings:
        raise ValueError(f"folder must hold runs of the same settings, but {files.checkpoint} is of other settings")
    return trainer


def _filters(network: Network) -> list[FloatArray]:
    names = [name for name in network.parameters if name.startswith("conv.") and name.endswith("weight")]
    return [np.array(network.parameters[name]) for name in names]


def _note_end(result: Result, trainer: CyclicTrainer, files: RunFiles | None, state: str, message: str) -> None:
    result.state, result.message = state, message
    result.filters = _filters(trainer.network)
    if files:
        result.history.to_csv(files.history, data_set=result.data["name"])


def _read_test(trainer: CyclicTrainer, data: Dataset) -> tuple[dict[str, float], NDArray[np.int64]]:
    """Loss and accuracy on the test split, and the confusion matrix: its one reading."""
    network, test = trainer.network, data.test
    source = network.prepare(test.images, test.labels, normalizer=network.normalizer)
    loss, _, accuracy = network.evaluate(source)
    measured = {"loss": float(loss), "accuracy": float(accuracy)}
    n_classes = len(data.class_names)
    confusion = np.bincount(test.labels * n_classes + network.predict(source), minlength=n_classes**2)
    if trainer.snapshots:
        ensemble = Ensemble.from_snapshots(network, trainer.snapshots)
        measured["ensemble_accuracy"] = ensemble.evaluate(source).accuracy
    return measured, confusion.reshape(n_classes, n_classes).astype(np.int64)
