"""Caches of last results."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from .protocols import Array

Answer = TypeVar("Answer")
# maximum number of parameters for which more than one result is cached
MULTI_RESULT_CACHE_MAX_PARAMS = 1024


def cache_last_result(
    find: Callable[[Any, Array], Answer], kept: int = 1
) -> Callable[[object, Array], Answer]:
    """Return a function that caches the last result of ``find(ob, theta)`` for the same objective
    and an equal theta. For at most `MULTI_RESULT_CACHE_MAX_PARAMS` parameters the last `kept`
    results are cached. The cache does not keep the objective alive.
    """
    last: tuple[tuple[weakref.ref[object], Array, Answer], ...] = ()

    @wraps(find)
    def cached(ob: object, theta: Array) -> Answer:
        nonlocal last
        held = last  # a local reference, since another thread may replace `last`
        for known in held:
            if known[0]() is ob and np.array_equal(known[1], theta):
                return known[2]
        new = weakref.ref(ob), np.array(theta), find(ob, theta)
        last = (new, *held[: kept - 1]) if theta.size <= MULTI_RESULT_CACHE_MAX_PARAMS else (new,)
        return new[2]

    return cached
