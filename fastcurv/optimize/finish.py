"""The end of a run, where the gradient is zero: the kind of the point, and where the run continues.

`FIRST_STRATEGIES` and `STRATEGIES_BY_KIND`, at the end of this file, list what is tried, in order.
All checks together may use as many evaluations as the training, or those of `MIN_CHECK_SECONDS` if
these are more (`MIN_PROOF_SECONDS` for a proof from all eigenvalues). Evaluations are counted, and
their time is estimated from sizes, so that results do not depend on the load of the machine. Only
`max_time` is measured by the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..common.linalg import SECONDS_PER_N_CUBED
from ..common.objectives import (
    call_certificate,
    certificate_method,
    value_lower_bound,
    value_rounding_error,
)
from ..common.sentences import RUN_AUDIENCE, Note
from ..common.vectors import augmented_norm, norm
from ..critical.classify import classify
from ..critical.evidence import why_no_minimum
from ..critical.nearness import gradient_and_error
from ..critical.report import CriticalPoint, for_audience, verdict_statement
from ..network.mlp import MLP
from .kink_search import find_kink_minimum
from .line_search import initial_trial_length, line_minimum
from .lower_points import (
    LowerPoint,
    appears_unbounded,
    find_lower_point,
    flat_directions,
    is_value_no_higher,
    trial_directions,
)
from .method import Limits, Method, State
from .problem import Problem
from .refine import refine_by_newton
from .run import MAX_SMALL_GAINS, SMALL_GAIN_RATIO, CheckCounts, RunOutcome

N_RESTARTS = 4  # number of displaced points from which the minimiser is started
N_RESTART_STEPS = 20  # maximum number of steps from each displaced point
# maximum probability of missing curvature that `classify` counts as negative, if n is too large to
# compute all eigenvalues
MISSED_CURVATURE_PROBABILITY = 1e-3


@dataclass
class StationaryPoint:
    """A point at which the gradient is zero.

    Attributes
    ----------
    theta : ndarray, shape (n,)
        The point.
    state : State
        The state of the run when the point is examined.
    f0 : float
        The loss at the start of the run.
    moves : bool
        True if the run may continue from another point.
    on_kinks : bool
        True if a minimum at active kinks may be searched for near the point.
    below : int
        All eigenvalues are computed if n is below this.
    report : CriticalPoint or None
        The verdict of `classify`, once known.
    """

    theta: np.ndarray
    state: State
    f0: float
    moves: bool
    on_kinks: bool = True
    below: int = 0
    report: Any = None

    def end_here(self, stopped: str, notes: tuple[Note, ...] | None = None) -> RunOutcome:
        """Return a `RunOutcome` after which the run ends at `self.theta`. `stopped` is a key of
        `STATUS_CODES`, and `notes` are the facts for the message, by default the verdict.
        """
        notes = (verdict_note(self.report),) if notes is None else notes
        return RunOutcome(self.theta, stopped, self.report.kind, notes, self.report)

    @property
    def is_far(self) -> bool:
        """True if the verdict is ``not_critical``, or ``undecided`` with active kinks and a
        gradient norm above the tolerance.
        """
        r = self.report
        kinked = (
            r.kind == "undecided" and r.evidence.n_kinks > 0 and r.gradient_norm > r.gradient_tol
        )
        return bool(r.kind == "not_critical" or kinked)

    def continue_from(self, theta: np.ndarray) -> RunOutcome:
        """Return a `RunOutcome` after which the run continues from theta (n,), a point with a lower
        loss than `self.theta`. If `is_far` is True, the gradient tolerance becomes smaller.
        """
        return RunOutcome(theta, finer=self.is_far)


# minimum limit of all checks together, in estimated seconds, if the training took less
MIN_CHECK_SECONDS = 1.0
# minimum limit of all checks together if one of them is an eigendecomposition for a proof
MIN_PROOF_SECONDS = 30.0
SECONDS_PER_FLOP = 5e-11  # estimated seconds of one floating-point operation
FLOPS_PER_ENTRY = 100.0  # flops of a Krylov method for each entry of a vector and each product
CALL_SECONDS = 5e-5  # estimated seconds of the Python calls of an evaluation
UNKNOWN_EVALUATION_SECONDS = 1e-3  # assumed seconds of an evaluation of a user-defined objective
# number of evaluations that must be left for a verdict from products
MIN_VERDICT_EVALUATIONS = 200
# maximum number of parameters for which all eigenvalues take about a second
CHECK_ALWAYS_DENSE_MAX_N = 1024
# maximum number of parameters for which all eigenvalues are computed by default; the matrix then
# takes 128 MiB
CHECK_DENSE_MAX_N = 4096
MAX_MOVES = 12  # maximum number of moves to other points in one run
# A loss counts as equal to its lower bound if it exceeds the bound by at most this fraction of the
# excess at the start, that is if the residuals fell to 1e-12 of those at the start.
ZERO_LOSS_TOL = 1e-24
# Residuals count as 0 within this multiple of their rounding bound.
RESIDUAL_ROUNDING_FACTOR = 8.0


def verdict_note(report: CriticalPoint) -> Note:
    """Return the note on the verdict `report` for the message of a run."""
    return Note("verdict", {"statement": verdict_statement(report), "reason": report.reason})


def _outcome_of_run(outcome: RunOutcome | None) -> RunOutcome | None:
    """Return the outcome, with the advice of its report for the result of `minimize`; None for
    None.
    """
    if outcome is None or outcome.report is None:
        return outcome
    return replace(outcome, report=for_audience(outcome.report, RUN_AUDIENCE))


class StationaryPointExaminer:
    """Checks of the points at which the gradient of a run with `method` is zero."""

    def __init__(self, problem: Problem, method: Method, gradient_tol: float | None) -> None:
        self.problem = problem
        self.gradient_tol = gradient_tol
        # Restarts from displaced points use all rows.
        sampled = getattr(method, "sample", None) is not None
        whole: Any = method
        self.method = replace(whole, sample=None) if sampled else whole
        self.so_far = CheckCounts()
        self.n_training = 0  # number of evaluations of the training before the current check

    # --- budget of the checks

    @contextmanager
    def _count_checks(self) -> Iterator[None]:
        """Count the evaluations in this context as those of checks, not of the training."""
        so_far = self.so_far
        self.n_training = self.problem.n_evaluations - so_far.n_check_evaluations
        try:
            yield
        finally:
            so_far.n_check_evaluations = self.problem.n_evaluations - self.n_training

    @cached_property
    def evaluation_seconds(self) -> float:
        """The estimated seconds of one evaluation of the loss, a gradient or a Hessian product."""
        model = getattr(self.problem.ob, "model", None)
        n_samples = getattr(self.problem.ob, "n_samples", None)
        if not isinstance(model, MLP) or n_samples is None:
            return UNKNOWN_EVALUATION_SECONDS
        flops: float = sum(
            (n_samples * (12.0 if l else 4.0) + FLOPS_PER_ENTRY) * m * k
            for l, (m, k) in enumerate(model.shapes)
        )
        return CALL_SECONDS + SECONDS_PER_FLOP * flops

    @property
    def eigensystem_seconds(self) -> float:
        """The estimated seconds of all eigenvalues of a Hessian matrix."""
        return SECONDS_PER_N_CUBED * float(self.problem.ob.n_params) ** 3

    def _can_spend(self, n_evaluations: float, floor: float, n_uncounted: int = 0) -> bool:
        """Return True if the checks may use this number of further evaluations. All checks may use
        as many as the training, or as take `floor` estimated seconds, whichever is more, within
        `max_time`. The counts of the run do not yet contain `n_uncounted` evaluations.
        """
        problem = self.problem
        spectra = self.so_far.n_eigensystems * self.eigensystem_seconds / self.evaluation_seconds
        spent = problem.n_evaluations + n_uncounted - self.n_training + spectra
        evaluations_left = max(self.n_training, floor / self.evaluation_seconds) - spent
        seconds = n_evaluations * self.evaluation_seconds
        return n_evaluations <= evaluations_left and seconds <= problem.budget.seconds_left()

    def is_out_of_budget(self) -> bool:
        """Return True if the evaluations for checks are used up."""
        with self._count_checks():
            return self._is_out_of_budget()

    def _is_out_of_budget(self) -> bool:
        """Return True if the evaluations are used up, within a check."""
        return not self._can_spend(1, MIN_CHECK_SECONDS)

    def dense_below(self) -> int | None:
        """Return the number of parameters below which all eigenvalues are computed, or None if
        there is no budget for a verdict.
        """
        n: int = self.problem.ob.n_params
        seconds = self.eigensystem_seconds
        always = n <= CHECK_ALWAYS_DENSE_MAX_N and self.problem.max_time is None
        if always or (
            n <= CHECK_DENSE_MAX_N
            and seconds <= self.problem.budget.seconds_left()
            and self._can_spend(n + seconds / self.evaluation_seconds, MIN_PROOF_SECONDS)
        ):
            return n + 1
        if self._can_spend(MIN_VERDICT_EVALUATIONS, MIN_PROOF_SECONDS):
            return min(n, CHECK_ALWAYS_DENSE_MAX_N)
        return None

    # --- examination of points

    def examine(self, theta: np.ndarray, state: State, f0: float, moves: bool) -> Any:
        """Return the outcome at theta, for a run with this state and the loss f0 at its start. With
        `moves` the outcome may be a point from which the run continues.
        """
        with self._count_checks():
            moves = moves and self.so_far.n_moves < MAX_MOVES and not self._is_out_of_budget()
            at = StationaryPoint(theta, state, f0, moves)
            return _outcome_of_run(self._first_outcome(FIRST_STRATEGIES, at))

    def outcome_at_kinks(
        self, theta: np.ndarray, state: State, f0: float, patient: bool
    ) -> RunOutcome | None:
        """Return the outcome at the active kinks that stop a run, or None if no kinks do.

        `patient` allows the budget of a proof, because the run has stalled and nothing else is left
        to try.
        """
        with self._count_checks():
            at = StationaryPoint(theta, state, f0, moves=False)
            return _outcome_of_run(
                self._end_at_kinks(at, MIN_PROOF_SECONDS if patient else MIN_CHECK_SECONDS)
            )

    def _first_outcome(
        self, strategies: tuple[Strategy, ...], at: StationaryPoint
    ) -> RunOutcome | None:
        """Return the first outcome of the strategies that is not None, or None if there is none."""
        outcomes = (strategy(self, at) for strategy in strategies)
        return next((outcome for outcome in outcomes if outcome is not None), None)

    # --- strategies: each returns an outcome, or None so that the next strategy is tried

    def _end_at_proved_infinity(self, at: StationaryPoint) -> RunOutcome | None:
        """Return the outcome if the infimum of the loss is proved to lie at infinity, or None."""
        if call_certificate(self.problem.ob, "ray_to_infimum", at.theta) is None:
            return None
        why = {"no_minimum_reason": why_no_minimum(self.problem.ob, at.theta)}
        return RunOutcome(at.theta, "infinity", "not_critical", notes=(Note("no_minimum", why),))

    def _end_without_verdict(self, at: StationaryPoint) -> RunOutcome | None:
        """End the run if no verdict is possible, else set ``at.below`` and return None."""
        below = self.dense_below()
        if below is None:
            return RunOutcome(at.theta, "max_time", notes=(Note("no_time"),))
        if not hasattr(self.problem.ob, "hessian"):
            return RunOutcome(at.theta, "critical", notes=(Note("no_hessian"),))
        at.below = below
        return None

    def _move_to_newton_point(self, at: StationaryPoint) -> None:
        """Set ``at.theta`` to the point that `refine_by_newton` reaches from it."""
        at.theta, _, n_products, n_gradients = refine_by_newton(
            self.problem.ob,
            at.theta,
            at.below,
            lambda k: not self._can_spend(1, MIN_PROOF_SECONDS, k),
        )
        self.problem.charge(0, n_gradients, n_products)

    def _classify_point(self, at: StationaryPoint) -> None:
        """Classify the point, and count the products as those of the run."""
        problem = self.problem
        at.report = classify(
            problem.ob, at.theta.astype(np.float64), gradient_tol=self.gradient_tol,
            failure_probability=MISSED_CURVATURE_PROBABILITY,
            dense_below=at.below, max_time=problem.budget.inner_max_time(), progress=False,
        )  # fmt: skip
        problem.charge(n_products=int(at.report.n_products))
        self.so_far.n_eigensystems += at.theta.size < at.below

    def _outcome_by_kind(self, at: StationaryPoint) -> RunOutcome | None:
        """Return the outcome of the strategies for the kind of the point, or None. A degenerate
        point with negative curvature is treated as a saddle.
        """
        falls = at.report.kind == "degenerate" and at.report.n_negative
        kind = "not_critical" if at.is_far else at.report.kind
        return self._first_outcome(STRATEGIES_BY_KIND["saddle" if falls else kind], at)

    def _end_at_certified_minimum(self, at: StationaryPoint) -> RunOutcome | None:
        """End the run at the certified minimum that Newton's steps reached, if its loss is no
        higher and no negative curvature was found at the present point. Otherwise return None.
        """
        return None if at.report.n_negative else self._end_at_nearest_minimum(at)

    def _end_at_nearest_minimum(self, at: StationaryPoint) -> RunOutcome | None:
        """End the run at the nearest critical point that `classify` reached by Newton steps, if it
        is a certified minimum with no higher loss. Otherwise return None.
        """
        there = at.report.nearest_verdict
        x = at.report.nearest_point
        minimum = there is not None and there.kind == "minimum" and there.certified
        exact = minimum and at.theta.dtype == np.float64
        if not (exact and is_value_no_higher(self.problem.value, x, at.theta)):
            return None
        return RunOutcome(x, "critical", "minimum", (verdict_note(there),), there)

    def _end_at_kinks(self, before: StationaryPoint, floor: float) -> RunOutcome | None:
        """End the run at a minimum at active kinks near `before`, with the verdict of `classify` on
        that minimum. Return None if no such minimum is found, if its loss is higher, or if theta is
        not in float64. For `floor` see `_can_spend`.
        """
        theta = before.theta
        if theta.dtype != np.float64:
            return None

        def charge_step() -> bool:
            """Count an eigensystem, the most that a step of the search computes. Return True if the
            budget is used up.
            """
            self.so_far.n_eigensystems += 1
            return not self._can_spend(1, floor)

        kink_point = find_kink_minimum(self.problem.ob, theta, charge_step)
        f = self.problem.value(theta)
        if kink_point is None or not self.problem.value(
            kink_point.theta
        ) <= f + value_rounding_error(f, theta.dtype):
            return None
        at = replace(before, theta=kink_point.theta, moves=False, on_kinks=False, report=None)
        if kink_point.is_smooth:
            return self._first_outcome(FIRST_STRATEGIES, at)
        at.below = self.dense_below() or 0
        self._classify_point(at)
        if at.report.certified and at.report.kind == "minimum":
            return at.end_here("critical")
        missing = Note("kinks", kink_point.note_numbers)
        return at.end_here("kinks", notes=None if kink_point.certified else (missing,))

    def _search_past_barrier(self, at: StationaryPoint) -> RunOutcome | None:
        """Move to a lower point if the minimum is not certified and in some trial direction the
        loss decreases before it increases. Return None otherwise.
        """
        if at.report.certified:
            return None
        f = self.problem.value(at.theta)
        flat = np.zeros((at.theta.size, 0))
        for v in trial_directions(self.problem.ob, at.theta, flat, np.random.default_rng(0)):
            lower = find_lower_point(self.problem.value, at.theta, f, v, barrier=True)
            if lower is not None:
                return self._move_lower(at, lower, f)
        return None

    def _end_at_lower_bound(self, at: StationaryPoint) -> RunOutcome | None:
        """End the run if the loss equals its lower bound, else return None. The loss may differ by
        the rounding of the value or of the residuals, or by `ZERO_LOSS_TOL` times the excess over
        the bound at the start or, if that is smaller, at theta = 0. There is no verdict unless the
        point is degenerate, because the bound may also be an infimum that no point attains.
        """
        ob = self.problem.ob
        theta = at.theta
        f = self.problem.value(at.theta)
        c = value_lower_bound(ob)
        here = theta.astype(np.float64)
        if c == -np.inf or not certificate_method(ob, "attains_lower_bound", True):
            return None
        least = value_rounding_error(c, theta.dtype)
        far = max(0.0, at.f0 - c)
        residuals = call_certificate(ob, "residual_bounds", here, 0.0)
        # `residuals.error` is a bound for float64, and is scaled to the precision of the objective.
        if residuals is not None:
            share = float(np.finfo(theta.dtype).eps / np.finfo(np.float64).eps)
            least += (RESIDUAL_ROUNDING_FACTOR * share * residuals.error) ** 2
        plain = f - value_rounding_error(f, theta.dtype) - c
        # The ordinary value costs a hundredth of the precise one, and can already show that the
        # loss is above the bound.
        if plain > 2 * (least + ZERO_LOSS_TOL * far):
            return None
        # The loss at theta = 0 is a second scale, since a start whose loss nearly overflows gives
        # none.
        if plain > 2 * least:
            far = min(far, max(0.0, self.problem.value(np.zeros_like(theta)) - c))
        slack = least + ZERO_LOSS_TOL * far
        best, off = call_certificate(ob, "precise_value", here, default=(f, np.inf))
        above = (best + off if off < np.inf else f) - c
        if not above <= slack:
            return None
        key = "above_lower_bound" if above > 0 else "at_lower_bound"
        bound = Note(key, {"excess": f"{above:.1g}", "lower_bound": f"{c:g}"})
        if at.report.kind != "degenerate":
            return RunOutcome(theta, "lower_bound", notes=(bound,))
        return at.end_here("lower_bound", (bound, verdict_note(at.report)))

    def _end_at_infinity(self, at: StationaryPoint) -> RunOutcome | None:
        """End the run if the loss was measured to decrease without end, along theta or down the
        gradient. Otherwise return None.
        """
        if self._is_out_of_budget():
            return None
        problem = self.problem
        f, g = problem.value_and_gradient(at.theta)
        rays = (at.theta, -g) if np.any(g) else ()
        falls = any(appears_unbounded(problem.ob, problem.value, at.theta, f, ray) for ray in rays)
        notes = Note("infinity"), Note("l2" if hasattr(problem.ob, "l2") else "penalty")
        return at.end_here("infinity", notes=notes) if falls else None

    def _follow_negative_curvature(self, at: StationaryPoint) -> RunOutcome | None:
        """Continue from the lowest point found along the report's direction of negative curvature.
        Return None if the run may not move, or if no point is lower by more than rounding.
        """
        if not at.moves or at.report.escape_direction is None:
            return None
        f = self.problem.value(at.theta)
        kind = at.theta.dtype.type
        unit = np.asarray(at.report.escape_direction, dtype=at.theta.dtype)
        t, lowest = line_minimum(
            self.problem.value, at.theta, unit, f, initial_trial_length(at.theta)
        )
        if not lowest < f - value_rounding_error(f, at.theta.dtype) or not self._count_move(
            lowest, f
        ):
            return None
        return at.continue_from(at.theta + kind(t) * unit)

    def _search_nearby_points(self, at: StationaryPoint) -> RunOutcome | None:
        """Search for a lower point along the null vectors of H, or by a few steps of the minimiser
        from points displaced along them. At a degenerate point a cubic term may decrease the loss
        in these directions. Return None if no point is lower, or if the run may not search.
        """
        if not (
            self._searches_lower_points(at)
            or at.report.kind == "degenerate"
            and not self._is_out_of_budget()
        ):
            return None
        problem = self.problem
        value = problem.value
        theta = at.theta
        f = value(theta)
        flat, spent = flat_directions(problem.ob, theta, self.dense_below() or 0)
        problem.charge(n_products=spent)
        self.so_far.n_eigensystems += spent > 0
        tried = list(trial_directions(problem.ob, theta, flat, np.random.default_rng(0)))
        for v in tried:
            lower = None if self._is_out_of_budget() else find_lower_point(value, theta, f, v)
            if lower is not None:
                return self._move_lower(at, lower, f)
        noise = value_rounding_error(f, theta.dtype)
        reach = max(1.0, norm(theta))
        for i, v in enumerate(tried[:N_RESTARTS]):
            if self._is_out_of_budget():
                break
            there = self._run_restart(theta + ((0.3, 0.03)[i % 2] * reach * v).astype(theta.dtype))
            if there[1] < f - noise:
                return self._move_lower(at, there, f)
        return None

    def _run_restart(self, start: np.ndarray) -> LowerPoint:
        """Take a few steps of this run's method from the point `start`, and return the lowest point
        reached and its value. The run itself does not move.
        """
        problem = self.problem
        side = Problem(problem.ob, 0, max_time=max(problem.budget.seconds_left(), 0.0))
        state = self.method.init(side, start)
        best = state.theta, np.inf
        for i in range(N_RESTART_STEPS + 1):
            best = min(best, (state.theta, state.f), key=lambda point: point[1])
            lost = not (np.isfinite(state.f) and state.gnorm > 0)
            if i == N_RESTART_STEPS or lost or side.exhausted_budget():
                break
            state = self.method.step(side, state, Limits())
            if not state.steps:
                break
        problem.charge(side.n_values, side.n_gradients, side.n_products)
        return best

    def _searches_lower_points(self, at: StationaryPoint) -> bool:
        """Return True if the run may move and the point is critical or, with the default tolerance,
        has no known negative curvature.
        """
        return at.moves and (
            not at.is_far or self.gradient_tol is None and not at.report.n_negative
        )

    def _tighten_tolerance(self, at: StationaryPoint) -> RunOutcome | None:
        """Continue from the same point with a smaller tolerance of the gradient if the default was
        too large for a proof or a verdict and the gradient can be reduced, else return None.
        """
        r = at.report
        size = at.theta.size
        if r.kind == "minimum":
            bounded = certificate_method(self.problem.ob, "third_bound") is not None
            wide = not r.certified and bounded and size <= CHECK_DENSE_MAX_N
        else:
            definite = r.n_positive and not (r.n_negative or r.n_zero or r.evidence.n_kinks)
            wide = bool(definite or at.is_far) and not self._has_vanishing_curvature(at)
        if not (
            at.moves and self.gradient_tol is None and wide and self._can_reduce_gradient(at.theta)
        ):
            return None
        self.so_far.n_moves += 1
        return RunOutcome(at.theta, finer=True)

    def _end_without_descent(self, at: StationaryPoint) -> RunOutcome | None:
        """End the run at a degenerate point, or if no trial move found a lower point and Newton
        steps reach no point nearby. Otherwise return None.
        """
        if at.report.kind == "degenerate":
            why = "no_lower_point_nearby"
        elif self._searches_lower_points(at) and at.report.nearest_verdict is None:
            why = "no_lower_point"
        else:
            return None
        return at.end_here("degenerate", (verdict_note(at.report), Note(why)))

    # --- helpers of the strategies

    def _move_lower(self, at: StationaryPoint, found: LowerPoint, f: float) -> RunOutcome:
        """Continue the run from `found`, a pair of a point and its value, which is below the value
        f at the point `at`. If no move is allowed, end the run at the point in `found`.
        """
        theta, lowest = found
        if self._count_move(lowest, f) and at.moves:
            return at.continue_from(theta)
        there = replace(at, theta=theta, moves=False, on_kinks=True, report=None)
        if self._end_without_verdict(there) is None:
            self._classify_point(there)
            if there.report.kind == "minimum":
                return there.end_here("critical")
        kind = None if there.report is None else there.report.kind
        moved = Note("moved_lower", {"loss": f"{f:.9g}", "lowest": f"{lowest:.9g}"})
        return RunOutcome(theta, "slow", kind, (moved,), there.report)

    def _count_move(self, lowest: float, f: float) -> bool:
        """Count a move from the value f to the value `lowest`, and return True unless more than
        `MAX_SMALL_GAINS` moves in a row had small gains.
        """
        so_far = self.so_far
        small = f - lowest < SMALL_GAIN_RATIO * abs(f)
        so_far.n_small_moves = so_far.n_small_moves + 1 if small else 0
        so_far.n_moves += 1
        return so_far.n_small_moves <= MAX_SMALL_GAINS

    def _can_reduce_gradient(self, theta: np.ndarray) -> bool:
        """Return True if further steps may lower the gradient: theta is in float64, the gradient
        norm is more than 10 times its rounding error, and its square, to which the decrease of the
        loss is proportional, does not underflow.
        """
        g, error = gradient_and_error(self.problem.ob, theta.astype(np.float64))
        size = norm(g)
        rounding = error if np.isfinite(error) else 0.0
        return bool(theta.dtype == np.float64 and size > 10 * rounding and size * size > 0)

    def _has_vanishing_curvature(self, at: StationaryPoint) -> bool:
        """Return True if the verdict found a plateau or zero eigenvalues, as in the valley of x^4,
        and the possible decrease, estimated as ``||g|| ||theta||``, is at most eps times the larger
        of the initial and the current loss. Without this test the run would continue until steps no
        longer change theta.
        """
        possible_decrease = at.state.gnorm * augmented_norm(at.theta)
        negligible = float(np.finfo(at.theta.dtype).eps) * max(abs(at.f0), abs(at.state.f))
        return (
            bool(at.report.evidence.plateau or at.report.n_zero) and possible_decrease <= negligible
        )


Strategy = Callable[[StationaryPointExaminer, StationaryPoint], RunOutcome | None]
# Strategies for any point, followed by strategies by the kind of the point. A degenerate point with
# negative curvature is treated as a saddle. The first outcome that is not None is used.
FIRST_STRATEGIES: tuple[Strategy, ...] = (
    StationaryPointExaminer._end_at_proved_infinity,
    StationaryPointExaminer._end_without_verdict,
    StationaryPointExaminer._move_to_newton_point,
    StationaryPointExaminer._classify_point,
    StationaryPointExaminer._outcome_by_kind,
)
_SADDLE_STRATEGIES: tuple[Strategy, ...] = (
    StationaryPointExaminer._end_at_certified_minimum,
    StationaryPointExaminer._follow_negative_curvature,
    StationaryPointExaminer._end_at_nearest_minimum,
    StationaryPointExaminer._tighten_tolerance,
    lambda _, at: at.end_here("critical"),
)
STRATEGIES_BY_KIND: dict[str, tuple[Strategy, ...]] = {
    "minimum": (
        StationaryPointExaminer._end_at_certified_minimum,
        StationaryPointExaminer._search_past_barrier,
        StationaryPointExaminer._tighten_tolerance,
        lambda _, at: at.end_here("critical"),
    ),
    "degenerate": (
        StationaryPointExaminer._end_at_certified_minimum,
        StationaryPointExaminer._end_at_lower_bound,
        StationaryPointExaminer._end_at_infinity,
        StationaryPointExaminer._search_nearby_points,
        StationaryPointExaminer._end_without_descent,
    ),
    "not_critical": (
        StationaryPointExaminer._follow_negative_curvature,
        StationaryPointExaminer._end_at_infinity,
        StationaryPointExaminer._end_at_nearest_minimum,
        StationaryPointExaminer._end_at_lower_bound,
        StationaryPointExaminer._search_nearby_points,
        StationaryPointExaminer._tighten_tolerance,
        StationaryPointExaminer._end_without_descent,
        lambda _, at: at.end_here("critical"),
    ),
    "undecided": (
        StationaryPointExaminer._end_at_certified_minimum,
        lambda self, at: (
            self._end_at_kinks(at, MIN_PROOF_SECONDS)
            if at.on_kinks and at.report.evidence.n_kinks
            else None
        ),
        *_SADDLE_STRATEGIES[1:],
    ),
    "saddle": _SADDLE_STRATEGIES,
    "maximum": _SADDLE_STRATEGIES,
}
