"""Updates of first-order methods are compared with their formulas, and conditions on schedules with
their known convergence.
"""

import numpy as np
import pytest

from fastcurv.optimize.minimize import minimize
from fastcurv.optimize.schedules import (
    constant,
    constant_then_decay,
    inverse_time,
    power,
    robbins_monro,
)
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
SCHEDULES = [
    constant(0.02),
    inverse_time(0.03, 0.1),
    power(0.05, 0.6),
    constant_then_decay(0.02, 3),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
@pytest.mark.parametrize("method", OPTIONS)
def test_seven_updates_match_their_formula(method, schedule):
    start = np.array([1.0, -0.5, 0.7])
    ob = nonlinear_gradient_function()
    found = minimize(ob, start, method, max_iter=7, learning_rate=schedule, **OPTIONS[method])
    expected = by_formula(method, ob.gradient, schedule, 7, start)
    assert np.allclose(found.x, expected, rtol=1e-13) and not np.allclose(found.x, start, atol=1e-3)


@pytest.mark.parametrize("rate", [10**400, -1.0, np.nan, "0.1"])
def test_schedules_that_return_no_finite_rate_raise(rate):
    ob, start = nonlinear_gradient_function(), np.array([1.0, -0.5, 0.7])
    with pytest.raises(ValueError, match="the learning rate of update 1 must be a finite"):
        minimize(ob, start, "sgd", max_iter=2, learning_rate=lambda t: rate)


def test_clip_limits_the_gradient_norm():
    ob, how = QuadraticObjective(np.eye(2)), {"learning_rate": 1.0, "clip": 5.0, "max_iter": 1}
    found = minimize(ob, np.array([30.0, 40.0]), "sgd", **how)
    assert np.allclose(found.x, [27.0, 36.0])


def test_schedules_have_the_rates_of_their_formulas():
    assert [inverse_time(1.0, 1.0)(t) for t in (1, 3)] == [0.5, 0.25]
    assert power(1.0, 0.5)(4) == 0.5
    assert [constant_then_decay(0.3, 2, delta=1.0)(t) for t in (1, 2, 4)] == [0.3, 0.3, 0.15]


@pytest.mark.parametrize(
    "schedule, far, quiet",
    [
        (constant(0.1), True, False),
        (inverse_time(0.1, 0.01), True, True),
        (power(0.1, 0.5), True, False),
        (power(0.1, 0.51), True, True),
        (power(0.1, 1.0), True, True),
        (power(0.1, 1.01), False, True),
        (constant_then_decay(0.1, 1000), True, True),
        (constant_then_decay(0.1, 1000, 0.3), True, False),
    ],
)
def test_robbins_monro_reports_the_known_convergence_of_each_schedule(schedule, far, quiet):
    """`robbins_monro` reports the known divergence of the sum and convergence of the sum of squares
    of each schedule's rates, and the exponent with which these rates decrease.
    """
    found = robbins_monro(schedule)
    assert (found.sum_diverges, found.squares_converge) == (far, quiet)
    assert found.satisfied == (far and quiet) == bool(found)
    slope = np.log(schedule(10**6) / schedule(10**12)) / np.log(10.0**6)
    assert slope == pytest.approx(found.exponent, abs=1e-3)


def test_robbins_monro_is_undecided_for_unknown_schedules():
    found = robbins_monro(lambda t: 0.1 / t**0.7)
    assert found.satisfied is None and found.exponent == pytest.approx(0.7)
    assert not found


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: constant(0.0), ValueError, "alpha"),
        (lambda: power(0.1, -1.0), ValueError, "delta"),
        (lambda: inverse_time("x", 1.0), TypeError, "alpha"),
        (lambda: constant_then_decay(0.1, 2.5), TypeError, "hold"),
        (lambda: constant_then_decay(0.1, 0), ValueError, "hold"),
        (lambda: robbins_monro(0.1), TypeError, "schedule"),
    ],
)
def test_invalid_schedules_raise_a_clear_error(call, error, words):
    with pytest.raises(error, match=words):
        call()
