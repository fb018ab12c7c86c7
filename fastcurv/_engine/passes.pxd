"""The passes at theta over some rows of a chunk, and the sums over rows that all passes make."""
from .kernels cimport BLOCK_ROWS
from .state cimport Layer, Matrix, Pass


cdef void forward(Pass *t) noexcept nogil
# dW, db into out, or delta and e * phi'' only where it is NULL.
cdef void backward(Pass *t, char *out, bint add) noexcept nogil

# The part's row of the pass's sums, `shift` bytes on: the column sums of d (rows, m).
cdef void column_sums(
    Pass *t, Py_ssize_t part, Py_ssize_t rows, Layer *y, char *d, Py_ssize_t shift
) noexcept nogil
# The b part of each out = [it +] the sum over blocks of d's rows.
cdef void put_bias(
    Pass *t, Layer *y, Matrix d, Py_ssize_t blocks, char *out, bint add
) noexcept nogil


cdef inline Py_ssize_t loss_blocks(Pass *t) noexcept nogil:
    """How many blocks of rows the loss is made in."""
    return 1 if t.serial else (t.rows + BLOCK_ROWS - 1) // BLOCK_ROWS
