"""Sums over shards by a tree of fixed shape: the parts of `FAN` neighbours are added from the left,
then those sums by `FAN`, and so on.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from ..certify.arithmetic import norm

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
    return reduce(merge, parts)


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


def sum_rounding(found: tuple[float, float], deep: int, decay: np.ndarray, dtype: Any) -> float:
    """Return a bound on the error of ``sum of parts + decay`` if each number passes through `deep`
    additions. `found` are the sums over the parts of bounds on their errors, and of their norms as
    computed.

    Sums are formed in float64, including the term l2 v (`decay`, three roundings), and then rounded
    to the dtype.
    """
    u, last = (0.5 * float(np.finfo(t).eps) for t in (np.float64, dtype))
    size, moved = found[1] * ROOM, norm(decay) * ROOM
    bound = found[0] + deep * u / (1 - deep * u) * size
    if moved:
        bound += u * (size + bound) + 4 * u * moved
    if last > u:
        bound += last * (size + bound + moved)
    room = ROOM + 4 * last + len(decay) * 2 * u
    if bound + size + moved > 0:
        bound += LOST * float(np.finfo(dtype).smallest_subnormal)
    return float(bound * room) if bound + size + moved < np.finfo(dtype).max else np.inf
