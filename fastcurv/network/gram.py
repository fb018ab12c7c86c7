"""Krylov methods in sample space: the Hessian and the GGN in orthonormal coordinates of the space
that their products can reach, a smaller symmetric operator if there are fewer rows than units.

Notation of the passes: a (N, in) is the input of a layer, ``z = a W' + b`` (N, out), ``delta =
dL/dz``; V, vb are the layer's part of a vector, and a leading r is the derivative along it.

*The range.* A layer's part of every product ``H v`` is ``rdW = rdelta' a + delta' ra``: a sum of N
matrices of rank one whose right factors are rows of a, and N whose left factors are rows of delta.
So this part lies in the space of all ``P' a + delta' Q``, P (N, out) and Q (N, in). H is symmetric,
so H maps the orthogonal complement to 0 (plus l2), and nothing is lost by restriction to the space.
In the first layer ra is 0, and for the GGN and the Fisher the second term is absent in all layers;
in these cases the space is that of all ``P' a``.

*Coordinates.* Householder QR gives orthogonal Q_a (in, in) and Q_d (out, out) whose first r =
min(N, in) and s = min(N, out) columns span all rows of a and of delta:

    a = [L, 0] Q_a',   delta = [D, 0] Q_d',   L (N, r), D (N, s) lower triangular

In ``M = V Q_a`` the first r columns are arbitrary, and the others are in the span of Q_d1, the
first s columns of Q_d. The coordinates are these two blocks,

    C1 = V Q_a1  (out, r)      C2 = Q_d1' V Q_a2  (s, in - r)      V = [C1, Q_d1 C2] Q_a'

``out r + s (in - r)`` numbers, mapped isometrically onto a space that contains the range. No rank
is decided: equal or zero rows of a or delta only make some coordinates redundant, and everything
stays exact up to rounding. b keeps its own coordinates, so that it can be exempt from l2.

*Products.* With ``Q_a = I - Y T Y'`` (Y (in, r)) the passes need, in place of the products with V,

    a V'    = L C1'                                       2 N r out
    delta V = [delta C1, D C2] Q_a'                       2 N r out + 2 N s (in - r) + 4 N r in
    [G, F]  = ra Q_a                                      4 N r in
    C1      = rdelta' L + delta' G,    C2 = D' F          4 N r out + 2 N s (in - r)

about ``N^2 (8 out + 12 in)`` flops in all, compared with ``8 N in out`` for V as a matrix. The
products with W remain: ``4 N in out``. A layer is rotated if this makes products cheaper
(`is_rotation_cheaper`) and left as it is otherwise, so an operator may contain both kinds.

*The complement* has ``(out - s) (in - r)`` dimensions in each rotated layer. H is l2 I on it.

*Choice of the space.* `product_flops` estimates the cost of a product in both spaces, with its
share of a Krylov method's vector operations; `Curvature.reduced` chooses the cheaper space.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from copy import copy
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.linalg import qr, solve_triangular

from .. import _engine
from .._engine import Lock
from ..common.progress import cache_by_owner
from ..common.protocols import Array, Floats, LiftedEigenpairs, library_class, missing_bound_reason
from ..common.runtime import load_certify, with_nearest_rounding
from ..common.vectors import safe_norm
from ..structure.parameters import divisor_of, forward, layers_of
from ..structure.tables import ACTIVATIONS, LOSSES, one_hot
from .arguments import as_vector, check_dtype, vector_and_output
from .linear_operator import SymmetricOperator

# --------------------------------------------------------------------------------------------------
# The base classes of operators in orthonormal coordinates of a subspace; see `Reduction`.

N_TEST_VECTORS = 8  # number of random vectors that `column_error_bounds` multiplies in both spaces
FROBENIUS_SAFETY_FACTOR = 8.0  # Frobenius bound over root mean square of products (risk 1e-6)


class ReducedOperator(SymmetricOperator):
    """Base class of operators with the eigenvalues of `whole`, except those on the complement."""

    whole: Any
    n: int
    n_complement: int
    n_products: int
    space: str
    lowest = False

    @property
    def why_unproved(self) -> str:
        """Reason why rounding errors of products with `whole` have no known bound, or ""."""
        return missing_bound_reason(self.whole)

    @property
    def layout(self) -> Any:
        """Layout of the products of `whole`, as `Curvature.layout`."""
        return self.whole.layout

    @property
    def complement_eigenvalue(self) -> float:
        """Eigenvalue of `whole` on the complement of the subspace: l2, or 0 for the Fisher."""
        return float(self.whole.objective.l2) if self.whole.kind != "fisher" else 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.whole,), {"n_products": self.n_products}

    def __repr__(self) -> str:
        m = self.shape[0]
        return f"<{m}x{m} space of {self.space} of {self.whole!r}>"

    def product(self, v: Any, out: Array | None = None) -> Array:
        """Return the product of the operator with v ``(m,)``, in `out` or in a new array."""
        x, out = vector_and_output(v, out, self.shape[0], self.dtype)
        self._multiply(x, out)
        self.n_products += 1
        return out

    @abstractmethod
    def _multiply(self, x: Array, out: Array) -> None:
        """Compute ``out = R x`` for this operator R, where the arrays share no memory."""

    @abstractmethod
    def _embed(self, x: Array, out: Array) -> None:
        """Write the vector in parameter space with coordinates x to `out`."""

    @abstractmethod
    def _project(self, v: Array, out: Array) -> None:
        """Write the coordinates of v to `out`."""

    def embed(self, x: Any) -> Array:
        """Return the vector ``(n,)`` of parameter space for coordinates ``(m,)``, or rows ``(k,
        n)`` for rows ``(k, m)``.
        """
        return self._apply_to_rows(self._embed, x, self.n)

    def project(self, v: Any) -> Array:
        """Return the coordinates ``(m,)`` of v ``(n,)``, or rows ``(k, m)`` for rows ``(k, n)``."""
        return self._apply_to_rows(self._project, v, self.shape[0])

    def _apply_to_rows(self, way: Callable[[Array, Array], None], x: Any, width: int) -> Array:
        x = np.ascontiguousarray(x, self.dtype)
        out = np.empty((*x.shape[:-1], width), self.dtype)
        for row, target in zip(np.atleast_2d(x), np.atleast_2d(out)):
            way(row, target)
        return out


class CoordinateOperator(ReducedOperator):
    """An operator ``E' H E`` with an isometry E ``(n, m)``, where H is `whole` (n, n). `embed` is
    E, and `project` is its transpose, the orthogonal projection onto the space.
    """

    def product_defect(self, x: Any) -> float:
        """Return the computed ``||H E x - E R x||``, the difference between the products in the two
        spaces, with R for this operator. The cost is one product in each space.
        """
        there = self.whole.product(self.embed(x))
        there -= self.embed(self.product(np.asarray(x, dtype=self.dtype)))
        return safe_norm(there)

    def lift_eigenpairs(self, X: Array, found: Any, rng: Any) -> LiftedEigenpairs:
        """Return the `LiftedEigenpairs` of the pairs `found` with vectors X (k, m). The residuals
        include `product_defect` of a combination of X with random signs from `rng`.
        """
        signs = rng.choice([-1.0, 1.0], size=len(X)).astype(X.dtype)
        defect = self.product_defect(signs @ X) if len(X) else 0.0
        return LiftedEigenpairs(np.ones(len(X), bool), found.residuals + defect, 0.0, False)

    def find_coordinates(self, V: Array, most: float) -> Array | None:
        """Return the coordinates (k, m) of the rows of V (k, n). Return None if, for a row v, the
        component outside the subspace is longer than `most` times ``||v||``.
        """
        found = self.project(V)
        sizes = [np.linalg.norm(x, axis=1).astype(float) for x in (V, found)]
        outside = np.sqrt(np.maximum(sizes[0] ** 2 - sizes[1] ** 2, 0.0))
        return None if (outside > most * sizes[0]).any() else found

    @with_nearest_rounding
    def rounding_bound(self, v: Any) -> float | None:
        """Return a bound on ``||computed(R v) - E' H E v||``: the bound for ``H E v`` plus the
        measured `product_defect` of v. Return None if the former is not known.
        """
        if self.why_unproved:
            return None
        x = as_vector(v, self.shape[0], self.dtype)
        return self.product_defect(x) + float(self.whole.rounding_bound(self.embed(x)))

    @with_nearest_rounding
    def column_error_bounds(self) -> Array | None:
        """Return m equal numbers whose root sum of squares bounds the Frobenius norm of the
        rounding errors of this operator's matrix. Return None if the errors of products with
        `whole` have no known bounds.

        The bound is the sum of the proved bound for the columns in parameter space and an estimate
        of the Frobenius norm of the difference between the matrices in both spaces. The estimate is
        8 times the root mean square of the norms on 8 random vectors (risk below 1e-6).
        """
        if self.why_unproved:
            return None
        rng, m = np.random.default_rng(0), self.shape[0]
        defects = [self.product_defect(rng.standard_normal(m)) for _ in range(N_TEST_VECTORS)]
        seen = FROBENIUS_SAFETY_FACTOR * safe_norm(np.array(defects)) / N_TEST_VECTORS**0.5
        proved = load_certify("arithmetic").norm(self.whole.column_error_bounds())
        return np.full(m, (seen + proved) / m**0.5)


# --------------------------------------------------------------------------------------------------
# One layer's part of a vector in coordinates, and the operations of the passes on this part.
#
# A layer offers four operations, each in coordinates x of the layer: ``forward(x) = a V' + vb``,
# ``add_backward_term(x) = delta V``, ``gradient(rdelta, ra)``, the coordinates of ``rdelta' a +
# delta' ra``, and the isometry ``embed(x) = (V, vb)`` with its transpose ``project``.
# `UnrotatedLayerMap` uses V as it is; `RotatedLayerMap` keeps only the part of V that products can
# reach, in orthonormal coordinates. The docstring of this module has the mathematics.
#
# Matrices with a row for each sample are in Fortran order, so that the engine's products read W and
# V without a copy. `multiply_rows` creates such a matrix. `M` is a `MatrixPool`: ``M(out, A, B,
# add)`` computes ``out = [out +] A B``.

ROWS_PER_ROTATION = 512  # maximum number of rows of V rotated at a time, to limit memory


class MatrixPool:
    """The engine's matrix products, and a workspace for the matrices of a pass. A pass that
    requests the same shapes as the last one gets the same memory, since the first access to new
    pages takes a seventh of the time of a product. Each pass starts with `begin_pass`. Only one
    thread may use the workspace at a time.
    """

    def __init__(self, dtype: Any, threads: int | None) -> None:
        self.dtype = np.dtype(dtype)
        self.multiply = _engine.MatrixMultiplier(dtype, threads or _engine.default_n_threads())
        self._kept: dict[tuple[int, int], list[Array]] = {}
        self._taken: dict[tuple[int, int], int] = {}

    def __call__(self, out: Array, A: Array, B: Array, add: bool = False) -> None:
        """Compute ``out = [out +] A B``."""
        self.multiply(out, A, B, add)

    def begin_pass(self) -> None:
        """Start a pass and make the memory of all earlier matrices available again."""
        self._taken.clear()

    def empty_matrix(self, N: int, width: int) -> Array:
        """Return an uninitialised matrix (N, width) in Fortran order."""
        shape = N, width
        kept, at = self._kept.setdefault(shape, []), self._taken.get(shape, 0)
        if at == len(kept):
            kept.append(np.empty((width, N), self.dtype).T)
        self._taken[shape] = at + 1
        return kept[at]


def multiply_rows(M: MatrixPool, A: Array, B: Array) -> Array:
    """Return ``A B`` (N, w) in Fortran order, in memory of the workspace M."""
    out = M.empty_matrix(A.shape[0], B.shape[1])
    M(out, A, B)
    return out


def _unit_column_blocks(m: int) -> list[slice]:
    return [slice(i, min(i + ROWS_PER_ROTATION, m)) for i in range(0, m, ROWS_PER_ROTATION)]


class BlockReflector:
    """The orthogonal ``Q = I - Y T Y'`` (k, k) whose first r columns span the rows of A (N, k),
    with r = min(N, k): ``A = [L, 0] Q'``.

    Q is computed by Householder reflections, so that it is orthogonal up to rounding and its first
    columns span every row of A, whatever the rank of A. Equal or zero rows need no threshold. Cost:
    4 N k r flops once, and 4 k r flops for each row multiplied by Q.
    """

    def __init__(self, A: Array) -> None:
        (packed, tau), R = qr(np.asarray(A.T, dtype=np.float64), mode="raw", check_finite=False)
        k, N = packed.shape
        self.r, dtype = min(N, k), A.dtype
        Y = np.tril(packed[:, : self.r], -1)
        Y[np.arange(self.r), np.arange(self.r)] = 1.0
        idle = tau == 0  # LAPACK stores tau = 0 if a column needs no reflection
        Y[:, idle] = 0.0
        inverse = np.triu(Y.T @ Y, 1)  # inverse of the factor T of the block reflector
        inverse[np.arange(self.r), np.arange(self.r)] = np.where(idle, 1.0, 1 / (tau + idle))
        self.Y = np.ascontiguousarray(Y, dtype=dtype)
        YT = solve_triangular(inverse, Y.T, trans="T", check_finite=False).T
        self.YT = np.ascontiguousarray(YT, dtype=dtype)
        self.minus_YT, self.minus_Y = -self.YT, -self.Y
        self.L = np.ascontiguousarray(R[: self.r].T, dtype=dtype)

    def multiply_samples_right(self, M: MatrixPool, A: Array) -> Array:
        """Return ``A Q`` (N, k) for A with a row for each sample, in memory of the workspace M."""
        out = M.empty_matrix(*A.shape)
        out[...] = A
        M(out, multiply_rows(M, A, self.YT), self.minus_Y.T, True)
        return out

    def multiply_right(self, M: Array) -> Array:
        """Return ``M Q`` for rows M (m, k)."""
        return np.asarray(M - (M @ self.YT) @ self.Y.T)

    def multiply_right_transposed(self, M: Array) -> Array:
        """Return ``M Q'`` for rows M (m, k)."""
        return np.asarray(M - (M @ self.Y) @ self.YT.T)

    def leading_columns(self) -> Array:
        """Return the first r columns of Q, (k, r)."""
        U = -self.YT @ self.Y[: self.r].T
        U[np.arange(self.r), np.arange(self.r)] += 1
        return np.asarray(U)


