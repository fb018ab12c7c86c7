"""Bounds on the change of the Hessian, on signs near kinks and on the curvature of residuals."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine as engine
from fastcurv.structure.tables import activation_spec

from .bound_cases import objective
from .longdouble import LD, activation

pytestmark = pytest.mark.by_day(share=1 / 3)


def largest_change(ob, theta, radius, rng, trials, c=1.0):
    """Return the largest ||(H(a) - H(b)) v|| / ||a - b|| over `trials` pairs of opposite points a
    and b at the distance `radius` from theta, with v from power iteration. Distances and
    derivatives are in units c of the parameters.
    """
    most = 0.0
    for _ in range(trials):
        h = rng.standard_normal(theta.size)
        h *= radius / np.linalg.norm(h)
        H = [ob.hessian(theta + s * c * h) for s in (1.0, -1.0)]
        v = h / radius
        for _ in range(3):
            d = c * (H[0] @ (c * v) - H[1] @ (c * v))
            grown = float(np.linalg.norm(d))
            most = max(most, grown / (2 * radius))
            v = d / grown if grown > 0 else v
    return most


@pytest.mark.parametrize("loss", engine.LOSSES)
@pytest.mark.parametrize("act", engine.ACTIVATIONS)
def test_third_bound_lies_above_third_differences(act, loss):
    """`third_bound` is at least the change of the Hessian between opposite points of a ball divided
    by their distance. Networks have skips, no biases, weights or soft targets, and radii are 1e-3
    to 1.
    """
    rng = np.random.default_rng([len(act), len(loss)])
    for case in range(4):
        ob, theta = objective(
            [[4, 5, 3], [3, 3, 3, 2], [3, 4, 4, 1], [5, 2]][case],
            act if case < 3 else (),
            loss,
            seed=[case, len(act)],
            scale=[1, 0.3, 2, 1][case],
            weights=case == 1,
            soft=case == 2,
            bias=case != 2,
            residual=case in (1, 2),
        )
        for radius in (1e-3, 0.1, 1.0):
            L = ob.certificates.third_bound(theta, radius)
            assert largest_change(ob, theta, radius, rng, 6) <= L * (1 + 1e-9) + 1e-10 / radius
            if ob.certificates.kinks(theta, radius):
                assert np.inf == L
        assert ob.certificates.third_bound(theta, 0.0) <= ob.certificates.third_bound(theta, 1e-3)


@pytest.mark.parametrize("loss", engine.LOSSES)
@pytest.mark.parametrize("act", engine.ACTIVATIONS)
def test_the_third_bound_holds_in_other_units(act, loss):
    """`third_bound_in_units` bounds the change of the Hessian in units of each parameter from 1e-3
    to 1. Units of 1 give `third_bound`, and a common unit scales the bound by its cube.
    """
    rng = np.random.default_rng([len(act), len(loss), 1])
    for case in range(3):
        sizes = [[4, 5, 3], [3, 3, 3, 2], [3, 4, 4, 1]][case]
        options = {"bias": case != 2, "residual": case == 1, "weights": case == 1}
        ob, theta = objective(sizes, act, loss, seed=[case, len(act)], **options)
        ones, units = np.ones(theta.size), 10.0 ** rng.uniform(-3, 0, theta.size)
        for radius in (1e-3, 0.1, 1.0):
            L = ob.certificates.third_bound_in_units(theta, radius, units)
            assert (
                largest_change(ob, theta, radius, rng, 6, units) <= L * (1 + 1e-9) + 1e-10 / radius
            )
            plain = ob.certificates.third_bound(theta, radius)
            assert ob.certificates.third_bound_in_units(theta, radius, ones) == pytest.approx(
                plain, rel=1e-8
            )
            assert plain * (1 + 1e-8) >= L
            big = ob.certificates.third_bound_in_units(theta, radius / 1e3, 1e3 * ones)
            assert big == pytest.approx(1e9 * plain, rel=1e-6)


@pytest.mark.parametrize("act", ["tanh", "gelu", "relu"])
def test_bound_on_third_derivatives_holds_for_wide_networks_and_zero_weights(act):
    """`third_bound` bounds the change of the Hessian for layers of up to 600 units, some zero
    weights, units without input weights, and a zero theta.
    """
    rng = np.random.default_rng(0)
    ob, theta = objective([300, 600, 3], act, "cross_entropy")
    assert (
        largest_change(ob, theta, 1e-3, rng, 2) <= ob.certificates.third_bound(theta, 1e-3) + 1e-7
    )
    for sizes in ([4, 6, 6, 2], [3, 5, 1]):
        ob, theta = objective(sizes, act, "mse")
        theta[rng.random(theta.size) < 0.5] = 0
        ob.model.unflatten(theta)[0][0][:2] = 0
        for at in (theta, 0 * theta):
            L = ob.certificates.third_bound(at, 0.01)
            assert largest_change(ob, at, 0.01, rng, 6) <= L * (1 + 1e-9) + 1e-8


def test_unknown_majorants_are_infinite_or_none():
    ob, theta = objective([4, 5, 3], "tanh", "mse", batch_norm=True)
    assert (
        ob.certificates.third_bound(theta, 0.0) == np.inf
        and ob.certificates.residual_bounds(theta, 0.0) is None
    )
    ob, theta = objective([4, 5, 3], "tanh", "mse")
    for radius in (np.inf, np.nan, -1.0):
        assert ob.certificates.third_bound(theta, radius) == np.inf
    assert ob.certificates.third_bound(1e200 * theta, 0.1) == np.inf
    linear, theta = objective([4, 3], (), "mse")
    assert linear.certificates.third_bound(theta, 10.0) == 0.0


@pytest.mark.parametrize("act", ["relu", "leaky_relu", "elu"])
def test_no_sign_changes_on_balls_without_kinks(act):
    """If `kinks` is 0 on a ball, the signs of all preactivations are the same at random points of
    its boundary, and `third_bound` is finite, else infinite.
    """
    rng = np.random.default_rng(7)
    for sizes in ([3, 4, 2], [3, 4, 4, 2], [3, 3, 3, 1]):
        ob, theta = objective(sizes, act, "mse", N=8, residual=True)
        theta += 0.1 * rng.standard_normal(theta.size)
        signs = [z > 0 for z in ob.model.preactivations(theta, ob.X)[:-1]]
        radii = 2.0 ** -np.arange(20)
        kinks = [ob.certificates.kinks(theta, radius) for radius in radii]
        assert kinks[0] > 0 == kinks[-1]
        for radius, count in zip(radii, kinks):
            assert (ob.certificates.third_bound(theta, radius) == np.inf) == (count > 0)
            for h in rng.standard_normal((100, theta.size)) if count == 0 else ():
                there = theta + radius * h / np.linalg.norm(h)
                moved = [z > 0 for z in ob.model.preactivations(there, ob.X)[:-1]]
                assert all(np.array_equal(a, b) for a, b in zip(signs, moved))
    assert ob.certificates.kinks(0 * theta) > 0
    still, theta = objective([3, 4, 1], "relu", "mse", bias=False)
    still = fc.Objective(still.model, np.zeros((6, 3)), np.zeros(6), "mse")
    assert still.certificates.kinks(theta, 1.0) == 0  # samples of zeros without biases cannot move


def test_scales_of_layers_and_inputs_do_not_change_the_number_of_kinks(dtype):
    """A preactivation of 0 up to rounding is counted as one kink, whatever the scale of the last
    layer or of the inputs is.
    """
    rng = np.random.default_rng(3)
    model = fc.MLP([2, 3, 3, 1], "relu", dtype=dtype)
    X, y = rng.standard_normal((20, 2)), rng.standard_normal(20)
    theta = model.init(rng=0)
    (W, b), *_ = model.unflatten(theta)
    b[:] = 0.1
    b[0] = -(W[0] @ X[0])  # a preactivation of 0 up to rounding
    ob = fc.Objective(model, X, y, loss="mse")
    assert ob.certificates.kinks(theta) == 1
    for power in (-20, 20, 60):
        there, unit = theta.copy(), 2.0**power
        layers = model.unflatten(there)
        for part in layers[-1]:
            part *= unit
        assert ob.certificates.kinks(there) == 1
        layers[0][0][:] /= unit
        assert fc.Objective(model, X * unit, y, loss="mse").certificates.kinks(there) == 1


def test_residual_bounds_hold():
    """The squares of the residuals sum to the loss, their Jacobian matches difference quotients,
    and it changes no faster than its Lipschitz bound.
    """
    rng = np.random.default_rng(1)
    ob, theta = objective([3, 4, 4, 2], "tanh", "mse", N=6)
    weight = rng.uniform(0, 2, 6)
    ob = fc.Objective(ob.model, ob.X, ob.y, loss="mse", sample_weight=weight)
    known = ob.certificates.residual_bounds(theta, 0.1)
    assert known.error < 1e-13
    assert known.residuals @ known.residuals == pytest.approx(ob.value(theta), rel=1e-13)

    def jacobian(at):
        return known.scale[:, None] * (ob.jacobian(at) @ np.eye(theta.size))

    for _ in range(10):
        h = rng.standard_normal(theta.size)
        h *= 0.1 / np.linalg.norm(h)
        change = np.linalg.norm(jacobian(theta + h) - jacobian(theta - h), 2)
        assert change <= known.lipschitz * 0.2
        step = 1e-6 * h
        ahead, behind = (
            ob.certificates.residual_bounds(theta + s * step, 0).residuals for s in (1, -1)
        )
        np.testing.assert_allclose(jacobian(theta) @ step, (ahead - behind) / 2, atol=1e-12)
    assert fc.Objective(ob.model, ob.X, [0] * 6).certificates.residual_bounds(theta, 0.1) is None


ENVELOPE_FACTORS = {
    "silu": (1.05, 15.0, 31.0),
    "gelu": (1.13, 10.5, 13.5),
}  # largest ratios of envelopes to derivatives, which occur in the tails


def slopes(name, x, h=1e-5):
    """Return |phi'|, |phi''| and, by differences, |phi'''| of the named activation at x, three
    float64 arrays.
    """
    _, first, second = activation(name, x)
    third = (activation(name, x + h)[2] - activation(name, x - h)[2]) / (2 * h)
    return [np.abs(d).astype(float) for d in (first, second, third)]


@pytest.mark.parametrize("name", engine.ACTIVATIONS)
@pytest.mark.parametrize("t", [0.0, 1e-3, 0.05, 0.3, 3.0])
def test_envelopes_bound_derivatives_on_intervals(name, t):
    """Envelopes over [z - t, z + t] bound the first three derivatives on either side of a kink. For
    smooth functions they exceed the largest derivatives at or beyond the end nearer to 0 by at most
    the factors of `ENVELOPE_FACTORS`.
    """
    z, h = np.linspace(-12, 12, 481), 1e-5
    row, move = activation_spec(name), np.full_like(z, t)
    bounds, cross = row.envelope(z, move), (np.abs(z) <= t) & (row.kink > 0)
    beside = [bounds[0], *np.where(cross, row.bend, bounds[1:])]
    for s in np.linspace(-t, t, 41):
        x = (z + s).astype(LD)
        near = np.abs(x) <= 2 * h if name == "elu" else np.zeros(z.shape, bool)
        first, second, third = slopes(name, x)
        for P1, P2, P3 in (bounds, beside):
            assert np.all(first <= P1) and np.all(second <= P2 * (1 + 1e-12) + 1e-18)
            assert np.all((third <= P3 * (1 + 1e-6) + 1e-9) | near)
    if row.bend and not row.kink:
        line = np.linspace(-14, 14, 5601)
        some = slice(160, 321, 4)  # z from -4 to 4
        ends = np.maximum(np.abs(z[some]) - t - 0.005, 0)  # less the step of `line`
        for P, d, loose in zip(
            bounds, slopes(name, line.astype(LD)), ENVELOPE_FACTORS.get(name, (1.0,) * 3)
        ):
            most = np.array([d[np.abs(line) >= end].max() for end in ends])
            assert np.all(P[some] <= loose * (1 + 1e-4) * most + 1e-7)


@pytest.mark.parametrize(
    "x, weight", [(1e-110, 1e200), (1e-160, 1e170), (1e-130, 1.0), (1e90, 1e-200)]
)
def test_third_bound_holds_where_its_factors_underflow(x, weight):
    """The bound on the third derivatives ``4 weight x^2 w`` of ``weight (w2 w1 x - y)^2`` is
    positive although its factors underflow.
    """
    model = fc.MLP([1, 1, 1], "identity", bias=False)
    ob = fc.Objective(model, [[x]], [x], loss="mse", sample_weight=[weight])
    found = ob.certificates.third_bound(np.ones(2), 0.1)
    assert found >= 4 * 1.1 * 2**0.5 * (weight * x) * x
    assert found > 0


def test_the_third_bound_of_saturated_units_is_positive():
    """The bound on third derivatives is positive for a saturated unit, although its derivatives
    underflow.
    """
    for act in ("tanh", "gelu", "silu", "softplus", "elu"):
        ob = fc.Objective(fc.MLP([1, 1, 1], act), [[1.0]], [0.0], loss="mse")
        assert ob.certificates.third_bound(np.array([-900.0, 0.0, 1.0, 0.0]), 1e-3) > 0
