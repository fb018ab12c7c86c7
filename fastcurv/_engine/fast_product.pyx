"""Products of small operators with a single vector, without the overhead of Python calls."""
import numpy as np

from libc.string cimport memset


empty = np.empty


cdef class FastProduct:
    """Products of the operator `kind` of a plan with contiguous vectors, with little overhead. If
    `plan` is None, no fast product is available. If `l2` is True, products include the l2 penalty.
    Attribute `n_products` is the number of products computed.
    """
    cdef Plan plan
    cdef Kind kind
    cdef bint l2
    cdef object dtype
    cdef Py_ssize_t n
    cdef public Py_ssize_t n_products

    def __init__(self, Plan plan, str kind, bint l2):
        self.plan, self.kind, self.l2, self.n_products = plan, PRODUCT_KINDS[kind], l2, 0
        if plan is not None:
            self.n, self.dtype = plan.P.n, plan.dtype

    cdef bint is_available(self) noexcept:
        """Return True if this operator has fast products."""
        return self.plan is not None

    cdef int apply(self, char *v, char *out) except -1:
        """Set out (n,) to the product of the operator with v (n,)."""
        cdef Plan plan = self.plan
        cdef Job job
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.v, job.l2 = PRODUCT, self.kind, v, plan.l2 if self.l2 else 0
        plan.apply_to_vectors(&job, 1, out, None)
        self.n_products += 1
        return 0

    def multiply(self, v, out=None):
        """Return the product of the operator with v (n,), in `out` or in a new array. Return None,
        without computing anything, if no fast product is available, if v or out is not a
        contiguous, aligned vector of the operator's dtype, or if v and out share memory.
        """
        if not self.is_available():
            return None
        cdef char *v_ = vector_address(v, self.n, self.dtype, False)
        if v_ == NULL:
            return None
        if out is None:
            out = empty(self.n, self.dtype)
        cdef char *out_ = vector_address(out, self.n, self.dtype, True)
        cdef Py_ssize_t size = v.nbytes
        if out_ == NULL or (v_ < out_ + size and out_ < v_ + size):
            return None
        self.apply(v_, out_)
        return out
