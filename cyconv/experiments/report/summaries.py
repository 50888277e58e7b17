"""What the runs of one configuration gave over their seeds, and tables that compare configurations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from ..._tables import Table
from ..._typing import JsonDict
from ..statistics import Difference, Sample, confidence_interval, describe_values, differences, mean_and_deviation
from .significance import comparison_rule, untested
from .tables import ACCURACIES, format_each, format_interval, format_mean, format_p

if TYPE_CHECKING:
    from ..results import Result

_FEW_RUNS = 5  # a table lists the accuracy of every run up to this number
_MEASURES = (
    "test_accuracy",
    "test_loss",
    "validation_accuracy",
    "loss_gap",
    "ensemble_accuracy",
    "view_accuracy",
    "training_time",
    "updates_per_second",
)


@dataclass(frozen=True)
class Summary:
    """The results of one configuration over its seeds.

    Lists hold one number per finished run, in order of their seeds.
    Accuracies are fractions in 0..1. Validation accuracy and loss gap (the
    validation loss minus the training loss) are those after the last update;
    the ensemble's accuracy is empty where no snapshots were kept, and that of
    the mean over views where it was not asked for. The
    architecture is that of the networks, if it is known.
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
    view_accuracy: list[float]
    training_time: list[float]
    updates_per_second: list[float]
    unfinished: int
    architecture: str | None = None

    @property
    def n_runs(self) -> str:
        """str: how many runs are finished, and of how many if some are not."""
        return f"{len(self.seeds)}" + f" of {len(self.seeds) + self.unfinished}" * bool(self.unfinished)

    def sample(self, measure: str = "test_accuracy") -> Sample:
        """The values of a measure for comparisons with other rows of a table."""
        return Sample(dict(zip(self.seeds, getattr(self, measure))), self.architecture)

    def document(self) -> JsonDict:
        """dict: the numbers with their means, deviations and intervals, as JSON values."""
        return {
            "name": self.name,
            "label": self.label,
            "architecture": self.architecture,
            "n_parameters": self.n_parameters,
            "seeds": self.seeds,
            "unfinished": self.unfinished,
            **{name: describe_values(getattr(self, name)) for name in _MEASURES if getattr(self, name)},
        }

    @classmethod
    def from_document(cls, document: JsonDict) -> Self:
        """The row that `document` describes; measures that it lacks are empty."""
        row: JsonDict = {key: document[key] for key in ("name", "label", "n_parameters", "seeds", "unfinished")}
        for name in _MEASURES:
            held = document.get(name, {"each": []})["each"]
            row[name] = [math.nan if value is None else value for value in held]
        return cls(**row, architecture=document.get("architecture"))


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
                view_accuracy=[test["view_accuracy"] for test in tests if "view_accuracy" in test],
                training_time=[r.history.training_time for r in done],
                updates_per_second=[r.updates_per_second for r in done],
                unfinished=len(group) - len(done),
                architecture=group[0].run.architecture,
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
    return replace(
        _only_test_accuracy(summary, summary.ensemble_accuracy),
        name=f"{summary.name}-ensemble",
        label=f"{summary.label}: ensemble of {n_snapshots}",
        n_parameters=n_snapshots * summary.n_parameters,
    )


def view_row(summary: Summary, n_views: int) -> Summary:
    """The means over views of each image as a row of its own, like `ensemble_row`.

    Parameters
    ----------
    summary : Summary
        With the accuracies of the means over views.
    n_views : int
        Views of each image.

    Returns
    -------
    Summary
    """
    return replace(
        _only_test_accuracy(summary, summary.view_accuracy),
        name=f"{summary.name}-views",
        label=f"{summary.label}: mean of {n_views} views",
    )


def _only_test_accuracy(summary: Summary, accuracy: list[float]) -> Summary:
    measured: dict[str, Any] = {**{name: [] for name in _MEASURES}, "test_accuracy": accuracy}
    return replace(summary, **measured)


