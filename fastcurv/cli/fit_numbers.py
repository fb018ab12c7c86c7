"""Numbers of a page on a fit: each row predicted without itself, a linear model, other rows, other
penalties, slopes. Each number has the call that returns it.

Rows left out come from one factor of the Hessian where refits agree with it. Refits from new random
starts can end in other minima and predict worse than the minimum at hand says, so some of ten folds
are always refitted. Where their score differs by more than `MAX_SCORE_GAP`, or where the fit is no
minimum with a positive definite Hessian, the folds take the place of the rows left out.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from ..common.protocols import Floats, Indices
from ..critical.classify import classify
from ..critical.laplace import MAX_NEWTON_DECREMENT, laplace
from ..critical.left_out import LeftOut, leave_one_out
from ..critical.report import CriticalPoint
from ..network.mlp import MLP
from ..network.objective import Objective
from ..optimize.minimize import minimize
from ..optimize.path import with_l2, without_inactive_units
from ..structure.tables import ACTIVATIONS, LOSSES
from .span import fit_in_span

N_FOLDS = 10
# largest difference between the score of left-out rows by the approximation and by refits: 0.03
# minus the scatter of scores from ten folds, which is about 0.01 for 600 rows
MAX_SCORE_GAP = 0.02
# largest change of the score between the fit and the minimum near it
MAX_MOVED_SCORE = 0.01
CONFIDENCE_LEVEL = 0.95  # confidence level of intervals
MIN_PROBABILITY = 1e-15  # smallest probability whose logarithm is taken
# penalties tried for a linear model, in this order; classes that are separable need small ones
LINEAR_PENALTIES = (100.0, 10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
MAX_IDLE_PENALTIES = 3  # number of penalties in a row without a lower loss that end the search
LINEAR_STEPS = (10**-0.5, 10**0.5)  # factors of the best of these penalties that are tried, too
LINEAR_GRADIENT_TOL = 1e-10  # gradient norm at which the fit of a linear model in float64 ends
MAX_LINEAR_PARAMS = 1000  # number of parameters of the largest linear model
MAX_EVIDENCE_PARAMS = 1500  # number of rows of the largest matrix that gives an evidence
# flops for the Hessian above which refits by folds replace the leave-one-out approximation
MAX_FACTOR_FLOPS = 2e11
# time reserved for pictures, in units of the time of a fit of all rows
PICTURES_TO_FIT_TIME_RATIO = 2.0
MIN_WATCHED_ITERATIONS = 50  # number of iterations of the fit that shows the loss on other rows
# flops of training to a minimum that are allowed for each second of a fit, plus one second
TRAINING_FLOPS_PER_SECOND = 1e10
# minimum and maximum number of iterations of training to a minimum
MIN_ITERATIONS, MAX_ITERATIONS = 20, 300
MAX_CHANGE_FLOPS = 4e8  # flops for predicting rows by the networks without each row
MAX_DOTS = 2000  # maximum number of rows that a picture shows
# A page may take PAGE_TO_FIT_TIME_RATIO times the processor time of a fit, plus PAGE_SECONDS.
PAGE_SECONDS = 2.0
PAGE_TO_FIT_TIME_RATIO = 2.0
# share of that time that a verdict may take where no minimum is searched for
MAX_VERDICT_TIME_SHARE = 0.15
# longest fit, with the choice of its penalty, that a page counts for that of a longer refit
MAX_FIT_SECONDS = 3.0
# fraction of the time for a page that may be used up when another fit begins
MAX_USED_TIME_SHARE = 0.65


@dataclass(frozen=True)
class Trained:
    """A trained network without scikit-learn, for `fit_report.build` in place of an estimator.

    Attributes
    ----------
    ob : Objective
        On all rows, with targets as they are fitted.
    theta : ndarray (n,)
    shift, scale : float
        Targets in their own units are ``shift + scale * ob.y``.
    classes : sequence, optional
        Names of the classes, in the order of the network's outputs.
    seed : int
        Start of refits.
    seconds : float
        Processor time of the fit, with the choice of its penalty.
    """

    ob: Objective
    theta: Any
    shift: float = 0.0
    scale: float = 1.0
    classes: Any = None
    seed: int = 0
    seconds: float = 0.0


class Fit:
    """A fitted network with its rows, in the form that the page needs.

    Attributes
    ----------
    ob, theta : Objective, ndarray (n,)
    y : ndarray (N,)
        Numbers in their own units, or the number of the class.
    classes : ndarray or None
    """

    name = "net"
    X: Any
    y: Any
    classes: Any
    numbers: bool
    exponential: bool

    def __init__(self, trained: Any, X: Any, y: Any) -> None:
        self.est, self.X, self.given = trained, X, np.asarray(y)
        self.ob, self.theta = trained.ob, np.asarray(trained.theta)
        self.shift, self.scale = float(trained.shift), float(trained.scale)
        self.classes = None if trained.classes is None else np.asarray(trained.classes)
        self._check()

    def _check(self) -> None:
        row = LOSSES[self.ob.loss]
        given = row.given
        self.numbers = row.targets == "numbers"
        self.exponential = given is not None and given.exponential
        outputs = self.ob.model.sizes[-1] // (given.per_target or 1 if given else 1)
        several = outputs > 1 if self.numbers else self.given.ndim > 1
        if several:
            raise ValueError(
                f"y must have one target for a report, got shape {self.given.shape}. Report on "
                "one target at a time."
            )
        self.y: Any = (
            np.asarray(self.given, float).reshape(-1) if self.numbers else self._class_codes()
        )
        if len(self.y) != self.ob.n_samples or len(self.X) != len(self.y):
            raise ValueError(
                f"y must have a target for each of {len(self.X)} rows with a weight above 0, got "
                f"{len(self.y)}."
            )

    def _class_codes(self) -> Indices:
        if self.classes is None:
            self.classes = np.unique(self.given)
        order = np.argsort(self.classes, kind="stable")
        return np.asarray(order[np.searchsorted(self.classes[order], self.given)])

    @property
    def n(self) -> int:
        return len(self.y)

    def units(self, z: Any) -> Floats:
        """Return predictions (...,) or probabilities (..., classes) from outputs (..., d_out)."""
        z = np.asarray(z, float)
        if self.numbers:
            mean = np.exp(z[..., 0]) if self.exponential else z[..., 0]
            return np.asarray(mean * self.scale + self.shift)
        if z.shape[-1] > 1:
            return np.asarray(softmax(z, axis=-1))
        return np.stack([expit(-z[..., 0]), expit(z[..., 0])], axis=-1)

    def predictions(self) -> Floats:
        return self.units(self.ob.model.predict(self.theta, self.ob.X))

    def losses(self, predictions: Floats) -> Floats:
        """Return squared errors, or minus the logarithms of the probabilities of the classes."""
        return self.losses_of(self.y, predictions)

    def losses_of(self, y: Any, predictions: Floats) -> Floats:
        """Return the result of `losses` for other targets."""
        if self.numbers:
            return np.asarray((y - predictions) ** 2)
        p = predictions[np.arange(len(y)), y]
        return np.asarray(-np.log(np.maximum(p, MIN_PROBABILITY)))

    def score(self, predictions: Floats, rows: Any = slice(None)) -> float:
        """Return R^2, or the accuracy, on some of the rows."""
        return self.score_of(self.y[rows], predictions[rows])

    def score_of(self, y: Any, predictions: Floats) -> float:
        """Return the result of `score` for other targets."""
        if not self.numbers:
            return float(np.mean(predictions.argmax(axis=1) == y))
        return float(1 - np.mean((y - predictions) ** 2) / y.var())

    def score_error(self, y: Any, predictions: Floats) -> float:
        """Return the standard error of a score from the scatter of its rows."""
        parts = (y - predictions) ** 2 / y.var() if self.numbers else predictions.argmax(1) == y
        return float(np.std(parts) / math.sqrt(len(y)))

    def align_classes(self, predictions: Floats, classes: Any) -> Floats:
        """Return the probabilities of all classes from those of some of the classes."""
        if self.numbers or len(classes) == len(self.classes):
            return predictions
        every = np.zeros((len(predictions), len(self.classes)))
        every[:, np.isin(self.classes, classes)] = predictions if len(classes) > 1 else 1.0
        return every

    def slopes(self, rows: Indices) -> Floats:
        """Return the derivatives (M, outputs, k) of predictions or logits with respect to the
        columns of X.
        """
        J = self.ob.model.input_jacobian(self.theta, self.X[rows])
        if not self.numbers:
            return np.asarray(J)
        z = self.ob.model.predict(self.theta, self.X[rows])[:, :1, None]
        return np.asarray(J[:, :1] * self.scale * (np.exp(z) if self.exponential else 1.0))

    # --- refits

    def refit_rows(self, rows: Indices, ratio: float = 1.0) -> Fit:
        """Fit to the given rows, with `ratio` times the penalty on the sum over rows."""
        net, ob = self.est, self.ob
        some = with_l2(ob.batch(rows), float(ob.l2) * ratio * ob.n_samples / len(rows))
        _, theta = fit_in_span(some, seed=net.seed, verdict=False)
        known = Trained(some, theta, self.shift, self.scale, self.classes, net.seed)
        return Fit(known, self.X[rows], self.given[rows])

    def predict(self, X: Any) -> Floats:
        """Return predictions of rows, or probabilities."""
        return self.units(self.ob.model.predict(self.theta, X))

    def losses_while_fitting(self, rows: Indices, others: Indices) -> tuple[Any, Any]:
        """Fit to the given rows. Return the loss after each iteration, and that of the
        other rows.
        """
        net, ob = self.est, self.ob
        some = with_l2(ob.batch(rows), float(ob.l2) * ob.n_samples / len(rows))
        held = with_l2(ob.batch(others), 0.0)
        run, _ = fit_in_span(some, seed=net.seed, verdict=False, validation=held)
        return run.history["loss"], run.history["validation"]

    # --- code

    imports = """import numpy as np
