"""Whether signs of curvature last to the critical point that theta stands for: measured, where no
bound on the third derivative proves it.

The critical point is a step away: Newton's step p, and along an eigenvector u of weak curvature
``-(g'u +- error) / lambda``. Curvature is computed again at several lengths of these steps, both
ways. At a nondegenerate critical point it hardly changes; beside a degenerate one (a cubic, a
quartic, the tail of an exponential, the floor of a valley) it falls to a half of what it was, or
changes sign. Nothing but what was computed is known, so nothing of this is ever certified.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocols import Floats
from .evidence import hessian_products
from .knowledge import in_float64
from .nearness import gradient_and_error

Spend = Callable[[int], None]

KEPT = 2 / 3  # the share of its size that curvature must keep over the step, and over less
LENGTHS = (1.0, -1.0, 0.38, -0.38)  # of the step; no period of anything fits all of these
FAR_LENGTHS = (3.0, -3.0)  # where it must keep its sign
WEAKEST = 48  # of either sign are looked at along Newton's step
SHORTER = 0.25  # of the decrement may be left at the end of Newton's step
IN_ROW = 4  # this many that last, from the weakest on, stand for the rest


def curvatures(ob: Any, theta: Floats, U: Floats) -> Floats:
    """``u'Hu`` at another theta for the columns of U; NaN where theta is not finite."""
    if not U.shape[1] or not np.isfinite(theta).all():
        return np.full(U.shape[1], np.nan)
    try:
        found = (U * hessian_products(ob, theta)(U)).sum(axis=0)
    except (ValueError, ArithmeticError):  # the objective ends here
        return np.full(U.shape[1], np.nan)
    return np.asarray(found)


def _last(now: Floats, before: Floats, length: float) -> NDArray[np.bool_]:
    share = KEPT if abs(length) <= 1 else 0.0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.asarray(now / before >= share)


def gradient_after(ob: Any, theta: Floats, step: Floats) -> Floats | None:
    """The gradient at ``theta + step``, in float64 where that can be had; None where it is not
    finite.
    """
    try:
        found = gradient_and_error(in_float64(ob), theta + step)[0]
    except (ValueError, ArithmeticError):  # the objective ends here
        return None
    return found if np.isfinite(found).all() else None


def lasting_along_step(
    ob: Any, theta: Floats, step: Floats, U: Floats, before: Floats, spend: Spend
) -> NDArray[np.bool_]:
    """Which of the curvatures `before` along the columns of U last along a step, both ways."""
    keep = np.ones(U.shape[1], dtype=bool)
    if not step.any():
        return keep
    for length in LENGTHS + FAR_LENGTHS:
        if keep.any():
            spend(int(keep.sum()))
            now = curvatures(ob, theta + length * step, U[:, keep])
            keep[keep] = _last(now, before[keep], length)
    return keep


def lasts_along(
    ob: Any, theta: Floats, u: Floats, curvature: float, reach: float, spend: Spend
) -> bool:
    """Whether the curvature along u itself lasts over `reach` of u, both ways."""
    if not reach > 0:
        return reach == 0
    for length in LENGTHS + FAR_LENGTHS:
        spend(1)
        now = curvatures(ob, theta + length * reach * u, u[:, None])
        if not _last(now, np.array([curvature]), length)[0]:
            return False
    return True


def settle(
    ob: Any,
    theta: Floats,
    signs: NDArray[np.int_],
    values: Floats,
    vectors: Floats,
    *,
    slopes: Floats,
    slack: Callable[[Floats], float],
    spend: Spend,
) -> NDArray[np.int_]:
    """The signs that last; those that do not become 0.

    Parameters
    ----------
    ob : object
    theta : ndarray, shape (n,)
    signs : ndarray of int, shape (m,)
        Of `values`, 0 where unknown.
    values : ndarray, shape (m,)
    vectors : ndarray, shape (n, m)
        Directions in theta's coordinates with ``u'Hu = values``.
    slopes : ndarray, shape (m,)
        ``g'u``.
    slack : callable
        ``slack(u)`` bounds the error of a slope.
    spend : callable
        Told of products before they are made.
    """
    signs = signs.copy()
    weakest_first = np.argsort(np.abs(values))

    def along_step() -> None:
        known = signs != 0
        step = -(vectors[:, known] @ (slopes[known] / values[known]))
        for sign in (1, -1):
            weak = weakest_first[signs[weakest_first] == sign][:WEAKEST]
            keep = lasting_along_step(ob, theta, step, vectors[:, weak], values[weak], spend)
            signs[weak[~keep]] = 0

    def one_by_one(share: float) -> None:
        """Over the uncertainty of each slope, and `share` of the slope itself."""
        for sign in (1, -1):
            lasting = 0
            for i in weakest_first[signs[weakest_first] == sign]:
                if lasting == IN_ROW:
                    break
                u = vectors[:, i]
                reach = (share * abs(slopes[i]) + slack(u)) / abs(values[i])
                lasts = lasts_along(ob, theta, u, float(values[i]), reach, spend)
                lasting = lasting + 1 if lasts else 0
                signs[i] = sign if lasts else 0

    before = signs.copy()
    along_step()
    if (signs == before).all():
        one_by_one(0.0)
        return signs
    signs[:] = before  # a step along what does not last leads nowhere: without that once more
    one_by_one(1.0)
    along_step()
    return signs
