"""Experiments: descriptions of training runs, executors that train them, and reports on the results.

A `Run` holds every setting that affects the results of a training run;
`run_experiment` trains it and returns a `Result`; `run_all` trains many, one
after another or several at a time in other processes. Runs are small and can
be pickled and sent to other processes and machines; the data are not sent
along, but described by a `DataSource`.

See also `cyconv.experiments.search`, `.statistics`, `.report`, `.plots`,
`.commands` (the experiments themselves), `.cli` (what their command lines share) and `.course_layout`.

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
from .runs import ARCHITECTURES, LONGER_TRAINING, Run, longest_first, over_seeds, under_one_name

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
    "under_one_name",
]
