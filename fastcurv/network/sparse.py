"""The passes of a network over sparse rows X, which are never made dense as a whole: those of the
engine, layer by layer in NumPy with the engine's matrix products, but with the first layer's two
products, ``X V'`` and ``X' delta``, computed from the stored entries.

X is stored by rows and, for the transposed product, by columns, so that both products read
contiguously and each entry of the result is one sum in a fixed order. `M` is a `MatrixPool`:
``M(out, A, B, add)`` computes ``out = [out +] A B``.
"""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from .. import _engine
from ..common.protocols import Array, Floats
from ..structure.parameters import layers_of
from .row_passes import RowState

# minimum number of entries times columns for which several threads save time
THREADING_MIN_MULTIPLY_ADDS = 1 << 20


class SparseRows:
    """A sparse matrix X (N, in), stored by rows and by columns.

    Parameters
    ----------
    X : csr_matrix
        Finite, without repeated entries, in the model's dtype.
    threads : int, optional
        Number of parts, with about equally many entries, that a product is divided into. Each entry
        of the result is one sum, whatever the number of parts.
    """

    __array_ufunc__ = None  # makes NumPy call __radd__ for `array + X`

    def __init__(self, X: Any, threads: int | None = None) -> None:
        self.X = X
        self.columns = X.T.tocsr()
        # SciPy's loops do not check these indices, so the arrays are made read-only.
        for part in (X.indices, X.indptr):
            part.flags.writeable = False
        self.threads = min(threads or _engine.default_n_threads(), _engine.MAX_THREADS)
        self.shape = X.shape
        self.dtype = X.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __matmul__(self, B: Array) -> Array:
        """Return ``X B`` for B (in, k)."""
        return _threaded_product(self.X, np.ascontiguousarray(B), self.threads)

    def __radd__(self, above: Array) -> Array:
        """Return ``above + X`` for a dense `above` (N, in), for a skip connection around the first
        layer.
        """
        return np.asarray(above + self.X.toarray())

    def transposed(self, D: Array) -> Array:
        """Return ``X' D`` for D (N, k)."""
        return _threaded_product(self.columns, np.ascontiguousarray(D), self.threads)


def _threaded_product(A: Any, B: Array, threads: int) -> Array:
    """Return ``A B`` for A stored by rows, computed on several threads, since SciPy's products
    release the GIL.
    """
    if threads < 2 or A.nnz * B.shape[1] < THREADING_MIN_MULTIPLY_ADDS:
        return np.asarray(A @ B)
    ends = A.indptr.searchsorted(np.linspace(0, A.nnz, threads + 1)[1:-1])
    cuts = [0, *ends.tolist(), A.shape[0]]
    out = np.empty((A.shape[0], B.shape[1]), A.dtype)

    def multiply_part(i: int) -> None:
        start = cuts[i]
        stop = cuts[i + 1]
        at = slice(A.indptr[start], A.indptr[stop])
        pointers = A.indptr[start : stop + 1] - A.indptr[start]
        shape = stop - start, A.shape[1]
        out[start:stop] = csr_matrix((A.data[at], A.indices[at], pointers), shape=shape) @ B

    with ThreadPoolExecutor(threads - 1, "fastcurv-sparse") as pool:
        others = [pool.submit(multiply_part, i) for i in range(1, threads)]
        multiply_part(0)
        for other in others:
            other.result()
    return out


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
        matrices = self._kept.setdefault(shape, [])
        at = self._taken.get(shape, 0)
        if at == len(matrices):
            matrices.append(np.empty((width, N), self.dtype).T)
        self._taken[shape] = at + 1
        return matrices[at]


def multiply_rows(M: MatrixPool, A: Array, B: Array) -> Array:
    """Return ``A B`` (N, w) in Fortran order, in memory of the workspace M."""
    out = M.empty_matrix(A.shape[0], B.shape[1])
    M(out, A, B)
    return out


def without_overflow_warnings(function: Any) -> Any:
    """Return the function wrapped so that NumPy issues no warning if a result overflows to infinity
    or NaN, as in the engine.
    """

    @wraps(function)
    def run(*args: Any, **named: Any) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):
            return function(*args, **named)

    return run


