"""Losses, gradients, Hessians and Jacobians compared with closed forms."""

import itertools

import numpy as np
import pytest

from fastcurv import MLP, Objective

pytestmark = pytest.mark.by_day(share=1 / 2)


def test_two_weight_network_has_its_known_saddle():
    """The loss (1 - w2 w1)^2 has value 1, gradient 0 and the Hessian [[0, -2], [-2, 0]] at 0. The
    loss decreases along (1, 1) and (-1, -1), and increases along (1, -1).
    """
    ob = Objective(MLP([1, 1, 1], "identity", bias=False), [[1.0]], [1.0], loss="mse")
    H = ob.hessian(np.zeros(2))
    assert H.to_dense().tolist() == [[0, -2], [-2, 0]]
    assert H.value == 1 and H.gradient.tolist() == [0, 0]
    assert np.linalg.eigvalsh(H.to_dense()).tolist() == [-2, 2]
    down = np.array([0.5, 0.5])
    assert ob.value(down) < 1 and ob.value(-down) < 1 and ob.value(down * [1, -1]) > 1


@pytest.mark.parametrize("d_out", [1, 3])
def test_ridge_regression_has_its_known_hessian(rng, d_out):
    """For one layer, mse and sample weights w, the Hessian consists of the blocks 2 / (N d_out) A'
    diag(w) A + l2 I, where A is X with a column of ones. One Newton step reaches the minimum.
    """
    N, d, l2 = 33, 7, 0.25
    X, y = rng.standard_normal((N, d)), rng.standard_normal((N, d_out))
    w = rng.uniform(0.5, 2, N)
    model = MLP([d, d_out])
    H = Objective(model, X, y, "mse", l2=l2, sample_weight=w).hessian(
        rng.standard_normal(model.n_params)
    )
    A = np.c_[X, np.ones(N)]
    block = 2 / (N * d_out) * A.T @ (w[:, None] * A)
    true = np.zeros((model.n_params,) * 2)
    for j in range(d_out):
        places = np.r_[np.arange(j * d, (j + 1) * d), d_out * d + j]
        true[np.ix_(places, places)] = block
    true += l2 * np.eye(model.n_params)
    assert np.linalg.norm(H.to_dense() - true) <= 1e-13 * np.linalg.norm(true)
    minimum = H.theta - np.linalg.solve(true, H.gradient)
    assert np.linalg.norm(H.objective.gradient(minimum)) <= 1e-12 * np.linalg.norm(H.gradient)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_linear_autoencoder_has_its_known_critical_points(rng, k):
    """For a 5-2-5 linear network without biases, the projection onto any k of the 5 principal
    directions is a critical point with the known loss and numbers of negative and zero eigenvalues.
    """
    n, p, N = 5, 2, 40
    Q = np.linalg.qr(rng.standard_normal((N, n)))[0]
    U = np.linalg.qr(rng.standard_normal((n, n)))[0]
    lam = np.array([5.0, 4, 3, 2, 1])
    X = np.sqrt(N) * (Q * np.sqrt(lam)) @ U.T
    ob = Objective(MLP([n, p, n], "identity", bias=False), X, X, "mse")
    for chosen in itertools.combinations(range(n), k):
        W1, W2 = np.zeros((p, n)), np.zeros((n, p))
        W1[:k], W2[:, :k] = U[:, chosen].T, U[:, chosen]
        H = ob.hessian(ob.model.flatten([(W1, None), (W2, None)]))
        left = [j for j in range(n) if j not in chosen]
        eigenvalues = np.linalg.eigvalsh(H.to_dense())
        zero = 1e-10 * abs(eigenvalues).max()
        assert abs(H.value - lam[left].sum() / n) <= 1e-12
        assert np.linalg.norm(H.gradient) <= 1e-12
        assert (eigenvalues < -zero).sum() == sum(lam[j] > lam[i] for i in chosen for j in left) + (
            p - k
        ) * (n - k)
        assert (abs(eigenvalues) <= zero).sum() == k**2 + 2 * k * (p - k)


