"""One layer's part of a vector in coordinates, and what the passes do with it.

A layer offers four things, each in coordinates x of its own: ``forward(x) = a V' + vb``,
``back(x) = delta V``, ``gradient(rdelta, ra)``, the coordinates of ``rdelta' a + delta' ra``, and
the isometry ``embed(x) = (V, vb)`` with its transpose ``project``. `Whole` takes V as it is;
`Rotated` keeps only the part of V that products can reach, in orthonormal coordinates. The
mathematics is at the head of `fastcurv.network.sample_space`.

Matrices with a row for each sample lie in memory column by column, the numbers of one unit side by
side, so that the engine's products read W and V as they lie and pack the smaller factor; `rows`
makes one. `M` is a `Scratch`: ``M(out, A, B, add)`` is ``out = [out +] A B``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import qr, solve_triangular

from .. import _engine
from ..protocols import Array

ROWS = 512  # of V that `embed` and `project` turn at a time: what they need beside V itself


class Scratch:
    """The engine's products of matrices as they lie, and the memory of what passes make: where a
    pass asks for matrices of the same shapes as the last one it gets the same ones. A page that is
    written to for the first time has to be found and cleared, a seventh of a product in all.

    One caller at a time; what a pass made is overwritten by the next, which `begin` starts.
    """

    def __init__(self, dtype: Any, threads: int | None) -> None:
        self.dtype = np.dtype(dtype)
        self.multiply = _engine.Multiplier(dtype, threads or _engine.default_threads())
        self._kept: dict[tuple[int, int], list[Array]] = {}
        self._taken: dict[tuple[int, int], int] = {}

    def __call__(self, out: Array, A: Array, B: Array, add: bool = False) -> None:
        """``out = [out +] A B``."""
        self.multiply(out, A, B, add)

    def begin(self) -> None:
        """All that was handed out is free again."""
        self._taken.clear()

    def empty(self, N: int, width: int) -> Array:
        """A matrix (N, width) of any content, a column's numbers side by side."""
        shape = N, width
        kept, at = self._kept.setdefault(shape, []), self._taken.get(shape, 0)
        if at == len(kept):
            kept.append(np.empty((width, N), self.dtype).T)
        self._taken[shape] = at + 1
        return kept[at]


def rows(M: Scratch, A: Array, B: Array) -> Array:
    """``A B`` (N, w) with a row for each sample, as such matrices lie here."""
    out = M.empty(A.shape[0], B.shape[1])
    M(out, A, B)
    return out


def _blocks(m: int) -> list[slice]:
    return [slice(i, min(i + ROWS, m)) for i in range(0, m, ROWS)]


class Reflectors:
    """The orthogonal ``Q = I - Y T Y'`` (k, k) whose first r columns span the rows of A (N, k), r =
    min(N, k): ``A = [L, 0] Q'``.

    Householder's, so Q is orthogonal to rounding and holds every row of A whatever A's rank: rows
    that are equal, or zero, need no threshold. Cost: 4 N k r flops once, 4 k r for each row
    multiplied by Q.
    """

    def __init__(self, A: Array) -> None:
        (packed, tau), R = qr(np.asarray(A.T, dtype=np.float64), mode="raw", check_finite=False)
        k, N = packed.shape
        self.r, dtype = min(N, k), A.dtype
        Y = np.tril(packed[:, : self.r], -1)
        Y[np.arange(self.r), np.arange(self.r)] = 1.0
        idle = tau == 0  # columns that were there already: no reflection
        Y[:, idle] = 0.0
        inverse = np.triu(Y.T @ Y, 1)  # of T
        inverse[np.arange(self.r), np.arange(self.r)] = np.where(idle, 1.0, 1 / (tau + idle))
        self.Y = np.ascontiguousarray(Y, dtype=dtype)
        YT = solve_triangular(inverse, Y.T, trans="T", check_finite=False).T
        self.YT = np.ascontiguousarray(YT, dtype=dtype)
        self.minus_YT, self.minus_Y = -self.YT, -self.Y
        self.L = np.ascontiguousarray(R[: self.r].T, dtype=dtype)

    def astype(self, dtype: Any) -> Reflectors:
        """The same numbers in another precision."""
        other = object.__new__(Reflectors)
        other.r = self.r
        for name in ("Y", "YT", "minus_Y", "minus_YT", "L"):
            setattr(other, name, getattr(self, name).astype(dtype))
        return other

    def turn(self, M: Scratch, A: Array) -> Array:
        """``A Q`` (N, k) for a matrix with a row for each sample."""
        out = M.empty(*A.shape)
        out[...] = A
        M(out, rows(M, A, self.YT), self.minus_Y.T, True)
        return out

    def right(self, M: Array) -> Array:
        """``M Q`` for rows M (m, k)."""
        return np.asarray(M - (M @ self.YT) @ self.Y.T)

    def right_transposed(self, M: Array) -> Array:
        """``M Q'``."""
        return np.asarray(M - (M @ self.Y) @ self.YT.T)

    def thin(self) -> Array:
        """The first r columns of Q, (k, r)."""
        U = -self.YT @ self.Y[: self.r].T
        U[np.arange(self.r), np.arange(self.r)] += 1
        return np.asarray(U)


