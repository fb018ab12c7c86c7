"""Final points of `minimize` and `escape`: success only at minima, descent from degenerate points,
losses without a minimum, and the time of the final checks.
"""

import itertools
import re
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der, rosen_hess
from scipy.sparse import csr_matrix

import fastcurv as fc
from fastcurv.common.objectives import budgeted_hessian
from fastcurv.common.vectors import reduction_ratio
from fastcurv.optimize import Checkpoint, EarlyStopping, checkpoint
from fastcurv.optimize.finish import StationaryPoint, StationaryPointExaminer
from fastcurv.optimize.lower_points import (
    appears_unbounded,
    find_lower_point,
    flat_directions,
    trial_directions,
)
from fastcurv.optimize.minimize import METHODS
from fastcurv.optimize.problem import Problem
from fastcurv.optimize.refine import _cholesky_solve, refine_by_newton
from fastcurv.optimize.run import STATUS_CODES, MinimizeResult
from fastcurv.testing import FunctionObjective as function
from fastcurv.testing import LinearAutoencoder, PrescribedSpectrum, QuadraticObjective, compiled

from .. import nets
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


@pytest.mark.parametrize("start", [1e-13, 1e-8, 1e-4])
@pytest.mark.parametrize("n", [1, 3, 40])
def test_sum_of_cubes_is_reported_as_unbounded(n, start):
    """For the sum of x^3 slightly above 0, where the gradient is small and the Hessian positive
    definite, the run ends as unbounded and not as a success.
    """
    cube = function(n, lambda t: (t**3).sum(), lambda t: 3 * t**2, lambda t: np.diag(6 * t))
    found = fc.minimize(cube, np.full(n, start), rng=0)
    assert not found.success and found.stopped == "unbounded"


@pytest.mark.parametrize("method", ["trust-region", "newton-cg", "saddle-free-newton", "cubic"])
@pytest.mark.parametrize("curvature", [-1e-3, -1.0, -1e6])
def test_indefinite_quadratic_is_not_a_success(curvature, method, dtype):
    ob = QuadraticObjective(np.diag([1.0, curvature]))
    ob.dtype = np.dtype(dtype)
    found = fc.minimize(ob, np.ones(2), method, rng=0)
    assert not found.success and found.fun < -1e10 and found.stopped in ("unbounded", "max_iter")
    # Newton-CG and cubic may reach max_iter first.
    assert found.stopped == "unbounded" or method in ("newton-cg", "cubic")


def test_degenerate_minimum_without_loss_bound_is_not_a_success():
    """At the degenerate minimum of x^4 + y^2, which second derivatives cannot prove, a run is a
    success only if a lower bound on the loss is known.
    """
    given = (
        2,
        lambda t: t[0] ** 4 + t[1] ** 2,
        lambda t: [4 * t[0] ** 3, 2 * t[1]],
        lambda t: np.diag([12 * t[0] ** 2, 2.0]),
    )
    found = fc.minimize(function(*given), np.ones(2), rng=0)
    assert not found.success and found.fun < 1e-18 and found.stopped != "critical"
    bounded = type("Bounded", (function,), {"loss_lower_bound": 0.0})(*given)
    found = fc.minimize(bounded, np.zeros(2), rng=0)
    assert found.success and found.kind == "degenerate" and found.stopped == "lower_bound"


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


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("learned", [0, 1, 2])
def test_runs_leave_saddles_of_deep_linear_networks(depth, learned):
    """Runs leave saddles of linear networks with three and four layers, some of which have no
    negative curvature, and end at a loss below 1e-12.
    """
    targets = np.array([2.0, 1.5, 1.0])
    model = fc.MLP([3] * (depth + 1), activation="identity", bias=False)
    ob = fc.Objective(model, np.eye(3), np.diag(targets), loss="mse")
    first, other = np.diag(targets), np.eye(3)
    first[learned:], other[learned:] = 0.0, 0.0
    theta = np.concatenate([first.ravel(), *[other.ravel()] * (depth - 1)])
    assert np.linalg.norm(ob.gradient(theta)) < 1e-14
    assert np.linalg.eigvalsh(ob.hessian(theta).to_dense())[0] > -1e-12
    found = fc.minimize(ob, theta, rng=0)
    assert found.fun < 1e-12 < ob.value(theta)


