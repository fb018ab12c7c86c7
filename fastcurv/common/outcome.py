"""Results of optimisers in SciPy's form."""

from __future__ import annotations

from typing import Any, TypeVar

from scipy.optimize import OptimizeResult

from .html import html_table
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

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = []
        for name, value in self.items():
            if isinstance(value, (bool, int, str)) or value is None:
                rows.append((name, value))
            elif isinstance(value, float):
                rows.append((name, f"{value:.9g}"))
            elif hasattr(value, "shape") and value.ndim:
                rows.append((name, f"array of shape {value.shape}"))
            elif isinstance(value, dict):
                rows.append((name, f"arrays of {', '.join(map(str, value))}"))
        rows = [row for row in rows if row[0] not in ("message", "kind")]
        return html_table(self._title(), [], rows, [self.get("message", "")])

    def _title(self) -> str:
        """Return the heading of the HTML representation."""
        return "success" if self.get("success") else "no success"


def outcome(kind: type[Kind], /, **fields: Any) -> Kind:
    """Create a result of class `kind` with the given fields, which SciPy's type stubs declare
    read-only.

    Examples
    --------
    >>> outcome(Result, x=0.5, success=True).x
    0.5
    """
    return kind(fields)  # type: ignore[call-arg]
