"""What is asked of a search for eigenpairs, and what that means where nothing was said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import check_positive, check_positive_int

MAX_BASIS_BYTES = 512 << 20
DEFAULT_TOL = {"float64": 1e-8, "float32": 2e-5}


@dataclass(frozen=True)
class Asked:
    """What is wanted of a search; the fields are arguments of `eigsh`."""

    k: int
    which: str
    tol: float | None
    relative: str
    max_products: int
    max_basis: int | None
    probe: bool
    progress: bool = False


def resolve_tol(tol: float | None, dtype: np.dtype[Any]) -> float:
    """The tolerance that is worked to: the default where None, never below 16 eps."""
    eps = float(np.finfo(dtype).eps)
    return max(
        DEFAULT_TOL[dtype.name] if tol is None else check_positive(tol, "tol", zero=True), 16 * eps
    )


def resolve_max_basis(max_basis: int | None, k: int, n: int, dtype: np.dtype[Any]) -> int:
    """How many vectors may be kept."""
    if max_basis is None:
        return min(n, max(2 * k + 20, min(300, MAX_BASIS_BYTES // (n * dtype.itemsize))))
    max_basis = check_positive_int(max_basis, "max_basis")
    if max_basis < min(n, k + 3):
        raise ValueError(
            f"max_basis is {max_basis} with k = {k}; wanted at least k + 3 = {k + 3}, or n where "
            "that is less"
        )
    return min(n, max_basis)
