#!/usr/bin/env python3
"""The ladder: one update of a small network, from plain loops to the kernels that train it, and what each idea gains.

Every rung takes the same updates of the network A2 (f=4, nf=10, nh=50; batches of 100 images, float32) from the same
start. They are first compared with NumPy's; then the rungs take turns, each for a tenth of a second a round, all on one
thread but the last. cyconv/_kernels/LADDER.md explains the rungs and shows the table.

    python scripts/ladder.py

Prints the table, writes it and results.json to the output folder, and ends with exit code 1 if a rung does not compute
what NumPy does.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))  # which python -P leaves out
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy, too, on one thread; it reads this once, when imported

import time

import numpy as np
import peers

from cyconv import get_num_threads, set_num_threads
from cyconv.backend.dispatch import measure_peak_flops
from cyconv.experiments import cli, describe_data, report
from cyconv.experiments.ladder import FLOPS, RUNGS
from cyconv.experiments.output_folder import OutputFolder

OUTPUT = "results/ladder"
N_ROUNDS, SECONDS = 9, 0.1
QUICK = {"N_ROUNDS": 2, "SECONDS": 0.02}
N_COMPARED, TOLERANCE = 3, 0.01
FIRST = "plain loops"
HEADER = ["rung", "µs per update", "rung before", FIRST, "GFLOP/s", "of the peak"]


def main(argv=None):
    arguments = cli.data_parser(__doc__, OUTPUT).parse_args(argv)
    sizes = QUICK if arguments.quick else {name: globals()[name] for name in QUICK}
    source, data = cli.load_data(arguments)
    cli.check_like_cifar10(data, arguments)
    configuration = {
        "script": "ladder",
        "quick": arguments.quick,
        "protocol": arguments.protocol,
        "threads": get_num_threads(),
        "data": describe_data(data),
        "runs": [],
    }
    folder = OutputFolder(arguments.output, configuration, overwrite=arguments.overwrite)
    if folder.results:
        folder.report()
        return 0 if folder.results["all_agree"] else 1

    peers.warn_if_busy()
    rungs = {name: rung(data.train) for name, rung in RUNGS.items()}
    errors = compare(rungs)
    wrong = [name for name, error in errors.items() if not error <= TOLERANCE]
    times, peaks = measure(rungs, sizes["N_ROUNDS"], sizes["SECONDS"])
    verdict = (
        f"After {N_COMPARED} updates the changes of all parameters agree with NumPy's to {max(errors.values()):.0e}."
    )
    if wrong:
        verdict = f"The parameters differ from NumPy's, so that times mean nothing, of: {', '.join(wrong)}."
    document = {
        **report.results_header(configuration, complete=True),
        "all_agree": not wrong,
        "errors": errors,
        "flops": FLOPS,
        "microseconds": times,
        "peak_gflops": peaks,
    }
    quick = report.remarks(arguments.quick, complete=True)
    part = ("Microseconds per update", [table(times, peaks)])
    folder.finish(document, report.report_document("The ladder", document, quick, verdict, part))
    cli.print_paragraphs(table(times, peaks), report.machine_sentence(document), verdict, *quick)
    print(cli.closing_line(data, source, folder))
    return 1 if wrong else 0


def compare(rungs):
    """For each rung, how far from NumPy's the changes of its parameters are: the largest relative 2-norm."""
    changes = {}
    for name, rung in rungs.items():
        start = {key: array.astype(np.float64) for key, array in rung.parameters.items()}
        rung.train(N_COMPARED)
        changes[name] = {key: array - start[key] for key, array in rung.parameters.items()}
    truth = changes["NumPy"]
    return {
        name: float(max(np.linalg.norm(change[key] - truth[key]) / np.linalg.norm(truth[key]) for key in truth))
        for name, change in changes.items()
    }


def measure(rungs, n_rounds, seconds):
    """Microseconds per update of each rung in every round, and the peak in GFLOP/s on one thread and on all."""
    n_threads, n_updates = get_num_threads(), {}
    times, peaks = {name: [] for name in rungs}, {"one": [], "all": []}
    try:
        for number in range(n_rounds + 1):
            for name, rung in rungs.items():
                set_num_threads(n_threads if rung.parallel else 1)
                n = n_updates.get(name, 2)
                start = time.perf_counter()
                rung.train(n)
                microseconds = 1e6 * (time.perf_counter() - start) / n
                n_updates.setdefault(name, max(2, int(1e6 * seconds / microseconds)))
                if number:  # the first round only finds out how many updates to take
                    times[name].append(microseconds)
            for key, n in {"one": 1, "all": n_threads}.items() if number else ():
                set_num_threads(n)
                peaks[key].append(measure_peak_flops(seconds=seconds / 2))
    finally:
        set_num_threads(n_threads)
    return times, peaks


def table(times, peaks):
    """A row for each rung: medians over the rounds, and medians of the ratios within a round."""
    rows, before = [], None
    for name, own in times.items():
        rate = FLOPS / (1e3 * np.array(own))
        peak = peaks["all" if RUNGS[name].parallel else "one"]
        rows.append([
            name,
            f"{np.median(own):,.0f}",
            f"{np.median(np.divide(times[before], own)):.2f}×" if before and name != FIRST else "",
            f"{np.median(np.divide(times[FIRST], own)):.1f}×",
            f"{np.median(rate):.1f}",
            f"{100 * np.median(np.divide(rate, peak)):.0f} %",
        ])  # fmt: skip
        before = name
    return report.Table(HEADER, rows)


if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
