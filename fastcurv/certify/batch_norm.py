"""Bounds on rounding for networks with batch normalisation, like those of
`fastcurv.certify.passes`, but with all rows in memory at once.

The linear parts, activations and losses are bounded as there. The normalisation between them is
followed entry by entry: every `Num` carries a bound on its error, and each operation adds its own
rounding. The standard deviation is a norm of the centred column, so ``sqrt(variance + eps)``
changes by at most the root mean square of the errors of z; everything else is products, sums and
means. A unit whose errors reach its standard deviation (``sqrt(eps)`` included) has no bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.linalg import UNIT
from ..common.protocols import Floats
from ..structure.parameters import layers_of, norms_of, skips
from ..structure.tables import ACTIVATIONS, normalise
from .arithmetic import Err, Num, Operand, Phi, Sums, at_most, product
from .passes import ErrorPass, LossRows


class NormState:
    """The state at theta with error bounds: a below each layer, h, s, phi, du and delta with the
    means that they need, and e phi''.
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

    def __init__(self, R: NormRounding, rows: slice) -> None:
        self.R, L = R, len(R.W)
        self.a, self.da = [R.ob.X[rows].astype(float)], [None]
        self.h, self.s, self.phi = [], [], []
        self.d, self.dd, self.eq, self.deq = [None] * L, [None] * L, [None] * L, [None] * L
        self.du, self.du_mean, self.du_h, self.scale = ([None] * L for _ in range(4))
        self.forward()
        self.backward()

    def forward(self) -> None:
        """Run the forward pass: ``h = (z - mean) s``, ``u = gamma h + beta``, ``a = phi(u) [+ the
        layer's input]``.
        """
        R = self.R
        for l, W in enumerate(R.W):
            a, da = self.a[l], self.da[l]
            size, b = product(at_most(a, da), W.abs.T), R.b[l] if l == len(R.W) - 1 else 0.0
            z = a @ W.A.T + b
            dz = R.local(size + np.abs(b), W.A.shape[1], 1)
            dz = dz if da is None else dz + da.across(W)
            if l == len(R.W) - 1:
                break
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
        self.loss = R.loss_rows(slice(None), z, dz)

    def backward(self) -> None:
        """Run the backward pass: ``e_below = delta W [+ e]``, ``du = e phi'``, ``delta = s gamma
        (du - mean du - h mean (du h))``.
        """
        R, e, de = self.R, None, None
        self.d[-1], self.dd[-1] = self.loss.d, self.loss.dd
        for l in range(len(R.W) - 1, 0, -1):
            W, d, dd, x = R.W[l], self.d[l], self.dd[l], l - 1
            below, error = (
                d @ W.A,
                R.local(product(at_most(d, dd), W.abs), W.A.shape[0], 1) + dd.back(W),
            )
            if R.skips[l]:
                below = below + e
                error, _ = R.sum_rounded(below, error, de)
            e, de, phi = below, error, self.phi[x]
            values, ddu, _ = R.times(e, de, phi.p, phi.dp)
            self.eq[x], self.deq[x] = phi.curvature(R, e, de, values, ddu)
            self.du[x] = du = Num(values, ddu.E, R.arithmetic)
            self.du_mean[x], self.du_h[x], self.scale[x] = (
                du.mean(),
                (du * self.h[x]).mean(),
                self.s[x] * R.norms[x][0],
            )
            delta = (du - self.du_mean[x] - self.h[x] * self.du_h[x]) * self.scale[x]
            self.d[x], self.dd[x] = delta.A, delta.err


