"""The minimum that holds a stalled run on kinks: where it is, and which kinks hold it.

Minima of relu nets with l2 lie on kinks, where no gradient is small and no second-order step of the
loss ends. So the kinks are rounded off over a width that shrinks; at each width's minimum the
slopes in between tell which kinks are active. Then Newton in (theta, slopes), kinks entering and
leaving the active set as signs and slopes ask, and the proof.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..common.linalg import eigh
from ..common.vectors import norm
from ..critical.kink_minimum import KinkPoint, beside, can_be_held, newton_on_kinks
from ..critical.nearness import value_rounding
from ..krylov.trust_region import trust_region
from .run import reduction_ratio

WIDTHS = [0.03 * 0.25**i for i in range(9)]
STEPS = 200  # of descent at each width
REST = 1e-9  # of the gradient
EPS = float(np.finfo(np.float64).eps)


def find_held(ob: Any, theta: np.ndarray, stop: Callable[[], bool]) -> KinkPoint | None:
    """The minimum on kinks near theta; None where none is found or the objective has no kinks.

    Parameters
    ----------
    ob : objective
        An `OnKinks`.
    theta : ndarray, shape (n,)
        Where a run has stalled.
    stop : callable
        True ends the search.
    """
    if not can_be_held(ob):
        return None
    here = np.asarray(theta, dtype=float)
    best = beside(ob, here)
    if best is not None and not (best.verdict.certified and _no_higher(ob, best.theta, here)):
        best = None
    for i, width in enumerate(WIDTHS):
        if stop() or best is not None and best.verdict.certified:
            break
        smooth = ob.smoothed(width)
        here = _descend(smooth, here, stop)
        if i < 2 or stop():
            continue
        found = newton_on_kinks(ob, here, smooth.slopes(here))
        if found is not None and (best is None or found.verdict.certified):
            best = found
    return best


def _no_higher(ob: Any, there: np.ndarray, here: np.ndarray) -> bool:
    f = float(ob.value(here))
    return float(ob.value(there)) <= f + value_rounding(f, here.dtype)


def _descend(smooth: Any, theta: np.ndarray, stop: Callable[[], bool]) -> np.ndarray:
    """Trust-region steps from all eigenpairs: for the small networks this module is for."""
    f, g = smooth.value_and_gradient(theta)
    radius, fresh = 0.1 * max(1.0, norm(theta)), True
    for _ in range(STEPS):
        if fresh:
            values, vectors, _ = eigh(smooth.hessian(theta))
        y, _ = trust_region(values, vectors.T @ g, radius)
        predicted = -float((vectors.T @ g) @ y + 0.5 * (y @ (values * y)))
        there = theta + vectors @ y
        f_there, g_there = smooth.value_and_gradient(there)
        ratio = reduction_ratio(f, f_there, predicted, EPS)
        length = float(np.linalg.norm(y))
        if ratio < 0.25:
            radius = 0.25 * length
        elif ratio > 0.75 and length > 0.9 * radius:
            radius *= 2.0
        fresh = ratio > 1e-4
        if fresh:
            theta, f, g = there, f_there, g_there
        if stop() or np.linalg.norm(g) <= REST or length <= 1e-15 * np.linalg.norm(theta):
            break
    return theta
