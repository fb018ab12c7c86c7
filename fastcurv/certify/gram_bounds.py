"""The Hessian restricted to a space that contains its range, as a small matrix with a proved bound
on its error.

The space is that of `fastcurv.network.sample_space`, used here for a proof instead of for fast
products. Let the orthonormal columns of Q1 (in, r) and U (out, s) span the rows of a and of delta,
and let Q2 complete Q1 to a basis. A layer's part of every product with the Hessian then lies in

    V = C1 Q1' + U C2 Q2' C1 (out, r), C2 (s, in - r); no C2 in the first layer

apart from l2. Here the ranks r and s are decided by singular values; the truncated part and all
rounding errors are included in the bound. Bases and rows are the floating-point numbers as stored,
and E (n, m) is the map that they define exactly. Let ``H = H0 + l2 D``, where D = I except for
biases that are exempt from l2.

*Is the map an isometry?* ``E'E = I + F``, with a bound ``f >= ||F||`` from the computed Gram
matrices of Q1, [Q1 Q2] and U and their rounding errors. With ``E = Qo C``, Qo orthonormal, ``||C -
I|| <= f``, so ``Qo'HQo`` and ``E'HE`` differ by ``(2 f + f^2) ||Qo'HQo||``.

*What is H outside the space?* For a vector v orthogonal to the space, V Q1 = 0 and U'V = 0, so ``a
V' = rho V'`` and ``delta V = sigma V``, where rho and sigma are the residuals of the rows after
projection onto the bases, including the errors of a and delta. These residuals are of the size of
rounding errors. The passes, row by row, with each step bounded in norm, give

    rz <= ||W|| ra + rho       ra <= max |phi'| rz [+ ra]       rdelta_L <= ||loss''|| rz
    re <= ||W|| rdelta + sigma [+ re]        rdelta <= max |phi'| re + max |e phi''| rz
    ||H0 v|| <= leak = root of the sum over layers of (sum over rows of
                       rdelta sqrt(a^2 + 1) + delta ra)^2

and H differs from ``Qo (Qo'HQo) Qo' + l2 (I - Qo Qo')`` by at most ``2 leak`` in norm.

*What is the error of the products?* The engine multiplies columns of E in parameter space. The
bounds of `certify.columns` on ``||computed(H e_j) - H e_j||`` are sums of magnitudes, so for any x
the bound is ``sum |x_j| bound_j``: the rounding errors of one pass are attributed to the e_j in
proportion to their contributions. Rounding errors of the products with ``Q1, Q2, U``, and of ``u
q'``, are added.

By Weyl's theorem, no eigenvalue has an error above the sum of all these bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..common.linalg import UNIT_ROUNDOFF, rounding_gamma, svd
from ..common.objectives import sample_weights
from ..common.protocols import EnclosedMatrix, Floats
from ..common.read_only import ReadOnlyMixin
from ..network.costs import n_layer_coordinates
from ..network.row_passes import LayerMap, LayerwiseCoordinatesMixin
from ..structure.parameters import layers_of, merge_equal_rows
from .arithmetic import SMALLEST_SUBNORMAL, norm, row_norms
from .columns import propagate_norm_bounds
from .passes import ErrorPass

# factor by which bounds are enlarged to cover the rounding errors of their own computation
BASIS_ROUND_UP_FACTOR = 1 + 1e-6
RANGE_BLOCK_COLUMNS = 64  # number of columns multiplied at a time
# Singular values of at most RANK_TOL_FACTOR max(shape) eps times the largest one are dropped.
RANK_TOL_FACTOR = 4.0
# maximum ratio of the estimated dimension to the limit `max_dim` up to which ranks are computed
MAX_ESTIMATED_DIM_RATIO = 2
MAX_BASES_BYTES = 1 << 28  # maximum size of the bases of one layer


def _row_space_basis(A: Floats, whole: bool) -> tuple[Floats, Floats]:
    """Return two matrices of orthonormal columns: a basis of the row space of A (N, k), up to
    rounding, and a basis of its complement. If `whole` is False, the second matrix may lack
    columns.
    """
    _, sizes, right = svd(A, whole)
    largest = sizes.max(initial=0.0)
    r = int((sizes > RANK_TOL_FACTOR * max(A.shape) * 2 * UNIT_ROUNDOFF * largest).sum())
    columns = np.ascontiguousarray(right.T)
    return np.ascontiguousarray(columns[:, :r]), np.ascontiguousarray(columns[:, r:])


def _orthogonality_defect(Q: Floats) -> float:
    """Return an upper bound on ``||Q'Q - I||_F``. It includes rounding errors."""
    if not Q.shape[1]:
        return 0.0
    G = Q.T @ Q
    sizes = np.sqrt(np.diagonal(G))
    G[np.diag_indices(len(G))] -= 1
    return (
        float(
            np.linalg.norm(G)
            + rounding_gamma(len(Q) + 2) * float(sizes @ sizes) * BASIS_ROUND_UP_FACTOR
        )
        * BASIS_ROUND_UP_FACTOR
    )


