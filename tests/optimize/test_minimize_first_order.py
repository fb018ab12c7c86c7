"""Updates of first-order methods are compared with their formulas."""

import numpy as np
import pytest

from fastcurv.optimize.minimize import minimize
from fastcurv.testing import FunctionObjective, QuadraticObjective


def nonlinear_gradient_function():
    """Return an objective of three variables whose gradient is nonlinear, so that averages of
    points instead of gradients give wrong updates.
    """
    return FunctionObjective(
        3,
        lambda t: (np.cosh(t) * [1, 2, 3]).sum(),
        lambda t: np.sinh(t) * [1, 2, 3],
        lambda t: np.diag(np.cosh(t) * [1, 2, 3]),
    )


def by_formula(method, g, a, steps, theta):
    """Return theta after `steps` updates of the method with gradient function `g` and learning
    rates `a(t)`, computed by its formula in `fastcurv.first_order`.
    """
    v = m = s = np.zeros(3)
    for t in range(1, steps + 1):
        d = g(theta)
        if method == "sgd":
            theta = theta - a(t) * d
        if method in ("momentum", "nesterov"):
            v = 0.8 * v + d
            theta = theta - a(t) * (v if method == "momentum" else d + 0.8 * v)
        if method == "rmsprop":
            s = 0.9 * s + 0.1 * d**2
            theta = theta - a(t) * d / (np.sqrt(s) + 1e-5)
        if method == "adam":
            m, s = 0.8 * m + 0.2 * d, 0.95 * s + 0.05 * d**2
            theta = theta - a(t) * (m / (1 - 0.8**t)) / (np.sqrt(s / (1 - 0.95**t)) + 1e-5)
    return theta


OPTIONS = {
    "sgd": {},
    "momentum": {"momentum": 0.8},
    "nesterov": {"momentum": 0.8},
    "rmsprop": {"rho": 0.9, "eps": 1e-5},
    "adam": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-5},
}


@pytest.mark.parametrize("rate", [0.02, lambda t: 0.05 / t**0.6], ids=["number", "function"])
@pytest.mark.parametrize("method", OPTIONS)
def test_seven_updates_match_their_formula(method, rate):
    start = np.array([1.0, -0.5, 0.7])
    ob = nonlinear_gradient_function()
    found = minimize(ob, start, method, max_iter=7, learning_rate=rate, **OPTIONS[method])
    expected = by_formula(method, ob.gradient, rate if callable(rate) else lambda t: rate, 7, start)
    assert np.allclose(found.x, expected, rtol=1e-13) and not np.allclose(found.x, start, atol=1e-3)


@pytest.mark.parametrize("rate", [10**400, -1.0, np.nan, "0.1"])
def test_functions_that_return_no_finite_rate_raise(rate):
    ob, start = nonlinear_gradient_function(), np.array([1.0, -0.5, 0.7])
    with pytest.raises(ValueError, match="the learning rate of update 1 must be a finite"):
        minimize(ob, start, "sgd", max_iter=2, learning_rate=lambda t: rate)


def test_clip_limits_the_gradient_norm():
    ob, how = QuadraticObjective(np.eye(2)), {"learning_rate": 1.0, "clip": 5.0, "max_iter": 1}
    found = minimize(ob, np.array([30.0, 40.0]), "sgd", **how)
    assert np.allclose(found.x, [27.0, 36.0])
