"""The interface to LAPACK: error bounds against exact spectra, matrices of every scale, and drivers
that fail.
"""

from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.common import linalg
from fastcurv.spectrum.dense import dense_matrix
from fastcurv.spectrum.forms import MAX_DENSE_ROWS, matrix_of
from fastcurv.testing import PrescribedSpectrum

from .spectra import diagonal, symmetric

SCALES = [1e-300, 1e-160, 1e-20, 1.0, 1e20, 1e160, 1e300]


def integer_spectrum(n, rng):
    """Return an integer matrix that is exact in float64, and its sorted eigenvalues. The matrix is
    a diagonal matrix between two Householder reflections ``I - 2 v v' / v'v``, times the power of
    two ``(v'v)^2``.
    """
    v = np.zeros(n)
    v[rng.choice(n, min(n, 4), replace=False)] = 1.0
    w = float(v @ v)
    if w not in (1.0, 2.0, 4.0):
        v[:] = 0.0
        v[0] = w = 1.0
    spectrum = rng.integers(-9, 10, n).astype(float)
    Q = w * np.eye(n) - 2 * np.outer(v, v)
    return (Q * spectrum) @ Q, np.sort(w**2 * spectrum)


@pytest.mark.parametrize("n", [1, 2, 3, 17, 130, 200])
def test_every_eigenvalue_lies_within_its_proved_error(n, rng):
    """For matrices with exactly known spectra, eigenvalues are within their proved errors, and
    these are below 1e-13 n times the norm.
    """
    for scale in SCALES:
        A, truth = integer_spectrum(n, rng)
        A, truth = A * scale, truth * scale
        values, V, errors = linalg.eigh(A)
        assert (np.abs(values - truth) <= errors + 4e-16 * np.abs(truth)).all()
        assert errors.max() <= 1e-13 * n * np.abs(truth).max() + 1e-300
        assert np.abs(V.T @ V - np.eye(n)).max() < 1e-12
        plain = linalg.eigvalsh(A)
        assert np.allclose(plain, truth, rtol=0, atol=1e-14 * n * np.abs(truth).max())


def few_ends(n):
    """Yield three arrays of indices of n sorted eigenvalues: the last three, some at both ends, and
    all.
    """
    yield np.arange(n)[-3:]
    yield np.unique([0, 1 % n, n - 1])
    yield np.arange(n)


