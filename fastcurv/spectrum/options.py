"""The options of a search for eigenpairs, their defaults, and the eigenpairs of a matrix that is
available.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..common.checks import check_positive
from ..common.linalg import (
    SMALLEST_SUBNORMAL,
    eigh_selected,
    residual_norms,
    scaled_symmetric_part,
    undo_scaling,
    wanted_indices,
)
from ..common.protocols import Array, Floats, Indices
from ..krylov.lanczos import column_norms
from .results import Eigenpairs

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
    dtype: np.dtype
    tol: float
    max_products: int
    max_basis: int | None
    probe: bool
    progress: bool | None = False
    # True if the search is repeated from a random start once the space of a given start is
    # exhausted
    outside: bool = True


def dtype_eps(dtype: np.dtype) -> float:
    """Return the distance from 1 to the next number of a dtype, which is float32 or float64, faster
    than `numpy.finfo`.
    """
    return 2.0**-52 if dtype.itemsize == 8 else 2.0**-23


def resolve_tol(tol: float | None, dtype: np.dtype) -> float:
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


def pairs_from_matrix(P: Array, options: EigshOptions, n_products: int = 0) -> Eigenpairs:
    """Return the wanted eigenpairs of P from a full decomposition, with all copies of multiple
    eigenvalues.

    Parameters
    ----------
    P : ndarray, shape (n, n)
        The matrix of products with the unit vectors, of any scale. If P is not symmetric to
        rounding, the attribute `asymmetry` of the result measures this, and `residuals` include it.
    options : EigshOptions
        The options of the search, which select the pairs.
    n_products : int
        Number of products from which P was computed.
    """
    eps = dtype_eps(options.dtype)
    S, A, exponent, skew = scaled_symmetric_part(P)

    def select_wanted(theta: Floats) -> Indices:
        values = (
            np.ldexp(theta, exponent)
            if exponent < MAX_SAFE_EXPONENT
            else undo_scaling(theta, exponent)
        )
        return wanted_indices(values, options.k, options.which)

    theta, at, V = eigh_selected(A, select_wanted)
    V = np.asfortranarray(V, options.dtype)
    ends = (float(theta[0]), float(theta[-1]))
    wide = theta[at]
    size = max(map(abs, ends))
    if skew > MAX_ASYMMETRY_EPS * eps * size:
        skew = float(column_norms(S - S.T).max())
    # `finest` bounds the additional rounding error of subnormal values.
    finest = SMALLEST_SUBNORMAL * (size > 0)
    residuals = np.ldexp(residual_norms(S, wide, V.T) + eps * size, exponent) + finest
    values = np.ldexp(wide, exponent)
    scale = max(abs(math.ldexp(end, exponent)) for end in ends)
    return Eigenpairs(
        values=values,
        vectors=V,
        residuals=residuals,
        converged=residuals <= options.tol * scale + finest,
        n_products=n_products,
        scale=scale,
        tol=options.tol,
        probed=True,
        missed_within=0.0,
        asymmetry=math.ldexp(skew, exponent) if skew > MAX_ASYMMETRY_EPS * eps * size else 0.0,
    )