def _residual_row_norms(A: Floats, error: Floats, Q: Floats) -> Floats:
    """Return bounds (N,) on the norms of the rows of A (N, k) after projection onto the complement
    of the range of Q (k, r). Each row of A has an error of norm at most `error` (N, 1).
    """
    sizes = row_norms(np.abs(A))[:, 0] + error[:, 0]
    rest = row_norms(np.abs(A - (A @ Q) @ Q.T))[:, 0] if Q.shape[1] else row_norms(np.abs(A))[:, 0]
    rest = rest + 4 * A.size * SMALLEST_SUBNORMAL
    turned = rounding_gamma(len(Q) + Q.shape[1] + 4) * (1 + Q.shape[1]) * sizes
    return np.asarray((rest + turned + 2 * error[:, 0]) * BASIS_ROUND_UP_FACTOR)


class LayerRangeBasis(LayerMap):
    """The bases of one layer, its part of the map E, and bounds rho and sigma (N,) on the norms of
    the residuals of the rows of a and of delta after projection.

    `rows` is the tuple (a, da, delta, ddelta), where da and ddelta (N, 1) bound the norms of the
    errors of the rows. `pairs` is False for the first layer, which has no coordinates C2.
    """

    def __init__(self, shape: tuple[int, int], bias: bool, rows: Any, pairs: bool) -> None:
        a, da, d, dd = rows
        self.Q1, self.Q2 = _row_space_basis(a, pairs)
        self.U = _row_space_basis(d, False)[0] if pairs else np.zeros((shape[0], 0))
        self.r = self.Q1.shape[1]
        self.s = self.U.shape[1]
        self.first = shape[0] * self.r
        weights = self.first + self.s * (shape[1] - self.r) * pairs
        self.whole = weights >= shape[0] * shape[1]
        super().__init__(shape, min(weights, shape[0] * shape[1]), bias)
        self.rho = self.sigma = np.zeros(len(a))
        self.defect = self.turning = 0.0
        if not self.whole:
            self.rho = _residual_row_norms(a, da, self.Q1)
            self.sigma = _residual_row_norms(d, dd, self.U)
            inner = _orthogonality_defect(np.hstack([self.Q1, self.Q2]) if pairs else self.Q1)
            outer = _orthogonality_defect(self.U)
            self.defect = inner + outer + inner * outer
            k = float(self.width)
            s = float(self.s)
            self.turning = BASIS_ROUND_UP_FACTOR * (
                rounding_gamma(k + 1) * k**0.5 + rounding_gamma(self.out + 1) * (s * 2) ** 0.5
            )

    def write_column(self, j: int, V: Floats, vb: Floats | None) -> None:
        """Write column j of E to V (out, in) and vb (out,), which must hold zeros. If the model has
        no biases, vb is None.
        """
        if j >= self.weights:
            assert vb is not None
            vb[j - self.weights] = 1.0
        elif self.whole:
            V.reshape(-1)[j] = 1.0
        elif j < self.first:
            V[j // self.r] = self.Q1[:, j % self.r]
        else:
            i, k = divmod(j - self.first, self.width - self.r)
            np.multiply(self.U[:, i, None], self.Q2[:, k], out=V)

    def _read_coordinates(self, V: Floats, out: Floats) -> None:
        """Write E' times the weights V (b, out, in) of b vectors to `out` (b, number of coordinates
        of the weights).
        """
        if self.whole:
            out[...] = V.reshape(out.shape)
            return
        flat = V.reshape(-1, self.width)
        out[:, : self.first] = (flat @ self.Q1).reshape(len(V), -1)
        if self.weights > self.first:
            turned = (flat @ self.Q2).reshape(len(V), self.out, -1)
            out[:, self.first :] = (self.U.T @ turned).reshape(len(V), -1)

    def _write_weights(self, x: Floats, V: Floats) -> None:
        """Write E times the coordinates x of the weights to V (out, in)."""
        if self.whole:
            V[...] = x.reshape(V.shape)
            return
        np.matmul(x[: self.first].reshape(self.out, self.r), self.Q1.T, out=V)
        if self.weights > self.first:
            V += (self.U @ x[self.first :].reshape(self.s, -1)) @ self.Q2.T


def estimated_range_dimension(model: Any, N: int) -> int:
    """Return the dimension of the range of the Hessian for N samples, assuming that the inputs and
    the deltas of every layer have full rank.
    """
    return sum(
        min(m * k, n_layer_coordinates(m, k, N, l > 0, True)) + m * model.bias
        for l, (m, k) in enumerate(model.shapes)
    )


class ProvedRangeSpace(LayerwiseCoordinatesMixin, ReadOnlyMixin):
    """The space that contains the range of a Hessian, with proved bounds; an implementation of the
    protocol `ProvedRange`.

    Parameters
    ----------
    H : Curvature
        A float64 Hessian of a model without batch normalisation.
    """

    space = "samples"
    whole: Any
    n: int
    R: ErrorPass
    m: int
    n_complement: int
    complement_eigenvalue: float
    leak: float
    _read_only = frozenset(
        [
            "space",
            "whole",
            "n",
            "R",
            "m",
            "n_complement",
            "complement_eigenvalue",
            "leak",
            "layers",
            "cuts",
        ]
    )

    def __init__(self, H: Any) -> None:
        self.whole = H
        self.n = H.shape[0]
        ob = H.objective
        self.R = ErrorPass(ob, H.theta, measured=True)
        states = list(self.R.iter_states())
        counts = (sample_weights(ob) != 0)[:, None]  # rows of weight 0 do not contribute to H

        def rows(parts: Any) -> Floats:
            return np.where(counts, np.concatenate([*parts]), 0.0)

        layers = []
        for l, shape in enumerate(ob.model.shapes):
            a = rows(s.a[l].x for s in states)
            d = rows(s.d[l].x for s in states)
            da = rows(s.a[l].dx.nu for s in states)
            dd = rows(s.d[l].dx.nu for s in states)
            layers.append(LayerRangeBasis(shape, ob.model.bias, (a, da, d, dd), l > 0))
        self.m = self._set_layers(layers)
        self.n_complement = self.n - self.m
        self.complement_eigenvalue = float(ob.l2)
        self.leak = self._complement_norm_bound(states)

    def _complement_norm_bound(self, states: Any) -> float:
        """Return a bound on ``||H0 v||`` over all unit vectors v orthogonal to the space."""
        R = self.R
        L = len(self.layers)
        totals = np.zeros(L)
        start = 0
        for s in states:
            rows = slice(start, start + len(s.a[0].x))
            start = rows.stop
            into = [
                (
                    layer.rho[rows, None] + SMALLEST_SUBNORMAL,
                    SMALLEST_SUBNORMAL,
                    layer.sigma[rows, None] + SMALLEST_SUBNORMAL,
                    SMALLEST_SUBNORMAL,
                )
                for layer in self.layers
            ]
            ra, rd = propagate_norm_bounds(
                R, s, into, sum(s.loss.rdelta_norm_factors()), SMALLEST_SUBNORMAL, True
            )
            for l in range(L):
                a, d = (row_norms(np.abs(x.x)) + x.dx.nu for x in (s.a[l], s.d[l]))
                totals[l] += float(
                    (rd[l] * np.hypot(a, 1) + d * ra[l] + 2 * SMALLEST_SUBNORMAL).sum()
                )
        if R.arithmetic.overflow:
            return np.inf
        return norm(totals) * BASIS_ROUND_UP_FACTOR * R.slack_factor

    # --- the map

    def embed(self, x: Floats) -> Floats:
        """Return ``E x`` (n,) for coordinates x (m,)."""
        out = np.empty(self.n)
        self._embed(x, out)
        return out

    def project(self, rows: Floats) -> Floats:
        """Return ``E'`` times each of the given rows (b, n), with shape (b, m)."""
        out = np.empty((len(rows), self.m))
        self._project(rows, out)
        return out

    def _basis_vectors(self, start: int, stop: int) -> Floats:
        rows = np.zeros((stop - start, self.n))
        views = layers_of(self.whole.objective.model, rows)
        for layer, cut, (V, vb) in zip(self.layers, self.cuts, views):
            for j in range(max(start, cut.start), min(stop, cut.stop)):
                i = j - start
                layer.write_column(j - cut.start, V[i], None if vb is None else vb[i])
        return rows

    # --- the matrix

    def matrix(self) -> EnclosedMatrix:
        """Return ``E'HE`` (m, m), computed by m products, as an `EnclosedMatrix` matrix with error
        bounds.
        """
        P = np.empty((self.m, self.m))
        bounds = np.empty(self.m)
        each = np.asarray(self.whole.column_error_bounds(), dtype=np.float64)
        turning = max(layer.turning for layer in self.layers)
        f = max(layer.defect for layer in self.layers)
        for start in range(0, self.m, RANGE_BLOCK_COLUMNS):
            rows = self._basis_vectors(start, min(start + RANGE_BLOCK_COLUMNS, self.m))
            part = slice(start, start + len(rows))
            products = np.ascontiguousarray((self.whole @ rows.T).T)
            P[:, part] = self.project(products).T
            bounds[part] = (np.abs(rows) @ each) * BASIS_ROUND_UP_FACTOR * (1 + f)
            bounds[part] += turning * row_norms(np.abs(products))[:, 0] * (1 + f)
        if not (f < 0.1 and np.isfinite(P).all()):
            return EnclosedMatrix(P, bounds, np.inf)
        size = norm(P) + norm(bounds) + self.complement_eigenvalue + self.leak
        size *= 2 * BASIS_ROUND_UP_FACTOR  # upper bound on ||H||
        # The next term covers the rounding errors of the rank-one terms u q' of E.
        bounds += 4 * UNIT_ROUNDOFF * size
        return EnclosedMatrix(
            P, bounds, ((2 * f + f * f) * size + 2 * self.leak) * BASIS_ROUND_UP_FACTOR
        )

    def complement_vector(self, seed: int = 0) -> Floats:
        """Return a unit vector (n,) orthogonal to the space, up to rounding."""
        v = np.random.default_rng(seed).standard_normal((1, self.n))
        for _ in range(3):
            v -= self.embed(self.project(v)[0])
            v /= np.linalg.norm(v)
        return np.asarray(v[0])


def range_space(H: Any, max_dim: int) -> ProvedRangeSpace | None:
    """Return the `ProvedRangeSpace` of the Hessian H. Return None if H is not a float64 Hessian of
    a model without batch normalisation, if the dimension of the space exceeds `max_dim`, or if a
    bound cannot be proved. See `Curvature.range_space`.
    """
    ob = H.objective
    if H.kind != "hessian" or H.dtype != np.float64 or ob.model.batch_norm:
        return None
    counts: list[Callable[[], int]] = [lambda: ob.n_samples, lambda: len(merge_equal_rows(ob)[0])]
    if all(
        estimated_range_dimension(ob.model, count()) > MAX_ESTIMATED_DIM_RATIO * max_dim
        for count in counts
    ):
        return None
    if 8 * max(k * k for _, k in ob.model.shapes[1:] or ob.model.shapes) > MAX_BASES_BYTES:
        return None
    space = ProvedRangeSpace(H)
    return space if space.m <= max_dim and space.n_complement > 0 and space.leak < np.inf else None
