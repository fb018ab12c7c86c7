"""The callback of a run, in any of SciPy's forms."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from scipy.optimize import OptimizeResult

from ..common.errors import typed


def as_callback(callback: Any) -> Callable[[OptimizeResult], bool] | None:
    """A callback in SciPy's forms as a function of the intermediate result."""
    if callback is None:
        return None
    if not callable(callback):
        raise TypeError(f"callback is {typed(callback)}; wanted a function")
    try:
        whole = "intermediate_result" in inspect.signature(callback).parameters
    except (TypeError, ValueError):
        whole = False
    # wrapped by scipy.optimize.minimize, which unpacks the result itself
    wrapped = hasattr(callback, "stop_iteration")

    def call(result: OptimizeResult) -> bool:
        try:
            if wrapped:
                return bool(callback(result))
            return bool(callback(intermediate_result=result) if whole else callback(result.x))
        except StopIteration:
            return True

    return call
