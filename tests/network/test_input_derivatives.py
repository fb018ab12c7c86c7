"""Derivatives of the outputs with respect to the inputs, compared with complex steps, closed forms
and finite differences.
"""

import itertools
from functools import partial

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine
from fastcurv.structure.tables import ACTIVATIONS, activation_spec

NETWORKS = [  # sizes, bias, residual; with forward mode first, then with reverse mode
    ([3, 5, 4], True, False),
    ([4, 4, 4, 6], False, True),
    ([1, 3, 3, 1], True, True),
    ([2, 3], True, False),
    ([9, 6, 6, 2], True, True),
    ([30, 7, 1], False, False),
    ([5, 2], False, False),
    ([12, 12, 4, 4, 3], True, True),
]


def outputs(model, theta, x):
    """Return the outputs (d_out,) of the model for one complex sample x, computed by NumPy."""
    a = x
    for l, (W, b) in enumerate(model.unflatten(theta)):
        z = W @ a + (0 if b is None else b)
        if l < len(model.shapes) - 1:
            h = activation_spec(model.activation[l]).phi(z)
            a = h + a if model.skips[l] else h
    return z


def complex_step(f, x):
    """Return the derivatives of f at the vector x by complex steps, as an array of shape
    (*f(x).shape, len(x)).
    """
    steps = 1e-30j * np.eye(len(x))
    return np.stack([f(x + step).imag / 1e-30 for step in steps], axis=-1)


def draw(sizes, bias, residual, activation, dtype="float64", seed=0, N=5):
    rng = np.random.default_rng(seed)
    model = fc.MLP(sizes, activation, bias, residual, dtype)
    theta = (model.init(seed) + 0.3 * rng.standard_normal(model.n_params)).astype(dtype)
    X = rng.standard_normal((N, sizes[0])).astype(dtype)
    return model, theta, X, rng.standard_normal((N, sizes[-1])).astype(dtype)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if isinstance(name, str)])
def test_input_jacobians_match_complex_steps(activation, arch):
    for seed, (sizes, bias, residual) in enumerate(NETWORKS):
        model, theta, X, _ = draw(sizes, bias, residual, activation, seed=seed)
        J = model.input_jacobian(theta, X)
        f = partial(outputs, model, theta)
        for x, found in zip(X, J):
            true = complex_step(f, x.astype(complex))
            scale = np.abs(true).max() + 1
            np.testing.assert_allclose(found, true, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if isinstance(name, str)])
def test_input_hessians_match_differences_of_jacobians(activation, arch):
    """Input Hessians match fourth-order differences of input Jacobians to 1e-7, except for elu,
    whose phi'' is discontinuous. `input_hessian` with weights equals the weighted sum of the
    outputs' Hessians.
    """
    h, w = 1e-3, np.array([1, -8, 8, -1]) / 12
    for seed, (sizes, bias, residual) in enumerate(NETWORKS):
        model, theta, X, weights = draw(sizes, bias, residual, activation, seed=seed, N=3)
        z, J, H = model.input_derivatives(theta, X)
        np.testing.assert_allclose(z, model.predict(theta, X), rtol=0, atol=1e-13 * abs(z).max())
        assert np.array_equal(H, H.swapaxes(-1, -2))
        for i in range(sizes[0]):
            step = h * np.eye(sizes[0])[i]
            moved = [model.input_jacobian(theta, X + k * step) for k in (-2, -1, 1, 2)]
            difference = np.tensordot(w, moved, 1) / h
            if activation in ("relu", "leaky_relu"):
                assert not H.any()
            elif activation != "elu":  # phi'' of elu is discontinuous at 0
                np.testing.assert_allclose(H[..., i], difference, rtol=0, atol=1e-7)
        summed = np.einsum("rk,rkij->rij", weights, H)
        atol = 1e-13 * (1 + np.abs(H).max())
        np.testing.assert_allclose(model.input_hessian(theta, X, weights), summed, atol=atol)
        same = model.input_hessian(theta, X, weights[0])
        np.testing.assert_allclose(same, np.einsum("k,rkij->rij", weights[0], H), atol=atol)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_input_derivatives_of_a_sample_do_not_depend_on_others_or_threads(dtype, arch):
    for sizes in ([4, 64, 64, 4], [40, 20, 20, 3], [3, 200, 2], [7, 600, 5]):
        model, theta, X, weights = draw(sizes, True, True, "gelu", dtype, N=257)
        sizes_, phis, skips = model._engine_layers
        whole = model.input_derivatives(theta, X, weights)
        for threads in (1, 2, 16):
            again = _engine.input_derivatives(
                sizes_, phis, skips, True, model.dtype, theta, X, 2, weights, threads
            )
            for a, b in zip(whole, again):
                assert np.array_equal(a, b)
        if arch == "blas":  # another BLAS chooses its order of summation by size
            continue
        for r in (0, 1, 256):
            alone = model.input_derivatives(theta, X[r : r + 1], weights[r : r + 1])
            for a, b in zip(whole, alone):
                assert np.array_equal(a[r : r + 1], b)


def test_input_derivatives_fold_batch_normalisation_as_in_evaluation():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    model = fc.MLP([3, 5, 5, 2], residual=True, batch_norm=True)
    theta = model.init(rng=1)
    ob = fc.Objective(model, X, rng.standard_normal((40, 2)), loss="mse")
    known = model.statistics(ob, theta)
    z, J, H = model.input_derivatives(theta, X, statistics=known)
    np.testing.assert_allclose(z, model.predict(theta, X, known), atol=1e-13)
    for i, h in itertools.product(range(3), [1e-5]):
        step = h * np.eye(3)[i]
        up, down = (model.predict(theta, X + s, known) for s in (step, -step))
        np.testing.assert_allclose(J[:, :, i], (up - down) / (2 * h), atol=1e-9)
        up, down = (model.input_jacobian(theta, X + s, statistics=known) for s in (step, -step))
        np.testing.assert_allclose(H[..., i], (up - down) / (2 * h), atol=1e-8)
    with pytest.raises(ValueError, match=r"statistics must be given .* model.statistics"):
        model.input_jacobian(theta, X)
