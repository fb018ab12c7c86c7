"""Outputs of a network with the derivatives of each sample's loss, and objectives with replaced
sample weights.
"""

import gc

import numpy as np
import pytest
import scipy.sparse

import fastcurv as fc
from fastcurv.structure.tables import loss_spec, one_hot

from .. import nets

EVERY = (*nets.LOSSES, "gaussian_nll")


def user_loss(z, y):
    """Return the loss exp(z) - y z (N,) and its first and second derivatives (N, d), as `fc.Loss`
    expects.
    """
    e = np.exp(z)
    return (e - y * z).sum(axis=1), e - y, e


def drawn(rng, loss):
    """Return a random network with the given loss and sample weights, some of which are 0."""
    d, kind = (4, "mse") if loss == "gaussian_nll" else (3, loss)
    net = nets.draw(rng, [4, 5, d], "tanh", kind, N=25, l2=0.1)
    if kind != loss:
        net.y, net.options["loss"] = net.y[:, :2], loss
    net.weight = rng.uniform(0.5, 2, 25) * (rng.random(25) < 0.8)
    net.ob = net.objective()
    return net


def full_hessians(second):
    """Return second derivatives, given as diagonals (N, d) or as matrices (N, d, d), as an array of
    shape (N, d, d).
    """
    return second if second.ndim == 3 else second[:, :, None] * np.eye(second.shape[1])


def test_outputs_have_the_derivatives_of_each_samples_loss(rng):
    """The first derivatives that `outputs` returns match the formulas of each loss, and the second
    derivatives match complex steps of these formulas. Both are 0 for samples of weight 0.
    """
    for loss in EVERY:
        net = drawn(rng, loss)
        z, first, second = net.ob.outputs(net.theta)
        row, d = loss_spec(loss), z.shape[1]
        y = one_hot(net.ob.y, d) if net.ob.y.ndim == 1 else net.ob.y
        w = net.weight[:, None] / row.terms_of_row(d)
        assert np.abs(z - net.model.predict(net.theta, net.X)).max() <= 1e-13
        assert np.abs(first - w * row.terms(z, y)[1]).max() <= 1e-14, loss
        step = 1e-100
        for k in range(d):
            moved = z + 1j * step * (np.arange(d) == k)
            slope = row.terms(moved, y)[1].imag / step
            assert np.abs(full_hessians(second)[:, k] - w * slope).max() <= 1e-13, loss
        assert not first[net.weight == 0].any() and not second[net.weight == 0].any()


def test_outputs_give_the_gradient_and_the_ggn(rng):
    for loss in (*nets.LOSSES, fc.Loss(user_loss)):
        net = drawn(rng, loss if isinstance(loss, str) else "mse")
        ob = net.objective(loss=loss)
        z, first, second = ob.outputs(net.theta)
        J = ob.jacobian(net.theta).to_dense()
        N, d = z.shape
        g = J.T @ first.ravel() / N + ob.l2 * net.theta
        assert np.abs(g - ob.gradient(net.theta)).max() <= 1e-13
        rows = J.reshape(N, d, -1)
        G = np.einsum("nia,nij,njb->ab", rows, full_hessians(second), rows) / N + ob.l2 * np.eye(
            net.n
        )
        assert np.abs(G - ob.ggn(net.theta).to_dense()).max() <= 1e-12


def test_outputs_with_batch_normalisation_use_training_statistics(rng):
    net = nets.draw(rng, [3, 4, 2], "tanh", "mse", N=20, batch_norm=True)
    z, first, _ = net.ob.outputs(net.theta)
    assert np.abs(z - net.model.predict(net.theta, net.X)).max() <= 1e-13
    assert np.abs(first - (z - net.ob.y)).max() <= 1e-14  # mse: 2 (z - y) / 2 outputs


def test_second_derivatives_of_certain_samples_keep_relative_accuracy():
    model = fc.MLP([1, 2], bias=False)
    ob = fc.Objective(model, [[1.0]], [0])
    theta = np.array([60.0, 0.0])
    _, first, second = ob.outputs(theta)
    p = np.exp(-60.0)
    assert np.allclose(first, [[-p, p]], rtol=1e-14, atol=0)
    assert np.allclose(second, [[[p, -p], [-p, p]]], rtol=1e-14, atol=0)


# --- other sample weights


def objective_results(ob, theta):
    """Return (value, gradient, dense Hessian, dense GGN) of the objective at theta."""
    H = ob.hessian(theta)
    return ob.value(theta), ob.gradient(theta), H.to_dense(), ob.ggn(theta).to_dense()


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b))


def test_a_reweighted_objective_equals_a_new_one_and_shares_its_rows(rng):
    weights = [rng.uniform(0, 2, 25), np.arange(25) != 3, None, np.zeros(25)]
    for dtype in nets.DTYPES:
        for loss in ("mse", "cross_entropy", "poisson"):
            net = nets.draw(rng, [4, 5, 3], "tanh", loss, N=25, l2=0.1, dtype=dtype, weights=True)
            net.ob.hessian(net.theta).to_dense()  # the engine holds padded rows
            for weight in weights:
                given = None if weight is None else np.array(weight, dtype)
                other = net.ob.reweighted(given)
                if given is not None:
                    given[:] = 7  # the objective keeps a copy
                wanted = net.objective(sample_weight=weight)
                assert same(
                    objective_results(other, net.theta), objective_results(wanted, net.theta)
                )
                assert np.shares_memory(other.X, net.ob.X)
                if net.ob.y.dtype != np.int32:
                    assert np.shares_memory(other.y, net.ob.y)
            assert same(
                objective_results(net.ob, net.theta), objective_results(net.objective(), net.theta)
            )


def test_a_reweighted_objective_outlives_its_source(rng):
    net = nets.draw(rng, [4, 5, 3], N=25)
    net.ob.value(net.theta)
    weight = rng.uniform(0, 2, 25)
    wanted = objective_results(net.objective(sample_weight=weight), net.theta)
    other = net.ob.reweighted(None).reweighted(weight)
    del net.ob
    gc.collect()
    assert same(objective_results(other, net.theta), wanted)
    assert same(objective_results(other.batch(slice(None)), net.theta), wanted)


def test_batches_do_not_overwrite_the_rows_of_a_reweighted_objective(rng):
    net = nets.draw(rng, [4, 5, 3], N=24)
    order = np.random.default_rng(0)
    kept = [batch.reweighted(np.ones(8)) for batch in net.ob.batches(8, order)]
    before = [objective_results(ob, net.theta) for ob in kept]
    for batch in net.ob.batches(8, order):
        batch.value_and_gradient(net.theta)
    assert all(same(objective_results(ob, net.theta), known) for ob, known in zip(kept, before))


def test_reweighting_accepts_sparse_samples_and_rejects_streamed_ones(rng):
    net = nets.draw(rng, [4, 5, 3], loss="cross_entropy", N=25)
    sparse = net.objective(X=scipy.sparse.csr_matrix(net.X))
    weight = rng.uniform(0, 2, 25)
    wanted = net.objective(X=scipy.sparse.csr_matrix(net.X), sample_weight=weight)
    other = sparse.reweighted(weight)
    assert same(objective_results(other, net.theta), objective_results(wanted, net.theta))
    with pytest.raises(ValueError, match="rows are in memory, got StreamedObjective"):
        net.objective(fc.StreamedObjective).reweighted(weight)
    for wrong in (np.ones(24), -np.ones(25), np.full(25, np.nan), "auto"):
        with pytest.raises((ValueError, TypeError), match="sample_weight"):
            net.ob.reweighted(wrong)
