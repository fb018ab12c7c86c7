"""Newton-MR: steps of least residual, which invexity alone lets descend on the gradient norm."""

from __future__ import annotations

import numpy as np

from .newton import _InSpace


class NewtonMR(_InSpace):
    """Least-squares Newton steps with a line search on the gradient's norm: to the nearest critical
    point.

    References
    ----------
    .. [1] F. Roosta, Y. Liu, P. Xu, M. W. Mahoney, Newton-MR: inexact Newton method with minimum residual
       sub-problem solver, EURO J. Comput. Optim. 10 (2022).
    """

    leaves_saddles = False

    def solve(self):
        run, space = self.run, self.space
        tolerance = min(self.forcing, np.sqrt(run.gnorm))
        look_at, r = 1, np.zeros(0)
        while True:
            while (
                space.m < look_at and not space.exhausted and not (space.m and run.out_of_budget())
            ):
                space.extend()
            m, held = space.m, space.m + space.p
            tall = space.couplings[:held, :m]
            c = np.zeros(held)
            c[0] = space.gamma
            y = np.linalg.lstsq(tall, -c, rcond=m * np.finfo(float).eps)[0]
            size = float(np.max(np.abs(space.ritz()[0])))
            # the last residual lies in the rows multiplied since, so H times it is known: near 0,
            # no step lowers it
            flat = len(r) and np.linalg.norm(
                tall[:, : len(r)] @ r
            ) <= tolerance * size * np.linalg.norm(r)
            r = tall @ y + c
            if flat or np.linalg.norm(r) <= tolerance * space.gamma:
                break
            if space.exhausted or m >= self.limit or run.out_of_budget():
                break
            look_at = min(held + m // 8, self.limit)
        space.combine(y, out=self.vector)
        return 2.0 * space.gamma * float(tall[0] @ y)  # the slope of ||g||^2 along the step

    def step(self):
        run = self.run
        self.open_space()
        slope = self.solve()
        if not slope < 0:
            return (
                "no step lowers the norm of the gradient: it is orthogonal to the range of the "
                "Hessian"
            )
        t = 1.0
        for _ in range(50):
            np.multiply(self.vector, run.theta.dtype.type(t), out=run.spare)
            run.spare += run.theta
            _, g = run.value_and_gradient(run.spare)
            if float(g @ g) <= run.gnorm**2 + 1e-4 * t * slope:
                run.arrive()
                return None
            t *= 0.5
        return "the line search found no smaller gradient along the Newton-MR step"