class Whole:
    """A layer as it is: coordinates are V and vb, row-major."""

    def __init__(self, a: Any, delta: Array, bias: bool) -> None:
        self.a, self.delta, self.bias = a, delta, bias
        self.out, self.width = delta.shape[1], a.shape[1]
        self.weights = self.out * self.width
        self.size = self.weights + self.out * bias
        self.rest = 0  # dimensions of V that no product reaches

    def astype(self, dtype: Any) -> Whole:
        """The same layer in another precision."""
        return Whole(self.a.astype(dtype), self.delta.astype(dtype), self.bias)

    def split(self, x: Array) -> tuple[Array, Array | None]:
        """V and vb of coordinates, views."""
        V = x[: self.weights].reshape(self.out, self.width)
        return V, x[self.weights :] if self.bias else None

    def forward(self, M: Scratch, x: Array) -> Array:
        """``a V' + vb`` (N, out)."""
        V, vb = self.split(x)
        rz = self._times(M, V)
        if vb is not None:
            rz += vb
        return rz

    def back(self, M: Scratch, x: Array, out: Array) -> None:
        """Add ``delta V`` to `out` (N, in)."""
        M(out, self.delta, self.split(x)[0], True)

    def gradient(self, M: Scratch, rdelta: Array, ra: Array | None, out: Array) -> None:
        """``rdelta' a + delta' ra`` and the sum of rdelta's rows, into `out`."""
        V, vb = self.split(out)
        self._sum(M, rdelta, V)
        if ra is not None:
            M(V, self.delta.T, ra, True)
        if vb is not None:
            rdelta.sum(axis=0, out=vb)

    def _times(self, M: Scratch, V: Array) -> Array:
        """``a V'``."""
        return rows(M, self.a, V.T)

    def _sum(self, M: Scratch, rdelta: Array, out: Array) -> None:
        """``rdelta' a`` into `out`."""
        M(out, rdelta.T, self.a)

    def embed(self, x: Array, V: Array, vb: Array | None) -> None:
        """The part of the parameters ``V (out, in)`` and ``vb`` for coordinates x."""
        M, mb = self.split(x)
        V[...] = M
        if vb is not None:
            vb[...] = mb

    def project(self, V: Array, vb: Array | None, out: Array) -> None:
        """The coordinates of ``V`` and ``vb``: the transpose of `embed`."""
        M, mb = self.split(out)
        M[...] = V
        if mb is not None:
            mb[...] = vb