import fastcurv as fc
from fastcurv.cli.span import fit_in_span
"""
    objective_code = "ob, theta = net.ob, net.theta"
    scale_code, shift_code = "net.scale", "net.shift"
    classes_code = "np.asarray(net.classes)"
    slopes_code = "ob.model.input_jacobian(theta, X[shown]) * net.scale"
    again_code = """def some(rows, ratio=1):
    l2 = ob.l2 * ratio * len(X) / len(rows)
    return fc.Objective(ob.model, ob.X[rows], ob.y[rows], ob.loss, l2=l2, l2_biases=ob.l2_biases)
def again(rows, others, ratio=1):
    _, end = fit_in_span(some(rows, ratio), seed=net.seed, verdict=False)
    z = ob.model.predict(end, ob.X[others])
    return {units}
def evidence(rows, ratio):
    part = some(rows, ratio)
    _, end = fit_in_span(part, seed=net.seed, verdict=False)
    end = fc.minimize(part, end, seed=0, max_iter=100, verdict=False).x
    return fc.laplace(part, end).evidence"""
    watched_code = """held = fc.Objective(ob.model, ob.X[fewer], ob.y[fewer], ob.loss)
watched, _ = fit_in_span(some(most), seed=net.seed, verdict=False, validation=held)
curve = watched.history["validation"]"""

    @property
    def fitted_score_code(self) -> str:
        return f"score({self.units_code('ob.model.predict(theta, ob.X)')}, slice(None))"

    def units_code(self, z: str) -> str:
        """Return the code of `units` for an expression with several rows."""
        if self.numbers:
            mean = f"np.exp({z}[:, 0])" if self.exponential else f"{z}[:, 0]"
            return f"{mean} * {self.scale_code} + {self.shift_code}"
        if self.ob.model.sizes[-1] > 1:
            return f"scipy.special.softmax({z}, axis=1)"
        return f"scipy.special.expit({z} * [-1, 1])"


class EstimatorFit(Fit):
    """The fit of an `MLPRegressor` or `MLPClassifier`."""

    name = "est"

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
        self._check()

    def refit_rows(self, rows: Indices, ratio: float = 1.0) -> Fit:
        X, y = self.X[rows], self.given[rows]
        return EstimatorFit(self._refit(X, y, alpha=self.est.alpha_ * ratio), X, y)

    def losses_while_fitting(self, rows: Indices, others: Indices) -> tuple[Any, Any]:
        X, y = self.X[rows], self.given[rows]
        again = self._refit(
            X, y, {"X_val": self.X[others], "y_val": self.given[others]}, alpha=self.est.alpha_,
            early_stopping=True, max_iter=self.max_watched, n_iter_no_change=self.max_watched,
        )  # fmt: skip
        return again.loss_curve_, again.validation_loss_curve_

    @property
    def max_watched(self) -> int:
        return max(MIN_WATCHED_ITERATIONS, int(self.est.n_iter_))

    def _refit(self, X: Any, y: Any, validation: Any = None, **options: Any) -> Any:
        from sklearn.base import clone

        again = clone(self.est).set_params(
            **options, warm_start=False, verdict=False, verbose=False
        )
        with no_warnings():
            return again.fit(X, y, **(validation or {}))

    imports = "import numpy as np\nimport fastcurv as fc\nfrom sklearn.base import clone\n"
    objective_code = "ob, theta = est.objective(X, y), est.theta_"
    scale_code, shift_code = "est.y_scale_[0]", "est.y_shift_[0]"
    classes_code = "est.classes_"
    slopes_code = "est.input_jacobian(X[shown])"
    again_code = """def fitted(rows, ratio=1):
    return clone(est).set_params(alpha=est.alpha_ * ratio).fit(X[rows], y[rows])
