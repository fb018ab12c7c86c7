"""L-BFGS: the step is compared with the recursion, the line search with the Wolfe conditions and
Hermite's cubic, and uninterrupted runs with observed and resumed ones.
"""

import signal

import numpy as np
import pytest
import scipy.optimize
from numpy.linalg import norm

import fastcurv as fc
from fastcurv.network.engine_steps import engine_steps_of
from fastcurv.optimize import Checkpoint, EarlyStopping
from fastcurv.optimize.lbfgs import LBFGS
from fastcurv.optimize.problem import Problem
from fastcurv.testing import FunctionObjective
from tests import nets

from .problems import rosenbrock
from .problems import same as same_run

ARMIJO, CURVATURE = 1e-4, 0.9  # constants of the Wolfe conditions in the engine


def by_recursion(pairs, g):
    """Return the inverse BFGS matrix times g, by one matrix update for each pair (s, y), oldest
    first.
    """
    s, y = pairs[-1]
    H = (s @ y) / (y @ y) * np.eye(len(g))
    for s, y in pairs:
        left = np.eye(len(g)) - np.outer(s, y) / (s @ y)
        H = left @ H @ left.T + np.outer(s, s) / (s @ y)
    return H @ g


def minimize(ob, start, **more):
    return fc.minimize(ob, start, "l-bfgs", **{"verdict": False} | more)


def steps_of(ob, start, **more):
    """Return (run, points): an L-BFGS run, and the start and all points of its steps."""
    points = [start]
    return minimize(ob, start, callback=points.append, **more), points


# --- step


@pytest.mark.parametrize("memory", [1, 3, 20])
def test_the_compact_form_matches_the_recursion(memory):
    """The step in compact form equals that of successive matrix updates in NumPy, before and after
    the memory of pairs is full.
    """
    problem, method, pairs = Problem(rosenbrock(10)), LBFGS(memory=memory), []
    state = method.init(problem, np.linspace(-1.0, 1.5, 10))
    for _ in range(12):
        before, state = state, method.step(problem, state)
        assert len(state.steps) == 1
        pairs = [*pairs, (state.theta - before.theta, state.g - before.g)][-memory:]
        expected = by_recursion(pairs, state.g)
        assert state.engine.start_search(), "the first trial is a whole step"
        step = state.engine.theta - state.engine.trial
        assert norm(step - expected) <= 1e-9 * norm(expected) + 1e-15 * norm(state.theta)


# --- line search


def test_points_of_networks_meet_the_strong_wolfe_conditions(rng):
    """Each step of a run on networks satisfies the strong Wolfe conditions, for values and
    gradients computed again.
    """
    for activation in nets.SMOOTH:
        net = nets.draw(rng, [3, 6, 2], activation, "cross_entropy", 40, l2=1e-3)
        _, points = steps_of(net.ob, net.theta, max_iter=60)
        for x, to in zip(points[:-1], points[1:], strict=True):
            (f, g), (at, there) = map(net.ob.value_and_gradient, (x, to))
            noise = 20 * nets.EPS["float64"] * abs(f)
            slope, left = g @ (to - x), there @ (to - x)
            assert at <= f + ARMIJO * slope + noise and slope < 0
            assert abs(left) <= CURVATURE * abs(slope) * (1 + 1e-6)


# --- callbacks and user-defined objectives


def same(a, b):
    """Assert that two runs are equal, including their numbers of evaluations."""
    same_run(a, b)
    assert a.nfev == b.nfev


class UserObjective:
    """An objective that delegates to `ob` and whose class the engine does not recognise."""

    def __init__(self, ob):
        self.n_params, self.dtype = ob.n_params, ob.dtype
        self.value, self.gradient = ob.value, ob.gradient
        self.value_and_gradient = ob.value_and_gradient


@pytest.mark.parametrize("loss", nets.LOSSES)
def test_runs_are_bitwise_identical_with_and_without_callbacks(loss, dtype, rng):
    net = nets.draw(rng, [4, 9, 3], "tanh", loss, 50, l2=1e-3, dtype=dtype)
    seen = []
    alone = minimize(net.ob, net.theta, max_iter=80)
    same(
        alone,
        minimize(
            UserObjective(net.ob), net.theta, max_iter=80, gradient_tol=default_gradient_tol(dtype)
        ),
    )
    same(alone, minimize(net.ob, net.theta, max_iter=80, callback=seen.append))
    same(alone, minimize(net.objective(n_threads=2), net.theta, max_iter=80))
    held = minimize(net.ob, net.theta, max_iter=80, callback=EarlyStopping(net.ob, 80))
    assert np.array_equal(held.history["validation"], alone.history["loss"])
    same(alone, held)
    assert len(seen) == alone.nit > 10 and net.ob.value(alone.x) == alone.fun


def default_gradient_tol(dtype):
    """Return the default gradient tolerance of `minimize` for a dtype."""
    return 1e-6 if dtype == "float64" else 1e-3


# --- time limits and interrupts


def slow(rng):
    return nets.draw(rng, [10, 14, 3], "tanh", "cross_entropy", 3000)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer here")
def test_ctrl_c_in_the_middle_of_the_engines_steps_keeps_them(rng):
    net = slow(rng)

    def ring(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGPROF, ring)
    try:
        minimize(net.ob, net.theta, max_iter=2)
        signal.setitimer(signal.ITIMER_PROF, 0.15)  # seconds of processor time
        found = minimize(net.ob, net.theta, gradient_tol=0.0, max_iter=10**9)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert found.stopped == "interrupted" and found.nit > 0
    assert found.fun == net.ob.value(found.x) == found.history["loss"].min()
    assert len(found.history["loss"]) == found.nit + 1
    again = minimize(net.ob, net.theta, gradient_tol=0.0, max_iter=found.nit)
    assert np.array_equal(again.history["loss"], found.history["loss"])


