"""Lower bounds of the loss, and rays along which it falls to an infimum that no theta attains.

Where every row with weight is classified strictly and l2 leaves the last layer alone, scaling that
layer by ``1 + t`` scales all outputs, so that cross entropy with hard labels falls for every t > 0,
to 0 as t goes to infinity, and its gradient along the way never vanishes: no theta on the ray, and
none from which such a ray starts, is a critical point.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..structure.parameters import l2_diagonal, layers_of, normalised
from .passes import checked_theta, passes_at

Floats = NDArray[np.float64]


def loss_lower_bound(ob: Any) -> float:
    """0, or ``-inf`` where soft targets that are no probabilities leave no bound."""
    return -np.inf if ob.loss == "cross_entropy" and np.min(ob.y) < 0 else 0.0


def ray_to_infimum(ob: Any, theta: ArrayLike) -> Floats | None:
    """The last layer's part of theta, of length 1, where scaling it is proved to lower the loss for
    ever; else None.

    Proved: hard labels, weights >= 0, no l2 on the last layer, and the logit of every row's class
    larger than all others (of the right sign, for binary cross entropy) by more than rounding can
    have done. Not with batch normalisation.
    """
    at = checked_theta(ob, theta)
    direction = last_layer(ob, at)
    if loss_lower_bound(ob) < 0 or decayed(ob, direction):
        return None
    if ob.sample_weight is not None and not np.any(ob.sample_weight):
        return None  # the loss is 0 everywhere
    return direction if classified(ob, at) else None


def last_layer(ob: Any, at: Floats) -> Floats:
    """The last layer's part of theta (n,), of length 1; NaN where it is 0."""
    direction = np.zeros_like(at)
    for part, value in zip(layers_of(ob.model, direction)[-1], layers_of(ob.model, at)[-1]):
        if part is not None:
            part[...] = value
    with np.errstate(invalid="ignore"):
        return np.asarray(direction / np.linalg.norm(direction))


def decayed(ob: Any, direction: Floats) -> bool:
    """Whether l2 acts along a direction (n,)."""
    l2 = np.broadcast_to(l2_diagonal(ob), direction.shape)
    return bool((l2[direction != 0] != 0).any())


def classified(ob: Any, at: Floats) -> bool:
    """Whether the logit of every row's class that counts is proved to be the largest, at theta (n,)
    of float64; False for mse and with batch normalisation.
    """
    if ob.loss == "mse" or normalised(ob.model):
        return False
    passes = passes_at(ob, at)
    for s in passes.states():
        counts = True if ob.sample_weight is None else ob.sample_weight[s.rows] > 0
        y, z, E = passes.ob.y[s.rows], s.z[-1], s.dz[-1].E
        if not (_strictly(ob.loss, y, z, E) | ~np.broadcast_to(counts, len(z))).all():
            return False
    return not passes.overflow


def _strictly(loss: str, y: NDArray[Any], z: Floats, E: Floats) -> NDArray[np.bool_]:
    """Which rows have hard labels and are classified rightly, rounding included."""
    if loss == "binary_cross_entropy":
        hard = (y == 0) | (y == 1)
        return np.asarray(np.all(hard & np.where(y == 1, z > E, z < -E), axis=1))
    if y.ndim == 1:
        y = np.eye(z.shape[1])[y]
    right, hard = y > 0, ((y > 0).sum(axis=1) == 1) & (y.shape[1] > 1)  # one class: 0 everywhere
    low = np.where(right, z - E, -np.inf).max(axis=1)
    return np.asarray(hard & (low > np.where(right, -np.inf, z + E).max(axis=1)))
