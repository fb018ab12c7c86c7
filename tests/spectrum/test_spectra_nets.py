"""Densities of networks on inputs like digits, by 10 probes of 90 steps, against their dense
spectra.

The Wasserstein-1 distance of a plain density from the spectrum is at least the error of its mean,
which for p independent sign probes has the standard deviation ``(2 (||H||_F^2 - sum h_ii^2) /
p)^(1/2) / n``. Relative to the mean of |lambda| this is 0.05 for a network at random weights and
0.3 for a trained one, where few eigenvalues hold most of the norm. By default the outliers are
deflated, so that only the bulk has random errors.
"""

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import zoom
from scipy.optimize import minimize
from scipy.stats import wasserstein_distance

import fastcurv as fc

PROBES, STEPS = 10, 90


def digits(side, n_samples):
    """Return (X, y) with images of handwritten digits as rows of X, enlarged by interpolation to
    side x side pixels, and their labels y.
    """
    data = pytest.importorskip("sklearn.datasets").load_digits()
    images = zoom(data.images[:n_samples] / 16, (1, side / 8, side / 8), order=1)
    return images.reshape(n_samples, side * side), data.target[:n_samples]


def trained(X, y, hidden, steps):
    """Return (objective, theta) for a tanh network with one hidden layer. Theta is the point after
    some steps of L-BFGS, or the start for no steps.
    """
    model = fc.MLP([X.shape[1], hidden, 10], activation="tanh")
    ob = fc.Objective(model, X, y, loss="cross_entropy")
    theta = model.init(rng=0)
    if steps:
        theta = minimize(
            ob.value_and_gradient, theta, jac=True, method="L-BFGS-B", options={"maxiter": steps}
        ).x
    return ob, theta


def reduced_spectrum(ob, theta):
    """Return all eigenvalues of the Hessian H in ascending order, from a smaller network whose
    Hessian has equal nonzero eigenvalues.

    Let X = Z Q' with orthonormal Q (d, r). In coordinates (Q, complement) for rows of the first
    layer, the complement is multiplied by 0 and contributes zeros. The rest of H is the Hessian of
    the network with inputs Z and first layer W1 Q.
    """
    X = np.asarray(ob.X)
    U, s, Qt = np.linalg.svd(X, full_matrices=False)
    rank = int((s > 1e-12 * s[0]).sum())
    layers = ob.model.unflatten(theta)
    small = fc.MLP([rank, *ob.model.sizes[1:]], activation=ob.model.activation)
    inner = small.flatten([(layers[0][0] @ Qt[:rank].T, layers[0][1]), *layers[1:]])
    H = fc.Objective(small, U[:, :rank] * s[:rank], ob.y, loss=ob.loss).hessian(inner)
    values = np.linalg.eigvalsh(H.to_dense())
    return np.sort(np.concatenate([values, np.zeros(theta.size - values.size)]))


def check_density(ob, theta, spectrum, seeds):
    """Return the Wasserstein-1 distances of densities from the spectrum for each seed, relative to
    the mean of |lambda|. Check that the masses of the negative and of the ten largest eigenvalues
    are within three standard errors.
    """
    H, mean, n = ob.hessian(theta), np.abs(spectrum).mean(), theta.size
    below, above = -1e-6 * mean, (spectrum[-10] + spectrum[-11]) / 2
    default = []
    for seed in range(seeds):
        d = fc.spectral_density(H, PROBES, STEPS, rng=seed)
        assert d.n_products <= PROBES * STEPS
        gap = wasserstein_distance(d.nodes.ravel(), spectrum, d.weights.ravel())
        default.append(gap / mean)
        for mass, truth in (
            (d.mass(-np.inf, below), (spectrum < below).mean()),
            (d.mass(above, np.inf), 10 / n),
        ):
            assert abs(mass.estimate - truth) <= 3 * mass.stderr + 1e-12
    return np.array(default)