class SparsePlan:
    """Plan for sparse rows, with the interface of the engine's plan. All results are without l2.

    Parameters
    ----------
    ob : Shard
        The shard with the rows. The plan refers to the shard weakly, because the shard holds the
        plan, and a cycle of references would delay the release of the rows.
    """

    def __init__(self, ob: Any) -> None:
        self._owner = weakref.ref(ob)
        self.M = MatrixPool(ob.dtype, ob.n_threads)
        self.theta: Any = None
        self.gradient: Any = None  # contribution of the rows to the gradient (n,)

    @property
    def ob(self) -> Any:
        """The shard. The caller of the plan holds a reference to it."""
        return self._owner()

    @without_overflow_warnings
    def bind(self, theta: Array, gradient: bool = True) -> None:
        """Compute the state at theta (n,). The argument `gradient` has no effect, since
        `compute_gradient` computes the gradient.
        """
        self.theta = self.gradient = None
        theta_copy = np.array(theta, order="C")
        self.state = RowState(self.ob, theta_copy, multiply=self.M)
        self.theta = theta_copy

    @property
    def value(self) -> float:
        """The contribution of the rows of the shard to the loss at theta, without l2."""
        return float(self.state.loss.value)

    @without_overflow_warnings
    def compute_gradient(self) -> None:
        """Compute the contribution of the rows to the gradient, unless it is known."""
        if self.gradient is None:
            gradient = np.empty(len(self.theta), self.M.dtype)
            for l, part in enumerate(layers_of(self.ob.model, gradient)):
                self._write_layer(l, part, self.state.delta[l], None)
            # The gradient is stored when it is complete, because Ctrl-C may interrupt the loop.
            self.gradient = gradient

    def release_gradient(self) -> None:
        """Drop the gradient, since the caller now owns the array."""
        self.gradient = None

    def write_outputs(self, out: Array) -> None:
        """Write the network's outputs at theta to out (N, d_out)."""
        out[...] = self.state.outputs()

    # --- products

    @without_overflow_warnings
    def multiply(
        self, Vt: Array, out: Array, kind: str, active: Any = None, l2: bool = False
    ) -> None:
        """Write the products of the curvature `kind`, without l2, with the rows of Vt (k, n), or
        with a vector (n,), to `out`. If `active` is given, the entries of the layers for which it
        is False are left unchanged. The argument `l2` has no effect.
        """
        for v, row in zip(np.atleast_2d(Vt), np.atleast_2d(out)):
            ras, rzs = self._forward(v)
            curved = self.state.loss.multiply_by_curvature(rzs[-1], kind)
            rdelta = np.asfortranarray(curved, self.M.dtype)
            along = (v, ras, rzs) if kind == "hessian" else None
            self._backward_products(row, rdelta, along, active)

    @without_overflow_warnings
    def quadratic_forms(self, Vt: Array, kind: str, active: Any = None) -> Floats:
        """Return the quadratic forms (k,), without l2, of the rows of Vt (k, n). The cost is the
        forward pass of a product. The argument `active` has no effect.
        """
        s = self.state
        forms = []
        for v in np.atleast_2d(Vt):
            ras, rzs = self._forward(v)
            total = _dot(rzs[-1], s.loss.multiply_by_curvature(rzs[-1], kind))
            if kind == "hessian":
                views = layers_of(self.ob.model, v)
                for l in range(1, len(views)):
                    total += 2 * _dot(s.delta[l], multiply_rows(self.M, ras[l], views[l][0].T))
                    if s.eq[l - 1] is not None:
                        total += _dot(s.eq[l - 1] * rzs[l - 1], rzs[l - 1])
            forms.append(total)
        return np.array(forms)

    @without_overflow_warnings
    def multiply_jacobian(self, v: Array, out: Array, transpose: bool = False) -> None:
        """Write ``J v`` to `out` (N d_out,), or ``J' v`` to `out` (n,) if `transpose`."""
        if transpose:
            self.M.begin_pass()
            self._backward_products(out, np.asfortranarray(v.reshape(len(self.ob.X), -1)), None)
        else:
            out[...] = self._forward(v)[1][-1].ravel()

    def _forward(self, v: Array) -> tuple[list[Any], list[Array]]:
        """Compute ``rz = ra W' + a V' + vb`` and ``ra_above = phi' rz [+ ra]`` for a vector v (n,).
        Return two lists: ra of the input of each layer (None for the first), and rz of each layer.
        """
        M = self.M
        s = self.state
        M.begin_pass()
        ras: list[Any] = [None]
        rzs: list[Array] = []
        for l, (V, vb) in enumerate(layers_of(self.ob.model, v)):
            rz = multiply_rows(M, s.a[l], V.T) if l else np.asfortranarray(s.a[0] @ V.T)
            if vb is not None:
                rz += vb
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
        phi' + e phi'' rz`` and write rdW of each layer to its part of `out` (n,). If `active` is
        given, only the layers for which it is True are written.

        `along` is the tuple (v, ra, rz) from `_forward`, or None to propagate rdelta alone.
        """
        M = self.M
        s = self.state
        parts = layers_of(self.ob.model, out)
        views = None if along is None else layers_of(self.ob.model, along[0])
        re = None
        for l in range(len(parts) - 1, -1, -1):
            if active is None or active[l]:
                self._write_layer(l, parts[l], rdelta, None if along is None else along[1][l])
            if l == 0:
                return
            below = multiply_rows(M, rdelta, s.W[l])
            if views is not None:
                M(below, s.delta[l], views[l][0], True)
            if re is not None and s.skips[l]:
                below += re
            re = below
            p = s.p[l - 1]
            eq = s.eq[l - 1]
            rdelta = re if p is None else np.multiply(re, p, out=M.empty_matrix(*re.shape))
            if along is not None and eq is not None:  # `rdelta` is not `re`, since p is not None
                rz = along[2][l - 1]
                rdelta += np.multiply(eq, rz, out=rz)

    def _write_layer(self, l: int, part: Any, rdelta: Array, ra: Array | None) -> None:
        """Write ``rdelta' a [+ delta' ra]`` and ``rdelta.sum(axis=0)`` to the part (V, vb) of a
        vector that belongs to layer l.
        """
        V, vb = part
        if l == 0:
            V[...] = self.state.a[0].transposed(rdelta).T
        else:
            self.M(V, rdelta.T, self.state.a[l])
            if ra is not None:
                self.M(V, self.state.delta[l].T, ra, True)
        if vb is not None:
            rdelta.sum(axis=0, out=vb)


def _dot(x: Array, y: Array) -> float:
    return float(np.einsum("ij,ij->", x, y, dtype=np.float64))
