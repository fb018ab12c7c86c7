"""Verdicts are quick for clear points, end within their time limit, and claim only what was found
by then.
"""

import threading
import time

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.certify import gradient_bound
from fastcurv.common import runtime
from fastcurv.common.linalg import LONG_EIGENSYSTEM_MIN_N, SECONDS_PER_N_CUBED, eigh
from fastcurv.common.runtime import (
    Budget,
    OutOfTime,
    is_time_up,
    serial_blas_context,
    time_limit,
)
from fastcurv.critical.classify import classify
from fastcurv.spectrum.forms import IDENTITY_BLOCK_COLUMNS

pytestmark = pytest.mark.by_day(share=1 / 3)


class Slow:
    """The function ``x'Ax / 2`` with diagonal A. Each product with A advances the clock `now` by
    `seconds`.
    """

    def __init__(self, values, seconds=0.0):
        self.values, self.seconds, self.n_params = np.asarray(values, float), seconds, len(values)
        self.made, self.now = 0, 0.0

    def value(self, theta):
        return 0.5 * float(self.values @ (theta * theta))

    def gradient(self, theta):
        return self.values * theta

    def hessian(self, theta):
        def product(v):
            self.made += 1
            self.now += self.seconds
            return self.values * np.ravel(v)

        return LinearOperator((self.n_params,) * 2, product, product, dtype=float)


def trained(hidden, activation, seed=0, epochs=10):
    """Return (objective, theta) after some epochs of Adam, at which the gradient is still large."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((200, 24))
    y = (X[:, :3] ** 2).sum(axis=1) > 3
    model = fc.MLP([24, *hidden, 2], activation)
    ob = fc.Objective(model, X, y.astype(int))
    if not epochs:
        return ob, model.init(rng=seed)
    run = {"max_iter": epochs, "batch_size": 20, "rng": 0, "verdict": False}
    return ob, fc.minimize(ob, model.init(rng=seed), "adam", **run).x


@pytest.mark.parametrize(
    "hidden, activation, epochs",
    [((32,), "tanh", 10), ((16, 16), "relu", 10), ((90,), "tanh", 10), ((24,), "gelu", 0)],
)
def test_far_points_are_classified_by_products_alone(hidden, activation, epochs):
    """A point far from any critical point is classified without the dense matrix, with at most two
    products more than from products alone.
    """
    ob, theta = trained(hidden, activation, epochs=epochs)
    usual, cheap = classify(ob, theta), classify(ob, theta, dense_below=0)
    assert usual.kind == cheap.kind == "not_critical" and usual.evidence.method == "krylov"
    assert usual.n_products <= cheap.n_products + 2 and ob.n_params > 256


@pytest.mark.parametrize("values", [np.linspace(1, 2, 300), np.r_[-1.0, np.linspace(1, 2, 299)]])
@pytest.mark.parametrize("seconds", [0.01, 0.2])
def test_a_verdict_ends_in_time_and_names_the_limit(values, seconds, monkeypatch):
    """A verdict with max_time ends within one block of products after its limit, certifies nothing,
    and names the limit if the point is not a saddle.
    """
    ob = Slow(values, 3e-3)
    monkeypatch.setattr(time, "perf_counter", lambda: ob.now)
    point = classify(ob, np.zeros(300), max_time=seconds)
    assert seconds / 3e-3 <= ob.made + 1 <= seconds / 3e-3 + IDENTITY_BLOCK_COLUMNS + 20 < 300
    assert point.evidence.method == "krylov" and not point.certified
    assert point.kind in ("undecided", "saddle") and point.kind != "minimum"
    assert point.kind == "saddle" or point.evidence.limit == "max_time"
    assert classify(Slow(values), np.zeros(300), max_time=60).n_positive == (values > 0).sum()


def test_computations_that_exceed_the_time_limit_are_not_begun(monkeypatch):
    """If computing all eigenvalues would take twice the allowed time, the computation is not begun,
    and the reason of the verdict names the time limit.
    """
    ob = Slow(np.linspace(1, 2, 1100), 1e-6)
    monkeypatch.setattr(time, "perf_counter", lambda: ob.now)
    allowed = 0.5 * SECONDS_PER_N_CUBED * 1100**3
    point = classify(ob, np.zeros(1100), max_time=allowed)
    assert point.evidence.method == "krylov" and point.kind == "undecided"
    assert point.evidence.limit == point._advice == "max_time"


@pytest.mark.parametrize("l2", [0.0, 1e-2])
def test_small_budgets_never_report_a_critical_point_as_far(l2, rng):
    """A critical point is never reported as not critical, however few products are allowed for an
    estimate of Newton's step.
    """
    model = fc.MLP([3, 6, 2])
    ob = fc.Objective(model, rng.standard_normal((40, 3)), rng.integers(0, 2, 40), l2=l2)
    theta = model.init(rng=0)
    if l2:
        theta = fc.minimize(ob, theta, rng=0, verdict=False).x
    else:
        theta = theta * 0  # an exact saddle, at which all weights are 0
        ob = fc.Objective(model, ob.X, np.tile([[0.5, 0.5]], (40, 1)))
    for most in (*range(1, 12), 15, 20, 30, 50):
        point = classify(ob, theta, max_products=most, dense_below=0)
        assert point.kind != "not_critical", (most, point)
    far = classify(ob, theta + 0.3 * rng.standard_normal(len(theta)), max_products=1)
    assert far.kind == "not_critical" and far.gradient_tol > 0


class TickingClock:
    """A clock that advances whenever it is read."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("dense_below", [0, 4096])
