"""Objectives with a sparse X: products use the stored entries only; proofs work on blocks of rows
that are made dense one at a time.
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
from ..certify.columns import column_bounds
from ..certify.passes import ErrorPass
from ..common.checks import as_numpy, is_sparse
from ..common.errors import accept_aliases
from ..common.protocols import Array, Floats, Loss
from ..common.runtime import to_nearest
from .arguments import as_vector, check_targets, check_weight
from .gram import RowState, Scratch, Whole, rows
from .mlp import MLP
from .objective import Objective
from .pairwise_sum import SumBound
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

# --------------------------------------------------------------------------------------------------
# The passes of a network with sparse rows X: those of `gram.RowState`, but with the first layer's
# two products, ``X V'`` and ``X' delta``, computed from the stored entries.
#
# X is stored by rows and, for the transposed product, by columns, so that both products read
# contiguously and each entry of the result is one sum in a fixed order. Everything above the first
# layer is dense, with a row for each sample, and is computed by NumPy and the engine's matrix
# products.

SMALL = 1 << 20  # entries times columns, below which starting threads does not pay off


class SparseRows:
    """A sparse matrix X (N, in), stored by rows and by columns.

    Parameters
    ----------
    X : csr_matrix
        Finite, without repeated entries, in the model's dtype.
    threads : int
        Number of parts, with about equally many entries, that a product is divided into. Each entry
        of the result is one sum, whatever the number of parts.
    """

    __array_ufunc__ = None  # so that `above + X` calls __radd__

    def __init__(self, X: Any, threads: int = 1) -> None:
        self.X, self.columns = X, X.T.tocsr()
        for part in (X.indices, X.indptr):  # SciPy's loops do not check them
            part.flags.writeable = False
        self.threads = min(threads, _engine.MAX_THREADS)
        self.shape, self.dtype = X.shape, X.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __matmul__(self, B: Array) -> Array:
        """Return ``X B`` for B (in, k)."""
        return _product(self.X, np.ascontiguousarray(B), self.threads)

    def __radd__(self, above: Array) -> Array:
        """Return ``above + X`` for a dense `above` (N, in), for a skip connection over the first
        layer.
        """
        return np.asarray(above + self.X.toarray())

    def transposed(self, D: Array) -> Array:
        """Return ``X' D`` for D (N, k)."""
        return _product(self.columns, np.ascontiguousarray(D), self.threads)


def _product(A: Any, B: Array, threads: int) -> Array:
    """Return ``A B`` for A stored by rows, computed on several threads: SciPy's products release
    the GIL.
    """
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
    """Convert a SciPy sparse matrix to `SparseRows`, or raise an error that says what is wrong.
    With `own` its memory is used without a copy.
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
    """The first layer, with sparse rows a."""

    def _times(self, M: Scratch, V: Array) -> Array:
        return np.asfortranarray(self.a @ V.T)

    def _sum(self, M: Scratch, rdelta: Array, out: Array) -> None:
        out[...] = self.a.transposed(rdelta).T


class SparsePlan:
    """A plan for sparse rows, with the interface of the engine's plan but without l2; bound to one
    theta.

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
            self._gradient = whole  # only once complete: Ctrl-C may interrupt the loop
        return self._gradient

    def forget_gradient(self) -> None:
        """Forget the gradient, since the caller now owns the array."""
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
        """Write the products with the rows of Vt (k, n), or with a vector (n,), to `out`, without
        l2.
        """
        for v, row in zip(np.atleast_2d(Vt), np.atleast_2d(out)):
            ras, rzs = self._forward(v)
            along = (v, ras, rzs) if kind == "hessian" else None
            self._backward(self.state.loss.curve(rzs[-1], kind), row, along, active)

    @to_nearest
    def quadratic(self, Vt: Array, kind: str, active: Any = None) -> Floats:
        """Return the quadratic forms of the rows of Vt, (k,), without l2. Costs only the forward
        pass of a product.
        """
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
        """Write ``J v`` to `out` (N d_out,), or ``J' v`` to `out` (n,) if `transpose`."""
        if transpose:
            self.M.begin()
            self._backward(v.reshape(len(self.ob.X), -1), out, None)
        else:
            out[...] = self._forward(v)[1][-1].ravel()

    @property
    def layout(self) -> dict[str, Any]:
        """The order of summation: in NumPy, over all rows at once."""
        return {"arch": "numpy", "chunk": len(self.ob.X), "panel": 0, "groups": 0}


