"""Rounding bounds for wide networks, for every column of a dense matrix and for rows of the
Jacobian, with zeros among the numbers and with every table of kernels.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine as engine
from fastcurv._engine import testing_hooks as hooks
from fastcurv.certify.passes import gradient_bound, product_bound

from ..nets import DTYPES
from .bound_cases import KINDS, ORACLE
from .longdouble import Truth, size

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 3)


@pytest.mark.parametrize("k", [300, 784, 2000])
def test_bounds_hold_for_long_sums(arch, dtype, k):
    """Rounding bounds on gradient and product hold for a sum of 1 and many terms below eps, each of
    which is rounded in the same direction.
    """
    eps = float(np.finfo(dtype).eps)
    X = np.full((3, k), 0.4 * eps)
    X[:, 0] = 1
    ob = fc.Objective(fc.MLP([k, 1], bias=False, dtype=dtype), X, [0.9, 0.9, 0.9], loss="mse")
    ones = np.ones(k, dtype)
    truth, H = Truth(ob, ones), ob.hessian(ones)
    room = 1 + ORACLE / eps
    lost = abs(float(ob.model.predict(ones, X)[0, 0] - (1 + 0.4 * eps * (k - 1)))) / eps
    assert lost > 20 or arch == "blas"  # the error to be bounded is not negligible
    assert size(ob.gradient(ones) - truth.gradient) <= gradient_bound(ob, ones) * room
    assert size(H @ ones - truth.product(ones)) <= product_bound(ob, ones, ones) * room
    e = np.eye(k, dtype=dtype)[0]
    assert size(H @ e - truth.product(e)) <= H.column_error_bounds()[0] * room


def test_bounds_hold_for_sums_of_two_products_and_over_samples(arch, dtype):
    """Rounding bounds on gradient and product hold for sums over many samples, and for long sums
    ``ra W' + a V'`` over the units of a layer. Here ra is the derivative of the activations a along
    V.
    """
    for sizes, N in (([700, 600, 2], 4), ([3, 2, 2], 5000)):
        rng = np.random.default_rng(N)
        model = fc.MLP(sizes, activation="softplus", dtype=dtype)
        X = np.full((N, sizes[0]), 0.1)
        X[0] = 1
        ob = fc.Objective(model, X, rng.random((N, 2)), loss="mse")
        theta, v = np.full((2, model.n_params), 1 / sizes[0], dtype)
        truth, H = Truth(ob, theta), ob.hessian(theta)
        room = 1 + ORACLE / np.finfo(dtype).eps
        assert size(H.gradient - truth.gradient) <= gradient_bound(ob, theta) * room
        assert size(H @ v - truth.product(v)) <= product_bound(ob, theta, v) * room


def random_network(rng):
    """Return (objective, theta) of random shape, with some zeros among inputs and parameters."""
    depth, d = int(rng.integers(1, 5)), int(rng.integers(1, 8))
    hidden = rng.integers(1, 8, depth - 1).tolist() if rng.random() < 0.5 else [d] * (depth - 1)
    sizes = [d, *hidden, int(rng.integers(1, 5))]
    loss = str(rng.choice(list(engine.LOSSES)))
    model = fc.MLP(
        sizes,
        activation=tuple(rng.choice(list(engine.ACTIVATIONS), depth - 1).tolist()),
        bias=bool(rng.random() < 0.7),
        residual=bool(rng.random() < 0.5),
        dtype=str(rng.choice(DTYPES)),
    )
    N = int(rng.choice([1, 3, 20]))
    X = rng.standard_normal((N, d)) * (rng.random((N, d)) < 0.7)
    hard = loss == "cross_entropy" and rng.random() < 0.5
    y = rng.integers(0, sizes[-1], N) if hard else rng.random((N, sizes[-1]))
    weight = rng.uniform(0, 2, N) if rng.random() < 0.3 else None
    ob = fc.Objective(model, X, y, loss=loss, l2=rng.choice([0, 0.01]), sample_weight=weight)
    theta = model.init(rng=rng) * rng.choice([0.1, 1, 3])
    theta[rng.random(theta.size) < rng.choice([0, 0.3, 0.8])] = 0
    return ob, theta.astype(model.dtype)


@pytest.mark.parametrize("seed", range(6))
def test_bounds_hold_for_every_column_of_random_networks(seed, kernels):
    rng = np.random.default_rng(seed)
    for _ in range(10):
        kernels(str(rng.choice(engine.available_archs())))
        ob, theta = random_network(rng)
        kind = str(rng.choice(list(KINDS)))
        H, truth = getattr(ob, KINDS[kind])(theta), Truth(ob, theta)
        dense, bounds = H.to_dense(), H.column_error_bounds()
        for j, e in enumerate(np.eye(theta.size)):
            error = float(size(dense[:, j] - truth.product(e, kind)))
            assert error <= bounds[j] * (1 + ORACLE / np.finfo(ob.dtype).eps)


def test_column_bounds_hold_for_inactive_relu_units(dtype):
    """Rounding bounds on the columns of the Hessian hold if some relu units are inactive on all
    samples, and are positive for the incoming weights of the active unit.
    """
    model = fc.MLP([2, 3, 1], activation="relu", dtype=dtype, bias=False)
    theta = np.array([0, 0, 0, 0, 0, 0, 0.3, -0.7, 0.2], dtype)
    theta[:6] = [0.5, 0.5, -0.4, 0.1, -1, -1]
    ob = fc.Objective(model, [[1.1, 0.7], [0.9, 1.3]], [1 / 3, 1 / 7], loss="mse")
    H, truth = ob.hessian(theta), Truth(ob, theta)
    bounds = H.column_error_bounds()
    for j, e in enumerate(np.eye(9, dtype=dtype)):
        error = float(size(H @ e - truth.product(e)))
        assert error <= bounds[j] * (1 + ORACLE / np.finfo(dtype).eps)
    assert (bounds[[0, 1]] > 0).all()


def test_column_bounds_hold_for_wide_networks(dtype):
    """Rounding bounds on the columns of the Hessian hold for layers of up to 600 units, for twelve
    random columns that are compared with long double.
    """
    rng = np.random.default_rng(2)
    for sizes, act in (([20, 600, 3], "tanh"), ([600, 8, 300, 2], "gelu")):
        model = fc.MLP(sizes, activation=act, dtype=dtype)
        X = rng.standard_normal((12, sizes[0]))
        ob = fc.Objective(model, X, rng.integers(0, sizes[-1], 12))
        theta = model.init(rng=1)
        H, truth = ob.hessian(theta), Truth(ob, theta)
        bounds = H.column_error_bounds()
        for j in rng.choice(theta.size, 12, replace=False):
            e = np.zeros(theta.size, dtype)
            e[j] = 1
            error = float(size(H @ e - truth.product(e)))
            assert error <= bounds[j] * (1 + ORACLE / np.finfo(dtype).eps)
        assert bounds.max() < 1e10 * np.finfo(dtype).eps


def test_bounds_hold_for_rows_of_the_jacobian(dtype):
    """The rounding bound on each row ``J' e_i`` of the Jacobian holds against a backward pass in
    long double.
    """
    rng = np.random.default_rng(4)
    nets = [([4, 6, 6, 2], "gelu"), ([300, 5, 2], "relu"), ([3, 2], ())]
    for depth in (2, 3, 4, 6) * 3:
        widths = rng.integers(1, 9, depth) if rng.random() < 0.5 else np.full(depth, 5)
        acts = rng.choice(list(engine.ACTIVATIONS), depth).tolist()
        nets.append(([5, *widths.tolist(), 2], acts))
    for sizes, act in nets:
        model = fc.MLP(sizes, activation=act, residual=True, dtype=dtype)
        X = rng.standard_normal((5, sizes[0]))
        ob = fc.Objective(model, X, rng.random((5, 2)), loss="mse", sample_weight=rng.random(5))
        theta = model.init(rng=3) * np.dtype(dtype).type(2 if len(sizes) > 5 else 1)
        J, truth = ob.jacobian(theta), Truth(ob, theta)
        bounds = J.row_error_bounds()
        assert bounds.shape == (10,)
        for u, bound in zip(np.eye(10, dtype=dtype), bounds):
            error = float(size(J.T @ u - truth.backward(u.reshape(5, 2))[0]))
            assert error <= bound * (1 + ORACLE / np.finfo(dtype).eps)
        assert bounds.max() < 1e9 * np.finfo(dtype).eps


@pytest.mark.parametrize("seed", range(3))
def test_eigenvalues_of_float32_lie_within_the_bound(seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        sizes = rng.integers(1, 4, int(rng.integers(2, 5))).tolist()
        act = str(rng.choice(list(engine.ACTIVATIONS)))
        model = fc.MLP(sizes, activation=act, bias=bool(rng.random() < 0.5), dtype="float32")
        X = rng.standard_normal((5, sizes[0]))
        loss = str(rng.choice(list(engine.LOSSES)))
        ob = fc.Objective(model, X, rng.random((5, sizes[-1])), loss=loss)
        theta = model.init(rng=rng)
        theta[rng.random(theta.size) < rng.choice([0, 0.5])] = 0
        exact = ob.astype("float64").hessian(theta.astype(float)).to_dense()
        error = np.abs(fc.eigvalsh(ob.hessian(theta)) - np.linalg.eigvalsh(exact)).max()
        assert error <= fc.inertia(ob.hessian(theta)).error_bound


def test_constants_of_proofs_equal_those_of_kernels():
    """The epsilon of batch normalisation and the slope of leaky_relu have the same values in proofs
    and in kernels.
    """
    from fastcurv.structure import tables

    assert engine.BATCH_NORM_EPS == tables.BATCH_NORM_EPS
    a, slope, _ = hooks.activate(None, "leaky_relu", np.array([[-1.0, 1.0]]))
    assert slope[0, 0] == tables.ACTIVATIONS["leaky_relu"].leak == -a[0, 0]
