"""Every rule of a verdict at a point constructed for it: what its sentence and reason claim is
checked against matrices and steps computed here in NumPy.
"""

import re

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.critical.decide import Reason
from fastcurv.testing import FunctionObjective, QuadraticObjective, compiled, zoo

NUMBER = r"(-?(?:\d+\.?\d*(?:e[-+]?\d+)?|inf))"
SLACK = 1e-6  # relative error of eigenvalues from differences of gradients


class Biased(LinearOperator):
    """The diagonal matrix with entries d as an operator whose `rounding_bound` is `error` times the
    norm of v.
    """

    def __init__(self, d, error):
        super().__init__(float, (len(d), len(d)))
        self.d, self.error = np.asarray(d), error

    def _matvec(self, v):
        return self.d * v.reshape(-1)

    def _adjoint(self):
        return self

    def rounding_bound(self, v):
        return self.error * np.linalg.norm(v)


def quadratic(*values):
    return QuadraticObjective(np.diag(np.asarray(values, dtype=float)))


def separable(value, slope, curvature, n):
    """Return ``sum of value(x_i)`` as an objective with only value, gradient and Hessian."""
    return FunctionObjective(
        n, lambda x: float(value(x).sum()), slope, lambda x: np.diag(curvature(x))
    )


def quartic(n=60):
    d = np.linspace(1, 2, n)
    return separable(
        lambda x: d * x**2 / 2 + x**4, lambda x: d * x + 4 * x**3, lambda x: d + 12 * x**2, n
    )


def cubic(unit=1.0):
    """Return the objective ``x^3 / 6 + y^2 / 2``, whose only critical point, the origin, is
    degenerate.
    """
    return FunctionObjective(
        2,
        lambda x: x[0] ** 3 / 6 + x[1] ** 2 / 2,
        lambda x: np.array([x[0] ** 2 / 2, x[1]]),
        lambda x: np.diag([x[0], 1.0]),
    )


def jump():
    """Return the objective ``x^2 / 2`` with 2 added to its slope below 1/2, where a Newton step
    from 1 leads.
    """
    return FunctionObjective(
        1,
        lambda x: x[0] ** 2 / 2 + (2 * x[0] - 1) * (x[0] < 0.5),
        lambda x: np.array([x[0] + 2 * (x[0] < 0.5)]),
        lambda x: np.eye(1),
    )


def ridge():
    return FunctionObjective(
        2,
        lambda x: x[0] ** 2 - x[1] ** 2 + x[0] ** 4,
        lambda x: np.array([2 * x[0] + 4 * x[0] ** 3, -2 * x[1]]),
        lambda x: np.diag([2 + 12 * x[0] ** 2, -2.0]),
    )


def skewed():
    A = np.array([[1.0, 1e-3], [0.0, 1e-5]])
    return QuadraticObjective(
        LinearOperator((2, 2), matvec=lambda v: A @ v.reshape(-1), matmat=lambda V: A @ V)
    )


def network(l2, off=0.0):
    """Return (objective, theta) for a 1-5-1 network, with theta at a minimum of its loss plus
    `off`.
    """
    x = np.linspace(-3, 3, 41)[:, None]
    ob = fc.Objective(fc.MLP([1, 5, 1], "tanh"), x, np.sin(x), "mse", l2=l2)
    how = {"verdict": False, "gradient_tol": 1e-13, "seed": 0}
    return ob, fc.minimize(ob, ob.model.init(seed=0), **how).x + off


def interpolating():
    X, y = np.array([[1.0], [2.0]]), np.array([[0.5], [-0.3]])
    ob = fc.Objective(fc.MLP([1, 4, 1], "tanh"), X, y, "mse")
    method = "levenberg-marquardt"
    return ob, fc.minimize(ob, ob.model.init(seed=0), method, seed=0, gradient_tol=1e-14).x


