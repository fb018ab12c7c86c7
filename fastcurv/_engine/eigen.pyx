"""A symmetric matrix in tridiagonal form, by LAPACK without the interpreter's lock:

    A = Q T Q',    T = S diag(values) S'

All eigenvalues of T cost n^2 operations, and each vector ``Q s`` 2 n^2 more, beside the 4/3 n^3 of
the form itself: a few vectors come at the price of the values, less than half that of all.
"""
from scipy.linalg.cython_lapack cimport dormtr, dstebz, dstein, dsterf, dsytrd

cdef enum: REFLECTORS = 32              # applied at a time


cdef class Tridiagonal:
    """The form of A (n, n), float64, C-ordered and symmetric, which is overwritten."""
    cdef object A, d, e, tau, work
    cdef readonly Py_ssize_t n

    def __init__(self, A):
        if A.ndim != 2 or A.shape[0] != A.shape[1] or not A.size or A.dtype != np.float64:
            raise ValueError(f"A is {A.dtype} {A.shape}; wanted float64 (n, n) with n >= 1")
        if not (A.flags.c_contiguous and A.flags.writeable and A.flags.aligned):
            raise ValueError("A is read-only or not contiguous; wanted a C-ordered array")
        cdef int n = A.shape[0], info, lwork = n * REFLECTORS
        self.A, self.n = A, n
        self.d, self.e, self.tau = np.empty(n), np.zeros(n), np.zeros(n)
        self.work = np.empty(lwork)
        cdef double *a = <double *>pointer(A)
        cdef double *d = <double *>pointer(self.d)
        cdef double *e = <double *>pointer(self.e)
        cdef double *tau = <double *>pointer(self.tau)
        cdef double *work = <double *>pointer(self.work)
        with nogil:
            dsytrd("L", &n, a, &n, d, e, tau, work, &lwork, &info)

    def values(self):
        """All eigenvalues (n,), ascending; None where LAPACK found none."""
        cdef int n = self.n, info
        values, beside = self.d.copy(), self.e.copy()
        cdef double *d = <double *>pointer(values)
        cdef double *e = <double *>pointer(beside)
        with nogil:
            dsterf(&n, d, e, &info)
        return values if info == 0 else None

    def vectors(self, Py_ssize_t first, Py_ssize_t last):
        """Orthonormal rows (last - first, n): the eigenvectors of the values first to last - 1, by
        bisection and inverse iteration; None where LAPACK found no such.
        """
        if not 0 <= first < last <= self.n:
            raise ValueError(f"vectors {first} to {last} of {self.n}; wanted 0 <= first < last")
        cdef int n = self.n, info, found = 0, parts, il = first + 1, iu = last, count = last - first
        cdef int lwork = self.work.size
        cdef double nothing = 0, within = 0
        rows, numbers = np.empty((count, n)), np.empty(6 * n + n)
        whole = np.empty(6 * n, np.intc)
        cdef double *z = <double *>pointer(rows)
        cdef double *a = <double *>pointer(self.A)
        cdef double *d = <double *>pointer(self.d)
        cdef double *e = <double *>pointer(self.e)
        cdef double *tau = <double *>pointer(self.tau)
        cdef double *large = <double *>pointer(self.work)
        cdef double *w = <double *>pointer(numbers)
        cdef double *work = w + n
        cdef int *block = <int *>pointer(whole)
        cdef int *split = block + n
        cdef int *iwork = split + n
        cdef int *failed = iwork + 3 * n
        with nogil:
            dstebz(
                "I", "B", &n, &nothing, &nothing, &il, &iu, &within, d, e, &found, &parts, w,
                block, split, work, iwork, &info
            )
            if info == 0 and found == count:
                dstein(&n, d, e, &found, w, block, split, z, &n, work, iwork, failed, &info)
            else:
                info = 1
            if info == 0 and n > 1:
                dormtr("L", "L", "N", &n, &found, a, &n, tau, z, &n, large, &lwork, &info)
        if info != 0:
            return None
        order = np.argsort(numbers[:count], kind="stable")
        return rows if parts == 1 else rows[order]
