"""`minimize`: final points of each method, reports on them, costs of runs, and invalid
arguments.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from fastcurv.optimize import EarlyStopping
from fastcurv.optimize.minimize import METHODS, minimize
from fastcurv.testing import FunctionObjective, LinearAutoencoder, QuadraticObjective

from .problems import LeastSquares, regression, rosenbrock

pytestmark = pytest.mark.by_day(share=1 / 3)

SADDLE_ESCAPING = ["trust-region", "newton-cg", "saddle-free-newton", "cubic"]
SADDLE_ATTRACTED = ["newton", "damped-newton", "newton-mr"]
FIRST_ORDER = ["sgd", "momentum", "nesterov", "rmsprop", "adam"]


def saddle_function():
    """Return the objective x^2 + (y^2 - 1)^2, with a saddle at 0 and minima at (0, -1) and (0,
    1).
    """
    return FunctionObjective(
        2,
        lambda t: t[0] ** 2 + (t[1] ** 2 - 1) ** 2,
        lambda t: np.array([2 * t[0], 4 * t[1] * (t[1] ** 2 - 1)]),
        lambda t: np.diag([2.0, 12 * t[1] ** 2 - 4]),
    )


@pytest.fixture(scope="module")
def autoencoder():
    return LinearAutoencoder([6.0, 5.0, 4.2, 3.5, 2.5, 2.0, 1.4, 1.0, 0.6, 0.3], 4, rng=0)


def near_critical_points(net, count=10):
    """Yield (case, start) for `count` critical points of an autoencoder that are not global minima,
    each with a start at a distance of 1e-4.
    """
    rng = np.random.default_rng(11)
    for k in range(count):
        indices = set()
        while not indices or indices == {1, 2, 3, 4}:
            indices = set((1 + rng.permutation(10)[: rng.integers(1, 5)]).tolist())
        case = net.case(indices, rng=k)
        away = rng.standard_normal(case.theta.size)
        yield case, case.theta + 1e-4 * away / np.linalg.norm(away)


@pytest.mark.parametrize("method", SADDLE_ESCAPING)
def test_methods_that_leave_saddles_reach_the_global_minimum_of_an_autoencoder(autoencoder, method):
    """From starts near saddles of an autoencoder, every run succeeds with the loss of the global
    minimum in closed form, to a relative 1e-8.
    """
    truth = autoencoder.case({1, 2, 3, 4}).value
    reached = 0
    for _, start in near_critical_points(autoencoder):
        found = minimize(autoencoder.objective, start, method, rng=0)
        assert found.success and found.kind in ("minimum", "degenerate"), found
        reached += abs(found.fun - truth) <= 1e-8 * truth
    assert reached == 10


@pytest.mark.parametrize("method", SADDLE_ATTRACTED)
def test_newtons_method_converges_to_a_nearby_saddle(autoencoder, method):
    drawn = 0
    for case, start in near_critical_points(autoencoder):
        found = minimize(autoencoder.objective, start, method, rng=0)
        assert not found.success
        drawn += found.kind == "saddle" and abs(found.fun - case.value) <= 1e-6 * case.value
    assert drawn == 10


@pytest.mark.parametrize("method", [*SADDLE_ESCAPING, "l-bfgs"])
def test_rosenbrock_ends_at_a_proved_minimum(method):
    found = minimize(rosenbrock(), np.full(6, -1.5), method, rng=0)
    assert (
        found.success
        and found.kind == "minimum"
        and found.stopped == "critical"
        and found.status == 0
    )
    assert np.linalg.norm(found.jac) <= 1e-6


@pytest.mark.parametrize(
    "method", [*SADDLE_ESCAPING, "gauss-newton", *FIRST_ORDER, *SADDLE_ATTRACTED, "l-bfgs"]
)
def test_success_is_never_true_on_a_saddle(method):
    """From a start exactly at a saddle, methods that use negative curvature reach a minimum, and
    the others stay and report the saddle without success.
    """
    ob = saddle_function()
    ob.ggn = lambda t: np.diag([2.0, 8 * t[1] ** 2])
    found = minimize(ob, np.zeros(2), method, rng=0)
    if method in (*SADDLE_ESCAPING, "gauss-newton"):
        assert found.success and found.kind == "minimum" and abs(found.fun) <= 1e-10
        assert np.allclose(np.abs(found.x), [0, 1], atol=1e-5)
    else:
        assert not found.success and found.kind == "saddle" and not found.x.any()


@pytest.mark.parametrize("verdict", [True, False])
@pytest.mark.parametrize("method", ["gauss-newton", "levenberg-marquardt"])
def test_gauss_newton_methods_need_no_hessian(method, verdict):
    ob = regression()
    bare = SimpleNamespace(
        n_params=ob.n_params, value=ob.value, gradient=ob.gradient, ggn=ob.hessian
    )
    found = minimize(bare, np.zeros(5), method, rng=0, verdict=verdict)
    assert (found.stopped, found.kind, found.success) == ("critical", None, False)
    assert np.linalg.norm(ob.gradient(found.x)) <= 1e-6


@pytest.mark.parametrize("method", [*SADDLE_ESCAPING, "newton", "newton-mr", "gauss-newton"])
def test_a_quadratic_takes_one_newton_step_or_at_most_20_steps_of_other_methods(method):
    found = minimize(regression(), np.zeros(5), method, rng=0)
    assert found.success and found.nit <= {"newton": 1, "newton-mr": 6}.get(method, 20)
    exact = np.linalg.lstsq(regression().X, regression().y, rcond=None)[0]
    assert np.allclose(found.x, exact, atol=1e-5)


@pytest.mark.parametrize("method", ["trust-region", "newton-cg", "adam", "l-bfgs"])
def test_the_history_has_an_entry_per_iteration_and_agrees_with_the_result(method):
    found = minimize(rosenbrock(), np.full(6, -1.5), method, max_iter=15, rng=0)
    history = found.history
    assert set(history) == {"iteration", "loss", "gradient_norm", "products", "time"}
    assert {len(values) for values in history.values()} == {found.nit + 1}
    assert np.array_equal(history["iteration"], np.arange(found.nit + 1))
    assert found.fun in history["loss"] and np.all(np.diff(history["time"]) >= 0)
    assert not found.success and found.kind == "not_critical" and found.stopped == "max_iter"
    assert found.fun == rosenbrock().value(found.x)


def test_callbacks_receive_results_and_can_end_the_run():
    def by_result(intermediate_result):
        seen.append(intermediate_result.fun)
        return len(seen) == 3

    def by_point(xk):
        seen.append(xk)
        if len(seen) == 2:
            raise StopIteration

    for callback, count in ((by_result, 3), (by_point, 2)):
        seen = []
        found = minimize(rosenbrock(), np.zeros(6), "newton-cg", callback=callback)
        assert found.stopped == "callback" and found.nit == count == len(seen)


@pytest.mark.parametrize("method", ["adam", "trust-region", "newton-cg"])
def test_ctrl_c_ends_a_run_with_the_best_point(method):
    ob = rosenbrock()

    def interrupt(intermediate_result):
        if intermediate_result.nit == 4:
            raise KeyboardInterrupt

    found = minimize(ob, np.full(6, -1.5), method, callback=interrupt)
    assert found.stopped == "interrupted" and not found.success
    assert found.fun == ob.value(found.x) == found.history["loss"].min()


def test_early_stopping_returns_the_best_point_on_the_validation_set():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((30, 20))
    y = X[:, 0] + 2.0 * rng.standard_normal(30)
    train, held_out = LeastSquares(X[:21], y[:21]), LeastSquares(X[21:], y[21:])
    stop = EarlyStopping(held_out, patience=30)
    found = minimize(train, np.zeros(20), "sgd", callback=stop, max_iter=5000)
    curve = found.history["validation"]
    assert found.stopped == "patience" and len(curve) == curve.argmin() + 31
    assert held_out.value(found.x) == curve.min() < curve[-1]
    assert found.fun == train.value(found.x) > found.history["loss"][-1]


def test_mini_batches_take_every_row_once_per_epoch_and_reach_the_minimum():
    rows = []

    class Watched(LeastSquares):
        def batch(self, chosen):
            rows.append(np.array(chosen))
            return super().batch(chosen)

    base = regression(N=25, noise=0.0)
    ob = Watched(base.X, base.y)
    found = minimize(
        ob, np.zeros(5), "momentum", batch_size=8, learning_rate=0.02, max_iter=200, rng=0
    )
    epochs = [np.sort(np.concatenate(rows[i : i + 4])) for i in range(0, len(rows), 4)]
    assert (
        all(np.array_equal(epoch, np.arange(25)) for epoch in epochs) and len(epochs) == found.nit
    )
    assert not np.array_equal(rows[0], rows[4])
    assert found.fun <= 1e-8 and found.fun == ob.value(found.x)


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: minimize(saddle_function(), np.zeros(3)), ValueError, "theta0"),
        (lambda: minimize(saddle_function()), ValueError, "theta0 must be given"),
        (lambda: minimize(saddle_function(), [0.0, np.inf]), ValueError, "NaN or infinity"),
        (
            lambda: minimize(saddle_function(), np.zeros(2), "sgd", batch_size=4),
            ValueError,
            "batch_size",
        ),
        (
            lambda: minimize(saddle_function(), np.zeros(2), "gauss-newton"),
            TypeError,
            "without ggn",
        ),
        (lambda: minimize(np.sum, np.zeros(2)), TypeError, "without n_params"),
        (lambda: minimize(regression(), np.zeros(5), sample=0), ValueError, "sample"),
        (
            lambda: minimize(saddle_function(), np.zeros(2), sample=5),
            ValueError,
            "sample must be None",
        ),
        (
            lambda: minimize(
                FunctionObjective(1, lambda t: np.nan, lambda t: t, None), np.zeros(1), "sgd"
            ),
            ValueError,
            "finite at theta0",
        ),
    ],
)
def test_invalid_input_raises_a_one_sentence_error(call, error, words):
    """Each invalid argument raises the expected error, whose message names the argument or what is
    missing.
    """
    with pytest.raises(error, match=words):
        call()


def test_a_diverging_run_returns_its_best_point_and_reports_divergence():
    with np.errstate(all="ignore"):
        found = minimize(
            QuadraticObjective(np.diag([1.0, 50.0])), np.ones(2), "sgd", learning_rate=1.0
        )
    assert found.stopped == "diverged" and not found.success and np.isfinite(found.fun)
    assert found.fun == QuadraticObjective(np.diag([1.0, 50.0])).value(np.ones(2))


def test_minimize_does_not_modify_the_start():
    start = np.full(6, -1.5)
    for method in METHODS:
        if METHODS[method].curvature != "ggn":
            minimize(rosenbrock(), start, method, max_iter=2)
    assert np.all(start == -1.5)
