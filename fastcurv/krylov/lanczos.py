"""The Lanczos recurrence for single vectors and blocks, with a basis kept orthonormal to rounding.

State: the basis ``Q``, rows ``0 .. m-1``, which have been multiplied by A; the next block, rows ``m
.. m+p-1``, which have not; and ``T``, the operator in that basis. Then

    A Q' = Q' T + (next block)' B + F',        B = T[m:m+p, :m],        ||F_i|| <= err[i]

and everything else (Ritz values, residuals, restarts, quadratures) is algebra on T, B and err.

Orthogonality. A step of the single-vector recurrence subtracts only the two neighbours; the
components left along older vectors start at rounding level and grow from step to step in a way that
can be estimated from T (Simon 1984). Steps are gathered into batches as long as that estimate stays
below `contamination`; then the whole batch is orthogonalised against all older vectors in two
sweeps. The neglected effect on T is of second order, the square of the components found, and is
added to err. Where T alone is wanted, only the last two rows of a batch are orthogonalised, from
which the recurrence goes on as if all had been: T is then that of a basis orthonormal to rounding,
up to rounding, as long as the rows are orthonormal to ``sqrt(eps)`` (Simon 1984). Blocks
are orthogonalised fully, twice, at every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..common.checks import check_vectors, operator_dtype, times
from ..common.linalg import eigh, svd
from ..common.protocols import Array, Floats, Indices
from ..common.runtime import check_time
from ..common.vectors import column_slices, combine_rows, norm, project_rows, subtract_rows

# --------------------------------------------------------------------------------------------------
# Vectors stored as the rows of one array, and the few sweeps over them that Krylov methods need.
#
# A basis is a C-ordered array ``Q (m, n)`` in the operator's dtype, one vector a row. Every sweep
# goes over it in panels of columns that stay in cache: within a panel all vectors of a batch are
# treated before the next panel is read, so the basis crosses the memory bus once per sweep and not
# once per vector. Products within a panel are in the dtype of the basis; sums over panels are
# float64, which keeps the error of a long float32 inner product near that of one panel.


def as_product(op: Any) -> Callable[[Array, Array], Any]:
    """Return `multiply(v, out)` for an operator with or without `product`."""
    product: Any = getattr(op, "product", None)
    if product is not None:
        return product  # type: ignore[no-any-return]

    def multiply(v: Array, out: Array) -> None:
        out[:] = times(op, v)

    return multiply


def project(Q: Array, W: Array) -> Floats:
    """Return the coefficients ``C (s, m) = W Q'`` in float64, for `Q (m, n)` and `W (s, n)`."""
    return project_rows(Q, W)


def subtract(Q: Array, W: Array, C: Array) -> Floats:
    """Compute ``W -= C Q`` in place and return the squared norms of the new rows, taken while they
    are in cache.
    """
    return subtract_rows(Q, W, C)


def rotate(Q: Array, S: Array) -> None:
    """Compute ``Q[:l] = S' Q`` in place, for orthonormal ``S (m, l)``, l <= m."""
    combine_rows(Q, S, Q[: S.shape[1]])


def rotate_unless(stop: Callable[[], bool], Q: Array, S: Array, least: Indices) -> bool:
    """Compute `rotate` panel by panel of columns, checking `stop` between panels: once it returns
    True, only the columns `least` of S are still computed, as the first rows. Return True if `stop`
    never did.
    """
    whole = True
    for columns in column_slices(Q.shape[1]):
        if whole and stop():
            whole, S = False, S[:, least]
            Q[: len(least), : columns.start] = Q[least, : columns.start]
        rotate(Q[:, columns], S)
    return whole


def combine(Q: Array, S: Array) -> Array:
    """Return ``S' Q (l, n)`` as a new array, for ``S (m, l)``."""
    return combine_rows(Q, S, np.empty((S.shape[1], Q.shape[1]), Q.dtype))


