# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=True
"""See data.pxd."""
cimport cython
from libc.stdint cimport int32_t

from .memory cimport TOUCH, Touch, fc_block, fc_block_free, padded, pointer, touch


cdef class Rows:
    """The data of an objective as the passes want it. X (N, d) may have any strides, y (N, d_out)
    rows of any distance, labels (N,) int32 and weight (N,) are contiguous; none is copied, but for
    one padded copy of X made on first use."""
    def __cinit__(self, X, y, labels, weight):
        self.X, self.y, self.labels, self.weight = X, y, labels, weight
        cdef Data *D = &self.D
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

    cdef int pad(self, const fc_table *K, int threads) except -1:
        """Copy X into its padded form, unless that is done."""
        cdef Data *D = &self.D
        cdef Touch t
        if D.x != NULL:
            return 0
        t.K, t.rows, t.cols, t.ld, t.size = K, self.X.shape[0], self.X.shape[1], D.ldx, 0
        t.source, t.rs, t.cs = D.X, D.x_rs, D.x_cs
        t.step = max(1, TOUCH // (D.ldx * K.real_bytes))
        t.base = <char *>fc_block(t.rows * D.ldx * K.real_bytes)
        if t.base == NULL:
            raise MemoryError(
                f"no memory for a padded copy of X ({t.rows} rows of {D.ldx * K.real_bytes} bytes)"
            )
        touch(&t, threads, (t.rows + t.step - 1) // t.step)
        with cython.critical_section(self):
            if D.x == NULL:
                D.x = t.base
                t.base = NULL
        fc_block_free(t.base)            # another thread was first
        return 0
