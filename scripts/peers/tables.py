"""A benchmark's results as Markdown tables."""

import statistics

from cyconv.experiments.report import count, format_table

from . import PEERS


def describe(results):
    """All sections of ``results`` as Markdown."""
    machine = results["machine"]
    parts = [
        "# Benchmark",
        (
            f"{machine['processor']} ({machine['architecture']}), {machine['instruction_set']} kernels. "
            "Values are the median (lowest–highest) of all rounds."
        ),
    ]
    for name, write in (
        ("steps", _steps),
        ("shapes", _shapes),
        ("extras", _extras),
        ("memory", _memory),
        ("imports", _imports),
        ("busy", _busy),
        ("exercise", _exercise),
    ):
        if name in results:
            parts += write(results[name])
    return "\n\n".join(parts) + "\n"


def find(network, peer, threads, dtype="float32"):
    """The run of a peer for a network, or None."""
    wanted = (peer, threads, dtype)
    runs = {(run["peer"], run["threads"], run["dtype"]): run for run in network["runs"]}
    return runs.get(wanted)


def ratio(numerator, denominator):
    """Median over the rounds of the ratio of two series."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def share_of_peak(network, run):
    """Median over the rounds of a run's share of the measured peak; products that are skipped count as well."""
    gflops = [network["step_flops"] / step / 1e3 for step in run["step"]]
    return ratio(gflops, find_peak(network, run["threads"], run["dtype"]))


def find_peak(network, threads, dtype="float32"):
    """The measured peak of every round, in GFLOP/s."""
    return next(peak["gflops"] for peak in network["peak"] if (peak["threads"], peak["dtype"]) == (threads, dtype))


def _steps(section):
    parts = []
    for threads in section["threads"]:
        for heading, what in (
            ("Microseconds per update", "step"),
            ("Evaluation, thousand images per second", "evaluation"),
        ):
            parts += [f"## {heading}, {count(threads, 'thread')}", _peer_table(section, threads, what)]
    if any(find(network, "cyconv", section["threads"][-1]) for network in section["networks"].values()):
        parts += ["## cyconv on its own", _own_table(section)]
    if section["gpu"]:
        parts += [f"## Comparison with a GPU ({section['gpu']})", _gpu_table(section)]
    return parts


def _gpu_table(section):
    """Times on the CPUs and the GPU; the CPUs are faster where the ratio is above 1."""
    threads = section["threads"][-1]
    gpus = [peer for peer in PEERS if PEERS[peer].gpu and was_timed(section, peer, threads)]
    ours = "cyconv" if was_timed(section, "cyconv", threads) else None
    labels = [f"cyconv, {count(threads, 'thread')}"] if ours else []
    labels += [PEERS[peer].label for peer in gpus]
    header = ["network", *(f"{label}, {unit}" for unit in ("µs per update", "thousand images/s") for label in labels)]
    header += ["fastest GPU update / cyconv's"] if ours else []
    rows = []
    for name, network in section["networks"].items():
        runs = [find(network, peer, threads) for peer in ([ours] if ours else []) + gpus]
        row = [
            name,
            *(median_and_range(run["step"]) for run in runs),
            *(median_and_range(run["evaluation"]) for run in runs),
        ]
        if ours:
            row.append(f"{min(ratio(run['step'], runs[0]['step']) for run in runs[1:]):.2f}×")
        rows.append(row)
    return format_table(header, rows, markdown=True)


def was_timed(section, peer, threads):
    return any(find(network, peer, threads) for network in section["networks"].values())


def _peer_table(section, threads, what):
    networks = section["networks"]
    peers = [peer for peer in PEERS if not PEERS[peer].gpu and was_timed(section, peer, threads)]
    others = [peer for peer in peers if peer != "cyconv"]
    compared = "cyconv" in peers and others
    header = ["network", *(PEERS[peer].label for peer in peers)]
    if compared:
        header += ["speedup over the best", *(["over conv2d + autograd"] if "torch" in others else [])]
    rows = []
    for name, network in networks.items():
        runs = {peer: find(network, peer, threads)[what] for peer in peers}
        row = [name, *(median_and_range(values) for values in runs.values())]
        if compared:
            gains = {peer: ratio(runs[peer], runs["cyconv"]) for peer in others}
            if what == "evaluation":
                gains = {peer: ratio(runs["cyconv"], runs[peer]) for peer in others}
            row.append(f"{min(gains.values()):.2f}×")
            row += [f"{gains['torch']:.2f}×"] if "torch" in gains else []
        rows.append(row)
    return format_table(header, rows, markdown=True)


