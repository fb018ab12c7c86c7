"""The base class of both estimators: parameters, objective, fit by any solver, and attributes."""

from __future__ import annotations

import numbers
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
from scipy.sparse.linalg import LinearOperator
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    _num_samples,
    check_is_fitted,
    validate_data,
)

from ...common.checks import (
    as_numpy,
    check_choice,
    check_positive,
    check_positive_int,
    is_iterable,
    is_sparse,
    short_repr,
)
from ...common.errors import type_phrase
from ...common.objectives import budgeted_hessian
from ...common.protocols import Descent
from ...common.sentences import FIT_AUDIENCE
from ...critical.classify import classify
from ...critical.report import for_audience
from ...krylov.lanczos import Recurrence, combine_basis_rows
from ...network.arguments import as_owned_csr
from ...network.mlp import MLP
from ...network.objective import Objective
from ...optimize.escape import escape
from ...optimize.minimize import METHOD_ALIASES, METHODS, STOCHASTIC_METHODS, minimize
from ...optimize.run import Run
from ...structure.tables import LossName, activation_spec, activations_in_library, loss_spec
from ...structure.user_functions import Activation, Loss
from ..uncertainty.next_rows import NextRows, next_rows_of_posterior
from .evidence import FitPosterior, choose_alpha_by_evidence, laplace_of_fit, posterior_of_fit
from .held_out import DEFAULT_DECAY, MAX_ITER_PER_ALPHA, DecayChoice, choose_decay, held_out_mask
from .input_slopes import InputSlopesMixin
from .shown import FitReprMixin
from .sizes import can_search_in_float32, default_n_pairs, default_n_threads, densify_if_small
from .weights import FittedWeightsMixin

# --------------------------------------------------------------------------------------------------
# Choices that depend on problem sizes, and messages, shared by both estimators.

DENSE_BLOCK_MAX_ENTRIES = 1 << 22  # maximum number of entries of a dense block of sparse rows
PRECOND_MIN_FLOPS = 4_000_000  # minimum flops of a gradient at which preconditioning is used


def sanitise(x: Any, name: str) -> Any:
    """Return `x`, the argument `name`, in a form that scikit-learn can safely read: masked values
    raise an error, and the indices of sparse matrices are checked.
    """
    hidden = isinstance(x, np.ma.MaskedArray) or getattr(x, "requires_grad", False) is True
    if is_sparse(x):
        return as_owned_csr(x, name)
    return as_numpy(x, name) if hidden else x


MIN_FEATURE_RANGE, MAX_FEATURE_SD = 0.03, 30.0  # limits for a feature that counts as scaled
MIN_ROWS_FOR_SCALE = 10  # minimum number of rows at which the scale of a feature is estimated


def unscaled_features(X: Any) -> list[int]:
    """Return the indices of columns of X that are too large, too small, or far from 0."""
    if X.shape[0] < MIN_ROWS_FOR_SCALE:
        return []
    if is_sparse(X):  # a sparse column contains 0, so that none is far from 0
        return np.flatnonzero(abs(X).max(axis=0).toarray().ravel() > 4 * MAX_FEATURE_SD).tolist()
    low, high = X.min(axis=0).astype(float), X.max(axis=0).astype(float)
    reach, nearest = high - low, np.maximum(np.maximum(low, -high), 0.0)
    with np.errstate(over="ignore"):
        large = (X.std(axis=0, dtype=float) > MAX_FEATURE_SD) | (nearest > reach)
    return np.flatnonzero((reach > 0) & (large | (reach < MIN_FEATURE_RANGE))).tolist()


SUCCESSFUL_STOP_REASONS = ("callback", "held_out", "patience", "critical")
WARNING_ADVICE = {
    "max_iter": "increase max_iter",
    "max_time": "increase max_time",
    "diverged": "lower learning_rate_init",
    "stalled": "use a float64 X and scaled features",
    "slow": "scale the features or increase alpha",
}


