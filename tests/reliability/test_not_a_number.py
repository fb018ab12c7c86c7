"""NaN and infinity: tests of the table in docs/limits.md."""

import warnings
from functools import partial

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.optimize.minimize import METHODS
from fastcurv.testing import FunctionObjective

MODEL = fc.MLP([2, 3, 1])
X, Y = np.eye(2), np.array([0.0, 1.0])
OB = fc.Objective(MODEL, X, Y, "mse")
THETA = MODEL.init(rng=0)
BAD = pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])


def with_one_bad_entry(array, bad):
    array = np.array(array, float)
    array.flat[1] = bad
    return array


class BadProducts(LinearOperator):
    """A symmetric operator with one non-finite number in each product."""

    def __init__(self, bad):
        super().__init__(float, (30, 30))
        self.bad = bad

    def _matvec(self, v):
        out = np.arange(30.0) * np.ravel(v)
        out[3] = self.bad
        return out


CALLS_WITH_BAD_ARRAYS = {
    "X": lambda bad: fc.Objective(MODEL, with_one_bad_entry(X, bad), Y, "mse"),
    "y": lambda bad: fc.Objective(MODEL, X, with_one_bad_entry(Y, bad), "mse"),
    "sample_weight": lambda bad: fc.Objective(
        MODEL, X, Y, "mse", sample_weight=with_one_bad_entry(np.ones(2), bad)
    ),
    "l2": lambda bad: fc.Objective(MODEL, X, Y, "mse", l2=bad),
    "theta": lambda bad: OB.value(with_one_bad_entry(THETA, bad)),
    "theta of a verdict": lambda bad: fc.classify(OB, with_one_bad_entry(THETA, bad)),
    "theta0": lambda bad: fc.minimize(OB, with_one_bad_entry(THETA, bad)),
    "theta0 of a search": lambda bad: fc.find_critical_point(OB, with_one_bad_entry(THETA, bad)),
    "theta of a model": lambda bad: MODEL.predict(with_one_bad_entry(THETA, bad), X),
    "v0": lambda bad: fc.eigsh(np.eye(3), 1, v0=with_one_bad_entry(np.ones(3), bad)),
    "direction": lambda bad: fc.escape(OB, THETA, direction=with_one_bad_entry(THETA, bad)),
    "g": lambda bad: fc.newton_step(np.eye(3), with_one_bad_entry(np.ones(3), bad)),
    "g of another step": lambda bad: fc.saddle_free_newton_step(
        np.eye(3), with_one_bad_entry(np.ones(3), bad)
    ),
}


@BAD
@pytest.mark.parametrize("name", CALLS_WITH_BAD_ARRAYS)
def test_errors_for_bad_arrays_name_the_argument(name, bad):
    with pytest.raises(ValueError) as caught:
        CALLS_WITH_BAD_ARRAYS[name](bad)
    assert name.split(" ")[0] in str(caught.value) and "\n" not in str(caught.value)


