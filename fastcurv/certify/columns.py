"""Bounds on the errors of every column of a dense matrix of products, without making a product for
each column.

The column of the weight from unit k to unit i of layer l is the effect of two impulses, in every
row n:

    forward    rz_l = a_nk e_i                 as a step in the bias of i does, a_nk times
    backward  e_k in re at the input of l  delta_ni times: ``delta V`` of the R-backward pass

Passes, products and their rounding are linear in v or bounded by sums of sizes, so the error is at
most the sum of those of the two. For each impulse of each unit two numbers per row are propagated
through the passes: a bound on the norm of rz, ra, re or rdelta, and one on the norm of its error,
by

    ||x W'|| <= ||W||_2 ||x||,      rounding of x W' <= gamma || |W| ||_2 ||x||

and so on, the row-wise part (`Err.nu`, `Chain`) of the bounds for one vector in `passes`; the first
step away from the unit uses the norm of its column (row) of W. Sums over rows add norms:

    sum over n of |a_nk| error_n  +  |da_nk| size_n  +  |delta_ni| error'_n  +  |ddelta_ni| size'_n

which are products of matrices (units, rows) (rows, inputs). Layers are independent parts of a
column: their bounds are added as squares. Cost: O(N L^2 sum(widths)), and L^2 such products.

Underflow in the engine's products does not scale with a_nk or delta_ni. `lost` bounds it
separately, for all columns at once; where our own products are multiplied by these, they are
rounded up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..common.checks import check_choice
from ..common.protocols import Floats
from ..structure.parameters import l2_diagonal
from .arithmetic import ETA, Chain, at_most, flushes, norms, spectral_bound
from .passes import KINDS, ErrorPass, State


class Sized(NamedTuple):
    """Bounds on the norm of a quantity and on the norm of its error, for (rows, units); rounded up
    against underflow.
    """

    size: Floats
    error: Floats

    def __add__(self, other: Sized) -> Sized:  # type: ignore[override]
        return Sized(self.size + other.size, self.error + other.error)

    def __mul__(self, k: Floats) -> Sized:  # type: ignore[override]
        return Sized(self.size * k + ETA, self.error * k + ETA)

    def held(self, most: Sized) -> Sized:
        """Return these bounds, each capped by that of `most`."""
        return Sized(np.minimum(self.size, most.size), np.minimum(self.error, most.error))

    def times(self, x: Floats, dx: Floats) -> Sized:
        """Return bounds on the product with a quantity of size x and error dx."""
        error = self.error * x + (self.size + self.error) * dx
        return Sized(self.size * x + ETA, error + 2 * ETA)


class Columns:
    """Bounds for one kind of curvature at the theta of a `ErrorPass`, accumulated over its rows.

    `peak` (rows, units) holds the largest intermediate number that an impulse of 1 has produced.
    """

    peak: Floats

    def __init__(self, R: ErrorPass, kind: str, gather: bool = True) -> None:
        self.R, self.kind, self.full = R, kind, kind == "hessian"
        self.r, self.L = R.arithmetic, len(R.W)
        self.abs_norms = [spectral_bound(W.abs) for W in R.W]
        self.gammas = [self.r.gamma(self.r.depth(max(W.A.shape), 2) + 2) for W in R.W]
        # off[l][j], (units, inputs): error bounds of part j (the weights of layer j, or of the
        # biases of layer j - L) of the columns of layer l's weights; off_b: of the columns of its
        # biases
        self.off = [np.zeros((2 * self.L, *W.A.shape)) for W in R.W]
        self.off_b = [np.zeros((2 * self.L, len(W.A))) for W in R.W]
        for s in R.states() if gather else ():
            self.add_rows(s)

    def add_rows(self, s: State) -> None:
        """Add the contributions of the rows of a state."""
        sizes = self.sizes(s)
        lost = [float(part.sum()) for part in self.lost(s, sizes)]
        for l in range(self.L):
            a = at_most(s.a[l], s.da[l])
            for j, part in enumerate(self.forward(s, sizes, l)):
                self.off[l][j] += part.error.T @ a + lost[j]
                if s.da[l] is not None:
                    self.off[l][j] += part.size.T @ s.da[l].E
                self.off_b[l][j] += part.error.sum(axis=0) + lost[j]
            self.limit(self.off[l], self.peak, a)
            self.limit(self.off_b[l][:, :, None], self.peak, np.ones((1, 1)))
            if l > 0 and self.full:
                d, dd = at_most(s.d[l], s.dd[l]), s.dd[l].E
                for j, part in enumerate(self.backward(s, sizes, l)):
                    self.off[l][j] += d.T @ part.error + dd.T @ part.size
                self.limit(self.off[l], d, self.peak)

    def lost(self, s: State, sizes: dict[str, list[Sized]], forward: bool = True) -> list[Floats]:
        """Return, by part, bounds on the effect of underflow in the engine's products on a row's
        share of any column; `forward`: include the R-forward pass.
        """
        last, eta, zero = self.L - 1, self.r.eta, np.zeros((len(s.a[0]), 1))
        each = [eta * self.r.depth(k, 2) * k**0.5 for k in (max(W.A.shape) for W in self.R.W)]
        p, q, a, d = ([x.size + x.error for x in sizes[name]] for name in "pqad")
        fz, fa = [zero] * self.L, [zero] * self.L
        for m in range(self.L * forward):
            fz[m] = self.R.W[m].norm * fa[m] + each[m]
            if m < last:
                fa[m + 1] = p[m] * fz[m] + each[m] + self.R.skips[m] * fa[m]
        rd, re = zero, zero
        if forward:
            rd = sum(self.loss_norms(s)) * fz[last] + s.loss.r_lost()
        parts = [zero] * (2 * self.L)
        for m in range(last, -1, -1):
            parts[m], parts[self.L + m] = rd * a[m] + self.full * fa[m] * d[m], rd
            if m > 0:
                re = self.R.W[m].norm * rd + each[m] + self.R.skips[m] * re
                rd = p[m - 1] * re + self.full * q[m - 1] * fz[m - 1] + 2 * each[m]
        return [part + ETA for part in parts]

    def limit(self, off: Floats, x: Floats, y: Floats) -> None:
        """Set bounds to infinity where a sum over rows of products of numbers of size x (rows,
        units) and y (rows, inputs), or the other way round, may overflow.
        """
        most = [np.asarray(z.max(axis=0)) for z in (x, y)]
        off[:, ~(self.r.N * most[0][:, None] * most[1] < self.r.max)] = np.inf

    def sizes(self, s: State) -> dict[str, list[Sized]]:
        """Return the norms of the rows of a and delta, and the largest phi' and e phi'' of each
        hidden layer by row, all with errors.
        """
        zero = np.zeros((len(s.a[0]), 1))
        one = zero + 1.0

        def top(x: Floats | None, dx: object, other: Floats) -> Sized:
            if x is None:
                return Sized(other, zero)
            largest = dx.E.max(axis=1, keepdims=True)  # type: ignore[attr-defined]
            return Sized(np.abs(x).max(axis=1, keepdims=True), largest)

        return {
            "a": [
                Sized(norms(np.abs(a)), zero if da is None else da.nu) for a, da in zip(s.a, s.da)
            ],
            "d": [Sized(norms(np.abs(d)), dd.nu) for d, dd in zip(s.d, s.dd)],
            "p": [top(phi.p, phi.dp, one) for phi in s.phi],
            "q": [top(eq, deq, zero) for eq, deq in zip(s.eq[:-1], s.deq[:-1])],
        }

    @staticmethod
    def units(x: Floats | None, dx: object, like: Floats, default: float) -> Sized:
        """Return |phi'| or |e phi''| of every unit, (rows, units), with errors."""
        if x is None:
            return Sized(np.full_like(like, default), np.zeros_like(like))
        return Sized(np.abs(x), dx.E)  # type: ignore[attr-defined]

    def through(self, x: Sized, l: int, each: Floats | None) -> tuple[Sized, Floats]:
        """Return bounds on x times W of layer l, or its transpose, and the rounding that this adds;
        `each`: norms of the units' own rows or columns of W, to be used instead of ``||W||``.
        """
        W, W_abs = (self.R.W[l].norm, self.abs_norms[l]) if each is None else (each, each)
        most = W_abs * (x.size + x.error)
        self.peak, rounding = np.maximum(self.peak, most), self.gammas[l] * most
        return Sized(W * x.size + ETA, W * x.error + rounding + ETA), rounding

    def rounded(self, x: Sized, u: float) -> Sized:
        """Return x after operations whose relative rounding is u in all."""
        most = x.size + x.error
        self.peak = np.maximum(self.peak, most)
        return Sized(x.size, x.error + u * most)

    def forward(self, s: State, sizes: dict[str, list[Sized]], l: int) -> list[Sized]:
        """Return, by part (weights of all layers, then biases), bounds on the effect of a step in
        each bias of layer l.
        """
        R, u, last = self.R, self.r.u, self.L - 1
        like = np.zeros(s.d[l].shape)
        self.peak = like + 1.0
        z, local = Sized(like + 1.0, like + self.gammas[l]), like + self.gammas[l]  # rz of the unit
        rz: list[Sized | None] = [None] * self.L
        ra: list[Sized | None] = [None] * self.L  # below each layer
        chain = Chain(s.kappa, Sized.__mul__)
        for m in range(l, last):
            rz[m], below = z, ra[m]
            p = self.units(s.phi[m].p, s.phi[m].dp, like, 1.0) if m == l else sizes["p"][m]
            a = self.rounded(z.times(*p), u)
            fresh = p.size * local + (z.size + z.error) * p.error + u * (a.size + a.error) + ETA
            if R.skips[m] and below is not None:
                a = self.rounded(a + below, u)
                fresh = fresh + u * (a.size + a.error)
            a = chain.cap(m + 1, a, Sized(a.size if m == l else 0 * a.size, fresh))
            ra[m + 1] = a
            z, local = self.through(a, m + 1, R.W[m + 1].cols if m == l else None)
        return self.down(s, sizes, self.loss(s, z), None, last, rz=rz, ra=ra, unit=l)

    def backward(self, s: State, sizes: dict[str, list[Sized]], l: int) -> list[Sized]:
        """Return, by part, bounds on the effect of an impulse in re at each input of layer l."""
        like = np.zeros(s.a[l].shape)
        self.peak = like + 1.0
        e = Sized(like + 1.0, like + self.gammas[l])
        own = self.units(s.phi[l - 1].p, s.phi[l - 1].dp, like, 1.0)
        rd = self.rounded(e.times(*own), self.r.u)
        nothing: list[Sized | None] = [None] * self.L
        return self.down(s, sizes, rd, e, l - 1, rz=nothing, ra=nothing, unit=l - 1)

    def loss_norms(self, s: State) -> tuple[Floats, Floats]:
        """Return norms of the rows' loss'', or of the matrix that replaces it: see
        `LossRows.r_norms`.
        """
        found: tuple[Floats, Floats] = (
            s.loss.fisher_norms() if self.kind == "fisher" else s.loss.r_norms()
        )
        return found

    def loss(self, s: State, z: Sized) -> Sized:
        """Return rdelta of the last layer."""
        along = self.r.N * (norms(np.abs(s.loss.d)) + s.loss.dd.nu) * (self.kind == "fisher")
        self.peak = np.maximum(self.peak, (4 + along) * (z.size + z.error))
        return z.times(*self.loss_norms(s))

    def down(
        self,
        s: State,
        sizes: dict[str, list[Sized]],
        rd: Sized,
        re: Sized | None,
        top: int,
        *,
        rz: list[Sized | None],
        ra: list[Sized | None],
        unit: int,
    ) -> list[Sized]:
        """Run the R-backward pass from rdelta of layer `top` and return the bounds by part; `unit`
        is the layer whose units the impulse is in.
        """
        R, u = self.R, self.r.u
        weights, biases = (self.r.gamma(self.r.over_rows(2)), self.r.gamma(self.r.over_columns()))
        parts = [Sized(np.zeros_like(rd.size), np.zeros_like(rd.size))] * (2 * self.L)
        # new: the part of rdelta that is not phi' times re
        chain, new = Chain(s.kappa, Sized.__mul__), rd
        for m in range(top, -1, -1):
            parts[m] = self.rounded(rd.times(*sizes["a"][m]), weights)
            below = ra[m]
            if self.full and below is not None:
                parts[m] = parts[m] + self.rounded(below.times(*sizes["d"][m]), weights)
            parts[self.L + m] = self.rounded(rd, biases)
            if m == 0:
                continue
            # rdelta of one unit alone: the backward impulse
            single = re is not None and m == top
            each = R.W[m].rows if single else None
            lower, rounding = self.through(rd, m, each)
            W = R.W[m].norm if each is None else each
            fresh = Sized(W * new.size + ETA, W * new.error + rounding + ETA)
            if R.skips[m]:
                assert re is not None
                lower = self.rounded(lower + re, u)
                fresh = Sized(fresh.size, fresh.error + u * (lower.size + lower.error))
                fresh = fresh + re if single else fresh
            re = chain.cap(m, lower, fresh)
            p = sizes["p"][m - 1]
            rd = self.rounded(re.times(*p), u)
            off = (re.size + re.error) * p.error + u * (rd.size + rd.error)
            new = Sized(0 * rd.size, off + ETA)
            moved = rz[m - 1]
            if self.full and moved is not None:
                bend = sizes["q"][m - 1]
                if m - 1 == unit:
                    bend = self.units(s.eq[m - 1], s.deq[m - 1], moved.size, 0.0)
                more = moved.times(*bend)
                rd = self.rounded(rd + more, 2 * u)
                new = new + Sized(more.size, more.error + 2 * u * (rd.size + rd.error))
        return parts


