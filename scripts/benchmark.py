"""Measure the speed of cyconv and of other libraries at the same work.

Each library runs in a process of its own for each number of threads. The
processes take turns, a chunk of updates at a time, while all others sleep, so
that other activity on the machine affects all of them alike. Times are medians
over the rounds, with the lowest and highest; ratios are medians of the ratios
within a round. The peak performance, for the shares of it that are reported, is
measured in the same rounds by a loop of fused multiply-adds.

    python scripts/benchmark.py --output results/benchmark
    python scripts/benchmark.py --sections steps --architectures A1 8,40,50 --peers cyconv numpy --threads 2

Sections: ``steps`` (time of an update, evaluation, float64, threads), ``shapes``
(throughput with shapes other than the tuned ones), ``extras`` (the cost of
augmentation, dropout and momentum), ``memory`` and ``imports``. Two more take
minutes and run only on request: ``busy`` (updates while other processes are
busy) and ``exercise`` (the whole of Exercise 3, compared with PyTorch).
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))  # which python -P leaves out

import peers
from peers.case import ARCHITECTURES

SECTIONS = ("steps", "shapes", "extras", "memory", "imports", "busy", "exercise")
SLOW_SECTIONS = ("busy", "exercise")
N_IMAGES = 10_000


def main(arguments=None):
    options = parse(arguments)
    if options.worker:
        from peers.worker import serve

        return serve(options.worker, options.threads[0])
    from cyconv.experiments import cli

    return cli.run_script(lambda _: measure(options))


def measure(options):
    from peers import sections, tables

    from cyconv.experiments import report
    from cyconv.experiments.output_folder import BENCHMARK, OutputFolder

    settings = {name: value for name, value in vars(options).items() if name not in ("output", "overwrite", "worker")}
    configuration = {"script": "benchmark", "runs": [], **settings}
    folder = OutputFolder(options.output, configuration, overwrite=options.overwrite, names=(BENCHMARK, "benchmark.md"))
    if folder.results:
        return folder.report()
    results = {
        "complete": False,
        "configuration": configuration,
        **report.provenance(),
        "versions": peers.versions(options.peers),
        "load_at_start": peers.warn_if_busy(),
    }
    for place, name in enumerate(options.sections, 1):
        print(f"[{place}/{len(options.sections)}] {name}", file=sys.stderr, flush=True)
        results[name] = getattr(sections, f"measure_{name}")(options)
        folder.write(BENCHMARK, results)
    if "steps" in results:
        from peers.chart import draw_steps

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
        default=[name for name in SECTIONS if name not in SLOW_SECTIONS],
        metavar="SECTION",
        help=f"what to measure: {', '.join(SECTIONS)} (default: all but {' and '.join(SLOW_SECTIONS)})",
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=list(peers.PEERS),
        default=peers.installed(),
        metavar="PEER",
        help=f"what to compare: {', '.join(peers.PEERS)} (default: those installed, except on a GPU)",
    )
    parser.add_argument(
        "--architectures",
        nargs="+",
        type=architecture,
        default=list(ARCHITECTURES.items()),
        metavar="NAME",
        help=f"networks: {', '.join(ARCHITECTURES)}, or others as f,nf,nh (default: all that have a name)",
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
        "--rounds", type=positive(int), default=9, metavar="N", help="number of turns of each process (default: 9)"
    )
    parser.add_argument(
        "--seconds", type=positive(float), default=0.2, metavar="S", help="duration of a turn (default: 0.2)"
    )
    parser.add_argument(
        "--images",
        type=positive(int),
        default=N_IMAGES,
        metavar="N",
        help=f"number of images in memory (default: {N_IMAGES})",
    )
    parser.add_argument("--data", default=None, metavar="FOLDER", help="folder with CIFAR-10, for the section exercise")
    parser.add_argument(
        "--output",
        default="results/benchmark",
        metavar="FOLDER",
        help="where to write benchmark.json, .md and .png (default: results/benchmark)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what the output folder contains, once the new results are complete",
    )
    parser.add_argument("--worker", choices=list(peers.PEERS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.threads = sorted(set(options.threads))
    if options.threads[-1] > cpus:
        parser.error(f"--threads must be at most the {cpus} CPUs of this process, but got {options.threads[-1]}")
    if options.images < options.batch_size:
        parser.error(f"--images must be at least the batch size {options.batch_size}, but got {options.images}")
    if any(peers.PEERS[name].gpu for name in options.peers) and not options.worker and not peers.finds_gpu():
        parser.error("--peers must be peers on the CPU here, but got one on the GPU, and PyTorch finds no GPU")
    if "exercise" in options.sections and "torch" not in peers.installed():
        parser.error("the section exercise needs PyTorch, but torch is not installed")
    return options


def architecture(text):
    """For argparse: convert ``"A1"`` or ``"f,nf,nh"`` to (name, (filter_size, n_filters, (n_hidden,)))."""
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


def positive(type_):
    """For argparse: a function that converts text to a positive number of this type."""

    def parse_number(text):
        try:
            number = type_(text)
        except ValueError:
            number = 0
        if not 0 < number < 1e6:
            raise argparse.ArgumentTypeError(f"must be a positive {type_.__name__}, but got {text!r}")
        return number

    return parse_number


if __name__ == "__main__":
    code = main() or 0
    from cyconv.experiments import cli

    cli.exit_with(code)
