"""Sweeps over vectors kept as rows: the engine's kernels and threads for algorithms that know no
network.

`project_rows(Q, W)` gives ``W Q'`` in float64, `subtract_rows(Q, W, C)` makes ``W -= C Q`` in place
and gives the squared norms of the new rows; `combine_rows(Q, S, Y)` makes ``Y = S' Q``, also where
Y are the first rows of Q. Each reads the basis once, and its bits do not depend on the number of
threads. `dot` and `norm` are those of one long vector: BLAS would wake threads of its own, which go
on spinning beside the engine's next product. `adam_step` is a step of that method, in one sweep.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._engine import (
    adam_step,
    combine_rows,
    compact_weights,
    default_threads,
    project_rows,
    subtract_rows,
)

__all__ = [
    "adam_step",
    "column_slices",
    "combine_rows",
    "compact_weights",
    "dot",
    "extent",
    "norm",
    "project_rows",
    "safe_norm",
    "subtract_rows",
]

PANEL = 2048  # columns that combine_rows treats at once

SHORT = 8192  # numbers that BLAS multiplies on one thread, and faster than a call of ours


def dot(x: NDArray[Any], y: NDArray[Any]) -> float:
    """``<x, y>``, for two vectors of one dtype; long ones summed in float64. Infinite or not a
    number where the sum is, without a warning: NumPy's differ from one processor to another.
    """
    if len(x) < SHORT or not (x.dtype == y.dtype and x.flags.c_contiguous and y.flags.c_contiguous):
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.dot(x, y))
    return float(project_rows(x[None], y[None])[0, 0])


def column_slices(n: int) -> Iterator[slice]:
    """Slices of n columns that `combine_rows` treats to the same bits as all at once, each with
    enough work for every thread.
    """
    width = PANEL * 4 * max(2, default_threads())
    return (slice(a, min(a + width, n)) for a in range(0, n, width))


def norm(x: NDArray[Any]) -> float:
    """``||x||`` of one vector, safe against overflow and underflow of the squares."""
    total = dot(x, x)
    return math.sqrt(total) if 1e-30 < total < 1e30 else safe_norm(x)


def extent(theta: NDArray[Any]) -> float:
    """``(||theta||^2 + 1)^1/2``: the length of theta, at least that of a unit step."""
    return float((np.linalg.norm(theta) ** 2 + 1) ** 0.5)


def safe_norm(x: NDArray[Any]) -> float:
    """The 2-norm in float64 of finite numbers of any scale and shape."""
    largest = float(np.abs(x).max(initial=0.0))
    if not 0 < largest < np.inf:
        return largest
    return largest * float(np.linalg.norm(np.divide(x, largest, dtype=np.float64)))
