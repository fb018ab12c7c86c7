"""Spectra of small networks, whose Hessian is computed as a matrix: eigenpairs, densities, traces,
and the choice between the matrix and a search.
"""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import aslinearoperator

import fastcurv as fc
from fastcurv.network.operators import summed_matrix
from fastcurv.spectrum.eigsh import ThickRestartSearch
from fastcurv.spectrum.forms import as_operand, matrix_of

from ..nets import CURVATURES, EPS, LOSSES, Blocks, draw
from .spectra import picked

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 3)

NETS = [  # sizes and samples of networks with 16 to 241 parameters
    ([1, 5, 1], 41),
    ([3, 8, 2], 60),
    ([9, 5, 5, 2], 90),
    ([10, 10, 1], 200),
    ([4, 12, 12, 3], 150),
]


def small_objective(sizes, N, loss="mse", dtype="float64", **options):
    net = draw(0, sizes, "tanh", loss, N=N, dtype=dtype, n_threads=1, **options)
    return net.ob, net.theta


@pytest.mark.parametrize("which", ["LM", "LA", "SA", "BE"])
@pytest.mark.parametrize("kind", CURVATURES)
@pytest.mark.parametrize(("sizes", "N"), [*NETS, ([5, 12, 1], 80)])
def test_eigenpairs_equal_those_of_the_dense_matrix(sizes, N, kind, which, dtype):
    """For small networks, `eigsh` returns the five wanted eigenvalues of the dense matrix with
    orthonormal vectors, with all copies if every unit is inactive. Residuals computed from separate
    products are within the reported ones.
    """
    ob, theta = small_objective(sizes, N, dtype=dtype, l2=1e-3 if kind == "hessian" else 0.0)
    if sizes == [5, 12, 1]:
        model = fc.MLP(sizes, "relu", dtype=dtype)
        ob, theta = fc.Objective(model, ob.X, ob.y, "mse"), theta.copy()
        theta[60:72] = -50.0  # biases of all hidden units: none is active
    H = getattr(ob, kind)(theta)
    A = H.to_dense().astype(np.float64)
    every = np.linalg.eigvalsh(A)
    found = fc.eigsh(H, 5, which, rng=0)
    size = np.abs(every).max()
    # LAPACK's eigenvalues are off by up to n roundings, and each product adds one rounding.
    rounding = (64 + len(every) + found.n_products) * EPS[dtype] * size
    error = rounding + found.residuals.max() * (found.n_products > 0)
    assert np.abs(found.values - picked(every, 5, which)).max() <= error
    V = found.vectors.astype(np.float64)
    assert np.abs(V.T @ V - np.eye(5)).max() <= 32 * EPS[dtype]
    again = np.linalg.norm((H @ found.vectors) - V * found.values, axis=0)
    assert (again <= found.residuals + 40 * EPS[dtype] * size).all()
    assert found.converged.all() and found.probed and found.vectors.dtype == dtype
    assert kind != "hessian" or (found.n_products > 0) == (len(theta) > 64)
    most = 2.001 * found.tol * found.scale if found.n_products else 0
    assert found.missed_within <= most
    assert abs(found.scale - size) <= 64 * EPS[dtype] * size and not found.asymmetry


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_matrix_summed_over_rows_equals_matrix_from_products(loss, dtype, l2):
    ob, theta = small_objective([4, 7, 6, 3], 50, loss, dtype, l2=l2, weights=True)
    for H in (ob.hessian(theta), ob.ggn(theta)):
        A, products = H.to_dense(), H.n_products
        summed, count = matrix_of(H)
        assert count == 0 and H.n_products == products and summed.dtype == np.float64
        # Both ways sum over N samples and the widths of the last layers in the dtype of the plan.
        assert np.abs(summed - A).max() <= 64 * EPS[dtype] * np.abs(A).max()
        assert np.array_equal(summed, summed.T)
    found = fc.eigsh(H, 30, "LA")
    assert found.n_products == 0 and found.converged.all()
    values = np.linalg.eigvalsh(A.astype(float))[-30:]
    assert np.allclose(found.values, values, rtol=0, atol=64 * EPS[dtype] * values[-1])


def test_summed_matrix_is_none_for_operators_without_sums():
    ob, theta = small_objective([4, 7, 3], 50, "cross_entropy")
    assert summed_matrix(ob.empirical_fisher(theta)) is None
    for options in ({"memory": 1 << 20}, {"batch_norm": True}):
        ob, at = small_objective([4, 7, 3], 50, "cross_entropy", **options)
        assert summed_matrix(ob.ggn(at)) is None and summed_matrix(ob.hessian(at)) is None
    values = fc.eigvalsh(ob.ggn(at))
    assert np.allclose(values, np.linalg.eigvalsh(ob.ggn(at).to_dense()), atol=1e-10)