def relu(*layers):
    """Return (objective, theta) for a 1-2-1 relu network on targets of mean 0, where each of
    `layers` is a pair of weights and biases.
    """
    X, y = np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [-2.0], [1.0]])
    ob = fc.Objective(fc.MLP([1, 2, 1], "relu"), X, y, "mse")
    return ob, ob.model.flatten([tuple(np.array(part, float) for part in one) for one in layers])


STREAMED_ROWS = np.random.default_rng(0).standard_normal((60, 2))


def at_active_kinks():
    """Return (objective, theta) at a minimum with active kinks, for an objective that reads samples
    in blocks, so that no proof is available.
    """
    X = STREAMED_ROWS
    y = np.sin(2 * X.sum(axis=1)) + 0.1 * np.random.default_rng(1).standard_normal(60)
    ob = fc.Objective(fc.MLP([2, 5, 1], "relu"), X, y, "mse", l2=3e-3)
    x = fc.minimize(ob, ob.model.init(seed=1)).x
    blocks = [(X[i : i + 25], y[i : i + 25]) for i in range(0, 60, 25)]
    return fc.StreamedObjective(ob.model, blocks, loss="mse", l2=3e-3), x


def plane():
    g = np.array([0.3, -0.4, 1.2])
    return FunctionObjective(3, lambda x: g @ x, lambda x: g, lambda x: np.zeros((3, 3))), g


def one_class():
    return fc.Objective(fc.MLP([1, 2], []), [[1.0], [2.0]], [0, 0], "cross_entropy"), np.zeros(4)


def of_zoo(name):
    case = next(case for case in zoo() if case.name.startswith(name))
    return compiled(case.objective), case.theta


BIG = np.linspace(1, 2, 60)
BY_PRODUCTS = {"dense_below": 0}
AT_RISK = {"dense_below": 0, "failure_probability": 0.1, "curvature_tol": 0.2}

