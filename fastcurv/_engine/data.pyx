"""See data.pxd."""
cimport cython
from libc.math cimport isfinite
from libc.stdint cimport int32_t
from libc.string cimport memset

import mmap

import numpy as np


cdef enum: PART = 1 << 17       # bytes of a part of the copy of X


def maps_behind(**arrays):
    """The memory-mapped files that arrays lie in: (name, map, bytes that its file must have)."""
    found = []
    for name, x in arrays.items():
        while isinstance(x, np.ndarray) and not hasattr(x, "_mmap"):
            x = x.base
        mapped = getattr(x, "_mmap", None)
        if mapped is not None:
            start = x.offset - x.offset % mmap.ALLOCATIONGRANULARITY
            found.append((name, mapped, start + len(mapped)))
    return found


def still_there(maps):
    """Refuse a memory-mapped file that was cut short: reading past its end ends the process."""
    for name, mapped, size in maps:
        if mapped.size() < size:
            raise ValueError(
                f"the file of {name} has {mapped.size()} bytes now and had {size}; wanted the "
                "same rows in every pass"
            )


cdef class Rows:
    """The data of an objective as the passes want it. X (N, d) may have any strides, y (N, d_out)
    rows of any distance, labels (N,) int32 and weight (N,) are contiguous; none is copied, but for
    one padded copy of X made on first use."""
    cdef readonly object X, y, labels, weight
    cdef list maps
    cdef Data D
    cdef bint padded                     # X is wanted in its padded form

    def __cinit__(self, X, y, labels, weight):
        self.point_at(X, y, labels, weight)

    cdef int point_at(self, X, y, labels, weight) except -1:
        cdef Data *D = &self.D
        self.X, self.y, self.labels, self.weight = X, y, labels, weight
        self.maps = maps_behind(X=X, y=y if labels is None else labels, sample_weight=weight)
        D.ldx = padded(X.shape[1], X.itemsize)
        D.X, D.x_rs, D.x_cs = pointer(X), X.strides[0] // X.itemsize, X.strides[1] // X.itemsize
        if y is not None:
            D.y, D.ldy = pointer(y), y.strides[0] // y.itemsize
        if labels is not None:
            D.labels = <int32_t *>pointer(labels)
        if weight is not None:
            D.weight = pointer(weight)

    def __dealloc__(self):
        fc_block_free(self.D.x)

    cpdef int still_there(self) except -1:
        if self.maps:
            still_there(self.maps)
        return 0

    cdef int pad(self, const fc_table *K, int threads) except -1:
        """Copy X into its padded form, unless that is done."""
        cdef Data *D = &self.D
        cdef Touch t
        self.padded = True
        if D.x != NULL:
            return 0
        self.still_there()
        memset(&t, 0, sizeof(t))
        t.base = <char *>fc_block(self.X.shape[0] * D.ldx * K.real_bytes)
        if t.base == NULL:
            raise MemoryError(
                f"no memory for a padded copy of X ({self.X.shape[0]} rows of "
                f"{D.ldx * K.real_bytes} bytes)"
            )
        self.fill(&t, K, threads)
        with cython.critical_section(self):
            if D.x == NULL:
                D.x = t.base
                t.base = NULL
        fc_block_free(t.base)            # another thread was first
        return 0

    cdef int fill(self, Touch *t, const fc_table *K, int threads) except -1:
        """Copy X into its padded form at t.base, which is freed where a signal ends that."""
        cdef Data *D = &self.D
        t.K, t.rows, t.cols, t.ld, t.size = K, self.X.shape[0], self.X.shape[1], D.ldx, 0
        t.source, t.rs, t.cs = D.X, D.x_rs, D.x_cs
        t.step = max(1, PART // (D.ldx * K.real_bytes))
        return touch(t, threads, (t.rows + t.step - 1) // t.step)

    cdef int renew(self, X, y, labels, weight, const fc_table *K, int threads) except -1:
        """Other data of the same kinds and shapes; a padded copy is filled anew where it stands.
        Whether X was copied and is seen to be finite, by its squares.
        """
        cdef Touch t
        cdef Py_ssize_t part
        for old, new in ((self.X, X), (self.y, y), (self.labels, labels), (self.weight, weight)):
            if (old is None) != (new is None) or old is not None and (
                old.shape != new.shape or old.dtype != new.dtype
            ):
                raise ValueError("other rows are not of the shapes and kinds of those at hand")
        self.point_at(X, y, labels, weight)
        if not self.padded:
            return 0
        if self.D.x == NULL:             # a signal's handler ended the last time
            self.pad(K, threads)
            return 0
        self.still_there()
        memset(&t, 0, sizeof(t))
        squares = np.zeros(X.shape[0] // max(1, PART // (self.D.ldx * K.real_bytes)) + 1)
        t.base, t.squares = <char *>self.D.x, <double *>pointer(squares)
        self.D.x = NULL                  # until it is whole again
        self.fill(&t, K, threads)
        self.D.x = t.base
        for part in range((t.rows + t.step - 1) // t.step):
            if not isfinite(t.squares[part]):
                return 0
        return 1
