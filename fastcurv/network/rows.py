"""Sources of the rows of an objective: arrays, sparse matrices, files, and blocks that are read one
by one; and checks that convert the rows of every source to the form that the passes need.

A source of rows is a class with a method ``blocks(size)``, see `RowSource`. Values, gradients,
products, spectra and proofs are sums over its blocks, so that no other method is needed.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, vstack

from ..common.checks import as_numpy, is_sparse, rows_shape_error
from ..common.errors import one_line, type_phrase
from ..common.files import (
    path_as_text,
    protect_mapped_files,
    protect_row_file,
    raise_if_special_file,
)
from ..common.protocols import Array
from .arguments import ROW_ARGUMENT_NAMES, Block, as_owned_csr

# --------------------------------------------------------------------------------------------------
# Blocks of rows: slicing, joining and selecting.


def check_blocks(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield the blocks. Raise TypeError if one is not a tuple of three. A sparse X is copied in CSR
    format, after its indices have been checked.
    """
    for block in blocks:
        if not isinstance(block, tuple) or len(block) != 3:
            raise TypeError(
                f"a block must be (X, y, sample_weight or None), got {type_phrase(block)}."
            )
        yield (as_owned_csr(block[0], "X"), *block[1:]) if is_sparse(block[0]) else block


def regroup_rows(blocks: Iterable[Block], size: int) -> Iterator[Block]:
    """Yield the rows of blocks of any sizes in blocks of `size` rows. The last block may be
    shorter.
    """
    waiting: list[Block] = []
    count = 0
    for block in check_blocks(blocks):
        start = 0
        n = block[0].shape[0]
        while start < n:
            stop = min(n, start + size - count)
            waiting.append(block if stop - start == n else take_rows(block, slice(start, stop)))
            count += stop - start
            start = stop
            if count == size:
                yield stack_blocks(waiting)
                waiting = []
                count = 0
    if waiting:
        yield stack_blocks(waiting)


def stack_blocks(blocks: list[Block]) -> Block:
    """Return one block with the rows of all blocks. Raise ValueError if their widths differ."""
    if len(blocks) == 1:
        return blocks[0]
    try:
        return tuple(  # type: ignore[return-value]
            None
            if parts[0] is None
            else vstack([csr_matrix(part) for part in parts], format="csr")
            if any(map(is_sparse, parts))
            else np.concatenate(parts)
            for parts in zip(*blocks)
        )
    except (ValueError, TypeError):
        shapes = [sorted({part.shape[1:] for part in parts}) for parts in list(zip(*blocks))[:2]]
        raise ValueError(
            f"the rows of all blocks must have one shape, got rows of X of shapes {shapes[0]} and "
            f"rows of y of shapes {shapes[1]}."
        ) from None


def error_with_location(error: Exception, where: str) -> Exception:
    """Return an error whose message begins with `where`, the rows in which `error` occurred. The
    class is that of `error` if this class can be created from a message alone, and a built-in class
    otherwise.
    """
    text = f"in {where}: {error}"
    try:
        return type(error)(text)
    except Exception:
        # The class of the error requires more arguments, so a built-in class is used.
        kinds = (ValueError, TypeError, OSError)
        return next(kind for kind in kinds if isinstance(error, kind))(text)


def take_rows(block: Block, rows: Any) -> Block:
    """Return the block with the rows that a slice or indices select. Parts that are None remain
    None.
    """
    return tuple(None if a is None else a[rows] for a in block)  # type: ignore[return-value]


