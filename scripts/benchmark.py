"""How fast cyconv is, and how fast other libraries are at the same work.

One process per library and number of threads takes its turn, a chunk of
updates at a time, all others asleep; so whatever the machine does meanwhile
falls on all alike. Times are medians over the rounds with the lowest and
highest; ratios are medians of the ratios within a round. The peak that shares
refer to is measured in the same rounds by a loop of fused multiply-adds.

    python scripts/benchmark.py --output results/benchmark
    python scripts/benchmark.py --sections steps --architectures A1 8,40,50 --peers cyconv numpy --threads 2

Sections: ``steps`` (time of an update, evaluation, float64, threads),
``shapes`` (how the throughput holds between the tuned shapes), ``extras`` (what
augmentation, dropout and momentum cost), ``memory``, ``imports``, and, only when
named, since they take minutes, ``busy`` (updates beside other busy processes)
and ``exercise`` (the whole of Exercise 3 against PyTorch).
"""

import argparse
import os
import sys

import peers
from peers.case import ARCHITECTURES

SECTIONS = ("steps", "shapes", "extras", "memory", "imports", "busy", "exercise")
LONG = ("busy", "exercise")
N_IMAGES = 10_000


def main(arguments=None):
    options = parse(arguments)
    if options.worker:
        from peers.worker import serve

        return serve(options.worker, options.threads[0])
    from cyconv.experiments import cli

    return cli.run_script(lambda _: measure(options, arguments or sys.argv[1:]))


def measure(options, command):
    from peers import sections, tables

    from cyconv.experiments import report
    from cyconv.experiments.output_folder import BENCHMARK, OutputFolder

    settings = {name: value for name, value in vars(options).items() if name not in ("output", "overwrite", "worker")}
    configuration = {"script": "benchmark", "runs": [], **settings}
    folder = OutputFolder(options.output, configuration, overwrite=options.overwrite, names=(BENCHMARK, "benchmark.md"))
    if folder.results:
        return folder.report()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        print(f"Other programs are running (load {load:.1f}): times will scatter.", file=sys.stderr)
    results = {
        "complete": False,
        "configuration": configuration,
        "machine": report.describe_machine(),
        "versions": peers.versions(options.peers),
        "load_at_start": load,
        "command": ["scripts/benchmark.py", *command],
    }
    for name in options.sections:
        results[name] = getattr(sections, f"measure_{name}")(options)
        folder.write(BENCHMARK, results)
    if "steps" in results:
        from peers.picture import draw_steps

        draw_steps(results, folder / "benchmark.png")
    text = tables.describe(results)
    folder.finish({**results, "complete": True}, text)
    print(text)
    return 0


def parse(arguments):
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=SECTIONS,
        default=[name for name in SECTIONS if name not in LONG],
        metavar="SECTION",
        help=f"which of {', '.join(SECTIONS)} (default: all but {' and '.join(LONG)})",
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=list(peers.PEERS),
        default=peers.installed(),
        metavar="PEER",
        help=f"which of {', '.join(peers.PEERS)} (default: those installed, without the GPU's)",
    )
    parser.add_argument(
        "--architectures",
        nargs="+",
        type=architecture,
        default=list(ARCHITECTURES.items()),
        metavar="NAME",
        help=f"of {', '.join(ARCHITECTURES)}, or f,nf,nh (default: all)",
    )
    parser.add_argument(
        "--threads",
        nargs="+",
        type=positive(int),
        default=sorted({1, cpus}),
        metavar="N",
        help="numbers of threads (default: 1 and all CPUs)",
    )
    parser.add_argument("--batch-size", type=positive(int), default=100, metavar="N")
    parser.add_argument(
        "--rounds", type=positive(int), default=9, metavar="N", help="turns that each takes (default: 9)"
    )
    parser.add_argument(
        "--seconds", type=positive(float), default=0.2, metavar="S", help="length of a turn (default: 0.2)"
    )
    parser.add_argument(
        "--images",
        type=positive(int),
        default=N_IMAGES,
        metavar="N",
        help=f"images resident in memory (default: {N_IMAGES})",
    )
    parser.add_argument("--data", default=None, metavar="FOLDER", help="CIFAR-10, for the section exercise")
    parser.add_argument(
        "--output",
        default="results/benchmark",
        metavar="FOLDER",
        help="where benchmark.json, .md and .png go (default: results/benchmark)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what the output folder holds, once all is measured"
    )
    parser.add_argument("--worker", choices=list(peers.PEERS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.threads = sorted(set(options.threads))
    if options.threads[-1] > cpus:
        parser.error(f"--threads must be at most the {cpus} CPUs of this process, but got {options.threads[-1]}")
    if options.images < options.batch_size:
        parser.error(f"--images must be at least the batch size {options.batch_size}, but got {options.images}")
    if any(peers.PEERS[name].gpu for name in options.peers) and not options.worker and not peers.finds_gpu():
        parser.error("--peers must name peers of the CPU here, but got one of the GPU, and PyTorch finds no GPU")
    if "exercise" in options.sections and "torch" not in peers.installed():
        parser.error("the section exercise needs PyTorch, but torch is not installed")
    return options


def architecture(text):
    """``"A1"`` or ``"f,nf,nh"`` as (name, (filter_size, n_filters, (n_hidden,)))."""
    if text in ARCHITECTURES:
        return text, ARCHITECTURES[text]
    try:
        filter_size, n_filters, n_hidden = (int(part) for part in text.split(","))
    except ValueError:
        filter_size = 0
    if filter_size not in (1, 2, 4, 8, 16, 32) or min(n_filters, n_hidden) < 1:
        raise argparse.ArgumentTypeError(
            f"must be one of {', '.join(ARCHITECTURES)} or f,nf,nh with f in 1, 2, 4, 8, 16, 32, but got {text!r}"
        )
    return text, (filter_size, n_filters, (n_hidden,))


def positive(kind):
    """A parser of positive numbers of this kind, for argparse."""

    def parse_number(text):
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not 0 < number < 1e6:
            raise argparse.ArgumentTypeError(f"must be a positive {kind.__name__}, but got {text!r}")
        return number

    return parse_number


if __name__ == "__main__":
    code = main() or 0
    from cyconv.experiments import cli

    cli.exit_with(code)
