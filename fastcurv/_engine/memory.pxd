"""Memory of plans: an arena that divides one block into aligned arrays, and zeroed or copied blocks
that are filled in parallel.
"""


# An allocator of aligned arrays within one block of memory. With base NULL, only the number of
# bytes that the block needs is computed.
cdef struct Arena:
    char *base                  # start of the block, or NULL to compute its size only
    size_t used                 # bytes allocated so far
    bint overflow               # True if a requested size does not fit size_t


# A job of the thread team that fills a large block of memory with zeros or with a padded copy of X.
cdef struct Fill:
    char *base                  # destination block
    size_t size                 # bytes to set to zero
    # Kernel table for a padded copy of X, or NULL to fill the block with zeros.
    const fc_table *K
    # Shape of X, its strides in elements, leading dimension of the copy, and rows per part of the
    # job.
    Py_ssize_t rows, cols, rs, cs, ld, step
    char *source                # first element of X
    double *squares             # output: sum of squares of each part of the copy; NULL to skip


cdef extern from "block.h" nogil:
    void *fc_block(size_t)
    void fc_block_free(void *)

cdef enum:
    FILL_PART_BYTES = 1 << 22             # bytes that each part of a job sets to zero
