"""The block Lanczos recurrence: identities of its basis after steps, locking, restarts and
deflation, and its memory.
"""

import gc
import weakref

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.krylov.lanczos import (
    MIN_POOLED_BASIS_BYTES,
    MIN_REPLACED_ENTRIES,
    Recurrence,
    aligned_rows,
    column_norms,
    memory_owner,
    orthonormalise,
    wanted_indices,
)
from fastcurv.spectrum.eigsh import eigsh

from ..nets import EPS, draw
from ..spectrum.spectra import SPECTRA, Prescribed, diagonal, symmetric

pytestmark = pytest.mark.by_day(one_of="dtype")


@pytest.mark.parametrize("name", ["uniform", "hessian", "under", "geometric"])
@pytest.mark.parametrize("orthogonality_tol", [None, 1e-3])
def test_lanczos_relation_holds_within_its_error_bound(name, dtype, orthogonality_tol, rng):
    """The Lanczos relation ``A Q' = Q' T + (next row)' B`` holds after 80 steps within the bounds
    `err` of the run, and the rows of Q are orthonormal. The allowed loss of orthogonality is the
    default or larger.
    """
    spectrum = SPECTRA[name](rng)
    op = Prescribed(spectrum, rng=3, dtype=dtype)
    run = Recurrence(op, 90, orthogonality_tol=orthogonality_tol)
    run.insert_random(rng)
    for m in range(1, 81):
        run.step()
        assert (run.m, run.n_products) == (m, m), "one product a step"
    run.reorthogonalise()
    check_identity(run, op, dtype)


def check_identity(run, op, dtype):
    """Check that the Lanczos relation of `run` with the operator `op` holds in every row within
    `err` plus the rounding error of the products, and that the rows of the basis are
    orthonormal.
    """
    exact = op.astype("float64")
    Q = run.rows[: run.m + run.p].astype(float)
    F = np.array([exact @ q for q in Q[: run.m]]) - run.T[: run.m + run.p, : run.m].T @ Q
    assert (np.linalg.norm(F, axis=1) <= run.err[: run.m] + 60 * EPS[dtype] * run.scale).all()
    assert np.abs(Q @ Q.T - np.eye(len(Q))).max() <= 200 * EPS[dtype]


def lock_pairs(run, most):
    """Lock the Ritz vectors of a run whose residuals are at most `most`."""
    values, _, residuals = run.ritz_spectrum()
    keep = np.flatnonzero(residuals <= most)
    run.lock(values[keep], run.ritz_vectors(keep).T)


@pytest.mark.parametrize("name", ["uniform", "hessian"])
@pytest.mark.parametrize("least", [0, np.inf])
def test_lanczos_relation_holds_with_locked_rows(name, least, dtype, rng, monkeypatch):
    """The Lanczos relation holds after Ritz vectors that have not converged are locked, whether
    their coupling to later rows is computed from one basis vector or from all.
    """
    monkeypatch.setattr("fastcurv.krylov.lanczos.MIN_REPLACED_ENTRIES", least)
    op = Prescribed(SPECTRA[name](rng), rng=3, dtype=dtype)
    run = Recurrence(op, 90)
    run.insert_random(rng)
    while run.m < 30:
        run.step()
    lock_pairs(run, 0.1 * run.scale)
    locked = run.m
    assert run.n_locked == locked >= 5
    run.insert_random(rng)
    while run.m < locked + 40:
        run.step()
    run.reorthogonalise()
    assert np.abs(run.T[:locked, locked : run.m]).max() > 1e3 * EPS[dtype] * run.scale
    check_identity(run, op, dtype)


def test_rows_stay_orthogonal_to_locked_rows_for_a_narrow_spectrum_far_from_zero(dtype, rng):
    """For a narrow spectrum far from zero, new rows of the basis stay orthogonal to locked rows.
    Without correction, their components along locked rows would grow twentyfold per step.
    """
    op = Prescribed(1 + 0.1 * np.linspace(-1, 1, 300), rng=3, dtype=dtype)
    run = Recurrence(op, 90)
    run.insert_random(rng)
    while run.m < 30:
        run.step()
    lock_pairs(run, 0.01 * run.scale)
    run.insert_random(rng)
    start = run.m
    while run.m < start + 30:
        run.step()
        Q = run.rows[: run.m + run.p].astype(float)
        assert np.abs(Q @ Q.T - np.eye(len(Q))).max() <= 10 * run.orthogonality_tol
    run.reorthogonalise()
    check_identity(run, op, dtype)


