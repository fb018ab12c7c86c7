"""Objectives without one sample each: outputs of many networks at once, the minima of the
objectives without a sample, and proofs that these minima lie in the basin of the minimum with all
samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...certify.passes import passes_at
from ...common.linalg import cholesky_eigenvalue_floor, eigvalsh, multiply_by_lower_triangular
from ...common.objectives import call_certificate, sample_weights
from ...common.protocols import Floats
from ...common.runtime import raise_if_interrupted, serial_blas_context
from ...common.vectors import safe_norm
from ...critical.classify import classify
from ...critical.theorem import SCALAR_ROUND_UP_FACTOR, check_kantorovich, eta_bound
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
MAX_LINE_POINTS = 200  # maximum number of points on a line at which curvature is computed
N_TRIAL_LINE_POINTS = 10  # number of points after which a line that is too long is given up
# Allowances of the proofs for rounding errors in float64. They are CURVATURE_ERROR_RATIO times the
# curvature at a point and GRADIENT_ERROR_RATIO times the mean norm of the gradients of the samples,
# but at least CERTIFIED_ERROR_FACTOR times the certified errors at theta. All points lie near
# theta, so their rounding errors are of similar magnitude.
CURVATURE_ERROR_RATIO = 1e-6
GRADIENT_ERROR_RATIO = 1e-10
CERTIFIED_ERROR_FACTOR = 1000.0


def minima_without_rows(at: FactoredMinimum, coefficients: Floats) -> tuple[Floats, Any]:
    """Return the minima (N, n) of the objectives without each of the N samples, and a mask (N,) of
    the minima that are proved to lie in the same basin as theta.

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
    kept = np.zeros(N, bool)
    bounds = _RemovalProofBounds(at, float(np.linalg.norm(own, axis=1).mean()))
    for i in every:
        without = objective_without_rows(ob, i)
        if not done[i]:
            thetas[i] = _minimum_by_newton(without, at.theta)
        elif weight[i] == 0 or _is_in_same_basin(without, at.theta, thetas[i], bounds):
            kept[i] = True
    return thetas, kept


def minima_without_groups(at: FactoredMinimum, groups: Any) -> tuple[Floats, Any]:
    """Return, for each row, the minimum (N, n) that `minimize` reaches from theta without the rows
    of its group, and a mask (N,) of the rows whose minimum is proved to lie in the same basin as
    theta. `groups` (N,) holds the number of each row's group.
    """
    ob = at.ob
    thetas = np.empty((ob.n_samples, ob.n_params))
    kept = np.zeros(ob.n_samples, bool)
    X = dense_rows(ob.model, ob.X)
    gradients = _row_gradients(
        ob, X, np.broadcast_to(at.theta, thetas.shape), np.arange(ob.n_samples)
    )
    bounds = _RemovalProofBounds(at, float(np.linalg.norm(gradients, axis=1).mean()))
    weight = sample_weights(ob)
    for group in range(groups.max() + 1):
        if not np.any(weight[groups != group]):
            raise ValueError("groups must leave rows of positive weight when one is left out.")
        without = objective_without_rows(ob, groups == group)
        end = _minimum_by_newton(without, at.theta)
        thetas[groups == group] = end
        kept[groups == group] = _is_in_same_basin(without, at.theta, end, bounds)
    return thetas, kept


