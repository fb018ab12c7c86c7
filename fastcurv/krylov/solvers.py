"""Linear solvers from products alone: capped conjugate gradients, which give a descent step or a
direction of negative curvature, and MINRES.

CG solves ``(H + 2 eps I) d = -g``. As long as no negative curvature is met this is a Newton step.
As soon as an iterate or a direction has curvature below -eps, or the residual falls more slowly
than is possible without such curvature, CG stops and returns a direction d with ``d'Hd <= -eps
||d||^2``. At a point of zero gradient a minimum-eigenvalue oracle takes over (in `minimize`, for
every method that leaves saddles).

References
----------
.. [1] C. W. Royer, M. O'Neill, S. J. Wright, A Newton-CG algorithm with complexity guarantees for
       smooth unconstrained optimization, Mathematical Programming 180 (2020), algorithms 1 and 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..common.protocols import Array
from ..common.vectors import Workspace, dot, norm


def unit_of(g: np.ndarray) -> float:
    """Return 1, or if the squares of g may overflow or underflow a power of two for which the
    largest entry of ``unit g`` is near 1: multiplying by it is exact.

    Examples
    --------
    >>> g = np.array([3e-200, -5e-200])
    >>> bool(0.5 <= np.abs(unit_of(g) * g).max() < 1), unit_of(np.array([3e-20]))
    (True, 1.0)
    """
    power = math.frexp(max(float(g.max()), -float(g.min())))[1]
    most = int(np.finfo(g.dtype).maxexp)
    return 1.0 if abs(power) < most // 4 else 2.0 ** -max(4 - most, min(most - 4, power))


def capped_cg(
    multiply: Any,
    g: np.ndarray,
    eps: float,
    tolerance: float,
    work: Workspace,
    *,
    bound: float = 0.0,
    max_iter: Any = None,
    stop: Any = None,
    worth: Any = None,
) -> tuple[np.ndarray, float | None, float]:
    """Run CG on ``(H + 2 eps I) d = -g`` until it has a solution or a direction of negative
    curvature.

    Parameters
    ----------
    multiply : callable
        ``multiply(v, out)`` writes H v; one product per iteration.
    g : ndarray, shape (n,)
    eps : float
        Curvature below ``-eps`` is reported.
    tolerance : float
        Tolerance of the residual, relative to ||g||.
    work : Workspace
        Work vectors; `d` is one of them.
    bound : float
        A lower estimate of ||H||, raised if products show a larger norm.
    max_iter : int, optional
        Number of iterations after which the current iterate is returned (it is a descent
        direction); n by default.
    stop : callable, optional
        Ends CG like `max_iter` once it returns True.
    worth : Worth, optional
        Ends CG like `max_iter` once a further product would gain little.

    Returns
    -------
    d : ndarray, shape (n,)
    curvature : float or None
        ``d'Hd / ||d||^2 <= -eps`` if d is a direction of negative curvature, None if d is an
        iterate.
    bound : float
    """
    y, p, Hp = work.y, work.p, work.Hp
    unit = unit_of(g)
    rr = rr0 = work.begin(g, unit)
    yHy = 0.0
    for j in range(1, (max_iter or len(g)) + 1):
        multiply(p, Hp)
        pp, pHp, HpHp = work.curvature()
        size = math.sqrt(HpHp) if 1e-30 < HpHp < 1e30 else norm(Hp)
        bound = max(bound, size / math.sqrt(pp))
        if pHp + eps * pp < 0:  # p'(H + 2 eps)p < eps p'p
            return p, pHp / pp, bound
        # y'r = 0 in exact arithmetic, and (H + 2 eps) y = r - unit g
        before = rr
        rr, yy, along, left = work.move(rr / (pHp + 2.0 * eps * pp), 2.0 * eps)
        along *= unit
        yHy = left - along - 2.0 * eps * yy
        if yHy + eps * yy < 0:
            return y, yHy / yy, bound
        if rr <= (tolerance * tolerance) * rr0:
            break
        if _too_slow(j, rr / rr0, bound, eps):
            return _slow_direction(multiply, g, eps, j, work) + (bound,)
        if stop is not None and stop():
            break
        if worth is not None and worth.spent(j, -0.5 * (along + left)):
            break
        work.turn(rr / before)
    y *= g.dtype.type(1 / unit)
    return y, None, bound


def _too_slow(j: int, fallen: float, bound: float, eps: float) -> bool:
    """Return whether the residual is above what j iterations guarantee if ``H + 2 eps I >= eps I``.

    If it is, that does not hold: H has curvature below -eps.
    """
    root = math.sqrt((bound + 2.0 * eps) / eps)
    if fallen <= 1.0 and j <= root:  # it guarantees no fall yet
        return False
    tau = root / (root + 1.0)  # close to 1: log(tau) is computed without cancellation
    beside = math.log(root + 1.0) + math.log1p(math.sqrt(tau))
    log_guarantee = math.log(4.0) + 8.0 * math.log(root) + 2.0 * beside - j * math.log1p(1.0 / root)
    return fallen > 0 and math.log(fallen) > log_guarantee


def _slow_direction(
    multiply: Any, g: np.ndarray, eps: float, j: int, work: Workspace
) -> tuple[Any, float | None]:
    """Return a difference of two iterates with curvature below -eps, and its curvature, or the last
    iterate and None if there is none. CG is run again for it, at up to j products.
    """
    y, r, p, Hp = work.y, work.r, work.p, work.Hp
    unit, last_y, last_r = unit_of(g), y.copy(), r.copy()
    rr, lowest, found = work.begin(g, unit), np.inf, None
    for _ in range(j):
        d = last_y - y
        dd = dot(d, d)
        np.subtract(last_r, r, out=work.scratch)
        curvature = dot(d, work.scratch) / dd - 2.0 * eps if dd > 0 else np.inf
        if curvature < lowest:
            lowest, found = curvature, d
        if lowest < -eps:
            return found, lowest
        multiply(p, Hp)
        pp, pHp, _ = work.curvature()
        before = rr
        rr = work.move(rr / (pHp + 2.0 * eps * pp), 2.0 * eps)[0]
        work.turn(rr / before)
    return last_y * g.dtype.type(1 / unit), None


# --------------------------------------------------------------------------------------------------
# MINRES for a symmetric system.


def minres(multiply: Callable[[Array], Array], b: Array, steps: int, tol: float) -> Array:
    """Solve ``A x = b`` approximately for symmetric A: stop when the residual is below ``tol
    ||b||``, or after `steps` products.

    Only the residual is tested: a small ``||A r||`` means nothing if A has far larger eigenvalues.

    References
    ----------
    .. [1] C. Paige and M. Saunders, Solution of sparse indefinite systems of linear equations, SIAM
           J. Numer. Anal. 12 (1975).
    """
    dtype = b.dtype.type
    beta = left = norm(b)
    goal = tol * left
    v, before = b / dtype(beta), np.zeros_like(b)
    x, w, w_before = np.zeros_like(b), np.zeros_like(b), np.zeros_like(b)
    c = c_before = 1.0
    s = s_before = beta = 0.0
    for _ in range(steps):
        p = multiply(v)
        alpha = float(v @ p)
        p -= dtype(alpha) * v
        p -= dtype(beta) * before
        following = norm(p)
        first = c * alpha - c_before * s * beta
        second, third = s * alpha + c_before * c * beta, s_before * beta
        length = float(np.hypot(first, following))
        if length == 0 or not np.isfinite(length):
            break
        c_before, s_before, c, s = c, s, first / length, following / length
        w_before, w = w, (v - dtype(third) * w_before - dtype(second) * w) / dtype(length)
        x += dtype(c * left) * w
        left *= -s
        if abs(left) <= goal or following == 0:
            break
        before, v, beta = v, p / dtype(following), following
    return x if x.any() else b.copy()
