"""Spectral densities: integrals, errors, deflation and plots."""

import io

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator
from scipy.stats import wasserstein_distance

import fastcurv as fc
from fastcurv.spectrum.density import spectral_density
from fastcurv.spectrum.draw import eigenvalue_sign_bounds
from fastcurv.spectrum.trace import mean_and_stderr

from .spectra import SPECTRA, Prescribed, hessian_like

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 3)


def symmetric_matrix(size):
    """Return a random symmetric matrix of shape (30, 30), multiplied by `size`."""
    B = np.random.default_rng(0).standard_normal((30, 30))
    return (B / 2 + B.T / 2) * size


# -- density
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECTRA)
def test_density_integrates_to_one(name, dtype, rng):
    op = Prescribed(SPECTRA[name](rng), rng=0, dtype=dtype)
    for axis in ("linear", "log"):
        op.n_products = 0
        d = spectral_density(op, 3, 25, rng=0, axis=axis)
        assert d.n_products == op.n_products <= 75
        assert abs(d.integral() - 1) <= 1e-6
        assert np.abs(d.weights.sum(axis=1) - 1).max() <= 1e-12 and (d.weights >= 0).all()
        assert (d.density >= 0).all() and d.stderr.shape == d.grid.shape == d.density.shape


def test_density_has_no_spurious_copies_of_outliers(dtype, rng):
    """After 120 steps the density has one node at the outlier, where the recurrence without
    reorthogonalisation has many.
    """
    spectrum = np.r_[100.0, np.linspace(-1, 1, 400)]
    for seed in range(4):
        d = spectral_density(Prescribed(spectrum, rng=0, dtype=dtype), 1, 120, rng=seed)
        assert (np.abs(d.nodes - 100) < 1).sum() == 1
        assert (d.nodes < 2).sum() == 119
        assert d.orthogonality_loss <= 0.02


def test_quadrature_is_exact_for_polynomials(rng):
    """The quadrature of k steps is exact for polynomials of degree up to 2k - 1, compared with the
    moments of the probe.
    """
    spectrum = SPECTRA["normal"](rng)
    op = Prescribed(spectrum, rng=0)
    k = 5
    d = spectral_density(op, 1, k, rng=3)
    v = 2 * np.random.default_rng(3).integers(0, 2, size=(1, 300), dtype=np.int8)[0] - 1.0
    w, n = v.copy(), len(v)
    for power in range(2 * k):
        assert d.weights[0] @ d.nodes[0] ** power == pytest.approx(v @ w / n, rel=1e-9, abs=1e-9)
        w = op @ w
    assert d.weights[0] @ d.nodes[0] ** (2 * k) != pytest.approx(v @ w / n, rel=1e-6)


def test_as_many_steps_as_dimensions_give_the_exact_spectrum(rng):
    spectrum = np.sort(rng.standard_normal(30))
    d = spectral_density(Prescribed(spectrum, rng=0), 1, 200, rng=0)
    assert d.n_products == 30 and np.abs(d.nodes - spectrum).max() <= 1e-10


def distance(densities, spectrum):
    """Return the Wasserstein-1 distance of the mean of densities from a spectrum."""
    nodes, weights = (
        np.concatenate([getattr(d, name).ravel() for d in densities])
        for name in ("nodes", "weights")
    )
    return wasserstein_distance(nodes, spectrum, weights)


def test_deflation_halves_the_wasserstein_distance_for_equally_many_products(rng):
    """A density of ten probes, which deflates the outliers of the first, is at most half as far
    from the spectrum as the mean of ten densities of one probe, which deflate nothing.
    """
    spectrum = hessian_like(rng)
    mean = np.abs(spectrum).mean()
    plain, deflated = [], []
    for seed in range(6):
        op = Prescribed(spectrum, rng=0, dtype="float32")
        a = [spectral_density(op, 1, 60, rng=10 * seed + i) for i in range(10)]
        b = spectral_density(op, 10, 60, rng=seed)
        assert b.n_products == 600 and op.n_products == 1200 and not a[0].n_deflated
        assert b.n_deflated >= 10 and abs(b.integral() - 1) < 1e-6
        plain.append(distance(a, spectrum) / mean)
        deflated.append(distance([b], spectrum) / mean)
    assert np.mean(plain) <= 0.15
    assert np.mean(deflated) <= 0.5 * np.mean(plain)


