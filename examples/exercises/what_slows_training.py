"""Exercises on what slows training."""

# %% [markdown]
# **Exercise 1.** Near a saddle, along the direction of a negative eigenvalue $-\lambda$, the loss
# is $-\lambda x^2 / 2$. Gradient descent with a rate $\eta$ starts at a distance $d$ from the
# saddle. After how many steps is it at distance 1? Derive `steps(d, lam, rate)`, a real number.
# Then compare two starts, $d = 10^{-1}$ and $d = 10^{-7}$, a million times closer: how many *times*
# as many steps does the second take? Define `times_as_long`.

# %% answer
# Each step multiplies x by 1 + rate lam. The number of steps grows with the logarithm of 1/d alone.
import numpy as np


def steps(d, lam, rate):
    return np.log(1 / d) / np.log1p(rate * lam)


times_as_long = steps(1e-7, 0.5, 0.1) / steps(1e-1, 0.5, 0.1)

# %% check
for d, lam, rate in ((1e-1, 1.0, 0.5), (1e-7, 0.5, 0.1), (1e-3, 0.01, 2.0)):
    x, taken = d, 0
    while x < 1:
        x, taken = x + rate * lam * x, taken + 1
    assert taken - 1 <= steps(d, lam, rate) <= taken + 1e-9
assert np.isclose(times_as_long, 7)

# %% wrong


def steps(d, lam, rate):
    return (1 - d) / (rate * lam * d)


# %% [markdown]
# **Exercise 2.** On a parabola whose eigenvalues lie between `low` and `high`, each step of
# gradient descent multiplies the component along an eigenvector by $1 - \eta \lambda$. Which
# constant rate makes the slowest component shrink fastest? Define `best_rate(low, high)`, and
# `factor(low, high)`, by which the slowest component shrinks at that rate. The check runs it on a
# linear network.

# %% answer
# The extremes 1 - rate low and rate high - 1 must be equal.


def best_rate(low, high):
    return 2 / (low + high)


def factor(low, high):
    return (high - low) / (high + low)


# %% check
import fastcurv as fc

for low, high in ((1.0, 10.0), (0.3, 0.5), (1e-3, 7.0)):
    tried = np.linspace(0, 2 / high, 200_001)[1:]
    slowest = np.maximum(abs(1 - tried * low), abs(1 - tried * high))
    assert np.isclose(best_rate(low, high), tried[np.argmin(slowest)], rtol=1e-4)
    assert np.isclose(factor(low, high), slowest.min(), rtol=1e-4)
X = np.random.default_rng(0).standard_normal((100, 4)) * [1, 2, 3, 4]
ob = fc.Objective(fc.MLP([4, 1], bias=False), X, X @ np.ones((4, 1)), loss="mse")
values = np.linalg.eigvalsh(ob.hessian(np.zeros(4)).to_dense())
theta = np.zeros(4)
for _ in range(200):
    theta = theta - best_rate(values[0], values[-1]) * ob.gradient(theta)
assert np.linalg.norm(theta - 1) <= 2.01 * factor(values[0], values[-1]) ** 200

# %% wrong


def best_rate(low, high):
    return 1 / high
