"""Blocks of sparse rows that are read one by one, none of which is ever made dense as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scipy.sparse import csr_matrix

from ..checks import as_numpy, is_sparse
from .shards import Frame, Shard
from .sparse import FAST, SparseShard, SparseSums
from .sparse_passes import SparseRows, as_rows
from .streaming import CHECKED, SMALLEST, StreamedObjective

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