def warn_if_not_converged(est: Any, X: Any, gradient: float) -> None:
    """Warn once of a gradient above its tolerance at the end of a fit, or of unscaled features."""
    kinks = est.alpha_ > 0 and any(activation_spec(n).like_relu for n in est.model_.activation)
    ended = est.stopped_ not in SUCCESSFUL_STOP_REASONS and gradient > est._gradient_tol
    # The fit may have reached a minimum at active kinks, where no gradient is small.
    if est.stopped_ in ("stalled", "slow") and kinks:
        ended = False
    far = unscaled_features(X)
    if not (ended or far):
        return
    parts = []
    if ended:
        limit = {"max_iter": est._max_iter, "max_time": est.max_time}.get(est.stopped_)
        why = f"{est.stopped_}={limit}" if limit is not None else f"stopped_={est.stopped_!r}"
        parts.append(
            f"{type(est).__name__} ended at {why} with a gradient of {gradient:.2g}, above "
            f"tol={est._gradient_tol:g}. To converge, "
            f"{WARNING_ADVICE.get(est.stopped_, 'increase max_iter')}."
        )
    if far:
        names = getattr(est, "feature_names_in_", None)
        shown = ", ".join(str(i if names is None else names[i]) for i in far[:5])
        more = f" and {len(far) - 5} more" if len(far) > 5 else ""
        parts.append(
            f"Features {shown}{more} are far from zero mean and unit variance. Scale them, as with "
            "sklearn.preprocessing.StandardScaler."
        )
    warnings.warn(" ".join(parts), ConvergenceWarning, stacklevel=4)


def supports_partial_fit(estimator: Any) -> bool:
    """Return True if the solver of an estimator uses mini-batches, which `partial_fit` requires."""
    return estimator.solver in STOCHASTIC_METHODS


# --------------------------------------------------------------------------------------------------
# Validation of the estimators' parameters in `fit`.
SOLVER_NAMES = ("auto", *METHOD_ALIASES, *METHODS)
SKLEARN_LOSSES = ("squared_error", "poisson")  # losses of scikit-learn's MLPRegressor
CHECK_NOT_NEGATIVE = partial(check_positive, zero=True)
# Key: a parameter. Value: its check, and the requirement if "auto" is also allowed, else None.
PARAMETER_CHECKS: dict[str, tuple[Any, str | None]] = {
    "alpha": (CHECK_NOT_NEGATIVE, "a number >= 0"),
    "max_iter": (check_positive_int, None),
    "tol": (CHECK_NOT_NEGATIVE, "a number >= 0"),
    "n_iter_no_change": (check_positive_int, ""),
    "batch_size": (check_positive_int, "an int >= 1"),
    "learning_rate_init": (check_positive, None),
    "max_time": (check_positive, None),
}


def check_parameters(est: Any) -> None:
    """Raise ValueError or TypeError for the first invalid parameter."""
    check_choice(est.solver, SOLVER_NAMES, "solver")
    for name, (check, instead) in PARAMETER_CHECKS.items():
        given = getattr(est, name)
        words = ("auto", "evidence") if name == "alpha" else ("auto",)
        if instead and isinstance(given, str) and given not in words:
            named = ", ".join(map(repr, words))
            raise ValueError(f"{name} must be {named} or {instead}, got {short_repr(given)}.")
        if not (given is None and instead is None or isinstance(given, str) and instead):
            check(given, name)
    if not (isinstance(est.verdict, (bool, np.bool_, int)) or est.verdict == "quick"):
        raise ValueError(f"verdict must be 'quick', True or False, got {short_repr(est.verdict)}.")
    if est.early_stopping and check_positive(est.validation_fraction, "validation_fraction") >= 1:
        raise ValueError(
            f"validation_fraction must be a number between 0 and 1, got {est.validation_fraction}."
        )


def hidden_layers(sizes: Any, activation: Any) -> tuple[list[int], list[Any]]:
    """Return the widths of the hidden layers, and an activation of this library for each.

    Examples
    --------
    >>> hidden_layers((5, 3), "logistic")
    ([5, 3], ['sigmoid', 'sigmoid'])
    """
    if not isinstance(sizes, numbers.Integral) and (
        isinstance(sizes, str) or not is_iterable(sizes)
    ):
        cure = ""
        if isinstance(sizes, str) and sizes in SKLEARN_LOSSES:
            cure = f" It is the first argument. Use loss={sizes!r} for a loss."
        raise TypeError(
            f"hidden_layer_sizes must be an int >= 1 or several, got {short_repr(sizes)}.{cure}"
        )
    hidden: list[Any] = [sizes] if isinstance(sizes, numbers.Integral) else list(sizes)
    if not all(isinstance(width, numbers.Integral) and int(width) > 0 for width in hidden):
        raise ValueError(f"hidden_layer_sizes must be ints >= 1, got {short_repr(sizes)}.")
    alone = isinstance(activation, (str, Activation))
    if not alone and not is_iterable(activation):
        raise TypeError(
            "activation must be a name, an fc.Activation, or one for each layer, got "
            f"{type_phrase(activation)}."
        )
    names = [activation] * len(hidden) if alone else list(activation)
    theirs = activations_in_library("sklearn")
    return hidden, [
        theirs.get(name, (name,))[0] if isinstance(name, str) else name for name in names
    ]


