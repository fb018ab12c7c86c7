"""The state of a Lanczos run: a basis kept orthonormal to rounding, the next block, the operator
in that basis; how it starts, is made orthogonal again, and shrinks. `lanczos` says what they mean
and makes it grow.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ..checks import operator_dtype
from ..eigensolver import eigh
from ..protocols import Array, Floats, Indices
from ..singular import svd
from .basis import (
    Basis,
    as_product,
    bring_near_one,
    column_lengths,
    orthogonalise,
    orthonormalise,
    project,
    rotate,
    rotate_unless,
    subtract,
)

# products and sweeps are taken to be wrong by this many eps ||A||, where nothing larger shows
ROUNDING = 4.0


class State(Basis):
    """What `Recurrence` knows; its parameters are said there."""

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
    ) -> None:
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
        self.aside = 0  # how many rows of `against`, the last, are blocks set aside
        self.reset()
        self.n_products = 0
        self.scale = self.noise = self.ghosts = 0.0
        self.exponent = 0  # products are worked on at 2^-exponent of their size; T is not scaled
        self._product = as_product(op)
        # of every product: where Ctrl-C may end it
        self.around: AbstractContextManager[None] = nullcontext()

    def reserve(self, max_basis: int) -> None:
        """Room for up to `max_basis` rows; what is there stays."""
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
        """Forget the basis; keep the count, the scale and the noise."""
        self._aside()
        self.m = self.p = self.clean = self.reach = self.locked = 0
        self.tridiagonal = True
        self.T[...] = 0
        self.err[...] = 0

    def insert(self, W: Array) -> int:
        """Make the rows `W (p, n)`, overwritten, the next block; returns how many independent ones
        there were.

        What coupled the basis to the block that was next is dropped, and goes into err.
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
        """Make p random vectors the next block."""
        p = max(1, min(p, self.dimension - self.m, self.capacity + 1 - self.m))
        for _ in range(5):
            if self.insert(rng.standard_normal((p, self.n), dtype=self.dtype)):
                return self.p
        return 0

    def drop_block(self) -> None:
        """Forget the next block; its coupling to the basis becomes part of err."""
        self.reorthogonalise()
        if self.p:
            self._drop_coupling(column_lengths(self.coupling()))
        self.p = 0

    def _drop_coupling(self, lost: Floats) -> None:
        """Of the coupling to the next block so much of each column becomes part of err, and nothing
        stays in T. Where that is more than rounding, later vectors still couple to what is there:
        keep measuring it.
        """
        self.err[: self.m] += lost
        if lost.max(initial=0.0) > 10 * self.noise:
            self.locked = self.m
        self.T[self.m :, :] = 0
        self.T[:, self.m :] = 0

    def set_aside(self) -> None:
        """Set the next block aside: what comes after is orthogonal to it, and what products have
        along it is measured.

        A start in the complement of the basis and of that block then meets nothing of the basis:
        a Krylov space of its own, in which the operator has all that the basis missed.
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
        """Put what was set aside behind the next block, where there is room for it."""
        self.reorthogonalise()
        rows, along = self._aside()
        first, end = self.m + self.p, self.m + self.p + len(rows)
        self.rows[first:end] = rows
        self.T[first:end, : self.m] = along[:, : self.m]
        self.T[: self.m, first:end] = along[:, : self.m].T
        self.p, self.clean, self.tridiagonal = self.p + len(rows), end, False

    def drop_aside(self) -> None:
        """Forget what was set aside; the coupling to it becomes part of err."""
        self._drop_coupling(column_lengths(self._aside()[1][:, : self.m]))

    def _aside(self) -> tuple[Array, Floats]:
        """What was set aside, and the coupling to it, which are no longer."""
        kept = len(self.against) - self.aside
        rows, along = self.against[kept:], self.leak[kept:]
        self.against, self.leak = self.against[:kept], self.leak[:kept]
        self.aside, self.dimension = 0, self.dimension + self.aside
        return rows, along

    def _forget_loss(self) -> None:
        """Rows are orthonormal to rounding from here on."""
        self._lost = 0.0
        self._along = None

    def reorthogonalise(self, multiplied: int | None = None) -> None:
        """Restore the orthogonality of the rows after `clean`, the next block included; the first
        `multiplied` rows, m by default, have their products in T.
        """
        end = self.m + self.p
        if self.clean < end:
            Q, P = self.rows[: self.clean], self.rows[self.clean : end]
            for _ in range(3):
                # what the three-term recurrence leaves along deflated vectors grows from step to
                # step as any other loss
                orthogonalise(self.against, P, passes=1)
                C = project(Q, P)
                subtract(Q, P, C)
                measured = self.m if multiplied is None else multiplied
                self._take_back(C, measured)
                found = self._orthonormalise_batch(P, C, measured)
                if found <= 1e-3:
                    break
            self.clean = end
        self._forget_loss()

    def _take_back(self, C: Floats, end: int) -> None:
        """What rows had along clean ones, ``C``, is in what was measured with them: the coupling to
        locked rows and to `against`, which may be far more than what is lost elsewhere.
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

    def _orthonormalise_batch(self, P: Array, C: Floats, end: int) -> float:
        """Triangular correction within a batch; returns the largest impurity that was found."""
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
        if first and self.T[first, first - 1] and len(lost):
            # the first row came from clean ones: what it has along them the products put there,
            # against symmetry
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
        block. Where `stop` says so before it is done, only those with the indices `least` stay.
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
        """Keep of the next block only the directions that the columns of ``M (p, u)`` span, at most
        u or `most` of them.
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
        """What the products were seen to lack of symmetry, where that is more than rounding."""
        return self.noise if self.noise > 16 * ROUNDING * self.eps * self.scale else 0.0

    @property
    def unit(self) -> float:
        """What a number of a product as it is worked on stands for."""
        return 2.0**self.exponent


def _whitening(gram: Floats) -> Floats:
    """R with ``R gram R' = I``, triangular; where rows depend on each other, what comes nearest."""
    try:
        return np.linalg.inv(np.linalg.cholesky(gram))
    except np.linalg.LinAlgError:
        found = eigh(gram)
        floor = len(gram) * np.finfo(float).eps * max(float(found.values[-1]), 0.0)
        return (found.vectors / np.sqrt(np.maximum(found.values, floor))) @ found.vectors.T
