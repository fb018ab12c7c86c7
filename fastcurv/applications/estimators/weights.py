"""The weights of a fitted network: `coefs_` and `intercepts_` hold them, as in scikit-learn, where
they may be assigned or written to; all other attributes are computed from them.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from ...network.mlp import MLP


class FittedWeightsMixin:
    """A mixin for estimators whose ``theta_`` and ``model_`` always belong to the current weights
    in `coefs_` and `intercepts_`.
    """

    coefs_: list[Any]
    intercepts_: list[Any]
    _network: MLP
    # (weights at the end of the fit, theta of these weights)
    _fitted: tuple[np.ndarray, np.ndarray]

    def _store_weights(self, model: MLP, theta: Any) -> None:
        """Store the model and its parameters."""
        self._network = model
        fitted = np.array(theta, model.dtype)
        fitted.setflags(write=False)
        theta = self._rescale_to_target_units(model, fitted)
        self._fitted = theta, fitted
        layers = model.unflatten(theta.copy())
        self.coefs_ = [W.T for W, _ in layers]  # scikit-learn's layout: (in, out)
        self.intercepts_ = [b for _, b in layers]

    @property
    def model_(self) -> MLP:
        """The network, whose sizes are those of `coefs_`."""
        model = self._network
        coefs = self.coefs_
        if len(coefs) != len(model.shapes) or len(self.intercepts_) != len(coefs):
            raise ValueError(
                f"coefs_ and intercepts_ must be {len(model.shapes)} arrays each, one for each "
                f"layer, got {len(coefs)} and {len(self.intercepts_)}."
            )
        sizes = (np.shape(coefs[0])[0], *(np.shape(W)[-1] for W in coefs))
        return model if sizes == model.sizes else MLP(sizes, model.activation, dtype=model.dtype)

    @model_.setter
    def model_(self, model: Any) -> NoReturn:
        raise AttributeError(
            f"{type(self).__name__}.model_ is read-only. Assign coefs_ and intercepts_, or fit a "
            "new estimator with other parameters."
        )

    def _rescale_to_target_units(self, model: MLP, theta: np.ndarray) -> np.ndarray:
        """Return theta with the last layer rescaled from the units of the fit to those of the
        targets.
        """
        return theta

    def _rescale_to_fitted_units(self, model: MLP, theta: np.ndarray) -> np.ndarray:
        """Return theta with the last layer rescaled from the units of the targets to those of the
        fit.
        """
        return theta

    @property
    def theta_(self) -> np.ndarray:
        """The parameters as a vector of `model_` that predicts the targets in the units of the
        fit.
        """
        theta = self._weights
        folded, fitted = self._fitted
        # This branch is taken if the weights have not been changed since the fit.
        if np.array_equal(theta, folded):
            return fitted
        return self._rescale_to_fitted_units(self.model_, theta)

    @theta_.setter
    def theta_(self, theta: Any) -> None:
        model = self.model_
        self._store_weights(model, model.check_theta(theta))

    @property
    def _weights(self) -> np.ndarray:
        """The weights in `coefs_` and `intercepts_` as a vector of parameters of `model_`."""
        model = self.model_
        layers = zip(self.coefs_, self.intercepts_, model.shapes)
        for l, (W, b, (m, k)) in enumerate(layers):
            for name, part, shape in (("coefs_", W, (k, m)), ("intercepts_", b, (m,))):
                if np.shape(part) != shape:
                    raise ValueError(f"{name}[{l}] must have shape {shape}, got {np.shape(part)}.")
        return model.flatten([(np.asarray(W).T, b) for W, b in zip(self.coefs_, self.intercepts_)])
