"""Tables, statistics over seeds, and what a results file says about where it came from."""

import math
import platform
from dataclasses import dataclass
from importlib import metadata
from itertools import combinations

import numpy as np

from . import ops
from ._checks import as_array, describe
from .threads import get_num_threads

NOISE_RULE = (
    "A difference between two means counts as noise when it is at most two standard errors, "
    "2 s √(1/n_a + 1/n_b), s being the standard deviation over seeds, pooled over all rows of the table."
)


def mean_and_deviation(values):
    """Mean and sample standard deviation; the deviation of one value is None.

    Parameters
    ----------
    values : sequence of float
        At least one.

    Returns
    -------
    mean : float
    deviation : float or None
        With the divisor n - 1.

    Examples
    --------
    >>> mean_and_deviation([1.0, 2.0, 3.0])
    (2.0, 1.0)
    >>> mean_and_deviation([0.5])
    (0.5, None)
    """
    values = as_array("values", values)
    if values.ndim != 1 or not values.size or values.dtype.kind not in "fiu":
        raise ValueError(f"values must be at least one number, but got {describe(values)}")
    values = values.astype(np.float64)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None


def format_mean(values, decimals=2, scale=1.0):
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


def format_table(header, rows, markdown=False):
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

    def line(cells):
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
    Accuracies are shares in 0..1; the validation accuracy is that of the last
    update; the ensemble's is empty where no snapshots were kept.
    """

    name: str
    label: str
    n_parameters: int
    seeds: list
    test_accuracy: list
    test_loss: list
    validation_accuracy: list
    ensemble_accuracy: list
    training_time: list
    updates_per_second: list
    unfinished: int

    def document(self):
        """dict: the numbers with their means and deviations, as JSON values."""
        measures = {}
        for key in ("test_accuracy", "test_loss", "validation_accuracy", "ensemble_accuracy", "training_time",
                    "updates_per_second"):
            values = getattr(self, key)
            if values:
                mean, deviation = mean_and_deviation(values)
                measures[key] = {"mean": mean, "standard_deviation": deviation, "each": list(values)}
        return {"name": self.name, "label": self.label, "n_parameters": self.n_parameters,
                "seeds": self.seeds, "unfinished": self.unfinished, **measures}


def summarise(results):
    """Bring results together that differ in the seed alone.

    Parameters
    ----------
    results : sequence of Result

    Returns
    -------
    list of Summary
        In the order in which the names first come.
    """
    groups = {}
    for result in results:
        groups.setdefault(result.run.name, []).append(result)
    summaries = []
    for name, group in groups.items():
        done = sorted((result for result in group if result.complete), key=lambda result: result.run.seed)
        summaries.append(Summary(
            name=name,
            label=group[0].run.label,
            n_parameters=group[0].n_parameters,
            seeds=[r.run.seed for r in done],
            test_accuracy=[r.test["accuracy"] for r in done],
            test_loss=[r.test["loss"] for r in done],
            validation_accuracy=[float(r.history["acc_val"][-1]) for r in done],
            ensemble_accuracy=[r.test["ensemble_accuracy"] for r in done if "ensemble_accuracy" in r.test],
            training_time=[r.history.training_time for r in done],
            updates_per_second=[r.updates_per_second for r in done],
            unfinished=len(group) - len(done),
        ))
    return summaries


def summary_table(summaries, markdown=False, first="architecture"):
    """The table of `Summary` rows as text: mean ± standard deviation over seeds.

    Parameters
    ----------
    summaries : sequence of Summary
    markdown : bool, default False
    first : str, default "architecture"
        What the first column holds.

    Returns
    -------
    str
    """
    ensemble = any(summary.ensemble_accuracy for summary in summaries)
    header = [first, "parameters", "runs", "test accuracy (%)", *(["ensemble (%)"] if ensemble else []),
              "validation accuracy (%)", "training time (s)", "updates/s"]
    rows = []
    for s in summaries:
        rows.append([
            s.label,
            f"{s.n_parameters:,}",
            f"{len(s.seeds)}" + (f" of {len(s.seeds) + s.unfinished}" if s.unfinished else ""),
            format_mean(s.test_accuracy, scale=100),
            *([format_mean(s.ensemble_accuracy, scale=100)] if ensemble else []),
            format_mean(s.validation_accuracy, scale=100),
            format_mean(s.training_time),
            format_mean(s.updates_per_second, decimals=0),
        ])
    return format_table(header, rows, markdown)


def pooled_deviation(groups):
    """Standard deviation within groups, pooled over them.

    .. math:: s^2 = \\sum_g (n_g - 1) s_g^2 / \\sum_g (n_g - 1)

    Parameters
    ----------
    groups : sequence of sequence of float

    Returns
    -------
    float or None
        None where no group has two values.

    Examples
    --------
    >>> round(pooled_deviation([[1.0, 3.0], [5.0, 7.0], [9.0]]), 6)
    1.414214
    """
    groups = [np.asarray(values, dtype=np.float64) for values in groups if len(values) > 1]
    if not groups:
        return None
    squares = sum(float(np.square(values - values.mean()).sum()) for values in groups)
    return math.sqrt(squares / sum(len(values) - 1 for values in groups))


def pairs_within_noise(groups):
    """Which pairs of means lie within two standard errors of each other.

    The standard error of a difference is s √(1/n_a + 1/n_b) with the
    deviation s of `pooled_deviation`: groups of few seeds lend each other
    what they know about the spread, which is taken to be alike in all.

    Parameters
    ----------
    groups : mapping of str to sequence of float
        One value per run; empty groups are left out.

    Returns
    -------
    list of (str, str, float, float) or None
        For each pair within noise: both names, the difference of the means
        (first minus second), and the two standard errors it would have to
        exceed. None where no group has two values.

    Examples
    --------
    >>> pairs_within_noise({"a": [0.50, 0.52], "b": [0.51, 0.53], "c": [0.70, 0.72]})[0][:2]
    ('a', 'b')
    """
    groups = {name: values for name, values in groups.items() if len(values)}
    spread = pooled_deviation(groups.values())
    if spread is None:
        return None
    pairs = []
    for (a, first), (b, second) in combinations(groups.items(), 2):
        difference = float(np.mean(first) - np.mean(second))
        bound = 2 * spread * math.sqrt(1 / len(first) + 1 / len(second))
        if abs(difference) <= bound:
            pairs.append((a, b, difference, bound))
    return pairs


def noise_sentence(groups, quantity="test accuracy"):
    """One sentence: which differences between groups of accuracies are within noise.

    Parameters
    ----------
    groups : mapping of str to sequence of float
        Accuracies in 0..1, one per run.
    quantity : str

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
    groups = {name: values for name, values in groups.items() if len(values)}
    if len(groups) < 2:
        return f"There are no two groups whose {quantity} could be compared."
    pairs = pairs_within_noise(groups)
    if pairs is None:
        return f"With one run each, it cannot be told which differences in {quantity} are noise."
    spread = pooled_deviation(groups.values())
    bounds = [2 * spread * math.sqrt(1 / len(a) + 1 / len(b)) for a, b in combinations(groups.values(), 2)]
    low, high = f"{100 * min(bounds):.2f}", f"{100 * max(bounds):.2f}"
    errors = f"two standard errors ({low if low == high else low + ' to ' + high} points)"
    if not pairs:
        return f"Every difference in {quantity} exceeds {errors}: none is within noise."
    listed = "; ".join(f"{a} and {b} ({100 * abs(apart):.2f} points apart)" for a, b, apart, _ in pairs)
    rest = "; every other difference is larger" if len(pairs) < len(bounds) else ""
    return f"Within noise, that is, at most {errors} apart in {quantity}: {listed}{rest}."


