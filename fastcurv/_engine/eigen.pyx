"""Eigenvalues and eigenvectors of dense symmetric matrices, by LAPACK without the GIL, and of
tridiagonal matrices, by rotations.

`Tridiagonal` serves large matrices of which only a few eigenvectors are needed. With

    A = Q T Q',    T = S diag(values) S'

the tridiagonal form takes 4/3 n^3 operations and all eigenvalues of T take n^2 rotations. Each
eigenvector ``Q s`` takes another n^2 rotations and 2 n^2 operations. The cost of the eigenvalues
and a few eigenvectors is thus less than half of that of the full decomposition.
`SmallEigensystem` serves projected operators, which grow by a few rows and are diagonalised
repeatedly.
"""
import numpy as np

from libc.math cimport INFINITY, fabs, fmax, frexp, isfinite, ldexp, sqrt
from libc.string cimport memcpy, memset
from scipy.linalg.cython_lapack cimport dormtr, dsyevd, dsytrd

# --- projected operators --------------------------------------------------------------------------

cdef enum Which:
    WHICH_LA, WHICH_SA, WHICH_BE, WHICH_LM

cdef dict WHICH_BY_NAME = {"LA": WHICH_LA, "SA": WHICH_SA, "BE": WHICH_BE, "LM": WHICH_LM}


cdef extern from "tridiagonal.h" nogil:
    Py_ssize_t fc_rotations(
        Py_ssize_t m, double *d, double *e, double *first, double *last, fc_rotation *kept,
        Py_ssize_t room
    )
    void fc_growth(
        Py_ssize_t m, const double *d, const double *e, Py_ssize_t step, Py_ssize_t count,
        const double *x, double *out
    )


class NotFiniteError(ValueError):
    """Error raised if results of this library, or its inputs, contain NaN or infinity."""


cdef bint whiten(Py_ssize_t s, const double *gram, double *R, double *work) noexcept nogil:
    """Compute a lower triangular matrix R (s, s) with R gram R' = I, where `gram` is the Gram
    matrix of s rows. A row that depends linearly on the rows before it is treated as if its
    remainder had the size of rounding. Return False if `gram` is not finite.
    """
    cdef Py_ssize_t i, j, k
    cdef double one, trace = 0
    for i in range(s):
        trace += gram[i * s + i]
    if not isfinite(trace):
        return False
    memset(R, 0, s * s * sizeof(double))
    for i in range(s):          # work = Cholesky factor of gram
        for j in range(i + 1):
            one = gram[i * s + j] - dot_doubles(j, work + i * s, work + j * s)
            if j < i:
                work[i * s + j] = one / work[j * s + j]
            else:
                work[i * s + i] = sqrt(fmax(one, s * DBL_EPSILON * trace))
    for j in range(s):          # R = inverse of the factor
        R[j * s + j] = 1 / work[j * s + j]
        for i in range(j + 1, s):
            one = 0
            for k in range(j, i):
                one -= work[i * s + k] * R[k * s + j]
            R[i * s + j] = one / work[i * s + i]
    return True


cdef class Scratchpad:
    """A buffer of doubles that is reused and grows on demand."""
    cdef object numbers
    cdef double *at
    cdef Py_ssize_t size

    cdef double *reserve(self, Py_ssize_t count) except NULL:
        """Return the address of `count` doubles. If the buffer has to grow, its contents are lost.
        """
        if count > self.size or not self.size:
            self.size = count + count // 2 + 32
            self.numbers = np.empty(self.size)
            self.at = <double *>pointer(self.numbers)
        return self.at


cdef object as_float64_vector(x, str name, Py_ssize_t count=-1):
    """Return x as a contiguous float64 vector. Raise ValueError, with `name` for x, unless x has
    the shape (count,) or, if count is negative, is one-dimensional.
    """
    x = np.ascontiguousarray(x, np.float64)
    if x.ndim != 1 or 0 <= count != len(x):
        raise ValueError(
            f"{name} must have shape ({'m' if count < 0 else count},), got {x.shape}."
        )
    return x


cdef int check_float64_array(x, str name, shape) except -1:
    """Raise ValueError, with `name` for x, unless x is a writeable C-ordered float64 array of this
    shape.
    """
    if x.shape != shape or x.dtype != np.float64 or not (x.flags.carray and x.flags.aligned):
        raise ValueError(
            f"{name} must be writeable C-ordered float64 of shape {shape}, got {x.dtype} of "
            f"shape {x.shape}, strides {x.strides} and writeable={x.flags.writeable}."
        )
    return 0


