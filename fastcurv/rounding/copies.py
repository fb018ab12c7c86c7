"""Units that are copies of others: a net with fewer units whose minima are the net's own.

With weight decay a unit (w, b, v) of relu or leaky_relu may be split: ``c_i (w, b, v)`` with
``c_i > 0`` and ``sum c_i^2 = 1`` give the same outputs at the same decay. So minima with copies,
and minima with a collapsed unit beside an open one, are never strict: they come in families of the
same loss. What is proved is a strict minimum of the net in which each family is one unit. It lifts.

Let units i of a family share gates, and slopes s where their kinks are active. As ``relu(z) >= s
z`` on both sides, and e > 0 there, the loss is at least that with slopes s, which knows the family
only by ``sum v_i w_i'`` and the decay: it does not change when the family is turned by an
orthogonal matrix. Turn it so that all but the first lie across the orbit of (w, b, v). Those others
enter, to second order, by

    l2 (|w|^2 + |b|^2 + |v|^2) / 2 + v' Q (w, b),     Q = sum over rows of delta gate (x, 1)',

delta that of the layer above, and ``l2 (w, b) = -Q'v``, ``l2 v = -Q (w, b)`` at the open unit: l2
is a singular value of Q. Where the second one is smaller the sum is positive across the orbit, the
turned family is as high as the split unit at least, and the point a minimum, one of its family.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocols import Floats
from .gated import Arrays, Rows

LEAST_SHARE = 0.2  # of a family's weight that a copy made of a collapsed unit gets
PARALLEL = 1e-6  # the sine of the angle below which two units are taken for copies

Units = list[NDArray[np.intp]]


def of_each_unit(layers: list[tuple[NDArray[Any], Any]], l: int) -> tuple[Floats, Floats]:
    """Weights into the units of hidden layer l, a bias included, and out of them, as rows."""
    W, b = layers[l]
    into = W if b is None else np.column_stack([W, b])
    return np.asarray(into, dtype=float), np.asarray(layers[l + 1][0].T, dtype=float)


def find_copies(rows: Rows, theta: Floats, gates: Arrays, collapsed: Arrays) -> Units:
    """For every hidden unit the one it is a copy of, itself where it is none: units with the same
    gates and parallel weights, in and out, and units that have collapsed beside an open one.
    """
    layers, parents = rows.layers(theta), []
    for l, (gate, gone) in enumerate(zip(gates, collapsed)):
        into, out = of_each_unit(layers, l)
        size = np.linalg.norm(into, axis=1) * np.linalg.norm(out, axis=1)
        parent = np.arange(len(size))
        kept = [i for i in np.argsort(-size, kind="stable") if not gone[i]]
        pattern = np.nan_to_num(gate, nan=-1.0)
        for k, i in enumerate(kept):
            for j in kept[:k]:
                same = parent[j] == j and np.array_equal(pattern[:, i], pattern[:, j])
                if same and _parallel(into[i], into[j]) and _parallel(out[i], out[j]):
                    parent[i] = j
                    break
        if kept:
            parent[gone] = kept[0]
        parents.append(parent)
    return parents


def _parallel(u: Floats, v: Floats) -> bool:
    size = float(np.linalg.norm(u) * np.linalg.norm(v))
    if not size > 0:
        return False
    rest = u - v * (float(u @ v) / float(v @ v))
    return bool(u @ v > 0 and np.linalg.norm(rest) <= PARALLEL * np.linalg.norm(u))


class Copies:
    """The way from a net to the one without copies, and back.

    Parameters
    ----------
    rows : Rows
        Of the whole net.
    parents : list of ndarray (width,) of int
        From `find_copies`.
    """

    def __init__(self, rows: Rows, parents: Units) -> None:
        self.whole, self.parents = rows, parents
        self.keep = [p == np.arange(len(p)) for p in parents]
        self.rows = rows.without([~k for k in self.keep])
        self.n_copies = int(sum((~k).sum() for k in self.keep))

    def families(self, l: int) -> NDArray[np.bool_]:
        """Which of the kept units of hidden layer l stand for more than one."""
        count = np.bincount(self.parents[l], minlength=len(self.parents[l]))
        return np.asarray(count[self.keep[l]] > 1)

    def _turns(self, theta: Floats, least: float) -> list[Floats]:
        """``(kept, width)`` of every hidden layer, orthonormal rows: the shares of the units."""
        layers, turns = self.whole.layers(theta), []
        for l, (parent, keep) in enumerate(zip(self.parents, self.keep)):
            into, out = of_each_unit(layers, l)
            size = np.hypot(np.linalg.norm(into, axis=1), np.linalg.norm(out, axis=1))
            size = np.maximum(size, least * size[parent])
            size[keep & (size == 0)] = 1.0
            turn = np.where(np.flatnonzero(keep)[:, None] == parent, size, 0.0)
            turns.append(turn / np.linalg.norm(turn, axis=1, keepdims=True))
        return turns

    def _turned(self, layers: Any, turns: list[Floats], back: bool) -> Floats:
        parts: list[Floats] = []
        for l, (W, b) in enumerate(layers):
            last = l == len(turns)
            above = np.eye(len(W)) if last else turns[l].T if back else turns[l]
            below = np.eye(W.shape[1]) if l == 0 else turns[l - 1] if back else turns[l - 1].T
            parts.append((above @ W @ below).ravel())
            if b is not None:
                parts.append(above @ b)
        return np.concatenate(parts)

    def merged(self, theta: Floats) -> Floats:
        """Theta of the net without copies."""
        return self._turned(self.whole.layers(theta), self._turns(theta, 0.0), False)

    def split(self, merged: Floats, shares_of: Floats) -> Floats:
        """Theta of the whole net, the units of a family in the shares they have in another theta,
        or a little more.
        """
        turns = self._turns(shares_of, LEAST_SHARE)
        return self._turned(self.rows.layers(merged), turns, True)

    def columns(self, of_kept: Arrays) -> Arrays:
        """Columns of the kept units for every unit of the whole net, and of its rows all."""
        found = []
        for column, parent, keep in zip(of_kept, self.parents, self.keep):
            place = np.cumsum(keep) - 1
            whole = column[..., place[parent]]
            found.append(whole[self.rows.inverse] if column.ndim == 2 else whole)
        return found
