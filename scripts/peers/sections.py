"""The sections of a benchmark: what runs against what, and the numbers that come of it."""

import contextlib
import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import PEERS
from .case import ARCHITECTURES, Case
from .worker import Worker

# Shapes between the tuned ones, each with the tuned shape it stands beside.
SHAPES = {
    "A1": [
        dict(n_filters=1),
        dict(n_filters=5),
        dict(n_filters=7),
        dict(n_hidden=(33,)),
        dict(n_hidden=(127,)),
        dict(filter_size=1, n_filters=1),
        dict(filter_size=1, n_filters=3),
    ],
    "A2": [
        *(dict(batch_size=n) for n in (10, 32, 50, 64, 128, 500, 1000)),
        dict(n_filters=7),
        dict(n_filters=13),
        dict(n_hidden=(10,)),
        dict(n_hidden=(51,)),
        dict(n_hidden=(50, 50)),
    ],
    "A3": [
        *(dict(batch_size=n) for n in (10, 1000)),
        dict(n_filters=17),
        dict(n_filters=41),
        dict(n_hidden=(51,)),
        dict(n_hidden=(100, 50, 30)),
    ],
    "A4": [
        *(dict(batch_size=n) for n in (10, 1000)),
        dict(n_filters=97),
        dict(n_filters=161),
        dict(n_hidden=(51,)),
        dict(filter_size=32, n_filters=64),
        dict(filter_size=32, n_filters=201),
    ],
    "A5": [dict(batch_size=10), dict(batch_size=1000), dict(n_hidden=(299,)), dict(n_hidden=(300, 100))],
}


def measure_steps(options):
    """Updates and evaluations: every peer on every number of threads, and cyconv in float64 besides.

    Returns
    -------
    dict
        ``threads``, ``gpu`` (its name, or None), and ``networks``: for each its case and ``runs``, a list
        of peer, threads, dtype, chosen variant, error against the reference,
        and per round ``step`` (microseconds) and ``evaluation`` (thousand
        images a second); ``peak`` holds the measured GFLOP/s per round for
        each number of threads and dtype.
    """
    networks = {}
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(name, threads))
            for threads in options.threads
            for name in options.peers
            if not PEERS[name].gpu or threads == options.threads[-1]
        ]
        for name, shape in options.architectures:
            case = Case(*shape, batch_size=options.batch_size)
            _say(f"{name}: f={case.filter_size}, nf={case.n_filters}, nh={case.n_hidden[0]}")
            networks[name] = _measure_network(case, workers, options)
        gpu = next((worker.ask("gpu_name") for worker in workers if PEERS[worker.name].gpu), None)
    return {"threads": options.threads, "gpu": gpu, "networks": networks}


def _measure_network(case, workers, options):
    runs, probes = [], []
    for worker in workers:
        for dtype in ("float32", "float64") if worker.name == "cyconv" else ("float32",):
            described = dataclasses.asdict(dataclasses.replace(case, dtype=dtype))
            about = worker.ask(
                "prepare", key=dtype, case=described, n_images=options.images, seconds=options.seconds / 2
            )
            runs.append(
                (
                    worker,
                    {
                        "peer": worker.name,
                        "threads": worker.threads,
                        "dtype": dtype,
                        **about,
                        "step": [],
                        "evaluation": [],
                    },
                )
            )
            if worker.name == "cyconv":
                probes.append((worker, {"threads": worker.threads, "dtype": dtype, "gflops": []}))
    for _ in range(options.rounds):
        for worker, probe in probes:
            probe["gflops"].append(worker.ask("peak", dtype=probe["dtype"], seconds=options.seconds / 2))
        for what in ("step", "evaluation"):
            for worker, run in runs:
                run[what].append(worker.ask(what, key=run["dtype"], seconds=options.seconds))
    for worker, run in runs:
        worker.ask("drop", key=run["dtype"])
    return {
        "case": dataclasses.asdict(case),
        "step_flops": case.step_flops,
        "image_flops": case.image_flops,
        "runs": [run for _, run in runs],
        "peak": [probe for _, probe in probes],
    }


def measure_shapes(options):
    """cyconv's throughput beside each tuned shape, on the largest number of threads.

    Returns
    -------
    list of dict
        ``beside`` (the tuned shape's name), ``case``, and per round
        ``gflops`` of the shape and ``share``, that over the tuned shape's.
    """
    found = []
    with Worker("cyconv", options.threads[-1]) as worker:
        for name, changes in SHAPES.items():
            tuned = Case(*ARCHITECTURES[name])
            _say(f"shapes beside {name}")
            cases = [tuned, *(dataclasses.replace(tuned, **change) for change in changes)]
            for i, case in enumerate(cases):
                worker.ask(
                    "prepare",
                    key=str(i),
                    case=dataclasses.asdict(case),
                    n_images=max(options.images, case.batch_size),
                    seconds=options.seconds / 2,
                )
            rounds = [
                [
                    case.step_flops / worker.ask("step", key=str(i), seconds=options.seconds / 2) / 1e3
                    for i, case in enumerate(cases)
                ]
                for _ in range(options.rounds)
            ]
            for i, case in enumerate(cases):
                worker.ask("drop", key=str(i))
                gflops = [one[i] for one in rounds]
                found.append(
                    {
                        "beside": name,
                        "case": dataclasses.asdict(case),
                        "gflops": gflops,
                        "share": [value / one[0] for value, one in zip(gflops, rounds)],
                    }
                )
    return found


