"""Sweeps over vectors that are rows of a matrix, for orthogonalisation; products of matrices of any
strides; a step of Adam.

Work is divided by sizes only, and sums are added in a fixed order, so results do not depend on the
number of threads.
"""
import numpy as np

from cpython.buffer cimport PyBUF_RECORDS_RO, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uintptr_t
from libc.string cimport memcmp, memcpy, memset


# A sweep over m rows q and s rows w of n elements each, for inner products or linear combinations.
# Each part of the job processes `width` columns.
cdef struct Sweep:
    const fc_table *K
    Py_ssize_t m, s, n, width, ldq, ldw
    const char *q
    char *w
    const double *c             # coefficients (s, m)
    const double *transform     # lower triangular matrix (s, s), used by `update_row_batch` only
    double *out                 # sums of each part


cdef enum:
    # minimum multiply-adds of a sweep, m s n, at which waking other threads saves time
    THREADED_SWEEP_MIN_MULTIPLY_ADDS = 2000000
    # Columns of a batch that are processed together, so that they stay in the L1 cache.
    BATCH_STRIP_COLUMNS = 512
    BATCH_UPDATE_ROWS = 4              # rows of a batch that are updated together


cdef Py_ssize_t columns_per_sweep_part(Py_ssize_t n) noexcept nogil:
    """Return the number of columns per part of a sweep over rows of n elements."""
    return max(8192, (n // 256 + 2047) // 2048 * 2048)


cdef void compute_dots_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Compute one part of W Q', as one part of a job of the thread team."""
    cdef Sweep *t = <Sweep *>context
    cdef Py_ssize_t a = part * t.width, shift = a * t.K.real_bytes
    t.K.dots(
        t.m, t.s, min(t.width, t.n - a), t.q + shift, t.ldq, t.w + shift, t.ldw,
        t.out + part * t.m * t.s, t.m
    )


cdef void subtract_combination_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Compute one part of W -= C Q and of the squared norms, as one part of a job of the thread
    team.
    """
    cdef Sweep *t = <Sweep *>context
    cdef Py_ssize_t a = part * t.width, shift = a * t.K.real_bytes
    t.K.subtract(
        t.m, t.s, min(t.width, t.n - a), t.q + shift, t.ldq, t.w + shift, t.ldw, t.c, t.m,
        t.out + part * t.s
    )


cdef void compute_dots_and_gram_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Compute one part of W Q' and of W W', as one part of a job of the thread team."""
    cdef Sweep *t = <Sweep *>context
    cdef Py_ssize_t a = part * t.width, shift = a * t.K.real_bytes
    cdef Py_ssize_t width = min(t.width, t.n - a), half = t.s // 2
    cdef double *out = t.out + part * (t.m + t.s) * t.s
    cdef double *gram = out + t.m * t.s
    cdef char *w = t.w + shift
    t.K.dots(t.m, t.s, width, t.q + shift, t.ldq, w, t.ldw, out, t.m)
    # Only the lower triangle of W W' is needed, so the two calls omit the upper right block.
    t.K.dots(half, half, width, w, t.ldw, w, t.ldw, gram, t.s)
    t.K.dots(
        t.s, t.s - half, width, w, t.ldw, w + half * t.ldw * t.K.real_bytes, t.ldw,
        gram + half * t.s, t.s
    )


cdef void update_row_batch_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Compute one part of W = -X (W - C Q), with X in `transform`, as one part of a job of the
    thread team.
    """
    cdef Sweep *t = <Sweep *>context
    cdef Py_ssize_t a = part * t.width, size = t.K.real_bytes, x = 0, i, cols
    cdef Py_ssize_t width = min(t.width, t.n - a)
    cdef Py_ssize_t first, end
    cdef char *w = t.w + a * size
    cdef char *rows
    cdef char *row
    cdef const double *transform
    if t.m:
        t.K.subtract(t.m, t.s, width, t.q + a * size, t.ldq, w, t.ldw, t.c, t.m, NULL)
    while x < width:
        cols = min(<Py_ssize_t>BATCH_STRIP_COLUMNS, width - x)
        end = t.s
        # The last row comes first, because each new row is a combination of the old rows before it.
        while end:
            first = (end - 1) // BATCH_UPDATE_ROWS * BATCH_UPDATE_ROWS
            rows = w + (first * t.ldw + x) * size
            for i in range(end - 1, first - 1, -1):
                row = w + (i * t.ldw + x) * size
                transform = t.transform + i * t.s + first
                t.K.scale(cols, -transform[i - first], row, row)
                if i > first:
                    t.K.subtract(i - first, 1, cols, rows, t.ldw, row, t.ldw, transform, t.s, NULL)
            if first:
                t.K.subtract(
                    first, end - first, cols, w + x * size, t.ldw, rows, t.ldw,
                    t.transform + first * t.s, t.s, NULL
                )
            end = first
        x += cols


cdef struct RowLayout:          # memory layout of a 2-D array whose rows are vectors
    char *at
    Py_ssize_t count, n, ld     # ld: elements from one row to the next
    char kind                   # 'f' or 'd'; 0: another dtype or not two-dimensional
    bint whole                  # True if the elements of each row are contiguous


cdef int describe_rows(array, RowLayout *rows) except -1:
    """Describe the memory layout of a 2-D array in `rows`."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_RECORDS_RO)
    memset(rows, 0, sizeof(RowLayout))
    if view.ndim == 2 and (view.format[0] == c"f" or view.format[0] == c"d"):
        rows.count, rows.n, rows.kind = view.shape[0], view.shape[1], view.format[0]
        rows.at, rows.ld = <char *>view.buf, view.strides[0] // view.itemsize
        rows.whole = (
            (rows.n <= 1 or view.strides[1] == view.itemsize)
            and view.strides[0] % view.itemsize == 0 and <uintptr_t>rows.at % view.itemsize == 0
        )
    PyBuffer_Release(&view)
    return 0


cdef Py_ssize_t set_sweep(Sweep *t, Q, W) except -1:
    """Set sizes and pointers of a sweep over the rows of Q and of W. Return the number of parts."""
    cdef RowLayout q, w
    describe_rows(Q, &q)
    w = q
    if W is not Q:
        describe_rows(W, &w)
    if not q.kind or q.kind != w.kind or q.n != w.n:
        raise ValueError(
            f"Q and W must have shapes (m, n) and (s, n) and one real dtype, got {Q.shape}, "
            f"{Q.dtype} and {W.shape}, {W.dtype}."
        )
    if not (q.whole and w.whole):
        raise ValueError(
            "Q and W must be aligned C-ordered arrays or whole rows of such arrays, got strides "
            f"{Q.strides} and {W.strides}."
        )
    t.K, t.m, t.s, t.n = &current_kernel_table()[q.kind == c"d"], q.count, w.count, q.n
    t.q, t.w, t.ldq, t.ldw, t.width = q.at, w.at, q.ld, w.ld, columns_per_sweep_part(q.n)
    return (t.n + t.width - 1) // t.width


cdef int sweep_threads(Sweep *t) except -1:
    """Return the number of threads for a sweep."""
    return default_n_threads() if t.m * t.s * t.n > THREADED_SWEEP_MIN_MULTIPLY_ADDS else 1


cdef void run_sweep_parts(Sweep *t, fc_part part, int threads, Py_ssize_t size) noexcept nogil:
    """Run all parts of a sweep, each of which computes `size` sums. The buffer `out` holds the sums
    of all parts. On return its first `size` elements are the totals, added in order.
    """
    cdef Py_ssize_t parts = (t.n + t.width - 1) // t.width, i
    memset(t.out, 0, max(<Py_ssize_t>1, parts) * size * sizeof(double))
    if parts == 1:
        part(t, 0, 0)
        return
    fc_team_run(threads, parts, part, t)
    for i in range(size, parts * size):
        t.out[i % size] += t.out[i]


cdef void compute_dots(Sweep *t, int threads) noexcept nogil:
    """Compute out (s, m) = W Q'."""
    run_sweep_parts(t, compute_dots_part, threads, t.m * t.s)


cdef void subtract_combination(Sweep *t, int threads) noexcept nogil:
    """Compute W -= C Q, and out (s,) = the squared norms of the new rows."""
    run_sweep_parts(t, subtract_combination_part, threads, t.s)


cdef void compute_dots_and_gram(Sweep *t, int threads) noexcept nogil:
    """Compute out (s, m) = W Q', followed by W W' (s, s), of which only the lower triangle is
    valid.
    """
    run_sweep_parts(t, compute_dots_and_gram_part, threads, (t.m + t.s) * t.s)


cdef void update_row_batch(Sweep *t, int threads) noexcept nogil:
    """Compute W = -X (W - C Q) with the lower triangular X (s, s) in `transform`. Nothing is
    written to `out`.
    """
    run_sweep_parts(t, update_row_batch_part, threads, 0)


cdef enum: MAX_SWEEP_PARTS = 512    # maximum number of parts of a sweep


def inner_product(x, y):
    """Return the inner product of two contiguous vectors of equal length and of one native real
    dtype, or None if the arrays are of another form. Short sums are accumulated in the dtype and
    added in double precision.
    """
    cdef Sweep t
    cdef double sums[MAX_SWEEP_PARTS]
    cdef fc_watch before
    cdef Py_ssize_t n = x.size
    cdef char *q = vector_address(x, n, x.dtype, False)
    cdef char *w = vector_address(y, n, x.dtype, False)
    if q == NULL or w == NULL or x.dtype.char not in "fd" or not x.dtype.isnative:
        return None
    t.K = &current_kernel_table()[x.itemsize == 8]
    t.m, t.s, t.n, t.ldq, t.ldw, t.width, t.q, t.w = 1, 1, n, n, n, columns_per_sweep_part(n), q, w
    t.out = sums
    cdef int threads = sweep_threads(&t)
    with nogil:
        before = begin_signal_watch()
        compute_dots(&t, threads)
        end_signal_watch(before)
    return sums[0]


def equal_vectors(x, y):
    """Return True if two vectors have equal elements. Contiguous vectors of one dtype are compared
    bitwise.
    """
    cdef Py_ssize_t n = x.size
    cdef char *a = vector_address(x, n, x.dtype, False)
    cdef char *b = vector_address(y, n, x.dtype, False)
    if a == NULL or b == NULL:
        return np.array_equal(x, y)
    return memcmp(a, b, n * x.itemsize) == 0


def project_rows(Q, W):
    """Return ``W Q'`` (s, m) in float64, for rows Q (m, n) and W (s, n) of one dtype. Long sums are
    divided into parts, which are added in order.
    """
    cdef Sweep t
    cdef fc_watch before
    cdef Py_ssize_t parts = set_sweep(&t, Q, W)
    cdef int threads = sweep_threads(&t)
    sums = np.empty((max(parts, 1), W.shape[0], Q.shape[0]))
    t.out = <double *>pointer(sums)
    if sums.size:
        with nogil:
            before = begin_signal_watch()
            compute_dots(&t, threads)
            end_signal_watch(before)
    return sums[0]


def subtract_rows(Q, W, C):
    """Subtract ``C Q`` from W (s, n) in place, for rows Q (m, n) and coefficients C (s, m). Return
    the squared norms (s,) of the new rows in float64.
    """
    cdef Sweep t
    cdef fc_watch before
    cdef Py_ssize_t parts = set_sweep(&t, Q, W)
    cdef int threads = sweep_threads(&t)
    C = np.ascontiguousarray(C, np.float64)
    if C.shape != (W.shape[0], Q.shape[0]):
        raise ValueError(f"C must have shape {(W.shape[0], Q.shape[0])}, got {C.shape}.")
    if not W.flags.writeable:
        raise ValueError("W must be writeable, got a read-only array.")
    squares = np.empty((max(parts, 1), W.shape[0]))
    t.c, t.out = <const double *><uintptr_t>C.ctypes.data, <double *><uintptr_t>squares.ctypes.data
    if W.size and t.m:
        with nogil:
            before = begin_signal_watch()
            subtract_combination(&t, threads)
            end_signal_watch(before)
        return squares[0]
    return np.array([float(np.einsum("i,i->", w, w, dtype=np.float64)) for w in W])


cdef enum:
    COMBINE_PART_COLUMNS = 2048      # columns that are processed together
    # Bytes added to the distance between rows of the scratch buffer, so that rows do not share
    # cache sets.
    ROW_PADDING_BYTES = 1024


cdef struct Combined:
    Sweep sweep                 # sweep whose output w is overwritten, not updated
    char *scratch               # (s, lds) per thread
    # leading dimension: min(COMBINE_PART_COLUMNS, n) plus ROW_PADDING_BYTES bytes
    Py_ssize_t lds


cdef void combine_rows_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Compute one range of columns of S' Q, as one part of a job of the thread team."""
    cdef Combined *combined = <Combined *>context
    cdef Sweep *t = &combined.sweep
    cdef Py_ssize_t a = part * COMBINE_PART_COLUMNS, size = t.K.real_bytes, r
    cdef Py_ssize_t width = min(<Py_ssize_t>COMBINE_PART_COLUMNS, t.n - a)
    cdef Py_ssize_t line = combined.lds * size
    cdef char *rows = combined.scratch + member * t.s * line
    for r in range(t.s):
        memset(rows + r * line, 0, width * size)
    t.K.subtract(
        t.m, t.s, width, t.q + a * size, t.ldq, rows, combined.lds, t.c, t.m, NULL
    )
    for r in range(t.s):
        memcpy(t.w + (r * t.ldw + a) * size, rows + r * line, width * size)


def combine_rows(Q, S, Y):
    """Set ``Y = S' Q`` for rows Q (m, n), coefficients S (m, s) and rows Y (s, n) of Q's dtype. The
    rows Y may be the first rows of Q.
    """
    cdef Combined combined
    cdef Sweep *t = &combined.sweep
    cdef fc_watch before
    if S.shape != (Q.shape[0], Y.shape[0]):
        raise ValueError(f"S must have shape {(Q.shape[0], Y.shape[0])}, got {S.shape}.")
    if not Y.flags.writeable:
        raise ValueError("Y must be writeable, got a read-only array.")
    if not (Y.size and Q.size):
        Y[...] = 0
        return Y
    set_sweep(t, Q, Y)
    cdef int threads = sweep_threads(t)
    C = np.negative(np.asarray(S, np.float64).T, order="C")
    combined.lds = min(<Py_ssize_t>COMBINE_PART_COLUMNS, t.n) + ROW_PADDING_BYTES // t.K.real_bytes
    scratch = np.empty((threads, t.s, combined.lds), Q.dtype)
    t.c, combined.scratch = <const double *>pointer(C), <char *>pointer(scratch)
    with nogil:
        before = begin_signal_watch()
        fc_team_run(
            threads, (t.n + COMBINE_PART_COLUMNS - 1) // COMBINE_PART_COLUMNS, combine_rows_part,
            &combined
        )
        end_signal_watch(before)
    return Y


# --- activations outside of a pass ----------------------------------------------------------------


def activate(activation, z):
    """Return phi(z) of a 2-D array z, computed by the kernel that passes use. The argument
    `activation` has the form that `Plan` accepts.
    """
    cdef const fc_table *K = &current_kernel_table()[z.itemsize == 8]
    cdef Py_ssize_t ld
    cdef char *start
    if not isinstance(activation, str):
        return activation.rounded(z)[0]
    cdef int phi = ACTIVATIONS[activation]
    cdef fc_arithmetic before
    whole, view, ld = padded_copy(z)
    start = pointer(whole)
    before = fc_arithmetic_begin()
    K.activate(<fc_activation>phi, z.shape[0], z.shape[1], start, ld, start, ld, NULL, 0, NULL, 0)
    fc_arithmetic_end(before)
    return view.copy()


# --- products of matrices of any strides ----------------------------------------------------------

cdef class MatrixMultiplier:
    """Products ``out = [out +] A B`` of 2-D arrays of one dtype and any strides, on at most
    `threads` threads of the thread team. Results are bitwise identical for any number of threads.
    The scratch memory is reused, so only one thread at a time may call an object.

    A is read in place and B is packed, so B should be the smaller matrix.
    """
    cdef const fc_table *K
    cdef char *scratch
    cdef Py_ssize_t step
    cdef int threads
    cdef object owner

    def __init__(self, dtype, int threads):
        cdef Py_ssize_t size = np.dtype(dtype).itemsize
        self.K = &current_kernel_table()[size == 8]
        self.threads = max(1, min(threads, FC_MAX_THREADS))
        lines = np.zeros((self.threads, self.K.scratch // size + 64), dtype)
        self.owner = padded_copy(lines)[0]
        self.scratch, self.step = pointer(self.owner), self.owner.shape[1] * size

    def __call__(self, out, A, B, bint add=False):
        cdef Py_ssize_t size = out.itemsize
        cdef fc_product job
        cdef fc_watch before
        if (
            out.shape != (A.shape[0], B.shape[1]) or A.shape[1] != B.shape[0]
            or not A.dtype == B.dtype == out.dtype or size != self.K.real_bytes
        ):
            raise ValueError(
                "A, B and out must have shapes (m, k), (k, n) and (m, n) and one dtype, got "
                f"{A.dtype} {A.shape}, {B.dtype} {B.shape} and {out.dtype} {out.shape}."
            )
        if out.shape[1] > 1 and out.strides[1] != size:
            if out.strides[0] != size:
                raise ValueError(
                    f"out must have contiguous rows or columns, got strides {out.strides}."
                )
            return self(out.T, B.T, A.T, add).T
        if not out.size:
            return out
        if not A.shape[1]:
            if not add:
                out[...] = 0
            return out
        job = describe_product(
            A.shape[0], B.shape[1], A.shape[1],
            pointer(A), A.strides[0] // size, A.strides[1] // size,
            pointer(B), B.strides[0] // size, B.strides[1] // size,
            pointer(out), out.strides[0] // size, add
        )
        with nogil:
            before = begin_signal_watch()
            run_items(self.K, &job, self.threads, self.scratch, self.step)
            end_signal_watch(before)
        return out


# --- a step of Adam -------------------------------------------------------------------------------


def adam_step(
    theta, g, average, squares, double keep_m, double keep_s, double correction, double rate,
    double eps
):
    """Update contiguous vectors of one real dtype in place by one step of Adam:

        average = keep_m average + (1 - keep_m) g
        squares = keep_s squares + (1 - keep_s) g^2
        theta -= rate average / (sqrt(correction squares) + eps)
    """
    cdef fc_adam how = fc_adam(keep_m, keep_s, correction, rate, eps)
    cdef const fc_table *K = &current_kernel_table()[theta.itemsize == 8]
    cdef Py_ssize_t n = theta.size
    cdef fc_arithmetic before
    for name, x in (("theta", theta), ("g", g), ("average", average), ("squares", squares)):
        if x.shape != (n,) or x.dtype != theta.dtype or x.dtype.char not in "fd":
            raise ValueError(
                f"{name} must have shape ({n},) and the real dtype of theta, got {x.dtype} of "
                f"shape {x.shape}."
            )
        if not x.flags.c_contiguous or not x.flags.aligned or not (x is g or x.flags.writeable):
            raise ValueError(
                f"{name} must be{' contiguous' if x is g else ' writeable and contiguous'}, got "
                f"strides {x.strides} and writeable={x.flags.writeable}."
            )
    cdef char *by = pointer(g)
    cdef char *m = pointer(average)
    cdef char *s = pointer(squares)
    cdef char *to = pointer(theta)
    with nogil:
        before = fc_arithmetic_begin()
        K.adam(n, &how, by, m, s, to)
        fc_arithmetic_end(before)
