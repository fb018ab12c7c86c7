"""Estimators reject sparse matrices whose indices are out of range."""

import pytest
import scipy.sparse

import fastcurv as fc


@pytest.mark.parametrize("kind", ["csr", "csc", "bsr"])
def test_sparse_indices_out_of_range_are_rejected(kind, rng):
    y = rng.integers(3, size=60)
    dense = rng.standard_normal((60, 40)) * (rng.random((60, 40)) < 0.3)
    net = fc.MLPClassifier((3,), max_iter=2, random_state=0).fit(dense, y)
    A = getattr(scipy.sparse, f"{kind}_matrix")(dense)
    A.indices[3] = 1 << 28
    for ask in (lambda: net.predict(A), lambda: net.fit(A, y)):
        with pytest.raises(ValueError, match="sparse matrix"):
            ask()