# rule, minimum number of claims to check, (objective, theta), options of `classify`
POINTS = [
    ("INFIMUM_AT_INFINITY", 1, one_class, {}),
    ("GRADIENT_ABOVE_TOL", 2, lambda: (quadratic(1, 2, 3), np.ones(3)), {}),
    ("GRADIENT_ABOVE_TOL", 3, lambda: (quadratic(1), np.ones(1)), {}),
    ("GRADIENT_ABOVE_TOL", 3, lambda: network(0.01, 1e-4), {}),
    ("INFIMUM_AT_INFINITY", 3, lambda: of_zoo("dead ReLU units on a slope"), {}),
    ("ON_PLATEAU", 3, plane, {}),
    ("DISTANCE_UNKNOWN", 1, lambda: network(0.01), {"max_products": 8, **BY_PRODUCTS}),
    ("MAYBE_KINK_MINIMUM", 3, at_active_kinks, {}),
    ("INTERPOLATION", 3, interpolating, {}),
    ("KANTOROVICH", 3, lambda: (quadratic(1, 2, 3), np.zeros(3)), {}),
    ("KANTOROVICH", 3, lambda: (quadratic(-1, -2), np.zeros(2)), {}),
    ("KANTOROVICH", 3, lambda: network(1.0, 1e-5), {"gradient_tol": 1.0}),
    ("KANTOROVICH", 3, lambda: of_zoo("4-1-4 autoencoder, I = {1}"), {}),
    ("KANTOROVICH_SADDLE", 3, lambda: (quadratic(-1, 2, 3), np.zeros(3)), {}),
    ("KANTOROVICH_SADDLE", 3, lambda: of_zoo("5-2-5 autoencoder, I = {2}"), {}),
    ("TWO_VECTOR_SADDLE", 2, lambda: (quadratic(-1, *BIG), np.zeros(61)), BY_PRODUCTS),
    ("TWO_VECTOR_SADDLE", 3, lambda: of_zoo("a unit of zeros added"), {}),
    ("CURVATURE_FLOOR", 2, lambda: network(1.0, 1e-4), {"gradient_tol": 1.0, **BY_PRODUCTS}),
    ("CURVATURE_FLOOR", 2, lambda: of_zoo("ridge"), BY_PRODUCTS),
    (
        "ONE_SIDED_SADDLE", 4,
        lambda: relu(([[1.0], [0.0]], [0.0, -1.0]), ([[0.0, 0.0]], [0.0])), {},
    ),
    ("ONE_SIDED_HESSIAN", 3, lambda: relu(([[0], [0]], [0, 0]), ([[0, 0]], [0])), {}),
    (
        "NO_ERROR_BOUND", 2,
        lambda: (QuadraticObjective(Biased([-1, 0, 1], np.inf)), np.zeros(3)), {},
    ),
    ("ZERO_HESSIAN", 2, lambda: (quadratic(0, 0, 0), np.zeros(3)), {}),
    ("ZERO_HESSIAN", 2, lambda: (quadratic(*0 * BIG), np.zeros(60)), BY_PRODUCTS),
    ("ASYMMETRIC_PRODUCTS", 3, lambda: (skewed(), np.zeros(2)), {}),
    ("ZERO_EIGENVALUES", 2, lambda: (quadratic(0, 1, 2), np.zeros(3)), {}),
    ("UNSTABLE_SIGNS", 2, lambda: (cubic(), np.array([1e-2, 0.0])), {"gradient_tol": 1.0}),
    ("GRADIENT_NOT_REDUCED", 4, lambda: (jump(), np.ones(1)), {"gradient_tol": 2.0}),
    ("MEASURED_SIGNS", 4, lambda: (quartic(2), np.zeros(2)), {}),
    ("MEASURED_SIGNS", 5, lambda: (quartic(3), np.full(3, 1e-7)), {"gradient_tol": 1e-3}),
    ("MEASURED_SADDLE", 4, lambda: (ridge(), np.zeros(2)), {}),
    (
        "STABILITY_UNKNOWN", 3, lambda: (quartic(), np.full(60, 1e-11)),
        {"max_products": 12, "gradient_tol": 1e-3, **AT_RISK},
    ),
    (
        "CURVATURE_FLOOR_AT_THETA", 2, lambda: network(1.0, 1e-2),
        {"gradient_tol": 10.0, **BY_PRODUCTS},
    ),
    (
        "UNSTABLE_CURVATURE", 3, lambda: (cubic(), np.array([1e-2, 0.0])),
        {"gradient_tol": 1.0, **AT_RISK},
    ),
    (
        "BELOW_PRODUCT_ERROR", 3,
        lambda: (QuadraticObjective(Biased(np.linspace(-1, 1, 60), 10.0)), np.zeros(60)),
        BY_PRODUCTS,
    ),
    ("NO_ACCEPTED_RISK", 4, lambda: (quadratic(*BIG), np.zeros(60)), BY_PRODUCTS),
    (
        "NO_ACCEPTED_RISK", 3, lambda: (quadratic(*BIG), np.zeros(60)),
        {"max_products": 8, **BY_PRODUCTS},
    ),
    (
        "NO_ACCEPTED_RISK", 4, lambda: (quadratic(*BIG), np.zeros(60)),
        {"max_products": 45, "curvature_tol": 0.05, **BY_PRODUCTS},
    ),
    (
        "RISK_TOO_LARGE", 3, lambda: (quadratic(*BIG), np.zeros(60)),
        {"dense_below": 0, "failure_probability": 1e-6, "max_products": 30},
    ),
    ("UNEXPLAINED_ZERO", 4, lambda: (quadratic(0, 2, 3), np.zeros(3)), AT_RISK),
    ("UNEXPLAINED_ZERO", 4, lambda: (quadratic(0, -2, -3), np.zeros(3)), AT_RISK),
    ("WITHIN_ACCEPTED_RISK", 4, lambda: (quadratic(*BIG), np.zeros(60)), AT_RISK),
    ("WITHIN_ACCEPTED_RISK", 4, lambda: (quadratic(1, 2, 3), np.zeros(3)), AT_RISK),
    ("WITHIN_ACCEPTED_RISK", 4, lambda: (quadratic(*-BIG), np.zeros(60)), AT_RISK),
]  # fmt: skip


