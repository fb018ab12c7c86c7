"""All rows of a plan, chunk by chunk: at theta, along v, and where batch normalisation takes the
chunks in turns, the means of one layer after the other.
"""
from .state cimport Job, PlanS


# All chunks forward, and backward into out where the gradient is wanted; returns the loss.
cdef double at_theta(PlanS *P, bint gradient, char *out, bint add) noexcept nogil
# What theta decides, into out: for each layer a, phi', e * phi'' and delta, (N, m) each, or NULL.
# The first two are known once rows went forward, all four once they came `back`.
cdef void states_of(PlanS *P, bint back, char **out) noexcept nogil
# Which layers v moves; NULL: all.
cdef void select(PlanS *P, const char *active) noexcept nogil
# The job over all chunks. out: by parameters (sums over rows), or by rows (JVP), out_step bytes a
# vector.
cdef void along_v(Job *job, char *out, Py_ssize_t out_step) noexcept nogil
