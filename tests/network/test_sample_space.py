"""The operator in sample space against matrices of the one in parameter space, entry by entry, and
the eigenpairs that are found there.
"""

import pickle
import tracemalloc

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.network.gram import (
    Reflectors,
    RowState,
    SampleSpace,
    Scratch,
    layer_size,
    prices,
    rotates,
)

from ..nets import CURVATURES, KERNELS, every_activation
from ..plans import LAYOUTS, laid_out
from ..spectrum.spectra import picked
from .product_cases import EXACT, in_coordinates, objective

pytestmark = pytest.mark.by_day(share=1 / 2)

EVERY = [True] * 3


def worthwhile(model, N, kind):
    here, there = prices(model.shapes, N, kind)
    return here < there


def check(H, rotate=None, tol=EXACT):
    R = SampleSpace(H, rotate)
    in_coordinates(R, H, tol)
    return R


@pytest.mark.by_day(share=1 / 3)
@every_activation
@pytest.mark.parametrize("loss", KERNELS)
def test_is_the_hessian_in_other_coordinates(activation, loss, rng):
    """Every activation and loss, each with options drawn in turn; rows fewer than units, one row,
    and more rows than units.
    """
    for N in (1, 4, 9):
        for bias, residual in ((True, False), (False, True))[N == 1 : 2 - (N == 9)]:
            ob, theta = objective(
                rng,
                [7, 6, 6, 3],
                N,
                activation,
                loss,
                bias=bias,
                residual=residual,
                copies=N == 4,
                l2=0.1,
                l2_biases=N != 4,
                sample_weight=rng.random(N) if N > 1 else None,
            )
            for name in CURVATURES:
                kind = "hessian" if name == "empirical_fisher" and residual else name
                check(getattr(ob, kind)(theta), EVERY)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rotate", [None, [True, False, True], [False, True, False], [False] * 3])
def test_layers_may_be_mixed(rotate, bias, rng):
    ob, theta = objective(rng, [9, 12, 10, 3], 3, "gelu", "cross_entropy", l2=0.01, bias=bias)
    R = check(ob.hessian(theta), rotate)
    if rotate == [False] * 3:
        assert R.n_rest == 0


def test_against_another_oracle(problem, rng):
    """Complex steps of a NumPy gradient share no line with these passes."""
    p = problem(rng, [12, 10, 9, 2], "silu", "cross_entropy", N=3, soft=True, weights=True, l2=0.1)
    R = SampleSpace(p.ob.hessian(p.theta), EVERY)
    H, x = p.ref.hessian(p.theta), rng.standard_normal(R.shape[0])
    gap = np.linalg.norm(H @ R.embed(x) - R.embed(R @ x))
    assert gap <= EXACT * np.linalg.norm(R @ x)


def test_dead_units_and_errors_that_are_zero(rng):
    """Units that no row switches on, rows that fit exactly, rows of weight zero."""
    ob, theta = objective(rng, [10, 12, 11, 2], 4, "relu")
    W, b = ob.model.unflatten(theta)[0]
    b[:] = -100.0
    check(ob.hessian(theta), EVERY)
    b[::2] = 1.0
    fitted = fc.Objective(ob.model, ob.X, ob.model.predict(theta, ob.X), "mse")
    check(fitted.hessian(theta), EVERY)
    weight = np.array([0.0, 1.0, 0.0, 2.0])
    check(fc.Objective(ob.model, ob.X, ob.y, "mse", sample_weight=weight).hessian(theta), EVERY)
    zeros = np.zeros_like(theta)
    check(ob.hessian(zeros), EVERY)


def test_nearly_certain_rows_keep_their_accuracy(rng):
    """Logits far apart: the curvature is tiny, and right relative to itself."""
    ob, theta = objective(rng, [7, 6, 6, 3], 4, "tanh", "cross_entropy")
    W, b = ob.model.unflatten(theta)[-1]
    b[:] = [40.0, 0.0, 0.0]
    sure = fc.Objective(ob.model, ob.X, np.zeros(4, int))
    H = sure.hessian(theta)
    assert 0 < np.abs(H.to_dense()).max() < 1e-12
    check(H, EVERY)


