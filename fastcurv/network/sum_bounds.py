"""Bounds on the rounding errors of objectives that are sums over blocks of rows (see
`fastcurv.network.sums`). `SumErrorBounds` has the interface of `ErrorPass`.

The shards' own bounds are computed where the shards are. The errors of adding the parts are added:
the error of a tree of additions is at most ``gamma(D) sum |x_s|`` entry by entry, where D is the
number of additions that a number passes through (Higham 2002, 4.2), so in norm it is at most
``gamma(D) sum ||x_s||``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..certify.arithmetic import norm
from ..certify.columns import column_error_bounds
from ..certify.passes import ErrorPass
from ..structure.parameters import l2_diagonal
from .sums import max_additions_per_part

# factor that covers the rounding of norms and of sums of bounds
SHARD_SUM_ROUND_UP_FACTOR = 1 + 1e-9
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
    size = found[1] * SHARD_SUM_ROUND_UP_FACTOR
    moved = norm(decay) * SHARD_SUM_ROUND_UP_FACTOR
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
        bounds = shard.bounds
        computed = None
        scale = _fisher_scale(shard, kind)
        if bounds is None or not np.array_equal(bounds.theta, theta):
            measured = shard.dtype == np.float32 and not shard.layout
            bounds = ErrorPass(shard, theta, _summation_layout(shard, theta), measured)
            shard.bounds = bounds
        if not shard.layout:
            plan = shard._bind_plan(theta, v is None)
            if v is None:
                computed = plan.gradient
            else:
                computed = np.empty_like(v)
                plan.multiply(v, computed, kind, None, False)
        measured_result = computed if bounds.measured else None
        error = (
            bounds.gradient_error_bound(measured_result)
            if v is None
            else bounds.product_error_bound(v, kind, measured_result)
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
    return float(shard.fisher_scale) * (1 + 1e-12) if kind == "fisher" and not shard.layout else 1.0


class SumErrorBounds:
    """Bounds on the rounding errors of sums over shards at one theta: the sum of the shards'
    bounds, each computed where the shard is, plus the rounding errors of adding the parts.

    If `measured` is True, the bounds hold for a computed gradient or product, which must be given.
    `measured` is True for sparse rows, because the bounds of sparse rows hold for a sum over all
    rows at once, although only some rows at a time are made dense. In float32 the computed result
    is compared with a sum in float64.
    """

    def __init__(self, ob: Any, theta: Any) -> None:
        self.ob = ob
        self.theta = np.asarray(ob.model.check_theta(theta))
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
        ob = self.ob
        fisher = kind == "fisher"
        if computed is not None and ob.dtype == np.float32:
            double = ob.astype(np.float64)
            plan = double._new_plan()
            exact = np.empty(len(self.theta))
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
        ob = self.ob
        fisher = kind == "fisher"
        bounds = np.asarray(ob._sum_over_shards(shard_column_error_bounds, (self.theta, kind)))
        decay = np.broadcast_to(0.0 if fisher else l2_diagonal(ob), bounds.shape)
        deep = max_additions_per_part(ob.n_shards) + 2 * fisher
        bounds_and_norms = ((b, norms[i]) for i, b in enumerate(bounds))
        return np.array(
            [sum_error_bound(b, deep, d[None], ob.dtype) for b, d in zip(bounds_and_norms, decay)]
        )
