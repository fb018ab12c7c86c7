"""The main loop of `minimize`: iterations until a stopping rule holds, then the verdict and the
result.

A run is a problem, a state and a step. The ending is decided in this order:

1. Before each step, the first of the loop's `rules` that holds ends the run and, unless the
   gradient is zero, a budget that is used up.
2. If none holds and the gradient is zero, `_examine_critical_point` ends the run or moves on.
3. If the method then finds no step and a restart does not help, the run has stalled.
4. If the run ended without a zero gradient, `_move_onto_kinks` searches for a minimum at kinks.
5. `_finish_run` classifies the reported point if nothing has done so, which may change the ending,
   and `_make_result` derives kind and message. `is_success` in `run.py` follows from both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from ..common.checks import all_finite
from ..common.linalg import NotFiniteError
from ..common.objectives import value_at, value_lower_bound, value_rounding_error
from ..common.outcome import outcome as as_result
from ..common.progress import NO_PROGRESS, show_bar
from ..common.sentences import Note, render_notes
from ..common.vectors import equal_vectors, norm
from .callbacks import Checkpoint, EarlyStopping
from .checkpoint import (
    CheckpointWriter,
    SavedRun,
    check_saved_loss,
    generator_state_as_json,
)
from .escape import curvature_start_vectors, lowest_curvature
from .line_search import initial_trial_length, line_minimum
from .method import ONE_STEP, Limits, Method, State
from .problem import Problem
from .run import (
    MAX_SMALL_GAINS,
    SMALL_GAIN_RATIO,
    STATUS_CODES,
    CheckCounts,
    History,
    MinimizeResult,
    PointExaminer,
    RunOutcome,
    ending_of_kind,
    is_success,
)

# maximum number of iterations of a second-order method without progress; then the run ends
MAX_IDLE_ITERATIONS = 50
# number of iterations without progress after which subproblems are no longer solved inaccurately to
# save products
MAX_INEXACT_ITERATIONS = 10
# The run ends if the loss, near its lower bound, decreases in `MAX_IDLE_ITERATIONS` iterations by
# less than this fraction of its decrease so far.
NEGLIGIBLE_DECREASE_RATIO = 1e-6
# The loss counts as near its lower bound if the difference is at most this fraction of the
# difference at the start.
NEAR_BOUND_FRACTION = 1e-4
# A run whose loss fell by less than 1% in this number of iterations is checked for kinks.
KINK_CHECK_ITERATIONS = 100
# the endings whose name is the key of a sentence that needs no number
NAMED_ENDINGS = (
    "max_iter", "max_time", "max_products", "callback", "target", "diverged", "interrupted",
    "unbounded", "tolerance",
)  # fmt: skip
loss_of_record = itemgetter(1)  # function that maps a record to its loss
# number of doublings of a large theta that test whether the loss is unbounded below
N_THETA_DOUBLINGS = 8
MAX_EXTRA_STEPS = 12  # maximum number of steps after the default tolerance is reached
# fraction of the default tolerance at which the extra steps end
EXTRA_STEP_TOL = 1e-4
# Growth of the largest parameter during a run that ends at no critical point, from which the
# infimum appears to be at infinity. In 300 fits of small networks, in which the loss decreased at
# each doubling of the largest parameter, it grew by factors of 57 to 1e10.
GROWTH_TO_INFINITY = 50.0
# minimum relative decrease of the loss that counts as progress, in `MAX_IDLE_ITERATIONS` iterations
# or since the last restart of the method: about the square root of the unit roundoff
MIN_RELATIVE_DECREASE = 1e-8


RECORD_FIELDS = "iteration", "loss", "gradient_norm", "products", "time"


class Ending(NamedTuple):
    """How a run ends: a key of `STATUS_CODES`, and the notes on it."""

    name: str
    notes: tuple[Note, ...] = ()


class ProgressMark(NamedTuple):
    """The record at which a run last made progress."""

    iteration: int = 0
    loss: float = np.inf
    gradient_norm: float = np.inf


class BestPoint(NamedTuple):
    """The recorded point with the lowest score, the validation loss or else the loss."""

    theta: np.ndarray
    score: float
    f: float
    gnorm: float


@dataclass
class Trace:
    """What a run has passed, which a checkpoint stores together with the records.

    Attributes
    ----------
    iteration : int
        Number of iterations.
    since_best : int
        Number of records since the best one.
    requested_tol, gradient_tol : float
        The requested tolerance, and the current one, which is smaller if a verdict needs a smaller
        gradient.
    progress, progress_near_bound : ProgressMark
        The last progress, and the last progress while the loss is near its lower bound.
    f0, f_at_restart, size_at_start : float
        The loss at the start and at the last restart of the method, and the largest magnitude of a
        parameter at the start.
    extra_steps_end : int or None
        Iteration up to which the run may continue after the default tolerance is reached.
    n_small_escapes : int
        Number of consecutive steps along negative curvature with a small gain.
    """

    iteration: int = 0
    since_best: int = 0
    requested_tol: float = 0.0
    gradient_tol: float = 0.0
    progress: ProgressMark = ProgressMark()
    progress_near_bound: ProgressMark = ProgressMark()
    f0: float = np.inf
    f_at_restart: float = np.inf
    size_at_start: float = np.inf
    extra_steps_end: int | None = None
    n_small_escapes: int = 0


NO_STOP = EarlyStopping()
NO_CHECKPOINT = Checkpoint()
Record = tuple[Any, ...]  # a number for each of `RECORD_FIELDS`, and a validation loss
Rule = Callable[[Any, Any, Trace], Ending | None]  # of the loop, the state and the trace


def _slow_progress_note(before: float, after: float) -> Note:
    """Return the note on `MAX_IDLE_ITERATIONS` iterations in which the loss went from `before` to
    `after`, with as many digits as are needed to distinguish the two.
    """
    numbers = {"n_iterations": MAX_IDLE_ITERATIONS}
    if not after < before:
        return Note("no_decrease", {"before": before, **numbers})
    digits = next(d for d in range(4, 18) if f"{after:.{d}g}" != f"{before:.{d}g}")
    ends = {"before": f"{before:.{digits}g}", "after": f"{after:.{digits}g}"}
    return Note("slow", {**ends, **numbers})


def _last_progress(
    mark: ProgressMark, records: list[tuple[Any, ...]], share: float, origin: float
) -> ProgressMark:
    """Return the last of the records that made progress since the previous one, beginning with
    `mark`, or `mark` if none did. Progress means that the loss decreased by the fraction `share` of
    its distance from `origin`, or that the gradient norm was halved.
    """
    for record in records:
        f = record[1]
        if f < mark.loss - share * abs(f - origin) or record[2] < 0.5 * mark.gradient_norm:
            mark = ProgressMark(record[0], f, min(record[2], mark.gradient_norm))
    return mark


class MinimizeLoop:
    """The main loop of `minimize` on validated arguments. `name` is the name of the method.
    `examiner` examines the points at which the gradient is zero; if it is None, there is no
    verdict.
    """

    def __init__(
        self,
        problem: Problem,
        theta: np.ndarray,
        method: Method,
        name: str,
        *,
        gradient_tol: float | None,
        max_iter: int,
        callback: Callable[[MinimizeResult], bool] | None,
        stop: EarlyStopping = NO_STOP,
        checkpoint: Checkpoint = NO_CHECKPOINT,
        options: dict[str, Any] | None = None,
        examiner: PointExaminer | None = None,
    ) -> None:
        self.problem = problem
        self.start = theta
        self.method = method
        self.name = name
        self.max_iter = max_iter
        self.callback = callback
        self.stop = stop
        self.saver = CheckpointWriter(checkpoint, name, options or {})
        self.examiner = examiner
        # True if the method must return after every step, for example because there is a callback
        self.watched = not (callback is None and stop == NO_STOP and checkpoint.path is None)
        default = 1e-6 if theta.dtype == np.float64 else 1e-3
        self.by_default = gradient_tol is None
        tol = default if gradient_tol is None else gradient_tol
        self.trace = Trace(requested_tol=tol, gradient_tol=tol)
        self.records: list[Record] = []
        self.best: BestPoint | None = None
        self.bottom = value_lower_bound(problem.ob)
        # The rules that can hold in this run, in order. Bound methods would be a reference cycle,
        # which keeps the engine's plans from the next run.
        kind = type(self)
        rules: list[tuple[Rule, bool]] = [
            (kind._target, problem.fun_target > -np.inf),
            (kind._unbounded, self.bottom == -np.inf),
            (kind._diverged, True),
            (kind._patience, stop.patience is not None),
            (kind._idle, method.curvature is not None),
            (kind._idle_near_bound, method.curvature is not None),
        ]
        self.rules = tuple(rule for rule, applies in rules if applies)
        self.shown: Any = None
        self.state: Any = None
        self.ending: Ending | None = None
        self.outcome: RunOutcome | None = None

    @property
    def why(self) -> str | None:
        """The name of the ending, or None before the end."""
        return None if self.ending is None else self.ending.name

    def ended_with(self, note: str) -> bool:
        """Return True if a note of this name is on the ending: ``rounded`` if no step lowers the
        loss, even after a restart of the method, and ``jump`` if the gradient jumps at the last
        point.
        """
        return self.ending is not None and any(name == note for name, _ in self.ending.notes)

    @property
    def record_names(self) -> tuple[str, ...]:
        """The names of the quantities in a record."""
        watched = self.stop.validation is not None
        return (*RECORD_FIELDS, "validation") if watched else RECORD_FIELDS

    def past_records(self) -> dict[str, np.ndarray]:
        """Return the records as a dict with an array for each name."""
        return dict(zip(self.record_names, map(np.array, zip(*self.records))))

    def continue_run(
        self, before: MinimizeResult, theta: np.ndarray, records: list[Record]
    ) -> None:
        """Continue from theta, at which another run for the same objective ended with the result
        `before`, and count its steps, with their records, as steps of this run. End at once if a
        limit ended the other run.
        """
        self.start = theta
        self.trace.iteration = before.nit
        self.records = records[: before.nit]
        # The gradients include that at the start.
        self.problem.charge(before.nfev - before.njev, before.njev + 1, before.nhev)
        # The time of the first run does not count as a gap between two checks of the clock.
        self.problem.skip_time(before.wall_time)
        limits = "max_iter", "max_time", "max_products", "callback", "interrupted"
        self.ending = Ending(str(before.stopped)) if before.stopped in limits else None

    def run_to_end(self, saved: SavedRun | None, progress: bool | None) -> MinimizeResult:
        """Run to the end, from the start or from the state in a checkpoint."""
        if saved is None:
            self._begin()
        else:
            self._resume(saved)
        try:
            bar_length = None if self.method.curvature else self.max_iter
            with show_bar(bar_length, self.name, progress) as self.shown:
                self.shown.update(self.trace.iteration)
                self._iterate()
                self._move_onto_kinks()
        except KeyboardInterrupt:
            self.ending = Ending("interrupted")
        except Exception:
            # The objective or the callback raised an exception.
            self.saver.write_snapshot(self)
            raise
        return self._finish_run()

    def _begin(self) -> None:
        state = self.state = self.method.init(self.problem, self.start)
        if not (math.isfinite(state.f) and math.isfinite(state.gnorm)):
            raise NotFiniteError(
                f"the value and gradient of ob must be finite at theta0, got value {state.f} and "
                f"gradient norm {state.gnorm}. Use another theta0, or scale the data."
            )
        self.trace.f0 = self.records[0][1] if self.records else state.f
        self.trace.f_at_restart = state.f
        self.trace.size_at_start = float(np.abs(state.theta).max(initial=0.0))
        self._record()
        self._mark_progress_of_records(1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of the run that a checkpoint stores, by name."""
        best = None if self.best is None else self.best.theta
        points = {"theta": self.state.theta, "best": best, "rows": self.problem.rows}
        return {f"run.{name}": x for name, x in points.items() if x is not None}

    def facts(self) -> dict[str, Any]:
        """Return the values of the run that a checkpoint stores and JSON can represent, by name."""
        score, f, gnorm = (np.inf,) * 3 if self.best is None else self.best[1:]
        checks = asdict(CheckCounts() if self.examiner is None else self.examiner.so_far)
        return {
            **asdict(self.trace), **self.problem.counts(), **checks,
            "best_score": score, "best_f": f, "best_gnorm": gnorm,
            "f": None if self.state.g is None else float(self.state.f),
            "elapsed": self.problem.elapsed(), "records": len(self.records),
            "rng": generator_state_as_json(self.problem.rng.bit_generator.state),
        }  # fmt: skip

    def _resume(self, saved: SavedRun) -> None:
        """Restore the run that a checkpoint holds. The tolerance of this call replaces that of the
        saved run.
        """
        problem = self.problem
        tol = self.trace.requested_tol
        facts = saved.facts
        self.state = State(self.start, np.nan, None, np.nan)
        saved.check(self.facts(), problem.ob, self.record_names)
        problem.restore(saved.rows, saved.rng, facts["elapsed"])
        fresh = self.method.init(problem, self.start)
        check_saved_loss(facts["f"], fresh.f, self.start.dtype)
        self.state = saved.restore_state(fresh)
        problem.restore_counts(facts)
        if self.examiner is not None:
            names = asdict(self.examiner.so_far)
            self.examiner.so_far = CheckCounts(**{name: facts[name] for name in names})
        self.trace = trace = Trace(**{entry.name: facts[entry.name] for entry in fields(Trace)})
        trace.progress = ProgressMark(*trace.progress)
        trace.progress_near_bound = ProgressMark(*trace.progress_near_bound)
        if trace.requested_tol != tol:
            trace.requested_tol = trace.gradient_tol = tol
        self.records = saved.records(self.record_names)
        if "run.best" in saved.arrays:
            scores = facts["best_score"], facts["best_f"], facts["best_gnorm"]
            self.best = BestPoint(saved.arrays["run.best"], *scores)

    def _iterate(self) -> None:
        """Take steps until a stopping rule holds, and store the ending."""
        while True:
            self.ending = self.stopping_reason()
            if self.ending is None and self.is_critical() and not self._continues_past_tolerance():
                self.saver.take_snapshot(self)
                self.ending = self._examine_critical_point()
                if self.ending is None:
                    self.finish_iteration()
                    continue
            if self.ending is not None:
                return
            self.saver.take_snapshot(self)
            if self.state.cause is None:
                self.state = self.method.step(self.problem, self.state, self._limits())
                if self.state.steps:
                    self._record_steps()
                    self.finish_iteration(len(self.state.steps) - 1)
                    if self.state.cause == "interrupted":
                        self.ending = Ending("interrupted")
                        return
                    continue
            cause = self.state.cause
            if cause is None:
                self.ending = Ending(str(self.problem.cut))
                return
            if self.is_critical():
                self.trace.extra_steps_end = self.trace.iteration
                self.state = self.state.replace(cause=None)
            elif not self._restart_method():
                self.ending = Ending("stalled", self._stall_notes(cause))
                return

    def _limits(self) -> Limits:
        """Return the limits of the next call of the method: the number of iterations until the loop
        must check its stopping rules, and the gradient norm at which the call ends.
        """
        if not self.method.grouped:
            return ONE_STEP
        trace = self.trace
        idle = self._n_idle_iterations_left(trace.progress)
        idle -= MAX_IDLE_ITERATIONS - MAX_INEXACT_ITERATIONS
        near_bound = self._may_stop_near_bound()
        critical = self.is_critical()
        count = 1.0
        if not (self.watched or self.bottom == -np.inf or critical or idle <= 0):
            left = self._n_idle_iterations_left(trace.progress_near_bound) if near_bound else np.inf
            count = max(1.0, min(self.max_iter - trace.iteration, idle, left))
        return Limits(int(count), 0.0 if critical else trace.gradient_tol, idle <= 0, near_bound)

    def _stall_notes(self, cause: str) -> tuple[Note, ...]:
        """Return the notes on a run that stalled because of `cause`."""
        stalled = Note("stalled", {"cause": cause})
        if cause == "not_convex":
            return (stalled, Note("newton_methods"))
        if not self.method.adapts:
            return (stalled,)
        single = (Note("float64"),) * (self.state.theta.dtype == np.float32)
        return (Note("rounded", {"cause": cause}), *single)

    # --- records

    def _record_steps(self) -> None:
        """Write all but the last step of a call of the method to the history."""
        *before, _ = self.state.steps
        if not before and self.state.lowest is None:
            return
        start_time = self.problem.elapsed() - self.state.steps[-1].seconds
        first = self.trace.iteration + 1
        self.records += [
            (i, one.f, one.gnorm, one.n_products, one.seconds + start_time)
            for i, one in enumerate(before, first)
        ]
        self.trace.iteration += len(before)
        lowest = self.state.lowest
        if lowest is not None and (self.best is None or lowest[1] < self.best.score):
            theta, f, gnorm = lowest
            self.best = BestPoint(theta, f, f, gnorm)

    def _record(self) -> None:
        """Record the current point, and keep it if its score is the lowest so far."""
        state = self.state
        score = state.f
        spent = state.steps[-1].n_products if state.steps else self.problem.n_products
        record: Record = (
            self.trace.iteration, state.f, state.gnorm, spent, self.problem.elapsed()
        )  # fmt: skip
        if self.stop.validation is not None:
            score = np.inf
            if all_finite(state.theta):
                score = value_at(self.stop.validation, state.theta)
            record = *record, score
        self.records.append(record)
        better = score < (np.inf if self.best is None else self.best.score)
        if better:
            self.best = BestPoint(state.theta, score, state.f, state.gnorm)
        self.trace.since_best = 0 if better else self.trace.since_best + 1

    def finish_iteration(self, passed: int = 0) -> None:
        """Count the iteration, record it, show progress, call the callback, and save if due.
        `passed` is the number of earlier iterations of the same call, which are recorded already.
        """
        self.trace.iteration += 1
        state = self.state
        stale = state.g is None
        if not stale:
            self._record()
            if self.method.curvature is not None:
                self._mark_progress_of_records(passed + 1)
        if self.shown is not NO_PROGRESS:
            self.shown.note(f"loss {state.f:.6g}" + ("" if stale else f"  |g| {state.gnorm:.2g}"))
            self.shown.update(passed + 1)
        if self.callback is not None:
            gradient = {} if stale else {"jac": state.g.copy()}
            at = {"x": state.theta.copy(), "fun": state.f, "nit": self.trace.iteration}
            spent = self.problem.n_products
            if self.callback(as_result(MinimizeResult, **at, nhev=spent, **gradient)):
                self.ending = Ending("callback")
        self.saver.save_if_due(self)

    # --- stopping rules

    def stopping_reason(self) -> Ending | None:
        """Return the ending at the current point, or None to continue. Budgets count only while the
        gradient is not zero.
        """
        if self.ending is not None:
            return self.ending
        for rule in self.rules:
            ending = rule(self, self.state, self.trace)
            if ending is not None:
                return ending
        name = None if self.is_critical() else self._exhausted_budget()
        return None if name is None else Ending(name)

    def _target(self, state: State, trace: Trace) -> Ending | None:
        reached = math.isfinite(state.f) and state.f <= self.problem.fun_target
        return Ending("target") if reached and state.g is not None else None

    def _unbounded(self, state: State, trace: Trace) -> Ending | None:
        """End a run whose loss appears to be unbounded below: no lower bound is known, theta is
        very large, and the loss is below its value at the start and decreases at each of the next
        `N_THETA_DOUBLINGS` doublings of theta, or until it overflows.
        """
        large = 1e30 if state.theta.dtype == np.float64 else 1e8
        if not (state.f < trace.f0 and np.abs(state.theta).max() > large):
            return None
        f = state.f
        for i in range(1, N_THETA_DOUBLINGS + 1):
            before = f
            f = self.problem.value(state.theta * state.theta.dtype.type(2.0**i))
            if not f < before:
                return None if np.isfinite(f) else Ending("unbounded")
        return Ending("unbounded")

    def _diverged(self, state: State, trace: Trace) -> Ending | None:
        finite = math.isfinite(state.f) and math.isfinite(state.gnorm)
        return None if finite else Ending("diverged")

    def _patience(self, state: State, trace: Trace) -> Ending | None:
        if trace.since_best < (self.stop.patience or 0):
            return None
        watched = "loss" if self.stop.validation is None else "validation loss"
        records = {"n_records": trace.since_best, "patience": self.stop.patience}
        return Ending("patience", (Note("patience", {"watched": watched, **records}),))

    def _idle(self, state: State, trace: Trace) -> Ending | None:
        if self._n_idle_iterations_left(trace.progress) > 0:
            return None
        limits = {"n_iterations": MAX_IDLE_ITERATIONS, "fraction": MIN_RELATIVE_DECREASE}
        return Ending("slow", (Note("idle", limits),))

    def _idle_near_bound(self, state: State, trace: Trace) -> Ending | None:
        mark = trace.progress_near_bound
        if not self._may_stop_near_bound() or self._n_idle_iterations_left(mark) > 0:
            return None
        return Ending("slow", (_slow_progress_note(mark.loss, state.f),))

    def _restart_method(self) -> bool:
        """Restart the method if it finds no step, as a repeated call of `minimize` would. Return
        False if the loss has hardly decreased since the last restart, or the method has no radius
        or damping.

        The rounding of values near the end makes a radius or a damping collapse. The method does
        not recover from this, although longer steps still lower the loss.
        """
        f = self.state.f
        if not self.method.adapts:
            return False
        if not self.trace.f_at_restart - f > MIN_RELATIVE_DECREASE * abs(f):
            return False
        self.trace.f_at_restart = f
        self.state = self.method.init(self.problem, self.state.theta)
        return True

    def _n_idle_iterations_left(self, mark: ProgressMark) -> float:
        """Return the number of iterations that may follow before `MAX_IDLE_ITERATIONS` have passed
        since the last progress in `mark`. Return infinity for a first-order method.
        """
        idle = self.method.curvature is not None
        return mark.iteration + MAX_IDLE_ITERATIONS - self.trace.iteration if idle else np.inf

    def _exhausted_budget(self) -> str | None:
        """Return the name of the budget that is used up, or None."""
        over = self.trace.iteration >= self.max_iter
        return "max_iter" if over else self.problem.exhausted_budget()

    def is_critical(self) -> bool:
        """Return True if the gradient is known and within the tolerance."""
        return self.state.g is not None and self.state.gnorm <= self.trace.gradient_tol

    def _continues_past_tolerance(self) -> bool:
        """Return True if a run that has reached the default tolerance takes another step. The
        method must be of second order, in float64 and with a verdict. Fewer than `MAX_EXTRA_STEPS`
        such steps have been taken, and the gradient exceeds `EXTRA_STEP_TOL` times the tolerance.
        These steps take little time, and end where Newton's steps contract.
        """
        trace = self.trace
        if not self.by_default or not self.method.curvature or self.examiner is None:
            return False
        if trace.extra_steps_end is None:
            more = MAX_EXTRA_STEPS if self.state.theta.dtype == np.float64 else 0
            trace.extra_steps_end = trace.iteration + more
        far = self.state.gnorm > EXTRA_STEP_TOL * trace.gradient_tol
        return far and trace.iteration < trace.extra_steps_end

    def _mark_progress_of_records(self, count: int) -> None:
        """Update the last progress by the last `count` records, and that near the lower bound of
        the loss by the records near it, with a threshold of its own.
        """
        last = self.records[-count:]
        trace = self.trace
        trace.progress = _last_progress(trace.progress, last, MIN_RELATIVE_DECREASE, 0.0)
        if self._is_near_lower_bound(min(last, key=loss_of_record)[1]):
            close = [one for one in last if self._is_near_lower_bound(one[1])]
            trace.progress_near_bound = _last_progress(
                trace.progress_near_bound, close, NEGLIGIBLE_DECREASE_RATIO, self.loss_scale
            )

    def _may_stop_near_bound(self) -> bool:
        """Return True if neither a tolerance nor a target loss was requested, and the loss is near
        its lower bound (see `_is_near_lower_bound`).
        """
        by_default = self.by_default and self.problem.fun_target == -np.inf
        return by_default and self._is_near_lower_bound(self.state.f)

    @cached_property
    def loss_scale(self) -> float:
        """The loss at the start, or that at theta = 0 if it is smaller, because a start whose
        outputs are orders of magnitude larger than the targets gives no scale for the remaining
        decrease.
        """
        zero = value_at(self.problem.ob, np.zeros_like(self.state.theta))
        return zero if zero < self.trace.f0 else self.trace.f0

    def _is_near_lower_bound(self, f: float) -> bool:
        """Return True if the excess of the loss f over its lower bound is at most
        `NEAR_BOUND_FRACTION` of the excess at the start and of that at theta = 0.
        """
        if not f - self.bottom <= NEAR_BOUND_FRACTION * (self.trace.f0 - self.bottom) < np.inf:
            return False
        return f - self.bottom <= NEAR_BOUND_FRACTION * (self.loss_scale - self.bottom)

    # --- points where the gradient is zero

    def _examine_critical_point(self) -> Ending | None:
        """Examine the current point, where the gradient is zero: move to a lower point and return
        None, or return the ending.
        """
        problem = self.problem
        state = self.state
        if self._exhausted_budget() or not self.method.leaves_saddles(problem):
            return Ending("critical")
        if self.examiner is None or not self.examiner.is_out_of_budget():
            H = problem.ob.hessian(state.theta)
            curvature, v, rounding, spent = lowest_curvature(
                H,
                problem.rng,
                curvature_start_vectors(problem.ob, state.theta, H, state.g),
                max_products=40,
                stop=problem.is_out_of_budget,
            )
            problem.charge(n_products=spent)
            if curvature < -rounding and self._move_along(v):
                return None
        if self.examiner is None:
            return Ending("critical")
        outcome = self.examiner.examine(state.theta, state, self.trace.f0, moves=True)
        if outcome.stopped is not None:
            self.outcome = outcome
            return Ending(outcome.stopped)
        if outcome.finer:
            self.trace.gradient_tol = min(0.01 * self.trace.gradient_tol, 0.1 * state.gnorm)
        self._move_to(outcome.theta)
        return None

    def _move_to(self, theta: np.ndarray) -> None:
        """Continue from theta with the state of the method."""
        values = self.problem.move_to(theta, self.method.kind(self.state))
        self.state = self.state.moved_to(theta, values, steps=())

    def _move_along(self, v: np.ndarray) -> bool:
        """Move to the lowest point found on the line along v. Return False if no point is lower by
        more than rounding, or after `MAX_SMALL_GAINS` small gains in a row.
        """
        theta, f0 = self.state.theta, self.state.f
        t, f = line_minimum(self.problem.value, theta, v, f0, initial_trial_length(theta))
        gain = f0 - f
        if not gain > value_rounding_error(f0, theta.dtype):
            return False
        small = gain < SMALL_GAIN_RATIO * abs(f0)
        self.trace.n_small_escapes = self.trace.n_small_escapes + 1 if small else 0
        # Steps along curvature that consists of rounding errors might never end.
        if self.trace.n_small_escapes > MAX_SMALL_GAINS:
            return False
        self._move_to(v * float(t) + theta)
        return True

    # --- results

    def _choose_reported_point(self) -> tuple[np.ndarray, float, float]:
        """Return the point to report, with its loss and its gradient norm. It is the best recorded
        point for a first-order method, with a validation loss, or after an interruption or
        divergence. Otherwise it is the last point.
        """
        state = self.state
        best_wanted = (
            self.stop.validation is not None
            or (self.method.curvature is None and self.why != "critical")
            or self.why in ("interrupted", "diverged")
        )
        if best_wanted and self.why != "target" and self.best is not None:
            if state.g is None or not equal_vectors(self.best.theta, state.theta):
                self.outcome = None
            return self.best.theta, self.best.f, self.best.gnorm
        return state.theta, state.f, state.gnorm

    def _gradient_jump_note(self) -> Note | None:
        """Return the note on a jump of the gradient next to the last point, or None if there is no
        jump.

        The change of a smooth function's gradient shrinks in proportion to the step. A jump is
        found if a step 100 times smaller changes the gradient by more than a tenth as much.
        """
        state = self.state
        kind = state.theta.dtype.type
        unit = np.sqrt(float(np.finfo(state.theta.dtype).eps)) * np.maximum(
            1.0, np.abs(state.theta)
        )  # scale of each parameter
        moved = np.abs(state.g) > 0
        step = state.g * kind(-(unit[moved] / np.abs(state.g[moved])).min(initial=np.inf))
        further, close = (
            norm(self.problem.value_and_gradient(state.theta + kind(t) * step)[1] - state.g)
            for t in (100.0, 1.0)
        )
        if not (close > 0.1 * further and close > 1e-3 * state.gnorm):
            return None
        return Note(
            "jump", {"distance": f"{norm(step):.1g}", "ratio": f"{close / state.gnorm:.2g}"}
        )

    def _move_onto_kinks(self) -> None:
        """If the run stalled or reached max_iter, search for a minimum at active kinks near theta.
        If one is found, make it the outcome of the run. Otherwise, if the run stalled, mention a
        jump of the gradient in the message.
        """
        at_rest = self.state.gnorm <= self.trace.gradient_tol
        if self.why not in ("stalled", "slow", "max_iter") or not self.method.curvature or at_rest:
            return
        stalled = self.why != "max_iter"
        outcome = None
        last = [record[1] for record in self.records[-KINK_CHECK_ITERATIONS:]]
        crawls = len(last) == KINK_CHECK_ITERATIONS and last[0] - last[-1] < 0.01 * abs(last[0])
        if self.examiner is not None and (stalled or crawls):
            self.shown.note("searching for a minimum at active kinks")
            outcome = self.examiner.outcome_at_kinks(
                self.state.theta, self.state, self.trace.f0, patient=stalled
            )
        if outcome is not None and (stalled or outcome.kind == "minimum"):
            self.outcome = outcome
            self.ending = Ending(str(outcome.stopped))
        elif stalled and self.ending is not None:
            jump = self._gradient_jump_note()
            notes = () if jump is None else (jump,)
            self.ending = Ending(self.ending.name, (*self.ending.notes, *notes))

    def _finish_run(self) -> MinimizeResult:
        self.saver.save_final_state(self)
        # The last point is always recorded.
        if self.records[-1][0] != self.trace.iteration:
            values = self.problem.evaluate(self.state.theta, self.method.kind(self.state))
            self.state = self.state.moved_to(self.state.theta, values)
            self._record()
        x, fun, gnorm = self._choose_reported_point()
        at_rest = gnorm <= self.trace.requested_tol or (
            self.why == "slow" and self._may_stop_near_bound()
        )
        may_classify = self.why not in ("interrupted", "unbounded", "target")
        at_rest = at_rest or (self.ended_with("rounded") and not self.ended_with("jump"))
        if self.outcome is None and at_rest and self.examiner is not None and may_classify:
            self._classify_end_point(x, self.examiner)
        return self._make_result(x, fun, gnorm)

    def _classify_end_point(self, x: np.ndarray, examiner: PointExaminer) -> None:
        try:
            outcome = examiner.examine(x, self.state, self.trace.f0, moves=False)
        except KeyboardInterrupt:
            self.ending = Ending("interrupted")
            return
        self.outcome = outcome
        stopped = str(outcome.stopped)
        idle = self.why == "stalled" or (self.why == "slow" and not self._may_stop_near_bound())
        explained = idle and stopped != "critical"
        if self.why == "critical" or is_success(stopped, outcome.kind) or explained:
            self.ending = Ending(stopped)

    def _end_with_kind(self, kind: str | None) -> tuple[str, tuple[Note, ...]]:
        """Return the ending of the run after the point of this kind was examined, and the notes on
        this ending.
        """
        ending = self.ending or Ending("critical")
        why = ending_of_kind(ending.name, kind)
        if why == "tolerance":
            why = self._exhausted_budget() or why
        size = float(np.abs(self.state.theta).max(initial=0.0))
        start = self.trace.size_at_start
        ended = why in ("stalled", "slow", "tolerance") and kind in ("not_critical", "undecided")
        if ended and size > GROWTH_TO_INFINITY * max(1.0, start):
            penalty = Note("l2" if hasattr(self.problem.ob, "l2") else "penalty")
            return "infinity", (Note("growth", {"before": start, "after": size}), penalty)
        return why, ending.notes or ((Note(why),) if why in NAMED_ENDINGS else ())

    def _make_result(self, x: np.ndarray, fun: float, gnorm: float) -> MinimizeResult:
        problem = self.problem
        state = self.state
        outcome = self.outcome
        tol = self.trace.requested_tol
        kind = None
        report = None
        if outcome is not None:
            x = outcome.theta
            kind = outcome.kind
            notes = outcome.notes
            report = outcome.report
        elif gnorm <= tol or self.why == "target":
            missing = "no_verdict_requested" if self.examiner is None else "no_verdict_reached"
            notes = (Note("small_gradient", {"gradient_norm": float(gnorm)}), Note(missing))
        else:
            # The point may be a minimum at active kinks, where no gradient is small.
            kind = "undecided" if self.ended_with("jump") else "not_critical"
            sizes = {"gradient_norm": float(gnorm), "gradient_tol": float(tol)}
            notes = (Note("large_gradient", sizes),)
        is_current_point = state.g is not None and (
            x is state.theta or equal_vectors(x, state.theta)
        )
        if outcome is not None and not is_current_point:
            fun = problem.value(x)
        jac = state.g if is_current_point else problem.value_and_gradient(x)[1]
        why, by_rule = self._end_with_kind(kind)
        if fun <= problem.fun_target and not is_success(why, kind):
            # The last Newton steps reached the requested loss.
            why, kind, report, notes, by_rule = "target", None, None, (), (Note("target"),)
        success = is_success(why, kind)
        advice = [Note("continue")] * (why == "slow" and not success)
        unclassified = report is None and why != "lower_bound"
        if unclassified and self.examiner is not None and hasattr(problem.ob, "hessian"):
            advice.append(Note("classify"))
        notes = (*by_rule, *notes, *advice)
        return as_result(
            MinimizeResult,
            x=np.array(x),
            fun=fun,
            jac=np.array(jac),
            nit=self.trace.iteration,
            nfev=problem.n_values + problem.n_gradients,
            njev=problem.n_gradients,
            nhev=problem.n_products,
            status=STATUS_CODES[why],
            stopped=why,
            success=success,
            kind=kind,
            message=render_notes(notes),
            report=report,
            notes=notes,
            history=History(self.past_records(), self.name, self.method.settings(state)),
            method=self.name,
            wall_time=problem.elapsed(),
        )
