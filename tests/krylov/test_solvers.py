"""Conjugate gradients and MINRES: solutions within tolerance, directions of negative curvature, and
the number of products.
"""

import numpy as np
import pytest

from fastcurv._engine import testing_hooks as hooks
from fastcurv.krylov.solvers import CGWorkspace, _negative_curvature_direction, capped_cg, minres

from ..spectrum.spectra import Prescribed, symmetric

pytestmark = pytest.mark.by_day(one_of="dtype")


@pytest.mark.parametrize("low", [3.0, 0.2, -0.05, -0.5, -2.0])
@pytest.mark.parametrize("eps", [0.1, 0.3])
@pytest.mark.parametrize("n", [12, 20_000])
def test_capped_cg_returns_a_solution_or_negative_curvature(low, eps, n, dtype, rng):
    """Capped CG returns either a solution of ``(H + 2 eps) d = -g`` to its tolerance, which
    requires that the lowest eigenvalue is at least -2 eps, or a direction with curvature below
    -eps. Vectors are short, or so long that threads share them.
    """
    op = Prescribed(np.r_[low, np.linspace(1, 4, n - 1)], rng=0, dtype=dtype)
    g = op.eigenvector(0) + 0.3 / n**0.5 * rng.standard_normal(n)
    g = g.astype(dtype)
    tol, slack = (1e-6, 1e-8) if dtype == "float64" else (1e-3, 1e-3)
    work = CGWorkspace(n, dtype)
    d, curvature, bound = capped_cg(lambda v, out: np.copyto(out, op @ v), g, eps, tol, work)
    assert bound <= 4 * (1 + slack)
    d, g, exact = d.astype(float), g.astype(float), op.astype("float64")
    if curvature is None:
        assert low >= -2 * eps
        assert np.linalg.norm(exact @ d + 2 * eps * d + g) <= tol * np.linalg.norm(g) * 1.02
    else:
        assert low < -eps and curvature < -eps
        assert curvature == pytest.approx(d @ (exact @ d) / (d @ d), rel=slack)


@pytest.mark.parametrize("cost_weight", [0.0, 0.05, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("price", [0.0, 3.0])
def test_capped_cg_stops_when_a_product_reduces_the_model_too_little(rng, cost_weight, price):
    """Capped CG stops after the first product whose decrease of the model, divided by the mean
    decrease per product, is below `cost_weight`. The oracle computes the decreases in explicit
    Krylov spaces, and `price` is added to the number of products in the mean.
    """
    A, eps, falls, best = rng.standard_normal((7, 7)), 1e-3, [], np.zeros((0, 7))
    H, g = A @ A.T + np.eye(7), rng.standard_normal(7)
    for j in range(7):
        best = np.linalg.qr(np.vstack([best, np.linalg.matrix_power(H, j) @ g]).T)[0].T
        inner = best @ (H + 2 * eps * np.eye(7)) @ best.T
        falls.append(0.5 * best @ g @ np.linalg.solve(inner, best @ g))
    little = [
        (falls[j] - falls[j - 1]) * (j + 1 + price) < cost_weight * falls[j] for j in range(2, 7)
    ]
    wanted, made = 3 + little.index(True) if any(little) else 7, []
    y, curvature, _ = capped_cg(
        lambda v, out: made.append(1) or np.copyto(out, H @ v),
        g, eps, 0.0, CGWorkspace(7, float), cost_weight=cost_weight, price=price,
    )  # fmt: skip
    assert len(made) == wanted and curvature is None
    assert -(g @ y + 0.5 * y @ H @ y + eps * y @ y) == pytest.approx(falls[wanted - 1], rel=1e-9)


def conjugate_gradients(H, g, eps, j):
    """Return the iterate y and the residual ``(H + 2 eps) y + g`` after j steps of CG on ``(H + 2
    eps) y = -g``, two arrays of shape (n,).
    """
    A = H + 2 * eps * np.eye(len(g))
    y, r, p = np.zeros_like(g), g.copy(), -g
    for _ in range(j):
        step = (r @ r) / (p @ A @ p)
        y, before = y + step * p, r @ r
        r = r + step * (A @ p)
        p = -r + (r @ r) / before * p
    return y, r


@pytest.mark.parametrize("lowest, shows", [(-1.5, True), (0.5, False)])
def test_differences_of_cg_iterates_reveal_negative_curvature(lowest, shows, rng):
    """If CG converges too slowly although ``H + 2 eps`` is positive along every CG direction, a
    difference of iterates with curvature of at most -eps is returned. If no difference has such
    curvature, the last iterate is returned.
    """
    eps, n, j = 1e-2, 20, 14
    H = symmetric(rng, np.r_[lowest * eps, np.linspace(1, 2, n - 1)])
    g = np.linalg.eigh(H)[1] @ np.r_[1e-2, np.ones(n - 1)]
    work = CGWorkspace(n, np.dtype(float))
    work.y[:], work.r[:] = conjugate_gradients(H, g, eps, j)
    last, products = work.y.copy(), []

    def multiply(v, out):
        products.append(1)
        np.matmul(H, v, out=out)

    d, curvature = _negative_curvature_direction(multiply, g, eps, j, work)
    if shows:
        true = (d @ H @ d) / (d @ d)
        assert true <= -eps and curvature == pytest.approx(true, rel=1e-6) and len(products) < j
    else:
        assert curvature is None and np.array_equal(d, last) and len(products) == j


def test_too_slow_matches_the_published_convergence_bound():
    """`exceeds_convergence_bound` is true exactly if the residual exceeds the bound of [Royer et
    al. 2020] for kappa = (bound + 2 eps) / eps, which is here evaluated by another formula.
    """
    eps, bound = 0.1, 1.0
    kappa = (bound + 2 * eps) / eps
    tau = kappa**0.5 / (kappa**0.5 + 1)
    for j in (1, 10, 100, 400):
        guaranteed = 4 * kappa**4 / (1 - tau**0.5) ** 2 * tau**j
        assert hooks.exceeds_convergence_bound(j, guaranteed * (1 + 1e-9), bound, eps)
        assert not hooks.exceeds_convergence_bound(j, guaranteed * (1 - 1e-9), bound, eps)
    assert not hooks.exceeds_convergence_bound(10**9, 0.0, bound, eps)
    for kappa in (1e22, 1e40):  # tau is 1 to rounding, and 1 - tau^1/2 is 1 / (2 kappa^1/2)
        assert hooks.exceeds_convergence_bound(3, 16 * kappa**5 * (1 + 1e-7), eps * kappa, eps)
        assert not hooks.exceeds_convergence_bound(3, 16 * kappa**5 * (1 - 1e-7), eps * kappa, eps)


def test_minres_of_zero_overflowing_and_indefinite_matrices():
    b = np.array([3.0, 4.0])
    assert np.array_equal(minres(lambda v: 0 * v, b, 5, 1e-8), b), "the right side itself"
    with np.errstate(all="ignore"):
        found = minres(lambda v: np.full(2, np.inf), b, 5, 1e-8)
    assert np.array_equal(found, b)
    A = np.diag([2.0, -4.0])
    assert np.allclose(minres(lambda v: A @ v, b, 5, 1e-12), [1.5, -1.0], rtol=1e-12)
