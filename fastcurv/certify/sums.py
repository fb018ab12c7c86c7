"""Proved statements about objectives that are sums over blocks of rows (see
`fastcurv.network.sums`). `SumCertificates` has the interface of `Certificates`.

Each statement about all rows is combined from statements about the rows of each shard. Bounds and
counts add up, and a property of every row must hold in every shard. Statements that would need all
rows in one place are not made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..common.caches import cache_by_owner
from ..common.protocols import Floats
from ..structure.orbits import Orbit, proved_orbits
from ..structure.parameters import l2_diagonal, nonzero_weight_rows
from ..structure.tables import loss_spec
from . import loss_infimum, preactivations
from .certificates import Certificates
from .curvature_floor import curvature_floor
from .passes import round_to_model_dtype


@cache_by_owner
def _last_results(ob: Any) -> dict[str, Any]:
    """Return a dict {name: (arguments, result)} for the last certificate of each kind of an
    objective.
    """
    return {}


@dataclass(frozen=True)
class RepresentativeRows:
    """A few rows whose columns are zero, equal or constant exactly where the columns of all rows
    are.
    """

    X: Floats

    def __add__(self, other: RepresentativeRows) -> RepresentativeRows:
        return select_representative_rows(np.vstack([self.X, other.X]))


def select_representative_rows(X: Floats) -> RepresentativeRows:
    """Select rows of X: the first row, a row for each column that is not constant, and for each two
    columns that differ a row in which they differ.

    Examples
    --------
    >>> X = np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0], [3.0, 2.0, 0.0], [4.0, 2.0, 0.0]])
    >>> select_representative_rows(X).X
    array([[1., 2., 0.],
           [3., 2., 0.]])
    """
    if not len(X):
        return RepresentativeRows(X)
    gaps = X[0] != X
    rows = {0, *gaps.argmax(axis=0)[gaps.any(axis=0)].tolist()}
    while True:
        W = X[sorted(rows)] + 0.0  # adding 0.0 turns -0 into 0
        _, first, label = np.unique(W.T, axis=0, return_index=True, return_inverse=True)
        gaps = X[:, first[label.reshape(-1)]] != X
        broken = gaps.any(axis=0)
        if not broken.any():
            return RepresentativeRows(W)
        rows.update(gaps.argmax(axis=0)[broken].tolist())


def shard_representative_rows(shard: Any) -> RepresentativeRows:
    return select_representative_rows(nonzero_weight_rows(shard))


def shard_loss_lower_bound(shard: Any) -> list[float]:
    return [loss_infimum.loss_lower_bound(shard)]


def shard_classification_flags(shard: Any, theta: Floats) -> tuple[int, int]:
    """Return ``(a, b)``. a is 0 if every row of positive weight is proved to be classified
    correctly, otherwise 1. b is 1 if there is a row of positive weight, otherwise 0.
    """
    counts = shard.sample_weight is None or bool(np.any(shard.sample_weight))
    return int(not loss_infimum.is_every_row_proved_correct(shard, theta)), int(counts)


def shard_unit_masks(shard: Any, theta: Floats, radius: float) -> tuple[Any, Any]:
    """Return masks, by hidden layer, of the units that may be active somewhere on the ball of this
    radius around theta, and of the units with a z at a kink at theta. The sum of masks is their
    logical or.
    """
    here, *ball = preactivations.preactivation_signs(shard, theta, 0.0, *[radius] * (radius > 0))
    return tuple(~off for off in (ball or [here])[0].off), tuple(here.on_kinks)


def shard_curvature_floor(shard: Any, theta: Floats) -> tuple[float, float]:
    """Return a lower bound on the eigenvalues of the contribution of the shard's rows to the
    Hessian, and the absolute value of this bound.
    """
    floor = curvature_floor(shard, theta)
    return floor, abs(floor)


class SumCertificates(Certificates):
    """The `Certificates` of an objective whose values are sums over shards of its rows."""

    growth = 1 + 1e-9

    def _sum_over_shards(self, part: Any, theta: ArrayLike, *more: Any) -> Any:
        """Return the sum over shards of ``part(shard, theta, *more)``."""
        return self.objective.sum_over_rows(
            part, round_to_model_dtype(self.objective, theta), *more
        )

    def _cached_result(self, name: str, key: tuple[Any, ...], find: Callable[[], Any]) -> Any:
        """Return the cached result for `name` if it was computed for the same `key`, otherwise
        return ``find()`` and cache it.
        """
        results = _last_results(self.objective)
        known = results.get(name)
        if known is None or not all(np.array_equal(a, b) for a, b in zip(known[0], key)):
            known = results[name] = (key, find())
        return known[1]

    @property
    def loss_lower_bound(self) -> float:
        """A lower bound on the loss over all theta."""
        return float(
            self._cached_result(
                "lower",
                (),
                lambda: min(self.objective.sum_over_rows(shard_loss_lower_bound)),
            )
        )

    def ray_to_infimum(self, theta: ArrayLike) -> Floats | None:
        """Return a unit direction (n,) along which the loss is proved to decrease without
        end, or None if no such direction is known.
        """
        ob = self.objective
        at = round_to_model_dtype(self.objective, theta)
        row = loss_spec(ob.loss)
        if row.given is None and (row.attained or self.loss_lower_bound < 0):
            return None
        along = loss_infimum.bias_direction(
            ob,
            *self._cached_result(
                "pulls", (), lambda: ob.sum_over_rows(loss_infimum.target_directions)
            ),
        )
        if row.given is not None:
            return along
        direction = loss_infimum.last_layer_direction(ob, at)
        if along is not None or loss_infimum.has_decay(ob, direction):
            return along
        flags = self._cached_result(
            "ray", (at,), lambda: self._sum_over_shards(shard_classification_flags, at)
        )
        return direction if flags[0] == 0 and flags[1] else None

    def residual_bounds(self, theta: ArrayLike, radius: float) -> None:
        """Return None: the Jacobian of all rows is not formed for an objective in shards."""

    def relu_rows(self) -> None:
        """Return None: minima at active kinks are not proved for an objective in shards."""

    def orbits(self, theta: ArrayLike, radius: float = 0.0) -> list[Orbit]:
        """Return the symmetry groups of the loss on all rows that are proved at theta and on the
        ball of this radius, from the units that are inactive in every shard and from a few rows
        that represent the columns of all rows.
        """
        ob = self.objective
        at = round_to_model_dtype(self.objective, theta)
        on, near = self._cached_result(
            "signs",
            (at, radius),
            lambda: self._sum_over_shards(shard_unit_masks, at, float(radius)),
        )
        rows = self._cached_result(
            "columns", (), lambda: ob.sum_over_rows(shard_representative_rows)
        )
        whole = SimpleNamespace(
            model=ob.model,
            loss=ob.loss,
            l2=ob.l2,
            l2_biases=ob.l2_biases,
            X=rows.X,
            sample_weight=None,
        )
        return proved_orbits(whole, at, [~units for units in on], list(near))

    def curvature_floor(self, theta: ArrayLike) -> float:
        """Return a lower bound on the eigenvalues of the Hessian, or -inf: the sum of the shards'
        bounds plus l2.
        """
        floor, size = self._sum_over_shards(shard_curvature_floor, theta)
        least = float(np.min(l2_diagonal(self.objective)))
        bound = least + floor - 1e-12 * (least + size)
        return float(bound) if np.isfinite(bound) else -np.inf
