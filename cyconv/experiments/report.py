"""Tables, statistics over seeds, and what a results file says about where it came from."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from .._checks import describe
from .._typing import JsonDict
from .._version import __version__
from ..backend import dispatch
from ..backend.threads import get_num_threads
from ..datasets import Dataset
from ..schedules import CyclicSchedule
from .statistics import Numbers, describe_values, differences, mean_and_deviation

if TYPE_CHECKING:
    from .results import Result

QUICK_REMARK = "A quick run, which only shows that everything works."
INCOMPLETE_REMARK = "Incomplete: not every run reached its end."
NOISE_RULE = (
    "A difference between two means counts as noise when it is at most two standard errors, "
    "2 s √(1/n_a + 1/n_b), s being the standard deviation over seeds, pooled over all rows of the table."
)
_FEW_RUNS = 5  # so many stand one by one in a table


def format_mean(values: Numbers, decimals: int = 2, scale: float = 1.0) -> str:
    """``"mean ± deviation"`` of the values times ``scale``; the mean alone for one value, a dash for none.

    Examples
    --------
    >>> format_mean([0.51, 0.52, 0.53], scale=100)
    '52.00 ± 1.00'
    >>> format_mean([])
    '–'
    """
    if not len(values):
        return "–"
    mean, deviation = mean_and_deviation(scale * np.asarray(values, dtype=np.float64))
    text = f"{mean:,.{decimals}f}"
    return text if deviation is None else f"{text} ± {deviation:,.{decimals}f}"


def format_each(values: Numbers, decimals: int = 2, scale: float = 1.0) -> str:
    """The values times ``scale``, one after the other; a dash for none.

    Examples
    --------
    >>> format_each([0.51, 0.525], scale=100)
    '51.00, 52.50'
    """
    return ", ".join(f"{scale * value:,.{decimals}f}" for value in values) or "–"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """A table as text: the first column to the left, the others to the right.

    Parameters
    ----------
    header : sequence of str
    rows : sequence of sequence of str
    markdown : bool, default False
        With the bars that Markdown wants, rather than plain columns.

    Returns
    -------
    str
        Lines joined by newlines, none at the end.

    Examples
    --------
    >>> print(format_table(["what", "how many"], [["apples", "3"], ["pears", "12"]]))
    what    how many
    ------  --------
    apples         3
    pears         12
    """
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"rows must have {len(header)} cells each, as header has, but got {describe(rows)}")
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (str(cell) for cell in cells)
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        return "| " + " | ".join(cells) + " |" if markdown else "  ".join(cells).rstrip()

    if markdown:
        rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    else:
        rule = "  ".join("-" * w for w in widths)
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


@dataclass(frozen=True)
class Summary:
    """What the runs of one configuration gave, over its seeds.

    Lists hold one number per finished run, in order of their seeds.
    Accuracies are shares in 0..1. Validation accuracy and loss gap, the
    validation less the training loss, are those of the last update; the
    ensemble's accuracy is empty where no snapshots were kept.
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
        measures = {}
        for key in (
            "test_accuracy",
            "test_loss",
            "validation_accuracy",
            "loss_gap",
            "ensemble_accuracy",
            "training_time",
            "updates_per_second",
        ):
            values = getattr(self, key)
            if values:
                measures[key] = describe_values(values)
        return {
            "name": self.name,
            "label": self.label,
            "n_parameters": self.n_parameters,
            "seeds": self.seeds,
            "unfinished": self.unfinished,
            **measures,
        }


def summarise(results: Iterable[Result]) -> list[Summary]:
    """Bring results together that differ in the seed alone.

    Parameters
    ----------
    results : sequence of Result

    Returns
    -------
    list of Summary
        In the order in which the names first come.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.run.name, []).append(result)
    summaries = []
    for name, group in groups.items():
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


def ensemble_row(summary: Summary, n_snapshots: int) -> Summary:
    """What a configuration's ensembles gave on test data, as a row of its own beside the single networks'.

    Parameters
    ----------
    summary : Summary
        With an ensemble's accuracies.
    n_snapshots : int
        Networks in each ensemble.

    Returns
    -------
    Summary
        It took no training of its own, and was measured on nothing but test data.
    """
    return replace(
        summary,
        name=f"{summary.name}-ensemble",
        label=f"{summary.label}: ensemble of {n_snapshots}",
        n_parameters=n_snapshots * summary.n_parameters,
        test_accuracy=summary.ensemble_accuracy,
        test_loss=[],
        validation_accuracy=[],
        loss_gap=[],
        ensemble_accuracy=[],
        training_time=[],
        updates_per_second=[],
    )


def by_label(results: Iterable[Result]) -> dict[str, list[Result]]:
    """dict: the results under the label of their run, in the order in which the labels first come."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.run.label, []).append(result)
    return groups


