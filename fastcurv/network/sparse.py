"""An objective whose X is sparse: products on the numbers that are there, proofs on blocks of rows
made dense one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._engine import Lock
from ..answers import own_names
from ..certify.arithmetic import norm
from ..certify.bounds import rounding_at
from ..certify.columns import column_bounds
from ..certify.passes import Rounding
from ..protocols import Loss
from ..runtime import to_nearest
from .arguments import as_vector, check_targets, check_weight
from .mlp import MLP
from .objective import Objective
from .shard_bounds import SumBound
from .shard_operators import ShardedCurvature
from .shard_parts import gradient_part, jvp_part, product_part, quadratic_part, value_part, vjp_part
from .shards import Frame, InFrame, Sharded
from .sources import as_source
from .sparse_passes import SparsePlan, SparseRows, as_rows
from .streaming import SMALLEST, StreamedObjective

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
