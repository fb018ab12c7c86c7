"""The one door to LAPACK's singular value decompositions: where divide and conquer fails on a
finite matrix, QR is asked.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from scipy import linalg

from .interrupts import heard
from .protocols import Array

LARGE = 1 << 17  # numbers of a matrix from which it takes milliseconds


def svd(A: Array, full_matrices: bool = False) -> tuple[Array, Array, Array]:
    """U, sizes descending and V' with ``A = U diag(sizes) V'``, for A ``(m, n)``.

    Raises
    ------
    numpy.linalg.LinAlgError
        Where A is not finite or both drivers fail.

    Examples
    --------
    >>> svd(np.array([[0.0, -2.0], [1.0, 0.0]]))[1]
    array([2., 1.])
    """
    found: tuple[Array, Array, Array] = _decomposed(A, full_matrices=full_matrices)
    return found


def svdvals(A: Array) -> Array:
    """The singular values of A ``(m, n)``, descending. Errors as for `svd`.

    Examples
    --------
    >>> svdvals(np.array([[3.0], [4.0]]))
    array([5.])
    """
    sizes: Array = _decomposed(A, compute_uv=False)
    return sizes


def _decomposed(A: Array, **what: Any) -> Any:
    call = partial(np.linalg.svd, A, **what)
    try:
        return heard(call) if A.size >= LARGE else call()
    except np.linalg.LinAlgError:
        if not np.isfinite(A).all():
            raise
    return linalg.svd(A, lapack_driver="gesvd", check_finite=False, **what)
