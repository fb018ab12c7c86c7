"""An objective over more rows than fit in memory: every sum is one pass over blocks of rows, and
the next block is read while the current one is processed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from .._engine import Lock
from ..common.checks import check_positive_int, is_sparse
from ..common.protocols import library_class
from ..structure.tables import DEFAULT_LOSS, LossName, loss_spec
from .arguments import Block, check_rows_and_targets, row_indices
from .mlp import MLP
from .objective import Objective
from .objective_rows import MIN_BLOCK_ROWS, STATE_ENTRIES_PER_UNIT
from .rows import (
    ArraySource,
    RowSource,
    error_with_location,
    make_row_source,
    regroup_rows,
    stack_blocks,
    take_rows,
)
from .shards import Shard
from .sparse import SparseRows
from .sums import ShardSettings, TreeSum

if TYPE_CHECKING:
    from ..structure.user_functions import Loss

# Bytes of memory for each stored entry of X. The entry is read, joined with other blocks, and
# stored in CSR and CSC order, in two blocks at the same time.
BYTES_PER_SPARSE_ENTRY = 110
CheckedRows = tuple[Any, Any, Any]  # (X, y, sample_weight) in the form that the engine takes


@library_class
class StreamedObjective(Objective):
    """An `Objective` whose rows are read block by block in bounded memory. All functions accept a
    `StreamedObjective` in place of an `Objective`. Sums are equal up to rounding.

    Parameters
    ----------
    model : MLP
        A network without batch normalisation.
    X : array, dataset, path or RowSource
        A memory-mapped array or the path of an ``.npy`` file; a SciPy sparse matrix; an HDF5 or
        zarr dataset, or any object with ``shape``, ``dtype`` and slicing; or a
        `fastcurv.network.rows.RowSource` of your own, whose method ``blocks`` yields ``(X, y,
        sample_weight or None)``. Blocks may be sparse; they are made dense only for diagonals,
        some rows at a time.
    y : array, dataset or path
        As for `Objective`. None if the blocks contain y.
    loss, l2 : str, float
        As for `Objective`.
    sample_weight : array or dataset, optional
        Nonnegative weights, one for each row.
    n_threads : int, optional
        As for `Objective`.
    memory : int, optional
        Bytes for blocks and state together, by default 256 MiB. Not included are vectors and
        results, and what the source itself needs: the chunks of HDF5 and zarr that a block touches.
    l2_biases : bool
        As for `Objective`.
    block_rows : int, optional
        Number of rows of a block; by default as many as fit into `memory`. It determines the order
        of summation, so results for two sizes agree only up to rounding.

    Attributes
    ----------
    n_passes : int
        Passes over all rows so far.
    n_rows_read : int
        Rows read so far.
    block_rows : int
        Number of rows of a block.

    Raises
    ------
    TypeError, ValueError
        If any block holds values that `Objective` rejects (the message gives its row numbers), or
        if a pass yields a different number of rows.

    See Also
    --------
    Objective : For rows that fit in memory.

    Notes
    -----
    A gradient takes one pass over the rows. A product with any number of vectors also takes one
    pass. The state at theta is recomputed, so a product takes about 8 matrix products per layer
    instead of 6. Algorithms that multiply blocks of vectors read the rows less often. While a block
    is processed, another thread reads and checks the next one. If the number of rows is not known
    beforehand, the constructor counts them in a pass of its own.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((1000, 4)), rng.integers(3, size=1000)
    >>> model = fc.MLP([4, 8, 3])
    >>> ob = fc.StreamedObjective(model, X, y, block_rows=100)
    >>> theta = model.init(rng=0)
    >>> bool(np.isclose(ob.value(theta), fc.Objective(model, X, y).value(theta), rtol=1e-14))
    True
    >>> H = ob.hessian(theta)
    >>> w, V = fc.eigsh(H, k=2)
    >>> ob.block_rows, ob.n_shards
    (100, 10)
    >>> sum(batch.n_samples for batch in ob.batches(64, rng))
    1000
    """

    n_passes: int
    n_rows_read: int
    n_shards: int
    block_rows: int
    _source: RowSource
    # {number of rows: shard}, one for full blocks and one for the last block
    _shards: dict[int, Shard]
    _reading: Any
    _by_blocks = True
    _read_only = Objective._read_only | {"block_rows", "n_shards"}
    _transient = (*Objective._transient, "_shards", "_reading")

    def __init__(
        self,
        model: Any,
        X: Any,
        y: Any = None,
        loss: LossName | Loss = DEFAULT_LOSS,
        l2: float = 0.0,
        sample_weight: Any = None,
        n_threads: int | None = None,
        memory: Any = None,
        *,
        l2_biases: bool = True,
        block_rows: int | None = None,
    ) -> None:
        self._check_settings(model, loss, l2, l2_biases, n_threads, memory)
        self._dtype_read = model.dtype
        self._set_source(make_row_source(X, y, sample_weight), block_rows)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in ("X", "y", "sample_weight")]

    def _set_source(self, source: RowSource, block_rows: int | None) -> None:
        """Set up the state for the rows of a source, read in blocks of `block_rows`, or of the
        default size.
        """
        self._source = source
        self._sparse = source.entries is not None
        self.n_passes = self.n_rows_read = 0
        self._set_up_rows()
        self._determine_loss_properties()
        if block_rows is not None:
            block_rows = check_positive_int(block_rows, "block_rows")
        self.block_rows = self._rows_per_block() if block_rows is None else block_rows
        if source.n_rows is None:
            source.n_rows = sum(block[0].shape[0] for _, block, _ in self._iter_checked_blocks())
        self._n_samples = int(source.n_rows)
        if not self._n_samples:
            raise ValueError("X must have at least one row, got 0.")
        self.n_shards = -(-self._n_samples // self.block_rows)

    def _determine_loss_properties(self) -> None:
        """Read a few rows to determine the properties of a user-defined loss that is used for the
        first time, on which the size of a block depends.
        """
        loss_function = loss_spec(self.loss).given
        if loss_function is None or loss_function.is_known:
            return
        blocks = iter(self._source.blocks(MIN_BLOCK_ROWS))
        try:
            block = next(blocks, None)
        finally:
            getattr(blocks, "close", lambda: None)()
        if block is not None:
            self._check_block(block, 0)
            self.n_rows_read += block[0].shape[0]

    def _set_up_rows(self) -> None:
        self._create_process_state()
        self._shards = {}
        self._reading = Lock()

    def __repr__(self) -> str:
        return "Streamed" + super().__repr__()

    def _describe_rows(self) -> str:
        return f", block_rows={self.block_rows}"

    @property
    def _density(self) -> float:
        return self._source.entries / self.model.sizes[0] if self._sparse else 1.0

    # --- blocks

    def _rows_per_block(self) -> int:
        """Return the number of rows per block for which there is memory, both for the state of a
        block with its copy of X and for the next block, which is read at the same time.
        """
        if self._sparse:
            each = (
                8 * STATE_ENTRIES_PER_UNIT * sum(self.model.sizes[1:])
                + BYTES_PER_SPARSE_ENTRY * self._source.entries
            )
            return max(MIN_BLOCK_ROWS, int(self._memory_limit / each))
        fixed, state, read = self._memory_costs()
        n_rows = self._source.n_rows
        rows = int((self._memory_limit - fixed) / (state + read))
        if n_rows is not None and n_rows <= rows:
            return int(n_rows)
        while rows > MIN_BLOCK_ROWS:
            last = rows if n_rows is None else n_rows % rows  # number of rows of the last block
            if (
                fixed * (1 + (last > 0)) + rows * (state + read) + last * state
                <= self._memory_limit
            ):
                break
            rows = int(0.98 * rows)
        return max(MIN_BLOCK_ROWS, rows)

    def _memory_costs(self) -> tuple[float, float, float]:
        """Return three sizes in bytes: the part of a block that does not depend on its number of
        rows; the state and the padded copy of X for each row; and twice the size of X and y as
        read, for each row.
        """
        model = self.model
        size = model.dtype.itemsize
        plans = []
        few = 512
        while few > 64 and 4 * 2 * few * sum(model.sizes) * size > self._memory_limit:
            few //= 2  # the trial plans must also fit in memory
        for n in (few, 2 * few):
            X, y = (
                np.zeros((n, width), model.dtype) for width in model.sizes[:: len(model.shapes)]
            )
            plan = Shard(ShardSettings(model, self.loss, n, self.n_threads), X, y, None)._new_plan()
            plans.append(plan.nbytes)
        state = max(0.0, (plans[1] - plans[0]) / few)
        read = 2 * (model.sizes[0] + model.sizes[-1]) * max(size, 8)
        copy = (model.sizes[0] + 8) * size
        return max(0.0, plans[0] - few * state), state + copy, read

    def _check_block(self, block: Block, start: int, tame: bool = True) -> CheckedRows:
        """Check a raw block that begins at row `start`, and return it in the engine's form. Errors
        name the rows. The option `tame` is that of `check_rows_and_targets`.
        """
        try:
            X, y, weight = block
            if self._sparse:
                X = csr_matrix(X)
            elif is_sparse(X):
                X = X.toarray()
            checked = check_rows_and_targets(
                self.model, self.loss, (X, y, weight), self._dtype_read, tame
            )
        except (ValueError, TypeError) as error:
            raise error_with_location(
                error, f"rows {start} to {start + block[0].shape[0] - 1}"
            ) from None
        return (SparseRows(checked[0], self.n_threads), *checked[1:]) if self._sparse else checked

    def _iter_prefetched_blocks(
        self, raw: Iterator[Block], check: Callable[[Block, int], CheckedRows]
    ) -> Generator[tuple[int, CheckedRows, Callable[[], None]], None, None]:
        """Yield, for each raw block of one pass, the number of its first row, the result of
        ``check(block, first row)``, and a function. The function starts reading the next block. The
        caller must call it when the previous block is no longer in use.
        """
        size = 0

        def read() -> tuple[int, CheckedRows] | None:
            nonlocal size
            block = next(raw, None)
            if block is None:
                return None
            start = size
            size += block[0].shape[0]
            return start, check(block, start)

        with ThreadPoolExecutor(1, "fastcurv-reader") as reader:
            coming: Any = reader.submit(read)

            def ahead() -> None:
                nonlocal coming
                coming = coming or reader.submit(read)

            while (checked := coming.result()) is not None:
                coming = None
                yield *checked, ahead
                ahead()
        self.n_passes += 1
        self.n_rows_read += size
        n_rows = self._source.n_rows
        if n_rows is not None and size != n_rows:
            raise ValueError(
                f"X must have the same rows in every pass, got {size} rows instead of {n_rows}."
            )

    def _iter_checked_blocks(
        self,
    ) -> Generator[tuple[int, CheckedRows, Callable[[], None]], None, None]:
        """Yield the results of `_iter_prefetched_blocks` for the blocks in their order, which is
        the same in every pass.
        """
        raw = self._source.blocks(self.block_rows)
        # The blocks of an `ArraySource` have this size, and are parts of arrays that were checked.
        if not isinstance(self._source, ArraySource):
            raw = regroup_rows(raw, self.block_rows)
        yield from self._iter_prefetched_blocks(raw, self._check_block)

    def _iter_block_shards(self, start: int, block: CheckedRows, dense: bool) -> Iterator[Shard]:
        """Yield the shards of a block that begins at row `start`. Usually there is one shard, which
        reuses the memory of an earlier shard with the same number of rows. Sparse rows are split
        into several shards, depending on `memory`, if `dense` is True.
        """
        X, y, weight = block
        if self._sparse:
            entries = Shard(self._shard_settings(), X, y, weight, start)
            yield from entries.dense_shards(max(1, self._max_dense_rows)) if dense else (entries,)
            return
        shard = self._shards.pop(len(X), None)
        if shard is None:
            shard = Shard(self._shard_settings(), X, y, weight, start)
        else:
            shard = shard.refill(X, y, weight, start)
        self._shards[len(X)] = shard
        yield shard

    def _sum_over_shards(self, part: Any, arguments: tuple[Any, ...], dense: bool = True) -> Any:
        """Return the sum over all blocks, in order, of ``part(shard, *arguments)``. The cost is one
        pass over the rows. If `dense` is True, sparse rows are made dense, some at a time.
        """
        tree = TreeSum()
        with self._reading, closing(self._iter_checked_blocks()) as blocks:
            for start, block, ahead in blocks:
                for shard in self._iter_block_shards(start, block, dense):
                    ahead()
                    tree.add_part(part(shard, *arguments))
        return tree.total()

    # --- other objectives of the same rows

    def _with_model(self, model: MLP) -> StreamedObjective:  # type: ignore[override]
        """Return the objective of another model on the same rows."""
        other: StreamedObjective = self._copy_without_row_state(model=model)
        del vars(other)["block_rows"], vars(other)["n_shards"]  # `_set_source` sets both
        other._set_source(self._source, self.block_rows)
        return other

    def batch(self, rows: Any) -> Any:
        """Return the `Objective` of the rows that a slice, indices or a mask select, in memory."""
        each, back = np.unique(row_indices(rows, self.n_samples), return_inverse=True)
        block = self._source.take_rows(each)
        self.n_rows_read += len(each)
        return self._load_block(take_rows(block, back))

    def _load_block(self, block: Any) -> Objective:
        # The constructor of `Objective` keeps the large entries of rows of weight 0.
        X, y, weight = self._check_block(block, 0, tame=False)
        return Objective(
            self.model,
            X.X if self._sparse else X,
            y,
            self.loss,
            self.l2,
            weight,
            self.n_threads,
            l2_biases=self.l2_biases,
        )

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Objective]:
        """Yield objectives on batches of `size` rows in memory that cover every row once (one
        epoch). The last batch may be smaller.

        Blocks are read once each, in random order if X can be sliced and in their own order
        otherwise. Rows are shuffled within two consecutive blocks. The same `rng` gives the same
        batches.

        Yields
        ------
        Objective
            The objective on the rows of a batch.
        """
        held: Any = None
        for _, block, ahead in self._iter_prefetched_blocks(
            self._source.shuffled_blocks(self.block_rows, rng), lambda block, _: block
        ):
            ahead()
            held = block if held is None else stack_blocks([held, block])
            order = rng.permutation(held[0].shape[0])
            start = 0
            # Half a block is kept for the next permutation.
            last = held[0].shape[0] - self.block_rows // 2
            while start + size <= last:
                yield self._load_block(take_rows(held, order[start : start + size]))
                start += size
            held = take_rows(held, order[start:])
        if held is not None:
            for start in range(0, held[0].shape[0], size):
                yield self._load_block(take_rows(held, slice(start, start + size)))
