"""Levenberg-Marquardt: steps ``(G + damping I) s = -g`` with the Gauss-Newton matrix G.

Where all rows are in memory and n is small, G is a matrix, the damping follows Nielsen's rule, and
the engine takes many steps in one call; its equations are at the head of `_engine/levenberg.pyx`.
Anywhere else these are the steps of `GaussNewton`, in Krylov spaces.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..critical.evidence import is_plain
from .newton import GaussNewton

MOST = 500  # parameters; beyond, matrix and factorisation cost more than products do
AT_ONCE = 25  # steps in one call, so that the loop sees in time that the run has become idle


class LevenbergMarquardt(GaussNewton):
    """Levenberg-Marquardt steps by a dense matrix, or in Krylov spaces."""

    engine: Any  # the engine's run; None where steps are in Krylov spaces
    growth: float
    leaves_saddles = False
    kept_facts: tuple[str, ...] = (*GaussNewton.kept_facts, "growth")

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(run, **options)
        self.growth, self.engine = 2.0, None
        if len(run.theta) <= MOST and self.sample is None and is_plain(run.ob):
            self.engine = self._started()
        if self.engine is not None:
            run.curvature = None
            run.at_hand = self.engine.value, self.engine.gradient.copy()

    def load(self, arrays: Any, facts: Any) -> None:
        super().load(arrays, facts)
        if self.engine is not None:
            self._damp(self.engine)

    def _started(self) -> Any:
        """Return the engine's run from the point of this one, or None."""
        run = self.run
        start = getattr(run.ob, "_damped_steps", None)
        engine = None if start is None else start(run.theta.copy())
        if engine is not None:
            self._damp(engine)
        return engine

    def _damp(self, engine: Any) -> None:
        """Give the engine the damping of this run, if there is one; else it keeps its own."""
        if self.damping is not None:
            engine.damping, engine.growth = self.damping, self.growth

    def step(self) -> str | None:
        if self.engine is None:
            return super().step()
        run = self.run
        if not np.array_equal(self.engine.theta, run.theta):  # something else has moved it
            self.engine = self._started()
        engine, begun, values = self.engine, run.elapsed(), self.engine.values
        left = np.inf if run.max_time is None else run.max_time - begun
        record = np.empty((min(run.ahead, AT_ONCE), 3))
        steps, ending = engine.run(len(record), run.enough, run.fun_target, left, record)
        run.n_values += engine.values - values
        run.n_gradients += steps
        self.damping, self.growth = engine.damping, engine.growth
        if ending == "max_time":
            run.cut = ending
        if not steps:
            return None if run.cut else "no step lowers the loss by more than its rounding"
        record[:, 2] += begun
        run.passed(record[: steps - 1])
        run.theta = engine.theta.copy()
        run.f, run.g, run.gnorm = engine.value, engine.gradient.copy(), engine.gradient_norm
        return None
