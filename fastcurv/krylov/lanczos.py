"""The Lanczos recurrence for single vectors and blocks, with a basis kept orthonormal to rounding.

`Recurrence` is the engine's recurrence for single vectors (`fastcurv/_engine/lanczos.pyx`, which
defines the notation and explains how orthogonality is kept), with the operations between its steps:
starts, restarts, and blocks, which are orthogonalised fully, twice, at every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import get_args
from weakref import WeakKeyDictionary

import numpy as np

from ..common.checks import (
    check_choice,
    check_positive_int,
    checked_product,
    operator_dtype,
)
from ..common.linalg import NotFiniteError, eigh, eigh_tridiagonal, svd, wanted_indices
from ..common.protocols import Array, Floats, Indices, OperatorLike, Which, capability
from ..common.runtime import raise_if_out_of_time, seconds_until_deadline
from ..common.vectors import (
    NOT_FINITE_MESSAGE,
    Lanczos,
    column_slices,
    combine_rows,
    empty_padded_rows,
    norm,
    project_rows,
    subtract_rows,
)

# --------------------------------------------------------------------------------------------------
# Vectors stored as the rows of one array, and the few sweeps over them that Krylov methods need.
#
# A basis is an array ``Q (m, n)`` in the operator's dtype, with one vector per row. Every sweep
# goes over the basis in panels of columns that stay in cache: within a panel all vectors of a batch
# are treated before the next panel is read, so the basis crosses the memory bus once per sweep and
# not once per vector. Products within a panel are in the dtype of the basis; sums over panels are
# float64, which keeps the error of a long float32 inner product near that of one panel.


def product_function(op: OperatorLike) -> Callable[[Array, Array], object]:
    """Return a function ``multiply(v, out)`` that writes the product of an operator with v (n,) to
    `out` (n,). It is the operator's method `product` if the operator has this method.
    """
    product: Callable[[Array, Array], object] | None = getattr(op, "product", None)
    if product is not None:
        return product

    def multiply(v: Array, out: Array) -> None:
        out[:] = checked_product(op, v)

    return multiply


def rotate_rows(Q: Array, S: Array) -> None:
    """Compute ``Q[:l] = S' Q`` in place, for Q (m, n) and S (m, l) with orthonormal columns, l <=
    m.
    """
    combine_rows(Q, S, Q[: S.shape[1]])


def rotate_rows_unless_stopped(
    stop: Callable[[], bool], Q: Array, S: Array, least: Indices
) -> bool:
    """Compute `rotate_rows` in panels of columns of Q, calling `stop` between panels. Return True
    if `stop` never returned True.

    Once `stop` returns True, only the columns of S with the indices `least` are used, and their
    results are the first rows of Q.
    """
    is_complete = True
    for columns in column_slices(Q.shape[1]):
        if is_complete and stop():
            is_complete, S = False, S[:, least]
            Q[: len(least), : columns.start] = Q[least, : columns.start]
        rotate_rows(Q[:, columns], S)
    return is_complete


def combine_basis_rows(Q: Array, S: Array) -> Array:
    """Return ``S' Q`` (l, n) as a new array, for Q (m, n) and S (m, l)."""
    return combine_rows(Q, S, np.empty((S.shape[1], Q.shape[1]), Q.dtype))


def column_norms(M: Floats) -> Floats:
    """Return the 2-norms of the columns of a small matrix M (m, l), computed without overflow or
    underflow of squares.
    """
    largest = float(np.abs(M).max(initial=0.0))
    if not 0 < largest < np.inf:
        return np.full(M.shape[1], largest)
    return np.asarray(largest * np.linalg.norm(M / largest, axis=0))


def overflow_safe_norm(x: Floats) -> float:
    """Return the 2-norm of a short vector x, computed without overflow or underflow of squares."""
    return math.hypot(*x.tolist())


def orthogonalise(Q: Array, W: Array, passes: int = 2) -> Floats:
    """Subtract from the rows of `W (s, n)`, in place and `passes` times, their projection onto the
    row space of `Q (m, n)`. Return the sum of the subtracted coefficients ``(s, m)``.
    """
    taken = np.zeros((len(W), len(Q)))
    if len(Q):
        for _ in range(passes):
            C = project_rows(Q, W)
            subtract_rows(Q, W, C)
            taken += C
    return taken