NUMBERS = {
    "tol": lambda bad: fc.eigsh(np.eye(3), 1, tol=bad),
    "damping": lambda bad: fc.newton_step(np.eye(3), np.ones(3), damping=bad),
    "gradient_tol": lambda bad: fc.classify(OB, THETA, gradient_tol=bad),
    "learning_rate": lambda bad: fc.minimize(OB, THETA, "sgd", learning_rate=bad),
    "max_time": lambda bad: fc.minimize(OB, THETA, max_time=bad),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_errors_for_bad_scalars_name_the_argument(name):
    with pytest.raises(ValueError, match=name):
        NUMBERS[name](np.nan)


ALGORITHMS = {
    "eigsh": fc.eigsh,
    "eigvalsh": fc.eigvalsh,
    "inertia": fc.inertia,
    "spectral_density": fc.spectral_density,
    **{  # by random signs, by a sketch, and exactly
        f"{estimate.__name__}, {n}": partial(estimate, n_probes=n, rng=0)
        for estimate in (fc.trace, fc.diagonal, fc.frobenius_norm)
        for n in (1, 6, 9, 20, 40)
    },
    "newton_step": lambda op: fc.newton_step(op, np.ones(30)),
    "saddle_free_newton_step": lambda op: fc.saddle_free_newton_step(op, np.ones(30)),
}


@BAD
@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms_reject_operators_that_return_nan(name, bad):
    for op in (BadProducts(bad), with_one_bad_entry(np.eye(30), bad)):
        with pytest.raises(ValueError, match="finite"):
            ALGORITHMS[name](op)


@pytest.mark.parametrize("part", ["value", "gradient", "hessian"])
def test_algorithms_reject_objectives_that_return_nan(part):
    parts = {
        "value": lambda t: 1.0,
        "gradient": lambda t: np.zeros(2),
        "hessian": lambda t: np.eye(2),
    }
    parts[part] = {
        "value": lambda t: np.nan,
        "gradient": lambda t: np.full(2, np.nan),
        "hessian": lambda t: np.full((2, 2), np.nan),
    }[part]
    ob = FunctionObjective(2, parts["value"], parts["gradient"], parts["hessian"])
    with pytest.raises(ValueError, match="finite"):
        (fc.minimize if part == "value" else fc.classify)(ob, np.zeros(2))


def test_overflowing_losses_are_infinite_in_passes_and_rejected_by_algorithms():
    """An overflowing loss is infinite in objectives and gradients and products are not finite, as
    in IEEE arithmetic, while algorithms raise ValueError.
    """
    far = THETA * 1e200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert OB.value(far) == np.inf
        assert not np.isfinite(OB.gradient(far)).all()
        assert not np.isfinite(OB.hessian(far) @ THETA).all()
    for call in (fc.classify, fc.minimize, fc.find_critical_point):
        with pytest.raises(ValueError, match="finite"):
            call(OB, far)


@pytest.mark.parametrize("scale", [1e-150, 1e60, 1e110, 1e150])
@pytest.mark.parametrize("activation, loss", [("identity", "mse"), ("gelu", "cross_entropy")])
def test_numbers_near_overflow_raise_no_warning(scale, activation, loss):
    """Optimisers and verdicts issue no NumPy warning for numbers whose squares overflow, although
    NumPy's functions issue one on some processors. They return, or raise ValueError about numbers
    that are not finite.
    """
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((9, 3))
    y = rng.integers(2, size=9) if loss == "cross_entropy" else rng.standard_normal((9, 2))
    ob = fc.Objective(fc.MLP([3, 4, 2], activation), rows, y, loss)
    theta = ob.model.init(rng=0) * scale
    calls = [partial(fc.minimize, method=method, max_iter=5) for method in METHODS]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for call in (*calls, fc.classify, fc.escape, partial(fc.find_critical_point, max_iter=5)):
            try:
                call(ob, theta)
            except ValueError as error:
                assert "finite" in str(error), call


def test_trial_steps_into_an_overflow_are_rejected():
    """For exp(-t) + exp(t^2), which overflows at t = 27, trial steps into the overflow are rejected
    and iterates stay finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        ob = FunctionObjective(
            1,
            lambda t: float(np.exp(-t[0]) + np.exp(t[0] ** 2)),
            lambda t: np.array([-np.exp(-t[0]) + 2 * t[0] * np.exp(t[0] ** 2)]),
            lambda t: np.array([[np.exp(-t[0]) + (2 + 4 * t[0] ** 2) * np.exp(t[0] ** 2)]]),
        )
        for method in ("trust-region", "newton-cg", "l-bfgs", "saddle-free-newton"):
            found = fc.minimize(ob, np.array([-9.0]), method, max_iter=200)
            assert np.isfinite(found.fun) and np.isfinite(found.x).all()
            assert np.isfinite(found.history["loss"]).all(), method
