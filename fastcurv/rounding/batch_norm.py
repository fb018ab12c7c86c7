"""Bounds on rounding for networks with batch normalisation: `fastcurv.rounding`'s, with all rows at
hand at once.

The linear parts, activations and losses are bounded as there. What stands between them is followed
number by number: every `Num` carries a bound on its error, and each operation adds its own
rounding. The standard deviation is a norm of the centred column, so ``sqrt(variance + eps)`` moves
by at most the root mean square of the errors of z; everything else is products, sums and means. A
unit whose errors reach its standard deviation (``sqrt(eps)`` included) has no bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..structure.parameters import l2_diagonal
from .arithmetic import Arithmetic, Err, Operand, Phi, gram_bound, norm
from .losses import LossRows
from .numbers import Num
from .rowwise import Rounding
from .sums import Sums

Floats = NDArray[np.float64]


def _spectral(gram: Floats) -> float:
    return float(np.sqrt(gram_bound(gram))) if gram.max() > 1e-280 else np.inf


class NormState:
    """What is kept at theta, with errors: a below each layer, h, s, phi, du and delta with their
    means, e phi''.
    """

    da: list[Any]
    h: list[Num]
    s: list[Num]
    phi: list[Phi]
    d: list[Any]
    dd: list[Any]
    eq: list[Any]
    deq: list[Any]
    du: list[Any]
    du_mean: list[Any]
    du_h: list[Any]
    scale: list[Any]
    loss: LossRows

    def __init__(self, R: NormRounding) -> None:
        self.R, L = R, len(R.W)
        self.a, self.da = [R.ob.X.astype(float)], [None]
        self.h, self.s, self.phi = [], [], []
        self.d, self.dd, self.eq, self.deq = [None] * L, [None] * L, [None] * L, [None] * L
        self.du, self.du_mean, self.du_h, self.scale = (
            [None] * L,
            [None] * L,
            [None] * L,
            [None] * L,
        )
        self.forward()
        self.backward()

    def forward(self) -> None:
        """H = (z - mean) s;  u = gamma h + beta;  a = phi(u) [+ the layer's input]."""
        R = self.R
        for l, W in enumerate(R.W):
            a, da = self.a[l], self.da[l]
            size, last = (
                (np.abs(a) if da is None else np.abs(a) + da.E) @ W.abs.T,
                l == len(R.W) - 1,
            )
            z = a @ W.A.T + (R.b if last else 0)
            dz = R.local(size + (np.abs(R.b) if last else 0), W.A.shape[1], 1)
            dz = dz if da is None else dz + da.across(W)
            if last:
                continue
            z, (gamma, beta) = Num(z, dz.E, R.arithmetic), R.norms[l]
            h, s = z.normalised()
            u = h * gamma + beta
            phi = Phi(R.names[l], u.A, u.err, R.arithmetic, R.skips[l])
            above, error = phi.a, phi.da
            if R.skips[l]:
                above = above + a
                error, _ = R.sum_rounded(above, error, da)
            self.h.append(h)
            self.s.append(s)
            self.phi.append(phi)
            self.a.append(above)
            self.da.append(error)
        y, weight = R.ob.y, R.ob.sample_weight
        self.loss = LossRows(
            R.ob.loss,
            z,
            dz,
            np.asarray(y, None if y.dtype.kind == "i" else float),
            weight=weight,
            divisor=R.ob.divisor,
            arithmetic=R.arithmetic,
        )

    def backward(self) -> None:
        """e_below = delta W [+ e];  du = e phi';  delta = s gamma (du - mean du - h mean (du
        h)).
        """
        R, e, de = self.R, None, None
        self.d[-1], self.dd[-1] = self.loss.d, self.loss.dd
        for l in range(len(R.W) - 1, 0, -1):
            W, d, dd, x = R.W[l], self.d[l], self.dd[l], l - 1
            below, error = (
                d @ W.A,
                R.local((np.abs(d) + dd.E) @ W.abs, W.A.shape[0], 1) + dd.back(W),
            )
            if R.skips[l]:
                below = below + e
                error, _ = R.sum_rounded(below, error, de)
            e, de, phi = below, error, self.phi[x]
            values, ddu, _ = R.times(e, de, phi.p, phi.dp)
            if phi.derived:
                self.eq[x], self.deq[x] = phi.bent(values, ddu, R.arithmetic.u)
            elif phi.q is not None:
                self.eq[x], self.deq[x], _ = R.times(e, de, phi.q, phi.dq)
            self.du[x] = du = Num(values, ddu.E, R.arithmetic)
            self.du_mean[x], self.du_h[x], self.scale[x] = (
                du.mean(),
                (du * self.h[x]).mean(),
                self.s[x] * R.norms[x][0],
            )
            delta = (du - self.du_mean[x] - self.h[x] * self.du_h[x]) * self.scale[x]
            self.d[x], self.dd[x] = delta.A, delta.err


class NormRounding(Rounding):
    """`Rounding` of a network with batch normalisation. It keeps the state of all rows: some 30 N
    sum(widths) numbers.

    `columns` costs as many passes as there are parameters.
    """

    def __init__(
        self,
        ob: Any,
        theta: ArrayLike,
        layout: Mapping[str, Any] | None = None,
        measured: bool = False,
    ) -> None:
        model = ob.model
        self.ob, self.theta, self.measured = ob, np.array(model.check_theta(theta)), measured
        if measured:
            layout = {"arch": "numpy", "chunk": ob.n_samples, "panel": 0, "groups": 0}
        elif layout is None:
            plan = ob._lend_plan()
            layout = plan.layout
            ob._take_back(plan)
        r = self.arithmetic = Arithmetic(
            np.dtype(float) if measured else ob.dtype, layout, ob.n_samples
        )
        rows, chunks = r.sums["block_rows"], -(-ob.n_samples // r.chunk)
        blocks = -(-ob.n_samples // rows)
        r.rows_gamma = (
            ((ob.n_samples if measured else rows + blocks) + 4 * chunks + 16)
            * np.finfo(float).eps
            / 2
        )
        r.mean_gamma = (4 * chunks + 4) * np.finfo(float).eps / 2
        self.names, self.skips = model.activation, tuple(model.skips) + (False,)
        layers: list[tuple[Any, ...]] = [
            tuple(None if part is None else part.astype(float) for part in layer)
            for layer in model.unflatten(self.theta)
        ]
        self.W = [Operand(layer[0]) for layer in layers]
        self.b = np.zeros(len(layers[-1][0])) if layers[-1][1] is None else layers[-1][1]
        self.norms = [tuple(Num(part, 0 * part, r) for part in layer[2:]) for layer in layers]
        self.overflow = False
        self.known: NormState | None = None
        self.spectral: list[tuple[float, float]] = []

    @property
    def state(self) -> NormState:
        if self.known is None:
            self.known = NormState(self)
            pairs = zip(self.known.a, self.known.d)
            self.spectral = [(_spectral(a.T @ a), _spectral(d.T @ d)) for a, d in pairs]
        return self.known

    def gradient(self, computed: Floats | None = None) -> float:
        """A bound on ``||computed gradient - gradient||``."""
        with np.errstate(all="ignore"):
            s, parts, (weights, biases) = self.state, [], self.gammas(1)
            for l, W in enumerate(self.W):
                sums = Sums(W.A.shape, *self.spectral[l])
                sums.add("a", s.d[l], s.dd[l], s.a[l], s.da[l], weights)
                if l == len(self.W) - 1:
                    sums.add_rows(s.d[l], s.dd[l], biases)
                norms = () if s.du[l] is None else ((s.du[l] * s.h[l]).sum(), s.du[l].sum())
                parts.append((sums, norms))
            return self.total_of(
                parts, 1, l2_diagonal(self.ob) * self.theta.astype(float), computed
            )

    def product(self, v: ArrayLike, kind: str = "hessian", computed: Floats | None = None) -> float:
        """A bound on ``||computed(A v) - A v||`` for v (n,)."""
        known = self.checked(v, kind)
        if known is None:
            return np.inf
        with np.errstate(all="ignore"):
            state, at_theta = self.state, self.overflow
            bound = self.total_of(
                self.norm_pass(state, self.direction(known), kind),
                2,
                l2_diagonal(self.ob) * known.astype(float),
                computed,
            )
            self.overflow = at_theta
            return bound

    def columns(self, kind: str = "hessian") -> Floats:
        """Bounds ``(n,)`` on ``||computed(A e_j) - A e_j||`` for every unit vector.

        Cost: one pass for each.
        """
        bounds, measured, self.measured = np.zeros(len(self.theta)), self.measured, False
        for j in range(len(bounds)):
            e = np.zeros_like(self.theta)
            e[j] = 1
            bounds[j] = self.product(e, kind)
        self.measured = measured
        return bounds

    def direction(self, v: Floats) -> list[Any]:
        """``[(V, vb, vgamma, vbeta)]`` of v (n,): V and the last layer's vb None where they are 0,
        b of others left out.
        """
        layers, r = [], self.arithmetic
        for V, b, *norm_ in self.ob.model.unflatten(v):
            vb = b.astype(float) if b is not None and not norm_ and b.any() else None
            gamma_beta = tuple(Num(part.astype(float), np.zeros(len(part)), r) for part in norm_)
            layers.append((Operand(V.astype(float)) if V.any() else None, vb, *gamma_beta))
        return layers

    def total_of(
        self, parts: list[Any], terms: int, l2_part: Floats, computed: Floats | None
    ) -> float:
        """The Euclidean norm over all parts; measured: how far our result lies from the computed
        one as well.
        """
        r, bounds, ours = self.arithmetic, [], []
        eta, ends = 2 * r.eta * (r.N + r.over_rows(terms)), r.gamma(r._partial_sums() + 2)
        for sums, norms in parts:
            bounds += sums.bounds(eta)
            bounds += [norm(part.E + ends * (np.abs(part.A) + part.E)) for part in norms]
            ours += (
                [sums.value.ravel()]
                + [sums.b_value] * self.ob.model.bias
                + [part.A for part in norms]
            )
            self.overflow |= not sums.B.max(initial=0.0) < r.gamma(1) * r.max
        gamma = r.gamma(max(r.over_rows(terms), r.over_columns()) + 3)
        bound = self.slack * (norm(bounds) + gamma * norm(l2_part))
        if self.measured:
            bound += norm(np.asarray(computed, float) - (np.concatenate(ours) + l2_part))
        return float(bound) if np.isfinite(bound) and not self.overflow else np.inf

    # --- R-forward, loss, R-backward
    # ----------------------------------------------------------------------------------------

    def norm_forward(self, s: NormState, layers: list[Any]) -> tuple[Any, Any, Any]:
        """Rh = s (rz - mean rz - h c);  ru = vgamma h + gamma rh + vbeta;  ra = phi' ru [+ ra]: the
        last layer's (rz, Err), and by layer ra with its Err and (rh, ru, s (vgamma - s c gamma)),
        None where nothing moves.
        """
        r = self.arithmetic
        ra: list[Any] = [(None, None)]
        moved: list[Any] = []
        end: tuple[Any, Any] = (None, None)
        for l, (W, (V, vb, *norm_v)) in enumerate(zip(self.W, layers)):
            a, da, (below, dbelow) = s.a[l], s.da[l], ra[l]
            still = V is None and vb is None and below is None
            z, size, dz = (
                np.zeros((len(a), len(W.A))),
                np.zeros((len(a), len(W.A))),
                Err(np.zeros((len(a), len(W.A)))),
            )
            if vb is not None:
                z, size = z + vb, size + np.abs(vb)
            if V is not None:
                z, size = (
                    z + a @ V.A.T,
                    size + (np.abs(a) if da is None else np.abs(a) + da.E) @ V.abs.T,
                )
                dz = dz if da is None else dz + da.across(V)
            if below is not None:
                z, size, dz = (
                    z + below @ W.A.T,
                    size + (np.abs(below) + dbelow.E) @ W.abs.T,
                    dz + dbelow.across(W),
                )
            dz = dz if still else dz + self.local(size, W.A.shape[1], 2)
            if not norm_v:  # the last layer
                end = (None, None) if still else (z, dz)
                continue
            if still and not any(part.A.any() for part in norm_v):
                ra.append((None, None))
                moved.append(None)
                continue
            moves, h, gamma, (vgamma, vbeta) = Num(z, dz.E, r), s.h[l], self.norms[l][0], norm_v
            c = (moves * h).mean()
            rh = (moves - moves.mean() - h * c) * s.s[l]
            ru = h * vgamma + rh * gamma + vbeta
            moved.append((rh, ru, (vgamma - s.s[l] * c * gamma) * s.s[l]))
            above, error, _ = self.times(ru.A, ru.err, s.phi[l].p, s.phi[l].dp)
            if self.skips[l] and below is not None:
                above = above + below
                error, _ = self.sum_rounded(above, error, dbelow)
            ra.append((above, error))
        return end, ra, moved

    def norm_pass(self, s: NormState, layers: list[Any], kind: str) -> list[Any]:
        """``[(Sums, (rdgamma, rdbeta))]`` by layer."""
        full, (weights, biases) = kind == "hessian", self.gammas(2)
        (z, dz), ra, moved = self.norm_forward(s, layers)
        parts: list[Any] = [(Sums(W.A.shape, *pair), ()) for W, pair in zip(self.W, self.spectral)]
        if z is None:
            return parts
        rd, drd = s.loss.r_loss(z, dz)
        re: Any = None
        dre: Any = None
        for l in range(len(self.W) - 1, -1, -1):
            W, V = self.W[l], layers[l][0]
            parts[l][0].add("a", rd, drd, s.a[l], s.da[l], weights)
            if l == len(self.W) - 1:
                parts[l][0].add_rows(rd, drd, biases)
            if full and ra[l][0] is not None:
                parts[l][0].add("ra", s.d[l], s.dd[l], ra[l][0], ra[l][1], weights)
            if l == 0:
                continue
            below, size, error = rd @ W.A, (np.abs(rd) + drd.E) @ W.abs, drd.back(W)
            if full and V is not None:
                below, size = below + s.d[l] @ V.A, size + (np.abs(s.d[l]) + s.dd[l].E) @ V.abs
                error = error + s.dd[l].back(V)
            error = error + self.local(size, W.A.shape[0], 2)
            if self.skips[l]:
                below = below + re
                error, _ = self.sum_rounded(below, error, dre)
            re, dre = below, error
            rdelta, norms = self.r_normalised(s, l - 1, re, dre, moved[l - 1] if full else None)
            parts[l - 1], rd, drd = (parts[l - 1][0], norms), rdelta.A, rdelta.err
        return parts

    def r_normalised(
        self, s: NormState, x: int, re: Floats, dre: Err, moved: Any
    ) -> tuple[Num, tuple[Num, Num]]:
        """Rdelta of hidden layer x, and its (rdgamma, rdbeta); moved None: rdu's own terms only."""
        r, h = self.arithmetic, s.h[x]
        values, off, _ = self.times(re, dre, s.phi[x].p, s.phi[x].dp)
        rdu = Num(values, off.E, r)
        if moved is None:
            rdu_h = rdu * h
            return (rdu - rdu.mean() - h * rdu_h.mean()) * s.scale[x], (rdu_h.sum(), rdu.sum())
        rh, ru, r_scale = moved
        if s.eq[x] is not None:
            rdu = rdu + Num(s.eq[x], s.deq[x].E, r) * ru
        rdu_h, D = rdu * h + s.du[x] * rh, s.du[x] - s.du_mean[x] - h * s.du_h[x]
        inner = rdu - rdu.mean() - rh * s.du_h[x] - h * rdu_h.mean()
        return D * r_scale + inner * s.scale[x], (rdu_h.sum(), rdu.sum())
