"""Lower bounds on the loss, and rays along which the loss decreases to an infimum that no theta
attains.

Let every row with nonzero weight be classified strictly, and let l2 not act on the last layer.
Scaling that layer by ``1 + t`` scales all outputs, so cross entropy with hard labels decreases
for every t > 0, to 0 as t goes to infinity. The gradient along the ray never vanishes, so no
theta on the ray, including its start, is a critical point.

If a class occurs in no row, or all rows have the same label at an output, and l2 does not act on
the bias of this output, the derivative with respect to this bias has one sign for every theta.
Then no point is critical.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.protocols import Floats
from ..network.objective import Objective
from ..structure.given import LossFunction
from ..structure.parameters import (
    is_batch_normalised,
    l2_diagonal,
    layers_of,
    replace_zero_weight_rows,
)
from ..structure.tables import loss_spec
from ..structure.user_functions import BuiltInLoss, Loss
from .passes import passes_at, round_to_model_dtype


def loss_lower_bound(ob: Objective) -> float:
    """Return the lower bound 0 on the loss, or ``-inf`` with negative soft targets or with a
    user-defined loss that is not known to be nonnegative. A subclass of `Loss` may compute another
    loss than the one to which its lower bound belongs.
    """
    row = loss_spec(ob.loss)
    if row.given is not None:
        least = row.given.lower_bound
        if least is None or type(row.given) not in (LossFunction, BuiltInLoss, Loss):
            return -np.inf
        return 0.0 if least >= 0 else -np.inf
    return -np.inf if row.link == "softmax" and np.min(replace_zero_weight_rows(ob)[1]) < 0 else 0.0


def ray_to_infimum(ob: Objective, theta: ArrayLike) -> Floats | None:
    """Return a unit direction (n,) along which the loss is proved to decrease for every step
    length, or None. Its nonzero entries are biases of outputs whose labels all have the same
    effect, or it is the part of theta in the last layer.

    The proof for the last layer needs hard labels, no l2 on that layer, and logits that classify
    every row correctly by more than rounding. It is not available with batch normalisation.
    """
    at = round_to_model_dtype(ob, theta)
    if loss_spec(ob.loss).given is not None:
        return bias_direction(ob, *target_directions(ob))
    if loss_spec(ob.loss).attained or loss_lower_bound(ob) < 0:
        return None
    along = bias_direction(ob, *target_directions(ob))
    direction = last_layer_direction(ob, at)
    # True if all sample weights are 0
    nothing = ob.sample_weight is not None and not np.any(ob.sample_weight)
    if along is not None or nothing or has_decay(ob, direction):
        return along
    return direction if is_every_row_proved_correct(ob, at) else None


def attains_lower_bound(ob: Objective) -> bool:
    """Return True if the loss may equal its lower bound for some theta. A cross entropy always
    exceeds its lower bound, unless the loss is 0 everywhere.
    """
    row = loss_spec(ob.loss)
    weight = ob.sample_weight
    is_zero = weight is not None and not np.any(weight)
    return row.attained or is_zero or row.link == "softmax" and ob.model.sizes[-1] == 1


def target_directions(ob: Objective) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return two masks (d_out,) of outputs. For outputs in the first mask, an increase of the
    output lowers the loss of some row with positive weight; for those in the second mask, a
    decrease does.
    """
    m = ob.model.sizes[-1]
    y = np.asarray(ob.y)
    rows = y if ob.sample_weight is None else y[np.asarray(ob.sample_weight) > 0]
    return loss_spec(ob.loss).pulls(rows, m)


def bias_direction(ob: Objective, up: NDArray[np.bool_], down: NDArray[np.bool_]) -> Floats | None:
    """Return the unit direction (n,) of the last-layer biases whose derivative has the same sign in
    all rows, or None if there are none or l2 acts on one of them. `up` and `down` are the masks of
    `target_directions`.
    """
    if loss_spec(ob.loss).link == "softmax" and len(up) == 1:
        return None
    direction = np.zeros(ob.model.n_params)
    b = layers_of(ob.model, direction)[-1][1]
    if b is None or not (up != down).any():
        return None
    b[...] = up.astype(float) - down
    return None if has_decay(ob, direction) else np.asarray(direction / np.linalg.norm(direction))


def unbounded_reason(ob: Objective, direction: Floats) -> str:
    """Return the reason why the loss decreases along `ray_to_infimum`: a clause, then sentences."""
    W, b = layers_of(ob.model, direction)[-1]
    weight = ob.sample_weight
    sample = "sample" if weight is None or np.all(weight) else "sample of nonzero weight"
    if W.any():
        return (
            f"every {sample} is classified correctly. Without l2, larger weights in the last layer "
            "then lower the loss without end. With l2 on all parameters, the loss has a minimum"
        )
    if loss_spec(ob.loss).targets == "classes":
        outputs = np.flatnonzero(b < 0)
        these = ("bias of that class", "biases of these classes")
        one = f"no {sample} has class"
        several = f"{len(outputs)} classes have no {sample}, class"
    else:
        same = "target 0" if loss_spec(ob.loss).targets == "numbers" else "the same label"
        outputs = np.flatnonzero(b)
        these = ("bias of that output", "biases of these outputs")
        one = f"every {sample} has {same} at output"
        several = f"every {sample} has {same} at each of {len(outputs)} outputs, output"
    text = f"{several} {outputs[0]} among them" if len(outputs) > 1 else f"{one} {outputs[0]}"
    return (
        f"{text}. Without l2, moving the {these[len(outputs) > 1]} lowers the loss for all "
        "values of the other parameters, so no point is critical. With l2 on all parameters, the "
        "loss has a minimum"
    )


def last_layer_direction(ob: Objective, at: Floats) -> Floats:
    """Return `at` (n,) with all entries before the last layer set to 0, scaled to length 1. Return
    NaN entries if the last layer is 0.
    """
    last = sum(part.size for part in layers_of(ob.model, at)[-1] if part is not None)
    direction = np.where(np.arange(len(at)) < len(at) - last, 0.0, at)
    with np.errstate(invalid="ignore"):
        # Scaling by the largest entry prevents overflow of the squares.
        direction = direction / np.abs(direction).max()
        return np.asarray(direction / np.linalg.norm(direction))


def has_decay(ob: Objective, direction: Floats) -> bool:
    """Return True if l2 acts on a parameter whose component of `direction` (n,) is nonzero."""
    l2 = np.broadcast_to(l2_diagonal(ob), direction.shape)
    return bool((l2[direction != 0] != 0).any())


def is_every_row_proved_correct(ob: Objective, at: Floats) -> bool:
    """Return True if each row with positive weight is proved to be classified correctly at theta,
    given as `at` (n,), in float64. Return False for mse and with batch normalisation.
    """
    row = loss_spec(ob.loss)
    if row.attained or is_batch_normalised(ob.model):
        return False
    passes = passes_at(ob, at)
    for s in passes.iter_states():
        counts = True if ob.sample_weight is None else ob.sample_weight[s.rows] > 0
        y = passes.y[s.rows]
        z = s.z[-1].x
        if not (row.right(y, z, s.z[-1].dx.E) | ~np.broadcast_to(counts, len(z))).all():
            return False
    return not passes.arithmetic.overflow
