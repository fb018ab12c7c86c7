"""Newton-CG with capped conjugate gradients, which turn negative curvature into a step."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.checks import check_positive, check_positive_int
from ..common.vectors import dot, norm
from ..krylov.solvers import Workspace, capped_cg
from .line_search import first_length, line_minimum
from .run import Method, Worth

LEAST = 1e-6  # of a shift, where no curvature was seen


class NewtonCG(Method):
    """Capped CG, then a line search along what it found.

    The shift is ``eps = sqrt(weight ||g||)``, so that steps become Newton's as the gradient
    vanishes; `weight` falls after full steps and rises after shortened ones.
    """

    weight: float | None
    reach: float | None
    bound: float
    work: Workspace

    curvature = "hessian"
    leaves_saddles = True
    defaults = {"forcing": 0.5, "thrift": 0.5, "weight": None, "max_cg": None, "sample": None}
    kept_facts = ("weight", "bound", "reach")

    def prepare(self) -> None:
        check_positive(self.forcing, "forcing")
        check_positive(self.thrift, "thrift", zero=True)
        if self.weight is not None:
            self.weight = check_positive(self.weight, "weight")
        if self.max_cg is not None:
            check_positive_int(self.max_cg, "max_cg")
        self.bound = 0.0
        self.reach = None
        self.work = Workspace(len(self.run.theta), self.run.theta.dtype)

    def step(self) -> str | None:
        run, (g, unit) = self.run, self._in_range()
        weight = self._first_weight(g) if self.weight is None else self.weight
        eps = np.sqrt(weight * run.gnorm)
        tolerance = min(self.forcing, np.sqrt(run.gnorm))
        d, curvature, self.bound = capped_cg(
            run.operator.product, g, eps, tolerance, self.work,
            bound=self.bound, max_iter=self.max_cg, stop=run.out_of_budget,
            worth=Worth(self.thrift, run.step_price()),
        )  # fmt: skip
        if curvature is not None:
            return self._follow(d)
        if unit != 1:
            d *= unit
        return self._descend(d, weight)

    def _in_range(self) -> tuple[np.ndarray, Any]:
        """The gradient over a power of two, and that: squares of its length are numbers then."""
        run, kind = self.run, self.run.theta.dtype.type
        least = float(np.finfo(kind).tiny) ** 0.25
        if least <= run.gnorm <= 1 / least:
            return run.g, kind(1)
        unit = kind(2.0 ** np.frexp(run.gnorm)[1])
        return run.g / unit, unit

    def _least(self) -> float:
        """What a shift is at least of, where curvature is not known: less where the gradient is."""
        return float(max(min(LEAST, self.run.gnorm), 1e-140))

    def _first_weight(self, g: np.ndarray) -> float:
        """The shift of the first step is a hundredth of the curvature along the gradient."""
        run = self.run
        run.operator.product(g, self.work.Hp)
        self.bound = norm(self.work.Hp) / norm(g)
        shift = max(min(0.01 * self.bound, 1e150), self._least())
        self.weight = weight = float(shift**2 / run.gnorm)
        return weight

    def _least_weight(self) -> float:
        """Of the curvature seen a ten-millionth, times the root of a gradient's norm of 1 at
        most.
        """
        size = min(max(self.bound, self._least()), 1e150)
        return float(1e-14 * size**2 / max(1.0, self.run.gnorm))

    def _descend(self, d: np.ndarray, weight: float) -> str | None:
        """Backtrack from the full step until the loss has fallen by a fraction of what the slope
        promises.
        """
        run = self.run
        t = self._backtrack(d)
        if t is None:
            return self._downhill()
        self.weight = weight * 4.0 if t < 1.0 else max(weight * 0.25, self._least_weight())
        run.arrive()
        return None

    def _backtrack(self, d: np.ndarray) -> float | None:
        """The fraction of d that lowers the loss enough, left in `run.spare`; None where none
        does.
        """
        run, slope = self.run, dot(self.run.g, d)
        noise = 10.0 * run.eps * abs(run.f)
        t = 1.0
        for _ in range(60 if slope < 0 else 0):
            f = run.try_step(d, t)
            if f <= run.f + 1e-4 * t * slope + noise:
                return t
            fitted = -0.5 * slope * t * t / (f - run.f - slope * t) if np.isfinite(f) else 0.0
            t = min(max(fitted, 0.1 * t), 0.5 * t)
        return None

    def _follow(self, d: np.ndarray) -> str | None:
        """Along negative curvature the best length is not Newton's: search for it, downhill side
        and other side.
        """
        run = self.run
        d /= d.dtype.type(np.linalg.norm(d))
        t, f = line_minimum(
            run.value, run.theta, d, run.f, self.reach or first_length(run.theta), refinements=3
        )
        if not f < run.f:
            return self._downhill()
        self.reach = abs(t)
        run.try_step(d, t)
        run.arrive()
        return None

    def _downhill(self) -> str | None:
        """Where the model misleads, at a kink for instance: a step along the gradient, as short as
        it takes.
        """
        run = self.run
        np.multiply(
            run.g, run.theta.dtype.type(-1.0 / max(self.bound, 1e-300)), out=self.work.scratch
        )
        if self._backtrack(self.work.scratch) is None:
            return "the line search found no lower value, along the Newton-CG step or the gradient"
        run.arrive()
        return None
