"""Operations on long vectors and on vectors stored as rows, by the engine's kernels and threads.

`project_rows(Q, W)` returns ``W Q'`` in float64, `subtract_rows(Q, W, C)` computes ``W -= C Q`` in
place and returns the squared norms of the new rows, and `combine_rows(Q, S, Y)` computes ``Y = S'
Q``, where Y may be the first rows of Q. Each reads the basis once, and its result is bitwise
independent of the number of threads. `dot` and `norm` are for long vectors, for which BLAS would
start its own threads, which keep spinning during the engine's next product; `equal_vectors` returns
True if two vectors are equal. `adam_step` takes one step of Adam in a single sweep, `QuasiNewton`
is a run of L-BFGS, and `KrylovSpace` a space with the small problems of Newton-type steps, which
`solve_subproblem` solves. `CGWorkspace` holds the vectors of conjugate
gradients, and `Lanczos` is a recurrence.
`reduction_ratio` and `next_radius` evaluate trial steps.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .._engine import (
    NOT_FINITE_MESSAGE,
    CGWorkspace,
    KrylovSpace,
    Lanczos,
    QuasiNewton,
    adam_step,
    combine_rows,
    default_n_threads,
    empty_padded_rows,
    equal_vectors,
    inner_product,
    log_polynomial_growth,
    project_rows,
    solve_subproblem,
    subtract_rows,
)
from .protocols import Array

__all__ = [
    "NOT_FINITE_MESSAGE",
    "Lanczos",
    "QuasiNewton",
    "KrylovSpace",
    "CGWorkspace",
    "adam_step",
    "column_slices",
    "combine_rows",
    "default_n_threads",
    "dot",
    "augmented_norm",
    "log_polynomial_growth",
    "next_radius",
    "norm",
    "empty_padded_rows",
    "project_rows",
    "reduction_ratio",
    "safe_norm",
    "safe_row_norms",
    "equal_vectors",
    "solve_subproblem",
    "subtract_rows",
]

N_PANEL_COLUMNS = 2048  # number of columns that combine_rows processes at once


def dot(x: Array, y: Array) -> float:
    """Return ``<x, y>`` for two vectors of one dtype. Partial sums of contiguous float vectors are
    added in float64. Overflow gives inf or NaN without a warning, since NumPy's warnings differ
    between processors.
    """
    product = inner_product(x, y)
    # `inner_product` returns None for other dtypes and for arrays that are not contiguous.
    if product is None:
        with np.errstate(over="ignore", invalid="ignore"):
            product = float(np.dot(x, y))
    return product


def column_slices(n: int) -> Iterator[slice]:
    """Return slices that split n columns for `combine_rows`. Each has enough work for every thread,
    and the results are bitwise identical to those for all columns at once.
    """
    width = N_PANEL_COLUMNS * 4 * max(2, default_n_threads())
    return (slice(a, min(a + width, n)) for a in range(0, n, width))


def norm(x: Array) -> float:
    """Return the 2-norm of a vector, also if the squares of its entries overflow or underflow."""
    total = dot(x, x)
    return math.sqrt(total) if 1e-30 < total < 1e30 else safe_norm(x)


def augmented_norm(theta: Array) -> float:
    """Return ``sqrt(||theta||^2 + 1)``, a length of theta that is at least 1."""
    return float((np.linalg.norm(theta) ** 2 + 1) ** 0.5)


def safe_norm(x: Array) -> float:
    """Return the 2-norm in float64 of finite numbers of any scale and shape."""
    largest = float(np.abs(x).max(initial=0.0))
    if not 0 < largest < np.inf:
        return largest
    return largest * float(np.linalg.norm(np.divide(x, largest, dtype=np.float64)))


def safe_row_norms(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 2-norms ``(k,)`` of rows ``(k, n)`` of finite numbers of any scale."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    odd = ~((norms > 1e-140) & (norms < np.inf))  # True where squares underflow or overflow
    if odd.any():
        some = np.abs(rows[odd])
        largest = some.max(axis=1, initial=0.0)
        unit = np.where((largest > 0) & (largest < np.inf), largest, 1.0)
        norms[odd] = unit * np.linalg.norm(some / unit[:, None], axis=1)
    return np.asarray(norms)


def reduction_ratio(old: float, new: float, predicted: float, eps: float) -> float:
    """Return (old - new)/predicted, shifted towards 1 if both differences are within the rounding
    error of the values, or minus infinity if `new` is not finite.

    A value L has an error of the order of ``10 eps |L|``. Without the shift, this error would cause
    the last steps of a converging run to be rejected (Conn, Gould and Toint, Trust-Region Methods,
    2000, section 17.4).
    """
    if not math.isfinite(new):
        return -math.inf
    noise = 10 * eps * max(abs(old), abs(new))
    return (old - new + noise) / (predicted + noise) if predicted + noise > 0 else -math.inf


def next_radius(radius: float, ratio: float, length: float, bounded: bool) -> float:
    """Return the trust radius after a trial step of the given length, whose actual decrease is
    `ratio` times the predicted one. `bounded` is True if the step was at the bound on its length.
    """
    if ratio < 0.25:
        return 0.25 * length
    return 2 * radius if ratio > 0.75 and bounded else radius
