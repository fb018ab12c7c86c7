"""Points on kinks, where phi' or phi'' jumps and H tells of one side only.

What is measured there: whether the loss does fall along a direction of negative curvature. A proof
that a point held by kinks is a minimum (its active set, slopes in place of phi'(0), the Hessian of
the Lagrangian on their tangent space) has its place here: it hands `decide` a finding of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..protocols import Valued

SIZES = (1e-2, 1e-3, 1e-4, 1e-5)  # of theta's length
FALL = 1e-14  # of the loss: more than its rounding


def falls_across(ob: Any, theta: np.ndarray, direction: np.ndarray | None) -> bool:
    """Whether the loss was seen to fall along a direction, either way, at some length."""
    if direction is None or not isinstance(ob, Valued):
        return False
    here = float(ob.value(theta))
    length = float(np.linalg.norm(theta) ** 2 + 1) ** 0.5
    return any(
        ob.value(theta + way * length * direction) < here - FALL * abs(here)
        for size in SIZES
        for way in (size, -size)
    )
