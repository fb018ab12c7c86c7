"""The passes of a normalised layer: its product, and what takes the place of the step. -1: the pass
ends here.
"""
from .kernels cimport fc_product
from .state cimport Pass


cdef Py_ssize_t norm_forward(Pass *t, Py_ssize_t l, fc_product *job) noexcept nogil
cdef Py_ssize_t norm_backward(
    Pass *t, Py_ssize_t l, fc_product *job, char *out, bint add
) noexcept nogil
cdef Py_ssize_t norm_r_forward(Pass *t, Py_ssize_t l, fc_product *job) noexcept nogil
cdef double norm_curvature(Pass *t, Py_ssize_t l) noexcept nogil
cdef Py_ssize_t norm_r_backward(
    Pass *t, Py_ssize_t l, fc_product *job, char *out, bint add
) noexcept nogil
