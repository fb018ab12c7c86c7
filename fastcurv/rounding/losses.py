"""Errors of the loss rows: delta = dL/dz, and rdelta = (d2L/dz2) rz."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ..protocols import Floats
from .arithmetic import ELEMENTARY, ETA, FLOOR, Arithmetic, Err, at_most, bell, norms, scaled


class LossRows:
    """delta = dL/dz of the last layer, and what ``rdelta = (d2L/dz2) rz`` needs, with their errors.

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
        self.f = np.maximum(np.abs(self.f) / divisor, ETA * moves)  # signs are put back below
        sign = 1.0 if weight is None else np.sign(weight.astype(float))[:, None]
        with np.errstate(divide="ignore"):
            self.uf = np.where(moves, 3 * arithmetic.u + arithmetic.eta / self.f, 0.0)
        {
            "mse": self._squares,
            "binary_cross_entropy": self._binary,
            "cross_entropy": self._entropy,
        }[loss](z, dz, y)
        self.d, self.h = sign * self.d, sign * self.h

    def _squares(self, z: Floats, dz: Err, y: NDArray[Any]) -> None:
        """Delta = 2 f (z - y), h = 2 f."""
        u, eta, gap = self.arithmetic.u, self.arithmetic.eta, z - y
        self.d, self.h = 2 * self.f * gap, np.broadcast_to(2 * self.f, z.shape)
        size = at_most(gap, dz)
        rounding = scaled(2 * self.f * (self.uf + 3 * u), size) + eta * (size > 0) * (self.f > 0)
        self.dd = dz.times(2 * self.f) + Err(rounding)
        self.dh = Err(self.h * (self.uf + u))

    def _binary(self, z: Floats, dz: Err, y: NDArray[Any]) -> None:
        """Delta = f (s - y), taken as f ((1 - y) - small) above 0; h = f s (1 - s), |h'| <= h."""
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
        """delta_j = f (T p_j - y_j), at the largest logit minus the sum of the others; p is kept
        with its error `dp`.

        Off the top ``|dp_j| <= g p_j (E_j + sum of p_k E_k)``, at the top ``g p sum of p_k E_k``,
        the sums without the top and E the error of ``z_j - z_top``; ``g = exp(4 max dz)`` is what p
        p' can grow by over z +- dz. Rows where rounding may change which logit is largest have no
        top.
        """
        r, m = self.arithmetic, z.shape[1]
        y = (y[:, None] == np.arange(m)).astype(float) if y.ndim == 1 else y
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
        """Errors of the differences to the top: 0 there; against the worst candidate where there is
        no top.
        """
        centre = np.where(np.where(self.tie, self.near, self.top), E, 0).max(axis=1, keepdims=True)
        return np.where(self.top, 0, E + centre)

    def r_loss(self, rz: Floats, drz: Err) -> tuple[Floats, Err]:
        """(rdelta, its Err)."""
        if self.loss != "cross_entropy":
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
        """Of ``||d2 loss / dz2||`` by rows, (rows, 1), errors of p included."""
        tiny, m = self.arithmetic.tiny, self.p.shape[1]
        normal = self.p > 1024 * tiny
        spread = np.where(normal, self.dp / np.where(normal, self.p, 1), 0)
        spread = 1 + spread.max(axis=1, keepdims=True)
        return np.asarray((np.abs(self.h) + self.dh) * (self.bend * spread**2 + 4096 * m * tiny))

    def _r_entropy(self, size: Floats, w: Floats, E: Floats | float) -> Floats:
        """Errors of ``s p (u - <p, u>)``, u = rz - rz_top being off by E and by its own
        rounding.
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
        """(rdelta, its Err) of ``rdelta = N <delta, rz> delta``."""
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
        """(B, C) (rows, 1): ``||rdelta|| <= (B + C) ||rz||``, and it is off by ``C ||rz|| + (B + C)
        ||drz||`` at most.
        """
        r = self.arithmetic
        if self.loss != "cross_entropy":
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
        """The same for ``rdelta = N <delta, rz> delta``."""
        r, d = self.arithmetic, norms(np.abs(self.d))
        whole = d + self.dd.nu
        rounding = r.gamma(self.d.shape[1] + 6)
        lost = scaled(self.dd.nu, whole + d) + scaled(rounding * whole, whole)
        return r.N * scaled(d, d), r.N * lost

    def r_lost(self) -> Floats:
        """What underflow takes off the norms of rdelta at most, by `r_loss` and `fisher`, (rows,
        1).
        """
        r, m = self.arithmetic, self.d.shape[1]
        size = np.abs(self.h) + (self.dh if self.loss == "cross_entropy" else self.dh.E)
        size = size.max(axis=1, keepdims=True) + r.N * (norms(np.abs(self.d)) + self.dd.nu)
        return np.asarray(2 * m * r.eta * (1 + size))
