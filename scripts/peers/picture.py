"""The picture of a benchmark: throughput of an update, by network and library."""

import statistics

from cyconv.experiments.plots import COLOURS, save_figure

from . import PEERS
from .tables import find


def draw_steps(results, path):
    """Bars for every peer on the largest number of threads; the measured peak as a line.

    A bar reaches the throughput of the median time, its whisker spans all
    rounds, and the number above it is that time in microseconds.
    """
    from matplotlib.figure import Figure

    section = results["steps"]
    threads, networks = section["threads"][-1], section["networks"]
    peers = [
        peer
        for peer in PEERS
        if not PEERS[peer].gpu and any(find(network, peer, threads) for network in networks.values())
    ]
    width = 0.86 / len(peers)
    figure = Figure(figsize=(2.2 + 1.7 * len(networks), 4.4), layout="constrained")
    axes = figure.subplots()
    for i, peer in enumerate(peers):
        for place, network in enumerate(networks.values()):
            steps = find(network, peer, threads)["step"]
            low, middle, high = (
                network["step_flops"] / step / 1e3 for step in (max(steps), statistics.median(steps), min(steps))
            )
            x = place - 0.43 + (i + 0.5) * width
            axes.bar(
                x,
                middle,
                0.92 * width,
                yerr=[[middle - low], [high - middle]],
                color=COLOURS[i],
                label="_" * (place > 0) + PEERS[peer].label,
                error_kw={"elinewidth": 0.8, "ecolor": "#444444"},
            )
            axes.annotate(
                f"{statistics.median(steps):.0f}",
                (x, high),
                xytext=(0, 3),
                fontsize=7.5,
                rotation=90,
                textcoords="offset points",
                ha="center",
                va="bottom",
            )
    peaks = [
        value
        for network in networks.values()
        for probe in network["peak"]
        for value in probe["gflops"]
        if (probe["threads"], probe["dtype"]) == (threads, "float32")
    ]
    if peaks:
        axes.axhline(
            statistics.median(peaks),
            color="black",
            linewidth=1,
            linestyle=(0, (4, 2)),
            label="measured peak of fused multiply-adds",
        )
    axes.margins(y=0.1)
    labels = [_label(name, network["case"]) for name, network in networks.items()]
    axes.set_xticks(range(len(networks)), labels)
    axes.set_ylabel("GFLOP/s (above the bars: µs per update)")
    axes.spines[["top", "right"]].set_visible(False)
    batch_size = next(iter(networks.values()))["case"]["batch_size"]
    machine = results["machine"]
    on = f"{threads} thread{'s' * (threads > 1)}"
    axes.set_title(
        f"One SGD update: batch {batch_size}, float32, {on}, random images\n"
        f"{machine['processor']}, {machine['instruction_set']}",
        fontsize=10,
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    save_figure(figure, path)


def _label(name, case):
    shape = f"f={case['filter_size']}, nf={case['n_filters']},\nnh={', '.join(map(str, case['n_hidden']))}"
    return shape if "," in name else f"{name}\n{shape}"
