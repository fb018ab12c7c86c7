"""The term l2/2 ||theta||^2, of everything or of the matrices W alone."""
from .state cimport PlanS


# out = l2 x, flat vectors, 0 where l2 spares; out may be x.
cdef void decay(PlanS *P, double l2, char *x, char *out) noexcept nogil
# ||x||^2, of what l2 does not spare.
cdef double decayed(PlanS *P, char *x) noexcept nogil
