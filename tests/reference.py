"""A multilayer perceptron in plain NumPy, the oracle of the engine: slow and short, with gradients
by hand and products by complex steps, which are exact up to rounding.

The arguments are those of `MLP` and `Objective`. All methods take theta in any precision, real or
complex.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcurv.structure.parameters import (
    batch_norm_params,
    forward,
    has_skip_connection,
    l2_diagonal,
    layers_of,
    n_terms_per_row,
)
from fastcurv.structure.tables import activation_spec, batch_normalise, loss_spec, one_hot
from fastcurv.structure.user_functions import Activation

COMPLEX_STEP = 1e-100


class ReferenceModel:
    """A stack of linear layers with activations between them."""

    def __init__(
        self, sizes: Any, activation: Any = "tanh", bias: bool = True, residual: bool = False,
        batch_norm: bool = False,
    ) -> None:  # fmt: skip
        self.sizes = tuple(sizes)
        one = isinstance(activation, (str, Activation))
        self.activation = (activation,) * (len(self.sizes) - 2) if one else tuple(activation)
        self.bias, self.residual, self.batch_norm = bias, residual, batch_norm
        self.skips = tuple(residual and k == m for k, m in zip(self.sizes[:-2], self.sizes[1:-1]))
        pairs = [*zip(self.sizes, self.sizes[1:])]
        self.n_params = sum(m * (k + bias) for k, m in pairs) + 2 * batch_norm * sum(
            self.sizes[1:-1]
        )

    def unflatten(self, theta: Any) -> list[Any]:
        norms = batch_norm_params(self, theta)
        return [(W, b, *(pair or ())) for (W, b), pair in zip(layers_of(self, theta), norms)]

    def flatten(self, layers: Any) -> np.ndarray:
        return np.concatenate([np.ravel(x) for layer in layers for x in layer if x is not None])

    def forward(self, theta: Any, X: np.ndarray) -> tuple[list[Any], list[Any]]:
        """Return two lists by layer: the argument of the activation (with batch normalisation,
        after it), and the input a.
        """

        def activate(l: int, z: Any, a: Any) -> Any:
            skip = a if has_skip_connection(self, l) else 0
            return activation_spec(self.activation[l]).phi(z) + skip

        below, zs = forward(self.unflatten(theta), X, activate)
        return zs, below

    def preactivations(self, theta: Any, X: np.ndarray) -> list[Any]:
        return self.forward(theta, X)[0]

    def predict(self, theta: Any, X: np.ndarray) -> np.ndarray:
        """Return the outputs (N, d_out) before any softmax or sigmoid."""
        return self.preactivations(theta, X)[-1]

    def backward(self, theta: Any, zs: Any, below: Any, delta: Any) -> np.ndarray:
        """Return the gradient (n,) of ``sum(delta * outputs)`` for a fixed `delta`."""
        grads: list[Any] = []
        skip: Any = 0
        e = delta  # dL/da of the layer
        for l, (W, _, *norm) in reversed([*enumerate(self.unflatten(theta))]):
            if l < len(self.activation):
                skip = e if has_skip_connection(self, l) else 0
                delta = e * activation_spec(self.activation[l]).slope(zs[l])
            more: Any = ()
            if norm:
                h, s = batch_normalise(below[l] @ W.T)
                more = (delta * h).sum(axis=0), delta.sum(axis=0)
                delta = s * norm[0] * (delta - delta.mean(axis=0) - h * (delta * h).mean(axis=0))
            grads.append((delta.T @ below[l], delta.sum(axis=0) if self.bias else None, *more))
            e = delta @ W + skip
        return self.flatten(grads[::-1])


class ReferenceObjective:
    """The loss of a `ReferenceModel` on data, with its gradient and Hessian products."""

    def __init__(
        self, model: ReferenceModel, X: Any, y: Any, loss: Any = "mse", *, l2: float = 0.0,
        l2_biases: bool = True, sample_weight: Any = None,
    ) -> None:  # fmt: skip
        self.model, self.loss, self.l2, self.l2_biases = model, loss, l2, l2_biases
        self.X, self.n_params, self.dtype = np.array(X, float), model.n_params, np.dtype(float)
        classes = loss_spec(loss).targets == "classes"
        y = one_hot(np.asarray(y), model.sizes[-1]) if classes else np.asarray(y)
        self.n_samples = len(self.X)
        self.y = y.reshape(self.n_samples, -1).astype(float)
        self.sample_weight = sample_weight

    def scale(self) -> np.ndarray:
        """Return the factor of each sample's loss in the objective, shape (N, 1)."""
        weight = np.ones(self.n_samples) if self.sample_weight is None else self.sample_weight
        return np.asarray(weight, float)[:, None] / (self.n_samples * n_terms_per_row(self))

    def value_and_gradient(self, theta: Any) -> tuple[Any, np.ndarray]:
        zs, below = self.model.forward(theta, self.X)
        terms, delta = loss_spec(self.loss).terms(zs[-1], self.y)
        scale = self.scale()
        # A term that overflows, times 0, would be NaN.
        terms, delta = (np.where(scale == 0, 0, scale * part) for part in (terms, delta))
        l2 = l2_diagonal(self)
        value = terms.sum() + 0.5 * (theta @ (l2 * theta))
        return value, self.model.backward(theta, zs, below, delta) + l2 * theta

    def value(self, theta: Any) -> float:
        return float(self.value_and_gradient(theta)[0])

    def gradient(self, theta: Any) -> np.ndarray:
        return self.value_and_gradient(theta)[1]

    def hessian(self, theta: Any) -> ReferenceHessian:
        return ReferenceHessian(self, theta)


class ReferenceHessian:
    """Products with the Hessian, ``H v = Im gradient(theta + i h v) / h``, without cancellation."""

    def __init__(self, objective: ReferenceObjective, theta: np.ndarray) -> None:
        self.objective, self.theta = objective, theta

    def __matmul__(self, V: np.ndarray) -> np.ndarray:
        if V.ndim == 2:
            return np.stack([self @ v for v in V.T], axis=1)
        if not V.any():
            return 0 * V
        step = COMPLEX_STEP / np.abs(V).max()
        return self.objective.value_and_gradient(self.theta + 1j * step * V)[1].imag / step
