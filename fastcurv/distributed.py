"""An objective whose rows lie on several machines, as workers of Dask hold them.

Rows are sharded: every shard is loaded by a task on a worker and stays there with its state at
theta. What an algorithm asks for is a sum over shards, so theta goes out once for a point, vectors
go out in blocks, and sums come back by a tree of fixed shape: the same bits for any number of
workers, and after the loss of some. A task that was lost with its worker runs again on another, a
shard that was lost is loaded again there.

What a product costs, for K shards on W workers, n parameters, k vectors at a time, s bytes a
number: about ``8 N sum(in out) k`` multiply-adds over all workers, 6 of the 8 where the state at
theta is still there; ``W n k s`` bytes out and ``(W + K / 8) n k 8`` bytes back at most;
``K + K / 7`` tasks. `benchmarks/workers.py` measures the parts and extrapolates them.
"""

from __future__ import annotations

import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from . import _engine
from .common.checks import as_numpy, caller_depth
from .common.protocols import Loss
from .network.arguments import check_targets, check_weight
from .network.mlp import MLP
from .network.rows import as_source
from .network.sharded import Frame, Shard, Sharded
from .network.tree_sum import FAN, total

# --------------------------------------------------------------------------------------------------
# Shards on the workers of Dask: how each gets its rows, and the tasks that run there.


@dataclass(frozen=True)
class Recipe:
    """How a worker gets the rows of a shard.

    Attributes
    ----------
    number : int
        Of the shard.
    source : callable, str or Path
        None where the rows come from another task.
    y, sample_weight, columns
        Names of columns of a Parquet file.
    stored : dtype
        In which numbers are taken before they are cast to that of the model.
    """

    number: int
    source: Any
    y: Any
    sample_weight: Any
    columns: Any
    stored: Any

    def rows(self, model: MLP, loss: str, given: Any = None) -> tuple[Any, Any, Any]:
        """X, y and sample_weight as the engine wants them."""
        try:
            raw = given if self.source is None else self._read()
            if not isinstance(raw, (tuple, list)) or not 2 <= len(raw) <= 3:
                raise TypeError(
                    f"it is a {type(raw).__name__}; wanted (X, y) or (X, y, sample_weight)"
                )
            names = ("X", "y", "sample_weight")
            parts = [
                None if a is None else _engine.in_memory(as_numpy(a, name), name)
                for a, name in zip(raw, names)
            ]
            if self.stored != model.dtype:
                classes = loss == "cross_entropy" and parts[1] is not None and parts[1].ndim == 1
                parts = [
                    a if a is None or (classes and i == 1) else a.astype(self.stored)
                    for i, a in enumerate(parts)
                ]
            X = model.check_rows(parts[0])
            weight = parts[2] if len(parts) == 3 else None
            return (
                X,
                check_targets(parts[1], len(X), model, loss),
                check_weight(weight, len(X), model.dtype),
            )
        except (ValueError, TypeError, OSError) as error:
            raise _in_shard(error, self.number) from None

    def _read(self) -> Any:
        if callable(self.source):
            return self.source()
        path = Path(self.source)
        if path.suffix == ".npz":
            with np.load(path) as held:
                for name in ("X", "y"):
                    if name not in held:
                        raise ValueError(f"the file {path.name} has no {name}; wanted X and y")
                return tuple(held[n] for n in ("X", "y", "sample_weight") if n in held)
        source: Any = as_source(path, self.y, self.sample_weight, self.columns)
        if source.n_rows == 0:
            raise ValueError(f"the file {path.name} has no rows; wanted at least one")
        return next(source.blocks(source.n_rows))


def _in_shard(error: Exception, number: int) -> Exception:
    """The same error with the number of the shard, as far as its class takes a sentence."""
    text = f"in shard {number}: {error}"
    try:
        return type(error)(text)
    except Exception:  # of a class that wants more arguments
        kinds = (ValueError, TypeError, OSError)
        return next(kind for kind in kinds if isinstance(error, kind))(text)