def again(rows, others, ratio=1):
    return fitted(rows, ratio).{predict}(X[others])
def evidence(rows, ratio):
    part = fitted(rows, ratio).objective(X[rows], y[rows])
    end = fitted(rows, ratio).theta_
    end = fc.minimize(part, end, seed=0, max_iter=100, verdict=False).x
    return fc.laplace(part, end).evidence"""

    @property
    def watched_code(self) -> str:  # type: ignore[override]
        most = self.max_watched
        return (
            "watched = clone(est).set_params(alpha=est.alpha_, early_stopping=True, "
            f"max_iter={most}, n_iter_no_change={most})\n"
            "watched.fit(X[most], y[most], X_val=X[fewer], y_val=y[fewer])\n"
            "curve = watched.validation_loss_curve_"
        )

    @property
    def fitted_score_code(self) -> str:
        return "est.score(X, y)"


@contextmanager
def no_warnings() -> Any:
    """Suppress warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --------------------------------------------------------------------------------------------------
# What each row is predicted to be without itself.


@dataclass
class Numbers:
    """The numbers of a page, and the code that computes them.

    Attributes
    ----------
    left_out : ndarray (N,) or (N, classes)
        Predictions of each row without itself; NaN for rows of folds that were not refitted.
    rows : ndarray (N,) of bool
        The rows that have one.
    closed : bool
        Whether they come from one factor of the Hessian, and not from folds.
    why : str
        The reason if they do not.
    out : LeftOut or None
        Rows left out at the minimum, if there is one, whether or not refits agree with it.
    folds, seen, n_folds
        Predictions by folds, the rows that have one, and the number of folds that were refitted.
    fit_seconds : float
        Processor time of one refit.
    setup : list of str
        The code that defines what calls use.
    """

    fit: Fit
    started: float
    ob: Any = None  # objective at the minimum, which may lack inactive units of the fit
    theta: Any = None
    n_inactive: int = 0
    moved: bool = False  # True if the fit is far from the minimum
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
    linear: Any = None
    setup: list[str] = field(default_factory=list)

    @property
    def allowed(self) -> float:
        """The processor time that the page may take, in seconds."""
        own = min(getattr(self.fit.est, "seconds", 0.0), MAX_FIT_SECONDS)
        return PAGE_TO_FIT_TIME_RATIO * max(self.fit_seconds, own) + PAGE_SECONDS

    def has_time_for(self, n_refits: float) -> bool:
        """Return True if there is time for refits that take as long as `n_refits` fits of
        all rows.
        """
        spent = time.process_time() - self.started
        return spent + n_refits * self.fit_seconds <= MAX_USED_TIME_SHARE * self.allowed