@pytest.mark.parametrize(
    "method", ["trust-region", "gauss-newton", "saddle-free-newton", "cubic", "levenberg-marquardt"]
)
def test_products_that_overflow_end_a_run(method):
    """If second derivatives of a Poisson fit in float32 overflow, a run ends without success and no
    higher than its start. Its loss is a tenth of the initial loss, or its message names the
    overflow.
    """
    for rows in (np.asarray, csr_matrix):
        model = fc.MLP([2, 1], "identity", bias=False, dtype="float32")
        ob = fc.Objective(model, rows(1e3 * np.eye(2, dtype="float32")), [1, 2], "poisson")
        start = np.full(2, 0.08, "float32")
        run = fc.minimize(ob, start, method, max_iter=5)
        assert not run.success and run.fun <= ob.value(start)
        assert run.fun < 0.1 * ob.value(start) or run.notes[0].numbers["cause"] == "overflow"


def test_the_message_names_separable_classes_without_l2():
    class Ray:
        """An objective of the network `ob` that reports theta as a direction along which the loss
        decreases without a minimum.
        """

        def __init__(self, ob):
            self.ob, self.n_params, self.dtype = ob, ob.n_params, ob.dtype
            self.value, self.gradient, self.hessian = ob.value, ob.gradient, ob.hessian

        def ray_to_infimum(self, theta):
            return theta / np.linalg.norm(theta)

    X = np.random.default_rng(0).standard_normal((40, 2))
    ob = fc.Objective(fc.MLP([2, 4, 2]), X, (X[:, 0] > 0).astype(int))
    found = fc.minimize(Ray(ob), ob.model.init(rng=0), rng=0)
    assert not found.success and found.stopped == "infinity" and found.nit < 200
    assert found.notes[-2].key == "no_minimum"


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


def test_escape_stays_at_certified_minima():
    """From a point within 1e-7 of a certified minimum, `escape` returns this point without success,
    for any direction.
    """
    stayed = 0
    for seed in range(12):
        ob = overlapping([3, 4, 2], 1e-2, 30, seed)
        loose = fc.minimize(ob, ob.model.init(rng=seed), rng=0, gradient_tol=1e-5)
        x = loose.x + 1e-7 * np.random.default_rng(seed).standard_normal(ob.n_params)
        if loose.kind != "minimum":
            continue
        for direction in (None, np.ones(ob.n_params), ob.gradient(x)):
            found = fc.escape(ob, x, direction, rng=seed)
            assert not found.success and np.array_equal(found.x, x), found
            assert found.fun == ob.value(x)
        stayed += 1
    assert stayed >= 8


def test_escape_goes_down_by_more_than_rounding_along_proved_curvature():
    net = LinearAutoencoder([4.0, 2.0, 1.0], 1, rng=0)
    ob = compiled(net.objective)
    saddle = net.case({2}).theta
    found = fc.escape(ob, saddle)
    H = ob.hessian(saddle)
    v = found.direction
    assert found.success and v @ (H @ v) < -H.rounding_bound(v)
    assert ob.value(saddle) - found.fun > 1e-3
    # a direction of the caller along which the second derivative is 0
    cubic = DESCENDING["x^2 + y^3"]
    found = fc.escape(cubic, np.zeros(2), np.array([0.0, 1.0]))
    assert found.success and found.fun < 0 and found.x[1] < 0


