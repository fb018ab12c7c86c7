"""Published test functions (Moré, Garbow and Hillstrom 1981, and others): every method that leaves
saddles ends at a point whose verdict is right, with no more gradients than SciPy's trust-ncg.
"""

import numpy as np
import pytest
import scipy.optimize

from fastcurv.optimize.minimize import METHODS, minimize
from fastcurv.testing import FunctionObjective


def beale(t):
    y = np.array([1.5, 2.25, 2.625])
    k = np.arange(1, 4)
    r = y - t[0] * (1 - t[1] ** k)
    return r, np.array([-(1 - t[1] ** k), t[0] * k * t[1] ** (k - 1)]).T


def powell(t):
    a, b = np.sqrt(5), np.sqrt(10)
    p, q = t[1] - 2 * t[2], t[0] - t[3]
    r = np.array([t[0] + 10 * t[1], a * (t[2] - t[3]), p**2, b * q**2])
    rows = [[1, 10, 0, 0], [0, 0, a, -a], [0, 2 * p, -4 * p, 0], [2 * b * q, 0, 0, -2 * b * q]]
    return r, np.array(rows)


def wood(t):
    a, b = np.sqrt(90), np.sqrt(10)
    r = np.array([
        10 * (t[1] - t[0] ** 2), 1 - t[0], a * (t[3] - t[2] ** 2), 1 - t[2],
        b * (t[1] + t[3] - 2), (t[1] - t[3]) / b,
    ])  # fmt: skip
    rows = [
        [-20 * t[0], 10, 0, 0], [-1, 0, 0, 0], [0, 0, -2 * a * t[2], a], [0, 0, -1, 0],
        [0, b, 0, b], [0, 1 / b, 0, -1 / b],
    ]  # fmt: skip
    return r, np.array(rows)


def himmelblau(t):
    r = np.array([t[0] ** 2 + t[1] - 11, t[0] + t[1] ** 2 - 7])
    return r, np.array([[2 * t[0], 1], [1, 2 * t[1]]])


def rosenbrock(t):
    return np.array([10 * (t[1] - t[0] ** 2), 1 - t[0]]), np.array([[-20 * t[0], 10], [-1, 0]])


def muller_brown(t):
    """Return the value and the gradient of the surface of Müller and Brown."""
    A = np.array([-200.0, -100.0, -170.0, 15.0])
    a, b, c = np.array([[-1, -1, -6.5, 0.7], [0, 0, 11, 0.6], [-10, -10, -6.5, 0.7]])
    x, y = t[0] - np.array([1, 0, -0.5, -1]), t[1] - np.array([0, 0.5, 1.5, 1])
    e = A * np.exp(a * x**2 + b * x * y + c * y**2)
    return e.sum(), np.array([(e * (2 * a * x + b * y)).sum(), (e * (b * x + 2 * c * y)).sum()])


def squares(residuals):
    """Return a function of theta that returns the sum of squared residuals and its gradient."""

    def value_and_gradient(t):
        r, J = residuals(t)
        return (r * r).sum(), 2 * J.T @ r

    return value_and_gradient


# (function, start, values of its minima, kinds that the end point may have)
PROBLEMS = {
    "beale": (squares(beale), [1.0, 1.0], [0.0], "minimum"),
    "powell singular": (
        squares(powell), [3.0, -1.0, 0.0, 1.0], [0.0], "degenerate not_critical",
    ),
    "wood": (squares(wood), [-3.0, -1.0, -3.0, -1.0], [0.0], "minimum"),
    "himmelblau": (squares(himmelblau), [0.0, 0.0], [0.0], "minimum"),
    "rosenbrock": (squares(rosenbrock), [-1.2, 1.0], [0.0], "minimum"),
    "muller-brown": (
        muller_brown, [-0.8, 0.6], [-146.69951720995402, -108.16672411685229, -80.76781812965909],
        "minimum",
    ),
}  # fmt: skip
SECOND_ORDER = "trust-region", "newton-cg", "saddle-free-newton", "cubic"


def objective(value_and_gradient, n):
    """Return an objective whose Hessian is computed from the gradient by complex steps."""

    def hessian(t):
        steps = t[:, None] + 1e-30j * np.eye(n)
        return np.array([value_and_gradient(at)[1].imag / 1e-30 for at in steps.T])

    return FunctionObjective(
        n, lambda t: value_and_gradient(t)[0], lambda t: value_and_gradient(t)[1], hessian
    )


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].curvature == "hessian"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_published_problems_end_at_points_whose_verdict_is_right(name, method):
    function, start, values, kinds = PROBLEMS[name]
    run = minimize(objective(function, len(start)), np.array(start), method, rng=0)
    at_minimum = min(abs(run.fun - f) for f in values) <= 1e-8 * max(1.0, abs(run.fun))
    assert run.success == (run.kind == "minimum") and (at_minimum or not run.success)
    if method in SECOND_ORDER:
        assert run.kind in kinds.split() and at_minimum


def test_second_order_methods_take_no_more_gradients_than_scipy():
    """In the median, methods take no more gradients than the `trust-ncg` method of SciPy."""
    ratios = []
    for function, start, *_ in PROBLEMS.values():
        ob, theta = objective(function, len(start)), np.array(start)
        theirs = scipy.optimize.minimize(
            ob.value, theta, jac=ob.gradient, method="trust-ncg",
            hess=lambda t, ob=ob: ob.hessian(t).to_dense(), options={"gtol": 1e-6},
        )  # fmt: skip
        for method in SECOND_ORDER:
            run = minimize(ob, theta, method, gradient_tol=1e-6, verdict=False)
            ratios.append(run.njev / theirs.njev)
    assert np.median(ratios) <= 1.0