def fold_order(fit: Fit) -> Indices:
    """Return an order of the rows such that every tenth row, from each start, is a fold whose
    targets are distributed like those of the other folds.
    """
    order = np.random.default_rng(0).permutation(fit.n)
    return np.asarray(order[np.argsort(fit.y[order], kind="stable")])


def measure(fit: Fit, note: Callable[[str], None]) -> Numbers:
    """Return the verdict, left-out rows, folds and a linear model of a fit."""
    found = Numbers(fit, time.process_time())
    empty = np.full(fit.n if fit.numbers else (fit.n, len(fit.classes)), np.nan)
    found.folds, found.seen = empty, np.zeros(fit.n, bool)
    note("a fold")
    _add_fold(found)
    note("the minimum")
    _find_minimum(found)
    note("folds")
    n_folds = min(N_FOLDS, fit.n)
    while found.n_folds < n_folds and found.has_time_for(PICTURES_TO_FIT_TIME_RATIO + 1):
        _add_fold(found)
    _choose_left_out_method(found)
    note("a linear model")
    found.linear = linear_model(fit)
    _write_setup(found)
    return found


def _add_fold(found: Numbers) -> None:
    """Refit the network without one more fold."""
    fit, began = found.fit, time.process_time()
    order = fold_order(fit)
    held = order[found.n_folds :: N_FOLDS]
    again = fit.refit_rows(np.setdiff1d(order, held))
    found.folds[held] = fit.align_classes(again.predict(fit.ob.X[held]), again.classes)
    found.seen[held] = True
    found.n_folds += 1
    found.fit_seconds = max(found.fit_seconds, time.process_time() - began)