def test_float32(rng):
    """Exact to float32's rounding, a few hundred of it."""
    ob, theta = objective(rng, [12, 11, 9, 3], 4, "tanh", "cross_entropy", "float32", l2=0.01)
    R = check(ob.hessian(theta), EVERY, tol=400 * np.finfo(np.float32).eps)
    assert R.dtype == np.float32 and R.embed(np.ones(R.shape[0])).dtype == np.float32


def test_lowered_shares_its_coordinates(rng):
    """The same vector means the same in both precisions, so mixed precision can use both."""
    ob, theta = objective(rng, [12, 11, 9, 3], 4, "tanh", "cross_entropy", l2=0.01)
    R = SampleSpace(ob.hessian(theta))
    low, x = R.astype("float32"), rng.standard_normal(R.shape[0])
    eps = np.finfo(np.float32).eps
    assert np.linalg.norm(low @ x - R @ x) <= 50 * eps * np.linalg.norm(R @ x)
    assert np.linalg.norm(low.embed(x) - R.embed(x)) <= 50 * eps * np.linalg.norm(x)
    with pytest.raises(ValueError, match=r"wanted H.astype\('float64'\).reduced"):
        low.astype("float64")


@pytest.fixture
def wide(rng):
    ob, theta = objective(rng, [12, 11, 9, 3], 4, "tanh", "cross_entropy", l2=0.01)
    H = ob.hessian(theta)
    return H, fc.eigvalsh(H)


@pytest.mark.parametrize("which", ["LM", "LA", "SA", "BE"])
@pytest.mark.parametrize("k", [9, 200, 281])
def test_eigenpairs(wide, which, k):
    """Values to rounding, residuals that hold in parameter space, copies of l2 in their places."""
    H, truth = wide
    pairs = fc.eigsh(H, k, which, space="samples", tol=1e-12, seed=0)
    scale = np.abs(truth).max()
    assert pairs.space == "samples" and pairs.converged.all() and len(pairs) == k
    assert np.abs(pairs.values - picked(truth, k, which)).max() <= EXACT * scale
    V = pairs.vectors
    assert np.abs(V.T @ V - np.eye(k)).max() <= 1e-11
    rounding = 1e-14 * scale  # of H @ V and the subtraction here
    assert (np.linalg.norm(H @ V - V * pairs.values, axis=0) <= pairs.residuals + rounding).all()


def test_vectors_are_made_one_at_a_time(wide):
    H, _ = wide
    pairs = fc.eigsh(H, 5, "LA", space="samples", seed=0)
    one = pairs.vector(3)
    assert "vectors" not in vars(pairs) and pairs.n == H.shape[0]
    assert "in the space of samples" in repr(pairs)
    w, V = pairs
    assert np.array_equal(V[:, 3], one) and "vectors" in vars(pairs)


def test_both_spaces_agree(wide, rng):
    H, _ = wide
    there = fc.eigsh(H, 4, "BE", space="samples", seed=0)
    here = fc.eigsh(H, 4, "BE", space="parameters", seed=0)
    assert (there.space, here.space) == ("samples", "parameters")
    assert np.abs(there.values - here.values).max() <= 1e-13
    again = fc.eigsh(H, 4, "BE", space="samples", v0=here.vectors, seed=0)
    assert again.n_products < here.n_products
    assert np.abs(again.values - here.values).max() <= 1e-13
    mixed = fc.eigsh(H, 4, "BE", space="samples", precision="mixed", seed=0)
    assert mixed.n_low > 0 and mixed.converged.all()
    assert np.abs(mixed.values - here.values).max() <= 1e-13


def test_deflation_in_and_out_of_the_space(wide, rng):
    """Vectors that lie in the space are taken out there; for others the search stays outside."""
    H, truth = wide
    first = fc.eigsh(H, 3, "LA", space="samples", tol=1e-13, seed=0)
    rest = fc.eigsh(H, 3, "LA", space="samples", against=first, seed=0)
    assert rest.space == "samples"
    assert np.abs(rest.values - truth[-6:-3]).max() <= 1e-12
    outside = rng.standard_normal((H.shape[0], 1))
    other = fc.eigsh(H, 3, "LA", space="samples", against=outside, seed=0)
    assert other.space == "parameters"


