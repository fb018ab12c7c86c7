"""Where samples lie across: what takes the place of the passes' own."""
from .kernels cimport fc_loss_rows, fc_product, fc_step
from .state cimport Layer, Matrix, Pass, PlanS


cdef void bias_across(Pass *t, Layer *y, Matrix d, char *out, bint add) noexcept nogil
cdef bint narrow_top(Pass *t) noexcept nogil
cdef void onward_across(Pass *t, fc_step *step) noexcept nogil
cdef void back_across(Pass *t, char *out, bint add, bint full) noexcept nogil
cdef double loss_across(
    Pass *t, fc_loss_rows *here, Layer *y, Py_ssize_t first, Py_ssize_t rows
) noexcept nogil
cdef void r_loss_across(
    Pass *t, fc_loss_rows *here, Layer *y, char *u, Py_ssize_t first, Py_ssize_t rows
) noexcept nogil
cdef void turn(Pass *t, Py_ssize_t units, char *source, char *to) noexcept nogil
cdef void add_turned(Pass *t, fc_product *job, Py_ssize_t l, Matrix d, char *a) noexcept nogil
cdef double top_across(Pass *t, Layer *y) noexcept nogil
cdef void load_across(PlanS *P, Py_ssize_t r0, Py_ssize_t rows) noexcept nogil
cdef void rows_across(
    PlanS *P, Layer *y, char *state, Py_ssize_t r0, char *out
) noexcept nogil
cdef void fill_ones(PlanS *P) noexcept nogil
