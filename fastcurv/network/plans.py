"""The engine's plans of an objective: new plans, the objective's own plan at the current theta, and
spare plans, which operators receive and return.

A plan holds the state of a network at theta and the workspace of products; an operator owns one
plan, and the objective another one for values and gradients. Memory is allocated only for new
plans, so deleted operators return theirs.

A plan is bound to theta only once its state there is complete. In a child of `os.fork`, a plan that
a thread of the parent process was using is therefore not bound, and its lock is replaced.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .. import _engine
from ..common.protocols import Array
from ..structure.parameters import divisor_of
from ..structure.tables import loss_spec
from .mlp import MLP
from .sums import SumPlan

# A pass takes at most a few milliseconds if (rows + 100) times the number of parameters is <= this.
QUICK_PASS_MAX_WORK = 1 << 22


def bind_plan_to_copy(plan: Any, objective: Any, theta: Any, copy: Array, **how: Any) -> None:
    """Check theta for the objective, copy theta into `copy` (n,) and bind the plan to `copy`, with
    the options `how` of ``plan.bind``. If theta is a contiguous vector of the plan's dtype, the
    engine's threads check and copy theta in one pass.
    """
    if not plan.bind_copy(theta, copy, **how):
        np.copyto(copy, objective.model.check_theta(theta))
        plan.bind(copy, **how)


def release_plan(operator: Any) -> None:
    """Return the plan of a deleted operator to its objective, for the next operator."""
    attributes = vars(operator)
    if "_plan" in attributes:
        attributes["objective"]._return_plan(attributes["_plan"])


class ObjectivePlans:
    """Base class of objectives: the plans with which an objective and its operators compute."""

    model: MLP
    loss: Any
    l2: float
    l2_biases: bool
    n_threads: int | None
    memory: int | None
    # True if values are sums over blocks; otherwise the engine holds all rows
    _by_blocks: bool = False
    _rows: Any  # rows, targets and weights in the engine's form
    _shares_rows: bool = False  # True if an operator or another objective may read `_rows`
    _n_samples: int
    _plan: Any  # plan for values and gradients, or None
    _theta: np.ndarray  # vector to which `_plan` is bound
    _spare: list[Any]  # unused plans of deleted operators
    _lock: Any  # held while `_plan` is in use

    @property
    def n_params(self) -> int:
        """Number of parameters, the length of theta."""
        return self.model.n_params

    @property
    def n_samples(self) -> int:
        """The number of rows of X."""
        return self._n_samples

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of theta and of all results."""
        return self.model.dtype

    def _create_process_state(self) -> None:
        """Create the state that belongs to this process: no plan, no spare plans, and a new
        lock.
        """
        attributes = self.__dict__
        attributes["_plan"] = None
        attributes["_spare"] = []
        attributes["_lock"] = _engine.Lock()
        attributes["_made"] = {}

    def _new_plan(self) -> Any:  # returns a plan of the engine, or an object with the same methods
        if self._by_blocks:
            return SumPlan(self)
        m = self.model
        threads = self.n_threads or _engine.default_n_threads()
        net = m.sizes, m.activation, m.skips, m.bias
        loss = str(self.loss), divisor_of(self), self.l2
        options: dict[str, Any] = {"l2_biases": self.l2_biases, "batch_norm": m.batch_norm}
        loss_function = loss_spec(self.loss).given
        if loss_function is not None:
            options["given"] = partial(
                loss_function.weighted_derivatives, divisor_of(self), self.dtype
            )
            options["coupled"] = loss_function.coupled
        return _engine.Plan(*net, self._rows, *loss, threads, self.memory or 0, **options)

    @property
    def _has_quick_passes(self) -> bool:
        """True if passes are so short that Python's overhead is noticeable: (rows + 100) times the
        number of parameters is at most `QUICK_PASS_MAX_WORK`. More than one plan of this size may
        be kept.
        """
        return (self.n_samples + 100) * self.n_params <= QUICK_PASS_MAX_WORK

    @property
    def _max_spare_plans(self) -> int:
        """The maximum number of unused plans that are kept for future operators."""
        return 2 if self._has_quick_passes else 1

    def _spare_or_new_plan(self) -> Any:
        """Return a plan for an operator to own: a spare plan of a deleted operator if there is one,
        otherwise a new plan.
        """
        self._shares_rows = True
        plan = self._pop_spare_plan()
        return self._new_plan() if plan is None else plan

    def _pop_spare_plan(self) -> Any:
        """Return a spare plan of a deleted operator, or None if there is none."""
        try:
            return self._spare.pop()
        except IndexError:
            return None

    def _acquire_bound_plan(self, theta: Any) -> Any:
        """Return a plan bound to theta, with the gradient, for an operator to own."""
        plan = self._take_current_plan(theta)
        if plan is None:
            plan = self._spare_or_new_plan()
            bind_plan_to_copy(plan, self, theta, np.empty(self.n_params, self.dtype))
        return plan

    def _take_current_plan(self, theta: Any) -> Any:
        """Return the objective's own plan if it is at theta, has made a forward pass there, and is
        not in use. Otherwise return None.
        """
        is_comparable = type(theta) is np.ndarray and theta.dtype == self.dtype
        if not is_comparable or self._by_blocks or self._lock.is_held:
            return None
        with self._lock:
            plan = self._plan
            if plan is None or plan.theta is None or not _engine.equal_vectors(plan.theta, theta):
                return None
            self._shares_rows = True
            self._theta = np.empty_like(theta)
            self._plan = self._pop_spare_plan()
        plan.prepare_products()
        plan.compute_gradient()
        return plan

    def _return_plan(self, plan: Any) -> None:
        if len(self._spare) < self._max_spare_plans:
            self._spare.append(plan)

    def _bind_plan(self, theta: Any, gradient: bool) -> Any:
        """Return the objective's own plan, bound to theta. If `gradient` is True, the gradient is
        computed.
        """
        if type(theta) is not np.ndarray or theta.dtype != self.dtype or theta.ndim != 1:
            theta = self.model.check_theta(theta)
        plan = self._objective_plan()
        if plan.theta is None or not _engine.equal_vectors(plan.theta, theta):
            plan.unbind()
            bind_plan_to_copy(plan, self, theta, self._theta, gradient=gradient, transient=True)
        elif gradient:
            plan.compute_gradient()
        return plan

    def _objective_plan(self) -> Any:
        """Return the plan for values and gradients, for a caller that holds the lock."""
        if self._plan is None:
            self._theta = np.empty(self.n_params, self.dtype)
            self._plan = self._new_plan()
        return self._plan


def plan_layout(ob: Any) -> Any:
    """Return the layout that operators of this objective have; see `Curvature.layout`."""
    plan = ob._spare_or_new_plan()
    ob._return_plan(plan)
    return plan.layout