def _find_minimum(found: Numbers) -> None:
    """Continue training to a minimum, classify it, and leave rows out there."""
    fit, ob = found.fit, found.fit.ob
    found.ob, found.theta = ob, fit.theta
    flops = float(ob.n_params) ** 2 * ob.n_samples * ob.model.sizes[-1]
    most = int(TRAINING_FLOPS_PER_SECOND * (1 + found.fit_seconds) * ob.model.sizes[-1] / flops)
    large = flops > MAX_FACTOR_FLOPS or most < MIN_ITERATIONS
    kinks = any(ACTIVATIONS[name].kink for name in ob.model.activation)
    if not large and not kinks:
        found.max_iter = min(most, MAX_ITERATIONS)
        with no_warnings():
            run: Any = minimize(ob, fit.theta, seed=0, max_iter=found.max_iter, progress=False)
        if run.report is not None:
            found.theta, found.point, found.trained_on = run.x, run.report, True
    if found.point is None:
        limit = max(MAX_VERDICT_TIME_SHARE * found.allowed, found.fit_seconds)
        found.point = classify(ob, fit.theta, seed=0, max_time=limit, progress=False)
        found.why = (
            "a minimum of so many rows and parameters takes too long to find"
            if large
            else "the activation has kinks, at which no Hessian exists"
            if kinks
            else "the gradient does not vanish where the fit ended"
        )
        return
    _leave_out_rows(found)


def _leave_out_rows(found: Numbers) -> None:
    """Leave rows out at the minimum or, if its Hessian is not positive definite, at that of the
    network without inactive units.
    """
    with suppress(ValueError):
        found.out = leave_one_out(found.ob, found.theta)
        return
    assert found.point is not None
    small, theta = without_inactive_units(found.ob, found.theta)
    if small is not found.ob:
        run: Any = minimize(small, theta, seed=0, max_iter=found.max_iter, progress=False)
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


