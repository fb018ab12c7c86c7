"""Operators reduced to the spaces of samples, outputs and inputs, and their eigenpairs, compared
with dense matrices.
"""

import functools
import pickle
import tracemalloc

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.network.input_space import InputSpaceOperator, is_input_rotation_useful
from fastcurv.network.reductions import CoordinateReduction
from fastcurv.network.row_passes import MatrixPool, RowState
from fastcurv.network.sample_space import BlockReflector, SampleSpaceOperator

from ..certify.longdouble import LD, Truth, in_long_double, softmax
from ..nets import CURVATURES, KERNELS, every_activation
from ..plans import LAYOUTS, laid_out
from . import product_cases
from .product_cases import EXACT, all_eigenvalues, check_coordinates, of_outputs, redundant_columns

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 2)

EVERY = [True] * 3
EVERY_END = ("LM", "LA", "SA", "BE")
objective = functools.partial(product_cases.objective, loss="cross_entropy")


# --- samples


def check(H, rotate=None, tol=EXACT):
    R = SampleSpaceOperator(H, rotate)
    check_coordinates(R, H, tol)
    return R


@pytest.mark.by_day(share=1 / 3)
@every_activation
@pytest.mark.parametrize("loss", KERNELS)
def test_sample_space_is_the_hessian_in_other_coordinates(activation, loss, rng):
    """In the orthonormal basis of sample space and its complement, the operator equals the dense
    Hessian, GGN or Fisher matrix, for every activation and loss and for 1, 4 and 9 samples.
    """
    for N in (1, 4, 9):
        for bias, residual in ((True, False), (False, True))[N == 1 : 2 - (N == 9)]:
            ob, theta = objective(
                rng, [7, 6, 6, 3], N, activation, loss=loss, bias=bias, residual=residual,
                copies=N == 4, l2=0.1, l2_biases=N != 4,
                sample_weight=rng.random(N) if N > 1 else None,
            )  # fmt: skip
            for name in CURVATURES:
                kind = "hessian" if name == "empirical_fisher" and residual else name
                check(getattr(ob, kind)(theta), EVERY)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rotate", [None, [True, False, True], [False, True, False], [False] * 3])
def test_sample_space_with_rotated_layers_equals_the_hessian(rotate, bias, rng):
    ob, theta = objective(rng, [9, 12, 10, 3], 3, "gelu", l2=0.01, bias=bias)
    R = check(ob.hessian(theta), rotate)
    if rotate == [False] * 3:
        assert R.n_complement == 0


def test_sample_space_agrees_with_complex_steps(problem, rng):
    """Products in sample space agree with complex steps of a NumPy gradient, which shares no code
    with these products.
    """
    p = problem(rng, [12, 10, 9, 2], "silu", "cross_entropy", N=3, soft=True, weights=True, l2=0.1)
    R = SampleSpaceOperator(p.ob.hessian(p.theta), EVERY)
    H, x = p.ref.hessian(p.theta), rng.standard_normal(R.shape[0])
    gap = np.linalg.norm(H @ R.embed(x) - R.embed(R @ x))
    assert gap <= EXACT * np.linalg.norm(R @ x)


def test_sample_space_is_right_for_dead_units_and_zero_errors(rng):
    """Sample space describes the dense Hessian for units that are inactive on all samples, for
    samples with zero error or weight 0, and for theta = 0.
    """
    ob, theta = objective(rng, [10, 12, 11, 2], 4, "relu", loss="mse")
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


def test_rounding_bounds_of_sample_space_hold(wide_operator, rng):
    """The errors of products and of the matrix in sample space, relative to the operator in
    parameter space, are within their bounds.
    """
    H, truth = wide_operator
    R = SampleSpaceOperator(H, EVERY)
    x = rng.standard_normal(R.shape[0])
    gap = np.linalg.norm(R @ x - R.project(H @ R.embed(x)))
    assert gap <= R.rounding_bound(x) <= 1e-8
    E = R.embed(np.eye(R.shape[0])).T
    error = np.linalg.norm(R @ np.eye(R.shape[0]) - E.T @ H.to_dense() @ E)
    assert error <= np.linalg.norm(R.column_error_bounds()) <= 1e-6