def describe_cycles(schedule):
    """A schedule's cycles in a few words.

    Examples
    --------
    >>> from cyconv.schedule import CyclicSchedule
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
    return f"{count} cycles, each {growth:g} times as long as the one before"


@dataclass(frozen=True)
class Section:
    """A table with its heading, and the pictures that go with it."""

    heading: str
    summaries: list
    pictures: list
    first: str = "architecture"

    @property
    def sentence(self):
        """str: which differences in test accuracy are within noise."""
        return noise_sentence({summary.label: summary.test_accuracy for summary in self.summaries})

    def document(self):
        """dict: for the results file."""
        rows = [summary.document() for summary in self.summaries]
        return {"heading": self.heading, "rows": rows, "noise": self.sentence}

    def text(self):
        """str: for the terminal."""
        return f"{self.heading}\n\n{summary_table(self.summaries, first=self.first)}\n\n{self.sentence}"

    def markdown(self):
        """str: for the summary file."""
        pictures = "\n\n".join(f"![{name.partition('.')[0]}]({name})" for name in self.pictures)
        table = summary_table(self.summaries, markdown=True, first=self.first)
        return f"## {self.heading}\n\n{table}\n\n{self.sentence}\n\n{pictures}"


def summary_document(title, data, sections, remarks=()):
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
    machine = describe_machine()
    versions = ", ".join(f"{name} {version}" for name, version in describe_versions().items())
    return "\n\n".join([
        f"# {title}: {data.name}",
        *(f"**{remark}**" for remark in remarks),
        f"{len(data.train):,} training, {len(data.validation):,} validation, {len(data.test):,} test images. "
        "Numbers are mean ± standard deviation over runs that differ in their seed; the test images were "
        "looked at once, at the end of each run. Updates per second leave out the time spent in evaluation. "
        + NOISE_RULE,
        f"{machine['processor']}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}, "
        f"{machine['instruction_set']} kernels; {versions}.",
        *(section.markdown() for section in sections),
    ]) + "\n"


def results_document(configuration, sections, results, complete):
    """Everything there is to know about an experiment, as JSON values.

    Parameters
    ----------
    configuration : dict
        What decided the numbers, as JSON values.
    sections : sequence of Section
    results : sequence of Result
    complete : bool
        Whether every run reached its end.

    Returns
    -------
    dict
    """
    return {
        "complete": complete,
        "data_set": configuration["data"]["name"],
        "configuration": configuration,
        "seeds": sorted({result.run.seed for result in results}),
        "versions": describe_versions(),
        "machine": describe_machine(),
        "summary": [section.document() for section in sections],
        "runs": [result.document() for result in results],
    }


def describe_machine():
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
        "instruction_set": ops.instruction_set,
        "threads": get_num_threads(),
        "system": platform.system(),
    }


def describe_versions():
    """dict: versions of Python and of the packages that make up the numbers and pictures."""
    from . import __version__

    packages = {package: metadata.version(package) for package in ("numpy", "matplotlib")}
    return {"cyconv": __version__, "python": platform.python_version(), **packages}


def _processor_model():
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
