"""What the runs of one configuration gave over their seeds, and which differences between configurations count."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..._tables import Table
from ..._typing import JsonDict
from ..statistics import Difference, Numbers, describe_values, differences, mean_and_deviation
from .tables import count, format_each, format_mean

if TYPE_CHECKING:
    from ..results import Result

NOISE_RULE = (
    "A difference between two means counts as noise when it is at most two standard errors, "
    "2 s √(1/n_a + 1/n_b), where s is the standard deviation over seeds, pooled over all rows of the table."
)
_MAX_PAIRS = 10  # a sentence lists up to this number of pairs
_FEW_RUNS = 5  # a table lists the accuracy of every run up to this number
_MEASURES = (
    "test_accuracy",
    "test_loss",
    "validation_accuracy",
    "loss_gap",
    "ensemble_accuracy",
    "training_time",
    "updates_per_second",
)


@dataclass(frozen=True)
class Summary:
    """The results of one configuration over its seeds.

    Lists hold one number per finished run, in order of their seeds.
    Accuracies are fractions in 0..1. Validation accuracy and loss gap (the
    validation loss minus the training loss) are those after the last update;
    the ensemble's accuracy is empty where no snapshots were kept.
    """

    name: str
    label: str
    n_parameters: int
    seeds: list[int]
    test_accuracy: list[float]
    test_loss: list[float]
    validation_accuracy: list[float]
    loss_gap: list[float]
    ensemble_accuracy: list[float]
    training_time: list[float]
    updates_per_second: list[float]
    unfinished: int

    def document(self) -> JsonDict:
        """dict: the numbers with their means and deviations, as JSON values."""
        return {
            "name": self.name,
            "label": self.label,
            "n_parameters": self.n_parameters,
            "seeds": self.seeds,
            "unfinished": self.unfinished,
            **{name: describe_values(getattr(self, name)) for name in _MEASURES if getattr(self, name)},
        }


def summarise(results: Iterable[Result]) -> list[Summary]:
    """Combine results that differ only in their seed.

    Parameters
    ----------
    results : sequence of Result

    Returns
    -------
    list of Summary
        In the order in which the names first occur.
    """
    summaries = []
    for name, group in _group(results, lambda result: result.run.name).items():
        done = sorted((result for result in group if result.complete), key=lambda result: result.run.seed)
        tests = [result.test for result in done if result.test is not None]
        summaries.append(
            Summary(
                name=name,
                label=group[0].run.label,
                n_parameters=group[0].n_parameters,
                seeds=[r.run.seed for r in done],
                test_accuracy=[test["accuracy"] for test in tests],
                test_loss=[test["loss"] for test in tests],
                validation_accuracy=[float(r.history["acc_val"][-1]) for r in done],
                loss_gap=[float(r.history["loss_val"][-1] - r.history["loss_train"][-1]) for r in done],
                ensemble_accuracy=[test["ensemble_accuracy"] for test in tests if "ensemble_accuracy" in test],
                training_time=[r.history.training_time for r in done],
                updates_per_second=[r.updates_per_second for r in done],
                unfinished=len(group) - len(done),
            )
        )
    return summaries


def by_label(results: Iterable[Result]) -> dict[str, list[Result]]:
    """dict: the results under the label of their run, in the order in which the labels first occur."""
    return _group(results, lambda result: result.run.label)


def _group(results: Iterable[Result], key: Callable[[Result], str]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


def ensemble_row(summary: Summary, n_snapshots: int) -> Summary:
    """The ensembles of a configuration as a row of its own, next to that of the single networks.

    Parameters
    ----------
    summary : Summary
        With the ensembles' accuracies.
    n_snapshots : int
        Networks in each ensemble.

    Returns
    -------
    Summary
        Only with accuracies on test data: an ensemble needs no training of
        its own, and nothing else of it was measured.
    """
    measured: dict[str, Any] = {name: [] for name in _MEASURES}
    measured["test_accuracy"] = summary.ensemble_accuracy
    return replace(
        summary,
        name=f"{summary.name}-ensemble",
        label=f"{summary.label}: ensemble of {n_snapshots}",
        n_parameters=n_snapshots * summary.n_parameters,
        **measured,
    )


def summary_table(summaries: Sequence[Summary], first: str = "architecture", gap: bool = False) -> Table:
    """The table of `Summary` rows: mean ± standard deviation over seeds.

    The test accuracies of single runs are listed next to their mean if no row
    has more than five.

    Parameters
    ----------
    summaries : sequence of Summary
    first : str, default "architecture"
        Heading of the first column.
    gap : bool, default False
        Whether to add a column with the loss gap.

    Returns
    -------
    Table
    """
    ensemble = any(summary.ensemble_accuracy for summary in summaries)
    each = 1 < max((len(summary.test_accuracy) for summary in summaries), default=0) <= _FEW_RUNS
    columns: dict[str, Callable[[Summary], str]] = {
        first: lambda s: s.label,
        "parameters": lambda s: f"{s.n_parameters:,}",
        "runs": lambda s: f"{len(s.seeds)}" + (f" of {len(s.seeds) + s.unfinished}" if s.unfinished else ""),
        "test accuracy (%)": lambda s: format_mean(s.test_accuracy, scale=100),
    }
    if each:
        columns["each run (%)"] = lambda s: format_each(s.test_accuracy, scale=100)
    if ensemble:
        columns["ensemble (%)"] = lambda s: format_mean(s.ensemble_accuracy, scale=100)
    columns["validation accuracy (%)"] = lambda s: format_mean(s.validation_accuracy, scale=100)
    if gap:
        columns["validation − training loss"] = lambda s: format_mean(s.loss_gap, decimals=3)
    columns["training time (s)"] = lambda s: format_mean(s.training_time)
    columns["updates/s"] = lambda s: format_mean(s.updates_per_second, decimals=0)
    return Table(list(columns), [[cell(summary) for cell in columns.values()] for summary in summaries])


def comparison(results: Iterable[Result], markdown: bool = False) -> str:
    """Compare any number of configurations: a table, the best first, and a sentence about it.

    Configurations are ranked by their validation accuracy, by which one may be
    chosen; the test accuracy is shown beside it.

    Parameters
    ----------
    results : iterable of Result
        Such as those of `run_all`; runs that differ only in their seed are one
        configuration.
    markdown : bool, default False

    Returns
    -------
    str
    """
    summaries = summarise(results)
    finished = [summary for summary in summaries if summary.validation_accuracy]
    if not finished:
        return "No run has finished: there is nothing to compare."
    finished.sort(key=lambda summary: -mean_and_deviation(summary.validation_accuracy)[0])
    best = finished[0]
    to_best = _differences_from_best(finished)
    shared, labels = _shared_settings([summary.label for summary in summaries])
    rows = []
    for summary in [*finished, *(summary for summary in summaries if summary not in finished)]:
        difference = to_best.get(summary.name)
        within = "–" if difference is None or difference.is_noise is None else "yes" if difference.is_noise else "no"
        rows.append(
            [
                labels[summary.label] or summary.name,
                f"{summary.n_parameters:,}",
                f"{len(summary.seeds)}"
                + (f" of {len(summary.seeds) + summary.unfinished}" if summary.unfinished else ""),
                format_mean(summary.validation_accuracy, scale=100),
                format_mean(summary.test_accuracy, scale=100),
                "best" if summary is best else within,
            ]
        )
    header = ["", "parameters", "runs", "validation (%)", "test (%)", "within noise"]
    n_close = sum(bool(difference.is_noise) for difference in to_best.values())
    sentence = shared and f"All have {shared}. "
    sentence += f"Best on validation data: {labels[best.label] or best.name}."
    if len(finished) > 1 and all(difference.is_noise is None for difference in to_best.values()):
        sentence += " With one run each, it cannot be told which differences are noise."
    elif len(finished) > 1:
        sentence += f" Of the {count(len(finished) - 1, 'other')}, {n_close or 'none'} {'are' if n_close > 1 else 'is'}"
        sentence += f" within noise of it. {NOISE_RULE}"
    table = Table(header, rows)
    return f"{table.markdown() if markdown else table.text()}\n\n{sentence}"


def _shared_settings(labels: Sequence[str]) -> tuple[str, dict[str, str]]:
    """What all labels have in common, and what is left of each; nothing is left of one that occurs twice."""
    parts = {label: re.split(r", (?![^(]*\))", label) for label in labels}  # not within (4, 8)
    shared = [part for part in parts[labels[0]] if len(parts) > 1 and all(part in each for each in parts.values())]
    short = {label: ", ".join(part for part in each if part not in shared) for label, each in parts.items()}
    if not all(short.values()):
        shared, short = [], {label: label for label in labels}
    return ", ".join(shared), {label: "" if labels.count(label) > 1 else rest for label, rest in short.items()}


def _differences_from_best(ranked: Sequence[Summary]) -> dict[str, Difference]:
    """The differences of the first one's validation accuracy from that of each other one, by their names."""
    pairs = differences({summary.name: summary.validation_accuracy for summary in ranked})
    return {pair.second: pair for pair in pairs if pair.first == ranked[0].name}


