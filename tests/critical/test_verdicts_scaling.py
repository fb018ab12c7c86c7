"""Thresholds of verdicts are relative, so units of the loss, the inputs and the parameters change
no verdict.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify import rounding_bound
from fastcurv.common.objectives import budgeted_hessian
from fastcurv.critical.classify import classify
from fastcurv.critical.evidence import balanced_units
from fastcurv.spectrum.dense import counted_matrix, matrix_error_bound, symmetric_part

from ..zoo import zoo
from .units import KINDS, pairs

pytestmark = pytest.mark.by_day(share=1 / 3)

NETWORKS = [case for case in zoo() if isinstance(case.objective, fc.Objective)]


def scale_inputs(ob, theta, factor):
    theta = theta.copy()
    W1, _ = ob.model.unflatten(theta)[0]
    W1 /= factor
    return fc.Objective(ob.model, factor * ob.X, ob.y, ob.loss, l2=ob.l2), theta


def test_scaling_at_large_n_changes_no_kind():
    for case in NETWORKS[:30]:
        if case.objective.l2 == 0:
            one = classify(case.objective, case.theta, dense_below=0, failure_probability=0.01)
            for factor in (1e3, 1e-3):
                scaled, theta = scale_inputs(case.objective, case.theta, factor)
                other = classify(scaled, theta, dense_below=0, failure_probability=0.01)
                assert other.kind == one.kind, case.name


@pytest.mark.parametrize("factor", [1.0, 1e-3])
def test_the_error_bound_covers_float32_rounding(factor):
    """The difference between balanced products in float32 and float64 is within the error bound,
    which is less than 1e4 times the difference in at least one case.
    """
    slack = []
    for case in NETWORKS[10::10]:
        scaled, theta = scale_inputs(case.objective, case.theta, factor)
        ob = scaled.astype("float32")
        theta = theta.astype(np.float32)
        rough = budgeted_hessian(ob, theta, best=False)
        assert rough.dtype == np.float32
        I = np.eye(theta.size, dtype=np.float32)
        bounds = np.array([rounding_bound(rough.op, e) for e in I])
        A = symmetric_part((rough.op @ I).astype(float), bounds, theta.size).A
        exact = counted_matrix(budgeted_hessian(ob, theta)).A
        d = balanced_units(exact, np.zeros((len(exact), 1)), np.zeros(len(exact), int))
        error = np.linalg.norm(d[:, None] * (A - exact) * d)
        bound = matrix_error_bound(bounds, d)
        assert 0 < error <= bound
        slack.append(bound / error)
    assert min(slack) < 1e4


def test_balancing_removes_any_diagonal_scaling():
    rng = np.random.default_rng(2)
    A = rng.standard_normal((12, 12))
    A += A.T
    D = 10.0 ** rng.uniform(-4, 4, 12)
    layers = np.zeros(12, int)
    d1 = balanced_units(A, np.zeros((12, 1)), layers)
    d2 = balanced_units(D[:, None] * A * D, np.zeros((12, 1)), layers)
    assert np.ptp(np.log2(d2 * D / d1)) <= 2
    loud = np.full((12, 1), np.inf)  # no entry exceeds the bound on its error
    assert (balanced_units(A, loud, layers) == 1).all()


@pytest.mark.parametrize("lost", [0.0, 1e-300])
def test_balanced_units_follow_rescaling(lost):
    """If parameters are rescaled by powers of two, the balanced units change bitwise by these
    powers and one common power, also with zero or underflowing bounds. The units compensate for a
    collapsed layer.
    """
    rng = np.random.default_rng(3)
    layers = np.repeat([0, 1, 2], [2, 5, 3])
    noise = np.exp(rng.standard_normal((10, 10)))
    noise *= noise.T * np.where(rng.random((10, 10)) < 0.3, 0.0, 1.0)
    noise = np.maximum(np.maximum(noise, noise.T), lost)

    def units(noise, layers=layers):
        return balanced_units(0 * noise, noise, layers)

    d = units(noise)
    s = np.exp2(rng.integers(-30, 30, 10))
    ratio = units(np.where(noise > 1e-280, s[:, None] * noise * s, lost)) * s / d
    assert (ratio == ratio[0]).all() and np.frexp(ratio[0])[0] == 0.5
    large = np.where(noise > 1e-280, np.ldexp(noise, 400), np.ldexp(lost, 400))
    assert np.array_equal(units(large), d)
    collapsed = np.where(layers == 0, 1e-36, 1.0)
    pair = np.where(np.equal.outer(layers, layers), np.sqrt(np.outer(collapsed, collapsed)), 1.0)
    even = units(pair[:7, :7], layers[:7])
    assert even[0] / even[-1] == pytest.approx(1e18, rel=0.5)


@pytest.fixture(scope="module")
def found():
    """Return (objective, runs) with runs of `minimize` from three different starts."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((40, 3)), rng.standard_normal(40)
    ob = fc.Objective(fc.MLP([3, 2, 1]), X, y, loss="mse")
    return ob, [fc.minimize(ob, ob.model.init(rng=s), rng=0) for s in range(3)]


