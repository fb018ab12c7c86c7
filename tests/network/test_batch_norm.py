"""Batch normalisation: every product against complex steps through the statistics, torch in
training mode, and its own symmetries.
"""

import itertools

import numpy as np
import pytest

import fastcurv as fc

from ..nets import ACTIVATIONS, KERNELS, every_activation
from .product_cases import agrees_with_torch, compare, normed, torch_net, truth

SLACK = {"float64": 2e-11, "float32": 1e-3}


def check(p, what=""):
    known = truth(p.ref, p.theta, p.V, p.u)
    compare(p, known, p.V, p.u, SLACK[p.model.dtype.name], what)


def test_every_combination(arch, dtype):
    """Activations and losses against each other, with and without bias, residual, weights and l2,
    widths around vectors and tiles.
    """
    widths, batches = itertools.cycle([1, 3, 8, 9, 17, 33]), itertools.cycle([5, 17, 64, 65, 130])
    for i, (activation, loss) in enumerate(itertools.product(ACTIVATIONS, KERNELS)):
        a, b, c = next(widths), next(widths), next(widths)
        sizes = [a, b, b, c] if i % 2 else [a, c, b, 3]
        check(
            normed(
                sizes,
                activation,
                loss,
                next(batches),
                bias=i % 3 != 0,
                residual=i % 2 == 1,
                weights=i % 4 == 0,
                l2=0.1 * (i % 5 == 0),
                dtype=dtype,
            ),
            (activation, loss, sizes),
        )


def test_large_and_mixed(arch, dtype):
    check(
        normed(
            [20, 65, 65, 40, 10],
            ["tanh", "gelu", "relu"],
            "cross_entropy",
            300,
            residual=True,
            l2=1e-3,
            dtype=dtype,
        )
    )