def kinds_of_matrices(n, rng):
    """Return six matrices of n rows: a random one, a block-diagonal one, one with clustered and one
    with repeated eigenvalues, the identity, and zero.
    """
    A = symmetric(rng, rng.standard_normal(n))
    apart = A.copy()
    apart[: n // 2, n // 2 :] = apart[n // 2 :, : n // 2] = 0
    close = symmetric(rng, 1 + 1e-15 * np.arange(n))
    return A, apart, close, symmetric(rng, np.arange(n) // 4 - 2.0), np.eye(n), np.zeros((n, n))


def graded_matrices(n, rng):
    """Yield tridiagonal matrices of n rows that are graded, split, nearly split or near underflow,
    and singular matrices whose zeros become rounding errors.
    """
    d, e = rng.standard_normal(n), rng.standard_normal(n - 1)
    forms = [(np.ones(n), e * 1e-20), (np.abs(np.arange(n) - n // 2) * 1.0, np.ones(n - 1))]
    for power in (20, 100, 290):
        for grade in (10.0 ** -np.linspace(0, power, n), 10.0 ** -np.linspace(power, 0, n)):
            forms.append((d * grade, e * np.sqrt(grade[1:] * grade[:-1])))
    for tiny in ([0, 1e-8, 1e-160, 1], [1e-69, 1e-71, 1], [1e-308, 1e-16, 1e-35]):
        forms.append((rng.choice([0.0, 1.0, -1.0], n), rng.choice(tiny, n - 1)))
        forms.append((d * rng.choice([0, 1, 1e-35, 1e-80], n), e * rng.choice(tiny, n - 1)))
    for d, e in forms:
        yield np.diag(d) + np.diag(e, 1) + np.diag(e, -1)
    for rank in (1, 5, 12):
        F = rng.standard_normal((rank, n)) * np.geomspace(1, 1e-9, rank)[:, None]
        for B in (F, F * np.geomspace(1, 1e-6, n), F * np.geomspace(1e-6, 1, n)):
            yield B.T @ B


@pytest.mark.parametrize("n", [1, 2, 5, 40, 41, 67, 180])
def test_selected_pairs_equal_those_of_the_full_decomposition(n, rng):
    for A in (*kinds_of_matrices(n, rng), *graded_matrices(n, rng)):
        A = (A + A.T) / 2 / (np.abs(A).max() or 1.0)
        truth, before = np.linalg.eigvalsh(A), A.copy()
        for wanted in few_ends(n):
            values, at, V = linalg.eigh_selected(A, lambda found, wanted=wanted: wanted)
            assert np.array_equal(A, before) and np.array_equal(at, wanted)
            assert np.abs(values - truth).max() <= 8 * n * np.finfo(float).eps
            assert np.abs(V.T @ V - np.eye(len(at))).max() <= 4e-15 * max(len(at), 10)
            assert np.abs(A @ V - V * values[at]).max() <= 8 * n * np.finfo(float).eps


@pytest.mark.parametrize("failing", [{"evd"}, {"evd", "evr"}])
def test_next_lapack_driver_is_tried_after_a_failure(failing, rng, monkeypatch):
    """If a LAPACK driver raises "Internal Error" for a finite matrix, or returns NaN or wrong
    results, the next driver is used.
    """
    A, truth = integer_spectrum(12, rng)
    whole = linalg._call_lapack

    def broken(M, driver, **rest):
        if driver == "evd" and "evd" in failing:
            raise np.linalg.LinAlgError("Internal Error.")
        found = whole(M, driver, **rest)
        if driver in failing:
            found = tuple(x * np.nan for x in found) if isinstance(found, tuple) else found * 2
        return found

    monkeypatch.setattr(linalg, "_call_lapack", broken)
    values, _, errors = linalg.eigh(A)
    assert (np.abs(values - truth) <= errors).all() and errors.max() < 1e-9
    assert np.allclose(linalg.eigvalsh(A), truth)


def test_an_error_is_raised_if_all_drivers_fail(monkeypatch):
    def broken(*args, **rest):
        raise np.linalg.LinAlgError("Internal Error.")

    monkeypatch.setattr(linalg, "_call_lapack", broken)
    monkeypatch.setattr(scipy.linalg, "eigh_tridiagonal", broken)
    for ask in (linalg.eigh, linalg.eigvalsh, fc.eigvalsh, fc.inertia):
        with pytest.raises(np.linalg.LinAlgError, match="all failed"):
            ask(np.eye(3))
    with pytest.raises(np.linalg.LinAlgError, match="all failed"):
        linalg.eigh_tridiagonal(np.ones(3), np.ones(2))


def test_eigenvalues_that_overflow_raise():
    with pytest.raises(ValueError, match="NaN or infinity"):
        linalg.eigh(np.array([[np.nan]]))
    with pytest.raises(np.linalg.LinAlgError, match="within the range of float64"):
        linalg.eigh(np.full((4, 4), 1.7e308))


@pytest.mark.parametrize("scale", SCALES)
def test_tridiagonal_matrices_of_any_scale_are_solved(scale, rng):
    n = 60
    d, e = rng.standard_normal(n), rng.standard_normal(n - 1)
    T = np.diag(d) + np.diag(e, 1) + np.diag(e, -1)
    truth = np.linalg.eigvalsh(T)
    values, V = linalg.eigh_tridiagonal(scale * d, scale * e)
    assert np.allclose(values / scale, truth, rtol=0, atol=1e-12)
    assert V.shape == (n, n)


def test_observed_asymmetry_is_included_in_the_error(rng):
    """The error bound of `inertia` includes the observed asymmetry, so a sign that the asymmetry
    could change is not proved.
    """

    def operator(P):
        return LinearOperator(P.shape, matvec=lambda v: P @ v, matmat=lambda V: P @ V, dtype=float)

    assert fc.inertia(operator(np.array([[1.0, 4.0], [0.0, 1.0]]))).n_negative == 0
    for _ in range(20):
        A, truth = integer_spectrum(30, rng)
        A /= np.abs(truth).max()
        P = A + 1e-7 * rng.standard_normal(A.shape)
        found = fc.inertia(operator(P))
        assert (
            np.abs(found.values - np.sort(truth) / np.abs(truth).max()).max() <= found.error_bound
        )
        assert found.n_positive <= (truth > 0).sum() and found.n_negative <= (truth < 0).sum()
        assert found.n_zero >= (truth == 0).sum()


@pytest.mark.parametrize("scale", SCALES)
def test_signs_are_proved_at_every_scale(scale):
    """Signs are proved correctly at every scale, and overflow or underflow never proves one."""
    found = fc.inertia(scale * np.array([[2.0, 1, 0], [1, 2, 0], [0, 0, -1]]))
    assert tuple(found) == (2, 1, 0) and found.error_bound < 1e-10 * scale

    op = diagonal([3.0 * scale, -scale])
    matrix = dense_matrix(op)
    assert 0 < matrix.error_bound() < 1e-10 * scale and tuple(fc.inertia(op)) == (1, 1, 0)


@pytest.mark.parametrize("n", [1, 7, 300])
def test_the_proof_adds_a_bound_on_its_own_rounding(n):
    """If V'V - I and AV - V diag(values) are exactly 0, the proved error is that of the roundings
    in their computation. It is gamma of the depth of the sums (Higham 2002, section 3.1) times the
    norms.
    """
    values = np.linspace(0.25, 1.0, n)
    depth = min(linalg.INNER_SLICE_LENGTH, n) + -(-n // linalg.INNER_SLICE_LENGTH) + 4
    gamma = depth * 2.0**-53 / (1 - depth * 2.0**-53)
    length = np.linalg.norm(values)
    E = gamma  # bound on the error of the computed V'V - I
    F = gamma * length + gamma * (min(n**0.5 * values[-1], length) + length)
    found = linalg._eigenpair_error_bounds(np.diag(values), values, np.eye(n))
    known = F + E * values
    assert (known <= found).all() and (found <= 1.1 * known).all()


def test_vectors_far_from_orthogonal_prove_nothing():
    assert np.isinf(
        linalg._eigenpair_error_bounds(np.eye(3), np.ones(3), np.full((3, 3), 0.8))
    ).all()
    assert linalg._eigenpair_error_bounds(
        np.zeros((0, 0)), np.zeros(0), np.zeros((0, 0))
    ).shape == (0,)


def mixed_spectrum(rng, low):
    """Return 2 to 39 eigenvalues with magnitudes from 10^low to 1, of which a random fraction,
    possibly none, is negative.
    """
    n = int(rng.integers(2, 40))
    signs = rng.choice([-1.0, 1.0], n, p=[(p := rng.uniform()), 1 - p])
    return signs * 10.0 ** rng.uniform(low, 0, n)


@pytest.mark.parametrize("low, n_zeros", [(-3.0, 0), (-13.0, 0), (-3.0, 19)])
def test_joint_proofs_give_the_signs_of_the_exact_matrix(low, n_zeros, rng):
    """At any scale, the proved signs are those of the exact matrix, except for up to 19 eigenvalues
    within the error of the matrix. The proved floor of the other magnitudes is close to the least
    one, and the ends of the spectrum satisfy their bound.
    """
    proved = 0
    for _ in range(150):
        scale = 10.0 ** rng.integers(-250, 250)
        beside = 10.0 ** rng.uniform(-12, -3) if n_zeros else 0.0
        sure = mixed_spectrum(rng, low)
        sure = sure[np.abs(sure) > 3 * beside]
        values = np.append(sure, beside * rng.uniform(-0.9, 0.9, rng.integers(n_zeros + 1)))
        A = symmetric(rng, values) * scale
        found, rounding = linalg.eigh_with_joint_signs(A, beside * scale), 10 * linalg.eigh(A).error
        if not isinstance(found, linalg.JointSigns):
            continue
        proved += 1
        reach, least = beside * scale + found.error, np.abs(sure).min() * scale
        assert (found.values > reach).sum() == (sure > 0).sum()
        assert (found.values < -reach).sum() == (sure < 0).sum()
        floor = np.abs(found.values)[np.abs(found.values) > reach].min() - found.error
        assert beside * scale < floor <= least + rounding
        assert floor >= 0.99 * least - rounding
        ends = np.array([values.min(), values.max()]) * scale
        assert (np.abs(found.values[[0, -1]] - ends) <= found.ends + rounding).all()
    assert proved >= 60


def test_wrong_eigenpairs_prove_no_wrong_sign(monkeypatch, rng):
    """If LAPACK returns eigenpairs that are wrong in one of six ways, no wrong sign is proved."""
    proved, honest = 0, linalg._call_lapack

    def wrong(S, driver, only=False):
        values, V = (np.array(x) for x in honest(S, driver))
        i, j = rng.integers(len(values), size=2)
        way = rng.integers(6)
        if way == 0:
            values[i] = -values[i]
        elif way == 1:
            values = values * (1 + 10.0 ** rng.uniform(-8, 1))
        elif way == 2:
            V[:, [i, j]] = V[:, [j, i]]
        elif way == 3:
            V = V + 10.0 ** rng.uniform(-9, 0) * rng.standard_normal(V.shape)
        elif way == 4:
            V[:, i] = V[:, j]
        else:
            values = values + 10.0 ** rng.uniform(-9, 0) * rng.standard_normal(len(values))
        return values, V

    for _ in range(600):
        A = symmetric(rng, mixed_spectrum(rng, -3.0))
        each, beside = linalg.eigh(A), rng.choice([0.0, 1e-2])
        with monkeypatch.context() as patched:
            patched.setattr(linalg, "_call_lapack", wrong)
            try:
                found = linalg.eigh_with_joint_signs(A, beside)
            except np.linalg.LinAlgError:
                continue
        if isinstance(found, linalg.JointSigns):
            proved += 1
            known = found.values[np.abs(found.values) > beside + found.error]
            floor = np.abs(known).min() - found.error - each.error
            assert (known > 0).sum() <= (each.values >= floor).sum()
            assert (known < 0).sum() <= (each.values <= -floor).sum()
            assert len(known) == len(A) or beside > 0
            for i in (0, -1):
                gap = np.abs(each.values - found.values[i]).min()
                assert gap <= found.ends + each.error
    assert proved >= 60


@pytest.mark.parametrize("n", [1, 2, 3, 40])
@pytest.mark.parametrize("shift", [1e-4, 3.0])
def test_cholesky_floor_is_lowered_by_rumps_bound(n, shift):
    """The gap between the shift and the proved floor is Rump's ``gamma / (1 - gamma) trace(B)``,
    with gamma of n + 1 operations, plus the rounding of ``A - shift``. If nothing is proved, the
    floor is 0.
    """
    d = 1e9 * (1 + np.arange(n) % 3)
    floor = linalg.cholesky_eigenvalue_floor(np.diag(d), shift)
    u = Fraction(2) ** -53
    gamma = (n + 1) * u / (1 - (n + 1) * u)
    B = sum(Fraction(x) - Fraction(shift) for x in d)
    lost = gamma / (1 - gamma) * B + u * (Fraction(d.max()) + Fraction(shift))
    assert shift - floor == pytest.approx(float(lost), rel=2e-6, abs=4e-16 * shift)
    for bad in (0.0, -1.0, 1e9, np.nan):
        assert linalg.cholesky_eigenvalue_floor(np.diag(d), bad) == 0


def test_singular_values_use_qr_if_divide_and_conquer_fails(dtype, rng, monkeypatch):
    """If the divide-and-conquer driver fails, QR gives equal singular values. A matrix with NaN
    still raises the error.
    """
    A = rng.standard_normal((7, 4)).astype(dtype)
    expected = np.linalg.svd(A, compute_uv=False)

    def broken(*args, **rest):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", broken)
    room = 50 * np.finfo(dtype).eps * expected[0]
    assert np.abs(linalg.svdvals(A) - expected).max() < room
    for whole in (False, True):
        U, sizes, Vt = linalg.svd(A, whole)
        assert U.shape == (7, 7 if whole else 4) and sizes.dtype == dtype
        assert np.abs((U[:, :4] * sizes) @ Vt - A).max() < room
    A[3, 1] = np.nan
    with pytest.raises(np.linalg.LinAlgError, match="did not converge"):
        linalg.svd(A)
    monkeypatch.setattr(scipy.linalg, "svd", broken)
    with pytest.raises(np.linalg.LinAlgError, match="did not converge"):
        linalg.svdvals(np.eye(2))


def test_matrices_of_the_smallest_and_largest_numbers_are_solved():
    empty = linalg.eigh(np.zeros((0, 0)))
    assert empty.values.shape == (0,) and empty.error == 0
    with pytest.raises(ValueError, match="must be square"):
        linalg.eigh(np.zeros((2, 3)))
    huge = PrescribedSpectrum(np.arange(float(MAX_DENSE_ROWS + 1)))
    with pytest.raises(ValueError, match=f"n <= {MAX_DENSE_ROWS}"):
        matrix_of(huge)


@pytest.mark.parametrize("bound", [np.nan, -1.0])
def test_invalid_error_bounds_are_rejected(bound):
    class Bounded(PrescribedSpectrum):
        def rounding_bound(self, v):
            return bound

    with pytest.raises(ValueError, match=r"^error bounds of the operator must "):
        dense_matrix(Bounded(np.arange(5.0)))


def test_the_more_accurate_of_two_products_is_kept():
    """Entries (i, j) and (j, i) of a dense matrix are both taken from the column with the smaller
    bound, or from the mean for equal bounds.
    """

    class Half:
        shape, dtype = (3, 3), np.dtype(float)

        def __matmul__(self, V):
            return np.array([[2.0, 1.0, 0.0], [1.5, 2.0, 0.0], [0.0, 0.5, 2.0]]) @ V

        def rounding_bound(self, v):
            return float(v[0] == 0)

    made = dense_matrix(Half())
    assert np.array_equal(made.A, [[2.0, 1.5, 0.0], [1.5, 2.0, 0.25], [0.0, 0.25, 2.0]])
    assert np.allclose(made.asymmetry, [0.5, 0.5**0.5, 0.5])
