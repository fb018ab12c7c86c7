"""How samples lie, as rows or across, and in how many panels: by sizes alone."""
from .state cimport PlanS


cdef enum:
    TALL_WEIGHTS = 1 << 18      # bytes of parameters up to which products are better served tall
    SERIAL_FLOPS = 3000000      # below this, waking a thread costs more than it saves
    # the same where samples lie across: a product is one job, and nothing is packed before it
    SERIAL_ACROSS = 300000
    FAR_BYTES = 24 << 20        # more does not stay in the third-level cache


# Whether what is kept at theta stays in the third-level cache from product to product.
cdef bint state_is_near(PlanS *P) noexcept nogil
# How many panels N rows are cut into: `near` rows fit into the second-level cache, there can be
# `most` panels.
cdef Py_ssize_t panels_for(PlanS *P, Py_ssize_t near, Py_ssize_t most) noexcept nogil
# Lines of a panel of samples across, or 0 where samples had better be rows; shared: of its one.
cdef Py_ssize_t lines_across(PlanS *P) noexcept nogil
# Whether samples lie across in one panel, whose products all threads share.
cdef bint is_shared(PlanS *P) noexcept nogil
# Whether a wide plan reads W and V where they lie instead of packing them.
cdef bint is_unpacked(PlanS *P) noexcept nogil
# Whether tests have said how samples lie.
cdef bint is_forced() noexcept nogil
