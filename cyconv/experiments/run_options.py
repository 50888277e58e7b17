"""Command-line options for the settings of a `Run`."""

import argparse
import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from .._typing import Sizes
from . import cli
from .runs import MODES, OPTIMIZER_NAMES, Run

#: What the settings are.
HELP = {
    "filter_size": "width of the filters and their stride, in pixels; several for parallel branches",
    "n_filters": "number of filters; several for parallel branches",
    "n_hidden": "number of hidden units; several for several layers",
    "dtype": "precision",
    "eta_min": "lowest learning rate, where each cycle starts and ends",
    "eta_max": "highest learning rate of the first cycle",
    "step_size": "half of the first cycle, in update steps",
    "n_cycles": "number of cycles",
    "growth": "ratio of the lengths of successive cycles",
    "eta_max_decay": "ratio of the highest learning rates of successive cycles",
    "mode": "shape of the schedule; one_cycle and constant have as many steps as the cycles",
    "anneal": "shape of the rise and the fall in the mode one_cycle",
    "gamma": "decay of the learning rate with each step in the mode exp_range",
    "warmup": "update steps before the schedule in which the learning rate rises",
    "batch_size": "images in a batch",
    "l2": "weight decay λ",
    "label_smoothing": "ε, the probability that is distributed over the wrong classes",
    "optimizer": "update rule",
    "momentum": "momentum of sgd and nesterov",
    "weight_decay": "decoupled weight decay of adamw",
    "dropout": "fraction of the hidden units that is dropped",
    "flip": "mirror images at random",
    "shift": "shift images at random by up to this many pixels",
    "cutout": "width of the square that is cut out of each image, in pixels",
    "snapshots": "evaluate the ensemble of the networks at the ends of the cycles, too",
    "whitening": "whiten the images, with this ε, such as 0.3, or 'none'",
    "views": "evaluate the mean over all views that flip and shift allow, too",
    "seed": "the first seed, from which --seeds counts",
    "log_every": "number of update steps between points of the curves",
    "n_train_evaluated": "number of training images on which the training curves are measured, or 'all'",
}
CHOICES = {"dtype": ("float32", "float64"), "mode": MODES, "optimizer": OPTIMIZER_NAMES, "anneal": ("cos", "linear")}
#: The option of each setting.
OPTIONS = {
    field.name: f"--{field.name.replace('_', '-')}"
    for field in dataclasses.fields(Run)
    if field.name not in ("name", "label")
}


def add_run_options(
    parser: argparse._ActionsContainer, names: Iterable[str], defaults: Mapping[str, str] | None = None
) -> None:
    """Add options for some of a run's settings, which are None unless they are given.

    Parameters
    ----------
    parser : argparse.ArgumentParser or group of one
    names : iterable of str
        Fields of `Run`.
    defaults : mapping of str to str, optional
        What help calls the defaults; by default it does not mention them.
    """
    types = typing.get_type_hints(Run)
    for name in names:
        kind, text = types[name], HELP.get(name, "")
        described = text if defaults is None else f"{text} (default: {defaults[name]})"
        if kind is bool:
            parser.add_argument(OPTIONS[name], action="store_true", default=None, help=text)
        elif kind is str:
            parser.add_argument(OPTIONS[name], choices=CHOICES.get(name), help=described)
        elif kind == int | Sizes:
            parser.add_argument(OPTIONS[name], metavar="N", nargs="+", type=int, help=described)
        elif kind in (float, float | None):
            convert = float if kind is float else real_or_none
            parser.add_argument(OPTIONS[name], metavar="X", type=convert, help=described)
        else:
            parser.add_argument(OPTIONS[name], metavar="N", type=int if kind is int else count_or_all, help=described)


def count_or_all(text: str) -> int | str:
    """For argparse: an integer of at least 1, or ``"all"``."""
    return text if text == "all" else cli.positive_integer(text)


def real_or_none(text: str) -> float | str:
    """For argparse: a real number, or ``"none"``."""
    if text == "none":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or 'none', but got {text!r}") from None


def given_settings(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Those of the settings that were given, unchecked."""
    settings = {}
    for name in names:
        value = getattr(arguments, name)
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else tuple(value)
        if value is not None:
            settings[name] = None if value in ("all", "none") else value
    return settings