def _dot(x: Array, y: Array) -> float:
    return float(np.einsum("ij,ij->", x, y, dtype=np.float64))


FAST = (gradient_part, jvp_part, product_part, quadratic_part, value_part, vjp_part)
KEPT = 2  # number of points theta whose state is kept


class SparseShard(InFrame):
    """A shard of sparse rows, with what the part functions need; see `Shard`."""

    def __init__(self, frame: Frame, X: SparseRows, y: Any, weight: Any, first: int = 0) -> None:
        self.frame, self.model, self.loss = frame, frame.model, frame.loss
        self.n_threads, self.dtype = frame.n_threads, frame.model.dtype
        self.X, self.y, self.sample_weight = X, y, weight
        self.n_params, self.n_samples, self.first = frame.model.n_params, len(X), first
        self._plans: list[SparsePlan] = []
        self._lock = Lock()

    def close(self) -> None:
        """Release the plans, which hold references to the shard."""
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


def _rounding(shard: Any, theta: np.ndarray) -> ErrorPass:
    """Return rounding bounds for the sparse passes over these rows, whose sums run over all rows at
    once, in any order.
    """
    n = shard.frame.n_samples
    layout = {"arch": "numpy", "chunk": n, "panel": 0, "groups": 0, "rows": n}
    return ErrorPass(shard, theta, layout)


def gradient_error_part(shard: Any, theta: np.ndarray) -> float:
    """Return a bound on the error of the rows' part of the gradient."""
    return _rounding(shard, theta).gradient()


def product_error_part(shard: Any, theta: np.ndarray, v: np.ndarray, kind: str) -> float:
    """Return a bound on the error of the rows' part of the product with v."""
    return _rounding(shard, theta).product(v, kind)


def column_errors_part(shard: Any, theta: np.ndarray, kind: str) -> np.ndarray:
    """Return bounds (n,) on the errors of the rows' part of products with unit vectors."""
    return column_bounds(_rounding(shard, theta), kind)


