"""The Hessian as a matrix, layer by layer, with a bound on its error: a fraction of the price of n
products.

Let ``a = [a_l 1]`` be the input of layer l, and for m >= l, row by row,

    K = da_m / dz_l      Z = dz_m / dz_l = K W_m'      S = ddelta_m / dz_l       (o_l rows each)

Since ``dL/dW_m = delta_m' a_m`` is a sum over rows, and z_l depends on W_l by ``a_l dW_l'`` alone,

    H[(l, i, p), (m, j, q)] = sum over rows of  a_lp (S_ij a_mq + delta_mj K_iq)

which for each unit i is one matrix product ``a_l' B_i``, B_i (rows, o_m in_m): ``N n^2`` flops for
all of H. K goes up, ``K = (K W') phi' [+ K]``; with C the curvature of the loss by the input of a
layer, ``P = diag(phi') W [+ I]``, C comes down, and S follows:

    C = W' loss'' W at the top        C = P' C P + W' diag(e phi'') W
    S = (K C) phi' + Z diag(e phi'')  S = Z loss'' in the last layer

Errors. The state brings bounds on its own (`state`); row by row, in Frobenius norms, every matrix
here is followed by one: ``||d(xy)|| <= dx (y + dy) + x dy + gamma(k) x y`` for a product of inner
dimension k, spectral norms of W and largest phi' in place of the others where they are known. With
A the sizes of a and dA their errors, an entry of the sum is off by

    sum of  dS A_p A_q + S (dA_p A_q + A_p dA_q) + the same for K, delta  + gamma(N) of the sizes

with one number for each two inputs p, q of two layers and all of their units (for K, each input p
and unit j): so every column of X and every layer may have units of its own, and bounds in other
units (`Layered.error`), by columns (`Layered.bounds`) and by entries (`Layered.noise`) are that
matrix, scaled. Units that differ much between the weights of one layer's units are taken by the
largest: to do better, all rows would have to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import slabs
from ..eigensolver import UNIT, gamma_of
from ..protocols import Floats
from ..runtime import to_nearest
from ..structure.parameters import l2_diagonal, layers_of, normalised
from .arithmetic import norm, norms
from .passes import GROWTH, Passes, checked_theta, passes_at
from .row_curvature import TINY, Known, Slab, of_loss
from .state import State

BYTES = 1 << 25  # of the largest matrix of rows that is made
DEEPEST, SHALLOWEST = 1024, 64  # rows of one matrix product


def _sum(sums: dict[Any, Floats], at: tuple[int, int], part: Floats) -> None:
    if at in sums:
        sums[at] += part
    else:
        sums[at] = part


def _pairs(x: Floats, y: Floats) -> Floats:
    """All products of an entry of a row of x and one of y's, (rows, k l)."""
    return (x[:, :, None] * y[:, None, :]).reshape(len(x), -1)


def step_of(model: Any) -> int:
    """Rows that are taken together."""
    widest = max(max(w * v for w in model.sizes for v in model.sizes), 1)
    return int(min(DEEPEST, BYTES // (8 * widest)))


def layered(ob: Any, theta: Floats, kind: str) -> Layered | None:
    """`Layered` at theta (n,); None where products are as good, for layers so wide that few rows
    would make a large matrix, and where something overflows.
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
        On the norm of the error of every column.
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
        # bounds on the errors of blocks: of S by inputs, of K by those of l and the units of m
        self.of_S: dict[Any, Floats] = {}
        self.of_K: dict[Any, Floats] = {}
        self.sums: dict[Any, Floats] = {}
        self.moved: dict[Any, Floats] = {}
        self.weight = 1.0  # what underflow in a product is multiplied by, over all rows
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
        """What the rows of a slab add to the sums of a block."""
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
        """The sums of a block into A."""
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
        """What errors in some rows do to block (l, m): that of S by the inputs of l and of m, for
        all units together; that of K by the inputs of l and the units of m.
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
        """The other half of A, l2, and the bounds."""
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
        """Bounds (n,) on the norms of the errors of the columns."""
        sides = [np.zeros((o, k + self.bias)) for o, k in self.shapes]
        for (l, m), E in self.of_S.items():
            o, k = self.shapes[m]
            both = 2**0.5 if l == m else 1.0  # half of it is the other half's mirror image
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
        """By parameter (n,) the number of the input it weighs, those of all layers in a row."""
        found, start = [], 0
        for o, k in self.shapes:
            found.append(np.tile(np.arange(start, start + k), o))
            if self.bias:
                found.append(np.full(o, start + k))
            start += k + self.bias
        return np.concatenate(found)

    def noise(self) -> Floats:
        """Bounds (n, n) on the errors of the entries of A."""
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
        """By parameter (n,) the number of its layer."""
        return np.repeat(np.arange(len(self.shapes)), np.diff(self.starts))

    @to_nearest
    def error(self, scale: Floats | None = None) -> float:
        """A bound on ``||D E D||_F`` for the error E of A, ``D = diag(scale)`` or I."""
        d = np.ones(len(self.A)) if scale is None else np.asarray(scale, dtype=float)
        units = layers_of(self.passes.ob.model, d)
        most = [  # of all units, by inputs
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
