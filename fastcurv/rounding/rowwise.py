"""Bounds for networks whose rows do not know of one another: chunk by chunk of rows. The head of
`fastcurv.rounding.bounds` has the model and the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import check_choice
from ..protocols import Floats
from ..structure.parameters import l2_diagonal, layers_of
from .arithmetic import (
    Arithmetic,
    Chain,
    Err,
    Operand,
    at_most,
    flushes,
    gram_bound,
    norm,
    product,
    scaled,
)
from .losses import LossRows
from .state import State
from .sums import Sums

KINDS = ("hessian", "ggn", "fisher")
CHUNK_BYTES = 1 << 25  # of the state of the rows at hand
KEPT_BYTES = 1 << 27  # up to which the state of all rows is kept from one vector to the next
JOINT_FLOPS = 1 << 30  # up to which products of layers are made for every row


def _gram(x: Floats, alone: bool) -> Floats:
    """``x'x``; the smaller ``x x'`` will do where these are all rows."""
    return x @ x.T if alone and len(x) < x.shape[1] else x.T @ x


class Rounding:
    """The bounds at one theta: what does not depend on v is made once and, up to 128 MiB, kept.

    Parameters
    ----------
    ob : Objective
    theta : array_like (n,)
    layout : dict, optional
        `Curvature.layout` of the operator in question; else that of the objective's own plans.
    measured : bool
        Bounds are those of our own float64 passes, and `gradient` and `product` want the computed
        result to compare with.
    """

    of_rows: Any = State  # what is kept of some rows
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
        """Note where the engine may overflow, of numbers of that size."""
        if not size.max(initial=0.0) < self.arithmetic.max:
            self.overflow = True

    def local(self, size: Floats, k: int, terms: int) -> Err:
        """Err of a sum of `terms` products of inner dimension k, `size` the same sum of absolute
        values, 0 only where all factors of one kind are.
        """
        self.within(size)
        depth = self.arithmetic.depth(k, terms) + 1
        return Err(self.arithmetic.gamma(depth) * size + (size > 0) * (depth * self.arithmetic.eta))

    def sum_rounded(self, total: Floats, error: Err, other: Err | None) -> tuple[Err, Floats]:
        """(Err of a sum of two inexact matrices, rounded, the rounding's norms); other None: that
        one is exact.
        """
        error = error if other is None else error + other
        size = at_most(total, error)
        self.within(size)
        rounding = Err(self.arithmetic.u * size)
        return error + rounding, rounding.nu

    def times(
        self, x: Floats, dx: Err, p: Floats | None, dp: Err | None
    ) -> tuple[Floats, Err, Any]:
        """(x * p, its Err, norms of what is not p times x's error); p None: 1."""
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
        """The loss of some rows, at z of the last layer."""
        y, weight = self.ob.y[rows], self.ob.sample_weight
        loss = LossRows(
            self.ob.loss,
            z,
            dz,
            np.array(y, dtype=None if y.dtype.kind == "i" else float),
            weight=None if weight is None else weight[rows],
            divisor=self.ob.divisor,
            arithmetic=self.arithmetic,
        )
        self.within(at_most(loss.d, loss.dd))
        return loss

    # --- all rows
    # ----------------------------------------------------------------------------------------------

    def states(self) -> Iterator[Any]:
        """The state of all rows, chunk by chunk."""
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
        """`Sums` for each layer; the spectral norms of a and delta over all rows are found on first
        use.
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
        """Of the sums over rows: (for weights, for biases)."""
        r = self.arithmetic
        return r.gamma(r.over_rows(terms)), r.gamma(r.over_columns())

    @property
    def slack(self) -> float:
        """Room for second order and for our own rounding."""
        return 1 + 1e-6 + 256 * len(self.W) * self.arithmetic.u

    def total(
        self, sums: list[Sums], terms: int, x: Floats, l2: Any, computed: Floats | None
    ) -> float:
        """The Euclidean norm over the layers' bounds, and what adding ``l2 x`` rounds; measured:
        how far our result lies from the computed one as well.
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
        """A bound on ``||computed gradient - gradient||``."""
        with np.errstate(all="ignore"):
            sums = self.new_sums()
            for state in self.states():
                self.add_gradient(state, sums)
            return self.total(sums, 1, self.theta.astype(float), l2_diagonal(self.ob), computed)

    def add_gradient(self, state: Any, sums: list[Sums]) -> None:
        """``dW = delta' a`` and ``db`` of some rows."""
        for l in range(len(sums)):
            self.add_products(state, l, (state.d[l], state.dd[l]), (None, None), sums, 1)

    def add_products(
        self, s: Any, l: int, d: tuple[Any, Any], ra: tuple[Any, Any], sums: list[Sums], terms: int
    ) -> None:
        """What some rows add to layer l's ``d' a + delta' ra`` and to the sum of d's rows, for d
        and ra with their `Err`; ra None for 0, and `terms` of such products.
        """
        weights, biases = self.gammas(terms)
        sums[l].add("a", *d, s.a[l], s.da[l], weights)
        if not self.ob.model.batch_norm or l == len(sums) - 1:  # else rdbeta stands for it
            sums[l].add_rows(*d, biases)
        if ra[0] is not None:
            sums[l].add("ra", s.d[l], s.dd[l], *ra, weights)

    def checked(self, v: ArrayLike, kind: str) -> Floats | None:
        """V (n,) in the model's dtype; None where it is not finite, and nothing is bounded."""
        check_choice(kind, KINDS, "kind")
        known: Floats = np.asarray(v, self.ob.dtype)
        if known.shape != self.theta.shape:
            raise ValueError(f"v has shape {known.shape}; wanted {self.theta.shape}")
        return known if np.isfinite(known).all() else None

    def product(self, v: ArrayLike, kind: str = "hessian", computed: Floats | None = None) -> float:
        """A bound on ``||computed(A v) - A v||`` for v (n,)."""
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
        """``[(V, vb)]`` of v (n,), None for parts that are 0."""
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
        """Rz = ra W' + a V' + vb;  ra = phi' * rz [+ the input's ra]:  (ra, rz) with their Errs, by
        layer; None: 0.
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
        """``rz = ra W' + a V' + vb``, its Err, and what of that is new; V, vb and (ra, its Err)
        below None for 0, but not all three.
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
        """``rdelta W [+ delta V]``, its Err, and the norms of what of that was carried here and of
        what came to it.
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
        """RdW = rdelta' a + delta' ra;  re_below = rdelta W + delta V [+ re];  rdelta = re * phi' +
        e * phi'' * rz.
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
