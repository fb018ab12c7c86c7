"""Minima on relu kinks, at which a run has stalled: their position and their active kinks.

Minima of relu networks with l2 lie on kinks, where the gradient is not small and second-order
steps on the loss do not converge. So the kinks are smoothed over a shrinking width; at each
width's minimum, slopes strictly between the two one-sided ones show which kinks are active.
Newton's method in (theta, slopes) follows, with an active set that kinks enter and leave by their
signs and slopes, and then the proof.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..common.linalg import eigh
from ..common.vectors import next_radius, reduction_ratio
from ..critical.kink_minimum import KinkPoint, find_kink_point, run_newton_on_kinks, small_relu_data
from ..krylov.trust_region import solve_trust_region
from .lower_points import is_value_no_higher
from .newton import initial_trust_radius

# widths over which kinks are smoothed, in units of the pre-activations, each a quarter of the
# previous
SMOOTHING_WIDTHS = [0.03 * 0.25**i for i in range(9)]
MAX_STEPS_PER_SMOOTHING_WIDTH = 200  # maximum number of steps at each width
DESCENT_GRADIENT_TOL = 1e-9  # gradient norm at which the descent at one width ends
EPS = float(np.finfo(np.float64).eps)


def find_kink_minimum(ob: Any, theta: np.ndarray, stop: Callable[[], bool]) -> KinkPoint | None:
    """Find the minimum at active kinks near theta. Return None if none is found or the objective
    has no kinks.

    Parameters
    ----------
    ob : objective
        The objective. If its certificates have no method `relu_rows`, None is returned.
    theta : ndarray, shape (n,)
        The point at which a run has stalled.
    stop : callable
        Ends the search when it returns True.
    """
    rows = small_relu_data(ob)
    if rows is None:
        return None
    here = np.asarray(theta, dtype=float)
    best = find_kink_point(ob, here)
    if best is not None and not (
        best.certified and is_value_no_higher(lambda at: float(ob.value(at)), best.theta, here)
    ):
        best = None
    for i, width in enumerate(SMOOTHING_WIDTHS):
        if stop() or best is not None and best.certified:
            break
        smooth = rows.smooth_kinks(width)
        here = _minimise_smoothed_loss(smooth, here, stop)
        if i < 2 or stop():
            continue
        zs = smooth.model.preactivations(here, rows.X)
        slopes = [phi(z)[1] for phi, z in zip(smooth.model.activation, zs)]
        candidate = run_newton_on_kinks(rows, here, slopes)
        if candidate is not None and (best is None or candidate.certified):
            best = candidate
    return best


def _minimise_smoothed_loss(smooth: Any, theta: np.ndarray, stop: Callable[[], bool]) -> np.ndarray:
    """Return the point that trust-region steps on the smoothed objective `smooth` reach from theta.
    The steps are computed from all eigenpairs of the Hessian, which is fast enough for small
    networks.
    """
    f, g = smooth.value_and_gradient(theta)
    radius = initial_trust_radius(theta)
    fresh = True
    for _ in range(MAX_STEPS_PER_SMOOTHING_WIDTH):
        if fresh:
            values, vectors, _ = eigh(smooth.hessian(theta).to_dense())
        y, _ = solve_trust_region(values, vectors.T @ g, radius)
        predicted = -float((vectors.T @ g) @ y + 0.5 * (y @ (values * y)))
        there = theta + vectors @ y
        f_there, g_there = smooth.value_and_gradient(there)
        ratio = reduction_ratio(f, f_there, predicted, EPS)
        length = float(np.linalg.norm(y))
        radius = next_radius(radius, ratio, length, length > 0.9 * radius)
        fresh = ratio > 1e-4
        if fresh:
            theta = there
            f = f_there
            g = g_there
        if (
            stop()
            or np.linalg.norm(g) <= DESCENT_GRADIENT_TOL
            or length <= 1e-15 * np.linalg.norm(theta)
        ):
            break
    return theta
