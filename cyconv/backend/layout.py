"""Memory layout of a network: the kernels' parameters and workspace.

The kernels keep all parameters in one array, ordered and padded for vector
instructions; users see PyTorch's names and layouts. This module computes the
offsets of both and converts between them.

A convolution with many patches is *patch-innermost*: vectors run along the
patches, and the filters are stored without padding. With few patches, most
lanes of these vectors would be empty. Such a convolution is *patch-major*: a
dense layer applied to each patch, with vectors along the values of the patch.
The output of a patch-innermost branch is ordered by filter (PyTorch's flatten
order), that of a patch-major branch by patch; the columns of the first hidden
layer are ordered accordingly.
"""

import math
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from .._checks import check_integer, describe
from .._kernels.processor import (
    DENSE_BIAS,
    DENSE_PANEL,
    FILTER_BIAS,
    FILTER_ROW,
    LINE_FLOATS,
    PAD,
    PANEL,
    PATCH_BIAS,
    PATCH_PANEL,
    UNITS_PAD,
)
from .._typing import FloatArray, ImageShape, Parameters, Sizes

RING_BYTES = 2**21  # of all activation buffers together: more than the private cache of a core
GUARD_BYTES = 2**18  # unused space after each scratch area: hardware prefetchers read far beyond the end, and would
# take cache lines away from the thread that writes them
MAX_ELEMENTS = 2**40  # of parameters or workspace: indices cannot overflow

_Task: TypeAlias = tuple[int, int, int, int]  # kind, layer, begin, width


