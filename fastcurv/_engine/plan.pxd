"""The plan, and the products of an operator that holds one; see plan.pyx."""
from .data cimport Rows
from .state cimport Job, PlanS
from .team cimport Lock, Trial, fc_watch


cdef class Plan:
    cdef PlanS P
    cdef char *block_
    cdef char *vector_block
    cdef readonly Rows rows
    cdef object __weakref__
    cdef readonly object theta
    cdef readonly Lock lock
    cdef readonly double value, l2
    cdef readonly object gradient
    cdef readonly Py_ssize_t nbytes
    cdef Py_ssize_t reserved_bytes
    cdef readonly object sizes
    cdef object dtype
    cdef Py_ssize_t memory
    cdef Trial trials[2]        # of forward, and of backward too
    cdef bint multiplied        # the state has been of use to products
    cdef bint passing           # gradients are shown as copies, or forgotten
    cdef object spare           # one's memory: fresh memory would take as long as the passes
    cdef long long since        # when theta's memory began to change; 0: it does not

    cdef int make_block(self) except -1
    cdef int reserve(self, Py_ssize_t block) except -1
    cdef void lay_out_vectors_at(self, char *base, Py_ssize_t block) noexcept nogil
    cdef void let_go(self)
    cdef bint be_at(self, theta, char *source, bint gradient, bint passing) except -1
    cdef int walk(self, bint gradient) except -1
    cdef int end(self, fc_watch before) except -1 nogil
    cdef int go(self, Job *job, char *out, Py_ssize_t out_step) except -1 nogil
    cdef Py_ssize_t room_for(self, Py_ssize_t vectors) except -1
    cdef int along(self, Job *job, Py_ssize_t k, char *out, active) except -1
    cdef int states(self, list out, bint back) except -1
