"""The base class of both estimators: parameters, objective, fit by any solver, and attributes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ...common.checks import is_sparse
from ...common.errors import warn_caller
from ...network.mlp import MLP
from ...network.objective import Objective
from ...optimize.minimize import METHODS, STOCHASTIC_METHODS
from ...optimize.problem import Problem
from ...structure.parameters import layers_of
from ...structure.tables import LossName
from ...structure.user_functions import Loss
from ..convert.sklearn import loss_ratio, out_activation
from ..uncertainty.next_rows import NextRows, next_rows_of_posterior
from .evidence import choose_alpha_by_evidence, laplace_of_fit
from .fit_warnings import warn_if_not_converged
from .held_out import DEFAULT_DECAY, default_decay
from .input_slopes import InputSlopesMixin
from .parameters import check_parameters, hidden_layers
from .rows import check_sample_weight, nonzero_weight_rows, sanitise, select_rows, sum_of_weights
from .sizes import default_n_threads, densify_if_small
from .solver_runs import SolverRunsMixin
from .weights import FittedWeightsMixin

DENSE_BLOCK_MAX_ENTRIES = 1 << 22  # maximum number of entries of a dense block of sparse rows


def supports_partial_fit(estimator: Any) -> bool:
    """Return True if the solver of an estimator uses mini-batches, which `partial_fit` requires."""
    return estimator.solver in STOCHASTIC_METHODS


# default max_iter with "auto" decay or tol, and without
DEFAULT_MAX_STEPS = 2000
DEFAULT_MAX_EPOCHS = 200
MAX_EPOCH_LOSS_GROWTH = 3.0  # maximum growth factor of the loss in `partial_fit`
# attributes that not every fit sets, or that are computed on first use
OPTIONAL_RESULTS = "training_", "_posterior", "_left_out", "sigma_", "validation_loss_curve_"
# relative difference of the loss above which the rows of a fit have changed; that of other machines
# and dtypes is rounding
CHANGE_TOL = 1e-6
AUTO_GRADIENT_TOL = 1e-4  # maximum entry of a gradient that counts as 0 if tol is "auto"


class BaseMLP(
    SolverRunsMixin,
    InputSlopesMixin,
    FittedWeightsMixin,
    BaseEstimator,
):
    """Parameters, fit and attributes of both estimators; see `MLPClassifier`."""

    _total: float
    _max_iter: int  # maximum number of iterations, after "auto" and None are resolved
    _scale: float
    _deadline: float | None
    curvature_: Any
    # ((X, y, loss, weight) of the last fit, theta at its end, value of the objective there)
    training_: tuple[Any, Any, Any]
    _posterior: Any  # (theta, `LaplacePosterior` of theta), computed on first use
    _epochs: Any  # solver of `partial_fit` and its state
    _stratify = False

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # --- methods that the classifier and the regressor override

    def _encode_targets(self, y: Any, reset: bool) -> tuple[np.ndarray, LossName | Loss, int]:
        """Return the targets in the objective's form, its loss, and the number of outputs."""
        raise NotImplementedError

    def _set_output_biases(self, model: MLP, theta: np.ndarray, y: np.ndarray, weight: Any) -> None:
        """Set the last biases of the start theta in place. This base method does nothing."""

    def _standardise_targets(
        self, y: np.ndarray, weight: Any, loss: LossName | Loss, fresh: bool
    ) -> tuple[np.ndarray, LossName | Loss]:
        """Return the given targets and loss. Subclasses may scale both for the fit."""
        return y, loss

    def _apply_class_weights(self, y: Any, weight: Any, dtype: Any) -> Any:
        """Return the given weights. A subclass multiplies them by the weights of the classes."""
        return weight

    # --- the objective

    @property
    def _weight_decay(self) -> float:
        """The weight decay in use: `alpha` if it is a number, otherwise the chosen value."""
        chosen = vars(self).get("alpha_", DEFAULT_DECAY)
        return float(chosen if isinstance(self.alpha, str) else self.alpha)

    @property
    def _gradient_tol(self) -> float:
        return AUTO_GRADIENT_TOL if self.tol == "auto" else float(self.tol)

    def _build_model(self, k: int, m: int, dtype: Any) -> MLP:
        hidden, names = hidden_layers(self.hidden_layer_sizes, self.activation)
        return MLP([k, *hidden, m], names, dtype=dtype)

    def _build_objective(
        self,
        model: MLP,
        X: Any,
        y: Any,
        loss: LossName | Loss,
        weight: Any,
        alpha: float | None = None,
    ) -> Objective:
        """Return the objective, which is ``loss_`` divided by `_scale`. Its l2 is alpha divided by
        `_scale` and by the sum of weights, and does not act on biases.
        """
        self._total = total = float(X.shape[0]) if weight is None else sum_of_weights(weight)
        self._scale = loss_ratio(loss, model.sizes[-1])
        return Objective(
            model,
            X,
            y,
            loss,
            l2=(self._weight_decay if alpha is None else alpha) / (total * self._scale),
            sample_weight=None if weight is None else weight.astype(float) * (X.shape[0] / total),
            n_threads=default_n_threads(
                self.n_threads, model.n_params, self._rows_per_gradient(X.shape[0])
            ),
            memory=self.memory,
            l2_biases=False,
        )

    def _check_fit_data(
        self, X: Any, y: Any, weight: Any, reset: bool
    ) -> tuple[Any, Any, LossName | Loss, Any, int]:
        """Return rows, targets, loss, weights and number of outputs, without rows of weight 0."""
        X = sanitise(X, "X")
        y = sanitise(y, "y")
        weight = sanitise(weight, "sample_weight")
        if is_sparse(y) and not self._stratify:
            raise TypeError("y must be a dense array, got a sparse matrix. Use y.toarray().")
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=(np.float64, np.float32),
            multi_output=True,
            y_numeric=not self._stratify,
            reset=reset,
        )
        if weight is not None:
            weight = check_sample_weight(weight, X)
            X, y, weight = nonzero_weight_rows(X, y, weight)  # rows of weight 0 add no class
        X = densify_if_small(X)
        labels = y
        y, loss, m = self._encode_targets(y, reset)
        weight = self._apply_class_weights(labels, weight, X.dtype)
        if weight is not None:
            X, y, weight = nonzero_weight_rows(X, y, weight)
        y, loss = self._standardise_targets(y, weight, loss, reset or not hasattr(self, "theta_"))
        return X, y, loss, weight, m

    # --- the fit

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to the rows of X.

        Parameters
        ----------
        X : array_like or sparse matrix (N, k)
            The rows.
        y : array_like (N,) or (N, m)
            The targets, or the class labels.
        sample_weight : array_like (N,), optional
            A weight of 2 is equivalent to a repeated row, except that ``class_weight="balanced"``
            counts rows, and that `early_stopping` may hold out one of two repeated rows. A row of
            weight 0 is left out: a class without other rows is not in ``classes_``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter, the rows or the targets are invalid.
        KeyboardInterrupt
            On Ctrl-C. The fit so far is kept, and ``stopped_`` is "interrupted".
        """
        check_parameters(self)
        with self._replacing_fit():
            self._epochs = None
            self._fit(X, y, sample_weight)
        return self

    @contextmanager
    def _replacing_fit(self) -> Iterator[None]:
        """Forget what only the last fit determines. Restore all attributes if an error occurs
        before a network is stored.
        """
        before = vars(self).copy()
        for name in OPTIONAL_RESULTS:
            self.__dict__.pop(name, None)
        try:
            yield
        except BaseException:
            if vars(self).get("_fitted") is before.get("_fitted"):
                for name in vars(self).keys() - before.keys():
                    delattr(self, name)
                self.__dict__.update(before)
            raise

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> None:
        """Implement `fit` for checked parameters."""
        X, y, loss, weight, m = self._check_fit_data(X, y, sample_weight, True)
        rng = check_random_state(self.random_state)
        model = self._build_model(X.shape[1], m, X.dtype)
        held = None
        if self.early_stopping:
            (X, y, weight), rest = self._split_rows(X, y, weight, rng)
            held = self._build_objective(model, *rest[:2], loss, rest[2], 0.0)
        resumed = self.warm_start and getattr(self, "model_", None) == model
        fresh = self.solver == "auto" and not resumed
        long = fresh and "auto" in (self.alpha, self.tol)
        self._max_iter = self.max_iter or (DEFAULT_MAX_STEPS if long else DEFAULT_MAX_EPOCHS)
        theta = self._draw_start(model, y, weight, rng)
        choice = None
        if resumed:
            theta = np.array(self.theta_)
        self._deadline = None if self.max_time is None else time.monotonic() + self.max_time
        chosen = isinstance(self.alpha, str)
        ob = self._build_objective(model, X, y, loss, weight, 0.0 if chosen else None)
        if self.alpha == "evidence":
            theta = choose_alpha_by_evidence(self, ob, theta)
        elif self.alpha == "auto" and not resumed:
            if fresh and held is None:
                choice = self._choose_decay(ob, X, weight, theta)
            self.alpha_ = choice.alpha if choice else default_decay(loss)
        self.alpha_ = self._weight_decay
        if chosen:
            ob = ob.with_l2(self.alpha_ / (self._total * self._scale))
        self.training_ = (X, y, loss, weight), None, None
        self._run_solver(ob, theta, held, int(rng.randint(1 << 31)), choice)
        self._store_fitted_objective(ob)
        gradient = ob.gradient(self.theta_)
        self.training_ = (X, y, loss, weight), np.array(self.theta_), ob.value(self.theta_)
        warn_if_not_converged(self, X, self._scale * float(np.abs(gradient).max()))

    def _store_fitted_objective(self, ob: Objective) -> None:
        """Store the quantities that predictions need from the objective of a fit."""

    def _split_rows(self, X: Any, y: Any, weight: Any, rng: Any) -> list[tuple[Any, Any, Any]]:
        """Return (X, y, weight) of the training rows and of the held-out rows."""
        rows = np.arange(X.shape[0])
        lone = np.arange(0)
        labels = None
        if self._stratify and y.ndim == 1:
            _, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
            single = counts[codes] == 1  # the only row of a class is used for training
            rows, lone = rows[~single], rows[single]
            held = int(np.ceil(self.validation_fraction * len(rows)))
            if min(held, len(rows) - held) >= np.count_nonzero(counts > 1):
                labels = y[rows]  # there are enough held-out rows for all classes
        fitted, out = train_test_split(
            rows, test_size=self.validation_fraction, random_state=rng, stratify=labels
        )
        return [select_rows(r, X, y, weight) for r in (np.concatenate([fitted, lone]), out)]

    def _draw_start(self, model: MLP, y: Any, weight: Any, rng: Any) -> np.ndarray:
        seed = int(rng.randint(1 << 31))
        # scikit-learn's initialisation spreads the kinks and is best in benchmarks/estimators.py.
        theta = np.zeros(model.n_params, model.dtype)
        draw = np.random.default_rng(seed).uniform
        *hidden, (last, _) = layers_of(model, theta)
        for W, b in hidden:
            bound = np.sqrt(6 / sum(W.shape))
            W[:] = draw(-bound, bound, W.shape)
            b[:] = draw(-bound, bound, b.shape)
        last[:] = np.sqrt(6 / sum(last.shape)) * draw(-1, 1, last.shape)
        self._set_output_biases(model, theta, y, weight)
        return theta

    def _set_fitted(self, ob: Objective, runs: list[Any], past: Any = (), epochs: int = 0) -> None:
        """Set the attributes of a fitted estimator, with the losses of earlier epochs before those
        of this fit. After Ctrl-C, store the fit so far and raise KeyboardInterrupt.
        """
        last = runs[-1]
        self._store_weights(ob.model, last.x)
        self.loss_ = float(last.fun) * self._scale
        curves = [np.asarray(run.history["loss"], dtype=float) for run in runs]
        self.loss_curve_ = [*past, *(self._scale * np.concatenate(curves)).tolist()]
        self.best_loss_ = min(self.loss_curve_)
        self.n_iter_ = epochs + max(1, sum(int(run.nit) for run in runs))
        self.stopped_ = str(last.stopped)
        self.out_activation_ = out_activation(ob.loss)
        self.curvature_ = None
        if "validation" in last.history:
            held = np.concatenate([run.history["validation"] for run in runs])
            self.validation_loss_curve_ = (self._scale * held).tolist()
        self.n_layers_, self.n_outputs_ = len(self.model_.sizes), self.model_.sizes[-1]
        if self.stopped_ == "interrupted":
            raise KeyboardInterrupt

    def _run_epoch(self, X: Any, y: Any, first: bool) -> None:
        """Run one epoch on these rows from the current theta or, if `first`, from a new start."""
        whole = {
            "early_stopping=True": self.early_stopping,
            'class_weight="balanced"': isinstance(getattr(self, "class_weight", None), str),
            'alpha="evidence"': self.alpha == "evidence",
        }
        if any(whole.values()):
            which = next(name for name, given in whole.items() if given)
            raise ValueError(
                f"partial_fit does not support {which}, which needs all rows. Use fit."
            )
        if first:
            validate_data(self, X, skip_check_array=True)
        X, y, loss, weight, m = self._check_fit_data(X, y, None, False)
        if not first and m != self.model_.sizes[-1]:
            raise ValueError(f"y must have {self.model_.sizes[-1]} targets as before, got {m}.")
        rng = check_random_state(self.random_state)
        model = self._build_model(X.shape[1], m, X.dtype) if first else self.model_
        ob = self._build_objective(model, X, y, loss, weight)
        theta = self._draw_start(model, y, weight, rng) if first else self.theta_.copy()
        past = ([], 0) if first else (self.loss_curve_, self.n_iter_)
        problem = Problem(ob, np.random.default_rng(int(rng.randint(1 << 31)) + past[1]))
        method = METHODS[self.solver](**self._mini_batch_options(ob))
        state = method.init(problem, theta)
        solver, last = (None, None) if first or self._epochs is None else self._epochs
        # If the last call was `partial_fit` with the same solver, its state goes on.
        if last is not None and solver == self.solver:
            state = last.moved_to(theta, (state.f, state.g, state.gnorm))
        before = state.f
        state = method.step(problem, state)  # a step computes the value at its end
        if not (np.isfinite(state.f) and np.isfinite(state.theta).all()):
            raise ValueError(
                "partial_fit must end at finite parameters, but this epoch diverged. Lower "
                "learning_rate_init."
            )
        self._epochs = self.solver, state
        if state.f > MAX_EPOCH_LOSS_GROWTH * max(before, self._gradient_tol):
            warn_caller(
                f"partial_fit raised the loss of its rows from {before * self._scale:.3g} to "
                f"{state.f * self._scale:.3g}. Lower learning_rate_init.",
                ConvergenceWarning,
            )
        self.alpha_ = self._weight_decay
        losses = {"loss": [before, state.f]}
        end = SimpleNamespace(x=state.theta, fun=state.f, nit=1, stopped="max_iter", history=losses)
        self._set_fitted(ob, [end], *past)

    def _fitted_objective(self, call: str) -> Objective:
        """Return the objective of the last fit, built again from the stored rows. Raise ValueError
        if the rows were not stored, or if the rows or the parameters have changed since a fit that
        was not interrupted. `call` is the name of the public function, for the message.
        """
        if "training_" not in vars(self):
            raise ValueError(
                f"the estimator must hold the rows of its fit for {call}, but partial_fit does not "
                "store them. Call fit first."
            )
        rows, theta, value = self.training_
        ob = self._build_objective(self.model_, *rows)
        if theta is not None and not np.isclose(ob.value(theta), value, rtol=CHANGE_TOL, atol=0):
            raise ValueError(
                f"X, y, sample_weight and the parameters must be those of the fit for {call}, but "
                "they have changed since. Call fit again."
            )
        return ob

    def _cached_posterior(self, call: str) -> Any:
        """Return the `LaplacePosterior` of the fit, computed on first use. `call` is the name of
        the public function, for error messages.
        """
        known, post = vars(self).get("_posterior", (None, None))
        if known is None or not np.array_equal(known, self.theta_):
            post = laplace_of_fit(self, self._fitted_objective(call))
            self._posterior = np.array(self.theta_), post
        return post

    def _rows_in_domain(self, X: Any) -> np.ndarray:
        """Return a mask (N,) of the rows of X that lie inside the domain of the fit."""
        rows = self._check_rows(X)
        rows = rows.toarray() if is_sparse(rows) else rows
        return np.asarray(self._cached_posterior("return_domain=True").in_domain(rows))

    def next_rows(self, X: Any, k: int, at: Any = None) -> NextRows:
        """Choose the rows whose targets would lower the uncertainty of the predictions most.

        Parameters
        ----------
        X : array_like or sparse matrix (M, n_features)
            Rows that could be measured.
        k : int
            The number of rows to choose.
        at : array_like or sparse matrix (P, n_features), optional
            Rows at which predictions are wanted. By default X.

        Returns
        -------
        NextRows
            See `fastcurv.next_rows`.

        Raises
        ------
        ValueError
            As for `fastcurv.next_rows`, or if the estimator does not hold the rows of its fit.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> X = np.linspace(0.0, 1.0, 20)[:, None]
        >>> y = X[:, 0] + 0.1 * np.random.default_rng(0).standard_normal(20)
        >>> net = fc.MLPRegressor((), alpha=0.0, random_state=0).fit(X, y)
        >>> net.next_rows([[0.5], [2.0], [1.0]], 1).indices
        array([1])
        """
        rows = [self._check_rows(one) for one in ([X] if at is None else [X, at])]
        dense = [one.toarray() if is_sparse(one) else one for one in rows]
        return next_rows_of_posterior(self._cached_posterior("next_rows"), dense[0], k, *dense[1:])

    def _network_outputs(self, X: Any) -> np.ndarray:
        """Return the outputs before any softmax. Sparse rows are converted to dense blocks."""
        X = self._check_rows(X)
        if not is_sparse(X):
            return self.model_.predict(self._weights, X)
        step = max(1, DENSE_BLOCK_MAX_ENTRIES // X.shape[1])
        parts = (X[start : start + step].toarray() for start in range(0, X.shape[0], step))
        return np.concatenate([self.model_.predict(self._weights, part) for part in parts])

    def _check_rows(self, X: Any) -> Any:
        check_is_fitted(self, "theta_")
        kinds = (np.float64, np.float32)
        return validate_data(self, sanitise(X, "X"), accept_sparse="csr", dtype=kinds, reset=False)

    def objective(self, X: Any, y: Any, sample_weight: Any = None) -> Objective:
        """Return the objective that `fit` minimises, for the given rows.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        Objective
            Its value v at ``theta_`` gives ``loss_``: v / 2 for squared errors, v times the number
            of outputs for other losses of several targets or labels, and v otherwise.
        """
        check_is_fitted(self, "theta_")
        X, y, loss, weight, _ = self._check_fit_data(X, y, sample_weight, False)
        return self._build_objective(self.model_, X, y, loss, weight)