class Facts:
    """A point and its verdict, with gradient, Hessian and eigenvalues computed from differences and
    products.
    """

    def __init__(self, ob, theta, point, options):
        self.ob, self.theta, self.point, self.options = ob, theta, point, options
        self.g, self.A = self.gradient(theta), self.matrix(theta)
        self.values = np.linalg.eigvalsh((self.A + self.A.T) / 2)
        self.size = np.abs(self.values).max()

    def gradient(self, x):
        return np.asarray(self.ob.gradient(x), dtype=float)

    def slopes(self, x, h=1e-6):
        """Return the gradient computed from central differences of the loss."""
        ends = ((self.ob.value(x + h * e), self.ob.value(x - h * e)) for e in np.eye(len(x)))
        return np.array([(above - below) / (2 * h) for above, below in ends])

    def matrix(self, x, h=1e-5):
        """Return the Hessian from central differences of the gradient, or from products if it is
        one-sided or not symmetric.
        """
        if self.point.n_kinks or isinstance(getattr(self.ob, "H", None), LinearOperator):
            return self.products(x)
        steps = h * np.eye(len(x))
        return np.array([(self.gradient(x + s) - self.gradient(x - s)) / (2 * h) for s in steps])

    def products(self, x):
        H = self.ob.hessian(x)
        return np.array([np.asarray(H @ e, float).reshape(-1) for e in np.eye(len(x))]).T

    def critical_point(self):
        """Return the point to which Newton's steps from theta converge, and the eigenvalues of the
        Hessian at that point.
        """
        x = self.theta.copy()
        for _ in range(8):
            x = x - np.linalg.pinv(self.matrix(x), rcond=1e-7) @ self.gradient(x)
        return x, np.linalg.eigvalsh((self.matrix(x) + self.matrix(x).T) / 2)

    def counted(self, values):
        """Return the eigenvalues without the `n_zero` of smallest size, which the verdict counts as
        zero.
        """
        zero = self.point.n_zero or 0
        return values[np.argsort(np.abs(values))[zero:]]

    def falls(self, direction):
        """Return True if the loss decreases from theta along the direction or its opposite."""
        here = self.ob.value(self.theta)
        steps = [s * t for t in 10.0 ** -np.arange(1, 6) for s in (1, -1)]
        return any(self.ob.value(self.theta + t * direction) < here - 1e-14 for t in steps)


def near(a, b, facts, error=0.0):
    return abs(a - b) <= error + 2e-3 * abs(a) + SLACK * facts.size


def gradient_size(f, said, sense, tolerance):
    if not f.point.n_kinks:  # at a kink, rounding chooses the side of the gradient
        assert np.allclose(f.slopes(f.theta), f.g, rtol=1e-4, atol=1e-6)
        assert near(float(said), np.linalg.norm(f.g), f, 1e-12)
    return (float(said) <= float(tolerance)) == (sense == "within")


def exactly_zero(f):
    return not f.g.any() and np.abs(f.slopes(f.theta)).max() <= 1e-8


def stationary(f):
    return np.linalg.norm(f.g) <= f.point.gradient_tol * (1 + 1e-3) + 1e-13


def times_tolerance(f, times):
    return near(float(times), np.linalg.norm(f.g) / f.point.gradient_tol, f)


def extremum_nearby(f, kind, where):
    """Return True if the loss is lower (for a maximum higher) nowhere around the critical point to
    which Newton's steps converge. Check that the point lies within the stated distance and has no
    curvature of the wrong sign.
    """
    x, values = f.critical_point()
    radius = 0.0 if where == "at theta" else float(where.split()[1])
    assert np.linalg.norm(x - f.theta) <= radius * 1.01 + 1e-9 * (1 + np.linalg.norm(f.theta))
    sign = 1 if kind == "minimum" else -1
    assert (sign * values >= -SLACK * f.size).all()
    rng, best = np.random.default_rng(0), f.ob.value(x)
    around = [f.ob.value(x + 1e-3 * rng.standard_normal(len(x))) for _ in range(20)]
    return all(sign * (value - best) >= -1e-12 for value in around)