class SparseCurvature(ShardedCurvature):
    """A curvature matrix over sparse rows."""

    @to_nearest
    def rounding_bound(self, v: Any) -> float:
        """Return a bound on ``||computed(H v) - H v||``, for which blocks of rows are made dense
        one at a time. In float32 the product is compared with a float64 product.
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
    """The base class of objectives over sparse rows: their operators and bounds."""

    _curvature = SparseCurvature

    @to_nearest
    def rounding_bound(self, theta: Any) -> float:
        """Return a bound on ``||computed(gradient) - gradient||`` at theta, for which blocks of
        rows are made dense one at a time. In float32 the gradient is compared with a float64
        gradient.
        """
        theta = np.array(self.model.check_theta(theta), order="C")
        g = self.gradient(theta)
        if self.dtype == np.float32:
            double = self.astype(np.float64)
            return float(double.rounding_bound(theta)) + norm(double.gradient(theta) - g)
        error = self._fold(gradient_error_part, (theta,))
        return self._summed(SumBound(error, norm(g)), theta)


class SparseObjective(SparseSums, StreamedObjective):
    """An `Objective` over a sparse X that is never made dense as a whole; ``fc.Objective(model, X,
    y)`` creates it if X is a SciPy sparse matrix.

    Products with X, and its transpose, cost ``2 nnz width`` flops; the state above the first layer
    is kept for all rows. Proofs (bounds on rounding and on the third derivative, symmetries, kinks)
    make blocks of rows dense, one at a time, within `memory`. Batch normalisation is refused;
    `reduced`, `reach` and `residual_bounds` are not available.

    Attributes
    ----------
    X : csr_matrix (N, sizes[0])
        The rows, in the model's dtype.
    n_passes : int
        Passes over all rows so far, sparse or dense.

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

    @accept_aliases("Objective")
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
        self._source = as_source(rows.X, y, weight)
        self._prepare(None)

    def _start(self) -> None:
        super()._start()
        self._whole = None

    def _after_fork(self) -> None:
        """Drop the shard and its plans in a child of `os.fork`, where no other thread is using
        them.
        """
        super()._after_fork()
        self._whole = None

    def __repr__(self) -> str:
        text = super().__repr__().removeprefix("Streamed")
        return text[: text.index(", block_rows")] + f", nnz={self.rows.X.nnz})"

    def _room(self) -> int:
        """Return the number of rows that are made dense at a time."""
        each = 16 * 8 * sum(self.model.sizes)
        return max(SMALLEST, min(len(self.rows), self._budget // each))

    def _fold(self, part: Any, arguments: tuple[Any, ...]) -> Any:
        """Return the sum of a part over all rows: from the sparse rows at once for the parts in
        `FAST`, else over blocks made dense.
        """
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
        """Return the objective on a subset of the rows: a slice, indices or a mask.

        It divides by its own number of rows.
        """
        rows = self._numbers(rows)
        weight = None if self.sample_weight is None else self.sample_weight[rows]
        return self._other(
            self.model, SparseRows(self.X[rows], self.rows.threads), self.y[rows], weight
        )

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Objective]:
        """Yield objectives on batches of `size` rows that cover every row once, in random order;
        the last batch may be smaller.

        Yields
        ------
        Objective
            The objective on the rows of a batch.
        """
        order = rng.permutation(self._n_samples)
        for start in range(0, len(order), size):
            yield self.batch(order[start : start + size])


# --------------------------------------------------------------------------------------------------
# Blocks of sparse rows that are read one by one; none is made dense as a whole.

STATE = 16  # numbers for each row and unit, of the state and of a product's scratch
ENTRY = 110  # bytes for each stored entry of X: as read, as joined, by rows and by columns, twice


class SparseStreamed(SparseSums, StreamedObjective):
    """A `StreamedObjective` over blocks of sparse rows; ``fc.StreamedObjective(model, blocks)``
    creates it if the first block is a SciPy sparse matrix.

    Values, gradients and products are computed from the stored entries; in the first layer each
    costs ``2 nnz width`` flops. Proofs make some rows at a time dense, within `memory`.

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
        """Return the number of rows of a block, from the number of entries in the rows of the first
        block.
        """
        X = self._source.first()
        entries = X.nnz / max(1, X.shape[0]) if is_sparse(X) else X.shape[1]
        each = 8 * STATE * sum(self.model.sizes[1:]) + ENTRY * entries
        return max(SMALLEST, int(self._budget / each))

    @property
    def dense_rows(self) -> int:
        """Number of rows that are made dense at a time, for proofs."""
        return max(1, self._budget // (8 * STATE * sum(self.model.sizes)))

    def _taken(self, raw: Any) -> Any:
        return raw if is_sparse(raw) else csr_matrix(as_numpy(raw, "X"))

    def _as_rows(self, X: Any, finite: bool) -> SparseRows:
        if X.shape[1] != self.model.sizes[0]:
            raise ValueError(f"X has shape {X.shape}; wanted (N, {self.model.sizes[0]})")
        return as_rows(X, self.model.dtype, self.n_threads, own=True)

    def _parts(self, part: Any, start: int, block: CHECKED, finite: bool) -> Iterator[Any]:
        """Yield the block in the form that `part` takes: the sparse rows as they are, or some rows
        at a time made dense.
        """
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
