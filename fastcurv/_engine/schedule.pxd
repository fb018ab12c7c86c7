"""A chunk's rows through the passes; v packed."""
from .state cimport Job, PlanS


# Take vector j of a job into a place for packed vectors; its result begins as l2 v.
cdef void take_vector(Job *job, Py_ssize_t j, Py_ssize_t place) noexcept nogil
cdef void serve(Job *job) noexcept nogil
