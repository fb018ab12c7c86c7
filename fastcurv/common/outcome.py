"""Results of optimisers in SciPy's form."""

from __future__ import annotations

from typing import TypeVar

from scipy.optimize import OptimizeResult

from .protocols import Array

Kind = TypeVar("Kind", bound="Result")


class Result(OptimizeResult):
    """An `OptimizeResult` of this library: a dictionary whose entries are also attributes.

    Attributes
    ----------
    x : ndarray (n,)
        The point reached.
    fun : float
        The value of the objective at `x`.
    success : bool
        True if the search reached its goal.
    message : str
        The reason why the search ended.
    nfev : int
        Number of values computed.
    """

    x: Array
    fun: float
    success: bool
    message: str
    nfev: int


def outcome(kind: type[Kind], /, **fields: object) -> Kind:
    """Create a result of class `kind` with the given fields, which SciPy's type stubs declare
    read-only.

    Examples
    --------
    >>> outcome(Result, x=0.5, success=True).x
    0.5
    """
    return kind(fields)  # type: ignore[call-arg]
