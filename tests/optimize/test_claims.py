"""The statements of a run hold: its final point, the reason why it ended and its cost, for every
unit of the loss and of the parameters.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der, rosen_hess
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.optimize.minimize import METHODS, STOCHASTIC_METHODS
from fastcurv.testing import FunctionObjective as function

from .problems import MONKEY


@pytest.mark.parametrize("method", ["l-bfgs", "newton", "adam"])
def test_the_report_is_of_the_point_returned_near_a_degenerate_one(method):
    """From the degenerate point 0 of a monkey saddle, runs end at a lower point found near 0. The
    report has the gradient norm and the kind of that lower point.
    """
    found = fc.minimize(MONKEY, np.zeros(2), method, rng=0)
    assert (
        found.stopped == "slow"
        and found.fun < 0
        and [note.key for note in found.notes] == ["moved_lower", "continue"]
    )
    assert found.kind == found.report.kind == "not_critical"
    assert np.isclose(found.report.gradient_norm, np.linalg.norm(found.jac))


def test_a_distant_start_is_not_reported_as_unbounded():
    """For the sum of (t / 1e80)^4 and a start at 1e80, the run does not report an unbounded loss
    and ends at a loss below 2, its initial value.
    """
    far = 1e80
    ob = function(
        2,
        lambda t: ((t / far) ** 4).sum(),
        lambda t: 4 * (t / far) ** 3 / far,
        lambda t: np.diag(12 * (t / far) ** 2 / far / far),
    )
    found = fc.minimize(ob, np.full(2, far), "trust-region", gradient_tol=1e-90, max_iter=20)
    assert found.stopped != "unbounded" and found.fun < 2


def test_notes_distinguish_interrupted_and_unrequested_verdicts():
    def interrupted(t):
        raise KeyboardInterrupt

    ob = function(2, lambda t: t @ t, lambda t: 2 * t, interrupted)
    found = fc.minimize(ob, np.ones(2), "l-bfgs")
    assert found.stopped == "interrupted" and found.notes[-2].key == "no_verdict_reached"
    unasked = fc.minimize(ob, np.ones(2), "l-bfgs", verdict=False)
    assert unasked.notes[-1].key == "no_verdict_requested"


class Counted:
    """Rosenbrock's function of five variables, which counts its values, gradients and Hessian
    products.
    """

    n_params = 5

    def __init__(self):
        self.values = self.gradients = self.products = 0

    def value(self, t):
        self.values += 1
        return rosen(t)

    def gradient(self, t):
        self.gradients += 1
        return rosen_der(t)

    def hessian(self, t):
        H = rosen_hess(t)

        def product(v):
            self.products += 1
            return H @ v

        return LinearOperator((5, 5), matvec=product, rmatvec=product, dtype=float)

    ggn = hessian


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(STOCHASTIC_METHODS)))
def test_evaluation_counts_equal_those_of_the_objective(method):
    ob = Counted()
    found = fc.minimize(ob, np.full(5, -0.5), method, rng=0, verdict=False, max_iter=60)
    assert found.nit > 5 and (found.njev, found.nhev) == (ob.gradients, ob.products)
    assert found.nfev == ob.values
    if method == "newton":  # each step tries one point, which is not evaluated again
        assert (ob.values, ob.gradients) == (found.nit + 1, found.nit + 1)


@pytest.mark.parametrize(
    "method, options, activation",
    [
        ("trust-region", {"max_iter": 5}, "relu"),
        ("adam", {"max_iter": 5}, "relu"),
        ("trust-region", {"max_products": 9}, "tanh"),
        ("trust-region", {"callback": lambda xk: True}, "tanh"),
        ("trust-region", {"gradient_tol": 1e-2}, "softplus"),
        ("sgd", {"max_iter": 9, "learning_rate": 1e3}, "relu"),
    ],
)
def test_every_result_has_a_report_or_names_the_call_for_one(method, options, activation):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 3)), rng.integers(2, size=60)
    ob = fc.Objective(fc.MLP([3, 4, 2], activation), X, y, l2=1e-3)
    run = fc.minimize(ob, ob.model.init(rng=0), method, rng=0, **options)
    said = run.notes[-1].key == "classify"
    assert said == (run.report is None) == ("gradient_tol" not in options)
    point = run.report or fc.classify(ob, run.x)
    assert point.kind == run.kind
    quiet = fc.minimize(ob, ob.model.init(rng=0), method, rng=0, verdict=False, **options)
    assert quiet.report is None and quiet.notes[-1].key != "classify"


def test_no_call_of_classify_is_advised_without_a_hessian():
    """For an objective without a Hessian, such as functions passed through SciPy, the message of a
    run does not advise to call `classify`.
    """
    bare = SimpleNamespace(n_params=2, value=lambda t: t @ t, gradient=lambda t: 2 * t)
    run = fc.minimize(bare, np.ones(2), "l-bfgs", max_iter=1)
    assert run.notes[-1].key != "classify"
