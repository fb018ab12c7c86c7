"""Steps of minimisers that the engine computes, and the objectives for which it can."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._engine import LevenbergRun, LossEvaluator
from ..common.protocols import states
from ..structure.tables import loss_spec
from .kronecker import KroneckerCoordinates


def has_gauss_newton_matrix(ob: Any) -> bool:
    """Return True if the engine can compute the Gauss-Newton matrix of a convex loss: if there is
    no batch normalisation, no block of rows and no `memory` limit, and no user-defined loss that
    couples outputs.
    """
    if ob._by_blocks or ob.model.batch_norm or ob.memory:
        return False
    loss_function = loss_spec(ob.loss).given
    return loss_function is None or not loss_function.coupled


def has_levenberg_steps(ob: Any) -> bool:
    """Return True if the engine computes Levenberg-Marquardt steps: the Gauss-Newton matrix can be
    computed, the loss is convex in the outputs, and no subclass replaces the loss.
    """
    is_convex = loss_spec(ob.loss).is_convex
    return has_gauss_newton_matrix(ob) and is_convex and states(ob, "engine_steps")


class EngineSteps:
    """Steps of minimisers that the engine computes with the plans of an objective. The class
    implements `fastcurv.common.protocols.EngineSteps`.
    """

    def __init__(self, ob: Any) -> None:
        self.objective = ob
        self.uses_matrix = has_levenberg_steps(ob)

    def levenberg_solver(self, theta: np.ndarray) -> Any:
        ob = self.objective
        if not self.uses_matrix:
            return None
        return LevenbergRun(ob._spare_or_new_plan(), theta, ob._spare, ob._max_spare_plans)

    def point_evaluator(self) -> Any:
        ob = self.objective
        if ob._by_blocks or not (loss_spec(ob.loss).is_convex and ob._has_quick_passes):
            return None
        plans = ob._spare_or_new_plan(), ob._spare_or_new_plan()
        return LossEvaluator(*plans, ob._spare, ob._max_spare_plans)

    def locked_run_function(self, minimiser: Any) -> Any:
        ob = self.objective

        def run(*arguments: Any) -> Any:
            with ob._lock:
                return minimiser.run(ob._objective_plan(), *arguments)

        return None if ob._by_blocks else run

    def kronecker_coordinates(self) -> Any:
        ob = self.objective
        if ob._by_blocks or ob.model.batch_norm:
            return None
        return KroneckerCoordinates(ob)
