"""Parts of the Krylov methods alone, where something ends: a basis, a budget, the numbers."""

import warnings

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.common.progress import bar
from fastcurv.common.vectors import Seeker, dot, norm
from fastcurv.krylov.lanczos import (
    Recurrence,
    bring_near_one,
    column_lengths,
    kept_at_restart,
    orthonormalise,
    wanted,
)
from fastcurv.krylov.solvers import Workspace, _slow_direction, _too_slow, minres
from fastcurv.krylov.trust_region import blind
from fastcurv.spectrum import dense, eigsh
from fastcurv.spectrum.density import run_probe
from fastcurv.spectrum.reduced import reduced_pairs
from fastcurv.spectrum.trace import ALIKE, CountingRows, mean_of, random_signs, widened

from ..nets import EPS
from .spectra import Prescribed, diagonal, hessian_like, symmetric

# --- conjugate gradients that are too slow


def conjugate_gradients(H, g, eps, j):
    """The iterate and residual of CG on ``(H + 2 eps) y = -g`` after j steps."""
    A = H + 2 * eps * np.eye(len(g))
    y, r, p = np.zeros_like(g), g.copy(), -g
    for _ in range(j):
        step = (r @ r) / (p @ A @ p)
        y, before = y + step * p, r @ r
        r = r + step * (A @ p)
        p = -r + (r @ r) / before * p
    return y, r


@pytest.mark.parametrize("lowest, shows", [(-1.5, True), (0.5, False)])
def test_a_difference_of_iterates_shows_the_curvature(lowest, shows, rng):
    """``H + 2 eps`` is positive, so no form of CG is negative; -1.5 eps is found all the same."""
    eps, n, j = 1e-2, 20, 14
    H = symmetric(rng, np.r_[lowest * eps, np.linspace(1, 2, n - 1)])
    g = np.linalg.eigh(H)[1] @ np.r_[1e-2, np.ones(n - 1)]
    work = Workspace(n, np.dtype(float))
    work.y[:], work.r[:] = conjugate_gradients(H, g, eps, j)
    last, products = work.y.copy(), []

    def multiply(v, out):
        products.append(1)
        np.matmul(H, v, out=out)

    d, curvature = _slow_direction(multiply, g, eps, j, work)
    if shows:
        true = (d @ H @ d) / (d @ d)
        assert true <= -eps and curvature == pytest.approx(true, rel=1e-6) and len(products) < j
    else:
        assert curvature is None and np.array_equal(d, last) and len(products) == j


def test_slow_is_above_the_guarantee_of_a_positive_matrix():
    """The bound of [Royer et al. 2020] for kappa = (1 + 2 eps) / eps, evaluated another way."""
    eps, bound = 0.1, 1.0
    kappa = (bound + 2 * eps) / eps
    tau = kappa**0.5 / (kappa**0.5 + 1)
    for j in (1, 10, 100, 400):
        guaranteed = 4 * kappa**4 / (1 - tau**0.5) ** 2 * tau**j
        assert _too_slow(j, guaranteed * (1 + 1e-9), bound, eps)
        assert not _too_slow(j, guaranteed * (1 - 1e-9), bound, eps)
    assert not _too_slow(10**9, 0.0, bound, eps)
    for kappa in (1e22, 1e40):  # tau is 1 to rounding, and 1 - tau^1/2 is 1 / (2 kappa^1/2)
        assert _too_slow(3, 16 * kappa**5 * (1 + 1e-7), eps * kappa, eps)
        assert not _too_slow(3, 16 * kappa**5 * (1 - 1e-7), eps * kappa, eps)


# --- recurrences


def test_a_recurrence_refuses_what_is_not_finite():
    one = LinearOperator((40, 40), matvec=lambda v: np.full(40, 1.7e308 * np.sign(v.sum())))
    with pytest.raises(ValueError, match="not finite"):  # numbers are, their norm is not
        fc.eigsh(one, 2, v0=np.ones(40), seed=0)
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="not finite"):
        fc.eigsh(diagonal(np.full(40, np.nan)), 2, v0=np.eye(40)[:, :2])


