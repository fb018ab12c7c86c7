"""The penalty with the largest evidence, on a path of penalties from large to small.

A large l2 keeps units at 0: with a smooth activation, such units have no incoming or outgoing
weights, so that their gradient is 0, and stays 0 when l2 decreases. A path that only starts each
fit at the previous minimum therefore ends at saddles. `max_evidence_posterior` restarts all
inactive units with small random weights before a fit, and sets their weights to 0 after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...network.mlp import MLP
from ...network.objective import Objective
from ...network.row_views import with_model
from ..diagnosis.facts import constant_loss
from .laplace import ExactFitError, LaplacePosterior, laplace_posterior

# A unit is inactive if the product of the norms of its weights is below this fraction of the
# largest product in its layer.
MIN_UNIT_RATIO = 1e-3
# A unit is inactive if the norms of its incoming and outgoing weights have a product below this
# value.
MIN_UNIT_SIZE = 1e-10
# maximum product of the norms of incoming and outgoing weights of a unit that may be set to 0, if
# the objective does not increase
MAX_PRUNABLE_SIZE = 1e-6
# maximum relative increase of the objective when inactive units are set to 0
PRUNE_TOL = 1e-6
# maximum relative increase of the objective when inactive units of a fit in
# `max_evidence_posterior` are set to 0. These fits end while inactive units still shrink. The data
# hardly determine the biases of such units, and each would raise the evidence by minus half the
# logarithm of its small curvature.
PATH_PRUNE_TOL = 1e-4
MAX_L2 = 1.0  # first penalty of `max_evidence_posterior`
L2_RATIO = 10**-0.5  # ratio of each penalty to the previous one
MIN_L2 = 1e-8
# size of the weights of a restarted unit, relative to the weights of the unit at the start of the
# path
RESTART_SCALE = 0.1
# maximum number of penalties at which the evidence decreases, after which the path ends
MAX_EVIDENCE_DECREASES = 2
# Along the path the evidence may decrease for a while: where units become active, and, if the noise
# is small, before the fit reaches the noise level. So decreases are not counted while the loss is
# above this fraction of the loss of a constant prediction.
PATH_PLATEAU_LOSS_RATIO = 0.8
# Decreases of the evidence are not counted either while the squared errors decrease by at least
# this fraction from one penalty to the next.
MIN_LEARNING_DECREASE = 0.2


def active_units(model: Any, theta: Any, least: float = MIN_UNIT_SIZE) -> list[Any]:
    """Return a list with a mask (units,) for each hidden layer, True for the units that affect the
    outputs. A unit affects the outputs if the product of the norms of its incoming and outgoing
    weights is above `least` and above `MIN_UNIT_RATIO` times the largest product in the layer.
    """
    Ws = [layer[0] for layer in model.unflatten(np.asarray(theta, np.float64))]
    found = []
    for below, above in zip(Ws, Ws[1:]):
        size = np.linalg.norm(below, axis=1) * np.linalg.norm(above, axis=0)
        found.append(size > max(MIN_UNIT_RATIO * size.max(initial=0.0), least))
    return found


def with_units_restarted(model: Any, theta: Any, start: Any) -> Any:
    """Return a copy of theta in which inactive units are restarted: their weights are set to
    `RESTART_SCALE` times those of the point `start`, and their biases to those of `start`.
    """
    theta = theta.copy()
    layers = model.unflatten(start)
    mine = model.unflatten(theta)
    for l, on in enumerate(active_units(model, theta)):
        mine[l][0][~on] = RESTART_SCALE * layers[l][0][~on]
        if model.bias:
            mine[l][1][~on] = layers[l][1][~on]
        mine[l + 1][0][:, ~on] = RESTART_SCALE * layers[l + 1][0][:, ~on]
    return theta


def with_units_pruned(ob: Any, theta: Any, tol: float = PRUNE_TOL) -> Any:
    """Return theta with all weights and biases of inactive units set to 0, or theta unchanged if
    this would increase the objective by more than `tol`, relative to its value.
    """
    less = theta.copy()
    layers = ob.model.unflatten(less)
    for l, on in enumerate(active_units(ob.model, theta, MAX_PRUNABLE_SIZE)):
        layers[l][0][~on] = 0
        if ob.model.bias:
            layers[l][1][~on] = 0
        layers[l + 1][0][:, ~on] = 0
    before = ob.value(theta)
    return less if ob.value(less) <= before + tol * abs(before) else theta


def without_inactive_units(ob: Any, theta: Any) -> tuple[Any, Any]:
    """Return the objective of the network without its inactive units, and the point of the smaller
    network that corresponds to theta.

    `ob` and theta are returned unchanged if all units are active, if a layer has no active unit, if
    the objective would increase, or if the network has no biases, skip connections or batch
    normalisation. At a minimum, a unit without weights has a bias on which no output depends, so
    the Hessian has an eigenvalue 0. Without the unit the Hessian can be positive definite.
    """
    model = ob.model
    on = active_units(model, theta, MAX_PRUNABLE_SIZE)
    counts = [int(mask.sum()) for mask in on]
    plain = model.bias and not model.residual and not model.batch_norm
    if not plain or not all(counts) or all(mask.all() for mask in on):
        return ob, theta
    smaller = MLP(
        [model.sizes[0], *counts, model.sizes[-1]], list(model.activation), dtype=model.dtype
    )
    above = [*on, np.ones(model.sizes[-1], bool)]
    below = [np.ones(model.sizes[0], bool), *on]
    layers = [
        (W[np.ix_(rows, columns)], b[rows])
        for (W, b), rows, columns in zip(model.unflatten(theta), above, below)
    ]
    less = with_model(ob, smaller)
    found = smaller.flatten(layers)
    before = ob.value(theta)
    return (less, found) if less.value(found) <= before + PRUNE_TOL * abs(before) else (ob, theta)


def max_evidence_posterior(
    ob: Objective,
    start: Any,
    minimise: Callable[[Objective, Any], Any],
    *,
    curvature: str = "ggn",
    count: float | None = None,
    min_l2: float = 0.0,
) -> LaplacePosterior:
    """Return the posterior with the largest evidence on a path of penalties from large to small.
    For squared errors, the noise in the evidence is at least the root mean square residual of rows
    left out, to first order. Without this bound the evidence grows without end if the network can
    reproduce all targets.

    The path ends once the evidence has decreased at `MAX_EVIDENCE_DECREASES` penalties since its
    maximum, or at the larger of `MIN_L2` and `min_l2`. If the maximum is inside the path, a penalty
    between its neighbours is tried too.

    Parameters
    ----------
    ob : Objective
        Its own l2 is not used.
    start : ndarray (n,)
        The start of the first fit, of each fit while the path predicts little more than a constant,
        and the weights from which inactive units are restarted.
    minimise : callable
        ``minimise(ob, theta)`` returns the point that a fit reaches.
    curvature, count
        As in `laplace_posterior`.
    min_l2 : float
        The smallest penalty that is tried.

    Raises
    ------
    ExactFitError
        If no residual is left even with the first penalty.
    """

    def fit(l2: float, theta: Any) -> LaplacePosterior:
        one = ob.with_l2(l2)
        theta = minimise(one, with_units_restarted(ob.model, theta, start))
        pruned = with_units_pruned(one, theta, PATH_PRUNE_TOL)
        return laplace_posterior(one, pruned, curvature, count=count, bound_noise=True)

    found: list[LaplacePosterior] = []
    plain = ob.with_l2(0.0)
    constant = constant_loss(ob)
    l2 = MAX_L2
    decreases = 0
    best = 0
    theta = start
    loss = np.inf
    min_l2 = max(min_l2, MIN_L2)
    while l2 > min_l2 and decreases < MAX_EVIDENCE_DECREASES:
        try:
            found.append(fit(l2, theta))
        except ExactFitError:  # smaller penalties would also fit the rows exactly
            if not found:
                raise
            break
        theta = found[-1].theta.astype(ob.dtype)
        before = loss
        loss = plain.value(theta)
        falls = found[-1].noise_std is not None and loss < (1 - MIN_LEARNING_DECREASE) * before
        learns = falls
        if loss > constant - (1 - PATH_PLATEAU_LOSS_RATIO) * abs(constant):
            theta = start  # from a point near the saddle at zero weights a fit would not move
            learns = True
        if found[-1].log_evidence > found[best].log_evidence:
            best = len(found) - 1
            decreases = 0
        elif len(found) > 1 and not learns:
            decreases += 1
        l2 *= L2_RATIO
    last = found[best]
    # The last penalty tried is at the vertex of the parabola through the largest evidence and its
    # two neighbours.
    if 0 < best < len(found) - 1:
        a, b, c = (found[i].log_evidence for i in (best - 1, best, best + 1))
        shift = 0.5 * (c - a) / max(2 * b - a - c, 1e-12)
        refined = fit(last.objective.l2 * L2_RATIO**shift, found[best - 1].theta.astype(ob.dtype))
        last = max(last, refined, key=lambda post: post.log_evidence)
    return last
