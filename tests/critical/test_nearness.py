"""The rule that decides whether theta counts as a critical point does not depend on units."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.critical.dense import assess_nearness_at
from fastcurv.critical.nearness import (
    directional_curvatures,
    gradient_after_step,
    has_descent_along_gradient,
    has_descent_on_either_side,
    is_curvature_stable,
    nearness_from_decrement,
    newton_decrement,
    stable_curvature_mask,
)
from fastcurv.critical.theorem import ComplementEigenpairs
from fastcurv.testing import FunctionObjective, QuadraticObjective

from ..zoo import zoo


def bowl(centre, scale, offset, bound=None):
    """Return the objective ``offset + scale (t - centre)^2 / 2`` of one parameter t, with a lower
    bound of the loss if `bound` is given.
    """
    kind = FunctionObjective
    if bound is not None:
        kind = type("Bounded", (FunctionObjective,), {"loss_lower_bound": bound})
    return kind(
        1,
        lambda t: offset + 0.5 * scale * (t[0] - centre) ** 2,
        lambda t: [scale * (t[0] - centre)],
        lambda t: np.diag([scale]),
    )


@pytest.mark.parametrize("case", zoo(), ids=lambda c: c.name)
def test_only_critical_test_points_are_classified_as_near(case):
    assert assess_nearness_at(case.objective, case.theta).near == (case.kind != "not_critical")


@pytest.mark.parametrize("scale", [1e-100, 1e-8, 1.0, 1e8, 1e100])
def test_the_threshold_is_a_fraction_of_the_loss_above_its_bound(scale):
    """A point counts as near a critical point if the predicted decrease of Newton's step is at most
    1e-8 of the loss above its lower bound, at every scale of the loss. The stated tolerance of the
    gradient corresponds to that threshold.
    """
    for distance, near in ((1e-4, True), (1.4e-4, True), (1.5e-4, False), (1e-2, False)):
        ob = bowl(0.0, scale, scale, 0.0)
        found = assess_nearness_at(ob, np.array([distance]))
        assert found.near == near
        assert (found.gradient_norm <= found.gradient_tol) == near
        assert found.gradient_tol == pytest.approx(scale * np.sqrt(2e-8), rel=1e-3)
    assert not assess_nearness_at(bowl(0.0, scale, scale), np.array([1e-4])).near, (
        "no bound is offered"
    )


def test_nearness_does_not_depend_on_units_of_parameters():
    rng = np.random.default_rng(0)
    M = rng.standard_normal((6, 6))
    A = M @ M.T - 2 * np.eye(6)
    for size in 10.0 ** np.arange(-18, -4, 1.0):
        centre = rng.standard_normal(6)
        theta = centre + size * rng.standard_normal(6)
        ob = QuadraticObjective(A, centre, offset=1.0)
        d = 2.0 ** rng.integers(-40, 40, 6)
        other = QuadraticObjective(d[:, None] * A * d, centre / d, offset=1.0)
        here, there = assess_nearness_at(ob, theta), assess_nearness_at(other, theta / d)
        assert here.near == there.near
        assert here.decrement == pytest.approx(there.decrement, rel=0.1)
        definite = QuadraticObjective(A + 3 * np.eye(6), centre, offset=1.0)
        d = 2.0 ** rng.integers(-10, 10, 6)
        other = QuadraticObjective(d[:, None] * definite.H.A * d, centre / d, offset=1.0)
        here, there = assess_nearness_at(definite, theta), assess_nearness_at(other, theta / d)
        if here.decrement > 1e-30:
            assert here.decrement == pytest.approx(there.decrement, rel=1e-2)


def test_a_large_parameter_does_not_loosen_the_tolerance_of_others():
    """For f = (b - c)^2 + w^2 / 2, the point b = c, w = 1e-3 does not count as near the critical
    point, however large c is.
    """
    for centre in (0.0, 1e5, 1e8):
        ob = QuadraticObjective(np.diag([2.0, 1.0]), np.array([centre, 0.0]))
        assert assess_nearness_at(ob, np.array([centre, 0.0])).near
        assert not assess_nearness_at(ob, np.array([centre, 1e-3])).near


def test_points_with_unknown_decrement_or_threshold_are_not_near():
    for threshold in (np.inf, np.nan, -1.0):
        assert not nearness_from_decrement(1.0, 1.0, threshold, None).near
    assert (
        not nearness_from_decrement(1.0, np.nan, 1.0, None).near
        and not nearness_from_decrement(1.0, np.inf, 1.0, None).near
    )
    assert not nearness_from_decrement(1e-3, 0.0, 0.0, np.inf).near
    assert nearness_from_decrement(1e-3, np.inf, 0.0, 1e-2).near, (
        "the caller's tolerance decides alone"
    )


@pytest.mark.parametrize("dense_below", [4096, 1])
def test_the_gradient_tolerance_separates_near_and_far_gradients(dense_below):
    """For gradients from rounding error to far above the threshold, the tolerance stated at one
    point predicts whether other points count as near a critical point.
    """
    ob = QuadraticObjective(np.diag([1.0, 2.0, 5.0]), offset=1.0)
    u = np.array([1.0, 1.0, 1.0])
    for size in (1e-16, 1e-13, 1e-10, 1e-8, 1e-3):
        said = fc.classify(ob, size * u, dense_below=dense_below)
        assert (said.gradient_norm <= said.gradient_tol) == (said.kind != "not_critical")
        for share, near in ((0.9, True), (1.1, False)):
            scale = share * said.gradient_tol / said.gradient_norm
            other = fc.classify(ob, scale * size * u, dense_below=dense_below)
            assert (other.kind != "not_critical") == near, (size, share)


@pytest.mark.parametrize("kind", [fc.Objective, fc.StreamedObjective])
@pytest.mark.parametrize("power", [-100, -40, 40])
def test_scaling_the_inputs_does_not_hide_a_gradient(kind, power):
    """If columns of X differ by many orders of magnitude, a point from which the loss decreases
    along the smaller columns is not critical.
    """
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((30, 2))
    Z[:, 1] = Z[:, 0] + 0.5 * Z[:, 1]
    y = Z @ [1.0, 2.0] + rng.standard_normal(30)
    ob = kind(fc.MLP([2, 1], bias=False), Z * [1, 10.0**power], y, loss="mse")
    said = fc.classify(ob, [0.3, 0.1 * 10.0**-power])
    assert said.kind == "not_critical" and said.gradient_tol < 1e-3 * said.gradient_norm, said


@pytest.mark.parametrize("kind", [fc.Objective, fc.StreamedObjective])
def test_large_l2_on_some_parameters_does_not_hide_a_gradient(kind):
    """If an l2 of 1e100 applies to the matrices only, a gradient along the biases makes the point
    not critical.
    """
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((15, 1)), rng.integers(2, size=15)
    ob = kind(fc.MLP([1, 1, 3, 2], ["gelu", "identity"]), X, y, l2=1e100, l2_biases=False)
    for seed in range(3):
        said = fc.classify(ob, ob.model.init(rng=seed))
        assert said.kind == "not_critical" and said.gradient_tol < 1e-3 * said.gradient_norm, said


def test_a_theta_whose_squares_overflow_is_classified_by_products():
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((30, 2))
    ob = fc.Objective(fc.MLP([2, 1], bias=False), 1e-100 * Z, Z @ [1.0, 2.0], loss="mse")
    for dense_below in (1, 4096):
        assert fc.classify(ob, [1e160, 1e160], dense_below=dense_below).kind == "not_critical"


@pytest.mark.parametrize("low", [0.3, -0.3])
@pytest.mark.parametrize("units", [np.ones(5), np.array([1.0, 2.0, 0.1, 3.0, 0.5])])
def test_the_decrement_matches_its_formula(low, units, rng):
    """The Newton decrement equals ``g'|H|^-1 g / 2`` in the units of the eigenpairs, in any units
    if H is definite, and is reduced by errors of H or g.
    """
    Q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    values = np.r_[low, np.linspace(0.5, 4, 4)]
    scaled, g, none = (Q * values) @ Q.T, rng.standard_normal(5), np.zeros((5, 0))
    size = (Q * np.abs(values)) @ Q.T

    def decrement(off, error):
        return newton_decrement(
            g, off, np.ones(5), ComplementEigenpairs(values, Q, error, units, none)
        )[0]

    promised = 0.5 * (units * g) @ np.linalg.solve(size, units * g)
    assert decrement(0.0, 0.0) == pytest.approx(promised, rel=1e-12)
    if low > 0:
        H = scaled / np.outer(units, units)
        assert promised == pytest.approx(0.5 * g @ np.linalg.solve(H, g), rel=1e-12)
    assert 0 < decrement(1e-3, 0.0) < promised and 0 < decrement(0.0, 0.4) < promised
    assert decrement(1e3, 0.0) == 0


@pytest.mark.parametrize("reach", [0.0, 1e-3, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 4.0, np.nan])
def test_changes_of_sign_of_the_curvature_are_detected(reach):
    """A change of sign of the curvatures ``1 - t_0^2`` and ``-1 + t_1`` at the distance 1 is
    detected along a direction, and for steps that are at least a third as long.
    """
    bent = FunctionObjective(
        2,
        lambda t: t[0] ** 2 / 2 - t[0] ** 4 / 12 - t[1] ** 2 / 2 + t[1] ** 3 / 6,
        lambda t: [t[0] - t[0] ** 3 / 3, -t[1] + t[1] ** 2 / 2],
        lambda t: [[1 - t[0] ** 2, 0.0], [0.0, -1 + t[1]]],
    )
    spent, here = [], np.zeros(2)
    for u, curvature in zip(np.eye(2), (1.0, -1.0)):
        found = [is_curvature_stable(bent, here, u, curvature, reach, spent.append)]
        if reach == reach:
            before = np.array([1.0, -1.0])
            along = stable_curvature_mask(bent, here, reach * u, np.eye(2), before, spent.append)
            found.append(along[0 if curvature > 0 else 1])
            assert along[1 if curvature > 0 else 0], "nothing changes across"
        assert all(x == (3 * reach < 1) for x in found)
    assert sum(spent) > 0 or not reach > 0


@pytest.mark.parametrize("reach, lasts", [(0.5, True), (0.7, True), (0.72, False), (1.0, False)])
def test_lasting_curvature_is_at_least_two_thirds_of_the_curvature(reach, lasts):
    """The curvature ``1 / (1 + t^2)`` counts as lasting up to a distance of ``2^-1/2``, at which it
    has two thirds of its value at 0.
    """
    shallow = FunctionObjective(
        1,
        lambda t: t[0] * np.arctan(t[0]) - np.log1p(t[0] ** 2) / 2,
        lambda t: np.arctan(t),
        lambda t: [[1 / (1 + t[0] ** 2)]],
    )
    assert is_curvature_stable(shallow, np.zeros(1), np.ones(1), 1.0, reach, id) == lasts


def test_derivatives_where_the_objective_is_undefined_are_nan_or_none():
    """Where a function of the user raises or returns NaN, curvatures are NaN, the gradient is None,
    and a descent from a kink is assumed where the loss cannot be evaluated.
    """

    def raising(t):
        if t[0] > 1:
            raise ZeroDivisionError
        return t

    ob = FunctionObjective(
        1,
        lambda t: 0.5 * float(raising(t)[0]) ** 2,
        lambda t: [float(raising(t)[0])],
        lambda t: np.diag([1.0 + 0 * raising(t)[0]]),
    )
    at, far, step = np.zeros(1), np.full(1, 2.0), np.full(1, 3.0)
    assert np.array_equal(directional_curvatures(ob, at, np.eye(1)), [1.0])
    assert np.isnan(directional_curvatures(ob, far, np.eye(1))).all()
    assert np.isnan(directional_curvatures(ob, np.full(1, np.inf), np.eye(1))).all()
    assert directional_curvatures(ob, at, np.empty((1, 0))).shape == (0,)
    assert gradient_after_step(ob, at, step) is None
    assert np.array_equal(gradient_after_step(ob, at, 0.25 * step), [0.75])
    assert has_descent_along_gradient(ob, np.ones(1), np.ones(1))
    assert not has_descent_along_gradient(ob, at, np.full(1, 1e-3))
    assert has_descent_along_gradient(ob, np.ones(1), np.zeros(1))
    assert has_descent_along_gradient(object(), np.ones(1), np.ones(1))


@pytest.mark.parametrize("curvature", [-1.0, 0.0, 1.0])
def test_descent_on_either_side_exceeds_the_slope(curvature):
    """For ``t + curvature t^2``, a decrease that the slope predicts is no descent."""
    ob = FunctionObjective(
        1,
        lambda t: float(t[0] + curvature * t[0] ** 2),
        lambda t: 1 + 2 * curvature * t,
        lambda t: 2 * curvature * np.eye(1),
    )
    found = has_descent_on_either_side(ob, np.zeros(1), np.ones(1), np.ones(1))
    assert found == (curvature < 0)


class Himmelblau:
    """The sum of squares ``(x^2 + y - 11)^2 + (x + y^2 - 7)^2``, which is 0 at (3, 2)."""

    n_params = 2
    loss_lower_bound = 0.0

    def value(self, theta):
        x, y = theta
        return (x * x + y - 11) ** 2 + (x + y * y - 7) ** 2

    def gradient(self, theta):
        x, y = theta
        a, b = x * x + y - 11, x + y * y - 7
        return np.array([4 * x * a + 2 * b, 2 * a + 4 * y * b])

    def hessian(self, theta):
        x, y = theta
        a, b = x * x + y - 11, x + y * y - 7
        cross = 4 * (x + y)
        return np.array([[8 * x * x + 4 * a + 2, cross], [cross, 2 + 8 * y * y + 4 * b]])

    def third_bound(self, theta, radius):
        return 48 * (np.abs(theta).max() + radius) + 16


@pytest.mark.parametrize("off", [0.0, 1e-13, 1e-12, 1e-11])
def test_a_proved_minimum_of_value_0_is_near_if_theta_has_ten_digits_of_it(off):
    found = fc.classify(Himmelblau(), np.array([3.0, 2.0 + off]))
    assert (found.kind, found.certified) == ("minimum", True), found
    assert off <= found.radius <= 2 * off + 1e-12
    assert found.gradient_norm <= found.gradient_tol


@pytest.mark.parametrize("off", [1e-7, 0.2])
def test_a_point_that_is_farther_from_a_minimum_of_value_0_is_not_critical(off):
    found = fc.classify(Himmelblau(), np.array([3.0, 2.0 + off]))
    assert found.kind == "not_critical" and found.nearest_verdict.certified
    assert np.abs(found.nearest_point - [3.0, 2.0]).max() <= 1e-12
