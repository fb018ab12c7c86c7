"""A subclass of `RowSource` with the one method `blocks` gives the results of rows in memory."""

import numpy as np
import pytest

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


def problem(dtype="float64", activation="tanh", sizes=(4, 5, 2)):
    model = fc.MLP(sizes, activation, dtype=dtype)
    return model, model.init(rng=1)


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

    class Wide(ComputedRows):
        def blocks(self, size):
            for X, y, weight in super().blocks(size):
                yield np.hstack([X, X]), y, weight

    with pytest.raises(ValueError, match=r"in rows 0 to 89: X must have .* got \(90, 8\)"):
        fc.StreamedObjective(model, Wide(), loss="mse").value(theta)
