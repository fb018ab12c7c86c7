"""L-BFGS: its equations and its line search are at the head of `_engine/quasi_newton.pyx`.

The engine takes many steps in one call where it has all rows of the loss; of any other loss it is
told the value and the gradient at one trial point after the other.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ..common.vectors import QuasiNewton
from ..critical.evidence import is_plain
from .checkpoint import damaged
from .run import Method

AT_ONCE = 1000  # steps in one call of the engine, which returns after a tenth of a second at most


class LBFGS(Method):
    """L-BFGS steps from at most `memory` pairs, with a line search to the strong Wolfe
    conditions.
    """

    defaults = {"memory": 20}
    engine: QuasiNewton
    started: bool
    take_steps: Any  # the engine's `run` on the plan of the objective, or None

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(run, **options)
        self.engine = QuasiNewton(len(run.theta), run.theta.dtype, self.memory)
        steps_of = getattr(type(run.ob), "_steps_of", None)  # its own, not of what it wraps
        self.take_steps = steps_of(run.ob, self.engine) if steps_of and is_plain(run.ob) else None
        self.started = False

    def _start(self) -> None:
        run, self.started = self.run, True
        self.engine.start(run.theta, run.f, run.g)
        run.gnorm = self.engine.gradient_norm

    def step(self) -> str | None:
        run, engine = self.run, self.engine
        if not (self.started and np.array_equal(engine.theta, run.theta)):  # or it was moved
            self._start()
        moved = self._search() if self.take_steps is None else self._run()
        return (
            None if moved or run.cut else "the line search found no lower value along the gradient"
        )

    def _search(self) -> bool:
        """Take a step by asking the objective; return False if there is none."""
        run, engine = self.run, self.engine
        wanted = engine.search()
        while wanted:
            wanted = engine.tell(*run.value_and_gradient(engine.trial))
            if wanted and run.out_of_budget():
                engine.give_up()
                break
        if engine.moved:
            self._follow()
        return engine.moved

    def _run(self) -> bool:
        """Let the engine take as many steps as nobody watches; return False if it took none."""
        run, engine = self.run, self.engine
        begun, evaluations, ending = run.elapsed(), engine.evaluations, None
        left = np.inf if run.max_time is None else run.max_time - begun
        record = np.empty((min(run.ahead, AT_ONCE), 3))
        try:
            ending = self.take_steps(record, run.enough, run.fun_target, left)
        finally:  # after Ctrl-C, the steps taken so far are whole
            run.n_gradients += engine.evaluations - evaluations
            record = record[: engine.steps]
            record[:, 2] += begun
            run.passed(record[:-1])
            if len(record):
                self._follow()
                run.iteration += ending is None
        run.asked, run.gap = time.perf_counter(), engine.gap
        if ending == "max_time":
            run.cut = ending
        return engine.steps > 0

    def _follow(self) -> None:
        """Move the run to where the engine is, and let it know of the lowest point on the way."""
        run, engine = self.run, self.engine
        np.copyto(run.spare, engine.theta)
        run.theta, run.spare = run.spare, run.theta
        run.f, run.g, run.gnorm = engine.value, engine.gradient.copy(), engine.gradient_norm
        if engine.best is not None and engine.best[1] < run.best_score:
            theta, run.best_f, run.best_gnorm = engine.best
            run.best, run.best_score = theta.copy(), run.best_f

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        pairs, rows = self.engine.pairs, range(self.engine.count)
        steps = {f"s{i}": pairs[2 * i].copy() for i in rows}
        changes = {f"y{i}": pairs[2 * i + 1].copy() for i in rows}
        return steps | changes, {"first": self.engine.first}

    def load(self, arrays: Any, facts: Any) -> None:
        """Restore every pair into its old row, so that sums over rows agree with the saved run to
        the last bit.
        """
        pairs, first, count = self.engine.pairs, facts["first"], 0
        while count < self.memory and f"s{count}" in arrays and f"y{count}" in arrays:
            pairs[2 * count], pairs[2 * count + 1] = arrays[f"s{count}"], arrays[f"y{count}"]
            count += 1
        if first >= self.memory or (first and count < self.memory):
            raise damaged(f"its oldest pair is in row {first} of {count}")
        self._start()
        self.engine.restore(first, count)