def _minimum_by_newton(ob: Any, theta: Floats) -> Floats:
    """Return the minimum (n,) that Newton steps reach from theta. If they do not converge,
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


class _RemovalProofBounds:
    """Quantities shared by the proofs for all samples: half of the smallest eigenvalue of H,
    allowances for the rounding errors of Hessians and gradients, and Lipschitz constants of the
    Hessian on balls around theta.

    The Lipschitz constants also hold without a sample, because they are sums of nonnegative terms
    of the samples.
    """

    def __init__(self, at: FactoredMinimum, gradient_size: float) -> None:
        self.at = at
        self.known = dict[int, float]()
        enclosed = at.ob.hessian(at.theta).assembled()
        self.hessian_error = (
            math.inf if enclosed is None else CERTIFIED_ERROR_FACTOR * enclosed.error_bound(None)
        )
        passes = passes_at(at.ob, at.theta)
        g = at.ob.gradient(at.theta)
        certified = CERTIFIED_ERROR_FACTOR * float(passes.gradient_error_bound(g))
        self.gradient_error = max(GRADIENT_ERROR_RATIO * gradient_size, certified)
        values = eigvalsh(at.factor.lower @ at.factor.lower.T)
        self.half_least = 0.5 * float(values[0])

    def third_bound(self, radius: float) -> float:
        """Return the Lipschitz constant for `radius` rounded up to a power of sqrt(2), or infinity
        if none is known.
        """
        if not radius > 0:
            return 0.0
        power = math.ceil(2 * math.log2(radius))
        if power not in self.known:
            found = call_certificate(self.at.ob, "third_bound", self.at.theta, 2 ** (power / 2))
            self.known[power] = math.inf if found is None else float(found)
        return self.known[power]


def _has_minimum_near(
    without: Any, end: Floats, distance: float, bounds: _RemovalProofBounds
) -> bool:
    """Return True if a minimum of the objective `without` one sample is proved near `end`, which is
    at the given distance from theta.

    The proof is Kantorovich's theorem if a Cholesky factor proves that the smallest eigenvalue at
    `end` is at least half of that of H at theta, with allowances for rounding. Otherwise `classify`
    is used, which takes about 30 times as long.
    """
    A = without.hessian(end).to_dense()
    error = max(CURVATURE_ERROR_RATIO * float(np.linalg.norm(A)), bounds.hessian_error)
    floor = cholesky_eigenvalue_floor(A, bounds.half_least) - error
    if floor > 0:
        size = safe_norm(without.gradient(end)) + bounds.gradient_error
        beta = SCALAR_ROUND_UP_FACTOR / floor
        around_end = check_kantorovich(
            beta,
            eta_bound(0.0, beta, size * SCALAR_ROUND_UP_FACTOR),
            lambda radius: bounds.third_bound((distance + radius) * SCALAR_ROUND_UP_FACTOR),
        )
        if around_end.holds:
            return True
    point = classify(without, end, progress=False)
    return point.kind == "minimum" and point.certified


def _is_in_same_basin(
    without: Any, theta: Floats, end: Floats, bounds: _RemovalProofBounds
) -> bool:
    """Return True if a minimum of the objective `without` one sample is proved near `end`, and this
    objective is proved to be strictly convex on the line from theta to `end`.

    Let d be the line and L the Lipschitz constant of the Hessian. ``d'Hd`` changes by at most ``L
    ||d||^3`` along the line, so finitely many points prove that the loss is convex on the whole
    line.
    """
    d = end - theta
    length = safe_norm(d)
    # The line is first, because it costs less where it fails.
    return _is_convex_on_line(without, theta, d, bounds) and _has_minimum_near(
        without, end, length, bounds
    )


def _is_convex_on_line(without: Any, theta: Floats, d: Floats, bounds: _RemovalProofBounds) -> bool:
    """Return True if `without` is proved to be strictly convex on the line from theta to theta +
    d. Return False after `N_TRIAL_LINE_POINTS` points if they cover so little of the line that
    `MAX_LINE_POINTS` would not cover half of it at that rate.
    """
    length = safe_norm(d)
    change = bounds.third_bound(length) * length**3 * (1 + CURVATURE_ERROR_RATIO)
    if not change < math.inf:
        return False
    at = covered = 0.0
    for i in range(MAX_LINE_POINTS):
        if i == N_TRIAL_LINE_POINTS and covered < 0.5 * i / MAX_LINE_POINTS:
            return False
        curvature = float(without.hessian(theta + at * d).quadratic_form(d)) * (
            1 - CURVATURE_ERROR_RATIO
        )
        curvature -= bounds.hessian_error * length**2
        if not curvature > 0:
            return False
        reach = curvature / change if change > 0 else math.inf
        # If part of the line before this point is not covered, a point half-way back is next.
        if at - reach >= covered and at > 0:
            at = 0.5 * (covered + at)
            continue
        covered = max(covered, at + reach)
        if covered > 1:
            return True
        at = min(1.0, covered + 0.8 * reach)
    return False
