"""An objective whose X is sparse: products on the numbers that are there, proofs on blocks of rows
made dense one at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from .. import _engine
from .._engine import Lock
from ..certify.arithmetic import norm
from ..certify.bounds import rounding_at
from ..certify.columns import column_bounds
from ..certify.passes import Rounding
from ..common.checks import as_numpy, is_sparse
from ..common.errors import own_names
from ..common.protocols import Array, Floats, Loss
from ..common.runtime import to_nearest
from .arguments import as_vector, check_targets, check_weight
from .gram import RowState, Scratch, Whole, rows
from .mlp import MLP
from .objective import Objective
from .rows import as_source, own_csr, submitted
from .sharded import (
    Frame,
    InFrame,
    Shard,
    Sharded,
    ShardedCurvature,
    gradient_part,
    jvp_part,
    product_part,
    quadratic_part,
    value_part,
    vjp_part,
)
from .streaming import CHECKED, SMALLEST, StreamedObjective
from .tree_sum import SumBound

# --------------------------------------------------------------------------------------------------
# The passes of a network whose rows X are sparse: `row_passes`, with the first layer's two
# products, ``X V'`` and ``X' delta``, made on the numbers that are there.
#
# X is kept by rows and, for the transposed product, by columns, so that both read along their
# sums: a number of the result is one sum in a fixed order. Everything above the first layer is
# dense, a row for each sample, in NumPy and the engine's products.

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


FAST = (gradient_part, jvp_part, product_part, quadratic_part, value_part, vjp_part)
KEPT = 2  # points whose state is kept


class SparseShard(InFrame):
    """Sparse rows as what the parts of a sum are asked of; see `Shard`."""

    def __init__(self, frame: Frame, X: SparseRows, y: Any, weight: Any, first: int = 0) -> None:
        self.frame, self.model, self.loss = frame, frame.model, frame.loss
        self.n_threads, self.dtype = frame.n_threads, frame.model.dtype
        self.X, self.y, self.sample_weight = X, y, weight
        self.n_params, self.n_samples, self.first = frame.model.n_params, len(X), first
        self._plans: list[SparsePlan] = []
        self._lock = Lock()

    def close(self) -> None:
        """Let go of the plans, which know the shard."""
        self._plans.clear()

    def _bound(self, theta: Any, gradient: bool) -> SparsePlan:
        for i, plan in enumerate(self._plans):
            if np.array_equal(plan.theta, theta):
                self._plans.insert(0, self._plans.pop(i))
                return self._plans[0]
        del self._plans[KEPT - 1 :]
        self._plans.insert(0, SparsePlan(self, theta))
        return self._plans[0]


# --- bounds, by blocks of rows made dense
# --------------------------------------------------------------------------------------------------


def _rounding(shard: Any, theta: np.ndarray) -> Rounding:
    """What the sparse passes may be off by in these rows: their sums are over all rows at once, in
    any order.
    """
    n = shard.frame.n_samples
    layout = {"arch": "numpy", "chunk": n, "panel": 0, "groups": 0, "rows": n}
    return rounding_at(shard, theta, layout)


def gradient_error_part(shard: Any, theta: np.ndarray) -> float:
    """Of the rows' part of the gradient."""
    return _rounding(shard, theta).gradient()


def product_error_part(shard: Any, theta: np.ndarray, v: np.ndarray, kind: str) -> float:
    """Of the rows' part of the product with v."""
    return _rounding(shard, theta).product(v, kind)


def column_errors_part(shard: Any, theta: np.ndarray, kind: str) -> np.ndarray:
    """Of the rows' part of products with unit vectors, (n,)."""
    return column_bounds(_rounding(shard, theta), kind)


class SparseCurvature(ShardedCurvature):
    """A curvature over sparse rows."""

    @to_nearest
    def rounding_bound(self, v: Any) -> float:
        """A bound on ``||computed(H v) - H v||``: blocks of rows are made dense for it, one at a
        time. In float32 the product is held against that in float64.
        """
        v = as_vector(v, self.shape[0], self.dtype)
        computed = np.empty_like(v)
        self._plan.multiply(v, computed, self.kind, None, self.kind != "fisher")
        if self.dtype == np.float32:
            double = self.astype(np.float64)
            gap = double.product(v) - computed
            return float(double.rounding_bound(v)) + norm(gap)
        found = self.objective._fold(product_error_part, (self.theta, v, self.kind))
        size = SumBound(found, norm(computed))
        return float(self.objective._summed(size, v, self.kind))

    def _errors_of_columns(self) -> np.ndarray:
        return np.asarray(self.objective._fold(column_errors_part, (self.theta, self.kind)))


