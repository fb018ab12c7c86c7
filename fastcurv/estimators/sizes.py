"""Choices of an estimator's fit that depend on the sizes of the network and of the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.checks import is_sparse

THREADS_MIN_FLOPS = 10_000_000  # number of flops of a gradient below which one thread is faster
# number of flops of a gradient from which float32 saves more time than casting the rows takes
FLOAT32_MIN_FLOPS = 20_000_000
# limits for the use of float32: minimum relative spread of a column, and maximum size of its
# entries
MIN_RELATIVE_SPREAD, MAX_COLUMN_MAGNITUDE = 1e-3, 1e6
# number of entries in all L-BFGS pairs that fit into a cache; 1 MB with the changes of the gradient
CACHED_PAIRS_ENTRIES = 1 << 16
# maximum number of entries in all L-BFGS pairs (32 MB) if gradients take longer than reading them
MAX_PAIRS_ENTRIES = 1 << 21
# number of entries of a matrix (0.5 MB) up to which products with its dense form are faster than
# with the stored entries
MAX_DENSE_ENTRIES = 1 << 16


def default_n_pairs(n: int, rows: int) -> int:
    """Return the number of L-BFGS pairs for n parameters. More than 20 pairs save iterations (80
    save a third). They are used if they fit in cache and take little time compared with a gradient,
    or if they do not fit but take hardly any time.

    Examples
    --------
    >>> default_n_pairs(601, 1000), default_n_pairs(601, 100), default_n_pairs(7510, 1000)
    (80, 20, 20)
    >>> default_n_pairs(7510, 10_000), default_n_pairs(1_000_000, 10_000)
    (80, 20)
    """
    near, far = min(rows // 12, CACHED_PAIRS_ENTRIES // n), min(rows // 120, MAX_PAIRS_ENTRIES // n)
    return min(max(20, near, far), 80)


def default_n_threads(given: int | None, n: int, rows: int) -> int | None:
    """Return the number of threads: 1 for a small gradient, unless given by the user."""
    return 1 if given is None and 6 * rows * n < THREADS_MIN_FLOPS else given


def dense_if_small(X: Any) -> Any:
    """Return X, as a dense array if it is a small sparse matrix. A gradient then takes a third to a
    twentieth of the time.
    """
    small = is_sparse(X) and X.shape[0] * X.shape[1] <= MAX_DENSE_ENTRIES
    return X.toarray() if small else X


def can_search_in_float32(X: Any, y: np.ndarray, n: int) -> bool:
    """Return True if the held-out stage of a fit may run in float32: the gradient is expensive, and
    float32 resolves the spread and the size of every column.
    """
    if is_sparse(X) or X.dtype != np.float64 or 6 * X.shape[0] * n < FLOAT32_MIN_FLOPS:
        return False
    for a in (X, y) if y.dtype.kind == "f" else (X,):
        low, high = a.min(axis=0), a.max(axis=0)
        size = np.maximum(np.abs(low), np.abs(high))
        told = (
            (high - low >= MIN_RELATIVE_SPREAD * size)
            & (size < MAX_COLUMN_MAGNITUDE)
            & (size * MAX_COLUMN_MAGNITUDE > 1)
        )
        if not np.all(told | (high == low)):
            return False
    return True
