"""The passes of a network whose rows X are sparse: `row_passes`, with the first layer's two
products, ``X V'`` and ``X' delta``, made on the numbers that are there.

X is kept by rows and, for the transposed product, by columns, so that both read along their sums:
a number of the result is one sum in a fixed order. Everything above the first layer is dense, a row
for each sample, in NumPy and the engine's products.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from .. import _engine
from ..protocols import Array, Floats
from ..runtime import to_nearest
from .blocks import own_csr, submitted
from .row_passes import RowState
from .sample_layers import Scratch, Whole, rows

SMALL = 1 << 20  # entries times columns, below which threads are not worth their start


class SparseRows:
    """X (N, in) by rows and by columns.

    Parameters
    ----------
    X : csr_matrix
        Finite, without repeated entries, in the model's dtype.
    threads : int
        Products go by parts of about as many entries; a number of the result is one sum whatever
        their number.
    """

    __array_ufunc__ = None  # `above + X` asks X

    def __init__(self, X: Any, threads: int = 1) -> None:
        self.X, self.columns = X, X.T.tocsr()
        for part in (X.indices, X.indptr):  # SciPy's loops trust them
            part.flags.writeable = False
        self.threads = min(threads, _engine.MAX_THREADS)
        self.shape, self.dtype = X.shape, X.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __matmul__(self, B: Array) -> Array:
        """``X B`` for B (in, k)."""
        return _product(self.X, np.ascontiguousarray(B), self.threads)

    def __radd__(self, above: Array) -> Array:
        """``above + X``, for a skip over the first layer: `above` (N, in) is dense."""
        return np.asarray(above + self.X.toarray())

    def transposed(self, D: Array) -> Array:
        """``X' D`` for D (N, k)."""
        return _product(self.columns, np.ascontiguousarray(D), self.threads)


def _product(A: Any, B: Array, threads: int) -> Array:
    """``A B`` for A by rows, on threads: SciPy's products hold no lock."""
    if threads < 2 or A.nnz * B.shape[1] < SMALL:
        return np.asarray(A @ B)
    ends = A.indptr.searchsorted(np.linspace(0, A.nnz, threads + 1)[1:-1])
    cuts = [0, *ends.tolist(), A.shape[0]]
    out = np.empty((A.shape[0], B.shape[1]), A.dtype)

    def part(i: int) -> None:
        start, stop = cuts[i], cuts[i + 1]
        at = slice(A.indptr[start], A.indptr[stop])
        pointers = A.indptr[start : stop + 1] - A.indptr[start]
        shape = stop - start, A.shape[1]
        out[start:stop] = csr_matrix((A.data[at], A.indices[at], pointers), shape=shape) @ B

    with ThreadPoolExecutor(threads - 1, "fastcurv-sparse") as pool:
        others = [submitted(pool, part, i) for i in range(1, threads)]
        part(0)
        for other in others:
            other.result()
    return out


def as_rows(X: Any, dtype: Any, threads: int | None = None, own: bool = False) -> SparseRows:
    """A sparse matrix of SciPy as `SparseRows`, or an error that says what is wrong; `own`: its
    memory is.
    """
    if X.dtype.kind not in "fiub":
        raise TypeError(f"X has dtype {X.dtype}; wanted real numbers")
    with np.errstate(over="ignore"):
        held = csr_matrix(X if own else own_csr(X, "X"), dtype=dtype)
    held.sum_duplicates()
    held.eliminate_zeros()
    if not np.isfinite(held.data).all():
        raise ValueError("X holds NaN or infinity; wanted finite numbers")
    return SparseRows(held, threads or _engine.default_threads())


class SparseFirst(Whole):
    """The first layer over sparse rows a."""

    def _times(self, M: Scratch, V: Array) -> Array:
        return np.asfortranarray(self.a @ V.T)

    def _sum(self, M: Scratch, rdelta: Array, out: Array) -> None:
        out[...] = self.a.transposed(rdelta).T


