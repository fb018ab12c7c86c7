"""The Gram matrix of what the outputs see against the dense GGN and Fisher, and the eigenpairs that
are found by it.
"""

import functools
import pickle

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.network.spaces import OutputSpace

from ..certify.longdouble import LD, Truth, in_long_double, softmax
from ..nets import KERNELS, every_activation
from ..spectrum.spectra import picked
from . import product_cases
from .product_cases import EXACT

pytestmark = pytest.mark.by_day(share=1 / 2)

EVERY_END = ("LM", "LA", "SA", "BE")
objective = functools.partial(product_cases.objective, loss="cross_entropy")


def every(R):
    """The whole's eigenvalues, as R says."""
    return np.sort(np.append(np.linalg.eigvalsh(R.matrix), np.full(R.n_rest, R.rest)))


@every_activation
@pytest.mark.parametrize("loss", KERNELS)
def test_has_the_eigenvalues_of_the_whole(activation, loss, rng):
    """Every activation and loss, with options drawn in turn; proved errors hold the difference."""
    for N in (1, 6):
        for bias, residual in ((True, False), (False, True)):
            ob, theta = objective(
                rng,
                [7, 6, 6, 3],
                N,
                activation,
                loss=loss,
                bias=bias,
                residual=residual,
                copies=N == 6,
                soft=residual,
                l2=0.1 * bias,
                sample_weight=rng.random(N) * (np.arange(N) != 2) if N > 1 else None,
            )
            for G in (ob.ggn(theta), ob.empirical_fisher(theta)):
                R, truth = G.reduced("outputs"), np.linalg.eigvalsh(G.to_dense())
                scale = np.abs(truth).max()
                assert np.abs(every(R) - truth).max() <= EXACT * scale
                proved = R.enclosed()
                gap = np.linalg.norm(proved.products - R.matrix)
                assert gap <= 2 * np.linalg.norm(proved.bounds) <= 1e-9 * scale
                v = rng.standard_normal(R.n)
                form = np.sum(R.project(v) ** 2) + R.rest * v @ v  # v'AA'v
                assert abs(form - v @ (G @ v)) <= EXACT * scale * (v @ v)


def exact_gram(ob, theta):
    """K of a net with cross entropy in extended precision, a backward pass a row and column."""
    truth, columns = Truth(ob, theta), []
    N, c = truth.z.shape
    for k in range(c - 1):
        for n, s in enumerate(np.sqrt(softmax(truth.z)[0])):
            t, d = s.argmax(), np.zeros((N, c), LD)
            j = k + (k >= t)
            d[n] = -(s**2) * s[j] / (1 + s[t])
            d[n, j] += s[j]
            d[n, t] = -s[t] * s[j]
            columns.append(truth.backward(d / np.sqrt(LD(N)))[0])
    A = np.array(columns)
    return A @ A.T


@in_long_double
def test_proved_bounds_hold_against_extended_precision(rng):
    ob, theta = objective(rng, [9, 8, 7, 4], 5)
    for scale in (1.0, 6.0):  # of the parameters: nearly certain rows at 6
        R = ob.ggn(scale * theta).reduced("outputs")
        truth = exact_gram(ob, scale * theta)
        proved = R.enclosed()
        assert (np.linalg.norm(proved.products - truth, axis=0) <= proved.bounds).all()
        assert np.abs(R.matrix - truth).max() <= 1e-14 * np.abs(truth).max()
        assert np.linalg.norm(proved.bounds) <= 1e-9 * np.linalg.norm(truth)


