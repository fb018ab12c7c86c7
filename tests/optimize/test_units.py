"""The default method of `minimize` reaches the same relative loss in every unit of y."""

import numpy as np
import pytest

import fastcurv as fc

RNG = np.random.default_rng(0)
A = np.linspace(-1, 1, 80)[:, None]
X = RNG.standard_normal((100, 3))
NOISY = np.sin(X[:, :1]) + X[:, 1:2] ** 2 + 0.3 * RNG.standard_normal((100, 1))
SCALES = 1e-9, 1e-3, 1.0, 30.0, 1e6
# (model, X, y)
CASES = [
    (fc.MLP([1, 6, 1], "tanh"), A, np.sin(3 * A)),
    (fc.MLP([3, 5, 1], "sigmoid"), X, NOISY),
    (fc.MLP([3, 8, 1], "relu"), X, np.abs(X[:, :1]) - X[:, 1:2]),
    (fc.MLP([3, 6, 2], "tanh"), X, np.c_[np.sin(X[:, 0]), 1e-6 * X[:, 1] * X[:, 2]]),
    (fc.MLP([1, 6, 1], "tanh"), A, np.sin(3 * A) - 1000.0),
    (fc.MLP([3, 100, 1], "tanh"), X, np.tanh(X[:, :1] - X[:, 1:2])),  # minimised by trust-region
]


def relative_loss(run, y):
    return run.fun / np.mean((y - y.mean(0)) ** 2)


def objective(scale=1.0, **words):
    return fc.Objective(CASES[0][0], A, scale * np.sin(3 * A), "mse", **words)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_relative_loss_does_not_depend_on_the_unit_of_y(case):
    model, rows, y = CASES[case]
    start = model.init(rng=1)
    found = []
    for scale in SCALES:
        ob = fc.Objective(model, rows, scale * y, "mse")
        found.append(relative_loss(fc.minimize(ob, start, verdict=False, max_iter=150), scale * y))
    assert max(found) - min(found) <= 0.01, found


def test_runs_in_units_that_differ_by_powers_of_two_are_bitwise_identical():
    start = CASES[0][0].init(rng=0)
    runs = [fc.minimize(objective(2.0**k), start, max_iter=20) for k in (-30, -10, 7, 30)]
    for k, run in zip((-30, -10, 7, 30), runs):
        assert run.stopped == "max_iter" and run.nit == 20
        assert run.fun * 4.0**-k == runs[0].fun * 4.0**30


def test_results_and_callbacks_are_in_the_units_of_the_caller():
    ob, seen = objective(1e6), []
    start = ob.model.init(rng=0)

    def note(intermediate_result):
        seen.append(intermediate_result)
        return len(seen) == 7

    run = fc.minimize(ob, start, callback=note)
    assert run.stopped == "callback" and run.nit == 7 and len(run.history["loss"]) == 8
    assert run.history["loss"][0] == ob.value(start)
    for at in seen:
        f, g = ob.value_and_gradient(at.x)
        assert np.isclose(at.fun, f, rtol=1e-9) and np.allclose(at.jac, g, rtol=1e-6, atol=1e-3)
    assert np.array_equal(run.x, seen[-1].x) and run.fun == ob.value(run.x)
    assert np.allclose(run.history["loss"][1:], [at.fun for at in seen], rtol=1e-9)
    norms = [np.linalg.norm(at.jac) for at in seen]
    assert np.allclose(run.history["gradient_norm"][1:], norms, rtol=1e-6)


def test_limits_apply_across_runs_in_scaled_units():
    ob, start = objective(1e6), CASES[0][0].init(rng=0)
    run = fc.minimize(ob, start, max_iter=15)
    assert run.stopped == "max_iter" and run.nit == 15 and run.report is None
    run = fc.minimize(ob, start, max_products=30, verdict=False)
    assert run.stopped == "max_products" and run.nhev == 30
    run = fc.minimize(ob, start, max_time=1e-9)
    assert run.stopped == "max_time" and not run.success
    run = fc.minimize(ob, start, fun_target=1e9)
    assert run.stopped == "target" and run.success and run.fun <= 1e9
    several = fc.minimize(ob, n_init=3, rng=0, max_iter=30)
    assert several.fun <= min(several.starts)