@pytest.mark.parametrize("level", [-0.3, 1e-9, 1e200, 0.0])
@pytest.mark.parametrize("spread", [0.0, 1e-15, 1e-14, 1e-13, 3e-13, 1e-11])
def test_density_of_a_multiple_of_the_identity_integrates_to_one(level, spread):
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))[0]
    A = level * (Q @ Q.T) + np.diag(np.linspace(0, spread * abs(level), 20))
    d = spectral_density((A + A.T) / 2, rng=1)
    assert d.integral() == pytest.approx(1, abs=1e-6) and (np.diff(d.grid) > 0).all()


def test_masses_are_within_their_errors(rng):
    """In at least 18 of 20 runs, the fraction of negative eigenvalues and the mass of the ten
    largest are within three standard errors of the exact values.
    """
    spectrum = np.r_[rng.uniform(2, 3, 10), rng.standard_normal(600) / 4]
    op = Prescribed(spectrum, rng=0)
    hits = np.zeros(2)
    for seed in range(20):
        d = spectral_density(op, 8, 40, rng=seed)
        asked = [d.mass(-np.inf, 0), d.mass(1.5, np.inf)]
        truth = [(spectrum < 0).mean(), 10 / 610]
        for i, (found, true) in enumerate(zip(asked, truth)):
            hits[i] += abs(found.estimate - true) <= 3 * found.stderr
    assert (hits >= 18).all()


def test_the_error_band_covers_the_true_density(rng):
    """The exact density, smoothed, is within two standard errors of the estimate on 85 to 99.5% of
    the grid points of 20 runs.
    """
    spectrum = rng.standard_normal(400)
    op = Prescribed(spectrum, rng=0)
    grid = np.linspace(-2, 2, 41)
    truth = np.exp(-0.5 * ((grid[:, None] - spectrum) / 0.4) ** 2).sum(axis=1) / (
        400 * 0.4 * (2 * np.pi) ** 0.5
    )
    inside = []
    for seed in range(20):
        d = spectral_density(op, 12, 40, rng=seed, grid=grid, width=0.4)
        inside.append(np.abs(d.density - truth) <= 2 * d.stderr)
    assert 0.85 <= np.mean(inside) <= 0.995


def test_plot_method_draws_the_density(rng):
    pytest.importorskip("matplotlib")
    op = Prescribed(SPECTRA["hessian"](rng), rng=0)
    for axis in ("linear", "log"):
        d = spectral_density(op, 3, 30, rng=0, axis=axis)
        ax = d.plot()
        assert np.array_equal(ax.lines[0].get_ydata(), d.density)
        picture = io.BytesIO()
        ax.figure.savefig(picture)
        assert picture.getvalue().startswith(b"\x89PNG")


def test_copies_of_an_outlier_keep_their_weight(rng):
    """For twenty copies of an outlier, of which the first probe deflates only a few, the weight of
    the outlier is unbiased.
    """
    spectrum = np.r_[np.full(20, 50.0), rng.random(280)]
    off = []
    for seed in range(40):
        density = spectral_density(Prescribed(spectrum, rng=seed), 8, 30, rng=seed)
        off.append(density.mass(40, np.inf).estimate - 20 / 300)
    assert abs(np.mean(off)) <= 4 * np.std(off) / 40**0.5 <= 0.01


UNAVAILABLE_QUANTITIES = [
    *((lambda d, ends=ends: d.mass(*ends), "(low|high) must be a number.*got .*")
      for ends in ((np.nan, 1.0), (-1.0, np.nan), ("0", 1.0))),
    (lambda d: spectral_density(np.diag([1.0, 3.0]), 2, 3, width=1e-17),
     "width must be at least .*eigenvalues up to 3, got 1e-17"),
    (lambda d: spectral_density(symmetric_matrix(1e-310), 2, 10, rng=0, width=1e-305),
     "width must be at least .*got 1e-305"),
]  # fmt: skip


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize("ask, words", UNAVAILABLE_QUANTITIES)
def test_densities_reject_unavailable_quantities(ask, words):
    d = spectral_density(np.diag(np.linspace(-1.0, 1.0, 30)), 2, 10, rng=0)
    with pytest.raises(ValueError, match=words):
        ask(d)


ENDS = {
    "1e307": symmetric_matrix(1e307),
    "1e-310": symmetric_matrix(1e-310),
    "1e-320": symmetric_matrix(1e-320),
    "0": np.zeros((30, 30)),
    "mixed": np.diag(np.r_[1e307, 1e-310, -1e307, np.ones(27)]),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [np.asarray, aslinearoperator])
