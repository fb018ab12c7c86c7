"""Other views of the rows of an objective: with other weights, and as outputs with the derivatives
of each row's loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.protocols import Array
from ..structure.parameters import terms_of_a_row
from .arguments import check_weight
from .gram import LossCurve


def reweighted(ob: Any, sample_weight: Any) -> Any:
    """Return `ob` with other weights of the rows, as ``ob.reweighted`` does."""
    if ob._by_blocks and "_whole" not in vars(ob):
        raise ValueError(
            "reweighted must be called on an Objective whose rows are in memory, got "
            f"{type(ob).__name__}. Make a new one with sample_weight."
        )
    weight = check_weight(sample_weight, ob.n_samples, ob.dtype)
    other = ob._unstarted()
    vars(other)["_weight"] = weight
    other._tame()
    if other._untamed is not ob._untamed:  # other rows of X are 0
        other._start()
    elif ob._sparse:
        other._start_sparse(ob._whole._X)
    else:
        other._have(ob._rows.reweighted(weight))
    return other


def outputs_part(shard: Any, theta: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Return ``[(z, first, second)]`` of the shard's rows, as `Objective.outputs` does."""
    z = np.empty((shard.n_samples, shard.model.sizes[-1]), shard.dtype)
    with shard._lock:
        shard._bound(theta, False).outputs(z)
    loss = LossCurve(shard, z, terms_of_a_row(shard))
    return [(z, loss.delta.astype(z.dtype, copy=False), loss.second().astype(z.dtype, copy=False))]


def outputs(ob: Any, theta: Any) -> tuple[Array, Array, Array]:
    """Return the outputs of all rows and the derivatives of each row's loss, as ``ob.outputs``
    does.
    """
    theta = ob.model.check_theta(theta)
    if ob._by_blocks:
        found = ob._fold(outputs_part, (theta,), dense=False)
    else:
        found = outputs_part(ob, theta)
    z, first, second = (np.concatenate(part) for part in zip(*found))
    if ob._order is not None:
        for part in (z, first, second):
            part[ob._order] = part.copy()
    return z, first, second
