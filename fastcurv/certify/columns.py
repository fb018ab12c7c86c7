"""Bounds on the errors of every column of a dense matrix of products, without computing a product
for each column.

The column of the weight from unit k to unit i of layer l is the effect of two impulses in every row
n, with e_i the unit vector of unit i:

    forward    rz_l = a_nk e_i      a_nk times the effect of a unit step in the bias of i
    backward   re = delta_ni e_k    at the input of layer l, from delta V of the R-backward pass

Passes, products and their rounding errors are linear in v or bounded by sums of sizes, so the error
is at most the sum of the errors of the two impulses. For each impulse of each unit, two numbers per
row are propagated through the passes: a bound on the norm of rz, ra, re or rdelta (the size below),
and a bound on the norm of its error. They grow by

    ||x W'|| <= ||W||_2 ||x||,      rounding of x W' <= gamma || |W| ||_2 ||x||

and the corresponding bounds of the other operations. This is the row-wise part (`Errors.nu`,
`ErrorChain`) of the bounds for one vector in `fastcurv.certify.passes`. The first step away from a
unit uses the norm of the unit's own column (row) of W. Sums over rows add norms, where error' and
size' are those of the backward impulse:

    sum over n of |a_nk| error_n  +  |da_nk| size_n  +  |delta_ni| error'_n  +  |ddelta_ni| size'_n

These sums are products of matrices (units, rows) (rows, inputs). Layers are independent parts of a
column, so their bounds are added as squares. Cost: O(N L^2 sum(widths)) and L^2 such products.

Underflow in the engine's products does not scale with a_nk or delta_ni. `underflow_bounds` bounds
this underflow separately, for all columns at once. Products that are computed here in float64 and
multiplied by a_nk or delta_ni are rounded up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..common.checks import check_choice
from ..common.protocols import Floats
from ..structure.parameters import is_batch_normalised, l2_diagonal
from .arithmetic import (
    SMALLEST_SUBNORMAL,
    Enclosure,
    ErrorChain,
    flushes_subnormals,
    row_norms,
    spectral_norm_bound,
)
from .passes import CURVATURE_KINDS, ErrorPass, State


class NormBound(NamedTuple):
    """Bounds (rows, units) on the norm of a quantity (`size`) and on the norm of its error
    (`error`), rounded up against underflow. `new` is a `NormBound` of the part that has entered
    since the last cap by an `ErrorChain`, or None if no chain is used.
    """

    size: Any
    error: Any
    new: Any = None

    def __add__(self, other: NormBound) -> NormBound:  # type: ignore[override]
        new = None if self.new is None or other.new is None else self.new + other.new
        return NormBound(self.size + other.size, self.error + other.error, new)

    def __mul__(self, k: Floats) -> NormBound:  # type: ignore[override]
        return NormBound(self.size * k + SMALLEST_SUBNORMAL, self.error * k + SMALLEST_SUBNORMAL)

    @classmethod
    def from_new_quantity(cls, size: Floats, error: Floats | float) -> NormBound:
        """Return the bounds of a quantity whose whole size and error have entered since the last
        cap.
        """
        return cls(size, error, cls(size, error))

    def with_capped_errors(self, most: NormBound | None) -> NormBound:
        """Return a `NormBound` with `new` set to 0, whose size and error are at most those of
        `most`. If `most` is None, size and error are unchanged.
        """
        size, error = (np.inf, np.inf) if most is None else most[:2]
        return NormBound(
            np.minimum(self.size, size), np.minimum(self.error, error), NormBound(0.0, 0.0)
        )

    def multiply(self, x: NormBound) -> NormBound:
        """Return bounds on the product of this quantity and a quantity whose bounds are x."""
        error = self.error * x.size + (self.size + self.error) * x.error
        return NormBound(self.size * x.size + SMALLEST_SUBNORMAL, error + 2 * SMALLEST_SUBNORMAL)


def propagate_norm_bounds(
    R: ErrorPass, s: State, into: list[Any], loss: Any, into_loss: Any, full: bool
) -> tuple[list[Floats], list[Floats]]:
    """Return two lists by layer, of bounds (rows, 1) on the norms of ra and of rdelta. They come
    from R-passes in which every vector is replaced by a bound on its norm.

    `into` holds, for each layer, a tuple of bounds on the norms of what is added to rz, ra, re and
    rdelta. At the loss, ``||rdelta|| <= loss ||rz|| + into_loss`` holds for each row. If `full` is
    False, the terms with phi'' are left out.
    """
    p, q = (
        [None if x is None else _largest_magnitude_in_rows(x) for x in xs]
        for xs in ([f.p for f in s.phi], s.eq)
    )
    ra = [np.zeros((len(s.a[0].x), 1))]
    rz = []
    rd = []
    for l, (W, (new_z, new_a, _, _)) in enumerate(zip(R.W, into)):
        rz.append(W.norm * ra[l] + new_z)
        if l < len(R.W) - 1:
            bent = rz[l] if p[l] is None else p[l] * rz[l]
            ra.append(bent + new_a + R.skips[l] * ra[l])
    rd = [loss * rz[-1] + into_loss]
    re = 0.0
    for l in range(len(R.W) - 1, 0, -1):
        re = R.W[l].norm * rd[0] + into[l][2] + R.skips[l] * re
        bent = re if p[l - 1] is None else p[l - 1] * re
        bend = 0.0 if q[l - 1] is None or not full else q[l - 1] * rz[l - 1]
        rd.insert(0, bent + bend + into[l][3])
    return ra, rd


def _largest_magnitude_in_rows(x: Enclosure) -> Floats:
    """Return, for each row of x, the largest magnitude plus the largest error bound, with shape
    (rows, 1).
    """
    return np.asarray(np.abs(x.x).max(axis=1, keepdims=True) + x.dx.E.max(axis=1, keepdims=True))


class ColumnErrorAccumulator:
    """Accumulator of bounds on the errors of the columns of a dense curvature matrix, at the theta
    of the `ErrorPass` R.

    `kind` is "hessian", "ggn", "fisher" or "jacobian". If `gather` is True, the constructor adds
    all rows of R. `peak` (rows, units) holds the largest intermediate number that an impulse of 1
    has produced.
    """

    peak: Floats

    def __init__(self, R: ErrorPass, kind: str, gather: bool = True) -> None:
        self.R = R
        self.kind = kind
        self.full = kind == "hessian"
        self.r = R.arithmetic
        self.L = len(R.W)
        self.abs_norms = [spectral_norm_bound(W.abs) for W in R.W]
        self.gammas = [self.r.gamma(self.r.n_matmul_roundings(max(W.A.shape), 2) + 2) for W in R.W]
        # off[l][j] (units, inputs) bounds the errors in part j of the columns of layer l's weights,
        # and off_b[l][j] (units,) those in part j of the columns of layer l's biases. Part j holds
        # the weights of layer j or, for j >= L, the biases of layer j - L.
        self.off = [np.zeros((2 * self.L, *W.A.shape)) for W in R.W]
        self.off_b = [np.zeros((2 * self.L, len(W.A))) for W in R.W]
        for s in R.iter_states() if gather else ():
            self.add_rows(s)

    def add_rows(self, s: State) -> None:
        """Add the contributions of the rows of the state s to the bounds."""
        sizes = self.row_norms(s)
        lost = [float(part.sum()) for part in self.underflow_bounds(s, sizes)]
        for l in range(self.L):
            a = s.a[l].magnitude
            for j, part in enumerate(self.forward_impulse_bounds(s, sizes, l)):
                self.off[l][j] += part.error.T @ a + lost[j]
                self.off[l][j] += part.size.T @ s.a[l].dx.E
                self.off_b[l][j] += part.error.sum(axis=0) + lost[j]
            self.mark_overflow(self.off[l], self.peak, a)
            self.mark_overflow(self.off_b[l][:, :, None], self.peak, np.ones((1, 1)))
            if l > 0 and self.full:
                d = s.d[l].magnitude
                dd = s.d[l].dx.E
                for j, part in enumerate(self.backward_impulse_bounds(s, sizes, l)):
                    self.off[l][j] += d.T @ part.error + dd.T @ part.size
                self.mark_overflow(self.off[l], d, self.peak)

    def underflow_bounds(
        self, s: State, sizes: dict[str, list[NormBound]], forward: bool = True
    ) -> list[Floats]:
        """Return a list, by part, of bounds (rows, 1) on the effect of underflow in the engine's
        products on a row's contribution to any column. The parts are the weights of all layers,
        then the biases. `sizes` comes from `row_norms`. The R-forward pass is included if `forward`
        is True.
        """
        R = self.R
        eta = self.r.eta
        zero = np.zeros((len(s.a[0].x), 1))
        each = [
            eta * self.r.n_matmul_roundings(k, 2) * k**0.5 for k in (max(W.A.shape) for W in R.W)
        ]
        into = [(x * forward, x * forward, x, 2 * x) for x in each]
        loss = zero if not forward else sum(self.loss_curvature_norms(s))
        ra, rd = propagate_norm_bounds(
            R, s, into, loss, s.loss.rdelta_underflow_bounds() if forward else zero, self.full
        )
        a, d = ([x.size + x.error for x in sizes[name]] for name in "ad")
        weights = [rd[m] * a[m] + self.full * ra[m] * d[m] for m in range(self.L)]
        return [part + SMALLEST_SUBNORMAL for part in (*weights, *rd)]

    def mark_overflow(self, off: Floats, x: Floats, y: Floats) -> None:
        """Set the bounds `off` (parts, units, inputs) to infinity where a sum over rows of products
        may overflow. The factors have magnitudes x (rows, units) and y (rows, inputs). One of x and
        y may be (rows, 1).
        """
        maxima = [np.asarray(z.max(axis=0)) for z in (x, y)]
        off[:, ~(self.r.N * maxima[0][:, None] * maxima[1] < self.r.max)] = np.inf

    def row_norms(self, s: State) -> dict[str, list[NormBound]]:
        """Return a dictionary of lists by layer of `NormBound`, each (rows, 1). The lists "a" and
        "d" bound the norms of the rows of a and of delta. The lists "p" and "q" bound the largest
        phi' and e phi'' in each row of the hidden layers.
        """
        zero = np.zeros((len(s.a[0].x), 1))
        one = zero + 1.0

        def top(x: Enclosure | None, other: Floats) -> NormBound:
            if x is None:
                return NormBound(other, zero)
            largest = x.dx.E.max(axis=1, keepdims=True)
            return NormBound(np.abs(x.x).max(axis=1, keepdims=True), largest)

        return {
            "a": [NormBound(row_norms(np.abs(a.x)), a.dx.nu) for a in s.a],
            "d": [NormBound(row_norms(np.abs(d.x)), d.dx.nu) for d in s.d],
            "p": [top(phi.p, one) for phi in s.phi],
            "q": [top(eq, zero) for eq in s.eq[:-1]],
        }

    @staticmethod
    def unit_bounds(x: Enclosure | None, like: Floats, default: float) -> NormBound:
        """Return a `NormBound` (rows, units) of the magnitudes of x and of the bounds on their
        errors for each unit. x holds phi' or e phi''. If x is None, all magnitudes are `default`
        and all errors 0, in the shape of `like`.
        """
        if x is None:
            return NormBound(np.full_like(like, default), np.zeros_like(like))
        return NormBound(np.abs(x.x), x.dx.E)

    def multiply_by_weights(self, x: NormBound, l: int, each: Floats | None = None) -> NormBound:
        """Return bounds on the product of a vector and W of layer l, or the transpose of W, from
        bounds x on the vector. `each` (units,) holds the norms of the rows or columns of W of
        single units. They replace ``||W||`` if the vector is 0 except at one unit.
        """
        W, W_abs = (self.R.W[l].norm, self.abs_norms[l]) if each is None else (each, each)
        products = W_abs * (x.size + x.error)
        self.peak = np.maximum(self.peak, products)
        rounding = self.gammas[l] * products
        new = NormBound(
            W * x.new.size + SMALLEST_SUBNORMAL, W * x.new.error + rounding + SMALLEST_SUBNORMAL
        )
        return NormBound(
            W * x.size + SMALLEST_SUBNORMAL, W * x.error + rounding + SMALLEST_SUBNORMAL, new
        )

    def add_roundings(self, x: NormBound, u: float) -> NormBound:
        """Return the bounds x enlarged by a total relative rounding error of u."""
        most = x.size + x.error
        self.peak = np.maximum(self.peak, most)
        new = None if x.new is None else NormBound(x.new.size, x.new.error + u * most)
        return NormBound(x.size, x.error + u * most, new)

    def multiply_by_slope(self, x: NormBound, p: NormBound) -> NormBound:
        """Return bounds on the product of a vector and phi', from bounds x on the vector and bounds
        p on phi'. The rounding of the product is included.
        """
        fresh = x.new.error * p.size + (x.size + x.error) * p.error + SMALLEST_SUBNORMAL
        found = x.multiply(p)._replace(new=NormBound(x.new.size * p.size, fresh))
        return self.add_roundings(found, self.r.u)

    def forward_impulse_bounds(
        self, s: State, sizes: dict[str, list[NormBound]], l: int
    ) -> list[NormBound]:
        """Return a list, by part, of bounds on the effect of a unit step in each bias of layer l.
        The parts are the weights of all layers, then the biases. `sizes` comes from `row_norms`.
        """
        R = self.R
        last = self.L - 1
        like = np.zeros(s.d[l].x.shape)
        self.peak = like + 1.0
        z = NormBound.from_new_quantity(
            like + 1.0, like + self.gammas[l]
        )  # rz for a unit step in the bias
        rz: list[NormBound | None] = [None] * self.L
        ra: list[NormBound | None] = [None] * self.L  # ra at the input of each layer
        chain = ErrorChain(s.kappa, NormBound.__mul__)
        for m in range(l, last):
            rz[m] = z
            below = ra[m]
            a = self.multiply_by_slope(
                z, self.unit_bounds(s.phi[m].p, like, 1.0) if m == l else sizes["p"][m]
            )
            if R.skips[m] and below is not None:
                a = self.add_roundings(a + below, self.r.u)
            ra[m + 1] = a = chain.cap_error(m + 1, a)
            z = self.multiply_by_weights(a, m + 1, R.W[m + 1].cols if m == l else None)
        return self.run_backward(
            s, sizes, self.bound_rdelta(s, z), None, last, rz=rz, ra=ra, unit=l
        )

    def backward_impulse_bounds(
        self, s: State, sizes: dict[str, list[NormBound]], l: int
    ) -> list[NormBound]:
        """Return a list, by part, of bounds on the effect of a unit step in re at each input of
        layer l. The parts are the weights of all layers, then the biases. `sizes` comes from
        `row_norms`.
        """
        like = np.zeros(s.a[l].x.shape)
        self.peak = like + 1.0
        e = NormBound.from_new_quantity(like + 1.0, like + self.gammas[l])
        rd = self.add_roundings(e.multiply(self.unit_bounds(s.phi[l - 1].p, like, 1.0)), self.r.u)
        nothing: list[NormBound | None] = [None] * self.L
        return self.run_backward(s, sizes, rd, e, l - 1, rz=nothing, ra=nothing, unit=l - 1)

    def loss_curvature_norms(self, s: State) -> tuple[Floats, Floats]:
        """Return the pair (B, C) of `LossDerivatives.rdelta_norm_factors` or, for the Fisher, of
        `LossDerivatives.fisher_rdelta_norm_factors`.
        """
        return (
            s.loss.fisher_rdelta_norm_factors()
            if self.kind == "fisher"
            else s.loss.rdelta_norm_factors()
        )

    def bound_rdelta(self, s: State, z: NormBound) -> NormBound:
        """Return bounds on rdelta of the last layer from bounds z on rz of the last layer."""
        along = self.r.N * (row_norms(np.abs(s.d[-1].x)) + s.d[-1].dx.nu) * (self.kind == "fisher")
        self.peak = np.maximum(self.peak, (4 + along) * (z.size + z.error))
        return z.multiply(NormBound(*self.loss_curvature_norms(s)))

    def run_backward(
        self,
        s: State,
        sizes: dict[str, list[NormBound]],
        rd: NormBound,
        re: NormBound | None,
        top: int,
        *,
        rz: list[NormBound | None],
        ra: list[NormBound | None],
        unit: int = -1,
        terms: int = 2,
    ) -> list[NormBound]:
        """Run the R-backward pass from bounds rd on rdelta of layer `top`. Return a list, by part,
        of bounds: the weights of all layers, then the biases.

        `re` bounds re of layer `top` if the pass starts at an impulse there; it is None if the pass
        starts at the loss. The lists rz and ra hold the bounds of the R-forward pass by layer, with
        None where the quantity is 0. `unit` is the layer whose units received the impulse of the
        R-forward pass. `terms` is the number of matrix products in a sum over rows.
        """
        R = self.R
        r = self.r
        weights = r.gamma(r.n_weight_roundings(terms))
        biases = r.gamma(r.n_bias_roundings())
        parts = [NormBound(np.zeros_like(rd.size), np.zeros_like(rd.size))] * (2 * self.L)
        chain = ErrorChain(s.kappa, NormBound.__mul__)
        rd = NormBound.from_new_quantity(rd.size, rd.error)
        for m in range(top, -1, -1):
            parts[m] = self.add_roundings(rd.multiply(sizes["a"][m]), weights)
            below = ra[m]
            if self.full and below is not None:
                parts[m] = parts[m] + self.add_roundings(below.multiply(sizes["d"][m]), weights)
            parts[self.L + m] = self.add_roundings(NormBound(rd.size, rd.error), biases)
            if m == 0:
                break
            # If the pass starts at an impulse, rdelta of the top layer is nonzero for one unit
            # only, so norms of single rows of W suffice.
            single = re is not None and m == top
            lower = self.multiply_by_weights(rd, m, R.W[m].rows if single else None)
            if R.skips[m] and re is not None:
                lower = self.add_roundings(lower + re, r.u)
            re = chain.cap_error(m, lower)
            rd = self.multiply_by_slope(re, sizes["p"][m - 1])
            moved = rz[m - 1]
            if self.full and moved is not None:
                bend = sizes["q"][m - 1]
                if m - 1 == unit:
                    bend = self.unit_bounds(s.eq[m - 1], moved.size, 0.0)
                more = moved.multiply(bend)
                rd = self.add_roundings(rd + NormBound.from_new_quantity(*more[:2]), 2 * r.u)
        return parts


def column_error_bounds(R: ErrorPass, kind: str = "hessian") -> Floats:
    """Return bounds (n,) on ``||computed(A e_j) - A e_j||`` for every unit vector e_j. These are
    the errors of the columns of a curvature matrix A that is computed by products.

    A bound is infinite if an overflow cannot be excluded. The bounds hold for any order of the
    products. Cost: that of a few gradients in NumPy; with batch normalisation, the time of
    `ErrorPass.product` for each of the n unit vectors.

    Parameters
    ----------
    R : ErrorPass
        The error pass at theta, with the layout of the operator.
    kind : {"hessian", "ggn", "fisher"}
        The curvature matrix A.
    """
    check_choice(kind, CURVATURE_KINDS, "kind")
    if is_batch_normalised(R.ob.model):
        return np.array([R.product_error_bound(e, kind) for e in np.eye(len(R.theta))])
    r = R.arithmetic
    bounds_of_blocks = []
    with np.errstate(all="ignore"):
        accumulator = ColumnErrorAccumulator(R, kind)
        for off, off_b in zip(accumulator.off, accumulator.off_b):
            bounds_of_blocks.append(np.hypot.reduce(off, axis=0).ravel())
            if R.ob.model.bias:
                bounds_of_blocks.append(np.hypot.reduce(off_b, axis=0))
        l2 = l2_diagonal(R.ob) if kind != "fisher" else 0.0
        bounds = R.slack_factor * (
            np.concatenate(bounds_of_blocks)
            + r.gamma(r.n_weight_roundings(2) + 3) * l2
            + r.tiny / r.u
        )
    finite = (
        np.isfinite(bounds)
        & (l2 < r.max)
        & (not R.arithmetic.overflow)
        & (not flushes_subnormals())
    )
    return np.where(finite, bounds, np.inf)


# --------------------------------------------------------------------------------------------------
# Bounds on the errors of the rows of the Jacobian of the network outputs.


def jacobian_row_error_bounds(R: ErrorPass) -> Floats:
    """Return bounds ``(N d_out,)`` on the norms of the errors of the rows of the Jacobian J. Each
    row is computed as a product ``J' u``, with u the unit vector of one output of one sample.

    Such a product is a backward pass of one row from ``delta = e_j``. All other rows hold zeros,
    which add no rounding errors. A bound is infinite if an overflow cannot be excluded.

    Parameters
    ----------
    R : ErrorPass
        The error pass at theta, for a model without batch normalisation.
    """
    d_out = R.ob.model.sizes[-1]
    row_bounds = []
    with np.errstate(all="ignore"):
        accumulator = ColumnErrorAccumulator(R, "jacobian", gather=False)
        for s in R.iter_states():
            sizes = accumulator.row_norms(s)
            one = accumulator.peak = np.ones((len(s.a[0].x), 1))
            nothing: list[NormBound | None] = [None] * accumulator.L
            d = NormBound(one, 0 * one)
            parts = accumulator.run_backward(
                s, sizes, d, None, accumulator.L - 1, rz=nothing, ra=nothing, terms=1
            )
            lost = sum(accumulator.underflow_bounds(s, sizes, forward=False))
            size = np.hypot.reduce([lost + SMALLEST_SUBNORMAL, *(part.error for part in parts)])
            size = np.where(accumulator.peak < R.arithmetic.max, size, np.inf)
            row_bounds.append(np.repeat(size[:, 0], d_out))
        bounds = R.slack_factor * np.concatenate(row_bounds) + R.arithmetic.tiny / R.arithmetic.u
    return np.where(
        np.isfinite(bounds) & (not R.arithmetic.overflow) & (not flushes_subnormals()),
        bounds,
        np.inf,
    )
