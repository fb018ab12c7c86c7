"""Outputs of all rows with the derivatives of each row's loss, and objectives with other weights of
the rows.
"""

import gc

import numpy as np
import pytest
import scipy.sparse

import fastcurv as fc
from fastcurv.structure.tables import LOSSES, one_hot

from .. import nets

EVERY = (*nets.LOSSES, "gaussian_nll")


def own(z, y):
    """exp(z) - y z, a loss of one's own."""
    e = np.exp(z)
    return (e - y * z).sum(axis=1), e - y, e


def drawn(rng, loss):
    """A net with weights of which some are 0."""
    d, kind = (4, "mse") if loss == "gaussian_nll" else (3, loss)
    net = nets.draw(rng, [4, 5, d], "tanh", kind, N=25, l2=0.1)
    if kind != loss:
        net.y, net.options["loss"] = net.y[:, :2], loss
    net.weight = rng.uniform(0.5, 2, 25) * (rng.random(25) < 0.8)
    net.ob = net.objective()
    return net


def full(second):
    """Second derivatives as matrices (N, d, d)."""
    return second if second.ndim == 3 else second[:, :, None] * np.eye(second.shape[1])


def test_outputs_have_the_derivatives_of_each_rows_loss(rng):
    """Against complex steps of the loss's own formula."""
    for loss in EVERY:
        net = drawn(rng, loss)
        z, first, second = net.ob.outputs(net.theta)
        row, d = LOSSES[loss], z.shape[1]
        y = one_hot(net.ob.y, d) if net.ob.y.ndim == 1 else net.ob.y
        w = net.weight[:, None] / row.terms_of_row(d)
        assert np.abs(z - net.model.predict(net.theta, net.X)).max() <= 1e-13
        assert np.abs(first - w * row.terms(z, y)[1]).max() <= 1e-14, loss
        step = 1e-100
        for k in range(d):
            moved = z + 1j * step * (np.arange(d) == k)
            slope = row.terms(moved, y)[1].imag / step
            assert np.abs(full(second)[:, k] - w * slope).max() <= 1e-13, loss
        assert not first[net.weight == 0].any() and not second[net.weight == 0].any()


def test_outputs_give_the_gradient_and_the_ggn(rng):
    for loss in (*nets.LOSSES, fc.Loss(own)):
        net = drawn(rng, loss if isinstance(loss, str) else "mse")
        ob = net.objective(loss=loss)
        z, first, second = ob.outputs(net.theta)
        J = ob.jacobian(net.theta).to_dense()
        N, d = z.shape
        g = J.T @ first.ravel() / N + ob.l2 * net.theta
        assert np.abs(g - ob.gradient(net.theta)).max() <= 1e-13
        rows = J.reshape(N, d, -1)
        G = np.einsum("nia,nij,njb->ab", rows, full(second), rows) / N + ob.l2 * np.eye(net.n)
        assert np.abs(G - ob.ggn(net.theta).to_dense()).max() <= 1e-12


def test_outputs_of_rows_in_blocks_are_those_of_all_rows(rng):
    net = drawn(rng, "cross_entropy")
    wanted = net.ob.outputs(net.theta)
    sparse = net.objective(X=scipy.sparse.csr_matrix(net.X))
    stream = net.objective(fc.StreamedObjective, block_rows=7)
    for ob in (sparse, stream):
        for found, part in zip(ob.outputs(net.theta), wanted):
            assert found.shape == part.shape and np.abs(found - part).max() <= 1e-13
    narrow = net.model.astype("float32")
    single = fc.Objective(narrow, net.X, net.y, sample_weight=net.weight)
    assert {part.dtype for part in single.outputs(net.theta)} == {np.dtype("float32")}


def test_outputs_with_batch_normalisation_are_those_of_training(rng):
    net = nets.draw(rng, [3, 4, 2], "tanh", "mse", N=20, batch_norm=True)
    z, first, _ = net.ob.outputs(net.theta)
    assert np.abs(z - net.model.predict(net.theta, net.X)).max() <= 1e-13
    assert np.abs(first - (z - net.ob.y)).max() <= 1e-14  # 2 residuals over 2 outputs


def test_a_certain_row_keeps_the_relative_accuracy_of_its_second_derivative():
    model = fc.MLP([1, 2], bias=False)
    ob = fc.Objective(model, [[1.0]], [0])
    theta = np.array([60.0, 0.0])
    _, first, second = ob.outputs(theta)
    p = np.exp(-60.0)
    assert np.allclose(first, [[-p, p]], rtol=1e-14, atol=0)
    assert np.allclose(second, [[[p, -p], [-p, p]]], rtol=1e-14, atol=0)


