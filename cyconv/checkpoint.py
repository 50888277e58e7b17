"""Checkpoints: the complete state of a training run in one file, written atomically."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._checks import (
    check_array,
    check_filter_size,
    check_finite,
    check_float_dtype,
    check_image_shape,
    check_integer,
    describe,
)
from ._files import load_arrays, save_arrays
from ._typing import AnyArray, JsonDict, Parameters, StrPath
from ._version import __version__
from .backend import dispatch
from .backend.layout import Layout, as_sizes
from .datasets import Normalizer
from .history import CURVES, History
from .network import FORMAT_VERSION, Network, format_version
from .optimizers import OPTIMIZERS

_KIND = "checkpoint"
_STATE_NAMES = {name: None for optimizer in OPTIMIZERS.values() for name in optimizer.state_names}  # in order


def running_versions() -> dict[str, str]:
    """The versions of cyconv and NumPy and the instruction set in use."""
    return {"cyconv": __version__, "numpy": np.__version__, "instruction_set": dispatch.instruction_set}


@dataclass
class Checkpoint:
    """Everything needed to continue a training run bit for bit.

    Parameters
    ----------
    network : Network
        With its parameters, optimiser's state and normaliser.
    settings : dict
        Settings of the trainer, as JSON values (`CyclicTrainer.settings`).
    step : int
        Number of updates done.
    history : History
    snapshots : list of dict
        Parameters at the end of each cycle so far.
    fingerprints : dict of str to str
        ``train`` and ``validation``: `Split.fingerprint` of the data.
    versions : dict of str to str
        Versions that the file was written with; by default, the running ones.
    """

    network: Network
    settings: JsonDict
    step: int
    history: History
    snapshots: list[Parameters]
    fingerprints: dict[str, str]
    versions: dict[str, str] = field(default_factory=running_versions)


def write_checkpoint(path: StrPath, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as one ``.npz``, atomically and without pickle.

    The data are written to a temporary file in the same folder, which replaces
    ``path`` only after they have reached the disk.

    Parameters
    ----------
    path : path-like
        Used as given, without adding an extension.
    checkpoint : Checkpoint

    Raises
    ------
    OSError
        If it cannot be written; an existing file is kept.
    """
    network, snapshots = checkpoint.network, checkpoint.snapshots
    arrays = {f"parameters.{name}": values for name, values in network.parameters.items()}
    optimizer, state_arrays = _described_state(network)
    arrays |= state_arrays
    if snapshots:
        arrays |= {f"snapshots.{name}": np.stack([each[name] for each in snapshots]) for name in snapshots[0]}
    if network.normalizer is not None:
        arrays |= {f"normalizer.{name}": values for name, values in network.normalizer.arrays.items()}
    arrays |= {f"history.{key}": checkpoint.history[key] for key in CURVES}
    header = {
        "settings": checkpoint.settings,
        "step": checkpoint.step,
        "history": checkpoint.history.header(),
        "fingerprints": checkpoint.fingerprints,
        "versions": checkpoint.versions,
        **optimizer,
    }
    save_arrays(path, _KIND, format_version(arrays), header, arrays)


def read_checkpoint(path: StrPath) -> Checkpoint:
    """Read a file written by `write_checkpoint`.

    Sizes are checked before memory is allocated, and no pickle is executed.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Checkpoint

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a checkpoint, is damaged or comes from a newer version.
    """
    header, arrays = load_arrays(path, _KIND, FORMAT_VERSION)
    with translate_errors(path):
        groups = _grouped(arrays)
        network = _network(header["settings"]["network"], groups)
        network.set_optimizer_state(_state(header, network.architecture, groups))
        return Checkpoint(
            network=network,
            settings=header["settings"],
            step=check_integer("step", header["step"], 0, 2**53),
            history=History.from_arrays(header["history"], groups.get("history", {})),
            snapshots=_snapshots(network.architecture, groups.get("snapshots")),
            fingerprints=_strings("fingerprints", header["fingerprints"], ("train", "validation")),
            versions=_strings("versions", header["versions"], ("cyconv", "numpy", "instruction_set")),
        )


@contextlib.contextmanager
def translate_errors(path: StrPath) -> Iterator[None]:
    """Re-raise errors caused by the file's contents as a ValueError that names the file."""
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError, MemoryError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"path must be a cyconv {_KIND} file, but {path} is damaged: {reason}") from None