class LayerMap:
    """Coordinates of a layer's part (V, vb) of a vector: `weights` numbers for V, then vb."""

    def __init__(self, shape: tuple[int, int], weights: int, bias: bool) -> None:
        (self.out, self.width), self.weights, self.bias = shape, weights, bias
        self.size = weights + self.out * bias

    def embed(self, x: Array, V: Array, vb: Array | None) -> None:
        """Write the parameters for coordinates x to ``V (out, in)`` and ``vb``."""
        self._write_weights(x[: self.weights], V)
        if vb is not None:
            vb[...] = x[self.weights :]

    def project(self, V: Array, vb: Array | None, out: Array) -> None:
        """Write the coordinates of ``V`` and ``vb`` to `out`. This is the transpose of `embed`."""
        self._read_coordinates(V, out[..., : self.weights])
        if vb is not None:
            out[..., self.weights :] = vb

    def _write_weights(self, x: Array, V: Array) -> None:
        """Write the weights for coordinates x to V."""
        V[...] = x.reshape(V.shape)

    def _read_coordinates(self, V: Array, out: Array) -> None:
        """Write the coordinates of V to `out`."""
        out[...] = V.reshape(out.shape)


class UnrotatedLayerMap(LayerMap):
    """A layer without rotation. The coordinates are the entries of V, row-major, and of vb."""

    n_complement = 0  # dimension of the space of V orthogonal to the range of the products

    def __init__(self, a: Any, delta: Array, bias: bool) -> None:
        super().__init__((delta.shape[1], a.shape[1]), delta.shape[1] * a.shape[1], bias)
        self.a, self.delta = a, delta

    def forward(self, M: MatrixPool, x: Array) -> Array:
        """Return ``a V' + vb`` (N, out) for coordinates x."""
        rz = self._multiply_by_weights(M, x[: self.weights])
        if self.bias:
            rz += x[self.weights :]
        return rz

    def add_backward_term(self, M: MatrixPool, x: Array, out: Array) -> None:
        """Add ``delta V`` to `out` (N, in), for V with coordinates x."""
        M(out, self.delta, x[: self.weights].reshape(self.out, self.width), True)

    def gradient(self, M: MatrixPool, rdelta: Array, ra: Array | None, out: Array) -> None:
        """Write the coordinates of ``rdelta' a [+ delta' ra]`` and of ``rdelta.sum(axis=0)``."""
        self._write_gradient(M, rdelta, ra, out[: self.weights])
        if self.bias:
            rdelta.sum(axis=0, out=out[self.weights :])

    def _multiply_by_weights(self, M: MatrixPool, x: Array) -> Array:
        """Return ``a V'`` for V with coordinates x."""
        return multiply_rows(M, self.a, x.reshape(self.out, self.width).T)

    def _write_gradient(self, M: MatrixPool, rdelta: Array, ra: Array | None, out: Array) -> None:
        """Write the coordinates of ``rdelta' a [+ delta' ra]`` to `out`."""
        V = out.reshape(self.out, self.width)
        M(V, rdelta.T, self.a)
        if ra is not None:
            M(V, self.delta.T, ra, True)


