"""How a plan serves its rows, and how its memory is laid out."""
from .memory cimport Arena
from .state cimport Layer, PlanS


# Rows kept at a time, tall or wide, threads or not, under a bound of bytes (0: none).
cdef int choose_chunks(PlanS *P, Py_ssize_t memory) except -1
# Hand out the block; the packed parts of `block` vectors side by side, and what they need; bytes of
# that, 0: too many.
cdef void lay_out(PlanS *P, Arena *A) noexcept nogil
cdef void lay_out_vectors(PlanS *P, Arena *A, Py_ssize_t block) noexcept nogil
cdef size_t bytes_of(PlanS *P, Py_ssize_t block) noexcept nogil
# gamma and beta after the layer's W and b; freed again.
cdef int add_norm(PlanS *P, Layer *y) except -1
cdef object moments_of(Layer *y)
cdef void free_norms(PlanS *P) noexcept nogil
