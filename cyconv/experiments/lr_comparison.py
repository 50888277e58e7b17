"""What one cycle up to a suggested learning rate reaches, beside cycles up to other rates."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .._typing import JsonDict
from ..backend import ops
from ..datasets import Dataset
from ..prepared import PreparedData
from . import lr_finders, report, statistics
from .runner import run_all
from .runs import Run

#: Multiples of the suggested rate up to which one cycle is trained.
MULTIPLES = (0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
SUGGESTED = "suggested"


@dataclass
class Trial:
    """Networks trained for one cycle up to the same rate.

    Attributes
    ----------
    eta_max : float
    origin : str
        Where the rate comes from: ``"suggested"``, a multiple of that, or the
        rule of another library.
    accuracies : list of float
        On held-out images, one per seed; that of chance if training diverged.
    n_diverged : int
    """

    eta_max: float
    origin: str
    accuracies: list[float] = field(default_factory=list)
    n_diverged: int = 0

    @property
    def accuracy(self) -> float:
        """float: the mean over seeds."""
        return float(np.mean(self.accuracies))

    def document(self) -> JsonDict:
        """dict: for the results file."""
        return {
            "eta_max": self.eta_max,
            "origin": self.origin,
            "diverged": self.n_diverged,
            "accuracy": statistics.describe_values(self.accuracies),
        }


def other_suggestions(runs: Sequence[Run], source: PreparedData, data: Dataset) -> dict[str, float]:
    """What the rules of other libraries suggest, as the geometric mean over runs that differ only in their seed."""
    rates = np.geomspace(lr_finders.ETA_LOW, lr_finders.ETA_HIGH, lr_finders.N_STEPS)
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, rate in lr_finders.suggestions(rates, losses(run, source, data, rates)).items():
            found.setdefault(name, []).append(rate)
    return {name: float(np.exp(np.log(each).mean())) for name, each in found.items()}


def losses(run: Run, source: PreparedData, data: Dataset, rates: lr_finders.Values) -> lr_finders.Values:
    """Losses of the batches, without the penalty, while an untrained network is trained with these rates."""
    network, size = run.network(data.image_shape, data.n_classes), run.batch_size
    whole = len(source) // size * size
    n_epochs = -(-len(rates) * size // whole)
    order = np.concatenate([ops.shuffled_order(len(source), run.seed, epoch)[:whole] for epoch in range(n_epochs)])
    found = np.empty(len(rates))
    for step in range(len(rates)):
        penalty = run.l2 * network.penalty()
        batch, rate = order[step * size : (step + 1) * size], rates[step : step + 1]
        (cost,) = network.train_steps(source, batch, rate, first_step=step, **run.update_options())
        found[step] = cost - penalty
    return found


def trials(suggested: float, others: Mapping[str, float]) -> list[Trial]:
    """The rates to compare, in rising order."""
    multiples = {SUGGESTED if factor == 1 else f"{factor:g} × suggested": factor * suggested for factor in MULTIPLES}
    rates = {**multiples, **others}
    return [Trial(rate, origin) for origin, rate in sorted(rates.items(), key=lambda item: item[1])]


def train(runs: Sequence[Run], found: Sequence[Trial], step_size: int, data: Dataset) -> Iterator[tuple[Trial, Run]]:
    """Train every run for one triangular cycle up to the rate of every trial; yield both when they have finished.

    Parameters
    ----------
    runs : sequence of Run
        That differ only in their seed.
    found : sequence of Trial
        To which the accuracies are added.
    step_size : int
        Half of the cycle, in updates.
    data : Dataset
        Its test split is not used: it must be the validation split (see
        `DataSource.hold_out`).
    """
    for number, trial in enumerate(found):
        cycles = [dataclasses.replace(one_cycle(run, trial.eta_max, step_size), name=f"rate{number}") for run in runs]
        for result in run_all(cycles, data, progress=False):
            trial.n_diverged += not result.complete
            trial.accuracies.append(result.history["acc_val"][-1] if result.complete else 1 / data.n_classes)
            yield trial, result.run


def one_cycle(run: Run, eta_max: float, step_size: int) -> Run:
    """The run for a single triangular cycle up to a rate, evaluated at its end."""
    return dataclasses.replace(
        run,
        eta_min=min(run.eta_min, eta_max / 10),
        eta_max=eta_max,
        step_size=step_size,
        n_cycles=1,
        growth=1.0,
        eta_max_decay=1.0,
        mode="triangular",
        gamma=1.0,
        anneal="cos",
        warmup=0,
        snapshots=False,
        views=False,
        log_every=2 * step_size,
        n_train_evaluated=1,
    )


def best(found: Sequence[Trial]) -> Trial:
    """The trial with the highest mean accuracy."""
    return max(found, key=lambda trial: trial.accuracy)


def table(found: Sequence[Trial]) -> report.Table:
    """The trials of one network: rate, accuracy, and how far that is below the best."""
    highest = best(found).accuracy
    rows = []
    for trial in found:
        accuracy = report.format_mean(trial.accuracies, scale=100)
        accuracy += f" ({trial.n_diverged} diverged)" if trial.n_diverged else ""
        rows.append(
            [f"{trial.eta_max:.2g}", trial.origin, accuracy, report.format_change(trial.accuracy - highest, 1, 100)]
        )
    return report.Table(["up to η", "which is", "held-out accuracy (%)", "from the best"], rows, n_keys=2)


def overview(by_label: Mapping[str, Sequence[Trial]]) -> report.Table:
    """What each rule suggests for each network, and how far that is below the best rate there."""
    origins = {trial.origin for found in by_label.values() for trial in found}
    rules = [SUGGESTED, *sorted(origin for origin in origins if SUGGESTED not in origin)]
    rows = []
    for rule in rules:
        cells = []
        for found in by_label.values():
            of_rule = [trial for trial in found if trial.origin == rule]
            points = [
                f"{trial.eta_max:.2g}: {report.format_change(trial.accuracy - best(found).accuracy, 1, 100)}"
                for trial in of_rule
            ]
            cells.append(points[0] if points else "–")
        rows.append([rule, *cells])
    return report.Table(["rule", *by_label], rows)


def conclusion(label: str, found: Sequence[Trial]) -> str:
    """One sentence: what the suggested rate reaches, and the best."""
    (suggested,) = (trial for trial in found if trial.origin == SUGGESTED)
    highest = best(found)
    text = f"{label}: one cycle up to the suggested {suggested.eta_max:.2g} reaches {100 * suggested.accuracy:.1f} %"
    if highest.accuracy == suggested.accuracy:
        return f"{text}, the best of these rates."
    points = 100 * (highest.accuracy - suggested.accuracy)
    return f"{text}, {points:.1f} points less than the best of these rates, {highest.eta_max:.2g} ({highest.origin})."