def test_smallest_of_a_ggn_are_those_of_the_complement(rng):
    ob, theta = objective(rng, [12, 11, 9, 3], 4, "tanh", "cross_entropy", l2=0.25)
    pairs = fc.eigsh(ob.ggn(theta), 6, "SA", space="samples", seed=0)
    assert np.abs(pairs.values - 0.25).max() <= 1e-14 and pairs.converged.all()
    V = pairs.vectors
    assert np.abs(V.T @ V - np.eye(6)).max() <= 1e-13
    assert np.abs(ob.ggn(theta) @ V - 0.25 * V).max() <= 1e-14


def test_rounding_bounds_hold(wide, rng):
    """The product's own, and the matrix's: against the dense matrix of the other space."""
    H, truth = wide
    R = SampleSpace(H, EVERY)
    x = rng.standard_normal(R.shape[0])
    gap = np.linalg.norm(R @ x - R.project(H @ R.embed(x)))
    assert gap <= R.rounding_bound(x) <= 1e-8
    E = R.embed(np.eye(R.shape[0])).T
    error = np.linalg.norm(R @ np.eye(R.shape[0]) - E.T @ H.to_dense() @ E)
    assert error <= np.linalg.norm(R.column_bounds()) <= 1e-6


def test_who_decides(rng):
    """The cost model, by sizes; a caller's word; a refusal where there is no such space."""
    big = fc.MLP([1024, 2048, 2048, 1000])
    assert worthwhile(big, 64, "hessian") and worthwhile(big, 256, "hessian")
    assert not worthwhile(big, 4096, "hessian")
    assert not worthwhile(fc.MLP([2, 16, 16, 1]), 4, "hessian")
    assert rotates(2048, 2048, 64, True) and not rotates(2048, 2048, 2000, True)
    assert not rotates(10, 2048, 64, True) and rotates(10, 2048, 64, False)
    assert layer_size(20, 30, 4, True, True) == 20 * 4 + 4 * 26
    ob, theta = objective(rng, [12, 11, 9, 3], 4)
    H = ob.hessian(theta)
    assert H.reduced() is None and H.reduced("parameters") is None
    assert fc.eigsh(H, 2, seed=0).space == "parameters"
    with pytest.raises(ValueError, match="wanted one of samples, outputs, inputs, parameters"):
        fc.eigsh(H, 2, space="rows")
    with pytest.raises(ValueError, match="has no such form"):
        fc.eigsh(np.eye(3), 2, space="samples")
    normed = fc.Objective(fc.MLP([3, 4, 1], batch_norm=True), np.eye(3), np.ones(3), "mse")
    with pytest.raises(ValueError, match="batch normalisation"):
        normed.hessian(normed.model.init(seed=0)).reduced("samples")


def test_pickles(wide):
    H, _ = wide
    R = SampleSpace(H, [True, False, True])
    again = pickle.loads(pickle.dumps(R))
    x = np.ones(R.shape[0])
    assert again.shape == R.shape and np.array_equal(again @ x, R @ x)
    pairs = pickle.loads(pickle.dumps(fc.eigsh(H, 2, space="samples", seed=0)))
    assert pairs.vector(0).shape == (H.shape[0],)


def test_at_the_size_where_it_is_chosen(rng):
    """By itself, and the same values as in parameter space."""
    ob, theta = objective(rng, [400, 500, 400, 10], 8, "gelu", "cross_entropy")
    H = ob.hessian(theta)
    there = fc.eigsh(H, 3, "BE", seed=0)
    here = fc.eigsh(H, 3, "BE", space="parameters", seed=0)
    assert there.space == "samples" and there.reduction.shape[0] < H.shape[0] / 20
    scale = np.abs(here.values).max()
    assert np.abs(there.values - here.values).max() <= EXACT * scale


def test_other_questions_are_completed(wide):
    """Trace, norm, density, every eigenvalue and inertia count the copies outside the space."""
    H, truth = wide
    n, scale = len(truth), np.abs(truth).max()
    R = SampleSpace(H)
    exact = fc.trace(H, R.shape[0], space="samples", seed=0)
    assert exact.space == "samples" and exact.stderr == 0
    assert abs(float(exact) - truth.sum()) <= EXACT * n * scale
    norm = fc.frobenius_norm(H, R.shape[0], space="samples", seed=0)
    assert abs(float(norm) - np.linalg.norm(truth)) <= EXACT * n * scale
    few = fc.trace(H, 60, space="samples", seed=0)
    assert abs(float(few) - truth.sum()) <= 4 * few.stderr
    every = fc.eigvalsh(H, space="samples")
    assert every.shape == (n,) and np.abs(every - truth).max() <= EXACT * scale
    here, there = fc.inertia(H), fc.inertia(H, space="samples")
    assert tuple(there) == tuple(here) and there.space == "samples"
    assert len(there.values) == R.shape[0] and there.bound <= 1e-9


