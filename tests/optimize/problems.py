"""Functions that are minimised in several tests of `minimize`, and the comparison of two runs."""

import numpy as np
from scipy.optimize import rosen, rosen_der, rosen_hess

import fastcurv as fc
from fastcurv.testing import FunctionObjective

MONKEY = FunctionObjective(
    2,
    lambda t: t[0] ** 3 - 3 * t[0] * t[1] ** 2,
    lambda t: [3 * t[0] ** 2 - 3 * t[1] ** 2, -6 * t[0] * t[1]],
    lambda t: [[6 * t[0], -6 * t[1]], [-6 * t[1], -6 * t[0]]],
)


def rosenbrock(n=6):
    return FunctionObjective(n, rosen, rosen_der, rosen_hess)


RANDOM_LOSSES = (
    "mse", "cross_entropy", "binary_cross_entropy", "poisson", "pseudo_huber", "gamma",
)  # fmt: skip
RANDOM_ACTIVATIONS = "tanh", "relu", "sigmoid", "softplus", "gelu", "leaky_relu"


def random_network(i):
    """Return the objective of a small random network, number i, and a start. Losses, activations,
    noise, weight decay, and starts at 0 and far away all occur.
    """
    rng = np.random.default_rng([7, i])
    loss, activation = RANDOM_LOSSES[i % 6], RANDOM_ACTIVATIONS[i // 6 % 6]
    N, d = int(rng.integers(10, 50)), int(rng.integers(1, 5))
    X = rng.standard_normal((N, d))
    score, noisy = X[:, :1] + 0.3 * X[:, -1:] ** 2, i % 5 < 2
    targets = {
        "poisson": lambda: rng.poisson(2.0, (N, 1)).astype(float),
        "gamma": lambda: rng.gamma(2.0, 1.0, (N, 1)),
        "binary_cross_entropy": lambda: rng.integers(0, 2, (N, 1)) if noisy else score > 0,
        "cross_entropy": lambda: (
            rng.integers(0, 3, N) if noisy else np.digitize(score[:, 0], [-0.5, 0.5])
        ),
    }
    y = targets.get(loss, lambda: rng.standard_normal((N, 1)) if noisy else score)()
    sizes = [d, int(rng.integers(2, 6)), 3 if loss == "cross_entropy" else 1]
    y = y if loss == "cross_entropy" else np.asarray(y, float)
    l2 = 1e-3 if i % 3 == 2 or i % 7 == 0 else 0.0
    ob = fc.Objective(fc.MLP(sizes, activation), X, y, loss, l2=l2)
    scale = 0.0 if i % 11 == 0 else 50.0 if i % 13 == 0 and loss in RANDOM_LOSSES[:3] else 1.0
    return ob, scale * ob.model.init(rng=i)


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