@pytest.mark.parametrize("at_rest", [True, False])
def test_a_time_limit_at_any_stage_gives_no_error_and_no_false_kind(
    dense_below, at_rest, monkeypatch, rng
):
    """A time limit that ends at any stage of a verdict gives neither an error nor a wrong kind. The
    clock advances whenever it is read, so the limits end at every stage.
    """
    X = rng.standard_normal((30, 5))
    model = fc.MLP([5, 50, 2])
    ob = fc.Objective(model, X, rng.integers(0, 2, 30), l2=1e-2)
    theta = model.init(rng=0)
    if at_rest:
        theta = fc.minimize(ob, theta, "newton-cg", rng=0, verdict=False).x
        (W, b), (out, _) = model.unflatten(theta)
        W[0], b[0], out[:, 0] = 0, 0, 0  # a unit of zero weights, with which a second search starts
        theta = fc.minimize(ob, theta, "newton-cg", rng=0, verdict=False).x
    usual = classify(ob, theta, dense_below=dense_below)
    kinds = set()
    for limit in (*range(1, 40, 4), *np.geomspace(40, 4000, 12).astype(int)):
        clock = TickingClock()
        monkeypatch.setattr(runtime, "time", clock)
        point = classify(ob, theta, dense_below=dense_below, max_time=float(limit))
        monkeypatch.undo()
        assert point.kind in ("undecided", usual.kind), point
        assert point.certified <= usual.certified
        assert point.kind != "undecided" or repr(point) and point.to_dict()
        kinds.add(point.kind)
    assert "undecided" in kinds and usual.kind in kinds


def test_time_limits_nest_and_end_before_a_long_factorisation():
    with time_limit(1e-9):
        assert is_time_up()
        with time_limit(None):
            assert is_time_up()
        with time_limit(np.inf):
            assert not is_time_up()
    n = LONG_EIGENSYSTEM_MIN_N + 10
    with time_limit(1e-9), pytest.raises(OutOfTime):
        eigh(np.eye(n))


