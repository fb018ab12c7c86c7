"""The default method of `minimize` reaches the same relative loss in every unit of y."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

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


@pytest.mark.nightly
def test_the_relative_loss_depends_on_no_unit_for_many_starts():
    for model, rows, y in CASES[:3]:
        for seed in range(8):
            start, found = model.init(rng=seed), []
            for scale in (1e-9, 1e-5, 1e2, 1e4, 1e9):
                ob = fc.Objective(model, rows, scale * y, "mse")
                found.append(relative_loss(fc.minimize(ob, start, max_iter=500), scale * y))
            assert max(found) - min(found) <= 0.01, (seed, found)


def test_runs_in_units_that_differ_by_powers_of_two_are_bitwise_identical():
    start = CASES[0][0].init(rng=0)
    runs = [fc.minimize(objective(2.0**k), start, max_iter=20) for k in (-30, -10, 7, 30)]
    for k, run in zip((-30, -10, 7, 30), runs):
        assert run.stopped == "max_iter" and run.nit == 20
        assert run.fun * 4.0**-k == runs[0].fun * 4.0**30


def test_a_start_that_explains_the_targets_is_kept():
    """A run continues from a start that fits the targets, such as weights trained by another
    library, even if targets have a magnitude of 1000.
    """
    ob = objective(1e3)
    rough = fc.minimize(ob, rng=0, max_iter=5)
    again = fc.minimize(ob, rough.x, max_iter=30)
    assert again.history["loss"][0] == ob.value(rough.x)
    assert (again.history["loss"][1:] <= rough.fun * (1 + 1e-12)).all()


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


def test_an_interrupt_in_other_units_leaves_the_lowest_point():
    def interrupt(xk):
        raise KeyboardInterrupt

    ob = objective(1e6)
    run = fc.minimize(ob, ob.model.init(rng=0), callback=interrupt)
    assert run.stopped == "interrupted" and run.fun == ob.value(run.x)


def test_targets_of_weight_zero_do_not_affect_the_scaling():
    """The scale by which targets are divided ignores targets of samples of weight 0, so that the
    final loss is bitwise unchanged if these are 1e150.
    """
    weight = np.arange(80) % 3 > 0
    y = 1e-6 * np.sin(3 * A)
    plain = fc.minimize(
        fc.Objective(CASES[0][0], A, y, "mse", sample_weight=1.0 * weight), rng=0, max_iter=40
    )
    y[~weight] = 1e150
    wild = fc.Objective(CASES[0][0], A, y, "mse", sample_weight=1.0 * weight)
    assert fc.minimize(wild, rng=0, max_iter=40).fun == plain.fun


def test_sparse_samples_are_fitted_in_units_of_y():
    start, found = fc.MLP([3, 5, 1], "tanh").init(rng=0), []
    for rows in (X, csr_matrix(X)):
        ob = fc.Objective(fc.MLP([3, 5, 1], "tanh"), rows, 1e-6 * np.sin(X[:, 0]), "mse")
        found.append(fc.minimize(ob, start, verdict=False, max_iter=150).fun)
    assert max(found) < 1e-12 * 0.01


def test_runs_with_weight_decay_or_a_tolerance_stay_in_their_units():
    """Runs with weight decay or a gradient tolerance, which depend on the units of theta, are not
    rescaled. Such a run with the default method is bitwise equal to one with the method called by
    name.
    """
    start = CASES[0][0].init(rng=0)
    for words, options in (({"l2": 1e-9}, {}), ({}, {"gradient_tol": 1e-9})):
        ob = objective(1e3, **words)
        default = fc.minimize(ob, start, max_iter=30, **options)
        named = fc.minimize(ob, start, "levenberg-marquardt", max_iter=30, **options)
        assert np.array_equal(default.x, named.x)


@pytest.mark.parametrize("weight", [None, np.zeros(80), np.arange(80.0)])
def test_targets_that_are_all_zero_are_fitted(weight):
    """Targets of size 0, and weights that are all 0, have no scale. The run ends at a loss of 0."""
    ob = fc.Objective(CASES[0][0], A, 0 * A, "mse", sample_weight=weight)
    run = fc.minimize(ob, rng=0, max_iter=40)
    assert run.fun <= 1e-12 and np.isfinite(run.x).all()
