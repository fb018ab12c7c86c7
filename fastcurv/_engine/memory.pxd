"""Memory of plans: one block handed out in pieces, large blocks, and where an array's numbers
begin.
"""


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


cdef extern from "block.h" nogil:
    void *fc_block(size_t)
    void fc_block_free(void *)

cdef enum:
    TOUCH = 1 << 22             # bytes of a part of a large job of filling memory
