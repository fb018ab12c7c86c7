"""Blocks of rows as they pass by: cut, joined, picked from, and told from others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar
from zlib import crc32

import numpy as np
from scipy.sparse import csr_matrix, vstack

from .._engine import Lock, in_memory
from ..checks import is_sparse

Result = TypeVar("Result")
Block = tuple[Any, Any, Any]  # X, y, sample_weight or None
SEEN = 16  # rows of a block that tell it from others
_starting = Lock()


def regrouped(blocks: Iterable[Block], size: int) -> Iterator[Block]:
    """The same rows in blocks of `size`, whatever blocks they come in."""
    held: list[Block] = []
    count = 0
    for block in blocks:
        start, n = 0, block[0].shape[0]
        while start < n:
            stop = min(n, start + size - count)
            held.append(cut(block, start, stop))
            count, start = count + stop - start, stop
            if count == size:
                yield stacked(held)
                held, count = [], 0
    if held:
        yield stacked(held)


def cut(block: Block, start: int, stop: int) -> Block:
    """Rows from start to stop of a block; of all of it, itself."""
    if start == 0 and stop == block[0].shape[0]:
        return block
    return pick(block, slice(start, stop))


def stacked(blocks: list[Block]) -> Block:
    """Blocks one below the other."""
    if len(blocks) == 1:
        return blocks[0]
    try:
        return tuple(  # type: ignore[return-value]
            None if parts[0] is None else joined(parts) for parts in zip(*blocks)
        )
    except (ValueError, TypeError):
        shapes = [sorted({part.shape[1:] for part in parts}) for parts in list(zip(*blocks))[:2]]
        raise ValueError(
            f"blocks do not fit together: rows of X have shapes {shapes[0]}, of y {shapes[1]}; "
            "wanted one width"
        ) from None


def joined(parts: Sequence[Any]) -> Any:
    """Arrays, or sparse matrices, one below the other."""
    if not any(map(is_sparse, parts)):
        return np.concatenate(parts)
    return vstack([csr_matrix(part) for part in parts], format="csr")


def own_csr(A: Any, name: str) -> Any:
    """A sparse matrix by rows in memory that nobody else writes to, its indices then checked:
    SciPy's loops trust them.
    """
    try:
        if A.format in ("csr", "csc", "bsr"):
            parts = [np.array(in_memory(a, name)) for a in (A.data, A.indices, A.indptr)]
            A = type(A)(tuple(parts), shape=A.shape)
            A.check_format(full_check=True)
        elif A.format == "coo":
            data, row, col = (np.array(in_memory(a, name)) for a in (A.data, A.row, A.col))
            A = type(A)((data, (row, col)), shape=A.shape)  # which looks at them
        return A.tocsr()
    except (ValueError, IndexError) as error:
        raise ValueError(f"{name} is no valid sparse matrix: {error}") from None


def own(x: Any, name: str) -> Any:
    """`x`, where it is an array, in memory that no file is mapped to; as `own_csr` where sparse."""
    if is_sparse(x):
        return own_csr(x, name)
    return in_memory(x, name) if isinstance(x, np.ndarray) else x


def picked(blocks: Iterable[Block], rows: np.ndarray) -> Block:
    """Rows by sorted numbers from blocks that pass by."""
    found, start = [], 0
    for block in blocks:
        stop = start + block[0].shape[0]
        here = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)] - start
        if len(here):
            found.append(pick(block, here))
        start = stop
        if len(rows) and stop > rows[-1]:
            break
    return stacked(found)


def pick(block: Block, rows: Any) -> Block:
    """Some rows of a block."""
    return tuple(None if a is None else a[rows] for a in block)  # type: ignore[return-value]


def fingerprint(parts: Sequence[Any]) -> int:
    """A number that a few rows of a block decide, all of them where it is short."""
    n, mark = parts[0].shape[0], 0
    rows = np.unique(np.linspace(0, n - 1, min(n, SEEN)).astype(int))
    for part in parts:
        if part is not None:
            some = getattr(part, "X", part)[rows]  # of SparseRows
            some = (some.data, some.indices, some.indptr) if is_sparse(some) else (some,)
            for numbers in some:
                mark = crc32(np.ascontiguousarray(numbers), mark)
    return mark


class Seen:
    """What blocks looked like in the pass before."""

    def __init__(self) -> None:
        self.marks: dict[tuple[int, int], int] = {}

    def compare(self, start: int, parts: Sequence[Any]) -> None:
        """A few rows of a block with those that stood there before, if as many did."""
        mark = fingerprint(parts)
        if self.marks.setdefault((start, parts[0].shape[0]), mark) != mark:
            raise ValueError(
                f"rows from {start} on are others than in the pass before; wanted the same rows in "
                "every pass, or a new objective"
            )


def submitted(pool: Executor, call: Callable[..., Result], *given: Any) -> Future[Result]:
    """``pool.submit(call, *given)``. While Python starts a thread it holds locks for which a
    handler of signals that came in there would wait for ever, if it started one too: it is refused.
    """
    with _starting:
        return pool.submit(call, *given)
