"""Type aliases shared by many signatures."""

import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

StrPath: TypeAlias = str | os.PathLike[str]
AnyArray: TypeAlias = NDArray[Any]
FloatArray: TypeAlias = NDArray[np.floating]  # float32 or float64
IntArray: TypeAlias = NDArray[np.integer]
ImageShape: TypeAlias = tuple[int, int, int]  # channels, height, width
Sizes: TypeAlias = tuple[int, ...]
SizesLike: TypeAlias = int | Sequence[int] | IntArray
JsonDict: TypeAlias = dict[str, Any]  # of JSON values
Parameters: TypeAlias = dict[str, FloatArray]  # keyed by PyTorch's names