def proved_place(f, radius):
    x, _ = f.critical_point()
    return np.linalg.norm(x - f.theta) <= float(radius) * 1.01 + 1e-9 * (1 + np.linalg.norm(x))


def all_of_a_sign(f, count, sign):
    values = f.counted(f.values)
    assert len(values) == int(count) == len(f.theta) - (f.point.n_symmetry or 0)
    return ((values > 0) if sign == "positive" else (values < 0)).all()


def every_sign(f, sign):
    return all_of_a_sign(f, len(f.theta) - (f.point.n_symmetry or 0), sign)


def weakest(f, size, error):
    return near(float(size), np.abs(f.counted(f.values)).min(), f, float(error))


def inertia(f, negative, positive):
    error = 1e-6 * f.size
    found = (f.values < -error).sum(), (f.values > error).sum()
    return found == (int(negative), int(positive))


def spectrum_range(f, low, high):
    """Return True if the stated numbers are the ends of the spectrum, or Ritz values within the
    spectrum.
    """
    low, high = float(low), float(high)
    exact = near(low, f.values[0], f) and near(high, f.values[-1], f)
    inside = f.values[0] - SLACK * f.size <= low <= high <= f.values[-1] + SLACK * f.size
    return exact or f.point.method == "krylov" and inside


def both_signs(f):
    return f.values[0] < -SLACK * f.size < SLACK * f.size < f.values[-1]


def lower_bound(f, floor):
    return 0 < float(floor) <= f.values[0] + SLACK * f.size


def none_beyond(f, side, share, of_width=""):
    width = f.values[-1] - f.values[0]
    outermost = -f.values[0] if side == "below -" else f.values[-1]
    return outermost <= abs(float(share)) * width + SLACK * f.size


def zeros_within(f, count, error):
    return (np.abs(f.values) <= float(error) + 1e-9 * f.size).sum() == int(count)


def a_zero_within(f, error):
    return np.abs(f.values).min() <= float(error)


def is_zero(f):
    return not f.products(f.theta).any() and f.size <= 1e-12


def budget_ended(f, budget):
    """Return True if a larger budget gives another verdict. Check that the stated budget was
    kept.
    """
    assert f.point.n_products <= int(budget) == f.options["max_products"]
    more = fc.classify(f.ob, f.theta, **f.options | {"max_products": 4000})
    return more._rule is not f.point._rule


def falls_along_escape(f):
    return f.falls(f.point.escape_direction)


def falls_nowhere_along_gradient(f):
    d = -f.g / np.linalg.norm(f.g)
    here = f.ob.value(f.theta)
    return all(f.ob.value(f.theta + t * d) >= here - 1e-15 for t in 10.0 ** -np.arange(1, 9.0))


def step_reduces_gradient(f, expected):
    step = -np.linalg.solve(f.products(f.theta), f.g)
    after, before = np.linalg.norm(f.gradient(f.theta + step)), np.linalg.norm(f.g)
    return (after < before or before == 0) == expected


def signs_end(f, *_):
    """Return True if some eigenvalue has another sign at theta than at the critical point 0."""
    there = np.linalg.eigvalsh(f.products(np.zeros_like(f.theta)))
    return (np.sign(there) != np.sign(f.values)).any()


def infimum_at_infinity(f):
    """Return True if the loss decreases along minus the gradient until it is below 1e-6 of its
    value at theta.
    """
    d = -f.g / np.linalg.norm(f.g)
    losses = [f.ob.value(f.theta + t * d) for t in (0, 1, 2, 4, 8, 16, 32, 64)]
    return (np.diff(losses) < 0).all() and losses[-1] < 1e-6 * losses[0]


