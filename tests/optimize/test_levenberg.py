"""`method="levenberg-marquardt"` on small networks, default methods, and runs from several
starts.
"""

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

import fastcurv as fc
from fastcurv.optimize import Checkpoint
from fastcurv.optimize.minimize import METHODS
from fastcurv.testing import QuadraticObjective
from tests import nets

from .problems import same

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 3)


def sine(l2=0.0, **more):
    x = np.linspace(-1, 1, 41)[:, None]
    return fc.Objective(fc.MLP([1, 5, 1]), x, np.sin(np.pi * x), "mse", l2=l2, **more)


def run(ob, start, **more):
    return fc.minimize(ob, start, "lm", **{"verdict": False, "rng": 0} | more)


def test_levenberg_marquardt_fits_a_sine_from_every_start():
    ob = sine()
    for seed in range(30):
        found = run(ob, ob.model.init(rng=seed), fun_target=2e-3)
        assert found.stopped == "target" and found.fun <= 2e-3 and found.nit < 60
        assert found.status == 13


def test_levenberg_marquardt_finds_a_certified_least_squares_minimum():
    ob = sine(l2=1e-3)
    root = np.sqrt(ob.l2 / 2)

    def residuals(t):
        f = ob.model.predict(t, ob.X).ravel() - ob.y.ravel()
        return np.r_[f / np.sqrt(len(f)), root * t]

    ours = fc.minimize(ob, ob.model.init(rng=1), "levenberg-marquardt", rng=0)
    theirs = scipy.optimize.least_squares(residuals, ours.x + 1e-3, method="lm", xtol=1e-15)
    assert ours.fun == pytest.approx(2 * theirs.cost, rel=1e-6)
    assert ours.success and ours.kind == "minimum" and ours.report.certified


@pytest.mark.parametrize("loss", nets.LOSSES)
def test_levenberg_marquardt_converges_for_every_loss_in_both_precisions(loss, dtype, rng):
    """Levenberg-Marquardt reaches its gradient tolerance for every loss, in float64 and float32,
    and returns theta in the dtype of the network.
    """
    net = nets.draw(rng, [3, 4, 2], "tanh", loss, 30, l2=1e-2, dtype=dtype)
    found = run(net.ob, net.theta)
    assert found.stopped == "critical" and found.x.dtype == dtype
    assert found.jac @ found.jac <= found.history["gradient_norm"][-1] ** 2 * (1 + 1e-5)


def fit_of_noise():
    """Return (ob, theta): a fit of noise along a curved valley, where a hundred steps lower the
    loss only a little, and its start.
    """
    x = np.linspace(-1, 1, 41)[:, None]
    noise = 0.1 * np.random.default_rng(0).standard_normal(x.shape)
    ob = fc.Objective(fc.MLP([1, 5, 1]), x, np.sin(np.pi * x) + noise, "mse")
    return ob, ob.model.init(rng=0)


def test_slow_progress_switches_to_trust_regions():
    ob, start = fit_of_noise()
    found = run(ob, start)
    assert found.stopped == "critical" and 0 < found.nhev < 20 * found.nit
    alone = fc.minimize(ob, start, "trust-region", verdict=False, rng=0)
    assert found.nhev < alone.nhev and found.fun <= 1.2 * alone.fun
    short = run(ob, start, max_iter=20)
    assert short.nhev == 0


def test_slow_runs_are_bitwise_identical_with_callbacks_and_resumed(tmp_path):
    ob, start = fit_of_noise()
    whole = run(ob, start, max_iter=240)
    assert whole.nhev > 0
    same(whole, run(ob, start, max_iter=240, callback=lambda x: None))
    for most in (10, 160, whole.nit - 5):  # before and after the run changes to Hessian steps
        file = tmp_path / str(most)
        run(ob, start, max_iter=most, checkpoint=file)
        rest = fc.minimize(
            ob,
            None,
            "lm",
            max_iter=240,
            checkpoint=Checkpoint(resume=file),
            verdict=False,
        )
        same(whole, rest)


