"""Arenas, parallel filling of large blocks, and access to the memory of NumPy arrays (declarations
in memory.pxd).
"""
import numpy as np

from cpython.buffer cimport PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uintptr_t
from libc.string cimport memset


ndarray = np.ndarray


cdef char *arena_alloc(Arena *arena, size_t count, size_t size) noexcept nogil:
    """Allocate `count` items of `size` bytes from the arena, aligned to 64 bytes, and return their
    address. Return NULL if the arena only computes sizes. If the total size overflows, set
    `arena.overflow` and return NULL.
    """
    cdef size_t bytes_ = count * size
    if size and count > (<size_t>-1) // 2 // size:
        arena.overflow = True
        return NULL
    bytes_ = (bytes_ + FC_ALIGN - 1) // FC_ALIGN * FC_ALIGN
    if arena.used > (<size_t>-1) // 2 - bytes_:
        arena.overflow = True
        return NULL
    arena.used += bytes_
    return NULL if arena.base == NULL else arena.base + (arena.used - bytes_)


cdef Py_ssize_t padded_ld(Py_ssize_t cols, int size) noexcept nogil:
    """Return the leading dimension, in elements of `size` bytes, of a padded matrix with `cols`
    columns. Rows fill whole 64-byte cache lines. If a row has 8 cache lines or more, its size is
    not a multiple of 512 bytes, because rows at such distances compete for few cache sets.
    """
    cdef Py_ssize_t lines = (cols * size + FC_ALIGN - 1) // FC_ALIGN
    if lines >= 8:
        lines += (10 - lines % 8) % 8 if lines % 8 == 0 or lines % 8 == 1 else 0
    return lines * FC_ALIGN // size


# --- large blocks, filled in parallel because the first access to each page is slow ---------------


cdef void fill_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Fill one part of a block, as one part of a job of the thread team."""
    cdef Fill *t = <Fill *>context
    cdef Py_ssize_t first = part * t.step, count
    cdef char *copied
    if t.K == NULL:
        memset(
            t.base + part * FILL_PART_BYTES, 0,
            min(<size_t>FILL_PART_BYTES, t.size - part * <size_t>FILL_PART_BYTES)
        )
    else:
        copied = t.base + first * t.ld * t.K.real_bytes
        count = min(t.step, t.rows - first)
        t.K.copy(
            count, t.cols, t.source + first * t.rs * t.K.real_bytes, t.rs, t.cs, copied, t.ld
        )
        if t.squares != NULL:
            count *= t.ld
            t.K.dots(1, 1, count, copied, count, copied, count, t.squares + part, 1)


cdef int fill_block(Fill *t, int threads, Py_ssize_t parts) except -1:
    """Fill a block of memory on the thread team. If a signal handler raises an exception, free the
    block.
    """
    cdef fc_watch before
    try:
        with nogil:
            before = begin_signal_watch()
            fc_team_run(threads, parts, fill_part, t)
            end_signal_watch(before)
    except BaseException:
        fc_block_free(t.base)
        raise
    return 0


cdef char *allocate_zeroed_block(size_t size, int threads, what) except NULL:
    """Return a new block of `size` zero bytes. Raise MemoryError with the message `what` if the
    allocation fails.
    """
    cdef Fill t
    memset(&t, 0, sizeof(t))
    t.base, t.size = <char *>fc_block(size), size
    if t.base == NULL:
        raise MemoryError(what)
    fill_block(&t, threads, (size + FILL_PART_BYTES - 1) // FILL_PART_BYTES)
    return t.base


# --- workspaces -----------------------------------------------------------------------------------

# maximum doubles of a workspace that is kept for the next call
cdef enum: MAX_REUSED_ELEMENTS = 1 << 19

# Workspace of an earlier call, kept for the next one, because faulting in new pages takes longer
# than the arithmetic of a small network.
cdef list FREE_WORKSPACES = []


cdef object take_workspace(size_t count):
    """Return an array of at least `count` doubles with arbitrary values: the workspace that was
    kept, if it is large enough, or a new array.
    """
    try:
        room = FREE_WORKSPACES.pop()
    except IndexError:
        room = None
    return np.empty(count) if room is None or room.size < count else room


cdef int keep_workspace(room) except -1:
    """Keep a workspace for the next call if it is small and no other workspace is kept."""
    if room.size <= MAX_REUSED_ELEMENTS and not FREE_WORKSPACES:
        FREE_WORKSPACES.append(room)
    return 0


# --- arrays ---------------------------------------------------------------------------------------


cdef char *pointer(array) except? NULL:
    """Return the address of an array's first element. Raise ValueError if the elements are
    misaligned.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_STRIDES)
    cdef char *start = <char *>view.buf
    cdef bint odd = view.itemsize > 0 and <uintptr_t>start % view.itemsize != 0
    PyBuffer_Release(&view)
    if odd:
        raise ValueError(
            f"a {array.dtype} array must be aligned, got an array of shape {array.shape} at an odd "
            "address. Use numpy.require(x, None, 'A')."
        )
    return start


