"""Linear solvers from products alone: capped conjugate gradients, which give a descent step or a
direction of negative curvature, and MINRES.

CG solves ``(H + 2 eps I) d = -g``. The solution is a Newton step if no negative curvature is found.
If an iterate or a direction has curvature below -eps, or the residual decreases more slowly than is
possible without such curvature, CG stops and returns a direction d with ``d'Hd <= -eps ||d||^2``.
If the gradient is 0, CG cannot start. `minimize` then searches for the lowest eigenvalue instead,
for every method that escapes from saddles.

References
----------
.. [1] C. W. Royer, M. O'Neill, S. J. Wright, A Newton-CG algorithm with complexity guarantees for
       smooth unconstrained optimization, Mathematical Programming 180 (2020), algorithms 1 and 3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..common.protocols import Array
from ..common.vectors import CGWorkspace, dot, norm


def capped_cg(
    multiply: Callable[[Array, Array], object],
    g: np.ndarray,
    eps: float,
    tolerance: float,
    work: CGWorkspace,
    *,
    bound: float = 0.0,
    max_iter: int | None = None,
    stop: Callable[[], bool] | None = None,
    cost_weight: float = 0.0,
    price: float = 0.0,
) -> tuple[np.ndarray, float | None, float]:
    """Run CG on ``(H + 2 eps I) d = -g`` until it has a solution or a direction of negative
    curvature.

    Parameters
    ----------
    multiply : callable
        ``multiply(v, out)`` writes the product H v to `out`. CG makes one product per iteration.
    g : ndarray, shape (n,)
        The gradient.
    eps : float
        CG ends with a direction of negative curvature if it finds curvature below ``-eps``.
    tolerance : float
        Tolerance of the residual, relative to ||g||.
    work : CGWorkspace
        Work vectors. The result d may be one of these vectors.
    bound : float
        A lower estimate of ||H||, increased if products show a larger norm.
    max_iter : int, optional
        Number of iterations after which CG returns the current iterate, which is a descent
        direction. Default: n.
    stop : callable, optional
        Function that is called without arguments. Once it returns True, CG returns the current
        iterate.
    cost_weight, price : float
        CG returns the current iterate once further products decrease the quadratic model too
        little. This is so if the decrease per product in the last products is below `cost_weight`
        times the average over all products so far, where the evaluation of the step counts as
        `price` products. With ``cost_weight=0`` CG does not end for this reason.

    Returns
    -------
    d : ndarray, shape (n,)
        An iterate, or a direction of negative curvature.
    curvature : float or None
        ``d'Hd / ||d||^2 <= -eps`` if d is a direction of negative curvature, None if d is an
        iterate.
    bound : float
        The lower estimate of ||H|| after the last product.
    """
    work.start(g)
    d, curvature, bound, steps = work.solve(
        multiply, eps, tolerance, bound, max_iter or len(g), stop, cost_weight, price
    )
    if d is None:
        return _negative_curvature_direction(multiply, g, eps, steps, work) + (bound,)
    return d, curvature, bound


def _negative_curvature_direction(
    multiply: Callable[[Array, Array], object],
    g: np.ndarray,
    eps: float,
    j: int,
    work: CGWorkspace,
) -> tuple[np.ndarray, float | None]:
    """Return a difference of two iterates with curvature below -eps, and its curvature. Return the
    last iterate and None if no such difference is found. CG is run again, with at most j products.
    """
    y = work.y
    r = work.r
    p = work.p
    Hp = work.Hp
    last_y = y.copy()
    last_r = r.copy()
    rr = work.start(g)
    lowest = np.inf
    direction = last_y
    for _ in range(j):
        d = last_y - y
        dd = dot(d, d)
        np.subtract(last_r, r, out=work.scratch)
        curvature = dot(d, work.scratch) / dd - 2.0 * eps if dd > 0 else np.inf
        if curvature < lowest:
            lowest = curvature
            direction = d
        if lowest < -eps:
            return direction, lowest
        multiply(p, Hp)
        pp, pHp, _ = work.direction_products()
        before = rr
        rr = work.move_along_direction(rr / (pHp + 2.0 * eps * pp), 2.0 * eps)[0]
        work.update_direction(rr / before)
    return last_y * g.dtype.type(1 / work.unit), None


# --------------------------------------------------------------------------------------------------
# MINRES for a symmetric system.


def minres(multiply: Callable[[Array], Array], b: Array, steps: int, tol: float) -> Array:
    """Return an approximate solution x (n,) of ``A x = b`` for symmetric A, computed by MINRES. It
    stops if the residual is at most ``tol ||b||``, or after `steps` products ``multiply(v)``. If no
    step is possible, return a copy of b.

    Only the residual is tested, because a small ``||A r||`` does not show convergence if A has far
    larger eigenvalues.

    References
    ----------
    .. [1] C. Paige and M. Saunders, Solution of sparse indefinite systems of linear equations, SIAM
           J. Numer. Anal. 12 (1975).
    """
    dtype = b.dtype.type
    beta = left = norm(b)
    goal = tol * left
    v = b / dtype(beta)
    before = np.zeros_like(b)
    x = np.zeros_like(b)
    w = np.zeros_like(b)
    w_before = np.zeros_like(b)
    c = c_before = 1.0
    s = s_before = beta = 0.0
    for _ in range(steps):
        p = multiply(v)
        alpha = float(v @ p)
        p -= dtype(alpha) * v
        p -= dtype(beta) * before
        following = norm(p)
        first = c * alpha - c_before * s * beta
        second = s * alpha + c_before * c * beta
        third = s_before * beta
        length = float(np.hypot(first, following))
        if length == 0 or not np.isfinite(length):
            break
        c_before = c
        s_before = s
        c = first / length
        s = following / length
        w_before, w = w, (v - dtype(third) * w_before - dtype(second) * w) / dtype(length)
        x += dtype(c * left) * w
        left *= -s
        if abs(left) <= goal or following == 0:
            break
        before = v
        v = p / dtype(following)
        beta = following
    return x if x.any() else b.copy()
