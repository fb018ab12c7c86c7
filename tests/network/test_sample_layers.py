"""The parts of sample space: the orthogonal matrices of a layer, and the memory of the passes."""

import tracemalloc

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.network.gram import Reflectors, SampleSpace


@pytest.mark.parametrize("N, k", [(3, 7), (7, 3), (4, 4), (1, 5), (5, 1)])
def test_reflectors(N, k, rng):
    """Q is orthogonal and holds the rows of A whatever their rank."""
    for A in (
        rng.standard_normal((N, k)),
        np.ones((N, k)),
        np.zeros((N, k)),
        np.eye(N, k),
        rng.standard_normal((N, 1)) * rng.standard_normal(k),
    ):
        Q = Reflectors(A)
        full = Q.right(np.eye(k))
        assert np.abs(full @ full.T - np.eye(k)).max() <= 1e-14
        assert np.abs(Q.right_transposed(np.eye(k)) - full.T).max() <= 1e-14
        assert np.abs(Q.thin() - full[:, : Q.r]).max() <= 1e-14
        assert np.abs(Q.L @ full[:, : Q.r].T - A).max() <= 1e-14 * max(1, np.abs(A).max() * k)


@pytest.mark.parametrize("kind", ["hessian", "ggn"])
def test_passes_share_their_memory_and_nothing_else(kind, rng):
    """Later products take no memory for their matrices, and change no earlier one's result."""
    model = fc.MLP([200, 150, 150, 10], residual=True)
    ob = fc.Objective(model, rng.standard_normal((32, 200)), rng.integers(10, size=32))
    R = SampleSpace(getattr(ob, kind)(model.init(seed=0)), [True] * 3)
    x, y = rng.standard_normal((2, R.shape[0]))
    out = np.empty_like(x)
    first = R.product(x).copy()
    R.product(y)
    tracemalloc.start()
    try:
        found = R.product(x, out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found is out and np.array_equal(out, first)
    matrix = 8 * 32 * 150
    most = 2 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 2.5  # 1.23: a temporary more
    assert peak < most * matrix, peak / matrix  # with skips, and the loss