def column_bounds(R: ErrorPass, kind: str = "hessian") -> Floats:
    """Return bounds ``(n,)`` on ``||computed(A e_j) - A e_j||`` for every unit vector: the errors
    of the columns of a dense matrix of products.

    They hold for any order of the products. Cost: the arithmetic of some gradients, in NumPy.

    Parameters
    ----------
    R : Rounding
        At theta, without batch normalisation.
    kind : {"hessian", "ggn", "fisher"}
    """
    check_choice(kind, KINDS, "kind")
    r, found = R.arithmetic, []
    with np.errstate(all="ignore"):
        known = Columns(R, kind)
        for off, off_b in zip(known.off, known.off_b):
            found.append(np.hypot.reduce(off, axis=0).ravel())
            if R.ob.model.bias:
                found.append(np.hypot.reduce(off_b, axis=0))
        l2 = l2_diagonal(R.ob) if kind != "fisher" else 0.0
        bounds = R.slack * (np.concatenate(found) + r.gamma(r.over_rows(2) + 3) * l2 + r.tiny / r.u)
    finite = np.isfinite(bounds) & (l2 < r.max) & (not R.overflow) & (not flushes())
    return np.where(finite, bounds, np.inf)


# --------------------------------------------------------------------------------------------------
# Bounds on the errors of the rows of the Jacobian of the network outputs.


