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

    def __cinit__(self, Plan plan, str kind, bint l2):
        self.plan, self.kind, self.l2, self.count = plan, KINDS[kind], l2, 0

    def take(self, v, out=None):
        """(The operator) v into `out` or a new array, which is returned; None, and nothing done,
        where v or out is not as the engine takes them or they share memory.
        """
        cdef Plan plan = self.plan
        cdef Job job
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
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.v, job.l2 = PRODUCT, self.kind, v_, plan.l2 if self.l2 else 0
        plan.along(&job, 1, out_, None)
        self.count += 1
        return out
