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
from ._version import __version__ as __version__
from .augmentation import Augmentation
from .backend.dispatch import show_config
from .backend.threads import get_num_threads, set_num_threads
from .callbacks import EarlyStopping, KeepBest, TrainingEvent
from .datasets import (
    Dataset,
    Normalizer,
    Split,
    download_cifar10,
    find_cifar10,
    find_cifar100,
    load_cifar10,
    load_cifar100,
    load_npy,
    load_npz,
    make_shapes,
)
from .ensemble import Ensemble
from .history import History
from .lr_range import LrRangeResult, lr_range_test
from .network import Evaluation, Network
from .optimizers import SGD, AdamW
from .schedules import ConstantSchedule, CosineSchedule, CyclicSchedule, OneCycleSchedule, Schedule, WarmupSchedule
from .trainer import CyclicTrainer, DivergenceError
from .view_average import ViewAverage

# Public modules that are imported on first access, which keeps `import cyconv` fast: attribute of cyconv, module.
_LAZY = {
    "course_layout": "experiments.course_layout",
    "experiments": "experiments",
    "ops": "backend.ops",
    "plots": "experiments.plots",
    "reference": "reference",
}

__all__ = [
    "SGD",
    "AdamW",
    "Augmentation",
    "ConstantSchedule",
    "CosineSchedule",
    "CyclicSchedule",
    "CyclicTrainer",
    "Dataset",
    "DivergenceError",
    "EarlyStopping",
    "Ensemble",
    "Evaluation",
    "History",
    "Interrupted",
    "KeepBest",
    "LrRangeResult",
    "Network",
    "Normalizer",
    "OneCycleSchedule",
    "Schedule",
    "Split",
    "TrainingEvent",
    "ViewAverage",
    "WarmupSchedule",
    "download_cifar10",
    "find_cifar10",
    "find_cifar100",
    "get_num_threads",
    "load_cifar10",
    "load_cifar100",
    "load_npy",
    "load_npz",
    "lr_range_test",
    "make_shapes",
    "set_num_threads",
    "show_config",
]


if TYPE_CHECKING:
    from . import experiments as experiments, reference as reference
    from .backend import ops as ops
    from .experiments import course_layout as course_layout, plots as plots
else:  # hidden from type checkers, which would then take any name for one of these

    def __getattr__(name: str) -> ModuleType:
        if name in _LAZY:
            return importlib.import_module(f".{_LAZY[name]}", __name__)
        raise AttributeError(f"module 'cyconv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
