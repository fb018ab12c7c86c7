"""Quantities of single rows of an objective: weights that replace the current ones, outputs with
the derivatives of each row's loss, whether each row's loss is convex, and rows of the Jacobian.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .._engine import RowJacobian
from ..common.errors import type_phrase
from ..common.linalg import NotConvexError
from ..common.protocols import Array
from ..structure.parameters import n_terms_per_row
from .arguments import check_out, check_sample_weight
from .output_loss import OutputLossDerivatives
from .sums import sum_over_rows

if TYPE_CHECKING:
    from ..structure.given import LossFunction
    from .mlp import MLP
    from .objective import Objective
    from .operators import Jacobian
    from .shards import Shard


def reweighted(ob: Objective, sample_weight: ArrayLike | None) -> Objective:
    """Return the objective with the weights `sample_weight` (N,), or None for equal weights, for
    `Objective.reweighted`.
    """
    if ob._by_blocks and "_whole" not in vars(ob):
        raise ValueError(
            "reweighted must be called on an Objective whose rows are in memory, got "
            f"{type(ob).__name__}. Create a new objective with sample_weight."
        )
    weight = check_sample_weight(sample_weight, ob.n_samples, ob.dtype)
    # The weights are copied because the caller may change the array in a loop.
    other: Objective = ob._copy_without_row_state(_weight=None if weight is None else weight.copy())
    other._zero_unused_rows()
    # X changes too, since rows of weight 0 are set to 0.
    if other._untamed is not ob._untamed:
        other._set_up_rows()
    elif ob._sparse:
        other._set_up_sparse_rows(ob._whole._X)
    else:
        ob._shares_rows = other._shares_rows = True
        other._adopt_rows(ob._rows.with_weight(other._weight))
    return other


def with_model(ob: Objective, model: MLP, *y: ArrayLike) -> Objective:
    """Return the objective of another model on the same rows, with other targets if `y` is given.
    An object of a subclass gives an object of that subclass.
    """
    other: Objective = ob._with_model(model, *y)
    return other


def shard_outputs(shard: Shard | Objective, theta: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Return ``[(z, first, second)]``, the result of `Objective.outputs` for the shard's rows."""
    z = np.empty((shard.n_samples, shard.model.sizes[-1]), shard.dtype)
    with shard._lock:
        shard._bind_plan(theta, False).write_outputs(z)
    loss = OutputLossDerivatives(shard, z, n_terms_per_row(shard))
    return [
        (
            z,
            loss.delta.astype(z.dtype, copy=False),
            loss.second_derivatives().astype(z.dtype, copy=False),
        )
    ]


def outputs(ob: Objective, theta: ArrayLike) -> tuple[Array, Array, Array]:
    """Return ``(z, first, second)``, the result of `Objective.outputs`: the outputs of all rows,
    and the first and second derivatives of each row's loss.
    """
    theta = ob.model.check_theta(theta)
    if ob._by_blocks:
        rows_of_shards = ob._sum_over_shards(shard_outputs, (theta,), dense=False)
    else:
        rows_of_shards = shard_outputs(ob, theta)
    z, first, second = (np.concatenate(part) for part in zip(*rows_of_shards))
    return z, first, second


def shard_min_loss_curvature(shard: Shard, theta: np.ndarray, loss: LossFunction) -> list[float]:
    """Return a list of one number, the smallest eigenvalue over all rows of the second derivative
    of the row's loss with respect to the outputs. The rounding error is added if the loss couples
    outputs. Rows of weight 0 are ignored. If all weights are 0, the number is 0.
    """
    z = shard.model.predict(theta, shard.X).astype(float)
    _, _, second = loss(z, shard.y)
    if shard.sample_weight is not None:
        second = second[shard.sample_weight != 0]
        if not len(second):
            return [0.0]
    if second.ndim == 2:
        return [float(second.min())]
    eigenvalues = np.linalg.eigvalsh(second)
    # The second derivatives of a row that fits may be small by cancellation. Their rounding error
    # is then relative to the size of second derivatives elsewhere, which random outputs show.
    random_outputs = np.random.default_rng(0).standard_normal(z.shape)
    usual_size = np.abs(loss(random_outputs, shard.y)[2]).max()
    rounding = 1e-12 * np.abs(eigenvalues).max(axis=1) + 64 * np.finfo(float).eps * usual_size
    return [float((eigenvalues[:, 0] + rounding).min())]


def check_convex(ob: Objective, theta: ArrayLike, loss: LossFunction) -> None:
    """Raise NotConvexError, a ValueError, if the loss of a row has negative curvature with respect
    to the outputs at theta.
    """
    curvatures = sum_over_rows(ob, shard_min_loss_curvature, ob.model.check_theta(theta), loss)
    if not min(curvatures) >= 0:
        raise NotConvexError(
            f"loss must have a second derivative >= 0 for ggn, got {loss!r} with a second "
            f"derivative of {min(curvatures):.3g} for some rows. Use another loss, or ob.hessian."
        )


# number of columns of the identity that `to_dense` multiplies at a time; all columns at once take
# up to 1.4 times the CPU, at n = 200 to 900
N_DENSE_BLOCK_COLUMNS = 64


def jacobian_matrix(J: Jacobian, rows: slice | None, out: Array | None) -> Array:
    """Return the Jacobian J, or its rows for a slice of the samples, as an array, for
    `Jacobian.to_dense`.
    """
    ob = J.objective
    m, n = J.shape
    d = ob.model.sizes[-1]
    if not isinstance(rows, slice | None):
        raise TypeError(f"rows must be a slice of samples, got {type_phrase(rows)}.")
    start, stop, step = (slice(None) if rows is None else rows).indices(ob.n_samples)
    if step != 1:
        raise ValueError(f"rows must be a slice with a step of 1, got a step of {step}.")
    count = max(0, stop - start)
    shape = count * d, n
    jacobian: Array = np.empty(shape, J.dtype) if out is None else check_out(out, shape, J.dtype)
    if ob.model.batch_norm:
        for first in range(0, len(jacobian), N_DENSE_BLOCK_COLUMNS):
            units = np.zeros((m, min(N_DENSE_BLOCK_COLUMNS, len(jacobian) - first)), J.dtype)
            at = np.arange(units.shape[1])
            units[start * d + first + at, at] = 1
            jacobian[first : first + len(at)] = (J.T @ units).T
    elif not ob._by_blocks:
        attributes = vars(J)
        if "_row_state" not in attributes:
            attributes["_row_state"] = RowJacobian(J._plan)
        attributes["_row_state"].write_rows(start, count, jacobian)
    elif count < ob.n_samples:
        if count:
            ob.batch(slice(start, stop)).jacobian(J.theta).to_dense(out=jacobian)
    else:
        for first, part in ob._sum_over_shards(shard_jacobian, (J.theta,)):
            jacobian[first : first + len(part)] = part
    return jacobian


def shard_jacobian(shard: Shard, theta: Array) -> list[tuple[int, Array]]:
    """Return the shard's part of the Jacobian as ``[(first, rows)]``, where `first` is the index of
    the first of these rows in the whole Jacobian.
    """
    return [(shard.own_outputs.start, shard.jacobian(theta).to_dense())]
