"""Operators reduced to the spaces of samples, outputs and inputs. Most tests are questions that are
asked of each space, and answered by the dense matrix.
"""

import functools
import pickle
import tracemalloc

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.network.costs import is_rotation_cheaper, n_layer_coordinates, product_flops
from fastcurv.network.input_space import is_input_rotation_useful
from fastcurv.network.reductions import CoordinateReduction
from fastcurv.network.row_passes import MatrixPool, RowState
from fastcurv.network.sample_space import BlockReflector, SampleSpaceOperator

from ..certify.longdouble import LD, Truth, in_long_double, softmax
from ..nets import CURVATURES, KERNELS, every_activation
from ..plans import LAYOUTS, laid_out
from ..spectrum.spectra import picked
from . import product_cases
from .product_cases import EXACT, all_eigenvalues, check_coordinates, redundant_columns

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 2)

EVERY = [True] * 3
EVERY_END = ("LM", "LA", "SA", "BE")
objective = functools.partial(product_cases.objective, loss="cross_entropy")


def check_samples(H, rotate=None):
    R = SampleSpaceOperator(H, rotate)
    check_coordinates(R, H)
    return R


# --- the operator in other coordinates


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
                check_samples(getattr(ob, kind)(theta), EVERY)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rotate", [None, [True, False, True], [False, True, False], [False] * 3])
def test_sample_space_with_rotated_layers_equals_the_hessian(rotate, bias, rng):
    ob, theta = objective(rng, [9, 12, 10, 3], 3, "gelu", l2=0.01, bias=bias)
    R = check_samples(ob.hessian(theta), rotate)
    if rotate == [False] * 3:
        assert R.n_complement == 0


def test_sample_space_is_right_for_dead_units_and_zero_errors(rng):
    """Sample space describes the dense Hessian for units that are inactive on all samples, for
    samples with zero error or weight 0, and for theta = 0.
    """
    ob, theta = objective(rng, [10, 12, 11, 2], 4, "relu", loss="mse")
    W, b = ob.model.unflatten(theta)[0]
    b[:] = -100.0
    check_samples(ob.hessian(theta), EVERY)
    b[::2] = 1.0
    fitted = fc.Objective(ob.model, ob.X, ob.model.predict(theta, ob.X), "mse")
    check_samples(fitted.hessian(theta), EVERY)
    weight = np.array([0.0, 1.0, 0.0, 2.0])
    weighted = fc.Objective(ob.model, ob.X, ob.y, "mse", sample_weight=weight)
    check_samples(weighted.hessian(theta), EVERY)
    check_samples(ob.hessian(np.zeros_like(theta)), EVERY)


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
    for l2_biases, n_redundant in ((True, 3), (False, 2)):  # [X, 1] has 8 columns and rank 5
        H = fc.Objective(model, X, y, l2=0.1, l2_biases=l2_biases).hessian(model.init(rng=0))
        assert H.reduced("inputs").n_complement == 5 * n_redundant


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
        start = model.init(rng=0)
        assert (model.preactivations(start, X)[0][[2, 5]] == 0).all()
        for theta in (start, rng.integers(-2, 3, len(start)) / 2):
            op = getattr(ob, kind)(theta)
            A = op.to_dense()
            room = (1e3 if dtype == "float64" else 1e2) * np.finfo(dtype).eps * np.linalg.norm(A)
            for space in ("inputs", "samples") if kind == "hessian" else ("inputs", "outputs"):
                gap = fc.eigvalsh(op, space=space) - np.linalg.eigvalsh(A.astype(float))
                assert np.abs(gap).max() <= room, space


