"""Bounds on rounding for networks with batch normalisation: `fastcurv.rounding`'s, with all rows at
hand at once.

The linear parts, activations and losses are bounded as there. What stands between them is followed
number by number: every `Num` carries a bound on its error, and each operation adds its own
rounding. The standard deviation is a norm of the centred column, so ``sqrt(variance + eps)`` moves
by at most the root mean square of the errors of z; everything else is products, sums and means. A
unit whose errors reach its standard deviation (``sqrt(eps)`` included) has no bound.
"""

import numpy as np

from .._engine import BATCH_NORM_EPS
from ..structure.parameters import l2_diagonal
from .arithmetic import Arithmetic, Err, Operand, Phi, gram_bound, norm
from .losses import LossRows
from .rowwise import Rounding
from .sums import Sums


class Num:
    """An array A with a bound E on the error of each entry, in an `Arithmetic` r."""

    def __init__(self, A, E, r):
        self.A, self.E, self.r = A, E, r

    def __mul__(self, other):
        E = np.abs(self.A) * other.E + self.E * (np.abs(other.A) + other.E)
        return self._rounded(self.A * other.A, E + self.r.eta)

    def __add__(self, other):
        return self._rounded(self.A + other.A, self.E + other.E)

    def __sub__(self, other):
        return self._rounded(self.A - other.A, self.E + other.E)

    def _rounded(self, A, E):
        return Num(A, E + self.r.u * (np.abs(A) + E), self.r)

    def sum(self):
        """Over the rows, in double precision, and then of the dtype."""
        E, A = self.E.sum(axis=0), self.A.sum(axis=0)
        return self._rounded(A, E + self.r.rows_gamma * (np.abs(self.A).sum(axis=0) + E))

    def mean(self):
        total = self.sum()
        return self._rounded(total.A / len(self.A), total.E / len(self.A))

    def normalised(self):
        """(h, s): ``h = (z - mean) s``, s = 1 / sqrt(variance + eps) of the columns, of infinite E
        where errors reach the deviation.

        The mean is taken in double precision, then corrected by the mean of what is left: it is
        right to its last digits.
        """
        mean = self.A.mean(axis=0)
        off = (self.A - mean).mean(axis=0)
        spread, centre = np.abs(self.A - mean).mean(axis=0), self.A - (mean + off)
        E = self.E.mean(axis=0) + self.r.rows_gamma * (
            spread + self.r.rows_gamma * np.abs(self.A).mean(axis=0)
        )
        mean = self._rounded(mean + off, E + self.r.mean_gamma * np.abs(mean))
        size = np.sqrt((centre**2).mean(axis=0) + BATCH_NORM_EPS)
        low = (
            size
            - np.sqrt((self.E**2).mean(axis=0))
            - self.r.rows_gamma * (size + self.r.rows_gamma * np.abs(self.A).mean(axis=0))
        )
        s = self._rounded(
            1 / size, np.where(low > 0, 1 / np.where(low > 0, low, 1) - 1 / size, np.inf)
        )
        return (self - mean) * s, s

    @property
    def err(self):
        return Err(self.E)


def _spectral(gram):
    return np.sqrt(gram_bound(gram)) if gram.max() > 1e-280 else np.inf