@pytest.mark.parametrize("name", ENDS)
def test_densities_of_extreme_magnitudes_are_computed(name, kind):
    """Densities of matrices near the limits of float64 are finite and integrate to 1 on linear and
    logarithmic axes, with a given width or grid, and with one probe or more.
    """
    A = ENDS[name]
    op, size = kind(A), float(np.abs(A).max())
    exact = np.linalg.eigvalsh(A / (size or 1.0)) * size
    for words in ({}, {"axis": "log"}, {"n_probes": 1}, {"n_probes": 12}):
        d = spectral_density(op, **({"n_probes": 3} | words), n_steps=10, rng=0)
        assert np.isfinite(d.density).all() and np.isfinite(d.grid).all()
        assert np.isfinite(d.coordinate).all() and abs(d.integral() - 1) <= 1e-6
        slack = 1e-9 * size + 1e-321
        assert exact.min() - slack <= d.nodes.min() and d.nodes.max() <= exact.max() + slack
        assert 0 <= d.mass().estimate <= 1
    wide = spectral_density(op, 3, 10, rng=0, width=max(1.0, size))
    assert abs(wide.integral() - 1) <= 1e-6
    own = spectral_density(op, 3, 10, rng=0, grid=np.linspace(-2, 2, 50))
    assert np.isfinite(own.density).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [np.asarray, aslinearoperator])
@pytest.mark.parametrize("name", ENDS)
def test_estimates_near_float64_limits_are_right_or_raise(name, kind):
    A = ENDS[name]
    op, size = kind(A), float(np.abs(A).max())
    exact = np.linalg.eigvalsh(A / (size or 1.0))
    assert np.allclose(fc.eigvalsh(op) / (size or 1.0), exact, atol=1e-3 if size < 1e-315 else 1e-9)
    assert sum(fc.inertia(op)) == 30
    for which in ("SA", "LA", "BE", "LM"):
        pairs = fc.eigsh(op, 3, which, rng=0)
        assert pairs.converged.all() and np.isfinite(pairs.values).all() and repr(pairs)
    for estimate in (fc.trace, fc.diagonal, fc.frobenius_norm):
        for n_probes in (8, 20, 60):
            try:
                found = estimate(op, n_probes, rng=0)
            except ValueError as error:
                assert "must be within the range of float64" in str(error)
                assert size > 1e300
            else:
                assert np.isfinite(found.estimate).all() and repr(found)


def test_equal_probes_do_not_give_a_standard_error_of_zero():
    """If two probes give equal results, because half of all sign probes do not reach one
    eigenvalue, the standard error is NaN instead of 0.
    """
    A = np.eye(100)
    A[:2, :2] += [[0.5, -0.5], [-0.5, 0.5]]
    true, blind = np.trace(A) / 100, 0
    for seed in range(40):
        d = spectral_density(A, 2, 6, rng=seed)
        mean = (d.nodes * d.weights).sum(axis=1)
        if np.ptp(mean) <= 1e-12 and abs(mean[0] - true) > 1e-9:
            blind += 1
            assert np.isnan(d.stderr).all() and d.mass().stderr >= 1 / 100
    assert blind, "the case that this is about"


def test_one_sample_has_no_standard_error():
    mean, stderr = mean_and_stderr(np.array([3.0]))
    assert mean == 3 and np.isnan(stderr)
    one = fc.diagonal(np.diag(np.arange(1.0, 40.0)), n_probes=1, rng=0)
    assert np.array_equal(one.estimate, np.arange(1.0, 40.0)) and np.isnan(one.stderr).all()


def test_overflowing_estimates_are_rejected():
    with pytest.raises(ValueError, match="within the range of float64"):
        fc.trace(np.diag([1e308] * 4))


@pytest.mark.parametrize(
    "values, bounds",
    [
        ([0.0, 0.0, 0.0], (-np.inf, np.inf)),
        ([0.0, 1.0, 2.0], (0.0, np.inf)),
        ([-2.0, -1.0, 0.0], (-np.inf, 0.0)),
        ([-1.0, 0.0, 2.0], (-np.inf, np.inf)),
    ],
)
def test_the_axis_ends_at_0_only_where_no_eigenvalue_lies_beyond(values, bounds):
    exact = spectral_density(np.diag(values), rng=0)
    assert exact.exact and eigenvalue_sign_bounds(exact) == bounds
    sampled = spectral_density(np.diag(np.arange(200.0)), n_probes=2, n_steps=10, rng=0)
    assert not sampled.exact and eigenvalue_sign_bounds(sampled) == (-np.inf, np.inf)
