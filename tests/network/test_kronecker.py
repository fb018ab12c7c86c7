"""Layer coordinates of a network, compared with Kronecker products formed from the Jacobian and
with the identities of their four maps.
"""

import numpy as np
import pytest
from numpy.linalg import norm

import fastcurv as fc
from fastcurv.network import kronecker
from fastcurv.network.engine_steps import engine_steps_of
from tests import nets

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 2)


def fitted(net):
    made = engine_steps_of(net.ob).kronecker_coordinates()
    made.fit(net.theta)
    return made


def matrix_of(made, which):
    """Return the matrix (n, n) of the linear map of vectors that the method named `which` of the
    coordinates `made` computes.
    """
    return getattr(made, which)(np.eye(made.model.n_params, dtype=made.model.dtype)).T


def explicit_inverse(net, second):
    """Return, for each layer, the two damped factors whose Kronecker product is the inverse of P
    P', where P is the matrix of `to_theta`. `second` (N,) is the loss's second derivative in the
    single output. The factors are formed from the layer's inputs and the Jacobian's columns for its
    biases, which are the derivatives of the output with respect to z.
    """
    model, N = net.ob.model, net.ob.n_samples
    J, a, blocks = net.ob.jacobian(net.theta).to_dense(), net.ob.X, []
    zs = model.preactivations(net.theta, net.ob.X)
    for l, (m, k) in enumerate(model.shapes):
        b = model.starts[l] + m * k
        u = J[:, b : b + m] * np.sqrt(second / N)[:, None]
        x = np.column_stack([a, np.ones(N)])
        G, A = u.T @ u, x.T @ x / N
        g, s = np.trace(G) / m, np.trace(A) / (k + 1)
        share = kronecker.DAMPING_FRACTION + np.sqrt(net.ob.l2 / (g * s))
        blocks.append((G + share * g * np.eye(m), A + share * s * np.eye(k + 1)))
        if l < len(zs) - 1:
            above = fc._engine.activate(model.activation[l], zs[l])
            a = above + a if model.skips[l] else above
    return blocks


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize("loss", ["mse", "poisson"])
def test_coordinate_maps_invert_the_kronecker_products(loss, activation, residual, rng):
    """For one output, where random signs of the outputs cancel, and coordinates computed from all
    samples, P P' equals the inverse of the explicit Kronecker products.
    """
    net = nets.draw(rng, [4, 4, 4, 1], activation, loss, N=90, l2=0.01, residual=residual)
    z = net.ob.model.preactivations(net.theta, net.ob.X)[-1][:, 0]
    second = np.full(90, 2.0) if loss == "mse" else np.exp(z)
    made, model = fitted(net), net.ob.model
    P = matrix_of(made, "to_theta")
    for l, (G, A) in enumerate(explicit_inverse(net, second)):
        here = slice(model.starts[l], model.starts[l + 1])
        m, k = model.shapes[l]
        order = np.arange(m * (k + 1)).reshape(
            m, k + 1
        )  # from the order [W b] by rows to W, then b
        order = np.concatenate([order[:, :k].ravel(), order[:, k]])
        wanted = np.kron(np.linalg.inv(G), np.linalg.inv(A))[np.ix_(order, order)]
        assert norm(P[here] @ P[here].T - wanted) <= 1e-9 * norm(wanted)


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("loss", nets.LOSSES)
@pytest.mark.parametrize("bias", [True, False])
def test_the_four_coordinate_maps_are_inverse_and_adjoint(bias, loss, dtype, rng):
    """`to_theta` and `from_theta` are inverse, as are `to_gradient` and `from_gradient`, and
    `to_gradient` is the transpose of `to_theta`. Results for rows of vectors equal those for single
    vectors.
    """
    net = nets.draw(rng, [3, 9, 5, 2], "tanh", loss, N=40, l2=0.1, dtype=dtype, bias=bias)
    made = fitted(net)
    made.limit_first_step(net.ob.gradient(net.theta))
    x, g = rng.standard_normal((2, 3, net.ob.n_params)).astype(dtype)
    P = matrix_of(made, "to_theta").astype(float)
    slack = 1e3 * nets.EPS[dtype] * np.linalg.cond(P)
    assert norm(made.from_theta(made.to_theta(x)) - x) <= slack * norm(x)
    assert norm(made.to_gradient(made.from_gradient(g)) - g) <= slack * norm(g)
    assert norm(made.to_theta(x) - x @ P.T) <= slack * norm(x @ P.T)
    assert norm(made.to_gradient(g) - g @ P) <= slack * norm(g @ P)
    alone = np.stack([made.to_theta(row) for row in x])
    assert norm(alone - made.to_theta(x)) <= slack * norm(alone)
    first = made.to_theta(made.to_gradient(net.ob.gradient(net.theta)))
    assert norm(first) <= min(1.0, norm(net.ob.gradient(net.theta))) * (1 + slack)


def test_losses_without_positive_curvature_use_gradient_factors(rng):
    """For gaussian_nll, whose curvature may be negative, and a single sample, the factor of the
    last layer is the damped outer product of that sample's output gradient.
    """
    X, model = rng.standard_normal((1, 3)), fc.MLP([3, 2], dtype="float64")
    ob = fc.Objective(model, X, rng.standard_normal((1, 1)), "gaussian_nll")
    theta = model.init(rng=0)
    made = engine_steps_of(ob).kronecker_coordinates()
    made.widest = 4
    made.fit(theta)
    L, _ = made.factors[0][0]
    delta = model.unflatten(ob.gradient(theta))[0][1]
    G = np.outer(delta, delta)
    assert np.allclose(L @ L.T, G + kronecker.DAMPING_FRACTION * np.trace(G) / 2 * np.eye(2))


def test_wide_layers_use_diagonal_factors(rng):
    """A layer whose number of inputs exceeds half the number of samples has a diagonal factor: the
    damped root mean square of each input.
    """
    net = nets.draw(rng, [30, 4, 1], "tanh", "mse", N=40)
    left, right = fitted(net).factors[0]
    assert left[0].shape == (4, 4) and right[0].shape == (31,)
    squares = np.append((net.ob.X**2).mean(axis=0), 1.0)
    assert np.allclose(right[0] ** 2, squares + kronecker.DAMPING_FRACTION * squares.mean())
    P = matrix_of(fitted(net), "to_theta")
    assert np.linalg.matrix_rank(P) == net.ob.n_params


def test_dead_units_keep_coordinates_finite(rng):
    """For theta = 0, where no hidden unit affects the output, the first factor of the first layer
    is the identity, and all coordinates are finite.
    """
    model = fc.MLP([3, 4, 1], "relu")
    ob = fc.Objective(model, rng.standard_normal((30, 3)), rng.standard_normal(30), "mse")
    theta = np.zeros(model.n_params)
    made = engine_steps_of(ob).kronecker_coordinates()
    made.fit(theta)
    assert np.array_equal(made.factors[0][0][0], np.ones(4))
    assert np.isfinite(matrix_of(made, "to_theta")).all()


def test_coordinates_for_weights_that_are_all_zero_are_the_parameters(rng):
    """With sample weights that are all 0 the loss has no curvature to divide by."""
    model = fc.MLP([3, 4, 1])
    X, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 1))
    ob = fc.Objective(model, X, y, "mse", l2=0.1, sample_weight=np.zeros(20))
    made = engine_steps_of(ob).kronecker_coordinates()
    made.fit(model.init(rng=0))
    for which in ("to_theta", "from_theta"):
        assert np.array_equal(matrix_of(made, which), np.eye(model.n_params))