class Rotated:
    """A layer in the coordinates that products can reach: ``C1 = V Q_a1 (out, r)``, then, with
    `pairs`, ``C2 = Q_d1' V Q_a2 (s, in - r)``, then vb.

    `pairs` is False where there is no ra: in the first layer, and for the GGN everywhere.
    """

    r: int
    s: int
    first: int
    weights: int
    size: int
    rest: int

    def __init__(self, a: Array, delta: Array, bias: bool, pairs: bool) -> None:
        self.inputs = Reflectors(a)
        self.errors = Reflectors(delta) if pairs else None
        self.delta, self.bias = delta, bias
        self.out, self.width = delta.shape[1], a.shape[1]
        self._measure()

    def _measure(self) -> None:
        self.r = self.inputs.r
        self.s = 0 if self.errors is None else self.errors.r
        self.first = self.out * self.r
        self.weights = self.first + self.s * (self.width - self.r)
        self.size = self.weights + self.out * self.bias
        self.rest = (self.out - self.s) * (self.width - self.r)

    def astype(self, dtype: Any) -> Rotated:
        """The same coordinates in another precision."""
        other = object.__new__(Rotated)
        other.__dict__.update(self.__dict__)
        other.inputs, other.delta = self.inputs.astype(dtype), self.delta.astype(dtype)
        other.errors = None if self.errors is None else self.errors.astype(dtype)
        return other

    def _split(self, x: Array) -> tuple[Array, Array, Array | None]:
        return (
            x[: self.first].reshape(self.out, self.r),
            x[self.first : self.weights].reshape(self.s, self.width - self.r),
            x[self.weights :] if self.bias else None,
        )

    def forward(self, M: Scratch, x: Array) -> Array:
        """``a V' + vb = L C1' + vb``."""
        C1, _, vb = self._split(x)
        rz = rows(M, self.inputs.L, C1.T)
        if vb is not None:
            rz += vb
        return rz

    def back(self, M: Scratch, x: Array, out: Array) -> None:
        """Add ``delta V = [delta C1, D C2] Q_a'`` to `out`."""
        assert self.errors is not None
        C1, C2, _ = self._split(x)
        Z = M.empty(len(self.delta), self.width)
        M(Z[:, : self.r], self.delta, C1)
        M(Z[:, self.r :], self.errors.L, C2)
        out += Z
        M(out, rows(M, Z, self.inputs.Y), self.inputs.minus_YT.T, True)

    def gradient(self, M: Scratch, rdelta: Array, ra: Array | None, out: Array) -> None:
        """``[G, F] = ra Q_a;  C1 = rdelta' L + delta' G;  C2 = D' F;  vb = sum of rdelta's rows``,
        into `out`.
        """
        C1, C2, vb = self._split(out)
        M(C1, rdelta.T, self.inputs.L)
        if self.errors is not None and ra is not None:
            turned = self.inputs.turn(M, ra)
            M(C1, self.delta.T, turned[:, : self.r], True)
            M(C2, self.errors.L.T, turned[:, self.r :])
        if vb is not None:
            rdelta.sum(axis=0, out=vb)

    def embed(self, x: Array, V: Array, vb: Array | None) -> None:
        """``V = [C1, Q_d1 C2] Q_a'``, as `Whole.embed`."""
        C1, C2, xb = self._split(x)
        U = None if self.errors is None else self.errors.thin()
        for rows in _blocks(self.out):
            V[rows, : self.r] = C1[rows]
            V[rows, self.r :] = 0.0 if U is None else U[rows] @ C2
            V[rows] -= (V[rows] @ self.inputs.Y) @ self.inputs.YT.T
        if vb is not None:
            vb[...] = xb

    def project(self, V: Array, vb: Array | None, out: Array) -> None:
        """The transpose of `embed`."""
        C1, C2, xb = self._split(out)
        U = None if self.errors is None else self.errors.thin()
        C2[...] = 0.0
        for rows in _blocks(self.out):
            turned = self.inputs.right(V[rows])
            C1[rows] = turned[:, : self.r]
            if U is not None:
                C2 += U[rows].T @ turned[:, self.r :]
        if xb is not None:
            xb[...] = vb

    def outside(self, j: int) -> tuple[Array, Array]:
        """``(x, y)``: ``x y'`` is the j-th of `rest` orthonormal matrices out of reach."""
        i, k = divmod(j, self.width - self.r)
        e = np.zeros((1, self.width), self.delta.dtype)
        e[0, self.r + k] = 1
        y = self.inputs.right_transposed(e)[0]
        x = np.zeros((1, self.out), self.delta.dtype)
        x[0, self.s + i] = 1
        return (x if self.errors is None else self.errors.right_transposed(x))[0], y