def summary_table(summaries: Sequence[Summary], first: str = "architecture", gap: bool = False) -> Table:
    """The table of `Summary` rows: mean ± standard deviation over seeds, and the 95 % interval of the mean.

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
        "runs": lambda s: s.n_runs,
        "test accuracy (%)": lambda s: format_mean(s.test_accuracy, scale=100),
    }
    if any(confidence_interval(summary.test_accuracy) for summary in summaries):
        columns["95 % interval (%)"] = lambda s: format_interval(s.test_accuracy, scale=100, limits=ACCURACIES)
    if each:
        columns["each run (%)"] = lambda s: format_each(s.test_accuracy, scale=100)
    if ensemble:
        columns["ensemble (%)"] = lambda s: format_mean(s.ensemble_accuracy, scale=100)
    if any(summary.view_accuracy for summary in summaries):
        columns["mean of views (%)"] = lambda s: format_mean(s.view_accuracy, scale=100)
    columns["validation accuracy (%)"] = lambda s: format_mean(s.validation_accuracy, scale=100)
    if gap:
        columns["validation − training loss"] = lambda s: format_mean(s.loss_gap, decimals=3)
    columns["training time (s)"] = lambda s: format_mean(s.training_time)
    columns["updates/s"] = lambda s: format_mean(s.updates_per_second, decimals=0)
    return Table(list(columns), [[cell(summary) for cell in columns.values()] for summary in summaries])


def comparison(results: Iterable[Result], markdown: bool = False) -> str:
    """Compare any number of configurations: a table, the best first, and a sentence about it.

    Configurations are ranked by their validation accuracy, by which one may be
    chosen; the test accuracy is shown beside it. Those with runs that diverged
    or did not finish come after all others.

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
    finished.sort(key=lambda summary: (summary.unfinished > 0, -mean_and_deviation(summary.validation_accuracy)[0]))
    best, *others = finished
    from_best = _differences_from_best(finished)
    shared, labels = _shared_settings([summary.label for summary in summaries])
    rows = []
    for summary in [*finished, *(summary for summary in summaries if summary not in finished)]:
        difference = from_best.get(summary.name)
        rows.append(
            [
                labels[summary.label] or summary.name,
                f"{summary.n_parameters:,}",
                summary.n_runs,
                format_mean(summary.validation_accuracy, scale=100),
                format_mean(summary.test_accuracy, scale=100),
                "best" if summary is best else format_p(difference.p_value) if difference else "–",
            ]
        )
    header = ["", "parameters", "runs", "validation (%)", "test (%)", "p against best"]
    sentence = shared and f"All have {shared}. "
    sentence += f"Best on validation data: {labels[best.label] or best.name}."
    if others:
        tested = [difference for difference in from_best.values() if difference.p_value is not None]
        sentence += (
            f" {_count_of_worse(tested, len(others))} {comparison_rule()} Since any might have been the best, these "
            "are all pairs."
            if tested
            else f" {untested(from_best.values(), 'validation accuracy')}"
        )
    table = Table(header, rows)
    return f"{table.markdown() if markdown else table.text()}\n\n{sentence}"


def _count_of_worse(tested: Sequence[Difference], n_others: int) -> str:
    """How many of the others are significantly worse than the best."""
    n_worse = sum(difference.is_worse for difference in tested)
    if n_others == 1:
        return f"The other is {'' if n_worse else 'not '}significantly worse at 5 %."
    sentence = (
        f"Of the {n_others} others, {n_worse or 'none'} {'are' if n_worse > 1 else 'is'} significantly worse at 5 %."
    )
    left = n_others - len(tested)
    return f"{sentence} {left} could not be tested." if left else sentence


def _differences_from_best(ranked: Sequence[Summary]) -> dict[str, Difference]:
    """The differences of the first one's validation accuracy from that of each other one, by their names."""
    best, *others = (summary.name for summary in ranked)
    found = differences(
        {summary.name: summary.sample("validation_accuracy") for summary in ranked},
        [(best, other) for other in others],
        n_comparisons=math.comb(len(ranked), 2),  # any might have been the best
    )
    return {pair.second: pair for pair in found}


def _shared_settings(labels: Sequence[str]) -> tuple[str, dict[str, str]]:
    """What all labels have in common, and what is left of each; nothing is left of one that occurs twice."""
    parts = {label: re.split(r", (?![^(]*\))", label) for label in labels}  # not within (4, 8)
    shared = [part for part in parts[labels[0]] if len(parts) > 1 and all(part in each for each in parts.values())]
    short = {label: ", ".join(part for part in each if part not in shared) for label, each in parts.items()}
    if not all(short.values()):
        shared, short = [], {label: label for label in labels}
    return ", ".join(shared), {label: "" if labels.count(label) > 1 else rest for label, rest in short.items()}