def test_room_that_is_there_and_vectors_that_are_not(rng):
    run = Recurrence(diagonal(np.arange(5.0)), 3)
    rows = run.rows
    run.reserve(2)
    assert run.capacity == 3 and run.rows is rows
    theta, S, residuals, limits = run.ritz(2, "LM")
    assert theta.shape == residuals.shape == limits.shape == (0,) and S.shape == (0, 0)
    assert run.ritz_values(2, "LM").shape == run.ritz_spectrum()[0].shape == (0,)
    full = Recurrence(diagonal(np.arange(2.0)), 2)
    full.insert(np.eye(2))
    full.step()
    assert (full.m, full.p) == (2, 0) and full.insert_random(rng) == 0


def test_probes_of_signs_that_lie_in_what_was_taken_out_are_drawn_again(shown=None):
    """In two dimensions half of all signs are a multiple of (1, 1)."""
    against = np.full((1, 2), 0.5**0.5)
    for seed in range(8):
        run = Recurrence(diagonal([1.0, 3.0]), 2, against=against)
        with bar(None, "", False) as shown:
            run_probe(run, np.random.default_rng(seed), 1, shown)
        assert run.m == 1 and run.T[0, 0] == pytest.approx(2.0, rel=1e-14)
        assert np.allclose(np.abs(run.rows[0]), 0.5**0.5, rtol=1e-14)


def test_rows_whose_squares_would_leave_the_range_are_brought_near_one(rng):
    """By a power of two, which rounds nothing; others, and what is no number, stay."""
    for dtype, large in (("float64", 1e200), ("float32", 1e30)):
        rows = rng.standard_normal((5, 7)).astype(dtype)
        W = rows * np.array([[1.0], [large], [1 / large], [np.nan], [1e8]], dtype)
        before = W.copy()
        bring_near_one(W)
        sizes = np.abs(W).max(axis=1)
        assert ((sizes[[1, 2]] >= 0.5) & (sizes[[1, 2]] <= 1)).all()
        assert np.array_equal(W[[0, 4]], before[[0, 4]]) and np.isnan(W[3]).all()
        share = before[1] / W[1]
        assert (share == share[0]).all() and np.frexp(share[0])[0] == 0.5


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1.0, 1e200])
def test_rows_are_orthonormal_and_add_up_to_what_they_were(scale, rng):
    """``W = B' Q`` but for what was dropped, whose length is told; at any scale."""
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
    assert np.allclose(column_lengths(W) / scale, np.linalg.norm(W / scale, axis=0), rtol=1e-14)


@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
def test_a_restart_keeps_what_is_wanted_and_their_neighbours(which):
    """Those that would be wanted of more; distances are from the innermost wanted one."""
    values = np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])
    for k in (1, 3, 4):
        kept = kept_at_restart(values, k, which, 5)
        assert {*wanted(values, k, which)} <= {*kept} and k <= len(kept) <= 5
        assert np.array_equal(kept, wanted(values, len(kept), which))
    few = values[wanted(values, 4, which)]
    expected = {
        "LA": few - 0.0, "SA": 0.5 - few, "LM": np.abs(few) - 1.0,
        "BE": np.array([1.0, 0.0, 0.0, 2.0]),
    }[which]  # fmt: skip
    run = Recurrence(diagonal(values), 6)
    for by_value, tol, noise in ((False, 0.3, 0.1), (False, 0.1, 0.4), (True, 0.4, 0.0)):
        run.scale, run.noise = 3.0, noise
        distance, far, near = Seeker(run, 4, which, tol, by_value, np.inf, 2.5).outside(few)
        assert np.array_equal(distance, expected)
        inner = few[[1, 1, 2, 2]] if which == "BE" else few[expected.argmin()]
        own = np.maximum(tol * np.abs(inner) if by_value else tol * 3.0, 2 * noise)
        assert np.array_equal(far, expected > 2 * own)
        assert near == (expected[~far].max() if expected[~far].max() > 4 * noise else 0.0)


