"""Newton-MR: steps of least residual, which invexity alone lets descend on the gradient norm."""

from __future__ import annotations

import numpy as np

from ..critical.find import grow, krylov_steps, lower_gradient
from .newton import _InSpace


class NewtonMR(_InSpace):
    """Least-squares Newton steps with a line search on the gradient's norm: to the nearest critical
    point.

    References
    ----------
    .. [1] F. Roosta, Y. Liu, P. Xu, M. W. Mahoney, Newton-MR: inexact Newton method with minimum
           residual sub-problem solver, EURO J. Comput. Optim. 10 (2022).
    """

    leaves_saddles = False

    def step(self) -> str | None:
        run, space = self.run, self.space
        self.open_space()
        grow(space, min(self.forcing, np.sqrt(run.gnorm)), self.limit, run.out_of_budget)
        steps = krylov_steps(space)
        if not any(slope < 0 for slope in steps.slopes):
            return (
                "no step lowers the norm of the gradient: it is orthogonal to the range of the "
                "Hessian"
            )
        found = lower_gradient(
            lambda theta: run.value_and_gradient(theta)[1], run.theta, run.gnorm, steps
        )
        if found is None:
            return "the line search found no smaller gradient along the Newton-MR step"
        np.copyto(run.spare, found[0])
        run.arrive()
        return None