def _grouped(arrays: Mapping[str, AnyArray]) -> dict[str, dict[str, AnyArray]]:
    """Turn ``{"parameters.conv.weight": array}`` into ``{"parameters": {"conv.weight": array}}``."""
    groups: dict[str, dict[str, AnyArray]] = {}
    for name, array in arrays.items():
        group, _, key = name.partition(".")
        groups.setdefault(group, {})[key] = array
    unknown = set(groups) - {"parameters", *_STATE_NAMES, "snapshots", "normalizer", "history"}
    if unknown:
        raise ValueError(f"it holds {describe(sorted(unknown)[0])}, which does not belong in a checkpoint")
    return groups


def _network(architecture: JsonDict, groups: Mapping[str, Mapping[str, AnyArray]]) -> Network:
    _check_parameters(architecture, "parameters", groups["parameters"])
    network = Network(**architecture)
    network.set_parameters(groups["parameters"])
    if "normalizer" in groups:
        network.normalizer = Normalizer.from_arrays(groups["normalizer"])
        check_array("normalizer.mean", network.normalizer.mean, network.image_shape)
    return network


def _described_state(network: Network) -> tuple[JsonDict, Parameters]:
    """The optimiser's state as entries of the header and as arrays."""
    state = network.optimizer_state
    if state is None:
        return {}, {}
    header = {key: state.pop(key) for key in ("optimizer", "n_updates")}
    return header, {f"{key}.{name}": values for key, mapping in state.items() for name, values in mapping.items()}


def _state(
    header: JsonDict, architecture: JsonDict, groups: Mapping[str, Mapping[str, AnyArray]]
) -> dict[str, Any] | None:
    """What `_described_state` took apart; files of 0.1.0 have a velocity and do not count the updates."""
    found = {name: groups[name] for name in _STATE_NAMES if name in groups}
    for name, arrays in found.items():
        _check_parameters(architecture, name, arrays)
    if "optimizer" in header:
        return {"optimizer": header["optimizer"], "n_updates": header["n_updates"], **found}
    return {"optimizer": "SGD", "n_updates": 0, **found} if found else None


def _snapshots(architecture: JsonDict, stacked: Mapping[str, AnyArray] | None) -> list[Parameters]:
    if stacked is None:
        return []
    lengths = {len(array) if array.ndim else 0 for array in stacked.values()}
    if len(lengths) > 1:
        raise ValueError("its snapshots are incomplete")
    snapshots = [{name: array[i] for name, array in stacked.items()} for i in range(lengths.pop())]
    for snapshot in snapshots:
        _check_parameters(architecture, "snapshots", snapshot)
    return snapshots


def _check_parameters(architecture: JsonDict, what: str, arrays: Mapping[str, AnyArray]) -> None:
    """Check that the arrays match the architecture exactly, before a network is allocated."""
    shapes = _shapes(architecture)
    if {name: values.shape for name, values in arrays.items()} != shapes:
        raise ValueError(f"its {what} do not match its architecture")
    for name, values in arrays.items():
        check_array(name, values, shapes[name], [check_float_dtype(architecture["dtype"])])
        check_finite(name, values)


def _shapes(architecture: JsonDict) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter of a network with this architecture."""
    names = ("filter_size", "n_filters", "n_hidden")
    sizes, filters, hidden = (as_sizes(name, architecture[name]) for name in names)
    image_shape = check_image_shape(architecture["image_shape"])
    for filter_size in sizes:
        check_filter_size(filter_size, *image_shape[1:])
    n_classes = check_integer("n_classes", architecture["n_classes"], 1)
    single = [np.ndim(architecture[name]) == 0 for name in ("filter_size", "n_hidden")]
    return Layout(image_shape, sizes, filters, hidden, n_classes, *single).shapes


def _strings(name: str, value: Any, keys: Sequence[str]) -> dict[str, str]:
    if not isinstance(value, dict) or {key: type(value[key]) for key in value} != dict.fromkeys(keys, str):
        raise ValueError(f"{name} must map {', '.join(keys)} to str, but got {describe(value)}")
    if not all(text.isprintable() and len(text) <= 100 for text in value.values()):  # messages quote them
        raise ValueError(f"{name} must hold short strings, but got {describe(value)}")
    return value
