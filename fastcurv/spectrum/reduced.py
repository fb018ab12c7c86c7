"""Computations on an operator that are carried out with a smaller operator, see `Reduction` in
`fastcurv.common.protocols`.

The smaller operator has the eigenvalues of the full operator except for copies of one number
(`complement_eigenvalue`), whose eigenspace is a known complement. This module completes results
from the smaller space, so that callers need not distinguish the two operators.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..common.checks import (
    check_positive,
    check_vectors,
    operator_dtype,
)
from ..common.linalg import (
    SMALLEST_SUBNORMAL,
    eigh_selected,
    residual_norms,
    scaled_symmetric_part,
    undo_scaling,
    wanted_indices,
)
from ..common.protocols import Array, DenseReduction, Floats, Indices, Reduction
from ..krylov.lanczos import column_norms
from .results import MIN_MISSED_WITHIN_TOLS, Eigenpairs, ReducedEigenpairs, missed_clause

# --------------------------------------------------------------------------------------------------
# The options of a search for eigenpairs, their defaults, and the eigenpairs of a matrix that is
# available.

DEFAULT_MAX_BASIS_BYTES = 512 << 20  # maximum size of a basis by default
MAX_ASYMMETRY_EPS = 64  # maximum asymmetry of products, in eps times the largest |lam|
DEFAULT_TOL_BY_ITEMSIZE = {8: 1e-8, 4: 2e-5}  # default tolerance by the size of a number in bytes


# maximum exponent of a power of two by which the eigenvalues of a scaled matrix can be multiplied
# without overflow; the entries of the matrix are at most 1, so its eigenvalues are at most the
# number of rows, which is below 2**60
MAX_SAFE_EXPONENT = 960


class EigshOptions(NamedTuple):
    """The checked options of a search for eigenpairs, with the dtype of the operator and of the
    vectors. All fields except `dtype` and `outside` are arguments of `eigsh`; `tol` is a number.
    """

    k: int
    which: str
    dtype: np.dtype[Any]
    tol: float
    relative: str
    max_products: int
    max_basis: int | None
    probe: bool
    progress: bool | None = False
    # True if the search is repeated from a random start once the space of a given start is
    # exhausted
    outside: bool = True


def dtype_eps(dtype: np.dtype[Any]) -> float:
    """Return the distance from 1 to the next number of a dtype, which is float32 or float64, faster
    than `numpy.finfo`.
    """
    return 2.0**-52 if dtype.itemsize == 8 else 2.0**-23


def resolve_tol(tol: float | None, dtype: np.dtype[Any]) -> float:
    """Return the tolerance to be used for a dtype: `tol`, or the default if `tol` is None, but at
    least 16 eps.
    """
    asked = (
        DEFAULT_TOL_BY_ITEMSIZE[dtype.itemsize]
        if tol is None
        else check_positive(tol, "tol", zero=True)
    )
    return max(asked, 16 * dtype_eps(dtype))


def basis_limit(options: EigshOptions, n: int) -> int:
    """Return the maximum number of basis vectors for an operator with n rows, which is at most n.
    It is ``options.max_basis``, or a default from the memory of the basis if that is None.
    """
    k = options.k
    if options.max_basis is None:
        row_bytes = n * options.dtype.itemsize
        return min(n, max(2 * k + 20, min(300, DEFAULT_MAX_BASIS_BYTES // row_bytes)))
    if options.max_basis < min(n, k + 3):
        raise ValueError(
            f"max_basis must be at least min(n, k + 3) = {min(n, k + 3)}, got {options.max_basis}."
        )
    return min(n, options.max_basis)


def pairs_from_matrix(
    P: Array,
    options: EigshOptions,
    shift: float = 0.0,
    against: Array | None = None,
    n_products: int = 0,
) -> Eigenpairs:
    """Return the wanted eigenpairs of ``P + shift I`` from a full decomposition, with all copies of
    multiple eigenvalues.

    Parameters
    ----------
    P : ndarray, shape (n, n)
        The matrix of products with the unit vectors, of any scale. If P is not symmetric to
        rounding, the attribute `asymmetry` of the result measures this, and `residuals` include it.
    options : EigshOptions
        The options of the search, which select the pairs.
    shift : float
        The shift is added to the eigenvalues and not to P, so that small entries of P keep their
        digits.
    against : ndarray, shape (s, n), optional
        Orthonormal rows to which the vectors are made orthogonal.
    n_products : int
        Number of products from which P was computed.
    """
    eps = dtype_eps(options.dtype)
    N = None
    S, A, exponent, skew = scaled_symmetric_part(P)
    if against is not None and len(against):
        N = np.linalg.qr(against.T.astype(np.float64), mode="complete")[0][:, len(against) :]
        A = N.T @ A @ N
        A = (A + A.T) * 0.5

    def select_wanted(theta: Floats) -> Indices:
        values = (
            np.ldexp(theta, exponent)
            if exponent < MAX_SAFE_EXPONENT
            else undo_scaling(theta, exponent)
        )
        return wanted_indices(values + shift, options.k, options.which)

    theta, at, V = eigh_selected(A, select_wanted)
    V = np.asfortranarray(V if N is None else N @ V, options.dtype)
    ends = (float(theta[0]), float(theta[-1]))
    wide = theta[at]
    size = max(map(abs, ends))
    if skew > MAX_ASYMMETRY_EPS * eps * size:
        skew = float(column_norms(S - S.T).max())
    # `finest` bounds the additional rounding error of subnormal values.
    finest = SMALLEST_SUBNORMAL * (size > 0)
    left = np.ldexp(residual_norms(S, wide, V.T) + eps * size, exponent) + finest
    values = np.ldexp(wide, exponent) + shift
    scale = max(abs(shift), *(abs(math.ldexp(end, exponent) + shift) for end in ends))
    allowed: Any = scale
    if options.relative == "value":
        allowed = np.maximum(np.abs(values), eps ** (2 / 3) * scale)
    return Eigenpairs(
        values=values,
        vectors=V,
        residuals=left,
        converged=left <= options.tol * allowed + finest,
        n_products=n_products,
        scale=scale,
        tol=options.tol,
        probed=True,
        missed_within=0.0,
        asymmetry=math.ldexp(skew, exponent) if skew > MAX_ASYMMETRY_EPS * eps * size else 0.0,
    )


# maximum number of rows of an available matrix that is decomposed instead of searched
SEARCH_DENSE_MAX_N = 400
# maximum squared norm, in eps, of the component of a unit vector outside the smaller space at which
# the vector counts as a vector of this space
MAX_OUTSIDE_PART_EPS = 64


def reduced_pairs(
    search: Any, small: Any, options: EigshOptions, rng: Any, start: Array | None, against: Any
) -> ReducedEigenpairs | None:
    """Run `eigsh` with checked options on the smaller operator `small`, by the function `search`,
    and return eigenpairs of the full operator. Return None if the vectors `against` do not lie in
    the smaller space, or span this space.

    The residuals are those of the full operator: the residuals in the smaller space plus the amount
    that `lift_eigenpairs` adds. `start` and `against` are those of `extreme_pairs`, and `rng` is
    the seed.
    """
    dtype = operator_dtype(small)
    left = small.shape[0]
    V = getattr(against, "vectors", against)
    if np.ndim(V) == 2 and np.shape(V)[1] == 0:
        V = None
    if V is not None:
        most = (MAX_OUTSIDE_PART_EPS * float(np.finfo(dtype).eps)) ** 0.5
        V = small.find_coordinates(check_vectors(V, small.n, "against", dtype).T, most)
        if V is None or len(V) >= left:
            return None
        left -= len(V)
        V = V.T
    if start is not None:
        coordinates = small.project(start.T)
        start = coordinates.T if coordinates.any() else None
    inner = options._replace(k=min(options.k, left), dtype=dtype)
    if small.lowest:
        inner = remaining_search_options(inner, options, small)
    # Only copies of the eigenvalue of the complement are requested.
    if not inner.k:
        none = np.zeros(0)
        empty = np.zeros((small.shape[0], 0), dtype)
        pairs = Eigenpairs(
            none, empty, none, none > 0, 0, small.norm, probed=True, missed_within=0.0
        )
    elif V is None and isinstance(small, DenseReduction) and is_dense_faster(small, inner.k):
        pairs = pairs_from_matrix(small.core_matrix, inner, float(small.complement_eigenvalue))
    else:
        pairs = search(small, inner, rng, start, V)
    # A warning of missed copies is issued only if `missed_within` exceeds MIN_MISSED_WITHIN_TOLS
    # times the tolerance. The tolerance of the full operator is larger than that of the search, so
    # `missed_within` is increased to keep the warning.
    tol = options.tol
    if missed_clause(pairs) and pairs.missed_within < np.inf:
        scale = max(pairs.scale, abs(small.complement_eigenvalue))
        least = (MIN_MISSED_WITHIN_TOLS + 1) * tol * scale
        pairs = replace(pairs, missed_within=max(pairs.missed_within, least))
    pairs = replace(pairs, tol=tol)
    return complete_pairs(pairs, small, options.k, options.which, rng, options.relative)


def remaining_search_options(
    inner: EigshOptions, options: EigshOptions, small: Reduction
) -> EigshOptions:
    """Return the options of the search in the operator `small`, for a full operator whose lowest
    eigenvalues are copies of ``small.complement_eigenvalue``. These copies need no search.

    `options` holds the options for the full operator, and `inner` those options with k limited to
    the smaller space. The tolerance is reduced, because residuals of small eigenvalues increase in
    the full space.
    """
    tol = options.tol * (1e-3 if options.relative == "value" else 0.25)
    inner = inner._replace(tol=max(tol, 16 * dtype_eps(inner.dtype)), relative="value")
    low = {"SA": options.k, "BE": options.k // 2}.get(options.which, 0)
    if low > small.n_complement:
        return inner
    return inner._replace(k=min(options.k - low, inner.k), which="LA")


def is_dense_faster(small: Any, k: int) -> bool:
    """Return True if the smaller operator `small` has at most `SEARCH_DENSE_MAX_N` or 8 k rows. Its
    available matrix is then decomposed faster than k pairs are searched.
    """
    return bool(small.shape[0] <= max(SEARCH_DENSE_MAX_N, 8 * k))


def complete_pairs(
    found: Eigenpairs, small: Reduction, k: int, which: str, rng: Any, relative: str = "scale"
) -> ReducedEigenpairs:
    """Return the k wanted pairs of the full operator, among the pairs `found` for the operator
    `small` and the copies of ``small.complement_eigenvalue``. The residuals are those of the full
    operator. `which` and `relative` are those of `eigsh`.
    """
    X = np.ascontiguousarray(found.vectors.T)
    tol = found.tol
    kept, limits, zero, together = small.lift_eigenpairs(X, found, rng)
    copies = min(k, small.n_complement + len(X) - int(kept.sum()))
    scale = max(found.scale, abs(small.complement_eigenvalue) if copies else 0.0)
    zero = max(zero, 16 * float(np.finfo(X.dtype).eps) * scale)
    size = np.abs(found.values) if relative == "value" else scale
    if small.lowest:
        good = limits <= tol * size
    else:
        good = found.converged & (limits - found.residuals <= tol * size)

    def both(mine: Any, theirs: Any) -> Any:
        return np.concatenate([mine[kept], np.full((copies, *mine.shape[1:]), theirs, mine.dtype)])

    values = both(found.values, small.complement_eigenvalue)
    source = np.concatenate([np.full(int(kept.sum()), -1), np.arange(copies)])
    order = np.argsort(values, kind="stable")
    if k < len(values):
        order = order[wanted_indices(values[order], k, which)]
    return ReducedEigenpairs(
        values=values[order],
        vectors=None,  # type: ignore[arg-type]  # computed on first access
        residuals=both(limits, zero)[order],
        converged=both(good, not small.lowest or zero <= tol * scale)[order],
        n_products=found.n_products + bool(len(X)),
        scale=scale,
        tol=tol,
        probed=found.probed,
        missed_within=found.missed_within,
        interrupted=found.interrupted,
        asymmetry=found.asymmetry,
        space=small.space,
        coordinates=both(X, 0.0)[order],
        complement_index=source[order],
        reduction=small,
        jointly_orthogonal=together,
    )
