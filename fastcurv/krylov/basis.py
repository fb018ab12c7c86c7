"""Vectors kept as the rows of one array, and the few sweeps over them that Krylov methods are made
of.

A basis is a C-ordered array ``Q (m, n)`` in the operator's dtype, one vector a row. Every sweep
goes over it in panels of columns that stay in cache: within a panel all vectors of a batch are
treated before the next panel is read, so the basis crosses the memory bus once per sweep and not
once per vector. Products within a panel are in the dtype of the basis; sums over panels are
float64, which keeps the error of a long float32 inner product near that of one panel.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..checks import check_vectors, times
from ..protocols import Array, Floats, Indices
from ..vectors import column_slices, combine_rows, norm, project_rows, subtract_rows


def as_product(op: Any) -> Callable[[Array, Array], Any]:
    """`multiply(v, out)` for an operator with or without `product`."""
    product: Any = getattr(op, "product", None)
    if product is not None:
        return product  # type: ignore[no-any-return]

    def multiply(v: Array, out: Array) -> None:
        out[:] = times(op, v)

    return multiply


def project(Q: Array, W: Array) -> Floats:
    """The coefficients ``C (s, m) = W Q'`` in float64, for `Q (m, n)` and `W (s, n)`."""
    return project_rows(Q, W)


def subtract(Q: Array, W: Array, C: Array) -> Floats:
    """``W -= C Q`` in place; returns the squared norms of the new rows, which are in cache
    anyway.
    """
    return subtract_rows(Q, W, C)


def rotate(Q: Array, S: Array) -> None:
    """``Q[:l] = S' Q`` in place, for orthonormal ``S (m, l)``, l <= m."""
    combine_rows(Q, S, Q[: S.shape[1]])


def rotate_unless(stop: Callable[[], bool], Q: Array, S: Array, least: Indices) -> bool:
    """`rotate`, looking at `stop` now and then: once it says so only the columns `least` of S are
    of interest and become the first rows. Whether it never did.
    """
    whole = True
    for columns in column_slices(Q.shape[1]):
        if whole and stop():
            whole, S = False, S[:, least]
            Q[: len(least), : columns.start] = Q[least, : columns.start]
        rotate(Q[:, columns], S)
    return whole


def combine(Q: Array, S: Array) -> Array:
    """``S' Q (l, n)`` as a new array, for ``S (m, l)``."""
    return combine_rows(Q, S, np.empty((S.shape[1], Q.shape[1]), Q.dtype))


class Basis:
    """Orthonormal rows and what is known of a symmetric operator A in them.

    Attributes
    ----------
    rows : ndarray, shape (room, n)
        Rows ``[0, m)`` have been multiplied; the ``p`` after them hold all that the products have
        outside of the first, and wait.
    T : ndarray, shape (room, room)
        ``Q A Q'`` in float64, of the rows so far.
    tridiagonal : bool
        Whether the first m rows and columns of T are.
    """

    rows: Array
    T: Floats
    m: int
    p: int
    tridiagonal: bool

    def coupling(self) -> Floats:
        """``B (p, m)``, what the products of the first m rows have along the rows that wait."""
        return self.T[self.m : self.m + self.p, : self.m]

    def tall(self) -> Floats:
        """``(m + p, m)``: the coefficients of all products, T above the coupling."""
        return self.T[: self.m + self.p, : self.m]

    def widen(self, more: int) -> None:
        """Room for so many rows more; what is there stays."""
        self.rows.resize((len(self.rows) + more, self.rows.shape[1]), refcheck=False)
        self.T = np.pad(self.T, ((0, more), (0, more)))


def column_lengths(M: Floats) -> Floats:
    """The 2-norms of the columns of a small matrix, whatever its scale."""
    largest = float(np.abs(M).max(initial=0.0))
    if not 0 < largest < np.inf:
        return np.full(M.shape[1], largest)
    return np.asarray(largest * np.linalg.norm(M / largest, axis=0))


def length(x: Floats) -> float:
    """The 2-norm of a few numbers, whatever their scale."""
    return math.hypot(*x.tolist())


def orthogonalise(Q: Array, W: Array, passes: int = 2) -> Floats:
    """Take the row space of `Q` out of `W` in place; returns the coefficients taken out, ``(s,
    m)``.
    """
    taken = np.zeros((len(W), len(Q)))
    if len(Q):
        for _ in range(passes):
            C = project(Q, W)
            subtract(Q, W, C)
            taken += C
    return taken


def bring_near_one(W: Array) -> list[int]:
    """Divide rows whose squares could leave the range by a power of two, in place, and say by
    which; a row of NaN or infinity stays.
    """
    exponents = []
    for w in W:
        largest = float(np.abs(w).max(initial=0.0))
        exponent = int(np.frexp(largest)[1]) if np.isfinite(largest) else 0
        exponent = exponent if abs(exponent) > 30 else 0
        if exponent:
            np.ldexp(w, -exponent, out=w)
        exponents.append(exponent)
    return exponents


def orthonormalise(
    W: Array, floor: float = 0.0, against: Array | None = None
) -> tuple[Floats, Floats]:
    """Make the rows of `W (s, n)` orthonormal in place, one after the other, dropping what has
    length `floor` or less.

    Parameters
    ----------
    W : ndarray, shape (s, n)
        Overwritten: its first r rows become orthonormal.
    floor : float
        A row with no more than this left after those before it were taken out counts as dependent
        on them.
    against : ndarray, shape (m, n), optional
        Orthonormal rows that `W` is already orthogonal to; made so again where a small rest has
        been scaled up.

    Returns
    -------
    B : ndarray, shape (r, s)
        ``W_before = B' W[:r]`` up to what was dropped.
    dropped : ndarray, shape (s,)
        For each row the length of what was dropped of it.
    """
    eps = np.finfo(W.dtype).eps
    B, dropped, r = np.zeros((len(W), len(W))), np.zeros(len(W)), 0
    for i in range(len(W)):
        w, before = W[i], norm(W[i])
        B[:r, i] = orthogonalise(W[:r], w[None])[0]
        length = norm(w)
        if not length > max(floor, 10 * eps * before):
            dropped[i] = length
            continue
        w /= W.dtype.type(length)
        if length < 0.1 * before or against is not None:
            for rows in (W[:r], against):
                if rows is not None and len(rows):
                    orthogonalise(rows, w[None], passes=1)
            again = norm(w)
            w /= W.dtype.type(again)
            length *= again
        B[r, i] = length
        if r < i:
            W[r] = w
        r += 1
    return B[:r], dropped


def orthonormal_rows(against: Any, n: int, dtype: np.dtype[Any]) -> Array | None:
    """`against` as orthonormal rows, dependent ones dropped; None where there is nothing."""
    if against is None:
        return None

    V = getattr(against, "vectors", against)  # those of Eigenpairs, or an array
    if np.ndim(V) == 2 and np.shape(V)[1] == 0:
        return None
    rows = check_vectors(V, n, "against", dtype).T.copy()
    bring_near_one(rows)
    B, _ = orthonormalise(rows)
    return rows[: len(B)]