cdef object array_from_doubles(Py_ssize_t count, const double *x):
    """Return a new float64 array with a copy of the `count` doubles at x."""
    found = np.empty(count)
    memcpy(pointer(found), x, count * sizeof(double))
    return found


cdef class SmallEigensystem:
    """Eigenvalues of a symmetric matrix in ascending order, the first and the last entry of each
    eigenvector, and any eigenvector on request.
    """
    cdef Scratchpad numbers, kept, matrix, columns
    cdef readonly Py_ssize_t m
    cdef Py_ssize_t count, room
    cdef double *values
    cdef double *first
    cdef double *last
    cdef double *scratch        # scratch buffer of 3 m doubles
    cdef double *given          # tridiagonal matrix of the last call, valid if `known` equals m
    cdef Py_ssize_t known
    cdef double *dense          # eigenvectors as rows, or NULL if they are stored as rotations
    cdef fc_rotation *turns
    cdef Py_ssize_t *order      # permutation that sorts the eigenvalues of the rotated matrix
    cdef int exponent           # exponent of the power of two by which the matrix was divided

    def __cinit__(self):
        self.numbers, self.kept = Scratchpad(), Scratchpad()
        self.matrix, self.columns = Scratchpad(), Scratchpad()

    cdef int set_size(self, Py_ssize_t m) except -1:
        """Set the number of eigenvalues to m, and allocate buffers for them."""
        self.values = self.numbers.reserve(9 * m)
        self.first, self.last = self.values + m, self.values + 2 * m
        self.scratch, self.given = self.values + 3 * m, self.values + 6 * m
        self.order, self.m = <Py_ssize_t *>(self.values + 8 * m), m
        return 0

    cdef bint compare_and_store_matrix(self, Py_ssize_t m, const double *T, Py_ssize_t ld) noexcept:
        """Return True if the tridiagonal matrix T equals that of the last call. Store T for the
        next comparison.
        """
        cdef bint same = self.known == m
        cdef Py_ssize_t i
        cdef double off_diagonal
        for i in range(m):
            off_diagonal = T[i * (ld + 1) + 1] if i < m - 1 else 0
            same = same and self.given[i] == T[i * (ld + 1)] and self.given[m + i] == off_diagonal
            self.given[i], self.given[m + i] = T[i * (ld + 1)], off_diagonal
        self.known = m if same else -1
        return same

    cdef int set_exponent(self, double largest) except -1:
        """Set `exponent` to the binary exponent of `largest`, the largest absolute entry. Raise
        NotFiniteError if `largest` is not finite.
        """
        self.exponent = 0
        frexp(largest, &self.exponent)
        if not isfinite(largest):
            raise NotFiniteError(
                "the projected matrix must hold finite numbers, got NaN or infinity."
            )
        return 0

    cdef bint diagonalise_by_rotations(
        self, Py_ssize_t m, const double *T, Py_ssize_t ld
    ) except? False:
        """Diagonalise the tridiagonal matrix T (m, m) by rotations. Return False if the iteration
        does not converge.
        """
        cdef Py_ssize_t i, j, at
        cdef double largest = 0, total = 0
        cdef double *d
        self.set_size(m)
        for i in range(m):
            largest = fmax(largest, fabs(T[i * (ld + 1)]))
            total += 0 * T[i * (ld + 1)]
            if i < m - 1:
                largest = fmax(largest, fabs(T[i * (ld + 1) + 1]))
                total += 0 * T[i * (ld + 1) + 1]
        self.set_exponent(largest if total == 0 else INFINITY)
        if self.compare_and_store_matrix(m, T, ld):
            return True
        self.room, self.count, d = 3 * m * m // 2 + 64, 0, self.scratch
        while True:
            self.turns = <fc_rotation *>self.kept.reserve(3 * self.room)
            for i in range(m):
                d[i] = ldexp(T[i * (ld + 1)], -self.exponent)
                d[m + i] = ldexp(T[i * (ld + 1) + 1], -self.exponent) if i < m - 1 else 0
            with nogil:
                self.count = fc_rotations(
                    m, d, d + m, self.first, self.last, self.turns, self.room
                )
            if self.count <= self.room:
                break
            self.room = self.count
        if self.count < 0:
            self.m = 0          # no eigenvectors are available after a failure
            return False
        self.known = m
        for i in range(m):      # insertion sort, since the values are nearly sorted
            j = i
            while j > 0 and d[self.order[j - 1]] > d[i]:
                self.order[j] = self.order[j - 1]
                j -= 1
            self.order[j] = i
        memcpy(d + m, self.first, m * sizeof(double))
        memcpy(d + 2 * m, self.last, m * sizeof(double))
        for i in range(m):
            at = self.order[i]
            self.values[i] = ldexp(d[at], self.exponent)
            self.first[i], self.last[i] = d[m + at], d[2 * m + at]
        self.dense = NULL
        return True

    cdef int diagonalise_by_lapack(
        self, Py_ssize_t size, const double *T, Py_ssize_t ld
    ) except -1:
        """Diagonalise the symmetric matrix T (size, size) by LAPACK."""
        cdef int m = size, failed = 0, numbers = 1 + 6 * m + 2 * m * m, integers = 3 + 5 * m
        cdef Py_ssize_t i, j
        cdef double largest = 0, total = 0
        cdef double *work
        cdef int *integer
        self.set_size(m)
        self.known = -1
        for i in range(m):
            for j in range(i + 1):
                largest = fmax(largest, fabs(T[i * ld + j]))
                total += 0 * T[i * ld + j]
        self.set_exponent(largest if total == 0 else INFINITY)
        self.dense = self.matrix.reserve(numbers + size * size + integers)
        work = self.dense + size * size
        integer = <int *>(work + numbers)
        for i in range(m):
            for j in range(m):
                self.dense[i * m + j] = ldexp(T[i * ld + j], -self.exponent)
        with nogil:
            dsyevd(
                "V", "U", &m, self.dense, &m, self.values, work, &numbers,
                integer, &integers, &failed
            )
        if failed:
            raise np.linalg.LinAlgError("LAPACK's dsyevd failed on a finite symmetric matrix.")
        for i in range(m):
            self.values[i] = ldexp(self.values[i], self.exponent)
        self.set_first_and_last_components()
        return 0

    cdef void set_first_and_last_components(self) noexcept:
        """Set `first` and `last` from the eigenvectors in `dense`."""
        cdef Py_ssize_t m = self.m, i
        for i in range(m):
            self.first[i], self.last[i] = self.dense[i * m], self.dense[i * m + m - 1]

    cdef int combine_eigenvectors(self, const double *y, double *out) except -1:
        """Set out (m,) = S y, where the columns of S are the eigenvectors. The vectors y and out
        must not overlap.
        """
        cdef Py_ssize_t m = self.m, i, j
        cdef double *x
        if self.dense == NULL:
            x = self.columns.reserve(FC_ROTATED_COLUMNS * m)
            memset(x, 0, FC_ROTATED_COLUMNS * m * sizeof(double))
            for i in range(m):
                x[FC_ROTATED_COLUMNS * self.order[i]] = y[i]
            (current_kernel_table() + 1).rotate(FC_ROTATED_COLUMNS, x, self.turns, self.count)
            for i in range(m):
                out[i] = x[FC_ROTATED_COLUMNS * i]
            return 0
        memset(out, 0, m * sizeof(double))
        for j in range(m):
            for i in range(m):
                out[i] += self.dense[j * m + i] * y[j]
        return 0

    cdef object eigenvectors(self, Py_ssize_t k, const Py_ssize_t *which):
        """Return the eigenvectors of the k eigenvalues with the indices `which`, as rows (k, m)."""
        cdef Py_ssize_t m = self.m, i, j, lanes
        lanes = (k + FC_ROTATED_COLUMNS - 1) // FC_ROTATED_COLUMNS * FC_ROTATED_COLUMNS
        rows = np.empty((k, m))
        cdef double *s = <double *>pointer(rows) if k else NULL
        cdef double *x
        cdef double unit
        cdef const fc_table *K = current_kernel_table() + 1
        if self.dense != NULL:
            for i in range(k):
                memcpy(s + i * m, self.dense + which[i] * m, m * sizeof(double))
            return rows
        x = self.columns.reserve(m * lanes)
        memset(x, 0, m * lanes * sizeof(double))
        with nogil:
            for i in range(k):
                x[self.order[which[i]] * lanes + i] = 1
            K.rotate(lanes, x, self.turns, self.count)
            # Each rotation is orthogonal only up to rounding, so the vectors are normalised again.
            for i in range(k):
                unit = 0
                for j in range(m):
                    unit += x[j * lanes + i] * x[j * lanes + i]
                unit = 1 / sqrt(unit)
                for j in range(m):
                    s[i * m + j] = x[j * lanes + i] * unit
        return rows