# --- the objective
# --------------------------------------------------------------------------------------------------


class SparseSums(Sharded):
    """What objectives over sparse rows have in common: their operators and bounds."""

    _curvature = SparseCurvature

    @to_nearest
    def rounding_bound(self, theta: Any) -> float:
        """A bound on ``||computed(gradient) - gradient||`` at theta; blocks of rows are made dense
        for it, one at a time. In float32 the gradient is held against that in float64.
        """
        theta = np.array(self.model.check_theta(theta), order="C")
        g = self.gradient(theta)
        if self.dtype == np.float32:
            double = self.astype(np.float64)
            return float(double.rounding_bound(theta)) + norm(double.gradient(theta) - g)
        error = self._fold(gradient_error_part, (theta,))
        return self._summed(SumBound(error, norm(g)), theta)


class SparseObjective(SparseSums, StreamedObjective):
    """`Objective` over a sparse X, which is never made dense as a whole: what
    ``fc.Objective(model, X, y)`` is for a sparse matrix of SciPy.

    Products with X, and its transpose, cost ``2 nnz width`` flops; the state above the first layer
    is kept for all rows. What is proved (bounds on rounding, on the third derivative, symmetries,
    kinks) comes from blocks of rows made dense, one at a time, within `memory`. Without batch
    normalisation; `reduced`, `reach` and `residual_bounds` are not offered.

    Attributes
    ----------
    X : csr_matrix (N, sizes[0])
        In the model's dtype.
    n_passes : int
        Over all rows so far, of either kind.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> from scipy.sparse import random
    >>> X, y = random(60, 40, 0.1, format="csr", random_state=0), np.arange(60) % 3
    >>> model = fc.MLP([40, 8, 3])
    >>> ob, theta = fc.Objective(model, X, y), model.init(seed=0)
    >>> dense = fc.Objective(model, X.toarray(), y)
    >>> bool(np.allclose(ob.hessian(theta) @ theta, dense.hessian(theta) @ theta))
    True
    """

    rows: SparseRows
    _whole: SparseShard | None
    _transient = (*StreamedObjective._transient, "_whole")
    n_passes: int

    @own_names("Objective")
    def __init__(
        self,
        model: Any,
        X: Any,
        y: Any = None,
        loss: Loss = "cross_entropy",
        l2: float = 0.0,
        sample_weight: Any = None,
        n_threads: int | None = None,
        memory: Any = None,
        *,
        l2_biases: bool = True,
    ) -> None:
        self._settings(model, loss, l2, l2_biases, n_threads, memory)
        if len(X.shape) != 2 or X.shape[1] != model.sizes[0] or not X.shape[0]:
            raise ValueError(f"X has shape {X.shape}; wanted (N, {model.sizes[0]}), N > 0")
        rows = as_rows(X, model.dtype, n_threads)
        y = check_targets(y, len(rows), model, loss)
        self._of(rows, y, check_weight(sample_weight, len(rows), model.dtype))

    def _of(self, rows: SparseRows, y: np.ndarray, weight: Any) -> None:
        self.rows, self.X, self.y, self.sample_weight = rows, rows.X, y, weight
        self.source = as_source(rows.X, y, weight)
        self._prepare(None)

    def _start(self) -> None:
        super()._start()
        self._whole = None

    def after_fork(self) -> None:
        """In a child of `os.fork`: nobody else is at work."""
        super().after_fork()
        self._whole = None

    def __repr__(self) -> str:
        text = super().__repr__().removeprefix("Streamed")
        return text[: text.index(", block_rows")] + f", nnz={self.rows.X.nnz})"

    def _room(self) -> int:
        """Rows that are made dense at a time."""
        each = 16 * 8 * sum(self.model.sizes)
        return max(SMALLEST, min(len(self.rows), self._budget // each))

    def _fold(self, part: Any, arguments: tuple[Any, ...]) -> Any:
        """Sums that are asked for often over sparse rows, others over dense blocks of them."""
        if part not in FAST:
            return super()._fold(part, arguments)
        with self._reading:
            if self._whole is None:
                frame = Frame(self.model, self.loss, self._n_samples, self.n_threads)
                self._whole = SparseShard(frame, self.rows, self.y, self.sample_weight)
            self.n_passes += 1
            return part(self._whole, *arguments)

    # --- other objectives of these rows

    def _other(self, model: MLP, rows: SparseRows, y: np.ndarray, weight: Any) -> SparseObjective:
        other: SparseObjective = self._unstarted()
        other.model = model
        other._of(rows, y, weight)
        return other

    def _with_model(self, model: MLP) -> SparseObjective:
        y, weight = self.y, self.sample_weight
        if y.dtype.kind == "f":
            y = y.astype(model.dtype)
        weight = None if weight is None else weight.astype(model.dtype)
        return self._other(model, as_rows(self.X, model.dtype, self.n_threads), y, weight)

    def batch(self, rows: Any) -> SparseObjective:
        """The objective on some rows: a slice, indices or a mask.

        Divides by its own number of rows.
        """
        rows = self._numbers(rows)
        weight = None if self.sample_weight is None else self.sample_weight[rows]
        return self._other(
            self.model, SparseRows(self.X[rows], self.rows.threads), self.y[rows], weight
        )

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Objective]:
        """Every row once, in random order, in batches of `size`, the last one smaller.

        Yields
        ------
        Objective
            On the rows of a batch.
        """
        order = rng.permutation(self._n_samples)
        for start in range(0, len(order), size):
            yield self.batch(order[start : start + size])


# --------------------------------------------------------------------------------------------------
# Blocks of sparse rows that are read one by one, none of which is ever made dense as a whole.

STATE = 16  # numbers for each row and unit: of the state, and of a product
ENTRY = 110  # bytes for each number of X: as it is read and joined, by rows and by columns, twice


class SparseStreamed(SparseSums, StreamedObjective):
    """`StreamedObjective` over blocks of sparse rows: what ``fc.StreamedObjective(model, blocks)``
    is where the first block that comes is a sparse matrix of SciPy.

    Values, gradients and products are sums over the numbers that are there, in the first layer
    ``2 nnz width`` flops each. What is proved comes from some rows at a time made dense, within
    `memory`.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> from scipy.sparse import random
    >>> rows = [random(50, 40, 0.1, format="csr", random_state=i) for i in range(4)]
    >>> y, model = np.arange(200) % 3, fc.MLP([40, 8, 3])
    >>> ob, theta = fc.StreamedObjective(model, rows, y, block_rows=80), model.init(seed=0)
    >>> dense = fc.Objective(model, np.vstack([X.toarray() for X in rows]), y)
    >>> bool(np.allclose(ob.hessian(theta) @ theta, dense.hessian(theta) @ theta))
    True
    """

    def _room(self) -> int:
        """Rows of a block, by how many numbers the rows of the first one hold."""
        X = self.source.first()
        entries = X.nnz / max(1, X.shape[0]) if is_sparse(X) else X.shape[1]
        each = 8 * STATE * sum(self.model.sizes[1:]) + ENTRY * entries
        return max(SMALLEST, int(self._budget / each))

    @property
    def dense_rows(self) -> int:
        """Rows that are made dense at a time, for what is proved."""
        return max(1, self._budget // (8 * STATE * sum(self.model.sizes)))

    def _taken(self, raw: Any) -> Any:
        return raw if is_sparse(raw) else csr_matrix(as_numpy(raw, "X"))

    def _as_rows(self, X: Any, finite: bool) -> SparseRows:
        if X.shape[1] != self.model.sizes[0]:
            raise ValueError(f"X has shape {X.shape}; wanted (N, {self.model.sizes[0]})")
        return as_rows(X, self.model.dtype, self.n_threads, own=True)

    def _parts(self, part: Any, start: int, block: CHECKED, finite: bool) -> Iterator[Any]:
        """The block as what `part` is asked of: as it is, or some rows at a time made dense."""
        X, y, weight = block
        frame = Frame(self.model, self.loss, self._n_samples, self.n_threads)
        if part in FAST:
            shard = SparseShard(frame, X, y, weight, start)
            yield shard
            shard.close()
            return
        step = self.dense_rows
        for i in range(0, len(X), step):
            rows = slice(i, i + step)
            few = None if weight is None else weight[rows]
            yield Shard(frame, X.X[rows].toarray(), y[rows], few, start + i)
