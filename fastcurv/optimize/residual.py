"""The minimum-residual steps of Newton-MR, and the line search on the norm of the gradient.

A step is the p of least norm that minimises ``||H p + g||^2 + (damping ||H||)^2 ||p||^2``. It is
computed from all eigenpairs if n is small, and otherwise in the Krylov space of g, as in MINRES-QLP
[2]_. The line search tries the steps of all dampings and keeps the one that lowers ``||g||`` most
[1]_.

References
----------
.. [1] F. Roosta, Y. Liu, P. Xu and M. W. Mahoney, Newton-MR: inexact Newton method with minimum
       residual sub-problem solver, EURO J. Comput. Optim. 10, 2022.
.. [2] S.-C. T. Choi, C. C. Paige and M. A. Saunders, MINRES-QLP, SIAM J. Sci. Comput. 33, 2011.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..common.linalg import NotFiniteError, eigh
from ..common.vectors import KrylovSpace, safe_norm
from ..krylov.trust_region import damped_inverse, least_residual_step, product_coefficients

# dampings that are tried, in units of ||H||; each reduces the components of curvature below it
TRIAL_DAMPINGS = (0.0, 1e-7, 1e-4, 1e-2, 0.1, 1.0)
ARMIJO_FRACTION = 1e-4
# |eigenvalue| relative to ||H|| up to which a dense step treats it as 0: above its rounding error
# for the n < 400 of such steps
MIN_EIGENVALUE_RATIO = 1e-13


@dataclass(frozen=True)
class NewtonMRSteps:
    """The Newton-MR steps p for all dampings, smallest damping first, and the slopes ``p'Hg /
    ||g||^2`` of the gradient norm along them.

    `norm` is ||H||, or NaN if ||H|| is unknown because the Hessian could not be decomposed.
    """

    vectors: list[np.ndarray] = field(default_factory=list)
    slopes: list[float] = field(default_factory=list)
    norm: float = float("nan")


def dense_newton_mr_steps(A: np.ndarray, g: np.ndarray) -> NewtonMRSteps:
    """Return the Newton-MR steps for the gradient g, from all eigenpairs of the Hessian A. If A is
    0 or cannot be decomposed, the result holds no steps.
    """
    try:
        values, U, _ = eigh(A)
    except (np.linalg.LinAlgError, NotFiniteError):
        return NewtonMRSteps()
    norm = float(np.abs(values).max(initial=0.0))
    if not 0 < norm < np.inf:
        return NewtonMRSteps(norm=norm if norm == 0 else float("nan"))
    c = U.T @ g
    unit = c / (safe_norm(g) or 1.0)
    weights = [
        damped_inverse(values, share * norm, MIN_EIGENVALUE_RATIO * norm)
        for share in TRIAL_DAMPINGS
    ]
    return NewtonMRSteps(
        [-(U @ (w * c)) for w in weights],
        [-float((w * values * unit) @ unit) for w in weights],
        norm,
    )


def krylov_newton_mr_steps(space: KrylovSpace) -> NewtonMRSteps:
    """Return the Newton-MR steps in a Krylov space grown from the gradient. If H is 0 or not finite
    in this space, the result holds no steps.
    """
    if space.m == 0:
        return NewtonMRSteps(norm=0.0)
    norm = float(np.abs(space.ritz_pairs()[0]).max())
    if not 0 < norm < np.inf:
        return NewtonMRSteps(norm=norm if norm == 0 else float("nan"))
    solutions = [
        least_residual_step(space, space.gamma, share * norm)[0] for share in TRIAL_DAMPINGS
    ]
    first = space.T[0, : space.m]
    nonzero_solutions = [y for y in solutions if y.any()]
    return NewtonMRSteps(
        [space.combine(y).astype(np.float64) for y in nonzero_solutions],
        [float(first @ (y / space.gamma)) for y in nonzero_solutions],
        norm,
    )


def extend_krylov_space(
    space: KrylovSpace, tolerance: float, limit: int, stop: Callable[[], bool]
) -> None:
    """Extend a Krylov space of g until the least residual is at most ``tolerance ||g||`` or cannot
    be reduced further, the dimension reaches `limit`, or ``stop()`` returns True.

    No further reduction is possible if ``||H r|| <= tolerance ||H|| ||r||`` for the last residual
    r. H r needs no product, because r is a combination of vectors whose products with H are known.
    """
    look_at = 1
    last = np.zeros(0)
    while True:
        while space.m < look_at and not space.exhausted and not (space.m and stop()):
            space.extend()
        if space.m == 0:
            return
        _, residual = least_residual_step(space, space.gamma)
        size = float(np.linalg.norm(residual))
        norm = float(np.abs(space.ritz_pairs()[0]).max())
        if len(last) and len(last) <= space.m:
            tall = product_coefficients(space)[:, : len(last)]
            if np.linalg.norm(tall @ last) <= tolerance * norm * np.linalg.norm(last):
                return
        if size <= tolerance * space.gamma or space.exhausted or space.m >= limit or stop():
            return
        last = residual
        look_at = min(space.m + space.p + space.m // 8, limit)


def reduce_gradient_norm(
    gradient: Callable[[np.ndarray], np.ndarray],
    theta: np.ndarray,
    size: float,
    steps: NewtonMRSteps,
    lengths: int = 20,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the point and the gradient at the first step length that lowers ``||g||`` enough, or
    None if no length does. `size` is ``||g||`` at theta, and up to `lengths` step lengths 1, 1/4,
    1/16, ... are tried.

    All steps are shortened together. Of the steps that satisfy the condition at the first such
    length, the one with the smallest gradient is used.
    """
    alpha = 1.0
    for _ in range(lengths if size > 0 else 0):
        best = None
        for p, slope in zip(steps.vectors, steps.slopes):
            point = theta + (alpha * p).astype(theta.dtype)
            g = gradient(point)
            ratio = safe_norm(g) / size if np.isfinite(g).all() else np.inf
            square = ratio * ratio
            if square <= 1 + 2 * ARMIJO_FRACTION * alpha * slope and (
                best is None or square < best[0]
            ):
                best = square, point, g
        if best is not None:
            return best[1:]
        alpha /= 4
    return None