def test_small_networks_are_minimised_by_levenberg_marquardt_by_default(rng):
    """The default method of `minimize` is Levenberg-Marquardt for small networks with samples in
    memory, and trust-region for other objectives or with options that only trust-region has.
    """
    ob, start = fit_of_noise()
    ours = fc.minimize(ob, start, max_iter=20, verdict=False)
    same = fc.minimize(ob, start, "lm", max_iter=20, verdict=False)
    assert ours.method == "levenberg-marquardt" and np.array_equal(ours.x, same.x)
    X, y = rng.standard_normal((60, 30)), rng.standard_normal((60, 1))
    for other in (
        fc.Objective(fc.MLP([30, 20, 1]), X, y),
        fc.StreamedObjective(fc.MLP([30, 4, 1]), X, y),
        QuadraticObjective(np.eye(2), np.zeros(2)),
    ):
        where = np.ones(other.n_params)
        assert fc.minimize(other, where, max_iter=2, verdict=False).method == "trust-region"
    for asked in ({"radius": 0.5}, {"max_products": 30}):
        assert fc.minimize(ob, start, max_iter=5, **asked).method == "trust-region"


@pytest.mark.parametrize("method", METHODS)
def test_methods_stop_at_fun_target_unless_attracted_to_saddles(method):
    ob = sine(l2=1e-4)
    start = ob.model.init(rng=3)
    target = 0.9 * ob.value(start)
    found = fc.minimize(ob, start, method, fun_target=target, max_iter=400, verdict=False, rng=0)
    drawn_to_saddles = method in ("newton", "damped-newton", "newton-mr")
    assert found.stopped == "target" or drawn_to_saddles
    assert (found.fun <= target) == (found.stopped == "target")


@pytest.mark.parametrize("method", ["levenberg-marquardt", "l-bfgs", "trust-region"])
def test_multistart_equals_separate_runs(method, monkeypatch):
    """A call with several starts returns the lowest of their losses, is bitwise identical for one
    and two threads, and begins with the start that is passed.
    """
    x = np.linspace(-3, 3, 41)[:, None]
    ob = fc.Objective(fc.MLP([1, 3, 1], "tanh"), x, np.sin(2 * x), "mse", l2=1e-4)
    limits = {"max_iter": 40, "verdict": False}
    found = fc.minimize(ob, method=method, n_init=6, rng=5, **limits)
    assert found.starts.shape == (6,) and found.fun <= found.starts.min()
    assert len(set(found.starts.round(9))) > 1
    for threads in ("1", "3"):
        monkeypatch.setenv("FASTCURV_NUM_THREADS", threads)
        again = fc.minimize(ob.batch(slice(None)), method=method, n_init=6, rng=5, **limits)
        assert np.array_equal(again.x, found.x) and np.array_equal(again.starts, found.starts)
    given = ob.model.init(3)
    assert fc.minimize(ob, given, method, n_init=2, rng=5, **limits).starts[0] == pytest.approx(
        fc.minimize(ob, given, method, rng=0, **limits).fun, rel=1e-9
    )


def test_no_further_start_is_made_after_one_reaches_the_target():
    x = np.linspace(-3, 3, 41)[:, None]
    ob = fc.Objective(fc.MLP([1, 5, 1], "tanh"), x, np.sin(x), "mse")
    found = fc.minimize(ob, method="lm", n_init=50, rng=0, fun_target=2e-3, verdict=False)
    assert found.stopped == "target" and found.starts[-1] <= 2e-3
    assert (found.starts[:-1] > 2e-3).all() and len(found.starts) < 50
    slow = fc.minimize(ob, method="lm", n_init=10**6, rng=0, max_time=0.2, verdict=False)
    assert 1 <= len(slow.starts) < 10**6
    with pytest.raises(ValueError, match="n_init must be 1 if checkpoint is given"):
        fc.minimize(ob, n_init=2, checkpoint="there")
    with pytest.raises(TypeError, match="an objective with a model"):
        fc.minimize(QuadraticObjective(np.eye(2), np.zeros(2)), n_init=2)
    with pytest.raises(ValueError, match="n_init"):
        fc.minimize(ob, n_init=0)