def scale_near_one(W: Array) -> list[int]:
    """Divide each row whose squares could overflow or underflow by a power of two, in place. Return
    a list with the exponent for each row. The exponent is 0 for rows that are not changed, such as
    rows with NaN or infinity.
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
    """Make the rows of `W (s, n)` orthonormal in place, one after the other. Rows that depend
    linearly on the rows before them are dropped.

    Parameters
    ----------
    W : ndarray, shape (s, n)
        Overwritten: its first r rows become orthonormal.
    floor : float
        A row counts as linearly dependent if its remainder, after projection onto the complement of
        the rows before it, has at most this length or is at rounding level.
    against : ndarray, shape (m, n), optional
        Orthonormal rows to which the rows of `W` are orthogonal. If given, orthogonality to them is
        restored after a remainder has been scaled to length 1.

    Returns
    -------
    B : ndarray, shape (r, s)
        Coefficients with ``W_before = B' W[:r]``, except for the dropped remainders.
    dropped : ndarray, shape (s,)
        Length of the dropped remainder of each row, or 0 if the row was kept.
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


MAX_BLOCK_BYTES = 64 << 20  # maximum size of a block of products that are computed together
N_INITIAL_ROWS = 64  # number of rows for which T has memory at first
# minimum number of entries in locked rows at which one vector replaces these rows in the
# orthogonalisation, see `Recurrence.lock`
MIN_REPLACED_ENTRIES = 1 << 15
# error assumed for products and sweeps if no larger one is measured, in eps ||A||
ASSUMED_ERROR_EPS = 4.0