@in_long_double
def test_what_adding_l2_rounds_off_is_in_the_bounds():
    """A matrix far below l2, of which only its leading digits are left beside it."""
    rng = np.random.default_rng(0)
    X, y = 1e-9 * rng.standard_normal((6, 9)), rng.standard_normal((6, 2))
    model = fc.MLP([9, 2], bias=False)
    R = fc.Objective(model, X, y, "mse", l2=0.1).ggn(model.init(seed=0)).reduced("outputs")
    wide = X.astype(np.longdouble)
    truth = np.kron(np.eye(2), wide @ wide.T / 3)  # 2/N, N = 6, for each of the outputs
    truth[np.diag_indices(12)] += np.longdouble(0.1)
    proved = R.enclosed()
    gap = np.linalg.norm((proved.products - truth).astype(float), axis=0)
    assert gap.any() and (gap <= proved.bounds).all() and (proved.bounds <= 1e-16).all()


def test_nearly_certain_rows_keep_their_accuracy(rng):
    """Logits far apart: K is tiny, and right relative to itself."""
    ob, theta = objective(rng, [7, 6, 6, 3], 4)
    ob.model.unflatten(theta)[-1][1][:] = [60.0, 0.0, 0.0]
    G = fc.Objective(ob.model, ob.X, np.zeros(4, int)).ggn(theta)
    truth = np.linalg.eigvalsh(G.to_dense())
    assert 0 < truth.max() < 1e-20
    assert np.abs(every(G.reduced("outputs")) - truth).max() <= EXACT * truth.max()


@pytest.fixture
def wide(rng):
    ob, theta = objective(rng, [12, 11, 9, 3], 6, l2=0.01)
    G = ob.ggn(theta)
    return G, np.linalg.eigvalsh(G.to_dense())


CASES = [(k, end, directly) for k in (1, 12, 30) for end in EVERY_END for directly in (True, False)]


