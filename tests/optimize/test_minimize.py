"""`minimize`: final points of each method, reports on them, costs of runs, and invalid
arguments.
"""

from types import SimpleNamespace

import numpy as np
import pytest

import fastcurv as fc
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


def test_rejected_steps_cost_no_product():
    """Newton's step on sqrt(1 + x^2) far from 0, which is x^2 times too long, is shortened by
    evaluations of the value without further products.
    """
    ob = FunctionObjective(
        2,
        lambda t: np.sqrt(1 + t * t).sum(),
        lambda t: t / np.sqrt(1 + t * t),
        lambda t: np.diag((1 + t * t) ** -1.5),
    )
    found = minimize(ob, np.array([10.0, 30.0]), "trust-region", radius=1e6, max_iter=1)
    assert found.nit == 1 and found.nfev > 5 and found.nhev <= 2


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


@pytest.mark.parametrize("method", SADDLE_ESCAPING + ["gauss-newton"])
def test_float32_objectives_are_minimised_in_float32(method):
    ob = regression(dtype=np.float32, l2=0.1)
    found = minimize(ob, np.zeros(5), method, rng=0)
    assert found.x.dtype == np.float32 and np.linalg.norm(found.jac) <= 1e-3
    assert found.stopped == "critical"


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].curvature != "ggn"])
def test_objectives_of_any_byte_order_are_minimised(method):
    ob, swapped = rosenbrock(3), rosenbrock(3)
    swapped.dtype = np.dtype(float).newbyteorder("S")
    start = np.array([-0.5, 0.5, 0.2])
    one, two = (minimize(x, start, method, rng=0, max_iter=15) for x in (ob, swapped))
    assert np.array_equal(one.x, two.x) and one.fun == two.fun and two.x.dtype.isnative


def test_budgets_end_a_run_inside_a_step(ticks):
    ob = rosenbrock(30)
    found = minimize(ob, np.full(30, -1.5), "trust-region", max_products=25, rng=0)
    assert found.stopped == "max_products" and 25 <= found.nhev <= 26 and found.status == 3
    assert found.fun < ob.value(np.full(30, -1.5))
    found = minimize(ob, np.full(30, -1.5), "adam", max_time=0.05, max_iter=10**6)
    assert found.stopped == "max_time" and found.nit > 0 and found.wall_time <= 0.05 + ticks


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


def test_minimize_accepts_value_and_gradient_as_two_functions():
    class Apart:
        n_params = 2
        value, gradient, hessian = (
            saddle_function().value,
            saddle_function().gradient,
            saddle_function().hessian,
        )

    for method in ("adam", "newton-cg", "l-bfgs"):
        one, other = (
            minimize(ob, np.array([1.0, 0.5]), method, max_iter=20, rng=0)
            for ob in (Apart(), saddle_function())
        )
        assert np.array_equal(one.x, other.x)


def test_minimize_does_not_modify_the_start():
    start = np.full(6, -1.5)
    for method in METHODS:
        if METHODS[method].curvature != "ggn":
            minimize(rosenbrock(), start, method, max_iter=2)
    assert np.all(start == -1.5)


@pytest.mark.parametrize("method", SADDLE_ESCAPING)
def test_a_kink_ends_a_run_without_success(method):
    """At the minimum of |x - 1/3| + (x - y)^2, where the gradient is not small and steps only
    become shorter, the run ends without success, with a note on the jump.
    """

    def gradient(t):
        return np.array([np.sign(t[0] - 1 / 3) + 2 * (t[0] - t[1]), 2 * (t[1] - t[0])])

    ob = FunctionObjective(
        2,
        lambda t: abs(t[0] - 1 / 3) + (t[0] - t[1]) ** 2,
        gradient,
        lambda t: np.array([[2.0, -2.0], [-2.0, 2.0]]),
    )
    found = minimize(ob, np.array([2.0, -1.0]), method, max_iter=5000, rng=0)
    assert found.stopped in ("stalled", "slow") and not found.success
    assert found.kind == "undecided"
    assert found.nit < 1000 and found.fun < 0.1
    assert "jump" in [note.key for note in found.notes]


