#!/usr/bin/env python3
"""Write RESULTS.md, the page of results, from the small files in published/.

    python scripts/write_results.py results/exercise3 results/lr_range    publish these folders, write the page
    python scripts/write_results.py                                       write the page from what is published
    python scripts/write_results.py --check                               is the page what the published files give?

A published file has the name of the output folder that it comes from. It
holds the numbers of the folder's results.json, and where they come from: the
command, the date, the versions, the machine and the fingerprint of the data.
Curves and networks stay behind, and so do times: those on record are in
cyconv/_kernels/PERFORMANCE.md. Of Exercise 3's pictures one is published as
well: the learning rate and the accuracies of the longer training.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from cyconv.experiments import cli, report, search, statistics
from cyconv.experiments.commands import course_tables, exercise4, lr_range, push_accuracy, search_l2, verify_gradients
from cyconv.experiments.output_folder import RESULTS
from cyconv.experiments.usage import UsageError, usage

HERE = Path(__file__).resolve().parent
PUBLISHED, PAGE = HERE / "published", HERE / "RESULTS.md"
INTRODUCTION = f"""\
# Results

Written by `python scripts/write_results.py` from the files in [published](published), never by hand. What each script
does is in [README.md](README.md), how fast it runs in [PERFORMANCE.md](../cyconv/_kernels/PERFORMANCE.md).

Data that are called “not the original files” are CIFAR-10's images after one pass through JPEG: accuracies can differ
from those on the original files.

Numbers are mean ± standard deviation over runs that differ in their seed, which decides the initial weights, the order
of the images, augmentation and dropout. They are those after the last update; where test accuracies are told, the test
images were read once, at the end of each run. The recipes of Exercise 5.1 were chosen on 10,000 training images
that were held out for that; no test image was read meanwhile. The recipes have run twice, since the fit of the
whitening was mended after the first time, when single networks had reached 74.84 ± 0.23, 77.31 ± 0.36 and
78.64 ± 0.24 %; nothing was chosen by that.

{report.COMPARISON_RULE}

Runs of different architectures with one seed share the beginnings of their weights and the order of the images, so
that their accuracies may rise and fall together: Welch's test, which takes them as independent, is then too cautious,
but not wrong.

The test images are a sample as well: by that alone an accuracy has a binomial standard error, √(p(1 − p)/n), of
{report.standard_errors([0.5, 0.75], 10_000)} points at 75 to 50 % on 10,000 images. Intervals and
tests leave it out. All rows of a table are measured on the same images, so that differences between rows have less of
this error than two separate samples would give them, but still some.
"""
PICTURE = "part2-cycles.png"  # in README.md
CONFIGURATION = ("script", "protocol", "data", "search", "range_test")
#: What is not published, at whatever depth: curves, settings of single runs, times, and what the page works out itself.
LEFT_OUT = {"runs", "training_time", "updates_per_second", "convolution_milliseconds", "class_names", "differences"}
#: Options that decide no number, and how many values each has.
NOT_TOLD = {"--resume": 0, "--overwrite": 0, "--output": 1, "--data": 1}
LINE = 200  # characters of a published file


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="a script's output folder that is to be published")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if RESULTS.md differs")
    arguments = parser.parse_args(argv)
    if arguments.check and arguments.folders:
        parser.error("--check goes without folders")
    if not statistics.scipy_stats():
        raise UsageError("SciPy must be installed to write the page, but it is not: pip install scipy")
    folders = [Path(folder).absolute() for folder in arguments.folders]
    documents = {folder.name: published(folder) for folder in folders}
    for name, document in documents.items():
        PUBLISHED.mkdir(exist_ok=True)
        (PUBLISHED / f"{name}.json").write_text(dump(document) + "\n", encoding="utf-8")
    for folder in folders:
        if (folder / PICTURE).exists():
            shutil.copyfile(folder / PICTURE, PUBLISHED / f"{folder.name}-cycles.png")
    text = page()
    if not arguments.check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE.name} differs from what write_results.py makes of {PUBLISHED.name}/", file=sys.stderr)
        return 1
    return 0


def published(folder):
    """What is published of a folder's results."""
    with usage():
        text = (folder / RESULTS).read_text(encoding="utf-8")
    try:
        document = json.loads(text)
        about, command, data = (document[key] for key in ("configuration", "command", "data_set"))
        script, complete = about["script"], document["complete"] and document.get("all_agree", True)
    except (KeyError, TypeError, ValueError):
        raise UsageError(
            f"FOLDER must hold a results file that tells its command, but {folder / RESULTS} does not"
        ) from None
    if script not in PARTS:
        raise UsageError(f"FOLDER must hold results of {', '.join(PARTS)}, but {folder} holds those of {script}")
    if not complete or about["quick"]:
        raise UsageError(f"FOLDER must hold complete results, not quick or wrong ones, but {folder} does not")
    if data.partition(" (")[0] != "CIFAR-10":
        raise UsageError(f"FOLDER must hold results on CIFAR-10, but those in {folder} are on {data}")
    document["configuration"] = {key: held for key, held in about.items() if key in CONFIGURATION}
    document["command"] = deciding(command)
    return without(document, LEFT_OUT)