class ArrayFile:
    """The array of a ``.npy`` file, whose rows are read when they are indexed. Errors name the
    array `name`.
    """

    def __init__(self, path: Any, name: str) -> None:
        path = path_as_text(path, name)
        raise_if_special_file(path)  # a device or a pipe would block
        try:
            array: Any = np.load(path, mmap_mode="r")
            # For an .npz archive that is named .npy, np.load returns another type.
            if not isinstance(array, np.memmap):
                raise ValueError("it is an archive of several arrays")
        except MemoryError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            words = one_line(error, 160) or type(error).__name__
            raise ValueError(
                f"{one_line(os.fsdecode(path), 200)} cannot be read as a file of type .npy: "
                f"{words}."
            ) from None
        self.path = Path(path).resolve()
        protect_row_file(path, self)
        self.name = name
        self.shape = array.shape
        self.dtype = array.dtype
        self.offset = int(array.offset)
        self.n_bytes = array.nbytes
        # In Fortran order the file holds one column after the other.
        self.by_columns = array.ndim == 2 and not array.flags.c_contiguous

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.name)

    def __getitem__(self, rows: Array) -> np.ndarray:
        """Return the rows that a slice without step, or an array of indices, selects. Raise
        ValueError if the file has become shorter.
        """
        if isinstance(rows, slice):
            starts = np.array([rows.start])
            count = rows.stop - rows.start
        else:
            starts = np.asarray(rows)
            count = 1
        n = self.shape[0]
        width = int(np.prod(self.shape[1:]))
        columns = width if self.by_columns else 1
        row_bytes = self.dtype.itemsize * width // columns
        out = np.empty((columns, len(starts), count * row_bytes), np.uint8)
        with self.path.open("rb", buffering=0) as file:
            self._check_size(file)
            for column in range(columns):
                for i, start in enumerate(starts.tolist()):
                    file.seek(self.offset + (column * n + start) * row_bytes)
                    if file.readinto(out[column, i].data) != out.shape[2]:
                        self._check_size(file)
        values = out.view(self.dtype).reshape(columns, len(starts) * count, width // columns)
        return values[..., 0].T if self.by_columns else values.reshape(-1, *self.shape[1:])

    def _check_size(self, file: Any) -> None:
        size = os.fstat(file.fileno()).st_size
        if size < self.offset + self.n_bytes:
            raise ValueError(
                f"the file of {self.name} must keep its size while its rows are read, got {size} "
                f"bytes instead of {self.offset + self.n_bytes}."
            )


def make_row_source(X: Array, y: Array, weight: Array) -> RowSource:
    """Return the source for the arguments X, y and weight of `StreamedObjective`."""
    if isinstance(X, RowSource):
        if y is not None or weight is not None:
            name = "sample_weight" if y is None else "y"
            raise TypeError(
                f"{name} must be None if X is a RowSource, whose blocks hold y and weights, got "
                f"{type_phrase(weight if y is None else y)}."
            )
        return X
    if isinstance(X, (str, Path)):
        X = Path(path_as_text(X, "X"))
        if X.suffix == ".npy":
            X = ArrayFile(X, "X")
        else:
            raise ValueError(
                f"X must be the path of a .npy file, got '{one_line(X.name)}'. For other "
                "files, use a RowSource."
            )
    if isinstance(y, (str, Path)) and str(y).endswith(".npy"):
        y = ArrayFile(y, "y")
    if is_sparse(X):
        X = as_owned_csr(X, "X")
    if not (hasattr(X, "shape") and hasattr(X, "dtype") and hasattr(X, "__getitem__")):
        if callable(X) or hasattr(X, "__next__"):
            raise TypeError(
                "X must be an array, the path of a .npy file or a RowSource, got "
                f"{type_phrase(X)}. Derive a class from fastcurv.network.rows.RowSource whose "
                "method blocks yields (X, y, sample_weight or None)."
            )
        X = as_numpy(X, "X")
    return ArraySource(X, y, weight)


class RowSource(ABC):
    """Base class of sources of rows that need not fit in memory. The rows are read block by block,
    in the same order in every pass.

    Attributes
    ----------
    n_rows : int or None
        Number of rows; None until they have been counted in a first pass.
    entries : float or None
        Approximate number of stored entries of a row if the source yields SciPy sparse matrices,
        which then remain sparse. None if the source yields arrays.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> class Waves(RowSource):
    ...     n_rows = 1000
    ...     def blocks(self, size):
    ...         for start in range(0, 1000, size):
    ...             t = np.arange(start, min(start + size, 1000))[:, None] / 100
    ...             yield t, np.sin(t), None
    >>> model = fc.MLP([1, 5, 1])
    >>> ob = fc.StreamedObjective(model, Waves(), loss="mse", block_rows=300)
    >>> ob.n_samples, ob.gradient(model.init(rng=0)).shape
    (1000, (16,))
    """

    n_rows: Any = None
    entries: Any = None

    @abstractmethod
    def blocks(self, size: int) -> Iterator[Block]:
        """Yield the rows, in the same order in each pass, as blocks ``(X, y, sample_weight or
        None)`` of arrays. Blocks of `size` rows are not copied; others are joined or divided.
        """

    def shuffled_blocks(self, size: int, rng: np.random.Generator) -> Iterator[Block]:
        """Yield blocks of about `size` rows in a random order drawn from `rng`. This base class
        yields the blocks in their own order. A source that can read any block at any time overrides
        the method.
        """
        return regroup_rows(self.blocks(size), size)

    def take_rows(self, rows: np.ndarray) -> Block:
        """Return the block of the rows with the indices `rows`, which must be sorted and unique.
        This base class reads all blocks up to the last of these rows.
        """
        taken_blocks = []
        start = 0
        for block in check_blocks(self.blocks(1 << 16)):
            stop = start + block[0].shape[0]
            here = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)] - start
            if len(here):
                taken_blocks.append(take_rows(block, here))
            start = stop
            if stop > rows[-1]:
                break
        return stack_blocks(taken_blocks)


