"""Points that resemble others: nearly critical, nearly degenerate, or on the tail of a decreasing
function.
"""

import numpy as np
import pytest

from fastcurv.critical.classify import classify
from fastcurv.testing import FunctionObjective, LinearAutoencoder, lecture_toy

from ..zoo import zoo

pytestmark = pytest.mark.by_day(share=1 / 3)


def with_a_quadratic(value, slope, curve):
    """Return the objective ``h(x) + (z - 1)^2`` of x and z, for a function h with the given value,
    slope and curvature.
    """
    return FunctionObjective(
        2,
        lambda t: value(t[0]) + (t[1] - 1) ** 2,
        lambda t: [slope(t[0]), 2 * (t[1] - 1)],
        lambda t: np.diag([curve(t[0]), 2.0]),
    )


CUBIC = with_a_quadratic(lambda x: x**3, lambda x: 3 * x * x, lambda x: 6 * x)
QUARTIC = with_a_quadratic(lambda x: x**4, lambda x: 4 * x**3, lambda x: 12 * x * x)
HILL = with_a_quadratic(lambda x: -(x**4), lambda x: -4 * x**3, lambda x: -12 * x * x)
TAIL = with_a_quadratic(
    lambda x: 1e-3 * np.exp(-x), lambda x: -1e-3 * np.exp(-x), lambda x: 1e-3 * np.exp(-x)
)
RING = FunctionObjective(
    2,
    lambda t: (t @ t - 1) ** 2,
    lambda t: 4 * (t @ t - 1) * t,
    lambda t: 8 * np.outer(t, t) + 4 * (t @ t - 1) * np.eye(2),
)


@pytest.mark.parametrize("x", [s * 10.0**-e for e in range(2, 17) for s in (1, -1)])
def test_points_near_a_degenerate_point_are_not_reported_as_minima(x):
    for ob in (CUBIC, QUARTIC, HILL):
        report = classify(ob, [x, 1.0])
        assert report.kind in ("degenerate", "not_critical"), report


@pytest.mark.parametrize("x", range(0, 45, 3))
def test_tail_of_an_exponential_is_not_reported_as_a_minimum(x):
    report = classify(TAIL, [float(x), 1.0])
    assert report.kind in ("degenerate", "not_critical")
    assert report.evidence.plateau or report.kind == "degenerate" or x < 9


@pytest.mark.parametrize("off", [s * 10.0**-e for e in range(2, 17) for s in (1, -1)])
def test_a_ring_of_minima_is_neither_a_saddle_nor_a_strict_minimum(off):
    """Near a ring of minima, the Hessian has a small eigenvalue of either sign that is 0 on the
    ring, so neither a saddle nor a strict minimum is claimed.
    """
    report = classify(RING, np.array([0.6, 0.8]) * (1 + off))
    assert report.kind in ("degenerate", "not_critical")
    toy = classify(lecture_toy(), [2.0 * (1 + off), 0.5])
    assert toy.kind in ("minimum", "not_critical")
    assert toy.kind != "minimum" or toy.evidence.n_symmetry == 1


def test_separable_logistic_regression_has_no_minimum():
    X = np.array([-2.0, -1.0, 1.0, 3.0])
    ob = FunctionObjective(
        1,
        lambda t: np.logaddexp(0, -np.abs(X) * t).sum(),
        lambda t: [-(np.abs(X) / (1 + np.exp(np.abs(X) * t))).sum()],
        lambda t: np.diag([(X**2 / (2 + 2 * np.cosh(X * t[0]))).sum()]),
    )
    for w in range(0, 60, 2):
        assert classify(ob, [float(w)]).kind == "not_critical"


def test_no_false_minimum_around_known_points():
    """At random points at many distances from known critical points, a minimum or maximum is
    reported only near a true one.
    """
    rng = np.random.default_rng(5)
    seen = set()
    for i, case in enumerate(zoo()):
        for size in 10.0 ** np.arange(-17 + 1.5 * (i % 2), -2, 3.0):
            theta = case.theta + size * rng.standard_normal(case.theta.size)
            report = classify(case.objective, theta)
            if case.kind != "degenerate":
                assert report.kind in (case.kind, "not_critical", "degenerate"), (
                    case.name,
                    size,
                    report,
                )
            assert report.kind != "minimum" or case.kind == "minimum", (case.name, size, report)
            assert report.kind != "maximum" or case.kind == "maximum", (case.name, size, report)
            seen.add((case.kind, report.kind))
    assert {("minimum", "minimum"), ("saddle", "saddle"), ("saddle", "not_critical")} <= seen


def test_tiny_symmetry_orbits_explain_no_zeros():
    """Near the origin, where the tangents of symmetry orbits vanish, no zero eigenvalue is
    attributed to a symmetry.
    """
    net = LinearAutoencoder([3.0, 2.0, 1.0], 2, rng=0)
    rng = np.random.default_rng(1)
    for size in (1e-30, 1e-17, 1e-12, 1e-8):
        report = classify(net.objective, size * rng.standard_normal(12))
        assert (report.kind, report.n_negative, report.n_positive, report.evidence.n_symmetry) == (
            "saddle",
            6,
            6,
            0,
        )


def test_quadratics_are_critical_where_rounding_hides_the_step():
    ob = FunctionObjective(
        2,
        lambda t: 1 + t[0] ** 2 - t[1] ** 2,
        lambda t: [2 * t[0], -2 * t[1]],
        lambda t: np.diag([2.0, -2.0]),
        lambda t, r: 0.0,
    )
    assert classify(ob, [1e-8, 1e-8]).kind == "saddle"
    assert classify(ob, [1e-6, 1e-6]).kind == "not_critical"
    bowl = FunctionObjective(
        1, lambda t: (t[0] - 5) ** 2, lambda t: [2 * (t[0] - 5)], lambda t: np.diag([2.0])
    )
    assert classify(bowl, [5 * (1 + 2e-16)]).kind == "minimum"
    far = classify(bowl, [5.01])
    assert far.kind == "not_critical" and far.nearest_verdict.kind == "minimum"
    assert (
        abs(far.nearest_point[0] - 5) <= 1e-14
        and abs(far.evidence.nearest_distance - 0.01) <= 1e-12
    )


def test_minima_need_a_newton_step_to_a_stationary_point():
    """For ``t^2 / 2`` with slope 1 added left of 0.005, no minimum is reported at 0.01. The Hessian
    is 1 on both sides, but Newton's step ends where the loss still decreases.
    """

    def line(kink):
        return FunctionObjective(
            1,
            lambda t: float(t[0] ** 2 / 2 + min(0.0, t[0] - kink)),
            lambda t: t + (t < kink),
            lambda t: np.eye(1),
        )

    theta = np.array([0.01])
    for dense_below in (4096, 1):
        ask = {"gradient_tol": 0.1, "dense_below": dense_below, "failure_probability": 1e-3}
        said = classify(line(0.005), theta, **ask)
        assert said.kind == "undecided" and said.rule == "gradient_not_reduced"
        assert classify(line(-3.0), theta, **ask).kind == "minimum"
