"""Derivatives of a network's outputs with respect to its inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import _engine
from ..common.checks import check_array
from .arguments import raise_if_user_activation


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
    raise_if_user_activation(
        model, "whose second derivatives the engine does not compute", "built-in activations"
    )
    model, theta = model.fold_batch_norm(theta, statistics)
    sizes, phis, skips = model._engine_layers
    settings = (sizes, phis, skips, model.bias, model.dtype)
    if type(weights) is type(X) is np.ndarray and X.ndim == 2 and weights.shape == sizes[-1:]:
        weights = np.ascontiguousarray(np.broadcast_to(weights, (len(X), len(weights))))
    # The engine returns None if it cannot use the arrays as they are.
    derivatives = _engine.input_derivatives(*settings, theta, X, order, weights)
    if derivatives is None:
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
        derivatives = _engine.input_derivatives(*settings, theta, X, order, weights)
    assert derivatives is not None  # the arguments now have the form that the engine needs
    return InputDerivatives(*derivatives)
