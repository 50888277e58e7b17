"""A process that runs one peer with one number of threads, and waits for requests between chunks.

Peers run in separate processes because the thread pools of different libraries
interfere with each other, and because most libraries read the number of threads
only once, from the environment. Requests and replies are JSON, one per line; a
reply has either "value" or "error".
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Worker:
    """The parent's side of a process; a context manager that ends it."""

    def __init__(self, name, threads):
        self.name, self.threads = name, threads
        environment = os.environ | {variable: str(threads) for variable in THREAD_VARIABLES}
        environment.pop("OPENBLAS_CORETYPE", None)  # a pinned core type can halve NumPy's speed
        script = Path(__file__).resolve().parent.parent / "benchmark.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script), "--worker", name, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, request, **arguments):
        """Send a request and wait for its value.

        Raises
        ------
        ChildProcessError
            If the request failed, or the process ended.
        """
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"request": request, **arguments}) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        reply = json.loads(line) if line else {"error": "its process ended"}
        if "error" in reply:
            raise ChildProcessError(f"{self.name} on {self.threads} thread(s), {request}: {reply['error']}")
        return reply["value"]

    def __enter__(self):
        return self

    def __exit__(self, kind, *exception):
        if kind is not None:  # the results are no longer wanted
            self.process.kill()
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def serve(name, threads):
    """Answer requests until standard input closes; a peer on the CPU uses at most ``threads`` CPUs."""
    from . import PEERS

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # left to the parent
    if not PEERS[name].gpu:
        limit_cpus(threads)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of a library must not mix with the replies
    peer = _Server(name)
    for line in sys.stdin:
        arguments = json.loads(line)
        request = arguments.pop("request")
        try:
            reply = {"value": getattr(peer, request)(**arguments)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def limit_cpus(threads):
    """Restrict this process to ``threads`` of its CPUs: the only way to limit JAX."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class _Server:
    def __init__(self, name):
        self.name = name
        self.timed = {}

    def prepare(self, key, case, n_images, seconds, source=None, measures=("step", "evaluation")):
        """Check a peer and prepare it with random images, or with the first training images of a ``DataSource``."""
        from . import load
        from .case import Data
        from .timing import Timed

        data = Data.from_split(_dataset(source).train, n_images) if source else Data.random(n_images)
        self.timed[key] = Timed(load(self.name), _case(case), data, seconds, measures)
        return self.timed[key].description

    def drop(self, key):
        del self.timed[key]

    def step(self, key, seconds):
        return self.timed[key].step(seconds)

    def evaluation(self, key, seconds):
        return self.timed[key].evaluation(seconds)

    def whole_run(self, case, source, rates, seed, variant):
        """See `peers.whole_run.train`."""
        from . import load
        from .whole_run import train

        return train(load(self.name), _case(case), variant, _dataset(source), rates, seed)

    def extras(self, case, n_images, rounds, seconds):
        """See `peers.extras.time_extras`."""
        from .extras import time_extras

        return time_extras(_case(case), n_images, rounds, seconds)

    def set_num_threads(self, n):
        import cyconv

        cyconv.set_num_threads(n)

    def peak(self, dtype, seconds):
        import cyconv

        self.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        return cyconv.backend.dispatch.measure_peak_flops(dtype, seconds)

    def gpu_name(self):
        import torch

        return torch.cuda.get_device_name()

    def memory(self, n_images):
        from .memory import resident_memory

        return resident_memory(self.name, n_images)


def _case(fields):
    from .case import Case

    return Case(**fields | {"n_hidden": tuple(fields["n_hidden"])})


def _dataset(source):
    from cyconv.experiments import DataSource

    with warnings.catch_warnings(action="ignore"):  # the parent has shown them
        return DataSource(**source).load()
