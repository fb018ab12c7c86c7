"""The Jacobian of the outputs as a dense matrix, and blocks of its rows."""

import numpy as np
import pytest
import scipy.sparse

import fastcurv as fc

from .. import nets

SIZES = [[3, 2], [3, 1], [4, 5, 1], [4, 5, 3], [5, 5, 5, 2], [3, 17, 9, 4]]


def jacobian_by_products(J):
    """Return the dense Jacobian in the operator's dtype, as its product with the identity."""
    return np.asarray(J @ np.eye(J.shape[1], dtype=J.dtype))


def test_jacobian_rows_match_products(rng):
    every = (*nets.ACTIVATIONS, nets.OWN["arctan"])
    for residual in (False, True):
        for i, sizes in enumerate(SIZES):
            for activation in every[i % 2 :: 2]:
                dtype = nets.DTYPES[int(rng.integers(2))]
                net = nets.draw(
                    rng, sizes, activation, N=13, residual=residual, dtype=dtype,
                    bias=bool(rng.integers(2)), weights=True,
                )  # fmt: skip
                J = net.ob.jacobian(net.theta)
                found, wanted = J.to_dense(), jacobian_by_products(J)
                assert found.dtype == J.dtype and found.flags.c_contiguous
                size = 1 + np.abs(wanted).max()
                assert np.abs(found - wanted).max() <= 300 * nets.EPS[dtype] * size


def test_blocks_of_jacobian_rows_are_bitwise_those_of_the_matrix(rng):
    for dtype in nets.DTYPES:
        net = nets.draw(rng, [4, 6, 3], "gelu", "cross_entropy", N=200, dtype=dtype)
        J = net.ob.jacobian(net.theta)
        whole = J.to_dense()
        for rows in (slice(0, 1), slice(63, 130), slice(199, None), slice(5, 5), slice(-3, 500)):
            part = whole.reshape(200, 3, -1)[rows].reshape(-1, net.n)
            out = np.full(part.shape, np.nan, dtype)
            assert J.to_dense(rows, out=out) is out
            assert np.array_equal(out, part) and np.array_equal(J.to_dense(rows), part)
        for threads in (1, 3):
            other = net.objective(n_threads=threads, memory=600_000).jacobian(net.theta)
            assert np.abs(other.to_dense() - whole).max() <= 1e2 * nets.EPS[dtype]
        threads = [net.objective(n_threads=k).jacobian(net.theta).to_dense() for k in (1, 2)]
        assert np.array_equal(*threads)


def test_jacobian_matrix_is_right_for_sparse_streamed_and_normalised_objectives(rng):
    net = nets.draw(rng, [4, 6, 3], "tanh", N=30)
    whole = net.ob.jacobian(net.theta).to_dense()
    sparse = net.objective(X=scipy.sparse.csr_matrix(net.X))
    stream = net.objective(fc.StreamedObjective, block_rows=7)
    for ob in (sparse, stream):
        J = ob.jacobian(net.theta)
        assert np.abs(J.to_dense() - whole).max() <= 1e-13
        assert np.abs(J.to_dense(slice(5, 19)) - whole[15:57]).max() <= 1e-13
    norm = nets.draw(rng, [4, 6, 3], "tanh", N=30, batch_norm=True)
    J = norm.ob.jacobian(norm.theta)
    assert np.abs(J.to_dense() - jacobian_by_products(J)).max() <= 1e-12
    assert np.abs(J.to_dense(slice(2, 4)) - jacobian_by_products(J)[6:12]).max() <= 1e-12


def test_jacobian_rows_reject_invalid_arguments(rng):
    net = nets.draw(rng, [4, 6, 3], N=30)
    J = net.ob.jacobian(net.theta)
    with pytest.raises(TypeError, match="rows must be a slice of samples, got"):
        J.to_dense([1, 2])
    with pytest.raises(ValueError, match="rows must be a slice with a step of 1, got a step of 2"):
        J.to_dense(slice(0, 8, 2))
    for out in (np.empty((3, net.n), "float32"), np.empty((4, net.n)), np.empty((net.n, 3)).T):
        with pytest.raises(ValueError, match="out"):
            J.to_dense(slice(0, 1), out=out)


def test_dense_hessian_matches_products_by_either_algorithm(rng):
    for N, kinds in ((400, "summed"), (3, "products")):
        for dtype in nets.DTYPES:
            net = nets.draw(
                rng, [4, 6, 1], "tanh", N=N, l2=0.1, dtype=dtype, weights=True, l2_biases=False
            )
            for make in (net.ob.hessian, net.ob.ggn, net.ob.empirical_fisher):
                H = make(net.theta)
                A, wanted = H.to_dense(), H @ np.eye(net.n, dtype=dtype)
                assert A.dtype == H.dtype and np.array_equal(A, A.T), kinds
                gap = np.abs(A - wanted).max()
                assert gap <= 300 * nets.EPS[dtype] * (1 + np.abs(wanted).max())
