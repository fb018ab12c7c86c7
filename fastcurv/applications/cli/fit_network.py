"""A fitted network with its rows, in the form that the HTML report on the fit needs: predictions in
units of the targets, scores and refits. `NetworkFit` needs
NumPy and SciPy alone; `EstimatorFit` is the fit of an estimator of scikit-learn.
"""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from ...common.protocols import Floats, Indices
from ...network.objective import Objective
from ...structure.tables import loss_spec
from .span import minimize_in_row_space
from .tables import MIN_TABLE_ROWS

# maximum relative difference of the loss of the given rows from that of the fit
MAX_LOSS_CHANGE = 1e-3
# minimum probability whose logarithm is taken; smaller ones are replaced by this one
MIN_PROBABILITY = 1e-15


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network without scikit-learn, for `page.build_page` in place of an
    estimator.

    Attributes
    ----------
    ob : Objective
        The objective over all rows, with targets as they are fitted.
    theta : ndarray (n,)
        The parameters at the end of the fit.
    shift, scale : float
        Targets in their own units are ``shift + scale * ob.y``.
    classes : sequence, optional
        Names of the classes, in the order of the network's outputs.
    seed : int
        Seed for the starts of refits.
    seconds : float
        Processor time of the fit in seconds, including the choice of its penalty.
    groups : ndarray (N,) of int, optional
        Number of the group of each row, from 0. The rows of a group are left out together.
    """

    ob: Objective
    theta: Any
    shift: float = 0.0
    scale: float = 1.0
    classes: Any = None
    seed: int = 0
    seconds: float = 0.0
    groups: Any = None


class NetworkFit:
    """A fitted network with its rows, as used by the HTML report of `fastcurv.report`.

    Attributes
    ----------
    ob, theta : Objective, ndarray (n,)
        The objective over all rows, and the parameters at the end of the fit.
    y : ndarray (N,)
        Targets of a regression in their own units, or the indices of the classes.
    classes : ndarray or None
        Names of the classes; None for regression.
    """

    X: Any
    y: Any
    classes: Any
    numbers: bool
    exponential: bool
    groups: Any = None

    def __init__(self, trained: Any, X: Any, y: Any) -> None:
        self.est, self.X, self.given = trained, X, np.asarray(y)
        self.ob, self.theta = trained.ob, np.asarray(trained.theta)
        self.shift, self.scale = float(trained.shift), float(trained.scale)
        self.groups = trained.groups
        self.classes = None if trained.classes is None else np.asarray(trained.classes)
        self._check_targets()

    def _check_targets(self) -> None:
        row = loss_spec(self.ob.loss)
        user_loss = row.given
        self.numbers = row.targets == "numbers"
        self.exponential = user_loss is not None and user_loss.exponential
        outputs = self.ob.model.sizes[-1] // (user_loss.per_target or 1 if user_loss else 1)
        several = outputs > 1 if self.numbers else self.given.ndim > 1
        if several:
            raise ValueError(
                f"y must have one target per row for a report, got shape "
                f"{self.given.shape}. Report on one target at a time."
            )
        self.y: Any = (
            np.asarray(self.given, float).reshape(-1) if self.numbers else self._class_codes()
        )
        if len(self.y) != self.ob.n_samples or len(self.X) != len(self.y):
            raise ValueError(
                f"X and y must have the {self.ob.n_samples} rows of the fit whose weight is above "
                f"0, got {len(self.X)} and {len(self.y)} rows."
            )

    def _class_codes(self) -> Indices:
        if self.classes is None:
            self.classes = np.unique(self.given)
        order = np.argsort(self.classes, kind="stable")
        return np.asarray(order[np.searchsorted(self.classes[order], self.given)])

    @property
    def n_rows(self) -> int:
        return len(self.y)

    @property
    def alpha(self) -> float:
        """The weight decay as scikit-learn counts it."""
        n_terms = loss_spec(self.ob.loss).sklearn[1](self.ob.model.sizes[-1])
        return float(np.max(self.ob.l2) * self.ob.n_samples * n_terms)

    def outputs_to_predictions(self, z: Any) -> Floats:
        """Convert outputs (..., d_out) of the network to predictions (...,) in the units of the
        targets for regression, or to class probabilities (..., classes) for classification.
        """
        z = np.asarray(z, float)
        if self.numbers:
            mean = np.exp(z[..., 0]) if self.exponential else z[..., 0]
            return np.asarray(mean * self.scale + self.shift)
        if z.shape[-1] > 1:
            return np.asarray(softmax(z, axis=-1))
        return np.stack([expit(-z[..., 0]), expit(z[..., 0])], axis=-1)

    def predictions(self) -> Floats:
        return self.outputs_to_predictions(self.ob.model.predict(self.theta, self.ob.X))

    def row_losses(self, predictions: Floats) -> Floats:
        """Return the loss (N,) of each row for the given predictions: the squared error for
        regression, or minus the logarithm of the probability of the row's class for classification.
        """
        return self.row_losses_for_targets(self.y, predictions)

    def row_losses_for_targets(self, y: Any, predictions: Floats) -> Floats:
        """Return the losses that `row_losses` returns, for targets y instead of those of the
        fit.
        """
        if self.numbers:
            return np.asarray((y - predictions) ** 2)
        p = predictions[np.arange(len(y)), y]
        return np.asarray(-np.log(np.maximum(p, MIN_PROBABILITY)))

    def score(self, predictions: Floats, rows: Any = slice(None)) -> float:
        """Return R^2 for regression, or the accuracy for classification, of `predictions`, which
        has one entry for each row of the fit. Only the rows `rows` are counted.
        """
        return self.score_for_targets(self.y[rows], predictions[rows])

    def score_for_targets(self, y: Any, predictions: Floats) -> float:
        """Return the result of `score` for targets y instead of those of the fit."""
        if not self.numbers:
            return float(np.mean(predictions.argmax(axis=1) == y))
        return float(1 - np.mean((y - predictions) ** 2) / y.var())

    def score_error(self, y: Any, predictions: Floats) -> float:
        """Return the standard error of the score of `predictions` for the targets y, estimated from
        the variance over the rows.
        """
        parts = (y - predictions) ** 2 / y.var() if self.numbers else predictions.argmax(1) == y
        return float(np.std(parts) / math.sqrt(len(y)))

    def align_classes(self, predictions: Floats, classes: Any) -> Floats:
        """Return the probabilities of all classes, from predictions of a network that was fitted to
        only some `classes`. The other classes have probability 0. Predictions of a regression are
        returned unchanged.
        """
        if self.numbers or len(classes) == len(self.classes):
            return predictions
        every = np.zeros((len(predictions), len(self.classes)))
        every[:, np.isin(self.classes, classes)] = predictions if len(classes) > 1 else 1.0
        return every

    def prediction_slopes(self, rows: Indices) -> Floats:
        """Return the derivatives (M, outputs, k), for M rows and k columns of X, of the prediction
        for regression, or of the logits for classification, with respect to the columns.
        """
        J = self.ob.model.input_jacobian(self.theta, self.X[rows])
        if not self.numbers:
            return np.asarray(J)
        z = self.ob.model.predict(self.theta, self.X[rows])[:, :1, None]
        return np.asarray(J[:, :1] * self.scale * (np.exp(z) if self.exponential else 1.0))

    # --- refits

    def refit_rows(self, rows: Indices) -> NetworkFit:
        """Fit the network to the given rows, and return the new `NetworkFit`."""
        net, ob = self.est, self.ob
        some = ob.batch(rows).with_l2(float(ob.l2) * ob.n_samples / len(rows))
        _, theta = minimize_in_row_space(some, rng=net.seed, verdict=False)
        known = TrainedNetwork(some, theta, self.shift, self.scale, self.classes, net.seed)
        return NetworkFit(known, self.X[rows], self.given[rows])

    def predict(self, X: Any) -> Floats:
        """Return the predictions for the rows of X: values for regression, or the probabilities (N,
        classes) for classification.
        """
        return self.outputs_to_predictions(self.ob.model.predict(self.theta, X))


class EstimatorFit(NetworkFit):
    """The fit of an `MLPRegressor` or `MLPClassifier`."""

    def __init__(self, est: Any, X: Any, y: Any) -> None:
        self.est, self.X, self.given = est, X, np.asarray(y)
        if self.given.ndim > 1 and self.given.shape[1] > 1 and hasattr(est, "classes_"):
            raise ValueError(
                "y must have one class for each row for a report, got several labels. Report on "
                "one label at a time."
            )
        if not hasattr(est, "classes_"):
            try:
                self.given = self.given.astype(float)
            except (TypeError, ValueError):
                first = self.given.reshape(-1).tolist()[0]
                raise ValueError(f"y must hold numbers, as in the fit, got {first!r}.") from None
        self.ob, self.theta = est.objective(X, y), np.asarray(est.theta_)
        self.shift = float(getattr(est, "y_shift_", [0.0])[0])
        self.scale = float(getattr(est, "y_scale_", [1.0])[0])
        self.classes = getattr(est, "classes_", None)
        self._check_targets()

    @property
    def alpha(self) -> float:
        return float(self.est.alpha_)

    def refit_rows(self, rows: Indices) -> NetworkFit:
        X, y = self.X[rows], self.given[rows]
        return EstimatorFit(self._refit(X, y, alpha=self.est.alpha_), X, y)

    def _refit(self, X: Any, y: Any, validation: Any = None, **options: Any) -> Any:
        from sklearn.base import clone

        again = clone(self.est).set_params(
            **options, warm_start=False, verdict=False, verbose=False
        )
        with suppress_warnings():
            return again.fit(X, y, **(validation or {}))


def fit_of(estimator: Any, X: Any, y: Any) -> NetworkFit:
    """Return the fit of an estimator or a `TrainedNetwork`, after checking its rows."""
    bare = isinstance(estimator, TrainedNetwork)
    fit: NetworkFit = NetworkFit(estimator, X, y) if bare else EstimatorFit(estimator, X, y)
    _check_rows(fit)
    return fit


def _check_rows(fit: NetworkFit) -> None:
    """Raise ValueError if the rows are too few, are all equal, or are not those of the fit."""
    if fit.n_rows < MIN_TABLE_ROWS:
        raise ValueError(
            f"y must have at least {MIN_TABLE_ROWS} rows for a report, got {fit.n_rows}."
        )
    if (fit.y == fit.y[0]).all():
        raise ValueError(
            f"y must hold different values for a report, got {fit.given.tolist()[0]!r} in each row."
        )
    known = getattr(fit.est, "loss_", None)
    # Early stopping holds rows out, so that the losses of fit and page differ.
    if known is None or getattr(fit.est, "early_stopping", False):
        return
    per_output = loss_spec(fit.ob.loss).sklearn[1](fit.ob.model.sizes[-1])
    loss = fit.ob.value(fit.theta) * per_output
    if abs(loss - known) > MAX_LOSS_CHANGE * max(abs(known), abs(loss)):
        raise ValueError(
            f"X and y must be all rows of the fit, without sample_weight, got rows with a loss of "
            f"{loss:.4g} where estimator.loss_ is {known:.4g}. Call fit on these rows first."
        )


@contextmanager
def suppress_warnings() -> Any:
    """Suppress all warnings in this context."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
