"""The chart of a benchmark: throughput of an update, by network and library."""

import statistics

from cyconv.experiments.plots import COLOURS, save_figure
from cyconv.experiments.report import count

from . import PEERS
from .tables import find, was_timed


def draw_steps(results, path):
    """Draw the throughput of all peers on the CPU with the largest number of threads, and the measured peak.

    The height of a bar is the throughput of the median time, its error bar
    spans all rounds, and the number above it is the median in microseconds.
    """
    from matplotlib.figure import Figure

    section = results["steps"]
    threads, networks = section["threads"][-1], section["networks"]
    peers = [peer for peer in PEERS if not PEERS[peer].gpu and was_timed(section, peer, threads)]
    width = 0.86 / len(peers)
    figure = Figure(figsize=(2.2 + 1.7 * len(networks), 4.4), layout="constrained")
    axes = figure.subplots()
    error_style = {"elinewidth": 0.8, "ecolor": "#444444"}
    above = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "va": "bottom", "rotation": 90}
    for i, peer in enumerate(peers):
        for place, network in enumerate(networks.values()):
            steps = find(network, peer, threads)["step"]
            times = max(steps), statistics.median(steps), min(steps)
            low, middle, high = (network["step_flops"] / time / 1e3 for time in times)
            x = place - 0.43 + (i + 0.5) * width
            errors = [[middle - low], [high - middle]]
            label = "_" * (place > 0) + PEERS[peer].label
            axes.bar(x, middle, 0.92 * width, yerr=errors, color=COLOURS[i], label=label, error_kw=error_style)
            axes.annotate(f"{statistics.median(steps):.0f}", (x, high), fontsize=7.5, **above)
    peaks = [
        value
        for network in networks.values()
        for peak in network["peak"]
        for value in peak["gflops"]
        if (peak["threads"], peak["dtype"]) == (threads, "float32")
    ]
    if peaks:
        label = "measured peak of fused multiply-adds"
        axes.axhline(statistics.median(peaks), color="black", linewidth=1, linestyle=(0, (4, 2)), label=label)
    axes.margins(y=0.1)
    labels = [_label(name, network["case"]) for name, network in networks.items()]
    axes.set_xticks(range(len(networks)), labels)
    axes.set_ylabel("GFLOP/s (above the bars: µs per update)")
    axes.spines[["top", "right"]].set_visible(False)
    batch_size = next(iter(networks.values()))["case"]["batch_size"]
    machine = results["machine"]
    axes.set_title(
        f"One SGD update: batch {batch_size}, float32, {count(threads, 'thread')}, random images\n"
        f"{machine['processor']}, {machine['instruction_set']}",
        fontsize=10,
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    save_figure(figure, path)


def _label(name, case):
    shape = f"f={case['filter_size']}, nf={case['n_filters']},\nnh={', '.join(map(str, case['n_hidden']))}"
    return shape if "," in name else f"{name}\n{shape}"