def test_minima_of_weak_curvature_are_certified():
    """A minimum with curvature down to 3e-7 is certified, although the default gradient tolerance
    is met far outside the region where Newton's method converges.
    """
    rng = np.random.default_rng(6)
    d = int(rng.integers(2, 9))
    rng.integers(2, 10, rng.integers(1, 3))
    X = rng.standard_normal((60, d))
    y = np.sin(2 * X[:, :1]) * np.ones((1, 2))
    ob = fc.Objective(fc.MLP([d, 6, 4, 2], activation="sigmoid"), X, y, loss="mse", l2=4.5e-4)
    found = fc.minimize(ob, ob.model.init(rng=6), rng=0)
    assert found.success and found.report.certified and found.report.kantorovich < 0.5
    assert np.linalg.norm(found.jac) < 1e-9


@pytest.mark.parametrize(
    "loss, labels, l2",
    [
        ("cross_entropy", "two of three classes", 0.0),
        ("cross_entropy", "one class", 0.02),
        ("cross_entropy", "soft", 0.0),
        ("binary_cross_entropy", "all 1", 0.02),
        ("binary_cross_entropy", "all 0", 0.0),
    ],
)
def test_unpenalised_biases_with_one_sided_labels_have_no_critical_point(loss, labels, l2):
    """If a class has no samples, or a binary output only one label, and biases have no l2, no
    critical point is reported. The loss decreases along the reported ray, since the derivative in
    that bias has one sign everywhere.
    """
    rng = np.random.default_rng(0)
    X, some = rng.standard_normal((30, 3)), (rng.random(30) < 0.5) * 1.0
    y = {
        "two of three classes": some.astype(int),
        "one class": np.ones(30, int),
        "soft": rng.dirichlet(np.ones(3), 30) * [1, 0, 1],
        "all 1": np.column_stack([some, np.ones(30)]),
        "all 0": np.column_stack([some, np.zeros(30)]),
    }[labels]
    weight = np.r_[0.0, np.ones(29)]
    if y.ndim == 1:
        y = np.where(weight == 0, 2, y)  # the only sample of this class has weight 0
    model = fc.MLP([3, 4, 2 if loss.startswith("binary") else 3])
    ob = fc.Objective(model, X, y, loss=loss, l2=l2, l2_biases=False, sample_weight=weight)
    for theta in (model.init(rng=0), 30 * model.init(rng=1), np.zeros(ob.n_params)):
        ray = ob.certificates.ray_to_infimum(theta)
        values = [ob.value(theta + t * ray) for t in (0, 1, 2, 4, 8, 16)]
        assert np.all(np.diff(values) < 0) and ob.gradient(theta) @ ray < 0
        said = fc.classify(ob, theta)
        assert said.rule == "infimum_at_infinity"
    found = fc.minimize(ob, model.init(rng=0), max_iter=100, rng=0)
    assert not found.success and found.stopped not in ("critical", "degenerate")
    walked = fc.find_critical_point(ob, model.init(rng=0), max_iter=100)
    assert not walked.success
    held = fc.Objective(model, X, y, loss=loss, l2=1e-2, sample_weight=weight)
    assert held.certificates.ray_to_infimum(model.init(rng=0)) is None
    assert held.certificates.why_no_minimum(model.init(rng=0)) is None


def test_a_tiny_unit_of_the_loss_gives_no_false_success():
    """If targets of 1e-13 make the initial loss 1e-26, a run is a success only if it lowers the
    loss to a thousandth.
    """
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((30, 4)), 1e-13 * rng.standard_normal((30, 2))
    ob = fc.Objective(fc.MLP([4, 3, 3, 2], bias=False), X, Y, loss="mse")
    found = fc.minimize(ob, np.zeros(ob.n_params), rng=0, max_iter=100)
    assert not found.success or found.fun < 1e-3 * ob.value(np.zeros(ob.n_params))


