"""Calls in several Python threads at once."""

import threading
from concurrent.futures import ThreadPoolExecutor


def in_threads(function, arguments):
    """The results of ``function(argument)``, each called in a thread of its own; all begin at once."""
    arguments = list(arguments)
    barrier = threading.Barrier(len(arguments))

    def call(argument):
        barrier.wait(60)
        return function(argument)

    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(call, arguments))
