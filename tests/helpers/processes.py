"""A program: run cyconv in forked and spawned processes or in threads; the argument names the case."""

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from concurrency import in_threads
from digests import digest

import cyconv
from cyconv.backend import threads


def work(seed=0):
    """The digest of a short training and an evaluation."""
    rng = np.random.default_rng(seed)
    network = cyconv.Network(filter_size=4, n_filters=3, n_hidden=20, seed=seed)
    X = rng.standard_normal((100, 3, 32, 32)).astype(np.float32)
    source = network.prepare(X, rng.integers(0, 10, 100))
    costs = network.train_steps(source, rng.integers(0, 100, 400), np.full(8, 0.01), batch_size=50, momentum=0.5)
    return digest(costs, network.parameters, network.predict_proba(X))


def n_os_threads():
    return len(os.listdir("/proc/self/task"))


def work_in_worker(seed):
    """The digest, how many threads cyconv reports, and how many it started."""
    before = n_os_threads()
    return work(seed), cyconv.get_num_threads(), n_os_threads() - before


def run_pool(pool):
    with pool:
        return {"expected": [work(seed) for seed in range(4)], "found": list(pool.map(work_in_worker, range(4)))}


def fork():
    """Fork after the parent ran on several threads; the child forks once more."""
    expected = work()
    reader, writer = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            os.write(writer, json.dumps([work(), cyconv.get_num_threads()]).encode())
            os._exit(0)
        found = [work(), cyconv.get_num_threads()]
        os.wait()
        os.write(writer, b"\n" + json.dumps(found).encode())
        os._exit(0)
    os.close(writer)
    os.wait()
    grandchild, child = os.fdopen(reader).read().split("\n")
    return {
        "expected": expected,
        "child": json.loads(child),
        "grandchild": json.loads(grandchild),
        "afterwards": [work(), cyconv.get_num_threads()],
    }


def fork_untouched():
    """Fork before any kernel ran: the child may use threads."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, json.dumps([work(), cyconv.get_num_threads()]).encode())
        os._exit(0)
    os.close(writer)
    child = json.load(os.fdopen(reader))
    os.wait()
    return {"expected": work(), "child": child}


def fork_pool():
    work()
    return run_pool(multiprocessing.get_context("fork").Pool(2))


def spawn_pool():
    return run_pool(multiprocessing.get_context("spawn").Pool(2))


def executor():
    return run_pool(ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")))


def python_threads():
    """Four networks trained at once, each in its own Python thread."""
    found = in_threads(work, range(4))
    return {"expected": [work(seed) for seed in range(4)], "found": found}


def affinity():
    """The default number of threads under affinity masks of one and of all processors."""
    found = {}
    allowed = sorted(os.sched_getaffinity(0))
    for n in (1, len(allowed)):
        os.sched_setaffinity(0, allowed[:n])
        found[n] = cyconv.get_num_threads()
    return found


def openmp():
    """The thread pools that threadpoolctl finds once the kernels have run."""
    import threadpoolctl

    work()
    return [pool["user_api"] for pool in threadpoolctl.threadpool_info()]


def default_threads():
    """The number of threads by default, under threadpoolctl's limit of one, after it, and under it if three are set."""
    import threadpoolctl

    found = [cyconv.get_num_threads()]
    work()
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        found.append(cyconv.get_num_threads())
    found.append(cyconv.get_num_threads())
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        cyconv.set_num_threads(3)
        return [*found, cyconv.get_num_threads()]


def quota_read_again():
    """The quota twice at once, and twice after it has become 5 and some time has passed."""
    now, quotas = [1e9], iter((3, 5))
    threads.read_quota = lambda: next(quotas)
    threads.time.monotonic = lambda: now[0]
    found = [threads.quota(), threads.quota()]
    now[0] += 2 * threads.QUOTA_HOLDS
    return [*found, threads.quota(), threads.quota()]


def shared_processor():
    """Two threads on one processor: how long they slept for each other, and the results of two threads and of one."""
    asleep = []
    threads.Team.note = lambda self, work, seconds, slept: asleep.append(slept)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    found = []
    for n in (2, 1):
        cyconv.set_num_threads(n)
        found.append([work(seed) for seed in range(10)])
    return {"asleep": sum(asleep), "found": found}


CASES = [
    *(fork, fork_untouched, fork_pool, spawn_pool, executor, python_threads),
    *(affinity, openmp, default_threads, quota_read_again, shared_processor),
]

if __name__ == "__main__":
    print(json.dumps({case.__name__: case for case in CASES}[sys.argv[1]]()))
