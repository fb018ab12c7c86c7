"""Critical points that are proved in only one of the coordinates or spaces that are tried."""

import numpy as np
import pytest

import fastcurv as fc


def drawn(seed):
    """Return the objective of a random small network whose features and targets have units of many
    orders of magnitude.
    """
    rng = np.random.default_rng(seed)
    d, h, o = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(1, 3))
    rng.choice(["tanh", "identity", "sigmoid"])
    N, units = int(rng.integers(6, 30)), 10.0 ** rng.uniform(-4, 4, d)
    X = rng.standard_normal((N, d)) * units
    y = rng.standard_normal((N, o)) * 10.0 ** rng.uniform(-3, 3)
    l2, bias = float(10.0 ** rng.uniform(-8, -1)), bool(rng.integers(2))
    return fc.Objective(fc.MLP([d, h + 1, o], bias=bias), X, y, "mse", l2)


# Minima of networks with one unit less, with a unit of weights near 0: [3, 2, 2] and [2, 3, 1].
SADDLES = {
    488: [
        39.752426898513164, -10.062312062192952, 0.021277446640280605, -6.6708650988252365e-25,
        6.551503510444821e-24, -1.7993050614479248e-22, -13.864371209701778,
        -1.6739615852562607e-22, 44.369423226698345, -1.8313464343731354e-24, -41.772779547561484,
        1.3576491515426022e-24, -1.019534923917196, 40.9347841646927,
    ],
    630: [
        1.7337744234864496, 0.07656552141903569, -0.22252802632237903, 0.0396909651597159,
        -3.533487863766245e-25, -1.0965693582997404e-25, -0.12339985968840543, -0.16598316216058678,
        2.025663045442825e-33,
    ],
}  # fmt: skip


def test_badly_scaled_saddles_are_certified_with_all_eigenvalue_signs():
    for seed, theta in SADDLES.items():
        ob, theta = drawn(seed), np.array(theta, dtype=float)
        point = fc.classify(ob, theta)
        assert point.kantorovich < 0.5 and point.certified and point.kind == "saddle"
        assert point.n_zero == 0
        # the inertia of D H D is that of H (Sylvester)
        H = ob.hessian(theta).to_dense()
        D = 1 / np.sqrt(np.abs(np.diag(H)))
        values = np.linalg.eigvalsh(D[:, None] * H * D)
        assert (values < 0).sum() == point.n_negative and np.abs(values).min() > 1e-9


def poisson_regression(rng):
    """Return a Poisson regression whose features differ by six orders of magnitude."""
    X = rng.standard_normal((8, 3)) * [1e-4, 1, 1e2]
    model = fc.MLP([3, 1], bias=False)
    return fc.Objective(model, X, rng.poisson(2.0, (8, 1)).astype(float), "poisson", l2=1e-6)


def linear_network(rng):
    """Return a linear network with a small feature and weight decay, whose orbits meet at 0."""
    x, y = 1e-2 * rng.standard_normal((12, 1)), rng.integers(3, size=12)
    return fc.Objective(fc.MLP([1, 5, 3], "identity"), x, y, "cross_entropy", l2=0.1)


@pytest.mark.parametrize("draw", [poisson_regression, linear_network])
def test_minima_are_certified_in_balanced_units_or_without_projected_orbits(draw):
    """The theorem is checked again in balanced units if h is too large in those of theta, and
    without projecting out orbits whose tangents may be linearly dependent nearby.
    """
    for seed in (0, 2, 3, 8):
        ob = draw(np.random.default_rng(seed))
        theta = fc.minimize(ob, ob.model.init(rng=seed), rng=0, verdict=False).x
        point = fc.classify(ob, theta)
        assert point.certified and point.kind == "minimum", point
