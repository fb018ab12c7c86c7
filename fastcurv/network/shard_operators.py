"""Curvature and Jacobian of an objective in shards, as linear operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._engine import Times
from ..runtime import to_nearest
from ..structure.parameters import l2_diagonal
from .arguments import as_vector
from .operators import Curvature
from .reductions import not_in_shards
from .shard_bounds import SumBound, column_parts, product_bound_part, sum_rounding
from .sums import additions


class ShardedCurvature(Curvature):
    """A curvature of an objective in shards: each product is one sum over them.

    Value and gradient are found when they are first asked for.
    """

    def __init__(self, objective: Any, theta: Any, kind: str) -> None:
        self.objective, self.kind = objective, kind
        self._plan = objective._new_plan()
        self._plan.bind(objective.model.check_theta(theta))
        self.theta, self._rounding = self._plan.theta, None
        self._go_by(Times(None, kind, False))  # a product is a fold over shards
        self._mass: np.ndarray | None = None
        n = objective.n_params
        super(Curvature, self).__init__(objective.dtype, (n, n))

    @property
    def value(self) -> float:
        """Of the objective at theta."""
        return float(self._plan.value)

    @property
    def gradient(self) -> np.ndarray:
        """Of the objective at theta, (n,)."""
        gradient: np.ndarray = self._plan.gradient
        gradient.flags.writeable = False
        return gradient

    def _multiply(self, v: Any, out: np.ndarray | None) -> None:
        super()._multiply(v, out)
        self._note_columns(np.atleast_2d(v))

    def _note_columns(self, Vt: np.ndarray) -> None:
        """Of unit vectors, how much their products summed up, for `column_bounds`."""
        if np.count_nonzero(Vt) == len(Vt):
            at = np.argmax(Vt, axis=1)
            if (Vt[np.arange(len(Vt)), at] == 1).all():
                if self._mass is None:
                    self._mass = np.full(self.shape[0], np.nan)
                self._mass[at] = self._plan.sizes

    @to_nearest
    def rounding_bound(self, v: Any) -> float:
        """A bound on ``||computed(H v) - H v||`` for v ``(n,)``: those of the shards, each found
        where it is, and what adding them up rounds.
        """
        v = as_vector(v, self.shape[0], self.dtype)
        found = self.objective._fold(product_bound_part, (self.theta, v, self.kind))
        return float(self.objective._summed(found, v, self.kind))

    @to_nearest
    def column_bounds(self) -> np.ndarray:
        """Bounds ``(n,)`` on the rounding of ``H e_j`` for every unit vector."""
        ob, n = self.objective, self.shape[0]
        if self._mass is None or np.isnan(self._mass).any():
            self.to_dense()
        bounds = self._errors_of_columns()
        decay = np.broadcast_to(l2_diagonal(ob) if self.kind != "fisher" else 0.0, (n,))
        deep = additions(ob.n_shards) + 2 * (self.kind == "fisher")
        found = zip(bounds, np.asarray(self._mass), decay)
        return np.array(
            [sum_rounding(SumBound(b, m), deep, np.array([d]), self.dtype) for b, m, d in found]
        )

    def _errors_of_columns(self) -> np.ndarray:
        return np.asarray(self.objective._fold(column_parts, (self.theta, self.kind)))

    def assembled(self) -> None:
        """None: rows are not at hand."""

    def reach(self, most: int) -> None:
        """None: what proves it needs all rows at hand."""

    reduced = not_in_shards