class RotatedLayerMap(UnrotatedLayerMap):
    """A layer in coordinates of the range of products: ``C1 = V Q_a1 (out, r)``, with `pairs` also
    ``C2 = Q_d1' V Q_a2 (s, in - r)``, and vb. `pairs` is False if ra is 0, as in the first layer.
    """

    def __init__(self, a: Array, delta: Array, bias: bool, pairs: bool) -> None:
        self.inputs, self.delta = BlockReflector(a), delta
        self.errors = BlockReflector(delta) if pairs else None
        m, k, self.r = delta.shape[1], a.shape[1], self.inputs.r
        self.s = 0 if self.errors is None else self.errors.r
        self.first = m * self.r
        self.n_complement = (m - self.s) * (k - self.r)
        LayerMap.__init__(self, (m, k), m * k - self.n_complement, bias)

    def _split_coordinates(self, x: Array) -> tuple[Array, Array]:
        C2 = x[self.first : self.weights]
        return x[: self.first].reshape(self.out, self.r), C2.reshape(self.s, self.width - self.r)

    def add_backward_term(self, M: MatrixPool, x: Array, out: Array) -> None:
        """Add ``delta V = [delta C1, D C2] Q_a'`` to `out`, for coordinates x = (C1, C2)."""
        assert self.errors is not None
        C1, C2 = self._split_coordinates(x)
        Z = M.empty_matrix(len(self.delta), self.width)
        M(Z[:, : self.r], self.delta, C1)
        M(Z[:, self.r :], self.errors.L, C2)
        out += Z
        M(out, multiply_rows(M, Z, self.inputs.Y), self.inputs.minus_YT.T, True)

    def _multiply_by_weights(self, M: MatrixPool, x: Array) -> Array:
        """Return ``a V' = L C1'`` for coordinates x = (C1, C2)."""
        return multiply_rows(M, self.inputs.L, self._split_coordinates(x)[0].T)

    def _write_gradient(self, M: MatrixPool, rdelta: Array, ra: Array | None, out: Array) -> None:
        """Write ``C1 = rdelta' L + delta' G`` and ``C2 = D' F`` with ``[G, F] = ra Q_a``."""
        C1, C2 = self._split_coordinates(out)
        M(C1, rdelta.T, self.inputs.L)
        if self.errors is not None and ra is not None:
            turned = self.inputs.multiply_samples_right(M, ra)
            M(C1, self.delta.T, turned[:, : self.r], True)
            M(C2, self.errors.L.T, turned[:, self.r :])

    def _write_weights(self, x: Array, V: Array) -> None:
        """Write ``V = [C1, Q_d1 C2] Q_a'`` for coordinates x = (C1, C2)."""
        C1, C2 = self._split_coordinates(x)
        U = None if self.errors is None else self.errors.leading_columns()
        for rows in _unit_column_blocks(self.out):
            V[rows, : self.r] = C1[rows]
            V[rows, self.r :] = 0.0 if U is None else U[rows] @ C2
            V[rows] -= (V[rows] @ self.inputs.Y) @ self.inputs.YT.T

    def _read_coordinates(self, V: Array, out: Array) -> None:
        C1, C2 = self._split_coordinates(out)
        U = None if self.errors is None else self.errors.leading_columns()
        C2[...] = 0.0
        for rows in _unit_column_blocks(self.out):
            turned = self.inputs.multiply_right(V[rows])
            C1[rows] = turned[:, : self.r]
            if U is not None:
                C2 += U[rows].T @ turned[:, self.r :]

    def complement_vectors(self, j: int) -> tuple[Array, Array]:
        """Return vectors x (out,) and y (in,) such that ``x y'`` is the j-th of `n_complement`
        orthonormal matrices V that are orthogonal to the range of all products.
        """
        i, k = divmod(j, self.width - self.r)
        e = np.zeros((1, self.width), self.delta.dtype)
        e[0, self.r + k] = 1
        y = self.inputs.multiply_right_transposed(e)[0]
        x = np.zeros((1, self.out), self.delta.dtype)
        x[0, self.s + i] = 1
        return (x if self.errors is None else self.errors.multiply_right_transposed(x))[0], y


