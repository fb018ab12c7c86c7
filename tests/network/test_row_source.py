"""A subclass of `RowSource` with the one method `blocks` gives the results of rows in memory."""

import numpy as np
import pytest
import scipy.sparse as sp

import fastcurv as fc
from fastcurv.network.rows import RowSource, make_row_source

from ..nets import CURVATURES

pytestmark = pytest.mark.by_day(share=1 / 2)

N, BLOCK = 90, 40


def computed_rows(rows):
    """Return (X, y, weight) for row indices `rows`, of shapes (k, 4), (k, 2) and (k,), computed
    elementwise from the indices.
    """
    t = np.asarray(rows, float)[:, None] + 1
    X = np.sin(t * [1.0, 2.3, 3.7, 0.4])
    return X, X[:, :2] * X[:, 2:] + 0.1, 0.5 + (t[:, 0] % 3) / 3


class ComputedRows(RowSource):
    """A source of N computed rows, which computes each block on reading."""

    n_rows = N

    def blocks(self, size):
        for start in range(0, N, size):
            yield computed_rows(range(start, min(start + size, N)))


class UncountedRows(ComputedRows):
    """A source of the N computed rows that does not state their number in advance."""

    n_rows = None


class SparseRows(RowSource):
    """A source of computed rows as sparse matrices, in which negative entries are zero."""

    n_rows, entries = N, 2.0

    def blocks(self, size):
        for start in range(0, N, size):
            X, y, weight = computed_rows(range(start, min(start + size, N)))
            yield sp.csr_array(np.where(X > 0, X, 0)), y, weight


def problem(dtype="float64", activation="tanh", sizes=(4, 5, 2)):
    model = fc.MLP(sizes, activation, dtype=dtype)
    return model, model.init(rng=1)


def all_results(ob, theta):
    """Yield values, products, kinks, eigenvalues, the verdict and a batch's
    gradient of the objective at theta, always in the same order.
    """
    V = np.cos(np.outer(np.arange(1, theta.size + 1), [1.0, 2.3])).astype(theta.dtype)
    yield ob.value(theta)
    yield ob.gradient(theta)
    for kind in CURVATURES:
        H = getattr(ob, kind)(theta)
        yield from (H @ V, H @ V[:, 0], H.quadratic_form(V), H.to_dense())
        part = H.restrict(layers=[1])
        yield part @ np.ones(part.shape[0], theta.dtype)
    J = ob.jacobian(theta)
    yield from (J @ V[:, 0], J.T @ np.cos(np.arange(J.shape[0])).astype(theta.dtype))
    yield ob.certificates.kinks(theta, 0.1)
    yield fc.eigsh(ob.hessian(theta), 3, rng=0).values
    verdict = fc.classify(ob, theta, rng=0).to_dict()
    yield {k: v for k, v in verdict.items() if k != "wall_time"}
    yield ob.batch([80, 3, 3]).gradient(theta)


def same(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        assert all(
            np.array_equal(a[k], b[k], equal_nan=k != "kind" and isinstance(a[k], float)) for k in a
        )
    else:
        assert np.array_equal(a, b)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("kind", [ComputedRows, UncountedRows])
def test_row_sources_equal_arrays_in_the_same_blocks_bitwise(kind, dtype, activation):
    model, theta = problem(dtype, activation)
    X, y, weight = computed_rows(range(N))
    how = {"loss": "mse", "l2": 1e-2, "block_rows": BLOCK}
    ob = fc.StreamedObjective(model, kind(), **how)
    arrays = fc.StreamedObjective(model, X, y, sample_weight=weight, **how)
    for a, b in zip(all_results(ob, theta), all_results(arrays, theta), strict=True):
        same(a, b)
    assert ob.n_samples == N and ob.n_shards == 3 and repr(ob) == repr(arrays)


def test_a_ggn_with_more_parameters_than_outputs_has_its_eigenvalues():
    model, theta = problem(sizes=(4, 40, 2))
    X, y, weight = computed_rows(range(N))
    ob = fc.StreamedObjective(model, ComputedRows(), loss="mse", block_rows=BLOCK)
    values = fc.eigvalsh(fc.Objective(model, X, y, "mse", sample_weight=weight).ggn(theta))
    assert np.abs(fc.eigvalsh(ob.ggn(theta)) - values).max() <= 1e-13 * values[-1]


def test_a_single_block_is_bitwise_identical_to_rows_in_memory():
    """Without l2, a stream of a single block gives value, gradient and products bitwise identical
    to those of rows in memory. (Streams add l2 in another order.)
    """
    model, theta = problem()
    X, y, weight = computed_rows(range(N))
    ob = fc.StreamedObjective(model, ComputedRows(), loss="mse", block_rows=N)
    dense = fc.Objective(model, X, y, "mse", sample_weight=weight)
    v = np.cos(np.arange(theta.size))
    assert ob.n_shards == 1 and ob.value(theta) == dense.value(theta)
    assert np.array_equal(ob.gradient(theta), dense.gradient(theta))
    for kind in CURVATURES:
        assert np.array_equal(getattr(ob, kind)(theta) @ v, getattr(dense, kind)(theta) @ v)
    # one matrix is computed by products, the other directly
    small, whole = (fc.eigsh(f.hessian(theta), 3, rng=0) for f in (ob, dense))
    assert np.allclose(small.values, whole.values, rtol=1e-14, atol=0)


def test_sparse_rows_stay_sparse():
    model, theta = problem()
    X, y, weight = computed_rows(range(N))
    rows = sp.csr_array(np.where(X > 0, X, 0))
    ob = fc.StreamedObjective(model, SparseRows(), loss="mse", l2=1e-2, block_rows=BLOCK)
    parts = [(rows[i : i + 30], y[i : i + 30], weight[i : i + 30]) for i in range(0, N, 30)]
    blocks = fc.StreamedObjective(model, parts, loss="mse", l2=1e-2, block_rows=BLOCK)
    for a, b in zip(all_results(ob, theta), all_results(blocks, theta), strict=True):
        same(a, b)
    assert sp.issparse(ob.batch([1, 2]).X)


def test_invalid_row_sources_are_rejected():
    with pytest.raises(TypeError, match="must be None if X is a RowSource, whose blocks hold y"):
        make_row_source(ComputedRows(), np.ones(N), None)
    with pytest.raises(TypeError, match="abstract"):
        RowSource()

    class Short(ComputedRows):
        n_rows = N + 1

    model, theta = problem()
    with pytest.raises(ValueError, match="got 90 rows instead of 91"):
        fc.StreamedObjective(model, Short(), loss="mse").value(theta)

    class Ragged(ComputedRows):
        def blocks(self, size):
            return super().blocks(size - 1)

    ragged = fc.StreamedObjective(model, Ragged(), loss="mse", block_rows=BLOCK)
    with pytest.raises(
        ValueError,
        match="blocks of X must have 40 rows, except the last, got one that begins at row 39",
    ):
        ragged.value(theta)

    class Wide(ComputedRows):
        def blocks(self, size):
            for X, y, weight in super().blocks(size):
                yield np.hstack([X, X]), y, weight

    with pytest.raises(ValueError, match=r"in rows 0 to 89: X must have .* got \(90, 8\)"):
        fc.StreamedObjective(model, Wide(), loss="mse").value(theta)
