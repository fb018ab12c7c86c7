"""Losses, gradients, Hessians and Jacobians compared with closed forms."""

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
