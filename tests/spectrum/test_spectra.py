"""Densities, estimates, inertia and shared Krylov runs on prescribed spectra: integrals, coverage,
counts.
"""

import io

import numpy as np
import pytest
from scipy.stats import binom

from fastcurv.spectrum.dense import eigvalsh, inertia
from fastcurv.spectrum.density import spectral_density
from fastcurv.spectrum.eigsh import eigsh
from fastcurv.spectrum.shared_run import Krylov
from fastcurv.spectrum.trace import diagonal, frobenius_norm, trace

from .spectra import EPS, SPECTRA, Prescribed, hessian_like

DTYPES = ["float64", "float32"]


class Quadratic(Prescribed):
    """Also offers ``v'Av``, and counts it apart."""

    n_forms = 0

    def quadratic(self, V):
        self.n_forms += V.shape[1]
        return np.einsum("ij,ij->j", V, self._apply(V))


# -- density
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECTRA)
def test_density_integrates_to_one(name, dtype, rng):
    op = Prescribed(SPECTRA[name](rng), seed=0, dtype=dtype)
    for axis in ("linear", "log"):
        op.n_products = 0
        d = spectral_density(op, 3, 25, seed=0, axis=axis)
        assert d.n_products == op.n_products <= 75
        assert abs(d.integral() - 1) <= 1e-6
        assert np.abs(d.weights.sum(axis=1) - 1).max() <= 1e-12 and (d.weights >= 0).all()
        assert (d.density >= 0).all() and d.stderr.shape == d.grid.shape == d.density.shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_ghosts(dtype, rng):
    """Without reorthogonalisation the node at the outlier is doubled many times over in 120
    steps.
    """
    spectrum = np.r_[100.0, np.linspace(-1, 1, 400)]
    d = spectral_density(Prescribed(spectrum, seed=0, dtype=dtype), 4, 120, seed=0, deflate=False)
    for nodes in d.nodes:
        assert (np.abs(nodes - 100) < 1).sum() == 1
        assert (nodes < 2).sum() == 119
    assert d.ghosts <= 0.02
    nodes, previous = [], None
    q, beta, alphas, betas = rng.standard_normal(401), 0.0, [], []
    op = Prescribed(spectrum, seed=0)
    q /= np.linalg.norm(q)
    for _ in range(120):  # the plain recurrence, to show that the trap is there
        w = op @ q - (beta * previous if previous is not None else 0)
        alphas.append(q @ w)
        w -= alphas[-1] * q
        betas.append(beta := np.linalg.norm(w))
        previous, q = q, w / beta
    plain = np.linalg.eigvalsh(np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1))
    assert (np.abs(plain - 100) < 1).sum() > 1


def test_quadrature_is_exact_for_polynomials(rng):
    """k steps integrate degree 2k - 1 exactly: the moments of the probe."""
    spectrum = SPECTRA["normal"](rng)
    op = Prescribed(spectrum, seed=0)
    k = 5
    d = spectral_density(op, 1, k, seed=3)
    v = 2 * np.random.default_rng(3).integers(0, 2, size=(1, 300), dtype=np.int8)[0] - 1.0
    w, n = v.copy(), len(v)
    for power in range(2 * k):
        assert d.moment(power).estimate == pytest.approx(v @ w / n, rel=1e-9, abs=1e-9)
        w = op @ w
    assert d.moment(2 * k).estimate != pytest.approx(v @ w / n, rel=1e-6)


def test_full_steps_give_the_spectrum_itself(rng):
    spectrum = np.sort(rng.standard_normal(30))
    d = spectral_density(Prescribed(spectrum, seed=0), 2, 200, seed=0, deflate=False)
    assert d.n_products == 60 and np.abs(d.nodes - spectrum).max() <= 1e-10


def test_deflation_halves_the_distance_at_the_same_products(rng):
    spectrum = hessian_like(rng)
    mean = np.abs(spectrum).mean()
    plain, deflated = [], []
    for seed in range(6):
        op = Prescribed(spectrum, seed=0, dtype="float32")
        a = spectral_density(op, 10, 60, seed=seed, deflate=False)
        b = spectral_density(op, 10, 60, seed=seed)
        assert a.n_products == b.n_products == 600 and op.n_products == 1200
        assert b.n_deflated >= 10 and abs(b.integral() - 1) < 1e-6
        plain.append(a.wasserstein(spectrum) / mean)
        deflated.append(b.wasserstein(spectrum) / mean)
    assert np.mean(plain) <= 0.15
    assert np.mean(deflated) <= 0.5 * np.mean(plain)


