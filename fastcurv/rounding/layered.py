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

a sum of products of norms, in any units of the parameters (`Layered.error`), and by columns
(`Layered.bounds`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import slabs
from ..eigensolver import UNIT, gamma_of
from ..runtime import to_nearest
from ..structure.parameters import l2_diagonal, layers_of, normalised
from .arithmetic import norm, norms
from .passes import GROWTH, Passes, checked_theta, passes_at
from .row_curvature import TINY, Known, Slab, inputs_of, of_loss
from .state import State

Floats = NDArray[np.float64]
BYTES = 1 << 25  # of the largest matrix of rows that is made
DEEPEST, SHALLOWEST = 1024, 64  # rows of one matrix product
LOST = 1e-150  # of a length: more than squares lose by underflow


def _lengths(A: Floats, units: tuple[Floats, Any]) -> Floats:
    """Norms of rows of inputs, in the units of the parameters: those of the unit they count most
    for.
    """
    C, c = units
    C = C if c is None else np.hstack([C, c[:, None]])
    most, top = C.max(initial=0.0), A.max(axis=1, initial=0.0)
    C, A = C / (most if most > 0 else 1.0), A / np.where(top > 0, top, 1.0)[:, None]
    return np.asarray(most * top * (np.sqrt((A**2 @ (C**2).T).max(axis=1)) + LOST))


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
        sides: dict[Any, Floats] = {}
        self.terms: dict[tuple[int, int], list[Any]] = {}
        self.plain: dict[tuple[int, int], float] = {}  # bounds on the errors of blocks
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
                        self._bound(sides, slab, l, m, S, K)
            self._finish(sides)

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

    def _bound(
        self, sides: dict[Any, Floats], slab: Slab, l: int, m: int, S: Known, K: Known | None
    ) -> None:
        """What errors in some rows do to block (l, m): to the columns of m, and to those of l."""
        A, size, off, gamma = slab.A, slab.sizes, slab.offs, self.gamma
        d, dd, zero = np.abs(slab.d[m]), slab.dd[m], np.zeros_like(S.off)
        k, dk = (zero, zero) if K is None or not self.curved else (K.size, K.off)
        whole, x = norms(d + dd)[:, 0], norms(d)[:, 0] * k
        dx = whole * dk + norms(dd)[:, 0] * k
        more = size[m] * S.off + (off[m] + gamma * size[m]) * S.size + dx + gamma * x
        both = 2**0.5 if l == m else 1.0  # half of such a block is the other half's mirror image
        _sum(sides, (l, m), both * (A[l].T @ more + slab.dA[l].T @ (S.size * size[m] + x)))
        if l < m:
            wide = off[l] + gamma * size[l]
            each = A[m].T @ (size[l] * S.off + wide * S.size) + slab.dA[m].T @ (S.size * size[l])
            units = (d + dd).T @ (size[l] * dk + wide * k) + dd.T @ (size[l] * k)
            _sum(sides, (m, l), units[:, None] + each)
        self.weight += float((S.size + k + size[l] + size[m]).sum())
        self.terms.setdefault((l, m), []).append((S.off, S.size, dx, x))
        wide = off[l] + gamma * size[l]
        here = size[m] * (size[l] * S.off + wide * S.size) + size[l] * off[m] * S.size
        self.plain[l, m] = self.plain.get((l, m), 0.0) + float(
            (here + size[l] * dx + wide * x).sum()
        )

    def _finish(self, sides: dict[Any, Floats]) -> None:
        """The other half of A, l2, and the bounds."""
        model, n, lost = self.passes.ob.model, len(self.A), TINY * self.weight
        for at in list(self.sums):
            self._place(*at)
        for s in slabs(n, n):
            self.A[s, : s.start] = self.A[: s.start, s].T
            own = self.A[s, s]
            own[...] = np.triu(own) + np.triu(own, 1).T
        self.A[np.diag_indices(n)] += self.l2
        found = np.zeros(n)
        for (l, _), part in sides.items():
            at = layers_of(model, found)[l]
            W = at[0]
            W[...] = np.hypot(W, part[..., : W.shape[1]] * GROWTH)
            if self.bias:
                at[1][...] = np.hypot(at[1], part[..., W.shape[1]] * GROWTH)
        self.bounds = GROWTH * found + 2 * UNIT * np.abs(np.diagonal(self.A)) + lost
        known = np.isfinite(self.A).all() and np.isfinite(self.bounds).all()
        self.finite = bool(known) and not self.passes.overflow

    @to_nearest
    def error(self, scale: Floats | None = None) -> float:
        """A bound on ``||D E D||_F`` for the error E of A, ``D = diag(scale)`` or I."""
        if scale is None:
            return self._of_blocks(self.plain, 1.0)
        top = float(np.max(scale))
        units = layers_of(self.passes.ob.model, np.asarray(scale, dtype=float))
        each = dict.fromkeys(self.terms, 0.0)
        with np.errstate(all="ignore"):
            for at, (s, cut) in enumerate(self._cuts()):
                A, dA = inputs_of(s, cut, self.bias)
                size = [_lengths(x, c) for x, c in zip(A, units)]
                off = [_lengths(x, c) for x, c in zip(dA, units)]
                for l, m in self.terms:
                    dS, S, dx, x = self.terms[l, m][at]
                    wide = off[l] + self.gamma * size[l]
                    here = size[m] * (size[l] * dS + wide * S) + size[l] * off[m] * S
                    here += top * (size[l] * dx + wide * x)
                    each[l, m] += float(here.sum())
        return self._of_blocks(each, top)

    def _of_blocks(self, each: dict[tuple[int, int], float], top: float) -> float:
        """A bound on the norm of the error of all blocks; `top`: the largest unit."""
        own = 2 * UNIT * norm(np.diagonal(self.A)) + len(self.A) * TINY * self.weight
        found = GROWTH * (norm([*each.values()]) * 2**0.5 + top * own * top)
        return found if found == found else np.inf
