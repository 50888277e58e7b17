"""The array layouts of DD2424's assignment 3, and a check of gradients in them.

The course keeps n images as the columns of a matrix (3072 × n, one colour
plane after the other), filters as ``Fs`` (f, f, 3, nf) and patches as ``MX``
(n_p, 3f², n). It flattens the output of the convolution patch by patch, with
all filters of a patch next to each other, and orders the columns of ``W1``
accordingly. cyconv uses PyTorch's layouts: images (n, C, H, W), filters (nf,
C, f, f), and the output flattened filter by filter. The values of a patch are
in the order (row, column, channel) in the course and (channel, row, column)
in cyconv; both count patches row by row. The course's convolution has no bias;
here it is called ``Fs_b``.

`compare_gradients` checks gradients that a student's own code has computed.
"""

from .gradients import GradientComparison, compare_gradients
from .layouts import (
    NAMES,
    RESULTS,
    filters_from_course,
    filters_from_flat,
    filters_to_course,
    gradients_to_course,
    hidden_from_course,
    hidden_to_course,
    images_from_columns,
    images_to_columns,
    maps_to_course,
    parameters_from_course,
    parameters_to_course,
    patches_to_course,
    read_debug_file,
)

__all__ = [
    "NAMES",
    "RESULTS",
    "GradientComparison",
    "compare_gradients",
    "filters_from_course",
    "filters_from_flat",
    "filters_to_course",
    "gradients_to_course",
    "hidden_from_course",
    "hidden_to_course",
    "images_from_columns",
    "images_to_columns",
    "maps_to_course",
    "parameters_from_course",
    "parameters_to_course",
    "patches_to_course",
    "read_debug_file",
]