cdef Py_ssize_t count_wanted_at_low_end(
    Py_ssize_t m, const double *values, Py_ssize_t k, Which which
) noexcept:
    """Return how many of the k wanted eigenvalues lie at the low end of the ascending `values`. The
    others lie at the high end.
    """
    cdef Py_ssize_t low = 0, high = m - 1, _k
    if which != WHICH_LM:
        return 0 if which == WHICH_LA else k if which == WHICH_SA else k // 2
    for _k in range(k):
        if fabs(values[high]) >= fabs(values[low]):
            high -= 1
        else:
            low += 1
    return low


def wanted_indices(values, Py_ssize_t k, str which):
    """Return the ascending indices (k,) of the k wanted eigenvalues among the ascending `values`
    (m,). If k > m, return all m indices.
    """
    values = as_float64_vector(values, "values")
    cdef Py_ssize_t m = len(values), i, low
    k = max(0, min(k, m))
    at = np.empty(k, np.intp)
    if k:
        low = count_wanted_at_low_end(m, <double *>pointer(values), k, WHICH_BY_NAME[which])
        for i in range(k):
            (<Py_ssize_t *>pointer(at))[i] = i if i < low else m - k + i
    return at


# --- dense operators ------------------------------------------------------------------------------

cdef enum:
    REFLECTOR_BLOCK_SIZE = 32     # Householder reflectors applied in one block


