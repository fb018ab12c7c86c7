"""Fits to tables with more columns than rows, in the span of the rows.

With a penalty, the weights of the first layer lie in the span of the rows at every minimum. Losses
and penalties have the same values in r orthonormal coordinates of the span, so a fit in these
coordinates ends at the same network as a fit in all columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...common.runtime import raise_if_interrupted
from ...network.mlp import MLP
from ...network.objective import Objective
from ...optimize.callbacks import EarlyStopping
from ...optimize.minimize import minimize


def has_more_columns_than_rows(ob: Objective) -> bool:
    """Return True if an objective has more columns than rows."""
    return bool(ob.model.sizes[0] > ob.n_samples)


def minimize_in_row_space(
    ob: Objective, start: Any = None, *, rng: int = 0, validation: Any = None, **options: Any
) -> tuple[Any, np.ndarray]:
    """Minimise an objective and return the result of `minimize`, and theta for all columns. If
    there are more columns than rows, the fit is in the span of the rows, and the result refers to
    coordinates in the span. `start` is the initial theta, by default random, and `validation` is an
    objective of other rows. Raise KeyboardInterrupt after Ctrl-C.
    """
    options |= {"rng": rng, "progress": False}
    if not has_more_columns_than_rows(ob):
        run: Any = raise_if_interrupted(
            minimize(ob, start, callback=EarlyStopping(validation), **options)
        )
        return run, run.x
    start = ob.model.init(rng=rng) if start is None else start
    small, inside, basis = restrict_to_row_space(ob, start)
    if validation is not None:
        rows = np.asarray(validation.X) @ basis
        validation = Objective(small.model, rows, validation.y, validation.loss)
    run = raise_if_interrupted(
        minimize(small, inside, callback=EarlyStopping(validation), **options)
    )
    return run, change_input_basis(small.model, run.x, basis.T)[1]


def restrict_to_row_space(ob: Objective, theta: Any) -> tuple[Objective, np.ndarray, np.ndarray]:
    """Return the objective whose inputs are the coordinates of the rows in their span, theta for
    these inputs, and the basis ``(d, r)`` of the span.
    """
    X = np.asarray(ob.X)
    left, sizes, basis = np.linalg.svd(X, full_matrices=False)
    rank = int((sizes > sizes[0] * max(X.shape) * np.finfo(X.dtype).eps).sum())
    basis = basis[:rank].T
    model, theta = change_input_basis(ob.model, theta, basis)
    settings = ob.loss, ob.l2, ob.sample_weight, ob.n_threads, ob.memory
    rows = left[:, :rank] * sizes[:rank]
    return Objective(model, rows, ob.y, *settings, l2_biases=ob.l2_biases), theta, basis


def change_input_basis(model: MLP, theta: Any, basis: np.ndarray) -> tuple[MLP, np.ndarray]:
    """Return a network for inputs x in other coordinates, and the theta of this network. For x it
    has the outputs of `model` at `theta` for the inputs ``basis @ x``.
    """
    (W, b), *above = model.unflatten(theta)
    other = MLP([basis.shape[1], *model.sizes[1:]], list(model.activation), dtype=model.dtype)
    return other, other.flatten([(W @ basis, b), *above])
