"""Choices of an estimator's fit that depend on the sizes of the network and of the data."""

from __future__ import annotations

from typing import Any

from ...common.checks import is_sparse

THREADS_MIN_FLOPS = 10_000_000  # minimum flops of a gradient; below, one thread is faster
# maximum number of entries of the steps in all L-BFGS pairs if these must fit into a cache; 1 MB
# with the gradient differences
CACHED_PAIRS_MAX_ENTRIES = 1 << 16
# maximum number of entries of the steps in all L-BFGS pairs (32 MB with the gradient differences)
# if reading the pairs takes less time than a gradient
MAX_PAIRS_ENTRIES = 1 << 21
# maximum number of entries of a sparse matrix (0.5 MB) that is converted to a dense array, since
# fits of the dense array are 6 to 12 times faster at densities of 0.05 to 0.1
CACHED_DENSE_MAX_ENTRIES = 1 << 16


def default_n_pairs(n: int, rows: int) -> int:
    """Return the number of L-BFGS pairs, from 20 to 80, for n parameters and gradients of `rows`
    rows. More pairs save iterations: 80 pairs save a third of those with 20. More than 20 are used
    if they fit into a cache and take little time compared with a gradient, or if they do not fit
    but take hardly any time.

    Examples
    --------
    >>> default_n_pairs(601, 1000), default_n_pairs(601, 100), default_n_pairs(7510, 1000)
    (80, 20, 20)
    >>> default_n_pairs(7510, 10_000), default_n_pairs(1_000_000, 10_000)
    (80, 20)
    """
    near = min(rows // 12, CACHED_PAIRS_MAX_ENTRIES // n)
    far = min(rows // 120, MAX_PAIRS_ENTRIES // n)
    return min(max(20, near, far), 80)


def default_n_threads(given: int | None, n: int, rows: int) -> int | None:
    """Return the number of threads: `given` if it is not None, 1 if gradients of `rows` rows for n
    parameters take fewer than `THREADS_MIN_FLOPS`, otherwise None, the default of the engine.
    """
    return 1 if given is None and 6 * rows * n < THREADS_MIN_FLOPS else given


def densify_if_small(X: Any) -> Any:
    """Return X. A small sparse matrix is converted to a dense array, which reduces the time of a
    gradient to between a third and a twentieth.
    """
    small = is_sparse(X) and X.shape[0] * X.shape[1] <= CACHED_DENSE_MAX_ENTRIES
    return X.toarray() if small else X
