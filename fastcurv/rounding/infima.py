"""Lower bounds of the loss, and rays along which it falls to an infimum that no theta attains.

Where every row with weight is classified strictly and l2 leaves the last layer alone, scaling that
layer by ``1 + t`` scales all outputs, so that cross entropy with hard labels falls for every t > 0,
to 0 as t goes to infinity, and its gradient along the way never vanishes: no theta on the ray, and
none from which such a ray starts, is a critical point.

Where no row has a class, or all rows have the same label at an output, and l2 leaves that bias of
the last layer alone, the derivative by it has one sign for every theta: no point is critical.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..protocols import Floats
from ..structure.parameters import l2_diagonal, layers_of, normalised
from .passes import checked_theta, passes_at


def loss_lower_bound(ob: Any) -> float:
    """0, or ``-inf`` where soft targets that are no probabilities leave no bound."""
    return -np.inf if ob.loss == "cross_entropy" and np.min(ob.y) < 0 else 0.0


def ray_to_infimum(ob: Any, theta: ArrayLike) -> Floats | None:
    """A unit direction in which the loss is proved to fall for ever: biases that labels pull one
    way, or the last layer's part of theta; else None.

    Proved of the last layer: hard labels, weights >= 0, no l2 on it, and the logit of every row's
    class larger than all others (of the right sign, for binary cross entropy) by more than rounding
    can have done. Not with batch normalisation.
    """
    at = checked_theta(ob, theta)
    if ob.loss == "mse" or loss_lower_bound(ob) < 0:
        return None
    along, direction = along_biases(ob, *pulls(ob)), last_layer(ob, at)
    if along is not None:
        return along
    if decayed(ob, direction):
        return None
    if ob.sample_weight is not None and not np.any(ob.sample_weight):
        return None  # the loss is 0 everywhere
    return direction if classified(ob, at) else None


def attains_lower_bound(ob: Any) -> bool:
    """Whether the loss may be as low as its bound anywhere: an entropy is not, but where it is 0
    everywhere.
    """
    if ob.loss == "mse" or ob.sample_weight is not None and not np.any(ob.sample_weight):
        return True
    return bool(ob.loss == "cross_entropy" and ob.model.sizes[-1] == 1)


def pulls(ob: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """By output (d_out,) whether some row that counts wants it larger, and smaller."""
    m, y = ob.model.sizes[-1], np.asarray(ob.y)
    counts = np.ones(len(y), dtype=bool)
    if ob.sample_weight is not None:
        counts = np.asarray(ob.sample_weight) > 0
    if y.ndim == 1:
        up = np.bincount(y[counts].astype(np.intp), minlength=m) > 0
        return up, up.sum() > up
    wanted = y[counts] > 0
    if ob.loss == "binary_cross_entropy":
        return np.any(wanted, 0), np.any(y[counts] < 1, 0)
    others = wanted.sum(axis=1, keepdims=True) > wanted
    return np.any(wanted, 0), np.any(others, 0)


def along_biases(ob: Any, up: NDArray[np.bool_], down: NDArray[np.bool_]) -> Floats | None:
    """The unit direction of the biases of the last layer that all rows pull the same way, where l2
    leaves them alone; None where there are none. `up`, `down`: `pulls`.
    """
    if ob.loss == "cross_entropy" and len(up) == 1:
        return None
    direction = np.zeros(ob.model.n_params)
    b = layers_of(ob.model, direction)[-1][1]
    if b is None or not (up != down).any():
        return None
    b[...] = up.astype(float) - down
    return None if decayed(ob, direction) else np.asarray(direction / np.linalg.norm(direction))


def why(ob: Any, direction: Floats) -> str:
    """Why the loss falls for ever in the direction of `ray_to_infimum`, as part of a sentence."""
    W, b = layers_of(ob.model, direction)[-1]
    weight = getattr(ob, "sample_weight", None)
    sample = "sample" if weight is None or np.all(weight) else "sample that counts"
    if W.any():
        return (
            f"every {sample} is classified rightly and without l2 larger weights in the last layer "
            "lower the loss for ever; no minimum exists along the way, and l2 on all parameters "
            "would give it one"
        )
    if ob.loss == "cross_entropy":
        text, which = f"no {sample} has class", np.flatnonzero(b < 0)
    else:
        text, which = f"every {sample} has the same label at output", np.flatnonzero(b)
    more = f" and {len(which) - 1} more" if len(which) > 1 else ""
    return (
        f"{text} {which[0]}{more}, and without l2 on the bias there that lowers the loss for ever, "
        "whatever the other parameters are; no point is critical, and l2 on all parameters would "
        "give it a minimum"
    )


def last_layer(ob: Any, at: Floats) -> Floats:
    """The last layer's part of theta (n,), of length 1; NaN where it is 0."""
    direction = np.zeros_like(at)
    for part, value in zip(layers_of(ob.model, direction)[-1], layers_of(ob.model, at)[-1]):
        if part is not None:
            part[...] = value
    with np.errstate(invalid="ignore"):
        direction = direction / np.abs(direction).max()  # whose squares are numbers
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
