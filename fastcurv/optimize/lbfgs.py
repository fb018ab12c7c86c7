"""L-BFGS: inverse curvature from the last steps and the changes of the gradient along them.

With rows S of steps s_i and Y of changes y_i, oldest first, R the upper triangle of ``S Y'``, D its
diagonal and c = s'y / y'y of the newest pair, the inverse Hessian's estimate times g is

    u = R^-1 S g      w = R^-T (D u + c Y (Y' u - g))      c g + S' w - c Y' u

(Byrd, Nocedal and Schnabel, Representations of quasi-Newton matrices, 1994, theorem 2.2). The pairs
are read twice an iteration: once for their products with g and the newest y, once for the step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.protocols import Array
from ..common.vectors import combine_rows, compact_weights, dot, norm, project_rows
from .checkpoint import damaged
from .line_search import Trial, descend_along
from .run import Method

FLAT = 1e-10  # a pair with s'y below this share of ||s|| ||y|| is dropped


class LBFGS(Method):
    """L-BFGS steps from at most `memory` pairs, with a line search to the strong Wolfe
    conditions.
    """

    defaults = {"memory": 20}

    def __init__(self, run: Any, **options: Any) -> None:
        super().__init__(run, **options)
        m, n, dtype = self.memory, len(run.theta), run.theta.dtype
        self.pairs = np.empty((2 * m, n), dtype)  # s_0, y_0, s_1, y_1, ...; read as far as written
        self.cross, self.inner = np.zeros((m, m)), np.zeros((m, m))  # s_i'y_j and y_i'y_j
        self.products = np.zeros(2 * m)  # s_i'g and y_i'g
        self.weights = np.zeros((2 * m, 1))  # coefficients of the pairs in the step
        self.first = self.count = 0  # row of the oldest pair in the ring buffer, number of pairs
        self.newest = np.empty((2, n), dtype)  # y and g, multiplied by the pairs in one pass

    def step(self) -> str | None:
        run = self.run
        while True:
            d = self._direction()
            slope = dot(run.g, d)
            first = 1.0 if self.count else min(1.0, 1.0 / run.gnorm)
            found = descend_along(run, d, slope, first) if slope < 0 else None
            if found is not None:
                self._move(found)
                return None
            if run.cut:
                return None
            if not self.count:
                return "the line search found no lower value along the gradient"
            self.first = self.count = 0  # drop all pairs: they mislead, as they can at a kink

    def _direction(self) -> np.ndarray:
        """Return minus the inverse Hessian estimate times the gradient."""
        g, k = self.run.g, self.count
        if not k:
            return np.asarray(-g)
        c = compact_weights(self.cross, self.inner, self.products, self.weights, self.first, k)
        d: Array = np.empty((1, len(g)), g.dtype)
        combine_rows(self.pairs[: 2 * k], self.weights[: 2 * k], d)
        step: Array = d[0]
        step -= g.dtype.type(c) * g
        return step

    def _move(self, found: Trial) -> None:
        """Move to the point in `run.spare`, and store the pair of this step if its curvature is
        usable.
        """
        run, (y, g) = self.run, self.newest
        assert found.g is not None  # a search ends at a point whose slope it has computed
        np.subtract(found.g, run.g, out=y)
        np.copyto(g, found.g)
        s = run.spare - run.theta
        run.theta, run.spare = run.spare, run.theta
        run.f, run.g, run.gnorm = found.f, found.g, norm(g)
        self._remember(s, y)

    def _remember(self, s: np.ndarray, y: np.ndarray) -> None:
        """Store the pair (s, y) as the newest, and update the products of all pairs with the
        gradient.
        """
        m, row = len(self.inner), None
        if dot(s, y) > FLAT * norm(s) * norm(y):
            row = self.count if self.count < m else self.first
            self.first = (self.first + (self.count == m)) % m
            self.count = min(self.count + 1, m)
            self.pairs[2 * row], self.pairs[2 * row + 1] = s, y
        if self.count:
            self._multiply(row)

    def _multiply(self, row: int | None) -> None:
        """Compute the products of all pairs with the gradient and, if the pair in `row` is new,
        with its y.
        """
        k = self.count
        of_y, of_g = project_rows(self.pairs[: 2 * k], self.newest)
        self.products[: 2 * k] = of_g
        if row is not None:
            self.cross[:k, row] = of_y[0::2]
            self.inner[:k, row] = self.inner[row, :k] = of_y[1::2]

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        rows = range(self.count)
        steps = {f"s{i}": self.pairs[2 * i].copy() for i in rows}
        changes = {f"y{i}": self.pairs[2 * i + 1].copy() for i in rows}
        return steps | changes, {"first": self.first}

    def load(self, arrays: Any, facts: Any) -> None:
        """Restore every pair into its old row, so that sums over rows agree with the saved run to
        the last bit.
        """
        m, first = len(self.inner), facts["first"]
        while self.count < m and f"s{self.count}" in arrays and f"y{self.count}" in arrays:
            self.pairs[2 * self.count] = arrays[f"s{self.count}"]
            self.pairs[2 * self.count + 1] = arrays[f"y{self.count}"]
            self.count += 1
        if first >= m or (first and self.count < m):
            raise damaged(f"its oldest pair is in row {first} of {self.count}")
        self.first, self.newest[1] = first, self.run.g
        for row in ((first + i) % m for i in range(self.count)):  # from the oldest on
            self.newest[0] = self.pairs[2 * row + 1]
            self._multiply(row)
