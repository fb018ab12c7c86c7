"""Exact diagonals and traces of curvature matrices, against dense matrices."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import aslinearoperator

import fastcurv as fc
from fastcurv.network.operators import diagonal_cost
from fastcurv.structure.tables import LOSSES, loss_spec

from ..nets import ACTIVATIONS, CURVATURES, LENGTHS, OWN, draw
from ..plans import laid_out, least_memory, limited

LAYOUTS = {}, {"across": 0}, {"across": 1}, {"across": 2, "folds": 1}, {"across": 1, "shared": True}


def random_objective(i, rng, dtype):
    """Return (objective, theta) number i: of any activations, loss, l2 and weights, with dense,
    sparse or streamed samples, or with limited memory.
    """
    sizes = [*rng.choice(LENGTHS[:9], rng.integers(2, 6)).tolist(), 2 * (1 + i % 2)]
    activation = OWN["wave"] if i % 10 == 9 else str(rng.choice(ACTIVATIONS))
    loss, residual, bias = list(LOSSES)[i % len(LOSSES)], rng.random() < 0.5, rng.random() < 0.8
    N = LENGTHS[i % len(LENGTHS)]
    y = rng.standard_normal((N, sizes[-1] // 2)) if loss == "gaussian_nll" else None
    options = {"l2": float(rng.random()), "l2_biases": rng.random() < 0.5, "y": y}
    options |= {"bias": bias, "residual": residual, "dtype": dtype}
    net = draw(rng, sizes, activation, loss, N, **options)
    weight = rng.integers(0, 3, N).astype(float)
    if i % 4 == 1:
        return net.objective(X=csr_matrix(net.X), sample_weight=weight), net.theta
    if i % 4 == 2:
        return net.objective(fc.StreamedObjective, block_rows=9, sample_weight=weight), net.theta
    if i % 4 == 3:
        least = least_memory(lambda memory: limited(net.ob, memory)._new_plan())
        return limited(net.ob, least + 2000), net.theta
    return net.objective(sample_weight=weight), net.theta


def test_traces_and_diagonals_of_50_random_networks_equal_those_of_their_matrices(arch, dtype, rng):
    tol = {"float64": 1e-12, "float32": 1e-4}[dtype]
    for i in range(50):
        with laid_out(**LAYOUTS[i % len(LAYOUTS)]):
            ob, theta = random_objective(i, rng, dtype)
            given = loss_spec(ob.loss).given
            H = getattr(ob, CURVATURES[i % 3 if given is None or given.convex else 0])(theta)
            entries = np.diagonal(H.to_dense()).astype(float)
            trace, diagonal = fc.trace(H), fc.diagonal(H, method="exact")
            assert trace.method == diagonal.method == "exact" and not diagonal.stderr.any()
            assert abs(trace.estimate - entries.sum()) <= tol * np.abs(entries).sum()
            assert np.abs(diagonal.estimate - entries).max() <= tol * np.abs(entries).max()


def test_costs_of_exact_results_are_counted_and_limited_by_the_number_of_probes(rng):
    """A deep network of smooth layers needs a column for each hidden unit. If that costs more than
    the requested products, the result is an estimate. Parts of an operator share its counter.
    """
    net = draw(rng, [20, 30, 30, 30, 10], "tanh", "mse")
    H = net.ob.hessian(net.theta)
    cost = int(np.ceil(diagonal_cost(H)))
    assert cost > 3 and fc.trace(H, 3, rng=0).method == "hutchinson" and H.n_products == 3
    exact = fc.diagonal(H, cost)
    assert (exact.method, exact.n_products, H.n_products) == ("exact", cost, 3 + cost)
    assert fc.trace(H, 3, method="exact").estimate == exact.estimate.sum()
    moved, block = H.shift(2.0), H.restrict(layers=[1])
    assert np.array_equal(fc.diagonal(moved).estimate, exact.estimate + 2)
    assert np.array_equal(fc.diagonal(block).estimate, exact.estimate[block.indices])
    assert H.n_products == 3 + 4 * cost


def test_exact_results_are_refused_where_no_formula_is_known(rng):
    normalised = draw(rng, [3, 4, 2], batch_norm=True)
    A = normalised.ob.hessian(normalised.theta)
    for op in (A, A.to_dense(), aslinearoperator(A.to_dense())):
        for estimate in (fc.trace, fc.diagonal):
            with pytest.raises(ValueError, match="no exact diagonal"):
                estimate(op, method="exact")
    assert fc.trace(A).method == "exact"  # by n products


def test_a_diagonal_that_overflows_is_estimated(rng):
    net = draw(rng, [2, 3, 1], "relu", "mse", 9)
    ob = net.objective(X=1e155 * net.X)
    theta = 1e-2 * net.theta
    found = fc.diagonal(ob.ggn(theta), 4, rng=0)
    assert found.method != "exact"