def test_an_interpolating_start_is_a_success_in_either_precision():
    """A run from a start whose residuals are rounding errors is a success, in float64 and
    float32.
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3, 4))
    for dtype in ("float64", "float32"):
        model = fc.MLP([4, 5, 2], dtype=dtype)
        theta = model.init(rng=1)
        y = fc.MLP([4, 5, 2]).predict(theta.astype(float), X) * (1 + np.finfo(dtype).eps)
        found = fc.minimize(fc.Objective(model, X, y, loss="mse"), theta, rng=0)
        assert found.success, found


def test_a_run_continues_along_a_curved_valley_of_small_gradient():
    """In a curved valley with a small gradient and negative curvature that leads only a short way,
    the run continues with the method's own steps to the minimum.
    """
    c = 3e-7

    def gradient(t):
        r = np.sqrt(t[0] ** 2 + t[1] ** 2)
        return (r - 1) * t / r + c * (np.array([1.0, 0.0]) / r - t[0] * t / r**3)

    def hessian(t):
        return np.stack([gradient(t + 1e-200j * e).imag / 1e-200 for e in np.eye(2)])

    def value(t):
        return (np.hypot(*t) - 1) ** 2 / 2 + c * t[0] / np.hypot(*t)

    ob = function(2, value, gradient, hessian)
    found = fc.minimize(ob, [np.cos(1.0), np.sin(1.0)])
    assert found.success and np.allclose(found.x, [-1, 0], atol=1e-6), found


@pytest.mark.parametrize("n", [2, 3])
def test_runs_leave_points_of_positive_curvature_far_from_a_minimum(n):
    """In the valley of Rosenbrock's function times 1e-10, where the gradient is within its
    tolerance but the verdict is undecided, the run continues to the minimum.
    """

    class Shallow(function):
        loss_lower_bound = 0.0

    share, start = 1e-10, 0.9**2.0 ** np.arange(n)
    ob = Shallow(
        n,
        lambda t: 1 + share * rosen(t),
        lambda t: share * rosen_der(t),
        lambda t: share * rosen_hess(t),
    )
    assert fc.classify(ob, start).kind == "undecided"
    found = fc.minimize(ob, start)
    assert found.success and found.report.kind == "minimum"
    assert np.abs(found.x - 1).max() < 1e-6


@pytest.mark.parametrize("method", ["trust-region", "newton-cg", "levenberg-marquardt"])
@pytest.mark.parametrize("seed", range(3))
def test_slow_progress_near_the_lower_bound_ends_a_run(method, seed):
    """For five tanh units fitted to a sine, whose loss decreases like a power of the number of
    iterations, the run ends as slow and not as a success. With a `gradient_tol`, the run continues
    to its limit of iterations.
    """
    x = np.linspace(-3, 3, 41)[:, None]
    ob = fc.Objective(fc.MLP([1, 5, 1], "tanh"), x, np.sin(x), "mse")
    start = ob.model.init(seed)
    found = fc.minimize(ob, start, method, rng=0)
    losses = found.history["loss"]
    assert found.stopped == "slow" and found.status == 14 and not found.success
    assert found.nit < 1500 and found.fun <= 1e-4 * losses[0]
    assert losses[-51] - losses[-1] <= 1e-6 * losses[0]
    assert found.notes[0].key == "slow"
    assert found.report is not None and found.kind == found.report.kind != "minimum"
    # With the caller's gradient tolerance, slow progress does not end the run.
    more = fc.minimize(ob, start, method, rng=0, gradient_tol=1e-13, max_iter=found.nit + 100)
    assert more.stopped == "max_iter" and more.nit == found.nit + 100


@pytest.mark.parametrize(
    "method", ["newton-mr", "newton", "damped-newton", "trust-region", "l-bfgs"]
)
@pytest.mark.parametrize("gradient_tol", [0.1, 0.3])
def test_a_minimum_is_a_success_wherever_the_run_was_before(method, gradient_tol):
    """For softmax regression with l2, a run is a success if and only if the verdict on its final
    point is a minimum, for two loose gradient tolerances.
    """
    X = np.array([[-0.32], [1.73], [0], [-0.53]])
    y = np.array([[0.18, 0.24, 0.58], [0.62, 0.2, 0.17], [0.37, 0.27, 0.36], [0.26, 0.57, 0.16]])
    y = y / y.sum(axis=1, keepdims=True)
    ob = fc.Objective(fc.MLP([1, 3]), X, y, l2=8e-4, l2_biases=False)
    start = np.array([0.58, -1.17, -0.64, 0, 0, 0])
    run = fc.minimize(ob, start, method, rng=0, gradient_tol=gradient_tol)
    assert run.success == (run.kind == "minimum")
    assert run.report is None or run.success == (run.report.kind == "minimum")


def test_the_point_that_met_the_tolerance_is_the_result():
    """If a run ends because the gradient tolerance is met, the returned point meets the tolerance,
    even if an earlier point has a loss that is lower by rounding.
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4))
    y = 100 * np.sin(X @ rng.standard_normal(4))
    ob = fc.Objective(fc.MLP([4, 5, 1]), X, y, loss="mse", l2=1e-2)
    for seed in range(3):
        start = ob.model.init(rng=seed)
        run = fc.minimize(ob, start, "l-bfgs", rng=0, max_iter=4000, verdict=False)
        assert run.stopped != "critical" or np.linalg.norm(ob.gradient(run.x)) <= 1e-6


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


