"""Densities of networks on inputs like digits, by 10 probes of 90 steps, against their dense
spectra.

The Wasserstein-1 distance of a plain density from the spectrum is at least the error of its mean,
which for p independent sign probes has the standard deviation ``(2 (||H||_F^2 - sum h_ii^2) /
p)^(1/2) / n``. Relative to the mean of |lambda| this is 0.05 for a network at random weights and
0.3 for a trained one, where few eigenvalues hold most of the norm. By default the outliers are
deflated, so that only the bulk has random errors.
"""

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