class SparsePlan:
    """The face of the engine's plan over sparse rows, without l2: bound to one theta.

    Parameters
    ----------
    ob : SparseShard
    theta : ndarray (n,)
    """

    def __init__(self, ob: Any, theta: Array) -> None:
        self.ob, self.model = ob, ob.model
        self.theta = np.array(theta, order="C")
        self.state = RowState(ob, self.theta)
        self.M = Scratch(self.model.dtype, ob.n_threads)
        each = zip(self.state.a, self.state.delta)
        kinds = [SparseFirst] + [Whole] * (len(self.state.a) - 1)
        self.layers = [kind(a, d, self.model.bias) for kind, (a, d) in zip(kinds, each)]
        self.cuts = [slice(a, b) for a, b in itertools.pairwise(self.model.starts)]
        self._gradient: Array | None = None

    # --- value and gradient

    @property
    @to_nearest
    def value(self) -> float:
        """The rows' part of the loss."""
        return self.state.loss.value

    @property
    @to_nearest
    def gradient(self) -> Array:
        """The rows' part of the gradient, (n,)."""
        if self._gradient is None:
            whole = np.empty(self.model.n_params, self.model.dtype)
            for layer, cut in zip(self.layers, self.cuts):
                layer.gradient(self.M, layer.delta, None, whole[cut])
            self._gradient = whole  # not before: Ctrl-C may come amid it
        return self._gradient

    def forget_gradient(self) -> None:
        """It has been handed out."""
        self._gradient = None

    # --- products

    def _forward(self, v: Array) -> tuple[list[Any], list[Array]]:
        return self.state.r_forward(self.layers, self.cuts, self.M, v)

    def _backward(self, rdelta: Array, out: Array, along: Any, active: Any = None) -> None:
        at = self.layers, self.cuts, self.M
        rdelta = np.asfortranarray(rdelta)
        self.state.r_backward(*at, out, rdelta=rdelta, along=along, active=active)

    @to_nearest
    def multiply(
        self, Vt: Array, out: Array, kind: str, active: Any = None, l2: bool = False
    ) -> None:
        """Out = (the operator without l2) v for the rows of Vt (k, n), or v (n,)."""
        for v, row in zip(np.atleast_2d(Vt), np.atleast_2d(out)):
            ras, rzs = self._forward(v)
            along = (v, ras, rzs) if kind == "hessian" else None
            self._backward(self.state.loss.curve(rzs[-1], kind), row, along, active)

    @to_nearest
    def quadratic(self, Vt: Array, kind: str, active: Any = None) -> Floats:
        """``v'(the operator)v`` for the rows of Vt, (k,): R-forward alone."""
        s, found = self.state, []
        for v in np.atleast_2d(Vt):
            ras, rzs = self._forward(v)
            total = _dot(rzs[-1], s.loss.curve(rzs[-1], kind))
            if kind == "hessian":
                for l in range(1, len(self.layers)):
                    V, _ = self.layers[l].split(v[self.cuts[l]])
                    total += 2 * _dot(s.delta[l], rows(self.M, ras[l], V.T))
                    if s.eq[l - 1] is not None:
                        total += _dot(s.eq[l - 1] * rzs[l - 1], rzs[l - 1])
            found.append(total)
        return np.array(found)

    @to_nearest
    def jacobian(self, v: Array, out: Array, transpose: bool = False) -> None:
        """``out (N d_out,) = J v``, or ``out (n,) = J' u``."""
        if transpose:
            self.M.begin()
            self._backward(v.reshape(len(self.ob.X), -1), out, None)
        else:
            out[...] = self._forward(v)[1][-1].ravel()

    @property
    def layout(self) -> dict[str, Any]:
        """How sums are made: in NumPy, over all rows at once."""
        return {"arch": "numpy", "chunk": len(self.ob.X), "panel": 0, "groups": 0}


def _dot(x: Array, y: Array) -> float:
    return float(np.einsum("ij,ij->", x, y, dtype=np.float64))