def noise_sentence(
    groups: Mapping[str, Numbers],
    quantity: str = "test accuracy",
    scale: float = 100,
    unit: str = " points",
    decimals: int = 2,
) -> str:
    """One sentence that says which differences between groups are within noise.

    Parameters
    ----------
    groups : mapping of str to sequence of float
        One value per run; accuracies in 0..1 by default.
    quantity : str
        Name of the values.
    scale, unit, decimals : float, str, int
        How differences are written.

    Returns
    -------
    str

    Examples
    --------
    >>> noise_sentence({"a": [0.5], "b": [0.6]})
    'With one run each, it cannot be told which differences in test accuracy are noise.'
    >>> noise_sentence({"a": [0.500, 0.502], "b": [0.600, 0.602]})
    'Every difference in test accuracy exceeds two standard errors (0.28 points): none is within noise.'
    """
    pairs = differences(groups)
    if not pairs:
        return f"There are no two groups whose {quantity} could be compared."
    bounds = [pair.bound for pair in pairs if pair.bound is not None]
    if not bounds:
        return f"With one run each, it cannot be told which differences in {quantity} are noise."
    low, high = (f"{scale * end(bounds):.{decimals}f}" for end in (min, max))
    errors = f"two standard errors ({low if low == high else f'{low} to {high}'}{unit})"
    noise = [pair for pair in pairs if pair.is_noise]
    if not noise:
        return f"Every difference in {quantity} exceeds {errors}: none is within noise."
    if len(noise) == len(pairs) > 1:
        return f"Every difference in {quantity} is within noise, that is, at most {errors}."
    if len(noise) > _MAX_PAIRS:
        return f"{len(noise)} of {len(pairs)} differences in {quantity} are within noise, that is, at most {errors}."
    listed = "; ".join(
        f"{pair.first} and {pair.second} ({scale * abs(pair.value):.{decimals}f}{unit} apart)" for pair in noise
    )
    rest = "; every other difference is larger" if len(noise) < len(pairs) else ""
    return f"Within noise, that is, at most {errors} apart in {quantity}: {listed}{rest}."
