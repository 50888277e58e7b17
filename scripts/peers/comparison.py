"""The comparison of cyconv with two implementations in PyTorch: ratios, tables, conclusions, CSV."""

from itertools import combinations
from statistics import median

from cyconv.experiments import report, statistics

from . import PEERS
from .tables import median_and_range

OURS, THEIRS = "cyconv", ("torch", "torch-manual")
LABELS = {name: PEERS[name].label for name in (OURS, *THEIRS)}
BEST = "the faster of the two PyTorch implementations"
RATIO_HEADER = ["conv2d + autograd / cyconv", "best PyTorch / cyconv"]


def ratios(times):
    """The times of PyTorch relative to cyconv in every round, for each implementation and the faster of them."""
    each = {name: [a / b for a, b in zip(times[name], times[OURS], strict=True)] for name in THEIRS}
    return each | {BEST: [min(pair) for pair in zip(*each.values())]}


def medians(times, decimals):
    return ", ".join(f"{LABELS[name]} {median(values):,.{decimals}f}" for name, values in times.items())


def _time_cells(times):
    by_name = ratios(times)
    cells = [median_and_range(times[name]) for name in LABELS]
    return cells + [f"{median(by_name[name]):.2f}×" for name in (THEIRS[0], BEST)]


def steps_table(steps):
    rows = []
    for step in steps:
        sizes = [f"{step['filter_size']}", f"{step['n_filters']}", f"{step['n_parameters']:,}"]
        rows.append([*sizes, *_time_cells(step["microseconds"])])
    header = ["f", "nf", "parameters", *LABELS.values(), *RATIO_HEADER]
    return report.Table(header, rows, n_keys=3)


def runs_table(runs):
    rows = [[run["label"], f"{len(run['seconds'][OURS])}", *_time_cells(run["seconds"])] for run in runs]
    header = ["architecture", "runs", *LABELS.values(), *RATIO_HEADER]
    return report.Table(header, rows, n_keys=1)


def accuracies_table(runs):
    rows = []
    for run in runs:
        for name, label in LABELS.items():
            accuracies, seconds = run["test_accuracy"][name], run["layout_seconds"][name]
            cells = [report.format_mean(accuracies, scale=100), report.format_each(accuracies, scale=100)]
            rows.append([run["label"], label, *cells, median_and_range(seconds)])
    header = ["architecture", "trained by", "test accuracy (%)", "each run (%)", "layout (s)"]
    return report.Table(header, rows, n_keys=2)


def conclude(what, measured):
    """One or two sentences: how much longer PyTorch takes than cyconv, and where that is not so in every round."""
    by_network = [ratios(times) for times in measured]
    clauses, mixed = [], {}
    for name, label in ((THEIRS[0], f"with {LABELS[THEIRS[0]]}"), (BEST, f"with {BEST}")):
        middles = [median(each[name]) for each in by_network]
        low, high = f"{min(middles):.2f}", f"{max(middles):.2f}"
        clauses.append(f"{low if low == high else f'{low} to {high}'} times as long {label}")
        mixed[label] = sum(min(each[name]) <= 1 <= max(each[name]) for each in by_network)
    sentence = f"{what} takes {clauses[0]} as with cyconv, and {clauses[1]}."
    if len(measured[0][OURS]) == 1:
        return sentence + " With one measurement each, it cannot be told how much times vary."
    listed = [f"for {n} of {len(by_network)} networks {label}" for label, n in mixed.items() if n]
    if not listed:
        return sentence + " Which is faster is the same in every round."
    return sentence + f" Which is faster differs from round to round {' and '.join(listed)}."


def conclude_accuracies(runs):
    """One or two sentences: whether the three implementations reach the same test accuracy, as they should."""
    names = {run["label"]: [f"{run['label']}, {LABELS[name]}" for name in run["test_accuracy"]] for run in runs}
    samples = {
        name: statistics.Sample(dict(enumerate(accuracies)), run["label"])  # all start from the same weights
        for run in runs
        for name, accuracies in zip(names[run["label"]], run["test_accuracy"].values())
    }
    pairs = [(later, earlier) for of_run in names.values() for earlier, later in combinations(of_run, 2)]
    return report.describe_differences(samples, pairs=pairs)


def steps_csv(steps, data):
    header = ["data_set", "f", "nf", "nh", "trained_by", "round", "microseconds"]
    rows = (
        [data.name, step["filter_size"], step["n_filters"], step["n_hidden"], LABELS[name], round_, value]
        for step in steps
        for name, values in step["microseconds"].items()
        for round_, value in enumerate(values, 1)
    )
    return report.format_csv(header, rows)


def runs_csv(runs, data):
    measures = ["seconds", "layout_seconds", "test_accuracy"]
    rows = (
        [data.name, run["label"], LABELS[name], seed, run["n_updates"], *values]
        for run in runs
        for name in LABELS
        for seed, values in enumerate(zip(*(run[measure][name] for measure in measures)))
    )
    return report.format_csv(["data_set", "architecture", "trained_by", "seed", "updates", *measures], rows)