def test_float32_sample_space_has_the_same_coordinates(rng):
    """Products and embeddings of sample space in float32 agree with those in float64 to single
    precision, so that both dtypes describe the same coordinates.
    """
    ob, theta = objective(rng, [12, 11, 9, 3], 4, l2=0.01)
    R = SampleSpaceOperator(ob.hessian(theta))
    low, x = R.astype("float32"), rng.standard_normal(R.shape[0])
    eps = np.finfo(np.float32).eps
    assert np.linalg.norm(low @ x - R @ x) <= 50 * eps * np.linalg.norm(R @ x)
    assert np.linalg.norm(low.embed(x) - R.embed(x)) <= 50 * eps * np.linalg.norm(x)
    with pytest.raises(ValueError, match=r"Use H.astype\('float64'\).reduced"):
        low.astype("float64")


def test_sample_space_of_certain_samples_keeps_relative_accuracy(rng):
    """If logits differ by 40 or more, so that the curvature is tiny, sample space and output space
    agree with the dense matrix relative to its norm.
    """
    for space, bias, tiny in (("samples", 40.0, 1e-12), ("outputs", 60.0, 1e-20)):
        ob, theta = objective(rng, [7, 6, 6, 3], 4)
        ob.model.unflatten(theta)[-1][1][:] = [bias, 0.0, 0.0]
        certain = fc.Objective(ob.model, ob.X, np.zeros(4, int))
        H = certain.hessian(theta) if space == "samples" else certain.ggn(theta)
        truth = np.linalg.eigvalsh(H.to_dense())
        assert 0 < np.abs(truth).max() < tiny
        if space == "samples":
            check(H, EVERY)
        else:
            assert (
                np.abs(all_eigenvalues(H.reduced("outputs")) - truth).max() <= EXACT * truth.max()
            )


def test_smallest_eigenvalues_of_a_ggn_are_zeros_of_the_complement(rng):
    ob, theta = objective(rng, [12, 11, 9, 3], 4, l2=0.25)
    pairs = fc.eigsh(ob.ggn(theta), 6, "SA", space="samples", seed=0)
    assert np.abs(pairs.values - 0.25).max() <= 1e-14 and pairs.converged.all()
    V = pairs.vectors
    assert np.abs(V.T @ V - np.eye(6)).max() <= 1e-13
    assert np.abs(ob.ggn(theta) @ V - 0.25 * V).max() <= 1e-14


def test_sample_space_is_chosen_automatically_with_equal_eigenvalues(rng):
    """By default, `eigsh` uses sample space for a wide network with few samples, and its
    eigenvalues equal those found in parameter space.
    """
    ob, theta = objective(rng, [400, 500, 400, 10], 8, "gelu")
    H = ob.hessian(theta)
    there = fc.eigsh(H, 3, "BE", seed=0)
    here = fc.eigsh(H, 3, "BE", space="parameters", seed=0)
    assert there.space == "samples" and there.reduction.shape[0] < H.shape[0] / 20
    scale = np.abs(here.values).max()
    assert np.abs(there.values - here.values).max() <= EXACT * scale


def test_eigenvalues_outside_the_space_are_counted_as_zeros(rng):
    """Without l2, the inertia in sample space counts the n - m eigenvalues of the complement as
    zeros and equals the inertia in parameter space.
    """
    ob, theta = objective(rng, [12, 11, 9, 3], 3)
    H = ob.hessian(theta)
    found = fc.inertia(H, space="samples")
    R = H.reduced("samples")
    assert sum(found) == H.shape[0] and found.n_zero >= H.shape[0] - R.shape[0] > 100
    assert tuple(found) == tuple(fc.inertia(H))


@pytest.mark.parametrize("deflate", [True, False])
def test_density_includes_eigenvalues_outside_the_space(wide_operator, deflate):
    """The first two moments of the density in sample space agree with all n eigenvalues within four
    standard errors, and the eigenvalue of the complement has its exact weight.
    """
    H, truth = wide_operator
    d = fc.spectral_density(H, 6, 60, space="samples", deflate=deflate, seed=0)
    assert d.space == "samples" and d.n == len(truth)
    assert np.abs(d.weights.sum(axis=1) - 1).max() <= 1e-12
    for power in (1, 2):
        moment = d.moment(power)
        assert abs(float(moment) - (truth**power).mean()) <= 4 * moment.stderr + 1e-10
    copies = d.weights[np.abs(d.nodes - 0.01) <= 1e-12].sum() / len(d.weights)
    assert copies >= H.reduced("samples").n_complement / len(truth) - 1e-12


