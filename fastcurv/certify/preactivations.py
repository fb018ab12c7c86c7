"""The signs of hidden pre-activations z on balls around theta, proved from the reach of each z."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.protocols import Floats
from ..network.objective import Objective
from ..structure.parameters import has_kinks
from ..structure.tables import activation_spec
from .majorants import propagate_majorants
from .passes import Passes, State, passes_at, round_to_model_dtype


@dataclass(frozen=True)
class PreactivationSigns:
    """Proved signs of hidden pre-activations z on a ball, over the samples with nonzero weight.

    Attributes
    ----------
    kinks : int
        Number of pre-activations that may lie at a kink somewhere on the ball.
    off : list of ndarray (width,) of bool
        For each hidden layer, relu units whose z is negative for all samples.
    on_kinks : list of ndarray (width,) of bool
        For each hidden layer, units with a z that may lie at a kink.
    """

    kinks: int
    off: list[NDArray[np.bool_]]
    on_kinks: list[NDArray[np.bool_]]


# assumed error of a z that has no proved bound, in multiples of `preactivation_error_bounds`
ASSUMED_Z_ERROR_FACTOR = 64


def preactivation_signs(
    ob: Objective, theta: ArrayLike, *radii: float, rounding: bool = False
) -> list[PreactivationSigns]:
    """Return a list of `PreactivationSigns`, one for each ball of the given radii around theta,
    from one pass through the network, which must not have batch normalisation.

    If `rounding` is True, a z also counts as at a kink if its distance to the kink may be below the
    bound of `preactivation_error_bounds`. A z that cannot change is not at a kink; an example is
    the z of a row of zeros in a first layer without bias.
    """
    if not has_kinks(ob.model):
        none = [np.zeros(m, dtype=bool) for m in ob.model.sizes[1:-1]]
        return [PreactivationSigns(0, none, none)] * len(radii)
    passes = passes_at(ob, round_to_model_dtype(ob, theta))
    widths = ob.model.sizes[1:-1]
    rows = [activation_spec(name) for name in passes.names]
    measured = rounding and any(row.given is not None for row in rows)
    off = [[np.full(m, row.leak == 0.0) for m, row in zip(widths, rows)] for _ in radii]
    on_kinks = [[np.zeros(m, dtype=bool) for m in widths] for _ in radii]
    count = [0] * len(radii)
    with np.errstate(all="ignore"):
        for s in passes.iter_states():
            counts = ob.sample_weight is None or (ob.sample_weight[s.rows] != 0)[:, None]
            for i, radius in enumerate(radii):
                b = propagate_majorants(passes, s, radius)
                for l, row in enumerate(rows):
                    reach = b.reach[l] + (
                        preactivation_error_bounds(passes, s, l) if rounding else 0.0
                    )
                    # Above a layer with a user-defined activation, z has no proved bound.
                    if measured:
                        reach = np.where(
                            reach < np.inf,
                            reach,
                            ASSUMED_Z_ERROR_FACTOR * preactivation_error_bounds(passes, s, l),
                        )
                    # A z whose bound has overflowed to NaN counts as near a kink.
                    here = ~(np.abs(s.z[l].x) > reach)
                    near = here & (row.kink > 0) & b.moves[l] & counts
                    count[i] += int(near.sum())
                    on_kinks[i][l] |= near.any(axis=0)
                    off[i][l] &= ((s.z[l].x + b.reach[l] < 0) | np.logical_not(counts)).all(axis=0)
    return [PreactivationSigns(*known) for known in zip(count, off, on_kinks)]


def preactivation_error_bounds(passes: Passes, s: State, l: int) -> Floats:
    """Return bounds (rows, 1) on the rounding errors of the pre-activations z of layer l: eps times
    the largest entry of ``|a| |W|' + |b|`` in each row. In float32 the bound is larger by the
    number of roundings of the pass, because the engine's products use the signs of the rounded z.
    """
    dtype = passes.ob.model.dtype
    W = passes.W[l]
    steps = 4 * (l + 1) * (W.abs.shape[1] + 2) if dtype == np.float32 else 1
    size = np.abs(s.a[l].x) @ W.abs.T + np.abs(passes.b[l])
    return np.asarray(steps * np.finfo(dtype).eps * size.max(axis=1, keepdims=True))
