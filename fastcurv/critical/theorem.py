"""The theorem of Newton and Kantorovich, which proves certified verdicts, for arrays with error
bounds.

At theta let ``||H^-1|| <= beta``, ``||H^-1 g|| <= eta``, and let H be Lipschitz with constant L on
the ball of radius ``2 eta``. If ``h = beta L eta < 1/2``, there is exactly one critical point
within ``r = 2 eta / (1 + sqrt(1 - 2 h))``. Since ``L r < 1/beta``, every eigenvalue of H has the
same sign at theta and at this critical point (Weyl) [1]_ [2]_.

The functions do not depend on an objective: L is passed as a function of the radius, and all other
quantities are passed as arrays with bounds on their errors.

References
----------
.. [1] L. V. Kantorovich, Functional analysis and applied mathematics, Uspekhi Mat. Nauk 3, 1948.
.. [2] J. M. Ortega and W. C. Rheinboldt, Iterative Solution of Nonlinear Equations in Several
       Variables, 1970, 12.6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..common.linalg import svdvals
from ..common.protocols import Floats
from ..common.vectors import safe_norm

EPS = float(np.finfo(float).eps)
MIN_NORMAL = float(np.finfo(float).tiny)
SCALAR_ROUND_UP_FACTOR = (
    1 + 64 * EPS
)  # factor by which upper bounds are enlarged for a few roundings
# If the radius computed from the Lipschitz constant at theta exceeds this, the constant is 0 up to
# underflow.
MAX_RADIUS = 1e100


@dataclass(frozen=True)
class KantorovichOutcome:
    """The outcome of Kantorovich's theorem, with its constants.

    Attributes
    ----------
    holds : bool
        True if all hypotheses hold.
    radius : float
        Radius of the ball around theta that contains the zero, or infinity if the theorem does not
        hold.
    h : float
        ``beta L eta``, which must be below 1/2.
    beta, eta, third_bound : float
        The bounds beta on ``||H^-1||`` and eta on the length of Newton's step, and the Lipschitz
        constant L.
    missing_hypothesis : str
        The first hypothesis that fails, or "" if all hold. "inverse", "step" and "third" mean that
        beta, eta or L is not finite, "h" that h is at least 1/2, and "orbit" that a symmetry is not
        proved on the ball.
    """

    holds: bool
    radius: float
    h: float
    beta: float
    eta: float
    third_bound: float
    missing_hypothesis: str = ""


def check_kantorovich(
    beta: float, eta: float, third: Callable[[float], float]
) -> KantorovichOutcome:
    """Return the `KantorovichOutcome` for a bound `beta` on ``||H^-1||`` and a bound `eta` on the
    length of Newton's step at theta. ``third(radius)`` is a Lipschitz constant of H on the ball of
    radius `radius` around theta.

    Examples
    --------
    >>> check_kantorovich(1.0, 0.1, lambda r: 2.0).holds
    True
    >>> check_kantorovich(1.0, 0.3, lambda r: 2.0).missing_hypothesis
    'h'
    """

    def failed_outcome(missing: str, L: float = np.inf, h: float = np.inf) -> KantorovichOutcome:
        return KantorovichOutcome(False, np.inf, h, beta, eta, L, missing)

    if not 0 < beta < np.inf:
        return failed_outcome("inverse")
    if not 0 <= eta < np.inf:
        return failed_outcome("step")
    # The bound is taken on a ball, because at a kink H at theta describes one side only.
    L = float(third(max(2 * eta * SCALAR_ROUND_UP_FACTOR, MIN_NORMAL)))
    if not 0 <= L < np.inf:
        return failed_outcome("third", L)
    h = beta * eta * L * SCALAR_ROUND_UP_FACTOR
    if not h < 0.5:
        return failed_outcome("h", L, h)
    return KantorovichOutcome(
        True, 2 * eta / (1 + (1 - 2 * h) ** 0.5) * SCALAR_ROUND_UP_FACTOR, h, beta, eta, L
    )


def eta_bound(length: float, beta: float, off: float) -> float:
    """Return a bound on the length of Newton's exact step, ``length + beta off`` up to rounding.
    The computed step has length `length` and leaves a gradient of norm at most `off`. The bound is
    0 only if both numbers are 0, even after underflow.

    Examples
    --------
    >>> eta_bound(0.0, 1e-200, 1e-200) > 0, eta_bound(0.0, 1.0, 0.0)
    (True, 0.0)
    """
    return length + beta * off + (MIN_NORMAL if length > 0 or off > 0 else 0.0)


@dataclass(frozen=True, eq=False)
class ComplementEigenpairs:
    """The Hessian A restricted to the complement of a span. It is represented by the eigenpairs of
    ``Z' C A C Z``, with ``C = diag(c)`` and an orthonormal basis Z of the complement.

    Attributes
    ----------
    values : ndarray, shape (m,)
        Eigenvalues in ascending order.
    vectors : ndarray, shape (n, m)
        Eigenvectors as columns u in scaled coordinates. The direction in theta is ``c * u``.
    error : float
        Bound on the errors of `values`, which includes the error of A. If ``min |values| > error``,
        the exact eigenvalues have the signs of `values`, and magnitudes of at least ``min |values|
        - error``. Otherwise each exact eigenvalue lies within `error` of the computed one.
    ends : float
        An exact eigenvalue lies within `ends` of the smallest of `values`, and another one within
        `ends` of the largest.
    c : ndarray, shape (n,)
        Scale factors of the parameters.
    span : ndarray, shape (n, s)
        Orthonormal basis, in scaled coordinates, of the directions that were projected out.
    """

    values: Floats
    vectors: Floats
    error: float
    c: Floats
    span: Floats
    ends: float = np.inf

    @property
    def min_abs_eigenvalue_bound(self) -> float:
        """A lower bound on the magnitudes of all eigenvalues. It is negative if an eigenvalue may
        be 0.
        """
        return float(np.abs(self.values).min(initial=np.inf)) - self.error

    def project_off_span(self, x: Floats) -> Floats:
        """Return x (n,), in scaled coordinates, minus its projection onto `span`."""
        return x - self.span @ (self.span.T @ x)


def newton_step_in_slice(
    A: Floats, A_error: float, cut: ComplementEigenpairs, g: Floats, g_error: float
) -> tuple[float, float, Floats]:
    """Return the triple of beta and eta of the theorem and Newton's step x, for the objective
    restricted to theta plus the span of the eigenvectors in `cut`.

    Parameters
    ----------
    A : ndarray, shape (n, n)
        The Hessian.
    A_error : float
        Bound on the norm of the error of ``C A C``.
    cut : ComplementEigenpairs
        The restriction of A.
    g : ndarray, shape (n,)
        The gradient.
    g_error : float
        Bound on the norm of the error of ``C g``.

    Returns
    -------
    beta, eta : float
        The constants in scaled coordinates, infinite if an eigenvalue may be 0.
    x : ndarray, shape (n,)
        Newton's step in the coordinates of theta.
    """
    n = len(A)
    if not cut.values.size:
        return 1.0, 0.0, np.zeros(n)
    scaled = cut.project_off_span(cut.c * g)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        weights = np.where(cut.values != 0, 1 / cut.values, 0.0)
        x = -(cut.vectors @ (weights * (cut.vectors.T @ scaled)))
        residual = cut.project_off_span(cut.c * (g + A @ (cut.c * x)))
        size = safe_norm(scaled)
        length = safe_norm(x)
        rounding = (2 * n + 16) * EPS * (safe_norm(cut.c[:, None] * A * cut.c) * length + size)
        off = safe_norm(residual) + g_error + A_error * length + rounding
        if not cut.min_abs_eigenvalue_bound > 0:
            return np.inf, np.inf, cut.c * x
        s = cut.span.shape[1]  # the eigenvectors are orthonormal only up to rounding
        up = SCALAR_ROUND_UP_FACTOR * (1 + 8 * n * (1 + s) * EPS)
        beta = up / cut.min_abs_eigenvalue_bound
        return beta, eta_bound(length, beta, off) * up, cut.c * x


def radius_of_opposite_signs(
    negative: float, positive: float, third: Callable[[float], float]
) -> float:
    """Return a radius around theta within which the curvatures along two fixed unit vectors u and v
    have opposite signs. No point within this radius is a minimum or a maximum. Return 0 if no such
    radius is found.

    Parameters
    ----------
    negative, positive : float
        An upper bound on ``u'Hu`` and a lower bound on ``v'Hv`` at theta.
    third : callable
        ``third(radius)`` is a Lipschitz constant of H on the ball of that radius.

    Examples
    --------
    >>> round(radius_of_opposite_signs(-1.0, 2.0, lambda r: 4.0), 6)
    0.25
    """
    margin = min(-negative, positive)
    if not (negative < 0 < positive and margin < np.inf):
        return 0.0
    L = float(third(0.0))
    if not 0 <= L < np.inf:
        return 0.0
    radius = margin / (L * SCALAR_ROUND_UP_FACTOR) if L > 0 else np.inf
    # If the Lipschitz constant is 0 at theta, but not everywhere, the search starts at radius 1.
    if radius > MAX_RADIUS and third(np.inf) != 0:
        radius = 1.0
    for _ in range(200):
        L = float(third(radius))
        if L == 0 or (np.isfinite(L) and L * radius < margin * SCALAR_ROUND_UP_FACTOR):
            return radius / SCALAR_ROUND_UP_FACTOR if radius < np.inf else np.inf
        radius *= max(0.05, min(0.7, 0.9 * margin / (L * radius))) if np.isfinite(L) else 0.5
    return 0.0


def spans_orbit(span: Floats, tangents: Floats, change: float, error: float, radius: float) -> bool:
    """Return True if the tangents of an orbit, projected onto the span of the orthonormal columns
    of `span` (n, s), s > 0, are proved to have rank s everywhere within `radius`.

    `tangents` (n, k) has an error of norm at most `error` and changes by at most `change` per unit
    length. If the result is True, every point of the complement at which the restricted gradient
    vanishes is a critical point, with s zero eigenvalues along its orbit.
    """
    if tangents.shape[1] < span.shape[1]:
        return False
    M = span.T @ tangents
    smallest = float(svdvals(M)[-1])
    rounding = (len(span) + sum(M.shape)) * EPS * safe_norm(tangents)
    moved = change * radius if change > 0 else 0.0
    return bool(smallest > (moved + error + rounding) * SCALAR_ROUND_UP_FACTOR)


def certify_residual_zero(
    J: Floats, J_error: float, residuals: Floats, off: float, third: Callable[[float], float]
) -> KantorovichOutcome:
    """Return the outcome of the theorem for m equations ``R = 0`` in n >= m unknowns. If it holds,
    a zero of R lies within the radius.

    The constants are ``beta = 1 / sigma_min(J)``, for J of full row rank, ``eta = beta ||R||``, and
    a Lipschitz constant L of J on the ball. Newton's steps stay in the row space of J at theta,
    where the theorem is that for square equations.

    Parameters
    ----------
    J : ndarray, shape (m, n)
        The Jacobian of R at theta.
    J_error : float
        Bound on the norm of the error of J.
    residuals : ndarray, shape (m,)
        R at theta.
    off : float
        Bound on the norm of the error of `residuals`.
    third : callable
        ``third(radius)`` is a Lipschitz constant of J on the ball of that radius.
    """
    values = svdvals(J)
    smallest = float(values[-1]) - J_error - sum(J.shape) * EPS * float(values[0])
    beta = SCALAR_ROUND_UP_FACTOR / smallest if smallest > 0 else np.inf
    return check_kantorovich(
        beta, beta * (safe_norm(residuals) + off) * SCALAR_ROUND_UP_FACTOR, third
    )
