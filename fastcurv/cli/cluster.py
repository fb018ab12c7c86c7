"""The shell's objectives on workers of Dask: each worker reads the data by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from .data import Dataset

SHARDS = 16  # whatever the workers: it decides the order of summation
Load = Callable[[], Dataset]


@lru_cache(maxsize=1)
def _data(load: Load) -> Dataset:
    return load()


def rows(load: Load, number: int, count: int) -> tuple[Any, Any]:
    """The training rows of shard `number` of `count`, as a worker reads them."""
    data = _data(load)
    N = len(data.X)
    some = slice(number * N // count, (number + 1) * N // count)
    return data.X[some], data.y[some]


def on_cluster(address: str, ob: Any, load: Load) -> Any:
    """The objective on the workers of a scheduler at an address, or of this machine ("local").

    `load` is hashable and can be sent: a method of a `Recipe`, a partial `load_dataset`.
    """
    from .. import distributed

    count = min(SHARDS, ob.n_samples)
    shards = [partial(rows, load, i, count) for i in range(count)]
    client = None if address == "local" else address
    there = distributed.Objective(
        ob.model, shards, ob.loss, ob.l2, client=client, l2_biases=ob.l2_biases
    )
    for name in ("distributed", "distributed.client"):  # what fails is said once, by this command
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return there