def test_certain_samples_keep_relative_accuracy_in_every_space(rng):
    """If logits differ by 40 or more, so that the curvature is tiny, or if the output gradients are
    only rounding error, spaces agree with the dense matrix relative to its norm.
    """
    for space, bias, tiny in (("samples", 40.0, 1e-12), ("outputs", 60.0, 1e-20)):
        ob, theta = objective(rng, [7, 6, 6, 3], 4)
        ob.model.unflatten(theta)[-1][1][:] = [bias, 0.0, 0.0]
        certain = fc.Objective(ob.model, ob.X, np.zeros(4, int))
        H = certain.hessian(theta) if space == "samples" else certain.ggn(theta)
        truth = np.linalg.eigvalsh(H.to_dense())
        assert 0 < np.abs(truth).max() < tiny
        gap = all_eigenvalues(H.reduced(space)) - truth
        assert np.abs(gap).max() <= EXACT * np.abs(truth).max()
    x, p = rng.standard_normal((1, 10)), np.array([[0.125, 0.1875, 0.1875, 0.5]])
    ob = fc.Objective(fc.MLP([10, 4]), x, p)
    F = ob.empirical_fisher(np.r_[1e-18 * rng.standard_normal(40), np.log(p[0] * 1.3)])
    wanted = np.trace(F.to_dense())
    assert wanted > 0
    for space in ("outputs", "samples", "inputs"):
        assert np.isclose(fc.trace(F, space=space).estimate, wanted, rtol=1e-10, atol=0), space


def test_input_space_keeps_biases_for_very_large_columns(rng):
    """For columns of size 1e71, next to which a column of ones would be lost in rounding,
    eigenvalues and trace in input space agree with the dense matrix. The trace of a zero operator
    is 0.
    """
    X = rng.standard_normal((30, 7)) * 1e71
    model = fc.MLP([7, 3, 2], "identity")
    G = fc.Objective(model, X, rng.standard_normal((30, 2)), "mse").ggn(model.init(rng=0))
    values = np.linalg.eigvalsh(G.to_dense())
    assert np.abs(fc.eigvalsh(G, space="inputs") - values).max() <= 1e-12 * values[-1]
    X[:] = 1e71  # a column of ones is orthogonal to X
    X[::2] *= -1
    G = fc.Objective(model, X, rng.standard_normal((30, 2)), "mse").ggn(model.init(rng=0))
    assert abs(fc.trace(G, space="inputs").estimate / np.trace(G.to_dense()) - 1) <= 1e-12
    ob = fc.Objective(fc.MLP([3, 2], bias=False), np.zeros((4, 3)), [0, 1, 1, 0])
    assert fc.trace(ob.hessian(np.zeros(6)), space="inputs").estimate == 0


# --- questions to every space


