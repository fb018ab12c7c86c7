"""Bounds for networks whose rows are independent of one another, computed for a chunk of rows at a
time. The module docstring of `fastcurv.certify.bounds` has the model and the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from ..common.checks import check_choice, check_vector
from ..common.progress import cache_last
from ..common.protocols import Floats
from ..structure.parameters import divisor_of, l2_diagonal, layers_of, skips
from ..structure.tables import LOSSES, bell, one_hot
from .arithmetic import (
    ELEMENTARY,
    ETA,
    FLOOR,
    Arithmetic,
    Chain,
    Err,
    Operand,
    Phi,
    Sums,
    at_most,
    flushes,
    gram_bound,
    norm,
    norms,
    product,
    scaled,
    stack_norms,
)

# --------------------------------------------------------------------------------------------------
# The state at theta with bounds on its errors: forward and backward pass.


class Came(NamedTuple):
    """The result of a step back through a layer: e, its error, and the norms of the error that is
    new there.
    """

    e: Floats
    de: Err
    new: Any


class State:
    """The state at theta for some rows, each quantity with its `Err`: a (below each layer), z, p,
    q, eq and d.
    """

    a: list[Floats]
    da: list[Any]  # Err; None below the first layer
    z: list[Floats]
    dz: list[Err]
    phi: list[Phi]
    d: list[Any]
    dd: list[Any]
    eq: list[Any]  # None where phi'' is 0
    deq: list[Any]
    kappa: dict[tuple[int, int], Floats] | None

    def __init__(self, rounding: Any, rows: slice) -> None:
        self.R, self.rows, L = rounding, rows, len(rounding.W)
        self.a, self.da = [rounding.ob.X[rows].astype(float)], [None]
        self.z, self.dz, self.phi = [], [], []
        self.d, self.dd, self.eq, self.deq = ([None] * L for _ in range(4))
        self.forward()
        self.backward()

    def forward(self) -> None:
        """Run the forward pass: ``z = a W' + b``, ``a = phi(z) [+ the layer's input]``."""
        R = self.R
        products: dict[int, tuple[Floats, Floats]] = {}
        self.kappa = {} if R.joint else None
        chain = Chain(self.kappa)
        for l, (W, b) in enumerate(zip(R.W, R.b)):
            a, da = self.a[l], self.da[l]
            z = a @ W.A.T + b
            size = product(at_most(a, da), W.abs.T) + np.abs(b)
            local = R.local(size, W.A.shape[1], 1)
            dz = local if da is None else local + da.across(W)
            self.z.append(z)
            self.dz.append(dz)
            if l == len(R.W) - 1:
                continue
            phi = Phi(R.names[l], z, dz, R.arithmetic, R.skips[l], local)
            self.phi.append(phi)
            above, error, fresh = phi.a, phi.da, phi.fresh
            if R.skips[l]:
                above = above + a
                error, rounded = R.sum_rounded(above, error, da)
                fresh = fresh + rounded
            if R.joint:
                self.join(products, l)
            self.a.append(above)
            self.da.append(chain.cap(l + 1, error, fresh))
        self.loss = R.loss_rows(self.rows, z, dz)

    def join(self, products: dict[int, tuple[Floats, Floats]], l: int) -> None:
        """Multiply the products of the layers below l by layer l, ``D W [+ I]`` for each row, with
        bounds on the effect of underflow; record the norms of the products in `kappa`.
        """
        W, p, skip = self.R.W[l], self.phi[l].p, self.R.skips[l]
        assert self.kappa is not None
        for i, (K, off) in products.items():
            above, off_above = W.A @ K, scaled(off, W.norm) + K[0].size * W.A.size * ETA
            if p is not None:
                above, top = p[:, :, None] * above, np.abs(p).max(axis=1, keepdims=True)
                off_above = scaled(off_above, top) + above[0].size * ETA
            products[i] = (above + K, off_above + off) if skip else (above, off_above)
            self.kappa[i, l + 1] = stack_norms(products[i][0]) + products[i][1]
        products[l + 1] = np.eye(len(W.A))[None], np.zeros((1, 1))

    def backward(self) -> None:
        """Run the backward pass: ``e_below = delta W [+ e]``, ``delta = e * phi'``, ``e *
        phi''``.
        """
        R, L = self.R, len(self.R.W)
        chain = Chain(self.kappa)
        self.d[-1], self.dd[-1], came = self.loss.d, self.loss.dd, None
        for l in range(L - 1, 0, -1):
            self.d[l - 1], self.dd[l - 1], came = self.step_back(
                l, chain, self.d[l], self.dd[l], came
            )
            self.eq[l - 1], self.deq[l - 1] = self.phi[l - 1].curvature(
                R, came.e, came.de, self.d[l - 1], self.dd[l - 1]
            )

    def step_back(
        self, l: int, chain: Chain, d: Floats, dd: Err, above: Came | None
    ) -> tuple[Floats, Err, Came]:
        """Propagate d and its error from layer l to the one below, for delta or another vector that
        goes the same way.

        `above` is the `Came` of layer l itself, None at the top.
        """
        R, W = self.R, self.R.W[l]
        size = product(at_most(d, dd), W.abs)
        e, local, carried = d @ W.A, R.local(size, W.A.shape[0], 1), dd.back(W)
        error = local + carried
        fresh = local.nu + (carried.nu if above is None else scaled(above.new, W.norm))
        if above is not None and R.skips[l]:
            e = e + above.e
            error, rounded = R.sum_rounded(e, error, above.de)
            fresh = fresh + rounded
        de, phi = chain.cap(l, error, fresh), self.phi[l - 1]
        d, dd, new = R.times(e, de, phi.p, phi.dp)
        return d, dd, Came(e, de, new)


# --------------------------------------------------------------------------------------------------
# Errors of the loss rows: delta = dL/dz, and rdelta = (d2L/dz2) rz.


class LossRows:
    """The derivative delta = dL/dz of the last layer, and the quantities from which ``rdelta =
    (d2L/dz2) rz`` is computed, with their errors.

    Parameters
    ----------
    loss : str
    z, dz : ndarray (rows, m), Err
    y : ndarray
        Targets (rows, m), or classes (rows,).
    weight : ndarray (rows,) or None
    divisor : float
    arithmetic : Arithmetic
    """

    d: Floats
    dd: Err
    h: Floats
    dh: Any
    p: Floats
    near: Any
    tie: Any
    top: Any
    off: np.ndarray
    dp: np.ndarray
    bend: Any

    def __init__(
        self,
        loss: str,
        z: Floats,
        dz: Err,
        y: NDArray[Any],
        *,
        weight: Floats | None,
        divisor: float,
        arithmetic: Arithmetic,
    ) -> None:
        self.loss, self.arithmetic = loss, arithmetic
        self.f = np.full((len(z), 1), 1.0) if weight is None else weight.astype(float)[:, None]
        moves = self.f != 0
        self.f = np.maximum(np.abs(self.f) / divisor, ETA * moves)  # the signs are restored below
        sign = 1.0 if weight is None else np.sign(weight.astype(float))[:, None]
        with np.errstate(divide="ignore"):
            self.uf = np.where(moves, 3 * arithmetic.u + arithmetic.eta / self.f, 0.0)
        of = {"identity": self._squares, "sigmoid": self._binary, "softmax": self._entropy}
        of[LOSSES[loss].link](z, dz, y)
        self.d, self.h = sign * self.d, sign * self.h

    def _squares(self, z: Floats, dz: Err, y: NDArray[Any]) -> None:
        """Compute delta = 2 f (z - y) and h = 2 f."""
        u, eta, gap = self.arithmetic.u, self.arithmetic.eta, z - y
        self.d, self.h = 2 * self.f * gap, np.broadcast_to(2 * self.f, z.shape)
        size = at_most(gap, dz)
        rounding = scaled(2 * self.f * (self.uf + 3 * u), size) + eta * (size > 0) * (self.f > 0)
        self.dd = dz.times(2 * self.f) + Err(rounding)
        self.dh = Err(self.h * (self.uf + u))

    def _binary(self, z: Floats, dz: Err, y: NDArray[Any]) -> None:
        """Compute delta = f (s - y), evaluated as f ((1 - y) - small) for z > 0, and h = f s (1 -
        s), |h'| <= h.
        """
        r, t = self.arithmetic, np.abs(z)
        small, d = expit(-t), bell(t)
        rest = np.where(z > 0, 1 - y, -y)
        size = small + np.where(t <= dz.E, np.abs(y) + np.abs(1 - y), np.abs(rest))
        curve = dz.times(scaled(self.f, bell(np.maximum(t - dz.E, 0))))
        local = r.elementary + self.uf
        floor = np.where(t > 1, FLOOR * r.tiny, r.eta) * self.f + r.eta
        self.d, self.h = self.f * (rest - np.where(z > 0, small, -small)), self.f * d
        self.dd, self.dh = (
            curve + Err(self.f * local * size + floor),
            curve + Err(self.f * local * d + floor),
        )

    def _entropy(self, z: Floats, dz: Err, y: NDArray[Any]) -> None:
        """Compute delta_j = f (T p_j - y_j), at the largest logit as minus the sum of the others; p
        is kept with its error `dp`.

        Off the top ``|dp_j| <= g p_j (E_j + sum of p_k E_k)``, at the top ``g p sum of p_k E_k``,
        the sums without the top and E the error of ``z_j - z_top``; ``g = exp(4 max dz)`` is the
        factor by which p p' can grow over z +- dz. Rows in which rounding may change which logit is
        largest have no top.
        """
        r, m = self.arithmetic, z.shape[1]
        y = one_hot(y, m)
        high, widest = z.max(axis=1, keepdims=True), dz.E.max(axis=1, keepdims=True)
        self.near = z >= high - 2 * widest
        first = np.arange(m) == z.argmax(axis=1)[:, None]
        self.tie = self.near.sum(axis=1, keepdims=True) > 1
        self.top = first & ~self.tie
        e = np.exp(z - high)
        S = np.where(first, 0, e).sum(axis=1, keepdims=True)
        share = 1 / (1 + S)
        self.p, T, size = (
            e * share,
            y.sum(axis=1, keepdims=True),
            np.abs(y).sum(axis=1, keepdims=True),
        )
        self.off = np.where(self.top, 0, self.p)
        E = self._centred(dz.E)
        # NumPy rounds z - top before exp
        local = r.gamma(m + 1000 if r.own else m + 2 * ELEMENTARY)
        moved = (
            np.exp(np.minimum(4 * widest, 700.0))
            * self.p
            * (E + (self.off * E).sum(axis=1, keepdims=True))
        )
        moved = np.where(widest < 20, np.minimum(moved, 1.0), 1.0)
        self.dp = np.minimum(moved + local * self.p, 1.0) + r.tiny
        others = np.where(self.top, 0, np.abs(y)).sum(axis=1, keepdims=True)
        size_d = np.where(self.tie & self.near, 2 * size, size * self.p + np.abs(y))
        size_d = np.where(self.top, others + size * S * share, size_d)
        self.d = self.f * np.where(
            first, np.where(first, 0, y).sum(axis=1, keepdims=True) - T * S * share, T * self.p - y
        )
        self.h, self.dh = self.f * T, self.f * size * (local + self.uf)  # (rows, 1)
        p_top = np.where(first, S * share, 1 - self.p)
        # Gershgorin: >= ||diag p - p p'||
        self.bend = np.minimum((2 * self.p * p_top).max(axis=1, keepdims=True), 0.5)
        grown = np.where(widest < 20, np.exp(np.minimum(4 * widest, 80)) * self.bend, 0.5)
        whole = scaled(self.f, np.abs(T))
        rounded = Err(
            self.f * ((local + self.uf) * size_d + m * r.tiny * np.maximum(size, 1)) + 4 * r.eta
        )
        carried = scaled(whole * np.minimum(grown, 0.5), dz.nu)
        self.dd = Err(scaled(whole, moved), carried) + rounded

    def _centred(self, E: Floats) -> Floats:
        """Return the errors of the differences to the top logit: 0 there; relative to the worst
        candidate in rows without a top.
        """
        centre = np.where(np.where(self.tie, self.near, self.top), E, 0).max(axis=1, keepdims=True)
        return np.where(self.top, 0, E + centre)

    def r_loss(self, rz: Floats, drz: Err) -> tuple[Floats, Err]:
        """Return (rdelta, its Err)."""
        if LOSSES[self.loss].per_entry:
            rd, H = self.h * rz, np.abs(self.h) + self.dh.E
            error = drz.times(H) + self.dh.times(np.abs(rz))
            moves = (H > 0) & (at_most(rz, drz) > 0)
            rounding = self.arithmetic.u * at_most(rd, error) + self.arithmetic.eta * moves
            return rd, error + Err(rounding)
        at = np.take_along_axis(rz, self.p.argmax(axis=1)[:, None], axis=1)
        U, r, m = rz - at, self.arithmetic, rz.shape[1]
        w = U - (self.p * U).sum(axis=1, keepdims=True)
        size = np.abs(U) + np.where(
            self.tie, np.where(self.near, np.abs(U), 0).max(axis=1, keepdims=True), 0.0
        )
        E = self._r_entropy(size, w, self._centred(drz.E))
        own = self._r_entropy(size, w, 0.0)
        carried = scaled(self._most(), drz.nu)
        return self.h * self.p * w, Err(E, norms(own) + carried + r.gamma(m + 8) * norms(E))

    def _most(self) -> Floats:
        """Return bounds on ``||d2 loss / dz2||`` by rows, (rows, 1), errors of p included."""
        tiny, m = self.arithmetic.tiny, self.p.shape[1]
        normal = self.p > 1024 * tiny
        spread = np.where(normal, self.dp / np.where(normal, self.p, 1), 0)
        spread = 1 + spread.max(axis=1, keepdims=True)
        return np.asarray((np.abs(self.h) + self.dh) * (self.bend * spread**2 + 4096 * m * tiny))

    def _r_entropy(self, size: Floats, w: Floats, E: Floats | float) -> Floats:
        """Return bounds on the errors of ``s p (u - <p, u>)``, with u = rz - rz_top off by E and by
        its own rounding.
        """
        r, m = self.arithmetic, w.shape[1]
        s, P = np.abs(self.h) + self.dh, self.p + self.dp
        E = np.where(self.top, 0, E + r.u * (size + E))
        sums = np.where(self.top, 0, P * E + self.dp * size + r.gamma(m + 1) * P * (size + E))
        sums = sums.sum(axis=1, keepdims=True) + m * r.eta
        whole = np.abs(w) + E + sums  # s p is made first, and may underflow
        found = s * P * (E + sums + 4 * r.u * whole) + 4 * r.eta * (1 + whole)
        found += (s * self.dp + self.dh * self.p) * np.abs(w)
        return np.where(whole + size < r.max / 4, found, np.inf)

    def fisher(self, rz: Floats, drz: Err) -> tuple[Floats, Err]:
        """Return (rdelta, its Err) of ``rdelta = N <delta, rz> delta``."""
        r, d, size = self.arithmetic, np.abs(self.d), np.abs(rz)
        along = (self.d * rz).sum(axis=1, keepdims=True)
        moved = ((d + self.dd.E) * drz.E + self.dd.E * size).sum(axis=1, keepdims=True)
        by_rows = scaled(norms(d) + self.dd.nu, drz.nu) + scaled(self.dd.nu, norms(size))
        moved = np.minimum(moved, by_rows)
        moved += (
            r.gamma(d.shape[1] + 2) * ((d + self.dd.E) * (size + drz.E)).sum(axis=1, keepdims=True)
            + 4 * d.shape[1] * r.eta
        )
        rd = r.N * along * self.d
        moved, along = r.N * moved, r.N * np.abs(along)
        moved = np.where(moved + along < r.max, moved, np.inf)
        error = Err(
            moved * (d + self.dd.E) + along * self.dd.E,
            moved * (norms(d) + self.dd.nu) + along * self.dd.nu,
        )
        return rd, error + Err(3 * r.u * (np.abs(rd) + moved * d) + 4 * r.eta)

    def r_norms(self) -> tuple[Floats, Floats]:
        """Return (B, C), each (rows, 1): ``||rdelta|| <= (B + C) ||rz||``, and the error of rdelta
        is at most ``C ||rz|| + (B + C) ||drz||``.
        """
        r = self.arithmetic
        if LOSSES[self.loss].per_entry:
            B = np.abs(self.h).max(axis=1, keepdims=True)
            return B, self.dh.E.max(axis=1, keepdims=True) + 2 * r.u * B + r.eta
        m, first = self.p.shape[1], np.arange(self.p.shape[1]) == self.p.argmax(axis=1)[:, None]
        root = math.sqrt(2.0)  # |rz_j - rz_k| <= sqrt(2) ||rz||
        size = np.where(first, 0.0, root) + np.where(self.tie, root, 0.0)
        others = root * np.where(first, 0.0, self.p).sum(axis=1, keepdims=True)
        own = self._r_entropy(size, np.where(first, others, root + others), 0.0)
        B = self._most()
        return B, norms(own) * (1 + r.gamma(m + 8)) + r.gamma(m + 8) * B

    def fisher_norms(self) -> tuple[Floats, Floats]:
        """Return the numbers of `r_norms` for ``rdelta = N <delta, rz> delta``."""
        r, d = self.arithmetic, norms(np.abs(self.d))
        whole = d + self.dd.nu
        rounding = r.gamma(self.d.shape[1] + 6)
        lost = scaled(self.dd.nu, whole + d) + scaled(rounding * whole, whole)
        return r.N * scaled(d, d), r.N * lost

    def r_lost(self) -> Floats:
        """Return bounds on the effect of underflow on the norms of rdelta, in `r_loss` and
        `fisher`, (rows, 1).
        """
        r, m = self.arithmetic, self.d.shape[1]
        size = np.abs(self.h) + (self.dh.E if LOSSES[self.loss].per_entry else self.dh)
        size = size.max(axis=1, keepdims=True) + r.N * (norms(np.abs(self.d)) + self.dd.nu)
        return np.asarray(2 * m * r.eta * (1 + size))


KINDS = ("hessian", "ggn", "fisher")
CHUNK_BYTES = 1 << 25  # of the state of one chunk of rows
KEPT_BYTES = 1 << 27  # up to which the state of all rows is kept for the next vector
JOINT_FLOPS = 1 << 30  # up to which products of layers are computed for every row


def _gram(x: Floats, alone: bool) -> Floats:
    """Return ``x'x``, or the smaller ``x x'`` if x holds all rows: both have the same norm."""
    return x @ x.T if alone and len(x) < x.shape[1] else x.T @ x


class ErrorPass:
    """Bounds at one theta: what does not depend on v is computed once and, up to 128 MiB, kept.

    Parameters
    ----------
    ob : Objective
    theta : array_like (n,)
    layout : dict, optional
        `Curvature.layout` of the operator in question; by default that of the objective's own
        plans.
    measured : bool
        Bound our own float64 passes instead of the engine's; `gradient` and `product` then need the
        computed result, and bound its error by comparison.
    """

    of_rows: Any = State  # class of the state of some rows
    kept: list[Any] | None
    grams: list[tuple[float, float]] | None
    b: Any

    def __init__(
        self,
        ob: Any,
        theta: ArrayLike,
        layout: Mapping[str, Any] | None = None,
        measured: bool = False,
    ) -> None:
        self.ob, self.theta, self.measured = ob, np.array(ob.model.check_theta(theta)), measured
        self.row_bytes = 8 * 16 * sum(ob.model.sizes)
        self.step = ob.n_samples if ob.model.batch_norm else max(1, CHUNK_BYTES // self.row_bytes)
        if measured:
            layout = {"arch": "numpy", "chunk": self.step, "panel": 0, "groups": 0}
        elif layout is None:
            plan = ob._lend_plan()
            layout = plan.layout
            ob._take_back(plan)
        self.arithmetic = Arithmetic(
            np.dtype(float) if measured else ob.dtype, layout, ob.n_samples
        )
        self.names, self.skips = ob.model.activation, tuple(ob.model.skips) + (False,)
        layers = layers_of(ob.model, self.theta)
        self.W = [Operand(W.astype(float)) for W, _ in layers]
        self.b = [np.zeros(len(W)) if b is None else b.astype(float) for W, b in layers]
        self.overflow, self.kept, self.grams = False, None, None
        widths = ob.model.sizes[1:-1]
        pairs = [
            10 * widths[i] * widths[m] * min(widths[i], widths[m])
            for m in range(len(widths))
            for i in range(m)
        ]
        self.joint = ob.n_samples * sum(pairs) <= JOINT_FLOPS

    # --- one step
    # ----------------------------------------------------------------------------------------------

    def within(self, size: Floats) -> None:
        """Record an overflow if numbers of that size may overflow in the engine."""
        if not size.max(initial=0.0) < self.arithmetic.max:
            self.overflow = True

    def local(self, size: Floats, k: int, terms: int) -> Err:
        """Return the Err of a sum of `terms` products of inner dimension k, with `size` the same
        sum of absolute values; the error is 0 only where `size` is.
        """
        self.within(size)
        depth = self.arithmetic.depth(k, terms) + 1
        return Err(self.arithmetic.gamma(depth) * size + (size > 0) * (depth * self.arithmetic.eta))

    def sum_rounded(self, total: Floats, error: Err, other: Err | None) -> tuple[Err, Floats]:
        """Return (Err of a sum of two inexact matrices, rounded; norms of that rounding); other
        None means that the second matrix is exact.
        """
        error = error if other is None else error + other
        size = at_most(total, error)
        self.within(size)
        rounding = Err(self.arithmetic.u * size)
        return error + rounding, rounding.nu

    def times(
        self, x: Floats, dx: Err, p: Floats | None, dp: Err | None
    ) -> tuple[Floats, Err, Any]:
        """Return (x * p, its Err, norms of the part of the error that is not p times that of x); p
        None means 1.
        """
        if p is None:
            return x, dx, 0.0
        assert dp is not None
        found, other = x * p, dp.times(at_most(x, dx))
        error = dx.times(np.abs(p)) + other
        size, moves = at_most(found, error), (at_most(x, dx) > 0) & (at_most(p, dp) > 0)
        self.within(size)
        rounding = Err(self.arithmetic.u * size + self.arithmetic.eta * moves)
        return found, error + rounding, other.nu + rounding.nu

    def loss_rows(self, rows: slice, z: Floats, dz: Err) -> LossRows:
        """Return the `LossRows` of some rows, at z of the last layer."""
        y, weight = self.ob.y[rows], self.ob.sample_weight
        loss = LossRows(
            self.ob.loss,
            z,
            dz,
            np.array(y, dtype=None if y.dtype.kind == "i" else float),
            weight=None if weight is None else weight[rows],
            divisor=divisor_of(self.ob),
            arithmetic=self.arithmetic,
        )
        self.within(at_most(loss.d, loss.dd))
        return loss

    # --- all rows
    # ----------------------------------------------------------------------------------------------

    def states(self) -> Iterator[Any]:
        """Yield the states of all rows, chunk by chunk."""
        if self.kept is not None:
            yield from self.kept
            return
        N = self.ob.n_samples
        all_fit = self.step >= N or N * self.row_bytes <= KEPT_BYTES
        self.overflow |= flushes()
        keep: list[Any] | None = [] if all_fit else None
        for first in range(0, N, self.step):
            state = self.of_rows(self, slice(first, min(N, first + self.step)))
            if keep is not None:
                keep.append(state)
            yield state
        self.kept = keep

    def new_sums(self) -> list[Sums]:
        """Return `Sums` for each layer; the spectral norms of a and delta over all rows are
        computed on first use.
        """
        if self.grams is None:
            grams: Any = None
            alone = self.ob.n_samples <= self.step
            for state in self.states():
                here = [_gram(x, alone) for pair in zip(state.a, state.d) for x in pair]
                grams = here if grams is None else [G + H for G, H in zip(grams, here)]
            norms = [math.sqrt(gram_bound(G)) if G.max() > 1e-280 else np.inf for G in grams]
            self.grams = list(zip(norms[::2], norms[1::2]))
        return [Sums(W.A.shape, *pair) for W, pair in zip(self.W, self.grams)]

    def gammas(self, terms: int) -> tuple[float, float]:
        """Return gamma of the sums over rows: (for weights, for biases)."""
        r = self.arithmetic
        return r.gamma(r.over_rows(terms)), r.gamma(r.over_columns())

    @property
    def slack(self) -> float:
        """Factor that leaves room for second-order terms and for our own rounding."""
        return 1 + 1e-6 + 256 * len(self.W) * self.arithmetic.u

    def total(
        self, sums: list[Sums], terms: int, x: Floats, l2: Any, computed: Floats | None
    ) -> float:
        """Return the Euclidean norm of the layers' bounds and of the rounding when ``l2 x`` is
        added; if `measured`, plus the distance of our result from the computed one.
        """
        r = self.arithmetic
        eta, ends = 2 * r.eta * (r.N + r.over_rows(terms)), r.gamma(r._partial_sums() + 2)
        sizes = [x.max(initial=0.0) for s in sums for x in (s.B, s.b)]
        if any(not x < r.gamma(1) * r.max for x in sizes) or self.overflow or flushes():
            return np.inf
        gamma = r.gamma(max(r.over_rows(terms), r.over_columns()) + 3)
        bounds = [bound for s in sums for bound in s.bounds(eta, ends)]
        decay = norm(scaled(l2, np.abs(x)))
        bound = self.slack * (norm(bounds) + gamma * decay + (decay > 0) * r.eta * len(x))
        if self.measured:
            ours = [part for s in sums for part in s.values(self.ob.model.bias)]
            bound += norm(np.asarray(computed, float) - (np.concatenate(ours) + l2 * x))
        return float(bound) if np.isfinite(bound) else np.inf

    def gradient(self, computed: Floats | None = None) -> float:
        """Return a bound on ``||computed gradient - gradient||``."""
        with np.errstate(all="ignore"):
            sums = self.new_sums()
            for state in self.states():
                self.add_gradient(state, sums)
            return self.total(sums, 1, self.theta.astype(float), l2_diagonal(self.ob), computed)

    def add_gradient(self, state: Any, sums: list[Sums]) -> None:
        """Add ``dW = delta' a`` and ``db`` of some rows."""
        for l in range(len(sums)):
            self.add_products(state, l, (state.d[l], state.dd[l]), (None, None), sums, 1)

    def add_products(
        self, s: Any, l: int, d: tuple[Any, Any], ra: tuple[Any, Any], sums: list[Sums], terms: int
    ) -> None:
        """Add the contributions of some rows to layer l's ``d' a + delta' ra`` and to the sum of
        d's rows, for d and ra with their `Err`; ra None means 0, and `terms` is the number of such
        products.
        """
        weights, biases = self.gammas(terms)
        sums[l].add("a", *d, s.a[l], s.da[l], weights)
        if not self.ob.model.batch_norm or l == len(sums) - 1:  # else rdbeta takes its place
            sums[l].add_rows(*d, biases)
        if ra[0] is not None:
            sums[l].add("ra", s.d[l], s.dd[l], *ra, weights)

    def checked(self, v: ArrayLike, kind: str) -> Floats | None:
        """Return v (n,) in the model's dtype; None if it is not finite, when nothing can be
        bounded.
        """
        check_choice(kind, KINDS, "kind")
        known: Floats = np.asarray(v, self.ob.dtype)
        if known.shape != self.theta.shape:
            raise ValueError(f"v has shape {known.shape}; wanted {self.theta.shape}")
        return known if np.isfinite(known).all() else None

    def product(self, v: ArrayLike, kind: str = "hessian", computed: Floats | None = None) -> float:
        """Return a bound on ``||computed(A v) - A v||`` for v (n,)."""
        known = self.checked(v, kind)
        if known is None:
            return np.inf
        with np.errstate(all="ignore"):
            sums, direction = self.new_sums(), self.direction(known)
            at_theta = self.overflow
            for state in self.states():
                self.r_pass(state, direction, kind, sums)
            l2 = l2_diagonal(self.ob) if kind != "fisher" else 0.0
            bound = self.total(sums, 2, known.astype(float), l2, computed)
            self.overflow = at_theta
            return bound

    def direction(self, v: Floats) -> list[Any]:
        """Return ``[(V, vb)]`` of v (n,), None for parts that are 0."""
        return [
            (
                Operand(V.astype(float)) if V.any() else None,
                None if vb is None or not vb.any() else vb.astype(float),
            )
            for V, vb in layers_of(self.ob.model, v)
        ]

    # --- R-forward, loss, R-backward
    # ----------------------------------------------------------------------------------------

    def r_forward(self, s: State, layers: list[Any]) -> tuple[list[Any], list[Any]]:
        """Run the R-forward pass: ``rz = ra W' + a V' + vb``, ``ra = phi' * rz [+ the input's
        ra]``. Return ra and rz with their Errs, by layer; None means 0.
        """
        ra: list[Any] = [(None, None)]
        rz: list[Any] = []
        chain = Chain(s.kappa)
        for l, (V, vb) in enumerate(layers):
            r, dr = ra[l]
            if V is None and vb is None and r is None:
                rz.append((None, None))
                ra.append((None, None))
                continue
            z, dz, new = self.moved(s, l, V, vb, ra[l])
            rz.append((z, dz))
            if l < len(self.W) - 1:
                p = s.phi[l].p
                above, error, fresh = self.times(z, dz, p, s.phi[l].dp)
                fresh = fresh + (new if p is None else new.times(np.abs(p))).nu
                if self.skips[l] and r is not None:
                    above = above + r
                    error, rounded = self.sum_rounded(above, error, dr)
                    fresh = fresh + rounded
                ra.append((above, chain.cap(l + 1, error, fresh)))
        return ra, rz

    def moved(
        self, s: Any, l: int, V: Operand | None, vb: Floats | None, below: tuple[Any, Any]
    ) -> tuple[Floats, Err, Err]:
        """Return ``rz = ra W' + a V' + vb``, its Err, and the part of that which is new in this
        layer. V, vb and the (ra, its Err) `below` are None for 0, but not all three.
        """
        a, da, W, (r, dr) = s.a[l], s.da[l], self.W[l], below
        z, moved = np.zeros((len(a), len(W.A))), None
        size: Any = 0.0
        if vb is not None:
            z, size = z + vb, size + np.abs(np.broadcast_to(vb, z.shape))
        if V is not None:
            z, size = z + a @ V.A.T, size + product(at_most(a, da), V.abs.T)
            moved = None if da is None else da.across(V)
        if r is not None:
            z, size = z + r @ W.A.T, size + product(at_most(r, dr), W.abs.T)
        new = self.local(size, W.A.shape[1], 2)
        new = new if moved is None else new + moved
        return z, new if r is None else new + dr.across(W), new

    def back(
        self, s: Any, l: int, rd: Floats, drd: Err, V: Operand | None
    ) -> tuple[Floats, Err, Floats, Floats]:
        """Return ``rdelta W [+ delta V]``, its Err, and the norms of the propagated error and of
        the new error.
        """
        W, added = self.W[l], np.zeros((1, 1))
        below, size, carried = rd @ W.A, product(at_most(rd, drd), W.abs), drd.back(W)
        error = carried
        if V is not None:
            below, size = below + s.d[l] @ V.A, size + product(at_most(s.d[l], s.dd[l]), V.abs)
            moved = s.dd[l].back(V)
            error, added = error + moved, moved.nu
        local = self.local(size, W.A.shape[0], 2)
        return below, error + local, carried.nu, added + local.nu

    def r_pass(self, s: Any, layers: list[Any], kind: str, sums: list[Sums]) -> None:
        """Run the R-passes of some rows and add to the sums: ``rdW = rdelta' a + delta' ra``,
        ``re_below = rdelta W + delta V [+ re]``, ``rdelta = re * phi' + e * phi'' * rz``.
        """
        full, (ra, rz) = kind == "hessian", self.r_forward(s, layers)
        if rz[-1][0] is None:  # v = 0
            return
        rd, drd = s.loss.fisher(*rz[-1]) if kind == "fisher" else s.loss.r_loss(*rz[-1])
        re: Any = None
        dre: Any = None
        chain = Chain(s.kappa)
        new: Any = 0.0
        for l in range(len(self.W) - 1, -1, -1):
            self.add_products(s, l, (rd, drd), ra[l] if full else (None, None), sums, 2)
            if l == 0:
                continue
            below, error, carried, added = self.back(s, l, rd, drd, layers[l][0] if full else None)
            fresh = (carried if re is None else scaled(new, self.W[l].norm)) + added
            if self.skips[l]:
                below = below + re
                error, rounded = self.sum_rounded(below, error, dre)
                fresh = fresh + rounded
            re, dre, phi = below, chain.cap(l, error, fresh), s.phi[l - 1]
            rd, drd, new = self.times(re, dre, phi.p, phi.dp)
            if full and phi.q is not None and rz[l - 1][0] is not None:
                more, error, _ = self.times(s.eq[l - 1], s.deq[l - 1], *rz[l - 1])
                rd = rd + more
                drd, rounded = self.sum_rounded(rd, drd, error)
                new = new + error.nu + rounded