def test_zeros_outside_the_space_are_zeros(rng):
    """Without l2 at least n - m eigenvalues are zero, and counted so."""
    ob, theta = objective(rng, [12, 11, 9, 3], 3, "tanh", "cross_entropy")
    H = ob.hessian(theta)
    found = fc.inertia(H, space="samples")
    R = H.reduced("samples")
    assert sum(found) == H.shape[0] and found.n_zero >= H.shape[0] - R.shape[0] > 100
    assert tuple(found) == tuple(fc.inertia(H))


@pytest.mark.parametrize("deflate", [True, False])
def test_density_has_the_copies_in_it(wide, deflate):
    """Its moments are those of the whole spectrum, within their errors, and zero noise is put where
    the copies are.
    """
    H, truth = wide
    d = fc.spectral_density(H, 6, 60, space="samples", deflate=deflate, seed=0)
    assert d.space == "samples" and d.n == len(truth)
    assert np.abs(d.weights.sum(axis=1) - 1).max() <= 1e-12
    for power in (1, 2):
        moment = d.moment(power)
        assert abs(float(moment) - (truth**power).mean()) <= 4 * moment.stderr + 1e-10
    copies = d.weights[np.abs(d.nodes - 0.01) <= 1e-12].sum() / len(d.weights)
    assert copies >= H.reduced("samples").n_rest / len(truth) - 1e-12