def residuals_vanish(f, radius, count):
    """Return True if Gauss-Newton steps of least length reach a zero of all residuals within the
    radius.
    """
    x = f.theta.copy()
    for _ in range(6):
        J = f.ob.jacobian(x).to_dense()
        r = np.asarray(f.ob.model.predict(x, f.ob.X) - f.ob.y).reshape(-1)
        x = x - np.linalg.lstsq(J, r, rcond=None)[0]
    n_residuals = 2 if count == "both" else int(count.split()[1])
    assert len(r) == n_residuals and f.ob.value(x) <= 1e-30
    return np.linalg.norm(x - f.theta) <= float(radius) * 1.01 + 1e-14


def zeros_of_the_family(f, count):
    J = f.ob.jacobian(f.theta).to_dense()
    return len(f.theta) - np.linalg.matrix_rank(J) == int(count)


def kinks(f, count):
    """Return True if `count` pre-activations of hidden units are 0 up to rounding."""
    layers, found = f.ob.model.unflatten(f.theta), 0
    h = STREAMED_ROWS if isinstance(f.ob, fc.StreamedObjective) else f.ob.X
    for W, b in layers[:-1]:
        z = h @ W.T + b
        found += int((np.abs(z) <= 1e-13 * (np.abs(h) @ np.abs(W).T + np.abs(b) + 1e-300)).sum())
        h = np.maximum(z, 0)
    return found == int(count)


def follow_advice(f, risk):
    again = fc.classify(f.ob, f.theta, **f.options | {"failure_probability": float(risk)})
    return again.kind in ("minimum", "maximum") and again.failure_probability <= float(risk)


def no_risk_below_one(f):
    """Return True if a larger limit permits a verdict with an error probability."""
    with pytest.raises(ValueError):
        fc.classify(f.ob, f.theta, failure_probability=1.0)
    options = f.options | {"max_products": 4000, "failure_probability": 0.01}
    return 0 < fc.classify(f.ob, f.theta, **options).failure_probability <= 0.01


def a_risk(f, risk):
    return 0 < float(risk) < 1 and near(float(risk), f.point.failure_probability, f)


def a_risk_above(f, risk):
    return f.options["failure_probability"] < float(risk) <= 1


def asymmetric(f, error, count, n):
    A = f.products(f.theta)
    assert np.abs(A - A.T).max() > 0 and int(n) == len(A)
    return (np.abs(f.values) <= float(error)).sum() == int(count)


def two_signs_around(f, radius):
    """Return True if the curvature along the escape direction is negative at five points within the
    radius, and the largest eigenvalue at theta is positive.
    """
    d, rng = f.point.escape_direction, np.random.default_rng(0)
    reach = min(float(radius), 1.0)
    for _ in range(5):
        s = rng.standard_normal(len(d))
        if not d @ (f.products(f.theta + 0.99 * reach * s / np.linalg.norm(s)) @ d) < 0:
            return False
    return f.values[-1] > 0


def outside_range(f, share):
    vectors = np.linalg.eigh(f.A)[1][:, np.abs(np.linalg.eigh(f.A)[0]) > 1e-6 * f.size]
    left = np.linalg.norm(f.g - vectors @ (vectors.T @ f.g)) / np.linalg.norm(f.g)
    return left == pytest.approx(float(share or 1), rel=1e-3, abs=1e-3)


def dead_units(f, count, n):
    layers, h, dead, total = f.ob.model.unflatten(f.theta), f.ob.X, 0, 0
    for W, b in layers[:-1]:
        h = np.maximum(h @ W.T + b, 0)
        dead, total = dead + int((h == 0).all(axis=0).sum()), total + len(W)
    return (dead, total) == (int(count), int(n))


def leads_to(f, steps, distance):
    end = f.point.nearest_point
    assert near(float(distance), np.linalg.norm(end - f.theta), f)
    return int(steps) >= 1 and np.linalg.norm(f.gradient(end)) <= 1e-9 * np.linalg.norm(f.g)