@pytest.mark.parametrize("k, which, directly", [*CASES, (281, "BE", True)])
def test_eigenpairs(wide, k, which, directly, monkeypatch):
    """Values to rounding, residuals that hold in parameter space, orthonormal vectors; whether K is
    decomposed or searched.
    """
    G, truth = wide
    if not directly:
        monkeypatch.setattr("fastcurv.spectrum.reduced.few", lambda *given: False)
    pairs = fc.eigsh(G, k, which, space="outputs", tol=1e-11, seed=0)
    assert pairs.space == "outputs" and pairs.converged.all() and len(pairs) == k
    assert np.abs(pairs.values - picked(truth, k, which)).max() <= EXACT * truth.max()
    V = pairs.vectors
    assert np.abs(V.T @ V - np.eye(k)).max() <= 1e-12
    assert (np.linalg.norm(G @ V - V * pairs.values, axis=0) <= pairs.residuals + 1e-16).all()
    assert np.array_equal(pairs.vector(k // 2), V[:, k // 2])


def test_vectors_and_rows_of_them(wide):
    """`embed` and `project` take either, and undo each other along eigenvectors."""
    G, _ = wide
    small = G.reduced("outputs")
    values, U = np.linalg.eigh(small @ np.eye(small.shape[0]))
    V, one = small.embed(U.T), small.embed(U[:, -1])
    assert np.array_equal(one, V[-1]) and np.abs(V @ V.T - np.eye(len(V))).max() <= 1e-12
    back = small.project(one)
    assert small.project(V).shape == V.shape[:1] * 2 and np.array_equal(small.project(V)[-1], back)
    assert abs(back @ U[:, -1]) == pytest.approx(np.linalg.norm(back), rel=1e-12)


@pytest.mark.parametrize("directly", [True, False])
def test_small_eigenvalues(rng, directly, monkeypatch):
    """Rows that are nearly equal: eigenvalues over ten decades, vectors orthogonal all the same,
    residuals that say what they are.
    """
    if not directly:
        monkeypatch.setattr("fastcurv.spectrum.reduced.few", lambda *given: False)
    ob, theta = objective(rng, [12, 11, 9, 3], 6)
    X = ob.X[0] + np.logspace(0, -6, 6)[:, None] * ob.X
    G = fc.Objective(ob.model, X, ob.y).ggn(theta)
    truth = np.linalg.eigvalsh(G.to_dense())
    q = G.reduced("outputs").shape[0]
    for relative in ("scale", "value"):
        pairs = fc.eigsh(G, q, "LA", space="outputs", relative=relative, seed=0)
        assert pairs.together and np.abs(pairs.values - truth[-q:]).max() <= EXACT * truth.max()
        V = pairs.vectors
        assert np.abs(V.T @ V - np.eye(q)).max() <= 1e-12
        residuals = np.linalg.norm(G @ V - V * pairs.values, axis=0)
        assert (residuals <= pairs.residuals + 1e-16).all()
        if relative == "scale":
            assert pairs.converged.all()
        else:  # what is asked of them is below the rounding of the products
            assert 4 < pairs.converged.sum() < q
            told = pairs.converged & (pairs.outside < 0)  # others are zeros to rounding
            assert (pairs.residuals <= pairs.tol * np.abs(pairs.values))[told].all()


def test_copies_of_multiple_eigenvalues_are_all_there(rng):
    """One layer and mse: K is ``(a a' + 1)`` times the identity of the classes."""
    ob, theta = objective(rng, [20, 5], 4, loss="mse")
    G = ob.ggn(theta)
    pairs = fc.eigsh(G, 15, "LA", space="outputs", seed=0)
    truth = np.linalg.eigvalsh(G.to_dense())[-15:]
    assert pairs.probed and pairs.n_products == 1
    assert np.abs(pairs.values - truth).max() <= EXACT * truth.max()
    assert np.abs(pairs.values.reshape(3, 5) - truth[::5, None]).max() <= EXACT * truth.max()


def test_nothing_at_all(rng):
    """Weights that are all zero: K is 0, and any orthonormal vectors will do."""
    ob, theta = objective(rng, [9, 8, 3], 4, l2=0.5, sample_weight=np.zeros(4))
    G = ob.ggn(theta)
    for which in EVERY_END:
        pairs = fc.eigsh(G, 11, which, space="outputs", seed=0)
        V = pairs.vectors
        assert (pairs.values == 0.5).all() and pairs.converged.all()
        assert np.abs(V.T @ V - np.eye(11)).max() <= 1e-12
    assert tuple(fc.inertia(G)) == (ob.n_params, 0, 0)


def test_what_a_gram_matrix_cannot_show_is_searched_elsewhere(rng, monkeypatch):
    """In float32 vectors of small eigenvalues are off by more than was asked: by itself `eigsh`
    then goes to parameter space, and says so.
    """
    monkeypatch.setattr("fastcurv.network.spaces.cost", lambda *given: 0.0)
    ob, theta = objective(rng, [10, 9, 12], 6, dtype="float32")
    X = ob.X[0] + np.logspace(0, -3, 6)[:, None] * ob.X
    G = fc.Objective(ob.model, X, ob.y).ggn(theta)
    forced = fc.eigsh(G, 40, "LA", space="outputs", seed=0)
    assert not forced.converged.all()
    assert fc.eigsh(G, 2, "LA", seed=0).space == "outputs"
    own = fc.eigsh(G, 40, "LA", seed=0)
    assert own.space == "parameters"
    assert (own.residuals <= own.tol * own.scale).all() and (own.converged.all() or own.unseen > 0)


def test_rows_that_are_equal_have_zeros(rng):
    """A Gram matrix of low rank: what it cannot show is of the complement."""
    ob, theta = objective(rng, [12, 11, 9, 3], 8, copies=True)
    ob = fc.Objective(ob.model, ob.X, ob.y, ob.loss, ob.l2, l2_biases=ob.l2_biases)
    G = ob.ggn(theta)
    pairs = fc.eigsh(G, 16, "LA", space="outputs", seed=0)
    assert (pairs.outside >= 0).sum() == 6 and pairs.converged.all()
    V = pairs.vectors
    assert np.abs(V.T @ V - np.eye(16)).max() <= 1e-12
    assert (np.linalg.norm(G @ V - V * pairs.values, axis=0) <= pairs.residuals).all()


def test_float32(rng):
    ob, theta = objective(rng, [12, 11, 9, 3], 6, dtype="float32", l2=0.01)
    G, eps = ob.ggn(theta), np.finfo(np.float32).eps
    truth = np.linalg.eigvalsh(G.to_dense().astype(float))
    R = G.reduced("outputs")
    assert R.dtype == np.float32 and np.abs(every(R) - truth).max() <= 400 * eps * truth.max()
    pairs = fc.eigsh(G, 8, "LA", space="outputs", seed=0)
    assert pairs.vectors.dtype == np.float32 and pairs.converged.all()
    V = pairs.vectors.astype(float)
    gaps = np.linalg.norm(G.astype("float64") @ V - V * pairs.values, axis=0)
    assert (gaps <= pairs.residuals + 20 * eps * truth.max()).all()
    assert np.abs(V.T @ V - np.eye(8)).max() <= 200 * eps
    high = G.astype("float64").reduced("outputs").enclosed()  # float64 of the stored numbers
    assert np.array_equal(R.enclosed().products, high.products)


def test_starts_deflation_and_mixed_precision(wide, rng, monkeypatch):
    G, truth = wide
    monkeypatch.setattr("fastcurv.spectrum.reduced.few", lambda *given: False)
    first = fc.eigsh(G, 3, "LA", space="outputs", tol=1e-13, seed=0)
    rest = fc.eigsh(G, 3, "LA", space="outputs", against=first, seed=0)
    assert rest.space == "outputs"
    assert np.abs(rest.values - truth[-6:-3]).max() <= EXACT * truth.max()
    for other in (rng.standard_normal((G.shape[0], 1)), first.reduction.outside(0, 1).T):
        there = fc.eigsh(G, 3, "LA", space="outputs", against=other, seed=0)
        assert there.space == "parameters"
    again = fc.eigsh(G, 3, "LA", space="outputs", v0=first.vectors, probe=True, seed=0)
    assert np.abs(again.values - truth[-3:]).max() <= EXACT * truth.max()
    mixed = fc.eigsh(G, 3, "LA", space="outputs", precision="mixed", seed=0)
    assert mixed.n_low > 0 and mixed.converged.all()
    assert np.abs(mixed.values - truth[-3:]).max() <= EXACT * truth.max()


def test_other_questions_are_completed(wide):
    """Trace, norm, density, every eigenvalue and inertia, all exact and at no product."""
    G, truth = wide
    n, scale = len(truth), truth.max()
    trace = fc.trace(G, space="outputs")
    norm = fc.frobenius_norm(G, space="outputs")
    assert (trace.stderr, trace.n_products, trace.space) == (0.0, 0, "outputs")
    assert abs(float(trace) - truth.sum()) <= EXACT * n * scale
    assert abs(float(norm) - np.linalg.norm(truth)) <= EXACT * n * scale
    few = fc.trace(G, 8, "hutchinson", space="outputs", seed=0)
    assert few.n_products == 8 and abs(float(few) - truth.sum()) <= 5 * few.stderr
    d = fc.spectral_density(G, space="outputs")
    assert d.space == "outputs" and d.n_products == 0 and abs(d.integral() - 1) < 1e-6
    assert abs(float(d.moment(2)) - (truth**2).mean()) <= EXACT * scale**2
    assert d.moment(2).stderr <= 1e-15 * scale**2 and d.wasserstein(truth) <= EXACT * scale
    before = G.n_products
    assert np.abs(fc.eigvalsh(G) - truth).max() <= EXACT * scale and G.n_products == before
    here, there = fc.inertia(G, space="parameters"), fc.inertia(G)
    assert tuple(there) == tuple(here) == (n, 0, 0)
    assert there.space == "outputs" and there.n_products == 0 and there.bound <= 1e-9
    run = fc.spectrum.Krylov(G, space="outputs")
    assert np.abs(run.eigsh(3, "LA").values - truth[-3:]).max() <= 1e-8 * scale


def test_zeros_of_a_ggn_are_counted(rng):
    """Without l2 all but the outputs' eigenvalues are zero, and every other one positive."""
    ob, theta = objective(rng, [12, 11, 9, 3], 6)
    found = fc.inertia(ob.ggn(theta))
    assert tuple(found) == (12, 0, ob.n_params - 12) and found.space == "outputs"
    assert tuple(fc.inertia(ob.ggn(theta), space="parameters")) == tuple(found)


def test_who_decides(rng):
    """The cost model, a caller's word, and a refusal that says what is wanted."""
    ob, theta = objective(rng, [60, 300, 300, 5], 20, "gelu", l2=1e-3)
    G = ob.ggn(theta)
    assert G.reduced().space == "outputs" and ob.hessian(theta).reduced().space == "samples"
    there, here = fc.eigsh(G, 4, seed=0), fc.eigsh(G, 4, space="parameters", seed=0)
    assert there.space == "outputs"
    assert np.abs(there.values - here.values).max() <= EXACT * here.values.max()
    few, theta = objective(rng, [4, 3, 2], 50)
    refused = [
        (few.ggn(theta), "50 pairs of row and class and n = 23"),
        (few.hessian(theta), "a Hessian"),
    ]
    spared = fc.Objective(few.model, few.X[:3], few.y[:3], l2=0.1, l2_biases=False)
    refused.append((spared.ggn(theta), "spares biases"))
    normed = fc.Objective(fc.MLP([30, 4, 1], batch_norm=True), np.eye(30)[:3], np.ones(3), "mse")
    refused.append((normed.ggn(normed.model.init(seed=0)), "batch normalisation"))
    one = fc.Objective(fc.MLP([2, 3, 1]), np.ones((5, 2)), np.zeros(5, int), "cross_entropy")
    flat = one.ggn(one.model.init(seed=0))
    refused.append((flat, "one class"))
    assert float(fc.trace(flat)) == 0 and not fc.eigsh(flat, 2).values.any()
    for G, why in refused:
        with pytest.raises(ValueError, match=why):
            G.reduced("outputs")
        assert G.written() is None and G.reduced() is None
    assert spared.empirical_fisher(theta).written() is not None  # it holds no l2


def test_pickles(wide):
    R = OutputSpace(wide[0])
    again = pickle.loads(pickle.dumps(R))
    assert again.shape == R.shape and np.array_equal(again @ np.eye(12), R @ np.eye(12))
    pairs = pickle.loads(pickle.dumps(fc.eigsh(wide[0], 2, space="outputs", seed=0)))
    assert pairs.vector(0).shape == (R.n,)


@pytest.mark.parametrize("kind", ["ggn", "empirical_fisher"])
@pytest.mark.parametrize("size", [1e-150, 1e-6, 1.0, 1e6])
def test_residuals_of_vectors_out_of_reach_hold(kind, size, rng):
    """Of eigenvectors at 0 or l2 too, where K is as large as it may be and nearly singular."""
    for i in range(12):
        loss = KERNELS[i % 3]
        sizes = [4, *(int(w) for w in rng.integers(1, 6, size=2)), 2]
        n, each = fc.MLP(sizes).n_params, 1 if kind[0] == "e" or loss == "cross_entropy" else 2
        ob, theta = objective(
            rng, sizes, (n - 1) // each, "leaky_relu", loss=loss, l2=0.1 * (i % 2)
        )
        ob = fc.Objective(ob.model, ob.X * size, ob.y, loss, l2=ob.l2)
        G = getattr(ob, kind)(theta * 10.0 ** rng.uniform(0, 2))
        found = fc.eigsh(G, 6, "SA", space="outputs", seed=i)
        assert (abs(np.linalg.norm(found.vectors, axis=0) - 1) <= 1e-14).all()
        off = np.linalg.norm(G @ found.vectors - found.vectors * found.values, axis=0)
        assert (off <= found.residuals + 20 * np.finfo(float).eps * found.scale).all(), sizes
