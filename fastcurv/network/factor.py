"""Cholesky factors of positive definite curvature matrices: solutions, the logarithm of the
determinant, and the diagonal of the inverse.

All arithmetic is in float64, by one BLAS thread where threadpoolctl is installed, so that results
are bitwise independent of the number of threads. A matrix counts as positive definite if its
factorisation succeeds and the condition number, estimated with rows and columns scaled to a unit
diagonal, is below ``1 / (n eps)``. The result therefore does not depend on the units of the
parameters.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import cho_solve, lapack

from ..common.checks import all_finite, check_finite
from ..common.linalg import UNIT_ROUNDOFF, cholesky, eigvalsh
from ..common.protocols import Array, Floats, capability
from ..common.read_only import ReadOnlyMixin
from ..common.runtime import serial_blas_context
from .arguments import as_real_array, match_array_type


class NotPositiveDefiniteError(ValueError):
    """Error for a matrix without a Cholesky factor. The attribute `eigenvalue` is the smallest
    eigenvalue of the matrix.
    """

    def __init__(self, message: str, eigenvalue: float) -> None:
        super().__init__(message)
        self.eigenvalue = eigenvalue

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.eigenvalue)


class CholeskyFactor(ReadOnlyMixin):
    """The Cholesky factor of a positive definite matrix H ``(n, n)``, as returned by
    ``H.factor()``.

    Attributes
    ----------
    lower : ndarray (n, n)
        The factor L, lower triangular, with ``H = L L'``, in float64.
    shape : tuple
        ``(n, n)``.
    logdet : float
        The logarithm of the determinant of H.
    inverse_lower : ndarray (n, n)
        The inverse of L. The first access costs ``n^3 / 3`` flops.
    inverse_diagonal : ndarray (n,)
        The diagonal of the inverse of H, computed from `inverse_lower`.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> X, y = np.array([[1.0], [2.0], [3.0]]), np.array([1.0, 2.0, 2.0])
    >>> ob = fc.Objective(fc.MLP([1, 1]), X, y, loss="mse")
    >>> H = ob.hessian(np.zeros(2))
    >>> factor = H.factor()
    >>> bool(np.allclose(H @ factor.solve([1.0, 0.0]), [1.0, 0.0]))
    True
    >>> bool(np.isclose(factor.logdet, np.linalg.slogdet(H.to_dense())[1]))
    True
    """

    lower: Floats
    shape: tuple[int, int]
    logdet: float
    _read_only = frozenset(
        ("lower", "shape", "logdet", "inverse_lower", "inverse_diagonal", "n_threads")
    )

    def __init__(self, op: Any) -> None:
        matrix = _float64_matrix(op)
        n = len(matrix)
        with serial_blas_context():
            if not all_finite(matrix):
                check_finite(matrix, "H")
            lower = cholesky(matrix) if (np.diagonal(matrix) > 0).all() else None
            if lower is None or not _estimate_condition(matrix, lower) * n * 2 * UNIT_ROUNDOFF < 1:
                raise _not_positive_definite_error(matrix)
        self.n_threads = getattr(op, "n_threads", None)
        self.shape = n, n
        self.lower = lower
        self.logdet = 2 * float(np.log(np.diagonal(lower)).sum())

    def __repr__(self) -> str:
        n = self.shape[0]
        return f"<Cholesky factor of a {n}x{n} matrix, logdet={self.logdet:.6g}>"

    def solve(self, B: Any) -> Array:
        """Return ``H^-1 B`` in float64.

        Parameters
        ----------
        B : array_like, shape (n,) or (n, k)
            One right-hand side, or several as columns.

        Returns
        -------
        ndarray
            The solutions, in the shape of B, as a tensor if B is a torch tensor. The cost is ``2
            n^2`` flops for each column.

        Raises
        ------
        ValueError
            If B has another shape.
        """
        b = as_real_array(B, "B")
        n = self.shape[0]
        if b.ndim not in (1, 2) or b.shape[0] != n:
            raise ValueError(f"B must have shape ({n},) or ({n}, k), got {b.shape}.")
        with serial_blas_context():
            # The transpose of a lower triangular factor in C order is an upper triangular factor in
            # Fortran order.
            solution = cho_solve((self.lower.T, False), b.astype(np.float64), check_finite=False)
        return match_array_type(B, solution)  # type: ignore[no-any-return]

    @cached_property
    def inverse_lower(self) -> Floats:
        """Inverse of the factor L, shape (n, n). ``inverse_lower.T @ (inverse_lower @ B)`` solves
        for many right-hand sides B by matrix products.
        """
        with serial_blas_context():
            inverse, _ = lapack.dtrtri(self.lower.T, lower=0)  # inverse of L'
        lower_inverse: Floats = inverse.T
        lower_inverse.setflags(write=False)
        return lower_inverse

    @cached_property
    def inverse_diagonal(self) -> Floats:
        """Diagonal of the inverse of H, shape (n,)."""
        diagonal: Floats = np.einsum("ij,ij->j", self.inverse_lower, self.inverse_lower)
        diagonal.setflags(write=False)
        return diagonal


def _float64_matrix(op: Any) -> Floats:
    """Return the matrix (n, n) of an operator in float64, summed over samples by the engine where
    it can.
    """
    sum_matrix = capability(op, "summed_matrix")
    summed = None if sum_matrix is None else sum_matrix()
    if summed is not None:
        return np.asarray(summed)
    dense = op.to_dense() if hasattr(op, "to_dense") else op @ np.eye(len(op), dtype=op.dtype)
    return np.ascontiguousarray(dense, np.float64)


def _estimate_condition(matrix: Floats, lower: Floats) -> float:
    """Return LAPACK's estimate of the condition number, in the 1-norm, of a matrix with the
    Cholesky factor `lower`, with rows and columns scaled by powers of two to a diagonal near 1.
    """
    half = np.frexp(np.diagonal(matrix))[1] // 2
    scaled = np.ldexp(matrix, -half[:, None])
    np.ldexp(scaled, -half, out=scaled)
    norm = float(np.abs(scaled).sum(axis=0).max())
    reciprocal, _ = lapack.dpocon(np.ldexp(lower, -half[:, None]).T, norm, uplo="U")
    return 1 / reciprocal if reciprocal > 0 else np.inf


def _not_positive_definite_error(matrix: Floats) -> NotPositiveDefiniteError:
    """Return the error for a matrix without a Cholesky factor, with its smallest eigenvalue."""
    values = eigvalsh(matrix)
    least = float(values[0])
    error = len(values) * 2 * UNIT_ROUNDOFF * float(np.abs(values).max())
    zero = f", which is 0 to within rounding ({error:.1g})" if abs(least) <= error else ""
    return NotPositiveDefiniteError(
        f"H must be positive definite, got a smallest eigenvalue of {least:.6g}{zero}. Factor "
        "H.shift(mu) with a larger mu, or find a minimum first, with l2 > 0 if parameters are "
        "redundant.",
        least,
    )