def contracts_only(f):
    """Return True if a Newton step reduces the gradient and the verdict gives no nearest point."""
    return step_reduces_gradient(f, True) and f.point.nearest_point is None


def error_unknown(f, n):
    return int(n) == len(f.theta) and f.ob.hessian(f.theta).rounding_bound(f.theta + 1) == np.inf


def within_error(f):
    return f.size < f.ob.hessian(f.theta).rounding_bound(np.eye(len(f.theta))[0])


# a pattern for a claim in a sentence or reason, and the function that checks the claim with the
# numbers in it
CLAIMS = {
    rf"\|\|g\|\| = {NUMBER} is (within|above) its tolerance {NUMBER}": gradient_size,
    r"the gradient is exactly 0": exactly_zero,
    r"the gradient at theta is within its tolerance": stationary,
    rf"the gradient norm is {NUMBER} times its tolerance": times_tolerance,
    r"a local (minimum|maximum) lies (at theta|within \S+ of theta)": extremum_nearby,
    rf"a critical point is proved to lie within {NUMBER} of theta": proved_place,
    r"(?:all|the other) (\d+)(?: eigenvalues of the Hessian)? are (positive|negative)":
        all_of_a_sign,
    r"ll (\d+) eigenvalues are (?:proved|measured) to be (positive|negative)": all_of_a_sign,
    r"oth eigenvalues(?: of the Hessian)? are (?:proved to be |)(positive|negative)": every_sign,
    r"the only eigenvalue is proved to be (positive|negative)": every_sign,
    r"every eigenvalue of the Hessian at theta is (positive|negative)": every_sign,
    # Numbers for rescaled parameters, which follow "of similar size", are not checked.
    rf"(?<!size, the smallest )magnitude of the eigenvalues? is {NUMBER}, with an error below "
    rf"{NUMBER}": weakest,
    rf"(?<!size, the smallest )magnitude of the nonzero eigenvalues? is {NUMBER}, with an error "
    rf"below {NUMBER}": weakest,
    r"(\d+) negative and (\d+) positive eigenvalues?": inertia,
    r"(?<!least )(\d+) of \d+ eigenvalues (?:is|are) proved to be negative and (\d+) to be":
        inertia,
    rf"from {NUMBER} to {NUMBER}": spectrum_range,
    r"eigenvalues of both signs": both_signs,
    rf"no eigenvalue lies below {NUMBER}\. This lower bound is l2": lower_bound,
    rf"no eigenvalue(?: at theta)? lies (below -|above ){NUMBER} times \(": none_beyond,
    rf"Within the error {NUMBER}, (\d+) of \d+ eigenvalues of the Hessian (?:is|are) zero":
        lambda f, error, count: zeros_within(f, count, error),
    rf"n eigenvalue is zero within the error {NUMBER}, and": a_zero_within,
    r"ll computed products with the Hessian H are zero": is_zero,
    r"limit max_products = (\d+) is too small(?! even)": budget_ended,
    r"he loss was found to decrease along escape_direction or its opposite": falls_along_escape,
    r"he loss was not found to decrease along -g": falls_nowhere_along_gradient,
    r"Newton step does not reduce the gradient": lambda f: step_reduces_gradient(f, False),
    r"After this step the gradient was smaller": lambda f: step_reduces_gradient(f, True),
    r"may change sign between theta and the nearby critical point": signs_end,
    r"was not found to keep its sign and size": signs_end,
    r"the loss is proved to decrease without end from here": infimum_at_infinity,
    rf"is proved to lie within {NUMBER} of theta. There (both|all \d+) residuals": residuals_vanish,
    r"points of loss 0 nearby explain the (\d+) zero": zeros_of_the_family,
    r"(\d+) pre-activations? lies? within rounding of a kink": kinks,
    rf"failure_probability={NUMBER} would allow a verdict": follow_advice,
    r"limit max_products = \d+ is too small even for a verdict": no_risk_below_one,
    rf"[Ww]ith probability at least 1 - {NUMBER},": a_risk,
    rf"(?:Minimum|Maximum), with an error probability of {NUMBER}:": a_risk,
    rf"\(lambda_max - lambda_min\) was missed (?:is at most|has no known bound below) {NUMBER}\. ":
        a_risk_above,
    rf"errors up to {NUMBER}, within which (\d+) of (\d+) eigenvalues": asymmetric,
    rf"opposite signs at every point within {NUMBER} of theta": two_signs_around,
    rf"and (?:g|a component of g of norm {NUMBER} \|\|g\|\|) lies outside the range of the Hessian":
        outside_range,
    r"(\d+) of (\d+) units (?:is|are) dead": dead_units,
    rf"(\d+) Newton steps? leads? to .* at a distance of {NUMBER}\. ": leads_to,
    r"Newton steps from theta converge as far as rounding permits": contracts_only,
    r"no bound on the errors of the (\d+) eigenvalues is known": error_unknown,
    r"magnitudes are smaller than the error of the products": within_error,
}  # fmt: skip


