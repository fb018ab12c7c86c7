"""Derivatives of an estimator's predictions with respect to the features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.checks import is_sparse
from ...network.input_derivatives import InputDerivatives, input_derivatives

if TYPE_CHECKING:
    from ...network.mlp import MLP


class InputSlopesMixin:
    """A mixin for `MLPClassifier` and `MLPRegressor` with the derivatives of predictions with
    respect to the features.
    """

    if TYPE_CHECKING:
        model_: MLP
        _weights: np.ndarray

        def _check_rows(self, X: Any) -> Any: ...

    def input_jacobian(self, X: Any) -> np.ndarray:
        """Return the derivatives of the predictions with respect to each feature, in the units of X
        and y. For classification these are the derivatives of the logits.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, n_features)
            The rows.

        Returns
        -------
        ndarray, shape (N, n_outputs, n_features)
            ``[r, k, i]`` is the derivative of output k of row r with respect to feature i. At a
            kink of relu it is the derivative on the left.

        See Also
        --------
        fastcurv.MLP.input_jacobian : Derivatives of the outputs of a network.
        """
        return self._feature_derivatives(X, 1).jacobian

    def input_hessian(self, X: Any) -> np.ndarray:
        """Return the second derivatives of the predictions with respect to the features, in the
        units of `input_jacobian`.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, n_features)
            The rows.

        Returns
        -------
        ndarray, shape (N, n_outputs, n_features, n_features)
            Exactly symmetric. The second derivative of relu counts as 0, so that the result is 0
            for relu unless the loss has a logarithmic link.
        """
        return np.asarray(self._feature_derivatives(X, 2).hessian)

    def _feature_derivatives(self, X: Any, order: int) -> InputDerivatives:
        X = self._check_rows(X)
        X = X.toarray() if is_sparse(X) else X
        return input_derivatives(self.model_, self._weights, X, order)
