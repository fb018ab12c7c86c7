"""Eigenpairs of an operator that are computed with its reduction, a smaller operator; see
`Reduction` in `fastcurv.common.protocols`.

The reduction has the eigenvalues of the full operator except for copies of one number
(`complement_eigenvalue`), whose eigenspace is a known complement. This module completes results
from the smaller space, so that callers need not distinguish the two operators.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..common.checks import check_vectors, operator_dtype
from ..common.linalg import wanted_indices
from ..common.protocols import Array, DenseReduction, Reduction
from .options import EigshOptions, pairs_from_matrix, resolve_tol
from .results import MIN_MISSED_WITHIN_TOLS, Eigenpairs, ReducedEigenpairs, missed_clause

# maximum number of rows of an available matrix that is decomposed instead of searched
SEARCH_DENSE_MAX_N = 400
# maximum squared norm, in eps, of the component of a unit vector outside the smaller space at which
# the vector counts as a vector of this space
MAX_OUTSIDE_PART_EPS = 64


def reduced_pairs(
    search: Any, reduction: Any, options: EigshOptions, rng: Any, start: Array | None, against: Any
) -> ReducedEigenpairs | None:
    """Run `eigsh` with checked options on the reduction of an operator, by the function `search`,
    and return eigenpairs of the operator. Return None if the vectors `against` do not lie in the
    smaller space, or span this space.

    The residuals are those of the full operator: the residuals in the smaller space plus the amount
    that `lift_eigenpairs` adds. `start` and `against` are those of `extreme_pairs`, and `rng` is
    the seed.
    """
    dtype = operator_dtype(reduction)
    dimension = reduction.shape[0]
    V = getattr(against, "vectors", against)
    if np.ndim(V) == 2 and np.shape(V)[1] == 0:
        V = None
    if V is not None:
        max_outside = (MAX_OUTSIDE_PART_EPS * float(np.finfo(dtype).eps)) ** 0.5
        V = reduction.find_coordinates(
            check_vectors(V, reduction.n, "against", dtype).T, max_outside
        )
        if V is None or len(V) >= dimension:
            return None
        dimension -= len(V)
        V = V.T
    if start is not None:
        coordinates = reduction.project(start.T)
        start = coordinates.T if coordinates.any() else None
    inner = options._replace(k=min(options.k, dimension), dtype=dtype)
    if reduction.lowest:
        inner = remaining_search_options(inner, options, reduction)
    # Only copies of the eigenvalue of the complement are requested.
    if not inner.k:
        none = np.zeros(0)
        empty = np.zeros((reduction.shape[0], 0), dtype)
        pairs = Eigenpairs(
            none, empty, none, none > 0, 0, reduction.norm, probed=True, missed_within=0.0
        )
    elif (
        V is None and isinstance(reduction, DenseReduction) and is_dense_faster(reduction, inner.k)
    ):
        pairs = pairs_from_matrix(
            reduction.core_matrix, inner, float(reduction.complement_eigenvalue)
        )
    else:
        pairs = search(reduction, inner, rng, start, V)
    # A warning of missed copies is issued only if `missed_within` exceeds MIN_MISSED_WITHIN_TOLS
    # times the tolerance. The tolerance of the full operator is larger than that of the search, so
    # `missed_within` is increased to keep the warning.
    tol = options.tol
    if missed_clause(pairs) and pairs.missed_within < np.inf:
        scale = max(pairs.scale, abs(reduction.complement_eigenvalue))
        least = (MIN_MISSED_WITHIN_TOLS + 1) * tol * scale
        pairs = replace(pairs, missed_within=max(pairs.missed_within, least))
    pairs = replace(pairs, tol=tol)
    return complete_pairs(pairs, reduction, options.k, options.which, rng, options.relative)


def remaining_search_options(
    inner: EigshOptions, options: EigshOptions, reduction: Reduction
) -> EigshOptions:
    """Return the options of the search in the reduction, for an operator whose lowest eigenvalues
    are copies of ``reduction.complement_eigenvalue``. These copies need no search.

    `options` holds the options for the full operator, and `inner` those options with k limited to
    the smaller space. The tolerance is reduced, because residuals of small eigenvalues increase in
    the full space.
    """
    tol = options.tol * (1e-3 if options.relative == "value" else 0.25)
    inner = inner._replace(tol=resolve_tol(tol, inner.dtype), relative="value")
    low = {"SA": options.k, "BE": options.k // 2}.get(options.which, 0)
    if low > reduction.n_complement:
        return inner
    return inner._replace(k=min(options.k - low, inner.k), which="LA")


def is_dense_faster(reduction: Any, k: int) -> bool:
    """Return True if a reduction has at most `SEARCH_DENSE_MAX_N` or 8 k rows. Its available matrix
    is then decomposed faster than k pairs are searched.
    """
    return bool(reduction.shape[0] <= max(SEARCH_DENSE_MAX_N, 8 * k))


def complete_pairs(
    found: Eigenpairs, reduction: Reduction, k: int, which: str, rng: Any, relative: str = "scale"
) -> ReducedEigenpairs:
    """Return the k wanted pairs of the full operator, among the pairs `found` for its reduction and
    the copies of ``reduction.complement_eigenvalue``. The residuals are those of the full operator.
    `which` and `relative` are those of `eigsh`.
    """
    X = np.ascontiguousarray(found.vectors.T)
    tol = found.tol
    kept, limits, zero, together = reduction.lift_eigenpairs(X, found, rng)
    copies = min(k, reduction.n_complement + len(X) - int(kept.sum()))
    scale = max(found.scale, abs(reduction.complement_eigenvalue) if copies else 0.0)
    zero = max(zero, 16 * float(np.finfo(X.dtype).eps) * scale)
    size = np.abs(found.values) if relative == "value" else scale
    if reduction.lowest:
        good = limits <= tol * size
    else:
        good = found.converged & (limits - found.residuals <= tol * size)

    def both(mine: Any, theirs: Any) -> Any:
        return np.concatenate([mine[kept], np.full((copies, *mine.shape[1:]), theirs, mine.dtype)])

    values = both(found.values, reduction.complement_eigenvalue)
    source = np.concatenate([np.full(int(kept.sum()), -1), np.arange(copies)])
    order = np.argsort(values, kind="stable")
    if k < len(values):
        order = order[wanted_indices(values[order], k, which)]
    return ReducedEigenpairs(
        values=values[order],
        residuals=both(limits, zero)[order],
        converged=both(good, not reduction.lowest or zero <= tol * scale)[order],
        n_products=found.n_products + bool(len(X)),
        scale=scale,
        tol=tol,
        probed=found.probed,
        missed_within=found.missed_within,
        interrupted=found.interrupted,
        asymmetry=found.asymmetry,
        space=reduction.space,
        coordinates=both(X, 0.0)[order],
        complement_index=source[order],
        reduction=reduction,
        jointly_orthogonal=together,
    )
