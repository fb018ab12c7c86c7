"""A regressor with scikit-learn's interface."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import column_or_1d

from ..common.protocols import Loss
from ..network.mlp import MLP
from ..structure.tables import SUITS
from .base import BaseMLP, check_parameters, takes_rows_as_they_come, unhidden
from .classifier import PARAMETERS


class MLPRegressor(RegressorMixin, BaseMLP):
    _flat: bool

    __doc__ = f"""A multilayer perceptron regressor, fitted by exact second-order information.

    The loss is half the mean squared error, of one output or several, as in scikit-learn's
    ``MLPRegressor``. The last biases start at the mean of y. X may be a sparse matrix.
{PARAMETERS}
    See Also
    --------
    MLPClassifier : for classes.
    Objective : the loss that is minimised.

    Examples
    --------
    >>> import fastcurv as fc
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import scale
    >>> X, y = load_diabetes(return_X_y=True)
    >>> net = fc.MLPRegressor((5,), "tanh", alpha=100.0, max_iter=2000, random_state=0)
    >>> net = net.fit(scale(X), y)
    >>> bool(net.score(scale(X), y) > 0.5)
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _targets(self, y: Any, reset: bool) -> tuple[np.ndarray, Loss, int]:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if reset:
            self._flat = y.ndim == 1
        return y, SUITS["numbers"], 1 if y.ndim == 1 else y.shape[1]

    def _start(self, model: MLP, theta: np.ndarray, y: np.ndarray, weight: Any) -> None:
        y = y.reshape(len(y), -1).astype(float)
        model.unflatten(theta)[-1][1][:] = np.average(y, axis=0, weights=weight)

    def predict(self, X: Any) -> np.ndarray:
        """Return the outputs ``(N,)``, or ``(N, m)`` if y had m columns."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._flat else outputs

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the coefficient of determination, R^2, of these rows."""
        weight = unhidden(sample_weight, "sample_weight")
        return float(super().score(X, unhidden(y, "y"), weight))

    @available_if(takes_rows_as_they_come)
    def partial_fit(self, X: Any, y: Any) -> MLPRegressor:
        """Fit one epoch of a mini-batch solver to these rows, from where the last one ended."""
        check_parameters(self)
        y = unhidden(y, "y")
        first = not hasattr(self, "theta_")
        if first:
            self._flat = np.ndim(y) < 2 or np.shape(y)[1] == 1
        self._epoch(X, y, first)
        return self