def test_a_nearly_complete_space_is_completed_before_a_new_start(monkeypatch):
    """If few dimensions are left, the run completes the space instead of beginning with a new
    start.
    """
    values, starts = np.r_[np.linspace(-0.9, 1, 38), 4.0, 5.0], []
    lock = ThickRestartSearch.lock
    monkeypatch.setattr(ThickRestartSearch, "lock", lambda *a: starts.append(1) or lock(*a))
    found = fc.eigsh(np.diag(values), 3, "LM", max_basis=40, rng=0)
    assert found.n_products == 40 and found.missed_within == 0 and found.probed and not starts
    assert np.abs(found.values - [1, 4, 5]).max() <= 1e-13


def test_a_budget_smaller_than_the_space_keeps_products_for_a_new_start():
    """If the budget is smaller than the space, some products are kept for a new start, and the
    search reports what the first start may have missed.
    """
    op = np.diag(np.r_[np.geomspace(1e-3, 1, 37), 1.5, 2])
    alone = fc.eigsh(op, 10, max_basis=39, probe=False, rng=0, tol=1e-10).n_products
    assert 31 <= alone <= 34
    for budget in range(alone + 4, 39):
        found = fc.eigsh(op, 10, max_basis=39, max_products=budget, rng=0, tol=1e-10)
        assert found.n_products <= budget and found.converged.all()
        assert found.probed and found.missed_within <= 1e-6


def test_a_search_is_used_where_it_costs_less_than_the_matrix():
    """A search is used for operators with expensive products, for streamed samples, and if a
    budget, start or basis is given.
    """
    ob, theta = small_objective([10, 10, 1], 200)
    H = ob.hessian(theta)
    n = len(theta)
    assert fc.eigsh(aslinearoperator(H.to_dense()), 2, "LA", rng=0).n_products < n
    assert fc.eigsh(H, 2, "LA", max_products=n - 1, rng=0).n_products < n
    assert fc.eigsh(H, 2, "LA", max_basis=60, rng=0).n_products < n
    assert fc.eigsh(H, 2, "LA", v0=np.ones(n)).n_products < n
    rows = np.array_split(np.arange(200), 4)
    source = Blocks(*((ob.X[part], ob.y[part]) for part in rows))
    streamed = fc.StreamedObjective(ob.model, source, loss="mse", block_rows=50)
    assert not as_operand(streamed.hessian(theta)).is_matrix_faster(1e6)


@pytest.mark.parametrize(("sizes", "N"), NETS)
def test_small_networks_have_exact_densities_and_sums(sizes, N, dtype):
    """For small networks, densities and Frobenius norms are computed from the matrix without error,
    unless few probes are requested.
    """
    ob, theta = small_objective(sizes, N, dtype=dtype)
    H, n = ob.hessian(theta), len(theta)
    A = H.to_dense().astype(np.float64)
    every, size = np.linalg.eigvalsh(A), np.abs(A).sum()
    density = fc.spectral_density(H, rng=0)
    assert density.n_deflated == n and not density.n_products and not density.stderr.any()
    assert np.abs(np.sort(density.nodes[0]) - every).max() <= 64 * EPS[dtype] * np.abs(every).max()
    assert np.allclose(density.weights, 1 / n)
    G = ob.ggn(theta)
    for op, M in ((H, A), (G, G.to_dense().astype(np.float64))):
        norm = fc.frobenius_norm(op)
        assert (norm.method, norm.stderr) == ("exact", 0)
        assert np.abs(norm.estimate - np.linalg.norm(M)) <= 64 * EPS[dtype] * size
    if n > 20:
        assert fc.spectral_density(H, 2, 8, rng=0).n_products <= 16
        assert fc.frobenius_norm(H, 15).n_products == 15


@pytest.mark.parametrize(
    "make", [np.asarray, csr_matrix, aslinearoperator], ids=lambda f: f.__name__
)
def test_subnormal_matrices_keep_their_signs(make):
    """Eigenvalues of subnormal matrices are those of the scaled matrix within their error bounds,
    and from `eigvalsh` within the smallest subnormal number.
    """
    tiny = 5e-324
    for K in (16 * np.eye(5) - 3, 4 * np.eye(8) - 1, np.array([[1.0, 2.0], [2.0, 3.0]])):
        true, A = np.linalg.eigvalsh(K), make(tiny * K)
        found = fc.inertia(A)
        assert found.n_positive <= (true > 0).sum() and found.n_negative <= (true < 0).sum()
        assert (np.abs(found.values / tiny - true) <= found.errors / tiny).all()
        assert np.abs(fc.eigvalsh(A) / tiny - true).max() <= 1
        pairs = fc.eigsh(A, 2, "LA", rng=0)
        assert (np.abs(pairs.values / tiny - true[-2:]) <= pairs.residuals / tiny).all()


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
