"""Derivatives of a network's outputs with respect to its inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import _engine
from ..common.checks import check_array
from ..structure.tables import activation_spec

# number of rows evaluated at a time if an activation is a Python function
ROWS_PER_BLOCK = 256


class InputDerivatives(NamedTuple):
    """Outputs of a network and their first and second derivatives with respect to the inputs, for
    each sample.

    Attributes
    ----------
    outputs : ndarray, shape (N, d_out)
        The outputs, before any softmax or sigmoid.
    jacobian : ndarray, shape (N, d_out, d_in)
        The first derivatives. Element ``[r, k, i]`` is that of output k of sample r for input i.
    hessian : ndarray, shape (N, d_out, d_in, d_in) or (N, d_in, d_in), or None
        The second derivatives. If weights of the outputs are given, the Hessian of the weighted sum
        of outputs, which has the second shape. None if only first derivatives were computed.
    """

    outputs: np.ndarray
    jacobian: np.ndarray
    hessian: Any


def input_derivatives(
    model: Any, theta: Any, X: Any, order: int = 2, weights: Any = None, statistics: Any = None
) -> InputDerivatives:
    """Return the outputs and their derivatives up to `order`, 1 or 2. If `order` is 1, the Hessian
    is None. The other arguments are those of `MLP.input_hessian`.
    """
    model, theta = model.fold_batch_norm(theta, statistics)
    sizes, phis, skips = model._engine_layers
    built_in = None not in phis
    settings = (model.bias, model.dtype)
    if type(weights) is type(X) is np.ndarray and X.ndim == 2 and weights.shape == sizes[-1:]:
        weights = np.ascontiguousarray(np.broadcast_to(weights, (len(X), len(weights))))
    # The engine returns None if it cannot use the arrays as they are.
    if built_in:
        derivatives = _engine.input_derivatives(
            sizes, phis, skips, *settings, theta, X, order, weights
        )
        if derivatives is not None:
            return InputDerivatives(*derivatives)
    theta = np.require(model.check_theta(theta), None, ["C", "A"])
    X = np.require(model.check_rows(X), None, ["C", "A"])
    if weights is not None:
        weights = check_array(weights, "weights", model.dtype)
        if weights.shape not in ((sizes[-1],), (len(X), sizes[-1])):
            raise ValueError(
                f"weights must have shape ({sizes[-1]},) or ({len(X)}, {sizes[-1]}), got "
                f"{weights.shape}."
            )
        weights = np.broadcast_to(weights, (len(X), sizes[-1]))
        weights = np.require(weights, None, ["C", "A"])
    if built_in:
        derivatives = _engine.input_derivatives(
            sizes, phis, skips, *settings, theta, X, order, weights
        )
        assert derivatives is not None  # the arguments now have the form that the engine needs
        return InputDerivatives(*derivatives)
    blocks = [
        _input_derivatives_numpy(
            model,
            theta,
            X[i : i + ROWS_PER_BLOCK],
            order,
            None if weights is None else weights[i : i + ROWS_PER_BLOCK],
        )
        for i in range(0, len(X), ROWS_PER_BLOCK)
    ]
    outputs, jacobian, hessian = zip(*blocks)
    return InputDerivatives(
        np.concatenate(outputs),
        np.concatenate(jacobian),
        np.concatenate(hessian) if order == 2 else None,
    )


def _input_derivatives_numpy(
    model: Any, theta: Any, X: Any, order: int, weights: Any
) -> tuple[Any, Any, Any]:
    """Return the outputs, the Jacobian and the Hessian (None if `order` is 1) of
    `input_derivatives`, computed in NumPy for built-in and user-defined activations. The Hessian is
    propagated backward through the layers as in the engine.
    """
    a = X
    A = np.broadcast_to(np.eye(X.shape[1], dtype=X.dtype), (len(X), *[X.shape[1]] * 2))
    layers = model.unflatten(theta)
    kept = []
    for (W, b), phi, skip in zip(layers, model.activation, model.skips):
        z = a @ W.T + (0 if b is None else b)
        D = W @ A
        h, p, q = _activation_derivatives(phi, z)
        kept.append((D, p, q))
        a, A = (h + a, p[:, :, None] * D + A) if skip else (h, p[:, :, None] * D)
    W, b = layers[-1]
    outputs = a @ W.T + (0 if b is None else b)
    jacobian = W @ A
    if order == 1:
        return outputs, jacobian, None
    e = np.broadcast_to(W, (len(X), *W.shape)) if weights is None else (weights @ W)[:, None]
    hessian = np.zeros((*e.shape[:2], *[X.shape[1]] * 2), X.dtype)
    for l in range(len(kept) - 1, -1, -1):
        D, p, q = kept[l]
        hessian += D[:, None].swapaxes(-1, -2) @ ((e * q[:, None])[..., None] * D[:, None])
        below = (e * p[:, None]) @ layers[l][0]
        e = below + e if model.skips[l] else below
    hessian = (hessian + hessian.swapaxes(-1, -2)) / 2
    return outputs, jacobian, hessian if weights is None else hessian[:, 0]


def _activation_derivatives(phi: Any, z: np.ndarray) -> Any:
    """Return phi, phi' and phi'' at z, each in the shape of z. The activation `phi` is a name or a
    user-defined function.
    """
    if isinstance(phi, str):
        h, p, q, _ = activation_spec(phi).derivatives(z)
        # The table has None for a phi' of 1 and for a phi'' of 0.
        parts = h, 1 if p is None else p, 0 if q is None else q
        return [np.broadcast_to(np.asarray(part, z.dtype), z.shape) for part in parts]
    return phi.rounded(z)
