"""Final points of `minimize` and `escape`: success only at minima, descent from degenerate points,
losses without a minimum, and the time of the final checks.
"""

import itertools
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common.objectives import budgeted_hessian
from fastcurv.optimize.finish import StationaryPointExaminer
from fastcurv.optimize.minimize import METHODS
from fastcurv.optimize.problem import Problem
from fastcurv.optimize.refine import _cholesky_solve, refine_by_newton
from fastcurv.optimize.run import STATUS_CODES, MinimizeResult
from fastcurv.testing import FunctionObjective as function

from .problems import MONKEY

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 3)


DESCENDING = {  # the Hessian at the critical point 0 is positive semidefinite, 0 is no minimum
    "monkey saddle": MONKEY,
    "x^2 - y^4": function(
        2,
        lambda t: t[0] ** 2 - t[1] ** 4,
        lambda t: [2 * t[0], -4 * t[1] ** 3],
        lambda t: np.diag([2.0, -12 * t[1] ** 2]),
    ),
    "x^2 + y^3": function(
        2,
        lambda t: t[0] ** 2 + t[1] ** 3,
        lambda t: [2 * t[0], 3 * t[1] ** 2],
        lambda t: np.diag([2.0, 6 * t[1]]),
    ),
    "a bent valley": function(  # (y - x^2)(y - 3 x^2): has a minimum at 0 along every line
        2,
        lambda t: (t[1] - t[0] ** 2) * (t[1] - 3 * t[0] ** 2),
        lambda t: [12 * t[0] ** 3 - 8 * t[0] * t[1], 2 * t[1] - 4 * t[0] ** 2],
        lambda t: [[36 * t[0] ** 2 - 8 * t[1], -8 * t[0]], [-8 * t[0], 2.0]],
    ),
}


def overlapping(sizes, l2, N, seed=0, activation="tanh"):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, sizes[0]))
    y = rng.integers(0, sizes[-1], N)
    return fc.Objective(fc.MLP(sizes, activation=activation), X, y, l2=l2)


def line(value, slope=1.0, curvature=1.0):
    """Return an objective of one variable with the function `value`, whose gradient and Hessian are
    the constants `slope` and `curvature`, correct or not.
    """
    return function(
        1,
        lambda x: float(value(x[0])),
        lambda x: np.array([slope]),
        lambda x: np.eye(1) * curvature,
    )


# --- points that are no minimum, and minima


@pytest.mark.parametrize("method", ["trust-region", "newton-cg", "saddle-free-newton", "cubic"])
@pytest.mark.parametrize("name", DESCENDING)
def test_runs_leave_degenerate_points_with_a_descent_direction(name, method):
    found = fc.minimize(DESCENDING[name], np.zeros(2), method, rng=0)
    assert not found.success and found.stopped in ("unbounded", "max_iter", "diverged")
    assert found.fun < -1.0


@pytest.mark.parametrize("activation", ["tanh", "identity"])
def test_runs_leave_the_zero_start_of_a_deep_network(activation):
    """At theta = 0 in a network with three layers, gradient and Hessian are 0 and only the third
    derivative reveals descent. Runs from there reach a loss at most twice that from a random start.
    """
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((30, 4)), rng.standard_normal((30, 2))
    ob = fc.Objective(fc.MLP([4, 3, 3, 2], activation=activation, bias=False), X, Y, loss="mse")
    zeros = np.zeros(ob.n_params)
    assert not np.any(ob.gradient(zeros)) and not np.any(ob.hessian(zeros).to_dense())
    best = fc.minimize(ob, ob.model.init(rng=0), rng=0).fun
    found = fc.minimize(ob, zeros, rng=0)
    assert found.fun < 0.9 * ob.value(zeros) and found.fun <= 2.0 * best


@pytest.mark.parametrize("method", ["trust-region", "newton-cg", "l-bfgs", "adam"])
def test_the_last_newton_steps_reach_the_rounding_error_of_theta(method):
    """Every method ends so close to the minimum that the length of Newton's step is at most 1e-12
    of the norm of theta.
    """
    ob = overlapping([4, 5, 3], 1e-2, 50)
    options = {"learning_rate": 0.05, "max_iter": 5000} if method == "adam" else {}
    found = fc.minimize(ob, ob.model.init(rng=0), method, rng=0, **options)
    assert found.success and found.report.certified
    H, g = ob.hessian(found.x).to_dense(), ob.gradient(found.x)
    assert np.linalg.norm(np.linalg.solve(H, g)) <= 1e-12 * np.linalg.norm(found.x)
    assert found.fun == ob.value(found.x) and np.array_equal(found.jac, g)


def test_a_tiny_unit_of_the_loss_gives_no_false_success():
    """If targets of 1e-13 make the initial loss 1e-26, a run is a success only if it lowers the
    loss to a thousandth.
    """
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((30, 4)), 1e-13 * rng.standard_normal((30, 2))
    ob = fc.Objective(fc.MLP([4, 3, 3, 2], bias=False), X, Y, loss="mse")
    found = fc.minimize(ob, np.zeros(ob.n_params), rng=0, max_iter=100)
    assert not found.success or found.fun < 1e-3 * ob.value(np.zeros(ob.n_params))