@pytest.mark.parametrize("n, risk, least", [(5, 0.2, 0.1), (60, 0.05, 0.1), (400, 0.05, 0.7)])
def test_random_starts_miss_as_seldom_as_is_said(n, risk, least, rng):
    """A part of ``exp(-blind / 2)`` or less along one direction, of 20 000 drawn: within four of
    its own standard deviations, and not much less often.
    """
    V = rng.standard_normal((20_000, n))
    part = np.abs(V[:, 0]) / np.linalg.norm(V, axis=1)
    missed = np.mean(part <= np.exp(-blind(n, risk) / 2))
    assert least * risk < missed <= risk + 4 * (risk / 20_000) ** 0.5


def test_a_block_narrowed_to_a_span_goes_on_as_that_span():
    """Its rows are what the span picks of them, and couple with the basis as products say."""
    values = np.linspace(-1.0, 2.0, 40)
    run = Recurrence(diagonal(values), 30)
    run.insert(np.linalg.qr(np.cos(np.outer(np.arange(40.0), [1.0, 2.3, 3.1])))[0].T.copy())
    while run.m < 9:
        run.step()
    m, before, u = run.m, run.rows[run.m : run.m + 3].copy(), np.array([1.0, 2.0, 2.0]) / 3
    run.narrow_block(np.outer(u, [1.0, -2.0]))
    assert run.p == 1 and np.allclose(np.abs(run.rows[m] @ (u @ before)), 1, rtol=0, atol=1e-14)
    assert np.allclose(run.T[m, :m], (run.rows[m] * values) @ run.rows[:m].T, rtol=0, atol=1e-13)
    run.step()
    Q = run.rows[: run.m + run.p]
    assert run.m == m + 1 and np.allclose(Q @ Q.T, np.eye(len(Q)), rtol=0, atol=1e-13)


def test_minres_on_nothing_and_on_what_overflows():
    b = np.array([3.0, 4.0])
    assert np.array_equal(minres(lambda v: 0 * v, b, 5, 1e-8), b), "the right side itself"
    with np.errstate(all="ignore"):
        found = minres(lambda v: np.full(2, np.inf), b, 5, 1e-8)
    assert np.array_equal(found, b)
    A = np.diag([2.0, -4.0])
    assert np.allclose(minres(lambda v: A @ v, b, 5, 1e-12), [1.5, -1.0], rtol=1e-12)


# --- smaller spaces


@pytest.fixture(scope="module")
def wide():
    rng = np.random.default_rng(0)
    ob = fc.Objective(
        fc.MLP([200, 100, 2]), rng.standard_normal((3, 200)), rng.random((3, 2)), "mse"
    )
    return ob.hessian(ob.model.init(seed=0))


def test_pairs_in_sample_space_off_known_ones(wide):
    """Off no columns it is the plain search; off all there is, there is none."""
    plain = fc.eigsh(wide, 3, "LA", seed=0, space="samples")
    none = fc.eigsh(wide, 3, "LA", seed=0, space="samples", against=np.zeros((wide.shape[0], 0)))
    assert np.allclose(none.values, plain.values, rtol=1e-9)
    small = wide.reduced("samples")
    E = np.stack([small.embed(e) for e in np.eye(small.shape[0], dtype=small.dtype)])
    assert reduced_pairs(None, small, None, None, None, E.T) is None


def test_a_matrix_too_large_is_written_down_in_the_smaller_space(wide, monkeypatch):
    small = wide.reduced("samples")
    exact = np.linalg.eigvalsh(small @ np.eye(small.shape[0]))
    monkeypatch.setattr(dense, "LARGEST_DENSE", 1000)
    values = fc.eigvalsh(wide)
    size = np.abs(exact).max()
    assert values.shape == (wide.shape[0],)
    assert np.allclose(values[[0, -1]], exact[[0, -1]], rtol=0, atol=1e-12 * size)
    assert (np.abs(values) > 1e-12 * size).sum() == (np.abs(exact) > 1e-12 * size).sum()
    assert dense.dense_reduction(diagonal(np.ones(2000)), None) is None
    monkeypatch.setattr(dense, "LARGEST_DENSE", 2)
    assert dense.dense_reduction(wide, None) is None


def test_densities_of_other_operators_do_not_merge():
    one, other = (
        fc.spectral_density(Prescribed(np.arange(float(n)), seed=0), n_probes=2, n_steps=5, seed=0)
        for n in (20, 21)
    )
    for wrong in (other, None):
        with pytest.raises(ValueError, match="an operator of the same size"):
            one.merge(wrong)
    both = one.merge(one)
    assert both.n_probes == 4 and np.allclose(both.density, one.density)


