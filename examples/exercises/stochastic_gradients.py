"""Exercises on stochastic gradients."""

# %% [markdown]
# **Exercise 1.** The rows of `G` are the gradients of the $N$ samples. A mini-batch of $b$ of them
# is drawn *without* replacement, and the mean of its gradients estimates that of all. What is the
# root of the mean squared error (of the norm of the difference)? Define `error(G, b)`; it must be
# right for every $b$ up to $N$. By which factor does it fall from $b = 1$ to $b = 100$, if $N$ is
# very large? Define `fall`.

# %% answer
# The variance of the mean of b draws, times 1 - b/N for draws without replacement: a batch of all
# samples has no error. Without that factor, a hundredfold batch divides the error by ten.
import numpy as np


def error(G, b):
    return np.sqrt(G.var(axis=0, ddof=1).sum() / b * (1 - b / len(G)))


fall = 10

# %% check
import fastcurv as fc

rng = np.random.default_rng(0)
X, y = rng.standard_normal((60, 5)), rng.integers(3, size=60)
ob = fc.Objective(fc.MLP([5, 4, 3], activation="tanh"), X, y)
theta = ob.model.init(seed=0)
G = np.array([ob.batch([row]).gradient(theta) for row in range(60)])
assert np.allclose(G.mean(axis=0), ob.gradient(theta))
for b in (1, 10, 30, 50, 60):
    draws = [G[rng.permutation(60)[:b]].mean(axis=0) - G.mean(axis=0) for _ in range(4000)]
    seen = np.sqrt(np.mean(np.sum(np.square(draws), axis=1)))
    assert np.isclose(error(G, b), seen, rtol=0.05, atol=1e-12), b
assert np.isclose(fall, 10)

# %% wrong


def error(G, b):
    return np.sqrt(G.var(axis=0, ddof=1).sum() / b)


# %% [markdown]
# **Exercise 2.** On $L(x) = \lambda x^2 / 2$, stochastic gradient descent with a constant rate
# $\eta$ takes steps $x - \eta (\lambda x + \varepsilon)$, where $\varepsilon$ is new noise of mean
# 0 and variance $\sigma^2$ each time. In the long run $x$ does not converge: it has a stationary
# variance. Derive `variance(rate, lam, sigma)`, exactly, and not only for small rates. What happens
# at $\eta = 2 / \lambda$?

# %% answer
# In the stationary state v = (1 - rate lam)^2 v + rate^2 sigma^2. At rate = 2/lam it is infinite.


def variance(rate, lam, sigma):
    return rate * sigma**2 / (lam * (2 - rate * lam))


# %% check
for rate, lam, sigma in ((0.1, 1.0, 1.0), (1.0, 1.0, 0.5), (0.5, 3.0, 2.0)):
    x = np.zeros(20_000)
    for _ in range(int(20 / (rate * lam)) + 50):
        x = x - rate * (lam * x + sigma * rng.standard_normal(x.size))
    assert np.isclose(variance(rate, lam, sigma), x.var(), rtol=0.06), (rate, lam)

# %% wrong


def variance(rate, lam, sigma):
    return rate * sigma**2 / (2 * lam)