class NormState:
    """What is kept at theta, with errors: a below each layer, h, s, phi, du and delta with their
    means, e phi''.
    """

    def __init__(self, R):
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

    def forward(self):
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
                break
            z, gamma, beta = Num(z, dz.E, R.arithmetic), *R.norms[l]
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
            weight,
            R.ob.divisor,
            R.arithmetic,
        )

    def backward(self):
        """e_below = delta W [+ e];  du = e phi';  delta = s gamma (du - mean du - h mean (du h))."""
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
            du, ddu, _ = R.times(e, de, phi.p, phi.dp)
            if phi.derived:
                self.eq[x], self.deq[x] = phi.bent(du, ddu, R.arithmetic.u)
            elif phi.q is not None:
                self.eq[x], self.deq[x], _ = R.times(e, de, phi.q, phi.dq)
            self.du[x] = du = Num(du, ddu.E, R.arithmetic)
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

    def __init__(self, ob, theta, layout=None, measured=False):
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
        layers = [
            tuple(None if part is None else part.astype(float) for part in layer)
            for layer in model.unflatten(self.theta)
        ]
        self.W = [Operand(layer[0]) for layer in layers]
        self.b = np.zeros(len(layers[-1][0])) if layers[-1][1] is None else layers[-1][1]
        self.norms = [tuple(Num(part, 0 * part, r) for part in layer[2:]) for layer in layers]
        self.overflow, self.known = False, None

    @property
    def state(self):
        if self.known is None:
            self.known = NormState(self)
            self.grams = [
                tuple(_spectral(x.T @ x) for x in pair) for pair in zip(self.known.a, self.known.d)
            ]
        return self.known

    def gradient(self, computed=None):
        """A bound on ``||computed gradient - gradient||``."""
        with np.errstate(all="ignore"):
            s, parts, (weights, biases) = self.state, [], self.gammas(1)
            for l, W in enumerate(self.W):
                sums = Sums(W.A.shape, *self.grams[l])
                sums.add("a", s.d[l], s.dd[l], s.a[l], s.da[l], weights)
                if l == len(self.W) - 1:
                    sums.add_rows(s.d[l], s.dd[l], biases)
                norms = () if s.du[l] is None else ((s.du[l] * s.h[l]).sum(), s.du[l].sum())
                parts.append((sums, norms))
            return self.total_of(
                parts, 1, l2_diagonal(self.ob) * self.theta.astype(float), computed
            )

    def product(self, v, kind="hessian", computed=None):
        """A bound on ``||computed(A v) - A v||`` for v (n,)."""
        v = self.checked(v, kind)
        if v is None:
            return np.inf
        with np.errstate(all="ignore"):
            state, at_theta = self.state, self.overflow
            bound = self.total_of(
                self.r_pass(state, self.direction(v), kind),
                2,
                l2_diagonal(self.ob) * v.astype(float),
                computed,
            )
            self.overflow = at_theta
            return bound

    def columns(self, kind="hessian"):
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

    def direction(self, v):
        """``[(V, vb, vgamma, vbeta)]`` of v (n,): V and the last layer's vb None where they are 0,
        b of others left out.
        """
        layers, r = [], self.arithmetic
        for l, (V, b, *norm_) in enumerate(self.ob.model.unflatten(v)):
            vb = b.astype(float) if b is not None and not norm_ and b.any() else None
            gamma_beta = tuple(Num(part.astype(float), np.zeros(len(part)), r) for part in norm_)
            layers.append((Operand(V.astype(float)) if V.any() else None, vb, *gamma_beta))
        return layers

    def total_of(self, parts, terms, l2_part, computed):
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

    def r_forward(self, s, layers):
        """Rh = s (rz - mean rz - h c);  ru = vgamma h + gamma rh + vbeta;  ra = phi' ru [+ ra]: the
        last layer's (rz, Err), and by layer ra with its Err and (rh, ru, s (vgamma - s c gamma)),
        None where nothing moves.
        """
        r, ra, moved = self.arithmetic, [(None, None)], []
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
            if not norm_v:
                return (None, None) if still else (z, dz), ra, moved
            if still and not any(part.A.any() for part in norm_v):
                ra.append((None, None))
                moved.append(None)
                continue
            z, h, gamma, (vgamma, vbeta) = Num(z, dz.E, r), s.h[l], self.norms[l][0], norm_v
            c = (z * h).mean()
            rh = (z - z.mean() - h * c) * s.s[l]
            ru = h * vgamma + rh * gamma + vbeta
            moved.append((rh, ru, (vgamma - s.s[l] * c * gamma) * s.s[l]))
            above, error, _ = self.times(ru.A, ru.err, s.phi[l].p, s.phi[l].dp)
            if self.skips[l] and below is not None:
                above = above + below
                error, _ = self.sum_rounded(above, error, dbelow)
            ra.append((above, error))

    def r_pass(self, s, layers, kind):
        """``[(Sums, (rdgamma, rdbeta))]`` by layer."""
        full, (weights, biases) = kind == "hessian", self.gammas(2)
        (z, dz), ra, moved = self.r_forward(s, layers)
        parts = [(Sums(W.A.shape, *pair), ()) for W, pair in zip(self.W, self.grams)]
        if z is None:
            return parts
        rd, drd = s.loss.r_loss(z, dz)
        re = dre = None
        for l in range(len(self.W) - 1, -1, -1):
            W, V = self.W[l], layers[l][0]
            parts[l][0].add("a", rd, drd, s.a[l], s.da[l], weights)
            if l == len(self.W) - 1:
                parts[l][0].add_rows(rd, drd, biases)
            if full and ra[l][0] is not None:
                parts[l][0].add("ra", s.d[l], s.dd[l], *ra[l], weights)
            if l == 0:
                return parts
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

    def r_normalised(self, s, x, re, dre, moved):
        """Rdelta of hidden layer x, and its (rdgamma, rdbeta); moved None: rdu's own terms only."""
        r, h = self.arithmetic, s.h[x]
        rdu, drdu, _ = self.times(re, dre, s.phi[x].p, s.phi[x].dp)
        rdu = Num(rdu, drdu.E, r)
        if moved is None:
            rdu_h = rdu * h
            return (rdu - rdu.mean() - h * rdu_h.mean()) * s.scale[x], (rdu_h.sum(), rdu.sum())
        rh, ru, r_scale = moved
        if s.eq[x] is not None:
            rdu = rdu + Num(s.eq[x], s.deq[x].E, r) * ru
        rdu_h, D = rdu * h + s.du[x] * rh, s.du[x] - s.du_mean[x] - h * s.du_h[x]
        inner = rdu - rdu.mean() - rh * s.du_h[x] - h * rdu_h.mean()
        return D * r_scale + inner * s.scale[x], (rdu_h.sum(), rdu.sum())
