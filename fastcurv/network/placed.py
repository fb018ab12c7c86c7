"""Shards on the workers of Dask: how each gets its rows, and the tasks that run there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import _engine
from ..checks import as_numpy
from .arguments import check_targets, check_weight
from .mlp import MLP
from .shards import Frame, Shard
from .sources import as_source


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
