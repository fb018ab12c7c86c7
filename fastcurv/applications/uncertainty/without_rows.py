"""Objectives without one sample or group each: outputs of many networks at once, and the points
that a search from the minimum with all samples reaches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...common.linalg import multiply_by_lower_triangular
from ...common.objectives import sample_weights
from ...common.protocols import Floats
from ...common.runtime import raise_if_interrupted, serial_blas_context
from ...network.factor import CholeskyFactor, NotPositiveDefiniteError
from ...network.output_loss import OutputLossDerivatives
from ...optimize.minimize import minimize
from ...optimize.steps import saddle_free_newton_step
from ...structure.parameters import forward, n_terms_per_row, parameter_derivatives
from ...structure.tables import activation_spec
from .requirements import dense_rows

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


def _row_gradients(ob: Any, X: Floats, thetas: Floats, rows: Any) -> Floats:
    """Return the gradients (r, n) of the loss terms of the samples `rows`, each at its own row of
    `thetas` (r, n). X (r, k) holds the inputs. The gradients are not divided by N, the number of
    samples.
    """
    model = ob.model
    layers = list(_layers_of_networks(ob.model, thetas))
    slopes = list[Any]()

    def activate(l: int, z: Floats, a: Floats) -> Floats:
        h: Floats
        h, slope, *_ = activation_spec(model.activation[l]).derivatives(z)
        slopes.append(None if slope is None else slope[:, 0])
        return h + a if model.skips[l] else h

    below, zs = forward(layers, X[:, None], activate)
    a = [one[:, 0] for one in below]
    z = zs[-1][:, 0]
    weight = None if ob.sample_weight is None else ob.sample_weight[rows]
    samples = SimpleNamespace(loss=ob.loss, y=ob.y[rows], sample_weight=weight, dtype=ob.dtype)
    delta = OutputLossDerivatives(samples, z, n_terms_per_row(ob)).delta
    return parameter_derivatives(model, layers, a, slopes, delta[:, None])[:, 0]


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


MAX_GRADIENTS_PER_ROW = 40  # maximum number of gradients of each objective without a sample
N_LBFGS_PAIRS = 8  # number of L-BFGS pairs stored for each sample
# An iteration ends once a step is at most RELATIVE_STEP_TOL times as long as the first step, or
# STEP_ROUNDING_TOL times as long as theta, both in the norm of H.
RELATIVE_STEP_TOL = 1e-12
STEP_ROUNDING_TOL = 1e-13
# A step that is at least this many times as long as the shortest one so far shows divergence.
MAX_STEP_GROWTH = 4.0
MAX_NEWTON_STEPS = 50  # maximum number of Newton steps to the minimum without a group
MIN_NEWTON_LENGTH = 1e-3  # minimum fraction of a Newton step
NEWTON_STEP_TOL = 1e-9  # relative length of the last Newton step, which squares the error
# number of points, ends included, at which the loss on the line to a new minimum is measured
N_LINE_POINTS = 9


def minima_without_rows(at: FactoredMinimum, coefficients: Floats) -> Floats:
    """Return the points (N, n) reached from theta on the objectives without each of the N samples.

    L-BFGS iterations for all samples together start at the ends of the Newton steps with the
    coefficients a_i (N, d_out). The initial matrix is H at theta. If an iteration does not
    converge, Newton steps from theta are used for this sample.
    """
    ob = at.ob
    N = at.ob.n_samples
    X = dense_rows(ob.model, ob.X)
    every = np.arange(N)
    thetas = np.empty((N, ob.n_params))
    with serial_blas_context():
        for rows, J in jacobian_blocks(ob, at.theta):
            thetas[rows] = at.theta + newton_steps(at, J, coefficients[rows])

    def gradients(thetas: Floats, rows: Any) -> Floats:
        own = _row_gradients(ob, X[rows], thetas, rows)
        whole: Floats = np.array([ob.gradient(theta) for theta in thetas]).reshape(own.shape)
        return np.asarray(whole - own / N)

    weight = sample_weights(ob)
    L = at.factor.lower
    done = weight == 0
    own = _row_gradients(ob, X, np.broadcast_to(at.theta, thetas.shape), every)
    active = np.flatnonzero(~done)
    steps = thetas - at.theta
    g = gradients(thetas[active], active)
    pairs = [(steps[active], g - (ob.gradient(at.theta) - own[active] / N))]
    size = np.linalg.norm(steps @ L, axis=1)
    shortest = np.full(N, np.inf)
    floor = STEP_ROUNDING_TOL * float(np.linalg.norm(L.T @ at.theta))
    for _ in range(MAX_GRADIENTS_PER_ROW):
        p = _lbfgs_steps(at.factor, pairs, g)
        length = np.linalg.norm(p @ L, axis=1)
        ended = length <= np.maximum(RELATIVE_STEP_TOL * size[active], floor)
        done[active] |= ended
        before = np.minimum(shortest[active], size[active] + floor)
        shortest[active] = np.minimum(shortest[active], length)
        keep = ~ended & (length < MAX_STEP_GROWTH * before)
        if not keep.any():
            break
        active = active[keep]
        p = p[keep]
        g = g[keep]
        pairs = [(s[keep], y[keep]) for s, y in pairs][-N_LBFGS_PAIRS:]
        thetas[active] += p
        after = gradients(thetas[active], active)
        pairs.append((p, after - g))
        g = after
    for i in np.flatnonzero(~done):
        thetas[i] = _minimum_by_newton(objective_without_rows(ob, i), at.theta)
    return thetas


def minima_without_groups(at: FactoredMinimum, groups: Any) -> Floats:
    """Return, for each row, the point (N, n) reached from theta without the rows of its group.
    `groups` (N,) holds the number of each row's group.
    """
    ob = at.ob
    thetas = np.empty((ob.n_samples, ob.n_params))
    weight = sample_weights(ob)
    for group in range(groups.max() + 1):
        if not np.any(weight[groups != group]):
            raise ValueError("groups must leave rows of positive weight when one is left out.")
        without = objective_without_rows(ob, groups == group)
        thetas[groups == group] = _minimum_by_newton(without, at.theta)
    return thetas


def is_convex_on_line(ob: Any, theta: Floats, end: Floats) -> bool:
    """Return True if the slope of the objective along the line from theta to `end` increases from
    each of `N_LINE_POINTS` equidistant points to the next, or if the points are equal.
    """
    d = end - theta
    slopes = [d @ ob.gradient(theta + t * d) for t in np.linspace(0, 1, N_LINE_POINTS)]
    return bool((np.diff(slopes) > 0).all() or not d.any())


def _minimum_by_newton(ob: Any, theta: Floats) -> Floats:
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


def _lbfgs_steps(factor: CholeskyFactor, pairs: Any, g: Floats) -> Floats:
    """Return the L-BFGS steps (rows, n) for gradients g (rows, n), from a list of `pairs` of steps
    and gradient differences, each (rows, n). The inverse of H is the initial matrix.
    """
    q = -g
    kept = []
    for s, y in reversed(pairs):
        sy = np.einsum("ij,ij->i", s, y)
        rho = np.where(sy > 0, 1 / np.where(sy > 0, sy, 1), 0.0)[:, None]
        alpha = rho * np.einsum("ij,ij->i", s, q)[:, None]
        q = q - alpha * y
        kept.append((s, y, rho, alpha))
    with serial_blas_context():
        q = multiply_by_lower_triangular(
            multiply_by_lower_triangular(q, factor.inverse_lower, True), factor.inverse_lower
        )
    for s, y, rho, alpha in reversed(kept):
        q = q + s * (alpha - rho * np.einsum("ij,ij->i", y, q)[:, None])
    return np.asarray(q)