class ArraySource(RowSource):
    """A source of rows from arrays, or from other objects with ``shape``, ``dtype`` and slicing,
    such as memory-mapped files, HDF5 and zarr datasets.
    """

    def __init__(self, X: Any, y: Any, weight: Any) -> None:
        if y is None:
            raise ValueError("y must hold the targets of the rows of X, got None.")
        self.X = X
        self.y = _as_sliceable(y, "y")
        self.weight = _as_sliceable(weight, "sample_weight")
        self.parts = (self.X, self.y, self.weight)
        protect_mapped_files(*self.parts)
        if len(X.shape) != 2:
            raise rows_shape_error(X.shape, None)
        for name, part in zip(ROW_ARGUMENT_NAMES, self.parts):
            if part is not None and part.shape[0] != part.shape[0]:  # NaN
                raise ValueError(
                    f"{name} must have a known number of rows, got nan. For a Dask array, use "
                    f"{name}.compute_chunk_sizes()."
                )
        self.n_rows = int(X.shape[0])
        for name, part in (("y", self.y), ("sample_weight", self.weight)):
            if part is not None and part.shape[0] != self.n_rows:
                raise ValueError(
                    f"{name} must have {self.n_rows} rows, one for each row of X, got "
                    f"{part.shape[0]}."
                )
        self.entries = X.nnz / max(1, self.n_rows) if is_sparse(X) else None

    def blocks(self, size: int) -> Iterator[Block]:
        """Yield blocks of `size` rows."""
        for start in range(0, self.n_rows, size):
            if self.X.shape[0] != self.n_rows:
                raise ValueError(
                    f"X must have the same rows in every pass, got {self.X.shape[0]} rows instead "
                    f"of {self.n_rows}."
                )
            yield self.read_block(start, min(start + size, self.n_rows))

    def shuffled_blocks(self, size: int, rng: np.random.Generator) -> Iterator[Block]:
        """Yield blocks of `size` rows in random order."""
        for i in rng.permutation(-(-self.n_rows // size)).tolist():
            yield self.read_block(i * size, min((i + 1) * size, self.n_rows))

    def read_block(self, start: int, stop: int) -> Block:
        """Return the block (X, y, weights) of the rows from `start` to ``stop - 1``."""
        return tuple(_select(a, slice(start, stop)) for a in self.parts)

    def take_rows(self, rows: np.ndarray) -> Block:
        """Return the block (X, y, weights) of the rows with the sorted indices `rows`."""
        return tuple(_select(a, rows) for a in self.parts)


def _as_sliceable(x: Any, name: str) -> Any:
    """Return x unchanged if it is None, or has a shape and can be sliced. Return a data frame or
    any other object as an array with rows.
    """
    if x is None or (hasattr(x, "shape") and hasattr(x, "__getitem__") and len(x.shape)):
        return np.asarray(x) if hasattr(x, "iloc") else x
    x = as_numpy(x, name)
    if not x.ndim:
        raise ValueError(f"{name} must be an array with rows, got shape ().")
    return x


def _select(a: Any, rows: Any) -> Any:
    """Return the rows of `a` that a slice or an array of indices selects, or None if `a` is
    None.
    """
    if a is None:
        return None
    if hasattr(a, "oindex") and not isinstance(rows, slice):
        return a.oindex[rows]
    if isinstance(a, np.ndarray) and not isinstance(a, np.ma.MaskedArray):
        a = np.asarray(a)
    return a[rows]
