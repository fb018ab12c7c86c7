"""Levenberg-Marquardt: steps ``(G + damping I) s = -g`` with the Gauss-Newton matrix G.

If all rows are in memory and n is small, G is a matrix, the damping follows Nielsen's rule, and the
engine takes many steps in one call. Steps have a geodesic correction where the outputs deviate from
their linearisation, unless hardly any decrease is left. The equations are at the head of
`_engine/levenberg.pyx`. If these steps hardly lower the loss, for example along a curved valley,
steps of `TrustRegion` are taken until one of them lowers the loss by 1%. In all other cases the
steps are those of `GaussNewton`, in Krylov spaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..common.vectors import equal_vectors
from .method import ONE_STEP, Limits, StepRecord, workspace
from .newton import BY_RADIUS, GaussNewton, GaussNewtonState, Subproblem, initial_trust_radius
from .problem import Problem

# maximum number of parameters for a dense matrix; for more, forming and factorising the matrix
# takes longer than products with it
DENSE_MATRIX_MAX_PARAMS = 500
# number of the engine's steps between two checks of progress, and maximum number of steps in one
# call of the engine
LEVENBERG_STEPS_PER_CALL = 25
# The engine's steps since the last check are slow if two conditions hold: they lowered the loss by
# less than SLOW_DECREASE_RATIO times the loss, and the gradient norm is still more than
# SLOW_GRADIENT_RATIO times that at the last check. After slow steps, trust-region steps are tried.
SLOW_DECREASE_RATIO = 1e-3
SLOW_GRADIENT_RATIO = 0.1


@dataclass(frozen=True)
class LevenbergState(GaussNewtonState):
    """The state of `LevenbergMarquardt`.

    Attributes
    ----------
    growth : float
        Factor of the damping after the next rejected step.
    since : int
        Number of the engine's steps since the last check of progress.
    f_then, g_then : float
        The loss and the gradient norm at that check.
    engine : LevenbergRun or None
        The engine's solver with a dense matrix, or None if steps are computed in Krylov spaces.
    """

    growth: float = 2.0
    since: int = 0
    f_then: float = np.inf
    g_then: float = np.inf
    engine: Any = workspace()


@dataclass(frozen=True)
class LevenbergMarquardt(GaussNewton):
    """Levenberg-Marquardt steps, by the engine with a dense Gauss-Newton matrix if n is small, or
    in Krylov spaces.
    """

    def init(self, problem: Problem, theta: np.ndarray) -> LevenbergState:
        small = len(theta) <= DENSE_MATRIX_MAX_PARAMS and self.sample is None
        engine = _solver_at(problem, theta) if small else None
        if engine is None:
            values = problem.evaluate(theta, self.curvature)
        else:
            values = engine.value, engine.gradient.copy(), engine.gradient_norm
            problem.charge(n_gradients=1)
        return LevenbergState(theta, *values, damping=self.damping, engine=engine)

    def kind(self, state: Any) -> str | None:
        return None if state.engine is not None and not state.exact else super().kind(state)

    def subproblem(self, problem: Problem, state: Any) -> Subproblem:
        by_radius = state.engine is not None and state.exact
        return BY_RADIUS if by_radius else super().subproblem(problem, state)

    def step(self, problem: Problem, state: Any, limits: Limits = ONE_STEP) -> Any:
        if state.engine is None or state.exact:
            new = super().step(problem, state, limits)
            return new if new.exact or new.engine is None else new.replace(since=0)
        problem.bind(state.theta, None)
        state = self._step_in_engine(problem, state, limits)
        slow = (
            state.f_then - state.f < SLOW_DECREASE_RATIO * abs(state.f)
            and state.gnorm > SLOW_GRADIENT_RATIO * state.g_then
        )
        found = bool(state.steps or problem.cut)
        if (slow and not state.since) or not found:
            radius = state.radius or initial_trust_radius(state.theta)
            state = state.replace(exact=True, radius=radius)
        return state if found else super().step(problem, state, limits)

    def _step_in_engine(self, problem: Problem, state: Any, limits: Limits) -> Any:
        """Take up to ``limits.max_steps`` steps in the engine, none if no step lowers the loss by
        more than its rounding or if the time is used up.
        """
        engine, since = state.engine, state.since
        # If theta was changed from outside the engine, the engine starts again at the new point.
        if not equal_vectors(engine.theta, state.theta):
            engine, since = _solver_at(problem, state.theta), 0
        f_then, g_then = (state.f_then, state.g_then) if since else (state.f, state.gnorm)
        if state.damping is not None:
            engine.damping, engine.growth = state.damping, state.growth
        count = min(limits.max_steps, LEVENBERG_STEPS_PER_CALL - since)
        values = engine.n_values
        record = np.empty((count, 3))
        engine.corrects = not limits.near_bound
        n_steps, ending = engine.run(
            count, limits.gnorm, problem.fun_target, problem.budget.seconds_left(), record
        )
        problem.charge(engine.n_values - values, n_steps)
        problem.end_engine_call(ending)
        rows = record[:n_steps].tolist()
        steps = tuple(StepRecord(f, g, at, problem.n_products) for f, g, at in rows)
        kept = {
            "engine": engine, "damping": engine.damping, "growth": engine.growth, "steps": steps,
            "since": (since + n_steps) % LEVENBERG_STEPS_PER_CALL, "f_then": f_then,
            "g_then": g_then,
        }  # fmt: skip
        if not steps:
            return state.replace(**kept)
        here = engine.value, engine.gradient.copy(), engine.gradient_norm
        return state.moved_to(engine.theta.copy(), here, **kept)


def _solver_at(problem: Problem, theta: np.ndarray) -> Any:
    """Return the engine's solver at theta, or None if the engine does not evaluate the loss."""
    steps = problem.engine
    return None if steps is None else steps.levenberg_solver(theta.copy())
