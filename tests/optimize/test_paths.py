"""Paths that a run takes only where gradients lie, numbers end or nothing falls."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize

import fastcurv as fc
from fastcurv.critical.evidence import hessian_products
from fastcurv.optimize import sample
from fastcurv.optimize.finish import STATUS, _factor, directions, falls_for_ever, polish
from fastcurv.optimize.run import reduction_ratio
from fastcurv.optimize.scipy import newton_cg, trust_region
from fastcurv.testing import FunctionObjective, QuadraticObjective

BOWL = QuadraticObjective(np.diag([1.0, 2.0]))


def line(value, slope=1.0, curvature=1.0):
    """A function of one number whose gradient and curvature are said to be constant."""
    return FunctionObjective(
        1,
        lambda x: float(value(x[0])),
        lambda x: np.array([slope]),
        lambda x: np.eye(1) * curvature,
    )


# --- methods on functions whose derivatives lie


@pytest.mark.parametrize(
    "method, words",
    [
        ("newton-cg", "no lower value, along the Newton-CG step or the gradient"),
        ("trust-region", "as short as rounding without lowering the loss"),
        ("l-bfgs", "no lower value along the gradient"),
        ("newton-mr", "no smaller gradient along the Newton-MR step"),
    ],
)
def test_a_gradient_that_lies_stalls_the_run_where_it_began(method, words):
    found = fc.minimize(line(abs), np.zeros(1), method, max_iter=50, verdict=False)
    assert not found.success and found.stopped == "stalled" and words in found.message
    assert np.array_equal(found.x, [0.0]) and found.fun == 0


def test_newton_mr_on_a_slope_without_curvature():
    found = fc.minimize(line(lambda x: x, curvature=0.0), np.zeros(1), "newton-mr", verdict=False)
    assert not found.success and "orthogonal to the range of the Hessian" in found.message


def test_newtons_step_out_of_the_numbers():
    wall = FunctionObjective(
        1,
        lambda x: float(x[0] - np.log(x[0])) if x[0] > 0 else np.inf,
        lambda x: 1 - 1 / x,
        lambda x: np.diag(1 / x**2),
    )
    found = fc.minimize(wall, np.full(1, 3.0), "newton", max_iter=5, verdict=False)
    assert found.stopped == "stalled" and "a loss that is not finite" in found.message
    assert np.array_equal(found.x, [3.0])


def test_a_ratio_counts_rounding_as_nothing():
    eps = 2.0**-52
    assert reduction_ratio(2.0, 1.0, 0.5, eps) == pytest.approx(2, rel=1e-13)
    assert reduction_ratio(1.0, 1.0 + eps, eps / 10, eps) == pytest.approx(1, rel=0.2)
    assert (
        reduction_ratio(1.0, np.inf, 1.0, eps) == reduction_ratio(1.0, np.nan, 1.0, eps) == -np.inf
    )
    assert reduction_ratio(0.0, 0.0, 0.0, eps) == -np.inf


# --- the end of a run


def test_rays_along_which_the_value_falls():
    falling = FunctionObjective(
        1, lambda x: np.exp(-x[0]), lambda x: -np.exp(-x), lambda x: np.diag(np.exp(-x))
    )
    at = np.zeros(1)
    assert falls_for_ever(falling, falling.value, at, 1.0, np.ones(1))
    assert not falls_for_ever(falling, falling.value, at, 1.0, -np.ones(1))
    assert not falls_for_ever(falling, falling.value, at, 1.0, np.zeros(1))
    assert not falls_for_ever(falling, falling.value, at, 1.0, np.full(1, np.inf))
    assert not falls_for_ever(BOWL, BOWL.value, np.ones(2), 1.5, -np.ones(2))


def test_probes_that_are_nothing_are_no_directions(rng):
    probed = SimpleNamespace(probes=lambda theta: np.array([[0.0, 3.0], [0.0, 4.0]]))
    flat = np.eye(2)[:, 1:]
    found = list(directions(probed, np.zeros(2), flat, rng))
    assert np.allclose(found[-1], [0.6, 0.8]) and np.array_equal(found[-2], flat[:, 0])
    assert all(np.linalg.norm(v) == pytest.approx(1) for v in found)


def test_polish_keeps_to_what_is_no_higher():
    """Newton's step halves the gradient of x^3/3 - x beside its maximum, and climbs."""
    top = FunctionObjective(
        1, lambda x: x[0] ** 3 / 3 - x[0], lambda x: x**2 - 1, lambda x: np.diag(2 * x)
    )
    start, never = np.full(1, -0.95), lambda: False
    assert np.array_equal(polish(top, start, 100, never)[0], start)
    low, n_steps, *_ = polish(top, np.full(1, 1.02), 100, never)
    assert abs(low[0] - 1) <= 1e-15 and n_steps >= 2
    assert _factor(hessian_products(line(lambda x: x, curvature=0.0), np.zeros(1))) is None
    climbs = FunctionObjective(1, lambda x: -float(x @ x), lambda x: 2 * x, lambda x: 2 * np.eye(1))
    assert np.array_equal(polish(climbs, np.full(1, 1e-3), 100, never)[0], [1e-3])


# --- SciPy's doors


def test_scipys_callables_that_are_missing():
    with pytest.raises(ValueError, match="the gradient is missing"):
        scipy.optimize.minimize(
            scipy.optimize.rosen, np.ones(3), hess=scipy.optimize.rosen_hess, method=newton_cg
        )


def test_scipys_callbacks_end_a_run():
    seen = []

    def third(intermediate_result):
        seen.append(intermediate_result.fun)
        if len(seen) == 3:
            raise StopIteration

    found = scipy.optimize.minimize(
        scipy.optimize.rosen, np.full(4, 2.0), jac=scipy.optimize.rosen_der,
        hess=scipy.optimize.rosen_hess, method=trust_region, callback=third,
    )  # fmt: skip
    assert len(seen) == 3 == found.nit and not found.success and seen == sorted(seen)[::-1]


# --- samples


def small():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12, 2))
    return fc.Objective(fc.MLP([2, 2, 1], bias=False), X, X[:, 0] * X[:, 1], "mse", l2=1e-3)


def test_a_sample_that_is_interrupted_gives_what_it_has(monkeypatch):
    whole = fc.sample_critical_points(small(), 4, epochs=(5, 20), seed=0)
    assert len(whole) > 1 and all(p.theta.shape == (6,) for p in whole)
    classify, calls = sample.classify, []

    def pressed(*words, **options):
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt
        return classify(*words, **options)

    monkeypatch.setattr(sample, "classify", pressed)
    after = 2
    some = fc.sample_critical_points(small(), 4, epochs=(5, 20), seed=0)
    assert 0 < len(some) < len(whole)
    calls.clear()
    after = 1
    with pytest.raises(KeyboardInterrupt):
        fc.sample_critical_points(small(), 4, epochs=(5, 20), seed=0)


def test_minimize_that_is_interrupted_ends_the_sample(monkeypatch):
    stopped = SimpleNamespace(status=STATUS["interrupted"], x=np.zeros(6))
    monkeypatch.setattr(sample, "minimize", lambda *words, **options: stopped)
    with pytest.raises(KeyboardInterrupt):
        fc.sample_critical_points(small(), 4, seed=0)


def test_a_sample_without_trivial_points_says_nothing_of_them():
    points = fc.sample_critical_points(small(), 4, epochs=(5, 20), seed=0)
    plain = sample.CriticalSample([p for p in points if not p.trivial], points.n_tries)
    assert "trivial" not in repr(plain) and "4 searches" in repr(plain)
