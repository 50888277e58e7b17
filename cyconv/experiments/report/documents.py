"""The files that an experiment writes: a report in Markdown and as a web page, and the results as JSON values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from ..._tables import Table, as_markdown
from ..._typing import JsonDict
from ...datasets import Dataset
from ...schedules import Schedule
from ..statistics import Difference, Sample, differences
from .pictures import Picture
from .provenance import machine_sentence, provenance, provenance_table
from .significance import comparison_rule, describe_differences, differences_table, sampling_remark
from .summaries import Summary, summary_table
from .web_page import web_page

if TYPE_CHECKING:
    from ..results import Result

QUICK_REMARK = "This is a quick run, which only shows that everything works."
INCOMPLETE_REMARK = "Incomplete: not every run has finished."
ORIGIN = "Where the numbers come from"

Block: TypeAlias = str | Table | Picture


@dataclass(frozen=True)
class Document:
    """A report, which can be written in several formats.

    Attributes
    ----------
    title : str
    remarks : sequence of str
        Sentences that the reader must know first.
    parts : sequence of (str, sequence of str, Table or Picture)
        Each with its heading, which is empty for an introduction, and its
        paragraphs, tables and pictures.
    """

    title: str
    remarks: Sequence[str]
    parts: Sequence[tuple[str, Sequence[Block]]]

    def markdown(self) -> str:
        """The report in Markdown; pictures are files beside it."""
        blocks = [f"# {as_markdown(self.title)}", *(f"**{as_markdown(remark)}**" for remark in self.remarks)]
        for heading, part in self.parts:
            blocks += [f"## {as_markdown(heading)}"] * bool(heading) + [_markdown(block) for block in part]
        return "\n\n".join(blocks) + "\n"

    def html(self) -> str:
        """The report as a web page with its pictures inside."""
        return web_page(self.title, self.remarks, self.parts)


def _markdown(block: Block) -> str:
    if isinstance(block, Table):
        return block.markdown()
    if isinstance(block, Picture):
        caption = as_markdown(block.caption).replace("[", "\\[").replace("]", "\\]")
        link = f"[{caption}]({block.name})"
        return link if block.name.endswith(".pdf") else f"!{link}"  # Markdown shows no PDF
    return as_markdown(block)


def report_document(
    title: str, origin: JsonDict, remarks: Sequence[str], introduction: str, *parts: tuple[str, Sequence[Block]]
) -> Document:
    """A report with the data set's name in its title, and at its end where the numbers come from.

    Parameters
    ----------
    title : str
    origin : dict
        The results file, or what it starts with (see `results_header`).
    remarks, introduction, *parts
        See `Document`.
    """
    return Document(
        f"{title}: {origin['data_set']}",
        remarks,
        [("", [introduction, machine_sentence(origin)]), *parts, (ORIGIN, [provenance_table(origin)])],
    )


@dataclass(frozen=True)
class Section:
    """A table with its heading, the sentences that interpret it, and the pictures that belong to it.

    Attributes
    ----------
    heading : str
    summaries : sequence of Summary
        The rows.
    pictures : sequence of Picture
    first : str
        Heading of the first column.
    gap : bool
        Whether the table has a column with the loss gap.
    conclusion : str
    pairs : sequence of (str, str), optional
        The labels of rows whose comparison was planned; by default all rows
        are compared with each other.
    """

    heading: str
    summaries: Sequence[Summary]
    pictures: Sequence[Picture]
    first: str = "architecture"
    gap: bool = False
    conclusion: str = ""
    pairs: Sequence[tuple[str, str]] | None = None

    measure: ClassVar[str] = "test_accuracy"  # what is compared

    @property
    def samples(self) -> dict[str, Sample]:
        """dict: what is compared, by the label of its row."""
        return {summary.label: summary.sample(self.measure) for summary in self.summaries}

    @property
    def differences(self) -> list[Difference]:
        """list of Difference: between the rows."""
        return differences(self.samples, self.pairs)

    @property
    def sentence(self) -> str:
        """str: which differences are significant."""
        return describe_differences(self.samples, self.measure.replace("_", " "), pairs=self.pairs)

    def document(self) -> JsonDict:
        """dict: for the results file."""
        rows = [summary.document() for summary in self.summaries]
        conclusion = {"conclusion": self.conclusion} if self.conclusion else {}
        differences = [difference.document() for difference in self.differences]
        return {"heading": self.heading, "rows": rows, "differences": differences, **conclusion}

    def text(self) -> str:
        """str: for the terminal."""
        blocks = (block.text() if isinstance(block, Table) else block for block in self.body())
        return "\n\n".join([self.heading, *blocks])

    def part(self) -> tuple[str, list[Block]]:
        """(str, list): for a `Document`."""
        return self.heading, [*self.body(), *self.pictures]

    def body(self) -> list[str | Table]:
        """list: the table, and what interprets it."""
        return [summary_table(self.summaries, self.first, self.gap), *self.interpretation()]

    def interpretation(self) -> list[str | Table]:
        """list: which differences are significant, a table of them if there are several, and the conclusion."""
        table = differences_table(self.differences)
        return [self.sentence, *([table] if table else []), *([self.conclusion] if self.conclusion else [])]


def describe_cycles(schedule: Schedule) -> str:
    """A schedule's cycles in a few words.

    Examples
    --------
    >>> from cyconv.schedules import CyclicSchedule
    >>> describe_cycles(CyclicSchedule(1e-5, 1e-1, step_size=800, n_cycles=3, growth=2))
    '3 doubling cycles'
    """
    settings = schedule.settings
    if "n_cycles" not in settings:
        return f"{schedule.total_steps:,} update steps"
    n_cycles, growth = settings["n_cycles"], settings["growth"]
    if n_cycles == 1:
        return "1 cycle"
    known = {1: "equal", 2: "doubling", 0.5: "halving"}
    if growth in known:
        return f"{n_cycles} {known[growth]} cycles"
    return f"{n_cycles} cycles, each {growth:g} times as long as the one before"


def describe_origin(data: Dataset, quick: bool = False, complete: bool = True) -> str:
    """For the title of a figure: which data its numbers come from, and whether they are final.

    Parameters
    ----------
    data : Dataset
    quick, complete : bool

    Returns
    -------
    str
    """
    name = data.name.replace("$", r"\$")  # a file's name is no formula
    text = f"{name}, {len(data.train):,} training images"
    return text + "; quick run" * quick + "; incomplete" * (not complete)


def remarks(quick: bool, complete: bool) -> list[str]:
    """list of str: caveats that the reader must know first, if any."""
    return quick * [QUICK_REMARK] + (not complete) * [INCOMPLETE_REMARK]


def summary_document(
    title: str, origin: JsonDict, data: Dataset, sections: Sequence[Section], remarks: Sequence[str] = ()
) -> Document:
    """The report of training runs: the data, how to read the tables, and the sections.

    Parameters
    ----------
    title : str
    origin : dict
        See `report_document`.
    data : Dataset
    sections : sequence of Section
    remarks : sequence of str
        Sentences that the reader must know first, such as that a run is incomplete.

    Returns
    -------
    Document
    """
    rows = [(section, sample.by_seed.values()) for section in sections for sample in section.samples.values()]
    measured = [value for _, values in rows for value in values if math.isfinite(value)]
    compared = any(len(values) > 1 for section, values in rows if section.pairs != ())
    tested = any(summary.test_accuracy for section in sections for summary in section.summaries)
    images = len(data.test if tested else data.validation)
    introduction = (
        f"{len(data.train):,} training, {len(data.validation):,} validation, {len(data.test):,} test images. "
        "Numbers are mean ± standard deviation over runs that differ only in their seed"
        + ("; the test images were used once, at the end of each run" * tested)
        + ". Updates per second exclude the time spent on evaluation."
        + (f" {comparison_rule()}" if compared else "")
        + (f" {sampling_remark(measured, images, 'test' if tested else 'held-out')}" if measured else "")
    )
    return report_document(title, origin, remarks, introduction, *(section.part() for section in sections))


def results_header(configuration: JsonDict, complete: bool) -> JsonDict:
    """What every results file starts with.

    Parameters
    ----------
    configuration : dict
        What decided the numbers, as JSON values.
    complete : bool
        Whether every run has finished.

    Returns
    -------
    dict
    """
    return {
        "complete": complete,
        "data_set": configuration["data"]["name"],
        "configuration": configuration,
        **provenance(),
    }


def results_document(
    configuration: JsonDict,
    sections: Sequence[Section],
    results: Sequence[Result],
    complete: bool,
    remarks: Sequence[str] = (),
) -> JsonDict:
    """Everything that is known about an experiment, as JSON values.

    Parameters
    ----------
    configuration : dict
        What decided the numbers, as JSON values.
    sections : sequence of Section
    results : sequence of Result
    complete : bool
        Whether every run has finished.
    remarks : sequence of str
        Further sentences that the reader must know.

    Returns
    -------
    dict
    """
    return {
        **results_header(configuration, complete),
        "remarks": list(remarks),
        "seeds": sorted({result.run.seed for result in results}),
        "summary": [section.document() for section in sections],
        "runs": [result.document() for result in results],
    }
