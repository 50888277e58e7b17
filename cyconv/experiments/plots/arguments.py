"""Checks of what is to be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._checks import as_array, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_T = TypeVar("_T")
_MappingT = TypeVar("_MappingT", bound=Mapping[Any, Any])


def as_groups(name: str, value: Any, kind: type[_T]) -> dict[str, list[_T]]:
    """``value`` as a dict of label to list of ``kind``; values without a label get an empty one."""
    expected = f"a {kind.__name__} or a sequence of them"
    if isinstance(value, kind) or not isinstance(value, Mapping):
        groups = {"": _as_list(name, value, kind, f"{expected}, or a mapping of labels to these")}
    else:
        groups = {label: _as_list(f"{name}[{label!r}]", group, kind, expected) for label, group in value.items()}
    if not groups or not all(groups.values()):
        raise ValueError(f"{name} must hold at least one {kind.__name__} for each label, but got {describe(value)}")
    return groups


def _as_list(name: str, value: Any, kind: type[_T], expected: str) -> list[_T]:
    try:
        values = [value] if isinstance(value, kind) else list(value)
    except Exception:  # whatever the __iter__ of a user's class raises
        values = [value]
    if not all(isinstance(item, kind) for item in values):
        raise TypeError(f"{name} must be {expected}, but got {describe(value)}")
    return values


def check_mapping(name: str, value: _MappingT) -> _MappingT:
    """``value`` if it is a mapping; TypeError otherwise."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping, but got {describe(value)}")
    return value


def as_finite_values(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """One or more finite numbers as a vector; ValueError otherwise."""
    array = np.atleast_1d(as_array(name, values))
    if array.ndim != 1 or not array.size or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError(f"{name} must hold finite numbers, but got {describe(values)}")
    return array.astype(np.float64)


def as_axes(name: str, value: Any, count: int) -> list[Axes]:
    """``value`` as a list of this number of matplotlib Axes; TypeError or ValueError otherwise."""
    from matplotlib.axes import Axes

    expected = "matplotlib Axes" if count == 1 else f"an array or a sequence of {count} matplotlib Axes"
    try:
        found = list(np.ravel(np.asarray(value, dtype=object)))
    except Exception:  # whatever the __array__ or __len__ of a user's class raises
        found = []
    if not found or not all(isinstance(axes, Axes) for axes in found):
        raise TypeError(f"{name} must be {expected}, but got {describe(value)}")
    if len(found) != count:
        raise ValueError(f"{name} must be {expected}, but got {len(found)}")
    return found


def check_order(name: str, value: Sequence[str]) -> list[str]:
    """``value`` as a list if it is a sequence of labels; TypeError otherwise."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} must be a sequence of labels, but got {describe(value)}")
    return list(value)