def _own_table(section):
    few, many = section["threads"][0], section["threads"][-1]
    header = [
        "network",
        "MFLOP per update",
        "measured peak, GFLOP/s",
        *(f"share of peak, {count(threads, 'thread')}" for threads in section["threads"]),
        "float64 / float32",
    ]
    header += [f"{few} → {many} threads"] if few != many else []
    rows = []
    for name, network in section["networks"].items():
        run = find(network, "cyconv", many)
        shares = [share_of_peak(network, find(network, "cyconv", threads)) for threads in section["threads"]]
        row = [name, f"{network['step_flops'] / 1e6:.1f}", median_and_range(find_peak(network, many))]
        row += [f"{share:.0%}" for share in shares]
        row.append(f"{ratio(find(network, 'cyconv', many, 'float64')['step'], run['step']):.2f}")
        row += [f"{ratio(find(network, 'cyconv', few)['step'], run['step']):.2f}×"] if few != many else []
        rows.append(row)
    return format_table(header, rows, markdown=True)


def _shapes(section):
    rows = []
    for shape in section:
        case = shape["case"]
        hidden = ", ".join(str(n) for n in case["n_hidden"])
        sizes = [str(case["filter_size"]), str(case["n_filters"]), hidden, str(case["batch_size"])]
        share = f"{statistics.median(shape['share']):.2f}"
        rows.append([shape["beside"], *sizes, median_and_range(shape["gflops"]), share])
    header = ["tuned shape", "f", "nf", "nh", "batch", "GFLOP/s", "relative to the tuned shape"]
    return ["## Other shapes (cyconv)", format_table(header, rows, markdown=True)]


def _extras(section):
    extras = next(iter(section.values()))
    header = ["network", "plain, µs per update", *(name for name in extras if name != "plain")]
    rows = [
        [
            network,
            median_and_range(times["plain"]),
            *(f"{ratio(times[name], times['plain']) - 1:+.0%}" for name in header[2:]),
        ]
        for network, times in section.items()
    ]
    return [
        "## Additional time of augmentation, dropout and momentum per update (cyconv)",
        format_table(header, rows, markdown=True),
    ]


def _memory(section):
    rows = [[PEERS[name].label, f"{mib['held']:.0f}", f"{mib['peak']:.0f}"] for name, mib in section["peers"].items()]
    return [
        f"## Memory for training on {section['n_images']:,} images, MiB in addition to Python with NumPy",
        format_table(["", "held", "peak"], rows, markdown=True),
    ]


def _imports(section):
    rows = [[module, median_and_range([1000 * value for value in seconds])] for module, seconds in section.items()]
    return ["## Import, milliseconds in addition to NumPy", format_table(["", "ms"], rows, markdown=True)]


def _busy(section):
    """cyconv's updates with few and many threads, and those of the peers, side by side."""
    measured = {(row["network"], row["busy"], row["peer"], row["threads"]): row["updates"] for row in section}
    columns = list(dict.fromkeys((row["peer"], row["threads"]) for row in section))
    few, many = (choose((n for peer, n in columns if peer == "cyconv"), default=0) for choose in (min, max))
    others = [column for column in columns if many and column[0] != "cyconv"]
    header = ["network", "busy processes", *(f"{PEERS[peer].label}, {count(n, 'thread')}" for peer, n in columns)]
    header += [f"{many} / {few} threads"] if few < many else []
    header += ["speedup over the best"] if others else []
    rows = []
    by_load = sorted(section, key=lambda row: row["busy"])
    for key in dict.fromkeys((row["network"], row["busy"]) for row in by_load):
        row = [key[0], str(key[1]), *(median_and_range(measured[*key, *column]) for column in columns)]
        own = measured[*key, "cyconv", many] if many else []
        row += [f"{ratio(own, measured[*key, 'cyconv', few]):.2f}"] if few < many else []
        row += [f"{min(ratio(own, measured[*key, *column]) for column in others):.2f}×"] if others else []
        rows.append(row)
    return ["## Updates per second while other processes are busy", format_table(header, rows, markdown=True)]


def _exercise(section):
    rows = []
    for mode, times in section.items():
        cyconv, torch = times.values()
        rows.append([mode, median_and_range(cyconv), median_and_range(torch), f"{ratio(torch, cyconv):.2f}×"])
    return [
        "## The whole Exercise 3 (protocol batch1, one seed, with figures), seconds",
        format_table(["", "cyconv", "PyTorch conv2d + autograd", "PyTorch / cyconv"], rows, markdown=True),
    ]


def median_and_range(values):
    """``"median (lowest–highest)"`` with about three significant digits."""
    median, low, high = statistics.median(values), min(values), max(values)
    digits = 0 if median >= 100 else 1 if median >= 10 else 2
    return f"{median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
