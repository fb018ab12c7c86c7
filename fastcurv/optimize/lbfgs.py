"""The L-BFGS method of `minimize`. The equations and the line search are described at the head of
`_engine/quasi_newton.pyx`.

If the engine holds all rows of the loss, it takes many steps in one call. For any other loss it
receives the value and the gradient at one trial point after another.

With `precondition` the steps are those of L-BFGS in coordinates x of a network's layers, ``theta =
origin + P x``, in which the curvature is nearer to the identity (`network/kronecker.py`). These
coordinates are recomputed after 5, 10, 20, 40, ... steps, and the pairs are transformed: ``s = P
s_x`` and ``y = P^-T y_x``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..common.checks import check_bool, check_positive_int
from ..common.vectors import QuasiNewton, equal_vectors, norm
from .checkpoint import invalid_checkpoint_error
from .method import ONE_STEP, Limits, Method, State, StepRecord, array, option, workspace
from .problem import Problem

# maximum number of steps in one call of the engine, which also returns after 0.1 seconds
LBFGS_STEPS_PER_CALL = 1000
# number of steps after which the coordinates are recomputed for the first time; later this happens
# whenever the number of steps has doubled
FIRST_REFRESH_ITERATION = 5


@dataclass(frozen=True)
class LBFGSState(State):
    """The state of `LBFGS`, whose engine owns and updates the pairs.

    Attributes
    ----------
    pairs : ndarray (2 count, n) or None
        The stored pairs, s and y in turn.
    first : int
        Index of the oldest pair.
    taken, due : int
        Number of steps taken, and number of steps at which the coordinates are recomputed.
    scale : float or None
        Scale of the coordinates of the layers; None in the original coordinates.
    origin, x : ndarray (n,) or None
        The point where the coordinates were computed, and the coordinates of theta.
    """

    pairs: np.ndarray | None = array()
    first: int = 0
    taken: int = 0
    due: int = 0
    scale: float | None = None
    origin: np.ndarray | None = array()
    x: np.ndarray | None = array()
    at: Any = workspace()  # the theta that belongs to x
    layers: Any = workspace()
    engine: Any = workspace()
    run_engine: Any = workspace()  # the engine's `run` on the plan of the objective, or None


@dataclass(frozen=True)
class LBFGS(Method):
    """L-BFGS steps from at most `memory` pairs, with a line search for the strong Wolfe conditions.
    With `precondition` the steps are computed in coordinates of the layers.
    """

    memory: int = option(20, check_positive_int, "number of pairs kept")
    precondition: bool = option(
        False, check_bool, "take steps in coordinates of the layers, in which regressions need a "
        "half to a fifth of the steps; for dense rows in memory without batch normalisation"
    )  # fmt: skip

    def init(self, problem: Problem, theta: np.ndarray) -> LBFGSState:
        layers = None
        if self.precondition:
            layers = None if problem.engine is None else problem.engine.kronecker_coordinates()
            if layers is None:
                raise ValueError(
                    "precondition must be False unless ob is an Objective with all rows in "
                    "memory, dense, of a network without batch normalisation, got True for "
                    f"{problem.ob!r}."
                )
        return LBFGSState(theta, *problem.evaluate(theta, None), layers=layers)

    def step(self, problem: Problem, state: Any, limits: Limits = ONE_STEP) -> Any:
        if state.engine is None:
            state = self._start_engine(problem, state)
        layers = state.layers
        here = state.engine.theta if layers is None else state.at
        if here is None or not equal_vectors(here, state.theta):
            # The first step, or the first after theta was changed from outside.
            state = _search_from(state)
        elif layers is not None and state.taken >= state.due:
            state = _change_coordinates(state)
        in_engine = state.run_engine is not None
        state = _step_in_engine(problem, state, limits) if in_engine else _step(problem, state)
        # If no lower value was found in the coordinates of the layers, the search continues in the
        # original coordinates.
        if not (state.steps or problem.cut or state.layers is None):
            state.engine.restore_pairs(0, 0)
            state = _step(problem, _search_from(state.replace(layers=None)))
        engine = state.engine
        failed = not (state.steps or problem.cut)
        return state.replace(
            taken=state.taken + 1, first=engine.first,
            pairs=engine.pairs[: 2 * engine.count],
            x=None if state.layers is None else engine.theta,
            origin=None if state.layers is None else state.origin,
            scale=None if state.layers is None else state.layers.scale,
            cause="no_lower_loss" if failed else state.cause,
        )  # fmt: skip

    def _start_engine(self, problem: Problem, state: LBFGSState) -> LBFGSState:
        """Create the engine for a first state, or for one that was read from a checkpoint. Every
        pair is restored into its old row, so that sums over rows are bitwise equal to those of the
        saved run. Coordinates of the layers are computed again at their old origin, unless the run
        had returned to the original coordinates.
        """
        theta = state.theta
        engine = QuasiNewton(theta.size, theta.dtype, self.memory)
        count = 0 if state.pairs is None else len(state.pairs) // 2
        if count > self.memory or state.first and not state.first < count == self.memory:
            raise invalid_checkpoint_error(
                f"the index of the oldest stored pair, {state.first}, is not that of one of {count}"
            )
        if count:
            engine.pairs[: 2 * count] = state.pairs
        layers = state.layers
        run_engine = at = None
        if layers is not None and state.scale is not None:
            if state.origin is None or state.x is None:
                raise invalid_checkpoint_error("the array 'origin' or 'x' is missing")
            layers.fit(state.origin)
            layers.rescale(state.scale)
            engine.start(state.x, state.f, layers.to_gradient(state.g))
            at = theta
        elif layers is None or state.taken:
            layers = None
            engine.start(theta, state.f, state.g)
            if not self.precondition and problem.engine is not None:
                run_engine = problem.engine.locked_run_function(engine)
        engine.restore_pairs(state.first, count)
        return state.replace(engine=engine, layers=layers, at=at, run_engine=run_engine)


def _search_from(state: LBFGSState) -> Any:
    """Start a search from theta, with the pairs of the engine."""
    if state.layers is not None:
        return _change_coordinates(state)
    state.engine.start(state.theta, state.f, state.g)
    return state.replace(gnorm=state.engine.gradient_norm)


def _change_coordinates(state: LBFGSState) -> LBFGSState:
    """Recompute the coordinates of the layers at the current point, and transform the pairs of the
    engine to the new coordinates.
    """
    engine = state.engine
    layers = state.layers
    first = engine.first
    count = engine.count
    steps = engine.pairs[: 2 * count : 2]
    changes = engine.pairs[1 : 2 * count : 2]
    if count:
        s = layers.to_theta(steps)
        y = layers.from_gradient(changes)
    layers.fit(state.theta)
    layers.limit_first_step(state.g)
    if count:
        steps[:] = layers.from_theta(s)
        changes[:] = layers.to_gradient(y)
    engine.start(np.zeros_like(state.theta), state.f, layers.to_gradient(state.g))
    engine.restore_pairs(first, count)
    due = max(FIRST_REFRESH_ITERATION, 2 * state.taken)
    return state.replace(origin=state.theta, at=state.theta, due=due)


def _step(problem: Problem, state: LBFGSState) -> LBFGSState:
    """Take one step, with values and gradients from calls of the objective, or none if the line
    search finds no lower value.
    """
    start_time = problem.elapsed()
    engine = state.engine
    layers = state.layers
    wanted = engine.start_search()
    tried = []
    while wanted:
        theta = engine.trial
        if layers is not None:
            theta = state.origin + layers.to_theta(theta)
        f, g = problem.value_and_gradient(theta)
        if layers is not None:
            tried.append((engine.trial.copy(), theta, g))
            g = layers.to_gradient(g)
        wanted = engine.supply_trial(f, g)
        if wanted and problem.is_out_of_budget():
            engine.stop_search()
            break
    if not engine.moved:
        return state.replace(steps=())
    if layers is None:
        theta, g = engine.theta.copy(), engine.gradient.copy()
        gnorm = engine.gradient_norm
    else:
        theta, g = next((t, g) for x, t, g in reversed(tried) if equal_vectors(x, engine.theta))
        gnorm = norm(g)
    seconds = problem.elapsed() - start_time
    record = StepRecord(engine.value, gnorm, seconds, problem.n_products)
    lowest = _lowest_point(engine) if layers is None else None
    values = engine.value, g, gnorm
    return state.moved_to(theta, values, at=theta, steps=(record,), lowest=lowest)


def _step_in_engine(problem: Problem, state: LBFGSState, limits: Limits) -> LBFGSState:
    """Take up to ``limits.max_steps`` steps, between which the loop needs no check, in the engine,
    or none if no step lowers the loss.
    """
    engine = state.engine
    evaluations = engine.evaluations
    ending = cause = None
    record = np.empty((min(limits.max_steps, LBFGS_STEPS_PER_CALL), 3))
    try:
        ending = state.run_engine(
            record, limits.gnorm, problem.fun_target, problem.budget.seconds_left()
        )
    except KeyboardInterrupt:
        if not engine.steps:
            raise
        cause = "interrupted"  # all steps so far are complete
    problem.charge(n_gradients=engine.evaluations - evaluations)
    problem.end_engine_call(ending, engine.gap)
    rows = record[: engine.steps].tolist()
    if not rows:
        return state.replace(steps=())
    new = state.moved_to(
        engine.theta.copy(), (engine.value, engine.gradient.copy(), engine.gradient_norm),
        steps=tuple(StepRecord(f, g, at, problem.n_products) for f, g, at in rows),
        lowest=_lowest_point(engine),
    )  # fmt: skip
    return new if cause is None else new.replace(cause=cause)


def _lowest_point(engine: Any) -> tuple[np.ndarray, float, float] | None:
    """Return the lowest point of the engine's last steps, with its loss and gradient norm, or None
    if it is the last point.
    """
    if engine.best is None:
        return None
    theta, f, gnorm = engine.best
    return theta.copy(), f, gnorm
