"""Tries along zeros of the Hessian: ways down that no second derivative shows.

Where curvature vanishes, the next derivatives decide, and there may be many directions: the zero
start of a deep net falls with the product of its layers, a monkey saddle along three of six ways. A
random kick in the flat space, at several lengths and both ways, finds the odd ones with probability
1; a few trust-region steps from where kicks end find valleys that bend away from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..common.linalg import eigh
from ..common.protocols import Probed
from ..common.vectors import norm
from ..critical.evidence import hessian_products
from ..critical.nearness import value_rounding
from .line_search import Value, line_minimum

FLAT = 1e-5  # of the largest curvature: below it a direction counts as flat
LENGTHS = (1e-4, 1e-3, 1e-2, 0.1, 1.0)  # of kicks, times the length of theta, 1 at least
KICKS = 12
WALKS = 4

# a few steps from another point: the lowest point met, and the value there
SideRun = Callable[[np.ndarray], tuple[np.ndarray, float]]
Lower = tuple[np.ndarray, float]


def flat_space(ob: Any, theta: np.ndarray, dense_below: int) -> tuple[np.ndarray, int]:
    """Orthonormal columns that H maps to little, weakest first, and the products they took.

    All of the space, as an identity of no columns, is never written down: above `dense_below` the
    columns are none, and kicks go anywhere.
    """
    if theta.size >= dense_below:
        return np.zeros((theta.size, 0)), 0
    H = hessian_products(ob, theta.astype(np.float64))
    values, vectors = eigh(H.matrix().A)[:2]
    size = float(np.abs(values).max(initial=0.0))
    order = np.argsort(np.abs(values))
    return vectors[:, order[np.abs(values[order]) <= FLAT * size]], H.count


def directions(
    ob: Any, theta: np.ndarray, flat: np.ndarray, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Unit vectors to try: random ones of the flat space, its weakest, the objective's probes."""
    n, k = flat.shape
    for _ in range(KICKS):
        v = np.asarray(flat @ rng.standard_normal(k) if k else rng.standard_normal(n))
        yield np.asarray(v / np.linalg.norm(v))
    for j in range(min(k, KICKS)):
        yield flat[:, j]
    if isinstance(ob, Probed):
        probes = np.asarray(ob.probes(theta), dtype=float)
        for v in probes.T[:4]:
            if np.any(v):
                yield v / np.linalg.norm(v)


def lower_along(
    value: Value, theta: np.ndarray, f: float, direction: np.ndarray, barrier: bool = False
) -> Lower | None:
    """A point on the line whose value is lower by more than rounding; lengths of five decades, both
    ways.

    With `barrier` a side on which the value first rises counts no further: then a lower point
    contradicts a minimum at theta.
    """
    kind = theta.dtype.type
    unit = direction.astype(theta.dtype)
    noise = value_rounding(f, theta.dtype)
    reach = max(1.0, norm(theta))
    for sign in (1.0, -1.0):
        for length in LENGTHS:
            t = sign * length * reach
            found = value(theta + kind(t) * unit)
            if found < f - noise:
                t, lowest = line_minimum(value, theta, kind(sign) * unit, f, length * reach)
                best = (t * sign, lowest) if lowest < found else (sign * length * reach, found)
                return theta + kind(best[0]) * unit, best[1]
            if barrier and found > f + noise:
                break
    return None


def lower_point(
    ob: Any,
    theta: np.ndarray,
    f: float,
    flat: np.ndarray,
    rng: np.random.Generator,
    *,
    value: Value,
    walk: SideRun,
    stop: Callable[[], bool],
) -> Lower | None:
    """A point whose value is lower than f by more than rounding, or None after all tries.

    Parameters
    ----------
    flat : ndarray, shape (n, k)
        From `flat_space`.
    walk : callable
        ``walk(start)`` takes a few steps of a minimiser and returns the point and its value.
    stop : callable
        True ends the tries.
    """
    tried = list(directions(ob, theta, flat, rng))
    for v in tried:
        if stop():
            return None
        found = lower_along(value, theta, f, v)
        if found is not None:
            return found
    noise = value_rounding(f, theta.dtype)
    reach = max(1.0, norm(theta))
    for i, v in enumerate(tried[:WALKS]):
        if stop():
            return None
        start = theta + ((0.3, 0.03)[i % 2] * reach * v).astype(theta.dtype)
        there, lowest = walk(start)
        if lowest < f - noise:
            return there, lowest
    return None


def falls_for_ever(
    ob: Any, value: Value, theta: np.ndarray, f: float, direction: np.ndarray
) -> bool:
    """Whether the value falls along a ray at every one of 40 doublings of its length, and the
    gradient with it: measured, not proved.
    """
    size = norm(direction)
    if not 0 < size < np.inf:
        return False
    v = (direction / size).astype(theta.dtype)
    t, before = 0.1 * max(1.0, norm(theta)), f
    slope = norm(ob.gradient(theta))
    for i in range(40):
        point = theta + theta.dtype.type(t) * v
        here = value(point)
        if not here <= before or (i < 4 and not here < before):
            return False
        g = norm(ob.gradient(point))
        if not g <= slope:
            return False
        t, before, slope = 2 * t, here, g
    return True