cdef char *vector_address(array, Py_ssize_t n, dtype, bint written) except? NULL:
    """Return the address of a vector's elements, or NULL if the array does not qualify. A
    qualifying array is a contiguous, aligned ndarray of shape (n,) and of exactly this dtype, and
    is writeable if `written` is True.
    """
    cdef Py_buffer view
    cdef char *start = NULL
    if type(array) is not ndarray or (array.dtype is not dtype and array.dtype != dtype):
        return NULL
    # PyBUF_STRIDES leaves out the format string, which would take about a microsecond to build.
    PyObject_GetBuffer(array, &view, PyBUF_STRIDES)
    if (
        view.ndim == 1 and view.shape[0] == n and (view.strides[0] == view.itemsize or n == 1)
        and <uintptr_t>view.buf % view.itemsize == 0 and not (written and view.readonly)
    ):
        start = <char *>view.buf
    PyBuffer_Release(&view)
    return start


cdef inline char *align_up(char *x) noexcept nogil:
    """Return x rounded up to a multiple of FC_ALIGN bytes."""
    return x + (-<Py_ssize_t><uintptr_t>x % FC_ALIGN + FC_ALIGN) % FC_ALIGN


def empty_padded_rows(Py_ssize_t rows, Py_ssize_t cols, dtype):
    """Return an uninitialised array of shape (rows, leading dimension) for a padded matrix of shape
    (rows, cols).
    """
    cdef Py_ssize_t size = np.dtype(dtype).itemsize, ld = padded_ld(cols, size), shift
    owner = np.empty(<object>rows * ld + FC_ALIGN // size, dtype)
    shift = (align_up(pointer(owner)) - pointer(owner)) // size
    return owner[shift:shift + rows * ld].reshape(-1, ld)


def padded_copy(array, Py_ssize_t extra_rows=0, fill=0):
    """Copy a 2-D array into a padded matrix that has `extra_rows` further rows. Set the padding and
    the further rows to `fill`. Return the triple (owner of the memory, view of shape (rows, cols),
    leading dimension).
    """
    array = np.atleast_2d(array)
    whole = empty_padded_rows(array.shape[0] + extra_rows, array.shape[1], array.dtype)
    whole[...] = fill
    view = whole[:array.shape[0], :array.shape[1]]
    view[...] = array
    return whole, view, whole.shape[1]


# --- columns of a block as rows -------------------------------------------------------------------

cdef enum: TRANSPOSE_PART_ROWS = 2048   # rows of V per part of the job


cdef struct Columns:
    const fc_table *K
    Py_ssize_t n, k, rs, cs
    const char *block
    char *out


cdef void transpose_columns_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Transpose one range of rows of V, as one part of a job of the thread team."""
    cdef Columns *t = <Columns *>context
    t.K.transpose_columns(
        t.n, t.k, t.block, t.rs, t.cs, part * TRANSPOSE_PART_ROWS,
        min(t.n, (part + 1) * TRANSPOSE_PART_ROWS),
        t.out, t.n
    )


def copy_transpose(V, out, int threads=1):
    """Set out = V' in one pass over V. V (n, k) has the dtype of out and may have any strides that
    are multiples of its item size. The array out (k, n) is contiguous.
    """
    cdef Columns t
    cdef fc_watch before
    cdef Py_ssize_t size = V.itemsize
    if V.ndim != 2 or V.dtype.char not in "fd":
        raise ValueError(
            f"V must be a float32 or float64 array of shape (n, k), got {V.dtype}, shape {V.shape}."
        )
    if out.shape != V.shape[::-1] or out.dtype != V.dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"out must be a contiguous {V.dtype} array of shape {V.shape[::-1]}, got {out.dtype}, "
            f"shape {out.shape}, contiguous={out.flags.c_contiguous}."
        )
    if not V.flags.aligned or V.strides[0] % size or V.strides[1] % size:
        raise ValueError(
            f"V must be aligned with strides that are multiples of {size} bytes, got "
            f"strides {V.strides} and alignment {V.flags.aligned}."
        )
    if not V.size:
        return out
    t.K = &current_kernel_table()[size == 8]
    t.n, t.k, t.rs = V.shape[0], V.shape[1], V.strides[0] // size
    t.cs = V.strides[1] // size
    t.block, t.out = <const char *>pointer(V), pointer(out)
    with nogil:
        before = begin_signal_watch()
        fc_team_run(
            threads if t.n * t.k > 50000 else 1,
            (t.n + TRANSPOSE_PART_ROWS - 1) // TRANSPOSE_PART_ROWS,
            transpose_columns_part, &t
        )
        end_signal_watch(before)
    return out
