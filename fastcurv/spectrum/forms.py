"""The choice of the form in which an operator is used: products with the operator, its matrix, or a
smaller operator, its reduction (see `Reduction` in `fastcurv.common.protocols`). The choice rests
on the estimated time of each form on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..common.checks import (
    L2_CACHE_MAX_ENTRIES,
    MatrixOperator,
    check_choice,
    checked_product,
    operator_dtype,
)
from ..common.protocols import SPACE_NAMES, Floats, Reduction
from ..common.runtime import raise_if_out_of_time

# number of columns of the identity multiplied at a time; all columns at once take up to 1.1 times
# the CPU, and the time is checked between blocks
IDENTITY_BLOCK_COLUMNS = 128
MAX_DENSE_ROWS = 30_000  # maximum number of rows of a matrix that is formed
# maximum number of rows n for which a decomposition is assumed to take no longer than n products
QUICK_DENSE_MAX_N = 1000
# maximum number of rows for which a decomposition is assumed to take no longer than a few products
SEARCH_ALWAYS_DENSE_MAX_N = 64
# number of products assumed for a run of unknown length when its space is chosen
N_TYPICAL_RUN_PRODUCTS = 60
SEARCH_OVERHEAD_SECONDS = 1.5e-4  # estimated seconds of a search, without its products
STEP_OVERHEAD_SECONDS = 3e-6  # estimated seconds of a step, without its product
# estimated seconds for a few eigenpairs of an n x n matrix: coefficients of 1, n, n^2 and n^3
PAIRS_COST_SECONDS = (45e-6, 1e-6, 2e-8, 1.2e-10)
# estimated seconds of a product for each entry of a matrix that fits into an L2 cache
SECONDS_PER_ENTRY = 1e-10


class OperatorForm(NamedTuple):
    """A representation of an operator with its estimated cost.

    Attributes
    ----------
    kind : str
        ``"products"`` if the operator itself is used, ``"matrix"`` if its matrix is decomposed,
        ``"summed"`` if its matrix is used as an operator, or the name of the space of a smaller
        operator.
    price : float
        Estimated seconds for the whole computation, infinite if unknown.
    product : float
        Estimated seconds for each product.
    make : callable
        Function that returns the operator to be used, or None if this operator cannot be formed.
        For ``"matrix"`` it returns the result of `matrix_of`.
    """

    kind: str
    price: float
    product: float
    make: Callable[[], Any]


def choose_representation(
    op: Any,
    products: float,
    space: str | None = None,
    *,
    matrix: bool = True,
    summed: bool = False,
    step: float = STEP_OVERHEAD_SECONDS,
) -> OperatorForm:
    """Return the `OperatorForm` of an operator in which a computation is estimated to take the
    least time.

    A reduction is preferred to all other forms if a run of `N_TYPICAL_RUN_PRODUCTS` products
    takes less time with it. The estimates come from ``op.estimated_seconds``. If the operator does
    not have this attribute, a matrix is formed only for at most `SEARCH_ALWAYS_DENSE_MAX_N` rows.

    Parameters
    ----------
    op : LinearOperator
        The operator.
    products : float
        Number of products that the computation needs.
    space : {"samples", "outputs", "inputs", "parameters"}, optional
        The space of the computation; by default the one that takes the least time.
    matrix : bool
        True if the matrix may be decomposed instead.
    summed : bool
        True if products with a matrix that the operator sums over rows may be used.
    step : float
        Seconds of vector operations for each product.
    """
    form = reduction_form(op, space)
    if form is not None:
        return form
    return cheapest_form(op, products, matrix=matrix, summed=summed, step=step)


def cheapest_form(
    op: Any,
    products: float,
    *,
    matrix: bool = True,
    summed: bool = False,
    step: float = STEP_OVERHEAD_SECONDS,
) -> OperatorForm:
    """Return the `OperatorForm` of an operator in its own space that takes the least time. The
    arguments are those of `choose_representation`.
    """
    n = op.shape[0]
    each, summing = _estimated_seconds(op)
    forms = [
        OperatorForm(
            "products", SEARCH_OVERHEAD_SECONDS + products * (each + step), each, lambda: op
        )
    ]
    if summed and n**2 <= L2_CACHE_MAX_ENTRIES:
        entry = SECONDS_PER_ENTRY * n**2
        total = SEARCH_OVERHEAD_SECONDS + summing + products * (entry + step)
        forms.append(OperatorForm("summed", total, entry, lambda: _summed_matrix_operator(op)))
    if matrix and n <= QUICK_DENSE_MAX_N:
        making = min(summing, n * each) if each < np.inf or n > SEARCH_ALWAYS_DENSE_MAX_N else 0.0
        pairs = sum(cost * n**power for power, cost in enumerate(PAIRS_COST_SECONDS))
        forms.append(OperatorForm("matrix", making + pairs, 0.0, lambda: matrix_of(op)))
    return min(forms, key=lambda form: form.price)


def reduction_form(op: Any, space: str | None) -> OperatorForm | None:
    """Return the `OperatorForm` of a reduction in the given space, or None if `op` itself is used.

    If `space` is None, the space is the one in which a run of `N_TYPICAL_RUN_PRODUCTS` products
    takes the least time. Raise ValueError if the operator has no form in the given space.
    """
    if space is not None:
        check_choice(space, SPACE_NAMES, "space")
    if space == "parameters":
        return None
    if space is None and hasattr(op, "reduction_forms"):
        each = _estimated_seconds(op)[0]
        full_form = OperatorForm("products", N_TYPICAL_RUN_PRODUCTS * each, each, lambda: None)
        best = min(
            [*op.reduction_forms(N_TYPICAL_RUN_PRODUCTS), full_form], key=lambda form: form.price
        )
        reduction = best.make()
        return None if reduction is None else best._replace(make=lambda: reduction)
    reduction = op.reduced(space) if hasattr(op, "reduced") else None
    if reduction is not None:
        return OperatorForm(reduction.space, np.inf, np.inf, lambda: reduction)
    if space is None:
        return None
    raise ValueError(
        f"space must be 'parameters' for an operator of type {type(op).__name__}, which has no "
        f"other form, got {space!r}."
    )


def choose_reduction(op: Any, space: str | None) -> Reduction | None:
    """Return the reduction in which Krylov methods run, or None if `op` itself is used.
    `space` is described in `choose_representation`.
    """
    form = reduction_form(op, space)
    reduction: Reduction | None = None if form is None else form.make()
    return reduction


def dense_reduction(op: Any, space: str | None) -> Any:
    """Return the reduction whose matrix is used instead of the matrix of `op`, or None if there is
    none.

    If `space` is given, it selects the operator. Otherwise the operator is `op.gram_operator()` if
    this is available, or else a reduction of at most `MAX_DENSE_ROWS` rows if `op` has more
    rows than that.
    """
    if space is not None:
        return choose_reduction(op, space)
    reduction: Any = op.gram_operator() if hasattr(op, "gram_operator") else None
    if reduction is not None or op.shape[0] <= MAX_DENSE_ROWS:
        return reduction
    reduction = choose_reduction(op, None)
    return reduction if reduction is not None and reduction.shape[0] <= MAX_DENSE_ROWS else None


def _estimated_seconds(op: Any) -> tuple[float, float]:
    """Return an operator's own estimates of the time in seconds of a product, and of summing its
    matrix over rows. Both are infinite if the operator has no estimates.
    """
    seconds: tuple[float, float] = getattr(op, "estimated_seconds", (np.inf, np.inf))
    return seconds


# --------------------------------------------------------------------------------------------------
# The matrix of an operator.


def matrix_of(op: Any) -> tuple[NDArray[Any], int]:
    """Return the matrix (n, n) of an operator, not symmetrised, and the number of products used.
    The matrix is computed by products or by summing over rows, whichever is estimated to be faster.
    """
    summed = summed_matrix(op)
    return (summed, 0) if summed is not None else matrix_by_products(op)


def summed_matrix(op: Any) -> Floats | None:
    """Return the matrix (n, n) of an operator that sums its matrix over rows. Return None if this
    is not possible or is estimated to take longer than n products.
    """
    each, summing = _estimated_seconds(op)
    if not summing < op.shape[0] * each:
        return None
    matrix: Floats | None = op.summed_matrix()
    return matrix


def _summed_matrix_operator(op: Any) -> MatrixOperator | None:
    A = summed_matrix(op)
    return None if A is None else MatrixOperator(A.astype(operator_dtype(op), copy=False), True)


def matrix_by_products(op: Any) -> tuple[NDArray[Any], int]:
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
