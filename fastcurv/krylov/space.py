"""A Krylov space that grows one product at a time.

Every Newton-type step of this library is a step ``s = Q y`` in the space spanned by the gradient g
and its products with H; the methods differ only in the small problem that picks y, see
`subproblems`. With the basis kept, a problem with another radius, damping or weight is solved again
for no product at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..protocols import Array, Floats
from ..singular import svd
from ..vectors import norm
from .basis import Basis, bring_near_one, length, project, subtract
from .ritz import decompose
from .subproblems import damped_inverse


class KrylovSpace(Basis):
    """Orthonormal rows Q, with the exact projection ``T = Q H Q'`` of those already multiplied.

    Rows ``[0, m)`` have been multiplied; the ``p`` rows after them are pending: they are what the
    products so far have that Q's first m rows lack, so

        H Q' y = Q[:m]' T y + Q[m:m+p]' (E y)         E = T[m:m+p, :m]

    and ``||E y||`` is the exact residual of any solution in the space. With one start vector this
    is Lanczos with full reorthogonalisation; with more, the space is expanded by the residual of
    the last solution.

    Parameters
    ----------
    n : int
        Length of the vectors.
    dtype : dtype
        Of the basis; T is kept in float64.
    max_dim : int
        The space never holds more rows than this, so memory is at most ``max_dim * n`` numbers;
        rows are allocated as they are needed and kept for the next `start`.
    """

    multiply: Any
    _n_starts: int
    _lacking: Any
    _follow: bool
    _ritz: tuple[np.ndarray, np.ndarray]

    def __init__(self, n: int, dtype: Any, max_dim: int) -> None:
        self.n, self.dtype = int(n), np.dtype(dtype)
        self.max_dim = int(min(max_dim, n))
        self.rows = np.empty((min(self.max_dim, 16), self.n), self.dtype)
        self.T = np.zeros((len(self.rows),) * 2)
        self.product = np.empty(self.n, self.dtype)
        self._scratch = np.empty(self.n, self.dtype)
        self.m = self.p = 0
        self.gamma = 0.0
        self._ritz_at = -1

    def start(self, multiply: Any, first: np.ndarray, others: Any = ()) -> None:
        """Empty the space and give it its start vectors; `first` leads, those that add nothing are
        left out.

        `multiply(v, out)` writes H v; `gamma` becomes ``||first||``.
        """
        self.multiply = multiply
        self.m = self.p = 0
        self._ritz_at = -1
        self.gamma = norm(first)
        for vector in (first, *others):
            np.copyto(self.product, vector, casting="same_kind")
            bring_near_one(self.product[None])
            self._append(self.product, norm(self.product), np.zeros(self.p))
        self._n_starts, self.tridiagonal = self.p, self.p == 1
        self._lacking, self._follow = None, False

    @property
    def exhausted(self) -> bool:
        """No direction is left to multiply, or there is no room for what comes of it."""
        return self.p == 0 or self.m + self.p >= self.max_dim < self.n

    def _orthogonalise(self, w: np.ndarray, coefficients: np.ndarray) -> float:
        """Take Q out of `w` in place, twice if the first time took most of it; add what was
        taken.
        """
        held = self.m + self.p
        basis = self.rows[:held]
        before = norm(w)
        after = before
        for _ in range(3):
            taken = project(basis, w[None])
            square = subtract(basis, w[None], taken)
            coefficients[:held] += taken[0]
            after, before = float(np.sqrt(square[0])), after
            if after > 0.7 * before:
                break
        return after

    def _append(self, w: np.ndarray, reference: float, coefficients: np.ndarray) -> float:
        """Take Q out of `w` in place; what is left, if more than the rounding of `reference`,
        becomes pending.

        Returns the norm of what was left, 0.0 where that was rounding or there is no room.
        """
        held = self.m + self.p
        left = self._orthogonalise(w, coefficients)
        kind = np.finfo(self.dtype)
        rounding = max(10 * kind.eps * reference, kind.tiny / kind.eps)  # or what underflow left
        if held >= self.max_dim or not left > rounding:
            return 0.0
        if held == len(self.rows):
            self.widen(min(held, self.max_dim - held))
        np.multiply(w, self.dtype.type(1.0 / left), out=self.rows[held])
        self.T[held, :] = 0.0
        self.T[:, held] = 0.0
        self.p += 1
        return left

    def extend(self) -> None:
        """Multiply a pending row: the start vectors first, then where the last solution lacks most.

        One product.
        """
        m = self.m
        if m >= self._n_starts and self.p > 1:
            self._choose_next()
        w = self.product
        self.multiply(self.rows[m], w)
        exponent = bring_near_one(w[None])[0]
        coefficients = np.zeros(m + self.p)
        size = norm(w)
        if self.p == 1 and m:
            beta = np.ldexp(self.T[m, m - 1], -exponent)
            np.multiply(self.rows[m - 1], self.dtype.type(beta), out=self._scratch)
            w -= self._scratch
            coefficients[m - 1] = beta
        held = m + self.p
        left = np.ldexp(self._append(w, size, coefficients), exponent)
        coefficients = np.ldexp(coefficients, exponent)
        if self.tridiagonal:
            coefficients[: max(m - 1, 0)] = 0.0  # rounding: T is tridiagonal
        self.T[:held, m] = coefficients
        self.T[m, :held] = coefficients
        if left > 0:
            self.T[held, m] = self.T[m, held] = left
        self.m, self.p = m + 1, self.p - 1

    def _choose_next(self) -> None:
        """Put first, of the pending rows, what the last solution lacks; then the chain that began
        there; else the heaviest.
        """
        m, pending = self.m, slice(self.m, self.m + self.p)
        if self._lacking is not None and np.any(self._lacking):
            self._reflect(self._lacking)
            self._follow = True
        elif self._follow:
            self._bring_forward(m + self.p - 1)
        else:
            self._bring_forward(m + int(np.argmax(np.linalg.norm(self.T[pending, :m], axis=1))))
        self._lacking = None

    def _reflect(self, lacking: np.ndarray) -> None:
        """A Householder reflection of the pending rows that turns ``lacking' rows`` into a multiple
        of the first.
        """
        m, pending = self.m, slice(self.m, self.m + self.p)
        u = lacking / np.linalg.norm(lacking)
        u[0] += np.copysign(1.0, u[0])
        u *= np.sqrt(2.0) / np.linalg.norm(u)
        rows = self.rows[pending]
        rows -= np.multiply.outer(u, u @ rows).astype(self.dtype, copy=False)
        block = self.T[pending, :m]
        block -= np.multiply.outer(u, u @ block)
        self.T[:m, pending] = block.T

    def _bring_forward(self, chosen: int) -> None:
        m = self.m
        if chosen == m:
            return
        self._scratch[:] = self.rows[m]
        self.rows[m] = self.rows[chosen]
        self.rows[chosen] = self._scratch
        for axis_view in (self.T, self.T.T):
            axis_view[[m, chosen]] = axis_view[[chosen, m]]

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (ascending) and eigenvectors of T; kept until the space grows."""
        if self._ritz_at != self.m:
            self._ritz, self._ritz_at = decompose(self), self.m
        return self._ritz

    def linear_term(self) -> np.ndarray:
        """``U' Q g``: the gradient in the eigenvectors of T. g is gamma times the first row."""
        return np.asarray(self.gamma * self.ritz()[1][0])

    def residual(self, y: np.ndarray) -> float:
        """``||E y||``: what ``H Q' y`` has outside of the space; `y` in the basis Q.

        Steers `extend`.
        """
        lacking = self.coupling() @ y
        if self.p > 1:
            self._lacking = lacking
        return length(lacking)

    def combine(self, y: np.ndarray, out: Array | None = None) -> np.ndarray:
        """``Q' y``, a vector of length n."""
        out = np.empty(self.n, self.dtype) if out is None else out
        out[:] = 0.0
        subtract(self.rows[: self.m], out[None], -np.asarray(y, np.float64)[None])
        return out

    def lowest(self) -> tuple[float, float, np.ndarray]:
        """The lowest Ritz value, its residual and its coefficients."""
        values, vectors = self.ritz()
        u = vectors[:, 0]
        return float(values[0]), length(self.coupling() @ u), u


def least_residual(basis: Basis, gamma: float, damping: float = 0.0) -> tuple[Floats, Floats]:
    """Y of least norm that minimises ``||H Q' y + g||^2 + damping^2 ||y||^2``, ``g = gamma Q[0]``,
    and the residual.

    The residual is in the rows of the space, multiplied and pending. One singular value
    decomposition of the projected matrix; no product.
    """
    tall = basis.tall()
    W, s, Vt = svd(tall)
    y = -(Vt.T @ (gamma * W[0] * damped_inverse(s, damping, 1e-12 * s[0])))
    residual = tall @ y
    residual[0] += gamma
    return y, residual