# --- other weights


def facts(ob, theta):
    """What an objective says at theta."""
    H = ob.hessian(theta)
    return ob.value(theta), ob.gradient(theta), H.to_dense(), ob.ggn(theta).to_dense()


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b))


def test_a_reweighted_objective_is_one_made_with_those_weights_and_shares_the_rows(rng):
    weights = [rng.uniform(0, 2, 25), np.arange(25) != 3, None, np.zeros(25)]
    for dtype in nets.DTYPES:
        for loss in ("mse", "cross_entropy", "poisson"):
            net = nets.draw(rng, [4, 5, 3], "tanh", loss, N=25, l2=0.1, dtype=dtype, weights=True)
            net.ob.hessian(net.theta).to_dense()  # the engine has padded its rows
            for weight in weights:
                given = None if weight is None else np.array(weight, dtype)
                other = net.ob.reweighted(given)
                if given is not None:
                    given[:] = 7  # the objective keeps a copy
                wanted = net.objective(sample_weight=weight)
                assert same(facts(other, net.theta), facts(wanted, net.theta))
                assert np.shares_memory(other.X, net.ob.X)
                if net.ob.y.dtype != np.int32:
                    assert np.shares_memory(other.y, net.ob.y)
            assert same(facts(net.ob, net.theta), facts(net.objective(), net.theta))


def test_a_reweighted_objective_outlives_the_one_that_it_came_from(rng):
    net = nets.draw(rng, [4, 5, 3], N=25)
    net.ob.value(net.theta)
    weight = rng.uniform(0, 2, 25)
    wanted = facts(net.objective(sample_weight=weight), net.theta)
    other = net.ob.reweighted(None).reweighted(weight)
    del net.ob
    gc.collect()
    assert same(facts(other, net.theta), wanted)
    assert same(facts(other.batch(slice(None)), net.theta), wanted)


def test_batches_do_not_overwrite_the_rows_of_a_reweighted_objective(rng):
    net = nets.draw(rng, [4, 5, 3], N=24)
    order = np.random.default_rng(0)
    kept = [batch.reweighted(np.ones(8)) for batch in net.ob.batches(8, order)]
    before = [facts(ob, net.theta) for ob in kept]
    for batch in net.ob.batches(8, order):
        batch.value_and_gradient(net.theta)
    assert all(same(facts(ob, net.theta), known) for ob, known in zip(kept, before))


def test_a_row_of_weight_0_gets_its_numbers_back_with_its_weight(rng):
    net = nets.draw(rng, [2, 3, 1], N=6)
    X = net.X.copy()
    X[2] = 1e200
    weight = np.arange(6) != 2.0
    idle = net.objective(X=X, sample_weight=weight)
    assert np.isfinite(idle.value(net.theta)) and not idle.X[2].any()
    back = idle.batch(slice(1, 6)).reweighted(None)
    assert (back.X[1] == 1e200).all()
    for sparse in (False, True):
        ob = net.objective(X=scipy.sparse.csr_matrix(X) if sparse else X, sample_weight=None)
        gone = ob.reweighted(weight)
        assert np.isclose(gone.value(net.theta), idle.value(net.theta), rtol=1e-14)
        again = gone.reweighted(None)
        there = again.X.toarray() if sparse else again.X
        assert np.array_equal(there, X)


def test_sparse_rows_are_reweighted_and_rows_elsewhere_are_refused(rng):
    net = nets.draw(rng, [4, 5, 3], loss="cross_entropy", N=25)
    sparse = net.objective(X=scipy.sparse.csr_matrix(net.X))
    weight = rng.uniform(0, 2, 25)
    wanted = net.objective(X=scipy.sparse.csr_matrix(net.X), sample_weight=weight)
    other = sparse.reweighted(weight)
    assert same(facts(other, net.theta), facts(wanted, net.theta))
    with pytest.raises(ValueError, match="rows are in memory, got StreamedObjective"):
        net.objective(fc.StreamedObjective).reweighted(weight)
    for wrong in (np.ones(24), -np.ones(25), np.full(25, np.nan), "auto"):
        with pytest.raises((ValueError, TypeError), match="sample_weight"):
            net.ob.reweighted(wrong)