# --------------------------------------------------------------------------------------------------
# The curvature at the end of a fit: a cheap estimate of both ends of the spectrum, or the verdict.

MAX_CHECK_PRODUCTS = 40  # maximum number of Hessian products of the check of the spectrum
MIN_CHECK_PRODUCTS = 4  # minimum number of Hessian products of the check of the spectrum
MAX_RESOLVED_RESIDUAL = 1e-2  # maximum residual of a resolved end of the spectrum, over ||H||
START_VECTOR_SEED = 7  # fixed seed of the start vector, so that equal fits give equal results


@dataclass(frozen=True, repr=False)
class SpectrumCheck:
    """Estimates of both ends of the Hessian's spectrum at the end of a fit.

    Attributes
    ----------
    kind : str
        ``not_critical`` if the gradient is above the fit's tolerance; otherwise ``saddle`` if the
        lowest Ritz value is negative by more than its error bound, else ``undecided``, since so few
        products cannot prove a minimum.
    gradient_norm : float
        Largest entry of the gradient, on the scale of ``loss_``.
    lambda_min, lambda_max : float
        Lowest and highest Ritz value.
    residuals : tuple of float
        Bounds on the distance of each Ritz value from an eigenvalue, for exact products. The
        rounding of products in the dtype of the fit is included only if `kind` is ``saddle``.
    n_products : int
        Number of Hessian products: at most a sixth of the fit's gradients, but from 4 to 40.
    """

    kind: str
    gradient_norm: float
    lambda_min: float
    lambda_max: float
    residuals: tuple[float, float]
    n_products: int

    def __repr__(self) -> str:
        return f"SpectrumCheck(kind={self.kind!r}, n_products={self.n_products}): {self.reason}"

    @property
    def has_negative_curvature(self) -> bool:
        """True if the lowest Ritz value is negative by more than its error bound."""
        return self.lambda_min + self.residuals[0] < 0

    @property
    def is_resolved(self) -> bool:
        """True if the error bounds are at most 1% of the largest absolute Ritz value."""
        size = max(abs(self.lambda_min), abs(self.lambda_max))
        return max(self.residuals) <= MAX_RESOLVED_RESIDUAL * size

    @property
    def reason(self) -> str:
        """A sentence on the gradient and the curvature that were found."""
        ends = (
            f"curvature from {self.lambda_min:.3g} (+- {self.residuals[0]:.1g}) to "
            f"{self.lambda_max:.3g} by {self.n_products} products"
        )
        if not self.is_resolved:
            ends += (
                ", too few to bound the lowest eigenvalue; verdict=True spends as many as it takes"
            )
        if self.kind == "not_critical":
            return f"The gradient, up to {self.gradient_norm:.3g}, is above tol; {ends}."
        if self.kind == "saddle":
            return f"The gradient is within tol, and a descent direction was found: {ends}."
        return f"The gradient is within tol, and no descent direction was found: {ends}."


def check_spectrum(
    ob: Any, theta: np.ndarray, scale: float, tol: float, products: int = MAX_CHECK_PRODUCTS
) -> tuple[SpectrumCheck, np.ndarray]:
    """Estimate both ends of the spectrum of an objective's Hessian by at most `products` products.

    Return the estimate and the lowest Ritz vector. `scale` converts values of the objective to
    those of ``loss_``, to which `tol`, the tolerance on the gradient, refers.
    """
    size = scale * float(np.abs(ob.gradient(theta)).max())
    most = min(max(products, MIN_CHECK_PRODUCTS), MAX_CHECK_PRODUCTS, len(theta))
    values, residuals, vector, spent = extreme_ritz_values(ob, theta, most)
    low, high = scale * float(values[0]), scale * float(values[-1])
    under = float(np.finfo(theta.dtype).tiny)  # bound on the underflow in products
    errors = scale * (float(residuals[0]) + under), scale * (float(residuals[-1]) + under)
    near = size <= tol
    if near and low + errors[0] < 0:  # negative curvature must exceed its rounding error
        H = budgeted_hessian(ob, theta, best=False)
        H.norm = float(np.abs(values).max())  # norm for the rounding error of a product
        errors = errors[0] + scale * H.product_error_bound(vector), errors[1]
    kind = "not_critical" if not near else "saddle" if low + errors[0] < 0 else "undecided"
    return SpectrumCheck(kind, size, low, high, errors, spent), vector


