"""The data of an objective."""
cimport cython
from libc.math cimport isfinite
from libc.stdint cimport int32_t
from libc.string cimport memset

import numpy as np


cdef enum:
    COPY_PART_BYTES = 1 << 17   # bytes per part of a job that copies X into its padded form


cdef class Rows:
    """The data of an objective, in the form that the passes use. X (N, d) may have any strides, and
    y (N, d_out) any distance between rows. Labels (N,) int32 and weight (N,) are contiguous. Only
    two arrays are copied: X, into its padded form on first use, and labels, because they are
    checked once and then used as indices.
    """
    cdef readonly object X, y, labels, weight
    cdef Data D
    cdef bint padded            # True if a plan uses the padded form of X
    cdef Rows owner             # Rows object whose padded form of X is shared, or None

    def __cinit__(self, X, y, labels, weight):
        self.set_arrays(X, y, labels, weight)

    cdef int set_arrays(self, X, y, labels, weight) except -1:
        """Set all arrays of the data, and the pointers to them."""
        cdef Data *D = &self.D
        # Views protect the shapes and strides from changes that the caller makes to its arrays.
        X, y, weight = (
            None if a is None else a.view() for a in (X, y, weight)
        )
        if labels is not None:
            labels = np.array(labels, np.int32)
            labels.flags.writeable = False
        self.X, self.y, self.labels, self.weight = X, y, labels, weight
        D.ldx = padded_ld(X.shape[1], X.itemsize)
        D.X, D.x_rs, D.x_cs = pointer(X), X.strides[0] // X.itemsize, X.strides[1] // X.itemsize
        if y is not None:
            D.y, D.ldy = pointer(y), y.strides[0] // y.itemsize
        if labels is not None:
            D.labels = <int32_t *>pointer(labels)
        if weight is not None:
            D.weight = pointer(weight)

    def with_weight(self, weight):
        """Return a Rows object with other weights (N,), or without weights if `weight` is None. The
        new object shares all other arrays and the padded form of X.
        """
        cdef Rows other = Rows(self.X, self.y, self.labels, weight)
        other.owner = self if self.owner is None else self.owner
        return other

    def __dealloc__(self):
        if self.owner is None:
            fc_block_free(self.D.x)

    cdef int ensure_padded_copy(self, const fc_table *K, int threads) except -1:
        """Copy X into its padded form, unless the copy exists."""
        cdef Data *D = &self.D
        cdef Fill t
        self.padded = True
        if D.x != NULL:
            return 0
        if self.owner is not None:
            self.owner.ensure_padded_copy(K, threads)
            D.x = self.owner.D.x
            return 0
        memset(&t, 0, sizeof(t))
        t.base = <char *>fc_block(self.X.shape[0] * D.ldx * K.real_bytes)
        if t.base == NULL:
            raise MemoryError(
                f"Not enough memory for a padded copy of X: {self.X.shape[0]} rows of "
                f"{D.ldx * K.real_bytes} bytes."
            )
        self.fill_padded_copy(&t, K, threads)
        with cython.critical_section(self):
            if D.x == NULL:
                D.x = t.base
                t.base = NULL
        fc_block_free(t.base)   # free the copy if another thread has stored one first
        return 0

    cdef int fill_padded_copy(self, Fill *t, const fc_table *K, int threads) except -1:
        """Copy X into its padded form at t.base, which is freed if a signal handler raises an
        exception.
        """
        cdef Data *D = &self.D
        t.K, t.rows, t.cols, t.ld, t.size = K, self.X.shape[0], self.X.shape[1], D.ldx, 0
        t.source, t.rs, t.cs = D.X, D.x_rs, D.x_cs
        t.step = max(1, COPY_PART_BYTES // (D.ldx * K.real_bytes))
        return fill_block(t, threads, (t.rows + t.step - 1) // t.step)

    cdef int replace_rows(self, X, y, labels, weight, const fc_table *K, int threads) except -1:
        """Replace the data by other data of equal kinds and shapes, and overwrite the padded form
        of X. Return True if X was copied and its sums of squares show that all elements are finite.
        """
        cdef Fill t
        cdef Py_ssize_t part
        for name, old, new in (
            ("X", self.X, X), ("y", self.y, y), ("labels", self.labels, labels),
            ("sample_weight", self.weight, weight),
        ):
            if (old is None) != (new is None) or old is not None and (
                old.shape != new.shape or old.dtype != new.dtype
            ):
                was, now = [
                    "None" if a is None else f"{a.dtype} of shape {a.shape}" for a in (old, new)
                ]
                raise ValueError(
                    f"{name} must be {was}, as in the rows that it replaces, got {now}."
                )
        self.set_arrays(X, y, labels, weight)
        if not self.padded:
            return 0
        if self.D.x == NULL:    # a signal handler cancelled the previous copy
            self.ensure_padded_copy(K, threads)
            return 0
        memset(&t, 0, sizeof(t))
        squares = np.zeros(X.shape[0] // max(1, COPY_PART_BYTES // (self.D.ldx * K.real_bytes)) + 1)
        t.base, t.squares = <char *>self.D.x, <double *>pointer(squares)
        self.D.x = NULL         # no valid copy until this one is complete
        self.fill_padded_copy(&t, K, threads)
        self.D.x = t.base
        for part in range((t.rows + t.step - 1) // t.step):
            if not isfinite(t.squares[part]):
                return 0
        return 1
