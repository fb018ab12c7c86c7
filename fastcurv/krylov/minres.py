"""MINRES for several shifted right sides at once."""

from collections.abc import Callable

import numpy as np

from ..protocols import Array
from ..vectors import norm


def minres(multiply: Callable[[Array], Array], b: Array, steps: int, tol: float) -> Array:
    """Roughly solve ``A x = b`` for symmetric A: until the residual is below ``tol ||b||``, at most
    `steps` products.

    The residual alone decides: that ``||A r||`` is small, too, means nothing where A has far larger
    eigenvalues.

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
