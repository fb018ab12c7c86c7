"""Activations with their derivatives, batch normalisation and losses in NumPy, for real and complex
arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

_STEP = 1e-100
LEAK = {"relu": 0.0, "leaky_relu": 0.01}  # slopes below 0
_SQRT2 = np.sqrt(2.0)
BATCH_NORM_EPS = 1e-5


def _sigmoid(z: NDArray[Any]) -> NDArray[Any]:
    e = np.exp(-np.where(z.real >= 0, z, -z))
    return np.where(z.real >= 0, 1 / (1 + e), e / (1 + e))


def _softplus(z: NDArray[Any]) -> NDArray[Any]:
    return np.where(z.real > 0, z, 0) + np.log1p(np.exp(np.where(z.real > 0, -z, z)))


def _normal_cdf(z: NDArray[Any]) -> NDArray[Any]:
    """Return Phi(z). For a complex step the imaginary part is computed from the derivative, since
    SciPy's complex erf loses tiny ones.
    """
    value: NDArray[Any] = 0.5 * (1 + erf(z.real / _SQRT2))
    return np.asarray(value + 1j * z.imag * _normal_pdf(z.real) if np.iscomplexobj(z) else value)


def _normal_pdf(z: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi))


def normalise(z: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ``h = (z - mean) s`` and ``s = 1 / sqrt(variance + eps)``, with mean and biased
    variance over the rows.
    """
    z = z - z.mean(axis=0)
    s = 1 / np.sqrt((z * z).mean(axis=0) + BATCH_NORM_EPS)
    return z * s, s


def loss_terms(loss: str, f: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the terms of a loss and their derivatives by the outputs f ``(..., N, d_out)``,
    neither weighted nor divided; y has the shape of one f.
    """
    if loss == "mse":
        return (f - y) ** 2, 2 * (f - y)
    if loss == "binary_cross_entropy":
        return _softplus(f) - y * f, _sigmoid(f) - y
    shifted = f - f.real.max(axis=-1, keepdims=True)
    e = np.exp(shifted)
    total, mass = e.sum(axis=-1, keepdims=True), y.sum(axis=-1, keepdims=True)
    return y * (np.log(total) - shifted), mass * e / total - y


# name: (phi, phi'); each formula is analytic between kinks; at a kink phi' is the left derivative
ACTIVATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "identity": (lambda z: z, lambda z: np.ones_like(z)),
    "relu": (lambda z: np.where(z.real > 0, z, 0), lambda z: np.where(z.real > 0, 1.0, 0.0)),
    "leaky_relu": (
        lambda z: np.where(z.real > 0, z, LEAK["leaky_relu"] * z),
        lambda z: np.where(z.real > 0, 1.0, LEAK["leaky_relu"]),
    ),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z)),
    "softplus": (_softplus, _sigmoid),
    "silu": (lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) * (1 + z * _sigmoid(-z))),
    "gelu": (lambda z: z * _normal_cdf(z), lambda z: _normal_cdf(z) + z * _normal_pdf(z)),
    "elu": (
        lambda z: np.where(z.real > 0, z, np.exp(np.where(z.real > 0, 0, z)) - 1),
        lambda z: np.where(z.real > 0, 1.0, np.exp(np.where(z.real > 0, 0, z))),
    ),
}