def test_no_probe_where_nothing_inside_could_be_pushed_out():
    """Of one wanted value no copy matters: none is looked for, and the search says so."""
    op = Prescribed(np.linspace(-1.0, 3.0, 300), seed=0)
    one = fc.eigsh(op, 1, "LA", seed=0)
    plain = fc.eigsh(op, 1, "LA", seed=0, probe=False)
    assert one.probed and one.n_products == plain.n_products
    assert np.array_equal(one.vectors, plain.vectors)


@pytest.mark.parametrize("m", [ALIKE, ALIKE + 1, 40])
def test_the_spread_of_a_trace_counts_every_entry(m):
    """Twice the sum of the variances of ``v_i (Hv)_i``, where products are made; against the
    entries of the same signs.
    """
    rng = np.random.default_rng(5)
    A = rng.standard_normal((30, 30))
    A = A + A.T
    V = random_signs(np.random.default_rng(0), m, 30, np.dtype(float))
    entries = V * (V @ A)
    found = fc.trace(A, m, method="hutchinson", seed=0)
    mean, spread = mean_of(entries.sum(axis=1))
    both = (2 * entries.var(axis=0, ddof=1).sum() / m) ** 0.5
    assert found.estimate == pytest.approx(mean, rel=1e-12)
    assert found.stderr == pytest.approx(max(spread, widened(m) * both), rel=1e-9)


@pytest.mark.parametrize("m", [2, 3, ALIKE - 1])
def test_few_samples_of_a_trace_are_of_any_direction(m):
    """As long as signs are, and never all alike; the error is that of their mean."""
    rng = np.random.default_rng(5)
    A = rng.standard_normal((30, 30))
    A = A + A.T
    V = np.random.default_rng(0).standard_normal((m, 30))
    V *= 30**0.5 / np.linalg.norm(V, axis=1, keepdims=True)
    mean, spread = mean_of(np.einsum("ij,jk,ik->i", V, A, V))
    found = fc.trace(A, m, method="hutchinson", seed=0)
    assert found.estimate == pytest.approx(mean, rel=1e-12)
    assert found.stderr == pytest.approx(spread, rel=1e-9) and spread > 0


@pytest.mark.parametrize("what", ["trace", "frobenius_norm", "diagonal"])
def test_a_method_that_is_named_is_the_one_that_is_used(what):
    op, estimate = Prescribed(np.linspace(1.0, 3.0, 60), seed=0), getattr(fc, what)
    for m in (6, 9, 40):
        assert estimate(op, m, method="hutchinson", seed=0).method == "hutchinson"
    assert estimate(op, 40, seed=0).method != "hutchinson", "of its own accord it takes a sketch"


def test_any_number_of_rows_is_multiplied():
    A = np.arange(36.0).reshape(6, 6)
    for op in (A + A.T, LinearOperator((6, 6), matvec=lambda v: (A + A.T) @ v, dtype=float)):
        for k in range(1, 20):
            counted, V = CountingRows(op), np.cos(np.arange(6.0 * k)).reshape(k, 6)
            found = counted.products(V)
            assert found.shape == (k, 6) and np.allclose(found, V @ (A + A.T), rtol=1e-13)
            assert counted.n_products == k