def padded(n: int, multiple: int = PAD) -> int:
    """``n`` rounded up to a multiple."""
    return -(-n // multiple) * multiple


def is_patch_inner(n_patches: int) -> bool:
    """Whether vectors run along the patches, which they do if padding adds at most half of their number."""
    return 2 * padded(n_patches) <= 3 * n_patches


def as_sizes(name: str, value: Any) -> Sizes:
    """An integer or a sequence of integers as a tuple of positive integers."""
    if isinstance(value, (str, bytes, dict)) or (isinstance(value, np.ndarray) and value.ndim != 1):
        raise TypeError(f"{name} must be an integer or a sequence of integers, but got {describe(value)}")
    if np.ndim(value) == 0:
        return (check_integer(name, value, 1, 2**31 - 1),)
    sizes = tuple(check_integer(f"{name}[{i}]", size, 1, 2**31 - 1) for i, size in enumerate(value))
    if not sizes:
        raise ValueError(f"{name} must hold at least one integer, but got {describe(value)}")
    return sizes


class Layout:
    """Layout of a network's parameters in one array, and of the kernels' workspace.

    Parameters
    ----------
    image_shape : tuple of int
        (C, H, W).
    filter_size, n_filters : tuple of int
        Filter width and number of filters of each branch.
    n_hidden : tuple of int
        Number of units in each hidden layer.
    n_classes : int
    single_filter, single_hidden : bool
        Whether names are not numbered: ``conv.weight`` instead of ``conv.0.weight``.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        filter_size: Sizes,
        n_filters: Sizes,
        n_hidden: Sizes,
        n_classes: int,
        single_filter: bool,
        single_hidden: bool,
    ) -> None:
        self.image_shape = image_shape
        self.n_classes = n_classes
        self.size: int = 0
        self.names: list[tuple[str, str, int]] = []  # (public name, kind, index) in order
        self.branches: list[dict[str, int]] = []
        n_inputs = 0
        for f, n in zip(filter_size, n_filters):
            branch = self._branch(f, n)
            branch["column"] = n_inputs
            n_inputs += padded(n * (branch["ld_x"] if branch["patch_inner"] else branch["n_patches"]))
            self.branches.append(branch)
        self.ld: list[int] = [row_length(n_inputs)]
        self.dense: list[dict[str, int]] = []
        for units in (*n_hidden, n_classes):
            self.dense.append(self._dense(units, n_inputs))
            n_inputs = padded(units)
            self.ld.append(n_inputs)
        self._name_all(single_filter, single_hidden)
        if self.size > MAX_ELEMENTS:
            raise MemoryError(f"a network must have fewer than 2**40 parameters, but this one needs {self.size}")

    def _take(self, count: int) -> int:
        start = self.size
        self.size += padded(count)
        return start

    def _branch(self, filter_size: int, n_filters: int) -> dict[str, int]:
        channels, height, width = self.image_shape
        n_patches = (height // filter_size) * (width // filter_size)
        n_values = channels * filter_size**2
        patch_inner = is_patch_inner(n_patches)
        branch = {
            "filter_size": filter_size,
            "n_patches": n_patches,
            "n_values": n_values,
            "n_filters": n_filters,
            "patch_inner": patch_inner,
            "ld_x": padded(n_patches) if patch_inner else padded(n_values),
        }
        branch["x_size"] = row_length(branch["ld_x"] * (n_values if patch_inner else n_patches))
        rows, row = (n_filters, n_values) if patch_inner else (padded(n_filters, UNITS_PAD), branch["ld_x"])
        branch["weight"] = self._take(rows * row)
        branch["bias"] = self._take(padded(n_filters, UNITS_PAD))
        return branch

    def _dense(self, n_units: int, n_inputs: int) -> dict[str, int]:
        dense = {"n_units": n_units, "n_inputs": n_inputs, "ld_w": row_length(n_inputs)}
        dense["weight"] = self._take(padded(n_units, UNITS_PAD) * dense["ld_w"])
        dense["bias"] = self._take(padded(n_units, UNITS_PAD))
        return dense

    def _name_all(self, single_filter: bool, single_hidden: bool) -> None:
        for i in range(len(self.branches)):
            prefix = "conv" if single_filter else f"conv.{i}"
            self.names += [(f"{prefix}.weight", "filter", i), (f"{prefix}.bias", "filter_bias", i)]
        for i in range(len(self.dense)):
            last = i == len(self.dense) - 1
            prefix = "output" if last else "hidden" if single_hidden else f"hidden.{i}"
            self.names += [(f"{prefix}.weight", "dense", i), (f"{prefix}.bias", "dense_bias", i)]

    def shape(self, kind: str, i: int) -> tuple[int, ...]:
        """Public shape of a parameter."""
        if kind.startswith("filter"):
            branch = self.branches[i]
            if kind == "filter_bias":
                return (branch["n_filters"],)
            return (branch["n_filters"], self.image_shape[0], branch["filter_size"], branch["filter_size"])
        if kind == "dense_bias":
            return (self.dense[i]["n_units"],)
        if i == 0:
            n_inputs = sum(branch["n_filters"] * branch["n_patches"] for branch in self.branches)
        else:
            n_inputs = self.dense[i - 1]["n_units"]
        return (self.dense[i]["n_units"], n_inputs)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Public shape of each parameter by name, in order."""
        return {name: self.shape(kind, i) for name, kind, i in self.names}

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def transposes(self, kernels: ModuleType, itemsize: int) -> bool:
        """Whether evaluation transposes a layer's weights, to skip zeros."""
        return any(_is_transposed(dense, kernels, itemsize) for dense in self.dense)

    def weights(self, store: FloatArray) -> list[FloatArray]:
        """Each weight matrix in the kernels' array, with its padding."""
        return [self._matrix(store, kind, i) for _, kind, i in self.names if not kind.endswith("bias")]

    def _matrix(self, store: FloatArray, kind: str, i: int) -> FloatArray:
        """A weight matrix in the kernels' array, (units or filters, padded row)."""
        if kind == "filter":
            branch = self.branches[i]
            start, rows = branch["weight"], branch["n_filters"]
            ld = branch["n_values" if branch["patch_inner"] else "ld_x"]
        else:
            dense = self.dense[i]
            start, rows, ld = dense["weight"], dense["n_units"], dense["ld_w"]
        return store[start : start + rows * ld].reshape(rows, ld)

    def _pieces(self, store: FloatArray, kind: str, i: int) -> Iterator[tuple[slice, FloatArray, tuple[int, ...]]]:
        """The parts of one parameter: columns of the public array, view of the store, shape of the part."""
        shape = self.shape(kind, i)
        if kind == "filter":
            row = self.branches[i]["n_values"]
            packed = self._matrix(store, kind, i)[:, :row]
            yield slice(None), packed, packed.shape
        elif kind.endswith("bias"):
            start = (self.branches if kind == "filter_bias" else self.dense)[i]["bias"]
            yield slice(None), store[start : start + shape[0]], shape
        else:
            packed = self._matrix(store, kind, i)
            rows = len(packed)
            if i > 0:
                yield slice(None), packed[:, : shape[1]], shape
                return
            begin = 0
            for branch in self.branches:
                n_f, n_p = branch["n_filters"], branch["n_patches"]
                if branch["patch_inner"]:
                    width = n_f * branch["ld_x"]
                    view = packed[:, branch["column"] : branch["column"] + width]
                    view = view.reshape(rows, n_f, branch["ld_x"])[:, :, :n_p]
                else:
                    view = packed[:, branch["column"] : branch["column"] + n_f * n_p]
                    view = view.reshape(rows, n_p, n_f).transpose(0, 2, 1)
                yield slice(begin, begin + n_f * n_p), view, (rows, n_f, n_p)
                begin += n_f * n_p

    def pack(self, mapping: Mapping[str, FloatArray], store: FloatArray) -> None:
        """Copy public arrays into the kernels' array."""
        for name, kind, i in self.names:
            array = mapping[name].reshape(self.shape(kind, i)[0], -1) if "bias" not in kind else mapping[name]
            for columns, view, _ in self._pieces(store, kind, i):
                part = array[:, columns] if array.ndim == 2 else array
                view[...] = part.reshape(view.shape)

    def unpack(self, store: FloatArray) -> Parameters:
        """Copy the kernels' array into new public arrays."""
        mapping = {}
        for name, kind, i in self.names:
            parts = [
                np.array(view).reshape(shape[0], -1) if "bias" not in kind else np.array(view)
                for _, view, shape in self._pieces(store, kind, i)
            ]
            mapping[name] = np.ascontiguousarray(np.concatenate(parts, axis=-1)).reshape(self.shape(kind, i))
        return mapping

    def n_blocks(self, batch_size: int, itemsize: int) -> int:
        """Number of blocks, equal but for one image, into which a training step divides a batch.

        It is a multiple of eight, so that eight threads have equal work, or of four or
        two where blocks would become so small that one thread is slower.
        """
        most = self.block_size(itemsize)
        least = {10: 8, 25: 12, 50: 49}[most]  # with which one thread is hardly slower than with blocks of the most
        if self._has_few_patches():
            least = most - 1
        fewest = -(-batch_size // most)
        counts = (padded(fewest, multiple) for multiple in (8, 4, 2))
        return next((n for n in counts if n * least <= batch_size), min(padded(fewest, 2), batch_size))

    def block_size(self, itemsize: int) -> int:
        """Number of images in a block of evaluation, and at most in one of a training step.

        The activations of a block should stay in cache. There are more images if the
        weights, which every block streams, are large, or if the gradient of the
        filters has few patches to sum over before its lanes are added up.
        """
        weight_bytes = itemsize * sum(dense["n_units"] * dense["ld_w"] for dense in self.dense)
        weight_bytes += itemsize * sum(b["n_filters"] * b["ld_x"] for b in self.branches if not b["patch_inner"])
        if weight_bytes <= 2**18 and not self._has_few_patches():
            return 10
        return 25 if weight_bytes <= 2**22 else 50

    def _has_few_patches(self) -> bool:
        return any(branch["patch_inner"] and branch["ld_x"] == PAD for branch in self.branches)

    def plan(
        self,
        kernels: ModuleType,
        batch_size: int,
        n_threads: int,
        itemsize: int,
        evaluation: bool = False,
        transposes: bool = False,
    ) -> tuple[dict[str, Any], list[_Task], int]:
        """The plan that the kernels' ``read_plan`` reads, and the size of the workspace.

        Parameters
        ----------
        kernels : module
            Build of the kernels, which determines the scratch space of its tiles.
        batch_size : int
            Images in a batch; for evaluation, each thread's scratch area holds one block.
        n_threads : int
        itemsize : int
            Size of an element in bytes.
        evaluation : bool
        transposes : bool
            Whether to store transposed weights of dense layers with many units as well; for evaluation.

        Returns
        -------
        plan : dict
        tasks : list of tuple
        workspace : int
            Size in elements.
        """
        n_blocks = self.n_blocks(batch_size, itemsize)
        block = self.block_size(itemsize) if evaluation else -(-batch_size // n_blocks)
        rows = block if evaluation else batch_size
        whole, buffer, thread = _Cursor(), _Cursor(), _Cursor()
        batch = thread if evaluation else buffer
        keep_grad = not all(branch["patch_inner"] for branch in self.branches)
        act = [0 if evaluation and i == 0 else batch.take(rows * ld) for i, ld in enumerate(self.ld)]
        grad = [
            0 if evaluation or (i == 0 and not keep_grad) else buffer.take(rows * ld) for i, ld in enumerate(self.ld)
        ]
        h, d_h = thread.take(block * self.ld[0]), thread.take(block * self.ld[0])
        branches = []
        for branch in self.branches:
            own = dict(
                branch,
                batch_x=0,
                partials=0,
                x=thread.take(block * branch["x_size"]),
                tables=whole.take(2 * math.prod(self.image_shape)),
            )
            if not evaluation and branch["patch_inner"]:
                own["partials"] = buffer.take(n_blocks * branch["n_filters"] * (branch["n_values"] + 1))
            elif not evaluation:
                own["batch_x"] = buffer.take(rows * branch["x_size"])
            branches.append(own)
        layers = []
        for dense in self.dense:
            own = dict(dense, ld_transposed=row_length(dense["n_units"]), transposed=-1)
            if transposes and _is_transposed(dense, kernels, itemsize):
                own["transposed"] = whole.take(dense["n_inputs"] * own["ld_transposed"])
            layers.append(own)
        width = self.image_shape[2]
        row_space = thread.take((max(self.image_shape[1] // b["filter_size"] for b in self.branches) + 3) * width)
        sums = [dense["n_units"] for dense in self.dense] + [branch["n_filters"] for branch in self.branches]
        z = thread.take(max(kernels.dense_scratch_size(block), *sums))
        thread.take(GUARD_BYTES // itemsize)
        tasks = self.tasks()
        n_buffers = -(-RING_BYTES // (itemsize * buffer.used)) if buffer.used else 1
        buffers = whole.take(n_buffers * buffer.used)
        plan = {
            "n_classes": self.n_classes,
            "n_tasks": len(tasks),
            "block": block,
            "n_blocks": n_blocks,
            "branches": branches,
            "dense": layers,
            "ld": self.ld,
            "act": act,
            "grad": grad,
            "keep_grad": keep_grad,
            "h": h,
            "d_h": d_h,
            "buffers": buffers,
            "n_buffers": n_buffers,
            "buffer_size": buffer.used,
            "scratch": whole.used,
            "scratch_size": thread.used,
            "rows": row_space,
            "z": z,
        }
        total = whole.used + n_threads * thread.used
        if total > MAX_ELEMENTS:
            raise MemoryError(f"a batch of {batch_size} images needs a workspace of {total} elements, more than 2**40")
        return plan, tasks, total

    def tasks(self) -> list[_Task]:
        """The tasks of phase two, (kind, layer, begin, width), with the large panels first."""
        panels, rest = [], []
        for i, dense in enumerate(self.dense):
            panels += _panels(DENSE_PANEL, i, dense["n_inputs"])
            rest.append((DENSE_BIAS, i, 0, 0))
        for i, branch in enumerate(self.branches):
            if branch["patch_inner"]:
                rest += [(FILTER_ROW, i, f, 1) for f in range(branch["n_filters"])]
                rest.append((FILTER_BIAS, i, 0, 0))
            else:
                panels += _panels(PATCH_PANEL, i, branch["ld_x"])
                rest.append((PATCH_BIAS, i, 0, 0))
        return panels + rest


class _Cursor:
    """Allocates consecutive padded ranges of an array."""

    def __init__(self) -> None:
        self.used = 0

    def take(self, count: int) -> int:
        start = self.used
        self.used += padded(count)
        return start


def _is_transposed(dense: dict[str, int], kernels: ModuleType, itemsize: int) -> bool:
    return bool(dense["n_units"] >= kernels.fewest_transposed(itemsize))


def _panels(kind: int, layer: int, n_inputs: int) -> list[_Task]:
    """One panel, or an even number of them, for an even distribution over two threads."""
    count = -(-n_inputs // PANEL)
    width = padded(-(-n_inputs // (count + count % 2 if count > 1 else 1)))
    return [(kind, layer, begin, min(width, n_inputs - begin)) for begin in range(0, n_inputs, width)]


def row_length(n: int) -> int:
    """``n`` elements padded to an odd number of cache lines of 64 bytes (floats).

    Rows at distances of a power of two would compete for a few sets of the cache.
    """
    lines = padded(n) // LINE_FLOATS
    return LINE_FLOATS * (lines + 1 - lines % 2)