@pytest.mark.parametrize("k, which", [(9, "LM"), (30, "LA"), (200, "SA"), (281, "BE")])
@pytest.mark.parametrize("directly", [True, False])
def test_eigenpairs_from_every_space_are_correct_with_valid_residuals(
    reducible, k, which, directly, monkeypatch
):
    """Eigenpairs have the eigenvalues of the dense matrix and orthonormal vectors, and no residual
    exceeds the reported one, whether a small matrix is decomposed or searched. A vector that is
    embedded alone is that of the array.
    """
    space, H, truth = reducible
    if not directly:
        monkeypatch.setattr("fastcurv.spectrum.reduced.is_dense_faster", lambda *given: False)
    pairs = fc.eigsh(H, k, which, space=space, tol=1e-12 if space == "samples" else 1e-11, rng=0)
    scale = np.abs(truth).max()
    assert pairs.space == space and pairs.converged.all() and len(pairs) == k
    assert np.abs(pairs.values - picked(truth, k, which)).max() <= EXACT * scale
    alone = pairs.vector(k // 2)
    assert "vectors" not in vars(pairs) and pairs.n == H.shape[0]
    V = pairs.vectors
    assert np.array_equal(alone, V[:, k // 2])
    assert np.abs(V.T @ V - np.eye(k)).max() <= (1e-12 if space == "outputs" else 1e-11)
    rounding = 1e-16 if space == "outputs" else 1e-14 * scale  # of H @ V and of the subtraction
    assert (np.linalg.norm(H @ V - V * pairs.values, axis=0) <= pairs.residuals + rounding).all()


@pytest.mark.by_day(share=1)
def test_start_and_deflation_vectors_work_in_every_space(reducible, rng, monkeypatch):
    """With pairs from a space as `against`, `eigsh` finds the next pairs in that space. Vectors
    outside the space lead to a search in parameter space. A start near the solution saves products.
    """
    space, H, truth = reducible
    monkeypatch.setattr("fastcurv.spectrum.reduced.is_dense_faster", lambda *given: False)
    first = fc.eigsh(H, 3, "LA", space=space, tol=1e-13, rng=0)
    rest = fc.eigsh(H, 3, "LA", space=space, against=first, rng=0)
    assert rest.space == space
    assert np.abs(rest.values - truth[-6:-3]).max() <= EXACT * truth.max()
    complement = first.reduction.complement_rows(0, 1).T
    for outside in (rng.standard_normal((H.shape[0], 1)), complement):
        there = fc.eigsh(H, 3, "LA", space=space, against=outside, rng=0)
        assert there.space == "parameters" or space != "outputs" and outside is complement
    again = fc.eigsh(H, 3, "LA", space=space, v0=first.vectors, probe=False, rng=0)
    assert again.n_products < first.n_products / 2
    assert np.abs(again.values - truth[-3:]).max() <= EXACT * truth.max()


@pytest.mark.by_day(share=1)
def test_all_spectral_functions_include_eigenvalues_outside_the_space(reducible):
    """Trace, Frobenius norm, eigenvalues, inertia, density and Krylov runs include the repeated
    eigenvalue of the complement and agree with the dense matrix. In output space they take no
    products.
    """
    space, H, truth = reducible
    n, scale = len(truth), np.abs(truth).max()
    m = H.reduced(space).shape[0]
    before = H.n_products
    exact, norm = fc.trace(H, m, space=space, rng=0), fc.frobenius_norm(H, m, space=space, rng=0)
    assert exact.space == space and exact.stderr == 0
    assert abs(float(exact) - truth.sum()) <= EXACT * n * scale
    assert abs(float(norm) - np.linalg.norm(truth)) <= EXACT * n * scale
    every = fc.eigvalsh(H, space=space)
    assert every.shape == (n,) and np.abs(every - truth).max() <= EXACT * scale
    assert space != "outputs" or exact.n_products == 0 and H.n_products == before
    few = fc.trace(H, 60, "hutchinson", space=space, rng=0)
    assert abs(float(few) - truth.sum()) <= 5 * few.stderr and few.n_products == 60
    here, there = fc.inertia(H, space="parameters"), fc.inertia(H, space=space)
    assert tuple(there) == tuple(here) and there.space == space and there.error_bound <= 1e-9
    d = fc.spectral_density(H, 6, 60, space=space, rng=0)
    assert d.space == space and d.n == n
    assert np.abs(d.weights.sum(axis=1) - 1).max() <= 1e-12
    copies = d.weights[np.abs(d.nodes - 0.01) <= 1e-12].sum() / len(d.weights)
    assert copies >= H.reduced(space).n_complement / n - 1e-12


@pytest.mark.by_day(share=1)
def test_reduced_operators_and_their_eigenpairs_can_be_pickled(reducible):
    space, H, _ = reducible
    R = H.reduced(space)
    again, I = pickle.loads(pickle.dumps(R)), np.eye(R.shape[0])
    assert again.shape == R.shape and np.array_equal(again @ I, R @ I)
    pairs = pickle.loads(pickle.dumps(fc.eigsh(H, 2, space=space, rng=0)))
    assert pairs.vector(0).shape == (H.shape[0],)


def test_reduced_spaces_are_accurate_in_float32(rng):
    """In float32, coordinates, eigenvalues, eigenvectors and products in each reduced space agree
    with those of the dense matrix to a few hundred roundings, and both dtypes describe the same
    coordinates.
    """
    eps = np.finfo(np.float32).eps
    ob, theta = objective(rng, [12, 11, 9, 3], 4, dtype="float32", l2=0.01)
    H = ob.hessian(theta)
    R = SampleSpaceOperator(H, EVERY)
    check_coordinates(R, H, 400 * eps)
    assert R.dtype == np.float32 and R.embed(np.ones(R.shape[0])).dtype == np.float32
    R = SampleSpaceOperator(H.astype("float64"))
    low, x = R.astype("float32"), rng.standard_normal(R.shape[0])
    assert np.linalg.norm(low @ x - R @ x) <= 50 * eps * np.linalg.norm(R @ x)
    assert np.linalg.norm(low.embed(x) - R.embed(x)) <= 50 * eps * np.linalg.norm(x)
    with pytest.raises(ValueError, match=r"Use H.astype\('float64'\).reduced"):
        low.astype("float64")
    ob, theta = objective(rng, [12, 11, 9, 3], 6, dtype="float32", l2=0.01)
    G = ob.ggn(theta)
    truth = np.linalg.eigvalsh(G.to_dense().astype(float))
    R = G.reduced("outputs")
    assert R.dtype == np.float32
    assert np.abs(all_eigenvalues(R) - truth).max() <= 400 * eps * truth.max()
    pairs = fc.eigsh(G, 8, "LA", space="outputs", rng=0)
    assert pairs.vectors.dtype == np.float32 and pairs.converged.all()
    V = pairs.vectors.astype(float)
    gaps = np.linalg.norm(G.astype("float64") @ V - V * pairs.values, axis=0)
    assert (gaps <= pairs.residuals + 20 * eps * truth.max()).all()
    assert np.abs(V.T @ V - np.eye(8)).max() <= 200 * eps
    high = G.astype("float64").reduced("outputs").matrix_with_bounds()  # of the stored numbers
    assert np.array_equal(R.matrix_with_bounds().products, high.products)
    X = redundant_columns(rng, 30, "dependent").astype(np.float32)
    ob = fc.Objective(fc.MLP([7, 5, 3], dtype="float32"), X, rng.integers(3, size=30), l2=0.1)
    R = ob.hessian(ob.model.init(rng=0)).reduced("inputs")
    x = rng.standard_normal(R.shape[0]).astype(np.float32)
    assert R.product_defect(x) <= 100 * eps * np.linalg.norm(R @ x)


# --- bounds


def test_rounding_bounds_of_sample_space_hold(rng):
    """The error of a product in sample space, relative to the operator in parameter space, is
    within its bound.
    """
    ob, theta = objective(rng, [12, 11, 9, 3], 4, l2=0.01)
    H = ob.hessian(theta)
    R = SampleSpaceOperator(H, EVERY)
    x = rng.standard_normal(R.shape[0])
    gap = np.linalg.norm(R @ x - R.project(H @ R.embed(x)))
    assert gap <= R.rounding_bound(x) <= 1e-8


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
    R = fc.Objective(model, X, y, "mse", l2=0.1).ggn(model.init(rng=0)).reduced("outputs")
    exact_X = X.astype(np.longdouble)
    truth = np.kron(np.eye(2), exact_X @ exact_X.T / 6)  # 2 / (6 samples * 2 outputs)
    truth[np.diag_indices(12)] += np.longdouble(0.1)
    proved = R.matrix_with_bounds()
    gap = np.linalg.norm((proved.products - truth).astype(float), axis=0)
    assert gap.any() and (gap <= proved.bounds).all() and (proved.bounds <= 1e-16).all()


@pytest.mark.parametrize("space", ["samples", "inputs"])
def test_residuals_include_the_difference_between_products_of_both_spaces(space, rng, monkeypatch):
    """Residuals of pairs found in a reduced space are increased by the difference between products
    in that space and in parameter space.
    """
    X = rng.standard_normal((5, 40)) if space == "samples" else np.ones((90, 1)) * np.arange(6.0)
    model = fc.MLP([X.shape[1], 30, 30, 2])
    H = fc.Objective(model, X, rng.standard_normal((len(X), 2)), "mse").hessian(model.init(rng=0))
    plain = fc.eigsh(H, 2, space=space, rng=0)
    monkeypatch.setattr(CoordinateReduction, "product_defect", lambda self, x: 0.25)
    assert np.allclose(fc.eigsh(H, 2, space=space, rng=0).residuals, plain.residuals + 0.25)
    assert plain.residuals.max() < 1e-3


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
        pairs = fc.eigsh(G, q, "LA", space="outputs", relative=relative, rng=0)
        assert pairs.jointly_orthogonal
        assert np.abs(pairs.values - truth[-q:]).max() <= EXACT * truth.max()
        V = pairs.vectors
        assert np.abs(V.T @ V - np.eye(q)).max() <= 1e-12
        residuals = np.linalg.norm(G @ V - V * pairs.values, axis=0)
        assert (residuals <= pairs.residuals + 1e-16).all()
        if relative == "scale":
            assert pairs.converged.all()
        else:  # the requested accuracy is below the rounding of the products
            assert 4 < pairs.converged.sum() < q
            inside = pairs.complement_index < 0  # other eigenvalues are zero up to rounding
            accurate = pairs.residuals <= pairs.tol * np.abs(pairs.values)
            assert accurate[pairs.converged & inside].all()


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
        pairs = fc.eigsh(G, 6, "SA", space="outputs", rng=i)
        assert (abs(np.linalg.norm(pairs.vectors, axis=0) - 1) <= 1e-14).all()
        residuals = np.linalg.norm(G @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
        rounding = 20 * np.finfo(float).eps * pairs.scale
        assert (residuals <= pairs.residuals + rounding).all(), sizes


# --- repeated eigenvalues, and zeros


def test_repeated_and_missing_outputs_have_complete_eigenvalues(rng):
    """Output space gives all five copies of each eigenvalue of a linear network with five outputs,
    zeros of the complement for equal samples, and l2 for samples of weight 0.
    """
    ob, theta = objective(rng, [20, 5], 4, loss="mse")
    G = ob.ggn(theta)
    pairs = fc.eigsh(G, 15, "LA", space="outputs", rng=0)
    truth = np.linalg.eigvalsh(G.to_dense())[-15:]
    assert pairs.probed and pairs.n_products == 1
    assert np.abs(pairs.values - truth).max() <= EXACT * truth.max()
    ob, theta = objective(rng, [12, 11, 9, 3], 8, copies=True)
    G = ob.ggn(theta)
    pairs = fc.eigsh(G, 16, "LA", space="outputs", rng=0)
    assert (pairs.complement_index >= 0).sum() == 6 and pairs.converged.all()
    V = pairs.vectors
    assert np.abs(V.T @ V - np.eye(16)).max() <= 1e-12
    assert (np.linalg.norm(G @ V - V * pairs.values, axis=0) <= pairs.residuals).all()
    ob, theta = objective(rng, [9, 8, 3], 4, l2=0.5, sample_weight=np.zeros(4))
    for which in EVERY_END:
        pairs = fc.eigsh(ob.ggn(theta), 11, which, space="outputs", rng=0)
        V = pairs.vectors
        assert (pairs.values == 0.5).all() and pairs.converged.all()
        assert np.abs(V.T @ V - np.eye(11)).max() <= 1e-12
    assert tuple(fc.inertia(ob.ggn(theta))) == (ob.n_params, 0, 0)


def test_inertia_counts_eigenvalues_outside_the_space_as_zeros(rng):
    """Without l2, the GGN of cross entropy with three classes has two positive eigenvalues for each
    sample and otherwise zeros, and the counts of a Hessian in sample space are those in parameter
    space.
    """
    ob, theta = objective(rng, [12, 11, 9, 3], 3)
    H, G = ob.hessian(theta), ob.ggn(theta)
    assert tuple(fc.inertia(G)) == (6, 0, ob.n_params - 6) and fc.inertia(G).space == "outputs"
    for op, space in ((H, "samples"), (G, "outputs")):
        assert tuple(fc.inertia(op, space=space)) == tuple(fc.inertia(op, space="parameters"))
    assert fc.inertia(H, space="samples").n_zero >= H.reduced("samples").n_complement > 100
    shifted = fc.Objective(ob.model, ob.X, ob.y, l2=0.25).ggn(theta)
    pairs = fc.eigsh(shifted, 6, "SA", space="samples", rng=0)
    assert np.abs(pairs.values - 0.25).max() <= 1e-14 and pairs.converged.all()
    assert np.abs(shifted @ pairs.vectors - 0.25 * pairs.vectors).max() <= 1e-14


# --- choice of a space


def test_the_cost_model_or_the_caller_chooses_sample_space(rng):
    """Sample space is chosen for wide networks with few samples. A space that does not exist, or
    that an operator does not have, raises ValueError.
    """

    def is_worthwhile(model, N):
        here, there = product_flops(model.shapes, N, "hessian")
        return here < there

    big = fc.MLP([1024, 2048, 2048, 1000])
    assert [is_worthwhile(big, N) for N in (64, 256, 4096)] == [True, True, False]
    assert not is_worthwhile(fc.MLP([2, 16, 16, 1]), 4)
    assert is_rotation_cheaper(2048, 2048, 64, True)
    assert not is_rotation_cheaper(2048, 2048, 2000, True)
    assert not is_rotation_cheaper(10, 2048, 64, True)
    assert is_rotation_cheaper(10, 2048, 64, False)
    assert n_layer_coordinates(20, 30, 4, True, True) == 20 * 4 + 4 * 26
    ob, theta = objective(rng, [12, 11, 9, 3], 4, loss="mse")
    H = ob.hessian(theta)
    assert H.reduced() is None and H.reduced("parameters") is None
    assert fc.eigsh(H, 2, rng=0).space == "parameters"
    with pytest.raises(ValueError, match="must be one of samples, outputs, inputs, parameters"):
        fc.eigsh(H, 2, space="rows")
    with pytest.raises(ValueError, match="has no other form"):
        fc.eigsh(np.eye(3), 2, space="samples")
    normed = fc.Objective(fc.MLP([3, 4, 1], batch_norm=True), np.eye(3), np.ones(3), "mse")
    with pytest.raises(ValueError, match="batch normalisation"):
        normed.hessian(normed.model.init(rng=0)).reduced("samples")


def test_a_space_is_chosen_automatically_with_equal_eigenvalues(rng):
    """By default, `eigsh` uses sample space for the Hessian and output space for the GGN of a wide
    network with few samples, and input space for sparse samples with empty rows at initialisation.
    Eigenvalues equal those found in parameter space.
    """
    ob, theta = objective(rng, [60, 300, 300, 5], 8, "gelu", l2=1e-3)
    X = rng.standard_normal((60, 2000)) * (rng.random((60, 2000)) < 0.05)
    X[[3, 7]] = 0
    sparse = fc.Objective(fc.MLP([2000, 8, 2], "relu"), X, rng.integers(2, size=60))
    for H, which, space in (
        (ob.hessian(theta), "BE", "samples"),
        (ob.ggn(theta), "LM", "outputs"),
        (sparse.hessian(sparse.model.init(rng=1)), "LA", "inputs"),
    ):
        there = fc.eigsh(H, 3, which, rng=0)
        here = fc.eigsh(H, 3, which, space="parameters", rng=0)
        assert there.space == space and there.reduction.shape[0] < H.shape[0] / 10
        assert there.converged.all()
        tol = 1e-8 * np.abs(here.values).max()  # default tol of `eigsh`
        assert np.abs(there.values - here.values).max() <= tol


def test_output_space_is_refused_with_its_reason(rng):
    few, theta = objective(rng, [4, 3, 2], 50)
    refused = [
        (few.ggn(theta), "50 pairs of row and class, which must be fewer than n = 23"),
        (few.hessian(theta), "a Hessian"),
    ]
    spared = fc.Objective(few.model, few.X[:3], few.y[:3], l2=0.1, l2_biases=False)
    refused.append((spared.ggn(theta), "l2 without biases"))
    normed = fc.Objective(fc.MLP([30, 4, 1], batch_norm=True), np.eye(30)[:3], np.ones(3), "mse")
    refused.append((normed.ggn(normed.model.init(rng=0)), "batch normalisation"))
    one = fc.Objective(fc.MLP([2, 3, 1]), np.ones((5, 2)), np.zeros(5, int), "cross_entropy")
    flat = one.ggn(one.model.init(rng=0))
    refused.append((flat, "one class"))
    assert float(fc.trace(flat)) == 0 and not fc.eigsh(flat, 2).values.any()
    for G, why in refused:
        with pytest.raises(ValueError, match=why):
            G.reduced("outputs")
        assert G.gram_operator() is None and G.reduced() is None
    # The Gram matrix of the empirical Fisher matrix does not include l2.
    assert spared.empirical_fisher(theta).gram_operator() is not None


def test_input_space_is_chosen_for_many_dependent_columns_of_a_large_network(rng):
    """Input space is chosen neither for a small network, nor for a residual network with as many
    nonzero features as hidden units. A skip around the first layer raises ValueError.
    """
    X = np.hstack([rng.standard_normal((40, 6)), np.ones((40, 300))])
    y = rng.integers(3, size=40)
    for width, hidden, chosen in ((66, 8, False), (306, 40, True)):
        ob = fc.Objective(fc.MLP([width, hidden, 3]), X[:, :width], y)
        small = ob.hessian(ob.model.init(rng=0)).reduced()
        assert is_input_rotation_useful(ob) is chosen
        assert (small is not None and small.space == "inputs") is chosen
    X = rng.standard_normal((40, 900)) * (np.arange(900) < 20)  # as many features as hidden units
    wide = fc.Objective(fc.MLP([900, 20, 3], residual=True), X, y)
    small = wide.hessian(wide.model.init(rng=0)).reduced()
    assert small is None or small.space != "inputs"
    skip = fc.Objective(fc.MLP([4, 4, 1], residual=True), X[:, :4], X[:, 0], "mse")
    H = skip.hessian(skip.model.init(rng=0))
    assert H.reduced() is None
    with pytest.raises(ValueError, match="first layer has a skip"):
        H.reduced("inputs")


def test_eigsh_uses_parameter_space_if_the_gram_matrix_is_too_inaccurate(rng, monkeypatch):
    """In float32, where eigenvectors of small eigenvalues from output space do not converge,
    `eigsh` searches in parameter space by default and reports that space.
    """
    monkeypatch.setattr("fastcurv.network.spaces.gram_matrix_flops", lambda *given: -1e12)
    ob, theta = objective(rng, [10, 9, 12], 6, dtype="float32")
    X = ob.X[0] + np.logspace(0, -3, 6)[:, None] * ob.X
    G = fc.Objective(ob.model, X, ob.y).ggn(theta)
    forced = fc.eigsh(G, 40, "LA", space="outputs", rng=0)
    assert not forced.converged.all()
    assert fc.eigsh(G, 2, "LA", rng=0).space == "outputs"
    chosen = fc.eigsh(G, 40, "LA", rng=0)
    assert chosen.space == "parameters"
    assert (chosen.residuals <= chosen.tol * chosen.scale).all()
    assert chosen.converged.all() or chosen.missed_within > 0


def test_the_searches_of_classify_run_in_sample_space(rng, monkeypatch):
    """`classify` with searches in sample space gives the verdict of parameter space at a minimum,
    and certifies a saddle.
    """
    ob, _ = objective(rng, [30, 40, 30, 3], 2, loss="mse", l2=0.01)
    theta = fc.minimize(ob, ob.model.init(rng=0), "newton-cg", max_iter=200).x
    options = {"dense_below": 0, "failure_probability": 0.01}
    monkeypatch.setattr("fastcurv.network.spaces.product_flops", lambda *given: (0.0, 1.0))
    assert fc.classify(ob, theta, **options).kind == "minimum"
    X, y = rng.standard_normal((2, 30)), np.array([[1.0], [-1.0]])
    toy = fc.Objective(fc.MLP([30, 20, 1], "tanh"), X, y, "mse", l2=1e-3)
    saddle = fc.classify(toy, np.zeros(toy.n_params), dense_below=0)
    assert saddle.kind == "saddle" and saddle.certified


# --- the parts of sample space


def test_state_computed_to_choose_a_space_is_reused_or_released(rng):
    ob, theta = objective(rng, [30, 4, 2], 5, loss="mse")
    H = ob.hessian(theta)
    rotated = SampleSpaceOperator(H, [False, True])
    first, second = SampleSpaceOperator(H), SampleSpaceOperator(H)
    again = SampleSpaceOperator(H, [False, True])
    assert second.layers is first.layers and second.state is first.state
    assert rotated.layers is not first.layers and again.layers is not rotated.layers
    assert [layer.n_complement > 0 for layer in rotated.layers] != [
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
                H = ob.hessian(model.init(rng=0) + 0.01)
                H @ np.ones(model.n_params)
                computed = RowState(ob, H.theta, H._plan)
                expected = RowState(ob, H.theta, multiply=MatrixPool(dtype, 1))
                for name in ("a", "p", "eq", "delta"):
                    for one, other in zip(getattr(computed, name), getattr(expected, name)):
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
    R = SampleSpaceOperator(getattr(ob, kind)(model.init(rng=0)), [True] * 3)
    x, y = rng.standard_normal((2, R.shape[0]))
    out = np.empty_like(x)
    first = R.product(x).copy()
    R.product(y)
    tracemalloc.start()
    try:
        result = R.product(x, out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result is out and np.array_equal(out, first)
    matrix_bytes = 8 * 32 * 150
    # NumPy 1.23 allocates one more temporary array
    limit = 2 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 2.5
    assert peak < limit * matrix_bytes  # for a residual network with its loss