@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_ends_of_a_long_recurrence_are_those_of_all_of_it(which, scale, rng):
    """The same pairs, and the largest size at either end, of which not every end is asked for."""
    values = np.r_[np.linspace(-1, 1, 200), -3.0 if which == "LA" else 3.0]
    run = Recurrence(Prescribed(values * scale, seed=0), 70)
    run.insert_random(rng)
    while run.m < 60:
        run.step()
    whole, S = np.linalg.eigh(run.T[:60, :60] / scale)
    run.scale = 0.0
    theta, part, residuals, limits = run.ritz(4, which)
    picked = wanted(whole, 4, which)
    assert run.scale == pytest.approx(np.abs(whole).max() * scale, rel=1e-13)
    assert np.allclose(theta / scale, whole[picked], rtol=0, atol=1e-13)
    assert np.allclose(np.abs(part.T @ S[:, picked]), np.eye(4), rtol=0, atol=1e-9)
    assert np.allclose(residuals, np.abs(run.T[60, 59] * part[-1]), rtol=1e-12)
    assert (limits >= residuals).all()
    assert np.allclose(run.ritz_values(4, which), theta, rtol=0, atol=1e-13 * scale)
    values, first, known = run.ritz_spectrum()
    assert np.allclose(values / scale, whole, rtol=0, atol=1e-13)
    assert np.allclose(first**2, S[0] ** 2, rtol=0, atol=1e-9)
    assert np.allclose(known / scale, np.abs(run.T[60, 59] / scale * S[-1]), rtol=0, atol=1e-9)
    assert np.array_equal(run.ritz_vectors(picked).T, run.ritz(4, which)[1])


@pytest.mark.parametrize("m", [1, 2, 3, 17, 200])
@pytest.mark.parametrize("kind", ["random", "graded", "split", "multiple", "diagonal"])
def test_eigenpairs_of_tridiagonal_matrices(m, kind, rng):
    """All values and vectors to the rounding of LAPACK's, whatever the matrix is like."""
    d, e = rng.standard_normal((2, m))
    if kind == "graded":
        d, e = d * 10.0 ** -np.arange(m), e * 10.0 ** -np.arange(m)
    elif kind == "split":
        e[::3] = 0
    elif kind == "multiple":
        d[:], e[:] = 1.0, 1e-9
    elif kind == "diagonal":
        e[:] = 0
    run = Recurrence(diagonal(np.ones(m + 1)), m + 1)
    run.widen_projection(m + 1)
    run.T[range(m), range(m)] = d
    run.T[range(m - 1), range(1, m)] = run.T[range(1, m), range(m - 1)] = e[: m - 1]
    run.m, T = m, run.T[:m, :m]
    exact, size = np.linalg.eigvalsh(T), np.abs(T).max() * m**0.5
    for tridiagonal in (True, False):
        run.tridiagonal = tridiagonal
        values, first, _ = run.ritz_spectrum()
        S = run.ritz_vectors(np.arange(m)).T
        assert np.abs(values - exact).max() <= 20 * EPS["float64"] * size
        assert np.abs(T @ S - S * values).max() <= 20 * EPS["float64"] * size
        assert np.abs(S.T @ S - np.eye(m)).max() <= 20 * EPS["float64"] * m**0.5
        assert np.abs(np.abs(S[0]) - np.abs(first)).max() <= 20 * EPS["float64"] * m**0.5


@pytest.mark.parametrize("n", [3, 9000])
def test_lengths_whose_squares_overflow_come_without_a_warning(n, dtype):
    """NumPy's own dot warns of it, where there are NaNs too: on some processors only."""
    huge = np.full(n, np.sqrt(np.finfo(dtype).max) * 2, dtype)
    lost = np.r_[np.full(n - 2, np.nan), huge[:2]].astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert norm(huge) == pytest.approx(float(huge[0]) * n**0.5, rel=1e-6)
        assert np.isnan(norm(lost)) and np.isnan(dot(lost, huge))
        assert np.isinf(dot(huge, huge)) or dtype == "float32" and n > 8192  # summed in float64


def test_a_search_looks_at_few_of_its_steps(monkeypatch):
    """A look is worth a product of a small network: at most every fifth step has one, and not a
    twentieth of the products is past the first at which all were converged.
    """
    op = Prescribed(hessian_like(np.random.default_rng(0)), seed=0)
    whole, looks = eigsh.ThickRestart.look, []

    def ask():
        looks.clear()
        return fc.eigsh(op, 5, "SA", tol=1e-7, probe=False, seed=0).n_products

    monkeypatch.setattr(eigsh.ThickRestart, "look", lambda self: looks.append(1) or whole(self))
    usual, few = ask(), len(looks)
    monkeypatch.setattr(eigsh.ThickRestart, "schedule", at_once)
    first, every = ask(), len(looks)
    assert 5 * few <= usual and 5 * few <= every
    assert first <= usual <= 1.05 * first


def at_once(self, excess):
    self.next_look = self.run.m + 1
