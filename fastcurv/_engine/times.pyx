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
    cdef object dtype
    cdef Py_ssize_t n
    cdef public Py_ssize_t count

    def __init__(self, Plan plan, str kind, bint l2):
        self.plan, self.kind, self.l2, self.count = plan, KINDS[kind], l2, 0
        if plan is not None:
            self.n, self.dtype = plan.P.n, plan.dtype

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
        if not self.there():
            return None
        cdef char *v_ = ready(v, self.n, self.dtype, False)
        if v_ == NULL:
            return None
        if out is None:
            out = empty(self.n, self.dtype)
        cdef char *out_ = ready(out, self.n, self.dtype, True)
        cdef Py_ssize_t size = v.nbytes
        if out_ == NULL or (v_ < out_ + size and out_ < v_ + size):
            return None
        self.into(v_, out_)
        return out


cdef class MatrixTimes(Times):
    """The products of a matrix (n, n) that is symmetric to the bit, C-ordered and of a dtype of the
    engine's, for a search in it.
    """
    cdef object A
    cdef const fc_table *K
    cdef char *at

    def __init__(self, A):
        if A.dtype != np.float32 and A.dtype != np.float64 or A.ndim != 2 or (
            A.shape[0] != A.shape[1] or not A.flags.c_contiguous or not A.flags.aligned
        ):
            raise ValueError(f"A is {A.dtype} {A.shape}; wanted a C-ordered (n, n) of real numbers")
        self.A, self.n, self.dtype = A, len(A), A.dtype
        self.K, self.at = &table_chosen()[A.itemsize == 8], pointer(A)

    cdef bint there(self) noexcept:
        return True

    cdef int into(self, char *v, char *out) except -1:
        with nogil:
            self.K.symmetric(self.n, self.at, self.n, v, out)
        self.count += 1
        return 0
