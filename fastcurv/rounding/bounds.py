"""Bounds on what rounding does to gradients and curvature products of a network.

Everything computed is followed by a bound on its error, made in the same order as the passes: z, a,
phi', phi'' forward, delta and e phi'' backward; then for a vector v, rz and ra forward, rdelta
backward; then the sums over rows.

Model [1]_. One operation: ``fl(x op y) = (x op y)(1 + t) + h``, ``|t| <= u``, ``|h| <= eta`` (the
smallest subnormal number, in products only). A sum of products whose numbers pass through at most D
roundings each, in any order and with or without fused multiply-adds, is off by at most ``gamma(D)
|x|'|y| + D eta``, ``gamma(D) = D u / (1 - D u)``. `Arithmetic` knows D for the kernels: slices of
at most 256 (float32) or 128 numbers, then the slices, then panels, groups and chunks of rows. `Phi`
and `LossRows` know what phi, its derivatives and the loss rows promise.

Local errors, with the operands' own errors d: for ``z = a W' + b``

    |local| <= gamma ((|a| + |da|) |W|' + |b|)                           entry by entry, one more matrix product

and likewise for ``rz = ra W' + a V' + vb``, ``e = delta W``, ``re = rdelta W + delta V``; for
elementwise steps u times the terms.

Carried errors. An error x (a row) goes on in three ways at once, and after each step the smallest
counts:

    |(x W')_j| <= min( (|x| |W|')_j, ||x|| ||w_j|| )                     entry by entry (`Err.E`)
    ||x W'||   <= ||W||_2 ||x||                                          row by row, one layer (`Err.nu`)
    ||dx_m||   <= sum over i <= m of ||A_m ... A_(i+1)||_2 ||fresh_i||   row by row, all layers (`Chain`)

The first does not depend on how units are scaled. The second does not grow with depth as ``|| |W|
||_2``, about ``sqrt(width) ||W||_2``, does. In the third, ``A_l = diag(phi'(z_l)) W_l [+ I]`` for
each row, fresh_i is what comes in at layer i, and the same norms serve on the way back, through the
transposes: that is what keeps deep nets within reach, where the network is small enough for a
matrix a row (`JOINT_FLOPS`). Through ``a = phi(z)`` go ``|phi'| |dz| + S2 |dz|^2 / 2`` and so on:
second order is bounded, not left out, with the largest phi'' and phi''' between z - dz and z + dz;
where that interval holds a kink, the jump of phi' is an error too. A product x * y of two inexact
matrices is off by ``|dx| (|y| + |dy|) + |x| |dy|``.

Sums over rows, ``dW = delta' a`` and ``rdW = rdelta' a + delta' ra``. For each term x'y the smaller
of

    || gamma |x|'|y| + |dx|'|y| + |x|'|dy| ||_F                          entry by entry, one Frobenius norm for the layer
    gamma sum ||x_n|| ||y_n||  +  min( sum ||dx_n|| ||y_n||, ||dx||_F ||y||_2 )  +  the same with x
    and y exchanged

n a row, ``||y||_2`` the spectral norm over all rows, from a Gram matrix, known for the state at
theta. Layers are independent parts of the vector: their bounds are added as squares.

The passes here run in float64. Where the engine does too, their own rounding, and in any case
roundings of errors, change the bound by a relative ``O(L 64 u)``, for which room is left. Overflow
anywhere gives an infinite bound.

Measured. For a float32 engine the float64 passes give the result itself, with a bound of the same
kind but u = 2^-53: then ``||computed - ours||`` plus that bound bounds the error of that one
result, hundreds to millions of times more sharply than anything known beforehand.
`Objective.rounding_bound` and `Curvature.rounding_bound` do so; `gradient_bound` and
`product_bound` tell what any result may be off by.

References
----------
.. [1] N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM, 2002, ch. 2 and 3 (eqs. 2.4, 2.8, 3.5, 3.13).
"""

import math

import numpy as np

from ..checks import check_choice
from ..structure.parameters import l2_diagonal
from .arithmetic import Arithmetic, Chain, Err, Operand, gram_bound, norm, norms
from .state import State

