# The entries of each instruction set's module. Those that take floats are fused: `name["float"]`, `name["double"]`.
# The constants that processor.pyi names stand in these modules as well.
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .processor import (
    DENSE_BIAS as DENSE_BIAS,
    DENSE_PANEL as DENSE_PANEL,
    ENTRY_BLOCK as ENTRY_BLOCK,
    FILTER_BIAS as FILTER_BIAS,
    FILTER_ROW as FILTER_ROW,
    LINE_FLOATS as LINE_FLOATS,
    MAX_BLOCK as MAX_BLOCK,
    MAX_BRANCHES as MAX_BRANCHES,
    MAX_HIDDEN as MAX_HIDDEN,
    PAD as PAD,
    PANEL as PANEL,
    PATCH_BIAS as PATCH_BIAS,
    PATCH_PANEL as PATCH_PANEL,
    PURPOSE_AUGMENTATION as PURPOSE_AUGMENTATION,
    PURPOSE_DROPOUT as PURPOSE_DROPOUT,
    PURPOSE_INITIALISATION as PURPOSE_INITIALISATION,
    PURPOSE_SEARCH as PURPOSE_SEARCH,
    PURPOSE_SHAPES as PURPOSE_SHAPES,
    PURPOSE_SHUFFLE as PURPOSE_SHUFFLE,
    TILE_ROWS as TILE_ROWS,
    UNITS_PAD as UNITS_PAD,
)

def shuffled_order(order: NDArray[np.int64], seed: int, epoch: int) -> None: ...
def whiten(
    pixels: NDArray[np.uint8],
    filters: NDArray[np.float32],
    bias: NDArray[np.float32],
    scratch: NDArray[np.float32],
    out: NDArray[np.uint8],
    n_threads: int,
) -> None: ...
def gather_batch(
    pixels: NDArray[np.uint8] | None,
    values: NDArray[np.floating] | None,
    order: NDArray[np.int64],
    filter_size: int,
    scale: NDArray[np.floating] | None,
    offset: NDArray[np.floating] | None,
    centre: NDArray[np.floating] | None,
    augmentation: dict[str, Any] | None,
    seed: int,
    epoch: int,
    patches: NDArray[np.floating],
    rows: NDArray[np.floating],
    tables: NDArray[np.floating],
    n_threads: int,
) -> None: ...
def col2im(
    patches: NDArray[np.floating],
    filter_size: int,
    images: NDArray[np.floating],
    n_threads: int,
) -> None: ...
def patch_matmul_forward(
    patches: NDArray[np.floating],
    n_patches: int,
    weight: NDArray[np.floating],
    bias: NDArray[np.floating],
    activations: NDArray[np.floating],
    n_threads: int,
) -> None: ...
def patch_matmul_backward(
    d_activations: NDArray[np.floating],
    patches: NDArray[np.floating],
    activations: NDArray[np.floating],
    masked: NDArray[np.floating],
    partials: NDArray[np.floating],
    n_threads: int,
) -> None: ...
def dense_scratch_size(n_images: int) -> int: ...
def fewest_transposed(itemsize: int) -> int: ...
def dense_forward_rows(
    inputs: NDArray[np.floating],
    weight: NDArray[np.floating],
    bias: NDArray[np.floating],
    relu: bool,
    outputs: NDArray[np.floating],
    scratch: NDArray[np.floating],
    n_threads: int,
) -> None: ...
def dense_backward_rows(
    d_outputs: NDArray[np.floating],
    inputs: NDArray[np.floating],
    weight: NDArray[np.floating],
    outputs: NDArray[np.floating],
    masked: NDArray[np.floating],
    d_inputs: NDArray[np.floating],
    d_weight: NDArray[np.floating],
    d_bias: NDArray[np.floating],
    scratch: NDArray[np.floating],
    skips: bool,
    n_threads: int,
) -> None: ...
def sum_of_squares(weight: NDArray[np.floating]) -> float: ...
def sgd_update(
    weight: NDArray[np.floating],
    gradient: NDArray[np.floating],
    learning_rate: float,
    l2: float,
) -> None: ...
def softmax_cross_entropy_forward(
    probabilities: NDArray[np.floating],
    n_classes: int,
    labels: NDArray[np.int32] | None,
    soft: NDArray[np.floating] | None,
    on: float,
    off: float,
    losses: NDArray[np.float64],
) -> None: ...
def softmax_cross_entropy_backward(
    probabilities: NDArray[np.floating],
    n_classes: int,
    labels: NDArray[np.int32] | None,
    soft: NDArray[np.floating] | None,
    on: float,
    off: float,
    weights: NDArray[np.float64] | None,
    d_logits: NDArray[np.floating],
) -> None: ...
def train(
    plan: dict[str, Any],
    tasks: NDArray[np.int64],
    params: NDArray[np.floating],
    optimizer: dict[str, Any] | None,
    state: NDArray[np.floating] | None,
    n_updates: NDArray[np.int64] | None,
    workspace: NDArray[np.floating],
    pixels: NDArray[np.uint8] | None,
    values: NDArray[np.floating] | None,
    scale: NDArray[np.floating] | None,
    offset: NDArray[np.floating] | None,
    centre: NDArray[np.floating] | None,
    labels: NDArray[np.int32] | None,
    soft: NDArray[np.floating] | None,
    on: float,
    off: float,
    order: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
    learning_rates: NDArray[np.float64],
    costs: NDArray[np.float64],
    losses: NDArray[np.float64],
    correct: NDArray[np.int32],
    squares: NDArray[np.float64],
    settings: dict[str, Any],
    thread_local: bool,
    n_threads: int,
    spins: int,
) -> float: ...
def evaluate(
    plan: dict[str, Any],
    params: NDArray[np.floating],
    workspace: NDArray[np.floating],
    pixels: NDArray[np.uint8] | None,
    values: NDArray[np.floating] | None,
    scale: NDArray[np.floating] | None,
    offset: NDArray[np.floating] | None,
    centre: NDArray[np.floating] | None,
    labels: NDArray[np.int32] | None,
    soft: NDArray[np.floating] | None,
    losses: NDArray[np.float64],
    correct: NDArray[np.int32],
    probabilities: NDArray[np.floating] | None,
    n_threads: int,
) -> None: ...
def ladder_conv_forward(
    vector: bool,
    patches: NDArray[np.floating],
    weight: NDArray[np.floating],
    bias: NDArray[np.floating],
    activations: NDArray[np.floating],
) -> None: ...
def ladder_conv_backward(
    vector: bool,
    d_activations: NDArray[np.floating],
    patches: NDArray[np.floating],
    d_weight: NDArray[np.floating],
    d_bias: NDArray[np.floating],
) -> None: ...
def ladder_dense_forward(
    vector: bool,
    inputs: NDArray[np.floating],
    weight: NDArray[np.floating],
    bias: NDArray[np.floating],
    relu: bool,
    outputs: NDArray[np.floating],
) -> None: ...
def ladder_dense_backward(
    vector: bool,
    d_outputs: NDArray[np.floating],
    inputs: NDArray[np.floating],
    weight: NDArray[np.floating],
    d_inputs: NDArray[np.floating],
    d_weight: NDArray[np.floating],
    d_bias: NDArray[np.floating],
) -> None: ...
def exchange(lines: NDArray[np.float32], n_lines: int, n_rounds: int, n_threads: int) -> None: ...
def probe(seed: NDArray[np.floating], n: int, totals: NDArray[np.float64] | None, n_threads: int) -> float: ...
