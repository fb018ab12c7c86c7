"""Kantorovich's theorem against functions whose critical points are known in closed form."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.critical.theorem import certify_residual_zero, check_kantorovich
from fastcurv.testing import FunctionObjective


def cubic(a, scale=1.0):
    """Return the objective ``scale (x^3/3 - a^2 x)``, with a minimum at a, a maximum at -a, and L =
    2 scale.
    """
    return FunctionObjective(
        1,
        lambda t: scale * (t[0] ** 3 / 3 - a * a * t[0]),
        lambda t: [scale * (t[0] - a) * (t[0] + a)],
        lambda t: [[2 * scale * t[0]]],
        lambda t, r: 2 * scale,
    )


@pytest.mark.parametrize("x", np.linspace(0.4, 3, 27))
def test_the_radius_reaches_the_critical_point_and_h_is_sharp(x):
    """For x^3/3 - x, the proved radius includes the critical point, equals its distance for x > 1,
    and excludes a change of sign of the curvature. If the theorem does not hold, h is at least 1/2.
    """
    g, H = x * x - 1, 2 * x
    found = check_kantorovich(1 / H, abs(g / H), lambda r: 2.0)
    assert found.h == pytest.approx(2 * abs(g) / H**2, rel=1e-12)
    if found.holds:
        assert abs(x - 1) <= found.radius
        assert found.radius * 2.0 < H, "curvature keeps its sign on the ball"
        if x > 1:
            assert abs(x - 1) == pytest.approx(found.radius, rel=1e-9)
    else:
        assert found.h >= 0.5 and found.missing_hypothesis == "h" and found.radius == np.inf


@pytest.mark.parametrize(
    "numbers, missing",
    [
        ((np.inf, 1.0, 1.0), "inverse"),
        ((np.nan, 1.0, 1.0), "inverse"),
        ((1.0, np.inf, 1.0), "step"),
        ((1.0, np.nan, 1.0), "step"),
        ((1.0, 1e-3, np.inf), "third"),
        ((1.0, 1e-3, np.nan), "third"),
        ((1.0, 0.5, 1.0), "h"),
    ],
)
def test_unknown_bounds_prove_nothing(numbers, missing):
    beta, eta, L = numbers
    found = check_kantorovich(beta, eta, lambda r: L)
    assert not found.holds and found.missing_hypothesis == missing and found.radius == np.inf


@pytest.mark.parametrize("scale", [1e-200, 1e-8, 1.0, 1e8, 1e200])
def test_points_near_a_minimum_are_certified_at_every_scale_of_the_loss(scale):
    for a in (1e-3, 1.0, 1e3):
        ob = cubic(a, scale)
        for sign, kind in ((1, "minimum"), (-1, "maximum")):
            said = fc.classify(ob, [sign * a])
            assert said.kind == kind and said.certified, said
            assert said.radius <= 1e-12 * a and said.kantorovich < 1e-12
            near = fc.classify(ob, [sign * a * (1 + 1e-3)])
            assert near.kind == "not_critical" and near.nearest_verdict.certified
            assert abs(near.nearest_point[0] - sign * a) <= 1e-12 * a
            assert near.evidence.nearest_distance == pytest.approx(1e-3 * a, rel=1e-6)
            assert near.nearest_verdict.kind == kind


@pytest.mark.parametrize("gap", 10.0 ** -np.arange(1, 16.0))
def test_nearby_critical_points_are_distinguished_or_not_certified(gap):
    """Near a minimum at a distance of ``2 * gap`` from a maximum, a verdict is certified only for
    points close to the minimum, with a radius that excludes the maximum.
    """
    ob = cubic(gap)
    for x in (gap, gap * (1 + 1e-9), 0.0, 0.5 * gap):
        said = fc.classify(ob, [x], gradient_tol=1.0)
        if said.certified:
            assert said.kind == "minimum" and x > 0.6 * gap and said.radius < gap
        else:
            assert said.radius is None
    assert fc.classify(ob, [gap]).certified


def test_near_points_without_proof_report_the_limit_of_newton_steps():
    """If theta is near but Kantorovich's h is at least 1/2, the verdict reports the certified point
    to which Newton's steps converge, with its true distance.
    """
    ob = cubic(1.0)
    for x, holds in ((1.9, True), (0.71, True), (0.7, False), (0.6, False)):
        said = fc.classify(ob, [x], gradient_tol=100.0)
        assert said.certified == holds == (said.kantorovich < 0.5), said
        if not holds:
            assert said.nearest_verdict.certified and said.nearest_verdict.kantorovich < 0.5
            assert abs(
                said.nearest_point[0] - 1
            ) <= 1e-12 and said.evidence.nearest_distance == pytest.approx(1 - x)
            assert said.evidence.newton_steps == "converged" and said.evidence.n_newton_steps >= 1
    rng = np.random.default_rng(0)
    net = fc.Objective(
        fc.MLP([2, 4, 1]),
        rng.standard_normal((30, 2)),
        rng.standard_normal(30),
        loss="mse",
        l2=1e-3,
    )
    rest = fc.minimize(net, net.model.init(rng=0)).x
    for size in (1e-9, 1e-7, 1e-5, 1e-3):
        said = fc.classify(net, rest + size * rng.standard_normal(len(rest)), gradient_tol=1.0)
        where = 0.0 if said.certified else said.evidence.nearest_distance
        assert said.certified or (said.nearest_verdict.certified and where is not None)


def test_saddles_proved_by_two_vectors_report_no_h():
    """A saddle proved by two vectors reports no constant h, which belongs to Kantorovich's
    theorem.
    """
    ob = FunctionObjective(
        3,
        lambda t: t[0] ** 2 - t[1] ** 2 + t[2] ** 4,
        lambda t: [2 * t[0], -2 * t[1], 4 * t[2] ** 3],
        lambda t: np.diag([2, -2, 12 * t[2] ** 2]),
        lambda t, r: 24 * (abs(t[2]) + r),
    )
    said = fc.classify(ob, np.zeros(3))
    assert said.kind == "saddle" and said.certified and said.n_zero == 1
    assert said.kantorovich is None


def test_nothing_is_proved_on_a_ball_of_radius_zero():
    """If the curvature is 2 on one side of theta and -2 on the other, the theorem does not hold,
    because nothing bounds the curvature on any ball around theta.
    """
    ob = FunctionObjective(
        1,
        lambda t: -t[0] * abs(t[0]),
        lambda t: [-2 * abs(t[0])],
        lambda t: np.diag([2.0 if t[0] <= 0 else -2.0]),
        lambda t, r: 0.0 if r < abs(t[0]) or r == 0 else np.inf,
    )
    assert not fc.classify(ob, np.zeros(1)).certified
    for names in (["relu", "softplus"], ["leaky_relu", "identity"], ["elu", "tanh"]):
        model = fc.MLP([1, 1, 1, 1], names, bias=False)
        net = fc.Objective(model, [[1.0]], [[1.0]], loss="mse", l2=1e100, sample_weight=[1e101])
        said = fc.classify(net, np.zeros(3))
        assert not said.certified and said.evidence.n_kinks == 1, said


def test_a_radius_that_underflows_is_not_reported_as_zero():
    X, y = np.ones((3, 1)), [0, 0, 1]
    ob = fc.Objective(fc.MLP([1, 2]), X, y, l2=1e100, sample_weight=np.full(3, 1e-250))
    said = fc.classify(ob, np.zeros(4))  # the minimum lies 1e-351 away
    assert said.kind == "minimum" and said.certified and 0 < said.radius < 1e-300


def test_a_zero_of_residuals_lies_within_the_radius():
    """A zero of ``R(x, y) = x^2 + y^2 - 1``, whose zeros form a circle, lies within the proved
    radius.
    """
    for x in (0.8, 0.95, 1.0, 1.1, 1.4):
        J, R = np.array([[2 * x, 0.0]]), np.array([x * x - 1])
        found = certify_residual_zero(J, 0.0, R, 0.0, lambda r: 2.0)
        assert found.holds == (2 * abs(R[0]) / (4 * x * x) < 0.5)
        assert not found.holds or abs(x - 1) <= found.radius
