"""Skips beside narrow layers, whose samples lie across and whose delta is partly made anew."""

import numpy as np
import pytest

import fastcurv as fc

from ..certify.longdouble import Truth


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 17])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "relu", "elu"])
def test_products_of_a_skip_above_a_narrow_layer(width, activation, rng):
    """Products, blocks and forms, with the layer below joined to its input or not."""
    for d in sorted({1, 2, 9, width}):
        for hidden in ([width, width], [width] * 3):
            model = fc.MLP([d, *hidden, 1], activation, residual=True)
            X, y = rng.standard_normal((7, d)), rng.random((7, 1))
            ob = fc.Objective(model, X, y, loss="mse", n_threads=1)
            theta = model.init(seed=1)
            V = rng.standard_normal((len(theta), 3))
            H, truth = ob.hessian(theta), Truth(ob, theta)
            exact = np.stack([truth.product(v) for v in V.T], axis=1).astype(float)
            for j, v in enumerate(V.T):
                off = np.linalg.norm(H @ v - exact[:, j])
                assert off <= H.rounding_bound(np.ascontiguousarray(v)), (d, hidden, off)
            assert np.allclose(H @ V, exact, rtol=1e-11, atol=1e-11 * np.abs(exact).max())
            forms = (V * exact).sum(axis=0)
            assert np.allclose(H.quadratic(V), forms, atol=1e-11 * np.abs(forms).max())