@pytest.mark.parametrize("name", ["uniform", "hessian", "under", "geometric"])
def test_semiorthogonal_rows_give_the_exact_projection(name, dtype, rng):
    """If the rows of the basis are orthogonal only to about sqrt(eps), T equals the projection
    of A onto an orthonormal basis of their span up to rounding, without spurious copies of
    eigenvalues.
    """
    spectrum = SPECTRA[name](rng)
    op = Prescribed(spectrum, rng=3, dtype=dtype)
    run = Recurrence(op, 90, semiorthogonal=True)
    run.insert_random(rng)
    while run.m < 80:
        run.step()
    Q, exact = run.rows[: run.m].astype(float), op.astype("float64")
    assert np.abs(Q @ Q.T - np.eye(len(Q))).max() <= 8 * EPS[dtype] ** 0.5
    N, R = np.linalg.qr(Q.T)
    N *= np.sign(np.diagonal(R))
    T = N.T @ np.array([exact @ q for q in N.T]).T
    scale = np.abs(spectrum).max()
    assert np.abs(T - run.T[: run.m, : run.m]).max() <= 100 * EPS[dtype] * scale
    near = np.linalg.eigvalsh(run.T[: run.m, : run.m])
    assert np.abs(near - np.linalg.eigvalsh(T)).max() <= 200 * EPS[dtype] * scale


def test_block_lanczos_relation_holds_after_a_restart(rng):
    spectrum = SPECTRA["cluster"](rng)
    op = Prescribed(spectrum, rng=3)
    run = Recurrence(op, 60)
    run.insert_block(rng.standard_normal((4, op.shape[0])))
    for _ in range(8):
        run.step()
    theta, S = np.linalg.eigh(run.T[: run.m, : run.m])
    run.restart(theta[-12:], S[:, -12:])
    for _ in range(4):
        run.step()
    assert run.m == 12 + 16 and run.n_products == op.n_products == 48
    check_identity(run, op, "float64")


def test_basis_stays_orthogonal_to_deflated_vectors(dtype, rng):
    """The rows of the basis stay orthogonal to the deflated vectors until they span the whole
    orthogonal complement of these vectors.
    """
    spectrum = np.r_[np.zeros(9), np.geomspace(1e-4, 1, 160)]
    op = Prescribed(spectrum, rng=0, dtype=dtype)
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


def clustered(seed):
    """Return a symmetric matrix with repeated or nearly repeated eigenvalues between 1e-13 and 1,
    and the random generator that drew the matrix.
    """
    rng = np.random.default_rng(seed)
    copies, levels = int(rng.integers(2, 6)), int(rng.integers(2, 7))
    values = np.repeat(10.0 ** -rng.uniform(0, 13, levels), copies)
    values *= 1 + rng.choice([0, 1e-14, 1e-11]) * rng.standard_normal(len(values))
    return symmetric(rng, values), rng


@pytest.mark.parametrize("which", ["LM", "LA", "SA", "BE"])
@pytest.mark.parametrize("least", [0, MIN_REPLACED_ENTRIES])
def test_residual_bounds_hold_for_clustered_eigenvalues(which, least, monkeypatch):
    """For clustered eigenvalues, the reported residuals bound the true ones, also if a start vector
    is a combination of locked vectors up to rounding. Its components along locked vectors must then
    be removed from its row and from T.
    """
    monkeypatch.setattr("fastcurv.krylov.lanczos.MIN_REPLACED_ENTRIES", least)
    for seed in range(150):
        A, rng = clustered(seed)
        k = min(len(A), int(rng.integers(1, 8)))
        found = eigsh(A, k, which, rng=seed)
        off = np.linalg.norm(A @ found.vectors - found.vectors * found.values, axis=0)
        assert (off <= found.residuals + 60 * EPS["float64"] * found.scale).all(), seed


# --- ends of a run, and single steps of the algorithm


def test_eigsh_rejects_products_and_starts_that_overflow_or_are_nan():
    one = LinearOperator((40, 40), matvec=lambda v: np.full(40, 1.7e308 * np.sign(v.sum())))
    with pytest.raises(
        ValueError, match="must be finite|not finite"
    ):  # each entry is finite, the norm of the product is not
        fc.eigsh(one, 2, v0=np.ones(40), rng=0)
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ValueError, match="must be finite|not finite"),
    ):
        fc.eigsh(diagonal(np.full(40, np.nan)), 2, v0=np.eye(40)[:, :2])