def extreme_ritz_values(ob: Any, theta: np.ndarray, most: int) -> tuple[Any, Any, np.ndarray, int]:
    """Run Lanczos from a random vector for the lowest and the highest Ritz value of the Hessian.

    Return both values, bounds on their errors, the lowest Ritz vector, and the number of products,
    which is at most `most`, and smaller if both ends are resolved.
    """
    n = len(theta)
    # `hessp` reuses the state at the end of the fit; a new operator would cost more than products.
    H = LinearOperator((n, n), matvec=lambda v: ob.hessp(theta, v), dtype=theta.dtype)
    run = Recurrence(H, most)
    run.insert_random(np.random.default_rng(START_VECTOR_SEED))
    while True:
        run.step()
        ended = not run.p or run.m >= most
        if ended or run.m % MIN_CHECK_PRODUCTS == 0:
            values, S, residuals, limits = run.ritz_pairs(2, "BE")
            if ended or residuals.max() <= MAX_RESOLVED_RESIDUAL * np.abs(values).max():
                break
    run.reorthogonalise()
    vector = combine_basis_rows(run.rows[: run.m], S[:, :1])[0]
    return values, limits, vector, run.n_products


MIN_SADDLE_CURVATURE = 1e-2  # minimum |lambda_min| / |lambda_max| for an escape from a saddle
# default max_iter with "auto" decay or tol, and without
DEFAULT_MAX_STEPS, DEFAULT_MAX_EPOCHS = 2000, 200
MAX_EPOCH_LOSS_GROWTH = 3.0  # maximum growth factor of the loss in `partial_fit`
MAX_TRUST_REGION_STEPS = 25  # maximum number of trust-region steps after L-BFGS has stalled
AUTO_GRADIENT_TOL = 1e-4  # maximum entry of a gradient that counts as 0 if tol is "auto"
GRADIENTS_PER_PRODUCT = 6  # number of gradients of the fit for each Hessian product of the check
MAX_SADDLE_ESCAPES = 4  # maximum number of saddles that "auto" escapes from


