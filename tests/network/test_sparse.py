"""Objectives with a sparse X equal those with the dense X in every quantity, for every kind of
network.
"""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp

import fastcurv as fc
from fastcurv.network.arguments import check_rows_and_targets
from fastcurv.network.sparse import SparseRows

from ..nets import draw

pytestmark = pytest.mark.by_day(share=1 / 2)


def sparse_and_dense(
    rng, activation="tanh", loss="mse", N=23, sizes=(17, 9, 9, 3), kind=sp.csr_array, **options
):
    """Return (sparse, dense, theta): an objective with a sparse X, an objective with that X as a
    dense array, and parameters.
    """
    dtype = options.get("dtype", "float64")
    X = sp.random(N, sizes[0], 0.2, format="csr", random_state=np.random.default_rng(3))
    X.data[:] = rng.standard_normal(X.nnz)
    net = draw(rng, sizes, activation, loss, X=X.toarray().astype(dtype), **options)
    return net.objective(X=kind(X)), net.ob, net.direction(rng) / 2


def assert_close(a, b, tol=1e-12):
    a, b = np.asarray(a, float), np.asarray(b, float)
    assert np.linalg.norm(a - b) <= tol * np.linalg.norm(b)


@pytest.mark.parametrize("loss", ["poisson", "mse"])
def test_overflowing_losses_of_sparse_and_dense_samples_agree(loss, rng):
    """Where the loss overflows, sparse samples give the infinite or NaN value of dense samples and
    non-finite products.
    """
    X, y = 1e8 * rng.standard_normal((20, 6)) * rng.integers(0, 2, (20, 6)), np.ones(20)
    model = fc.MLP([6, 5, 4, 1], "gelu")
    theta = model.init(rng=0) * (1.0 if loss == "poisson" else 1e150)
    dense, sparse = (fc.Objective(model, rows, y, loss) for rows in (X, sp.csr_matrix(X)))
    assert not np.isfinite(dense.value(theta))
    np.testing.assert_array_equal(sparse.value(theta), dense.value(theta))
    found = [ob.hessian(theta) @ np.ones(model.n_params) for ob in (sparse, dense)]
    assert not np.isfinite(found).all(axis=1).any()


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.coo_matrix])
def test_sparse_formats_duplicates_and_empty_columns_are_accepted(kind, rng):
    ob, dense, theta = sparse_and_dense(rng, kind=kind)
    assert_close(ob.gradient(theta), dense.gradient(theta))
    twice = sp.coo_matrix(([1.0, 2.0, 0.0], ([0, 0, 1], [4, 4, 2])), shape=(2, 17))
    y = np.zeros((2, 3))
    small = fc.Objective(ob.model, twice, y, "mse")
    assert_close(
        small.gradient(theta), fc.Objective(ob.model, twice.toarray(), y, "mse").gradient(theta)
    )
    assert small.X.nnz == 1
    empty = fc.Objective(ob.model, sp.csr_matrix((2, 17)), y, "mse")
    assert_close(
        empty.value(theta), fc.Objective(ob.model, np.zeros((2, 17)), y, "mse").value(theta)
    )


def test_sparse_products_are_bitwise_identical_for_any_number_of_threads(rng, monkeypatch):
    monkeypatch.setattr("fastcurv.network.sparse.THREADING_MIN_MULTIPLY_ADDS", 1)
    X = sp.random(50, 40, 0.3, format="lil", random_state=0)
    X[7:30] = 0
    held = check_rows_and_targets(fc.MLP([40, 1]), "mse", (X, np.ones(50), None))[0]
    B, bits = rng.standard_normal((40, 3)), []
    D = rng.standard_normal((50, 3))
    for threads in (1, 2, 3, 60):
        rows = SparseRows(held, threads)
        bits.append(((rows @ B).tobytes(), rows.transposed(D).tobytes()))
    assert_close(rows @ B, X @ B)
    assert len(set(bits)) == 1


def test_large_sparse_matrix_is_used_in_bounded_memory():
    """An objective on a sparse matrix of 20 000 x 50 000, 8 GB if dense, with a gradient and a
    product has a peak memory of a few times the stored entries, the vectors and an array of samples
    by units.
    """
    rng = np.random.default_rng(0)
    N, k, width = 20_000, 50_000, 8
    X = sp.csr_matrix(
        (rng.standard_normal(N * 50), rng.integers(k, size=N * 50), np.arange(0, N * 50 + 1, 50)),
        shape=(N, k),
    )
    model = fc.MLP([k, width, 2])
    theta = model.init(rng=0)
    tracemalloc.start()
    ob = fc.Objective(model, X, rng.integers(2, size=N))
    ob.gradient(theta)
    ob.hessian(theta) @ theta
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 10 * X.data.nbytes + 20 * theta.nbytes + 40 * 8 * N * width
