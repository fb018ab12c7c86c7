"""A line search for the lowest point on a line, from values of the function alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..common.vectors import norm

Value = Callable[[np.ndarray], float]


Point = tuple[float, float]  # (t, value at t)


def curvature_rounding_error(v: np.ndarray, size: float) -> float:
    """Estimate the rounding error of v'Hv that is seen in practice, ``8 sqrt(n) eps ||H||``. `size`
    is an estimate of ||H||, and eps is the relative spacing of v's dtype.

    The estimate suffices to choose a direction, which the line search then checks, but it proves
    nothing.
    """
    return 8.0 * math.sqrt(len(v)) * float(np.finfo(v.dtype).eps) * size


def initial_trial_length(theta: np.ndarray) -> float:
    """Return the first trial length ``0.01 max(1, ||theta||)`` of a line search from theta for
    which no other length is known.
    """
    return 0.01 * max(1.0, norm(theta))


def line_minimum(
    value: Any,
    theta: np.ndarray,
    direction: np.ndarray,
    f0: float,
    start: float,
    refinements: int = 12,
    *,
    signs: tuple[float, ...] = (1.0, -1.0),
) -> tuple[float, float]:
    """Find the lowest point along ``theta + t direction``, for t of the given signs.

    Each side is bracketed by doubling from `start` (or by quartering, if `start` is too long), and
    the better side is refined by parabolas and golden sections.

    Parameters
    ----------
    value : callable
        ``value(point)``: the function.
    theta, direction : ndarray, shape (n,)
        The line.
    f0 : float
        The value at theta.
    start : float
        The first trial length.
    refinements : int
        Number of values computed after bracketing.
    signs : tuple of float
        The sides to search: 1.0, -1.0 or both.

    Returns
    -------
    t : float
        The signed step length to the lowest point; 0.0 if no lower value was found.
    f : float
        The value at t.
    """
    sides = []
    for sign in signs:
        bracket, f = _bracket(value, theta, direction * theta.dtype.type(sign), f0, start)
        if bracket is not None:
            sides.append((bracket[1][1], sign, bracket, f))
    if not sides:
        return 0.0, f0
    _, sign, bracket, f = min(sides, key=lambda side: side[0])
    low, best, high = bracket
    t, lowest = _refine_bracket(f, low, best, high, refinements)
    return sign * t, lowest


def _bracket(value: Any, theta: np.ndarray, direction: np.ndarray, f0: float, start: float) -> Any:
    """Bracket the lowest value along `direction`, for t > 0, beginning with the trial length
    `start`. Return a pair: three points (t, f), or None if no value below f0 is found; and a
    function of t that returns the value at t.
    """
    trial = np.empty_like(theta)

    def f(t: float) -> float:
        np.multiply(direction, theta.dtype.type(t), out=trial)
        np.add(trial, theta, out=trial)
        f_trial = value(trial)
        return f_trial if np.isfinite(f_trial) else np.inf

    t = start
    ft = f(start)
    high = None
    while not ft < f0 and t > 1e-8 * start:
        high = (t, ft)
        t *= 0.25
        ft = f(t)
    if not ft < f0:
        return None, f
    before = (0.0, f0)
    further = high
    for _ in range(60 if high is None else 0):
        further = (2.0 * t, f(2.0 * t))
        if not further[1] < ft:
            break
        small = ft - further[1] < 1e-3 * (f0 - further[1])
        before = (t, ft)
        t, ft = further
        # The last doubling lowered the value by almost nothing, so a lower value further away is
        # not searched for.
        if small:
            further = (2.0 * t, np.inf)
            break
    return (before, (t, ft), further), f


def _refine_bracket(
    f: Callable[[float], float], low: Point, best: Point, high: Point, evaluations: int
) -> tuple[float, float]:
    """Refine a bracket of three points (t, f), of which `best`, between `low` and `high`, has the
    lowest value, by parabolas and golden sections with `evaluations` values of f. Return the lowest
    point.
    """
    golden = 0.5 * (3.0 - np.sqrt(5.0))
    for i in range(evaluations):
        left_width = best[0] - low[0]
        right = high[0] - best[0]
        t = best[0] + golden * right if right > left_width else best[0] - golden * left_width
        if i % 3 != 2 and np.isfinite(low[1]) and np.isfinite(high[1]):
            a = right * (low[1] - best[1])
            b = left_width * (high[1] - best[1])
            vertex = best[0] + 0.5 * (right * a - left_width * b) / (a + b) if a + b > 0 else t
            if abs(vertex - best[0]) > 1e-9 * best[0] and low[0] < vertex < high[0]:
                t = vertex
        new = (t, f(t))
        if new[1] < best[1]:
            low, high = (best, high) if new[0] > best[0] else (low, best)
            best = new
        elif new[0] > best[0]:
            high = new
        else:
            low = new
    return best
