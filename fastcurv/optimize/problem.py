"""A problem: an objective with the budget of a run, which evaluates points and counts the cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from ..common.checks import all_finite
from ..common.objectives import (
    checked_curvature,
    checked_gradient,
    has_consistent_hessian,
    user_call_guard,
    value_as_float,
    value_at,
)
from ..common.protocols import states
from ..common.runtime import Budget, interrupt_source
from ..common.vectors import norm
from ..krylov.lanczos import product_function
from ..network.engine_steps import EngineSteps, engine_steps_of

# factor per check by which the longest time between two checks of the clock is reduced
CLOCK_DECAY = 0.7

Values = tuple[float, np.ndarray, float]  # value, gradient (n,) and gradient norm at a point


class Problem:
    """An objective to minimise, with the budget of a run.

    Parameters
    ----------
    ob : objective
        The objective.
    rng : None, int or Generator
        Seed of mini-batches and random probes.
    sample : int, optional
        Number of rows of the curvature, drawn again at each point.
    max_time, max_products : float, int, optional
        Seconds and Hessian products that the run may use.
    fun_target : float
        A method that takes several steps at once returns once the loss is at most this value.
    pressed : callable, optional
        Returns True after Ctrl-C; by default the function of the enclosing `forward_interrupts`.

    Attributes
    ----------
    n_values, n_gradients, n_products : int
        Numbers of evaluations so far.
    cut : str or None
        The budget that ended inside a step, as `exhausted_budget` names it.
    """

    def __init__(
        self,
        ob: Any,
        rng: int | np.random.Generator | None = None,
        *,
        sample: int | None = None,
        max_time: float | None = None,
        max_products: int | None = None,
        fun_target: float | None = None,
        pressed: Callable[[], bool] | None = None,
    ) -> None:
        self.ob = ob
        self.seed = rng
        self.sample = sample
        self.max_time = max_time
        self.max_products = max_products
        self.fun_target = -np.inf if fun_target is None else fun_target
        self.budget = Budget(seconds=max_time)
        self.pressed = pressed or interrupt_source()
        # False if no budget can be exhausted; a step checks the budgets before each product
        self.has_limits = any(x is not None for x in (self.pressed, max_time, max_products))
        self.clock_gap = 0.0  # longest recent time between two checks of the clock
        self.last_clock_check = self.budget.begun
        self.n_values = self.n_gradients = self.n_products = 0
        self.cut: str | None = None
        self.rows: np.ndarray | None = None  # rows of the curvature, if they are a sample
        # the point and the kind of the operator whose products `product` computes
        self.bound: tuple[np.ndarray | None, str | None] = (None, None)
        self._product: Any = None

    @property
    def rng(self) -> np.random.Generator:
        """The random generator of the run, created on first use, since most runs on small networks
        do not need one.
        """
        # default_rng returns a Generator unchanged
        rng = self.seed = np.random.default_rng(self.seed)
        return rng

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

    @cached_property
    def _evaluator(self) -> Any:
        """The engine's object that evaluates the loss and products, or None."""
        return None if self.engine is None else self.engine.point_evaluator()

    @property
    def points(self) -> Any:
        """The engine's object that evaluates the loss and the products, at the current point and at
        trial points, or None if the objective is called, or there is no operator.
        """
        return None if self.bound[1] is None or self.sample is not None else self._evaluator

    # --- costs and budgets

    @property
    def n_evaluations(self) -> int:
        """The number of values, gradients and Hessian products so far."""
        return self.n_values + self.n_gradients + self.n_products

    def elapsed(self) -> float:
        """Return the seconds since the start, including those before a checkpoint."""
        return self.budget.elapsed()

    def step_cost(self) -> float:
        """Return the cost of trying and accepting a step, in Hessian products. Values and gradients
        use all rows, whereas products may use a sample of the rows.
        """
        return 3.0 if self.sample is None else 2.0 + self.ob.n_samples / self.sample

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
            self.clock_gap = max(CLOCK_DECAY * self.clock_gap, now - self.last_clock_check)
            self.last_clock_check = now
            if self.clock_gap > self.budget.seconds_left():
                return "max_time"
        return None

    def is_out_of_budget(self) -> bool:
        """Check the budgets inside a step. Store the name of an exhausted budget in `cut`, and
        return True if there is one.
        """
        if self.has_limits:
            self.cut = self.exhausted_budget()
        return self.cut is not None

    def counts(self) -> dict[str, int]:
        """Return the numbers of evaluations by name."""
        names = "n_values", "n_gradients", "n_products"
        return {name: int(getattr(self, name)) for name in names}

    def restore_counts(self, counts: dict[str, int]) -> None:
        """Set the numbers of evaluations that `counts` returned."""
        self.n_values = counts["n_values"]
        self.n_gradients = counts["n_gradients"]
        self.n_products = counts["n_products"]

    def restore(self, rows: np.ndarray | None, rng: np.random.Generator, elapsed: float) -> None:
        """Continue a run with this sample of rows and generator after `elapsed` seconds."""
        self.rows = rows
        self.seed = rng
        self.last_clock_check = time.perf_counter()
        self.budget.begun = self.last_clock_check - elapsed

    def charge(self, n_values: int = 0, n_gradients: int = 0, n_products: int = 0) -> None:
        """Count evaluations that were made elsewhere."""
        self.n_values += n_values
        self.n_gradients += n_gradients
        self.n_products += n_products

    def end_engine_call(self, ending: str | None, gap: float | None = None) -> None:
        """Store that a call of the engine ended because of `ending`. If `gap` is given, it is the
        longest recent time between two checks of the clock in the engine.
        """
        if ending == "max_time":
            self.cut = ending
        if gap is not None:
            self.clock_gap = gap
            self.last_clock_check = time.perf_counter()

    def skip_time(self, seconds: float) -> None:
        """Do not count these seconds as a gap between two checks of the clock."""
        self.last_clock_check += seconds

    # --- evaluations

    def value(self, theta: np.ndarray) -> float:
        """Return the value of the objective at `theta`, or infinity, without a call, if theta is
        not finite.
        """
        points = self.points
        if points is not None:
            f: float = points.trial_loss(np.ascontiguousarray(theta))
            self.n_values += points.finite
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
        return value_as_float(f), checked_gradient(g, theta.size, theta.dtype, kept=is_full)

    def evaluate(self, theta: np.ndarray, kind: str | None, known: float | None = None) -> Values:
        """Return value, gradient and gradient norm at theta, which must not be changed from now on,
        and make `product` the product with the operator of this kind there, if it is not None. If
        the value is `known` from `value`, an objective without ``value_and_gradient`` computes only
        the gradient.
        """
        points = self.points
        operator = values = None
        if points is not None and kind == self.bound[1] and self._product is not None:
            values = points.move_to(theta)  # the engine's operator moves to theta, too
            self.bound = theta, kind
        else:
            operator, values = self._bind(theta, kind)
        if values is not None:
            self.n_gradients += 1
            return values
        f = g = None
        if operator is not None and self.sample is None and self._has_loss_of(operator):
            f = getattr(operator, "value", None)
            g = getattr(operator, "gradient", None)
        if isinstance(f, (float, np.floating)) and isinstance(g, np.ndarray):
            self.n_gradients += 1
        elif known is not None and not self.has_value_and_gradient:
            self.charge(-1, 1)  # both are one evaluation of value and gradient
            f = known
            with user_call_guard(self.ob, theta):
                g = checked_gradient(self.ob.gradient(theta), theta.size, theta.dtype)
        else:
            f, g = self.value_and_gradient(theta)
        return float(f), g, norm(g)

    def move_to(self, theta: np.ndarray, kind: str | None, known: float | None = None) -> Values:
        """Draw a new sample of rows, if the curvature has one, and `evaluate` theta."""
        self.rows = None
        return self.evaluate(theta, kind, known)

    def bind(self, theta: np.ndarray, kind: str | None) -> None:
        """Make `product` the product with the operator of this kind at theta: ``hessian`` or
        ``ggn``. Nothing is computed if it is already.
        """
        if self.bound[0] is not theta or self.bound[1] != kind:
            self._bind(theta, kind)

    def product(self, v: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Write the product of the operator with v into `out`, and count it."""
        self.n_products += 1
        self._product(v, out)
        return out

    def _has_loss_of(self, operator: object) -> bool:
        """Return True if the attributes `value` and `gradient` of an operator are those of the
        problem's objective.
        """
        stated = has_consistent_hessian(self.ob) and states(operator, "gradient")
        return stated and getattr(operator, "objective", self.ob) is self.ob

    def _bind(self, theta: np.ndarray, kind: str | None) -> tuple[Any, Values | None]:
        """Bind `product`, and return the operator and None, or None and the values at theta if the
        engine computes the products. Return None twice if there is no operator.
        """
        self._product = None  # releases the memory of the last operator for the next one
        self.bound = None, kind
        if kind is None:
            return None, None
        points = self.points
        if points is not None:
            points.set_operator_kind(kind)
            values = points.move_to(theta)
            self._product = points.times.multiply
            self.bound = theta, kind
            return None, values
        if self.sample is not None and self.rows is None:
            self.rows = np.sort(self.rng.choice(self.ob.n_samples, self.sample, replace=False))
        with user_call_guard(self.ob, theta):
            curved = self.ob if self.sample is None else self.ob.batch(self.rows)
            operator = getattr(curved, kind)(theta)
        checked_curvature(operator, theta.size, kind)
        self._product = product_function(operator)
        self.bound = theta, kind
        return operator, None
