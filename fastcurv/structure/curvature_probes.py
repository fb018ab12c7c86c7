"""Directions that are orthogonal to all gradients near theta, along which the Hessian may have
negative curvature that searches started from the gradient do not find.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..common.checks import as_rng, check_vector
from ..common.protocols import Floats
from .parameters import batch_norm_params, layers_of


def curvature_probes(
    ob: Any,
    theta: ArrayLike,
    *,
    max_columns: int | None = None,
    seed: int | np.random.Generator | None = 0,
) -> Floats:
    """Return start vectors for eigenvector searches, with components along negative curvature that
    is orthogonal to the Krylov space of the gradient.

    For two identical hidden units, one vector moves their incoming weights apart, and another one
    their outgoing weights. For a unit with zero weights in or out (or gamma 0), one vector changes
    only its incoming weights and another one only its outgoing weights; they span the block ``[[0,
    B], [B', 0]]`` of the Hessian. The directions are random, because a random direction has a
    component along every eigenvector of its subspace.

    Parameters
    ----------
    ob : Objective
    theta : array_like, shape (n,)
    max_columns : int, optional
        Maximum number of vectors. Default: 64, or fewer if 64 would take more than 512 MB.
    seed : None, int or numpy.random.Generator

    Returns
    -------
    ndarray, shape (n, p)
        Unit columns, p <= max_columns.
    """
    theta = check_vector(theta, ob.model.n_params, "theta", np.float64)
    rng = as_rng(seed)
    model = ob.model
    if max_columns is None:
        max_columns = min(64, max(4, (1 << 26) // theta.size))
    now = layers_of(model, theta)
    norms = batch_norm_params(model, theta)
    special = (
        (layer, units, incoming)
        for layer in range(len(model.activation))
        for units in _special_units(now, norms, layer)
        for incoming in (True, False)
    )
    # unused pages of zeros take no memory
    rows = np.zeros((max_columns, theta.size))
    count = 0
    for row, (layer, units, incoming) in zip(rows, special):
        _write_separating_vector(model, layer, units, incoming, rng, row)
        count += 1
    return np.asarray(rows[:count].T)


def _special_units(now: list[Any], norms: list[Any], layer: int) -> Iterator[tuple[Any, Any]]:
    """Yield ``(j, None)`` for each unit of a hidden layer whose weights on one side are 0, and
    ``(i, j)`` for each pair of identical units that are neighbours in sorted order.
    """
    W, b = now[layer]
    W_out, _ = now[layer + 1]
    rows = np.hstack([W] + [part[:, None] for part in norms[layer] or [b] if part is not None])
    size = np.abs(rows).max(initial=0.0)
    near = 64 * np.finfo(float).eps * size
    zero = (np.abs(W) <= near).all(axis=1) | (np.abs(W_out) <= 0).all(axis=0)
    if norms[layer]:
        zero |= norms[layer][0] == 0
    for j in np.flatnonzero(zero):
        yield j, None
    order = np.lexsort(np.round(rows / (size or 1), 10).T)
    for i, j in zip(order, order[1:]):
        if np.abs(rows[i] - rows[j]).max() <= near:
            yield i, j


def _write_separating_vector(
    model: Any,
    layer: int,
    pair: tuple[int, int | None],
    incoming: bool,
    rng: np.random.Generator,
    out: Floats,
) -> None:
    """Write to `out` (n,), which holds zeros, a random unit vector that changes the incoming or the
    outgoing weights of one unit, or of two units in opposite directions.
    """
    (W, b), (W_out, _) = layers_of(model, out)[layer : layer + 2]
    part: Floats = rng.standard_normal((W.shape[1] if incoming else W_out.shape[0],))
    shift = rng.standard_normal()
    scales = [x for x in batch_norm_params(model, out)[layer] or (b,) if x is not None] * incoming
    units = [(unit, sign) for unit, sign in zip(pair, (1.0, -1.0)) if unit is not None]
    size = math.sqrt(len(units) * (float(part @ part) + len(scales) * shift**2))
    for unit, sign in units:
        (W[unit] if incoming else W_out[:, unit])[...] = sign * part / size
        for x in scales:
            x[unit] = sign * shift / size
