"""The settings and rows of an objective: their checks, the form in which the engine stores rows,
objectives on other rows, and sums over blocks of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import _engine
from ..common.checks import check_bool, check_positive, check_positive_int
from ..common.errors import conversion_hint, type_phrase
from ..common.read_only import read_only_view
from ..structure.tables import LossName, check_loss, loss_spec, unproved_part
from .arguments import (
    check_memory_bytes,
    check_rows_and_targets,
    select_rows,
    zero_unused_large_entries,
)
from .mlp import MLP
from .plans import ObjectivePlans
from .sparse import SparseRows
from .sums import ShardSettings, TreeSum

if TYPE_CHECKING:
    from ..structure.user_functions import Loss

DEFAULT_MEMORY_BYTES = 1 << 28  # default limit of the memory for blocks of rows
MIN_BLOCK_ROWS = 16  # minimum number of rows of a block
# approximate number of entries for each row and unit in the state and the workspace of a product
STATE_ENTRIES_PER_UNIT = 16


class ObjectiveRows(ObjectivePlans):
    """Base class of objectives: the settings, and the rows with their targets and weights."""

    loss: LossName | Loss
    _block_rows: int  # number of rows of a block, of objectives by blocks
    _sparse: bool = False  # True if X is sparse
    # The class `Shard`. Shards are objectives, so the package sets the class.
    _shard_type: ClassVar[Any]
    _whole: Any  # shard of all rows of a sparse X
    _X: Any  # rows, targets and weights in the form that the engine uses
    _untamed: Any = None  # X before `zero_unused_large_entries`, or None if X was not changed
    _y: Any
    _weight: Any
    _unproved: str  # reason why nothing is proved about the model, its activations or the loss
    # attributes that are neither copied nor saved
    _transient: tuple[str, ...] = (
        "_rows",
        "_shares_rows",
        "_plan",
        "_theta",
        "_spare",
        "_lock",
        "_made",
        "_whole",
    )

    def _check_settings(
        self, model: Any, loss: Any, l2: float, l2_biases: bool, n_threads: Any, memory: Any
    ) -> None:
        """Check and store all arguments of the constructor except the rows."""
        if not isinstance(model, MLP):
            raise TypeError(
                f"model must be a fastcurv.MLP, got {type_phrase(model)}.{conversion_hint(model)}"
            )
        loss = check_loss(loss)
        if n_threads is not None:
            n_threads = check_positive_int(n_threads, "n_threads", 2**31 - 1)
        memory = memory if memory is None else check_memory_bytes(memory)
        # Assignments to self, here and in `_check_rows`, would take 11 us more than the 16 us of a
        # small objective.
        attributes = self.__dict__
        attributes["model"] = model
        attributes["loss"] = loss
        attributes["n_threads"] = n_threads
        attributes["memory"] = memory
        attributes["l2"] = check_positive(l2, "l2", zero=True)
        attributes["l2_biases"] = check_bool(l2_biases, "l2_biases")
        attributes["_unproved"] = (
            f"the class {type(model).__name__} of the model is user-defined"
            if type(model) is not MLP
            else unproved_part(model, loss)
            or ("the rows are sparse or come in blocks" if self._by_blocks else "")
        )
        if self._by_blocks and model.batch_norm:
            dense = " of a dense X" if self._sparse else ""
            raise ValueError(
                f"{type(self).__name__} does not support a model with batch normalisation, whose "
                "statistics depend on all rows together. Use a model without it, or an "
                f"Objective{dense}."
            )

    @property
    def X(self) -> Any:
        """The rows ``(N, sizes[0])``: a read-only array, or a new `csr_matrix` of read-only
        arrays.
        """
        return read_only_view(self._X)

    @property
    def y(self) -> Any:
        """The targets, or class labels in int32, as a read-only array."""
        return read_only_view(self._y)

    @property
    def sample_weight(self) -> Any:
        """The weights of the rows as a read-only array, or None."""
        return read_only_view(self._weight)

    def _set_up_rows(self) -> None:
        """Set up the state for the rows of X, y and sample_weight."""
        self._determine_loss_properties()
        if not self._sparse:
            self._adopt_rows(_engine.Rows(*self._engine_arguments()))
            return
        self._set_up_sparse_rows(SparseRows(self._X, self.n_threads))

    def _set_up_sparse_rows(self, rows: Any) -> None:
        """Set up the state for sparse rows, given as `SparseRows`."""
        self._n_samples = self._X.shape[0]
        self._create_process_state()
        self._whole = self._shard_type(self._shard_settings(2), rows, self._y, self._weight)
        self._block_rows = max(MIN_BLOCK_ROWS, min(self.n_samples, self._max_dense_rows))

    def _check_rows(self, X: Any, y: Any, weight: Any) -> None:
        """Check and store the rows, and set up the state for them."""
        X, y, weight = check_rows_and_targets(self.model, self.loss, (X, y, weight), tame=False)
        attributes = self.__dict__
        attributes["_X"] = X
        attributes["_y"] = y
        attributes["_weight"] = weight
        self._zero_unused_rows()
        self._set_up_rows()

    def _adopt_rows(self, rows: Any) -> None:
        """Store the rows in the engine's form, `_engine.Rows`, and set up the process state."""
        # Assignments to self, here and in `_create_process_state`, would take 6 us more than the 12
        # us of a small batch.
        attributes = self.__dict__
        attributes["_rows"] = rows
        attributes["_X"] = rows.X
        attributes["_y"] = rows.y if rows.labels is None else rows.labels
        attributes["_weight"] = rows.weight
        attributes["_n_samples"] = len(rows.X)
        self._create_process_state()

    def _adopt_plan(self, other: Any) -> None:
        """Start with the plan and row buffers of `other`, an objective on the same number of rows,
        which cannot be used afterwards. For small batches, allocating new memory takes longer than
        the arithmetic.
        """
        plan = other._plan
        plan.replace_rows(*self._engine_arguments())
        self._adopt_rows(other._rows)
        self._plan = plan
        self._theta = other._theta
        other._plan = None
        other._rows = None

    def _zero_unused_rows(self) -> None:
        """Set entries of X in rows of weight 0 to 0 if they could make hidden units overflow."""
        X = self._X if self._untamed is None else self._untamed
        self._X = zero_unused_large_entries(self.model, X, self._weight)
        self._untamed = None if self._X is X else X

    def _determine_loss_properties(self) -> None:
        """Determine the properties of a user-defined loss on which the layout of a plan depends."""
        loss_function = loss_spec(self.loss).given
        if loss_function is not None:
            loss_function.determine_properties(self.y, self.model.sizes[-1], self.sample_weight)

    def _engine_arguments(self) -> tuple[Any, ...]:
        """Return X, float targets or None, int32 labels or None, and weights or None for the
        engine.
        """
        labels = self._y if self._y.dtype == np.int32 else None
        return self._X, None if labels is not None else self._y, labels, self._weight

    @property
    def _memory_limit(self) -> int:
        # The remaining tenth is for the heap and the scratch buffers of the threads.
        return (DEFAULT_MEMORY_BYTES if self.memory is None else int(self.memory)) * 9 // 10

    @property
    def _max_dense_rows(self) -> int:
        """The number of sparse rows that can be converted to a dense array at a time within the
        memory limit.
        """
        return self._memory_limit // (8 * STATE_ENTRIES_PER_UNIT * sum(self.model.sizes))

    @property
    def _density(self) -> float:
        """Share of the entries of X that are stored."""
        return self._X.nnz / (self.n_samples * self._X.shape[1]) if self._sparse else 1.0

    def _shard_settings(self, keep: int = 1) -> Any:
        return ShardSettings(self.model, self.loss, self.n_samples, self.n_threads, keep)

    def __getstate__(self) -> dict[str, Any]:
        return self._settings_and_rows()

    def _settings_and_rows(self) -> dict[str, Any]:
        return {name: x for name, x in self.__dict__.items() if name not in self._transient}

    def __setstate__(self, state: Any) -> None:
        """Restore a copy or a pickle. The settings and rows are checked as by the constructor,
        because the engine relies on them.
        """
        self.__dict__.update(state)
        if "_by_blocks" in state:  # set by the constructor for rows in memory
            settings = self.loss, self.l2, self.l2_biases, self.n_threads, self.memory
            self._check_settings(self.model, *settings)
            self._check_rows(self._X, self._y, self._weight)
        else:
            self._set_up_rows()

    def _copy_without_row_state(self, **changed: Any) -> Any:
        """Return a copy with the attributes `changed`, for which the caller must call
        `_set_up_rows`. The constructor would check all rows again.
        """
        other = type(self).__new__(type(self))
        other.__dict__.update(self._settings_and_rows() | changed)
        return other

    def _restrict_to_rows(self, rows: Any) -> Any:
        """Return the objective on a subset of the rows. The caller must call `_set_up_rows`."""
        y, X, weight, untamed = select_rows(rows, self._y, self._X, self._weight, self._untamed)
        y = np.ascontiguousarray(y)
        weight = None if weight is None else np.ascontiguousarray(weight)
        return self._copy_without_row_state(_X=X, _y=y, _weight=weight, _untamed=untamed)

    def _sum_over_shards(self, part: Any, arguments: tuple[Any, ...], dense: bool = True) -> Any:
        """Return the sum of ``part(shard, *arguments)`` over shards of all rows, in order. If
        `dense` is True, X of each shard is an array. Otherwise sparse rows may remain sparse.
        """
        if not dense:
            return part(self._whole, *arguments)
        tree = TreeSum()
        for shard in self._whole.dense_shards(self._block_rows):
            tree.add_part(part(shard, *arguments))
        return tree.total()
