"""Objectives of the shell command on Dask workers, each of which reads the data itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from .data import Dataset

SHARDS = 16  # independent of the number of workers, so that the order of summation is too
Load = Callable[[], Dataset]


@lru_cache(maxsize=1)
def _data(load: Load) -> Dataset:
    return load()


def rows(load: Load, number: int, count: int) -> tuple[Any, Any]:
    """Return the training rows of shard `number` of `count`, as read by a worker."""
    data = _data(load)
    N = len(data.X)
    some = slice(number * N // count, (number + 1) * N // count)
    return data.X[some], data.y[some]


def on_cluster(address: str, ob: Any, load: Load) -> Any:
    """Return the objective on the workers of the scheduler at `address`, or on local ones
    ("local").

    `load` must be hashable and picklable: a method of a `Recipe`, or a partial `load_dataset`.
    """
    from .. import distributed

    count = min(SHARDS, ob.n_samples)
    shards = [partial(rows, load, i, count) for i in range(count)]
    client = None if address == "local" else address
    there = distributed.Objective(
        ob.model, shards, ob.loss, ob.l2, client=client, l2_biases=ob.l2_biases
    )
    for name in ("distributed", "distributed.client"):  # this command reports errors itself
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return there
