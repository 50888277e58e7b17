"""A benchmark's results as Markdown tables."""

import statistics

from cyconv.experiments.report import format_table

from . import PEERS


def describe(results):
    """All sections that ``results`` holds, as Markdown text."""
    machine = results["machine"]
    parts = [
        "# Benchmark",
        (
            f"{machine['processor']} ({machine['architecture']}), kernels for "
            f"{machine['instruction_set']}. Median (lowest–highest) of all rounds."
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
    """The run of a peer among a network's, or None."""
    wanted = (peer, threads, dtype)
    runs = {(run["peer"], run["threads"], run["dtype"]): run for run in network["runs"]}
    return runs.get(wanted)


def ratio(numerator, denominator):
    """Median over the rounds of one series over another."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def share_of_peak(network, run):
    """Median over the rounds of a run's throughput over the measured peak; products that are skipped count as well."""
    gflops = [network["step_flops"] / step / 1e3 for step in run["step"]]
    return ratio(gflops, find_peak(network, run["threads"], run["dtype"]))


def find_peak(network, threads, dtype="float32"):
    """The measured peak in every round, in GFLOP/s."""
    return next(probe["gflops"] for probe in network["peak"] if (probe["threads"], probe["dtype"]) == (threads, dtype))


def _steps(section):
    parts = []
    for threads in section["threads"]:
        parts += [
            f"## Microseconds per update, {threads} thread{'s' * (threads > 1)}",
            _peer_table(section, threads, "step", spread),
        ]
        parts += [
            f"## Evaluation, thousand images per second, {threads} thread{'s' * (threads > 1)}",
            _peer_table(section, threads, "evaluation", spread),
        ]
    if any(find(network, "cyconv", section["threads"][-1]) for network in section["networks"].values()):
        parts += ["## cyconv in itself", _own_table(section)]
    if section["gpu"]:
        parts += [f"## Beside a GPU ({section['gpu']})", _gpu_table(section)]
    return parts


def _gpu_table(section):
    """What the CPUs and the GPU need; a ratio above 1 is in the CPUs' favour."""
    threads = section["threads"][-1]
    gpus = [peer for peer in PEERS if PEERS[peer].gpu and _was_timed(section, peer, threads)]
    ours = "cyconv" if _was_timed(section, "cyconv", threads) else None
    header = [
        "network",
        *([f"cyconv, {threads} threads, µs per update"] if ours else []),
        *(f"{PEERS[peer].label}, µs per update" for peer in gpus),
        *([f"cyconv, {threads} threads, thousand images/s"] if ours else []),
        *(f"{PEERS[peer].label}, thousand images/s" for peer in gpus),
        *(["fastest GPU update / cyconv's"] if ours else []),
    ]
    rows = []
    for name, network in section["networks"].items():
        runs = [find(network, peer, threads) for peer in ([ours] if ours else []) + gpus]
        row = [name, *(spread(run["step"]) for run in runs), *(spread(run["evaluation"]) for run in runs)]
        if ours:
            row.append(f"{min(ratio(run['step'], runs[0]['step']) for run in runs[1:]):.2f}×")
        rows.append(row)
    return format_table(header, rows, markdown=True)


def _was_timed(section, peer, threads):
    return any(find(network, peer, threads) for network in section["networks"].values())


def _peer_table(section, threads, what, show):
    networks = section["networks"]
    peers = [peer for peer in PEERS if not PEERS[peer].gpu and _was_timed(section, peer, threads)]
    others = [peer for peer in peers if peer != "cyconv"]
    compared = "cyconv" in peers and others
    header = ["network", *(PEERS[peer].label for peer in peers)]
    if compared:
        header += ["against the best", *(["against conv2d + autograd"] if "torch" in others else [])]
    rows = []
    for name, network in networks.items():
        runs = {peer: find(network, peer, threads)[what] for peer in peers}
        row = [name, *(show(values) for values in runs.values())]
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
        *(f"share of peak, {threads} thread{'s' * (threads > 1)}" for threads in section["threads"]),
        "float64 / float32",
    ]
    header += [f"{few} → {many} threads"] if few != many else []
    rows = []
    for name, network in section["networks"].items():
        run = find(network, "cyconv", many)
        shares = [share_of_peak(network, find(network, "cyconv", threads)) for threads in section["threads"]]
        row = [name, f"{network['step_flops'] / 1e6:.1f}", spread(find_peak(network, many))]
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
        rows.append(
            [
                shape["beside"],
                str(case["filter_size"]),
                str(case["n_filters"]),
                hidden,
                str(case["batch_size"]),
                spread(shape["gflops"]),
                f"{statistics.median(shape['share']):.2f}",
            ]
        )
    header = ["beside", "f", "nf", "nh", "batch", "GFLOP/s", "of the tuned shape's"]
    return ["## Other shapes (cyconv)", format_table(header, rows, markdown=True)]


def _extras(section):
    extras = next(iter(section.values()))
    header = ["network", "plain, µs per update", *(name for name in extras if name != "plain")]
    rows = [
        [network, spread(times["plain"]), *(f"{ratio(times[name], times['plain']) - 1:+.0%}" for name in header[2:])]
        for network, times in section.items()
    ]
    return [
        "## What augmentation, dropout and momentum add to an update (cyconv)",
        format_table(header, rows, markdown=True),
    ]


def _memory(section):
    rows = [[PEERS[name].label, f"{mib['held']:.0f}", f"{mib['peak']:.0f}"] for name, mib in section["peers"].items()]
    return [
        f"## Memory of training on {section['n_images']:,} images, MiB beyond the interpreter with NumPy",
        format_table(["", "held", "peak"], rows, markdown=True),
    ]


def _imports(section):
    rows = [[module, spread([1000 * value for value in seconds])] for module, seconds in section.items()]
    return ["## Import, milliseconds beyond NumPy's", format_table(["", "ms"], rows, markdown=True)]


def _busy(section):
    few, many = (choose(row["threads"] for row in section) for choose in (min, max))
    updates = {(row["network"], row["busy"], row["threads"]): row["updates"] for row in section}
    header = [
        "network",
        "busy processes",
        *(f"{n} thread{'s' * (n > 1)}" for n in dict.fromkeys((few, many))),
        *([f"{many} / {few}"] if few < many else []),
    ]
    rows = []
    by_load = sorted(section, key=lambda row: row["busy"])
    for network, busy in dict.fromkeys((row["network"], row["busy"]) for row in by_load):
        counts = [updates[network, busy, n] for n in dict.fromkeys((few, many))]
        rows.append(
            [network, str(busy), *map(spread, counts), *([f"{ratio(counts[1], counts[0]):.2f}"] if few < many else [])]
        )
    return ["## Updates a second beside busy processes (cyconv)", format_table(header, rows, markdown=True)]


def _exercise(section):
    rows = []
    for way, times in section.items():
        cyconv, torch = times.values()
        rows.append([way, spread(cyconv), spread(torch), f"{ratio(torch, cyconv):.2f}×"])
    return [
        "## The whole Exercise 3 (protocol batch1, one seed, pictures), seconds",
        format_table(["", "cyconv", "PyTorch conv2d + autograd", "PyTorch / cyconv"], rows, markdown=True),
    ]


def spread(values):
    """``"median (lowest–highest)"`` in a table's few digits."""
    median, low, high = statistics.median(values), min(values), max(values)
    digits = 0 if median >= 100 else 1 if median >= 10 else 2
    return f"{median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