class Basis:
    """Orthonormal rows, and the projection of a symmetric operator A on them.

    Attributes
    ----------
    rows : ndarray, shape (room, n)
        Rows ``[0, m)`` have been multiplied by A; the ``p`` pending rows after them, not yet
        multiplied, span the parts of those products outside the first m rows.
    T : ndarray, shape (room, room)
        ``Q A Q'`` in float64, for the rows so far.
    tridiagonal : bool
        True if the first m rows and columns of T are tridiagonal.
    """

    rows: Array
    T: Floats
    m: int
    p: int
    tridiagonal: bool

    def coupling(self) -> Floats:
        """Return ``B (p, m)``, the components of the products of the first m rows along the pending
        rows.
        """
        return self.T[self.m : self.m + self.p, : self.m]

    def tall(self) -> Floats:
        """Return the coefficients of all products, ``(m + p, m)``: T above the coupling."""
        return self.T[: self.m + self.p, : self.m]

    def widen(self, more: int) -> None:
        """Enlarge the arrays by `more` rows, keeping their contents."""
        self.rows.resize((len(self.rows) + more, self.rows.shape[1]), refcheck=False)
        self.T = np.pad(self.T, ((0, more), (0, more)))


def column_lengths(M: Floats) -> Floats:
    """Return the 2-norms of the columns of a small matrix, safe from overflow and underflow."""
    largest = float(np.abs(M).max(initial=0.0))
    if not 0 < largest < np.inf:
        return np.full(M.shape[1], largest)
    return np.asarray(largest * np.linalg.norm(M / largest, axis=0))


def length(x: Floats) -> float:
    """Return the 2-norm of a short vector, safe from overflow and underflow."""
    return math.hypot(*x.tolist())


def orthogonalise(Q: Array, W: Array, passes: int = 2) -> Floats:
    """Subtract from the rows of `W`, in place, their projection on the row space of `Q`; return the
    coefficients subtracted, ``(s, m)``.
    """
    taken = np.zeros((len(W), len(Q)))
    if len(Q):
        for _ in range(passes):
            C = project(Q, W)
            subtract(Q, W, C)
            taken += C
    return taken


def bring_near_one(W: Array) -> list[int]:
    """Divide rows whose squares could overflow or underflow by a power of two, in place, and return
    the exponents; rows with NaN or infinity stay as they are.
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
    """Make the rows of `W (s, n)` orthonormal in place, one after the other, dropping remainders of
    length `floor` or less.

    Parameters
    ----------
    W : ndarray, shape (s, n)
        Overwritten: its first r rows become orthonormal.
    floor : float
        A row whose remainder, after the rows before it were projected out, is no longer than this
        counts as linearly dependent on them.
    against : ndarray, shape (m, n), optional
        Orthonormal rows that `W` is already orthogonal to; orthogonality is restored where a small
        remainder has been scaled up.

    Returns
    -------
    B : ndarray, shape (r, s)
        ``W_before = B' W[:r]`` up to what was dropped.
    dropped : ndarray, shape (s,)
        For each row the length of the remainder that was dropped.
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
    """Return `against` as orthonormal rows, without dependent ones; None if there are none."""
    if against is None:
        return None

    V = getattr(against, "vectors", against)  # of Eigenpairs, or an array
    if np.ndim(V) == 2 and np.shape(V)[1] == 0:
        return None
    rows = check_vectors(V, n, "against", dtype).T.copy()
    bring_near_one(rows)
    B, _ = orthonormalise(rows)
    return rows[: len(B)]


# --------------------------------------------------------------------------------------------------
# The state of a Lanczos run (a basis kept orthonormal to rounding, the next block, the operator in
# that basis), and how it is started, reorthogonalised and restarted. `Recurrence` adds the steps
# that make it grow; the module docstring has the notation.

# assumed error of products and sweeps in units of eps ||A||, where no larger one is measured
ROUNDING = 4.0


