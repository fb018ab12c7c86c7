"""The state of one run of a minimiser: its point, its costs and budgets, its history.

A method moves `Run.theta` and obtains values, gradients and operators from the run, so that all
costs are counted in one place. A step is either finished or, if the budget ends inside it, marked
as cut short.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ..common.checks import all_finite, check_positive, check_positive_int
from ..common.linalg import NotConvexError
from ..common.objectives import (
    checked_curvature,
    checked_gradient,
    has_consistent_hessian,
    user_call_guard,
    value_as_float,
    value_at,
)
from ..common.outcome import Result
from ..common.protocols import states
from ..common.runtime import Budget, interrupt_source
from ..common.sentences import Note
from ..common.vectors import norm
from ..krylov.lanczos import product_function
from ..network.engine_steps import EngineSteps, engine_steps_of
from .checkpoint import State, check_run, generator_state_as_json, restore_generator

if TYPE_CHECKING:
    from ..critical.report import CriticalPoint

# names of the entries of a record; a validation loss may follow
RECORD_FIELDS = "iteration", "loss", "gradient_norm", "products", "time"
# factor per check by which the longest time between two checks of the clock is reduced
CLOCK_DECAY = 0.7
# A move or a step along negative curvature that lowers the loss by less than this fraction of the
# loss has a small gain.
SMALL_GAIN_RATIO = 1e-8
MAX_SMALL_GAINS = 5  # maximum number of small gains in a row


class History(dict[str, np.ndarray]):
    """The records of a run as arrays by their names, with the method and the options that produced
    them.

    Attributes
    ----------
    method : str
        The name of the method, as `minimize` accepts it.
    options : dict
        The method's options as given, with their defaults; `learning_rate` is that of the last
        update.
    """

    def __init__(self, records: dict[str, np.ndarray], method: str, options: dict[str, Any]):
        super().__init__(records)
        self.method = method
        self.options = options


# Maximum relative decrease of the loss predicted for Newton's step at the end of a finished fit. It
# changes an R2 by at most 1e-4, less than the noise of 10 000 rows does.
MAX_GAIN_OF_FINISHED_FIT = 1e-4


class MinimizeResult(Result):
    """Result of `minimize`.

    ``x``, ``fun``, ``jac``, ``nit``, ``nfev``, ``njev``, ``nhev`` (the number of Hessian products),
    ``status``, ``success`` and ``message`` are those of SciPy. `x` is the last point of a
    second-order method or the best recorded point of a first-order method, moved by the last
    Newton steps, or the point at active kinks of relu units, where the gradient is not small.

    Attributes
    ----------
    success : bool
        True at a minimum, proved or, if nothing bounds the third derivative, measured (`message`
        states which), and with the endings ``lower_bound`` and ``target``. False in all other
        cases.
    kind : str or None
        The verdict of `classify` on x. If ||g|| is above `gradient_tol`, ``not_critical``, or
        ``undecided`` if the run stalled and the gradient jumps as at a kink. Without a verdict
        None, or ``saddle`` if eigenvalues of both signs are proved within milliseconds.
    report : CriticalPoint or None
        The verdict; None without one, where `message` names the call that returns one.
    stopped : str
        Why the run ended: ``critical``, ``max_iter``, ``max_time``, ``max_products``,
        ``callback``, ``patience``, ``stalled`` (no step lowers the loss), ``diverged``,
        ``interrupted``, ``degenerate`` (trial moves along the null vectors of the Hessian found no
        descent), ``infinity`` (the infimum lies at infinity, or training drives the parameters
        there), ``unbounded``, ``kinks`` (at active kinks of relu units, without a proof),
        ``target`` (at `fun_target`, without a verdict), ``slow`` (50 iterations lowered neither the
        loss by 1e-8 of itself nor the gradient norm by half, or hardly lowered a loss near its
        lower bound), ``lower_bound`` (the loss equals its proved lower bound to rounding or to
        1e-24 of the loss at the start) or ``tolerance`` (the gradient norm is within
        `gradient_tol`, but `classify` finds no critical point). `status` is the position in this
        list, 0 for ``critical``.
    notes : tuple of Note
        The facts that `message` states, as pairs of a key of `fastcurv.common.sentences.ENDINGS`
        and a dict of numbers.
    history : History
        Arrays ``iteration``, ``loss``, ``gradient_norm``, ``products``, ``time`` and, with a
        validation objective, ``validation``.
    method : str
        The name of the method.
    wall_time : float
        Seconds.
    starts : ndarray
        With `n_init`, the loss that each start reached; all counts and `history` are those of the
        run that continues from the chosen start.
    """

    jac: np.ndarray
    nit: int
    njev: int
    nhev: int
    status: int
    stopped: str | None
    kind: str | None
    report: CriticalPoint | None
    notes: tuple[Note, ...]
    history: History
    method: str
    wall_time: float
    starts: np.ndarray

    @property
    def finished(self) -> bool:
        """True if little is left to gain near `x`: `success` is True, or `report` is a verdict
        whose ``gain_left``, a relative decrease of the loss, is at most 1e-4. A fit without weight
        decay to noisy data often ends so without success, because its minima are degenerate.
        """
        report = self.get("report")
        gain = np.nan if report is None else report.gain_left
        return bool(self.success or gain <= MAX_GAIN_OF_FINISHED_FIT)

    def _title(self) -> str:
        report = self.get("report")
        if report is None:
            return f"{super()._title()}, no verdict"
        return f"{report.kind.replace('_', ' ')}, {'not ' * (not report.certified)}certified"


# --------------------------------------------------------------------------------------------------
# How a run may end, and what can be claimed about its last point.

#: `OptimizeResult.status` for each `OptimizeResult.stopped`
STATUS_CODES = {
    "critical": 0,
    "max_iter": 1,
    "max_time": 2,
    "max_products": 3,
    "callback": 4,
    "patience": 5,
    "stalled": 6,
    "diverged": 7,
    "interrupted": 8,
    "degenerate": 9,
    "infinity": 10,
    "unbounded": 11,
    "kinks": 12,
    "target": 13,
    "slow": 14,
    "lower_bound": 15,
    "tolerance": 16,
}


def is_success(stopped: str, kind: str | None) -> bool:
    """Return True if a run with this ending and this kind of the returned point has succeeded: at a
    minimum, at the lower bound of the loss, or at the loss that the caller requested.
    """
    return kind == "minimum" or stopped in ("lower_bound", "target")


def ending_of_kind(stopped: str, kind: str | None) -> str:
    """Return the ending of a run whose examination ended as `stopped` at a point of this kind. Only
    a critical point ends a run as ``critical``, and only a degenerate one as ``degenerate``.
    """
    if stopped in ("critical", "degenerate") and kind == "not_critical":
        return "tolerance"
    return "critical" if stopped == "degenerate" and kind != "degenerate" else stopped


@dataclass(frozen=True)
class RunOutcome:
    """The verdict on a point with zero gradient, or the point from which the run continues.

    Attributes
    ----------
    theta : ndarray, shape (n,)
        The point.
    stopped : str or None
        A key of `STATUS_CODES`. None if the run continues from theta, because the loss is lower
        there or a smaller gradient is needed.
    kind : str or None
        The kind of point by `classify`; None without a verdict.
    notes : tuple of Note
        The facts about the end that the message of the result states.
    report : CriticalPoint or None
        The verdict of `classify` on theta; None without a verdict.
    finer : bool
        True if the run continues with a smaller tolerance of the gradient.
    """

    theta: np.ndarray
    stopped: str | None = None
    kind: str | None = None
    notes: tuple[Note, ...] = ()
    report: Any = None
    finer: bool = False


class PointExaminer(Protocol):
    """The interface of the object that examines points at which a run's gradient is zero or kinks
    stop the run.
    """

    def is_out_of_budget(self) -> bool:
        """Return True if the evaluations for checks of stationary points are used up."""

    def examine(self, theta: np.ndarray, moves: bool) -> RunOutcome:
        """Return the outcome at theta. With `moves` the outcome may be a point from which the run
        continues.
        """

    def outcome_at_kinks(self, theta: np.ndarray, patient: bool) -> RunOutcome | None:
        """Return the outcome at the active kinks that stop the run, or None if no kinks do. If
        `patient`, the search may take the budget of a proof.
        """


class ProgressMark(NamedTuple):
    """The record at which a run last made progress."""

    iteration: int = 0
    loss: float = np.inf
    gradient_norm: float = np.inf


@dataclass(eq=False)
class RunFacts:
    """The numbers of a run that a checkpoint stores."""

    n_values: int = 0
    n_gradients: int = 0
    n_products: int = 0
    # evaluations, and eigensystems of the Hessian, in checks of stationary points
    n_check_evaluations: int = 0
    n_eigensystems: int = 0
    iteration: int = 0
    # score, loss and gradient norm of the best recorded point, and the number of records since then
    best_score: float = np.inf
    best_f: float = np.inf
    best_gnorm: float = np.inf
    since_best: int = 0
    # requested tolerance, and current tolerance, which is smaller if a verdict needs a smaller
    # gradient
    requested_tol: float = 0.0
    gradient_tol: float = 0.0
    # the last progress, and the last progress while the loss is near its lower bound
    progress: ProgressMark = ProgressMark()
    progress_near_bound: ProgressMark = ProgressMark()
    f_at_restart: float = np.inf  # loss at the last restart of the method
    size_at_start: float = np.inf  # largest magnitude of a parameter at the start
    # iteration up to which the run may continue after the default tolerance is reached
    extra_steps_end: int | None = None
    # number of consecutive steps along negative curvature with a small gain
    n_small_escapes: int = 0
    # number of moves from stationary points to other points, and number of consecutive moves with a
    # small gain
    n_moves: int = 0
    n_small_moves: int = 0


class Run(RunFacts):
    """The shared state of one minimisation.

    Attributes
    ----------
    theta, f, g, gnorm
        The current point, the full objective there, its gradient and the gradient's norm.
    best, best_score
        The recorded point with the lowest score: the validation loss if there is one, else the
        loss.
    records : list of tuple
        The records, each with a number for every name in `record_names`.
    cut : str or None
        The budget that ended inside a step, as `exhausted_budget` names it.
    """

    f = f0 = gnorm = np.inf
    g: Any = None
    best: Any = None
    # longest recent time between two checks of the clock
    gap = 0.0
    # limits of the next call of a method: maximum number of iterations, and gradient norm at which
    # the call ends, which the engine reads by this name
    max_steps = 1
    enough = 0.0
    # True after `MAX_INEXACT_ITERATIONS` iterations without progress; subproblems are then solved
    # more accurately
    idle = False
    # True if the loss is near its lower bound and the tolerance is the default
    near_bound = False
    # value, gradient and gradient norm at theta, from which the next `evaluate_at_theta` reads them
    precomputed: Any = None
    # the engine's object that evaluates the loss and products, or None if the objective is called
    # instead
    points: Any = None
    points_requested = False
    rows: Any = None
    # records that are not in the history yet, the index of the first of them, its iteration, and
    # the validation score if it belongs to the current point
    pending: tuple[list[tuple[Any, ...]], int, int, float | None] | None = None
    cut: str | None = None
    stale = False
    # number of products when theta was reached, if later products belong to further points
    spent_here: int | None = None
    _product: Any = None

    def __init__(
        self,
        ob: Any,
        theta: np.ndarray,
        seed: Any,
        *,
        curvature: str | None = None,
        sample: Any = None,
        validation: Any = None,
        max_time: Any = None,
        max_products: int | None = None,
        fun_target: float | None = None,
    ) -> None:
        super().__init__()
        self.ob = ob
        self.seed = seed
        self.validation = validation
        self.max_time = max_time
        self.max_products = max_products
        self.budget = Budget(seconds=max_time)
        self.pressed = interrupt_source()
        self.curvature = curvature
        self.sample = sample
        self.fun_target = -np.inf if fun_target is None else fun_target
        self.theta = theta
        self.spare = np.empty_like(theta)
        self.last_clock_check = self.budget.begun
        self.records: list[tuple[Any, ...]] = []

    @property
    def rng(self) -> np.random.Generator:
        """The random generator of the run, created on first use, since most runs on small networks
        do not need one.
        """
        # default_rng returns a Generator unchanged
        rng = self.seed = np.random.default_rng(self.seed)
        return rng

    @cached_property
    def eps(self) -> float:
        """The relative spacing of floating-point numbers of theta's dtype."""
        return float(np.finfo(self.theta.dtype).eps)

    def _has_loss_of(self, operator: Any) -> bool:
        """Return True if the attributes `value` and `gradient` of an operator are those of the
        run's objective.
        """
        stated = has_consistent_hessian(self.ob) and states(operator, "gradient")
        return stated and getattr(operator, "objective", self.ob) is self.ob

    @cached_property
    def has_value_and_gradient(self) -> bool:
        """True if the objective computes value and gradient in one call."""
        return states(self.ob, "value_and_gradient")

    @cached_property
    def engine(self) -> EngineSteps | None:
        """The `EngineSteps` of the objective, or None if the engine does not evaluate the loss of
        this objective.
        """
        return engine_steps_of(self.ob)

    # --- costs and budgets

    @property
    def n_evaluations(self) -> int:
        """The number of values, gradients and Hessian products so far."""
        return self.n_values + self.n_gradients + self.n_products

    def elapsed(self) -> float:
        """Return the seconds since the start, including those before a checkpoint."""
        return self.budget.elapsed()

    def exhausted_budget(self) -> str | None:
        """Return the name of the exhausted budget, ``max_time`` or ``max_products``, or None. Raise
        KeyboardInterrupt after Ctrl-C.

        The time budget counts as exhausted if it would end before the next expected call of this
        method.
        """
        if self.cut is not None:
            return self.cut
        if self.pressed is not None and self.pressed():
            raise KeyboardInterrupt
        if self.max_products is not None and self.n_products >= self.max_products:
            return "max_products"
        if self.max_time is not None:
            now = time.perf_counter()
            self.gap = max(CLOCK_DECAY * self.gap, now - self.last_clock_check)
            self.last_clock_check = now
            if self.gap > self.budget.seconds_left():
                return "max_time"
        return None

    def is_out_of_budget(self) -> bool:
        """Check the budgets inside a step. Store the name of an exhausted budget in `cut`, and
        return True if there is one.
        """
        self.cut = self.exhausted_budget()
        return self.cut is not None

    def value(self, theta: np.ndarray) -> float:
        """Return the value of the objective at `theta`, or infinity, without a call, if theta is
        not finite.
        """
        if self._engine_has_points():
            f: float = self.points.trial_loss(np.ascontiguousarray(theta, self.theta.dtype))
            self.n_values += self.points.finite
            return f
        if not all_finite(theta):
            return np.inf
        self.n_values += 1
        return value_at(self.ob, theta)

    def value_and_gradient(self, theta: np.ndarray, ob: Any = None) -> tuple[float, np.ndarray]:
        """Return the value and the gradient (n,) of the full objective, or of `ob`, the objective
        of a batch. The next call may overwrite the gradient of a batch. If theta is not finite,
        return infinity and NaNs without a call.
        """
        if not all_finite(theta):
            return np.inf, np.full_like(theta, np.nan)
        self.n_gradients += 1
        is_full = ob is None
        ob = self.ob if ob is None else ob
        with user_call_guard(ob, theta):
            if self.has_value_and_gradient if is_full else hasattr(ob, "value_and_gradient"):
                f, g = ob.value_and_gradient(theta)
            else:
                f = value_as_float(ob.value(theta))
                g = ob.gradient(theta)
        return value_as_float(f), checked_gradient(g, theta.size, self.theta.dtype, kept=is_full)

    def step_cost(self) -> float:
        """Return the cost of trying and accepting a step, in Hessian products. Values and gradients
        use all rows, whereas products may use a sample of the rows.
        """
        return 3.0 if self.sample is None else 2.0 + self.ob.n_samples / self.sample

    # --- the current point

    def evaluate_at_theta(self) -> None:
        """Compute value, gradient and, for methods that use one, the operator at `theta`."""
        self.f, self.g, self.gnorm = self._values_at_theta()
        self.stale = False

    def _values_at_theta(self) -> tuple[float, np.ndarray, float]:
        """Build the operator at `theta`, and return value, gradient and gradient norm there."""
        operator = self.bind_operator()
        values: tuple[float, np.ndarray, float] | None = self.precomputed
        self.precomputed = None
        if values is None and self._engine_has_points():
            values = self.points.move_to(self.theta)
        if values is not None:
            self.n_gradients += 1
            return values
        f = None
        g = None
        if operator is not None and self.sample is None and self._has_loss_of(operator):
            f = getattr(operator, "value", None)
            g = getattr(operator, "gradient", None)
        if isinstance(f, (float, np.floating)) and isinstance(g, np.ndarray):
            self.n_gradients += 1
        else:
            f, g = self.value_and_gradient(self.theta)
        return float(f), g, norm(g)

    def bind_operator(self) -> Any:
        """Build the operator named by `curvature` at `theta`, over all rows or over a sample of
        rows that is drawn again at each point. Return the operator, or None if the method needs
        none or the engine computes the products.
        """
        self._product = None  # releases the memory of the last operator for the next one
        if self.curvature is None:
            return None
        if self._engine_has_points():
            self.points.set_operator_kind(self.curvature)
            self.points.move_to(self.theta)
            self._product = self.points.times.multiply
            return None
        if self.sample is not None and self.rows is None:
            self.rows = np.sort(self.rng.choice(self.ob.n_samples, self.sample, replace=False))
        with user_call_guard(self.ob, self.theta):
            curved = self.ob if self.sample is None else self.ob.batch(self.rows)
            operator = getattr(curved, self.curvature)(self.theta)
        checked_curvature(operator, self.theta.size, self.curvature)
        self._product = product_function(operator)
        return operator

    def _engine_has_points(self) -> bool:
        """Return True if the engine evaluates the loss and the products, at the run's point and at
        trial points, without calls of the objective. The first call creates `points`, the engine's
        object for these evaluations.
        """
        if self.curvature is None or self.sample is not None:
            return False
        if not self.points_requested:
            self.points_requested = True
            self.points = None if self.engine is None else self.engine.point_evaluator()
        return self.points is not None

    def product(self, v: np.ndarray, out: Any) -> Any:
        """Write the product of the operator with v into `out`, and count it."""
        self.n_products += 1
        self._product(v, out)
        return out

    def accept_trial_point(self) -> None:
        """Make `spare` the current point, and compute value and gradient there. If the operator is
        not defined at the new point, return to the old one and raise NotConvexError.
        """
        self.theta, self.spare, self.rows = self.spare, self.theta, None
        if self._engine_has_points():
            # The operator of the engine moves to the new point.
            self.f, self.g, self.gnorm = self.points.move_to(self.theta)
            self.n_gradients += 1
            return
        try:
            self.evaluate_at_theta()
        except NotConvexError:
            self.theta, self.spare, self.rows = self.spare, self.theta, None
            self.evaluate_at_theta()
            raise

    def set_spare(self, step: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Make `spare` the point ``theta + scale * step``, and return it."""
        np.multiply(step, float(scale), out=self.spare)
        self.spare += self.theta
        return self.spare

    def try_step(self, step: np.ndarray, scale: float = 1.0) -> float:
        """Return the value of the objective at ``theta + scale * step``, and leave that point in
        `spare`.
        """
        return self.value(self.set_spare(step, scale))

    # --- history and state

    @property
    def record_names(self) -> tuple[str, ...]:
        """The names of the quantities in a record: `RECORD_FIELDS`, and "validation" with a
        validation loss.
        """
        return RECORD_FIELDS if self.validation is None else (*RECORD_FIELDS, "validation")

    def past_records(self, count: int | None = None) -> dict[str, np.ndarray]:
        """Return the first `count` records, or all records if `count` is None, as a dict with an
        array for each name.
        """
        return dict(zip(self.record_names, map(np.array, zip(*self.records[:count]))))

    def record(self) -> None:
        """Record the current point. If its score is the lowest so far, keep a copy of the point."""
        spent = self.n_products if self.spent_here is None else self.spent_here
        record: tuple[Any, ...] = self.iteration, self.f, self.gnorm, spent, self.elapsed()
        score = self.f
        if self.validation is not None:
            score = value_at(self.validation, self.theta) if all_finite(self.theta) else np.inf
            record = *record, score
        self.pending = ([record], len(self.records), self.iteration, score)
        self.spent_here = None
        self.write_pending_records()

    def move_to_engine_point(self, engine: Any) -> None:
        """Move to the point that the steps of `engine` have reached."""
        np.copyto(self.spare, engine.theta)
        self.theta, self.spare = self.spare, self.theta
        self.f = engine.value
        self.g = engine.gradient.copy()
        self.gnorm = engine.gradient_norm

    def record_steps(
        self,
        records: list[Any],
        start_time: float,
        ending: str | None,
        complete: bool = True,
    ) -> None:
        """Write the steps of a call of a method, but not the last, to the history. `ending` is the
        limit that ended the steps, or None.

        `start_time` is the elapsed time of the run at which the steps began. `records` has a row
        for each step: the loss, the gradient norm, the seconds since `start_time`, and the number
        of products of the run, if any. `complete` is False if the last step is not counted, because
        Ctrl-C ended the step after it.
        """
        self.cut = "max_time" if ending == "max_time" else self.cut
        if not records:
            return
        *before, last = records
        at = self.iteration + 1
        spent = self.n_products
        rows: list[tuple[Any, ...]]
        if len(last) == 3:
            self.spent_here = spent
            rows = [
                (i, f, g, spent, time + start_time) for i, (f, g, time) in enumerate(before, at)
            ]
        else:
            self.spent_here = last[3]
            each = enumerate(before, at)
            rows = [(i, f, g, spent, time + start_time) for i, (f, g, time, spent) in each]
        self.pending = rows, len(self.records), at + len(rows) - complete, None
        self.write_pending_records()

    def write_pending_records(self) -> None:
        """Write pending records to the history. This is repeated after Ctrl-C during a record, so
        that the best point and its loss belong to the same record.
        """
        if self.pending is None:
            return
        rows, count, self.iteration, score = self.pending
        self.records[count:] = rows
        if score is not None and score < self.best_score:
            if self.best is None:
                self.best = np.empty_like(self.theta)
            np.copyto(self.best, self.theta)
            self.best_score = score
            self.since_best = 0
            self.best_f, self.best_gnorm = self.f, self.gnorm
        elif score is not None:
            self.since_best += 1
        self.pending = None

    def state(self) -> State:
        """Return the state that a resumed run needs, except the history. It consists of a dict of
        arrays and a dict of values that JSON can represent.
        """
        points = {"theta": self.theta, "best": self.best, "rows": self.rows}
        arrays = {name: np.array(x) for name, x in points.items() if x is not None}
        facts = asdict(self)
        facts["elapsed"] = self.elapsed()
        facts["records"] = len(self.records)
        facts["rng"] = generator_state_as_json(self.rng.bit_generator.state)
        facts["f"] = None if self.stale else float(self.f)
        return arrays, facts

    def load(self, arrays: Any, facts: Any) -> None:
        """Restore the values that `state` and `past_records` returned. Raise ValueError if these
        arrays and facts cannot come from a run for the same problem.
        """
        check_run(arrays, facts, self)
        super().__init__(**{entry.name: facts[entry.name] for entry in fields(RunFacts)})
        self.theta = arrays["theta"]
        self.best = arrays.get("best")
        self.rows = arrays.get("rows")
        # JSON has no named tuples.
        self.progress = ProgressMark(*self.progress)
        self.progress_near_bound = ProgressMark(*self.progress_near_bound)
        columns = (arrays["history." + name].tolist() for name in self.record_names)
        self.records = [
            (int(i), f, norm_there, int(spent), *rest)
            for i, f, norm_there, spent, *rest in zip(*columns)
        ]
        self.last_clock_check = time.perf_counter()
        self.budget.begun = self.last_clock_check - facts["elapsed"]
        self.seed = restore_generator(facts.get("rng"))


check_not_negative = partial(check_positive, zero=True)


def check_row_batch_size(ob: Any, count: Any, name: str) -> int | None:
    """Return `count`, the number of rows to use at a time, or None if all rows are used. `name` is
    the name of the option. Raise ValueError if `count` is not None and the objective cannot be
    restricted to rows.
    """
    if count is None:
        return None
    count = check_positive_int(count, name)
    # A forwarded `batch` returns another loss.
    if not (hasattr(type(ob), "batch") and hasattr(ob, "n_samples")):
        raise ValueError(
            f"{name} must be None for an objective without batch(rows) and n_samples, got {count}."
        )
    return None if count >= ob.n_samples else count


def option(default: Any, check: Callable[[Any, str], Any] | None = None) -> Any:
    """Return the dataclass field of an option. ``check(value, name)`` returns the value to use, or
    raises an error. It is not called for the default.
    """
    return field(default=default, metadata={"check": check})


class Method:
    """Base class of minimisers, which move the run one iteration at a time.

    Class attributes
    ----------------
    Options : type
        The frozen dataclass of the method's options, with their defaults and checks.
    curvature : str or None
        Name of the objective's method that returns the operator: ``hessian`` or ``ggn``.
    leaves_saddles : bool
        True if the run follows negative curvature and continues where the gradient vanishes.
    adapts : bool
        True if a radius or damping is adapted, so that a restart may find a step if the method
        finds none.
    """

    @dataclass(frozen=True)
    class Options:
        """The options of a method."""

    options: Options
    curvature: str | None = None
    leaves_saddles = adapts = False

    def __init__(self, run: Any, **options: Any) -> None:
        self.run = run
        checked = {}
        for entry in fields(self.Options):
            value = options.get(entry.name, entry.default)
            check = entry.metadata["check"]
            unchecked = check is None or value is entry.default
            checked[entry.name] = value if unchecked else check(value, entry.name)
        self.options = self.Options(**checked)

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(entry.name for entry in fields(cls.Options))

    def settings(self) -> dict[str, Any]:
        """Return the values of the options by name, for the history of the run."""
        return dict(vars(self.options))

    def state(self) -> State:
        """Return two dicts by name with what a resumed run needs: copies of arrays (n,), and values
        that JSON can represent.
        """
        return {}, {}

    def load(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Restore the arrays and facts that `state` returned. Arrays that were None are missing."""

    def step(self) -> str | None:
        """Move the run and return None, or return the key in `CLAUSES["cause"]` of the reason why
        no step was possible.
        """
        raise NotImplementedError