@every_activation
def test_torch_double_backward_in_training_mode(activation):
    """torch's own modules, BatchNorm1d between Linear and activation."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    p = normed([7, 9, 8, 5], activation, KERNELS[ACTIVATIONS.index(activation) % 3], 17, l2=0.05)
    net = torch_net(torch, p.model, p.theta)
    agrees_with_torch(torch, net, p.ob, p.theta, p.V[:, 0])
    # what evaluation mode makes of the statistics: torch keeps a running unbiased variance, from 1,
    # with momentum 0.1
    known = p.model.statistics(p.ob, p.theta)
    for norm, (mean, variance) in zip(
        [part for part in net if isinstance(part, nn.BatchNorm1d)], known
    ):
        assert np.allclose(norm.running_mean.numpy(), 0.1 * mean, rtol=1e-12, atol=1e-14)
        assert np.allclose(
            norm.running_var.numpy(), 0.9 + 0.1 * variance * 17 / 16, rtol=1e-12, atol=0
        )
        norm.running_mean[:], norm.running_var[:] = torch.tensor(mean), torch.tensor(variance)
    rows = np.random.default_rng(1).standard_normal((4, 7))
    with torch.no_grad():
        outputs = net.eval()(torch.tensor(rows)).numpy()
    assert np.allclose(p.model.predict(p.theta, rows, known), outputs, rtol=1e-11, atol=1e-13)


def test_predict_and_statistics(dtype):
    """Without statistics the rows at hand make their own; with those of the training rows each row
    stands alone.
    """
    p = normed([4, 9, 9, 3], "silu", N=50, residual=True, dtype=dtype)
    tight = 100 * np.finfo(dtype).eps
    known, X, theta = p.model.statistics(p.ob, p.theta), p.ob.X, p.theta.astype(np.float64)
    outputs = p.model.predict(p.theta, X)
    assert (
        np.abs(outputs - p.ref.model.predict(theta, p.ref.X)).max() <= tight * np.abs(outputs).max()
    )
    z = p.ref.X @ p.ref.model.unflatten(theta)[0][0].T + p.ref.model.unflatten(theta)[0][1]
    assert np.allclose(known[0][0], z.mean(axis=0), rtol=tight, atol=tight)
    assert np.allclose(known[0][1], z.var(axis=0), rtol=tight, atol=0)
    for rows in (slice(0, 1), slice(10, 17), slice(None)):
        assert (
            np.abs(p.model.predict(p.theta, X[rows], known) - outputs[rows]).max()
            <= tight * np.abs(outputs).max()
        )
    assert all(part.dtype == p.model.dtype for pair in known for part in pair)
    us = p.model.preactivations(p.theta, X)
    for u, true in zip(us, p.ref.model.preactivations(theta, p.ref.X)):
        assert np.abs(u - true).max() <= tight * np.abs(true).max()


def test_hessian_is_symmetric_and_blind_to_biases_below_the_mean():
    """<U, HV> = <HU, V>; what the mean cancels gives zeros to the last bit, in gradient, products
    and Jacobian.
    """
    p = normed([5, 8, 7, 3], "gelu", "cross_entropy", 40)
    H, J = p.ob.hessian(p.theta), p.ob.jacobian(p.theta)
    dense = np.stack([H @ e for e in np.eye(p.n)], axis=1)
    assert np.abs(dense - dense.T).max() <= 1e-13 * np.abs(dense).max()
    assert np.abs(H @ np.eye(p.n) - dense).max() <= 1e-14 * np.abs(dense).max()
    assert np.allclose(np.einsum("ij,ij->j", p.V, dense @ p.V), H.quadratic(p.V), rtol=1e-11)
    b = np.zeros(p.n, bool)
    for l in range(2):
        m, k = p.model.shapes[l]
        b[p.model.starts[l] + m * k :][:m] = True
    assert (
        b.sum() == 15 and not dense[b].any() and not dense[:, b].any() and not H.gradient[b].any()
    )
    assert not (J @ b.astype(float)).any() and not (J.T @ p.u.ravel())[b].any()
    shifted = p.theta + 3.0 * b
    assert p.ob.value(shifted) == p.ob.value(p.theta)
    ridge = fc.Objective(p.model, p.ob.X, p.ob.y, l2=0.5)
    assert np.array_equal((ridge.hessian(p.theta) @ p.V)[b], 0.5 * p.V[b])
    assert np.array_equal(ridge.gradient(p.theta)[b], 0.5 * p.theta[b])


def test_blocks():
    """Restricted to layers or indices the products are those of the dense matrix, with statistics
    moving all the same.
    """
    p = normed([6, 9, 9, 5, 4], "tanh", "mse", 70, residual=True, l2=0.1)
    for make in (p.ob.hessian, p.ob.ggn):
        A = make(p.theta)
        dense, starts, rng = A.to_dense(), p.model.starts, np.random.default_rng(0)
        for layers in ([0], [1], [3], [0, 2], [1, 3]):
            rows = np.concatenate([np.arange(starts[l], starts[l + 1]) for l in layers])
            block, wanted = A.restrict(layers=layers), dense[np.ix_(rows, rows)]
            v = rng.standard_normal(len(rows))
            assert np.array_equal(block.indices, rows)
            assert np.linalg.norm(block @ v - wanted @ v) <= 1e-12 * np.linalg.norm(wanted @ v)
            assert abs(block.quadratic(v) - v @ wanted @ v) <= 1e-12 * np.linalg.norm(
                v
            ) * np.linalg.norm(wanted @ v)
        rows = rng.permutation(p.n)[:40]
        assert (
            np.abs(A.restrict(indices=rows).to_dense() - dense[np.ix_(rows, rows)]).max()
            <= 1e-13 * np.abs(dense).max()
        )


def test_a_model_with_batch_norm_is_described():
    model = fc.MLP([3, 5, 4, 2], "relu", bias=False, batch_norm=True)
    assert model.n_params == 15 + 10 + 20 + 8 + 8 and "batch_norm=True" in repr(model)
    assert model != fc.MLP([3, 5, 4, 2], "relu", bias=False) and model == fc.MLP(
        [3, 5, 4, 2], "relu", bias=False, batch_norm=True
    )
    theta = model.init(seed=0)
    layers = model.unflatten(theta)
    assert [len(layer) for layer in layers] == [4, 4, 2] and all(
        layer[1] is None for layer in layers
    )
    assert (
        (layers[0][2] == 1).all()
        and (layers[0][3] == 0).all()
        and np.shares_memory(layers[1][2], theta)
    )
    assert np.array_equal(model.flatten(layers), theta)
    assert np.array_equal(
        model.init(seed=0)[:15], fc.MLP([3, 5, 4, 2], "relu", bias=False).init(seed=0)[:15]
    )
    single = fc.MLP([3, 2], batch_norm=True)  # no hidden layer: nothing to normalise
    assert single.n_params == 8 and fc.MLP([3, 2]).n_params == 8


def test_bad_input():
    model, plain = fc.MLP([3, 4, 2], batch_norm=True), fc.MLP([3, 4, 2])
    X = np.random.default_rng(0).standard_normal((6, 3))
    ob, theta = fc.Objective(model, X, X[:, :2], loss="mse"), model.init(seed=0)
    with pytest.raises(ValueError, match="no sample a gradient of its own"):
        ob.empirical_fisher(theta)
    with pytest.raises(TypeError, match="batch_norm is 1"):
        fc.MLP([3, 4, 2], batch_norm=1)
    with pytest.raises(ValueError, match="wanted an Objective of"):
        plain.statistics(ob, plain.init(seed=0))
    with pytest.raises(ValueError, match="without batch normalisation"):
        fc.Objective(plain, X, X[:, :2], loss="mse").statistics(plain.init(seed=0))
    with pytest.raises(ValueError, match="without batch normalisation"):
        plain.statistics(fc.Objective(plain, X, X[:, :2], loss="mse"), plain.init(seed=0))
    with pytest.raises(ValueError, match="the model has no biases"):
        fc.MLP([3, 4, 2], bias=False).flatten(plain.unflatten(plain.init(seed=0)))
    with pytest.raises(ValueError, match="without batch normalisation"):
        plain.predict(plain.init(seed=0), X, [(np.zeros(4), np.ones(4))])
    with pytest.raises(ValueError, match="for each hidden layer"):
        model.predict(theta, X, [(np.zeros(3), np.ones(3))])
    with pytest.raises(ValueError, match="negative variance"):
        model.predict(theta, X, [(np.zeros(4), -np.ones(4))])
    with pytest.raises(ValueError, match=r"wanted 4, \(W, b, gamma, beta\)"):
        model.flatten(plain.unflatten(plain.init(seed=0)))
    with pytest.raises(ValueError, match="gamma of layers"):
        model.flatten(
            [
                (np.zeros((4, 3)), np.zeros(4), np.zeros(3), np.zeros(4)),
                (np.zeros((2, 4)), np.zeros(2)),
            ]
        )
