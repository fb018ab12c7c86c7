"""Exercises on saddles and poor minima."""

# %% [markdown]
# **Exercise 1.** If the signs of $n$ eigenvalues were those of tossed coins, all would be positive
# with probability $2^{-n}$. Of a random symmetric matrix $A + A^\top$, with independent standard
# normal entries in $A$, they repel each other. Estimate the probability that all eigenvalues are
# positive for $n = 1, ..., 4$ by simulation, to 0.01. Define `chance`, an array of four numbers. Is
# it above or below $2^{-n}$, and what does this say about minima among the critical points of such
# a surface?

# %% answer
# It falls much faster than 2^-n: asymptotically as 3^(-n^2 / 4). Of many critical points in a space
# of many dimensions, next to none would be minima. The surfaces of networks are not so random.
import numpy as np

rng = np.random.default_rng(0)
chance = []
for n in range(1, 5):
    A = rng.standard_normal((20_000, n, n))
    lowest = np.linalg.eigvalsh(A + A.transpose(0, 2, 1))[:, 0]
    chance.append(np.mean(lowest > 0))

# %% check
exact = [1 / 2, (2 - 2**0.5) / 4, (np.pi - 2 * 2**0.5) / (4 * np.pi), 0.0016]
assert np.allclose(chance, exact, atol=0.01)
assert np.all(np.array(chance)[1:] < 0.5 ** np.arange(2, 5))

# %% wrong
chance = 0.5 ** np.arange(1, 5)

# %% [markdown]
# **Exercise 2.** A network with two hidden units is trained until it is at a minimum. Split its
# first unit into two: write `split(W1, b1, W2, share)`, which returns the three arrays of a network
# with three units that computes the same function, the third unit being a copy of the first that
# takes over a part `share` of its outgoing weight. The check shows that the wide network is at a
# critical point for *every* share, so that its critical points are not isolated.

# %% answer
# The outgoing weights of both copies add up to the old one. The derivatives by them are equal to
# the old one, and those by the incoming weights are multiples of the old ones: all are zero.


def split(W1, b1, W2, share):
    last = share * W2[:, :1]
    first = (1 - share) * W2[:, :1]
    W2 = np.hstack([first, W2[:, 1:], last])
    return np.vstack([W1, W1[:1]]), np.append(b1, b1[0]), W2


# %% check
import fastcurv as fc

X = np.random.default_rng(1).standard_normal((50, 3))
y = np.tanh(X[:, :1]) + np.tanh(X[:, 1:2] - 1) * np.tanh(X[:, 2:])
narrow = fc.Objective(fc.MLP([3, 2, 1], activation="tanh"), X, y, loss="mse")
wide = fc.Objective(fc.MLP([3, 3, 1], activation="tanh"), X, y, loss="mse")
theta = fc.minimize(narrow, rng=0).x
(W1, b1), (W2, b2) = narrow.model.unflatten(theta)
for share in (0.0, 0.3, -2.0):
    *layers, last = split(W1, b1, W2, share)
    copy = wide.model.flatten([layers, (last, b2)])
    assert np.allclose(wide.model.predict(copy, X), narrow.model.predict(theta, X))
    assert np.linalg.norm(wide.gradient(copy)) < 1e-5

# %% wrong


def split(W1, b1, W2, share):
    return np.vstack([W1, W1[:1]]), np.append(b1, b1[0]), np.hstack([W2, share * W2[:, :1]])
