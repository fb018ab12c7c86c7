"""Every rule of a verdict at a point constructed for it: the fields of the verdict are checked
against matrices and steps computed here in NumPy.
"""

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.certify import rounding_bound
from fastcurv.critical.decide import Reason
from fastcurv.critical.evidence import CURVATURE_TOL
from fastcurv.testing import FunctionObjective, QuadraticObjective

from ..zoo import zoo

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
    how = {"verdict": False, "gradient_tol": 1e-13, "rng": 0}
    return ob, fc.minimize(ob, ob.model.init(rng=0), **how).x + off


def interpolating():
    X, y = np.array([[1.0], [2.0]]), np.array([[0.5], [-0.3]])
    ob = fc.Objective(fc.MLP([1, 4, 1], "tanh"), X, y, "mse")
    method = "levenberg-marquardt"
    return ob, fc.minimize(ob, ob.model.init(rng=0), method, rng=0, gradient_tol=1e-14).x


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
    x = fc.minimize(ob, ob.model.init(rng=1)).x
    return fc.StreamedObjective(ob.model, X, y, loss="mse", l2=3e-3, block_rows=25), x


def plane():
    g = np.array([0.3, -0.4, 1.2])
    return FunctionObjective(3, lambda x: g @ x, lambda x: g, lambda x: np.zeros((3, 3))), g


def one_class():
    return fc.Objective(fc.MLP([1, 2], []), [[1.0], [2.0]], [0, 0], "cross_entropy"), np.zeros(4)


def of_zoo(name):
    case = next(case for case in zoo() if case.name.startswith(name))
    return case.objective, case.theta


BIG = np.linspace(1, 2, 60)
BY_PRODUCTS = {"dense_below": 0}
AT_RISK = {"dense_below": 0, "failure_probability": 0.1}

