"""Memory of plans: one block divided into pieces, large zeroed blocks, and pointers into arrays."""


# allocator that divides one block into aligned pieces, or only measures
cdef struct Arena:
    char *base                  # start of the block; NULL while measuring
    size_t used                 # bytes handed out so far
    bint overflow               # a size did not fit size_t


# job that fills a large block: with zeros, or with a padded copy of X
cdef struct Touch:
    char *base                  # destination
    size_t size                 # bytes, for zeros
    # not NULL: copy rows of `cols` numbers from `source` instead of writing zeros
    const fc_table *K
    # strides of the source, leading dimension of the copy, rows per part
    Py_ssize_t rows, cols, rs, cs, ld, step
    char *source                # first number of X
    double *squares             # sum of squares of each part of the copy, or NULL


cdef extern from "block.h" nogil:
    void *fc_block(size_t)
    void fc_block_free(void *)

cdef enum:
    TOUCH = 1 << 22             # bytes per part when large memory is zeroed