class NormRounding(ErrorPass):
    """`ErrorPass` of a network with batch normalisation. It keeps the state of all rows: some 30 N
    sum(widths) numbers.

    `columns` costs as many passes as there are parameters.
    """

    of_rows = NormState

    def __init__(
        self,
        ob: Any,
        theta: ArrayLike,
        layout: Mapping[str, Any] | None = None,
        measured: bool = False,
    ) -> None:
        super().__init__(ob, theta, layout, measured)
        r = self.arithmetic
        rows, chunks = r.sums["block_rows"], -(-ob.n_samples // r.chunk)
        deep = ob.n_samples if measured else rows - (-ob.n_samples // rows)
        r.rows_gamma, r.mean_gamma = (deep + 4 * chunks + 16) * UNIT, (4 * chunks + 4) * UNIT
        self.norms = [
            () if pair is None else tuple(Num(x.astype(float), 0.0 * x, r) for x in pair)
            for pair in norms_of(ob.model, self.theta)
        ]

    def new_sums(self) -> list[Sums]:
        """Return empty `Sums` for each layer, including those of gamma and beta."""
        sums = super().new_sums()
        for s, pair in zip(sums, self.norms):
            s.scales = tuple(Num(0.0 * x.A, 0.0 * x.A, x.r) for x in pair)
        return sums

    def add_gradient(self, state: NormState, sums: list[Sums]) -> None:
        """Add the gradient's sums over all rows, including those of gamma and beta."""
        super().add_gradient(state, sums)
        for l, s in enumerate(sums[:-1]):
            s.scales = ((state.du[l] * state.h[l]).sum(), state.du[l].sum())

    def columns(self, kind: str = "hessian") -> Floats:
        """Return bounds ``(n,)`` on ``||computed(A e_j) - A e_j||`` for every unit vector.

        Cost: one pass for each unit vector.
        """
        bounds, alone = np.zeros(len(self.theta)), copy(self)
        alone.measured = False
        for j in range(len(bounds)):
            e = np.zeros_like(self.theta)
            e[j] = 1
            bounds[j] = alone.product(e, kind)
        return bounds

    def direction(self, v: Floats) -> list[Any]:
        """Return ``[(V, vb, vgamma, vbeta)]`` of v (n,), layer by layer: V and the last layer's vb
        are None where they are 0; vb of normalised layers is left out.
        """
        layers, r = [], self.arithmetic
        for V, b, *norm_ in self.ob.model.unflatten(v):
            vb = b.astype(float) if b is not None and not norm_ and b.any() else None
            gamma_beta = tuple(Num(part.astype(float), np.zeros(len(part)), r) for part in norm_)
            layers.append((Operand(V.astype(float)) if V.any() else None, vb, *gamma_beta))
        return layers

    # --- R-forward, loss, R-backward
    # ----------------------------------------------------------------------------------------

    def norm_forward(self, s: NormState, layers: list[Any]) -> tuple[Any, Any, Any]:
        """Run the R-forward pass: ``rh = s (rz - mean rz - h c)``, ``ru = vgamma h + gamma rh +
        vbeta``, ``ra = phi' ru [+ ra]``. Return the last layer's (rz, Err) and, by layer, (ra, Err)
        and (rh, ru, s (vgamma - s c gamma)), None where these are 0.
        """
        r = self.arithmetic
        ra: list[Any] = [(None, None)]
        moved: list[Any] = []
        end: tuple[Any, Any] = (None, None)
        for l, (V, vb, *norm_v) in enumerate(layers):
            below, dbelow = ra[l]
            still = V is None and vb is None and below is None
            zero = np.zeros(s.d[l].shape)
            z, dz, _ = (zero, Err(zero), None) if still else self.moved(s, l, V, vb, ra[l])
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

    def r_pass(self, s: Any, layers: list[Any], kind: str, sums: list[Sums]) -> None:
        """Run the R-passes as for other networks, with rdgamma and rdbeta in addition."""
        full, ((z, dz), ra, moved) = kind == "hessian", self.norm_forward(s, layers)
        if z is None:
            return
        rd, drd = s.loss.r_loss(z, dz)
        re: Any = None
        dre: Any = None
        for l in range(len(self.W) - 1, -1, -1):
            self.add_products(s, l, (rd, drd), ra[l] if full else (None, None), sums, 2)
            if l == 0:
                continue
            below, error, _, _ = self.back(s, l, rd, drd, layers[l][0] if full else None)
            if self.skips[l]:
                below = below + re
                error, _ = self.sum_rounded(below, error, dre)
            re, dre = below, error
            rdelta, scales = self.r_normalised(s, l - 1, re, dre, moved[l - 1] if full else None)
            sums[l - 1].scales, rd, drd = scales, rdelta.A, rdelta.err

    def r_normalised(
        self, s: NormState, x: int, re: Floats, dre: Err, moved: Any
    ) -> tuple[Num, tuple[Num, Num]]:
        """Return rdelta of hidden layer x and its (rdgamma, rdbeta); moved None keeps only the
        terms that are linear in rdu.
        """
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


# --------------------------------------------------------------------------------------------------
# Kinks and signs under batch normalisation: a z counts as within rounding of 0 by the sizes of the
# terms that it is computed from. For other networks signs are proved in
# `fastcurv.certify.majorants`.


def norm_kinks(ob: Any, theta: Floats, least: float) -> int:
    """Return how many inputs of relu, leaky_relu and elu units lie within rounding of 0, where the
    rounding of the entries of theta is taken as `least` or more.
    """
    model, X = ob.model, np.asarray(ob.X, dtype=float)
    zs = model.preactivations(theta.astype(model.dtype), X.astype(model.dtype))
    eps, count, below = float(np.finfo(model.dtype).eps), 0, X
    for layer, name in enumerate(model.activation):
        W, _ = layers_of(model, theta)[layer]
        z = np.asarray(zs[layer], dtype=float)
        reach = np.abs(below) @ (np.abs(W) + least).T
        reach = _norm_reach(below @ W.T, reach, *_norms(model, theta, layer))
        off = 4 * (layer + 1) * (W.shape[1] + 2) * eps * reach + least * (reach > 0)
        count += int((np.abs(z) <= off).sum()) if ACTIVATIONS[name].kink else 0
        below = ACTIVATIONS[name].phi(z) + (below if skips(model, layer) else 0)
    return count


def norm_off(ob: Any, theta: Floats, radius: float) -> list[NDArray[np.bool_]]:
    """Return, by hidden layer, masks of the relu units that are proved to be off for all rows on
    the ball of that radius. Of N numbers with mean 0 and mean square 1 none is larger than
    ``sqrt(N)``, so ``gamma h + beta`` stays below 0 if ``|gamma| sqrt(N) + beta`` does.
    """
    most = float(np.sqrt(len(ob.X))) * (1 + 1e-12)
    return [
        (np.abs(gamma) + radius) * most + beta + radius < -1e-12 * np.abs(beta)
        if ACTIVATIONS[name].leak == 0.0
        else np.zeros(len(gamma), dtype=bool)
        for layer, name in enumerate(ob.model.activation)
        for gamma, beta in (_norms(ob.model, theta, layer),)
    ]


def _norms(model: Any, theta: Floats, layer: int) -> tuple[Floats, Floats]:
    """Return gamma and beta of a normalised layer."""
    found = norms_of(model, theta)[layer]
    assert found is not None
    return found


def _norm_reach(z: Floats, reach: Floats, gamma: Floats, beta: Floats) -> Floats:
    """Return the sizes of the terms that ``gamma (z - mean) s + beta`` is computed from, given the
    sizes `reach` of those of z.
    """
    h, s = normalise(z)
    mean, square = reach.mean(axis=0), np.sqrt((reach**2).mean(axis=0))
    found = np.abs(gamma) * s * (reach + mean + 2 * np.abs(h) * square) + np.abs(beta)
    return np.asarray(found)