# rule, (objective, theta), options of `classify`
POINTS = [
    ("INFIMUM_AT_INFINITY", one_class, {}),
    ("GRADIENT_ABOVE_TOL", lambda: (quadratic(1, 2, 3), np.ones(3)), {}),
    ("GRADIENT_ABOVE_TOL", lambda: (quadratic(1), np.ones(1)), {}),
    ("GRADIENT_ABOVE_TOL", lambda: network(0.01, 1e-4), {}),
    ("INFIMUM_AT_INFINITY", lambda: of_zoo("dead ReLU units on a slope"), {}),
    ("ON_PLATEAU", plane, {}),
    ("DISTANCE_UNKNOWN", lambda: network(0.01), {"max_products": 8, **BY_PRODUCTS}),
    ("MAYBE_KINK_MINIMUM", at_active_kinks, {}),
    ("INTERPOLATION", interpolating, {}),
    ("KANTOROVICH", lambda: (quadratic(1, 2, 3), np.zeros(3)), {}),
    ("KANTOROVICH", lambda: (quadratic(-1, -2), np.zeros(2)), {}),
    ("KANTOROVICH", lambda: network(1.0, 1e-5), {"gradient_tol": 1.0}),
    ("KANTOROVICH", lambda: of_zoo("4-1-4 autoencoder, I = {1}"), {}),
    ("KANTOROVICH_SADDLE", lambda: (quadratic(-1, 2, 3), np.zeros(3)), {}),
    ("KANTOROVICH_SADDLE", lambda: of_zoo("5-2-5 autoencoder, I = {2}"), {}),
    ("TWO_VECTOR_SADDLE", lambda: (quadratic(-1, *BIG), np.zeros(61)), BY_PRODUCTS),
    ("TWO_VECTOR_SADDLE", lambda: of_zoo("a unit of zeros added"), {}),
    ("CURVATURE_FLOOR", lambda: network(1.0, 1e-4), {"gradient_tol": 1.0, **BY_PRODUCTS}),
    ("CURVATURE_FLOOR", lambda: of_zoo("ridge"), BY_PRODUCTS),
    (
        "ONE_SIDED_SADDLE",
        lambda: relu(([[1.0], [0.0]], [0.0, -1.0]), ([[0.0, 0.0]], [0.0])), {},
    ),
    ("ONE_SIDED_HESSIAN", lambda: relu(([[0], [0]], [0, 0]), ([[0, 0]], [0])), {}),
    (
        "NO_ERROR_BOUND",
        lambda: (QuadraticObjective(Biased([-1, 0, 1], np.inf)), np.zeros(3)), {},
    ),
    ("ZERO_HESSIAN", lambda: (quadratic(0, 0, 0), np.zeros(3)), {}),
    ("ZERO_HESSIAN", lambda: (quadratic(*0 * BIG), np.zeros(60)), BY_PRODUCTS),
    ("ASYMMETRIC_PRODUCTS", lambda: (skewed(), np.zeros(2)), {}),
    ("ZERO_EIGENVALUES", lambda: (quadratic(0, 1, 2), np.zeros(3)), {}),
    ("UNSTABLE_SIGNS", lambda: (cubic(), np.array([1e-2, 0.0])), {"gradient_tol": 1.0}),
    ("GRADIENT_NOT_REDUCED", lambda: (jump(), np.ones(1)), {"gradient_tol": 2.0}),
    ("MEASURED_SIGNS", lambda: (quartic(2), np.zeros(2)), {}),
    ("MEASURED_SIGNS", lambda: (quartic(3), np.full(3, 1e-7)), {"gradient_tol": 1e-3}),
    ("MEASURED_SADDLE", lambda: (ridge(), np.zeros(2)), {}),
    (
        "STABILITY_UNKNOWN", lambda: (quartic(), np.full(60, 1e-11)),
        {"max_products": 12, "gradient_tol": 1e-3, **AT_RISK},
    ),
    (
        "CURVATURE_FLOOR_AT_THETA", lambda: network(1.0, 1e-2),
        {"gradient_tol": 10.0, **BY_PRODUCTS},
    ),
    (
        "UNSTABLE_CURVATURE", lambda: (cubic(), np.array([1e-2, 0.0])),
        {"gradient_tol": 1.0, **AT_RISK},
    ),
    (
        "BELOW_PRODUCT_ERROR",
        lambda: (QuadraticObjective(Biased(np.linspace(-1, 1, 60), 10.0)), np.zeros(60)),
        BY_PRODUCTS,
    ),
    ("NO_ACCEPTED_RISK", lambda: (quadratic(*BIG), np.zeros(60)), BY_PRODUCTS),
    (
        "NO_ACCEPTED_RISK", lambda: (quadratic(*BIG), np.zeros(60)),
        {"max_products": 8, **BY_PRODUCTS},
    ),
    (
        "NO_ACCEPTED_RISK", lambda: (quadratic(*BIG), np.zeros(60)),
        {"max_products": 45, **BY_PRODUCTS},
    ),
    (
        "RISK_TOO_LARGE", lambda: (quadratic(*BIG), np.zeros(60)),
        {"dense_below": 0, "failure_probability": 1e-6, "max_products": 30},
    ),
    ("UNEXPLAINED_ZERO", lambda: (quadratic(0, 2, 3), np.zeros(3)), AT_RISK),
    ("UNEXPLAINED_ZERO", lambda: (quadratic(0, -2, -3), np.zeros(3)), AT_RISK),
    ("WITHIN_ACCEPTED_RISK", lambda: (quadratic(*BIG), np.zeros(60)), AT_RISK),
    ("WITHIN_ACCEPTED_RISK", lambda: (quadratic(1, 2, 3), np.zeros(3)), AT_RISK),
    ("WITHIN_ACCEPTED_RISK", lambda: (quadratic(*-BIG), np.zeros(60)), AT_RISK),
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
        if self.point.evidence.n_kinks or isinstance(getattr(self.ob, "H", None), LinearOperator):
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


def number(f, name):
    return f.point._numbers[name]


def gradient_size(f):
    if not f.point.evidence.n_kinks:  # at a kink, rounding chooses the side of the gradient
        assert np.allclose(f.slopes(f.theta), f.g, rtol=1e-4, atol=1e-6)
        assert near(f.point.gradient_norm, np.linalg.norm(f.g), f, 1e-12)
    return True


def extremum_nearby(f):
    """Return True if the loss is lower (for a maximum higher) nowhere around the critical point to
    which Newton's steps converge. Check that the point lies within the proved radius and has no
    curvature of the wrong sign.
    """
    x, values = f.critical_point()
    assert proved_place(f)
    sign = 1 if f.point.kind == "minimum" else -1
    assert (sign * values >= -SLACK * f.size).all()
    rng, best = np.random.default_rng(0), f.ob.value(x)
    around = [f.ob.value(x + 1e-3 * rng.standard_normal(len(x))) for _ in range(20)]
    return all(sign * (value - best) >= -1e-12 for value in around)


def proved_place(f):
    x, _ = f.critical_point()
    gap = np.linalg.norm(x - f.theta)
    return gap <= f.point.radius * 1.01 + 1e-9 * (1 + np.linalg.norm(x))


def all_of_a_sign(f):
    values = f.counted(f.values)
    assert len(values) == len(f.theta) - (f.point.evidence.n_symmetry or 0)
    return ((values > 0) if f.point.kind == "minimum" else (values < 0)).all()


def weakest(f):
    if f.point._clauses["units"]:  # the number is for rescaled parameters
        return True
    least = np.abs(f.counted(f.values)).min()
    return near(number(f, "smallest_magnitude"), least, f, number(f, "smallest_magnitude_error"))


def inertia(f):
    """Return True if the numbers of positive and negative eigenvalues, where they are known, are
    those of the matrix at theta without the eigenvalues that count as zero.
    """
    p, error = f.point, 1e-6 * f.size
    if (
        p.n_negative is None
        or p.evidence.n_kinks
        or p.rule in ("asymmetric_products", "unstable_signs", "infimum_at_infinity")
    ):
        return True
    found = (f.values < -error).sum(), (f.values > error).sum()
    return found == (p.n_negative, p.n_positive)


def spectrum_range(f):
    """Return True if the ends of the spectrum are those of the matrix, or Ritz values within the
    spectrum.
    """
    low, high = f.point.lambda_min, f.point.lambda_max
    exact = near(low, f.values[0], f, 1e-12) and near(high, f.values[-1], f, 1e-12)
    inside = f.values[0] - SLACK * f.size <= low <= high <= f.values[-1] + SLACK * f.size
    return exact or f.point.evidence.method == "krylov" and (inside or np.isnan(low))


def both_signs(f):
    return f.values[0] < -SLACK * f.size < SLACK * f.size < f.values[-1]


def lower_bound(f):
    return 0 < number(f, "curvature_floor") <= f.values[0] + SLACK * f.size


def none_beyond(f):
    width = f.values[-1] - f.values[0]
    outermost = -f.values[0] if number(f, "other_sign") == "negative" else f.values[-1]
    return outermost <= CURVATURE_TOL * width + SLACK * f.size


def zeros_within(f):
    within = np.abs(f.values) <= number(f, "smallest_magnitude_error") + 1e-9 * f.size
    return within.sum() == f.point.n_zero


def a_zero_within(f):
    return np.abs(f.values).min() <= number(f, "smallest_magnitude_error")


def is_zero(f):
    return not f.products(f.theta).any() and f.size <= 1e-12


def budget_ended(f):
    """Return True if a larger budget gives another verdict. Check that the budget was kept."""
    assert (
        f.point.n_products <= f.options["max_products"] and f.point.evidence.limit == "max_products"
    )
    more = fc.classify(f.ob, f.theta, **f.options | {"max_products": 4000})
    return more.rule is not f.point.rule


def falls_along_escape(f):
    return f.falls(f.point.escape_direction)


def falls_nowhere_along_gradient(f):
    d = -f.g / np.linalg.norm(f.g)
    here = f.ob.value(f.theta)
    return all(f.ob.value(f.theta + t * d) >= here - 1e-15 for t in 10.0 ** -np.arange(1, 9.0))


def step_reduces_gradient(f):
    step = -np.linalg.solve(f.products(f.theta), f.g)
    after, before = np.linalg.norm(f.gradient(f.theta + step)), np.linalg.norm(f.g)
    return after < before or before == 0


def signs_end(f):
    """Return True if some eigenvalue has another sign at theta than at the critical point 0."""
    there = np.linalg.eigvalsh(f.products(np.zeros_like(f.theta)))
    return (np.sign(there) != np.sign(f.values)).any()


def infimum_at_infinity(f):
    """Return True if the loss decreases along minus the gradient at every step."""
    d = -f.g / np.linalg.norm(f.g)
    losses = [f.ob.value(f.theta + t * d) for t in (0, 1, 2, 4, 8, 16, 32, 64)]
    return (np.diff(losses) < 0).all()


def residuals_vanish(f):
    """Return True if Gauss-Newton steps of least length reach a zero of all residuals within the
    radius, and the Jacobian explains the number of zero eigenvalues.
    """
    x = f.theta.copy()
    for _ in range(6):
        J = f.ob.jacobian(x).to_dense()
        r = np.asarray(f.ob.model.predict(x, f.ob.X) - f.ob.y).reshape(-1)
        x = x - np.linalg.lstsq(J, r, rcond=None)[0]
    assert len(r) == number(f, "n_residuals") and f.ob.value(x) <= 1e-30
    J = f.ob.jacobian(f.theta).to_dense()
    assert len(f.theta) - np.linalg.matrix_rank(J) == f.point.n_zero
    return np.linalg.norm(x - f.theta) <= f.point.radius * 1.01 + 1e-14


def kinks(f):
    """Return True if `n_kinks` pre-activations of hidden units are 0 up to rounding."""
    layers, found = f.ob.model.unflatten(f.theta), 0
    h = STREAMED_ROWS if isinstance(f.ob, fc.StreamedObjective) else f.ob.X
    for W, b in layers[:-1]:
        z = h @ W.T + b
        found += int((np.abs(z) <= 1e-13 * (np.abs(h) @ np.abs(W).T + np.abs(b) + 1e-300)).sum())
        h = np.maximum(z, 0)
    return found == f.point.evidence.n_kinks > 0


def risk_is_honest(f):
    """Return True if following the advice, a failure probability or a larger limit, gives a verdict
    with at most that error probability.
    """
    risk = float(f.point._numbers.get("suggested_risk", 0.01))
    options = f.options | {"failure_probability": risk}
    if f.point.evidence.limit is not None:
        options |= {"max_products": 4000}
    again = fc.classify(f.ob, f.theta, **options)
    return again.kind in ("minimum", "maximum") and 0 < again.failure_probability <= risk


def a_risk(f):
    return 0 < f.point.failure_probability <= f.options["failure_probability"]


def a_risk_above(f):
    return f.options["failure_probability"] < number(f, "risk")


def asymmetric(f):
    A = f.products(f.theta)
    assert np.abs(A - A.T).max() > 0
    return (np.abs(f.values) <= number(f, "smallest_magnitude_error")).sum() == f.point.n_zero


def two_signs_around(f):
    """Return True if the curvature along the escape direction is negative at five points within the
    radius, and the largest eigenvalue at theta is positive.
    """
    d, rng = f.point.escape_direction, np.random.default_rng(0)
    reach = min(f.point.radius, 1.0)
    for _ in range(5):
        s = rng.standard_normal(len(d))
        if not d @ (f.products(f.theta + 0.99 * reach * s / np.linalg.norm(s)) @ d) < 0:
            return False
    return f.values[-1] > 0


def outside_range(f):
    vectors = np.linalg.eigh(f.A)[1][:, np.abs(np.linalg.eigh(f.A)[0]) > 1e-6 * f.size]
    left = np.linalg.norm(f.g - vectors @ (vectors.T @ f.g)) / np.linalg.norm(f.g)
    return left == pytest.approx(f.point.evidence.gradient_residual, rel=1e-3, abs=1e-3)


def newton_steps(f):
    """Return True if the nearest point, if there is one, is a critical point at the distance that
    the verdict gives, and Newton's step predicts the change of the loss that it gives.
    """
    p = f.point
    predicted = 0.5 * f.g @ np.linalg.solve(f.A, f.g)
    assert near(number(f, "decrement"), predicted, f)
    if p.evidence.newton_steps != "converged":
        return step_reduces_gradient(f) and p.nearest_point is None
    assert near(p.evidence.nearest_distance, np.linalg.norm(p.nearest_point - f.theta), f)
    small = np.linalg.norm(f.gradient(p.nearest_point)) <= 1e-9 * np.linalg.norm(f.g)
    return p.evidence.n_newton_steps >= 1 and small


def error_unknown(f):
    return rounding_bound(f.ob.hessian(f.theta), f.theta + 1) == np.inf


def within_error(f):
    return f.size < rounding_bound(f.ob.hessian(f.theta), np.eye(len(f.theta))[0])


# the functions that check the fields of a verdict by each rule
CHECKS = {
    "INFIMUM_AT_INFINITY": [infimum_at_infinity],
    "GRADIENT_ABOVE_TOL": [newton_steps],
    "ON_PLATEAU": [outside_range],
    "DISTANCE_UNKNOWN": [budget_ended],
    "MAYBE_KINK_MINIMUM": [kinks, falls_nowhere_along_gradient],
    "INTERPOLATION": [residuals_vanish],
    "KANTOROVICH": [extremum_nearby, all_of_a_sign, weakest],
    "KANTOROVICH_SADDLE": [proved_place, both_signs, weakest],
    "TWO_VECTOR_SADDLE": [two_signs_around, both_signs],
    "CURVATURE_FLOOR": [extremum_nearby, lower_bound],
    "ONE_SIDED_SADDLE": [kinks, both_signs, falls_along_escape],
    "ONE_SIDED_HESSIAN": [kinks],
    "NO_ERROR_BOUND": [error_unknown],
    "ZERO_HESSIAN": [is_zero],
    "ASYMMETRIC_PRODUCTS": [asymmetric],
    "ZERO_EIGENVALUES": [zeros_within],
    "UNSTABLE_SIGNS": [signs_end],
    "GRADIENT_NOT_REDUCED": [lambda f: not step_reduces_gradient(f)],
    "MEASURED_SIGNS": [all_of_a_sign, weakest, step_reduces_gradient],
    "MEASURED_SADDLE": [both_signs],
    "STABILITY_UNKNOWN": [budget_ended],
    "CURVATURE_FLOOR_AT_THETA": [lower_bound],
    "UNSTABLE_CURVATURE": [signs_end],
    "BELOW_PRODUCT_ERROR": [within_error],
    "NO_ACCEPTED_RISK": [risk_is_honest],
    "RISK_TOO_LARGE": [a_risk_above],
    "UNEXPLAINED_ZERO": [a_zero_within, none_beyond],
    "WITHIN_ACCEPTED_RISK": [a_risk, none_beyond],
    "KINK_MINIMUM": [],  # test_on_kinks.py
}


@pytest.mark.parametrize(
    "rule, make, options", POINTS, ids=[f"{i}-{p[0]}" for i, p in enumerate(POINTS)]
)
def test_the_fields_of_every_verdict_are_true(rule, make, options):
    """The fields of a verdict agree with NumPy's matrices and steps at its point."""
    ob, theta = make()
    point = fc.classify(ob, theta, rng=0, **options)
    assert point.rule is Reason[rule], point
    facts = Facts(ob, theta, point, {"rng": 0, **options})
    for check in (gradient_size, spectrum_range, inertia, *CHECKS[rule]):
        assert check(facts), (check, point)


def test_every_rule_has_a_point():
    assert {rule for rule, *_ in POINTS} | {"KINK_MINIMUM"} == set(Reason.__members__)


def test_a_certified_point_nearby_replaces_the_advice_to_reduce_the_gradient():
    ob, theta = network(1.0, 1e-2)
    point = fc.classify(ob, theta, rng=0, gradient_tol=10.0, **BY_PRODUCTS)
    assert point.rule is Reason.CURVATURE_FLOOR_AT_THETA
    assert point.nearest_verdict.certified and point.nearest_verdict.kind == "minimum"
    assert point._advice == ""


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
            assert point.evidence.n_kinks and point.n_zero == 7 - sum(expected)
            kinds.add(point.kind)
    assert "saddle" in kinds
