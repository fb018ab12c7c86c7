"""Bounds on rounding, and proved statements, of objectives that are sums over blocks of rows (see
`fastcurv.network.sums`). `SumErrorBounds` has the interface of `ErrorPass`, and `SumCertificates`
that of `Certificates`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..common.protocols import Floats
from ..network.sums import max_additions_per_part
from ..structure.parameters import l2_diagonal, nonzero_weight_rows
from ..structure.symmetry import Orbit, proved_orbits
from ..structure.tables import LOSSES
from . import majorants
from .arithmetic import norm
from .certificates import Certificates
from .columns import column_error_bounds
from .passes import ErrorPass, round_to_model_dtype

# --------------------------------------------------------------------------------------------------
# Rounding errors of sums over shards: the shards' own bounds, computed where the shards are, plus
# the errors of adding the parts.
#
# Entry by entry the error of a tree of additions is at most ``gamma(D) sum |x_s|``, where D is the
# number of additions that a number passes through (Higham 2002, 4.2), so in norm it is at most
# ``gamma(D) sum ||x_s||``.

SHARD_SUM_ROUND_UP_FACTOR = (
    1 + 1e-9
)  # factor that covers the rounding of norms and of sums of bounds
# bound on the norm of the underflow in n products, in units of the smallest subnormal number
PRODUCT_UNDERFLOW_FACTOR = 2.0**22


def sum_error_bound(found: tuple[float, float], deep: int, decay: np.ndarray, dtype: Any) -> float:
    """Return a bound on the error of ``sum of parts + decay`` if each number passes through `deep`
    additions. `found` contains the sum over the parts of the bounds on their errors, and the sum of
    their computed norms.

    Sums are formed in float64, including the term l2 v (`decay`, three roundings), and then rounded
    to the dtype.
    """
    u, last = (0.5 * float(np.finfo(t).eps) for t in (np.float64, dtype))
    size, moved = found[1] * SHARD_SUM_ROUND_UP_FACTOR, norm(decay) * SHARD_SUM_ROUND_UP_FACTOR
    bound = found[0] + deep * u / (1 - deep * u) * size
    if moved:
        bound += u * (size + bound) + 4 * u * moved
    if last > u:
        bound += last * (size + bound + moved)
    room = SHARD_SUM_ROUND_UP_FACTOR + 4 * last + len(decay) * 2 * u
    if bound + size + moved > 0:
        bound += PRODUCT_UNDERFLOW_FACTOR * float(np.finfo(dtype).smallest_subnormal)
    return float(bound * room) if bound + size + moved < np.finfo(dtype).max else np.inf


def _summation_layout(shard: Any, theta: np.ndarray) -> Any:
    """Return the layout of the shard's passes at theta, which is the order of summation over the
    rows. The caller holds the shard's lock.
    """
    return shard.layout or shard._bind_plan(theta, False).layout


def shard_error_bound(shard: Any, theta: np.ndarray, v: Any, kind: str) -> tuple[float, float]:
    """Return a bound on the error of the contribution of the shard's rows to the product of the
    curvature `kind` with v, or to the gradient if v is None, and the norm of this computed
    contribution.

    For a piece of a sparse block no product or gradient is computed, and the norm is given as 0.
    """
    with shard._lock:
        bounds, computed, scale = shard.bounds, None, _fisher_scale(shard, kind)
        if bounds is None or not np.array_equal(bounds.theta, theta):
            measured = shard.dtype == np.float32 and not shard.layout
            bounds = ErrorPass(shard, theta, _summation_layout(shard, theta), measured)
            vars(shard)["bounds"] = bounds
        if not shard.layout:
            plan = shard._bind_plan(theta, v is None)
            if v is None:
                computed = plan.gradient
            else:
                computed = np.empty_like(v)
                plan.multiply(v, computed, kind, None, False)
        found = computed if bounds.measured else None
        error = (
            bounds.gradient_error_bound(found)
            if v is None
            else bounds.product_error_bound(v, kind, found)
        )
    return float(error) * scale, 0.0 if computed is None else norm(computed) * scale


def shard_column_error_bounds(shard: Any, theta: np.ndarray, kind: str) -> np.ndarray:
    """Return bounds (n,) on the errors of the contribution of the shard's rows to products of the
    curvature `kind` with unit vectors.
    """
    with shard._lock:
        layout = _summation_layout(shard, theta)
    return column_error_bounds(ErrorPass(shard, theta, layout), kind) * _fisher_scale(shard, kind)


def _fisher_scale(shard: Any, kind: str) -> float:
    """Return the factor that converts the Fisher of the shard's own rows to its part of the Fisher
    of all rows. The factor is 1 for other curvatures, and if the layout contains the number of all
    rows. The factor is rounded twice, which callers of `sum_error_bound` count as two additions.
    """
    own = kind == "fisher" and not shard.layout
    return float(shard.fisher_scale) * (1 + 1e-12) if own else 1.0


class SumErrorBounds:
    """Bounds on the rounding errors of sums over shards at one theta: the sum of the shards'
    bounds, each computed where the shard is, plus the rounding errors of adding the parts.

    If `measured` is True, the bounds hold for a computed gradient or product, which must be given.
    `measured` is True for sparse rows, because the bounds of sparse rows hold for a sum over all
    rows at once, although only some rows at a time are made dense. In float32 the computed result
    is compared with a sum in float64.
    """

    def __init__(self, ob: Any, theta: Any) -> None:
        self.ob, self.theta = ob, np.asarray(ob.model.check_theta(theta))
        self.measured = bool(ob._sparse)

    def gradient_error_bound(self, computed: Any = None) -> float:
        """Return a bound on the error of the gradient, which `computed` holds if `measured` is
        True.
        """
        return self.product_error_bound(None, "hessian", computed)

    def product_error_bound(self, v: Any, kind: str, computed: Any = None) -> float:
        """Return a bound on the error of the product of the curvature `kind` with v (n,), or of the
        gradient if v is None. `computed` is the computed result, which must be given if `measured`
        is True.
        """
        ob, fisher = self.ob, kind == "fisher"
        if computed is not None and ob.dtype == np.float32:
            double = ob.astype(np.float64)
            plan, exact = double._new_plan(), np.empty(len(self.theta))
            plan.bind(double.model.check_theta(self.theta))
            if v is None:
                exact = plan.gradient
            else:
                v = v.astype(np.float64)
                plan.multiply(v, exact, kind, None, not fisher)
            own = SumErrorBounds(double, plan.theta)
            return own.product_error_bound(v, kind, exact) + norm(exact - computed)
        found = ob._sum_over_shards(shard_error_bound, (self.theta, v, kind))
        if self.measured:
            found = found[0], norm(computed)
        moved = self.theta if v is None else v
        decay = np.zeros(1) if fisher else l2_diagonal(ob) * moved.astype(np.float64)
        return sum_error_bound(
            found, max_additions_per_part(ob.n_shards) + 2 * fisher, decay, ob.dtype
        )

    def column_error_bounds(self, kind: str, norms: dict[int, float]) -> np.ndarray:
        """Return bounds ``(n,)`` on the errors of products of the curvature `kind` with every unit
        vector. `norms` is that of `SumPlan`.
        """
        ob, fisher = self.ob, kind == "fisher"
        bounds = np.asarray(ob._sum_over_shards(shard_column_error_bounds, (self.theta, kind)))
        decay = np.broadcast_to(0.0 if fisher else l2_diagonal(ob), bounds.shape)
        deep = max_additions_per_part(ob.n_shards) + 2 * fisher
        found = ((b, norms[i]) for i, b in enumerate(bounds))
        return np.array([sum_error_bound(b, deep, d[None], ob.dtype) for b, d in zip(found, decay)])


# --------------------------------------------------------------------------------------------------
# Certified facts: each statement about all rows is combined from statements about the rows of each
# shard. Bounds and counts add up, and a property of every row must hold in every shard. Statements
# that would need all rows in one place are not made.


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
    return [majorants.loss_lower_bound(shard)]


def shard_classification_flags(shard: Any, theta: Floats) -> tuple[int, int]:
    """Return ``(a, b)``. a is 0 if every row of positive weight is proved to be classified
    correctly, otherwise 1. b is 1 if there is a row of positive weight, otherwise 0.
    """
    counts = shard.sample_weight is None or bool(np.any(shard.sample_weight))
    return int(not majorants.is_every_row_proved_correct(shard, theta)), int(counts)


def shard_unit_masks(shard: Any, theta: Floats, radius: float) -> tuple[Any, Any]:
    """Return masks, by hidden layer, of the units that may be active somewhere on the ball of this
    radius around theta, and of the units with a z at a kink at theta. The sum of masks is their
    logical or.
    """
    here, *ball = majorants.preactivation_signs(shard, theta, 0.0, *[radius] * (radius > 0))
    return tuple(~off for off in (ball or [here])[0].off), tuple(here.on_kinks)


def shard_curvature_floor(shard: Any, theta: Floats) -> tuple[float, float]:
    """Return a lower bound on the eigenvalues of the contribution of the shard's rows to the
    Hessian, and the absolute value of this bound.
    """
    floor = majorants.curvature_floor(shard, theta)
    return floor, abs(floor)


class SumCertificates(Certificates):
    """The `Certificates` of an objective whose values are sums over shards of its rows."""

    growth = 1 + 1e-9

    def _sum_over_shards(self, part: Any, theta: ArrayLike, *more: Any) -> Any:
        """Return the sum over shards of ``part(shard, theta, *more)``."""
        return self.objective._sum_over_shards(
            part, (round_to_model_dtype(self.objective, theta), *more)
        )

    def _cached_result(self, name: str, key: tuple[Any, ...], find: Callable[[], Any]) -> Any:
        """Return the cached result for `name` if it was computed for the same `key`, otherwise
        return ``find()`` and cache it.
        """
        kept = self.objective._known
        known = kept.get(name)
        if known is None or not all(np.array_equal(a, b) for a, b in zip(known[0], key)):
            known = kept[name] = (key, find())
        return known[1]

    @property
    def loss_lower_bound(self) -> float:
        """A lower bound on the loss over all theta."""
        return float(
            self._cached_result(
                "lower",
                (),
                lambda: min(self.objective._sum_over_shards(shard_loss_lower_bound, ())),
            )
        )

    def ray_to_infimum(self, theta: ArrayLike) -> Floats | None:
        """Return a unit direction (n,) along which the loss is proved to decrease without
        end, or None if no such direction is known.
        """
        ob, at = self.objective, round_to_model_dtype(self.objective, theta)
        row = LOSSES[ob.loss]
        if row.given is None and (row.attained or self.loss_lower_bound < 0):
            return None
        along = majorants.bias_direction(
            ob,
            *self._cached_result(
                "pulls", (), lambda: ob._sum_over_shards(majorants.target_directions, ())
            ),
        )
        if row.given is not None:
            return along
        direction = majorants.last_layer_direction(ob, at)
        if along is not None or majorants.has_decay(ob, direction):
            return along
        found = self._cached_result(
            "ray", (at,), lambda: self._sum_over_shards(shard_classification_flags, at)
        )
        return direction if found[0] == 0 and found[1] else None

    def residual_bounds(self, theta: ArrayLike, radius: float) -> None:
        """Return None: the Jacobian of all rows is not formed for an objective in shards."""

    def relu_rows(self) -> None:
        """Return None: minima at active kinks are not proved for an objective in shards."""

    def orbits(self, theta: ArrayLike, radius: float = 0.0) -> list[Orbit]:
        """Return the symmetry groups of the loss on all rows that are proved at theta and on the
        ball of this radius, from the units that are inactive in every shard and from a few rows
        that represent the columns of all rows.
        """
        ob, at = self.objective, round_to_model_dtype(self.objective, theta)
        on, near = self._cached_result(
            "signs",
            (at, radius),
            lambda: self._sum_over_shards(shard_unit_masks, at, float(radius)),
        )
        rows = self._cached_result(
            "columns", (), lambda: ob._sum_over_shards(shard_representative_rows, ())
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
        found = least + floor - 1e-12 * (least + size)
        return float(found) if np.isfinite(found) else -np.inf
