"""Facts about all rows at theta: the saturation of hidden units and predictions, and the ranges of
inputs and outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.checks import check_vector
from ..common.protocols import Floats
from .parameters import nonzero_weight_rows
from .tables import activation_spec, loss_spec


def saturation(ob: Any, theta: ArrayLike) -> dict[str, Any]:
    """Return the fractions of units whose outputs hardly depend on their input, and of samples with
    nearly certain predictions.

    Returns
    -------
    dict
        "layers" is a list with the fraction of (sample, unit) pairs of each hidden layer whose
        ``|phi'|`` is at most 1% of min(1, maximum of ``|phi'|``). "saturated" is this fraction over
        all hidden layers, "dead_units" the number of units whose pairs all count, and "n_units" the
        number of hidden units. "certain" is the fraction of samples (of outputs for binary cross
        entropy) with a probability within 1e-3 of 0 or 1, or 0.0 for losses of regression.

    Examples
    --------
    >>> import fastcurv as fc
    >>> ob = fc.Objective(fc.MLP([1, 1, 1], bias=False), [[1.0], [-1.0]], [1.0, 0.0], "mse")
    >>> saturation(ob, [20.0, 1.0])["saturated"]
    1.0
    """
    return saturation_from_counts(ob.model, *saturation_counts(ob, theta))


def saturation_counts(
    ob: Any, theta: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[NDArray[np.bool_], ...]]:
    """Return the counts from which `saturation` is computed, as a tuple of three.

    The first array holds the number of saturated (sample, unit) pairs of each hidden layer. The
    second holds the number of nearly certain samples (or outputs), of all samples (or outputs) and
    of rows. The masks, one for each hidden layer, mark units that are not saturated at some sample.
    The results of several blocks of rows can be added.
    """
    dtype = ob.model.dtype
    rows = nonzero_weight_rows(ob)
    hidden = ob.model.sizes[1:-1]
    # Every row of this objective, such as a shard, has weight 0.
    if not len(rows):
        none = np.zeros(len(hidden), dtype=np.int64)
        return none, np.zeros(3, dtype=np.int64), tuple(np.zeros(m, dtype=bool) for m in hidden)
    preactivations = ob.model.preactivations(
        check_vector(theta, ob.model.n_params, "theta", np.float64).astype(dtype),
        rows.astype(dtype),
    )
    zs = [np.asarray(z, dtype=float) for z in preactivations]
    off = [
        np.abs(phi.slope(z)) <= 0.01 * min(phi.lipschitz, 1.0)
        for phi, z in zip((activation_spec(name) for name in ob.model.activation), zs)
    ]
    certain = loss_spec(ob.loss).certain(zs[-1])
    return (
        np.array([o.sum() for o in off], dtype=np.int64),
        np.array([certain.sum(), certain.size, len(certain)], dtype=np.int64),
        tuple(np.asarray(~o.all(axis=0)) for o in off),
    )


def saturation_from_counts(
    model: Any,
    counts: NDArray[np.int64],
    certain: NDArray[np.int64],
    live: tuple[NDArray[np.bool_], ...],
) -> dict[str, Any]:
    """Return the dict of `saturation` from the summed results of `saturation_counts`."""
    widths = np.array(model.sizes[1:-1], dtype=np.int64)
    rows = int(certain[2])
    pairs = rows * int(widths.sum())
    rows = max(1, rows)
    return {
        "layers": [float(count / (rows * width)) for count, width in zip(counts, widths)],
        "saturated": float(counts.sum() / pairs) if pairs else 0.0,
        "dead_units": int(sum((~units).sum() for units in live)),
        "n_units": int(widths.sum()),
        "certain": float(certain[0] / max(1, certain[1])),
    }


@dataclass(frozen=True)
class ColumnRanges:
    """The smallest and largest entries of the columns of a matrix. The sum of two objects covers
    both matrices.
    """

    low: Floats
    high: Floats

    def __add__(self, other: ColumnRanges) -> ColumnRanges:
        return ColumnRanges(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


def ranges_at_theta(ob: Any, theta: ArrayLike) -> tuple[ColumnRanges, ColumnRanges]:
    """Return the `ColumnRanges` of the inputs and of the network outputs at theta, as a pair."""
    statistics = ob.model.statistics(ob, theta) if ob.model.batch_norm else None
    outputs = np.asarray(ob.model.predict(theta, ob.X, statistics), dtype=float)
    return ColumnRanges(ob.X.min(axis=0), ob.X.max(axis=0)), ColumnRanges(
        outputs.min(axis=0), outputs.max(axis=0)
    )