def test_krylov_runs_in_sample_space_describe_the_whole_operator(rng):
    """Eigenvalues, residuals and density of a Krylov run in sample space agree with the dense
    matrix of all parameters, as does a run in parameter space.
    """
    ob, theta = objective(rng, [30, 40, 30, 3], 2, l2=0.01)
    H = ob.hessian(theta)
    A = H.to_dense()
    exact = np.linalg.eigvalsh(A)
    run = fc.spectrum.Krylov(H, "few rows", space="samples")
    assert run.n == H.shape[0] > run.reduction.shape[0] == run.probe(0).n
    for which, wanted in (("LA", exact[-3:]), ("SA", exact[:3])):
        pairs = run.eigsh(3, which)
        assert np.allclose(pairs.values, wanted, rtol=0, atol=1e-7 * exact[-1])
        left = np.linalg.norm(A @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
        assert (left <= pairs.residuals + 1e-12 * exact[-1]).all()
        assert pairs.space == "samples" and pairs.krylov_name == "few rows"
    density = run.spectral_density(3)
    assert density.n == H.shape[0] and abs(density.integral() - 1) < 1e-6
    share = run.reduction.n_complement / H.shape[0]
    at_rest = np.isclose(density.nodes, 0.01, rtol=0, atol=1e-9)
    assert (density.weights * at_rest).sum(axis=1).min() >= share - 1e-9
    here = fc.spectrum.Krylov(H, space="parameters")
    assert here.reduction is None and np.allclose(here.eigsh(2, "LA").values, exact[-2:])
    g = H.gradient
    assert run.extend_from(g, 5).n == H.shape[0]


def test_the_searches_of_classify_run_in_sample_space(rng, monkeypatch):
    """`classify` with searches in sample space gives the verdict of parameter space at a minimum,
    and certifies a saddle.
    """
    ob, _ = objective(rng, [30, 40, 30, 3], 2, loss="mse", l2=0.01)
    theta = fc.minimize(ob, ob.model.init(seed=0), "newton-cg", max_iter=200).x
    H = ob.hessian(theta)
    asked = {"dense_below": 0, "failure_probability": 0.01}
    runs = [fc.spectrum.Krylov(H, name, space=name) for name in ("parameters", "samples")]
    points = [fc.classify(ob, theta, krylov=run, **asked) for run in runs]
    assert points[0].kind == points[1].kind == "minimum"
    assert np.isclose(points[0].lambda_max, points[1].lambda_max)
    monkeypatch.setattr("fastcurv.network.spaces.product_flops", lambda *given: (0.0, 1.0))
    assert fc.classify(ob, theta, **asked).kind == "minimum"
    X, y = rng.standard_normal((2, 30)), np.array([[1.0], [-1.0]])
    toy = fc.Objective(fc.MLP([30, 20, 1], "tanh"), X, y, "mse", l2=1e-3)
    saddle = fc.classify(toy, np.zeros(toy.n_params), dense_below=0)
    assert saddle.kind == "saddle" and saddle.certified


def test_state_computed_to_choose_a_space_is_reused_or_released(rng):
    ob, theta = objective(rng, [30, 4, 2], 5, loss="mse")
    H = ob.hessian(theta)
    asked = SampleSpaceOperator(H, [False, True])
    first, second = SampleSpaceOperator(H), SampleSpaceOperator(H)
    again = SampleSpaceOperator(H, [False, True])
    assert second.layers is first.layers and second.state is first.state
    assert asked.layers is not first.layers and again.layers is not asked.layers
    assert [layer.n_complement > 0 for layer in asked.layers] != [
        layer.n_complement > 0 for layer in first.layers
    ]


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("residual", [False, True])
def test_state_of_sample_space_matches_numpy(residual, dtype, layout, rng):
    """The state of sample space that the engine computes, in one pass or in chunks, agrees with
    NumPy to rounding.
    """
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
                made = RowState(ob, H.theta, multiply=MatrixPool(dtype, 1))
                for name in ("a", "p", "eq", "delta"):
                    for one, other in zip(getattr(given, name), getattr(made, name)):
                        assert (one is None) == (other is None), (phi, name)
                        room = 50 * np.finfo(dtype).eps
                        assert one is None or np.abs(one - other).max() <= room, (phi, name)


@pytest.mark.parametrize("N, k", [(3, 7), (7, 3), (4, 4), (1, 5), (5, 1)])
def test_reflectors_are_orthogonal_and_span_the_rows(N, k, rng):
    """The matrix of Householder reflectors of A is orthogonal, and A equals the factor L times the
    leading columns transposed, for matrices of any shape and rank.
    """
    for A in (
        rng.standard_normal((N, k)),
        np.ones((N, k)),
        np.zeros((N, k)),
        np.eye(N, k),
        rng.standard_normal((N, 1)) * rng.standard_normal(k),
    ):
        Q = BlockReflector(A)
        full = Q.multiply_right(np.eye(k))
        assert np.abs(full @ full.T - np.eye(k)).max() <= 1e-14
        assert np.abs(Q.multiply_right_transposed(np.eye(k)) - full.T).max() <= 1e-14
        assert np.abs(Q.leading_columns() - full[:, : Q.r]).max() <= 1e-14
        assert np.abs(Q.L @ full[:, : Q.r].T - A).max() <= 1e-14 * max(1, np.abs(A).max() * k)


@pytest.mark.parametrize("kind", ["hessian", "ggn"])
def test_products_reuse_workspace_without_changing_earlier_results(kind, rng):
    """A repeated product in sample space equals the first one bitwise and allocates less than 2.5
    matrices of samples by units.
    """
    model = fc.MLP([200, 150, 150, 10], residual=True)
    ob = fc.Objective(model, rng.standard_normal((32, 200)), rng.integers(10, size=32))
    R = SampleSpaceOperator(getattr(ob, kind)(model.init(seed=0)), [True] * 3)
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
    most = (
        2 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 2.5
    )  # NumPy 1.23 allocates one more temporary array
    assert peak < most * matrix, peak / matrix  # for a residual network with its loss


# --- outputs


@every_activation
@pytest.mark.parametrize("loss", KERNELS)
def test_output_space_has_the_eigenvalues_of_the_operator(activation, loss, rng):
    """All eigenvalues and quadratic forms in output space agree with the dense GGN or Fisher
    matrix, and the Gram matrix is within its proved error bounds, for every activation and loss.
    """
    for N in (1, 6):
        for bias, residual in ((True, False), (False, True)):
            ob, theta = objective(
                rng, [7, 6, 6, 3], N, activation, loss=loss, bias=bias, residual=residual,
                copies=N == 6, soft=residual, l2=0.1 * bias,
                sample_weight=rng.random(N) * (np.arange(N) != 2) if N > 1 else None,
            )  # fmt: skip
            for G in (ob.ggn(theta), ob.empirical_fisher(theta)):
                R, truth = G.reduced("outputs"), np.linalg.eigvalsh(G.to_dense())
                scale = np.abs(truth).max()
                assert np.abs(all_eigenvalues(R) - truth).max() <= EXACT * scale
                proved = R.matrix_with_bounds()
                gap = np.linalg.norm(proved.products - R.matrix)
                assert gap <= 2 * np.linalg.norm(proved.bounds) <= 1e-9 * scale
                v = rng.standard_normal(R.n)
                form = np.sum(R.project(v) ** 2) + R.complement_eigenvalue * v @ v  # v'AA'v
                assert abs(form - v @ (G @ v)) <= EXACT * scale * (v @ v)


def exact_gram(ob, theta):
    """Return the Gram matrix in output space (N (c - 1) rows for c classes) of a cross-entropy
    network in long double, formed by one backward pass for each row.
    """
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
def test_bounds_in_output_space_hold_against_extended_precision(rng):
    ob, theta = objective(rng, [9, 8, 7, 4], 5)
    for scale in (1.0, 6.0):  # scale of the parameters; at 6, probabilities are nearly 0 or 1
        R = ob.ggn(scale * theta).reduced("outputs")
        truth = exact_gram(ob, scale * theta)
        proved = R.matrix_with_bounds()
        assert (np.linalg.norm(proved.products - truth, axis=0) <= proved.bounds).all()
        assert np.abs(R.matrix - truth).max() <= 1e-14 * np.abs(truth).max()
        assert np.linalg.norm(proved.bounds) <= 1e-9 * np.linalg.norm(truth)


@in_long_double
def test_bounds_include_the_rounding_of_adding_l2():
    """If adding l2 loses most digits of the Gram matrix, the difference of its columns from long
    double is within the bounds.
    """
    rng = np.random.default_rng(0)
    X, y = 1e-9 * rng.standard_normal((6, 9)), rng.standard_normal((6, 2))
    model = fc.MLP([9, 2], bias=False)
    R = fc.Objective(model, X, y, "mse", l2=0.1).ggn(model.init(seed=0)).reduced("outputs")
    exact_X = X.astype(np.longdouble)
    truth = np.kron(np.eye(2), exact_X @ exact_X.T / 6)  # 2 / (6 samples * 2 outputs)
    truth[np.diag_indices(12)] += np.longdouble(0.1)
    proved = R.matrix_with_bounds()
    gap = np.linalg.norm((proved.products - truth).astype(float), axis=0)
    assert gap.any() and (gap <= proved.bounds).all() and (proved.bounds <= 1e-16).all()


@of_outputs
def test_embed_and_project_accept_vectors_and_rows_of_vectors(wide_operator):
    """`embed` and `project` give equal results for a vector and for a row of an array, embedded
    eigenvectors are orthonormal, and their projections are multiples of the eigenvectors.
    """
    G, _ = wide_operator
    small = G.reduced("outputs")
    values, U = np.linalg.eigh(small @ np.eye(small.shape[0]))
    V, one = small.embed(U.T), small.embed(U[:, -1])
    assert np.array_equal(one, V[-1]) and np.abs(V @ V.T - np.eye(len(V))).max() <= 1e-12
    back = small.project(one)
    assert small.project(V).shape == V.shape[:1] * 2 and np.array_equal(small.project(V)[-1], back)
    assert abs(back @ U[:, -1]) == pytest.approx(np.linalg.norm(back), rel=1e-12)


@pytest.mark.parametrize("directly", [True, False])
def test_small_eigenvalues_are_accurate_in_output_space(rng, directly, monkeypatch):
    """For nearly equal samples, whose eigenvalues span ten decades, eigenvectors from output space
    are orthonormal, and no residual exceeds the reported one.
    """
    if not directly:
        monkeypatch.setattr("fastcurv.spectrum.reduced.is_dense_faster", lambda *given: False)
    ob, theta = objective(rng, [12, 11, 9, 3], 6)
    X = ob.X[0] + np.logspace(0, -6, 6)[:, None] * ob.X
    G = fc.Objective(ob.model, X, ob.y).ggn(theta)
    truth = np.linalg.eigvalsh(G.to_dense())
    q = G.reduced("outputs").shape[0]
    for relative in ("scale", "value"):
        pairs = fc.eigsh(G, q, "LA", space="outputs", relative=relative, seed=0)
        assert (
            pairs.jointly_orthogonal
            and np.abs(pairs.values - truth[-q:]).max() <= EXACT * truth.max()
        )
        V = pairs.vectors
        assert np.abs(V.T @ V - np.eye(q)).max() <= 1e-12
        residuals = np.linalg.norm(G @ V - V * pairs.values, axis=0)
        assert (residuals <= pairs.residuals + 1e-16).all()
        if relative == "scale":
            assert pairs.converged.all()
        else:  # the requested accuracy is below the rounding of the products
            assert 4 < pairs.converged.sum() < q
            told = pairs.converged & (
                pairs.complement_index < 0
            )  # other eigenvalues are zero up to rounding
            assert (pairs.residuals <= pairs.tol * np.abs(pairs.values))[told].all()


def test_multiple_eigenvalues_are_complete_in_output_space(rng):
    """For a linear network with five outputs and mse, output space gives all five copies of each
    eigenvalue of the dense matrix.
    """
    ob, theta = objective(rng, [20, 5], 4, loss="mse")
    G = ob.ggn(theta)
    pairs = fc.eigsh(G, 15, "LA", space="outputs", seed=0)
    truth = np.linalg.eigvalsh(G.to_dense())[-15:]
    assert pairs.probed and pairs.n_products == 1
    assert np.abs(pairs.values - truth).max() <= EXACT * truth.max()
    assert np.abs(pairs.values.reshape(3, 5) - truth[::5, None]).max() <= EXACT * truth.max()


def test_output_space_without_weighted_samples_has_the_eigenvalue_l2(rng):
    """If all sample weights are 0, every eigenvalue found in output space is l2, the vectors are
    orthonormal, and all eigenvalues are counted as positive.
    """
    ob, theta = objective(rng, [9, 8, 3], 4, l2=0.5, sample_weight=np.zeros(4))
    G = ob.ggn(theta)
    for which in EVERY_END:
        pairs = fc.eigsh(G, 11, which, space="outputs", seed=0)
        V = pairs.vectors
        assert (pairs.values == 0.5).all() and pairs.converged.all()
        assert np.abs(V.T @ V - np.eye(11)).max() <= 1e-12
    assert tuple(fc.inertia(G)) == (ob.n_params, 0, 0)


def test_eigsh_uses_parameter_space_if_the_gram_matrix_is_too_inaccurate(rng, monkeypatch):
    """In float32, where eigenvectors of small eigenvalues from output space do not converge,
    `eigsh` searches in parameter space by default and reports that space.
    """
    monkeypatch.setattr("fastcurv.network.spaces.gram_matrix_flops", lambda *given: -1e12)
    ob, theta = objective(rng, [10, 9, 12], 6, dtype="float32")
    X = ob.X[0] + np.logspace(0, -3, 6)[:, None] * ob.X
    G = fc.Objective(ob.model, X, ob.y).ggn(theta)
    forced = fc.eigsh(G, 40, "LA", space="outputs", seed=0)
    assert not forced.converged.all()
    assert fc.eigsh(G, 2, "LA", seed=0).space == "outputs"
    own = fc.eigsh(G, 40, "LA", seed=0)
    assert own.space == "parameters"
    assert (own.residuals <= own.tol * own.scale).all() and (
        own.converged.all() or own.missed_within > 0
    )


def test_equal_samples_add_zero_eigenvalues_in_output_space(rng):
    """For equal samples, whose Gram matrix has low rank, the remaining pairs are vectors of the
    complement, orthonormal and with valid residuals.
    """
    ob, theta = objective(rng, [12, 11, 9, 3], 8, copies=True)
    ob = fc.Objective(ob.model, ob.X, ob.y, ob.loss, ob.l2, l2_biases=ob.l2_biases)
    G = ob.ggn(theta)
    pairs = fc.eigsh(G, 16, "LA", space="outputs", seed=0)
    assert (pairs.complement_index >= 0).sum() == 6 and pairs.converged.all()
    V = pairs.vectors
    assert np.abs(V.T @ V - np.eye(16)).max() <= 1e-12
    assert (np.linalg.norm(G @ V - V * pairs.values, axis=0) <= pairs.residuals).all()


def test_inertia_of_a_ggn_counts_its_zero_eigenvalues(rng):
    """Without l2, the GGN of cross entropy with three classes has two positive eigenvalues for each
    sample and otherwise zeros, in output space and in parameter space.
    """
    ob, theta = objective(rng, [12, 11, 9, 3], 6)
    found = fc.inertia(ob.ggn(theta))
    assert tuple(found) == (12, 0, ob.n_params - 12) and found.space == "outputs"
    assert tuple(fc.inertia(ob.ggn(theta), space="parameters")) == tuple(found)


@pytest.mark.parametrize("kind", ["ggn", "empirical_fisher"])
@pytest.mark.parametrize("size", [1e-150, 1e-6, 1.0, 1e6])
def test_residuals_hold_for_eigenvectors_outside_the_range(kind, size, rng):
    """Reported residuals hold for eigenvectors with eigenvalue 0 or l2 if the Gram matrix is nearly
    singular and as large as output space allows.
    """
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


# --- inputs


@pytest.mark.parametrize("data", ["constant", "dependent", "zero", "full"])
@pytest.mark.parametrize("kind", CURVATURES)
def test_input_space_equals_the_operator_in_other_coordinates(data, kind, rng):
    for N in (1, 3, 30):
        for bias, l2_biases, norm in ((1, 1, 0), (1, 0, 0), (0, 1, 0), (1, 1, 1), (0, 0, 1)):
            if norm and (kind == "empirical_fisher" or N == 1):
                continue
            X = redundant_columns(rng, N, data)
            sizes = [X.shape[1], 4, 3]
            model = fc.MLP(sizes, bias=bool(bias), batch_norm=bool(norm))
            y = rng.integers(3, size=N)
            ob = fc.Objective(model, X, y, l2=0.1, l2_biases=bool(l2_biases))
            H = getattr(ob, kind)(rng.standard_normal(model.n_params))
            check_coordinates(H.reduced("inputs"), H)


def test_input_space_has_the_rank_of_the_inputs(rng):
    """In input space, each unit of the first layer has as many coordinates as the rank of [X, 1].
    If biases have no l2, each unit has the rank of X and one coordinate for its bias.
    """
    X, y = redundant_columns(rng, 30, "dependent"), rng.integers(3, size=30)
    model = fc.MLP([7, 5, 3])
    theta = model.init(seed=0)
    joint = fc.Objective(model, X, y, l2=0.1).hessian(theta).reduced("inputs")
    spared = fc.Objective(model, X, y, l2=0.1, l2_biases=False).hessian(theta).reduced("inputs")
    assert joint.n_complement == 5 * 3  # [X, 1] has 8 columns and rank 5
    assert spared.n_complement == 5 * 2


def test_input_space_is_chosen_for_many_dependent_columns(rng):
    """Eigenpairs, eigenvalues and inertia in input space agree with those of parameter space. Input
    space is chosen for a large network with many redundant columns, and raises ValueError for a
    skip around the first layer.
    """
    X = np.hstack([rng.standard_normal((40, 6)), np.ones((40, 60))])
    ob = fc.Objective(fc.MLP([66, 8, 3]), X, rng.integers(3, size=40), l2=0.01)
    H = ob.hessian(ob.model.init(seed=0))
    pairs = fc.eigsh(H, 9, "BE", tol=1e-12, space="inputs", seed=0)
    assert pairs.space == "inputs" and pairs.converged.all()
    truth = fc.eigvalsh(H)
    assert np.abs(pairs.values - np.r_[truth[:4], truth[-5:]]).max() <= EXACT
    V = pairs.vectors
    assert (np.linalg.norm(H @ V - V * pairs.values, axis=0) <= pairs.residuals + 1e-14).all()
    assert np.abs(fc.eigvalsh(H, space="inputs") - truth).max() <= EXACT
    assert tuple(fc.inertia(H, space="inputs")) == tuple(fc.inertia(H))
    assert H.reduced() is None and not is_input_rotation_useful(
        ob
    )  # too small for a reduction to pay
    large = fc.Objective(fc.MLP([306, 40, 3]), np.hstack([X] * 5)[:, :306], ob.y)
    assert (
        is_input_rotation_useful(large)
        and large.hessian(large.model.init(seed=0)).reduced().space == "inputs"
    )
    again = pickle.loads(pickle.dumps(InputSpaceOperator(H)))
    assert again.shape == InputSpaceOperator(H).shape
    skip = fc.Objective(fc.MLP([4, 4, 1], residual=True), X[:, :4], X[:, 0], "mse")
    assert skip.hessian(skip.model.init(seed=0)).reduced() is None
    with pytest.raises(ValueError, match="first layer has a skip"):
        skip.hessian(skip.model.init(seed=0)).reduced("inputs")


@pytest.mark.parametrize("space", ["samples", "inputs"])
def test_residuals_include_the_difference_between_products_of_both_spaces(space, rng, monkeypatch):
    """Residuals of pairs found in a reduced space are increased by the difference between products
    in that space and in parameter space.
    """
    X = rng.standard_normal((5, 40)) if space == "samples" else np.ones((90, 1)) * np.arange(6.0)
    model = fc.MLP([X.shape[1], 30, 30, 2])
    H = fc.Objective(model, X, rng.standard_normal((len(X), 2)), "mse").hessian(model.init(seed=0))
    plain = fc.eigsh(H, 2, space=space, seed=0)
    monkeypatch.setattr(CoordinateReduction, "product_defect", lambda self, x: 0.25)
    assert np.allclose(fc.eigsh(H, 2, space=space, seed=0).residuals, plain.residuals + 0.25)
    assert plain.residuals.max() < 1e-3


def test_column_bounds_include_the_difference_between_spaces(problem, rng):
    """The norm of the column bounds in a reduced space is that of parameter space plus eight times
    the root mean square of the differences between both spaces for eight random vectors.
    """
    p = problem(rng, (5, 6, 2), "tanh", "mse", 3, l2=0.1)
    K = p.ob.ggn(p.theta).reduced("inputs")
    bounds = CoordinateReduction.column_error_bounds(K)
    m, draw = K.shape[0], np.random.default_rng(0)
    seen = [K.product_defect(draw.standard_normal(m)) ** 2 for _ in range(8)]
    whole = np.linalg.norm(p.ob.ggn(p.theta).column_error_bounds())
    assert np.linalg.norm(bounds) == pytest.approx(8 * np.mean(seen) ** 0.5 + whole, rel=1e-6)


@pytest.mark.parametrize("phi", ["relu", "leaky_relu", "elu"])
@pytest.mark.parametrize("kind", CURVATURES)
def test_eigenvalues_at_kinks_agree_in_every_space(kind, phi, dtype, rng):
    """Eigenvalues in every space agree with the dense matrix if pre-activations are exactly 0, at a
    kink: for zero or repeated samples with zero biases, and for terms that cancel.
    """
    X = rng.integers(-2, 3, (9, 12)) / 2
    X[2], X[5], X[7] = 0, 0, X[3]
    for hidden, residual in (([4], False), ([4, 4, 4], True)):
        model = fc.MLP([12, *hidden, 2], phi, residual=residual, dtype=dtype)
        weight = rng.choice([1.0, 2.0], 9)
        weight[[2, 8]] = 0  # the others have a higher rank than a layer has units
        ob = fc.Objective(model, X, rng.integers(2, size=9), l2=0.01, sample_weight=weight)
        start = model.init(seed=0)
        assert (model.preactivations(start, X)[0][[2, 5]] == 0).all()
        for theta in (start, rng.integers(-2, 3, len(start)) / 2):
            op = getattr(ob, kind)(theta)
            A = op.to_dense()
            room = (1e3 if dtype == "float64" else 1e2) * np.finfo(dtype).eps * np.linalg.norm(A)
            for space in ("inputs", "samples") if kind == "hessian" else ("inputs", "outputs"):
                gap = fc.eigvalsh(op, space=space) - np.linalg.eigvalsh(A.astype(float))
                assert np.abs(gap).max() <= room, space


def test_eigsh_converges_for_sparse_samples_at_initialisation(rng):
    """For samples that are zero, such as empty documents, and the zero biases of `init`, `eigsh`
    converges in its default space to the eigenvalues of parameter space.
    """
    X = rng.standard_normal((60, 2000)) * (rng.random((60, 2000)) < 0.05)
    X[[3, 7]] = 0
    model = fc.MLP([2000, 8, 2], "relu")
    H = fc.Objective(model, X, rng.integers(2, size=60)).hessian(model.init(seed=1))
    found = fc.eigsh(H, 2, "LA", seed=0)
    wanted = fc.eigsh(H, 2, "LA", seed=0, space="parameters")
    assert found.space == "inputs" and found.converged.all()
    assert np.abs(found.values - wanted.values).max() <= 1e-7


def test_fisher_near_a_perfect_fit_agrees_in_every_space(rng):
    """Near a perfect fit, where the output gradients are only rounding error, the trace of the
    Fisher matrix is positive and agrees in every space.
    """
    x, p = rng.standard_normal((1, 10)), np.array([[0.125, 0.1875, 0.1875, 0.5]])
    ob = fc.Objective(fc.MLP([10, 4]), x, p)
    F = ob.empirical_fisher(np.r_[1e-18 * rng.standard_normal(40), np.log(p[0] * 1.3)])
    wanted = np.trace(F.to_dense())
    assert wanted > 0
    for space in ("outputs", "samples", "inputs"):
        assert np.isclose(fc.trace(F, space=space).estimate, wanted, rtol=1e-10, atol=0), space


def test_input_space_keeps_biases_for_very_large_columns(rng):
    """For columns of size 1e71, next to which a column of ones would be lost in rounding,
    eigenvalues and trace in input space agree with the dense matrix.
    """
    X = rng.standard_normal((30, 7)) * 1e71
    model = fc.MLP([7, 3, 2], "identity")
    G = fc.Objective(model, X, rng.standard_normal((30, 2)), "mse").ggn(model.init(seed=0))
    A = G.to_dense()
    values = np.linalg.eigvalsh(A)
    assert np.abs(fc.eigvalsh(G, space="inputs") - values).max() <= 1e-12 * values[-1]
    X[:] = 1e71  # a column of ones is orthogonal to X
    X[::2] *= -1
    G = fc.Objective(model, X, rng.standard_normal((30, 2)), "mse").ggn(model.init(seed=0))
    assert abs(fc.trace(G, space="inputs").estimate / np.trace(G.to_dense()) - 1) <= 1e-12


def test_input_space_of_zero_operators_and_of_residual_networks(rng):
    """The trace of a zero operator in input space is 0. Input space is not chosen for a residual
    network with as many nonzero features as hidden units.
    """
    ob = fc.Objective(fc.MLP([3, 2], bias=False), np.zeros((4, 3)), [0, 1, 1, 0])
    assert fc.trace(ob.hessian(np.zeros(6)), space="inputs").estimate == 0
    X = rng.standard_normal((40, 900)) * (np.arange(900) < 20)  # as many features as hidden units
    wide_operator = fc.Objective(fc.MLP([900, 20, 3], residual=True), X, rng.integers(3, size=40))
    H = wide_operator.hessian(wide_operator.model.init(seed=0))
    found = H.reduced()
    assert found is None or found.space != "inputs"
