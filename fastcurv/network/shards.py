"""A part of an objective's rows, as an objective. Objectives over blocks of rows are sums of such
parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..common.protocols import library_class
from ..structure.parameters import n_terms_per_row
from .objective import Objective
from .sparse import SparsePlan, SparseRows
from .sums import ShardSettings


@library_class
class Shard(Objective):
    """A subset of an objective's rows, whose values and derivatives are their contributions to the
    sums over all rows, without l2.

    Parameters
    ----------
    frame : ShardSettings
        The settings that all shards share.
    X : ndarray or SparseRows
        The rows in the form that `Objective` stores: checked, and in the model's dtype, like `y`
        and `sample_weight`.
    y, sample_weight : ndarray
        The targets of these rows and, unless None, their weights.
    first : int
        Index of the first row among all rows.
    """

    frame: ShardSettings
    first: int
    fisher_scale: float
    own_outputs: slice
    _plans: list[Any]
    _transient = (*Objective._transient, "_plans")

    def __init__(
        self, frame: ShardSettings, X: Any, y: Any, sample_weight: Any, first: int = 0
    ) -> None:
        self.frame = frame
        self.model = frame.model
        self.loss = frame.loss
        self.l2 = 0.0
        self.l2_biases = True
        self.memory = None
        self.n_threads = frame.n_threads
        self.first = first
        self._unproved = ""
        self._X = X
        self._y = y
        self._weight = sample_weight
        self._set_up_rows()
        self.divisor = frame.n_samples * n_terms_per_row(self)
        # The engine multiplies the Fisher by the number of rows of this shard; fisher_scale
        # replaces this factor by the number of all rows.
        self.fisher_scale = frame.n_samples / self.n_samples
        # position of the shard's outputs among the outputs of all rows
        d = self.model.sizes[-1]
        self.own_outputs = slice(first * d, (first + self.n_samples) * d)

    def _set_up_rows(self) -> None:
        if isinstance(self._X, SparseRows):
            self._determine_loss_properties()
            self._n_samples = len(self._X)
            self._create_process_state()
        else:
            super()._set_up_rows()
        self._plans = []

    def _new_plan(self) -> Any:
        return SparsePlan(self) if isinstance(self._X, SparseRows) else super()._new_plan()

    def refill(self, X: Any, y: Any, sample_weight: Any, first: int) -> Shard:
        """Return a shard with the same number of other rows, which begin at row `first` of all
        rows. The new shard takes over the memory of this shard, which cannot be used afterwards.
        """
        other = Shard(self.frame, X, y, sample_weight, first)
        for plan in self._plans:
            plan.replace_rows(*other._engine_arguments())
        other._plans = self._plans
        self._plans = []
        return other

    def dense_shards(self, size: int) -> Iterator[Shard]:
        """Yield shards with `size` of these sparse rows each, as dense arrays."""
        for start in range(0, self.n_samples, size):
            rows = slice(start, start + size)
            weight = None if self._weight is None else self._weight[rows]
            X = self._X.X[rows].toarray()
            yield Shard(self.frame, X, self._y[rows], weight, self.first + start)

    def _bind_plan(self, theta: Any, gradient: bool) -> Any:
        """Return a plan of the shard bound to theta, with its gradient if requested: a kept plan if
        it is at theta, otherwise a new plan or, if `ShardSettings.keep` plans exist, the least
        recently used plan.
        """
        plans = self._plans
        for i, plan in enumerate(plans):
            if plan.theta is not None and np.array_equal(plan.theta, theta):
                plans.insert(0, plans.pop(i))
                break
        else:
            plan = plans.pop() if len(plans) >= self.frame.keep else self._new_plan()
            plans.insert(0, plan)
            plan.bind(theta, gradient)
        if gradient:
            plan.compute_gradient()
        return plans[0]