def test_stalls_of_smooth_functions_are_not_attributed_to_kinks():
    """If the gradient of a smooth function has the wrong sign, so that no step lowers the loss, the
    run ends as stalled or slow without a note on a jump.
    """
    ob = FunctionObjective(2, lambda t: t @ t, lambda t: -2 * t, lambda t: 2 * np.eye(2))
    found = minimize(ob, np.ones(2), "trust-region", rng=0, max_iter=5000)
    assert found.stopped in ("stalled", "slow")
    assert "jump" not in [note.key for note in found.notes]


class NoisyPowerValley:
    """The function x^power + y^2 in coordinates rotated by the matrix `turn`, with random last bits
    in its Hessian.
    """

    n_params = 2

    def __init__(self, power, turn, rng):
        self.power, self.turn, self.rng = power, turn, rng

    def value(self, t):
        x, y = self.turn @ t
        return float(x**self.power + y**2)

    def gradient(self, t):
        x, y = self.turn @ t
        return self.turn.T @ np.array([self.power * x ** (self.power - 1), 2 * y])

    def hessian(self, t):
        x = (self.turn @ t)[0]
        H = np.diag([self.power * (self.power - 1) * x ** (self.power - 2), 2.0])
        noise = self.rng.uniform(-1, 1, (2, 2)) * np.finfo(float).eps
        return self.turn.T @ H @ self.turn * (1 + noise + noise.T)


@pytest.mark.parametrize("method", ["trust-region", "cubic", "newton-cg", "saddle-free-newton"])
@pytest.mark.parametrize("power", [4, 6])
@pytest.mark.parametrize("turned", [False, True])
def test_rounding_changes_do_not_change_the_ending(method, power, turned):
    ends = set()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        turn = np.linalg.qr(rng.standard_normal((2, 2)))[0] if turned else np.eye(2)
        start = turn.T @ np.ones(2) * (1 + 1e-15 * rng.uniform(-1, 1, 2))
        found = minimize(NoisyPowerValley(power, turn, rng), start, method, rng=0)
        assert found.fun < 1e-6 and not found.success
        ends.add((found.stopped, found.kind))
    assert len(ends) == 1 and ends.pop()[0] in ("degenerate", "tolerance")


def test_runs_without_a_start_use_the_models_initial_weights():
    X = np.random.default_rng(0).standard_normal((20, 3))
    ob = fc.Objective(fc.MLP([3, 4, 1]), X, X[:, :1], "mse", l2=1e-2)
    for method, options in (("auto", {}), ("adam", {"max_iter": 5}), ("trust-region", {})):
        given = fc.minimize(ob, ob.model.init(rng=7), method, rng=7, verdict=False, **options)
        drawn = fc.minimize(ob, method=method, rng=7, verdict=False, **options)
        assert np.array_equal(given.x, drawn.x)
    first, second = (fc.minimize(ob, rng=rng, max_iter=1, verdict=False) for rng in twice(3))
    assert np.array_equal(first.x, second.x)


def twice(seed):
    """Return two random generators with the same seed."""
    return np.random.default_rng(seed), np.random.default_rng(seed)


@pytest.mark.parametrize("method", SADDLE_ESCAPING)
def test_runs_leave_a_maximum(method):
    """Every method that uses negative curvature leaves the maximum of cos x + cos y and reaches its
    minimum -2.
    """
    ob = FunctionObjective(
        2, lambda t: np.cos(t).sum(), lambda t: -np.sin(t), lambda t: np.diag(-np.cos(t))
    )
    found = minimize(ob, np.zeros(2), method, rng=0)
    assert found.success and found.fun == pytest.approx(-2.0)