def deciding(command):
    """The command without the options that decide no number."""
    kept, left_out = [], 0
    for word in command:
        option, equals, _ = word.partition("=")
        if left_out:
            left_out -= 1
        elif option in NOT_TOLD:
            left_out = 0 if equals else NOT_TOLD[option]
        else:
            kept.append(word)
    return kept


def without(value, keys):
    """A JSON value without these keys of its objects."""
    if isinstance(value, dict):
        return {key: without(held, keys) for key, held in value.items() if key not in keys}
    return [without(held, keys) for held in value] if isinstance(value, list) else value


def dump(value, margin=""):
    """A JSON value as text, what fits on a line on one line."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, (dict, list)) or len(margin + line) <= LINE:
        return line
    inner = margin + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(key, ensure_ascii=False)}: {dump(held, inner)}" for key, held in value.items()]
        return f"{{\n{inner}" + f",\n{inner}".join(items) + f"\n{margin}}}"
    return f"[\n{inner}" + f",\n{inner}".join(dump(held, inner) for held in value) + f"\n{margin}]"


def page():
    """RESULTS.md, from the published files."""
    files = sorted(PUBLISHED.glob("*.json"), key=lambda path: (len(path.name), path.name))
    documents = {path: json.loads(path.read_text(encoding="utf-8")) for path in files}
    blocks = [INTRODUCTION.strip()]
    for script, (title, write) in PARTS.items():
        found = {path: held for path, held in documents.items() if held["configuration"]["script"] == script}
        if found:
            blocks.append(f"## {title}")
        for path, document in found.items():
            told = write(document)
            headings = [block.startswith("### ") for block in told]
            told.insert(1 if headings.count(True) == 1 else 0, origin(path, document))
            blocks += told
    return "\n\n".join(blocks) + "\n"


def origin(path, document):
    """Where the numbers come from: data set, command, date, machine and versions."""
    data, command = document["configuration"]["data"], document["command"]
    command = " ".join(command if command[0] == "cyconv" else ["python", f"scripts/{command[0]}", *command[1:]])
    sizes = [f"{data['n_train']:,} training", f"{data['n_validation']:,} validation"]
    rows = [row for section in document.get("summary", []) for row in section["rows"]]
    accuracies = [value for row in rows for value in report.Summary.from_document(row).test_accuracy]
    if accuracies:
        errors = report.standard_errors(accuracies, data["n_test"])
        sizes.append(f"{data['n_test']:,} test images (binomial standard error of an accuracy: {errors} points)")
    else:
        sizes[-1] += " images"
    return (
        f"{data['name']}: {', '.join(sizes[:-1])} and {sizes[-1]}. `{command}` on "
        f"{document['date'][:10]}, {report.machine_sentence(document)} [All numbers]({PUBLISHED.name}/{path.name})."
    )


def trained(document):
    """Tables of test accuracies."""
    is_exercise4 = document["configuration"]["script"] == "exercise4"
    parts = []
    for held in document["summary"]:
        make = exercise4.section if is_exercise4 else report.Section
        section = make(held["heading"], [report.Summary.from_document(row) for row in held["rows"]], [])
        header = ["", "parameters", "runs", "test accuracy (%)", "95 % interval (%)", "each run (%)"]
        header += ["validation accuracy (%)", *(["validation − training loss"] if section.gap else [])]
        rows = [
            [
                row.label,
                f"{row.n_parameters:,}",
                row.n_runs,
                report.format_mean(row.test_accuracy, scale=100),
                report.format_interval(row.test_accuracy, scale=100, limits=report.ACCURACIES),
                report.format_each(row.test_accuracy, scale=100),
                report.format_mean(row.validation_accuracy, scale=100),
                *([report.format_mean(row.loss_gap, decimals=3)] if section.gap else []),
            ]
            for row in section.summaries
        ]
        parts += [f"### {section.heading}", *map(as_text, [report.Table(header, rows), *section.interpretation()])]
    return parts


def compared(document):
    """Tables of test accuracies beside published ones."""
    sections = [course_tables.ComparedSection.from_document(held) for held in document["summary"]]
    pixels = "Published figures are for the original files, ours for the same images after one pass through JPEG."
    if not any(figures for section in sections for figures in section.published.values()):
        parts = ["No published figures are known for these training images."]
    elif "not the original files" in document["data_set"]:
        parts = [f"{pixels} {course_tables.SETTINGS}"]
    else:
        parts = [course_tables.SETTINGS]
    for section in sections:
        parts += [f"### {section.heading}", *map(as_text, section.body())]
    return parts


def ablated(document):
    """The table of validation accuracies with what each row lost against the first."""
    (held,) = document["summary"]
    rows = [report.Summary.from_document(row) for row in held["rows"]]
    section = push_accuracy.ablation_section(held["heading"], rows)
    return [f"### {section.heading}", *map(as_text, section.body())]


def as_text(block):
    return block.markdown() if isinstance(block, report.Table) else block


def verified(document):
    """The table of relative errors."""
    comparisons = [
        verify_gradients.Comparison(**{key: value for key, value in comparison.items() if key != "agrees"})
        for comparison in document["comparisons"]
    ]
    return [
        f"Relative errors on images of {document['data_set']}:",
        verify_gradients.errors_table(comparisons).markdown(),
        verify_gradients.conclusion(comparisons),
    ]


def ranged(document):
    """The table of suggested learning rates."""
    header = ["", "runs", "η_min", "each run", "η_max", "each run"]
    rows = [
        [
            network["label"],
            f"{len(network['seeds'])}",
            *(cell for end in ("eta_min", "eta_max") for cell in suggested(network[end])),
        ]
        for network in document["networks"]
    ]
    return [
        "Means are geometric; ×/÷ is the standard deviation over seeds as a factor.",
        report.Table(header, rows).markdown(),
        document["conclusion"],
        *(
            lr_range.compare_ends({network["label"]: logarithms(network[key]) for network in document["networks"]}, end)
            for end, key in lr_range.ENDS.items()
        ),
    ]


def suggested(end):
    """An end of the range: over all seeds, and of each."""
    return lr_range.mean_and_factor(logarithms(end)), ", ".join(
        "–" if eta is None else f"{eta:.1e}" for eta in end["each"]
    )


def logarithms(end):
    return end["log10"]["each"] if end["log10"] else []


def searched(document):
    """The table of validation accuracies by λ, the best first."""
    settings = search.Search.from_dict(document["configuration"]["search"])
    measurements = [
        search.Measurement.from_dict({**measurement, "training_time": 0.0}, settings.field)
        for measurement in document["measurements"]
    ]
    ranking = search.rank(measurements)
    return [
        f"{settings.run.label}, {report.describe_cycles(settings.run.schedule())}. The test images took no part.",
        search.ranking_table(ranking, settings.n_seeds, settings.field).markdown(),
        search_l2.conclusion(ranking, settings),
    ]


#: The page's parts in their order, by the script whose results they tell: the heading, and who writes what is below.
PARTS = {
    "verify_gradients": ("Exercises 1 and 2: the convolution and the gradients", verified),
    "exercise3": ("Exercise 3: four architectures, and longer training", trained),
    "exercise4": ("Exercise 4: a larger network, and label smoothing", trained),
    "course_tables": ("Exercises 3 and 4 beside published accuracies", compared),
    "push_accuracy": ("Exercise 5.1: the best accuracy for a given time", trained),
    "push_accuracy --road": ("Exercise 5.1: what each ingredient of a recipe gives", ablated),
    "compare_schedules": ("Schedules and optimisers", trained),
    "lr_range": ("Learning-rate range", ranged),
    "search_l2": ("Search of the weight decay", searched),
}


if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
