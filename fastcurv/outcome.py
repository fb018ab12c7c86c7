"""Results of optimisers as SciPy has them."""

from __future__ import annotations

from typing import Any

from scipy.optimize import OptimizeResult


def outcome(**fields: Any) -> OptimizeResult:
    """An `OptimizeResult` with these fields, which SciPy's stubs know as something to read only.

    Examples
    --------
    >>> outcome(x=0.5, success=True).x
    0.5
    """
    make: Any = OptimizeResult
    result: OptimizeResult = make(fields)
    return result
