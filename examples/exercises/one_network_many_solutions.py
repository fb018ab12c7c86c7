"""Exercises on networks that compute the same."""

# %% [markdown]
# **Exercise 1.** The hidden units of a layer can be permuted, and the signs of the weights into and
# out of a tanh unit can be flipped, without a change of the function. How many copies has a network
# of the given layer widths, all of whose hidden layers have tanh? Define `n_copies(sizes)`. (How
# many are there of a network with two hidden layers of 100 units?)

# %% answer
# h! orders and 2^h choices of signs for each hidden layer; with two layers of 100 units (100!
# 2^100)^2, a number of 377 digits.
from math import factorial, prod


def n_copies(sizes):
    return prod(factorial(h) * 2**h for h in sizes[1:-1])


# %% check
from itertools import combinations, permutations

import numpy as np

import fastcurv as fc

model = fc.MLP([2, 3, 1], activation="tanh")
theta = model.init(rng=0)
signs = [units for k in range(4) for units in combinations(range(3), k)]
copies = {
    tuple(
        fc.structure.flip_tanh(model, fc.structure.permute_hidden(model, theta, 0, order), 0, units)
    )
    for order in permutations(range(3))
    for units in signs
}
X = np.random.default_rng(0).standard_normal((5, 2))
assert all(np.allclose(model.predict(copy, X), model.predict(theta, X)) for copy in copies)
assert n_copies([2, 3, 1]) == len(copies)
assert n_copies([9, 3, 2, 1]) == len(copies) * 8
assert len(str(n_copies([10, 100, 100, 10]))) == 377

# %% wrong


def n_copies(sizes):
    return prod(factorial(h) for h in sizes[1:-1])


# %% [markdown]
# **Exercise 2.** Two networks with relu have learnt the same function. Write `match(Wa, Wb)`, which
# returns an order of the units of the second that brings it as close as possible to the first. Row
# i of `Wa` holds all weights into and out of unit i of the first network, and likewise `Wb`: the
# order is an array of indices for which `np.linalg.norm(Wa - Wb[order])` is as small as it can be.
# Look for a method that need not try all orders.

# %% answer
# The squared distance is a sum over units: an assignment problem, solved in O(h^3).
from scipy.optimize import linear_sum_assignment


def match(Wa, Wb):
    cost = ((Wa[:, None] - Wb[None]) ** 2).sum(axis=2)
    return linear_sum_assignment(cost)[1]


# %% check
rng = np.random.default_rng(0)
for h in (3, 5, 6):
    Wa, Wb = rng.standard_normal((2, h, 4))
    order = match(Wa, Wb)
    assert sorted(order) == list(range(h))
    best = min(np.linalg.norm(Wa - Wb[list(p)]) for p in permutations(range(h)))
    assert np.isclose(np.linalg.norm(Wa - Wb[order]), best)
Wa = rng.standard_normal((60, 4))
shuffled = rng.permutation(60)
assert np.array_equal(Wa[shuffled][match(Wa, Wa[shuffled])], Wa)

# %% wrong


def match(Wa, Wb):
    sizes = np.linalg.norm(Wa, axis=1), np.linalg.norm(Wb, axis=1)
    return np.argsort(sizes[1])[np.argsort(np.argsort(sizes[0]))]
