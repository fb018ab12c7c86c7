"""Networks of relu and leaky_relu units held by kinks, as smooth functions: slopes for phi'(0).

At a minimum some pre-activations lie at 0. With the signs of all others fixed and a slope s in
place of phi' for each of these, ``a = s z``, the loss is a smooth function Phi(theta, s), a
polynomial net under a smooth loss, and

    dPhi/dtheta = the gradient with these slopes,     dPhi/ds = e z,     e = dL/da,

so where no e is 0 the critical points of Phi are the points with z = 0 on the active set at which
slopes make the gradient vanish: the KKT points. At one the Hessian of Phi is ``[[H, J'E], [EJ,
0]]``, J the gradients of the active z, which has as many negative eigenvalues as there are slopes
exactly where J has full rank and H is positive definite on its null space. With slopes strictly
inside ``(phi'(0-), phi'(0+))`` and e > 0 that makes a strict local minimum of the loss: off the
active set along J every kink bends upward, along its null space H does.

Rows with equal inputs have equal z, and are one row here: what bends upward is their sum.
Units that are copies of others are one unit here (`fastcurv.rounding.copies`): theta is that of
the net without them. A z above which all is off in its row has no effect, and its sign no matter.
Slopes have units of their own, ``s = unit t``: a proof in t is sharper, and proves the same.

`third_bound` is the recursion of `fastcurv.rounding.majorants` with slopes as parameters:

    a = s z:    A1 = s Z1 + |z| u     A2 = s Z2 + 2 u Z1     A3 = s Z3 + 3 u Z2     u the unit of s
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocols import Floats
from ..singular import svd, svdvals
from .copies import Copies, Units
from .gated import Arrays, Rows, by_complex_steps

EPS = float(np.finfo(np.float64).eps)
LONG = float(np.finfo(np.longdouble).eps)
UP = 1 + 1e-9  # more than the rounding of the scalar recursions below
CROSS = 2 / 3**0.5


@dataclass(frozen=True)
class Margins:
    """By how much the hypotheses of the module's statement hold on a ball; all above 0: they do.

    Attributes
    ----------
    signs : float
        Least ``|z| - reach`` of the z that are not active.
    slopes : float
        Least distance of a slope from the two sides', the radius taken off.
    upward : float
        Least e of the active set, what it can change taken off.
    collapsed : float
        By how much l2 exceeds what opening a collapsed unit can gain; infinite without one.
    copies : float
        By how much l2 exceeds what a copy can gain by leaving its family; infinite without one.
    """

    signs: float
    slopes: float
    upward: float
    collapsed: float
    copies: float


class Held:
    """Phi of the module's head: an objective in (theta, slopes), smooth where signs hold.

    Parameters
    ----------
    ob : Objective
        `supported`.
    gates : list of ndarray (N, width)
        phi' of every hidden unit and row, NaN where the kink is active.
    collapsed : list of ndarray (width,) of bool
        Hidden units whose weights, in and out, are 0 at the point. Their gates must be the leak.
    parents : list of ndarray (width,) of int, optional
        From `find_copies`: theta is then that of the net without copies, and so is all below.
    """

    def __init__(self, ob: Any, gates: Arrays, collapsed: Arrays, parents: Units | None = None):
        rows = Rows(ob, merge=True)
        self.copies = Copies(rows, parents or [np.arange(n) for n in rows.sizes[1:-1]])
        keep, self.rows = self.copies.keep, self.copies.rows
        self.collapsed = [c[k] for c, k in zip(collapsed, keep)]
        self.n_collapsed = int(sum(c.sum() for c in self.collapsed))
        self.n_copies = self.copies.n_copies
        self.gates = [np.array(g[rows.first][:, k], dtype=float) for g, k in zip(gates, keep)]
        self.active = [np.isnan(g) for g in self.gates]
        self.felt = felt(self.gates)
        self.n_theta, self.n_slopes = len(self.rows.l2), int(sum(a.sum() for a in self.active))
        self.n_params = self.n_theta + self.n_slopes
        self.n_kinks = int(sum(a.sum() for a in self.copies.columns(self.active)))
        self.units = np.ones(self.n_slopes)

    def in_units(self, units: Floats) -> Held:
        """The same with other units for the slopes: what bounds are taken in."""
        found = copy.copy(self)
        found.units = units
        return found

    def _gates(self, slopes: NDArray[Any]) -> Arrays:
        found, at = [], 0
        for gate, active in zip(self.gates, self.active):
            gate = gate.astype(slopes.dtype)
            count = int(active.sum())
            gate = np.broadcast_to(gate, (*slopes.shape[:-1], *gate.shape)).copy()
            gate[..., active] = slopes[..., at : at + count]
            found.append(gate)
            at += count
        return found

    def by_layer(self, of_slopes: Floats) -> Arrays:
        """Numbers of the active kinks as ``(N, width)`` of every layer, NaN where none is."""
        found, at = [], 0
        for active in self.active:
            column = np.full(active.shape, np.nan)
            column[active] = of_slopes[at : at + int(active.sum())]
            at += int(active.sum())
            found.append(column)
        return found

    def forward(self, point: NDArray[Any]) -> tuple[Any, Arrays, Arrays, Arrays]:
        """Layers, gates, activations below every layer, and z."""
        layers = self.rows.layers(point[..., : self.n_theta])
        gates = self._gates(point[..., self.n_theta :])
        a, below, zs = self.rows.X.astype(point.dtype), [], []
        for l, layer in enumerate(layers):
            below.append(a)
            zs.append(self.rows.linear(layer, a))
            if l < len(gates):
                a = gates[l] * zs[l]
        return layers, gates, below, zs

    def passes(self, point: NDArray[Any]) -> tuple[Any, NDArray[Any], Arrays, Arrays]:
        """Value, gradient over (theta, slopes), z of every layer, e of every hidden one."""
        layers, gates, below, zs = self.forward(point)
        terms, d = self.rows.terms(zs[-1])
        g, es = self.rows.backward(layers, below, gates, d)
        theta, l2 = point[..., : self.n_theta], self.rows.l2
        bent = [(e * z)[..., active] for e, z, active in zip(es, zs, self.active)]
        value = terms.sum(axis=(-1, -2)) + 0.5 * (l2 * theta**2).sum(axis=-1)
        return value, np.concatenate([g + l2 * theta, *bent], axis=-1), zs, es

    def value(self, point: Floats) -> float:
        return float(self.passes(np.asarray(point, dtype=float))[0])

    def gradient(self, point: Floats) -> Floats:
        return self.passes(np.asarray(point, dtype=float))[1]

    def hessian(self, point: Floats) -> Floats:
        """(n + m, n + m), symmetrised."""
        size = len(self.rows.X) * max(self.rows.sizes)
        H = by_complex_steps(lambda p: self.passes(p)[1], np.asarray(point, dtype=float), size)
        return 0.5 * (H + H.T)

    # bounds

    def precise_gradient(self, point: Floats) -> tuple[Floats, Floats]:
        """The gradient in long double, as float64, and bounds on the errors of its entries.

        The bounds run beside it: every sum of k products is off by at most ``(k + 4) eps`` of the
        sum of their sizes, and what came before is carried along in absolute values.
        """
        long = np.asarray(point).astype(np.longdouble)
        layers, gates, below, zs = self.forward(long)
        _, g, _, es = self.passes(long)
        E: Arrays = [np.zeros(self.rows.X.shape)]
        Ez: Arrays = []
        for l, (W, b) in enumerate(layers):
            off = _product_error(below[l], E[l], W.T) + (0 if b is None else LONG * abs(b))
            Ez.append(_double(off))
            if l < len(gates):
                E.append(_double(abs(gates[l]) * Ez[l] + 2 * LONG * abs(below[l + 1])))
        d, off = self._delta_error(zs[-1], Ez[-1])
        parts: Arrays = []
        bent: Arrays = []
        for l in reversed(range(len(layers))):
            if self.rows.bias:
                parts.append((off + (len(d) + 4) * LONG * abs(d)).sum(axis=0))
            parts.append(_product_error(d.T, off.T, below[l], E[l]).ravel())
            if l:
                e_off = _product_error(d, off, layers[l][0])
                z, active = zs[l - 1], self.active[l - 1]
                both = e_off * (abs(z) + Ez[l - 1]) + abs(es[l - 1]) * Ez[l - 1]
                bent.append((both + 2 * LONG * abs(es[l - 1] * z))[active])
                d, off = es[l - 1] * gates[l - 1], e_off * abs(gates[l - 1])
                off = off + 2 * LONG * abs(d)
        error = _double(np.concatenate(parts[::-1]))
        error += _double(4 * LONG * (abs(self.rows.l2 * long[: self.n_theta]) + error))
        found = _double(g)
        return found, 2.0 * UP * np.concatenate([error, *bent[::-1]]) + EPS * abs(found)

    def _delta_error(self, f: NDArray[Any], off: Floats) -> tuple[NDArray[Any], Floats]:
        """The loss's derivative by the outputs and a bound on its error by entries."""
        _, d = self.rows.terms(f)
        scale = (abs(self.rows.weight) / self.rows.divisor)[:, None]
        count = 8 + 4 * int(np.bincount(self.rows.inverse).max())  # roundings of a row's target
        y, size = abs(self.rows.y), np.sqrt((off**2).sum(axis=1, keepdims=True))
        if self.rows.loss == "mse":
            return d, _double(2 * scale * off + count * LONG * (2 * scale * (abs(f) + y)))
        mass = np.maximum(y.sum(axis=1, keepdims=True), 1.0)
        spread = 8 * (f.shape[1] + 4 + 2 * abs(f).max(axis=1, keepdims=True)) * LONG
        return d, _double(scale * mass * (size + spread) + count * LONG * scale * y)

    def walk(self, point: Floats, radius: float) -> dict[str, Floats]:
        """The scalar recursions on a ball in (theta, t): Z1, Z2, Z3 of the outputs (N,), each
        hidden layer's Z1, and the gates' and weights' sizes.
        """
        layers, gates, below, zs = self.forward(np.asarray(point, dtype=float))
        N = len(self.rows.X)
        A1, A2, A3 = np.zeros(N), np.zeros(N), np.zeros(N)
        reach, sizes, weights, inputs, moves = [], [], [], [], []
        units = [np.nan_to_num(u).max(axis=1) for u in self.by_layer(self.units)]
        for l, (W, _) in enumerate(layers):
            w = float(np.linalg.norm(W)) * UP + radius
            A0 = np.linalg.norm(below[l], axis=1) * UP + radius * A1
            v = np.sqrt(A0**2 + (1.0 if self.rows.bias else 0.0))
            Z1, Z2 = np.hypot(w * A1, v) * UP, 0.5 * (w * A2 + np.hypot(w * A2, 2 * A1)) * UP
            Z3 = (w * A3 + CROSS * A2) * UP
            weights.append(w)
            inputs.append(v)
            moves.append(A1)
            if l == len(gates):
                continue
            held = units[l]
            gate = np.where(self.felt[l], np.abs(gates[l]), 1.0).max(axis=1) + radius * held
            bent = np.where(self.active[l], np.abs(zs[l]), 0.0).max(axis=1) + radius * Z1
            reach.append(Z1)
            sizes.append(gate)
            A1 = (gate * Z1 + held * bent) * UP
            A2, A3 = (gate * Z2 + 2 * held * Z1) * UP, (gate * Z3 + 3 * held * Z2) * UP
        found = {"Z1": Z1, "Z2": Z2, "Z3": Z3, "reach": reach, "gates": sizes, "weights": weights}
        found.update(A0=inputs, A1=moves, units=units)
        return {**found, **self._loss_bounds(zs[-1], Z1 * radius), "zs": zs}

    def _loss_bounds(self, f: Floats, move: Floats) -> dict[str, Floats]:
        """Bounds on the first three derivatives of each row's loss by its outputs."""
        scale = np.abs(self.rows.weight) / self.rows.divisor
        mass = np.abs(self.rows.y).sum(axis=1)
        _, d = self.rows.terms(f)
        c2, c3 = {
            "mse": (2.0 * scale, 0.0 * scale),
            "binary_cross_entropy": (0.25 * scale, 0.09623 * scale),
            "cross_entropy": (0.5 * mass * scale, 0.28 * mass * scale),
        }[self.rows.loss]
        c1 = np.linalg.norm(d, axis=1) * UP + c2 * move + 64 * EPS * scale * (1 + mass)
        return {"c1": c1, "c2": c2, "c3": c3}

    def third_bound(self, point: Floats, radius: float) -> float:
        """A Lipschitz constant of the Hessian of Phi on the ball; signs are `margins`' matter."""
        b = self.walk(point, radius)
        rows = b["c3"] * b["Z1"] ** 3 + 3 * b["c2"] * b["Z1"] * b["Z2"] + b["c1"] * b["Z3"]
        return float(rows.sum()) * UP

    def hessian_error(self, point: Floats) -> float:
        """A bound on what rounding does to `hessian`, in norm: as many eps as a term has roundings,
        times the norm of all terms in absolute values, which the majorants bound.
        """
        b = self.walk(point, 0.0)
        size = float((b["c2"] * b["Z1"] ** 2 + b["c1"] * b["Z2"]).sum()) + float(self.rows.l2.max())
        depth = 8 * (sum(self.rows.sizes) + len(self.rows.X) + 32 * len(self.rows.sizes))
        return float(depth * EPS * size * UP * math.sqrt(self.n_params))

    def margins(self, point: Floats, radius: float) -> Margins:
        """Whether signs, slopes and e > 0 hold everywhere on the ball around (theta, t)."""
        b = self.walk(point, radius)
        signs = slopes = upward = opening = leaving = np.inf
        d0, d1 = b["c1"], b["c2"] * b["Z1"]
        _, _, zs, es = self.passes(np.asarray(point, dtype=float))
        at = np.asarray(point[self.n_theta :], dtype=float)
        for l in reversed(range(len(self.gates))):
            active, z, held = self.active[l], np.abs(zs[l]), b["units"][l]
            change = d1 * b["A0"][l] + d0 * b["A1"][l]
            if self.collapsed[l].any():
                opening = min(opening, self._opening(point, l) - radius * float(change.sum()))
            if self.n_copies and self.copies.families(l).any():
                turned = (1 + b["gates"][l]) * change + held * d0 * b["A0"][l]
                leaving = min(leaving, self._leaving(point, l) - radius * float(turned.sum()))
            w = b["weights"][l + 1]
            e0, e1 = w * d0, (w * d1 + d0) * UP
            rounding = 1e4 * EPS * (1 + e0)
            off = radius * b["reach"][l] + 1e4 * EPS * b["reach"][l] * b["weights"][l]
            free = ~active & ~self.collapsed[l] & self.felt[l]
            signs = min(signs, float(np.where(free, z - off[:, None], np.inf).min()))
            e = np.where(active, es[l] - (radius * e1 + rounding)[:, None], np.inf)
            upward = min(upward, float(e.min()))
            d0, d1 = b["gates"][l] * e0, (b["gates"][l] * e1 + held * e0) * UP
        if at.size:
            low = np.concatenate(
                [np.full(int(a.sum()), leak) for a, leak in zip(self.active, self.rows.leaks)]
            )
            slopes = float((np.minimum(at - low, 1 - at) - radius * self.units).min())
        return Margins(signs, slopes, upward, opening, leaving)

    def _around(self, point: Floats, l: int) -> tuple[Floats, Floats, Floats]:
        """By rows: dL/dz of the layer above hidden layer l, the slopes of l, and what comes into l
        (a 1 for a bias included).
        """
        layers, gates, below, zs = self.forward(np.asarray(point, dtype=float))
        d = self.rows.terms(zs[-1])[1]
        for k in reversed(range(l + 1, len(gates))):
            d = (d @ layers[k + 1][0]) * gates[k]
        x = below[l]
        if self.rows.bias:
            x = np.column_stack([x, np.ones(len(x))])
        return d, gates[l], x

    def _leaving(self, point: Floats, l: int) -> float:
        """By how much l2 exceeds the second singular value of the families' Q in hidden layer l,
        what a copy can gain across its orbit.
        """
        d, gates, x = self._around(point, l)
        least = float(self.rows.l2.min())
        if float(self.rows.l2.max()) != least:
            return -np.inf  # the decay of a bias is not that of a weight
        rounding = 1e-13 * float(np.linalg.norm(d) * np.linalg.norm(x) + 1)
        gains = [
            float(svdvals((d * gates[:, i : i + 1]).T @ x)[1])
            for i in np.flatnonzero(self.copies.families(l))
            if min(d.shape[1], x.shape[1]) > 1
        ]
        return least - max(gains, default=0.0) * (1 + 1e-9) - rounding

    def _opening(self, point: Floats, l: int) -> float:
        """By how much l2 exceeds what a unit opened in hidden layer l can gain, to second order.

        A unit with weights u in (a bias included) and v out, both small, adds ``v'sum d relu(u
        x)``, d = dL/dz of the layer above: at most ``|u| |v| M`` with M the largest norm of the sum
        over unit u. As ``relu(t) = (t + |t|) / 2``, and by Cauchy-Schwarz, ``M <= |sum d x'| / 2 +
        sqrt(sum |d| lambda_max(sum |d| x x')) / 2``; where the layer above has one unit, for each
        sign of v with the rows in the second term that gain from it. Where x are nearly multiples
        of one vector, as above a layer that has collapsed, u has two sides alone.
        """
        d, _, x = self._around(point, l)
        sides = [np.linalg.norm(d, axis=1)]
        if d.shape[1] == 1:
            sides = [np.maximum(d[:, 0], 0.0), np.maximum(-d[:, 0], 0.0)]
        linear, leak, M = float(np.linalg.norm(d.T @ x, 2)), self.rows.leaks[l], 0.0
        for side in sides:
            spread = float(np.linalg.norm(x * np.sqrt(side)[:, None], 2)) ** 2
            gain = 0.5 * (linear + (float(side.sum()) * spread) ** 0.5)
            if d.shape[1] == 1:
                gain = min(gain, 0.5 * (float(np.linalg.norm(side @ x)) + 2 * gain - linear))
            M = max(M, leak * linear + (1 - leak) * gain)
        M = min(M, _along_one_line(d, x, leak))
        rounding = 1e-13 * float(np.linalg.norm(d) * np.linalg.norm(x) + 1)
        return float(self.rows.l2.min()) - M * (1 + 1e-9) - rounding


