"""What the functions of spectra read of an operator, once at their door, and its matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..common.checks import (
    MatrixOperator,
    check_symmetric_operator,
    checked_product,
    operator_dtype,
)
from ..common.protocols import Array, Floats, OperatorLike, capability
from ..common.runtime import raise_if_out_of_time

# number of columns of the identity multiplied at a time; all columns at once take up to 1.1 times
# the CPU, and the time is checked between blocks
IDENTITY_BLOCK_COLUMNS = 128
MAX_DENSE_ROWS = 30_000  # maximum number of rows of a matrix that is formed
# maximum number of rows n for which a decomposition is assumed to take no longer than n products
QUICK_DENSE_MAX_N = 1000
# maximum number of rows for which a decomposition is assumed to take no longer than a few products
ALWAYS_DENSE_MAX_N = 64


@dataclass(frozen=True, eq=False)
class Operand:
    """A checked symmetric operator with what it offers besides products.

    Attributes
    ----------
    op : LinearOperator
        The operator, of n rows and the given dtype.
    is_semidefinite : bool
        True for a GGN or Fisher, which has many eigenvalues near 0.
    quadratic_form, diagonal : callable or None
        The operator's own methods for ``v'Hv`` and for its exact diagonal.
    """

    op: OperatorLike
    n: int
    dtype: np.dtype
    is_semidefinite: bool
    quadratic_form: Callable[[Array], Array] | None

    @property
    def product_seconds(self) -> float:
        """Estimated seconds of a product, infinite if not known."""
        seconds = capability(self.op, "estimated_seconds")
        return np.inf if seconds is None else float(seconds())

    @property
    def diagonal(self) -> Callable[[], Floats] | None:
        return capability(self.op, "exact_diagonal")

    @property
    def diagonal_cost(self) -> float:
        """The cost of `diagonal` in products, infinite if there is none."""
        cost = capability(self.op, "diagonal_cost")
        return np.inf if cost is None else float(cost())

    def summed_matrix(self) -> Floats | None:
        """Return the matrix (n, n) as a sum over rows, or None if the operator has none."""
        summed = capability(self.op, "summed_matrix")
        return None if summed is None else summed()

    def is_matrix_faster(self, products: float) -> bool:
        """Return True if there are at most `ALWAYS_DENSE_MAX_N` rows, or if the matrix is summed
        over rows and there are at most `products` and `QUICK_DENSE_MAX_N` rows. Decomposing the
        matrix then takes less time than `products` products.
        """
        if self.n <= ALWAYS_DENSE_MAX_N:
            return True
        summed = capability(self.op, "has_summed_matrix")
        return bool(self.n <= min(products, QUICK_DENSE_MAX_N) and summed and summed())


def as_operand(op: OperatorLike) -> Operand:
    """Return the `Operand` of an operator, array or sparse matrix, after checking it."""
    op = check_symmetric_operator(op)
    return Operand(
        op,
        n=op.shape[0],
        dtype=operator_dtype(op),
        is_semidefinite=getattr(op, "kind", "hessian") != "hessian",
        quadratic_form=getattr(op, "quadratic_form", None),
    )


# --------------------------------------------------------------------------------------------------
# The matrix of an operator.


def matrix_of(op: OperatorLike) -> tuple[Array, int]:
    """Return the matrix (n, n) of an operator, not symmetrised, and the number of products used.
    The matrix is summed over rows by an operator that can, and otherwise computed by products.
    """
    sum_matrix = capability(op, "summed_matrix")
    summed = None if sum_matrix is None else sum_matrix()
    return (summed, 0) if summed is not None else matrix_by_products(op)


def matrix_by_products(op: OperatorLike) -> tuple[Array, int]:
    """Return the matrix (n, n) of an operator, computed by n products, and the number of products
    used. If the operator holds a matrix, return this matrix and 0. Raise ValueError if n exceeds
    `MAX_DENSE_ROWS`.
    """
    n = op.shape[0]
    if n > MAX_DENSE_ROWS:
        raise ValueError(
            f"the operator must have n <= {MAX_DENSE_ROWS} for its matrix, got n = {n}, which "
            f"would take {8e-9 * n * n:.0f} GB. Use spectral_density or eigsh, which need only "
            "products."
        )
    if isinstance(op, MatrixOperator):
        return op.to_dense(), 0
    dtype = operator_dtype(op)
    if n <= IDENTITY_BLOCK_COLUMNS:
        return checked_product(op, np.eye(n, dtype=dtype)), n
    A = np.empty((n, n), dtype)
    for start in range(0, n, IDENTITY_BLOCK_COLUMNS):
        raise_if_out_of_time()
        stop = min(start + IDENTITY_BLOCK_COLUMNS, n)
        columns = np.zeros((n, stop - start), dtype)
        columns[np.arange(start, stop), np.arange(stop - start)] = 1
        A[:, start:stop] = checked_product(op, columns)
    return A, n