# --- methods on functions with wrong derivatives or infinite values


@pytest.mark.parametrize(
    "method, cause",
    [
        ("newton-cg", "no_lower_loss"),
        ("trust-region", "tiny_steps"),
        ("l-bfgs", "no_lower_loss"),
        ("newton-mr", "no_smaller_gradient"),
    ],
)
def test_a_wrong_gradient_stalls_the_run_at_its_start(method, cause):
    found = fc.minimize(line(abs), np.zeros(1), method, max_iter=50, verdict=False)
    assert not found.success and found.stopped == "stalled"
    assert found.notes[0].numbers["cause"] == cause
    assert np.array_equal(found.x, [0.0]) and found.fun == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_that_stalls_by_rounding_advises_float64_only_in_float32(dtype):
    ob = line(abs)
    ob.dtype = np.dtype(dtype)
    found = fc.minimize(ob, np.zeros(1, dtype), "trust-region", max_iter=50, verdict=False)
    assert ("float64" in [note.key for note in found.notes]) == (dtype == "float32")


def test_newton_mr_reports_a_slope_without_curvature():
    found = fc.minimize(line(lambda x: x, curvature=0.0), np.zeros(1), "newton-mr", verdict=False)
    assert not found.success and found.notes[0].numbers["cause"] == "orthogonal_gradient"


def test_a_newton_step_to_an_infinite_loss_stalls_the_run():
    wall = function(
        1,
        lambda x: float(x[0] - np.log(x[0])) if x[0] > 0 else np.inf,
        lambda x: 1 - 1 / x,
        lambda x: np.diag(1 / x**2),
    )
    found = fc.minimize(wall, np.full(1, 3.0), "newton", max_iter=5, verdict=False)
    assert found.stopped == "stalled" and found.notes[0].numbers["cause"] == "not_finite"
    assert np.array_equal(found.x, [3.0])


def test_the_reduction_ratio_ignores_rounding():
    eps = 2.0**-52
    assert reduction_ratio(2.0, 1.0, 0.5, eps) == pytest.approx(2, rel=1e-13)
    assert reduction_ratio(1.0, 1.0 + eps, eps / 10, eps) == pytest.approx(1, rel=0.2)
    assert (
        reduction_ratio(1.0, np.inf, 1.0, eps) == reduction_ratio(1.0, np.nan, 1.0, eps) == -np.inf
    )
    assert reduction_ratio(0.0, 0.0, 0.0, eps) == -np.inf


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


def test_a_budget_that_ends_inside_a_step_ends_the_run(monkeypatch):
    """A run ends if the longest interval between two readings of the clock would exceed the
    remaining time, and later, shorter intervals do not continue the run.
    """
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    run = Problem(overlapping([3, 4, 2], 1e-3, 20), max_time=1.0)
    clock[0] = 0.1
    assert not run.is_out_of_budget() and run.exhausted_budget() is None
    clock[0] = 0.6
    assert run.is_out_of_budget()
    for clock[0] in (0.61, 0.62, 0.63):
        assert run.is_out_of_budget() and run.exhausted_budget() == "max_time" == run.cut


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