def _choose_left_out_method(found: Numbers) -> None:
    """Choose predictions of left-out rows from the factor of the Hessian, or from folds if refits
    disagree with these.
    """
    fit, out = found.fit, found.out
    found.left_out, found.rows = found.folds, found.seen
    if out is None:
        return
    there = fit.units(found.ob.model.predict(found.theta, found.ob.X))
    found.moved = abs(fit.score(there) - fit.score(fit.predictions())) > MAX_MOVED_SCORE
    if found.moved:
        found.why = "the fit ended before the minimum to which further training leads"
        return
    alone = fit.units(out.predictions)
    gaps = [fit.score(alone, found.seen) - fit.score(found.folds, found.seen)]
    if not fit.numbers:
        one, other = (fit.losses(p)[found.seen].mean() for p in (alone, found.folds))
        gaps.append((other - one) / _null_loss(fit))
    if max(map(abs, gaps)) <= MAX_SCORE_GAP:
        found.closed, found.left_out, found.rows = True, alone, np.ones(fit.n, bool)
        return
    found.why = (
        "refits of folds end in other minima: rows left out at this minimum alone would give "
        f"{fit.score(alone, found.seen):.2f}, the refits {fit.score(found.folds, found.seen):.2f}"
    )


def _null_loss(fit: Fit) -> float:
    """Return the mean loss of the best constant prediction."""
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


def linear_model(fit: Fit, penalties: Sequence[float] = LINEAR_PENALTIES) -> LinearModel | None:
    """Return the linear model of the rows of a fit, or None if it is too large or if no penalty
    gives it a single minimum.
    """
    ob = fit.ob
    model = MLP([ob.model.sizes[0], ob.model.sizes[-1]], dtype=ob.model.dtype)
    if model.n_params > MAX_LINEAR_PARAMS:
        return None
    best, idle = None, 0
    for l2 in penalties:
        found = _linear_fit(fit, model, l2)
        better = found is not None and (best is None or found.loss < best.loss)
        best, idle = (found, 0) if better else (best, idle + 1)
        if idle == MAX_IDLE_PENALTIES:
            break
    if best is None or len(penalties) == 1:
        return best
    near = (_linear_fit(fit, model, best.ob.l2 * step) for step in LINEAR_STEPS)
    return min([best, *filter(None, near)], key=lambda line: line.loss)


def _linear_fit(fit: Fit, model: MLP, l2: float) -> LinearModel | None:
    """Return the linear model with a penalty, or None if it has no single minimum."""
    ob = fit.ob
    one = Objective(
        model, ob.X, ob.y, ob.loss, l2=l2, sample_weight=ob.sample_weight,
        n_threads=ob.n_threads, l2_biases=False,
    )  # fmt: skip
    start = np.zeros(model.n_params, model.dtype)
    tol = LINEAR_GRADIENT_TOL if model.dtype == np.float64 else None
    with no_warnings():
        theta = minimize(one, start, gradient_tol=tol, verdict=False, progress=False, seed=0).x
    try:
        out = leave_one_out(one, theta)
    except ValueError:
        return None
    left_out = fit.units(out.predictions)
    return LinearModel(one, theta, out, left_out, fit.score(left_out), float(out.losses.mean()))


def evidence_of(fit: Fit) -> float:
    """Return the logarithm of the evidence at the end of a fit, or NaN if it is unknown or the end
    is far from a minimum.
    """
    if fit.ob.n_params > MAX_EVIDENCE_PARAMS:
        return math.nan
    try:
        with no_warnings():
            end = minimize(fit.ob, fit.theta, seed=0, max_iter=100, verdict=False, progress=False).x
            found = laplace(fit.ob, end)
    except ValueError:
        return math.nan
    return found.evidence if found.decrement <= MAX_NEWTON_DECREMENT else math.nan