class Recurrence(Lanczos):
    """A Lanczos basis of an operator that grows by products and shrinks by restarts.

    The next block consists of the pending rows of the basis, which the next step multiplies. `err`
    bounds, for each row, the part of its product that the basis does not represent.

    Parameters
    ----------
    op : LinearOperator, shape (n, n)
        A real symmetric operator A. ``op.product(v, out)`` is used if it exists.
    max_basis : int
        Maximum number of rows. The memory is ``(max_basis + 1) n`` numbers, and another ``p n`` for
        blocks of p rows.
    against : ndarray, shape (s, n), optional
        Orthonormal rows. If given, the operator is ``(I - P) A (I - P)``, with P the projection
        onto the span of these rows.
    rows : ndarray, shape (at least max_basis + 1, n), optional
        Memory for the basis. If it is given, `reserve` must not be called.
    orthogonality_tol : float, optional
        Loss of orthogonality within a batch at which orthogonality is restored. The default is
        ``sqrt(eps)``.
    semiorthogonal : bool
        If True, only T is needed. The rows are then orthonormal only to `orthogonality_tol`, and
        the basis cannot be restarted.
    """

    n_products: int
    n_clean: int
    reach: int
    n_locked: int
    noise: float
    scale: float

    def __init__(
        self,
        op: OperatorLike,
        max_basis: int,
        *,
        against: Array | None = None,
        orthogonality_tol: float | None = None,
        rows: Array | None = None,
        semiorthogonal: bool = False,
    ) -> None:
        n, dtype = op.shape[0], operator_dtype(op)
        fast = capability(op, "fast_product")
        super().__init__(n, dtype, product_function(op), fast and fast())
        self.op, self.semiorthogonal = op, semiorthogonal
        self.against = np.empty((0, n), dtype) if against is None else np.ascontiguousarray(against)
        self.dimension = n - len(self.against)
        self.capacity = min(max_basis, self.dimension)
        size = self.capacity + 1
        self.rows = np.empty((size, n), dtype) if rows is None else rows[:size]
        first = min(size, N_INITIAL_ROWS)
        self.T, self.err = np.zeros((first, first)), np.zeros(size)
        self.orthogonality_tol = self.eps**0.5 if orthogonality_tol is None else orthogonality_tol
        self.deflation_coupling = np.zeros((len(self.against), size))
        self.tridiagonal = True
        # context manager around products, within which Ctrl-C may interrupt them
        self.around: AbstractContextManager[None] = nullcontext()

    @property
    def is_full(self) -> bool:
        """True if the arrays have no space for the rows of the next step. A basis without
        multiplied rows is never full.
        """
        return self.m > 0 and self.capacity < min(self.dimension, self.m + 2 * self.p - 1)

    def reset(self) -> None:
        """Discard the basis, but keep the number of products, the scale and the noise."""
        self.discard_basis()

    def insert_block(self, W: Array) -> int:
        """Make the rows W (p, n), which are overwritten, the next block. Return the number of
        linearly independent rows of W.

        The coupling of the basis to the block that is replaced is dropped, and `err` is increased
        by this coupling.
        """
        scale_near_one(W)
        return self.replace_pending_rows(W)

    def insert_random(self, rng: np.random.Generator, p: int = 1) -> int:
        """Make p random vectors the next block, or fewer if the dimension or the capacity does not
        allow p. Return the number of linearly independent rows.
        """
        p = max(1, min(p, self.dimension - self.m, self.capacity + 1 - self.m))
        for _ in range(5):
            if self.replace_pending_rows(rng.standard_normal((p, self.n), dtype=self.dtype)):
                return self.p
        return 0

    def restart(
        self,
        theta: Floats,
        S: Floats,
        *,
        keep_block: bool = True,
        stop: Callable[[], bool] = lambda: False,
        least: Indices | None = None,
    ) -> None:
        """Replace the basis by the Ritz vectors with coordinates S (m, l) and Ritz values `theta`
        (l,). Keep the next block if `keep_block` is True. If `stop` returns True before all vectors
        are computed, only the vectors with the indices `least` are kept.
        """
        if not keep_block:
            self.drop_pending_rows()
        self.reorthogonalise()
        least = np.arange(S.shape[1]) if least is None else least
        if not rotate_rows_unless_stopped(stop, self.rows[: self.m], S, least):
            theta, S = theta[least], S[:, least]
        m, p, l = self.m, self.p, S.shape[1]
        self.rows[l : l + p] = self.rows[m : m + p]
        self.replace_by_ritz_vectors(theta, S)

    def lock(self, theta: Floats, S: Floats) -> None:
        """Replace the basis by the Ritz vectors with coordinates S (m, l) and Ritz values `theta`
        (l,), and drop the next block. `err` is increased by the coupling to the dropped rows.
        """
        self.reorthogonalise()
        w = None
        if self.p == 1 and not self.n_locked and len(theta) * self.n >= MIN_REPLACED_ENTRIES:
            w, coupled = self.rows[self.m].copy(), (self.coupling() @ S)[0]
            error = overflow_safe_norm(self.err[: self.m] @ np.abs(S) + self.eps * self.scale)
        self.drop_pending_rows()
        rotate_rows(self.rows[: self.m], S)
        self.replace_by_ritz_vectors(theta, S)
        if w is not None and self.n_locked:
            echo = combine_basis_rows(self.rows[: self.m], coupled[:, None] / self.unit)[0]
            self.set_locked_direction(w, echo, coupled, error)

    def coupling(self) -> Floats:
        """Return the components (p, m) of the products with the first m rows along the p pending
        rows.
        """
        return np.asarray(self.T[self.m : self.m + self.p, : self.m])

    def narrow_block(self, M: Floats, most: int | None = None) -> None:
        """Reduce the next block of p rows to the span of its combinations with the columns of M (p,
        u). The new block has at most u rows, and at most `most` rows if `most` is given.
        """
        m, p = self.m, self.p
        U, size, _ = svd(M / (np.abs(M).max(initial=0.0) or 1.0))
        U = U[:, size > 1e-3 * size[0]][:, :most] if size[0] > 0 else U[:, :0]
        if U.shape[1] >= p:
            return
        B = self.coupling()
        rotated = U.T @ B
        self.drop_coupling(column_norms(B - U @ rotated))
        rotate_rows(self.rows[m : m + p], U)
        self.p = r = U.shape[1]
        self.T[m : m + r, :m] = rotated
        self.T[:m, m : m + r] = rotated.T
        self.n_clean = m + r

    @property
    def asymmetry(self) -> float:
        """The asymmetry measured in the products, or 0 if it is at rounding level."""
        return self.noise if self.noise > 16 * ASSUMED_ERROR_EPS * self.eps * self.scale else 0.0

    def step(self) -> None:
        """Multiply the next block by the operator. The basis then has p more rows, for a block of p
        rows, and a new next block.
        """
        if self.p == 1:
            self.extend(self.m + 1)
        else:
            self._step_block()

    def extend(self, until: int, seconds: float = np.inf) -> None:
        """Multiply one row after the other until the basis has `until` rows, the space is
        exhausted, or the time `seconds` has passed.
        """
        raise_if_out_of_time()
        with self.around:
            self.advance(until, min(seconds, seconds_until_deadline()))

    def _apply_block(self, m: int, p: int) -> Array:
        """Return the products (p, n) of the operator with the rows m to m + p - 1. They are
        computed together if they take at most `MAX_BLOCK_BYTES`. Components along `against` are
        removed and stored in `deflation_coupling`.
        """
        V, W = self.rows[m : m + p], np.empty((p, self.n), self.dtype)
        with self.around:
            if W.nbytes > MAX_BLOCK_BYTES:
                for v, w in zip(V, W):
                    self.product(v, w)
            else:
                has_product = hasattr(self.op, "product")
                W[...] = checked_product(
                    self.op, V.T if has_product else np.ascontiguousarray(V.T)
                ).T
        self.n_products += p
        self.divide_by_unit(W)
        if len(self.against):
            along = self.unit * orthogonalise(self.against, W, passes=1)
            self.deflation_coupling[:, m : m + p] = along.T
            self.noise = max(self.noise, self.eps * max(overflow_safe_norm(row) for row in along))
        return W

    def _step_block(self) -> None:
        """Multiply the next block by the operator, orthogonalise the products, and make the result
        the next block. The next block has fewer rows if the dimension or the capacity does not
        allow p rows.
        """
        m, p = self.m, self.p
        k = m + p
        self.enlarge_projection(min(k + p, self.capacity + 1))
        W = self._apply_block(m, p)
        sizes = [self.unit * norm(w) for w in W]
        if not np.isfinite(sizes).all():
            raise NotFiniteError(NOT_FINITE_MESSAGE)
        self.scale = max(self.scale, *sizes)
        C = self.unit * orthogonalise(self.rows[:k], W)
        inner = C[:, m:]
        seen = [overflow_safe_norm(row) for row in (C[:, :m] - self.T[m:k, :m])[:, self.n_locked :]]
        # A nonzero difference is due to an asymmetric operator or to rounding.
        seen += [overflow_safe_norm(row) for row in inner - inner.T]
        self.noise = max([self.noise, ASSUMED_ERROR_EPS * self.eps * self.scale, *seen])
        self.T[m:k, m:k] = (inner + inner.T) / 2
        if self.n_locked:
            self.T[m:k, : self.n_locked] = C[:, : self.n_locked]
            self.T[: self.n_locked, m:k] = C[:, : self.n_locked].T
        B, dropped = orthonormalise(W, floor=3 * self.noise / self.unit, against=self.rows[:k])
        if len(self.against):
            orthogonalise(self.against, W[: len(B)], passes=1)
        self.err[m:k] = self.noise + self.unit * dropped
        r = min(len(B), self.dimension - k, self.capacity + 1 - k)
        B = self.unit * (self._concentrate_coupling(B, W, r) if r < len(B) else B)
        self.rows[k : k + r] = W[:r]
        self.T[k : k + r, m:k] = B
        self.T[m:k, k : k + r] = B.T
        self.m, self.p, self.n_clean, self.reach = k, r, k + r, m
        self.tridiagonal = False
        self.reset_loss_estimate()

    def _concentrate_coupling(self, B: Floats, W: Array, r: int) -> Floats:
        """Rotate the block W such that its first r rows carry most of the coupling ``B' W``, and
        return the coupling to these rows. `err` is increased by the coupling to the other rows.
        """
        k = self.m + self.p
        U = svd(B)[0][:, :r]
        rotated = U.T @ B
        lost = self.unit * column_norms(B - U @ rotated)
        rotate_rows(W[: len(B)], U)
        self.err[self.m : k] += lost
        if self.capacity < self.dimension and lost.max(initial=0.0) > 10 * self.noise:
            self.n_locked = k
        return rotated


