"""The main loop of `minimize`: iterations until a stopping rule holds, then the verdict and the
result.

The ending of a run is decided in this order:

1. Before each step, `stopping_reason` returns the first rule that holds: the callback, the rules of
   `_first_stopping_rule` and, unless the gradient is zero, the budgets.
2. If none holds and the gradient is zero, `_examine_critical_point` ends the run or moves on.
3. If the method then finds no step and a restart does not help, the run has stalled.
4. If the run ended without a zero gradient, `_move_onto_kinks` searches for a minimum at kinks.
5. `_finish_run` classifies the reported point if nothing has done so, which may change the ending,
   and `_make_result` derives kind and message. `is_success` in `run.py` follows from both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np

from ..common.linalg import NotConvexError, NotFiniteError
from ..common.objectives import value_at, value_lower_bound, value_rounding_error
from ..common.outcome import outcome as as_result
from ..common.progress import NO_PROGRESS, show_bar
from ..common.sentences import Note, render_notes
from ..common.vectors import equal_vectors, norm
from .checkpoint import CheckpointWriter, arrays_with_prefix, check_method_state, check_saved_losses
from .escape import curvature_start_vectors, lowest_curvature
from .line_search import initial_trial_length, line_minimum
from .run import (
    MAX_SMALL_GAINS,
    SMALL_GAIN_RATIO,
    STATUS_CODES,
    History,
    Method,
    MinimizeResult,
    PointExaminer,
    ProgressMark,
    Run,
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
    """The main loop of `minimize` on validated arguments. `maker` is the class of the method and
    `name` the name of the method. `ending` examines the points at which the gradient is zero; if it
    is None, there is no verdict.
    """

    def __init__(
        self,
        run: Run,
        maker: type[Method],
        name: str,
        options: dict[str, Any],
        *,
        gradient_tol: float | None,
        max_iter: int,
        callback: Callable[[MinimizeResult], bool] | None,
        patience: int | None,
        saver: CheckpointWriter,
        ending: PointExaminer | None,
    ) -> None:
        self.run = run
        self.maker = maker
        self.name = name
        self.options = options
        self.max_iter = max_iter
        self.callback = callback
        self.patience = patience
        self.saver = saver
        self.ending = ending
        alone = callback is None and patience is None and run.validation is None
        # True if the method must return after every step, for example because there is a callback
        self.watched = not (alone and saver.path is None)
        default = 1e-6 if run.theta.dtype == np.float64 else 1e-3
        self.by_default = gradient_tol is None
        run.requested_tol = run.gradient_tol = default if gradient_tol is None else gradient_tol
        self.bottom = value_lower_bound(run.ob)
        self.shown: Any = None
        self.method: Method
        self.why: str | None = None
        self.notes: tuple[Note, ...] = ()
        self.outcome: RunOutcome | None = None
        self.jumps = False  # True if the gradient jumps at the point where the run stalled
        # True if no step lowers the loss, even after a restart of the method
        self.rounded = False

    def continue_run(
        self, before: MinimizeResult, theta: np.ndarray, records: list[tuple[Any, ...]]
    ) -> None:
        """Continue from theta, at which another run for the same objective ended with the result
        `before`, and count its steps, with their records, as steps of this run. End at once if a
        limit ended the other run.
        """
        run = self.run
        np.copyto(run.theta, theta)
        run.iteration = before.nit
        run.n_products = before.nhev
        run.n_gradients += before.njev + 1  # includes the gradient at the start
        run.n_values += before.nfev - before.njev
        run.records = records[: before.nit]
        # The time of the first run does not count as a gap between two checks of the clock.
        run.last_clock_check += before.wall_time
        limits = "max_iter", "max_time", "max_products", "callback", "interrupted"
        self.why = before.stopped if before.stopped in limits else None

    def run_to_end(
        self, arrays: dict[str, np.ndarray], facts: dict[str, Any], progress: bool | None
    ) -> MinimizeResult:
        """Run to the end, from the start or, if `arrays` and `facts` are not empty, from the state
        that a checkpoint holds in them.
        """
        run = self.run
        if facts:
            wanted = run.requested_tol
            run.load(arrays_with_prefix(arrays, "run."), facts.get("run"))
            # The tolerance of this call replaces that of the saved run.
            if run.requested_tol != wanted:
                run.requested_tol = run.gradient_tol = wanted
        spent = run.n_gradients
        # The method determines which quantities `evaluate_at_theta` computes.
        self.method = self.maker(run, **self.options)
        run.evaluate_at_theta()
        if not (facts or math.isfinite(run.f) and math.isfinite(run.gnorm)):
            raise NotFiniteError(
                f"the value and gradient of ob must be finite at theta0, got value {run.f} and "
                f"gradient norm {run.gnorm}. Use another theta0, or scale the data."
            )
        run.f0 = run.records[0][1] if run.records else run.f
        if not facts:
            run.f_at_restart = run.f
            run.size_at_start = float(np.abs(run.theta).max(initial=0.0))
        if facts:
            run.n_gradients = spent  # this gradient was counted before the run was saved
            check_saved_losses(run, facts["run"])
            of_method = arrays_with_prefix(arrays, "method.")
            method_facts = facts.get("method_facts", {})
            check_method_state(of_method, method_facts, self.method, run.theta.size)
            self.method.load(of_method, method_facts)
        else:
            run.record()
            self._mark_progress_of_records(1)
        try:
            bar_length = None if self.method.curvature else self.max_iter
            with show_bar(bar_length, self.name, progress) as self.shown:
                self.shown.update(run.iteration)
                self._iterate()
                self._move_onto_kinks()
        except KeyboardInterrupt:
            self.why = "interrupted"
            run.write_pending_records()
            if run.spent_here is not None and run.iteration == run.records[-1][0]:
                # The step that was interrupted has not been counted yet.
                run.iteration += 1
        except Exception:
            # The objective or the callback raised an exception.
            self.saver.write_snapshot(self)
            raise
        return self._finish_run()

    def _iterate(self) -> None:
        """Take steps until a stopping rule holds, and store the name of the rule in `why`."""
        # `pending_cause` is the reason, returned with the last steps, why no step is possible.
        run = self.run
        pending_cause = None
        while True:
            self.why = self.stopping_reason()
            if self.why is None and self.is_critical() and not self._continues_past_tolerance():
                self.saver.take_snapshot(self)
                self.why = self._examine_critical_point()
                if self.why is None:
                    self.finish_iteration()
                    pending_cause = None
                    continue
            if self.why is not None:
                return
            self.saver.take_snapshot(self)
            run.near_bound = self._may_stop_near_bound()
            run.idle = self._n_inexact_iterations_left() <= 0
            before = run.theta
            iteration_before = run.iteration
            run.max_steps = self._steps_per_call()
            run.enough = 0.0 if self.is_critical() else run.gradient_tol
            try:
                cause = pending_cause or self.method.step()
                pending_cause = None
            except NotConvexError:
                cause = "not_convex"
            stayed = before is run.theta and run.iteration == iteration_before
            if cause is not None and stayed:
                if self.is_critical():
                    run.extra_steps_end = run.iteration
                    continue
                if self._restart_method():
                    continue
                self.why = "stalled"
                self.notes = self._stall_notes(cause)
                return
            if run.cut and stayed and self.method.curvature:
                self.why = run.cut
                return
            pending_cause = cause
            self.finish_iteration(run.iteration - iteration_before)

    def _stall_notes(self, cause: str) -> tuple[Note, ...]:
        """Return the notes on a run that stalled because of `cause`."""
        stalled = Note("stalled", {"cause": cause})
        if cause == "not_convex":
            return (stalled, Note("newton_methods"))
        if not self.rounded:
            return (stalled,)
        single = (Note("float64"),) * (self.run.theta.dtype == np.float32)
        return (Note("rounded", {"cause": cause}), *single)

    def finish_iteration(self, passed: int = 0) -> None:
        """Count the iteration, record it, show progress, call the callback, and save if due.
        `passed` is the number of earlier iterations of the same call, which the engine has already
        recorded.
        """
        run = self.run
        run.iteration += 1
        if not run.stale:
            run.record()
            if self.method.curvature is not None:
                self._mark_progress_of_records(passed + 1)
        if self.shown is not NO_PROGRESS:
            self.shown.note(f"loss {run.f:.6g}" + ("" if run.stale else f"  |g| {run.gnorm:.2g}"))
            self.shown.update(passed + 1)
        if self.callback is not None:
            gradient = {} if run.stale else {"jac": run.g.copy()}
            at = {"x": run.theta.copy(), "fun": run.f, "nit": run.iteration}
            if self.callback(as_result(MinimizeResult, **at, nhev=run.n_products, **gradient)):
                self.why = "callback"
        self.saver.save_if_due(self)

    def stopping_reason(self) -> str | None:
        """Return the reason to end the run at the current point, or None to continue. Budgets count
        only while the gradient is not zero.
        """
        why = self.why or self._first_stopping_rule()
        return why or (None if self.is_critical() else self._exhausted_budget())

    def _first_stopping_rule(self) -> str | None:
        """Return the first stopping rule that holds regardless of the gradient, or None."""
        run = self.run
        if math.isfinite(run.f) and run.f <= run.fun_target and not run.stale:
            return "target"
        if self._appears_unbounded():
            return "unbounded"
        if not (math.isfinite(run.f) and math.isfinite(run.gnorm)):
            return "diverged"
        if self.patience is not None and run.since_best >= self.patience:
            watched = "loss" if run.validation is None else "validation loss"
            records = {"n_records": run.since_best, "patience": self.patience}
            self.notes = (Note("patience", {"watched": watched, **records}),)
            return "patience"
        if self._n_idle_iterations_left(run.progress) <= 0:
            limits = {"n_iterations": MAX_IDLE_ITERATIONS, "fraction": MIN_RELATIVE_DECREASE}
            self.notes = (Note("idle", limits),)
            return "slow"
        if (
            self._may_stop_near_bound()
            and self._n_idle_iterations_left(run.progress_near_bound) <= 0
        ):
            self.notes = (_slow_progress_note(run.progress_near_bound.loss, run.f),)
            return "slow"
        return None

    def _restart_method(self) -> bool:
        """Restart the method if it finds no step, as a repeated call of `minimize` would. Return
        False if the loss has hardly decreased since the last restart, or the method has no radius
        or damping.

        The rounding of values near the end makes a radius or a damping collapse. The method does
        not recover from this, although longer steps still lower the loss.
        """
        run = self.run
        if not self.method.adapts:
            return False
        if not run.f_at_restart - run.f > MIN_RELATIVE_DECREASE * abs(run.f):
            self.rounded = True
            return False
        run.f_at_restart = run.f
        self.method = self.maker(run, **self.options)
        run.evaluate_at_theta()
        return True

    def _steps_per_call(self) -> int:
        """Return the maximum number of iterations that the next call of the method may take before
        the loop must check its stopping rules.
        """
        if self.watched or self.bottom == -np.inf or self.is_critical() or self.run.idle:
            return 1
        idle = self._n_inexact_iterations_left()
        if self.run.near_bound:
            idle = min(idle, self._n_idle_iterations_left(self.run.progress_near_bound))
        return int(max(1, min(self.max_iter - self.run.iteration, idle)))

    def _n_idle_iterations_left(self, mark: ProgressMark) -> float:
        """Return the number of iterations that may follow before `MAX_IDLE_ITERATIONS` have passed
        since the last progress in `mark`. Return infinity for a first-order method.
        """
        idle = self.method.curvature is not None
        return mark.iteration + MAX_IDLE_ITERATIONS - self.run.iteration if idle else np.inf

    def _n_inexact_iterations_left(self) -> float:
        """Return the number of further iterations after which subproblems are solved accurately if
        none of them makes progress.
        """
        return self._n_idle_iterations_left(self.run.progress) - (
            MAX_IDLE_ITERATIONS - MAX_INEXACT_ITERATIONS
        )

    def _exhausted_budget(self) -> str | None:
        """Return the name of the budget that is used up, or None."""
        return "max_iter" if self.run.iteration >= self.max_iter else self.run.exhausted_budget()

    def is_critical(self) -> bool:
        """Return True if the gradient is known and within the tolerance."""
        return self.run.gnorm <= self.run.gradient_tol and not self.run.stale

    def _appears_unbounded(self) -> bool:
        """Return True if the loss appears to be unbounded below. This is so if no lower bound is
        known, theta is very large, and the loss is below its value at the start and decreases at
        each of the next `N_THETA_DOUBLINGS` doublings of theta, or until it overflows.
        """
        run = self.run
        large = 1e30 if run.theta.dtype == np.float64 else 1e8
        if self.bottom > -np.inf or not (run.f < run.f0 and np.abs(run.theta).max() > large):
            return False
        f = run.f
        for i in range(1, N_THETA_DOUBLINGS + 1):
            before = f
            f = run.value(run.theta * run.theta.dtype.type(2.0**i))
            if not f < before:
                return not np.isfinite(f)
        return True

    def _continues_past_tolerance(self) -> bool:
        """Return True if a run that has reached the default tolerance takes another step. The
        method must be of second order, in float64 and with a verdict. Fewer than `MAX_EXTRA_STEPS`
        such steps have been taken, and the gradient exceeds `EXTRA_STEP_TOL` times the tolerance.
        These steps take little time, and end where Newton's steps contract.
        """
        run = self.run
        if not self.by_default or not self.method.curvature or self.ending is None:
            return False
        if run.extra_steps_end is None:
            run.extra_steps_end = run.iteration + (
                MAX_EXTRA_STEPS if run.theta.dtype == np.float64 else 0
            )
        return run.gnorm > EXTRA_STEP_TOL * run.gradient_tol and run.iteration < run.extra_steps_end

    def _mark_progress_of_records(self, count: int) -> None:
        """Update `run.progress` by the last `count` records, and `run.progress_near_bound` by those
        near the lower bound of the loss, with a threshold of its own.
        """
        run = self.run
        last = self.run.records[-count:]
        run.progress = _last_progress(run.progress, last, MIN_RELATIVE_DECREASE, 0.0)
        if self._is_near_lower_bound(min(last, key=loss_of_record)[1]):
            run.progress_near_bound = _last_progress(
                run.progress_near_bound,
                [one for one in last if self._is_near_lower_bound(one[1])],
                NEGLIGIBLE_DECREASE_RATIO,
                self.loss_scale,
            )

    def _may_stop_near_bound(self) -> bool:
        """Return True if neither a tolerance nor a target loss was requested, and the loss is near
        its lower bound (see `_is_near_lower_bound`).
        """
        by_default = self.by_default and self.run.fun_target == -np.inf
        return by_default and self._is_near_lower_bound(self.run.f)

    @cached_property
    def loss_scale(self) -> float:
        """The loss at the start, or that at theta = 0 if it is smaller, because a start whose
        outputs are orders of magnitude larger than the targets gives no scale for the remaining
        decrease.
        """
        zero = value_at(self.run.ob, np.zeros_like(self.run.theta))
        return zero if zero < self.run.f0 else self.run.f0

    def _is_near_lower_bound(self, f: float) -> bool:
        """Return True if the excess of the loss f over its lower bound is at most
        `NEAR_BOUND_FRACTION` of the excess at the start and of that at theta = 0.
        """
        if not f - self.bottom <= NEAR_BOUND_FRACTION * (self.run.f0 - self.bottom) < np.inf:
            return False
        return f - self.bottom <= NEAR_BOUND_FRACTION * (self.loss_scale - self.bottom)

    # --- points where the gradient is zero

    def _examine_critical_point(self) -> str | None:
        """Examine the current point, where the gradient is zero: move to a lower point and return
        None, or return the reason why the run ends here.
        """
        run = self.run
        if self._exhausted_budget() or not self.method.leaves_saddles:
            return "critical"
        if self.ending is None or not self.ending.is_out_of_budget():
            H = run.ob.hessian(run.theta)
            curvature, v, rounding, spent = lowest_curvature(
                H,
                run.rng,
                curvature_start_vectors(run.ob, run.theta, H, run.g),
                max_products=40,
                stop=run.is_out_of_budget,
            )
            run.n_products += spent
            if curvature < -rounding and self._move_along(v):
                return None
        if self.ending is None:
            return "critical"
        outcome = self.ending.examine(run.theta, moves=True)
        if outcome.stopped is not None:
            self.outcome = outcome
        else:
            if outcome.finer:
                run.gradient_tol = min(0.01 * run.gradient_tol, 0.1 * run.gnorm)
            np.copyto(run.spare, outcome.theta)
            run.accept_trial_point()
        return outcome.stopped

    def _move_along(self, v: np.ndarray) -> bool:
        """Move to the lowest point found on the line along v. Return False if no point is lower by
        more than rounding, or after `MAX_SMALL_GAINS` small gains in a row.
        """
        run = self.run
        t, f = line_minimum(run.value, run.theta, v, run.f, initial_trial_length(run.theta))
        gain = run.f - f
        if not gain > value_rounding_error(run.f, run.theta.dtype):
            return False
        small = gain < SMALL_GAIN_RATIO * abs(run.f)
        run.n_small_escapes = run.n_small_escapes + 1 if small else 0
        # Steps along curvature that consists of rounding errors might never end.
        if run.n_small_escapes > MAX_SMALL_GAINS:
            return False
        run.try_step(v, t)
        run.accept_trial_point()
        return True

    # --- results

    def _choose_reported_point(self) -> tuple[np.ndarray, float, float]:
        """Return the point to report, with its loss and its gradient norm. It is the best recorded
        point for a first-order method, with a validation loss, or after an interruption or
        divergence. Otherwise it is the last point.
        """
        run = self.run
        best_wanted = (
            run.validation is not None
            or (self.method.curvature is None and self.why != "critical")
            or self.why in ("interrupted", "diverged")
        )
        if best_wanted and self.why != "target" and run.best is not None:
            if run.stale or not equal_vectors(run.best, run.theta):
                self.outcome = None
            return run.best, run.best_f, run.best_gnorm
        return run.theta, run.f, run.gnorm

    def _gradient_jump_note(self) -> Note | None:
        """Return the note on a jump of the gradient next to the last point, or None if there is no
        jump.

        The change of a smooth function's gradient shrinks in proportion to the step. A jump is
        found if a step 100 times smaller changes the gradient by more than a tenth as much.
        """
        run = self.run
        kind = self.run.theta.dtype.type
        unit = np.sqrt(run.eps) * np.maximum(1.0, np.abs(run.theta))  # scale of each parameter
        moved = np.abs(run.g) > 0
        step = run.g * kind(-(unit[moved] / np.abs(run.g[moved])).min(initial=np.inf))
        further, close = (
            norm(run.value_and_gradient(run.theta + kind(t) * step)[1] - run.g)
            for t in (100.0, 1.0)
        )
        if not (close > 0.1 * further and close > 1e-3 * run.gnorm):
            return None
        return Note("jump", {"distance": f"{norm(step):.1g}", "ratio": f"{close / run.gnorm:.2g}"})

    def _move_onto_kinks(self) -> None:
        """If the run stalled or reached max_iter, search for a minimum at active kinks near theta.
        If one is found, make it the outcome of the run. Otherwise, if the run stalled, mention a
        jump of the gradient in the message.
        """
        at_rest = self.run.gnorm <= self.run.gradient_tol
        if self.why not in ("stalled", "slow", "max_iter") or not self.method.curvature or at_rest:
            return
        stalled = self.why != "max_iter"
        outcome = None
        last = [record[1] for record in self.run.records[-KINK_CHECK_ITERATIONS:]]
        crawls = len(last) == KINK_CHECK_ITERATIONS and last[0] - last[-1] < 0.01 * abs(last[0])
        if self.ending is not None and (stalled or crawls):
            self.shown.note("searching for a minimum at active kinks")
            outcome = self.ending.outcome_at_kinks(self.run.theta, patient=stalled)
        if outcome is not None and (stalled or outcome.kind == "minimum"):
            self.outcome = outcome
            self.why = outcome.stopped
            self.notes = ()
        elif stalled:
            jump = self._gradient_jump_note()
            self.notes += () if jump is None else (jump,)
            self.jumps = jump is not None

    def _finish_run(self) -> MinimizeResult:
        self.saver.save_final_state(self)
        # The last point is always recorded.
        if self.run.records[-1][0] != self.run.iteration:
            self.run.evaluate_at_theta()
            self.run.record()
        x, fun, gnorm = self._choose_reported_point()
        at_rest = gnorm <= self.run.requested_tol or (
            self.why == "slow" and self._may_stop_near_bound()
        )
        may_classify = self.why not in ("interrupted", "unbounded", "target")
        at_rest = at_rest or (self.why == "stalled" and self.rounded and not self.jumps)
        if self.outcome is None and at_rest and self.ending is not None and may_classify:
            self._classify_end_point(x, self.ending)
        return self._make_result(x, fun, gnorm)

    def _classify_end_point(self, x: np.ndarray, ending: PointExaminer) -> None:
        try:
            outcome = ending.examine(x, moves=False)
        except KeyboardInterrupt:
            self.why = "interrupted"
            return
        self.outcome = outcome
        stopped = str(outcome.stopped)
        idle = self.why == "stalled" or (self.why == "slow" and not self._may_stop_near_bound())
        explained = idle and stopped != "critical"
        if self.why == "critical" or is_success(stopped, outcome.kind) or explained:
            self.why = stopped
            self.notes = ()

    def _ending_note(self, why: str, kind: str | None) -> tuple[str, tuple[Note, ...]]:
        """Return the ending of the run, which was `why` before the point of this kind was examined,
        and the notes on this ending.
        """
        why = ending_of_kind(why, kind)
        if why == "tolerance":
            why = self._exhausted_budget() or why
        size = float(np.abs(self.run.theta).max(initial=0.0))
        start = self.run.size_at_start
        ended = why in ("stalled", "slow", "tolerance") and kind in ("not_critical", "undecided")
        if ended and size > GROWTH_TO_INFINITY * max(1.0, start):
            penalty = Note("l2" if hasattr(self.run.ob, "l2") else "penalty")
            return "infinity", (Note("growth", {"before": start, "after": size}), penalty)
        return why, self.notes or ((Note(why),) if why in NAMED_ENDINGS else ())

    def _make_result(self, x: np.ndarray, fun: float, gnorm: float) -> MinimizeResult:
        run = self.run
        outcome = self.outcome
        kind = None
        report = None
        if outcome is not None:
            x = outcome.theta
            kind = outcome.kind
            notes = outcome.notes
            report = outcome.report
        elif gnorm <= run.requested_tol or self.why == "target":
            missing = "no_verdict_requested" if self.ending is None else "no_verdict_reached"
            notes = (Note("small_gradient", {"gradient_norm": float(gnorm)}), Note(missing))
        else:
            # The point may be a minimum at active kinks, where no gradient is small.
            kind = "undecided" if self.jumps else "not_critical"
            sizes = {"gradient_norm": float(gnorm), "gradient_tol": float(run.requested_tol)}
            notes = (Note("large_gradient", sizes),)
        is_current_point = (x is run.theta or equal_vectors(x, run.theta)) and not run.stale
        if outcome is not None and not is_current_point:
            fun = run.value(x)
        jac = run.g if is_current_point else run.value_and_gradient(x)[1]
        why, by_rule = self._ending_note(self.why or "critical", kind)
        if fun <= run.fun_target and not is_success(why, kind):
            # The last Newton steps reached the requested loss.
            why, kind, report, notes, by_rule = "target", None, None, (), (Note("target"),)
        success = is_success(why, kind)
        advice = [Note("continue")] * (why == "slow" and not success)
        unclassified = report is None and why != "lower_bound"
        if unclassified and self.ending is not None and hasattr(run.ob, "hessian"):
            advice.append(Note("classify"))
        notes = (*by_rule, *notes, *advice)
        return as_result(
            MinimizeResult,
            x=np.array(x),
            fun=fun,
            jac=np.array(jac),
            nit=run.iteration,
            nfev=run.n_values + run.n_gradients,
            njev=run.n_gradients,
            nhev=run.n_products,
            status=STATUS_CODES[why],
            stopped=why,
            success=success,
            kind=kind,
            message=render_notes(notes),
            report=report,
            notes=notes,
            history=History(run.past_records(), self.name, self.method.settings()),
            method=self.name,
            wall_time=run.elapsed(),
        )