def test_empty_runs_return_empty_results_and_full_runs_accept_no_vector(rng):
    run = Recurrence(diagonal(np.arange(5.0)), 3)
    theta, S, residuals, limits = run.ritz_pairs(2, "LM")
    assert theta.shape == residuals.shape == limits.shape == (0,) and S.shape == (0, 0)
    assert run.ritz_spectrum()[0].shape == (0,)
    full = Recurrence(diagonal(np.arange(2.0)), 2)
    full.insert_block(np.eye(2))
    full.step()
    assert (full.m, full.p) == (2, 0) and full.insert_random(rng) == 0


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1.0, 1e200])
def test_orthonormalise_factors_its_rows_at_any_scale(scale, rng):
    """`orthonormalise` factors W into ``B' Q`` with orthonormal rows of Q at any scale. The norms
    that it returns are those of the parts of W that it drops.
    """
    W = rng.standard_normal((4, 9))
    W[2] = W[0] - 2 * W[1] + 1e-9 * W[3] / np.abs(W[3]).max()
    W *= scale
    Q = W.copy()
    B, dropped = orthonormalise(Q, floor=1e-6 * scale)
    Q = Q[: len(B)]
    assert B.shape == (3, 4) and np.allclose(Q @ Q.T, np.eye(3), rtol=0, atol=1e-14)
    left = W / scale - (B / scale).T @ Q
    assert np.allclose(np.linalg.norm(left, axis=1), dropped / scale, rtol=0, atol=1e-13)
    assert 0 < dropped[2] / scale < 1e-8 and not dropped[[0, 1, 3]].any()
    assert np.allclose(column_norms(W) / scale, np.linalg.norm(W / scale, axis=0), rtol=1e-14)


