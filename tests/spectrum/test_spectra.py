"""Estimates and inertia for prescribed spectra: coverage of standard errors, counts of signs, and
numbers of products.
"""

import numpy as np
import pytest
from scipy.stats import binom

from fastcurv.spectrum.dense import eigvalsh, inertia
from fastcurv.spectrum.density import spectral_density
from fastcurv.spectrum.trace import diagonal, frobenius_norm, trace

from ..nets import EPS
from .spectra import Prescribed

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 3)


class Quadratic(Prescribed):
    """An operator with a method for ``v'Av`` that counts the vectors v."""

    n_forms = 0

    def quadratic_form(self, V):
        self.n_forms += V.shape[1]
        return np.einsum("ij,ij->j", V, self._apply(V))


# -- estimates
# --------------------------------------------------------------------------------------------------


DOMINATED_SPECTRA = {
    "zero": lambda n, d, rng: np.zeros(n),
    "identity": lambda n, d, rng: np.ones(n),
    "flat": lambda n, d, rng: 1 + rng.random(n),
    "one": lambda n, d, rng: np.r_[100.0, rng.uniform(-0.1, 0.1, n - 1)],
    "two": lambda n, d, rng: np.r_[np.full(d + 1, 50.0), rng.random(n - d - 1) / 50],
    "decay": lambda n, d, rng: np.arange(1, n + 1.0) ** -1,
    "both signs": lambda n, d, rng: np.r_[
        50 * (-1.0) ** np.arange(d), rng.standard_normal(n - d) / 50
    ],
}


