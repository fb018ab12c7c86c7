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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...common.protocols import Floats, Indices
from ...common.runtime import raise_if_interrupted
from ...critical.classify import classify
from ...critical.report import CriticalPoint
from ...network.mlp import MLP
from ...network.objective import Objective
from ...optimize.minimize import minimize
from ...structure.parameters import has_kinks
from ..uncertainty.left_out import LeftOut, leave_one_out
from ..uncertainty.path import without_inactive_units
from .fit_network import NetworkFit, suppress_warnings

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

    fit: NetworkFit
    started: float
    ob: Any = None  # objective at the minimum, which may lack inactive units of the fit
    theta: Any = None
    n_inactive: int = 0
    # True if training to the minimum changed the score by more than MAX_SCORE_CHANGE
    moved: bool = False
    point: CriticalPoint | None = None
    trained_on: bool = False
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


def fold_rows(fit: NetworkFit) -> list[Indices]:
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


def measure_fit(
    fit: NetworkFit, note: Callable[[str], None], linear: LinearModel | None = None
) -> FitMeasurements:
    """Return the numbers of the report on a fitted network: the verdict on its minimum, the
    predictions of left-out rows and folds, and a linear model. `note` is called with a few words
    before each step. `linear` is the linear model of these rows if it was fitted before.
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
        found.linear = linear or linear_model(fit)
    if fit.numbers and not hasattr(fit.est, "predict_interval"):  # the latter has one width
        found.spread = error_spread(found)
    found.doubts = [str(w.message) for w in caught if w.category is UserWarning]
    return found


def _predict_fold(fit: NetworkFit, held: Indices) -> Floats:
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
            found.theta, found.point, found.trained_on = run.x, run.report, True
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


def _constant_prediction_loss(fit: NetworkFit) -> float:
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


def linear_model(
    fit: NetworkFit, penalties: Sequence[float] = LINEAR_PENALTIES
) -> LinearModel | None:
    """Return the linear model, fitted to the rows of a fit, with the penalty that gives left-out
    rows the lowest mean loss. Rows with groups are left out by folds, as for the network.

    The given penalties are tried in order, until `MAX_IDLE_PENALTIES` in a row do not lower this
    loss. If several penalties are given, the best one times each of `LINEAR_PENALTY_FACTORS` is
    tried as well. Return None if the model has more than `MAX_LINEAR_PARAMS` parameters, if its
    Hessian costs more than `MAX_LINEAR_FLOPS`, or if `leave_one_out` fails for all tried penalties.
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
    for l2 in penalties:
        found = _fit_linear_model(fit, plain.with_l2(l2), folds)
        better = found is not None and (best is None or found.loss < best.loss)
        best, idle = (found, 0) if better else (best, idle + 1)
        if idle == MAX_IDLE_PENALTIES:
            break
    if best is None or len(penalties) == 1:
        return best
    near = (
        _fit_linear_model(fit, plain.with_l2(best.ob.l2 * step), folds)
        for step in LINEAR_PENALTY_FACTORS
    )
    return min([best, *filter(None, near)], key=lambda line: line.loss)


def _fit_linear_model(fit: NetworkFit, ob: Objective, folds: Any) -> LinearModel | None:
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


def conformal_place(n_errors: int, level: float) -> int:
    """Return the place, from 0, of the error of a row left out, in increasing order, that bounds
    the error of a new row with a probability of at least `level`, by exchangeability.
    """
    return math.ceil(level * (n_errors + 1)) - 1


def conformal_width(errors: Floats, level: float) -> float:
    """Return the error at `conformal_place`, or infinity if there are too few errors."""
    place = conformal_place(len(errors), level)
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


def has_jackknife_intervals(found: FitMeasurements) -> bool:
    """Return True if intervals are those of jackknife+ at the minimum of the fit."""
    return bool(found.closed and not found.n_inactive and found.spread == CONSTANT_SPREAD)


def errors_to_save(found: FitMeasurements) -> tuple[Floats, Any] | None:
    """Return the relative errors of rows left out and their spread, from which intervals of new
    rows are computed. Return None for classes, and if the minimum of the fit gives these intervals.
    """
    if not found.fit.numbers or has_jackknife_intervals(found):
        return None
    return relative_errors(found)[found.rows], np.array(found.spread)


def is_linear_better(found: FitMeasurements) -> bool:
    """Return True if the loss of rows left out of the linear model is below that of the network."""
    return found.linear is not None and loss_difference(found)[0] < 0


def constant_losses(fit: NetworkFit) -> Floats:
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
