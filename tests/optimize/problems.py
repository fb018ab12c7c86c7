"""Functions that are minimised in several tests of `minimize`, and the comparison of two runs."""

import numpy as np
from scipy.optimize import rosen, rosen_der, rosen_hess

from fastcurv.testing import FunctionObjective

MONKEY = FunctionObjective(
    2,
    lambda t: t[0] ** 3 - 3 * t[0] * t[1] ** 2,
    lambda t: [3 * t[0] ** 2 - 3 * t[1] ** 2, -6 * t[0] * t[1]],
    lambda t: [[6 * t[0], -6 * t[1]], [-6 * t[1], -6 * t[0]]],
)


def rosenbrock(n=6):
    return FunctionObjective(n, rosen, rosen_der, rosen_hess)


class LeastSquares:
    """The objective (1/2N) ||X theta - y||^2 + l2/2 ||theta||^2 with batches, whose `ggn` equals
    its Hessian.
    """

    def __init__(self, X, y, l2=0.0, dtype=np.float64):
        self.X, self.y, self.l2, self.dtype = X.astype(dtype), y.astype(dtype), l2, np.dtype(dtype)
        self.n_samples, self.n_params = X.shape

    def batch(self, rows):
        return LeastSquares(self.X[rows], self.y[rows], self.l2, self.dtype)

    def value(self, theta):
        return self.value_and_gradient(theta)[0]

    def gradient(self, theta):
        return self.value_and_gradient(theta)[1]

    def value_and_gradient(self, theta):
        r = self.X @ theta - self.y
        gradient = self.X.T @ r / len(r) + self.l2 * theta
        return float(r @ r / (2 * len(r)) + self.l2 / 2 * theta @ theta), gradient

    def hessian(self, theta):
        return self.X.T @ self.X / len(self.y) + self.l2 * np.eye(self.n_params, dtype=self.dtype)

    ggn = hessian


def regression(N=60, n=5, noise=0.5, seed=0, **options):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, n))
    return LeastSquares(X, X @ np.arange(1.0, n + 1) + noise * rng.standard_normal(N), **options)


def same(one, other):
    """Assert that two runs have bitwise identical results and histories, except for times."""
    assert np.array_equal(one.x, other.x) and one.fun == other.fun
    assert np.array_equal(one.jac, other.jac)
    for name in ("nit", "nhev", "njev", "kind", "stopped"):
        assert getattr(one, name) == getattr(other, name), name
    for key in one.history:
        assert len(one.history[key]) == len(other.history[key])
        assert key == "time" or np.array_equal(one.history[key], other.history[key]), key
    assert np.all(np.diff(other.history["time"]) >= 0)
