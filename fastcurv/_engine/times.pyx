"""Products of small operators, where each call of Python's is felt."""
import numpy as np

from libc.string cimport memset


empty = np.empty


cdef class Times:
    """The products of an operator, the short way; plan None: there is none. `count`: vectors that
    it has multiplied.
    """
    cdef Plan plan
    cdef Kind kind
    cdef bint l2
    cdef public Py_ssize_t count

    def __init__(self, Plan plan, str kind, bint l2):
        self.plan, self.kind, self.l2, self.count = plan, KINDS[kind], l2, 0

    cdef bint there(self) noexcept:
        return self.plan is not None

    cdef int into(self, char *v, char *out) except -1:
        """out (n,) = (the operator) v"""
        cdef Plan plan = self.plan
        cdef Job job
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.v, job.l2 = PRODUCT, self.kind, v, plan.l2 if self.l2 else 0
        plan.along(&job, 1, out, None)
        self.count += 1
        return 0

    def take(self, v, out=None):
        """(The operator) v into `out` or a new array, which is returned; None, and nothing done,
        where v or out is not as the engine takes them or they share memory.
        """
        cdef Plan plan = self.plan
        if plan is None:
            return None
        cdef Py_ssize_t n = plan.P.n, size = n * plan.P.K.real_bytes
        cdef char *v_ = ready(v, n, plan.dtype, False)
        if v_ == NULL:
            return None
        if out is None:
            out = empty(n, plan.dtype)
        cdef char *out_ = ready(out, n, plan.dtype, True)
        if out_ == NULL or (v_ < out_ + size and out_ < v_ + size):
            return None
        self.into(v_, out_)
        return out


cdef class MatrixTimes(Times):
    """The products of a symmetric matrix (n, n), C-ordered and of a dtype of the engine's, for a
    search in it.
    """
    cdef object A, sums
    cdef const fc_table *K
    cdef char *at
    cdef double *out
    cdef Py_ssize_t n

    def __init__(self, A):
        if A.dtype != np.float32 and A.dtype != np.float64 or A.ndim != 2 or (
            A.shape[0] != A.shape[1] or not A.flags.c_contiguous or not A.flags.aligned
        ):
            raise ValueError(f"A is {A.dtype} {A.shape}; wanted a C-ordered (n, n) of real numbers")
        self.A, self.n, self.K = A, len(A), &table_chosen()[A.itemsize == 8]
        self.sums = np.empty(self.n if A.itemsize == 4 else 0)
        self.at, self.out = pointer(A), <double *>pointer(self.sums) if A.itemsize == 4 else NULL

    cdef bint there(self) noexcept:
        return True

    cdef int into(self, char *v, char *out) except -1:
        cdef Py_ssize_t n = self.n, i
        cdef double *sums = <double *>out if self.out == NULL else self.out
        memset(sums, 0, n * sizeof(double))
        with nogil:
            self.K.dots(n, 1, n, self.at, n, v, n, sums, n)
        for i in range(n if self.out != NULL else 0):
            (<float *>out)[i] = <float>sums[i]
        self.count += 1
        return 0
