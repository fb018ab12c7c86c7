"""Questions about an operator, asked of a smaller one that it offers: see `Reduction` in
`fastcurv.common.protocols`.

The smaller one has its eigenvalues but for copies of one number, on a complement that is known; so
what is found in the smaller space is completed here, and nothing else notices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.checks import (
    check_choice,
    check_positive,
    check_positive_int,
    check_vectors,
    operator_dtype,
)
from ..common.linalg import eigh
from ..common.protocols import SPACES, Array, Reducible, Reduction, Written
from ..krylov.lanczos import NOT_FINITE
from ..krylov.ritz import wanted
from .results import Eigenpairs, ReducedEigenpairs

# --------------------------------------------------------------------------------------------------
# What is asked of a search for eigenpairs, what that means where nothing was said, and the answer
# from a matrix that is there.

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


DIRECT = 400  # rows of a matrix up to which all of it is decomposed
INSIDE = 64  # what of a vector may lie outside the space, in eps of its length


def reduction(op: Any, space: str | None) -> Reduction | None:
    """The smaller operator that `op` offers, or None.

    Parameters
    ----------
    op : LinearOperator
    space : {"samples", "outputs", "inputs", "parameters"}, optional
        Whether to look for one; by default where the operator says that it is worth while.
    """
    if space is not None:
        check_choice(space, SPACES, "space")
    if space == "parameters":
        return None
    found: Reduction | None = op.reduced(space) if isinstance(op, Reducible) else None
    if found is None and space is not None:
        raise ValueError(
            f"space is {space!r} for an operator of type {type(op).__name__} that has no such "
            "form; wanted 'parameters'"
        )
    return found


def inside(small: Reduction, V: Any, name: str) -> NDArray[Any] | None:
    """The coordinates of vectors as columns ``(m, s)``, or None where they leave the space."""
    dtype = operator_dtype(small)
    rows = check_vectors(V, small.n, name, dtype).T
    found = small.inside(rows, (INSIDE * float(np.finfo(dtype).eps)) ** 0.5)
    return None if found is None else found.T


def reduced_pairs(
    search: Any, small: Reduction, asked: Any, rng: Any, v0: Any, against: Any
) -> ReducedEigenpairs | None:
    """`eigsh` in the smaller space; None where `against` leaves it.

    Residuals hold in the space of `op`: those found, and what `carried` adds to them.
    """
    m, s = small.shape[0], 0
    if against is not None:
        V = getattr(against, "vectors", against)
        if np.ndim(V) == 2 and np.shape(V)[1] == 0:
            against = None
        else:
            against = inside(small, V, "against")
            if against is None:
                return None
            s = against.shape[1]
    if v0 is not None:
        start = small.project(check_vectors(v0, small.n, "v0", operator_dtype(small)).T)
        v0 = start.T if start.any() else None
    if m - s < 1:
        return None
    inner = replace(asked, k=min(asked.k, m - s))
    if small.lowest:
        inner = above(inner, asked, small)
    if not inner.k:
        found = nothing(small)
    elif against is None and isinstance(small, Written) and few(small, inner.k):
        found = answered(small.bare, inner, operator_dtype(small), float(small.rest))
    else:
        found = search(small, inner, rng, v0, against)
    found = replace(found, tol=resolve_tol(asked.tol, operator_dtype(small)))
    return completed(found, small, asked.k, asked.which, rng, asked.relative)


def above(inner: Any, asked: Any, small: Reduction) -> Any:
    """What is left to look for where the lowest eigenvalues are the copies of `rest`, to residuals
    that small eigenvalues need.
    """
    dtype = operator_dtype(small)
    tol = resolve_tol(asked.tol, dtype) * (1e-3 if asked.relative == "value" else 0.25)
    inner = replace(inner, tol=tol, relative="value")
    low = {"SA": asked.k, "BE": asked.k // 2}.get(asked.which, 0)
    if low > small.n_rest:
        return inner
    return replace(inner, k=min(asked.k - low, inner.k), which="LA")


def settled(pairs: ReducedEigenpairs) -> bool:
    """Whether nothing would be found better in parameter space: vectors of small eigenvalues are,
    that a Gram matrix showed.
    """
    return bool(not pairs.reduction.lowest or pairs.interrupted or pairs.converged.all())


def few(small: Reduction, k: int) -> bool:
    """Whether a matrix that is there is decomposed sooner than searched."""
    return bool(small.shape[0] <= max(DIRECT, 8 * k))


def nothing(small: Any) -> Eigenpairs:
    """No pair of the smaller operator."""
    dtype, none = operator_dtype(small), np.zeros(0)
    return Eigenpairs(
        values=none,
        vectors=np.zeros((small.shape[0], 0), dtype),
        residuals=none,
        converged=np.zeros(0, bool),
        n_products=0,
        scale=small.norm,
        probed=True,
        unseen=0.0,
    )


def completed(
    found: Eigenpairs, small: Reduction, k: int, which: str, rng: Any, relative: str = "scale"
) -> ReducedEigenpairs:
    """The wanted among the pairs found and the copies of `rest`, with residuals in op's space."""
    X = np.ascontiguousarray(found.vectors.T)
    tol = found.tol
    kept, limits, zero, together = small.carried(X, found, rng)
    copies = min(k, small.n_rest + len(X) - int(kept.sum()))
    scale = max(found.scale, abs(small.rest) if copies else 0.0)
    zero = max(zero, 16 * float(np.finfo(X.dtype).eps) * scale)
    size = np.abs(found.values) if relative == "value" else scale
    if small.lowest:
        good = limits <= tol * size
    else:
        good = found.converged & (limits - found.residuals <= tol * size)

    def both(mine: Any, theirs: Any) -> Any:
        return np.concatenate([mine[kept], np.full((copies, *mine.shape[1:]), theirs, mine.dtype)])

    values = both(found.values, small.rest)
    source = np.concatenate([np.full(int(kept.sum()), -1), np.arange(copies)])
    order = np.argsort(values, kind="stable")
    if k < len(values):
        order = order[wanted(values[order], k, which)]
    return ReducedEigenpairs(
        values=values[order],
        vectors=None,  # type: ignore[arg-type]  # made when they are asked for
        residuals=both(limits, zero)[order],
        converged=both(good, not small.lowest or zero <= tol * scale)[order],
        n_products=found.n_products + bool(len(X)),
        scale=scale,
        tol=tol,
        n_low=found.n_low,
        probed=found.probed,
        unseen=found.unseen,
        interrupted=found.interrupted,
        asymmetry=found.asymmetry,
        space=small.space,
        coordinates=both(X, 0.0)[order],
        outside=source[order],
        reduction=small,
        together=together,
    )
