"""Groups of steps that the engine takes without Python on small networks equal single steps, with
callbacks, limits and interrupts.
"""

import signal

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.network.engine_steps import engine_steps_of
from fastcurv.optimize.problem import Problem
from tests import nets

from .problems import same as same_run

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 3)

METHODS = "newton-cg", "trust-region", "cubic", "saddle-free-newton", "gauss-newton"


class MinimalObjective:
    """An objective that delegates to `ob` and has only the methods that `minimize` requires."""

    def __init__(self, ob):
        self.ob, self.n_params, self.dtype = ob, ob.n_params, ob.dtype

    def value_and_gradient(self, theta):
        return self.ob.value_and_gradient(theta)

    def __getattr__(self, name):
        if name in ("value", "gradient", "hessian", "ggn"):
            return getattr(self.ob, name)
        raise AttributeError(name)


def cauchy(z, y):
    squared = 1 + (z - y) ** 2
    return 0.5 * np.log(squared).sum(axis=1), (z - y) / squared, (2 - squared) / squared**2


def small_network(net, **more):
    rng = np.random.default_rng(5)
    sizes = more.pop("sizes", [3, 5, 4, 2])
    loss, N = more.pop("loss", "mse"), more.pop("N", 23)
    return nets.draw(rng, sizes, net, loss, N, **{"l2": 1e-3} | more)


def minimize(ob, start, method, **more):
    return fc.minimize(ob, start, method, **{"verdict": False, "rng": 0} | more)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "poisson"])
@pytest.mark.parametrize("method", METHODS)
def test_grouped_steps_equal_single_steps(method, loss, dtype):
    """A run whose steps the engine takes in groups is bitwise identical to runs of single steps:
    with a callback, and for a user-defined objective.
    """
    for activation in ("tanh", "relu"):
        net = small_network(activation, loss=loss, dtype=dtype)
        limits = {"max_iter": 83, "gradient_tol": 1e-9 if dtype == "float64" else 1e-5}
        found, points = minimize(net.ob, net.theta, method, **limits), []

        def look(intermediate_result, points=points):
            points.append(intermediate_result)

        watched = minimize(net.ob, net.theta, method, callback=look, **limits)
        asked = minimize(MinimalObjective(net.ob), net.theta, method, **limits)
        same_run(found, watched)
        assert len(points) == found.nit and np.array_equal(points[-1].x, found.x)
        assert [point.nhev for point in points] == found.history["products"][1:].tolist()
        for key in ("loss", "gradient_norm", "products", "iteration"):
            assert np.array_equal(found.history[key], asked.history[key]), key
        counts = [(end.nit, end.nfev, end.njev, end.nhev) for end in (found, asked)]
        assert counts[0] == counts[1] and np.array_equal(found.x, asked.x)
        assert (np.diff(found.history["time"]) >= 0).all()


def test_the_engine_takes_steps_for_small_networks_with_built_in_losses_only(rng):
    """The engine has a `point_evaluator` for a small network with a built-in loss, and none for a
    user-defined loss or many samples. A subclass's own `value` is used.
    """
    net = small_network("tanh")
    bent = fc.Objective(net.model, net.X, net.y, fc.Loss(cauchy))
    assert engine_steps_of(net.ob).point_evaluator() is not None
    assert engine_steps_of(bent).point_evaluator() is None  # Cauchy's loss is not convex
    little = fc.Objective(net.model, net.X, net.y, "mse", memory=2_000_000)
    many = fc.Objective(fc.MLP([3, 300, 2]), rng.standard_normal((3000, 3)), np.ones((3000, 2)))
    assert engine_steps_of(many).point_evaluator() is None
    for ob in (little, bent):
        found = minimize(ob, net.theta, "trust-region", max_iter=5)
        assert found.nit == 5 or found.stopped == "critical"

    class Halved(fc.Objective):
        def value(self, theta):
            return 0.5 * super().value(theta)

    halved = Halved(net.model, net.X, net.y, "mse")
    assert Problem(halved).evaluate(net.theta, "hessian")[0] == halved.value(net.theta)


@pytest.mark.parametrize("method", METHODS)
def test_budgets_end_grouped_and_single_steps_at_the_same_step(method, ticks):
    net = small_network("tanh", sizes=[3, 20, 20, 2])
    for most in (1, 2, 7, 40, 111):
        how = {"max_products": most, "gradient_tol": 0.0}
        found = minimize(net.ob, net.theta, method, **how)
        watched = minimize(net.ob, net.theta, method, callback=lambda r: False, **how)
        same_run(found, watched)
        assert found.stopped == "max_products"
    target = 0.9 * net.ob.value(net.theta)
    found = minimize(net.ob, net.theta, method, fun_target=target, gradient_tol=0.0)
    assert found.stopped == "target" and found.fun <= target < found.history["loss"][-2]
    found = minimize(
        net.ob, net.theta, method, max_time=0.05, gradient_tol=0.0, fun_target=-1.0, max_iter=10**6
    )
    assert found.stopped in ("max_time", "stalled", "slow") and found.wall_time <= 0.05 + ticks


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer here")
@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_keeps_the_grouped_steps_so_far(method):
    net, limits = (
        small_network("tanh", sizes=[3, 16, 16, 2], N=400),
        {"gradient_tol": 0.0, "fun_target": -1.0},
    )

    def ring(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGPROF, ring)
    try:
        minimize(net.ob, net.theta, method, max_iter=2)
        signal.setitimer(signal.ITIMER_PROF, 0.05)  # seconds of processor time
        found = minimize(net.ob, net.theta, method, max_iter=10**9, **limits)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert found.stopped in ("interrupted", "stalled", "slow")
    assert len(found.history["loss"]) == found.nit + 1
    assert found.fun == net.ob.value(found.x) == found.history["loss"].min()
    again = minimize(net.ob, net.theta, method, max_iter=max(found.nit, 1), **limits)
    assert np.array_equal(again.history["loss"][: found.nit + 1], found.history["loss"])
