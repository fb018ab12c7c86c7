"""What the curvature of a loss is made of in each row, layer by layer, every matrix with a bound on
its error: K, C and S of `fastcurv.rounding.layered`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..eigensolver import UNIT, gamma_of
from ..protocols import Floats
from .arithmetic import Err, norm, norms
from .passes import GROWTH, Passes
from .state import State

TINY = 1e-300  # more than underflow takes off the norm of a matrix


def _size(x: Floats) -> Floats:
    """Frobenius norms of the matrices of each row, (rows,)."""
    found: Floats = np.sqrt(np.einsum("nij,nij->n", x, x))
    odd = ~((found > 1e-140) & (found < np.inf))
    if odd.any():
        found[odd] = norms(np.abs(x[odd]).reshape(int(odd.sum()), -1))[:, 0]
    return found


@dataclass(frozen=True, eq=False)
class Known:
    """A matrix for each row ``(rows, i, j)``, its Frobenius norm, and a bound on that of its error,
    ``(rows,)``.
    """

    x: Floats
    off: Floats
    size: Floats

    @classmethod
    def of(cls, x: Floats, off: Floats) -> Known:
        return cls(x, off, _size(x))


class Bend:
    """What phi does to rows of a hidden layer: phi' and e phi'', (rows, o), their largest and the
    errors of those, (rows,).
    """

    def __init__(self, s: State, l: int, cut: slice, curved: bool) -> None:
        phi, like = s.phi[l], s.z[l][cut]
        self.p = np.ones_like(like) if phi.p is None else phi.p[cut]
        dp = np.zeros_like(like) if phi.p is None else phi.dp.E[cut]
        self.top, self.off = np.abs(self.p).max(axis=1), dp.max(axis=1)
        self.spread = norms(dp)[:, 0]
        self.q = s.eq[l][cut] if curved and s.eq[l] is not None else None
        self.q_top = self.q_off = self.q_spread = np.zeros(len(like))
        if self.q is not None:
            dq = s.deq[l].E[cut]
            self.q_top, self.q_off = np.abs(self.q).max(axis=1), dq.max(axis=1)
            self.q_spread = norms(dq)[:, 0]


def inputs_of(s: State, cut: slice, bias: bool) -> tuple[list[Floats], list[Floats]]:
    """By layer: sizes of its inputs, errors included, and bounds on those."""
    sizes, offs = [], []
    for a, da in zip(s.a, s.da):
        off = np.zeros_like(a[cut]) if da is None else da.E[cut]
        size, one = np.abs(a[cut]) + off, np.ones((len(off), 1))
        sizes.append(np.hstack([size, one]) if bias else size)
        offs.append(np.hstack([off, 0 * one]) if bias else off)
    return sizes, offs


def of_loss(s: State) -> tuple[Floats, Floats]:
    """The loss'' of every row, (rows, o, o), and bounds on the norms of their errors."""
    like = s.z[-1]
    columns, error = [], np.zeros(len(like))
    for k in range(like.shape[1]):
        unit = np.zeros_like(like)
        unit[:, k] = 1.0
        column, off = s.loss.r_loss(unit, Err(np.zeros_like(like)))
        columns.append(column)
        error = np.hypot(error, off.nu[:, 0])
    return np.stack(columns, axis=2), error


class Slab:
    """Some rows of a state: a, delta, K, C, S and what they are off by."""

    def __init__(
        self, passes: Passes, s: State, loss: tuple[Floats, Floats], cut: slice, curved: bool
    ) -> None:
        self.passes = passes
        self.L, bias = len(passes.W), passes.ob.model.bias
        one = np.ones((len(s.z[0][cut]), 1))
        self.a = [np.hstack([a[cut], one]) if bias else a[cut] for a in s.a]
        self.A, self.dA = inputs_of(s, cut, bias)
        self.sizes = [norms(A)[:, 0] for A in self.A]
        self.offs = [norms(dA)[:, 0] for dA in self.dA]
        self.d = [d[cut] for d in s.d]
        self.dd = [dd.E[cut] for dd in s.dd]
        self.bends = [Bend(s, l, cut, curved) for l in range(self.L - 1)]
        self.loss = Known.of(loss[0][cut], loss[1][cut])
        self.C = self._curvature()

    def _curvature(self) -> list[Known]:
        """C above each hidden layer."""
        found: list[Known] = []
        for k in range(self.L - 1, 0, -1):
            W, w = self.passes.W[k].A, self.passes.W_norms[k]
            o, width = W.shape
            f, gamma = norm(W), gamma_of(2 * o + 4)
            if k == self.L - 1:
                inner, P = self.loss, np.broadcast_to(W, (len(self.loss.x), *W.shape))
                top, off = np.full(len(inner.off), w), np.zeros(len(inner.off))
                size = np.full(len(inner.off), f)
            else:
                b, skip = self.bends[k], float(self.passes.skips[k])
                inner, P = found[-1], b.p[:, :, None] * W
                if skip:
                    P[:, np.arange(o), np.arange(o)] += 1.0
                size = b.top * f + skip * width**0.5
                top, off = b.top * w + skip, b.off * w + 3 * UNIT * size + TINY
            x = np.matmul(np.matmul(P.transpose(0, 2, 1), inner.x), P)
            e = (top + off) * inner.off * (top + off) + inner.size * off * (2 * top + off)
            e += gamma * size * inner.size * size
            if k < self.L - 1 and (q := self.bends[k].q) is not None:
                b = self.bends[k]
                x += np.matmul(W.T * q[:, None, :], W)
                e += w * b.q_off * w + gamma * f * b.q_top * f + TINY * f
            found.append(Known.of(x, GROWTH * (e + 2 * UNIT * _size(x) + TINY)))
        return found[::-1]

    def blocks(self, l: int) -> Iterator[tuple[int, Known, Known | None]]:
        """``(m, S, K)`` for m = l, l + 1, ...; K None for m = l."""
        W, last = self.passes.W, self.L - 1
        if l == last:
            yield l, self.loss, None
            return
        b, C = self.bends[l], self.C[l]
        x = b.p[:, :, None] * C.x * b.p[:, None, :]
        off = (b.top + b.off) * C.off * (b.top + b.off) + C.size * b.off * (2 * b.top + b.off)
        off += b.q_spread + TINY
        if b.q is not None:
            x[:, np.arange(x.shape[1]), np.arange(x.shape[1])] += b.q
        S = Known.of(x, off)
        off = GROWTH * (off + 4 * UNIT * (S.size + b.top * C.size * b.top))
        yield l, Known(x, off, S.size), None
        x = np.zeros((len(b.p), b.p.shape[1], b.p.shape[1]))
        x[:, np.arange(x.shape[1]), np.arange(x.shape[1])] = b.p
        K = Known.of(x, b.spread + TINY)
        for m in range(l + 1, self.L):
            k, o = W[m].A.shape[1], len(W[m].A)
            w, f = self.passes.W_norms[m], norm(W[m].A)
            rows = len(K.x)
            z = (K.x.reshape(-1, k) @ W[m].A.T).reshape(rows, -1, o)
            Z = Known.of(z, GROWTH * (w * K.off + gamma_of(k + 2) * f * K.size + TINY))
            if m == last:
                y, off = np.matmul(Z.x, self.loss.x), self.loss.off
                e = Z.off * (self.loss.size + off) + Z.size * off + TINY
                e += gamma_of(o + 2) * Z.size * self.loss.size
                yield m, Known.of(y, GROWTH * e), K
                return
            b, C = self.bends[m], self.C[m]
            x = Z.x * b.p[:, None, :]
            e = Z.off * (b.top + b.off) + Z.size * b.off + UNIT * Z.size * b.top
            if self.passes.skips[m]:
                x += K.x
                e += K.off
            above = Known.of(x, GROWTH * (e + 2 * UNIT * _size(x) + TINY))
            y = np.matmul(above.x, C.x)
            e = above.off * (C.size + C.off) + above.size * C.off
            Y = Known.of(y, GROWTH * (e + gamma_of(o + 2) * above.size * C.size + TINY))
            x = Y.x * b.p[:, None, :]
            e = Y.off * (b.top + b.off) + Y.size * b.off + 2 * UNIT * Y.size * b.top
            if b.q is not None:
                x += Z.x * b.q[:, None, :]
                e += Z.off * (b.q_top + b.q_off) + Z.size * b.q_off + 2 * UNIT * Z.size * b.q_top
            yield m, Known.of(x, GROWTH * (e + 2 * UNIT * _size(x) + TINY)), K
            K = above