def test_krylov_serves_the_whole_operator(rng):
    """A run in sample space says of H what a run in parameter space says."""
    ob, theta = objective(rng, [30, 40, 30, 3], 2, loss="cross_entropy", l2=0.01)
    H = ob.hessian(theta)
    A = H.to_dense()
    exact = np.linalg.eigvalsh(A)
    run = fc.spectrum.Krylov(H, "few rows", space="samples")
    assert run.n == H.shape[0] > run.small.shape[0] == run.probe(0).n
    for which, wanted in (("LA", exact[-3:]), ("SA", exact[:3])):
        pairs = run.eigsh(3, which)
        assert np.allclose(pairs.values, wanted, rtol=0, atol=1e-7 * exact[-1])
        left = np.linalg.norm(A @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
        assert (left <= pairs.residuals + 1e-12 * exact[-1]).all()
        assert pairs.space == "samples" and pairs.shared == "few rows"
    density = run.spectral_density(3)
    assert density.n == H.shape[0] and abs(density.integral() - 1) < 1e-6
    share = run.small.n_rest / H.shape[0]
    at_rest = np.isclose(density.nodes, 0.01, rtol=0, atol=1e-9)
    assert (density.weights * at_rest).sum(axis=1).min() >= share - 1e-9
    here = fc.spectrum.Krylov(H, space="parameters")
    assert here.small is None and np.allclose(here.eigsh(2, "LA").values, exact[-2:])
    g = H.gradient
    assert run.start_from(g, 5).n == H.shape[0]


def test_the_searches_of_classify_run_in_sample_space(rng, monkeypatch):
    """The same verdict at a risk, from shorter vectors; a negative eigenvalue is found in them."""
    ob, _ = objective(rng, [30, 40, 30, 3], 2, l2=0.01)
    theta = fc.minimize(ob, ob.model.init(seed=0), "newton-cg", max_iter=200).x
    H = ob.hessian(theta)
    asked = {"dense_below": 0, "failure_probability": 0.01}
    runs = [fc.spectrum.Krylov(H, name, space=name) for name in ("parameters", "samples")]
    points = [fc.classify(ob, theta, krylov=run, **asked) for run in runs]
    assert points[0].kind == points[1].kind == "minimum"
    assert np.isclose(points[0].lambda_max, points[1].lambda_max)
    monkeypatch.setattr("fastcurv.network.spaces.prices", lambda *given: (0.0, 1.0))
    assert fc.classify(ob, theta, **asked).kind == "minimum"
    X, y = rng.standard_normal((2, 30)), np.array([[1.0], [-1.0]])
    toy = fc.Objective(fc.MLP([30, 20, 1], "tanh"), X, y, "mse", l2=1e-3)
    saddle = fc.classify(toy, np.zeros(toy.n_params), dense_below=0)
    assert saddle.kind == "saddle" and saddle.certified


def test_layers_of_the_cost_models_choice_are_made_once_and_others_are_not_kept(rng):
    ob, theta = objective(rng, [30, 4, 2], 5)
    H = ob.hessian(theta)
    asked = SampleSpace(H, [False, True])
    first, second = SampleSpace(H), SampleSpace(H)
    again = SampleSpace(H, [False, True])
    assert second.layers is first.layers and second.state is first.state
    assert asked.layers is not first.layers and again.layers is not asked.layers
    assert [layer.rest > 0 for layer in asked.layers] != [layer.rest > 0 for layer in first.layers]


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("residual", [False, True])
def test_state_is_the_one_of_the_products(residual, dtype, layout, rng):
    """What the engine keeps, whole or in chunks, is what NumPy makes of theta, to rounding."""
    for phi in ("tanh", "relu", "leaky_relu", "sigmoid", "softplus", "silu", "gelu", "elu"):
        model = fc.MLP([5, 7, 7, 3], [phi, "identity" if residual else phi], residual=residual,
                       dtype=dtype)  # fmt: skip
        X, y = rng.standard_normal((601, 5)), rng.integers(3, size=601)
        with laid_out(*LAYOUTS[layout]):
            for memory in (None, 600_000):
                ob = fc.Objective(model, X, y, memory=memory)
                H = ob.hessian(model.init(seed=0) + 0.01)
                H @ np.ones(model.n_params)
                given = RowState(ob, H.theta, H._plan)
                made = RowState(ob, H.theta, multiply=Scratch(dtype, 1))
                for name in ("a", "p", "eq", "delta"):
                    for one, other in zip(getattr(given, name), getattr(made, name)):
                        assert (one is None) == (other is None), (phi, name)
                        room = 50 * np.finfo(dtype).eps
                        assert one is None or np.abs(one - other).max() <= room, (phi, name)


# --- the orthogonal matrices of a layer, and the memory of the passes


@pytest.mark.parametrize("N, k", [(3, 7), (7, 3), (4, 4), (1, 5), (5, 1)])
def test_reflectors(N, k, rng):
    """Q is orthogonal and holds the rows of A whatever their rank."""
    for A in (
        rng.standard_normal((N, k)),
        np.ones((N, k)),
        np.zeros((N, k)),
        np.eye(N, k),
        rng.standard_normal((N, 1)) * rng.standard_normal(k),
    ):
        Q = Reflectors(A)
        full = Q.right(np.eye(k))
        assert np.abs(full @ full.T - np.eye(k)).max() <= 1e-14
        assert np.abs(Q.right_transposed(np.eye(k)) - full.T).max() <= 1e-14
        assert np.abs(Q.thin() - full[:, : Q.r]).max() <= 1e-14
        assert np.abs(Q.L @ full[:, : Q.r].T - A).max() <= 1e-14 * max(1, np.abs(A).max() * k)


@pytest.mark.parametrize("kind", ["hessian", "ggn"])
def test_passes_share_their_memory_and_nothing_else(kind, rng):
    """Later products take no memory for their matrices, and change no earlier one's result."""
    model = fc.MLP([200, 150, 150, 10], residual=True)
    ob = fc.Objective(model, rng.standard_normal((32, 200)), rng.integers(10, size=32))
    R = SampleSpace(getattr(ob, kind)(model.init(seed=0)), [True] * 3)
    x, y = rng.standard_normal((2, R.shape[0]))
    out = np.empty_like(x)
    first = R.product(x).copy()
    R.product(y)
    tracemalloc.start()
    try:
        found = R.product(x, out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found is out and np.array_equal(out, first)
    matrix = 8 * 32 * 150
    most = 2 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 2.5  # 1.23: a temporary more
    assert peak < most * matrix, peak / matrix  # with skips, and the loss
