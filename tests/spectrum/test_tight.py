"""Eigenpairs with hardly more room than the pairs themselves, and values that come many times."""

import numpy as np
import pytest

import fastcurv as fc

SPECTRA = {
    "copies": np.repeat([5.0, 3.0, 1.0, -2.0], [4, 5, 30, 21]),
    "one value": np.full(40, 3.0),
    "rank two": np.concatenate([[9.0, -7.0], np.zeros(58)]),
    "clusters": np.concatenate([5 + 1e-6 * np.arange(4), np.linspace(-1, 1, 56)]),
}


@pytest.mark.parametrize("room", [3, 9])
@pytest.mark.parametrize("which", ["LA", "BE"])
@pytest.mark.parametrize("name", SPECTRA)
def test_little_room(name, which, room, rng):
    """Each value has an eigenvalue within its residual, and with all converged they are extreme."""
    values = np.sort(SPECTRA[name])
    Q = np.linalg.qr(rng.standard_normal((len(values),) * 2))[0]
    A = (Q * values) @ Q.T
    A = (A + A.T) / 2
    k = 3
    found = fc.eigsh(A, k, which, max_basis=k + room, seed=0, max_products=500)
    noise = 1e-13 * np.abs(values).max() * len(values)
    for value, residual in zip(found.values, found.residuals):
        assert np.abs(values - value).min() <= residual + noise
    V = found.vectors
    assert np.abs(V.T @ V - np.eye(V.shape[1])).max() <= 1e-10
    again = fc.eigsh(A, k, which, max_basis=k + room, seed=0, v0=V, max_products=500)
    for value, residual in zip(again.values, again.residuals):
        assert np.abs(values - value).min() <= residual + noise
    wide = fc.eigsh(
        A, k, which, v0=rng.standard_normal((len(values), 8)), max_basis=k + room, max_products=500
    )
    for value, residual in zip(wide.values, wide.residuals):
        assert np.abs(values - value).min() <= residual + noise