class Placed(Shard):
    """A shard on a worker. Sent elsewhere, it is loaded there; its rows are not."""

    recipe: Recipe

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.recipe.source is None:
            return super().__reduce_ex__(protocol)
        return load_shard, (self.recipe, self.frame, self.first)

    def __sizeof__(self) -> int:
        state = 6 * len(self.X) * sum(self.model.sizes) * self.model.dtype.itemsize
        return int(2 * self.X.nbytes + self.y.nbytes + self.frame.keep * state)


# --- tasks
# --------------------------------------------------------------------------------------------------


def load_shard(recipe: Recipe, frame: Frame, first: int, given: Any = None) -> Placed:
    X, y, weight = recipe.rows(frame.model, frame.loss, given)
    shard = Placed(frame, X, y, weight, first)
    shard.recipe = recipe
    return shard


def in_frame(shard: Placed, frame: Frame, first: int) -> Placed:
    """The same rows as part of another whole, or in another precision."""

    def cast(a: Any) -> Any:
        return a if a is None or a.dtype == np.int32 else a.astype(frame.model.dtype, copy=False)

    other = Placed(frame, cast(shard.X), cast(shard.y), cast(shard.sample_weight), first)
    other.recipe = shard.recipe
    return other


def some_rows(shard: Placed, rows: np.ndarray, frame: Frame, first: int) -> Placed:
    """Some rows of a shard."""
    weight = None if shard.sample_weight is None else shard.sample_weight[rows]
    other = Placed(frame, shard.X[rows], shard.y[rows], weight, first)
    other.recipe = replace(shard.recipe, source=None)
    return other


def rows_and_kernels(shard: Placed) -> tuple[int, str]:
    return shard.n_samples, _engine.chosen_arch()


def echo(x: Any) -> Any:
    return x


def ask(shard: Placed, part: Callable[..., Any], *arguments: Any) -> Any:
    """A part of a shard, of arguments as they came: out of a message, at any address."""
    return part(
        shard, *(np.require(a, None, "A") if isinstance(a, np.ndarray) else a for a in arguments)
    )


Places = dict[str, int]  # workers' addresses: their threads

SENT = 1 << 12  # bytes of an array from which it goes out by itself, once
KEEP = 2  # points whose state a shard keeps
LOOK = 1.0  # seconds from one look at who the workers are to the next
__all__ = ["Objective"]