def constant_losses(fit: Fit) -> Floats:
    """Return the loss of each row of a fit if every row is predicted by the mean of the targets, or
    by the frequencies of the classes.
    """
    if fit.numbers:
        return fit.losses(np.full(fit.n, fit.y.mean()))
    shares = np.bincount(fit.y, minlength=len(fit.classes)) / fit.n
    return fit.losses(np.tile(shares, (fit.n, 1)))


def predicts_something(found: Numbers, left_out: Floats) -> bool:
    """Return True if the mean loss of left-out rows is below that of a constant prediction."""
    gain = (constant_losses(found.fit) - found.fit.losses(left_out))[found.rows]
    return bool(gain.mean() > 0)


def loss_difference(found: Numbers) -> tuple[float, float]:
    """Return the mean difference between the losses of the linear model and of the network on
    left-out rows, and its standard error.
    """
    fit = found.fit
    d = (fit.losses(found.linear.left_out) - fit.losses(found.left_out))[found.rows]
    return float(d.mean()), float(d.std(ddof=1) / math.sqrt(len(d)))


# --------------------------------------------------------------------------------------------------
# Code of the calls.


def _write_setup(found: Numbers) -> None:
    """Write the code that defines what the calls of the page use."""
    fit = found.fit
    needs_scipy = not fit.numbers and (found.closed or fit.name == "net")
    imports = fit.imports + ("import scipy.special\n" if needs_scipy else "")
    lines = [imports.rstrip(), fit.objective_code]
    if not fit.numbers:
        lines.append(f"classes = {fit.classes_code}")
        lines.append("codes = np.searchsorted(classes, y)")
    if found.trained_on:
        lines.append("# train on until the gradient vanishes")
        lines.append(f"run = fc.minimize(ob, theta, seed=0, max_iter={found.max_iter})")
        if found.n_inactive:
            lines += [
                "# leave out units that have no weights",
                "from fastcurv.optimize.path import without_inactive_units",
                "small, start = without_inactive_units(ob, run.x)",
                f"run = fc.minimize(small, start, seed=0, max_iter={found.max_iter})",
            ]
        lines.append("point = run.report")
    else:
        lines.append("point = fc.classify(ob, theta, seed=0)")
    if found.out is not None:
        at = "small" if found.n_inactive else "ob"
        lines.append(f"out = fc.leave_one_out({at}, run.x)")
    key = "y" if fit.numbers else "codes"
    seen = "folds" if fit.numbers else "folds[:, 0]"
    shape = "len(X)" if fit.numbers else "(len(X), len(classes))"
    predict = "predict" if fit.numbers else "predict_proba"
    lines += [
        "def score(p, rows):",
        "    return 1 - np.mean((y[rows] - p) ** 2) / y[rows].var()"
        if fit.numbers
        else "    return np.mean(p.argmax(axis=1) == codes[rows])",
        fit.again_code.format(predict=predict, units=fit.units_code("z")),
        "order = np.random.default_rng(0).permutation(len(X))",
        f'order = order[np.argsort({key}[order], kind="stable")]',
        f"folds = np.full({shape}, np.nan)",
        f"for i in range({found.n_folds}):",
        f"    held = order[i::{N_FOLDS}]",
        "    folds[held] = again(np.setdiff1d(order, held), held)",
    ]
    if found.closed:
        lines.append(f"left_out = {fit.units_code('out.predictions')}")
    else:
        lines.append(f"left_out, seen = folds, np.isfinite({seen})")
    if found.linear is not None:
        ob = found.linear.ob
        weight = "" if ob.sample_weight is None else ", sample_weight=ob.sample_weight"
        tol = f", gradient_tol={LINEAR_GRADIENT_TOL}" if ob.model.dtype == np.float64 else ""
        lines += [
            f"linear = fc.Objective(fc.MLP({list(ob.model.sizes)}), ob.X, ob.y, ob.loss, "
            f"l2={float(ob.l2)!r}, l2_biases=False{weight})",
            "line = fc.leave_one_out(linear, fc.minimize(linear, "
            f"np.zeros({ob.n_params}), verdict=False{tol}).x)",
        ]
    found.setup = lines