def measure_extras(options):
    """What augmentation, dropout and momentum cost cyconv, on the largest number of threads.

    Returns
    -------
    dict
        For each network, and in it for each extra: microseconds of an update, per round.
    """
    found = {}
    with Worker("cyconv", options.threads[-1]) as worker:
        for name, shape in options.architectures:
            _say(f"extras of {name}")
            case = dataclasses.asdict(Case(*shape, batch_size=options.batch_size))
            found[name] = worker.ask(
                "extras", case=case, n_images=options.images, rounds=options.rounds, seconds=options.seconds / 2
            )
    return found


def measure_memory(options):
    """MiB that 49,000 training images (fewer if ``--images`` says so) and the step hold.

    See :func:`peers.memory.resident`.
    """
    n_images, found = options.images if options.images < 10_000 else 49_000, {}
    for name in _cpu_peers(options):
        _say(f"memory of {PEERS[name].label}")
        with Worker(name, options.threads[-1]) as worker:
            found[name] = worker.ask("memory", n_images=n_images)
    return {"n_images": n_images, "peers": found}


def measure_imports(options):
    """Seconds that importing each library takes beyond NumPy, in turns."""
    from .memory import import_seconds

    modules = sorted({PEERS[name].requires for name in _cpu_peers(options)} - {"numpy"})
    _say(f"imports of {', '.join(modules)}")
    found = {module: [] for module in modules}
    for _ in range(options.rounds):
        for module in modules:
            found[module].append(import_seconds(module))
    return found


def measure_busy(options):
    """cyconv's updates beside as many busy processes as there are threads, and beside fewer.

    A turn takes five times ``--seconds``: other processes come and go in slices of milliseconds.

    Returns
    -------
    list of dict
        ``network``, ``busy`` (how many processes), ``threads``, and ``updates``
        a second, per round.
    """
    found = []
    with Worker("cyconv", options.threads[-1]) as worker:
        for name, shape in options.architectures:
            case = dataclasses.asdict(Case(*shape, batch_size=options.batch_size))
            worker.ask(
                "prepare", key=name, case=case, n_images=options.images, seconds=options.seconds / 2, measures=["step"]
            )
        for n_busy in range(options.threads[-1] + 1):
            _say(f"beside {n_busy} busy processes")
            rows = [
                {"network": name, "busy": n_busy, "threads": n_threads, "updates": []}
                for name, _ in options.architectures
                for n_threads in options.threads
            ]
            with _busy_processes(n_busy):
                for _ in range(options.rounds):
                    for row in rows:
                        worker.ask("set_num_threads", n=row["threads"])
                        row["updates"].append(1e6 / worker.ask("step", key=row["network"], seconds=5 * options.seconds))
            found += rows
    return found


@contextlib.contextmanager
def _busy_processes(count):
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure_exercise(options):
    """Seconds of the whole Exercise 3, pictures included, one seed: cyconv and PyTorch in turns, three at most.

    Run after run with all threads, and with as many runs at a time on one thread each.
    """
    scripts = Path(__file__).resolve().parent.parent
    n_threads = options.threads[-1]
    ways = {f"run after run, threads: {n_threads}": ["--threads", str(n_threads)]}
    if n_threads > 1:
        ways[f"{n_threads} runs at a time"] = ["--threads", "1", "--workers", str(n_threads)]
    found = {way: {"exercise3.py": [], "exercise3_pytorch.py": []} for way in ways}
    for _ in range(min(3, options.rounds)):
        for way, how in ways.items():
            for script, seconds in found[way].items():
                with tempfile.TemporaryDirectory() as folder:
                    command = [
                        sys.executable,
                        str(scripts / script),
                        "--protocol",
                        "batch1",
                        "--part",
                        "all",
                        "--seeds",
                        "1",
                        "--log-every",
                        "50",
                        *how,
                        "--output",
                        str(Path(folder, "results")),
                    ]
                    if options.data:
                        command += ["--data", options.data]
                    _say(f"whole run of {script}, {way}")
                    start = time.perf_counter()
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                    seconds.append(time.perf_counter() - start)
    return found


def _cpu_peers(options):
    return [name for name in options.peers if not PEERS[name].gpu]


def _say(text):
    print(text, file=sys.stderr, flush=True)
