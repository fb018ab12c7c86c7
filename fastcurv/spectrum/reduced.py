"""Questions about an operator, asked of a smaller one that it offers: see `Reduction` in
`fastcurv.protocols`.

The smaller one has its eigenvalues but for copies of one number, on a complement that is known; so
what is found in the smaller space is completed here, and nothing else notices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import check_choice, check_vectors, operator_dtype
from ..krylov.ritz import wanted
from ..protocols import Reducible
from .results import Eigenpairs, ReducedEigenpairs

SPACES = ("samples", "inputs", "parameters")
INSIDE = 64  # what of a vector may lie outside the space, in eps of its length


def reduction(op: Any, space: str | None) -> Any:
    """The smaller operator that `op` offers, or None.

    Parameters
    ----------
    op : LinearOperator
    space : {"samples", "inputs", "parameters"}, optional
        Whether to look for one; by default where the operator says that it is worth while.
    """
    if space is not None:
        check_choice(space, SPACES, "space")
    if space == "parameters":
        return None
    found = op.reduced(space) if isinstance(op, Reducible) else None
    if found is None and space is not None:
        raise ValueError(
            f"space is {space!r} for an operator of type {type(op).__name__} that has no such "
            "form; wanted 'parameters'"
        )
    return found


def inside(small: Any, V: Any, name: str) -> NDArray[Any] | None:
    """The coordinates of vectors as columns ``(m, s)``, or None where they leave the space."""
    dtype = operator_dtype(small)
    rows = check_vectors(V, small.n, name, dtype).T
    found = small.project(rows)
    sizes = [np.linalg.norm(x, axis=1).astype(float) for x in (rows, found)]
    outside = np.sqrt(np.maximum(sizes[0] ** 2 - sizes[1] ** 2, 0.0))
    eps = float(np.finfo(dtype).eps)
    return None if (outside > (INSIDE * eps) ** 0.5 * sizes[0]).any() else found.T


def reduced_pairs(
    search: Any, small: Any, asked: Any, rng: Any, v0: Any, against: Any
) -> Eigenpairs | None:
    """`eigsh` in the smaller space; None where `against` leaves it.

    Residuals hold in the space of `op`: those found, and how far a product there is seen to be from
    one here, on all the vectors found together.
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
    found = search(small, replace(asked, k=min(asked.k, m - s)), rng, v0, against)
    return completed(found, small, asked.k, asked.which, rng)


def completed(found: Eigenpairs, small: Any, k: int, which: str, rng: Any) -> ReducedEigenpairs:
    """The wanted among the pairs found and the copies of `rest`, with residuals in op's space."""
    X = np.ascontiguousarray(found.vectors.T)
    signs = rng.choice([-1.0, 1.0], size=len(X)).astype(X.dtype)
    defect = small.defect(signs @ X) if len(X) else 0.0
    copies = min(k, small.n_rest)
    values = np.concatenate([found.values, np.full(copies, small.rest)])
    source = np.concatenate([np.full(len(X), -1), np.arange(copies)])
    mine = np.concatenate([np.arange(len(X)), np.zeros(copies, int)])
    order = np.argsort(values, kind="stable")
    if k < len(found.values) + copies:
        order = order[wanted(values[order], k, which)]
    is_rest = source[order] >= 0
    scale = max(found.scale, abs(small.rest) if is_rest.any() else 0.0)
    eps = float(np.finfo(X.dtype).eps)
    residuals = np.where(is_rest, 16 * eps * scale, found.residuals[mine[order]] + defect)
    kept = found.converged[mine[order]] & (defect <= found.tol * scale)
    return ReducedEigenpairs(
        values=values[order],
        vectors=None,  # type: ignore[arg-type]  # made when they are asked for
        residuals=residuals,
        converged=is_rest | kept,
        n_products=found.n_products + 1,
        scale=scale,
        tol=found.tol,
        n_low=found.n_low,
        probed=found.probed,
        interrupted=found.interrupted,
        asymmetry=found.asymmetry,
        space=small.space,
        coordinates=X[mine[order]],
        outside=source[order],
        reduction=small,
    )