KINDS = ("hessian", "ggn", "fisher")
CHUNK_BYTES = 1 << 25  # of the state of the rows at hand
KEPT_BYTES = 1 << 27  # up to which the state of all rows is kept from one vector to the next
JOINT_FLOPS = 1 << 30  # up to which products of layers are made for every row


def product_bound(ob, theta, v, kind="hessian"):
    """A bound on ``||computed(A v) - A v||_2`` for the engine's products, A the Hessian, the GGN or
    the empirical Fisher.

    Parameters
    ----------
    ob : Objective
    theta, v : array_like (n,)
    kind : {"hessian", "ggn", "fisher"}

    Returns
    -------
    float
        Infinite where overflow cannot be ruled out. Cost: the time of 50 to 300 of the engine's
        products, since it is in NumPy; `Rounding` serves more vectors at one theta for that of 15
        to 50 each.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> model = fc.MLP([4, 8, 3], dtype="float32")
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((50, 4)), rng.integers(3, size=50)
    >>> ob = fc.Objective(model, X, y)
    >>> theta, v = model.init(seed=0), rng.standard_normal(model.n_params).astype("float32")
    >>> error = np.linalg.norm(ob.hessian(theta) @ v - ob.astype("float64").hessian(theta) @ v)
    >>> bool(error < product_bound(ob, theta, v) < 1e4 * error)
    True
    """
    return Rounding(ob, theta).product(v, kind)


def gradient_bound(ob, theta):
    """A bound on ``||computed gradient - gradient||_2`` at theta.

    Cost: about 10 gradients' arithmetic, in NumPy.
    """
    return Rounding(ob, theta).gradient()


class Sums:
    """Bounds on the errors of one layer's ``x'y`` summed over rows, and of the sum of x's rows: see
    the head of this file.

    `value` and `b_value` are the sums themselves.
    """

    def __init__(self, shape, spectral_a, spectral_d):
        self.B, self.b, self.value, self.b_value = (
            np.zeros(shape),
            np.zeros(shape[0]),
            np.zeros(shape),
            np.zeros(shape[0]),
        )
        self.local = self.b_local = self.b_rows = 0.0
        self.spectral_a, self.spectral_d = spectral_a, spectral_d
        self.terms = {}

    def add(self, tag, x, dx, y, dy, gamma):
        """Some rows of a term; dy None: y is exact."""
        X, Y = np.abs(x) + dx.E, np.abs(y) if dy is None else np.abs(y) + dy.E
        self.B += (gamma * X + dx.E).T @ Y
        nx, ny = norms(np.abs(x)), norms(np.abs(y))
        nu = np.zeros_like(ny) if dy is None else dy.nu
        if dy is not None:
            self.B += np.abs(x).T @ dy.E
        self.value += x.T @ y
        self.local += gamma * float(((nx + dx.nu) * (ny + nu)).sum())
        parts = [
            (dx.nu * ny).sum(),
            (dx.nu**2).sum(),
            (dx.nu * nu).sum(),
            (nx * nu).sum(),
            (nu**2).sum(),
        ]
        self.terms[tag] = self.terms.get(tag, np.zeros(5)) + parts

    def add_rows(self, x, dx, gamma):
        """Some rows of the bias's part."""
        self.b += (gamma * (np.abs(x) + dx.E) + dx.E).sum(axis=0)
        self.b_value += x.sum(axis=0)
        self.b_local += gamma * float((norms(np.abs(x)) + dx.nu).sum())
        self.b_rows += float(dx.nu.sum())

    def bounds(self, eta):
        """(of the weights' part, of the bias's part)."""
        rows = self.local
        for tag, (x_rows, x_square, cross, y_rows, y_square) in self.terms.items():
            rows += cross + (
                min(x_rows, math.sqrt(x_square) * self.spectral_a)
                if tag == "a" and x_square > 1e-280
                else x_rows
            )
            rows += (
                min(y_rows, math.sqrt(y_square) * self.spectral_d)
                if tag == "ra" and y_square > 1e-280
                else y_rows
            )
        return (
            min(norm(self.B), rows) + eta * math.sqrt(self.B.size) * (rows > 0),
            min(norm(self.b), self.b_local + self.b_rows),
        )


