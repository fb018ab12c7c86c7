"""Every eigenvalue of an operator that is small enough to be written down, and the signs that are
sure.
"""

import numpy as np
from scipy.linalg import eigvalsh as lapack_eigvalsh

from ..checks import check_symmetric_operator, operator_dtype
from .results import Inertia

BLOCK = 64
LARGEST_DENSE = 30_000


def to_dense(op):
    """The matrix ``(n, n)`` of an operator: ``op.to_dense()`` where it exists, else n products in
    blocks.

    Returns
    -------
    A : ndarray, shape (n, n)
    n_products : int
        n, or 0 for a matrix that was there already.
    """
    op = check_symmetric_operator(op)
    n = op.shape[0]
    if n > LARGEST_DENSE:
        raise ValueError(
            f"the operator has n = {n}, whose matrix would take {8e-9 * n * n:.0f} GB; wanted n <= "
            f"{LARGEST_DENSE}; spectral_density and eigsh need only products"
        )
    if hasattr(op, "to_dense"):
        return np.asarray(op.to_dense()), 0 if hasattr(op, "A") else n
    A = np.empty((n, n), operator_dtype(op))
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        columns = np.zeros((n, stop - start), A.dtype)
        columns[np.arange(start, stop), np.arange(stop - start)] = 1
        A[:, start:stop] = op @ columns
    return A, n


def eigvalsh(op):
    """Every eigenvalue of a symmetric operator, ascending, from its matrix.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        Real symmetric; costs n products, n^2 numbers and about ``4/3 n^3`` flops in float64.

    Returns
    -------
    ndarray, shape (n,)
        Float64, each right to about ``n eps ||op||``.

    Examples
    --------
    >>> import numpy as np
    >>> eigvalsh(np.array([[0.0, -2.0], [-2.0, 0.0]]))
    array([-2.,  2.])
    """
    values, _, _ = _dense_spectrum(op)
    return values


def inertia(op):
    """How many eigenvalues are positive, negative, and zero within a proved error bound, from the
    matrix.

    By Weyl's theorem no computed eigenvalue is further from the true one than the norm of all
    errors together: rounding in the products (``op.rounding_bound(e_j)`` where the operator has it,
    8 eps times each column otherwise; none for a matrix, which is taken as exact), what
    symmetrising the matrix changed, and the backward error of the eigensolver, ``4 n eps ||op||``
    in float64.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        Real symmetric; costs n products, n^2 numbers and about ``4/3 n^3`` flops.

    Returns
    -------
    Inertia
        Unpacks into ``n_positive, n_negative, n_zero``.

    Examples
    --------
    >>> import numpy as np
    >>> n_positive, n_negative, n_zero = inertia(np.diag([3.0, 1.0, 0.0, -1.0]))
    >>> n_positive, n_negative, n_zero
    (2, 1, 1)
    """
    values, bound, n_products = _dense_spectrum(op)
    n_positive, n_negative = int((values > bound).sum()), int((values < -bound).sum())
    return Inertia(
        n_positive, n_negative, len(values) - n_positive - n_negative, bound, values, n_products
    )


def _dense_spectrum(op):
    """Eigenvalues ``(n,)``, a bound on the error of each, and the products spent."""
    op = check_symmetric_operator(op)
    A, n_products = to_dense(op)
    if not np.isfinite(A).all():
        raise ValueError(
            "the operator returned values that are not finite; wanted finite numbers for a finite "
            "vector"
        )
    products = _product_error(op, A)
    A = A.astype(np.float64)
    lost = float(np.linalg.norm(A - A.T)) / 2
    A = (A + A.T) / 2
    values = lapack_eigvalsh(A, overwrite_a=True, check_finite=False, driver="evd")
    n, largest = len(values), float(np.abs(values).max())
    return values, products + lost + 4 * n * np.finfo(float).eps * largest, n_products


def _product_error(op, A):
    """The Frobenius norm of the errors that rounding made in the columns of `A`."""
    if hasattr(op, "A"):
        return 0.0
    n, dtype = A.shape[0], operator_dtype(op)
    if not hasattr(op, "rounding_bound"):
        return 8 * float(np.finfo(dtype).eps) * float(np.linalg.norm(A))
    total, e = 0.0, np.zeros(n, dtype)
    for j in range(n):
        e[j] = 1
        total += float(op.rounding_bound(e)) ** 2
        e[j] = 0
    return total**0.5
