"""Steps of minimisers that the engine computes, and the objectives for which it can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._engine import LevenbergRun, LossEvaluator
from ..common.protocols import is_library_object
from ..structure.tables import loss_spec
from .kronecker import KroneckerCoordinates
from .plans import ObjectivePlans

if TYPE_CHECKING:
    from ..network.objective import Objective


def has_gauss_newton_matrix(ob: Objective) -> bool:
    """Return True if the engine can compute the Gauss-Newton matrix of a convex loss: if there is
    no batch normalisation, no block of rows and no `memory` limit, and no user-defined loss that
    couples outputs.
    """
    if ob._by_blocks or ob.model.batch_norm or ob.memory:
        return False
    loss_function = loss_spec(ob.loss).given
    return loss_function is None or not loss_function.coupled


def has_levenberg_steps(ob: Objective) -> bool:
    """Return True if the engine computes Levenberg-Marquardt steps: the Gauss-Newton matrix can be
    computed, the loss is convex in the outputs, and no subclass replaces the loss.
    """
    is_convex = loss_spec(ob.loss).is_convex
    return has_gauss_newton_matrix(ob) and is_convex and is_library_object(ob)


class EngineSteps:
    """Steps of minimisers that the engine computes with the plans of an objective. A method returns
    None if the engine cannot compute the steps.

    Attributes
    ----------
    uses_matrix : bool
        True if `levenberg_solver` returns a run, because the Gauss-Newton matrix is positive
        semidefinite everywhere.
    """

    def __init__(self, ob: Objective) -> None:
        self.objective = ob
        self.uses_matrix = has_levenberg_steps(ob)

    def levenberg_solver(self, theta: np.ndarray) -> Any:
        """Return a run of Levenberg-Marquardt steps from `theta`, which is updated in place."""
        ob = self.objective
        if not self.uses_matrix:
            return None
        return LevenbergRun(ob._spare_or_new_plan(), theta, ob._spare, ob._max_spare_plans)

    def point_evaluator(self) -> Any:
        """Return an evaluator of losses, gradients and products at the current point of a run and
        at trial points. The result is None unless evaluations take so little time that overhead in
        Python matters, and the GGN is positive semidefinite.
        """
        ob = self.objective
        if ob._by_blocks or not (loss_spec(ob.loss).is_convex and ob._has_quick_passes):
            return None
        plans = ob._spare_or_new_plan(), ob._spare_or_new_plan()
        return LossEvaluator(*plans, ob._spare, ob._max_spare_plans)

    def locked_run_function(self, minimiser: Any) -> Any:
        """Return ``minimiser.run`` with the objective's own plan bound as its first argument."""
        ob = self.objective

        def run(*arguments: Any) -> Any:
            with ob._lock:
                return minimiser.run(ob._objective_plan(), *arguments)

        return None if ob._by_blocks else run

    def kronecker_coordinates(self) -> Any:
        """Return the `KroneckerCoordinates` of the parameters."""
        ob = self.objective
        if ob._by_blocks or ob.model.batch_norm:
            return None
        return KroneckerCoordinates(ob)


def engine_steps_of(ob: Objective) -> EngineSteps | None:
    """Return the `EngineSteps` of an objective of one of this library's classes. Return None for
    any other objective, whose loss may be another one.
    """
    return EngineSteps(ob) if is_library_object(ob) and isinstance(ob, ObjectivePlans) else None