# --------------------------------------------------------------------------------------------------
# The state at theta of any network objective, computed once by float64 passes with a bound on the
# error of every number, for all proofs at theta: curvature floors, majorants, kinks, units that are
# off.

EPS, TINY = np.finfo(float).eps, np.finfo(float).tiny
# for the rounding of the bounds themselves: products of few numbers, sums of at most 1e5 squares
GROWTH = 1 + 1e-9


def checked_theta(ob: Any, theta: ArrayLike) -> Floats:
    """Return theta, rounded to the model's dtype, in float64."""
    model = ob.model
    checked = check_vector(theta, model.n_params, "theta", np.float64)
    return np.asarray(checked.astype(model.dtype), dtype=float)


@cache_last
def passes_at(ob: Any, theta: Floats) -> Passes:
    """Return `Passes` of ob at theta (n,) in float64; the last ones are cached."""
    with np.errstate(all="ignore"):
        return Passes(ob, theta)


class Passes(ErrorPass):
    """The state at theta of any network objective by float64 passes with bounds on the errors:
    `states()`, chunk by chunk.

    `W_norms` holds upper bounds on ``||W_l||_2``.
    """

    def __init__(self, ob: Any, theta: Floats) -> None:
        model, N = ob.model, len(ob.X)
        self.ob = SimpleNamespace(
            model=model,
            X=ob.X,
            y=ob.y,
            loss=ob.loss,
            sample_weight=ob.sample_weight,
            n_samples=N,
            _divisor=divisor_of(ob),
        )
        self.row_bytes = 8 * 16 * sum(model.sizes)
        self.step = max(1, CHUNK_BYTES // self.row_bytes)
        self.arithmetic = Arithmetic(
            np.dtype(float), {"arch": "numpy", "chunk": self.step, "panel": 0, "groups": 0}, N
        )
        layers = layers_of(model, theta)
        self.names, self.skips = (
            model.activation,
            tuple(skips(model, l) for l in range(len(layers))),
        )
        self.W = [Operand(W) for W, _ in layers]
        self.b = [np.zeros(len(W)) if b is None else b for W, b in layers]
        self.W_norms = [spectral(W) for W, _ in layers]
        self.overflow, self.kept, self.joint = False, None, False
        hidden = model.sizes[1:-1]
        pairs = sum(
            12 * hidden[k] * m * min(hidden[k], m) for i, m in enumerate(hidden) for k in range(i)
        )
        self.by_rows = N * pairs <= JOINT_FLOPS
        sizes = [j * k * m for j, k, m in zip(model.sizes, model.sizes[1:], model.sizes[2:])]
        self.by_units = 2 * N * sum(sizes) <= 16 * JOINT_FLOPS and max(sizes, default=0) <= 1 << 24


def spectral(A: Floats) -> float:
    """Return an upper bound on ``||A||_2``: the smaller of those from the smaller Gram matrix and
    from ``||A||_1 ||A||_inf``.
    """
    G, size = A @ A.T if len(A) < A.shape[1] else A.T @ A, np.abs(A)
    return float(
        min(
            gram_norm(G, max(A.shape)),
            GROWTH * np.sqrt(size.sum(axis=0).max()) * np.sqrt(size.sum(axis=1).max()),
        )
    )


def gram_norm(G: Floats, rows: int) -> float:
    """Return an upper bound on ``||F||_2`` from the computed ``G = F'F``: its sums are off by at
    most ``gamma(rows) trace``, its eigenvalues by less.
    """
    m = len(G)
    slack = 8 * (rows + m**1.5) * EPS * np.trace(G) + m * rows * TINY
    return float(np.sqrt(gram_bound(G) + slack))
