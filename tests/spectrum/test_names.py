"""Names that users of SciPy expect are accepted, as `which`, `rng` and unpacking of results."""

import numpy as np
import pytest
import scipy.sparse.linalg as sla

import fastcurv as fc

A = np.diag([-7.0, 1.0, 2.0, 3.0, 5.0])


def test_eigsh_accepts_scipys_signature():
    w, V = fc.eigsh(A, 2, rng=0)
    theirs = np.sort(sla.eigsh(A, 2, v0=np.ones(5))[0])
    assert np.allclose(w, theirs) and np.allclose(A @ V, V * w), "the largest magnitudes"
    pairs = fc.eigsh(A, k=3, which="LA", rng=0)
    assert len(pairs) == 3 and np.array_equal(next(iter(pairs)), pairs.values)


def test_warnings_name_the_line_of_the_caller():
    ob = fc.Objective(fc.MLP([2, 3, 1]), np.eye(2), np.ones(2), loss="mse")
    theta = ob.model.init(rng=0)
    with pytest.warns(Warning) as caught:
        fc.newton_step(ob.hessian(theta), np.ones(ob.n_params), damping=0.0)
    assert {warning.filename for warning in caught} == {__file__}


def test_long_lists_of_pairs_are_shown_by_their_ends():
    pairs = fc.eigsh(np.diag(np.arange(60.0)), k=40, which="LA", rng=0)
    text = repr(pairs)
    assert "16 more" in text
    assert len(text.splitlines()) == 1 + 25
    few = fc.eigsh(np.diag(np.arange(60.0)), k=24, which="LA", rng=0)
    assert "more" not in repr(few)