def test_by_default_a_run_is_saved_at_most_twice_a_minute(monkeypatch, tmp_path):
    now, there = [0.0], Checkpoint(tmp_path / "there")
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: now[0])
    saver = checkpoint.CheckpointWriter(there, "adam", {})
    wrote = []
    saver.take_snapshot = lambda loop: None
    saver.write_snapshot = lambda loop: wrote.append(now[0])
    loop = SimpleNamespace(
        problem=SimpleNamespace(cut=None),
        trace=SimpleNamespace(iteration=3),
        state=SimpleNamespace(f=1.0),
    )
    for now[0] in (1.0, 29.0, 31.0):
        saver.save_if_due(loop)
    assert wrote == [31.0]
    often = checkpoint.CheckpointWriter(replace(there, every=3), "adam", {})
    often.take_snapshot, often.write_snapshot = saver.take_snapshot, saver.write_snapshot
    often.save_if_due(loop)
    assert len(wrote) == 2


# --- functions that `minimize` calls


def test_statuses_are_numbered_as_minimize_lists_them():
    text = MinimizeResult.__doc__
    listed = re.search(r"Why the run ended: (.*?)`status` is the position in", text, re.S)[1]
    names = [name for part in re.findall(r"``(.*?)``", listed, re.S) for name in part.split()]
    assert {name: i for i, name in enumerate(names)} == STATUS_CODES


def test_default_limits_are_100_epochs_and_1000_iterations(problem, rng):
    """The default limits are 100 epochs with mini-batches and 1000 iterations without."""
    p = problem(rng, (2, 2, 1), N=4)
    words = {"gradient_tol": 1e-300, "verdict": False}
    run = fc.minimize(p.ob, p.theta, "sgd", batch_size=4, learning_rate=1e-6, **words)
    assert run.nit == 100
    run = fc.minimize(p.ob, p.theta, "sgd", learning_rate=1e-9, **words)
    assert run.nit == 1000


def test_a_constant_loss_exhausts_patience(problem, rng):
    """A validation loss equal to the best one counts as no improvement, and the run returns the
    first point with that loss.
    """
    p = problem(rng, (2, 2, 1), N=4)
    flat = SimpleNamespace(value=lambda theta: 3.0, n_params=p.n)
    words = {"learning_rate": 1e-3, "gradient_tol": 1e-300, "verdict": False}
    run = fc.minimize(p.ob, p.theta, "sgd", callback=EarlyStopping(flat, 4), max_iter=30, **words)
    assert run.nit == 4 and np.array_equal(run.x, p.theta) and run.notes[0].key == "patience"


def test_flat_space_is_spanned_by_the_weakest_eigenvectors():
    """`flat_directions` returns the eigenvectors whose eigenvalues are at most 1e-5 of the largest
    in absolute value, weakest first, or none if n reaches the limit.
    """
    ob = QuadraticObjective(PrescribedSpectrum([4.0, 3e-5, -1e-6, 5e-5, -2.0, 0.0], 0))
    flat, n_products = flat_directions(ob, np.zeros(6), 7)
    assert n_products == 6 and flat.shape == (6, 3)
    assert np.array_equal(np.abs(flat).argmax(axis=0), [5, 2, 1])
    assert np.allclose(np.abs(flat).max(axis=0), 1)
    none, n_products = flat_directions(ob, np.zeros(6), 6)
    assert none.shape == (6, 0) and n_products == 0


