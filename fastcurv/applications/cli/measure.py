"""Numbers of the HTML report on a fitted network (`fastcurv.report`): each row predicted without
itself, the minimum, folds, and a linear model.

Predictions of left-out rows come from one factor of the Hessian at the minimum, if refits agree
with them. Refits from new random starts can end in other minima and predict worse, so some of ten
folds are always refitted. If the score of the folds differs by more than `MAX_SCORE_GAP`, or if the
fit is no minimum with a positive definite Hessian, the predictions by folds are used instead.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from ...common.protocols import Floats, Indices
from ...common.runtime import raise_if_interrupted
from ...critical.classify import classify
from ...critical.report import CriticalPoint
from ...network.mlp import MLP
from ...network.objective import Objective
from ...optimize.minimize import minimize
from ...structure.parameters import has_kinks
from ...structure.tables import loss_spec
from ..convert.sklearn import loss_ratio
from ..uncertainty.left_out import LeftOut, leave_one_out
from ..uncertainty.path import without_inactive_units
from .tables import MIN_TABLE_ROWS

# maximum relative difference of the loss of the given rows from that of the fit
MAX_LOSS_CHANGE = 1e-3
# minimum probability whose logarithm is taken; smaller ones are replaced by this one
MIN_PROBABILITY = 1e-15
N_SCORE_FOLDS = 10  # number of folds into which the rows are divided
# maximum difference between the scores of left-out rows by the approximation and by refits: 0.03
# minus the scatter of scores from ten folds, which is about 0.01 for 600 rows
MAX_SCORE_GAP = 0.02
# maximum change of the score between the fit and the minimum near it
MAX_SCORE_CHANGE = 0.01
# minimum number of rows left out for intervals whose width follows the prediction
MIN_SPREAD_ROWS = 60
# minimum rank correlation of the errors of these rows with their predictions
MIN_SPREAD_CORRELATION = 0.2
CONSTANT_SPREAD = (1.0, 0.0, 1.0)  # the spread of errors of one size
MIN_SPREAD_RATIO = 0.3  # minimum width of intervals, relative to the mean
CONFIDENCE_LEVEL = 0.95  # confidence level of intervals
# penalties tried for a linear model, in this order; small ones are needed for separable classes
LINEAR_PENALTIES = (100.0, 10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
MAX_IDLE_PENALTIES = 3  # maximum number of successive penalties without a lower loss
LINEAR_PENALTY_FACTORS = (
    10**-0.5,
    10**0.5,
)  # further penalties that are tried, relative to the best
LINEAR_GRADIENT_TOL = 1e-10  # gradient norm at which the fit of a linear model in float64 ends
MAX_LINEAR_PARAMS = 1000  # maximum number of parameters of a linear model that is fitted
# maximum number of flops for the Hessian of a linear model; up to ten models are fitted, which then
# takes about five seconds
MAX_LINEAR_FLOPS = 1e10
# maximum number of flops for the Hessian; if more are needed, refits by folds replace the
# leave-one-out approximation
MAX_HESSIAN_FLOPS = 2e11
# time reserved for plots, in units of the time of a fit of all rows
PLOTS_TO_FIT_TIME_RATIO = 2.0
# flops of training to a minimum that are allowed for each second of a fit, plus one second
TRAINING_FLOPS_PER_SECOND = 1e10
# minimum and maximum number of iterations of training to a minimum
MIN_TRAINING_ITERATIONS, MAX_TRAINING_ITERATIONS = 20, 300
# maximum number of flops for the effects of removing each row on the predictions of the shown rows
MAX_REMOVAL_EFFECT_FLOPS = 4e8
# Building a report may take REPORT_TO_FIT_TIME_RATIO times the processor time of a fit, plus
# EXTRA_REPORT_SECONDS.
EXTRA_REPORT_SECONDS = 2.0
REPORT_TO_FIT_TIME_RATIO = 2.0
# maximum fraction of the time for building a report that a verdict may take if no minimum is
# searched for
MAX_VERDICT_TIME_FRACTION = 0.15
# maximum number of seconds of the original fit, including the choice of its penalty, that count for
# the time that building a report may take
MAX_FIT_SECONDS = 3.0
# maximum fraction of the time for building a report that may be used when another fit ends
MAX_USED_TIME_FRACTION = 0.65


def outputs_to_predictions(z: Any, loss: str | Any, shift: float, scale: float) -> Floats:
    """Convert outputs (..., d_out) of a network to predictions (...,) in the units of the targets
    for regression, or to class probabilities (..., classes) for classification.
    """
    z = np.asarray(z, float)
    spec = loss_spec(loss)
    if spec.targets == "numbers":
        exponential = spec.given is not None and spec.given.exponential
        mean = np.exp(z[..., 0]) if exponential else z[..., 0]
        return np.asarray(mean * scale + shift)
    if z.shape[-1] > 1:
        return np.asarray(softmax(z, axis=-1))
    return np.stack([expit(-z[..., 0]), expit(z[..., 0])], axis=-1)


class Fit:
    """A fitted `MLPRegressor` or `MLPClassifier` with its rows.

    Attributes
    ----------
    ob, theta : Objective, ndarray (n,)
        The objective over all rows, and the parameters at the end of the fit.
    y : ndarray (N,)
        Targets of a regression in their own units, or the indices of the classes.
    shift, scale : float
        Targets in their own units are ``shift + scale * ob.y``.
    classes : ndarray or None
        Names of the classes; None for regression.
    groups : ndarray (N,) of int or None
        Number of the group of each row, from 0. The rows of a group are left out together.
    """

    def __init__(self, est: Any, X: Any, y: Any, groups: Any = None) -> None:
        self.est, self.X, self.given, self.groups = est, X, np.asarray(y), groups
        several = self.given.ndim > 1 and self.given.shape[1] > 1
        self.classes: Any = getattr(est, "classes_", None)
        self.numbers = self.classes is None
        if several:
            each, one = ("target", "target") if self.numbers else ("class", "label")
            raise ValueError(
                f"y must have one {each} for each row for a report, got shape {self.given.shape}. "
                f"Report on one {one} at a time."
            )
        if self.numbers:
            try:
                self.given = self.given.astype(float)
            except (TypeError, ValueError):
                first = self.given.reshape(-1).tolist()[0]
                raise ValueError(f"y must hold numbers, as in the fit, got {first!r}.") from None
        self.ob, self.theta = est.objective(X, y), np.asarray(est.theta_)
        self.shift = float(getattr(est, "y_shift_", [0.0])[0])
        self.scale = float(getattr(est, "y_scale_", [1.0])[0])
        self.y: Any = self.given.reshape(-1)
        if not self.numbers:
            self.y = np.searchsorted(np.asarray(self.classes), self.y)
        if len(self.y) != self.ob.n_samples:
            raise ValueError(
                f"X and y must have no rows of weight 0, got {len(self.y)} rows, of which "
                f"{self.ob.n_samples} count."
            )

    @property
    def n_rows(self) -> int:
        return len(self.y)

    @property
    def alpha(self) -> float:
        """The weight decay as scikit-learn counts it."""
        return float(self.est.alpha_)

    def outputs_to_predictions(self, z: Any) -> Floats:
        """Convert outputs of the network to predictions, see `outputs_to_predictions`."""
        return outputs_to_predictions(z, self.ob.loss, self.shift, self.scale)

    def predict(self, X: Any) -> Floats:
        """Return the predictions (N,) or probabilities (N, classes) for the rows of X."""
        return self.outputs_to_predictions(self.ob.model.predict(self.theta, X))

    def predictions(self) -> Floats:
        return self.predict(self.ob.X)

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
        given = loss_spec(self.ob.loss).given
        exponential = given is not None and given.exponential
        J = self.ob.model.input_jacobian(self.theta, self.X[rows])
        if not self.numbers:
            return np.asarray(J)
        z = self.ob.model.predict(self.theta, self.X[rows])[:, :1, None]
        return np.asarray(J[:, :1] * self.scale * (np.exp(z) if exponential else 1.0))

    def refit_rows(self, rows: Indices) -> Fit:
        """Fit a clone of the estimator to the given rows. A weight decay that held-out rows chose
        is chosen again; one with the largest evidence is kept.
        """
        from sklearn.base import clone

        again = clone(self.est).set_params(warm_start=False, verdict=False, verbose=False)
        if self.est.alpha == "evidence":
            again.set_params(alpha=self.est.alpha_)
        X, y = self.X[rows], self.given[rows]
        with suppress_warnings():
            return Fit(again.fit(X, y), X, y)


def fit_of(estimator: Any, X: Any, y: Any, groups: Any = None) -> Fit:
    """Return the fit of an estimator, after checking its rows."""
    fit = Fit(estimator, X, y, groups)
    _check_rows(fit)
    return fit


def _check_rows(fit: Fit) -> None:
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
    loss = fit.ob.value(fit.theta) * loss_ratio(fit.ob.loss, fit.ob.model.sizes[-1])
    if abs(loss - known) > MAX_LOSS_CHANGE * max(abs(known), abs(loss)):
        raise ValueError(
            f"X and y must be all rows of the fit, without sample_weight, got rows with a loss of "
            f"{loss:.4g} where estimator.loss_ is {known:.4g}. Call fit on these rows first."
        )


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppress all warnings in this context."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --------------------------------------------------------------------------------------------------
# Predictions of each row without itself, and the other numbers of a report.


@dataclass
class FitMeasurements:
    """The numbers of the report on a fitted network.

    Attributes
    ----------
    left_out : ndarray (N,) or (N, classes)
        Predictions of each row without itself; NaN for rows of folds that were not refitted.
    rows : ndarray (N,) of bool
        The rows that have such a prediction.
    closed : bool
        Whether these predictions come from one factor of the Hessian, and not from folds.
    why : str
        The reason if `closed` is False.
    out : LeftOut or None
        Result of `leave_one_out` at the minimum, whether or not refits agree with it; None if it
        could not be computed.
    folds, seen, n_folds
        Predictions by folds, the rows that have such a prediction, and the number of refitted
        folds.
    fit_seconds : float
        Processor time of one refit.
    """

    fit: Fit
    started: float
    ob: Any = None  # objective at the minimum, which may lack inactive units of the fit
    theta: Any = None
    n_inactive: int = 0
    # True if training to the minimum changed the score by more than MAX_SCORE_CHANGE
    moved: bool = False
    point: CriticalPoint | None = None
    max_iter: int = 0
    out: LeftOut | None = None
    left_out: Any = None
    rows: Any = None
    closed: bool = False
    why: str = ""
    folds: Any = None
    seen: Any = None
    n_folds: int = 0
    fit_seconds: float = 0.0
    spread: tuple[float, float, float] = CONSTANT_SPREAD  # the result of `error_spread`
    linear: Any = None
    rival: FitMeasurements | None = None  # those of the network, if the linear model is better
    decay_note: str = ""  # how the weight decay was chosen
    doubts: list[str] = field(default_factory=list)  # warnings during the measurements

    @property
    def max_seconds(self) -> float:
        """The processor time that building the report may take, in seconds."""
        own = min(getattr(self.fit.est, "seconds", 0.0), MAX_FIT_SECONDS)
        return REPORT_TO_FIT_TIME_RATIO * max(self.fit_seconds, own) + EXTRA_REPORT_SECONDS

    def has_time_for(self, n_refits: float) -> bool:
        """Return True if refits that take as long as `n_refits` fits of all rows would end within
        `MAX_USED_TIME_FRACTION` of the allowed time.
        """
        spent = time.process_time() - self.started
        return spent + n_refits * self.fit_seconds <= MAX_USED_TIME_FRACTION * self.max_seconds


def fold_rows(fit: Fit) -> list[Indices]:
    """Return the rows of each fold. The folds follow the targets, so that these have similar
    distributions in all folds. If the rows have groups, each group lies in one fold.
    """
    rng = np.random.default_rng(0)
    if fit.groups is not None:
        order = rng.permutation(int(fit.groups.max()) + 1)
        parts = [order[i::N_SCORE_FOLDS] for i in range(min(N_SCORE_FOLDS, len(order)))]
        return [np.flatnonzero(np.isin(fit.groups, some)) for some in parts]
    order = rng.permutation(fit.n_rows)
    order = order[np.argsort(fit.y[order], kind="stable")]
    return [order[i::N_SCORE_FOLDS] for i in range(min(N_SCORE_FOLDS, fit.n_rows))]


def measure_fit(fit: Fit, note: Callable[[str], None]) -> FitMeasurements:
    """Return the numbers of the report on a fitted network: the verdict on its minimum, the
    predictions of left-out rows and folds, and a linear model. `note` is called with a few words
    before each step.
    """
    found = FitMeasurements(fit, time.process_time())
    empty = np.full(fit.n_rows if fit.numbers else (fit.n_rows, len(fit.classes)), np.nan)
    found.folds, found.seen = empty, np.zeros(fit.n_rows, bool)
    folds = fold_rows(fit)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        note("a fold")
        _refit_without_fold(found, folds[0])
        note("the minimum")
        _find_minimum(found)
        note("folds")
        for held in folds[1:]:
            if found.has_time_for(PLOTS_TO_FIT_TIME_RATIO + 1):
                _refit_without_fold(found, held)
        _choose_left_out_method(found)
        note("a linear model")
        found.linear = linear_model(fit)
    if fit.numbers:
        found.spread = error_spread(found)
    found.doubts = [str(w.message) for w in caught if w.category is UserWarning]
    return found


def _predict_fold(fit: Fit, held: Indices) -> Floats:
    """Return the predictions of the rows `held` by a network that is refitted to all others."""
    again = fit.refit_rows(np.setdiff1d(np.arange(fit.n_rows), held))
    return fit.align_classes(again.predict(fit.ob.X[held]), again.classes)


def _refit_without_fold(found: FitMeasurements, held: Indices) -> None:
    """Refit the network without the rows of a fold, and store the predictions of these rows."""
    began = time.process_time()
    found.folds[held] = _predict_fold(found.fit, held)
    found.seen[held] = True
    found.n_folds += 1
    found.fit_seconds = max(found.fit_seconds, time.process_time() - began)


def _find_minimum(found: FitMeasurements) -> None:
    """Continue training to a minimum, classify it, and compute the predictions of left-out rows at
    this minimum. If the network is too large, has kinks or reaches no minimum, classify the end of
    the fit instead, and store the reason in `found.why`.
    """
    fit, ob = found.fit, found.fit.ob
    found.ob, found.theta = ob, fit.theta
    flops = float(ob.n_params) ** 2 * ob.n_samples * ob.model.sizes[-1]
    most = int(TRAINING_FLOPS_PER_SECOND * (1 + found.fit_seconds) * ob.model.sizes[-1] / flops)
    large = flops > MAX_HESSIAN_FLOPS or most < MIN_TRAINING_ITERATIONS
    kinks = has_kinks(ob.model)
    if not large and not kinks:
        found.max_iter = min(most, MAX_TRAINING_ITERATIONS)
        with suppress_warnings():
            run: Any = raise_if_interrupted(
                minimize(ob, fit.theta, rng=0, max_iter=found.max_iter, progress=False)
            )
        if run.report is not None:
            found.theta, found.point = run.x, run.report
    if found.point is None:
        limit = max(MAX_VERDICT_TIME_FRACTION * found.max_seconds, found.fit_seconds)
        found.point = classify(ob, fit.theta, rng=0, max_time=limit, progress=False)
        found.why = (
            "a minimum of so many rows and parameters takes too long to find"
            if large
            else "the activation has kinks, at which no Hessian exists"
            if kinks
            else "the gradient does not vanish where the fit ended"
        )
        return
    _leave_out_rows(found)


def _leave_out_rows(found: FitMeasurements) -> None:
    """Compute `found.out`, the result of `leave_one_out` at the minimum. If the Hessian there is
    not positive definite, use the minimum of the network without inactive units. If that fails too,
    store the reason in `found.why`.
    """
    with suppress(ValueError):
        found.out = leave_one_out(found.ob, found.theta)
        return
    assert found.point is not None
    small, theta = without_inactive_units(found.ob, found.theta)
    if small is not found.ob:
        run: Any = raise_if_interrupted(
            minimize(small, theta, rng=0, max_iter=found.max_iter, progress=False)
        )
        with suppress(ValueError):
            found.out = leave_one_out(small, run.x)
        if found.out is not None and run.report is not None:
            found.ob, found.theta, found.point = small, run.x, run.report
            found.n_inactive = sum(found.fit.ob.model.sizes) - sum(small.model.sizes)
            return
        found.out = None
    kind = found.point.kind.replace("_", " ")
    found.why = (
        "the Hessian is not positive definite at the minimum"
        if kind == "minimum"
        else f"the fit is no minimum with a positive definite Hessian, but {kind}"
    )


def _choose_left_out_method(found: FitMeasurements) -> None:
    """Store the predictions of left-out rows in `found`. They come from the factor of the Hessian,
    or from folds in three cases: there is no factor; training to the minimum changes the score by
    more than `MAX_SCORE_CHANGE`; the scores of both methods disagree. In the last two cases, store
    the reason for folds in `found.why`.
    """
    fit, out = found.fit, found.out
    found.left_out, found.rows = found.folds, found.seen
    if out is None:
        return
    if fit.groups is not None:
        found.why = "rows of one group are left out together"
        return
    there = fit.outputs_to_predictions(found.ob.model.predict(found.theta, found.ob.X))
    found.moved = abs(fit.score(there) - fit.score(fit.predictions())) > MAX_SCORE_CHANGE
    if np.isnan(out.losses).any():
        found.out = None
        found.why = "a row alone determines a parameter"
        return
    if found.moved:
        found.why = "the fit ended before the minimum to which further training leads"
        return
    alone = fit.outputs_to_predictions(out.predictions)
    gaps = [fit.score(alone, found.seen) - fit.score(found.folds, found.seen)]
    if not fit.numbers:
        one, other = (fit.row_losses(p)[found.seen].mean() for p in (alone, found.folds))
        gaps.append((other - one) / _constant_prediction_loss(fit))
    if max(map(abs, gaps)) <= MAX_SCORE_GAP:
        found.closed, found.left_out, found.rows = True, alone, np.ones(fit.n_rows, bool)
        return
    found.why = (
        "refits of folds end in other minima: rows left out at this minimum alone would give "
        f"{fit.score(alone, found.seen):.2f}, the refits {fit.score(found.folds, found.seen):.2f}"
    )


def _constant_prediction_loss(fit: Fit) -> float:
    """Return the mean loss of the best constant prediction, or 1 if that loss is 0."""
    return float(constant_losses(fit).mean()) or 1.0


@dataclass(frozen=True)
class LinearModel:
    """A network without hidden layers, with the penalty that gives left-out rows the lowest
    loss.
    """

    ob: Objective
    theta: Any
    out: LeftOut
    left_out: Floats
    score: float
    loss: float

    @property
    def alpha(self) -> float:
        """The weight decay as scikit-learn counts it."""
        n_terms = loss_ratio(self.ob.loss, self.ob.model.sizes[-1])
        return float(self.ob.l2) * self.ob.n_samples * n_terms


def linear_model(fit: Fit) -> LinearModel | None:
    """Return the linear model, fitted to the rows of a fit, with the penalty that gives left-out
    rows the lowest mean loss. Rows with groups are left out by folds, as for the network.

    `LINEAR_PENALTIES` are tried in order, until `MAX_IDLE_PENALTIES` in a row do not lower this
    loss, and then the best one times each of `LINEAR_PENALTY_FACTORS`. Return None if the model has
    more than `MAX_LINEAR_PARAMS` parameters, if its Hessian costs more than `MAX_LINEAR_FLOPS`, or
    if `leave_one_out` fails for all tried penalties.
    """
    ob = fit.ob
    if len(ob.model.sizes) == 2:
        return None  # the fit is a linear model
    model = MLP([ob.model.sizes[0], ob.model.sizes[-1]], dtype=ob.model.dtype)
    flops = float(model.n_params) ** 2 * ob.n_samples * model.sizes[-1]
    if model.n_params > MAX_LINEAR_PARAMS or flops > MAX_LINEAR_FLOPS:
        return None
    plain = Objective(
        model, ob.X, ob.y, ob.loss, sample_weight=ob.sample_weight,
        n_threads=ob.n_threads, l2_biases=False,
    )  # fmt: skip
    folds = None
    if fit.groups is not None:  # the same folds as for the network
        folds = np.empty(fit.n_rows, int)
        for number, rows in enumerate(fold_rows(fit)):
            folds[rows] = number
    best, idle = None, 0
    for l2 in LINEAR_PENALTIES:
        found = _fit_linear_model(fit, plain.with_l2(l2), folds)
        better = found is not None and (best is None or found.loss < best.loss)
        best, idle = (found, 0) if better else (best, idle + 1)
        if idle == MAX_IDLE_PENALTIES:
            break
    if best is None:
        return None
    near = (
        _fit_linear_model(fit, plain.with_l2(best.ob.l2 * step), folds)
        for step in LINEAR_PENALTY_FACTORS
    )
    return min([best, *filter(None, near)], key=lambda line: line.loss)


def _fit_linear_model(fit: Fit, ob: Objective, folds: Any) -> LinearModel | None:
    """Return the linear model at the minimum of `ob`, with rows left out one by one or, if `folds`
    (N,) numbers the fold of each row, by folds. Return None if `leave_one_out` fails, for example
    because there is no single minimum.
    """
    start = np.zeros(ob.n_params, ob.dtype)
    tol = LINEAR_GRADIENT_TOL if ob.dtype == np.float64 else None
    with suppress_warnings():
        theta = raise_if_interrupted(
            minimize(ob, start, gradient_tol=tol, verdict=False, progress=False, rng=0)
        ).x
    try:
        out = leave_one_out(ob, theta, groups=folds)
    except ValueError:
        return None
    if np.isnan(out.losses).any():
        return None
    left_out = fit.outputs_to_predictions(out.predictions)
    return LinearModel(ob, theta, out, left_out, fit.score(left_out), float(out.losses.mean()))


def conformal_width(errors: Floats, level: float) -> float:
    """Return the error of a row left out that bounds the error of a new row with a probability of
    at least `level`, by exchangeability, or infinity if there are too few errors.
    """
    place = math.ceil(level * (len(errors) + 1)) - 1
    return float(np.sort(errors)[place]) if place < len(errors) else math.inf


def error_spread(found: FitMeasurements) -> tuple[float, float, float]:
    """Return numbers (a, b, least) such that the size of errors is proportional to ``max(a + b z,
    least)`` for a prediction z. It is constant unless the errors of at least `MIN_SPREAD_ROWS` rows
    left out have a rank correlation of at least `MIN_SPREAD_CORRELATION` with the predictions.
    """
    z = found.left_out[found.rows]
    errors = np.abs(found.fit.y[found.rows] - z)
    if len(z) < MIN_SPREAD_ROWS or not errors.any():
        return CONSTANT_SPREAD
    ranks = [np.argsort(np.argsort(values, kind="stable")) for values in (z, errors)]
    correlations: Any = np.corrcoef(ranks)
    if not abs(correlations[0, 1]) >= MIN_SPREAD_CORRELATION:
        return CONSTANT_SPREAD
    a, b = np.linalg.lstsq(np.column_stack([np.ones(len(z)), z]), errors, rcond=None)[0]
    return float(a), float(b), float(MIN_SPREAD_RATIO * errors.mean())


def spread_at(spread: Any, predictions: Floats) -> Floats:
    """Return the size of errors at some predictions, from the result of `error_spread`."""
    a, b, least = spread
    return np.asarray(np.maximum(a + b * predictions, least))


def relative_errors(found: FitMeasurements) -> Floats:
    """Return the absolute errors (N,) of all rows, relative to `found.spread`, NaN for rows that
    were not left out.
    """
    sizes = spread_at(found.spread, found.left_out)
    return np.asarray(np.abs(found.fit.y - found.left_out) / sizes)


def constant_losses(fit: Fit) -> Floats:
    """Return the loss (N,) of each row of a fit for a constant prediction: the mean of the targets,
    or the frequencies of the classes.
    """
    if fit.numbers:
        return fit.row_losses(np.full(fit.n_rows, fit.y.mean()))
    shares = np.bincount(fit.y, minlength=len(fit.classes)) / fit.n_rows
    return fit.row_losses(np.tile(shares, (fit.n_rows, 1)))


def beats_constant_prediction(found: FitMeasurements, left_out: Floats) -> bool:
    """Return True if the mean loss of left-out rows, predicted by `left_out`, is below that of a
    constant prediction.
    """
    gain = (constant_losses(found.fit) - found.fit.row_losses(left_out))[found.rows]
    return bool(gain.mean() > 0)


def loss_difference(found: FitMeasurements) -> tuple[float, float]:
    """Return the mean, over left-out rows, of the loss of the linear model minus that of the
    network, and the standard error of this mean.
    """
    fit = found.fit
    d = (fit.row_losses(found.linear.left_out) - fit.row_losses(found.left_out))[found.rows]
    return float(d.mean()), float(d.std(ddof=1) / math.sqrt(len(d)))
