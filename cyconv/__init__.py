"""cyconv: train small patchify ConvNets on the CPU, fast and with the same bits every time.

>>> import cyconv
>>> data = cyconv.make_shapes(n_train=400, n_validation=100, n_test=100, seed=0)
>>> net = cyconv.Network(filter_size=4, n_filters=10, n_hidden=50, seed=0)
>>> schedule = cyconv.CyclicSchedule(eta_min=1e-5, eta_max=1e-1, step_size=20, n_cycles=1)
>>> history = cyconv.CyclicTrainer(net, schedule, batch_size=20).fit(data.train, data.validation, log_every=20)
>>> history["update_steps"].tolist()
[0, 20, 40]
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from ._signals import Interrupted
from .augmentation import Augmentation
from .datasets import Dataset, Normalizer, Split, download_cifar10, find_cifar10, load_cifar10, make_shapes
from .ensemble import Ensemble
from .history import History
from .lr_range import LrRangeResult, lr_range_test
from .network import Evaluation, Network
from .ops import show_config
from .schedule import CyclicSchedule
from .threads import get_num_threads, set_num_threads
from .trainer import CyclicTrainer, DivergenceError

__version__ = "0.1.0"

# These draw, or describe whole experiments: loaded when first asked for, so that `import cyconv` stays quick.
_LAZY = ("executors", "experiment", "plots", "report", "reference", "search")

__all__ = [
    "Augmentation", "CyclicSchedule", "CyclicTrainer", "Dataset", "DivergenceError", "Ensemble", "Evaluation",
    "History", "Interrupted", "LrRangeResult", "Network", "Normalizer", "Split", "download_cifar10",
    "find_cifar10", "get_num_threads", "load_cifar10", "lr_range_test", "make_shapes", "set_num_threads", "show_config",
]


if TYPE_CHECKING:
    from . import (
        executors as executors,
        experiment as experiment,
        plots as plots,
        reference as reference,
        report as report,
        search as search,
    )
else:   # hidden from type checkers, to which any name would be one of these
    def __getattr__(name: str) -> ModuleType:
        if name in _LAZY:
            return importlib.import_module(f".{name}", __name__)
        raise AttributeError(f"module 'cyconv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