def test_the_reduced_spectrum_equals_that_of_the_network(rng):
    X = rng.standard_normal((9, 3)) @ rng.standard_normal((3, 12))
    ob = fc.Objective(
        fc.MLP([12, 4, 10], activation="tanh"), X, rng.integers(10, size=9), loss="cross_entropy"
    )
    theta = ob.model.init(rng=1)
    spectrum = reduced_spectrum(ob, theta)
    whole = np.linalg.eigvalsh(ob.hessian(theta).to_dense())
    assert (
        np.abs(spectrum - whole).max() <= 1e-12 * np.abs(whole).max()
        and (spectrum == 0).sum() == 4 * 9
    )


@pytest.mark.parametrize(
    "steps", [*(pytest.param(s, marks=pytest.mark.nightly) for s in (0, 30)), 200]
)
def test_density_of_two_thousand_parameters_matches_eigenvalues(steps):
    """The Wasserstein-1 distance of densities from the spectrum is at most 7.5% of the mean
    |lambda|. The network has 2035 parameters at random, partly trained or trained weights.
    """
    ob, theta = trained(*digits(8, 600), 27, steps)
    assert theta.size == 2035
    A = ob.hessian(theta).to_dense()
    spectrum = np.linalg.eigvalsh(A)
    default = check_density(ob, theta, spectrum, 3)
    assert (default <= 0.075).all(), default


def test_eigenvalues_at_a_kink_equal_those_of_the_products():
    """At a kink, where passes with different rounding may take different sides, `eigvalsh`, `eigsh`
    and products have the eigenvalues of one matrix.
    """
    for seed in range(8):
        rng = np.random.default_rng(seed)
        k = int(rng.integers(2, 40))
        X = rng.standard_normal((5, k)) * 10.0 ** rng.uniform(0, 6, k)
        model, y = fc.MLP([k, 12, 1], "leaky_relu"), rng.standard_normal(5)
        theta = model.init(rng=seed)
        (W, b), _ = model.unflatten(theta)
        b[:] = [-float(W[i] @ X[i % 5]) for i in range(12)]  # each unit has a sample at its kink
        H = fc.Objective(model, X, y, loss="mse").hessian(theta)
        D = H.to_dense()
        size, values = np.linalg.norm(D), fc.eigvalsh(H)
        assert np.allclose(values, np.linalg.eigvalsh((D + D.T) / 2), rtol=0, atol=1e-11 * size)
        found = fc.eigsh(H, 2, "BE", rng=0)
        assert np.allclose(found.values, values[[0, -1]], rtol=0, atol=1e-7 * size)


def loose_pairs(monkeypatch, X, seconds, **options):
    """Return the Hessian of a network for X and its four largest eigenpairs with tolerance 1e-4,
    searched in float32 if the expected time is at least `seconds`.
    """
    monkeypatch.setattr("fastcurv.spectrum.eigsh.MIN_SINGLE_PRECISION_SECONDS", seconds)
    ob = fc.Objective(fc.MLP([20, 30, 20, 3], "tanh"), X, np.cos(X[:, :3]), loss="mse")
    H = ob.hessian(ob.model.init(rng=1))
    return H, fc.eigsh(H, 4, "LA", tol=1e-4, rng=0, **options)


