"""`eigsh` finds repeated eigenvalues, of which a single start shows one copy, or reports which
copies may be missed.
"""

import numpy as np
import pytest

from fastcurv import eigsh
from fastcurv.common.vectors import log_polynomial_growth
from fastcurv.krylov.lanczos import Recurrence
from fastcurv.krylov.trust_region import max_log_growth
from fastcurv.testing import PrescribedSpectrum

from .spectra import picked, symmetric


@pytest.mark.parametrize("which", ["SA", "LA", "LM"])
@pytest.mark.parametrize("n", [4, 9, 33, 64])
def test_no_repeated_eigenvalue_is_missed_in_small_spaces(n, which):
    """In up to 64 dimensions, where a second start may span the whole space, no copy of an
    eigenvalue of multiplicity three is missed.
    """
    for seed in range(6):
        rng = np.random.default_rng(seed)
        values = np.sort(np.repeat(rng.standard_normal(-(-n // 3)), 3)[:n] * 10.0)
        pairs = eigsh(symmetric(rng, values), k=3, which=which, rng=seed)
        assert pairs.converged.all() and pairs.probed and pairs.missed_within == 0
        assert np.allclose(pairs.values, picked(values, 3, which), atol=1e-6)
        assert pairs.n_products <= 2 * n
        assert "copies" not in repr(pairs)


@pytest.mark.parametrize(("near", "options"), [(8e-8, {}), (1e-3, {"tol": 1e-4})])
def test_eigenvalues_within_the_tolerance_are_distinguished(near, options):
    """If two repeated eigenvalues differ by less than the tolerance, all copies of the larger one
    are returned, up to `missed_within` and the residuals.
    """
    for n in (30, 90):
        values = np.repeat([-10.0, -near / 4, near], n // 3)
        pairs = eigsh(np.diag(values), 8, "LA", rng=0, **options)
        off = np.abs(pairs.values - near).max()
        assert pairs.converged.all() and pairs.probed
        assert off <= pairs.missed_within + pairs.residuals.max()
        assert n > 64 or pairs.missed_within == 0


def clustered(seed):
    """Return a matrix in a random orthogonal basis, its eigenvalues, and arguments k and `which` of
    `eigsh`. A cluster of 2 to 5 eigenvalues, 1e-12 to 1e-6 of the norm apart, lies at an end of the
    spectrum or up to two positions inside.
    """
    rng = np.random.default_rng(seed)
    size, outer, n_inner = int(rng.integers(2, 6)), max(0, int(rng.integers(-3, 3))), seed % 2
    n_others = int(rng.integers(100, 401)) - size
    others = [
        np.linspace(1e-3, 1, n_others),
        np.geomspace(1e-3, 1, n_others),
        rng.uniform(1e-3, 1, n_others),
    ][rng.integers(3)]
    others = np.sort(others)
    middle = others[outer - 1 : outer + 1].mean() if outer else 0.0
    distances = 10.0 ** rng.uniform(-12, -6) * np.cumsum(rng.uniform(0.5, 1.5, size))
    values = np.r_[others, middle + distances]
    which = ["SA", "LA", "LM"][rng.integers(3)]
    values = values if which == "SA" else 1 - values
    return symmetric(rng, values), values, outer + size + n_inner, which


def count_silent_misses(first, last):
    """Return the number of searches whose values lie farther inside the spectrum than the wanted
    eigenvalues, by more than `missed_within` and the tolerance, for seeds from `first` to `last -
    1`. The matrix may not replace the search.
    """
    wrong = 0
    for seed in range(first, last):
        A, values, k, which = clustered(seed)
        pairs = eigsh(A, k, which, rng=seed, max_basis=len(A))
        inward = pairs.values - picked(values, k, which)
        inward = inward if which == "SA" else -inward
        wrong += not inward.max() <= pairs.missed_within + 2 * pairs.tol * pairs.scale
    return wrong


@pytest.mark.parametrize("distance", [1e-9, 1e-8])
def test_eigenvalues_as_close_as_the_residuals_are_found(distance):
    """All three eigenvalues of a cluster are found if their distances are near the residuals at
    which the search converges, so that its basis contains part of the third eigenvector.
    """
    values = np.r_[distance * np.arange(3), np.linspace(1e-3, 1, 253)]
    for seed in range(6):
        pairs = eigsh(symmetric(np.random.default_rng(seed), values), 3, "SA", rng=seed)
        assert np.abs(pairs.values - values[:3]).max() <= pairs.residuals.max() + 1e-15


@pytest.mark.nightly
def test_at_most_1_percent_of_searches_miss_eigenvalues_of_close_clusters():
    # each search may miss an eigenvalue with a probability of 0.3%
    assert count_silent_misses(0, 1000) <= 10


def test_searches_that_stop_early_bound_the_missed_copies():
    """If a search for pairs deep inside a wide spectrum stops early, in at least 18 of 20 cases a
    missed copy is no further out than `missed_within`.
    """
    wrong = missed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = np.sort(np.concatenate([np.repeat(rng.uniform(-3, 0, 60), 2), [40, 50, 60]]))
        op = PrescribedSpectrum(values, rng=seed)
        enough = eigsh(op, 4, "SA", rng=seed, probe=False).n_products
        pairs = eigsh(op, 4, "SA", rng=seed, max_products=enough + 6)
        gap = np.max(pairs.values - picked(values, 4, "SA"))
        missed += gap > 1e-6
        wrong += gap > pairs.missed_within + 1e-6
        assert not (gap > 1e-6 and "4 converged" in repr(pairs))
    assert missed and wrong <= 2


def test_log_growth_gives_the_part_of_an_eigenvector_in_a_run(rng):
    """For an eigenvector z with component w in the start, ``sum_j <q_j, z>^2`` over basis vectors
    q_j equals ``w^2 exp(log_polynomial_growth)``. The sum may exceed the range of float64.
    """
    far = log_polynomial_growth(np.zeros(60), np.ones(59), [1e3])[0]
    assert far == pytest.approx(2 * 59 * np.log(1e3), rel=1e-5)
    values = np.linspace(0, 1, 200)
    op = PrescribedSpectrum(values, rng=3)
    run = Recurrence(op, 40)
    run.insert_random(rng)
    for _ in range(30):
        run.step()
    T = run.T[: run.m, : run.m]
    for i in (0, 1, 199):
        z = op.eigenvector(i)
        held = run.rows[: run.m] @ z
        grown = log_polynomial_growth(np.diag(T), np.diag(T, 1), values[[i]])[0]
        assert np.isclose(held @ held, held[0] ** 2 * np.exp(grown), rtol=1e-6)


@pytest.mark.parametrize("seed", [15257, 0, 1])
def test_the_lowest_eigenvalue_is_not_confused_with_another(seed):
    """For six copies of the lowest eigenvalue -1.1e-8, one eigenvalue -8e-9 and zeros, the lowest
    eigenvalue is returned, because it is computed from the matrix.
    """
    rng = np.random.default_rng(seed)
    values = np.r_[np.repeat(-1.12787499e-8, 6), -7.9908688e-9, np.zeros(20), 0.1 * rng.random(23)]
    pairs = eigsh(symmetric(rng, values), 1, "SA", tol=1e-10, rng=seed)
    assert abs(pairs.values[0] + 1.12787499e-8) <= 1e-15 and pairs.missed_within == 0
    assert pairs.n_products == 0, "the matrix was there"


@pytest.mark.parametrize("options", [{"probe": False}, {"v0": np.eye(100)[:, :2] + 0.1}])
def test_missed_copies_are_not_bounded_without_a_probe(options):
    rng = np.random.default_rng(0)
    pairs = eigsh(symmetric(rng, np.linspace(0, 1, 100)), k=3, which="LA", rng=0, **options)
    assert not pairs.probed and pairs.missed_within == np.inf
    assert "missed copies of multiple eigenvalues not excluded" in repr(pairs)


def test_no_strict_lowest_eigenvalue_is_claimed_within_the_tolerance():
    """If four simple eigenvalues lie so close below others that residuals do not resolve them,
    `missed_within` bounds how much lower than the returned value the lowest one is.
    """
    rng = np.random.default_rng(0)
    lowest = [1.38e-8, 2.74e-8, 2.95e-8, 5.87e-8]
    values = np.sort(np.r_[lowest, np.full(80, 2.91e-7), 9 * rng.random(50) ** 2])
    short = 0
    for seed in range(20):
        pairs = eigsh(PrescribedSpectrum(values, rng=seed), 1, "SA", rng=seed)
        gap = pairs.values[0] - values[0]
        assert pairs.converged.all() and gap <= pairs.missed_within
        short += gap > pairs.residuals.max()
    assert short, "the case that this is about"


@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
def test_missed_within_is_the_reach_of_the_first_start(which):
    """For one pair, `missed_within` is the largest distance beyond its value at which the growth of
    the run's polynomials leaves a missed eigenvalue with more than 5% probability.
    """
    op, tol = PrescribedSpectrum(np.r_[-3.0, np.linspace(-1, 1, 298), 4.0], rng=0), 1e-4
    pairs = eigsh(op, 1, which, tol=tol, rng=1)
    run = Recurrence(op, 300)
    run.insert_random(np.random.default_rng(1))
    run.extend(pairs.n_products)
    T = run.T[: run.m, : run.m]
    beyond = np.geomspace(tol, 2, 48) * pairs.scale
    value = pairs.values[0]
    sides = {
        "LA": [value + beyond],
        "SA": [value - beyond],
        "LM": [value + beyond, -value - beyond],
    }
    growth = [log_polynomial_growth(np.diag(T), np.diag(T, 1), at) for at in sides[which]]
    missable = beyond[np.min(growth, axis=0) < max_log_growth(300, 0.05)].max()
    assert missable > 2 * tol * pairs.scale
    assert pairs.missed_within == pytest.approx(missable, rel=1e-6)


@pytest.mark.parametrize(("k", "which"), [(1, "BE"), (3, "LM"), (2, "LA")])
def test_missed_within_is_zero_only_for_exhausted_spaces(k, which):
    pairs = eigsh(PrescribedSpectrum(np.linspace(-1, 1.5, 100), rng=0), k, which, rng=0)
    assert pairs.missed_within >= 2 * pairs.tol * pairs.scale and f"{k} converged" in repr(pairs)
    values = np.repeat([1.0, 2.0, 3.0], 30)
    whole = eigsh(PrescribedSpectrum(values, rng=0), 90, which, rng=0)
    assert whole.missed_within == 0 and np.allclose(whole.values, values)
