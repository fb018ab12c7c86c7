"""Bounds on the rounding errors of gradients and curvature products of a network. They come from
the passes at the head of ``fastcurv/_engine/passes.pyx`` with a bound on the error of every number,
for a chunk of rows at a time. The forward and backward passes at theta are in `State`, and the
R-passes for a vector in `ErrorPass`.

Every computed quantity is accompanied by a bound on its error, in the order of the passes: z, a,
phi', phi'' forward, delta and e phi'' backward; then for a vector v, rz and ra forward, rdelta
backward; then the sums over rows.

Model [1]_. One operation: ``fl(x op y) = (x op y)(1 + t) + h``, ``|t| <= u``, ``|h| <= eta`` (the
smallest subnormal number, in products only). A sum of products whose numbers pass through at most D
roundings each, in any order and with or without fused multiply-adds, has an error of at most
``gamma(D) |x|'|y| + D eta``, ``gamma(D) = D u / (1 - D u)``. `RoundingModel` gives D for the
kernels: slices of at most 256 (float32) or 128 numbers, slices, panels, groups and chunks of rows.

Local errors, with the operands' own errors d: for ``z = a W' + b``

    |local| <= gamma ((|a| + |da|) |W|' + |b|)               entry by entry, one more matrix product

and in the same way for ``rz = ra W' + a V' + vb``, ``e = delta W``, ``re = rdelta W + delta V``;
for elementwise steps u times the terms. D eta is added wherever two factors are not 0
(`enclose_linear_map`, `Enclosure`), however small the product is. Where a factor is 0, the product
is exactly 0, so units that are off stay off, and no kink is reported where z is exactly 0.

Propagated errors. An error x (a row) is bounded in two ways at once, and after each step the
smaller bound is taken:

    |(x W')_j| <= min( (|x| |W|')_j, ||x|| ||w_j|| )                  entry by entry (`Errors.E`)
    ||x W'||   <= ||W||_2 ||x||                                                by rows (`Errors.nu`)

The first bound does not depend on how units are scaled. The second avoids the factor by which the
first grows with every layer, ``|| |W| ||_2 / ||W||_2`` or about ``sqrt(width)``.
The error of ``a = phi(z)`` is at most ``|phi'| |dz| + S2 |dz|^2 / 2``, where S2 is the largest
phi'' between z - dz and z + dz, so the second order is bounded and not left out; where that
interval contains a kink, the jump of phi' is added. The errors of phi' and phi'' have similar
bounds. A product x * y of two inexact matrices has an error of at most ``|dx| (|y| + |dy|) + |x|
|dy|``.

Sums over rows, ``dW = delta' a`` and ``rdW = rdelta' a + delta' ra``. The bound of each term x'y is
the smaller of

    || gamma |x|'|y| + |dx|'|y| + |x|'|dy| ||_F     entry by entry, one Frobenius norm for the layer
    sum over rows n of  gamma ||x_n|| ||y_n|| + ||dx_n|| ||y_n|| + ||x_n|| ||dy_n||

Layers are independent parts of the vector, so their bounds are added as squares.

The passes here run in float64. The rounding errors of the bounds themselves, and those of the
passes if the engine also computes in float64, change the bound by a relative ``O(L 64 u)``, which
`ErrorPass.slack_factor` covers. No product of magnitudes is rounded down where it underflows
(`multiply_rounded_up`, `matmul_rounded_up`, `row_norms`). The bound is infinite if a number of the
engine or of these passes may overflow, and also if the environment flushes subnormal numbers to 0
(`flushes_subnormals`), because eta then does not bound the underflow of a step.

Measured errors. For a float32 engine the float64 passes also give the result itself, with an error
bound of the same kind but u = 2^-53. The distance of the engine's result from this result, plus the
bound, then bounds the error of the engine's result, hundreds to millions of times more sharply than
any a priori bound. `Objective.rounding_bound` and `Curvature.rounding_bound` return such bounds;
`gradient_bound` and `product_bound` return a priori bounds on the error of any result.

References
----------
.. [1] N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM, 2002, ch. 2 and
       3 (eqs. 2.4, 2.8, 3.5, 3.13).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from ..common.caches import cache_last_result
from ..common.checks import check_choice, check_theta, check_vector
from ..common.linalg import UNIT_ROUNDOFF
from ..common.protocols import Floats
from ..common.runtime import raise_if_out_of_time
from ..network.objective import Objective
from ..network.plans import plan_layout
from ..structure.given import EPS, LossFunction
from ..structure.parameters import (
    batch_norm_params,
    divisor_of,
    has_skip_connection,
    is_batch_normalised,
    l2_diagonal,
    layers_of,
    replace_zero_weight_rows,
)
from ..structure.tables import loss_spec, one_hot, sigmoid_derivative
from .arithmetic import (
    MAX_ELEMENTARY_ERROR_ULPS,
    SMALLEST_SUBNORMAL,
    UNDERFLOW_FACTOR,
    ActivationDerivatives,
    BatchNormalisation,
    Enclosure,
    Errors,
    RightOperand,
    RoundingModel,
    RowSums,
    enclose_linear_map,
    exact_enclosure,
    flushes_subnormals,
    multiply_rounded_up,
    norm,
    row_norms,
)

# --------------------------------------------------------------------------------------------------
# The state at theta with bounds on its errors: forward and backward pass.


class State:
    """The state at theta for a slice of the rows, with bounds on errors. Each attribute is a list
    by layer: the input `a`, the pre-activations `z`, the activation `phi`, delta `d`, e phi'' `eq`
    (None where phi'' is 0), and the normalisation `norm` (None for layers without batch
    normalisation).
    """

    loss: LossDerivatives

    def __init__(self, R: ErrorPass, rows: slice) -> None:
        self.rows = rows
        self.W = R.W
        self.skips = R.skips
        self.a = [exact_enclosure(R.X[rows], R.arithmetic)]
        self.z: list[Enclosure] = []
        self.phi: list[ActivationDerivatives] = []
        self.norm: list[BatchNormalisation | None] = []
        self.d: list[Any] = [None] * len(R.W)  # of Enclosure, once `backward` has run
        self.eq: list[Enclosure | None] = [None] * len(R.W)
        self.forward(R)  # R is not stored, because R holds its states
        self.backward()

    def forward(self, R: ErrorPass) -> None:
        """Run the forward pass of the `ErrorPass` R: ``z = a W' + b [, normalised]``, ``a = phi(z)
        [+ the layer's input]``.
        """
        for l, (W, b) in enumerate(zip(R.W, R.b)):
            z = enclose_linear_map(self.a[l], W, b)
            normed = BatchNormalisation(z, *R.norms[l]) if R.norms[l] else None
            self.norm.append(normed)
            self.z.append(z if normed is None else normed.u)
            if l == len(R.W) - 1:
                break
            self.phi.append(ActivationDerivatives(R.names[l], self.z[l], R.skips[l]))
            self.a.append(self.phi[l].a + self.a[l] if R.skips[l] else self.phi[l].a)
        self.loss = LossDerivatives(R.ob, R.y, self.rows, z)

    def backward(self) -> None:
        """Store ``delta = e * phi' [through the normalisation]`` in `d` and ``e * phi''`` in `eq`,
        with ``e = delta W [+ e]`` of the layer above, from the top layer down.
        """
        e = None
        self.d[-1] = self.loss.d
        for l in range(len(self.W) - 1, 0, -1):
            d, e = self.backpropagate_layer(l, self.d[l], e)
            self.eq[l - 1] = self.phi[l - 1].scaled_second_derivative(e, d)
            normed = self.norm[l - 1]
            self.d[l - 1] = d if normed is None else normed.backward(d)

    def backpropagate_layer(
        self, l: int, d: Enclosure, e: Enclosure | None
    ) -> tuple[Enclosure, Enclosure]:
        """Return the pair (e phi', e) of the layer below l. d is delta of layer l, or another
        vector that is propagated backward, and the argument e is that of layer l, or None at the
        top.
        """
        below = enclose_linear_map(d, self.W[l].T)
        e = below if e is None or not self.skips[l] else below + e
        return e * self.phi[l - 1].p, e


# --------------------------------------------------------------------------------------------------
# Errors of the loss rows: delta = dL/dz, and rdelta = (d2L/dz2) rz.


class LossDerivatives:
    """The derivative ``delta = dL/dz`` of the loss with respect to the outputs, `d`, and the
    quantities from which ``rdelta = (d2L/dz2) rz`` is computed, with bounds on their errors.

    Parameters
    ----------
    ob : Objective
    y : ndarray
        Targets of all rows, as `replace_zero_weight_rows` returns them.
    rows : slice
        The rows of X to which z belongs.
    z : Enclosure
        Outputs (rows, d_out).
    """

    d: Enclosure
    # Second derivatives of the loss: an `Enclosure` if it is a sum over outputs, otherwise arrays
    # (rows, 1) or, for coupled outputs, (rows, d, d) with errors `dh`.
    h: Any
    dh: Floats
    p: Floats
    near: NDArray[np.bool_]
    tie: NDArray[np.bool_]
    top: NDArray[np.bool_]
    off: np.ndarray
    dp: np.ndarray
    bend: Floats
    bounds: tuple[LossFunction, Floats, Floats]  # loss, outputs and targets of a user-defined loss

    def __init__(
        self, ob: Objective | SimpleNamespace, y: Floats, rows: slice, z: Enclosure
    ) -> None:
        self.row = loss_spec(ob.loss)
        self.r = z.r
        y = y[rows]
        weight = ob.sample_weight
        y = y if y.dtype.kind == "i" else np.array(y, dtype=float)
        f = np.ones((len(z.x), 1)) if weight is None else weight[rows].astype(float)[:, None]
        moves = f != 0
        self.f = np.maximum(np.abs(f) / divisor_of(ob), SMALLEST_SUBNORMAL * moves)
        with np.errstate(divide="ignore"):
            self.uf = np.where(moves, 3 * z.r.u + z.r.eta / self.f, 0.0)
        of = {
            "identity": self._squared_error_terms,
            "sigmoid": self._binary_cross_entropy_terms,
            "softmax": self._cross_entropy_terms,
        }
        of["given"] = self._user_loss_terms
        d, dd, self.h = of[self.row.link](z.x, z.dx, y, np.sign(f))
        self.d = Enclosure(np.sign(f) * d, dd, z.r)
        self.d_z = z.dx
        z.r.record_overflow(self.d.magnitude)

    def _squared_error_terms(
        self, z: Floats, dz: Errors, y: Floats, sign: Floats
    ) -> tuple[Floats, Errors, Enclosure | Floats]:
        """Return the triple (delta, its `Errors`, h) for squared errors: ``delta = 2 f (z - y)``
        and ``h = 2 f``. dz bounds the errors of the outputs z, and f is ``self.f``, the magnitude
        of weight / divisor. `sign` (rows, 1) is the sign of the weight; h includes this sign, and
        the caller multiplies delta by it.
        """
        r = self.r
        gap = z - y
        h = np.broadcast_to(2 * self.f, z.shape)
        size = np.abs(gap) + dz.E
        rounding = multiply_rounded_up(2 * self.f * (self.uf + 3 * r.u), size)
        rounding = Errors(rounding + r.eta * (size > 0) * (self.f > 0))
        dh = Errors(h * (self.uf + r.u))
        return 2 * self.f * gap, dz.multiply(2 * self.f) + rounding, Enclosure(sign * h, dh, r)

    def _binary_cross_entropy_terms(
        self, z: Floats, dz: Errors, y: Floats, sign: Floats
    ) -> tuple[Floats, Errors, Enclosure | Floats]:
        """Return the triple (delta, its `Errors`, h) for binary cross entropy:
        ``delta = f (s - y)`` and ``h = f s (1 - s)``, with ``s = sigmoid(z)`` and ``|dh/dz| <= h``.
        f and `sign` are those of `_squared_error_terms`. For z > 0, delta is evaluated as
        ``f ((1 - y) - sigmoid(-z))``.
        """
        r = self.r
        t = np.abs(z)
        small = expit(-t)
        bent = sigmoid_derivative(t)
        rest = np.where(z > 0, 1 - y, -y)
        size = small + np.where(t <= dz.E, np.abs(y) + np.abs(1 - y), np.abs(rest))
        curve = dz.multiply(
            multiply_rounded_up(self.f, sigmoid_derivative(np.maximum(t - dz.E, 0)))
        )
        local = r.elementary + self.uf
        floor = np.where(t > 1, UNDERFLOW_FACTOR * r.tiny, r.eta) * self.f + r.eta
        dh = curve + Errors(self.f * local * bent + floor)
        d = self.f * (rest - np.where(z > 0, small, -small))
        curvature = Enclosure(sign * self.f * bent, dh, r)
        return d, curve + Errors(self.f * local * size + floor), curvature

    def _cross_entropy_terms(
        self, z: Floats, dz: Errors, y: Floats, sign: Floats
    ) -> tuple[Floats, Errors, Enclosure | Floats]:
        """Return the triple (delta, its `Errors`, h) for cross entropy:
        ``delta_j = f (T p_j - y_j)`` and ``h = f T``, with T the sum of the row's targets. f and
        `sign` are those of `_squared_error_terms`. The softmax probabilities are stored as `p`, and
        bounds on their errors as `dp`. At the largest logit, delta is evaluated as minus the sum of
        the other entries.

        For other logits ``|dp_j| <= g p_j (E_j + sum of p_k E_k)``, and at the largest ``g p sum of
        p_k E_k``. The sums omit the largest logit, E is the error of ``z_j - z_top``, and ``g =
        exp(4 max dz)`` is the factor by which p p' can grow over z +- dz. If rounding may change
        which logit of a row is largest, all its logits are treated as others.
        """
        r = self.r
        m = z.shape[1]
        y = one_hot(y, m)
        high = z.max(axis=1, keepdims=True)
        widest = dz.E.max(axis=1, keepdims=True)
        self.near = z >= high - 2 * widest
        first = np.arange(m) == z.argmax(axis=1)[:, None]
        self.tie = self.near.sum(axis=1, keepdims=True) > 1
        self.top = first & ~self.tie
        e = np.exp(z - high)
        S = np.where(first, 0, e).sum(axis=1, keepdims=True)
        share = 1 / (1 + S)
        T = y.sum(axis=1, keepdims=True)
        size = np.abs(y).sum(axis=1, keepdims=True)
        self.p = e * share
        self.off = np.where(self.top, 0, self.p)
        E = self._center_logit_errors(dz.E)
        # The second summand bounds the rounding of exp. It is larger for NumPy, where z - top is
        # rounded first.
        local = r.gamma(m + 1000 if r.own else m + 2 * MAX_ELEMENTARY_ERROR_ULPS)
        moved = (
            np.exp(np.minimum(4 * widest, 700.0))
            * self.p
            * (E + (self.off * E).sum(axis=1, keepdims=True))
        )
        moved = np.where(widest < 20, np.minimum(moved, 1.0), 1.0)
        self.dp = np.minimum(moved + local * self.p, 1.0) + r.tiny
        rest = np.where(first, 0, y).sum(axis=1, keepdims=True)
        others = np.where(self.top, 0, np.abs(y)).sum(axis=1, keepdims=True)
        size_d = np.where(self.tie & self.near, 2 * size, size * self.p + np.abs(y))
        size_d = np.where(self.top, others + size * S * share, size_d)
        self.dh = self.f * size * (local + self.uf)  # shape (rows, 1)
        p_top = np.where(first, S * share, 1 - self.p)
        # By Gershgorin's theorem `bend` is a bound on ||diag p - p p'||.
        self.bend = np.minimum((2 * self.p * p_top).max(axis=1, keepdims=True), 0.5)
        grown = np.where(widest < 20, np.exp(np.minimum(4 * widest, 80)) * self.bend, 0.5)
        mass = multiply_rounded_up(self.f, np.abs(T))
        rounded = Errors(
            self.f * ((local + self.uf) * size_d + m * r.tiny * np.maximum(size, 1)) + 4 * r.eta
        )
        carried = multiply_rounded_up(mass * np.minimum(grown, 0.5), dz.nu)
        d = self.f * np.where(first, rest - T * S * share, T * self.p - y)
        return d, Errors(multiply_rounded_up(mass, moved), carried) + rounded, sign * (self.f * T)

    def _user_loss_terms(
        self, z: Floats, dz: Errors, y: Floats, sign: Floats
    ) -> tuple[Floats, Errors, Enclosure | Floats]:
        """Return the triple (delta, its `Errors`, h) for a user-defined loss that is evaluated in
        float64 and rounded once. The error is that of the function itself plus the effect of dz,
        which the next derivative, bounded over z +- dz, determines. For coupled outputs h (rows, d,
        d) holds a matrix for each row, and `dh` bounds the norm of its error.
        """
        r = self.r
        loss_function = self.row.given
        assert loss_function is not None
        terms = loss_function(z, y)
        _, first, second = terms
        errors_of_terms = loss_function.error_bounds(z, y, terms, EPS)
        third = loss_function.third_derivative_bounds(z, y, dz.E)
        local = self.uf + 4 * r.u
        self.bounds = loss_function, z, y
        if not loss_function.coupled:
            h = self.f * np.abs(second)
            off = self.f * (errors_of_terms + multiply_rounded_up(third, dz.E))
            dd = dz.multiply(h + off) + Errors(
                self.f * errors_of_terms + local * self.f * np.abs(first) + 4 * r.eta
            )
            dh = Errors(off + local * h + 4 * r.eta)
            return self.f * first, dd, Enclosure(sign * self.f * second, dh, r)
        m = z.shape[1]
        self.bend = self.f * np.sqrt((second**2).sum(axis=(1, 2)))[:, None]
        off = m * errors_of_terms.max(axis=1, keepdims=True)
        self.dh = self.f * (off + multiply_rounded_up(third.max(axis=1, keepdims=True), dz.nu))
        self.dh = self.dh + local * self.bend + 4 * m * r.eta
        moved = multiply_rounded_up(self.bend + self.dh, dz.nu) + row_norms(
            self.f * errors_of_terms + local * (self.f * np.abs(first))
        )
        moved = moved + 4 * m * r.eta
        dd = Errors(np.broadcast_to(moved, z.shape), moved)
        return self.f * first, dd, (sign * self.f)[:, :, None] * second

    def derivative_bounds(self, move: Floats) -> tuple[Floats, Floats]:
        """Return two bounds (rows, 1), on the second and on the third derivative of a user-defined
        loss. They hold for outputs at a distance of at most `move` (rows, 1) from the exact outputs
        at theta, and include weights and divisor.
        """
        loss_function, z, y = self.bounds
        third = loss_function.third_derivative_bounds(z, y, self.d_z.E + move).max(
            axis=1, keepdims=True
        )
        plain = not loss_function.coupled
        bend = self.h.magnitude.max(axis=1, keepdims=True) if plain else self.bend + self.dh
        return bend + multiply_rounded_up(self.f * third, self.d_z.nu + move), self.f * third

    def _center_logit_errors(self, E: Floats) -> Floats:
        """Return bounds (rows, d_out) on the errors of the differences between the logits and the
        largest logit, from bounds E on the errors of the logits. At the largest logit the bound is
        0. If rounding may change which logit of a row is largest, the largest error of the
        candidates is used for that of the largest logit.
        """
        centre = np.where(np.where(self.tie, self.near, self.top), E, 0).max(axis=1, keepdims=True)
        return np.where(self.top, 0, E + centre)

    def rdelta(self, rz: Enclosure) -> Enclosure:
        """Return ``rdelta = (d2L/dz2) rz`` as an `Enclosure` (rows, d_out)."""
        if self.row.per_entry:
            product: Enclosure = rz * self.h
            return product
        if self.row.given:
            x = np.einsum("ijk,ik->ij", self.h, rz.x)
            size = row_norms(np.abs(rz.x)) + rz.dx.nu
            off = (
                multiply_rounded_up(self.bend, rz.dx.nu)
                + multiply_rounded_up(self._coupled_curvature_errors(), size)
                + self.r.eta
            )
            dx = Errors(np.broadcast_to(off, x.shape), off)
            self.r.record_overflow(np.abs(x) + off)
            return Enclosure(x, dx, self.r)
        at = np.take_along_axis(rz.x, self.p.argmax(axis=1)[:, None], axis=1)
        U = rz.x - at
        m = rz.x.shape[1]
        w = U - (self.p * U).sum(axis=1, keepdims=True)
        size = np.abs(U) + np.where(
            self.tie, np.where(self.near, np.abs(U), 0).max(axis=1, keepdims=True), 0.0
        )
        E = self._cross_entropy_rdelta_errors(size, w, self._center_logit_errors(rz.dx.E))
        softmax_errors = self._cross_entropy_rdelta_errors(size, w, 0.0)
        carried = multiply_rounded_up(self._bound_loss_curvature(), rz.dx.nu)
        dx = Errors(E, row_norms(softmax_errors) + carried + self.r.gamma(m + 8) * row_norms(E))
        return Enclosure(self.h * self.p * w, dx, self.r)

    def _coupled_curvature_errors(self) -> Floats:
        """Return bounds (rows, 1) on the error of the computed product of h and a vector of length
        1, for a user-defined loss with coupled outputs.
        """
        return np.asarray(self.dh + self.r.gamma(2 * self.h.shape[1] + 4) * (self.bend + self.dh))

    def _bound_loss_curvature(self) -> Floats:
        """Return upper bounds (rows, 1) on ``||d2 loss / dz2||`` for each row, for cross entropy.
        The bounds include the rounding errors of the softmax probabilities `p`.
        """
        tiny = self.r.tiny
        m = self.p.shape[1]
        normal = self.p > 1024 * tiny
        spread = np.where(normal, self.dp / np.where(normal, self.p, 1), 0)
        spread = 1 + spread.max(axis=1, keepdims=True)
        return np.asarray((np.abs(self.h) + self.dh) * (self.bend * spread**2 + 4096 * m * tiny))

    def _cross_entropy_rdelta_errors(self, size: Floats, w: Floats, E: Floats | float) -> Floats:
        """Return bounds (rows, d_out) on the errors of ``s p (u - <p, u>)``, the rdelta of cross
        entropy, with ``s = h`` and ``u = rz - rz_top``. The entries of u have magnitudes of at most
        `size` and errors of at most E, besides the rounding of the subtraction. w holds ``u - <p,
        u>``.
        """
        r = self.r
        m = w.shape[1]
        s = np.abs(self.h) + self.dh
        P = self.p + self.dp
        E = np.where(self.top, 0, E + r.u * (size + E))
        sums = np.where(self.top, 0, P * E + self.dp * size + r.gamma(m + 1) * P * (size + E))
        sums = sums.sum(axis=1, keepdims=True) + m * r.eta
        magnitude = np.abs(w) + E + sums  # bounds the intermediate s p, which may underflow
        error = s * P * (E + sums + 4 * r.u * magnitude) + 4 * r.eta * (1 + magnitude)
        error += (s * self.dp + self.dh * self.p) * np.abs(w)
        return np.where(magnitude + size < r.max / 4, error, np.inf)

    def fisher_rdelta(self, rz: Enclosure) -> Enclosure:
        """Return ``rdelta = N <delta, rz> delta`` of the empirical Fisher, with shape (rows,
        d_out).
        """
        r = self.r
        d = self.d
        drz = rz.dx
        size = np.abs(rz.x)
        along = (d.x * rz.x).sum(axis=1, keepdims=True)
        m = d.x.shape[1]
        moved = (d.magnitude * drz.E + d.dx.E * size).sum(axis=1, keepdims=True)
        norms = row_norms(np.abs(d.x)) + d.dx.nu
        moved = np.minimum(
            moved,
            multiply_rounded_up(norms, drz.nu) + multiply_rounded_up(d.dx.nu, row_norms(size)),
        )
        moved += (
            r.gamma(m + 2) * (d.magnitude * rz.magnitude).sum(axis=1, keepdims=True) + 4 * m * r.eta
        )
        rd = r.N * along * d.x
        moved = r.N * moved
        along = r.N * np.abs(along)
        moved = np.where(moved + along < r.max, moved, np.inf)
        dx = Errors(moved * d.magnitude + along * d.dx.E, moved * norms + along * d.dx.nu)
        dx = dx + Errors(3 * r.u * (np.abs(rd) + moved * np.abs(d.x)) + 4 * r.eta)
        return Enclosure(rd, dx, r)


# V, vb, [vgamma, vbeta] of each layer; see `ErrorPass.split_direction`
Directions = list[tuple[RightOperand | None, Floats | None, list[Enclosure]]]
MaybeEnclosures = list[Enclosure | None]
Turned = tuple[Enclosure, Enclosure]  # the second result of `BatchNormalisation.r_forward`
CURVATURE_KINDS = ("hessian", "ggn", "fisher")
# size of the state of one chunk of rows, unless theta is so large that CHUNK_SIZE_IN_THETAS applies
MIN_CHUNK_BYTES = 1 << 25
# maximum size of the state of all rows that is kept for the next vector, unless theta is so large
# that KEPT_STATE_SIZE_IN_THETAS applies
MAX_KEPT_STATE_BYTES = 1 << 27
# The size of a chunk and the maximum size of the kept state are at least these multiples of the
# size of theta, because each chunk reads all weights.
CHUNK_SIZE_IN_THETAS = 4
KEPT_STATE_SIZE_IN_THETAS = 8
# maximum work of the sums over rows of one matrix for each hidden unit (`UnitBlockNorm`)
MAX_UNIT_BLOCK_FLOPS = 1 << 34


class ErrorPass:
    """Bounds on the rounding errors of gradients and curvature products A v at one theta.

    Quantities that do not depend on v are computed once. They are kept if their size is at most
    128 MiB or 8 times the size of theta, whichever is larger, and always with batch normalisation.

    Parameters
    ----------
    ob : Objective
    theta : array_like (n,)
    layout : dict, optional
        `Curvature.layout` of the operator whose errors are bounded. The default is the layout of
        the objective's own plans.
    measured : bool
        If True, bound the errors of these float64 passes instead of those of the engine's passes.
        Then `gradient_error_bound` and `product_error_bound` need the engine's result, and bound
        its error by comparison with the result of these passes.
    """

    def __init__(
        self,
        ob: Objective | SimpleNamespace,
        theta: ArrayLike,
        layout: Mapping[str, object] | None = None,
        measured: bool = False,
    ) -> None:
        model = ob.model
        N = ob.n_samples
        self.ob = ob
        self.measured = measured
        self.X, self.y = replace_zero_weight_rows(ob)
        self.theta = np.array(check_theta(ob, theta, dtype=model.dtype))
        self.row_bytes = 8 * 16 * sum(model.sizes)
        chunk = max(MIN_CHUNK_BYTES, CHUNK_SIZE_IN_THETAS * 8 * self.theta.size)
        self.kept_bytes = max(MAX_KEPT_STATE_BYTES, KEPT_STATE_SIZE_IN_THETAS * 8 * self.theta.size)
        self.step = N if is_batch_normalised(model) else max(1, chunk // self.row_bytes)
        if measured:
            layout = {"arch": "numpy", "chunk": self.step, "panel": 0, "groups": 0}
        elif layout is None:
            layout = plan_layout(ob)
        self.arithmetic = r = RoundingModel(np.dtype(float) if measured else ob.dtype, layout, N)
        self.names = model.activation
        layers = layers_of(model, self.theta)
        self.skips = tuple(has_skip_connection(model, l) for l in range(len(layers)))
        self.W = [RightOperand(W.astype(float)) for W, _ in layers]
        self.norms = [
            () if pair is None else tuple(exact_enclosure(x, r) for x in pair)
            for pair in batch_norm_params(model, self.theta)
        ]
        self.b = [
            np.zeros(len(W)) if b is None or norm else b.astype(float)
            for (W, b), norm in zip(layers, self.norms)
        ]
        rows = r.sums["block_rows"]
        chunks = -(-N // r.chunk)
        deep = N if measured else rows - (-N // rows)
        r.rows_gamma = (deep + 4 * chunks + 16) * UNIT_ROUNDOFF
        r.mean_gamma = (4 * chunks + 4) * UNIT_ROUNDOFF
        self.kept: list[State] | None = None

    # --- all rows
    # ----------------------------------------------------------------------------------------------

    def iter_states(self) -> Iterator[State]:
        """Yield a `State` for each chunk of rows."""
        if self.kept is not None:
            yield from self.kept
            return
        N = self.ob.n_samples
        all_fit = self.step >= N or N * self.row_bytes <= self.kept_bytes
        self.arithmetic.overflow |= flushes_subnormals()
        keep: list[State] | None = [] if all_fit else None
        for first in range(0, N, self.step):
            raise_if_out_of_time()
            state = State(self, slice(first, min(N, first + self.step)))
            if keep is not None:
                keep.append(state)
            yield state
        self.kept = keep

    def new_sums(self) -> list[RowSums]:
        """Return a list of `RowSums`, one for each layer."""
        sums = [RowSums(W.A.shape) for W in self.W]
        for part, pair in zip(sums, self.norms):
            part.scales = tuple(exact_enclosure(0.0 * x.x, x.r) for x in pair)
        return sums

    @property
    def slack_factor(self) -> float:
        """Factor by which bounds are enlarged to cover second-order terms and the rounding errors
        of the bounds.
        """
        return 1 + 1e-6 + 256 * len(self.W) * self.arithmetic.u

    def total_error_bound(
        self,
        sums: list[RowSums],
        terms: int,
        x: Floats,
        l2: float | Floats,
        computed: Floats | None,
    ) -> float:
        """Return a bound on the norm of the error of a gradient or product, or infinity if an
        overflow cannot be excluded. It combines the bounds of the layers and of the rounding error
        of adding ``l2 x``.

        `terms` is the number of matrix products in a sum over rows. If the attribute `measured` is
        True, the distance of `computed` (n,) from the result of these passes is added.
        """
        r = self.arithmetic
        eta = 2 * r.eta * (r.N + r.n_weight_roundings(terms))
        ends = r.gamma(r.n_partial_sums() + 2)
        sizes = [x.max(initial=0.0) for s in sums for x in (s.B, s.b)]
        if any(not x < r.gamma(1) * r.max for x in sizes) or r.overflow or flushes_subnormals():
            return np.inf
        gamma = r.gamma(max(r.n_weight_roundings(terms), r.n_bias_roundings()) + 3)
        bounds = [bound for s in sums for bound in s.error_bounds(eta, ends)]
        decay = norm(multiply_rounded_up(l2, np.abs(x)))
        bound = self.slack_factor * (norm(bounds) + gamma * decay + (decay > 0) * r.eta * len(x))
        if self.measured:
            ours = [part for s in sums for part in s.values_by_parameter(self.ob.model.bias)]
            bound += norm(np.asarray(computed, float) - (np.concatenate(ours) + l2 * x))
        return float(bound) if np.isfinite(bound) else np.inf

    def gradient_error_bound(self, computed: Floats | None = None) -> float:
        """Return a bound on ``||computed gradient - exact gradient||``. The argument `computed`,
        the gradient (n,), is used only if the attribute `measured` is True, and is then required.
        """
        with np.errstate(all="ignore"):
            sums = self.new_sums()
            for s in self.iter_states():
                for l, part in enumerate(sums):
                    self.add_products(s, l, s.d[l], None, part, 1)
                    if (normed := s.norm[l]) is not None:
                        part.scales = normed.gamma_beta_gradients()
            return self.total_error_bound(
                sums, 1, self.theta.astype(float), l2_diagonal(self.ob), computed
            )

    def add_products(
        self, s: State, l: int, d: Enclosure, ra: Enclosure | None, sums: RowSums, terms: int
    ) -> None:
        """Add the rows of a state to the `sums` of layer l: ``d' a + delta' ra``, a sum of `terms`
        matrix products, and the sum of the rows of d. If ra is None, the second product is left
        out.
        """
        r = self.arithmetic
        weights = r.gamma(r.n_weight_roundings(terms))
        sums.add_product(d, s.a[l], weights)
        # With batch normalisation, the sum for beta replaces the sum for the bias.
        if s.norm[l] is None:
            sums.add_bias_rows(d, r.gamma(r.n_bias_roundings()))
        if ra is not None:
            sums.add_product(s.d[l], ra, weights)

    def product_error_bound(
        self, v: ArrayLike, kind: str = "hessian", computed: Floats | None = None
    ) -> float:
        """Return a bound on ``||computed(A v) - A v||`` for v (n,), with A the curvature of the
        given kind. The argument `computed`, the product (n,), is used only if the attribute
        `measured` is True, and is then required. The bound is infinite if v is not finite or an
        overflow cannot be excluded.

        Raises
        ------
        ValueError
            If v does not have the shape of theta, or `kind` is not one of `CURVATURE_KINDS`.
        """
        check_choice(kind, CURVATURE_KINDS, "kind")
        v_cast: Floats = np.asarray(v, self.ob.dtype)
        if v_cast.shape != self.theta.shape:
            raise ValueError(f"v must have shape {self.theta.shape}, got {v_cast.shape}.")
        if not np.isfinite(v_cast).all():
            return np.inf
        with np.errstate(all="ignore"):
            sums = self.new_sums()
            direction = self.split_direction(v_cast)
            at_theta = self.arithmetic.overflow
            for state in self.iter_states():
                self.add_rpass_bounds(state, direction, kind, sums)
            l2 = l2_diagonal(self.ob) if kind != "fisher" else 0.0
            bound = self.total_error_bound(sums, 2, v_cast.astype(float), l2, computed)
            self.arithmetic.overflow = at_theta
            return bound

    def split_direction(self, v: Floats) -> Directions:
        """Return the parts of v (n,) as a list of triples (V, vb, [vgamma, vbeta]), one for each
        layer. V and vb are None if they are 0. Layers with batch normalisation have no vb, and for
        all other layers the list of vgamma and vbeta is empty.
        """
        layers = []
        for (V, vb), pair in zip(layers_of(self.ob.model, v), batch_norm_params(self.ob.model, v)):
            W = RightOperand(V.astype(float)) if V.any() else None
            b = vb.astype(float) if vb is not None and pair is None and vb.any() else None
            layers.append((W, b, [exact_enclosure(x, self.arithmetic) for x in pair or ()]))
        return layers

    # --- R-forward, loss, R-backward
    # ----------------------------------------------------------------------------------------------

    def forward_along(
        self, s: State, layers: Directions
    ) -> tuple[MaybeEnclosures, MaybeEnclosures, list[Turned | None]]:
        """Run the R-forward pass: ``rz = ra W' + a V' + vb [, normalised]``, ``ra = phi' * rz [+
        the input's ra]``.

        Return three lists by layer: ra at the input, rz, and the pair for
        `BatchNormalisation.r_backward`. An entry is None if the quantity is 0 or, in the third
        list, if the layer has no batch normalisation.
        """
        ra: MaybeEnclosures = [None]
        rz: MaybeEnclosures = []
        turned: list[Turned | None] = []
        for l, (V, vb, scales) in enumerate(layers):
            below = ra[l]
            normed = s.norm[l]
            z = None
            turn = None
            if V is not None or vb is not None or below is not None:
                z = enclose_linear_map(below, self.W[l], 0.0 if vb is None else vb, s.a[l], V, 2)
            if normed is not None and (z is not None or any(part.x.any() for part in scales)):
                z, turn = normed.r_forward(z, *scales)
            rz.append(z)
            turned.append(turn)
            if l < len(self.W) - 1:
                a = None if z is None else z * s.phi[l].p
                if a is not None and below is not None and self.skips[l]:
                    a = a + below
                ra.append(a)
        return ra, rz, turned

    def add_rpass_bounds(
        self, s: State, layers: Directions, kind: str, sums: list[RowSums]
    ) -> None:
        """Run the R-passes of the rows of a state s along the direction `layers` (see
        `split_direction`), and add the results with their error bounds to `sums`.

        The passes are ``rdW = rdelta' a + delta' ra``, ``re_below = rdelta W + delta V [+ re]`` and
        ``rdelta = re * phi' + e * phi'' * rz [through the normalisation]``. Terms with V in the
        backward pass, ra and phi'' occur only if `kind` is "hessian".
        """
        full = kind == "hessian"
        ra, rz, turned = self.forward_along(s, layers)
        # For v = 0 the product is exactly 0.
        if rz[-1] is None:
            return
        rd = s.loss.fisher_rdelta(rz[-1]) if kind == "fisher" else s.loss.rdelta(rz[-1])
        re: Enclosure | None = None
        for l in range(len(self.W) - 1, -1, -1):
            self.add_products(s, l, rd, ra[l] if full else None, sums[l], 2)
            if l == 0:
                break
            V = layers[l][0] if full else None
            below = enclose_linear_map(rd, self.W[l].T, 0.0, s.d[l], None if V is None else V.T, 2)
            re = below if re is None or not self.skips[l] else below + re
            rd = re * s.phi[l - 1].p
            eq = s.eq[l - 1]
            normed = s.norm[l - 1]
            z = rz[l - 1]
            if full and eq is not None and z is not None:
                rd = rd + eq * z
            if normed is not None:
                rd, sums[l - 1].scales = normed.r_backward(rd, turned[l - 1] if full else None)


def product_bound(ob: Objective, theta: ArrayLike, v: ArrayLike, kind: str = "hessian") -> float:
    """Return a bound on ``||computed(A v) - A v||_2`` for the engine's products, with A the
    Hessian, the GGN or the empirical Fisher.

    Parameters
    ----------
    ob : Objective
    theta, v : array_like (n,)
    kind : {"hessian", "ggn", "fisher"}
        The curvature A.

    Returns
    -------
    float
        The bound, or infinity if an overflow cannot be excluded. Cost: the time of 50 to 300 of the
        engine's products, because the passes run in NumPy. For several vectors at one theta, an
        `ErrorPass` takes the time of 15 to 50 products for each vector.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> model = fc.MLP([4, 8, 3], dtype="float32")
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((50, 4)), rng.integers(3, size=50)
    >>> ob = fc.Objective(model, X, y)
    >>> theta, v = model.init(rng=0), rng.standard_normal(model.n_params).astype("float32")
    >>> error = np.linalg.norm(ob.hessian(theta) @ v - ob.astype("float64").hessian(theta) @ v)
    >>> bool(error < product_bound(ob, theta, v) < 1e4 * error)
    True
    """
    return ErrorPass(ob, theta).product_error_bound(v, kind)


def gradient_bound(ob: Objective, theta: ArrayLike) -> float:
    """Return a bound on ``||computed gradient - exact gradient||_2`` at theta (n,). Cost: the
    arithmetic of about 10 gradients, in NumPy.
    """
    return ErrorPass(ob, theta).gradient_error_bound()


# --------------------------------------------------------------------------------------------------
# The state at theta of any network objective, computed once by float64 passes with a bound on the
# error of every number, for all proofs at theta: lower bounds on the curvature, majorants, kinks,
# and units that are off.


def round_to_model_dtype(ob: Objective, theta: ArrayLike) -> Floats:
    """Return theta (n,) rounded to the model's dtype, as float64."""
    checked = check_vector(theta, ob.model.n_params, "theta", np.float64)
    return np.asarray(checked.astype(ob.model.dtype), dtype=float)


@cache_last_result
def passes_at(ob: Objective, theta: Floats) -> Passes:
    """Return the `Passes` of ob at theta (n,), a float64 array. The result for the last theta is
    cached.
    """
    with np.errstate(all="ignore"):
        return Passes(ob, theta)


class Passes(ErrorPass):
    """The state of a network objective at theta, from float64 passes with bounds on their errors.
    `iter_states()` yields the state in chunks of rows.
    """

    def __init__(self, ob: Objective, theta: Floats) -> None:
        model = ob.model
        N = len(ob.X)
        view = SimpleNamespace(
            model=model,
            X=ob.X,
            y=ob.y,
            loss=ob.loss,
            sample_weight=ob.sample_weight,
            n_samples=N,
            n_params=model.n_params,
            divisor=divisor_of(ob),
            l2=ob.l2,
            l2_biases=ob.l2_biases,
        )
        super().__init__(view, theta, measured=True)
        sizes = [j * k * m for j, k, m in zip(model.sizes, model.sizes[1:], model.sizes[2:])]
        self.by_units = (
            2 * N * sum(sizes) <= MAX_UNIT_BLOCK_FLOPS and max(sizes, default=0) <= 1 << 24
        )