def test_loose_tolerances_are_met_by_a_search_in_float32(rng, monkeypatch):
    """The residuals of a float64 Hessian hold if its products are computed in float32, and all
    products are counted.
    """
    H, pairs = loose_pairs(monkeypatch, rng.standard_normal((300, 20)), 0.0)
    assert pairs.values.dtype == pairs.vectors.dtype == np.float64
    true = np.linalg.norm(H @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
    assert np.abs(true - pairs.residuals).max() <= 1e-12 * pairs.scale
    assert pairs.converged.all() and true.max() <= pairs.tol * pairs.scale == 1e-4 * pairs.scale
    assert np.abs(pairs.vectors.T @ pairs.vectors - np.eye(4)).max() <= 1e-14
    assert pairs.n_products == H.n_products - 4
    plain, exact = loose_pairs(monkeypatch, H.objective.X, np.inf)
    assert (plain.n_products == exact.n_products) and (exact.residuals != pairs.residuals).all()
    assert np.abs(exact.values - pairs.values).max() <= 1e-6 * pairs.scale
    few = loose_pairs(monkeypatch, H.objective.X, 0.0, max_products=20)[1]
    assert few.n_products <= 20 and not few.converged.all()


class NaNAfterSixProducts:
    """An operator that computes the products of H, and NaN after six of them."""

    def __init__(self, H):
        self.H, self.shape, self.dtype, self.n_products = H, H.shape, H.dtype, 0

    def product(self, v, out):
        self.n_products += 1
        out[:] = self.H @ v if self.n_products <= 6 else np.nan


def test_a_search_is_repeated_in_float64_where_float32_does_not_suffice(rng, monkeypatch):
    """Rows that overflow in float32, products that are not finite in float32, and an operator whose
    float32 copy differs by more than the tolerance, give the pairs of a search in float64. The
    products of both searches are counted and stay within the budget.
    """
    large = 1e39 * rng.standard_normal((300, 20))
    exact = loose_pairs(monkeypatch, large, np.inf)[1]
    pairs = loose_pairs(monkeypatch, large, 0.0)[1]
    assert np.array_equal(pairs.values, exact.values) and pairs.converged.all()
    plain, exact = loose_pairs(monkeypatch, large / 1e39, np.inf)
    other = NaNAfterSixProducts(plain.astype(np.float32))
    monkeypatch.setattr(type(plain), "astype", lambda self, dtype: other)
    H, pairs = loose_pairs(monkeypatch, large / 1e39, 0.0)
    assert np.array_equal(pairs.values, exact.values) and pairs.converged.all()
    assert other.n_products > 6
    assert pairs.n_products == H.n_products == exact.n_products + other.n_products
    other = plain.objective.hessian(1.01 * plain.theta)
    H, pairs = loose_pairs(monkeypatch, large / 1e39, 0.0)
    assert np.array_equal(pairs.values, exact.values) and pairs.converged.all()
    n_products = pairs.n_products
    assert n_products == H.n_products > exact.n_products
    for max_products in range(n_products - exact.n_products, n_products + 2):
        other.n_products = 0
        H, few = loose_pairs(monkeypatch, large / 1e39, 0.0, max_products=max_products)
        assert few.n_products == H.n_products <= max_products
        true = np.linalg.norm(H @ few.vectors - few.vectors * few.values, axis=0)
        assert (true <= few.residuals + 1e-12 * few.scale).all()
        assert (few.residuals[few.converged] <= few.tol * few.scale).all()


def test_ctrl_c_in_a_search_in_float32_ends_the_search(rng, monkeypatch):
    """After Ctrl-C, a search in float32 whose residuals exceed the tolerance is not repeated."""
    X = rng.standard_normal((300, 20))
    plain = loose_pairs(monkeypatch, X, np.inf)[0]
    other = plain.objective.hessian(1.01 * plain.theta).astype(np.float32)
    monkeypatch.setattr(type(plain), "astype", lambda self, dtype: other)
    module = sys.modules["fastcurv.spectrum.eigsh"]  # the name fc.spectrum.eigsh is the function
    search = module.extreme_pairs

    def interrupted_search(op, *args, **options):
        pairs = search(op, *args, **options)
        return replace(pairs, interrupted=pairs.interrupted or op is other)

    monkeypatch.setattr(module, "extreme_pairs", interrupted_search)
    H, pairs = loose_pairs(monkeypatch, X, 0.0)
    assert pairs.interrupted and not pairs.converged.all()
    assert pairs.n_products == H.n_products == other.n_products + 4
