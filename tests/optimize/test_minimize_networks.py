"""`minimize` and `escape` on networks: final points, both precisions, mini-batches and saddles."""

import os
import signal
import threading

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common.files import read_tensors
from fastcurv.optimize import Checkpoint, newton
from fastcurv.testing import QuadraticObjective

from .problems import same

pytestmark = pytest.mark.by_day(share=1 / 3)

SADDLE_ESCAPING = ["trust-region", "newton-cg", "saddle-free-newton", "cubic"]


def blobs(dtype="float64", l2=1e-2, seed=0):
    """Return (ob, model): 80 samples of three overlapping classes in four dimensions for a 4-5-3
    tanh network (n = 43).
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=80)
    X = rng.standard_normal((80, 4)) + 1.5 * np.eye(4)[y]
    model = fc.MLP([4, 5, 3], activation="tanh", dtype=dtype)
    return fc.Objective(model, X, y, l2=l2), model


@pytest.mark.parametrize("method", [*SADDLE_ESCAPING, "gauss-newton", "l-bfgs"])
def test_a_regularised_network_ends_at_a_point_without_negative_curvature(method):
    ob, model = blobs()
    for seed in range(3):
        found = fc.minimize(ob, model.init(rng=seed), method, rng=seed)
        assert found.success and np.linalg.norm(ob.gradient(found.x)) <= 1e-6, found
        assert np.linalg.eigvalsh(ob.hessian(found.x).to_dense())[0] > -1e-9
        assert found.fun == ob.value(found.x)


def test_losses_whose_squared_gradients_underflow_in_float32_are_minimised():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    model = fc.MLP([3, 2, 1], dtype="float32")
    ob = fc.Objective(model, X, y, loss="mse", l2=1e-32, sample_weight=np.full(20, 1e-30))
    start = model.init(rng=0)
    for method in ("newton-cg", "newton-mr", "trust-region", "l-bfgs"):
        found = fc.minimize(ob, start, method, max_iter=20, gradient_tol=0.0, verdict=False)
        assert found.fun <= ob.value(start)
    assert fc.minimize(ob, start, "newton-cg", gradient_tol=0.0).fun < 0.9 * ob.value(start)


def test_gauss_newton_switches_to_the_hessian_to_save_steps(monkeypatch):
    """For overlapping classes, whose residuals do not vanish, "gauss-newton" takes less than half
    the steps that it takes if it never switches to the Hessian.
    """
    ob, model = blobs(l2=1e-3)
    starts = [model.init(rng=seed) for seed in range(3)]
    ours = [fc.minimize(ob, start, "gauss-newton", rng=0, gradient_tol=1e-9) for start in starts]
    monkeypatch.setattr(newton, "MAX_SLOW_STEPS", 10**9)
    plain = [fc.minimize(ob, start, "gauss-newton", rng=0, gradient_tol=1e-9) for start in starts]
    assert all(found.success for found in ours)
    assert 2 * sum(found.nit for found in ours) < sum(found.nit for found in plain)


def test_gauss_newton_resumes_bit_for_bit_after_switching_to_the_hessian(tmp_path):
    ob, model = blobs(l2=1e-3)
    path, theta = tmp_path / "run.safetensors", model.init(rng=0)
    whole = fc.minimize(ob, theta, "gauss-newton", rng=0, gradient_tol=1e-9)
    how = {"gradient_tol": 1e-9, "max_iter": whole.nit - 2, "checkpoint": path}
    fc.minimize(ob, theta, "gauss-newton", rng=0, **how)
    assert read_tensors(path)[1]["method_facts"]["exact"]
    resumed = fc.minimize(
        ob, None, "gauss-newton", gradient_tol=1e-9, checkpoint=Checkpoint(resume=path)
    )
    same(whole, resumed)


@pytest.mark.parametrize("method", SADDLE_ESCAPING)
def test_single_precision_reaches_the_loss_of_double(method):
    (single, model), (double, _) = blobs("float32"), blobs()
    theta = model.init(rng=1)
    found = fc.minimize(single, theta, method, rng=0)
    assert found.x.dtype == np.float32 and found.stopped == "critical"
    further = fc.minimize(double, found.x.astype(float), "newton", max_iter=5)
    assert abs(further.fun - found.fun) <= 1e-4 * further.fun


def test_hessian_products_are_counted_as_the_operator_counts_them():
    ob, model = blobs()
    made = []

    class Watched:
        n_params, dtype = ob.n_params, ob.dtype
        value, gradient, value_and_gradient = ob.value, ob.gradient, ob.value_and_gradient

        def hessian(self, theta):
            made.append(ob.hessian(theta))
            return made[-1]

    found = fc.minimize(Watched(), model.init(rng=0), "trust-region", max_iter=12)
    assert found.nhev == sum(H.n_products for H in made) > 12
    assert len(made) == found.nit + 1 == found.njev


@pytest.mark.parametrize("method", ["sgd", "momentum", "nesterov", "rmsprop", "adam"])
def test_mini_batches_lower_the_loss_of_all_samples(method):
    ob, model = blobs()
    theta = model.init(rng=0)
    options = {"learning_rate": 0.01} if method in ("rmsprop", "adam") else {}
    found = fc.minimize(ob, theta, method, batch_size=16, max_iter=30, rng=0, **options)
    assert found.fun < 0.75 * ob.value(theta) and found.fun == ob.value(found.x)
    assert len(found.history["loss"]) == 31 and found.nhev == 0
    assert found.njev == 31 + 30 * 5
    again = fc.minimize(
        ob, theta, method, batch_size=16, max_iter=30, rng=0, record_every=10, **options
    )
    assert list(again.history["iteration"]) == [0, 10, 20, 30]
    assert again.history["loss"][-1] == found.history["loss"][-1]


def test_epochs_between_records_report_the_mean_loss_of_their_batches(tmp_path):
    """An epoch without a record reports the mean loss of its batches, and the last epoch is
    recorded. A resumed run has an equal history.
    """
    ob, model = blobs()
    theta, path, seen = model.init(rng=0), tmp_path / "run", []
    how = {"batch_size": 16, "record_every": 3, "max_iter": 4}
    batches, ask = [], fc.Objective.value_and_gradient

    class Watched(fc.Objective):
        def value_and_gradient(self, at):
            f, g = ask(self, at)
            batches.append((self.n_samples, f))
            return f, g

    rows = Watched(ob.model, ob.X, ob.y, ob.loss, l2=ob.l2)

    def callback(intermediate_result):
        seen.append(intermediate_result)

    found = fc.minimize(rows, theta, "adam", rng=0, checkpoint=path, callback=callback, **how)
    assert list(found.history["iteration"]) == [0, 3, 4]
    assert found.history["loss"][-1] == ob.value(seen[-1].x)
    counts, losses = np.array(batches).T
    whole = counts == ob.n_samples
    assert np.flatnonzero(whole).tolist() == [0, 16, 22]  # passes over all samples
    counts, losses = (part[~whole].reshape(4, 5) for part in (counts, losses))
    means = (counts * losses).sum(axis=1) / ob.n_samples
    assert ["jac" in at for at in seen] == [False, False, True, False]
    assert np.allclose([at.fun for at in seen], [*means[:2], ob.value(seen[2].x), means[3]])
    again = fc.minimize(rows, None, "adam", checkpoint=Checkpoint(resume=path), **how)
    assert np.array_equal(again.x, found.x)
    assert again.history["loss"].tolist() == found.history["loss"].tolist()


@pytest.mark.parametrize(
    "method, options",
    [
        ("adam", {"batch_size": 16}),
        ("trust-region", {}),
        ("newton-cg", {}),
        ("levenberg-marquardt", {}),
        ("trust-region", {"sample": 30}),
        ("gauss-newton", {"sample": 30, "precondition": True, "warm_start": True}),
    ],
)
def test_a_network_run_resumes_bit_for_bit(method, options, tmp_path):
    ob, model = blobs()
    path, theta = tmp_path / "run.safetensors", model.init(rng=0)
    whole = fc.minimize(ob, theta, method, max_iter=8, rng=0, **options)
    fc.minimize(ob, theta, method, max_iter=3, rng=0, checkpoint=path, **options)
    resumed = fc.minimize(
        ob, None, method, max_iter=8, checkpoint=Checkpoint(resume=path), **options
    )
    same(whole, resumed)


@pytest.mark.parametrize("method", SADDLE_ESCAPING)
def test_curvature_from_a_sample_of_rows_still_ends_at_a_critical_point_of_the_whole(method):
    ob, model = blobs()
    found = fc.minimize(ob, model.init(rng=0), method, sample=40, rng=0)
    assert found.success and np.linalg.norm(ob.gradient(found.x)) <= 1e-6
    again = fc.minimize(ob, model.init(rng=0), method, sample=80, rng=0)
    assert again.nit < found.nit and np.array_equal(
        again.x, fc.minimize(ob, model.init(rng=0), method, rng=0).x
    )


@pytest.mark.parametrize("method", ["trust-region", "saddle-free-newton", "cubic", "gauss-newton"])
def test_preconditioning_and_warm_starts_do_not_change_the_ending(method):
    ob, model = blobs()
    found = fc.minimize(ob, model.init(rng=0), method, rng=0, precondition=True, warm_start=True)
    assert found.success and np.linalg.norm(ob.gradient(found.x)) <= 1e-6


def test_scaling_saves_products_for_badly_scaled_parameters():
    """With `precondition=True`, parameters whose units span 1.5 decades take less than half the
    products, because the scaled Hessian is close to the identity.
    """
    n = 400
    units = 10.0 ** np.linspace(-1.5, 0, n)
    H = units[:, None] * (np.eye(n) + 0.1 * (np.eye(n, k=1) + np.eye(n, k=-1))) * units
    ob = QuadraticObjective(H, center=1 / units)
    how = {"rng": 0, "gradient_tol": 1e-5, "radius": 1e6, "verdict": False}
    found = {
        scaled: fc.minimize(ob, np.zeros(n), "trust-region", precondition=scaled, **how)
        for scaled in (False, True)
    }
    assert found[True].stopped == found[False].stopped == "critical"
    assert 2 * found[True].nhev < found[False].nhev


def test_newton_step_names_the_kind_of_its_target():
    ob, model = blobs()
    H = ob.hessian(model.init(rng=0))
    with pytest.warns(fc.IndefiniteHessianWarning, match="indefinite"):
        p = fc.newton_step(H, H.gradient)
    assert np.linalg.norm(H @ p + H.gradient) <= 1e-8 * np.linalg.norm(H.gradient)
    q = fc.saddle_free_newton_step(H, H.gradient)
    assert q @ H.gradient < 0


@pytest.mark.parametrize("method", SADDLE_ESCAPING)
def test_notes_report_a_kink_at_which_a_relu_network_stops(method, monkeypatch):
    """Without the search for minima at kinks, a run of a relu network stops where a pre-activation
    is 0 and the gradient is not small, and a note names the kink.
    """
    monkeypatch.setattr("fastcurv.optimize.finish.find_kink_minimum", lambda *args: None)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3))
    ob = fc.Objective(
        fc.MLP([3, 8, 1], activation="relu"), X, np.sin(2 * X[:, :1]), loss="mse", l2=1e-3
    )
    found = fc.minimize(ob, ob.model.init(rng=0), method, rng=0)
    z = ob.model.preactivations(found.x, X)[0]
    assert abs(z).min() < 1e-5 * abs(z).max()
    assert found.stopped in ("stalled", "slow") and not found.success
    assert "jump" in [note.key for note in found.notes]


def test_the_notes_name_a_budget_that_ends_before_a_critical_point():
    """If the limit of iterations ends a run in a valley of small gradient, the message names that
    limit and does not advise another method.
    """
    x = np.linspace(-2, 2, 21)[:, None]
    ob = fc.Objective(fc.MLP([1, 2, 1]), x, 2 * np.tanh(1.5 * x), loss="mse")
    found = fc.minimize(ob, ob.model.init(rng=3), "trust-region", rng=0, max_iter=40)
    assert found.kind == "not_critical" and not found.success
    assert found.stopped == "max_iter" and found.status == 1 and found.nit == 40
    assert [note.key for note in found.notes] == ["max_iter", "verdict"]
    assert found.report.advice_sentence == ""


def test_a_negligible_loss_is_a_success_without_a_critical_point():
    """A run that ends at a loss below 1e-24, with the lower bound 0, is a success although its
    gradient exceeds the rounding error.
    """
    x = np.linspace(-2, 2, 21)[:, None]
    ob = fc.Objective(fc.MLP([1, 2, 1]), x, 2 * np.tanh(1.5 * x), loss="mse")
    found = fc.minimize(ob, np.ones(7), rng=0)
    assert found.success and found.fun < 1e-24 and found.notes[-1].key.endswith("lower_bound")


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_escape_follows_directions_of_any_length_in_float32(size):
    model = fc.MLP([1, 1, 1], "identity", bias=False, dtype="float32")
    toy = fc.Objective(model, [[1.0]], [[1.0]], loss="mse")
    one = fc.escape(toy, np.zeros(2), np.array([0.6, 0.8]))
    other = fc.escape(toy, np.zeros(2), size * np.array([0.6, 0.8]))
    assert one.success and np.allclose(other.x, one.x, rtol=1e-6)


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), ("a", TypeError)])
def test_unused_seeds_are_checked(seed, error):
    toy = QuadraticObjective(np.diag([1.0, -1.0]))
    for call in (
        lambda: fc.classify(toy, np.zeros(2), rng=seed),
        lambda: fc.escape(toy, np.zeros(2), np.ones(2), rng=seed),
    ):
        with pytest.raises(error, match="rng must be"):
            call()


@pytest.mark.parametrize("method", SADDLE_ESCAPING)
def test_runs_leave_the_symmetric_start(method):
    """Runs and `escape` leave the saddle at theta = 0, where gradient steps keep all hidden units
    equal and change only the biases.
    """
    ob, model = blobs(l2=1e-3)
    stuck = fc.minimize(ob, np.zeros(model.n_params), "sgd", max_iter=20000, learning_rate=1.0)
    found = fc.minimize(ob, np.zeros(model.n_params), method, rng=0)
    assert stuck.stopped == "critical" and stuck.kind == "saddle" and not stuck.success
    assert found.success and found.fun < 0.8 * stuck.fun
    left = fc.escape(ob, stuck.x)
    assert left.success and left.fun < stuck.fun and left.fun == ob.value(left.x)


def test_ctrl_c_returns_the_best_point():
    """A SIGINT during the arithmetic ends the run, which returns the point of the lowest loss as
    interrupted.
    """
    ob, model = blobs()
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    options = {"max_iter": 10**8, "max_time": 600, "gradient_tol": 0.0}
    found = fc.minimize(
        ob, model.init(rng=0), "adam", **options,
        callback=lambda _: None if timer.ident else timer.start(),  # after the first step
    )  # fmt: skip
    assert found.stopped == "interrupted" and found.wall_time < 300
    assert found.fun == ob.value(found.x) == found.history["loss"].min() and not found.success
