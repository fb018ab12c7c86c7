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
theta = ob.model.init(rng=0)
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


# %% [markdown]
# **Exercise 3.** In a layer with weights $W$, sample $i$ has the inputs $a_i$ and the derivatives
# $\delta_i$ of the loss by the outputs of the layer, so its gradient by $W$ is
# $\delta_i a_i^\top$. The rows of `a` and `delta` are these vectors for all samples of a
# mini-batch. Without a loop over the samples, define `layer_gradient(delta, a)`, the sum of their
# gradients, as one product of matrices, and `gradient_norms(delta, a)`, the norm of each sample's
# gradient, without computing these gradients.

# %% answer
# The sum of outer products is a product of matrices, and the norm of an outer product is the
# product of the norms.


def layer_gradient(delta, a):
    return delta.T @ a


def gradient_norms(delta, a):
    return np.linalg.norm(delta, axis=1) * np.linalg.norm(a, axis=1)


# %% check
model = fc.MLP([5, 3])
linear = fc.Objective(model, X, y, loss="cross_entropy")
theta = model.init(rng=0)
W, b = model.unflatten(theta)[0]
odds = np.exp(X @ W.T + b)
delta = (odds / odds.sum(axis=1, keepdims=True) - np.eye(3)[y]) / len(X)
assert np.allclose(layer_gradient(delta, X), model.unflatten(linear.gradient(theta))[0][0])
norms = [np.linalg.norm(np.outer(d, x)) for d, x in zip(delta, X)]
assert np.allclose(gradient_norms(delta, X), norms)

# %% wrong


def layer_gradient(delta, a):
    return delta.T @ a / len(a)
