"""The Hessian as a matrix, assembled layer by layer, with a bound on its error: at a fraction of
the cost of n products.

Let ``a = [a_l 1]`` be the input of layer l, and for m >= l, row by row,

    K = da_m / dz_l      Z = dz_m / dz_l = K W_m'      S = ddelta_m / dz_l       (o_l rows each)

Since ``dL/dW_m = delta_m' a_m`` is a sum over rows, and z_l depends on W_l by ``a_l dW_l'`` alone,

    H[(l, i, p), (m, j, q)] = sum over rows of  a_lp (S_ij a_mq + delta_mj K_iq)

which for each unit i is one matrix product ``a_l' B_i``, B_i (rows, o_m in_m): ``N n^2`` flops for
all of H. K goes up, ``K = (K W') phi' [+ K]``; with C the curvature of the loss by the input of a
layer, ``P = diag(phi') W [+ I]``, C comes down, and S follows:

    C = W' loss'' W at the top        C = P' C P + W' diag(e phi'') W
    S = (K C) phi' + Z diag(e phi'')  S = Z loss'' in the last layer

Errors. The state comes with bounds on its errors (`State`); row by row, in Frobenius norms, every
matrix here has one: ``||d(xy)|| <= dx (y + dy) + x dy + gamma(k) x y`` for a product of inner
dimension k, with spectral norms of W and largest phi' instead where these are known. With A the
sizes of a and dA their errors, an entry of the sum is off by

    sum of  dS A_p A_q + S (dA_p A_q + A_p dA_q) + the same for K, delta  + gamma(N) of the sizes

with one number for each pair of inputs p, q of two layers and all of their hidden units together
(for K, each input p and unit j). So every column of X and every layer may have units of measurement
of its own, and the bounds in other units (`Layered.error`), by columns (`Layered.bounds`) and by
entries (`Layered.noise`) are that matrix, scaled. If the weights of one layer have scales that
differ between its hidden units, the largest is used: to do better, all rows would have to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.checks import slabs
from ..common.linalg import UNIT, gamma_of
from ..common.protocols import Enclosed, Floats
from ..common.runtime import to_nearest
from ..structure.parameters import l2_diagonal, layers_of, normalised
from ..structure.tables import LOSSES
from .arithmetic import ETA, Chain, Err, flushes, norm, norms, scaled
from .passes import GROWTH, ErrorPass, LossRows, Passes, State, checked_theta, passes_at

# --------------------------------------------------------------------------------------------------
# The matrices of each row, layer by layer, from which the curvature of a loss is computed, each
# with a bound on its error: K, C and S of the module docstring.

TINY = 1e-300  # bounds the effect of underflow on the norm of a matrix


def _size(x: Floats) -> Floats:
    """Return the Frobenius norms of the matrices of each row, (rows,)."""
    found: Floats = np.sqrt(np.einsum("nij,nij->n", x, x))
    odd = ~((found > 1e-140) & (found < np.inf))
    if odd.any():
        found[odd] = norms(np.abs(x[odd]).reshape(int(odd.sum()), -1))[:, 0]
    return found


@dataclass(frozen=True, eq=False)
class Known:
    """A matrix for each row ``(rows, i, j)``, its Frobenius norm, and a bound on the norm of its
    error, ``(rows,)``.
    """

    x: Floats
    off: Floats
    size: Floats

    @classmethod
    def of(cls, x: Floats, off: Floats) -> Known:
        return cls(x, off, _size(x))


class Bend:
    """The derivatives of phi for rows of a hidden layer: phi' and e phi'', (rows, o), and by row
    (rows,) the largest of them, and the largest and the norm of their errors.
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
    """Return, by layer, the sizes of its inputs, errors included, and bounds on these errors."""
    sizes, offs = [], []
    for a, da in zip(s.a, s.da):
        off = np.zeros_like(a[cut]) if da is None else da.E[cut]
        size, one = np.abs(a[cut]) + off, np.ones((len(off), 1))
        sizes.append(np.hstack([size, one]) if bias else size)
        offs.append(np.hstack([off, 0 * one]) if bias else off)
    return sizes, offs