@pytest.mark.parametrize("method", ["gauss-newton", "levenberg-marquardt"])
def test_a_run_that_meets_a_concave_loss_keeps_its_last_point(method):
    """If Cauchy's loss is concave at the current residuals, so that no Gauss-Newton matrix exists,
    the run ends at a finite loss no higher than that of the start.
    """

    def cauchy(z, y):
        r = z - y
        w = 1 / (1 + r * r / 2)
        return np.log1p(r * r / 2).sum(axis=1), r * w, (1 - r * r / 2) * w * w

    met = 0
    for seed in (1, 29, 36):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((30, 2))
        y = np.sin(2 * X[:, 0]) + 0.3 * rng.standard_normal(30)
        loss = fc.Loss(cauchy, lower_bound=0.0)
        ob = fc.Objective(fc.MLP([2, 5, 1]), X, y, loss=loss, l2=1e-4)
        start = ob.model.init(rng=seed) * 0.3
        run = fc.minimize(ob, start, method, rng=0, max_iter=200)
        assert run.fun <= ob.value(start) and np.isfinite(run.fun)
        met += run.notes[0].numbers.get("cause") == "not_convex"
    assert met


# --- time


@pytest.mark.parametrize("limit", [0.2, 0.6])
def test_max_time_includes_the_final_checks(limit, ticks):
    """The time of a run with its final checks exceeds max_time by at most a tenth and one interval
    between readings of the clock.
    """
    # The run would converge after some 4 s, which is far above the limits.
    ob = overlapping([20, 60, 10], 1e-6, 400)
    begun = time.perf_counter()
    found = fc.minimize(ob, ob.model.init(rng=0), "trust-region", max_time=limit, max_iter=10**6)
    assert found.wall_time <= time.perf_counter() - begun <= 1.1 * limit + ticks
    assert found.stopped == "max_time" and found.nit > 10


@pytest.mark.parametrize("n_training", [10, 50000])
def test_final_checks_stay_within_their_budget(n_training):
    """The evaluations left for final checks are as many as those of the run, or one second of them
    if the run used fewer, and end at the time limit of the run.
    """
    run = Problem(SimpleNamespace(n_params=2000))
    run.charge(n_products=n_training)
    end = StationaryPointExaminer(run, METHODS["trust-region"](), None)
    room = max(1000, n_training)  # 1000 evaluations of a user-defined objective count as a second
    with end._count_checks():
        assert end._can_spend(room, 1.0) and not end._can_spend(room + 1, 1.0)
        run.charge(n_gradients=10)
        assert end._can_spend(room - 10, 1.0) and not end._can_spend(room - 9, 1.0)
        assert end._can_spend(room - 15, 1.0, 5) and not end._can_spend(room - 14, 1.0, 5)
        end.so_far.n_eigensystems = 2000  # the time of each is that of 2400 evaluations
        assert not end._can_spend(1, 1.0)
    assert end.so_far.n_check_evaluations == 10 and end.is_out_of_budget()
    run = Problem(run.ob, max_time=60.0)
    run.charge(n_products=40)
    run.budget.begun -= 40  # 20 seconds are left
    end = StationaryPointExaminer(run, METHODS["trust-region"](), None)
    assert end._can_spend(19900, 60.0) and not end._can_spend(20100, 60.0)


@pytest.mark.parametrize("seconds", [1e-9, 100.0])
def test_results_do_not_depend_on_the_clock(seconds, monkeypatch):
    """Without `max_time`, a run on a machine on which each reading of the clock takes `seconds` has
    the bits of any other.
    """
    ob = overlapping([2, 2, 2], 0.0, 10)
    plain = fc.minimize(ob, np.zeros(ob.n_params), rng=0)
    readings = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: seconds * next(readings))
    found = fc.minimize(ob, np.zeros(ob.n_params), rng=0)
    assert found.nhev == plain.nhev and np.array_equal(found.x, plain.x)


# --- functions that `minimize` calls


def test_statuses_are_numbered_as_minimize_lists_them():
    text = MinimizeResult.__doc__
    listed = re.search(r"Why the run ended: (.*?)`status` is the position in", text, re.S)[1]
    names = [name for part in re.findall(r"``(.*?)``", listed, re.S) for name in part.split()]
    assert {name: i for i, name in enumerate(names)} == STATUS_CODES


def test_refinement_never_increases_the_loss():
    """`refine_by_newton` converges to a minimum of x^3/3 - x, and rejects Newton's step near the
    maximum and for a concave quadratic, which would increase the loss.
    """
    top = function(1, lambda x: x[0] ** 3 / 3 - x[0], lambda x: x**2 - 1, lambda x: np.diag(2 * x))
    start, never = np.full(1, -0.95), lambda _: False
    assert np.array_equal(refine_by_newton(top, start, 100, never)[0], start)
    low, n_steps, *_ = refine_by_newton(top, np.full(1, 1.02), 100, never)
    assert abs(low[0] - 1) <= 1e-15 and n_steps >= 2
    assert _cholesky_solve(budgeted_hessian(line(lambda x: x, curvature=0.0), np.zeros(1))) is None
    climbs = function(1, lambda x: -float(x @ x), lambda x: 2 * x, lambda x: 2 * np.eye(1))
    assert np.array_equal(refine_by_newton(climbs, np.full(1, 1e-3), 100, never)[0], [1e-3])