class RowSums:
    """The place of `Sums` for many vectors at once: bounds on the size and on the error of what
    each row contributes.
    """

    def __init__(self, rows):
        self.error, self.size = (
            np.zeros((2, rows)),
            np.zeros((2, rows)),
        )  # of the weights' part, of the bias's

    def add(self, tag, x, dx, y, dy, gamma):
        nx, ny, nu = norms(np.abs(x)), norms(np.abs(y)), 0.0 if dy is None else dy.nu
        whole = (nx + dx.nu) * (ny + nu)
        self.size[0] += whole[:, 0]
        self.error[0] += (gamma * whole + dx.nu * (ny + nu) + nx * nu)[:, 0]

    def add_rows(self, x, dx, gamma):
        whole = norms(np.abs(x)) + dx.nu
        self.size[1] += whole[:, 0]
        self.error[1] += (gamma * whole + dx.nu)[:, 0]


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

    def __new__(cls, ob, *args, **options):
        if ob.model.batch_norm and cls is Rounding:
            from .batch_norm import NormRounding as cls
        return object.__new__(cls)

    def __init__(self, ob, theta, layout=None, measured=False):
        self.ob, self.theta, self.measured = ob, np.array(ob.model.check_theta(theta)), measured
        self.row_bytes = 8 * 16 * sum(ob.model.sizes)
        self.step = max(1, CHUNK_BYTES // self.row_bytes)
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
        layers = ob.model.unflatten(self.theta)
        self.W = [Operand(W.astype(float)) for W, b in layers]
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
    # -------------------------------------------------------------------------------------------------------

    def local(self, size, k, terms):
        """Err of a sum of `terms` products of inner dimension k, `size` the same sum of absolute
        values.
        """
        if not size.max(initial=0.0) < self.arithmetic.max:
            self.overflow = True
        depth = self.arithmetic.depth(k, terms) + 1
        return Err(self.arithmetic.gamma(depth) * size + (size > 0) * (depth * self.arithmetic.eta))

    def sum_rounded(self, total, error, other):
        """(Err of a sum of two inexact matrices, rounded, the rounding's norms); other None: that
        one is exact.
        """
        error = error if other is None else error + other
        rounding = Err(self.arithmetic.u * (np.abs(total) + error.E))
        return error + rounding, rounding.nu

    def times(self, x, dx, p, dp):
        """(x * p, its Err, norms of what is not p times x's error); p None: 1."""
        if p is None:
            return x, dx, 0.0
        product, other = x * p, dp.times(np.abs(x) + dx.E)
        error, size = dx.times(np.abs(p)) + other, np.abs(product)
        rounding = Err(self.arithmetic.u * (size + error.E) + self.arithmetic.eta * (size > 0))
        return product, error + rounding, other.nu + rounding.nu

    # --- all rows
    # -------------------------------------------------------------------------------------------------------

    def states(self):
        """The state of all rows, chunk by chunk."""
        if self.kept is not None:
            yield from self.kept
            return
        N = self.ob.n_samples
        keep = [] if N * self.row_bytes <= KEPT_BYTES else None
        for first in range(0, N, self.step):
            state = State(self, slice(first, min(N, first + self.step)))
            if keep is not None:
                keep.append(state)
            yield state
        self.kept = keep

    def new_sums(self):
        """`Sums` for each layer; the spectral norms of a and delta over all rows are found on first
        use.
        """
        if self.grams is None:
            grams = None
            for state in self.states():
                here = [(a.T @ a, d.T @ d) for a, d in zip(state.a, state.d)]
                grams = (
                    here
                    if grams is None
                    else [(A + a, D + d) for (A, D), (a, d) in zip(grams, here)]
                )
            self.grams = [
                tuple(math.sqrt(gram_bound(G)) if G.max() > 1e-280 else np.inf for G in pair)
                for pair in grams
            ]
        return [Sums(W.A.shape, *pair) for W, pair in zip(self.W, self.grams)]

    def gammas(self, terms):
        """Of the sums over rows: (for weights, for biases)."""
        r = self.arithmetic
        return r.gamma(r.over_rows(terms)), r.gamma(r.over_columns())

    @property
    def slack(self):
        """Room for second order and for our own rounding."""
        return 1 + 1e-6 + 256 * len(self.W) * self.arithmetic.u

    def total(self, sums, terms, l2_part, computed):
        """The Euclidean norm over the layers' bounds; measured: how far our result lies from the
        computed one as well.
        """
        r = self.arithmetic
        eta = 2 * r.eta * (r.N + r.over_rows(terms))
        if any(not s.B.max(initial=0.0) < r.gamma(1) * r.max for s in sums) or self.overflow:
            return np.inf
        gamma = r.gamma(max(r.over_rows(terms), r.over_columns()) + 3)
        bound = self.slack * (
            norm([part for s in sums for part in s.bounds(eta)]) + gamma * norm(l2_part)
        )
        if self.measured:
            ours = [
                part.ravel()
                for s in sums
                for part in ((s.value, s.b_value) if self.ob.model.bias else (s.value,))
            ]
            bound += norm(np.asarray(computed, float) - (np.concatenate(ours) + l2_part))
        return float(bound) if np.isfinite(bound) else np.inf

    def gradient(self, computed=None):
        """A bound on ``||computed gradient - gradient||``."""
        with np.errstate(all="ignore"):
            sums, (weights, biases) = self.new_sums(), self.gammas(1)
            for state in self.states():
                for l, s in enumerate(sums):
                    s.add("a", state.d[l], state.dd[l], state.a[l], state.da[l], weights)
                    s.add_rows(state.d[l], state.dd[l], biases)
            return self.total(sums, 1, l2_diagonal(self.ob) * self.theta.astype(float), computed)

    def checked(self, v, kind):
        """V (n,) in the model's dtype; None where it is not finite, and nothing is bounded."""
        check_choice(kind, KINDS, "kind")
        v = np.asarray(v, self.ob.dtype)
        if v.shape != self.theta.shape:
            raise ValueError(f"v has shape {v.shape}; wanted {self.theta.shape}")
        return v if np.isfinite(v).all() else None

    def product(self, v, kind="hessian", computed=None):
        """A bound on ``||computed(A v) - A v||`` for v (n,)."""
        v = self.checked(v, kind)
        if v is None:
            return np.inf
        with np.errstate(all="ignore"):
            sums, direction = self.new_sums(), self.direction(v)
            at_theta = self.overflow
            for state in self.states():
                self.r_pass(state, direction, kind, sums)
            bound = self.total(
                sums,
                2,
                (l2_diagonal(self.ob) if kind != "fisher" else 0.0) * v.astype(float),
                computed,
            )
            self.overflow = at_theta
            return bound

    def columns(self, kind="hessian"):
        """Bounds ``(n,)`` on ``||computed(A e_j) - A e_j||`` for every unit vector: what a dense
        matrix may be off by.

        A step in the weight from unit k to unit i of layer l moves row n as a step in the bias of i
        does, ``a_nk`` times as far. So one pass for each unit gives what each row contributes at
        most, and a product with |a| all columns. Cost: as many passes as there are units.
        """
        check_choice(kind, KINDS, "kind")
        r, L, found = self.arithmetic, len(self.W), []
        with np.errstate(all="ignore"):
            for l, W in enumerate(self.W):
                m, k = W.A.shape
                squares, impulses = np.zeros((2 * L, m, k + 1)), np.eye(m)
                for state in self.states():
                    E = 0.0 if state.da[l] is None else state.da[l].E
                    A = np.pad(
                        np.abs(state.a[l]) + E + r.tiny / r.u * (state.a[l] != 0),
                        ((0, 0), (0, 1)),
                        constant_values=1.0,
                    )
                    dA = np.pad(np.broadcast_to(E, state.a[l].shape), ((0, 0), (0, 1)))
                    for i in range(m):
                        sums = [RowSums(len(A)) for _ in range(L)]
                        self.r_pass(
                            state,
                            [(None, impulses[i] if j == l else None) for j in range(L)],
                            kind,
                            sums,
                        )
                        error, size = (
                            np.concatenate([s.error for s in sums]),
                            np.concatenate([s.size for s in sums]),
                        )
                        squares[:, i] += error @ A + size @ dA
                bounds = np.sqrt((squares**2).sum(axis=0))
                found += [bounds[:, :-1].ravel()] + [bounds[:, -1]] * self.ob.model.bias
        l2 = r.gamma(r.over_rows(2) + 3) * l2_diagonal(self.ob) * (kind != "fisher")
        bounds = self.slack * (np.concatenate(found) + l2 + r.tiny / r.u)
        return (
            np.full_like(bounds, np.inf)
            if self.overflow
            else np.where(np.isfinite(bounds), bounds, np.inf)
        )

    def direction(self, v):
        """``[(V, vb)]`` of v (n,), None for parts that are 0."""
        layers, start = [], 0
        for m, k in self.ob.model.shapes:
            V, start = v[start : start + m * k].reshape(m, k), start + m * k
            vb = v[start : start + m].astype(float) if self.ob.model.bias else np.zeros(m)
            start += m * self.ob.model.bias
            layers.append((Operand(V.astype(float)) if V.any() else None, vb if vb.any() else None))
        return layers

    # --- R-forward, loss, R-backward
    # ----------------------------------------------------------------------------------------

    def r_forward(self, s, layers):
        """Rz = ra W' + a V' + vb;  ra = phi' * rz [+ the input's ra]:  (ra, rz) with their Errs, by
        layer; None: 0.
        """
        ra, rz, chain = [(None, None)], [], Chain(s.kappa)
        for l, (W, (V, vb)) in enumerate(zip(self.W, layers)):
            (a, da), (r, dr) = (s.a[l], s.da[l]), ra[l]
            if V is None and vb is None and r is None:
                rz.append((None, None))
                ra.append((None, None))
                continue
            z, size, moved = np.zeros((len(a), len(W.A))), 0.0, None
            if vb is not None:
                z, size = z + vb, size + np.abs(np.broadcast_to(vb, z.shape))
            if V is not None:
                z, size = (
                    z + a @ V.A.T,
                    size + (np.abs(a) if da is None else np.abs(a) + da.E) @ V.abs.T,
                )
                moved = None if da is None else da.across(V)
            if r is not None:
                z, size = z + r @ W.A.T, size + (np.abs(r) + dr.E) @ W.abs.T
            new = self.local(size, W.A.shape[1], 2)
            new = new if moved is None else new + moved
            dz = new if r is None else new + dr.across(W)
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

    def r_pass(self, s, layers, kind, sums):
        """RdW = rdelta' a + delta' ra;  re_below = rdelta W + delta V [+ re];  rdelta = re * phi' +
        e * phi'' * rz.
        """
        full, (weights, biases) = kind == "hessian", self.gammas(2)
        ra, rz = self.r_forward(s, layers)
        if rz[-1][0] is None:  # v = 0
            return
        rd, drd = s.loss.fisher(*rz[-1]) if kind == "fisher" else s.loss.r_loss(*rz[-1])
        re, dre, chain, new = None, None, Chain(s.kappa), 0.0
        for l in range(len(self.W) - 1, -1, -1):
            W, V = self.W[l], layers[l][0]
            sums[l].add("a", rd, drd, s.a[l], s.da[l], weights)
            sums[l].add_rows(rd, drd, biases)
            if full and ra[l][0] is not None:
                sums[l].add("ra", s.d[l], s.dd[l], *ra[l], weights)
            if l == 0:
                return
            below, size, error = rd @ W.A, (np.abs(rd) + drd.E) @ W.abs, drd.back(W)
            fresh = error.nu if re is None else W.norm * new
            if full and V is not None:
                below, size = below + s.d[l] @ V.A, size + (np.abs(s.d[l]) + s.dd[l].E) @ V.abs
                moved = s.dd[l].back(V)
                error, fresh = error + moved, fresh + moved.nu
            local = self.local(size, W.A.shape[0], 2)
            error, fresh = error + local, fresh + local.nu
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
