"""Memory of a basis, held for the next run on the same operator.

A page that a process writes to for the first time has to be found and cleared, which for the rows
of a large basis takes a tenth of a product each and at times more than one. What a run leaves is
kept as long as its operator lives, and no longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

LEAST, MOST = 1 << 20, 1 << 30  # bytes that are worth holding, and no burden
_held: WeakKeyDictionary[Any, np.ndarray] = WeakKeyDictionary()


@contextmanager
def held_rows(op: Any, shape: tuple[int, int], dtype: np.dtype) -> Iterator[np.ndarray]:
    """Rows of that shape with any content, those of the last run on `op` where they are enough.

    While they are used nobody else gets them: another thread gets memory of its own.
    """
    try:
        rows = _held.pop(op, None)
    except TypeError:  # cannot be a key
        rows = None
    if rows is None or rows.dtype != dtype or rows.shape[1] != shape[1] or len(rows) < shape[0]:
        rows = np.empty(shape, dtype)
    try:
        yield rows
    finally:
        if LEAST <= rows.nbytes <= MOST:
            with suppress(TypeError):
                _held[op] = rows