def test_a_narrowed_block_continues_within_the_chosen_span():
    """A block that is narrowed to given combinations of its rows spans these combinations, its
    coupling to the basis equals that from explicit products, and the next step keeps the basis
    orthonormal.
    """
    values = np.linspace(-1.0, 2.0, 40)
    run = Recurrence(diagonal(values), 30)
    run.insert_block(np.linalg.qr(np.cos(np.outer(np.arange(40.0), [1.0, 2.3, 3.1])))[0].T.copy())
    while run.m < 9:
        run.step()
    m, before, u = run.m, run.rows[run.m : run.m + 3].copy(), np.array([1.0, 2.0, 2.0]) / 3
    run.narrow_block(np.outer(u, [1.0, -2.0]))
    assert run.p == 1 and np.allclose(np.abs(run.rows[m] @ (u @ before)), 1, rtol=0, atol=1e-14)
    assert np.allclose(run.T[m, :m], (run.rows[m] * values) @ run.rows[:m].T, rtol=0, atol=1e-13)
    run.step()
    Q = run.rows[: run.m + run.p]
    assert run.m == m + 1 and np.allclose(Q @ Q.T, np.eye(len(Q)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_extreme_ritz_pairs_match_the_full_decomposition_of_T(which, scale, rng):
    """Extreme Ritz pairs, their residuals and the estimated norm of the operator match NumPy's full
    decomposition of T for every `which` and scale.
    """
    values = np.r_[np.linspace(-1, 1, 200), -3.0 if which == "LA" else 3.0]
    run = Recurrence(Prescribed(values * scale, rng=0), 70)
    run.insert_random(rng)
    while run.m < 60:
        run.step()
    whole, S = np.linalg.eigh(run.T[:60, :60] / scale)
    run.scale = 0.0
    theta, part, residuals, limits = run.ritz_pairs(4, which)
    picked = wanted_indices(whole, 4, which)
    assert run.scale == pytest.approx(np.abs(whole).max() * scale, rel=1e-13)
    assert np.allclose(theta / scale, whole[picked], rtol=0, atol=1e-13)
    assert np.allclose(np.abs(part.T @ S[:, picked]), np.eye(4), rtol=0, atol=1e-9)
    assert np.allclose(residuals, np.abs(run.T[60, 59] * part[-1]), rtol=1e-12)
    assert (limits >= residuals).all()
    values, first, known = run.ritz_spectrum()
    assert np.allclose(values / scale, whole, rtol=0, atol=1e-13)
    assert np.allclose(first**2, S[0] ** 2, rtol=0, atol=1e-9)
    assert np.allclose(known / scale, np.abs(run.T[60, 59] / scale * S[-1]), rtol=0, atol=1e-9)
    assert np.array_equal(run.ritz_vectors(picked).T, run.ritz_pairs(4, which)[1])


# --- memory of a basis, which is kept for the next run and freed with its owner


def test_runs_in_reused_memory_give_bitwise_identical_results(rng):
    spectrum = rng.standard_normal(4000)
    fresh, used = Prescribed(spectrum, rng=0), Prescribed(spectrum, rng=0)
    fc.spectral_density(used, 2, 60, rng=5)
    fc.eigsh(used, 3, "LA", rng=6, tol=1e-4)
    for call in (
        lambda op: fc.eigsh(op, 4, "BE", rng=1, tol=1e-4).vectors,
        lambda op: fc.spectral_density(op, 3, 40, rng=1).nodes,
    ):
        first = call(used)
        kept = first.copy()
        assert np.array_equal(first, call(fresh))
        call(used)
        assert np.array_equal(first, kept), "no result lies in memory that is used again"


def test_basis_memory_is_kept_once_and_freed_with_its_owner():
    """The memory of a basis is used again for curvatures of the same objective at any theta."""
    ob = fc.Objective(fc.MLP([2, 3, 1]), np.ones((4, 2)), np.ones(4), loss="mse")
    H = ob.hessian(ob.model.init(rng=0))
    assert memory_owner(H) is memory_owner(H.restrict(layers=0)) is ob
    op = Prescribed(SPECTRA["uniform"](np.random.default_rng(0)), rng=0)
    assert memory_owner(op) is op
    shape = (MIN_POOLED_BASIS_BYTES // 8 // 300 + 2, 300)
    double = np.dtype(float)
    with aligned_rows(op, shape, double) as first, aligned_rows(op, shape, double) as second:
        assert not np.shares_memory(first, second), "two at once have memory of their own"
    with aligned_rows(op, (shape[0] - 1, 300), double) as again:
        assert np.shares_memory(again, first) or np.shares_memory(again, second)
    with aligned_rows(op, (5, 300), np.dtype(np.float32)) as other:
        assert other.dtype == np.float32 and other.shape == (5, 300)
    gone = weakref.ref(again)
    del first, second, again, other, op
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", [[10, 10, 1], [60, 40, 3]])
def test_compiled_and_python_products_give_bitwise_identical_runs(sizes, threads, dtype):
    """A recurrence that calls the engine's plan directly has a basis and T that are bitwise
    identical to those of a recurrence that calls a Python operator with equal products.
    """
    net = draw(0, sizes, "tanh", "mse", N=200, dtype=dtype, n_threads=threads)
    H = net.ob.hessian(net.theta)
    other = LinearOperator(H.shape, matvec=lambda v: H.product(v.reshape(-1)), dtype=H.dtype)
    before, runs = H.n_products, [Recurrence(op, 40) for op in (H, other)]
    for run in runs:
        run.insert_random(np.random.default_rng(0))
        run.extend(30)
    one, two = runs
    assert one.m == two.m == one.n_products == two.n_products == 30
    assert H.n_products == before + 60
    assert np.array_equal(one.T, two.T) and np.array_equal(one.rows[:31], two.rows[:31])
    assert np.array_equal(one.err, two.err) and one.noise == two.noise


@pytest.mark.parametrize("at", [1, 4, 17])
def test_a_run_continues_bitwise_identically_after_a_product_raises(at, rng):
    """If a product raises, the run keeps the state of the last complete step, and continuing gives
    bitwise the results of an uninterrupted run.
    """
    values = rng.uniform(-1, 1, 300)
    calls = 0

    def multiply(v):
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return values * v.reshape(-1)

    op = LinearOperator((300, 300), matvec=multiply, dtype=float)
    ended, whole = Recurrence(op, 40), Recurrence(diagonal(values), 40)
    for run in (ended, whole):
        run.insert_random(np.random.default_rng(1))
    with pytest.raises(KeyboardInterrupt):
        ended.extend(30)
    assert ended.m == at - 1 == ended.n_products and ended.p == 1
    ended.extend(30)
    whole.extend(30)
    assert np.array_equal(ended.T, whole.T) and np.array_equal(ended.rows[:31], whole.rows[:31])
