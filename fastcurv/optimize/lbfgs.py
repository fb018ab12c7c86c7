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

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..common.checks import check_bool, check_positive_int
from ..common.vectors import QuasiNewton, equal_vectors, norm
from .checkpoint import State, invalid_checkpoint_error
from .run import Method, option

# maximum number of steps in one call of the engine, which also returns after 0.1 seconds
LBFGS_STEPS_PER_CALL = 1000
# number of steps after which the coordinates are recomputed for the first time; later this happens
# whenever the number of steps has doubled
FIRST_REFRESH_ITERATION = 5


class LBFGS(Method):
    """L-BFGS steps from at most `memory` pairs, with a line search for the strong Wolfe conditions.
    With `precondition` the steps are computed in coordinates of the layers.
    """

    @dataclass(frozen=True)
    class Options(Method.Options):
        memory: int = option(20, check_positive_int)
        precondition: bool = option(False, check_bool)

    options: Options
    take_steps: Any  # the engine's `run` on the plan of the objective, or None
    layers: Any

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(run, **options)
        self.engine = QuasiNewton(len(run.theta), run.theta.dtype, self.options.memory)
        # theta = origin + P x, where x is the current point of the engine
        self.origin = run.theta
        self.at = run.theta  # the theta that belongs to x
        # True after the first step, number of steps taken, and number of steps at which P is
        # recomputed
        self.started = False
        self.taken = 0
        self.due = 0
        self.take_steps = self.layers = None
        if self.options.precondition:
            self.layers = None if run.engine is None else run.engine.kronecker_coordinates()
            if self.layers is None:
                raise ValueError(
                    "precondition must be False unless ob is an Objective with all rows in "
                    "memory, dense, of a network without batch normalisation, got True for "
                    f"{run.ob!r}."
                )
        elif run.engine is not None:
            self.take_steps = run.engine.locked_run_function(self.engine)

    def _start_engine(self) -> None:
        run = self.run
        self.started = True
        if self.layers is not None:
            self._change_coordinates(self.layers)
            return
        self.engine.start(run.theta, run.f, run.g)
        run.gnorm = self.engine.gradient_norm

    def _change_coordinates(self, layers: Any) -> None:
        """Recompute the coordinates of the layers at the current point, and transform the pairs of
        the engine to the new coordinates.
        """
        run = self.run
        engine = self.engine
        first = engine.first
        count = engine.count
        steps = engine.pairs[: 2 * count : 2]
        changes = engine.pairs[1 : 2 * count : 2]
        if count:
            s = layers.to_theta(steps)
            y = layers.from_gradient(changes)
        layers.fit(run.theta)
        layers.limit_first_step(run.g)
        if count:
            steps[:] = layers.from_theta(s)
            changes[:] = layers.to_gradient(y)
        self.origin = self.at = run.theta.copy()
        engine.start(np.zeros_like(run.theta), run.f, layers.to_gradient(run.g))
        engine.restore_pairs(first, count)
        self.due = max(FIRST_REFRESH_ITERATION, 2 * self.taken)

    def step(self) -> str | None:
        here = self.engine.theta if self.layers is None else self.at
        # The first step, or the first after theta was changed from outside, starts a new search.
        if not (self.started and equal_vectors(here, self.run.theta)):
            self._start_engine()
        elif self.layers is not None and self.taken >= self.due:
            self._change_coordinates(self.layers)
        moved = self._step_in_python() if self.take_steps is None else self._step_in_engine()
        # If no lower value was found in the coordinates of the layers, the search continues in the
        # original coordinates.
        if not (moved or self.run.cut or self.layers is None):
            self.layers = None
            self.engine.restore_pairs(0, 0)
            self._start_engine()
            moved = self._step_in_python()
        self.taken += 1
        if moved or self.run.cut:
            return None
        return "no_lower_loss"

    def _step_in_python(self) -> bool:
        """Take one step, with values and gradients from calls of the objective. Return False if the
        line search finds no lower value.
        """
        run = self.run
        engine = self.engine
        layers = self.layers
        wanted = engine.start_search()
        tried = []
        while wanted:
            theta = engine.trial
            if layers is not None:
                theta = self.origin + layers.to_theta(theta)
            f, g = run.value_and_gradient(theta)
            if layers is not None:
                tried.append((engine.trial.copy(), theta, g))
                g = layers.to_gradient(g)
            wanted = engine.supply_trial(f, g)
            if wanted and run.is_out_of_budget():
                engine.stop_search()
                break
        if engine.moved and layers is None:
            self._sync_with_engine()
        elif engine.moved:
            self.at, run.g = next(
                (theta, g) for x, theta, g in reversed(tried) if equal_vectors(x, engine.theta)
            )
            run.theta, run.f, run.gnorm = self.at.copy(), engine.value, norm(run.g)
        return engine.moved

    def _step_in_engine(self) -> bool:
        """Take up to `run.max_steps` steps, between which the loop needs no check, in the engine.
        Return False if no step was taken.
        """
        run = self.run
        engine = self.engine
        start_time = run.elapsed()
        evaluations = engine.evaluations
        ending = None
        record = np.empty((min(run.max_steps, LBFGS_STEPS_PER_CALL), 3))
        try:
            ending = self.take_steps(record, run.enough, run.fun_target, run.budget.seconds_left())
        finally:
            # After Ctrl-C, all steps taken so far are complete.
            run.n_gradients += engine.evaluations - evaluations
            run.record_steps(
                record[: engine.steps].tolist(), start_time, ending, ending is not None
            )
            if engine.steps:
                self._sync_with_engine()
        run.last_clock_check = time.perf_counter()
        run.gap = engine.gap
        return engine.steps > 0

    def _sync_with_engine(self) -> None:
        """Move the run to the engine's current point. If the lowest point of the engine's steps is
        lower than the run's best point, store it as the best point.
        """
        run = self.run
        engine = self.engine
        run.move_to_engine_point(engine)
        if engine.best is not None and engine.best[1] < run.best_score:
            theta, run.best_f, run.best_gnorm = engine.best
            run.best, run.best_score = theta.copy(), run.best_f

    def state(self) -> State:
        engine = self.engine
        layers = self.layers if self.started else None
        arrays = {f"{'sy'[i % 2]}{i // 2}": engine.pairs[i].copy() for i in range(2 * engine.count)}
        if layers is not None:
            arrays |= {"origin": self.origin, "x": engine.theta.copy()}
        scale = None if layers is None else layers.scale
        facts = {"first": engine.first, "taken": self.taken, "due": self.due, "scale": scale}
        return arrays, facts

    def load(self, arrays: Any, facts: Any) -> None:
        """Restore the state that `state` returned. Every pair is restored into its old row, so that
        sums over rows are bitwise equal to those of the saved run. Coordinates of the layers are
        computed again at their old origin, unless the run had returned to the original coordinates.
        """
        layers = self.layers
        engine = self.engine
        memory = self.options.memory
        first = facts["first"]
        count = 0
        while count < memory and f"s{count}" in arrays and f"y{count}" in arrays:
            engine.pairs[2 * count] = arrays[f"s{count}"]
            engine.pairs[2 * count + 1] = arrays[f"y{count}"]
            count += 1
        if first >= memory or (first and count < memory):
            raise invalid_checkpoint_error(
                f"the index of the oldest stored pair, {first}, is not that of one of {count} pairs"
            )
        self.taken = facts["taken"]
        self.due = facts["due"]
        if layers is not None and facts["scale"] is not None:
            if not {"origin", "x"} <= arrays.keys():
                raise invalid_checkpoint_error(
                    "the array 'origin' or 'x' of this method is missing"
                )
            self.origin = arrays["origin"]
            self.at = self.run.theta.copy()
            self.started = True
            layers.fit(self.origin)
            layers.rescale(facts["scale"])
            engine.start(arrays["x"], self.run.f, layers.to_gradient(self.run.g))
        elif self.taken or layers is None:
            self.layers = None
            self._start_engine()
        engine.restore_pairs(first, count)