def test_blas_uses_one_thread_during_a_verdict():
    """During a verdict BLAS uses one thread, and afterwards as many threads as before. Limits that
    other threads have set do not change.
    """
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads():
        info = threadpoolctl.threadpool_info()
        return {p["num_threads"] for p in info if p["user_api"] == "blas"}

    seen = []

    class Looks(Slow):
        def value(self, theta):
            seen.append(threads())
            return super().value(theta)

    ob = Looks(np.linspace(1, 2, 300))
    with threadpoolctl.threadpool_limits(2, "blas"):
        before = threads()
        classify(ob, np.ones(300))
        assert seen and set.union(*seen) == {1} and threads() == before == {2}
        aside = threading.Thread(target=classify, args=(ob, np.ones(300)))
        with serial_blas_context():
            with serial_blas_context():
                aside.start()
            assert threads() == {1}
            aside.join()
        assert threads() == before
        with serial_blas_context(False):
            assert threads() == before
        seen.clear()
        small = Looks(np.ones(9))
        classify(small, np.ones(9))
        assert set.union(*seen) == before


def test_bounds_on_negative_eigenvalues_hold_without_time(monkeypatch):
    """If time or products end before the spectrum is computed, the bounds on the number of negative
    eigenvalues still hold, and the reason does not claim that a Newton step contracts.
    """
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 3)), rng.integers(2, size=60)
    ob = fc.Objective(fc.MLP([3, 4, 2]), X, y, l2=1e-2)
    end = fc.minimize(ob, ob.model.init(rng=0), rng=0, verdict=False).x
    theta = end + 1e-3 * rng.standard_normal(end.size)
    n_negative = fc.inertia(ob.hessian(theta)).n_negative
    assert classify(ob, theta).evidence.newton_steps == "converged" and n_negative == 0
    monkeypatch.setattr(runtime, "time", TickingClock())
    for options, ended in (
        ({"max_products": 1}, ("limit", None)),
        ({"max_time": 1e-9}, (None, "max_time")),
    ):
        point = classify(ob, theta, **options)
        low, high = point.evidence.n_negative_bounds
        assert low <= n_negative <= high
        assert (point.evidence.newton_steps, point.evidence.limit) == ended
    start = ob.model.init(rng=1)
    low, high = classify(ob, start, max_time=1e-9).evidence.n_negative_bounds
    assert low <= fc.inertia(ob.hessian(start)).n_negative <= high


def test_products_of_a_narrowed_block_are_counted():
    """If two samples reach so few directions that blocks become narrower, `n_products` equals the
    number of products made.
    """
    made = []

    class Counted(fc.Objective):
        certificates, rounding_bound = fc.Objective.certificates, gradient_bound

        def hessian(self, theta):
            made.append(super().hessian(theta))
            return made[-1]

    for seed in range(12):
        rng = np.random.default_rng(seed)
        X, y = rng.standard_normal((2, 2)), rng.random((2, 3)).round()
        model = fc.MLP([2, 8, 2, 3], ["silu", "softplus"])
        ob = Counted(model, X, y, loss="binary_cross_entropy", l2=6.4e-3, l2_biases=False)
        made.clear()
        point = classify(ob, np.zeros(model.n_params), max_products=60, dense_below=1)
        assert point.n_products == sum(H.n_products for H in made) <= 60


def test_a_budget_ends_by_products_seconds_or_an_outer_limit(monkeypatch):
    now = [5.0]
    monkeypatch.setattr(runtime.time, "perf_counter", lambda: now[0])
    whole = Budget(10, seconds=2.0)
    part = Budget(within=whole, reserve=4)
    assert (
        whole.products_left,
        part.products_left,
        whole.inner_max_time(),
        Budget().inner_max_time(),
    ) == (10, 6, 2.0, None)
    whole.count = 7
    assert (
        (whole.products_left, part.products_left) == (3, 0)
        and whole.allows(3)
        and not whole.allows(4)
    )
    with time_limit(1.0):
        assert whole.inner_max_time() == Budget().inner_max_time() == 1.0
        now[0] = 6.0
        assert (
            whole.products_left == Budget().products_left == 0
            and whole.untimed_products_left == 3
            and whole.inner_max_time() == 1e-3
        )
    assert whole.products_left == 3 and whole.elapsed() == 1.0
    now[0] = 7.0
    assert not whole.allows(1) and Budget().allows(10**9)
    unlimited = Budget()
    unlimited.count = 3
    unlimited.exhaust()
    assert unlimited.products_left == 0