def _along_one_line(d: Floats, x: Floats, leak: float) -> float:
    """A bound on ``|sum d relu(u x)|`` over unit u, sharp where x are multiples of one vector."""
    e = svd(x)[2][0]
    t = x @ e
    sides = [np.where(way > 0, way, leak * way) @ d for way in (t, -t)]
    rest = np.linalg.norm(x - np.outer(t, e), axis=1)
    off = float(np.linalg.norm(d, axis=1) @ rest) * (1 + 1e-12)
    return max(float(np.linalg.norm(side)) for side in sides) + off


def _double(x: NDArray[Any]) -> Floats:
    return np.asarray(x, dtype=np.float64)


def _product_error(
    a: NDArray[Any], a_off: NDArray[Any], B: NDArray[Any], B_off: NDArray[Any] | None = None
) -> Floats:
    """By entries, what ``a @ B`` in long double is off by, a and B carrying errors of their own."""
    sizes, other = _double(abs(a)), _double(abs(B))
    found = (a.shape[1] + 4) * LONG * (sizes @ other) + _double(a_off) @ other
    if B_off is not None:
        found = found + (sizes + _double(a_off)) @ _double(B_off)
    return np.asarray(found)


def felt(gates: Arrays) -> list[NDArray[np.bool_]]:
    """Where a kink has an effect: not all units above are off in its row. NaN is a slope."""
    found: list[NDArray[np.bool_]] = []
    here = np.ones(len(gates[0]), dtype=bool)
    for gate in reversed(gates):
        found.append(np.repeat(here[:, None], gate.shape[1], axis=1))
        here = here & (gate != 0).any(axis=1)
    return found[::-1]
