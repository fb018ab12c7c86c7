"""A line search to the strong Wolfe conditions, by values and slopes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..common.vectors import dot
from .run import Run

ARMIJO = 1e-4  # of the decrease that the slope promises
CURVATURE = 0.9  # of the first slope may be left
TRIALS = 20
NOISE = 10.0  # eps |f|: what a value may be wrong by


class Trial(NamedTuple):
    """A point of the line: its value, its slope, and the gradient there."""

    t: float
    f: float
    slope: float
    g: np.ndarray | None


def descend_along(run: Run, d: np.ndarray, slope: float, first: float) -> Trial | None:
    """The first point ``theta + t d`` tried that is lower by a share of what the slope promises,
    and whose own slope is a share of it at most; `run.spare` is that point.

    One value and gradient a trial, most often one trial in all. Where the budget or the trials end
    first, the lowest point of those tried that are low enough; None where there is none. Values
    that differ by rounding count as equal, and their slopes decide.

    References
    ----------
    .. [1] J. Nocedal and S. J. Wright, Numerical Optimization, Springer, 2006, section 3.5.
    """
    low: Trial = Trial(0.0, run.f, slope, None)
    high: Trial | None = None
    noise = NOISE * run.eps * abs(run.f)
    t = first
    for _ in range(TRIALS):
        here = _look(run, d, t)
        lowest = min(low.f, run.f + ARMIJO * t * slope)
        if not here.f <= lowest + noise:
            high = here
        elif abs(here.slope) <= -CURVATURE * slope:
            return here
        else:
            if here.slope * (1.0 if high is None else high.t - low.t) >= 0:
                high = low
            before, low = low, here
            if high is None:
                t = _further(before, low)
        if run.out_of_budget():
            break
        if high is not None:
            t = _between(low, high)
            if not min(low.t, high.t) < t < max(low.t, high.t):
                break
    if low.g is None or not low.f < run.f:
        return None
    run.place(d, low.t)
    return low


def _look(run: Run, d: np.ndarray, t: float) -> Trial:
    f, g = run.value_and_gradient(run.place(d, t))
    if not math.isfinite(f):
        return Trial(t, math.inf, math.nan, None)
    return Trial(t, f, dot(g, d), g)


def _cubic(a: Trial, b: Trial) -> float:
    """Where the cubic through two values and slopes has its minimum, nan where it has none."""
    s = a.slope + b.slope - 3.0 * (a.f - b.f) / (a.t - b.t)
    root = s * s - a.slope * b.slope
    if not root >= 0:
        return math.nan
    q = math.copysign(math.sqrt(root), b.t - a.t)
    below = b.slope - a.slope + 2.0 * q
    return b.t - (b.t - a.t) * (b.slope + q - s) / below if below else math.nan


def _further(before: Trial, here: Trial) -> float:
    """The next trial where the line still falls: the cubic's minimum, between 2 and 10 times."""
    t = _cubic(before, here)
    return min(max(t, 2.0 * here.t), 10.0 * here.t) if t > here.t else 4.0 * here.t


def _between(low: Trial, high: Trial) -> float:
    """The cubic's minimum, a tenth of the way at least from both ends."""
    t = _cubic(low, high) if math.isfinite(high.f) else low.t + 0.1 * (high.t - low.t)
    share = (t - low.t) / (high.t - low.t)
    if math.isnan(share):
        share = 0.5
    return low.t + min(max(share, 0.1), 0.9) * (high.t - low.t)