@pytest.mark.parametrize("power", [-3.0, 5.0])
def test_scaling_the_inputs_does_not_prevent_a_certificate(power, found):
    """If columns of X are multiplied and first weights divided by the same factors, the minimum
    stays certified, at theta or at the nearest point.
    """
    rng, (ob, ends) = np.random.default_rng(4), found
    X, y = ob.X, ob.y
    proved = [r for r in ends if r.success and r.report.kantorovich is not None]
    sure = [r.x for r in proved if r.report.kantorovich < 1e-6]
    assert sure
    for theta in sure:
        for _ in range(3):
            scale = 10.0 ** (power * rng.random(3))
            other = fc.Objective(ob.model, X * scale, y, loss="mse")
            there = theta.copy()
            there[:6] /= np.tile(scale, 2)
            # rounding of the factors may move the minimum by a Newton step
            said = fc.classify(other, there)
            said = said if said.certified else said.nearest_verdict
            assert said is not None and said.kind == "minimum" and said.certified, said


@pytest.mark.parametrize("options", [{}, {"dense_below": 1, "failure_probability": 1e-6}])
@pytest.mark.parametrize("power", [-580, 580])
def test_losses_whose_squares_overflow_or_underflow_keep_their_verdict(power, options, found):
    """If the loss is multiplied by a power of two so that squares overflow or underflow, verdicts
    at a minimum and near it do not change, and their numbers scale with that power.
    """
    ob, ends = found
    other = fc.Objective(
        ob.model, ob.X, ob.y, loss="mse", sample_weight=np.full(40, np.ldexp(1.0, power))
    )
    for theta in [r.x for r in ends][:2] + [ends[0].x * 1.01]:
        one, two = fc.classify(ob, theta, **options), fc.classify(other, theta, **options)
        assert (one.kind, one.certified, one.evidence.plateau) == (
            two.kind,
            two.certified,
            two.evidence.plateau,
        )
        if one.kind == "not_critical":  # at a critical point the gradient is mere rounding
            unit = np.ldexp(one.gradient_norm, power)
            assert abs(two.gradient_norm - unit) <= 1e-9 * unit
            assert abs(one.evidence.gradient_flat_ratio - two.evidence.gradient_flat_ratio) <= 1e-9
            if one.evidence.nearest_distance is not None:
                assert (
                    abs(one.evidence.nearest_distance - two.evidence.nearest_distance)
                    <= 1e-6 * one.evidence.nearest_distance
                )
        top = np.ldexp(one.lambda_max, power)
        assert abs(two.lambda_max - top) <= 1e-9 * top


@pytest.mark.parametrize("kind", KINDS)
def test_scaling_of_parameters_and_data_changes_no_verdict(kind):
    """Multiplying inputs, targets, the loss or a layer by 2^-12, 2^-5, 2^5 or 2^12 changes neither
    kind, certificate nor inertia. ``python -m tests.critical.units 250`` tests more networks.
    """
    asked = {"targets": range(2000, 2010), "inputs": range(2000, 2010)}
    kinds = set()
    for seed in asked.get(kind, range(2000, 2006)):
        words, (one, report), (other, _) = pairs(kind, seed)
        assert one == other, words
        kinds.add(report.kind)
    assert len(kinds) > 1


@pytest.mark.parametrize(
    "kind, seed",
    [
        ("layer", 10),  # a certified inertia was lost in other units of a layer
        ("targets", 1),  # the error of D E D, bounded by columns, made eigenvalues zero
        ("targets", 1204),  # counts by two fixed vectors are those at theta
        ("inputs", 45),
        ("layer", 72),  # two fixed vectors in balanced coordinates
        ("targets", 3),  # balancing units did not follow a change of units for a collapsed layer
        ("targets", 56),
        # balancing units did not follow a change of units for entries that underflow
        ("targets", 87),
        ("loss", 44),
        ("layer", 16),
        ("layer", 119),
        ("inputs", 324),  # two fixed vectors in the other balanced coordinates
        ("layer", 566),  # a definite H whose sign was measured in theta's own units
    ],
)
def test_scalings_that_once_changed_a_verdict_do_not_change_it(kind, seed):
    words, (one, _), (other, _) = pairs(kind, seed)
    assert one == other, words
