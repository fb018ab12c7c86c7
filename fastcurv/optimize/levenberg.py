"""Levenberg-Marquardt: steps ``(G + damping I) s = -g`` with the Gauss-Newton matrix G.

If all rows are in memory and n is small, G is a matrix, the damping follows Nielsen's rule, and the
engine takes many steps in one call. Steps have a geodesic correction where the outputs deviate from
their linearisation, unless hardly any decrease is left. The equations are at the head of
`_engine/levenberg.pyx`. If these steps hardly lower the loss, for example along a curved valley,
steps of `TrustRegion` are taken until one of them lowers the loss by 1%. In all other cases the
steps are those of `GaussNewton`, in Krylov spaces.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.vectors import equal_vectors
from .checkpoint import State, invalid_checkpoint_error
from .newton import GaussNewton, initial_trust_radius

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


class LevenbergMarquardt(GaussNewton):
    """Levenberg-Marquardt steps, by the engine with a dense Gauss-Newton matrix if n is small, or
    in Krylov spaces.
    """

    # the engine's solver with a dense matrix, or None if steps are computed in Krylov spaces
    engine: Any
    growth = 2.0
    # number of steps since the last check of progress, with the loss and the gradient norm at that
    # check
    since = 0
    f_then: float = np.inf
    g_then: float = np.inf

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(run, **options)
        self.parameters["radius"] = None
        self.engine = None
        if len(run.theta) <= DENSE_MATRIX_MAX_PARAMS and self.options.sample is None:
            self._start_engine()
        if self.engine is not None:
            run.curvature = None
            engine = self.engine
            run.precomputed = engine.value, engine.gradient.copy(), engine.gradient_norm

    def state(self) -> State:
        arrays, facts = super().state()
        progress = {"since": self.since, "f_then": self.f_then, "g_then": self.g_then}
        return arrays, facts | {"growth": self.growth, **progress}

    def load(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        if not facts["since"] < LEVENBERG_STEPS_PER_CALL:
            raise invalid_checkpoint_error(
                f"the entry 'since' of this method has the invalid value {facts['since']}"
            )
        self.growth = facts["growth"]
        self.since = facts["since"]
        self.f_then = facts["f_then"]
        self.g_then = facts["g_then"]
        super().load(arrays, facts)
        if not self.exact:
            self._set_engine_damping()

    def _start_engine(self) -> None:
        """Create the engine's solver at the current point, or set it to None if the engine does not
        evaluate the loss.
        """
        steps = self.run.engine
        self.engine = None if steps is None else steps.levenberg_solver(self.run.theta.copy())
        self._set_engine_damping()

    def _set_engine_damping(self) -> None:
        """Pass the damping of this method to the engine. If this method has no damping yet, the
        engine keeps its own.
        """
        if self.engine is not None and self.parameters["damping"] is not None:
            self.engine.damping = self.parameters["damping"]
            self.engine.growth = self.growth

    def _set_curvature(self, curvature: str) -> None:
        if self.engine is not None and curvature == "ggn":
            self.exact = False
            self.since = 0
            self.run.curvature = None
            return
        super()._set_curvature(curvature)
        if self.engine is not None:
            self.problem = "trust-region"
            self.parameter = "radius"
            self.parameters["radius"] = self.parameters["radius"] or initial_trust_radius(
                self.run.theta
            )

    def step(self) -> str | None:
        if self.engine is None or self.exact:
            return super().step()
        run = self.run
        # If theta was changed from outside the engine, the engine starts again at the new point.
        if not equal_vectors(self.engine.theta, run.theta):
            self.since = 0
            self._start_engine()
        if self.since == 0:
            self.f_then = run.f
            self.g_then = run.gnorm
        steps = self._step_in_engine(min(run.max_steps, LEVENBERG_STEPS_PER_CALL - self.since))
        self.since = (self.since + steps) % LEVENBERG_STEPS_PER_CALL
        slow = (
            self.f_then - run.f < SLOW_DECREASE_RATIO * abs(run.f)
            and run.gnorm > SLOW_GRADIENT_RATIO * self.g_then
        )
        if (slow and not self.since) or not (steps or run.cut):
            self._set_curvature("hessian")
        return None if steps or run.cut else super().step()

    def _step_in_engine(self, count: int) -> int:
        """Take at most `count` steps in the engine and return their number, which is 0 if no step
        lowers the loss by more than its rounding or if the time is used up.
        """
        run = self.run
        engine = self.engine
        start_time = run.elapsed()
        values = engine.n_values
        record = np.empty((count, 3))
        engine.corrects = not run.near_bound
        steps, ending = engine.run(
            count, run.enough, run.fun_target, run.budget.seconds_left(), record
        )
        run.n_values += engine.n_values - values
        run.n_gradients += steps
        self.parameters["damping"] = engine.damping
        self.growth = engine.growth
        run.record_steps(record[:steps].tolist(), start_time, ending)
        if steps:
            run.move_to_engine_point(engine)
        return int(steps)
