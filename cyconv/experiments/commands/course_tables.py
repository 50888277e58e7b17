"""DD2424, Assignment 3, Exercises 3 and 4 beside published accuracies.

Trains the networks of Exercises 3 and 4 with the settings of the assignment:
architectures 1 to 4 for three equal and for three doubling cycles, the wider
architecture 2 of the longer training, and the larger network of Exercise 4
without and with label smoothing and with mirrored images. Each accuracy stands
beside the figures that were published for the same settings, where any are
known; these are of runs on CIFAR-10's original files.

With --protocol batch1 the same networks train on one batch of 10,000 images,
as the course does at first; no figures are known for it.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from ..._typing import JsonDict
from ...datasets import Dataset
from .. import cli, plots, report
from ..output_folder import OutputFolder
from ..published import PUBLISHED, Published
from ..results import Result
from ..runs import ARCHITECTURES, LONGER_TRAINING, Run, over_seeds, under_one_name
from ..statistics import prediction_interval
from ..usage import usage
from . import exercise4

OUTPUT = "results/course_tables"
SEEDS = 5
QUICK = {"step_size": 20}
ONE_MORE_RUN = "“One more run” is where another run of ours would lie with a probability of 95 %"
SETTINGS = "Not every source tells all its settings: such figures stand beside the settings that they fit best."


def _like(run: Run, name: str, label: str, **changes: Any) -> Run:
    """The run under another name, with what decides no accuracy as cheap as can be."""
    return dataclasses.replace(run, name=name, label=label, snapshots=False, log_every=1000, **changes)


def _with_cycles(cycles: str, growth: float, runs: Sequence[Run]) -> list[Run]:
    return [_like(run, f"{cycles}-f{run.filter_size}-nf{run.n_filters}", str(run.label), growth=growth) for run in runs]


EQUAL = _with_cycles("equal", 1.0, ARCHITECTURES)
DOUBLING = _with_cycles("doubling", 2.0, [*ARCHITECTURES, LONGER_TRAINING[-1]])
LARGER = [
    _like(exercise4.PLAIN, "exercise4", "without smoothing"),
    _like(exercise4.PLAIN, "exercise4-smoothing", "smoothing ε = 0.1", label_smoothing=0.1),
    _like(exercise4.PLAIN, "exercise4-mirroring", "mirroring", flip=True),
]
#: The tables in their order, by the names of their pictures: the start of the heading, and the runs.
TABLES: Mapping[str, tuple[str, Sequence[Run]]] = {
    "equal-cycles": ("Exercise 3", EQUAL),
    "doubling-cycles": ("Exercise 3, trained longer", DOUBLING),
    "exercise4": ("Exercise 4, f=4, nf=40", LARGER),
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.experiment_parser(__doc__, OUTPUT, SEEDS)
    cli.add_workers_option(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = parse(argv)
    source, data = cli.load_data(arguments)
    templates = [run for _, runs in TABLES.values() for run in runs]
    if arguments.quick:
        templates = [under_one_name(run, **QUICK) for run in templates]
    with usage(n_seeds="--seeds"):
        runs = over_seeds(templates, cli.n_seeds(arguments))
    cli.check_runs(runs, data, arguments)
    remarks = [describe_published(data, arguments.protocol)]
    return cli.run_experiment(
        "course_tables", "The course's tables", runs, source, data, arguments, write_sections, remarks=remarks
    )


def is_published(data: Dataset, protocol: str) -> bool:
    """Whether the published figures are for the same training images."""
    return data.name.partition(" (")[0] == "CIFAR-10" and protocol == "full"


def describe_published(data: Dataset, protocol: str) -> str:
    """What the published figures were measured on, or why there are none."""
    if is_published(data, protocol):
        return f"Published figures are for CIFAR-10's original files; ours are for {data.name}. {SETTINGS}"
    if protocol == "full":
        return f"Published figures are for CIFAR-10: they are left out beside results on {data.name}."
    return "No published figures are known for training on one batch."


@dataclasses.dataclass(frozen=True)
class ComparedSection(report.Section):
    """A section with the accuracies that were published for its rows, by the name of the row.

    Rows are compared with these, and not with each other.
    """

    pairs: Sequence[tuple[str, str]] | None = ()
    published: Mapping[str, Sequence[Published]] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_document(cls, document: JsonDict) -> Self:
        """The section of a results file, without pictures."""
        published = {row["name"]: [Published(**figure) for figure in row["published"]] for row in document["rows"]}
        rows = [report.Summary.from_document(row) for row in document["rows"]]
        return cls(document["heading"], rows, [], conclusion=document.get("conclusion", ""), published=published)

    def document(self) -> JsonDict:
        """dict: for the results file."""
        document = super().document()
        for row in document["rows"]:
            row["published"] = [dataclasses.asdict(figure) for figure in self.published.get(row["name"], ())]
        return document

    def body(self) -> list[str | report.Table]:
        """list: the table, in which each published figure has a line, and the sentences that interpret it."""
        lines = [
            [
                row.label,
                f"{row.n_parameters:,}",
                row.n_runs,
                report.format_mean(row.test_accuracy, scale=100),
                report.format_each(row.test_accuracy, scale=100),
                report.format_ends(prediction_interval(row.test_accuracy), scale=100, limits=report.ACCURACIES),
                *([figure.text, figure.source] if figure else ["", ""]),
                report.format_change(figure.difference(mean_accuracy(row))) if figure and row.test_accuracy else "",
            ]
            for row in self.summaries
            for figure in self.published.get(row.name) or (None,)
        ]
        header = ["", "parameters", "runs", "test accuracy (%)", "each run (%)", "one more run (%)"]
        ours = len(header)
        header += ["published (%)", "by", "ours − published"]
        shown = len(header) if any(self.published.get(row.name) for row in self.summaries) else ours
        table = report.Table(header[:shown], [line[:shown] for line in lines])
        explained = any(prediction_interval(row.test_accuracy) for row in self.summaries) * f"{ONE_MORE_RUN}."
        outliers = describe_outliers(self.summaries, self.published)
        return [table, *filter(None, (outliers or explained, self.conclusion))]


def mean_accuracy(row: report.Summary) -> float:
    """The mean test accuracy in percent."""
    return 100 * float(np.mean(row.test_accuracy))


def describe_outliers(rows: Sequence[report.Summary], published: Mapping[str, Sequence[Published]]) -> str:
    """Which published figures are not what one more run of ours would give; empty if that cannot be told."""
    compared, outside = 0, []
    for row in rows:
        interval = prediction_interval(row.test_accuracy)
        if interval is None:
            continue
        low, high = (100 * end for end in interval)
        for figure in published.get(row.name, ()):
            compared += 1
            if figure.high < low or figure.low > high:
                outside.append(f"{row.label} ({figure.text}, {figure.source})")
    if not compared:
        return ""
    which = f"of {report.count(compared, 'published figure')}, {len(outside) or 'none'} lie{'s' * (len(outside) < 2)}"
    return f"{ONE_MORE_RUN}; {which} outside{': ' * bool(outside)}{'; '.join(outside)}."


def write_sections(
    results: Sequence[Result], data: Dataset, folder: OutputFolder, arguments: argparse.Namespace
) -> list[report.Section]:
    """Draw the figures; return the sections of the report, one for each table that has results."""
    published = PUBLISHED if is_published(data, arguments.protocol) else {}
    origin = report.describe_origin(data, arguments.quick, all(result.complete for result in results))
    summaries = {row.name: row for row in report.summarise(results)}
    runs = {result.run.name: result.run for result in results}
    means = {name: mean_accuracy(row) for name, row in summaries.items() if row.test_accuracy}
    sections: list[report.Section] = []
    for picture, (title, templates) in TABLES.items():
        rows = [summaries[run.name] for run in templates if run.name in summaries]
        if not rows:
            continue
        run, figures = runs[rows[0].name], {}
        accuracy = {row.label: row.test_accuracy for row in rows if row.test_accuracy}
        if accuracy:
            figures[picture] = plots.plot_bars(
                accuracy,
                f"{title}, {report.describe_cycles(run.schedule())}\n{origin}",
                "test accuracy (%)",
                percent=True,
                published={
                    row.label: [(figure.low / 100, figure.high / 100) for figure in published.get(row.name, ())]
                    for row in rows
                    if row.test_accuracy
                },
            )
        heading = f"{title}: {describe_settings(run)}, {len(data.train):,} training images"
        pictures = report.save_pictures(figures, folder, arguments.format)
        conclusion = conclude(rows, means, published)
        sections.append(ComparedSection(heading, rows, pictures, conclusion=conclusion, published=published))
    return sections


def describe_settings(run: Run) -> str:
    """What the rows of a table have in common."""
    return (
        f"nh={run.n_hidden}, {report.describe_cycles(run.schedule())} from n_s={run.step_size}, "
        f"η from {run.eta_min:g} to {run.eta_max:g}, λ={run.l2:g}, batches of {run.batch_size}"
    )


def conclude(
    rows: Sequence[report.Summary], means: Mapping[str, float], published: Mapping[str, Sequence[Published]]
) -> str:
    """How far a table's accuracies are from the published ones; empty if there are none.

    Parameters
    ----------
    rows : sequence of Summary
        Of the table.
    means : mapping of str to float
        Mean test accuracies in percent by the names of rows, those of the other tables included.
    published : mapping of str to sequence of Published
    """
    pairs = [(means[row.name], figure) for row in rows if row.name in means for figure in published.get(row.name, ())]
    if not pairs:
        return ""
    differences = [figure.difference(mean) for mean, figure in pairs]
    average, lowest, highest = map(
        report.format_change, (float(np.mean(differences)), min(differences), max(differences))
    )
    sentence = f"Ours minus published, 0 within a range: {average} points on average, from {lowest} to {highest}."
    architectures = [(equal.name, doubling.name) for equal, doubling in zip(EQUAL, DOUBLING, strict=False)]
    if rows[0].name == DOUBLING[0].name and all(name in means for pair in architectures for name in pair):
        equal, doubling = (
            np.mean([abs(published[pair[1]][0].difference(means[pair[cycles]])) for pair in architectures])
            for cycles in (0, 1)
        )
        sentence += (
            f" Signs apart, these figures are {doubling:.2f} points from ours with doubling cycles on average, and "
            f"{equal:.2f} from ours with equal ones."
        )
    return sentence