@pytest.mark.parametrize("dense_below", [0, 100])
def test_final_newton_steps_are_counted(dense_below):
    """`refine_by_newton` returns the minimum of a quadratic with the numbers of steps, products and
    gradients, by factorisation or in Krylov spaces. If the time is up, no step is taken.
    """
    ob = QuadraticObjective(PrescribedSpectrum(np.linspace(1, 2, 9), 0))
    at = np.full(9, 1e-3)
    theta, n_steps, n_products, n_gradients = refine_by_newton(ob, at, dense_below, lambda _: False)
    assert n_steps >= 1 and np.abs(theta).max() < 1e-8 and (at == 1e-3).all()
    if dense_below:
        assert n_products % 9 == 0
    assert n_products >= 9 and n_gradients > n_steps
    theta, n_steps, n_products, _ = refine_by_newton(ob, at, dense_below, lambda _: True)
    assert n_steps == n_products == 0 and (theta == at).all()


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


@pytest.mark.parametrize(
    ("kind", "certified", "value", "dtype", "taken"),
    [
        ("minimum", True, 1.0, "float64", True),
        ("minimum", True, 0.5, "float64", True),
        ("minimum", True, 1.1, "float64", False),
        ("minimum", False, 0.5, "float64", False),
        ("saddle", True, 0.5, "float64", False),
        ("minimum", True, 0.5, "float32", False),
    ],
)
def test_run_ends_at_a_nearby_certified_minimum_of_no_higher_loss(
    kind, certified, value, dtype, taken
):
    at = SimpleNamespace(kind=kind, certified=certified, statement="It is.", reason="It is.")
    report = SimpleNamespace(nearest_verdict=at, nearest_point=np.ones(2))
    point = StationaryPoint(np.zeros(2, dtype), None, 1.0, moves=False, report=report)
    problem = SimpleNamespace(value=lambda theta: value if theta[0] else 1.0)
    self = SimpleNamespace(problem=problem)
    found = StationaryPointExaminer._end_at_nearest_minimum(self, point)
    assert (found is not None) == taken
    if taken:
        assert found.kind == "minimum" and (found.theta == 1).all()


@pytest.mark.parametrize(
    ("shape", "free", "walled"),
    [
        (lambda t: t**2, False, False),
        (lambda t: t**2 + 0.1 * t, True, True),
        (lambda t: t**2 - 0.1 * t, True, True),
        (lambda t: t**2 - 2 * t**4, True, False),
        (lambda t: 1.0 + 1e-16 * np.sign(t), False, False),
    ],
    ids=["bowl", "to the left", "to the right", "over a wall", "lost in rounding"],
)
def test_line_searches_return_a_lower_point_if_there_is_one(shape, free, walled):
    """`find_lower_point` returns a lower point on either side of the start, or None if none exists.
    With `barrier`, lower points behind an increase of the loss are ignored.
    """
    for barrier, there in ((False, free), (True, walled)):
        start, along = np.zeros(2), np.array([1.0, 0.0])
        found = find_lower_point(lambda at: shape(at[0]), start, shape(0.0), along, barrier)
        assert (found is not None) == there
        if there:
            assert found[1] == shape(found[0][0]) < shape(0.0) and found[0][1] == 0


def test_rays_along_which_the_value_decreases_are_found():
    falling = function(
        1, lambda x: np.exp(-x[0]), lambda x: -np.exp(-x), lambda x: np.diag(np.exp(-x))
    )
    at = np.zeros(1)
    assert appears_unbounded(falling, falling.value, at, 1.0, np.ones(1))
    for direction in (-1.0, 0.0, np.inf):
        assert not appears_unbounded(falling, falling.value, at, 1.0, np.full(1, direction))
    bowl = QuadraticObjective(np.diag([1.0, 2.0]))
    assert not appears_unbounded(bowl, bowl.value, np.ones(2), 1.5, -np.ones(2))


def test_descent_probes_of_length_zero_are_ignored(rng):
    probed = nets.stating(probes=lambda theta: np.array([[0.0, 3.0], [0.0, 4.0]]))
    flat = np.eye(2)[:, 1:]
    found = list(trial_directions(probed, np.zeros(2), flat, rng))
    assert np.allclose(found[-1], [0.6, 0.8]) and np.array_equal(found[-2], flat[:, 0])
    assert all(np.linalg.norm(v) == pytest.approx(1) for v in found)
