"""Experiments as data, what carries them out, and what reports on them: all that the scripts share.

A `Run` holds every setting that decides a run's numbers; `run_experiment`
trains it and gives a `Result`; `run_all` does so for many, one after another
or several at a time in other processes. Runs are small and can be pickled, so
that they travel to other processes and machines; the data stay behind,
described by a `DataSource`.

Beside these: `cyconv.experiments.search`, `.statistics`, `.report`, `.plots`,
`.cli` (the scripts' command line) and `.course_layout`.

>>> from cyconv.experiments import DataSource, Run, run_experiment
>>> run = Run("tiny", n_filters=2, n_hidden=4, step_size=2, n_cycles=1)
>>> result = run_experiment(run, DataSource(small=True), progress=False)
>>> result.complete, result.history.last_step
(True, 4)
"""

from .data_source import DataSource, describe_data
from .executors import executor_factory, map_unordered
from .results import Result, RunFiles, RunInterrupted
from .runner import run_all, run_experiment
from .runs import ARCHITECTURES, LONGER_TRAINING, Run, longest_first, over_seeds

__all__ = [
    "ARCHITECTURES",
    "LONGER_TRAINING",
    "DataSource",
    "Result",
    "Run",
    "RunFiles",
    "RunInterrupted",
    "describe_data",
    "executor_factory",
    "longest_first",
    "map_unordered",
    "over_seeds",
    "run_all",
    "run_experiment",
]
