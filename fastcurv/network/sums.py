"""Sums over shards by a tree of fixed shape: the parts of `FAN` neighbours from the left, then
those sums by `FAN`, and so on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FAN = 8  # parts that are added before their sum goes up the tree


def merge(a: Any, b: Any, own: bool = False) -> Any:
    """``a + b`` for numbers, arrays, what has a sum, and tuples of those; own: into arrays of a.

    Arrays of float32 are added in float64, and rounded at the end.
    """
    if isinstance(a, tuple):
        return tuple(merge(x, y, own) for x, y in zip(a, b))
    if isinstance(a, np.ndarray) and a.dtype.kind == "f":
        if own and a.dtype == np.float64:
            return np.add(a, b, out=a)
        return np.add(a, b, dtype=np.float64)
    return a + b


def total(parts: list[Any]) -> Any:
    """The parts of neighbours added from the left; none is changed."""
    if len(parts) == 1:
        return parts[0]
    whole = merge(parts[0], parts[1])
    for part in parts[2:]:
        whole = merge(whole, part, True)
    return whole


class Tree:
    """The sum of parts that come one by one, in the same order as a tree of `total` has.

    Examples
    --------
    >>> tree = Tree()
    >>> for part in range(100):
    ...     tree.push(part)
    >>> tree.total()
    4950
    """

    def __init__(self) -> None:
        self.levels: list[list[Any]] = []  # (sum, how many)

    def push(self, part: Any, level: int = 0) -> None:
        """Add a part, whose arrays are the tree's from now on."""
        if level == len(self.levels):
            self.levels.append([None, 0])
        here = self.levels[level]
        here[0], here[1] = part if not here[1] else merge(here[0], part, True), here[1] + 1
        if here[1] == FAN:
            whole, here[0], here[1] = here[0], None, 0
            self.push(whole, level + 1)

    def total(self) -> Any:
        """The sum of all parts."""
        whole = None
        for part, count in self.levels:
            if count:
                whole = part if whole is None else merge(part, whole, True)
        return whole


def additions(shards: int) -> int:
    """How many roundings a number passes through at most on its way up the tree."""
    deep = 0
    while shards > 1:
        deep, shards = deep + min(FAN, shards) - 1, -(-shards // FAN)
    return deep
