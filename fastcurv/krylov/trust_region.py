"""A Krylov space that grows one product at a time, and the subproblems of Newton-type steps in it.

Every Newton-type step of this library is a step ``s = Q' y`` in the space spanned by the rows of Q:
the gradient g and its products with H. The methods differ only in the small problem that determines
y. Because the basis is kept, a problem with another radius, damping or weight is solved again
without any product.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from ..common.linalg import svd
from ..common.protocols import Floats
from ..common.vectors import KrylovSpace, log_polynomial_growth, solve_subproblem
from .lanczos import Recurrence, overflow_safe_norm, ritz_decomposition

# --------------------------------------------------------------------------------------------------
# Subproblems of Newton-type steps, in the eigenvectors of a projected Hessian: trust regions, cubic
# regularisation, shifts and absolute values.
#
# Each function takes the eigenvalues `values` of T and the coefficients `linear` of the gradient in
# the eigenvectors of T, and returns y in the basis of these eigenvectors.


def shifted_solve(values: np.ndarray, linear: np.ndarray, shift: float) -> np.ndarray:
    """Return ``-(T + shift I)^+ linear``, with the pseudoinverse of a matrix T whose eigenvalues
    are `values`. The result is 0 in directions whose shifted curvature is 0 up to rounding.
    """
    return solve_subproblem("shifted", values, linear, shift)[0]


def damped_inverse(values: np.ndarray, damping: float, floor: float) -> np.ndarray:
    """Return ``values / (values^2 + damping^2)`` entry by entry. The result is 0 for values of
    magnitude at most `floor`.
    """
    sure = np.abs(values) > floor
    safe = np.where(sure, values, 1.0)
    # The expression avoids squares, which may overflow or underflow.
    return np.asarray(sure / (safe + damping * (damping / safe)))


def absolute_value_step(values: np.ndarray, linear: np.ndarray, damping: float) -> np.ndarray:
    """Return ``-(|T| + damping I)^-1 linear``, a descent step along every eigenvector of T. With
    ``damping=0`` the step has the length of Newton's step along each eigenvector.
    """
    return solve_subproblem("absolute", values, linear, damping)[0]


def solve_trust_region(
    values: np.ndarray, linear: np.ndarray, radius: float
) -> tuple[np.ndarray, float]:
    """Minimise ``linear'y + y' diag(values) y / 2`` over ``||y|| <= radius``.

    Return y and the multiplier lam >= 0, with ``(values + lam) y = -linear`` and ``values + lam >=
    0``. In the hard case a multiple of the lowest eigenvector is added such that ``||y|| =
    radius``.
    """
    return solve_subproblem("trust-region", values, linear, radius)


# --------------------------------------------------------------------------------------------------
# The Krylov space, which the engine grows. The functions below select the row that it multiplies
# next, and read its projection. With E = T[m:m+p, :m],
#
#     H Q' y = Q[:m]' T y + Q[m:m+p]' (E y)
#
# so ``||E y||`` is the part of the residual of any solution that lies outside the first m rows.


def new_krylov_space(n: int, dtype: DTypeLike, max_dim: int) -> KrylovSpace:
    """Return an empty Krylov space of vectors (n,) in a dtype, with at most `max_dim` rows."""
    return KrylovSpace(n, dtype, max_dim, select_pending_row)


def select_pending_row(space: KrylovSpace) -> None:
    """Move the row that is multiplied next to the front of the pending rows. It is the residual
    direction of the last solution if this is known, or else the newest row of the chain that
    started from that direction, or else the row with the largest coupling.
    """
    m = space.m
    pending = slice(m, m + space.p)
    if space.residual_coordinates is not None and np.any(space.residual_coordinates):
        reflect_pending_rows(space, space.residual_coordinates)
        space.has_multiplied_residual = True
    elif space.has_multiplied_residual:
        swap_pending_row(space, m + space.p - 1)
    else:
        couplings = np.linalg.norm(space.T[pending, :m], axis=1)
        swap_pending_row(space, m + int(np.argmax(couplings)))
    space.residual_coordinates = None


def reflect_pending_rows(space: KrylovSpace, lacking: Floats) -> None:
    """Apply a Householder reflection to the pending rows (p, n) such that the first row becomes a
    multiple of ``lacking' rows``, for `lacking` (p,).
    """
    m = space.m
    pending = slice(m, m + space.p)
    u = lacking / np.linalg.norm(lacking)
    u[0] += np.copysign(1.0, u[0])
    u *= np.sqrt(2.0) / np.linalg.norm(u)
    rows = space.rows[pending]
    rows -= np.multiply.outer(u, u @ rows).astype(space.dtype, copy=False)
    block = space.T[pending, :m]
    block -= np.multiply.outer(u, u @ block)


def swap_pending_row(space: KrylovSpace, chosen: int) -> None:
    """Swap the first pending row with the row `chosen`, in the basis and in the rows of T. `extend`
    sets the column of a row once the row is multiplied.
    """
    m = space.m
    if chosen == m:
        return
    for array in (space.rows, space.T):
        array[[m, chosen]] = array[[chosen, m]]


def product_coefficients(space: KrylovSpace) -> Floats:
    """Return the coefficients (m + p, m) of the products with the first m rows in all rows."""
    return space.T[: space.m + space.p, : space.m]


def lowest_ritz_pair(space: KrylovSpace) -> tuple[float, float, Floats]:
    """Return the triple of the lowest Ritz value, the norm of its residual, and the coefficients
    (m,) of its Ritz vector in the rows of the basis.
    """
    values, vectors = space.ritz_pairs()
    u = vectors[:, 0]
    return float(values[0]), overflow_safe_norm(product_coefficients(space)[space.m :] @ u), u


def least_residual_step(
    space: KrylovSpace, gamma: float, damping: float = 0.0
) -> tuple[Floats, Floats]:
    """Return the y (m,) of least norm that minimises ``||H Q' y + g||^2 + damping^2 ||y||^2``, with
    the gradient ``g = gamma Q[0]``, and the residual ``H Q' y + g``.

    The residual (m + p,) is expressed in the multiplied and pending rows of the space. The cost is
    one singular value decomposition of the projected matrix, without products.
    """
    tall = product_coefficients(space)
    W, s, Vt = svd(tall)
    y = -(Vt.T @ (gamma * W[0] * damped_inverse(s, damping, 1e-12 * s[0])))
    residual = tall @ y
    residual[0] += gamma
    return y, residual


# --------------------------------------------------------------------------------------------------
# The probability that Lanczos from a random start misses an extreme eigenvalue.


def lanczos_miss_probability(n: int, k: int, eps: float) -> float:
    """Return an upper bound on the probability that k Lanczos steps from a random start in n
    dimensions miss an end of the spectrum by more than eps times the width of the spectrum. The
    bound is 0 if k >= n.

    It is ``1.648 sqrt(n) exp(-(2k - 1) sqrt(eps))``, but at most 1; see Kuczynski and Wozniakowski,
    SIAM J. Matrix Anal. Appl. 13, 1992.

    Examples
    --------
    >>> lanczos_miss_probability(100_000, 544, 1e-4) <= 0.01
    True
    """
    return (
        min(1.0, float(1.648 * np.sqrt(n) * np.exp(-(2 * k - 1) * np.sqrt(eps)))) if k < n else 0.0
    )


def lanczos_steps(n: int, eps: float, risk: float) -> int:
    """Return the smallest number of steps for which `lanczos_miss_probability` is at most `risk`.

    Examples
    --------
    >>> lanczos_steps(100_000, 1e-4, 0.01)
    544
    """
    k = 0.5 * (1 + np.log(1.648 * np.sqrt(n) / risk) / np.sqrt(eps))
    return int(min(n, max(1, np.ceil(k))))


def exhausted_miss_probability(run: Recurrence, n: int, eps: float) -> float:
    """Return an upper bound on the probability that a `Recurrence` from a random start, whose
    Krylov space is exhausted, has missed an eigenvalue more than ``eps run.scale`` outside the
    interval of its Ritz values. Return 0 if the basis has all dimensions.

    A space is exhausted if the component of the last product outside it consists of rounding
    errors. An eigenvector of a missed eigenvalue is then almost orthogonal to the start.
    `fastcurv.common.vectors.log_polynomial_growth` gives the bound, with the size of these rounding
    errors as the last off-diagonal entry.
    """
    if run.m >= run.dimension or not run.scale > 0:
        return 0.0
    values, _ = ritz_decomposition(run)
    T = run.T[: run.m, : run.m]
    far = eps * run.scale
    beside = np.append(np.diag(T, 1), max(run.err[run.m - 1], 1e-290))
    seen = log_polynomial_growth(
        np.append(np.diag(T), 0.0), beside, [values[0] - far, values[-1] + far]
    )
    return min(1.0, float(np.exp(0.5 * (math.log(2 * n / math.pi) - seen)).sum()))


def max_log_growth(n: int, risk: float) -> float:
    """Return the value of `fastcurv.common.vectors.log_polynomial_growth` at which a run with a
    random start in n dimensions misses an existing eigenvector with probability at most `risk`.

    The component of a random unit vector along a given unit vector is at most x in magnitude with
    probability at most ``x sqrt(2 n / pi)``.

    Examples
    --------
    >>> round(max_log_growth(1000, 0.05), 2)
    12.45
    """
    return math.log(2 * n / math.pi) - 2 * math.log(risk)
