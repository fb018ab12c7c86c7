"""Objectives without one sample or group each: outputs of many networks at once, and the points
that a search from the minimum with all samples reaches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...common.linalg import multiply_by_lower_triangular
from ...common.objectives import sample_weights
from ...common.protocols import Floats
from ...common.runtime import raise_if_interrupted, serial_blas_context
from ...network.factor import CholeskyFactor, NotPositiveDefiniteError
from ...optimize.minimize import minimize
from ...optimize.steps import saddle_free_newton_step
from ...structure.parameters import forward
from ...structure.tables import activation_spec

# maximum number of entries of a block of rows of the Jacobian, 4 MB, about the size of an L2 cache
JACOBIAN_BLOCK_ENTRIES = 1 << 19


@dataclass(frozen=True)
class FactoredMinimum:
    """A minimum theta of an objective in float64, with the Cholesky factor of the Hessian at
    theta.
    """

    ob: Any
    theta: Floats
    factor: CholeskyFactor


def jacobian_blocks(ob: Any, theta: Floats) -> Iterator[tuple[slice, Floats]]:
    """Yield the Jacobian of the outputs by blocks of samples, as pairs of a slice of the samples
    and an array (rows, d_out, n).
    """
    J = ob.jacobian(theta)
    d = ob.model.sizes[-1]
    n = ob.n_params
    step = max(1, JACOBIAN_BLOCK_ENTRIES // (d * n))
    for start in range(0, ob.n_samples, step):
        rows = slice(start, min(start + step, ob.n_samples))
        yield rows, J.to_dense(rows).reshape(-1, d, n)


def objective_without_rows(ob: Any, rows: Any) -> Any:
    """Return the objective without the samples that the index or mask `rows` selects, as an
    objective in which they have weight 0.
    """
    weight = sample_weights(ob)
    weight[rows] = 0
    return ob.reweighted(weight)


def _layers_of_networks(model: Any, thetas: Floats) -> Iterator[tuple[Floats, Floats | None]]:
    """Yield a pair for each layer: the weights W (N, m, k) and the biases b (N, m) of N networks
    with the parameter vectors `thetas` (N, n). b is None if the networks have no biases.
    """
    for (m, k), start in zip(model.shapes, model.starts):
        W = thetas[:, start : start + m * k].reshape(-1, m, k)
        yield W, thetas[:, start + m * k : start + m * k + m] if model.bias else None


def outputs_of_networks(model: Any, thetas: Floats, X: Floats) -> Floats:
    """Return the outputs (N, M, d_out) of N networks with the parameter vectors `thetas` (N, n). X
    is (M, k), the same rows for all networks, or (N, M, k).
    """

    def activate(l: int, z: Floats, a: Floats) -> Floats:
        h = np.asarray(activation_spec(model.activation[l]).phi(z), float)
        return h + a if model.skips[l] else h

    outputs: Floats = forward(_layers_of_networks(model, thetas), X, activate)[1][-1]
    return outputs


def newton_steps(at: FactoredMinimum, J: Floats, coefficients: Floats) -> Floats:
    """Return the Newton steps ``H^-1 J_i' a_i`` (rows, n) for the removal of each of some samples,
    from their Jacobian J (rows, d_out, n) and the coefficients a_i (rows, d_out).
    """
    inverse = at.factor.inverse_lower
    with serial_blas_context():
        half = multiply_by_lower_triangular(
            np.matmul(coefficients[:, None, :], J)[:, 0], inverse, True
        )
        return multiply_by_lower_triangular(half, inverse)


MAX_NEWTON_STEPS = 50  # maximum number of Newton steps to a minimum without some rows
MIN_NEWTON_LENGTH = 1e-3  # minimum fraction of a Newton step
NEWTON_STEP_TOL = 1e-9  # relative length of the last Newton step, which squares the error
# number of points, ends included, at which the loss on the line to a new minimum is measured
N_LINE_POINTS = 9


def is_convex_on_line(ob: Any, theta: Floats, end: Floats) -> bool:
    """Return True if the slope of the objective along the line from theta to `end` increases from
    each of `N_LINE_POINTS` equidistant points to the next, or if the points are equal.
    """
    d = end - theta
    slopes = [d @ ob.gradient(theta + t * d) for t in np.linspace(0, 1, N_LINE_POINTS)]
    return bool((np.diff(slopes) > 0).all() or not d.any())


def minimum_by_newton(ob: Any, theta: Floats) -> Floats:
    """Return the point (n,) that Newton steps reach from theta. If they do not converge,
    `minimize` is used from theta, and Newton steps refine its result.
    """
    end, converged = _take_newton_steps(ob, theta)
    if converged:
        return end
    run: Any = raise_if_interrupted(minimize(ob, theta, verdict=False, progress=False, rng=0))
    return _take_newton_steps(ob, run.x)[0]


def _take_newton_steps(ob: Any, theta: Floats) -> tuple[Floats, bool]:
    """Take Newton steps with halving from theta, saddle-free where the Hessian is not positive
    definite. Return the end (n,), and True if the last step met `NEWTON_STEP_TOL`.
    """
    value = ob.value(theta)
    for _ in range(MAX_NEWTON_STEPS):
        H = ob.hessian(theta)
        try:
            step = -H.factor().solve(H.gradient)
        except NotPositiveDefiniteError:
            step = saddle_free_newton_step(H, H.gradient)
        if np.linalg.norm(step) <= NEWTON_STEP_TOL * np.linalg.norm(theta):
            return np.asarray(theta + step), True
        length = 1.0
        while length > MIN_NEWTON_LENGTH and not ob.value(theta + length * step) <= value:
            length *= 0.5
        # If no length lowers the value, the decrease is within its rounding error.
        theta = theta + (length if length > MIN_NEWTON_LENGTH else 1.0) * step
        value = ob.value(theta)
    return theta, False