def test_known_pairs_are_exact_in_the_density(rng):
    spectrum = hessian_like(rng)
    op = Prescribed(spectrum, seed=0)
    top = eigsh(op, 10, "LA", seed=0)
    for against, extra in ((top, 0), (top.vectors, 10)):
        d = spectral_density(op, 3, 40, seed=0, against=against)
        assert d.n_deflated == 10 and d.n_products == 120 + extra
        mass = d.mass(0.95, np.inf)
        assert mass.estimate == pytest.approx(10 / len(spectrum), rel=1e-9)


def test_mass_and_moments_cover(rng):
    """The fraction of negative eigenvalues, the mass of the top ten and the mean within three
    standard errors.
    """
    spectrum = np.r_[rng.uniform(2, 3, 10), rng.standard_normal(600) / 4]
    op = Prescribed(spectrum, seed=0)
    hits = np.zeros(3)
    for seed in range(20):
        d = spectral_density(op, 8, 40, seed=seed)
        for i, (estimate, truth) in enumerate(
            [
                (d.mass(-np.inf, 0), (spectrum < 0).mean()),
                (d.mass(1.5, np.inf), 10 / 610),
                (d.moment(1), spectrum.mean()),
            ]
        ):
            hits[i] += abs(estimate.estimate - truth) <= 3 * estimate.stderr
    assert (hits >= 18).all()


def test_stderr_band_covers(rng):
    """The smoothed true density lies in the band of two standard errors at about 95% of the
    grid.
    """
    spectrum = rng.standard_normal(400)
    op = Prescribed(spectrum, seed=0)
    grid = np.linspace(-2, 2, 41)
    truth = np.exp(-0.5 * ((grid[:, None] - spectrum) / 0.4) ** 2).sum(axis=1) / (
        400 * 0.4 * (2 * np.pi) ** 0.5
    )
    inside = []
    for seed in range(20):
        d = spectral_density(op, 12, 40, seed=seed, grid=grid, width=0.4)
        inside.append(np.abs(d.density - truth) <= 2 * d.stderr)
    assert 0.85 <= np.mean(inside) <= 0.995


def test_wasserstein_distance_of_two_densities(rng):
    spectrum = SPECTRA["uniform"](rng)
    a = spectral_density(Prescribed(spectrum, seed=0), 3, 300, seed=0)
    b = spectral_density(Prescribed(spectrum + 0.25, seed=0), 3, 300, seed=0)
    assert a.wasserstein(b) == pytest.approx(0.25, abs=0.01)
    assert b.wasserstein(a) == pytest.approx(a.wasserstein(b))
    assert a.wasserstein(spectrum) < 0.05 and a.wasserstein(a) == 0
    with pytest.raises(ValueError, match="other holds NaN"):
        a.wasserstein([1.0, np.nan])


def test_regrid_and_merge_cost_nothing(rng):
    op = Prescribed(SPECTRA["hessian"](rng), seed=0)
    a, b = spectral_density(op, 3, 30, seed=0), spectral_density(op, 2, 20, seed=1)
    spent = op.n_products
    log = a.regrid(axis="log", width=0.1)
    both = a.merge(b)
    assert op.n_products == spent
    assert (
        log.axis == "log" and abs(log.integral() - 1) < 1e-6 and np.array_equal(log.nodes, a.nodes)
    )
    p, q = a.n_probes, b.n_probes
    assert both.n_probes == p + q and both.n_products == 130 and abs(both.integral() - 1) < 1e-6
    assert both.moment(1).estimate == pytest.approx(
        (p * a.moment(1).estimate + q * b.moment(1).estimate) / (p + q)
    )
    assert (
        (log.coordinate[1:] > log.coordinate[:-1]).all()
        and (log.grid < 0).any()
        and (log.grid > 0).any()
    )


def test_plot_draws_the_density(rng):
    pytest.importorskip("matplotlib")
    d = spectral_density(Prescribed(SPECTRA["hessian"](rng), seed=0), 3, 30, seed=0)
    for axis in ("linear", "log"):
        ax = d.regrid(axis=axis).plot()
        assert np.array_equal(ax.lines[0].get_ydata(), d.regrid(axis=axis).density)
        assert ax.figure.canvas.manager is None  # no window, nothing that pyplot keeps
        picture = io.BytesIO()
        ax.figure.savefig(picture)
        assert picture.getvalue().startswith(b"\x89PNG")


