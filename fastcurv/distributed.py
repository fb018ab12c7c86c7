"""An objective whose rows are distributed over several machines, in the workers of a Dask
cluster.

The rows are divided into shards. Every shard is loaded by a task on a worker and stays there with
its state at theta. All quantities that algorithms need are sums over shards, so theta is sent once
for each point, vectors are sent in blocks, and sums are formed by a tree of fixed shape. Results
are therefore bitwise the same for any number of workers, and after workers have been lost. A task
that is lost with its worker runs again on another worker, and a lost shard is loaded again there.

The cost of a product, for K shards on W workers, n parameters, k vectors at a time and s bytes per
number: about ``8 N sum(in out) k`` multiply-adds over all workers, or 6 instead of 8 if the state
at theta is still stored; at most ``W n k s`` bytes sent and ``(W + K / 8) n k 8`` bytes returned;
``K + K / 7`` tasks.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _engine
from .common.checks import is_iterable, random_batches
from .common.errors import type_phrase, warn_caller
from .common.optional import optional_import
from .common.protocols import library_class
from .network.arguments import Block, check_rows_and_targets, row_indices
from .network.mlp import MLP
from .network.objective import Objective as AnyObjective
from .network.rows import error_with_location, take_rows
from .network.shards import Shard
from .network.sums import TREE_ARITY, ShardSettings, sum_parts
from .structure.tables import DEFAULT_LOSS, LossName

if TYPE_CHECKING:
    from .structure.user_functions import Loss

# --------------------------------------------------------------------------------------------------
# Shards on Dask workers: the loading of their rows, and the tasks that run there.


@dataclass(frozen=True)
class ShardRecipe:
    """The instructions by which a worker loads the rows of a shard.

    Attributes
    ----------
    number : int
        The number of the shard.
    source : callable or None
        A function that returns the rows; None if the rows are the result of another task.
    stored : dtype
        The dtype that numbers are cast to before they are cast to that of the model.
    """

    number: int
    source: Any
    stored: Any

    def load_rows(self, model: MLP, loss: Any, given: Any = None) -> Block:
        """Return X, y and sample_weight in the form that the engine requires. The rows come from
        the source or, if there is none, from `given`, the result of another task.
        """
        try:
            raw = given if self.source is None else self.source()
            if not isinstance(raw, (tuple, list)) or not 2 <= len(raw) <= 3:
                raise TypeError(
                    f"the rows must be (X, y) or (X, y, sample_weight), got {type_phrase(raw)}."
                )
            return check_rows_and_targets(model, loss, (*raw, None)[:3], self.stored)
        except (ValueError, TypeError, OSError) as error:
            raise error_with_location(error, f"shard {self.number}") from None


@library_class
class RemoteShard(Shard):
    """A shard on a worker. When a shard is moved to another worker, the rows are not sent but
    loaded again by that worker, unless they are the result of another task.
    """

    recipe: ShardRecipe

    def __init__(self, recipe: ShardRecipe, *of_rows: Any) -> None:
        super().__init__(*of_rows)
        self.recipe = recipe

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.recipe.source is None:
            return super().__reduce_ex__(protocol)
        return load_shard, (self.recipe, self.frame, self.first)

    def __sizeof__(self) -> int:
        state = 6 * len(self.X) * sum(self.model.sizes) * self.model.dtype.itemsize
        return int(2 * self.X.nbytes + self.y.nbytes + self.frame.keep * state)


# --- tasks
# --------------------------------------------------------------------------------------------------


def load_shard(
    recipe: ShardRecipe, frame: ShardSettings, first: int, given: Any = None
) -> RemoteShard:
    X, y, weight = recipe.load_rows(frame.model, frame.loss, given)
    return RemoteShard(recipe, frame, X, y, weight, first)


def rebuild_shard(
    shard: RemoteShard, frame: ShardSettings, first: int, rows: Any = None
) -> RemoteShard:
    """Return a shard with the rows of another shard, or with those at the indices `rows`, for an
    objective with the settings `frame`, which may have another model or precision. `first` is the
    position of its first row among all rows.
    """
    block = (shard.X, shard.y, shard.sample_weight)
    recipe = shard.recipe
    if rows is not None:
        block = take_rows(block, rows)
        recipe = replace(recipe, source=None)
    X, y, weight = (
        a if a is None or a.dtype == np.int32 else a.astype(frame.model.dtype, copy=False)
        for a in block
    )
    return RemoteShard(recipe, frame, X, y, weight, first)


def row_count_and_arch(shard: RemoteShard) -> tuple[int, str]:
    return shard.n_samples, _engine.chosen_arch()


def return_argument(x: Any) -> Any:
    return x


def call_on_shard(shard: RemoteShard, part: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``part(shard, *arguments)``. Arrays are aligned first, since arrays from a message may
    be unaligned.
    """
    return part(
        shard, *(np.require(a, None, "A") if isinstance(a, np.ndarray) else a for a in arguments)
    )