class Objective(Sharded):
    """`fastcurv.Objective` over shards of rows that workers of Dask hold.

    Parameters
    ----------
    model : MLP
        Without batch normalisation.
    shards : sequence
        One for each shard: a function without arguments that returns ``(X, y)`` or ``(X, y,
        sample_weight)``; a path, as workers see it, of an ``.npz`` file with those names or of a
        Parquet file; or a future or delayed value of such a tuple. At least as many as there are
        threads of workers, of about the same size.
    loss, l2, l2_biases
        As for `fastcurv.Objective`.
    client : distributed.Client, str, optional
        A client, or the address of a scheduler. Default: the client of this program where it has
        one, else workers on this machine, which no other machine can reach.
    n_threads : int, optional
        Of each task. Default: 1, since workers run as many tasks as they have threads.
    y, sample_weight, columns : optional
        Names of columns of Parquet files; see `fastcurv.StreamedObjective`.

    Attributes
    ----------
    client : distributed.Client
    n_shards, n_samples : int
    kernels : tuple of str
        The tables of kernels of the workers: more than one, and bits depend on where a task runs.

    Raises
    ------
    ImportError
        Without the extra ``dask``.
    TypeError, ValueError
        For shards that hold arrays (rows are loaded by workers and not sent there), and for what
        `fastcurv.Objective` refuses, with the number of the shard.
    ConnectionError
        From any sum, where the scheduler is gone or a task has ended several workers: the objective
        is of no use then. `minimize` saves its checkpoint before.

    Notes
    -----
    Results are those of `fastcurv.Objective` on all rows to about 1e-13, and bit for bit the same
    for any number of workers and threads. The loss of a worker costs the time to load its shards
    again; one that joins is given its share of them at the next product. `close` ends what was
    started here.

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
    >>> fc.eigsh(ob.hessian(ob.model.init(seed=0)), k=2).values  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        shards: Sequence[Any],
        loss: Loss = "cross_entropy",
        l2: float = 0.0,
        *,
        client: Any = None,
        n_threads: int | None = 1,
        l2_biases: bool = True,
        y: Any = None,
        sample_weight: Any = None,
        columns: Any = None,
    ) -> None:
        self._settings(model, loss, l2, l2_biases, n_threads, None)
        sources = _check_shards(shards)
        self.client, self._own = _client(client)
        if self._own:
            weakref.finalize(self, self.client.close)
        recipes = [
            Recipe(i, None if _is_task(s) else s, y, sample_weight, columns, model.dtype)
            for i, s in enumerate(sources)
        ]
        frame = Frame(model, loss, 1, self.n_threads, KEEP)
        with _answered():
            given = [_future(s, self.client) if _is_task(s) else None for s in sources]
            self._place(recipes, given, frame)

    def _place(self, recipes: list[Recipe], given: list[Any], frame: Frame) -> None:
        """Load every shard, neighbours side by side; then, when all rows are counted, tell each
        what the whole is.
        """
        submit, homes = self.client.submit, self._homes(len(recipes))
        loaded = [
            submit(load_shard, r, frame, 0, g, pure=False, workers=home, allow_other_workers=True)
            if home
            else submit(load_shard, r, frame, 0, g, pure=False)
            for r, g, home in zip(recipes, given, homes)
        ]
        known = self.client.gather(self.client.map(rows_and_kernels, loaded, pure=False))
        self._unpin(loaded)
        self.kernels = tuple(sorted({arch for _, arch in known}))
        if len(self.kernels) > 1:
            warnings.warn(
                f"workers have different kernels ({', '.join(self.kernels)}), so bits depend on "
                "where a task runs; set FASTCURV_ARCH to one of them for all",
                UserWarning,
                stacklevel=caller_depth(),
            )
        self._over(loaded, [n for n, _ in known], frame, in_frame)

    def _over(
        self, shards: list[Any], sizes: list[int], frame: Frame, make: Any, *each: list[Any]
    ) -> None:
        """Be the objective over these, made anew as parts of one whole."""
        self._n_samples, self.n_shards = sum(sizes), len(sizes)
        frame = replace(frame, n_samples=self._n_samples)
        firsts = np.cumsum([0, *sizes[:-1]]).tolist()
        frames = [frame] * len(sizes)
        self.frame, self._sizes = frame, sizes
        self._shards = self.client.map(make, shards, *each, frames, firsts, pure=False)
        self._firsts = firsts
        self._sent: list[tuple[Any, Any]] = []
        self._moved: list[int] = []  # shards that were sent elsewhere for this sum
        self._workers, self._looked = frozenset(self.client.nthreads()), time.monotonic()
        self._start()

    def _homes(self, count: int) -> list[Any]:
        """A worker for each shard: neighbours together, as many as it has threads for."""
        threads = sorted(self.client.nthreads().items())
        places = [address for address, n in threads for _ in range(n)]
        return [places[i * len(places) // count] if places else None for i in range(count)]

    def __repr__(self) -> str:
        return f"distributed.{super().__repr__()[:-1]}, shards={self.n_shards})"

    def __getstate__(self) -> Any:
        raise TypeError(
            "a distributed.Objective lives with its client and cannot be copied or saved; wanted "
            "its model and theta: fastcurv.save"
        )

    def __enter__(self) -> Objective:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: Any, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the shards, and end the workers where they were started here."""
        self._shards, self._sent = [], []
        if self._own:
            self.client.close()
            cluster = getattr(self.client, "cluster", None)
            if cluster is not None:
                cluster.close()

    def _settle(self) -> None:
        """Shards for workers that joined since the last look: each then holds its share, by
        threads. What moves is loaded again where it goes; the sums' order stays.
        """
        if time.monotonic() - self._looked < LOOK:
            return
        threads, self._looked = self.client.nthreads(), time.monotonic()
        joined = set(threads) - self._workers
        self._workers = frozenset(threads)
        if not joined:
            return
        held = self.client.who_has(self._shards)
        owners = [next(iter(held.get(shard.key, ())), None) for shard in self._shards]
        for i, home in moves(owners, threads).items():
            self._moved.append(i)
            self._shards[i] = self.client.submit(
                in_frame,
                self._shards[i],
                self.frame,
                self._firsts[i],
                pure=False,
                workers=[home],
                allow_other_workers=True,
            )

    # --- sums

    def _fold(self, part: Any, arguments: tuple[Any, ...]) -> Any:
        """The sum over shards, by a tree of tasks, of ``part(shard, *arguments)``."""
        if not self._shards:
            raise ValueError("the objective is closed; wanted one that holds its shards")
        with _answered():
            self._settle()
            sent = [[self._send(a)] * self.n_shards for a in arguments]
            parts = [part] * self.n_shards
            level = self.client.map(ask, self._shards, parts, *sent, pure=False)
            while len(level) > 1:
                groups = [level[i : i + FAN] for i in range(0, len(level), FAN)]
                level = self.client.map(total, groups, pure=False)
            found = level[0].result()
            moved, self._moved = self._moved, []
            self._unpin([self._shards[i] for i in moved])
        return _owned(found)

    def _unpin(self, futures: list[Any]) -> None:
        """Let tasks that are done run again anywhere. Where all workers were lost at once, the
        scheduler would wait for those that were named, whatever others come.
        """
        if futures:
            free: dict[Any, list[str]] = {future.key: [] for future in futures}
            self.client.sync(self.client.scheduler.set_restrictions, worker=free)

    def _send(self, x: Any) -> Any:
        """A task that holds a long array, the one of last time where it is the same; anything else
        as it is. A task's arguments outlive the workers, which data that were scattered do not.
        """
        if not isinstance(x, np.ndarray) or x.nbytes < SENT:
            return x
        for known, future in self._sent:
            if known is x:
                return future
        import dask

        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            future = self.client.submit(echo, x, pure=False)
        if not x.flags.writeable:  # a point, which is asked about again
            self._sent = [(x, future), *self._sent[:1]]
        return future

    # --- other objectives of the same rows

    def _with_model(self, model: MLP) -> Objective:
        other = self._like(model)
        other._over(self._shards, self._sizes, replace(self.frame, model=model), in_frame)
        return other

    def _like(self, model: MLP) -> Objective:
        other = object.__new__(Objective)
        state = {k: v for k, v in self.__dict__.items() if k not in ("_shards", "_sent")}
        other.__dict__.update(state)
        other.model, other._own = model, False
        return other

    def batch(self, rows: Any) -> Objective:
        """The objective on some rows: a slice, indices or a mask. They stay where they are, and
        outputs come in the order in which they are asked for.
        """
        asked = self._numbers(rows)
        numbers = asked if self._order is None else np.argsort(self._order)[asked]
        shard = np.searchsorted(np.cumsum(self._sizes), numbers, side="right")
        firsts = np.cumsum([0, *self._sizes])
        touched = np.unique(shard).tolist()
        picked = [numbers[shard == i] - firsts[i] for i in touched]
        order = np.argsort(shard, kind="stable")
        other = self._like(self.model)
        other._order = None if np.array_equal(order, np.arange(len(order))) else order
        other._over(
            [self._shards[i] for i in touched],
            [len(p) for p in picked],
            self.frame,
            some_rows,
            picked,
        )
        return other