def jacobian_bounds(R: ErrorPass) -> Floats:
    """Return bounds ``(N d_out,)`` on the norms of the errors of the Jacobian's rows, computed as
    products with its transpose: ``J' u`` for the unit vector of one output of one sample.

    Such a product is a backward pass of one row from delta = e_j; all other rows hold zeros, which
    add no rounding.

    Parameters
    ----------
    R : Rounding
        At theta, without batch normalisation.
    """
    u, d_out, found = R.arithmetic.u, R.ob.model.sizes[-1], []
    sums = R.arithmetic.gamma(max(R.arithmetic.over_rows(1), R.arithmetic.over_columns()))
    with np.errstate(all="ignore"):
        known = Columns(R, "jacobian", gather=False)
        for s in R.states():
            sizes = known.sizes(s)
            zero = np.zeros((len(s.a[0]), 1))
            d, skip, known.peak = Sized(zero + 1.0, zero), None, zero + 1.0
            size = sum(known.lost(s, sizes, forward=False)) + ETA
            for l in range(len(R.W) - 1, -1, -1):
                size = np.hypot(size, known.rounded(d.times(*sizes["a"][l]), sums).error)
                size = np.hypot(size, known.rounded(d, sums).error)
                if l == 0:
                    continue
                e, _ = known.through(d, l, None)
                if R.skips[l] and skip is not None:
                    e = known.rounded(e + skip, u)
                skip, d = e, known.rounded(e.times(*sizes["p"][l - 1]), u)
            size = np.where(known.peak < R.arithmetic.max, size, np.inf)
            found.append(np.repeat(size[:, 0], d_out))
        tiny = R.arithmetic.tiny / R.arithmetic.u
        bounds = R.slack * np.concatenate(found) + tiny
    return np.where(np.isfinite(bounds) & (not R.overflow) & (not flushes()), bounds, np.inf)
