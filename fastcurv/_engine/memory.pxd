"""Memory of plans: one block handed out in pieces, large blocks, and where an array's numbers
begin.
"""
from .kernels cimport FC_ALIGN, fc_table


cdef struct Arena:
    char *base                  # NULL while measuring
    size_t used
    bint overflow


cdef struct Touch:
    char *base
    size_t size
    const fc_table *K           # a copy of X instead of zeros: rows of `cols` numbers at `source`
    Py_ssize_t rows, cols, rs, cs, ld, step
    char *source
    double *squares             # of each part's numbers in the copy, where they are wanted


# `count` things of `size` bytes, 64-byte aligned; an overflow of the count is remembered.
cdef char *take(Arena *arena, size_t count, size_t size) noexcept nogil
# Leading dimension of a padded matrix of so many columns.
cdef Py_ssize_t padded(Py_ssize_t cols, int size) noexcept nogil

cdef void *fc_block(size_t size) noexcept nogil
cdef void fc_block_free(void *block) noexcept nogil
# A block of zeros; a MemoryError says what it was for.
cdef char *zeroed(size_t size, int threads, what) except NULL
cdef enum:
    TOUCH = 1 << 22             # bytes of a part of a large job of filling memory
cdef int touch(Touch *t, int threads, Py_ssize_t parts) except -1

cdef char *pointer(array) except? NULL
# The same of a contiguous, aligned vector (n,) of this dtype; NULL where it is none.
cdef char *ready(array, Py_ssize_t n, dtype, bint written) except? NULL