@pytest.mark.parametrize(
    "activation, slope", [("tanh", 1.0), ("sigmoid", 0.25), ("gelu", 0.5), ("elu", 1.0)]
)
def test_a_unit_of_zero_weights_adds_its_known_block(rng, problem, activation, slope):
    """If a unit's incoming weights are zero, H is zero between them, and equals phi'(0) sum_n
    delta_n x_n' between outgoing and incoming weights, for output gradients delta_n and inputs x_n.
    """
    d, m, c, N = 4, 3, 2, 17
    small = problem(rng, [d, m, c], activation, "mse", N, bias=False)
    (W1, _), (W2, _) = small.model.unflatten(small.theta)
    model = MLP([d, m + 1, c], activation, bias=False)
    U1, U2 = np.r_[W1, np.zeros((1, d))], np.c_[W2, np.zeros(c)]
    if activation == "sigmoid":  # phi(0) is not 0, so the output depends on the outgoing weight
        U2[:, -1] = 0
    H = (
        Objective(model, small.X, small.y, "mse")
        .hessian(model.flatten([(U1, None), (U2, None)]))
        .to_dense()
    )
    into = m * d + np.arange(d)
    out = (m + 1) * d + np.arange(c) * (m + 1) + m
    delta = 2 / (N * c) * (small.model.predict(small.theta, small.X) - small.y)
    B = slope * delta.T @ small.X
    assert np.abs(H[np.ix_(into, into)]).max() <= 1e-15
    assert np.linalg.norm(H[np.ix_(out, into)] - B) <= 1e-13 * np.linalg.norm(B)
    assert np.linalg.eigvalsh(H)[0] < 0


@pytest.mark.parametrize(
    "activation, first, second",
    [("relu", 0.0, 0.0), ("leaky_relu", 0.01, 0.0), ("elu", 1.0, 1.0), ("tanh", 1.0, 0.0)],
)
def test_hessian_at_a_kink_uses_left_derivatives(arch, activation, first, second):
    """In a 1-1-1 network with z = 0 and the loss (w2 phi(w1) - 1)^2, gradient and Hessian are those
    of the formula with the left derivatives phi'(0) and phi''(0).
    """
    ob = Objective(MLP([1, 1, 1], activation, bias=False), [[1.0]], [1.0], loss="mse")
    H = ob.hessian(np.array([0.0, 3.0]))
    e = -2.0
    true = np.array([[2 * (3 * first) ** 2 + 3 * e * second, e * first], [e * first, 0]])
    assert np.abs(H.to_dense() - true).max() <= 4 * np.finfo(float).eps * np.abs(true).max()
    assert np.abs(H.gradient - [3 * e * first, 0]).max() <= 1e-15


def test_fisher_equals_mean_of_gradient_outer_products(rng, problem):
    """The empirical Fisher matrix equals the mean of the outer products of the gradients of single
    samples, each computed by its own objective without l2.
    """
    p = problem(rng, [3, 4, 2], "gelu", "binary_cross_entropy", 9, weights=True, l2=0.5)
    single = np.stack([p.ob.batch([i]).gradient(p.theta) - 0.5 * p.theta for i in range(9)])
    true = single.T @ single / 9
    assert np.linalg.norm(
        p.ob.empirical_fisher(p.theta).to_dense() - true
    ) <= 1e-13 * np.linalg.norm(true)


@pytest.mark.parametrize("rows", [2, 40])
@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_jacobian_of_a_linear_map_equals_its_input(rows, kind):
    """The dense Jacobian of the outputs ``x W' + b`` consists exactly of the entries of x, ones and
    zeros, whether it has fewer rows or fewer columns.
    """
    X = np.random.default_rng(0).standard_normal((rows, 3)).astype(kind)
    model = MLP([3, 2], dtype=kind)
    J = Objective(model, X, np.zeros((rows, 2)), loss="mse").jacobian(model.init(rng=0))
    known = np.zeros((rows, 2, 8), kind)
    for out in range(2):
        known[:, out, 3 * out : 3 * out + 3], known[:, out, 6 + out] = X, 1
    dense = J.to_dense()
    assert dense.dtype == kind and np.array_equal(dense, known.reshape(-1, 8))
