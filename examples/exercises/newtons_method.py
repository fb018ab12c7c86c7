"""Exercises on Newton's method."""

# %% [markdown]
# **Exercise 1.** Derive Newton's step for logistic regression without bias and without weight
# decay: inputs `X` of shape (N, d), labels `y` of 0 and 1, weights `w`, the mean of the
# cross-entropy as loss. Define `newton_step(X, y, w)` with NumPy alone. Why is the Hessian never
# indefinite here?

# %% answer
# With p = sigmoid(Xw): g = X'(p - y) / N and H = X' diag(p (1 - p)) X / N, a sum of squares.
import numpy as np


def newton_step(X, y, w):
    p = 1 / (1 + np.exp(-X @ w))
    H = X.T @ (X * (p * (1 - p))[:, None]) / len(X)
    return -np.linalg.solve(H, X.T @ (p - y) / len(X))


# %% check
import fastcurv as fc

rng = np.random.default_rng(0)
X = rng.standard_normal((200, 4)) * [1, 10, 0.1, 1]
y = (X @ [1, 0.1, 10, 0] + rng.standard_normal(200) > 0).astype(float)
ob = fc.Objective(fc.MLP([4, 1], bias=False), X, y, loss="binary_cross_entropy")
for w in (np.zeros(4), np.array([0.5, -0.05, 2.0, 0.3])):
    assert np.allclose(
        newton_step(X, y, w), fc.newton_step(ob.hessian(w), ob.gradient(w)), rtol=1e-5
    )
w = np.zeros(4)
for _ in range(8):
    w = w + newton_step(X, y, w)
assert np.linalg.norm(ob.gradient(w)) < 1e-12

# %% wrong


def newton_step(X, y, w):
    p = 1 / (1 + np.exp(-X @ w))
    return -np.linalg.solve(X.T @ X / len(X), X.T @ (p - y) / len(X))


# %% [markdown]
# **Exercise 2.** For a large network the matrix $H$ cannot be stored, but products $H v$ can be
# computed. Write `solve(product, b, n_products)`, which solves $H x = b$ for a positive definite
# $H$ by conjugate gradients, from zero, with at most `n_products` calls of `product(v)`. The check
# gives it as many products as $H$ has distinct eigenvalues.

# %% answer


def solve(product, b, n_products):
    x = np.zeros_like(b)
    residual, direction = b.copy(), b.copy()
    for _ in range(n_products):
        Hd = product(direction)
        length = (residual @ residual) / (direction @ Hd)
        x = x + length * direction
        new = residual - length * Hd
        direction = new + (new @ new) / (residual @ residual) * direction
        residual = new
    return x


# %% check
Q = np.linalg.qr(rng.standard_normal((60, 60)))[0]
H = Q @ np.diag(np.repeat([1.0, 2.0, 5.0, 100.0], 15)) @ Q.T
b, calls = rng.standard_normal(60), []


def counted(v):
    calls.append(v)
    return H @ v


x = solve(counted, b, 4)
assert len(calls) <= 4
assert np.linalg.norm(H @ x - b) < 1e-8 * np.linalg.norm(b)
ridge = fc.Objective(ob.model, X, y, loss="binary_cross_entropy", l2=0.1)
H, g = ridge.hessian(np.zeros(4)), ridge.gradient(np.zeros(4))
assert np.allclose(solve(lambda v: H @ v, -g, 4), fc.newton_step(H, g), rtol=1e-5)

# %% wrong


def solve(product, b, n_products):
    x = np.zeros_like(b)
    for _ in range(n_products):
        residual = b - product(x)
        if not residual.any():
            break
        x = x + residual / 100
    return x