def moves(owners: Sequence[str | None], threads: Places) -> dict[int, str]:
    """Which shards go where, as few as will do for every worker to have its share, in proportion to
    its threads; those without an owner are left to the scheduler.

    Examples
    --------
    >>> moves(["a", "a", "a", "a"], {"a": 1, "b": 1})
    {0: 'b', 1: 'b'}
    """
    held = {name: sum(owner == name for owner in owners) for name in threads}
    known, whole = sum(held.values()), max(1, sum(threads.values()))
    quota = {name: known * n // whole for name, n in threads.items()}
    extra = sorted(threads, key=lambda name: quota[name] - held[name])  # who has more may keep more
    parted = [name for name in extra if known * threads[name] % whole]
    for name in parted[: known - sum(quota.values())]:
        quota[name] += 1
    found: dict[int, str] = {}
    for i, owner in enumerate(owners):
        if owner not in quota:
            continue
        if held[owner] > quota[owner]:
            found[i] = next(name for name in threads if held[name] < quota[name])
            held[found[i]] += 1
            held[owner] -= 1
    return found


def _owned(found: Any) -> Any:
    """A result whose arrays are the caller's: one that came in a message may be read-only, one of
    this process another task's.
    """
    if isinstance(found, tuple):
        return tuple(_owned(x) for x in found)
    return found.copy() if isinstance(found, np.ndarray) else found


def _is_task(x: Any) -> bool:
    """Whether a shard is a future or a delayed value."""
    return hasattr(x, "key") and (hasattr(x, "client") or hasattr(x, "dask"))


def _future(task: Any, client: Any) -> Any:
    """The future of a task, which of a delayed value begins now."""
    return client.compute(task) if hasattr(task, "dask") else task


def _check_shards(shards: Any) -> list[Any]:
    if isinstance(shards, (str, bytes, Path)) or not hasattr(shards, "__iter__"):
        raise TypeError(f"shards is a {type(shards).__name__}; wanted a sequence of shards")
    found = list(shards)
    if not found:
        raise ValueError("shards is empty; wanted at least one")
    for i, one in enumerate(found):
        if not (_is_task(one) or callable(one) or isinstance(one, (str, Path))):
            raise TypeError(
                f"shard {i} is a {type(one).__name__}; wanted a function that loads it on a "
                "worker, a path or a future"
            )
    return found


@contextmanager
def _answered() -> Iterator[None]:
    """What Dask says without words, or in many, where workers or scheduler are gone: in one
    sentence.
    """
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    try:
        yield
    except (CancelledError, CommClosedError) as error:
        raise ConnectionError(
            "the scheduler of Dask is gone, and with it what its workers held; wanted one that is "
            "there: make the objective anew"
        ) from error
    except KilledWorker as error:
        raise ConnectionError(
            f"a task ended the workers that Dask gave it to ({error.last_worker} was the last), as "
            "where their memory is too small; wanted more memory or smaller shards"
        ) from error


def _client(client: Any) -> tuple[Any, bool]:
    """(the client, whether it was started here)."""
    try:
        from distributed import Client, default_client
    except ImportError:
        raise ImportError(
            "fastcurv.distributed needs dask; wanted: pip install 'fastcurv[dask]'"
        ) from None
    if client == "":
        raise ValueError("client is ''; wanted a Client or the address of a scheduler, or None")
    if client is not None and not isinstance(client, str):
        return client, False
    try:
        if isinstance(client, str):
            return Client(client), True
        try:
            return default_client(), False
        except ValueError:  # workers here; by default its pages would answer on every address
            return Client(dashboard_address="127.0.0.1:0"), True
    except RuntimeError as error:
        raise OSError(f"Dask cannot be started or reached: {error}") from error