@pytest.mark.parametrize(
    "rule, n_claims, make, options", POINTS, ids=[f"{i}-{p[0]}" for i, p in enumerate(POINTS)]
)
def test_every_claim_of_a_verdict_is_true(rule, n_claims, make, options):
    """Each claim in the sentence and the reason of a verdict holds at its point, by NumPy's
    matrices and steps.
    """
    ob, theta = make()
    point = fc.classify(ob, theta, seed=0, **options)
    assert point._rule is Reason[rule], point
    text = f"{point.sentence} {point.reason}"
    facts, checked = Facts(ob, theta, point, {"seed": 0, **options}), 0
    for claim, check in CLAIMS.items():
        for match in re.finditer(claim, text):
            assert check(facts, *match.groups()), (match[0], point)
            checked += 1
    assert checked >= n_claims, (checked, text)


def test_every_rule_has_a_point_and_every_claim_is_made_somewhere():
    assert {rule for rule, *_ in POINTS} == set(Reason.__members__)
    said = " ".join(
        f"{p.sentence} {p.reason}"
        for p in (fc.classify(*make(), seed=0, **how) for _, _, make, how in POINTS)
    )
    assert [claim for claim in CLAIMS if not re.search(claim, said)] == []


def test_a_certified_point_nearby_replaces_the_advice_to_reduce_the_gradient():
    ob, theta = network(1.0, 1e-2)
    point = fc.classify(ob, theta, seed=0, gradient_tol=10.0, **BY_PRODUCTS)
    assert point._rule is Reason.CURVATURE_FLOOR_AT_THETA
    assert point.nearest_verdict.certified and point.nearest_verdict.kind == "minimum"
    assert "to reduce the gradient" not in point.reason


def test_inertia_at_a_kink_is_that_of_the_one_sided_hessian():
    """At a kink, where the Hessian jumps, all signs that the one-sided Hessian has by NumPy are
    counted, for a saddle and for an undecided point.
    """
    kinds = set()
    for weight in (1.0, -1.0):
        ob, theta = relu(([[1.0], [0.0]], [0.0, -1.0]), ([[0.0, 0.0]], [0.0]))
        theta[4] = weight * theta[4]
        ob = fc.Objective(ob.model, ob.X, weight * np.array(ob.y), "mse")
        for point_theta in (theta, theta * [1, 1, 0, 1, 1, 1, 1]):
            point = fc.classify(ob, point_theta)
            H = ob.hessian(point_theta)
            values = np.linalg.eigvalsh(np.array([H @ e for e in np.eye(7)]))
            expected = (int((values > 1e-9).sum()), int((values < -1e-9).sum()))
            assert (point.n_positive, point.n_negative) == expected, point
            assert point.n_kinks and point.n_zero == 7 - sum(expected)
            kinds.add(point.kind)
    assert "saddle" in kinds
