"""Theta taken over, and matrices packed both ways as products want them."""
from .state cimport PlanS


# Be at theta; with a source, whose numbers become theta's on the way. Whether those are finite.
cdef bint take_theta(PlanS *P, char *theta, char *source) noexcept nogil
# A vector of a block, into its place.
cdef void pack_v(PlanS *P, char *v, Py_ssize_t place) noexcept nogil