# --------------------------------------------------------------------------------------------------
# The passes of a network over all rows at once, in NumPy: the state at theta, and the derivatives
# of the loss with respect to the outputs. They serve operators in layer coordinates.


class OutputLossDerivatives:
    """Value and derivatives of the loss with respect to the outputs z: ``delta = dL/dz`` of the
    last layer, and ``rdelta = (d2L/dz2) rz``.

    All numbers are in float64. For cross entropy, delta keeps its relative accuracy if a prediction
    is nearly certain, because logits are taken relative to the largest one and delta of the largest
    is computed from the other outputs.

    Parameters
    ----------
    ob : Objective
        The objective with the loss, targets, weights and divisor.
    z : ndarray (N, d_out)
        The outputs of all rows.
    divisor : float, optional
        A divisor that replaces that of the objective.
    """

    p: np.ndarray
    p_top: Any

    def __init__(self, ob: Any, z: Array, divisor: float | None = None) -> None:
        z, y = z.astype(np.float64), ob.y
        divisor = divisor_of(ob) if divisor is None else divisor
        self.loss, self.dtype = ob.loss, ob.dtype
        if ob.sample_weight is not None and LOSSES[ob.loss].given is None:
            idle = ob.sample_weight == 0  # 0 times an overflowing loss would be NaN
            z, y = (
                np.where(idle[:, None], 0, z),
                np.where(idle if y.ndim == 1 else idle[:, None], 0, y),
            )
        weight = np.ones(len(z)) if ob.sample_weight is None else ob.sample_weight.astype(float)
        self.f, self.n_samples = (weight / divisor)[:, None], len(z)
        self.sums, self.top = None, np.zeros(len(z), int)
        link = LOSSES[ob.loss].link
        if link == "softmax":
            self.delta = self._cross_entropy_delta(z, y)
        elif link == "identity":
            self.delta, self.h = 2 * self.f * (z - y), 2 * self.f
            self.value = float((self.f * (z - y) ** 2).sum())
        elif link == "given":
            loss: Any = LOSSES[ob.loss].given
            found = loss.weighted_derivatives(divisor, np.dtype(float), z, y, ob.sample_weight)
            self.value, self.delta, self.h = found
        else:
            small, above = np.exp(-np.abs(z)), z > 0
            sure = np.where(above, (1 - y.astype(float)) * z, -y.astype(float) * z)
            self.value = float((self.f * (sure + np.log1p(small))).sum())
            small = small / (1 + small)
            rest = np.where(above, 1 - y.astype(float), -y.astype(float))
            self.delta = self.f * (rest - np.where(above, small, -small))
            self.h = self.f * small * (1 - small)

    def _cross_entropy_delta(self, z: Floats, y: Array) -> Floats:
        """Return ``f (T p_j - y_j)``, with p = softmax(z), T = sum(y), f = weight / divisor."""
        m = z.shape[1]
        y = one_hot(y, m).astype(float)
        self.top = z.argmax(axis=1)
        first = np.arange(m) == self.top[:, None]
        e = np.where(first, 0.0, np.exp(z - z.max(axis=1, keepdims=True)))
        S = e.sum(axis=1, keepdims=True)
        self.p, T = np.asfortranarray(e / (1 + S)), y.sum(axis=1, keepdims=True)
        self.p_top, self.h = 1 / (1 + S), self.f * T  # p of the largest logit, 0 in `p`
        rest = y * (z.max(axis=1, keepdims=True) - z)
        self.value = float((self.f * (rest.sum(axis=1, keepdims=True) + T * np.log1p(S))).sum())
        others = np.where(first, 0.0, y).sum(axis=1, keepdims=True)
        return np.asarray(self.f * np.where(first, others - T * (S / (1 + S)), T * self.p - y))

    def second_derivatives(self) -> Floats:
        """Return d2L/dz2 of each sample: the diagonal (N, d_out) if each output has its own term,
        otherwise (N, d_out, d_out).
        """
        N, d = self.delta.shape
        if LOSSES[self.loss].link != "softmax":
            return np.array(np.broadcast_to(self.h, (N, d) if self.h.ndim == 2 else self.h.shape))
        each, others = np.arange(N), self.p.sum(axis=1)
        p = self.p.copy()
        p[each, self.top] = self.p_top[:, 0]
        found = -p[:, :, None] * p[:, None]
        found[:, np.arange(d), np.arange(d)] += p
        found[each, self.top, self.top] = p[each, self.top] * others  # avoids cancellation in 1 - p
        return np.asarray(self.h[:, :, None] * found)

    def multiply_by_curvature(self, rz: Array, kind: str = "hessian") -> Array:
        """Return ``(d2L/dz2) rz`` or, if `kind` is "fisher", ``N <delta, rz> delta``, per
        sample.
        """
        if kind == "fisher":
            along = (self.delta * rz).sum(axis=1, keepdims=True)
            return np.asarray(self.n_samples * along * self.delta, dtype=self.dtype)
        if self.h.ndim == 3:
            return np.asarray(np.einsum("ijk,ik->ij", self.h, rz), dtype=self.dtype)
        if LOSSES[self.loss].per_entry:
            return np.asarray(self.h * rz, dtype=self.dtype)
        each = np.arange(len(rz))
        U = rz.astype(np.float64) - rz[each, self.top].astype(np.float64)[:, None]
        mean = (self.p * U).sum(axis=1, keepdims=True)
        out = self.p * (U - mean)
        out[each, self.top] = (-self.p_top * mean)[:, 0]
        return np.asarray(self.h * out, dtype=self.dtype)