# --------------------------------------------------------------------------------------------------
# The wanted ends of a spectrum, and the eigenvectors of a projected operator.


END_NAMES: tuple[Which, ...] = get_args(Which)


def check_k_and_which(k: int, which: str, n: int) -> int:
    """Return `k` as an int. Raise ValueError if k is not from 1 to n or `which` is not one of
    `END_NAMES`, and TypeError if k is not an integer.
    """
    check_choice(which, END_NAMES, "which")
    if check_positive_int(k, "k") > n:
        raise ValueError(f"k must be at most n = {n}, the size of the operator, got {k}.")
    return int(k)


def ritz_decomposition(run: Recurrence) -> tuple[Floats, Floats]:
    """Return all Ritz values (m,) of a basis, and the coordinates S (m, m) of the Ritz vectors in
    the rows of the basis, as columns.
    """
    T = run.T[: run.m, : run.m]
    if run.tridiagonal and run.m > 1:
        return eigh_tridiagonal(np.diag(T), np.diag(T, 1))
    return eigh(T)[:2]


def kept_ritz_indices(theta: Floats, k: int, which: str, room: int) -> Indices:
    """Return the indices of the Ritz vectors that a thick restart keeps: the k wanted vectors and
    two fifths of the others, those next to the wanted ones, but at most `room` in all. `theta`
    holds all Ritz values, and `which` names the ends of the spectrum.
    """
    l = min(k + (len(theta) - k) * 2 // 5, room)
    return wanted_indices(theta, max(l, min(k, room)), which)


# --------------------------------------------------------------------------------------------------
# Memory of a basis, kept for the next run of the same owner.
#
# At the first write to a page of memory, the operating system must find and clear the page. For
# each row of a large basis this takes a tenth of the time of a product, and at times more than a
# product. The memory of a run is kept until its owner is deleted.

# minimum and maximum size of a basis whose memory is kept for the next run
MIN_POOLED_BASIS_BYTES, MAX_POOLED_BASIS_BYTES = 1 << 20, 1 << 30
PAGE_BYTES = 4096  # size of a page of memory
_held: WeakKeyDictionary[object, np.ndarray] = WeakKeyDictionary()


def _row_stride(n: int, dtype: np.dtype) -> int:
    """Return the distance between the starts of consecutive rows of n entries, in entries.

    For long rows the distance exceeds a multiple of the page size by a quarter of a page or
    slightly more. If all rows start at the same offset within a page, sweeps over the rows take 10
    to 20% longer.
    """
    page = PAGE_BYTES // dtype.itemsize
    return n + (page // 4 - n) % page if n >= 8 * page else n


def memory_owner(op: OperatorLike) -> object:
    """Return the owner of the memory of runs on `op`: the objective of a curvature, which has a new
    operator at each theta, or else the operator.
    """
    return getattr(getattr(op, "whole", op), "objective", op)


class aligned_rows:
    """Context manager that provides uninitialised rows of the given shape. Each row starts at a
    cache line, and consecutive long rows start in different cache sets. The memory of the last run
    of `owner` is used again if it has rows of this length and precision, and enough of them.

    Rows in use are not shared: another thread gets its own memory.
    """

    def __init__(self, owner: object, shape: tuple[int, int], dtype: np.dtype) -> None:
        self.owner, rows = owner, None
        if shape[0] * shape[1] * dtype.itemsize >= MIN_POOLED_BASIS_BYTES:
            # Owners that cannot be hashed have no stored memory.
            with suppress(TypeError):
                rows = _held.pop(owner, None)
        if rows is None or rows.dtype != dtype or rows.shape[1] != shape[1] or len(rows) < shape[0]:
            rows = empty_padded_rows(shape[0], _row_stride(shape[1], dtype), dtype)[:, : shape[1]]
        self.rows = rows

    def __enter__(self) -> np.ndarray:
        return self.rows

    def __exit__(self, *_: object) -> None:
        if MIN_POOLED_BASIS_BYTES <= self.rows.nbytes <= MAX_POOLED_BASIS_BYTES:
            with suppress(TypeError):
                _held[self.owner] = self.rows
