"""Data with more than 2^31 numbers, for which no index may be truncated to 32 bits."""

import mmap

import numpy as np
import pytest

import fastcurv as fc

pytestmark = pytest.mark.large
N, D = 2**25 + 7, 64


def test_data_of_more_than_two_to_the_31_elements_is_supported(rng):
    """For a linear network on more than 2^31 numbers, nearly all zeros, gradient, product and
    outputs equal those of the nonzero rows in NumPy, which include the last row. The test takes 12
    GB.
    """
    try:
        area = mmap.mmap(-1, N * D * 4, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
    except (OSError, AttributeError) as error:
        pytest.skip(f"no address space: {error}")
    X = np.frombuffer(area, np.float32).reshape(N, D)
    rows = np.unique(np.r_[0, rng.integers(N, size=500), 2**31 // D - 2 + np.arange(4), N - 1])
    some = X[rows] = rng.standard_normal((len(rows), D)).astype(np.float32)
    y = np.zeros(N, np.float32)
    y[rows] = rng.standard_normal(len(rows))
    model = fc.MLP([D, 1], dtype="float32")
    theta = rng.standard_normal(D + 1).astype(np.float32)
    v = rng.standard_normal(D + 1).astype(np.float32)
    theta[-1] = v[-1] = 0  # so that rows of zeros add nothing
    ob = fc.Objective(model, X, y, "mse", memory=200_000_000)
    H = ob.hessian(theta)
    A = np.c_[some, np.ones(len(rows))].astype(float)
    gradient = 2 / N * A.T @ (A @ theta - y[rows])
    product = 2 / N * A.T @ (A @ v)
    assert np.linalg.norm(H.gradient - gradient) <= 1e-4 * np.linalg.norm(gradient)
    assert np.linalg.norm(H @ v - product) <= 1e-4 * np.linalg.norm(product)
    out = ob.jacobian(theta) @ v
    assert np.allclose(out[rows], A @ v, rtol=1e-4, atol=1e-4)
    assert np.count_nonzero(out) == np.count_nonzero(out[rows])
