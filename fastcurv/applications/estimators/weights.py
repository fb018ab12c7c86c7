"""The weights of a fitted network: `coefs_` and `intercepts_` hold them, as in scikit-learn, where
they may be assigned or written to; all other attributes are computed from them.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from ...network.mlp import MLP


class FittedWeightsMixin:
    """A mixin for estimators whose ``theta_``, ``model_`` and ``curvature_`` always belong to the
    current weights in `coefs_` and `intercepts_`.
    """

    coefs_: list[Any]
    intercepts_: list[Any]
    _network: MLP
    # (theta, the views of theta that were `coefs_` and `intercepts_` when theta was stored)
    _stored: tuple[np.ndarray, list[Any]]
    # (weights at the end of the fit, theta of these weights)
    _fitted: tuple[np.ndarray, np.ndarray]
    _seen: tuple[Any, np.ndarray]  # (the verdict, the theta that it belongs to)

    def _store_weights(self, model: MLP, theta: Any) -> None:
        """Store the model and its parameters, of which `coefs_` and `intercepts_` are views."""
        self._network = model
        fitted = np.array(theta, model.dtype)
        theta = self._rescale_to_target_units(model, fitted)
        self._fitted = theta.copy(), fitted
        layers = model.unflatten(theta)
        self.coefs_ = [W.T for W, _ in layers]  # scikit-learn's layout: (in, out)
        self.intercepts_ = [b for _, b in layers]
        self._stored = theta, [*self.coefs_, *self.intercepts_]

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
        """The parameters as a vector of `model_` that predicts the targets in the units of the fit.
        If the fit did not scale the targets, `coefs_` and `intercepts_` are views of this vector.
        """
        theta = self._weights
        folded, fitted = self._fitted
        # This branch is taken if the weights have not been changed since the fit.
        if np.array_equal(theta, folded):
            return theta if np.array_equal(theta, fitted) else fitted
        return self._rescale_to_fitted_units(self.model_, theta)

    @theta_.setter
    def theta_(self, theta: Any) -> None:
        model = self.model_
        self._store_weights(model, model.check_theta(theta))

    @property
    def _weights(self) -> np.ndarray:
        """The weights in `coefs_` and `intercepts_` as a flat vector of parameters of `model_`. The
        vector shares memory with these arrays, unless one of them was assigned since the fit.
        """
        model = self.model_
        parts = [*self.coefs_, *self.intercepts_]
        theta, views = self._stored
        if all(part is view for part, view in zip(parts, views)):
            return theta
        count = len(self.coefs_)
        parts = [np.asarray(part, model.dtype) for part in parts]
        for l, (part, shape) in enumerate(
            zip(parts, [(k, m) for m, k in model.shapes] + [(m,) for m, _ in model.shapes])
        ):
            if part.shape != shape:
                name = f"coefs_[{l}]" if l < count else f"intercepts_[{l - count}]"
                raise ValueError(f"{name} must have shape {shape}, got {part.shape}.")
        return model.flatten(list(zip((W.T for W in parts[:count]), parts[count:])))

    @property
    def curvature_(self) -> Any:
        """The verdict of the fit, or None if `verdict` is False or if the weights are no longer
        those of the fit.
        """
        seen, theta = self._seen
        return seen if seen is None or np.array_equal(theta, self.theta_) else None

    @curvature_.setter
    def curvature_(self, seen: Any) -> None:
        self._seen = seen, np.zeros(0) if seen is None else np.array(self.theta_)

    def __getstate__(self) -> Any:
        state: Any = super().__getstate__()
        state = {name: part for name, part in state.items() if name != "_stored"}
        if "training_" in state:
            # The rows in a copy cannot change, and gradients on another machine differ in the last
            # digit, so the check for changes is dropped.
            state["training_"] = state["training_"][0], None, None
        return state

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        # Only an estimator that has been fitted has a network.
        if hasattr(self, "_network"):
            # No array is identical to None, so theta_ is read from coefs_ and intercepts_.
            self._stored = np.zeros(0), [None]
            self._store_weights(self.model_, self.theta_)
