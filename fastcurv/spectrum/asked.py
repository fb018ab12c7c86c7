"""What is asked of a search for eigenpairs, what that means where nothing was said, and the answer
from a matrix that is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import check_positive, check_positive_int
from ..eigensolver import eigh
from ..krylov.lanczos import NOT_FINITE
from ..krylov.ritz import wanted
from ..protocols import Array
from .results import Eigenpairs

MAX_BASIS_BYTES = 512 << 20
ROUNDINGS = 64  # of the largest |lam|: what products of a symmetric operator may differ by
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
    progress: bool | None = False


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


def answered(
    P: Array,
    asked: Asked,
    dtype: np.dtype[Any],
    rest: float = 0.0,
    against: Array | None = None,
    n_products: int = 0,
) -> Eigenpairs:
    """The pairs of ``P + rest I``, copies of multiple eigenvalues and all.

    Parameters
    ----------
    P : ndarray, shape (n, n)
        Products with the unit vectors, of any scale; symmetric but for rounding, or `asymmetry`
        says by how much they are not, and `residuals` too.
    dtype : dtype
        Of the operator and of the vectors.
    rest : float
        Kept apart, so that what is small in P keeps its digits.
    against : ndarray, shape (s, n), optional
        Orthonormal rows that the vectors are to be orthogonal to.
    n_products : int
        What P cost.
    """
    largest = float(np.abs(P).max(initial=0.0))
    if not np.isfinite(largest):
        raise ValueError(NOT_FINITE)
    exponent, eps = int(np.frexp(largest)[1]), float(np.finfo(dtype).eps)
    P = np.ldexp(P.astype(np.float64), -exponent)
    A, N = P / 2 + P.T / 2, None
    if against is not None and len(against):
        N = np.linalg.qr(against.T.astype(np.float64), mode="complete")[0][:, len(against) :]
        A = N.T @ A @ N
    theta, V = eigh(A)[:2]
    at = wanted(np.ldexp(theta, exponent) + rest, asked.k, asked.which)
    V = (V[:, at] if N is None else N @ V[:, at]).astype(dtype)
    skew = float(np.linalg.norm(P - P.T, axis=0).max(initial=0.0))
    size = float(np.abs(theta).max(initial=0.0))
    residuals = np.linalg.norm(P @ V - V * theta[at], axis=0) + eps * size
    values, residuals = np.ldexp(theta[at], exponent) + rest, np.ldexp(residuals, exponent)
    scale = max(float(np.abs(np.ldexp(theta, exponent) + rest).max()), abs(rest))
    tol = resolve_tol(asked.tol, dtype)
    allowed = np.maximum(np.abs(values), eps ** (2 / 3) * scale)
    return Eigenpairs(
        values=values,
        vectors=V,
        residuals=residuals,
        converged=residuals <= tol * (allowed if asked.relative == "value" else scale),
        n_products=n_products,
        scale=scale,
        tol=tol,
        probed=True,
        unseen=0.0,
        asymmetry=float(np.ldexp(skew, exponent)) if skew > ROUNDINGS * eps * size else 0.0,
    )