def select_rows(rows: np.ndarray, X: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Return the rows of X with the given indices or mask, their targets and weights."""
    return X[rows], y[rows], None if weight is None else weight[rows]


def nonzero_weight_rows(X: Any, y: Any, weight: np.ndarray) -> tuple[Any, Any, Any]:
    """Return the rows of positive weight, with targets and weights. Raise ValueError for none."""
    kept = weight > 0
    if not kept.any():
        raise ValueError(
            "sample_weight must be positive for at least one row, got zero for all rows."
        )
    return (X, y, weight) if kept.all() else select_rows(kept, X, y, weight)


def scored_rows(X: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Return the rows to score, without those of weight 0, with their targets and weights."""
    w = None if weight is None else np.asarray(weight)
    if w is None or w.ndim != 1 or w.dtype.kind not in "biuf" or w.all() or not w.any():
        return X, y, weight
    if not len(w) == _num_samples(X) == _num_samples(y):
        return X, y, weight  # scikit-learn raises an error for these lengths
    kept = np.flatnonzero(w)
    return _safe_indexing(X, kept), _safe_indexing(y, kept), w[kept]


class BaseMLP(
    InputSlopesMixin,
    FittedWeightsMixin,
    FitReprMixin,
    BaseEstimator,
):
    """Parameters, fit and attributes of both estimators; see `MLPClassifier`."""

    _total: float
    _max_iter: int  # maximum number of iterations, after "auto" and None are resolved
    _scale: float
    _deadline: float | None
    curvature_: Any
    # (rows of the last fit for `_build_objective`, theta at its end, gradient there or None)
    _training: tuple[Any, Any, Any]
    _posterior: FitPosterior  # posterior of the fit, computed on first use
    _epochs: Any  # solver of `partial_fit` and its state
    _stratify = False

    def _store_arguments(self, given: dict[str, Any]) -> None:
        """Store the arguments of `__init__`, in ``locals()``, as attributes of these names."""
        self.__dict__.update((name, x) for name, x in given.items() if name != "self")

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
        with np.errstate(over="ignore"):
            total = float(X.shape[0] if weight is None else weight.sum(dtype=float))
        if not 1e-290 <= total <= 1e305:  # quotients by the sum must neither overflow nor underflow
            raise ValueError(
                f"sample_weight must have a sum from 1e-290 to 1e305, got {total:.3g}."
            )
        self._total = total
        self._scale = loss_spec(loss).sklearn[1](model.sizes[-1])
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
        X, y, weight = sanitise(X, "X"), sanitise(y, "y"), sanitise(weight, "sample_weight")
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
            weight = _check_sample_weight(weight, X, dtype=X.dtype, ensure_non_negative=True)
            X, y, weight = nonzero_weight_rows(X, y, weight)  # rows of weight 0 add no class
        X, labels = densify_if_small(X), y
        y, loss, m = self._encode_targets(y, reset)
        weight = self._apply_class_weights(labels, weight, X.dtype)
        if weight is not None:
            X, y, weight = nonzero_weight_rows(X, y, weight)
        y, loss = self._standardise_targets(y, weight, loss, reset or not hasattr(self, "theta_"))
        return X, y, loss, weight, m

    # --- the fit

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None
    ) -> Self:
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
        X_val, y_val : array_like, optional
            Rows for early stopping, instead of a fraction of X; needs ``early_stopping=True``.

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
        with self._restore_fit_on_error():
            self._epochs = None
            self._fit(X, y, sample_weight, X_val, y_val)
        return self

    @contextmanager
    def _restore_fit_on_error(self) -> Iterator[None]:
        """Restore the attributes of the last fit if an error occurs before a network is stored."""
        before = vars(self).copy()
        try:
            yield
        except BaseException:
            if vars(self).get("_stored") is before.get("_stored"):
                for name in vars(self).keys() - before.keys():
                    delattr(self, name)
                self.__dict__.update(before)
            raise

    def _fit(self, X: Any, y: Any, sample_weight: Any, X_val: Any, y_val: Any) -> None:
        """Implement `fit` for checked parameters."""
        X, y, loss, weight, m = self._check_fit_data(X, y, sample_weight, True)
        rng = check_random_state(self.random_state)
        model = self._build_model(X.shape[1], m, X.dtype)
        held = None
        if (X_val is None) != (y_val is None):
            only = "X_val" if y_val is None else "y_val"
            raise ValueError(f"X_val and y_val must be given together, got only {only}.")
        if X_val is not None and not self.early_stopping:
            raise ValueError("early_stopping must be True if X_val and y_val are given, got False.")
        if self.early_stopping:
            if X_val is None:
                (X, y, weight), rest = self._split_rows(X, y, weight, rng)
            else:
                rest = (*self._check_fit_data(X_val, y_val, None, False)[:2], None)
            held = self._build_objective(model, *rest[:2], loss, rest[2], 0.0)
        resumed = self.warm_start and getattr(self, "model_", None) == model
        fresh = self.solver == "auto" and not resumed
        long = fresh and "auto" in (self.alpha, self.tol)
        self._max_iter = self.max_iter or (DEFAULT_MAX_STEPS if long else DEFAULT_MAX_EPOCHS)
        theta, choice = self._draw_start(model, y, weight, rng), None
        if resumed:
            theta = np.array(self.theta_)
        self._deadline = None if self.max_time is None else time.monotonic() + self.max_time
        if self.alpha == "evidence":
            ob = self._build_objective(model, X, y, loss, weight, 0.0)
            theta = choose_alpha_by_evidence(self, ob, theta)
        elif self.alpha == "auto" and not resumed:
            if fresh and held is None:
                choice = self._choose_decay(model, X, y, loss, weight, theta)
            self.alpha_ = choice.alpha if choice else DEFAULT_DECAY
        self.alpha_ = self._weight_decay
        ob = self._build_objective(model, X, y, loss, weight)
        self._training = (X, y, loss, weight), None, None
        self._run_solver(ob, theta, held, int(rng.randint(1 << 31)), choice)
        self._store_fitted_objective(ob)
        gradient = ob.gradient(self.theta_)
        self._training = (X, y, loss, weight), np.array(self.theta_), gradient
        warn_if_not_converged(self, X, self._scale * float(np.abs(gradient).max()))

    def _store_fitted_objective(self, ob: Objective) -> None:
        """Store the quantities that predictions need from the objective of a fit."""
        self.__dict__.pop("_posterior", None)

    def _split_rows(self, X: Any, y: Any, weight: Any, rng: Any) -> list[tuple[Any, Any, Any]]:
        """Return (X, y, weight) of the training rows and of the held-out rows."""
        rows, lone, labels = np.arange(X.shape[0]), np.arange(0), None
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

    def _choose_decay(
        self, model: MLP, X: Any, y: Any, loss: LossName | Loss, weight: Any, theta: np.ndarray
    ) -> DecayChoice | None:
        """Return the weight decay chosen on held-out rows, or None if there are too few rows."""
        out = held_out_mask(X)
        if out is None:
            return None
        if can_search_in_float32(X, y, model.n_params):
            model, theta = model.astype(np.float32), theta.astype(np.float32)
        X_held, y_held, w_held = select_rows(out, X, y, weight)
        held, count = self._build_objective(model, X_held, y_held, loss, w_held, 0.0), self._total
        rest = select_rows(~out, X, y, weight)
        steps, options = min(MAX_ITER_PER_ALPHA, self._max_iter), {"validation": None, "seed": 0}

        def objective_for_decay(alpha: float) -> Objective:
            return self._build_objective(model, *rest[:2], loss, rest[2], alpha)

        def minimise(ob: Objective, theta: np.ndarray, watch: Any) -> Any:
            return self._run_one_solver(ob, theta, "l-bfgs", steps, options, watch)

        return choose_decay(objective_for_decay, held, theta, minimise, count)

    def _draw_start(self, model: MLP, y: Any, weight: Any, rng: Any) -> np.ndarray:
        seed = int(rng.randint(1 << 31))
        # scikit-learn's initialisation spreads the kinks and is best in benchmarks/estimators.py.
        theta, draw = np.zeros(model.n_params, model.dtype), np.random.default_rng(seed).uniform
        *hidden, (last, _) = model.unflatten(theta)
        for W, b in hidden:
            bound = np.sqrt(6 / sum(W.shape))
            W[:], b[:] = draw(-bound, bound, W.shape), draw(-bound, bound, b.shape)
        last[:] = np.sqrt(6 / sum(last.shape)) * draw(-1, 1, last.shape)
        self._set_output_biases(model, theta, y, weight)
        return theta

    def _run_solver(
        self, ob: Objective, theta: np.ndarray, held: Any, seed: int, choice: DecayChoice | None
    ) -> None:
        """Minimise `ob` from theta with the solver, and set the fitted attributes. `held` is the
        objective of held-out rows, `choice` the chosen weight decay.
        """
        solver: Descent = "l-bfgs" if self.solver == "auto" else self.solver
        options: dict[str, Any] = {"validation": held, "seed": seed}
        if held is not None:
            options["patience"] = self.n_iter_no_change
        if solver in STOCHASTIC_METHODS:
            runs = [self._fit_by_batches(ob, theta, solver, held, seed)]
        elif choice is None:
            runs = [self._run_one_solver(ob, theta, solver, self._max_iter, options)]
        else:
            runs = self._refit_chosen_decay(ob, choice, options)
        seen: Any = None
        if self.solver == "auto" and held is None:
            seen = self._continue_training(ob, runs, options)
        self._set_fitted(ob, runs)
        if self.verdict == "quick" and seen is None:
            spent = sum(run.nfev if solver not in STOCHASTIC_METHODS else run.nit for run in runs)
            seen, _ = check_spectrum(
                ob, self.theta_, self._scale, self._gradient_tol, spent // GRADIENTS_PER_PRODUCT
            )
        elif self.verdict != "quick":
            seen = self._classify_final_point(ob) if self.verdict else None
        self.curvature_ = seen

    def _classify_final_point(self, ob: Objective) -> Any:
        """Return the verdict on theta_, within the remainder of max_time."""
        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 1e-3)
        point = classify(ob, self.theta_, max_time=left, progress=False)
        return for_audience(point, FIT_AUDIENCE)

    def _refit_chosen_decay(
        self, ob: Objective, choice: DecayChoice, options: dict[str, Any]
    ) -> list[Any]:
        """Run L-BFGS on all rows from the best point of the chosen decay, to the loss of the fitted
        rows at that point. Run to convergence if that fit converged or `tol` is a number.
        """
        if choice.run.stopped == "interrupted":
            return [choice.run]
        cut = choice.run.stopped == "max_iter" and not choice.is_overfitting
        early, reached = choice.is_overfitting or cut, choice.objective_at_best
        steps, reaches_goal = self._max_iter, None
        if self.tol == "auto":  # convergence to active kinks would take all iterations
            steps = min(steps, choice.max_final_steps)
            reaches_goal = (lambda at: at.fun <= reached) if early else None
        theta = choice.watch.theta.astype(ob.dtype)
        run = self._run_one_solver(ob, theta, "l-bfgs", steps, options, reaches_goal)
        if self.tol == "auto" and (run.stopped == "max_iter" or early and run.fun <= reached):
            short = self._max_iter < MAX_ITER_PER_ALPHA and (cut or run.nit >= self._max_iter)
            run.stopped = "max_iter" if short else "held_out"
        return [choice.run, run]

    def _rows_per_gradient(self, rows: int) -> int:
        """Return the number of rows of a gradient: of a mini-batch, or all `rows`."""
        size = 200 if self.batch_size == "auto" else self.batch_size
        return min(size, rows) if self.solver in STOCHASTIC_METHODS else rows

    def _mini_batch_options(self, ob: Objective) -> dict[str, Any]:
        """Return the options `batch_size` and, if given, `learning_rate` of mini-batch solvers."""
        rate = self.learning_rate_init
        known = {} if rate is None else {"learning_rate": rate}
        return {"batch_size": self._rows_per_gradient(ob.n_samples)} | known

    def _fit_by_batches(
        self, ob: Objective, theta: np.ndarray, solver: Descent, held: Any, seed: int
    ) -> Any:
        """Run a mini-batch solver, and return the result at its best point.

        An epoch is scored by the loss of the held-out rows or by the mean loss of its batches, each
        at the theta at which it was used, since evaluating the loss of all rows at the end would
        take half as long as the epoch.
        """
        small = 0.0 if held is not None else self._gradient_tol / self._scale
        losses = [ob.value(theta)]
        scores = losses[:] if held is None else [held.value(theta)]
        best, lowest, idle = theta.copy(), scores[0], 0

        def has_no_progress(at: Any) -> bool:
            nonlocal best, lowest, idle
            score = loss = float(at.fun)
            if held is not None and loss < np.inf:
                score = held.value(at.x)
            losses.append(loss)
            scores.append(score)
            idle = 0 if score < lowest - small else idle + 1
            if score < lowest:
                best, lowest = at.x, score
            return bool(idle >= self.n_iter_no_change)

        options = {"validation": None, "seed": seed, "record_every": self._max_iter + 1}
        options |= self._mini_batch_options(ob)
        run = self._run_one_solver(ob, theta, solver, self._max_iter, options, has_no_progress)
        if lowest == scores[0] and not losses[-1] <= losses[0]:  # no epoch improved the score
            run.stopped = "diverged"
        run.x, run.fun, run.history = best, ob.value(best), {"loss": losses}
        if held is not None:
            run.history["validation"] = scores
        return run

    def _continue_training(
        self, ob: Objective, runs: list[Any], options: dict[str, Any]
    ) -> SpectrumCheck | None:
        """Continue after L-BFGS: by trust-region steps if it stalled, and by an escape from a
        saddle. Append the runs to `runs`. Return the last check of the spectrum, or None.
        """
        for _ in range(MAX_SADDLE_ESCAPES):
            left = self._max_iter - sum(run.nit for run in runs)
            if left > 0 and runs[-1].stopped == "stalled":
                steps = min(left, MAX_TRUST_REGION_STEPS)
                runs.append(self._run_one_solver(ob, runs[-1].x, "trust-region", steps, options))
                left -= runs[-1].nit
                if left > 0 and runs[-1].stopped == "max_iter":
                    runs[-1].stopped = "stalled"
            if runs[-1].stopped == "interrupted":
                return None
            spent = sum(run.nfev for run in runs)
            seen, down = check_spectrum(
                ob, runs[-1].x, self._scale, self._gradient_tol, spent // GRADIENTS_PER_PRODUCT
            )
            low, high, saddle = seen.lambda_min, seen.lambda_max, seen.kind == "saddle"
            if left <= 0 or not (saddle and low < -MIN_SADDLE_CURVATURE * abs(high)):
                return seen
            lower = escape(ob, runs[-1].x, down)
            if not lower.fun < runs[-1].fun:
                return seen
            runs.append(self._run_one_solver(ob, lower.x, "l-bfgs", left, options))
        return None

    def _run_one_solver(
        self, ob: Any, theta: Any, solver: Descent, max_iter: int, options: Any, watch: Any = None
    ) -> Any:
        """Run one solver until no entry of the gradient of ``loss_`` exceeds tol, or `watch`
        returns True for a point. Return the result at the point where the gradient met tol, if it
        did, and not at an earlier point whose loss is lower by rounding.
        """
        small, last = self._gradient_tol / self._scale, []

        def has_converged(intermediate_result: Any) -> bool:
            ended = watch is not None and watch(intermediate_result)
            if solver in STOCHASTIC_METHODS:
                return ended
            g = getattr(intermediate_result, "jac", None)
            within = g is not None and max(g.max(), -g.min()) <= small
            if within and options["validation"] is None:
                last.append((np.array(intermediate_result.x), float(intermediate_result.fun)))
            return ended or within

        if solver == "l-bfgs" and watch is None:  # runs with early stopping need fewer pairs
            options = options | {"memory": default_n_pairs(ob.n_params, ob.n_samples)}
            # Preconditioning by layers saves no time for classifiers, which need few steps.
            numbers = loss_spec(ob.loss).targets == "numbers" and not is_sparse(ob.X)
            options["precondition"] = numbers and 6 * ob.n_samples * ob.n_params > PRECOND_MIN_FLOPS
        if self._deadline is not None:
            options = options | {"max_time": max(self._deadline - time.monotonic(), 1e-3)}
        run: Any = minimize(
            ob,
            theta,
            solver,
            max_iter=max_iter,
            gradient_tol=0,
            callback=has_converged,
            verdict=False,
            progress=bool(self.verbose),
            **options,
        )
        if run.stopped == "callback":
            if last:
                run.x, run.fun = last[-1]
            elif solver in STOCHASTIC_METHODS:
                run.stopped = "patience"
        return run

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
        self.stopped_, self.out_activation_ = str(last.stopped), loss_spec(ob.loss).sklearn[0]
        self.curvature_ = None
        self.__dict__.pop("validation_loss_curve_", None)
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
        run = Run(ob, theta, np.random.default_rng(int(rng.randint(1 << 31)) + past[1]))
        method = METHODS[self.solver](run, **self._mini_batch_options(ob))
        solver, *state = (None,) if first or self._epochs is None else self._epochs
        if solver == self.solver:  # the last call was `partial_fit` with the same solver
            method.load(*state)
        run.evaluate_at_theta()
        before = run.f
        method.step()  # a step computes the value at its end
        if not (np.isfinite(run.f) and np.isfinite(run.theta).all()):
            raise ValueError(
                "partial_fit must end at finite parameters, but this epoch diverged. Lower "
                "learning_rate_init."
            )
        self._epochs = (self.solver, *method.state())
        if run.f > MAX_EPOCH_LOSS_GROWTH * max(before, self._gradient_tol):
            warnings.warn(
                f"partial_fit raised the loss of its rows from {before * self._scale:.3g} to "
                f"{run.f * self._scale:.3g}. Lower learning_rate_init.",
                ConvergenceWarning,
                stacklevel=3,
            )
        self.alpha_ = self._weight_decay
        self.__dict__.pop("_training", None)
        losses = {"loss": [before, run.f]}
        end = SimpleNamespace(x=run.theta, fun=run.f, nit=1, stopped="max_iter", history=losses)
        self._set_fitted(ob, [end], *past)

    def _fitted_objective(self, call: str) -> Objective:
        """Return the objective of the last fit, built again from the stored rows. Raise ValueError
        if the rows were not stored, or if the rows or the parameters have changed since a fit that
        was not interrupted. `call` is the name of the public function, for the message.
        """
        if "_training" not in vars(self):
            raise ValueError(
                f"the estimator must hold the rows of its fit for {call}, but they are not stored "
                "after partial_fit, copying or pickling. Call fit first."
            )
        rows, theta, gradient = self._training
        ob = self._build_objective(self.model_, *rows)
        if theta is not None and not np.array_equal(ob.gradient(theta), gradient):
            raise ValueError(
                f"X, y, sample_weight and the parameters must be those of the fit for {call}, but "
                "they have changed since. Call fit again."
            )
        return ob

    def _cached_posterior(self, call: str) -> FitPosterior:
        """Return the posterior of the fit, computed on first use. `call` is the name of the public
        function, for error messages.
        """
        theta, known = self.theta_, vars(self).get("_posterior")
        if known is None or not np.array_equal(known.theta, theta):
            ob = self._fitted_objective(call)
            known = self._posterior = posterior_of_fit(self, ob)
        return known

    def _rows_in_domain(self, X: Any) -> np.ndarray:
        """Return a mask (N,) of the rows of X that lie inside the domain of the fit."""
        rows = self._check_rows(X)
        rows = rows.toarray() if is_sparse(rows) else rows
        posterior = self._cached_posterior("return_domain=True")
        return posterior.in_domain(self.model_, rows)

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
        post = laplace_of_fit(self, self._fitted_objective("next_rows"))
        return next_rows_of_posterior(post, dense[0], k, *dense[1:])

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
