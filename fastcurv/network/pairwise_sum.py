"""Sums over shards by a tree of fixed shape: the parts of `FAN` neighbours are added from the left,
then those sums by `FAN`, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..certify.arithmetic import norm
from ..certify.bounds import dense_bounds
from ..certify.passes import ErrorPass

FAN = 8  # parts that are added before their sum goes up the tree


def merge(a: Any, b: Any, own: bool = False) -> Any:
    """Return ``a + b`` for numbers, arrays, objects with ``+``, and tuples of these. With `own`,
    float64 arrays of `a` are overwritten by the sum.

    Float32 arrays are added in float64; the caller rounds the total at the end.
    """
    if isinstance(a, tuple):
        return tuple(merge(x, y, own) for x, y in zip(a, b))
    if isinstance(a, np.ndarray) and a.dtype.kind == "f":
        if own and a.dtype == np.float64:
            return np.add(a, b, out=a)
        return np.add(a, b, dtype=np.float64)
    return a + b


def total(parts: list[Any]) -> Any:
    """Return the sum of the parts, added from the left; no part is modified."""
    if len(parts) == 1:
        return parts[0]
    whole = merge(parts[0], parts[1])
    for part in parts[2:]:
        whole = merge(whole, part, True)
    return whole


class PairwiseSum:
    """The sum of parts that arrive one by one, added in the same order as by a tree of `total` over
    `FAN` parts.

    Examples
    --------
    >>> tree = PairwiseSum()
    >>> for part in range(100):
    ...     tree.push(part)
    >>> tree.total()
    4950
    """

    def __init__(self) -> None:
        self.levels: list[list[Any]] = []  # [sum, number of parts in it] for each level

    def push(self, part: Any, level: int = 0) -> None:
        """Add a part; the tree takes ownership of its arrays."""
        if level == len(self.levels):
            self.levels.append([None, 0])
        here = self.levels[level]
        here[0], here[1] = part if not here[1] else merge(here[0], part, True), here[1] + 1
        if here[1] == FAN:
            whole, here[0], here[1] = here[0], None, 0
            self.push(whole, level + 1)

    def total(self) -> Any:
        """Return the sum of all parts."""
        whole = None
        for part, count in self.levels:
            if count:
                whole = part if whole is None else merge(part, whole, True)
        return whole


def additions(shards: int) -> int:
    """Return the largest number of roundings that a number passes through on its way up the
    tree.
    """
    deep = 0
    while shards > 1:
        deep, shards = deep + min(FAN, shards) - 1, -(-shards // FAN)
    return deep


# --------------------------------------------------------------------------------------------------
# Rounding errors of sums over shards: the shards' own bounds, computed where the shards are, plus
# the errors of adding the parts.
#
# Entry by entry the error of a tree of additions is at most ``gamma(D) sum |x_s|``, where D is the
# number of additions that a number passes through (Higham 2002, 4.2), so in norm it is at most
# ``gamma(D) sum ||x_s||``.

ROOM = 1 + 1e-9  # for the rounding of norms and of sums of bounds
LOST = 2.0**22  # bound in norm on underflow in n products, in smallest subnormals


@dataclass(frozen=True)
class SumBound:
    """A bound on the error of a part, and the norm of the part as computed; both are added when
    parts are.
    """

    error: float
    size: float

    def __add__(self, other: SumBound) -> SumBound:
        return SumBound(self.error + other.error, self.size + other.size)


def sum_rounding(found: SumBound, deep: int, decay: np.ndarray, dtype: Any) -> float:
    """Return a bound on the error of ``sum of parts + decay`` if each number passes through `deep`
    additions.

    Sums are formed in float64, including the term l2 v (`decay`, three roundings), and then rounded
    to the dtype.
    """
    u, last = (0.5 * float(np.finfo(t).eps) for t in (np.float64, dtype))
    size, moved = found.size * ROOM, norm(decay) * ROOM
    bound = found.error + deep * u / (1 - deep * u) * size
    if moved:
        bound += u * (size + bound) + 4 * u * moved
    if last > u:
        bound += last * (size + bound + moved)
    room = ROOM + 4 * last + len(decay) * 2 * u
    if bound + size + moved > 0:
        bound += LOST * float(np.finfo(dtype).smallest_subnormal)
    return float(bound * room) if bound + size + moved < np.finfo(dtype).max else np.inf


def _rounding(shard: Any, theta: np.ndarray) -> Any:
    """Return the rounding bounds of the shard's own engine at theta, cached for the last theta. The
    caller holds the shard's lock.
    """
    known = shard.bounds
    if known is None or not np.array_equal(known.theta, theta):
        layout = shard._bound(theta, False).layout
        known = ErrorPass(shard, theta, layout, shard.dtype == np.float32)
        shard.bounds = known
    return known


def gradient_bound_part(shard: Any, theta: np.ndarray) -> SumBound:
    """Return the bound for the rows' part of the gradient."""
    with shard._lock:
        bounds, plan = _rounding(shard, theta), shard._bound(theta, True)
        g = plan.gradient
        error = bounds.gradient(g if bounds.measured else None)
    return SumBound(float(error), norm(g))


def product_bound_part(shard: Any, theta: np.ndarray, v: np.ndarray, kind: str) -> SumBound:
    """Return the bound for the rows' part of the product with v."""
    with shard._lock:
        bounds, computed = _rounding(shard, theta), np.empty_like(v)
        shard._bound(theta, False).multiply(v, computed, kind, None, False)
        error = bounds.product(v, kind, computed if bounds.measured else None)
    scale = fisher_scale(shard, kind)
    return SumBound(float(error) * scale, norm(computed) * scale)


def column_parts(shard: Any, theta: np.ndarray, kind: str) -> np.ndarray:
    """Return bounds (n,) on the errors of the rows' part of products with unit vectors."""
    with shard._lock:
        layout = shard._bound(theta, False).layout
    return dense_bounds(shard, theta, layout, kind) * fisher_scale(shard, kind)


def fisher_scale(shard: Any, kind: str) -> float:
    """Return the factor that converts the Fisher of the shard's own rows to its part of the whole,
    1 for other kinds. It is rounded twice, which callers of `sum_rounding` count as two additions.
    """
    return float(shard.fisher_scale) * (1 + 1e-12) if kind == "fisher" else 1.0
