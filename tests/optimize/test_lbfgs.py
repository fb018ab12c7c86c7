"""L-BFGS: its step against the recursion it stands for, its line search, its resumption."""

import numpy as np
import pytest
from numpy.linalg import norm
from scipy.optimize import rosen, rosen_der, rosen_hess

import fastcurv as fc
from fastcurv.common.files import read_tensors, write_tensors
from fastcurv.common.vectors import compact_weights
from fastcurv.optimize.lbfgs import LBFGS
from fastcurv.optimize.line_search import ARMIJO, CURVATURE, descend_along
from fastcurv.optimize.run import Run
from fastcurv.testing import FunctionObjective


def rosenbrock(n=10):
    return FunctionObjective(n, rosen, rosen_der, rosen_hess)


def by_recursion(pairs, g):
    """The inverse BFGS matrix of the pairs, oldest first, made one update at a time, times g."""
    s, y = pairs[-1]
    H = (s @ y) / (y @ y) * np.eye(len(g))
    for s, y in pairs:
        left = np.eye(len(g)) - np.outer(s, y) / (s @ y)
        H = left @ H @ left.T + np.outer(s, s) / (s @ y)
    return H @ g


@pytest.mark.parametrize("memory", [1, 3, 20])
def test_a_step_is_that_of_the_recursion(memory):
    """The compact form and the updates one by one are the same matrix, ring buffer or not."""
    run = Run(rosenbrock(), np.linspace(-1.0, 1.5, 10), 0)
    run.bind()
    method, pairs = LBFGS(run, memory=memory), []
    for _ in range(12):
        theta, g = run.theta.copy(), run.g.copy()
        assert method.step() is None
        pairs = [*pairs, (run.theta - theta, run.g - g)][-memory:]
        expected = by_recursion(pairs, run.g)
        assert norm(-method._direction() - expected) <= 1e-9 * norm(expected)


@pytest.mark.parametrize("first", [1e-6, 0.01, 1.0, 1e4])
def test_the_line_search_ends_where_the_strong_wolfe_conditions_hold(first):
    run = Run(rosenbrock(), np.linspace(-1.0, 1.5, 10), 0)
    run.bind()
    d = -run.g / run.gnorm
    slope = float(run.g @ d)
    found = descend_along(run, d, slope, first)
    assert np.array_equal(run.spare, run.theta + found.t * d)
    assert found.f == rosen(run.spare) and np.array_equal(found.g, rosen_der(run.spare))
    assert found.f <= run.f + ARMIJO * found.t * slope
    assert abs(found.g @ d) <= CURVATURE * abs(slope)


def test_a_value_that_is_not_finite_shortens_the_step():
    """log x is undefined below 0: a step beyond it comes back."""

    def value(x):
        return float(x[0] - np.log(x[0])) if x[0] > 0 else np.nan

    ob = FunctionObjective(1, value, lambda x: 1 - 1 / x, lambda x: np.diag(x**-2))
    found = fc.minimize(ob, np.array([1e-3]), "l-bfgs", verdict=False)
    assert abs(found.x[0] - 1) <= 1e-6


@pytest.mark.parametrize("at", [1, 4, 5, 9, 13])
@pytest.mark.parametrize("memory", [4, 20])  # a ring that turns, and one that does not
def test_a_resumed_run_goes_on_with_its_pairs(memory, at, tmp_path):
    """Wherever it is cut in two, the run takes the same steps to the last bit."""
    start, path = np.linspace(-1.0, 1.5, 10), tmp_path / "run"
    how = {"memory": memory, "verdict": False}
    whole = fc.minimize(rosenbrock(), start, "l-bfgs", max_iter=25, **how)
    fc.minimize(rosenbrock(), start, "l-bfgs", max_iter=at, checkpoint=path, **how)
    rest = fc.minimize(rosenbrock(), None, "l-bfgs", max_iter=25, resume=path, **how)
    assert rest.nit == whole.nit == 25 and rest.nfev == whole.nfev
    assert np.array_equal(rest.x, whole.x)
    assert np.array_equal(rest.history["loss"], whole.history["loss"])


def test_a_ring_whose_oldest_pair_is_nowhere_is_damaged(tmp_path):
    start, path = np.linspace(-1.0, 1.5, 10), tmp_path / "run"
    fc.minimize(rosenbrock(), start, "l-bfgs", max_iter=3, checkpoint=path, verdict=False)
    arrays, facts = read_tensors(path)
    facts["method_facts"]["first"] = 2
    write_tensors(path, arrays, facts)
    with pytest.raises(ValueError, match="damaged: its oldest pair is in row 2 of 3"):
        fc.minimize(rosenbrock(), None, "l-bfgs", resume=path)


def test_float32_stays_float32():
    X = np.random.default_rng(0).standard_normal((50, 3))
    model = fc.MLP([3, 4, 1], "tanh", dtype="float32")
    ob = fc.Objective(model, X, X[:, :1], l2=0.1)
    found = fc.minimize(ob, model.init(seed=0), "l-bfgs", verdict=False)
    assert found.x.dtype == np.float32 and norm(ob.gradient(found.x)) <= 1e-3


@pytest.mark.parametrize("at", range(1, 9))
def test_ctrl_c_inside_a_record_leaves_one_point(at):
    """Wherever it falls, the best point, its loss and the history are of one record."""

    class Broken(dict):
        """Raises once, at the so manieth list that is asked for after the start."""

        left = None

        def __getitem__(self, key):
            if self.left is not None:
                self.left -= 1
                if self.left == 0:
                    self.left = None
                    raise KeyboardInterrupt
            return super().__getitem__(key)

    ob = rosenbrock()
    run = Run(ob, np.linspace(-1.0, 1.5, 10), 0)
    run.history = Broken(run.history)
    run.bind()
    run.record()
    assert LBFGS(run).step() is None
    run.history.left = at
    with pytest.raises(KeyboardInterrupt):
        run.record()
        run.record()
    run.settle()
    assert run.best_f == ob.value(run.best) == min(run.history["loss"])
    assert len({len(column) for column in run.history.values()}) == 1


@pytest.mark.parametrize("broken", ["strided", "single", "few", "none", "many"])
def test_weights_of_what_does_not_fit_are_refused(broken):
    square, pairs, k = np.eye(6)[:3, :3].copy(), np.ones((3, 2)), 3
    if broken == "strided":
        square = np.eye(6)[::2, ::2]
    elif broken == "single":
        pairs = pairs.astype(np.float32)
    elif broken == "few":
        pairs = pairs[:2]
    else:
        k = 0 if broken == "none" else 4
    with pytest.raises(ValueError, match="wanted"):
        compact_weights(square, square, pairs, np.ones((3, 2)), 0, k)
