"""The matrix of an operator that is small enough to be formed, with a bound on its error, and the
eigenvalues of the matrix, for `eigvalsh`, `inertia` and `classify`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..common.checks import (
    MatrixOperator,
    check_symmetric_operator,
    operator_dtype,
    row_block_slices,
)
from ..common.linalg import Eigensystem, NotFiniteError, eigh, matrix_midpoint
from ..common.linalg import eigvalsh as every_eigenvalue
from ..common.objectives import PRODUCT_ERROR_EPS, BudgetedOperator
from ..common.protocols import Floats, OperatorLike, capability, missing_bound_reason
from ..common.runtime import with_nearest_rounding
from ..common.vectors import NOT_FINITE_MESSAGE, safe_norm, safe_row_norms
from ..network.gram import gram_matrix
from .forms import matrix_by_products, matrix_of
from .results import Inertia


class AssembledMatrix(Protocol):
    """A symmetric matrix A (n, n), with bounds on its errors."""

    A: Floats

    def entry_error_bounds(self) -> Floats:
        """Return bounds (n, n) on the errors of the entries of A."""

    def layer_indices(self) -> NDArray[np.intp]:
        """Return an array (n,) with the index of the layer to which each parameter belongs."""

    def error_bound(self, scale: Floats | None = None) -> float:
        """Return a bound on ``||D E D||_F`` for the matrix E of errors of A, with ``D =
        diag(scale)`` for `scale` (n,), or the identity if `scale` is None.
        """


@dataclass(frozen=True, eq=False)
class DenseMatrix:
    """The symmetric matrix of an operator, with bounds on its error.

    Attributes
    ----------
    A : ndarray, shape (n, n)
        The matrix in float64, exactly symmetric.
    bounds : ndarray, shape (n,)
        Bounds on the norms of the errors of the columns of P, the matrix of the computed products.
        Of the entries (i, j) and (j, i) of P, A holds the one from the column with the smaller
        bound, or the mean of both if the bounds are equal. They are 0 if A was assembled.
    asymmetry : ndarray, shape (n,)
        The norms of the columns of ``P - P'``.
    n_products : int
        Number of products: n, or 0 if the matrix was given or was not formed by products.
    known : AssembledMatrix or None
        The matrix as the operator assembled it, with its own bounds on the error of A, or None if A
        was formed by products or given.
    """

    A: Floats
    bounds: Floats
    asymmetry: Floats
    n_products: int
    known: AssembledMatrix | None = None

    def error_bound(self, scale: Floats | None = None) -> float:
        """Return a bound on ``||D E D||_F`` for the matrix E of errors of A. D is ``diag(scale)``
        for `scale` (n,), or the identity if `scale` is None.

        The bound is that for the products (see `matrix_error_bound`) plus the whole measured
        asymmetry, because asymmetric products have an error of at least that size. If A was
        assembled, the bound is that of `known`.
        """
        if self.known is not None:
            return self.known.error_bound(scale)
        c = np.ones(len(self.A)) if scale is None else np.asarray(scale, dtype=np.float64)
        return matrix_error_bound(self.bounds, c) + self.asymmetry_error(c)

    def entry_error_bounds(self) -> Floats:
        """Return bounds on the errors of the entries of A. They have shape (n, n) if A was
        assembled. Otherwise they have shape (n, 1), and the bound for row i is that on the norm of
        column i.
        """
        return self.bounds[:, None] if self.known is None else self.known.entry_error_bounds()

    def layer_indices(self) -> NDArray[np.intp]:
        """Return an array (n,) with the index of the layer of each parameter, or zeros if the
        layers are unknown.
        """
        return np.zeros(len(self.A), np.intp) if self.known is None else self.known.layer_indices()

    def asymmetry_error(self, scale: Floats | None = None) -> float:
        """Return the part of ``error_bound(scale)`` that comes from the measured asymmetry, for a
        matrix that was formed by products.
        """
        c = np.ones(len(self.A)) if scale is None else np.asarray(scale, dtype=np.float64)
        if np.ptp(c) == 0:
            return safe_norm(self.asymmetry) * float(c.max(initial=0.0)) ** 2
        return safe_norm(self.asymmetry * c) * float(c.max(initial=0.0))

    def eigensystem(self) -> Eigensystem:
        """Return the eigenpairs of A as an `Eigensystem`. Its `errors` bound the error of the
        eigensolver plus that of A.
        """
        eigenpairs = eigh(self.A)
        return eigenpairs._replace(errors=eigenpairs.errors + self.error_bound())


def matrix_error_bound(bounds: Floats, d: Floats) -> float:
    """Return a bound on ``||D E D||_F`` with ``D = diag(d)``, for the error E of a `DenseMatrix`
    that was formed by products whose columns have the error bounds `bounds` (n,).

    The entries that A takes from a column lie in rows whose own bound is not smaller. So each
    column is multiplied by the largest d of those rows only, and a factor of sqrt(2) accounts for
    the mirrored entries.
    """
    order = np.argsort(bounds)
    suffix = np.maximum.accumulate(d[order][::-1])[::-1]
    reach = suffix[np.searchsorted(bounds[order], bounds, side="left")]
    return float(np.sqrt(2.0)) * safe_norm(bounds * d * reach)


def counted_matrix(H: BudgetedOperator) -> DenseMatrix:
    """Return the `DenseMatrix` of the operator of H, and add the number of products to the count of
    H.
    """
    M = dense_matrix(H.op)
    H.record_products(M.n_products)
    return M


def dense_matrix(op: OperatorLike) -> DenseMatrix:
    """Return the matrix of a symmetric operator with bounds on its errors. The matrix is the
    argument itself, or the operator assembles it, or it is computed by n products.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        The real symmetric operator. A matrix is taken as exact. The rounding errors of products are
        bounded by the operator's ``rounding_bound(e_j)``. If the operator does not have this
        method, an error of `PRODUCT_ERROR_EPS` eps ``||op||`` is assumed for
        each column.

    Returns
    -------
    DenseMatrix
        The matrix and its bounds.

    Raises
    ------
    ValueError
        If a product is not finite, or n is above 30 000.
    """
    op = check_symmetric_operator(op)
    n = op.shape[0]
    assemble = capability(op, "assembled")
    assembled: AssembledMatrix | None = None if assemble is None else assemble()
    if assembled is not None:
        return DenseMatrix(assembled.A, np.zeros(n), np.zeros(n), 0, assembled)
    P, n_products = matrix_by_products(op)
    P = P.astype(np.float64, copy=False)
    return symmetric_part(P, _column_error_bounds(op, P), n_products)


def symmetric_part(P: Floats, bounds: Floats, n_products: int) -> DenseMatrix:
    """Return the `DenseMatrix` of the matrix P (n, n) of `n_products` computed products, whose
    columns have errors of norm at most `bounds` (n,). Raise NotFiniteError if P or its asymmetry is
    not finite.
    """
    A = np.empty_like(P)
    asymmetry = np.empty(len(P))
    # Of each symmetric pair, take the entry with the smaller bound, or the mean of both.
    for s in row_block_slices(len(P), len(P)):
        here = P[s]
        there = P[:, s].T
        own = bounds[s, None]
        with np.errstate(over="ignore", invalid="ignore"):
            asymmetry[s] = safe_row_norms(here - there)
            A[s] = np.where(
                bounds < own, here, np.where(own < bounds, there, matrix_midpoint(here, there))
            )
    if not np.isfinite(asymmetry).all():
        raise NotFiniteError(
            "products with the operator must be finite for finite vectors, got NaN or infinity, "
            "or numbers so large that the matrix overflows. Scale the operator down."
        )
    return DenseMatrix(A, bounds, asymmetry, n_products)


def _column_error_bounds(op: OperatorLike, P: Floats) -> Floats:
    """Return bounds (n,) on the norms of the errors of the columns of P, the matrix of products
    with `op`. Raise ValueError if a bound of the operator is negative or NaN.
    """
    n = len(P)
    dtype = operator_dtype(op)
    if isinstance(op, MatrixOperator):
        return np.zeros(n)
    known = None if missing_bound_reason(op) else capability(op, "rounding_bound")
    if known is not None:
        bounds = np.array([float(known(e)) for e in np.eye(n, dtype=dtype)])
    else:
        # The 2-norm is at most the geometric mean of the 1-norm and the infinity norm, which
        # neither overflows nor underflows.
        with np.errstate(over="ignore"):
            rows, columns = (float(np.abs(P).sum(axis=a).max(initial=0.0)) for a in (0, 1))
        norm = min(safe_norm(P), rows**0.5 * columns**0.5)
        return np.full(n, PRODUCT_ERROR_EPS * float(np.finfo(dtype).eps) * norm)
    if not (bounds >= 0).all():
        raise ValueError(
            f"error bounds of the operator must be >= 0, got {bounds[~(bounds >= 0)][0]:g}."
        )
    return bounds


def _symmetric_matrix_of(op: OperatorLike) -> Floats:
    """Return the symmetric part of the matrix (n, n) of an operator. At a kink, each entry uses the
    same one-sided derivative as products with the operator.
    """
    P = matrix_of(op)[0].astype(np.float64, copy=False)
    if not np.isfinite(P).all():
        raise NotFiniteError(NOT_FINITE_MESSAGE)
    return matrix_midpoint(P, P.T)


@with_nearest_rounding
def eigvalsh(op: OperatorLike) -> Floats:
    """Compute all eigenvalues of a symmetric operator, ascending, from its matrix.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        The real symmetric operator. The cost is n products (or, for a network's Hessian or GGN, a
        sum over rows), memory for n^2 numbers, and about ``4/3 n^3`` flops in float64. For a GGN or
        Fisher with fewer outputs, of all samples, than parameters, n is the number of outputs, and
        no products are needed.

    Returns
    -------
    ndarray, shape (n,)
        The eigenvalues in float64, each accurate to about ``n eps ||op||``. `inertia` proves a
        bound.

    Raises
    ------
    ValueError
        If a product is not finite, or n is above 30 000.
    numpy.linalg.LinAlgError
        If all of LAPACK's drivers failed.

    See Also
    --------
    inertia : the signs that are certain, with a proved error.
    fastcurv.eigsh : a few eigenvalues, from products alone.

    Examples
    --------
    >>> import numpy as np
    >>> eigvalsh(np.array([[0.0, -2.0], [-2.0, 0.0]]))
    array([-2.,  2.])
    """
    op = check_symmetric_operator(op)
    gram = gram_matrix(op)
    if gram is not None:
        return gram.all_eigenvalues(every_eigenvalue(gram.K))
    return every_eigenvalue(_symmetric_matrix_of(op))


@with_nearest_rounding
def inertia(op: OperatorLike) -> Inertia:
    """Count the positive and the negative eigenvalues of a symmetric operator, and those that are
    zero within a proved error bound, from its matrix.

    By Weyl's theorem the error of each computed eigenvalue is at most the norm of the sum of all
    errors. These are the rounding errors of the products, the asymmetry of the products, ``||A -
    A'||``, and the error of the eigensolver, which is proved from the computed eigenvectors. The
    rounding errors are bounded by ``op.rounding_bound(e_j)``; if the operator does not have this
    method, 64 eps ``||op||`` is assumed for each column. A matrix is taken
    as exact.

    Parameters
    ----------
    op : LinearOperator, ndarray or sparse matrix, shape (n, n)
        The real symmetric operator, of any scale. The cost is n products, memory for 2 n^2 numbers
        and about ``13 n^3`` flops.

    Returns
    -------
    Inertia
        The three counts, the eigenvalues and bounds on their errors. The result unpacks into
        ``n_positive, n_negative, n_zero``.

    Raises
    ------
    ValueError
        If a product is not finite, or n is above 30 000.
    numpy.linalg.LinAlgError
        If all of LAPACK's drivers failed.

    See Also
    --------
    eigvalsh : the eigenvalues alone.
    classify : the kind of critical point that the signs imply.

    Examples
    --------
    >>> import numpy as np
    >>> n_positive, n_negative, n_zero = inertia(np.diag([3.0, 1.0, 0.0, -1.0]))
    >>> n_positive, n_negative, n_zero
    (2, 1, 1)
    """
    matrix = dense_matrix(op)
    values, _, errors = matrix.eigensystem()
    n_positive = int((values > errors).sum())
    n_negative = int((values < -errors).sum())
    return Inertia(
        n_positive=n_positive,
        n_negative=n_negative,
        n_zero=len(values) - n_positive - n_negative,
        error_bound=float(errors.max(initial=0.0)),
        values=values,
        errors=errors,
        n_products=matrix.n_products,
    )
