"""The passes along v over some rows of a chunk."""
from .state cimport Pass


# Returns <e * phi'' * rz, rz> where it is wanted.
cdef double r_forward(Pass *t, bint quadratic) noexcept nogil
cdef void r_loss(Pass *t, char *u) noexcept nogil
# rdW, rdb into out, or rdelta only where it is NULL.
cdef void r_backward(Pass *t, char *out, bint add) noexcept nogil
# After R-forward: sum over layers of 2 <delta, ra_below V'>; <rz, loss'' rz> of the last layer.
cdef double r_dots(Pass *t) noexcept nogil
cdef double top_dot(Pass *t) noexcept nogil
