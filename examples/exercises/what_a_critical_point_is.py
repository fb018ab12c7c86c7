"""Exercises on what a critical point is."""

# %% [markdown]
# **Exercise 1.** A network of one input, one hidden unit and one output, both linear, learns one
# sample: its loss is $L(w_1, w_2) = (1 - w_1 w_2)^2$. Derive its Hessian by hand, and from it the
# two eigenvalues at the points $(w_1, 1/w_1)$, where the loss is zero. At which of these points can
# gradient descent take the largest rate, if it converges for rates below 2 over the largest
# eigenvalue? Define `valley_eigenvalues(w1)`, which returns both, the lower one first, and
# `largest_rate`.

# %% answer
# The Hessian has 2 w2^2 and 2 w1^2 on its diagonal and 4 w1 w2 - 2 = 2 off it: it is 2 u u' with u
# = (w2, w1). Its largest eigenvalue is least where w1^2 + w1^-2 is, at w1 = 1 and -1.


def valley_eigenvalues(w1):
    return 0.0, 2 * (w1**2 + w1**-2)


largest_rate = 2 / valley_eigenvalues(1.0)[1]

# %% check
import numpy as np

import fastcurv as fc

toy = fc.Objective(fc.MLP([1, 1, 1], activation="identity", bias=False), [[1]], [[1]], loss="mse")
for w1 in (0.5, 1.0, 3.0, -2.0):
    exact = np.linalg.eigvalsh(toy.hessian([w1, 1 / w1]).to_dense())
    assert np.allclose(valley_eigenvalues(w1), exact), w1
assert np.isclose(largest_rate, 0.5)

# %% wrong


def valley_eigenvalues(w1):
    return 0.0, 2 * w1**2


# %% [markdown]
# **Exercise 2.** At a critical point the eigenvalues of the Hessian are 2 and 0. Is it a minimum?
# Write a function `f(x, y)` whose gradient at the origin is zero, whose Hessian there is
# $\mathrm{diag}(2, 0)$, and which takes values below `f(0, 0)` at every distance from the origin.

# %% answer
# Where the second-order term vanishes, a term of higher order decides.


def f(x, y):
    return x**2 - y**4


# %% check
h = 1e-3
gradient = [(f(h, 0) - f(-h, 0)) / (2 * h), (f(0, h) - f(0, -h)) / (2 * h)]
assert np.allclose(gradient, 0, atol=1e-5)
f_xx = (f(h, 0) - 2 * f(0, 0) + f(-h, 0)) / h**2
f_yy = (f(0, h) - 2 * f(0, 0) + f(0, -h)) / h**2
f_xy = (f(h, h) - f(h, -h) - f(-h, h) + f(-h, -h)) / (4 * h**2)
assert np.allclose([f_xx, f_xy, f_yy], [2, 0, 0], atol=1e-2)
angle = np.linspace(0, 2 * np.pi, 10_001)
for radius in (1e-1, 1e-2, 1e-3):
    assert min(f(radius * np.cos(angle), radius * np.sin(angle))) < f(0, 0)

# %% wrong


def f(x, y):
    return x**2 + y**4