# minimum size in bytes of an array that is sent once, as a separate task
SEPARATE_TASK_MIN_BYTES = 1 << 12
MAX_STATES_PER_SHARD = 2  # maximum number of points theta whose state a shard keeps
__all__ = ["Objective"]


@library_class
class Objective(AnyObjective):
    """A `fastcurv.Objective` over shards of rows held by Dask workers.

    Parameters
    ----------
    model : MLP
        A network without batch normalisation.
    shards : sequence
        One element for each shard: a function without arguments that returns ``(X, y)`` or ``(X, y,
        sample_weight)``, or a future or delayed value of such a tuple. For good balance use at
        least as many shards as the workers have threads, of about equal size.
    loss, l2, l2_biases
        As for `fastcurv.Objective`.
    client : distributed.Client, str, optional
        A client, or the address of a scheduler. Default: the current default client if there is
        one, else workers on this machine, which no other machine can reach.
    n_threads : int, optional
        Threads of each task. Default: 1, since workers run as many tasks as they have threads.

    Attributes
    ----------
    client : distributed.Client
        The client in use.
    n_shards, n_samples : int
        Numbers of shards and of rows.
    kernels : tuple of str
        The kernel sets that the workers use. If there is more than one, the rounding of results
        depends on the worker of each task.

    Raises
    ------
    ImportError
        If the extra ``dask`` is not installed.
    TypeError, ValueError
        For shards given as arrays, because workers load the rows themselves, and for data that
        `fastcurv.Objective` rejects. The message gives the number of the shard.
    ConnectionError
        From any sum, if the connection to the scheduler is lost or a task has killed several
        workers. The objective is unusable afterwards. `minimize` saves its checkpoint first.

    Notes
    -----
    Results agree with those of `fastcurv.Objective` on all rows to about 1e-13, and are bitwise the
    same for any number of workers and threads. If a worker is lost, its shards are loaded again by
    other workers. A worker that joins gets only shards of lost workers. `close` releases the shards
    and ends workers that this class has started.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> def shard(number):
    ...     rng = np.random.default_rng(number)
    ...     return rng.standard_normal((100, 4)), rng.integers(3, size=100)
    >>> from functools import partial
    >>> from dask.distributed import Client  # doctest: +SKIP
    >>> ob = fc.distributed.Objective(
    ...     fc.MLP([4, 8, 3]), [partial(shard, i) for i in range(8)], client=Client()
    ... )  # doctest: +SKIP
    >>> fc.eigsh(ob.hessian(ob.model.init(rng=0)), k=2).values  # doctest: +SKIP
    """

    client: Any
    n_shards: int
    kernels: tuple[str, ...]
    _frame: ShardSettings
    _read_only = AnyObjective._read_only | {"client", "kernels"}
    _by_blocks = True

    def __init__(
        self,
        model: Any,
        shards: Sequence[Any],
        loss: LossName | Loss = DEFAULT_LOSS,
        l2: float = 0.0,
        *,
        client: Any = None,
        n_threads: int | None = 1,
        l2_biases: bool = True,
    ) -> None:
        self._check_settings(model, loss, l2, l2_biases, n_threads, None)
        sources = _check_shards(shards)
        self.client, self._own = _get_or_create_client(client)
        if self._own:
            weakref.finalize(self, self.client.close)
        recipes = [
            ShardRecipe(i, None if _is_task(s) else s, model.dtype) for i, s in enumerate(sources)
        ]
        frame = ShardSettings(model, loss, 1, self.n_threads, MAX_STATES_PER_SHARD)
        with _translate_errors():
            futures = [self.client.compute(s) if hasattr(s, "dask") else s for s in sources]
            given = [s if _is_task(s) else None for s in futures]
            self._load_shards(recipes, given, frame)

    def _load_shards(
        self, recipes: list[ShardRecipe], given: list[Any], frame: ShardSettings
    ) -> None:
        """Load every shard by a task on a worker. After all rows have been counted, send each shard
        the position of its first row.
        """
        count = len(recipes)
        loaded = self.client.map(
            load_shard, recipes, [frame] * count, [0] * count, given, pure=False
        )
        known = self.client.gather(self.client.map(row_count_and_arch, loaded, pure=False))
        self.kernels = tuple(sorted({arch for _, arch in known}))
        if len(self.kernels) > 1:
            warn_caller(
                f"workers should have the same kernels for reproducible results, got "
                f"{', '.join(self.kernels)}. Set FASTCURV_ARCH to one of them on all workers.",
                UserWarning,
            )
        self._set_shards(loaded, [n for n, _ in known], frame)

    def _set_shards(
        self, shards: list[Any], sizes: list[int], frame: ShardSettings, *rows: list[Any]
    ) -> None:
        """Set up the objective over the given shards, or over the given `rows` of each shard. All
        shards are rebuilt with the settings `frame` and their position among all rows.
        """
        self._n_samples = sum(sizes)
        frame = replace(frame, n_samples=self._n_samples)
        self.n_shards = len(sizes)
        self._frame = frame
        self._sizes = sizes
        self._firsts = np.cumsum([0, *sizes[:-1]]).tolist()
        frames = [frame] * len(sizes)
        self._sent: list[tuple[Any, Any]] = []
        with _translate_errors():
            self._shards = self.client.map(
                rebuild_shard, shards, frames, self._firsts, *rows, pure=False
            )
        self._create_process_state()

    def _set_up_rows(self) -> None:
        """Set up a copy, which uses the shards of the original but does not own the client."""
        self._own = False
        self._create_process_state()

    def __repr__(self) -> str:
        return f"distributed.{super().__repr__()[:-1]}, shards={self.n_shards})"

    def __getstate__(self) -> Any:
        raise TypeError(
            "a distributed.Objective cannot be copied or saved, since its shards belong to its "
            "client. Save its model and theta with fastcurv.save."
        )

    def __enter__(self) -> Objective:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: Any, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the shards, and end the workers if this objective started them."""
        self._shards = []
        self._sent = []
        if self._own:
            self.client.close()
            cluster = getattr(self.client, "cluster", None)
            if cluster is not None:
                cluster.close()

    # --- sums

    def _sum_over_shards(self, part: Any, arguments: tuple[Any, ...], dense: bool = True) -> Any:
        """Return the sum over shards, by a tree of tasks, of ``part(shard, *arguments)``."""
        if not self._shards:
            raise ValueError("the objective is closed and has no shards. Create a new objective.")
        with _translate_errors():
            sent = [[self._scatter(a)] * self.n_shards for a in arguments]
            level = self.client.map(
                call_on_shard, self._shards, [part] * self.n_shards, *sent, pure=False
            )
            while len(level) > 1:
                groups = [level[i : i + TREE_ARITY] for i in range(0, len(level), TREE_ARITY)]
                level = self.client.map(sum_parts, groups, pure=False)
            return _copy_arrays(level[0].result())

    def _scatter(self, x: Any) -> Any:
        """Return a task whose result is the array x, or x itself if it is not an array or has less
        than `SEPARATE_TASK_MIN_BYTES`. The task of a read-only array that was sent recently is used
        again. Arguments of tasks survive the loss of workers, while scattered data do not.
        """
        if not isinstance(x, np.ndarray) or x.nbytes < SEPARATE_TASK_MIN_BYTES:
            return x
        for known, future in self._sent:
            if known is x:
                return future
        import dask

        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            future = self.client.submit(return_argument, x, pure=False)
        # The points theta of operators are read-only arrays. Later sums over the shards at the same
        # theta, for a gradient or for products, use the task again. The contents of a writable
        # array may change, so its task is not kept.
        if not x.flags.writeable:
            self._sent = [(x, future), *self._sent[:1]]
        return future

    # --- other objectives on the same rows

    def _with_model(self, model: MLP) -> Objective:  # type: ignore[override]
        """Return the objective of another model on the same rows."""
        other: Objective = self._copy_without_row_state(model=model)
        other._set_up_rows()
        other._set_shards(self._shards, self._sizes, replace(self._frame, model=model))
        return other

    def batch(self, rows: Any) -> Objective:
        """Return the objective on the rows that a slice, indices or a mask select. The rows stay on
        their workers, and are in the order of the shards.
        """
        numbers = np.sort(row_indices(rows, self.n_samples))
        shard = np.searchsorted(np.cumsum(self._sizes), numbers, side="right")
        firsts = np.cumsum([0, *self._sizes])
        touched = np.unique(shard).tolist()
        picked = [numbers[shard == i] - firsts[i] for i in touched]
        other: Objective = self._copy_without_row_state()
        other._set_up_rows()
        shards = [self._shards[i] for i in touched]
        other._set_shards(shards, [len(p) for p in picked], self._frame, picked)
        return other

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Objective]:
        """Yield objectives on batches of `size` rows that cover every row once, in a random order
        drawn from `rng`. The last batch may be smaller.
        """
        for rows in random_batches(self.n_samples, size, rng):
            yield self.batch(rows)


def _copy_arrays(found: Any) -> Any:
    """Return the result `found` with copies of its arrays, which the caller may modify. An array
    from a message may be read-only, and an array of this process may belong to another task.
    """
    if isinstance(found, tuple):
        return tuple(_copy_arrays(x) for x in found)
    return found.copy() if isinstance(found, np.ndarray) else found


def _is_task(x: Any) -> bool:
    """Return True if x is a Dask future or a delayed value."""
    return hasattr(x, "key") and (hasattr(x, "client") or hasattr(x, "dask"))


def _check_shards(shards: Any) -> list[Any]:
    if isinstance(shards, (str, bytes, Path)) or not is_iterable(shards):
        raise TypeError(f"shards must be a sequence of shards, got {type_phrase(shards)}.")
    shard_list = list(shards)
    if not shard_list:
        raise ValueError("shards must hold at least one shard, got an empty list.")
    for i, one in enumerate(shard_list):
        if not (_is_task(one) or callable(one)):
            raise TypeError(
                f"shard {i} must be a function that loads it on a worker, or a future, got "
                f"{type_phrase(one)}."
            )
    return shard_list


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Translate errors of Dask into a ConnectionError with a clear message if workers or the
    scheduler are lost.
    """
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    try:
        yield
    except (CancelledError, CommClosedError) as error:
        raise ConnectionError(
            "the connection to the scheduler of Dask was lost, and with it the shards on its "
            "workers. Start a scheduler, and create the objective again."
        ) from error
    except KilledWorker as error:
        raise ConnectionError(
            f"a task ended its workers ({error.last_worker} was the last), which happens if their "
            "memory is too small. Use workers with more memory, or smaller shards."
        ) from error


def _get_or_create_client(client: Any) -> tuple[Any, bool]:
    """Return a client of Dask, and True if this function created the client."""
    with optional_import("distributed objectives"):
        from distributed import Client, default_client

    if client == "":
        raise ValueError("client must be a Client, the address of a scheduler, or None, got ''.")
    if client is not None and not isinstance(client, str):
        return client, False
    try:
        if isinstance(client, str):
            return Client(client), True
        try:
            return default_client(), False
        except ValueError:
            # No client exists. The dashboard of a local cluster would listen on all addresses by
            # default.
            return Client(dashboard_address="127.0.0.1:0"), True
    except RuntimeError as error:
        raise OSError(f"Dask cannot be started or reached: {error}") from error