# --- final losses


@pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.nightly)])
def test_networks_end_as_low_as_with_scipys_l_bfgs(count, rng):
    """In at least 20 of 30 comparisons, the final loss is at most that of SciPy's L-BFGS-B. No loss
    of a run rises by more than rounding, and `fun` is the loss at `x`.
    """
    lower = 0
    for i in range(count):
        sizes = [int(m) for m in rng.integers(1, 9, 3)]
        net = nets.draw(
            rng, sizes, nets.SMOOTH[i % len(nets.SMOOTH)], nets.LOSSES[i % len(nets.LOSSES)],
            int(rng.integers(5, 60)), l2=float(10.0 ** rng.integers(-4, 0)),
        )  # fmt: skip
        found = minimize(net.ob, net.theta, max_iter=2000)
        losses = found.history["loss"]
        assert (np.diff(losses) <= 10 * nets.EPS["float64"] * losses[:-1]).all()
        assert found.fun == net.ob.value(found.x) and found.stopped in ("critical", "max_iter")
        assert found.stopped == "max_iter" or norm(net.ob.gradient(found.x)) <= 1e-6
        if i % (count // 30) == 0:
            theirs = scipy.optimize.minimize(
                net.ob.value_and_gradient, net.theta, jac=True, method="L-BFGS-B",
                options={"maxcor": 20, "gtol": 1e-9, "ftol": 0, "maxiter": 2000},
            )  # fmt: skip
            lower += found.fun <= theirs.fun * (1 + 1e-6)
    assert lower >= 20  # minima differ: chance alone would give 15


# --- layer coordinates


def regression(loss="mse", N=300, n_threads=1, **more):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((N, 6))
    y = np.exp(np.sin(X[:, 0] * X[:, 1]) + 0.5 * np.tanh(X[:, 2]))[:, None]
    model = fc.MLP([6, 24, 12, 1], "tanh", **more)
    ob = fc.Objective(model, X, y, loss, l2=1e-5, n_threads=n_threads)
    return ob, ob.model.init(rng=0)


def test_steps_equal_lbfgs_in_layer_coordinates():
    """Until coordinates are updated, steps with `precondition=True` equal those of L-BFGS on the
    objective as a function of layer coordinates, up to rounding.
    """
    ob, theta = regression()
    made = engine_steps_of(ob).kronecker_coordinates()
    made.fit(theta)
    made.limit_first_step(ob.gradient(theta))
    inside = FunctionObjective(
        ob.n_params,
        lambda x: ob.value(theta + made.to_theta(x)),
        lambda x: made.to_gradient(ob.gradient(theta + made.to_theta(x))),
        None,
    )
    found = minimize(ob, theta, max_iter=5, precondition=True)
    expected = minimize(inside, np.zeros(ob.n_params), max_iter=5)
    assert np.allclose(found.history["loss"], expected.history["loss"], rtol=1e-10)
    assert norm(found.x - theta - made.to_theta(expected.x)) <= 1e-8 * norm(found.x - theta)
    assert np.array_equal(found.jac, ob.gradient(found.x))


@pytest.mark.parametrize("at", [1, 4, 5, 7, 9, 10, 13])
@pytest.mark.parametrize("memory", [4, 20])  # with and without overwritten pairs
@pytest.mark.parametrize("precondition", [False, True])
def test_a_resumed_run_continues_with_its_pairs_bitwise(precondition, memory, at, tmp_path):
    """A run resumed after 1 to 13 steps is bitwise identical to the uninterrupted one, also in
    layer coordinates, before, at and after an update of the coordinates.
    """
    rosen = rosenbrock(10), np.linspace(-1.0, 1.5, 10)
    (ob, theta), path = regression() if precondition else rosen, tmp_path / "run"
    how = {"memory": memory, "precondition": precondition}
    whole = minimize(ob, theta, max_iter=25, **how)
    minimize(ob, theta, max_iter=at, checkpoint=path, **how)
    rest = minimize(ob, None, max_iter=25, checkpoint=Checkpoint(resume=path), **how)
    assert rest.nit == 25
    same(whole, rest)


def test_subclasses_and_wrappers_are_evaluated_with_their_own_loss(rng):
    net = nets.draw(rng, [2, 3, 1], "tanh", "mse", 12, l2=1e-2)

    class Shifted(fc.Objective):
        def value_and_gradient(self, theta):
            f, g = super().value_and_gradient(theta)
            return f + float(np.sum((theta - 1) ** 2)), g + 2 * (theta - 1)

        def value(self, theta):
            return self.value_and_gradient(theta)[0]

    class Wrapped(nets.Around):
        def value_and_gradient(self, theta):
            f, g = self.ob.value_and_gradient(theta)
            return f + float(np.sum((theta - 1) ** 2)), g + 2 * (theta - 1)

    other = Shifted(net.ob.model, net.X, net.y, "mse", l2=1e-2)
    found = minimize(other, net.theta)
    same(found, minimize(Wrapped(net.ob), net.theta))
    assert norm(net.ob.gradient(found.x) + 2 * (found.x - 1)) <= 1e-6
    damped = fc.minimize(other, net.theta, "lm", max_iter=20, verdict=False)
    assert damped.fun == other.value(damped.x) < other.value(net.theta)
