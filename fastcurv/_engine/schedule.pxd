"""A chunk's rows through the passes; theta or v packed."""
from .state cimport Job, PlanS


# Both orientations of every W (of every V that moves, into the place of vector v), and the biases.
cdef void pack_all(PlanS *P, char *theta, bint is_v, Py_ssize_t v) noexcept nogil
cdef void serve(Job *job) noexcept nogil
# out = l2 x, flat vectors, 0 where l2 spares; out may be x.
cdef void decay(PlanS *P, double l2, char *x, char *out) noexcept nogil
