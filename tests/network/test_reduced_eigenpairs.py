"""Eigenpairs, spectral functions and the choice of a space, for operators reduced to the spaces of
samples, outputs and inputs, compared with dense matrices.
"""

import functools
import pickle

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.network.costs import is_rotation_cheaper, n_layer_coordinates, product_flops
from fastcurv.network.output_space import OutputSpaceOperator
from fastcurv.network.sample_space import SampleSpaceOperator

from ..spectrum.spectra import picked
from . import product_cases
from .product_cases import (
    EXACT,
    WIDE,
    all_eigenvalues,
    check_coordinates,
    of_outputs,
    redundant_columns,
)

pytestmark = pytest.mark.by_day(one_of="dtype", share=1 / 2)

EVERY = [True] * 3
EVERY_END = ("LM", "LA", "SA", "BE")
objective = functools.partial(product_cases.objective, loss="cross_entropy")


def worthwhile(model, N, kind):
    here, there = product_flops(model.shapes, N, kind)
    return here < there


PAIRS = [("samples", k, end, True) for k in (9, 200, 281) for end in EVERY_END]
PAIRS += [
    ("outputs", k, end, way) for k in (1, 12, 30) for end in EVERY_END for way in (True, False)
]


@pytest.mark.parametrize(
    "wide_operator, k, which, directly",
    [*PAIRS, ("outputs", 281, "BE", True)],
    indirect=["wide_operator"],
)
def test_eigenpairs_from_every_space_are_correct_with_valid_residuals(
    wide_operator, k, which, directly, monkeypatch
):
    """Eigenpairs from the space of samples or outputs have the eigenvalues of the dense matrix and
    orthonormal vectors, and no residual exceeds the reported one, whether a Gram matrix is
    decomposed or searched.
    """
    H, truth = wide_operator
    space = "samples" if H.kind == "hessian" else "outputs"
    if not directly:
        monkeypatch.setattr("fastcurv.spectrum.reduced.is_dense_faster", lambda *given: False)
    pairs = fc.eigsh(H, k, which, space=space, tol=1e-12 if space == "samples" else 1e-11, seed=0)
    scale = np.abs(truth).max()
    assert pairs.space == space and pairs.converged.all() and len(pairs) == k
    assert np.abs(pairs.values - picked(truth, k, which)).max() <= EXACT * scale
    V = pairs.vectors
    assert np.abs(V.T @ V - np.eye(k)).max() <= (1e-11 if space == "samples" else 1e-12)
    rounding = (
        1e-14 * scale if space == "samples" else 1e-16
    )  # rounding of H @ V and of the subtraction here
    assert (np.linalg.norm(H @ V - V * pairs.values, axis=0) <= pairs.residuals + rounding).all()
    assert np.array_equal(pairs.vector(k // 2), V[:, k // 2])


def test_eigenvectors_are_embedded_one_at_a_time(wide_operator):
    H, _ = wide_operator
    pairs = fc.eigsh(H, 5, "LA", space="samples", seed=0)
    one = pairs.vector(3)
    assert "vectors" not in vars(pairs) and pairs.n == H.shape[0]
    assert "in the space of samples" in repr(pairs)
    w, V = pairs
    assert np.array_equal(V[:, 3], one) and "vectors" in vars(pairs)


def test_eigenvalues_agree_in_sample_and_parameter_space(wide_operator, rng):
    H, _ = wide_operator
    there = fc.eigsh(H, 4, "BE", space="samples", seed=0)
    here = fc.eigsh(H, 4, "BE", space="parameters", seed=0)
    assert (there.space, here.space) == ("samples", "parameters")
    assert np.abs(there.values - here.values).max() <= 1e-13
    again = fc.eigsh(H, 4, "BE", space="samples", v0=here.vectors, probe=False, seed=0)
    assert again.n_products < here.n_products / 2
    assert np.abs(again.values - here.values).max() <= 1e-13


def test_deflation_works_for_vectors_inside_and_outside_the_space(wide_operator, rng):
    """With pairs from sample space as `against`, `eigsh` finds the next pairs in that space. With
    vectors outside the space, `eigsh` uses parameter space.
    """
    H, truth = wide_operator
    first = fc.eigsh(H, 3, "LA", space="samples", tol=1e-13, seed=0)
    rest = fc.eigsh(H, 3, "LA", space="samples", against=first, seed=0)
    assert rest.space == "samples"
    assert np.abs(rest.values - truth[-6:-3]).max() <= 1e-12
    outside = rng.standard_normal((H.shape[0], 1))
    other = fc.eigsh(H, 3, "LA", space="samples", against=outside, seed=0)
    assert other.space == "parameters"


@of_outputs
def test_start_and_deflation_vectors_work_in_output_space(wide_operator, rng, monkeypatch):
    G, truth = wide_operator
    monkeypatch.setattr("fastcurv.spectrum.reduced.is_dense_faster", lambda *given: False)
    first = fc.eigsh(G, 3, "LA", space="outputs", tol=1e-13, seed=0)
    rest = fc.eigsh(G, 3, "LA", space="outputs", against=first, seed=0)
    assert rest.space == "outputs"
    assert np.abs(rest.values - truth[-6:-3]).max() <= EXACT * truth.max()
    for other in (rng.standard_normal((G.shape[0], 1)), first.reduction.complement_rows(0, 1).T):
        there = fc.eigsh(G, 3, "LA", space="outputs", against=other, seed=0)
        assert there.space == "parameters"
    again = fc.eigsh(G, 3, "LA", space="outputs", v0=first.vectors, probe=True, seed=0)
    assert np.abs(again.values - truth[-3:]).max() <= EXACT * truth.max()


def test_reduced_spaces_are_accurate_in_float32(rng):
    """In float32, coordinates, eigenvalues, eigenvectors and products in each reduced space agree
    with those of the dense matrix to a few hundred roundings.
    """
    eps = np.finfo(np.float32).eps
    ob, theta = objective(rng, [12, 11, 9, 3], 4, dtype="float32", l2=0.01)
    H = ob.hessian(theta)
    R = SampleSpaceOperator(H, EVERY)
    check_coordinates(R, H, 400 * eps)
    assert R.dtype == np.float32 and R.embed(np.ones(R.shape[0])).dtype == np.float32
    ob, theta = objective(rng, [12, 11, 9, 3], 6, dtype="float32", l2=0.01)
    G = ob.ggn(theta)
    truth = np.linalg.eigvalsh(G.to_dense().astype(float))
    R = G.reduced("outputs")
    assert (
        R.dtype == np.float32
        and np.abs(all_eigenvalues(R) - truth).max() <= 400 * eps * truth.max()
    )
    pairs = fc.eigsh(G, 8, "LA", space="outputs", seed=0)
    assert pairs.vectors.dtype == np.float32 and pairs.converged.all()
    V = pairs.vectors.astype(float)
    gaps = np.linalg.norm(G.astype("float64") @ V - V * pairs.values, axis=0)
    assert (gaps <= pairs.residuals + 20 * eps * truth.max()).all()
    assert np.abs(V.T @ V - np.eye(8)).max() <= 200 * eps
    high = (
        G.astype("float64").reduced("outputs").matrix_with_bounds()
    )  # float64 copy of the stored numbers
    assert np.array_equal(R.matrix_with_bounds().products, high.products)
    X = redundant_columns(rng, 30, "dependent").astype(np.float32)
    ob = fc.Objective(fc.MLP([7, 5, 3], dtype="float32"), X, rng.integers(3, size=30), l2=0.1)
    H = ob.hessian(ob.model.init(seed=0))
    R = H.reduced("inputs")
    x = rng.standard_normal(R.shape[0]).astype(np.float32)
    assert R.product_defect(x) <= 100 * eps * np.linalg.norm(R @ x)


def test_all_spectral_functions_include_eigenvalues_outside_sample_space(wide_operator):
    """Trace, Frobenius norm, eigenvalues and inertia in sample space include the repeated
    eigenvalue of the complement and agree with the dense matrix.
    """
    H, truth = wide_operator
    n, scale = len(truth), np.abs(truth).max()
    R = SampleSpaceOperator(H)
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
    assert len(there.values) == R.shape[0] and there.error_bound <= 1e-9


@of_outputs
def test_all_spectral_functions_are_exact_in_output_space(wide_operator):
    """Trace, Frobenius norm, density, eigenvalues and inertia in output space agree with the dense
    matrix and take no products. Hutchinson's estimate is within five standard errors.
    """
    G, truth = wide_operator
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
    assert there.space == "outputs" and there.n_products == 0 and there.error_bound <= 1e-9
    run = fc.spectrum.Krylov(G, space="outputs")
    assert np.abs(run.eigsh(3, "LA").values - truth[-3:]).max() <= 1e-8 * scale


def test_the_cost_model_or_the_caller_chooses_sample_space(rng):
    """Sample space is chosen for wide networks with few samples. A space that does not exist, or
    that an operator does not have, raises ValueError.
    """
    big = fc.MLP([1024, 2048, 2048, 1000])
    assert worthwhile(big, 64, "hessian") and worthwhile(big, 256, "hessian")
    assert not worthwhile(big, 4096, "hessian")
    assert not worthwhile(fc.MLP([2, 16, 16, 1]), 4, "hessian")
    assert is_rotation_cheaper(2048, 2048, 64, True) and not is_rotation_cheaper(
        2048, 2048, 2000, True
    )
    assert not is_rotation_cheaper(10, 2048, 64, True) and is_rotation_cheaper(10, 2048, 64, False)
    assert n_layer_coordinates(20, 30, 4, True, True) == 20 * 4 + 4 * 26
    ob, theta = objective(rng, [12, 11, 9, 3], 4, loss="mse")
    H = ob.hessian(theta)
    assert H.reduced() is None and H.reduced("parameters") is None
    assert fc.eigsh(H, 2, seed=0).space == "parameters"
    with pytest.raises(ValueError, match="must be one of samples, outputs, inputs, parameters"):
        fc.eigsh(H, 2, space="rows")
    with pytest.raises(ValueError, match="has no other form"):
        fc.eigsh(np.eye(3), 2, space="samples")
    normed = fc.Objective(fc.MLP([3, 4, 1], batch_norm=True), np.eye(3), np.ones(3), "mse")
    with pytest.raises(ValueError, match="batch normalisation"):
        normed.hessian(normed.model.init(seed=0)).reduced("samples")


def test_the_cost_model_or_the_caller_chooses_output_space(rng):
    """Output space is chosen for the GGN of a wide network with few samples and gives the
    eigenvalues of parameter space. Requests for an output space that does not exist raise
    ValueError with the reason.
    """
    ob, theta = objective(rng, [60, 300, 300, 5], 20, "gelu", l2=1e-3)
    G = ob.ggn(theta)
    assert G.reduced().space == "outputs" and ob.hessian(theta).reduced().space == "samples"
    there, here = fc.eigsh(G, 4, seed=0), fc.eigsh(G, 4, space="parameters", seed=0)
    assert there.space == "outputs"
    tol = 1e-8 * here.values.max()  # default tol of `eigsh`: closer values may change places
    assert np.abs(there.values - here.values).max() <= tol
    few, theta = objective(rng, [4, 3, 2], 50)
    refused = [
        (few.ggn(theta), "50 pairs of row and class, which must be fewer than n = 23"),
        (few.hessian(theta), "a Hessian"),
    ]
    spared = fc.Objective(few.model, few.X[:3], few.y[:3], l2=0.1, l2_biases=False)
    refused.append((spared.ggn(theta), "l2 without biases"))
    normed = fc.Objective(fc.MLP([30, 4, 1], batch_norm=True), np.eye(30)[:3], np.ones(3), "mse")
    refused.append((normed.ggn(normed.model.init(seed=0)), "batch normalisation"))
    one = fc.Objective(fc.MLP([2, 3, 1]), np.ones((5, 2)), np.zeros(5, int), "cross_entropy")
    flat = one.ggn(one.model.init(seed=0))
    refused.append((flat, "one class"))
    assert float(fc.trace(flat)) == 0 and not fc.eigsh(flat, 2).values.any()
    for G, why in refused:
        with pytest.raises(ValueError, match=why):
            G.reduced("outputs")
        assert G.gram_operator() is None and G.reduced() is None
    # The Gram matrix of the empirical Fisher matrix does not include l2.
    assert spared.empirical_fisher(theta).gram_operator() is not None


@pytest.mark.parametrize("wide_operator", WIDE, indirect=True)
def test_reduced_operators_and_their_eigenpairs_can_be_pickled(wide_operator):
    H, _ = wide_operator
    space = "samples" if H.kind == "hessian" else "outputs"
    R = (
        SampleSpaceOperator(H, [True, False, True])
        if space == "samples"
        else OutputSpaceOperator(H)
    )
    again, I = pickle.loads(pickle.dumps(R)), np.eye(R.shape[0])
    assert again.shape == R.shape and np.array_equal(again @ I, R @ I)
    pairs = pickle.loads(pickle.dumps(fc.eigsh(H, 2, space=space, seed=0)))
    assert pairs.vector(0).shape == (H.shape[0],)
