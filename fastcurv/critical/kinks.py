"""Points on kinks, where phi' or phi'' jumps and H tells of one side only.

What is measured there: whether the loss does fall along a direction of negative curvature. A proof
that a point held by kinks is a minimum (its active set, slopes in place of phi'(0), the Hessian of
the Lagrangian on their tangent space) has its place here: it hands `decide` a finding of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..protocols import Valued
from ..vectors import extent
from .knowledge import value_at
from .nearness import value_rounding

SIZES = (1e-5, 1e-4, 1e-3, 1e-2)  # of theta's length


def falls_across(
    ob: Any, theta: np.ndarray, direction: np.ndarray | None, gradient: np.ndarray
) -> bool:
    """Whether the loss was seen to fall along a unit vector, one way or the other, before it rises:
    by more than its rounding, and by more than the slope on this side of the kinks explains.
    """
    if direction is None or not isinstance(ob, Valued):
        return False
    here = value_at(ob, theta)
    length = extent(theta)
    noise = value_rounding(here, getattr(ob, "dtype", np.float64))
    slope = abs(float(gradient @ direction))
    for way in (1.0, -1.0):
        for size in SIZES:
            t = size * length
            rise = value_at(ob, theta + way * t * direction) - here
            if rise < -noise - slope * t:
                return True
            if rise > noise:
                break
    return False
