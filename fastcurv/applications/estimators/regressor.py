"""A regressor with scikit-learn's interface."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import column_or_1d

from ...common.checks import is_sparse
from ...common.protocols import Solver
from ...network.input_derivatives import InputDerivatives
from ...network.mlp import MLP
from ...network.objective import Objective
from ...structure.parameters import layers_of
from ...structure.tables import DEFAULT_LOSS_BY_TARGETS, Layered, LossName, check_loss, loss_spec
from ...structure.user_functions import Loss
from ..uncertainty.left_out import Interval, leave_one_out_of_fit
from .base import BaseMLP, supports_partial_fit
from .classifier import PARAMETERS_DOC
from .evidence import laplace_of_fit, noise_of_targets, observation_std
from .parameters import check_parameters
from .rows import sanitise, scored_rows

LOSS_DOC = """    loss : str or fastcurv.Loss
        ``squared_error``; ``poisson`` and ``gamma``, half the deviance with `predict` the
        exponential of the output; ``pseudo_huber`` and ``log_cosh``, which are less sensitive to
        outliers; ``quantile``, the median, or ``fc.Loss.quantile(0.9)``; ``gaussian_nll``, a mean
        and a standard deviation for every row; or a loss of your own.
"""
REGRESSOR_DOC = PARAMETERS_DOC.replace("    solver :", LOSS_DOC + "    solver :")


# minimum standard deviation of targets, relative to the largest target; smaller ones are rounding
# errors
MIN_RELATIVE_TARGET_SD = 1e-14


class MLPRegressor(RegressorMixin, BaseMLP):
    _flat: bool
    _fitted_loss: Any  # loss of the fit, for targets scaled to variance 1
    _left_out: Any  # (theta, `LeftOut` of theta), computed on first use

    __doc__ = f"""A multilayer perceptron regressor, fitted by exact second-order information.

    The loss is half the mean squared error, of one output or several, or half the mean Poisson
    deviance, as in scikit-learn's ``MLPRegressor``, or any other that `loss` names. The last biases
    start at the best constant prediction. X may be a sparse matrix.

    Unlike in scikit-learn, the fit does not depend on the unit of y. Each target is shifted and
    scaled to mean 0 and variance 1 (for ``poisson`` and ``gamma``: to mean 1), and ``alpha``,
    ``tol``, ``loss_``, ``theta_`` and `objective` refer to these targets. ``predict``, ``coefs_``
    and ``intercepts_`` are in units of y: the last layer includes ``y_scale_`` and ``y_shift_``,
    the scale and shift of each target. `warm_start` and `partial_fit` keep those of the first call.
    The width of a loss such as ``fc.Loss.quantile(0.9, width)`` is in units of y. If the loss is
    given by name, its width is in units of the standard deviation of y. A user-defined loss
    receives y unchanged.
{REGRESSOR_DOC}    sigma_ : float or ndarray (m,)
        With ``alpha="evidence"`` and ``squared_error``: the standard deviation of the noise of each
        target, in units of y.

    See Also
    --------
    MLPClassifier : The estimator for classification.
    Objective : The function that a fit minimises.

    Examples
    --------
    >>> import fastcurv as fc
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import scale
    >>> X, y = load_diabetes(return_X_y=True)
    >>> net = fc.MLPRegressor((5,), "tanh", alpha=1.0, max_iter=2000, random_state=0)
    >>> net = net.fit(scale(X), y)
    >>> bool(net.score(scale(X), y) > 0.5)
    True

    Nine tenths of the targets lie below their 90% quantile.

    >>> high = fc.MLPRegressor((5,), loss=fc.Loss.quantile(0.9, width=1.0), random_state=0)
    >>> high = high.fit(scale(X), y)
    >>> bool(abs((y < high.predict(scale(X))).mean() - 0.9) < 0.03)
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Layered | Literal["logistic"] = "relu",
        *,
        loss: LossName | Literal["squared_error"] | Loss = "squared_error",
        solver: Solver = "auto",
        alpha: float | Literal["auto", "evidence"] = "auto",
        batch_size: Any = "auto",
        learning_rate_init: float | None = None,
        momentum: float = 0.9,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        max_iter: int | None = None,
        tol: Any = "auto",
        random_state: Any = None,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        max_time: float | None = None,
        n_threads: int | None = None,
        memory: int | None = None,
        verdict: bool = False,
        verbose: bool = False,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.loss = loss
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.max_time = max_time
        self.n_threads = n_threads
        self.memory = memory
        self.verdict = verdict
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _encode_targets(self, y: Any, reset: bool) -> tuple[np.ndarray, LossName | Loss, int]:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        loss = self._loss()
        m = 1 if y.ndim == 1 else y.shape[1]
        before = len(self.y_scale_) if self.warm_start and hasattr(self, "y_scale_") else m
        if reset and m != before:
            raise ValueError(
                f"y must have {before} target{'s' * (before > 1)}, as in the last fit, with "
                f"warm_start=True, got {m}. Use warm_start=False for others."
            )
        if reset:
            self._flat = y.ndim == 1
        if loss_spec(loss).targets != "numbers":
            raise ValueError(f"loss must be one for regression, got {loss!r} for classification.")
        given = loss_spec(loss).given
        return y, loss, m * max(1, given.per_target) if given else m

    def _standardise_targets(
        self, y: np.ndarray, weight: Any, loss: Any, fresh: bool
    ) -> tuple[np.ndarray, Any]:
        """Return the targets shifted and scaled to mean 0 and variance 1, or scaled to mean 1 for a
        logarithmic link, and the loss of the fit. If the loss has a width in units of y, the width
        is divided by the scale. The targets of a user-defined loss are not changed. Shift and scale
        are computed if `fresh`, unless `warm_start` keeps those of the last fit.
        """
        given = loss_spec(loss).given
        foreign = given is not None and not given.built_in
        width = next((k for k in ("width", "delta") if k in getattr(
            getattr(given, "function", None), "keywords", {})), None)  # fmt: skip
        own = width and not (isinstance(self.loss, str) and "(" not in self.loss)
        if fresh and not (self.warm_start and hasattr(self, "y_scale_")):
            rows = y.reshape(len(y), -1).astype(float)
            self.y_shift_ = np.zeros(rows.shape[1])
            self.y_scale_ = np.ones(rows.shape[1])
            if not foreign:
                mean = np.average(rows, axis=0, weights=weight)
                scale = None
                if given is not None and given.exponential:
                    scale = mean
                else:
                    self.y_shift_ = mean
                    size = np.abs(rows).max(axis=0)
                    # The deviations are divided by the largest value so that no square underflows.
                    part = (rows - mean) / np.where(size > 0, size, 1.0)
                    scale = size * np.sqrt(np.average(part * part, axis=0, weights=weight))
                    scale = np.where(scale > MIN_RELATIVE_TARGET_SD * size, scale, 0.0)
                self.y_scale_ = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)
            # If a loss has one width for all targets, all targets must have the same unit.
            if own:
                self.y_scale_ = np.full_like(self.y_scale_, np.sqrt(np.mean(self.y_scale_**2)))
        if given and own:
            known = dict(getattr(given.function, "keywords", {}))
            known[width] /= float(self.y_scale_[0])
            make = Loss.quantile if width == "width" else Loss.pseudo_huber
            loss = make(**known)
        self._fitted_loss = loss
        if foreign:
            return y, loss
        shift, scale = (x[0] if y.ndim == 1 else x for x in (self.y_shift_, self.y_scale_))
        return (y - shift) / scale, loss

    def _output_scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the scale and the shift, for each output, that convert outputs of the fit to units
        of y.
        """
        scale = self.y_scale_
        shift = self.y_shift_
        given = loss_spec(self._loss()).given
        if given is not None and given.exponential:
            return np.ones_like(scale), np.log(scale)
        # The outputs are means, followed by logarithms of variances.
        if given is not None and given.per_target == 2:
            shift = np.concatenate([shift, 2 * np.log(scale)])
            scale = np.concatenate([scale, np.ones_like(scale)])
        return scale, shift

    def _rescale_to_target_units(self, model: MLP, theta: np.ndarray) -> np.ndarray:
        scale, shift = self._output_scale_and_shift()
        theta = theta.copy()
        W, b = layers_of(model, theta)[-1]
        W[:] = W * scale[:, None]
        b[:] = b * scale + shift
        return theta

    def _rescale_to_fitted_units(self, model: MLP, theta: np.ndarray) -> np.ndarray:
        scale, shift = self._output_scale_and_shift()
        theta = theta.copy()
        W, b = layers_of(model, theta)[-1]
        W[:] = W / scale[:, None]
        b[:] = (b - shift) / scale
        return theta

    def _loss(self) -> Any:
        return check_loss(
            DEFAULT_LOSS_BY_TARGETS["numbers"] if self.loss == "squared_error" else self.loss
        )

    def _set_output_biases(self, model: MLP, theta: np.ndarray, y: np.ndarray, weight: Any) -> None:
        y = y.reshape(len(y), -1).astype(float)
        given = loss_spec(self._fitted_loss).given
        shares = np.full(len(y), 1.0) if weight is None else weight.astype(float)
        b = layers_of(model, theta)[-1][1]
        shares = shares / shares.sum()
        if given is None:
            b[:] = np.average(y, axis=0, weights=weight)
        else:
            b[:] = given.best_constant(y, shares, len(b))[0]

    def predict(self, X: Any, return_std: bool = False, return_domain: bool = False) -> Any:
        """Predict the targets of the rows of X.

        Parameters
        ----------
        X : array_like or sparse matrix (N, n_features)
            The rows.
        return_std : bool
            If True, also return the standard deviation of a new observation, for the losses
            ``squared_error`` and ``gaussian_nll``.
        return_domain : bool
            If True, also return which rows lie inside the domain of the fit, for the losses
            ``squared_error`` and ``poisson``.

        Returns
        -------
        y : ndarray (N,), or (N, m) if y had m columns
            The outputs of the network, their exponentials for ``poisson`` and ``gamma``, or the
            means for ``gaussian_nll``.
        std : ndarray, in the shape of y
            Only if `return_std` is True.
        inside : ndarray (N,) of bool
            Only if `return_domain` is True: False for rows that are extrapolations, see
            `LaplacePosterior.in_domain`. The last of the values returned.

        Raises
        ------
        ValueError
            With `return_std`: if `loss` is neither ``squared_error`` nor ``gaussian_nll``. With
            `return_domain`: if it is neither ``squared_error`` nor ``poisson``. With both: if the
            network fits every row exactly, or if the estimator does not hold the rows of a fit, as
            after `partial_fit`.

        Notes
        -----
        For ``gaussian_nll`` the standard deviation is an output of the network. For
        ``squared_error`` it combines the noise and the uncertainty of the prediction, by the
        Laplace approximation (`fastcurv.laplace`). With ``alpha="evidence"`` it is computed at
        ``theta_``, where that fit ends, and has the right size on average. Otherwise training first
        continues to a minimum, which does not change this estimator, and can take several times as
        long as the fit on the first call. The standard deviation then belongs to the minimum, and
        includes the difference between the predictions there and those returned. With ``relu`` and
        other kinks it is computed at the end of the fit.
        """
        outputs = self._network_outputs(X)
        given = loss_spec(self._loss()).given
        if given is not None and given.exponential:
            outputs = np.exp(outputs)
        parts = np.split(outputs, given.per_target or 1, axis=1) if given else [outputs]
        found = [part[:, 0] if self._flat else part for part in parts]
        returned = [found[0]]
        if return_std and len(found) > 1:
            returned.append(np.exp(0.5 * found[1]))
        elif return_std:
            returned.append(self._observation_std(X))
        if return_domain:
            returned.append(self._rows_in_domain(X))
        return tuple(returned) if len(returned) > 1 else found[0]

    def _observation_std(self, X: Any) -> np.ndarray:
        """Return the standard deviations of new observations at the rows of X, in units of y."""
        if loss_spec(self._loss()).given is not None:
            raise ValueError(
                "loss must be 'squared_error' or 'gaussian_nll' for return_std=True, got "
                f"{self.loss!r}."
            )
        X = self._check_rows(X)
        X = X.toarray() if is_sparse(X) else X
        post = self._cached_posterior("return_std=True")
        std = observation_std(post, self.theta_, X) * self.y_scale_
        return std[:, 0] if self._flat else std

    def _store_fitted_objective(self, ob: Objective) -> None:
        if self.alpha == "evidence" and loss_spec(ob.loss).given is None:
            post = laplace_of_fit(self, ob)
            self._posterior = np.array(self.theta_), post
            sigma = noise_of_targets(post) * self.y_scale_
            self.sigma_ = float(sigma[0]) if self._flat else sigma

    def predict_interval(self, X: Any, confidence_level: float = 0.9) -> Interval:
        """Return jackknife+ prediction intervals.

        Each row of the fit is predicted by a network trained without this row, approximated by one
        Newton step from the fit; see `LeftOut.interval`. With a smooth activation such as ``tanh``,
        training first continues to a minimum, which does not change this estimator. With ``relu``
        and other kinks, or if the Hessian is not positive definite at the end, the Gauss-Newton
        matrix is used instead.

        Parameters
        ----------
        X : array_like or sparse matrix (N, k)
            The new rows.
        confidence_level : float
            The fraction of new targets to cover, between 0 and 1.

        Returns
        -------
        Interval
            ``low`` and ``high``, each in the shape of `predict`.

        Raises
        ------
        ValueError
            If the Gauss-Newton matrix is not positive definite either, as with an `alpha` that is
            too small, or if the estimator does not hold the rows of a fit, as after `partial_fit`.

        Warns
        -----
        UserWarning
            If the fit has more than half as many effective parameters as there are targets.

        See Also
        --------
        fastcurv.leave_one_out : Scores, leverages and Cook's distances.

        Examples
        --------
        >>> import fastcurv as fc
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.preprocessing import scale
        >>> X, y = load_diabetes(return_X_y=True)
        >>> net = fc.MLPRegressor((5,), "tanh", alpha=3.0, random_state=0).fit(scale(X), y)
        >>> low, high = net.predict_interval(scale(X)[:2])
        >>> low.shape, bool((low < high).all())
        ((2,), True)
        """
        rows = self._check_rows(X)
        theta = np.array(self.theta_)
        ob = self._fitted_objective("predict_interval")
        known, out = vars(self).get("_left_out", (None, None))
        if known is None or not np.array_equal(known, theta):
            out = leave_one_out_of_fit(ob, theta)
            self._left_out = theta, out
        low, high = out.interval(rows, confidence_level)
        low, high = (bound * self.y_scale_ + self.y_shift_ for bound in (low, high))
        return Interval(low[:, 0], high[:, 0]) if self._flat else Interval(low, high)

    def _feature_derivatives(self, X: Any, order: int) -> InputDerivatives:
        """Return the predictions and their derivatives with respect to the features, up to `order`
        1 or 2. For a logarithmic link the predictions are exponentials of the outputs, and for
        ``gaussian_nll`` they are the means alone.
        """
        z, J, H = super()._feature_derivatives(X, order)
        given = loss_spec(self._loss()).given
        if given is not None and given.exponential:
            z = np.exp(z)
            H = None if H is None else z[..., None, None] * (H + J[..., None] * J[..., None, :])
            J = z[..., None] * J
        count = z.shape[1] // (given.per_target or 1 if given else 1)
        return InputDerivatives(z[:, :count], J[:, :count], None if H is None else H[:, :count])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the coefficient of determination, R^2, on the given rows.

        Parameters
        ----------
        X : array_like or sparse matrix (N, n_features)
            The rows.
        y : array_like (N,) or (N, m)
            The true targets.
        sample_weight : array_like (N,), optional
            Weights of the rows.

        Returns
        -------
        float
            R^2, 1 for exact predictions.
        """
        rows = sanitise(y, "y"), sanitise(sample_weight, "sample_weight")
        return float(super().score(*scored_rows(X, *rows)))

    @available_if(supports_partial_fit)
    def partial_fit(self, X: Any, y: Any) -> MLPRegressor:
        """Run one epoch of a mini-batch solver on these rows, from the parameters of the last call.
        The first call starts from random parameters.

        Parameters
        ----------
        X, y
            As in `fit`.

        Returns
        -------
        self
        """
        check_parameters(self)
        y = sanitise(y, "y")
        first = not hasattr(self, "theta_")
        with self._replacing_fit():
            if first:
                self._flat = np.ndim(y) < 2 or np.shape(y)[1] == 1
            self._run_epoch(X, y, first)
        return self
