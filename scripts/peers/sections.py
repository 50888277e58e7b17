"""The sections of a benchmark: what each of them measures."""

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

# Other shapes, each as changes to the tuned shape that it is compared with.
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
    """Measure updates and evaluations of every peer with every number of threads, and of cyconv also in float64.

    Returns
    -------
    dict
        ``threads``, ``gpu`` (its name, or None), and ``networks``. Each network
        has its case and ``runs``, a list of peer, threads, dtype, chosen
        variant and error compared with the reference, with ``step``
        (microseconds) and ``evaluation`` (thousand images per second) of every
        round; and ``peak``, the measured GFLOP/s of every round for each number
        of threads and dtype.
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
            _log(f"{name}: f={case.filter_size}, nf={case.n_filters}, nh={case.n_hidden[0]}")
            networks[name] = _measure_network(case, workers, options)
        gpu = next((worker.ask("gpu_name") for worker in workers if PEERS[worker.name].gpu), None)
    return {"threads": options.threads, "gpu": gpu, "networks": networks}


def _measure_network(case, workers, options):
    runs, peaks = [], []
    for worker in workers:
        for dtype in ("float32", "float64") if worker.name == "cyconv" else ("float32",):
            described = dataclasses.asdict(dataclasses.replace(case, dtype=dtype))
            checked = worker.ask(
                "prepare", key=dtype, case=described, n_images=options.images, seconds=options.seconds / 2
            )
            setting = {"threads": worker.threads, "dtype": dtype}
            runs.append((worker, {"peer": worker.name, **setting, **checked, "step": [], "evaluation": []}))
            if worker.name == "cyconv":
                peaks.append((worker, {**setting, "gflops": []}))
    for _ in range(options.rounds):
        for worker, peak in peaks:
            peak["gflops"].append(worker.ask("peak", dtype=peak["dtype"], seconds=options.seconds / 2))
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
        "peak": [peak for _, peak in peaks],
    }


def measure_shapes(options):
    """Measure cyconv's throughput with other shapes, on the largest number of threads.

    Returns
    -------
    list of dict
        ``beside`` (the name of the tuned shape), ``case``, and for every round
        ``gflops`` and ``share``, the ratio to those of the tuned shape.
    """
    found = []
    with Worker("cyconv", options.threads[-1]) as worker:
        for name, changes in SHAPES.items():
            tuned = Case(*ARCHITECTURES[name])
            _log(f"shapes similar to {name}")
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
                gflops = [values[i] for values in rounds]
                share = [values[i] / values[0] for values in rounds]
                found.append({"beside": name, "case": dataclasses.asdict(case), "gflops": gflops, "share": share})
    return found


def measure_extras(options):
    """Measure what augmentation, dropout and momentum cost in cyconv, on the largest number of threads.

    Returns
    -------
    dict
        Microseconds of an update in every round, by network and extra.
    """
    found = {}
    with Worker("cyconv", options.threads[-1]) as worker:
        for name, shape in options.architectures:
            _log(f"extras of {name}")
            case = dataclasses.asdict(Case(*shape, batch_size=options.batch_size))
            found[name] = worker.ask(
                "extras", case=case, n_images=options.images, rounds=options.rounds, seconds=options.seconds / 2
            )
    return found


def measure_memory(options):
    """Measure the MiB that training on 49,000 images uses, or on fewer with a small ``--images``.

    See `peers.memory.resident_memory`.
    """
    n_images, found = options.images if options.images < 10_000 else 49_000, {}
    for name in _cpu_peers(options):
        _log(f"memory of {PEERS[name].label}")
        with Worker(name, options.threads[-1]) as worker:
            found[name] = worker.ask("memory", n_images=n_images)
    return {"n_images": n_images, "peers": found}


def measure_imports(options):
    """Measure the seconds that importing each library takes in addition to NumPy, in turns."""
    from .memory import import_seconds

    modules = sorted({PEERS[name].requires for name in _cpu_peers(options)} - {"numpy"})
    _log(f"imports of {', '.join(modules)}")
    found = {module: [] for module in modules}
    for _ in range(options.rounds):
        for module in modules:
            found[module].append(import_seconds(module))
    return found


def measure_busy(options):
    """Measure updates while up to as many other processes are busy as there are threads.

    cyconv with every number of threads, the peers with the largest. A turn takes five times ``--seconds``, since
    processes are scheduled in slices of milliseconds.

    Returns
    -------
    list of dict
        ``peer``, ``network``, ``busy`` (number of other processes), ``threads``, and
        ``updates`` per second in every round.
    """
    found, most = [], options.threads[-1]
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, most)) for name in _cpu_peers(options)}
        for worker in workers.values():
            for name, shape in options.architectures:
                case = dataclasses.asdict(Case(*shape, batch_size=options.batch_size))
                worker.ask(
                    "prepare",
                    key=name,
                    case=case,
                    n_images=options.images,
                    seconds=options.seconds / 2,
                    measures=["step"],
                )
        for n_busy in range(most + 1):
            _log(f"{n_busy} other busy processes")
            rows = [
                {"peer": peer, "network": name, "busy": n_busy, "threads": n_threads, "updates": []}
                for name, _ in options.architectures
                for peer in workers
                for n_threads in (options.threads if peer == "cyconv" else [most])
            ]
            with _busy_processes(n_busy):
                for _ in range(options.rounds):
                    for row in rows:
                        worker = workers[row["peer"]]
                        if row["peer"] == "cyconv":
                            worker.ask("set_num_threads", n=row["threads"])
                        microseconds = worker.ask("step", key=row["network"], seconds=5 * options.seconds)
                        row["updates"].append(1e6 / microseconds)
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
    """Measure the seconds of the whole Exercise 3 with one seed, for cyconv and PyTorch in up to three turns.

    Runs are trained one after another with all threads, and several at a time with one thread each.
    """
    scripts = Path(__file__).resolve().parent.parent
    n_threads = options.threads[-1]
    modes = {f"one run at a time, threads: {n_threads}": ["--threads", str(n_threads)]}
    if n_threads > 1:
        modes[f"{n_threads} runs at a time"] = ["--threads", "1", "--workers", str(n_threads)]
    settings = ["--protocol", "batch1", "--part", "all", "--seeds", "1", "--log-every", "50"]
    settings += ["--data", options.data] if options.data else []
    found = {mode: {"exercise3.py": [], "exercise3_pytorch.py": []} for mode in modes}
    for _ in range(min(3, options.rounds)):
        for mode, arguments in modes.items():
            for script, seconds in found[mode].items():
                with tempfile.TemporaryDirectory() as folder:
                    output = ["--output", str(Path(folder, "results"))]
                    command = [sys.executable, str(scripts / script), *settings, *arguments, *output]
                    _log(f"{script}, {mode}")
                    start = time.perf_counter()
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                    seconds.append(time.perf_counter() - start)
    return found


def _cpu_peers(options):
    return [name for name in options.peers if not PEERS[name].gpu]


def _log(text):
    print(text, file=sys.stderr, flush=True)