@pytest.mark.parametrize("function", [trace, frobenius_norm, diagonal])
@pytest.mark.parametrize("m", [6, 12, pytest.param(30, marks=pytest.mark.nightly)])
def test_two_standard_errors_cover_19_times_in_20(function, m, rng):
    """For every spectrum, two standard errors cover the truth in 95% of 100 runs, by a binomial
    test with one false alarm in 1e5.
    """
    n, runs = 40, 100
    for kind, make in DOMINATED_SPECTRA.items():
        inside = 0
        for seed in range(runs):
            spectrum = make(n, max(1, m // 10), rng)
            op = Prescribed(spectrum, rng=seed)
            found = function(op, m, method="hutchinson", rng=rng)
            value, stderr = np.atleast_1d(found.estimate)[0], np.atleast_1d(found.stderr)[0]
            truth = {
                trace: spectrum.sum(),
                frobenius_norm: np.linalg.norm(spectrum),
                diagonal: (op @ np.eye(n)[0])[0],
            }[function]
            inside += abs(value - truth) <= 2 * stderr + 1e-10 * np.abs(spectrum).max()
            assert found.n_products - runs <= m
        assert inside >= binom.ppf(1e-5, runs, 0.95), kind


def test_standard_errors_of_many_samples_have_the_expected_spread(rng):
    """With 100 probes, the errors of a trace divided by their standard errors have a standard
    deviation between 0.4 and 1.3.
    """
    spectrum = rng.standard_normal(300)
    op = Prescribed(spectrum, rng=0)
    found = [trace(op, 100, "hutchinson", seed) for seed in range(60)]
    off = [(t.estimate - spectrum.sum()) / t.stderr for t in found]
    assert 0.4 <= np.std(off) <= 1.3 and abs(np.mean(off)) <= 0.6


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
def test_estimates_are_right_at_every_scale(scale, rng):
    """Estimates of trace, diagonal and norm scale with the matrix, also if squares of its entries
    underflow or overflow.
    """
    spectrum = np.r_[1.0, 0.01 * rng.random(59)]
    op, ordinary = Prescribed(scale * spectrum, rng=0), Prescribed(spectrum, rng=0)
    for function in (trace, diagonal, frobenius_norm):
        here = function(op, 12, rng=1)
        there = function(ordinary, 12, rng=1)
        assert np.allclose(here.estimate / scale, there.estimate, rtol=1e-9, atol=1e-12)
        assert np.allclose(here.stderr / scale, there.stderr, rtol=1e-6, atol=1e-12)
    density = spectral_density(op, 3, 20, rng=0)
    assert np.isfinite(density.density).all() and abs(density.integral() - 1) < 1e-6


def test_trace_uses_quadratic_forms(dtype, rng):
    op = Quadratic(rng.standard_normal(100), rng=0, dtype=dtype)
    t = trace(op, 24, rng=0)
    assert op.n_products == 0 and op.n_forms == t.n_quadratic_forms == t.n_products == 24
    assert abs(t.estimate - op.values.sum()) <= 4 * t.stderr


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_as_many_samples_as_dimensions_are_exact(dtype, n, rng):
    op = Prescribed(rng.standard_normal(n), rng=0, dtype=dtype)
    A = (op @ np.eye(n, dtype=dtype)).astype(float)
    op.n_products = 0
    t, d, f = trace(op, 20), diagonal(op, 20), frobenius_norm(op, 20)
    assert op.n_products == 3 * n and t.n_products == d.n_products == f.n_products == n
    assert (t.stderr, f.stderr) == (0, 0) and not d.stderr.any()
    assert np.allclose(d.estimate, np.diag(A)) and t.estimate == pytest.approx(
        np.trace(A), abs=1e-6
    )
    assert f.estimate == pytest.approx(np.linalg.norm(A), rel=1e-6)


# -- dense
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 70])
def test_eigvalsh_and_inertia_match_the_known_spectrum(dtype, n, rng):
    """For a known spectrum with zeros, eigenvalues are within the error bound of `inertia`, and the
    counts of positive, negative and zero eigenvalues are exact.
    """
    spectrum = rng.uniform(0.5, 2, n) * rng.choice([-1, 1], n)
    spectrum[: n // 3] = 0
    op = Prescribed(spectrum, rng=0, dtype=dtype)
    result = inertia(op)
    assert result.n_products == op.n_products == n
    assert (
        np.abs(result.values - np.sort(spectrum)).max()
        <= result.error_bound
        <= 1e3 * EPS[dtype] * n * 2
    )
    assert tuple(result) == ((spectrum > 0).sum(), (spectrum < 0).sum(), n // 3)
    assert np.abs(eigvalsh(op) - np.sort(spectrum)).max() <= result.error_bound
    assert result.minimum_ratio == (spectrum > 0).mean() and result.index == (spectrum < 0).mean()


def test_inertia_uses_the_bound_of_the_operator(rng):
    class Rough(Prescribed):
        def rounding_bound(self, v):
            return 1e-3

    spectrum = np.r_[1e-3, -1e-3, np.ones(7)]
    assert tuple(inertia(Prescribed(spectrum, rng=0))) == (8, 1, 0)
    rough = inertia(Rough(spectrum, rng=0))
    assert tuple(rough) == (7, 0, 2) and rough.error_bound >= 3e-3


@pytest.mark.parametrize("function", [trace, frobenius_norm])
@pytest.mark.parametrize("m", [2, 4, 6, 10])
def test_few_probes_of_a_rank_one_matrix_have_sufficient_standard_errors(m, function):
    """For a matrix of rank one, to which half of all sign probes are orthogonal, no standard error
    is 0, and two standard errors cover the truth in at least 92% of 400 runs.
    """
    u = np.zeros(20)
    u[:2] = 1, -1
    found = [function(np.outer(u, u), m, rng=seed) for seed in range(400)]
    assert min(one.stderr for one in found) > 0
    outside = np.mean([abs(one.estimate - 2) > 2 * one.stderr for one in found])
    assert outside <= 0.08  # 400 draws with probability 0.05 exceed this once in 300


def test_any_method_is_exact_for_a_one_by_one_matrix():
    """For a 1 x 1 matrix, every method of `trace` and `diagonal` has a standard error of 0, and
    `trace` returns the entry.
    """
    for method in ("auto", "hutchinson"):
        told = trace(np.array([[3.0]]), 30, method)
        assert (told.estimate, told.stderr) == (3.0, 0.0)
    assert diagonal(np.array([[3.0]]), 30).stderr == 0