cdef class Tridiagonal:
    """Tridiagonal form of a symmetric matrix A (n, n), float64 and C-ordered, with entries of at
    most about 1 in absolute value. A is overwritten.
    """
    cdef object A, tau
    cdef SmallEigensystem found
    cdef readonly Py_ssize_t n
    # Trace of A, and sum of squares of all entries of A.
    cdef readonly double trace, squares

    def __init__(self, A):
        if A.ndim != 2 or A.shape[0] != A.shape[1] or not A.size or A.dtype != np.float64:
            raise ValueError(
                f"A must be float64 of shape (n, n) with n >= 1, got {A.dtype} {A.shape}."
            )
        if not (A.flags.c_contiguous and A.flags.writeable and A.flags.aligned):
            raise ValueError(
                f"A must be writeable and C-ordered, got strides {A.strides} and "
                f"writeable={A.flags.writeable}."
            )
        cdef int n = A.shape[0], info, lwork = n * REFLECTOR_BLOCK_SIZE
        cdef Py_ssize_t i
        numbers, work = np.zeros((3, n)), np.empty(lwork)
        self.A, self.n, self.tau, self.found = A, n, numbers[2], SmallEigensystem()
        cdef double *a = <double *>pointer(A)
        cdef double *d = <double *>pointer(numbers)
        cdef double *room = <double *>pointer(work)
        self.trace = self.squares = 0
        with nogil:
            for i in range(n):
                self.trace += a[i * (n + 1)]
            for i in range(n * n):
                self.squares += a[i] * a[i]
            dsytrd("L", &n, a, &n, d, d + n, d + 2 * n, room, &lwork, &info)

    def eigenvalues(self):
        """Return all eigenvalues (n,) in ascending order, or None if the iteration does not
        converge.
        """
        # dsytrd has left T in the memory of A.
        if not self.found.diagonalise_by_rotations(self.n, <double *>pointer(self.A), self.n):
            return None
        return array_from_doubles(self.n, self.found.values)

    def eigenvectors(self, at):
        """Return the eigenvectors of the eigenvalues with the indices `at`, as orthonormal rows (k,
        n).
        """
        at = np.ascontiguousarray(at, np.intp)
        cdef int n = self.n, info = 0, k = len(at), lwork = n * REFLECTOR_BLOCK_SIZE
        if self.found.m != n or not all((at >= 0) & (at < n)):
            raise ValueError(f"at must be indices of the {n} values computed before, got {at}.")
        rows, work = self.found.eigenvectors(k, <Py_ssize_t *>pointer(at)), np.empty(lwork)
        cdef double *z = <double *>pointer(rows)
        cdef double *a = <double *>pointer(self.A)
        cdef double *tau = <double *>pointer(self.tau)
        cdef double *room = <double *>pointer(work)
        if n > 1:
            with nogil:
                dormtr("L", "L", "N", &n, &k, a, &n, tau, z, &n, room, &lwork, &info)
        return rows