# -- estimates
# --------------------------------------------------------------------------------------------------


DOMINATED = {
    "flat": lambda n, d, rng: 1 + rng.random(n),
    "one": lambda n, d, rng: np.r_[100.0, rng.uniform(-0.1, 0.1, n - 1)],
    "as many as the sketch": lambda n, d, rng: np.r_[np.full(d, 50.0), rng.random(n - d) / 50],
    "one more": lambda n, d, rng: np.r_[np.full(d + 1, 50.0), rng.random(n - d - 1) / 50],
    "decay": lambda n, d, rng: np.arange(1, n + 1.0) ** -1,
    "both signs": lambda n, d, rng: np.r_[
        50 * (-1.0) ** np.arange(d), rng.standard_normal(n - d) / 50
    ],
}
SKETCH = {"hutch++": 3, "xtrace": 2, "xdiag": 2}  # one vector of it for so many samples


@pytest.mark.parametrize(
    "function, method",
    [
        (trace, "hutchinson"),
        (trace, "hutch++"),
        (trace, "xtrace"),
        (frobenius_norm, "hutchinson"),
        (frobenius_norm, "hutch++"),
        (diagonal, "hutchinson"),
        (diagonal, "xdiag"),
    ],
)
@pytest.mark.parametrize("m", [6, 12, 30])
def test_two_standard_errors_cover_19_times_in_20(function, method, m, rng):
    """Whatever dominates, the sketch as large as that included: exact binomial tests, each with one
    false alarm in 1e5.
    """
    n, runs = 40, 100
    for kind, make in DOMINATED.items():
        inside = 0
        for seed in range(runs):
            spectrum = make(n, max(1, m // SKETCH.get(method, 10)), rng)
            op = Prescribed(spectrum, seed=seed)
            found = function(op, m, method=method, seed=rng)
            value, stderr = np.atleast_1d(found.estimate)[0], np.atleast_1d(found.stderr)[0]
            truth = {
                trace: spectrum.sum(),
                frobenius_norm: np.linalg.norm(spectrum),
                diagonal: (op @ np.eye(n)[0])[0],
            }[function]
            inside += abs(value - truth) <= 2 * stderr + 1e-10 * np.abs(spectrum).max()
            assert found.n_products - runs <= m
        assert inside >= binom.ppf(1e-5, runs, 0.95), kind


@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
def test_standard_errors_of_many_samples_are_no_wider_than_they_must(method, rng):
    """With 100 samples the error over its standard error has the spread that it should."""
    spectrum = rng.standard_normal(300)
    op = Prescribed(spectrum, seed=0)
    found = [trace(op, 100, method, seed) for seed in range(60)]
    off = [(t.estimate - spectrum.sum()) / t.stderr for t in found]
    assert 0.4 <= np.std(off) <= 1.3 and abs(np.mean(off)) <= 0.6


def test_copies_of_an_outlier_keep_their_weight(rng):
    """Twenty copies, of which the first probe deflates a few: the mean is unbiased all the same."""
    spectrum = np.r_[np.full(20, 50.0), rng.random(280)]
    off = []
    for seed in range(40):
        density = spectral_density(Prescribed(spectrum, seed=seed), 8, 30, seed=seed)
        moment = density.moment(1)
        off.append((moment.estimate - spectrum.mean()) / moment.stderr)
    assert np.sum(np.abs(off) <= 2) >= binom.ppf(1e-4, 40, 0.95)
    assert abs(np.mean(off)) <= 4 / 40**0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_operator_that_returns_no_number_is_an_error(bad):
    """Never an estimate of NaN, still less one called exact."""

    class Broken(Prescribed):
        def _matmat(self, V):
            out = super()._matmat(V)
            out[0] = bad
            return out

        def _matvec(self, v):
            return self._matmat(np.reshape(v, (-1, 1)))[:, 0]

        def product(self, v, out=None):
            out[...] = self._matvec(v)
            return out

    op = Broken(np.arange(12.0), seed=0)
    for n_samples in (1, 6, 9, 20):
        for function in (trace, diagonal, frobenius_norm):
            with pytest.raises(ValueError, match="not finite"):
                function(op, n_samples, seed=0)
    for ask in (eigvalsh, inertia, eigsh, spectral_density):
        with pytest.raises(ValueError, match="not finite|NaN or infinity"):
            ask(op)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
def test_estimates_at_every_scale(scale, rng):
    """What squares would make of such numbers is 0 or infinity."""
    spectrum = np.r_[1.0, 0.01 * rng.random(59)]
    op, ordinary = Prescribed(scale * spectrum, seed=0), Prescribed(spectrum, seed=0)
    for function, method in (
        (trace, "hutchinson"),
        (trace, "hutch++"),
        (trace, "xtrace"),
        (diagonal, "xdiag"),
        (frobenius_norm, "hutch++"),
    ):
        here = function(op, 12, method=method, seed=1)
        there = function(ordinary, 12, method=method, seed=1)
        assert np.allclose(here.estimate / scale, there.estimate, rtol=1e-9, atol=1e-12)
        assert np.allclose(here.stderr / scale, there.stderr, rtol=1e-6, atol=1e-12)
    density = spectral_density(op, 3, 20, seed=0)
    assert np.isfinite(density.density).all() and abs(density.integral() - 1) < 1e-6


def test_xtrace_beats_hutchinson_where_few_values_dominate(rng):
    spectrum = np.r_[np.full(8, 50.0), 0.01 * rng.random(192)]
    op = Prescribed(spectrum, seed=0)
    error = {
        method: np.median(
            [abs(trace(op, 40, method, s).estimate - spectrum.sum()) for s in range(20)]
        )
        for method in ("hutchinson", "hutch++", "xtrace")
    }
    assert (
        error["xtrace"] < 0.01 * error["hutchinson"]
        and error["hutch++"] < 0.01 * error["hutchinson"]
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_trace_uses_quadratic_forms(dtype, rng):
    op = Quadratic(rng.standard_normal(100), seed=0, dtype=dtype)
    t = trace(op, 24, seed=0)
    assert op.n_products == 0 and op.n_forms == t.n_quadratic == t.n_products == 24
    assert abs(t.estimate - op.values.sum()) <= 4 * t.stderr
    plus = trace(op, 24, "hutch++", seed=0)
    assert op.n_products == 8 and plus.n_quadratic == 16 and plus.n_products == 24


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_enough_samples_are_exact(dtype, n, rng):
    op = Prescribed(rng.standard_normal(n), seed=0, dtype=dtype)
    A = (op @ np.eye(n, dtype=dtype)).astype(float)
    op.n_products = 0
    t, d, f = trace(op, 20), diagonal(op, 20), frobenius_norm(op, 20)
    assert op.n_products == 3 * n and t.n_products == d.n_products == f.n_products == n
    assert (t.stderr, f.stderr) == (0, 0) and not d.stderr.any()
    assert np.allclose(d.estimate, np.diag(A)) and t.estimate == pytest.approx(
        np.trace(A), abs=1e-6
    )
    assert f.estimate == pytest.approx(np.linalg.norm(A), rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["zero", "rank one", "identity"])
def test_estimates_of_degenerate_operators(name, dtype, rng):
    spectrum = SPECTRA[name](rng)
    op = Prescribed(spectrum, seed=0, dtype=dtype)
    slack = 200 * EPS[dtype] * 100
    for method in ("hutchinson", "hutch++", "xtrace"):
        t = trace(op, 30, method, 0)
        assert abs(t.estimate - spectrum.sum()) <= 4 * t.stderr + slack, method
    for method in ("hutchinson", "hutch++"):
        f = frobenius_norm(op, 30, method, 0)
        assert abs(f.estimate - np.linalg.norm(spectrum)) <= 4 * f.stderr + slack**0.5, method
    d = diagonal(op, 30, "xdiag", 0)
    assert (
        np.abs(d.estimate - np.diag(op @ np.eye(100, dtype=dtype))) <= 8 * d.stderr + slack
    ).mean() > 0.95


# -- dense
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 70])
def test_eigvalsh_and_inertia(dtype, n, rng):
    spectrum = rng.uniform(0.5, 2, n) * rng.choice([-1, 1], n)
    spectrum[: n // 3] = 0
    op = Prescribed(spectrum, seed=0, dtype=dtype)
    result = inertia(op)
    assert result.n_products == op.n_products == n
    assert (
        np.abs(result.values - np.sort(spectrum)).max() <= result.bound <= 1e3 * EPS[dtype] * n * 2
    )
    assert tuple(result) == ((spectrum > 0).sum(), (spectrum < 0).sum(), n // 3)
    assert np.abs(eigvalsh(op) - np.sort(spectrum)).max() <= result.bound
    assert result.minimum_ratio == (spectrum > 0).mean() and result.index == (spectrum < 0).mean()


def test_inertia_uses_the_bound_of_the_operator(rng):
    class Rough(Prescribed):
        def rounding_bound(self, v):
            return 1e-3

    spectrum = np.r_[1e-3, -1e-3, np.ones(7)]
    assert tuple(inertia(Prescribed(spectrum, seed=0))) == (8, 1, 0)
    rough = inertia(Rough(spectrum, seed=0))
    assert tuple(rough) == (7, 0, 2) and rough.bound >= 3e-3


def test_inertia_of_a_matrix(rng):
    A = rng.standard_normal((20, 20))
    A = A + A.T
    expected = np.linalg.eigvalsh(A)
    assert tuple(inertia(A)) == ((expected > 0).sum(), (expected < 0).sum(), 0)
    assert np.array_equal(A, A.T), "the input is as it was"


# -- shared runs
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_krylov_makes_no_product_twice(dtype, rng):
    spectrum = hessian_like(rng)
    op = Prescribed(spectrum, seed=0, dtype=dtype)
    run = Krylov(op, "shared", seed=0)
    tol = 1e-7 if dtype == "float64" else 1e-4
    top = run.eigsh(3, "LA", tol=tol)
    assert top.converged.all() and np.allclose(top.values, [8, 9, 10], atol=3e-3)
    assert top.n_new == top.n_products == op.n_products and top.shared == "shared"
    again = run.eigsh(2, "LA", tol=tol)
    assert again.n_new == 0 and np.allclose(again.values, top.values[1:])
    d = run.spectral_density(2, 40)
    assert d.n_new == 80 - top.n_products and d.n_products == 80 == op.n_products
    assert run.spectral_density(2, 40).n_new == 0 and abs(d.integral() - 1) < 1e-6
    more = run.extend(60).spectral_density(3, 40)
    assert more.n_new == 40 and more.n_products == 140 == op.n_products == run.n_products


def test_krylov_keeps_a_run_from_each_start(rng):
    op = Prescribed(rng.standard_normal(40), seed=0)
    run, g = Krylov(op, seed=0), rng.standard_normal(40)
    assert run.steps_from(g) == 0 and run.start_from(g, 12).m == 12 == run.steps_from(g)
    assert run.start_from(g, 5).m == 12 and op.n_products == 12 == run.n_products
    first = run.start_from(g, 12).rows[0].astype(float)
    assert abs(first @ g) == pytest.approx(np.linalg.norm(g))


def test_krylov_keeps_to_its_memory(rng):
    run = Krylov(Prescribed(SPECTRA["uniform"](rng), seed=0), max_bytes=20 * 300 * 8)
    with pytest.raises(MemoryError, match="max_bytes"):
        run.extend(40)
    pairs = run.eigsh(2, "LA")
    assert pairs.n_products <= 19 and not pairs.converged.all()


def test_bad_input():
    A = np.diag(np.arange(6.0))
    for call, error in [
        (lambda: spectral_density(A, 0), ValueError),
        (lambda: spectral_density(A, 2, 2.5), TypeError),
        (lambda: spectral_density(A, axis="loglog"), ValueError),
        (lambda: spectral_density(A, width=-1), ValueError),
        (lambda: spectral_density(A, grid=[1, 0]), ValueError),
        (lambda: spectral_density(A, against=np.eye(6)), ValueError),
        (lambda: trace(A, 0), ValueError),
        (lambda: trace(A, 3, "xtrace"), ValueError),
        (lambda: trace(A, 3, "best"), ValueError),
        (lambda: diagonal(A, 4, "hutch++"), ValueError),
        (lambda: frobenius_norm(A, seed=1.5), TypeError),
        (lambda: trace("A"), TypeError),
        (lambda: inertia(np.ones((2, 3))), ValueError),
        (lambda: eigvalsh(np.array([[0, 1], [0, 0]])), ValueError),
        (lambda: Krylov(A).eigsh(7), ValueError),
    ]:
        with pytest.raises(error) as caught:
            call()
        assert "wanted" in str(caught.value) and "\n" not in str(caught.value)
