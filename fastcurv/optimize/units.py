"""Runs in units of the targets, for squared errors without weight decay.

Damping and trust regions measure steps of all parameters by one length, and a start is drawn for
outputs of size 1. If targets are larger or smaller by orders of magnitude, or far from 0, the
parameters of the last layer have other orders of magnitude than all others. Since the last layer is
linear, a run with such targets first minimises the loss of targets of mean 0 and spread 1, and
continues in the units of the caller from the minimum found.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..common.objectives import has_consistent_hessian, value_as_float, value_at
from ..common.outcome import outcome as as_result
from ..common.vectors import norm
from ..network.objective import Objective
from ..network.row_views import with_model
from .run import MinimizeResult

# range of the standard deviations of targets that need no scaling
UNSCALED_DEVIATION_RANGE = 1 / 8, 8.0
# maximum distance from 0 of the mean of targets that need no scaling, in standard deviations
MAX_UNSCALED_MEAN_DEVIATIONS = 8.0
# A start whose loss is below this fraction of the variance explains part of the targets, and is
# converted to scaled units.
MAX_LOSS_TO_VARIANCE_RATIO = 0.99
# maximum scaled loss of a start that is used without conversion, relative to the loss at theta = 0
MAX_START_LOSS_RATIO = 64.0


class TargetUnits(NamedTuple):
    """An objective in units in which its targets have mean 0 and standard deviation 1.

    Attributes
    ----------
    ob : objective
        The objective of the caller.
    scaled : objective
        The same objective with targets ``(y - shift) / unit``.
    unit : float
        The spread of the targets.
    shift : ndarray, shape (d_out,)
        The mean of each target; 0 if the last layer has no biases.
    """

    ob: Any
    scaled: Any
    unit: float
    shift: np.ndarray

    def to_unscaled(self, theta: np.ndarray) -> np.ndarray:
        """Return the point at which the network of the caller's objective has the outputs ``unit *
        f + shift``, with f its outputs at theta. The loss there is the scaled loss times unit^2.
        """
        theta = theta.copy()
        W, b = self.ob.model.unflatten(theta)[-1]
        W *= self.unit
        if b is not None:
            b[:] = b * self.unit + self.shift
        return theta

    def to_scaled(self, theta: np.ndarray) -> np.ndarray:
        """Return the point of the scaled objective that `to_unscaled` maps to theta."""
        theta = theta.copy()
        W, b = self.ob.model.unflatten(theta)[-1]
        W /= self.unit
        if b is not None:
            b[:] = (b - self.shift) / self.unit
        return theta

    def scaled_start(self, theta: np.ndarray) -> np.ndarray:
        """Return the start of the scaled run for a start theta in the caller's units.

        If theta explains part of the targets, or its outputs are too large for a random start,
        theta is converted to scaled units. Otherwise a copy of theta is returned, since theta was
        drawn for outputs of size 1.
        """
        same = self.to_scaled(theta)
        zero = np.zeros_like(theta)
        loss, drawn, none = (value_at(self.scaled, at) for at in (same, theta, zero))
        untrained = loss >= MAX_LOSS_TO_VARIANCE_RATIO and drawn <= max(
            MAX_START_LOSS_RATIO * none, loss
        )
        return theta.copy() if untrained else same

    def unscaled_result(self, run: MinimizeResult) -> MinimizeResult:
        """Return the intermediate result `run` of a scaled run in the units of the caller."""
        g = run.jac * run.jac.dtype.type(self.unit**2)
        for block in self.ob.model.unflatten(g)[-1]:
            if block is not None:
                block /= self.unit
        x = self.to_unscaled(run.x)
        fun = run.fun * self.unit**2
        return as_result(MinimizeResult, x=x, fun=fun, nit=run.nit, nhev=run.nhev, jac=g)


def find_target_units(ob: Any) -> TargetUnits | None:
    """Return units for an objective whose targets are far from mean 0 and standard deviation 1, or
    None for other targets and for objectives other than an unpenalised ``mse`` on rows in memory.
    """
    in_memory = isinstance(ob, Objective) and hasattr(ob, "X")
    if not in_memory or not has_consistent_hessian(ob) or ob.loss != "mse" or ob.l2 != 0:
        return None
    y = np.array(ob.y, dtype=float).reshape(ob.n_samples, -1)
    weight = ob.sample_weight
    if weight is not None:
        if not weight.any():
            return None
        y[weight == 0] = 0.0  # targets of rows with weight 0 may have any size
    size = float(np.abs(y).max(initial=0.0))
    if not 1e-100 < size < 1e100:  # neither overflow nor underflow of the squares
        return None
    shift = np.average(y, axis=0, weights=weight)
    away = (y - shift) / size
    spread = size * float(np.sqrt(np.average(away * away, axis=0, weights=weight).mean()))
    near = bool((abs(shift) <= MAX_UNSCALED_MEAN_DEVIATIONS * spread).all()) or not ob.model.bias
    if (
        not 1e-12 * size < spread
        or near
        and UNSCALED_DEVIATION_RANGE[0] <= spread < UNSCALED_DEVIATION_RANGE[1]
    ):
        return None
    shift *= ob.model.bias
    return TargetUnits(ob, with_model(ob, ob.model, (y - shift) / spread), spread, shift)


def minimize_in_target_units(
    units: TargetUnits, theta: np.ndarray, go: Callable[..., MinimizeResult], callback: Any
) -> tuple[MinimizeResult, np.ndarray, list[tuple[float, ...]]]:
    """Minimise the scaled objective from theta, a point in the units of the caller. ``go(objective,
    theta0, callback=...)`` runs the minimiser. `callback` is None or receives intermediate results
    in the units of the caller.

    Return the result of the scaled run and, in the units of the caller, the final point and the
    records of the steps.
    """
    start_time = time.perf_counter()
    f = value_as_float(units.ob.value(theta))
    records: list[tuple[float, ...]] = [(0, f, norm(units.ob.gradient(theta)), 0, 0.0)]

    def record(intermediate_result: MinimizeResult) -> bool:
        at = units.unscaled_result(intermediate_result)
        records.append((at.nit, at.fun, norm(at.jac), at.nhev, time.perf_counter() - start_time))
        return callback is not None and bool(callback(at))

    run = go(units.scaled, units.scaled_start(theta), callback=record)
    return run, units.to_unscaled(run.x), records