class State(Basis):
    """The state of a `Recurrence`, which documents the parameters."""

    n: int
    clean: int
    reach: int
    locked: int
    _lost: float
    _along: tuple[Floats, Floats] | None

    def __init__(
        self,
        op: Any,
        max_basis: int,
        *,
        against: Array | None = None,
        contamination: float | None = None,
        rows: Array | None = None,
        semi: bool = False,
    ) -> None:
        self.semi = semi
        self.op, self.n, self.dtype = op, op.shape[0], operator_dtype(op)
        self.eps = float(np.finfo(self.dtype).eps)
        self.against = np.zeros((0, self.n), self.dtype) if against is None else against
        self.dimension = self.n - len(self.against)
        self.capacity = min(max_basis, self.dimension)
        self.rows = (
            np.empty((self.capacity + 1, self.n), self.dtype)
            if rows is None
            else rows[: self.capacity + 1]
        )
        self.T = np.zeros((self.capacity + 1, self.capacity + 1))
        self.err = np.zeros(self.capacity + 1)
        self.contamination = self.eps**0.5 if contamination is None else contamination
        self.leak = np.zeros((len(self.against), self.capacity + 1))
        self.aside = 0  # the last rows of `against`, this many, are blocks set aside
        self.reset()
        self.n_products = 0
        self.scale = self.noise = self.ghosts = 0.0
        self.exponent = 0  # products are scaled by 2^-exponent; T is not scaled
        self._product = as_product(op)
        # context entered around every product, in which Ctrl-C may interrupt it
        self.around: AbstractContextManager[None] = nullcontext()

    def reserve(self, max_basis: int) -> None:
        """Enlarge the capacity to `max_basis` rows, keeping the contents."""
        capacity = min(max_basis, self.dimension)
        more = capacity - self.capacity
        if more > 0:
            self.widen(more)
            self.err = np.pad(self.err, (0, more))
            self.leak = np.pad(self.leak, ((0, 0), (0, more)))
            if self._along is not None:
                before, now = (np.pad(along, (0, more)) for along in self._along)
                self._along = before, now
            self.capacity = capacity

    def reset(self) -> None:
        """Discard the basis; keep the count of products, the scale and the noise."""
        self._aside()
        self.m = self.p = self.clean = self.reach = self.locked = 0
        self.tridiagonal = True
        self.T[...] = 0
        self.err[...] = 0

    def insert(self, W: Array) -> int:
        """Make the rows `W (p, n)`, overwritten, the next block; return the number of independent
        rows.

        The coupling of the basis to the previous next block is dropped and added to err.
        """
        self.drop_block()
        bring_near_one(W)
        orthonormalise(W)
        Q = self.rows[: self.m]
        for taken in (self.against, Q):
            orthogonalise(taken, W)
        B, _ = orthonormalise(W, floor=100 * self.eps, against=Q)
        if len(self.against):
            orthogonalise(self.against, W[: len(B)], passes=1)
        p = min(len(B), self.capacity + 1 - self.m, self.dimension - self.m)
        self.rows[self.m : self.m + p] = W[:p]
        self.p, self.clean, self.reach = p, self.m + p, self.m
        self.tridiagonal = self.tridiagonal and p <= 1
        self._forget_loss()
        return p

    def insert_random(self, rng: np.random.Generator, p: int = 1) -> int:
        """Make p random vectors the next block; return the number of independent rows."""
        p = max(1, min(p, self.dimension - self.m, self.capacity + 1 - self.m))
        for _ in range(5):
            if self.insert(rng.standard_normal((p, self.n), dtype=self.dtype)):
                return self.p
        return 0

    def drop_block(self) -> None:
        """Discard the next block; its coupling to the basis is added to err."""
        self.reorthogonalise()
        if self.p:
            self._drop_coupling(column_lengths(self.coupling()))
        self.p = 0

    def _drop_coupling(self, lost: Floats) -> None:
        """Set the coupling to the next block in T to 0 and add `lost`, a number for each column, to
        err. If that is more than rounding, later vectors still couple to the rows there are: lock
        those rows, so that the coupling to them is measured from now on.
        """
        self.err[: self.m] += lost
        if lost.max(initial=0.0) > 10 * self.noise:
            self.locked = self.m
        self.T[self.m :, :] = 0
        self.T[:, self.m :] = 0

    def set_aside(self) -> None:
        """Set the next block aside: later rows are kept orthogonal to it, and the components of
        products along it are measured.

        A new start in the complement of the basis and of that block then does not couple to the
        basis: it generates a Krylov space of its own, which contains what the basis missed of the
        operator.
        """
        self.reorthogonalise()
        m, p = self.m, self.p
        along = np.pad(self.coupling(), ((0, 0), (0, self.leak.shape[1] - m)))
        self.against = np.vstack([self.against, self.rows[m : m + p]])
        self.leak = np.vstack([self.leak, along])
        self.T[m:, :] = 0
        self.T[:, m:] = 0
        self.p, self.clean = 0, m
        self.aside, self.dimension = self.aside + p, self.dimension - p

    def fetch_aside(self) -> None:
        """Append the rows set aside to the next block; there must be room for them."""
        self.reorthogonalise()
        rows, along = self._aside()
        first, end = self.m + self.p, self.m + self.p + len(rows)
        self.rows[first:end] = rows
        self.T[first:end, : self.m] = along[:, : self.m]
        self.T[: self.m, first:end] = along[:, : self.m].T
        self.p, self.clean, self.tridiagonal = self.p + len(rows), end, False

    def drop_aside(self) -> None:
        """Discard the rows set aside; the coupling to them is added to err."""
        self._drop_coupling(column_lengths(self._aside()[1][:, : self.m]))

    def _aside(self) -> tuple[Array, Floats]:
        """Remove the rows set aside from `against`, and return them with the coupling to them."""
        kept = len(self.against) - self.aside
        rows, along = self.against[kept:], self.leak[kept:]
        self.against, self.leak = self.against[:kept], self.leak[:kept]
        self.aside, self.dimension = 0, self.dimension + self.aside
        return rows, along

    def _forget_loss(self) -> None:
        """Reset the estimated loss of orthogonality: all rows are orthonormal to rounding now."""
        self._lost = 0.0
        self._along = None

    def reorthogonalise(self, multiplied: int | None = None) -> None:
        """Restore the orthogonality of the rows after `clean`, the next block included; the
        products of the first `multiplied` rows, m by default, are in T.
        """
        end = self.m + self.p
        if self.clean < end:
            seen = self.clean
            if self.semi and end - 2 > seen:  # rows between lose no more than the estimate says
                self.clean = end - 2
                self.err[seen : end - 2] += self.contamination**2 * self.scale
            Q, P = self.rows[: self.clean], self.rows[self.clean : end]
            for _ in range(3):
                # components along deflated vectors grow from step to step in the three-term
                # recurrence like any other loss of orthogonality
                orthogonalise(self.against, P, passes=1)
                C = project(Q, P)
                subtract(Q, P, C)
                measured = self.m if multiplied is None else multiplied
                self._take_back(C, measured)
                found = self._orthonormalise_batch(P, C, measured, self.clean == seen)
                if found <= 1e-3:
                    break
            self.clean = end
        self._forget_loss()

    def _take_back(self, C: Floats, end: int) -> None:
        """Subtract from T and `leak` the error that the components ``C`` of rows along clean ones
        made in what was measured with them: the coupling to locked rows and to `against`, which may
        be far larger than the loss elsewhere.
        """
        first, locked = self.clean, min(self.locked, self.clean)
        if end <= first:
            return
        C = C[: end - first]
        self.leak[:, first:end] -= self.leak[:, :first] @ C.T
        if locked:
            false = self.T[:locked, :first] @ C.T
            self.T[:locked, first:end] -= false
            self.T[first:end, :locked] -= false.T

    def _orthonormalise_batch(self, P: Array, C: Floats, end: int, whole: bool) -> float:
        """Orthonormalise a batch by a triangular correction; return the largest impurity that was
        found. `whole` says that no rows between the clean ones and the batch were left out.
        """
        gram = project(P, P)
        gram = (gram + gram.T) / 2
        rotate_rows = _whitening(gram)
        if np.abs(rotate_rows - np.eye(len(gram))).max() > 8 * self.eps:
            rotate(P, rotate_rows.T)
            if end > self.clean:
                R = rotate_rows[: end - self.clean, : end - self.clean]
                self.leak[:, self.clean : end] = self.leak[:, self.clean : end] @ R.T
        inside = np.abs(gram - np.diag(np.diag(gram))).max()
        lost = np.hypot(np.linalg.norm(C, axis=1), inside)
        self.ghosts = max(self.ghosts, float(np.abs(C).max(initial=0.0)), float(inside))
        first = self.clean
        if whole and first and self.T[first, first - 1] and len(lost):
            # the first row came from clean ones: its components along them come from the products,
            # as asymmetry
            wrong = float(np.linalg.norm(C[0])) * abs(self.T[first, first - 1])
            self.noise = max(self.noise, wrong)
            self.err[first - 1 : first + len(P)] = np.maximum(
                self.err[first - 1 : first + len(P)], wrong
            )
        if self.p:
            end = self.m
            self.T[end, :end] /= rotate_rows[-1, -1]
            self.T[:end, end] /= rotate_rows[-1, -1]
        self.err[first : first + len(P)] += lost**2 * self.scale
        self.err[max(first - 1, 0) : first - 1 + len(P)] += (
            lost**2 * self.scale if first else lost[1:] ** 2 * self.scale
        )
        return float(lost.max(initial=0.0))

    def restart(
        self,
        theta: Floats,
        S: Floats,
        *,
        keep_block: bool = True,
        stop: Callable[[], bool] = lambda: False,
        least: Indices | None = None,
    ) -> None:
        """Replace the basis by the Ritz vectors ``S (m, l)`` with values `theta`, and keep the next
        block. If `stop` returns True before that is done, only the vectors with the indices `least`
        are kept.
        """
        if not keep_block:
            self.drop_block()
        self.reorthogonalise()
        least = np.arange(S.shape[1]) if least is None else least
        if not rotate_unless(stop, self.rows[: self.m], S, least):
            theta, S = theta[least], S[:, least]
        m, p, l = self.m, self.p, S.shape[1]
        B = self.coupling() @ S
        self.rows[l : l + p] = self.rows[m : m + p]
        self.err[:l] = np.abs(S).T @ self.err[:m] + self.eps * self.scale
        self.leak[:, :l] = self.leak[:, :m] @ S
        self.T[...] = 0
        self.T[range(l), range(l)] = theta
        self.T[l : l + p, :l] = B
        self.T[:l, l : l + p] = B.T
        self.m, self.clean, self.reach, self.tridiagonal = l, l + p, 0, False
        self.locked = l if self.locked else 0
        self._forget_loss()

    def narrow_block(self, M: Floats, most: int | None = None) -> None:
        """Keep, of the next block, only the span of the columns of ``M (p, u)``: at most u, or
        `most`, directions.
        """
        m, p = self.m, self.p
        U, size, _ = svd(M / (np.abs(M).max(initial=0.0) or 1.0))
        U = U[:, size > 1e-3 * size[0]][:, :most] if size[0] > 0 else U[:, :0]
        if U.shape[1] >= p:
            return
        B = self.coupling()
        kept = U.T @ B
        self._drop_coupling(column_lengths(B - U @ kept))
        rotate(self.rows[m : m + p], U)
        self.p = r = U.shape[1]
        self.T[m : m + r, :m] = kept
        self.T[:m, m : m + r] = kept.T
        self.clean = m + r

    @property
    def asymmetry(self) -> float:
        """Measured asymmetry of the products, 0 where it is no more than rounding."""
        return self.noise if self.noise > 16 * ROUNDING * self.eps * self.scale else 0.0

    @property
    def unit(self) -> float:
        """Power of two by which stored products have to be multiplied."""
        return 2.0**self.exponent