def summary_table(
    summaries: Sequence[Summary], markdown: bool = False, first: str = "architecture", gap: bool = False
) -> str:
    """The table of `Summary` rows as text: mean ± standard deviation over seeds.

    Test accuracies of single runs stand beside their mean where no row has
    more than five.

    Parameters
    ----------
    summaries : sequence of Summary
    markdown : bool, default False
    first : str, default "architecture"
        What the first column holds.
    gap : bool, default False
        Whether the loss gap has a column.

    Returns
    -------
    str
    """
    ensemble = any(summary.ensemble_accuracy for summary in summaries)
    each = 1 < max((len(summary.test_accuracy) for summary in summaries), default=0) <= _FEW_RUNS
    header = [
        first,
        "parameters",
        "runs",
        "test accuracy (%)",
        *(["each run (%)"] if each else []),
        *(["ensemble (%)"] if ensemble else []),
        "validation accuracy (%)",
        *(["validation − training loss"] if gap else []),
        "training time (s)",
        "updates/s",
    ]
    rows = []
    for s in summaries:
        rows.append(
            [
                s.label,
                f"{s.n_parameters:,}",
                f"{len(s.seeds)}" + (f" of {len(s.seeds) + s.unfinished}" if s.unfinished else ""),
                format_mean(s.test_accuracy, scale=100),
                *([format_each(s.test_accuracy, scale=100)] if each else []),
                *([format_mean(s.ensemble_accuracy, scale=100)] if ensemble else []),
                format_mean(s.validation_accuracy, scale=100),
                *([format_mean(s.loss_gap, decimals=3)] if gap else []),
                format_mean(s.training_time),
                format_mean(s.updates_per_second, decimals=0),
            ]
        )
    return format_table(header, rows, markdown)