class RowState:
    """State at theta for every sample: the input a and delta of each layer, and phi' and e phi'' of
    each hidden layer. Here e is the derivative of the loss with respect to the layer's output.

    Parameters
    ----------
    ob : Objective
        An objective of a model without batch normalisation.
    theta : ndarray (n,)
        The parameters; the matrices W are views into it.
    plan : Plan, optional
        The engine's plan at theta, for a state that is bitwise that of the engine's products.
        Rounding determines the slope at a kink, and delta near an exact fit.
    """

    def __init__(self, ob: Any, theta: Array, plan: Any = None, multiply: Any = None) -> None:
        model = ob.model
        self.dtype, self.skips = model.dtype, model.skips
        self.W, self.b = zip(*model.unflatten(theta))
        self.a: list[Any] = [ob.X]
        self.p: list[Any] = []
        self.eq: list[Any] = []
        if plan is not None:
            self._copy_state(ob, plan.state())
            return

        def activate(l: int, z: Any, below: Any) -> Any:
            a, p, q, _ = ACTIVATIONS[model.activation[l]].derivatives(np.asarray(z, np.float64))
            self.p.append(self._to_fortran_order(p))
            self.eq.append(q)  # stores phi'', which is multiplied by e in the backward pass
            above = np.asarray(a, dtype=self.dtype)
            return self._to_fortran_order(above + below if self.skips[l] else above)

        self.a, zs = forward(zip(self.W, self.b), ob.X, activate)
        self.loss = OutputLossDerivatives(ob, np.asarray(zs[-1]))
        self.delta, e = [self._to_fortran_order(self.loss.delta)], None
        for l in range(len(self.W) - 1, 0, -1):
            delta, e = self.backpropagate(multiply, l, self.delta[0], e)
            self.delta.insert(0, delta)
            if self.eq[l - 1] is not None:
                self.eq[l - 1] = self._to_fortran_order(e * self.eq[l - 1])

    def _copy_state(self, ob: Any, state: Any) -> None:
        """Copy `state` from the engine's plan, and compute what the engine does not keep."""
        *hidden, (outputs, _, _, delta) = state
        self.loss = OutputLossDerivatives(ob, outputs)
        self.loss.delta = delta.astype(np.float64)
        self.delta = [self._to_fortran_order(one[3]) for one in state]
        for name, (a, p, eq, delta) in zip(ob.model.activation, hidden):
            row = ACTIVATIONS[name]
            if p is None and row.leak is not None:
                p = np.where(a > 0, 1.0, row.leak)
            if eq is None and row.of_a is not None:
                eq = (row.of_a - 2 * a) * delta
            self.a.append(self._to_fortran_order(a))
            self.p.append(self._to_fortran_order(p))
            self.eq.append(self._to_fortran_order(eq))

    def _to_fortran_order(self, x: Any) -> Any:
        """Return x in the model's dtype and in Fortran order, or None if x is None."""
        return None if x is None else np.asarray(x, dtype=self.dtype, order="F")

    def outputs(self) -> Array:
        """Return the network's outputs (N, d_out)."""
        z = np.asarray(self.a[-1] @ self.W[-1].T)
        return z if self.b[-1] is None else z + self.b[-1]

    def backpropagate(self, M: Any, l: int, D: Array, e: Array | None) -> tuple[Array, Array]:
        """Return ``D' = e' * phi'`` and ``e' = D W [+ e]``, the derivatives for the input of layer
        l >= 1, from those for its z and its output. D and e have N rows or, for several vectors, a
        multiple of N. M computes matrix products.
        """
        found = np.empty((self.W[l].shape[1], len(D)), D.dtype).T
        M(found, D, self.W[l])
        if e is not None and self.skips[l]:
            found += e
        p = self.p[l - 1]
        if p is None:
            return found, found
        return np.asfortranarray(found * np.tile(p, (len(D) // len(p), 1))), found


class LayerwiseCoordinatesMixin:
    """A mixin that maps coordinates to parameters and back, layer by layer."""

    whole: Any
    layers: list[Any]
    cuts: list[slice]  # part of the coordinates that belongs to each layer

    def _set_layers(self, layers: list[Any]) -> int:
        """Set the layers and their slices of the coordinates. Return the number of coordinates."""
        ends = np.cumsum([0] + [layer.size for layer in layers]).tolist()
        self.layers, self.cuts = layers, [slice(a, b) for a, b in pairwise(ends)]
        return int(ends[-1])

    def _embed(self, x: Array, out: Array) -> None:
        views = layers_of(self.whole.objective.model, out)
        for layer, cut, (V, vb) in zip(self.layers, self.cuts, views):
            layer.embed(x[cut], V, vb)

    def _project(self, v: Array, out: Array) -> None:
        views = layers_of(self.whole.objective.model, v)
        for layer, cut, (V, vb) in zip(self.layers, self.cuts, views):
            layer.project(V, vb, out[..., cut])


class RowPasses(LayerwiseCoordinatesMixin):
    """Passes along a vector over all samples, at the point of `state`, with the workspace M. The
    coordinates of each of the `layers` are a slice of x.
    """

    state: RowState
    M: MatrixPool

    def _forward(self, x: Array) -> tuple[list[Any], list[Array]]:
        """Compute ``rz = ra W' + a V' + vb`` and ``ra_above = phi' rz [+ ra]`` for coordinates x.
        Return two lists: ra of the input of each layer (None for the first), and rz of each layer.
        """
        M, s = self.M, self.state
        M.begin_pass()
        ras: list[Any] = [None]
        rzs: list[Array] = []
        for l, layer in enumerate(self.layers):
            rz = layer.forward(M, x[self.cuts[l]])
            if l:
                M(rz, ras[l], s.W[l].T, True)
            rzs.append(rz)
            if l < len(s.p):
                p = s.p[l]
                ra = rz if p is None else np.multiply(p, rz, out=M.empty_matrix(*rz.shape))
                ras.append(ra + ras[l] if s.skips[l] and l else ra)
        return ras, rzs

    def _backward_products(
        self,
        out: Array,
        rdelta: Array,
        along: tuple[Array, list[Any], list[Array]] | None,
        active: Any = None,
    ) -> None:
        """Compute ``rdW = rdelta' a + delta' ra; re_below = rdelta W + delta V [+ re]; rdelta = re
        phi' + e phi'' rz`` and write rdW of each layer to its part of `out`. If `active` is given,
        only the layers for which it is True are written.

        `along` is the tuple (x, ra, rz) from `_forward`, or None to propagate rdelta alone.
        """
        M, s, re = self.M, self.state, None
        for l in range(len(self.layers) - 1, -1, -1):
            layer, cut = self.layers[l], self.cuts[l]
            if active is None or active[l]:
                layer.gradient(M, rdelta, None if along is None else along[1][l], out[cut])
            if l == 0:
                return
            below = multiply_rows(M, rdelta, s.W[l])
            if along is not None:
                layer.add_backward_term(M, along[0][cut], below)
            if re is not None and s.skips[l]:
                below += re
            re, p, eq = below, s.p[l - 1], s.eq[l - 1]
            rdelta = re if p is None else np.multiply(re, p, out=M.empty_matrix(*re.shape))
            if along is not None and eq is not None:  # `rdelta` is not `re`, since p is not None
                rz = along[2][l - 1]
                rdelta += np.multiply(eq, rz, out=rz)

    def _write_product(self, x: Array, out: Array, kind: str, active: Any = None) -> None:
        """Write the product with x, without l2, to `out`, for all layers or the `active` ones."""
        ras, rzs = self._forward(x)
        curved = self.state.loss.multiply_by_curvature(rzs[-1], kind)
        rdelta = np.asfortranarray(curved, self.M.dtype)
        self._backward_products(out, rdelta, (x, ras, rzs) if kind == "hessian" else None, active)


# constants of the cost model, in flops at the speed of the engine's matrix products
FLOPS_PER_ENTRY = 100.0  # flops of a Krylov method for each entry of a vector and each product
UNPACKED_COST_RATIO = 1.25  # cost of unpacked products, relative to the engine's passes
LAYER_OVERHEAD_FLOPS = 4e6  # flops in the time of the Python calls for one layer


def is_rotation_cheaper(m: int, k: int, N: int, pairs: bool) -> bool:
    """Return True if `layer_product_flops` is smaller for a rotated layer."""
    if k <= N or (pairs and m <= N):
        return False
    return layer_product_flops(m, k, N, pairs, True) < layer_product_flops(m, k, N, pairs, False)


def n_layer_coordinates(m: int, k: int, N: int, pairs: bool, rotated: bool) -> int:
    """Return the number of coordinates of V. For the arguments see `layer_product_flops`."""
    r = min(k, N)
    return m * r + (min(m, N) * (k - r) if pairs else 0) if rotated else m * k


def layer_product_flops(m: int, k: int, N: int, pairs: bool, rotated: bool) -> float:
    """Return the flops of a product in a layer with weights (m, k), for N samples, with the vector
    operations of a Krylov method but without the products with W. `pairs` is False if ra is 0.
    """
    r, s, size = min(k, N), min(m, N), n_layer_coordinates(m, k, N, pairs, rotated)
    if not rotated:
        return (8.0 if pairs else 4.0) * N * m * k + FLOPS_PER_ENTRY * size
    flops = 4.0 * N * r * m
    if pairs:
        flops += 4.0 * N * r * m + 8.0 * N * r * k + 4.0 * N * s * (k - r)
    return flops + FLOPS_PER_ENTRY * size


@lru_cache
def product_flops(shapes: tuple[tuple[int, int], ...], N: int, kind: str) -> tuple[float, float]:
    """Return two costs in flops of a product, in sample space and in parameter space, including the
    vector operations of a Krylov method, for N samples, these `MLP.shapes` and this curvature.
    """
    there = here = 0.0
    for l, (m, k) in enumerate(shapes):
        pairs = kind == "hessian" and l > 0
        both = 4.0 * N * m * k if l else 0.0  # flops of products with W, in either space
        there += both + layer_product_flops(m, k, N, pairs, False)
        rotated = is_rotation_cheaper(m, k, N, pairs)
        both += layer_product_flops(m, k, N, pairs, rotated)
        here += UNPACKED_COST_RATIO * both + LAYER_OVERHEAD_FLOPS
    return here, there


def _split_state(whole: Any, rotate: Any = None, state: Any = None) -> tuple[RowState, list[Any]]:
    """Return the pair (state, layers) of the curvature `whole`. `rotate` has True for each layer
    that is rotated; if it is None, a cost model chooses. If `state` is given, it is used as is.
    """
    ob, layers, N = whole.objective, [], whole.objective.n_samples
    state = RowState(ob, whole.theta, whole._plan) if state is None else state
    for l, (m, k) in enumerate(ob.model.shapes):
        pairs = whole.kind == "hessian" and l > 0
        parts = state.a[l], state.delta[l], ob.model.bias
        rotated = is_rotation_cheaper(m, k, N, pairs) if rotate is None else rotate[l]
        layers.append(RotatedLayerMap(*parts, pairs) if rotated else UnrotatedLayerMap(*parts))
    return state, layers


_usual_parts = cache_by_owner(_split_state)


def cast_state(x: Any, dtype: Any) -> Any:
    """Return a state, layers or arrays cast to another dtype, and other objects unchanged."""
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    if isinstance(x, (list, tuple)):
        return [cast_state(part, dtype) for part in x]
    if not isinstance(x, (RowState, LayerMap, BlockReflector)):
        return x
    other = copy(x)
    other.__dict__.update({name: cast_state(part, dtype) for name, part in vars(x).items()})
    return other


@library_class
class SampleSpaceOperator(RowPasses, CoordinateOperator):
    """A `Curvature` in orthonormal coordinates of the range of its products.

    Created by ``H.reduced("samples")``, and by `eigsh` and similar functions if it saves time. The
    operator is an ordinary symmetric operator of `shape` (m, m), m <= n. Its eigenvalues are those
    of H except for those on the complement, and `embed` maps its eigenvectors to H's.

    Attributes
    ----------
    whole : Curvature
        The operator in parameter space.
    n : int
        The number of rows of `whole`.
    complement_eigenvalue : float
        The eigenvalue of H on the complement: l2, 0 for the Fisher.
    n_complement : int
        The dimension of the complement, ``n - m``.
    space : str
        ``"samples"``.
    n_products : int
        Number of products of this operator; those of `whole` are not included.

    Notes
    -----
    Products use the engine with the objective's `n_threads`, and are bitwise independent of the
    number of threads. The state and the bases are computed with NumPy's and SciPy's BLAS. The state
    takes about ``(6 N + 3 min(N, width)) width`` numbers for each layer; W is read from theta and
    not copied.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> rng = np.random.default_rng(0)
    >>> model = fc.MLP([30, 25, 20, 3])
    >>> ob = fc.Objective(model, rng.standard_normal((4, 30)), rng.integers(3, size=4))
    >>> H = ob.hessian(model.init(seed=0))
    >>> R = H.reduced("samples")
    >>> R.shape, R.n_complement
    ((372, 372), 986)
    >>> x = rng.standard_normal(R.shape[0])
    >>> bool(np.allclose(R.embed(R @ x), H @ R.embed(x)))
    True
    """

    space = "samples"
    rotate: Any
    state: RowState
    M: MatrixPool

    def __init__(
        self, whole: Any, rotate: Any = None, state: Any = None, dtype: Any = None
    ) -> None:
        if whole.objective.model.batch_norm:
            raise ValueError(
                "space must be 'parameters' for a model with batch normalisation, whose rows "
                "depend on each other, got 'samples'."
            )
        self.whole, self.n, self.n_products = whole, whole.shape[0], 0
        self.rotate, dtype = rotate, whole.dtype if dtype is None else dtype
        parts = _usual_parts(whole) if rotate is None else _split_state(whole, rotate, state)
        self.state, layers = parts if dtype == whole.dtype else cast_state(parts, dtype)
        m = self._set_layers(layers)
        self.n_complement = sum(layer.n_complement for layer in self.layers)
        self.M, self._lock = MatrixPool(dtype, self.whole.objective.n_threads), Lock()
        super().__init__(dtype, (m, m))

    def __reduce__(self) -> tuple[Any, ...]:
        made = self.whole, self.rotate, None, self.dtype
        return SampleSpaceOperator, made, {"n_products": self.n_products}

    # --- products

    @with_nearest_rounding
    def _multiply(self, x: Array, out: Array) -> None:
        with self._lock:
            self._write_product(x, out, self.whole.kind)
        for cut, layer in zip(self.cuts, self.layers):
            spared = not self.whole.objective.l2_biases
            part = slice(cut.start, cut.start + layer.weights) if spared else cut
            out[part] += self.dtype.type(self.complement_eigenvalue) * x[part]

    def complement_rows(self, start: int, stop: int) -> Array:
        """Return rows ``start .. stop - 1`` of an orthonormal basis ``(n_complement, n)`` of the
        complement, on which H is `complement_eigenvalue` times the identity.
        """
        out = np.zeros((stop - start, self.n), self.dtype)
        first, model = 0, self.whole.objective.model
        for l, layer in enumerate(self.layers):
            for j in range(max(start, first), min(stop, first + layer.n_complement)):
                x, y = layer.complement_vectors(j - first)
                np.multiply(x[:, None], y, out=layers_of(model, out[j - start])[l][0])
            first += layer.n_complement
        return out

    def astype(self, dtype: Any) -> Any:
        """Return the operator in `dtype`. Raise ValueError for float64 if its dtype is float32."""
        dtype = check_dtype(dtype)
        if dtype == self.dtype:
            return self
        if dtype == np.float64:
            raise ValueError(
                "dtype must be float32 for an operator in float32, got float64. Use "
                "H.astype('float64').reduced('samples'), which has another basis of the space."
            )
        return SampleSpaceOperator(self.whole, self.rotate, None, dtype)
