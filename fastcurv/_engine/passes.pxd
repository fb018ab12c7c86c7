"""The passes over some rows of a chunk: forward, backward, and along v."""
from .state cimport Pass


cdef void forward(Pass *t) noexcept nogil
# dW, db into out, or delta and e * phi'' only where it is NULL.
cdef void backward(Pass *t, char *out, bint add) noexcept nogil
# Returns <e * phi'' * rz, rz> where it is wanted.
cdef double r_forward(Pass *t, bint quadratic) noexcept nogil
cdef void r_loss(Pass *t, char *u) noexcept nogil
cdef void r_backward(Pass *t, char *out, bint add) noexcept nogil
# After R-forward: sum over layers of 2 <delta, ra_below V'>; <rz, loss'' rz> of the last layer.
cdef double r_dots(Pass *t) noexcept nogil
cdef double top_dot(Pass *t) noexcept nogil
