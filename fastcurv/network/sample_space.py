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

*Choice of the space.* `product_flops` in `fastcurv.network.costs` estimates the cost of a product
in both spaces, with its share of a Krylov method's vector operations; `Curvature.reduced` chooses
the cheaper space.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from scipy.linalg import qr, solve_triangular

from .._engine import Lock
from ..common.caches import cache_by_owner
from ..common.protocols import Array, library_class
from ..common.runtime import with_nearest_rounding
from ..structure.parameters import layers_of
from .arguments import check_dtype
from .costs import is_rotation_cheaper
from .reductions import CoordinateReduction
from .row_passes import (
    LayerMap,
    MatrixPool,
    RowPasses,
    RowState,
    UnrotatedLayerMap,
    multiply_rows,
)

ROWS_PER_ROTATION = 512  # maximum number of rows of V rotated at a time, to limit memory


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
        self.r = min(N, k)
        dtype = A.dtype
        Y = np.tril(packed[:, : self.r], -1)
        Y[np.arange(self.r), np.arange(self.r)] = 1.0
        idle = tau == 0  # LAPACK stores tau = 0 if a column needs no reflection
        Y[:, idle] = 0.0
        inverse = np.triu(Y.T @ Y, 1)  # inverse of the factor T of the block reflector
        inverse[np.arange(self.r), np.arange(self.r)] = np.where(idle, 1.0, 1 / (tau + idle))
        self.Y = np.ascontiguousarray(Y, dtype=dtype)
        YT = solve_triangular(inverse, Y.T, trans="T", check_finite=False).T
        self.YT = np.ascontiguousarray(YT, dtype=dtype)
        self.minus_YT = -self.YT
        self.minus_Y = -self.Y
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


class RotatedLayerMap(UnrotatedLayerMap):
    """A layer in coordinates of the range of products: ``C1 = V Q_a1 (out, r)``, with `pairs` also
    ``C2 = Q_d1' V Q_a2 (s, in - r)``, and vb. `pairs` is False if ra is 0, as in the first layer.
    """

    def __init__(self, a: Array, delta: Array, bias: bool, pairs: bool) -> None:
        self.inputs = BlockReflector(a)
        self.delta = delta
        self.errors = BlockReflector(delta) if pairs else None
        m = delta.shape[1]
        k = a.shape[1]
        self.r = self.inputs.r
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


def _split_state(whole: Any, rotate: Any = None, state: Any = None) -> tuple[RowState, list[Any]]:
    """Return the pair (state, layers) of the curvature `whole`. `rotate` has True for each layer
    that is rotated; if it is None, a cost model chooses. If `state` is given, it is used as is.
    """
    ob = whole.objective
    layers = []
    N = ob.n_samples
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
class SampleSpaceOperator(RowPasses, CoordinateReduction):
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
    >>> H = ob.hessian(model.init(rng=0))
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
    _read_only = CoordinateReduction._read_only | {"rotate", "state", "M", "layers", "cuts"}

    def __init__(
        self, whole: Any, rotate: Any = None, state: Any = None, dtype: Any = None
    ) -> None:
        if whole.objective.model.batch_norm:
            raise ValueError(
                "space must be 'parameters' for a model with batch normalisation, whose rows "
                "depend on each other, got 'samples'."
            )
        self.whole = whole
        self.n = whole.shape[0]
        self.n_products = 0
        self.rotate = rotate
        dtype = whole.dtype if dtype is None else dtype
        parts = _usual_parts(whole) if rotate is None else _split_state(whole, rotate, state)
        self.state, layers = parts if dtype == whole.dtype else cast_state(parts, dtype)
        m = self._set_layers(layers)
        self.n_complement = sum(layer.n_complement for layer in self.layers)
        self.M = MatrixPool(dtype, self.whole.objective.n_threads)
        self._lock = Lock()
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
        first = 0
        model = self.whole.objective.model
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