def _whitening(gram: Floats) -> Floats:
    """Return a triangular R with ``R gram R' = I``; where rows are linearly dependent, the
    symmetric inverse square root with eigenvalues raised to rounding level.
    """
    try:
        return np.linalg.inv(np.linalg.cholesky(gram))
    except np.linalg.LinAlgError:
        found = eigh(gram)
        floor = len(gram) * np.finfo(float).eps * max(float(found.values[-1]), 0.0)
        return (found.vectors / np.sqrt(np.maximum(found.values, floor))) @ found.vectors.T


LONGEST_BATCH = 16
BLOCK_BYTES = 64 << 20
SMALL = 1e-2  # relative to the largest product
# products with entries within 2 to the power of +- this are not scaled: their squares, and those of
# numbers n times as large, are in range
WINDOW = {"float64": 300, "float32": 30}
NOT_FINITE = (
    "the operator returned values that are not finite; wanted finite numbers for a finite vector"
)


class Recurrence(State):
    """A Lanczos basis that grows by products and shrinks by restarts.

    Parameters
    ----------
    op : LinearOperator, shape (n, n)
        Real symmetric. ``op.product(v, out)`` is used if it exists.
    max_basis : int
        Largest number of rows; memory is ``(max_basis + 1) n`` numbers, and another p n for blocks
        of p.
    against : ndarray, shape (s, n), optional
        Orthonormal rows; the operator is then ``(I - P) A (I - P)``, with P the projection on their
        span.
    rows : ndarray, shape (at least max_basis + 1, n), optional
        Memory for the basis; `reserve` must then not be called.
    contamination : float, optional
        How far orthogonality may be lost within a batch before it is restored; default
        ``sqrt(eps)``.
    semi : bool
        Whether T alone is wanted: the rows are then orthonormal to `contamination` only, and there
        is no restart.
    """

    @property
    def full(self) -> bool:
        """True if there is no room for the next step; the first block may fill the basis."""
        return (
            self.m > 0
            and self.capacity < self.dimension
            and self.m + 2 * self.p > self.capacity + 1
        )

    def step(self) -> None:
        """Multiply the next block: after p products the basis has p more rows and a new next
        block.
        """
        if self.p == 1:
            self._step_single()
        else:
            self._step_block()

    def apply(self, i: int, out: Array) -> None:
        """Compute ``out = A q_i / unit`` and count the product; components along `against` are
        moved from out to `leak`.
        """
        check_time()
        v = self.rows[i]
        with self.around:
            self._product(v, out)
        self.n_products += 1
        self._bring_into_range(out)
        if len(self.against):
            along = self.unit * orthogonalise(self.against, out[None], passes=1)[0]
            self.leak[:, i] = along
            self.noise = max(self.noise, self.eps * length(along))  # left in out

    def _bring_into_range(self, W: Array) -> None:
        """Divide products by the unit, which is chosen at the first product that is not zero."""
        if self.scale == 0:
            self._choose_unit(W)
        if self.exponent:
            W *= self.dtype.type(2.0**-self.exponent)

    def _choose_unit(self, W: Array) -> None:
        largest = float(np.abs(W).max(initial=0.0))
        if not np.isfinite(largest):
            raise ValueError(NOT_FINITE)
        window = WINDOW[self.dtype.name]
        exponent = int(np.frexp(largest)[1]) if largest else 0
        most = 4 * window - 2 if window < 100 else 1000  # so that 2^-exponent is representable
        self.exponent = 0 if abs(exponent) <= window else max(-most, min(exponent, most))

    def _apply_block(self, m: int, p: int) -> Array:
        """Return the products with rows ``m .. m+p-1``, computed together if that takes little
        memory.
        """
        W = np.empty((p, self.n), self.dtype)
        if W.nbytes > BLOCK_BYTES or len(self.against):
            units = []
            for i, w in enumerate(W):
                self.apply(m + i, w)
                units.append(self.exponent)
            for w, exponent in zip(W, units):
                if exponent != self.exponent:
                    w *= self.dtype.type(2.0 ** (exponent - self.exponent))
            return W
        V = self.rows[m : m + p].T
        with self.around:
            W[...] = times(self.op, V if hasattr(self.op, "product") else np.ascontiguousarray(V)).T
        self.n_products += p
        self._bring_into_range(W)
        return W

    def _step_single(self) -> None:
        j, low = self.m, self.reach
        w = self.rows[j + 1]
        self.apply(j, w)
        c, beta = self._take_out(j, low, w)
        if not math.isfinite(beta):  # too large for the unit, or not a number
            self.scale, scale = 0.0, self.scale
            self.exponent = 0
            try:
                self.apply(j, w)
            finally:
                self.scale = scale
            c, beta = self._take_out(j, low, w)
        local, size = self.rows[low : j + 1], length(c)
        if not math.isfinite(self.unit * (size + beta)):
            raise ValueError(NOT_FINITE)
        if beta <= 0.1 * size or len(local) > 2:
            again = project(local, w[None])[0]
            subtract(local, w[None], again[None])
            beta = norm(w)
            c[-1] += again[-1]
        gap = self._couple(low, j, self.unit * c[:-1])
        self.scale = max(self.scale, self.unit * math.hypot(size, beta))
        self.noise = max(self.noise, length(gap), ROUNDING * self.eps * self.scale)
        self.T[j, j] = self.unit * c[-1]
        self.err[j] = self.noise
        self._close_single(j, low, w, self.unit * beta)

    def _take_out(self, j: int, low: int, w: Array) -> tuple[Floats, float]:
        """Subtract from `w` its projection on the rows from `low` on, and on locked rows; return
        the coefficients and the norm left, both divided by `unit`.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            if low > 0 and self.locked:
                locked = orthogonalise(self.rows[: min(self.locked, low)], w[None], passes=1)[0]
                self.T[: len(locked), j] = self.T[j, : len(locked)] = self.unit * locked
            local = self.rows[low : j + 1]
            c = project(local, w[None])[0]
            return c, float(subtract(local, w[None], c[None])[0]) ** 0.5

    def _couple(self, low: int, j: int, c: Floats) -> Floats:
        """Return the coupling of row j to the rows from `low` on as the products measure it, less
        that in T: rounding, or asymmetry. With locked rows and `low` 0, the measured coupling is
        stored in T first.
        """
        if low == 0 and self.locked:
            self.T[:j, j] = self.T[j, :j] = c
        return c - self.T[low:j, j]

    def _close_single(self, j: int, low: int, w: Array, beta: float) -> None:
        """Make `w` the next row, or end the recurrence if nothing but rounding is left of it."""
        if beta <= 30 * self.noise and self.clean:
            self.reorthogonalise(j + 1)
            orthogonalise(self.rows[: j + 1], w[None])
            beta = self.unit * norm(w)
        self.m, self.p, self.reach = j + 1, 0, j
        if beta <= 3 * self.noise or j + 1 >= self.dimension:
            self.err[j] += beta if j + 1 < self.dimension else 0.0
            self.clean = min(self.clean, self.m)
            self.reorthogonalise()
            return
        w /= self.dtype.type(beta / self.unit)
        if len(self.against) and beta <= SMALL * self.scale:  # rounding along them was scaled up
            orthogonalise(self.against, w[None], passes=1)
        self.T[j, j + 1] = self.T[j + 1, j] = beta
        self.p = 1
        self._expect(j, low, beta)
        if self._lost > self.contamination or j + 2 - self.clean >= LONGEST_BATCH or j < 2:
            self.reorthogonalise()

    def _expect(self, j: int, low: int, beta: float) -> None:
        """Estimate the loss of orthogonality of row j+1, and restore it now if the next step could
        pass the limit.

        The components of rows j-1 and j along earlier rows satisfy the same recurrence as the
        vectors (Simon 1984), plus rounding at each step. The estimate only decides when to
        reorthogonalise: the loss itself is then measured.
        """
        end = j + 1
        T = self.T[:end, :end]
        before, now = self._along or self._along_clean(j)
        back = T[j - 1, j] if j else 0.0
        spread = self.noise / (beta * end**0.5)
        ahead = np.zeros_like(now)
        following = ahead[:end]
        following[...] = (T @ now[:end] - T[j, j] * now[:end] - back * before[:end]) / beta
        following += np.copysign(spread, following)
        following[low:] = spread
        lost, most = length(following), (self.scale + abs(T[j, j])) / beta
        growth = min(lost / self._lost, most) if self._lost else most
        self._lost = np.inf if lost * growth > self.contamination else lost
        ahead[end] = 1.0
        self._along = now, ahead

    def _along_clean(self, j: int) -> tuple[Floats, Floats]:
        """Return the components of rows j-1 and j along rows up to j, if all are orthonormal to
        rounding; zeros for the rows to come.
        """
        before, now = np.zeros((2, len(self.T) + 1))
        before[: j + 1] = now[: j + 1] = self.eps / (j + 1) ** 0.5
        now[j] = before[j - 1] = 1.0
        return before, now

    def _step_block(self) -> None:
        m, p = self.m, self.p
        k = m + p
        W = self._apply_block(m, p)
        sizes = [self.unit * norm(w) for w in W]
        if not np.isfinite(sizes).all():
            raise ValueError(NOT_FINITE)
        self.scale = max(self.scale, *sizes)
        C = self.unit * orthogonalise(self.rows[:k], W)
        inner = C[:, m:]
        seen = [length(row) for row in (C[:, :m] - self.T[m:k, :m])[:, self.locked :]]
        seen += [length(row) for row in inner - inner.T]  # asymmetry, or rounding
        self.noise = max([self.noise, ROUNDING * self.eps * self.scale, *seen])
        self.T[m:k, m:k] = (inner + inner.T) / 2
        if self.locked:
            self.T[m:k, : self.locked] = C[:, : self.locked]
            self.T[: self.locked, m:k] = C[:, : self.locked].T
        floor = 3 * self.noise / self.unit
        B, dropped = orthonormalise(W, floor=floor, against=self.rows[:k])
        if len(self.against):
            orthogonalise(self.against, W[: len(B)], passes=1)
        self.err[m:k] = self.noise + self.unit * dropped
        r = min(len(B), self.dimension - k, self.capacity + 1 - k)
        B = self.unit * (self._most_of(B, W, r) if r < len(B) else B)
        self.rows[k : k + r] = W[:r]
        self.T[k : k + r, m:k] = B
        self.T[m:k, k : k + r] = B.T
        self.m, self.p, self.clean, self.reach = k, r, k + r, m
        self.tridiagonal = False
        self._forget_loss()

    def _most_of(self, B: Floats, W: Array, r: int) -> Floats:
        """Rotate the block `W` so that its first r rows carry most of ``B' W``, and return the
        coupling to them; the rest is added to err.
        """
        k = self.m + self.p
        U = svd(B)[0][:, :r]
        kept = U.T @ B
        lost = self.unit * column_lengths(B - U @ kept)
        rotate(W[: len(B)], U)
        self.err[self.m : k] += lost
        if self.capacity < self.dimension and lost.max(initial=0.0) > 10 * self.noise:
            self.locked = k
        return kept


# --------------------------------------------------------------------------------------------------
# Memory of a basis, kept for the next run on the same operator.
#
# The first write to a page makes the operating system find and clear it, which for each row of a
# large basis takes a tenth of a product and at times more than one. The memory of a run is kept as
# long as its operator lives, and no longer.

LEAST, MOST = 1 << 20, 1 << 30  # bytes: the least that is worth keeping, the most that is kept
_held: WeakKeyDictionary[Any, np.ndarray] = WeakKeyDictionary()


@contextmanager
def held_rows(op: Any, shape: tuple[int, int], dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield uninitialised rows of that shape, reusing those of the last run on `op` if they are
    large enough.

    While in use they are not shared: another thread gets memory of its own.
    """
    try:
        rows = _held.pop(op, None)
    except TypeError:  # cannot be a key
        rows = None
    if rows is None or rows.dtype != dtype or rows.shape[1] != shape[1] or len(rows) < shape[0]:
        rows = np.empty(shape, dtype)
    try:
        yield rows
    finally:
        if LEAST <= rows.nbytes <= MOST:
            with suppress(TypeError):
                _held[op] = rows