def of_loss(s: State) -> tuple[Floats, Floats]:
    """Return loss'' of every row, (rows, o, o), and bounds on the norms of their errors."""
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
    """Some rows of a state: a, delta, K, C, S and bounds on their errors."""

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
        """Return C for the input of each layer above a hidden layer."""
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
        """Yield ``(m, S, K)`` for m = l, l + 1, ...; K is None for m = l."""
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


BYTES = 1 << 25  # of the largest stack of matrices by row
DEEPEST, SHALLOWEST = 1024, 64  # rows of one matrix product


def _sum(sums: dict[Any, Floats], at: tuple[int, int], part: Floats) -> None:
    if at in sums:
        sums[at] += part
    else:
        sums[at] = part


def _pairs(x: Floats, y: Floats) -> Floats:
    """Return all products of an entry of a row of x and one of the same row of y, (rows, k l)."""
    return (x[:, :, None] * y[:, None, :]).reshape(len(x), -1)


def step_of(model: Any) -> int:
    """Return the number of rows that are processed together."""
    widest = max(max(w * v for w in model.sizes for v in model.sizes), 1)
    return int(min(DEEPEST, BYTES // (8 * widest)))


def layered(ob: Any, theta: Floats, kind: str) -> Layered | None:
    """Return `Layered` at theta (n,); None if products are as cheap, for layers so wide that few
    rows would make a large matrix, or if something overflows.
    """
    model = ob.model
    if kind == "fisher" or normalised(model) or not isinstance(ob.X, np.ndarray):
        return None
    if step_of(model) < SHALLOWEST:
        return None
    found = Layered(ob, passes_at(ob, checked_theta(ob, theta)), kind)
    return found if found.finite else None


class Layered:
    """The Hessian, or the GGN, at the theta of some passes.

    Attributes
    ----------
    A : ndarray, shape (n, n)
        Exactly symmetric.
    bounds : ndarray, shape (n,)
        Bounds on the norms of the errors of the columns.
    """

    bounds: Any
    finite: bool

    def __init__(self, ob: Any, passes: Passes, kind: str = "hessian") -> None:
        self.passes, self.curved = passes, kind == "hessian"
        self.l2, self.bias = l2_diagonal(ob), bool(ob.model.bias)
        self.shapes = [W.A.shape for W in passes.W]
        self.starts = [0, *np.cumsum([o * (k + self.bias) for o, k in self.shapes]).tolist()]
        N, self.step = passes.arithmetic.N, step_of(ob.model)
        slabs_of_all = -(-N // passes.step) * -(-passes.step // self.step)
        self.gamma = gamma_of(min(self.step, N) + slabs_of_all + 16)
        n = self.starts[-1]
        self.A = np.zeros((n, n))
        # bounds on the errors of blocks: of S by the inputs of l and m, of K by the inputs of l and
        # the units of m
        self.of_S: dict[Any, Floats] = {}
        self.of_K: dict[Any, Floats] = {}
        self.sums: dict[Any, Floats] = {}
        self.moved: dict[Any, Floats] = {}
        self.weight = 1.0  # factor on the underflow in a product, over all rows
        with np.errstate(all="ignore"):
            last, loss = None, None
            for s, cut in self._cuts():
                last, loss = s, of_loss(s) if s is not last or loss is None else loss
                slab = Slab(passes, s, loss, cut, self.curved)
                for l in range(slab.L):
                    for m, S, K in slab.blocks(l):
                        self._add(slab, l, m, S, K)
                        self._bound(slab, l, m, S, K)
            self._finish()

    def _cuts(self) -> Iterator[tuple[State, slice]]:
        for s in self.passes.states():
            for start in range(0, len(s.z[0]), self.step):
                yield s, slice(start, start + self.step)

    def _add(self, slab: Slab, l: int, m: int, S: Known, K: Known | None) -> None:
        """Add the contributions of the rows of a slab to the sums of a block."""
        a, b, d, rows = slab.a[l], slab.a[m], slab.d[m], len(slab.d[m])
        if l == m:
            (i, j), (p, q) = np.triu_indices(S.x.shape[1]), np.triu_indices(a.shape[1])
            _sum(self.sums, (l, l), S.x[:, i, j].T @ (a[:, p] * a[:, q]))
            return
        _sum(self.sums, (l, m), S.x.reshape(rows, -1).T @ _pairs(a, b))
        if K is None or not self.curved:
            return
        if m == l + 1:  # K is diagonal
            _sum(self.moved, (l, m), a.T @ _pairs(d, np.einsum("nii->ni", K.x)))
        else:
            _sum(self.moved, (l, m), _pairs(a, d).T @ K.x.reshape(rows, -1))

    def _place(self, l: int, m: int) -> None:
        """Write the sums of a block into A."""
        (o, k), (p, h) = self.shapes[l], self.shapes[m]
        w, v, sums = k + self.bias, h + self.bias, self.sums.pop((l, m))
        row, column = self.starts[l], self.starts[m]
        W, b = slice(row, row + o * k), slice(row + o * k, self.starts[l + 1])
        V, c = slice(column, column + p * h), slice(column + p * h, self.starts[m + 1])
        if l == m:
            at = np.zeros((w, w), dtype=np.intp)
            at[np.triu_indices(w)] = np.arange(sums.shape[1])
            at = np.maximum(at, at.T)
            unit = np.zeros((o, o), dtype=np.intp)
            unit[np.triu_indices(o)] = np.arange(sums.shape[0])
            found = sums[np.maximum(unit, unit.T)[:, :, None, None], at]
        else:
            found = sums.reshape(o, p, w, v)
        found = found.transpose(0, 2, 1, 3)  # i, p, j, q
        more = self.moved.pop((l, m), None)
        if more is not None and m == l + 1:
            each = more.reshape(w, p, o)
            for i in range(o):
                found[i, :, :, i] += each[:, :, i]
        elif more is not None:
            found[..., :h] += more.reshape(w, p, o, h).transpose(2, 0, 1, 3)
        self.A[W, V].reshape(o, k, p, h)[...] = found[:, :k, :, :h]
        if self.bias:
            self.A[W, c].reshape(o, k, p)[...] = found[:, :k, :, h]
            self.A[b, V].reshape(o, p, h)[...] = found[:, k, :, :h]
            self.A[b, c] = found[:, k, :, h]

    def _bound(self, slab: Slab, l: int, m: int, S: Known, K: Known | None) -> None:
        """Add the contributions of errors in some rows to the bounds of block (l, m): that of S by
        the inputs of l and of m, for all units together; that of K by the inputs of l and the units
        of m.
        """
        A, dA, gamma = slab.A, slab.dA, self.gamma
        wide = (S.off + gamma * S.size)[:, None]
        _sum(self.of_S, (l, m), A[l].T @ (wide * A[m] + S.size[:, None] * dA[m]))
        _sum(self.of_S, (l, m), dA[l].T @ (S.size[:, None] * A[m]))
        size = S.size
        if K is not None and self.curved:
            d, dd, x = np.abs(slab.d[m]), slab.dd[m], K.size[:, None]
            wide = (d + dd) * K.off[:, None] + (dd + gamma * d) * x
            _sum(self.of_K, (l, m), A[l].T @ wide + dA[l].T @ (d * x))
            size = size + K.size
        self.weight += float((size + slab.sizes[l] + slab.sizes[m]).sum())

    def _finish(self) -> None:
        """Fill the other half of A, add l2, and compute the bounds."""
        n = len(self.A)
        for at in list(self.sums):
            self._place(*at)
        for s in slabs(n, n):
            self.A[s, : s.start] = self.A[: s.start, s].T
            own = self.A[s, s]
            own[...] = np.triu(own) + np.triu(own, 1).T
        self.A[np.diag_indices(n)] += self.l2
        self.bounds = self._columns()
        known = np.isfinite(self.A).all() and np.isfinite(self.bounds).all()
        self.finite = bool(known) and not self.passes.overflow

    def _columns(self) -> Floats:
        """Return bounds (n,) on the norms of the errors of the columns."""
        sides = [np.zeros((o, k + self.bias)) for o, k in self.shapes]
        for (l, m), E in self.of_S.items():
            o, k = self.shapes[m]
            both = 2**0.5 if l == m else 1.0  # one half mirrors the other
            moved = self.of_K.get((l, m), np.zeros((len(E), o)))
            sides[l] = np.hypot(sides[l], (both * norms(E) + norms(moved))[:, 0])
            if l != m:
                columns = np.tile(norms(np.ascontiguousarray(E.T))[:, 0], (o, 1))
                columns[:, :k] += norms(np.ascontiguousarray(moved.T))
                sides[m] = np.hypot(sides[m], columns)
        flat = [x.ravel() for (_, k), y in zip(self.shapes, sides) for x in (y[:, :k], y[:, k:])]
        own = 2 * UNIT * np.abs(np.diagonal(self.A)) + TINY * self.weight
        return np.asarray(GROWTH * (np.concatenate(flat) + own))

    def _inputs(self) -> NDArray[np.intp]:
        """Return, for each parameter (n,), the number of the input that it multiplies, counted over
        all layers; a bias counts as one more input.
        """
        found, start = [], 0
        for o, k in self.shapes:
            found.append(np.tile(np.arange(start, start + k), o))
            if self.bias:
                found.append(np.full(o, start + k))
            start += k + self.bias
        return np.concatenate(found)

    def noise(self) -> Floats:
        """Return bounds (n, n) on the errors of the entries of A."""
        ends = np.cumsum([0] + [k + self.bias for _, k in self.shapes])
        E = np.zeros((ends[-1], ends[-1]))
        for (l, m), part in self.of_S.items():
            E[ends[l] : ends[l + 1], ends[m] : ends[m + 1]] = part
            E[ends[m] : ends[m + 1], ends[l] : ends[l + 1]] = part.T
        at = self._inputs()
        found = E[np.ix_(at, at)]
        for (l, m), moved in self.of_K.items():
            (o, k), rows = self.shapes[m], slice(self.starts[l], self.starts[l + 1])
            columns = slice(self.starts[m], self.starts[m] + o * k)
            more = np.repeat(moved[at[rows] - ends[l]], k, axis=1)
            found[rows, columns] += more
            found[columns, rows] += more.T
        found[np.diag_indices(len(at))] += 2 * UNIT * np.abs(np.diagonal(self.A))
        return np.asarray(GROWTH * found + TINY * self.weight)

    def layers(self) -> NDArray[np.intp]:
        """Return, for each parameter (n,), the number of its layer."""
        return np.repeat(np.arange(len(self.shapes)), np.diff(self.starts))

    @to_nearest
    def error(self, scale: Floats | None = None) -> float:
        """Return a bound on ``||D E D||_F`` for the error E of A, ``D = diag(scale)`` or I."""
        d = np.ones(len(self.A)) if scale is None else np.asarray(scale, dtype=float)
        units = layers_of(self.passes.ob.model, d)
        most = [  # over all units, by inputs
            W.max(axis=0) if b is None else np.append(W.max(axis=0), b.max()) for W, b in units
        ]
        each = dict.fromkeys(self.of_S, 0.0)
        for (l, m), E in self.of_S.items():
            each[l, m] += norm(most[l][:, None] * E * most[m])
        for (l, m), moved in self.of_K.items():
            each[l, m] += norm(most[l][:, None] * moved * units[m][0].max(axis=1))
        top = float(d.max(initial=0.0))
        own = 2 * UNIT * norm(d * np.diagonal(self.A) * d) + top * len(d) * TINY * self.weight * top
        found = GROWTH * (norm([*each.values()]) * 2**0.5 + own)
        return found if found == found else np.inf


# --------------------------------------------------------------------------------------------------
# The Gram matrix of the outputs' Jacobian for a GGN or Fisher, by separate float64 passes, with a
# bound on its error.
#
# ``K = A'A`` as in the module docstring of `fastcurv.network.spaces`: the sum over layers of ``(a
# a' + 1) * (D D')``. a and D come with bounds on the norms of the errors of their rows, `Err`,
# propagated like the gradient's delta. A column's part in a layer has length ``x = sqrt(||a||^2 +
# 1) ||d||`` and error ``e = sqrt(..) ||dd|| + ||da|| (||d|| + ||dd||)``, so that entry by entry
#
#     |dK_ij| <= sum over layers of  x_i e_j + e_i x_j + e_i e_j + gamma x_i x_j


def gram_enclosure(ob: Any, theta: Any, kind: str) -> Enclosed:
    """Return K ``(q, q)`` of the GGN or Fisher at theta, exactly symmetric, and for each column a
    bound on the norm of its error; infinite if overflow cannot be ruled out.

    Cost: the arithmetic of a few times q/N backward passes, in NumPy.
    """
    R = ErrorPass(ob, theta, measured=True)
    with np.errstate(all="ignore"):
        states = list(R.states())
        parts = [_columns(R, s, kind) for s in states]
        q = sum(len(part[-1][0]) * len(s.d[-1]) for part, s in zip(parts, states))
        K, bounds = np.zeros((q, q)), np.zeros(q)
        for l in range(len(R.W)):
            a = np.concatenate([s.a[l] for s in states])
            da = np.concatenate([_input_error(s, l) for s in states])
            D = np.concatenate([part[l][0] for part in parts], axis=1)
            dd = np.concatenate([part[l][1] for part in parts], axis=1)
            K += _layer(a, D.reshape(q, D.shape[2]), ob.model.bias)
            bounds += _bounds(R, a, da, D, dd) + R.arithmetic.u * norms(np.abs(K))[:, 0]
        bounds = R.slack * bounds + R.arithmetic.tiny * q
        R.overflow |= flushes()
    finite = np.isfinite(bounds).all() and np.isfinite(K).all() and not R.overflow
    return Enclosed(K, bounds if finite else np.full(len(K), np.inf), 0.0)


def _input_error(s: State, l: int) -> Floats:
    """Return bounds on the norms of the errors of the rows of a, (rows, 1)."""
    return np.zeros((len(s.a[l]), 1)) if s.da[l] is None else np.asarray(s.da[l].nu)


def _layer(a: Floats, D: Floats, bias: bool) -> Floats:
    N, q = len(a), len(D)
    G = a @ a.T + bias
    K = D @ D.T
    K4 = K.reshape(q // N, N, q // N, N)
    K4 *= ((G + G.T) / 2)[None, :, None]
    return np.asarray((K + K.T) / 2)


def _bounds(R: ErrorPass, a: Floats, da: Floats, D: Floats, dd: Floats) -> Floats:
    """Return bounds on the norms of the errors of the columns of a layer's part of K."""
    bias = float(R.ob.model.bias)
    A = np.sqrt(norms(np.abs(a)) ** 2 + bias)[:, 0]
    d = norms(np.abs(D).reshape(-1, D.shape[2])).reshape(D.shape[:2])
    dd = dd[:, :, 0]
    x = scaled(A, d).ravel()
    e = (scaled(A + da[:, 0], dd) + scaled(da[:, 0], d)).ravel()
    gamma = R.arithmetic.gamma(a.shape[1] + D.shape[2] + 6)
    nx, ne = norm(x), norm(e)
    lost = D.shape[2] * ETA * norm(A) * np.sqrt(len(D)) * np.tile(A, len(D))  # in D D', then A A'
    return np.asarray((nx + ne) * e + ne * x + gamma * (nx + ne) * (x + e) + lost)


def _columns(R: ErrorPass, s: State, kind: str) -> list[Any]:
    """Return, for each layer, D ``(columns, rows, out)`` and bounds on the norms of the errors of
    its rows ``(columns, rows, 1)``.
    """
    found: list[Any] = [[] for _ in R.W]
    for d, dd in factor_rows(s.loss, kind):
        chain, came = Chain(s.kappa), None
        for l in range(len(R.W) - 1, -1, -1):
            found[l].append((d, dd.nu))
            if l:
                d, dd, came = s.step_back(l, chain, d, dd, came)
    return [tuple(np.array(x) for x in zip(*layer)) for layer in found]


def factor_rows(loss: LossRows, kind: str) -> Any:
    """Yield the columns of S and their errors one by one, (rows, d_out) and `Err`; ``S S' =
    d2L/dz2``.
    """
    r, (N, d) = loss.arithmetic, loss.d.shape
    if kind == "fisher":
        root = np.sqrt(float(r.N))
        yield root * loss.d, Err((loss.dd.E * root + 3 * r.u * np.abs(loss.d) * root) * (1 + r.u))
        return
    if LOSSES[loss.loss].per_entry:
        h = np.broadcast_to(loss.h, (N, d))
        roots = np.sqrt(h)
        off = _root_error(h, np.broadcast_to(loss.dh.E, (N, d)), r.u)
        for j in range(d):
            unit = np.arange(d) == j
            yield roots * unit, Err(off * unit)
        return
    yield from _entropy_rows(loss)


def _root_error(x: Floats, dx: Floats, u: float) -> Floats:
    """Return bounds on the error of sqrt(x), x off by dx: ``|sqrt x - sqrt y| <= min(dx / sqrt x,
    sqrt dx)``.
    """
    root = np.sqrt(x)
    carried = np.minimum(dx / np.where(root > 0, root, 1.0), np.sqrt(dx))
    return np.asarray(np.where(root > 0, carried, np.sqrt(dx)) + u * root)


def _entropy_rows(loss: LossRows) -> Any:
    """Yield the columns of S for cross entropy: ``S_ij = s_i (i = j) - s_i^2 s_j / (1 + s_t)``,
    ``S_tj = - s_t s_j``, which holds for any t; here t is the largest logit.
    """
    u, d, at = loss.arithmetic.u, loss.d.shape[1], np.arange(len(loss.d))
    s, ds = np.sqrt(loss.p), _root_error(loss.p, loss.dp, loss.arithmetic.u)
    top, S = loss.p.argmax(axis=1), s + ds
    h, dh = np.sqrt(loss.h), _root_error(loss.h, loss.dh, u)
    t, dt, T = (x[at, top][:, None] for x in (s, ds, S))
    for k in range(d - 1):
        j = k + (k >= top)  # (rows,)
        sj, dj, Sj = (x[at, j][:, None] for x in (s, ds, S))
        unit = np.arange(d) == j[:, None]
        column = unit * s - s * s * sj / (1 + t)
        error = unit * ds + (2 * S * ds * Sj + S * S * dj + S * S * Sj * dt)
        error += 8 * u * (unit * S + S * S * Sj)
        first = np.arange(d) == top[:, None]
        column = np.where(first, -t * sj, column)
        error = np.where(first, dt * Sj + T * dj + 4 * u * T * Sj, error)
        error = error * (h + dh) + np.abs(column) * dh + 2 * u * np.abs(column) * (h + dh)
        yield h * column, Err(error)
