"""The recurrence: identities of its basis, of its restarts, of what is deflated."""

import numpy as np
import pytest

from fastcurv.krylov.lanczos import Recurrence
from fastcurv.krylov.state import _whitening

from .spectra import DTYPES, EPS, SPECTRA, Prescribed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["uniform", "hessian", "under", "geometric"])
@pytest.mark.parametrize("contamination", [None, 1e-3])
def test_recurrence_identity(name, dtype, contamination, rng):
    """A Q' = Q' T + (next row)' B within err, and orthonormal rows, whatever the batches were."""
    spectrum = SPECTRA[name](rng)
    op = Prescribed(spectrum, seed=3, dtype=dtype)
    run = Recurrence(op, 90, contamination=contamination)
    run.insert_random(rng)
    for m in range(1, 81):
        run.step()
        assert (run.m, run.n_products) == (m, m), "one product a step"
    run.reorthogonalise()
    exact = op.astype("float64")
    Q = run.rows[: run.m + run.p].astype(float)
    F = np.array([exact @ q for q in Q[: run.m]]) - run.T[: run.m + run.p, : run.m].T @ Q
    # the residual bound: the error of every relation is within err, up to the rounding of the
    # products themselves
    assert (np.linalg.norm(F, axis=1) <= run.err[: run.m] + 60 * EPS[dtype] * run.scale).all()
    assert np.abs(Q @ Q.T - np.eye(len(Q))).max() <= 200 * EPS[dtype]


def test_block_recurrence_identity(rng):
    spectrum = SPECTRA["cluster"](rng)
    op = Prescribed(spectrum, seed=3)
    run = Recurrence(op, 60)
    run.insert(rng.standard_normal((4, op.shape[0])))
    for _ in range(8):
        run.step()
    theta, S = np.linalg.eigh(run.T[: run.m, : run.m])
    run.restart(theta[-12:], S[:, -12:])
    for _ in range(4):
        run.step()
    assert run.m == 12 + 16 and run.n_products == op.n_products == 48
    Q = run.rows[: run.m + run.p]
    F = np.array([op @ q for q in Q[: run.m]]) - run.T[: run.m + run.p, : run.m].T @ Q
    assert (np.linalg.norm(F, axis=1) <= run.err[: run.m] + 1e-13).all()
    assert np.abs(Q @ Q.T - np.eye(len(Q))).max() <= 1e-13


@pytest.mark.parametrize("dtype", DTYPES)
def test_deflated_vectors_do_not_come_back(dtype, rng):
    """Over as many steps as the complement has dimensions the basis stays orthogonal to what was
    taken out.
    """
    spectrum = np.r_[np.zeros(9), np.geomspace(1e-4, 1, 160)]
    op = Prescribed(spectrum, seed=0, dtype=dtype)
    known = np.linalg.qr(np.array([op.eigenvector(i) for i in range(9)]).T)[0]
    run = Recurrence(op, 160, against=np.ascontiguousarray(known.T, dtype))
    run.insert_random(rng)
    while run.p:
        run.step()
    run.reorthogonalise()
    rows = run.rows[: run.m].astype(float)
    assert np.abs(rows @ known).max() <= 200 * EPS[dtype]
    assert np.abs(rows @ rows.T - np.eye(run.m)).max() <= 200 * EPS[dtype]
    assert np.linalg.eigvalsh(run.T[: run.m, : run.m])[0] >= 0.9e-4


def test_a_batch_of_dependent_rows_is_whitened_as_far_as_it_goes(rng):
    """Rounding can leave a Gram matrix that is not definite: an answer, and no LinAlgError."""
    rows = rng.standard_normal((3, 5))
    rows[2] = rows[1]
    gram = rows @ rows.T
    gram[2, 2] -= 1e-15
    R = _whitening(gram)
    held = R @ gram @ R.T
    assert np.isfinite(R).all() and np.linalg.norm(held, 2) <= 1 + 1e-6
    whole = np.eye(3) + 0.1 * gram / np.linalg.norm(gram)
    R = _whitening(whole)
    assert np.abs(R @ whole @ R.T - np.eye(3)).max() <= 1e-14