def noise_sentence(
    groups: Mapping[str, Numbers],
    quantity: str = "test accuracy",
    scale: float = 100,
    unit: str = " points",
    decimals: int = 2,
) -> str:
    """One sentence: which differences between groups are within noise.

    Parameters
    ----------
    groups : mapping of str to sequence of float
        One value per run, accuracies in 0..1 unless said otherwise.
    quantity : str
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
    errors = f"two standard errors ({low if low == high else low + ' to ' + high}{unit})"
    noise = [pair for pair in pairs if pair.is_noise]
    if not noise:
        return f"Every difference in {quantity} exceeds {errors}: none is within noise."
    if len(noise) == len(pairs) > 1:
        return f"Every difference in {quantity} is within noise, that is, at most {errors}."
    listed = "; ".join(
        f"{pair.first} and {pair.second} ({scale * abs(pair.value):.{decimals}f}{unit} apart)" for pair in noise
    )
    rest = "; every other difference is larger" if len(noise) < len(pairs) else ""
    return f"Within noise, that is, at most {errors} apart in {quantity}: {listed}{rest}."


def describe_cycles(schedule: CyclicSchedule) -> str:
    """A schedule's cycles in a few words.

    Examples
    --------
    >>> from cyconv.schedules import CyclicSchedule
    >>> describe_cycles(CyclicSchedule(1e-5, 1e-1, step_size=800, n_cycles=3, growth=2))
    '3 doubling cycles'
    """
    settings = schedule.settings
    count, growth = settings["n_cycles"], settings["growth"]
    if count == 1:
        return "1 cycle"
    if growth == 1:
        return f"{count} equal cycles"
    if growth == 2:
        return f"{count} doubling cycles"
    if growth == 0.5:
        return f"{count} halving cycles"
    return f"{count} cycles, each {growth:g} times as long as the one before"


def describe_origin(data: Dataset, quick: bool = False, complete: bool = True) -> str:
    """What a picture's title says about where its numbers come from.

    Parameters
    ----------
    data : Dataset
    quick, complete : bool

    Returns
    -------
    str
    """
    text = f"{data.name}, {len(data.train):,} training images"
    return text + "; quick run" * quick + "; incomplete" * (not complete)


def remarks(quick: bool, complete: bool) -> list[str]:
    """list of str: what a reader must know first, if anything."""
    return quick * [QUICK_REMARK] + (not complete) * [INCOMPLETE_REMARK]


@dataclass(frozen=True)
class Section:
    """A table with its heading, what it shows in words, and the pictures that go with it."""

    heading: str
    summaries: Sequence[Summary]
    pictures: Sequence[str]
    first: str = "architecture"
    gap: bool = False
    conclusion: str = ""

    @property
    def sentence(self) -> str:
        """str: which differences in test accuracy are within noise."""
        return noise_sentence({summary.label: summary.test_accuracy for summary in self.summaries})

    def document(self) -> JsonDict:
        """dict: for the results file."""
        rows = [summary.document() for summary in self.summaries]
        conclusion = {"conclusion": self.conclusion} if self.conclusion else {}
        return {"heading": self.heading, "rows": rows, "noise": self.sentence, **conclusion}

    def text(self) -> str:
        """str: for the terminal."""
        return "\n\n".join([self.heading, *self.body(markdown=False)])

    def markdown(self) -> str:
        """str: for the summary file."""
        pictures = "\n\n".join(f"![{name.partition('.')[0]}]({name})" for name in self.pictures)
        return "\n\n".join([f"## {self.heading}", *self.body(markdown=True), pictures])

    def body(self, markdown: bool) -> list[str]:
        """list of str: the table, and what it shows in words."""
        table = summary_table(self.summaries, markdown, self.first, self.gap)
        return [table, self.sentence, *([self.conclusion] if self.conclusion else [])]


def summary_document(title: str, data: Dataset, sections: Sequence[Section], remarks: Sequence[str] = ()) -> str:
    """The summary file: what ran on what, the sections, how to read them.

    Parameters
    ----------
    title : str
    data : Dataset
    sections : sequence of Section
    remarks : sequence of str
        Sentences that the reader must know first, such as that a run is incomplete.

    Returns
    -------
    str
        Markdown.
    """
    tested = any(summary.test_accuracy for section in sections for summary in section.summaries)
    return (
        "\n\n".join(
            [
                f"# {title}: {data.name}",
                *(f"**{remark}**" for remark in remarks),
                f"{len(data.train):,} training, {len(data.validation):,} validation, {len(data.test):,} test images. "
                "Numbers are mean ± standard deviation over runs that differ in their seed"
                + ("; the test images were looked at once, at the end of each run" * tested)
                + f". Updates per second leave out the time spent in evaluation. {NOISE_RULE}",
                machine_sentence(),
                *(section.markdown() for section in sections),
            ]
        )
        + "\n"
    )


def results_document(
    configuration: JsonDict,
    sections: Sequence[Section],
    results: Sequence[Result],
    complete: bool,
    remarks: Sequence[str] = (),
) -> JsonDict:
    """Everything there is to know about an experiment, as JSON values.

    Parameters
    ----------
    configuration : dict
        What decided the numbers, as JSON values.
    sections : sequence of Section
    results : sequence of Result
    complete : bool
        Whether every run reached its end.
    remarks : sequence of str
        What a reader must know besides.

    Returns
    -------
    dict
    """
    return {
        "complete": complete,
        "remarks": list(remarks),
        "data_set": configuration["data"]["name"],
        "configuration": configuration,
        "seeds": sorted({result.run.seed for result in results}),
        "versions": describe_versions(),
        "machine": describe_machine(),
        "summary": [section.document() for section in sections],
        "runs": [result.document() for result in results],
    }


def describe_machine() -> JsonDict:
    """The processor, and how this process uses it.

    Returns
    -------
    dict
        ``processor`` (model name), ``architecture``, ``instruction_set`` (of
        the kernels in use), ``threads`` (that they run on), ``system``.
    """
    return {
        "processor": _processor_model(),
        "architecture": platform.machine(),
        "instruction_set": dispatch.instruction_set,
        "threads": get_num_threads(),
        "system": platform.system(),
    }


def machine_sentence() -> str:
    """str: processor, threads, kernels and versions in one sentence."""
    machine = describe_machine()
    versions = ", ".join(f"{name} {version}" for name, version in describe_versions().items())
    return (
        f"{machine['processor']}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}, "
        f"{machine['instruction_set']} kernels; {versions}."
    )


def describe_versions() -> dict[str, str]:
    """dict: versions of Python and of the packages that make up the numbers and pictures."""
    packages = {package: metadata.version(package) for package in ("numpy", "matplotlib")}
    return {"cyconv": __version__, "python": platform.python_version(), **packages}


def _processor_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
