"""The Hessian as a matrix, assembled layer by layer, with bounds on its errors, at a fraction of
the cost of n products.

Let ``a = [a_l 1]`` be the input of layer l, and define for m >= l, row by row,

    K = da_m / dz_l      Z = dz_m / dz_l = K W_m'      S = ddelta_m / dz_l       (o_l rows each)

Since ``dL/dW_m = delta_m' a_m`` is a sum over rows, and z_l depends on W_l by ``a_l dW_l'`` alone,

    H[(l, i, p), (m, j, q)] = sum over rows of  a_lp (S_ij a_mq + delta_mj K_iq)

which for each unit i is one matrix product ``a_l' B_i``, B_i (rows, o_m in_m): ``N n^2`` flops for
all of H. K is computed upward from layer l, ``K = (K W') phi' [+ K]``. The second derivative C of
the loss with respect to the input of a layer is computed downward from the last layer, with ``P =
diag(phi') W [+ I]``, and S from both:

    C = W' loss'' W at the top        C = P' C P + W' diag(e phi'') W
    S = (K C) phi' + Z diag(e phi'')  S = Z loss'' in the last layer

Errors. The state has bounds on its errors (`State`), and every matrix here has, for each row, a
bound on the Frobenius norm of its error: ``||d(xy)|| <= dx (y + dy) + x dy + gamma(k) x y`` for a
product of inner dimension k, with spectral norms of W and largest phi' instead where these are
known. With A the sizes of a and dA their errors, an entry of the sum has an error of at most

    sum of  dS A_p A_q + S (dA_p A_q + A_p dA_q) + the same for K, delta  + gamma(N) of the sizes

One such number is kept for each pair of inputs p, q of two layers and all of their hidden units
together (for K, for each input p and unit j). So every column of X and every layer may have its own
unit of measurement. The bounds of `EnclosedHessian` in other units (`error_bound`) and on entries
(`entry_error_bounds`) are computed from these numbers. If the weights of
one layer have scales that differ between its hidden units, the largest scale is used. Sharper
bounds would need all rows to be kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.caches import MULTI_RESULT_CACHE_MAX_PARAMS, cache_last_result
from ..common.checks import row_block_slices
from ..common.linalg import UNIT_ROUNDOFF, rounding_gamma
from ..common.protocols import Floats
from ..common.runtime import with_nearest_rounding
from ..network.mlp import MLP
from ..network.objective import Objective
from ..structure.parameters import is_batch_normalised, l2_diagonal, layers_of
from .arithmetic import (
    NORM_ROUND_UP_FACTOR,
    SMALLEST_SUBNORMAL,
    Enclosure,
    Errors,
    exact_enclosure,
    flushes_subnormals,
    norm,
    row_norms,
)
from .passes import ErrorPass, Passes, State, passes_at, round_to_model_dtype

# --------------------------------------------------------------------------------------------------
# The matrices of each row, layer by layer, from which the curvature of a loss is computed, each
# with a bound on its error: ``K = da_m / dz_l``, ``S = ddelta_m / dz_l``, and C, the second
# derivatives of the loss with respect to the input of a layer.

MATRIX_UNDERFLOW_BOUND = 1e-300  # upper bound on the effect of underflow on the norm of a matrix


def _row_frobenius_norms(x: Floats) -> Floats:
    """Return the Frobenius norms (rows,) of a stack x (rows, i, j) of matrices, one for each
    row.
    """
    norms: Floats = np.sqrt(np.einsum("nij,nij->n", x, x))
    odd = ~((norms > 1e-140) & (norms < np.inf))
    if odd.any():
        norms[odd] = row_norms(np.abs(x[odd]).reshape(int(odd.sum()), -1))[:, 0]
    return norms


@dataclass(frozen=True, eq=False)
class RowMatrices:
    """A stack x (rows, i, j) of matrices, one for each row, with bounds `off` (rows,) on the
    Frobenius norms of their errors and with their own Frobenius norms `size` (rows,).
    """

    x: Floats
    off: Floats
    size: Floats

    @classmethod
    def from_array(cls, x: Floats, off: Floats) -> RowMatrices:
        return cls(x, off, _row_frobenius_norms(x))

    @classmethod
    def from_sum(cls, x: Floats, off: Floats) -> RowMatrices:
        """Return the `RowMatrices` of x (rows, i, j), a sum of terms whose errors add up to at most
        `off` (rows,) in norm. The bounds of the result also include the rounding errors of the sum.
        """
        return cls.from_array(
            x,
            NORM_ROUND_UP_FACTOR
            * (off + 2 * UNIT_ROUNDOFF * _row_frobenius_norms(x) + MATRIX_UNDERFLOW_BOUND),
        )

    def __matmul__(self, other: RowMatrices) -> RowMatrices:
        off = self.off * (other.size + other.off) + self.size * other.off + MATRIX_UNDERFLOW_BOUND
        off += rounding_gamma(other.x.shape[1] + 2) * self.size * other.size
        return RowMatrices.from_array(np.matmul(self.x, other.x), NORM_ROUND_UP_FACTOR * off)

    def multiply_by_slope(self, p: UnitDerivatives, roundings: int) -> tuple[Floats, Floats]:
        """Return the stack of matrices with each column j multiplied by the slope p of unit j, and
        bounds (rows,) on the norms of their errors after `roundings` roundings of every entry.
        """
        off = self.off * (p.top + p.off) + self.size * p.off
        return self.x * p.x[:, None, :], off + roundings * UNIT_ROUNDOFF * self.size * p.top


class UnitDerivatives:
    """The derivatives x (rows, o), phi' or e phi'', of the units of a hidden layer for the rows
    `cut`. For each row, `top` is the largest magnitude, `off` the largest error bound and `spread`
    the norm of the error bounds, each (rows,). If the argument x is None, all derivatives are 1,
    in the shape of `like`.
    """

    def __init__(self, x: Enclosure | None, cut: slice, like: Enclosure) -> None:
        self.x = np.ones_like(like.x[cut]) if x is None else x.x[cut]
        dx = np.zeros_like(self.x) if x is None else x.dx.E[cut]
        self.top = np.abs(self.x).max(axis=1)
        self.off = dx.max(axis=1)
        self.spread = row_norms(dx)[:, 0]


def loss_hessians(s: State) -> tuple[Floats, Floats]:
    """Return the second derivatives (rows, o, o) of the loss with respect to the o outputs for
    every row, and bounds (rows,) on the norms of their errors.
    """
    rows, o = s.z[-1].x.shape
    units = (np.tile(np.arange(o) == k, (rows, 1)) for k in range(o))
    columns = [s.loss.rdelta(exact_enclosure(unit, s.loss.r)) for unit in units]
    error = np.hypot.reduce([column.dx.nu[:, 0] for column in columns], axis=0)
    return np.stack([column.x for column in columns], axis=2), error


class RowBlockState:
    """The numbers, for a block of rows (the slice `cut`), from which blocks of the Hessian are
    computed, with bounds on their errors. `loss` is the result of `loss_hessians`. If `curved` is
    False, the terms with phi'' are left out.

    For each layer, `a` holds the inputs with a 1 for the biases, and `d` the derivatives delta =
    dL/dz of the loss. `C` holds the second derivatives of the loss with respect to the inputs of
    the layers above the first. `iter_blocks` yields the derivatives of the inputs and of delta with
    respect to the z of a lower layer.
    """

    def __init__(
        self, passes: Passes, s: State, loss: tuple[Floats, Floats], cut: slice, curved: bool
    ) -> None:
        self.passes = passes
        self.L = len(passes.W)
        one = np.ones((len(s.z[0].x[cut]), int(passes.ob.model.bias)))
        self.a = [np.hstack([a.x[cut], one]) for a in s.a]
        self.dA = [np.hstack([a.dx.E[cut], 0 * one]) for a in s.a]
        self.A = [np.abs(a) + da for a, da in zip(self.a, self.dA)]
        self.sizes = [row_norms(A)[:, 0] for A in self.A]
        self.d = [d.x[cut] for d in s.d]
        self.dd = [d.dx.E[cut] for d in s.d]
        self.p = [UnitDerivatives(phi.p, cut, z) for phi, z in zip(s.phi, s.z)]
        self.q = [
            UnitDerivatives(eq, cut, z) if curved and eq is not None else None
            for eq, z in zip(s.eq, s.z)
        ]
        self.loss = RowMatrices.from_array(loss[0][cut], loss[1][cut])
        self.C = self._layer_curvatures()

    def _layer_curvatures(self) -> list[RowMatrices]:
        """Return a list of stacks C (rows, k, k) for the layers 1, 2, ..., L - 1, counted from 0:
        the second derivatives of each row's loss with respect to the layer's k inputs. The terms
        with phi'' are left out if `curved` is False.
        """
        curvatures: list[RowMatrices] = []
        for k in range(self.L - 1, 0, -1):
            W = self.passes.W[k].A
            w = self.passes.W[k].norm
            o, width = W.shape
            f = norm(W)
            gamma = rounding_gamma(2 * o + 4)
            top = k == self.L - 1
            if top:
                inner = self.loss
                P = np.broadcast_to(W, (len(self.loss.x), *W.shape))
                most = np.full(len(P), w)
                off = 0.0 * most
                size = np.full(len(P), f)
            else:
                p = self.p[k]
                skip = float(self.passes.skips[k])
                inner = curvatures[-1]
                P = p.x[:, :, None] * W
                if skip:
                    P[:, np.arange(o), np.arange(o)] += 1.0
                size = p.top * f + skip * width**0.5
                most = p.top * w + skip
                off = p.off * w + 3 * UNIT_ROUNDOFF * size + MATRIX_UNDERFLOW_BOUND
            x = np.matmul(np.matmul(P.transpose(0, 2, 1), inner.x), P)
            e = (most + off) * inner.off * (most + off) + inner.size * off * (2 * most + off)
            e += gamma * size * inner.size * size
            if not top and (q := self.q[k]) is not None:
                x += np.matmul(W.T * q.x[:, None, :], W)
                e += w * q.off * w + gamma * f * q.top * f + MATRIX_UNDERFLOW_BOUND * f
            curvatures.append(RowMatrices.from_sum(x, e))
        return curvatures[::-1]

    def iter_blocks(self, l: int) -> Iterator[tuple[int, RowMatrices, RowMatrices | None]]:
        """Yield the tuple ``(m, S, K)`` for every layer m >= l. For each row, S holds the
        derivatives of dL/dz_m, and K those of the inputs of layer m, with respect to z_l. K is None
        for m = l.
        """
        if l == self.L - 1:
            yield l, self.loss, None
            return
        p = self.p[l]
        q = self.q[l]
        C = self.C[l]
        x = p.x[:, :, None] * C.x * p.x[:, None, :]
        at = np.arange(p.x.shape[1])
        off = (p.top + p.off) * C.off * (p.top + p.off) + C.size * p.off * (2 * p.top + p.off)
        off += MATRIX_UNDERFLOW_BOUND if q is None else q.spread + MATRIX_UNDERFLOW_BOUND
        if q is not None:
            x[:, at, at] += q.x
        size = _row_frobenius_norms(x)
        yield (
            l,
            RowMatrices(
                x,
                NORM_ROUND_UP_FACTOR * (off + 4 * UNIT_ROUNDOFF * (size + p.top * C.size * p.top)),
                size,
            ),
            None,
        )
        x = np.zeros_like(x)
        x[:, at, at] = p.x
        K = RowMatrices.from_array(x, p.spread + MATRIX_UNDERFLOW_BOUND)
        for m in range(l + 1, self.L):
            W = self.passes.W[m].A
            w = self.passes.W[m].norm
            z = (K.x.reshape(-1, W.shape[1]) @ W.T).reshape(len(K.x), -1, len(W))
            rounding = rounding_gamma(W.shape[1] + 2) * norm(W) * K.size
            Z = RowMatrices.from_array(
                z, NORM_ROUND_UP_FACTOR * (w * K.off + rounding + MATRIX_UNDERFLOW_BOUND)
            )
            if m == self.L - 1:
                yield m, Z @ self.loss, K
                return
            p = self.p[m]
            q = self.q[m]
            x, off = Z.multiply_by_slope(p, 1)
            if self.passes.skips[m]:
                x = x + K.x
                off = off + K.off
            above = RowMatrices.from_sum(x, off)
            x, off = (above @ self.C[m]).multiply_by_slope(p, 2)
            if q is not None:
                more, error = Z.multiply_by_slope(q, 2)
                x = x + more
                off = off + error
            yield m, RowMatrices.from_sum(x, off), K
            K = above


MAX_STACK_BYTES = 1 << 25  # maximum size of a stack of matrices with one matrix for each row
MAX_PRODUCT_ROWS = 1024  # maximum number of rows in one matrix product


def _row_outer_products(x: Floats, y: Floats) -> Floats:
    """Return the products (rows, k l) of every entry of x (rows, k) with every entry of y (rows, l)
    in the same row.
    """
    return (x[:, :, None] * y[:, None, :]).reshape(len(x), -1)


def rows_per_hessian_block(model: MLP) -> int:
    """Return the number of rows that are processed together: at most `MAX_PRODUCT_ROWS`, and so few
    that a stack of matrices takes at most `MAX_STACK_BYTES`, but at least 1.
    """
    widest = max(max(w * v for w in model.sizes for v in model.sizes), 1)
    return int(max(1, min(MAX_PRODUCT_ROWS, MAX_STACK_BYTES // (8 * widest))))


def enclosed_hessian(ob: Objective, theta: Floats, kind: str) -> EnclosedHessian | None:
    """Return the `EnclosedHessian` of an objective at theta (n,) for the kind "hessian" or "ggn",
    or None if it is not available.

    The result is None in three cases: the kind is "fisher"; the network has batch normalisation or
    X is not a NumPy array; an entry or a bound is not finite.
    """
    if kind == "fisher" or is_batch_normalised(ob.model) or not isinstance(ob.X, np.ndarray):
        return None
    at = round_to_model_dtype(ob, theta)
    short = kind == "hessian" and at.size <= MULTI_RESULT_CACHE_MAX_PARAMS
    enclosed = _hessian_at(ob, at) if short else EnclosedHessian(ob, passes_at(ob, at), kind)
    return enclosed if enclosed.finite else None


@cache_last_result
def _hessian_at(ob: Objective, theta: Floats) -> EnclosedHessian:
    """Return the `EnclosedHessian` of kind "hessian" at theta (n,), with a read-only matrix A. The
    result is cached, because the last Newton steps and `classify` both need this matrix.
    """
    enclosed = EnclosedHessian(ob, passes_at(ob, theta), "hessian")
    enclosed.A.flags.writeable = False
    return enclosed


ByLayers = defaultdict[tuple[int, int], Any]  # arrays by pair of layers, 0.0 at first


class EnclosedHessian:
    """The Hessian or the GGN of an objective as a matrix, with bounds on its errors, at the theta
    of the given `Passes`.

    Attributes
    ----------
    A : ndarray, shape (n, n)
        The matrix, exactly symmetric.
    finite : bool
        True if all entries and bounds are finite and no number of the passes has overflowed.
    """

    finite: bool

    def __init__(self, ob: Objective, passes: Passes, kind: str = "hessian") -> None:
        self.passes = passes
        self.curved = kind == "hessian"
        self.l2 = l2_diagonal(ob)
        self.bias = bool(ob.model.bias)
        self.shapes = [W.A.shape for W in passes.W]
        self.starts = [0, *np.cumsum([o * (k + self.bias) for o, k in self.shapes]).tolist()]
        N = passes.arithmetic.N
        self.step = rows_per_hessian_block(ob.model)
        slabs_of_all = -(-N // passes.step) * -(-passes.step // self.step)
        self.gamma = rounding_gamma(min(self.step, N) + slabs_of_all + 16)
        n = self.starts[-1]
        self.A = np.zeros((n, n))
        # Error bounds by pair of layers (l, m): of_S (inputs of l, inputs of m) for S, of_K (inputs
        # of l, units of m) for K.
        self.of_S = ByLayers(float)
        self.of_K = ByLayers(float)
        self.sums = ByLayers(float)
        self.moved = ByLayers(float)
        # multiple of MATRIX_UNDERFLOW_BOUND that bounds the effect of underflow on a sum over rows
        self.weight = 1.0
        with np.errstate(all="ignore"):
            for s in passes.iter_states():
                loss = loss_hessians(s)
                for start in range(0, len(s.z[0].x), self.step):
                    cut = slice(start, start + self.step)
                    slab = RowBlockState(passes, s, loss, cut, self.curved)
                    for l in range(slab.L):
                        for m, S, K in slab.iter_blocks(l):
                            self._add_block(slab, l, m, S, K)
                            self._add_block_error_bounds(slab, l, m, S, K)
            self._complete_matrix()

    def _add_block(
        self, slab: RowBlockState, l: int, m: int, S: RowMatrices, K: RowMatrices | None
    ) -> None:
        """Add the rows of a slab to the sums from which block (l, m) of A is written."""
        a = slab.a[l]
        b = slab.a[m]
        d = slab.d[m]
        rows = len(slab.d[m])
        if l == m:
            i, j = np.triu_indices(S.x.shape[1])
            p, q = np.triu_indices(a.shape[1])
            self.sums[l, l] += S.x[:, i, j].T @ (a[:, p] * a[:, q])
            return
        self.sums[l, m] += S.x.reshape(rows, -1).T @ _row_outer_products(a, b)
        if K is None or not self.curved:
            return
        # K is diagonal for adjacent layers.
        if m == l + 1:
            self.moved[l, m] += a.T @ _row_outer_products(d, np.einsum("nii->ni", K.x))
        else:
            self.moved[l, m] += _row_outer_products(a, d).T @ K.x.reshape(rows, -1)

    def _write_block_sums(self, l: int, m: int) -> None:
        """Write block (l, m) of A from its sums, and delete the sums."""
        o, k = self.shapes[l]
        p, h = self.shapes[m]
        w = k + self.bias
        v = h + self.bias
        sums = self.sums.pop((l, m))
        row = self.starts[l]
        column = self.starts[m]
        W = slice(row, row + o * k)
        b = slice(row + o * k, self.starts[l + 1])
        V = slice(column, column + p * h)
        c = slice(column + p * h, self.starts[m + 1])
        if l == m:
            at = np.zeros((w, w), dtype=np.intp)
            at[np.triu_indices(w)] = np.arange(sums.shape[1])
            at = np.maximum(at, at.T)
            unit = np.zeros((o, o), dtype=np.intp)
            unit[np.triu_indices(o)] = np.arange(sums.shape[0])
            found = sums[np.maximum(unit, unit.T)[:, :, None, None], at]
        else:
            found = sums.reshape(o, p, w, v)
        # axes: unit i and input p of layer l, unit j and input q of layer m
        found = found.transpose(0, 2, 1, 3)
        more = self.moved.pop((l, m), None)
        if more is not None and m == l + 1:
            each = more.reshape(w, p, o)
            for i in range(o):
                found[i, :, :, i] += each[:, :, i]
        elif more is not None:
            found[..., :h] += more.reshape(w, p, o, h).transpose(2, 0, 1, 3)
        self.A[W, V].reshape(o, k, p, h)[...] = found[:, :k, :, :h]
        if self.bias:
            self.A[W, c].reshape(o, k, p)[...] = found[:, :k, :, h]
            self.A[b, V].reshape(o, p, h)[...] = found[:, k, :, :h]
            self.A[b, c] = found[:, k, :, h]

    def _add_block_error_bounds(
        self, slab: RowBlockState, l: int, m: int, S: RowMatrices, K: RowMatrices | None
    ) -> None:
        """Add the errors in the rows of a slab to the bounds of block (l, m). The errors of S are
        added for each pair of inputs of l and m, all units together. The errors of K are added for
        each pair of an input of l and a unit of m.
        """
        A = slab.A
        dA = slab.dA
        wide = (S.off + self.gamma * S.size)[:, None]
        self.of_S[l, m] += A[l].T @ (wide * A[m] + S.size[:, None] * dA[m])
        self.of_S[l, m] += dA[l].T @ (S.size[:, None] * A[m])
        size = S.size
        if K is not None and self.curved:
            d = np.abs(slab.d[m])
            dd = slab.dd[m]
            x = K.size[:, None]
            wide = (d + dd) * K.off[:, None] + (dd + self.gamma * d) * x
            self.of_K[l, m] += A[l].T @ wide + dA[l].T @ (d * x)
            size = size + K.size
        self.weight += float((size + slab.sizes[l] + slab.sizes[m]).sum())

    def _complete_matrix(self) -> None:
        """Write all blocks into A, mirror the computed half, add l2, and compute `finite`."""
        n = len(self.A)
        for at in list(self.sums):
            self._write_block_sums(*at)
        for s in row_block_slices(n, n):
            self.A[s, : s.start] = self.A[: s.start, s].T
            block = self.A[s, s]
            block[...] = np.triu(block) + np.triu(block, 1).T
        self.A[np.diag_indices(n)] += self.l2
        is_finite = np.isfinite(self.A).all() and np.isfinite(self.error_bound())
        self.finite = bool(is_finite and not self.passes.arithmetic.overflow)

    def _input_indices(self) -> NDArray[np.intp]:
        """Return an array (n,) with the index of the input that each parameter multiplies, counted
        over all layers. The constant 1 of the biases counts as one more input of a layer.
        """
        indices = []
        start = 0
        for o, k in self.shapes:
            indices.append(np.tile(np.arange(start, start + k), o))
            if self.bias:
                indices.append(np.full(o, start + k))
            start += k + self.bias
        return np.concatenate(indices)

    def entry_error_bounds(self) -> Floats:
        """Return bounds (n, n) on the errors of the entries of A."""
        ends = np.cumsum([0] + [k + self.bias for _, k in self.shapes])
        E = np.zeros((ends[-1], ends[-1]))
        for (l, m), part in self.of_S.items():
            E[ends[l] : ends[l + 1], ends[m] : ends[m + 1]] = part
            E[ends[m] : ends[m + 1], ends[l] : ends[l + 1]] = part.T
        at = self._input_indices()
        bounds = E[np.ix_(at, at)]
        for (l, m), moved in self.of_K.items():
            o, k = self.shapes[m]
            rows = slice(self.starts[l], self.starts[l + 1])
            columns = slice(self.starts[m], self.starts[m] + o * k)
            more = np.repeat(moved[at[rows] - ends[l]], k, axis=1)
            bounds[rows, columns] += more
            bounds[columns, rows] += more.T
        bounds[np.diag_indices(len(at))] += 2 * UNIT_ROUNDOFF * np.abs(np.diagonal(self.A))
        return np.asarray(NORM_ROUND_UP_FACTOR * bounds + MATRIX_UNDERFLOW_BOUND * self.weight)

    def layer_indices(self) -> NDArray[np.intp]:
        """Return an array (n,) with the index of the layer of each parameter."""
        return np.repeat(np.arange(len(self.shapes)), np.diff(self.starts))

    @with_nearest_rounding
    def error_bound(self, scale: Floats | None = None) -> float:
        """Return a bound on ``||D E D||_F`` for the matrix E of errors of A. D is ``diag(scale)``
        for `scale` (n,), or the identity if `scale` is None. Return infinity if the bound is NaN.
        """
        d = np.ones(len(self.A)) if scale is None else np.asarray(scale, dtype=float)
        units = layers_of(self.passes.ob.model, d)
        most = [  # maximum scale of each input over all units
            W.max(axis=0) if b is None else np.append(W.max(axis=0), b.max()) for W, b in units
        ]
        each = dict.fromkeys(self.of_S, 0.0)
        for (l, m), E in self.of_S.items():
            each[l, m] += norm(most[l][:, None] * E * most[m])
        for (l, m), moved in self.of_K.items():
            each[l, m] += norm(most[l][:, None] * moved * units[m][0].max(axis=1))
        top = float(d.max(initial=0.0))
        diagonal_part = (
            2 * UNIT_ROUNDOFF * norm(d * np.diagonal(self.A) * d)
            + top * len(d) * MATRIX_UNDERFLOW_BOUND * self.weight * top
        )
        bound = NORM_ROUND_UP_FACTOR * (norm([*each.values()]) * 2**0.5 + diagonal_part)
        return bound if bound == bound else np.inf


# --------------------------------------------------------------------------------------------------
# The Jacobian of the outputs, by separate float64 passes, with bounds on the errors of its rows.


def _backpropagate_columns(
    R: ErrorPass, s: State, columns: Iterable[tuple[Floats, Errors]]
) -> list[tuple[Floats, Floats]]:
    """Return a list by layer of pairs (D, bounds). D (columns, rows, out) holds the columns, each a
    pair of an array (rows, d_out) and its `Errors`, propagated backward from the outputs to the
    layer. The bounds (columns, rows, 1) are on the norms of the errors of the rows of D.
    """
    found: list[list[tuple[Floats, Floats]]] = [[] for _ in R.W]
    for d, dd in columns:
        e = None
        row = Enclosure(d, dd, R.arithmetic)
        for l in range(len(R.W) - 1, -1, -1):
            found[l].append((row.x, row.dx.nu))
            if l:
                row, e = s.backpropagate_layer(l, row, e)
    return [(np.array([x for x, _ in layer]), np.array([e for _, e in layer])) for layer in found]


def enclosed_jacobian(ob: Objective, theta: ArrayLike) -> tuple[Floats, Floats]:
    """Return the Jacobian of the outputs (N d_out, n) of an objective without batch normalisation,
    and bounds (N d_out,) on the norms of the errors of its rows, which are infinite if an overflow
    cannot be excluded.

    The part of row (sample, output) for the weights of a layer is the outer product of the row D of
    `_backpropagate_columns` for this output and the input a of the layer.
    """
    R = ErrorPass(ob, theta, measured=True)
    m = ob.model.sizes[-1]
    found = []
    with np.errstate(all="ignore"):
        for s in R.iter_states():
            rows = len(s.z[-1].x)
            units = (np.tile(np.arange(m) == k, (rows, 1)) * 1.0 for k in range(m))
            layers = _backpropagate_columns(R, s, ((u, Errors(0 * u)) for u in units))
            parts = []
            off = np.zeros((rows, m))
            for a, (D, dd) in zip(s.a, layers):
                D = D.transpose(1, 0, 2)
                parts.append((D[..., None] * a.x[:, None, None, :]).reshape(rows, m, -1))
                parts += [D] if ob.model.bias else []
                size = row_norms(np.abs(D).reshape(rows * m, -1)).reshape(rows, m)
                A = np.hypot(row_norms(np.abs(a.x)) + a.dx.nu, float(ob.model.bias))
                error = dd[:, :, 0].T * A + size * (a.dx.nu + UNIT_ROUNDOFF * A)
                off = np.hypot(off, error + D.shape[2] * a.x.shape[1] * SMALLEST_SUBNORMAL)
            found.append((np.concatenate(parts, axis=2).reshape(rows * m, -1), off.ravel()))
    J = np.concatenate([J for J, _ in found])
    bounds = R.slack_factor * np.concatenate([off for _, off in found])
    proved = not (R.arithmetic.overflow or flushes_subnormals())
    return J, np.where(np.isfinite(bounds) & proved, bounds, np.inf)
